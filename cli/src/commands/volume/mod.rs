//! `comb volume`: making, showing and removing volumes.

mod create;
mod head;
mod key;
mod list;
pub mod open;
mod remove;
mod show;

pub use show::VolumeReport;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// Make, show and remove volumes
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    Create(create::CreateArgs),
    Open(open::OpenArgs),
    Head(head::HeadArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Key(key::KeyArgs),
    Remove(remove::RemoveArgs),
}

/// Runs the command.
pub fn run(state: &State, command: VolumeCommand) -> Result<()> {
    match command {
        VolumeCommand::Create(args) => create::run(state, &args),
        VolumeCommand::Open(args) => open::run(state, &args),
        VolumeCommand::Head(args) => head::run(state, &args),
        VolumeCommand::List(args) => list::run(state, &args),
        VolumeCommand::Show(args) => show::run(state, &args),
        VolumeCommand::Key(args) => key::run(state, &args),
        VolumeCommand::Remove(args) => remove::run(state, &args),
    }
}
