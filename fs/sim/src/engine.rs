//! What the stage needs of a volume.
//!
//! The signatures are those of `fs_volume::Volume`. The trait exists so that the trials can be shown to find
//! flaws: [`crate::Notebook`] has them built in.

use fs_format::{Ino, Seq};
use fs_volume::env::Env;
use fs_volume::{
    Allocate, Attr, Caller, FsError, NewNode, NewXattrs, OpenError, ReadTree, RenameMode, SealInfo, SetAttr,
    SnapshotLabel, XattrMode,
};

/// Makes and opens volumes on a world's disk.
pub trait Opener {
    /// What it opens.
    type Engine: Engine;
    /// Makes an empty volume.
    fn create(&self, env: &Env) -> Result<(), OpenError>;
    /// Opens it, after whatever has happened.
    fn open(&self, env: Env) -> Result<Self::Engine, OpenError>;
}

/// An open volume.
#[expect(missing_docs, reason = "each is the method of the same name of `fs_volume::Volume`")]
pub trait Engine: ReadTree {
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError>;
    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError>;
    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError>;
    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError>;
    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError>;
    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError>;
    fn write(&self, ino: Ino, offset: u64, bytes: &[u8], kill_suid: bool) -> Result<(), FsError>;
    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError>;
    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError>;
    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError>;
    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError>;
    /// One more handle; for an engine that does not wait for `forget`.
    fn hold(&self, _: Ino) {}
    /// One handle less.
    fn release(&self, _: Ino) {}
    fn forget(&self, ino: Ino);
    fn sync(&self) -> Result<(), FsError>;
    fn flush_journal(&self) -> Result<(), FsError>;
    fn seal(&self, label: Option<SnapshotLabel>) -> Result<SealInfo, FsError>;
    fn wants_seal(&self) -> bool;
    /// Why the volume takes no more changes, if so.
    fn read_only_reason(&self) -> Option<String>;
    /// All sealed moments, oldest first.
    fn seals(&self) -> Result<Vec<SealInfo>, OpenError>;
    /// A sealed moment.
    fn at(&self, seq: Seq) -> Result<Box<dyn ReadTree>, OpenError>;
}
