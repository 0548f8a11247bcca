//! For whom a thread works: nobody waits for a store on behalf of somebody who was killed.
//!
//! The kernel lets nobody die whose request is being served, and fuser hands on no FUSE_INTERRUPT. So whoever serves and
//! waits looks now and then.

use std::cell::Cell;

use fuser::Request;

thread_local! {
    /// The thread that asked, as `/proc` calls it; 0 if that is not known.
    static PID: Cell<u32> = const { Cell::new(0) };
}

/// Who asked for something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker(u32);

/// Says for whom this thread works, until it is dropped.
pub(crate) struct Working;

impl Asker {
    pub(crate) fn of(request: &Request) -> Self {
        Self(request.pid())
    }

    /// This thread works for him.
    pub(crate) fn work(self) -> Working {
        PID.set(self.0);
        Working
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        PID.set(0);
    }
}

/// Whether whoever asked for what this thread serves was killed, and only waits for the answer.
pub fn asker_was_killed() -> bool {
    let pid = PID.get();
    pid != 0
        && std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| kill_is_pending(&status))
}

/// Every signal that ends a process without a core becomes SIGKILL for each of its threads.
fn kill_is_pending(status: &str) -> bool {
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_kill_counts() {
        assert!(kill_is_pending("Name:\tcat\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(kill_is_pending("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000102\n"));
        assert!(!kill_is_pending(
            "SigPnd:\t0000000000004000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000100\n"
        ));
        assert!(!kill_is_pending(""));
        assert!(!asker_was_killed(), "nobody asked");
    }
}
