//! Pruning a volume by its policy: the same for a command and for the daemon of a mounted volume.

use std::time::Duration;

use fs_format::Seq;
use fs_volume::retention::{Plan, Policy, plan};
use fs_volume::{Collection, FsError, History, Packs, Volume};
use serde::{Deserialize, Serialize};

use crate::control::Address;
use crate::engine;
use crate::failure::{Failure, Kind, Result};
use crate::report::SealReport;
use crate::state::VolumeFolder;

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
    /// The newest seal.
    pub head: SealReport,
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
    let now = fs_format::Timestamp(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX));
    Ok(plan(&history.seals()?, pinned, policy, now))
}

/// Prunes an open volume by its policy.
///
/// Of one with stores nothing is removed yet: what they have, and lack, is not told here.
pub fn prune(folder: &VolumeFolder, volume: &Volume, pinned: &[Seq], grace: Duration) -> Result<PruneReport> {
    let name = &folder.name;
    let replicated = (!folder.config()?.stores.is_empty()).then_some(Seq(0));
    let failed = |error: FsError| engine::fs_failure(name, &error);
    let policy = policy_of(name, volume.policy().map_err(failed)?)?;
    let plan = plan_now(&volume.history(), pinned, &policy).map_err(failed)?;
    let drop: Vec<Seq> = plan.drop.iter().map(|gone| gone.seq).collect();
    let pruned =
        volume.prune(&drop, &Collection { grace, replicated, ..Collection::default() }).map_err(failed)?;
    Ok(PruneReport {
        dropped: pruned.dropped.iter().map(|seq| seq.0).collect(),
        kept: volume.history().seals().map_err(|error| failed(error.into()))?.len() as u64,
        condemned: pruned.condemned.into(),
        removed: pruned.removed.into(),
        head: SealReport::from(&pruned.head),
    })
}

/// Gives a volume a policy, or none, and seals it, so that it goes with the volume.
pub fn set(name: &str, volume: &Volume, policy: Option<&Policy>) -> Result<SealReport> {
    let failed = |error: FsError| engine::fs_failure(name, &error);
    volume.set_policy(policy).map_err(failed)?;
    volume.seal(None).map(|head| SealReport::from(&head)).map_err(failed)
}
