//! What is well on a machine and what is not, with what to do.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Health, Html, health};

/// Something that was looked at.
#[derive(Debug, Clone)]
pub struct Check {
    /// What.
    pub what: String,
    /// Whether it is as it should be.
    pub is_well: bool,
    /// What was found, or what to do.
    pub found: Html,
}

impl Check {
    fn circle(&self) -> Html {
        if self.is_well { health(Health::Well, "well") } else { health(Health::Bad, "wrong") }
    }
}

/// All that was looked at.
#[derive(Debug, Template)]
#[template(path = "pages/own/doctor.html")]
pub struct Doctor {
    /// What all pages have.
    pub frame: Frame,
    /// What the device is called.
    pub device: Html,
    /// In a sentence.
    pub sum: String,
    /// One after the other.
    pub checks: Vec<Check>,
}
