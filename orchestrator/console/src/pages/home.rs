//! What runs, where, and how safe it is: at a glance.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Health, Html, Progress, health};

/// An app.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Its page.
    pub path: String,
    /// Its name.
    pub name: Html,
    /// How well it is.
    pub health: Health,
    /// The same in words.
    pub words: String,
    /// The name of the device that has it.
    pub device: Option<Html>,
    /// `safe as of 4 s ago`, or why it is not.
    pub safe: Html,
    /// What is being done with it.
    pub progress: Option<Progress>,
    /// Where its own pages are.
    pub open: Option<String>,
}

impl Tile {
    fn circle(&self) -> Html {
        health(self.health, &self.words)
    }
}

/// Something that somebody should look at.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Whether it is worse than a warning.
    pub is_bad: bool,
    /// What it is.
    pub text: Html,
    /// Its end, which changes with time: for how long, and how much.
    pub more: Html,
    /// Where it is dealt with.
    pub path: String,
}

/// The first page.
#[derive(Debug, Template)]
#[template(path = "pages/home.html")]
pub struct Home {
    /// What all pages have.
    pub frame: Frame,
    /// What somebody should look at.
    pub alerts: Vec<Alert>,
    /// The apps.
    pub tiles: Vec<Tile>,
    /// Whether there is a device at all.
    pub has_devices: bool,
    /// Whether this person may add devices.
    pub can_add: bool,
    /// Whether this person may install apps.
    pub can_install: bool,
    /// Where further apps are listed.
    pub more: Option<String>,
}
