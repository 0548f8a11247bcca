//! Moving an app: as planned, by force, and what is seen while something is being done with it.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Health, Html, Progress, health};

use super::app::{AppHead, AppRunning, Trouble};
use super::catalog::Choice;

/// A step of an operation.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done in it.
    pub words: String,
    /// What that means.
    pub more: Option<String>,
    /// Where it is: `done`, `now`, `next` or `failed`.
    pub state: &'static str,
}

impl Step {
    fn said(&self) -> &'static str {
        match self.state {
            "done" => "done",
            "now" => "now",
            "failed" => "failed here",
            _ => "to come",
        }
    }
}

/// Choosing where to.
#[derive(Debug, Template)]
#[template(path = "pages/app_move.html")]
pub struct AppMove {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// Where it is.
    pub from: Option<Html>,
    /// Where it may go.
    pub targets: Vec<Choice>,
    /// Whether one of them can be chosen.
    pub is_possible: bool,
    /// Why it cannot be moved as planned now.
    pub refusal: Option<Trouble>,
    /// What is being done with it already.
    pub running: Option<AppRunning>,
    /// What will happen.
    pub steps: Vec<Step>,
    /// How much is to be copied before it stops.
    pub size: Option<String>,
}

/// Moving without the present device.
#[derive(Debug, Template)]
#[template(path = "pages/app_force.html")]
pub struct AppForce {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// Where it is.
    pub from: Option<Html>,
    /// When that was heard of last.
    pub heard: Option<Html>,
    /// Whether it reports, so that nothing has to be lost.
    pub is_online: bool,
    /// What may be lost: `at most 12 s`, and how much.
    pub stake: Vec<Html>,
    /// Whether somebody wrote whom the hive does not know of.
    pub is_unexpected: bool,
    /// Where it may go.
    pub targets: Vec<Choice>,
    /// Whether one of them can be chosen.
    pub is_possible: bool,
    /// Whether it is to be moved although its device reports, as far as it was filled in.
    pub even_if_online: bool,
    /// Whether what somebody wrote whom the hive does not know of is to be taken over, as far as it was filled in.
    pub accept_seen: bool,
    /// Its name, typed.
    pub name: Field,
}

/// Something that is being done, or was.
#[derive(Debug, Template)]
#[template(path = "pages/working.html")]
pub struct Working {
    /// What all pages have.
    pub frame: Frame,
    /// What is done.
    pub what: Html,
    /// The app's page; none before there is one.
    pub app: Option<(Html, String)>,
    /// How it stands.
    pub health: Health,
    /// The same in words.
    pub words: String,
    /// Its steps; one alone says nothing.
    pub steps: Vec<Step>,
    /// How far the present one is.
    pub progress: Option<Progress>,
    /// What it waits for, when its device is silent.
    pub waits: Option<String>,
    /// When it began.
    pub begun: Html,
    /// When it ended.
    pub ended: Option<Html>,
    /// What came of it, a line each.
    pub results: Vec<(Health, Html)>,
    /// Why it is not done.
    pub trouble: Option<Trouble>,
    /// Where a form cancels it.
    pub cancel: Option<String>,
    /// Where to go from here.
    pub onward: Vec<(String, Html)>,
}

impl Working {
    fn circle(&self) -> Html {
        health(self.health, &self.words)
    }

    fn mark(&self, health: &Health) -> Html {
        super::super::show::health(*health, "")
    }
}
