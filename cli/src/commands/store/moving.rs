//! `comb store move`.

use std::time::Duration;

use clap::Args;
use fs_replication::StoreId;

use super::add::{self, AddArgs};
use super::remove::{is_taken_over, refuse_taken_over};
use super::{reload, unfitness};
use crate::commands::sync;
use crate::failure::{Failure, Kind, Result};
use crate::name::{VolumeName, parse_span};
use crate::notes::{self, Seen};
use crate::state::{State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::{engine, keys, output, progress, stores};

/// Replicate a volume to another store, which from then on decides who may write it
///
/// All of it is brought there first, while the present store still decides; then the new one takes its place, in one step. The
/// present one is told so, for whoever opens the volume from it, and is no store of the volume any more: what is there stays
/// there. Whatever is interrupted goes on when the same command is given again. Another machine that takes the volume over in the
/// old store in that moment parts from it; one that only looks on there sees nothing new any more.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The volume
    name: VolumeName,

    /// Where it is to go, as for `comb store add`; or a store of it that keeps a copy
    url: String,

    /// The present store keeps a copy
    #[arg(long)]
    keep: bool,

    /// How long to wait at most until all of it is there
    #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = parse_span)]
    limit: Duration,
}

/// Moves the volume.
pub fn run(state: &State, args: &MoveArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let url = stores::parse_url(&args.url)?;
    stores::refuse_own(state, &url)?;
    engine::refuse_others(&volume)?;
    let Some(before) = decides(&volume)? else {
        add::run(state, &AddArgs::new(&args.name, &url))?;
        return sync::wait(state, &args.name, args.limit);
    };
    if before.url == url {
        output::line(&format!(
            "store \"{}\" decides already who may write volume \"{}\"",
            before.name, volume.name
        ))?;
        return sync::wait(state, &args.name, args.limit);
    }
    if notes::is_fenced(&volume) {
        return Err(is_taken_over(&volume, &before));
    }
    refuse_taken_over(&volume, &before)?;
    refuse_unfit(&volume, &url)?;
    if volume.config()?.stores.iter().all(|store| store.url != url) {
        add::run(state, &AddArgs::new(&args.name, &url))?;
    }
    sync::wait(state, &args.name, args.limit)?;
    state.change_config(&volume, |config| {
        let is_there = |store: &StoreConfig| store.url == url || store.id == before.id;
        if config.stores.iter().filter(|store| is_there(store)).count() != 2 {
            return Err(Failure::new(Kind::InTheWay, "somebody else changed the volume's stores meanwhile")
                .hint(format!("`comb store list {}` shows them", volume.name)));
        }
        for store in &mut config.stores {
            store.arbiter = store.url == url;
        }
        Ok(())
    })?;
    reload(&volume)?;
    // By this the old store knows, too.
    sync::wait(state, &args.name, args.limit)?;
    output::line(&format!("{url} decides from now on who may write volume \"{}\"", volume.name))?;
    if args.keep {
        return output::line(&format!("store \"{}\" keeps a copy", before.name));
    }
    state.change_config(&volume, |config| {
        config.stores.retain(|store| store.id != before.id);
        Ok(())
    })?;
    output::line(&format!("it goes to store \"{}\" no more; what is there stays there", before.name))?;
    let told = reload(&volume);
    Seen::part(&volume, &before)?;
    told
}

/// The store that decides, if the volume has one.
fn decides(volume: &VolumeFolder) -> Result<Option<StoreConfig>> {
    Ok(volume.config()?.stores.into_iter().find(|store| store.arbiter))
}

/// Refuses a store that cannot say who writes, before anything goes there.
fn refuse_unfit(volume: &VolumeFolder, url: &str) -> Result<()> {
    let (fresh, key) = (StoreId(keys::chance()?), keys::load(volume)?);
    let bar = progress::waiting("probing the store");
    let attached = stores::block_on(async {
        let remote = stores::remote(&stores::open_to_write(url, &key).await?, volume.id);
        Ok(remote.attach(fresh).await?)
    });
    bar.finish_and_clear();
    match unfitness(&attached?) {
        None => Ok(()),
        Some(why) => {
            Err(Failure::new(Kind::Foreign, format!("{url} cannot decide who may write a volume: {why}"))
                .hint(format!("`comb store add {} {url}` keeps a copy there", volume.name)))
        }
    }
}
