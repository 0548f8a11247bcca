//! Who and what is who: people, devices and apps of an account by their ids.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::operation::By;
use orchestrator_console::show::{self, Html};

use super::super::fail::Fail;
use super::super::tenant::Tenant;

/// Names by ids.
pub type Names = BTreeMap<[u8; 16], String>;

/// All names of an account.
pub struct Who {
    /// Of people.
    pub people: Names,
    /// Of devices.
    pub devices: Names,
    /// Of apps.
    pub apps: Names,
    /// Of people who left.
    former: Names,
    /// Of apps that were removed.
    removed: Names,
}

impl Who {
    /// Reads them.
    pub fn of(tenant: &mut Tenant<'_>) -> Result<Self, Fail> {
        let former = names(tenant, "SELECT person, name FROM former WHERE account = $1")?;
        let removed = names(tenant, "SELECT app, name FROM former_app WHERE account = $1")?;
        Ok(Self { people: people(tenant)?, devices: devices(tenant)?, apps: apps(tenant)?, former, removed })
    }

    /// A person.
    pub fn person(&self, id: Uuid) -> Html {
        // A name that is free again may be somebody else's now.
        match (self.people.get(&id.0), self.former.get(&id.0)) {
            (Some(name), _) => show::name(name),
            (None, Some(name)) => Html::pair(show::name(name), " (left)"),
            (None, None) => Html::text("somebody who left"),
        }
    }

    /// A device.
    pub fn device(&self, id: DeviceId) -> Html {
        self.devices.get(&id.0).map_or_else(|| Html::text("a device that is gone"), |name| show::name(name))
    }

    /// An app.
    pub fn app(&self, id: AppId) -> Html {
        // A name that is free again may be another app's now.
        match (self.apps.get(&id.0), self.removed.get(&id.0)) {
            (Some(name), _) => show::name(name),
            (None, Some(name)) => Html::pair(show::name(name), " (removed)"),
            (None, None) => Html::text("an app that is gone"),
        }
    }

    /// Who did something; nothing where nobody is named.
    pub fn by(&self, by: &By) -> Html {
        match (by.person, by.device) {
            (Some(person), _) => self.person(person),
            (None, Some(device)) => self.device(device),
            _ if by.hive => Html::text("the hive"),
            _ => Html::default(),
        }
    }
}

fn names(tenant: &mut Tenant<'_>, sql: &str) -> Result<Names, Fail> {
    let rows = tenant.query(sql, &[])?;
    rows.iter().map(|row| Ok((row.id(0)?, row.text(1)?.to_owned()))).collect()
}

/// The apps' names.
pub fn apps(tenant: &mut Tenant<'_>) -> Result<Names, Fail> {
    names(tenant, "SELECT app, name FROM app WHERE account = $1")
}

/// The devices' names.
pub fn devices(tenant: &mut Tenant<'_>) -> Result<Names, Fail> {
    names(tenant, "SELECT device, name FROM device WHERE account = $1")
}

/// The people's names.
pub fn people(tenant: &mut Tenant<'_>) -> Result<Names, Fail> {
    names(tenant, "SELECT person, name FROM person WHERE account = $1")
}
