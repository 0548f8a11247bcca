//! `comb account invite`.

use clap::Args;
use orchestrator_api::code::Secret;
use orchestrator_api::wire::people::{Invite, NewInvite};
use orchestrator_api::wire::value::Within;

use super::people::RoleArg;
use crate::failure::{Failure, Kind, Result};
use crate::hive::HiveArgs;
use crate::output;
use crate::state::State;

/// Invite somebody into the account, or into an account of their own
///
/// The letters that are printed let one person in, once: give them on a way that you trust. `comb account people` shows
/// invitations that nobody accepted yet.
#[derive(Debug, Args)]
pub struct InviteArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// What they may do: look, run apps, or everything
    #[arg(long, value_enum, default_value_t = RoleArg::Viewer)]
    role: RoleArg,

    /// Into an account of their own, which shares nothing with yours; the first owner of the hive may
    #[arg(long)]
    new_account: bool,

    /// For how many days it is good
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=7))]
    days: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Invites.
pub fn run(state: &State, args: &InviteArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let role = if args.new_account { RoleArg::Owner } else { args.role };
    let invite = Invite {
        role: role.into(),
        ends_in_s: Some(Within(args.days * 86_400)),
        new_account: args.new_account,
    };
    let made: NewInvite = client.post_once("/v1/people/invites", &invite)?;
    if args.json {
        return output::json(&made);
    }
    let letters = Secret::parse(made.invite.reveal()).map_err(|error| {
        Failure::new(Kind::Foreign, format!("the hive's answer is no invitation: {error}"))
    })?;
    output::line(&letters.show())?;
    output::note(&format!(
        "good once, until {}: `comb account accept {} --name NAME` asks for these letters",
        output::time_local(made.ends.0.saturating_mul(1_000_000)),
        client.hive()
    ));
    Ok(())
}
