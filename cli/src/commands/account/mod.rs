//! `comb account`: an account of a hive, its people, tokens and stores.

mod accept;
mod create;
mod invite;
mod logout;
mod password;
mod people;
mod ring;
mod show;
pub(super) mod store;
mod tokens;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// Your account at a hive: people, tokens, stores, the key ring
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    Create(create::CreateArgs),
    Accept(accept::AcceptArgs),
    Show(show::ShowArgs),
    Password(password::PasswordCommandArgs),
    Passphrase(ring::AccountPassphraseArgs),
    Kit(ring::AccountKitArgs),
    Invite(invite::InviteArgs),
    People(people::PeopleArgs),
    Tokens(tokens::TokensArgs),
    Store(store::StoreArgs),
    Logout(logout::LogoutArgs),
}

/// Runs the command.
pub fn run(state: &State, command: AccountCommand) -> Result<()> {
    match command {
        AccountCommand::Create(args) => create::run(state, &args),
        AccountCommand::Accept(args) => accept::run(state, &args),
        AccountCommand::Show(args) => show::run(state, &args),
        AccountCommand::Password(args) => password::run(state, &args),
        AccountCommand::Passphrase(args) => ring::passphrase(state, &args),
        AccountCommand::Kit(args) => ring::kit(state, &args),
        AccountCommand::Invite(args) => invite::run(state, &args),
        AccountCommand::People(args) => people::run(state, &args),
        AccountCommand::Tokens(args) => tokens::run(state, &args),
        AccountCommand::Store(args) => store::run(state, &args),
        AccountCommand::Logout(args) => logout::run(state, &args),
    }
}
