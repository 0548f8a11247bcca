//! That whoever speaks has the account's key ring open: said to the hive by the owner's key, which lies in the ring
//! (`security.md`, section 4). Who has nothing but a device code cannot say it.
//!
//! Invariants
//! - A proof is one device's at one hive: seen by somebody else it is of no use to him.
//! - What is signed of a ring names its account, its number and all of its bytes.

use crate::request::joined;

/// What a device's proof is bound to.
pub const PROOF_CONTEXT: &str = "comb 2026-11 v1 device proof";
/// What the signature of a ring's version is bound to.
pub const RING_CONTEXT: &str = "comb 2026-11 v1 ring version";

/// What the owner's key signs in [`PROOF_CONTEXT`] for a device: the hive's public key, the account as the ring calls
/// it, the device.
pub fn of_device(hive: &[u8; 32], account: &[u8; 16], device: &[u8; 16]) -> Vec<u8> {
    joined(&[hive, account, device])
}

/// What the owner's key signs in [`RING_CONTEXT`] for a version of the ring.
pub fn of_ring(account: &[u8; 16], number: u64, object: &[u8]) -> Vec<u8> {
    joined(&[account, &number.to_le_bytes(), blake3::hash(object).as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_has_the_same_bytes() {
        let (hive, account, device) = ([1; 32], [2; 16], [3; 16]);
        let proof = of_device(&hive, &account, &device);
        assert_eq!(proof.len(), 3 * 8 + 64);
        for other in [
            of_device(&[9; 32], &account, &device),
            of_device(&hive, &[9; 16], &device),
            of_device(&hive, &account, &[9; 16]),
        ] {
            assert_ne!(proof, other);
        }
        let ring = of_ring(&account, 7, b"ring");
        assert_eq!(ring.len(), 3 * 8 + 56);
        for other in
            [of_ring(&[9; 16], 7, b"ring"), of_ring(&account, 8, b"ring"), of_ring(&account, 7, b"other")]
        {
            assert_ne!(ring, other);
        }
    }
}
