//! What a compose file may say (`security.md`, section 6).
//!
//! Two readings. [`Source::read`] takes the folder's text **before** compose runs: it refuses unknown keys, files
//! outside of the folder, and variables that steer programs, because compose reads files and variables as whoever runs
//! it. [`check`] takes what `docker compose config --format json` then made of it, which is what will run, and answers
//! with refusals, permissions that are asked for, notes, and the plan. What decides about safety is decided there; the
//! text gives it file and line.
//!
//! Invariants
//! - Everything is refused that is not known to be harmless: a key, a value, a driver.
//! - A verdict without refusals and with every permission granted is the only way to a [`Plan`].

use std::collections::BTreeMap;
use std::fmt;

use crate::permission::Permission;

mod block;
pub mod keys;
mod owner;
pub mod paths;
mod plan;
mod policy;
mod source;
pub mod variables;

pub use block::{
    Action, Block, Chosen, Entry, Health, Hook, HttpCheck, InputType, OptionType, OptionValueError,
    SHOW_WEB_PORT, Setting, Update, VolumeSettings, generate_secret,
};
pub use owner::Owner;
pub use plan::{
    Mount, PackageFile, Plan, PlannedPort, PlannedService, PlannedVolume, Protocol, Restart, VolumeKind,
};
pub use policy::{CONFIG_BYTES_MAX, Given, PORTS_MAX, SERVICES_MAX, VOLUMES_MAX, check};
pub(crate) use source::is_file_path;
pub use source::{Declared, FILE_PATH_BYTES_MAX, FILES_MAX, FOLDER_BYTES_MAX, Folder, Source};

/// The most refusals that are told, and the most notes: who has more begins with these.
pub const TOLD_MAX: usize = 100;

/// Where something stands in the folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, from the folder's top.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something that the file may not say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Where it stands.
    pub place: Place,
    /// The path to it: `services.web.privileged`.
    pub field: String,
    /// A sentence for a person, without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Something beyond the rules that the file asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// What would be granted.
    pub permission: Permission,
    /// Where it is first asked for.
    pub place: Place,
    /// The path to it.
    pub field: String,
    /// What it means, as a sentence for a person.
    pub message: String,
    /// Whether it is among the permissions that were given.
    pub granted: bool,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Something that is done in another way than the file says, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// A sentence for a person.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The answer about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What is refused, in the order of files and lines; at most [`TOLD_MAX`].
    pub refusals: Vec<Refusal>,
    /// What is asked for, each permission once.
    pub asks: Vec<Ask>,
    /// What a person is told.
    pub notes: Vec<Note>,
    plan: Plan,
}

impl Verdict {
    /// The plan, if nothing is refused and every permission was given.
    pub fn accept(self) -> Result<Plan, Vec<Refusal>> {
        let mut refusals = self.refusals;
        refusals.extend(self.asks.into_iter().filter(|ask| !ask.granted).map(|ask| Refusal {
            hint: Some(format!("`--allow {}` grants it", ask.permission)),
            place: ask.place,
            field: ask.field,
            message: ask.message,
        }));
        refusals.sort();
        if refusals.is_empty() { Ok(self.plan) } else { Err(refusals) }
    }

    /// What would run, for showing; it may not be run.
    pub fn draft(&self) -> &Plan {
        &self.plan
    }
}

/// The files of an app's folder, by their paths from its top.
pub type Files = BTreeMap<String, Vec<u8>>;
