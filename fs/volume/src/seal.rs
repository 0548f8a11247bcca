//! Sealing: from the frozen overlay to a signed manifest.
//!
//! Needs no network. A crash at any point is repaired by sealing again.
//!
//! Invariants
//! - Packs are durable before the manifest that names them.
//! - The journal behind a manifest is recycled only when the manifest is durable.
//! - What is sealed never changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_crypto::VolumeKey;
use fs_format::dedup::Entry;
use fs_format::journal::{Source, Totals};
use fs_format::ledger::PackFate;
use fs_format::manifest::{MESSAGE_BYTES_MAX, ManifestBody, TAG_BYTES_MAX, TAGS_MAX};
use fs_format::tree::{CHUNK_BYTES_MAX, ChunkRef, Extent, Key, Location, Node, RecordKind};
use fs_format::{ChunkId, DeviceId, Epoch, FileKind, Ino, Inode, ManifestId, PackNumber, Seq, Timestamp};
use parking_lot::MutexGuard;

use crate::FsError;
use crate::chunking::{CONTENT_BYTES_MIN, GRANULE_BYTES, PLACE_BYTES_MAX, first_content_chunk};
use crate::collection::{Pruning, Verdict};
use crate::compaction::Moves;
use crate::dedup::Dedup;
use crate::history::settle;
use crate::layers::{self, Layers, decode};
use crate::ledger::{self, Edits, Moment, into_record};
use crate::manifests::{self, Place};
use crate::overlay::{Overlay, Slot};
use crate::store::{Packer, Store};
use crate::tree::{self, Edit, Root};
use crate::types::{Caller, SealInfo, Sealed, SnapshotLabel};
use crate::volume::{NO_STORE, Volume};

/// Files up to this many bytes lie in the tree.
pub const INLINE_BYTES_MAX: u64 = 2048;
/// A run in place this long is cut by content: it is a rewrite, not a page of a database.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

/// Writes the first manifest of a new volume: an empty root directory.
pub fn first(store: &Store, key: &VolumeKey, owner: Caller) -> Result<SealInfo, FsError> {
    let now = store.env.clock.now();
    let root = Inode {
        kind: FileKind::Directory,
        mode: 0o755,
        uid: owner.uid,
        gid: owner.gid,
        nlink: 2,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: Ino::ROOT,
        home: 0,
    };
    let mut bytes = Vec::new();
    root.encode(&mut bytes);
    let mut packer = Packer::new(store, Seq(1))?;
    let pointer = packer.node(Node::Leaf(vec![(Key::inode(Ino::ROOT), bytes.into())]))?;
    begin(
        store,
        key,
        packer,
        Beginning {
            time: now,
            root: Root { pointer, height: 0 },
            next_ino: Ino::FIRST.0,
            files: 1,
            bytes: 0,
            has_moved: false,
        },
    )
}

/// What the first moment of a volume shows.
struct Beginning {
    time: Timestamp,
    root: Root,
    next_ino: u64,
    files: u64,
    bytes: u64,
    has_moved: bool,
}

/// Writes the first manifest of a volume.
fn begin(store: &Store, key: &VolumeKey, packer: Packer<'_>, shown: Beginning) -> Result<SealInfo, FsError> {
    let own = key.read_key();
    let is_forked = own.domain() != store.keys.domain;
    let place = Place {
        epoch: Epoch(1),
        seq: Seq(1),
        parent: ManifestId([0; 32]),
        forked: is_forked.then_some(&own),
        has_moved: shown.has_moved,
        device: DeviceId([0; 16]),
    };
    packer.finish(|packs, added| {
        let body = ManifestBody {
            time: shown.time,
            root: shown.root.pointer,
            height: shown.root.height,
            next_ino: shown.next_ino,
            files: shown.files,
            bytes: shown.bytes,
            added,
            packs,
            journal: [0; 16],
            journal_end: 0,
            arbiter: NO_STORE,
            snapshot: None,
        };
        manifests::write(&store.env, key, &store.keys.read, &place, &body)
    })
}

impl Volume {
    /// Freezes the overlay and seals it; writers go on in a new one at once.
    ///
    /// Without a label and with nothing changed, returns the head as it is.
    pub fn seal(&self, label: Option<SnapshotLabel>) -> Result<SealInfo, FsError> {
        self.seal_timed(label).map(|sealed| sealed.info)
    }

    /// Seals, and tells how long others were held up by it.
    pub fn seal_timed(&self, label: Option<SnapshotLabel>) -> Result<Sealed, FsError> {
        if label.as_ref().is_some_and(|label| !fits(label)) {
            return Err(FsError::Invalid);
        }
        let _one = self.sealing.lock();
        if let Some(reason) = self.read_only_reason() {
            tracing::debug!(reason, "no seal of a read-only volume");
            return Err(FsError::ReadOnly);
        }
        // What an earlier seal could not finish goes first, without the label.
        self.finish_frozen()?;
        let Some(freeze) = self.freeze(label.is_some()) else {
            return Ok(Sealed { info: self.head(), freeze: Duration::ZERO });
        };
        let (info, _) = self.seal_frozen(Errand { label, ..Errand::default() })?;
        Ok(Sealed { info, freeze })
    }

    /// Seals though nothing may have changed.
    pub(crate) fn seal_anyway(&self) -> Result<SealInfo, FsError> {
        let _one = self.sealing.lock();
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        self.finish_frozen()?;
        self.freeze(true);
        Ok(self.seal_frozen(Errand::default())?.0)
    }

    /// Makes an earlier moment the newest: a new seal with its root.
    ///
    /// What is in the overlay is sealed first, so nothing is lost. The volume must not be mounted.
    pub fn rollback(&self, to: Seq) -> Result<SealInfo, FsError> {
        self.seal(None)?;
        let instead = self.history.moment_at(to)?;
        let _one = self.sealing.lock();
        self.freeze(true);
        Ok(self.seal_frozen(Errand { instead: Some(instead), ..Errand::default() })?.0)
    }

    /// Seals, and drops moments. Returns what was decided about packs in the end: what is sealed may need some.
    ///
    /// The caller holds the seals, and has finished what an earlier one could not.
    pub(crate) fn seal_pruned(&self, pruning: Pruning) -> Result<(SealInfo, Verdict), FsError> {
        self.freeze(true);
        let drop = pruning.drop.clone();
        let (info, verdict) = self.seal_frozen(Errand { pruning: Some(pruning), ..Errand::default() })?;
        self.history.forget(&drop);
        Ok((info, verdict.unwrap_or_default()))
    }

    /// Seals what an earlier seal froze and could not finish, without its errand.
    pub(crate) fn finish_frozen(&self) -> Result<(), FsError> {
        if self.state.read().frozen.is_some() {
            self.seal_frozen(Errand::default())?;
        }
        Ok(())
    }

    /// Goes on in this epoch, which another device had not: a new seal of what is here already.
    ///
    /// The volume must not be mounted.
    pub fn take_over(&self, epoch: Epoch) -> Result<SealInfo, FsError> {
        let _one = self.sealing.lock();
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        self.freeze(true);
        Ok(self.seal_frozen(Errand { epoch: Some(epoch), ..Errand::default() })?.0)
    }

    /// Refuses changes from now on, since another device writes the volume or may, and seals those that were answered for.
    pub fn end_writing(&self, reason: &str) -> Result<SealInfo, FsError> {
        let _one = self.sealing.lock();
        self.turn_read_only(reason);
        self.finish_frozen()?;
        match self.freeze(false) {
            Some(_) => Ok(self.seal_frozen(Errand::default())?.0),
            None => Ok(self.head()),
        }
    }

    /// Swaps in an empty overlay, if there is anything to seal; returns how long that took.
    ///
    /// It is the time that an operation may have to wait: whoever asks for the lock behind this one
    /// waits, too, for those who have it before.
    fn freeze(&self, even_empty: bool) -> Option<Duration> {
        let asked = self.env.clock.monotonic();
        let mut state = self.state.write();
        if state.active.is_empty() && !even_empty {
            return None;
        }
        let next = Overlay::new(state.active.totals, state.active.next_ino);
        let mut frozen = std::mem::replace(&mut state.active, next);
        frozen.end = self.journal.end();
        frozen.time = self.env.clock.now();
        state.frozen = Some(Arc::new(frozen));
        drop(state);
        Some(self.env.clock.monotonic().saturating_sub(asked))
    }

    fn seal_frozen(&self, errand: Errand) -> Result<(SealInfo, Option<Verdict>), FsError> {
        let begun = self.env.clock.monotonic();
        let result = self.try_seal(errand);
        match &result {
            Ok((info, _)) => {
                *self.seal_error.write() = None;
                let mut times = self.seal_times.lock();
                *times = (times.0 + 1, times.1 + self.env.clock.monotonic().saturating_sub(begun));
                drop(times);
                self.waiting.note_seal(info.added);
                if let Some(tell) = self.on_seal.get() {
                    tell(info);
                }
            }
            Err(error) => {
                *self.seal_error.write() = Some(error.to_string());
                // A full disk is waited out, and a store that has what left the disk; anything else would fail for ever.
                if !matches!(error, FsError::NoSpace | FsError::Away(_)) {
                    self.turn_read_only(&format!("a seal failed: {error}"));
                }
            }
        }
        result
    }

    fn try_seal(&self, errand: Errand) -> Result<(SealInfo, Option<Verdict>), FsError> {
        let Errand { label, instead, epoch, mut pruning } = errand;
        let (frozen, base) = {
            let state = self.state.read();
            (state.frozen.clone().expect("the caller froze the overlay"), state.base.clone())
        };
        let seq = Seq(base.info.seq.0 + 1);
        let epoch = epoch.unwrap_or(base.epoch);
        let packs_before = self.store.pack_count();
        let mut sealer = Sealer::new(self, &frozen, &base, seq)?;
        let root = match &instead {
            Some(target) => sealer.rollback(&target.root)?,
            None => sealer.tree(pruning.as_mut())?,
        };
        let totals = instead
            .as_ref()
            .map_or(frozen.totals, |target| Totals { files: target.info.files, bytes: target.info.bytes });
        let has_moved = self.store.has_moved()
            || pruning.as_ref().is_some_and(|pruning| pruning.verdict.compacted.packs.count > 0);
        let own = self.key.read_key();
        let is_forked = own.domain() != self.keys.domain;
        let place = Place {
            epoch,
            seq,
            parent: base.info.id,
            forked: is_forked.then_some(&own),
            has_moved,
            device: self.device,
        };
        let info = sealer.packer.finish(|packs, added| {
            let body = ManifestBody {
                time: frozen.time,
                root: root.pointer,
                height: root.height,
                // A rollback must not give out numbers again that a later tree used.
                next_ino: frozen.next_ino,
                files: totals.files,
                bytes: totals.bytes,
                added,
                packs,
                journal: self.journal.id(),
                journal_end: frozen.end,
                arbiter: *self.arbiter.lock(),
                snapshot: label.map(into_record),
            };
            manifests::write(&self.env, &self.key, &self.keys.read, &place, &body)
        })?;
        sealer.dedup.note(&self.store, packs_before..self.store.pack_count(), sealer.findable);

        self.store.follow(info.seq, root, has_moved);
        let sealed = Moment { root, info: info.clone(), epoch };
        self.history.note(sealed.clone());
        let retired = {
            let mut state = self.state.write();
            state.base = sealed;
            if instead.is_some() {
                state.active.totals = totals;
            }
            state.frozen.take()
        };
        self.store.packed.store(0, Ordering::Relaxed);
        // Freed behind the lock: a large overlay takes a while to drop.
        drop(retired);
        self.journal.trim(frozen.end);
        Ok((info, pruning.map(|pruning| pruning.verdict)))
    }
}

/// What a seal does besides taking in the overlay.
#[derive(Default)]
struct Errand {
    label: Option<SnapshotLabel>,
    /// Takes the tree of this moment in place of the overlay's.
    instead: Option<Moment>,
    /// Begins this epoch.
    epoch: Option<Epoch>,
    pruning: Option<Pruning>,
}

/// Whether a manifest can hold the label: what no reader takes must not be written.
fn fits(label: &SnapshotLabel) -> bool {
    label.message.len() <= MESSAGE_BYTES_MAX
        && label.tags.len() <= TAGS_MAX
        && label.tags.iter().all(|tag| tag.len() <= TAG_BYTES_MAX)
}

/// A new volume that begins at a moment of another: shares its packs and its read key.
///
/// The caller has brought packs into the new volume's folder, all but those that are `gone`, in order; to others, frames
/// were moved as `moves` says.
pub fn fork(
    store: &Store,
    key: &VolumeKey,
    from: &Moment,
    next_ino: u64,
    gone: &[PackNumber],
    moves: Moves,
) -> Result<SealInfo, FsError> {
    let mut packer = Packer::new(store, Seq(1))?;
    let has_moved = !moves.is_empty();
    let edits: Vec<Edit> = ledger::forked(store, &from.root, gone, moves)?.into_iter().collect();
    let root = tree::apply(store, &mut packer, &from.root, &edits)?;
    let SealInfo { files, bytes, .. } = from.info;
    let time = store.env.clock.now();
    begin(store, key, packer, Beginning { time, root, next_ino, files, bytes, has_moved })
}

/// What is read of a dirty run at once, in bytes.
const SLICE_BYTES: u64 = 4 << 20;

/// Bytes of a dirty run, and how long the chunks are that they begin with.
struct Slice {
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

impl Slice {
    fn pieces(&self) -> Vec<&[u8]> {
        let mut rest = &self.bytes[..];
        let cut = |&len: &usize| {
            let piece;
            (piece, rest) = rest.split_at(len);
            piece
        };
        self.lens.iter().map(cut).collect()
    }

    /// What no chunk has yet.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.lens.iter().sum()..]
    }
}

/// The work of one seal.
struct Sealer<'a> {
    volume: &'a Volume,
    frozen: &'a Overlay,
    base: &'a Moment,
    seq: Seq,
    packer: Packer<'a>,
    /// Chunks of this seal, so that what is written twice is stored once.
    born: HashMap<ChunkId, Location>,
    /// Chunks of earlier seals.
    dedup: MutexGuard<'a, Dedup>,
    /// What later seals will look for among the chunks of this one.
    findable: Vec<Entry>,
    seed: u64,
}

impl<'a> Sealer<'a> {
    fn new(volume: &'a Volume, frozen: &'a Overlay, base: &'a Moment, seq: Seq) -> Result<Self, FsError> {
        let mut packer = Packer::new(&volume.store, seq)?;
        if volume.seal_error.read().is_none() {
            packer.show_early();
        }
        let seed = volume.keys.read.chunker_seed();
        let mut dedup = volume.dedup.lock();
        dedup.begin();
        Ok(Self {
            volume,
            frozen,
            base,
            seq,
            packer,
            born: HashMap::new(),
            dedup,
            findable: Vec::new(),
            seed,
        })
    }

    fn layers(&self) -> Layers<'_, &Store> {
        Layers {
            upper: [Some(self.frozen), None],
            root: self.base.root,
            nodes: &self.volume.store,
            keys: &self.volume.keys,
        }
    }

    /// Applies the overlay, and what is pruned, to the tree.
    fn tree(&mut self, pruning: Option<&mut Pruning>) -> Result<Root, FsError> {
        let mut edits: Edits = self.frozen.records.iter().map(|(key, value)| (*key, value.clone())).collect();
        let mut inos: Vec<Ino> = self.frozen.inodes.keys().copied().collect();
        // In order, so that what belongs together lies together in the packs.
        inos.sort_unstable();
        for ino in inos {
            match &self.frozen.inodes[&ino] {
                Slot::Gone => self.drop_all(ino, &mut edits)?,
                Slot::Live { inode, fills, fresh } => {
                    let mut inode = inode.clone();
                    inode.allocated = settle(self.layers().sealed_bytes(ino))?;
                    if !fills.is_empty() && inode.kind == FileKind::File {
                        self.file(ino, &mut inode, *fresh, &mut edits)?;
                    }
                    let mut bytes = Vec::with_capacity(80);
                    inode.encode(&mut bytes);
                    edits.insert(Key::inode(ino), Some(bytes.into()));
                }
            }
        }
        let needed = self.needed(&edits)?;
        if let Some(pruning) = pruning {
            let store = &self.volume.store;
            needed.iter().try_for_each(|location| pruning.need(store, location))?;
            edits.extend(pruning.decide(store, &mut self.packer, self.seq, self.frozen.time)?);
        }
        edits.insert(Key::moment(self.base.info.seq), Some(self.base.record()));
        let edits: Vec<Edit> = edits.into_iter().collect();
        tree::apply(&self.volume.store, &mut self.packer, &self.base.root, &edits)
    }

    /// The frames of earlier seals that the extents refer to which are put. The pack of each is in use, or this is no
    /// seal: better to stop than to write down where bytes were.
    fn needed(&self, edits: &Edits) -> Result<Vec<Location>, FsError> {
        let (store, root) = (&self.volume.store, &self.base.root);
        let before = store.pack_count();
        let mut frames: BTreeMap<PackNumber, Vec<Location>> = BTreeMap::new();
        for value in extents(edits) {
            let location = decode(Extent::decode(value), "an extent")?.chunk.location;
            if location.pack.0 < before {
                frames.entry(location.pack).or_default().push(location);
            }
        }
        let is_given_up = |number| -> Result<bool, FsError> {
            let fate = ledger::fate(store, root, number)?;
            Ok(matches!(fate, Some(PackFate::Doomed { .. } | PackFate::Gone)))
        };
        for (&number, frames) in &frames {
            if !is_given_up(number)? {
                continue;
            }
            let moved = settle(ledger::moved(&**store, root, number))?;
            let find = |frame: &Location| moved.as_ref()?.find(frame.offset, frame.len);
            let packs: Option<BTreeSet<PackNumber>> =
                frames.iter().map(|frame| find(frame).map(|(pack, _)| pack)).collect();
            for pack in packs.unwrap_or_else(|| [number].into()) {
                if is_given_up(pack)? {
                    return Err(FsError::Damaged(format!(
                        "pack {pack} is needed, and collection gave it up"
                    )));
                }
            }
        }
        Ok(frames.into_values().flatten().collect())
    }

    /// Goes back to another tree; the volume's own records stay.
    fn rollback(&mut self, target: &Root) -> Result<Root, FsError> {
        let store = &self.volume.store;
        let mut edits = ledger::carried(store, target, &self.base.root, self.frozen)?;
        edits.insert(Key::moment(self.base.info.seq), Some(self.base.record()));
        let edits: Vec<Edit> = edits.into_iter().collect();
        tree::apply(store, &mut self.packer, target, &edits)
    }

    /// Drops every record of an inode that is gone.
    fn drop_all(&self, ino: Ino, edits: &mut Edits) -> Result<(), FsError> {
        let (from, to) = (Key::inode(ino), Key::inode(Ino(ino.0 + 1)));
        settle(tree::scan(&*self.volume.store, &self.base.root, &from, &to, &mut |key, _| {
            edits.insert(*key, None);
            ControlFlow::Continue(())
        }))
    }

    /// Turns a file's dirty runs into extents.
    fn file(&mut self, ino: Ino, inode: &mut Inode, fresh: bool, edits: &mut Edits) -> Result<(), FsError> {
        let frozen = self.frozen;
        let Some(Slot::Live { fills, .. }) = frozen.inodes.get(&ino) else {
            unreachable!("the caller found the slot")
        };
        let inline_key = Key::new(ino, RecordKind::Inline, 0);
        let inline =
            if fresh { None } else { settle(tree::get(&*self.volume.store, &self.base.root, &inline_key))? };
        let mut map = ExtentMap::default();
        if inode.size <= INLINE_BYTES_MAX {
            let bytes = self.bytes(ino, 0, inode.size)?;
            if !fresh {
                map.load(&self.layers(), ino, 0, u64::MAX)?;
                map.punch(0, u64::MAX);
            }
            let empty = bytes.iter().all(|&byte| byte == 0);
            if !empty {
                inode.allocated = inode.size;
                edits.insert(inline_key, Some(bytes.into()));
            } else {
                inode.allocated = 0;
                if inline.is_some() {
                    edits.insert(inline_key, None);
                }
            }
            map.write(ino, edits);
            return Ok(());
        }
        // Dirty runs of data, rounded and merged; the rest of the fills is applied at once.
        let mut runs: Vec<(u64, u64)> = Vec::new();
        if let Some(inline) = &inline {
            edits.insert(inline_key, None);
            inode.allocated = inode.allocated.saturating_sub(inline.len() as u64);
            runs.push((0, (inline.len() as u64).next_multiple_of(GRANULE_BYTES).min(inode.size)));
        }
        for (offset, fill) in fills.iter() {
            let end = offset.saturating_add(fill.len);
            match fill.source {
                Source::Journal(_) if offset < inode.size => {
                    let start = offset - offset % GRANULE_BYTES;
                    runs.push((start, end.min(inode.size).next_multiple_of(GRANULE_BYTES).min(inode.size)));
                }
                Source::Journal(_) => {}
                Source::Zero => {
                    if !fresh {
                        map.load(&self.layers(), ino, offset, end)?;
                    }
                    map.punch(offset, end);
                }
                Source::Chunk(chunk) => {
                    let end = end.min(inode.size);
                    if offset < end {
                        if !fresh {
                            map.load(&self.layers(), ino, offset, end)?;
                        }
                        map.punch(offset, end);
                        map.put(offset, Extent { len: (end - offset) as u32, chunk });
                    }
                }
            }
        }
        runs.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in runs {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        for (start, end) in merged {
            self.run(ino, inode, fresh, start, end, &mut map)?;
        }
        inode.allocated = inode.allocated.saturating_add_signed(map.growth());
        map.write(ino, edits);
        Ok(())
    }

    /// Cuts one dirty run into chunks.
    fn run(
        &mut self,
        ino: Ino,
        inode: &Inode,
        fresh: bool,
        start: u64,
        end: u64,
        map: &mut ExtentMap,
    ) -> Result<(), FsError> {
        let mut start = start;
        let mut behind = Vec::new();
        if !fresh {
            map.load(&self.layers(), ino, start, end)?;
            behind = settle(self.layers().extents(ino, end, end + 1))?;
        }
        let whole = start == 0 && end == inode.size;
        // Runs are rounded, so what was the file's end may lie in the first granule.
        let appends = end == inode.size && behind.is_empty() && !map.reaches(start + GRANULE_BYTES, end);
        let by_content = whole || appends || end - start >= REWRITE_BYTES_MIN;
        if by_content && start > 0 && !fresh {
            map.load(&self.layers(), ino, start - 1, start)?;
            start = first_cut(map.before(start), start, end);
        }
        map.punch(start, end);
        let mut at = start;
        let mut spare = Vec::new();
        let mut slice = self.slice(ino, &[], start..end, by_content, Vec::new())?;
        loop {
            let read = at + slice.bytes.len() as u64;
            let room = std::mem::take(&mut spare);
            // The next one is read and cut while this one is compressed.
            let (chunks, next) = self.chunks(&slice.pieces(), by_content, |sealer| {
                (read < end).then(|| sealer.slice(ino, slice.rest(), read..end, by_content, room))
            })?;
            for (&len, chunk) in slice.lens.iter().zip(chunks) {
                if let Some(chunk) = chunk {
                    map.put(at, Extent { len: len as u32, chunk });
                }
                at += len as u64;
            }
            let Some(next) = next else { return Ok(()) };
            spare = std::mem::replace(&mut slice, next?).bytes;
        }
    }

    /// Reads a slice of a dirty run, which begins behind `rest`, and cuts it; at the run's end to its last byte.
    fn slice(
        &self,
        ino: Ino,
        rest: &[u8],
        run: Range<u64>,
        by_content: bool,
        room: Vec<u8>,
    ) -> Result<Slice, FsError> {
        let to = run.end.min(run.start + SLICE_BYTES);
        let mut bytes = room;
        bytes.clear();
        bytes.extend_from_slice(rest);
        bytes.resize(rest.len() + (to - run.start) as usize, 0);
        self.read(ino, run.start, &mut bytes[rest.len()..])?;
        let (mut lens, mut used) = (Vec::new(), 0);
        while used < bytes.len() && (bytes.len() - used >= CHUNK_BYTES_MAX || to == run.end) {
            let rest = &bytes[used..];
            let len = match by_content {
                true => first_content_chunk(rest, self.seed),
                false => rest.len().min(PLACE_BYTES_MAX),
            };
            lens.push(len);
            used += len;
        }
        Ok(Slice { bytes, lens })
    }

    /// Stores chunks, but for those that are nothing but zeros, or there already.
    ///
    /// What is cut by content is found again in later seals. What is written in place is not: a database's pages hardly
    /// ever come twice, and to look for each of them, and remember it, would cost more than it saves.
    ///
    /// What is done `meanwhile` is done while other threads compress them.
    fn chunks<R>(
        &mut self,
        pieces: &[&[u8]],
        by_content: bool,
        meanwhile: impl FnOnce(&Self) -> R,
    ) -> Result<(Vec<Option<ChunkRef>>, R), FsError> {
        let mut ids = Vec::with_capacity(pieces.len());
        let mut new: Vec<(ChunkId, &[u8])> = Vec::new();
        let mut is_new = HashSet::new();
        for &bytes in pieces {
            if bytes.iter().all(|&byte| byte == 0) {
                ids.push(None);
                continue;
            }
            let id = self.volume.keys.chunks.name(bytes);
            ids.push(Some(id));
            if self.born.contains_key(&id) || is_new.contains(&id) {
                continue;
            }
            let known = match by_content {
                true => self.dedup.find(&self.volume.store, &self.base.root, id, bytes),
                false => None,
            };
            match known {
                Some(location) => drop(self.born.insert(id, location)),
                None => {
                    is_new.insert(id);
                    new.push((id, bytes));
                }
            }
        }
        let mut compressors = self.packer.compressors()?;
        let (compressed, done) = compressors.compress(&new, || meanwhile(self));
        compressed?;
        for ((id, _), location) in new.iter().zip(self.packer.chunks(&new, compressors)?) {
            if by_content {
                self.findable.push(Entry { start: Entry::start_of(id), pack: location.pack.0 });
            }
            self.born.insert(*id, location);
        }
        let found =
            |id: Option<ChunkId>| id.map(|id| ChunkRef { chunk: id, location: self.born[&id], skip: 0 });
        Ok((ids.into_iter().map(found).collect(), done))
    }

    /// The file's bytes as of the freeze.
    fn bytes(&self, ino: Ino, start: u64, end: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = vec![0; (end - start) as usize];
        self.read(ino, start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `out` with the file's bytes from `start`, as of the freeze.
    fn read(&self, ino: Ino, start: u64, out: &mut [u8]) -> Result<(), FsError> {
        let plan = settle(self.layers().plan(ino, start, start + out.len() as u64))?;
        layers::fetch(&self.volume.store, Some(&self.volume.journal), &plan, start, out)
    }
}

/// The extents that are put.
fn extents(edits: &Edits) -> impl Iterator<Item = &[u8]> {
    let is_extent = |key: &Key| key.kind == RecordKind::Extent;
    edits.iter().filter(move |(key, _)| is_extent(key)).filter_map(|(_, value)| value.as_deref())
}

/// Where cutting by content begins for a run: where the chunk began that reaches up to it, or into it.
///
/// So the cuts are those of the content, however many seals fell into its writing. That chunk is stored once more, whole,
/// which must not cost much: a quarter of the run, or little.
fn first_cut(before: Option<(u64, Extent)>, start: u64, end: u64) -> u64 {
    match before {
        Some((at, extent)) if at + u64::from(extent.len) >= start => {
            let again = start - at;
            // A log that grows a little at a time must not become a chain of tiny chunks.
            if again < CONTENT_BYTES_MIN as u64 || again <= (end - start) / 4 { at } else { start }
        }
        _ => start,
    }
}

/// A file's extents where they change: as they were, and as they become.
#[derive(Default)]
struct ExtentMap {
    before: BTreeMap<u64, Extent>,
    now: BTreeMap<u64, Extent>,
}

impl ExtentMap {
    /// Takes in the tree's extents that reach into a range; those already there are left alone.
    fn load(&mut self, layers: &Layers<'_, &Store>, ino: Ino, start: u64, end: u64) -> Result<(), FsError> {
        for (offset, extent) in settle(layers.extents(ino, start, end))? {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.before.entry(offset) {
                entry.insert(extent);
                self.now.insert(offset, extent);
            }
        }
        Ok(())
    }

    fn punch(&mut self, start: u64, end: u64) {
        let reaching: Vec<(u64, Extent)> = self
            .now
            .range(start.saturating_sub(CHUNK_BYTES_MAX as u64)..end)
            .filter(|(offset, extent)| *offset + u64::from(extent.len) > start)
            .map(|(offset, extent)| (*offset, *extent))
            .collect();
        for (offset, extent) in reaching {
            self.now.remove(&offset);
            if offset < start {
                self.now.insert(offset, Extent { len: (start - offset) as u32, ..extent });
            }
            let extent_end = offset + u64::from(extent.len);
            if extent_end > end {
                let skipped = (end - offset) as u32;
                let chunk = ChunkRef { skip: extent.chunk.skip + skipped, ..extent.chunk };
                self.now.insert(end, Extent { len: extent.len - skipped, chunk });
            }
        }
    }

    fn put(&mut self, offset: u64, extent: Extent) {
        self.now.insert(offset, extent);
    }

    /// Whether an extent of before reaches into the range.
    fn reaches(&self, start: u64, end: u64) -> bool {
        self.before
            .range(start.saturating_sub(CHUNK_BYTES_MAX as u64)..end)
            .any(|(offset, extent)| offset + u64::from(extent.len) > start)
    }

    /// The extent that ends at or before an offset.
    fn before(&self, offset: u64) -> Option<(u64, Extent)> {
        self.now.range(..offset).next_back().map(|(at, extent)| (*at, *extent))
    }

    /// How many more bytes the extents hold than before.
    fn growth(&self) -> i64 {
        let sum = |map: &BTreeMap<u64, Extent>| map.values().map(|extent| i64::from(extent.len)).sum::<i64>();
        sum(&self.now) - sum(&self.before)
    }

    fn write(&self, ino: Ino, edits: &mut Edits) {
        for (offset, extent) in &self.before {
            if self.now.get(offset) != Some(extent) && !self.now.contains_key(offset) {
                edits.insert(Key::new(ino, RecordKind::Extent, *offset), None);
            }
        }
        for (offset, extent) in &self.now {
            if self.before.get(offset) != Some(extent) {
                let mut bytes = Vec::with_capacity(40);
                extent.encode(&mut bytes);
                edits.insert(Key::new(ino, RecordKind::Extent, *offset), Some(bytes.into()));
            }
        }
    }
}
