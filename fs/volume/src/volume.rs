//! The live volume: operations, each one atomic step in the order of operations.
//!
//! An operation looks through the layers under the lock, decides what changes, and commits:
//! the record goes to the journal and the same changes go to the overlay. Where a look needs
//! a node that is not in memory, the lock is dropped, the node is read, and the operation
//! begins again; so nobody waits for a disk or a network behind the lock.
//!
//! Invariants
//! - The order of records in the journal is the order in which the overlay changed.
//! - An operation commits once, with everything it read still true.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fs_crypto::{DeviceSecret, Suite, VolumeKey};
use fs_format::journal::{Change, Source, Totals};
use fs_format::ledger::decode_policy;
use fs_format::tree::{Dirent, Key, Node, RecordKind, Xattr};
use fs_format::{DeviceId, Epoch, FileKind, Ino, Inode, NodeId, Seq, StoreId, Timestamp, VolumeId};
use parking_lot::{Mutex, RwLock, RwLockUpgradableReadGuard};

use crate::collection::Run;
use crate::dedup::Dedup;
use crate::env::Env;
use crate::journal::{Journal, Room, Setting};
use crate::keys::Keys;
use crate::layers::{self, Cached, Layers, Piece};
use crate::lease::{LEASE_OVER, Lease};
use crate::ledger::Moment;
use crate::overlay::Overlay;
use crate::readahead::Streams;
use crate::retention::Policy;
use crate::room::Waiting;
use crate::store::Store;
use crate::tree::{Fault, Root};
use crate::types::*;
use crate::{FsError, History, OpenError, manifests, seal};

/// Limits and habits of an open volume.
#[derive(Debug, Clone)]
pub struct Options {
    /// Refuse every change.
    pub read_only: bool,
    /// Memory for nodes and chunks that were read, in bytes.
    pub cache_bytes: u64,
    /// Memory of the overlay above which the volume wants a seal, in bytes.
    pub overlay_bytes_max: u64,
    /// Size of the journal above which writers wait for a seal, in bytes.
    pub journal_bytes_max: u64,
    /// Size of a segment of the journal, in bytes.
    pub segment_bytes: u64,
    /// Room on the disk that nothing new may use, in bytes: for what was taken already
    /// ([`Volume::write_taken`]), one more segment of the journal, and deleting.
    pub reserve_bytes: u64,
    /// Packs whose chunks the index keeps in memory until it writes them: after a crash so many directories are read again.
    pub index_packs_max: usize,
    /// Logical bytes that the files may have in all.
    pub quota_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            cache_bytes: 128 << 20,
            overlay_bytes_max: 16 << 20,
            journal_bytes_max: 2 << 30,
            segment_bytes: 64 << 20,
            reserve_bytes: 128 << 20,
            index_packs_max: 128,
            quota_bytes: None,
        }
    }
}

/// What a volume says of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// The newest seal.
    pub head: SealInfo,
    /// Whether it holds all that the volume holds.
    pub is_sealed: bool,
    /// Bytes written since it began.
    pub dirty_bytes: u64,
    /// Bytes that the journal takes on the disk.
    pub journal_bytes: u64,
    /// Memory that the overlays take, in bytes.
    pub overlay_bytes: u64,
    /// Why the volume refuses changes.
    pub read_only: Option<String>,
    /// What was found damaged when it was opened or since, each place once; the first few.
    pub damage: Vec<String>,
    /// Why the last seal failed.
    pub seal_error: Option<String>,
    /// Seals since it was opened, and how long they took.
    pub seals: u64,
    /// The sum of these times.
    pub seal_time: Duration,
}

pub struct State {
    pub active: Overlay,
    pub frozen: Option<Arc<Overlay>>,
    /// What is sealed: the tree under everything.
    pub base: Moment,
    /// Inodes without a name that the kernel may still ask for, and the least bytes that each has had since it lost its last.
    orphans: HashMap<Ino, u64>,
    /// The sum of these bytes. The quota does not count them, so that room is there as soon as a file is removed.
    orphan_bytes: u64,
}

impl State {
    /// Bytes that the quota counts.
    fn bytes(&self) -> u64 {
        self.active.totals.bytes.saturating_sub(self.orphan_bytes)
    }

    /// Bytes that are written and not sealed.
    fn written(&self) -> u64 {
        self.active.written + self.frozen.as_deref().map_or(0, |frozen| frozen.written)
    }

    /// What an orphan gives up is free already: it is not taken off twice, nor what it takes again given for nothing.
    fn lower_orphans(&mut self, changes: &[Change]) {
        if self.orphan_bytes == 0 {
            return;
        }
        for change in changes {
            let (ino, most) = match change {
                Change::PutInode(ino, inode) => (ino, inode.size),
                Change::DropInode(ino) => (ino, 0),
                _ => continue,
            };
            if let Some(bytes) = self.orphans.get_mut(ino) {
                let gone = bytes.saturating_sub(most);
                *bytes -= gone;
                self.orphan_bytes -= gone;
            }
        }
    }
}

/// An open volume.
pub struct Volume {
    pub(crate) env: Env,
    pub(crate) key: VolumeKey,
    pub(crate) id: VolumeId,
    pub(crate) device: DeviceId,
    pub(crate) keys: Arc<Keys>,
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Journal,
    pub(crate) options: Options,
    pub(crate) state: RwLock<State>,
    /// Held while a seal goes on.
    pub(crate) sealing: Mutex<()>,
    /// Held while moments are dropped and packs decided about; taken before `sealing`.
    pub(crate) pruning: Mutex<()>,
    /// Used by the seal alone.
    pub(crate) dedup: Mutex<Dedup>,
    read_only: RwLock<Option<String>>,
    lease: Arc<Lease>,
    /// What replay could not read.
    journal_damage: Option<String>,
    pub(crate) seal_error: RwLock<Option<String>>,
    /// Seals since it was opened, and how long they took.
    pub(crate) seal_times: Mutex<(u64, Duration)>,
    pub(crate) on_seal: OnceLock<Box<OnSeal>>,
    pub(crate) waiting: Waiting,
    free: FreeBytes,
    /// Held while a segment of the journal is allocated.
    making_segment: Mutex<()>,
    pub(crate) history: History,
    /// The store in which slots decide.
    pub(crate) arbiter: Mutex<StoreId>,
    pub(crate) run: Mutex<Run>,
    /// How full journal and overlay are, and what may wait for stores, in thousandths.
    pressure: AtomicU32,
    streams: Streams,
}

/// Who is told of each seal.
type OnSeal = dyn Fn(&SealInfo) + Send + Sync;

/// How long something small asks for room before it is refused.
const SMALL_PATIENCE: Duration = Duration::from_secs(2);

/// Free room on the disk, asked for at most every 100 ms or every 16 MiB.
struct FreeBytes {
    asked: AtomicI64,
    left: AtomicU64,
}

/// Makes an empty volume in the folder.
///
/// The root directory belongs to `owner`. The folder `manifests` with the first manifest is what makes it a volume; it comes last.
pub fn create(env: &Env, key: &VolumeKey, owner: Caller) -> Result<(), OpenError> {
    let at = |what: &str| {
        let what = what.to_string();
        move |source| OpenError::Disk { what, source }
    };
    for folder in ["packs", "journal", "manifests"] {
        env.disk.create_dir(folder).map_err(at(folder))?;
    }
    if !manifests::list(env)?.is_empty() {
        return Err(OpenError::AlreadyAVolume("the folder".into()));
    }
    env.disk.sync_dir("").map_err(at("the volume's folder"))?;
    let read = key.read_key();
    let keys = Arc::new(Keys::new(read));
    let store = Store::new(env.clone(), keys.clone(), Default::default(), 2 << 20);
    seal::first(&store, key, owner).map_err(|error| OpenError::Damaged {
        what: "the new volume".into(),
        detail: format!("could not be written: {error}"),
    })?;
    Ok(())
}

impl Volume {
    /// Opens a volume at its newest manifest and replays the journal.
    ///
    /// The caller holds the folder's lock.
    pub fn open(
        env: Env,
        key: VolumeKey,
        device: &DeviceSecret,
        options: Options,
    ) -> Result<Self, OpenError> {
        let id = key.id();
        let head = manifests::newest(&env, &id, &key.read_key())?;
        let keys = Arc::new(Keys::new(head.read_key.clone()));
        let store =
            Arc::new(Store::new(env.clone(), keys.clone(), head.body.packs.clone(), options.cache_bytes));
        if !options.read_only {
            remove_leftovers(&env)?;
            // What a damaged manifest names is not known.
            if head.damage.is_none()
                && let Err(error) = store.remove_unnamed()
            {
                tracing::warn!(%error, "packs that a seal left stay until the volume is opened again");
            }
        }
        let setting = Setting {
            env: env.clone(),
            key: key.clone(),
            device: device.clone(),
            segment_bytes: options.segment_bytes,
            suite: Suite::fastest(),
        };
        let mut read_only = options.read_only.then(|| "it was opened read-only".to_string());
        if let Some(damage) = &head.damage {
            store.found.note(damage.clone());
            read_only.get_or_insert_with(|| damage.clone());
        }
        if let Some(damage) = &head.copied {
            let mended = if options.read_only {
                "its copy `head` is whole".to_string()
            } else {
                // The next seal replaces the copy, so it must not be the only one by then.
                match manifests::restore_from_copy(&env, head.header.seq) {
                    Ok(()) => "it was written anew from its copy `head`".to_string(),
                    Err(error) => {
                        let why = format!("and cannot be written anew from its copy `head`: {error}");
                        read_only.get_or_insert_with(|| format!("{damage}, {why}"));
                        why
                    }
                }
            };
            store.found.note(format!("{damage}: {mended}"));
        }
        if head.lacks_copy
            && !options.read_only
            && let Err(error) = manifests::refresh_copy(&env, head.header.seq)
        {
            // The manifest itself is whole, and on a full disk the volume must open.
            tracing::warn!(%error, "the copy `head` of the newest manifest cannot be written anew");
        }
        // Before its first seal on a device a volume's manifest names no journal.
        let named = (head.body.journal != [0; 16]).then_some(head.body.journal);
        let journal_id = match named {
            Some(id) => Some(id),
            None => crate::journal::recovery::first_id(&env)?,
        };
        let journal_id = journal_id.unwrap_or_else(|| {
            let mut id = [0; 16];
            env.chance.fill(&mut id);
            id
        });
        let recovered = crate::journal::recovery::recover(
            setting,
            journal_id,
            head.body.journal_end,
            read_only.is_some(),
        )?;
        if let Some(damage) = &recovered.damage {
            store.found.note(damage.clone());
            read_only.get_or_insert_with(|| damage.clone());
        }
        let (journal, records) = (recovered.journal, recovered.records);
        let totals = Totals { files: head.body.files, bytes: head.body.bytes };
        let mut active = Overlay::new(totals, head.body.next_ino);
        for (totals, changes, data) in records {
            active.apply(totals, changes, data);
        }
        let base = head.moment();
        store.follow(base.info.seq, base.root, head.header.has_moved);
        let history = History::of(id, key.read_key(), store.clone(), base.clone(), true);
        let run = Run::new(env.clock.now(), env.clock.monotonic());
        let volume = Self {
            history,
            pressure: AtomicU32::new(0),
            streams: Streams::new(options.cache_bytes),
            lease: Arc::new(Lease::endless(env.clock.clone())),
            env,
            key,
            id,
            device: device.pseudonym(&id),
            arbiter: Mutex::new(head.body.arbiter),
            run: Mutex::new(run),
            keys,
            store,
            journal,
            dedup: Mutex::new(Dedup::new(options.index_packs_max)),
            options,
            state: RwLock::new(State {
                active,
                frozen: None,
                base,
                orphans: HashMap::new(),
                orphan_bytes: 0,
            }),
            sealing: Mutex::new(()),
            pruning: Mutex::new(()),
            read_only: RwLock::new(read_only),
            journal_damage: recovered.damage,
            seal_error: RwLock::new(None),
            seal_times: Mutex::default(),
            on_seal: OnceLock::new(),
            waiting: Waiting::default(),
            making_segment: Mutex::new(()),
            free: FreeBytes { asked: AtomicI64::new(i64::MIN), left: AtomicU64::new(0) },
        };
        if volume.read_only_reason().is_none() {
            volume.reap_orphans();
        }
        Ok(volume)
    }

    /// The volume's public key.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Why changes are refused, if they are.
    pub fn read_only_reason(&self) -> Option<String> {
        let reason = self.read_only.read().clone().or_else(|| self.journal.failure());
        reason.or_else(|| self.lease.is_over().then(|| LEASE_OVER.to_owned()))
    }

    /// Until when it may be changed. When that is over, [`Volume::end_writing`] seals what was changed before.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Calls `tell` after each seal from now on, on the thread that sealed; only the first who asks is told.
    pub fn on_seal(&self, tell: impl Fn(&SealInfo) + Send + Sync + 'static) {
        if self.on_seal.set(Box::new(tell)).is_err() {
            tracing::error!(volume = %self.id, "somebody is told of seals already");
        }
    }

    /// Calls `tell` while a large seal is made, when [`History::early_packs`] has more, on the thread that seals; only the first who
    /// asks is told.
    pub fn on_early_packs(&self, tell: impl Fn() + Send + Sync + 'static) {
        if !self.store.early.on_more(Box::new(tell)) {
            tracing::error!(volume = %self.id, "somebody is told of packs already");
        }
    }

    /// The epoch that this volume is written in.
    pub fn epoch(&self) -> Epoch {
        self.state.read().base.epoch
    }

    /// Refuses changes from now on.
    pub(crate) fn turn_read_only(&self, reason: &str) {
        tracing::error!(volume = %self.id, reason, "the volume turned read-only");
        self.read_only.write().get_or_insert(reason.to_string());
    }

    /// The newest seal.
    pub fn head(&self) -> SealInfo {
        self.state.read().base.info.clone()
    }

    /// The sealed past.
    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// Which moments retention keeps; all of them while nobody said so.
    pub fn policy(&self) -> Result<Option<Policy>, FsError> {
        let value = self.look(|layers, _| layers.record(&Key::POLICY))?;
        value.map(|value| read_policy(&value)).transpose()
    }

    /// Says which moments retention keeps. Durable with the next sync, and part of the next seal; drops nothing by itself.
    pub fn set_policy(&self, policy: Option<&Policy>) -> Result<(), FsError> {
        self.change(512, Room::Free, &[], |_, _, _| {
            let mut decision = Decision::default();
            decision.changes.push(match policy {
                Some(policy) => Change::Put(Key::POLICY, policy.to_string().into_bytes().into()),
                None => Change::Drop(Key::POLICY),
            });
            Ok(((), decision))
        })
    }

    /// The store in which slots decide, if there is one.
    pub fn arbiter(&self) -> Option<StoreId> {
        Some(*self.arbiter.lock()).filter(|store| *store != NO_STORE)
    }

    /// Names the store in which slots decide, by a seal.
    pub fn set_arbiter(&self, store: Option<StoreId>) -> Result<SealInfo, FsError> {
        *self.arbiter.lock() = store.unwrap_or(NO_STORE);
        self.seal_anyway()
    }

    /// What the volume says of itself.
    pub fn status(&self) -> Status {
        let state = self.state.read();
        let frozen = state.frozen.as_deref();
        let (seals, seal_time) = *self.seal_times.lock();
        Status {
            head: state.base.info.clone(),
            is_sealed: state.active.is_empty() && frozen.is_none(),
            dirty_bytes: state.written(),
            journal_bytes: self.journal.used_bytes(),
            overlay_bytes: (state.active.weight + frozen.map_or(0, |frozen| frozen.weight)) as u64,
            read_only: self.read_only_reason(),
            damage: self.store.found.list(),
            seal_error: self.seal_error.read().clone(),
            seals,
            seal_time,
        }
    }

    /// Returns what replay could not read of the journal, and what could not be read of it again now.
    ///
    /// The rest of a volume is [`History::check`]'s.
    pub fn check_journal(&self) -> Vec<String> {
        let damage = self.journal.verify();
        damage.iter().for_each(|error| self.store.found.note_error(error));
        self.journal_damage.iter().cloned().chain(damage.iter().map(ToString::to_string)).collect()
    }

    /// Whether the overlay or the journal is above its mark, or a seal would make room on a full disk.
    pub fn wants_seal(&self) -> bool {
        let state = self.state.read();
        // The journal's room comes back, and what was removed since it was written is not sealed at all.
        let (written, left) = (state.active.written, self.free.left.load(Ordering::Relaxed));
        if self.waiting.wants_seal(written) {
            return true;
        }
        if written > left && written > self.options.segment_bytes / 16 {
            return true;
        }
        state.active.weight as u64 > self.options.overlay_bytes_max
            || self.journal.used_bytes() > self.options.journal_bytes_max / 2
    }

    /// Measures how full journal and overlay are, and what may wait for stores; the keeper calls it often.
    pub(crate) fn measure_pressure(&self) {
        let parts = |used: u64, max: u64| (used.saturating_mul(1000) / max.max(1)).min(1000) as u32;
        let (overlay, written) = {
            let state = self.state.read();
            (state.active.weight as u64, state.written())
        };
        let waiting = self.waiting.of(written).map_or(0, |(waiting, most)| parts(waiting, most));
        let pressure = parts(overlay, 4 * self.options.overlay_bytes_max)
            .max(parts(self.journal.used_bytes(), self.options.journal_bytes_max))
            .max(waiting);
        self.pressure.store(pressure, Ordering::Relaxed);
    }

    /// How long whoever writes `bytes` should pause, so that sealing keeps up; mostly zero.
    ///
    /// Grows with the pressure and is never above 50 ms, so that what waits behind a writer
    /// does not stall.
    pub fn pause(&self, bytes: usize) -> Duration {
        let pressure = u64::from(self.pressure.load(Ordering::Relaxed));
        if pressure <= PRESSURE_FREE {
            return Duration::ZERO;
        }
        let left = 1000 - pressure.min(1000);
        let bytes_per_second = (RATE_UNDER_PRESSURE * left / (1000 - PRESSURE_FREE)).max(RATE_MIN);
        let nanos = (bytes as u64).max(OPERATION_BYTES) * 1_000_000_000 / bytes_per_second;
        Duration::from_nanos(nanos).min(PAUSE_MAX)
    }

    /// Bytes that are written and not sealed.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.state.read().written()
    }

    /// The tree under everything.
    pub(crate) fn root(&self) -> Root {
        self.state.read().base.root
    }

    /// Whether so many bytes more are beyond the quota.
    pub(crate) fn is_over_quota(&self, bytes: u64) -> bool {
        let quota = self.options.quota_bytes;
        quota.is_some_and(|quota| self.state.read().bytes().saturating_add(bytes) > quota)
    }

    /// Whether anything happened since the last seal began.
    pub fn is_dirty(&self) -> bool {
        let state = self.state.read();
        state.frozen.is_some() || !state.active.is_empty()
    }

    /// Room, as `statfs` shows it.
    pub fn space(&self) -> Result<Space, FsError> {
        let (bytes, files) = {
            let state = self.state.read();
            (state.bytes(), state.active.totals.files)
        };
        let disk = self.disk_left(self.options.reserve_bytes)?;
        let (total, free) = match self.options.quota_bytes {
            Some(quota) => (quota, quota.saturating_sub(bytes).min(disk)),
            None => (bytes + disk, disk),
        };
        Ok(Space { total, free, files })
    }

    /// Pushes buffered records to the disk without waiting until they are durable.
    ///
    /// Also prepares the journal for many small syncs, if there are such.
    pub fn flush_journal(&self) -> Result<(), FsError> {
        self.journal.flush()?;
        if let Err(error) = self.journal.warm_up() {
            // Only speed is lost.
            tracing::debug!(%error, "a segment of the journal could not be made ahead");
        }
        Ok(())
    }

    /// Removes the journal where everything in it is sealed; what comes begins a new segment. Returns whether there was one.
    pub fn give_back_journal(&self) -> bool {
        let sealed = {
            let state = self.state.read();
            (state.frozen.is_none() && state.active.is_empty()).then(|| self.journal.end())
        };
        // Without the lock, since a disk is waited for: the journal looks itself whether anything came after this.
        sealed.is_some_and(|end| self.journal.discard(end))
    }

    // ---- looking ----

    fn layers<'a>(
        &'a self,
        state: &'a State,
        pinned: &'a HashMap<NodeId, Arc<Node>>,
    ) -> Layers<'a, Cached<'a>> {
        Layers {
            upper: [Some(&state.active), state.frozen.as_deref()],
            root: state.base.root,
            nodes: Cached { store: &self.store, pinned },
            keys: &self.keys,
        }
    }

    /// Looks through the layers; begins again after each node that it had to wait for.
    pub(crate) fn look<R>(
        &self,
        f: impl Fn(&Layers<'_, Cached<'_>>, &State) -> Result<R, Fault>,
    ) -> Result<R, FsError> {
        let mut pinned = HashMap::new();
        loop {
            let missing = {
                let state = self.state.read();
                match f(&self.layers(&state, &pinned), &state) {
                    Ok(value) => return Ok(value),
                    Err(Fault::Error(error)) => return Err(error),
                    Err(Fault::Miss(pointer)) => pointer,
                }
            };
            pinned.insert(missing.id, self.store.node(&missing)?);
        }
    }

    /// Decides on changes under the lock and commits them.
    fn change<R>(
        &self,
        bytes: usize,
        room: Room,
        data: &[u8],
        decide: impl Fn(&Layers<'_, Cached<'_>>, &State, Timestamp) -> Result<(R, Decision), Fault>,
    ) -> Result<R, FsError> {
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        match (room, data.is_empty()) {
            (Room::Grow, false) if self.is_over_bound() => return Err(FsError::NoSpace),
            (Room::Grow, true) => self.make_room_patiently(bytes)?,
            _ => self.make_room(bytes, room)?,
        }
        let mut pinned = HashMap::new();
        loop {
            let missing = {
                let state = self.state.upgradable_read();
                // Once more, since the last seal may be waiting for this lock: what it does not hold is refused.
                if self.read_only_reason().is_some() {
                    return Err(FsError::ReadOnly);
                }
                match decide(&self.layers(&state, &pinned), &state, self.env.clock.now()) {
                    Ok((value, decision)) => {
                        // The quota counts lengths of files: only what makes one longer is refused.
                        let beyond = if room == Room::Taken { TAKEN_BYTES_MAX } else { 0 };
                        let bytes = state.bytes().saturating_add_signed(decision.bytes);
                        let over = |quota: u64| bytes > quota.saturating_add(beyond);
                        if decision.bytes > 0 && self.options.quota_bytes.is_some_and(over) {
                            return Err(FsError::NoSpace);
                        }
                        if !decision.changes.is_empty() {
                            let mut state = RwLockUpgradableReadGuard::upgrade(state);
                            self.commit(&mut state, decision, data);
                        }
                        return Ok(value);
                    }
                    Err(Fault::Error(error)) => return Err(error),
                    Err(Fault::Miss(pointer)) => pointer,
                }
            };
            pinned.insert(missing.id, self.store.node(&missing)?);
        }
    }

    fn commit(&self, state: &mut State, decision: Decision, data: &[u8]) {
        let mut totals = state.active.totals;
        totals.files = totals.files.saturating_add_signed(decision.files);
        totals.bytes = totals.bytes.saturating_add_signed(decision.bytes);
        let position = self.journal.append(&totals, &decision.changes, data);
        state.lower_orphans(&decision.changes);
        state.active.apply(totals, decision.changes, position);
        if let Some((ino, bytes)) = decision.orphan {
            state.orphans.insert(ino, bytes);
            state.orphan_bytes += bytes;
        }
    }

    /// The same for what brings no data, and is small: whoever serves it waits for that himself, but not for long. Data that find
    /// no room are for whoever brought them to [wait](Self::find_room) with.
    fn make_room_patiently(&self, bytes: usize) -> Result<(), FsError> {
        let deadline = self.env.clock.monotonic() + SMALL_PATIENCE;
        loop {
            match self.make_room(bytes, Room::Grow) {
                Err(FsError::NoSpace)
                    if self.env.clock.monotonic() < deadline
                        && self.hopes_for_room()
                        && self.find_room(bytes as u64) => {}
                made => return made,
            }
        }
    }

    /// Makes sure that the journal and later the seal find room for `bytes`.
    fn make_room(&self, bytes: usize, room: Room) -> Result<(), FsError> {
        // A segment takes its room on the disk a while before it is there to be counted; who needs it, too, waits.
        let wants_segment = self.journal.wants_segment(bytes + RECORD_BYTES, room);
        let _one = wants_segment.then(|| self.making_segment.lock());
        if room != Room::Free {
            self.admit(bytes as u64, room)?;
        }
        self.journal.admit(bytes + RECORD_BYTES, room)
    }

    /// What seals will take of the disk that they have not taken yet.
    fn unsealed_bytes(&self) -> u64 {
        let state = self.state.read();
        // An eighth for padding and the nodes that are rewritten.
        let packs = |overlay: &Overlay| (overlay.written + overlay.weight as u64) / 8 * 9;
        let frozen = state.frozen.as_deref().map_or(0, packs);
        packs(&state.active) + frozen.saturating_sub(self.store.packed.load(Ordering::Relaxed))
    }

    /// Refuses to grow where the disk could not take it, a segment of the journal for it, and the seal of both.
    fn admit(&self, bytes: u64, room: Room) -> Result<(), FsError> {
        let charge_now = || {
            let segment = self.journal.wants_segment(bytes as usize + RECORD_BYTES, room);
            bytes + 4096 + if segment { self.options.segment_bytes } else { 0 }
        };
        let charge = charge_now();
        if room == Room::Taken {
            let left = self.disk_left(self.options.reserve_bytes / 8)?;
            return if left < charge { Err(FsError::NoSpace) } else { Ok(()) };
        }
        let now = self.env.clock.now().0;
        let asked = self.free.asked.load(Ordering::Relaxed);
        let take = |left: u64| left.checked_sub(charge).filter(|&rest| rest > ADMIT_BYTES);
        if now.saturating_sub(asked) < 100_000_000
            && now >= asked
            && self.free.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        {
            return Ok(());
        }
        let look =
            || -> Result<_, FsError> { Ok((self.disk_left(self.options.reserve_bytes)?, charge_now())) };
        let give_back = || self.journal.give_back_spares() | self.give_back_journal();
        let (mut left, mut charge) = look()?;
        if left < charge && give_back() {
            (left, charge) = look()?;
        }
        // What is in the journal takes its room twice until it is sealed: to wait for that is better than to refuse. Not
        // for little: each seal takes some of the reserve itself.
        if left < charge
            && bytes > 0
            && self.unsealed_bytes() >= self.options.reserve_bytes / 4
            && self.seal(None).is_ok()
        {
            give_back();
            (left, charge) = look()?;
        }
        self.free.left.store(left.saturating_sub(charge), Ordering::Relaxed);
        self.free.asked.store(now, Ordering::Relaxed);
        if left < charge { Err(FsError::NoSpace) } else { Ok(()) }
    }

    /// How many bytes the disk lacks for so many more.
    pub fn lacks_on_disk(&self, bytes: u64) -> Result<u64, FsError> {
        let wanted = bytes + 4096 + self.options.segment_bytes;
        Ok(wanted.saturating_sub(self.disk_left(self.options.reserve_bytes)?))
    }

    /// Room on the disk beyond what is held back and what sealing will take.
    fn disk_left(&self, held_back: u64) -> Result<u64, FsError> {
        let free = self.env.disk.free_bytes().map_err(|error| FsError::Disk(error.to_string()))?;
        Ok(free.saturating_sub(held_back + self.unsealed_bytes()))
    }

    /// Whether nothing can grow any more, by the quota, by the disk, or by what may wait for stores; and nobody hopes for room.
    pub fn is_full(&self) -> bool {
        let bytes = self.state.read().bytes();
        let is_short = || self.is_over_bound() || self.admit(0, Room::Grow).is_err();
        self.options.quota_bytes.is_some_and(|quota| bytes >= quota) || is_short() && !self.hopes_for_room()
    }

    // ---- names ----

    fn remove(&self, parent: Ino, name: &[u8], directory: bool) -> Result<(), FsError> {
        check_name(name)?;
        self.change(512, Room::Free, &[], |layers, _, now| {
            let mut dir = layers.directory(parent)?;
            let (key, dirent) = layers.dirent(parent, name)?.ok_or(FsError::NotFound)?;
            match (dirent.kind == FileKind::Directory, directory) {
                (true, false) => return Err(FsError::IsADirectory.into()),
                (false, true) => return Err(FsError::NotADirectory.into()),
                _ => {}
            }
            let mut decision = Decision::default();
            decision.changes.push(Change::Drop(key));
            drop_name(layers, &mut decision, &mut dir, (parent, key.sub), dirent.ino, now)?;
            dir.size = dir.size.saturating_sub(1);
            (dir.mtime, dir.ctime) = (now, now);
            decision.inode(parent, &dir);
            Ok(((), decision))
        })
    }

    // ---- bytes ----

    /// Writes bytes that somebody was already told are written, as the kernel tells of pages that it keeps for a while.
    ///
    /// May use most of the reserve, and exceed the quota by [`TAKEN_BYTES_MAX`].
    pub fn write_taken(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        self.write_in(Room::Taken, ino, offset, data, kill_suid)
    }

    fn write_in(
        &self,
        room: Room,
        ino: Ino,
        offset: u64,
        data: &[u8],
        kill_suid: bool,
    ) -> Result<(), FsError> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let mut at = offset;
        for part in data.chunks(WRITE_BYTES_MAX) {
            self.change(part.len(), room, part, |layers, _, now| {
                let mut inode = layers.inode(ino)?;
                require_file(&inode)?;
                let end = at + part.len() as u64;
                let mut decision =
                    Decision { bytes: end.saturating_sub(inode.size) as i64, ..Decision::default() };
                inode.size = inode.size.max(end);
                (inode.mtime, inode.ctime) = (now, now);
                if kill_suid {
                    inode.mode = without_suid(inode.mode);
                }
                decision.inode(ino, &inode);
                decision.changes.push(Change::Write { ino, offset: at, len: part.len() as u32 });
                Ok(((), decision))
            })?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Has the chunks fetched that a reader of `offset..offset + len` will ask for next.
    fn read_ahead(&self, ino: Ino, offset: u64, len: usize) {
        let Some((from, to)) = self.streams.note(ino, offset, offset.saturating_add(len as u64)) else {
            return;
        };
        if self.store.reads_ahead()
            // A plan that fails now fails again for whom it matters to.
            && let Ok(plan) = self.look(|layers, _| layers.plan_ahead(ino, from, to))
        {
            layers::want(&self.store, &plan);
        }
    }

    // ---- files without a name ----

    fn drop_orphan(&self, ino: Ino) {
        let dropped = self.change(128, Room::Free, &[], |layers, _, _| {
            let inode = layers.inode(ino)?;
            let mut decision = Decision::default();
            decision.drop_inode(ino, &inode);
            decision.changes.push(Change::Drop(Key::orphan(ino)));
            Ok(((), decision))
        });
        if let Err(error) = dropped {
            // It is freed when the volume is opened again.
            tracing::debug!(%ino, %error, "an orphan stays");
        }
    }

    fn reap_orphans(&self) {
        let (from, to) = (Key::orphan(Ino(0)), Key::moment(Seq(0)));
        match self.look(|layers, _| layers.records(from, to, usize::MAX)) {
            Ok(orphans) => orphans.iter().for_each(|(key, _)| self.drop_orphan(Ino(key.sub))),
            Err(error) => tracing::warn!(%error, "files without a name could not be freed"),
        }
    }
}

impl WriteTree for Volume {
    fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        node: NewNode<'_>,
        xattrs: NewXattrs<'_>,
    ) -> Result<Attr, FsError> {
        check_name(name)?;
        let mut bytes = 512;
        for (name, value) in xattrs {
            check_xattr(name, value)?;
            bytes += value.len() + 512;
        }
        if let NewNode::Symlink(target) = node {
            if target.is_empty() {
                return Err(FsError::NotFound);
            }
            if target.len() > SYMLINK_BYTES_MAX {
                return Err(FsError::NameTooLong);
            }
        }
        self.change(bytes, Room::Grow, &[], |layers, state, now| {
            let mut directory = layers.directory(parent)?;
            if directory.nlink == 0 {
                return Err(FsError::NotFound.into());
            }
            if layers.dirent(parent, name)?.is_some() {
                return Err(FsError::Exists.into());
            }
            let ino = Ino(state.active.next_ino);
            if ino > Ino::MAX {
                return Err(FsError::NoSpace.into());
            }
            let key = layers.free_dirent(parent, name)?;
            let (kind, rdev, size) = match node {
                NewNode::File => (FileKind::File, 0, 0),
                NewNode::Directory => (FileKind::Directory, 0, 0),
                NewNode::Symlink(target) => (FileKind::Symlink, 0, target.len() as u64),
                NewNode::Special(kind, rdev) => (kind, rdev, 0),
            };
            let inherits = directory.mode & 0o2000 != 0;
            let inode = Inode {
                kind,
                mode: (mode & 0o7777) | if inherits && kind == FileKind::Directory { 0o2000 } else { 0 },
                uid: caller.uid,
                gid: if inherits { directory.gid } else { caller.gid },
                nlink: if kind == FileKind::Directory { 2 } else { 1 },
                size,
                allocated: 0,
                rdev,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                parent,
                home: key.sub,
            };
            directory.size += 1;
            directory.nlink += u32::from(kind == FileKind::Directory);
            (directory.mtime, directory.ctime) = (now, now);
            let mut decision = Decision { files: 1, ..Decision::default() };
            decision.inode(ino, &inode);
            if let NewNode::Symlink(target) = node {
                decision.changes.push(Change::Put(Key::new(ino, RecordKind::Inline, 0), target.into()));
            }
            let mut taken = HashSet::new();
            for (name, value) in xattrs {
                let mut key = layers.free_xattr(ino, name)?;
                while !taken.insert(key) {
                    key.sub += 1;
                }
                decision.xattr(key, name, value);
            }
            decision.dirent(key, ino, kind, name);
            decision.inode(parent, &directory);
            Ok((Attr { ino, inode, allocated: 0 }, decision))
        })
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        check_name(name)?;
        self.change(512, Room::Grow, &[], |layers, _, now| {
            let mut inode = layers.inode(ino)?;
            if inode.kind == FileKind::Directory {
                return Err(FsError::NotPermitted.into());
            }
            if inode.nlink == 0 {
                return Err(FsError::NotFound.into());
            }
            if inode.nlink >= LINKS_MAX {
                return Err(FsError::TooManyLinks.into());
            }
            let mut directory = layers.directory(parent)?;
            if directory.nlink == 0 {
                return Err(FsError::NotFound.into());
            }
            if layers.dirent(parent, name)?.is_some() {
                return Err(FsError::Exists.into());
            }
            let key = layers.free_dirent(parent, name)?;
            inode.nlink += 1;
            inode.ctime = now;
            if inode.parent == Ino(0) {
                (inode.parent, inode.home) = (parent, key.sub);
            }
            directory.size += 1;
            (directory.mtime, directory.ctime) = (now, now);
            let mut decision = Decision::default();
            decision.inode(ino, &inode);
            decision.dirent(key, ino, inode.kind, name);
            decision.inode(parent, &directory);
            Ok((layers.attr_of(ino, inode)?, decision))
        })
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        from: Ino,
        from_name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        check_name(from_name)?;
        check_name(to_name)?;
        self.change(1024, Room::Free, &[], |layers, state, now| {
            let mut from_dir = layers.directory(from)?;
            let mut to_dir = if from == to { from_dir.clone() } else { layers.directory(to)? };
            if to_dir.nlink == 0 {
                return Err(FsError::NotFound.into());
            }
            let (from_key, moved) = layers.dirent(from, from_name)?.ok_or(FsError::NotFound)?;
            let target = layers.dirent(to, to_name)?;
            if moved.kind == FileKind::Directory && from != to {
                refuse_loop(layers, moved.ino, to)?;
            }
            let mut inode = layers.inode(moved.ino)?;
            let mut decision = Decision::default();
            if mode == RenameMode::Exchange {
                let (to_key, other) = target.ok_or(FsError::NotFound)?;
                if other.ino == moved.ino {
                    return Ok(((), decision));
                }
                if other.kind == FileKind::Directory && from != to {
                    refuse_loop(layers, other.ino, from)?;
                }
                let mut other_inode = layers.inode(other.ino)?;
                if from != to {
                    let moved_is = i64::from(moved.kind == FileKind::Directory);
                    let other_is = i64::from(other.kind == FileKind::Directory);
                    from_dir.nlink = from_dir.nlink.saturating_add_signed((other_is - moved_is) as i32);
                    to_dir.nlink = to_dir.nlink.saturating_add_signed((moved_is - other_is) as i32);
                }
                rehome(&mut inode, (from, from_key.sub), (to, to_key.sub));
                rehome(&mut other_inode, (to, to_key.sub), (from, from_key.sub));
                (inode.ctime, other_inode.ctime) = (now, now);
                decision.dirent(from_key, other.ino, other.kind, from_name);
                decision.dirent(to_key, moved.ino, moved.kind, to_name);
                decision.inode(moved.ino, &inode);
                decision.inode(other.ino, &other_inode);
            } else {
                let to_key = match target {
                    Some(_) if mode == RenameMode::NoReplace => return Err(FsError::Exists.into()),
                    Some((_, ref target)) if target.ino == moved.ino => return Ok(((), decision)),
                    Some((key, target)) => {
                        match (moved.kind == FileKind::Directory, target.kind == FileKind::Directory) {
                            (true, false) => return Err(FsError::NotADirectory.into()),
                            (false, true) => return Err(FsError::IsADirectory.into()),
                            _ => {}
                        }
                        drop_name(layers, &mut decision, &mut to_dir, (to, key.sub), target.ino, now)?;
                        to_dir.size = to_dir.size.saturating_sub(1);
                        key
                    }
                    None => layers.free_dirent(to, to_name)?,
                };
                rehome(&mut inode, (from, from_key.sub), (to, to_key.sub));
                inode.ctime = now;
                if from == to {
                    from_dir = to_dir.clone();
                }
                if mode == RenameMode::Whiteout {
                    let ino = Ino(state.active.next_ino);
                    if ino > Ino::MAX {
                        return Err(FsError::NoSpace.into());
                    }
                    let whiteout = Inode {
                        kind: FileKind::CharDevice,
                        mode: 0,
                        nlink: 1,
                        size: 0,
                        allocated: 0,
                        rdev: 0,
                        atime: now,
                        mtime: now,
                        btime: now,
                        parent: from,
                        home: from_key.sub,
                        ..from_dir.clone()
                    };
                    decision.files += 1;
                    decision.inode(ino, &whiteout);
                    decision.dirent(from_key, ino, FileKind::CharDevice, from_name);
                } else {
                    decision.changes.push(Change::Drop(from_key));
                    from_dir.size = from_dir.size.saturating_sub(1);
                }
                if from == to {
                    to_dir = from_dir.clone();
                }
                to_dir.size += 1;
                if moved.kind == FileKind::Directory && from != to {
                    from_dir.nlink = from_dir.nlink.saturating_sub(1);
                    to_dir.nlink += 1;
                }
                decision.dirent(to_key, moved.ino, moved.kind, to_name);
                decision.inode(moved.ino, &inode);
            }
            (to_dir.mtime, to_dir.ctime) = (now, now);
            if from != to {
                (from_dir.mtime, from_dir.ctime) = (now, now);
                decision.inode(from, &from_dir);
            }
            decision.inode(to, &to_dir);
            Ok(((), decision))
        })
    }

    fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        // Shortening and plain attributes must pass on a full disk.
        self.change(256, Room::Free, &[], |layers, _, now| decide_attr(layers, ino, set, now))
    }

    fn set_attr_and_xattr(
        &self,
        ino: Ino,
        set: SetAttr,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Attr, FsError> {
        check_xattr(name, value.unwrap_or_default())?;
        let (bytes, room) = value.map_or((256, Room::Free), |value| (value.len() + 512, Room::Grow));
        self.change(bytes, room, &[], |layers, _, now| {
            let (attr, mut decision) = decide_attr(layers, ino, set, now)?;
            match (layers.xattr(ino, name)?, value) {
                (Some((key, _)), Some(value)) => decision.xattr(key, name, value),
                (None, Some(value)) => decision.xattr(layers.free_xattr(ino, name)?, name, value),
                (Some((key, _)), None) => decision.changes.push(Change::Drop(key)),
                (None, None) => {}
            }
            Ok((attr, decision))
        })
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], kill_suid: bool) -> Result<(), FsError> {
        self.write_in(Room::Grow, ino, offset, data, kill_suid)
    }

    fn allocate(&self, ino: Ino, offset: u64, len: u64, how: Allocate) -> Result<(), FsError> {
        let end =
            offset.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
        if len == 0 || (how.punch && !how.keep_size) {
            return Err(FsError::Invalid);
        }
        let room = if how.punch { Room::Free } else { Room::Grow };
        let disk = if how.punch || how.zero { u64::MAX } else { self.disk_left(self.options.reserve_bytes)? };
        self.change(256, room, &[], |layers, state, now| {
            let mut inode = layers.inode(ino)?;
            require_file(&inode)?;
            let beyond = if how.punch { 0 } else { end.saturating_sub(inode.size) };
            let quota_left =
                self.options.quota_bytes.map_or(u64::MAX, |quota| quota.saturating_sub(state.bytes()));
            // What is there needs no room. Holes outside the range may make this too much, not more than the range.
            let missing = (inode.size + beyond).saturating_sub(layers.attr(ino)?.allocated).min(len);
            if beyond > quota_left || missing > disk {
                return Err(FsError::NoSpace.into());
            }
            let mut decision = Decision::default();
            if !how.keep_size && beyond > 0 {
                decision.bytes = beyond as i64;
                inode.size = end;
            }
            (inode.mtime, inode.ctime) = (now, now);
            decision.inode(ino, &inode);
            if how.punch || how.zero {
                decision.changes.push(Change::Fill { ino, offset, len, source: Source::Zero });
            }
            Ok(((), decision))
        })
    }

    fn clone_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        let source = self.attr(from)?;
        require_file(&source.inode)?;
        require_file(&self.attr(to)?.inode)?;
        let end = from_offset.saturating_add(len).min(source.inode.size);
        if end <= from_offset {
            return Ok(0);
        }
        if to_offset.checked_add(end - from_offset).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        if from == to && from_offset < to_offset + (end - from_offset) && to_offset < end {
            return Err(FsError::Invalid);
        }
        let end = end.min(from_offset + CLONE_BYTES_MAX);
        let cloned = self.change(64 << 10, Room::Grow, &[], |layers, state, now| {
            // It may have become shorter since.
            let end = end.min(layers.inode(from)?.size);
            // Data in a frozen overlay leaves the journal before the copy would be sealed.
            let mut pieces = Vec::new();
            let plan = if end > from_offset { layers.plan(from, from_offset, end)? } else { Vec::new() };
            for (start, stop, piece) in plan {
                let source = match piece {
                    Piece::Zero => Source::Zero,
                    Piece::Chunk(chunk) => Source::Chunk(chunk),
                    Piece::Journal(at) if state.frozen.as_ref().is_none_or(|frozen| at >= frozen.end) => {
                        Source::Journal(at)
                    }
                    Piece::Journal(_) | Piece::Bytes(_) => break,
                };
                if pieces.len() == CLONE_PIECES_MAX {
                    break;
                }
                pieces.push((start, stop, source));
            }
            let copied = pieces.last().map_or(0, |(_, stop, _)| stop - from_offset);
            let mut decision = Decision::default();
            if copied == 0 {
                return Ok((0, decision));
            }
            let mut inode = layers.inode(to)?;
            require_file(&inode)?;
            decision.bytes = (to_offset + copied).saturating_sub(inode.size) as i64;
            inode.size = inode.size.max(to_offset + copied);
            (inode.mtime, inode.ctime) = (now, now);
            decision.inode(to, &inode);
            for (start, stop, source) in pieces {
                let offset = to_offset + (start - from_offset);
                decision.changes.push(Change::Fill { ino: to, offset, len: stop - start, source });
            }
            Ok((copied, decision))
        })?;
        if cloned > 0 {
            return Ok(cloned);
        }
        let bytes = self.read(from, from_offset, (end - from_offset).min(WRITE_BYTES_MAX as u64) as usize)?;
        self.write(to, to_offset, &bytes, false)?;
        Ok(bytes.len() as u64)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: XattrMode) -> Result<(), FsError> {
        check_xattr(name, value)?;
        self.change(value.len() + 512, Room::Grow, &[], |layers, _, now| {
            let mut inode = layers.inode(ino)?;
            let key = match (layers.xattr(ino, name)?, how) {
                (Some(_), XattrMode::Create) => return Err(FsError::Exists.into()),
                (None, XattrMode::Replace) => return Err(FsError::NoAttribute.into()),
                (Some((key, _)), _) => key,
                (None, _) => layers.free_xattr(ino, name)?,
            };
            inode.ctime = now;
            let mut decision = Decision::default();
            decision.inode(ino, &inode);
            decision.xattr(key, name, value);
            Ok(((), decision))
        })
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        self.change(256, Room::Free, &[], |layers, _, now| {
            let mut inode = layers.inode(ino)?;
            let (key, _) = layers.xattr(ino, name)?.ok_or(FsError::NoAttribute)?;
            inode.ctime = now;
            let mut decision = Decision::default();
            decision.inode(ino, &inode);
            decision.changes.push(Change::Drop(key));
            Ok(((), decision))
        })
    }

    fn forget(&self, ino: Ino) {
        if !self.state.read().orphans.contains_key(&ino) {
            return;
        }
        self.drop_orphan(ino);
        let mut state = self.state.write();
        if let Some(bytes) = state.orphans.remove(&ino) {
            // Nothing, but where it could not be dropped.
            state.orphan_bytes -= bytes;
        }
    }

    fn sync(&self) -> Result<(), FsError> {
        if let Some(reason) = self.journal.failure() {
            return Err(FsError::Disk(reason));
        }
        self.journal.sync()
    }
}

impl ReadTree for Volume {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        check_name(name)?;
        self.look(|layers, _| {
            layers.directory(parent)?;
            let (_, dirent) = layers.dirent(parent, name)?.ok_or(FsError::NotFound)?;
            layers.attr(dirent.ino)
        })
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.look(|layers, _| layers.attr(ino))
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.look(|layers, _| layers.read_link(ino))
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        self.read_ahead(ino, offset, len);
        let mut tries = 0;
        loop {
            let (plan, len, seq) = self.look(|layers, state| {
                let inode = layers.inode(ino)?;
                require_file(&inode)?;
                let end = offset.saturating_add(len as u64).min(inode.size);
                let plan = if end > offset { layers.plan(ino, offset, end)? } else { Vec::new() };
                Ok((plan, end.saturating_sub(offset) as usize, state.base.info.seq))
            })?;
            match layers::fetch_with(&self.store, Some(&self.journal), &plan, offset, len, take) {
                Ok(()) => return Ok(()),
                // A seal may have finished and recycled the journal under the plan.
                Err(FsError::Damaged(_)) if tries < 3 && self.state.read().base.info.seq != seq => tries += 1,
                Err(error) => {
                    if error.is_about_the_disk() {
                        let path = self.look(|layers, _| layers.path(ino)).ok().flatten().unwrap_or_default();
                        self.store.found.note(format!("{}: {error}", String::from_utf8_lossy(&path)));
                    }
                    return Err(error);
                }
            }
        }
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.look(|layers, _| layers.read_dir(dir, cookie, limit))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.look(|layers, _| {
            layers.inode(ino)?;
            Ok(layers.xattr(ino, name)?.ok_or(FsError::NoAttribute)?.1.value.into_vec())
        })
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.look(|layers, _| layers.xattrs(ino))
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.look(|layers, _| layers.seek(ino, offset, what))
    }
}

/// Pressure up to which nobody pauses, in thousandths.
const PRESSURE_FREE: u64 = 600;
/// What writers get in all when pauses begin, in bytes per second; about what sealing takes in.
const RATE_UNDER_PRESSURE: u64 = 400 << 20;
/// What they get when everything is full, in bytes per second.
const RATE_MIN: u64 = 20 << 20;
/// What an operation without data counts as, in bytes.
const OPERATION_BYTES: u64 = 4096;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The most bytes that one record writes.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// What a record may take besides the bytes that it carries.
const RECORD_BYTES: usize = 1024;
/// Bytes by which what was already taken may exceed the quota.
pub const TAKEN_BYTES_MAX: u64 = 40 << 20;
/// Room beyond which an operation is admitted by what was last known of the disk.
const ADMIT_BYTES: u64 = 16 << 20;
/// The most bytes that one step of a clone covers.
const CLONE_BYTES_MAX: u64 = 1 << 30;
/// The most pieces that one step of a clone covers.
const CLONE_PIECES_MAX: usize = 4096;
/// The most names that a file may have.
const LINKS_MAX: u32 = 1 << 30;

/// What an operation changes.
#[derive(Default)]
struct Decision {
    changes: Vec<Change>,
    files: i64,
    bytes: i64,
    orphan: Option<(Ino, u64)>,
}

impl Decision {
    fn inode(&mut self, ino: Ino, inode: &Inode) {
        self.changes.push(Change::PutInode(ino, inode.clone()));
    }

    fn dirent(&mut self, key: Key, ino: Ino, kind: FileKind, name: &[u8]) {
        let mut bytes = Vec::with_capacity(name.len() + 8);
        Dirent { ino, kind, name: name.into() }.encode(&mut bytes);
        self.changes.push(Change::Put(key, bytes.into()));
    }

    fn xattr(&mut self, key: Key, name: &[u8], value: &[u8]) {
        let mut bytes = Vec::with_capacity(name.len() + value.len() + 8);
        Xattr { name: name.into(), value: value.into() }.encode(&mut bytes);
        self.changes.push(Change::Put(key, bytes.into()));
    }

    fn drop_inode(&mut self, ino: Ino, inode: &Inode) {
        self.changes.push(Change::DropInode(ino));
        self.files -= 1;
        if inode.kind == FileKind::File {
            self.bytes -= inode.size as i64;
        }
    }
}

/// Changes attributes of an inode.
fn decide_attr(
    layers: &Layers<'_, Cached<'_>>,
    ino: Ino,
    set: SetAttr,
    now: Timestamp,
) -> Result<(Attr, Decision), Fault> {
    let mut inode = layers.inode(ino)?;
    let before = inode.clone();
    let mut decision = Decision::default();
    if let Some(size) = set.size {
        match inode.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FsError::IsADirectory.into()),
            _ => return Err(FsError::Invalid.into()),
        }
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        decision.bytes = size as i64 - inode.size as i64;
        inode.size = size;
        if set.mtime.is_none() {
            inode.mtime = now;
        }
    }
    if let Some(mode) = set.mode {
        inode.mode = mode & 0o7777;
    }
    if set.uid.is_some() || set.gid.is_some() {
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
    }
    if set.kill_suid {
        inode.mode = without_suid(inode.mode);
    }
    let time = |set: Option<SetTime>, old: Timestamp| match set {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::At(time)) => time,
    };
    inode.atime = time(set.atime, inode.atime);
    inode.mtime = time(set.mtime, inode.mtime);
    inode.ctime = set.ctime.unwrap_or(now);
    if inode != before || set.size.is_some() {
        decision.inode(ino, &inode);
    }
    if set.size.is_some() && inode.size < before.size {
        let len = u64::MAX;
        decision.changes.push(Change::Fill { ino, offset: inode.size, len, source: Source::Zero });
    }
    Ok((layers.attr_of(ino, inode)?, decision))
}

/// Takes one name from an inode; the entry itself is the caller's.
fn drop_name(
    layers: &Layers<'_, Cached<'_>>,
    decision: &mut Decision,
    dir: &mut Inode,
    at: (Ino, u64),
    ino: Ino,
    now: Timestamp,
) -> Result<(), Fault> {
    let mut inode = layers.inode(ino)?;
    inode.ctime = now;
    if inode.kind == FileKind::Directory {
        if inode.size != 0 {
            return Err(FsError::NotEmpty.into());
        }
        dir.nlink = dir.nlink.saturating_sub(1);
        inode.nlink = 0;
    } else {
        inode.nlink = inode.nlink.saturating_sub(1);
    }
    if inode.nlink > 0 {
        if (inode.parent, inode.home) == at {
            (inode.parent, inode.home) = (Ino(0), 0);
        }
        decision.inode(ino, &inode);
    } else {
        // Somebody may have it open, or hold it otherwise; the kernel tells when nobody does, mostly at once.
        decision.inode(ino, &inode);
        decision.changes.push(Change::Put(Key::orphan(ino), Box::default()));
        let bytes = if inode.kind == FileKind::File { inode.size } else { 0 };
        decision.orphan = Some((ino, bytes));
    }
    Ok(())
}

/// Moves an inode's known name along with the entry.
fn rehome(inode: &mut Inode, old: (Ino, u64), new: (Ino, u64)) {
    if inode.kind == FileKind::Directory || (inode.parent, inode.home) == old || inode.parent == Ino(0) {
        (inode.parent, inode.home) = new;
    }
}

/// Refuses to move a directory below itself.
fn refuse_loop(layers: &Layers<'_, Cached<'_>>, moved: Ino, to: Ino) -> Result<(), Fault> {
    let mut at = to;
    while at != Ino::ROOT {
        if at == moved {
            return Err(FsError::Invalid.into());
        }
        at = layers.inode(at)?.parent;
        if at == Ino(0) {
            return Err(FsError::NotFound.into());
        }
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

fn check_xattr(name: &[u8], value: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&0) {
        return Err(FsError::Invalid);
    }
    if value.len() > XATTR_BYTES_MAX { Err(FsError::AttributeTooLarge) } else { Ok(()) }
}

fn require_file(inode: &Inode) -> Result<(), FsError> {
    match inode.kind {
        FileKind::File => Ok(()),
        FileKind::Directory => Err(FsError::IsADirectory),
        _ => Err(FsError::Invalid),
    }
}

/// The mode after a write by someone who is not the owner: no setuid, no setgid of an executable.
fn without_suid(mode: u16) -> u16 {
    let mode = mode & !0o4000;
    if mode & 0o0010 != 0 { mode & !0o2000 } else { mode }
}

/// What stands in a manifest that has no arbiter.
pub(crate) const NO_STORE: StoreId = StoreId([0; 16]);

/// Reads a policy as the tree holds it.
pub(crate) fn read_policy(value: &[u8]) -> Result<Policy, FsError> {
    let text = layers::decode(decode_policy(value), "the policy of retention")?;
    // Writers store only what they understood.
    Policy::parse(text).map_err(|error| FsError::Newer(format!("the policy of retention `{text}`: {error}")))
}

/// Removes packs and manifests that were being written when the power went.
fn remove_leftovers(env: &Env) -> Result<(), OpenError> {
    for folder in ["packs", "manifests"] {
        let names =
            env.disk.list(folder).map_err(|source| OpenError::Disk { what: folder.to_string(), source })?;
        for name in names.iter().filter(|name| name.starts_with(".new")) {
            let path = format!("{folder}/{name}");
            env.disk.remove(&path).map_err(|source| OpenError::Disk { what: path, source })?;
        }
    }
    Ok(())
}
