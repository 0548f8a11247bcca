//! Compaction: the living frames of packs that are mostly dead move to new packs, so that the old ones can go.
//!
//! A frame is copied byte for byte and stays a frame of the pack that it was made in, so no pointer of any tree changes;
//! a record of the ledger says where it lies now ([`fs_format::moved`]). It is the last thing that a seal does which
//! prunes: what is alive is known by then, and what is sealed counts as alive. The old pack is condemned by that seal,
//! and goes like any other.
//!
//! Only packs of chunks are compacted. Where something was moved to is said by nodes, which therefore never move.
//!
//! Invariants
//! - All frames of a pack that anything kept refers to are moved, or none is.
//! - A pack is read as a whole and compared with its name before a byte of it is copied: damage does not move.
//! - A record loses a place only by the seal that dooms the pack there. Until then it leads to both, and so does every
//!   pointer.
//! - No error here fails a seal, but one of writing: what cannot be read stays where it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fs_format::PackNumber;
use fs_format::moved::{Moved, MovedPart};
use fs_format::pack::{PACK_HEADER_BYTES, PackHeader, PackKind};
use fs_format::tree::{Key, Location, VALUE_BYTES_MAX};

use crate::FsError;
use crate::collection::Packs;
use crate::ledger::{self, Edits};
use crate::store::{Packer, Store, pack_path};
use crate::tree::Root;

/// The most frames that marking remembers, in 32 MiB of memory: 8 GiB of pages of a database, in packs less than half
/// alive.
const FRAMES_MAX: usize = 1 << 20;
/// The most runs that all records together may have: whoever prunes has them in memory, 12 bytes each.
const RUNS_MAX: usize = 4 << 20;
/// The most bytes that a run in a record takes: its gap and its length are below 2²⁷.
const RUN_BYTES_MAX: usize = 8;
/// What else a record takes for a part, at most, and itself.
const PART_BYTES_MAX: usize = 64;

/// How a volume is compacted.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    /// The most bytes that one seal copies; others wait that long to be made.
    pub copied_bytes_max: u64,
    /// The fewest bytes that must come back for it.
    pub freed_bytes_min: u64,
}

impl Compaction {
    /// None.
    pub const NONE: Self = Self { copied_bytes_max: 0, freed_bytes_min: u64::MAX };
}

impl Default for Compaction {
    fn default() -> Self {
        // A gibibyte is copied in seconds; and for less than a pack's worth of a small volume no seal is made.
        Self { copied_bytes_max: 1 << 30, freed_bytes_min: 4 << 20 }
    }
}

/// What was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// The packs whose living frames were moved.
    pub packs: Packs,
    /// The bytes of these frames, which are stored twice until those packs are removed.
    pub copied: u64,
}

/// Where frames lie that were moved: all of the volume's records of it.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    packs: BTreeMap<PackNumber, Moved>,
    /// Those whose records change.
    changed: BTreeSet<PackNumber>,
}

impl Moves {
    /// Those of a tree.
    pub fn load(store: &Store, root: &Root) -> Result<Self, FsError> {
        Ok(Self { packs: ledger::all_moved(store, root)?, changed: BTreeSet::new() })
    }

    /// The pack in which a frame lies, and where.
    pub fn place(&self, location: &Location) -> (PackNumber, u32) {
        let moved = self.packs.get(&location.pack);
        moved
            .and_then(|moved| moved.find(location.offset, location.len))
            .unwrap_or((location.pack, location.offset))
    }

    /// Forgets places in packs that are given up.
    pub fn leave(&mut self, given_up: impl Fn(PackNumber) -> bool) {
        self.packs.retain(|number, moved| {
            let before = moved.parts.len();
            moved.parts.retain(|part| !given_up(part.pack));
            if moved.parts.len() < before {
                self.changed.insert(*number);
            }
            !moved.parts.is_empty()
        });
    }

    /// The records that change.
    pub fn edits(&self) -> Edits {
        let edit = |number: &PackNumber| {
            let value = self.packs.get(number).map(|moved| {
                let mut value = Vec::new();
                moved.encode(&mut value);
                value.into()
            });
            (Key::moved(*number), value)
        };
        self.changed.iter().map(edit).collect()
    }

    /// All records, for a tree that has none of them.
    pub fn all(mut self) -> Self {
        self.changed.extend(self.packs.keys());
        self
    }

    /// Whether nothing was moved.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    fn runs(&self) -> usize {
        self.packs.values().map(Moved::runs).sum()
    }
}

/// Which frames of packs of chunks are alive, by the packs in which they lie; of packs that are half alive only that.
#[derive(Default)]
pub struct Living {
    packs: HashMap<PackNumber, Frames>,
    /// How many are remembered.
    count: usize,
}

enum Frames {
    /// Lengths by pack and offset, as pointers name them; their sum, and the bytes of the pack.
    Few { frames: HashMap<u64, u32>, live: u64, bytes: u32 },
    /// Half of it is alive, or it is too much to remember now.
    Many,
}

impl Living {
    /// Takes in that something refers to a frame which lies in this pack.
    pub fn note(&mut self, store: &Store, pack: PackNumber, location: &Location) -> Result<(), FsError> {
        let known = match self.packs.entry(pack) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let bytes = store.pack_entry(pack)?.bytes;
                new.insert(Frames::Few { frames: HashMap::new(), live: 0, bytes })
            }
        };
        let Frames::Few { frames, live, bytes } = known else { return Ok(()) };
        let key = u64::from(location.pack.0) << 32 | u64::from(location.offset);
        if frames.insert(key, location.len).is_none() {
            self.count += 1;
            *live += u64::from(location.len);
            if *live * 2 >= u64::from(*bytes) {
                self.count -= frames.len();
                *known = Frames::Many;
            } else if self.count > FRAMES_MAX {
                self.pass_over();
            }
        }
        Ok(())
    }

    /// Forgets the frames of those packs that have the most, until a quarter is free: those wait for another time.
    fn pass_over(&mut self) {
        let count_of = |frames: &Frames| match frames {
            Frames::Few { frames, .. } => frames.len(),
            Frames::Many => 0,
        };
        let mut counts: Vec<(usize, PackNumber)> =
            self.packs.iter().map(|(number, frames)| (count_of(frames), *number)).collect();
        counts.sort_unstable();
        while self.count > FRAMES_MAX / 4 * 3
            && let Some((count, number)) = counts.pop()
        {
            self.packs.insert(number, Frames::Many);
            self.count -= count;
        }
    }

    /// The packs that are worth it, as far as the limits go: those with the least alive.
    pub fn choose(
        &self,
        moves: &Moves,
        how: &Compaction,
        may_move: impl Fn(PackNumber, u64) -> bool,
    ) -> Vec<PackNumber> {
        let few = self.packs.iter().filter_map(|(number, frames)| match frames {
            Frames::Few { frames, live, bytes } => Some((*number, frames.len(), *live, u64::from(*bytes))),
            Frames::Many => None,
        });
        let mut sources: Vec<(PackNumber, usize, u64, u64)> = few.collect();
        sources.sort_unstable_by(|(one, _, live, bytes), (other, _, others_live, others_bytes)| {
            (live * others_bytes).cmp(&(others_live * bytes)).then(one.cmp(other))
        });
        let (mut runs, mut copied, mut freed) = (moves.runs(), 0, 0);
        sources.retain(|&(number, frames, live, bytes)| {
            let fits =
                runs + frames <= RUNS_MAX && copied + live <= how.copied_bytes_max && may_move(number, live);
            if fits {
                runs += frames;
                copied += live;
                freed += bytes - live;
            }
            fits
        });
        if freed < how.freed_bytes_min {
            return Vec::new();
        }
        let mut numbers: Vec<PackNumber> = sources.into_iter().map(|(number, ..)| number).collect();
        // What lies together stays together.
        numbers.sort_unstable();
        numbers
    }

    /// The bytes of these packs.
    pub fn bytes(&self, packs: &[PackNumber]) -> impl Iterator<Item = (PackNumber, u32)> {
        packs.iter().filter_map(|number| match self.packs.get(number) {
            Some(Frames::Few { bytes, .. }) => Some((*number, *bytes)),
            _ => None,
        })
    }

    /// What compacting these is.
    pub fn sum(&self, sources: &[PackNumber]) -> Compacted {
        let mut sum = Compacted::default();
        for source in sources {
            if let Some(Frames::Few { live, bytes, .. }) = self.packs.get(source) {
                sum.packs.add(*bytes);
                sum.copied += live;
            }
        }
        sum
    }
}

/// What became of the packs that were to be compacted.
#[derive(Default)]
pub struct Outcome {
    /// Those of which all that is alive was moved.
    pub moved: Vec<PackNumber>,
    /// Those of which nothing was, and the bytes that are alive in them.
    pub stuck: Vec<(PackNumber, u64)>,
}

/// Moves the living frames of packs. What cannot be read is left where it is.
pub fn compact(
    store: &Store,
    packer: &mut Packer<'_>,
    moves: &mut Moves,
    living: &Living,
    sources: &[PackNumber],
) -> Result<Outcome, FsError> {
    let mut outcome = Outcome::default();
    for &source in sources {
        let Some(Frames::Few { frames, live, .. }) = living.packs.get(&source) else { continue };
        match readable(store, moves, source, frames) {
            Ok(Some(read)) => {
                read.copy(packer, moves)?;
                outcome.moved.push(source);
                continue;
            }
            Ok(None) => tracing::debug!(pack = %source, "too much is alive in a pack for one record"),
            Err(error) => {
                store.found.note_error(&error);
                tracing::warn!(pack = %source, %error, "a pack is not compacted");
            }
        }
        outcome.stuck.push((source, *live));
    }
    Ok(outcome)
}

/// A source that was read, and compared with its name.
struct Readable {
    object: Vec<u8>,
    /// By the packs that they are frames of: where each begins there and here, and its bytes; with what opens them.
    frames: BTreeMap<PackNumber, (u8, [u8; 32], Vec<Frame>)>,
}

struct Frame {
    from: u32,
    len: u32,
    at: usize,
}

/// Reads a source; `None` if a record would become too long.
fn readable(
    store: &Store,
    moves: &Moves,
    source: PackNumber,
    living: &HashMap<u64, u32>,
) -> Result<Option<Readable>, FsError> {
    let id = store.pack_entry(source)?.object;
    let object = store.whole_pack(&id)?;
    let refuse = |what: &str| FsError::Damaged(format!("{} {what}", pack_path(&id)));
    let header = PackHeader::decode(object.get(..PACK_HEADER_BYTES).unwrap_or(&object))
        .map_err(|error| refuse(&error.to_string()))?;
    if header.domain != store.keys.domain {
        return Err(refuse("is another volume's"));
    }
    let mut frames: BTreeMap<PackNumber, (u8, [u8; 32], Vec<Frame>)> = BTreeMap::new();
    for (&key, &len) in living {
        let location = Location { pack: PackNumber((key >> 32) as u32), offset: key as u32, len };
        let (pack, at) = moves.place(&location);
        let opened_by = match (header.kind, moves.packs.get(&location.pack)) {
            (PackKind::Data, _) if location.pack == source => Some((header.suite, header.salt)),
            (PackKind::Moved, Some(moved)) => Some((moved.suite, moved.salt)),
            _ => None,
        };
        let opened_by = opened_by.filter(|_| pack == source);
        let (suite, salt) = opened_by.ok_or_else(|| refuse("does not hold what lies in it"))?;
        let at = at as usize;
        if at < PACK_HEADER_BYTES || at + len as usize > object.len() {
            return Err(refuse("is shorter than a pointer says"));
        }
        let of_one = frames.entry(location.pack).or_insert_with(|| (suite, salt, Vec::new()));
        of_one.2.push(Frame { from: location.offset, len, at });
    }
    for (number, (_, _, frames)) in &mut frames {
        frames.sort_unstable_by_key(|frame| frame.from);
        if frames.windows(2).any(|pair| pair[0].from + pair[0].len > pair[1].from) {
            return Err(refuse("has frames that overlap"));
        }
        let runs = frames.chunk_by(|one, next| one.from + one.len == next.from).count();
        let known = moves.packs.get(number);
        let parts = known.map_or(0, |moved| moved.parts.len()) + 2;
        let runs = known.map_or(0, Moved::runs) + runs + 1;
        if runs * RUN_BYTES_MAX + parts * PART_BYTES_MAX > VALUE_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(Readable { object, frames }))
}

impl Readable {
    /// Writes the frames anew, and down where they are.
    fn copy(self, packer: &mut Packer<'_>, moves: &mut Moves) -> Result<(), FsError> {
        for (number, (suite, salt, frames)) in self.frames {
            let moved = moves.packs.entry(number).or_insert_with(|| Moved { suite, salt, parts: Vec::new() });
            // One that is there already is of another source, or of another time.
            let mut part: Option<MovedPart> = None;
            for Frame { from, len, at } in frames {
                let (pack, to) = packer.moved(&self.object[at..at + len as usize])?;
                if part.as_ref().is_some_and(|part| part.pack != pack) {
                    moved.parts.extend(part.take());
                }
                part.get_or_insert_with(|| MovedPart::new(pack)).push(from, len, to);
            }
            moved.parts.extend(part);
            moves.changed.insert(number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn few(frames: u32, len: u32, bytes: u32) -> Frames {
        let frames: HashMap<u64, u32> = (0..frames).map(|at| (u64::from(at * len), len)).collect();
        Frames::Few { live: frames.values().map(|len| u64::from(*len)).sum(), frames, bytes }
    }

    #[test]
    fn what_has_the_least_alive_comes_first_as_far_as_the_limits_go() {
        let packs =
            [(1, few(4, 100, 1000)), (2, few(1, 100, 1000)), (3, few(9, 10, 1000)), (4, Frames::Many)];
        let packs = packs.map(|(number, frames)| (PackNumber(number), frames)).into();
        let living = Living { packs, count: 14 };
        let chosen = |copied_bytes_max, freed_bytes_min, not: u32| {
            let how = Compaction { copied_bytes_max, freed_bytes_min };
            let chosen = living.choose(&Moves::default(), &how, |number, _| number != PackNumber(not));
            chosen.into_iter().map(|number| number.0).collect::<Vec<u32>>()
        };
        assert_eq!(chosen(10_000, 1, 0), [1, 2, 3]);
        assert_eq!(chosen(200, 1, 0), [2, 3]);
        assert_eq!(chosen(100, 1, 0), [3]);
        assert_eq!(chosen(10_000, 1, 3), [1, 2]);
        assert_eq!(chosen(10_000, 2_410, 0), [1, 2, 3]);
        assert_eq!(chosen(10_000, 2_411, 0), [0; 0], "it is not worth it");
        assert_eq!(chosen(0, 0, 0), [0; 0]);
        let all = living.sum(&[PackNumber(1), PackNumber(2), PackNumber(4)]);
        assert_eq!(all, Compacted { packs: Packs { count: 2, bytes: 2000 }, copied: 500 });
    }

    #[test]
    fn more_frames_than_fit_are_those_of_the_packs_that_have_the_most() {
        let third = (FRAMES_MAX / 3 + 1) as u32;
        let packs =
            [(1, few(third, 1, u32::MAX)), (2, few(third + 1, 1, u32::MAX)), (3, few(third, 1, u32::MAX))];
        let packs = packs.map(|(number, frames)| (PackNumber(number), frames)).into();
        let mut living = Living { packs, count: 3 * third as usize + 1 };
        living.pass_over();
        assert!(matches!(living.packs[&PackNumber(2)], Frames::Many));
        assert!(living.count <= FRAMES_MAX / 4 * 3);
        let left = living.packs.values().filter(|frames| matches!(frames, Frames::Few { .. })).count();
        assert_eq!((left, living.count), (2, 2 * third as usize));
    }

    #[test]
    fn a_place_is_forgotten_with_its_pack_and_a_record_with_its_last() {
        let part = |pack, from| {
            let mut part = MovedPart::new(PackNumber(pack));
            part.push(from, 10, 64);
            part
        };
        let record = |parts| Moved { suite: 1, salt: [1; 32], parts };
        let mut moves = Moves {
            packs: [
                (PackNumber(1), record(vec![part(7, 64), part(8, 64)])),
                (PackNumber(2), record(vec![part(7, 64)])),
            ]
            .into(),
            changed: BTreeSet::new(),
        };
        let at = |pack| Location { pack: PackNumber(pack), offset: 64, len: 10 };
        assert_eq!(moves.place(&at(1)), (PackNumber(8), 64), "the last counts");
        assert_eq!(moves.place(&at(3)), (PackNumber(3), 64));
        moves.leave(|pack| pack == PackNumber(7));
        assert_eq!((moves.place(&at(1)), moves.place(&at(2))), ((PackNumber(8), 64), (PackNumber(2), 64)));
        let edits = moves.edits();
        assert_eq!(edits.len(), 2);
        assert_eq!(edits[&Key::moved(PackNumber(2))], None);
        let left = edits[&Key::moved(PackNumber(1))].as_deref().map(Moved::decode);
        assert_eq!(left, Some(Ok(record(vec![part(8, 64)]))));
    }
}
