//! The pages of a device: what is in volumes, and what apps write. Only a device makes them, of what it can read itself.
//!
//! What is shown of names and contents comes as [`Html`](crate::show::Html), made harmless; links come whole.

mod app;
mod assets;
mod compare;
mod doctor;
mod enter;
mod file;
mod folder;
mod logs;
mod lost;
mod moments;
mod restore;
mod start;
mod text;
mod timeline;
mod versions;

pub use app::{App, Container, Instant};
pub use assets::find;
pub(crate) use assets::{script, style};
pub use compare::{Chosen, Compare, CompareText, DiffLine, Difference, How};
pub use doctor::{Check, Doctor};
pub use enter::Enter;
pub use file::{File, Preview};
pub use folder::{Folder, Row, RowKind};
pub use logs::{LogLine, Logs, Service};
pub use lost::Lost;
pub use moments::{Branch, Day, MomentRow, Moments};
pub use restore::{Restore, Restored, Restoring, Way};
pub use start::{AppTile, Start, VolumeRow, WorkRow};
pub use text::{line, lines, plain};
pub use timeline::{Mark, Timeline};
pub use versions::{VersionRow, Versions};

use crate::show::Html;

/// A part of the way from the start to where one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crumb {
    /// What it is called.
    pub label: Html,
    /// Where it leads; nothing where one is.
    pub path: Option<String>,
}

/// A moment that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub seq: u64,
    /// What it is called.
    pub label: String,
    /// Whether it is the one that is shown.
    pub is_here: bool,
}

/// Of which moment a page is, and the way to others.
#[derive(Debug, Clone)]
pub struct Bar {
    /// When it was.
    pub time: Html,
    /// How long ago.
    pub ago: Html,
    /// Its number.
    pub seq: u64,
    /// Its tags, or what made it.
    pub reason: String,
    /// Whether there is no newer one.
    pub is_newest: bool,
    /// The route of the page.
    pub route: &'static str,
    /// The volume.
    pub volume: String,
    /// The bytes of the path, written by their numbers.
    pub packed: String,
    /// All moments, newest first.
    pub choices: Vec<Choice>,
    /// The one before.
    pub earlier: Option<String>,
    /// The one behind.
    pub later: Option<String>,
}
