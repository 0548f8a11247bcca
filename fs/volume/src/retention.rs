//! Retention: which moments a policy keeps. Pure; `semantics.md` has the language.
//!
//! Invariants
//! - The newest moment and those that are pinned are kept, whatever the policy says.
//! - Planning again over what a plan keeps, at the same time, drops nothing more.
//! - A rule more never keeps less, but for rules with a span about what somebody made by hand: they say when to let go of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use fs_format::ledger::POLICY_BYTES_MAX;
use fs_format::{Seq, Timestamp};

use crate::types::SealInfo;

/// The most rules of a policy, each bucket one.
pub const RULES_MAX: usize = 64;

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// Which moments are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// One moment, the newest, of each period that began so long ago at most.
    Every(Length, Span),
    /// Every moment.
    All(Span),
    /// Snapshots with this tag.
    Tag(String, Span),
    /// Snapshots that somebody made by hand and that no rule about a tag speaks of.
    Snapshots(Span),
    /// The newest ones.
    Last(u64),
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    count: u32,
    unit: Unit,
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// For so long.
    For(Length),
    /// For ever.
    Forever,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    const ALL: [(Unit, &'static str); 7] = [
        (Self::Second, "s"),
        (Self::Minute, "m"),
        (Self::Hour, "h"),
        (Self::Day, "d"),
        (Self::Week, "w"),
        (Self::Month, "mo"),
        (Self::Year, "y"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(unit, _)| *unit == self).map_or("", |(_, name)| name)
    }
}

impl Length {
    /// How long it is at most: months and years differ.
    fn nanos(self) -> i128 {
        let unit = match self.unit {
            Unit::Second => SECOND,
            Unit::Minute => 60 * SECOND,
            Unit::Hour => 3600 * SECOND,
            Unit::Day => DAY,
            Unit::Week => 7 * DAY,
            Unit::Month => 31 * DAY,
            Unit::Year => 366 * DAY,
        };
        i128::from(self.count) * unit
    }

    /// The number of the period that a time is in, in UTC: days begin at midnight, weeks on Monday, months and years as in
    /// the calendar.
    fn period(self, time: Timestamp) -> i128 {
        let time = i128::from(time.0);
        let count = i128::from(self.count);
        match self.unit {
            // 1970-01-01 was a Thursday.
            Unit::Week => (time + 3 * DAY).div_euclid(7 * DAY * count),
            Unit::Month => month(time).div_euclid(count),
            Unit::Year => month(time).div_euclid(12 * count),
            _ => time.div_euclid(self.nanos()),
        }
    }
}

/// Months since the beginning of the year 0.
fn month(nanos: i128) -> i128 {
    // The year is counted from March, so that the day that is sometimes there is its last.
    let days = nanos.div_euclid(DAY) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    (era * 400 + year) * 12 + (5 * day_of_year + 2) / 153 + 2
}

impl Span {
    fn reaches(self, age: i128) -> bool {
        match self {
            Self::For(length) => age <= length.nanos(),
            Self::Forever => true,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, self.unit.name())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(length) => write!(f, "for {length}"),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every, span) => write!(f, "{every} {span}"),
            Self::All(span) => write!(f, "all {span}"),
            Self::Tag(tag, span) => write!(f, "tag {tag} {span}"),
            Self::Snapshots(span) => write!(f, "snapshots {span}"),
            Self::Last(count) => write!(f, "last {count}"),
        }
    }
}

/// The canonical form, which parses to the same policy.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Rule> = None;
        for rule in &self.rules {
            // Buckets stand together, as people write them.
            match (before, rule) {
                (None, _) => f.write_str("keep ")?,
                (Some(Rule::Every(..)), Rule::Every(..)) => f.write_str(", ")?,
                _ => f.write_str("; keep ")?,
            }
            rule.fmt(f)?;
            before = Some(rule);
        }
        Ok(())
    }
}

/// Why a policy was not understood, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct PolicyError {
    /// What is wrong.
    pub what: String,
    /// The bytes of the text that are meant; at its end where something is missing.
    pub at: Range<usize>,
}

impl Policy {
    /// The tags of which a rule speaks.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Tag(tag, _) => Some(tag.as_str()),
            _ => None,
        })
    }

    /// Reads `keep 5m for 3h, 1h for 2d; keep tag release forever; keep last 3`.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            let what = format!("a policy has at most {POLICY_BYTES_MAX} bytes");
            return Err(PolicyError { what, at: POLICY_BYTES_MAX..text.len() });
        }
        let mut words = Words { text, at: 0 };
        let mut rules = Vec::new();
        loop {
            while words.takes(";") {}
            if words.peek().is_none() {
                break;
            }
            words.expect("keep")?;
            loop {
                rules.push(rule(&mut words)?);
                if rules.len() > RULES_MAX {
                    return Err(words.error(&format!("a policy has at most {RULES_MAX} rules")));
                }
                if !words.takes(",") {
                    break;
                }
                words.takes("keep");
            }
            if words.peek().is_some() && !words.takes(";") {
                return Err(words.error("`,` or `;` is expected between rules"));
            }
        }
        if rules.is_empty() {
            return Err(words.error("there is no rule; `keep all forever` keeps every moment"));
        }
        let policy = Self { rules };
        // What is stored is the canonical form.
        if policy.to_string().len() > POLICY_BYTES_MAX {
            return Err(words.error(&format!("a policy has at most {POLICY_BYTES_MAX} bytes")));
        }
        Ok(policy)
    }

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

fn rule(words: &mut Words<'_>) -> Result<Rule, PolicyError> {
    let Some((word, at)) = words.peek() else {
        return Err(words.error("a rule is expected: a length of time, `all`, `last`, `tag` or `snapshots`"));
    };
    match word {
        "all" => {
            words.next();
            Ok(Rule::All(span(words)?))
        }
        "snapshots" => {
            words.next();
            Ok(Rule::Snapshots(span(words)?))
        }
        "tag" => {
            words.next();
            let (tag, _) = words.name("a tag is expected")?;
            Ok(Rule::Tag(tag.to_owned(), span(words)?))
        }
        "last" => {
            words.next();
            let (count, at) = words.name("a number is expected")?;
            match count.parse() {
                Ok(count) if count > 0 => Ok(Rule::Last(count)),
                _ => Err(PolicyError { what: format!("`{}` is not a number from 1 on", shown(count)), at }),
            }
        }
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => {
            let every = length(words)?;
            let rule = Rule::Every(every, span(words)?);
            if let Rule::Every(every, Span::For(span)) = rule
                && every.nanos() > span.nanos()
            {
                let what =
                    format!("one in {every} for only {span}: the period is longer than it is kept for");
                return Err(PolicyError { what, at: at.start..words.at });
            }
            Ok(rule)
        }
        _ => {
            let what = format!(
                "`{}` is no rule: a length of time as `1h`, `all`, `last`, `tag` or `snapshots` is expected",
                shown(word)
            );
            Err(PolicyError { what, at })
        }
    }
}

fn span(words: &mut Words<'_>) -> Result<Span, PolicyError> {
    if words.takes("forever") {
        return Ok(Span::Forever);
    }
    if !words.takes("for") {
        return Err(words.error("`for` and a length of time, or `forever`, is expected"));
    }
    // As some people write it.
    if words.takes("ever") {
        return Ok(Span::Forever);
    }
    Ok(Span::For(length(words)?))
}

fn length(words: &mut Words<'_>) -> Result<Length, PolicyError> {
    let (word, at) = words.name("a length of time as `2d` is expected")?;
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (count, unit) = word.split_at(digits);
    let unit = Unit::ALL.iter().find(|(_, name)| *name == unit).map(|(unit, _)| *unit);
    match (count.parse::<u32>(), unit) {
        (Ok(count), Some(unit)) if count > 0 => Ok(Length { count, unit }),
        _ => {
            let what = format!(
                "`{}` is no length of time: a number from 1 on and s, m, h, d, w, mo or y, as `2d`, is expected",
                shown(word)
            );
            Err(PolicyError { what, at })
        }
    }
}

/// A word in a message: somebody may have put a whole text in a word's place.
fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

/// The words of a text; `,` and `;` are words, and a line's end is a `;`.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<(&'a str, Range<usize>)> {
        let rest = &self.text[self.at..];
        let is_blank = |c: char| c.is_whitespace() && c != '\n';
        let skipped = rest.find(|c: char| !is_blank(c))?;
        let word = &rest[skipped..];
        let ends = |c: char| c.is_whitespace() || c == ',' || c == ';';
        let first = word.chars().next().map_or(0, char::len_utf8);
        let len = if word.starts_with(ends) { first } else { word.find(ends).unwrap_or(word.len()) };
        let start = self.at + skipped;
        let word = if word.starts_with('\n') { ";" } else { &word[..len] };
        Some((word, start..start + len))
    }

    fn next(&mut self) {
        if let Some((_, at)) = self.peek() {
            self.at = at.end;
        }
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let is_there = self.peek().is_some_and(|(word, _)| word == wanted);
        if is_there {
            self.next();
        }
        is_there
    }

    fn expect(&mut self, wanted: &str) -> Result<(), PolicyError> {
        if self.takes(wanted) { Ok(()) } else { Err(self.error(&format!("`{wanted}` is expected"))) }
    }

    fn name(&mut self, what: &str) -> Result<(&'a str, Range<usize>), PolicyError> {
        match self.peek() {
            Some((word, at)) if !matches!(word, "," | ";") => {
                self.at = at.end;
                Ok((word, at))
            }
            _ => Err(self.error(what)),
        }
    }

    /// An error at the next word.
    fn error(&self, what: &str) -> PolicyError {
        let at = self.peek().map_or(self.text.len()..self.text.len(), |(_, at)| at);
        PolicyError { what: what.into(), at }
    }
}

/// What becomes of moments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Those that are kept, oldest first.
    pub keep: Vec<Kept>,
    /// The others, oldest first.
    pub drop: Vec<Dropped>,
}

/// A moment that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub seq: Seq,
    /// Why; at least one reason.
    pub reasons: Vec<Reason>,
}

/// A moment that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Which.
    pub seq: Seq,
    /// The one that stands for it in the last period that it was in; `None`: it is older than any rule reaches.
    pub instead: Option<Seq>,
}

/// Why a moment is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest.
    Newest,
    /// Something holds it: a mount, a branch.
    Pinned,
    /// Somebody made it by hand, and no rule says until when.
    ByHand,
    /// A rule.
    Rule(Rule),
    /// It is the same as the one before, and goes with the next that is dropped: a pruning of its own, which makes a moment,
    /// would go on for ever.
    Repeat,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Pinned => f.write_str("in use"),
            Self::ByHand => f.write_str("made by hand"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Repeat => f.write_str("the same as the one before"),
        }
    }
}

/// Says which of a volume's moments a policy keeps.
///
/// `repeats` are those in which all files are the same as in the one before: what pruning makes, above all. For rules they do not
/// count, or a volume that nobody writes would lose one state after the other to them.
pub fn plan(
    moments: &[SealInfo],
    repeats: &BTreeSet<Seq>,
    pinned: &[Seq],
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    let mut reasons: BTreeMap<Seq, Vec<Reason>> =
        moments.iter().map(|moment| (moment.seq, Vec::new())).collect();
    let mut keep = |seq: Seq, reason: Reason| {
        if let Some(reasons) = reasons.get_mut(&seq)
            && !reasons.contains(&reason)
        {
            reasons.push(reason);
        }
    };
    // What a clock that was ahead has stamped is as new as can be.
    let age = |moment: &SealInfo| (i128::from(now.0) - i128::from(moment.time.0)).max(0);
    if let Some(newest) = moments.iter().map(|moment| moment.seq).max() {
        keep(newest, Reason::Newest);
    }
    pinned.iter().for_each(|&seq| keep(seq, Reason::Pinned));
    let states: Vec<&SealInfo> = moments.iter().filter(|moment| !repeats.contains(&moment.seq)).collect();
    // Those that stand for their period, by rule and period.
    let mut standing: BTreeMap<(usize, i128), &SealInfo> = BTreeMap::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        match rule {
            Rule::Every(every, span) => {
                for &moment in states.iter().filter(|moment| span.reaches(age(moment))) {
                    let stands = standing.entry((i, every.period(moment.time))).or_insert(moment);
                    if (moment.time, moment.seq) > (stands.time, stands.seq) {
                        *stands = moment;
                    }
                }
            }
            Rule::All(span) => states
                .iter()
                .filter(|moment| span.reaches(age(moment)))
                .for_each(|moment| keep(moment.seq, Reason::Rule(rule.clone()))),
            Rule::Last(count) => {
                let mut newest: Vec<Seq> = states.iter().map(|moment| moment.seq).collect();
                newest.sort_unstable();
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                newest.iter().rev().take(count).for_each(|&seq| keep(seq, Reason::Rule(rule.clone())));
            }
            Rule::Tag(..) | Rule::Snapshots(_) => {}
        }
    }
    for ((i, _), moment) in &standing {
        keep(moment.seq, Reason::Rule(policy.rules[*i].clone()));
    }
    for moment in moments {
        by_hand(moment, policy, age(moment)).into_iter().for_each(|reason| keep(moment.seq, reason));
    }
    let mut plan = Plan::default();
    let times: BTreeMap<Seq, &SealInfo> = moments.iter().map(|moment| (moment.seq, moment)).collect();
    for (seq, reasons) in reasons {
        if !reasons.is_empty() {
            plan.keep.push(Kept { seq, reasons });
            continue;
        }
        let instead = policy.rules.iter().enumerate().rev().find_map(|(i, rule)| match rule {
            Rule::Every(every, span) if span.reaches(age(times[&seq])) => {
                standing.get(&(i, every.period(times[&seq].time))).map(|moment| moment.seq)
            }
            _ => None,
        });
        plan.drop.push(Dropped { seq, instead });
    }
    if plan.drop.iter().all(|gone| repeats.contains(&gone.seq)) {
        let kept = plan.drop.drain(..).map(|gone| Kept { seq: gone.seq, reasons: vec![Reason::Repeat] });
        plan.keep.extend(kept);
        plan.keep.sort_by_key(|kept| kept.seq);
    }
    plan
}

/// Why a snapshot that somebody made by hand is kept for that.
fn by_hand(moment: &SealInfo, policy: &Policy, age: i128) -> Vec<Reason> {
    let Some(label) = &moment.snapshot else { return Vec::new() };
    let tags: BTreeSet<&str> = label.tags.iter().map(String::as_str).collect();
    let about_tags: Vec<(&Rule, Span)> = policy
        .rules
        .iter()
        .filter_map(|rule| match rule {
            Rule::Tag(tag, span) if tags.contains(tag.as_str()) => Some((rule, *span)),
            _ => None,
        })
        .collect();
    let about_all: Vec<(&Rule, Span)> = policy
        .rules
        .iter()
        .filter_map(|rule| match rule {
            Rule::Snapshots(span) => Some((rule, *span)),
            _ => None,
        })
        .collect();
    let decisive = if about_tags.is_empty() { about_all } else { about_tags };
    if decisive.is_empty() {
        return vec![Reason::ByHand];
    }
    let holding = decisive.into_iter().filter(|(_, span)| span.reaches(age));
    holding.map(|(rule, _)| Reason::Rule(rule.clone())).collect()
}
