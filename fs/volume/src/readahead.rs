//! Reading ahead: who reads a file in order finds its next chunks in the cache.
//!
//! Decrypting and hashing a chunk takes as long as reading it; here both go on beside the reader, on other cores.
//!
//! Invariants
//! - Only hints pass through here: without anyone who fetches, or with a full queue, everything reads as before.
//! - What is fetched ahead of a reader is bounded, and small beside the cache.

use std::collections::VecDeque;

use fs_format::Ino;
use fs_format::tree::ChunkRef;
use parking_lot::{Condvar, Mutex};

/// How far ahead of a reader chunks are fetched at most, in bytes.
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// Files whose readers are told apart at a time.
const STREAMS_MAX: usize = 32;
/// Chunks that may wait to be fetched.
const WANTED_MAX: usize = 128;

/// A file that is being read.
struct Stream {
    ino: Ino,
    /// The farthest byte that was read, and one more.
    end: u64,
    /// Up to here chunks were asked for.
    asked: u64,
    /// Whether the last read went on where the one before ended.
    in_order: bool,
}

/// Who reads what in order.
pub struct Streams {
    ahead_bytes: u64,
    /// Most recent last.
    streams: Mutex<Vec<Stream>>,
}

impl Streams {
    /// For readers who share a cache of `cache_bytes`.
    pub fn new(cache_bytes: u64) -> Self {
        Self { ahead_bytes: AHEAD_BYTES_MAX.min(cache_bytes / 16), streams: Mutex::default() }
    }

    /// Notes a read of `start..end`; returns the range whose chunks should be fetched now, if any.
    pub fn note(&self, ino: Ino, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut streams = self.streams.lock();
        let fresh = Stream { ino, end, asked: end, in_order: start == 0 };
        let Some(index) = streams.iter().position(|stream| stream.ino == ino) else {
            if streams.len() == STREAMS_MAX {
                streams.remove(0);
            }
            streams.push(fresh);
            return None;
        };
        let mut stream = streams.remove(index);
        // The kernel's own readahead comes in several requests, which overtake each other.
        let slack = 2 * (end - start);
        if start.saturating_add(slack) < stream.end || start > stream.end.saturating_add(slack) {
            streams.push(fresh);
            return None;
        }
        stream.end = stream.end.max(end);
        let due = stream.in_order && stream.asked < stream.end + self.ahead_bytes / 2;
        let range = due.then(|| (stream.asked.max(stream.end), stream.end + self.ahead_bytes));
        if let Some((_, to)) = range {
            stream.asked = to;
        }
        stream.in_order = true;
        streams.push(stream);
        range
    }
}

/// Chunks that somebody will ask for soon.
#[derive(Default)]
pub struct Wanted {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<ChunkRef>,
    /// How many threads fetch.
    fetchers: usize,
    stopped: bool,
}

impl Wanted {
    /// Whether anybody fetches what is wanted.
    pub fn is_served(&self) -> bool {
        self.queue.lock().fetchers > 0
    }

    /// Asks for a chunk; forgotten if too many are asked for already.
    pub fn put(&self, chunk: ChunkRef) {
        let mut queue = self.queue.lock();
        if queue.chunks.len() < WANTED_MAX {
            queue.chunks.push_back(chunk);
            self.arrived.notify_one();
        }
    }

    /// Hands chunks to `fetch`, until [`Wanted::stop`].
    pub fn serve(&self, fetch: impl Fn(&ChunkRef)) {
        let mut queue = self.queue.lock();
        queue.fetchers += 1;
        while !queue.stopped {
            match queue.chunks.pop_front() {
                Some(chunk) => parking_lot::MutexGuard::unlocked(&mut queue, || fetch(&chunk)),
                None => self.arrived.wait(&mut queue),
            }
        }
        queue.fetchers -= 1;
    }

    /// Ends all who serve, each behind the chunk at hand.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 128 << 10;

    #[test]
    fn a_reader_in_order_is_served_ahead_and_asked_for_nothing_twice() {
        let streams = Streams::new(128 << 20);
        let mut asked = 0;
        for step in 0..200 {
            let (start, end) = (step * STEP, (step + 1) * STEP);
            if let Some((from, to)) = streams.note(Ino(20), start, end) {
                assert!(from >= asked.max(end) && to == end + AHEAD_BYTES_MAX, "{from}..{to} at {end}");
                asked = to;
            }
            assert!(step == 0 || asked >= end + AHEAD_BYTES_MAX / 2, "too little is asked for at {end}");
        }
    }

    #[test]
    fn requests_that_overtake_each_other_are_still_in_order() {
        let streams = Streams::new(128 << 20);
        for step in [0, 2, 1, 3, 5, 4] {
            streams.note(Ino(20), step * STEP, (step + 1) * STEP);
        }
        assert!(streams.note(Ino(20), 40 * STEP, 41 * STEP).is_none(), "a jump is not");
    }

    #[test]
    fn who_jumps_about_is_left_alone() {
        let streams = Streams::new(128 << 20);
        for step in 1..1000 {
            let start = step * 7919 * 4096 % (1 << 30);
            assert_eq!(streams.note(Ino(20), start, start + 4096), None);
        }
    }

    #[test]
    fn readers_of_many_files_keep_nobody_from_being_noticed() {
        let streams = Streams::new(128 << 20);
        for ino in 0..10 * STREAMS_MAX as u64 {
            streams.note(Ino(ino), 0, STEP);
        }
        assert!(streams.streams.lock().len() <= STREAMS_MAX);
        assert!(streams.note(Ino(10 * STREAMS_MAX as u64 - 1), STEP, 2 * STEP).is_some());
    }

    #[test]
    fn serving_ends_when_it_is_stopped() {
        let wanted = Wanted::default();
        std::thread::scope(|scope| {
            scope.spawn(|| wanted.serve(|_| ()));
            while !wanted.is_served() {
                std::thread::yield_now();
            }
            wanted.stop();
        });
        assert!(!wanted.is_served());
    }
}
