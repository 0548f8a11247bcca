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

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fs_format::Ino;
use fuser::{FileHandle, INodeNo};
use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use crate::hand::{self, Hand};

/// The handle of an open by the pushing thread. All others are 0: the adapter needs no state for them.
pub(crate) const PUSH_HANDLE: FileHandle = FileHandle(1);

/// Why dirty pages could not be fetched.
#[derive(Debug, Error)]
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

    fn inodes(&self) -> Vec<u64> {
        self.handles.lock().keys().copied().collect()
    }
}

#[derive(Default)]
struct Tickets {
    /// The newest push that was asked for.
    asked: u64,
    /// The newest push that ended, and how.
    ended: u64,
    outcome: Option<Result<(), Arc<PushError>>>,
    /// Somebody wants the kernel to begin writing.
    begin: bool,
    stopped: bool,
}

impl Tickets {
    fn nothing_to_do(&self) -> bool {
        self.asked == self.ended && !self.begin && !self.stopped
    }
}

#[derive(Default)]
struct Shared {
    tickets: Mutex<Tickets>,
    changed: Condvar,
}

/// The thread that fetches dirty pages.
pub(crate) struct DirtyPages {
    shared: Arc<Shared>,
}

impl DirtyPages {
    /// Starts the thread for the mount at `root`, which has the device number `device`.
    pub(crate) fn start(root: &Path, device: u64, writers: Arc<Writers>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mount = MountRoot { path: CString::new(root.as_os_str().as_bytes())?, device };
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("comb-push".into()).spawn(move || run(&mount, &writers, &for_thread))?;
        Ok(Self { shared })
    }

    /// Fetches all pages that are dirty now, and waits for it.
    pub(crate) fn push(&self, patience: Duration) -> Result<(), PushError> {
        let deadline = Instant::now() + patience;
        let mut tickets = self.shared.tickets.lock();
        // A push that is under way may have passed a file that became dirty since: take the next one.
        tickets.asked += 1;
        let mine = tickets.asked;
        self.shared.changed.notify_all();
        while tickets.ended < mine {
            if tickets.stopped {
                return Err(PushError::Unmounted);
            }
            if self.shared.changed.wait_until(&mut tickets, deadline).timed_out() && tickets.ended < mine {
                return Err(PushError::TimedOut(patience));
            }
        }
        match &tickets.outcome {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(match error.as_ref() {
                PushError::NotPermitted => PushError::NotPermitted,
                PushError::Unmounted => PushError::Unmounted,
                other => PushError::Failed(other.to_string()),
            }),
        }
    }

    /// Lets the kernel begin to write all dirty pages; waits for nothing.
    pub(crate) fn begin(&self) {
        self.shared.tickets.lock().begin = true;
        self.shared.changed.notify_all();
    }

    /// Lets the thread end, after the file at hand; does not wait for it.
    pub(crate) fn stop(&self) {
        self.shared.tickets.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for DirtyPages {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(mount: &MountRoot, writers: &Writers, shared: &Shared) {
    let mut hand = None;
    loop {
        let (ticket, wanted) = {
            let mut tickets = shared.tickets.lock();
            while tickets.nothing_to_do() {
                shared.changed.wait(&mut tickets);
            }
            if tickets.stopped {
                break;
            }
            tickets.begin = false;
            (tickets.asked, tickets.asked != tickets.ended)
        };
        let inodes = writers.inodes();
        let outcome = if inodes.is_empty() {
            Ok(())
        } else {
            with_hand(&mut hand, mount, writers, |hand| {
                // All files at once; a push then mostly finds it done.
                hand.begin()?;
                if wanted { push(hand, writers, inodes, &|| shared.tickets.lock().stopped) } else { Ok(()) }
            })
        };
        if wanted {
            let mut tickets = shared.tickets.lock();
            tickets.ended = ticket;
            tickets.outcome = Some(outcome.map_err(Arc::new));
            shared.changed.notify_all();
        }
    }
    writers.pusher.store(0, Ordering::Release);
}

/// Works with a hand that has the mount open; starts one if there is none.
fn with_hand(
    kept: &mut Option<Hand>,
    mount: &MountRoot,
    writers: &Writers,
    work: impl FnOnce(&Hand) -> Result<(), PushError>,
) -> Result<(), PushError> {
    let hand = match kept.take() {
        Some(hand) => hand,
        None => {
            let hand = Hand::start(&mount.path, mount.device)?;
            writers.pusher.store(hand.pid(), Ordering::Release);
            hand
        }
    };
    let outcome = hand.open().map_err(PushError::from).and_then(|()| {
        let outcome = work(&hand);
        // An open file would keep the mount busy.
        hand.close()?;
        outcome
    });
    if !matches!(outcome, Err(PushError::Lost(_))) {
        *kept = Some(hand);
    }
    outcome
}

fn push(
    hand: &Hand,
    writers: &Writers,
    inodes: Vec<u64>,
    stopped: &dyn Fn() -> bool,
) -> Result<(), PushError> {
    let mut outcome = Ok(());
    for ino in inodes {
        if stopped() {
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
            Some(libc::ENOENT | libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV) => Self::Unmounted,
            Some(_) => Self::Failed(error.to_string()),
        }
    }
}

/// The mount's root. It is opened for each push only.
struct MountRoot {
    path: CString,
    device: u64,
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
