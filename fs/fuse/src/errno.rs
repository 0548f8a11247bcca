//! The one place where the engine's words become the kernel's numbers.

use fs_volume::FsError;
use fuser::Errno;

/// A refusal as the kernel hears it.
///
/// Made from a number, or from the engine's error; damage and failures of the disk are
/// logged on the way, because an errno cannot carry their text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal(pub(crate) Errno);

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<FsError> for Refusal {
    fn from(error: FsError) -> Self {
        if error.is_about_the_disk() {
            tracing::error!(%error, "answered EIO");
        }
        Self(errno(&error))
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
        FsError::NoSuchOffset => Errno::ENXIO,
        FsError::NotPermitted => Errno::EPERM,
        FsError::Damaged(_) | FsError::Disk(_) | FsError::Newer(_) => Errno::EIO,
    }
}
