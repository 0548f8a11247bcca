//! `comb app remove`.

use clap::Args;
use orchestrator_api::wire::operation::Ordered;

use crate::failure::{Failure, Kind, Result};
use crate::hive::find;
use crate::hive::orders::OrderArgs;
use crate::state::State;
use crate::{ask, output};

/// Remove an app from the hive and its devices
///
/// What it had in the stores stays there, and so do its keys in the key ring: `comb recover` brings its volumes back. With
/// --keep-data the volumes stay on the devices too. While a device has something of it that is in no store, the app is
/// stopped and not removed, and what that is is told; --discard removes it all the same. A device that is silent removes
/// its part when it is back.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The app
    name: String,

    /// Leave its volumes on the devices
    #[arg(long)]
    keep_data: bool,

    /// Lose what is on its devices and in no store
    #[arg(long, conflicts_with = "keep_data")]
    discard: bool,

    /// Do it without asking
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    order: OrderArgs,
}

/// Removes an app.
pub fn run(state: &State, args: &RemoveArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let what = match (args.keep_data, args.discard) {
        (true, _) => "its volumes stay on their devices",
        (_, true) => "its volumes leave their devices; what is in no store is lost",
        _ => "its volumes leave their devices",
    };
    let question = format!("Remove \"{}\"? What is in stores stays, and {what}.", app.name);
    let agreed = args.yes || ask::is_possible() && ask::confirm(&question)?;
    if !agreed {
        return Err(Failure::new(Kind::Usage, format!("\"{}\" was not removed", app.name))
            .hint("--yes does it without asking"));
    }
    let ordered: Ordered = client.delete_ordered(&format!(
        "/v1/apps/{}?keep_data={}&discard={}",
        app.id, args.keep_data, args.discard
    ))?;
    let watched = args.order.finish(&client, ordered, &format!("removing \"{}\"", app.name))?;
    if watched.waited && !args.order.json {
        output::note(
            "what it had in stores stays there, and its keys in the key ring; `comb recover` brings its volumes back",
        );
    }
    Ok(())
}
