//! What an uploader tells: section 9 of the document.
//!
//! Moments are told by the clock that nobody sets ([`Instant`]), except when a seal was made, which its maker
//! says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_format::{Seq, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::commit::Fenced;
use crate::error::Error;
use crate::head::Link;

/// How far one store has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What it is doing.
    pub state: State,
    /// The last seal that is replicated, if any is known to be; less than before only where the store has lost what it had.
    pub replicated: Option<Seq>,
    /// The highest manifest that was seen there; a loss takes nothing from it, since that is what the loss is told by.
    pub seen: Option<Link>,
    /// When that became known.
    pub replicated_at: Option<Instant>,
    /// When the store last said that it has what is replicated.
    pub verified_at: Option<Instant>,
    /// What somebody must mend before anything goes there again.
    pub halted: Option<Error>,
    /// When the store last said that the volume is still ours to write.
    pub confirmed_at: Option<Instant>,
    /// What is sealed but not replicated.
    pub pending: Pending,
    /// Bytes of packs sent since the uploader began.
    pub sent_bytes: u64,
    /// Bytes a second, over the last seconds in which something was sent; zero when there is nothing to send.
    pub rate: u64,
    /// The last thing that went wrong, whether or not it was overcome.
    pub trouble: Option<Trouble>,
}

/// What an uploader is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// It looks where it stands.
    Starting,
    /// It sends.
    Sending,
    /// All that is sealed is replicated.
    Done,
    /// Something went wrong; it tries again at this moment.
    Waiting {
        /// When.
        next_try: Instant,
    },
    /// Its right has ended. This is the last that it tells.
    Fenced(Fenced),
}

/// What is sealed but not replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Seals.
    pub seals: u64,
    /// Packs of theirs that are not known to be in the store.
    pub packs: u64,
    /// Bytes of those packs.
    pub bytes: u64,
    /// When the oldest of these seals was made.
    pub oldest: Option<Timestamp>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What.
    pub error: Error,
    /// When.
    pub at: Instant,
    /// How often in a row, with nothing achieved in between.
    pub times: u32,
}

impl Progress {
    pub(crate) fn begin() -> Progress {
        Progress {
            state: State::Starting,
            replicated: None,
            seen: None,
            replicated_at: None,
            verified_at: None,
            halted: None,
            confirmed_at: None,
            pending: Pending::default(),
            sent_bytes: 0,
            rate: 0,
            trouble: None,
        }
    }

    /// What ended the right to write, if it ended.
    pub fn fenced(&self) -> Option<Fenced> {
        match self.state {
            State::Fenced(fenced) => Some(fenced),
            _ => None,
        }
    }
}

/// Why a seal will not be replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReplicated {
    /// The right to write has ended.
    #[error("{0}")]
    Fenced(Fenced),
    /// The uploader was stopped.
    #[error("the upload was stopped")]
    Stopped,
}

/// The two bells of an uploader. A bell that rings while nobody listens is heard later.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    pub sealed: Notify,
    pub hurry: Notify,
    /// There may be seals that nobody looked at since the first bell rang.
    pub unseen: AtomicBool,
}

/// Rings an uploader's bells and hears what it tells. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) bells: Arc<Bells>,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl Handle {
    /// There is a new seal.
    pub fn sealed(&self) {
        self.bells.unseen.store(true, Ordering::Release);
        self.bells.sealed.notify_one();
    }

    /// There are packs of a seal that is being made.
    pub fn early(&self) {
        self.bells.sealed.notify_one();
    }

    /// Ends a pause after an error, since somebody mended what was wrong; and looks whether the volume is still ours to write.
    pub fn hurry(&self) {
        self.bells.hurry.notify_one();
    }

    /// What it tells, and a way to wait for more.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until this seal is replicated.
    pub async fn replicated(&self, seq: Seq) -> Result<(), NotReplicated> {
        let mut progress = self.progress();
        let ended = |now: &Progress| now.replicated >= Some(seq) || now.fenced().is_some();
        let now = progress.wait_for(ended).await.map_err(|_| NotReplicated::Stopped)?;
        if now.replicated >= Some(seq) {
            return Ok(());
        }
        Err(now.fenced().map_or(NotReplicated::Stopped, NotReplicated::Fenced))
    }
}
