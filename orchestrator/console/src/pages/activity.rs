//! Who did what, when, with what result; and what is being done.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Health, Html, Progress, health};

/// Something that is being done.
#[derive(Debug, Clone)]
pub struct Running {
    /// What, in words.
    pub what: Html,
    /// How far it is.
    pub progress: Progress,
    /// Since when.
    pub begun: Html,
    /// Who ordered it.
    pub by: Html,
    /// Its own page, with its steps.
    pub path: Option<String>,
    /// Where it is cancelled, if it can be.
    pub cancel: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// Of the account.
    pub number: u64,
    /// When.
    pub when: Html,
    /// What, in words.
    pub what: Html,
    /// The page of what was done, with its steps and what came of it.
    pub path: Option<String>,
    /// With which app or device: its name, and its page if there is one.
    pub about: Vec<(Option<String>, Html)>,
    /// Who did it.
    pub by: Html,
    /// From which address.
    pub from: Option<String>,
    /// With what result.
    pub result: (Health, String),
}

impl Happened {
    fn circle(&self) -> Html {
        health(self.result.0, &self.result.1)
    }
}

/// What happens and happened.
#[derive(Debug, Template)]
#[template(path = "pages/activity.html")]
pub struct Activity {
    /// What all pages have.
    pub frame: Frame,
    /// What is being done.
    pub running: Vec<Running>,
    /// What happened, newest first.
    pub rows: Vec<Happened>,
    /// What is looked for.
    pub filter: Vec<Field>,
    /// Whether something is looked for.
    pub is_filtered: bool,
    /// Where older ones are.
    pub older: Option<String>,
    /// How they hang together.
    pub chain: Chain,
}

/// How the hashes of events hang together.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// Which were looked at, and fit; nothing if there are none.
    pub holds: Option<String>,
    /// The first that does not fit.
    pub broken: Option<u64>,
}
