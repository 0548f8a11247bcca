//! Clock and chance of a simulated world, and the door that carries them with the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fs_format::Timestamp;
use fs_volume::env::{Chance, Clock, Env};
use parking_lot::Mutex;

use crate::{Dice, SimDisk};

/// Where every simulated clock begins: the afternoon of 2026-01-01.
const EPOCH_NS: i64 = 1_767_276_000_000_000_000;

/// How far a clock moves whenever it is read, in nanoseconds. Odd, so that truncation to
/// micro- or milliseconds shows.
const TICK_NS: i64 = 1_000_003;

/// A clock that moves by one tick per question, and never by itself.
#[derive(Debug)]
pub struct SimClock(AtomicI64);

impl SimClock {
    /// A clock that reads `hours` after the common beginning.
    pub fn after_hours(hours: i64) -> Self {
        Self(AtomicI64::new(EPOCH_NS + hours * 3_600_000_000_000))
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(TICK_NS, Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        // Measuring takes no time, and does not move the clock.
        Duration::from_nanos((self.0.load(Ordering::Relaxed) - EPOCH_NS).unsigned_abs())
    }
}

/// Bytes that only look unpredictable.
#[derive(Debug)]
pub struct SimChance(Mutex<Dice>);

impl SimChance {
    /// The same seed gives the same bytes.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(Dice::seeded(seed)))
    }
}

impl Chance for SimChance {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill(out);
    }
}

/// The door to a world with this disk. `life` counts the times that the machine started:
/// each life has other random bytes and a later clock, as a real machine has.
pub fn env(disk: &SimDisk, seed: u64, life: u32) -> Env {
    Env {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock::after_hours(i64::from(life))),
        chance: Arc::new(SimChance::seeded(seed ^ (u64::from(life) << 32) ^ 0x636f_6d62)),
    }
}
