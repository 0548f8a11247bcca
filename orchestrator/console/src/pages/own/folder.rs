//! A folder at a moment.

use askama::Template;

use super::{Bar, Crumb};
use crate::layout::Frame;
use crate::show::Html;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as they are shown")]
pub enum RowKind {
    Folder,
    File,
    Link,
    Special,
}

impl RowKind {
    fn text(self) -> &'static str {
        match self {
            Self::Folder => "Folder",
            Self::File => "File",
            Self::Link => "Link",
            Self::Special => "Special file",
        }
    }

    /// The shape of its icon.
    fn icon(self) -> &'static str {
        match self {
            Self::Folder => "M2 4.5h5l1.5 2H16v8H2z",
            Self::File => "M4 1.5h7l3.5 3.5v11.5H4zM11 1.5V5h3.5",
            Self::Link => {
                "M7 11l4-4M8 5l1.5-1.5a3 3 0 0 1 4.5 4.5L12.5 9.5M10 13l-1.5 1.5A3 3 0 0 1 4 10l1.5-1.5"
            }
            Self::Special => "M9 2l7 4v6l-7 4-7-4V6z",
        }
    }
}

/// An entry.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it leads to.
    pub kind: RowKind,
    /// What it is called.
    pub name: Html,
    /// Where it leads; nothing for what has no content.
    pub path: Option<String>,
    /// Where a link leads, in words.
    pub target: Option<Html>,
    /// How much; of a file.
    pub bytes: Option<String>,
    /// When it was changed.
    pub modified: Html,
    /// When it changed, over all moments.
    pub versions: String,
}

/// A folder.
#[derive(Debug, Template)]
#[template(path = "pages/own/folder.html")]
pub struct Folder {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// Which moment.
    pub bar: Bar,
    /// What it is called.
    pub name: Html,
    /// The entries of this page.
    pub rows: Vec<Row>,
    /// How many there are, in words: `1,204 entries`.
    pub count: String,
    /// Which of them are on this page, if not all.
    pub shown: Option<String>,
    /// The pages before and behind.
    pub earlier_page: Option<String>,
    /// The pages before and behind.
    pub later_page: Option<String>,
    /// As an archive.
    pub download: String,
    /// When it changed.
    pub versions: Option<String>,
    /// To put it back; nothing where that cannot be.
    pub restore: Option<String>,
}
