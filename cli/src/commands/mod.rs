//! The commands. Each file holds one: its arguments, whose comments are the help, and its function.

mod account;
mod app;
mod branch;
mod cat;
mod check;
mod completions;
mod daemon;
mod device;
mod diff;
mod doctor;
mod down;
mod export;
mod fork;
mod hive;
mod key;
mod lease;
mod log;
mod login;
mod ls;
mod man;
mod mount;
mod operation;
mod prune;
mod recover;
mod restore;
mod retain;
mod rollback;
mod snapshot;
mod status;
mod store;
mod sync;
mod unmount;
mod up;
pub mod volume;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::failure::{EXIT_CODES, Result};
use crate::state::State;

const AFTER_HELP: &str = "\
A moment (WHEN) is written as
  42                      the seal with this number
  head                    the newest seal
  before-upgrade          the newest snapshot with this tag
  7d0c2e4a                a snapshot by its uuid, or at least 4 digits of its beginning
  2026-11-21T18:00:00Z    the newest seal at or before this time
  \"2026-11-21 18:00\"      the same in local time; also \"today 09:30\", \"yesterday 18:00\"
  10m                     so long ago: s, m, h, d, w; also \"10m ago\"";

/// Encrypted volumes that can be mounted, snapshotted and trusted.
///
/// A volume is a file tree under one key. Everything written to it is encrypted; every moment that was
/// sealed can be opened again, as a folder (.snapshots in each mount) or with the commands below.
///
///   comb volume create photos
///   comb mount photos ~/photos
///   comb snapshot photos -m "before the clean-up"
///   comb restore "photos@yesterday 18:00:/2026/a.jpg"
#[derive(Debug, Parser)]
#[command(name = "comb", version, after_help = EXIT_CODES, after_long_help = format!("{AFTER_HELP}\n\n{EXIT_CODES}"))]
#[command(
    verbatim_doc_comment,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Comb {
    /// The folder that holds volumes and keys [default: /var/lib/comb for root, else the XDG data folder]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub state: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    Mount(mount::MountArgs),
    #[command(alias = "umount")]
    Unmount(unmount::UnmountArgs),
    Lease(lease::LeaseArgs),
    Snapshot(snapshot::SnapshotArgs),
    Log(log::LogArgs),
    Diff(diff::DiffArgs),
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    Restore(restore::RestoreArgs),
    Export(export::ExportArgs),
    Rollback(rollback::RollbackArgs),
    Fork(fork::ForkArgs),
    #[command(subcommand)]
    Key(key::KeyCommand),
    Recover(recover::RecoverArgs),
    Retain(retain::RetainArgs),
    Prune(prune::PruneArgs),
    Status(status::StatusArgs),
    Login(login::LoginArgs),
    #[command(subcommand)]
    Account(account::AccountCommand),
    #[command(subcommand)]
    Device(device::DeviceCommand),
    #[command(subcommand)]
    App(app::AppCommand),
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    #[command(subcommand)]
    Branch(branch::BranchCommand),
    #[command(subcommand)]
    Store(store::StoreCommand),
    Sync(sync::SyncArgs),
    Check(check::CheckArgs),
    #[command(subcommand)]
    Hive(hive::HiveCommand),
    Up(up::UpArgs),
    Down(down::DownArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(hide = true)]
    Daemon(daemon::DaemonArgs),
}

/// Runs the command.
pub fn run(comb: Comb) -> Result<()> {
    let folder = comb.state.clone();
    run_command(comb).map_err(|failure| match State::locate(folder.as_deref()) {
        Ok(state) => state.explain(failure),
        Err(_) => failure,
    })
}

fn run_command(comb: Comb) -> Result<()> {
    let located = || State::locate(comb.state.as_deref());
    // Whatever is made in the state folder is for its owner alone, also by the engine. Modes of files in a
    // mount are the business of those who make them there.
    let state = || {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        located()
    };
    match comb.command {
        Command::Volume(command) => volume::run(&state()?, command),
        Command::Mount(args) => mount::run(&state()?, args),
        Command::Unmount(args) => unmount::run(&state()?, &args),
        Command::Lease(args) => lease::run(&state()?, &args),
        Command::Snapshot(args) => snapshot::run(&state()?, args),
        Command::Log(args) => log::run(&state()?, &args),
        Command::Diff(args) => diff::run(&state()?, &args),
        Command::Ls(args) => ls::run(&state()?, &args),
        Command::Cat(args) => cat::run(&state()?, &args),
        Command::Restore(args) => restore::run(&located()?, &args),
        Command::Export(args) => export::run(&located()?, &args),
        Command::Rollback(args) => rollback::run(&state()?, &args),
        Command::Fork(args) => fork::run(&state()?, &args),
        Command::Key(command) => key::run(&state()?, command),
        Command::Recover(args) => recover::run(&state()?, &args),
        Command::Retain(args) => retain::run(&state()?, &args),
        Command::Prune(args) => prune::run(&state()?, &args),
        Command::Status(args) => status::run(&state()?, &args),
        Command::Login(args) => login::run(&state()?, &args),
        Command::Account(command) => account::run(&state()?, command),
        Command::Device(command) => device::run(&state()?, command),
        Command::App(command) => app::run(&state()?, command),
        Command::Operation(command) => operation::run(&state()?, command),
        Command::Branch(command) => branch::run(&state()?, &command),
        Command::Store(command) => store::run(&state()?, command),
        Command::Sync(args) => sync::run(&state()?, &args),
        Command::Check(args) => check::run(&state()?, &args),
        Command::Hive(command) => hive::run(&state()?, command),
        Command::Up(args) => up::run(&state()?, &args),
        Command::Down(args) => down::run(&state()?, &args),
        Command::Doctor(args) => doctor::run(&state()?, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Daemon(args) => daemon::run(&state()?, args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Comb::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_is_for() {
        fn visit(command: &clap::Command) {
            for child in command.get_subcommands() {
                assert!(
                    child.get_about().is_some() || child.is_hide_set(),
                    "`{}` has no help",
                    child.get_name()
                );
                for arg in child.get_arguments() {
                    assert!(
                        arg.get_help().is_some(),
                        "`{}` of `{}` has no help",
                        arg.get_id(),
                        child.get_name()
                    );
                }
                visit(child);
            }
        }
        visit(&Comb::command());
    }
}
