//! The words between the engine and those who call it.

use std::time::Duration;

use fs_format::{FileKind, Ino, Inode, ManifestId, Seq, SnapshotId, Timestamp};

/// The format sets the limits of what a volume holds.
pub use fs_format::tree::{FILE_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_BYTES_MAX};

use crate::FsError;

/// An inode with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// Its record.
    pub inode: Inode,
    /// Allocated bytes as `stat` should show them (overlay included).
    pub allocated: u64,
}

/// Who asks, as far as new files depend on it. Permission checks are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Owner of new files.
    pub uid: u32,
    /// Group of new files, unless the directory is setgid.
    pub gid: u32,
}

/// Extended attributes that a file is made with: names and values.
pub type NewXattrs<'a> = &'a [(&'a [u8], &'a [u8])];

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNode<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A pipe, socket or device with its device number.
    Special(FileKind, u32),
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The engine's clock.
    Now,
    /// This time.
    At(Timestamp),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes: truncates or extends with a hole.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time (the kernel's writeback cache keeps it itself); `None` means now.
    pub ctime: Option<Timestamp>,
    /// Clear setuid and (where group-executable) setgid, as a write by a non-owner does.
    pub kill_suid: bool,
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Position behind this entry; stays valid over changes and restarts. Never 0, fits an `i64`.
    pub cookie: u64,
    /// The name, any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it names.
    pub ino: Ino,
    /// Its kind.
    pub kind: FileKind,
}

/// How `rename` treats what is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Refuses with [`FsError::Exists`].
    NoReplace,
    /// Exchanges the two.
    Exchange,
    /// Replaces it and leaves a whiteout (character device 0:0) at the old name.
    Whiteout,
}

/// How `set_xattr` treats what exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Creates or replaces.
    Set,
    /// Refuses with [`FsError::Exists`] if it exists.
    Create,
    /// Refuses with [`FsError::NoAttribute`] if it does not.
    Replace,
}

/// `fallocate`'s kinds that Comb has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocate {
    /// Do not change the length.
    pub keep_size: bool,
    /// Make the range a hole (needs `keep_size`).
    pub punch: bool,
    /// Make the range read as zeros.
    pub zero: bool,
}

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data.
    Data,
    /// The next hole (there is one at the end).
    Hole,
}

/// Room, as `statfs` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all (the quota, or what the disk has).
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Inodes in use.
    pub files: u64,
}

/// A sealed moment: what a manifest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealInfo {
    /// Its number.
    pub seq: Seq,
    /// Its name.
    pub id: ManifestId,
    /// When the overlay was frozen.
    pub time: Timestamp,
    /// Files and directories in it.
    pub files: u64,
    /// Logical bytes in it.
    pub bytes: u64,
    /// Bytes of packs that this seal wrote.
    pub added: u64,
    /// What somebody said of it, if it was asked for as a snapshot.
    pub snapshot: Option<SnapshotLabel>,
}

/// What sealing gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The newest moment.
    pub info: SealInfo,
    /// How long the freeze held up whatever else there was to do; zero if there was nothing to freeze.
    pub freeze: Duration,
}

/// What makes a seal a named snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLabel {
    /// Its uuid.
    pub id: SnapshotId,
    /// A text, at most 4096 bytes.
    pub message: String,
    /// Tags, each at most 255 bytes of letters, digits, `.`, `_`, `-`.
    pub tags: Vec<String>,
}

/// A path that differs between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// The path below the root, without a leading `/`. For a removed path: the old one.
    pub path: Vec<u8>,
    /// What is (or was) there.
    pub file: FileKind,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Not there before.
    Added,
    /// Not there any more.
    Removed,
    /// Other bytes or other attributes; another inode alone, as after a restore, is no difference.
    Modified,
}

/// Reading, of the live tree and of any sealed moment alike.
pub trait ReadTree: Send + Sync {
    /// Finds a name (`.` and `..` are not names here).
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError>;
    /// An inode by its number.
    fn attr(&self, ino: Ino) -> Result<Attr, FsError>;
    /// A symbolic link's target.
    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError>;
    /// Hands up to `len` bytes from `offset` to `take`, once; fewer only at the end of the file.
    ///
    /// Where they lie in memory already, they are not copied.
    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError>;
    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        let mut out = Vec::new();
        self.read_with(ino, offset, len, &mut |bytes| out = bytes.to_vec())?;
        Ok(out)
    }
    /// Entries behind `cookie` (0: from the start) in order of cookies, at most `limit`.
    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError>;
    /// An extended attribute's value.
    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError>;
    /// The names of the extended attributes.
    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError>;
    /// The next data or hole at or behind `offset`.
    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError>;
}

/// A tree that changes: each change is one atomic step in the order of operations.
pub trait WriteTree: ReadTree {
    /// Makes a file, directory, link or special file, with its attributes. Umask and ACLs are already in `mode`.
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError>;
    /// Gives a file another name.
    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError>;
    /// Removes a name of anything but a directory.
    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError>;
    /// Removes an empty directory.
    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError>;
    /// Moves a name; see [`RenameMode`] for what is in the way.
    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError>;
    /// Changes attributes.
    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError>;
    /// Changes attributes and sets an extended one that must fit them, as an access list fits the mode.
    ///
    /// Without a value it is removed; it need not be there.
    fn set_attr_and_xattr(
        &self,
        ino: Ino,
        set: SetAttr,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Attr, FsError>;
    /// Writes bytes; many in several steps of at most [`WRITE_BYTES_MAX`](crate::WRITE_BYTES_MAX).
    fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError>;
    /// `fallocate`: extends, zeros or punches a range.
    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError>;
    /// `copy_file_range`: shares what can be shared; returns how many bytes were copied.
    ///
    /// May copy fewer than asked for; 0 only at the end of the source.
    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError>;
    /// Sets an extended attribute.
    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError>;
    /// Removes an extended attribute.
    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError>;
    /// The kernel forgot the inode: without a name it is freed.
    fn forget(&self, ino: Ino);
    /// Returns when everything so far is durable.
    fn sync(&self) -> Result<(), FsError>;
}
