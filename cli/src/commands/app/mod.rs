//! `comb app`: compose projects that run on the account's devices, with their data.

pub mod add;
mod adopt;
pub mod authoring;
mod eject;
mod exec_action;
mod fork;
mod list;
mod log;
mod logs;
mod moving;
mod policy;
mod power;
mod remove;
mod restore;
mod rollback;
mod show;
mod snapshot;
mod stats;
pub mod store;
pub mod update;

use clap::Subcommand;

use crate::failure::Result;
use crate::state::State;

/// Apps: compose projects that run on your devices, with their data
///
/// What is ordered is done by the hive and the app's device, and the command shows how far it is until it ends: an
/// interrupt ends the watching and nothing else. --no-wait says what was ordered and ends.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    Add(add::AddArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Start(power::StartArgs),
    Stop(power::StopArgs),
    Restart(power::RestartArgs),
    Stats(stats::StatsArgs),
    Logs(logs::LogsArgs),
    ExecAction(exec_action::ExecActionArgs),
    Move(moving::MoveArgs),
    Policy(policy::PolicyArgs),
    Store(store::StoreArgs),
    Snapshot(snapshot::SnapshotArgs),
    Log(log::LogArgs),
    Rollback(rollback::RollbackArgs),
    Restore(restore::RestoreArgs),
    Fork(fork::ForkArgs),
    Update(update::UpdateArgs),
    Remove(remove::RemoveArgs),
    Eject(eject::EjectArgs),
    Adopt(adopt::AdoptArgs),
}

/// Runs the command.
pub fn run(state: &State, command: AppCommand) -> Result<()> {
    match command {
        AppCommand::Add(args) => add::run(state, &args),
        AppCommand::List(args) => list::run(state, &args),
        AppCommand::Show(args) => show::run(state, &args),
        AppCommand::Start(args) => power::start(state, &args),
        AppCommand::Stop(args) => power::stop(state, &args),
        AppCommand::Restart(args) => power::restart(state, &args),
        AppCommand::Stats(args) => stats::run(state, &args),
        AppCommand::Logs(args) => logs::run(state, &args),
        AppCommand::ExecAction(args) => exec_action::run(state, &args),
        AppCommand::Move(args) => moving::run(state, &args),
        AppCommand::Policy(args) => policy::run(state, &args),
        AppCommand::Store(args) => store::run(state, &args),
        AppCommand::Snapshot(args) => snapshot::run(state, &args),
        AppCommand::Log(args) => log::run(state, &args),
        AppCommand::Rollback(args) => rollback::run(state, &args),
        AppCommand::Restore(args) => restore::run(state, &args),
        AppCommand::Fork(args) => fork::run(state, &args),
        AppCommand::Update(args) => update::run(state, &args),
        AppCommand::Remove(args) => remove::run(state, &args),
        AppCommand::Eject(args) => eject::run(state, &args),
        AppCommand::Adopt(args) => adopt::run(state, &args),
    }
}
