//! `comb app log`.

use clap::Args;

use crate::failure::Result;
use crate::hive::{HiveArgs, find, moments};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the moments of an app, the newest first
///
/// A moment with a tag is one instant of all its volumes. What was said of it stays in the volumes: `comb log` shows it on
/// a machine that has them.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The app
    name: String,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists moments.
pub fn run(state: &State, args: &LogArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let moments = moments::of(&client, &app)?;
    if args.json {
        return output::json(&moments);
    }
    if let Some(as_of) = moments.as_of {
        output::note(&format!(
            "the device does not answer: these are the moments of {}",
            output::time_local(as_of.0.saturating_mul(1_000_000))
        ));
    }
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("TAG", Align::Left),
        ("WHY", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("SEALS", Align::Left),
    ]);
    for moment in moments.items {
        let why = serde_json::to_value(moment.reason).ok().and_then(|why| why.as_str().map(str::to_owned));
        let seals: Vec<String> = moment.volumes.iter().map(|volume| volume.seq.0.to_string()).collect();
        table.row(vec![
            output::time_local(moment.time.0.saturating_mul(1_000_000)),
            moment.tag.map_or_else(|| "-".to_owned(), |tag| tag.to_string()),
            why.unwrap_or_else(|| "-".to_owned()),
            moment.volumes.iter().map(|volume| volume.files.0).sum::<u64>().to_string(),
            output::size(moment.volumes.iter().map(|volume| volume.bytes.0).sum()),
            seals.join(","),
        ]);
    }
    table.print()
}
