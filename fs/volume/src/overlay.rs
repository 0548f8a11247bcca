//! The overlay: what changed since the last seal, in memory, over the sealed tree.
//!
//! Invariants
//! - It is exactly what replaying the journal from `start` gives.
//! - Once frozen it never changes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use fs_format::journal::{Change, Source, Totals};
use fs_format::tree::{ChunkRef, Key, RecordKind};
use fs_format::{Ino, Inode, Timestamp};

/// A dirty run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes; `u64::MAX - offset` reaches behind every file.
    pub len: u64,
    /// Where they are.
    pub source: Source,
}

impl Fill {
    /// How many bytes it has that are not known to be zeros.
    fn data(&self) -> u64 {
        if self.source == Source::Zero { 0 } else { self.len }
    }

    fn after(&self, skip: u64) -> Source {
        match self.source {
            Source::Zero => Source::Zero,
            Source::Journal(position) => Source::Journal(position + skip),
            Source::Chunk(chunk) => Source::Chunk(ChunkRef { skip: chunk.skip + skip as u32, ..chunk }),
        }
    }
}

/// The dirty runs of a file, by offset; they do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fills {
    runs: BTreeMap<u64, Fill>,
    /// Bytes of all runs that are not zeros: `stat` asks for them again and again, of files with many runs.
    data: u64,
}

impl Fills {
    /// Lays a run over what is there.
    pub fn put(&mut self, offset: u64, len: u64, source: Source) {
        let end = offset.saturating_add(len);
        self.clear(offset, end);
        self.insert(offset, Fill { len: end - offset, source });
    }

    fn insert(&mut self, offset: u64, fill: Fill) {
        self.data += fill.data();
        let old = self.runs.insert(offset, fill);
        self.data -= old.map_or(0, |old| old.data());
    }

    fn remove(&mut self, offset: u64) {
        self.data -= self.runs.remove(&offset).map_or(0, |old| old.data());
    }

    /// Bytes of all runs that are not zeros.
    pub fn data(&self) -> u64 {
        self.data
    }

    fn clear(&mut self, start: u64, end: u64) {
        // The run that begins before and reaches in is cut, and perhaps goes on behind.
        if let Some((&at, &fill)) = self.runs.range(..start).next_back() {
            let fill_end = at + fill.len;
            if fill_end > start {
                self.insert(at, Fill { len: start - at, source: fill.source });
                if fill_end > end {
                    self.insert(end, Fill { len: fill_end - end, source: fill.after(end - at) });
                }
            }
        }
        while let Some((&at, &fill)) = self.runs.range(start..end).next() {
            self.remove(at);
            let fill_end = at + fill.len;
            if fill_end > end {
                self.insert(end, Fill { len: fill_end - end, source: fill.after(end - at) });
            }
        }
    }

    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Fill)> {
        self.runs.iter().map(|(at, fill)| (*at, fill))
    }

    /// Where the first run at or behind `from` begins.
    pub fn next_start(&self, from: u64) -> Option<u64> {
        self.runs.range(from..).next().map(|(&at, _)| at)
    }

    /// The parts of `start..end`, in order: dirty ones with their source, clean ones with `None`.
    pub fn parts(&self, start: u64, end: u64) -> Vec<(u64, u64, Option<Source>)> {
        let mut parts = Vec::new();
        let mut at = start;
        let first = self.runs.range(..=start).next_back().map_or(start, |(&offset, _)| offset);
        for (&offset, fill) in self.runs.range((Bound::Included(first), Bound::Excluded(end))) {
            let fill_end = (offset + fill.len).min(end);
            if fill_end <= at {
                continue;
            }
            let from = offset.max(at);
            if from > at {
                parts.push((at, from, None));
            }
            parts.push((from, fill_end, Some(fill.after(from - offset))));
            at = fill_end;
        }
        if at < end {
            parts.push((at, end, None));
        }
        parts
    }
}

/// What the overlay knows of an inode.
#[derive(Debug, Clone)]
pub enum Slot {
    /// It was dropped.
    Gone,
    /// Its record, and what of its bytes is dirty.
    Live {
        /// The record; what it says of `allocated` may be older than the tree.
        inode: Inode,
        /// Dirty bytes.
        fills: Fills,
        /// Made in this overlay: nothing below knows it.
        fresh: bool,
    },
}

/// Changes since a position of the journal.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Inodes with anything changed.
    pub inodes: HashMap<Ino, Slot>,
    /// Other records; `None`: dropped.
    pub records: BTreeMap<Key, Option<Box<[u8]>>>,
    /// Files and bytes behind the last change.
    pub totals: Totals,
    /// The next inode number behind the last change.
    pub next_ino: u64,
    /// An estimate of the memory it takes, in bytes.
    pub weight: usize,
    /// Bytes of data written since `start`, overwritten ones included.
    pub written: u64,
    /// How many records were applied.
    pub changes: u64,
    /// When it was frozen.
    pub time: Timestamp,
    /// The journal position behind its last change; set when it is frozen.
    pub end: u64,
}

/// Estimates of what a map's entry takes besides its value.
const SLOT_WEIGHT: usize = 240;
const RECORD_WEIGHT: usize = 96;
const FILL_WEIGHT: usize = 72;

fn record_weight(value: &Option<Box<[u8]>>) -> usize {
    RECORD_WEIGHT + value.as_ref().map_or(0, |value| value.len())
}

impl Overlay {
    /// An empty overlay over a tree with these totals.
    pub fn new(totals: Totals, next_ino: u64) -> Self {
        Self { totals, next_ino, ..Self::default() }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Applies a record of the journal whose data begins at `data`.
    ///
    /// An inode whose number was not given out before is fresh: nothing below knows it.
    pub fn apply(&mut self, totals: Totals, changes: Vec<Change>, data: u64) {
        self.totals = totals;
        self.changes += 1;
        for change in changes {
            match change {
                Change::PutInode(ino, inode) => {
                    let fresh = ino.0 >= self.next_ino;
                    if fresh {
                        self.next_ino = ino.0 + 1;
                    }
                    match self.inodes.get_mut(&ino) {
                        Some(Slot::Live { inode: old, .. }) => *old = inode,
                        _ => {
                            self.weight += SLOT_WEIGHT;
                            self.inodes.insert(ino, Slot::Live { inode, fills: Fills::default(), fresh });
                        }
                    }
                }
                Change::DropInode(ino) => {
                    if let Some(Slot::Live { fills, fresh, .. }) = self.inodes.get(&ino) {
                        self.weight = self.weight.saturating_sub(fills.len() * FILL_WEIGHT);
                        if *fresh {
                            // Nothing below knows it: it leaves no trace.
                            self.inodes.remove(&ino);
                            self.weight = self.weight.saturating_sub(SLOT_WEIGHT);
                            self.drop_records_of(ino);
                            continue;
                        }
                    } else {
                        self.weight += SLOT_WEIGHT;
                    }
                    self.inodes.insert(ino, Slot::Gone);
                    self.drop_records_of(ino);
                }
                Change::Put(key, value) => self.set_record(key, Some(value)),
                Change::Drop(key) if self.is_only_here(&key) => {
                    let old = self.records.remove(&key);
                    self.forget_weight(old);
                }
                Change::Drop(key) => self.set_record(key, None),
                Change::Fill { ino, offset, len, source } => self.fill(ino, offset, len, source),
                Change::Write { ino, offset, len } => {
                    self.written += u64::from(len);
                    self.fill(ino, offset, u64::from(len), Source::Journal(data));
                }
            }
        }
    }

    fn fill(&mut self, ino: Ino, offset: u64, len: u64, source: Source) {
        // A foreign journal could name an inode that no record before made; it is ignored.
        if let Some(Slot::Live { fills, fresh, .. }) = self.inodes.get_mut(&ino) {
            let before = fills.len();
            if *fresh && source == Source::Zero {
                fills.clear(offset, offset.saturating_add(len));
            } else {
                fills.put(offset, len, source);
            }
            self.weight = (self.weight + fills.len() * FILL_WEIGHT).saturating_sub(before * FILL_WEIGHT);
        }
    }

    fn drop_records_of(&mut self, ino: Ino) {
        let from = Key::inode(ino);
        let to = Key::inode(Ino(ino.0 + 1));
        let keys: Vec<Key> = self.records.range(from..to).map(|(key, _)| *key).collect();
        for key in keys {
            let old = self.records.remove(&key);
            self.forget_weight(old);
        }
    }

    /// Whether nothing below knows a record, so that it leaves no trace when it goes.
    fn is_only_here(&self, key: &Key) -> bool {
        match key.kind {
            // An inode loses its last name once, and this is when the record is made.
            RecordKind::Orphan => matches!(self.records.get(key), Some(Some(_))),
            _ => matches!(self.inodes.get(&key.ino), Some(Slot::Live { fresh: true, .. })),
        }
    }

    fn set_record(&mut self, key: Key, value: Option<Box<[u8]>>) {
        self.weight += record_weight(&value);
        let old = self.records.insert(key, value);
        self.forget_weight(old);
    }

    /// Takes off what a record weighed that is there no more.
    fn forget_weight(&mut self, old: Option<Option<Box<[u8]>>>) {
        self.weight = self.weight.saturating_sub(old.as_ref().map_or(0, record_weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_over_the_middle_of_another_splits_it() {
        let mut fills = Fills::default();
        fills.put(0, 100, Source::Journal(1000));
        fills.put(40, 20, Source::Zero);
        assert_eq!(
            fills.parts(0, 120),
            vec![
                (0, 40, Some(Source::Journal(1000))),
                (40, 60, Some(Source::Zero)),
                (60, 100, Some(Source::Journal(1060))),
                (100, 120, None),
            ]
        );
    }

    #[test]
    fn a_run_to_the_end_of_all_files_swallows_what_is_behind() {
        let mut fills = Fills::default();
        fills.put(10, 10, Source::Journal(0));
        fills.put(50, 10, Source::Journal(100));
        fills.put(15, u64::MAX, Source::Zero);
        assert_eq!(
            fills.parts(0, 1 << 60),
            vec![(0, 10, None), (10, 15, Some(Source::Journal(0))), (15, 1 << 60, Some(Source::Zero))]
        );
    }

    #[test]
    fn the_bytes_of_data_are_those_of_the_runs() {
        let mut fills = Fills::default();
        let mut chance = 7_u64;
        for _ in 0..2_000 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (offset, len) = ((chance >> 33) % 500, (chance >> 43) % 60 + 1);
            match chance >> 62 {
                0 => fills.put(offset, len, Source::Zero),
                1 => fills.clear(offset, offset + len),
                2 if offset > 400 => fills.put(offset, u64::MAX, Source::Zero),
                _ => fills.put(offset, len, Source::Journal(chance >> 20)),
            }
            let data = |fill: &Fill| if fill.source == Source::Zero { 0 } else { fill.len };
            assert_eq!(fills.data(), fills.iter().map(|(_, fill)| data(fill)).sum::<u64>());
        }
        assert!(fills.data() > 0, "the runs of the test hold data");
    }

    #[test]
    fn a_part_begins_inside_a_run() {
        let mut fills = Fills::default();
        fills.put(0, 100, Source::Journal(0));
        assert_eq!(fills.parts(30, 40), vec![(30, 40, Some(Source::Journal(30)))]);
    }
}
