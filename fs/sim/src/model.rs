//! A filesystem in memory, so simple that it is obviously right.
//!
//! It has the operations of a volume and none of its machinery: no journal, no cache, no times except those
//! that were set. Where an operation has several reasons to be refused, it names them all, because which one
//! an engine reports first is not a promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use fs_format::{FileKind, Ino, Inode, Timestamp};
use fs_volume::{
    Allocate, Attr, Caller, DirEntry, FILE_BYTES_MAX, FsError, NAME_BYTES_MAX, NewNode, NewXattrs, ReadTree,
    RenameMode, SYMLINK_BYTES_MAX, Seek, SetAttr, XATTR_BYTES_MAX, XattrMode,
};

use crate::Content;

/// All the reasons why an operation is refused; never empty.
pub type Refused = Vec<FsError>;

/// A filesystem; cloning is cheap enough to do it for every operation.
#[derive(Debug, Clone)]
pub struct Model {
    nodes: BTreeMap<Ino, Arc<Node>>,
    ino_next: Ino,
}

#[derive(Debug, Clone)]
struct Node {
    kind: FileKind,
    mode: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    /// Names that lead here, for a directory those of its subdirectories (`..`) and its own (`.`) too.
    nlink: u32,
    /// Open handles.
    holds: u32,
    content: Content,
    target: Vec<u8>,
    entries: BTreeMap<Vec<u8>, Ino>,
    /// For a directory, the one that it lies in.
    parent: Ino,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// What a write by somebody else than the owner does to setuid and setgid.
    fn kill_suid(&mut self) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
    }
}

/// Collects reasons to refuse.
#[derive(Default)]
struct Reasons(Refused);

impl Reasons {
    fn when(&mut self, condition: bool, reason: FsError) {
        if condition {
            self.0.push(reason);
        }
    }

    fn check(self) -> Result<(), Refused> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// The root directory alone, as a new volume has it.
    pub fn new() -> Self {
        let root = Node { mode: 0o755, nlink: 2, parent: Ino::ROOT, ..Self::blank(FileKind::Directory) };
        Self { nodes: BTreeMap::from([(Ino::ROOT, Arc::new(root))]), ino_next: Ino::FIRST }
    }

    fn blank(kind: FileKind) -> Node {
        Node {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 0,
            holds: 0,
            content: Content::default(),
            target: Vec::new(),
            entries: BTreeMap::new(),
            parent: Ino::ROOT,
            xattrs: BTreeMap::new(),
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Refused> {
        self.nodes.get(&ino).map(Arc::as_ref).ok_or_else(|| vec![FsError::NotFound])
    }

    fn node_mut(&mut self, ino: Ino) -> &mut Node {
        Arc::make_mut(self.nodes.get_mut(&ino).expect("the caller looked it up"))
    }

    /// A directory that can take or lose names.
    fn dir(&self, ino: Ino) -> Result<&Node, Refused> {
        let node = self.node(ino)?;
        let mut reasons = Reasons::default();
        reasons.when(!node.is_dir(), FsError::NotADirectory);
        reasons.when(node.nlink == 0, FsError::NotFound);
        reasons.check()?;
        Ok(node)
    }

    /// All that speaks against a name in a directory, whether it is there or not.
    fn place(&self, parent: Ino, name: &[u8]) -> Reasons {
        let mut reasons = Reasons(self.dir(parent).err().unwrap_or_default());
        check_name(name, &mut reasons);
        reasons
    }

    fn child(&self, parent: Ino, name: &[u8]) -> Option<(Ino, &Node)> {
        let ino = *self.nodes.get(&parent)?.entries.get(name)?;
        Some((ino, self.nodes.get(&ino)?))
    }

    /// Whether `ino` has no name any more but somebody still holds it, or never existed.
    pub fn is_gone(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).is_none_or(|node| node.nlink == 0)
    }

    /// Whether `ino` can still be reached, by a name or by a handle.
    pub fn exists(&self, ino: Ino) -> bool {
        self.nodes.contains_key(&ino)
    }

    /// All that can be reached, in the order of their numbers.
    pub fn inos(&self) -> impl Iterator<Item = Ino> + '_ {
        self.nodes.keys().copied()
    }

    /// How many files and directories have a name.
    pub fn files(&self) -> u64 {
        self.nodes.values().filter(|node| node.nlink > 0).count() as u64
    }

    /// The bytes of a file, if it is one.
    pub fn content(&self, ino: Ino) -> Option<&Content> {
        self.nodes.get(&ino).filter(|node| node.kind == FileKind::File).map(|node| &node.content)
    }

    fn free_if_forgotten(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|node| node.nlink == 0 && node.holds == 0) {
            self.nodes.remove(&ino);
        }
    }

    /// Makes a file, directory, link or special file.
    pub fn make(
        &mut self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        new: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Ino, Refused> {
        let mut reasons = self.place(parent, name);
        reasons.when(self.child(parent, name).is_some(), FsError::Exists);
        if let NewNode::Symlink(target) = new {
            reasons.when(target.len() > SYMLINK_BYTES_MAX, FsError::NameTooLong);
            reasons.when(target.is_empty(), FsError::NotFound);
        }
        reasons.check()?;

        let mut node = match new {
            NewNode::File => Self::blank(FileKind::File),
            NewNode::Directory => Self::blank(FileKind::Directory),
            NewNode::Symlink(target) => Node { target: target.to_vec(), ..Self::blank(FileKind::Symlink) },
            NewNode::Special(kind, rdev) => Node { rdev, ..Self::blank(kind) },
        };
        (node.mode, node.uid, node.gid) = (mode & 0o7777, caller.uid, caller.gid);
        (node.nlink, node.parent) = (1, parent);
        node.xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let dir = self.node(parent)?;
        if dir.mode & 0o2000 != 0 {
            node.gid = dir.gid;
            if node.is_dir() {
                node.mode |= 0o2000;
            }
        }
        let is_dir = node.is_dir();
        if is_dir {
            node.nlink = 2;
        }
        let ino = self.ino_next;
        self.ino_next = Ino(ino.0 + 1);
        self.nodes.insert(ino, Arc::new(node));
        let dir = self.node_mut(parent);
        dir.entries.insert(name.to_vec(), ino);
        dir.nlink += u32::from(is_dir);
        Ok(ino)
    }

    /// Gives a file another name.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Result<(), Refused> {
        let node = self.node(ino)?;
        let mut reasons = self.place(parent, name);
        reasons.when(node.is_dir(), FsError::NotPermitted);
        reasons.when(node.nlink == 0, FsError::NotFound);
        reasons.when(self.child(parent, name).is_some(), FsError::Exists);
        reasons.check()?;
        self.node_mut(parent).entries.insert(name.to_vec(), ino);
        self.node_mut(ino).nlink += 1;
        Ok(())
    }

    /// Takes a name from something that is no directory.
    pub fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<(), Refused> {
        let reasons = self.place(parent, name);
        let Some((ino, node)) = self.child(parent, name) else { return Err(missing(reasons)) };
        if node.is_dir() {
            return Err(vec![FsError::IsADirectory]);
        }
        self.node_mut(parent).entries.remove(name);
        self.node_mut(ino).nlink -= 1;
        self.free_if_forgotten(ino);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<(), Refused> {
        let reasons = self.place(parent, name);
        let Some((ino, node)) = self.child(parent, name) else { return Err(missing(reasons)) };
        let mut reasons = Reasons::default();
        reasons.when(!node.is_dir(), FsError::NotADirectory);
        reasons.when(!node.entries.is_empty(), FsError::NotEmpty);
        reasons.check()?;
        self.remove_dir(parent, name, ino);
        Ok(())
    }

    fn remove_dir(&mut self, parent: Ino, name: &[u8], ino: Ino) {
        let dir = self.node_mut(parent);
        dir.entries.remove(name);
        dir.nlink -= 1;
        self.node_mut(ino).nlink = 0;
        self.free_if_forgotten(ino);
    }

    /// Whether `dir` is `ancestor` or lies below it.
    fn lies_below(&self, mut dir: Ino, ancestor: Ino) -> bool {
        loop {
            if dir == ancestor {
                return true;
            }
            match self.nodes.get(&dir) {
                Some(node) if dir != Ino::ROOT => dir = node.parent,
                _ => return false,
            }
        }
    }

    /// Renames.
    pub fn rename(
        &mut self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), Refused> {
        let mut reasons = self.place(from, from_name);
        reasons.0.extend(self.place(to, to_name).0);
        let Some((moved_ino, moved)) = self.child(from, from_name) else { return Err(missing(reasons)) };
        reasons.check()?;
        let (moved_is_dir, there) = (moved.is_dir(), self.child(to, to_name));
        let there_ino = there.map(|(ino, _)| ino);
        let there_is_dir = there.is_some_and(|(_, node)| node.is_dir());

        let mut reasons = Reasons::default();
        reasons.when(moved_is_dir && self.lies_below(to, moved_ino), FsError::Invalid);
        match mode {
            RenameMode::NoReplace => reasons.when(there.is_some(), FsError::Exists),
            RenameMode::Exchange => {
                reasons.when(there.is_none(), FsError::NotFound);
                let loops = there_ino.is_some_and(|ino| there_is_dir && self.lies_below(from, ino));
                reasons.when(loops, FsError::Invalid);
                reasons.when(loops, FsError::NotEmpty);
            }
            RenameMode::Replace | RenameMode::Whiteout => {
                if let Some((ino, node)) = there {
                    reasons.when(moved_is_dir && !there_is_dir, FsError::NotADirectory);
                    reasons.when(!moved_is_dir && there_is_dir, FsError::IsADirectory);
                    reasons.when(
                        ino != moved_ino && there_is_dir && !node.entries.is_empty(),
                        FsError::NotEmpty,
                    );
                }
            }
        }
        // Two names of one inode: POSIX says that nothing happens and that this is a success. A directory
        // renamed to itself is no move into itself.
        if there_ino == Some(moved_ino) && mode != RenameMode::NoReplace {
            return Ok(());
        }
        reasons.check()?;

        if let (RenameMode::Exchange, Some(other)) = (mode, there_ino) {
            self.node_mut(from).entries.insert(from_name.to_vec(), other);
            self.node_mut(to).entries.insert(to_name.to_vec(), moved_ino);
            self.node_mut(from).nlink += u32::from(there_is_dir);
            self.node_mut(from).nlink -= u32::from(moved_is_dir);
            self.node_mut(to).nlink += u32::from(moved_is_dir);
            self.node_mut(to).nlink -= u32::from(there_is_dir);
            self.node_mut(other).parent = from;
            self.node_mut(moved_ino).parent = to;
            return Ok(());
        }
        match there_ino {
            Some(other) if there_is_dir => self.remove_dir(to, to_name, other),
            Some(_) => self.unlink(to, to_name)?,
            None => {}
        }
        self.node_mut(from).entries.remove(from_name);
        self.node_mut(from).nlink -= u32::from(moved_is_dir);
        self.node_mut(to).entries.insert(to_name.to_vec(), moved_ino);
        self.node_mut(to).nlink += u32::from(moved_is_dir);
        self.node_mut(moved_ino).parent = to;
        if mode == RenameMode::Whiteout {
            let ino = self.ino_next;
            self.ino_next = Ino(ino.0 + 1);
            let node = Node { nlink: 1, parent: from, ..Self::blank(FileKind::CharDevice) };
            self.nodes.insert(ino, Arc::new(node));
            self.node_mut(from).entries.insert(from_name.to_vec(), ino);
        }
        Ok(())
    }

    /// Changes attributes. Times are not modelled.
    pub fn set_attr(&mut self, ino: Ino, set: SetAttr) -> Result<(), Refused> {
        let node = self.node(ino)?;
        if let Some(size) = set.size {
            let mut reasons = Reasons::default();
            reasons.0.extend(unwritable(node));
            reasons.when(size > FILE_BYTES_MAX, FsError::FileTooLarge);
            reasons.check()?;
        }
        let node = self.node_mut(ino);
        node.mode = set.mode.map_or(node.mode, |mode| mode & 0o7777);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        if set.kill_suid {
            node.kill_suid();
        }
        if let Some(size) = set.size {
            node.content.set_len(size);
        }
        Ok(())
    }

    /// Changes attributes and sets an extended one, or removes it.
    pub fn set_attr_and_xattr(
        &mut self,
        ino: Ino,
        set: SetAttr,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Refused> {
        self.node(ino)?;
        let mut reasons = Reasons::default();
        reasons.when(value.is_some_and(|value| value.len() > XATTR_BYTES_MAX), FsError::AttributeTooLarge);
        reasons.when(name.len() > NAME_BYTES_MAX, FsError::NameTooLong);
        reasons.check()?;
        self.set_attr(ino, set)?;
        let xattrs = &mut self.node_mut(ino).xattrs;
        match value {
            Some(value) => xattrs.insert(name.to_vec(), value.to_vec()),
            None => xattrs.remove(name),
        };
        Ok(())
    }

    /// Writes bytes.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], kill_suid: bool) -> Result<(), Refused> {
        let mut reasons = Reasons::default();
        reasons.0.extend(unwritable(self.node(ino)?));
        reasons.when(past_the_largest(offset, bytes.len() as u64), FsError::FileTooLarge);
        reasons.check()?;
        let node = self.node_mut(ino);
        node.content.write(offset, bytes);
        if kill_suid {
            node.kill_suid();
        }
        Ok(())
    }

    /// Reserves, zeroes or punches a range.
    pub fn allocate(&mut self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), Refused> {
        let mut reasons = Reasons::default();
        reasons.0.extend(unwritable(self.node(ino)?));
        reasons.when(len == 0, FsError::Invalid);
        reasons.when(how.punch && (!how.keep_size || how.zero), FsError::Invalid);
        reasons.when(past_the_largest(offset, len), FsError::FileTooLarge);
        reasons.check()?;
        let content = &mut self.node_mut(ino).content;
        if how.punch || how.zero {
            content.zero(offset, len);
        }
        if !how.keep_size && content.len() < offset + len {
            content.set_len(offset + len);
        }
        Ok(())
    }

    /// Copies a range of one file into another (not within overlapping ranges of one).
    pub fn clone_range(
        &mut self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Refused> {
        let mut reasons = Reasons::default();
        reasons.0.extend(unwritable(self.node(from)?));
        reasons.0.extend(unwritable(self.node(to)?));
        reasons.check()?;
        // Only what is there is copied, and only that must fit.
        let mut reasons = Reasons::default();
        let len = len.min(self.node(from)?.content.len().saturating_sub(from_offset));
        reasons.when(past_the_largest(to_offset, len), FsError::FileTooLarge);
        reasons.check()?;
        let bytes = self.node(from)?.content.read(from_offset, len as usize);
        self.node_mut(to).content.write(to_offset, &bytes);
        Ok(len)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), Refused> {
        let node = self.node(ino)?;
        let mut reasons = Reasons::default();
        reasons.when(value.len() > XATTR_BYTES_MAX, FsError::AttributeTooLarge);
        reasons.when(name.len() > NAME_BYTES_MAX, FsError::NameTooLong);
        let there = node.xattrs.contains_key(name);
        reasons.when(how == XattrMode::Create && there, FsError::Exists);
        reasons.when(how == XattrMode::Replace && !there, FsError::NoAttribute);
        reasons.check()?;
        self.node_mut(ino).xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), Refused> {
        if !self.node(ino)?.xattrs.contains_key(name) {
            return Err(vec![FsError::NoAttribute]);
        }
        self.node_mut(ino).xattrs.remove(name);
        Ok(())
    }

    /// Opens a handle: what is unlinked lives on as long as there is one.
    pub fn hold(&mut self, ino: Ino) {
        if self.nodes.contains_key(&ino) {
            self.node_mut(ino).holds += 1;
        }
    }

    /// Closes a handle.
    pub fn release(&mut self, ino: Ino) {
        if self.nodes.contains_key(&ino) {
            let node = self.node_mut(ino);
            node.holds = node.holds.saturating_sub(1);
            self.free_if_forgotten(ino);
        }
    }

    /// Closes all handles, as the end of the process does.
    pub fn release_all(&mut self) {
        let held: Vec<Ino> =
            self.nodes.iter().filter(|(_, node)| node.holds > 0).map(|(ino, _)| *ino).collect();
        for ino in held {
            self.node_mut(ino).holds = 0;
            self.free_if_forgotten(ino);
        }
    }

    fn attr_of(&self, ino: Ino) -> Result<Attr, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        let size = match node.kind {
            FileKind::File => node.content.len(),
            FileKind::Directory => node.entries.len() as u64,
            FileKind::Symlink => node.target.len() as u64,
            _ => 0,
        };
        let never = Timestamp(0);
        let inode = Inode {
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink: node.nlink,
            size,
            allocated: 0,
            rdev: node.rdev,
            atime: never,
            mtime: never,
            ctime: never,
            btime: never,
            parent: node.parent,
            home: 0,
        };
        Ok(Attr { ino, inode, allocated: 0 })
    }
}

fn check_name(name: &[u8], reasons: &mut Reasons) {
    reasons.when(name.len() > NAME_BYTES_MAX, FsError::NameTooLong);
    let meaningless = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    reasons.when(meaningless, FsError::Invalid);
}

/// A name that is too long to be there may be called that instead.
fn missing(mut reasons: Reasons) -> Refused {
    // Only where the directory itself is none there is nothing that could be missing.
    reasons.when(!reasons.0.contains(&FsError::NotADirectory), FsError::NotFound);
    reasons.0
}

fn unwritable(node: &Node) -> Refused {
    match node.kind {
        FileKind::File => Vec::new(),
        FileKind::Directory => vec![FsError::IsADirectory, FsError::Invalid],
        _ => vec![FsError::Invalid, FsError::NotPermitted],
    }
}

fn past_the_largest(offset: u64, len: u64) -> bool {
    offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX)
}

impl ReadTree for Model {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let dir = self.nodes.get(&parent).ok_or(FsError::NotFound)?;
        if !dir.is_dir() {
            return Err(FsError::NotADirectory);
        }
        self.attr_of(*dir.entries.get(name).ok_or(FsError::NotFound)?)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.attr_of(ino)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        if node.kind == FileKind::Symlink { Ok(node.target.clone()) } else { Err(FsError::Invalid) }
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        match node.kind {
            FileKind::File => {
                take(&node.content.read(offset, len));
                Ok(())
            }
            FileKind::Directory => Err(FsError::IsADirectory),
            _ => Err(FsError::Invalid),
        }
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        let node = self.nodes.get(&dir).ok_or(FsError::NotFound)?;
        if !node.is_dir() {
            return Err(FsError::NotADirectory);
        }
        // A cookie is a position in the order of names: enough for a tree that nobody changes meanwhile.
        let entries = node.entries.iter().enumerate().skip(cookie as usize).take(limit);
        let entry = |(i, (name, ino)): (usize, (&Vec<u8>, &Ino))| {
            let kind = self.nodes.get(ino).map(|node| node.kind).ok_or(FsError::NotFound)?;
            Ok(DirEntry { cookie: i as u64 + 1, name: name.clone(), ino: *ino, kind })
        };
        entries.map(entry).collect()
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        node.xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        Ok(node.xattrs.keys().cloned().collect())
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        if offset >= node.content.len() {
            return Err(FsError::NoSuchOffset);
        }
        let mut at = offset;
        for (start, end) in node.content.ranges().filter(|(_, end)| *end > offset) {
            match what {
                Seek::Data => return Ok(start.max(offset)),
                Seek::Hole if start > at => return Ok(at),
                Seek::Hole => at = end,
            }
        }
        match what {
            Seek::Data => Err(FsError::NoSuchOffset),
            Seek::Hole => Ok(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Caller = Caller { uid: 7, gid: 8 };

    fn dir(model: &mut Model, parent: Ino, name: &str) -> Ino {
        model.make(ME, parent, name.as_bytes(), 0o755, NewNode::Directory, &[]).expect("a free name")
    }

    fn file(model: &mut Model, parent: Ino, name: &str) -> Ino {
        model.make(ME, parent, name.as_bytes(), 0o644, NewNode::File, &[]).expect("a free name")
    }

    fn nlink(model: &Model, ino: Ino) -> u32 {
        model.attr(ino).expect("it is there").inode.nlink
    }

    #[test]
    fn a_directory_counts_its_subdirectories() {
        let mut model = Model::new();
        let a = dir(&mut model, Ino::ROOT, "a");
        let b = dir(&mut model, a, "b");
        assert_eq!((nlink(&model, Ino::ROOT), nlink(&model, a), nlink(&model, b)), (3, 3, 2));
        model.rename(a, b"b", Ino::ROOT, b"b", RenameMode::Replace).expect("a plain move");
        assert_eq!((nlink(&model, Ino::ROOT), nlink(&model, a)), (4, 2));
        model.rmdir(Ino::ROOT, b"a").expect("it is empty");
        assert_eq!(nlink(&model, Ino::ROOT), 3);
    }

    #[test]
    fn an_unlinked_file_lives_while_it_is_held() {
        let mut model = Model::new();
        let a = file(&mut model, Ino::ROOT, "a");
        model.hold(a);
        model.unlink(Ino::ROOT, b"a").expect("it is there");
        model.write(a, 3, b"still", false).expect("it is held");
        assert_eq!(model.read(a, 0, 100), Ok(b"\0\0\0still".to_vec()));
        assert_eq!(model.link(a, Ino::ROOT, b"b"), Err(vec![FsError::NotFound]));
        model.release(a);
        assert_eq!(model.attr(a), Err(FsError::NotFound));
    }

    #[test]
    fn a_directory_never_moves_into_itself() {
        let mut model = Model::new();
        let a = dir(&mut model, Ino::ROOT, "a");
        let b = dir(&mut model, a, "b");
        assert_eq!(model.rename(Ino::ROOT, b"a", b, b"c", RenameMode::Replace), Err(vec![FsError::Invalid]));
        assert_eq!(model.rename(Ino::ROOT, b"a", Ino::ROOT, b"a", RenameMode::Replace), Ok(()));
    }

    #[test]
    fn a_rename_replaces_only_its_like() {
        let mut model = Model::new();
        let d = dir(&mut model, Ino::ROOT, "d");
        file(&mut model, d, "x");
        file(&mut model, Ino::ROOT, "f");
        dir(&mut model, Ino::ROOT, "e");
        let mut rename = |from: &[u8], to: &[u8], mode| model.rename(Ino::ROOT, from, Ino::ROOT, to, mode);
        assert_eq!(rename(b"f", b"e", RenameMode::Replace), Err(vec![FsError::IsADirectory]));
        assert_eq!(rename(b"e", b"f", RenameMode::Replace), Err(vec![FsError::NotADirectory]));
        assert_eq!(rename(b"e", b"d", RenameMode::Replace), Err(vec![FsError::NotEmpty]));
        assert_eq!(rename(b"e", b"d", RenameMode::NoReplace), Err(vec![FsError::Exists]));
        assert_eq!(rename(b"e", b"d", RenameMode::Exchange), Ok(()));
        assert_eq!(rename(b"d", b"g", RenameMode::Whiteout), Ok(()));
        let whiteout = model.lookup(Ino::ROOT, b"d").expect("a whiteout stands there");
        assert_eq!((whiteout.inode.kind, whiteout.inode.rdev), (FileKind::CharDevice, 0));
        assert_eq!(nlink(&model, Ino::ROOT), 4);
    }

    #[test]
    fn two_names_of_one_file_stay_two() {
        let mut model = Model::new();
        let a = file(&mut model, Ino::ROOT, "a");
        model.link(a, Ino::ROOT, b"b").expect("a free name");
        model.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace).expect("POSIX says success");
        assert_eq!(nlink(&model, a), 2);
        assert!(model.lookup(Ino::ROOT, b"a").is_ok());
    }

    #[test]
    fn setgid_is_inherited_and_killed() {
        let mut model = Model::new();
        let d = dir(&mut model, Ino::ROOT, "d");
        model
            .set_attr(d, SetAttr { mode: Some(0o2775), gid: Some(99), ..SetAttr::default() })
            .expect("plain");
        let f = model.make(ME, d, b"f", 0o6755, NewNode::File, &[]).expect("a free name");
        let e = dir(&mut model, d, "e");
        let attr = |model: &Model, ino| model.attr(ino).expect("it is there").inode;
        assert_eq!((attr(&model, f).gid, attr(&model, e).gid, attr(&model, e).mode), (99, 99, 0o2755));
        model.write(f, 0, b"x", true).expect("a file");
        assert_eq!(attr(&model, f).mode, 0o755);
    }

    #[test]
    fn ranges_are_cloned_punched_and_sought() {
        let mut model = Model::new();
        let (a, b) = (file(&mut model, Ino::ROOT, "a"), file(&mut model, Ino::ROOT, "b"));
        model.write(a, 0, &[1; 10_000], false).expect("a file");
        assert_eq!(model.clone_range(a, 4096, b, 100, 50_000), Ok(5904));
        assert_eq!(model.attr(b).expect("it is there").inode.size, 6004);
        model.allocate(b, 0, 200, Allocate { keep_size: true, punch: true, zero: false }).expect("a file");
        assert_eq!(model.read(b, 198, 4), Ok(vec![0, 0, 1, 1]));
        model.set_attr(a, SetAttr { size: Some(1 << 30), ..SetAttr::default() }).expect("a file");
        assert_eq!(model.seek(a, 0, Seek::Hole), Ok(12_288));
        assert_eq!(model.seek(a, 12_288, Seek::Data), Err(FsError::NoSuchOffset));
    }
}
