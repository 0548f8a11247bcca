//! The clock that goes on while the machine sleeps.

use std::time::Duration;

use crate::Boottime;

/// Now, on `CLOCK_BOOTTIME`, in milliseconds.
pub use orchestrator_history::boottime;

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
