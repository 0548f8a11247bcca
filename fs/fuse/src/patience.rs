//! Writes that wait for room: no FUSE thread waits with them, so that others are served meanwhile.
//!
//! Invariants
//! - Each is answered: when it found room, or when there is no hope for any, or nobody waits for it any more.
//! - They are taken in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fs_format::Ino;
use fs_volume::FsError;
use fuser::ReplyWrite;
use parking_lot::{Condvar, Mutex};

use crate::asker::{self, Asker};
use crate::engine::Engine;
use crate::errno::Refusal;
use crate::full::Full;
use crate::time::{self, require_time};

/// Writes that wait at most, each of a MiB: as many as the kernel brings pages at once. Others hold their thread.
const WAITING_MAX: usize = 64;

/// What is to be written where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) ino: Ino,
    pub(crate) offset: u64,
    pub(crate) kill_suid: bool,
    /// It is a page that the kernel kept.
    pub(crate) is_page: bool,
}

/// A write that waits.
struct Late {
    place: Place,
    data: Vec<u8>,
    asker: Asker,
    reply: ReplyWrite,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Late>,
    stopped: bool,
}

struct Shared<E> {
    engine: Arc<E>,
    full: Arc<Full>,
    writeback: Arc<AtomicBool>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The door to the thread that waits.
pub(crate) struct Patience<E>(Arc<Shared<E>>);

/// The thread that waits; dropping it answers what is queued and ends it.
pub(crate) struct Waiter<E> {
    shared: Arc<Shared<E>>,
    thread: Option<JoinHandle<()>>,
}

impl<E: Engine> Waiter<E> {
    /// Starts the thread.
    pub(crate) fn start(
        engine: Arc<E>,
        full: Arc<Full>,
        writeback: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { engine, full, writeback, queue, changed });
        let queue = Arc::clone(&shared);
        let thread = thread::Builder::new().name("comb-room".into()).spawn(move || run(&queue))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The door for FUSE threads.
    pub(crate) fn door(&self) -> Patience<E> {
        Patience(Arc::clone(&self.shared))
    }
}

impl<E> Drop for Waiter<E> {
    fn drop(&mut self) {
        self.shared.queue.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // As with the thread that syncs: a panic there is met in tests only.
            let _ = thread.join();
        }
    }
}

impl<E: Engine> Patience<E> {
    /// Writes and answers; what finds no room waits for it where there is hope.
    pub(crate) fn write(&self, place: Place, data: &[u8], asker: Asker, reply: ReplyWrite) {
        let shared = &*self.0;
        match shared.write(place, data) {
            Err(FsError::NoSpace) if shared.engine.hopes_for_room() => {
                let mut queue = shared.queue.lock();
                while queue.waiting.len() >= WAITING_MAX && !queue.stopped {
                    shared.changed.wait(&mut queue);
                }
                queue.waiting.push_back(Late { place, data: data.to_vec(), asker, reply });
                drop(queue);
                shared.changed.notify_all();
            }
            written => shared.answer(place, data, written, reply),
        }
    }
}

impl<E: Engine> Shared<E> {
    fn write(&self, Place { ino, offset, kill_suid, .. }: Place, data: &[u8]) -> Result<(), FsError> {
        self.engine.write(ino, offset, data, kill_suid)
    }

    /// Answers for a write; what still finds no room is taken from the reserve, if it has a claim on that.
    fn answer(&self, place: Place, data: &[u8], written: Result<(), FsError>, reply: ReplyWrite) {
        let settled = match written {
            Err(FsError::NoSpace) if place.is_page => self.write_taken(place, data),
            other => other,
        };
        let settled = settled.map_err(Refusal::from).and_then(|()| require_time(&*self.engine));
        if place.is_page && time::is_over(&*self.engine) {
            // What the kernel took since is lost, so its next `write` is to tell.
            self.full.remind(place.ino);
        }
        match settled {
            // A request is at most a MiB long.
            Ok(()) => reply.written(data.len() as u32),
            Err(refusal) => reply.error(refusal.0),
        }
    }

    /// Writes a page that the kernel took from a `write` before it knew that the volume is full.
    fn write_taken(&self, Place { ino, offset, kill_suid, .. }: Place, data: &[u8]) -> Result<(), FsError> {
        // Without the writeback cache only a mapping brings such pages, and there is no `write` to tell.
        if !self.writeback.load(Ordering::Relaxed) || self.full.did_not_fit(ino) {
            self.engine.write_taken(ino, offset, data, kill_suid)
        } else {
            Err(FsError::NoSpace)
        }
    }

    /// Waits for room for a write until there is no hope for it.
    fn write_late(&self, late: &Late) -> Result<(), FsError> {
        let _asker = late.asker.work();
        loop {
            match self.write(late.place, &late.data) {
                Err(FsError::NoSpace) if !asker::asker_was_killed() && !self.queue.lock().stopped => {
                    if !self.engine.find_room(late.data.len()) {
                        return Err(FsError::NoSpace);
                    }
                }
                written => return written,
            }
        }
    }
}

fn run<E: Engine>(shared: &Shared<E>) {
    loop {
        let late = {
            let mut queue = shared.queue.lock();
            loop {
                match queue.waiting.pop_front() {
                    Some(late) => break late,
                    None if queue.stopped => return,
                    None => shared.changed.wait(&mut queue),
                }
            }
        };
        shared.changed.notify_all();
        let written = shared.write_late(&late);
        shared.answer(late.place, &late.data, written, late.reply);
    }
}
