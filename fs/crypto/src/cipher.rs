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

/// A key that seals and opens. Its bytes live in the library's memory, which is cleansed when freed.
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

    /// Encrypts `plain` into `out`, which is as long, and returns the tag. A nonce is used once for a key.
    pub fn seal_to(&self, nonce: u64, associated: &[u8], plain: &[u8], out: &mut [u8]) -> [u8; 16] {
        let mut tag = [0; Self::TAG_BYTES];
        self.0
            .seal_out_of_place_scatter(expand(nonce), Aad::from(associated), plain, out, &[], &mut tag)
            .expect("both are as long, and nothing comes near the 64 GiB that a suite can take");
        tag
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

#[cfg(test)]
mod tests {
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use zeroize::Zeroizing;

    use super::*;

    const SUITES: [Suite; 2] = [Suite::ChaCha20Poly1305, Suite::Aes256Gcm];

    fn cipher(suite: Suite) -> Cipher {
        Cipher::new(suite, &Zeroizing::new([3; 32]))
    }

    /// What is stored: the bytes, then the tag.
    fn sealed(suite: Suite, nonce: u64, associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut bytes = plain.to_vec();
        let tag = cipher(suite).seal(nonce, associated, &mut bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    fn opened(suite: Suite, nonce: u64, associated: &[u8], stored: &[u8]) -> Result<Vec<u8>, OpenFailed> {
        let (bytes, tag) = stored.split_at(stored.len() - Cipher::TAG_BYTES);
        let mut bytes = bytes.to_vec();
        cipher(suite).open(nonce, associated, &mut bytes, tag.try_into().expect("a tag's length"))?;
        Ok(bytes)
    }

    #[test]
    fn suite_1_is_the_same_bytes_from_another_library() {
        let twin = chacha20poly1305::ChaCha20Poly1305::new(&[3; 32].into());
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 4096, 65_537] {
            for nonce in [0, 1, 0x0102_0304_0506_0708, u64::MAX] {
                for associated in [&b""[..], b"associated"] {
                    let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                    let mut long = [0; 12];
                    long[4..].copy_from_slice(&nonce.to_le_bytes());
                    let expected = twin
                        .encrypt(&long.into(), Payload { msg: &plain, aad: associated })
                        .expect("the twin encrypts");
                    let stored = sealed(Suite::ChaCha20Poly1305, nonce, associated, &plain);
                    assert_eq!(stored, expected, "{len} bytes under nonce {nonce}");
                }
            }
        }
    }

    #[test]
    fn suite_2_gives_the_published_vector() {
        // Test case 14 of the GCM specification: key, nonce and text of zeros.
        let mut bytes = [0; 16];
        let tag = Cipher::new(Suite::Aes256Gcm, &Zeroizing::new([0; 32])).seal(0, b"", &mut bytes);
        assert_eq!(u128::from_be_bytes(bytes), 0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18);
        assert_eq!(u128::from_be_bytes(tag), 0xd0d1_c8a7_9999_6bf0_265b_98b5_d48a_b919);
    }

    #[test]
    fn what_was_sealed_opens() {
        for suite in SUITES {
            for plain in [&b""[..], b"x", &[7; 70_000]] {
                let stored = sealed(suite, 9, b"here", plain);
                assert_eq!(opened(suite, 9, b"here", &stored).as_deref(), Ok(plain));
            }
        }
    }

    #[test]
    fn sealing_elsewhere_gives_what_sealing_in_place_gives() {
        for suite in SUITES {
            for len in [0, 1, 4096, 65_537] {
                let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let mut stored = vec![0; len];
                let tag = cipher(suite).seal_to(9, b"here", &plain, &mut stored);
                stored.extend_from_slice(&tag);
                assert_eq!(stored, sealed(suite, 9, b"here", &plain), "{len} bytes");
            }
        }
    }

    #[test]
    fn what_was_sealed_opens_nowhere_else() {
        for suite in SUITES {
            let stored = sealed(suite, 9, b"here", b"some bytes");
            assert_eq!(opened(suite, 10, b"here", &stored), Err(OpenFailed));
            assert_eq!(opened(suite, 9 << 32, b"here", &stored), Err(OpenFailed));
            assert_eq!(opened(suite, 9, b"there", &stored), Err(OpenFailed));
            assert_eq!(opened(suite, 9, b"", &stored), Err(OpenFailed));
            // Another frame's tag, under the same key and nonce.
            let mut swapped = stored.clone();
            let other = sealed(suite, 9, b"here", b"more bytes");
            swapped[10..].copy_from_slice(&other[10..]);
            assert_eq!(opened(suite, 9, b"here", &swapped), Err(OpenFailed));
        }
        let stored = sealed(Suite::ChaCha20Poly1305, 9, b"here", b"some bytes");
        assert_eq!(opened(Suite::Aes256Gcm, 9, b"here", &stored), Err(OpenFailed));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for suite in SUITES {
            let stored = sealed(suite, 9, b"here", b"some bytes");
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opened(suite, 9, b"here", &flipped), Err(OpenFailed), "bit {bit}");
            }
        }
    }

    #[test]
    fn suites_keep_their_numbers() {
        for suite in SUITES {
            assert_eq!(Suite::from_u8(suite as u8), Some(suite));
        }
        assert_eq!((Suite::ChaCha20Poly1305 as u8, Suite::Aes256Gcm as u8), (1, 2));
        for number in (0..=u8::MAX).filter(|number| !matches!(number, 1 | 2)) {
            assert_eq!(Suite::from_u8(number), None);
        }
    }

    #[test]
    fn a_cipher_is_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Cipher>();
    }
}
