//! `comb key ring`: making, showing and changing the key ring.

mod add;
mod init;
pub mod kit;
pub mod passphrase;
mod publish;
mod show;
pub mod store;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// Keep the keys of all volumes in one place that a passphrase opens
///
/// The key ring holds the keys of your volumes, encrypted under a passphrase. A copy of it and the passphrase
/// (or a printed recovery kit) bring every volume back on any machine: `comb recover`. New volumes are put
/// into it by themselves; a key stays in it when its volume is removed from this machine.
#[derive(Debug, Subcommand)]
pub enum RingCommand {
    Init(init::InitArgs),
    Add(add::AddArgs),
    #[command(alias = "list")]
    Show(show::ShowArgs),
    Passphrase(passphrase::PassphraseCommandArgs),
    Kit(kit::KitArgs),
    Store(store::StoreArgs),
    Publish(publish::PublishArgs),
}

/// Runs the command.
pub fn run(state: &State, command: RingCommand) -> Result<()> {
    match command {
        RingCommand::Init(args) => init::run(state, &args),
        RingCommand::Add(args) => add::run(state, &args),
        RingCommand::Show(args) => show::run(state, &args),
        RingCommand::Passphrase(args) => passphrase::run(state, &args),
        RingCommand::Kit(args) => kit::run(state, &args),
        RingCommand::Store(args) => store::run(state, &args),
        RingCommand::Publish(args) => publish::run(state, &args),
    }
}
