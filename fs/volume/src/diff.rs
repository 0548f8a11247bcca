//! What differs between two moments.
//!
//! Walks both trees side by side and leaves out every subtree that both share, so the cost
//! is that of what changed. Bytes are compared only where a file's records changed and everything else
//! that a user sees of it is the same, as after a restore.
//!
//! A file that changed is told by each of its names. An inode knows one of them at most, so where it has others that
//! did not change themselves, all directories are searched, once for all such files and until each name is found.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use fs_format::tree::{Dirent, Extent, Key, Node, NodePtr, RecordKind};
use fs_format::{ChunkId, FileKind, Ino, Inode, Reader};

use crate::FsError;
use crate::history::{View, settle};
use crate::layers::decode;
use crate::store::Store;
use crate::tree;
use crate::types::{Change, ChangeKind, ReadTree, Seek};

/// Is told a record that is not the same on both sides.
pub type Visit<'a> = dyn FnMut(Key, Option<&[u8]>, Option<&[u8]>) -> Result<(), FsError> + 'a;

/// Visits each record of a file that is not the same on both sides.
pub fn records(store: &Store, old: &NodePtr, new: &NodePtr, visit: &mut Visit<'_>) -> Result<(), FsError> {
    if old.id == new.id {
        return Ok(());
    }
    let (mut old, mut new) = (Cursor::of_files(store, *old)?, Cursor::of_files(store, *new)?);
    loop {
        // Where both stand at the beginning of the same node, neither looks inside.
        while let (Some(a), Some(b)) = (old.whole(), new.whole()) {
            if a.1.id == b.1.id {
                old.skip()?;
                new.skip()?;
            } else if a.2 > b.2 {
                old.descend()?;
            } else if b.2 > a.2 {
                new.descend()?;
            } else {
                old.descend()?;
                new.descend()?;
            }
        }
        if old.whole().is_some() && (new.record().is_some() || new.is_done()) {
            let ahead = match (old.whole(), new.record()) {
                (Some((first, _, _)), Some((key, _))) => first > key,
                _ => false,
            };
            if !ahead {
                old.descend()?;
                continue;
            }
        }
        if new.whole().is_some() && (old.record().is_some() || old.is_done()) {
            let ahead = match (new.whole(), old.record()) {
                (Some((first, _, _)), Some((key, _))) => first > key,
                _ => false,
            };
            if !ahead {
                new.descend()?;
                continue;
            }
        }
        match (old.record(), new.record()) {
            (Some((a, x)), Some((b, y))) if a == b => {
                if x != y {
                    visit(a, Some(x), Some(y))?;
                }
                old.step()?;
                new.step()?;
            }
            (Some((a, x)), Some((b, _))) if a < b => {
                visit(a, Some(x), None)?;
                old.step()?;
            }
            (Some(_), Some((b, y))) => {
                visit(b, None, Some(y))?;
                new.step()?;
            }
            (Some((a, x)), None) => {
                visit(a, Some(x), None)?;
                old.step()?;
            }
            (None, Some((b, y))) => {
                visit(b, None, Some(y))?;
                new.step()?;
            }
            (None, None) => return Ok(()),
        }
    }
}

/// A place in a tree: at a node not yet looked into, at a record, or at the end.
struct Cursor<'a> {
    store: &'a Store,
    /// Nodes on the way down, each with the index of the next child or record.
    path: Vec<(std::sync::Arc<Node>, usize)>,
}

impl<'a> Cursor<'a> {
    /// Stands before the first record of a file: the volume's own differ between any two moments, and are none of them.
    fn of_files(store: &'a Store, root: NodePtr) -> Result<Self, FsError> {
        let mut cursor = Self { store, path: Vec::new() };
        let mut next = Some(root);
        while let Some(pointer) = next {
            let node = store.node(&pointer)?;
            let at = match &*node {
                Node::Branch { children, .. } => {
                    let behind = children.partition_point(|(first, _)| *first <= Key::FIRST_OF_FILES);
                    let inside = behind.saturating_sub(1);
                    next = children.get(inside).map(|(_, child)| *child);
                    inside + 1
                }
                Node::Leaf(records) => {
                    next = None;
                    records.partition_point(|(key, _)| *key < Key::FIRST_OF_FILES)
                }
            };
            cursor.path.push((node, at));
        }
        cursor.climb();
        Ok(cursor)
    }

    /// The node that the cursor stands before: its first key, itself, its level.
    fn whole(&self) -> Option<(Key, NodePtr, u8)> {
        match self.path.last() {
            Some((node, at)) => match &**node {
                Node::Branch { level, children } => {
                    children.get(*at).map(|(key, child)| (*key, *child, level - 1))
                }
                Node::Leaf(_) => None,
            },
            None => None,
        }
    }

    fn record(&self) -> Option<(Key, &[u8])> {
        match self.path.last() {
            Some((node, at)) => match &**node {
                Node::Leaf(records) => records.get(*at).map(|(key, value)| (*key, &**value)),
                Node::Branch { .. } => None,
            },
            None => None,
        }
    }

    fn is_done(&self) -> bool {
        self.path.is_empty()
    }

    fn descend(&mut self) -> Result<(), FsError> {
        let (_, pointer, _) = self.whole().expect("the cursor stands before a node");
        self.path.last_mut().expect("a child has a parent").1 += 1;
        self.path.push((self.store.node(&pointer)?, 0));
        self.climb();
        Ok(())
    }

    fn skip(&mut self) -> Result<(), FsError> {
        self.path.last_mut().expect("a child has a parent").1 += 1;
        self.climb();
        Ok(())
    }

    fn step(&mut self) -> Result<(), FsError> {
        self.path.last_mut().expect("the cursor stands at a record").1 += 1;
        self.climb();
        Ok(())
    }

    /// Leaves nodes that have nothing more.
    fn climb(&mut self) {
        while let Some((node, at)) = self.path.last() {
            let len = match &**node {
                Node::Leaf(records) => records.len(),
                Node::Branch { children, .. } => children.len(),
            };
            if *at < len {
                break;
            }
            self.path.pop();
        }
    }
}

/// Bytes of two files that are compared at once.
const COMPARE_BYTES: u64 = 1 << 20;

/// What a path names before and after; `None` where it names nothing.
#[derive(Default)]
struct Sides {
    old: Option<(Ino, FileKind)>,
    new: Option<(Ino, FileKind)>,
}

/// Directory entries by directory and position: what each leads to, and its name.
type Entries = BTreeMap<(Ino, u64), (Ino, FileKind, Vec<u8>)>;

/// What differs between the records of two moments.
#[derive(Default)]
struct Delta {
    removed: Entries,
    added: Entries,
    /// Inodes of both moments that may not look the same any more.
    touched: BTreeSet<Ino>,
}

fn delta(old: &View, new: &View) -> Result<Delta, FsError> {
    let mut delta = Delta::default();
    // The inode that was made or dropped: it is told by its names, which come and go with it.
    let mut lone = None;
    records(new.store(), &old.root().pointer, &new.root().pointer, &mut |key, before, after| {
        match key.kind {
            RecordKind::Dirent => {
                let entry = |bytes: &[u8]| -> Result<_, FsError> {
                    let (ino, kind, name) = decode(Dirent::parts(bytes), "a directory entry")?;
                    Ok((ino, kind, name.to_vec()))
                };
                if let Some(before) = before {
                    delta.removed.insert((key.ino, key.sub), entry(before)?);
                }
                if let Some(after) = after {
                    delta.added.insert((key.ino, key.sub), entry(after)?);
                }
            }
            RecordKind::Inode => {
                let read = |bytes: &[u8]| decode(Inode::decode(&mut Reader::new(bytes)), "an inode");
                let (Some(before), Some(after)) = (before, after) else {
                    lone = Some(key.ino);
                    return Ok(());
                };
                if !looks_same(&read(before)?, &read(after)?) {
                    delta.touched.insert(key.ino);
                }
            }
            RecordKind::Xattr | RecordKind::Inline | RecordKind::Extent => {
                if lone != Some(key.ino) {
                    delta.touched.insert(key.ino);
                }
            }
            // The volume's own; none of them lies among those of files.
            RecordKind::Orphan
            | RecordKind::Moment
            | RecordKind::Fate
            | RecordKind::Policy
            | RecordKind::Moved => {}
        }
        Ok(())
    })?;
    Ok(delta)
}

/// The paths that differ, sorted.
pub fn changes(old: &View, new: &View) -> Result<Vec<Change>, FsError> {
    let Delta { removed, added, touched } = delta(old, new)?;
    let names = |entries: &Entries| {
        let mut names: HashMap<Ino, u32> = HashMap::new();
        entries.values().for_each(|(ino, _, _)| *names.entry(*ino).or_default() += 1);
        names
    };
    let (left, arrived) = (names(&removed), names(&added));
    let mut paths: BTreeMap<Vec<u8>, Sides> = BTreeMap::new();
    for (view, entries, elsewhere) in [(old, &removed, &arrived), (new, &added, &left)] {
        let mut put = |path, ino, kind| {
            let sides = paths.entry(path).or_default();
            let side = if std::ptr::eq(view, old) { &mut sides.old } else { &mut sides.new };
            *side = Some((ino, kind));
        };
        for ((dir, _), (ino, kind, name)) in entries {
            // An entry below a directory that moved as a whole is told by the directory.
            let Some(dir) = view.path(*dir)? else { continue };
            let path = join(&dir, name);
            // What a directory that moved holds did not change itself, but its paths did.
            if *kind == FileKind::Directory && elsewhere.contains_key(ino) {
                each_name(view, *ino, &path, &mut |dir, name, ino, kind| {
                    put(join(dir, name), ino, kind);
                    ControlFlow::Continue(())
                })?;
            }
            put(path, *ino, *kind);
        }
    }
    let mut judged: HashMap<(Ino, Ino), bool> = HashMap::new();
    let mut is_same = |before, after| match judged.entry((before, after)) {
        Entry::Occupied(known) => Ok(*known.get()),
        Entry::Vacant(unknown) => is_same(old, before, new, after).map(|same| *unknown.insert(same)),
    };
    // A name that is not there yet is the same before and after: what it leads to changed.
    let mut stayed = |path, ino, kind| {
        let side = Some((ino, kind));
        paths.entry(path).or_insert(Sides { old: side, new: side });
    };
    let mut sought: HashMap<Ino, u32> = HashMap::new();
    for ino in touched {
        let Some(inode) = found(new, ino)? else { continue };
        let mut known = arrived.get(&ino).copied().unwrap_or(0);
        if let Some(path) = new.path(ino)? {
            stayed(path, ino, inode.kind);
            known += u32::from(!added.contains_key(&(inode.parent, inode.home)));
        }
        if inode.kind != FileKind::Directory && known < inode.nlink && !is_same(ino, ino)? {
            sought.insert(ino, inode.nlink);
        }
    }
    let mut missing: u64 = sought.values().map(|&names| u64::from(names)).sum();
    if missing > 0 {
        each_name(new, Ino::ROOT, b"", &mut |dir, name, ino, kind| {
            if sought.contains_key(&ino) {
                stayed(join(dir, name), ino, kind);
                missing -= 1;
            }
            if missing > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    let mut changes = Vec::new();
    for (path, sides) in paths {
        let (kind, file) = match (sides.old, sides.new) {
            (Some((before, _)), Some((after, file))) => {
                if is_same(before, after)? {
                    continue;
                }
                (ChangeKind::Modified, file)
            }
            (Some((_, file)), None) => (ChangeKind::Removed, file),
            (None, Some((_, file))) => (ChangeKind::Added, file),
            (None, None) => continue,
        };
        changes.push(Change { kind, path, file });
    }
    Ok(changes)
}

fn found(view: &View, ino: Ino) -> Result<Option<Inode>, FsError> {
    match settle(view.layers().inode(ino)) {
        Ok(inode) => Ok(Some(inode)),
        Err(FsError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a user would call both the same, also where they are different inodes.
fn is_same(old: &View, before: Ino, new: &View, after: Ino) -> Result<bool, FsError> {
    let (Some(a), Some(b)) = (found(old, before)?, found(new, after)?) else { return Ok(false) };
    // A name more or less is told by itself; a copy in place of one of several names is a change.
    let shares = before != after && b.kind != FileKind::Directory && a.nlink != b.nlink;
    if shares || !looks_same(&a, &b) || attributes(old, before)? != attributes(new, after)? {
        return Ok(false);
    }
    match b.kind {
        FileKind::File => match has_same_bytes(old, before, new, after, b.size) {
            // What cannot be read cannot be called the same.
            Err(FsError::Damaged(_)) => Ok(false),
            other => other,
        },
        FileKind::Symlink => Ok(old.read_link(before)? == new.read_link(after)?),
        _ => Ok(true),
    }
}

/// Compares inodes, but for times of access, change and birth, their names and how many there are, and a directory's
/// own count of entries.
fn looks_same(before: &Inode, after: &Inode) -> bool {
    let mut before = before.clone();
    (before.atime, before.ctime, before.btime) = (after.atime, after.ctime, after.btime);
    (before.parent, before.home, before.nlink) = (after.parent, after.home, after.nlink);
    before.allocated = after.allocated;
    if before.kind == FileKind::Directory {
        (before.size, before.mtime) = (after.size, after.mtime);
    }
    before == *after
}

/// The extended attributes by name.
fn attributes(view: &View, ino: Ino) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, FsError> {
    let value = |name: Vec<u8>| view.xattr(ino, &name).map(|value| (name, value));
    view.xattrs(ino)?.into_iter().map(value).collect()
}

/// Compares the bytes of two files of one length, and reads only where their chunks differ.
fn has_same_bytes(old: &View, before: Ino, new: &View, after: Ino, size: u64) -> Result<bool, FsError> {
    let data = |view: &View, ino, at| match view.seek(ino, at, Seek::Data) {
        Err(FsError::NoSuchOffset) => Ok(size),
        other => other,
    };
    let mut at = 0;
    loop {
        at = data(old, before, at)?.min(data(new, after, at)?);
        if at >= size {
            return Ok(true);
        }
        let len = COMPARE_BYTES.min(size - at);
        let (a, b) = (chunks(old, before, at, at + len)?, chunks(new, after, at, at + len)?);
        // Small files have no chunks.
        let is_same = (a == b && !a.is_empty())
            || old.read(before, at, len as usize)? == new.read(after, at, len as usize)?;
        if !is_same {
            return Ok(false);
        }
        at += len;
    }
}

/// Which parts of which chunks a range of a file is made of, wherever those lie.
fn chunks(view: &View, ino: Ino, start: u64, end: u64) -> Result<Vec<(u64, u32, ChunkId, u32)>, FsError> {
    let extents = settle(view.layers().extents(ino, start, end))?;
    let part = |(at, extent): (u64, Extent)| (at, extent.len, extent.chunk.chunk, extent.chunk.skip);
    Ok(extents.into_iter().map(part).collect())
}

/// A name below a directory's path.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}

/// Is told the path of a directory, a name in it, and what that leads to.
type VisitName<'a> = dyn FnMut(&[u8], &[u8], Ino, FileKind) -> ControlFlow<()> + 'a;

/// Visits each name below a directory until the visitor breaks.
fn each_name(view: &View, dir: Ino, path: &[u8], visit: &mut VisitName<'_>) -> Result<(), FsError> {
    let mut todo = vec![(dir, path.to_vec())];
    while let Some((dir, path)) = todo.pop() {
        let (from, to) = (Key::new(dir, RecordKind::Dirent, 0), Key::new(dir, RecordKind::Xattr, 0));
        let mut outcome = Ok(ControlFlow::Continue(()));
        let scanned = tree::scan(&**view.store(), view.root(), &from, &to, &mut |_, value| {
            outcome = decode(Dirent::parts(value), "a directory entry").map(|(ino, kind, name)| {
                if kind == FileKind::Directory {
                    todo.push((ino, join(&path, name)));
                }
                visit(&path, name, ino, kind)
            });
            if matches!(outcome, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        settle(scanned)?;
        if outcome?.is_break() {
            break;
        }
    }
    Ok(())
}
