//! What pruning did, here and in the stores.

use fs_volume::{Compacted, Packs};
use serde::{Deserialize, Serialize};

use super::SealReport;

/// What pruning did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// The moments that are gone.
    pub dropped: Vec<u64>,
    /// How many are kept.
    pub kept: u64,
    /// Packs that nobody needs any more, and that wait for the grace.
    pub condemned: PacksReport,
    /// Packs that were removed from this disk.
    pub removed: PacksReport,
    /// Packs among the condemned that were compacted.
    #[serde(default)]
    pub compacted: CompactedReport,
    /// What was removed from the stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StorePruned>,
    /// The stores that hold back what is removed, here and everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back_by: Vec<HoldsBack>,
    /// The newest seal.
    pub head: SealReport,
}

/// What pruning did in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePruned {
    /// Its name.
    pub store: String,
    /// Packs that are in it no more.
    pub packs: u64,
    /// Moments that are in it no more.
    pub moments: u64,
    /// Why not all of it was removed; it is tried again with the next pruning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A store that has not all seals yet: what it lacks may need what the others have no use for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldsBack {
    /// Its name.
    pub store: String,
    /// The newest seal that it has.
    pub has_seq: Option<u64>,
    /// What keeps it from having more, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Some packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacksReport {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<Packs> for PacksReport {
    fn from(packs: Packs) -> Self {
        Self { packs: packs.count, bytes: packs.bytes }
    }
}

/// Packs of which what is in use was moved together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactedReport {
    /// How many.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is in use of these, which is copied.
    pub copied_bytes: u64,
}

impl From<Compacted> for CompactedReport {
    fn from(compacted: Compacted) -> Self {
        let Packs { count, bytes } = compacted.packs;
        Self { packs: count, bytes, copied_bytes: compacted.copied }
    }
}

impl CompactedReport {
    /// What comes back by it, in bytes.
    pub fn frees(&self) -> u64 {
        self.bytes.saturating_sub(self.copied_bytes)
    }
}
