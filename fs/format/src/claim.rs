//! Claims and boundaries: the two signed statements beside manifests that say who may still write.
//!
//! `fs/docs/replication.md` draws their bytes. Both have a fixed length and nothing secret in them.

use crate::codec::{DecodeError, Reader};
use crate::ids::{Epoch, Seq, VolumeId};
use crate::manifest::signature_is_valid;

/// The newest version of both.
pub const CLAIM_VERSION: u16 = 1;
/// What the signature of a claim is bound to.
pub const CLAIM_CONTEXT: &str = "comb 2026-11 v1 claim signature";
/// What the signature of a boundary is bound to.
pub const BOUNDARY_CONTEXT: &str = "comb 2026-11 v1 boundary signature";
/// Bytes of a claim.
pub const CLAIM_BYTES: usize = CLAIM_MESSAGE_BYTES + SIGNATURE_BYTES;
/// Bytes of a boundary.
pub const BOUNDARY_BYTES: usize = BOUNDARY_MESSAGE_BYTES + SIGNATURE_BYTES;

const CLAIM_MESSAGE_BYTES: usize = 104;
const BOUNDARY_MESSAGE_BYTES: usize = 64;
const SIGNATURE_BYTES: usize = 64;
const CLAIM_MAGIC: &[u8; 8] = b"COMBEPOC";
const BOUNDARY_MAGIC: &[u8; 8] = b"COMBBOUN";

/// The statement "this device takes the epoch".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch that is taken.
    pub epoch: Epoch,
    /// A pseudonym of the machine.
    pub device: [u8; 16],
    /// Random: tells this claim from one by a clone of the machine.
    pub nonce: [u8; 32],
}

impl Claim {
    /// What is signed, in [`CLAIM_CONTEXT`].
    pub fn message(&self) -> [u8; CLAIM_MESSAGE_BYTES] {
        let mut out = [0; CLAIM_MESSAGE_BYTES];
        begin(&mut out, CLAIM_MAGIC, &self.volume, self.epoch);
        out[56..72].copy_from_slice(&self.device);
        out[72..104].copy_from_slice(&self.nonce);
        out
    }

    /// The object.
    pub fn encode(&self, signature: &[u8; 64]) -> [u8; CLAIM_BYTES] {
        let mut out = [0; CLAIM_BYTES];
        out[..CLAIM_MESSAGE_BYTES].copy_from_slice(&self.message());
        out[CLAIM_MESSAGE_BYTES..].copy_from_slice(signature);
        out
    }

    /// Checks the signature of what `encode` wrote, and reads it.
    pub fn open(object: &[u8]) -> Result<Claim, DecodeError> {
        let (volume, epoch, mut rest) = open(object, CLAIM_BYTES, CLAIM_MAGIC, "claim", CLAIM_CONTEXT)?;
        Ok(Claim { volume, epoch, device: rest.array()?, nonce: rest.array()? })
    }
}

/// The statement "slots up to this seq may be gone".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch of who made it.
    pub epoch: Epoch,
    /// The highest seq of which the slot may be gone.
    pub seq: Seq,
}

impl Boundary {
    /// What is signed, in [`BOUNDARY_CONTEXT`].
    pub fn message(&self) -> [u8; BOUNDARY_MESSAGE_BYTES] {
        let mut out = [0; BOUNDARY_MESSAGE_BYTES];
        begin(&mut out, BOUNDARY_MAGIC, &self.volume, self.epoch);
        out[56..64].copy_from_slice(&self.seq.0.to_le_bytes());
        out
    }

    /// The object.
    pub fn encode(&self, signature: &[u8; 64]) -> [u8; BOUNDARY_BYTES] {
        let mut out = [0; BOUNDARY_BYTES];
        out[..BOUNDARY_MESSAGE_BYTES].copy_from_slice(&self.message());
        out[BOUNDARY_MESSAGE_BYTES..].copy_from_slice(signature);
        out
    }

    /// Checks the signature of what `encode` wrote, and reads it.
    pub fn open(object: &[u8]) -> Result<Boundary, DecodeError> {
        let (volume, epoch, mut rest) =
            open(object, BOUNDARY_BYTES, BOUNDARY_MAGIC, "boundary", BOUNDARY_CONTEXT)?;
        Ok(Boundary { volume, epoch, seq: Seq(rest.u64()?) })
    }
}

/// Writes what both begin with.
fn begin(out: &mut [u8], magic: &[u8; 8], volume: &VolumeId, epoch: Epoch) {
    out[..8].copy_from_slice(magic);
    out[8..10].copy_from_slice(&CLAIM_VERSION.to_le_bytes());
    out[16..48].copy_from_slice(&volume.0);
    out[48..56].copy_from_slice(&epoch.0.to_le_bytes());
}

/// Reads what both begin with, and stands behind it.
///
/// The signature comes first, as in a manifest: it is the last 64 bytes in every version, so damage is not
/// taken for a newer version, nor for a claim.
fn open<'a>(
    object: &'a [u8],
    bytes: usize,
    magic: &[u8; 8],
    what: &'static str,
    context: &str,
) -> Result<(VolumeId, Epoch, Reader<'a>), DecodeError> {
    // A newer version may be longer, but nobody needs a megabyte to claim an epoch.
    if object.len() > 16 * bytes {
        return Err(DecodeError::TooLarge(what));
    }
    let (message, signature) = object.split_last_chunk::<SIGNATURE_BYTES>().ok_or(DecodeError::Truncated)?;
    let mut reader = Reader::new(message);
    if reader.take(8)? != magic {
        return Err(DecodeError::Foreign(what));
    }
    let version = reader.u16()?;
    let reserved: [u8; 6] = reader.array()?;
    let volume = VolumeId(reader.array()?);
    if !signature_is_valid(&volume, context, message, signature) {
        return Err(DecodeError::Damaged("signature"));
    }
    if version > CLAIM_VERSION {
        return Err(DecodeError::Newer { found: version.into(), supported: CLAIM_VERSION.into() });
    }
    if version == 0 {
        return Err(DecodeError::Invalid("version"));
    }
    if reserved != [0; 6] {
        return Err(DecodeError::Invalid("reserved bytes"));
    }
    if object.len() < bytes {
        return Err(DecodeError::Truncated);
    }
    if object.len() > bytes {
        return Err(DecodeError::Trailing);
    }
    let epoch = Epoch(reader.u64()?);
    Ok((volume, epoch, reader))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;
    use crate::manifest::{MANIFEST_CONTEXT, signed_digest};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn sign(context: &str, message: &[u8]) -> [u8; 64] {
        key().sign(&signed_digest(context, message)).to_bytes()
    }

    fn volume() -> VolumeId {
        VolumeId(key().verifying_key().to_bytes())
    }

    fn claim() -> Claim {
        Claim { volume: volume(), epoch: Epoch(0x0102), device: [3; 16], nonce: [4; 32] }
    }

    fn boundary() -> Boundary {
        Boundary { volume: volume(), epoch: Epoch(5), seq: Seq(0x0607) }
    }

    fn claimed() -> [u8; CLAIM_BYTES] {
        claim().encode(&sign(CLAIM_CONTEXT, &claim().message()))
    }

    fn bounded() -> [u8; BOUNDARY_BYTES] {
        boundary().encode(&sign(BOUNDARY_CONTEXT, &boundary().message()))
    }

    #[test]
    fn both_lie_as_drawn_and_come_back() {
        let object = claimed();
        assert_eq!((&object[..8], object.len()), (&b"COMBEPOC"[..], 168));
        assert_eq!(object[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(object[16..48], volume().0);
        assert_eq!(object[48..56], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!((&object[56..72], &object[72..104]), (&[3; 16][..], &[4; 32][..]));
        assert_eq!(Claim::open(&object), Ok(claim()));

        let object = bounded();
        assert_eq!((&object[..8], object.len()), (&b"COMBBOUN"[..], 128));
        assert_eq!(object[48..64], [5, 0, 0, 0, 0, 0, 0, 0, 7, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Boundary::open(&object), Ok(boundary()));
    }

    #[test]
    fn every_flipped_bit_and_missing_byte_is_refused() {
        for bit in 0..CLAIM_BYTES * 8 {
            let mut flipped = claimed();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Claim::open(&flipped).is_err(), "bit {bit}");
        }
        for bit in 0..BOUNDARY_BYTES * 8 {
            let mut flipped = bounded();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Boundary::open(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..CLAIM_BYTES {
            assert!(Claim::open(&claimed()[..len]).is_err(), "{len} bytes");
        }
        assert!(Claim::open(&[&claimed()[..], &[0]].concat()).is_err());
    }

    #[test]
    fn one_is_not_taken_for_the_other() {
        assert_eq!(Boundary::open(&claimed()), Err(DecodeError::Foreign("boundary")));
        assert_eq!(Claim::open(&bounded()), Err(DecodeError::Foreign("claim")));
        for context in [BOUNDARY_CONTEXT, MANIFEST_CONTEXT] {
            let object = claim().encode(&sign(context, &claim().message()));
            assert_eq!(Claim::open(&object), Err(DecodeError::Damaged("signature")));
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut message = claim().message().to_vec();
        message[8] = 2;
        message.extend_from_slice(&[9; 100]);
        let newer = [&message[..], &sign(CLAIM_CONTEXT, &message)].concat();
        assert_eq!(Claim::open(&newer), Err(DecodeError::Newer { found: 2, supported: 1 }));
        let mut damaged = claimed();
        damaged[8] = 2;
        assert_eq!(Claim::open(&damaged), Err(DecodeError::Damaged("signature")));
    }

    #[test]
    fn nothing_lies_in_the_reserved_bytes() {
        let mut message = claim().message();
        message[12] = 1;
        let object = [&message[..], &sign(CLAIM_CONTEXT, &message)].concat();
        assert_eq!(Claim::open(&object), Err(DecodeError::Invalid("reserved bytes")));
    }

    #[test]
    fn a_huge_object_is_refused_before_it_is_hashed() {
        assert_eq!(Claim::open(&vec![0; 1 << 20]), Err(DecodeError::TooLarge("claim")));
    }
}
