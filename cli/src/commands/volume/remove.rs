//! `comb volume remove`.

use clap::Args;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output;
use crate::state::State;

/// Remove a volume with its key and its whole past
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The volume
    name: VolumeName,

    /// Say that the data and the key on this machine may go
    #[arg(long)]
    yes: bool,
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
    let lock = volume.lock()?;
    let views = volume.lock_out_views()?;
    if !args.yes {
        return Err(Failure::new(
            Kind::Usage,
            format!("this destroys the data, the past and the key of \"{}\" on this machine", volume.name),
        )
        .hint(format!("`comb volume key {} --out FILE` keeps the key; then add --yes", volume.name)));
    }
    state.remove(&volume, &lock, &views)?;
    output::note(&format!("volume \"{}\" is removed", volume.name));
    Ok(())
}
