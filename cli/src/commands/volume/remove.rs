//! `comb volume remove`.

use clap::Args;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::report::StoreReport;
use crate::state::{State, VolumeFolder};
use crate::{engine, output, resting};

/// Remove a volume with its key and its whole past
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The volume
    name: VolumeName,

    /// Say that the data and the key on this machine may go
    #[arg(long)]
    yes: bool,
}

/// What would be lost of a volume, as far as that can be told here without a question to a store: no word where all is in one.
fn in_no_store(state: &State, volume: &VolumeFolder) -> Result<String> {
    let config = volume.config()?;
    if config.stores.is_empty() {
        return Ok("; it is in no store".to_owned());
    }
    let reports = resting::reports(state, volume, &config, &engine::history_here(volume)?)?;
    let missing = |report: &StoreReport| match report.state.as_str() {
        // All of it came from there.
        "followed" => 0,
        _ => report.unsafe_bytes,
    };
    if reports.iter().all(|report| report.state == "unknown") {
        return Ok("; what of it is in a store is not known".to_owned());
    }
    let known = reports.iter().filter(|report| report.state != "unknown");
    Ok(match known.map(missing).min().unwrap_or(0) {
        0 => String::new(),
        bytes => format!(
            "; {} of it are in no store (`comb sync {}` sends them)",
            output::size(bytes),
            volume.name
        ),
    })
}

/// Removes a volume.
pub fn run(state: &State, args: &RemoveArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    for address in Address::all(&volume.path) {
        if let Some(report) = address.status()? {
            return Err(report.in_the_way(&volume.name));
        }
    }
    if let Some(branch) = volume.branches()?.first() {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("volume \"{}\" has branch \"{}\"", volume.name, branch.name),
        )
        .hint("`comb branch remove` removes it, `comb fork` makes a volume of it"));
    }
    if volume.name.branch().is_some() {
        return Err(Failure::new(Kind::Usage, format!("\"{}\" is a branch", volume.name))
            .hint("`comb branch remove` removes it"));
    }
    // Before the lock, which keeps it from being looked at. What is damaged may go, too.
    let lost = match args.yes {
        true => String::new(),
        false => in_no_store(state, &volume).unwrap_or_default(),
    };
    let lock = volume.lock()?;
    let views = volume.lock_out_views()?;
    if !args.yes {
        return Err(Failure::new(
            Kind::Usage,
            format!(
                "this destroys the data, the past and the key of \"{}\" on this machine{lost}",
                volume.name
            ),
        )
        .hint(format!("`comb volume key {} --out FILE` keeps the key; then add --yes", volume.name)));
    }
    state.remove(&volume, &lock, &views)?;
    output::note(&format!("volume \"{}\" is removed", volume.name));
    Ok(())
}
