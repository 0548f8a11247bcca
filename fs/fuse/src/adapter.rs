//! From requests to the engine and back.
//!
//! Invariants
//! - No state but counters: what a node id or a request does not say is asked of the engine, so another
//!   process could take over the connection. Only the trees of later [eras](Engine::era) are noted ([`Trees`]).
//! - What is answered of a node is of the era in which the kernel learned of it, or ESTALE: no file is taken for another.
//! - The kernel's caches are always right, because only the kernel changes live files. Names
//!   in `.snapshots` come and go by themselves and are not cached.
//! - A live tree that [changes by itself](Engine::changes_by_itself) is cached for a second. Pages go with the last `close`,
//!   or when it changes under an open file ([`Readers`]).
//! - No change is answered for after the end of the [`time`] in which the engine may be changed.
//! - A FUSE thread never waits for the disk to be durable, nor with a write that finds no room; `commit` and `patience` do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fs_format::{FileKind, Ino, Seq, Timestamp};
use fs_volume::{
    Allocate, Attr, Caller, DirEntry, FILE_BYTES_MAX, FsError, NAME_BYTES_MAX, NewNode, ReadTree, RenameMode,
    SYMLINK_BYTES_MAX, Seek, SetAttr, SetTime,
};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::Resolver;
use crate::acl::{self, Acl};
use crate::asker::Asker;
use crate::commit::Commits;
use crate::dirty::{PUSH_HANDLE, Writers};
use crate::engine::{Engine, Past};
use crate::errno::Refusal;
use crate::full::Full;
use crate::length;
use crate::node::{self, Node, SNAPSHOTS_NAME, Tree, Trees};
use crate::past::{self, Views};
use crate::patience::{Patience, Place};
use crate::readers::Readers;
use crate::time::{self, require_time};
use crate::xattr;

/// How long the kernel may keep what only it can change.
const TTL_LONG: Duration = Duration::from_secs(24 * 60 * 60);
/// For what changes by itself.
const TTL_NONE: Duration = Duration::ZERO;
/// For a whole tree that changes by itself: an answer to each step of each path would be slow.
const TTL_SHORT: Duration = Duration::from_secs(1);
/// Node ids are never used again, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// The largest request in bytes; the kernel's own limit without a sysctl.
const REQUEST_BYTES: u32 = 1 << 20;
/// Requests of readahead and writeback that may be under way.
const BACKGROUND_REQUESTS: u16 = 64;
/// Directory entries asked of the engine at a time.
const ENTRIES_AT_ONCE: usize = 64;
/// Bytes that one `copy_file_range` answers for at most: the reply is 32 bits wide.
const CLONE_BYTES_MAX: u64 = 1 << 30;
const BLOCK_BYTES: u32 = 4096;
/// Inodes that `statfs` calls free: their number has no limit that anyone meets.
const FREE_INODES: u64 = 1 << 32;

/// Positions of `.` and `..`; the engine's own are larger.
const COOKIE_DOT: u64 = 1;
const COOKIE_DOT_DOT: u64 = 2;

/// What the adapter was asked to be.
pub(crate) struct Character {
    pub(crate) read_only: bool,
    pub(crate) writeback: bool,
    pub(crate) acl: bool,
    pub(crate) resolver: Option<Resolver>,
}

/// Where requests go that a FUSE thread would have to wait with.
pub(crate) struct Doors<E> {
    pub(crate) commits: Commits,
    pub(crate) patience: Patience<E>,
}

/// The filesystem as fuser calls it.
pub(crate) struct Adapter<E> {
    engine: Arc<E>,
    commits: Commits,
    patience: Patience<E>,
    writers: Arc<Writers>,
    full: Arc<Full>,
    /// Who has files of a tree open that changes by itself; none for one that only the kernel changes.
    readers: Option<Arc<Readers>>,
    trees: Trees,
    views: Views,
    character: Character,
    /// Whether the kernel has agreed to keep dirty pages.
    writeback: Arc<AtomicBool>,
    /// Whether the kernel takes ENOSYS for "never ask again" when files are opened.
    skips_open: bool,
    skips_opendir: bool,
}

type Answer<T> = Result<T, Refusal>;

impl<E: Engine> Adapter<E> {
    pub(crate) fn new(
        engine: Arc<E>,
        Doors { commits, patience }: Doors<E>,
        writers: Arc<Writers>,
        full: Arc<Full>,
        readers: Option<Arc<Readers>>,
        writeback: Arc<AtomicBool>,
        character: Character,
    ) -> Self {
        Self {
            engine,
            commits,
            patience,
            writers,
            full,
            readers,
            trees: Trees::default(),
            views: Views::default(),
            character,
            writeback,
            skips_open: false,
            skips_opendir: false,
        }
    }

    fn past(&self) -> Option<&dyn Past> {
        self.engine.past()
    }

    /// The node behind an id. Without a past, the number of `.snapshots` is as good as any.
    fn node(&self, id: INodeNo) -> Node {
        match self.trees.node(id, self.engine.era()) {
            Node::Snapshots if self.past().is_none() => Node::Live(Tree::LIVE, Ino(id.0)),
            node => node,
        }
    }

    /// Reads from the tree that a node is in.
    fn read_tree<T>(
        &self,
        node: Node,
        read: impl FnOnce(&dyn ReadTree, Ino) -> Result<T, FsError>,
    ) -> Answer<T> {
        match node {
            Node::Live(tree, ino) => {
                self.require_now(tree)?;
                let found = read(&*self.engine, ino);
                // What was read may be of an era that began meanwhile.
                self.require_now(tree)?;
                Ok(found?)
            }
            Node::Snapshots => Err(Errno::EOPNOTSUPP.into()),
            Node::Past(tree, seq, ino) => Ok(read(&*self.moment(tree, seq)?, ino)?),
        }
    }

    /// Whether the era of a tree is the one of the engine.
    fn is_now(&self, tree: Tree) -> bool {
        tree.era == Some(self.engine.era())
    }

    fn require_now(&self, tree: Tree) -> Answer<()> {
        if self.is_now(tree) { Ok(()) } else { Err(Errno::ESTALE.into()) }
    }

    /// The live tree of an era, or that of a moment.
    fn tree(&self, era: u64, seq: Option<Seq>) -> Answer<Tree> {
        Ok(self.trees.of(era, seq).ok_or(Errno::ESTALE)?)
    }

    fn moment(&self, tree: Tree, seq: Seq) -> Answer<Arc<dyn ReadTree>> {
        let (past, era) = self.past().zip(tree.era).ok_or(Errno::ESTALE)?;
        self.require_now(tree)?;
        match self.views.at(past, (era, seq), || self.is_now(tree)) {
            // The kernel knows the file, but retention has dropped the moment.
            Err(FsError::NotFound) => Err(Errno::ESTALE.into()),
            other => Ok(other?),
        }
    }

    /// The inode of a node that may be changed.
    fn writable(&self, id: INodeNo) -> Answer<Ino> {
        match self.node(id) {
            Node::Live(..) if self.character.read_only => Err(Errno::EROFS.into()),
            Node::Live(_, ino) => require_time(&*self.engine).map(|()| ino),
            Node::Snapshots => Err(Errno::EPERM.into()),
            Node::Past(..) => Err(Errno::EROFS.into()),
        }
    }

    /// The directory and name of an entry that may be made, moved or removed.
    fn entry<'a>(&self, parent: INodeNo, name: &'a OsStr) -> Answer<(Ino, &'a [u8])> {
        let dir = self.writable(parent)?;
        let name = name.as_bytes();
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if dir == Ino::ROOT && name == SNAPSHOTS_NAME && self.past().is_some() {
            return Err(Errno::EPERM.into());
        }
        Ok((dir, name))
    }

    /// Attributes of any node.
    fn attributes(&self, node: Node) -> Answer<FileAttr> {
        match node {
            Node::Snapshots => {
                // The kernel lists the directory anew when its time has changed.
                let newest = match self.past() {
                    Some(past) => past.newest()?.map_or(Timestamp(0), |moment| moment.time),
                    None => Timestamp(0),
                };
                Ok(node::virtual_directory(node, newest))
            }
            _ => self.read_tree(node, |tree, ino| tree.attr(ino)).map(|attr| node::file_attr(node, &attr)),
        }
    }

    /// How long the kernel may keep the attributes of a node, and the names in it.
    fn ttl(&self, node: Node) -> Duration {
        match node {
            Node::Snapshots => TTL_NONE,
            Node::Live(..) if self.readers.is_some() => TTL_SHORT,
            Node::Live(..) | Node::Past(..) => TTL_LONG,
        }
    }

    fn find(&self, parent: Node, name: &[u8]) -> Answer<Found> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        match name {
            b"." => return self.found_again(parent),
            b".." => return self.found_again(self.parent_of(parent)?),
            _ => {}
        }
        match parent {
            Node::Live(_, Ino::ROOT) if name == SNAPSHOTS_NAME && self.past().is_some() => {
                let attr = self.attributes(Node::Snapshots)?;
                Ok(Found::Node { attr, ttl_attr: TTL_NONE, ttl_name: TTL_NONE })
            }
            Node::Snapshots => {
                // The era is asked for first: what the name means may be of a later one, and then it is no longer.
                let era = self.engine.era();
                let seq = self.find_moment(name)?;
                let root = Node::Past(self.tree(era, Some(seq))?, seq, Ino::ROOT);
                // What a name like "yesterday" means changes, what lies behind it does not.
                Ok(Found::Node { attr: self.attributes(root)?, ttl_attr: TTL_LONG, ttl_name: TTL_NONE })
            }
            Node::Live(..) | Node::Past(..) => {
                match self.read_tree(parent, |tree, dir| match tree.lookup(dir, name) {
                    Err(FsError::NotFound) => Ok(None),
                    other => other.map(Some),
                })? {
                    Some(attr) => {
                        let attr = node::file_attr(parent.beside(attr.ino), &attr);
                        let ttl = self.ttl(parent);
                        Ok(Found::Node { attr, ttl_attr: ttl, ttl_name: ttl })
                    }
                    None => Ok(Found::Nothing { ttl_name: self.ttl(parent) }),
                }
            }
        }
    }

    /// A node that the kernel knows by number only, as it does for open by handle.
    fn found_again(&self, node: Node) -> Answer<Found> {
        let attr = self.attributes(node)?;
        if attr.nlink == 0 {
            return Err(Errno::ESTALE.into());
        }
        Ok(Found::Node { attr, ttl_attr: self.ttl(node), ttl_name: TTL_NONE })
    }

    fn parent_of(&self, node: Node) -> Answer<Node> {
        match node {
            Node::Live(_, Ino::ROOT) | Node::Snapshots => {
                Ok(Node::Live(self.tree(self.engine.era(), None)?, Ino::ROOT))
            }
            Node::Past(_, _, Ino::ROOT) => Ok(Node::Snapshots),
            _ => {
                let attr = self.read_tree(node, |tree, ino| tree.attr(ino))?;
                if attr.inode.parent.0 == 0 {
                    return Err(Errno::ESTALE.into());
                }
                Ok(node.beside(attr.inode.parent))
            }
        }
    }

    fn find_moment(&self, name: &[u8]) -> Answer<Seq> {
        let past = self.past().ok_or(Errno::ENOENT)?;
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        if past::is_name(name)
            && let Some(seq) = past::find(&past.moments()?, name)
        {
            return Ok(seq);
        }
        let resolved = self.character.resolver.as_ref().and_then(|resolve| resolve(name));
        match resolved {
            Some(seq) if (1..node::SEQ_END).contains(&seq.0) => Ok(seq),
            _ => Err(Errno::ENOENT.into()),
        }
    }

    /// Makes a file of any kind, with what its directory's default ACL gives it.
    fn make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        new: NewNode<'_>,
    ) -> Answer<Attr> {
        let (dir, name) = self.entry(parent, name)?;
        let caller = Caller { uid: req.uid(), gid: req.gid() };
        let mode = (mode & 0o7777) as u16;
        if matches!(new, NewNode::Symlink(_)) {
            return Ok(self.engine.make(caller, dir, name, 0o777, new, &[])?);
        }
        let Some(default) = self.acl_of(dir, acl::DEFAULT)? else {
            return Ok(self.engine.make(caller, dir, name, mode & !(umask as u16), new, &[])?);
        };
        let inherited = default.inherit(mode);
        let access = inherited.access.map(|access| access.to_bytes());
        let default = (new == NewNode::Directory).then(|| default.to_bytes());
        let lists = [(acl::ACCESS, &access), (acl::DEFAULT, &default)];
        let xattrs: Vec<(&[u8], &[u8])> =
            lists.into_iter().filter_map(|(name, bytes)| Some((name, bytes.as_deref()?))).collect();
        Ok(self.engine.make(caller, dir, name, inherited.mode, new, &xattrs)?)
    }

    /// A stored ACL of a live inode.
    fn acl_of(&self, ino: Ino, name: &[u8]) -> Answer<Option<Acl>> {
        if !self.character.acl {
            return Ok(None);
        }
        match self.engine.xattr(ino, name) {
            Ok(bytes) => Ok(Acl::parse(&bytes).map_err(|_| {
                tracing::error!(%ino, "a stored ACL is malformed");
                Errno::EIO
            })?),
            Err(FsError::NoAttribute) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn change_attributes(&self, req: &Request, id: INodeNo, asked: Asked) -> Answer<Attr> {
        let ino = self.writable(id)?;
        let mut set = asked.set;
        if let Some(size) = set.size {
            if size > FILE_BYTES_MAX {
                return Err(Errno::EFBIG.into());
            }
            // With the writeback cache the kernel tells the times of each change, and goes on to show its own:
            // what it tells none of, a truncation by path to the size that is there, is no change.
            let inode = self.engine.attr(ino)?.inode;
            if set.mtime.is_none() && inode.size == size && self.writeback.load(Ordering::Relaxed) {
                set.mtime = Some(SetTime::At(inode.mtime));
                set.ctime = set.ctime.or(Some(inode.ctime));
            }
            // Without it the time of a truncation is left to us; a size that stays counts too.
            set.mtime = set.mtime.or(Some(SetTime::Now));
        }
        // The transport does not hand on the kernel's wish to end set-user-ID, so it is told from the
        // request: a truncation by anyone but root, each change of owner, and a request for
        // nothing at all, which is how the kernel asks before a write or for `chown(-1, -1)`.
        let changes_owner = set.uid.is_some() || set.gid.is_some();
        let truncated_by_user = set.size.is_some() && req.uid() != 0;
        if set.mode.is_none() && (changes_owner || truncated_by_user || asked.is_nothing()) {
            set.kill_suid = self.engine.attr(ino)?.inode.kind != FileKind::Directory;
        }
        let Some(mode) = set.mode else {
            return Ok(self.engine.set_attr(ino, set)?);
        };
        let Some(access) = self.acl_of(ino, acl::ACCESS)? else {
            return Ok(self.engine.set_attr(ino, set)?);
        };
        let access = access.with_mode(mode).to_bytes();
        Ok(self.engine.set_attr_and_xattr(ino, set, acl::ACCESS, Some(&access))?)
    }

    fn open_file(&self, req: &Request, id: INodeNo, flags: OpenFlags) -> Answer<FileHandle> {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let truncates = flags.0 & libc::O_TRUNC != 0;
        let node = self.node(id);
        if writes || truncates {
            self.writable(id)?;
        }
        let Node::Live(_, ino) = node else {
            return Ok(FileHandle(0));
        };
        if truncates {
            let set = SetAttr { size: Some(0), mtime: Some(SetTime::Now), ..SetAttr::default() };
            self.change_attributes(req, id, Asked { set })?;
        }
        if writes {
            self.writer_opened(ino, truncates || flags.0 & libc::O_APPEND != 0);
        }
        Ok(if self.writers.is_push(req.pid(), id) { PUSH_HANDLE } else { FileHandle(0) })
    }

    /// What the kernel is told of the pages that it has of a file that is opened.
    ///
    /// Of a tree that changes by itself they may be of another moment.
    fn opened(&self, id: INodeNo) -> FopenFlags {
        match (&self.readers, self.node(id)) {
            (Some(readers), Node::Live(..)) => readers.opened(id),
            _ => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// Notes a writable handle; `grows` if all that is written through it makes the file longer.
    fn writer_opened(&self, ino: Ino, grows: bool) {
        let first = self.writeback.load(Ordering::Relaxed) && self.writers.opened(ino);
        if first && grows && self.engine.is_full() {
            self.full.opened(ino);
        }
    }

    fn writer_closed(&self, ino: Ino) {
        if self.writers.closed(ino) {
            self.full.need_not_ask(ino);
        }
    }

    /// Answers for [`Full`], and at the end of the [`time`], when the kernel asks for attributes, with a handle if it does
    /// so for a `write`.
    fn may_write(&self, node: Node, handle: Option<FileHandle>) -> Answer<()> {
        let Node::Live(_, ino) = node else {
            return Ok(());
        };
        if time::is_over(&*self.engine) && self.writers.has(ino) {
            if handle.is_some() {
                return Err(Errno::EROFS.into());
            }
            self.full.remind(ino);
            return Ok(());
        }
        if !self.full.must_ask(ino) {
            return Ok(());
        }
        if !self.engine.is_full() {
            self.full.need_not_ask(ino);
            return Ok(());
        }
        if handle.is_some() {
            return Err(Errno::ENOSPC.into());
        }
        self.full.remind(ino);
        Ok(())
    }

    fn set_attribute(
        &self,
        req: &Request,
        id: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Answer<()> {
        let ino = self.writable(id)?;
        let how = xattr::mode(flags)?;
        let name = name.as_bytes();
        let kind = xattr::classify(name, self.character.acl)?;
        if kind == xattr::Name::Plain {
            return Ok(self.engine.set_xattr(ino, name, value, how)?);
        }
        let Some(acl) = Acl::parse(value).map_err(|_| Errno::EINVAL)? else {
            return self.remove_acl(ino, name);
        };
        let inode = self.engine.attr(ino)?.inode;
        if kind == xattr::Name::DefaultAcl {
            if inode.kind != FileKind::Directory {
                return Err(Errno::EACCES.into());
            }
            return Ok(self.engine.set_xattr(ino, name, &acl.to_bytes(), how)?);
        }
        let mut mode = inode.mode & !0o777 | acl.mode_bits();
        if mode & 0o2000 != 0 && !is_member(req, inode.gid) {
            mode &= !0o2000;
        }
        // The kernel looks at `how` for other attributes only.
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let access = (!acl.is_just_a_mode()).then(|| acl.to_bytes());
        self.engine.set_attr_and_xattr(ino, set, name, access.as_deref())?;
        Ok(())
    }

    /// Removes an ACL; as on other filesystems it need not be there.
    fn remove_acl(&self, ino: Ino, name: &[u8]) -> Answer<()> {
        match self.engine.remove_xattr(ino, name) {
            Ok(()) | Err(FsError::NoAttribute) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn attribute(&self, id: INodeNo, name: &OsStr) -> Answer<Vec<u8>> {
        let name = name.as_bytes();
        xattr::classify(name, self.character.acl)?;
        match self.node(id) {
            Node::Snapshots => Err(Errno::ENODATA.into()),
            node => self.read_tree(node, |tree, ino| tree.xattr(ino, name)),
        }
    }

    fn attribute_names(&self, req: &Request, id: INodeNo) -> Answer<Vec<u8>> {
        let names = match self.node(id) {
            Node::Snapshots => Vec::new(),
            node => self.read_tree(node, |tree, ino| tree.xattrs(ino))?,
        };
        Ok(xattr::list(&names, req.uid(), self.character.acl))
    }

    /// Walks a directory from `offset` on until `emit` says that the reply is full.
    fn walk(&self, dir: Node, offset: u64, emit: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()> {
        if offset < COOKIE_DOT
            && emit(Entry { cookie: COOKIE_DOT, name: b".", node: dir, kind: FileType::Directory })
        {
            return Ok(());
        }
        if offset < COOKIE_DOT_DOT {
            // The kernel only shows its number; a parent that is not known is no reason to fail.
            let node = self.parent_of(dir).unwrap_or(dir);
            if emit(Entry { cookie: COOKIE_DOT_DOT, name: b"..", node, kind: FileType::Directory }) {
                return Ok(());
            }
        }
        let mut cookie = if offset <= COOKIE_DOT_DOT { 0 } else { offset };
        if dir == Node::Snapshots {
            return self.walk_moments(cookie, emit);
        }
        loop {
            let entries: Vec<DirEntry> =
                self.read_tree(dir, |tree, ino| tree.read_dir(ino, cookie, ENTRIES_AT_ONCE))?;
            for entry in &entries {
                let node = dir.beside(entry.ino);
                let kind = node::file_type(entry.kind);
                if emit(Entry { cookie: entry.cookie, name: &entry.name, node, kind }) {
                    return Ok(());
                }
                cookie = entry.cookie;
            }
            if entries.len() < ENTRIES_AT_ONCE {
                return Ok(());
            }
        }
    }

    fn walk_moments(&self, after: u64, emit: &mut dyn FnMut(Entry<'_>) -> bool) -> Answer<()> {
        let Some(past) = self.past() else {
            return Ok(());
        };
        let era = self.engine.era();
        for (name, moment) in past::named(&past.moments()?) {
            // Numbers grow with time, so they are positions too.
            let cookie = moment.seq.0 + COOKIE_DOT_DOT;
            if cookie <= after {
                continue;
            }
            let tree = self.tree(era, Some(moment.seq))?;
            let node = Node::Past(tree, moment.seq, Ino::ROOT);
            if emit(Entry { cookie, name: name.as_bytes(), node, kind: FileType::Directory }) {
                break;
            }
        }
        Ok(())
    }

    fn rename_entry(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Answer<()> {
        let (from_dir, from_name) = self.entry(from.0, from.1)?;
        let (to_dir, to_name) = self.entry(to.0, to.1)?;
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags.contains(RenameFlags::RENAME_WHITEOUT)
            && !flags.contains(RenameFlags::RENAME_EXCHANGE)
        {
            // With NOREPLACE beside it the kernel has looked already.
            RenameMode::Whiteout
        } else {
            return Err(Errno::EINVAL.into());
        };
        Ok(self.engine.rename(from_dir, from_name, to_dir, to_name, mode)?)
    }

    fn allocate(&self, id: INodeNo, offset: u64, len: u64, mode: i32) -> Answer<()> {
        let ino = self.writable(id)?;
        let known = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !known != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG.into());
        }
        let how = Allocate {
            keep_size: mode & libc::FALLOC_FL_KEEP_SIZE != 0,
            punch: mode & libc::FALLOC_FL_PUNCH_HOLE != 0,
            zero: mode & libc::FALLOC_FL_ZERO_RANGE != 0,
        };
        Ok(self.engine.allocate(ino, offset, len, how)?)
    }

    fn clone_range(&self, from: (INodeNo, u64), to: (INodeNo, u64), len: u64) -> Answer<u32> {
        let target = self.writable(to.0)?;
        let Node::Live(_, source) = self.node(from.0) else {
            // The kernel then copies by reading and writing.
            return Err(Errno::EOPNOTSUPP.into());
        };
        let len = len.min(CLONE_BYTES_MAX);
        if to.1.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG.into());
        }
        let copied = self.engine.clone_range(source, from.1, target, to.1, len)?;
        if copied == 0 && len > 0 && from.1 < self.engine.attr(source)?.inode.size {
            return Err(Errno::EOPNOTSUPP.into());
        }
        u32::try_from(copied).map_err(|_| Errno::EIO.into())
    }

    /// The length of a file as the caller, who has it open, sees it.
    fn length(&self, req: &Request, id: INodeNo) -> Answer<u64> {
        let device = self.writers.device.get().copied().unwrap_or_default();
        length::of_open_file(req.pid(), device, id).map_err(|error| {
            // Also of a kernel's thread, as of an NFS server, or a process out of sight. With this answer, that of a
            // filesystem without holes, tools look at the bytes.
            tracing::debug!(%id, pid = req.pid(), %error, "the length of an open file is not known");
            Errno::EINVAL.into()
        })
    }

    fn seek(&self, req: &Request, id: INodeNo, offset: i64, whence: i32) -> Answer<i64> {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::EINVAL.into()),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let node = self.node(id);
        let found = match node {
            // Where data lies is not known here while the kernel holds pages, and they cannot be fetched: whoever seeks
            // has the lock that a sync waits for. So all is data.
            Node::Live(_, ino) if self.writers.has(ino) => match (what, self.length(req, id)?) {
                (_, length) if offset >= length => return Err(Errno::ENXIO.into()),
                (Seek::Data, _) => offset,
                (Seek::Hole, length) => length,
            },
            _ => self.read_tree(node, |tree, ino| tree.seek(ino, offset, what))?,
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW.into())
    }

    /// What becomes of a change that is done: after the end of the time it counts for nobody.
    fn in_time<T>(&self, done: Answer<T>) -> Answer<T> {
        done.and_then(|value| require_time(&*self.engine).map(|()| value))
    }

    fn reply_entry(&self, reply: ReplyEntry, made: Answer<Attr>) {
        match self.in_time(made) {
            Ok(attr) => reply.entry(&TTL_LONG, &live_attr(&attr), GENERATION),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn reply_empty(&self, reply: ReplyEmpty, outcome: Answer<()>) {
        match self.in_time(outcome) {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn make_durable(&self, fh: FileHandle, reply: ReplyEmpty) {
        // A push only wants the pages to be steps, and before this request they became so.
        if fh == PUSH_HANDLE || self.character.read_only {
            reply.ok();
        } else if let Err(refusal) = require_time(&*self.engine) {
            reply.error(refusal.0);
        } else {
            self.commits.answer_when_durable(reply);
        }
    }
}

/// What a lookup found.
enum Found {
    Node {
        attr: FileAttr,
        ttl_attr: Duration,
        ttl_name: Duration,
    },
    /// Nothing, and the kernel may remember that.
    Nothing {
        ttl_name: Duration,
    },
}

/// One entry of a directory on its way to the kernel.
struct Entry<'a> {
    cookie: u64,
    name: &'a [u8],
    node: Node,
    kind: FileType,
}

impl Entry<'_> {
    fn is_dots(&self) -> bool {
        self.cookie <= COOKIE_DOT_DOT
    }
}

/// What a `setattr` asks for.
struct Asked {
    set: SetAttr,
}

impl Asked {
    fn is_nothing(&self) -> bool {
        SetAttr { ctime: None, ..self.set } == SetAttr::default()
    }
}

/// Whether the caller may keep set-group-ID on a file of this group.
///
/// The request names one group only; the others are asked of `/proc`, as libfuse does. A caller
/// that cannot be looked at counts as a stranger.
fn is_member(req: &Request, gid: u32) -> bool {
    if req.uid() == 0 || req.gid() == gid {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", req.pid())).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|group| group.parse() == Ok(gid))
}

/// Attributes that name a node without describing it.
///
/// The kernel refuses a size that is not one: it lists the name with its number and kind, and asks
/// for attributes when somebody wants them. That keeps `ls` of a damaged directory going, and
/// saves opening each moment to list `.snapshots`.
fn only_a_name(node: Node, kind: FileType) -> FileAttr {
    FileAttr { kind, size: u64::MAX, ..node::virtual_directory(node, Timestamp(0)) }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(node::timestamp(time)),
    }
}

/// Attributes of a file that was changed, so of a tree that only the kernel changes.
fn live_attr(attr: &Attr) -> FileAttr {
    node::file_attr(Node::Live(Tree::LIVE, attr.ino), attr)
}

impl<E: Engine> Filesystem for Adapter<E> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_EXPORT_SUPPORT;
        match &self.readers {
            // Both are for ever, or until the kernel changes something itself.
            None => wanted |= InitFlags::FUSE_CACHE_SYMLINKS | InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            Some(_) => wanted |= InitFlags::FUSE_AUTO_INVAL_DATA,
        }
        if self.character.writeback {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        if self.character.acl {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if self.character.read_only && self.readers.is_none() {
            // Final for the connection, and without handles: right only where nothing is written or unlinked.
            wanted |= InitFlags::FUSE_NO_OPEN_SUPPORT;
        }
        let granted = wanted & config.capabilities();
        config
            .add_capabilities(granted)
            .map_err(|missing| std::io::Error::other(format!("the kernel took back {missing:?}")))?;
        self.writeback.store(granted.contains(InitFlags::FUSE_WRITEBACK_CACHE), Ordering::Relaxed);
        self.character.acl = granted.contains(InitFlags::FUSE_POSIX_ACL);
        self.skips_open = granted.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.skips_opendir = granted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // Each answers with the nearest value that it takes.
        if let Err(nearest) = config.set_max_write(REQUEST_BYTES) {
            let _ = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES) {
            let _ = config.set_max_readahead(nearest);
        }
        if let Err(nearest) = config.set_max_background(BACKGROUND_REQUESTS) {
            let _ = config.set_max_background(nearest);
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _asker = Asker::of(req).work();
        match self.find(self.node(parent), name.as_bytes()) {
            Ok(Found::Node { attr, ttl_attr, ttl_name }) => {
                reply.entry_with_ttls(&ttl_attr, &ttl_name, &attr, GENERATION);
            }
            Ok(Found::Nothing { ttl_name }) => {
                let nothing =
                    FileAttr { ino: INodeNo(0), ..node::virtual_directory(Node::Snapshots, Timestamp(0)) };
                reply.entry(&ttl_name, &nothing, GENERATION);
            }
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, _nlookup: u64) {
        // The kernel forgets an inode as a whole, when nobody has it open or holds it otherwise. An unlinked one
        // cannot be found again meanwhile: a lookup and the removal of the last name exclude each other.
        if let Some(readers) = &self.readers {
            readers.forgotten(ino);
        }
        if let Node::Live(_, ino) = self.node(ino) {
            self.engine.forget(ino);
        }
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let _asker = Asker::of(req).work();
        let node = self.node(ino);
        match self.may_write(node, fh).and_then(|()| self.attributes(node)) {
            Ok(attr) => reply.attr(&self.ttl(node), &attr),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| (mode & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(node::timestamp),
            kill_suid: false,
        };
        match self.in_time(self.change_attributes(req, ino, Asked { set })) {
            Ok(attr) => reply.attr(&TTL_LONG, &live_attr(&attr)),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let _asker = Asker::of(req).work();
        match self.read_tree(self.node(ino), |tree, ino| tree.read_link(ino)) {
            Ok(target) => reply.data(&target),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => NewNode::File,
            libc::S_IFIFO => NewNode::Special(FileKind::Fifo, 0),
            libc::S_IFSOCK => NewNode::Special(FileKind::Socket, 0),
            libc::S_IFCHR => NewNode::Special(FileKind::CharDevice, rdev),
            libc::S_IFBLK => NewNode::Special(FileKind::BlockDevice, rdev),
            _ => return reply.error(Errno::EINVAL),
        };
        self.reply_entry(reply, self.make(req, parent, name, mode, umask, new));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.reply_entry(reply, self.make(req, parent, name, mode, umask, NewNode::Directory));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome = self.entry(parent, name).and_then(|(dir, name)| Ok(self.engine.unlink(dir, name)?));
        self.reply_empty(reply, outcome);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome = self.entry(parent, name).and_then(|(dir, name)| Ok(self.engine.rmdir(dir, name)?));
        self.reply_empty(reply, outcome);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        if target.len() > SYMLINK_BYTES_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        self.reply_entry(reply, self.make(req, parent, name, 0o777, 0, NewNode::Symlink(target)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.reply_empty(reply, self.rename_entry((parent, name), (newparent, newname), flags));
    }

    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let made = self.entry(newparent, newname).and_then(|(dir, name)| match self.node(ino) {
            Node::Live(_, ino) => Ok(self.engine.link(ino, dir, name)?),
            Node::Snapshots => Err(Errno::EPERM.into()),
            Node::Past(..) => Err(Errno::EXDEV.into()),
        });
        self.reply_entry(reply, made);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _asker = Asker::of(req).work();
        if self.skips_open {
            return reply.error(Errno::ENOSYS);
        }
        match self.open_file(req, ino, flags) {
            Ok(handle) => reply.opened(handle, self.opened(ino)),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _asker = Asker::of(req).work();
        let mut reply = Some(reply);
        let node = self.node(ino);
        let read = self.read_tree(node, |tree, ino| {
            tree.read_with(ino, offset, size as usize, &mut |bytes| {
                // Looked at once more, because there is no way back behind this.
                let is_right = !matches!(node, Node::Live(of, _) if !self.is_now(of));
                if is_right && let Some(reply) = reply.take() {
                    reply.data(bytes);
                }
            })
        });
        if let (Err(refusal), Some(reply)) = (read, reply) {
            reply.error(refusal.0);
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.engine.pace(data.len());
        let ino = match self.writable(ino) {
            Ok(ino) => ino,
            Err(refusal) => return reply.error(refusal.0),
        };
        let kill_suid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let is_page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        self.patience.write(Place { ino, offset, kill_suid, is_page }, data, Asker::of(req), reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Never asked again; the kernel goes on to write dirty pages at `close`, and its locks are its own.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        flags: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Node::Live(_, file) = self.node(ino)
            && flags.acc_mode() != OpenAccMode::O_RDONLY
        {
            self.writer_closed(file);
        }
        // Its era may be over.
        if let Some(readers) = &self.readers {
            readers.closed(ino);
        }
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.make_durable(fh, reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.skips_opendir {
            // Never asked again; the kernel then caches listings, and drops them when it changes the directory.
            reply.error(Errno::ENOSYS);
        } else if self.readers.is_some() {
            reply.opened(FileHandle(0), FopenFlags::empty());
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _asker = Asker::of(req).work();
        let outcome = self.walk(self.node(ino), offset, &mut |entry| {
            reply.add(entry.node.id(), entry.cookie, entry.kind, OsStr::from_bytes(entry.name))
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _asker = Asker::of(req).work();
        let dir = self.node(ino);
        let ttl = if dir == Node::Snapshots { TTL_LONG } else { self.ttl(dir) };
        let outcome = self.walk(dir, offset, &mut |entry| {
            let described = if entry.is_dots() || dir == Node::Snapshots {
                None
            } else {
                self.attributes(entry.node).ok()
            };
            let attr = described.unwrap_or_else(|| only_a_name(entry.node, entry.kind));
            let name = OsStr::from_bytes(entry.name);
            reply.add(attr.ino, entry.cookie, name, &ttl, &attr, GENERATION)
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.make_durable(fh, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.engine.space() {
            Ok(space) => {
                let blocks = space.total / u64::from(BLOCK_BYTES);
                let free = space.free / u64::from(BLOCK_BYTES);
                let files = space.files.saturating_add(FREE_INODES);
                reply.statfs(
                    blocks,
                    free,
                    free,
                    files,
                    FREE_INODES,
                    BLOCK_BYTES,
                    NAME_BYTES_MAX as u32,
                    BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(Refusal::from(error).0),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.reply_empty(reply, self.set_attribute(req, ino, name, value, flags));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _asker = Asker::of(req).work();
        xattr::answer(reply, size, self.attribute(ino, name));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _asker = Asker::of(req).work();
        xattr::answer(reply, size, self.attribute_names(req, ino));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes();
        let outcome = self.writable(ino).and_then(|ino| match xattr::classify(name, self.character.acl)? {
            xattr::Name::Plain => Ok(self.engine.remove_xattr(ino, name)?),
            xattr::Name::AccessAcl | xattr::Name::DefaultAcl => self.remove_acl(ino, name),
        });
        self.reply_empty(reply, outcome);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.engine.pace(0);
        match self.in_time(self.make(req, parent, name, mode, umask, NewNode::File)) {
            Ok(attr) => {
                if OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY {
                    self.writer_opened(attr.ino, true);
                }
                let attr = live_attr(&attr);
                let ino = Ino(attr.ino.0);
                reply.created(&TTL_LONG, &attr, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
                if self.full.must_ask(ino) {
                    // The kernel knows the file only now.
                    self.full.remind(ino);
                }
            }
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // Never asked again: files are always ready.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.reply_empty(reply, self.allocate(ino, offset, length, mode));
    }

    fn lseek(&self, req: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _asker = Asker::of(req).work();
        match self.seek(req, ino, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        ino_in: INodeNo,
        _: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        match self.in_time(self.clone_range((ino_in, offset_in), (ino_out, offset_out), len)) {
            Ok(copied) => reply.written(copied),
            Err(refusal) => reply.error(refusal.0),
        }
    }
}
