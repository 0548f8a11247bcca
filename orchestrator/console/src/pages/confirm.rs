//! The question before something dangerous: what happens, what it costs, and the way back first.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Html};

/// A question.
#[derive(Debug, Template)]
#[template(path = "pages/confirm.html")]
pub struct Confirm {
    /// What all pages have.
    pub frame: Frame,
    /// What is asked: `Revoke attic?`.
    pub title: String,
    /// About what: its name, made harmless.
    pub subject: Html,
    /// What happens, a sentence each.
    pub what: Vec<String>,
    /// What must be filled in or ticked.
    pub fields: Vec<Field>,
    /// Where the form goes.
    pub action: String,
    /// What the button says.
    pub button: String,
    /// Whether it destroys something.
    pub is_danger: bool,
    /// The way back.
    pub back: String,
}
