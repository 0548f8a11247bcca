//! `comb store`: where a volume is replicated to.

mod add;
mod list;
mod moving;
mod reach;
mod remove;
mod set;
mod test;

use clap::Subcommand;
use fs_replication::Attached;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::output;
use crate::state::{State, VolumeFolder};
use crate::stores::StoreConfig;

/// Say where a volume is replicated to: S3, WebDAV, a folder and others
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    Add(add::AddArgs),
    List(list::ListArgs),
    Move(moving::MoveArgs),
    #[command(hide = true)]
    Reach(reach::ReachArgs),
    Remove(remove::RemoveArgs),
    Set(set::SetArgs),
    Test(test::TestArgs),
}

/// Runs the command.
pub fn run(state: &State, command: StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Add(args) => add::run(state, &args),
        StoreCommand::List(args) => list::run(state, &args),
        StoreCommand::Move(args) => moving::run(state, &args),
        StoreCommand::Reach(args) => reach::run(&args),
        StoreCommand::Remove(args) => remove::run(state, &args),
        StoreCommand::Set(args) => set::run(state, &args),
        StoreCommand::Test(args) => test::run(state, &args),
    }
}

/// The store of this name; the only one, if no name is given.
pub fn choose(volume: &VolumeFolder, name: Option<&str>) -> Result<StoreConfig> {
    let stores = volume.config()?.stores;
    let missing = |what: String| {
        Failure::new(Kind::NotFound, what).hint(format!("`comb store list {}` shows its stores", volume.name))
    };
    match name {
        Some(name) => stores
            .into_iter()
            .find(|store| store.name == name)
            .ok_or_else(|| missing(format!("volume \"{}\" has no store \"{name}\"", volume.name))),
        None => match stores.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(missing(format!("volume \"{}\" has no store", volume.name))),
            _ => Err(Failure::new(
                Kind::Usage,
                format!("volume \"{}\" has several stores: name one", volume.name),
            )),
        },
    }
}

/// Tells the daemon of a volume, if it is mounted, that its config has changed.
fn reload(volume: &VolumeFolder) -> Result<()> {
    Address::live(&volume.path).reload().map(drop)
}

/// The same; says what replicates a volume that is not mounted.
fn tell(volume: &VolumeFolder) -> Result<()> {
    if Address::live(&volume.path).reload()?.is_none() {
        output::note(&format!(
            "`comb mount {}` replicates while it is mounted, `comb sync {}` once",
            volume.name, volume.name
        ));
    }
    Ok(())
}

/// Says what a probe found wrong, if anything.
fn unfitness(attached: &Attached) -> Option<String> {
    attached.unfit.as_ref().map(ToString::to_string)
}
