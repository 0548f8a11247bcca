//! The clock that goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Boottime;

/// Now, on `CLOCK_BOOTTIME`, in milliseconds.
pub fn boottime() -> Boottime {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000 + nanos.unwrap_or_default() / 1_000_000
}

/// How long it is to a moment; nothing if it has passed.
pub fn until(moment: Boottime) -> Duration {
    Duration::from_millis(moment.saturating_sub(boottime()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = boottime();
        std::thread::sleep(Duration::from_millis(20));
        assert!(boottime() >= before + 15);
        assert!(until(before).is_zero());
        assert!(until(boottime() + 1_000) > Duration::from_millis(900));
    }
}
