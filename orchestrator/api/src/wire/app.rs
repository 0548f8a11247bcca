//! Apps as people see them, and what people order of them: `api.md`, section 4.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::command::{LINES_MAX, MESSAGE_SEALED_BYTES_MAX, Moment, MomentName, STORES_MAX};
use super::report::{AppReport, Branch, ProblemReport};
use super::value::{Base64, Key, List, Name, Number, Tag, Text, Within};
use crate::compose::{FILES_MAX, FOLDER_BYTES_MAX, InputType, SERVICES_MAX};
use crate::ids::{AppId, DeviceId, Generation, OperationId, Term};
use crate::placement::Policy;
use crate::text::{Hex, Time, Uuid};

/// The most devices that stand by for an app.
pub const STANDBY_MAX: usize = 8;

/// Whether an app is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It is.
    Running,
    /// It is not.
    Stopped,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// What it is called.
    pub name: String,
    /// Of the package.
    pub version: String,
    /// Of the package.
    pub revision: Number,
    /// Who may move it.
    pub policy: Policy,
    /// Whether it is to run.
    pub wanted: Wanted,
    /// Its name in the net.
    pub domain: Option<String>,
    /// Where it is to run; none where nobody is known to have it.
    pub device: Option<DeviceId>,
    /// Of its placement.
    pub term: Term,
    /// Number of what is wanted of it.
    pub generation: Generation,
    /// Who stands by.
    pub standby: Vec<DeviceId>,
    /// The first arbitrates.
    pub stores: Vec<Uuid>,
    /// The replication interval.
    pub seal_every_s: Number,
    /// Its part of its device's last report.
    pub report: Option<AgedReport>,
    /// What is being done with it.
    pub operation: Option<OperationId>,
    /// What would be lost if its device were lost now.
    pub at_stake: Option<AtStake>,
    /// Tails that devices kept.
    pub branches: Vec<KeptBranch>,
    /// What is wrong.
    pub problem: Option<AppProblem>,
    /// What leads to it.
    pub address: Option<String>,
    /// Of the package.
    pub services: Vec<Service>,
    /// Of the package, with keys once they exist.
    pub volumes: Vec<Volume>,
    /// Of the package.
    pub actions: Vec<Action>,
    /// Of the package.
    pub permissions: Vec<String>,
}

/// An app's part of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedReport {
    /// When the report came.
    pub age_ms: Number,
    /// What it said.
    #[serde(flatten)]
    pub report: AppReport,
}

/// What would be lost if an app's device were lost now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtStake {
    /// Age of the newest moment that is safe, by now; none if there is none.
    pub seconds: Option<Number>,
    /// What is not safe.
    pub bytes: Number,
    /// When that was reported.
    pub report_age_ms: Number,
}

/// A branch, with who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBranch {
    /// Who has it.
    pub device: DeviceId,
    /// What it is.
    #[serde(flatten)]
    pub branch: Branch,
}

/// What is wrong with an app: its device's word, or the hive's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppProblem {
    /// For programs: a problem of section 6, or `no_standby`, `no_candidate`,
    /// `volumes_unknown`, `not_held`.
    pub code: String,
    /// Who says so; none for the hive.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// With its place.
    #[serde(default)]
    pub problem: Option<ProblemReport>,
}

/// A service of the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// In the compose file.
    pub name: String,
    /// As the compose file names it.
    pub image: String,
    /// What runs.
    pub digest: String,
}

/// A volume of the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// In the compose file.
    pub name: String,
    /// Its public key, once it was made.
    pub volume: Option<Hex<32>>,
}

/// An action of the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub service: String,
    /// What it asks for.
    pub input: Vec<ActionInput>,
}

/// An input of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionInput {
    /// Its name.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: InputType,
}

/// `POST /v1/apps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeApp {
    /// Its id; a package of it was posted before.
    pub app: AppId,
    /// Of the package.
    pub revision: Number,
    /// Where it is to run; the hive chooses if nothing is said.
    #[serde(default)]
    pub device: Option<DeviceId>,
    /// Who may move it.
    pub policy: Policy,
    /// 1 to 8, the first arbitrates.
    pub stores: List<Uuid, STORES_MAX>,
    /// Whether it is started.
    pub start: bool,
}

/// `POST /v1/apps/author`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorApp {
    /// Who seals it.
    pub device: DeviceId,
    /// What it is called.
    pub name: Name,
    /// Its folder.
    pub files: List<FolderFile, FILES_MAX>,
    /// The main file.
    pub compose: Text<255>,
    /// What was chosen.
    #[serde(default)]
    pub options: List<OptionValue, 128>,
    /// Its name in the net, instead of what `x-comb` says.
    #[serde(default)]
    pub domain: Option<Text<253>>,
    /// Makes the app as well, once it is sealed; else `POST /v1/apps` does.
    #[serde(default)]
    pub install: Option<Install>,
}

/// How an app is made of the package that a device sealed for the hive; it runs on that device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    /// Who may move it.
    pub policy: Policy,
    /// 1 to 8, the first arbitrates.
    pub stores: List<Uuid, STORES_MAX>,
    /// Whether it is started.
    pub start: bool,
}

/// A file of an app's folder. Prints its path only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderFile {
    /// Below the folder.
    pub path: Text<255>,
    /// At most 0777.
    pub mode: Within<0, 0o777>,
    /// What is in it.
    pub bytes: Base64<FOLDER_BYTES_MAX>,
}

impl fmt::Debug for FolderFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolderFile").field(&self.path).finish()
    }
}

/// A value of an option. Prints its name only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionValue {
    /// Of the option.
    pub name: Text<64>,
    /// At most 4,096 bytes.
    pub value: super::value::Hidden,
}

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OptionValue").field(&self.name).finish()
    }
}

/// A value of an action's input. Prints its name only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionValue {
    /// Of the input.
    pub name: Text<64>,
    /// By the input's type.
    pub value: super::value::Hidden,
}

impl fmt::Debug for ActionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActionValue").field(&self.name).finish()
    }
}

/// `PATCH /v1/apps/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeApp {
    /// Who may move it.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// Who stands by.
    #[serde(default)]
    pub standby: Option<List<DeviceId, STANDBY_MAX>>,
    /// From the next mount on.
    #[serde(default)]
    pub seal_every_s: Option<Within<5, 300>>,
    /// Where its data goes, from its next start on; the first decides who writes.
    #[serde(default)]
    pub stores: Option<List<Uuid, STORES_MAX>>,
}

/// An order without fields: `…/start`, `…/stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plain {}

/// `…/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restart {
    /// Of these only.
    #[serde(default)]
    pub services: Option<List<Key, SERVICES_MAX>>,
}

/// `…/move`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where to.
    pub to: DeviceId,
    /// Without the present device.
    #[serde(default)]
    pub forced: bool,
    /// Must be true if forced.
    #[serde(default)]
    pub accept_loss: bool,
    /// Although the present device reports.
    #[serde(default)]
    pub even_if_online: bool,
    /// Although somebody wrote whom the hive does not know of: those that the last `head_unexpected` told.
    #[serde(default)]
    pub accept_seen: bool,
}

/// `…/update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Of the package that is to run.
    pub revision: Number,
}

/// `…/snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// What it is called.
    #[serde(default)]
    pub tag: Option<Tag>,
    /// What is said of it, sealed for devices: the hive has no business with it.
    #[serde(default)]
    pub message: Option<Base64<MESSAGE_SEALED_BYTES_MAX>>,
}

/// `GET …/moments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments {
    /// Newest first.
    pub items: Vec<Moment>,
    /// When the device told them, if it does not answer now.
    #[serde(default)]
    pub as_of: Option<Time>,
}

/// `…/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Where to.
    pub to: MomentName,
    /// Whether it runs afterwards; if nothing is said, if it is wanted.
    #[serde(default)]
    pub start: Option<bool>,
}

/// `…/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Which moment.
    pub to: MomentName,
    /// What the new app is called.
    pub into: Name,
}

/// `…/fork`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Where volumes without a branch are taken; the newest if nothing is said.
    #[serde(default)]
    pub to: Option<MomentName>,
    /// What the new app is called.
    pub name: Name,
    /// By the volumes' public keys: which branch of each.
    #[serde(default)]
    pub branches: Option<BTreeMap<Hex<32>, Text<64>>>,
    /// Whose branches; the app's own device if nothing is said.
    #[serde(default)]
    pub device: Option<DeviceId>,
}

/// `…/actions/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAction {
    /// Its values.
    #[serde(default)]
    pub input: List<ActionValue, 8>,
    /// Where its output goes.
    pub stream: Uuid,
}

/// `…/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Of these services only.
    #[serde(default)]
    pub services: Option<List<Key, SERVICES_MAX>>,
    /// How many of the past.
    #[serde(default = "no_lines")]
    pub lines: Within<0, LINES_MAX>,
    /// Whether to go on.
    #[serde(default)]
    pub follow: bool,
    /// Where they go.
    pub stream: Uuid,
}

fn no_lines() -> Within<0, LINES_MAX> {
    Within(0)
}
