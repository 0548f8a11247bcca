//! Moving an app: as planned, and by force.

use orchestrator_api::error::Code;
use orchestrator_api::ids::DeviceId;
use orchestrator_api::package::Authorization;
use orchestrator_api::placement::Policy;
use orchestrator_api::wire::device::DeviceState;
use orchestrator_api::wire::report::Phase;
use orchestrator_console::pages::{self, Choice, Step};
use orchestrator_console::show::{self, Field, Html, Kind};
use serde_json::json;

use super::super::apps;
use super::super::call::{Call, Reply};
use super::super::devices;
use super::super::drain;
use super::super::fail::Fail;
use super::super::tenant::Tenant;
use super::app::{device_words, onward};
use super::app_view::{self, View};
use super::working::step_words;

/// The other devices, each with why it can or cannot take the app; the app's own among them if it may begin there anew.
fn targets(
    call: &Call,
    tenant: &mut Tenant<'_>,
    view: &View,
    bytes: Option<u64>,
    with_own: bool,
) -> Result<Vec<Choice>, Fail> {
    let app = &view.app;
    let package: Authorization = apps::package(tenant, app.id, app.revision.0)?;
    let asked = call.visit.form.text("to");
    let may = |id| with_own || Some(id) != app.device;
    let mut all = Vec::new();
    for device in view.devices.iter().filter(|one| may(one.id) && one.state != DeviceState::Revoked) {
        let target = apps::Target { device: device.id, package: &package, stores: &app.stores, bytes };
        let why = match apps::check_target(tenant, &target) {
            Ok(()) => None,
            Err(Fail::Api(error)) => Some(show::capital(&error.message)),
            Err(other) => return Err(other),
        };
        let mut words = device_words(device);
        if app.standby.contains(&device.id) {
            words.push_str("; stands by, so most of the data is there already");
        }
        all.push(Choice {
            value: device.id.to_string(),
            label: show::name(&device.name),
            is_chosen: false,
            is_possible: why.is_none(),
            words: Html::text(&why.unwrap_or(words)),
        });
    }
    // The one that was asked for, else the one that stands by, else the first that can.
    let stands_by = |choice: &Choice| app.standby.iter().any(|id| id.to_string() == choice.value);
    let chosen = all
        .iter()
        .position(|one| one.is_possible && one.value == asked)
        .or_else(|| all.iter().position(|one| one.is_possible && stands_by(one)))
        .or_else(|| all.iter().position(|one| one.is_possible));
    if let Some(one) = chosen.and_then(|at| all.get_mut(at)) {
        one.is_chosen = true;
    }
    Ok(all)
}

/// Whether the app's device reported lately, so that it can hand over.
fn is_online(tenant: &mut Tenant<'_>, device: Option<DeviceId>) -> Result<bool, Fail> {
    let Some(device) = device else { return Ok(false) };
    match devices::online(tenant, device) {
        Ok(_) => Ok(true),
        Err(Fail::Api(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// `GET /apps/{id}/move`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let bytes = apps::bytes(&view.app);
    let targets = targets(call, tenant, &view, bytes, false)?;
    let mut refusal = None;
    let runs = view.app.report.as_ref().is_some_and(|aged| aged.report.phase == Phase::Running);
    if view.app.device.is_some() && !is_online(tenant, view.app.device)? {
        let mut trouble = app_view::trouble("device_silent", None);
        trouble.what = Some("It cannot hand over what it has. Wait for it, or move the app without that device, and lose what was not replicated.".to_owned());
        refusal = Some(trouble);
    } else if !runs {
        let mut trouble = app_view::trouble(drain::STOPPED, None);
        trouble.what = Some("Start it first; it can be moved once it runs.".to_owned());
        refusal = Some(trouble);
    }
    let running = app_view::running(tenant, &view)?;
    if running.is_some() {
        refusal = Some(app_view::trouble("operation_running", None));
    }
    let steps = ["check", "prepare", "hand_over", "start"];
    let step = |step: &&str| {
        let (words, more) = step_words("move", step, "the new device");
        Step { words, more, state: "next" }
    };
    let page = pages::AppMove {
        from: view.device().map(|device| show::name(&device.name)),
        is_possible: refusal.is_none() && targets.iter().any(|one| one.is_possible),
        targets,
        refusal,
        running,
        steps: steps.iter().map(step).collect(),
        size: bytes.map(show::bytes),
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

fn to(call: &Call) -> Result<DeviceId, Fail> {
    call.visit.form.text("to").parse().map_err(|_| Fail::field("to", "Choose a device"))
}

/// `POST /apps/{id}/move`.
pub fn go(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let reply = apps::relocate(&call.asking(&json!({"to": to(call)?})), tenant)?;
    onward(call, &reply)
}

/// What may be lost, in words.
fn stake(view: &View) -> Vec<Html> {
    let is_leased = view.app.policy == Policy::Auto;
    let Some(stake) = view.app.at_stake else {
        return vec![Html::text("Nobody knows what was not replicated: its device never told.")];
    };
    let mut lines = Vec::new();
    lines.push(match stake.seconds {
        Some(seconds) => {
            let then = show::as_of(seconds.0.saturating_mul(1000), view.frame.now);
            Html::pair(
                Html::pair("All up to ", then),
                " is safe in the store. What was written since may be lost.",
            )
        }
        None => Html::text("Some of its volumes were never safe in the store: they may be lost whole."),
    });
    lines.push(match stake.bytes.0 {
        0 => Html::text("When its device was last heard of, nothing was waiting to be replicated."),
        bytes => Html::text(&format!(
            "When its device was last heard of, {} waited to be replicated.",
            show::bytes(bytes)
        )),
    });
    if !is_leased {
        lines.push(Html::text(
            "If the device still runs somewhere, cut off, it may go on writing: nobody can say for how long.",
        ));
    }
    lines
}

/// `GET /apps/{id}/force`.
pub fn force(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let view = View::of(call, tenant, "")?;
    let code = view.app.problem.as_ref().map(|problem| problem.code.as_str());
    let is_unexpected = code == Some("head_unexpected");
    let targets = targets(call, tenant, &view, None, is_unexpected)?;
    let name = Field::new("name", &format!("Type “{}” to confirm", view.app.name), Kind::Text)
        .length(63)
        .error(view.frame.error("name"));
    let page = pages::AppForce {
        from: view.device().map(|device| show::name(&device.name)),
        heard: view.device().and_then(|device| app_view::heard(device, view.frame.now)),
        is_online: is_online(tenant, view.app.device)?,
        stake: stake(&view),
        is_unexpected,
        is_possible: targets.iter().any(|one| one.is_possible),
        targets,
        even_if_online: call.visit.form.flag("even_if_online"),
        accept_seen: call.visit.form.flag("accept_seen"),
        name,
        head: view.head,
        frame: view.frame,
    };
    Ok(Reply::page(&page))
}

/// `POST /apps/{id}/force`: the app's name, typed, says that what is at stake may be lost.
pub fn force_do(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let app = apps::seen(tenant, call.param(0)?)?;
    let form = &call.visit.form;
    let to = to(call)?;
    if form.text("name").trim() != app.name {
        return Err(Fail::field("name", format!("This is not its name: type {}", app.name)));
    }
    let wish = json!({
        "to": to, "forced": true, "accept_loss": true, "even_if_online": form.flag("even_if_online"),
        "accept_seen": form.flag("accept_seen"),
    });
    let reply = apps::relocate(&call.asking(&wish), tenant).map_err(|fail| match fail {
        Fail::Api(error) if error.code == Code::DeviceOnline => Fail::Api(error).hint(
            "Move it as planned, or tick below that its device may go on writing what nobody will see.",
        ),
        other => other,
    })?;
    onward(call, &reply)
}
