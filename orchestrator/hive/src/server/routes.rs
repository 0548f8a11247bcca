//! The table of routes: `api.md`, sections 4 and 5. There are no others, and a test tries each of them.

use std::sync::Arc;

use orchestrator_api::release::BINARY_BYTES_MAX;
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::{
    AUTHOR_REQUEST_BYTES_MAX, BODY_BYTES_MAX, PACKAGE_REQUEST_BYTES_MAX, PART_BYTES_MAX, REPORT_BYTES_MAX,
    RING_BYTES_MAX,
};
use serde_json::{Map, Value, json};

use super::call::{Answering, Call, Reply};
use super::fail::Fail;
use super::tenant::Tenant;
use super::{account, apps, devices, operations, pages, people, stores, streams, watching};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anybody; somebody with a token may be told more.
    All,
    /// A person with this role at least.
    Person(Role),
    /// A device, or a person with this role at least.
    Either(Role),
    /// A device in its session.
    Device,
    /// A device that begins a session.
    Hello,
    /// A machine that has a code.
    Join,
}

/// What comes and goes: JSON, or a page of the console with what belongs to it.
#[derive(Clone, Copy)]
pub enum Door {
    /// A program asks; it has a token, or signs.
    Json,
    /// A browser asks for a page; it has a cookie. Without a login it is led to where one logs in.
    Page,
    /// A browser sends a form, with its CSRF token. What went wrong is told on the page that `again` makes.
    Form {
        /// The page that has the form.
        again: Handler,
        /// Its address; what stands in its places is what stands first in those of the form's own.
        at: &'static str,
    },
}

impl PartialEq for Door {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What answers.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A look, in a transaction of the caller's account.
    Read(fn(&Call, &mut Tenant<'_>) -> Result<Reply, Fail>),
    /// A change, in a transaction of the caller's account.
    Write(fn(&Call, &mut Tenant<'_>) -> Result<Reply, Fail>),
    /// What waits, or needs several transactions.
    Free(fn(Arc<Call>) -> Answering),
}

/// A route.
#[derive(Clone, Copy)]
pub struct Route {
    /// Method.
    pub method: &'static str,
    /// Path, with names in braces.
    pub path: &'static str,
    /// Who may ask.
    pub who: Who,
    /// The largest request, in bytes.
    pub max: usize,
    /// What answers.
    pub handler: Handler,
    /// Programs or browsers.
    pub door: Door,
}

const fn route(method: &'static str, path: &'static str, who: Who, handler: Handler) -> Route {
    Route { method, path, who, max: BODY_BYTES_MAX, handler, door: Door::Json }
}

const fn page(path: &'static str, who: Who, handler: Handler) -> Route {
    Route { door: Door::Page, ..route("GET", path, who, handler) }
}

/// What a form orders, and the page of the same address that has the form.
const fn form(path: &'static str, who: Who, handler: Handler, again: Handler) -> Route {
    form_of(path, path, who, handler, again)
}

/// What a form orders, and the page of the address `at` that has the form.
const fn form_of(at: &'static str, path: &'static str, who: Who, handler: Handler, again: Handler) -> Route {
    Route { door: Door::Form { again, at }, ..route("POST", path, who, handler) }
}

const fn large(max: usize, route: Route) -> Route {
    Route { max, ..route }
}

use Handler::{Free, Read, Write};
use Role::{Operator, Owner, Viewer};
use Who::{All, Device, Either, Hello, Join, Person};

/// All routes.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route("GET", "/healthz", All, Free(account::healthz)),
    route("GET", "/v1/openapi.json", All, Free(account::openapi)),
    route("GET", "/v1/hive", All, Free(account::info)),
    route("POST", "/v1/hive/backup", Person(Owner), Free(account::backup)),
    route("POST", "/v1/hive/recovered", Person(Owner), Write(account::recovered)),
    route("POST", "/v1/setup", All, Free(people::setup)),
    route("POST", "/v1/login", All, Free(people::login)),
    route("DELETE", "/v1/login", Person(Viewer), Write(people::logout)),
    route("GET", "/v1/me", Person(Viewer), Read(people::me)),
    route("PUT", "/v1/me/password", Person(Viewer), Free(people::password)),
    route("GET", "/v1/people/invites", Person(Owner), Read(people::invites)),
    route("POST", "/v1/people/invites", Person(Owner), Write(people::invite)),
    route("DELETE", "/v1/people/invites/{id}", Person(Owner), Write(people::uninvite)),
    route("POST", "/v1/people/accept", All, Free(people::accept)),
    route("GET", "/v1/people", Person(Owner), Read(people::list)),
    route("PATCH", "/v1/people/{id}", Person(Owner), Write(people::change)),
    route("DELETE", "/v1/people/{id}", Person(Owner), Write(people::remove)),
    route("GET", "/v1/tokens", Person(Viewer), Read(people::tokens)),
    route("POST", "/v1/tokens", Person(Viewer), Write(people::token)),
    route("DELETE", "/v1/tokens/{id}", Person(Viewer), Write(people::untoken)),
    route("GET", "/v1/ring", Either(Operator), Read(stores::rings)),
    route("GET", "/v1/ring/{number}", Either(Operator), Read(stores::ring)),
    large(RING_BYTES_MAX, route("PUT", "/v1/ring/{number}", Either(Owner), Write(stores::put_ring))),
    route("GET", "/v1/stores", Either(Viewer), Read(stores::list)),
    route("POST", "/v1/stores", Person(Owner), Write(stores::make)),
    route("DELETE", "/v1/stores/{id}", Person(Owner), Write(stores::remove)),
    route("GET", "/v1/device-codes", Person(Owner), Read(stores::codes)),
    route("POST", "/v1/device-codes", Person(Owner), Write(stores::make_code)),
    route("DELETE", "/v1/device-codes/{id}", Person(Owner), Write(stores::uncode)),
    route("GET", "/v1/devices", Person(Viewer), Read(devices::list)),
    route("GET", "/v1/devices/{id}", Person(Viewer), Read(devices::show)),
    route("PATCH", "/v1/devices/{id}", Person(Owner), Write(devices::rename)),
    route("POST", "/v1/devices/{id}/drain", Person(Operator), Write(account::drain)),
    route("POST", "/v1/devices/{id}/revoke", Person(Owner), Write(account::revoke)),
    route("POST", "/v1/devices/{id}/doctor", Person(Operator), Write(account::doctor)),
    route("POST", "/v1/devices/{id}/facts", Person(Operator), Write(account::facts)),
    route("POST", "/v1/devices/{id}/update", Person(Owner), Write(account::update_device)),
    route("GET", "/v1/releases", Person(Owner), Read(stores::releases)),
    route("POST", "/v1/releases", Person(Owner), Write(stores::make_release)),
    large(BINARY_BYTES_MAX as usize, route("PUT", "/v1/releases/{number}/{arch}", Person(Owner), Write(stores::put_binary))),
    large(PACKAGE_REQUEST_BYTES_MAX, route("POST", "/v1/packages", Either(Owner), Write(stores::post_package))),
    route("GET", "/v1/packages/{app}/{revision}", Either(Operator), Read(stores::get_package)),
    route("GET", "/v1/apps", Person(Viewer), Read(apps::list)),
    route("POST", "/v1/apps", Person(Owner), Write(apps::make)),
    large(AUTHOR_REQUEST_BYTES_MAX, route("POST", "/v1/apps/author", Person(Operator), Write(apps::author))),
    route("GET", "/v1/apps/{id}", Person(Viewer), Read(apps::show)),
    route("PATCH", "/v1/apps/{id}", Person(Operator), Write(apps::change)),
    route("DELETE", "/v1/apps/{id}", Person(Owner), Write(apps::remove)),
    route("POST", "/v1/apps/{id}/start", Person(Operator), Write(apps::start)),
    route("POST", "/v1/apps/{id}/stop", Person(Operator), Write(apps::stop)),
    route("POST", "/v1/apps/{id}/restart", Person(Operator), Write(apps::restart)),
    route("POST", "/v1/apps/{id}/move", Person(Operator), Write(apps::relocate)),
    route("POST", "/v1/apps/{id}/update", Person(Operator), Write(apps::update)),
    route("POST", "/v1/apps/{id}/snapshot", Person(Operator), Write(apps::snapshot)),
    route("GET", "/v1/apps/{id}/moments", Person(Viewer), Free(operations::moments)),
    route("POST", "/v1/apps/{id}/rollback", Person(Operator), Write(apps::rollback)),
    route("POST", "/v1/apps/{id}/restore", Person(Operator), Write(apps::restore)),
    route("POST", "/v1/apps/{id}/fork", Person(Operator), Write(apps::fork)),
    route("POST", "/v1/apps/{id}/actions/{name}", Person(Operator), Write(apps::action)),
    route("POST", "/v1/apps/{id}/logs", Person(Operator), Write(apps::logs)),
    route("GET", "/v1/operations", Person(Viewer), Read(operations::list)),
    route("GET", "/v1/operations/{id}", Person(Viewer), Read(operations::show)),
    route("POST", "/v1/operations/{id}/cancel", Person(Operator), Write(operations::cancel)),
    route("GET", "/v1/streams/{id}", Person(Operator), Free(streams::receive)),
    route("GET", "/v1/events", Person(Viewer), Read(operations::events)),
    route("GET", "/v1/watch", Person(Viewer), Free(watching::watch)),
    route("POST", "/v1/device/join", Join, Free(devices::join)),
    route("POST", "/v1/device/hello", Hello, Write(devices::hello)),
    large(REPORT_BYTES_MAX, route("POST", "/v1/device/report", Device, Free(devices::report))),
    route("GET", "/v1/device/commands", Device, Free(devices::commands)),
    route("POST", "/v1/device/commands/{number}/result", Device, Write(devices::result)),
    large(PART_BYTES_MAX, route("POST", "/v1/device/streams/{id}", Device, Free(streams::send))),
    route("GET", "/v1/device/releases/{number}/{arch}", Device, Read(stores::binary)),
    route("POST", "/v1/device/leave", Device, Write(devices::leave)),
];

/// The pages of the console: `console.md`. Forms are sent by POST, and answer with another page.
#[rustfmt::skip]
pub const PAGES: &[Route] = &[
    page("/", All, Free(pages::root)),
    page("/assets/{hash}/{name}", All, Free(pages::asset)),
    form_of("/", "/theme", All, Free(pages::theme), Free(pages::root)),
    page("/setup", All, Free(pages::setup)),
    form("/setup", All, Free(pages::setup_do), Free(pages::setup)),
    page("/login", All, Free(pages::login)),
    form("/login", All, Free(pages::login_do), Free(pages::login)),
    page("/login/second", All, Free(pages::second)),
    form("/login/second", All, Free(pages::second_do), Free(pages::second)),
    form_of("/", "/logout", Person(Viewer), Free(pages::logout), Free(pages::root)),
    page("/live", Person(Viewer), Free(watching::watch)),
    page("/accept", All, Free(pages::me::accept)),
    form("/accept", All, Free(pages::me::accept_do), Free(pages::me::accept)),
    page("/devices", Person(Viewer), Read(pages::devices::list)),
    page("/devices/add", Person(Owner), Read(pages::devices::add)),
    form("/devices/add", Person(Owner), Write(pages::devices::add_do), Read(pages::devices::add)),
    page("/devices/codes/{id}", Person(Owner), Read(pages::devices::code)),
    form_of("/devices", "/devices/codes/{id}/remove", Person(Owner), Write(pages::devices::uncode), Read(pages::devices::list)),
    page("/devices/{id}", Person(Viewer), Read(pages::devices::show)),
    form_of("/devices/{id}", "/devices/{id}/rename", Person(Owner), Write(pages::devices::rename), Read(pages::devices::show)),
    page("/devices/{id}/drain", Person(Operator), Read(pages::devices::drain)),
    form("/devices/{id}/drain", Person(Operator), Write(pages::devices::drain_do), Read(pages::devices::drain)),
    form_of("/devices/{id}", "/devices/{id}/undrain", Person(Operator), Write(pages::devices::undrain_do), Read(pages::devices::show)),
    page("/devices/{id}/revoke", Person(Owner), Read(pages::devices::revoke)),
    form("/devices/{id}/revoke", Person(Owner), Write(pages::devices::revoke_do), Read(pages::devices::revoke)),
    page("/devices/{id}/update", Person(Owner), Read(pages::devices::update)),
    form("/devices/{id}/update", Person(Owner), Write(pages::devices::update_do), Read(pages::devices::update)),
    page("/activity", Person(Viewer), Read(pages::activity::list)),
    form_of("/activity", "/activity/{id}/cancel", Person(Operator), Write(pages::activity::cancel), Read(pages::activity::list)),
    page("/me", Person(Viewer), Read(pages::me::me)),
    form_of("/me", "/me/password", Person(Viewer), Free(pages::me::password), Read(pages::me::me)),
    form_of("/me", "/me/sessions/{id}/end", Person(Viewer), Write(pages::me::end), Read(pages::me::me)),
    page("/me/second", Person(Viewer), Write(pages::me::second)),
    form("/me/second", Person(Viewer), Write(pages::me::second_on), Write(pages::me::second)),
    form_of("/me", "/me/second/off", Person(Viewer), Free(pages::me::second_off), Read(pages::me::me)),
    page("/settings", Person(Viewer), Read(pages::settings::show)),
    page("/settings/people/{id}/role", Person(Owner), Read(pages::settings::own_role)),
    form_of("/settings", "/settings/people/{id}/role", Person(Owner), Write(pages::settings::role), Read(pages::settings::show)),
    page("/settings/people/{id}/second-off", Person(Owner), Read(pages::settings::second)),
    form("/settings/people/{id}/second-off", Person(Owner), Write(pages::settings::second_off), Read(pages::settings::second)),
    page("/settings/people/{id}/remove", Person(Owner), Read(pages::settings::person)),
    form("/settings/people/{id}/remove", Person(Owner), Write(pages::settings::person_remove), Read(pages::settings::person)),
    form_of("/settings", "/settings/invites", Person(Owner), Write(pages::settings::invite), Read(pages::settings::show)),
    form_of("/settings", "/settings/invites/{id}/remove", Person(Owner), Write(pages::settings::uninvite), Read(pages::settings::show)),
    form_of("/settings", "/settings/tokens", Person(Viewer), Write(pages::settings::token), Read(pages::settings::show)),
    form_of("/settings", "/settings/tokens/{id}/end", Person(Viewer), Write(pages::settings::untoken), Read(pages::settings::show)),
    form_of("/settings", "/settings/stores", Person(Owner), Write(pages::settings::store), Read(pages::settings::show)),
    page("/settings/stores/{id}/remove", Person(Owner), Read(pages::settings::store_gone)),
    form("/settings/stores/{id}/remove", Person(Owner), Write(pages::settings::unstore), Read(pages::settings::store_gone)),
    form_of("/settings", "/settings/channels/webhook", Person(Owner), Write(pages::settings::webhook), Read(pages::settings::show)),
    form_of("/settings", "/settings/channels/mail", Person(Owner), Write(pages::settings::mail), Read(pages::settings::show)),
    form_of("/settings", "/settings/channels/{id}/test", Person(Owner), Free(pages::settings::channel_test), Read(pages::settings::show)),
    page("/settings/channels/{id}/remove", Person(Owner), Read(pages::settings::channel_gone)),
    form("/settings/channels/{id}/remove", Person(Owner), Write(pages::settings::channel_remove), Read(pages::settings::channel_gone)),
];

/// The pages of apps, beside those: the catalog, one app, its moments, its moves.
#[rustfmt::skip]
pub const APP_PAGES: &[Route] = &[
    page("/catalog", Person(Viewer), Free(pages::catalog::list)),
    page("/catalog/{name}", Person(Viewer), Free(pages::catalog::show)),
    large(INSTALL_BYTES_MAX, form("/catalog/{name}", Person(Operator), Free(pages::catalog::install), Free(pages::catalog::show))),
    page("/catalog/{name}/icon", Person(Viewer), Free(pages::catalog::icon)),
    page("/installs/{id}", Person(Viewer), Read(pages::working::install)),
    form_of("/installs/{id}", "/installs/{id}/cancel", Person(Operator), Write(pages::working::install_cancel), Read(pages::working::install)),
    page("/apps/{id}", Person(Viewer), Read(pages::app::show)),
    form_of("/apps/{id}", "/apps/{id}/start", Person(Operator), Write(pages::app::start), Read(pages::app::show)),
    form_of("/apps/{id}", "/apps/{id}/stop", Person(Operator), Write(pages::app::stop), Read(pages::app::show)),
    form_of("/apps/{id}", "/apps/{id}/restart", Person(Operator), Write(pages::app::restart), Read(pages::app::show)),
    form_of("/apps/{id}", "/apps/{id}/snapshot", Person(Operator), Write(pages::app::snapshot), Read(pages::app::show)),
    page("/apps/{id}/settings", Person(Viewer), Read(pages::app::settings)),
    form("/apps/{id}/settings", Person(Operator), Write(pages::app::change), Read(pages::app::settings)),
    form_of("/apps/{id}/settings", "/apps/{id}/update", Person(Operator), Write(pages::app::update), Read(pages::app::settings)),
    page("/apps/{id}/history", Person(Viewer), Read(pages::app::history)),
    page("/apps/{id}/remove", Person(Owner), Read(pages::app::remove)),
    form("/apps/{id}/remove", Person(Owner), Write(pages::app::remove_do), Read(pages::app::remove)),
    page("/apps/{id}/actions/{name}", Person(Operator), Read(pages::app_action::show)),
    form("/apps/{id}/actions/{name}", Person(Operator), Write(pages::app_action::run), Read(pages::app_action::show)),
    page("/apps/{id}/moments", Person(Viewer), Free(pages::app_moments::list)),
    page("/apps/{id}/rollback", Person(Operator), Read(pages::app_moments::rollback)),
    form("/apps/{id}/rollback", Person(Operator), Write(pages::app_moments::rollback_do), Read(pages::app_moments::rollback)),
    page("/apps/{id}/fork", Person(Operator), Read(pages::app_moments::fork)),
    form("/apps/{id}/fork", Person(Operator), Write(pages::app_moments::fork_do), Read(pages::app_moments::fork)),
    page("/apps/{id}/move", Person(Operator), Read(pages::moving::show)),
    form("/apps/{id}/move", Person(Operator), Write(pages::moving::go), Read(pages::moving::show)),
    page("/apps/{id}/force", Person(Operator), Read(pages::moving::force)),
    form("/apps/{id}/force", Person(Operator), Write(pages::moving::force_do), Read(pages::moving::force)),
    page("/apps/{id}/operations/{id}", Person(Viewer), Read(pages::working::show)),
    form_of("/apps/{id}/operations/{id}", "/apps/{id}/operations/{id}/cancel", Person(Operator), Write(pages::working::cancel), Read(pages::working::show)),
];

/// The largest form of an installation: 128 options of 4,096 bytes, each written with three letters at worst.
const INSTALL_BYTES_MAX: usize = 2 << 20;

/// The route of a request, and what stands in its places.
pub fn find(method: &str, segments: &[String]) -> Option<(&'static Route, Vec<String>)> {
    ROUTES.iter().chain(PAGES).chain(APP_PAGES).filter(|route| route.method == method).find_map(|route| {
        let pattern: Vec<&str> = route.path.split('/').filter(|part| !part.is_empty()).collect();
        if pattern.len() != segments.len() {
            return None;
        }
        let mut params = Vec::new();
        for (expected, given) in pattern.iter().zip(segments) {
            if expected.starts_with('{') {
                params.push(given.clone());
            } else if expected != given {
                return None;
            }
        }
        Some((route, params))
    })
}

/// The routes, as tools for HTTP read them.
pub fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let who = match route.who {
            All => "anybody".to_owned(),
            Person(role) => role.text().to_owned(),
            Either(role) => format!("{} or device", role.text()),
            Device | Hello => "device".to_owned(),
            Join => "whoever has a device code".to_owned(),
        };
        let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = names
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let operation = json!({
            "parameters": parameters,
            "x-who": who,
            "x-request-bytes-max": route.max,
            "responses": {"default": {"description": "orchestrator/docs/api.md has requests and answers"}},
        });
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "comb hive", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}
