//! Looking through overlay, frozen overlay and tree as one.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use fs_format::journal::Source;
use fs_format::tree::{CHUNK_BYTES_MAX, ChunkRef, Dirent, Extent, Key, Node, NodePtr, RecordKind, Xattr};
use fs_format::{FileKind, Ino, Inode, NodeId};

use crate::overlay::{Overlay, Slot};
use crate::store::Store;
use crate::tree::{self, Fault, Nodes, Record, Root};
use crate::types::{Attr, DirEntry, Seek};
use crate::{FsError, keys::Keys};

/// Nodes from the cache, or those that this operation already waited for.
pub struct Cached<'a> {
    pub store: &'a Store,
    pub pinned: &'a HashMap<NodeId, Arc<Node>>,
}

impl Nodes for Cached<'_> {
    fn node(&self, pointer: &NodePtr) -> Result<Arc<Node>, Fault> {
        self.store
            .cached_node(pointer)
            .or_else(|| self.pinned.get(&pointer.id).cloned())
            .ok_or(Fault::Miss(*pointer))
    }
}

/// The layers, newest first, over a root.
pub struct Layers<'a, N> {
    /// The overlay, and the frozen one.
    pub upper: [Option<&'a Overlay>; 2],
    /// The sealed tree.
    pub root: Root,
    /// Where its nodes come from.
    pub nodes: N,
    /// Says where names lie.
    pub keys: &'a Keys,
}

/// Where bytes of a file come from.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The journal, at this position.
    Journal(u64),
    /// Zeros.
    Zero,
    /// A chunk, from its `skip`.
    Chunk(ChunkRef),
    /// These bytes.
    Bytes(Box<[u8]>),
}

/// Entries that one step of a directory scan takes from the tree.
const SCAN_STEP: usize = 512;
/// The largest answer whose memory a thread keeps: the kernel's largest request.
const ANSWER_BYTES_KEPT: usize = 1 << 20;
/// Directories that a path may go down.
const PATH_DEPTH_MAX: usize = 4096;
/// Names whose hashes agree that a directory can hold.
const COLLISIONS: u64 = 256;

impl<N: Nodes> Layers<'_, N> {
    fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        self.upper.iter().flatten().copied()
    }

    /// The path of an inode by its known names; `None` where one is not known.
    pub fn path(&self, ino: Ino) -> Result<Option<Vec<u8>>, Fault> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let inode = match self.inode(at) {
                Err(Fault::Error(FsError::NotFound)) => return Ok(None),
                other => other?,
            };
            if inode.parent == Ino(0) || parts.len() > PATH_DEPTH_MAX {
                return Ok(None);
            }
            let key = Key::new(inode.parent, RecordKind::Dirent, inode.home);
            let Some(value) = self.record(&key)? else { return Ok(None) };
            let (named, _, name) = decode(Dirent::parts(&value), "a directory entry")?;
            if named != at {
                return Ok(None);
            }
            parts.push(name.to_vec());
            at = inode.parent;
        }
        parts.reverse();
        Ok(Some(parts.join(&b'/')))
    }

    /// Whether `ino` was made in an overlay: then the tree knows nothing of it.
    fn is_fresh(&self, ino: Ino) -> bool {
        self.overlays()
            .any(|overlay| matches!(overlay.inodes.get(&ino), Some(Slot::Live { fresh: true, .. })))
    }

    /// An inode's record.
    pub fn inode(&self, ino: Ino) -> Result<Inode, Fault> {
        for overlay in self.overlays() {
            match overlay.inodes.get(&ino) {
                Some(Slot::Live { inode, .. }) => return Ok(inode.clone()),
                Some(Slot::Gone) => return Err(FsError::NotFound.into()),
                None => {}
            }
        }
        match tree::get(&self.nodes, &self.root, &Key::inode(ino))? {
            Some(bytes) => Ok(decode(Inode::decode(&mut fs_format::Reader::new(&bytes)), "an inode")?),
            None => Err(FsError::NotFound.into()),
        }
    }

    /// What the tree holds of a file, in bytes.
    ///
    /// Only the tree's own record says it: that in an overlay was made from one that a seal may have replaced since.
    pub fn sealed_bytes(&self, ino: Ino) -> Result<u64, Fault> {
        if self.is_fresh(ino) {
            return Ok(0);
        }
        let sealed = tree::get(&self.nodes, &self.root, &Key::inode(ino))?;
        sealed.map_or(Ok(0), |bytes| {
            Ok(decode(Inode::decode(&mut fs_format::Reader::new(&bytes)), "an inode")?.allocated)
        })
    }

    /// An inode with what `stat` shows.
    pub fn attr(&self, ino: Ino) -> Result<Attr, Fault> {
        let inode = self.inode(ino)?;
        if self.overlays().any(|overlay| overlay.inodes.contains_key(&ino)) {
            return self.attr_of(ino, inode);
        }
        let allocated = inode.allocated;
        Ok(Attr { ino, inode, allocated })
    }

    /// The same, where `inode` is what its record is about to be.
    pub fn attr_of(&self, ino: Ino, inode: Inode) -> Result<Attr, Fault> {
        let mut allocated = self.sealed_bytes(ino)?;
        for overlay in self.overlays() {
            if let Some(Slot::Live { fills, .. }) = overlay.inodes.get(&ino) {
                // A file that was cut has zeros from its end on, so none of its data lies behind it.
                allocated += fills.data();
            }
        }
        if inode.kind == FileKind::File {
            allocated = allocated.min(inode.size.next_multiple_of(4096));
        }
        Ok(Attr { ino, inode, allocated })
    }

    /// A directory's record; an error for anything else.
    pub fn directory(&self, ino: Ino) -> Result<Inode, Fault> {
        let inode = self.inode(ino)?;
        if inode.kind != FileKind::Directory {
            return Err(FsError::NotADirectory.into());
        }
        Ok(inode)
    }

    /// A record other than an inode.
    pub fn record(&self, key: &Key) -> Result<Option<Box<[u8]>>, Fault> {
        for overlay in self.overlays() {
            if let Some(value) = overlay.records.get(key) {
                return Ok(value.clone());
            }
            if let Some(Slot::Live { fresh: true, .. } | Slot::Gone) = overlay.inodes.get(&key.ino) {
                return Ok(None);
            }
        }
        tree::get(&self.nodes, &self.root, key)
    }

    /// Up to `limit` records in `from..to`; of one inode and other than inodes and extents.
    pub fn records(&self, from: Key, to: Key, limit: usize) -> Result<Vec<Record>, Fault> {
        let mut from = from;
        let mut out = Vec::new();
        let fresh = self.is_fresh(from.ino);
        // No more than is asked for: a listing comes in many small steps.
        let step = limit.saturating_add(1).min(SCAN_STEP);
        loop {
            let mut batch: BTreeMap<Key, Option<Box<[u8]>>> = BTreeMap::new();
            let mut last = None;
            if !fresh {
                let mut taken = 0;
                tree::scan(&self.nodes, &self.root, &from, &to, &mut |key, value| {
                    batch.insert(*key, Some(value.into()));
                    taken += 1;
                    if taken == step {
                        last = Some(*key);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
            }
            // Beyond the last key that the tree gave, the overlays may not run ahead of it.
            let end = match last {
                Some(key) => Bound::Included(key),
                None => Bound::Excluded(to),
            };
            for overlay in [self.upper[1], self.upper[0]].into_iter().flatten() {
                for (key, value) in overlay.records.range((Bound::Included(from), end)) {
                    batch.insert(*key, value.clone());
                }
            }
            for (key, value) in batch {
                if let Some(value) = value {
                    out.push((key, value));
                    if out.len() == limit {
                        return Ok(out);
                    }
                }
            }
            match last {
                Some(key) => from = Key { sub: key.sub + 1, ..key },
                None => return Ok(out),
            }
        }
    }

    /// The sub key at which names with this hash begin.
    fn slot(&self, name: &[u8]) -> u64 {
        // 55 bits of hash over 8 bits for collisions: fits an i64, and is above all reserved positions.
        (self.keys.names.hash(name) >> 9).max(1) << 8
    }

    /// Finds a directory entry.
    pub fn dirent(&self, dir: Ino, name: &[u8]) -> Result<Option<(Key, Dirent)>, Fault> {
        let from = Key::new(dir, RecordKind::Dirent, self.slot(name));
        let to = Key { sub: from.sub + COLLISIONS, ..from };
        for (key, value) in self.records(from, to, usize::MAX)? {
            let dirent = decode(Dirent::decode(&value), "a directory entry")?;
            if &*dirent.name == name {
                return Ok(Some((key, dirent)));
            }
        }
        Ok(None)
    }

    /// A key for a new entry.
    pub fn free_dirent(&self, dir: Ino, name: &[u8]) -> Result<Key, Fault> {
        self.free(Key::new(dir, RecordKind::Dirent, self.slot(name)))
    }

    fn free(&self, from: Key) -> Result<Key, Fault> {
        let taken = self.records(from, Key { sub: from.sub + COLLISIONS, ..from }, usize::MAX)?;
        let mut free = from;
        for (key, _) in taken {
            if key.sub != free.sub {
                break;
            }
            free.sub += 1;
        }
        if free.sub == from.sub + COLLISIONS {
            return Err(FsError::NoSpace.into());
        }
        Ok(free)
    }

    /// Finds an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<(Key, Xattr)>, Fault> {
        let from = Key::new(ino, RecordKind::Xattr, self.slot(name));
        let to = Key { sub: from.sub + COLLISIONS, ..from };
        for (key, value) in self.records(from, to, usize::MAX)? {
            let xattr = decode(Xattr::decode(&value), "an attribute")?;
            if &*xattr.name == name {
                return Ok(Some((key, xattr)));
            }
        }
        Ok(None)
    }

    /// A key for a new attribute.
    pub fn free_xattr(&self, ino: Ino, name: &[u8]) -> Result<Key, Fault> {
        self.free(Key::new(ino, RecordKind::Xattr, self.slot(name)))
    }

    /// The names of all attributes.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Fault> {
        self.inode(ino)?;
        let from = Key::new(ino, RecordKind::Xattr, 0);
        let to = Key::new(ino, RecordKind::Inline, 0);
        let mut names = Vec::new();
        for (_, value) in self.records(from, to, usize::MAX)? {
            names.push(decode(Xattr::decode(&value), "an attribute")?.name.into_vec());
        }
        Ok(names)
    }

    /// Entries behind a cookie.
    pub fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, Fault> {
        self.directory(dir)?;
        let from = Key::new(dir, RecordKind::Dirent, cookie.saturating_add(1));
        let to = Key::new(dir, RecordKind::Xattr, 0);
        let mut entries = Vec::new();
        for (key, value) in self.records(from, to, limit)? {
            let (ino, kind, name) = decode(Dirent::parts(&value), "a directory entry")?;
            entries.push(DirEntry { cookie: key.sub, name: name.to_vec(), ino, kind });
        }
        Ok(entries)
    }

    /// A symbolic link's target.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Fault> {
        if self.inode(ino)?.kind != FileKind::Symlink {
            return Err(FsError::Invalid.into());
        }
        let target = self.record(&Key::new(ino, RecordKind::Inline, 0))?;
        Ok(target.ok_or_else(|| FsError::Damaged(format!("link {ino} has no target")))?.into_vec())
    }

    /// Where the bytes `start..end` come from; gaps do not occur, and nothing is clipped to the size.
    pub fn plan(&self, ino: Ino, start: u64, end: u64) -> Result<Vec<(u64, u64, Piece)>, Fault> {
        let mut todo = vec![(start, end)];
        let mut plan: Vec<(u64, u64, Piece)> = Vec::new();
        for overlay in self.overlays() {
            match overlay.inodes.get(&ino) {
                None => {}
                Some(Slot::Gone) => return Err(FsError::NotFound.into()),
                Some(Slot::Live { fills, fresh, .. }) => {
                    let mut clean = Vec::new();
                    for (from, to) in todo {
                        for (from, to, source) in fills.parts(from, to) {
                            match source {
                                None if *fresh => plan.push((from, to, Piece::Zero)),
                                None => clean.push((from, to)),
                                Some(Source::Zero) => plan.push((from, to, Piece::Zero)),
                                Some(Source::Journal(at)) => plan.push((from, to, Piece::Journal(at))),
                                Some(Source::Chunk(chunk)) => plan.push((from, to, Piece::Chunk(chunk))),
                            }
                        }
                    }
                    todo = clean;
                }
            }
            if todo.is_empty() {
                break;
            }
        }
        for (from, to) in todo {
            self.plan_tree(ino, from, to, &mut plan)?;
        }
        plan.sort_by_key(|(from, _, _)| *from);
        Ok(plan)
    }

    /// The part of a plan that a reader will ask for soon: nothing behind the file's end.
    pub fn plan_ahead(&self, ino: Ino, start: u64, end: u64) -> Result<Vec<(u64, u64, Piece)>, Fault> {
        let end = end.min(self.inode(ino)?.size);
        if start < end { self.plan(ino, start, end) } else { Ok(Vec::new()) }
    }

    fn plan_tree(
        &self,
        ino: Ino,
        start: u64,
        end: u64,
        plan: &mut Vec<(u64, u64, Piece)>,
    ) -> Result<(), Fault> {
        let mut at = start;
        if let Some(bytes) = tree::get(&self.nodes, &self.root, &Key::new(ino, RecordKind::Inline, 0))? {
            let to = end.min(bytes.len() as u64);
            if to > at {
                plan.push((at, to, Piece::Bytes(bytes[at as usize..to as usize].into())));
                at = to;
            }
        }
        for (offset, extent) in self.extents(ino, at, end)? {
            let from = offset.max(at);
            let to = (offset + u64::from(extent.len)).min(end);
            if to <= from {
                continue;
            }
            if from > at {
                plan.push((at, from, Piece::Zero));
            }
            let skip = extent.chunk.skip + (from - offset) as u32;
            plan.push((from, to, Piece::Chunk(ChunkRef { skip, ..extent.chunk })));
            at = to;
        }
        if at < end {
            plan.push((at, end, Piece::Zero));
        }
        Ok(())
    }

    /// The tree's extents that reach into `start..end`.
    pub fn extents(&self, ino: Ino, start: u64, end: u64) -> Result<Vec<(u64, Extent)>, Fault> {
        let from = Key::new(ino, RecordKind::Extent, start.saturating_sub(CHUNK_BYTES_MAX as u64));
        let to = Key::new(ino, RecordKind::Extent, end);
        let mut extents = Vec::new();
        let mut bad = None;
        tree::scan(&self.nodes, &self.root, &from, &to, &mut |key, value| {
            match Extent::decode(value) {
                Ok(extent) if key.sub + u64::from(extent.len) > start => extents.push((key.sub, extent)),
                Ok(_) => {}
                Err(error) => {
                    bad = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        match bad {
            None => Ok(extents),
            Some(error) => Err(FsError::Damaged(format!("an extent of inode {ino} {error}")).into()),
        }
    }

    /// The first offset at or behind `from` at which a dirty run or an extent begins.
    fn next_edge(&self, ino: Ino, from: u64) -> Result<Option<u64>, Fault> {
        let mut edge = None;
        for overlay in self.overlays() {
            if let Some(Slot::Live { fills, .. }) = overlay.inodes.get(&ino) {
                edge = fills.next_start(from).into_iter().chain(edge).min();
            }
        }
        let (first, last) =
            (Key::new(ino, RecordKind::Extent, from), Key::new(ino, RecordKind::Extent, u64::MAX));
        tree::scan(&self.nodes, &self.root, &first, &last, &mut |key, _| {
            edge = edge.into_iter().chain([key.sub]).min();
            ControlFlow::Break(())
        })?;
        Ok(edge)
    }

    /// The next data or hole at or behind `offset`.
    pub fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, Fault> {
        let inode = self.inode(ino)?;
        if inode.kind != FileKind::File {
            return Err(FsError::Invalid.into());
        }
        if offset >= inode.size {
            return Err(FsError::NoSuchOffset.into());
        }
        // A window at a time, so that a small answer does not list a large file.
        let mut at = offset;
        while at < inode.size {
            let end = inode.size.min(at.saturating_add(64 << 20));
            for (from, _, piece) in self.plan(ino, at, end)? {
                let hole = matches!(piece, Piece::Zero);
                if hole == (what == Seek::Hole) {
                    return Ok(from.max(offset));
                }
            }
            // Nothing but a hole: go on where anything begins, however far that is.
            at = match what {
                Seek::Hole => end,
                Seek::Data => self.next_edge(ino, end)?.unwrap_or(inode.size),
            };
        }
        match what {
            Seek::Hole => Ok(inode.size),
            Seek::Data => Err(FsError::NoSuchOffset.into()),
        }
    }
}

/// Translates a record that does not decode: its node was authentic, so a writer was wrong.
pub fn decode<T>(result: Result<T, fs_format::DecodeError>, what: &str) -> Result<T, FsError> {
    result.map_err(|error| FsError::Damaged(format!("{what} {error}")))
}

thread_local! {
    /// Where an answer made of several pieces is put together; kept, so that its memory is.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Hands the `len` bytes of a plan that begins at `start` to `take`; those of a single chunk as they lie in the cache.
pub fn fetch_with(
    store: &Store,
    journal: Option<&crate::journal::Journal>,
    plan: &[(u64, u64, Piece)],
    start: u64,
    len: usize,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), FsError> {
    if let [(_, _, Piece::Chunk(chunk))] = plan {
        take(part_of(&store.chunk(chunk)?, chunk.skip, len)?);
        return Ok(());
    }
    let mut answer = ANSWER.take();
    if answer.len() < len {
        answer.resize(len, 0);
    }
    let outcome = fetch(store, journal, plan, start, &mut answer[..len]);
    if outcome.is_ok() {
        take(&answer[..len]);
    }
    // Longer reads than the kernel's are rare, and not worth their memory for ever.
    if answer.len() <= ANSWER_BYTES_KEPT {
        ANSWER.set(answer);
    }
    outcome
}

/// Has the chunks of a plan brought into the cache by those who serve it.
pub fn want(store: &Store, plan: &[(u64, u64, Piece)]) {
    let lacked = plan.iter().filter_map(|(_, _, piece)| match piece {
        Piece::Chunk(chunk) if !store.has_chunk(chunk) => Some(*chunk),
        _ => None,
    });
    let chunks: Vec<ChunkRef> = lacked.collect();
    store.will_read(&chunks);
    if store.wanted().is_served() {
        chunks.into_iter().for_each(|chunk| store.wanted().put(chunk));
    }
}

/// The bytes of a chunk that an extent names.
fn part_of(chunk: &[u8], skip: u32, len: usize) -> Result<&[u8], FsError> {
    chunk
        .get(skip as usize..)
        .and_then(|bytes| bytes.get(..len))
        .ok_or_else(|| FsError::Damaged("an extent reaches beyond its chunk".into()))
}

/// Fills `out` with the bytes of a plan that begins at `start`.
pub fn fetch(
    store: &Store,
    journal: Option<&crate::journal::Journal>,
    plan: &[(u64, u64, Piece)],
    start: u64,
    out: &mut [u8],
) -> Result<(), FsError> {
    for (from, to, piece) in plan {
        let part = &mut out[(from - start) as usize..(to - start) as usize];
        match piece {
            Piece::Zero => part.fill(0),
            Piece::Bytes(bytes) => part.copy_from_slice(bytes),
            Piece::Journal(at) => match journal {
                Some(journal) => journal.read(*at, part)?,
                None => return Err(FsError::Damaged("a sealed moment refers to the journal".into())),
            },
            Piece::Chunk(chunk) => {
                let bytes = store.chunk(chunk)?;
                part.copy_from_slice(part_of(&bytes, chunk.skip, part.len())?);
            }
        }
    }
    Ok(())
}
