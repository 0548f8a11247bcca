//! The part of a volume that is in its store and not here.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fs_format::manifest::manifest_id;
use fs_format::{Seq, VolumeId};
use fs_replication::{Far, Head, Limits, Link, Slot, Verdict};
use fs_store::{Abilities, Entry, Name, Patience, Patient, Prefix, READ_TIME_MAX, Store, StoreError};
use fs_volume::env::Env;
use fs_volume::manifest_path;
use parking_lot::Mutex;

use crate::failure::{Context, Failure, Kind, Result};
use crate::lazy_disk::{self, LazyDisk};
use crate::notes::{Ended, Seen, Unseen};
use crate::state::VolumeFolder;
use crate::stores::StoreConfig;
use crate::{engine, output, stores};

/// How long a look at what a store shows may take, for whoever can go on with what was seen last.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(5);

/// The most that is held in memory of what comes for a copy, in bytes: a file that was overwritten here and there lies in many packs,
/// and who copies it comes to each of them again and again.
const COPY_HELD_BYTES: u64 = 256 << 20;

/// The way into a volume's folder, and to what is not in it.
#[derive(Clone)]
pub struct Door {
    /// What the engine sees.
    pub env: Env,
    /// The same: where the rest is may become known later.
    pub disk: Arc<LazyDisk>,
    /// Where the rest is, for a volume of which not all is here.
    pub far: Option<Far>,
    /// That store.
    pub store: Option<Patient>,
}

/// The door of a volume, for a mount.
///
/// What is here can be read while its store is away. So it can where the config is damaged, which whoever needs
/// it says.
pub fn door(volume: &VolumeFolder) -> Result<Door> {
    let find = |volume: &VolumeFolder| -> Result<Option<(Far, Patient)>> {
        let Some(url) = source(volume) else { return Ok(None) };
        let store = stores::later(&url, volume.id)?;
        Ok(Some((far(&store, volume.id, &volume.path)?, store)))
    };
    let (far, store) = find(volume)?.unzip();
    let (env, disk) = lazily(volume, far.clone(), move |volume| Ok(find(volume)?.map(|(far, _)| far)));
    Ok(Door { env, disk, far, store })
}

/// The same for a command, which waits for a store that never answered no longer than a person likes to.
pub fn door_of_command(volume: &VolumeFolder) -> Result<Env> {
    door_with(volume, Limits { first: FOLLOW_TIME_MAX, ..limits() })
}

/// The same for a command that copies what it reads to somewhere else: nothing of it is kept here.
pub fn door_of_copy(volume: &VolumeFolder) -> Result<Env> {
    door_with(volume, Limits { first: FOLLOW_TIME_MAX, is_kept: false, held: COPY_HELD_BYTES, ..limits() })
}

fn door_with(volume: &VolumeFolder, limits: Limits) -> Result<Env> {
    let find = move |volume: &VolumeFolder| -> Result<Option<Far>> {
        let Some(url) = source(volume) else { return Ok(None) };
        // What is tried again is decided by who reads.
        let store = stores::later(&url, volume.id)?.with(Patience::Once);
        let far = Far::new(Arc::new(store), volume.id, &volume.path, stores::handle()?, limits);
        far.map(Some).context(volume.path.display())
    };
    Ok(lazily(volume, find(volume)?, find).0)
}

/// The same for who asks no store: what is not here cannot be read.
pub fn door_of_what_is_here(volume: &VolumeFolder) -> Result<Env> {
    let find = |volume: &VolumeFolder| -> Result<Option<Far>> {
        if source(volume).is_none() {
            return Ok(None);
        }
        let limits = Limits { read: Duration::ZERO, first: Duration::ZERO, ..limits() };
        let far = Far::new(Arc::new(Unasked), volume.id, &volume.path, stores::handle()?, limits);
        far.map(Some).context(volume.path.display())
    };
    Ok(lazily(volume, find(volume)?, find).0)
}

/// A door that finds out where the rest is when something is missed: packs may leave the volume while it is open.
fn lazily(
    volume: &VolumeFolder,
    far: Option<Far>,
    find: impl Fn(&VolumeFolder) -> Result<Option<Far>> + Send + Sync + 'static,
) -> (Env, Arc<LazyDisk>) {
    let (env, volume) = (fs_volume::real::env(&volume.path), volume.clone());
    let find = move || {
        find(&volume).unwrap_or_else(|failure| {
            tracing::error!("what is not here cannot be read: {}", failure.message);
            None
        })
    };
    let disk = Arc::new(LazyDisk::with(env.disk.clone(), far, Box::new(find)));
    (Env { disk: disk.clone(), ..env }, disk)
}

/// Where the rest of a volume is, if not all of it is here.
fn source(volume: &VolumeFolder) -> Option<String> {
    let config = volume.config().ok().filter(|config| config.from_store)?;
    config.stores.into_iter().find(|store| store.arbiter).map(|store| store.url)
}

fn limits() -> Limits {
    Limits { is_given_up: fs_fuse::asker_was_killed, has_room: lazy_disk::has_room, ..Limits::default() }
}

/// A store that nobody asks.
#[derive(Debug)]
struct Unasked;

impl Unasked {
    fn refuse<T>(action: &'static str, object: impl ToString) -> std::result::Result<T, StoreError> {
        Err(StoreError::new(
            fs_store::Kind::Unreachable,
            action,
            object.to_string(),
            "it is not here, and no store is asked",
        ))
    }
}

#[async_trait]
impl Store for Unasked {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: false }
    }

    async fn create(&self, name: &Name, _: Bytes) -> std::result::Result<(), StoreError> {
        Self::refuse("create", name)
    }

    async fn get(&self, name: &Name, _: u64) -> std::result::Result<Bytes, StoreError> {
        Self::refuse("get", name)
    }

    async fn get_range(&self, name: &Name, _: Range<u64>) -> std::result::Result<Bytes, StoreError> {
        Self::refuse("get", name)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        _: Option<&Name>,
        _: usize,
    ) -> std::result::Result<Vec<Entry>, StoreError> {
        Self::refuse("list", prefix)
    }

    async fn remove(&self, name: &Name) -> std::result::Result<(), StoreError> {
        Self::refuse("remove", name)
    }
}

/// What a volume has in a store, for reading here what is there.
pub fn far(store: &Patient, volume: VolumeId, folder: &Path) -> Result<Far> {
    let reading: Arc<dyn Store> = Arc::new(store.with(Patience::Within(READ_TIME_MAX)));
    Far::new(reading, volume, folder, stores::handle()?, limits()).context(folder.display())
}

/// A store that was looked at, and what it shows.
pub struct Recognised {
    /// The store.
    pub store: Patient,
    /// Its newest seal, and its greatest claim.
    pub head: Head,
    /// From which seal on the volume goes on there otherwise than was seen.
    pub cut: Option<Seq>,
}

/// Opens the store of a volume, after a look whether it is the one that it was attached to, and whether what it shows follows
/// what was seen there. What it shows is seen from then on.
pub fn recognised(volume: &VolumeFolder, store: &StoreConfig) -> Result<Recognised> {
    recognise(volume, store, Wait::Long)
}

/// How long a store is waited for.
enum Wait {
    /// As each request allows.
    Long,
    /// No longer than whoever can go on without it likes to.
    Short,
}

fn recognise(volume: &VolumeFolder, store: &StoreConfig, how: Wait) -> Result<Recognised> {
    let (id, seen) =
        (store.store_id()?, Seen::read(volume, &store.name)?.map(|seen| seen.link()).transpose()?);
    let own = |seq: Seq| fs::read(volume.path.join(manifest_path(seq))).ok().map(|own| manifest_id(&own));
    let (opened, head, verdict) = stores::block_on(async {
        let asked = async {
            let opened = stores::open_to_read(&store.url, volume.id).await?;
            let remote = stores::remote(&opened, volume.id);
            remote.recognise(id).await?;
            let (head, verdict) = remote.judged(seen.as_ref(), &own).await?;
            Ok((opened, head, verdict))
        };
        match how {
            Wait::Long => asked.await,
            Wait::Short => in_time(store, asked).await,
        }
    })?;
    let cut = match verdict {
        Verdict::Accepted => None,
        Verdict::Takeover { cut } => {
            output::note(&format!(
                "warning: another device took volume \"{}\" over when store \"{}\" had forgotten seal {cut} and all after it",
                volume.name, store.name
            ));
            Some(cut)
        }
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
            .hint(format!(
                "see what happened to the store; `comb volume open {} --accept-rollback`, with --read-only to look only, \
                 believes what it shows now",
                volume.name
            )));
        }
    };
    if let Some(newest) = &head.newest {
        Seen::of(&newest.link()).write(volume, &store.name)?;
    }
    Unseen::note(volume, &store.name, None);
    Ok(Recognised { store: opened, head, cut })
}

/// Finds out anew what ended the right of this machine to write a volume of which a store's newest seal is `newest`: the first
/// seal here that the store does not have. Too early a one only makes the branch longer.
pub fn find_end(volume: &VolumeFolder, store: &Patient, newest: &Slot) -> Result<Ended> {
    let manifests = volume.path.join("manifests");
    let mut seqs = Vec::new();
    for entry in fs::read_dir(&manifests).context(manifests.display())? {
        let name = entry.context(manifests.display())?.file_name();
        seqs.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    seqs.sort_unstable();
    let remote = stores::remote(store, volume.id);
    let mut at = seqs.first().copied().unwrap_or(1);
    for &seq in seqs.iter().rev().filter(|seq| **seq <= newest.seq.0) {
        let own = volume.path.join(manifest_path(Seq(seq)));
        let own = fs::read(&own).context(own.display())?;
        let is_there = stores::block_on(async {
            match remote.slot(Seq(seq)).await {
                Ok(slot) => Ok(slot.bytes == own),
                Err(fs_replication::Error::Store(error)) if error.kind() == fs_store::Kind::Absent => {
                    Ok(false)
                }
                Err(error) => Err(Failure::from(error)),
            }
        })?;
        if is_there {
            at = seq + 1;
            break;
        }
    }
    Ok(Ended { by: newest.epoch.0, at, noticed: jiff::Timestamp::now().to_string(), parted: false })
}

/// What came of looks at what a store shows.
#[derive(Debug, Clone)]
pub struct Look {
    /// When it answered last, in nanoseconds since 1970, also to a process before this one; when it was first asked, if it never
    /// did.
    pub seen: i64,
    /// Why it did not answer the last time, or not as it should, and when that was.
    pub failure: Option<(Failure, Instant)>,
}

/// The looks of this process, by the volume's folder.
static LOOKS: Mutex<BTreeMap<PathBuf, Look>> = Mutex::new(BTreeMap::new());

/// What came of the looks of this process at the store of a volume that only looks; none if there were none.
pub fn last_look(volume: &VolumeFolder) -> Option<Look> {
    LOOKS.lock().get(&volume.path).cloned()
}

/// Brings a volume that only looks up to what its store shows now. Says whether that was more than was known.
pub fn follow(volume: &VolumeFolder) -> Result<bool> {
    let config = volume.config()?;
    let Some(store) = config.stores.iter().find(|store| config.from_store && store.arbiter) else {
        return Ok(false);
    };
    let asked = engine::now_nanos();
    let followed = follow_store(volume, store);
    let mut looks = LOOKS.lock();
    let noted = Unseen::since(volume, &store.name);
    let look = looks
        .entry(volume.path.clone())
        .or_insert_with(|| Look { seen: noted.unwrap_or(asked), failure: None });
    match &followed {
        Ok(_) => {
            *look = Look { seen: engine::now_nanos(), failure: None };
            Unseen::note(volume, &store.name, None);
        }
        Err(failure) => {
            look.failure = Some((failure.clone(), Instant::now()));
            if noted.is_none_or(|noted| look.seen < noted) {
                Unseen::note(volume, &store.name, Some(look.seen));
            }
        }
    }
    followed
}

fn follow_store(volume: &VolumeFolder, store: &StoreConfig) -> Result<bool> {
    if is_newest(volume, store)? {
        return Ok(false);
    }
    let Recognised { store, head, cut } = recognise(volume, store, Wait::Short)?;
    let Some(newest) = head.newest else { return Ok(false) };
    if fs::read(volume.path.join("head")).is_ok_and(|head| head == newest.bytes) {
        return Ok(false);
    }
    let far = far(&store, volume.id, &volume.path)?;
    lazy_disk::prepare_at(&volume.path, &far, newest.seq, &newest.bytes).context(volume.path.display())?;
    if let Some(cut) = cut {
        forget_manifests(volume, cut, newest.seq)?;
    }
    Ok(true)
}

/// Removes the manifests from this seal on, but for the newest, of a volume that only looks: the store has others, or none.
pub fn forget_manifests(volume: &VolumeFolder, from: Seq, newest: Seq) -> Result<()> {
    let manifests = volume.path.join("manifests");
    for entry in fs::read_dir(&manifests).context(manifests.display())? {
        let entry = entry.context(manifests.display())?;
        let seq = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
        if seq.is_some_and(|seq| seq >= from.0 && seq != newest.0) {
            fs::remove_file(entry.path()).context(entry.path().display())?;
        }
    }
    Ok(())
}

/// Whether the newest seal that is known here is that of the store still, by its number: one request.
fn is_newest(volume: &VolumeFolder, store: &StoreConfig) -> Result<bool> {
    let Some(seen) = Seen::read(volume, &store.name)?.map(|seen| seen.link()).transpose()? else {
        return Ok(false);
    };
    let head = fs::read(volume.path.join("head"));
    if !head.is_ok_and(|head| manifest_id(&head) == seen.id) {
        return Ok(false);
    }
    let newest = stores::block_on(async {
        let asked = async {
            let opened = stores::open_to_read(&store.url, volume.id).await?;
            Ok(stores::remote(&opened, volume.id).slots(None, 1).await?)
        };
        in_time(store, asked).await
    })?;
    Ok(newest.first() == Some(&seen.seq))
}

/// What the store of a volume shows as its newest, if it is that store, and says so soon. Nothing is seen by that.
pub fn head_soon(volume: &VolumeFolder, store: &StoreConfig) -> Result<Head> {
    let id = store.store_id()?;
    stores::block_on(in_time(store, async {
        let opened = stores::open_to_read(&store.url, volume.id).await?;
        let remote = stores::remote(&opened, volume.id);
        remote.recognise(id).await?;
        Ok(remote.head().await?)
    }))
}

/// Waits for a store, but not for long.
async fn in_time<T>(store: &StoreConfig, asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(FOLLOW_TIME_MAX, asked).await.unwrap_or_else(|_| {
        let seconds = FOLLOW_TIME_MAX.as_secs();
        let what = format!("store \"{}\" did not answer within {seconds} s", store.name);
        Err(Failure::new(Kind::Unreachable, what))
    })
}

/// The same for a command that goes on with what is known if that fails; says why it failed.
pub fn refresh(volume: &VolumeFolder) -> Option<Failure> {
    // What is wrong with the config is said by whoever needs it.
    let is_follower = volume.config().is_ok_and(|config| config.follows && config.from_store);
    if !is_follower {
        return None;
    }
    let failure = follow(volume).err()?;
    output::warn_once(&format!("showing what was seen last: {}", failure.message));
    Some(failure)
}

/// Why it is not known what was seen of the store from which a volume is only read, if it is not.
pub fn unknown(volume: &VolumeFolder) -> Option<Failure> {
    let config = volume.config().ok().filter(|config| config.follows && config.from_store)?;
    let store = config.stores.iter().find(|store| store.arbiter)?;
    Seen::read(volume, &store.name).err()
}
