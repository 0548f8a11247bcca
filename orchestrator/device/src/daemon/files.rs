//! What a device keeps beside records: which hive, and what it was told of each app.
//!
//! ```text
//! FOLDER/identity                       the seed of the device's key, 0600
//! FOLDER/hive.json                      the hive that its code named
//! FOLDER/results.json                   results of commands that no record decides about
//! FOLDER/apps/APP/app.json              what the last start said
//! FOLDER/apps/APP/package-REVISION.json a package as it came
//! FOLDER/apps/APP/volumes/NAME          where a volume is mounted
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_crypto::Identity;
use orchestrator_api::ids::{AppId, DeviceId, VolumeId};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::account::Package;
use orchestrator_api::wire::command::StoreName;
use serde::{Deserialize, Serialize};

use crate::app::ports::GivenPort;
use crate::doors::disk::{self, gone};
use crate::trouble::Trouble;

/// The hive of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiveFile {
    /// Where it is.
    pub url: String,
    /// Its public key, which the code named.
    pub key: Hex<32>,
    /// What it calls this device.
    pub device: DeviceId,
    /// Whose device it is.
    pub account: Uuid,
    /// What people call it.
    pub name: String,
    /// Whether the hive may have packages sealed here.
    #[serde(default)]
    pub accepts_authoring: bool,
    /// Whether it takes updates of itself.
    #[serde(default)]
    pub auto_update: bool,
}

/// What a device was told of an app.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppFile {
    /// Its name.
    pub name: String,
    /// The package that runs, or is to.
    pub revision: u64,
    /// The highest revision that it prepared, started, or kept after an update: none below it is taken any more.
    #[serde(default)]
    pub highest: u64,
    /// The first arbitrates.
    pub stores: Vec<StoreName>,
    /// The replication interval.
    pub seal_every_s: u64,
    /// Its volumes.
    pub volumes: Vec<AppVolume>,
    /// Ports of the machine that it got.
    pub ports: Vec<GivenPort>,
    /// The tag of the moment to go back to before it starts.
    pub rollback_tag: Option<String>,
    /// What an update goes back to, until the new revision has shown that it is well.
    #[serde(default)]
    pub update: Option<Update>,
    /// What its volumes are going back to: written down before the first one does, and gone when all of them have. Until then no
    /// container starts.
    #[serde(default)]
    pub rollback: Option<Rollback>,
    /// What came of the last update, or of the last rollback of what ran: the same order may be given again.
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// An update that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The revision that ran before.
    pub from: u64,
    /// The tag of the moment before it.
    pub tag: String,
}

/// Moments that the volumes of an app go back to, all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The tag of the operation that ordered it; none where a start says it, or an update goes back.
    pub order: Option<String>,
    /// Whether the app ran when it was ordered, and is started again with it.
    pub starts: bool,
    /// By public keys: a tag, or a seal's number.
    pub whens: BTreeMap<Hex<32>, String>,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The tag of its operation.
    pub order: String,
    /// Whether it was an update that went back.
    pub went_back: bool,
    /// Because of which service.
    pub service: Option<String>,
}

/// A volume of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppVolume {
    /// In the compose file.
    pub name: String,
    /// Its public key.
    pub volume: Hex<32>,
}

impl Update {
    /// That it went back, and why, for the order that is given again.
    pub fn went_back(&self, why: Option<&Trouble>) -> Ended {
        let service = why.and_then(|trouble| trouble.service.clone());
        Ended { order: self.tag.clone(), went_back: true, service }
    }

    /// That the new revision stays.
    pub fn stays(&self) -> Ended {
        Ended { order: self.tag.clone(), went_back: false, service: None }
    }
}

impl AppFile {
    /// With the revision of before an update, if one is under way.
    pub fn without_update(&self) -> Self {
        Self { revision: self.kept(), update: None, ..self.clone() }
    }

    /// The revision that the app has: while an update is under way, the one that it goes back to.
    pub fn kept(&self) -> u64 {
        self.update.as_ref().map_or(self.revision, |update| update.from)
    }

    /// The URLs of its stores.
    pub fn urls(&self) -> Vec<String> {
        self.stores.iter().map(|store| store.url.as_str().to_owned()).collect()
    }

    /// The name of a volume in the compose file.
    pub fn name_of(&self, volume: VolumeId) -> Option<&str> {
        self.volumes.iter().find(|one| one.volume.0 == volume.0).map(|one| one.name.as_str())
    }
}

/// The folder of a device.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// That of a state folder of `comb`.
    pub fn of(state: &Path) -> Self {
        Self(state.join("orchestrator"))
    }

    /// Its identity, if it has joined.
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        match std::fs::read(self.0.join("identity")) {
            Ok(seed) => {
                let seed = seed.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                Ok(Some(Identity::from_seed(seed)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its hive, if it has joined.
    pub fn hive(&self) -> io::Result<Option<HiveFile>> {
        disk::read_json(&self.0.join("hive.json"))
    }

    /// Writes what a join made.
    pub fn joined(&self, identity: &Identity, hive: &HiveFile) -> io::Result<()> {
        disk::make(&self.0)?;
        disk::replace(&self.0.join("identity"), &*identity.to_seed())?;
        // A new identity says its hellos from the beginning.
        gone(std::fs::remove_file(self.0.join("device.json")))?;
        disk::replace_json(&self.0.join("hive.json"), hive)
    }

    /// Changes what is known of the hive.
    pub fn write_hive(&self, hive: &HiveFile) -> io::Result<()> {
        disk::replace_json(&self.0.join("hive.json"), hive)
    }

    /// Removes what makes it that device, after it was revoked.
    pub fn remove_identity(&self) -> io::Result<()> {
        ["identity", "hive.json", "device.json"]
            .iter()
            .try_for_each(|name| gone(std::fs::remove_file(self.0.join(name))))
    }

    /// The folder of an app.
    pub fn app(&self, app: AppId) -> PathBuf {
        self.0.join("apps").join(app.to_string())
    }

    /// Where a volume of an app is mounted.
    pub fn mount(&self, app: AppId, name: &str) -> PathBuf {
        self.app(app).join("volumes").join(name)
    }

    /// What was told of an app.
    pub fn read_app(&self, app: AppId) -> io::Result<Option<AppFile>> {
        disk::read_json(&self.app(app).join("app.json"))
    }

    /// Writes what was told of an app.
    pub fn write_app(&self, app: AppId, file: &AppFile) -> io::Result<()> {
        disk::make(&self.app(app))?;
        disk::replace_json(&self.app(app).join("app.json"), file)
    }

    /// A package that is here.
    pub fn read_package(&self, app: AppId, revision: u64) -> io::Result<Option<Package>> {
        disk::read_json(&self.app(app).join(format!("package-{revision}.json")))
    }

    /// Keeps a package.
    pub fn write_package(&self, app: AppId, revision: u64, package: &Package) -> io::Result<()> {
        disk::make(&self.app(app))?;
        disk::replace_json(&self.app(app).join(format!("package-{revision}.json")), package)
    }
}
