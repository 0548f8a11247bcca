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
    let who = super::block_on(orchestrator_hive::restore_from(&database, &args.file))?;
    output::line(
        "restored; `comb hive run` waits for the devices, `comb hive recover` shows which are missing",
    )?;
    output::line("")?;
    output::line(
        "What was revoked or removed after the backup was made is here again. Look through this list, and repeat it now:",
    )?;
    let shown = |text: &str| output::escape(text.as_bytes());
    for (account, device) in &who.devices {
        let told =
            format!("  device {} of {}: `comb device revoke` if it is gone", shown(device), shown(account));
        output::line(&told)?;
    }
    for (account, person, role) in &who.people {
        let (person, account) = (shown(person), shown(account));
        output::line(&format!(
            "  person {person} of {account}, {role}: `comb account people` to remove or change, with an older password"
        ))?;
    }
    output::line(
        "All tokens, sessions, invitations and open codes have ended: `comb login` makes a new token.",
    )
}
