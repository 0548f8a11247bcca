//! `comb account create`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::people::{NewToken, Setup};

use crate::commands::login::{self, PasswordArgs};
use crate::failure::{Failure, Kind, Result};
use crate::hive::address::Address;
use crate::hive::{Client, hidden};
use crate::passphrase;
use crate::state::State;

/// Make the first account of a new hive, with the setup code that it printed
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Where the hive is
    #[arg(value_name = "HIVE")]
    hive: String,

    /// What the account is called
    #[arg(long, value_name = "TITLE", default_value = "Home")]
    title: String,

    /// What you log in as
    #[arg(long, value_name = "NAME", default_value = "owner")]
    name: String,

    /// Take the setup code from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    setup_code_file: Option<PathBuf>,

    #[command(flatten)]
    how: PasswordArgs,
}

/// Makes the account, and logs in.
pub fn run(state: &State, args: &CreateArgs) -> Result<()> {
    let usage =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Kind::Usage, format!("{what} {error}"));
    let account = args.title.parse().map_err(|error| usage("the title", &error))?;
    let name = args.name.parse().map_err(|error| usage("the name", &error))?;
    let hive = Address::parse(&args.hive)?;
    hive.allow(args.how.insecure_http)?;
    let client = Client::new(hive)?;
    let info = client.info()?;
    if info.set_up {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("the hive at {} has an account already", client.hive()),
        )
        .hint(format!(
            "`comb login {}` logs in; an owner's `comb account invite` lets others in",
            client.hive()
        )));
    }
    let code = passphrase::secret("Setup code that the hive printed: ", args.setup_code_file.as_deref())?;
    let setup = Setup {
        setup_code: hidden(code.trim())?,
        account,
        name,
        password: args.how.new_password(&format!("\"{}\"", args.name))?,
    };
    let token: NewToken = client.post_once("/v1/setup", &setup)?;
    login::welcome(state, client, info.key, token, args.how.insecure_http)
}
