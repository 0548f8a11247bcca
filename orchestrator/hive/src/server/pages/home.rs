//! The first page.

use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::wire::app::{App, Wanted};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::{Health as Told, Phase};
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{Alert, Home, Tile};
use orchestrator_console::show::{self, Health, Html, Progress};

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::devices;
use super::super::fail::Fail;
use super::super::notify::BEHIND_MS;
use super::super::operations;
use super::super::people::may;
use super::super::rows;
use super::super::tenant::Tenant;
use super::{Here, frame};

/// How an app is, in a word or two.
pub fn app_health(app: &App, device: Option<&Device>) -> (Health, String) {
    let silent = device.is_some_and(|device| device.state == DeviceState::Silent);
    if silent {
        return (Health::Unknown, "its device is silent".to_owned());
    }
    if let Some(problem) = app.problem.as_ref().filter(|problem| problem.code != "no_standby") {
        return (Health::Bad, show::words(&problem.code));
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
            Told::Unknown => (Health::Unknown, "Docker does not answer".to_owned()),
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
        is_bytes: operation.kind != "drain",
    }
}

/// All devices of the account, by name.
pub fn all_devices(call: &Call, tenant: &mut Tenant<'_>) -> Result<Vec<Device>, Fail> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let query = [("limit", Some("200".to_owned())), ("after", after)];
        let page: Page<Device> = devices::list(&call.listing(query), tenant)?.thing()?;
        all.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

fn alert(is_bad: bool, text: Html, path: String) -> Alert {
    Alert { is_bad, text, path }
}

fn device_path(id: DeviceId) -> String {
    format!("/devices/{id}")
}

fn app_path(id: AppId) -> String {
    format!("/apps/{id}")
}

/// What somebody should look at: of devices, and of the apps on this page.
fn alerts(tenant: &mut Tenant<'_>, devices: &[Device], apps: &[App]) -> Result<Vec<Alert>, Fail> {
    let mut all = Vec::new();
    let life = rows::life(tenant)?;
    if life.recovering {
        let text = "The hive was restored from a backup, and waits for its devices. Nothing is moved until they were heard.";
        all.push(alert(true, Html::text(text), "/settings".to_owned()));
    }
    for device in devices {
        let name = show::name(&device.name);
        match device.state {
            DeviceState::Silent if device.seen_age_ms.is_some() => {
                let age = show::span(device.seen_age_ms.map_or(0, |age| age.0));
                let text = Html::pair(name, format!(" has been silent for {age}."));
                all.push(alert(true, text, device_path(device.id)));
            }
            DeviceState::Revoked if device.stores_open => {
                let text = Html::pair(name, " was revoked, and its stores still take its credentials.");
                all.push(alert(true, text, device_path(device.id)));
            }
            DeviceState::Online | DeviceState::Draining if device.locked => {
                let text = Html::pair(name, " waits for the data passphrase on its terminal.");
                all.push(alert(false, text, device_path(device.id)));
            }
            _ => {}
        }
    }
    for app in apps {
        let name = show::name(&app.name);
        let behind = app.at_stake.and_then(|stake| Some((stake.seconds?.0, stake.bytes.0)));
        if let Some((seconds, bytes)) =
            behind.filter(|(seconds, bytes)| seconds * 1000 > BEHIND_MS && *bytes > 0)
        {
            let text = format!(
                ": {} of its data is not safe elsewhere, for {}.",
                show::bytes(bytes),
                show::span(seconds * 1000)
            );
            all.push(alert(true, Html::pair(name, text), app_path(app.id)));
        } else if app.problem.as_ref().is_some_and(|problem| problem.code == "no_standby") {
            let text =
                Html::pair(name, " moves by itself if its device is lost, and no device stands by for it.");
            all.push(alert(false, text, app_path(app.id)));
        }
    }
    Ok(all)
}

/// `GET /`, logged in.
pub fn home(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Home);
    let devices = all_devices(call, tenant)?;
    let query = [("limit", Some("60".to_owned())), ("after", call.query.get("after").cloned())];
    let apps: Page<App> = apps::list(&call.listing(query), tenant)?.thing()?;
    let mut tiles = Vec::new();
    for app in &apps.items {
        let device = app.device.and_then(|id| devices.iter().find(|device| device.id == id));
        let (health, words) = app_health(app, device);
        let operation = app.operation.map(|id| operations::seen(tenant, id)).transpose()?;
        tiles.push(Tile {
            path: app_path(app.id),
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
        alerts: alerts(tenant, &devices, &apps.items)?,
        tiles,
        has_devices: devices.iter().any(|device| device.state != DeviceState::Revoked),
        can_add: may(&call.caller, Role::Owner).is_ok(),
        more: apps.next.map(|next| format!("/?after={next}")),
        frame,
    }))
}

/// Whether a device's word of an app's address may become a link.
pub fn is_web(address: &str) -> bool {
    address.starts_with("http://") || address.starts_with("https://")
}
