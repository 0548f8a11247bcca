//! A file tree in memory: the least that a filesystem can do.
//!
//! It exists to be fast and correct enough for real programs (git, tar, SQLite, PostgreSQL) when contents are kept,
//! and to cost nothing when they are thrown away. It keeps no promise after the process ends.
//!
//! Invariants
//! - Every entry of a directory names an inode of the table; an unlinked inode stays in the table until the kernel
//!   forgets it, so that open files survive their names.
//! - A directory's positions only grow: listing goes on where it stopped, whatever changed in between.
//! - No lock of an inode is held while another inode is locked, except directory before child.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};
use parking_lot::{Mutex, RwLock};

/// Contents are held in pieces of this many bytes, so that a large file never moves as it grows.
const PIECE_BYTES: usize = 256 << 10;
/// How many ways the inode table is split; two server threads then rarely meet.
const SHARDS: usize = 64;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What becomes of the bytes that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Thrown away; reads give zeros.
    Discarded,
    /// Kept in memory.
    Kept,
}

/// Who makes a new inode, and how.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its kind.
    pub kind: FileType,
    /// Its device number, for device files.
    pub rdev: u32,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The position behind it.
    pub cookie: u64,
    /// Its name.
    pub name: OsString,
    /// What it names.
    pub ino: u64,
    /// The kind of what it names.
    pub kind: FileType,
}

#[derive(Default)]
struct Directory {
    by_name: HashMap<OsString, u64>,
    by_cookie: BTreeMap<u64, Entry>,
    cookie_last: u64,
}

impl Directory {
    fn get(&self, name: &OsStr) -> Option<&Entry> {
        self.by_name.get(name).and_then(|cookie| self.by_cookie.get(cookie))
    }

    fn insert(&mut self, name: &OsStr, ino: u64, kind: FileType) {
        self.cookie_last += 1;
        let entry = Entry { cookie: self.cookie_last, name: name.to_owned(), ino, kind };
        self.by_name.insert(name.to_owned(), self.cookie_last);
        self.by_cookie.insert(self.cookie_last, entry);
    }

    fn remove(&mut self, name: &OsStr) -> Option<Entry> {
        self.by_name.remove(name).and_then(|cookie| self.by_cookie.remove(&cookie))
    }
}

/// A file, directory, link or device.
pub struct Inode {
    attr: Mutex<FileAttr>,
    directory: RwLock<Directory>,
    /// Pieces of [`PIECE_BYTES`]; one that is missing or short reads as zeros behind its end.
    pieces: RwLock<Vec<Vec<u8>>>,
    target: PathBuf,
}

impl Inode {
    fn new(ino: u64, birth: Birth, target: PathBuf) -> Inode {
        let now = now();
        let attr = FileAttr {
            ino: INodeNo(ino),
            size: target.as_os_str().len() as u64,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: birth.kind,
            perm: (birth.mode & 0o7777) as u16,
            nlink: if birth.kind == FileType::Directory { 2 } else { 1 },
            uid: birth.uid,
            gid: birth.gid,
            rdev: birth.rdev,
            blksize: 4096,
            flags: 0,
        };
        Inode { attr: Mutex::new(attr), directory: RwLock::default(), pieces: RwLock::default(), target }
    }

    /// Its attributes now.
    pub fn attr(&self) -> FileAttr {
        *self.attr.lock()
    }

    /// Changes its attributes and returns them. A change of `size` must go through [`Inode::resize`].
    ///
    /// The time of the change is now, unless `change` says another.
    pub fn change(&self, change: impl FnOnce(&mut FileAttr)) -> FileAttr {
        let mut attr = self.attr.lock();
        attr.ctime = now();
        change(&mut attr);
        *attr
    }

    /// What a symbolic link points to.
    pub fn target(&self) -> &std::path::Path {
        &self.target
    }

    /// Sets its length; what is cut off reads as zeros if the file grows again.
    pub fn resize(&self, size: u64) {
        let mut pieces = self.pieces.write();
        let whole = (size / PIECE_BYTES as u64) as usize;
        pieces.truncate(whole + 1);
        if let Some(last) = pieces.get_mut(whole) {
            last.truncate((size % PIECE_BYTES as u64) as usize);
        }
        set_size(&mut self.attr.lock(), size);
    }

    /// Writes bytes, or only remembers how long the file became.
    pub fn write(&self, offset: u64, data: &[u8], contents: Contents) {
        if contents == Contents::Kept {
            let mut pieces = self.pieces.write();
            for (piece, within, part) in parts(offset, data.len()) {
                if pieces.len() <= piece {
                    pieces.resize_with(piece + 1, Vec::new);
                }
                let bytes = &mut pieces[piece];
                let end = within + part.len();
                if bytes.capacity() < end {
                    // A small file takes what it needs; one that goes on growing takes the piece at once.
                    let room = if piece > 0 || end > PIECE_BYTES / 8 { PIECE_BYTES } else { end };
                    bytes.reserve_exact(room - bytes.len());
                }
                if bytes.len() < within {
                    bytes.resize(within, 0);
                }
                // What lies behind the end is appended, so that it need not be zeroed before.
                let (over, behind) = data[part].split_at((bytes.len() - within).min(end - within));
                bytes[within..within + over.len()].copy_from_slice(over);
                bytes.extend_from_slice(behind);
            }
        }
        let mut attr = self.attr.lock();
        let size = attr.size.max(offset + data.len() as u64);
        set_size(&mut attr, size);
    }

    /// Reads up to `len` bytes into `out`, as many as the file has.
    pub fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        out.clear();
        let size = self.attr.lock().size;
        let len = len.min(size.saturating_sub(offset) as usize);
        out.resize(len, 0);
        let pieces = self.pieces.read();
        for (piece, within, part) in parts(offset, len) {
            let Some(bytes) = pieces.get(piece) else { break };
            let have = bytes.len().saturating_sub(within).min(part.len());
            let start = part.start;
            if have > 0 {
                out[start..start + have].copy_from_slice(&bytes[within..within + have]);
            }
        }
    }

    /// Up to `limit` entries behind a position.
    pub fn entries(&self, behind: u64, limit: usize) -> Vec<Entry> {
        let directory = self.directory.read();
        directory.by_cookie.range(behind + 1..).take(limit).map(|(_, entry)| entry.clone()).collect()
    }
}

fn set_size(attr: &mut FileAttr, size: u64) {
    attr.size = size;
    attr.blocks = size.div_ceil(512);
}

/// Cuts a range of a file at the borders of pieces: (piece, offset within it, range of the caller's buffer).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PIECE_BYTES as u64) as usize;
        let part = (len - done).min(PIECE_BYTES - within);
        let range = done..done + part;
        done += part;
        Some(((at / PIECE_BYTES as u64) as usize, within, range))
    })
}

/// The tree.
pub struct Tree {
    shards: Vec<RwLock<HashMap<u64, Arc<Inode>>>>,
    ino_next: AtomicU64,
    /// Names change one at a time. Two directories can then be locked in any order.
    names: Mutex<()>,
}

impl Default for Tree {
    fn default() -> Tree {
        let tree = Tree {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            ino_next: AtomicU64::new(INodeNo::ROOT.0 + 1),
            names: Mutex::new(()),
        };
        let birth = Birth { uid: 0, gid: 0, mode: 0o755, kind: FileType::Directory, rdev: 0 };
        let root = Arc::new(Inode::new(INodeNo::ROOT.0, birth, PathBuf::new()));
        tree.shard(INodeNo::ROOT.0).write().insert(INodeNo::ROOT.0, root);
        tree
    }
}

impl Tree {
    fn shard(&self, ino: u64) -> &RwLock<HashMap<u64, Arc<Inode>>> {
        &self.shards[ino as usize % SHARDS]
    }

    /// The inode of this number.
    pub fn get(&self, ino: u64) -> Result<Arc<Inode>, Errno> {
        self.shard(ino).read().get(&ino).cloned().ok_or(Errno::ENOENT)
    }

    /// What a name means in a directory.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Arc<Inode>, Errno> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let ino = self.get(parent)?.directory.read().get(name).map(|entry| entry.ino);
        self.get(ino.ok_or(Errno::ENOENT)?)
    }

    /// Makes a new inode under a name that is free.
    pub fn make(
        &self,
        parent: u64,
        name: &OsStr,
        birth: Birth,
        target: PathBuf,
    ) -> Result<Arc<Inode>, Errno> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let directory = self.get(parent)?;
        let ino = self.ino_next.fetch_add(1, Relaxed);
        let inode = Arc::new(Inode::new(ino, birth, target));
        let mut entries = directory.directory.write();
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.shard(ino).write().insert(ino, inode.clone());
        entries.insert(name, ino, birth.kind);
        drop(entries);
        if birth.kind == FileType::Directory {
            directory.change(|attr| attr.nlink += 1);
        }
        touch(&directory);
        Ok(inode)
    }

    /// Gives an inode one more name.
    pub fn link(&self, ino: u64, parent: u64, name: &OsStr) -> Result<Arc<Inode>, Errno> {
        let (directory, inode) = (self.get(parent)?, self.get(ino)?);
        let mut entries = directory.directory.write();
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let attr = inode.change(|attr| attr.nlink += 1);
        entries.insert(name, ino, attr.kind);
        drop(entries);
        touch(&directory);
        Ok(inode)
    }

    /// Takes a name away; a directory must be empty.
    pub fn remove(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let _one_at_a_time = self.names.lock();
        let directory = self.get(parent)?;
        self.detach(&directory, name)
    }

    fn detach(&self, directory: &Inode, name: &OsStr) -> Result<(), Errno> {
        let inode = {
            let entries = directory.directory.read();
            self.get(entries.get(name).ok_or(Errno::ENOENT)?.ino)?
        };
        let is_directory = inode.attr().kind == FileType::Directory;
        if is_directory && !inode.directory.read().by_cookie.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        directory.directory.write().remove(name);
        if is_directory {
            inode.change(|attr| attr.nlink = 0);
            directory.change(|attr| attr.nlink -= 1);
        } else {
            inode.change(|attr| attr.nlink -= 1);
        }
        touch(directory);
        Ok(())
    }

    /// Moves a name, replacing what is in the way. Exchange and whiteout are not offered.
    pub fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), flags: RenameFlags) -> Result<(), Errno> {
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return Err(Errno::EINVAL);
        }
        let _one_at_a_time = self.names.lock();
        let (source, target) = (self.get(from.0)?, self.get(to.0)?);
        let moved = source.directory.read().get(from.1).cloned().ok_or(Errno::ENOENT)?;
        let replaced = target.directory.read().get(to.1).cloned();
        match replaced {
            Some(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            // Two names of one file: POSIX says that nothing happens.
            Some(entry) if entry.ino == moved.ino => return Ok(()),
            Some(_) => self.detach(&target, to.1)?,
            None => {}
        }
        source.directory.write().remove(from.1);
        target.directory.write().insert(to.1, moved.ino, moved.kind);
        if moved.kind == FileType::Directory && from.0 != to.0 {
            source.change(|attr| attr.nlink -= 1);
            target.change(|attr| attr.nlink += 1);
        }
        touch(&source);
        touch(&target);
        Ok(())
    }

    /// The kernel dropped this inode: one without a name is freed.
    pub fn forget(&self, ino: u64) {
        let mut shard = self.shard(ino).write();
        if shard.get(&ino).is_some_and(|inode| inode.attr().nlink == 0) {
            shard.remove(&ino);
        }
    }
}

/// A directory whose entries changed says when.
fn touch(directory: &Inode) {
    directory.change(|attr| attr.mtime = attr.ctime);
}

/// The time, as coarse as the kernel stamps files itself.
///
/// A finer clock would let the two disagree: the first write to a new file would then look later than its creation, and the
/// kernel would say so in a request of its own for each.
pub fn now() -> SystemTime {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
    SystemTime::UNIX_EPOCH + Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Takes set-user-ID from what is no directory, and set-group-ID where the group may execute.
pub fn end_set_user_id(attr: &mut FileAttr) {
    if attr.kind != FileType::Directory {
        let group = if attr.perm & 0o010 != 0 { 0o2000 } else { 0 };
        attr.perm &= !(0o4000 | group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Birth = Birth { uid: 1, gid: 2, mode: 0o644, kind: FileType::RegularFile, rdev: 0 };
    const FOLDER: Birth = Birth { uid: 1, gid: 2, mode: 0o755, kind: FileType::Directory, rdev: 0 };
    const ROOT: u64 = INodeNo::ROOT.0;

    fn make(tree: &Tree, parent: u64, name: &str, birth: Birth) -> Arc<Inode> {
        tree.make(parent, OsStr::new(name), birth, PathBuf::new()).expect("the name is free")
    }

    fn read(inode: &Inode, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        inode.read(offset, len, &mut out);
        out
    }

    #[test]
    fn bytes_come_back_across_pieces_and_holes_read_as_zeros() {
        let tree = Tree::default();
        let file = make(&tree, ROOT, "a", FILE);
        let border = PIECE_BYTES as u64 - 2;
        file.write(border, b"four", Contents::Kept);
        assert_eq!(read(&file, border - 1, 10), b"\0four");
        file.resize(border + 1);
        file.resize(border + 4);
        assert_eq!(read(&file, border, 10), b"f\0\0\0", "what was cut off stays away");
    }

    #[test]
    fn discarded_bytes_leave_only_their_length() {
        let tree = Tree::default();
        let file = make(&tree, ROOT, "a", FILE);
        file.write(0, b"gone", Contents::Discarded);
        assert_eq!(read(&file, 0, 9), [0; 4]);
    }

    #[test]
    fn a_rename_replaces_and_an_unlinked_file_lives_until_it_is_forgotten() {
        let tree = Tree::default();
        let old = make(&tree, ROOT, "old", FILE);
        make(&tree, ROOT, "new", FILE);
        let replaced = tree.lookup(ROOT, OsStr::new("new")).expect("it was just made").attr().ino.0;
        let names = (OsStr::new("old"), OsStr::new("new"));
        tree.rename((ROOT, names.0), (ROOT, names.1), RenameFlags::empty()).expect("a file replaces a file");
        let found = tree.lookup(ROOT, names.1).expect("the new name stands").attr().ino;
        assert_eq!(found, old.attr().ino);
        assert!(tree.get(replaced).is_ok(), "an open file outlives its name");
        tree.forget(replaced);
        assert!(tree.get(replaced).is_err());
    }

    #[test]
    fn a_listing_goes_on_where_it_stopped_while_names_go() {
        let tree = Tree::default();
        for name in ["a", "b", "c", "d"] {
            make(&tree, ROOT, name, FILE);
        }
        let root = tree.get(ROOT).expect("the root is always there");
        let position = root.entries(0, 2)[1].cookie;
        tree.remove(ROOT, OsStr::new("a")).expect("it is there");
        tree.remove(ROOT, OsStr::new("c")).expect("it is there");
        let rest: Vec<_> = root.entries(position, 9).into_iter().map(|entry| entry.name).collect();
        assert_eq!(rest, ["d"]);
    }

    #[test]
    fn set_user_id_ends_with_a_change_and_set_group_id_where_the_group_may_execute() {
        let tree = Tree::default();
        for (name, birth, mode, left) in [
            ("a", FILE, 0o6755, 0o755),
            ("b", FILE, 0o6745, 0o2745),
            ("c", FILE, 0o1644, 0o1644),
            ("d", FOLDER, 0o6755, 0o6755),
        ] {
            let inode = make(&tree, ROOT, name, Birth { mode, ..birth });
            assert_eq!(inode.change(end_set_user_id).perm, left, "{mode:o}");
        }
    }

    #[test]
    fn a_directory_that_holds_something_is_not_removed() {
        let tree = Tree::default();
        let folder = make(&tree, ROOT, "folder", FOLDER).attr().ino.0;
        make(&tree, folder, "file", FILE);
        assert!(tree.remove(ROOT, OsStr::new("folder")).is_err());
        tree.remove(folder, OsStr::new("file")).expect("it is there");
        tree.remove(ROOT, OsStr::new("folder")).expect("it is empty now");
        assert_eq!(tree.get(ROOT).expect("the root is always there").attr().nlink, 2);
    }
}
