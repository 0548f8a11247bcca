//! The index in its files: sorted runs, of which there are few.
//!
//! What is new lies in memory. Once it is much, it is written as a run, and runs of like size are merged. Nothing is synced:
//! a run carries a hash of itself, and one that a power cut left in pieces is thrown away, with all that it says of the
//! packs that it covers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use fs_format::dedup::{
    ENTRY_BYTES, Entry, RUN_HASH_BYTES, RUN_HEADER_BYTES, RunHeader, STRETCHES_MAX, Stretch,
};

use crate::env::{Disk, DiskFile, OpenMode};
use crate::replace;
use crate::store::is_full;

/// Where the runs lie.
const FOLDER: &str = "dedup";
/// What a run is called while it is written.
const NEW: &str = "dedup/.new";
/// Entries of a block, which is what one look reads: 12 KiB.
const BLOCK_ENTRIES: usize = 1024;
/// Blocks that are read and written at once where a run is gone through.
const STREAM_BLOCKS: usize = 8;
/// Entries in memory at which they become a run: about 2 MiB.
const FRESH_ENTRIES_MAX: usize = 64 << 10;
/// A run of fewer entries counts as one of so many when it is decided what is merged.
const SMALL_RUN_ENTRIES: u64 = 8192;
/// The most entries of a run: those of 16 TiB at the least.
const RUN_ENTRIES_MAX: u64 = 1 << 30;
/// The most files that are looked at: twice as many as runs that double could ever be.
const RUNS_MAX: usize = 64;
/// Bits of the filter, as a power of two: 4 MiB, of which a million chunks set 3 in 100.
const FILTER_BITS: u32 = 25;

/// What a pack is recognized by; `None` where there is none of that number.
pub type Witness<'a> = &'a dyn Fn(u32) -> Option<[u8; 8]>;

/// Tells most of the chunks that are in no run without a look at one.
struct Filter(Vec<u64>);

impl Filter {
    fn new() -> Self {
        Self(vec![0; 1 << (FILTER_BITS - 6)])
    }

    fn note(&mut self, start: u64) {
        let bit = start >> (64 - FILTER_BITS);
        self.0[(bit >> 6) as usize] |= 1 << (bit & 63);
    }

    fn may_have(&self, start: u64) -> bool {
        let bit = start >> (64 - FILTER_BITS);
        self.0[(bit >> 6) as usize] & (1 << (bit & 63)) != 0
    }
}

/// The entries of a run in order, hashed as they are read.
struct Stream<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    /// Entries that are not read yet.
    left: u64,
    buffer: Vec<u8>,
    used: usize,
    hasher: blake3::Hasher,
}

impl<'a> Stream<'a> {
    fn new(file: &'a dyn DiskFile, at: u64, entries: u64) -> Self {
        Self { file, at, left: entries, buffer: Vec::new(), used: 0, hasher: blake3::Hasher::new() }
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.used == self.buffer.len() {
            if self.left == 0 {
                return Ok(None);
            }
            let count = self.left.min((STREAM_BLOCKS * BLOCK_ENTRIES) as u64);
            self.buffer.resize(count as usize * ENTRY_BYTES, 0);
            self.file.read_at(&mut self.buffer, self.at)?;
            self.hasher.update(&self.buffer);
            self.at += self.buffer.len() as u64;
            self.left -= count;
            self.used = 0;
        }
        let bytes = self.buffer[self.used..].first_chunk().expect("the buffer holds whole entries");
        self.used += ENTRY_BYTES;
        Ok(Some(Entry::decode(bytes)))
    }
}

/// Writes the entries of a run.
struct Writer<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    last: Option<Entry>,
    fences: Vec<u64>,
    entries: u64,
}

impl<'a> Writer<'a> {
    fn new(file: &'a dyn DiskFile, header: &RunHeader) -> Self {
        let buffer = header.encode();
        let hasher = blake3::Hasher::new();
        Self { file, at: 0, buffer, hasher, last: None, fences: Vec::new(), entries: 0 }
    }

    fn put(&mut self, entry: Entry) -> io::Result<()> {
        if self.last.is_some_and(|last: Entry| last.start >= entry.start) {
            // A run that was whole when it was opened is not any more.
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.last = Some(entry);
        if self.entries.is_multiple_of(BLOCK_ENTRIES as u64) {
            self.fences.push(entry.start);
        }
        self.entries += 1;
        self.buffer.extend_from_slice(&entry.encode());
        if self.buffer.len() >= STREAM_BLOCKS * BLOCK_ENTRIES * ENTRY_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Returns the number of entries and the first of each block.
    fn finish(mut self) -> io::Result<(u64, Vec<u64>)> {
        self.flush()?;
        self.file.write_at(self.hasher.finalize().as_bytes(), self.at)?;
        Ok((self.entries, self.fences))
    }
}

/// A run in its file.
struct Run {
    /// The number that is its name; a newer one is greater.
    number: u64,
    file: Arc<dyn DiskFile>,
    stretches: Vec<Stretch>,
    entries: u64,
    /// The start of the first entry of each block.
    fences: Vec<u64>,
}

fn path(number: u64) -> String {
    format!("{FOLDER}/{number:016x}")
}

impl Run {
    /// Reads a run to its end; the error says why it is none.
    fn open(disk: &dyn Disk, number: u64, domain: &[u8; 16], filter: &mut Filter) -> Result<Self, String> {
        let failed = |error: io::Error| error.to_string();
        let file = disk.open(&path(number), OpenMode::Read).map_err(failed)?;
        let mut start = [0; RUN_HEADER_BYTES];
        file.read_at(&mut start, 0).map_err(failed)?;
        let count = RunHeader::stretches_of(&start).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; RunHeader::bytes_of(count)];
        file.read_at(&mut bytes, 0).map_err(failed)?;
        let header = RunHeader::decode(&bytes).map_err(|error| error.to_string())?;
        if header.domain != *domain {
            return Err("is another volume's".into());
        }
        let len = file.len().map_err(failed)?;
        let rest = len.checked_sub((bytes.len() + RUN_HASH_BYTES) as u64).ok_or("ends early")?;
        let entries = rest / ENTRY_BYTES as u64;
        if rest % ENTRY_BYTES as u64 != 0 || entries > RUN_ENTRIES_MAX {
            return Err("has a length that no run has".into());
        }
        let mut run = Self { number, file, stretches: header.stretches, entries, fences: Vec::new() };
        let mut stream = run.stream();
        stream.hasher.update(&bytes);
        let (mut last, mut index, mut fences) = (None, 0, Vec::new());
        while let Some(entry) = stream.next().map_err(failed)? {
            if last.is_some_and(|last: Entry| last.start >= entry.start) {
                return Err("does not ascend".into());
            }
            last = Some(entry);
            if index % BLOCK_ENTRIES == 0 {
                fences.push(entry.start);
            }
            index += 1;
            filter.note(entry.start);
        }
        let mut hash = [0; RUN_HASH_BYTES];
        stream.file.read_at(&mut hash, stream.at).map_err(failed)?;
        if stream.hasher.finalize().as_bytes() != &hash {
            return Err("failed its integrity check".into());
        }
        run.fences = fences;
        Ok(run)
    }

    /// Where its entries begin.
    fn begin(&self) -> u64 {
        RunHeader::bytes_of(self.stretches.len()) as u64
    }

    fn stream(&self) -> Stream<'_> {
        Stream::new(&*self.file, self.begin(), self.entries)
    }

    /// The pack that may hold a chunk, by one look at one block.
    fn find(&self, start: u64) -> io::Result<Option<u32>> {
        let behind = self.fences.partition_point(|fence| *fence <= start);
        let Some(first) = behind.checked_sub(1).map(|block| (block * BLOCK_ENTRIES) as u64) else {
            return Ok(None);
        };
        let count = (self.entries - first).min(BLOCK_ENTRIES as u64) as usize;
        let mut block = [0; BLOCK_ENTRIES * ENTRY_BYTES];
        let block = &mut block[..count * ENTRY_BYTES];
        self.file.read_at(block, self.begin() + first * ENTRY_BYTES as u64)?;
        let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
        let place = entries.binary_search_by_key(&start, |entry| Entry::decode(entry).start).ok();
        Ok(place.map(|place| Entry::decode(&entries[place]).pack))
    }

    fn weight(&self) -> u64 {
        self.entries.max(SMALL_RUN_ENTRIES)
    }
}

/// Where chunks may be, by the first bytes of their ids.
pub struct Index {
    domain: [u8; 16],
    fresh_packs_max: usize,
    filter: Filter,
    /// Oldest first.
    runs: Vec<Run>,
    /// Entries that no run has.
    fresh: BTreeMap<u64, u32>,
    /// The packs whose chunks these are.
    fresh_packs: BTreeSet<u32>,
}

impl Index {
    /// What the folder has of it; what is damaged, another volume's or of another past is removed.
    ///
    /// So many packs in memory become a run.
    pub fn load(disk: &dyn Disk, domain: [u8; 16], fresh_packs_max: usize, witness: Witness<'_>) -> Self {
        let mut index = Self {
            domain,
            fresh_packs_max,
            filter: Filter::new(),
            runs: Vec::new(),
            fresh: BTreeMap::new(),
            fresh_packs: BTreeSet::new(),
        };
        // No folder is an index with nothing in it.
        let names = disk.list(FOLDER).unwrap_or_default();
        let number = |name: &String| (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok()).flatten();
        let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        for (index_of, &number) in numbers.iter().rev().enumerate() {
            let run = if index_of < RUNS_MAX {
                Run::open(disk, number, &domain, &mut index.filter)
            } else {
                Err("is one too many".into())
            };
            let run = run.and_then(|run| match is_of_this_past(&run.stretches, witness) {
                false => Err("is of another past".into()),
                // What a merge leaves that ended before it removed its parts.
                true if index.covers(&run.stretches) => Err("is in a newer one".into()),
                true => Ok(run),
            });
            match run {
                Ok(run) => index.runs.push(run),
                Err(why) => {
                    tracing::debug!(path = path(number), why, "a run of the index of chunks is dropped");
                    let _ = disk.remove(&path(number));
                }
            }
        }
        index.runs.reverse();
        index
    }

    /// All packs that are covered, in order; stretches may overlap where a run was kept beside its parts.
    fn covered(&self) -> Vec<Range<u32>> {
        let runs = self.runs.iter().flat_map(|run| &run.stretches).map(|stretch| stretch.first..stretch.end);
        let mut all: Vec<Range<u32>> = runs.chain(stretches_of(&self.fresh_packs)).collect();
        all.sort_unstable_by_key(|range| range.start);
        all
    }

    /// Whether all of these packs are covered already.
    fn covers(&self, stretches: &[Stretch]) -> bool {
        let covered = join(self.covered());
        stretches.iter().all(|stretch| {
            covered.iter().any(|range| range.start <= stretch.first && stretch.end <= range.end)
        })
    }

    /// The packs, of so many, whose chunks it does not know; in order.
    pub fn lacking(&self, count: u32) -> Vec<Range<u32>> {
        let mut lacking = Vec::new();
        let mut at = 0;
        for range in join(self.covered()) {
            if range.start > at {
                lacking.push(at..range.start.min(count));
            }
            at = range.end;
        }
        if at < count {
            lacking.push(at..count);
        }
        lacking
    }

    /// The packs that may hold a chunk whose id begins like this; the newest first.
    pub fn packs_of(&self, start: u64) -> Vec<u32> {
        let mut packs: Vec<u32> = self.fresh.get(&start).copied().into_iter().collect();
        if self.filter.may_have(start) {
            for run in self.runs.iter().rev() {
                match run.find(start) {
                    Ok(pack) => packs.extend(pack),
                    Err(error) => tracing::debug!(path = path(run.number), %error, "a run is not readable"),
                }
            }
        }
        packs
    }

    /// A chunk is in a pack.
    pub fn add(&mut self, entry: Entry) {
        self.fresh.insert(entry.start, entry.pack);
    }

    /// All chunks of these packs that are worth it were added.
    pub fn cover(&mut self, packs: Range<u32>) {
        self.fresh_packs.extend(packs);
    }

    /// Writes what is new if it is much.
    pub fn keep(&mut self, disk: &dyn Disk, witness: Witness<'_>) {
        if self.fresh.len() < FRESH_ENTRIES_MAX && self.fresh_packs.len() < self.fresh_packs_max {
            return;
        }
        // Forgotten also where it cannot be written: memory is bounded, and the packs are there to be read again.
        let fresh = std::mem::take(&mut self.fresh);
        let packs = std::mem::take(&mut self.fresh_packs);
        let stretches = stretches_of(&packs)
            .filter_map(|range| {
                let witness = witness(range.end - 1)?;
                Some(Stretch { first: range.start, end: range.end, witness })
            })
            .collect();
        let entries = fresh.into_iter().map(|(start, pack)| Entry { start, pack });
        let written = self.write(disk, stretches, |writer, filter| {
            for entry in entries {
                filter.note(entry.start);
                writer.put(entry)?;
            }
            Ok(())
        });
        match written {
            Ok(run) => self.runs.push(run),
            Err(error) => tracing::debug!(%error, "new entries of the index of chunks are not kept"),
        }
        while let [.., older, newer] = &self.runs[..]
            && newer.weight() * 2 >= older.weight()
            && older.entries + newer.entries <= RUN_ENTRIES_MAX
        {
            if let Err(error) = self.merge(disk) {
                tracing::debug!(%error, "two runs of the index of chunks are not merged");
                if !is_full(&error) {
                    self.drop_last_two(disk);
                }
                break;
            }
        }
    }

    /// Puts one run in place of the last two.
    fn merge(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let [rest @ .., older, newer] = &self.runs[..] else { unreachable!("the caller found two") };
        let rest = rest.len();
        let stretches = unite(&older.stretches, &newer.stretches);
        let (mut old, mut new) = (older.stream(), newer.stream());
        let number = newer.number + 1;
        let merged = write(disk, number, &self.domain, stretches, |writer| {
            let (mut a, mut b) = (old.next()?, new.next()?);
            loop {
                match (a, b) {
                    (None, None) => return Ok(()),
                    (Some(entry), other) if other.is_none_or(|other| entry.start < other.start) => {
                        writer.put(entry)?;
                        a = old.next()?;
                    }
                    (older, Some(entry)) => {
                        // Of a chunk that was stored again, the newer place is the better one.
                        if older.is_some_and(|older| older.start == entry.start) {
                            a = old.next()?;
                        } else {
                            writer.put(entry)?;
                            b = new.next()?;
                        }
                    }
                    (Some(_), None) => unreachable!("an entry is before the end"),
                }
            }
        })?;
        self.drop_last_two(disk);
        assert_eq!(self.runs.len(), rest, "two runs became one");
        self.runs.push(merged);
        Ok(())
    }

    fn drop_last_two(&mut self, disk: &dyn Disk) {
        for run in self.runs.drain(self.runs.len() - 2..) {
            // One that stays is in the newer one, and is dropped by whoever loads them.
            let _ = disk.remove(&path(run.number));
        }
    }

    fn write(
        &mut self,
        disk: &dyn Disk,
        stretches: Vec<Stretch>,
        fill: impl FnOnce(&mut Writer<'_>, &mut Filter) -> io::Result<()>,
    ) -> io::Result<Run> {
        disk.create_dir(FOLDER)?;
        let number = self.runs.last().map_or(0, |run| run.number + 1);
        let filter = &mut self.filter;
        write(disk, number, &self.domain, stretches, |writer| fill(writer, filter))
    }
}

/// Writes a run and gives it its name.
fn write(
    disk: &dyn Disk,
    number: u64,
    domain: &[u8; 16],
    mut stretches: Vec<Stretch>,
    fill: impl FnOnce(&mut Writer<'_>) -> io::Result<()>,
) -> io::Result<Run> {
    // The packs of those that find no room are read again.
    stretches.drain(..stretches.len().saturating_sub(STRETCHES_MAX));
    let header = RunHeader { domain: *domain, stretches };
    let mut outcome = (0, Vec::new());
    let file = replace::stage(disk, NEW, |file| {
        let mut writer = Writer::new(file, &header);
        fill(&mut writer)?;
        outcome = writer.finish()?;
        Ok(())
    })?;
    disk.rename(NEW, &path(number))?;
    let (entries, fences) = outcome;
    Ok(Run { number, file, stretches: header.stretches, entries, fences })
}

/// Whether the last pack of each stretch is what it was.
fn is_of_this_past(stretches: &[Stretch], witness: Witness<'_>) -> bool {
    stretches.iter().all(|stretch| witness(stretch.end - 1) == Some(stretch.witness))
}

/// Consecutive numbers.
fn stretches_of(packs: &BTreeSet<u32>) -> impl Iterator<Item = Range<u32>> {
    join(packs.iter().map(|&pack| pack..pack + 1).collect()).into_iter()
}

/// Joins ranges that touch or overlap; they come by their starts.
fn join(ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    let mut joined: Vec<Range<u32>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The stretches of two runs as those of one.
fn unite(a: &[Stretch], b: &[Stretch]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = a.iter().chain(b).copied().collect();
    all.sort_unstable_by_key(|stretch| stretch.first);
    let mut united: Vec<Stretch> = Vec::new();
    for stretch in all {
        match united.last_mut() {
            Some(last) if stretch.first <= last.end => {
                if stretch.end > last.end {
                    (last.end, last.witness) = (stretch.end, stretch.witness);
                }
            }
            _ => united.push(stretch),
        }
    }
    united
}

#[cfg(test)]
mod tests;
