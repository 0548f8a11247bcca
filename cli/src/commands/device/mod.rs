//! `comb device`: the account's devices, as a person sees them.

mod code;
mod drain;
mod list;
mod rename;
mod revoke;
mod show;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// The machines that run the account's apps
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    Code(code::CodeArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Rename(rename::RenameArgs),
    Drain(drain::DrainArgs),
    Revoke(revoke::RevokeArgs),
}

/// Runs the command.
pub fn run(state: &State, command: DeviceCommand) -> Result<()> {
    match command {
        DeviceCommand::Code(args) => code::run(state, &args),
        DeviceCommand::List(args) => list::run(state, &args),
        DeviceCommand::Show(args) => show::run(state, &args),
        DeviceCommand::Rename(args) => rename::run(state, &args),
        DeviceCommand::Drain(args) => drain::run(state, &args),
        DeviceCommand::Revoke(args) => revoke::run(state, &args),
    }
}
