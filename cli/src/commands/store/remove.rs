//! `comb store remove`.

use clap::Args;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::replica::Seen;
use crate::state::State;
use crate::{elsewhere, output, progress};

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
    let is_source = volume.config()?.from_store && store.arbiter;
    if is_source {
        let bar = progress::waiting("fetching what is only there");
        let filled = elsewhere::fill(&volume, &bar).map_err(|failure| match failure.kind {
            Kind::NoSpace => failure.hint("make room: the store stays until all is here that only it has"),
            _ => failure,
        })?;
        bar.finish_and_clear();
        if let Some(missing) = filled.missing.first() {
            return Err(Failure::new(
                Kind::Damaged,
                format!(
                    "part of volume \"{}\" is in no other place, and cannot be fetched: {missing}",
                    volume.name
                ),
            )
            .hint("`comb check` names what is lost with it"));
        }
    }
    state.change_config(&volume, |config| {
        if store.arbiter && config.stores.len() > 1 {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("store \"{}\" decides who may write volume \"{}\"", store.name, volume.name),
            )
            .hint("remove the copies first"));
        }
        config.stores.retain(|one| one.name != store.name);
        config.from_store &= !is_source;
        Ok(())
    })?;
    // Another store of this name has not seen what this one has.
    Seen::forget(&volume, &store.name)?;
    output::line(&format!(
        "volume \"{}\" goes to store \"{}\" no more; what is there stays there",
        volume.name, store.name
    ))?;
    super::tell(&volume)
}
