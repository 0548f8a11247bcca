//! What is told of seals, mounts, stores and pruning, in the words that `--json` and the control socket use.

mod pruned;
mod store;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fs_volume::{SealInfo, Sealed};
use serde::{Deserialize, Serialize};

pub use self::pruned::{CompactedReport, HoldsBack, PacksReport, PruneReport, StorePruned};
pub use self::store::StoreReport;
use crate::failure::{Failure, Kind};
use crate::lease::LeaseReport;
use crate::output;

/// A sealed moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    /// Its number.
    pub seq: u64,
    /// The manifest's name.
    pub manifest: String,
    /// When, RFC 3339.
    pub time: String,
    /// Files and directories in it.
    pub files: u64,
    /// Logical bytes in it.
    pub bytes: u64,
    /// Bytes that this seal added to the volume.
    pub added_bytes: u64,
    /// How long taking it held up readers and writers, in microseconds; only told by who took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_us: Option<u64>,
    /// What makes it a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotReport>,
}

/// The label of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Its name.
    pub uuid: String,
    /// What a person said of it.
    pub message: String,
    /// Its tags.
    pub tags: Vec<String>,
}

impl From<&SealInfo> for SealReport {
    fn from(seal: &SealInfo) -> Self {
        Self {
            seq: seal.seq.0,
            manifest: seal.id.to_hex(),
            time: output::time_utc(seal.time.0),
            files: seal.files,
            bytes: seal.bytes,
            added_bytes: seal.added,
            freeze_us: None,
            snapshot: seal.snapshot.as_ref().map(|label| SnapshotReport {
                uuid: label.id.to_uuid(),
                message: label.message.clone(),
                tags: label.tags.clone(),
            }),
        }
    }
}

impl From<&Sealed> for SealReport {
    fn from(sealed: &Sealed) -> Self {
        let freeze_us = u64::try_from(sealed.freeze.as_micros()).ok();
        Self { freeze_us, ..Self::from(&sealed.info) }
    }
}

/// How a volume stands with the room on its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomReport {
    /// Bytes of packs on this disk.
    pub local_bytes: u64,
    /// Bytes that a store lacks: of seals, and what is not sealed.
    pub waiting_bytes: u64,
    /// The most that may be; then writes wait, and are refused.
    pub waiting_bytes_max: u64,
    /// Bytes of packs that left this disk since the mount began, because stores have them.
    pub evicted_bytes: u64,
    /// Why writes wait, or are refused, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up: Option<String>,
    /// Whether they are refused.
    #[serde(default)]
    pub refused: bool,
}

/// What a daemon does whose mount has ended.
pub const ENDING: &str = "its daemon ends when it has sealed, and its stores have the last changes or did not take them within 30 s";

/// A mounted volume, as its daemon tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountReport {
    /// The folder it is mounted on.
    pub mount_point: String,
    /// Its bytes in hexadecimal, where they are no text: two folders may read alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_point_hex: Option<String>,
    /// The daemon's process.
    pub pid: u32,
    /// Since when, RFC 3339.
    pub since: String,
    /// The moment that is shown; the live tree if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<u64>,
    /// Whether it is mounted no more, and its daemon ends: it seals, and brings the last changes to the stores.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// Whether writing is refused, by wish or because of `trouble`.
    pub read_only: bool,
    /// Why the volume turned read-only by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Until when it takes changes; none without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseReport>,
    /// What is damaged, as far as it was met; `comb check` finds all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// Why the last seal failed; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_error: Option<String>,
    /// Whether the newest seal holds all that the volume holds.
    #[serde(default)]
    pub sealed: bool,
    /// Bytes that are in the journal and in no pack yet.
    pub dirty_bytes: u64,
    /// Bytes of the journal on the disk.
    pub journal_bytes: u64,
    /// Seals since the mount began.
    #[serde(default)]
    pub seals: u64,
    /// How long they took, in seconds.
    #[serde(default)]
    pub seal_seconds: f64,
    /// The newest seal.
    pub head: SealReport,
    /// How far each store is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreReport>,
    /// How it stands with the room on its disk; none without stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomReport>,
}

impl MountReport {
    /// What to say to somebody who wants to work on a volume that is mounted.
    pub fn in_the_way(&self, volume: impl std::fmt::Display) -> Failure {
        let dir = &self.mount_point;
        if self.ending {
            return Failure::new(Kind::InTheWay, format!("volume \"{volume}\" is unmounted, and {ENDING}")).hint(
                format!(
                    "try again then; `comb unmount {dir}` waits for it, and `comb status {volume}` shows what the stores lack"
                ),
            );
        }
        Failure::new(Kind::InTheWay, format!("volume \"{volume}\" is mounted on {dir}"))
            .hint(format!("`comb unmount {dir}` first"))
    }

    /// Whether it is mounted on `path`, of any bytes.
    pub fn is_on(&self, path: &Path) -> bool {
        self.mount_point == path.to_string_lossy() && self.mount_point_hex == hex_unless_text(path)
    }
}

/// The bytes of a path in hexadecimal, if they are no text.
pub fn hex_unless_text(path: &Path) -> Option<String> {
    output::JsonPath::new(path.as_os_str().as_bytes()).path_hex
}
