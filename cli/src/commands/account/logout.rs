//! `comb account logout`.

use clap::Args;

use crate::failure::{Kind, Result};
use crate::hive::{Client, HiveArgs, logins};
use crate::output;
use crate::state::State;

/// End the login of this machine at the hive
#[derive(Debug, Args)]
pub struct LogoutArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Forget it here also where the hive does not answer, or is another one; its token stays good until it ends
    #[arg(long)]
    forget: bool,
}

/// Logs out.
pub fn run(state: &State, args: &LogoutArgs) -> Result<()> {
    let login = args.hive.login(state)?;
    let gone = Client::logged_in(&login).and_then(|client| client.delete("/v1/login"));
    match gone {
        // A token that is good for nothing is what was wanted.
        Ok(()) => {}
        Err(failure) if failure.kind == Kind::NotPermitted || args.forget => {
            output::note(&format!("warning: {}", failure.message));
        }
        Err(failure) => {
            return Err(failure.hint("--forget forgets the login here, and leaves its token to the hive"));
        }
    }
    logins::forget(state, &login.hive)?;
    output::note(&format!("logged out of {}", login.hive));
    Ok(())
}
