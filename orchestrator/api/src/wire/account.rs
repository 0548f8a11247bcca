//! The hive itself, and what an account has in it: rings, stores, codes, releases, packages.

use serde::{Deserialize, Serialize};

use super::value::{Base64, Hidden, List, Name, Number, Text};
use crate::ids::{AppId, DeviceId, Incarnation};
use crate::package::{AUTHORIZATION_BYTES_MAX, BODY_BYTES_MAX};
use crate::release::{Arch, RELEASE_BYTES_MAX};
use crate::text::{Hex, Time, Uuid};

/// The most devices that a recovering hive names.
pub const MISSING_MAX: usize = 1000;
/// The longest URL of a store, in bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// The largest backup that `POST /v1/hive/backup` sends is not limited; this is the name of its kind.
pub const BACKUP_TYPE: &str = "application/octet-stream";

/// `GET /v1/hive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiveInfo {
    /// Its public key.
    pub key: Hex<32>,
    /// Of its program.
    pub version: String,
    /// Of these types: 1.
    pub api: u64,
    /// Whether it has an account.
    pub set_up: bool,
    /// The base of apps' names.
    pub domain: String,
    /// Number of its life between restores; with a login only, as what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// Whether it waits for its devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
    /// The devices that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_devices: Option<List<DeviceId, MISSING_MAX>>,
}

/// `POST /v1/hive/recovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// All devices that are missing.
    pub accept_missing: List<DeviceId, MISSING_MAX>,
}

/// A version of the account's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingVersion {
    /// Its number.
    pub number: Number,
    /// Of the object.
    pub bytes: Number,
    /// When it came.
    pub made: Time,
}

/// `POST /v1/stores`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeStore {
    /// Canonical; without credentials.
    pub url: Text<URL_BYTES_MAX>,
    /// Of a `file://`: whether each device sees the same folder.
    #[serde(default)]
    pub shared: bool,
    /// Of a `file://` that is not shared: the device that has it.
    #[serde(default)]
    pub device: Option<DeviceId>,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Its id.
    pub id: Uuid,
    /// Canonical.
    pub url: String,
    /// Whether each device sees the same folder.
    pub shared: bool,
    /// The device that has it.
    pub device: Option<DeviceId>,
}

impl Store {
    /// Whether no other device ever sees what lies there.
    #[must_use]
    pub fn is_of_one_device(&self) -> bool {
        self.url.starts_with("file://") && !self.shared
    }
}

/// `POST /v1/device-codes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MakeDeviceCode {
    /// What the device will be called; else it says so itself.
    #[serde(default)]
    pub name: Option<Name>,
    /// Whether the device takes updates of itself.
    #[serde(default)]
    pub auto_update: bool,
}

/// Its answer: the only time that the code is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewDeviceCode {
    /// Its id, by which it is removed.
    pub id: Hex<8>,
    /// The hive's key and the secret.
    pub code: Hidden,
    /// Until when.
    pub ends: Time,
    /// The whole line for a shell, with `HIVE` for the address. Who pinned the hive's key makes it anew of the code
    /// ([`JoinCode::join_command`](crate::code::JoinCode::join_command)), which is the part that the key vouches for.
    pub command: Hidden,
    /// The same in a container.
    pub docker: Hidden,
}

/// A code that no device used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenDeviceCode {
    /// Its id.
    pub id: Hex<8>,
    /// What the device will be called.
    pub name: Option<String>,
    /// Whether the device takes updates of itself.
    pub auto_update: bool,
    /// Until when.
    pub ends: Time,
}

/// `POST /v1/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeRelease {
    /// What the owner signed.
    pub release: Base64<RELEASE_BYTES_MAX>,
    /// Over it.
    pub signature: Base64<64>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseInfo {
    /// Its number.
    pub number: Number,
    /// For people.
    pub version: String,
    /// The processors whose programs are here; the others are still to be sent.
    pub present: Vec<Arch>,
    /// Those that are not.
    pub missing: Vec<Arch>,
}

/// `POST /v1/packages`, and the answer of `GET /v1/packages/{app}/{revision}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// What the owner signed.
    pub authorization: Base64<AUTHORIZATION_BYTES_MAX>,
    /// Over it.
    pub signature: Base64<64>,
    /// The sealed object.
    pub body: Base64<BODY_BYTES_MAX>,
}

/// The answer to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageName {
    /// Which app.
    pub app: AppId,
    /// Which revision of it.
    pub revision: Number,
}

/// An id of what was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The id.
    pub id: Uuid,
}
