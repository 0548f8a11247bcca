//! Since when there are changes that a store lacks.

use std::collections::VecDeque;

use fs_format::Seq;
use fs_volume::SealInfo;

/// When the oldest change was made that is in no seal, or in none that a store has.
///
/// Times are nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct Changes {
    unsealed_since: Option<i64>,
    /// Seals that a store lacked when this began, and those since.
    sealed: VecDeque<SealedChanges>,
}

/// A seal, when it was made, and the oldest change in it.
#[derive(Debug)]
pub struct SealedChanges {
    seq: Seq,
    pub sealed: i64,
    oldest: i64,
    /// What it added.
    bytes: u64,
}

/// Seals that are remembered one by one; the oldest of more count as one.
const SEALS_KEPT: usize = 4096;

impl Changes {
    pub fn look(&mut self, is_dirty: bool, now: i64) {
        if is_dirty {
            self.unsealed_since.get_or_insert(now);
        }
    }

    pub fn seal(&mut self, seq: Seq, sealed: i64, bytes: u64) {
        let oldest = self.unsealed_since.take().unwrap_or(sealed);
        // One that was just read from the disk is known.
        if self.sealed.back().is_none_or(|last| last.seq < seq) {
            self.sealed.push_back(SealedChanges { seq, sealed, oldest, bytes });
            self.keep_some();
        }
    }

    /// Takes in seals of before, oldest first. When their changes were made is not known: no later than they were.
    pub fn seals_before(&mut self, seals: &[SealInfo]) {
        let first = self.sealed.front().map(|seal| seal.seq);
        for seal in seals.iter().rev().filter(|seal| first.is_none_or(|first| seal.seq < first)) {
            let (sealed, bytes) = (seal.time.0, seal.added);
            self.sealed.push_front(SealedChanges { seq: seal.seq, sealed, oldest: sealed, bytes });
        }
        self.keep_some();
    }

    fn keep_some(&mut self) {
        while self.sealed.len() > SEALS_KEPT {
            // The oldest change stays; that it counts for a later seal makes a store look later, never earlier.
            let left = self.sealed.pop_front();
            if let (Some(left), Some(first)) = (left, self.sealed.front_mut()) {
                (first.sealed, first.oldest) = (left.sealed, left.oldest);
                first.bytes += left.bytes;
            }
        }
    }

    /// The oldest seal that a store with seals up to this one lacks.
    pub fn missing(&self, replicated: Option<Seq>) -> Option<&SealedChanges> {
        self.sealed.iter().find(|seal| Some(seal.seq) > replicated)
    }

    /// The oldest change that a store with seals up to this one lacks.
    pub fn oldest_missing(&self, replicated: Option<Seq>) -> Option<i64> {
        self.missing(replicated).map(|seal| seal.oldest).or(self.unsealed_since)
    }

    /// Bytes of the seals that a store with seals up to this one lacks.
    pub fn bytes_missing(&self, replicated: Option<Seq>) -> u64 {
        self.sealed.iter().filter(|seal| Some(seal.seq) > replicated).map(|seal| seal.bytes).sum()
    }

    pub fn forget(&mut self, everywhere: Seq) {
        while self.sealed.front().is_some_and(|seal| seal.seq <= everywhere) {
            self.sealed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use fs_format::ManifestId;

    use super::*;

    #[test]
    fn what_is_not_safe_is_counted_from_the_first_change_that_the_store_lacks() {
        let mut changes = Changes::default();
        assert_eq!(changes.oldest_missing(Some(Seq(1))), None, "nothing was changed");
        changes.look(true, 10);
        changes.look(true, 12);
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(10));
        changes.seal(Seq(2), 15, 100);
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(10), "sealed is not replicated");
        changes.look(true, 16);
        changes.seal(Seq(3), 20, 10);
        assert_eq!(changes.oldest_missing(Some(Seq(2))), Some(16));
        assert_eq!(changes.oldest_missing(None), Some(10), "a store that has nothing lacks everything");
        assert_eq!(changes.bytes_missing(None), 110);
        assert_eq!((changes.bytes_missing(Some(Seq(2))), changes.bytes_missing(Some(Seq(3)))), (10, 0));
        assert_eq!(changes.oldest_missing(Some(Seq(3))), None);
        changes.forget(Seq(2));
        assert_eq!(changes.oldest_missing(Some(Seq(2))), Some(16));
    }

    #[test]
    fn seals_of_before_come_before_those_that_are_known() {
        let seal = |seq: u64| SealInfo {
            seq: Seq(seq),
            id: ManifestId([0; 32]),
            time: fs_format::Timestamp(seq as i64 * 10),
            files: 1,
            bytes: 0,
            added: 1 << seq,
            snapshot: None,
        };
        let mut changes = Changes::default();
        changes.look(true, 35);
        changes.seals_before(&[seal(2), seal(3)]);
        changes.seal(Seq(3), 30, 8);
        changes.seal(Seq(4), 40, 16);
        assert_eq!((changes.bytes_missing(Some(Seq(1))), changes.bytes_missing(Some(Seq(2)))), (28, 24));
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(20));
        // Another store is added that has nothing.
        changes.seals_before(&[seal(1), seal(2), seal(3), seal(4)]);
        assert_eq!((changes.bytes_missing(None), changes.oldest_missing(None)), (30, Some(10)));
        changes.forget(Seq(4));
        assert_eq!((changes.bytes_missing(None), changes.oldest_missing(None)), (0, None));
    }

    #[test]
    fn seals_beyond_what_is_remembered_make_a_store_later_not_earlier() {
        let mut changes = Changes::default();
        for seq in 0..3 * SEALS_KEPT as u64 {
            changes.seal(Seq(seq), seq as i64 + 100, 1);
        }
        assert_eq!(changes.sealed.len(), SEALS_KEPT);
        assert_eq!(changes.oldest_missing(None), Some(100));
        assert_eq!(changes.bytes_missing(None), 3 * SEALS_KEPT as u64);
    }
}
