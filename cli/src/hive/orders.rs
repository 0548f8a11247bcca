//! Watching what was ordered until it ends.
//!
//! The hive does it, whoever watches: an interrupt ends the watching and nothing else. What does not move is told, with
//! the reason where there is one, and given up after [`STILL_MAX`]; a command that could wait for ever would be no
//! answer to a script.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::command::Late;
use orchestrator_api::wire::device::Device;
use orchestrator_api::wire::operation::{Operation, Ordered, State};

use super::{Client, HiveArgs, words};
use crate::failure::{Failure, Kind, Result};
use crate::{output, progress};

/// How often the hive is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the same may last before the reason is told.
const SAY_AFTER: Duration = Duration::from_secs(15);
/// How long nothing may change before the command ends, with what was ordered still going on.
const STILL_MAX: Duration = Duration::from_secs(20 * 60);

/// What helps where an app is not removed since something of it is in no store.
const REMOVE_LATE: &str = "the app is stopped and stays: when the store answers, `comb app remove NAME` again sends the rest first; \
                           a tail goes to no store, and `comb app fork NAME --tail --from DEVICE --as NEW` makes an app of it. \
                           With --keep-data all stays on the device, with --discard it is lost";

/// What every command takes that orders something.
#[derive(Debug, Clone, Default, Args)]
pub struct OrderArgs {
    #[command(flatten)]
    pub hive: HiveArgs,

    /// Say what was ordered, and do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,

    /// Print the operation as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was ordered, done or still going on.
pub struct Watched {
    /// As the hive told it last.
    pub operation: Operation,
    /// Whether it was waited for.
    pub waited: bool,
}

impl OrderArgs {
    /// Watches an order to its end, or says its name, and prints it where JSON is asked for. `what` is said as in
    /// "starting "photos"".
    pub fn finish(&self, client: &Client, ordered: Ordered, what: &str) -> Result<Watched> {
        let watched = match self.no_wait {
            true => Watched { operation: ordered.operation, waited: false },
            false => watch(client, ordered.operation, what)?,
        };
        if self.json {
            output::json(&watched.operation)?;
        } else if !watched.waited {
            output::line(&watched.operation.id.to_string())?;
            output::note(&format!(
                "{what}: ordered; `comb operation show {}` says how it goes",
                watched.operation.id
            ));
        }
        match watched.waited {
            true => {
                ended(&watched.operation, what)?;
                // It is done, and not all of it is safe.
                let late = late(&watched.operation);
                if !late.is_empty() {
                    output::note(&format!(
                        "warning: {what}: the store lacks what its device has of {}: `comb sync` on that machine sends it when the store answers",
                        words::late(late)
                    ));
                }
                Ok(watched)
            }
            false => Ok(watched),
        }
    }
}

/// Watches an operation until it ends, whichever way.
pub fn watch(client: &Client, first: Operation, what: &str) -> Result<Watched> {
    let bar = progress::waiting("the hive does what was ordered");
    let mut operation = first;
    let mut told_step = None;
    let mut seen = fingerprint(&operation);
    let (mut changed, mut told_why) = (Instant::now(), None);
    loop {
        if told_step != operation.step {
            if let Some(step) = operation.step.as_deref().filter(|_| operation.state == State::Running) {
                bar.suspend(|| output::note(&format!("{what}: {}", words::step(step))));
            }
            told_step.clone_from(&operation.step);
        }
        if operation.state != State::Running {
            bar.finish_and_clear();
            return Ok(Watched { operation, waited: true });
        }
        if let Some(progress) = words::progress(&operation) {
            bar.set_message(progress);
        }
        let still = changed.elapsed();
        if still >= SAY_AFTER {
            let why = reason(client, &operation);
            if told_why.as_ref() != Some(&why) {
                bar.suspend(|| output::note(&waiting(&operation, what, &why)));
                told_why = Some(why);
            }
        }
        if still >= STILL_MAX {
            bar.finish_and_clear();
            return Err(given_up(&operation, what, told_why.as_deref()));
        }
        sleep(LOOK_EVERY);
        operation = client.get(&format!("/v1/operations/{}", operation.id))?;
        let now = fingerprint(&operation);
        if now != seen {
            (seen, changed, told_why) = (now, Instant::now(), None);
        }
    }
}

/// What changes while something goes on.
fn fingerprint(operation: &Operation) -> (Option<String>, Option<u64>, State) {
    (operation.step.clone(), operation.done.map(|done| done.0), operation.state)
}

/// Why it stands still, as far as anybody says.
fn reason(client: &Client, operation: &Operation) -> String {
    if let Some(problem) = &operation.problem {
        return words::problem_at(problem);
    }
    if let Some(code) = &operation.code {
        let (words, hint) = words::problem(code);
        let device =
            operation.waits_for.and_then(|id| client.get::<Device>(&format!("/v1/devices/{id}")).ok());
        let words = device.map_or(words, |device| format!("\"{}\" is silent", device.name));
        return hint.map_or_else(|| words.clone(), |hint| format!("{words} ({hint})"));
    }
    // The device may have said more of the app than of the command.
    let app = operation.app.and_then(|app| client.get::<App>(&format!("/v1/apps/{app}")).ok());
    let said = app.and_then(|app| app.problem);
    said.map_or_else(
        || "the device has not answered yet".to_owned(),
        |said| said.problem.as_ref().map_or_else(|| words::problem(&said.code).0, words::problem_at),
    )
}

fn waiting(operation: &Operation, what: &str, why: &str) -> String {
    let end = match operation.can_cancel {
        true => format!("`comb operation cancel {}` ends it", operation.id),
        false => "it cannot be cancelled any more".to_owned(),
    };
    format!(
        "{what}: waiting, since {why}; {end}, an interrupt ends only the watching, and so does {} without a change",
        words::age(u64::try_from(STILL_MAX.as_millis()).unwrap_or(u64::MAX))
    )
}

fn given_up(operation: &Operation, what: &str, why: Option<&str>) -> Failure {
    let why = why.unwrap_or("nothing changed");
    Failure::other(format!("{what}: still not done: {why}")).hint(format!(
        "the hive goes on with it: `comb operation show {0}` says how it stands, `comb operation cancel {0}` ends it",
        operation.id
    ))
}

/// What the device has alone, as an operation that ended told it.
fn late(operation: &Operation) -> &[Late] {
    operation.result.as_ref().map_or(&[], |result| &result.data.late[..])
}

/// Whether an operation that ended did what it was to do.
pub fn ended(operation: &Operation, what: &str) -> Result<()> {
    let code = operation.code.as_deref();
    match operation.state {
        State::Done | State::Running => Ok(()),
        State::Cancelled => Err(Failure::other(format!("{what}: it was cancelled"))),
        State::Lost => Err(Failure::other(format!(
            "{what}: the hive was restored meanwhile and does not know what came of it"
        ))
        .hint("`comb app list` says how the app is; order it again")),
        State::Failed => {
            let (words, hint) = code.map_or_else(|| ("it failed".to_owned(), None), words::problem);
            let mut words = operation.problem.as_ref().map_or(words, words::problem_at);
            let late = late(operation);
            if !late.is_empty() {
                words = format!("{words}: the store lacks what its device has of {}", words::late(late));
            }
            let hint = match operation.kind.as_str() {
                "remove" if !late.is_empty() => Some(REMOVE_LATE),
                _ => hint,
            };
            let kind = if code == Some("no_space") { Kind::NoSpace } else { Kind::Other };
            let failure = Failure::new(kind, format!("{what}: {words}"));
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::ids::OperationId;
    use orchestrator_api::text::Time;
    use orchestrator_api::wire::operation::By;
    use orchestrator_api::wire::value::Number;

    use super::*;

    fn operation(state: State, code: Option<&str>) -> Operation {
        Operation {
            id: OperationId([7; 16]),
            number: Number(1),
            kind: "start".to_owned(),
            app: None,
            device: None,
            state,
            step: Some("start".to_owned()),
            steps: vec!["start".to_owned()],
            done: None,
            total: None,
            code: code.map(str::to_owned),
            problem: None,
            result: None,
            begun: Time(0),
            ended: None,
            by: By::default(),
            can_cancel: true,
            waits_for: None,
        }
    }

    #[test]
    fn what_failed_says_why_and_ends_with_its_code() {
        let table = [
            (State::Done, None, None),
            (State::Failed, Some("no_space"), Some((7, "too little room"))),
            (State::Failed, Some("unhealthy"), Some((1, "not healthy"))),
            (State::Failed, None, Some((1, "it failed"))),
            (State::Cancelled, None, Some((1, "cancelled"))),
            (State::Lost, None, Some((1, "restored"))),
        ];
        for (state, code, expected) in table {
            let ended = ended(&operation(state, code), "starting \"photos\"");
            match expected {
                None => assert_eq!(ended, Ok(())),
                Some((exit, words)) => {
                    let failure = ended.expect_err("it is not done");
                    assert_eq!(failure.exit_code(), exit);
                    assert!(failure.message.contains(words), "{}", failure.message);
                }
            }
        }
    }

    #[test]
    fn what_would_be_lost_is_named_with_what_to_do() {
        let mut refused = operation(State::Failed, Some("publish_late"));
        refused.kind = "remove".to_owned();
        let late = serde_json::json!({"late": [
            {"volume": "00".repeat(32), "name": "data", "bytes": 4096},
            {"volume": "00".repeat(32), "name": "data/cut-6-e1", "bytes": 0},
        ]});
        refused.result = Some(serde_json::from_value(late).expect("a result"));
        let failure = ended(&refused, "removing \"photos\"").expect_err("it is not removed");
        assert!(failure.message.contains("data (4.0 KiB), data/cut-6-e1"), "{}", failure.message);
        assert!(failure.hint.expect("a hint").contains("--discard"));
    }

    #[test]
    fn who_waits_is_told_how_to_end_it() {
        let waits = operation(State::Running, None);
        let text = waiting(&waits, "starting \"photos\"", "Docker does not answer there");
        assert!(text.contains("Docker does not answer"), "{text}");
        assert!(text.contains(&format!("comb operation cancel {}", waits.id)), "{text}");
        assert!(text.contains("20 min"), "{text}");
        let failure = given_up(&waits, "starting \"photos\"", Some("Docker does not answer there"));
        assert!(failure.hint.expect("a hint").contains("operation cancel"));
    }
}
