//! A full volume: `write` says so, although the kernel keeps written pages for a while.
//!
//! With the writeback cache the kernel answers a `write` by itself and brings the pages later, when it is
//! too late to refuse them. Three things make up for that:
//!
//! - Pages that no longer fit are taken from a reserve, so nothing is lost that `write` took while there was room.
//!   What the kernel may hold for the mount is bounded, so the reserve is too.
//! - From then on, writers of the file must ask. Before a `write` the kernel asks for the file's mode if it
//!   does not know it, so it is told to forget its attributes (its pages stay). With a handle nothing else
//!   asks: reading and seeking want the length only, and that the kernel knows best. While the volume
//!   is full the answer is ENOSPC.
//! - A file that is opened when the volume is full already, by someone who can only make it longer, asks from the
//!   beginning, as far as the kernel can be told in time, and has no claim on the reserve.
//!
//! Invariants
//! - Only `write` is refused here: reading, seeking and `stat` never are.
//! - A file that nobody has open for writing is not remembered.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use fs_format::Ino;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

/// Files that wait until the kernel forgets their attributes. Of one that finds no place, the
/// next page that does not fit speaks again.
const WAITING_MAX: usize = 256;
/// How long a page that does not fit waits for that, so that no others follow meanwhile. Mostly microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who must ask before writing.
pub(crate) struct Full {
    files: Mutex<HashMap<u64, Claim>>,
    forget: SyncSender<Forget>,
}

/// A wish that the kernel forgets what it knows of a file, and whom to tell when it has.
pub(crate) struct Forget {
    ino: u64,
    done: SyncSender<()>,
}

/// What a file whose writers ask may have of the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It may hold pages from before the volume was full.
    Reserve,
    /// It was opened when the volume was full.
    Nothing,
}

impl Full {
    /// Begins with nobody asking; the receiver is for [`start`].
    pub(crate) fn new() -> (Arc<Self>, Receiver<Forget>) {
        let (forget, forgotten) = mpsc::sync_channel(WAITING_MAX);
        (Arc::new(Self { files: Mutex::default(), forget }), forgotten)
    }

    /// A file was opened on a full volume for its only writer, who can only make it longer.
    pub(crate) fn opened(&self, ino: Ino) {
        self.files.lock().insert(ino.0, Claim::Nothing);
        self.remind(ino);
    }

    /// A page of the file did not fit; returns whether it may be taken from the reserve.
    pub(crate) fn did_not_fit(&self, ino: Ino) -> bool {
        let claim = *self.files.lock().entry(ino.0).or_insert(Claim::Reserve);
        self.remind(ino);
        claim == Claim::Reserve
    }

    /// Whether the file's writers must ask.
    pub(crate) fn must_ask(&self, ino: Ino) -> bool {
        self.files.lock().contains_key(&ino.0)
    }

    /// Lets the kernel forget the attributes that it knows, so that it asks again; waits for a moment until it has.
    pub(crate) fn remind(&self, ino: Ino) {
        let (done, told) = mpsc::sync_channel(1);
        // Neither a queue that is full nor a kernel that takes long is an error: the next page reminds again.
        if self.forget.try_send(Forget { ino: ino.0, done }).is_ok() {
            let _ = told.recv_timeout(PATIENCE);
        }
    }

    /// There is room again, or nobody writes to the file any more.
    pub(crate) fn need_not_ask(&self, ino: Ino) {
        self.files.lock().remove(&ino.0);
    }
}

/// Starts the thread that lets the kernel forget; it ends with the [`Full`].
///
/// A thread of its own, because the kernel may let it wait for an inode that itself waits for the request at hand.
pub(crate) fn start(notifier: Notifier, forgotten: Receiver<Forget>) -> io::Result<()> {
    let forget = move || {
        for Forget { ino, done } in forgotten {
            // A negative offset leaves the pages alone. A failure means that the mount or the inode is gone.
            let _ = notifier.inval_inode(INodeNo(ino), -1, 0);
            // Who asked may have lost patience.
            let _ = done.try_send(());
        }
    };
    thread::Builder::new().name("comb-full".into()).spawn(forget).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_open_before_has_a_claim_on_the_reserve() {
        // Nobody serves the queue, so nobody is waited for.
        let (full, forgotten) = Full::new();
        drop(forgotten);
        assert!(full.did_not_fit(Ino(20)));
        assert!(full.did_not_fit(Ino(20)), "and keeps it");
        full.opened(Ino(21));
        assert!(!full.did_not_fit(Ino(21)));
        assert!(full.must_ask(Ino(20)) && full.must_ask(Ino(21)) && !full.must_ask(Ino(22)));
        full.need_not_ask(Ino(21));
        assert!(!full.must_ask(Ino(21)));
    }
}
