//! `comb app move`.

use clap::Args;
use orchestrator_api::wire::app::{App, Move};
use orchestrator_api::wire::operation::Ordered;

use super::show::at_stake;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, words};
use crate::state::State;
use crate::{ask, output};

/// Move an app to another device, with all its data
///
/// As planned, nothing is lost: the data goes ahead while the app runs, the first device stops it and hands over its last
/// change, and the other one starts with exactly that. If it does not get well there, it goes back.
///
/// With --force, because the first device is lost: what it did not bring to the store yet stays behind, as a branch if it
/// ever returns. What that is at most is shown first.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The app
    name: String,

    /// The device that it moves to
    #[arg(long, value_name = "DEVICE")]
    to: String,

    /// Without the device that has it
    #[arg(long)]
    force: bool,

    /// Also though that device reports that it is well
    #[arg(long, requires = "force")]
    even_if_online: bool,

    /// Also though the store has writers that the hive does not know of: those that the last try told
    #[arg(long, requires = "force")]
    accept_seen: bool,

    /// Force it without asking
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    order: OrderArgs,
}

/// Moves an app.
pub fn run(state: &State, args: &MoveArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let to = find::device(&client, &args.to)?;
    if args.force {
        agree(args, &app)?;
    }
    let order = Move {
        to: to.id,
        forced: args.force,
        accept_loss: args.force,
        even_if_online: args.even_if_online,
        accept_seen: args.accept_seen,
    };
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/move", app.id), &order)?;
    let what = format!("moving \"{}\" to \"{}\"", app.name, to.name);
    let watched = args.order.finish(&client, ordered, &what)?;
    if !watched.waited || args.order.json {
        return Ok(());
    }
    match watched.operation.result.as_ref().and_then(|result| result.lost.as_ref()) {
        Some(lost) => {
            output::note(&format!("\"{}\" runs on \"{}\"; lost: {}", app.name, to.name, words::lost(lost)))
        }
        None => output::note(&format!("\"{}\" runs on \"{}\"; nothing was lost", app.name, to.name)),
    }
    Ok(())
}

fn agree(args: &MoveArgs, app: &App) -> Result<()> {
    let stake = match &app.at_stake {
        Some(stake) => at_stake(stake),
        None => "what its device did not bring to the store, which is not known".to_owned(),
    };
    output::note(&format!("at stake: {stake}"));
    if args.yes || ask::is_possible() && ask::confirm(&format!("Move \"{}\" without its device?", app.name))?
    {
        return Ok(());
    }
    Err(Failure::new(Kind::Usage, format!("\"{}\" was not moved", app.name))
        .hint("--yes accepts the loss; without --force nothing is lost, and the device must answer"))
}
