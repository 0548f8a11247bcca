//! What is being done, and what happened.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::wire::operation::{By, Event, Operation, State};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{Activity, Happened, Running};
use orchestrator_console::show::{self, Choice, Field, Health, Html, Kind};

use super::super::call::{Call, Reply};
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::tenant::Tenant;
use super::devices::{app_names, device_names, people_names};
use super::home::progress;
use super::{Here, escaped, frame};

const ROWS: usize = 50;

/// What is looked for, and the kinds of events that it means.
const GROUPS: &[(&str, &str, &[&str])] = &[
    (
        "trouble",
        "Trouble",
        &[
            "failed",
            "failed_over",
            "silent",
            "back",
            "behind",
            "safe_again",
            "tail_kept",
            "loss_known",
            "health",
            "recovering",
        ],
    ),
    (
        "orders",
        "Orders",
        &[
            "ordered",
            "finished",
            "failed",
            "moved",
            "updated",
            "rolled_back",
            "drained",
            "renamed",
            "revoked",
            "joined",
        ],
    ),
    (
        "people",
        "People",
        &["login", "login_failed", "invited", "role", "token_made", "token_gone", "second_on", "second_off"],
    ),
    (
        "apps",
        "Apps",
        &["phase", "app_added", "app_removed", "moved", "failed_over", "updated", "rolled_back"],
    ),
];

type Names = BTreeMap<[u8; 16], String>;

struct Who {
    people: Names,
    devices: Names,
    apps: Names,
}

impl Who {
    fn by(&self, by: &By) -> Html {
        let person =
            by.person.map(|id| self.people.get(&id.0).map_or("somebody who is gone", String::as_str));
        let device =
            by.device.map(|id| self.devices.get(&id.0).map_or("a device that is gone", String::as_str));
        match person.or(device) {
            Some(name) => show::name(name),
            None if by.hive => Html::text("the hive"),
            None => Html::text("somebody"),
        }
    }
}

/// An event in words.
fn what(event: &Event) -> String {
    let text = |name: &str| event.data.get(name).and_then(|value| value.as_str()).map(show::words);
    let with =
        |words: &str, name: &str| text(name).map_or(words.to_owned(), |more| format!("{words}: {more}"));
    match event.kind.as_str() {
        "joined" => "joined".to_owned(),
        "revoked" => "revoked".to_owned(),
        "renamed" => "renamed".to_owned(),
        "drained" => "emptied".to_owned(),
        "silent" => "became silent".to_owned(),
        "back" => "is back".to_owned(),
        "app_added" => "added".to_owned(),
        "app_removed" => "removed".to_owned(),
        "ordered" => with("ordered", "do"),
        "finished" => with("finished", "do"),
        "failed" => with("failed", "do"),
        "moved" => "moved".to_owned(),
        "failed_over" => "another device went on".to_owned(),
        "tail_kept" => "kept what was not replicated as a branch".to_owned(),
        "loss_known" => "it is known what was lost".to_owned(),
        "phase" => text("phase").map_or_else(|| "changed".to_owned(), |phase| format!("is {phase}")),
        "behind" => "data is late".to_owned(),
        "safe_again" => "data is safe again".to_owned(),
        "login" => "logged in".to_owned(),
        "login_failed" => "tried to log in".to_owned(),
        "token_made" => "made a token".to_owned(),
        "token_gone" => "ended a token".to_owned(),
        "invited" => with("invited somebody", "role"),
        "role" => with("changed a role", "role"),
        "second_on" => "took up a second factor".to_owned(),
        "second_off" => "turned off a second factor".to_owned(),
        "ring" => "stored the key ring, sealed".to_owned(),
        "store" => "added a store".to_owned(),
        other => show::words(other),
    }
}

fn result(event: &Event) -> (Health, String) {
    let text = |name: &str| event.data.get(name).and_then(|value| value.as_str()).map(show::words);
    match event.kind.as_str() {
        "failed" => (Health::Bad, text("code").unwrap_or_else(|| "failed".to_owned())),
        "login_failed" => (Health::Warn, "refused".to_owned()),
        "silent" | "behind" | "failed_over" => (Health::Warn, "look".to_owned()),
        "phase" => match (text("problem"), text("health").as_deref()) {
            (Some(problem), _) => (Health::Bad, problem),
            (None, Some("unhealthy")) => (Health::Bad, "not well".to_owned()),
            (None, Some("starting")) => (Health::Busy, "starting".to_owned()),
            (None, Some("healthy")) => (Health::Well, "well".to_owned()),
            _ => (Health::Off, "told".to_owned()),
        },
        "ordered" => (Health::Busy, "begun".to_owned()),
        _ => (Health::Well, "done".to_owned()),
    }
}

fn happened(who: &Who, event: &Event, now: orchestrator_api::text::Time) -> Happened {
    let mut about = Vec::new();
    if let Some(app) = event.app {
        let name = who.apps.get(&app.0).map_or("an app that is gone", String::as_str);
        about.push((format!("/apps/{app}"), show::name(name)));
    }
    if let Some(device) = event.device.filter(|_| event.app.is_none()) {
        let name = who.devices.get(&device.0).map_or("a device that is gone", String::as_str);
        about.push((format!("/devices/{device}"), show::name(name)));
    }
    Happened {
        number: event.number.0,
        when: show::ago(event.time, now),
        what: Html::text(&what(event)),
        about,
        by: who.by(&event.by),
        from: event.from.as_ref().map(ToString::to_string),
        result: result(event),
    }
}

fn running(who: &Who, operation: &Operation, may_cancel: bool, now: orchestrator_api::text::Time) -> Running {
    let name = match (operation.app, operation.device) {
        (Some(AppId(id)), _) => who.apps.get(&id),
        (None, Some(DeviceId(id))) => who.devices.get(&id),
        _ => None,
    };
    let kind = format!("{} ", show::words(&operation.kind));
    Running {
        what: Html::pair(kind, name.map_or_else(|| Html::text(""), |name| show::name(name))),
        progress: progress(operation),
        begun: show::ago(operation.begun, now),
        by: who.by(&operation.by),
        cancel: (operation.can_cancel && may_cancel).then(|| format!("/activity/{}/cancel", operation.id)),
    }
}

/// `GET /activity`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let mut frame = frame(call, Here::Activity);
    if call.method == "POST" {
        frame.path = "/activity".to_owned();
    }
    let who = Who { people: people_names(tenant)?, devices: device_names(tenant)?, apps: app_names(tenant)? };
    let query = [("state", Some("running".to_owned())), ("limit", Some("50".to_owned()))];
    let busy: Page<Operation> = operations::list(&call.listing(query), tenant)?.thing()?;
    let may_cancel = may(&call.caller, Role::Operator).is_ok();
    let kind = call.query.get("kind").map_or("", String::as_str);
    let group = GROUPS.iter().find(|(word, ..)| *word == kind).map(|(.., kinds)| *kinds);
    // An empty choice is no filter.
    let word = |name: &str| call.query.get(name).filter(|text| !text.is_empty()).cloned();
    let (app, device) = (word("app"), word("device"));
    let id = |text: &Option<String>| {
        text.as_deref().map(|text| text.parse::<orchestrator_api::text::Uuid>()).transpose()
    };
    let wrong = |_| Fail::not_found();
    let before = call.number("before")?;
    let filter = operations::Looked {
        app: id(&app).map_err(wrong)?.map(|id| id.0),
        device: id(&device).map_err(wrong)?.map(|id| id.0),
        kinds: group.unwrap_or_default(),
        before,
    };
    let events = operations::newest(tenant, &filter, ROWS)?;
    let choices = |none: &str, names: &Names| {
        let mut all: Vec<Choice> = names
            .iter()
            .map(|(id, name)| Choice::new(orchestrator_api::text::Uuid(*id).to_string(), name))
            .collect();
        all.sort_by(|one, other| one.label.cmp(&other.label));
        all.insert(0, Choice::new("", none));
        Kind::Choices(all)
    };
    let mut kinds = vec![Choice::new("", "Everything")];
    kinds.extend(GROUPS.iter().map(|(word, label, _)| Choice::new(*word, *label)));
    let fields = vec![
        Field::new("kind", "What", Kind::Choices(kinds)).value(kind),
        Field::new("app", "App", choices("All apps", &who.apps)).value(app.clone().unwrap_or_default()),
        Field::new("device", "Device", choices("All devices", &who.devices))
            .value(device.clone().unwrap_or_default()),
    ];
    let older = events.last().filter(|_| events.len() == ROWS).map(|last| {
        let mut path = format!("/activity?before={}", last.number.0);
        for (name, value) in
            [("kind", Some(kind.to_owned())), ("app", app.clone()), ("device", device.clone())]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                path.push_str(&format!("&{name}={}", escaped(&value)));
            }
        }
        path
    });
    Ok(Reply::page(&Activity {
        running: busy
            .items
            .iter()
            .filter(|one| one.state == State::Running && one.kind != "moments" && one.kind != "standby")
            .map(|one| running(&who, one, may_cancel, frame.now))
            .collect(),
        rows: events.iter().map(|event| happened(&who, event, frame.now)).collect(),
        filter: fields,
        is_filtered: group.is_some() || app.is_some() || device.is_some() || before.is_some(),
        older,
        frame,
    }))
}

/// `POST /activity/{id}/cancel`.
pub fn cancel(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let _: OperationId = call.param(0)?;
    operations::cancel(call, tenant)?;
    Ok(Reply::to("/activity?done=cancelled"))
}
