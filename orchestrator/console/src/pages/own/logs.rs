//! What an app's containers write.

use askama::Template;

use super::Crumb;
use crate::layout::Frame;
use crate::show::Html;

/// A line.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The service.
    pub service: Html,
    /// Whether it is of the standard error.
    pub is_error: bool,
    /// What it says.
    pub text: Html,
}

/// A service whose log can be shown alone.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is called; nothing for all of them.
    pub name: Option<Html>,
    /// Its log.
    pub path: String,
    /// Whether it is shown.
    pub is_here: bool,
}

/// Logs.
#[derive(Debug, Template)]
#[template(path = "pages/own/logs.html")]
pub struct Logs {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// The app.
    pub name: Html,
    /// All services.
    pub services: Vec<Service>,
    /// The last lines.
    pub lines: Vec<LogLine>,
    /// Whether there were more, which would be too long for a page.
    pub is_cut: bool,
    /// Why there are none.
    pub trouble: Option<String>,
    /// Whether it has containers.
    pub runs: bool,
    /// Where more come from; nothing if Docker does not answer.
    pub live: Option<String>,
    /// How many lines are shown at most.
    pub lines_max: usize,
}
