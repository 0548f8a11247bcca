//! A page that another site led to: asked for once more from here, with the cookie that no other site makes a browser show.

use askama::Template;

/// The way on.
#[derive(Debug, Template)]
#[template(path = "pages/onward.html")]
pub struct Onward {
    /// Where to: a path of this place.
    pub path: String,
}
