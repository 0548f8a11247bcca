//! `comb hive recover`.

use clap::Args;

use crate::failure::Result;
use crate::output;
use crate::state::State;

/// Show which devices a restored hive waits for, or go on without them
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Go on without those that are missing: what they did since the backup is found in the stores
    #[arg(long)]
    finish: bool,

    /// The hive's database [default: hive.db in the state folder]
    #[arg(long, value_name = "URL")]
    db: Option<String>,
}

/// Shows what is missing.
pub fn run(state: &State, args: &RecoverArgs) -> Result<()> {
    let database = super::database(state, args.db.as_deref())?;
    let told = super::block_on(orchestrator_hive::recover(&database, args.finish))?;
    if !told.recovering {
        return output::line("the hive waits for no devices");
    }
    for name in &told.missing {
        output::line(&format!("missing: {name}"))?;
    }
    output::line(if args.finish {
        "the hive goes on when leases of before are over, in less than a minute"
    } else {
        "the hive orders nothing until all have said hello"
    })
}
