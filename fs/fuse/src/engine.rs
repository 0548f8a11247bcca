//! What the adapter needs of an engine, and a still one for the past.
//!
//! [`fs_volume::Volume`] is the engine of a live mount; [`Still`] makes one of any tree that is not changed
//! here, so that a sealed moment, and a volume that another device writes, are mounted through the same adapter.

use std::sync::Arc;
use std::time::Duration;

use fs_format::{Ino, Seq, Timestamp};
use fs_volume::{
    Allocate, Attr, Caller, DirEntry, FsError, NewNode, NewXattrs, ReadTree, RenameMode, Seek, SetAttr,
    Space, WriteTree, XattrMode,
};

/// A sealed moment, as `.snapshots` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Its number.
    pub seq: Seq,
    /// When it was.
    pub time: Timestamp,
}

/// The sealed past of an engine.
pub trait Past: Send + Sync {
    /// All moments that can be opened, oldest first.
    fn moments(&self) -> Result<Vec<Moment>, FsError>;
    /// The newest of them.
    fn newest(&self) -> Result<Option<Moment>, FsError> {
        Ok(self.moments()?.last().copied())
    }
    /// Opens one; `NotFound` if it is not there (any more).
    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError>;
}

/// A live tree, with what a mount needs besides.
pub trait Engine: WriteTree + 'static {
    /// Writes bytes that the kernel told a `write` it has taken: may use the reserve.
    fn write_taken(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError>;
    /// Holds up whoever writes `bytes` for a moment (at most 50 ms) when sealing falls behind.
    fn pace(&self, _bytes: usize) {}
    /// Whether the live tree may be another from one request to the next, without a change through this mount.
    ///
    /// What is seen of it is then at most a second old, and whoever exchanges it calls [`crate::Mounted::tree_changed`].
    fn changes_by_itself(&self) -> bool {
        false
    }
    /// How often a tree that changes by itself was exchanged for one that does not go on from it, so that numbers of inodes and
    /// moments may mean others since. Grows at the same instant as the tree and the past are exchanged.
    fn era(&self) -> u64 {
        0
    }
    /// How long it may still be changed; nothing where that has no end. When it is zero, every change is refused, and none is
    /// answered for any more.
    fn time_left(&self) -> Option<Duration> {
        None
    }
    /// Whether nothing can grow any more, and there is no hope for room.
    fn is_full(&self) -> bool;
    /// Whether waiting may find room for what found none.
    fn hopes_for_room(&self) -> bool {
        false
    }
    /// Waits a moment for room for so many bytes. Returns whether it is worth to try again.
    fn find_room(&self, _bytes: usize) -> bool {
        false
    }
    /// Room in all and free.
    fn space(&self) -> Result<Space, FsError>;
    /// What `.snapshots` shows; `None` where there is no such directory.
    fn past(&self) -> Option<&dyn Past>;
}

/// A tree that nobody changes here, as an engine: each change is refused as read-only.
pub struct Still<T> {
    tree: T,
    around: Around,
}

/// What there is beside the tree.
enum Around {
    /// Nothing: it is one moment.
    Still(Space),
    /// What there was before, and what is known of it now.
    Followed(Arc<dyn Followed>),
}

/// What is known of a tree that is changed elsewhere, and that each request may see anew.
pub trait Followed: Past {
    /// See [`Engine::era`].
    fn era(&self) -> u64;
    /// Room in all and free.
    fn space(&self) -> Space;
}

impl<T: ReadTree> Still<T> {
    /// Wraps a `tree` that does not change; `bytes` and `files` are what `statfs` shows as used.
    pub fn new(tree: T, bytes: u64, files: u64) -> Self {
        Self { tree, around: Around::Still(Space { total: bytes, free: 0, files }) }
    }

    /// Wraps a `tree` that is changed elsewhere, and shows what was before in `.snapshots`.
    pub fn followed(tree: T, followed: Arc<dyn Followed>) -> Self {
        Self { tree, around: Around::Followed(followed) }
    }
}

impl<T: ReadTree> ReadTree for Still<T> {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.tree.lookup(parent, name)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.tree.attr(ino)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.tree.read_link(ino)
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        self.tree.read_with(ino, offset, len, take)
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.tree.read_dir(dir, cookie, limit)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.tree.xattr(ino, name)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.tree.xattrs(ino)
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.tree.seek(ino, offset, what)
    }
}

impl<T: ReadTree> WriteTree for Still<T> {
    fn make(
        &self,
        _: Caller,
        _: Ino,
        _: &[u8],
        _: u16,
        _: NewNode<'_>,
        _: NewXattrs<'_>,
    ) -> Result<Attr, FsError> {
        Err(FsError::ReadOnly)
    }

    fn link(&self, _: Ino, _: Ino, _: &[u8]) -> Result<Attr, FsError> {
        Err(FsError::ReadOnly)
    }

    fn unlink(&self, _: Ino, _: &[u8]) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn rmdir(&self, _: Ino, _: &[u8]) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn rename(&self, _: Ino, _: &[u8], _: Ino, _: &[u8], _: RenameMode) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn set_attr(&self, _: Ino, _: SetAttr) -> Result<Attr, FsError> {
        Err(FsError::ReadOnly)
    }

    fn set_attr_and_xattr(&self, _: Ino, _: SetAttr, _: &[u8], _: Option<&[u8]>) -> Result<Attr, FsError> {
        Err(FsError::ReadOnly)
    }

    fn write(&self, _: Ino, _: u64, _: &[u8], _: bool) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn allocate(&self, _: Ino, _: u64, _: u64, _: Allocate) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn clone_range(&self, _: Ino, _: u64, _: Ino, _: u64, _: u64) -> Result<u64, FsError> {
        Err(FsError::ReadOnly)
    }

    fn set_xattr(&self, _: Ino, _: &[u8], _: &[u8], _: XattrMode) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn remove_xattr(&self, _: Ino, _: &[u8]) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn forget(&self, _: Ino) {}

    fn sync(&self) -> Result<(), FsError> {
        Ok(())
    }
}

impl<T: ReadTree + 'static> Engine for Still<T> {
    fn write_taken(&self, _: Ino, _: u64, _: &[u8], _: bool) -> Result<(), FsError> {
        Err(FsError::ReadOnly)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn changes_by_itself(&self) -> bool {
        matches!(self.around, Around::Followed(_))
    }

    fn era(&self) -> u64 {
        match &self.around {
            Around::Still(_) => 0,
            Around::Followed(followed) => followed.era(),
        }
    }

    fn space(&self) -> Result<Space, FsError> {
        Ok(match &self.around {
            Around::Still(space) => *space,
            Around::Followed(followed) => followed.space(),
        })
    }

    fn past(&self) -> Option<&dyn Past> {
        match &self.around {
            Around::Still(_) => None,
            Around::Followed(followed) => Some(&**followed),
        }
    }
}
