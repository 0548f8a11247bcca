//! The one door to the world: disk, clock and chance.
//!
//! The engine does nothing but through these traits, so that a simulator can stand in
//! for all of them and the same seed gives the same run.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fs_format::Timestamp;

pub use crate::buffer::{ALIGN, Buffer};

/// Everything the engine needs from outside.
#[derive(Clone)]
pub struct Env {
    /// The volume's own folder.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Unpredictable bytes.
    pub chance: Arc<dyn Chance>,
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; reading only.
    Read,
    /// It must exist; reading and writing.
    Write,
    /// It must not exist; reading and writing.
    CreateNew,
}

/// A folder on a disk. Paths are relative, with `/`, without `.` and `..`.
///
/// Durability is POSIX's: a file's bytes survive a crash after [`DiskFile::sync`], its
/// name after [`Disk::sync_dir`] of its folder.
pub trait Disk: Send + Sync {
    /// Opens or creates a file.
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a folder; it is no error if it exists.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Renames a file over another, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names in a folder (`""` is the top), in no order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Free bytes that this volume may use.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Who wants to be told what will be read, where files may have to come from afar.
    fn ahead(&self) -> Option<&dyn Ahead> {
        None
    }
}

/// Is told what will be read.
pub trait Ahead {
    /// These bytes of a file will be read soon; the file is `file_bytes` long, where that is known. Waits for nothing.
    fn will_read(&self, path: &str, file_bytes: Option<u64>, range: Range<u64>);
    /// Whether a file is on this machine as a whole.
    fn is_here(&self, path: &str) -> bool;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`; an early end is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Reads `len` bytes from `offset` into `buffer`, past the system's cache where that can be had.
    ///
    /// For much at once, which is cached elsewhere: nothing is copied, and no memory is taken from others.
    fn read_large(&self, buffer: &mut Buffer, offset: u64, len: usize) -> io::Result<()> {
        buffer.reset(len);
        self.read_at(buffer, offset)
    }
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, past the system's cache where that can be had.
    ///
    /// For much at once that nobody reads soon. It can be had for bytes that lie at the same distance from a
    /// multiple of [`ALIGN`] in memory as in the file; the rest is written like others.
    fn write_large(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)
    }
    /// Is told that these bytes are not what was written; returns whether another read may show others.
    ///
    /// What came from afar may have come wrong.
    fn renew(&self, range: Range<u64>) -> io::Result<bool> {
        let _ = range;
        Ok(false)
    }
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves room for `len` bytes and sets the length; the bytes read as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Waits until the bytes are durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// The same, and what is read from then on is what the disk has.
    ///
    /// After a sync that failed, a kernel may go on to show bytes that never reached the disk, and no later sync tells.
    fn sync_and_forget(&self) -> io::Result<()>;
}

/// A clock.
pub trait Clock: Send + Sync {
    /// Wall time.
    fn now(&self) -> Timestamp;
    /// Time since a fixed moment; never goes back. For measuring, not for stamping.
    fn monotonic(&self) -> Duration;
    /// Time since the machine was started, which goes on while it sleeps.
    fn boottime(&self) -> Duration {
        self.monotonic()
    }
}

/// A source of unpredictable bytes.
pub trait Chance: Send + Sync {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}
