//! The one place where the engine's words become the kernel's numbers.

use std::time::{Duration, Instant};

use fs_volume::FsError;
use fuser::Errno;
use parking_lot::Mutex;

/// How often a failure is logged at most: a program may read a damaged place in a loop.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// What was logged last.
static LOGGED: Mutex<Pace> = Mutex::new(Pace { last: None, left_out: 0 });

/// A refusal as the kernel hears it.
///
/// Made from a number, or from the engine's error; damage and failures of the disk are
/// logged on the way, because an errno cannot carry their text: one of a second, and how many
/// were left out since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal(pub(crate) Errno);

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<FsError> for Refusal {
    fn from(error: FsError) -> Self {
        if (error.is_about_the_disk() || matches!(error, FsError::Away(_)))
            && let Some(left_out) = LOGGED.lock().admit(Instant::now())
        {
            match left_out {
                0 => tracing::error!(%error, "answered EIO"),
                _ => tracing::error!(%error, left_out, "answered EIO"),
            }
        }
        Self(errno(&error))
    }
}

/// Lets one through in a while.
struct Pace {
    last: Option<Instant>,
    left_out: u64,
}

impl Pace {
    /// How many were left out since the last that was let through; `None` leaves this one out too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotADirectory => Errno::ENOTDIR,
        FsError::IsADirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::Invalid => Errno::EINVAL,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoAttribute => Errno::ENODATA,
        // Said by changes only; a reader's short buffer is ERANGE, told by `xattr::answer`.
        FsError::AttributeTooLarge => Errno::E2BIG,
        // Not EDQUOT: a quota is the volume's own size, and programs know ENOSPC.
        FsError::NoSpace => Errno::ENOSPC,
        FsError::ReadOnly => Errno::EROFS,
        FsError::Dropped => Errno::ESTALE,
        FsError::NoSuchOffset => Errno::ENXIO,
        FsError::NotPermitted => Errno::EPERM,
        FsError::Damaged(_) | FsError::Disk(_) | FsError::Away(_) | FsError::Newer(_) => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_second_is_let_through_and_the_rest_counted() {
        let mut pace = Pace { last: None, left_out: 0 };
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(pace.admit(at(0)), Some(0));
        assert_eq!(pace.admit(at(1)), None);
        assert_eq!(pace.admit(at(999)), None);
        assert_eq!(pace.admit(at(1000)), Some(2));
        assert_eq!(pace.admit(at(1001)), None);
        assert_eq!(pace.admit(at(5000)), Some(1));
        assert_eq!(pace.admit(at(6000)), Some(0));
    }
}
