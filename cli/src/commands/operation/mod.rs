//! `comb operation`: what the hive does in steps.

use clap::{Args, Subcommand};
use orchestrator_api::wire::operation::{Operation, State as OperationState};

use crate::failure::{Failure, Kind, Result};
use crate::hive::{Client, HiveArgs, client::encoded, find, orders, words};
use crate::output::{self, Align, Table};
use crate::state::State;

/// What the hive is doing, and what came of it
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    List(ListArgs),
    Show(OneArgs),
    Wait(OneArgs),
    Cancel(OneArgs),
}

/// List operations, the newest first
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this app only
    #[arg(long, value_name = "NAME")]
    app: Option<String>,

    /// Of this device only
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// Those that go on
    #[arg(long)]
    running: bool,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One operation: show it, wait until it ends, or cancel it
///
/// Cancelling goes as far as nothing was stopped yet; later the hive goes back the way it came, which takes its time.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// Its id, or the beginning of it
    id: String,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(state: &State, command: OperationCommand) -> Result<()> {
    match command {
        OperationCommand::List(args) => list(state, &args),
        OperationCommand::Show(args) => {
            let client = args.hive.client(state)?;
            let operation = find_one(&client, &args.id)?;
            show(&client, &operation, args.json)
        }
        OperationCommand::Wait(args) => {
            let client = args.hive.client(state)?;
            let operation = find_one(&client, &args.id)?;
            let what = operation.kind.clone();
            let watched = orders::watch(&client, operation, &what)?.operation;
            show(&client, &watched, args.json)?;
            orders::ended(&watched, &what)
        }
        OperationCommand::Cancel(args) => {
            let client = args.hive.client(state)?;
            let operation = find_one(&client, &args.id)?;
            let operation: Operation =
                client.post(&format!("/v1/operations/{}/cancel", operation.id), &serde_json::json!({}))?;
            if args.json {
                return output::json(&operation);
            }
            output::note(match operation.state {
                OperationState::Running => "it is being taken back; `comb operation wait` says when it is",
                _ => "it is cancelled",
            });
            Ok(())
        }
    }
}

fn list(state: &State, args: &ListArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let mut query = Vec::new();
    if let Some(app) = &args.app {
        query.push(format!("app={}", find::app(&client, app)?.id));
    }
    if let Some(device) = &args.device {
        query.push(format!("device={}", find::device(&client, device)?.id));
    }
    if args.running {
        query.push("state=running".to_owned());
    }
    let mut operations: Vec<Operation> = client.list(&format!("/v1/operations?{}", query.join("&")))?;
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.number.0));
    if args.json {
        return output::json(&operations);
    }
    let apps = find::app_names(&find::apps(&client)?);
    let devices = find::device_names(&find::devices(&client)?);
    let mut table = Table::new(&[
        ("BEGUN", Align::Left),
        ("KIND", Align::Left),
        ("APP", Align::Left),
        ("DEVICE", Align::Left),
        ("STATE", Align::Left),
        ("ID", Align::Left),
    ]);
    for operation in operations {
        let name = |name: Option<String>| output::escape(name.unwrap_or_else(|| "-".to_owned()).as_bytes());
        table.row(vec![
            output::time_local(operation.begun.0.saturating_mul(1_000_000)),
            output::escape(operation.kind.as_bytes()),
            name(operation.app.map(|app| words::named(&apps, &app))),
            name(operation.device.map(|device| words::named(&devices, &device))),
            stands(&operation),
            operation.id.to_string(),
        ]);
    }
    table.print()
}

fn stands(operation: &Operation) -> String {
    let state = operation.state.text();
    let more = match operation.state {
        OperationState::Running => operation.step.clone(),
        _ => operation.code.clone(),
    };
    more.map_or_else(|| state.to_owned(), |more| format!("{state}: {}", output::escape(more.as_bytes())))
}

fn find_one(client: &Client, id: &str) -> Result<Operation> {
    if id.len() == 36 {
        return client.get(&format!("/v1/operations/{}", encoded(id)));
    }
    let operations: Vec<Operation> = client.list("/v1/operations")?;
    let mut found =
        operations.into_iter().filter(|operation| id.len() >= 4 && operation.id.to_string().starts_with(id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Failure::new(Kind::Usage, "several operations begin with that: write more of the id"))
        }
        _ => Err(Failure::new(
            Kind::NotFound,
            format!("there is no operation \"{}\"", output::escape(id.as_bytes())),
        )
        .hint("`comb operation list` lists them")),
    }
}

fn show(client: &Client, operation: &Operation, json: bool) -> Result<()> {
    if json {
        return output::json(operation);
    }
    let line =
        |what: &str, value: &str| output::line(&format!("{what:<8} {}", output::escape(value.as_bytes())));
    line("id", &operation.id.to_string())?;
    line("kind", &operation.kind)?;
    if let Some(app) = &operation.app {
        line("app", &words::named(&find::app_names(&find::apps(client)?), app))?;
    }
    line("state", operation.state.text())?;
    for step in &operation.steps {
        let here = if operation.step.as_ref() == Some(step) { " ←" } else { "" };
        line("step", &format!("{}{here}", words::step(step)))?;
    }
    if let Some(progress) = words::progress(operation) {
        line("done", &progress)?;
    }
    if let Some(problem) = &operation.problem {
        line("problem", &words::problem_at(problem))?;
    } else if let Some(code) = &operation.code {
        line("problem", &words::problem(code).0)?;
    }
    if let Some(lost) = operation.result.as_ref().and_then(|result| result.lost.as_ref()) {
        line("lost", &words::lost(lost))?;
    }
    let left = operation.result.as_ref().map(|result| &result.left[..]).unwrap_or_default();
    if !left.is_empty() {
        let apps = find::app_names(&find::apps(client)?);
        for one in left {
            line("stays", &format!("{}: {}", words::named(&apps, &one.app), words::problem(&one.code).0))?;
        }
    }
    line("begun", &output::time_local(operation.begun.0.saturating_mul(1_000_000)))?;
    if let Some(ended) = operation.ended {
        line("ended", &output::time_local(ended.0.saturating_mul(1_000_000)))?;
    }
    Ok(())
}
