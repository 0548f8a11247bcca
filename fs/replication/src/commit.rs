//! The one step by which a seal is replicated: section 3 of the document.
//!
//! Invariants
//! - A seal is said to count only if its slot holds it and no boundary has overtaken it.
//! - Nothing that lies in a slot of the arbiter is ever removed here.

use std::fmt;

use bytes::Bytes;
use fs_format::manifest::MANIFEST_BYTES_MAX;
use fs_format::{Epoch, Seq};

use crate::error::Error;
use crate::head::Slot;
use crate::remote::{Created, Remote};
use crate::rules::{Rule, keeps};

/// A writer's right has ended: it turns read-only, and what it has from `at` on becomes a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// The epoch of who goes on.
    pub by: Epoch,
    /// The first of our seals that is not in the volume.
    pub at: Seq,
    /// What showed it.
    pub how: Fence,
}

/// What ended a writer's right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// A device claimed a higher epoch.
    Claim {
        /// Its pseudonym.
        device: [u8; 16],
    },
    /// Another manifest lies in our slot.
    Slot,
    /// Slots up to this seq were collected while we slept.
    Boundary(Seq),
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fenced { by, at, how } = self;
        match how {
            Fence::Claim { device } => {
                let device: String = device.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "device {device} took the volume over with epoch {by}")
            }
            Fence::Slot => write!(f, "seal {at} was committed by another writer, of epoch {by}"),
            Fence::Boundary(seq) => {
                write!(f, "the volume went on without this device in epoch {by}, past seal {seq}")
            }
        }
    }
}

/// What came of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It counts, and we may go on.
    Counts,
    /// It counts, and was our last.
    Last(Fenced),
    /// It does not count.
    Void(Fenced),
}

impl Remote {
    /// Creates the slot of a seal whose packs are in the store, and looks whether it counts.
    ///
    /// After an error nothing is known; the same again finds out.
    pub(crate) async fn commit(&self, epoch: Epoch, seal: &Slot) -> Result<Committed, Error> {
        let seq = seal.seq;
        if let Some(other) = self.fill_slot(seal).await? {
            return Ok(Committed::Void(Fenced { by: other.epoch, at: seq, how: Fence::Slot }));
        }
        let listed = self.listed().await?;
        if let Some(boundary) = listed.boundary.filter(|boundary| *boundary >= seq)
            && keeps(Rule::BoundariesAfterSlot)
        {
            // The create may have filled a hole in the past. It is not removed: it may as well be the slot
            // that counts, created long ago. What does not is collected like any slot below a boundary.
            let by = self.boundary_at(boundary).await?.epoch;
            if !keeps(Rule::SlotsStay) {
                self.store.remove(&self.names.slot(seq)).await?;
            }
            return Ok(Committed::Void(Fenced { by, at: seq, how: Fence::Boundary(boundary) }));
        }
        match self.claim_above(epoch, listed.claim.filter(|_| keeps(Rule::ClaimsAfterSlot))).await? {
            // Whoever takes over finds our slot, since it must fill the one behind.
            Some((by, how)) => Ok(Committed::Last(Fenced { by, at: Seq(seq.0 + 1), how })),
            None => Ok(Committed::Counts),
        }
    }

    /// Creates the slot of a seal in a copy, which decides nothing.
    pub(crate) async fn copy(&self, seal: &Slot) -> Result<Committed, Error> {
        match self.fill_slot(seal).await? {
            None => Ok(Committed::Counts),
            Some(_) => Err(Error::Differs { object: self.names.slot(seal.seq), seq: seal.seq }),
        }
    }

    /// Takes a seal out of a copy that is not the volume's, and that is kept elsewhere.
    pub(crate) async fn remove_copied(&self, seq: Seq) -> Result<(), Error> {
        let name = self.names.slot(seq);
        self.within(0, &name, self.store.remove(&name)).await
    }

    /// Creates a slot; the manifest of somebody else that lies there already, if one does.
    pub(crate) async fn fill_slot(&self, seal: &Slot) -> Result<Option<Slot>, Error> {
        let name = self.names.slot(seal.seq);
        match self.create_or_read(&name, seal.bytes.clone(), MANIFEST_BYTES_MAX).await? {
            Created::Same => Ok(None),
            Created::Other(_) if !keeps(Rule::ExistsIsRead) => Ok(None),
            Created::Other(bytes) => self.check_slot(seal.seq, bytes).map(Some),
        }
    }

    /// Whether a claim that is listed ends the right of an epoch.
    pub(crate) async fn claim_above(
        &self,
        epoch: Epoch,
        listed: Option<Epoch>,
    ) -> Result<Option<(Epoch, Fence)>, Error> {
        let Some(above) = listed.filter(|claimed| *claimed > epoch) else { return Ok(None) };
        let claim = self.claim_of(above).await?;
        Ok(Some((above, Fence::Claim { device: claim.device })))
    }

    /// Makes sure that a boundary lies at a seq.
    pub(crate) async fn fill_boundary(&self, seq: Seq, object: Bytes) -> Result<(), Error> {
        self.create_or_trust(&self.names.boundary(seq), object).await?;
        self.boundary_at(seq).await.map(drop)
    }
}
