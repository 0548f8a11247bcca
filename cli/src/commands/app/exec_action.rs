//! `comb app exec-action`.

use std::collections::BTreeMap;

use clap::Args;
use orchestrator_api::compose::InputType;
use orchestrator_api::wire::app::{Action, ActionValue, RunAction};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::List;

use crate::ask;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::{self, OrderArgs};
use crate::hive::stream::{self, StreamId};
use crate::hive::{client::encoded, find, hidden, ring};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// Run an action that the app's file declares, in its container
///
/// Only what the signed file declares can be run: its arguments stand there, and each input takes the place of one of them.
/// Without a name it lists the actions.
#[derive(Debug, Args)]
pub struct ExecActionArgs {
    /// The app
    name: String,

    /// The action
    action: Option<String>,

    /// An input's value; what is missing is asked for. A text is taken from standard input by the program
    #[arg(value_name = "KEY=VALUE")]
    inputs: Vec<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Runs an action.
pub fn run(state: &State, args: &ExecActionArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let Some(name) = &args.action else { return list(&app.actions, args.order.json) };
    let action = app.actions.iter().find(|action| action.name == *name).ok_or_else(|| {
        Failure::new(
            Kind::NotFound,
            format!("\"{}\" declares no action \"{}\"", app.name, output::escape(name.as_bytes())),
        )
        .hint(format!("`comb app exec-action {}` lists them", app.name))
    })?;
    let input = values(action, &args.inputs)?;
    let opened = ring::open(state, &client, &args.passphrase)?;
    let id = StreamId::new();
    let path = format!("/v1/apps/{}/actions/{}", app.id, encoded(name));
    let ordered: Ordered = client.post(&path, &RunAction { input, stream: id.0 })?;
    if !args.order.no_wait {
        let printed = id.read(&client, opened.ring.owner(), |line| stream::print(&line, false));
        drop(opened);
        let watched = orders::watch(&client, ordered.operation, &format!("running {name}"))?.operation;
        if args.order.json {
            output::json(&watched)?;
        }
        orders::ended(&watched, &format!("running {name}"))?;
        printed?;
        return match watched.result.and_then(|result| result.data.exit) {
            Some(exit) if exit != 0 => Err(Failure::other(format!("{name} ended with {exit}"))),
            _ => Ok(()),
        };
    }
    args.order.finish(&client, ordered, &format!("running {name}")).map(drop)
}

fn list(actions: &[Action], json: bool) -> Result<()> {
    if json {
        return output::json(actions);
    }
    for action in actions {
        let inputs: Vec<String> = action.input.iter().map(|input| format!(" {}=…", input.name)).collect();
        output::line(&output::escape(format!("{}{}", action.name, inputs.concat()).as_bytes()))?;
    }
    Ok(())
}

fn values(action: &Action, given: &[String]) -> Result<List<ActionValue, 8>> {
    let usage = |text: String| Failure::new(Kind::Usage, text);
    let mut named = BTreeMap::new();
    for one in given {
        let (name, value) =
            one.split_once('=').ok_or_else(|| usage("an input is written KEY=VALUE".to_owned()))?;
        if !action.input.iter().any(|input| input.name == name) {
            return Err(usage(format!("the action has no input \"{}\"", output::escape(name.as_bytes()))));
        }
        named.insert(name.to_owned(), value.to_owned());
    }
    let mut values = Vec::new();
    for input in &action.input {
        let value = match named.remove(&input.name) {
            Some(value) => value,
            None if input.kind == InputType::Flag && !ask::is_possible() => "false".to_owned(),
            None => ask::line(&format!("{}: ", input.name))
                .map_err(|failure| failure.hint(format!("give it as {}=VALUE", input.name)))?,
        };
        input.kind.check(&input.name, &value).map_err(|error| usage(error.to_string()))?;
        let name = input.name.parse().map_err(|error| usage(format!("the input {error}")))?;
        values.push(ActionValue { name, value: hidden(&value)? });
    }
    Ok(List::cut(values))
}
