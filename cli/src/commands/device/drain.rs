//! `comb device drain`.

use clap::Args;
use orchestrator_api::wire::device::Drain;
use orchestrator_api::wire::operation::{Operation, Ordered};

use crate::failure::Result;
use crate::hive::find;
use crate::hive::orders::OrderArgs;
use crate::hive::words;
use crate::output;
use crate::state::State;

/// Move a device's apps to others, one by one, and give it no more; with --undo it takes apps again
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The device
    name: String,

    /// Let it take apps again
    #[arg(long)]
    undo: bool,

    #[command(flatten)]
    order: OrderArgs,
}

/// Drains a device.
pub fn run(state: &State, args: &DrainArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    let ordered: Ordered =
        client.post(&format!("/v1/devices/{}/drain", device.id), &Drain { on: !args.undo })?;
    let what = if args.undo { "taking apps again" } else { "draining" };
    let id = ordered.operation.id;
    let finished = args.order.finish(&client, ordered, &format!("{what}: \"{}\"", device.name));
    let operation: Operation = client.get(&format!("/v1/operations/{id}"))?;
    if let Some(result) = operation.result.filter(|_| !args.order.json) {
        // What stays is named, whether the rest went or not.
        let apps = find::app_names(&find::apps(&client)?);
        for left in &result.left {
            let (why, hint) = words::problem(&left.code);
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            output::note(&format!("\"{}\" stays: {why}{hint}", words::named(&apps, &left.app)));
        }
    }
    finished.map(drop)
}
