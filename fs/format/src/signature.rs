//! Signatures, each made for one context.
//!
//! What is signed is a digest of the message under a key derived from the context, so a signature over one kind of
//! thing is never taken for one over another. Checking needs no secret.

use ed25519_dalek::{Signature, VerifyingKey};

/// What is signed: the BLAKE3 hash of the message under a key derived from the context.
pub fn signed_digest(context: &str, message: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&blake3::derive_key(context, b""), message).as_bytes()
}

/// Whether `signature` is the one of `key` over this message in this context (strict verification).
pub fn is_valid(key: &[u8; 32], context: &str, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(&signed_digest(context, message), &Signature::from_bytes(signature)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    #[test]
    fn a_signature_is_good_for_its_key_context_and_message_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = key.sign(&signed_digest("a context", b"a message")).to_bytes();
        assert!(is_valid(&public, "a context", b"a message", &signature));
        assert!(!is_valid(&public, "another context", b"a message", &signature));
        assert!(!is_valid(&public, "a context", b"another message", &signature));
        assert!(!is_valid(
            &SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
            "a context",
            b"a message",
            &signature
        ));
        // A bare message is never signed, and a key of small order signs nothing.
        assert!(!is_valid(&public, "a context", b"a message", &key.sign(b"a message").to_bytes()));
        assert!(!is_valid(&[0; 32], "a context", b"a message", &[0; 64]));
    }
}
