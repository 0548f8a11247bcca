//! `comb account password`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::people::ChangePassword;

use crate::commands::login::PasswordArgs;
use crate::failure::Result;
use crate::hive::{HiveArgs, hidden};
use crate::state::State;
use crate::{output, passphrase};

/// Set another password for your login; your other logins end
#[derive(Debug, Args)]
pub struct PasswordCommandArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Take the present password from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    old_password_file: Option<PathBuf>,

    #[command(flatten)]
    how: PasswordArgs,
}

/// Sets the password.
pub fn run(state: &State, args: &PasswordCommandArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let old = hidden(&passphrase::secret("Present password: ", args.old_password_file.as_deref())?)?;
    let new = args.how.new_password("your login, a new one")?;
    client.put("/v1/me/password", &ChangePassword { old, new })?;
    output::note("the password is changed; other logins of yours have ended");
    Ok(())
}
