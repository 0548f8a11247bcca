//! When a file or folder changed.

use askama::Template;

use super::Crumb;
use crate::layout::Frame;
use crate::show::Html;

/// A version.
#[derive(Debug, Clone)]
pub struct VersionRow {
    /// The moment's number.
    pub seq: u64,
    /// When it was saved.
    pub time: Html,
    /// How long ago.
    pub ago: Html,
    /// How much it had, or that it was removed.
    pub what: String,
    /// Whether it was removed then.
    pub is_gone: bool,
    /// To look at it.
    pub path: Option<String>,
    /// What changed since the version before.
    pub changes: Option<String>,
    /// To put it back.
    pub restore: Option<String>,
}

/// All versions that are kept.
#[derive(Debug, Template)]
#[template(path = "pages/own/versions.html")]
pub struct Versions {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// What it is called.
    pub name: Html,
    /// How many are shown, where there are more.
    pub most: Option<usize>,
    /// Newest first.
    pub rows: Vec<VersionRow>,
}
