//! [`fs_volume::Volume`] as the engine of a live mount.

use std::sync::Arc;

use fs_format::{Ino, Seq};
use fs_volume::{
    Allocate, Attr, Caller, FsError, NewNode, NewXattrs, OpenError, ReadTree, RenameMode, SetAttr, Space,
    Volume, XattrMode,
};

use crate::engine::{Engine, Moment, Past};

impl Engine for Volume {
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError> {
        Volume::make(self, caller, parent, name, mode, node, xattrs)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        Volume::link(self, ino, parent, name)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        Volume::unlink(self, parent, name)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        Volume::rmdir(self, parent, name)
    }

    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        Volume::rename(self, from, from_name, to, to_name, mode)
    }

    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        Volume::set_attr(self, ino, set)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        Volume::write(self, ino, offset, data, kill_suid)
    }

    fn write_taken(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        Volume::write_taken(self, ino, offset, data, kill_suid)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError> {
        Volume::allocate(self, ino, offset, len, how)
    }

    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        Volume::clone_range(self, from, from_offset, to, to_offset, len)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError> {
        Volume::set_xattr(self, ino, name, value, how)
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        Volume::remove_xattr(self, ino, name)
    }

    fn forget(&self, ino: Ino) {
        Volume::forget(self, ino);
    }

    fn pace(&self, bytes: usize) {
        let pause = Volume::pause(self, bytes);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    fn sync(&self) -> Result<(), FsError> {
        Volume::sync(self)
    }

    fn is_full(&self) -> bool {
        Volume::is_full(self)
    }

    fn space(&self) -> Result<Space, FsError> {
        Volume::space(self)
    }

    fn past(&self) -> Option<&dyn Past> {
        Some(self)
    }
}

impl Past for Volume {
    fn moments(&self) -> Result<Vec<Moment>, FsError> {
        let seals = self.history().seals().map_err(as_fs_error)?;
        Ok(seals.iter().map(|seal| Moment { seq: seal.seq, time: seal.time }).collect())
    }

    fn newest(&self) -> Result<Option<Moment>, FsError> {
        let head = self.head();
        Ok(Some(Moment { seq: head.seq, time: head.time }))
    }

    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError> {
        let view = self.history().at(seq).map_err(as_fs_error)?;
        Ok(Arc::new(view))
    }
}

/// A moment that cannot be opened, in the words of a failed file operation.
fn as_fs_error(error: OpenError) -> FsError {
    match error {
        OpenError::NoSuchSnapshot(_) => FsError::NotFound,
        OpenError::Disk { .. } => FsError::Disk(error.to_string()),
        _ => FsError::Damaged(error.to_string()),
    }
}
