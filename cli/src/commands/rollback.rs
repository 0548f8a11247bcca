//! `comb rollback`.

use std::ffi::OsString;

use clap::Args;

use crate::control::Address;
use crate::failure::Result;
use crate::place::Place;
use crate::report::SealReport;
use crate::state::State;
use crate::{engine, output};

/// Make a volume what it was at a moment
///
/// Nothing is lost: what the volume holds now is sealed first and stays a moment like any other. The
/// volume must not be mounted.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The volume and the moment
    #[arg(value_name = "NAME@WHEN")]
    place: OsString,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Rolls back.
pub fn run(state: &State, args: &RollbackArgs) -> Result<()> {
    let place = Place::parse(&args.place, &engine::now())?;
    place.path_refused("rollback")?;
    let when = place.when_required("rollback")?;
    let volume = state.volume(&place.name)?;
    if let Some(report) = Address::live(&volume.path).status()? {
        return Err(report.in_the_way(&volume.name));
    }
    let lock = volume.lock()?;
    let opened = engine::open_to_write(state, &volume, &lock)?;
    let failed = |error| engine::fs_failure(&volume.name, &error);

    // The moment is looked up before the seal, so that "head" means the newest seal the person could see.
    let to = engine::find(&volume, &opened.history(), when)?.info().clone();
    let before = opened.seal(None).map_err(failed)?;
    let head = opened.rollback(to.seq).map_err(failed)?;
    if args.json {
        return output::json(&SealReport::from(&head));
    }
    output::line(&format!(
        "volume \"{}\" is what it was at seq {} ({}); this is seq {}",
        volume.name,
        to.seq,
        output::time_local(to.time.0),
        head.seq
    ))?;
    output::note(&format!("`comb rollback {}@{}` takes it back", volume.name, before.seq));
    Ok(())
}
