//! `comb device`: this machine as a device of a hive.

mod install_unit;
mod join;
mod run;
mod status;
mod unlock;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// The machines that run the account's apps
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    Join(join::JoinArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Unlock(unlock::UnlockArgs),
    InstallUnit(install_unit::InstallUnitArgs),
}

/// Runs the command.
pub fn run(state: &State, command: DeviceCommand) -> Result<()> {
    match command {
        DeviceCommand::Join(args) => join::run(state, &args),
        DeviceCommand::Run(args) => run::run(state, &args),
        DeviceCommand::Status(args) => status::run(state, &args),
        DeviceCommand::Unlock(args) => unlock::run(state, &args),
        DeviceCommand::InstallUnit(args) => install_unit::run(state, &args),
    }
}
