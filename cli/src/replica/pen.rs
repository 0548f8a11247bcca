//! What a volume's key signs for its stores.

use bytes::Bytes;
use fs_crypto::VolumeKey;
use fs_format::claim::{BOUNDARY_CONTEXT, Boundary, CLAIM_CONTEXT, Claim};
use fs_format::{Epoch, Seq, VolumeId};
use fs_replication::{LocalError, Signer, Slot};

use crate::keys;

/// Signs for a volume.
pub struct Pen {
    /// The volume's key.
    pub key: VolumeKey,
    /// The volume.
    pub volume: VolumeId,
    /// The pseudonym of this machine.
    pub device: [u8; 16],
}

impl Signer for Pen {
    fn claim(&self, epoch: Epoch) -> std::result::Result<Bytes, LocalError> {
        let nonce = keys::chance().map_err(|failure| LocalError::new("a claim", failure.message))?;
        let claim = Claim { volume: self.volume, epoch, device: self.device, nonce };
        Ok(Bytes::copy_from_slice(&claim.encode(&self.key.sign(CLAIM_CONTEXT, &claim.message()))))
    }

    fn manifest(&self, epoch: Epoch, _head: &Slot) -> std::result::Result<Bytes, LocalError> {
        let what = format!("a manifest of epoch {epoch}");
        Err(LocalError::new(what, "who keeps a volume up to its stores has its epoch already"))
    }

    fn boundary(&self, epoch: Epoch, seq: Seq) -> std::result::Result<Bytes, LocalError> {
        let boundary = Boundary { volume: self.volume, epoch, seq };
        Ok(Bytes::copy_from_slice(&boundary.encode(&self.key.sign(BOUNDARY_CONTEXT, &boundary.message()))))
    }
}
