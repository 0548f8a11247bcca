//! What is being done, and what happened.

use orchestrator_api::ids::OperationId;
use orchestrator_api::text::Time;
use orchestrator_api::wire::operation::{By, Event, Operation, State};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::value::Page;
use orchestrator_console::pages::{Activity, Chain, Happened, Running};
use orchestrator_console::show::{self, Choice, Field, Html, Kind};

use super::super::call::{Call, Reply};
use super::super::chain::{self, Look};
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::tenant::Tenant;
use super::app_view::{self, doing};
use super::home::progress;
use super::names::{Names, Who};
use super::{Here, escaped, event, frame};

const ROWS: usize = 50;

/// Of these, also what reports say of apps that are not well.
const TROUBLE: &str = "trouble";

/// What is looked for, and the kinds of events that it means.
const GROUPS: &[(&str, &str, &[&str])] = &[
    (
        TROUBLE,
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
        &[
            "login",
            "login_failed",
            "logout",
            "session_gone",
            "password",
            "password_wrong",
            "second_on",
            "second_off",
            "second_wrong",
            "token_made",
            "token_gone",
            "invited",
            "invite_gone",
            "accepted",
            "role",
            "person_gone",
        ],
    ),
    (
        "settings",
        "Settings",
        &[
            "store",
            "store_gone",
            "code_made",
            "code_gone",
            "channel",
            "channel_gone",
            "release",
            "ring",
            "backup",
            "missing_accepted",
        ],
    ),
    (
        "apps",
        "Apps",
        &["phase", "app_added", "app_removed", "moved", "failed_over", "updated", "rolled_back"],
    ),
];

fn happened(who: &Who, event: &Event, path: Option<String>, now: Time) -> Happened {
    let mut about = Vec::new();
    if let Some(app) = event.app {
        about.push((who.apps.contains_key(&app.0).then(|| app_view::path(app)), who.app(app)));
    }
    if let Some(device) = event.device.filter(|_| event.app.is_none()) {
        about.push((Some(format!("/devices/{device}")), who.device(device)));
    }
    let (health, what) = event::words(event, who);
    Happened {
        number: event.number.0,
        when: show::ago(event.time, now),
        what,
        path,
        about,
        by: by(who, &event.by),
        from: event.from.as_ref().map(ToString::to_string),
        result: (health, event::result(event, health).to_owned()),
    }
}

/// What is true of the chain, and what is wrong with it.
fn chain(look: Look) -> Chain {
    match look {
        Look::Empty => Chain::default(),
        Look::Holds { from, to, is_newest } => {
            let end = if is_newest { ", the newest," } else { "" };
            Chain { holds: Some(format!("Numbers {from} to {to}{end} fit together.")), broken: None }
        }
        Look::Broken(number) => Chain { holds: None, broken: Some(number) },
    }
}

fn by(who: &Who, by: &By) -> Html {
    let name = who.by(by);
    if name.as_str().is_empty() { Html::text("somebody") } else { name }
}

fn running(who: &Who, operation: &Operation, may_cancel: bool, now: Time) -> Running {
    let device = || operation.device.map_or_else(Html::default, |id| who.device(id));
    let of = match (operation.app, operation.device) {
        (Some(app), _) => Html::pair(who.app(app), ": "),
        (None, Some(device)) => Html::pair(who.device(device), ": "),
        _ => Html::default(),
    };
    Running {
        what: Html::pair(of, doing(operation, device)),
        progress: progress(operation),
        begun: show::ago(operation.begun, now),
        path: app_view::followed(operation.app, &operation.kind, operation.id),
        by: by(who, &operation.by),
        cancel: (operation.can_cancel && may_cancel).then(|| format!("/activity/{}/cancel", operation.id)),
    }
}

/// `GET /activity`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let frame = frame(call, Here::Activity);
    let who = Who::of(tenant)?;
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
        unwell: kind == TROUBLE,
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
    let mut rows = Vec::new();
    for event in &events {
        rows.push(happened(&who, event, app_view::told_by(tenant, event)?, frame.now));
    }
    Ok(Reply::page(&Activity {
        running: busy
            .items
            .iter()
            .filter(|one| one.state == State::Running && one.kind != "moments" && one.kind != "standby")
            .map(|one| running(&who, one, may_cancel, frame.now))
            .collect(),
        rows,
        filter: fields,
        is_filtered: group.is_some() || app.is_some() || device.is_some() || before.is_some(),
        older,
        chain: chain(chain::look(tenant, &events)?),
        frame,
    }))
}

/// `POST /activity/{id}/cancel`.
pub fn cancel(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let _: OperationId = call.param(0)?;
    operations::cancel(call, tenant)?;
    Ok(Reply::to("/activity?done=cancelled"))
}
