//! Moments of an app: what it can go back to, and what a second one can be made of.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Html};

use super::app::AppHead;

/// A moment.
#[derive(Debug, Clone)]
pub struct Moment {
    /// When it was.
    pub ago: Html,
    /// The same, exactly.
    pub exact: Html,
    /// What it is called; none where nobody gave it a name.
    pub tag: Option<Html>,
    /// Why it is.
    pub reason: &'static str,
    /// How grave that is: a class of the style sheet.
    pub class: &'static str,
    /// How much its volumes held.
    pub size: String,
    /// How many files.
    pub files: u64,
    /// Where the app goes back to it.
    pub rollback: String,
    /// Where a second app is made of it.
    pub fork: String,
}

/// The moments of a day.
#[derive(Debug, Clone)]
pub struct Day {
    /// Which.
    pub date: String,
    /// Newest first.
    pub moments: Vec<Moment>,
}

/// All moments of an app.
#[derive(Debug, Template)]
#[template(path = "pages/app_moments.html")]
pub struct AppMoments {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// Newest first.
    pub days: Vec<Day>,
    /// How many there are in all.
    pub count: usize,
    /// When they were told, if its device does not answer now.
    pub as_of: Option<Html>,
    /// Why none can be shown.
    pub problem: Option<(String, Option<String>)>,
    /// Where earlier ones are.
    pub more: Option<String>,
}

impl AppMoments {
    /// Whether the app's device answers: nobody else can bring a moment back.
    fn is_heard(&self) -> bool {
        self.as_of.is_none() && self.problem.is_none()
    }
}

/// A second app, made of a moment or of what a device kept.
#[derive(Debug, Template)]
#[template(path = "pages/app_fork.html")]
pub struct AppFork {
    /// What all pages have.
    pub frame: Frame,
    /// What all of the app's pages have.
    pub head: AppHead,
    /// Of what.
    pub of: Html,
    /// Its name.
    pub fields: Vec<Field>,
    /// What is sent along.
    pub hidden: Vec<(&'static str, String)>,
    /// Where the form goes.
    pub action: String,
    /// The way back.
    pub back: String,
}
