//! Pruning a volume by its policy: the same for a command and for the daemon of a mounted volume.

use std::time::Duration;

use fs_format::{Seq, Timestamp};
use fs_replication::GivenUp;
use fs_volume::retention::{Plan, Policy, plan};
use fs_volume::{Collection, Compacted, Compaction, FsError, History, Packs, Volume};
use serde::{Deserialize, Serialize};

use crate::control::Address;
use crate::engine;
use crate::failure::{Failure, Kind, Result};
use crate::replica::Replicas;
use crate::report::SealReport;
use crate::state::VolumeFolder;

/// How long pruning waits for the stores to have what says what is given up, if nobody says otherwise.
pub const STORES_WAIT: Duration = Duration::from_secs(30);

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

/// The moments of a volume that a mount shows: they are not dropped.
pub fn pinned(folder: &VolumeFolder) -> Result<Vec<Seq>> {
    let mut pinned = Vec::new();
    for address in Address::all(&folder.path) {
        pinned.extend(address.status()?.and_then(|mount| mount.moment).map(Seq));
    }
    Ok(pinned)
}

/// The policy, or what to do about there being none.
pub fn policy_of(name: impl std::fmt::Display, policy: Option<Policy>) -> Result<Policy> {
    policy.ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{name}\" has no policy: every moment is kept")).hint(
            format!("`comb retain {name} \"keep 5m for 3h, 1h for 2d, 1d for 30d, 1w for 1y\"` gives it one"),
        )
    })
}

/// What the policy says of the moments there are now.
pub fn plan_now(history: &History, pinned: &[Seq], policy: &Policy) -> std::result::Result<Plan, FsError> {
    let (seals, repeats) = history.seals_and_repeats()?;
    Ok(plan(&seals, &repeats, pinned, policy, Timestamp(engine::now_nanos())))
}

/// Prunes an open volume by its policy, here and in its stores.
///
/// From stores goes what a seal has given up that all of them have, after `wait` at most; what lacks that is left to the
/// next time.
pub fn prune(
    folder: &VolumeFolder,
    volume: &Volume,
    replicas: &Replicas,
    pinned: &[Seq],
    (grace, compaction): (Duration, Compaction),
    wait: Duration,
) -> Result<PruneReport> {
    let name = &folder.name;
    let failed = |error: FsError| engine::fs_failure(name, &error);
    let policy = policy_of(name, volume.policy().map_err(failed)?)?;
    let plan = plan_now(&volume.history(), pinned, &policy).map_err(failed)?;
    let drop: Vec<Seq> = plan.drop.iter().map(|gone| gone.seq).collect();
    let cleared = replicas.cleared();
    let how = Collection { grace, replicated: replicas.replicated(), cleared: &cleared, compaction };
    let pruned = volume.prune(&drop, &how).map_err(failed)?;
    let mut report = PruneReport {
        dropped: pruned.dropped.iter().map(|seq| seq.0).collect(),
        kept: 0,
        condemned: pruned.condemned.into(),
        removed: pruned.removed.into(),
        compacted: pruned.compacted.into(),
        stores: Vec::new(),
        held_back_by: Vec::new(),
        head: SealReport::from(&pruned.head),
    };
    if how.replicated.is_some() {
        replicas.hurry();
        let waited = replicas.wait(pruned.head.seq, wait, &mut |_| {});
        if let Some(replicated) = replicas.replicated().filter(|seq| *seq > Seq(0)) {
            let removed: PacksReport = volume.sweep(replicated).map_err(failed)?.into();
            report.removed.packs += removed.packs;
            report.removed.bytes += removed.bytes;
            report.stores = replicas.collect(&given_up(volume, replicated, grace).map_err(failed)?);
        }
        if let Err(failure) = waited {
            tracing::warn!("what was dropped is not removed from all stores yet: {}", failure.message);
            let lacking = replicas.reports().into_iter();
            let lacking = lacking.filter(|store| store.replicated_seq < Some(pruned.head.seq.0));
            report.held_back_by = lacking
                .map(|store| HoldsBack {
                    store: store.name,
                    has_seq: store.replicated_seq,
                    error: store.last_error,
                })
                .collect();
        }
    }
    let seals = volume.history().seals().map_err(|error| failed(error.into()))?;
    report.kept = seals.len() as u64;
    let labels = seals.into_iter().filter_map(|seal| seal.snapshot);
    folder.unlink_snapshots_but(&labels.map(|label| label.id.to_uuid()).collect())?;
    Ok(report)
}

/// What stores may remove once they have this seal.
fn given_up(volume: &Volume, replicated: Seq, grace: Duration) -> std::result::Result<GivenUp, FsError> {
    let kept = volume.history().seals_as_of(replicated)?;
    let old = engine::now_nanos().saturating_sub(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX));
    // What is gone was older than the next that is kept.
    let boundary =
        kept.iter().filter(|seal| seal.time.0 <= old && !volume.clock_was_set()).map(|seal| seal.seq);
    Ok(GivenUp {
        packs: volume.doomed(replicated)?,
        boundary: boundary.max(),
        kept: kept.iter().map(|seal| seal.seq).collect(),
    })
}

/// Gives a volume a policy, or none, and seals it, so that it goes with the volume.
pub fn set(name: &str, volume: &Volume, policy: Option<&Policy>) -> Result<SealReport> {
    let failed = |error: FsError| engine::fs_failure(name, &error);
    volume.set_policy(policy).map_err(failed)?;
    volume.seal(None).map(|head| SealReport::from(&head)).map_err(failed)
}
