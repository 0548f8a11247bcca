//! `comb store remove`.

use clap::Args;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output;
use crate::state::State;

/// Replicate a volume to a store no more; what is there stays there
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The volume
    name: VolumeName,

    /// The store
    store: VolumeName,
}

/// Takes a store out of the volume's config.
pub fn run(state: &State, args: &RemoveArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let store = super::choose(&volume, Some(args.store.as_str()))?;
    state.change_config(&volume, |config| {
        if store.arbiter && config.stores.len() > 1 {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("store \"{}\" decides who may write volume \"{}\"", store.name, volume.name),
            )
            .hint("remove the copies first"));
        }
        config.stores.retain(|one| one.name != store.name);
        Ok(())
    })?;
    output::line(&format!(
        "volume \"{}\" goes to store \"{}\" no more; what is there stays there",
        volume.name, store.name
    ))?;
    super::tell(&volume)
}
