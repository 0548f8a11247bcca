//! The report: these fields and no others (`api.md`, section 5).

use std::collections::BTreeMap;

use fs_format::{Epoch, ManifestId, Seq, VolumeId};
use serde::{Deserialize, Serialize};

use super::device::APPS_MAX;
use super::value::{Key, List, Number, Text, Within};
use crate::compose::{Protocol, SERVICES_MAX, VOLUMES_MAX};
use crate::ids::{AppId, CommandNumber, Generation, ReportNumber, Term};
use crate::placement::{self, Head, Problem};
use crate::report as pure;
use crate::text::{Hex, Uuid};

/// The most branches of an app in a report.
pub const BRANCHES_MAX: usize = 32;
const PORTS_MAX: usize = 64;
const STORES_MAX: usize = 64;
const DISKS_MAX: usize = 4;

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// That of the signature.
    pub number: ReportNumber,
    /// For the history only.
    pub boottime_ms: Number,
    /// Of the device's program.
    pub version: Text<64>,
    /// How its update stands.
    #[serde(default)]
    pub update: Option<UpdateState>,
    /// Highest in its inbox.
    pub commands_have: CommandNumber,
    /// Of the machine.
    pub load: Load,
    /// Room.
    #[serde(default)]
    pub disks: List<Disk, DISKS_MAX>,
    /// Whether Docker answers.
    pub docker: Docker,
    /// How its stores answer.
    #[serde(default)]
    pub stores: List<StoreReport, STORES_MAX>,
    /// Leases asked for.
    #[serde(default)]
    pub renew: List<AppTerm, APPS_MAX>,
    /// Only apps that this hive placed here.
    #[serde(default)]
    pub apps: List<AppReport, APPS_MAX>,
}

/// A term of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppTerm {
    /// The app.
    pub app: AppId,
    /// Its term.
    pub term: Term,
}

/// How an update of the device's program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateState {
    /// Of the release.
    pub number: Number,
    /// Where it is.
    pub state: UpdateStep,
    /// Why it went back.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// Where an update of the device's program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStep {
    /// There is none.
    None,
    /// The program is being fetched.
    Fetching,
    /// It runs, and has to show that it is well.
    Trying,
    /// It is well.
    Done,
    /// The one before runs again.
    GoneBack,
}

/// Of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Of all processors.
    pub cpu_percent: Within<0, 100>,
    /// All there is.
    pub memory_bytes: Number,
    /// What programs can have.
    pub memory_free_bytes: Number,
    /// In hundredths.
    pub load_1m: Number,
    /// What its network received since it began; none where that is not known.
    #[serde(default)]
    pub received_bytes: Option<Number>,
    /// What it sent.
    #[serde(default)]
    pub sent_bytes: Option<Number>,
    /// What its disks read since it began.
    #[serde(default)]
    pub read_bytes: Option<Number>,
    /// What they wrote.
    #[serde(default)]
    pub written_bytes: Option<Number>,
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What lies on it.
    #[serde(rename = "for")]
    pub what: DiskUse,
    /// All there is.
    pub bytes: Number,
    /// What is free.
    pub free_bytes: Number,
}

/// What lies on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskUse {
    /// The device's folder, with the volumes.
    State,
    /// Docker's.
    Docker,
    /// The apps' folders.
    Apps,
}

/// Whether Docker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Docker {
    /// It does.
    Ok,
    /// An answer took more than 5 s.
    Slow,
    /// It does not.
    Stopped,
    /// There is none.
    Missing,
}

/// How a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// The hive's id of it.
    pub store: Uuid,
    /// How it answered last.
    pub state: StoreState,
}

/// How a store answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// Well.
    Ok,
    /// Not at all.
    Unreachable,
    /// That the credentials are wrong.
    Denied,
    /// Otherwise.
    Other,
}

/// How an app is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppReport {
    /// Which one.
    pub app: AppId,
    /// The highest term that the device has seen.
    pub term: Term,
    /// The highest that the device has seen.
    pub generation: Generation,
    /// That the app has, also while it is being updated; 0 if there is none.
    pub revision: Number,
    /// The record's.
    pub phase: Phase,
    /// The reason of stopping, flushing, stopped.
    #[serde(default)]
    pub why: Option<Why>,
    /// Since when.
    pub phase_age_ms: Number,
    /// What its services say together.
    pub health: Health,
    /// How far the present command is.
    #[serde(default)]
    pub operation: Option<Progress>,
    /// What is wrong.
    #[serde(default)]
    pub problem: Option<ProblemReport>,
    /// Containers of this app.
    #[serde(default)]
    pub services: List<ServiceReport, SERVICES_MAX>,
    /// Ports of the machine that it got.
    #[serde(default)]
    pub ports: List<PortReport, PORTS_MAX>,
    /// From `x-comb.web`.
    #[serde(default)]
    pub address: Option<Text<256>>,
    /// Standing by: what is not here yet.
    #[serde(default)]
    pub missing_bytes: Option<Number>,
    /// Its volumes that are here.
    #[serde(default)]
    pub volumes: List<VolumeReport, VOLUMES_MAX>,
    /// Tails that were kept.
    #[serde(default)]
    pub branches: List<Branch, BRANCHES_MAX>,
}

/// A record's phase: `failover.md`, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`placement::Phase` says what each means")]
pub enum Phase {
    Absent,
    StandingBy,
    Claiming,
    Mounting,
    Starting,
    Running,
    Stopping,
    Flushing,
    Stopped,
    Settling,
}

/// Why an app is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`placement::Why` says what each means")]
pub enum Why {
    Again,
    Ordered,
    HandOver,
    LeaseOver,
    Fenced,
    Failed,
}

impl Phase {
    /// With its reason, as it travels.
    pub fn of(phase: placement::Phase) -> (Self, Option<Why>) {
        use placement::Phase as From;
        match phase {
            From::StandingBy => (Self::StandingBy, None),
            From::Claiming => (Self::Claiming, None),
            From::Mounting => (Self::Mounting, None),
            From::Starting => (Self::Starting, None),
            From::Running => (Self::Running, None),
            From::Stopping(why) => (Self::Stopping, Some(why.into())),
            From::Flushing(why) => (Self::Flushing, Some(why.into())),
            From::Stopped(why) => (Self::Stopped, Some(why.into())),
            From::Settling => (Self::Settling, None),
        }
    }

    /// What is decided by; a reason that is missing is the one that nothing is tried again for.
    pub fn with(self, why: Option<Why>, problem: Option<Problem>) -> placement::Phase {
        use placement::{Phase as To, Why as Reason};
        let why = match why.unwrap_or(Why::Failed) {
            Why::Again => Reason::Again,
            Why::Ordered => Reason::Ordered,
            Why::HandOver => Reason::HandOver { resume: false },
            Why::LeaseOver => Reason::LeaseOver,
            Why::Fenced => Reason::Fenced,
            Why::Failed => Reason::Failed(problem.unwrap_or(Problem::Unknown)),
        };
        match self {
            Self::Absent | Self::StandingBy => To::StandingBy,
            Self::Claiming => To::Claiming,
            Self::Mounting => To::Mounting,
            Self::Starting => To::Starting,
            Self::Running => To::Running,
            Self::Stopping => To::Stopping(why),
            Self::Flushing => To::Flushing(why),
            Self::Stopped => To::Stopped(why),
            Self::Settling => To::Settling,
        }
    }
}

impl From<placement::Why> for Why {
    fn from(why: placement::Why) -> Self {
        match why {
            placement::Why::Again => Self::Again,
            placement::Why::Ordered => Self::Ordered,
            placement::Why::HandOver { .. } => Self::HandOver,
            placement::Why::LeaseOver => Self::LeaseOver,
            placement::Why::Fenced => Self::Fenced,
            placement::Why::Failed(_) => Self::Failed,
        }
    }
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It says that it is well.
    Healthy,
    /// It is too early to say.
    Starting,
    /// It says that it is not.
    Unhealthy,
    /// It has nothing to say so.
    None,
    /// Docker does not answer, or the device has not looked at it since its process began.
    Unknown,
}

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which one.
    pub command: CommandNumber,
    /// Where it is.
    pub step: super::value::Word,
    /// Bytes done.
    #[serde(default)]
    pub done: Option<Number>,
    /// Of so many.
    #[serde(default)]
    pub total: Option<Number>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemReport {
    /// For programs.
    pub code: Problem,
    /// Of which service.
    #[serde(default)]
    pub service: Option<Key>,
    /// In which file of the package.
    #[serde(default)]
    pub file: Option<Text<255>>,
    /// In which line of it.
    #[serde(default)]
    pub line: Option<Number>,
    /// A number that belongs to the code: a port, bytes that are missing.
    #[serde(default)]
    pub number: Option<Number>,
    /// When it is tried again.
    #[serde(default)]
    pub again_in_ms: Option<Number>,
}

impl ProblemReport {
    /// With nothing beside.
    pub fn new(code: Problem) -> Self {
        Self { code, service: None, file: None, line: None, number: None, again_in_ms: None }
    }
}

/// A service of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// In the compose file.
    pub name: Key,
    /// Of its container.
    pub state: ContainerState,
    /// Of its container.
    pub health: Health,
    /// −1 to 255.
    #[serde(default)]
    pub exit: Option<i16>,
    /// How often it was started again.
    pub restarts: Number,
    /// Of one processor, so it may be above 100.
    pub cpu_percent: Number,
    /// What it has.
    pub memory_bytes: Number,
}

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "Docker's words")]
pub enum ContainerState {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

/// A port of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// The service.
    pub service: Key,
    /// In its containers.
    pub port: Within<1, 65_535>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Of the machine.
    pub given: Within<1, 65_535>,
}

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its public key.
    pub volume: Hex<32>,
    /// In the compose file; a hive that does not know the volume learns it by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Key>,
    /// What it is here.
    pub state: VolumeState,
    /// Newest seal here.
    pub epoch: Number,
    /// Newest seal here.
    pub seq: Number,
    /// Newest seal here.
    pub manifest: Hex<32>,
    /// This device's pseudonym in it.
    pub writer: Hex<16>,
    /// What the arbiter has, where that is the newest seal here; else none.
    #[serde(default)]
    pub replicated_seq: Option<Number>,
    /// Age of the newest moment that is safe.
    #[serde(default)]
    pub replicated_age_ms: Option<Number>,
    /// What is not safe.
    pub backlog_bytes: Number,
    /// Age of the oldest change that is not.
    #[serde(default)]
    pub backlog_age_ms: Option<Number>,
    /// Of the volume.
    pub bytes: Number,
    /// Of the volume.
    pub files: Number,
    /// Copies that are late.
    pub stores_behind: Within<0, 64>,
}

/// What a volume is on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Not here.
    Absent,
    /// Another device writes it.
    Following,
    /// Mounted, and takes writes.
    Mounted,
    /// Mounted, and takes none.
    ReadOnly,
    /// Somebody has a later epoch.
    Fenced,
    /// Ours, and not mounted.
    Closed,
    /// It cannot be read.
    Damaged,
}

/// A tail that was kept when another device went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Of which volume.
    pub volume: Hex<32>,
    /// `cut-<seq>-e<epoch>`.
    pub name: Text<64>,
    /// How many seals.
    pub seals: Number,
    /// How much.
    pub bytes: Number,
    /// From the cut to its end.
    pub span_ms: Number,
}

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// Terms that go on.
    #[serde(default)]
    pub granted: List<AppTerm, APPS_MAX>,
    /// Apps that another device has, with the present term.
    #[serde(default)]
    pub over: List<AppTerm, APPS_MAX>,
    /// Apps that the hive does not know.
    #[serde(default)]
    pub forgotten: List<AppId, APPS_MAX>,
    /// When to report again.
    #[serde(default)]
    pub report_every_ms: Number,
}

impl VolumeReport {
    /// What is decided by: a head counts only if this device has the epoch.
    pub fn head(&self) -> Option<Head> {
        let ours = matches!(self.state, VolumeState::Mounted | VolumeState::ReadOnly | VolumeState::Closed);
        self.replicated_seq.filter(|_| ours).map(|seq| Head {
            epoch: Epoch(self.epoch.0),
            seq: Seq(seq.0),
            manifest: ManifestId(self.manifest.0),
        })
    }
}

impl From<&AppReport> for pure::AppReport {
    fn from(app: &AppReport) -> Self {
        let volume = |here: &VolumeReport| {
            let writer = fs_format::DeviceId(here.writer.0);
            (VolumeId(here.volume.0), pure::VolumeReport { writer, replicated: here.head() })
        };
        let problem = app.problem.as_ref().map(|problem| problem.code);
        Self {
            term: app.term,
            phase: app.phase.with(app.why, problem),
            volumes: app.volumes.iter().map(volume).collect(),
        }
    }
}

impl From<&Report> for pure::Report {
    fn from(report: &Report) -> Self {
        Self {
            number: report.number,
            renew: report.renew.iter().map(|one| (one.app, one.term)).collect(),
            docker: matches!(report.docker, Docker::Ok | Docker::Slow),
            apps: report.apps.iter().map(|app| (app.app, app.into())).collect::<BTreeMap<_, _>>(),
        }
    }
}

impl ReportAnswer {
    /// What a device decides by.
    pub fn decided(&self, number: ReportNumber) -> pure::ReportAnswer {
        pure::ReportAnswer {
            number,
            granted: self.granted.iter().map(|one| (one.app, one.term)).collect(),
            over: self.over.iter().map(|one| (one.app, one.term)).collect(),
        }
    }
}
