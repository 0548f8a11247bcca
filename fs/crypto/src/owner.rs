//! The owner's key: what it signs for the account's devices, and what it keeps from the hive.
//!
//! Every device whose ring is open has it, so it is no wall between devices. It is one between them and whoever only
//! carries what they send.
//!
//! Invariants
//! - Each use has a context of its own: packages and releases are signed under theirs, never as a bare message.
//! - No (key, nonce) seals two plaintexts: a package body and a stream have fresh hedged salts, also where somebody
//!   else chose the stream's id, and so has what is said with an order. A package body and that are sealed under nonce 0;
//!   the parts of a stream under their numbers.

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::cipher::{Cipher, Suite};
use crate::keys::{context, derive, hide, sign};

/// The direction of what belongs to an order: from a person to devices.
const TO_DEVICE: u8 = 0;
/// The direction of a stream's text: from a device to a person.
const FROM_DEVICE: u8 = 1;

/// The owner's signing key, made with a key ring and kept in it.
pub struct OwnerKey(pub(crate) Zeroizing<[u8; 32]>);

hide!(OwnerKey);

impl OwnerKey {
    /// The key with this ed25519 seed. A ring makes its own.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Its public half, which checks what it signs.
    pub fn public(&self) -> [u8; 32] {
        SigningKey::from_bytes(&self.0).verifying_key().to_bytes()
    }

    /// Signs a message for one context; `fs_format::signature::is_valid` checks it.
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        sign(&self.0, context, message)
    }

    /// The cipher of a package's body, which is sealed once under this salt, with nonce 0. Always suite 1.
    pub fn package_cipher(&self, salt: &[u8; 32]) -> Cipher {
        Cipher::new(Suite::ChaCha20Poly1305, &derive(context::PACKAGE, &self.0, &[salt]))
    }

    /// The cipher of what a device sends in one stream; a part's nonce is its number. Always suite 1.
    ///
    /// The id is chosen by who asks and handed on by the hive, which may hand it to two devices, or twice to one. So
    /// it takes a salt of the sender's, which goes before each part, to make the key its own.
    pub fn stream_cipher(&self, stream: &[u8; 16], salt: &[u8; 32]) -> Cipher {
        self.cipher(FROM_DEVICE, stream, salt)
    }

    /// The cipher of what a person says to devices with an order about something that has this id: sealed once under this
    /// salt, with nonce 0. Always suite 1.
    pub fn order_cipher(&self, about: &[u8; 16], salt: &[u8; 32]) -> Cipher {
        self.cipher(TO_DEVICE, about, salt)
    }

    fn cipher(&self, direction: u8, id: &[u8; 16], salt: &[u8; 32]) -> Cipher {
        let key = derive(context::STREAM, &self.0, &[id, &[direction], salt]);
        Cipher::new(Suite::ChaCha20Poly1305, &key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fs_format::signature::is_valid;

    use super::*;
    use crate::keys::tests::{hex, sealed};

    const SALT: [u8; 32] = [7; 32];

    fn owner() -> OwnerKey {
        OwnerKey::from_seed([5; 32])
    }

    // The expected values come from a separate program, with other implementations of every primitive.
    #[test]
    fn keys_and_signatures_are_these_bytes() {
        assert_eq!(
            hex(&owner().public()),
            "6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1"
        );
        assert_eq!(
            hex(&owner().sign("comb 2026-11 v1 package signature", b"a message")),
            "a2a3277adf3d33ecb44d07380a3da5e6b1228121d756e3b89c0e2f92d188dc26\
             ea33a21ed051a02f332cff2f868ae7bf615293626b6bbd5a8fb70a925516230e"
        );
        assert_eq!(
            sealed(&owner().package_cipher(&SALT), 0, b"header"),
            "bcfec3e233ee192fab49cea4e29071da78da42178f"
        );
        assert_eq!(
            sealed(&owner().stream_cipher(&[3; 16], &SALT), 9, b"a part"),
            "4bfa845ba34b0d9e9eb6b618e5bf2ce69971200839"
        );
    }

    #[test]
    fn every_input_of_a_cipher_changes_its_key() {
        let (owner, other) = (owner(), OwnerKey::from_seed([6; 32]));
        let ciphers = [
            owner.package_cipher(&SALT),
            owner.package_cipher(&[8; 32]),
            other.package_cipher(&SALT),
            owner.stream_cipher(&[3; 16], &SALT),
            // One id twice, as a hive that wants to compare two texts would hand it out.
            owner.stream_cipher(&[3; 16], &[8; 32]),
            owner.stream_cipher(&[4; 16], &SALT),
            owner.order_cipher(&[3; 16], &SALT),
            other.stream_cipher(&[3; 16], &SALT),
        ];
        let different: BTreeSet<String> = ciphers.iter().map(|cipher| sealed(cipher, 0, b"")).collect();
        assert_eq!(different.len(), ciphers.len());
    }

    #[test]
    fn a_signature_holds_for_its_owner_context_and_message_only() {
        let (key, signature) = (owner().public(), owner().sign("a context", b"a message"));
        assert!(is_valid(&key, "a context", b"a message", &signature));
        assert!(!is_valid(&key, "another context", b"a message", &signature));
        assert!(!is_valid(&key, "a context", b"another message", &signature));
        assert!(!is_valid(&OwnerKey::from_seed([6; 32]).public(), "a context", b"a message", &signature));
        assert_eq!(format!("{:?}", owner()), "OwnerKey(..)");
    }
}
