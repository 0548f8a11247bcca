//! A disk that is full: what is told of it (`failover.md`, section 14).

use std::path::Path;

use orchestrator_api::ids::AppId;
use orchestrator_api::placement::Problem;

use super::files::AppFile;
use super::{Seen, World};
use crate::app::volume_name;
use crate::trouble::Trouble;

/// With less free, what is written down next may find no room, in bytes.
const RECORD_ROOM: u64 = 1 << 20;

/// What an app's disk holds it up with, if it does: the disk of its volumes, or that of the device's records.
pub(super) fn trouble(app: AppId, file: &AppFile, seen: &Seen, folder: &Path) -> Option<Trouble> {
    let held_up = file.volumes.iter().find_map(|one| {
        let name = volume_name(app, &one.name);
        let volume = seen.volumes.iter().find(|volume| volume.name == name)?;
        let words = volume.mount.as_ref()?.held_up.as_ref()?;
        Some(format!("volume \"{}\": {words}", one.name))
    });
    let full = seen.is_short.then(|| {
        format!(
            "the disk of {} is full: the app runs on, and what it writes may be refused",
            folder.display()
        )
    });
    held_up.or(full).map(|words| Trouble::new(Problem::NoSpace, words))
}

impl World {
    /// Looks whether a disk that was full has room again.
    pub(super) fn look_at_room(&self) {
        let free =
            || rustix::fs::statvfs(&self.folder.0).map(|disk| disk.f_bfree.saturating_mul(disk.f_frsize));
        if self.seen.lock().is_short && free().is_ok_and(|free| free >= RECORD_ROOM) {
            self.note_room(false);
        }
    }
}
