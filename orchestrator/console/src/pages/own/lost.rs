//! What could not be shown, and a way back.

use askama::Template;

use crate::layout::Frame;

/// An error.
#[derive(Debug, Template)]
#[template(path = "pages/own/lost.html")]
pub struct Lost {
    /// What all pages have.
    pub frame: Frame,
    /// In a few words.
    pub title: &'static str,
    /// Sentences: what happened, and what to do. They may name files, made harmless.
    pub what: Vec<crate::show::Html>,
    /// The way back.
    pub back: String,
}
