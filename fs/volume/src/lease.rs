//! A lease: until when a volume may be changed.
//!
//! Whoever mounts a volume for as long as somebody else lets him gives it an end, and moves that on while he is let. The
//! end is kept here, beside the volume, so that it holds when whoever should move it is dead, stopped or hangs.
//!
//! Invariants
//! - An end never moves back, and one that has come stays.
//! - It is counted on a clock that goes on while the machine sleeps: the first look after that finds it over.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::Clock;

/// What is said of a volume whose lease is over.
pub const LEASE_OVER: &str = "its lease ended";

/// No end.
const NEVER: u64 = u64::MAX;
/// The longest pause between two looks: what wakes a thread does not count the time that the machine sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why an end was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It has come. Only a new mount takes changes again.
    #[error("the lease ended {} ms ago, and cannot be moved any more", .0.as_millis())]
    Over(Duration),
    /// The end that was asked for has passed; nothing is changed.
    #[error("the end that was asked for passed {} ms ago", .0.as_millis())]
    Passed(Duration),
}

/// Until when a volume may be changed, in time since the machine was started.
pub struct Lease {
    clock: Arc<dyn Clock>,
    /// In milliseconds.
    end: AtomicU64,
    /// Held while the end is moved.
    moving: Mutex<()>,
    moved: Condvar,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.end()).finish()
    }
}

fn whole_ms(time: Duration) -> u64 {
    // An end is never so far away that it cannot be told from none.
    u64::try_from(time.as_millis()).unwrap_or(NEVER).min(NEVER - 1)
}

impl Lease {
    /// One without an end.
    pub fn endless(clock: Arc<dyn Clock>) -> Self {
        Self { clock, end: AtomicU64::new(NEVER), moving: Mutex::new(()), moved: Condvar::new() }
    }

    /// When it ends, if it does.
    pub fn end(&self) -> Option<Duration> {
        let end = self.end.load(Ordering::Acquire);
        (end != NEVER).then(|| Duration::from_millis(end))
    }

    /// How long it lasts; nothing for one without an end, zero for one that is over.
    pub fn left(&self) -> Option<Duration> {
        let end = self.end()?;
        let left = end.saturating_sub(self.now());
        if left.is_zero() {
            // It may have been moved on between the two looks; then this is no end that came.
            return Some(self.end()?.saturating_sub(end));
        }
        Some(left)
    }

    /// Whether its end has come.
    pub fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// Moves the end on, or takes it away. An end before the one that it has changes nothing, so that requests may overtake
    /// each other.
    pub fn move_end(&self, to: Option<Duration>) -> Result<(), LeaseError> {
        let _moving = self.moving.lock();
        let (held, now) = (self.end.load(Ordering::Acquire), whole_ms(self.now()));
        if now >= held {
            return Err(LeaseError::Over(Duration::from_millis(now - held)));
        }
        let to = match to.map(whole_ms) {
            Some(to) if to <= now => return Err(LeaseError::Passed(Duration::from_millis(now - to))),
            Some(to) if held != NEVER => to.max(held),
            Some(to) => to,
            None => NEVER,
        };
        self.end.store(to, Ordering::Release);
        self.moved.notify_all();
        Ok(())
    }

    /// Waits until it is over, which one without an end never is.
    pub fn wait_for_end(&self) {
        let mut moving = self.moving.lock();
        loop {
            match self.left() {
                None => self.moved.wait(&mut moving),
                Some(Duration::ZERO) => return,
                Some(left) => drop(self.moved.wait_for(&mut moving, left.min(LOOK_EVERY))),
            }
        }
    }

    /// In whole milliseconds, as ends are.
    fn now(&self) -> Duration {
        Duration::from_millis(whole_ms(self.clock.boottime()))
    }
}

#[cfg(test)]
mod tests {
    use fs_format::Timestamp;

    use super::*;

    /// A clock that stands until it is set.
    #[derive(Default)]
    struct Set(AtomicU64);

    impl Clock for Set {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn boottime(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_end_moves_on_and_never_back() {
        let clock = Arc::new(Set::default());
        let lease = Lease::endless(clock.clone());
        assert_eq!((lease.left(), lease.is_over()), (None, false));
        assert_eq!(lease.move_end(Some(ms(100))), Ok(()));
        assert_eq!(lease.move_end(Some(ms(50))), Ok(()), "a request that was overtaken");
        assert_eq!(lease.end(), Some(ms(100)));
        clock.0.store(99, Ordering::Relaxed);
        assert_eq!((lease.left(), lease.is_over()), (Some(ms(1)), false));
        assert_eq!(lease.move_end(Some(ms(99))), Err(LeaseError::Passed(ms(0))));
        assert_eq!(lease.move_end(Some(ms(300))), Ok(()));
        clock.0.store(299, Ordering::Relaxed);
        assert_eq!(lease.move_end(None), Ok(()), "it is taken away");
        clock.0.store(1000, Ordering::Relaxed);
        assert!(!lease.is_over());
        assert_eq!(lease.move_end(Some(ms(999))), Err(LeaseError::Passed(ms(1))));
        assert!(!lease.is_over(), "nothing was changed");
    }

    #[test]
    fn an_end_that_has_come_stays() {
        let clock = Arc::new(Set::default());
        let lease = Lease::endless(clock.clone());
        lease.move_end(Some(ms(100))).expect("it is to come");
        clock.0.store(100, Ordering::Relaxed);
        assert!(lease.is_over());
        clock.0.store(130, Ordering::Relaxed);
        for to in [Some(ms(500)), None] {
            assert_eq!(lease.move_end(to), Err(LeaseError::Over(ms(30))));
        }
        assert!(lease.is_over());
        lease.wait_for_end();
    }

    #[test]
    fn who_waits_for_the_end_is_woken_when_it_comes_and_not_before() {
        let clock = Arc::new(Set::default());
        let lease = Arc::new(Lease::endless(clock.clone()));
        let waiting = {
            let lease = Arc::clone(&lease);
            std::thread::spawn(move || lease.wait_for_end())
        };
        lease.move_end(Some(ms(20))).expect("it is to come");
        lease.move_end(Some(ms(60_000))).expect("it is to come");
        std::thread::sleep(ms(60));
        assert!(!waiting.is_finished());
        // As after a sleep of the machine: no time passed for who waits.
        clock.0.store(60_000, Ordering::Relaxed);
        waiting.join().expect("it ended");
    }
}
