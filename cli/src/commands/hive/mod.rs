//! `comb hive`: the server that devices and people talk to.

mod backup;
mod recover;
mod restore;
mod run;

use std::future::Future;

use clap::Subcommand;
use orchestrator_hive::Fail;

use crate::failure::{Failure, Kind, Result};
use crate::state::State;

/// Run the server that devices and people talk to, and keep it safe
#[derive(Debug, Subcommand)]
pub enum HiveCommand {
    Run(run::RunArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Recover(recover::RecoverArgs),
}

/// Runs the command.
pub fn run(state: &State, command: HiveCommand) -> Result<()> {
    match command {
        HiveCommand::Run(args) => run::run(state, args),
        HiveCommand::Backup(args) => backup::run(state, &args),
        HiveCommand::Restore(args) => restore::run(state, &args),
        HiveCommand::Recover(args) => recover::run(state, &args),
    }
}

/// The database that was named, else one in the state folder.
fn database(state: &State, named: Option<&str>) -> Result<String> {
    match named {
        Some(named) => Ok(named.to_owned()),
        None => {
            let path = state.root();
            std::fs::create_dir_all(path).map_err(|error| {
                Failure::new(Kind::Other, format!("{} cannot be made: {error}", path.display()))
            })?;
            Ok(format!("sqlite:{}", path.join("hive.db").display()))
        }
    }
}

/// Waits for what the hive does.
fn block_on<T>(work: impl Future<Output = std::result::Result<T, Fail>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Kind::Other, format!("a runtime could not be made: {error}")))?;
    runtime.block_on(work).map_err(|fail| Failure::new(Kind::Other, fail.to_string()))
}
