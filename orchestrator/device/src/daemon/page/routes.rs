//! The table of routes: all that can be asked, and by whom. A test tries each of the document's without a session, and one
//! here holds the document against them.

use std::pin::Pin;

use super::http::{Answer, Asked};
use super::{app, compare, doctor, file, files, logs, moments, restore, start, versions};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Everybody: what is needed to begin a session, and what shows nothing.
    Free,
    /// A session; without one a browser is led to the code.
    Page,
    /// A session; without one that is said, and nothing else.
    Bytes,
}

type Future = Pin<Box<dyn std::future::Future<Output = Result<Answer, Answer>> + Send>>;

/// A route.
pub struct Route {
    /// Its path.
    pub path: &'static str,
    /// Who may ask.
    pub guard: Guard,
    /// Whether it is a form that is sent.
    pub is_post: bool,
    /// Whether it is also shown.
    pub is_both: bool,
    /// Whether its form is there before a session is.
    pub is_free_of_token: bool,
    /// What answers.
    pub page: fn(Asked) -> Future,
}

macro_rules! shown {
    ($path:literal, $guard:ident, $page:path) => {
        Route {
            path: $path,
            guard: Guard::$guard,
            is_post: false,
            is_both: false,
            is_free_of_token: false,
            page: |asked| Box::pin($page(asked)),
        }
    };
}

macro_rules! sent {
    ($path:literal, $guard:ident, $page:path) => {
        Route { is_post: true, ..shown!($path, $guard, $page) }
    };
}

/// All routes. One whose path ends with a slash has everything below it.
pub const ROUTES: &[Route] = &[
    Route { is_both: true, is_free_of_token: true, ..shown!("/code", Free, start::code) },
    Route { is_free_of_token: true, ..sent!("/theme", Free, start::theme) },
    shown!("/assets/", Free, start::asset),
    shown!("/favicon.ico", Free, start::icon),
    sent!("/leave", Page, start::leave),
    shown!("/", Page, start::start),
    shown!("/app", Page, app::app),
    shown!("/doctor", Page, doctor::doctor),
    shown!("/logs", Page, logs::logs),
    shown!("/logs/live", Bytes, logs::live),
    shown!("/moments", Page, moments::moments),
    shown!("/files", Page, files::files),
    shown!("/file", Page, file::file),
    shown!("/picture", Bytes, file::picture),
    shown!("/download", Bytes, file::download),
    shown!("/versions", Page, versions::versions),
    shown!("/compare", Page, compare::compare),
    shown!("/compare/text", Page, compare::text),
    Route { is_both: true, ..shown!("/restore", Page, restore::restore) },
    shown!("/restored", Page, restore::restored),
];

/// The route of a path.
pub fn find(path: &str) -> Option<&'static Route> {
    let below =
        |route: &Route| route.path.len() > 1 && route.path.ends_with('/') && path.starts_with(route.path);
    ROUTES.iter().find(|route| route.path == path || below(route))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_what_begins_a_session_is_free() {
        let free: Vec<&str> =
            ROUTES.iter().filter(|route| route.guard == Guard::Free).map(|route| route.path).collect();
        assert_eq!(free, ["/code", "/theme", "/assets/", "/favicon.ico"]);
        assert!(find("/").is_some_and(|route| route.path == "/"));
        assert!(find("/nothing").is_none() && find("/files/x").is_none() && find("//").is_none());
        assert!(find("/assets/x/y").is_some());
    }

    #[test]
    fn the_routes_are_those_of_the_document() {
        let document = include_str!("../../../../docs/page.md");
        let documented: BTreeSet<&str> = document
            .lines()
            .filter(|line| line.starts_with("| `GET /") || line.starts_with("| `POST /"))
            .filter_map(|line| line.split('|').nth(1))
            .flat_map(|cell| cell.split('`').filter_map(|word| word.split_once(' ')))
            .map(|(_, path)| path.split(['?', '[', '…']).next().unwrap_or_default())
            .filter(|path| path.starts_with('/'))
            .collect();
        assert_eq!(documented, ROUTES.iter().map(|route| route.path).collect::<BTreeSet<_>>());
    }
}
