//! Signals to end, for a command that has something to put back before it ends.
//!
//! These are an interrupt from the terminal, a request to end, and a terminal that is gone. The first is only noted: the
//! command looks for it between its steps. A second one ends the process at once, and says what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::failure::{Context, Failure, Result};
use crate::output;

/// How often it is looked for while something else is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Signals that are heeded from now on.
#[derive(Clone)]
pub struct Interrupts {
    came: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Interrupts {
    /// Heeds them for the rest of the process. `left` says what is left, and what to do, where a second one ends it.
    pub fn heed(left: String) -> Result<Self> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        // What whoever began this has it not hear, as `nohup` does, it does not hear.
        let heeded = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(heeded).context("waiting for signals")?;
        let interrupts = Self { came: Arc::default(), over: Arc::default() };
        let (came, over) = (Arc::clone(&interrupts.came), Arc::clone(&interrupts.over));
        let wait = move || {
            for signal in signals.forever() {
                if over.load(Ordering::SeqCst) {
                    let _ = emulate_default_handler(signal);
                } else if came.swap(true, Ordering::SeqCst) {
                    output::note(&format!("error: ended before all was put back\nhint: {left}"));
                    std::process::exit(i32::from(Failure::other("").exit_code()));
                } else {
                    output::note("interrupted: putting back what was; a second time ends at once");
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).context("starting a thread")?;
        Ok(interrupts)
    }

    /// A failure, if one came.
    pub fn check(&self) -> Result<()> {
        match self.came.load(Ordering::SeqCst) {
            true => Err(failure()),
            false => Ok(()),
        }
    }

    /// What came of something, unless it was interrupted: a program that was run for it got the signal as well.
    pub fn or<T>(&self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Err(_) if self.came.load(Ordering::SeqCst) => Err(failure()),
            outcome => outcome,
        }
    }

    /// Waits for one, and is its failure.
    pub async fn wait<T>(&self) -> Result<T> {
        while !self.came.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(failure())
    }

    /// Nothing is to be put back any more: from now on they end the process as usual. Says whether one came before.
    pub fn end(&self) -> bool {
        self.over.store(true, Ordering::SeqCst);
        self.came.load(Ordering::SeqCst)
    }
}

fn failure() -> Failure {
    Failure::other("interrupted")
}

/// The signals that a process does not hear, a bit each, from the kernel's words about it.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_signal_to_end_is_a_failure_of_what_was_being_done() {
        let interrupts = Interrupts::heed("nothing is left".to_owned()).expect("signals are heeded");
        assert_eq!(interrupts.check(), Ok(()));
        assert_eq!(interrupts.or::<()>(Err(Failure::other("why"))).expect_err("failed").message, "why");
        // One that nobody has programs ignore which run beside a terminal or without one.
        signal_hook::low_level::raise(SIGTERM).expect("raised");
        let begun = Instant::now();
        while interrupts.check().is_ok() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let failure = interrupts.check().expect_err("it came");
        assert_eq!((failure.message.as_str(), failure.exit_code()), ("interrupted", 1));
        assert_eq!(interrupts.or::<()>(Err(Failure::other("killed"))), Err(failure));
        assert_eq!(interrupts.or(Ok(1)), Ok(1), "what was done is done");
        assert!(crate::stores::block_on(interrupts.wait::<()>()).is_err());
        assert!(interrupts.end());
    }

    #[test]
    fn what_is_not_heard_is_read_from_the_kernels_words() {
        let table =
            [("Name:\tcomb\nSigIgn:\t0000000000001001\nSigCgt:\t0", 0x1001), ("SigIgn:\tx", 0), ("", 0)];
        for (status, expected) in table {
            assert_eq!(ignored(status), expected, "{status}");
        }
    }
}
