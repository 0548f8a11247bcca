//! The language of retention, and what its plans promise.

use std::collections::{BTreeMap, BTreeSet};

use fs_format::{ManifestId, Seq, SnapshotId, Timestamp};
use fs_volume::retention::{Plan, Policy, Reason, plan};
use fs_volume::{SealInfo, SnapshotLabel};

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-11-21T15:20:00Z, a Saturday.
const NOW: Timestamp = Timestamp(1_795_274_400_000_000_000);

fn moment(seq: u64, time: i64, tags: Option<&[&str]>) -> SealInfo {
    let label = |tags: &[&str]| SnapshotLabel {
        id: SnapshotId([1; 16]),
        message: String::new(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    SealInfo {
        seq: Seq(seq),
        id: ManifestId([0; 32]),
        time: Timestamp(time),
        files: 0,
        bytes: 0,
        added: 0,
        snapshot: tags.map(label),
    }
}

/// Moments of these ages, the oldest first.
fn aged(ages: impl IntoIterator<Item = i64>) -> Vec<SealInfo> {
    ages.into_iter().enumerate().map(|(i, age)| moment(i as u64 + 1, NOW.0 - age, None)).collect()
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn kept(moments: &[SealInfo], text: &str) -> Vec<u64> {
    plan(moments, &BTreeSet::new(), &[], &policy(text), NOW).keep.iter().map(|kept| kept.seq.0).collect()
}

#[test]
fn the_canonical_form_means_the_same() {
    for (text, canonical) in [
        (
            "keep 5m for 3h, 1h for 2d, 1d for 30d, 1w for 1y; keep tag release forever; keep last 3",
            "keep 5m for 3h, 1h for 2d, 1d for 30d, 1w for 1y; keep tag release forever; keep last 3",
        ),
        ("keep  5m\tfor 3h\nkeep last 3;;\n", "keep 5m for 3h; keep last 3"),
        ("keep all for 1d, keep snapshots for 90d", "keep all for 1d; keep snapshots for 90d"),
        ("keep 1d for ever;keep 1mo for 5y", "keep 1d forever, 1mo for 5y"),
        ("keep tag keep for 3s", "keep tag keep for 3s"),
        ("keep last 03", "keep last 3"),
    ] {
        let parsed = policy(text);
        assert_eq!(parsed.to_string(), canonical);
        assert_eq!(policy(canonical), parsed);
    }
}

#[test]
fn what_is_not_understood_is_pointed_at() {
    for (text, at, what) in [
        ("", "", "there is no rule"),
        (" ;\n", "", "there is no rule"),
        ("hold 5m for 3h", "hold", "`keep` is expected"),
        ("keep", "", "a rule is expected"),
        ("keep 5m", "", "`for` and a length"),
        ("keep 5m for", "", "a length of time as `2d` is expected"),
        ("keep 5m for ; keep last 1", ";", "a length of time as `2d` is expected"),
        ("keep 5x for 3h", "5x", "`5x` is no length of time"),
        ("keep 5m for h", "h", "`h` is no length of time"),
        ("keep 0m for 3h", "0m", "`0m` is no length of time"),
        ("keep 4294967296m for 3h", "4294967296m", "is no length of time"),
        ("keep 5m for 3h 1h for 2d", "1h", "`,` or `;` is expected"),
        ("keep 1w for 1d", "1w for 1d", "longer than it is kept for"),
        ("keep last", "", "a number is expected"),
        ("keep last 0", "0", "`0` is not a number from 1 on"),
        ("keep last -1", "-1", "`-1` is not a number from 1 on"),
        ("keep tag", "", "a tag is expected"),
        ("keep tag release", "", "`for` and a length"),
        ("keep weekly for 1y", "weekly", "`weekly` is no rule"),
        ("keep last 3; keep wéekly", "wéekly", "`wéekly` is no rule"),
    ] {
        let error = Policy::parse(text).expect_err(text);
        assert_eq!(&text[error.at.clone()], at, "{text}: {error}");
        assert!(error.to_string().contains(what), "{text}: {error}");
    }
    assert!(Policy::parse(&"keep last 1;".repeat(65)).is_err());
    assert!(Policy::parse(&"k".repeat(5000)).is_err());
}

#[test]
fn each_period_keeps_its_newest() {
    // Every ten minutes for two days.
    let moments = aged((0..288).rev().map(|i| i * 10 * MINUTE));
    let hourly = kept(&moments, "keep 1h for 2d");
    assert_eq!(hourly.len(), 49, "the hour that runs, 47 whole ones, and the one that the window cuts");
    let by_seq: BTreeMap<u64, i64> = moments.iter().map(|moment| (moment.seq.0, moment.time.0)).collect();
    for seq in &hourly[..48] {
        let time = by_seq[seq];
        assert!(time / HOUR != (time + 10 * MINUTE) / HOUR, "the last of its hour");
    }
    assert_eq!(kept(&moments, "keep 1d for 30d").len(), 3);
    assert_eq!(kept(&moments, "keep last 3"), [286, 287, 288]);
    assert_eq!(kept(&moments, "keep all for 30m"), [285, 286, 287, 288]);
    assert_eq!(kept(&moments, "keep all forever").len(), 288);
    assert_eq!(kept(&aged([400 * DAY, 3 * DAY, 2 * DAY]), "keep 1d for 1d"), [3], "the newest, however old");
}

#[test]
fn periods_are_those_of_the_calendar_in_utc() {
    let day = |days: i64| NOW.0 - NOW.0.rem_euclid(DAY) + days * DAY;
    // Monday the 16th begins the week; the 15th was a Sunday.
    let week = [moment(1, day(-6), None), moment(2, day(-5) - 1, None), moment(3, day(-5), None)];
    assert_eq!(kept(&week, "keep 1w forever"), [2, 3]);
    // November began 20 days before the 21st.
    let month = [moment(1, day(-20) - 1, None), moment(2, day(-20), None), moment(3, day(0), None)];
    assert_eq!(kept(&month, "keep 1mo forever"), [1, 3]);
    // 2026 began 324 days before; leap years and centuries are what they are.
    let year = [moment(1, day(-324) - 1, None), moment(2, day(-324), None), moment(3, day(-1), None)];
    assert_eq!(kept(&year, "keep 1y forever"), [1, 3]);
    let leap_day = 951_782_400_000_000_000; // 2000-02-29
    let february =
        [moment(1, leap_day - DAY, None), moment(2, leap_day, None), moment(3, leap_day + DAY, None)];
    assert_eq!(kept(&february, "keep 1mo forever"), [2, 3]);
}

#[test]
fn what_somebody_made_by_hand_stays_until_a_rule_says_otherwise() {
    let moments = [
        moment(1, NOW.0 - 400 * DAY, Some(&[])),
        moment(2, NOW.0 - 300 * DAY, Some(&["release"])),
        moment(3, NOW.0 - 200 * DAY, Some(&["nightly"])),
        moment(4, NOW.0 - 100 * DAY, Some(&["nightly", "release"])),
        moment(5, NOW.0 - 50 * DAY, None),
        moment(6, NOW.0, None),
    ];
    assert_eq!(kept(&moments, "keep last 1"), [1, 2, 3, 4, 6]);
    assert_eq!(kept(&moments, "keep last 1; keep tag nightly for 30d"), [1, 2, 6]);
    assert_eq!(
        kept(&moments, "keep last 1; keep tag nightly for 30d; keep tag release forever"),
        [1, 2, 4, 6]
    );
    assert_eq!(kept(&moments, "keep last 1; keep snapshots for 250d"), [3, 4, 6]);
    assert_eq!(kept(&moments, "keep last 1; keep snapshots for 1d; keep tag release forever"), [2, 4, 6]);
    let reasons =
        plan(&moments, &BTreeSet::new(), &[Seq(5)], &policy("keep last 1; keep tag release forever"), NOW);
    let said: Vec<String> = reasons
        .keep
        .iter()
        .map(|kept| kept.reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join(", "))
        .collect();
    let expected = ["made by hand", "tag release forever", "made by hand", "tag release forever", "in use"];
    assert_eq!(said[..5], expected);
    assert_eq!(said[5], "newest, last 1");
}

#[test]
fn a_dropped_moment_names_what_stands_for_it() {
    let moments = aged([400 * DAY, 2 * DAY + 2 * HOUR, 2 * DAY + HOUR, 15 * MINUTE, 10 * MINUTE, 0]);
    let plan = plan(&moments, &BTreeSet::new(), &[], &policy("keep 1h for 1d, 1d for 30d"), NOW);
    let dropped: Vec<(u64, Option<u64>)> =
        plan.drop.iter().map(|gone| (gone.seq.0, gone.instead.map(|seq| seq.0))).collect();
    assert_eq!(dropped, [(1, None), (2, Some(3)), (4, Some(6)), (5, Some(6))]);
}

/// Numbers that only look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    fn moments(&mut self) -> Vec<SealInfo> {
        let mut time = NOW.0 - self.below(3000) as i64 * HOUR;
        let mut seq = 0;
        let count = 1 + self.below(120);
        let wild = self.below(8) == 0;
        let mut moments = Vec::new();
        for _ in 0..count {
            seq += 1 + self.below(3);
            // A clock goes on by little or much; now and then it is set back, or far ahead.
            time = match self.below(40) {
                0 => time.saturating_sub(self.below(1000) as i64 * HOUR),
                1 if wild => *self.pick(&[i64::MIN, i64::MAX, 0, -1]),
                2..=9 => time.saturating_add(self.below(90) as i64 * HOUR),
                _ => time.saturating_add(self.below(90) as i64 * MINUTE),
            };
            let tags: &[Option<&[&str]>] =
                &[None, None, None, None, Some(&[]), Some(&["a"]), Some(&["a", "b"])];
            moments.push(moment(seq, time, *self.pick(tags)));
        }
        moments
    }

    /// Rules that only add to what is kept.
    fn keeping(&mut self) -> String {
        let rules = [
            "5m for 3h",
            "1h for 2d",
            "7h for 60d",
            "1d for 30d",
            "1w for 1y",
            "1mo for 1y",
            "1y forever",
            "1s for 4294967295y",
            "3mo forever",
            "all for 2h",
            "last 1",
            "last 7",
            "tag a forever",
        ];
        format!("keep {}", self.pick(&rules))
    }

    fn policy(&mut self) -> String {
        let letting_go =
            ["keep tag a for 2d", "keep snapshots for 5d", "keep tag b for 1y", "keep tag c for 1d"];
        let mut rules: Vec<String> = (0..1 + self.below(5)).map(|_| self.keeping()).collect();
        if self.below(3) == 0 {
            rules.push((*self.pick(&letting_go)).to_owned());
        }
        rules.join("; ")
    }

    fn now(&mut self) -> Timestamp {
        match self.below(12) {
            0 => Timestamp(*self.pick(&[i64::MIN, i64::MAX, 0])),
            1 => Timestamp(NOW.0 - 5000 * HOUR),
            _ => NOW,
        }
    }
}

fn seqs(plan: &Plan) -> Vec<Seq> {
    plan.keep.iter().map(|kept| kept.seq).collect()
}

#[test]
fn plans_keep_what_they_promise() {
    for seed in 0..3000 {
        let mut dice = Dice(seed);
        let (moments, text, now) = (dice.moments(), dice.policy(), dice.now());
        let pinned = if dice.below(3) == 0 { vec![dice.pick(&moments).seq] } else { Vec::new() };
        let rules = policy(&text);
        // What is in each; some are the same as the one before.
        let mut state = 0;
        let states: BTreeMap<Seq, u64> = (moments.iter())
            .map(|moment| {
                state += u64::from(dice.below(3) > 0);
                (moment.seq, state % 5)
            })
            .collect();
        let repeats = |moments: &[SealInfo]| -> BTreeSet<Seq> {
            let same = |pair: &&[SealInfo]| states[&pair[0].seq] == states[&pair[1].seq];
            let unnamed = |pair: &&[SealInfo]| pair[1].snapshot.is_none();
            moments.windows(2).filter(same).filter(unnamed).map(|pair| pair[1].seq).collect()
        };
        let first = plan(&moments, &repeats(&moments), &pinned, &rules, now);
        let said = || format!("seed {seed}, {text}, now {now}");

        // Each moment is told once, and each kept one has a reason.
        let mut told: Vec<Seq> =
            seqs(&first).into_iter().chain(first.drop.iter().map(|gone| gone.seq)).collect();
        told.sort();
        assert_eq!(told, moments.iter().map(|moment| moment.seq).collect::<Vec<_>>(), "{}", said());
        assert!(first.keep.iter().all(|kept| !kept.reasons.is_empty()), "{}", said());
        let is_kept = |seq: Seq| first.keep.iter().any(|kept| kept.seq == seq);
        assert!(is_kept(moments.last().expect("one at least").seq), "the newest: {}", said());
        assert!(pinned.iter().all(|&seq| is_kept(seq)), "pinned: {}", said());
        assert!(first.drop.iter().all(|gone| gone.instead.is_none_or(is_kept)), "{}", said());

        // Planning again over what was kept drops nothing more.
        let left: Vec<SealInfo> = moments.iter().filter(|moment| is_kept(moment.seq)).cloned().collect();
        assert_eq!(plan(&left, &repeats(&left), &pinned, &rules, now).drop, [], "{}", said());

        // One more rule that keeps never keeps less.
        let more = format!("{text}; {}", dice.keeping());
        let second = plan(&moments, &repeats(&moments), &pinned, &policy(&more), now);
        let lost: Vec<Seq> = seqs(&first).into_iter().filter(|seq| !seqs(&second).contains(seq)).collect();
        // A tag that is kept forever takes over from what another rule about tags or snapshots says.
        assert_eq!(lost, [], "{} against {more}", said());

        // A clock that goes back never drops what was kept, but for newer moments in the same period.
        let earlier = Timestamp(now.0.saturating_sub(dice.below(2000) as i64 * HOUR));
        let back = plan(&left, &repeats(&left), &pinned, &rules, earlier);
        assert_eq!(back.drop, [], "back to {earlier}: {}", said());
        assert_eq!(policy(&rules.to_string()), rules);
    }
}

#[test]
fn what_pruning_makes_takes_no_state_away() {
    // Three states, and what pruned them since.
    let moments: Vec<SealInfo> =
        (1..=6).map(|seq| moment(seq, NOW.0 - 10 * MINUTE + seq as i64, None)).collect();
    let repeats = BTreeSet::from([Seq(4), Seq(5), Seq(6)]);
    let kept = plan(&moments, &repeats, &[], &policy("keep last 3"), NOW);
    assert_eq!(seqs(&kept), (1..=6).map(Seq).collect::<Vec<_>>(), "nothing goes for what is the same");
    let kept = plan(&moments, &repeats, &[], &policy("keep last 2"), NOW);
    assert_eq!(seqs(&kept), [Seq(2), Seq(3), Seq(6)], "two states, and the newest");
    let kept = plan(&moments, &BTreeSet::new(), &[], &policy("keep last 2"), NOW);
    assert_eq!(seqs(&kept), [Seq(5), Seq(6)]);
}

#[test]
fn any_text_is_understood_or_refused_at_a_place_in_it() {
    let words = [
        "keep",
        "keep last 3",
        "5m for",
        "1h",
        "for 2d",
        ",",
        ";",
        "; keep",
        "tag x",
        "forever",
        "\n",
        "é",
        "all",
    ];
    let mut understood = 0;
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let text: Vec<&str> = (0..dice.below(12)).map(|_| *dice.pick(&words)).collect();
        let text = text.join(if dice.below(4) == 0 { "" } else { " " });
        match Policy::parse(&text) {
            Ok(policy) => {
                understood += 1;
                assert_eq!(Policy::parse(&policy.to_string()), Ok(policy));
            }
            Err(error) => assert!(text.get(error.at.clone()).is_some(), "{text:?}: {:?}", error.at),
        }
    }
    assert!(understood > 100, "{understood}");
}
