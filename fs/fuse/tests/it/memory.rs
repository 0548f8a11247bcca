//! An engine in memory: as simple as can be, and the adapter's only companion in these tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_format::{FileKind, Ino, Inode, Seq, Timestamp};
use fs_fuse::{Engine, Moment, Past};
use fs_volume::{
    Allocate, Attr, Caller, DirEntry, FsError, NewNode, NewXattrs, ReadTree, RenameMode, Seek, SetAttr,
    SetTime, Space, WriteTree, XattrMode,
};
use parking_lot::Mutex;

const BLOCK: u64 = 4096;

#[derive(Clone)]
struct File {
    inode: Inode,
    bytes: Vec<u8>,
    names: BTreeMap<Vec<u8>, (u64, u64)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole tree.
#[derive(Clone)]
pub struct Tree {
    files: BTreeMap<u64, File>,
    next: u64,
}

/// The engine; counts what the tests want to know.
pub struct Memory {
    live: Mutex<Tree>,
    past: Mutex<Vec<(Moment, Arc<Frozen>)>>,
    /// What there is if it is a tree that changes by itself.
    era: Option<AtomicU64>,
    pub syncs: AtomicU64,
    pub broken_disk: AtomicBool,
    /// Writes wait for as long as this is true.
    pub stuck: AtomicBool,
    /// What all files may have together.
    pub quota: AtomicU64,
    /// What pages that were taken already may have beyond.
    pub reserve: AtomicU64,
    /// Extended attributes find no room.
    pub refuses_xattrs: AtomicBool,
}

/// A tree that does not change any more.
pub struct Frozen(Mutex<Tree>);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    Timestamp(i64::try_from(since.as_nanos()).expect("the clock is before 2262"))
}

impl Tree {
    fn new(owner: u32, group: u32) -> Self {
        let mut tree = Self { files: BTreeMap::new(), next: Ino::FIRST.0 };
        tree.files.insert(1, File::new(FileKind::Directory, 0o755, owner, group, Ino::ROOT));
        tree
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes.len() as u64).sum()
    }

    fn file(&self, ino: Ino) -> Result<&File, FsError> {
        self.files.get(&ino.0).ok_or(FsError::NotFound)
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File, FsError> {
        self.files.get_mut(&ino.0).ok_or(FsError::NotFound)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        let file = self.file(ino)?;
        let mut inode = file.inode.clone();
        if inode.kind == FileKind::File {
            inode.size = file.bytes.len() as u64;
        }
        let blocks = file.bytes.chunks(BLOCK as usize);
        let allocated = blocks.filter(|block| block.iter().any(|byte| *byte != 0)).count() as u64 * BLOCK;
        Ok(Attr { ino, allocated, inode })
    }

    fn child(&self, dir: Ino, name: &[u8]) -> Result<Ino, FsError> {
        self.file(dir)?.names.get(name).map(|(_, ino)| Ino(*ino)).ok_or(FsError::NotFound)
    }

    fn insert(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<(), FsError> {
        self.next += 1;
        let cookie = self.next;
        let is_dir = self.file(ino)?.inode.kind == FileKind::Directory;
        let parent = self.file_mut(dir)?;
        parent.names.insert(name.to_vec(), (cookie, ino.0));
        parent.inode.nlink += u32::from(is_dir);
        parent.touch();
        self.file_mut(ino)?.inode.parent = dir;
        Ok(())
    }

    fn remove(&mut self, dir: Ino, name: &[u8]) -> Result<Ino, FsError> {
        let ino = self.child(dir, name)?;
        let is_dir = self.file(ino)?.inode.kind == FileKind::Directory;
        let parent = self.file_mut(dir)?;
        parent.names.remove(name);
        parent.inode.nlink -= u32::from(is_dir);
        parent.touch();
        Ok(ino)
    }

    /// One name less for what a name was taken from.
    fn drop_link(&mut self, ino: Ino) -> Result<(), FsError> {
        let file = self.file_mut(ino)?;
        file.inode.nlink = if file.inode.kind == FileKind::Directory { 0 } else { file.inode.nlink - 1 };
        file.inode.ctime = now();
        Ok(())
    }
}

impl File {
    fn new(kind: FileKind, mode: u16, uid: u32, gid: u32, parent: Ino) -> Self {
        let time = now();
        let inode = Inode {
            kind,
            mode,
            uid,
            gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            parent,
            home: 0,
        };
        Self { inode, bytes: Vec::new(), names: BTreeMap::new(), xattrs: BTreeMap::new() }
    }

    fn touch(&mut self) {
        self.inode.mtime = now();
        self.inode.ctime = self.inode.mtime;
    }

    fn kill_suid(&mut self) {
        self.inode.mode &= !0o4000;
        if self.inode.mode & 0o010 != 0 {
            self.inode.mode &= !0o2000;
        }
    }
}

impl Memory {
    pub fn new() -> Self {
        Self::owned_by(0, 0)
    }

    /// With a root directory of somebody's.
    pub fn owned_by(owner: u32, group: u32) -> Self {
        Self {
            live: Mutex::new(Tree::new(owner, group)),
            past: Mutex::default(),
            era: None,
            syncs: AtomicU64::new(0),
            broken_disk: false.into(),
            stuck: false.into(),
            quota: u64::MAX.into(),
            reserve: 0.into(),
            refuses_xattrs: false.into(),
        }
    }

    /// One that changes by itself.
    pub fn followed() -> Self {
        Self { era: Some(AtomicU64::new(0)), ..Self::new() }
    }

    /// Begins another era with the tree of a moment, which is the newest that is kept of the one before.
    pub fn begin_era_at(&self, seq: Seq) {
        let (mut live, mut past) = (self.live.lock(), self.past.lock());
        past.truncate(seq.0 as usize);
        *live = past.last().expect("a moment").1.0.lock().clone();
        self.era.as_ref().expect("it changes by itself").fetch_add(1, Ordering::SeqCst);
    }

    /// Keeps this moment.
    pub fn seal(&self) -> Seq {
        let mut past = self.past.lock();
        let seq = Seq(past.len() as u64 + 1);
        let tree = Arc::new(Frozen(Mutex::new(self.live.lock().clone())));
        past.push((Moment { seq, time: now() }, tree));
        seq
    }

    pub fn files(&self) -> usize {
        self.live.lock().files.len()
    }

    fn write_below(
        &self,
        quota: u64,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill_suid: bool,
    ) -> Result<(), FsError> {
        while self.stuck.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut tree = self.live.lock();
        let bytes = tree.bytes();
        let file = tree.file_mut(ino)?;
        let end = offset as usize + data.len();
        if file.bytes.len() < end {
            if bytes + (end - file.bytes.len()) as u64 > quota {
                return Err(FsError::NoSpace);
            }
            file.bytes.resize(end, 0);
        }
        file.bytes[offset as usize..end].copy_from_slice(data);
        if kill_suid {
            file.kill_suid();
        }
        file.touch();
        Ok(())
    }

    /// The bytes that have reached the engine of the file with this name in the root.
    pub fn arrived(&self, name: &str) -> Vec<u8> {
        let live = self.live.lock();
        let ino = live.child(Ino::ROOT, name.as_bytes()).expect("the file is there");
        live.file(ino).expect("a name has an inode").bytes.clone()
    }

    /// When the file was modified, as the engine has it, in nanoseconds.
    pub fn modified(&self, name: &str) -> i64 {
        let live = self.live.lock();
        let ino = live.child(Ino::ROOT, name.as_bytes()).expect("the file is there");
        live.file(ino).expect("a name has an inode").inode.mtime.0
    }
}

impl ReadTree for Frozen {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let tree = self.0.lock();
        if tree.file(parent)?.inode.kind != FileKind::Directory {
            return Err(FsError::NotADirectory);
        }
        tree.attr(tree.child(parent, name)?)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.0.lock().attr(ino)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        Ok(self.0.lock().file(ino)?.bytes.clone())
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        let tree = self.0.lock();
        let bytes = &tree.file(ino)?.bytes;
        let start = bytes.len().min(offset as usize);
        take(&bytes[start..bytes.len().min(start + len)]);
        Ok(())
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        let tree = self.0.lock();
        let mut entries = Vec::new();
        for (name, (own, ino)) in &tree.file(dir)?.names {
            if *own > cookie {
                let kind = tree.file(Ino(*ino))?.inode.kind;
                entries.push(DirEntry { cookie: *own, name: name.clone(), ino: Ino(*ino), kind });
            }
        }
        entries.sort_by_key(|entry| entry.cookie);
        entries.truncate(limit);
        Ok(entries)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.0.lock().file(ino)?.xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        Ok(self.0.lock().file(ino)?.xattrs.keys().cloned().collect())
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        let tree = self.0.lock();
        let bytes = &tree.file(ino)?.bytes;
        let len = bytes.len() as u64;
        if offset >= len {
            return Err(FsError::NoSuchOffset);
        }
        let wanted_empty = what == Seek::Hole;
        let mut at = offset;
        while at < len {
            let block_end = len.min((at / BLOCK + 1) * BLOCK);
            let block = &bytes[(at / BLOCK * BLOCK) as usize..block_end as usize];
            if block.iter().all(|byte| *byte == 0) == wanted_empty {
                return Ok(at);
            }
            at = block_end;
        }
        if wanted_empty { Ok(len) } else { Err(FsError::NoSuchOffset) }
    }
}

/// Reads the live tree as if it were frozen; a copy, since these trees are small.
impl Memory {
    fn now(&self) -> Frozen {
        Frozen(Mutex::new(self.live.lock().clone()))
    }
}

impl ReadTree for Memory {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.now().lookup(parent, name)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.live.lock().attr(ino)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.now().read_link(ino)
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        self.now().read_with(ino, offset, len, take)
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.now().read_dir(dir, cookie, limit)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.live.lock().file(ino)?.xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.now().xattrs(ino)
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.now().seek(ino, offset, what)
    }
}

impl WriteTree for Memory {
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mut mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError> {
        let mut tree = self.live.lock();
        if tree.child(parent, name).is_ok() {
            return Err(FsError::Exists);
        }
        let (kind, rdev) = match node {
            NewNode::File => (FileKind::File, 0),
            NewNode::Directory => (FileKind::Directory, 0),
            NewNode::Symlink(_) => (FileKind::Symlink, 0),
            NewNode::Special(kind, rdev) => (kind, rdev),
        };
        let dir = &tree.file(parent)?.inode;
        let mut gid = caller.gid;
        if dir.mode & 0o2000 != 0 {
            gid = dir.gid;
            mode |= if kind == FileKind::Directory { 0o2000 } else { 0 };
        }
        let mut file = File::new(kind, mode, caller.uid, gid, parent);
        file.inode.rdev = rdev;
        file.xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        if let NewNode::Symlink(target) = node {
            file.bytes = target.to_vec();
            file.inode.size = target.len() as u64;
        }
        tree.next += 1;
        let ino = Ino(tree.next);
        tree.files.insert(ino.0, file);
        tree.insert(parent, name, ino)?;
        tree.attr(ino)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let mut tree = self.live.lock();
        if tree.child(parent, name).is_ok() {
            return Err(FsError::Exists);
        }
        tree.insert(parent, name, ino)?;
        let file = tree.file_mut(ino)?;
        file.inode.nlink += 1;
        file.inode.ctime = now();
        tree.attr(ino)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let mut tree = self.live.lock();
        let ino = tree.remove(parent, name)?;
        tree.drop_link(ino)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let mut tree = self.live.lock();
        let ino = tree.child(parent, name)?;
        if !tree.file(ino)?.names.is_empty() {
            return Err(FsError::NotEmpty);
        }
        tree.remove(parent, name)?;
        tree.drop_link(ino)
    }

    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let mut tree = self.live.lock();
        let moved = tree.child(from, from_name)?;
        let target = tree.child(to, to_name).ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (_, Some(target)) if !tree.file(target)?.names.is_empty() && mode != RenameMode::Exchange => {
                return Err(FsError::NotEmpty);
            }
            (_, Some(target)) if target == moved => return Ok(()),
            _ => {}
        }
        tree.remove(from, from_name)?;
        if let Some(target) = target {
            tree.remove(to, to_name)?;
            if mode == RenameMode::Exchange {
                tree.insert(from, from_name, target)?;
            } else {
                tree.drop_link(target)?;
            }
        }
        tree.insert(to, to_name, moved)?;
        tree.file_mut(moved)?.inode.ctime = now();
        if mode == RenameMode::Whiteout {
            tree.next += 1;
            let ino = Ino(tree.next);
            tree.files.insert(ino.0, File::new(FileKind::CharDevice, 0, 0, 0, from));
            tree.insert(from, from_name, ino)?;
        }
        Ok(())
    }

    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        let time = |time| match time {
            SetTime::Now => now(),
            SetTime::At(time) => time,
        };
        let mut tree = self.live.lock();
        let file = tree.file_mut(ino)?;
        file.inode.mode = set.mode.unwrap_or(file.inode.mode);
        file.inode.uid = set.uid.unwrap_or(file.inode.uid);
        file.inode.gid = set.gid.unwrap_or(file.inode.gid);
        if let Some(size) = set.size {
            file.bytes.resize(size as usize, 0);
        }
        file.inode.atime = set.atime.map_or(file.inode.atime, time);
        file.inode.mtime = set.mtime.map_or(file.inode.mtime, time);
        file.inode.ctime = set.ctime.unwrap_or_else(now);
        if set.kill_suid {
            file.kill_suid();
        }
        tree.attr(ino)
    }

    fn set_attr_and_xattr(
        &self,
        ino: Ino,
        set: SetAttr,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Attr, FsError> {
        // The kernel asks for one change of an inode after the other, so nobody sees them apart.
        match value {
            Some(value) => self.set_xattr(ino, name, value, XattrMode::Set)?,
            None => self.remove_xattr(ino, name).or_else(|error| match error {
                FsError::NoAttribute => Ok(()),
                other => Err(other),
            })?,
        }
        self.set_attr(ino, set)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        self.write_below(self.quota.load(Ordering::Relaxed), ino, offset, data, kill_suid)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError> {
        let mut tree = self.live.lock();
        let file = tree.file_mut(ino)?;
        let end = (offset + len) as usize;
        if !how.keep_size && file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        if how.punch || how.zero {
            let size = file.bytes.len();
            file.bytes[size.min(offset as usize)..size.min(end)].fill(0);
        }
        file.touch();
        Ok(())
    }

    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        let bytes = self.read(from, from_offset, len as usize)?;
        self.write(to, to_offset, &bytes, false)?;
        Ok(bytes.len() as u64)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError> {
        if self.refuses_xattrs.load(Ordering::Relaxed) {
            return Err(FsError::NoSpace);
        }
        let mut tree = self.live.lock();
        let file = tree.file_mut(ino)?;
        match (how, file.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(FsError::Exists),
            (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
            _ => {}
        }
        file.xattrs.insert(name.to_vec(), value.to_vec());
        file.inode.ctime = now();
        Ok(())
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        let mut tree = self.live.lock();
        let file = tree.file_mut(ino)?;
        file.inode.ctime = now();
        file.xattrs.remove(name).map(|_| ()).ok_or(FsError::NoAttribute)
    }

    fn forget(&self, ino: Ino) {
        let mut tree = self.live.lock();
        let dead = tree.file(ino).is_ok_and(|file| file.inode.nlink == 0);
        if dead {
            tree.files.remove(&ino.0);
        }
    }

    fn sync(&self) -> Result<(), FsError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        if self.broken_disk.load(Ordering::Relaxed) {
            return Err(FsError::Disk("the test broke it".into()));
        }
        Ok(())
    }
}

impl Engine for Memory {
    fn write_taken(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        let quota = self.quota.load(Ordering::Relaxed) + self.reserve.load(Ordering::Relaxed);
        self.write_below(quota, ino, offset, data, kill_suid)
    }

    fn changes_by_itself(&self) -> bool {
        self.era.is_some()
    }

    fn era(&self) -> u64 {
        self.era.as_ref().map_or(0, |era| era.load(Ordering::SeqCst))
    }

    fn is_full(&self) -> bool {
        self.live.lock().bytes() >= self.quota.load(Ordering::Relaxed)
    }

    fn space(&self) -> Result<Space, FsError> {
        Ok(Space { total: 1 << 30, free: 1 << 29, files: self.files() as u64 })
    }

    fn past(&self) -> Option<&dyn Past> {
        Some(self)
    }
}

impl Past for Memory {
    fn moments(&self) -> Result<Vec<Moment>, FsError> {
        Ok(self.past.lock().iter().map(|(moment, _)| *moment).collect())
    }

    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError> {
        let past = self.past.lock();
        let found = past.iter().find(|(moment, _)| moment.seq == seq);
        found.map(|(_, tree)| Arc::clone(tree) as Arc<dyn ReadTree>).ok_or(FsError::NotFound)
    }
}

impl Memory {
    /// A sealed moment's tree, to be mounted by itself.
    pub fn frozen(&self) -> Frozen {
        self.now()
    }
}
