//! What all pages of an app share: its head, its names, and what happened with it in words.

use orchestrator_api::error::Code;
use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::placement::Policy;
use orchestrator_api::text::Time;
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::operation::{Event, Operation};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::ProblemReport;
use orchestrator_console::layout::Frame;
use orchestrator_console::pages::{AppEvent, AppHead, AppRunning, Choice, Trouble};
use orchestrator_console::show::{self, Html, capital};

use super::super::apps;
use super::super::call::Call;
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::tenant::Tenant;
use super::home::{all_devices, app_health, is_web, progress};
use super::names::Who;
use super::{Here, event, frame};

/// An app, and what stands around it.
pub struct View {
    /// What all pages have.
    pub frame: Frame,
    /// What all of its pages have at their top.
    pub head: AppHead,
    /// The app.
    pub app: App,
    /// All devices of the account.
    pub devices: Vec<Device>,
}

impl View {
    /// The app of a path, for one of its pages.
    pub fn of(call: &Call, tenant: &mut Tenant<'_>, here: &'static str) -> Result<Self, Fail> {
        let app = apps::seen(tenant, call.param::<AppId>(0)?)?;
        let devices = all_devices(call, tenant)?;
        let device = app.device.and_then(|id| devices.iter().find(|device| device.id == id));
        let (health, words) = app_health(&app, device);
        let head = AppHead {
            title: app.name.clone(),
            name: show::name(&app.name),
            path: path(app.id),
            here,
            health,
            words,
            open: app.address.clone().filter(|address| is_web(address)),
            no_orders: device.and_then(no_orders),
            can: may(&call.caller, Role::Operator).is_ok(),
            is_owner: may(&call.caller, Role::Owner).is_ok(),
        };
        Ok(Self { frame: frame(call, Here::Home), head, app, devices })
    }

    /// The device that has it.
    pub fn device(&self) -> Option<&Device> {
        self.find(self.app.device?)
    }

    /// A device.
    pub fn find(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// Whether nothing is heard of its device now: it is silent, or was revoked.
    pub fn is_silent(&self) -> bool {
        self.device().is_some_and(|device| !is_heard(device))
    }

    /// What its volumes are called, by their public keys.
    pub fn volume_name(&self, volume: &orchestrator_api::text::Hex<32>) -> Html {
        let found = self.app.volumes.iter().find(|one| one.volume.as_ref() == Some(volume));
        found.map_or_else(|| Html::text("a volume"), |one| show::name(&one.name))
    }
}

/// The page of an app.
pub fn path(app: AppId) -> String {
    format!("/apps/{app}")
}

/// The page of something that is done with an app.
pub fn working(app: AppId, operation: OperationId) -> String {
    format!("/apps/{app}/operations/{operation}")
}

/// The page of an operation, with its steps and what came of it; an installation has one of its own.
pub fn followed(app: Option<AppId>, kind: &str, operation: OperationId) -> Option<String> {
    match (app, kind) {
        (_, "author") => Some(format!("/installs/{operation}")),
        (app, _) => Some(working(app?, operation)),
    }
}

/// The page of the operation that an event tells of, as long as the hive knows that.
pub fn told_by(tenant: &mut Tenant<'_>, event: &Event) -> Result<Option<String>, Fail> {
    let Some(operation) = event.operation else { return Ok(None) };
    let sql = "SELECT kind FROM operation WHERE account = $1 AND operation = $2";
    let Some(row) = tenant.one(sql, &[operation.0.into()])? else { return Ok(None) };
    Ok(followed(event.app, row.text(0)?, operation))
}

/// What a device is called.
pub fn device_name(devices: &[Device], id: Option<DeviceId>) -> Html {
    match id.and_then(|id| devices.iter().find(|device| device.id == id)) {
        Some(device) => show::name(&device.name),
        None => Html::text("a device that is gone"),
    }
}

/// What is wrong, in words.
pub fn trouble(code: &str, problem: Option<&ProblemReport>) -> Trouble {
    let (words, what) = show::problem(code);
    let mut at = None;
    let mut what = what.map(str::to_owned);
    if let Some(problem) = problem {
        at = match (&problem.service, &problem.file, problem.line) {
            (_, Some(file), Some(line)) => {
                Some(Html::pair(show::name(file.as_str()), format!(", line {}", line.0)))
            }
            (Some(service), ..) => Some(show::name(service.as_str())),
            _ => None,
        };
        if let Some(ms) = problem.again_in_ms {
            let again = format!("It is tried again in {}.", show::span(ms.0));
            what = Some(what.map_or_else(|| again.clone(), |what| format!("{what} {again}")));
        }
    }
    Trouble { words: capital(&words), at, what }
}

/// What is done by an operation, in words: `Moving to cellar`. `device` is what the operation's device is called.
pub fn doing(operation: &Operation, device: impl FnOnce() -> Html) -> Html {
    let plain = match operation.kind.as_str() {
        "move" => return Html::pair("Moving to ", device()),
        "move_forced" => return Html::pair("Moving by force to ", device()),
        "failover" => return Html::pair("Taking over on ", device()),
        "standby" => return Html::pair("Standing by: ", device()),
        "start" => "Starting",
        "stop" => "Stopping",
        "restart" => "Restarting",
        "snapshot" => "Taking a snapshot",
        "update" => "Updating",
        "rollback" => "Going back to a moment",
        "fork" => "Making a second app",
        "restore" => "Restoring as a second app",
        "settings" => "Changing settings",
        "remove" => "Removing",
        "author" => "Installing",
        "add" => "Adding",
        "action" => "Running an action",
        "drain" => "Being emptied",
        "undrain" => "Taking apps again",
        "moments" => "Asking for moments",
        "logs" => "Reading the log",
        other => return Html::text(&capital(&show::words(other))),
    };
    Html::text(plain)
}

/// What is being done with an app now.
pub fn running(tenant: &mut Tenant<'_>, view: &View) -> Result<Option<AppRunning>, Fail> {
    let Some(id) = view.app.operation else { return Ok(None) };
    let operation = operations::seen(tenant, id)?;
    Ok(Some(AppRunning {
        title: doing(&operation, || device_name(&view.devices, operation.device)),
        progress: progress(&operation),
        waits: waits(&operation, &view.devices).map(|(device, is_silent)| {
            if is_silent { silent(device) } else { format!("It waits for {}.", device.name) }
        }),
        path: working(view.app.id, id),
    }))
}

/// The device whose answer an operation waits for, and whether it is silent.
pub fn waits<'d>(operation: &Operation, devices: &'d [Device]) -> Option<(&'d Device, bool)> {
    let device = operation.waits_for.and_then(|id| devices.iter().find(|device| device.id == id))?;
    Some((device, operation.code.as_deref() == Some(Code::DeviceSilent.text())))
}

/// What it means for an operation that its device is silent.
pub fn silent(device: &Device) -> String {
    format!("{} does not report. It gets its order when it is back.", device.name)
}

/// What becomes of an app when its device dies, to choose from.
pub fn protections(chosen: Policy, seal_every_s: u64) -> Vec<Choice> {
    let choice = |policy: Policy, value: &str, label: &str, words: String| Choice {
        value: value.to_owned(),
        label: Html::text(label),
        words: Html::text(&words),
        is_chosen: policy == chosen,
        is_possible: true,
    };
    let loses =
        format!("It loses at most the last {seal_every_s} s, or what was still on its way to the store.");
    vec![
        choice(
            Policy::Manual,
            "manual",
            "You decide",
            format!(
                "Nothing moves by itself, and an outage at home stops nothing. When a device dies, you confirm that it starts elsewhere. {loses}"
            ),
        ),
        choice(
            Policy::Auto,
            "auto",
            "It moves by itself after 45 s",
            format!(
                "When its device was not heard of for 45 s, a device that stands by takes over. It stops where its device cannot reach the hive. {loses}"
            ),
        ),
    ]
}

/// The last events of an app, newest first; those before `before`, if that is said.
pub fn happened(
    tenant: &mut Tenant<'_>,
    view: &View,
    before: Option<u64>,
    limit: usize,
) -> Result<(Vec<AppEvent>, Option<u64>), Fail> {
    let looked = operations::Looked { app: Some(view.app.id.0), before, ..Default::default() };
    let events = operations::newest(tenant, &looked, limit)?;
    let next = events.last().filter(|_| events.len() == limit).map(|last| last.number.0);
    let who = Who::of(tenant)?;
    let mut told = Vec::new();
    for event in &events {
        let (health, words) = event::words(event, &who);
        let when = show::ago(event.time, view.frame.now);
        told.push(AppEvent { when, words, by: who.by(&event.by), health, path: told_by(tenant, event)? });
    }
    Ok((told, next))
}

/// Whether what is known of a device is of now: it reports, and may.
pub fn is_heard(device: &Device) -> bool {
    !matches!(device.state, DeviceState::Silent | DeviceState::Revoked)
}

/// Why a device takes no orders now, in the sentence that stands beside what is disabled.
pub fn no_orders(device: &Device) -> Option<&'static str> {
    match device.state {
        DeviceState::Silent => Some("is silent, and takes no orders until it is heard again"),
        DeviceState::Revoked => Some("was revoked, and takes no orders"),
        DeviceState::Online | DeviceState::Draining => None,
    }
}

/// How old what a report said is.
pub fn heard(device: &Device, now: Time) -> Option<Html> {
    device.seen_age_ms.map(|age| show::as_of(age.0, now))
}
