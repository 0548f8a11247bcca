//! Pruning a volume by its policy: the same for a command and for the daemon of a mounted volume.

use std::time::Duration;

use fs_format::{Seq, Timestamp};
use fs_replication::GivenUp;
use fs_volume::retention::{Plan, Policy, plan};
use fs_volume::{Collection, Compaction, FsError, History, Volume};

use crate::control::Address;
use crate::engine;
use crate::failure::{Failure, Kind, Result};
use crate::replica::Replicas;
use crate::report::{HoldsBack, PacksReport, PruneReport, SealReport};
use crate::state::VolumeFolder;

/// How long pruning waits for the stores to have what says what is given up, if nobody says otherwise.
pub const STORES_WAIT: Duration = Duration::from_secs(30);

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
