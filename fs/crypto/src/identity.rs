//! The identity of a device: the key by which a hive knows it again.
//!
//! It opens nothing. A copy of it makes two machines of one name, which the hive's answers to a hello tell apart
//! (`orchestrator/docs/failover.md`, section 13).

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::keys::{hide, sign};

/// A device's signing key, made anew each time it joins a hive.
#[derive(Clone)]
pub struct Identity(Zeroizing<[u8; 32]>);

hide!(Identity);

impl Identity {
    /// The identity with this ed25519 seed: 32 random bytes, used for nothing else.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Its seed, for a file that only its owner can read.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// Its public half, which the hive keeps.
    pub fn public(&self) -> [u8; 32] {
        SigningKey::from_bytes(&self.0).verifying_key().to_bytes()
    }

    /// Signs a message for one context; `fs_format::signature::is_valid` checks it.
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        sign(&self.0, context, message)
    }
}

#[cfg(test)]
mod tests {
    use fs_format::signature::is_valid;

    use super::*;
    use crate::keys::tests::hex;

    const CONTEXT: &str = "comb 2026-11 v1 device request signature";

    // The expected values come from a separate program, with other implementations of every primitive.
    #[test]
    fn its_signatures_are_these_bytes() {
        let identity = Identity::from_seed([5; 32]);
        let signature = identity.sign(CONTEXT, b"a message");
        assert_eq!(
            hex(&signature),
            "bbf1fe4cc6f2621d9696ab93ccf30d3e47ccd1f93b1d17a37aaa34e4fcb2b653\
             5cf2669b9acfaa97189dff20468fa3d73922f4de08a7c200141ced8ad46fe10f"
        );
        assert!(is_valid(&identity.public(), CONTEXT, b"a message", &signature));
        assert!(!is_valid(&Identity::from_seed([6; 32]).public(), CONTEXT, b"a message", &signature));
        assert_eq!(*identity.to_seed(), [5; 32]);
        assert_eq!(format!("{identity:?}"), "Identity(..)");
    }
}
