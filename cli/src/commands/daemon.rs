//! The daemon of a mount: what `comb mount` starts, or is with `--foreground`.
//!
//! ```text
//! lock, open, mount, listen ── ready ── … ── unmounted ── seal ── unlock ── answer who asked ── end
//! ```
//!
//! Invariants
//! - Whoever asked for the unmount is answered only when the volume is sealed and its lock is free.
//! - A signal to end unmounts and seals too. A mount that stays in use is detached after a while: what was written until then
//!   is sealed, those who use it get errors from then on.
//! - After the end of its lease a mount takes no changes and sends nothing; what it took before is sealed.
//! - However the mount ends, from inside or by `umount`, everything is sealed before the daemon ends.

mod follower;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use fs_format::{Ino, Seq, SnapshotId};
use fs_fuse::{Detach, MountError, MountOptions, Mounted, PushError, Still};
use fs_replication::Room as RoomToFill;
use fs_volume::retention::Policy;
use fs_volume::{
    Compaction, GRACE, History, Keeper, LEASE_OVER, Options, ReadTree, SealInfo, SealPace, SnapshotLabel,
    Volume,
};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::task::JoinHandle;

use super::mount::Habits;
use crate::control::{Address, Handler, Request, Server};
use crate::elsewhere::{self, Door};
use crate::failure::{Context, Failure, Kind, Result};
use crate::lease::{self, LeaseEnd, LeaseReport};
use crate::metrics::Metrics;
use crate::name::VolumeName;
use crate::notes::{self, TAKEN_OVER};
use crate::promise::SEND_EVERY;
use crate::replica::Replicas;
use crate::report::{MountReport, SealReport, hex_unless_text};
use crate::retention::STORES_WAIT;
use crate::room::Room;
use crate::state::{State, VolumeFolder};
use crate::when::When;
use crate::{daemon_log, engine, lazy_disk, mounts, retention, stores};

/// How often the kernel is asked to write out the pages that it holds dirty.
const WRITE_OUT_EVERY: Duration = Duration::from_secs(1);
/// How long a snapshot waits for the kernel to hand over its dirty pages.
const PUSH_PATIENCE: Duration = Duration::from_secs(120);
/// Threads that serve a volume of which a part is in a store: who waits for the store holds one, and others are to be served
/// meanwhile.
const LAZY_THREADS: usize = 32;
/// How long a daemon that a signal ends waits for those who still use the mount, and how often it looks.
const USERS_WAIT: Duration = Duration::from_secs(5);
const USERS_LOOK_EVERY: Duration = Duration::from_millis(100);
/// When a mounted volume is pruned first, and how often then.
const FIRST_PRUNE_AFTER: Duration = Duration::from_mins(5);
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// How long an ending daemon waits for the kernel to hand over its dirty pages.
const LAST_PUSH_PATIENCE: Duration = Duration::from_secs(30);

/// Serve a mount (started by `comb mount`)
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// The volume
    name: VolumeName,

    /// The folder to mount on
    dir: Option<PathBuf>,

    /// The moment to show
    #[arg(long)]
    seq: Option<u64>,

    #[command(flatten)]
    habits: Habits,
}

/// A moment to show instead of the live tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Seq);

/// What the daemon says when the mount is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where it is mounted.
    pub mount_point: String,
    /// Why the volume is read-only although nobody wished so.
    pub trouble: Option<String>,
}

/// Runs as a daemon: says on standard output, in one line, whether the mount is served, and goes on.
pub fn run(state: &State, args: DaemonArgs) -> Result<()> {
    // The terminal that started the mount may close, and its interrupt key is not meant for it.
    rustix::process::setsid().context("starting a session")?;
    // Else the file system of whatever folder this is could not be unmounted.
    std::env::set_current_dir("/").context("/")?;
    let volume = state.volume(&args.name)?;
    let log = daemon_log::Bounded::new(&volume);
    daemon_log::start(move || log.clone());
    let moment = args.seq.map(|seq| Moment(Seq(seq)));
    let mut told = false;
    let outcome = serve(state, &volume, args.dir.as_deref(), moment, &args.habits, |ready| {
        told = true;
        tell(&Ok(ready.clone()))?;
        let null = std::fs::File::options().write(true).open("/dev/null").context("/dev/null")?;
        // The command waits until this end of the pipe is closed.
        rustix::stdio::dup2_stdout(&null).context("standard output")
    });
    match outcome {
        Err(failure) if !told => {
            tell(&Err(failure.clone()))?;
            Err(failure)
        }
        other => other,
    }
}

fn tell(outcome: &std::result::Result<Ready, Failure>) -> Result<()> {
    let text = serde_json::to_string(outcome).map_err(std::io::Error::from).context("standard output")?;
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output")
}

/// Serves a mount until it ends; `ready` is called once it can be used.
pub fn serve(
    state: &State,
    volume: &VolumeFolder,
    dir: Option<&Path>,
    moment: Option<Moment>,
    habits: &Habits,
    ready: impl FnOnce(&Ready) -> Result<()>,
) -> Result<()> {
    // A second call, behind that of `run`, changes nothing.
    daemon_log::start(std::io::stderr);
    // Blocked from here on, so that a signal during the start is not lost.
    let signals = Signals::new([SIGTERM, SIGINT]).context("waiting for signals")?;
    match moment {
        None if follower::is_one(volume)? => follower::serve(volume, dir, habits, signals, ready),
        None => serve_live(state, volume, dir, habits, signals, ready),
        Some(moment) => {
            let dir =
                dir.ok_or_else(|| Failure::new(Kind::Usage, "a moment needs a folder to be mounted on"))?;
            serve_moment(volume, dir, moment, habits, signals, ready)
        }
    }
}

/// What ends a mount.
enum Event {
    /// It was unmounted from outside.
    Ended,
    /// A signal asked the daemon to end.
    Signal,
    /// A command asks; it is answered through this.
    Unmount(Sender<Result<()>>),
}

fn serve_live(
    state: &State,
    folder: &VolumeFolder,
    dir: Option<&Path>,
    habits: &Habits,
    signals: Signals,
    ready: impl FnOnce(&Ready) -> Result<()>,
) -> Result<()> {
    let lock = folder.lock()?;
    let metrics = habits.metrics.map(Metrics::bind).transpose()?;
    let dir = prepare_dir(folder, dir)?;
    let options = Options { read_only: habits.read_only, cache_bytes: habits.cache, ..Options::default() };
    let door = elsewhere::door(folder)?;
    let by_wish = habits.read_only || engine::is_others(folder)?;
    let options = Options { read_only: by_wish, ..options };
    let volume = Arc::new(engine::open_through(door.env.clone(), state, folder, &lock, options)?);
    require_root(folder, &*volume)?;
    if let Some(LeaseEnd(end)) = habits.lease {
        volume.lease().move_end(Some(end)).map_err(|error| lease::failure(&folder.name, error))?;
    }
    let writable = volume.read_only_reason().is_none();
    let seal_every = seal_every(habits.seal_every, folder)?;
    let keeper = Keeper::start(Arc::clone(&volume), seal_every);
    let replicas = Replicas::start(state, &volume, folder, habits.rate, keeper.pace())?;
    let is_lazy = door.far.is_some();
    let room = match writable {
        true => Some(Room::start(state, folder, &volume, &replicas, door.disk.clone())?),
        false => None,
    };
    // What left for want of room comes back when it is read.
    let config = folder.config()?;
    if !config.evicted && config.local_bytes.is_none() {
        start_filling(folder, volume.history(), door)?;
    }

    let (past, history) = (folder.clone(), volume.history());
    let resolver = move |name: &str| resolve(&past, &history, name);
    let mut options = MountOptions { resolver: Some(Arc::new(resolver)), ..mount_options(folder, habits) };
    if is_lazy && habits.threads.is_none() {
        options.threads = LAZY_THREADS;
    }
    let mounted = match fs_fuse::mount(Arc::clone(&volume), &dir, options) {
        Ok(mounted) => Arc::new(mounted),
        Err(error) => {
            // What the journal held is sealed all the same; the mount's failure is what the person asked about.
            if let Err(error) = keeper.stop() {
                tracing::error!(%error, "sealing failed");
            }
            return Err(mounts::failure(&error));
        }
    };
    if dir != folder.data_path() {
        folder.lead_data_to(&dir)?;
    }
    start_linking(folder, volume.history(), is_lazy)?;

    let (tell, events) = mpsc::channel();
    watch(&mounted, signals, &tell)?;
    let server = {
        let live = Arc::new(Live {
            folder: folder.clone(),
            volume: Arc::clone(&volume),
            mounted: Arc::clone(&mounted),
            replicas: Arc::clone(&replicas),
            room,
            pace: keeper.pace(),
            seal_every: habits.seal_every,
            since: jiff::Timestamp::now(),
            read_only_by_wish: by_wish,
        });
        if let Some(metrics) = metrics {
            let live = Arc::clone(&live);
            metrics.serve(folder.name.to_string(), Arc::new(move || live.report()))?;
        }
        let tell = tell.clone();
        let handler: Arc<Handler> = Arc::new(move |request| live.answer(request, &tell));
        Server::start(Address::live(&folder.path), handler)?
    };
    start_writing_out(&mounted)?;
    let pages = Arc::downgrade(&mounted);
    replicas.before_end(move || {
        if let Some(mounted) = pages.upgrade() {
            push_last(&mounted);
        }
    });
    if writable {
        start_pruning(folder, &volume, &replicas)?;
        watch_lease(&volume, &mounted, &replicas)?;
    }

    let head = volume.head();
    tracing::info!(seq = %head.seq, dir = %dir.display(), "mounted volume {}", folder.name);
    let trouble = volume.status().read_only.filter(|_| !by_wish);
    ready(&Ready { mount_point: text(&dir), trouble })?;

    let asked = wait_for_end(&mounted, &events);
    tracing::info!("unmounted, sealing");
    if writable && volume.lease().is_over() {
        end_with_lease(&volume, &replicas);
    }
    let sealed =
        keeper.stop().map_err(|error| engine::fs_failure(format!("sealing \"{}\"", folder.name), &error));
    // What was read-only from the beginning took no changes that somebody could miss.
    if let Ok(()) = sealed
        && writable
    {
        part_with_stores(&replicas, &volume);
    }
    let sealed = sealed.and_then(|()| if writable { refuse_silence(folder, &volume) } else { Ok(()) });
    if let Err(failure) = &sealed {
        tracing::error!("{}", failure.message);
    }
    if let Err(failure) = folder.own_data() {
        tracing::warn!("{}", failure.message);
    }
    // Whoever asked when that had begun waits for the same.
    end(asked.into_iter().chain(asked_since(&events)), sealed, server, lock)
}

fn serve_moment(
    folder: &VolumeFolder,
    dir: &Path,
    Moment(seq): Moment,
    habits: &Habits,
    signals: Signals,
    ready: impl FnOnce(&Ready) -> Result<()>,
) -> Result<()> {
    let lock = folder.lock_as_view()?;
    let history = engine::history_through(elsewhere::door(folder)?.env, folder)?;
    let view = history.at(seq).map_err(|error| engine::open_failure(folder, &error))?;
    require_root(folder, &view)?;
    let seal = view.info().clone();
    let options = MountOptions { read_only: true, ..mount_options(folder, habits) };
    let mounted = match follower::is_one(folder)? {
        true => {
            let kept = follower::moment(folder, &elsewhere::door(folder)?, view)?;
            fs_fuse::mount(Arc::new(Still::new(kept, seal.bytes, seal.files)), dir, options)
        }
        false => fs_fuse::mount(Arc::new(Still::new(view, seal.bytes, seal.files)), dir, options),
    };
    let mounted = Arc::new(mounted.map_err(|error| mounts::failure(&error))?);

    let (tell, events) = mpsc::channel();
    watch(&mounted, signals, &tell)?;
    let report = MountReport { moment: Some(seq.0), ..sealed_report(dir, &seal) };
    let handler: Arc<Handler> = Arc::new(move |request| match request {
        Request::Status => to_json(&MountReport { damage: history.damage(), ..report.clone() }),
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
        | Request::Prune { .. } => {
            Err(Failure::new(Kind::NotPermitted, "a moment of the past cannot be changed"))
        }
    });
    let server = Server::start(Address::view(&folder.path, std::process::id()), handler)?;
    tracing::info!(%seq, dir = %dir.display(), "mounted a moment of volume {}", folder.name);
    ready(&Ready { mount_point: text(dir), trouble: None })?;

    let asked = wait_for_end(&mounted, &events);
    tracing::info!("unmounted");
    end(asked.into_iter().chain(asked_since(&events)), Ok(()), server, lock)
}

/// What is told of a mount that shows what is sealed, and takes no changes.
fn sealed_report(dir: &Path, seal: &SealInfo) -> MountReport {
    MountReport {
        mount_point: text(dir),
        mount_point_hex: hex_unless_text(dir),
        pid: std::process::id(),
        since: jiff::Timestamp::now().to_string(),
        moment: None,
        ending: false,
        read_only: true,
        trouble: None,
        lease: None,
        damage: Vec::new(),
        seal_error: None,
        sealed: true,
        dirty_bytes: 0,
        journal_bytes: 0,
        seals: 0,
        seal_seconds: 0.0,
        head: SealReport::from(seal),
        stores: Vec::new(),
        room: None,
    }
}

/// Without its root nothing of a volume can be shown: better to say why than to mount errors.
fn require_root(folder: &VolumeFolder, tree: &dyn ReadTree) -> Result<()> {
    let root = tree.attr(Ino::ROOT).map(drop);
    root.map_err(|error| engine::fs_failure(format!("the root of volume \"{}\"", folder.name), &error))
}

/// A volume that turned read-only is not sealed; whoever unmounts it must learn that the journal holds more.
fn refuse_silence(folder: &VolumeFolder, volume: &Volume) -> Result<()> {
    let status = volume.status();
    match status.read_only {
        Some(reason) if !status.is_sealed => Err(Failure::new(
            Kind::NotPermitted,
            format!("volume \"{}\" is unmounted, but not sealed: {reason}", folder.name),
        )
        .hint("what was synced is safe in the journal; the next mount takes it up from there")),
        _ => Ok(()),
    }
}

/// Answers whoever asked for the end, last of all.
fn end(
    asked: impl Iterator<Item = Sender<Result<()>>>,
    outcome: Result<()>,
    server: Server,
    lock: impl Sized,
) -> Result<()> {
    server.close();
    drop(lock);
    for asked in asked {
        // The command may have gone away; the volume is sealed nevertheless.
        let _ = asked.send(outcome.clone());
    }
    server.drain();
    drop(server);
    outcome
}

/// Those who asked for the end while the daemon was ending.
fn asked_since(events: &Receiver<Event>) -> impl Iterator<Item = Sender<Result<()>>> {
    events.try_iter().filter_map(|event| match event {
        Event::Unmount(asked) => Some(asked),
        Event::Ended | Event::Signal => None,
    })
}

/// The folder to mount on, free of what a dead daemon left.
fn prepare_dir(folder: &VolumeFolder, dir: Option<&Path>) -> Result<PathBuf> {
    let data = folder.data_path();
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => {
            if fs_fuse::is_dead(&data) && mounts::source_of(&data)?.is_some() {
                // The lock is ours, so its daemon is gone.
                mounts::unmount(&data, Detach::Lazily)?;
            }
            folder.own_data()?;
            data
        }
    };
    mounts::check_mount_point(&dir)?;
    dir.canonicalize().context(dir.display())
}

fn mount_options(folder: &VolumeFolder, habits: &Habits) -> MountOptions {
    let defaults = MountOptions::default();
    MountOptions {
        read_only: habits.read_only,
        writeback: defaults.writeback && !habits.no_writeback,
        allow_other: defaults.allow_other || habits.allow_other,
        threads: habits.threads.map_or(defaults.threads, usize::from),
        fs_name: folder.mount_source(),
        ..defaults
    }
}

/// Finds what a name in `.snapshots` means; the same forms as everywhere.
fn resolve(folder: &VolumeFolder, history: &History, name: &str) -> Option<Seq> {
    let when = When::parse(name, &engine::now()).ok()?;
    Some(engine::find(folder, history, &when).ok()?.info().seq)
}

/// Links snapshots before the mount is ready, or beside it where their records must be fetched first.
fn start_linking(folder: &VolumeFolder, history: History, is_lazy: bool) -> Result<()> {
    if !is_lazy {
        link_snapshots(folder, &history);
        return Ok(());
    }
    let folder = folder.clone();
    std::thread::Builder::new()
        .name("snapshots".into())
        .spawn(move || link_snapshots(&folder, &history))
        .map(drop)
        .context("starting a thread")
}

/// Makes `snapshots/UUID` for snapshots that were taken while no daemon ran. Only a convenience.
fn link_snapshots(folder: &VolumeFolder, history: &History) {
    let labels = history.seals().unwrap_or_default().into_iter().filter_map(|seal| seal.snapshot);
    for label in labels {
        if let Err(failure) = folder.link_snapshot(&label.id.to_uuid()) {
            tracing::warn!("{}", failure.message);
            return;
        }
    }
}

/// Turns signals and the end of the mount into events.
fn watch(mounted: &Arc<Mounted>, mut signals: Signals, tell: &Sender<Event>) -> Result<()> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).map(drop).context("starting a thread")
    };
    // Nobody listens any more once the daemon is ending: then there is nothing to tell.
    let (to_signal, to_end) = (tell.clone(), tell.clone());
    spawn(
        "signals",
        Box::new(move || {
            for _ in signals.forever() {
                let _ = to_signal.send(Event::Signal);
            }
        }),
    )?;
    let mounted = Arc::clone(mounted);
    spawn(
        "mount-end",
        Box::new(move || {
            if let Err(error) = mounted.wait() {
                tracing::error!(%error, "the mount ended with an error");
            }
            let _ = to_end.send(Event::Ended);
        }),
    )
}

/// Every second, lets the kernel write out what it holds dirty, so that little is lost with the machine.
fn start_writing_out(mounted: &Arc<Mounted>) -> Result<()> {
    let mounted = Arc::clone(mounted);
    let write_out = move || {
        while !mounted.has_ended() {
            std::thread::sleep(WRITE_OUT_EVERY);
            mounted.begin_writing_dirty_pages();
        }
    };
    std::thread::Builder::new()
        .name("write-out".into())
        .spawn(write_out)
        .map(drop)
        .context("starting a thread")
}

/// Drops what the policy does not keep, if there is one, for as long as the volume is mounted.
fn start_pruning(folder: &VolumeFolder, volume: &Arc<Volume>, replicas: &Arc<Replicas>) -> Result<()> {
    let (folder, volume, replicas) = (folder.clone(), Arc::downgrade(volume), Arc::downgrade(replicas));
    let prune = move || {
        std::thread::sleep(FIRST_PRUNE_AFTER);
        while let (Some(volume), Some(replicas)) = (volume.upgrade(), replicas.upgrade()) {
            if let Ok(Some(_)) = volume.policy() {
                let pruned = retention::pinned(&folder).and_then(|pinned| {
                    let how = (GRACE, Compaction::default());
                    retention::prune(&folder, &volume, &replicas, &pinned, how, STORES_WAIT)
                });
                match pruned {
                    Ok(report) => tracing::info!(
                        dropped = report.dropped.len(),
                        kept = report.kept,
                        removed = report.removed.bytes,
                        moved = report.compacted.copied_bytes,
                        "pruned"
                    ),
                    Err(failure) => tracing::warn!("pruning failed: {}", failure.message),
                }
            }
            drop((volume, replicas));
            std::thread::sleep(PRUNE_EVERY);
        }
    };
    std::thread::Builder::new().name("prune".into()).spawn(prune).map(drop).context("starting a thread")
}

/// Waits for the end of the lease. Changes are refused from then on by themselves; what is done here is to let `write` know where
/// the kernel answers it, and to seal what was changed before.
fn watch_lease(volume: &Arc<Volume>, mounted: &Arc<Mounted>, replicas: &Arc<Replicas>) -> Result<()> {
    let lease = Arc::clone(volume.lease());
    let (volume, mounted, replicas) =
        (Arc::downgrade(volume), Arc::downgrade(mounted), Arc::downgrade(replicas));
    let watch = move || {
        lease.wait_for_end();
        // Whoever unmounts meanwhile does the rest.
        if let Some(mounted) = mounted.upgrade() {
            mounted.time_is_over();
        }
        if let (Some(volume), Some(replicas)) = (volume.upgrade(), replicas.upgrade()) {
            end_with_lease(&volume, &replicas);
        }
    };
    std::thread::Builder::new().name("lease".into()).spawn(watch).map(drop).context("starting a thread")
}

/// Sends nothing any more, and seals what was changed before the end: should another device go on, it becomes a branch.
fn end_with_lease(volume: &Volume, replicas: &Replicas) {
    replicas.end_with_lease();
    if let Err(error) = volume.end_writing(LEASE_OVER) {
        tracing::error!(%error, "the last changes are not sealed; the journal keeps them");
    }
}

/// Waits until nothing is mounted any more; returns who is to be told when all is sealed.
fn wait_for_end(mounted: &Mounted, events: &Receiver<Event>) -> Option<Sender<Result<()>>> {
    loop {
        match events.recv() {
            Ok(Event::Ended) | Err(_) => return None,
            Ok(Event::Unmount(asked)) => match mounted.unmount() {
                Ok(()) => return Some(asked),
                // The mount ended, if not well.
                Err(_) if mounted.has_ended() => return Some(asked),
                Err(error) => {
                    let _ = asked.send(Err(mounts::failure(&error)));
                }
            },
            Ok(Event::Signal) => {
                tracing::info!("asked to end by a signal");
                if let Err(error) = unmount_patiently(mounted, events) {
                    tracing::warn!(%error, "detaching the mount from those who use it");
                    detach(mounted);
                }
                return None;
            }
        }
    }
}

/// Unmounts, and gives those who use the mount a moment to finish.
fn unmount_patiently(mounted: &Mounted, events: &Receiver<Event>) -> std::result::Result<(), MountError> {
    let deadline = Instant::now() + USERS_WAIT;
    loop {
        match mounted.unmount() {
            Err(MountError::Busy(_)) if Instant::now() < deadline => {}
            outcome => return outcome,
        }
        // A second signal is as good as the first; a command is told by the closed connection.
        let _ = events.recv_timeout(USERS_LOOK_EVERY);
    }
}

/// Takes the mount from those who use it. What they wrote before is in the engine then.
fn detach(mounted: &Mounted) {
    // Before, since afterwards no path leads to the mount; the pusher keeps what it found.
    push_last(mounted);
    if let Err(error) = mounted.detach() {
        tracing::error!(%error, "the mount stays");
    }
    push_last(mounted);
}

fn push_last(mounted: &Mounted) {
    match mounted.push_dirty_pages(LAST_PUSH_PATIENCE) {
        // Without root there is no writeback cache, and nothing is held back.
        Ok(()) | Err(PushError::NotPermitted) => {}
        Err(_) if mounted.has_ended() => {}
        Err(error) => tracing::error!(%error, "what was written last could not be collected"),
    }
}

/// What requests to a live mount work on.
struct Live {
    folder: VolumeFolder,
    volume: Arc<Volume>,
    mounted: Arc<Mounted>,
    replicas: Arc<Replicas>,
    /// Of a volume that is written here.
    room: Option<Arc<Room>>,
    pace: SealPace,
    /// How often somebody wished it sealed.
    seal_every: Option<Duration>,
    since: jiff::Timestamp,
    read_only_by_wish: bool,
}

/// Fetches in the background what is not here.
fn start_filling(folder: &VolumeFolder, history: History, door: Door) -> Result<Option<JoinHandle<()>>> {
    let Some(far) = door.far else { return Ok(None) };
    let (folder, room) = (folder.clone(), room_or_log(&folder.path));
    Ok(Some(stores::handle()?.spawn(async move {
        // Pages of the pack table lie in the store, too, and no mount waits for them.
        let packs = match tokio::task::spawn_blocking(move || engine::packs(&folder, &history)).await {
            Ok(Ok(packs)) => packs,
            Ok(Err(failure)) => return tracing::error!("nothing is fetched ahead: {}", failure.message),
            Err(error) => return tracing::error!(%error, "nothing is fetched ahead"),
        };
        let filled = far.fill(packs, room).await;
        tracing::info!(packs = filled.packs, bytes = filled.bytes, "what can be had of the volume is here");
        for missing in filled.missing {
            tracing::error!("the store lacks a pack: {missing}");
        }
    })))
}

/// Room for what is fetched; that it is missing is worth a line in the log, each time it begins to be.
fn room_or_log(folder: &Path) -> RoomToFill {
    let (room, was_full) = (lazy_disk::room(folder), AtomicBool::new(false));
    Arc::new(move |bytes| {
        let fits = room(bytes);
        if !was_full.swap(!fits, Ordering::Relaxed) && !fits {
            tracing::warn!("nothing is fetched ahead while so little is free on the disk");
        }
        fits
    })
}

/// How often what changed is sealed: as somebody wished, else by whether it goes anywhere.
fn seal_every(wish: Option<Duration>, folder: &VolumeFolder) -> Result<Option<Duration>> {
    let usual = if folder.config()?.stores.is_empty() { SEAL_EVERY } else { SEND_EVERY };
    Ok(Some(wish.unwrap_or(usual)).filter(|span| !span.is_zero()))
}

/// How often what changed is sealed that goes to no store, if nobody says otherwise.
const SEAL_EVERY: Duration = Duration::from_secs(60);

/// How long an unmount waits for the stores to get the last seal.
const LAST_SEND: Duration = Duration::from_secs(30);

/// Brings the last seal to the stores, if they take it soon. What is left goes with the next mount, or `comb sync`.
fn part_with_stores(replicas: &Replicas, volume: &Volume) {
    replicas.hurry();
    if let Err(failure) = replicas.wait(volume.head().seq, LAST_SEND, &mut |_| {}) {
        tracing::error!("{}", failure.message);
    }
    replicas.note_seen();
}

impl Live {
    fn answer(&self, request: Request, tell: &Sender<Event>) -> Result<serde_json::Value> {
        match request {
            Request::Status => to_json(&self.report()),
            Request::Seal => self.seal(None),
            Request::Sync => {
                let seal = self.seal(None)?;
                self.replicas.confirm()?;
                Ok(seal)
            }
            Request::Reload => {
                self.pace.set(seal_every(self.seal_every, &self.folder)?);
                let restarted = self.replicas.restart();
                if let Some(room) = &self.room {
                    room.stores_changed();
                }
                restarted.map(|()| serde_json::Value::Null)
            }
            Request::Look => {
                self.replicas.hurry();
                Ok(serde_json::Value::Null)
            }
            Request::Snapshot { message, tags } => self.seal(Some(new_label(message, tags))),
            Request::Retain { policy } => self.retain(policy.as_deref()),
            Request::Prune { grace_seconds, pinned } => {
                let pinned: Vec<Seq> = pinned.into_iter().map(Seq).collect();
                let grace = Duration::from_secs(grace_seconds);
                to_json(&retention::prune(
                    &self.folder,
                    &self.volume,
                    &self.replicas,
                    &pinned,
                    (grace, Compaction::default()),
                    STORES_WAIT,
                )?)
            }
            Request::Lease { end_boottime_ms } => self.lease(Some(Duration::from_millis(end_boottime_ms))),
            Request::NoLease => self.lease(None),
            Request::CheckJournal => to_json(&self.volume.check_journal()),
            Request::Unmount => ask_for_end(tell),
        }
    }

    fn lease(&self, end: Option<Duration>) -> Result<serde_json::Value> {
        let lease = self.volume.lease();
        lease.move_end(end).map_err(|error| lease::failure(&self.folder.name, error))?;
        to_json(&LeaseReport::of(lease))
    }

    /// Refuses what would change a volume that another device writes, and says what to do.
    fn refuse_others(&self) -> Result<()> {
        let name = &self.folder.name;
        let noticed = notes::ended(&self.folder).ok().flatten().map(|ended| ended.told());
        let noticed = noticed.filter(|_| name.branch().is_none());
        let why = self.volume.read_only_reason().filter(|why| why.starts_with(TAKEN_OVER)).or(noticed);
        match why {
            Some(why) => {
                let dir = text(self.mounted.path());
                let what = format!("volume \"{name}\" is read-only: {why}");
                Err(Failure::new(Kind::NotPermitted, what).hint(engine::way_on(name, Some(&dir))))
            }
            None => engine::refuse_others(&self.folder),
        }
    }

    fn retain(&self, policy: Option<&str>) -> Result<serde_json::Value> {
        self.refuse_others()?;
        let parse =
            |text: &str| Policy::parse(text).map_err(|error| Failure::new(Kind::Usage, error.to_string()));
        let policy = policy.map(parse).transpose()?;
        to_json(&retention::set(&self.folder.name.to_string(), &self.volume, policy.as_ref())?)
    }

    fn report(&self) -> MountReport {
        let status = self.volume.status();
        MountReport {
            mount_point: text(self.mounted.path()),
            mount_point_hex: hex_unless_text(self.mounted.path()),
            pid: std::process::id(),
            since: self.since.to_string(),
            moment: None,
            ending: self.mounted.has_ended(),
            read_only: status.read_only.is_some(),
            trouble: status.read_only.filter(|_| !self.read_only_by_wish),
            lease: LeaseReport::of(self.volume.lease()),
            damage: status.damage,
            seal_error: status.seal_error,
            sealed: status.is_sealed,
            dirty_bytes: status.dirty_bytes,
            journal_bytes: status.journal_bytes,
            seals: status.seals,
            seal_seconds: status.seal_time.as_secs_f64(),
            head: SealReport::from(&status.head),
            stores: self.replicas.reports(),
            room: self.room.as_ref().and_then(|room| room.report()),
        }
    }

    fn seal(&self, label: Option<SnapshotLabel>) -> Result<serde_json::Value> {
        if self.volume.lease().is_over() {
            let what = format!("volume \"{}\" is read-only: {LEASE_OVER}", self.folder.name);
            return Err(Failure::new(Kind::NotPermitted, what));
        }
        self.refuse_others()?;
        match self.mounted.push_dirty_pages(PUSH_PATIENCE) {
            // Without root there is no writeback cache, and nothing is held back.
            Ok(()) | Err(PushError::NotPermitted) => {}
            Err(error) => {
                return Err(Failure::other(format!("what was written could not be collected: {error}")));
            }
        }
        let seal = self.volume.seal_timed(label).map_err(|error| {
            let failure = engine::fs_failure("sealing", &error);
            match self.volume.read_only_reason().filter(|_| failure.kind == Kind::NotPermitted) {
                Some(why) => Failure {
                    message: format!("volume \"{}\" is read-only: {why}", self.folder.name),
                    ..failure
                },
                None => failure,
            }
        })?;
        to_json(&SealReport::from(&seal))
    }
}

/// A label with a new uuid.
pub fn new_label(message: String, tags: Vec<String>) -> SnapshotLabel {
    SnapshotLabel { id: SnapshotId(uuid::Uuid::new_v4().into_bytes()), message, tags }
}

fn ask_for_end(tell: &Sender<Event>) -> Result<serde_json::Value> {
    let (asked, outcome) = mpsc::channel();
    let ending = || {
        Failure::new(Kind::InTheWay, "the volume is unmounted, and its daemon is ending already")
            .hint("`comb status` shows how the volume is; its last words are in the file `log` of the volume's folder")
    };
    tell.send(Event::Unmount(asked)).map_err(|_| ending())?;
    outcome.recv().map_err(|_| ending())?.map(|()| serde_json::Value::Null)
}

fn to_json<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Failure::other(error.to_string()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
