//! What a daemon says of itself: the file `log` of the volume's folder, which is its standard error.
//!
//! Invariant
//! - `log` and `log.old` together stay about twice [`LOG_BYTES_MAX`], however long a daemon runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::failure::{Context, Result};
use crate::state::VolumeFolder;

/// A log above this many bytes is set aside as `log.old`, in place of an older one.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// What is logged without `COMB_LOG`.
///
/// What fuser says of replies is left out: nearly all of it is that a reply found nobody, because the process was killed in
/// the middle of its call. That is harmless, happens at each such kill, and cannot be told from the rest by its level.
const FILTER: &str = "info,fuser::reply=off";

/// Where it is.
pub fn path(volume: &VolumeFolder) -> PathBuf {
    volume.path.join("log")
}

/// Opens it to write on, and sets a long one aside.
pub fn open(volume: &VolumeFolder) -> Result<File> {
    let path = path(volume);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        fs::rename(&path, volume.path.join("log.old")).context(path.display())?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).context(path.display())
}

/// Begins to log; only the first call counts.
pub fn start(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(FILTER));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        // Errors of the log would be told to standard error with a panic where that cannot be written.
        .log_internal_errors(false)
        .try_init();
}

/// Standard error, where that is the log of this volume.
#[derive(Clone)]
pub struct Bounded {
    volume: Arc<VolumeFolder>,
    /// Threads set the log aside one at a time.
    turn: Arc<Mutex<()>>,
}

impl Bounded {
    /// For the daemon of this volume.
    pub fn new(volume: &VolumeFolder) -> Self {
        Self { volume: Arc::new(volume.clone()), turn: Arc::default() }
    }

    fn keep_short(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = rustix::fs::fstat(rustix::stdio::stderr())
            .is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|bytes| bytes > LOG_BYTES_MAX));
        if !is_long {
            return;
        }
        // Where no new one can be made, the words are worth more than the bound.
        if let Ok(file) = open(&self.volume) {
            let _ = rustix::stdio::dup2_stderr(&file);
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.keep_short();
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
