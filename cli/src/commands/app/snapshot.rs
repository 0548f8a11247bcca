//! `comb app snapshot`.

use clap::Args;
use orchestrator_api::wire::app::Snapshot;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_device::daemon::socket::AppOrder;

use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, here};
use crate::output;
use crate::state::State;

/// Keep a moment of all volumes of an app, at one instant
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The app
    name: String,

    /// What the moment is called: a-z, 0-9 and hyphens
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// What is said of it; it stays in the volumes, encrypted
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Takes a snapshot.
pub fn run(state: &State, args: &SnapshotArgs) -> Result<()> {
    let usage =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Kind::Usage, format!("{what} {error}"));
    let tag = args
        .tag
        .as_ref()
        .map(|tag| tag.parse())
        .transpose()
        .map_err(|error| usage("the tag is not", &error))?;
    let message = args.message.as_ref().map(|text| text.parse()).transpose();
    let message = message.map_err(|error| usage("the message", &error))?;
    let asked = || through_hive(state, args, Snapshot { tag, message });
    let what = format!("a snapshot of \"{}\"", args.name);
    match args.tag.is_none() && args.message.is_none() {
        true => here::or_here(state, asked(), &args.name, AppOrder::Snapshot, &what),
        // By itself the device gives a moment its own name.
        false => asked(),
    }
}

fn through_hive(state: &State, args: &SnapshotArgs, wish: Snapshot) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/snapshot", app.id), &wish)?;
    let watched = args.order.finish(&client, ordered, &format!("a snapshot of \"{}\"", app.name))?;
    let moment = watched.operation.result.and_then(|result| result.data.moment);
    match moment.filter(|_| !args.order.json) {
        Some(moment) => match moment.tag {
            Some(tag) => output::line(tag.as_str()),
            None => output::line(&output::time_local(moment.time.0.saturating_mul(1_000_000))),
        },
        None => Ok(()),
    }
}
