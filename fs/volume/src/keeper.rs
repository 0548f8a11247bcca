//! Background work of a mounted volume: pushing the journal, syncing it, sealing.
//!
//! Plain threads: one for the journal, whose work is short, one for seals, whose work is long, and some that read ahead.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{FsError, Volume, WriteTree as _};

/// How long records may wait in memory.
const PUSH_EVERY: Duration = Duration::from_millis(20);
/// How long a change may wait until it is durable without being asked for.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often a seal is considered.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Threads that read ahead: they wait for the disk half of the time.
const FETCHERS: usize = 6;
/// Pause after a seal that failed.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// How often what changed is sealed at least; it may change while a volume is kept. `None`: only when somebody asks for it.
#[derive(Debug, Clone, Default)]
pub struct SealPace(Arc<Mutex<Option<Duration>>>);

impl SealPace {
    /// Seals at least so often from now on.
    pub fn set(&self, every: Option<Duration>) {
        *self.0.lock() = every;
    }

    /// How often that is.
    pub fn get(&self) -> Option<Duration> {
        *self.0.lock()
    }
}

/// The threads that keep a volume.
pub struct Keeper {
    volume: Arc<Volume>,
    pace: SealPace,
    stop: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    /// Starts keeping. With `seal_every`, what changed is sealed at least that often, and what a crash left at once: nobody
    /// knows how old it is, and it may be nowhere else.
    pub fn start(volume: Arc<Volume>, seal_every: Option<Duration>) -> Self {
        let pace = SealPace::default();
        pace.set(seal_every);
        let mut keeper = Self { volume, pace: pace.clone(), stop: Vec::new(), threads: Vec::new() };
        keeper.spawn("comb-journal", keep_journal);
        keeper.spawn("comb-seal", move |volume, stop| keep_sealed(volume, stop, &pace));
        for _ in 0..FETCHERS {
            keeper.spawn("comb-read", |volume, _| volume.store.fetch_wanted());
        }
        keeper
    }

    /// What decides how often it seals.
    pub fn pace(&self) -> SealPace {
        self.pace.clone()
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Volume, &Receiver<()>) + Send + 'static) {
        let (sender, receiver) = channel();
        let volume = self.volume.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(&volume, &receiver));
        match thread {
            Ok(thread) => {
                self.stop.push(sender);
                self.threads.push(thread);
            }
            // Without them nothing is lost: fsync does its own work, and unmounting seals.
            Err(error) => tracing::error!(%error, name, "a background thread does not start"),
        }
    }

    /// Stops, seals what is left, and gives the journal's room back.
    pub fn stop(self) -> Result<(), FsError> {
        drop(self.stop);
        self.volume.store.wanted().stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a background thread had panicked");
            }
        }
        if self.volume.read_only_reason().is_some() {
            return Ok(());
        }
        self.volume.sync()?;
        self.volume.seal(None)?;
        self.volume.give_back_journal();
        Ok(())
    }
}

fn stopped(stop: &Receiver<()>, wait: Duration) -> bool {
    !matches!(stop.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}

fn keep_journal(volume: &Volume, stop: &Receiver<()>) {
    let mut synced = Instant::now();
    let mut written = 0;
    while !stopped(stop, Duration::ZERO) {
        volume.journal.wait_for_work(PUSH_EVERY);
        volume.measure_pressure();
        let end = volume.journal.end();
        if end == written {
            continue;
        }
        let done = if synced.elapsed() >= SYNC_EVERY {
            synced = Instant::now();
            volume.sync().map(|()| written = end)
        } else {
            volume.flush_journal()
        };
        match done {
            Ok(()) => {}
            // What waits in memory is tried again when there is room.
            Err(FsError::NoSpace) => drop(stopped(stop, LOOK_EVERY)),
            Err(error) => {
                volume.turn_read_only(&error.to_string());
                return;
            }
        }
    }
}

fn keep_sealed(volume: &Volume, stop: &Receiver<()>, pace: &SealPace) {
    let mut sealed = Instant::now();
    let mut left_by_a_crash = volume.is_dirty();
    let mut wait = LOOK_EVERY;
    while !stopped(stop, wait) {
        wait = LOOK_EVERY;
        let due = pace.get().is_some_and(|every| left_by_a_crash || sealed.elapsed() >= every);
        if !volume.wants_seal() && !due {
            continue;
        }
        sealed = Instant::now();
        if !volume.is_dirty() {
            continue;
        }
        match volume.seal(None) {
            Ok(info) => {
                left_by_a_crash = false;
                tracing::debug!(seq = %info.seq, added = info.added, "sealed");
                return_memory();
            }
            Err(FsError::ReadOnly) => return,
            Err(error) => {
                tracing::warn!(%error, "a seal failed; what it held stays in the journal");
                wait = RETRY_EVERY;
            }
        }
    }
}

/// Gives the memory of a retired overlay back to the system; the allocator alone keeps most of it.
fn return_memory() {
    // SAFETY: takes a number, touches only the allocator's own memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
