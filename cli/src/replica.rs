//! Keeps a volume's stores up to its seals, and says how far each is.
//!
//! Invariants
//! - A store that is away, or cannot even be opened, holds back neither the volume nor another store.
//! - What is not safe is counted from the first change that no seal of the store holds, so an idle volume is never
//!   late, and a busy one is not excused by its last seal.
//! - Before a store has said what it has, what it lacks is counted from what was seen there last: who begins anew while it is
//!   away forgets nothing of what waits.
//! - A volume that another device took over is sealed for the last time and takes no more changes.
//!
//! - `running`   one store at work, from opening it to the end of the writing; it reads the volume from the `outbox`, signs with
//!   the `pen`, and notes what it saw
//! - `changes`   since when there are changes that a store lacks
//! - `report`, `words`   how far a store is, and what went wrong there
//! - `takers`, `collect`   what making room asks of the stores, and removing from them what nobody needs

mod changes;
mod collect;
mod outbox;
mod pen;
mod report;
mod running;
mod takers;
mod words;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fs_format::{PackId, Seq};
use fs_replication::Handle;
use fs_volume::{SealPace, Volume};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub use self::pen::Pen;
use self::running::{Core, Running, Shared, keep};
pub use self::takers::{Arbiter, Taker};
use crate::failure::{Context, Failure, Kind, Result};
use crate::notes::ended;
use crate::report::StoreReport;
use crate::state::{State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{engine, keys, resting};

/// How often what is not safe is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a volume that is late says so in the log.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long somebody who asks for it waits for the arbiter to say whether the volume is still written here.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
/// How often that one looks at what nobody rings for.
const CONFIRM_LOOK: Duration = Duration::from_millis(5);
/// Threads that wait for stores; sending is mostly waiting.
const THREADS: usize = 2;

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
            // One that cannot be read is found out anew.
            fenced: Mutex::new(ended(folder).ok().flatten().map(|ended| ended.told())),
            arbiter: Mutex::default(),
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
                replicas.ring(Handle::sealed);
            }
        });
        let weak = Arc::downgrade(&replicas);
        volume.on_early_packs(move || {
            if let Some(replicas) = weak.upgrade() {
                replicas.ring(Handle::early);
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
        let is_gone = |one: &mut Running| wanted.iter().all(|wanted| wanted.name != one.config.name);
        let gone: Vec<Running> = self.running.lock().extract_if(.., is_gone).collect();
        // To their end, before the next seal: what is sealed after the parting is not for them.
        gone.iter().for_each(Running::stop);
        // Whoever parts from a store wants to know what it had.
        gone.iter().for_each(|one| self.note(one));
        self.name_arbiter(&wanted)?;
        // What was removed from a store that was put back in time, or is added again, is there again.
        self.cleared.lock().clear();
        let mut running = self.running.lock();
        running.drain(..).for_each(|one| one.task.abort());
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

    /// Sends nothing any more: the lease is over. What is known of the stores stays known.
    pub fn end_with_lease(&self) {
        for running in self.running.lock().iter() {
            running.task.abort();
            self.note(running);
            running.shared.at_work.lock().lease_is_over = true;
        }
    }

    /// Ends pauses after errors.
    pub fn hurry(&self) {
        for running in self.running.lock().iter() {
            running.shared.hurry.notify_one();
        }
        self.ring(Handle::hurry);
    }

    /// Tells every uploader that is at work.
    fn ring(&self, tell: impl Fn(&Handle)) {
        for running in self.running.lock().iter() {
            if let Some(uploader) = &running.shared.at_work.lock().uploader {
                tell(uploader);
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
            let fenced = self.core.fenced.lock().clone();
            if let Some(why) = fenced {
                return Err(Failure::new(Kind::NotPermitted, why));
            }
            let mut told = match &arbiter.at_work.lock().uploader {
                Some(uploader) => uploader.progress(),
                None => return Ok(()),
            };
            let progress = told.borrow_and_update().clone();
            let is_in_vain = progress.trouble.as_ref().is_some_and(|trouble| trouble.at >= asked);
            if is_in_vain || progress.confirmed_at >= Some(asked) {
                return Ok(());
            }
            let Some(runtime) = &self.runtime else { return Ok(()) };
            // Until it tells something; and looked at again where what it told is no end of ours.
            let told = runtime.block_on(async { tokio::time::timeout(CONFIRM_LOOK, told.changed()).await });
            if matches!(told, Ok(Err(_))) {
                // It ended, and another one may follow.
                std::thread::sleep(CONFIRM_LOOK);
            }
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
