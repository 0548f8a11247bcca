//! Taking a volume over: section 4 of the document.

use fs_format::claim::{CLAIM_BYTES, Claim};
use fs_format::{Epoch, Seq};

use crate::commit::{Committed, Fence, Fenced};
use crate::error::Error;
use crate::head::{Link, Slot};
use crate::local::{LocalError, Signer};
use crate::remote::{Created, Remote};
use crate::rules::{Rule, keeps};

/// The first manifest of a new epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The epoch that is now ours.
    pub epoch: Epoch,
    /// The manifest that won the slot.
    pub slot: Slot,
    /// The head that it follows: what the writers before had committed.
    pub before: Link,
}

/// Why a volume was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else claims the same epoch at the same time: begin again, or leave it to them.
    #[error("another device claims epoch {} of this volume at the same time", .0.epoch)]
    Rival(Claim),
    /// Somebody else took it over while we did: begin again, or leave it to them.
    #[error("{0}")]
    Overtaken(Fenced),
    /// Nothing was ever committed, so there is nothing to take over.
    #[error("the store holds no seal of this volume; is the URL right?")]
    Empty,
    /// Something failed. An epoch that was claimed blocks nobody; begin again.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<LocalError> for ClaimError {
    fn from(error: LocalError) -> ClaimError {
        ClaimError::Failed(error.into())
    }
}

impl Remote {
    /// Takes the volume over: claims the epoch above all, then wins the next slot.
    pub async fn claim(&self, signer: &dyn Signer) -> Result<Cut, ClaimError> {
        let head = self.head().await?;
        let mut newest = head.newest.clone().ok_or(ClaimError::Empty)?;
        let epoch = Epoch(head.epoch().0.checked_add(1).ok_or_else(|| self.last_epoch(&head.epoch()))?);
        if keeps(Rule::ClaimBeforeCut) {
            self.claim_epoch(epoch, signer).await?;
        }
        loop {
            // The head from before the claim is good enough to try: a slot that was filled since says so.
            let seal = self.next_of(epoch, &newest, signer)?;
            let committed = match keeps(Rule::CutIsCommitted) {
                true => self.commit(epoch, &seal).await?,
                false => self.copy(&seal).await?,
            };
            match committed {
                Committed::Counts => return Ok(Cut { epoch, slot: seal, before: newest.link() }),
                Committed::Last(fenced) => return Err(ClaimError::Overtaken(fenced)),
                Committed::Void(fenced) if fenced.by >= epoch => return Err(ClaimError::Overtaken(fenced)),
                Committed::Void(_) => {}
            }
            // The writer before was faster; it stops when it sees our claim.
            newest = self.head().await?.newest.ok_or(ClaimError::Empty)?;
            if newest.epoch >= epoch && keeps(Rule::EpochsGrow) {
                let fenced = Fenced { by: newest.epoch, at: newest.seq, how: Fence::Slot };
                return Err(ClaimError::Overtaken(fenced));
            }
        }
    }

    async fn claim_epoch(&self, epoch: Epoch, signer: &dyn Signer) -> Result<(), ClaimError> {
        let object = signer.claim(epoch)?;
        self.check_claim(epoch, &object)?;
        match self.create_or_read(&self.names.claim(epoch), object, CLAIM_BYTES).await? {
            Created::Same => Ok(()),
            Created::Other(bytes) => Err(ClaimError::Rival(self.check_claim(epoch, &bytes)?)),
        }
    }

    /// The manifest of a new epoch that follows `head`.
    fn next_of(&self, epoch: Epoch, head: &Slot, signer: &dyn Signer) -> Result<Slot, ClaimError> {
        let seq = Seq(head.seq.0.saturating_add(1));
        let bytes = signer.manifest(epoch, head)?;
        let seal = Slot::open(&self.volume, seq, bytes).map_err(wrong)?;
        if seal.epoch != epoch || seal.parent != head.id {
            return Err(wrong(format!("it is of epoch {} and follows {}", seal.epoch, seal.parent)).into());
        }
        Ok(seal)
    }

    fn last_epoch(&self, epoch: &Epoch) -> Error {
        let why = "no epoch comes after it".to_owned();
        Error::Damaged { object: self.names.claim(*epoch), why }
    }
}

fn wrong(why: String) -> LocalError {
    LocalError::new("the manifest that was made to take the volume over", why)
}
