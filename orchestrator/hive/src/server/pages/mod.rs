//! The console's pages, as the hive answers them: `console.md`.
//!
//! A page asks the same functions as the JSON routes, and no other rules: [`Call::asking`] hands a form on as the JSON
//! that it stands for. Who may see a page stands in its route.

pub mod activity;
mod alerts;
pub mod app;
pub mod app_action;
pub mod app_moments;
mod app_view;
pub mod catalog;
pub mod devices;
mod enter;
mod event;
mod home;
pub mod me;
pub mod moving;
mod names;
pub mod settings;
mod visit;
pub mod working;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use hyper::http::request::Parts;
use orchestrator_api::error::{ApiError, Code};
use orchestrator_console::layout::{Frame, Link, Problem, Theme};
use orchestrator_console::show::capital;
use orchestrator_console::{Template, assets, link, pages, render};

use super::Shared;
use super::auth::{self, Whose};
use super::call::{Answering, Body, Call, Caller, Reply};
use super::chance;
use super::database::How;
use super::fail::Fail;
use super::http::looked;
use super::people::may;
use super::routes::{Door, Handler, Route, Who};
pub use enter::{login, login_do, logout, root, second, second_do, setup, setup_do};
pub use home::home;
pub use visit::Visit;

/// A session is looked up by each request, and written down as used no oftener than this.
const USED_EVERY_MS: i64 = 10 * 60_000;

/// A request for a page.
pub struct Asked {
    /// What is asked; else why nothing can be: no page has this address, or it cannot be read.
    pub wish: Result<Wish, Fail>,
    /// Path and query, as sent.
    pub path_and_query: String,
    /// From where.
    pub address: IpAddr,
    /// Whether by TLS.
    pub is_secure: bool,
}

/// What is asked of a page that there is.
pub struct Wish {
    /// Which route.
    pub route: &'static Route,
    /// What stands in its places.
    pub params: Vec<String>,
    /// What stands behind the question mark.
    pub query: BTreeMap<String, String>,
    /// What came.
    pub body: Bytes,
}

/// What stands behind the question mark, as a browser writes it.
pub fn query(text: &str) -> Result<BTreeMap<String, String>, Fail> {
    let form = visit::Form::read(text.as_bytes())?;
    Ok(form.below("").map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Where it stands in the address, as if this were a proxy.
fn authority(head: &Parts) -> Option<&str> {
    head.uri.authority().map(|authority| authority.as_str())
}

/// Whether a browser shows a session that is somebody's.
pub async fn is_visited(shared: &Arc<Shared>, head: &Parts, is_secure: bool) -> bool {
    let visit = Visit::of(&head.headers, authority(head), is_secure);
    let Some(secret) = visit.session().map(str::to_owned) else { return false };
    let found = shared.database.transact(How::Read, move |tx| auth::visitor(tx, &secret)).await;
    found.is_ok_and(|found| found.is_some())
}

/// Answers with a page, whatever happens.
pub async fn answer(shared: &Arc<Shared>, asked: Asked, head: &Parts) -> Reply {
    let (route, params, query, body) = match asked.wish {
        Ok(Wish { route, params, query, body }) => (Ok(route), params, query, body),
        Err(fail) => (Err(fail), Vec::new(), BTreeMap::new(), Bytes::new()),
    };
    let mut call = Call {
        shared: shared.clone(),
        caller: Caller::Nobody,
        params,
        query,
        if_match: None,
        last_event: head
            .headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        join: None,
        signed: None,
        method: match (&route, head.method == Method::POST) {
            (Ok(route), _) => route.method,
            (Err(_), true) => "POST",
            (Err(_), false) => "GET",
        },
        path_and_query: asked.path_and_query,
        body,
        address: asked.address,
        visit: Visit::of(&head.headers, authority(head), asked.is_secure),
    };
    let reply = match answered(&mut call, route).await {
        Ok(reply) => reply,
        Err(fail) => error(&call, *fail.answer()),
    };
    match call.visit.door() {
        Some(cookie) if matches!(reply.body, Body::Page(_)) => reply.header(cookie),
        _ => reply,
    }
}

async fn answered(call: &mut Call, route: Result<&'static Route, Fail>) -> Result<Reply, Fail> {
    if let Some(secret) = call.visit.session().map(str::to_owned) {
        let found = call.shared.database.transact(How::Read, move |tx| auth::visitor(tx, &secret)).await?;
        match found {
            Some(found) => {
                if found.used < chance::now() - USED_EVERY_MS {
                    let secret = call.visit.session().unwrap_or_default().to_owned();
                    call.shared.database.transact(How::Write, move |tx| auth::used(tx, &secret)).await?;
                }
                call.visit.name = Some(found.name);
                call.caller = found.caller;
            }
            None => call.visit.is_nobody(),
        }
    }
    let route = route?;
    if let Who::Person(role) = route.who {
        let Caller::Person { token, .. } = &call.caller else {
            return Ok(match route.door {
                Door::Form { at, .. } => unsent(&of_form(call, route, at)),
                Door::Json | Door::Page => to_login(call),
            });
        };
        call.shared.limits.take(Whose::Token(token.0)).map_err(Fail::slow_down)?;
        may(&call.caller, role)?;
    }
    let Door::Form { again, at } = route.door else {
        return run(Arc::new(call.clone()), route.handler).await;
    };
    call.visit.form = visit::Form::read(&call.body)?;
    call.visit.check()?;
    match run(Arc::new(call.clone()), route.handler).await {
        Ok(reply) => Ok(reply),
        Err(fail) => {
            let error = fail.answer();
            // What nobody can mend by another word is told on a page of its own.
            if matches!(error.code, Code::NotFound | Code::NotLoggedIn | Code::DatabaseAway | Code::Internal)
            {
                return Err(Fail::Api(error));
            }
            let status = error.code.status();
            call.visit.problem = Some(error);
            call.visit.at = Some(of_form(call, route, at));
            let reply = run(Arc::new(call.clone()), again).await?;
            Ok(Reply { status, ..reply })
        }
    }
}

/// The address of the page that has a form. What stands behind the question mark of the form's address is of its own page
/// alone.
fn of_form(call: &Call, route: &Route, at: &str) -> String {
    if at == route.path { call.path_and_query.clone() } else { address(at, &call.params) }
}

/// An address of the table with what stands in its places.
fn address(pattern: &str, params: &[String]) -> String {
    let mut params = params.iter();
    let part = |part: &str| match part.starts_with('{') {
        true => params.next().map_or_else(String::new, |param| escaped(param).replace('/', "%2F")),
        false => part.to_owned(),
    };
    pattern.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn run(call: Arc<Call>, handler: Handler) -> Result<Reply, Fail> {
    match handler {
        Handler::Free(handler) => handler(call).await,
        Handler::Read(handler) => looked(&call, handler).await,
        Handler::Write(handler) => call.write(handler).await,
    }
}

/// Where somebody logs in who sent a form: what it ordered is not done, which the login says, and leads to its page.
fn unsent(page: &str) -> Reply {
    match page {
        // Home has no form but the one that logs out.
        "/" => Reply::to("/login"),
        page => Reply::to(format!("/login?unsent=yes&to={}", escaped(page))),
    }
}

/// Where somebody logs in; what they asked for comes afterwards.
fn to_login(call: &Call) -> Reply {
    if call.method != "GET" || call.path_and_query == "/" {
        return Reply::to("/login");
    }
    // A browser that another site sent here shows no cookie the first time, and does the second time.
    if call.visit.is_foreign {
        let page = pages::Onward { path: call.path_and_query.clone() };
        return Reply::page(&page);
    }
    Reply::to(format!("/login?to={}", escaped(&call.path_and_query)))
}

/// Text as it stands behind a question mark.
pub fn escaped(text: &str) -> String {
    link::encode(text.as_bytes())
}

/// A path of this hive, or the first page: nobody is led elsewhere.
pub fn inside(path: &str) -> &str {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if plain && path.starts_with('/') && !path.starts_with("//") && path.len() <= 512 { path } else { "/" }
}

/// What went wrong, as a person is told: which field it is stands beside that field, and not by its name for programs.
fn sentence(error: &ApiError) -> String {
    let field = error.field.as_ref().map(|field| format!("\"{field}\": "));
    let words = field.and_then(|field| error.message.strip_prefix(&field)).unwrap_or(&error.message);
    match words.starts_with("is ") {
        true => format!("This {words}"),
        false => capital(words),
    }
}

/// The page of what went wrong.
fn error(call: &Call, error: ApiError) -> Reply {
    let back = if matches!(call.caller, Caller::Person { .. }) {
        ("/".to_owned(), "Home")
    } else {
        ("/".to_owned(), "Begin again")
    };
    let id = error.details.get("id").and_then(|id| id.as_str()).map(str::to_owned);
    let status = error.code.status();
    let frame = frame(call, Here::None);
    let reply =
        Reply::page(&pages::Error { frame, status, message: sentence(&error), hint: error.hint, id, back })
            .status(status);
    match error.retry_after_ms {
        Some(ms) => reply.header(("retry-after", ms.div_ceil(1000).to_string())),
        None => reply,
    }
}

/// Where one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    None,
    Home,
    Devices,
    Catalog,
    Activity,
    Settings,
}

/// What all pages have.
pub fn frame(call: &Call, here: Here) -> Frame {
    let logged_in = matches!(call.caller, Caller::Person { .. });
    let all = [
        (Here::Home, "/", "Home"),
        (Here::Devices, "/devices", "Devices"),
        (Here::Catalog, "/catalog", "Catalog"),
        (Here::Activity, "/activity", "Activity"),
        (Here::Settings, "/settings", "Settings"),
    ];
    let link = |(one, path, label): (Here, &str, &'static str)| Link {
        path: path.to_owned(),
        label,
        is_here: one == here,
    };
    let problem = call.visit.problem.as_ref().map(|error| Problem {
        message: sentence(error),
        hint: error.hint.clone(),
        field: error.field.clone(),
    });
    Frame {
        now: chance::time(chance::now()),
        theme: call.visit.theme,
        csrf: call.visit.csrf(),
        path: match &call.visit.at {
            Some(at) => at.clone(),
            None if call.method == "GET" => call.path_and_query.clone(),
            None => "/".to_owned(),
        },
        is_posted: call.method != "GET",
        is_once: call.method != "GET" && call.visit.at.is_none(),
        nav: if logged_in { all.into_iter().map(link).collect() } else { Vec::new() },
        person: call.visit.name.clone(),
        done: call.query.get("done").and_then(|code| done(code)).map(str::to_owned),
        problem,
        live: logged_in.then_some("/live"),
        place: "hive".to_owned(),
    }
}

/// What was done, by the word that the redirect carries: nobody else's words are shown.
fn done(code: &str) -> Option<&'static str> {
    Some(match code {
        "out" => "You are logged out.",
        "renamed" => "The name was changed.",
        "saved" => "Saved.",
        "removed" => "Removed.",
        "ordered" => "Ordered. It is under Activity until it is done.",
        "cancelled" => "It was cancelled.",
        _ => return None,
    })
}

impl Reply {
    /// A page.
    pub fn page(page: &impl Template) -> Self {
        Self { body: Body::Page(render(page)), ..Self::none().status(200) }
    }

    /// Another page, which the browser asks for: a form that was sent is not sent again by loading that.
    pub fn to(path: impl Into<String>) -> Self {
        Self::none().status(303).header(("location", path.into()))
    }
}

/// `GET /assets/{hash}/{name}`.
pub fn asset(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let part = |at: usize| call.params.get(at).map_or("", String::as_str);
        let asset = assets::find(part(0), part(1)).ok_or_else(Fail::not_found)?;
        let reply = Reply { body: Body::Asset(asset), ..Reply::none().status(200) };
        Ok(reply.header(("cache-control", assets::CACHING.to_owned())))
    })
}

/// `POST /theme`: light or dark, for this browser.
pub fn theme(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let theme = Theme::of(call.visit.form.text("theme"));
        Ok(Reply::to(inside(call.visit.form.text("back"))).header(call.visit.choose(theme)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_is_shown_again_has_the_address_of_its_page() {
        let params = ["5c0e".to_owned(), "a b/c".to_owned()];
        assert_eq!(
            address("/apps/{id}/operations/{id}/cancel", &params),
            "/apps/5c0e/operations/a%20b%2Fc/cancel"
        );
        assert_eq!((address("/devices", &params), address("/", &params)), ("/devices".into(), "/".into()));
    }

    #[test]
    fn a_person_is_told_of_no_field_by_its_name_for_programs() {
        let of = |field: &str, message: &str| {
            let error = ApiError::new(Code::BadRequest, message);
            sentence(&ApiError { field: Some(field.to_owned()).filter(|field| !field.is_empty()), ..error })
        };
        assert_eq!(of("name", "\"name\": is not a name of a-z"), "This is not a name of a-z");
        assert_eq!(of("to[0].x", "\"to[0].x\": a list has more"), "A list has more");
        assert_eq!(of("", "\"attic\" is being emptied"), "\"attic\" is being emptied");
    }

    #[test]
    fn nobody_is_led_elsewhere() {
        for path in ["/", "/devices/x?span=day", "/apps/1"] {
            assert_eq!(inside(path), path);
        }
        for path in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "/ü", "javascript:x"]
        {
            assert_eq!(inside(path), "/", "{path}");
        }
    }
}
