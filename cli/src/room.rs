//! Room: which packs leave this disk because stores have them, and how much may wait for stores.
//!
//! `fs/docs/replication.md`, section 7, says what is promised.
//!
//! Invariants
//! - A pack is removed only when every store of the volume has a seal that names it, and the one that decides has just listed
//!   it with its length.
//! - That what is not here is there is durable in the config before the first pack is removed; and no pack is removed while
//!   the config changes.
//! - Who waits for room waits while those stores take something that hold it back, and for some seconds without that, no
//!   longer: what another store takes makes no room.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use fs_format::PackId;
use fs_replication::{Far, WINDOWS};
use fs_volume::{FsError, Housekeeper, Volume};
use parking_lot::Mutex;

use crate::engine;
use crate::failure::{Context, Failure, Kind, Result};
use crate::lazy_disk::LazyDisk;
use crate::output;
use crate::replica::{Arbiter, Replicas, Taker};
use crate::report::RoomReport;
use crate::state::{Config, State, VolumeFolder};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the folder of packs is listed, which takes a while where there are many.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// The most that may wait for stores if nobody says otherwise, in bytes.
const WAITING_BYTES_MAX: u64 = 64 << 30;
/// The least that may, in bytes: less would be sealed and sent in crumbs.
const WAITING_BYTES_MIN: u64 = 16 << 20;
/// With less free on the disk, packs are evicted until there is more again, in bytes. A small disk keeps a part free.
const FREE_BYTES_MIN: u64 = 768 << 20;
const FREE_BYTES_WANTED: u64 = 1 << 30;
const FREE_PART_MIN: u64 = 4;
const FREE_PART_WANTED: u64 = 3;
/// What is evicted at once at least where somebody waits for room, in bytes.
const EVICTED_BYTES_MIN: u64 = 64 << 20;
/// Packs that are asked about in the store at once.
const ASKED_AT_ONCE: usize = 16;
/// The pause after nothing could leave, where nobody waits for it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long somebody waits for room while no store takes anything.
const HOPE: Duration = Duration::from_secs(10);
/// How long he waits before he tries again.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Who has not asked for room for so long has found some, or gave up.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// Makes room for a mounted volume that is written here.
pub struct Room {
    state: State,
    folder: VolumeFolder,
    volume: Weak<Volume>,
    replicas: Weak<Replicas>,
    disk: Arc<LazyDisk>,
    /// One at a time.
    evicting: Mutex<()>,
    known: Mutex<Known>,
}

struct Known {
    /// The config, and what the packs take on the disk; and when that was looked at.
    config: Option<Config>,
    local_bytes: u64,
    counted: Option<Instant>,
    /// What each store had taken when it was last looked at, and when that became more, or was about to.
    taken: HashMap<String, (u64, Instant)>,
    /// When a store last took something that holds back what waits for room.
    took: Instant,
    /// When somebody last asked for room, since when he asks, when there was none last, and whether there is no hope for it.
    asked: Option<Instant>,
    short_since: Instant,
    was_short: Instant,
    is_hopeless: bool,
    evicted_bytes: u64,
    /// Why nothing could be evicted, and when that was found.
    kept: Option<String>,
    failed: Option<Instant>,
}

impl Known {
    /// Nothing yet, and hope.
    fn begin() -> Self {
        let now = Instant::now();
        Self {
            config: None,
            local_bytes: 0,
            counted: None,
            taken: HashMap::new(),
            took: now,
            asked: None,
            short_since: now,
            was_short: now,
            is_hopeless: false,
            evicted_bytes: 0,
            kept: None,
            failed: None,
        }
    }

    /// Notes what stores took since they were last looked at. Hope comes from those alone that hold back what waits for room:
    /// at the bound from the one that lacks most, and on a full disk from those without which no more packs may leave.
    fn note_taken(&mut self, takers: &[Taker], is_over_bound: bool) {
        let now = Instant::now();
        let most = takers.iter().map(|taker| taker.lacks).max();
        let least = takers.iter().map(|taker| taker.replicated).min();
        for taker in takers {
            let (taken, took) = self.taken.entry(taker.name.clone()).or_insert((taker.taken, now));
            let has_taken = *taken != taker.taken;
            // A pack takes its time on a slow line; requests end by themselves where no bytes move.
            if has_taken || taker.is_sending && taker.failed.is_none_or(|failed| failed < *took) {
                (*taken, *took) = (taker.taken, now);
            }
            let holds_back = match is_over_bound {
                true => Some(taker.lacks) == most,
                false => Some(taker.replicated) == least,
            };
            if holds_back {
                self.took = self.took.max(*took);
                self.is_hopeless &= !has_taken;
            }
        }
    }
}

/// A file that may leave.
struct File {
    pack: PackId,
    bytes: u64,
    /// When it came here.
    since: SystemTime,
    is_whole: bool,
}

impl Room {
    /// Begins to make room, for as long as the volume is open.
    pub fn start(
        state: &State,
        folder: &VolumeFolder,
        volume: &Arc<Volume>,
        replicas: &Arc<Replicas>,
        disk: Arc<LazyDisk>,
    ) -> Result<Arc<Self>> {
        let room = Arc::new(Self {
            state: state.clone(),
            folder: folder.clone(),
            volume: Arc::downgrade(volume),
            replicas: Arc::downgrade(replicas),
            disk,
            evicting: Mutex::new(()),
            known: Mutex::new(Known::begin()),
        });
        volume.set_housekeeper(room.clone());
        let weak = Arc::downgrade(&room);
        let watch = move || {
            while let Some(room) = weak.upgrade().filter(|room| room.volume.strong_count() > 0) {
                room.look();
                drop(room);
                std::thread::sleep(LOOK_EVERY);
            }
        };
        std::thread::Builder::new().name("room".into()).spawn(watch).context("starting a thread")?;
        Ok(room)
    }

    /// The volume has other stores now.
    pub fn stores_changed(&self) {
        self.known.lock().counted = None;
        self.disk.look_again();
    }

    /// How it stands; nothing for a volume without stores.
    pub fn report(&self) -> Option<RoomReport> {
        let (volume, replicas) = (self.volume.upgrade()?, self.replicas.upgrade()?);
        // What was so a second ago need not be so any more.
        if let Some((free, _)) = self.free() {
            self.measure(&volume, &replicas, free);
        }
        let (waiting_bytes, waiting_bytes_max) = volume.waiting()?;
        let lacks = volume.lacks_on_disk(0).unwrap_or(0);
        let lacking = replicas.lacking();
        let known = self.known.lock();
        let report = RoomReport {
            local_bytes: known.local_bytes,
            waiting_bytes,
            waiting_bytes_max,
            evicted_bytes: known.evicted_bytes,
            held_up: None,
            refused: false,
        };
        let is_asked = known.asked.is_some_and(|at| at.elapsed() < FORGOTTEN);
        let is_hopeless = known.is_hopeless;
        let refused = is_hopeless.then(|| known.kept.clone());
        drop(known);
        let stores =
            if lacking.is_empty() { "its stores".into() } else { format!("store {}", lacking.join(", ")) };
        let waits = format!(
            "{} wait for {stores}, and {} may (`waiting_bytes` in the volume's config, else a third of the room)",
            output::size(waiting_bytes),
            output::size(waiting_bytes_max)
        );
        let test = format!("see that they take it (`comb store test {}`), or make room", self.folder.name);
        let held_up = match (waiting_bytes >= waiting_bytes_max, refused) {
            (true, Some(_)) => Some(format!("writes are REFUSED: {waits}; {test}")),
            (true, None) => Some(format!("writes wait: {waits}")),
            (false, Some(kept)) if lacks > 0 => {
                let kept = kept.unwrap_or_else(|| format!("it waits for {stores}"));
                Some(format!("writes are REFUSED: the disk is full, and what is here stays: {kept}; {test}"))
            }
            (false, None) if is_asked && lacks > 0 => {
                Some(format!("writes wait: the disk is full, and packs leave it when they are in {stores}"))
            }
            _ => None,
        };
        let refused = is_hopeless && held_up.is_some();
        Some(RoomReport { held_up, refused, ..report })
    }

    /// What is looked at every second.
    fn look(&self) {
        let (Some(volume), Some(replicas)) = (self.volume.upgrade(), self.replicas.upgrade()) else { return };
        let Some((free, total)) = self.free() else { return };
        self.measure(&volume, &replicas, free);
        let (local_bytes, most) = {
            let known = self.known.lock();
            (known.local_bytes, known.config.as_ref().and_then(|config| config.local_bytes))
        };
        let wanted = FREE_BYTES_WANTED.min(total / FREE_PART_WANTED).saturating_sub(free);
        if volume.lacks_on_disk(0).unwrap_or(0) == 0
            && volume.waiting().is_none_or(|(waiting, most)| waiting < most)
        {
            self.known.lock().is_hopeless = false;
        }
        let is_short = free < FREE_BYTES_MIN.min(total / FREE_PART_MIN);
        let beyond = most.map_or(0, |most| local_bytes.saturating_sub(most));
        let wanted = if is_short { wanted.max(beyond) } else { beyond };
        if wanted > 0 && volume.waiting().is_some() && self.may_try(AGAIN_AFTER) {
            self.evict(&volume, &replicas, wanted);
        }
    }

    /// Whether nothing failed to leave for so long.
    fn may_try(&self, pause: Duration) -> bool {
        self.known.lock().failed.is_none_or(|at| at.elapsed() >= pause)
    }

    /// Free room on the disk, and all of it, in bytes.
    fn free(&self) -> Option<(u64, u64)> {
        let disk = rustix::fs::statvfs(&self.folder.path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some((bytes(disk.f_bavail), bytes(disk.f_blocks)))
    }

    /// Tells the volume what waits and may wait, and notes whether stores take something.
    fn measure(&self, volume: &Volume, replicas: &Replicas, free: u64) {
        let takers = replicas.takers();
        let waiting = takers.iter().map(|taker| taker.lacks).max().unwrap_or(0);
        if self.known.lock().counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            let local_bytes = self.files().map(|file| file.bytes).sum();
            let config = self.folder.config();
            let mut known = self.known.lock();
            (known.counted, known.local_bytes) = (Some(Instant::now()), local_bytes);
            // What is wrong with it is said by whoever needs it.
            known.config = config.ok().or(known.config.take());
        }
        let mut known = self.known.lock();
        let has_stores =
            known.config.as_ref().is_some_and(|config| !config.stores.is_empty() && !config.follows);
        let told = known.config.as_ref().and_then(|config| config.waiting_bytes);
        let usual = ((free + known.local_bytes) / 3).min(WAITING_BYTES_MAX);
        volume.bound_waiting(waiting, has_stores.then_some(told.unwrap_or(usual).max(WAITING_BYTES_MIN)));
        let is_over_bound = volume.waiting().is_some_and(|(waiting, most)| waiting >= most);
        known.note_taken(&takers, is_over_bound);
    }

    /// Packs, and parts of packs, that are here and in nobody else's folder.
    fn files(&self) -> impl Iterator<Item = File> {
        let list = |part: &'static str| {
            let is_whole = part == "packs";
            let entries = std::fs::read_dir(self.folder.path.join(part)).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let pack = PackId::from_hex(entry.file_name().to_str()?)?;
                let meta = entry.metadata().ok()?;
                // A link of a fork's or a branch's takes no room here that could come back.
                (meta.nlink() == 1).then(|| File { pack, bytes: taken(&meta), since: came(&meta), is_whole })
            })
        };
        list("packs").chain(list(WINDOWS))
    }

    /// Evicts so many bytes, as far as that can be; returns how many.
    fn evict(&self, volume: &Volume, replicas: &Replicas, wanted: u64) -> u64 {
        let _one = self.evicting.lock();
        let mut evicted = 0;
        let outcome = self.try_evict(volume, replicas, wanted, &mut evicted);
        let mut known = self.known.lock();
        known.evicted_bytes += evicted;
        known.local_bytes = known.local_bytes.saturating_sub(evicted);
        known.is_hopeless &= evicted == 0;
        known.kept = match outcome {
            Ok(()) => None,
            Err(failure) => {
                known.failed = Some(Instant::now());
                if known.kept.as_ref() != Some(&failure.message) {
                    tracing::warn!("packs stay on a disk with little room: {}", failure.message);
                }
                Some(failure.message)
            }
        };
        if evicted > 0 {
            tracing::info!(bytes = evicted, "packs left the disk: the stores have them");
        }
        evicted
    }

    fn try_evict(&self, volume: &Volume, replicas: &Replicas, wanted: u64, evicted: &mut u64) -> Result<()> {
        let failed = |error: FsError| engine::fs_failure(&self.folder.name, &error);
        if volume.read_only_reason().is_some() {
            return Err(Failure::new(Kind::NotPermitted, "the volume is read-only"));
        }
        let Some(arbiter) = replicas.arbiter() else {
            return Err(Failure::new(Kind::Unreachable, "the store that decides is not open"));
        };
        // Others read the parts of it that they need from the one that decides; but a pack that a store lacks stays.
        let replicated = replicas.replicated().unwrap_or_default();
        let evictable = volume.evictable(replicated).map_err(failed)?;
        let mut files: Vec<File> =
            self.files().filter(|file| evictable.contains_key(&file.pack) || !file.is_whole).collect();
        files.sort_by_key(|file| file.since);
        // Nodes are needed to read anything: they leave last.
        let mut nodes = Vec::new();
        let mut chunks = Vec::new();
        for file in files {
            let holds_nodes = file.is_whole && volume.holds_nodes(&file.pack).unwrap_or(true);
            if holds_nodes { &mut nodes } else { &mut chunks }.push(file);
        }
        let leaving: Vec<File> = chunks.into_iter().chain(nodes).collect();
        let mut is_told = false;
        for batch in leaving.chunks(ASKED_AT_ONCE) {
            if *evicted >= wanted {
                return Ok(());
            }
            // No more than is wanted.
            let mut bytes = *evicted;
            let needed = batch.iter().take_while(|file| {
                let is_wanted = bytes < wanted;
                bytes += file.bytes;
                is_wanted
            });
            let batch: Vec<&File> = needed.collect();
            let whole: Vec<PackId> =
                batch.iter().filter(|file| file.is_whole).map(|file| file.pack).collect();
            let there = replicas.lengths(&arbiter, &whole)?;
            if !is_told && !whole.is_empty() {
                self.tell_config(&arbiter)?;
                is_told = true;
            }
            self.state.hold_config(&self.folder, |config| {
                for file in batch {
                    if self.remove(volume, config, &arbiter, &evictable, &there, file)? {
                        *evicted += file.bytes;
                    }
                }
                Ok(())
            })?;
        }
        match (*evicted, leaving.is_empty()) {
            (0, true) => Err(Failure::new(Kind::Behind, "no pack is here that every store has")),
            (0, false) => {
                let what = format!(
                    "store \"{}\" lacks packs that it had, or somebody reads what could leave; `comb check {}` tells",
                    arbiter.config.name, self.folder.name
                );
                Err(Failure::new(Kind::Behind, what))
            }
            _ => Ok(()),
        }
    }

    /// Says in the config, durably, that what is not here is in a store.
    fn tell_config(&self, arbiter: &Arbiter) -> Result<()> {
        let is_told = |config: &Config| config.from_store && config.evicted;
        if !is_told(&self.folder.config()?) {
            self.state.change_config(&self.folder, |config| {
                require(config, arbiter)?;
                (config.from_store, config.evicted) = (true, true);
                Ok(())
            })?;
        }
        // Before it is missed: who looks whether a pack is here knows that it may not be.
        self.disk.look();
        Ok(())
    }

    /// Removes a file, if it is in the store; while the config does not change.
    fn remove(
        &self,
        volume: &Volume,
        config: &Config,
        arbiter: &Arbiter,
        evictable: &HashMap<PackId, u64>,
        there: &HashMap<PackId, u64>,
        file: &File,
    ) -> Result<bool> {
        require(config, arbiter)?;
        if !file.is_whole {
            let dropped = self.disk.far().map_or(Ok(false), |far: Far| far.drop_windows(&file.pack));
            return dropped.context(self.folder.path.display());
        }
        if !(config.from_store && config.evicted) {
            return Ok(false);
        }
        let (pack, found) = (file.pack, there.get(&file.pack));
        if found != evictable.get(&pack) {
            tracing::error!(
                %pack,
                store = arbiter.config.name,
                ?found,
                "a pack stays on this disk, since the store does not have it as it must: `comb check --repair` puts it there"
            );
            return Ok(false);
        }
        volume.evict(&pack).map_err(|error| engine::fs_failure(&self.folder.name, &error))?;
        Ok(true)
    }
}

/// Refuses where another store decides by now, or another device writes.
fn require(config: &Config, arbiter: &Arbiter) -> Result<()> {
    let is_same = |store: &crate::stores::StoreConfig| store.arbiter && store.id == arbiter.config.id;
    match !config.follows && config.stores.iter().any(is_same) {
        true => Ok(()),
        false => Err(Failure::new(Kind::InTheWay, "the stores of the volume have changed")),
    }
}

/// What a file takes on the disk.
fn taken(meta: &Metadata) -> u64 {
    meta.blocks() * 512
}

fn came(meta: &Metadata) -> SystemTime {
    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Housekeeper for Room {
    fn find_room(&self, bytes: u64) -> bool {
        let (Some(volume), Some(replicas)) = (self.volume.upgrade(), self.replicas.upgrade()) else {
            return false;
        };
        let Some((free, _)) = self.free() else { return false };
        self.measure(&volume, &replicas, free);
        let lacks = volume.lacks_on_disk(bytes).unwrap_or(0);
        if volume.waiting().is_none() && lacks > 0 {
            // Nothing goes to stores any more.
            return false;
        }
        // A store that does not answer is not asked by each who waits.
        if lacks > 0
            && self.may_try(LOOK_EVERY)
            && self.evict(&volume, &replicas, lacks.max(EVICTED_BYTES_MIN)) > 0
        {
            return true;
        }
        {
            let mut known = self.known.lock();
            if known.asked.is_none_or(|at| at.elapsed() > FORGOTTEN) {
                known.short_since = Instant::now();
            }
            known.asked = Some(Instant::now());
            let (waiting, most) = volume.waiting().unwrap_or((0, u64::MAX));
            if lacks > 0 || waiting >= most {
                known.was_short = Instant::now();
                // Where nothing waits for a store, none will take it.
                known.is_hopeless |= waiting == 0 || known.took.max(known.short_since).elapsed() > HOPE;
                if known.is_hopeless {
                    return false;
                }
            } else if known.was_short.max(known.short_since).elapsed() > HOPE {
                // What was short a moment ago need not be any more; but who finds no room for so long lacks something else.
                return false;
            }
        }
        replicas.send_now();
        std::thread::sleep(TRY_AGAIN);
        true
    }

    fn is_hopeful(&self) -> bool {
        let known = self.known.lock();
        let has_stores = known.config.as_ref().is_some_and(|config| !config.stores.is_empty());
        has_stores && !known.is_hopeless
    }
}

#[cfg(test)]
mod tests {
    use fs_format::Seq;

    use super::*;

    #[test]
    fn hope_comes_from_the_store_that_holds_back_alone() {
        let store = |name: &str, lacks: u64, seq: u64| Taker {
            name: name.into(),
            lacks,
            replicated: Seq(seq),
            taken: seq,
            ..Taker::default()
        };
        for is_over_bound in [true, false] {
            let mut known = Known { is_hopeless: true, ..Known::begin() };
            known.note_taken(&[store("near", 1, 20), store("away", 90, 3)], is_over_bound);
            let first = known.took;
            known.note_taken(&[store("near", 0, 21), store("away", 90, 3)], is_over_bound);
            assert!(known.is_hopeless && known.took == first, "crumbs for another store make no room");
            let sending = Taker { is_sending: true, ..store("near", 1, 21) };
            known.note_taken(&[sending, store("away", 91, 3)], is_over_bound);
            assert!(known.is_hopeless && known.took == first, "{is_over_bound}");
            let sending = Taker { is_sending: true, ..store("away", 91, 3) };
            known.note_taken(&[store("near", 1, 21), sending], is_over_bound);
            assert!(known.is_hopeless && known.took > first, "it may take it");
            known.note_taken(&[store("near", 1, 21), store("away", 80, 4)], is_over_bound);
            assert!(!known.is_hopeless, "it took some");
        }
    }
}
