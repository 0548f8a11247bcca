//! The console's pages: what is shown, and nothing of how it is found.
//!
//! - [`pages`]   a page is a struct whose fields are all that its template may use; the template stands beside it
//! - [`layout`]  what all pages have: [`layout::Frame`]
//! - [`show`]    times, sizes, names that somebody else chose, health, graphs, progress, forms, words of a command
//! - [`link`]    any bytes in an address, and forms
//! - [`assets`]  style sheet, script, logo; their paths carry their hash
//!
//! Knows no database, no HTTP and no secret. The hive renders its pages with it, and so does a device its own.
//!
//! Invariants
//! - What comes from outside is escaped: the only way to write markup is [`show::Html`], which this crate alone makes.
//! - No page needs a script, and none has one inside.

pub mod assets;
pub mod layout;
pub mod link;
pub mod pages;
pub mod show;

pub use askama::Template;

/// What pages may load, and from where: from here, and nothing inside of the page itself.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A page as bytes; a template that fails is a defect of ours, and is told in plain words.
pub fn render(page: &impl Template) -> Vec<u8> {
    match page.render() {
        Ok(text) => text.into_bytes(),
        Err(_) => {
            b"<!doctype html><title>Comb</title><p>This page could not be written. <a href=\"/\">Home</a>"
                .to_vec()
        }
    }
}
