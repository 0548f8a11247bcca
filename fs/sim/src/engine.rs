//! What the stage needs of a volume.
//!
//! The signatures are those of `fs_volume::Volume`. The trait exists so that the trials can be shown to find
//! flaws: [`crate::Notebook`] has them built in.

use std::time::Duration;

use fs_format::{Ino, Seq};
use fs_volume::env::Env;
use fs_volume::{FsError, OpenError, ReadTree, SealInfo, SnapshotLabel, WriteTree};

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
pub trait Engine: WriteTree {
    /// One more handle; for an engine that does not wait for `forget`.
    fn hold(&self, _: Ino) {}
    /// One handle less.
    fn release(&self, _: Ino) {}
    fn flush_journal(&self) -> Result<(), FsError>;
    fn seal(&self, label: Option<SnapshotLabel>) -> Result<SealInfo, FsError>;
    fn wants_seal(&self) -> bool;
    /// Why the volume takes no more changes, if so.
    fn read_only_reason(&self) -> Option<String>;
    /// All sealed moments, oldest first.
    fn seals(&self) -> Result<Vec<SealInfo>, OpenError>;
    /// A sealed moment.
    fn at(&self, seq: Seq) -> Result<Box<dyn ReadTree>, OpenError>;
    /// Drops moments, and what only they needed after the grace. An engine without it keeps everything.
    fn prune(&self, _drop: &[Seq], _grace: Duration) -> Result<(), FsError> {
        Ok(())
    }
    fn rollback(&self, _: Seq) -> Result<SealInfo, FsError> {
        Err(FsError::Invalid)
    }
    /// What is damaged, and whether anything is kept that nobody needs and nobody has decided about.
    fn inspect(&self) -> Result<(), String> {
        Ok(())
    }
}
