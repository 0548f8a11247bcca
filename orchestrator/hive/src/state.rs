//! The rows that deciding needs: `api.md`, section 10.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, CommandResult};
use orchestrator_api::ids::{
    AppId, CommandNumber, DeviceId, Epoch, Generation, HelloNumber, Incarnation, OperationId, Renewals,
    ReportNumber, RunId, Seq, SessionId, Term, VolumeId, Writer,
};
use orchestrator_api::placement::{Expect, Head, Phase, Policy, Problem};
use orchestrator_api::report::AppReport;
use orchestrator_api::times::GATE_WAIT;

/// What a hive knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hive {
    /// Number of its life between restores.
    pub incarnation: Incarnation,
    /// Whether it waits for its devices to say what it forgot.
    pub recovering: bool,
    /// While recovering: nothing more is waited for but the end of leases that were granted before.
    pub heard: bool,
    /// Terms, generations and command numbers are above this.
    pub floor: u64,
    /// Its devices.
    pub devices: BTreeMap<DeviceId, Device>,
    /// Its apps.
    pub apps: BTreeMap<AppId, App>,
    /// What it does, and did.
    pub operations: BTreeMap<OperationId, Operation>,
    /// What it asked of devices.
    pub commands: BTreeMap<(DeviceId, CommandNumber), Given>,
    /// For how long apps may get healthy after they started, in milliseconds, where their packages say so.
    pub gates: BTreeMap<AppId, u64>,
}

/// A device, as the hive knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// Whether it may run apps.
    pub state: DeviceState,
    /// Its last hello, and by which run of its process.
    pub hello: Option<(HelloNumber, RunId)>,
    /// What that began.
    pub session: Option<SessionId>,
    /// The incarnation that its last hello was said to.
    pub greeted: Incarnation,
    /// It never showed that it has the account's ring: it holds nothing, and nothing is believed of it.
    pub locked: bool,
    /// Its last report in this session.
    pub report: ReportNumber,
    /// Its reports, counted.
    pub renewals: Renewals,
    /// The last command that it was given.
    pub command: CommandNumber,
    /// Its pseudonyms.
    pub writers: BTreeMap<VolumeId, Writer>,
    /// Whether its Docker answers.
    pub docker: bool,
    /// Its apps, as last reported.
    pub apps: BTreeMap<AppId, AppReport>,
}

/// Whether a device may run apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceState {
    /// It may.
    #[default]
    Active,
    /// It gets no new one.
    Draining,
    /// It is nobody any more.
    Revoked,
}

/// An app, with its placement.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// How long the right to run lasts, from the next term on.
    pub policy: Policy,
    /// Whether it is wanted running.
    pub wanted: bool,
    /// Number of what is wanted.
    pub generation: Generation,
    /// Where it may run.
    pub devices: BTreeSet<DeviceId>,
    /// What is known of its volumes.
    pub volumes: BTreeMap<VolumeId, Known>,
    /// Its package names volumes that no device has told of.
    pub lacks_volumes: bool,
    /// Where it is to run.
    pub placement: Placement,
    /// Why it does not run, where no operation says so.
    pub problem: Option<Refused>,
}

/// What is known of a volume's head in its store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// At least this epoch; zero where nothing was ever committed.
    pub epoch: Epoch,
    /// At least this seal.
    pub seq: Seq,
    /// Who may have gone on since.
    pub writers: BTreeSet<Writer>,
    /// An update of the app of which nobody knows how it ended: whoever gets the next term goes back to the moment before it.
    pub update: Option<OperationId>,
    /// To where the volume goes back before the app is started again, a tag or a seal's number: a rollback, or a way back, has
    /// begun or may have, and nobody knows that it is whole. A person said so later than of an update.
    pub rollback: Option<String>,
}

impl App {
    /// Whether its data may be on a device that told nothing of it: it had a term, and its volumes are not known. Another
    /// device would begin with empty ones.
    pub fn is_hidden(&self) -> bool {
        self.lacks_volumes && self.placement.term > Term(0)
    }
}

impl Known {
    /// Any head that may have come of it.
    pub fn since(&self) -> Expect {
        Expect::Since { epoch: self.epoch, seq: self.seq, writers: self.writers.clone() }
    }

    /// Takes note of a committed manifest.
    pub fn raise(&mut self, head: &Head) {
        self.epoch = self.epoch.max(head.epoch);
        self.seq = self.seq.max(head.seq);
    }
}

/// Which device has which term.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// The device; none where nobody is known to have the app.
    pub device: Option<DeviceId>,
    /// The term.
    pub term: Term,
    /// Whether the device needs a lease in this term.
    pub leased: bool,
    /// The number of the last report that renewed the term; none while each of them does.
    pub renewed: Option<Renewals>,
    /// No renewal is granted any more.
    pub withdrawn: bool,
    /// The device took the term, and does not know of it any more: its disk is that of an earlier day.
    pub forgotten: bool,
}

impl Placement {
    /// Whether a device has the app, in this term.
    pub fn is_at(&self, device: DeviceId, term: Term) -> bool {
        self.device == Some(device) && self.term == term
    }
}

/// Something that the hive does in steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The app.
    pub app: AppId,
    /// What is done.
    pub kind: Kind,
    /// Where it is.
    pub step: Step,
    /// How many steps there were.
    pub count: u64,
    /// The command that is waited for.
    pub waits: Option<(DeviceId, CommandNumber)>,
    /// Who had the app.
    pub from: Option<DeviceId>,
    /// Who gets it.
    pub to: Option<DeviceId>,
    /// What was handed over.
    pub heads: Option<BTreeMap<VolumeId, Head>>,
    /// To where the app goes back if its next start is a way back.
    pub rollback_to: BTreeMap<VolumeId, Head>,
    /// Who failed already.
    pub tried: BTreeSet<DeviceId>,
    /// Why it will have failed, once it is taken back.
    pub reason: Option<Refused>,
    /// How it stands.
    pub state: OperationState,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An app is started where it was.
    Start,
    /// An app is stopped.
    Stop,
    /// An app moves, and loses nothing.
    Move,
    /// An app is taken from a device that is lost.
    Force {
        /// Also from one that reports.
        even_if_online: bool,
    },
    /// An app is started again, or elsewhere, since its term ended by itself.
    Failover,
    /// The policy of an app changes.
    Settings(Policy),
    /// Something that neither gives nor ends a term; its commands are the caller's business.
    Task,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// For devices that are there.
    Check,
    /// For the target to stand by.
    Prepare,
    /// For the source to publish everything and let go.
    HandOver,
    /// For the lease of the present term to end, which is not renewed any more.
    WaitLease,
    /// For the target to run the app.
    Start,
    /// For the target to let go again.
    TakeBack,
    /// For the source to run the app again.
    Return,
    /// For a device to stop the app.
    Stop,
    /// For a device to take over settings.
    Settings,
    /// For a device to do what gives or ends no term.
    Task,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationState {
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It is not, for this reason.
    Failed(Refused),
    /// A restored hive does not know what came of it.
    Lost,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Another operation of the app runs.
    OperationRunning,
    /// The hive waits for its devices.
    Recovering,
    /// There is none.
    NotFound,
    /// It makes no sense now.
    State,
    /// The device does not report.
    DeviceSilent,
    /// The device reports: a planned move loses nothing.
    DeviceOnline,
    /// The owner did not name the device.
    DeviceNotAuthorized,
    /// The device is being emptied, or revoked.
    DeviceClosed,
    /// Nobody can take the app.
    NoCandidate,
    /// No device said that it has the app.
    NotHeld,
    /// It was started, and the device that has its volumes did not tell of them: nobody else may begin with empty ones.
    VolumesUnknown,
    /// The device that it waited for was revoked.
    DeviceRevoked,
    /// A forced move took its place.
    Forced,
    /// The lease of the term ended meanwhile.
    LeaseOver,
    /// The device said so.
    Problem(Problem),
}

/// A command, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// What was asked.
    pub command: Command,
    /// What was answered.
    pub result: Option<CommandResult>,
}

impl Hive {
    /// For how long an app may get healthy, in milliseconds.
    pub fn gate_ms(&self, app: AppId) -> u64 {
        self.gates.get(&app).copied().unwrap_or(GATE_WAIT)
    }

    /// What an app's device last said of the present term.
    pub fn phase(&self, id: AppId) -> Option<Phase> {
        let app = self.apps.get(&id)?;
        let report = self.devices.get(&app.placement.device?)?.apps.get(&id)?;
        (report.term == app.placement.term).then_some(report.phase)
    }

    /// Whether an app's device last said that it runs there, in whatever term.
    pub(crate) fn lives(&self, id: AppId) -> bool {
        let device = self.apps.get(&id).and_then(|app| self.devices.get(&app.placement.device?));
        device.and_then(|device| device.apps.get(&id)).is_some_and(|report| report.phase.is_live())
    }

    /// Whether the term of an app has ended by what its device said.
    pub(crate) fn has_ended(&self, id: AppId) -> bool {
        let placement = self.apps.get(&id).map(|app| &app.placement);
        // Under a lease another machine with the same disk may have it still; that ends by itself.
        let forgotten = placement.is_some_and(|placement| placement.forgotten && !placement.leased);
        forgotten || self.phase(id).is_some_and(|phase| !phase.is_live())
    }

    /// The operation of an app that runs.
    pub fn running(&self, app: AppId) -> Option<OperationId> {
        let running =
            |operation: &Operation| operation.app == app && operation.state == OperationState::Running;
        self.operations.iter().find(|(_, operation)| running(operation)).map(|(id, _)| *id)
    }

    /// Whether an operation runs.
    #[cfg(feature = "server")]
    pub(crate) fn is_running(&self, id: OperationId) -> bool {
        self.operations.get(&id).is_some_and(|operation| operation.state == OperationState::Running)
    }

    /// The number of the last report that renewed an app's term.
    pub(crate) fn last_renewal(&self, placement: &Placement) -> Renewals {
        let device = placement.device.and_then(|id| self.devices.get(&id));
        let newest = device.map_or(Renewals(0), |device| device.renewals);
        placement.renewed.unwrap_or(newest)
    }
}
