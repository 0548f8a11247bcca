//! Writing what a sealed tree holds into a folder of this machine.
//!
//! Kept are: content with its holes, links of both kinds, special files, modes, times, extended attributes and
//! ACLs; owners if root does it. What cannot be kept or read is left out, the rest is written, and
//! [`Writer::finish`] tells.
//!
//! Invariants
//! - Every name is made relative to an opened folder and no link is ever followed: what lies in the
//!   target cannot lead the writing elsewhere.
//! - Without [`Existing::Replace`] no name that exists is touched.
//! - What is no folder is finished under a name of its own and renamed in one step: under its final name it is
//!   whole, however the writing ends. A folder is never replaced by anything else.
//! - An ACL that cannot be kept gives nobody of the group more than it gave.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fs_format::{FileKind, Ino, Inode, Timestamp};
use fs_volume::{Attr, Batch, FsError, ReadTree, Seek, View};
use indicatif::ProgressBar;
use rustix::fs::{
    Advice, AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawMode, RenameFlags, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::failure::{Context, Failure, Kind, Result};
use crate::tree;
use crate::{engine, output};

/// The deepest tree that is written; each level keeps a folder open.
const DEPTH_MAX: usize = 512;
/// The attribute that holds an ACL.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The most of a file that is put in the order of its packs at a time, in bytes: each piece of it takes memory, of a database up to
/// 80 bytes for each 4 KiB.
const SPAN_BYTES: u64 = 1 << 30;
/// How many batches are asked for from afar before their turn.
const AHEAD_BATCHES: usize = 8;
/// How many copy a large file at most.
const COPIERS_MAX: usize = 4;
/// How many of what was left out are named.
const LEFT_OUT_SHOWN_MAX: usize = 20;

/// What to do with names that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Replace files, merge folders.
    Replace,
}

/// Writes files of one tree into one folder.
pub struct Writer<'a> {
    tree: &'a View,
    target: OwnedFd,
    existing: Existing,
    progress: ProgressBar,
    /// Where the first name of a file with several names was written, below `target`.
    links: HashMap<Ino, PathBuf>,
    left_out: Vec<Failure>,
    left_out_count: usize,
    root: bool,
    written: u64,
    /// The same for whoever looks on.
    seen: Option<Arc<AtomicU64>>,
    /// What the names of unfinished files begin with; no other writer has the same.
    unfinished: String,
}

impl<'a> Writer<'a> {
    /// Writes into `target`, a folder.
    pub fn new(tree: &'a View, target: &Path, existing: Existing, progress: ProgressBar) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = rustix::fs::open(target, flags, Mode::empty()).context(target.display())?;
        Ok(Self::into_folder(tree, target, existing, progress))
    }

    /// Writes into a folder that is open.
    pub fn into_folder(tree: &'a View, target: OwnedFd, existing: Existing, progress: ProgressBar) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            tree,
            target,
            existing,
            progress,
            links: HashMap::new(),
            left_out: Vec::new(),
            left_out_count: 0,
            root,
            written: 0,
            seen: None,
            unfinished: format!(
                ".comb-restore-{}-{}",
                std::process::id(),
                jiff::Timestamp::now().as_nanosecond()
            ),
        }
    }

    /// Counts what was written in `seen`, too.
    #[must_use]
    pub fn seen_by(self, seen: Option<Arc<AtomicU64>>) -> Self {
        Self { seen, ..self }
    }

    /// Makes `attr`, a folder, as `name` in the target, with nothing in it; opened.
    pub fn make_folder(&mut self, attr: &Attr, name: &[u8]) -> Result<OwnedFd> {
        let path = Path::new(OsStr::from_bytes(name));
        rustix::fs::mkdirat(&self.target, path, Mode::RWXU).context(shown(path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.target, path, flags, Mode::empty()).context(shown(path))?;
        let dressed = made.try_clone().context(shown(path))?;
        self.dress(&File::from(dressed), attr, path)?;
        Ok(made)
    }

    /// Whether `name` exists in the target.
    pub fn exists(&self, name: &[u8]) -> Result<bool> {
        exists(self.target.as_fd(), name)
    }

    /// Writes `attr` with all that is below it as `name` in the target.
    pub fn write(&mut self, attr: &Attr, name: &[u8]) -> Result<()> {
        let target = self.target.try_clone().context("the target folder")?;
        self.put(target.as_fd(), Path::new(""), attr, name, 0)
    }

    /// Sets owner, mode and times of the target itself, as those of `attr`.
    pub fn dress_target(&mut self, attr: &Attr) -> Result<()> {
        let target = File::from(self.target.try_clone().context("the target folder")?);
        self.dress(&target, attr, Path::new("."))
    }

    /// Waits until all is on the disk. How many files and folders were written; a failure if something was left out.
    pub fn finish(self) -> Result<u64> {
        rustix::fs::syncfs(&self.target).context("writing the last of it to the disk")?;
        let Some(worst) =
            self.left_out.iter().max_by_key(|failure| failure.kind as u8 == Kind::Damaged as u8)
        else {
            return Ok(self.written);
        };
        for failure in &self.left_out {
            output::note(&format!("left out: {}", failure.message));
        }
        if self.left_out_count > self.left_out.len() {
            output::note(&format!("left out: {} more", self.left_out_count - self.left_out.len()));
        }
        let hint = match worst.kind {
            Kind::NotPermitted => "root can restore owners, devices and attributes of the system",
            Kind::Other => "what the target cannot hold may fit elsewhere, a deep part by its own path",
            _ => "`comb check NAME` names everything that is damaged; another moment may hold it whole",
        };
        Err(Failure::new(worst.kind, format!("{} restored, {} left out", self.written, self.left_out_count))
            .hint(hint))
    }

    fn leave_out(&mut self, failure: Failure) {
        self.left_out_count += 1;
        if self.left_out.len() < LEFT_OUT_SHOWN_MAX {
            self.left_out.push(failure);
        }
    }

    /// Writes one inode; what is damaged or not permitted is left out, other failures end everything.
    fn put(
        &mut self,
        dir: BorrowedFd<'_>,
        below: &Path,
        attr: &Attr,
        name: &[u8],
        depth: usize,
    ) -> Result<()> {
        let path = below.join(OsStr::from_bytes(name));
        if depth >= DEPTH_MAX {
            self.leave_out(Failure::other(format!("{}: more than {DEPTH_MAX} folders deep", shown(&path))));
            return Ok(());
        }
        match self.put_inner(dir, &path, attr, name, depth) {
            Ok(()) => {
                self.written += 1;
                if let Some(seen) = &self.seen {
                    seen.store(self.written, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(failure) if concerns_one_file(&failure) => {
                self.leave_out(failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn put_inner(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        attr: &Attr,
        name: &[u8],
        depth: usize,
    ) -> Result<()> {
        if attr.inode.kind == FileKind::Directory {
            return self.put_directory(dir, path, attr, name, depth);
        }
        self.put_file(dir, path, attr, name)?;
        if attr.inode.nlink > 1 {
            self.links.entry(attr.ino).or_insert_with(|| path.to_owned());
        }
        Ok(())
    }

    /// Makes what is not a directory under a name of its own, and moves it to its place when it is finished.
    fn put_file(&mut self, dir: BorrowedFd<'_>, path: &Path, attr: &Attr, name: &[u8]) -> Result<()> {
        if self.existing == Existing::Replace && exists(dir, name)? && is_directory(dir, name)? {
            return Err(Failure::new(Kind::InTheWay, format!("{}: a folder is in the way", shown(path)))
                .hint("move it aside; a folder is never replaced by a file"));
        }
        let new = format!("{}-{}", self.unfinished, self.written);
        let new = OsStr::new(&new);
        let outcome = self.make(dir, path, attr, new).and_then(|()| {
            let name = OsStr::from_bytes(name);
            match self.existing {
                Existing::Replace => rustix::fs::renameat(dir, new, dir, name),
                Existing::Keep => rename_to_free(dir, new, name),
            }
            .context(shown(path))
        });
        // There is nothing left unless it failed, or two names of one file were to be one.
        let _ = rustix::fs::unlinkat(dir, new, AtFlags::empty());
        outcome
    }

    /// Makes what is not a directory, as `name`, which must not exist.
    fn make(&mut self, dir: BorrowedFd<'_>, path: &Path, attr: &Attr, name: &OsStr) -> Result<()> {
        let inode = &attr.inode;
        if let Some(first) = self.links.get(&attr.ino) {
            match self.link(first, dir, name) {
                Err(Errno::MLINK) => self.leave_out(Failure::other(format!(
                    "{} is a file of its own: it can have no more names there",
                    shown(path)
                ))),
                linked => return linked.context(shown(path)),
            }
        }
        match inode.kind {
            FileKind::Directory => Err(Failure::other("a directory is made elsewhere")),
            FileKind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file =
                    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context(shown(path))?;
                let file = File::from(file);
                self.copy(&file, attr, path)?;
                self.dress(&file, attr, path)
            }
            FileKind::Symlink => {
                let target =
                    self.tree.read_link(attr.ino).map_err(|error| engine::fs_failure(shown(path), &error))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), dir, name).context(shown(path))?;
                self.dress_name(dir, name, attr, path)
            }
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                let kind = match inode.kind {
                    FileKind::Fifo => FileType::Fifo,
                    FileKind::Socket => FileType::Socket,
                    FileKind::CharDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let mode = Mode::from_raw_mode(RawMode::from(inode.mode & 0o700));
                rustix::fs::mknodat(dir, name, kind, mode, u64::from(inode.rdev)).context(shown(path))?;
                self.dress_name(dir, name, attr, path)
            }
        }
    }

    /// Gives the file that was written as `first` below the target one more name.
    fn link(&self, first: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        match rustix::fs::linkat(&self.target, first, dir, name, AtFlags::empty()) {
            Err(Errno::NAMETOOLONG) => {}
            other => return other,
        }
        // No call takes so long a path: go down folder by folder.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(&self.target, ".", flags, Mode::empty())?;
        let mut parts = first.components().peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rustix::fs::linkat(&at, part.as_os_str(), dir, name, AtFlags::empty());
            }
            at = rustix::fs::openat(&at, part.as_os_str(), flags, Mode::empty())?;
        }
        Err(Errno::NOENT)
    }

    fn put_directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        attr: &Attr,
        name: &[u8],
        depth: usize,
    ) -> Result<()> {
        let name = OsStr::from_bytes(name);
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) if self.existing == Existing::Replace => {
                if !is_directory(dir, name.as_bytes())? {
                    return Err(Failure::new(
                        Kind::InTheWay,
                        format!("{}: a file is in the way", shown(path)),
                    )
                    .hint("move it aside; a file is never replaced by a folder"));
                }
            }
            other => other.context(shown(path))?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(dir, name, flags, Mode::empty()).context(shown(path))?;
        let filled = self.fill_directory(made.as_fd(), path, attr, depth);
        // Last, since making entries changes its times and a mode may forbid it; also when the rest is given up.
        let dressed = self.dress(&File::from(made), attr, path);
        filled.and(dressed)
    }

    fn fill_directory(&mut self, made: BorrowedFd<'_>, path: &Path, attr: &Attr, depth: usize) -> Result<()> {
        let entries = match tree::entries(self.tree, attr.ino) {
            Ok(entries) => entries,
            Err(error) => return self.leave_out_if_damaged(path, &error),
        };
        for entry in entries {
            match self.tree.attr(entry.ino) {
                Ok(child) => self.put(made, path, &child, &entry.name, depth + 1)?,
                Err(error) => {
                    let child = path.join(OsStr::from_bytes(&entry.name));
                    self.leave_out_if_damaged(&child, &error)?;
                }
            }
        }
        Ok(())
    }

    fn leave_out_if_damaged(&mut self, path: &Path, error: &FsError) -> Result<()> {
        let failure = engine::fs_failure(shown(path), error);
        if failure.kind != Kind::Damaged {
            return Err(failure);
        }
        self.leave_out(failure);
        Ok(())
    }

    /// Copies the data between the holes.
    fn copy(&self, file: &File, attr: &Attr, path: &Path) -> Result<()> {
        let size = attr.inode.size;
        let failed = |error: FsError| engine::fs_failure(shown(path), &error);
        file.set_len(size).context(shown(path))?;
        let mut done = 0;
        while done < size {
            let start = match self.tree.seek(attr.ino, done, Seek::Data) {
                // Only a hole is left.
                Err(FsError::NoSuchOffset) => size,
                start => start.map_err(failed)?.min(size),
            };
            let end = size.min(start.saturating_add(SPAN_BYTES));
            let batches = self.tree.batches(attr.ino, start..end).map_err(failed)?;
            let data: u64 = batches.iter().map(Batch::bytes).sum();
            if data == end - start && batches.len() > 1 {
                // Written in another order, it is to lie in one piece all the same. Where that cannot be had, it need not.
                let _ = rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, start, data);
            }
            self.progress.inc(end - done - data);
            self.copy_batches(file, attr.ino, &batches, path)?;
            done = end;
        }
        Ok(())
    }

    /// Copies batches. Decoding takes as long as writing, or longer: several do both.
    fn copy_batches(&self, file: &File, ino: Ino, batches: &[Batch], path: &Path) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let rest = batches.get(next.fetch_add(1, Ordering::Relaxed)..).unwrap_or_default();
                let Some(batch) = rest.first() else { return Ok(()) };
                rest.iter().take(AHEAD_BATCHES).for_each(|soon| self.tree.will_read(soon));
                if let Err(failure) = self.copy_batch(file, ino, batch, path) {
                    next.store(batches.len(), Ordering::Relaxed);
                    return Err(failure);
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // Some wait for packs, or for the disk to take what was written.
        let copiers = (cores + 2).min(COPIERS_MAX).min(batches.len());
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..copiers).map(|_| scope.spawn(work)).collect();
            others.into_iter().fold(work(), |copied, other| {
                copied.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }

    fn copy_batch(&self, file: &File, ino: Ino, batch: &Batch, path: &Path) -> Result<()> {
        let mut written = Ok(());
        let read = self.tree.read_batch(ino, batch, &mut |offset, bytes| {
            written = file.write_all_at(bytes, offset);
            self.progress.inc(bytes.len() as u64);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.map_err(|error| engine::fs_failure(shown(path), &error))?;
        written.context(shown(path))?;
        let span = batch.span();
        let bytes = span.end - span.start;
        if batch.bytes() > bytes / 2 {
            // The disk begins with it, or would have all of it to do at the end.
            let _ = rustix::fs::fadvise(file, span.start, NonZeroU64::new(bytes), Advice::DontNeed);
        }
        Ok(())
    }

    /// Owner, attributes, mode, times: in this order, since each may undo the one before, and a mode
    /// may forbid the rest.
    fn dress(&mut self, file: &File, attr: &Attr, path: &Path) -> Result<()> {
        if self.root {
            let (uid, gid) = owner(&attr.inode);
            rustix::fs::fchown(file, Some(uid), Some(gid)).context(shown(path))?;
        }
        let mode = self.copy_xattrs(attr, path, |name, value| {
            rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
        })?;
        rustix::fs::fchmod(file, mode).context(shown(path))?;
        rustix::fs::futimens(file, &times(&attr.inode)).context(shown(path))
    }

    /// The same for what cannot be opened; a symbolic link has no mode.
    fn dress_name(&mut self, dir: BorrowedFd<'_>, name: &OsStr, attr: &Attr, path: &Path) -> Result<()> {
        let link_itself = AtFlags::SYMLINK_NOFOLLOW;
        if self.root {
            let (uid, gid) = owner(&attr.inode);
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), link_itself).context(shown(path))?;
        }
        // No call sets attributes relative to an open folder: this path leads through the folder itself.
        let through = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let mode = self.copy_xattrs(attr, path, |name, value| {
            rustix::fs::lsetxattr(&through, name, value, XattrFlags::empty())
        })?;
        if attr.inode.kind != FileKind::Symlink {
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).context(shown(path))?;
        }
        rustix::fs::utimensat(dir, name, &times(&attr.inode), link_itself).context(shown(path))
    }

    /// Copies the attributes, as far as they can be kept; the mode that is right with those.
    fn copy_xattrs(
        &mut self,
        attr: &Attr,
        path: &Path,
        set: impl Fn(&OsStr, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<Mode> {
        let failed = |error: FsError| engine::fs_failure(shown(path), &error);
        let mut mode = self.mode(&attr.inode);
        for name in self.tree.xattrs(attr.ino).map_err(failed)? {
            let value = self.tree.xattr(attr.ino, &name).map_err(failed)?;
            match set(OsStr::from_bytes(&name), &value) {
                Ok(()) => {}
                // Not every file system has them, some have little room, and some are root's: the content
                // is worth more.
                Err(
                    error @ (Errno::OPNOTSUPP
                    | Errno::PERM
                    | Errno::ACCESS
                    | Errno::INVAL
                    | Errno::TOOBIG
                    | Errno::RANGE
                    | Errno::NOSPC),
                ) => {
                    if name == ACCESS_ACL {
                        mode = without_acl(mode, &value);
                    }
                    let what = format!("attribute {} of {}", output::escape(&name), shown(path));
                    self.leave_out(Failure::new(Kind::NotPermitted, format!("{what}: {error}")));
                }
                Err(error) => return Err(error).context(shown(path)),
            }
        }
        Ok(Mode::from_raw_mode(RawMode::from(mode)))
    }

    fn mode(&self, inode: &Inode) -> u16 {
        let is_ours = inode.uid == rustix::process::geteuid().as_raw()
            && inode.gid == rustix::process::getegid().as_raw();
        // setuid for another owner would be a right that nobody gave.
        if self.root || is_ours { inode.mode } else { inode.mode & !0o6000 }
    }
}

/// Whether others can still be written: this one is damaged or not permitted, or the target cannot hold such a file.
fn concerns_one_file(failure: &Failure) -> bool {
    match failure.errno {
        Some(libc::EROFS) => false,
        Some(
            libc::EFBIG
            | libc::ENAMETOOLONG
            | libc::EINVAL
            | libc::EILSEQ
            | libc::EOVERFLOW
            | libc::EOPNOTSUPP
            | libc::ENOSYS,
        ) => true,
        _ => matches!(failure.kind, Kind::Damaged | Kind::NotPermitted),
    }
}

/// The mode of a file that loses its ACL.
///
/// With an ACL the bits of the group are its mask, which grants the most that anybody has; alone, they
/// would be the group's. So they become what the ACL gave the group. Linux writes an ACL as a version of 4
/// bytes and entries of 8: tag, permissions, 4 bytes of id; all little-endian.
fn without_acl(mode: u16, acl: &[u8]) -> u16 {
    const VERSION_BYTES: usize = 4;
    const ENTRY_BYTES: usize = 8;
    const TAG_GROUP_OF_FILE: [u8; 2] = [4, 0];
    let entries = acl.get(VERSION_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
    let group =
        entries.filter(|entry| entry[..2] == TAG_GROUP_OF_FILE).map(|entry| u16::from(entry[2])).next();
    mode & (!0o070 | (group.unwrap_or(0) & 0o7) << 3)
}

/// Renames without ever replacing anything.
fn rename_to_free(dir: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        // Some network file systems know only this way. The first name is removed by the caller.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::linkat(dir, from, dir, to, AtFlags::empty()),
        other => other,
    }
}

fn shown(path: &Path) -> String {
    output::escape(path.as_os_str().as_bytes())
}

fn owner(inode: &Inode) -> (Uid, Gid) {
    (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid))
}

fn times(inode: &Inode) -> Timestamps {
    Timestamps { last_access: timespec(inode.atime), last_modification: timespec(inode.mtime) }
}

fn timespec(time: Timestamp) -> Timespec {
    const NANOS: i64 = 1_000_000_000;
    Timespec { tv_sec: time.0.div_euclid(NANOS), tv_nsec: time.0.rem_euclid(NANOS) }
}

fn exists(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).context(output::escape(name)),
    }
}

fn is_directory(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let stat = rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
        .context(output::escape(name))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_no_more_than_a_lost_acl_gave_it() {
        let entry = |tag: u8, permissions: u8| [tag, 0, permissions, 0, 0xff, 0xff, 0xff, 0xff];
        // Owner, a named user, group, mask, others: the mask is what the mode shows as the group's.
        let acl = [&[2, 0, 0, 0][..], &entry(1, 7), &entry(2, 7), &entry(4, 4), &entry(16, 6), &entry(32, 4)];
        assert_eq!(without_acl(0o4764, &acl.concat()), 0o4744);
        assert_eq!(without_acl(0o764, &[2, 0, 0]), 0o704, "what is no ACL gave nothing");
    }
}
