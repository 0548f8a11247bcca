//! The real engine on the stage.

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::{Ino, Seq};
use fs_volume::env::Env;
use fs_volume::{
    Allocate, Attr, Caller, FsError, NewNode, NewXattrs, OpenError, Options, ReadTree, RenameMode, SealInfo,
    SetAttr, SnapshotLabel, Volume, XattrMode,
};

use crate::{Engine, Opener};

/// Makes and opens volumes, all with the same key.
pub struct VolumeOpener {
    /// How to open them.
    pub options: Options,
}

impl VolumeOpener {
    /// With everything as small as it can be, so that a short workload rotates segments, seals and reads
    /// from the disk.
    pub fn small() -> Self {
        let options = Options {
            cache_bytes: 64 << 10,
            overlay_bytes_max: 64 << 10,
            journal_bytes_max: 2 << 20,
            segment_bytes: 64 << 10,
            reserve_bytes: 512 << 10,
            ..Options::default()
        };
        Self { options }
    }

    /// With segments that a few operations do not fill, so that records of several seals share one.
    pub fn roomy() -> Self {
        let options =
            Options { segment_bytes: 1 << 20, journal_bytes_max: 16 << 20, ..Self::small().options };
        Self { options }
    }
}

impl Opener for VolumeOpener {
    type Engine = Volume;

    fn create(&self, env: &Env) -> Result<(), OpenError> {
        fs_volume::create(env, &VolumeKey::from_seed([7; 32]), Caller { uid: 0, gid: 0 })
    }

    fn open(&self, env: Env) -> Result<Volume, OpenError> {
        let (key, device) = (VolumeKey::from_seed([7; 32]), DeviceSecret::from_bytes([8; 32]));
        Volume::open(env, key, &device, self.options.clone())
    }
}

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
        self.make(caller, parent, name, mode, node, xattrs)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        self.link(ino, parent, name)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.unlink(parent, name)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.rmdir(parent, name)
    }

    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        self.rename(from, from_name, to, to_name, mode)
    }

    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        self.set_attr(ino, set)
    }

    fn write(&self, ino: Ino, offset: u64, bytes: &[u8], kill_suid: bool) -> Result<(), FsError> {
        self.write(ino, offset, bytes, kill_suid)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError> {
        self.allocate(ino, offset, len, how)
    }

    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        self.clone_range(from, from_offset, to, to_offset, len)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError> {
        self.set_xattr(ino, name, value, how)
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.remove_xattr(ino, name)
    }

    fn forget(&self, ino: Ino) {
        self.forget(ino);
    }

    fn sync(&self) -> Result<(), FsError> {
        self.sync()
    }

    fn flush_journal(&self) -> Result<(), FsError> {
        self.flush_journal()
    }

    fn seal(&self, label: Option<SnapshotLabel>) -> Result<SealInfo, FsError> {
        self.seal(label)
    }

    fn wants_seal(&self) -> bool {
        self.wants_seal()
    }

    fn read_only_reason(&self) -> Option<String> {
        self.read_only_reason()
    }

    fn seals(&self) -> Result<Vec<SealInfo>, OpenError> {
        self.history().seals()
    }

    fn at(&self, seq: Seq) -> Result<Box<dyn ReadTree>, OpenError> {
        Ok(Box::new(self.history().at(seq)?))
    }
}
