//! Group commit: all `fsync`s that wait share one wait for the disk.
//!
//! Invariants
//! - A reply is answered by a sync that began after the reply was queued.
//! - What is durable only after the end of the time in which the engine may be changed is not told to be.
//! - No FUSE thread waits: it queues the reply and serves the next request.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fuser::ReplyEmpty;
use parking_lot::{Condvar, Mutex};

use crate::engine::Engine;
use crate::errno::Refusal;
use crate::time::require_time;

#[derive(Default)]
struct Queue {
    /// Bounded by the kernel: each is a process that waits.
    waiting: Vec<ReplyEmpty>,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// The door to the thread that syncs.
#[derive(Clone)]
pub(crate) struct Commits {
    shared: Arc<Shared>,
}

/// The thread that syncs; dropping it answers what is queued and ends the thread.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Commits {
    /// Answers `reply` when everything so far is durable.
    pub(crate) fn answer_when_durable(&self, reply: ReplyEmpty) {
        self.shared.queue.lock().waiting.push(reply);
        self.shared.arrived.notify_one();
    }
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn start<E: Engine>(engine: Arc<E>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        let thread = thread::Builder::new().name("comb-fsync".into()).spawn(move || run(&*engine, &queue))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The door for FUSE threads.
    pub(crate) fn door(&self) -> Commits {
        Commits { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.queue.lock().stopped = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there is met in tests only: elsewhere it ends the daemon (`panic = "abort"`) and with it the connection,
            // so that nobody waits for a thread that is gone.
            let _ = thread.join();
        }
    }
}

fn run<E: Engine>(engine: &E, shared: &Shared) {
    loop {
        let batch = {
            let mut queue = shared.queue.lock();
            while queue.waiting.is_empty() {
                if queue.stopped {
                    return;
                }
                shared.arrived.wait(&mut queue);
            }
            std::mem::take(&mut queue.waiting)
        };
        let outcome = engine.sync().map_err(Refusal::from).and_then(|()| require_time(engine));
        for reply in batch {
            match outcome {
                Ok(()) => reply.ok(),
                Err(refusal) => reply.error(refusal.0),
            }
        }
    }
}
