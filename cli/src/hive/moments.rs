//! The past of an app: moments of all its volumes, and WHEN of one.
//!
//! A tag names an instant: all volumes at once. A time is turned into the newest seal of each volume up to it, which of
//! several volumes is no instant; that is said, with the nearest instant beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_api::text::Hex;
use orchestrator_api::wire::app::{App, Moments};
use orchestrator_api::wire::command::{Moment, MomentName};
use orchestrator_api::wire::value::{Number, Text};

use super::Client;
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::when::{FORMS, When};

/// How long a device may take to tell them.
const WAIT_MS: u64 = 20_000;

/// The moments of an app, newest first.
pub fn of(client: &Client, app: &App) -> Result<Moments> {
    let path = format!("/v1/apps/{}/moments?wait_ms={WAIT_MS}", app.id);
    client.get_waiting(&path, Duration::from_millis(WAIT_MS))
}

/// A name with a moment, as `NAME@WHEN`.
pub fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((name, when)) => (name, Some(when)),
        None => (text, None),
    }
}

/// The moment that a person means.
pub fn find(moments: &[Moment], when: &str) -> Result<MomentName> {
    let missing = || {
        Failure::new(Kind::NotFound, format!("the app has no moment \"{}\"", output::escape(when.as_bytes())))
            .hint("`comb app log NAME` lists its moments")
    };
    if moments.iter().any(|moment| moment.tag.as_ref().is_some_and(|tag| tag.as_str() == when)) {
        return Text::try_from(when.to_owned()).map(MomentName::Tag).map_err(|_| missing());
    }
    let end_ms = match When::parse(when, &jiff::Zoned::now())? {
        When::Time(span) => span.end_ms(),
        When::Seq(seq, _) => return one_seal(moments, seq).ok_or_else(missing),
        When::Head => i64::MAX,
        _ => return Err(missing().hint(FORMS)),
    };
    let mut seals: BTreeMap<Hex<32>, (i64, Number)> = BTreeMap::new();
    for moment in moments.iter().filter(|moment| moment.time.0 <= end_ms) {
        for volume in &moment.volumes {
            let newest = seals.entry(volume.volume).or_insert((moment.time.0, volume.seq));
            *newest = (*newest).max((moment.time.0, volume.seq));
        }
    }
    if seals.is_empty() {
        return Err(missing());
    }
    let all = moments.iter().flat_map(|moment| moment.volumes.iter().map(|one| one.volume));
    let lacking = all.filter(|volume| !seals.contains_key(volume)).collect::<std::collections::BTreeSet<_>>();
    if !lacking.is_empty() {
        return Err(Failure::new(Kind::NotFound, "some volumes of the app did not exist then")
            .hint("`comb app log NAME` lists moments of all of them"));
    }
    if seals.len() > 1
        && seals.values().any(|(time, _)| Some(time) != seals.values().next().map(|(time, _)| time))
    {
        output::note("note: the app has several volumes, and that is not one instant of all of them");
        if let Some(nearest) = nearest(moments, end_ms, seals.len()) {
            output::note(&format!("note: the nearest instant is {nearest}"));
        }
    }
    Ok(MomentName::Seals(seals.into_iter().map(|(volume, (_, seq))| (volume, seq)).collect()))
}

/// A seal by its number, of an app with one volume.
fn one_seal(moments: &[Moment], seq: u64) -> Option<MomentName> {
    let mut volumes: Vec<Hex<32>> =
        moments.iter().flat_map(|moment| moment.volumes.iter().map(|one| one.volume)).collect();
    volumes.sort();
    volumes.dedup();
    let [only] = volumes[..] else { return None };
    let is_there = moments.iter().any(|moment| moment.volumes.iter().any(|volume| volume.seq.0 == seq));
    is_there.then(|| MomentName::Seals(BTreeMap::from([(only, Number(seq))])))
}

fn nearest(moments: &[Moment], end_ms: i64, volumes: usize) -> Option<String> {
    let instants = moments.iter().filter(|moment| moment.volumes.len() == volumes && moment.tag.is_some());
    let moment = instants.min_by_key(|moment| moment.time.0.abs_diff(end_ms))?;
    Some(format!(
        "{} of {}",
        moment.tag.as_ref()?,
        output::time_local(moment.time.0.saturating_mul(1_000_000))
    ))
}

#[cfg(test)]
mod tests {
    use orchestrator_api::text::Time;
    use orchestrator_api::wire::command::{MomentReason, MomentVolume};
    use orchestrator_api::wire::value::List;

    use super::*;

    fn moment(tag: Option<&str>, time: i64, volumes: &[(u8, u64)]) -> Moment {
        Moment {
            tag: tag.map(|tag| tag.parse().expect("a tag")),
            time: Time(time),
            reason: MomentReason::Regular,
            volumes: List::cut(volumes.iter().map(|(volume, seq)| MomentVolume {
                volume: Hex([*volume; 32]),
                seq: Number(*seq),
                uuid: None,
                files: Number(0),
                bytes: Number(0),
            })),
        }
    }

    fn seals(pairs: &[(u8, u64)]) -> MomentName {
        MomentName::Seals(pairs.iter().map(|(volume, seq)| (Hex([*volume; 32]), Number(*seq))).collect())
    }

    #[test]
    fn a_moment_is_a_tag_or_the_newest_seals_up_to_a_time() {
        let moments = [
            moment(None, 3_000, &[(1, 9)]),
            moment(Some("release"), 2_000, &[(1, 7), (2, 4)]),
            moment(None, 1_000, &[(2, 3)]),
            moment(None, 500, &[(1, 5)]),
        ];
        assert_eq!(
            find(&moments, "release").expect("a tag"),
            MomentName::Tag("release".parse().expect("a tag"))
        );
        assert_eq!(find(&moments, "head").expect("the newest"), seals(&[(1, 9), (2, 4)]));
        assert_eq!(find(&moments, "1970-01-01T00:00:01Z").expect("a second"), seals(&[(1, 5), (2, 3)]));
        assert_eq!(
            find(&moments, "1970-01-01T00:00:00Z").expect_err("one did not exist").kind,
            Kind::NotFound
        );
        assert_eq!(find(&moments, "nothing").expect_err("no such tag").kind, Kind::NotFound);
        assert_eq!(
            find(&moments, "5").expect_err("of two volumes no number is one moment").kind,
            Kind::NotFound
        );
        let one = [moment(None, 500, &[(1, 5)])];
        assert_eq!(find(&one, "5").expect("the only volume"), seals(&[(1, 5)]));
        assert_eq!(split("photos@yesterday 18:00"), ("photos", Some("yesterday 18:00")));
    }
}
