//! What is one's own: password, second factor, sessions.

use askama::Template;

use crate::layout::Frame;
use crate::show::{Field, Html};

/// A browser that is logged in.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// What the browser says it is.
    pub agent: Html,
    /// From where it logged in.
    pub address: String,
    /// When it was used.
    pub used: Html,
    /// Whether it is this one.
    pub is_this: bool,
    /// Where it is ended.
    pub end: String,
}

/// The page.
#[derive(Debug, Template)]
#[template(path = "pages/me.html")]
pub struct Me {
    /// What all pages have.
    pub frame: Frame,
    /// Name, and role in words.
    pub name: Html,
    /// What one may do here.
    pub role: &'static str,
    /// The account's name, and what logs in with it besides.
    pub account: Html,
    /// The name to log in with.
    pub login: String,
    /// The present and the new password.
    pub password: Vec<Field>,
    /// Whether the second factor is on.
    pub has_second: bool,
    /// Recovery codes that are left.
    pub codes_left: usize,
    /// A code, to turn it off.
    pub second_off: Field,
    /// Browsers that are logged in.
    pub sessions: Vec<SessionRow>,
}

/// The second factor is taken up.
#[derive(Debug, Template)]
#[template(path = "pages/second.html")]
pub struct Second {
    /// What all pages have.
    pub frame: Frame,
    /// For a camera.
    pub qr: Option<Html>,
    /// The same to type.
    pub secret: String,
    /// The first code.
    pub code: Field,
}
