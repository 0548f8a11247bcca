//! The daemon: drives what is decided with the doors.
//!
//! One task owns the [`Device`] and hands it events in their order; what it answers is done here. Records are written
//! before anything that follows them. Steps of an app run beside each other for different apps, and never two of one app:
//! a later step ends the one before, as a crash would, and waits until it is gone.
//!
//! - `enrol`     how a machine becomes a device
//! - `files`     what is kept beside records
//! - `loaded`    packages that are here, opened, and what compose made of them
//! - `steps`     what an app's phases ask for
//! - `start`     the checks before a container starts, and the gate
//! - `watch`     containers, mounts and Docker while apps run
//! - `talk`      hello, reports, commands and results
//! - `orders`    commands that no record decides about
//! - `results`   what came of those
//! - `moments`   all volumes of an app at one instant, and what there is to go back to
//! - `forget`    an app leaves this device
//! - `report`    what is told, from what was seen last
//! - `socket`    people at this machine
//! - `facts`     figures of the machine
//! - `clocks`    whether its clocks can be believed
//! - `room`      what is told of a disk that is full
//! - `doctor`    all that was looked at, in words
//! - `history`   what happened, a line each
//! - `fork`      a new app of another's moment
//! - `page`      what is in volumes, for a browser that this device let in itself
//! - `author`    packages that the hive may have sealed here
//! - `update`    another program for the device itself
//! - `revoked`   what goes when the hive wants nothing more of it, and what stays

mod author;
mod clocks;
pub mod doctor;
pub mod enrol;
mod facts;
pub mod files;
mod forget;
mod fork;
mod history;
mod loaded;
mod moments;
mod orders;
mod page;
mod report;
mod results;
mod revoked;
mod room;
pub mod socket;
mod start;
mod steps;
mod streams;
pub mod talk;
#[cfg(test)]
mod tests;
mod update;
mod watch;

pub use revoked::Wiped;
pub use steps::Marker;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fs_crypto::Identity;
use orchestrator_api::ids::{AppId, RunId, SessionId, Term};
use orchestrator_api::placement::Phase;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use self::files::{AppFile, Folder, HiveFile, Rollback};
use self::loaded::Loaded;
use crate::app::gate::Watch;
use crate::doors::compose::Compose;
use crate::doors::disk::Files;
use crate::doors::docker::{Container, Docker, State, Usage};
use crate::doors::hive::Hive;
use crate::doors::past::Past;
use crate::doors::ring::Rings;
use crate::doors::volumes::{Branch, VolumeState, Volumes};
use crate::doors::{clock, ring};
use crate::record::Record;
use crate::trouble::Trouble;
use crate::{Boottime, Device, Effect, Event, Found, Step, decide};

/// The loop looks at the clock at least this often: a sleep does not count while the machine is asleep.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Before it begins again from what is on the disk.
const BEGIN_AGAIN: Duration = Duration::from_secs(5);

/// What a device is made of.
pub struct Setup {
    /// The state folder of `comb`.
    pub state: PathBuf,
    /// Where the files of apps lie, for people to read.
    pub apps: PathBuf,
    /// Docker's socket.
    pub docker: PathBuf,
    /// The filesystem's commands.
    pub volumes: Arc<dyn Volumes>,
    /// The past of volumes, for the page.
    pub past: Arc<dyn Past>,
    /// Changes the ring of this machine.
    pub rings: Arc<dyn Rings>,
    /// The program's version.
    pub version: String,
    /// Random bytes.
    pub chance: fn() -> [u8; 32],
    /// Whether somebody starts it again as another program when it ends for that.
    pub takes_updates: bool,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It has no hive yet.
    #[error("this machine is no device yet: `comb device join HIVE --code …` makes it one")]
    NotJoined,
    /// The hive wants nothing more of it.
    #[error("the hive has revoked this device: its apps are stopped; {0}")]
    Revoked(Wiped),
    /// It is to be started again, as the program that is in its place now.
    #[error("another program takes over")]
    Replaced,
    /// Its folder cannot be used.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// Its hive cannot be spoken to at all.
    #[error("{0}")]
    Hive(#[from] crate::doors::hive::HiveError),
}

/// The doors, and what was seen through them last.
struct World {
    setup: Setup,
    folder: Folder,
    hive_file: Mutex<HiveFile>,
    hive: Hive,
    docker: Docker,
    compose: Compose,
    events: UnboundedSender<Event>,
    history: history::History,
    apps: Mutex<BTreeMap<AppId, AppState>>,
    seen: Mutex<Seen>,
    results: results::Results,
    /// Who writes what is known of an app: one after the other.
    writes: Mutex<()>,
    begun: Boottime,
    /// How often Docker's events ended, as they do when it does.
    docker_ends: AtomicU64,
    /// Another program is in this one's place.
    replaced: Notify,
    page: page::Page,
    /// When parts of streams may go.
    parts: streams::Pace,
}

/// What is known of an app beside its record.
#[derive(Default)]
struct AppState {
    record: Option<Record>,
    phase_at: Boottime,
    file: AppFile,
    loaded: Option<Arc<Loaded>>,
    trouble: Option<Trouble>,
    step: String,
    watch: Watch,
    containers: Vec<Container>,
    /// Whether this process has looked at them since it began, or brought the app up: until then nobody knows how it is.
    is_looked_at: bool,
    /// Whether containers stand still though no moment is being taken, and do not go on.
    stands_still: bool,
    usage: BTreeMap<String, (Usage, u64)>,
    branches: Vec<(String, Branch)>,
    missing_bytes: Option<u64>,
    /// Whether a prepare fetches everything.
    fill: bool,
    /// The moments that the next mount goes back to, in the term in which that was ordered and in no other.
    rollback: Option<GoBack>,
    /// How often the app began to run, as its records said: who has it begin again waits for the next time.
    runs: u64,
    /// Whether this process began the update that is under way; one that another process began goes back.
    updating: bool,
    /// Why an update went back.
    went_back: Option<Trouble>,
    seen_heads: Vec<orchestrator_api::wire::command::Seen>,
    address: Option<String>,
    /// The last of its commands that is being made ready; the next one waits for it.
    commands: Option<JoinHandle<()>>,
    task: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    wake: Arc<Notify>,
    hands: Arc<tokio::sync::Mutex<()>>,
}

/// What is gone back to before an app is started again.
struct GoBack {
    term: Term,
    rollback: Rollback,
}

/// What was seen of the machine last.
#[derive(Default)]
struct Seen {
    session: Option<SessionId>,
    /// Whether the hive took this device for locked at its last hello.
    is_locked: bool,
    polls: Option<SessionId>,
    docker: Option<orchestrator_api::wire::report::Docker>,
    /// Docker's own folder, as it said last.
    docker_root: Option<PathBuf>,
    volumes: Vec<VolumeState>,
    load: Option<orchestrator_api::wire::report::Load>,
    online: Option<Boottime>,
    damaged: Vec<AppId>,
    /// Whether what was written down last found no room but that which is kept for it.
    is_short: bool,
    clocks: clocks::Clocks,
    commands_have: u64,
    answer: String,
    /// When the hive answered a report of this process.
    reported: Option<Boottime>,
    /// The release that is being fetched.
    updating: Option<u64>,
}

/// Runs the device until it is ended; does not return by itself unless it is no device any more.
pub async fn run(setup: Setup) -> Result<(), Ended> {
    let folder = Folder::of(&setup.state);
    let (Some(identity), Some(hive_file)) = (folder.identity()?, folder.hive()?) else {
        return Err(Ended::NotJoined);
    };
    let (events, mut inbox) = unbounded_channel();
    let world = World::new(setup, folder, hive_file, identity, events)?;
    let world = Arc::new(world);
    let helpers = [
        tokio::spawn(watch::machine(world.clone())),
        tokio::spawn(watch::docker_events(world.clone())),
        tokio::spawn(watch::volumes(world.clone())),
        tokio::spawn(socket::serve(world.clone())),
        tokio::spawn(update::watch(world.clone())),
    ];
    let ended = loop {
        let life = async {
            tokio::select! {
                ended = world.live(&mut inbox) => ended,
                () = world.replaced.notified() => Err(Ended::Replaced),
            }
        };
        match life.await {
            Ok(()) => break Ok(()),
            Err(Ended::Disk(error)) => {
                // What cannot be written down is not done: it begins again from what is on the disk.
                tracing::error!(%error, "a record cannot be written");
                world.note_room(true);
                tokio::time::sleep(BEGIN_AGAIN).await;
            }
            Err(ended) => break Err(ended),
        }
    };
    helpers.iter().for_each(JoinHandle::abort);
    world.page.close();
    ended
}

impl World {
    fn new(
        setup: Setup,
        folder: Folder,
        hive_file: HiveFile,
        identity: Identity,
        events: UnboundedSender<Event>,
    ) -> Result<Self, Ended> {
        let hive = Hive::new(&hive_file.url, hive_file.key.0, Some(hive_file.device), identity)?;
        let device = hive_file.device;
        let docker = Docker::new(&setup.docker, device);
        let compose = Compose::new(&setup.docker, folder.0.join("home"));
        Ok(Self {
            docker,
            compose,
            hive,
            hive_file: Mutex::new(hive_file),
            events,
            apps: Mutex::default(),
            seen: Mutex::default(),
            results: results::Results::read(&folder.0),
            writes: Mutex::default(),
            begun: clock::boottime(),
            history: history::History::new(&folder.0, device),
            docker_ends: AtomicU64::new(0),
            replaced: Notify::new(),
            page: page::Page::default(),
            parts: streams::Pace::default(),
            folder,
            setup,
        })
    }

    /// From what is on the disk on.
    async fn live(self: &Arc<Self>, inbox: &mut UnboundedReceiver<Event>) -> Result<(), Ended> {
        // What a life before this one began is ended, and what it still says is not heard.
        for state in self.apps.lock().values_mut() {
            [state.task.take(), state.watcher.take()].into_iter().flatten().for_each(|task| task.abort());
            state.is_looked_at = false;
        }
        self.seen.lock().polls = None;
        while inbox.try_recv().is_ok() {}
        let mut files = Files::new(&self.folder.0)?;
        let (disk, damaged) = files.load()?;
        self.seen.lock().damaged = damaged;
        for (app, record) in &disk.apps {
            self.take_up(*app, record);
        }
        let found = self.find(&disk).await;
        let run = RunId((self.setup.chance)()[..16].try_into().expect("32 bytes have 16"));
        let device = self.hive_file.lock().device;
        let (mut device, effects) = Device::begin(device, disk, run, &found, clock::boottime());
        self.perform(effects, &mut files)?;
        for (app, phase) in device.disk.apps.iter().map(|(app, record)| (*app, record.phase)) {
            if phase == Phase::Running {
                self.watch_app(app);
            }
        }
        loop {
            let wait = clock::until(device.wakes_at()).min(LOOK_EVERY).max(Duration::from_millis(1));
            let event = match tokio::time::timeout(wait, inbox.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(_) => Event::Tick,
            };
            if let Event::Done { done: crate::Done::Published { heads, .. }, .. } = &event {
                self.history.write(history::of_published(heads));
            }
            let effects = decide(&mut device, event, clock::boottime());
            self.perform(effects, &mut files)?;
            if device.is_revoked() && !device.disk.apps.values().any(|record| record.phase.is_live()) {
                let wiped = self.wipe()?;
                tracing::warn!(keys_kept_of = ?wiped.kept, "revoked");
                return Err(Ended::Revoked(wiped));
            }
        }
    }

    /// Takes up what is on the disk of an app.
    fn take_up(&self, app: AppId, record: &Record) {
        let file = self.folder.read_app(app).ok().flatten().unwrap_or_default();
        let is_ours = self.app(app, |state| {
            state.file.clone_from(&file);
            (state.record, state.phase_at) = (Some(record.clone()), clock::boottime());
            state.updating
        });
        // An update is written down while the old revision runs, and it is over before the new one is said to run: what runs
        // is the old one, which was not even stopped. Nothing has to go back.
        if let (Phase::Running, Some(update), false) = (record.phase, &file.update, is_ours) {
            let file = AppFile { ended: Some(update.went_back(None)), ..file.without_update() };
            if let Err(trouble) = self.write_file(app, file.clone()) {
                // The next process finds it as this one did.
                tracing::warn!(%app, problem = ?trouble, "that an update did not begin cannot be written down");
                self.app(app, |state| state.file = file);
            }
        }
    }

    /// What a former process left.
    async fn find(&self, disk: &crate::Disk) -> Found {
        let mut found = Found { docker: self.docker.ping().await.is_ok(), ..Found::default() };
        let states = self.setup.volumes.states().await.unwrap_or_default();
        for (app, record) in &disk.apps {
            let mounts: Option<Vec<Option<Boottime>>> = record
                .volumes
                .keys()
                .map(|volume| {
                    let mount = states.iter().find(|one| one.volume == *volume)?.mount.as_ref()?;
                    (!mount.ending).then_some(mount.lease)
                })
                .collect();
            if let Some(leases) = mounts.filter(|_| !record.volumes.is_empty()) {
                // All of them have one, or none counts.
                let earliest = if leases.iter().all(Option::is_some) {
                    leases.into_iter().flatten().min()
                } else {
                    None
                };
                found.mounted.insert(*app, earliest);
            }
            let containers = self.docker.containers(Some(*app)).await.unwrap_or_default();
            // One that stands still for a moment that nobody takes any more is let go on by whoever watches it.
            let lives = |one: &&Container| matches!(one.state, State::Running | State::Paused);
            if let Some(one) = containers.iter().find(lives) {
                found.containers.insert(*app, one.term);
            }
        }
        self.seen.lock().volumes = states;
        found
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>, files: &mut Files) -> Result<(), Ended> {
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            if let Effect::Lease { app, end }
            | Effect::Begin { app, what: Step::Mount { lease: end @ Some(_), .. }, .. } = &effect
            {
                let term = self.app(*app, |state| state.record.as_ref().map(|record| record.term));
                let lease = |term| orchestrator_api::history::What::Lease { app: *app, term, end_ms: *end };
                self.history.write(term.map(lease));
            }
            match effect {
                Effect::WriteIdentity(identity) => {
                    files.write_identity(&identity)?;
                    self.note_room(files.is_short());
                }
                Effect::WriteRecord { record, reserved } => {
                    files.write_record(&record, reserved)?;
                    self.note_room(files.is_short());
                    self.recorded(*record);
                }
                Effect::RemoveRecord(app) => {
                    self.end_app(app);
                    if let Err(error) = files.forget(app) {
                        tracing::warn!(%app, %error, "something of an app that was forgotten stays");
                    }
                }
                Effect::Hello(hello) => self.spawn(|world| world.hello(hello)),
                Effect::Report(session, report) => self.spawn(move |world| world.report(session, report)),
                Effect::Poll(session, _) => self.poll(session),
                Effect::Result(session, result) => self.spawn(move |world| world.result(session, result)),
                Effect::Prepare { app, volumes } => self.spawn(move |world| world.prepare(app, volumes)),
                Effect::Lease { app, end } => {
                    self.spawn(move |world| async move { world.lease(app, end).await })
                }
                Effect::Begin { app, step, what: Step::Claim(volume, expect) } => {
                    // Claims of one step go on beside each other.
                    let mut claims = vec![(volume, expect)];
                    while let Some(Effect::Begin { what: Step::Claim(volume, expect), .. }) =
                        effects.next_if(|next| is_claim(next, app, step))
                    {
                        claims.push((volume, expect));
                    }
                    self.begin(
                        app,
                        step,
                        move |world| async move { world.claim_all(app, step, claims).await },
                    );
                }
                Effect::Begin { app, step, what } => {
                    self.begin(app, step, move |world| async move {
                        let done = world.step(app, what).await;
                        let _ = world.events.send(Event::Done { app, step, done });
                    });
                }
            }
        }
        Ok(())
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, task: impl FnOnce(Arc<World>) -> F) {
        tokio::spawn(task(self.clone()));
    }

    /// Begins a step of an app: what is under way is ended first, and waited for.
    fn begin<F>(self: &Arc<Self>, app: AppId, step: u64, task: impl FnOnce(Arc<World>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut apps = self.apps.lock();
        let state = apps.entry(app).or_default();
        let former = state.task.take();
        former.iter().for_each(JoinHandle::abort);
        let world = self.clone();
        state.task = Some(tokio::spawn(async move {
            if let Some(former) = former {
                let _ = former.await;
            }
            tracing::debug!(%app, step, "begins");
            task(world).await;
        }));
    }

    /// A record is on the disk: from here on it is what this process knows.
    fn recorded(self: &Arc<Self>, record: Record) {
        let mut apps = self.apps.lock();
        let state = apps.entry(record.app).or_default();
        self.history.record(state.record.as_ref(), &record);
        let before = state.record.as_ref().map(|before| (before.phase, before.term));
        if before != Some((record.phase, record.term)) {
            state.phase_at = clock::boottime();
            state.step.clear();
            tracing::info!(app = %record.app, term = record.term.0, phase = ?record.phase, "is in");
            if record.phase == Phase::Running {
                (state.trouble, state.stands_still, state.is_looked_at) = (None, false, true);
                state.runs += 1;
            }
        }
        if record.phase != Phase::Running
            && let Some(watcher) = state.watcher.take()
        {
            watcher.abort();
        }
        let (app, runs) = (record.app, record.phase == Phase::Running);
        let watched = state.watcher.is_some();
        state.record = Some(record);
        drop(apps);
        if runs && !watched {
            self.watch_app(app);
        }
    }

    /// Nothing is known of an app any more but who is in turn.
    fn end_app(&self, app: AppId) {
        self.app(app, |state| {
            [state.task.take(), state.watcher.take()].into_iter().flatten().for_each(|task| task.abort());
            *state = AppState { commands: state.commands.take(), ..AppState::default() };
        });
    }

    fn app<T>(&self, app: AppId, read: impl FnOnce(&mut AppState) -> T) -> T {
        read(self.apps.lock().entry(app).or_default())
    }

    /// Notes whether the disk of the device's own folder is full.
    fn note_room(&self, is_short: bool) {
        let was = std::mem::replace(&mut self.seen.lock().is_short, is_short);
        match (was, is_short) {
            (false, true) => tracing::error!("the disk is full: records go into room that is kept for them"),
            (true, false) => tracing::info!("there is room on the disk again"),
            _ => {}
        }
    }

    fn trouble(&self, app: AppId, trouble: &Trouble) {
        let before = self.app(app, |state| state.trouble.replace(trouble.clone()));
        // What is tried again is told once.
        if before.as_ref() != Some(trouble) {
            tracing::warn!(%app, problem = ?trouble, "something is wrong");
        }
    }

    fn is_locked(&self) -> bool {
        ring::is_locked(&self.setup.state)
    }
}

fn is_claim(effect: &Effect, in_app: AppId, in_step: u64) -> bool {
    matches!(effect, Effect::Begin { app, step, what: Step::Claim(..) } if (*app, *step) == (in_app, in_step))
}
