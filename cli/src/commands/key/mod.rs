//! `comb key`: the account's key ring, and sharing.

pub mod ring;
mod share;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// Keep the keys of all volumes under a passphrase, and share them
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    #[command(subcommand)]
    Ring(ring::RingCommand),
    Share(share::ShareArgs),
}

/// Runs the command.
pub fn run(state: &State, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Ring(command) => ring::run(state, command),
        KeyCommand::Share(args) => share::run(state, &args),
    }
}
