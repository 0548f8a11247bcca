//! `comb prune`.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fs_format::Seq;
use fs_volume::retention::{Dropped, Plan, Policy};
use fs_volume::{Compaction, SealInfo, SealPace};
use serde::Serialize;

use crate::control::{Address, Request};
use crate::failure::Result;
use crate::name::{VolumeName, parse_span};
use crate::output::{Align, Table};
use crate::replica::Replicas;
use crate::report::{CompactedReport, PacksReport, PruneReport};
use crate::retention::{self, STORES_WAIT};
use crate::state::{State, VolumeFolder};
use crate::{elsewhere, engine, output, progress};

/// Drop the moments of a volume that its policy does not keep (`comb retain`), and what only they need
///
/// A dropped moment cannot be opened any more. The room comes back a day later, with the next `comb prune`. Where less than
/// half of what is stored together is still in use, that half is moved together, and the rest comes back in the same way.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// The volume; mounted or not
    name: VolumeName,

    /// Change nothing; show what would be dropped, why, and how much room that gives back
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// How long what nobody needs is kept for who still reads it; 0 removes it at once
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_span)]
    grace: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prunes, or says what that would do.
pub fn run(state: &State, args: &PruneArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    if args.dry_run {
        return preview(&volume, args.json);
    }
    let bar = progress::waiting("pruning");
    let report = prune(state, &volume, args.grace)?;
    bar.finish_and_clear();
    if args.json {
        return output::json(&report);
    }
    output::line(&format!(
        "dropped {} moments of \"{}\", kept {}",
        report.dropped.len(),
        volume.name,
        report.kept
    ))?;
    if report.removed.packs > 0 {
        output::line(&format!("removed {}", output::size(report.removed.bytes)))?;
    }
    if report.compacted.packs > 0 {
        output::line(&format!(
            "moved {} that are in use together, which frees {}",
            output::size(report.compacted.copied_bytes),
            output::size(report.compacted.frees())
        ))?;
    }
    for store in &report.stores {
        if store.packs + store.moments > 0 {
            output::line(&format!(
                "removed {} packs and {} moments from store \"{}\"",
                store.packs, store.moments, store.store
            ))?;
        }
        if let Some(error) = &store.error {
            output::note(&format!(
                "store \"{}\" keeps what was dropped until the next time: {error}",
                store.store
            ));
        }
    }
    for store in &report.held_back_by {
        let why = store.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        output::note(&format!(
            "store \"{}\" lacks seal {} and holds back what is removed, here and from every store{why}",
            store.store, report.head.seq
        ));
        output::note(&format!(
            "hint: it goes on when the store has caught up; `comb store remove {} {}` gives up a copy that is gone for good",
            volume.name, store.store
        ));
    }
    if report.condemned.packs > 0 && !args.grace.is_zero() {
        output::note(&format!(
            "{} can be removed by a later `comb prune {}`, when nobody can be reading it any more",
            output::size(report.condemned.bytes),
            volume.name
        ));
    }
    Ok(())
}

/// Through the daemon if the volume is mounted, else by opening it.
fn prune(state: &State, volume: &VolumeFolder, grace: Duration) -> Result<PruneReport> {
    let pinned = retention::pinned(volume)?;
    let request =
        Request::Prune { grace_seconds: grace.as_secs(), pinned: pinned.iter().map(|seq| seq.0).collect() };
    if let Some(report) = Address::live(&volume.path).ask(&request)? {
        return Ok(report);
    }
    let lock = volume.lock()?;
    let opened = Arc::new(engine::open_to_write(state, volume, &lock)?);
    let replicas = Replicas::start(state, &opened, volume, None, SealPace::default())?;
    let how = (grace, Compaction::default());
    let pruned = retention::prune(volume, &opened, &replicas, &pinned, how, STORES_WAIT);
    replicas.note_seen();
    pruned
}

/// What a prune would do.
#[derive(Debug, Serialize)]
struct Preview {
    policy: String,
    keep: Vec<KeptReport>,
    drop: Vec<DroppedReport>,
    /// What can be removed then.
    frees: PacksReport,
    /// What would be compacted, and can be removed then, too.
    compacts: CompactedReport,
}

#[derive(Debug, Serialize)]
struct KeptReport {
    seq: u64,
    time: String,
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DroppedReport {
    seq: u64,
    time: String,
    /// The moment that stands for it in its period.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead: Option<u64>,
}

fn preview(volume: &VolumeFolder, json: bool) -> Result<()> {
    elsewhere::refresh(volume);
    let history = engine::history(volume)?;
    let failed = |error| engine::fs_failure(&volume.name, &error);
    let is_others = engine::is_others(volume)?;
    let policy: Policy =
        retention::policy_of(&volume.name, history.policy().map_err(failed)?).map_err(|failure| {
            if is_others { failure.hint("whoever writes the volume gives it one") } else { failure }
        })?;
    let plan = retention::plan_now(&history, &retention::pinned(volume)?, &policy).map_err(failed)?;
    let seals = engine::seals(volume, &history)?;
    let dropped: Vec<Seq> = plan.drop.iter().map(|gone| gone.seq).collect();
    let bar = progress::waiting("looking at what the others need");
    let freed = history.freed_by(&dropped, &Compaction::default()).map_err(failed)?;
    let (frees, compacts) = (PacksReport::from(freed.packs), CompactedReport::from(freed.compacted));
    bar.finish_and_clear();
    if json {
        return output::json(&told(&plan, &seals, &policy, frees, compacts));
    }
    let mut table = Table::new(&[("SEQ", Align::Right), ("TIME", Align::Left), ("WHY", Align::Left)]);
    for gone in &plan.drop {
        table.row(vec![gone.seq.to_string(), output::time_local(time(&seals, gone.seq)), why(gone)]);
    }
    if !plan.drop.is_empty() {
        table.print()?;
    }
    output::note(&format!(
        "would drop {} of {} moments; {} could be removed",
        plan.drop.len(),
        seals.len(),
        output::size(frees.bytes)
    ));
    if compacts.packs > 0 {
        output::note(&format!(
            "would move {} that are in use together, which frees {} more",
            output::size(compacts.copied_bytes),
            output::size(compacts.frees())
        ));
    }
    if is_others {
        output::note("another device writes the volume, and prunes it");
    }
    Ok(())
}

fn time(seals: &[SealInfo], seq: Seq) -> i64 {
    seals.iter().find(|seal| seal.seq == seq).map_or(0, |seal| seal.time.0)
}

fn why(gone: &Dropped) -> String {
    match gone.instead {
        Some(seq) => format!("{seq} stands for it"),
        None => "older than any rule".to_owned(),
    }
}

fn told(
    plan: &Plan,
    seals: &[SealInfo],
    policy: &Policy,
    frees: PacksReport,
    compacts: CompactedReport,
) -> Preview {
    let when = |seq| output::time_utc(time(seals, seq));
    Preview {
        policy: policy.to_string(),
        keep: plan
            .keep
            .iter()
            .map(|kept| KeptReport {
                seq: kept.seq.0,
                time: when(kept.seq),
                reasons: kept.reasons.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        drop: plan
            .drop
            .iter()
            .map(|gone| DroppedReport {
                seq: gone.seq.0,
                time: when(gone.seq),
                instead: gone.instead.map(|seq| seq.0),
            })
            .collect(),
        frees,
        compacts,
    }
}
