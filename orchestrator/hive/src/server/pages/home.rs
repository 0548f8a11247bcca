//! The first page.

use orchestrator_api::wire::app::{App, Wanted};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::{Docker, Health as Told, Phase};
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{Home, Tile};
use orchestrator_console::show::{self, Counted, Health, Html, Progress};
use serde::de::DeserializeOwned;

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::devices;
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::tenant::Tenant;
use super::{Here, alerts, app_view, frame};

/// Apps on a page.
const TILES: usize = 60;

/// How an app is, in a word or two.
pub fn app_health(app: &App, device: Option<&Device>) -> (Health, String) {
    match device.map(|device| device.state) {
        Some(DeviceState::Revoked) => return (Health::Bad, "its device was revoked".to_owned()),
        Some(DeviceState::Silent) => return (Health::Unknown, "its device is silent".to_owned()),
        _ => {}
    }
    if let Some(problem) = app.problem.as_ref().filter(|problem| problem.code != "no_standby") {
        return (Health::Bad, show::problem(&problem.code).0);
    }
    let Some(report) = app.report.as_ref().map(|aged| &aged.report) else {
        return match (app.wanted, app.operation.is_some()) {
            (_, true) => (Health::Busy, "being prepared".to_owned()),
            (Wanted::Stopped, _) => (Health::Off, "stopped".to_owned()),
            (Wanted::Running, _) => (Health::Unknown, "nobody has reported it yet".to_owned()),
        };
    };
    match report.phase {
        Phase::Running => match report.health {
            Told::Healthy => (Health::Well, "well".to_owned()),
            Told::None => (Health::Well, "running".to_owned()),
            Told::Starting => (Health::Busy, "starting".to_owned()),
            Told::Unhealthy => (Health::Bad, "not well".to_owned()),
            Told::Unknown => {
                let is_away =
                    matches!(device.and_then(|one| one.docker), Some(Docker::Stopped | Docker::Missing));
                let words = if is_away { "Docker does not answer" } else { "not looked at yet" };
                (Health::Unknown, words.to_owned())
            }
        },
        Phase::Stopped | Phase::Absent | Phase::StandingBy if app.wanted == Wanted::Stopped => {
            (Health::Off, "stopped".to_owned())
        }
        Phase::Stopped => (Health::Bad, "stopped by itself".to_owned()),
        Phase::Absent | Phase::StandingBy => (Health::Busy, "being prepared".to_owned()),
        Phase::Claiming | Phase::Mounting | Phase::Starting | Phase::Settling => {
            (Health::Busy, "starting".to_owned())
        }
        Phase::Stopping | Phase::Flushing => (Health::Busy, "stopping".to_owned()),
    }
}

/// How safe an app's data is: `safe as of 4 s ago`.
pub fn app_safe(app: &App, now: orchestrator_api::text::Time) -> Html {
    match app.at_stake {
        Some(stake) => match stake.seconds {
            Some(seconds) => Html::pair("safe as of ", show::as_of(seconds.0.saturating_mul(1000), now)),
            None => Html::text("not safe elsewhere yet"),
        },
        None if app.volumes.is_empty() => Html::text("it keeps no data"),
        None if app.wanted == Wanted::Stopped => Html::text("its data comes with the next start"),
        None => Html::text("nothing known of its data yet"),
    }
}

/// How far an operation is.
pub fn progress(operation: &orchestrator_api::wire::operation::Operation) -> Progress {
    Progress {
        steps: operation.steps.clone(),
        step: operation.step.clone(),
        done: operation.done.map(|number| number.0),
        total: operation.total.map(|number| number.0),
        of: if operation.kind == "drain" { Counted::Apps } else { Counted::Bytes },
    }
}

/// All devices of the account, by name.
pub fn all_devices(call: &Call, tenant: &mut Tenant<'_>) -> Result<Vec<Device>, Fail> {
    all(call, tenant, devices::list)
}

/// All apps of the account, by name.
fn all_apps(call: &Call, tenant: &mut Tenant<'_>) -> Result<Vec<App>, Fail> {
    all(call, tenant, apps::list)
}

/// All things of a list, page by page.
fn all<T: DeserializeOwned>(
    call: &Call,
    tenant: &mut Tenant<'_>,
    list: impl Fn(&Call, &mut Tenant<'_>) -> Result<Reply, Fail>,
) -> Result<Vec<T>, Fail> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let query = [("limit", Some("200".to_owned())), ("after", after)];
        let page: Page<T> = list(&call.listing(query), tenant)?.thing()?;
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// `GET /`, logged in.
pub fn home(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Home);
    let devices = all_devices(call, tenant)?;
    let apps = all_apps(call, tenant)?;
    let first = match call.query.get("after") {
        Some(after) => {
            let after = apps.iter().position(|app| app.id.to_string() == *after);
            after.ok_or_else(Fail::not_found)? + 1
        }
        None => 0,
    };
    let page = apps.get(first..).unwrap_or_default();
    let shown = page.get(..TILES).unwrap_or(page);
    let mut tiles = Vec::new();
    for app in shown {
        let device = app.device.and_then(|id| devices.iter().find(|device| device.id == id));
        let (health, words) = app_health(app, device);
        let operation = app.operation.map(|id| operations::seen(tenant, id)).transpose()?;
        tiles.push(Tile {
            path: app_view::path(app.id),
            name: show::name(&app.name),
            health,
            words,
            device: device.map(|device| show::name(&device.name)),
            safe: app_safe(app, frame.now),
            progress: operation.as_ref().map(progress),
            open: app.address.clone().filter(|address| is_web(address)),
        });
    }
    Ok(Reply::page(&Home {
        alerts: alerts::all(call, tenant, &devices, &apps)?,
        tiles,
        has_devices: devices.iter().any(|device| device.state != DeviceState::Revoked),
        can_add: may(&call.caller, Role::Owner).is_ok(),
        can_install: may(&call.caller, Role::Operator).is_ok(),
        more: shown.last().filter(|_| page.len() > shown.len()).map(|last| format!("/?after={}", last.id)),
        frame,
    }))
}

/// Whether a device's word of an app's address may become a link.
pub fn is_web(address: &str) -> bool {
    address.starts_with("http://") || address.starts_with("https://")
}
