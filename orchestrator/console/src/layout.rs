//! What all pages have: a link past the navigation, the navigation, notes, a main part, the choice of light and dark.

use orchestrator_api::text::Time;

use crate::assets::{self, Asset};

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// As the system wishes.
    #[default]
    Auto,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// As the cookie has it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// Of a cookie; what is none of them is [`Theme::Auto`].
    pub fn of(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::Auto,
        }
    }
}

/// An entry of the navigation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where to.
    pub path: String,
    /// What it is called.
    pub label: &'static str,
    /// Whether it is where one is.
    pub is_here: bool,
}

/// What went wrong with what was asked: said at the top of the page, and at its field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// A sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The field that it is about.
    pub field: Option<String>,
}

/// What all pages have.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When the page was made, by whoever makes it: times are counted from it.
    pub now: Time,
    /// Light or dark.
    pub theme: Theme,
    /// What every form carries.
    pub csrf: String,
    /// Where the page is shown: a choice of light and dark leads back to it.
    pub path: String,
    /// Whether it answers a form: then its own address takes forms only, and it is asked for again at `path`.
    pub is_posted: bool,
    /// Whether nobody can ask for it again, since it answers a form, and what it shows is shown this once: then nothing that
    /// leads away and back is offered.
    pub is_once: bool,
    /// Where one can go; nothing before a login.
    pub nav: Vec<Link>,
    /// Who is logged in.
    pub person: Option<String>,
    /// What was done just now.
    pub done: Option<String>,
    /// What went wrong.
    pub problem: Option<Problem>,
    /// Where the script hears of changes.
    pub live: Option<&'static str>,
    /// Under whose roof: `hive`, or the name of a device.
    pub place: String,
}

impl Frame {
    /// What went wrong with a field.
    pub fn error(&self, field: &str) -> Option<String> {
        let problem = self.problem.as_ref()?;
        (problem.field.as_deref() == Some(field)).then(|| problem.message.clone())
    }

    /// The style sheet.
    pub fn style(&self) -> &'static Asset {
        assets::style()
    }

    /// The script.
    pub fn script(&self) -> &'static Asset {
        assets::script()
    }

    /// The logo.
    pub fn logo(&self) -> &'static Asset {
        assets::logo()
    }
}
