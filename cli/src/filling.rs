//! Fetching everything of a volume that is in its store and not here, for a command that waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fs_replication::Filled;
use fs_store::Patient;
use indicatif::ProgressBar;

use crate::elsewhere;
use crate::failure::{Failure, Kind, Result};
use crate::state::VolumeFolder;
use crate::waits::Waits;
use crate::{engine, lazy_disk, output, stores};

/// How often it is looked at whether what is fetched goes on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a store may say nothing before that is told.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause before the pack table is read again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Fetches everything that is not here. Nothing for a volume that was not opened from a store.
///
/// A store that is away is waited for, and said to be. A disk without room ends it: nobody knows whether there will be some.
pub fn fill(volume: &VolumeFolder, bar: &ProgressBar) -> Result<Filled> {
    let door = elsewhere::door(volume)?;
    let Some((far, store)) = door.far.zip(door.store) else { return Ok(Filled::default()) };
    let (room, full) = (lazy_disk::room(&volume.path), Arc::new(OnceLock::new()));
    let noting = {
        let full = full.clone();
        Arc::new(move |bytes| {
            let fits = room(bytes);
            if !fits {
                let _ = full.set(());
            }
            fits
        })
    };
    let (env, folder, asked) = (door.env, volume.clone(), store.clone());
    let fetch = async move {
        let packs = loop {
            // Pages of the pack table lie in the store, too.
            let (env, folder) = (env.clone(), folder.clone());
            let read = move || engine::packs(&folder, &engine::history_through(env, &folder)?);
            match tokio::task::spawn_blocking(read)
                .await
                .map_err(|error| Failure::other(error.to_string()))?
            {
                Err(_) if last_error(&asked).is_some() => tokio::time::sleep(AGAIN_AFTER).await,
                packs => break packs?,
            }
        };
        Ok(far.fill(packs, noting).await)
    };
    let watch = async {
        let mut waits = Waits::begin();
        loop {
            if full.get().is_some() {
                return Failure::new(
                    Kind::NoSpace,
                    format!(
                        "not all of volume \"{}\" is fetched: the disk has too little room, of which {} stays free",
                        volume.name,
                        output::size(lazy_disk::room_left(&volume.path))
                    ),
                );
            }
            let is_silent = store.status().last_success.is_none_or(|ago| ago > SILENCE);
            let why = last_error(&store).or_else(|| is_silent.then(|| "it says nothing".into()));
            let why = why.map(|why| format!("the store: {why}"));
            waits.because(why.as_deref(), bar);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Not a runtime of its own, which would end only when the last read of a store has.
    stores::handle()?.block_on(async {
        tokio::select! { filled = fetch => filled, failure = watch => Err(failure) }
    })
}

/// The error that a store answered with last.
fn last_error(store: &Patient) -> Option<String> {
    let status = store.status();
    let (error, ago) = status.last_error?;
    status.last_success.is_none_or(|success| ago < success).then(|| error.to_string())
}
