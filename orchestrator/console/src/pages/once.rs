//! Something that is shown once: a token, an invitation, recovery codes.

use askama::Template;

use crate::layout::Frame;

/// What is shown, and never again.
#[derive(Debug, Template)]
#[template(path = "pages/once.html")]
pub struct Once {
    /// What all pages have.
    pub frame: Frame,
    /// What it is.
    pub title: String,
    /// What to do with it, a sentence each.
    pub what: Vec<String>,
    /// It.
    pub secret: String,
    /// The way on.
    pub back: (&'static str, &'static str),
}
