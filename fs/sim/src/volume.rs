//! The real engine on the stage.

use std::time::Duration;

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::Seq;
use fs_volume::env::Env;
use fs_volume::{
    Caller, Collection, Compaction, FsError, OpenError, Options, ReadTree, SealInfo, SnapshotLabel, Volume,
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
            // Nothing is kept: what was written or read once is read again.
            cache_bytes: 0,
            overlay_bytes_max: 64 << 10,
            journal_bytes_max: 2 << 20,
            segment_bytes: 64 << 10,
            reserve_bytes: 512 << 10,
            index_packs_max: 3,
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

    fn prune(&self, drop: &[Seq], grace: Duration) -> Result<(), FsError> {
        // Volumes of trials are small, and must be compacted all the same.
        let compaction = Compaction { freed_bytes_min: 1, ..Compaction::default() };
        let pruned = self.prune(drop, &Collection { grace, compaction, ..Collection::default() })?;
        let left = self.history().freed_by(&[], &Compaction::NONE)?.packs;
        if grace.is_zero() && left.count > 0 {
            return Err(FsError::Damaged(format!(
                "{} packs are left that nobody needs: {pruned:?}",
                left.count
            )));
        }
        Ok(())
    }

    fn rollback(&self, to: Seq) -> Result<SealInfo, FsError> {
        self.rollback(to)
    }

    fn inspect(&self) -> Result<(), String> {
        let report = self.history().check(&|_, _| {}).map_err(|error| error.to_string())?;
        if report.damage.is_empty() { Ok(()) } else { Err(format!("{:?}", report.damage)) }
    }
}
