//! One store at work: from opening it to the end of the volume's writing here.

use std::sync::Arc;
use std::time::Duration;

use fs_crypto::VolumeKey;
use fs_format::Seq;
use fs_replication::{Fenced, Handle, Pace, Progress, Role, Settings, Uploader};
use fs_store::Patient;
use fs_volume::{SealPace, Volume};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::LOOK_EVERY;
use super::changes::Changes;
use super::outbox::Outbox;
use super::pen::Pen;
use super::words::{denied_to, told};
use crate::failure::{Kind, Result};
use crate::notes::{Halted, Seen, TAKEN_OVER, note_fenced};
use crate::state::VolumeFolder;
use crate::stores::{self, StoreConfig};

/// Pause before a store that cannot be opened is tried again.
pub const OPEN_AGAIN: Duration = Duration::from_secs(30);

/// The longest wait for the work of one store to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// One store at work.
pub struct Running {
    pub config: StoreConfig,
    pub shared: Arc<Shared>,
    pub task: JoinHandle<()>,
    /// The newest seal that it was known to have when this began.
    pub seen: Option<Seq>,
}

impl Running {
    /// The newest seal that it is known to have: as it says, and before it says anything, as was seen there last.
    pub fn known(&self, progress: Option<&Progress>) -> Option<Seq> {
        progress.and_then(|progress| progress.replicated).or(self.seen)
    }

    /// The newest seal that the store has.
    pub fn replicated(&self) -> Option<Seq> {
        self.progress().and_then(|progress| progress.replicated)
    }

    pub fn progress(&self) -> Option<Progress> {
        let at_work = self.shared.at_work.lock();
        at_work.uploader.as_ref().map(|uploader| uploader.progress().borrow().clone())
    }

    pub fn store(&self) -> (StoreConfig, Option<Patient>) {
        (self.config.clone(), self.shared.at_work.lock().store.clone())
    }

    /// Sends nothing any more, and waits until that is so. A request that is out already may still arrive.
    pub fn stop(&self) {
        self.task.abort();
        let begun = std::time::Instant::now();
        // Work of a task is short between two waits; nobody hangs should it not be.
        while !self.task.is_finished() && begun.elapsed() < STOP_WAIT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a store's task lets others know.
#[derive(Default)]
pub struct Shared {
    pub at_work: Mutex<AtWork>,
    /// Ends the pause before a store is opened again.
    pub hurry: Notify,
}

/// Why a store is not open.
pub struct NotOpen {
    pub why: String,
    /// Whether it may open again by itself.
    pub passes: bool,
    /// When that was found.
    pub at: Instant,
}

/// What there is of a store at work.
#[derive(Default)]
pub struct AtWork {
    pub uploader: Option<Handle>,
    /// The store, for what else there is to do in it.
    pub store: Option<Patient>,
    pub not_open: Option<NotOpen>,
    /// The lease of the mount is over: nothing is sent any more.
    pub lease_is_over: bool,
}

/// The volume, and what all its stores share.
pub struct Core {
    pub volume: Arc<Volume>,
    pub folder: VolumeFolder,
    pub key: VolumeKey,
    /// The pseudonym of this machine in the volume.
    pub device: [u8; 16],
    pub changes: Mutex<Changes>,
    pub rate: Option<u64>,
    /// How often it is sealed.
    pub pace: SealPace,
    /// What is said of every store since another device took the volume over: what a store lacks, or has that is not here, is
    /// nothing that somebody would mend there.
    pub fenced: Mutex<Option<String>>,
    /// Tells what the store said that decides who writes the volume.
    pub arbiter: Mutex<Option<Handle>>,
    /// Collects what was written and did not reach the volume yet, before it takes no more.
    pub before_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Core {
    /// Writes down what was seen in a store, and what somebody must mend there.
    pub fn note(&self, store: &StoreConfig, progress: &Progress) -> Result<()> {
        if let Some(seen) = &progress.seen {
            Seen::of(seen).write(&self.folder, &store.name)?;
        }
        match &progress.halted {
            Some(_) if self.fenced.lock().is_some() => Halted::forget(&self.folder, &store.name),
            Some(error) => Halted {
                why: told(&self.folder, store, error, self.is_ours()),
                lost_above: error.lost().map(|has| has.map_or(0, |has| has.0)),
                noticed: jiff::Timestamp::now().to_string(),
            }
            .write(&self.folder, &store.name),
            None if progress.verified_at.is_some() => Halted::forget(&self.folder, &store.name),
            None => Ok(()),
        }
    }

    /// Whether the store that decides has said that the volume is written here still.
    pub fn is_ours(&self) -> bool {
        let arbiter = self.arbiter.lock();
        arbiter.as_ref().is_some_and(|arbiter| arbiter.progress().borrow().verified_at.is_some())
    }

    /// The newest seal that a store is known to have before it is asked.
    pub fn seen(&self, store: &StoreConfig) -> Option<Seq> {
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
    pub fn end(&self, fenced: &Fenced) -> String {
        let collect = self.before_end.lock().take();
        if let Some(collect) = collect {
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

    /// Forgets what somebody was to mend in stores: it was that another device writes the volume, or it is found anew by whoever
    /// goes on.
    fn forget_halted(&self) {
        for store in self.folder.config().map(|config| config.stores).unwrap_or_default() {
            if let Err(failure) = Halted::forget(&self.folder, &store.name) {
                tracing::warn!("{}", failure.message);
            }
        }
    }

    pub fn pen(&self) -> Pen {
        Pen { key: self.key.clone(), volume: self.volume.id(), device: self.device }
    }
}

/// Keeps one store up to the volume, for as long as the volume may be written.
pub async fn keep(core: Arc<Core>, config: StoreConfig, shared: Arc<Shared>) {
    loop {
        if core.volume.lease().is_over() {
            shared.at_work.lock().lease_is_over = true;
            return;
        }
        match begin(&core, &config).await {
            Ok((store, (uploader, handle))) => {
                *shared.at_work.lock() =
                    AtWork { uploader: Some(handle.clone()), store: Some(store), ..AtWork::default() };
                if config.arbiter {
                    *core.arbiter.lock() = Some(handle.clone());
                }
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
                *core.fenced.lock() = Some(why);
                core.forget_halted();
                return;
            }
            Err(failure) => {
                tracing::warn!(store = config.name, error = failure.message, "the store cannot be opened");
                let passes = matches!(failure.kind, Kind::Unreachable | Kind::Other);
                let is_denied = failure.kind == Kind::NotPermitted;
                let why = denied_to(&config, is_denied, failure.in_one_line());
                shared.at_work.lock().not_open = Some(NotOpen { why, passes, at: Instant::now() });
                let _ = tokio::time::timeout(OPEN_AGAIN, shared.hurry.notified()).await;
            }
        }
    }
}

async fn begin(core: &Arc<Core>, config: &StoreConfig) -> Result<(Patient, (Uploader, Handle))> {
    let store = stores::open_to_write_under(core.volume.lease(), &config.url, &core.key).await?;
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
