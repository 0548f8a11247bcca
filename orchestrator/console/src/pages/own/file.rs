//! A file at a moment.

use askama::Template;

use super::{Bar, Crumb};
use crate::layout::Frame;
use crate::show::Html;

/// What is shown of its content.
#[derive(Debug, Clone)]
pub enum Preview {
    /// Its lines, and what to say of them.
    Text(Vec<Html>, Option<String>),
    /// Where its picture is.
    Picture(String),
    /// Why nothing is shown.
    None(String),
}

/// A file.
#[derive(Debug, Template)]
#[template(path = "pages/own/file.html")]
pub struct File {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// Which moment.
    pub bar: Bar,
    /// What it is called.
    pub name: Html,
    /// What is known of it.
    pub facts: Vec<(&'static str, Html)>,
    /// What is in it.
    pub preview: Preview,
    /// As it is; nothing for what is no file.
    pub download: Option<String>,
    /// When it changed.
    pub versions: String,
    /// To put it back; nothing where that cannot be.
    pub restore: Option<String>,
}
