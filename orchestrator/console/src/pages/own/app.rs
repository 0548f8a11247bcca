//! An app on this device.

use askama::Template;

use super::{Crumb, VolumeRow};
use crate::layout::Frame;
use crate::show::Html;

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its service.
    pub service: Html,
    /// How it is.
    pub health: Html,
    /// Its log.
    pub logs: String,
}

/// A moment of all volumes at once.
#[derive(Debug, Clone)]
pub struct Instant {
    /// By what it is called in a command.
    pub tag: String,
    /// When.
    pub time: Html,
    /// How long ago.
    pub ago: Html,
    /// Why there is it.
    pub reason: String,
    /// Each volume's files then.
    pub volumes: Vec<(Html, String)>,
    /// To go back with the whole app.
    pub rollback: String,
    /// To make another app of it.
    pub fork: String,
}

/// An app.
#[derive(Debug, Template)]
#[template(path = "pages/own/app.html")]
pub struct App {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// What it is called.
    pub name: Html,
    /// How it is.
    pub health: Html,
    /// What is wrong, in words that may come from the app.
    pub trouble: Option<Html>,
    /// Where it is, for people.
    pub address: Option<String>,
    /// Its logs.
    pub logs: String,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its volumes.
    pub volumes: Vec<VolumeRow>,
    /// Which moments are kept of each volume, in the words of its policy; nothing where the device has not read it yet.
    pub retention: Vec<(Html, String)>,
    /// Why its volumes could not be asked for their moments.
    pub unasked: Option<Html>,
    /// Moments of all volumes, newest first.
    pub instants: Vec<Instant>,
    /// Whether there are more.
    pub is_cut: bool,
}
