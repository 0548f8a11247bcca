//! The code from the terminal.

use askama::Template;

use crate::layout::Frame;
use crate::show::Field;

/// Asks for the code.
#[derive(Debug, Template)]
#[template(path = "pages/own/enter.html")]
pub struct Enter {
    /// What all pages have.
    pub frame: Frame,
    /// The code.
    pub field: Field,
    /// What the device is called.
    pub device: String,
    /// Whether a link of another site led here, so that the browser kept its session to itself.
    pub is_from_elsewhere: bool,
}
