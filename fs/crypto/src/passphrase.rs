//! A passphrase, and the key that Argon2id makes of it.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use fs_format::ring::Argon;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::keys::hide;
use crate::ring::RingError;

/// What a person remembers: text in Unicode's normal form C, so that every keyboard makes the same bytes.
pub struct Passphrase(Zeroizing<String>);

hide!(Passphrase);

/// Why text is not a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// More than anybody types.
    #[error("is longer than {} bytes", Passphrase::BYTES_MAX)]
    TooLong,
    /// A line break, a tab, or what a key sent that is no letter.
    #[error("has a line break or another control character in it")]
    Control,
}

impl Passphrase {
    /// The most bytes that a passphrase has.
    pub const BYTES_MAX: usize = 1024;

    /// Takes text as it was typed.
    pub fn new(text: &str) -> Result<Self, PassphraseError> {
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(PassphraseError::TooLong);
        }
        // Room for all of it, three times what was typed at most: a string that grows leaves copies behind.
        let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
        for letter in text.nfc() {
            if letter.is_control() {
                return Err(PassphraseError::Control);
            }
            normal.push(letter);
        }
        if normal.len() > Self::BYTES_MAX {
            return Err(PassphraseError::TooLong);
        }
        Ok(Self(normal))
    }

    /// The text, to judge whether it is a good one.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The key of this passphrase under these parameters, which a header's decoder has checked.
    pub(crate) fn stretch(&self, argon: &Argon, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, RingError> {
        let params = Params::new(argon.memory_kib, argon.passes, argon.lanes, Some(32))
            .expect("the bounds of a ring lie within those of Argon2id");
        // Asked for first: without that, a machine that lacks the memory would end the program.
        let mut memory = Zeroizing::new(Vec::new());
        memory
            .try_reserve_exact(params.block_count())
            .map_err(|_| RingError::Memory { mib: argon.memory_kib / 1024 })?;
        memory.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(self.0.as_bytes(), salt, &mut key[..], &mut memory[..])
            .expect("the lengths of passphrase, salt, key and memory lie within those of Argon2id");
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).expect("a passphrase")
    }

    #[test]
    fn a_stretched_passphrase_is_these_bytes() {
        // Computed by the reference implementation in C.
        let hex = |argon: &Argon, text: &str| -> String {
            let key = passphrase(text).stretch(argon, &[7; 32]).expect("memory");
            key.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(
            hex(&Argon::MIN, "correct horse battery staple"),
            "da431077b419c03b8a0a45492d363840a9a84401799b8fb84460e22160e0d452"
        );
        let other = Argon { memory_kib: (64 << 10) + 8, passes: 4, lanes: 5 };
        assert_eq!(hex(&other, "größe"), "dc94b9974bb108b272b7e90cfd2c430ef655edc4d22fbd80ec2c9946e8856076");
    }

    #[test]
    fn one_passphrase_is_one_string() {
        assert_eq!(passphrase("gro\u{0308}ße").text(), "gr\u{f6}ße");
        assert_eq!(passphrase(" a b ").text(), " a b ", "blanks count");
    }

    #[test]
    fn what_is_no_passphrase_is_refused() {
        let refused = |text: &str| Passphrase::new(text).map(|_| ()).expect_err("no passphrase");
        assert_eq!(refused(""), PassphraseError::Empty);
        assert_eq!(refused("a\nb"), PassphraseError::Control);
        assert_eq!(refused("a\u{9b}b"), PassphraseError::Control);
        assert_eq!(refused(&"a".repeat(1025)), PassphraseError::TooLong);
        // Letters that grow when they are normalised.
        assert_eq!(refused(&"\u{1d160}".repeat(256)), PassphraseError::TooLong);
        assert_eq!(passphrase(&"a".repeat(1024)).text().len(), 1024);
    }

    #[test]
    fn printing_a_passphrase_shows_nothing() {
        assert_eq!(format!("{:?}", passphrase("canary")), "Passphrase(..)");
    }
}
