//! What can go wrong, by what the caller can do about it.

use std::io;

use thiserror::Error;

/// Why an operation on files was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FsError {
    /// No such name, inode or attribute's file.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A directory is not allowed here.
    #[error("is a directory")]
    IsADirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// Above 255 bytes, or a symlink target above 4095.
    #[error("the name is too long")]
    NameTooLong,
    /// An argument has no meaning.
    #[error("invalid argument")]
    Invalid,
    /// Above the largest file size.
    #[error("the file is too large")]
    FileTooLarge,
    /// Too many names for one inode.
    #[error("too many links")]
    TooManyLinks,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// A value above 64 KiB, or a buffer too small.
    #[error("the attribute is too large")]
    AttributeTooLarge,
    /// The quota or the disk is full.
    #[error("no space left")]
    NoSpace,
    /// The volume turned read-only; `comb status` says why.
    #[error("the volume is read-only")]
    ReadOnly,
    /// No data behind this offset (`SEEK_DATA`, `SEEK_HOLE`).
    #[error("no such offset")]
    NoSuchOffset,
    /// Not permitted for this kind of file.
    #[error("operation not permitted")]
    NotPermitted,
    /// The moment that was read is not kept any more.
    #[error("retention dropped this moment")]
    Dropped,
    /// Bytes on the disk are not what was written; the text names them.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk failed; the text says where.
    #[error("disk error: {0}")]
    Disk(String),
    /// What was asked for lies in a store that cannot be reached; the text says what. Another try may succeed.
    #[error("not here, and the store cannot be reached: {0}")]
    Away(String),
    /// Written by a newer Comb; the text names it.
    #[error("{0}: use a newer comb")]
    Newer(String),
}

impl FsError {
    /// Whether it is about stored bytes and not about what was asked.
    pub fn is_about_the_disk(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Disk(_) | Self::Newer(_))
    }
}

/// Why a volume could not be made or opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder holds no volume.
    #[error("{0} holds no volume")]
    NotAVolume(String),
    /// The folder holds a volume already.
    #[error("{0} holds a volume already")]
    AlreadyAVolume(String),
    /// The key opens another volume.
    #[error("the key is of another volume: this one is {expected}")]
    WrongKey {
        /// The volume in the folder.
        expected: String,
    },
    /// Written by a newer Comb.
    #[error("{what} {detail}")]
    Newer {
        /// The file.
        what: String,
        /// What it says.
        detail: String,
    },
    /// A file is damaged beyond what the engine can do without.
    #[error("{what} {detail}")]
    Damaged {
        /// The file.
        what: String,
        /// What is wrong.
        detail: String,
    },
    /// The moment asked for is not there.
    #[error("there is no snapshot at {0}")]
    NoSuchSnapshot(String),
    /// The disk failed.
    #[error("{what}: {source}")]
    Disk {
        /// The file or folder.
        what: String,
        /// The error.
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// What of a volume could not be read, and why: what did not come from afar is no damage.
    pub(crate) fn unreadable(what: &str, error: FsError) -> Self {
        let what = what.to_owned();
        match error {
            FsError::Away(why) => {
                Self::Disk { what, source: io::Error::new(io::ErrorKind::HostUnreachable, why) }
            }
            error => Self::Damaged { what, detail: error.to_string() },
        }
    }

    /// Whether it did not come from afar; another try may succeed.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if is_away(source))
    }
}

/// Whether a file that is not here did not come from afar.
pub(crate) fn is_away(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable)
}

/// What could not be opened, in the words of an operation on files.
impl From<OpenError> for FsError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoSuchSnapshot(_) => Self::NotFound,
            _ if error.is_away() => Self::Away(error.to_string()),
            OpenError::Disk { .. } => Self::Disk(error.to_string()),
            OpenError::Newer { .. } => Self::Newer(error.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}
