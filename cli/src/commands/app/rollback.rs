//! `comb app rollback`.

use clap::Args;
use orchestrator_api::wire::app::Rollback;
use orchestrator_api::wire::operation::Ordered;

use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, moments};
use crate::state::State;

/// Put an app's data back to a moment; nothing is lost, the present stays a moment too
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The app and the moment: a tag, or a time as in `comb help log`
    #[arg(value_name = "NAME@WHEN")]
    at: String,

    /// Leave it stopped afterwards
    #[arg(long)]
    stopped: bool,

    #[command(flatten)]
    order: OrderArgs,
}

/// Rolls back.
pub fn run(state: &State, args: &RollbackArgs) -> Result<()> {
    let (name, when) = moments::split(&args.at);
    let when = when.ok_or_else(|| {
        Failure::new(Kind::Usage, "say which moment: NAME@WHEN").hint("`comb app log NAME` lists them")
    })?;
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, name)?;
    let to = moments::find(&moments::of(&client, &app)?.items, when)?;
    let start = args.stopped.then_some(false);
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/rollback", app.id), &Rollback { to, start })?;
    args.order.finish(&client, ordered, &format!("rolling \"{}\" back", app.name)).map(drop)
}
