//! Authenticated encryption: two suites, one key a cipher, positions as nonces.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// What encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439): fast everywhere.
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D): several times faster where the processor has AES.
    Aes256Gcm = 2,
}

impl Suite {
    /// The suite with this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ChaCha20Poly1305),
            2 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// What is fastest on this processor.
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes =
            std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// The bytes are not what was sealed under this key, nonce and associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the integrity check failed")]
pub struct OpenFailed;

/// A key that seals and opens.
pub struct Cipher(LessSafeKey);

impl Cipher {
    /// Bytes of a tag.
    pub const TAG_BYTES: usize = 16;

    pub(crate) fn new(suite: Suite, key: &Zeroizing<[u8; 32]>) -> Self {
        let key = UnboundKey::new(suite.algorithm(), &key[..]).expect("both suites take 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts in place and returns the tag. A nonce is used once for a key.
    pub fn seal(&self, nonce: u64, associated: &[u8], bytes: &mut [u8]) -> [u8; 16] {
        let tag = self
            .0
            .seal_in_place_separate_tag(expand(nonce), Aad::from(associated), bytes)
            .expect("nothing that is sealed comes near the 64 GiB that a suite can take");
        tag.as_ref().try_into().expect("both suites have tags of 16 bytes")
    }

    /// Verifies and decrypts in place; on failure the bytes are worthless.
    pub fn open(
        &self,
        nonce: u64,
        associated: &[u8],
        bytes: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), OpenFailed> {
        self.0
            .open_in_place_separate_tag(expand(nonce), Aad::from(associated), tag, bytes)
            .map(|_| ())
            .map_err(|_| OpenFailed)
    }
}

/// Twelve bytes: four zeros, then the number in little-endian.
fn expand(nonce: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
