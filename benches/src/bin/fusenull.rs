//! The reference FUSE servers: what a mount costs when the filesystem behind it does nothing.
//!
//! ```text
//! fusenull null DIR                      names and attributes in memory, contents thrown away
//! fusenull ram DIR                       contents in memory as well
//!     --fdatasync FILE                   each FSYNC writes 4 KiB to FILE and waits for fdatasync
//!     --no-writeback                     without the kernel's writeback cache
//!     --threads N                        worker threads (as many as cores)
//! ```
//!
//! The kernel is told, and asked for, what Comb's adapter (`fs/fuse`) tells and asks for, so that a mount of either
//! differs in the server alone: capabilities, time-outs, requests of 1 MiB, readahead, dirty pages, threads with a
//! descriptor each, and a clock as coarse as the kernel's. It serves until it is unmounted, and keeps nothing.
//!
//! Where this is less than Comb, a request of Comb is missing here, and never the other way round:
//!
//! - There are no extended attributes. ACLs are asked for, so that the kernel goes the same ways, but the first
//!   GETXATTR is answered with ENOSYS, and none comes again: of Comb the kernel asks each new file for its capabilities.
//! - No file is found by handle (EXPORT_SUPPORT), which changes no other request.
//! - A listing has neither `.` nor `..`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use comb_benches::memory::{self, Birth, Contents, Entry, Inode, Tree};
use fuser::{
    BsdFileFlags, Config, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};

// What follows, down to DIRTY_BYTES_MAX, are Comb's numbers.

/// How long the kernel may believe names and attributes. Nothing but the kernel changes them.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest request, in bytes.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests of readahead and writeback that may be under way.
const BACKGROUND_REQUESTS: u16 = 64;
/// Entries fetched from a directory at once; a reply holds as many as fit.
const ENTRIES_AT_ONCE: usize = 64;
/// What the kernel reads ahead on the mount at least, in KiB.
const READAHEAD_KIB: u64 = 512;
/// What the kernel holds dirty of the mount at most, in bytes.
const DIRTY_BYTES_MAX: u64 = 40 << 20;

/// The file behind `--fdatasync` is written round and round, as a recycled journal is; its length in bytes.
const SYNC_FILE_BYTES: u64 = 64 << 20;
/// What each FSYNC writes there, in bytes.
const SYNC_WRITE_BYTES: u64 = 4096;

/// A file that stands for a journal: a small write and one fdatasync for each FSYNC.
struct SyncFile {
    file: File,
    offset: AtomicU64,
}

impl SyncFile {
    /// Opens it and fills it with zeros, so that later writes change no metadata.
    fn open(path: &Path) -> io::Result<SyncFile> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..SYNC_FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        Ok(SyncFile { file, offset: AtomicU64::new(0) })
    }

    fn sync(&self) -> io::Result<()> {
        let offset = self.offset.fetch_add(SYNC_WRITE_BYTES, Relaxed) % SYNC_FILE_BYTES;
        self.file.write_all_at(&[0x5a; SYNC_WRITE_BYTES as usize], offset)?;
        self.file.sync_data()
    }
}

/// The tree behind a mount.
struct Server {
    tree: Tree,
    contents: Contents,
    writeback: bool,
    /// Whether the kernel takes ENOSYS for "never ask again" when directories are opened.
    skips_opendir: bool,
    sync_file: Option<SyncFile>,
}

impl Server {
    fn sync(&self, reply: ReplyEmpty) {
        match self.sync_file.as_ref().map_or(Ok(()), SyncFile::sync) {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn make(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (mode, umask): (u32, u32),
        kind: FileType,
        rdev: u32,
    ) -> Result<Arc<Inode>, Errno> {
        // The kernel leaves the umask to the server (FUSE_DONT_MASK).
        let birth = Birth { uid: request.uid(), gid: request.gid(), mode: mode & !umask, kind, rdev };
        self.tree.make(parent.0, name, birth, PathBuf::new())
    }

    /// Walks a directory from a position on until `emit` says that the reply is full.
    fn walk(
        &self,
        ino: INodeNo,
        mut position: u64,
        mut emit: impl FnMut(&Entry) -> bool,
    ) -> Result<(), Errno> {
        let directory = self.tree.get(ino.0)?;
        loop {
            let entries = directory.entries(position, ENTRIES_AT_ONCE);
            for found in &entries {
                if emit(found) {
                    return Ok(());
                }
                position = found.cookie;
            }
            if entries.len() < ENTRIES_AT_ONCE {
                return Ok(());
            }
        }
    }
}

/// Answers with an entry.
fn entry(reply: ReplyEntry, found: Result<Arc<Inode>, Errno>) {
    match found {
        Ok(inode) => reply.entry(&TTL, &inode.attr(), Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with success or why not.
fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(at) => at,
        TimeOrNow::Now => memory::now(),
    }
}

/// The kind in the upper bits of a mode; what is none of the special ones is a regular file.
fn kind_of(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_POSIX_ACL;
        if self.writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        // As with Comb, what an old kernel lacks is done without.
        let granted = wanted & config.capabilities();
        config
            .add_capabilities(granted)
            .map_err(|missing| io::Error::other(format!("the kernel took back {missing:?}")))?;
        self.skips_opendir = granted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Each answers with the nearest value that it takes.
        if let Err(nearest) = config.set_max_write(REQUEST_BYTES_MAX) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        if let Err(nearest) = config.set_max_background(BACKGROUND_REQUESTS) {
            let _ = config.set_max_background(nearest);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.lookup(parent.0, name) {
            Err(errno) if errno.code() == libc::ENOENT => match self.tree.get(parent.0) {
                // Inode 0 is a missing name that the kernel may remember.
                Ok(directory) => {
                    let mut attr = directory.attr();
                    attr.ino = INodeNo(0);
                    reply.entry(&TTL, &attr, Generation(0));
                }
                Err(errno) => reply.error(errno),
            },
            found => entry(reply, found),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, _lookups: u64) {
        self.tree.forget(ino.0);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.get(ino.0) {
            Ok(inode) => reply.attr(&TTL, &inode.attr()),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let inode = match self.tree.get(ino.0) {
            Ok(inode) => inode,
            Err(errno) => return reply.error(errno),
        };
        if let Some(size) = size {
            inode.resize(size);
        }
        // As in Comb: the transport does not hand on the kernel's wish to end set-user-ID, so it is told from the request.
        let changes_owner = uid.is_some() || gid.is_some();
        let truncated_by_user = size.is_some() && request.uid() != 0;
        let is_nothing = !changes_owner && size.is_none() && atime.is_none() && mtime.is_none();
        let attr = inode.change(|attr| {
            if mode.is_none() && (changes_owner || truncated_by_user || is_nothing) {
                memory::end_set_user_id(attr);
            }
            attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
            attr.uid = uid.unwrap_or(attr.uid);
            attr.gid = gid.unwrap_or(attr.gid);
            attr.atime = atime.map_or(attr.atime, time);
            attr.mtime = mtime.map_or(attr.mtime, time);
            // The writeback cache keeps this time itself.
            attr.ctime = ctime.unwrap_or(attr.ctime);
        });
        reply.attr(&TTL, &attr);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.get(ino.0) {
            Ok(inode) => reply.data(inode.target().as_os_str().as_encoded_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.make(request, (parent, name), (mode, umask), kind_of(mode), rdev));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.make(request, (parent, name), (mode, umask), FileType::Directory, 0));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let birth =
            Birth { uid: request.uid(), gid: request.gid(), mode: 0o777, kind: FileType::Symlink, rdev: 0 };
        entry(reply, self.tree.make(parent.0, name, birth, target.to_owned()));
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.tree.link(ino.0, parent.0, name));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.remove(parent.0, name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.remove(parent.0, name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.tree.rename((parent.0, name), (new_parent.0, new_name), flags));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, (parent, name), (mode, umask), FileType::RegularFile, 0) {
            Ok(inode) => {
                let keep = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &inode.attr(), Generation(0), FileHandle(0), keep);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.get(ino.0) {
            Ok(inode) => {
                // Truncation comes with the open (FUSE_ATOMIC_O_TRUNC), not as a request of its own.
                if flags.0 & libc::O_TRUNC != 0 {
                    inode.resize(0);
                    if request.uid() != 0 {
                        inode.change(memory::end_set_user_id);
                    }
                }
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        match self.tree.get(ino.0) {
            Ok(inode) => BUFFER.with_borrow_mut(|buffer| {
                inode.read(offset, size as usize, buffer);
                reply.data(buffer);
            }),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree.get(ino.0) {
            Ok(inode) => {
                inode.write(offset, data, self.contents);
                if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                    inode.change(memory::end_set_user_id);
                }
                reply.written(data.len() as u32);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel remembers this and does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.skips_opendir {
            // Never asked again, and no RELEASEDIR comes; the kernel caches listings all the same.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let walked = self
            .walk(ino, offset, |found| reply.add(INodeNo(found.ino), found.cookie, found.kind, &found.name));
        match walked {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let walked = self.walk(ino, offset, |found| {
            // One that was removed meanwhile is left out.
            let Ok(inode) = self.tree.get(found.ino) else { return false };
            reply.add(INodeNo(found.ino), found.cookie, &found.name, &TTL, &inode.attr(), Generation(0))
        });
        match walked {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        // The kernel remembers this and does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 29, 1 << 29, 1 << 30, 1 << 29, 4096, 255, 4096);
    }
}

/// Sets what Comb sets of a mount beside the connection, as far as this kernel and this user may.
fn tune(mount_point: &Path, writeback: bool) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let ours = |line: &&str| line.split(' ').nth(4).is_some_and(|path| Path::new(path) == mount_point);
    let Some(device) = table.lines().rfind(ours).and_then(|line| line.split(' ').nth(2)) else {
        return Err(io::Error::other(format!("{} is not in the table of mounts", mount_point.display())));
    };
    let set = |name: &str, wanted: u64, is_worse: fn(u64, u64) -> bool| {
        let path = format!("/sys/class/bdi/{device}/{name}");
        let now = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        match now {
            Some(now) if is_worse(now, wanted) => std::fs::write(&path, wanted.to_string()),
            _ => Ok(()),
        }
    };
    set("read_ahead_kb", READAHEAD_KIB, |now, wanted| now < wanted)?;
    if writeback { set("max_bytes", DIRTY_BYTES_MAX, |now, wanted| now > wanted) } else { Ok(()) }
}

const USAGE: &str = "usage: fusenull null|ram DIR [--fdatasync FILE] [--no-writeback] [--threads N]";

/// What the command line asks for.
struct Command {
    contents: Contents,
    mount_point: PathBuf,
    sync_file: Option<PathBuf>,
    writeback: bool,
    threads: usize,
}

impl Command {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Option<Command> {
        let contents = match words.next()?.to_str()? {
            "null" => Contents::Discarded,
            "ram" => Contents::Kept,
            _ => return None,
        };
        let mount_point = words.next()?.into();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = Command { contents, mount_point, sync_file: None, writeback: true, threads };
        while let Some(word) = words.next() {
            match word.to_str()? {
                "--fdatasync" => command.sync_file = Some(words.next()?.into()),
                "--no-writeback" => command.writeback = false,
                "--threads" => command.threads = words.next()?.to_str()?.parse().ok()?,
                _ => return None,
            }
        }
        Some(command)
    }

    fn serve(self) -> io::Result<()> {
        let sync_file = self.sync_file.as_deref().map(SyncFile::open).transpose()?;
        // Before it is mounted: nobody answers yet for what lies there then.
        let mount_point = self.mount_point.canonicalize()?;
        let server = Server {
            tree: Tree::default(),
            contents: self.contents,
            writeback: self.writeback,
            skips_opendir: false,
            sync_file,
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fusenull".into()), MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        config.n_threads = Some(self.threads);
        config.clone_fd = true;
        let session = Session::new(server, &mount_point, &config)?;
        if let Err(error) = tune(&mount_point, self.writeback) {
            eprintln!("warning: the kernel's settings stay as they are: {error}");
        }
        session.run()
    }
}

fn main() -> ExitCode {
    let Some(command) = Command::parse(std::env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match command.serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
