//! Apps of a device, and other volumes of its machine.

use askama::Template;

use crate::layout::Frame;
use crate::show::Html;

/// A volume.
#[derive(Debug, Clone)]
pub struct VolumeRow {
    /// What it is called.
    pub name: Html,
    /// Its time machine.
    pub moments: String,
    /// Its newest moment, as files; none if there is no moment yet.
    pub files: Option<String>,
    /// When it was sealed last.
    pub newest: Option<Html>,
    /// How many files, and how much: `1,024 files, 3 GiB`.
    pub holds: String,
    /// What is not as it should be, in words.
    pub trouble: Option<String>,
    /// Branches that were kept.
    pub branches: usize,
}

/// An app.
#[derive(Debug, Clone)]
pub struct AppTile {
    /// What it is called.
    pub name: Html,
    /// Its page.
    pub path: String,
    /// Its logs.
    pub logs: String,
    /// How it is.
    pub health: Html,
    /// Its volumes.
    pub volumes: Vec<VolumeRow>,
}

/// Something that is being brought back, or was.
#[derive(Debug, Clone)]
pub struct WorkRow {
    /// What it is called.
    pub name: Html,
    /// Of which volume.
    pub volume: Html,
    /// What becomes of it.
    pub state: Html,
    /// Its page.
    pub path: String,
}

/// The first page.
#[derive(Debug, Template)]
#[template(path = "pages/own/start.html")]
pub struct Start {
    /// What all pages have.
    pub frame: Frame,
    /// What the device is called.
    pub device: String,
    /// Its apps.
    pub apps: Vec<AppTile>,
    /// Volumes that are no app's.
    pub others: Vec<VolumeRow>,
    /// What is being brought back, and was lately, newest first.
    pub works: Vec<WorkRow>,
    /// When the session ends.
    pub ends: Option<Html>,
}
