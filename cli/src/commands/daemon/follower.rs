//! The mount of a volume that another device writes: it shows what the store has, and goes on as that does.
//!
//! Needs a key that reads, and no more. There is no journal, and nothing is sealed or sent.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use fs_fuse::{MountOptions, Mounted, Still};
use fs_volume::{FsError, GivenUpHere, View};
use signal_hook::iterator::Signals;
use tokio::task::JoinHandle;

use super::{
    LAZY_THREADS, Ready, ask_for_end, asked_since, end, link_snapshots, mount_options, prepare_dir,
    require_root, resolve, sealed_report, start_filling, start_linking, text, to_json, wait_for_end, watch,
};
use crate::commands::mount::Habits;
use crate::control::{Address, Handler, Request, Server};
use crate::elsewhere::{self, Door, Look};
use crate::failure::{Context, Failure, Kind, Result};
use crate::following::{FOLLOW_EVERY, Following, Kept};
use crate::metrics::Metrics;
use crate::promise::seconds_since;
use crate::report::{MountReport, StoreReport};
use crate::state::VolumeFolder;
use crate::{engine, lazy_disk, mounts, resting};

/// Whether a volume is one that this machine only looks at. What it wrote before it was taken over has a journal, and is
/// none.
pub fn is_one(folder: &VolumeFolder) -> Result<bool> {
    Ok(folder.config()?.follows)
}

/// A moment of such a volume.
pub fn moment(folder: &VolumeFolder, door: &Door, view: View) -> Result<Kept> {
    Ok(following(folder, door)?.keep(view))
}

fn following(folder: &VolumeFolder, door: &Door) -> Result<Following> {
    let (env, volume) = (door.env.clone(), folder.clone());
    Following::start(folder, move || engine::history_through(env.clone(), &volume))
}

/// Serves such a volume until the mount ends.
pub fn serve(
    folder: &VolumeFolder,
    dir: Option<&Path>,
    habits: &Habits,
    signals: Signals,
    ready: impl FnOnce(&Ready) -> Result<()>,
) -> Result<()> {
    if habits.lease.is_some() {
        return Err(Failure::new(
            Kind::Usage,
            format!(
                "volume \"{}\" is written by another device: there is nothing that a lease could end",
                folder.name
            ),
        ));
    }
    let lock = folder.lock()?;
    let metrics = habits.metrics.map(Metrics::bind).transpose()?;
    let dir = prepare_dir(folder, dir)?;
    let unseen = elsewhere::refresh(folder);
    if let Some(unseen) = &unseen {
        require_something(folder, unseen)?;
    }
    let door = elsewhere::door(folder)?;
    let following = following(folder, &door)?;
    // A store that forgot what was seen there lacks what it needs: that is why, and not what is damaged.
    require_root(folder, &following).map_err(|failure| match failure.kind {
        Kind::Damaged => unseen.unwrap_or(failure),
        _ => failure,
    })?;
    let filling = start_filling(folder, following.history(), door.clone())?;

    let past = (folder.clone(), following.clone());
    let mut options = MountOptions {
        read_only: true,
        resolver: Some(Arc::new(move |name: &str| resolve(&past.0, &past.1.history(), name))),
        ..mount_options(folder, habits)
    };
    if habits.threads.is_none() {
        options.threads = LAZY_THREADS;
    }
    let engine = Still::followed(following.clone(), Arc::new(following.clone()));
    let mounted = fs_fuse::mount(Arc::new(engine), &dir, options).map_err(|error| mounts::failure(&error))?;
    let mounted = Arc::new(mounted);
    if dir != folder.data_path() {
        folder.lead_data_to(&dir)?;
    }
    start_linking(folder, following.history(), true)?;

    let (tell, events) = mpsc::channel();
    watch(&mounted, signals, &tell)?;
    let report =
        MountReport { since: jiff::Timestamp::now().to_string(), ..report(folder, &dir, &following) };
    let look = {
        let (folder, following, dir) = (folder.clone(), following.clone(), dir.clone());
        move || MountReport { since: report.since.clone(), ..self::report(&folder, &dir, &following) }
    };
    if let Some(metrics) = metrics {
        metrics.serve(folder.name.to_string(), Arc::new(look.clone()))?;
    }
    let refused = folder.clone();
    let handler: Arc<Handler> = Arc::new(move |request| match request {
        Request::Status => to_json(&look()),
        // It has none.
        Request::CheckJournal => to_json(&Vec::<String>::new()),
        Request::Unmount => ask_for_end(&tell),
        // It replicates nothing.
        Request::Reload | Request::Look => Ok(serde_json::Value::Null),
        Request::Seal
        | Request::Sync
        | Request::Lease { .. }
        | Request::NoLease
        | Request::Snapshot { .. }
        | Request::Retain { .. }
        | Request::Prune { .. } => Err(engine::refuse_others(&refused)
            .err()
            .unwrap_or_else(|| Failure::new(Kind::NotPermitted, "the mount only looks"))),
    });
    let server = Server::start(Address::live(&folder.path), handler)?;
    start_following(folder, &following, &mounted, door, filling)?;
    let shown = following.shown();
    tracing::info!(seq = %shown.seq, dir = %dir.display(), "mounted volume {}, which another device writes", folder.name);
    ready(&Ready { mount_point: text(&dir), trouble: None })?;

    let asked = wait_for_end(&mounted, &events);
    tracing::info!("unmounted");
    if let Err(failure) = folder.own_data() {
        tracing::warn!("{}", failure.message);
    }
    end(asked.into_iter().chain(asked_since(&events)), Ok(()), server, lock)
}

/// Refuses a mount that could show nothing, because what was seen last was never read here and the store does not answer. As soon
/// as any command would: whoever reads from a mount waits longer for his store.
fn require_something(folder: &VolumeFolder, unseen: &Failure) -> Result<()> {
    let history = engine::history(folder)?;
    let shown = history.head().and_then(|head| history.at(head.seq));
    let shown = shown.map_err(|error| engine::open_failure(folder, &error))?;
    require_root(folder, &shown).map_err(|failure| match (failure.kind, unseen.kind) {
        (Kind::Unreachable, Kind::Unreachable) => Failure {
            message: format!("nothing of volume \"{}\" can be shown: {}", folder.name, unseen.message),
            ..failure
        },
        (Kind::Unreachable | Kind::Damaged, _) => unseen.clone(),
        _ => failure,
    })
}

fn report(folder: &VolumeFolder, dir: &Path, following: &Following) -> MountReport {
    // One that cannot be read is told by `comb status` itself.
    let stores = folder.config().map(|config| config.stores).unwrap_or_default();
    let look = elsewhere::last_look(folder);
    MountReport {
        damage: following.history().damage(),
        stores: stores
            .iter()
            .map(|store| with_look(resting::followed(folder, store), look.clone().filter(|_| store.arbiter)))
            .collect(),
        ..sealed_report(dir, &following.shown())
    }
}

/// A store's report with what came of the looks at it, if the last one failed.
fn with_look(report: StoreReport, look: Option<Look>) -> StoreReport {
    let Some(Look { seen, failure: Some((failure, at)) }) = look else { return report };
    let passes = matches!(failure.kind, Kind::Unreachable | Kind::Other);
    StoreReport {
        last_error: Some(failure.in_one_line()),
        last_error_seconds_ago: Some(at.elapsed().as_secs_f64()),
        unseen_seconds: Some(seconds_since(seen, engine::now_nanos())),
        needs_somebody: report.needs_somebody || !passes,
        ..report
    }
}

/// Goes on as the store does, for as long as the volume is mounted, and fetches what is new.
fn start_following(
    folder: &VolumeFolder,
    following: &Following,
    mounted: &Arc<Mounted>,
    door: Door,
    mut filling: Option<JoinHandle<()>>,
) -> Result<()> {
    let (folder, following, mounted) = (folder.clone(), following.clone(), Arc::clone(mounted));
    let mut lacks = false;
    let follow = move || {
        clear_given_up(&folder, &following);
        while !mounted.has_ended() {
            // Whoever could not read something may have moved it meanwhile.
            if following.wait(FOLLOW_EVERY) || (following.look() && following.wait(FOLLOW_EVERY)) {
                tracing::info!(seq = %following.shown().seq, "showing a newer moment");
                mounted.tree_changed();
                following.forgotten();
                mounted.tree_changed();
                link_snapshots(&folder, &following.history());
                clear_given_up(&folder, &following);
                lacks = true;
            }
            if lacks && filling.as_ref().is_none_or(JoinHandle::is_finished) {
                lacks = false;
                match start_filling(&folder, following.history(), door.clone()) {
                    Ok(begun) => filling = begun,
                    Err(failure) => tracing::warn!("nothing is fetched ahead: {}", failure.message),
                }
            }
        }
    };
    std::thread::Builder::new().name("follow".into()).spawn(follow).map(drop).context("starting a thread")
}

/// Removes from here what the volume has given up, as its newest moment says: the store has it no more either, or soon has not.
fn clear_given_up(folder: &VolumeFolder, following: &Following) {
    let history = following.history();
    let cleared = lazy_disk::packs_here(&folder.path)
        .map_err(|error| FsError::Disk(error.to_string()))
        .and_then(|here| history.given_up(here))
        .and_then(|given_up| history.remove_given_up(&given_up).map(|()| given_up));
    match cleared {
        Ok(given_up) if given_up == GivenUpHere::default() => {}
        Ok(GivenUpHere { packs, manifests }) => {
            tracing::info!(
                packs = packs.len(),
                manifests = manifests.len(),
                "removed what the volume has given up"
            );
        }
        // What is needed is not known: all of it stays, until the next moment.
        Err(error) => tracing::warn!(%error, "what the volume has given up stays here"),
    }
}
