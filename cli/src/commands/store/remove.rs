//! `comb store remove`.

use clap::Args;
use fs_format::manifest::PackEntry;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::notes::{self, Seen};
use crate::state::{State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::{elsewhere, engine, filling, output, progress};

/// Replicate a volume to a store no more; what is there stays there
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The volume
    name: VolumeName,

    /// The store
    store: VolumeName,

    /// Say that the store may go though another device took the volume over there, or writes the volume that is followed here
    #[arg(long)]
    yes: bool,
}

/// Refuses to part without a word from a store in which another device took the volume over: this one would go on by itself, and
/// nobody would tell it any more. One that does not answer tells nothing.
pub fn refuse_taken_over(volume: &VolumeFolder, store: &StoreConfig) -> Result<()> {
    let Ok(head) = elsewhere::head_soon(volume, store) else { return Ok(()) };
    let here = engine::epoch(volume, &engine::history_here(volume)?)?;
    if head.epoch() <= here {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Usage,
        format!(
            "another device took volume \"{0}\" over in store \"{1}\", with epoch {2}: without the store this one goes on from epoch \
             {here} by itself, and what the two write never comes together again",
            volume.name,
            store.name,
            head.epoch()
        ),
    )
    .hint(format!(
        "`comb sync {0}` ends the writing here and keeps what only this machine has, and `comb volume open {0}` goes on from there; \
         or add --yes",
        volume.name
    )))
}

/// Why nobody parts without a word from a store in which another device is known to have taken the volume over: the way to go
/// on leads through it.
pub fn is_taken_over(volume: &VolumeFolder, store: &StoreConfig) -> Failure {
    let what = format!(
        "another device took volume \"{}\" over in store \"{}\": what only this machine has is in no store, and without this \
         one nobody sees what the other writes",
        volume.name, store.name
    );
    Failure::new(Kind::Usage, what).hint(format!(
        "`comb volume open {0}` keeps what only this machine has as a branch and goes on with the volume, with --read-only it follows \
         the other; or add --yes",
        volume.name
    ))
}

/// Why nobody parts without a word from the store through which the volume is followed: it would stay as it is for ever.
fn is_followed(volume: &VolumeFolder, store: &StoreConfig) -> Failure {
    let what = format!(
        "volume \"{}\" follows store \"{}\": without it nothing new is shown, and nobody writes it here",
        volume.name, store.name
    );
    Failure::new(Kind::Usage, what).hint(format!(
        "`comb fork {0}@head NEW` makes a volume of your own of what is here; or add --yes: `comb volume open {0} --store URL` opens it \
         from a store again",
        volume.name
    ))
}

/// Takes a store out of the volume's config.
pub fn run(state: &State, args: &RemoveArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let store = super::choose(&volume, Some(args.store.as_str()))?;
    if store.arbiter && !args.yes {
        if volume.config()?.follows {
            return Err(is_followed(&volume, &store));
        }
        if notes::is_fenced(&volume) {
            return Err(is_taken_over(&volume, &store));
        }
        refuse_taken_over(&volume, &store)?;
    }
    let is_source = volume.config()?.from_store && store.arbiter;
    if is_source {
        let bar = progress::waiting("fetching what is only there");
        let filled = filling::fill(&volume, &bar).map_err(|failure| match failure.kind {
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
    let needed = match is_source {
        true => engine::packs(&volume, &engine::history(&volume)?)?,
        false => Vec::new(),
    };
    state.change_config(&volume, |config| {
        // Nothing leaves the disk while the config is held.
        let is_away = |entry: &PackEntry| !volume.path.join("packs").join(entry.object.to_hex()).exists();
        if needed.iter().any(is_away) {
            return Err(Failure::new(
                Kind::NoSpace,
                format!(
                    "what was fetched of volume \"{}\" left the disk again for want of room",
                    volume.name
                ),
            )
            .hint(
                "make room, or raise `local_bytes` in the volume's config: the store stays until all is here",
            ));
        }
        if store.arbiter && config.stores.len() > 1 {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("store \"{}\" decides who may write volume \"{}\"", store.name, volume.name),
            )
            .hint(format!(
                "remove the copies first; or `comb store move {} URL` lets another store decide",
                volume.name
            )));
        }
        config.stores.retain(|one| one.name != store.name);
        config.from_store &= !is_source;
        config.evicted &= !is_source;
        Ok(())
    })?;
    output::line(&format!(
        "volume \"{}\" goes to store \"{}\" no more; what is there stays there",
        volume.name, store.name
    ))?;
    let told = super::tell(&volume);
    // Another store of this name has not seen what this one has. By now the daemon says no more of it.
    Seen::part(&volume, &store)?;
    told
}
