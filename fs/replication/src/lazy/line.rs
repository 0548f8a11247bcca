//! The way to the store: requests with their deadlines, and how many at once.
//!
//! Invariant: what nobody waits for never stands before what somebody waits for. Each has its own number of requests.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_format::{PackId, Seq, VolumeId};
use fs_store::{Kind, Name, Prefix, Store, StoreError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::names::Names;

use super::windows::{Ticket, Windows};
use super::{Limits, REQUEST_BYTES_MAX, WINDOW_BYTES};

/// Requests at once that readers wait for, or will in a moment.
const NEAR_MAX: usize = 8;
/// Requests at once that nobody waits for.
const AHEAD_MAX: usize = 4;
/// A line that takes longer than the first answer may, and so many bytes in a second, is one that does not answer.
const RATE_MIN: u64 = 256 << 10;
/// Windows of the largest request on a line of any speed.
const SMALLEST: usize = (256 << 10) / WINDOW_BYTES as usize;
/// A request that takes longer than this was too large: who comes next waits behind it.
const SLOW: Duration = Duration::from_secs(1);
/// One that is done in this time could have been larger.
const QUICK: Duration = Duration::from_millis(250);
/// Windows of the largest request on a quick one.
const LARGEST: usize = (REQUEST_BYTES_MAX / WINDOW_BYTES) as usize;
/// The longest pause before the first repetition; each further one may be twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause before any.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often one who keeps out of the way of readers looks for them.
const QUIET_EVERY: Duration = Duration::from_millis(10);
/// The most that is held of what cannot be kept, in bytes: a pack, and what is read beside it.
pub const HELD_BYTES_MAX: u64 = 32 << 20;
/// How often it is told that nothing can be kept.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long a pack that is read as a whole says so of the next ones.
pub const RECENT: Duration = Duration::from_secs(5);

/// The way to a volume's objects in a store.
#[derive(Debug)]
pub struct Line {
    store: Arc<dyn Store>,
    pub volume: VolumeId,
    pub names: Names,
    /// The volume's folder on this machine.
    pub folder: PathBuf,
    pub runtime: Handle,
    pub limits: Limits,
    pub near: Arc<Semaphore>,
    pub ahead: Arc<Semaphore>,
    /// When the store was first asked.
    asked: OnceLock<Instant>,
    /// Whether it ever answered.
    has_answered: AtomicBool,
    /// Windows of the largest request, by how fast the line is.
    largest: AtomicUsize,
    /// Readers who wait for the store.
    waiting: AtomicUsize,
    /// When somebody was last seen to read a pack as a whole.
    dense: Mutex<Option<Instant>>,
    /// When it was last told that something cannot be kept.
    told: Mutex<Option<Instant>>,
    /// What came last of what cannot be kept, and whose it is.
    held: Mutex<VecDeque<(Weak<Windows>, Arc<Ticket>)>>,
}

impl Line {
    pub fn new(
        store: Arc<dyn Store>,
        volume: VolumeId,
        folder: PathBuf,
        runtime: Handle,
        limits: Limits,
    ) -> Self {
        Self {
            store,
            volume,
            names: Names::of(&volume),
            folder,
            runtime,
            limits,
            near: Arc::new(Semaphore::new(NEAR_MAX)),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            asked: OnceLock::new(),
            has_answered: AtomicBool::new(false),
            largest: AtomicUsize::new(LARGEST),
            waiting: AtomicUsize::new(0),
            dense: Mutex::default(),
            told: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Exactly these bytes of a pack: one request.
    pub async fn window(&self, pack: &PackId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let name = self.names.pack(pack);
        let wanted = range.end - range.start;
        let begun = Instant::now();
        let answer = self.in_time(wanted, "get", &name, self.store.get_range(&name, range)).await;
        self.note_speed((wanted / WINDOW_BYTES) as usize, begun.elapsed());
        let answer = answer?;
        if answer.len() as u64 == wanted {
            return Ok(answer);
        }
        let what = format_args!("{} bytes came, {wanted} were asked for", answer.len());
        Err(StoreError::new(Kind::Damaged, "get", name, what))
    }

    /// Windows that one request may ask for.
    pub fn request_windows(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// Learns from a request, whatever came of it, how large the next ones may be.
    fn note_speed(&self, windows: usize, took: Duration) {
        let largest = self.request_windows();
        if took > SLOW && windows <= largest {
            self.largest.store((windows / 2).clamp(SMALLEST, largest), Ordering::Relaxed);
        } else if took < QUICK && windows >= largest {
            self.largest.store(LARGEST.min(largest * 2), Ordering::Relaxed);
        }
    }

    /// The bytes of a pack, as the store lists them: one request.
    pub async fn pack_bytes(&self, pack: &PackId) -> Result<u64, StoreError> {
        let (name, prefix) = (self.names.pack(pack), self.names.packs());
        let before = self.names.before_pack(pack);
        let listed = self.store.list(&prefix, before.as_ref(), 1);
        let listed = self.in_time(0, "list", &prefix, listed).await?;
        match listed.into_iter().find(|entry| entry.name == name) {
            Some(entry) => Ok(entry.size),
            None => Err(StoreError::new(Kind::Absent, "list", name, "")),
        }
    }

    /// A whole manifest: one request.
    pub async fn slot(&self, seq: Seq, limit: u64) -> Result<Bytes, StoreError> {
        let name = self.names.slot(seq);
        self.in_time(limit, "get", &name, self.store.get(&name, limit)).await
    }

    /// The first names below a prefix: one request.
    pub async fn list(&self, prefix: &Prefix, limit: usize) -> Result<Vec<Name>, StoreError> {
        let listed = self.in_time(0, "list", prefix, self.store.list(prefix, None, limit)).await?;
        Ok(listed.into_iter().map(|entry| entry.name).collect())
    }

    /// One attempt, given up when it cannot be under way any more.
    async fn in_time<T>(
        &self,
        bytes: u64,
        action: &'static str,
        object: &impl ToString,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let patience = self.limits.request + Duration::from_millis(bytes * 1000 / RATE_MIN);
        self.asked.get_or_init(Instant::now);
        match tokio::time::timeout(patience, attempt).await {
            Ok(answer) => {
                if answer.as_ref().map_or_else(|error| error.kind() != Kind::Unreachable, |_| true) {
                    self.has_answered.store(true, Ordering::Relaxed);
                }
                answer
            }
            Err(_) => {
                let what = format_args!("no answer within {} s", patience.as_secs());
                Err(StoreError::new(Kind::Unreachable, action, object.to_string(), what))
            }
        }
    }

    /// How long to wait before the next try; `None` where it would be in vain.
    pub fn pause(&self, tries: &mut Tries, error: &StoreError) -> Option<Duration> {
        let is_over = || self.asked.get().is_some_and(|asked| asked.elapsed() >= self.limits.first);
        let is_away = error.kind() == Kind::Unreachable && !self.has_answered.load(Ordering::Relaxed);
        (!(is_away && is_over())).then(|| tries.after(error))?
    }

    /// Repeats an attempt until `deadline`, as long as its failures may pass; damage is asked for once more.
    pub async fn persist<T, F>(&self, deadline: Instant, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut tries = Tries::default();
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match self.pause(&mut tries, &error) {
                Some(pause) if Instant::now() + pause < deadline => tokio::time::sleep(pause).await,
                _ => return Err(error),
            }
        }
    }

    /// Has the runtime do something, and waits for it until `deadline`. Not for a task of the runtime.
    pub fn settle<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = sync_channel(1);
        let task = self.runtime.spawn(async move {
            let _ = done.send(work.await);
        });
        let patience = deadline.saturating_duration_since(Instant::now());
        outcome.recv_timeout(patience).map_err(|_| {
            task.abort();
            io::Error::new(io::ErrorKind::TimedOut, "the store did not answer in time")
        })
    }

    /// A reader who waits for the store, until this is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// Returns when no reader waits for the store.
    pub async fn quiet(&self) {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(QUIET_EVERY).await;
        }
    }

    /// Logs that something that came is not kept, at most once in [`TELL_EVERY`]: each read may end so. What another process
    /// keeps is none of that.
    pub fn note_not_kept(&self, pack: &PackId, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(%pack, %error, "what comes from the store cannot be kept: it is asked for again when it is read again");
        }
    }

    /// Holds an answer that cannot be kept; returns those that are let go for it.
    pub fn hold(&self, windows: &Arc<Windows>, ticket: &Arc<Ticket>) -> Vec<(Weak<Windows>, Arc<Ticket>)> {
        let mut held = self.held.lock();
        held.push_back((Arc::downgrade(windows), ticket.clone()));
        let mut bytes: u64 = held.iter().map(|(_, ticket)| ticket.bytes_here()).sum();
        let mut out = Vec::new();
        while bytes > self.limits.held
            && let Some((windows, oldest)) = held.pop_front()
        {
            bytes -= oldest.bytes_here();
            out.push((windows, oldest));
        }
        out
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub fn held_bytes(&self) -> u64 {
        self.held.lock().iter().map(|(_, ticket)| ticket.bytes_here()).sum()
    }

    /// Somebody reads a pack as a whole.
    pub fn note_dense(&self) {
        *self.dense.lock() = Some(Instant::now());
    }

    /// Whether somebody did so lately: then the next pack is probably read as a whole, too.
    pub fn is_dense(&self) -> bool {
        self.dense.lock().is_some_and(|at| at.elapsed() < RECENT)
    }
}

/// A reader who waits for the store.
pub struct Waiting<'a>(&'a Line);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was tried so far.
#[derive(Default)]
pub struct Tries {
    failed: u32,
    damaged: u32,
}

impl Tries {
    /// How long to wait before the next try; `None` where it would be in vain.
    pub fn after(&mut self, error: &StoreError) -> Option<Duration> {
        match error.kind() {
            Kind::Damaged if self.damaged > 0 => return None,
            Kind::Damaged => {
                self.damaged += 1;
                return Some(Duration::ZERO);
            }
            kind if !kind.passes() => return None,
            _ => {}
        }
        let longest = PAUSE_MAX.min(PAUSE * 2_u32.saturating_pow(self.failed.min(8)));
        self.failed += 1;
        // Random, so that those who failed together do not come back together.
        let chance = RandomState::new().hash_one(self.failed) % 1000;
        Some(longest.mul_f64(chance as f64 / 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_never_answered_is_given_up_sooner() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let away = || StoreError::new(Kind::Unreachable, "get", "x", "");
        let limits = Limits { first: Duration::ZERO, ..Limits::default() };
        let line = |limits| {
            let store = Arc::new(fs_store::Memory::default());
            Line::new(store, VolumeId([0; 32]), PathBuf::new(), runtime.handle().clone(), limits)
        };
        let ask = |line: &Line, answer: Result<(), StoreError>| {
            let _ = runtime.block_on(line.in_time(0, "get", &"x", async { answer }));
        };
        let patient = line(Limits::default());
        ask(&patient, Err(away()));
        assert!(patient.pause(&mut Tries::default(), &away()).is_some());
        let hasty = line(limits);
        ask(&hasty, Err(away()));
        assert_eq!(hasty.pause(&mut Tries::default(), &away()), None);
        let busy = StoreError::new(Kind::Busy, "get", "x", "");
        assert!(hasty.pause(&mut Tries::default(), &busy).is_some(), "it is there");
        ask(&hasty, Ok(()));
        assert!(hasty.pause(&mut Tries::default(), &away()).is_some(), "it was there");
    }

    #[test]
    fn requests_are_as_large_as_the_line_is_quick() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let store = Arc::new(fs_store::Memory::default());
        let volume = VolumeId([0; 32]);
        let line = Line::new(store, volume, PathBuf::new(), runtime.handle().clone(), Limits::default());
        assert_eq!(line.request_windows(), LARGEST);
        for _ in 0..10 {
            line.note_speed(line.request_windows(), Duration::from_secs(10));
        }
        assert_eq!(line.request_windows(), SMALLEST);
        line.note_speed(1, Duration::from_millis(1));
        assert_eq!(line.request_windows(), SMALLEST, "a small request says nothing of large ones");
        for _ in 0..10 {
            line.note_speed(line.request_windows(), Duration::from_millis(100));
        }
        assert_eq!(line.request_windows(), LARGEST);
    }

    #[test]
    fn what_may_pass_is_tried_again_with_growing_pauses() {
        let mut tries = Tries::default();
        let away = StoreError::new(Kind::Unreachable, "get", "x", "");
        for n in 0..20 {
            let pause = tries.after(&away).expect("it may pass");
            assert!(pause <= PAUSE_MAX && pause <= PAUSE * 2_u32.pow(n.min(8)), "{pause:?} after {n}");
        }
        let damaged = StoreError::new(Kind::Damaged, "get", "x", "");
        assert_eq!(tries.after(&damaged), Some(Duration::ZERO), "once more");
        assert_eq!(tries.after(&damaged), None, "and no more");
        assert_eq!(Tries::default().after(&StoreError::new(Kind::Absent, "get", "x", "")), None);
    }
}
