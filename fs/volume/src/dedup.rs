//! Finding a chunk that an earlier seal stored.
//!
//! The index leads from the first bytes of a chunk's id to the number of a pack. It is a hint and nothing else: the pack's
//! own directory tells whether and where the chunk is in it, and the chunk is read and compared before anything refers to
//! it. So an index that is lost, old, damaged or another volume's costs room, never a byte of a file.
//!
//! Invariants
//! - A pack's chunks are added only when the manifest that names it is durable.
//! - What `find` returns was just read from its pack, and is the same, byte for byte.
//! - No error here fails a seal; what cannot be found is stored once more.
//! - Memory is bounded, but for eight bytes for each 1,024 chunks.

use std::collections::BTreeSet;
use std::ops::Range;

use fs_format::dedup::{Entry, Stretch};
use fs_format::pack::{FrameName, PACK_HEADER_BYTES};
use fs_format::tree::{ChunkRef, Location};
use fs_format::{ChunkId, PackNumber};

use crate::FsError;
use crate::ledger;
use crate::store::Store;
use crate::tree::Root;

mod runs;

use runs::Index;

/// Directories of packs that one seal reads to learn of chunks that the index lacks.
const LEARN_PACKS_MAX: usize = 256;
/// Memory for directories of packs in which something was found, in chunks: 12 MiB.
const DIRECTORY_CHUNKS_MAX: usize = 512 << 10;
/// How many of them are kept at most: they are gone through one by one.
const DIRECTORIES_MAX: usize = 256;

/// What is known of the chunks that are stored.
pub struct Dedup {
    fresh_packs_max: usize,
    /// Loaded when it is first asked.
    index: Option<Index>,
    /// Whether it learned in this seal of what it lacked.
    has_learned: bool,
    /// Packs whose directories cannot be read; not tried again before the volume is opened again.
    unreadable: BTreeSet<u32>,
    directories: Directories,
}

impl Dedup {
    /// Nothing yet; so many packs become a run of the index.
    pub fn new(fresh_packs_max: usize) -> Self {
        Self {
            fresh_packs_max,
            index: None,
            has_learned: false,
            unreadable: BTreeSet::new(),
            directories: Directories::default(),
        }
    }

    /// A seal begins.
    pub fn begin(&mut self) {
        self.has_learned = false;
    }

    /// Where these bytes are stored already, for a seal that follows the tree at `root`.
    pub fn find(&mut self, store: &Store, root: &Root, id: ChunkId, bytes: &[u8]) -> Option<Location> {
        if !self.has_learned {
            self.learn(store);
        }
        for pack in self.index.as_ref()?.packs_of(Entry::start_of(&id)).into_iter().map(PackNumber) {
            if !is_usable(store, root, pack) {
                continue;
            }
            let Some((offset, len)) = self.directories.find(store, pack, &id) else { continue };
            let location = Location { pack, offset, len };
            match store.holds(&ChunkRef { chunk: id, location, skip: 0 }, bytes) {
                Ok(true) => return Some(location),
                Ok(false) => {
                    tracing::warn!(%id, %pack, "two chunks have one name: the second is stored as well")
                }
                // Whoever reads the file that it belongs to is told; here a whole copy comes beside it.
                Err(error) => {
                    tracing::debug!(%id, %error, "a chunk is stored again, since it cannot be read")
                }
            }
        }
        None
    }

    /// A manifest that names these packs is durable; of their chunks the ones in `entries` are worth finding again.
    pub fn note(&mut self, store: &Store, packs: Range<u32>, entries: Vec<Entry>) {
        // Who was never asked learns of these packs with all the others.
        let Some(index) = &mut self.index else { return };
        entries.into_iter().for_each(|entry| index.add(entry));
        index.cover(packs);
        index.keep(&*store.env.disk, &|number| witness(store, number));
    }

    /// Loads the index, and reads the directories of packs that it lacks: the newest, since what is written again was
    /// mostly written lately.
    fn learn(&mut self, store: &Store) {
        self.has_learned = true;
        let disk = &*store.env.disk;
        let witness = |number| witness(store, number);
        let index = self
            .index
            .get_or_insert_with(|| Index::load(disk, store.keys.domain, self.fresh_packs_max, &witness));
        let lacking = index.lacking(store.pack_count());
        let newest = lacking.into_iter().rev().flat_map(Iterator::rev);
        let readable =
            newest.filter(|number| !self.unreadable.contains(number) && store.is_here(PackNumber(*number)));
        for number in readable.take(LEARN_PACKS_MAX).collect::<Vec<u32>>() {
            match chunks_of(store, PackNumber(number)) {
                Ok(chunks) => {
                    for (id, ..) in chunks {
                        index.add(Entry { start: Entry::start_of(&id), pack: number });
                    }
                    index.cover(number..number + 1);
                    index.keep(disk, &witness);
                }
                Err(error) => {
                    tracing::debug!(number, %error, "the chunks of a pack are not known");
                    self.unreadable.insert(number);
                }
            }
        }
    }
}

/// Whether a seal that follows the tree at `root` may refer to a pack: it is on this machine, since a seal waits for no
/// network, and collection has decided nothing about it. Where that cannot be read, it may not.
fn is_usable(store: &Store, root: &Root, pack: PackNumber) -> bool {
    pack.0 < store.pack_count() && store.is_here(pack) && matches!(ledger::fate(store, root, pack), Ok(None))
}

/// What the pack of this number is recognized by.
fn witness(store: &Store, number: u32) -> Option<[u8; 8]> {
    Some(Stretch::witness_of(&store.pack_entry(PackNumber(number)).ok()?.object))
}

/// A chunk, its offset in its pack, and its bytes there.
type Placed = (ChunkId, u32, u32);

/// The chunks in a pack.
fn chunks_of(store: &Store, pack: PackNumber) -> Result<Vec<Placed>, FsError> {
    let mut offset = PACK_HEADER_BYTES as u32;
    let mut chunks = Vec::new();
    for entry in store.directory(pack)? {
        if let FrameName::Chunk(id) = entry.name {
            chunks.push((id, offset, entry.len));
        }
        // A directory is refused whose frames take more than a pack may have.
        offset += entry.len;
    }
    Ok(chunks)
}

/// Directories of packs in which something was found lately: what is stored twice was mostly stored together.
#[derive(Default)]
struct Directories {
    /// The last used last; chunks by their ids.
    known: Vec<(PackNumber, Vec<Placed>)>,
    /// Chunks in all of them.
    chunks: usize,
}

impl Directories {
    /// Offset and bytes of a chunk in a pack, if it is there.
    fn find(&mut self, store: &Store, pack: PackNumber, id: &ChunkId) -> Option<(u32, u32)> {
        let directory = match self.known.iter().rposition(|(number, _)| *number == pack) {
            Some(place) => self.known.remove(place).1,
            None => {
                let mut chunks = chunks_of(store, pack)
                    .inspect_err(|error| tracing::debug!(%pack, %error, "a pack's directory is not readable"))
                    .ok()?;
                chunks.sort_unstable();
                self.chunks += chunks.len();
                chunks
            }
        };
        let found = directory.binary_search_by_key(id, |(id, ..)| *id).ok();
        let found = found.map(|place| (directory[place].1, directory[place].2));
        self.known.push((pack, directory));
        while self.known.len() > 1
            && (self.chunks > DIRECTORY_CHUNKS_MAX || self.known.len() > DIRECTORIES_MAX)
        {
            self.chunks -= self.known.remove(0).1.len();
        }
        found
    }
}
