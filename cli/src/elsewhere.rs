//! The part of a volume that is in its store and not here.

use std::path::Path;
use std::sync::Arc;

use fs_format::VolumeId;
use fs_replication::{Far, Filled, Limits};
use fs_store::{Patience, Patient, READ_TIME_MAX, Store};
use fs_volume::env::Env;

use crate::failure::{Context, Result};
use crate::lazy_disk::{self, LazyDisk};
use crate::state::VolumeFolder;
use crate::{engine, output, stores};

/// The way into a volume's folder, and to what is not in it.
pub struct Door {
    /// What the engine sees.
    pub env: Env,
    /// Where the rest is, for a volume that was opened from a store.
    pub far: Option<Far>,
}

/// The door of a volume.
///
/// Where its store cannot be opened, what is here can be read all the same. So it is where the
/// config is damaged, which whoever needs it says.
pub fn door(volume: &VolumeFolder) -> Result<Door> {
    let env = engine::environment(&volume.path);
    let Ok(config) = volume.config() else { return Ok(Door { env, far: None }) };
    let Some(store) = config.stores.iter().find(|store| config.from_store && store.arbiter) else {
        return Ok(Door { env, far: None });
    };
    match stores::block_on(stores::open(&store.url)) {
        Ok(opened) => {
            let far = far(&opened, volume.id, &volume.path)?;
            let disk = Arc::new(LazyDisk::new(env.disk.clone(), far.clone()));
            Ok(Door { env: Env { disk, ..env }, far: Some(far) })
        }
        Err(failure) => {
            output::note(&format!("warning: only what is here can be read: {}", failure.message));
            Ok(Door { env, far: None })
        }
    }
}

/// What a volume has in a store, for reading here what is there.
pub fn far(store: &Patient, volume: VolumeId, folder: &Path) -> Result<Far> {
    let reading: Arc<dyn Store> = Arc::new(store.with(Patience::Within(READ_TIME_MAX)));
    Far::new(reading, volume, folder, stores::handle()?, Limits::default()).context(folder.display())
}

/// Fetches everything that is not here; waits for it. Nothing for a volume that was not opened from a store.
pub fn fill(volume: &VolumeFolder) -> Result<Filled> {
    let door = door(volume)?;
    let Some(far) = door.far else { return Ok(Filled::default()) };
    let history = engine::history_through(door.env.clone(), volume)?;
    let packs = engine::packs(volume, &history)?;
    stores::block_on(async { Ok(far.fill(packs, lazy_disk::room(door.env.disk)).await) })
}
