//! What the hive does in steps, and what happened: `api.md`, sections 8 and 10.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::app::AtStake;
use super::command::Data;
use super::device::APPS_MAX;
use super::report::ProblemReport;
use super::value::{List, Number, Text};
use crate::ids::{AppId, DeviceId, OperationId, Term};
use crate::text::{Hex, Time, Uuid};

/// How long an order may be waited for with `?wait_ms=`.
pub const WAIT_MS_MAX: u64 = 25_000;

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// What began; finished already if it was waited for and did.
    pub operation: Operation,
    /// Of a move: what is at stake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_stake: Option<AtStake>,
    /// Of what makes an app: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppId>,
}

/// Something that the hive does in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Of the account.
    pub number: Number,
    /// What is done.
    pub kind: String,
    /// With which app.
    pub app: Option<AppId>,
    /// On which device.
    pub device: Option<DeviceId>,
    /// How it stands.
    pub state: State,
    /// Where it is.
    pub step: Option<String>,
    /// All of its kind.
    pub steps: Vec<String>,
    /// How much of the step is done.
    pub done: Option<Number>,
    /// Of so much.
    pub total: Option<Number>,
    /// Why it failed; while it runs `device_silent`, if the device that it waits for does not report.
    pub code: Option<String>,
    /// The same, with its place.
    pub problem: Option<ProblemReport>,
    /// What came of it.
    pub result: Option<Outcome>,
    /// When it began.
    pub begun: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Who ordered it.
    pub by: By,
    /// Whether it can be cancelled now.
    pub can_cancel: bool,
    /// The device whose answer the step waits for.
    #[serde(default)]
    pub waits_for: Option<DeviceId>,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on.
    Running,
    /// It is done.
    Done,
    /// It is not.
    Failed,
    /// A person did not want it any more.
    Cancelled,
    /// A restored hive does not know what came of it.
    Lost,
}

impl State {
    /// As it travels.
    pub fn text(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Lost => "lost",
        }
    }
}

/// What came of an operation: of a move or failover the first fields, of others the last command's data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Who has the app now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DeviceId>,
    /// What was lost; none where nothing can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Of a device that was emptied: the apps that stay, and why.
    #[serde(default, skip_serializing_if = "none_left")]
    pub left: List<Left, APPS_MAX>,
    /// The last command's.
    #[serde(flatten)]
    pub data: Data,
}

fn none_left(left: &List<Left, APPS_MAX>) -> bool {
    left.is_empty()
}

/// An app that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Which.
    pub app: AppId,
    /// Why: a code of errors or problems, or `stopped`: it does not run, so there is nothing to hand over.
    pub code: String,
}

/// What was lost: `failover.md`, section 9.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// At most so much; none: not known until the device is heard of.
    pub lost_seconds_max: Option<Number>,
    /// Backlog in the last report.
    pub lost_bytes_known: Number,
    /// Once the device returned.
    pub exact: Option<Exact>,
}

/// What was lost, as the device that returned says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exact {
    /// From the cut to the end of its branch.
    pub seconds: Number,
    /// In its branch.
    pub bytes: Number,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct By {
    /// A person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Uuid>,
    /// With which token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// A device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The hive itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hive: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of the account.
    pub number: Number,
    /// When.
    pub time: Time,
    /// What.
    pub kind: String,
    /// Who did it.
    pub by: By,
    /// From which address.
    pub from: Option<Text<64>>,
    /// With which app.
    pub app: Option<AppId>,
    /// On which device.
    pub device: Option<DeviceId>,
    /// By which operation.
    pub operation: Option<OperationId>,
    /// Of the app.
    pub term: Option<Term>,
    /// Numbers and codes.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Over the one before and this.
    pub hash: Hex<32>,
}

/// One line of `GET /v1/watch`: that something changed, not what it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `app`, `device`, `operation`, `event`, `people`, `store`, `ring`.
    pub kind: String,
    /// Its id, as text.
    pub id: String,
}
