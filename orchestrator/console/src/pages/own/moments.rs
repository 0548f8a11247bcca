//! The time machine of a volume.

use askama::Template;

use super::{Crumb, Timeline};
use crate::layout::Frame;
use crate::show::Html;

/// A moment.
#[derive(Debug, Clone)]
pub struct MomentRow {
    /// Its number.
    pub seq: u64,
    /// When: the time of its day, with the whole of it on hover.
    pub time: Html,
    /// How long ago.
    pub ago: Html,
    /// Why there is it: `before an update`, `asked for`, or nothing of note.
    pub reason: String,
    /// Tags.
    pub tags: Vec<Html>,
    /// What was said of it.
    pub message: Option<Html>,
    /// Whether somebody or something kept it on purpose.
    pub is_snapshot: bool,
    /// How many files and folders.
    pub files: String,
    /// How much.
    pub bytes: String,
    /// What it added.
    pub added: String,
    /// Its files.
    pub path: String,
    /// What differs from the one before.
    pub changes: Option<String>,
}

/// A day of moments.
#[derive(Debug, Clone)]
pub struct Day {
    /// `Sunday, 22 November 2026`.
    pub date: String,
    /// Newest first.
    pub rows: Vec<MomentRow>,
}

/// What a device kept that another one went on without.
#[derive(Debug, Clone)]
pub struct Branch {
    /// What it is called.
    pub name: Html,
    /// How much, of how long.
    pub holds: String,
    /// Its time machine.
    pub path: String,
}

/// The time machine.
#[derive(Debug, Template)]
#[template(path = "pages/own/moments.html")]
pub struct Moments {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// The volume as a person knows it.
    pub name: Html,
    /// The volume as links have it.
    pub volume: String,
    /// Whether it is a branch.
    pub is_branch: bool,
    /// Drawn.
    pub timeline: Option<Timeline>,
    /// Listed.
    pub days: Vec<Day>,
    /// To choose two of: number and name.
    pub choices: Vec<super::Choice>,
    /// The one before the newest, to begin with.
    pub before: Option<u64>,
    /// Whether there are more than are shown.
    pub is_cut: bool,
    /// What was kept.
    pub branches: Vec<Branch>,
    /// Why nobody knows whether something was kept.
    pub unasked: Option<Html>,
}

impl Moments {
    fn is_before(&self, choice: &super::Choice) -> bool {
        self.before == Some(choice.seq)
    }
}
