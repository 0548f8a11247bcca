//! What could not be shown, and a way back.

use askama::Template;

use crate::layout::Frame;

/// An error.
#[derive(Debug, Template)]
#[template(path = "pages/error.html")]
pub struct Error {
    /// What all pages have.
    pub frame: Frame,
    /// Of HTTP.
    pub status: u16,
    /// A sentence without a full stop.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Of the hive's log, where the hive made a mistake.
    pub id: Option<String>,
    /// The way back, and what it is called.
    pub back: (String, &'static str),
}

impl Error {
    fn title(&self) -> &'static str {
        match self.status {
            404 => "There is nothing here",
            403 => "This is not for you",
            429 => "Too fast",
            503 => "Not now",
            500.. => "The hive made a mistake",
            _ => "This did not work",
        }
    }
}
