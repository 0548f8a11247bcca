//! Devices: the list, a new one, one with its figures, and what is ordered of it.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::account::{NewDeviceCode, OpenDeviceCode, ReleaseInfo};
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::{Disk, DiskUse, Docker, UpdateStep, VolumeState};
use orchestrator_api::wire::value::Page;
use orchestrator_console::layout::Frame;
use orchestrator_console::pages::{
    self, AddDevice, AppRow, Confirm, DeviceRow, Devices, NewDevice, VolumeRow,
};
use orchestrator_console::show::{self, Field, Graph, Health, Html, Kind, Line, Unit};
use serde_json::json;

use super::super::call::{Call, Reply};
use super::super::chance;
use super::super::database::Row;
use super::super::fail::Fail;
use super::super::figures::{self, Span};
use super::super::people::may;
use super::super::tenant::Tenant;
use super::super::{account, apps, devices, drain, stores};
use super::app_view::{self, is_heard};
use super::home::app_health;
use super::{Here, frame, names};

/// What `--accept-authoring` means (`security.md`, section 5).
const AUTHORING: &str = "The hive may then install apps on this device by itself. Whoever controls the hive can run programs in containers there, without access to the data of other apps. Without it, apps are added by comb app add where your key ring is open.";
/// Apps of a device that the list names.
const APPS_SHOWN: usize = 4;

/// How a device is, in a word or two.
pub fn health(tenant: &mut Tenant<'_>, device: &Device) -> Result<(Health, String), Fail> {
    Ok(match device.state {
        DeviceState::Revoked if device.stores_open => {
            (Health::Bad, "revoked, its stores are open".to_owned())
        }
        DeviceState::Revoked => (Health::Off, "revoked".to_owned()),
        DeviceState::Silent => match device.seen_age_ms {
            Some(age) => (Health::Bad, format!("silent for {}", show::span(age.0))),
            None => (Health::Busy, "joined, not heard yet".to_owned()),
        },
        _ if device.locked => (Health::Warn, "waits for its passphrase".to_owned()),
        DeviceState::Draining if device.apps.is_empty() => {
            (Health::Off, "emptied, and takes no apps".to_owned())
        }
        DeviceState::Draining if drain::running(tenant, device.id)?.is_none() => {
            let count = device.apps.len();
            (Health::Warn, format!("{count} app{} could not leave", if count == 1 { "" } else { "s" }))
        }
        DeviceState::Draining => (Health::Busy, "being emptied".to_owned()),
        DeviceState::Online => match device.docker {
            Some(Docker::Stopped) => (Health::Bad, "Docker does not answer".to_owned()),
            Some(Docker::Missing) => (Health::Bad, "has no Docker".to_owned()),
            Some(Docker::Slow) => (Health::Warn, "Docker is slow".to_owned()),
            _ if full(device).is_some() => (Health::Warn, "its disk is nearly full".to_owned()),
            _ => (Health::Well, "well".to_owned()),
        },
    })
}

/// The apps that stay on a device that is emptied: where each is, what it is called, and why it could not leave.
fn left(
    tenant: &mut Tenant<'_>,
    device: &Device,
    names: &names::Names,
) -> Result<Vec<(String, Html, String)>, Fail> {
    if device.state != DeviceState::Draining {
        return Ok(Vec::new());
    }
    let stays = drain::left(tenant, device.id)?.into_iter().filter(|left| device.apps.contains(&left.app));
    Ok(stays
        .filter_map(|left| {
            let name = show::name(names.get(&left.app.0)?);
            let (words, what) = show::problem(&left.code);
            let what = match left.code == drain::STOPPED {
                true => Some("Start it, and empty the device again; or remove it."),
                false => what,
            };
            let why = format!("{}. {}", show::capital(&words), what.unwrap_or_default());
            Some((format!("/apps/{}", left.app), name, why.trim_end().to_owned()))
        })
        .collect())
}

/// A disk of a device that is nearly full.
pub fn full(device: &Device) -> Option<&Disk> {
    device.disks.iter().find(|disk| disk.free_bytes.0 < disk.bytes.0 / 20)
}

fn disk_name(disk: &Disk) -> &'static str {
    match disk.what {
        DiskUse::State => "data",
        DiskUse::Docker => "Docker",
        DiskUse::Apps => "apps",
    }
}

fn disks(device: &Device) -> String {
    // Most machines have one disk, which holds all of it.
    let mut told: Vec<(u64, String)> = Vec::new();
    for disk in &device.disks {
        if !told.iter().any(|(bytes, _)| *bytes == disk.bytes.0) {
            let free = show::bytes(disk.free_bytes.0);
            told.push((disk.bytes.0, format!("{free} free of {}", show::bytes(disk.bytes.0))));
        }
    }
    told.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")
}

fn load(device: &Device) -> String {
    let Some(load) = device.load.filter(|_| is_heard(device)) else { return "–".to_owned() };
    let used = load.memory_bytes.0.saturating_sub(load.memory_free_bytes.0);
    format!("{} %, {} of {}", load.cpu_percent.0, show::bytes(used), show::bytes(load.memory_bytes.0))
}

/// What is not safe elsewhere, and for how long. Ages are counted from the report, so its own age is added; and of a device
/// that is not heard nobody knows that nothing was written since.
fn backlog(device: &Device, bytes: u64, age_ms: Option<u64>) -> String {
    let since = device.seen_age_ms.map_or(0, |age| age.0);
    match (bytes, age_ms) {
        (0, _) if !is_heard(device) => "not known now".to_owned(),
        (0, _) => "nothing".to_owned(),
        (bytes, Some(age)) => {
            format!("{}, for {}", show::bytes(bytes), show::span(age.saturating_add(since)))
        }
        (bytes, None) => show::bytes(bytes),
    }
}

fn row(
    tenant: &mut Tenant<'_>,
    device: &Device,
    names: &BTreeMap<[u8; 16], String>,
) -> Result<DeviceRow, Fail> {
    let (health, words) = health(tenant, device)?;
    let heard = tenant.heard(device.id)?;
    let volumes = heard.iter().flat_map(|heard| heard.report.apps.iter()).flat_map(|app| app.volumes.iter());
    let (mut bytes, mut age) = (0u64, None);
    for volume in volumes {
        bytes = bytes.saturating_add(volume.backlog_bytes.0);
        age = age.max(volume.backlog_age_ms.map(|age| age.0));
    }
    let app = |id: &AppId| {
        let name = names.get(&id.0).map_or("", String::as_str);
        (format!("/apps/{id}"), show::name(name))
    };
    Ok(DeviceRow {
        path: format!("/devices/{}", device.id),
        name: show::name(&device.name),
        health,
        words,
        version: device.version.clone(),
        load: load(device),
        disks: disks(device),
        apps: device.apps.iter().take(APPS_SHOWN).map(app).collect(),
        more_apps: device.apps.len().saturating_sub(APPS_SHOWN),
        backlog: backlog(device, bytes, age),
    })
}

/// `GET /devices`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Devices);
    let query = [("after", call.query.get("after").cloned())];
    let page: Page<Device> = devices::list(&call.listing(query), tenant)?.thing()?;
    let names = names::apps(tenant)?;
    let rows: Result<Vec<DeviceRow>, Fail> =
        page.items.iter().map(|device| row(tenant, device, &names)).collect();
    let can_add = may(&call.caller, Role::Owner).is_ok();
    let codes: Page<OpenDeviceCode> = stores::codes(call, tenant)?.thing()?;
    let code = |code: OpenDeviceCode| {
        let name = code.name.unwrap_or_else(|| "a device".to_owned());
        (name, Html::pair("ends ", show::until(code.ends, frame.now)), format!("/devices/codes/{}", code.id))
    };
    Ok(Reply::page(&Devices {
        rows: rows?,
        can_add,
        codes: if can_add { codes.items.into_iter().map(code).collect() } else { Vec::new() },
        more: page.next.map(|next| format!("/devices?after={next}")),
        frame,
    }))
}

fn has_ring(tenant: &mut Tenant<'_>) -> Result<bool, Fail> {
    Ok(tenant.one("SELECT 1 FROM ring WHERE account = $1", &[])?.is_some())
}

/// `GET /devices/add`.
pub fn add(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Devices);
    let form = &call.visit.form;
    let fields = vec![
        Field::new("name", "Name", Kind::Text)
            .optional()
            .hint(
                "Small letters, digits and hyphens. If you leave it empty, the machine's own name is taken.",
            )
            .value(form.text("name"))
            .error(frame.error("name"))
            .length(63)
            .focus(),
        Field::new("accept_authoring", "Apps of the catalog may be installed on it from here", Kind::Flag)
            .hint(AUTHORING)
            .value(form.text("accept_authoring")),
        Field::new("auto_update", "It takes updates of comb by itself", Kind::Flag)
            .value(form.text("auto_update")),
    ];
    Ok(Reply::page(&AddDevice { is_first: !has_ring(tenant)?, fields, frame }))
}

/// `POST /devices/add`.
pub fn add_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let form = &call.visit.form;
    let wish = json!({"name": form.maybe("name"), "auto_update": form.flag("auto_update")});
    let made: NewDeviceCode = stores::make_code(&call.asking(&wish), tenant)?.thing()?;
    let hive = call.visit.origin();
    // The device's own choice, which the hive cannot make for it: it stands in the command that a person runs there.
    let accepts = if form.flag("accept_authoring") { " --accept-authoring" } else { "" };
    let with = |text: &str| text.replace(" HIVE ", &format!(" {hive} ")) + accepts;
    let path = format!("/devices/codes/{}", made.id);
    let frame = Frame { path: path.clone(), ..frame(call, Here::Devices) };
    Ok(Reply::page(&NewDevice {
        command: Some(with(made.command.reveal())),
        docker: Some(with(made.docker.reveal())),
        path,
        ends: Some(show::until(made.ends, frame.now)),
        device: None,
        is_heard: false,
        is_loopback: call.visit.is_loopback(),
        is_first: !has_ring(tenant)?,
        frame,
    }))
}

/// `GET /devices/codes/{code}`: whether the device came.
pub fn code(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: Hex<8> = call.param(0)?;
    let sql = "SELECT ends, used_by FROM device_code WHERE account = $1 AND code_id = $2";
    let found = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    let (ends, used) = (found.int(0)?, found.maybe(1, Row::id::<16>)?.map(DeviceId));
    let names = names::apps(tenant)?;
    let device = used.map(|device| devices::seen(tenant, device)).transpose()?;
    let is_heard = device.as_ref().is_some_and(|device| device.seen_age_ms.is_some());
    let device = device.map(|device| row(tenant, &device, &names)).transpose()?;
    let frame = frame(call, Here::Devices);
    Ok(Reply::page(&NewDevice {
        command: None,
        docker: None,
        path: format!("/devices/codes/{id}"),
        ends: (ends > frame.now.0).then(|| show::until(chance::time(ends), frame.now)),
        device,
        is_heard,
        is_loopback: false,
        is_first: false,
        frame,
    }))
}

/// `POST /devices/codes/{code}/remove`.
pub fn uncode(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    stores::uncode(call, tenant)?;
    Ok(Reply::to("/devices?done=removed"))
}

fn of(label: &str, points: Vec<Option<f64>>) -> Line {
    Line { label: label.to_owned(), points }
}

fn graphs(tenant: &mut Tenant<'_>, device: &Device, span: Span) -> Result<Vec<Graph>, Fail> {
    let lines = figures::lines::<{ figures::MACHINE }>(tenant, Uuid(device.id.0), span)?;
    if lines.iter().all(|line| line.iter().all(Option::is_none)) {
        return Ok(Vec::new());
    }
    let (from, to) = span.axis();
    let [cpu, memory, disk, received, sent, read, written] = lines;
    let graph = |id: &'static str, title: &str, unit: Unit, top: Option<f64>, lines: Vec<Line>| Graph {
        id,
        title: title.to_owned(),
        unit,
        from,
        to,
        top,
        lines,
    };
    let all = device.load.map(|load| load.memory_bytes.0 as f64);
    let room = device.disks.iter().find(|disk| disk.what == DiskUse::State).map(|disk| disk.bytes.0 as f64);
    Ok(vec![
        graph("cpu", "Processors", Unit::Percent, Some(100.0), vec![of("busy", cpu)]),
        graph("memory", "Memory", Unit::Bytes, all, vec![of("used", memory)]),
        graph("disk", "Disk", Unit::Bytes, room, vec![of("used", disk)]),
        graph("network", "Network", Unit::Rate, None, vec![of("received", received), of("sent", sent)]),
        graph("io", "Reading and writing", Unit::Rate, None, vec![of("read", read), of("written", written)]),
    ])
}

fn volume_state(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Absent => "not here",
        VolumeState::Following => "follows another device",
        VolumeState::Mounted => "mounted",
        VolumeState::ReadOnly => "mounted, takes no writes",
        VolumeState::Fenced => "another device went on",
        VolumeState::Closed => "not mounted",
        VolumeState::Damaged => "damaged",
    }
}

fn updating(device: &Device) -> Option<String> {
    let update = device.update.filter(|update| update.state != UpdateStep::None)?;
    let number = update.number.0;
    Some(match update.state {
        UpdateStep::None => return None,
        UpdateStep::Fetching => format!("It is fetching release {number}."),
        UpdateStep::Trying => format!("It tries release {number}."),
        UpdateStep::Done => format!("It runs release {number}."),
        UpdateStep::GoneBack => {
            let why = update
                .problem
                .map(|problem| format!(": {}", show::problem(problem.text()).0))
                .unwrap_or_default();
            format!("Release {number} was not well here, so it went back to the one before{why}.")
        }
    })
}

fn files(count: u64) -> String {
    format!("{count} file{}", if count == 1 { "" } else { "s" })
}

/// `GET /devices/{id}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let device = devices::seen(tenant, call.param(0)?)?;
    let frame = frame(call, Here::Devices);
    let path = format!("/devices/{}", device.id);
    let (state, words) = health(tenant, &device)?;
    let yes = |is: bool| Html::text(if is { "yes" } else { "no" });
    let is_revoked = device.state == DeviceState::Revoked;
    let mut facts = Vec::new();
    if !is_revoked {
        facts.push(("Load", Html::text(&load(&device))));
    }
    for disk in &device.disks {
        let text = format!(
            "{} free of {} for {}",
            show::bytes(disk.free_bytes.0),
            show::bytes(disk.bytes.0),
            disk_name(disk)
        );
        facts.push(("Disk", Html::text(&text)));
    }
    facts.push(("Comb", Html::text(&format!("{}, {}", device.version, devices::arch_text(device.arch)))));
    facts.push(("Joined", show::ago(device.joined, frame.now)));
    facts.push(("Updates itself", yes(device.auto_update)));
    facts.push(("Takes apps from this console", yes(device.accepts_authoring)));
    let (mut rows, mut volumes, mut volumes_of) = (Vec::new(), Vec::new(), BTreeMap::new());
    for id in &device.apps {
        let app: App = apps::seen(tenant, *id)?;
        let (health, words) = app_health(&app, Some(&device));
        // What a device told that is not heard any more is no figure of now.
        let told = app.report.as_ref().map(|aged| &aged.report).filter(|_| is_heard(&device));
        let sum = |of: fn(&orchestrator_api::wire::report::ServiceReport) -> u64| {
            told.filter(|told| !told.services.is_empty())
                .map(|told| told.services.iter().map(of).sum::<u64>())
        };
        rows.push(AppRow {
            path: format!("/apps/{id}"),
            name: show::name(&app.name),
            health: show::health(health, &words),
            cpu: sum(|it| it.cpu_percent.0).map_or("–".to_owned(), |it| format!("{it} %")),
            memory: sum(|it| it.memory_bytes.0).map_or("–".to_owned(), show::bytes),
        });
        volumes_of.insert(*id, app.volumes);
    }
    let names = names::apps(tenant)?;
    let age = device.seen_age_ms.map_or(0, |age| age.0);
    let heard = tenant.heard(device.id)?;
    for app in heard.iter().flat_map(|heard| heard.report.apps.iter()) {
        let Some(name) = names.get(&app.app.0) else { continue };
        // One that it only stands by for is another device's.
        let known = match volumes_of.remove(&app.app) {
            Some(known) => known,
            None => apps::seen(tenant, app.app)?.volumes,
        };
        for volume in app.volumes.iter() {
            let called =
                known.iter().find(|one| one.volume == Some(volume.volume)).map_or("", |one| &one.name);
            volumes.push(VolumeRow {
                path: format!("/apps/{}", app.app),
                name: Html::pair(Html::pair(show::name(name), " / "), show::name(called)),
                state: volume_state(volume.state).to_owned(),
                bytes: format!("{} in {}", show::bytes(volume.bytes.0), files(volume.files.0)),
                safe: match volume.replicated_age_ms {
                    Some(safe) => show::as_of(safe.0.saturating_add(age), frame.now),
                    None => Html::text("not yet"),
                },
                backlog: backlog(&device, volume.backlog_bytes.0, volume.backlog_age_ms.map(|age| age.0)),
            });
        }
    }
    let can_own = may(&call.caller, Role::Owner).is_ok();
    let span = Span::of(call.query.get("span"));
    let releases: Page<ReleaseInfo> = stores::releases(call, tenant)?.thing()?;
    let has = device.update.map_or(0, |update| update.number.0);
    let newest = releases.items.iter().max_by_key(|release| release.number.0);
    let newest = newest
        .filter(|release| release.number.0 > has && release.present.contains(&device.arch) && !is_revoked);
    Ok(Reply::page(&pages::Device {
        name: show::name(&device.name),
        title: device.name.clone(),
        health: show::health(state, &words),
        seen: device.seen_age_ms.map(|age| show::as_of(age.0, frame.now)),
        facts,
        apps: rows,
        volumes,
        spans: span.links(&format!("{path}?span="), "#figures"),
        graphs: graphs(tenant, &device, span)?,
        rename: can_own.then(|| {
            let given = call.visit.form.maybe("name").unwrap_or(&device.name);
            Field::new("name", "Name", Kind::Text).value(given).length(63).error(frame.error("name"))
        }),
        left: left(tenant, &device, &names)?,
        can_try_again: device.state == DeviceState::Draining && drain::running(tenant, device.id)?.is_none(),
        is_draining: device.state == DeviceState::Draining,
        is_revoked,
        stores_open: device.stores_open,
        can_drain: may(&call.caller, Role::Operator).is_ok() && !is_revoked,
        can_own,
        no_orders: app_view::no_orders(&device),
        update: newest.map(|release| (release.number.0, release.version.clone())),
        updating: updating(&device),
        path,
        frame,
    }))
}

/// `POST /devices/{id}/rename`.
pub fn rename(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: DeviceId = call.param(0)?;
    devices::rename(&call.asking(&json!({"name": call.visit.form.text("name").trim()})), tenant)?;
    Ok(Reply::to(format!("/devices/{id}?done=renamed")))
}

fn question(
    call: &Call,
    tenant: &mut Tenant<'_>,
    verb: &str,
    title: &str,
    button: &str,
) -> Result<Confirm, Fail> {
    let device = devices::seen(tenant, call.param(0)?)?;
    Ok(Confirm {
        frame: frame(call, Here::Devices),
        title: format!("{title} {}?", device.name),
        subject: show::name(&device.name),
        what: Vec::new(),
        fields: Vec::new(),
        action: format!("/devices/{}/{verb}", device.id),
        button: button.to_owned(),
        is_danger: false,
        back: format!("/devices/{}", device.id),
    })
}

/// `GET /devices/{id}/drain`.
pub fn drain(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    if call.query.get("on").is_some_and(|on| on == "no") {
        let page = question(call, tenant, "undrain", "Let apps onto", "Take apps again")?;
        let what =
            vec!["It may be given apps again. Those that were moved away stay where they are.".to_owned()];
        return Ok(Reply::page(&Confirm { what, ..page }));
    }
    let page = question(call, tenant, "drain", "Empty", "Empty it")?;
    let what = [
        "Its apps move to other devices, one after the other, each with a planned move: nothing is lost, and each is away for some seconds.",
        "Apps that may not run elsewhere stay, and you are told which. It gets no new apps until you let it.",
    ];
    Ok(Reply::page(&Confirm { what: what.map(str::to_owned).to_vec(), ..page }))
}

/// Back to the device, with what was done.
fn to_device(call: &Call, done: &str) -> Result<Reply, Fail> {
    let id: DeviceId = call.param(0)?;
    Ok(Reply::to(format!("/devices/{id}?done={done}")))
}

/// `POST /devices/{id}/drain`.
pub fn drain_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    account::drain(&call.asking(&json!({"on": true})), tenant)?;
    to_device(call, "ordered")
}

/// `POST /devices/{id}/undrain`.
pub fn undrain_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    account::drain(&call.asking(&json!({"on": false})), tenant)?;
    to_device(call, "saved")
}

/// `GET /devices/{id}/revoke`.
pub fn revoke(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let device = devices::seen(tenant, call.param(0)?)?;
    if device.state == DeviceState::Revoked {
        let page = question(call, tenant, "revoke", "Are the stores closed to", "Save")?;
        let closed = Field::new("stores_closed", "No store takes its credentials any more", Kind::Flag)
            .hint("Tick this when you have changed them at the stores. Until then you are reminded.");
        return Ok(Reply::page(&Confirm { fields: vec![closed], ..page }));
    }
    let page = question(call, tenant, "revoke", "Revoke", "Revoke it")?;
    let mut what = vec![
        "The hive takes nothing from it any more. Its apps go on on other devices that may have them, from what is safe elsewhere: if it still works, empty it first, and nothing is lost.".to_owned(),
        "What lies on its disk stays readable for whoever has it and its key. Change the credentials of the stores, and run comb device revoke where the key ring is open: it renews the ring's key.".to_owned(),
    ];
    if !device.apps.is_empty() {
        let count = device.apps.len();
        what.insert(
            0,
            format!("{count} of your apps {} placed on it.", if count == 1 { "is" } else { "are" }),
        );
    }
    Ok(Reply::page(&Confirm { what, is_danger: true, ..page }))
}

/// `POST /devices/{id}/revoke`.
pub fn revoke_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    account::revoke(&call.asking(&json!({"stores_closed": call.visit.form.flag("stores_closed")})), tenant)?;
    to_device(call, "saved")
}

/// `GET /devices/{id}/update`.
pub fn update(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let number = call.number("release")?.ok_or_else(Fail::not_found)?;
    let page = question(call, tenant, "update", "Update", "Update it")?;
    let what = vec![format!(
        "It takes release {number}, which is signed by the owner, and goes back by itself if it is not well. Apps run on meanwhile."
    )];
    let action = format!("{}?release={number}", page.action);
    Ok(Reply::page(&Confirm { what, action, ..page }))
}

/// `POST /devices/{id}/update`.
pub fn update_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let release = call.number("release")?.ok_or_else(Fail::not_found)?;
    account::update_device(&call.asking(&json!({"release": release})), tenant)?;
    to_device(call, "ordered")
}
