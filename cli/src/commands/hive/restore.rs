//! `comb hive restore`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::output;
use crate::state::State;

/// Load a backup into an empty database
///
/// The hive that runs on it then waits for its devices, and believes them: what happened after the backup, they know.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// What `comb hive backup` wrote
    file: PathBuf,

    /// The empty database [default: hive.db in the state folder]
    #[arg(long, value_name = "URL")]
    db: Option<String>,
}

/// Loads the file.
pub fn run(state: &State, args: &RestoreArgs) -> Result<()> {
    let database = super::database(state, args.db.as_deref())?;
    super::block_on(orchestrator_hive::restore_from(&database, &args.file))?;
    output::line(
        "restored; `comb hive run` waits for the devices, `comb hive recover` shows which are missing",
    )
}
