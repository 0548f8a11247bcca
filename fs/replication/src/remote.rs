//! One volume in one store: requests that end, and objects that were checked.
//!
//! Invariants
//! - No request lasts for ever, whatever the store does.
//! - A manifest, claim or boundary that leaves this file has a valid signature and belongs where it lay.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_format::claim::{BOUNDARY_BYTES, Boundary, CLAIM_BYTES, Claim};
use fs_format::manifest::MANIFEST_BYTES_MAX;
use fs_format::{Epoch, Seq, VolumeId};
use fs_store::{Kind, Name, Store, StoreError};

use crate::error::Error;
use crate::head::Slot;
use crate::names::{Fencing, Names};
use crate::rules::remembered;

/// How long a request may take, whatever is laid around the store; and one second more for each of these
/// bytes that it moves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_BYTES_PER_S: u64 = 16 << 10;
/// Names of claims and boundaries that are asked for at once. There is mostly one of each.
const FENCING_PAGE: usize = 100;

/// A volume's objects in a store.
#[derive(Debug, Clone)]
pub struct Remote {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) volume: VolumeId,
    pub(crate) names: Names,
    patience: Duration,
}

/// What came of a create.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is there with these bytes, whoever made it.
    Same,
    /// Another object is there.
    Other(Bytes),
}

/// What a listing of claims and boundaries showed: names, whose objects were not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The greatest epoch that is claimed.
    pub claim: Option<Epoch>,
    /// The greatest boundary.
    pub boundary: Option<Seq>,
}

/// Waits for a request that moves so many bytes, but not for ever.
pub(crate) async fn within<T>(
    patience: Duration,
    bytes: u64,
    object: impl Display,
    request: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Error> {
    let patience = patience + Duration::from_secs(bytes / PATIENCE_BYTES_PER_S);
    match tokio::time::timeout(patience, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Silent { object: object.to_string(), seconds: patience.as_secs() }),
    }
}

impl Remote {
    /// The objects of this volume in this store.
    pub fn new(store: Arc<dyn Store>, volume: VolumeId) -> Remote {
        Remote { store, names: Names::of(&volume), volume, patience: PATIENCE }
    }

    /// The same with another patience: how long a request may take that moves no bytes to speak of.
    pub fn with_patience(self, patience: Duration) -> Remote {
        Remote { patience, ..self }
    }

    /// What they are called.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Waits for a request, but not for ever.
    pub(crate) async fn within<T>(
        &self,
        bytes: u64,
        object: impl Display,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        within(self.patience, bytes, object, request).await
    }

    /// Creates an object; one that is there already counts as created.
    pub(crate) async fn create_or_trust(&self, name: &Name, bytes: Bytes) -> Result<(), Error> {
        match self.within(bytes.len() as u64, name, self.store.create(name, bytes)).await {
            Err(Error::Store(error)) if error.kind() == Kind::Exists => Ok(()),
            answer => answer,
        }
    }

    /// Creates an object, or says what lies there instead.
    ///
    /// After a lost answer the same is asked again, and finds its own bytes.
    pub(crate) async fn create_or_read(
        &self,
        name: &Name,
        bytes: Bytes,
        limit: usize,
    ) -> Result<Created, Error> {
        match self.within(bytes.len() as u64, name, self.store.create(name, bytes.clone())).await {
            Ok(()) => Ok(Created::Same),
            Err(Error::Store(error)) if error.kind() == Kind::Exists => {
                let there = self.get(name, limit).await?;
                Ok(if there == bytes { Created::Same } else { Created::Other(there) })
            }
            Err(error) => Err(error),
        }
    }

    /// All bytes of a small object.
    pub(crate) async fn get(&self, name: &Name, limit: usize) -> Result<Bytes, Error> {
        self.within(limit as u64, name, self.store.get(name, limit as u64)).await
    }

    /// The manifest in a slot.
    pub async fn slot(&self, seq: Seq) -> Result<Slot, Error> {
        let bytes = self.get(&self.names.slot(seq), MANIFEST_BYTES_MAX).await?;
        self.check_slot(seq, bytes)
    }

    pub(crate) fn check_slot(&self, seq: Seq, bytes: Bytes) -> Result<Slot, Error> {
        Slot::open(&self.volume, seq, bytes)
            .map_err(|why| Error::Damaged { object: self.names.slot(seq), why })
    }

    /// The seqs of the newest `limit` slots, from `below` on if it is given; the newest first.
    pub async fn slots(&self, below: Option<Seq>, limit: usize) -> Result<Vec<Seq>, Error> {
        let (prefix, after) = (self.names.slots(), below.map(|seq| self.names.slot(seq)));
        let listed = self.within(0, prefix.as_str(), self.store.list(&prefix, after.as_ref(), limit)).await?;
        // What is no slot's name is somebody else's.
        Ok(listed.iter().filter_map(|entry| self.names.read_slot(&entry.name)).collect())
    }

    /// The claim of an epoch.
    pub async fn claim_of(&self, epoch: Epoch) -> Result<Claim, Error> {
        let name = self.names.claim(epoch);
        let bytes = self.get(&name, CLAIM_BYTES).await?;
        self.check_claim(epoch, &bytes)
    }

    pub(crate) fn check_claim(&self, epoch: Epoch, bytes: &[u8]) -> Result<Claim, Error> {
        let damaged = |why: String| Error::Damaged { object: self.names.claim(epoch), why };
        let claim = remembered(bytes, Claim::open).map_err(|error| damaged(error.to_string()))?;
        if claim.volume != self.volume {
            return Err(damaged(format!("it is of volume {}", claim.volume)));
        }
        if claim.epoch != epoch {
            return Err(damaged(format!("it is of epoch {}", claim.epoch)));
        }
        Ok(claim)
    }

    /// The boundary at a seq.
    pub async fn boundary_at(&self, seq: Seq) -> Result<Boundary, Error> {
        let name = self.names.boundary(seq);
        let bytes = self.get(&name, BOUNDARY_BYTES).await?;
        let damaged = |why: String| Error::Damaged { object: name.clone(), why };
        let boundary = remembered(&bytes, Boundary::open).map_err(|error| damaged(error.to_string()))?;
        if boundary.volume != self.volume {
            return Err(damaged(format!("it is of volume {}", boundary.volume)));
        }
        if boundary.seq != seq {
            return Err(damaged(format!("it is at seq {}", boundary.seq)));
        }
        Ok(boundary)
    }

    /// The greatest claim and boundary, by their names.
    pub(crate) async fn listed(&self) -> Result<Listed, Error> {
        let prefix = self.names.fencing();
        let mut found = Listed::default();
        let mut after: Option<Name> = None;
        loop {
            let page = self.store.list(&prefix, after.as_ref(), FENCING_PAGE);
            let page = self.within(0, prefix.as_str(), page).await?;
            for entry in &page {
                match self.names.read_fencing(&entry.name) {
                    Some(Fencing::Claim(epoch)) => found.claim = found.claim.max(Some(epoch)),
                    Some(Fencing::Boundary(seq)) => found.boundary = found.boundary.max(Some(seq)),
                    None => {}
                }
            }
            // Claims come last and the greatest comes first, so one that was seen ends the search.
            if page.len() < FENCING_PAGE || found.claim.is_some() {
                return Ok(found);
            }
            after = page.last().map(|entry| entry.name.clone());
        }
    }
}
