//! `comb app logs`.

use clap::Args;
use orchestrator_api::wire::app::Logs;
use orchestrator_api::wire::command::LINES_MAX;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::Within;

use super::power::services;
use crate::failure::Result;
use crate::hive::stream::{self, StreamId};
use crate::hive::{HiveArgs, find, ring};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// Show what an app's containers write
///
/// The device seals it under the key ring, so that the hive, which passes it on, cannot read it: the ring is needed here.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The app
    name: String,

    /// Of these services only
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Go on with what they write from now on
    #[arg(short, long)]
    follow: bool,

    /// How many lines of the past
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=LINES_MAX))]
    lines: u64,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON, a line for each line
    #[arg(long)]
    json: bool,
}

/// Shows logs.
pub fn run(state: &State, args: &LogsArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let opened = ring::open(state, &client, &args.passphrase)?;
    let id = StreamId::new();
    let ask = Logs {
        services: services(&args.services)?,
        lines: Within(args.lines),
        follow: args.follow,
        stream: id.0,
    };
    let _: Ordered = client.post(&format!("/v1/apps/{}/logs", app.id), &ask)?;
    // Who follows a log for hours does not keep the ring from others.
    let ring = opened.close();
    let several = app.services.len() > 1 && args.services.len() != 1;
    id.read(&client, ring.owner(), |line| match args.json {
        true => output::line(&serde_json::to_string(&line).unwrap_or_default()),
        false => stream::print(&line, several),
    })
}
