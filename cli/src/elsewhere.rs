//! The part of a volume that is in its store and not here.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fs_format::manifest::manifest_id;
use fs_format::{Seq, VolumeId};
use fs_replication::{Far, Filled, Limits, Link, Verdict};
use fs_store::{Patience, Patient, READ_TIME_MAX, Store};
use fs_volume::env::Env;

use crate::failure::{Context, Failure, Kind, Result};
use crate::lazy_disk::{self, LazyDisk};
use crate::replica::Seen;
use crate::state::VolumeFolder;
use crate::stores::StoreConfig;
use crate::{engine, output, stores, takeover};

/// The way into a volume's folder, and to what is not in it.
pub struct Door {
    /// What the engine sees.
    pub env: Env,
    /// Where the rest is, for a volume that was opened from a store.
    pub far: Option<Far>,
}

/// The door of a volume.
///
/// What is here can be read while its store is away. So it can where the config is damaged, which whoever needs
/// it says.
pub fn door(volume: &VolumeFolder) -> Result<Door> {
    let env = engine::environment(&volume.path);
    let Ok(config) = volume.config() else { return Ok(Door { env, far: None }) };
    let Some(store) = config.stores.iter().find(|store| config.from_store && store.arbiter) else {
        return Ok(Door { env, far: None });
    };
    let far = far(&stores::later(&store.url, volume.id)?, volume.id, &volume.path)?;
    let disk = Arc::new(LazyDisk::new(env.disk.clone(), far.clone()));
    Ok(Door { env: Env { disk, ..env }, far: Some(far) })
}

/// What a volume has in a store, for reading here what is there.
pub fn far(store: &Patient, volume: VolumeId, folder: &Path) -> Result<Far> {
    let limits =
        Limits { is_given_up: fs_fuse::asker_was_killed, has_room: lazy_disk::has_room, ..Limits::default() };
    let reading: Arc<dyn Store> = Arc::new(store.with(Patience::Within(READ_TIME_MAX)));
    Far::new(reading, volume, folder, stores::handle()?, limits).context(folder.display())
}

/// Opens the store of a volume, after a look whether it is the one that it was attached to, and whether what it shows follows
/// what was seen there. What it shows is seen from then on. Returns its newest seal, too.
pub fn recognised(volume: &VolumeFolder, store: &StoreConfig) -> Result<(Patient, Seq)> {
    let (id, seen) =
        (store.store_id()?, Seen::read(volume, &store.name)?.map(|seen| seen.link()).transpose()?);
    let manifests = volume.path.join("manifests");
    let own =
        |seq: Seq| fs::read(manifests.join(format!("{:016x}", seq.0))).ok().map(|own| manifest_id(&own));
    let (opened, head, verdict) = stores::block_on(async {
        let opened = stores::open_to_read(&store.url, volume.id).await?;
        let remote = stores::remote(&opened, volume.id);
        let asked = async {
            remote.recognise(id).await?;
            remote.judged(seen.as_ref(), &own).await
        };
        let (head, verdict) = asked.await.map_err(|error| stores::replication_failure(&error))?;
        Ok((opened, head, verdict))
    })?;
    match verdict {
        Verdict::Accepted => {}
        Verdict::Takeover { cut } => output::note(&format!(
            "warning: another device took volume \"{}\" over when store \"{}\" had forgotten seal {cut} and all after it",
            volume.name, store.name
        )),
        Verdict::Refused { seen, head } => {
            let text = |link: &Link| {
                format!("seal {} of epoch {} ({})", link.seq, link.epoch, &link.id.to_hex()[..12])
            };
            return Err(Failure::new(
                Kind::Foreign,
                format!(
                    "store \"{}\" shows an old or a foreign state of volume \"{}\": {} was seen there, now its newest is {}",
                    store.name,
                    volume.name,
                    text(&seen),
                    head.as_ref().map_or("none".to_owned(), text)
                ),
            )
            .hint("see what happened to the store; --accept-rollback believes what it shows now"));
        }
    }
    let newest = head.newest.map(|newest| newest.link());
    if let Some(newest) = &newest {
        Seen::of(newest).write(volume, &store.name)?;
    }
    Ok((opened, newest.map_or(Seq(0), |newest| newest.seq)))
}

/// Brings a volume that only looks up to what its store shows.
pub fn follow(volume: &VolumeFolder, far: &Far) -> Result<()> {
    let config = volume.config()?;
    if let Some(store) = config.stores.iter().find(|store| store.arbiter) {
        recognised(volume, store)?;
    }
    takeover::begin(&volume.path, far).map(drop)
}

/// Fetches everything that is not here; waits for it. Nothing for a volume that was not opened from a store.
pub fn fill(volume: &VolumeFolder) -> Result<Filled> {
    let door = door(volume)?;
    let Some(far) = door.far else { return Ok(Filled::default()) };
    let history = engine::history_through(door.env.clone(), volume)?;
    let packs = engine::packs(volume, &history)?;
    stores::block_on(async { Ok(far.fill(packs, lazy_disk::room(door.env.disk)).await) })
}
