//! `comb app snapshot`.

use clap::Args;
use fs_crypto::hedged_salt;
use orchestrator_api::wire::app::Snapshot;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::{Base64, Tag, Text};
use orchestrator_device::app::message;
use orchestrator_device::daemon::socket::AppOrder;

use crate::commands::snapshot;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, here, ring};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{keys, output};

/// Keep a moment of all volumes of an app, at one instant
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The app
    name: String,

    /// What the moment is called: a-z, 0-9 and hyphens
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// What is said of it, up to 256 characters: sealed here under the key ring for the device, which puts it into the
    /// volumes; the hive cannot read it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Read that from standard input
    #[arg(long, conflicts_with = "message")]
    message_stdin: bool,

    #[command(flatten)]
    passphrase: PassphraseArgs,

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
    let text = if args.message_stdin { Some(snapshot::piped()?) } else { args.message.clone() };
    let message = text.map(|text| text.parse::<Text<256>>()).transpose();
    let message = message.map_err(|error| usage("the message", &error))?;
    let what = format!("a snapshot of \"{}\"", args.name);
    match args.tag.is_none() && message.is_none() {
        true => {
            here::or_here(state, through_hive(state, args, None, None), &args.name, AppOrder::Snapshot, &what)
        }
        // By itself the device gives a moment its own name.
        false => through_hive(state, args, tag, message),
    }
}

fn through_hive(
    state: &State,
    args: &SnapshotArgs,
    tag: Option<Tag>,
    message: Option<Text<256>>,
) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let message = match message {
        Some(text) => {
            let ring = ring::open(state, &client, &args.passphrase)?.close();
            let salt = hedged_salt(&*keys::random()?, &[&app.id.0, text.as_str().as_bytes()]);
            Some(Base64(message::seal(ring.owner(), app.id, text.as_str(), &salt)))
        }
        None => None,
    };
    let wish = Snapshot { tag, message };
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
