//! The first run, and logging in.

use askama::Template;

use crate::layout::Frame;
use crate::show::Field;

/// The first run: a code that the hive printed, an account, its owner.
#[derive(Debug, Template)]
#[template(path = "pages/setup.html")]
pub struct Setup {
    /// What all pages have.
    pub frame: Frame,
    /// Code, account, name, password.
    pub fields: Vec<Field>,
}

/// Name and password, or the code of the second factor.
#[derive(Debug, Template)]
#[template(path = "pages/login.html")]
pub struct Login {
    /// What all pages have.
    pub frame: Frame,
    /// Name and password; or the code.
    pub fields: Vec<Field>,
    /// Where the form goes.
    pub action: &'static str,
    /// Where it leads afterwards.
    pub to: String,
    /// Whether the password was right, and a code is asked for.
    pub is_second: bool,
}

/// An invitation is taken up.
#[derive(Debug, Template)]
#[template(path = "pages/accept.html")]
pub struct Accept {
    /// What all pages have.
    pub frame: Frame,
    /// Invitation, name, password, and what a new account is called.
    pub fields: Vec<Field>,
}
