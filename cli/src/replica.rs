//! Keeps a volume's stores up to its seals, and says how far each is.
//!
//! Invariants
//! - A store that is away, or cannot even be opened, holds back neither the volume nor another store.
//! - What is not safe is counted from the first change that no seal of the store holds, so an idle volume is never
//!   late, and a busy one is not excused by its last seal.
//! - Before a store has said what it has, what it lacks is counted from what was seen there last: who begins anew while it is
//!   away forgets nothing of what waits.
//! - A volume that another device took over is sealed for the last time and takes no more changes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fs_crypto::VolumeKey;
use fs_format::claim::{BOUNDARY_CONTEXT, Boundary, CLAIM_CONTEXT, Claim};
use fs_format::pack::PACK_BYTES_MAX;
use fs_format::{Epoch, ManifestId, PackId, Seq, VolumeId};
use fs_replication::{
    Collected, Commit, Error, Fenced, GivenUp, Handle, Held, Link, Local, LocalError, Pace, Progress, Role,
    Settings, Signer, Slot, State as Doing, Uploader,
};
use fs_store::{Patience, Patient, READ_TIME_MAX};
use fs_volume::{FsError, History, SealInfo, SealPace, Volume};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::elsewhere::Look;
use crate::failure::{Context, Failure, Kind, Result};
use crate::retention::StorePruned;
use crate::state::{State, VolumeFolder, make_private_dir, remove_file_if_there, replace, sync_dir};
use crate::stores::{self, StoreConfig};
use crate::{engine, keys, resting};

/// How often what changed is sealed where it goes to stores, if nobody says otherwise.
pub const SEND_EVERY: Duration = Duration::from_secs(15);
/// How long sealing and sending may take before a volume is loud.
const SENDING: Duration = Duration::from_secs(45);
/// How often what is not safe is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a volume that is late says so in the log.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long somebody who asks for it waits for the arbiter to say whether the volume is still written here.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
/// Pause before a store that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(30);
/// How what is said begins of a volume that is written here no more.
pub const TAKEN_OVER: &str = "another device took the volume over";
/// How long a store may take to say what it has of some packs.
const LENGTHS_WAIT: Duration = Duration::from_secs(3);
/// Threads that wait for stores; sending is mostly waiting.
const THREADS: usize = 2;

/// How far a store of a volume is, as `comb status` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Whether it decides who may write.
    pub arbiter: bool,
    /// What is done: `starting`, `sending`, `replicated`, `waiting`, `fenced`, `not-open`. Of a volume at rest `not-mounted`, or
    /// `unknown` where nobody knows what it has; `no-answer` where its daemon does not tell; `followed` where another device
    /// writes it.
    pub state: String,
    /// The last seal that it has; of a store that is followed, that was seen there last.
    pub replicated_seq: Option<u64>,
    /// Up to when all changes are in it, RFC 3339; none if it has nothing yet.
    pub safe_as_of: Option<String>,
    /// For how long there have been changes that it lacks, in seconds.
    pub unsafe_seconds: f64,
    /// Bytes that it lacks: packs on their way, and what is not sealed.
    pub unsafe_bytes: u64,
    /// Bytes a second that go there now.
    pub rate: u64,
    /// Bytes of packs that were sent since the mount began.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Within how many seconds a change is promised to be in it: the pause before a seal, and sending.
    #[serde(default)]
    pub promised_seconds: f64,
    /// By how many seconds it is later than that.
    #[serde(default)]
    pub late_seconds: f64,
    /// Whether it is later than promised.
    pub behind: bool,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How many seconds ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_seconds_ago: Option<f64>,
    /// In how many seconds it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_seconds: Option<f64>,
    /// Whether it has said that it has what is told of it, since somebody asked for that last (`comb sync`).
    #[serde(default)]
    pub verified: bool,
    /// For how long a store that is followed has not been seen; none if it was when it was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_seconds: Option<f64>,
    /// Whether trying again will not help before somebody mends it.
    pub needs_somebody: bool,
}

impl StoreReport {
    /// A store of which nothing is known.
    pub fn new(store: &StoreConfig, state: &str) -> Self {
        Self {
            name: store.name.clone(),
            url: store.url.clone(),
            arbiter: store.arbiter,
            state: state.into(),
            replicated_seq: None,
            safe_as_of: None,
            unsafe_seconds: 0.0,
            unsafe_bytes: 0,
            rate: 0,
            sent_bytes: 0,
            promised_seconds: Promise::USUAL.seconds(),
            late_seconds: 0.0,
            behind: false,
            last_error: None,
            last_error_seconds_ago: None,
            next_try_seconds: None,
            verified: false,
            unseen_seconds: None,
            needs_somebody: false,
        }
    }

    /// A store of a volume that another device writes: what was seen there last is shown here.
    pub fn followed(folder: &VolumeFolder, store: &StoreConfig) -> Self {
        match Seen::read(folder, &store.name) {
            Ok(seen) => Self { replicated_seq: seen.map(|seen| seen.seq), ..Self::new(store, "followed") },
            // Nothing new of it is shown before somebody says what to believe.
            Err(failure) => Self::new(store, "unknown").with_error(failure),
        }
    }

    /// With what came of the looks at it, if the last one failed.
    pub fn with_look(self, look: Option<Look>) -> Self {
        let Some(Look { seen, failure: Some((failure, at)) }) = look else { return self };
        let passes = matches!(failure.kind, Kind::Unreachable | Kind::Other);
        Self {
            last_error: Some(in_one_line(failure)),
            last_error_seconds_ago: Some(at.elapsed().as_secs_f64()),
            unseen_seconds: Some(seen.elapsed().as_secs_f64()),
            needs_somebody: self.needs_somebody || !passes,
            ..self
        }
    }

    /// With what somebody must mend.
    pub fn with_error(self, failure: Failure) -> Self {
        Self { last_error: Some(in_one_line(failure)), needs_somebody: true, ..self }
    }

    /// Whether nobody knows that it has this seal: it did not say so since it was asked.
    pub fn may_lack(&self, seq: u64) -> bool {
        self.replicated_seq < Some(seq) || self.needs_somebody || !self.verified
    }

    /// Whether it is no use to wait for this store, as was found within this time.
    pub fn is_stuck(&self, within: Duration) -> bool {
        let found = self.last_error_seconds_ago.is_some_and(|ago| ago < within.as_secs_f64());
        self.needs_somebody && found
    }
}

/// What happened, and what to do.
fn in_one_line(failure: Failure) -> String {
    match failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message,
    }
}

/// What went wrong between a volume and a store, and what to do about it.
fn told(volume: &VolumeFolder, store: &StoreConfig, error: &Error) -> String {
    let is_denied = matches!(error, Error::Store(error) if error.kind() == fs_store::Kind::Denied);
    let told = denied_to(store, is_denied, error.to_string());
    let accept = format!("`comb sync {} --accept-rollback`", volume.name);
    match error {
        Error::RolledBack { .. } => format!("{told}; {accept} sends again what it lacks"),
        Error::UnknownVolume { .. } => format!("{told} if it was, {accept} sends everything anew"),
        _ => told,
    }
}

/// Says with a refusal whose credentials were refused: those that somebody has just set in his terminal are not the daemon's.
fn denied_to(store: &StoreConfig, is_denied: bool, told: String) -> String {
    if !is_denied || store.url.starts_with("file:") {
        return told;
    }
    format!(
        "{told}; a daemon has the environment of the `comb mount` that started it, and looks for credentials then: mount the \
         volume again where they are right"
    )
}

/// How soon a change is in the stores.
///
/// What is promised follows from how often the volume is sealed: whoever wants fewer seals waits longer for each change, and is
/// not told that this is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// None seals only when asked: then what is sealed is promised, and no more.
    pub seal_every: Option<Duration>,
}

impl Promise {
    /// That of a volume of which nothing else was said.
    pub const USUAL: Self = Self { seal_every: Some(SEND_EVERY) };

    /// From the oldest change on; from the oldest seal on, where nobody knows when the next is made.
    pub fn seconds(&self) -> f64 {
        (self.seal_every.unwrap_or_default() + SENDING).as_secs_f64()
    }

    /// By how many seconds a store is late that lacks changes since then, and seals since then, in nanoseconds since 1970.
    pub fn late_seconds(&self, now: i64, changes: Option<i64>, seals: Option<i64>) -> f64 {
        let since = if self.seal_every.is_some() { changes } else { seals };
        since.map_or(0.0, |since| (seconds_since(since, now) - self.seconds()).max(0.0))
    }
}

/// The seconds between two moments, in nanoseconds since 1970; none if a clock was set back.
pub fn seconds_since(then: i64, now: i64) -> f64 {
    now.saturating_sub(then).max(0) as f64 / 1e9
}

/// When the oldest change was made that is in no seal, or in none that a store has.
///
/// Times are nanoseconds since 1970.
#[derive(Debug, Default)]
struct Changes {
    unsealed_since: Option<i64>,
    /// Seals that a store lacked when this began, and those since.
    sealed: VecDeque<SealedChanges>,
}

/// A seal, when it was made, and the oldest change in it.
#[derive(Debug)]
struct SealedChanges {
    seq: Seq,
    sealed: i64,
    oldest: i64,
    /// What it added.
    bytes: u64,
}

/// Seals that are remembered one by one; the oldest of more count as one.
const SEALS_KEPT: usize = 4096;

impl Changes {
    fn look(&mut self, is_dirty: bool, now: i64) {
        if is_dirty {
            self.unsealed_since.get_or_insert(now);
        }
    }

    fn seal(&mut self, seq: Seq, sealed: i64, bytes: u64) {
        let oldest = self.unsealed_since.take().unwrap_or(sealed);
        // One that was just read from the disk is known.
        if self.sealed.back().is_none_or(|last| last.seq < seq) {
            self.sealed.push_back(SealedChanges { seq, sealed, oldest, bytes });
            self.keep_some();
        }
    }

    /// Takes in seals of before, oldest first. When their changes were made is not known: no later than they were.
    fn seals_before(&mut self, seals: &[SealInfo]) {
        let first = self.sealed.front().map(|seal| seal.seq);
        for seal in seals.iter().rev().filter(|seal| first.is_none_or(|first| seal.seq < first)) {
            let (sealed, bytes) = (seal.time.0, seal.added);
            self.sealed.push_front(SealedChanges { seq: seal.seq, sealed, oldest: sealed, bytes });
        }
        self.keep_some();
    }

    fn keep_some(&mut self) {
        while self.sealed.len() > SEALS_KEPT {
            // The oldest change stays; that it counts for a later seal makes a store look later, never earlier.
            let left = self.sealed.pop_front();
            if let (Some(left), Some(first)) = (left, self.sealed.front_mut()) {
                (first.sealed, first.oldest) = (left.sealed, left.oldest);
                first.bytes += left.bytes;
            }
        }
    }

    /// The oldest seal that a store with seals up to this one lacks.
    fn missing(&self, replicated: Option<Seq>) -> Option<&SealedChanges> {
        self.sealed.iter().find(|seal| Some(seal.seq) > replicated)
    }

    /// The oldest change that a store with seals up to this one lacks.
    fn oldest_missing(&self, replicated: Option<Seq>) -> Option<i64> {
        self.missing(replicated).map(|seal| seal.oldest).or(self.unsealed_since)
    }

    /// Bytes of the seals that a store with seals up to this one lacks.
    fn bytes_missing(&self, replicated: Option<Seq>) -> u64 {
        self.sealed.iter().filter(|seal| Some(seal.seq) > replicated).map(|seal| seal.bytes).sum()
    }

    fn forget(&mut self, everywhere: Seq) {
        while self.sealed.front().is_some_and(|seal| seal.seq <= everywhere) {
            self.sealed.pop_front();
        }
    }
}

/// One store at work.
struct Running {
    config: StoreConfig,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// The newest seal that it was known to have when this began.
    seen: Option<Seq>,
}

impl Running {
    /// The newest seal that it is known to have: as it says, and before it says anything, as was seen there last.
    fn known(&self, progress: Option<&Progress>) -> Option<Seq> {
        progress.and_then(|progress| progress.replicated).or(self.seen)
    }

    /// The newest seal that the store has.
    fn replicated(&self) -> Option<Seq> {
        self.progress().and_then(|progress| progress.replicated)
    }

    fn progress(&self) -> Option<Progress> {
        let at_work = self.shared.at_work.lock();
        at_work.uploader.as_ref().map(|uploader| uploader.progress().borrow().clone())
    }

    fn store(&self) -> (StoreConfig, Option<Patient>) {
        (self.config.clone(), self.shared.at_work.lock().store.clone())
    }
}

/// What a store's task lets others know.
#[derive(Default)]
struct Shared {
    at_work: Mutex<AtWork>,
    /// Ends the pause before a store is opened again.
    hurry: Notify,
}

struct NotOpen {
    why: String,
    passes: bool,
    at: Instant,
}

#[derive(Default)]
struct AtWork {
    uploader: Option<Handle>,
    /// The store, for what else there is to do in it.
    store: Option<Patient>,
    /// Why it is not open, and when that was found.
    not_open: Option<NotOpen>,
    fenced: Option<String>,
}

/// What a store lacks and takes, for whoever waits for room.
#[derive(Debug, Clone, Default)]
pub struct Taker {
    /// Its name.
    pub name: String,
    /// Bytes of the seals that it lacks.
    pub lacks: u64,
    /// The newest seal that it said to have, 0 for none.
    pub replicated: Seq,
    /// Grows with each pack and each seal that it takes.
    pub taken: u64,
    /// Whether something is being sent to it.
    pub is_sending: bool,
    /// When something went wrong there last.
    pub failed: Option<std::time::Instant>,
}

/// The store that decides.
pub struct Arbiter {
    /// What it is called, and which it is.
    pub config: StoreConfig,
    store: Patient,
}

/// Replicates one mounted volume to its stores.
pub struct Replicas {
    core: Arc<Core>,
    running: Mutex<Vec<Running>>,
    /// When somebody last asked whether the stores have what is told of them.
    asked: Mutex<Option<Instant>>,
    /// Packs that were given up, and that a store has no more, by the store's id.
    cleared: Mutex<HashMap<String, HashSet<PackId>>>,
    /// Ended without waiting: a store that says nothing holds back no unmount.
    runtime: Option<Runtime>,
}

struct Core {
    volume: Arc<Volume>,
    folder: VolumeFolder,
    key: VolumeKey,
    /// The pseudonym of this machine in the volume.
    device: [u8; 16],
    changes: Mutex<Changes>,
    rate: Option<u64>,
    /// How often it is sealed.
    pace: SealPace,
    /// Collects what was written and did not reach the volume yet, before it takes no more.
    before_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Core {
    /// Writes down what was seen in a store, and what somebody must mend there.
    fn note(&self, store: &StoreConfig, progress: &Progress) -> Result<()> {
        if let Some(seen) = &progress.seen {
            Seen::of(seen).write(&self.folder, &store.name)?;
        }
        match &progress.halted {
            Some(error) => Halted {
                why: told(&self.folder, store, error),
                lost_above: error.lost().map(|has| has.map_or(0, |has| has.0)),
                noticed: jiff::Timestamp::now().to_string(),
            }
            .write(&self.folder, &store.name),
            None if progress.verified_at.is_some() => Halted::forget(&self.folder, &store.name),
            None => Ok(()),
        }
    }

    /// The newest seal that a store is known to have before it is asked.
    fn seen(&self, store: &StoreConfig) -> Option<Seq> {
        match (Seen::read(&self.folder, &store.name), Halted::read(&self.folder, &store.name)) {
            (Ok(seen), halted) => {
                let seen = seen.map(|seen| Seq(seen.seq));
                halted.ok().flatten().map_or(seen, |halted| halted.left_of(seen))
            }
            // Nothing is sent there before somebody says what to believe, which is loud at once, so until then nothing is counted.
            (Err(_), _) => Some(self.volume.head().seq),
        }
    }

    /// Ends the writing, since another device took the volume over. Returns what is to be said of it.
    ///
    /// What is not sealed yet belongs to what was not replicated, and is kept like it.
    fn end(&self, fenced: &Fenced) -> String {
        if let Some(collect) = self.before_end.lock().take() {
            collect();
        }
        let has_more = self.volume.head().seq >= fenced.at || self.volume.is_dirty();
        let rest = match has_more {
            true => format!("what is here from seal {} on becomes a branch", fenced.at),
            false => "it has all that was written here".to_owned(),
        };
        let why = format!("{TAKEN_OVER}: {fenced}; {rest}");
        if let Err(error) = self.volume.end_writing(&why) {
            tracing::error!(%error, "the last changes are not sealed; the journal keeps them");
        }
        why
    }

    fn pen(&self) -> Pen {
        Pen { key: self.key.clone(), volume: self.volume.id(), device: self.device }
    }
}

impl Replicas {
    /// Begins to replicate a volume to the stores of its config.
    pub fn start(
        state: &State,
        volume: &Arc<Volume>,
        folder: &VolumeFolder,
        rate: Option<u64>,
        pace: SealPace,
    ) -> Result<Arc<Self>> {
        let core = Arc::new(Core {
            volume: volume.clone(),
            folder: folder.clone(),
            key: keys::load(folder)?,
            device: keys::device(state)?.pseudonym(&folder.id).0,
            changes: Mutex::default(),
            rate,
            pace,
            before_end: Mutex::default(),
        });
        let replicas = Arc::new(Self {
            core,
            running: Mutex::default(),
            asked: Mutex::default(),
            cleared: Mutex::default(),
            runtime: Some(stores::runtime(THREADS)?),
        });
        if volume.is_dirty() {
            // What a daemon that died left in the journal was changed before this one began.
            let begun = resting::journal_begun(folder).unwrap_or(i64::MAX).min(engine::now_nanos());
            replicas.core.changes.lock().look(true, begun.max(volume.head().time.0));
        }
        replicas.restart()?;
        let weak = Arc::downgrade(&replicas);
        volume.on_seal(move |info| {
            if let Some(replicas) = weak.upgrade() {
                replicas.core.changes.lock().seal(info.seq, info.time.0, info.added);
                for running in replicas.running.lock().iter() {
                    if let Some(uploader) = &running.shared.at_work.lock().uploader {
                        uploader.sealed();
                    }
                }
            }
        });
        let weak = Arc::downgrade(&replicas);
        std::thread::Builder::new()
            .name("comb-late".into())
            .spawn(move || {
                let mut said: Option<Instant> = None;
                loop {
                    std::thread::sleep(LOOK_EVERY);
                    let Some(replicas) = weak.upgrade() else { return };
                    replicas.look(&mut said);
                }
            })
            .context("starting a thread")?;
        Ok(replicas)
    }

    /// Begins anew with what the config says now, and what it says was seen.
    pub fn restart(&self) -> Result<()> {
        let config = self.core.folder.config()?;
        // Who only looks has nothing to send; a branch is not in the volume.
        let is_mine = !config.follows && self.core.folder.name.branch().is_none();
        let wanted = if is_mine { config.stores } else { Vec::new() };
        self.name_arbiter(&wanted)?;
        // What was removed from a store that was put back in time, or is added again, is there again.
        self.cleared.lock().clear();
        let mut running = self.running.lock();
        for one in running.drain(..) {
            one.task.abort();
            if wanted.iter().all(|wanted| wanted.name != one.config.name) {
                // Whoever parts from a store wants to know what it had.
                self.note(&one);
            }
        }
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let seen: Vec<Option<Seq>> = wanted.iter().map(|store| self.core.seen(store)).collect();
        if let Some(everywhere) = seen.iter().min() {
            match self.core.volume.history().seals_above(*everywhere) {
                Ok(seals) => self.core.changes.lock().seals_before(&seals),
                Err(error) => tracing::warn!(%error, "what stores lack of before is not known"),
            }
        }
        for (config, seen) in wanted.into_iter().zip(seen) {
            let shared = Arc::<Shared>::default();
            let work = keep(self.core.clone(), config.clone(), shared.clone());
            running.push(Running { config, shared, task: runtime.spawn(work), seen });
        }
        Ok(())
    }

    /// Writes into the volume which store decides who may write it, if that changed.
    fn name_arbiter(&self, stores: &[StoreConfig]) -> Result<()> {
        let volume = &self.core.volume;
        let arbiter = stores.iter().find(|store| store.arbiter).map(StoreConfig::store_id).transpose()?;
        let arbiter = arbiter.map(|id| fs_format::StoreId(id.0));
        if volume.read_only_reason().is_some() || volume.arbiter() == arbiter {
            return Ok(());
        }
        let named = volume.set_arbiter(arbiter);
        named.map(drop).map_err(|error| engine::fs_failure(&self.core.folder.name, &error))
    }

    /// Calls this before the volume takes no more changes, because another device has taken it over.
    pub fn before_end(&self, collect: impl FnOnce() + Send + 'static) {
        *self.core.before_end.lock() = Some(Box::new(collect));
    }

    /// Ends pauses after errors.
    pub fn hurry(&self) {
        for running in self.running.lock().iter() {
            running.shared.hurry.notify_one();
            if let Some(uploader) = &running.shared.at_work.lock().uploader {
                uploader.hurry();
            }
        }
    }

    /// Ends pauses after errors, and waits a moment for the arbiter to say whether the volume is still written here.
    ///
    /// A failure where another device took it over; what the arbiter cannot say now, it says later.
    pub fn confirm(&self) -> Result<()> {
        let asked = Instant::now();
        *self.asked.lock() = Some(asked);
        self.hurry();
        while asked.elapsed() < CONFIRM_WAIT {
            let arbiter =
                self.running.lock().iter().find(|one| one.config.arbiter).map(|one| one.shared.clone());
            let Some(arbiter) = arbiter else { return Ok(()) };
            {
                let at_work = arbiter.at_work.lock();
                if let Some(why) = &at_work.fenced {
                    return Err(Failure::new(Kind::NotPermitted, why.clone()));
                }
                let Some(uploader) = &at_work.uploader else { return Ok(()) };
                let progress = uploader.progress().borrow().clone();
                let is_in_vain = progress.trouble.as_ref().is_some_and(|trouble| trouble.at >= asked);
                if is_in_vain || progress.confirmed_at >= Some(asked) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How far each store is.
    pub fn reports(&self) -> Vec<StoreReport> {
        let now = engine::now_nanos();
        self.core.changes.lock().look(self.core.volume.is_dirty(), now);
        let dirty = self.core.volume.status().dirty_bytes;
        self.running.lock().iter().map(|one| self.report(one, now, dirty)).collect()
    }

    fn report(&self, running: &Running, now: i64, dirty: u64) -> StoreReport {
        let at_work = running.shared.at_work.lock();
        let progress = at_work.uploader.as_ref().map(|uploader| uploader.progress().borrow().clone());
        let clock = Instant::now();
        let ago = |then: Instant| clock.saturating_duration_since(then).as_secs_f64();
        let replicated = progress.as_ref().and_then(|progress| progress.replicated);
        let known_to_have = running.known(progress.as_ref());
        let pending = progress.as_ref().map(|progress| progress.pending).unwrap_or_default();
        // Of a store that lost what it had, the uploader alone knows since when.
        let before = pending.oldest.map(|oldest| oldest.0);
        let unknown = progress.as_ref().is_none_or(|progress| progress.state == Doing::Starting);
        let head = self.core.volume.head();
        let head_missing = known_to_have.is_none_or(|seq| seq < head.seq) && unknown;
        let known: Vec<i64> = before.into_iter().chain(head_missing.then_some(head.time.0)).collect();
        let (changes, seals, sealed_bytes) = {
            let changes = self.core.changes.lock();
            let seals = changes.missing(known_to_have).map(|seal| seal.sealed);
            (changes.oldest_missing(known_to_have), seals, changes.bytes_missing(known_to_have))
        };
        // What is sent of a seal counts as sent; but during a pause the uploader takes in no new ones.
        let is_paused = progress.as_ref().is_some_and(|one| matches!(one.state, Doing::Waiting { .. }));
        let sealed_bytes = if unknown || is_paused { sealed_bytes.max(pending.bytes) } else { pending.bytes };
        let oldest = |lacking: Option<i64>| lacking.into_iter().chain(known.iter().copied()).min();
        let since = oldest(changes);
        let unsafe_seconds = since.map_or(0.0, |since| seconds_since(since, now));
        let promise = Promise { seal_every: self.core.pace.get() };
        let late_seconds = promise.late_seconds(now, since, oldest(seals));
        let trouble = progress.as_ref().and_then(|progress| progress.trouble.clone());
        let halted = progress.as_ref().and_then(|progress| progress.halted.clone());
        let needs_somebody = match &at_work.not_open {
            Some(not_open) => !not_open.passes,
            None => halted.is_some(),
        };
        let (last_error, last_error_seconds_ago) = match (&at_work.not_open, trouble) {
            (Some(not_open), _) => (Some(not_open.why.clone()), Some(ago(not_open.at))),
            (None, Some(trouble)) => {
                // What somebody must mend is not mended because the store cannot be reached now.
                let error = halted.as_ref().unwrap_or(&trouble.error);
                (Some(told(&self.core.folder, &running.config, error)), Some(ago(trouble.at)))
            }
            (None, None) => (None, None),
        };
        let (state, next_try_seconds) = match progress.as_ref().map(|progress| progress.state) {
            _ if at_work.fenced.is_some() => ("fenced", None),
            None if at_work.not_open.is_some() => {
                ("not-open", last_error_seconds_ago.map(|ago| (OPEN_AGAIN.as_secs_f64() - ago).max(0.0)))
            }
            None | Some(Doing::Starting) => ("starting", None),
            Some(Doing::Sending) => ("sending", None),
            Some(Doing::Done) => ("replicated", None),
            Some(Doing::Waiting { next_try }) => {
                ("waiting", Some(next_try.saturating_duration_since(clock).as_secs_f64()))
            }
            // Not yet told: its last changes are being sealed.
            Some(Doing::Fenced(_)) => ("sending", None),
        };
        StoreReport {
            name: running.config.name.clone(),
            url: running.config.url.clone(),
            arbiter: running.config.arbiter,
            state: state.into(),
            replicated_seq: replicated.map(|seq| seq.0),
            safe_as_of: replicated
                .map(|_| crate::output::time_utc(since.map_or(now, |since| since.min(now)))),
            unsafe_seconds,
            unsafe_bytes: sealed_bytes + dirty,
            rate: progress.as_ref().map_or(0, |progress| progress.rate),
            sent_bytes: progress.as_ref().map_or(0, |progress| progress.sent_bytes),
            promised_seconds: promise.seconds(),
            late_seconds,
            // One that takes nothing before somebody mends it is told before something is late.
            behind: late_seconds > 0.0 || at_work.fenced.is_some() || needs_somebody,
            last_error: at_work.fenced.clone().or(last_error),
            last_error_seconds_ago,
            next_try_seconds,
            verified: progress
                .and_then(|progress| progress.verified_at)
                .is_some_and(|at| Some(at) >= *self.asked.lock()),
            unseen_seconds: None,
            needs_somebody,
        }
    }

    /// What is looked at every second.
    fn look(&self, said: &mut Option<Instant>) {
        let reports = self.reports();
        let everywhere = reports.iter().map(|report| report.replicated_seq).min().flatten();
        if let Some(seq) = everywhere {
            self.core.changes.lock().forget(Seq(seq));
        }
        let late = reports.iter().filter(|report| report.behind);
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            for report in late {
                *said = Some(Instant::now());
                tracing::error!(
                    store = report.name,
                    seconds = report.unsafe_seconds,
                    promised = report.promised_seconds,
                    bytes = report.unsafe_bytes,
                    error = report.last_error,
                    "volume {} is not safe: the store is later than promised",
                    self.core.folder.name
                );
            }
        }
    }

    /// The newest seal that every store has, 0 if one has none; nothing for a volume without stores.
    pub fn replicated(&self) -> Option<Seq> {
        self.running.lock().iter().map(|one| one.replicated().unwrap_or_default()).min()
    }

    /// Whether another device took the volume over, and the last changes are being sealed.
    fn is_ending(&self) -> bool {
        let is_fenced = |one: &Running| one.progress().is_some_and(|progress| progress.fenced().is_some());
        self.running.lock().iter().any(is_fenced)
    }

    /// What each store lacks and takes.
    pub fn takers(&self) -> Vec<Taker> {
        let running = self.running.lock();
        let told = running.iter().map(|one| {
            let progress = one.progress();
            (one.config.name.clone(), one.known(progress.as_ref()), progress)
        });
        let told: Vec<(String, Option<Seq>, Option<Progress>)> = told.collect();
        drop(running);
        let changes = self.core.changes.lock();
        let taker = |(name, known, progress): (String, Option<Seq>, Option<Progress>)| {
            let Some(progress) = progress else {
                return Taker { name, lacks: changes.bytes_missing(known), ..Taker::default() };
            };
            Taker {
                name,
                // What a store has lost is known to the uploader alone.
                lacks: changes.bytes_missing(known).max(progress.pending.bytes),
                replicated: progress.replicated.unwrap_or_default(),
                taken: progress.sent_bytes + progress.replicated.map_or(0, |seq| seq.0),
                is_sending: progress.state == Doing::Sending,
                failed: progress.trouble.map(|trouble| trouble.at.into_std()),
            }
        };
        told.into_iter().map(taker).collect()
    }

    /// The names of the stores that are furthest behind, of those that lack something.
    pub fn lacking(&self) -> Vec<String> {
        let head = self.core.volume.head().seq;
        let running = self.running.lock();
        let least = running.iter().map(Running::replicated).min().flatten();
        let lacking = running.iter().filter(|one| one.replicated() < Some(head) && one.replicated() <= least);
        lacking.map(|one| format!("\"{}\"", one.config.name)).collect()
    }

    /// Has what is sealed sent without waiting for the end of a pause after an error that is over.
    pub fn send_now(&self) {
        for running in self.running.lock().iter() {
            if let Some(uploader) = &running.shared.at_work.lock().uploader {
                uploader.sealed();
            }
        }
    }

    /// The store that decides, if it is open.
    pub fn arbiter(&self) -> Option<Arbiter> {
        let running = self.running.lock();
        let (config, store) = running.iter().find(|one| one.config.arbiter)?.store();
        Some(Arbiter { config, store: store? })
    }

    /// The lengths of these packs in the store that decides, as it lists them now; those that it has.
    pub fn lengths(&self, arbiter: &Arbiter, packs: &[PackId]) -> Result<HashMap<PackId, u64>> {
        let Some(runtime) = &self.runtime else { return Ok(HashMap::new()) };
        let store = arbiter.store.with(Patience::Within(LENGTHS_WAIT));
        let remote = stores::remote(&store, self.core.volume.id());
        runtime.block_on(async {
            let fail = |error: Error| stores::replication_failure(&error);
            // Something else may be there by now.
            remote.recognise(arbiter.config.store_id()?).await.map_err(fail)?;
            let mut asked = JoinSet::new();
            for pack in packs {
                let (remote, pack) = (remote.clone(), *pack);
                asked.spawn(async move { (pack, remote.pack_bytes(&pack).await) });
            }
            let mut lengths = HashMap::new();
            while let Some(answer) = asked.join_next().await {
                let (pack, bytes) = answer.map_err(|error| Failure::other(error.to_string()))?;
                lengths.extend(bytes.map_err(fail)?.map(|bytes| (pack, bytes)));
            }
            Ok(lengths)
        })
    }

    /// Packs that were given up, and that no store has any more.
    pub fn cleared(&self) -> Vec<PackId> {
        let running = self.running.lock();
        let cleared = self.cleared.lock();
        let mut stores = running.iter().map(|running| cleared.get(&running.config.id));
        let Some(mut packs) = stores.next().flatten().cloned() else { return Vec::new() };
        stores.for_each(|others| packs.retain(|pack| others.is_some_and(|others| others.contains(pack))));
        packs.into_iter().collect()
    }

    /// Writes down what was seen in the stores; otherwise that is done about once a second.
    pub fn note_seen(&self) {
        self.running.lock().iter().for_each(|running| self.note(running));
    }

    fn note(&self, running: &Running) {
        if let Some(progress) = running.progress()
            && let Err(failure) = self.core.note(&running.config, &progress)
        {
            tracing::warn!(error = failure.message, "what was seen is not written down");
        }
    }

    /// Removes from every store what was given up by a seal that all of them have, and was not removed there yet.
    pub fn collect(&self, given_up: &GivenUp) -> Vec<StorePruned> {
        let Some(runtime) = &self.runtime else { return Vec::new() };
        let (epoch, pen) = (self.core.volume.epoch(), self.core.pen());
        let all: HashSet<PackId> = given_up.packs.iter().copied().collect();
        let mut pruned = Vec::new();
        let stores: Vec<_> = self.running.lock().iter().map(Running::store).collect();
        for (config, store) in stores {
            let done = self.cleared.lock().get(&config.id).cloned().unwrap_or_default();
            let packs = given_up.packs.iter().filter(|pack| !done.contains(*pack)).copied().collect();
            let given_up = GivenUp { packs, ..given_up.clone() };
            let collected = match store {
                Some(store) => {
                    let remote = stores::remote(&store.with(Patience::Within(READ_TIME_MAX)), pen.volume);
                    let collect = async {
                        // Something else may be there by now, in which nothing is ours to remove.
                        remote
                            .recognise(config.store_id()?)
                            .await
                            .map_err(|error| stores::replication_failure(&error))?;
                        remote
                            .collect(epoch, &pen, &given_up)
                            .await
                            .map_err(|error| stores::replication_failure(&error))
                    };
                    runtime.block_on(collect).map_err(|failure| failure.message)
                }
                None => Err("it is not open".to_owned()),
            };
            match &collected {
                Ok(_) => drop(self.cleared.lock().insert(config.id, all.clone())),
                Err(error) => {
                    tracing::warn!(
                        store = config.name,
                        error,
                        "what was dropped is not removed from the store"
                    );
                }
            }
            let Collected { packs, slots: moments } = collected.as_ref().copied().unwrap_or_default();
            pruned.push(StorePruned { store: config.name, packs, moments, error: collected.err() });
        }
        pruned
    }

    /// Waits until every store has this seal, or cannot get it before somebody mends something; says which has not. Meanwhile `tell`
    /// is called with those that it waits for.
    pub fn wait(&self, seq: Seq, limit: Duration, tell: &mut dyn FnMut(&[&StoreReport])) -> Result<()> {
        let begun = Instant::now();
        loop {
            let reports = self.reports();
            let lacking: Vec<&StoreReport> =
                reports.iter().filter(|report| report.replicated_seq < Some(seq.0)).collect();
            // Also where nothing is lacking: whoever waits wants to know that he writes the volume no more.
            if let Some(fenced) = reports.iter().find(|report| report.state == "fenced") {
                return Err(Failure::new(Kind::NotPermitted, fenced.last_error.clone().unwrap_or_default()));
            }
            if self.is_ending() {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            if lacking.is_empty() {
                return Ok(());
            }
            let waited = begun.elapsed();
            if waited >= limit || lacking.iter().all(|report| report.is_stuck(waited)) {
                let names: Vec<&str> = lacking.iter().map(|report| report.name.as_str()).collect();
                let why = lacking.iter().find_map(|report| report.last_error.clone());
                return Err(Failure::new(
                    Kind::Behind,
                    format!(
                        "seal {seq} is not yet in {}{}",
                        names.join(", "),
                        why.map_or_else(String::new, |why| format!(": {why}"))
                    ),
                ));
            }
            tell(&lacking);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        for running in self.running.get_mut() {
            running.task.abort();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Keeps one store up to the volume, for as long as the volume may be written.
async fn keep(core: Arc<Core>, config: StoreConfig, shared: Arc<Shared>) {
    loop {
        match begin(&core, &config).await {
            Ok((store, (uploader, handle))) => {
                *shared.at_work.lock() =
                    AtWork { uploader: Some(handle.clone()), store: Some(store), ..AtWork::default() };
                // It ends with this task: a store that somebody forgets is not written down again.
                let mut seen = JoinSet::new();
                seen.spawn(keep_seen(core.clone(), config.clone(), handle));
                let fenced = uploader.run().await;
                drop(seen);
                let ending = core.clone();
                let ended = tokio::task::spawn_blocking(move || ending.end(&fenced));
                let why = ended.await.unwrap_or_else(|_| {
                    tracing::error!("ending the writing panicked");
                    format!("{TAKEN_OVER}: {fenced}")
                });
                // Last, so that whoever is told finds the last seal, and a crash before lets it be found again.
                if let Err(failure) = note_fenced(&core.folder, &fenced) {
                    tracing::warn!(
                        error = failure.message,
                        "that the volume was taken over is not written down"
                    );
                }
                shared.at_work.lock().fenced = Some(why);
                return;
            }
            Err(failure) => {
                tracing::warn!(store = config.name, error = failure.message, "the store cannot be opened");
                let passes = matches!(failure.kind, Kind::Unreachable | Kind::Other);
                let is_denied = failure.kind == Kind::NotPermitted;
                let why = denied_to(&config, is_denied, in_one_line(failure));
                shared.at_work.lock().not_open = Some(NotOpen { why, passes, at: Instant::now() });
                let _ = tokio::time::timeout(OPEN_AGAIN, shared.hurry.notified()).await;
            }
        }
    }
}

async fn begin(core: &Arc<Core>, config: &StoreConfig) -> Result<(Patient, (Uploader, Handle))> {
    let store = stores::open_to_write(&config.url, &core.key).await?;
    // 0 takes away for one mount what the config says.
    store.limit_rate(core.rate.or(config.rate).filter(|rate| *rate > 0));
    let outbox = Outbox { history: core.volume.history(), folder: core.folder.clone() };
    let settings = Settings {
        volume: core.volume.id(),
        epoch: core.volume.epoch(),
        role: if config.arbiter { Role::Arbiter } else { Role::Copy },
        id: Some(config.store_id()?),
        seen: Seen::read(&core.folder, &config.name)?.map(|seen| seen.link()).transpose()?,
        pace: Pace::default(),
        seed: stores::seed()?,
    };
    let sending = Arc::new(store.clone());
    Ok((store, Uploader::new(sending, Arc::new(outbox), Arc::new(core.pen()), settings)))
}

/// Writes down what was seen in a store, each time that is more.
async fn keep_seen(core: Arc<Core>, config: StoreConfig, handle: Handle) {
    let mut progress = handle.progress();
    loop {
        let now = progress.borrow_and_update().clone();
        let (core, config) = (core.clone(), config.clone());
        let noted = tokio::task::spawn_blocking(move || core.note(&config, &now));
        match noted.await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                tracing::warn!(error = failure.message, "what was seen is not written down")
            }
            Err(_) => return,
        }
        // More often than once a second nobody needs it.
        tokio::time::sleep(LOOK_EVERY).await;
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// What ended the right of this machine to write a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The epoch that somebody else has.
    pub by: u64,
    /// The first seal of this machine that is not in the volume.
    pub at: u64,
    /// When that was noticed, RFC 3339.
    pub noticed: String,
}

fn fenced_path(folder: &VolumeFolder) -> PathBuf {
    folder.path.join("fenced")
}

fn note_fenced(folder: &VolumeFolder, fenced: &Fenced) -> Result<()> {
    if fenced_path(folder).exists() {
        return Ok(());
    }
    let noticed = jiff::Timestamp::now().to_string();
    note_end(folder, &Ended { by: fenced.by.0, at: fenced.at.0, noticed })
}

/// Writes down what ended the right of this machine to write a volume.
pub fn note_end(folder: &VolumeFolder, ended: &Ended) -> Result<()> {
    let path = fenced_path(folder);
    let text = serde_json::to_vec(ended).map_err(std::io::Error::from).context(path.display())?;
    replace(&path, &text)
}

/// Takes back that another device took the volume over: it is opened here again.
pub fn forget_end(folder: &VolumeFolder) -> Result<()> {
    remove_file_if_there(&fenced_path(folder))
}

/// Whether another device took the volume over; then this one writes it no more.
pub fn is_fenced(folder: &VolumeFolder) -> bool {
    fenced_path(folder).exists()
}

/// What ended the right of this machine to write the volume, if it ended.
pub fn ended(folder: &VolumeFolder) -> Result<Option<Ended>> {
    let path = fenced_path(folder);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let what = format!("since when another device writes the volume is not known: {} is damaged: {error}", path.display());
            let failure = Failure::new(Kind::Damaged, what);
            match folder.name.branch() {
                None => failure.hint(format!(
                    "`comb volume open {}`, with --read-only to look only, finds it out from the store, and keeps as a branch what \
                     only this machine has",
                    folder.name
                )),
                Some(_) => failure.hint(format!("`comb log {}` shows what the branch holds all the same", folder.name)),
            }
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

/// The highest manifest that was seen in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its epoch.
    pub epoch: u64,
    /// Its number.
    pub seq: u64,
    /// Its id, in hexadecimal.
    pub manifest: String,
}

impl Seen {
    fn path(folder: &VolumeFolder, store: &str) -> PathBuf {
        folder.path.join("seen").join(store)
    }

    /// What was written down of a store; nothing if it was never seen.
    pub fn read(folder: &VolumeFolder, store: &str) -> Result<Option<Self>> {
        let path = Self::path(folder, store);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                let what =
                    format!("what was seen of store \"{store}\" is not known: {} is damaged: {error}", path.display());
                let how = if is_fenced(folder) || folder.config().is_ok_and(|config| config.follows) { "volume open" } else { "sync" };
                Failure::new(Kind::Damaged, what).hint(format!(
                    "whether the store was put back in time cannot be told; `comb {how} {} --accept-rollback` believes what it shows now",
                    folder.name
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// Writes it down, so that it is there after a power cut, too: what was seen is what an old state of the store is told by.
    pub fn write(&self, folder: &VolumeFolder, store: &str) -> Result<()> {
        // Of several threads of a daemon one after the other; other processes keep out by the volume's lock.
        static WRITING: Mutex<()> = Mutex::new(());
        let _writing = WRITING.lock();
        if Self::read(folder, store).is_ok_and(|seen| seen.as_ref() == Some(self)) {
            return Ok(());
        }
        let parent = folder.path.join("seen");
        if !parent.exists() {
            make_private_dir(&parent)?;
            sync_dir(&folder.path)?;
        }
        let text = serde_json::to_vec(self).map_err(std::io::Error::from).context("seen")?;
        replace(&Self::path(folder, store), &text)
    }

    /// Keeps what was seen in a store that the volume goes to no more, by the store's id: should it be added again, that tells it
    /// from one to which somebody else went on writing.
    pub fn part(folder: &VolumeFolder, store: &StoreConfig) -> Result<()> {
        if let Ok(Some(seen)) = Self::read(folder, &store.name) {
            let parted = Self::parted_path(folder, &store.id);
            let parent = folder.path.join("parted");
            if !parent.exists() {
                make_private_dir(&parent)?;
                sync_dir(&folder.path)?;
            }
            let text = serde_json::to_vec(&seen).map_err(std::io::Error::from).context("parted")?;
            replace(&parted, &text)?;
        }
        Self::forget(folder, &store.name)
    }

    /// What was seen last in the store of this id, to which the volume went before; nothing if nobody knows.
    pub fn parted(folder: &VolumeFolder, id: &str) -> Option<Self> {
        let bytes = std::fs::read(Self::parted_path(folder, id)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn parted_path(folder: &VolumeFolder, id: &str) -> PathBuf {
        folder.path.join("parted").join(id)
    }

    /// Forgets what was seen: what the store shows now is believed.
    pub fn forget(folder: &VolumeFolder, store: &str) -> Result<()> {
        Halted::forget(folder, store)?;
        remove_file_if_there(&Self::path(folder, store))
    }

    /// What it says of a manifest.
    pub fn of(link: &Link) -> Self {
        Self { epoch: link.epoch.0, seq: link.seq.0, manifest: link.id.to_hex() }
    }

    /// Which manifest it is.
    pub fn link(&self) -> Result<Link> {
        let id = ManifestId::from_hex(&self.manifest)
            .ok_or_else(|| Failure::new(Kind::Damaged, "what was seen of a store names no manifest"))?;
        Ok(Link { epoch: Epoch(self.epoch), seq: Seq(self.seq), id })
    }
}

/// What somebody must mend before anything goes to a store again, for whoever asks while nobody works on the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// What it is, and what to do.
    pub why: String,
    /// Where the store has lost what it had: the newest seal that it has, 0 for none.
    pub lost_above: Option<u64>,
    /// When that was noticed, RFC 3339.
    pub noticed: String,
}

impl Halted {
    fn path(folder: &VolumeFolder, store: &str) -> PathBuf {
        folder.path.join("halted").join(store)
    }

    /// What was written down of a store; nothing if nothing is to be mended.
    pub fn read(folder: &VolumeFolder, store: &str) -> Result<Option<Self>> {
        let path = Self::path(folder, store);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| Self {
                // That there is something is known all the same.
                why: format!(
                    "what is to be mended is not known: {} is damaged: {error}; `comb sync {}` finds it out anew",
                    path.display(),
                    folder.name
                ),
                lost_above: None,
                noticed: String::new(),
            }))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::io(path.display(), &error)),
        }
    }

    /// Writes it down; what was noticed before stays as it was.
    fn write(&self, folder: &VolumeFolder, store: &str) -> Result<()> {
        let is_same = |there: Self| (there.why, there.lost_above) == (self.why.clone(), self.lost_above);
        if Self::read(folder, store)?.is_some_and(is_same) {
            return Ok(());
        }
        let parent = folder.path.join("halted");
        if !parent.exists() {
            make_private_dir(&parent)?;
            sync_dir(&folder.path)?;
        }
        let text = serde_json::to_vec(self).map_err(std::io::Error::from).context("halted")?;
        replace(&Self::path(folder, store), &text)
    }

    /// The newest seal that the store has in which this one was seen: what it was found to have lost, it lacks.
    pub fn left_of(&self, seen: Option<Seq>) -> Option<Seq> {
        self.lost_above.map_or(seen, |has| Some(Seq(has)).filter(|seq| *seq > Seq(0)))
    }

    /// It was mended.
    fn forget(folder: &VolumeFolder, store: &str) -> Result<()> {
        remove_file_if_there(&Self::path(folder, store))
    }
}

/// The sealed part of a volume, for replication.
struct Outbox {
    history: History,
    folder: VolumeFolder,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce(&History) -> std::result::Result<T, FsError> + Send + 'static,
    ) -> std::result::Result<T, LocalError> {
        let history = self.history.clone();
        let done = tokio::task::spawn_blocking(move || work(&history)).await;
        match done {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(LocalError::new(what, error.to_string())),
            Err(error) => Err(LocalError::new(what, error.to_string())),
        }
    }
}

impl Outbox {
    /// A pack that cannot be read here, nor from the store that decides, if what is not here is there: any store of the volume
    /// may have it.
    async fn pack_of_stores(
        &self,
        pack: &PackId,
        error: LocalError,
    ) -> std::result::Result<Bytes, LocalError> {
        let config =
            self.folder.config().map_err(|failure| LocalError::new(error.what.clone(), failure.message))?;
        let mut is_lost = true;
        for store in &config.stores {
            match self.pack_of(store, pack).await {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(failure) => {
                    tracing::warn!(store = store.name, %pack, error = failure.message, "the store was not asked for a pack");
                    is_lost = false;
                }
            }
        }
        let rest = match is_lost {
            true => format!(
                "; no store has it whole: `comb check {} --repair` puts back what another place has, and names what is lost",
                self.folder.name
            ),
            false => String::new(),
        };
        Err(LocalError { why: format!("{}{rest}", error.why), is_lost, ..error })
    }

    /// A pack as a store has it; none where the store has it not, or not whole.
    async fn pack_of(&self, config: &StoreConfig, pack: &PackId) -> Result<Option<Bytes>> {
        let store = stores::open_to_read(&config.url, self.folder.id).await?;
        let (id, remote) = (config.store_id()?, stores::remote(&store, self.folder.id));
        let asked = async {
            remote.recognise(id).await?;
            match remote.pack_bytes(pack).await? {
                Some(bytes) if bytes <= PACK_BYTES_MAX => remote.pack(pack, bytes).await.map(Some),
                _ => Ok(None),
            }
        };
        match asked.await {
            // It was emptied, or what it has is not the pack.
            Err(Error::UnknownVolume { .. } | Error::Damaged { .. }) => Ok(None),
            asked => asked.map_err(|error| stores::replication_failure(&error)),
        }
    }
}

#[async_trait]
impl Local for Outbox {
    async fn held(&self) -> std::result::Result<Held, LocalError> {
        let unbroken =
            |history: &History| history.unbroken().map_err(|error| FsError::Damaged(error.to_string()));
        let (first, last) = self.read("manifests".into(), unbroken).await?;
        Ok(Held { first, last })
    }

    async fn manifest(&self, seq: Seq) -> std::result::Result<Bytes, LocalError> {
        self.read(format!("the manifest of seal {seq}"), move |history| history.manifest_object(seq))
            .await
            .map(Bytes::from)
    }

    async fn commit(&self, seq: Seq, is_whole: bool) -> std::result::Result<Commit, LocalError> {
        let seal = self.read(format!("seal {seq}"), move |history| history.outgoing(seq, is_whole)).await?;
        Ok(Commit { sealed: seal.time, packs: seal.packs })
    }

    async fn is_on_branch(&self, slot: &Slot) -> std::result::Result<bool, LocalError> {
        let (folder, name, seal) =
            (self.folder.clone(), format!("manifests/{:016x}", slot.seq.0), slot.bytes.clone());
        let look = move |_: &History| {
            let branches = folder.branches().map_err(|failure| FsError::Disk(failure.message))?;
            Ok(branches
                .iter()
                .any(|branch| std::fs::read(branch.path.join(&name)).is_ok_and(|one| one == seal)))
        };
        self.read("branches".into(), look).await
    }

    async fn pack(&self, pack: &PackId) -> std::result::Result<Bytes, LocalError> {
        let pack = *pack;
        match self.read(format!("pack {pack}"), move |history| history.pack_object(&pack)).await {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => self.pack_of_stores(&pack, error).await,
        }
    }
}

/// Signs for a volume.
pub struct Pen {
    /// The volume's key.
    pub key: VolumeKey,
    /// The volume.
    pub volume: VolumeId,
    /// The pseudonym of this machine.
    pub device: [u8; 16],
}

impl Signer for Pen {
    fn claim(&self, epoch: Epoch) -> std::result::Result<Bytes, LocalError> {
        let nonce = keys::chance().map_err(|failure| LocalError::new("a claim", failure.message))?;
        let claim = Claim { volume: self.volume, epoch, device: self.device, nonce };
        Ok(Bytes::copy_from_slice(&claim.encode(&self.key.sign(CLAIM_CONTEXT, &claim.message()))))
    }

    fn manifest(&self, epoch: Epoch, _head: &Slot) -> std::result::Result<Bytes, LocalError> {
        let what = format!("a manifest of epoch {epoch}");
        Err(LocalError::new(what, "who keeps a volume up to its stores has its epoch already"))
    }

    fn boundary(&self, epoch: Epoch, seq: Seq) -> std::result::Result<Bytes, LocalError> {
        let boundary = Boundary { volume: self.volume, epoch, seq };
        Ok(Bytes::copy_from_slice(&boundary.encode(&self.key.sign(BOUNDARY_CONTEXT, &boundary.message()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_safe_is_counted_from_the_first_change_that_the_store_lacks() {
        let mut changes = Changes::default();
        assert_eq!(changes.oldest_missing(Some(Seq(1))), None, "nothing was changed");
        changes.look(true, 10);
        changes.look(true, 12);
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(10));
        changes.seal(Seq(2), 15, 100);
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(10), "sealed is not replicated");
        changes.look(true, 16);
        changes.seal(Seq(3), 20, 10);
        assert_eq!(changes.oldest_missing(Some(Seq(2))), Some(16));
        assert_eq!(changes.oldest_missing(None), Some(10), "a store that has nothing lacks everything");
        assert_eq!(changes.bytes_missing(None), 110);
        assert_eq!((changes.bytes_missing(Some(Seq(2))), changes.bytes_missing(Some(Seq(3)))), (10, 0));
        assert_eq!(changes.oldest_missing(Some(Seq(3))), None);
        changes.forget(Seq(2));
        assert_eq!(changes.oldest_missing(Some(Seq(2))), Some(16));
    }

    #[test]
    fn what_is_promised_follows_from_how_often_it_is_sealed() {
        let late = |seal_every: Option<u64>, change: Option<i64>, seal: Option<i64>| {
            let at = |ago: i64| (1000 - ago) * 1_000_000_000;
            let promise = Promise { seal_every: seal_every.map(Duration::from_secs) };
            promise.late_seconds(1000 * 1_000_000_000, change.map(at), seal.map(at))
        };
        assert_eq!(late(Some(15), None, None), 0.0, "idle");
        assert_eq!(late(Some(15), Some(60), None), 0.0);
        assert_eq!(late(Some(15), Some(61), None), 1.0);
        assert_eq!(late(Some(300), Some(345), Some(45)), 0.0, "slower, as somebody wished");
        assert_eq!(late(Some(300), Some(400), None), 55.0);
        assert_eq!(late(None, Some(900), None), 0.0, "nobody asked for a seal");
        assert_eq!(late(None, Some(900), Some(50)), 5.0, "somebody did");
        assert_eq!(late(Some(15), Some(-100), None), 0.0, "a clock that was set back");
    }

    #[test]
    fn seals_of_before_come_before_those_that_are_known() {
        let seal = |seq: u64| SealInfo {
            seq: Seq(seq),
            id: ManifestId([0; 32]),
            time: fs_format::Timestamp(seq as i64 * 10),
            files: 1,
            bytes: 0,
            added: 1 << seq,
            snapshot: None,
        };
        let mut changes = Changes::default();
        changes.look(true, 35);
        changes.seals_before(&[seal(2), seal(3)]);
        changes.seal(Seq(3), 30, 8);
        changes.seal(Seq(4), 40, 16);
        assert_eq!((changes.bytes_missing(Some(Seq(1))), changes.bytes_missing(Some(Seq(2)))), (28, 24));
        assert_eq!(changes.oldest_missing(Some(Seq(1))), Some(20));
        // Another store is added that has nothing.
        changes.seals_before(&[seal(1), seal(2), seal(3), seal(4)]);
        assert_eq!((changes.bytes_missing(None), changes.oldest_missing(None)), (30, Some(10)));
        changes.forget(Seq(4));
        assert_eq!((changes.bytes_missing(None), changes.oldest_missing(None)), (0, None));
    }

    #[test]
    fn seals_beyond_what_is_remembered_make_a_store_later_not_earlier() {
        let mut changes = Changes::default();
        for seq in 0..3 * SEALS_KEPT as u64 {
            changes.seal(Seq(seq), seq as i64 + 100, 1);
        }
        assert_eq!(changes.sealed.len(), SEALS_KEPT);
        assert_eq!(changes.oldest_missing(None), Some(100));
        assert_eq!(changes.bytes_missing(None), 3 * SEALS_KEPT as u64);
    }
}
