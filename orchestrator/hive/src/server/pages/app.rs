//! One app: how it is, what is chosen for it, what happened, and the orders that need no question.

use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::app::{App as Shown, Wanted};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::report::{ContainerState, Health as Told, StoreState, VolumeReport, VolumeState};
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{self, ActionRow, AppStore, Choice, Container, Data, Kept, Trouble};
use orchestrator_console::show::{self, Field, Graph, Health, Html, Kind, Line, Unit, quoted};
use serde_json::json;

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::devices;
use super::super::fail::Fail;
use super::super::figures::{self, Span};
use super::super::notify::BEHIND_MS;
use super::super::rows;
use super::super::stores;
use super::super::tenant::Tenant;
use super::app_view::{self, View};
use super::escaped;
use super::home::app_safe;

/// How many events stand on the first page, and on a page of the history.
const LATELY: usize = 6;
const HISTORY: usize = 50;

/// What a silent device told last is no state of now: it is said, and no circle vouches for it.
fn as_told(health: Health, is_silent: bool) -> Health {
    if is_silent { Health::Unknown } else { health }
}

fn container(app: &Shown, name: &str, is_silent: bool) -> Container {
    let package = app.services.iter().find(|one| one.name == name);
    let report = app.report.as_ref().map(|aged| &aged.report);
    let said = report.and_then(|report| report.services.iter().find(|one| one.name.as_str() == name));
    let (health, words) = match said {
        None => (Health::Off, "not started".to_owned()),
        Some(said) => match (said.state, said.health) {
            (ContainerState::Running, Told::Unhealthy) => (Health::Bad, "runs, not well".to_owned()),
            (ContainerState::Running, Told::Starting) => (Health::Busy, "starting".to_owned()),
            (ContainerState::Running, _) => (Health::Well, "runs".to_owned()),
            (ContainerState::Created, _) => (Health::Busy, "made".to_owned()),
            (ContainerState::Paused, _) => (Health::Warn, "paused".to_owned()),
            (ContainerState::Restarting, _) => (Health::Warn, "starting again".to_owned()),
            (ContainerState::Exited, _) if said.exit == Some(0) => (Health::Off, "ended".to_owned()),
            (ContainerState::Exited, _) => {
                (Health::Bad, said.exit.map_or("ended".to_owned(), |exit| format!("ended with {exit}")))
            }
            (ContainerState::Dead, _) => (Health::Bad, "dead".to_owned()),
        },
    };
    let runs = said.filter(|said| said.state == ContainerState::Running && !is_silent);
    Container {
        name: show::name(name),
        image: package.map_or_else(Html::default, |one| show::name(&one.image)),
        health: as_told(health, is_silent),
        words,
        restarts: said.map_or(0, |said| said.restarts.0),
        cpu: runs.map_or("–".to_owned(), |said| format!("{} %", said.cpu_percent.0)),
        memory: runs.map_or("–".to_owned(), |said| show::bytes(said.memory_bytes.0)),
    }
}

/// The containers of an app: those of its package, and those that its device told beside.
fn containers(app: &Shown, is_silent: bool) -> Vec<Container> {
    if app.wanted == Wanted::Stopped && app.report.as_ref().is_none_or(|aged| aged.report.services.is_empty())
    {
        return Vec::new();
    }
    app.services.iter().map(|one| container(app, &one.name, is_silent)).collect()
}

/// How safe a volume is. Ages are counted from the report, so its own age is added.
fn data(view: &View, volume: &VolumeReport, report_age_ms: u64) -> Data {
    let is_late = volume.backlog_age_ms.is_some_and(|age| age.0 > BEHIND_MS);
    let (health, safe) = match (volume.state, volume.replicated_age_ms) {
        (VolumeState::Damaged, _) => (Health::Bad, Html::text("it cannot be read")),
        (VolumeState::Fenced, _) => (Health::Warn, Html::text("another device writes it")),
        (_, None) => (Health::Warn, Html::text("not safe elsewhere yet")),
        (_, Some(age)) => {
            // Where nothing waits, all of it is safe up to the report.
            let age = if volume.backlog_bytes.0 == 0 { 0 } else { age.0 };
            let health = if is_late { Health::Bad } else { Health::Well };
            (
                health,
                Html::pair("safe as of ", show::as_of(age.saturating_add(report_age_ms), view.frame.now)),
            )
        }
    };
    let behind = volume.stores_behind.0;
    Data {
        name: view.volume_name(&volume.volume),
        health: as_told(health, view.is_silent()),
        safe,
        backlog: (volume.backlog_bytes.0 > 0).then(|| show::bytes(volume.backlog_bytes.0)),
        behind: (behind > 0)
            .then(|| format!("{behind} cop{} late", if behind == 1 { "y is" } else { "ies are" })),
        size: show::bytes(volume.bytes.0),
        files: volume.files.0,
    }
}

/// The stores of the account.
pub fn all_stores(call: &Call, tenant: &mut Tenant<'_>) -> Result<Vec<Store>, Fail> {
    let page: Page<Store> = stores::list(call, tenant)?.thing()?;
    Ok(page.items)
}

fn store_rows(call: &Call, tenant: &mut Tenant<'_>, view: &View) -> Result<Vec<AppStore>, Fail> {
    let answers = match view.app.device {
        Some(device) => tenant.heard(device)?.map(|heard| heard.report.stores.clone()),
        None => None,
    };
    let known = all_stores(call, tenant)?;
    let mut all = Vec::new();
    for (at, id) in view.app.stores.iter().enumerate() {
        let url = known.iter().find(|one| one.id == *id).map(|one| one.url.clone());
        let (health, words) =
            match answers.iter().flat_map(|all| all.iter()).find(|one| one.store == *id).map(|one| one.state)
            {
                Some(StoreState::Ok) => (Health::Well, "answers"),
                Some(StoreState::Unreachable) => (Health::Bad, "does not answer"),
                Some(StoreState::Denied) => (Health::Bad, "refuses the credentials"),
                Some(StoreState::Other) => (Health::Warn, "answers with errors"),
                None => (Health::Unknown, "nothing told yet"),
            };
        all.push(AppStore {
            url: url.map_or_else(|| Html::text("a store that is gone"), |url| show::name(&url)),
            role: if at == 0 { "says who writes" } else { "keeps a copy" },
            health: as_told(health, view.is_silent()),
            words: words.to_owned(),
        });
    }
    Ok(all)
}

fn kept(view: &View) -> Vec<Kept> {
    let row = |one: &orchestrator_api::wire::app::KeptBranch| {
        let (branch, device) = (&one.branch, view.find(one.device));
        let volume = view.app.volumes.iter().find(|it| it.volume == Some(branch.volume));
        let digits: String = view.app.id.to_string().chars().take(8).collect();
        let local =
            volume.map_or_else(|| format!("app-{digits}-…"), |it| format!("app-{digits}-{}", it.name));
        let from = format!("{}:{}:{}", one.device, branch.volume, branch.name.as_str());
        let is_there =
            device.is_some_and(|device| matches!(device.state, DeviceState::Online | DeviceState::Draining));
        Kept {
            device: app_view::device_name(&view.devices, Some(one.device)),
            volume: view.volume_name(&branch.volume),
            name: show::name(branch.name.as_str()),
            bytes: show::bytes(branch.bytes.0),
            span: show::span(branch.span_ms.0),
            fork: (view.head.can && is_there)
                .then(|| format!("{}/fork?branch={}", view.head.path, escaped(&from))),
            command: format!("comb ls {}", quoted(format!("{local}/{}", branch.name.as_str()))),
        }
    };
    view.app.branches.iter().map(row).collect()
}

/// What the app took of its device, over a length of time; nothing before there is something to draw.
fn graphs(tenant: &mut Tenant<'_>, view: &View, span: Span) -> Result<Vec<Html>, Fail> {
    let lines = figures::lines::<{ figures::APP }>(tenant, Uuid(view.app.id.0), span)?;
    if lines.iter().all(|line| line.iter().all(Option::is_none)) {
        return Ok(Vec::new());
    }
    let (from, to) = span.axis();
    let [cpu, memory] = lines;
    let graph = |id: &'static str, title: &str, unit: Unit, label: &str, points: Vec<Option<f64>>| Graph {
        id,
        title: title.to_owned(),
        unit,
        from,
        to,
        top: None,
        lines: vec![Line { label: label.to_owned(), points }],
    };
    Ok(vec![
        graph("cpu", "Processor", Unit::Percent, "of one processor", cpu).html(),
        graph("memory", "Memory", Unit::Bytes, "all its containers", memory).html(),
    ])
}

/// `GET /apps/{id}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let (app, now) = (&view.app, view.frame.now);
    let running = app_view::running(tenant, &view)?;
    let mut troubles = Vec::new();
    if rows::life(tenant)?.recovering {
        troubles.push(app_view::trouble("hive_recovering", None));
    }
    if let Some(problem) = &app.problem {
        troubles.push(app_view::trouble(&problem.code, problem.problem.as_ref()));
    }
    let device = view.device();
    if let Some(device) = device.filter(|_| view.is_silent()) {
        let (words, what) = match device.state {
            DeviceState::Revoked => (
                format!("{} was revoked, and the hive takes nothing from it any more", device.name),
                "What stands here is what it told last. If the app does not go on elsewhere by itself, Move… takes it over there.",
            ),
            _ => (
                format!("{} does not report: it may be off, or cut off", device.name),
                "What stands here is what it told last. If it does not come back, Move… takes the app over elsewhere.",
            ),
        };
        troubles.push(Trouble { words, at: None, what: Some(what.to_owned()) });
    }
    let report = app.report.as_ref();
    let mut facts = vec![("Version", Html::text(if app.version.is_empty() { "–" } else { &app.version }))];
    facts.push((
        "If its device dies",
        Html::text(match app.policy {
            orchestrator_api::placement::Policy::Manual => "you decide",
            orchestrator_api::placement::Policy::Auto => "it moves by itself",
        }),
    ));
    let data_rows = report
        .map(|aged| aged.report.volumes.iter().map(|one| data(&view, one, aged.age_ms.0)).collect())
        .unwrap_or_default();
    let action = |one: &orchestrator_api::wire::app::Action| ActionRow {
        path: format!("{}/actions/{}", view.head.path, escaped(&one.name)),
        name: show::name(&show::words(&one.name)),
        service: show::name(&one.service),
    };
    let (happened, _) = app_view::happened(tenant, &view, None, LATELY)?;
    let stores = store_rows(call, tenant, &view)?;
    let span = Span::of(call.query.get("span"));
    let graphs = graphs(tenant, &view, span)?;
    let page = pages::App {
        troubles,
        running,
        device: device.map(|device| (show::name(&device.name), format!("/devices/{}", device.id))),
        as_of: device.filter(|_| view.is_silent()).and_then(|device| app_view::heard(device, now)),
        safe: app_safe(app, now),
        is_wanted: app.wanted == Wanted::Running,
        no_data: match app.wanted {
            _ if app.volumes.is_empty() => "It keeps none.",
            Wanted::Stopped => "It comes with its next start.",
            Wanted::Running => "Its device has told nothing of it yet.",
        },
        facts,
        containers: containers(app, view.is_silent()),
        data: data_rows,
        stores,
        graphs,
        spans: span.links(&format!("{}?span=", view.head.path), "#graphs"),
        actions: app.actions.iter().map(action).collect(),
        kept: kept(&view),
        happened,
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `GET /apps/{id}/history`.
pub fn history(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "history")?;
    let (happened, next) = app_view::happened(tenant, &view, call.number("before")?, HISTORY)?;
    let more = next.map(|next| format!("{}/history?before={next}", view.head.path));
    Ok(Reply::page(&pages::AppHistory { frame: view.frame, head: view.head, happened, more }))
}

/// What a device is, for somebody who chooses one: `16 GiB free, x86_64`.
pub fn device_words(device: &Device) -> String {
    let mut words = match device.state {
        DeviceState::Online => "online".to_owned(),
        DeviceState::Silent => "silent".to_owned(),
        DeviceState::Draining => "being emptied".to_owned(),
        DeviceState::Revoked => "revoked".to_owned(),
    };
    if let Some(load) = &device.load {
        words.push_str(&format!(", {} of memory free", show::bytes(load.memory_free_bytes.0)));
    }
    words.push_str(&format!(", {} app{}", device.apps.len(), if device.apps.len() == 1 { "" } else { "s" }));
    words.push_str(&format!(", {}", devices::arch_text(device.arch)));
    words
}

/// `GET /apps/{id}/settings`.
pub fn settings(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "settings")?;
    let (app, form) = (&view.app, &call.visit.form);
    let tried = call.visit.problem.is_some();
    let policy = match form.text("policy") {
        "auto" => orchestrator_api::placement::Policy::Auto,
        "manual" => orchestrator_api::placement::Policy::Manual,
        _ => app.policy,
    };
    let package = apps::package(tenant, app.id, app.revision.0)?;
    let mut standby = Vec::new();
    for device in
        view.devices.iter().filter(|one| Some(one.id) != app.device && one.state != DeviceState::Revoked)
    {
        let target = apps::Target { device: device.id, package: &package, stores: &app.stores, bytes: None };
        let was = app.standby.contains(&device.id);
        let why = match apps::check_target(tenant, &target) {
            Ok(()) => None,
            Err(Fail::Api(error)) => Some(show::capital(&error.message)),
            Err(other) => return Err(other),
        };
        let id = device.id.to_string();
        standby.push(Choice {
            is_chosen: if tried { form.all("standby").any(|one| one == id) } else { was },
            is_possible: why.is_none() || was,
            value: id,
            label: show::name(&device.name),
            words: Html::text(&why.unwrap_or_else(|| device_words(device))),
        });
    }
    let every = Field::new("seal_every_s", "Seconds between two copies", Kind::Number)
        .hint("5 to 300. What is younger is lost when a device dies. Fewer seconds are more traffic. It holds from the next start on.")
        .value(form.maybe("seal_every_s").map_or_else(|| app.seal_every_s.0.to_string(), str::to_owned))
        .error(view.frame.error("seal_every_s"));
    let list = |items: Vec<Html>| if items.is_empty() { vec![Html::text("none")] } else { items };
    let names = |all: &[String]| list(all.iter().map(|one| show::name(one)).collect());
    let may_run = match &package.devices {
        orchestrator_api::package::Devices::All => vec![Html::text("all your devices")],
        orchestrator_api::package::Devices::Delegated => {
            vec![Html::text("devices that take apps from this console")]
        }
        orchestrator_api::package::Devices::These(these) => {
            these.iter().map(|id| app_view::device_name(&view.devices, Some(DeviceId(id.0)))).collect()
        }
    };
    let fixed = vec![
        ("Version", vec![show::name(if app.version.is_empty() { "–" } else { &app.version })]),
        ("Name in the net", vec![app.domain.as_deref().map_or_else(|| Html::text("none"), show::name)]),
        ("May run on", may_run),
        ("Permissions", names(&app.permissions)),
        (
            "Images",
            list(
                app.services
                    .iter()
                    .map(|one| Html::pair(Html::pair(show::name(&one.name), ": "), show::name(&one.image)))
                    .collect(),
            ),
        ),
        ("Volumes", list(app.volumes.iter().map(|one| show::name(&one.name)).collect())),
    ];
    let page = pages::AppSettings {
        protections: app_view::protections(policy, app.seal_every_s.0),
        standby,
        every,
        seconds: app.seal_every_s.0,
        fixed,
        revisions: revisions(tenant, app)?,
        revision: app.revision.0,
        command: format!("comb app update {} DIR", quoted(&app.name)),
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// Packages of an app that are newer than what it runs.
fn revisions(tenant: &mut Tenant<'_>, app: &Shown) -> Result<Vec<(u64, Html)>, Fail> {
    let sql = "SELECT revision FROM package WHERE account = $1 AND app = $2 AND revision > $3 ORDER BY revision DESC LIMIT 5";
    let rows = tenant.query(sql, &[app.id.0.into(), app.revision.0.into()])?;
    let mut all = Vec::new();
    for row in rows {
        let number = row.count(0)?;
        let package = apps::package(tenant, app.id, number)?;
        let version = if package.version.is_empty() { Html::default() } else { show::name(&package.version) };
        all.push((number, version));
    }
    Ok(all)
}

/// The page of what was ordered.
pub fn onward(call: &Call, reply: &Reply) -> Result<Reply, Fail> {
    let (app, operation) =
        (call.param(0)?, reply.order.ok_or_else(|| Fail::start("an order has an operation"))?);
    Ok(Reply::to(app_view::working(app, operation)))
}

/// `POST /apps/{id}/settings`: only what differs is asked for.
pub fn change(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let app = apps::seen(tenant, call.param(0)?)?;
    let form = &call.visit.form;
    let mut wish = serde_json::Map::new();
    let policy = form.text("policy");
    if !policy.is_empty() && policy != rows::policy_text(app.policy) {
        wish.insert("policy".to_owned(), policy.into());
    }
    let mut standby: Vec<String> = form.all("standby").map(str::to_owned).collect();
    let mut was: Vec<String> = app.standby.iter().map(ToString::to_string).collect();
    standby.sort();
    was.sort();
    if standby != was {
        wish.insert("standby".to_owned(), json!(standby));
    }
    if let Some(text) = form.maybe("seal_every_s") {
        let seconds: u64 = text
            .parse()
            .ok()
            .filter(|seconds| (5..=300).contains(seconds))
            .ok_or_else(|| Fail::field("seal_every_s", "A whole number from 5 to 300"))?;
        if seconds != app.seal_every_s.0 {
            wish.insert("seal_every_s".to_owned(), seconds.into());
        }
    }
    let settings = format!("{}/settings?done=saved", app_view::path(app.id));
    if wish.is_empty() {
        return Ok(Reply::to(settings));
    }
    let changes_policy = wish.contains_key("policy");
    let reply = apps::change(&call.asking(&wish.into()), tenant)?;
    // A new policy is an order to its device, which takes its time.
    if changes_policy { onward(call, &reply) } else { Ok(Reply::to(settings)) }
}

/// `POST /apps/{id}/start`.
pub fn start(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let reply = apps::start(&call.asking(&json!({})), tenant)?;
    onward(call, &reply)
}

/// `POST /apps/{id}/stop`.
pub fn stop(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let reply = apps::stop(&call.asking(&json!({})), tenant)?;
    onward(call, &reply)
}

/// `POST /apps/{id}/restart`.
pub fn restart(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let reply = apps::restart(&call.asking(&json!({})), tenant)?;
    onward(call, &reply)
}

/// `POST /apps/{id}/snapshot`.
pub fn snapshot(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let reply = apps::snapshot(&call.asking(&json!({})), tenant)?;
    onward(call, &reply)
}

/// `POST /apps/{id}/update`.
pub fn update(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let revision: Option<u64> = call.visit.form.text("revision").parse().ok();
    let revision = revision.ok_or_else(|| Fail::field("revision", "choose a revision"))?;
    let reply = apps::update(&call.asking(&json!({"revision": revision})), tenant)?;
    onward(call, &reply)
}

/// `GET /apps/{id}/remove`: asks.
pub fn remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let choices = vec![
        show::Choice::new("", "Choose…"),
        show::Choice::new("keep", "Keep it: devices keep the app's volumes"),
        show::Choice::new("delete", "Delete it, once all of it is in its stores"),
        show::Choice::new("discard", "Delete it, and lose what is in no store"),
    ];
    let field = Field::new("data", "Its data on the devices", Kind::Choices(choices))
        .value(call.visit.form.text("data"))
        .error(view.frame.error("data"));
    let page = pages::Confirm {
        title: format!("Remove {}?", view.app.name),
        subject: view.head.name,
        what: vec![
            "It is stopped, and the hive forgets it, with its settings and its history.".to_owned(),
            "If you delete its data, its volumes go from all devices, and cannot be opened there any more.".to_owned(),
            "While a device has something that is in no store, nothing is deleted there: the app is stopped, and what it has is told. Only if you choose to lose that, it goes, too.".to_owned(),
            "In each case, what is in its stores stays there, encrypted, and your key ring keeps its keys: until you delete the objects yourself, it can be brought back.".to_owned(),
        ],
        fields: vec![field],
        action: format!("{}/remove", view.head.path),
        button: "Remove it".to_owned(),
        is_danger: true,
        back: view.head.path,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `POST /apps/{id}/remove`.
pub fn remove_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (keep_data, discard) = match call.visit.form.text("data") {
        "keep" => (true, false),
        "delete" => (false, false),
        "discard" => (false, true),
        _ => return Err(Fail::field("data", "Say what becomes of its data")),
    };
    let query = [("keep_data", keep_data), ("discard", discard)];
    let reply = apps::remove(&call.listing(query.map(|(name, is)| (name, Some(is.to_string())))), tenant)?;
    onward(call, &reply)
}
