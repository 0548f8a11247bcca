//! `.snapshots`: the names of moments, and the trees behind them.
//!
//! Invariants
//! - A moment's full name (`TIME.SEQ`) never changes its meaning. Its short name (`TIME`) belongs to the
//!   newest moment of that second, as everywhere, so it is settled when the second is over.
//! - An opened tree never changes, so it may be kept and dropped at will, until its era is over.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use fs_format::{Seq, Timestamp};
use fs_volume::{FsError, ReadTree};
use parking_lot::Mutex;

use crate::engine::{Moment, Past};
use crate::node::SEQ_END;

/// How many opened moments are kept for the next request.
const VIEWS_MAX: usize = 32;

const NANOS: i64 = 1_000_000_000;
const DAY_SECS: i64 = 86_400;

/// Opened moments, the least recently used first.
#[derive(Default)]
pub(crate) struct Views {
    open: Mutex<VecDeque<(Name, Arc<dyn ReadTree>)>>,
}

/// A moment of an era.
type Name = (u64, Seq);

impl Views {
    /// The tree of a moment of an era, opened if it is not kept. `is_now` says whether that era is.
    pub(crate) fn at(
        &self,
        past: &dyn Past,
        (era, seq): Name,
        is_now: impl Fn() -> bool,
    ) -> Result<Arc<dyn ReadTree>, FsError> {
        if let Some(tree) = self.kept((era, seq)) {
            return Ok(tree);
        }
        // Opened without the lock: it may read the disk. Two may do it at once, with equal trees.
        let tree = past.at(seq)?;
        if !is_now() {
            return Err(FsError::Dropped);
        }
        let mut open = self.open.lock();
        if open.len() >= VIEWS_MAX {
            open.pop_front();
        }
        open.push_back(((era, seq), Arc::clone(&tree)));
        Ok(tree)
    }

    fn kept(&self, name: Name) -> Option<Arc<dyn ReadTree>> {
        let mut open = self.open.lock();
        let index = open.iter().position(|(kept, _)| *kept == name)?;
        let entry = open.remove(index)?;
        let tree = Arc::clone(&entry.1);
        open.push_back(entry);
        Some(tree)
    }
}

/// The moments with their unique names, oldest first.
pub(crate) fn named(moments: &[Moment]) -> Vec<(String, Moment)> {
    // Not only beside each other: a clock that was set back passes a second twice.
    let mut taken = HashSet::with_capacity(moments.len());
    let mut named: Vec<_> = nameable(moments)
        .map(|moment| {
            let short = rfc3339(moment.time);
            let is_newest = taken.insert(moment.time.0.div_euclid(NANOS));
            (if is_newest { short } else { full_name(&short, moment.seq) }, *moment)
        })
        .collect();
    named.reverse();
    named
}

/// The moment with this name, short or full.
pub(crate) fn find(moments: &[Moment], name: &str) -> Option<Seq> {
    let (time, seq) = name.split_once('.').map_or((name, None), |(time, seq)| (time, Some(seq)));
    let seq = seq.map(str::parse).transpose().ok()?.map(Seq);
    nameable(moments)
        .find(|moment| seq.is_none_or(|seq| moment.seq == seq) && rfc3339(moment.time) == time)
        .map(|moment| moment.seq)
}

/// Newest first.
fn nameable(moments: &[Moment]) -> impl Iterator<Item = &Moment> {
    moments.iter().rev().filter(|moment| (1..SEQ_END).contains(&moment.seq.0))
}

/// Whether a name is of the form that `.snapshots` lists; others need no look at all moments.
pub(crate) fn is_name(name: &str) -> bool {
    // A year has four digits or more.
    name.find('Z').is_some_and(|at| at >= 19 && (at + 1 == name.len() || name[at + 1..].starts_with('.')))
}

fn full_name(time: &str, seq: Seq) -> String {
    format!("{time}.{}", seq.0)
}

/// A time in UTC to the second, as RFC 3339 writes it.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let secs = time.0.div_euclid(NANOS);
    let (year, month, day) = civil(secs.div_euclid(DAY_SECS));
    let second = secs.rem_euclid(DAY_SECS);
    let mut text = String::with_capacity(20);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    text
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that a leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seq: u64, secs: i64) -> Moment {
        Moment { seq: Seq(seq), time: Timestamp(secs * NANOS + 5) }
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ];
        for (secs, text) in table {
            assert_eq!(rfc3339(Timestamp(secs * NANOS)), text);
        }
    }

    #[test]
    fn moments_of_one_second_stay_apart() {
        // The clock was set back before the last one.
        let moments = [moment(1, 10), moment(2, 10), moment(3, 11), moment(4, 10)];
        let names: Vec<String> = named(&moments).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "1970-01-01T00:00:10Z.1",
                "1970-01-01T00:00:10Z.2",
                "1970-01-01T00:00:11Z",
                "1970-01-01T00:00:10Z"
            ]
        );
        for (name, seq) in [
            ("1970-01-01T00:00:10Z", Some(4)),
            ("1970-01-01T00:00:10Z.1", Some(1)),
            ("1970-01-01T00:00:10Z.2", Some(2)),
            ("1970-01-01T00:00:11Z.3", Some(3)),
            ("1970-01-01T00:00:11Z.2", None),
            ("1970-01-01T00:00:10Z.x", None),
            ("1970-01-01T00:00:12Z", None),
        ] {
            assert_eq!(find(&moments, name), seq.map(Seq), "{name}");
            assert!(is_name(name), "{name}");
        }
        for name in ["t10", "yesterday 18:00", "7d0c2e4a-0000-4000-8000-000000000001", "Z", "Z.1"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
