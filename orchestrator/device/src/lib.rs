//! What a device decides: the phases of its apps, their leases, and what the hive is told.
//!
//! [`decide`] takes the state and an event, changes the state, and returns effects. No I/O, no clock, no chance: each
//! event brings the moment of `CLOCK_BOOTTIME` at which it is handled.
//!
//! What the doors promise
//! - Effects are done in their order; a crash lies between any two. A record that cannot be written ends the process: what
//!   follows is not done, and it begins again from what is on the disk. Giving up has room kept for it.
//! - Steps of an app carry a number. A later step ends the one that is under way, as a crash in the middle of it would.
//! - A result, a hello or a report may never arrive, or twice.
//!
//! Invariants
//! - A record is on the disk before the step that it names is begun.
//! - A term that has ended on this device never runs here again: each start has a new term.
//! - Containers run only where every volume is ours by the store's word, and, under `auto`, while the lease holds.
//!
//! `docs/failover.md` is the promise.

pub mod app;
mod commands;
pub mod daemon;
pub mod doors;
mod hive;
mod lease;
mod phases;
pub mod programs;
mod record;
pub mod rules;
mod start;
pub mod trouble;

pub use record::{Cut, Disk, Identity, Kept, Record, VolumeRecord};

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, CommandResult};
use orchestrator_api::ids::{
    AppId, CommandNumber, DeviceId, Epoch, HelloNumber, ManifestId, ReportNumber, RunId, SessionId, Term,
    VolumeId, Writer,
};
use orchestrator_api::placement::{Expect, Head, Phase, Problem, StoreView};
use orchestrator_api::report::{Hello, Refusal, Report, ReportAnswer, Welcome};

use self::phases::Death;

/// A moment of `CLOCK_BOOTTIME`, in milliseconds.
pub type Boottime = u64;

/// A device: what is on its disk, and what its process knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Which one it is.
    pub id: DeviceId,
    /// What a crash leaves.
    pub disk: Disk,
    run: Run,
}

/// What a process knows.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    id: RunId,
    began: Boottime,
    session: Option<SessionId>,
    /// Since this process began, the hive has said which terms go on.
    answered: bool,
    hello_at: Boottime,
    report: ReportNumber,
    report_at: Boottime,
    reported: Boottime,
    /// When each report that was not answered yet was sent, and what it asked for.
    sent: BTreeMap<ReportNumber, (Boottime, BTreeSet<(AppId, Term)>)>,
    /// The highest command that this process was given.
    have: CommandNumber,
    poll_at: Boottime,
    docker: bool,
    apps: BTreeMap<AppId, Live>,
}

/// What a process knows of an app.
#[derive(Debug, Clone, PartialEq, Default)]
struct Live {
    /// Number of the step that is under way.
    step: u64,
    /// Whether a step is under way.
    busy: bool,
    /// The end of the lease.
    lease: Option<Boottime>,
    /// When to go on with the phase.
    again_at: Option<Boottime>,
    /// When the phase is to be over.
    until: Option<Boottime>,
    /// Claims that are still under way.
    claiming: BTreeSet<VolumeId>,
    /// Claims that a rival won.
    rivals: u32,
    /// What is published, while volumes are unmounted.
    heads: Option<BTreeMap<VolumeId, Head>>,
    /// The term was begun by a former process.
    resumed: bool,
    /// When what an app needs died, each kind of it by itself.
    died: BTreeMap<phases::Death, Vec<Boottime>>,
    /// Since when Docker does not do what the phase asks for.
    docker_away: Option<Boottime>,
    /// A `prepare` that is under way.
    preparing: Option<Command>,
    /// When results are sent again.
    results_at: Boottime,
    /// Nothing of the app is here any more but its record, which goes when the hive has all results.
    forgotten: bool,
}

/// What happens to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time has passed; also after [`Device::wakes_at`].
    Tick,
    /// The answer to a hello.
    Welcome(Result<Welcome, (HelloNumber, Refusal)>),
    /// The answer to a report of a session.
    Answered(SessionId, Result<ReportAnswer, Refusal>),
    /// Commands of the hive, for a poll of a session.
    Commands(SessionId, Result<Vec<Command>, Refusal>),
    /// The hive has a result.
    Kept(CommandNumber),
    /// A step of an app ended.
    Done {
        /// The app.
        app: AppId,
        /// The step's number.
        step: u64,
        /// How it ended.
        done: Done,
    },
    /// A `prepare` ended: the device's pseudonyms, or why not.
    Prepared {
        /// The app.
        app: AppId,
        /// Its pseudonyms in the app's volumes.
        writers: Result<BTreeMap<VolumeId, Writer>, Problem>,
    },
    /// A volume's daemon found that the store has a later epoch.
    Fenced(AppId),
    /// A volume's daemon is gone, or refused a lease that had passed.
    MountDied(AppId),
    /// A container of an app is gone that should run, and Docker is not why.
    ContainersGone(AppId),
    /// Docker did not answer, and does again: containers of an app ended with it.
    EndedWithDocker(AppId),
    /// Whether Docker answers.
    Docker(bool),
    /// An app that runs is to be stopped and started again in its term: a restart, a rollback, another revision.
    Again(AppId),
    /// A person at this machine stops an app, or it is to be forgotten.
    StopHere(AppId),
    /// Nothing of an app is here any more but its record.
    Forgotten(AppId),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// What the arbiter holds of each volume, and what is here; none where it did not answer.
    Looked(BTreeMap<VolumeId, Option<Look>>),
    /// A claim.
    Claimed(VolumeId, Result<Cut, NotClaimed>),
    /// Volumes are mounted, or why not.
    Mounted(Result<(), Problem>),
    /// The gate passed, or why not.
    Up(Result<(), Problem>),
    /// No container runs any more, or Docker did not say so.
    Stopped(Result<(), Problem>),
    /// What is committed, after everything was sealed.
    Published {
        /// The newest committed manifest of each volume of which this device has the epoch.
        heads: BTreeMap<VolumeId, Head>,
        /// How it ended.
        state: Published,
    },
    /// Nothing is mounted any more.
    Unmounted,
    /// The tail is a branch, or there is none; or nobody has a later epoch yet; or the store did not answer.
    Settled(bool),
}

/// How publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The store has everything.
    All,
    /// It has not, and the wait is over.
    Late,
    /// It has a later epoch.
    Fenced,
}

/// What there is of a volume, in its arbiter and here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What the arbiter holds.
    pub store: StoreView,
    /// This device's pseudonym.
    pub writer: Writer,
    /// What is here.
    pub here: Option<Here>,
}

/// A volume of which this device has, or had, the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// Its epoch.
    pub epoch: Epoch,
    /// The manifest before the first of that epoch.
    pub parent: Option<ManifestId>,
    /// Whether the arbiter's newest manifest is here too.
    pub has_newest: bool,
    /// Whether the right to write is known to have ended.
    pub fenced: bool,
}

/// Why a volume was not claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClaimed {
    /// The store does not hold what was expected.
    Unexpected,
    /// Somebody else claims at the same time.
    Rival,
    /// The store did not answer.
    Unreachable,
}

/// What a device does.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Replaces the device's own file, durably.
    WriteIdentity(Identity),
    /// Replaces an app's record, durably.
    WriteRecord {
        /// The record.
        record: Box<Record>,
        /// Into room that is kept for it, so that a full disk does not matter.
        reserved: bool,
    },
    /// Removes an app's record, with what is kept beside it.
    RemoveRecord(AppId),
    /// Says hello.
    Hello(Hello),
    /// Sends a report; the door adds what volumes say.
    Report(SessionId, Report),
    /// Asks for commands above a number.
    Poll(SessionId, CommandNumber),
    /// Sends a result.
    Result(SessionId, CommandResult),
    /// Begins a step of an app.
    Begin {
        /// The app.
        app: AppId,
        /// The step's number.
        step: u64,
        /// What to do.
        what: Step,
    },
    /// Looks at package, images and store.
    Prepare {
        /// The app.
        app: AppId,
        /// Its volumes.
        volumes: Vec<VolumeId>,
    },
    /// Moves the end of the lease of an app's mounts; none takes it off.
    Lease {
        /// The app.
        app: AppId,
        /// The new end.
        end: Option<Boottime>,
    },
}

/// A step of an app, done by a door.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Stops containers and unmounts what a former process or term left, then looks at the arbiter.
    Look(Vec<VolumeId>),
    /// Claims one volume; compares with what is expected each time that it reads the head. Others go on beside it.
    Claim(VolumeId, Expect),
    /// Goes back to moments, if any, and mounts.
    Mount {
        /// The volumes.
        volumes: Vec<VolumeId>,
        /// The moments.
        rollback_to: BTreeMap<VolumeId, Head>,
        /// The end of the lease.
        lease: Option<Boottime>,
    },
    /// Checks mounts and configuration, starts containers with the term on their label, and waits for the gate.
    StartContainers(Term),
    /// Stops containers; publishes before it, so that the last seal is small, if that is asked for.
    StopContainers {
        /// Whether to publish first.
        publish: bool,
    },
    /// Seals, and publishes until the moment.
    Publish(Boottime),
    /// Unmounts.
    Unmount,
    /// Makes a tail a branch, if the arbiter has a later epoch, and follows.
    Settle,
}

/// What a process finds when it begins.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// Apps of which every volume is mounted by a daemon that lives, with the end of their lease.
    pub mounted: BTreeMap<AppId, Option<Boottime>>,
    /// Apps whose containers run, with the term on their label.
    pub containers: BTreeMap<AppId, Term>,
    /// Whether Docker answers.
    pub docker: bool,
}

impl Device {
    /// A process begins, with what is on the disk, and what former processes left.
    pub fn begin(
        id: DeviceId,
        disk: Disk,
        run: RunId,
        found: &Found,
        now: Boottime,
    ) -> (Device, Vec<Effect>) {
        let run = Run {
            id: run,
            began: now,
            session: None,
            answered: false,
            hello_at: now,
            report: ReportNumber(0),
            report_at: now,
            reported: 0,
            sent: BTreeMap::new(),
            have: CommandNumber(0),
            poll_at: now,
            docker: found.docker,
            apps: BTreeMap::new(),
        };
        let mut device = Device { id, disk, run };
        let apps: Vec<AppId> = device.disk.apps.keys().copied().collect();
        let mut effects = Vec::new();
        for app in apps {
            device.resume(app, found, now, &mut effects);
        }
        device.tick(now, &mut effects);
        (device, effects)
    }

    /// When it wants to hear of time at the latest.
    pub fn wakes_at(&self) -> Boottime {
        let run = &self.run;
        let online = if run.session.is_some() { run.report_at.min(run.poll_at) } else { run.hello_at };
        let hive = if self.disk.identity.refused.is_some() { Boottime::MAX } else { online };
        let apps = self.disk.apps.values().filter_map(|record| self.wakes_for(record));
        apps.fold(hive, Boottime::min)
    }

    /// The phase of an app.
    pub fn phase(&self, app: AppId) -> Option<Phase> {
        self.disk.apps.get(&app).map(|record| record.phase)
    }

    fn live(&mut self, app: AppId) -> &mut Live {
        self.run.apps.entry(app).or_default()
    }
}

/// What a device does about an event at a moment.
pub fn decide(device: &mut Device, event: Event, now: Boottime) -> Vec<Effect> {
    let mut effects = Vec::new();
    // A lease that ends comes before everything, however late the process hears of time.
    device.end_leases(now, &mut effects);
    match event {
        Event::Tick => {}
        Event::Welcome(answer) => device.welcomed(answer, now, &mut effects),
        Event::Answered(session, answer) => device.answered(session, answer, now, &mut effects),
        Event::Commands(session, answer) => device.commands(session, answer, now, &mut effects),
        Event::Kept(number) => device.result_kept(number, &mut effects),
        Event::Done { app, step, done } => device.done(app, step, done, now, &mut effects),
        Event::Prepared { app, writers } => device.prepared(app, writers, now, &mut effects),
        Event::Fenced(app) => device.fenced(app, now, &mut effects),
        Event::MountDied(app) => device.died(app, Death::Mount, now, &mut effects),
        Event::ContainersGone(app) => device.died(app, Death::Containers, now, &mut effects),
        Event::EndedWithDocker(app) => device.died(app, Death::Docker, now, &mut effects),
        Event::Docker(answers) => device.run.docker = answers,
        Event::Again(app) => device.again(app, now, &mut effects),
        Event::StopHere(app) => device.stop_here(app, now, &mut effects),
        Event::Forgotten(app) => device.forgotten(app, &mut effects),
    }
    device.tick(now, &mut effects);
    effects
}
