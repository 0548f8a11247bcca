//! Devices: all of them, a new one, and one with its figures.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Graph, Health, Html, health};

/// A device in the list.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    /// Its page.
    pub path: String,
    /// Its name.
    pub name: Html,
    /// How well it is.
    pub health: Health,
    /// The same in words.
    pub words: String,
    /// Of its program.
    pub version: String,
    /// Processor and memory.
    pub load: String,
    /// What is free on its disks.
    pub disks: String,
    /// What runs there.
    pub apps: Vec<(String, Html)>,
    /// How many more run there.
    pub more_apps: usize,
    /// What is not safe elsewhere.
    pub backlog: String,
}

impl DeviceRow {
    fn circle(&self) -> Html {
        health(self.health, &self.words)
    }
}

/// All devices.
#[derive(Debug, Template)]
#[template(path = "pages/devices.html")]
pub struct Devices {
    /// What all pages have.
    pub frame: Frame,
    /// The devices.
    pub rows: Vec<DeviceRow>,
    /// Whether this person may add one.
    pub can_add: bool,
    /// Codes that no device used yet: what the device will be called, until when, and where the code is taken back.
    pub codes: Vec<(String, Html, String)>,
    /// Where further devices are listed.
    pub more: Option<String>,
}

/// The form that makes a code for a new device.
#[derive(Debug, Template)]
#[template(path = "pages/device_add.html")]
pub struct AddDevice {
    /// What all pages have.
    pub frame: Frame,
    /// Whether it is the first one.
    pub is_first: bool,
    /// What it is called, whether it updates itself.
    pub fields: Vec<Field>,
}

/// The command for a new device, shown once; and the device, as soon as it is there.
#[derive(Debug, Template)]
#[template(path = "pages/device_new.html")]
pub struct NewDevice {
    /// What all pages have.
    pub frame: Frame,
    /// For a shell; not shown again when the page is asked for later.
    pub command: Option<String>,
    /// The same in a container.
    pub docker: Option<String>,
    /// Where it can be seen whether the device came.
    pub path: String,
    /// Until when the code is good; none if it is over.
    pub ends: Option<Html>,
    /// The device, once it joined.
    pub device: Option<DeviceRow>,
    /// Whether it was heard since.
    pub is_heard: bool,
    /// Whether the address works on the hive's own machine only.
    pub is_loopback: bool,
    /// Whether there is no key ring yet, so this device makes one.
    pub is_first: bool,
}

/// An app on a device.
#[derive(Debug, Clone)]
pub struct AppRow {
    /// Its page.
    pub path: String,
    /// Its name.
    pub name: Html,
    /// How well it is.
    pub health: Html,
    /// Of the processors.
    pub cpu: String,
    /// Of the memory.
    pub memory: String,
}

/// A volume on a device.
#[derive(Debug, Clone)]
pub struct VolumeRow {
    /// Its app's page.
    pub path: String,
    /// App and volume.
    pub name: Html,
    /// How it is.
    pub state: String,
    /// How large it is.
    pub bytes: String,
    /// When it was last safe elsewhere.
    pub safe: Html,
    /// What is not.
    pub backlog: String,
}

/// One device.
#[derive(Debug, Template)]
#[template(path = "pages/device.html")]
pub struct Device {
    /// What all pages have.
    pub frame: Frame,
    /// Its own page.
    pub path: String,
    /// Its name.
    pub name: Html,
    /// The same as text.
    pub title: String,
    /// How well it is.
    pub health: Html,
    /// When it was last heard; none if never.
    pub seen: Option<Html>,
    /// Facts: what, and its value.
    pub facts: Vec<(&'static str, Html)>,
    /// What runs there.
    pub apps: Vec<AppRow>,
    /// Their volumes.
    pub volumes: Vec<VolumeRow>,
    /// Lengths of time: what each is called, where it is, and whether it is shown.
    pub spans: Vec<(&'static str, String, bool)>,
    /// The figures of that time.
    pub graphs: Vec<Graph>,
    /// Its new name.
    pub rename: Option<Field>,
    /// What could not leave it when it was emptied: its page, its name, and why.
    pub left: Vec<(String, Html, String)>,
    /// Whether nothing empties it any more, so that it can be tried again.
    pub can_try_again: bool,
    /// Whether it is emptied now.
    pub is_draining: bool,
    /// Whether it is nobody any more.
    pub is_revoked: bool,
    /// Whether its stores still take its credentials.
    pub stores_open: bool,
    /// Whether this person may empty it.
    pub can_drain: bool,
    /// Whether this person may revoke and update it.
    pub can_own: bool,
    /// Why it takes no orders now, without its name: `is silent`.
    pub no_orders: Option<&'static str>,
    /// A newer release that it can take.
    pub update: Option<(u64, String)>,
    /// How its last update went.
    pub updating: Option<String>,
}
