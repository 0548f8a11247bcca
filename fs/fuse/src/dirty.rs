//! Dirty pages: what the kernel's writeback cache has not told us yet.
//!
//! `syncfs` on a FUSE mount only begins to write, and does not wait. That is enough every second. Where it must be
//! known to have happened, a process of its own ([`hand`]) syncs, through the mount, each inode
//! that somebody has open for writing. `close` writes back what the
//! file has, and a writable mapping keeps its file open, so no dirty page is missed.
//!
//! Invariants
//! - The syncs of a push are answered without waiting for the disk: when one arrives, the pages
//!   before it have become steps. The caller of a push makes them durable with one engine sync.
//! - Nobody waits for a push longer than he said, however the mount hangs.
//! - The hand takes the mount's root when somebody has had a file open for writing for a second, or for a push, and keeps it until
//!   nobody has one: until then the mount is in use anyway, so nobody's unmount takes longer than it must.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fs_format::Ino;
use fuser::{FileHandle, INodeNo};
use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use crate::hand::{self, Hand};
use crate::mountpoint;

/// The handle of an open by the pushing thread. All others are 0: the adapter needs no state for them.
pub(crate) const PUSH_HANDLE: FileHandle = FileHandle(1);

/// Why dirty pages could not be fetched.
#[derive(Debug, Clone, Error)]
pub enum PushError {
    /// The mount did not answer in time. The push goes on; a later one waits for it first.
    #[error("the mount did not hand over its dirty pages within {0:?}")]
    TimedOut(Duration),
    /// Only root may open files by their number.
    #[error("fetching dirty pages needs root")]
    NotPermitted,
    /// The mount is gone.
    #[error("the volume is not mounted any more")]
    Unmounted,
    /// Something else was mounted over it before a file was opened for writing.
    #[error("something else is mounted over {}; unmount that first", .0.display())]
    Covered(PathBuf),
    /// It was unmounted lazily before a file was opened for writing.
    #[error("the volume was detached from {} while in use, and no path leads to it any more", .0.display())]
    Detached(PathBuf),
    /// The process that does it is gone; the next push has a new one.
    #[error("{0}")]
    Lost(String),
    /// A page could not be written, or the mount could not be used.
    #[error("fetching dirty pages failed: {0}")]
    Failed(String),
}

/// Inodes that somebody has open for writing, and how often.
#[derive(Default)]
pub(crate) struct Writers {
    handles: Mutex<HashMap<u64, u32>>,
    /// The pusher, as the kernel names it in requests; 0 if there is none.
    pusher: AtomicU32,
    /// The node that is being pushed; 0 if none is.
    pushing: AtomicU64,
    /// The hand keeps the root open, or is about to open it.
    kept: AtomicBool,
    /// The mount's device number, once it is known.
    pub(crate) device: OnceLock<u64>,
    shared: Shared,
}

impl Writers {
    /// A writable handle was opened; returns whether it is the only one.
    pub(crate) fn opened(&self, ino: Ino) -> bool {
        let mut handles = self.handles.lock();
        let count = handles.entry(ino.0).or_default();
        *count += 1;
        *count == 1
    }

    /// A writable handle was closed; returns whether it was the last one.
    pub(crate) fn closed(&self, ino: Ino) -> bool {
        let mut handles = self.handles.lock();
        let Some(count) = handles.get_mut(&ino.0) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            handles.remove(&ino.0);
        }
        let nobody = handles.is_empty();
        drop(handles);
        if nobody && self.kept.load(Ordering::SeqCst) {
            self.shared.let_go();
        }
        last
    }

    /// Whether this open is the pusher's own.
    ///
    /// Both must fit, thread and node, so that nobody else's `fsync` is ever answered early.
    pub(crate) fn is_push(&self, pid: u32, node: INodeNo) -> bool {
        pid != 0
            && self.pusher.load(Ordering::Acquire) == pid
            && self.pushing.load(Ordering::Acquire) == node.0
    }

    /// Whether somebody has the inode open for writing, so that the kernel may hold what the engine has not seen.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.handles.lock().contains_key(&ino.0)
    }

    /// The inodes that somebody has open for writing, as far as the kernel may keep pages of theirs.
    pub(crate) fn inodes(&self) -> Vec<u64> {
        self.handles.lock().keys().copied().collect()
    }
}

#[derive(Default)]
struct Tickets {
    /// The newest push that was asked for.
    asked: u64,
    /// The newest push that ended, and how.
    ended: u64,
    outcome: Option<Result<(), PushError>>,
    /// Somebody wants the kernel to begin writing.
    begin: bool,
    /// The last writer ended.
    let_go: bool,
    stopped: bool,
}

impl Tickets {
    fn nothing_to_do(&self) -> bool {
        self.asked == self.ended && !self.begin && !self.let_go && !self.stopped
    }
}

#[derive(Default)]
struct Shared {
    tickets: Mutex<Tickets>,
    changed: Condvar,
}

impl Shared {
    fn begin(&self) {
        self.tickets.lock().begin = true;
        self.changed.notify_all();
    }

    fn let_go(&self) {
        self.tickets.lock().let_go = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.tickets.lock().stopped
    }
}

/// The thread that fetches dirty pages.
pub(crate) struct DirtyPages {
    writers: Arc<Writers>,
}

impl DirtyPages {
    /// Starts the thread for the mount at `root`, which has the device number `device`.
    pub(crate) fn start(root: PathBuf, device: u64, writers: Arc<Writers>) -> io::Result<Self> {
        let pusher = Pusher { path: root, device, hand: None, writers: Arc::clone(&writers) };
        thread::Builder::new().name("comb-push".into()).spawn(move || pusher.run())?;
        Ok(Self { writers })
    }

    /// Fetches all pages that are dirty now, and waits for it.
    pub(crate) fn push(&self, patience: Duration) -> Result<(), PushError> {
        let deadline = Instant::now() + patience;
        let shared = &self.writers.shared;
        let mut tickets = shared.tickets.lock();
        // A push that is under way may have passed a file that became dirty since: take the next one.
        tickets.asked += 1;
        let mine = tickets.asked;
        shared.changed.notify_all();
        while tickets.ended < mine {
            if tickets.stopped {
                return Err(PushError::Unmounted);
            }
            if shared.changed.wait_until(&mut tickets, deadline).timed_out() && tickets.ended < mine {
                return Err(PushError::TimedOut(patience));
            }
        }
        tickets.outcome.clone().unwrap_or(Ok(()))
    }

    /// Lets the kernel begin to write all dirty pages; waits for nothing.
    pub(crate) fn begin(&self) {
        self.writers.shared.begin();
    }

    /// Lets the thread end, after the file at hand; does not wait for it.
    pub(crate) fn stop(&self) {
        self.writers.shared.tickets.lock().stopped = true;
        self.writers.shared.changed.notify_all();
    }
}

impl Drop for DirtyPages {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread works with.
struct Pusher {
    /// Where the mount was last found.
    path: PathBuf,
    device: u64,
    hand: Option<Hand>,
    writers: Arc<Writers>,
}

impl Pusher {
    fn run(mut self) {
        let writers = Arc::clone(&self.writers);
        let shared = &writers.shared;
        let mut failures = 0_u32;
        loop {
            let (ticket, wanted, begin) = {
                let mut tickets = shared.tickets.lock();
                while tickets.nothing_to_do() {
                    shared.changed.wait(&mut tickets);
                }
                if tickets.stopped {
                    break;
                }
                tickets.let_go = false;
                (tickets.asked, tickets.asked != tickets.ended, std::mem::take(&mut tickets.begin))
            };
            if !wanted && !begin {
                // Even if there is another writer by now: who writes file after file costs a round each second, not each file.
                self.let_go();
                continue;
            }
            let mut outcome = self.fetch(wanted);
            if let Err(PushError::Lost(_)) = outcome {
                // Somebody killed the hand; nothing of what it did needs to be known.
                outcome = self.fetch(wanted);
            }
            match &outcome {
                Ok(()) => failures = 0,
                Err(error) if !wanted && !matches!(error, PushError::Unmounted) => {
                    failures = failures.saturating_add(1);
                    // The first may be an unmount that is under way. Later ones say nothing new.
                    if failures == 2 {
                        tracing::warn!(%error, "what is written stays in the kernel's memory for longer than a second");
                    }
                }
                Err(_) => {}
            }
            if wanted {
                let mut tickets = shared.tickets.lock();
                tickets.ended = ticket;
                tickets.outcome = Some(outcome);
                shared.changed.notify_all();
            }
        }
        writers.pusher.store(0, Ordering::Release);
    }

    /// Lets the kernel begin to write; if `wanted`, waits until all is written. Without writers, lets the mount go.
    fn fetch(&mut self, wanted: bool) -> Result<(), PushError> {
        // Before the list is made: who closes the last file after that will say so.
        self.writers.kept.store(true, Ordering::SeqCst);
        let inodes = self.writers.inodes();
        if inodes.is_empty() {
            self.let_go();
            return Ok(());
        }
        let hand = self.reach()?;
        let outcome = self.work(&hand, if wanted { inodes } else { Vec::new() });
        if !matches!(outcome, Err(PushError::Lost(_))) {
            self.hand = Some(hand);
        }
        outcome
    }

    /// Lets the mount go until the next time.
    fn let_go(&mut self) {
        self.writers.kept.store(false, Ordering::SeqCst);
        // A hand that is gone holds nothing either.
        self.hand.take_if(|hand| hand.close().is_err());
    }

    /// A hand that has the mount's root open.
    fn reach(&mut self) -> Result<Hand, PushError> {
        let hand = match self.hand.take() {
            Some(hand) => hand,
            None => self.start_hand()?,
        };
        let Err(error) = hand.open() else { return Ok(hand) };
        if hand::is_lost(&error) {
            return Err(error.into());
        }
        // The path may lead elsewhere by now. A hand knows but one.
        let paths = mountpoint::paths_of(self.device)?;
        for path in &paths {
            self.path.clone_from(path);
            let hand = self.start_hand()?;
            if hand.open().is_ok() {
                return Ok(hand);
            }
        }
        Err(match error.raw_os_error() {
            _ if paths.is_empty() => PushError::Detached(self.path.clone()),
            Some(libc::ENODEV | libc::ENOENT) => PushError::Covered(self.path.clone()),
            _ => error.into(),
        })
    }

    fn start_hand(&self) -> io::Result<Hand> {
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        let hand = Hand::start(&path, self.device)?;
        self.writers.pusher.store(hand.pid(), Ordering::Release);
        Ok(hand)
    }

    fn work(&self, hand: &Hand, inodes: Vec<u64>) -> Result<(), PushError> {
        // All files at once; a push then mostly finds it done.
        hand.begin()?;
        let outcome = push(hand, &self.writers, inodes);
        hand.rest()?;
        outcome
    }
}

fn push(hand: &Hand, writers: &Writers, inodes: Vec<u64>) -> Result<(), PushError> {
    let mut outcome = Ok(());
    for ino in inodes {
        if writers.shared.is_stopped() {
            return Err(PushError::Unmounted);
        }
        writers.pushing.store(ino, Ordering::Release);
        let pushed = hand.sync(ino);
        writers.pushing.store(0, Ordering::Release);
        match pushed {
            Ok(()) => {}
            // Closed, and perhaps removed, since the list was made: `close` wrote its pages.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(PushError::NotPermitted),
            Err(error) if hand::is_lost(&error) => return Err(error.into()),
            // The others are fetched all the same.
            Err(error) => outcome = Err(PushError::Failed(format!("inode {ino}: {error}"))),
        }
    }
    outcome
}

impl From<io::Error> for PushError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            None => Self::Lost(error.to_string()),
            Some(libc::ENOTCONN | libc::ECONNABORTED) => Self::Unmounted,
            Some(_) => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_a_writers_until_its_last_handle_closes() {
        let writers = Writers::default();
        assert!(writers.opened(Ino(20)));
        assert!(!writers.opened(Ino(20)));
        assert!(!writers.closed(Ino(20)));
        assert_eq!(writers.inodes(), [20]);
        assert!(writers.closed(Ino(20)));
        assert!(writers.inodes().is_empty());
    }

    #[test]
    fn only_the_pushing_thread_at_its_file_is_a_push() {
        let writers = Writers::default();
        assert!(!writers.is_push(0, INodeNo(0)), "nobody pushes");
        writers.pusher.store(77, Ordering::Release);
        writers.pushing.store(20, Ordering::Release);
        assert!(writers.is_push(77, INodeNo(20)));
        assert!(!writers.is_push(77, INodeNo(21)));
        assert!(!writers.is_push(78, INodeNo(20)));
    }
}
