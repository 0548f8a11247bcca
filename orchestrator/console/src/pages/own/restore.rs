//! Bringing something back: what would happen, and what happened.

use askama::Template;

use super::Crumb;
use crate::layout::Frame;
use crate::show::Html;

/// One of the ways.
#[derive(Debug, Clone)]
pub struct Way {
    /// As the form says it.
    pub word: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// What happens.
    pub what: Vec<Html>,
    /// What the button says.
    pub button: &'static str,
    /// Whether it replaces something.
    pub is_replacing: bool,
}

/// What would happen.
#[derive(Debug, Template)]
#[template(path = "pages/own/restore.html")]
pub struct Restore {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// What is brought back.
    pub name: Html,
    /// What it is, and how much.
    pub what: String,
    /// Of when.
    pub time: Html,
    /// The volume as links have it.
    pub volume: String,
    /// The moment's number.
    pub seq: u64,
    /// The bytes of the path, written by their numbers.
    pub packed: String,
    /// The ways; none where the volume takes no changes here, and why.
    pub ways: Result<Vec<Way>, String>,
    /// The command that copies it to any folder of the machine.
    pub command: String,
    /// Back.
    pub back: String,
}

/// How far it is.
#[derive(Debug, Template)]
#[template(path = "pages/own/restoring.html")]
pub struct Restoring {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// What is brought back.
    pub name: Html,
    /// How much is back, in words.
    pub words: String,
    /// The same as a part of a hundred, where it is known how much there is.
    pub percent: Option<u64>,
}

/// What happened.
#[derive(Debug, Template)]
#[template(path = "pages/own/restored.html")]
pub struct Restored {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// Where it is now.
    pub name: Html,
    /// How many files and folders, in words.
    pub count: String,
    /// Where it can be looked at: soon in the newest moment.
    pub folder: String,
    /// The moment that has what was there before.
    pub kept: Option<(u64, String)>,
}
