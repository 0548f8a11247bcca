//! `comb account accept`.

use std::path::PathBuf;

use clap::Args;
use orchestrator_api::wire::people::{Accept, NewToken};

use crate::commands::login::{self, PasswordArgs};
use crate::failure::{Failure, Kind, Result};
use crate::hive::address::Address;
use crate::hive::{Client, hidden};
use crate::passphrase;
use crate::state::State;

/// Accept an invitation into an account, and log in
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Where the hive is
    #[arg(value_name = "HIVE")]
    hive: String,

    /// What you will log in as
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What the account is called, where the invitation is for one of your own
    #[arg(long, value_name = "TITLE")]
    title: Option<String>,

    /// Take the letters of the invitation from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    invite_file: Option<PathBuf>,

    #[command(flatten)]
    how: PasswordArgs,
}

/// Accepts.
pub fn run(state: &State, args: &AcceptArgs) -> Result<()> {
    let usage =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Kind::Usage, format!("{what} {error}"));
    let name = args.name.parse().map_err(|error| usage("the name", &error))?;
    let account = args.title.as_ref().map(|title| title.parse()).transpose();
    let account = account.map_err(|error| usage("the title", &error))?;
    let hive = Address::parse(&args.hive)?;
    hive.allow(args.how.insecure_http)?;
    let client = Client::new(hive)?;
    let info = client.info()?;
    let letters = passphrase::secret("Letters of the invitation: ", args.invite_file.as_deref())?;
    let accept = Accept {
        invite: hidden(letters.trim())?,
        name,
        password: args.how.new_password(&format!("\"{}\"", args.name))?,
        account,
    };
    let token: NewToken = client.post_once("/v1/people/accept", &accept)?;
    login::welcome(state, client, info.key, token, args.how.insecure_http)
}
