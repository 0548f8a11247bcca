//! `comb device`: the account's devices as a person sees them, and this machine as one of them.

mod code;
mod drain;
pub mod install_unit;
mod join;
mod list;
mod page;
mod release;
mod rename;
mod revoke;
mod run;
mod show;
mod status;
mod unlock;
mod update;

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
    Update(update::UpdateArgs),
    Release(release::ReleaseArgs),
    Join(join::JoinArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Page(page::PageArgs),
    Unlock(unlock::UnlockArgs),
    InstallUnit(install_unit::InstallUnitArgs),
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
        DeviceCommand::Update(args) => update::run(state, &args),
        DeviceCommand::Release(args) => release::run(state, &args),
        DeviceCommand::Join(args) => join::run(state, &args),
        DeviceCommand::Run(args) => run::run(state, &args),
        DeviceCommand::Status(args) => status::run(state, &args),
        DeviceCommand::Page(args) => page::run(state, &args),
        DeviceCommand::Unlock(args) => unlock::run(state, &args),
        DeviceCommand::InstallUnit(args) => install_unit::run(state, &args),
    }
}
