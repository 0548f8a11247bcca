//! Devices: joining, hello, and how people see them.

use serde::{Deserialize, Serialize};

use super::report::{Disk, Docker, Load, UpdateState};
use super::value::{List, Name, Number, Text, Title, Word};
use crate::ids::{
    AppId, CommandNumber, DeviceId, Generation, HelloNumber, Incarnation, RunId, SessionId, Term,
};
use crate::release::Arch;
use crate::report as pure;
use crate::text::{Hex, Time, Uuid};

/// The most apps on a device.
pub const APPS_MAX: usize = 200;
/// The most features that a device says.
pub const FEATURES_MAX: usize = 64;

/// `POST /v1/device/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The device's public key.
    pub identity: Hex<32>,
    /// What it is called, unless the code says otherwise.
    pub name: Title,
    /// Of its program.
    pub version: Text<64>,
    /// Its processor.
    pub arch: Arch,
    /// What it can be asked for.
    #[serde(default)]
    pub features: List<Word, FEATURES_MAX>,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// What it is called by the hive.
    pub device: DeviceId,
    /// Whose it is.
    pub account: Uuid,
    /// What people call it.
    pub name: String,
    /// The pseudonym that the account's ring has; none before there is one.
    pub ring_account: Option<Hex<16>>,
    /// The owner's public key; none before there is a ring.
    pub owner: Option<Hex<32>>,
    /// The hive's.
    pub incarnation: Incarnation,
    /// Whether whoever made the code wishes that it updates itself.
    #[serde(default)]
    pub auto_update: bool,
}

/// `POST /v1/device/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Written to disk before.
    pub hello: HelloNumber,
    /// Of this run of the process.
    pub run: RunId,
    /// The highest that it saw.
    pub incarnation: Incarnation,
    /// Of its program.
    pub version: Text<64>,
    /// Its processor.
    pub arch: Arch,
    /// What it can be asked for.
    #[serde(default)]
    pub features: List<Word, FEATURES_MAX>,
    /// Whether it has no key to the ring yet.
    #[serde(default)]
    pub locked: bool,
    /// Whether it takes updates of itself.
    #[serde(default)]
    pub auto_update: bool,
    /// Whether it seals packages for the hive.
    #[serde(default)]
    pub accepts_authoring: bool,
    /// The highest command that any record names.
    pub commands_have: CommandNumber,
    /// What a hive that forgot must know.
    #[serde(default)]
    pub apps: List<HelloApp, APPS_MAX>,
    /// That it has the ring open: the owner's signature over [`crate::proof::of_device`]. A device without it is locked,
    /// whatever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Hex<64>>,
}

/// An app, as a hive that forgot it must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloApp {
    /// Which one.
    pub app: AppId,
    /// The highest term that the device has seen.
    pub term: Term,
    /// Whether it was given to this device.
    pub mine: bool,
    /// Whether its volumes refuse writes without a lease.
    pub leased: bool,
    /// Whether it was stopped by order.
    pub stopped: bool,
    /// The highest that the device has seen.
    pub generation: Generation,
    /// That the app has, also while it is being updated; 0 if there is none.
    pub revision: Number,
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Goes into every signature from now on.
    pub session: SessionId,
    /// The hive's.
    pub incarnation: Incarnation,
    /// Whether it waits for its devices.
    pub recovering: bool,
    /// How often to report.
    pub report_every_ms: Number,
    /// The newest version of the ring that the hive has; none before there is one.
    #[serde(default)]
    pub ring: Option<Number>,
    /// Whether the hive takes the device for locked: its hello showed no ring that the hive knows.
    #[serde(default)]
    pub locked: bool,
    /// Apps of which the device has a later package than the hive: it brings them.
    #[serde(default)]
    pub packages: List<AppId, APPS_MAX>,
}

impl From<&Hello> for pure::Hello {
    fn from(hello: &Hello) -> Self {
        let app = |said: &HelloApp| {
            let HelloApp { app, term, mine, leased, stopped, generation, .. } = *said;
            (app, pure::HelloApp { term, mine, generation, leased, stopped })
        };
        Self {
            number: hello.hello,
            run: hello.run,
            incarnation: hello.incarnation,
            command: hello.commands_have,
            apps: hello.apps.iter().map(app).collect(),
        }
    }
}

/// How a device stands with the hive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It reports.
    Online,
    /// It has not reported for 30 s.
    Silent,
    /// It is being emptied.
    Draining,
    /// It is nobody any more.
    Revoked,
}

/// A device, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// What it is called.
    pub name: String,
    /// How it stands with the hive.
    pub state: DeviceState,
    /// Whether it waits for its passphrase.
    pub locked: bool,
    /// When it joined.
    pub joined: Time,
    /// How long ago it reported; none if it never did.
    pub seen_age_ms: Option<Number>,
    /// Of its program.
    pub version: String,
    /// Its processor.
    pub arch: Arch,
    /// What it can be asked for.
    pub features: Vec<String>,
    /// Whether it takes updates of itself.
    pub auto_update: bool,
    /// Whether it seals packages for the hive.
    pub accepts_authoring: bool,
    /// How its update stands.
    pub update: Option<UpdateState>,
    /// Of the machine.
    pub load: Option<Load>,
    /// Room.
    pub disks: Vec<Disk>,
    /// Whether Docker answers.
    pub docker: Option<Docker>,
    /// What is placed on it.
    pub apps: Vec<AppId>,
    /// Of a revoked one: whether its stores still take its credentials.
    pub stores_open: bool,
    /// Number of what was changed of it.
    pub generation: Generation,
}

/// `PATCH /v1/devices/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeDevice {
    /// What it is called from now on.
    pub name: Name,
}

/// `POST /v1/devices/{id}/drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Whether it is to be emptied; else it takes apps again.
    pub on: bool,
}

/// `POST /v1/devices/{id}/revoke`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revoke {
    /// Whether no store takes its credentials any more.
    #[serde(default)]
    pub stores_closed: bool,
}

/// `POST /v1/devices/{id}/doctor`, `/facts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToStream {
    /// Where the answer goes.
    pub stream: Uuid,
}

/// `POST /v1/devices/{id}/update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateDevice {
    /// Which release.
    pub release: Number,
}
