//! A device of which its hive wants nothing more: what goes, and what stays (`failover.md`, section 5).
//!
//! Whoever has the hive's key can say that a device is revoked. So nothing goes that could not be had again: a volume
//! without its key is lost, and this machine may have the only one.
//!
//! Invariants
//! - A volume's key goes only where the volume is an app's of this hive *and* the key ring here has its key.
//! - The ring itself stays. What opens it without its passphrase goes last of the keys, so that after a crash the same
//!   keys are found again.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use fs_crypto::EntryKey;
use orchestrator_api::ids::VolumeId;
use orchestrator_api::text::Hex;
use serde::Deserialize;

use super::World;
use crate::doors::disk::{self, entries, gone};
use crate::doors::ring;

/// What was removed of a device that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiped {
    /// Volumes of which the key stays here.
    pub kept: Vec<String>,
}

impl fmt::Display for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the keys of its apps' volumes are removed, and what opened the key ring; the ring stays, and its passphrase \
             opens it (`comb recover --ring`, in another state folder, makes those keys again); packs, branches and packages stay",
        )?;
        match self.kept.is_empty() {
            true => Ok(()),
            false => write!(
                f,
                "; the keys of these volumes stay, since they are of no app or the key ring here lacks them: {}",
                self.kept.join(", ")
            ),
        }
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl World {
    /// Removes what this device was, and keys that can be had again.
    pub(super) fn wipe(&self) -> io::Result<Wiped> {
        let state = &self.setup.state;
        let apps = self.volumes_of_apps();
        // A ring that is locked here says nothing of what it has.
        let ring = ring::open(state).ok();
        let is_in_ring = |volume: VolumeId| {
            let entry = ring.as_ref().and_then(|ring| ring.entry(&volume));
            entry.is_some_and(|entry| matches!(entry.key, EntryKey::Volume(_)))
        };
        let mut kept = Vec::new();
        for (volume, folder) in volumes(state)? {
            if apps.contains(&volume) && is_in_ring(volume) {
                gone(std::fs::remove_file(folder.join("key")))?;
                for branch in entries(&folder.join("branches"))? {
                    gone(std::fs::remove_file(branch.join("key")))?;
                }
            } else if folder.join("key").exists() {
                let config = disk::read_json::<Named>(&folder.join("config")).ok().flatten();
                kept.push(config.map_or_else(|| volume.to_hex(), |config| config.name));
            }
        }
        kept.sort();
        gone(std::fs::remove_file(state.join("ring.key")))?;
        for name in ["stores", "keys"] {
            gone(std::fs::remove_dir_all(self.folder.0.join(name)))?;
        }
        self.folder.remove_identity()?;
        Ok(Wiped { kept })
    }

    /// The volumes that the hive's apps have here, also of those whose record is damaged.
    fn volumes_of_apps(&self) -> BTreeSet<VolumeId> {
        let damaged = self.seen.lock().damaged.clone();
        let files = damaged.iter().filter_map(|app| self.folder.read_app(*app).ok().flatten());
        let mut found: BTreeSet<VolumeId> =
            files.flat_map(|file| file.volumes).map(|one| VolumeId(one.volume.0)).collect();
        for state in self.apps.lock().values() {
            found.extend(state.file.volumes.iter().map(|one| VolumeId(one.volume.0)));
            found.extend(state.record.iter().flat_map(|record| record.volumes.keys()));
        }
        found
    }
}

/// The volumes of this machine, and their folders.
fn volumes(state: &Path) -> io::Result<Vec<(VolumeId, std::path::PathBuf)>> {
    let named = entries(&state.join("volumes"))?.into_iter().filter_map(|path| {
        let id: Hex<32> = path.file_name()?.to_str()?.parse().ok()?;
        Some((VolumeId(id.0), path))
    });
    Ok(named.collect())
}
