//! What somebody should look at, as the first page tells it: of the hive, and of all devices, apps and stores.
//!
//! What a silent device told last is no news of its apps: its silence is.

use std::collections::BTreeMap;

use orchestrator_api::ids::AppId;
use orchestrator_api::text::Time;
use orchestrator_api::wire::app::{AgedReport, App};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::report::{Docker, Phase, StoreState, UpdateStep, VolumeState};
use orchestrator_console::pages::Alert;
use orchestrator_console::show::{self, Health, Html};

use super::super::call::Call;
use super::super::chance;
use super::super::fail::Fail;
use super::super::notify::{BEHIND_MS, FAILED_MS, FailedUpdate};
use super::super::rows;
use super::super::tenant::Tenant;
use super::app::all_stores;
use super::home::app_health;
use super::settings::store_states;
use super::{app_view, devices};

/// All of it, what is worst first.
pub fn all(
    call: &Call,
    tenant: &mut Tenant<'_>,
    devices: &[Device],
    apps: &[App],
) -> Result<Vec<Alert>, Fail> {
    let (mut all, now) = (Vec::new(), chance::time(chance::now()));
    if rows::life(tenant)?.recovering {
        let text = "The hive was restored from a backup, and waits for its devices. Nothing is moved until they were heard.";
        all.push(alert(Health::Bad, Html::text(text), "/settings"));
    }
    for device in devices {
        let health = devices::health(tenant, device)?;
        all.extend(of_device(device, health, now));
    }
    all.extend(of_stores(call, tenant)?);
    for app in apps {
        let device = app.device.and_then(|id| devices.iter().find(|device| device.id == id));
        all.extend(of_app(app, device, now));
    }
    all.extend(of_updates(tenant, devices, apps)?);
    all.sort_by_key(|one| !one.is_bad);
    Ok(all)
}

fn alert(health: Health, text: impl Into<Html>, path: impl Into<String>) -> Alert {
    Alert { is_bad: health == Health::Bad, text: text.into(), more: Html::default(), path: path.into() }
}

fn of_device(device: &Device, (health, words): (Health, String), now: Time) -> Vec<Alert> {
    let name = show::name(&device.name);
    let path = format!("/devices/{}", device.id);
    let mut all = Vec::new();
    if matches!(health, Health::Bad | Health::Warn) {
        let on = |words: &str| Html::pair(words, name.clone());
        let (text, more) = match (device.state, device.docker) {
            (DeviceState::Revoked, _) => {
                (Html::pair(name.clone(), " was revoked, and its stores still take its credentials"), None)
            }
            (DeviceState::Silent, _) => {
                let age = device.seen_age_ms.map_or(0, |age| age.0);
                (
                    Html::pair(name.clone(), " has been silent"),
                    Some(Html::pair(" for ", show::lasting(age, now))),
                )
            }
            _ if device.locked => {
                (Html::pair(name.clone(), " waits for the data passphrase on its terminal"), None)
            }
            (_, Some(Docker::Stopped)) => (on("Docker does not answer on "), None),
            (_, Some(Docker::Missing)) => (on("There is no Docker on "), None),
            (_, Some(Docker::Slow)) => (on("Docker is slow on "), None),
            _ => match devices::full(device) {
                Some(disk) => (
                    on("A disk is nearly full on "),
                    Some(Html::text(&format!(
                        ": {} of {} are free",
                        show::bytes(disk.free_bytes.0),
                        show::bytes(disk.bytes.0)
                    ))),
                ),
                None => (Html::pair(name.clone(), format!(": {words}")), None),
            },
        };
        all.push(Alert {
            more: Html::pair(more.unwrap_or_default(), "."),
            ..alert(health, text, path.clone())
        });
    }
    let failed = device.update.filter(|update| update.state == UpdateStep::GoneBack);
    if let Some(update) = failed.filter(|_| device.state != DeviceState::Revoked) {
        let words =
            format!(" was not well with release {}, and went back to the one before.", update.number.0);
        all.push(alert(Health::Warn, Html::pair(name, words), path));
    }
    all
}

fn of_app(app: &App, device: Option<&Device>, now: Time) -> Vec<Alert> {
    let (name, path) = (show::name(&app.name), app_view::path(app.id));
    let mut all = Vec::new();
    let (health, words) = app_health(app, device);
    let own = app.problem.as_ref().filter(|problem| problem.code != "no_standby");
    if matches!(health, Health::Bad | Health::Warn) {
        let runs = app.report.as_ref().is_some_and(|aged| aged.report.phase == Phase::Running);
        let is_revoked = device.is_some_and(|device| device.state == DeviceState::Revoked);
        let words = match (own.is_some() || is_revoked, runs) {
            (true, _) => format!(": {words}."),
            (false, true) => format!(" is {words}."),
            (false, false) => format!(" {words}."),
        };
        all.push(alert(health, Html::pair(name.clone(), words), path.clone()));
    }
    let behind = app.at_stake.and_then(|stake| Some((stake.seconds?.0, stake.bytes.0)));
    if let Some((seconds, bytes)) = behind.filter(|(seconds, bytes)| seconds * 1000 > BEHIND_MS && *bytes > 0)
    {
        let lasting = show::lasting(seconds.saturating_mul(1000), now);
        let more = Html::pair(Html::pair(format!(": {}, for ", show::bytes(bytes)), lasting), ".");
        let text = Html::pair(name.clone(), " has data that is not safe elsewhere");
        all.push(Alert { more, ..alert(Health::Bad, text, path.clone()) });
    } else if health != Health::Unknown && is_nowhere_else(app) {
        let text = Html::pair(name.clone(), ": no store has ever told that it has its data.");
        all.push(alert(Health::Warn, text, path.clone()));
    }
    if app.problem.is_some() && own.is_none() {
        let text =
            Html::pair(name, " moves by itself if its device is lost, and no device stands by for it.");
        all.push(alert(Health::Warn, text, path));
    }
    all
}

/// Whether an app writes a volume that was never safe anywhere else.
fn is_nowhere_else(app: &App) -> bool {
    let report = app.report.as_ref().map(|aged| &aged.report);
    let runs = report.filter(|report| report.phase == Phase::Running);
    let is_alone = |state, age: Option<_>| state == VolumeState::Mounted && age.is_none();
    runs.is_some_and(|told| told.volumes.iter().any(|one| is_alone(one.state, one.replicated_age_ms)))
}

fn of_stores(call: &Call, tenant: &mut Tenant<'_>) -> Result<Vec<Alert>, Fail> {
    let states = store_states(tenant)?;
    let all = all_stores(call, tenant)?.into_iter().filter_map(|store| {
        let (health, words) = match states.get(&store.id.0)? {
            StoreState::Ok => return None,
            StoreState::Unreachable => (Health::Bad, "A device cannot reach the store "),
            StoreState::Denied => (Health::Bad, "The credentials are refused by the store "),
            StoreState::Other => (Health::Warn, "There are errors of the store "),
        };
        let text = Html::pair(words, show::name(&store.url));
        Some(Alert { more: Html::text("."), ..alert(health, text, "/settings#stores") })
    });
    Ok(all.collect())
}

/// Updates of apps that failed lately, and were not repeated with success.
fn of_updates(tenant: &mut Tenant<'_>, devices: &[Device], apps: &[App]) -> Result<Vec<Alert>, Fail> {
    let sql = "SELECT o.app, o.code, o.data, o.ended FROM operation o WHERE o.account = $1 AND o.kind = 'update' \
         AND o.state = 'failed' AND o.ended > $2 AND NOT EXISTS (SELECT 1 FROM operation l WHERE l.account = o.account \
         AND l.app = o.app AND l.kind = 'update' AND l.state = 'done' AND l.number > o.number) ORDER BY o.number";
    let now = chance::now();
    // Of each app the last one.
    let mut failed = BTreeMap::new();
    for row in tenant.query(sql, &[(now - FAILED_MS).into()])? {
        failed.insert(AppId(row.id(0)?), FailedUpdate::of(&row, (1, 2, 3))?);
    }
    let of = |app: &App| {
        let device = app.device.and_then(|id| devices.iter().find(|device| device.id == id));
        let is_heard =
            device.is_some_and(|it| !matches!(it.state, DeviceState::Silent | DeviceState::Revoked));
        let runs =
            |told: &&AgedReport| told.report.phase == Phase::Running && told.report.revision == app.revision;
        let report = app.report.as_ref().filter(|_| is_heard).filter(runs);
        let ran = report.map(|told| now.saturating_sub_unsigned(told.age_ms.0));
        let words = failed.get(&app.id)?.words(app.revision.0, ran)?;
        let text = Html::pair(show::name(&app.name), format!(": its last update failed. {words}"));
        Some(alert(Health::Warn, text, app_view::path(app.id)))
    };
    Ok(apps.iter().filter_map(of).collect())
}
