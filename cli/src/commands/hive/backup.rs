//! `comb hive backup`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::output;
use crate::state::State;

/// Write all that a hive knows into one file, also while it runs
///
/// The file holds the hive's key and the sealed rings: keep it as you keep the hive.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file, which must not be there yet
    file: PathBuf,

    /// The hive's database [default: hive.db in the state folder]
    #[arg(long, value_name = "URL")]
    db: Option<String>,
}

/// Writes the file.
pub fn run(state: &State, args: &BackupArgs) -> Result<()> {
    let database = super::database(state, args.db.as_deref())?;
    let bytes = super::block_on(orchestrator_hive::back_up_to(&database, &args.file))?;
    output::line(&format!("{} in {}", output::size(bytes), args.file.display()))
}
