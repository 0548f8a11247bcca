//! What differs between two moments: of a volume, and of a text.

use askama::Template;

use super::{Choice, Crumb};
use crate::layout::Frame;
use crate::show::Html;

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as they are shown")]
pub enum How {
    Added,
    Changed,
    Removed,
    Same,
}

impl How {
    fn text(self) -> &'static str {
        match self {
            Self::Added => "Added",
            Self::Changed => "Changed",
            Self::Removed => "Removed",
            Self::Same => "",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Added => "+",
            Self::Changed => "~",
            Self::Removed => "−",
            Self::Same => " ",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Same => "same",
        }
    }
}

/// The two moments.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The volume.
    pub volume: String,
    /// All moments; of those the earlier one.
    pub from: Vec<Choice>,
    /// And the later one.
    pub to: Vec<Choice>,
}

/// A path that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// How.
    pub how: How,
    /// The path.
    pub name: Html,
    /// To look at it.
    pub path: Option<String>,
    /// To look at what changed inside.
    pub inside: Option<String>,
}

/// What differs between two moments.
#[derive(Debug, Template)]
#[template(path = "pages/own/compare.html")]
pub struct Compare {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// The volume as a person knows it.
    pub name: Html,
    /// The two.
    pub chosen: Chosen,
    /// From when to when, in words.
    pub times: (Html, Html),
    /// How many were added, changed and removed.
    pub counts: (String, String, String),
    /// Those of this page.
    pub rows: Vec<Difference>,
    /// Which of them are on this page, if not all.
    pub shown: Option<String>,
    /// The pages before and behind.
    pub earlier_page: Option<String>,
    /// The pages before and behind.
    pub later_page: Option<String>,
}

/// A line of a comparison; none is where lines are left out.
#[derive(Debug, Clone)]
pub struct DiffLine {
    /// How it differs.
    pub how: How,
    /// Its number before and now.
    pub numbers: (Option<usize>, Option<usize>),
    /// The line; nothing where lines that are the same are left out.
    pub text: Option<Html>,
}

/// What differs in a text.
#[derive(Debug, Template)]
#[template(path = "pages/own/compare_text.html")]
pub struct CompareText {
    /// What all pages have.
    pub frame: Frame,
    /// The way here.
    pub crumbs: Vec<Crumb>,
    /// What the file is called.
    pub name: Html,
    /// From when to when.
    pub times: (Html, Html),
    /// The lines; or why there are none.
    pub lines: Result<Vec<DiffLine>, String>,
    /// How many were added and removed.
    pub counts: (usize, usize),
    /// What to say of it.
    pub said: Option<String>,
    /// The file before and now.
    pub files: (Option<String>, Option<String>),
}
