//! `comb device drain`.

use clap::Args;
use orchestrator_api::wire::device::Drain;

use crate::failure::Result;
use crate::hive::find;
use crate::hive::orders::OrderArgs;
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
    let ordered = client.post(&format!("/v1/devices/{}/drain", device.id), &Drain { on: !args.undo })?;
    let what = if args.undo { "taking apps again" } else { "draining" };
    args.order.finish(&client, ordered, &format!("{what}: \"{}\"", device.name))?;
    if !args.undo && !device.apps.is_empty() && !args.order.json {
        output::note(&format!(
            "its {} apps move away one by one: `comb operation list` shows how far that is",
            device.apps.len()
        ));
    }
    Ok(())
}
