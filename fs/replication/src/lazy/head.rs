//! Which manifest is the newest, and manifests.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fs_format::manifest::{MANIFEST_BYTES_MAX, ManifestHeader, open_manifest};
use fs_format::{Epoch, Seq, VolumeId};
use fs_store::{Kind, Name, StoreError};

use crate::names::Fencing;

use super::Far;
use super::line::Line;
use super::windows::io_error;

/// How many names are looked at to find the newest slot: some may be somebody else's.
const NAMES_MAX: usize = 16;
/// How many claims and boundaries are looked at; collection leaves few.
const CLAIMS_MAX: usize = 1000;

/// The newest manifest in a store.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its bytes, as they belong in `manifests/`.
    pub manifest: Bytes,
    /// What it says to anyone.
    pub header: ManifestHeader,
    /// The greatest epoch that somebody has claimed.
    pub claimed: Option<Epoch>,
}

/// Why there is no newest manifest.
#[derive(Debug, thiserror::Error)]
pub enum NewestError {
    /// The store holds nothing of it: another URL, or another key.
    #[error("the store holds no manifest of volume {0}")]
    Nothing(VolumeId),
    /// What lies in the slot is not what belongs there.
    #[error("the store's newest manifest, seq {seq}: {detail}")]
    Damaged {
        /// The slot.
        seq: Seq,
        /// What is wrong with it.
        detail: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer in time.
    #[error(transparent)]
    Away(#[from] io::Error),
}

impl Far {
    /// The newest manifest, by two requests, one after the other. Waits for it.
    pub fn head(&self) -> Result<Newest, NewestError> {
        let deadline = Instant::now() + self.line.limits.read;
        let line = self.line.clone();
        self.line.settle(deadline, async move { head(line, deadline).await })?
    }

    /// A manifest. Waits for it.
    ///
    /// Anyone could have checked it, and has: its signature, its volume and its number.
    pub fn manifest(&self, seq: Seq) -> io::Result<Bytes> {
        let deadline = Instant::now() + self.line.limits.read;
        let line = self.line.clone();
        let (bytes, _) = self
            .line
            .settle(deadline, async move { manifest(&line, seq, deadline).await })?
            .map_err(|error| io_error(&error))?;
        Ok(bytes)
    }
}

async fn head(line: Arc<Line>, deadline: Instant) -> Result<Newest, NewestError> {
    let (slots, fencing) = (line.names.slots(), line.names.fencing());
    let (slots, claims) = tokio::join!(
        line.persist(deadline, || line.list(&slots, NAMES_MAX)),
        line.persist(deadline, || line.list(&fencing, CLAIMS_MAX)),
    );
    let slot = |name: &Name| line.names.read_slot(name);
    let Some(seq) = slots?.iter().find_map(slot) else { return Err(NewestError::Nothing(line.volume)) };
    let epoch = |name: &Name| match line.names.read_fencing(name) {
        Some(Fencing::Claim(epoch)) => Some(epoch),
        _ => None,
    };
    let claimed = claims?.iter().filter_map(epoch).max();
    match manifest(&line, seq, deadline).await {
        Ok((manifest, header)) => Ok(Newest { manifest, header, claimed }),
        Err(error) if error.kind() == Kind::Damaged => {
            Err(NewestError::Damaged { seq, detail: error.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

async fn manifest(line: &Line, seq: Seq, deadline: Instant) -> Result<(Bytes, ManifestHeader), StoreError> {
    line.persist(deadline, async || {
        let bytes = line.slot(seq, MANIFEST_BYTES_MAX as u64).await?;
        let damaged =
            |detail: String| StoreError::new(Kind::Damaged, "get", format_args!("seq {seq}"), detail);
        let (header, ..) = open_manifest(&bytes).map_err(|error| damaged(format!("a manifest {error}")))?;
        if header.volume != line.volume || header.seq != seq {
            return Err(damaged(format!("seq {} of volume {} lies there", header.seq, header.volume)));
        }
        Ok((bytes, header))
    })
    .await
}
