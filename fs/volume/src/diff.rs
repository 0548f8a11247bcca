//! What differs between two moments.
//!
//! Walks both trees side by side and leaves out every subtree that both share, so the cost
//! is that of what changed.

use std::collections::{BTreeMap, BTreeSet};

use fs_format::tree::{Dirent, Key, Node, NodePtr, RecordKind};
use fs_format::{FileKind, Ino, Inode};

use crate::FsError;
use crate::history::{View, settle};
use crate::layers::decode;
use crate::store::Store;
use crate::types::{Change, ChangeKind};

/// Is told a record that is not the same on both sides.
type Visit<'a> = dyn FnMut(Key, Option<&[u8]>, Option<&[u8]>) -> Result<(), FsError> + 'a;

/// Visits each record that is not the same on both sides.
fn records(store: &Store, old: &NodePtr, new: &NodePtr, visit: &mut Visit<'_>) -> Result<(), FsError> {
    let (mut old, mut new) = (Cursor::new(store, *old)?, Cursor::new(store, *new)?);
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
    /// The root, while nobody has looked into it.
    root: Option<(Key, NodePtr, u8)>,
}

impl<'a> Cursor<'a> {
    fn new(store: &'a Store, root: NodePtr) -> Result<Self, FsError> {
        let level = store.node(&root)?.level();
        Ok(Self { store, path: Vec::new(), root: Some((Key::FIRST, root, level)) })
    }

    /// The node that the cursor stands before: its first key, itself, its level.
    fn whole(&self) -> Option<(Key, NodePtr, u8)> {
        if self.root.is_some() {
            return self.root;
        }
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
        if self.root.is_some() {
            return None;
        }
        match self.path.last() {
            Some((node, at)) => match &**node {
                Node::Leaf(records) => records.get(*at).map(|(key, value)| (*key, &**value)),
                Node::Branch { .. } => None,
            },
            None => None,
        }
    }

    fn is_done(&self) -> bool {
        self.root.is_none() && self.path.is_empty()
    }

    fn descend(&mut self) -> Result<(), FsError> {
        let (_, pointer, _) = self.whole().expect("the cursor stands before a node");
        match self.root.take() {
            Some(_) => {}
            None => self.path.last_mut().expect("a child has a parent").1 += 1,
        }
        self.path.push((self.store.node(&pointer)?, 0));
        self.climb();
        Ok(())
    }

    fn skip(&mut self) -> Result<(), FsError> {
        match self.root.take() {
            Some(_) => {}
            None => self.path.last_mut().expect("a child has a parent").1 += 1,
        }
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

/// The paths that differ, sorted.
pub fn changes(old: &View, new: &View) -> Result<Vec<Change>, FsError> {
    let mut removed: BTreeMap<(Ino, u64), (Ino, FileKind, Vec<u8>)> = BTreeMap::new();
    let mut added: BTreeMap<(Ino, u64), (Ino, FileKind, Vec<u8>)> = BTreeMap::new();
    let mut touched: BTreeSet<Ino> = BTreeSet::new();
    new.store().extend(&old.body().packs);
    records(new.store(), &old.root().pointer, &new.root().pointer, &mut |key, before, after| {
        match key.kind {
            RecordKind::Dirent => {
                let entry = |bytes: &[u8]| -> Result<_, FsError> {
                    let (ino, kind, name) = decode(Dirent::parts(bytes), "a directory entry")?;
                    Ok((ino, kind, name.to_vec()))
                };
                if let Some(before) = before {
                    removed.insert((key.ino, key.sub), entry(before)?);
                }
                if let Some(after) = after {
                    added.insert((key.ino, key.sub), entry(after)?);
                }
            }
            RecordKind::Inode => {
                if let (Some(before), Some(after)) = (before, after)
                    && is_seen(before, after)?
                {
                    touched.insert(key.ino);
                }
            }
            RecordKind::Orphan => {}
            RecordKind::Xattr | RecordKind::Inline | RecordKind::Extent => {
                touched.insert(key.ino);
            }
        }
        Ok(())
    })?;
    // A name that now means another file is both removed and added: the path is modified.
    let mut out = BTreeMap::new();
    let mut children: Vec<(Ino, Vec<u8>, bool)> = Vec::new();
    let mut put = |kind: ChangeKind, path: Vec<u8>, file: FileKind| {
        let merged = match out.get(&path) {
            Some(&(ChangeKind::Removed | ChangeKind::Added, _)) if kind != ChangeKind::Modified => {
                ChangeKind::Modified
            }
            Some(&(earlier, _)) => earlier,
            None => kind,
        };
        out.insert(path, (merged, file));
    };
    for (view, entries, kind) in [(old, &removed, ChangeKind::Removed), (new, &added, ChangeKind::Added)] {
        for ((dir, _), (ino, file, name)) in entries {
            // An entry below a directory that moved as a whole is told by the directory.
            let Some(mut path) = view.path(*dir)? else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if *file == FileKind::Directory {
                children.push((*ino, path.clone(), kind == ChangeKind::Removed));
            }
            touched.remove(ino);
            put(kind, path, *file);
        }
    }
    // What a directory that moved holds did not change itself, but its paths did.
    for (dir, path, is_old) in children {
        let view = if is_old { old } else { new };
        let kind = if is_old { ChangeKind::Removed } else { ChangeKind::Added };
        let elsewhere = if is_old { &added } else { &removed };
        if elsewhere.values().any(|(ino, _, _)| *ino == dir) {
            below(view, dir, &path, &mut |path, file| put(kind, path, file))?;
        }
    }
    for ino in touched {
        let path = match new.path(ino)? {
            Some(path) => path,
            None => continue,
        };
        let file = settle(new.layers().inode(ino))?.kind;
        put(ChangeKind::Modified, path, file);
    }
    Ok(out.into_iter().map(|(path, (kind, file))| Change { kind, path, file }).collect())
}

/// Whether a user would call the inode changed: not for access times, names kept elsewhere, or a
/// directory's own count of entries.
fn is_seen(before: &[u8], after: &[u8]) -> Result<bool, FsError> {
    let read = |bytes: &[u8]| decode(Inode::decode(&mut fs_format::Reader::new(bytes)), "an inode");
    let (mut before, after) = (read(before)?, read(after)?);
    before.atime = after.atime;
    before.ctime = after.ctime;
    (before.parent, before.home, before.allocated) = (after.parent, after.home, after.allocated);
    if before.kind == FileKind::Directory {
        (before.size, before.nlink, before.mtime) = (after.size, after.nlink, after.mtime);
    }
    Ok(before != after)
}

fn below(
    view: &View,
    dir: Ino,
    path: &[u8],
    visit: &mut dyn FnMut(Vec<u8>, FileKind),
) -> Result<(), FsError> {
    let mut todo = vec![(dir, path.to_vec())];
    while let Some((dir, path)) = todo.pop() {
        let mut cookie = 0;
        loop {
            let entries = settle(view.layers().read_dir(dir, cookie, 1024))?;
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            for entry in entries {
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(&entry.name);
                visit(path.clone(), entry.kind);
                if entry.kind == FileKind::Directory {
                    todo.push((entry.ino, path));
                }
            }
        }
    }
    Ok(())
}
