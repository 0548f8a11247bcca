//! Something that is being done, or was: its steps, live, and what came of it, with its proof.

use orchestrator_api::ids::{AppId, OperationId};
use orchestrator_api::text::{Hex, Time};
use orchestrator_api::wire::command::Late;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::operation::{Event, Lost, Operation, State};
use orchestrator_api::wire::people::Role;
use orchestrator_console::layout::Frame;
use orchestrator_console::pages::{self, Step};
use orchestrator_console::show::{self, Health, Html, Progress};

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::database::Row;
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::rows::OperationData;
use super::super::tasks::Task;
use super::super::tenant::{Tenant, read};
use super::app_view::{self, device_name};
use super::home::{all_devices, progress};
use super::{Here, frame};

/// What a step is, and what that means.
pub fn step_words(kind: &str, step: &str, to: &str) -> (String, Option<String>) {
    let more = |text: &str| Some(text.to_owned());
    match (kind, step) {
        (_, "check") => ("Check".to_owned(), more("Nothing has changed yet.")),
        ("move", "prepare") => (
            format!("Prepare {to}"),
            more(
                "Images and data are fetched while the app goes on running where it is. This is what takes the time.",
            ),
        ),
        (_, "prepare") => (format!("Prepare {to}"), more("Package, images, and a look at the store.")),
        (_, "hand_over") => (
            "Stop it, and bring the last change to the store".to_owned(),
            more(
                "From here on the app is away, usually for seconds. The old device writes nothing after this.",
            ),
        ),
        (_, "wait") => (
            "Wait until the other device must have stopped".to_owned(),
            more("Only where it had a lease: at most 45 s."),
        ),
        ("move" | "move_forced" | "failover", "start") => (
            format!("Start on {to}"),
            more(
                "Its data must be exactly the last that the store has, and the app must say that it is well.",
            ),
        ),
        (_, "start") => ("Start it, and see that it is well".to_owned(), None),
        (_, "grant") => (format!("Give it to {to}"), None),
        (_, "take_back" | "return") => (
            "Go back to where it was".to_owned(),
            more("Something went wrong. It starts again on the device that had it."),
        ),
        (_, other) => (show::capital(&show::words(other)), None),
    }
}

fn steps(operation: &Operation, to: &str) -> Vec<Step> {
    if operation.steps.len() < 2 {
        return Vec::new();
    }
    let step = operation.step.as_deref().unwrap_or_default();
    let known = operation.steps.iter().position(|one| one == step);
    let at = match operation.state {
        State::Done => operation.steps.len(),
        _ => known.unwrap_or(operation.steps.len()),
    };
    let now = if operation.state == State::Running { "now" } else { "failed" };
    let mut all: Vec<Step> = operation
        .steps
        .iter()
        .enumerate()
        .map(|(index, one)| {
            let (words, more) = step_words(&operation.kind, one, to);
            let state = match index.cmp(&at) {
                std::cmp::Ordering::Less => "done",
                std::cmp::Ordering::Equal => now,
                std::cmp::Ordering::Greater => "next",
            };
            Step { words, more: more.filter(|_| state == now), state }
        })
        .collect();
    if known.is_none() && !step.is_empty() && operation.state != State::Done {
        let (words, more) = step_words(&operation.kind, step, to);
        all.push(Step { words, more, state: now });
    }
    all
}

/// What was handed over, and what was begun with: of each volume, the last of the one and what the other extends.
struct Proof {
    volume: String,
    seq: u64,
    handed: Hex<32>,
    parent: Option<Hex<32>>,
}

fn proofs(operation: &Operation, data: &OperationData) -> Vec<Proof> {
    let Some(result) = &operation.result else { return Vec::new() };
    let handed = data.heads.as_deref().unwrap_or_default();
    let of = |head: &orchestrator_api::wire::command::HeadAt| {
        let cut = result.data.cuts.iter().find(|cut| cut.volume == head.volume)?;
        Some(Proof {
            volume: cut.name.as_str().to_owned(),
            seq: head.seq.0,
            handed: head.manifest,
            parent: cut.parent,
        })
    };
    handed.iter().filter_map(of).collect()
}

fn short(hash: &Hex<32>) -> String {
    let text = hash.to_string();
    format!("{}…{}", &text[..8], &text[56..])
}

/// For how long the app was away: from the report that it stops, else from the answer before that was ordered.
fn away(
    tenant: &mut Tenant<'_>,
    operation: &Operation,
    data: &OperationData,
) -> Result<Option<(u64, bool)>, Fail> {
    let (Some(app), Some(ended), Some(from)) = (operation.app, operation.ended, data.from) else {
        return Ok(None);
    };
    let sql = "SELECT event FROM event WHERE account = $1 AND app = $2 ORDER BY number DESC LIMIT 60";
    let mut first: Option<Time> = None;
    for row in tenant.query(sql, &[app.0.into()])? {
        let event: Event = read(row.text(0)?)?;
        if event.time < operation.begun {
            break;
        }
        let phase = event.data.get("phase").and_then(|phase| phase.as_str()).unwrap_or_default();
        let stops = matches!(phase, "stopping" | "flushing" | "stopped");
        if event.time <= ended && event.kind == "phase" && event.device == Some(from) && stops {
            first = Some(event.time);
        }
    }
    let span = |then: Time| u64::try_from(ended.0 - then.0).unwrap_or(0);
    if let Some(then) = first {
        return Ok(Some((span(then), true)));
    }
    let sql = "SELECT max(at) FROM command WHERE account = $1 AND operation = $2 AND verb = 'prepare'";
    let row = tenant.one(sql, &[operation.id.0.into()])?;
    let at = row.map(|row| row.maybe(0, Row::int)).transpose()?.flatten();
    Ok(at.map(|at| (span(super::super::chance::time(at)), false)))
}

fn lost(lost: &Lost, devices: &[Device], data: &OperationData) -> Vec<(Health, Html)> {
    let mut lines = Vec::new();
    if let Some(exact) = &lost.exact {
        let words =
            format!("Lost to the app: {} s of changes, {}. ", exact.seconds.0, show::bytes(exact.bytes.0));
        lines.push((
            Health::Warn,
            Html::pair(
                Html::pair(words, device_name(devices, data.from)),
                " came back and kept them as a branch.",
            ),
        ));
        return lines;
    }
    lines.push(match lost.lost_seconds_max {
        Some(seconds) => (Health::Warn, Html::text(&format!("At most the last {} s of changes were lost.", seconds.0))),
        None => (Health::Warn, Html::text("Nobody knows yet for how long the lost device went on writing. It is said here when it comes back.")),
    });
    if lost.lost_bytes_known.0 > 0 {
        let words = format!(
            "{} waited to be replicated when it was last heard of. If the device returns, it keeps them as a branch.",
            show::bytes(lost.lost_bytes_known.0)
        );
        lines.push((Health::Warn, Html::text(&words)));
    }
    lines
}

fn results(
    tenant: &mut Tenant<'_>,
    operation: &Operation,
    data: &OperationData,
    devices: &[Device],
) -> Result<Vec<(Health, Html)>, Fail> {
    let mut lines = Vec::new();
    let Some(result) = &operation.result else { return Ok(lines) };
    if operation.state == State::Failed {
        lines.extend(result.data.late.iter().map(late));
    }
    if operation.state != State::Done {
        return Ok(lines);
    }
    let moves = matches!(operation.kind.as_str(), "move" | "move_forced" | "failover");
    if moves && let Some(lost_here) = &result.lost {
        lines.extend(lost(lost_here, devices, data));
    }
    if operation.kind == "move" && result.lost.is_none() {
        let proofs = proofs(operation, data);
        let equal = proofs.iter().all(|one| one.parent == Some(one.handed));
        if equal && !proofs.is_empty() {
            lines.push((
                Health::Well,
                Html::text("Nothing was lost. Each volume goes on from exactly where it was left:"),
            ));
        }
        for one in &proofs {
            let name = show::name(&one.volume);
            let (health, words) = match one.parent {
                Some(parent) if parent == one.handed => (
                    Health::Well,
                    format!(
                        ": left at seal {} with {}, begun from {}. They are equal.",
                        one.seq,
                        short(&one.handed),
                        short(&parent)
                    ),
                ),
                Some(parent) => (
                    Health::Bad,
                    format!(": left with {}, begun from {}", short(&one.handed), short(&parent)),
                ),
                None => (Health::Bad, ": nothing is known of what it was begun from".to_owned()),
            };
            lines.push((health, Html::pair(name, words)));
        }
    }
    if operation.kind == "move"
        && let Some((ms, is_seen)) = away(tenant, operation, data)?
    {
        let seconds = ms.div_ceil(1000);
        let words = match is_seen {
            true => format!(
                "The app was away for {seconds} s: from the report that it stops to the answer that it is well."
            ),
            false => format!("The app was away for less than {seconds} s."),
        };
        lines.push((Health::Well, Html::text(&words)));
    } else if moves && let Some(ended) = operation.ended {
        // Nobody knows when it went away: its device had been silent for a while.
        let seconds = u64::try_from(ended.0 - operation.begun.0).unwrap_or(0).div_ceil(1000);
        let whence = if operation.kind == "failover" { "the hive began this" } else { "this was ordered" };
        lines
            .push((Health::Well, Html::text(&format!("The app is well again, {seconds} s after {whence}."))));
    }
    let told = &result.data;
    if let Some(moment) = &told.moment {
        let tag = moment.tag.as_ref().map_or("without a name".to_owned(), |tag| tag.as_str().to_owned());
        lines.push((Health::Well, Html::pair(Html::pair("The moment is kept: ", show::name(&tag)), ".")));
    }
    if let Some(exit) = told.exit {
        let health = if exit == 0 { Health::Well } else { Health::Bad };
        let words = if exit == 0 {
            "The program ended well.".to_owned()
        } else {
            format!("The program ended with {exit}.")
        };
        lines.push((health, Html::text(&words)));
    }
    Ok(lines)
}

/// What a device has that is in no store.
fn late(one: &Late) -> (Health, Html) {
    let size = match one.bytes.0 {
        0 => String::new(),
        bytes => format!(", {}", show::bytes(bytes)),
    };
    let words = format!(" is not in the store that decides{size}");
    (Health::Bad, Html::pair(show::name(one.name.as_str()), words))
}

fn row_data(tenant: &mut Tenant<'_>, id: OperationId) -> Result<OperationData, Fail> {
    let sql = "SELECT data FROM operation WHERE account = $1 AND operation = $2";
    let row = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    Ok(read(row.text(0)?)?)
}

/// What stands differently on the page of an installation.
struct Install {
    app: Option<AppId>,
    name: Html,
}

fn page(
    call: &Call,
    tenant: &mut Tenant<'_>,
    frame: Frame,
    operation: &Operation,
    app: Option<(AppId, Html, bool)>,
    install: Option<Install>,
) -> Result<pages::Working, Fail> {
    let devices = all_devices(call, tenant)?;
    let data = row_data(tenant, operation.id)?;
    let device = operation.device.and_then(|id| devices.iter().find(|device| device.id == id));
    let to = device.map_or("the device", |device| device.name.as_str());
    let what = match &install {
        Some(install) => Html::pair("Installing ", install.name.clone()),
        None => app_view::doing(operation, || device_name(&devices, operation.device)),
    };
    let (health, words) = match operation.state {
        State::Running => (Health::Busy, "under way"),
        State::Done => (Health::Well, "done"),
        State::Failed => (Health::Bad, "it did not work"),
        State::Cancelled => (Health::Off, "cancelled"),
        State::Lost => {
            (Health::Unknown, "the hive was restored meanwhile, and does not know what came of it")
        }
    };
    let results = results(tenant, operation, &data, &devices)?;
    let other = || {
        // Who has it is not asked by who takes it away without that device.
        let from = data.from.filter(|_| !matches!(operation.kind.as_str(), "move_forced" | "failover"));
        let mut both = [from, data.to].into_iter().flatten();
        both.find_map(|id| devices.iter().find(|one| one.id == id && one.state == DeviceState::Silent))
    };
    let waited = app_view::waits(operation, &devices).filter(|(_, is_silent)| *is_silent);
    let waits = waited.map(|(device, _)| device).or_else(other);
    let waits = waits.filter(|_| operation.state == State::Running);
    let mut trouble = None;
    if operation.state == State::Failed {
        let code = operation.code.as_deref().unwrap_or("late");
        let mut told = app_view::trouble(code, operation.problem.as_ref());
        if matches!(operation.kind.as_str(), "move") {
            told.what = Some(told.what.map_or_else(
                || "It is where it was.".to_owned(),
                |what| format!("{what} It is where it was."),
            ));
        }
        trouble = Some(told);
    }
    let mut onward = Vec::new();
    let mut cancel = None;
    let path = match (&app, &install) {
        (Some((id, ..)), _) => Some(app_view::path(*id)),
        (None, Some(install)) => install.app.map(app_view::path),
        _ => None,
    };
    if let (State::Done, Some(Task::Fork { app: new, .. })) = (operation.state, &data.task)
        && let Some((id, name, _)) = there(tenant, *new)?
    {
        onward.push((app_view::path(id), Html::pair("To ", name)));
    }
    match (&app, operation.state) {
        (Some((id, ..)), _) => onward.push((app_view::path(*id), Html::text("To the app"))),
        (None, State::Running) => {}
        (None, _) => onward.push(("/".to_owned(), Html::text("Home"))),
    }
    if operation.state == State::Failed && install.is_some() {
        onward.push(("/catalog".to_owned(), Html::text("Back to the catalog")));
    }
    if operation.state == State::Failed
        && let Some(path) = &path
    {
        match operation.kind.as_str() {
            "move" => onward.push((format!("{path}/move"), Html::text("Try again"))),
            "remove" => {
                onward.push((format!("{path}/remove"), Html::text("Remove it all the same")));
            }
            _ => {}
        }
    }
    // Whoever waits for a lost device need not wait for ever.
    if let (Some(silent), Some((id, ..))) = (waits, &app)
        && may(&call.caller, Role::Operator).is_ok()
        && apps::seen(tenant, *id)?.device == Some(silent.id)
    {
        onward.push((format!("{}/force", app_view::path(*id)), Html::text("Move it without that device…")));
    }
    if operation.can_cancel && may(&call.caller, Role::Operator).is_ok() {
        let id = operation.id;
        cancel = match (&path, &install) {
            (_, Some(_)) => Some(format!("/installs/{id}/cancel")),
            (Some(path), _) => Some(format!("{path}/operations/{id}/cancel")),
            _ => None,
        };
    }
    let mut all = steps(operation, to);
    if install.is_some() {
        all = install_steps(operation, app.is_some(), to);
    }
    Ok(pages::Working {
        what,
        app: app.map(|(id, name, _)| (name, app_view::path(id))),
        health,
        words: words.to_owned(),
        progress: how_far(operation, &data, to, !all.is_empty()),
        steps: all,
        waits: waits.map(app_view::silent),
        begun: show::ago(operation.begun, frame.now),
        ended: operation.ended.map(|ended| show::ago(ended, frame.now)),
        results,
        trouble,
        cancel,
        onward,
        frame,
    })
}

/// How far it is, while it goes on. Where nothing is counted and there are no steps, a bar says that it goes on.
fn how_far(operation: &Operation, data: &OperationData, to: &str, has_steps: bool) -> Option<Progress> {
    if operation.state != State::Running || (operation.total.is_none() && has_steps) {
        return None;
    }
    let told = progress(operation);
    if operation.total.is_some() {
        return Some(told);
    }
    let words = match (&data.task, data.taken) {
        (None, _) => "under way".to_owned(),
        (Some(_), true) => format!("{to} is at work on it"),
        (Some(_), false) => format!("{to} has not taken it yet"),
    };
    Some(Progress { step: Some(words), ..told })
}

/// An installation is sealing, then a start of its own.
fn install_steps(operation: &Operation, is_there: bool, to: &str) -> Vec<Step> {
    let running = operation.state == State::Running;
    let step =
        |words: String, more: &str, state: &'static str| Step { words, more: Some(more.to_owned()), state };
    let first = match (operation.state, operation.kind.as_str()) {
        (State::Running, "author") => "now",
        (State::Failed | State::Cancelled | State::Lost, "author") => "failed",
        _ => "done",
    };
    let second = match (is_there, operation.kind.as_str(), running) {
        (true, "author", _) => "now",
        (true, _, true) => "now",
        (true, ..) => "done",
        _ => "next",
    };
    vec![
        step(
            format!("Read, check and seal it on {to}"),
            "It fetches the images to name them exactly, and signs the package with your key.",
            first,
        ),
        step(
            "Make its volumes, and start it".to_owned(),
            "The first start makes its keys, and ends when the app says that it is well.",
            second,
        ),
    ]
}

fn there(tenant: &mut Tenant<'_>, id: AppId) -> Result<Option<(AppId, Html, bool)>, Fail> {
    match apps::seen(tenant, id) {
        Ok(app) => Ok(Some((id, show::name(&app.name), app.operation.is_some()))),
        Err(Fail::Api(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// `GET /apps/{id}/operations/{id}`; of an app that is gone, too.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, operation) = (call.param::<AppId>(0)?, operations::seen(tenant, call.param(1)?)?);
    if operation.app != Some(id) {
        return Err(Fail::not_found());
    }
    let app = there(tenant, id)?;
    Ok(Reply::page(&page(call, tenant, frame(call, Here::Home), &operation, app, None)?))
}

/// `POST /apps/{id}/operations/{id}/cancel`.
pub fn cancel(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, operation) = (call.param::<AppId>(0)?, operations::seen(tenant, call.param(1)?)?);
    if operation.app != Some(id) {
        return Err(Fail::not_found());
    }
    let asked = Call { params: vec![operation.id.to_string()], ..call.clone() };
    operations::cancel(&asked, tenant)?;
    Ok(Reply::to(app_view::working(id, operation.id)))
}

/// An installation: its operation, the app that it makes, and what that is called.
fn installation(call: &Call, tenant: &mut Tenant<'_>) -> Result<(Operation, Install), Fail> {
    let operation = operations::seen(tenant, call.param(0)?)?;
    if operation.kind != "author" {
        return Err(Fail::not_found());
    }
    let data = row_data(tenant, operation.id)?;
    let (app, name) = match data.task {
        Some(Task::Author { app, name, .. }) => (Some(app), show::name(&name)),
        _ => (None, Html::text("an app")),
    };
    Ok((operation, Install { app, name }))
}

/// `GET /installs/{id}`: when it is there, the app itself is shown, starting.
pub fn install(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (operation, install) = installation(call, tenant)?;
    let app = match install.app {
        Some(app) => there(tenant, app)?,
        None => None,
    };
    if let Some((id, ..)) = &app
        && operation.state == State::Done
    {
        let row = apps::seen(tenant, *id)?;
        return Ok(Reply::to(match row.operation {
            Some(start) => app_view::working(*id, start),
            None => app_view::path(*id),
        }));
    }
    Ok(Reply::page(&page(call, tenant, frame(call, Here::Catalog), &operation, app, Some(install))?))
}

/// `POST /installs/{id}/cancel`.
pub fn install_cancel(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (operation, _) = installation(call, tenant)?;
    operations::cancel(call, tenant)?;
    Ok(Reply::to(format!("/installs/{}", operation.id)))
}
