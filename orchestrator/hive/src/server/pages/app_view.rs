//! What all pages of an app share: its head, its names, and what happened with it in words.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::placement::Policy;
use orchestrator_api::text::{Time, Uuid};
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::operation::{Event, Operation};
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::ProblemReport;
use orchestrator_console::layout::Frame;
use orchestrator_console::pages::{AppEvent, AppHead, AppRunning, Choice, Trouble};
use orchestrator_console::show::{self, Health, Html};
use serde_json::Value;

use super::super::apps;
use super::super::call::Call;
use super::super::database::Row;
use super::super::fail::Fail;
use super::super::operations;
use super::super::people::may;
use super::super::tenant::Tenant;
use super::home::{all_devices, app_health, is_web, progress};
use super::{Here, frame};

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

    /// Whether its device reports.
    pub fn is_silent(&self) -> bool {
        self.device().is_some_and(|device| device.state == DeviceState::Silent)
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

/// With a capital letter: what begins a sentence.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What is done by an operation, in words: `Moving to cellar`.
pub fn doing(operation: &Operation, devices: &[Device]) -> Html {
    let to = || device_name(devices, operation.device);
    let plain = match operation.kind.as_str() {
        "move" => return Html::pair("Moving to ", to()),
        "move_forced" => return Html::pair("Moving by force to ", to()),
        "failover" => return Html::pair("Taking over on ", to()),
        "standby" => return Html::pair("Standing by: ", to()),
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
        title: doing(&operation, &view.devices),
        progress: progress(&operation),
        path: working(view.app.id, id),
    }))
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

/// Who is who: people by their ids.
pub fn people(tenant: &mut Tenant<'_>) -> Result<BTreeMap<Uuid, String>, Fail> {
    let rows = tenant.query("SELECT person, name FROM person WHERE account = $1", &[])?;
    rows.iter().map(|row: &Row| Ok((Uuid(row.id(0)?), row.text(1)?.to_owned()))).collect()
}

/// The last events of an app, newest first; those before `before`, if that is said.
pub fn happened(
    tenant: &mut Tenant<'_>,
    view: &View,
    before: Option<u64>,
    limit: usize,
) -> Result<(Vec<AppEvent>, Option<u64>), Fail> {
    let sql = "SELECT event FROM event WHERE account = $1 AND app = $2 AND number < $3 ORDER BY number DESC LIMIT $4";
    let before = before.unwrap_or(i64::MAX as u64);
    let rows = tenant.query(sql, &[view.app.id.0.into(), before.into(), (limit as u64).into()])?;
    let events: Vec<Event> =
        rows.iter().map(|row| Ok(super::super::tenant::read(row.text(0)?)?)).collect::<Result<_, Fail>>()?;
    let next = events.last().filter(|_| events.len() == limit).map(|last| last.number.0);
    let people = people(tenant)?;
    let told = |event: &Event| {
        let (health, words) = words(event, &view.devices);
        let by = match (&event.by.person, event.by.device, event.by.hive) {
            (Some(person), ..) => {
                people.get(person).map_or_else(|| Html::text("somebody who left"), |name| show::name(name))
            }
            (_, Some(device), _) => device_name(&view.devices, Some(device)),
            (_, _, true) => Html::text("the hive"),
            _ => Html::default(),
        };
        AppEvent { when: show::ago(event.time, view.frame.now), words, by, health }
    };
    Ok((events.iter().map(told).collect(), next))
}

/// An event in words.
fn words(event: &Event, devices: &[Device]) -> (Health, Html) {
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| event.data.get(name).and_then(Value::as_u64);
    let at = |name: &str| device_name(devices, text(name).parse().ok());
    let on = || device_name(devices, event.device);
    let ordered = match text("do") {
        "start" => "start",
        "stop" => "stop",
        "move" => "a move",
        "move_forced" => "a move by force",
        "failover" => "a takeover",
        "author" => "an installation",
        "settings" => "new settings",
        "standby" => "standing by",
        "add" => "adding it",
        "remove" => "removing it",
        other => other,
    };
    match event.kind.as_str() {
        "app_added" => (Health::Well, Html::text("Added")),
        "app_removed" => (Health::Off, Html::text("Removed")),
        "ordered" => (Health::Busy, Html::text(&format!("Ordered: {}", show::words(ordered)))),
        "finished" => (Health::Well, Html::text(&format!("Done: {}", show::words(ordered)))),
        "failed" => {
            let (why, _) = show::problem(text("code"));
            (Health::Bad, Html::text(&format!("Failed: {}. {}.", show::words(ordered), capital(&why))))
        }
        kind @ ("moved" | "failed_over") => {
            let verb = if kind == "moved" { "Moved" } else { "Taken over" };
            let mut words = Html::pair(format!("{verb} from "), at("from"));
            words = Html::pair(Html::pair(words, " to "), at("to"));
            let lost = number("lost_seconds_max")
                .filter(|_| event.data.get("lost_seconds_max").is_some_and(|it| !it.is_null()));
            match lost {
                Some(seconds) => {
                    (Health::Warn, Html::pair(words, format!("; at most {seconds} s were lost")))
                }
                None => (Health::Well, words),
            }
        }
        "tail_kept" => (Health::Warn, Html::pair(on(), " kept changes that were not replicated")),
        "loss_known" => {
            let lost = format!(
                "It is known now what was lost: {} s, {}",
                number("seconds").unwrap_or(0),
                show::bytes(number("bytes").unwrap_or(0))
            );
            (Health::Warn, Html::text(&lost))
        }
        "updated" => {
            (Health::Well, Html::text(&format!("Updated to revision {}", number("revision").unwrap_or(0))))
        }
        "rolled_back" => (Health::Warn, Html::text("An update was not well, and was taken back")),
        "phase" => phase(text("phase"), text("health"), text("problem"), &on()),
        "behind" => (Health::Warn, Html::text("Its data reaches the store too slowly")),
        "safe_again" => (Health::Well, Html::text("All of its data is safe again")),
        other => (Health::Busy, Html::text(&capital(&show::words(other)))),
    }
}

fn phase(phase: &str, health: &str, problem: &str, on: &Html) -> (Health, Html) {
    let on = Html::pair(" on ", on.clone());
    if !problem.is_empty() {
        let (why, _) = show::problem(problem);
        return (Health::Bad, Html::pair(capital(&why), on));
    }
    let (health, words) = match (phase, health) {
        ("running", "unhealthy") => (Health::Bad, "Not well"),
        ("running", "starting") => (Health::Busy, "Started, and not well yet"),
        ("running", _) => (Health::Well, "Runs"),
        ("stopped", _) => (Health::Off, "Stopped"),
        ("stopping" | "flushing", _) => (Health::Busy, "Stops"),
        ("standing_by", _) => (Health::Off, "Stands by"),
        ("settling", _) => (Health::Busy, "Gives it up"),
        _ => (Health::Busy, "Starts"),
    };
    (health, Html::pair(words, on))
}

/// A name for a shell: in quotes where it needs some.
pub fn quoted(text: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_./:@%+=,".contains(one);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// How old what a report said is.
pub fn heard(device: &Device, now: Time) -> Option<Html> {
    device.seen_age_ms.map(|age| show::as_of(age.0, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        let table = [
            ("photos", "photos"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$(x)", "'$(x)'"),
            ("s3://b/p", "s3://b/p"),
        ];
        for (text, shell) in table {
            assert_eq!(quoted(text), shell);
        }
    }

    #[test]
    fn a_sentence_begins_with_a_capital() {
        assert_eq!((capital("über"), capital("")), ("Über".to_owned(), String::new()));
    }
}
