//! What is asked of a device, and what it answers: `api.md`, section 6.

use std::collections::BTreeMap;

use fs_format::{Epoch, ManifestId, Seq, VolumeId};
use serde::{Deserialize, Serialize};

use super::app::{ActionValue, FolderFile, OptionValue};
use super::report::{BRANCHES_MAX, ProblemReport};
use super::value::{Base64, Key, List, Name, Number, Tag, Text, Within};
use crate::command as pure;
use crate::compose::{FILES_MAX, SERVICES_MAX, VOLUMES_MAX};
use crate::ids::{AppId, CommandNumber, DeviceId, Generation, OperationId, Term};
use crate::placement::{self, Policy, Problem};
use crate::release::RELEASE_BYTES_MAX;
use crate::text::{Hex, Time, Uuid};

/// The most commands in one answer.
pub const COMMANDS_MAX: usize = 32;
/// The most stores of an app.
pub const STORES_MAX: usize = 8;
/// The most moments that are told of an app.
pub const MOMENTS_MAX: usize = 1000;
/// The most writers that are expected of a volume.
pub const WRITERS_MAX: usize = 16;
/// The most lines of a log that are asked for.
pub const LINES_MAX: u64 = 10_000;
/// The longest message of a moment, sealed: 256 characters, its salt and its tag.
pub const MESSAGE_SEALED_BYTES_MAX: usize = 256 * 4 + 48;
/// The most volumes and tails that are told to be in no store.
pub const LATE_MAX: usize = VOLUMES_MAX + BRANCHES_MAX;
const OPTIONS_MAX: usize = 128;

/// `GET /v1/device/commands`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// In their order.
    pub commands: List<Command, COMMANDS_MAX>,
}

/// One step of an operation, ordered of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Grows for each device.
    pub number: CommandNumber,
    /// What it is a step of.
    pub operation: OperationId,
    /// The app; none if it is about the device.
    #[serde(default)]
    pub app: Option<AppId>,
    /// The term in which it is to be done.
    #[serde(default)]
    pub term: Option<Term>,
    /// What is wanted.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// What to do.
    #[serde(flatten)]
    pub order: Order,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Stand by.
    Prepare(Prepare),
    /// Run the app in a new term.
    Start(Start),
    /// Run under other settings from now on.
    Settings(Settings),
    /// Stop it, publish what can be, keep the term.
    Stop,
    /// Stop it, publish everything, release.
    HandOver {
        /// Who will have the app.
        to: Option<DeviceId>,
    },
    /// Close its volumes, or remove them from this device.
    Forget {
        /// Whether the volumes stay.
        keep_data: bool,
        /// Whether they go although something of them is in no store.
        #[serde(default, skip_serializing_if = "is_no")]
        discard: bool,
    },
    /// Start containers again.
    Restart {
        /// Of these services only.
        services: Option<List<Key, SERVICES_MAX>>,
    },
    /// All volumes at one instant.
    Snapshot {
        /// What a person calls it.
        tag: Option<Tag>,
        /// What a person says of it, sealed for devices.
        #[serde(default)]
        message: Option<Base64<MESSAGE_SEALED_BYTES_MAX>>,
    },
    /// Tell the moments of the app.
    Moments,
    /// Stop, go back, start if it ran.
    Rollback {
        /// To which moment.
        to: MomentName,
        /// Whether it is started afterwards; if nothing is said, if it ran.
        start: Option<bool>,
    },
    /// New volumes with what another app has.
    Fork(Fork),
    /// Another revision, or back.
    Update {
        /// Of the package.
        revision: Number,
    },
    /// A declared action.
    Action {
        /// Its name.
        name: Text<64>,
        /// Its values.
        input: List<ActionValue, 8>,
        /// Where its output goes.
        stream: Uuid,
    },
    /// Lines that the app wrote.
    Logs {
        /// Of these services only.
        services: Option<List<Key, SERVICES_MAX>>,
        /// How many of the past.
        lines: Within<0, LINES_MAX>,
        /// Whether to go on.
        follow: bool,
        /// Where they go.
        stream: Uuid,
    },
    /// Seal a package for the hive.
    Author(Box<Author>),
    /// Tell of the machine.
    Facts {
        /// Where it goes.
        stream: Uuid,
    },
    /// Check the machine.
    Doctor {
        /// Where details go.
        stream: Uuid,
    },
    /// Take another program.
    UpdateDevice {
        /// What the owner signed.
        release: Base64<RELEASE_BYTES_MAX>,
        /// Over it.
        signature: Base64<64>,
    },
    /// There is a newer ring.
    Ring {
        /// Its number; the command has one too.
        version: Number,
    },
    /// One that this program does not know: answered `unknown_command`.
    #[serde(other)]
    Unknown,
}

/// Stand by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Of the package.
    pub revision: Number,
    /// The first arbitrates.
    pub stores: List<StoreName, STORES_MAX>,
    /// What is known of them.
    pub volumes: List<NamedVolume, VOLUMES_MAX>,
    /// Whether the volumes are filled before it is answered: for a planned move.
    #[serde(default)]
    pub fill: bool,
}

/// A store, as a device needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreName {
    /// The hive's id of it.
    pub store: Uuid,
    /// Canonical; its credentials are in the ring.
    pub url: Text<{ super::account::URL_BYTES_MAX }>,
}

/// A volume of an app that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVolume {
    /// In the compose file.
    pub name: Key,
    /// Its public key.
    pub volume: Hex<32>,
}

/// Run the app in a new term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Of the package.
    pub revision: Number,
    /// Whether it needs a lease.
    pub policy: Policy,
    /// The first arbitrates.
    pub stores: List<StoreName, STORES_MAX>,
    /// The replication interval of its mounts.
    pub seal_every_s: Number,
    /// What each volume must be.
    pub volumes: List<StartVolume, VOLUMES_MAX>,
    /// The moment to go back to before the app starts.
    #[serde(default)]
    pub rollback_to: Option<MomentName>,
}

/// A volume of an app that is to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartVolume {
    /// In the compose file.
    pub name: Key,
    /// Its public key; none if it is to be made.
    pub volume: Option<Hex<32>>,
    /// What the store must hold.
    pub expect: Expect,
}

/// What the store must hold before a volume is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// This head and no other.
    Exactly(HeadOf),
    /// A head not below this one, by the device itself or one of these.
    Since {
        /// Zero where nothing was ever committed that is known of.
        epoch: Number,
        /// The least seal.
        seq: Number,
        /// Who may have gone on.
        #[serde(default)]
        writers: List<Hex<16>, WRITERS_MAX>,
    },
}

/// A head, where its volume is said beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadOf {
    /// The writer's epoch.
    pub epoch: Number,
    /// The seal's number.
    pub seq: Number,
    /// Covers the tree, and every manifest before it.
    pub manifest: Hex<32>,
}

/// Run under other settings from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether it needs a lease.
    pub policy: Policy,
    /// From the next mount on.
    pub seal_every_s: Number,
    /// Never another first one.
    pub stores: List<StoreName, STORES_MAX>,
}

/// A moment of an app: a tag that names an instant of all its volumes, or a seal of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MomentName {
    /// `comb-<16 hex>`, or what a person called it.
    Tag(Text<64>),
    /// By public keys.
    Seals(BTreeMap<Hex<32>, Number>),
}

impl MomentName {
    /// Whether it names no more volumes than an app has.
    pub fn is_bounded(&self) -> bool {
        match self {
            MomentName::Tag(tag) => !tag.as_str().is_empty(),
            MomentName::Seals(seals) => (1..=VOLUMES_MAX).contains(&seals.len()),
        }
    }
}

/// New volumes with what another app has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Where volumes without a branch are taken.
    pub to: Option<MomentName>,
    /// By public keys: the branch that is taken.
    #[serde(default)]
    pub branches: Option<BTreeMap<Hex<32>, Text<64>>>,
    /// Of which the new id is made: [`AppId::made`].
    pub seed: Hex<16>,
    /// What it is called.
    pub new_name: Name,
    /// Of the package that is sealed again for it.
    pub revision: Number,
}

/// Seal a package for the hive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The app's folder.
    pub files: List<FolderFile, FILES_MAX>,
    /// The main file.
    pub compose: Text<255>,
    /// What was chosen.
    pub options: List<OptionValue, OPTIONS_MAX>,
    /// What it is called.
    pub name: Name,
    /// Of which its id is made: [`AppId::made`].
    pub seed: Hex<16>,
    /// Its name in the net, instead of what `x-comb` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Text<253>>,
}

/// `POST /v1/device/commands/{number}/result`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// Of the command.
    pub number: CommandNumber,
    /// How it ended.
    pub state: ResultState,
    /// Why it is not done.
    #[serde(default)]
    pub code: Option<Problem>,
    /// The same, with its place.
    #[serde(default)]
    pub problem: Option<ProblemReport>,
    /// What there is to say.
    #[serde(default)]
    pub data: Data,
    /// When it ended.
    pub ended_age_ms: Number,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultState {
    /// It is done.
    Done,
    /// It is not, and what it changed is in the phase.
    Failed,
    /// A later start took its place.
    Obsolete,
}

/// What a result says; what a command has nothing to say about is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// The newest committed manifest of each volume of which the device has the epoch.
    #[serde(skip_serializing_if = "is_empty")]
    pub heads: List<HeadAt, VOLUMES_MAX>,
    /// The device's pseudonyms.
    #[serde(skip_serializing_if = "is_empty")]
    pub writers: List<WriterAt, VOLUMES_MAX>,
    /// What a start claimed.
    #[serde(skip_serializing_if = "is_empty")]
    pub cuts: List<Cut, VOLUMES_MAX>,
    /// Of `head_unexpected`: what the store has.
    #[serde(skip_serializing_if = "is_empty")]
    pub seen: List<Seen, VOLUMES_MAX>,
    /// Whether the app was started in this term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// Whether the gate passed in this term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Standing by: what is not here yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_bytes: Option<Number>,
    /// What a snapshot or update made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<Moment>,
    /// What was asked for.
    #[serde(skip_serializing_if = "is_empty")]
    pub moments: List<Moment, MOMENTS_MAX>,
    /// What a fork made.
    #[serde(skip_serializing_if = "is_empty")]
    pub volumes: List<NamedVolume, VOLUMES_MAX>,
    /// Of the package that was sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Number>,
    /// Whether an update went back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<bool>,
    /// Of an action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i16>,
    /// Of doctor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<Number>,
    /// Of doctor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Number>,
    /// Of the ring that is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<Number>,
    /// Tails that were kept, where a command made some.
    #[serde(skip_serializing_if = "is_empty")]
    pub branches: List<super::report::Branch, BRANCHES_MAX>,
    /// Of a stop, and of `publish_late`: what the device has of the app that the store that decides lacks.
    #[serde(skip_serializing_if = "is_empty")]
    pub late: List<Late, LATE_MAX>,
}

/// Something that is on a device alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The public key of its volume.
    pub volume: Hex<32>,
    /// The volume in the compose file; with `/` and a tail's name behind it, that tail.
    pub name: Text<128>,
    /// How many; 0 where that is not known.
    pub bytes: Number,
}

fn is_no(flag: &bool) -> bool {
    !flag
}

fn is_empty<T, const MAX: usize>(list: &List<T, MAX>) -> bool {
    list.is_empty()
}

/// A head with its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadAt {
    /// Its public key.
    pub volume: Hex<32>,
    /// The writer's epoch.
    pub epoch: Number,
    /// The seal's number.
    pub seq: Number,
    /// Covers the tree, and every manifest before it.
    pub manifest: Hex<32>,
}

/// A device's pseudonym in a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterAt {
    /// Its public key.
    pub volume: Hex<32>,
    /// The pseudonym.
    pub writer: Hex<16>,
}

/// The first manifest after a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// In the compose file.
    pub name: Key,
    /// Its public key.
    pub volume: Hex<32>,
    /// That was claimed.
    pub epoch: Number,
    /// Of the first manifest in it.
    pub seq: Number,
    /// The first manifest in it.
    pub manifest: Hex<32>,
    /// What that extends; none where nothing was before.
    #[serde(default)]
    pub parent: Option<Hex<32>>,
    /// How old the moment was that the parent is, when it was claimed.
    #[serde(default)]
    pub parent_age_ms: Option<Number>,
}

/// What a store has that was not expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its public key.
    pub volume: Hex<32>,
    /// Greatest that anybody used or claimed.
    pub epoch: Number,
    /// Of the newest slot.
    pub seq: Number,
    /// Whose it is.
    pub writer: Hex<16>,
}

/// A moment of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// `comb-<16 hex>`, or what a person called it.
    #[serde(default)]
    pub tag: Option<Text<64>>,
    /// When it was.
    pub time: Time,
    /// Why it is.
    pub reason: MomentReason,
    /// What it is of each volume.
    #[serde(default)]
    pub volumes: List<MomentVolume, VOLUMES_MAX>,
}

/// Why a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentReason {
    /// A person asked for it.
    Asked,
    /// Before an update.
    Update,
    /// What an update wrote that was not well.
    UpdateFailed,
    /// What a move's target wrote that was not well.
    MoveFailed,
    /// By itself.
    Regular,
}

/// A volume at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MomentVolume {
    /// Its public key.
    pub volume: Hex<32>,
    /// The seal's number.
    pub seq: Number,
    /// The snapshot's id.
    #[serde(default)]
    pub uuid: Option<Uuid>,
    /// Of the volume.
    pub files: Number,
    /// Of the volume.
    pub bytes: Number,
}

impl HeadAt {
    /// Of a head that is decided by.
    pub fn of(volume: VolumeId, head: &placement::Head) -> Self {
        let HeadOf { epoch, seq, manifest } = head.into();
        Self { volume: Hex(volume.0), epoch, seq, manifest }
    }

    /// What is decided by.
    pub fn head(&self) -> (VolumeId, placement::Head) {
        let head = HeadOf { epoch: self.epoch, seq: self.seq, manifest: self.manifest };
        (VolumeId(self.volume.0), head.into())
    }
}

impl From<&placement::Head> for HeadOf {
    fn from(head: &placement::Head) -> Self {
        Self { epoch: Number(head.epoch.0), seq: Number(head.seq.0), manifest: Hex(head.manifest.0) }
    }
}

impl From<HeadOf> for placement::Head {
    fn from(head: HeadOf) -> Self {
        Self { epoch: Epoch(head.epoch.0), seq: Seq(head.seq.0), manifest: ManifestId(head.manifest.0) }
    }
}

impl From<&placement::Expect> for Expect {
    fn from(expect: &placement::Expect) -> Self {
        match expect {
            placement::Expect::Exactly(head) => Self::Exactly(head.into()),
            placement::Expect::Since { epoch, seq, writers } => Self::Since {
                epoch: Number(epoch.0),
                seq: Number(seq.0),
                writers: List::cut(writers.iter().map(|writer| Hex(writer.0))),
            },
        }
    }
}

impl From<&Expect> for placement::Expect {
    fn from(expect: &Expect) -> Self {
        match expect {
            Expect::Exactly(head) => Self::Exactly((*head).into()),
            Expect::Since { epoch, seq, writers } => Self::Since {
                epoch: Epoch(epoch.0),
                seq: Seq(seq.0),
                writers: writers.iter().map(|writer| fs_format::DeviceId(writer.0)).collect(),
            },
        }
    }
}

impl Command {
    /// What a device's pure part decides about: commands by which an app gets, keeps or loses its term. The others are
    /// done beside it. Volumes that are still to be made are left out; the order itself has them.
    ///
    /// A `rollback_to` by a tag is left out too: what its seals are is found in the volumes.
    pub fn decided(&self) -> Option<pure::Command> {
        let order = match &self.order {
            Order::Prepare(prepare) => pure::Order::Prepare {
                volumes: prepare.volumes.iter().map(|one| VolumeId(one.volume.0)).collect(),
            },
            Order::Start(start) => {
                let volume =
                    |one: &StartVolume| Some((VolumeId(one.volume?.0), placement::Expect::from(&one.expect)));
                let head = |(volume, seq): (&Hex<32>, &Number)| {
                    let zero =
                        placement::Head { epoch: Epoch(0), seq: Seq(seq.0), manifest: ManifestId([0; 32]) };
                    (VolumeId(volume.0), zero)
                };
                let rollback_to = match &start.rollback_to {
                    Some(MomentName::Seals(seals)) => seals.iter().map(head).collect(),
                    _ => BTreeMap::new(),
                };
                pure::Order::Start(pure::Start {
                    policy: start.policy,
                    volumes: start.volumes.iter().filter_map(volume).collect(),
                    rollback_to,
                })
            }
            Order::Stop => pure::Order::Stop,
            Order::HandOver { .. } => pure::Order::HandOver,
            Order::Settings(settings) => pure::Order::Settings(settings.policy),
            _ => return None,
        };
        Some(pure::Command {
            number: self.number,
            operation: self.operation,
            app: self.app?,
            term: self.term?,
            generation: self.generation?,
            order,
        })
    }
}

impl CommandResult {
    /// Of what a device's pure part decided; what it does not know (cuts, moments) is added by its doors.
    pub fn of(result: &pure::CommandResult, ended_age_ms: u64) -> Self {
        let (state, code) = match result.outcome {
            pure::Outcome::Done => (ResultState::Done, None),
            pure::Outcome::Failed(problem) => (ResultState::Failed, Some(problem)),
            pure::Outcome::Obsolete => (ResultState::Obsolete, None),
        };
        let data = Data {
            heads: List::cut(result.data.heads.iter().map(|(volume, head)| HeadAt::of(*volume, head))),
            writers: List::cut(
                result
                    .data
                    .writers
                    .iter()
                    .map(|(volume, writer)| WriterAt { volume: Hex(volume.0), writer: Hex(writer.0) }),
            ),
            started: Some(result.data.started),
            healthy: Some(result.data.healthy),
            ..Data::default()
        };
        let problem = code.map(ProblemReport::new);
        Self { number: result.number, state, code, problem, data, ended_age_ms: Number::from(ended_age_ms) }
    }

    /// What a hive decides by.
    ///
    /// A cut that is no head beside counts as one: what was claimed was committed.
    pub fn decided(&self, app: AppId) -> pure::CommandResult {
        let outcome = match self.state {
            ResultState::Done => pure::Outcome::Done,
            ResultState::Failed => {
                let told = self.code.or(self.problem.as_ref().map(|problem| problem.code));
                pure::Outcome::Failed(told.unwrap_or(Problem::Unknown))
            }
            ResultState::Obsolete => pure::Outcome::Obsolete,
        };
        let cut = |cut: &Cut| {
            let head = HeadOf { epoch: cut.epoch, seq: cut.seq, manifest: cut.manifest };
            (VolumeId(cut.volume.0), placement::Head::from(head))
        };
        let mut heads: BTreeMap<_, _> = self.data.cuts.iter().map(cut).collect();
        heads.extend(self.data.heads.iter().map(HeadAt::head));
        let writer = |one: &WriterAt| (VolumeId(one.volume.0), fs_format::DeviceId(one.writer.0));
        pure::CommandResult {
            number: self.number,
            app,
            outcome,
            data: pure::Data {
                heads,
                writers: self.data.writers.iter().map(writer).collect(),
                started: self.data.started.unwrap_or(false),
                healthy: self.data.healthy.unwrap_or(false),
            },
        }
    }
}
