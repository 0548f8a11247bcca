//! One app: how it is, what it is made of, what may be done with it.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Health, Html, Progress, escape, health};

use super::catalog::Choice;

/// What all pages of an app have at their top.
#[derive(Debug, Clone)]
pub struct AppHead {
    /// Its name, for the browser's list.
    pub title: String,
    /// Its name.
    pub name: Html,
    /// Where its pages are.
    pub path: String,
    /// Which of them this is: the last part of its address, or nothing.
    pub here: &'static str,
    /// How well it is.
    pub health: Health,
    /// The same in words.
    pub words: String,
    /// Where its own pages are.
    pub open: Option<String>,
    /// Why its device takes no orders now, without the device: `is silent`. Then its own pages are not likely to answer, either.
    pub no_orders: Option<&'static str>,
    /// Whether this person may order things.
    pub can: bool,
    /// Whether this person may remove it.
    pub is_owner: bool,
}

impl AppHead {
    /// The circle.
    pub fn circle(&self) -> Html {
        health(self.health, &self.words)
    }

    /// The pages of an app: the end of their addresses, and what they are called.
    pub fn tabs(&self) -> [(&'static str, &'static str); 4] {
        [("", "Overview"), ("moments", "Moments"), ("settings", "Settings"), ("history", "History")]
    }

    /// The address of one of them.
    pub fn tab(&self, end: &str) -> String {
        if end.is_empty() { self.path.clone() } else { format!("{}/{end}", self.path) }
    }
}

/// A button that orders something of an app; one that can do nothing now, for the reason in the element `no-orders`, if
/// `can` is false.
pub fn order(frame: &Frame, head: &AppHead, what: &str, label: &str, can: bool) -> Html {
    let class = if what == "start" { "" } else { " class=\"plain\"" };
    let off = if can { "" } else { " disabled aria-describedby=\"no-orders\"" };
    Html::of(format!(
        "<form class=\"inline\" method=\"post\" action=\"{}/{}\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">\
         <button{class}{off}>{}</button></form>",
        escape(&head.path),
        escape(what),
        escape(&frame.csrf),
        escape(label)
    ))
}

/// What is wrong, and what to do.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What is wrong, without a full stop.
    pub words: String,
    /// Where: a service, a file and line.
    pub at: Option<Html>,
    /// What to do.
    pub what: Option<String>,
}

/// Something that is being done.
#[derive(Debug, Clone)]
pub struct AppRunning {
    /// What: `Moving to cellar`.
    pub title: Html,
    /// How far it is.
    pub progress: Progress,
    /// For which device it waits, and whether that reports.
    pub waits: Option<String>,
    /// Its page.
    pub path: String,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Of which service.
    pub name: Html,
    /// What runs.
    pub image: Html,
    /// How well it is.
    pub health: Health,
    /// The same in words.
    pub words: String,
    /// How often it was started again.
    pub restarts: u64,
    /// What it takes of a processor.
    pub cpu: String,
    /// What it has of memory.
    pub memory: String,
}

impl Container {
    fn circle(&self) -> Html {
        health(self.health, &self.words)
    }
}

/// A volume.
#[derive(Debug, Clone)]
pub struct Data {
    /// In the compose file.
    pub name: Html,
    /// How safe it is.
    pub health: Health,
    /// `safe as of 4 s ago`.
    pub safe: Html,
    /// What is not safe.
    pub backlog: Option<String>,
    /// Copies that are late.
    pub behind: Option<String>,
    /// How much it holds.
    pub size: String,
    /// How many files.
    pub files: u64,
}

impl Data {
    fn circle(&self) -> Html {
        health(self.health, "")
    }
}

/// A store of the app.
#[derive(Debug, Clone)]
pub struct AppStore {
    /// Where it is.
    pub url: Html,
    /// What it does: it decides, or keeps a copy.
    pub role: &'static str,
    /// How it answers.
    pub health: Health,
    /// The same in words.
    pub words: String,
}

impl AppStore {
    fn circle(&self) -> Html {
        health(self.health, &self.words)
    }
}

/// Something that people may ask of the app.
#[derive(Debug, Clone)]
pub struct ActionRow {
    /// Its page.
    pub path: String,
    /// What it is called.
    pub name: Html,
    /// Where it runs.
    pub service: Html,
}

/// What a device kept that lost the app.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Who has it.
    pub device: Html,
    /// Of which volume.
    pub volume: Html,
    /// What it is called there.
    pub name: Html,
    /// How much.
    pub bytes: String,
    /// Over how long.
    pub span: String,
    /// Where a second app is made of it; none if this person may not.
    pub fork: Option<String>,
    /// How its files are looked at on its machine.
    pub command: String,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct AppEvent {
    /// When.
    pub when: Html,
    /// What.
    pub words: Html,
    /// Who did it.
    pub by: Html,
    /// How grave it is.
    pub health: Health,
    /// The page of what was done, with its steps and what came of it.
    pub path: Option<String>,
}

impl AppEvent {
    fn circle(&self) -> Html {
        health(self.health, "")
    }
}

/// The app at a glance.
#[derive(Debug, Template)]
#[template(path = "pages/app.html")]
pub struct App {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// What is wrong.
    pub troubles: Vec<Trouble>,
    /// What is being done.
    pub running: Option<AppRunning>,
    /// Where it runs: name, and page.
    pub device: Option<(Html, String)>,
    /// When its device was last heard, if that is silent: all that the page says of the app was so then.
    pub as_of: Option<Html>,
    /// `safe as of 4 s ago`.
    pub safe: Html,
    /// Whether it is to run.
    pub is_wanted: bool,
    /// What stands in place of its volumes, where there are none to tell of.
    pub no_data: &'static str,
    /// What else is known, a word and what.
    pub facts: Vec<(&'static str, Html)>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Volumes.
    pub data: Vec<Data>,
    /// Stores.
    pub stores: Vec<AppStore>,
    /// Graphs; none before there is something to draw.
    pub graphs: Vec<Html>,
    /// Lengths of time: what each is called, where it is, and whether it is shown.
    pub spans: Vec<(&'static str, String, bool)>,
    /// What people may ask of it.
    pub actions: Vec<ActionRow>,
    /// What devices kept.
    pub kept: Vec<Kept>,
    /// The last things that happened.
    pub happened: Vec<AppEvent>,
}

impl App {
    fn shows_orders(&self) -> bool {
        self.head.can && self.running.is_none()
    }
}

/// What is chosen for an app.
#[derive(Debug, Template)]
#[template(path = "pages/app_settings.html")]
pub struct AppSettings {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// What becomes of it when its device dies.
    pub protections: Vec<Choice>,
    /// Who may stand by.
    pub standby: Vec<Choice>,
    /// How often its data is sealed.
    pub every: Field,
    /// The same, in seconds.
    pub seconds: u64,
    /// What was fixed when it was signed: a word, and what.
    pub fixed: Vec<(&'static str, Vec<Html>)>,
    /// Revisions that it can be updated to: number and version.
    pub revisions: Vec<(u64, Html)>,
    /// The one that it has.
    pub revision: u64,
    /// What makes another one.
    pub command: String,
}

/// What happened with an app.
#[derive(Debug, Template)]
#[template(path = "pages/app_history.html")]
pub struct AppHistory {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// Newest first.
    pub happened: Vec<AppEvent>,
    /// Where older ones are.
    pub more: Option<String>,
}

/// Something that people may ask of an app, with what it asks for.
#[derive(Debug, Template)]
#[template(path = "pages/app_action.html")]
pub struct AppAction {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// What it is called, for the browser's list.
    pub title: String,
    /// What it is called.
    pub name: Html,
    /// Where it runs.
    pub service: Html,
    /// What it asks for.
    pub fields: Vec<Field>,
    /// Where the form goes.
    pub action: String,
    /// The same at a terminal, where its output can be read.
    pub command: String,
}
