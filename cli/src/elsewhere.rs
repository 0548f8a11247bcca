//! The part of a volume that is in its store and not here.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fs_format::manifest::manifest_id;
use fs_format::{Seq, VolumeId};
use fs_replication::{Far, Filled, Limits, Link, Verdict};
use fs_store::{Patience, Patient, READ_TIME_MAX, Store};
use fs_volume::env::Env;
use indicatif::ProgressBar;

use crate::failure::{Context, Failure, Kind, Result};
use crate::lazy_disk::{self, LazyDisk};
use crate::replica::Seen;
use crate::state::VolumeFolder;
use crate::stores::StoreConfig;
use crate::waits::Waits;
use crate::{engine, output, stores, takeover};

/// How often it is looked at whether what is fetched goes on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a store may say nothing before that is told.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause before the pack table is read again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The way into a volume's folder, and to what is not in it.
pub struct Door {
    /// What the engine sees.
    pub env: Env,
    /// Where the rest is, for a volume that was opened from a store.
    pub far: Option<Far>,
    /// That store.
    store: Option<Patient>,
}

/// The door of a volume.
///
/// What is here can be read while its store is away. So it can where the config is damaged, which whoever needs
/// it says.
pub fn door(volume: &VolumeFolder) -> Result<Door> {
    let env = engine::environment(&volume.path);
    let Ok(config) = volume.config() else { return Ok(Door { env, far: None, store: None }) };
    let Some(store) = config.stores.iter().find(|store| config.from_store && store.arbiter) else {
        return Ok(Door { env, far: None, store: None });
    };
    let store = stores::later(&store.url, volume.id)?;
    let far = far(&store, volume.id, &volume.path)?;
    let disk = Arc::new(LazyDisk::new(env.disk.clone(), far.clone()));
    Ok(Door { env: Env { disk, ..env }, far: Some(far), store: Some(store) })
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

/// Fetches everything that is not here. Nothing for a volume that was not opened from a store.
///
/// A store that is away is waited for, and said to be. A disk without room ends it: nobody knows whether there will be some.
pub fn fill(volume: &VolumeFolder, bar: &ProgressBar) -> Result<Filled> {
    let door = door(volume)?;
    let Some((far, store)) = door.far.zip(door.store) else { return Ok(Filled::default()) };
    let (room, full) = (lazy_disk::room(door.env.disk.clone()), Arc::new(OnceLock::new()));
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
                        "not all of volume \"{}\" is fetched: the disk has too little room, of which 1 GiB stays free",
                        volume.name
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
