//! [`fs_volume::Volume`] as the engine of a live mount.

use std::sync::Arc;
use std::time::Duration;

use fs_format::{Ino, Seq};
use fs_volume::{FsError, ReadTree, Space, Volume};

use crate::engine::{Engine, Moment, Past};

impl Engine for Volume {
    fn write_taken(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        Volume::write_taken(self, ino, offset, data, kill_suid)
    }

    fn pace(&self, bytes: usize) {
        let pause = Volume::pause(self, bytes);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    fn time_left(&self) -> Option<Duration> {
        self.lease().left()
    }

    fn is_full(&self) -> bool {
        Volume::is_full(self)
    }

    fn hopes_for_room(&self) -> bool {
        Volume::hopes_for_room(self)
    }

    fn find_room(&self, bytes: usize) -> bool {
        Volume::find_room(self, bytes as u64)
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
        let seals = self.history().seals()?;
        Ok(seals.iter().map(|seal| Moment { seq: seal.seq, time: seal.time }).collect())
    }

    fn newest(&self) -> Result<Option<Moment>, FsError> {
        let head = self.head();
        Ok(Some(Moment { seq: head.seq, time: head.time }))
    }

    fn at(&self, seq: Seq) -> Result<Arc<dyn ReadTree>, FsError> {
        let view = self.history().at(seq)?;
        Ok(Arc::new(view))
    }
}
