//! What happened, in words: the same on an app's page, in its history, and under Activity.

use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::operation::Event;
use orchestrator_console::show::{self, Health, Html, capital};
use serde_json::Value;

use super::names::Who;

/// What an order is called: `a move`.
fn order(kind: &str) -> String {
    let plain = match kind {
        "move" => "a move",
        "move_forced" => "a move by force",
        "failover" => "a takeover",
        "snapshot" => "a snapshot",
        "update" => "an update",
        "rollback" => "going back to a moment",
        "fork" => "a second app",
        "restore" => "a restore",
        "author" => "an installation",
        "settings" => "new settings",
        "standby" => "standing by",
        "action" => "an action",
        "logs" => "a look at its log",
        "drain" => "emptying it",
        "undrain" => "taking apps again",
        "add" => "adding it",
        "remove" => "removing it",
        "revoke" => "revoking it",
        other => return show::words(other),
    };
    plain.to_owned()
}

/// An event in words, and how grave it is.
pub fn words(event: &Event, who: &Who) -> (Health, Html) {
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| event.data.get(name).and_then(Value::as_u64);
    let device =
        |id: Option<DeviceId>| id.map_or_else(|| Html::text("a device that is gone"), |id| who.device(id));
    let at = |name: &str| device(text(name).parse().ok());
    let person = || text("person").parse().map_or_else(|_| Html::text("somebody"), |id: Uuid| who.person(id));
    let named = |words: &str, name: &str| match name {
        "" => Html::text(words),
        name => Html::pair(format!("{words}: "), show::name(name)),
    };
    let channel = || {
        let way = if text("way") == "mail" { "mail by " } else { "a webhook at " };
        Html::pair(way, show::name(text("host")))
    };
    let ordered = || order(text("do"));
    let (health, plain) = match event.kind.as_str() {
        "app_added" => (Health::Well, "Added".to_owned()),
        "app_removed" => (Health::Off, "Removed".to_owned()),
        "ordered" => (Health::Busy, format!("Ordered: {}", ordered())),
        "finished" => match number("left") {
            None | Some(0) => (Health::Well, format!("Done: {}", ordered())),
            Some(1) => (Health::Warn, format!("Done: {}; 1 app could not leave", ordered())),
            Some(left) => (Health::Warn, format!("Done: {}; {left} apps could not leave", ordered())),
        },
        "failed" => {
            let (why, _) = show::problem(text("code"));
            (Health::Bad, format!("Failed: {}. {}.", ordered(), capital(&why)))
        }
        kind @ ("moved" | "failed_over") => {
            let verb = if kind == "moved" { "Moved" } else { "Taken over" };
            let from = Html::pair(format!("{verb} from "), at("from"));
            let words = Html::pair(Html::pair(from, " to "), at("to"));
            return match number("lost_seconds_max") {
                Some(seconds) => {
                    (Health::Warn, Html::pair(words, format!("; at most {seconds} s were lost")))
                }
                None => (Health::Well, words),
            };
        }
        "tail_kept" => {
            let words = Html::pair(device(event.device), " kept changes that were not replicated");
            return (Health::Warn, words);
        }
        "loss_known" => {
            let (seconds, bytes) = (number("seconds").unwrap_or(0), number("bytes").unwrap_or(0));
            let words = format!("It is known now what was lost: {seconds} s, {}", show::bytes(bytes));
            (Health::Warn, words)
        }
        "updated" => match (number("release"), number("revision")) {
            (Some(release), _) => (Health::Well, format!("Updated to release {release}")),
            (None, revision) => (Health::Well, format!("Updated to revision {}", revision.unwrap_or(0))),
        },
        "rolled_back" => (Health::Warn, "An update was not well, and was taken back".to_owned()),
        "phase" => return phase(text("phase"), text("health"), text("problem"), &device(event.device)),
        "behind" => (Health::Warn, "Its data reaches the store too slowly".to_owned()),
        "safe_again" => (Health::Well, "All of its data is safe again".to_owned()),
        "joined" => (Health::Well, "Joined".to_owned()),
        "renamed" => (Health::Well, "Renamed".to_owned()),
        "revoked" => (Health::Off, "Revoked".to_owned()),
        "drained" if event.data.get("on") == Some(&Value::Bool(false)) => {
            (Health::Well, "Takes apps again".to_owned())
        }
        "drained" => (Health::Busy, "Is to be emptied".to_owned()),
        "silent" => (Health::Warn, "Became silent".to_owned()),
        "back" => (Health::Well, "Is back".to_owned()),
        "login" => (Health::Well, "Logged in".to_owned()),
        "login_failed" => (Health::Warn, "Tried to log in, and was refused".to_owned()),
        "logout" => (Health::Well, "Logged out".to_owned()),
        "session_gone" => (Health::Well, "Logged another browser out".to_owned()),
        "password" => (Health::Well, "Changed their password".to_owned()),
        "password_wrong" => (Health::Warn, "Tried to change the password, and was refused".to_owned()),
        "token_made" => return (Health::Well, named("Made a token", text("title"))),
        "token_gone" => return (Health::Well, named("Ended a token", text("title"))),
        "invited" if event.data.get("new_account") == Some(&Value::Bool(true)) => {
            (Health::Well, "Invited somebody to an account of their own".to_owned())
        }
        "invited" => (Health::Well, format!("Invited somebody as {}", text("role"))),
        "invite_gone" => (Health::Well, "Withdrew an invitation".to_owned()),
        "accepted" => (Health::Well, format!("Came by an invitation, as {}", text("role"))),
        "role" => {
            let words = Html::pair("Changed the role of ", person());
            return (Health::Well, Html::pair(words, format!(" to {}", text("role"))));
        }
        "person_gone" => {
            return (Health::Well, Html::pair("Removed ", show::name(text("name"))));
        }
        "second_on" => (Health::Well, "Took up a second factor".to_owned()),
        "second_off" => return (Health::Well, Html::pair("Turned off the second factor of ", person())),
        "second_wrong" => (Health::Warn, "Tried to turn off the second factor, and was refused".to_owned()),
        "ring" => (Health::Well, "Stored the key ring, sealed".to_owned()),
        "store" => return (Health::Well, named("Added a store", text("url"))),
        "store_gone" => return (Health::Well, named("Removed a store", text("url"))),
        "code_made" => return (Health::Well, named("Made a code for a device", text("name"))),
        "code_gone" => (Health::Well, "Took back a code for a device".to_owned()),
        "channel" => return (Health::Well, Html::pair("Notifications go to ", channel())),
        "channel_gone" => return (Health::Well, Html::pair("Notifications go no more to ", channel())),
        "release" => (Health::Well, format!("Stored release {} for devices", number("release").unwrap_or(0))),
        "backup" => (Health::Well, "Took a backup of the whole hive".to_owned()),
        "missing_accepted" => {
            let count = number("devices").unwrap_or(0);
            let devices = if count == 1 { "device" } else { "devices" };
            (Health::Warn, format!("Let the hive go on without {count} {devices}"))
        }
        "recovering" => (Health::Warn, "The hive was restored from a backup".to_owned()),
        "recovered" => (Health::Well, "The hive has heard its devices, and goes on".to_owned()),
        other => (Health::Off, capital(&show::words(other))),
    };
    (health, Html::text(&plain))
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
        ("absent", _) => (Health::Busy, "Is being prepared"),
        ("settling", _) => (Health::Busy, "Gives it up"),
        _ => (Health::Busy, "Starts"),
    };
    (health, Html::pair(words, on))
}

/// With what result, in a word or two.
pub fn result(event: &Event, health: Health) -> &'static str {
    match (event.kind.as_str(), health) {
        ("login_failed" | "password_wrong" | "second_wrong", _) => "refused",
        ("ordered", _) => "begun",
        ("phase", Health::Well) => "well",
        ("phase", Health::Bad) => "not well",
        ("phase", Health::Busy) => "under way",
        (_, Health::Bad) => "failed",
        (_, Health::Warn) => "look",
        ("phase", _) => "told",
        _ => "done",
    }
}
