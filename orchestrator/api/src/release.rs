//! Releases of the device's own program, signed by the owner (`security.md`, section 9).
//!
//! As with a package, the signature is checked before anything is believed, and over the bytes as they came.

use fs_format::AccountId;
use fs_format::signature::is_valid;
use serde::{Deserialize, Serialize};

use crate::package::list;
use crate::text::{Hex, is_plain};

/// What the signature of a release is bound to.
pub const RELEASE_CONTEXT: &str = "comb 2026-11 v1 release signature";
/// The largest release, in bytes; its programs travel apart from it.
pub const RELEASE_BYTES_MAX: usize = 16 << 10;
/// The largest program, in bytes.
pub const BINARY_BYTES_MAX: u64 = 256 << 20;
/// The most programs of a release.
pub const BINARIES_MAX: usize = 8;
const FORMAT: u16 = 1;
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Why a release was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Larger than may be read.
    #[error("the release is larger than {RELEASE_BYTES_MAX} bytes")]
    TooLarge,
    /// The owner did not sign these bytes.
    #[error("the owner did not sign this release")]
    Signature,
    /// No release, or one of a newer Comb.
    #[error("this is no release that this comb reads, at line {0}, column {1}")]
    Form(usize, usize),
    /// A field whose value no writer makes.
    #[error("{0} of the release is not valid")]
    Invalid(&'static str),
    /// Another account's.
    #[error("the release is another account's")]
    Account,
    /// Not newer than what is here.
    #[error("release {given} is not above {have}")]
    Old {
        /// Its own number.
        given: u64,
        /// The one that is here.
        have: u64,
    },
    /// For other processors.
    #[error("the release has no program for this processor")]
    Arch,
}

/// Processors that devices have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "names of the processors")]
pub enum Arch {
    #[serde(rename = "x86_64")]
    X86_64,
    #[serde(rename = "aarch64")]
    Aarch64,
}

/// A release of the device's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Always `"release"`.
    pub comb: Mark,
    /// Always 1.
    pub format: u16,
    /// Whose it is.
    pub account: Hex<16>,
    /// Grows; a device takes none that is not above its own.
    pub number: u64,
    /// For people.
    pub version: String,
    /// One for each processor.
    #[serde(deserialize_with = "list::<_, _, BINARIES_MAX>")]
    pub binaries: Vec<Binary>,
}

/// Says that these bytes are a release, so that no other signed JSON is taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// The only word.
    Release,
}

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// What it runs on.
    pub arch: Arch,
    /// Of the whole file.
    pub blake3: Hex<32>,
    /// Of the whole file.
    pub bytes: u64,
}

impl Release {
    /// Checks the signature over the bytes as they came, then reads them.
    pub fn open(bytes: &[u8], signature: &[u8; 64], owner: &[u8; 32]) -> Result<Self, ReleaseError> {
        if bytes.len() > RELEASE_BYTES_MAX {
            return Err(ReleaseError::TooLarge);
        }
        if !is_valid(owner, RELEASE_CONTEXT, bytes, signature) {
            return Err(ReleaseError::Signature);
        }
        Self::parse(bytes)
    }

    /// Reads the bytes without believing them: for a hive, which has no ring to know the owner by, and for showing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        if bytes.len() > RELEASE_BYTES_MAX {
            return Err(ReleaseError::TooLarge);
        }
        let release: Self = serde_json::from_slice(bytes)
            .map_err(|error| ReleaseError::Form(error.line(), error.column()))?;
        let expect = |holds: bool, what| if holds { Ok(()) } else { Err(ReleaseError::Invalid(what)) };
        expect(release.format == FORMAT, "format")?;
        expect((1..=NUMBER_MAX).contains(&release.number), "number")?;
        expect(release.version.len() <= 64 && is_plain(&release.version), "version")?;
        expect(!release.binaries.is_empty(), "binaries")?;
        expect(release.binaries.iter().all(|one| (1..=BINARY_BYTES_MAX).contains(&one.bytes)), "binaries")?;
        let mut processors: Vec<Arch> = release.binaries.iter().map(|one| one.arch).collect();
        processors.sort();
        processors.dedup();
        expect(processors.len() == release.binaries.len(), "binaries")?;
        Ok(release)
    }

    /// The program that a device of this account and processor takes, if it has a lower number.
    pub fn choose(&self, account: AccountId, have: u64, arch: Arch) -> Result<Binary, ReleaseError> {
        if self.account.0 != account.0 {
            return Err(ReleaseError::Account);
        }
        if self.number <= have {
            return Err(ReleaseError::Old { given: self.number, have });
        }
        self.binaries.iter().find(|one| one.arch == arch).copied().ok_or(ReleaseError::Arch)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use fs_format::signature::signed_digest;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::package::PACKAGE_CONTEXT;

    fn release() -> Value {
        let program = |arch: &str| json!({"arch": arch, "blake3": "ab".repeat(32), "bytes": 12_000_000});
        json!({
            "comb": "release", "format": 1, "account": "00".repeat(16), "number": 5, "version": "0.2.0",
            "binaries": [program("x86_64"), program("aarch64")],
        })
    }

    #[test]
    fn only_a_release_that_the_owner_signed_is_opened() {
        let owner = SigningKey::from_bytes(&[7; 32]);
        let key = owner.verifying_key().to_bytes();
        let bytes = release().to_string().into_bytes();
        let sign = |context: &str| owner.sign(&signed_digest(context, &bytes)).to_bytes();
        Release::open(&bytes, &sign(RELEASE_CONTEXT), &key).expect("the owner signed it");
        assert_eq!(Release::open(&bytes, &sign(PACKAGE_CONTEXT), &key), Err(ReleaseError::Signature));
        assert_eq!(Release::open(b"{}", &sign(RELEASE_CONTEXT), &key), Err(ReleaseError::Signature));
        assert_eq!(Release::parse(&vec![b' '; RELEASE_BYTES_MAX + 1]), Err(ReleaseError::TooLarge));
    }

    #[test]
    fn a_device_takes_what_is_its_own_and_newer() {
        let release = Release::parse(release().to_string().as_bytes()).expect("is a release");
        let account = AccountId([0; 16]);
        assert_eq!(release.choose(account, 4, Arch::Aarch64).expect("is newer").arch, Arch::Aarch64);
        assert_eq!(release.choose(account, 5, Arch::X86_64), Err(ReleaseError::Old { given: 5, have: 5 }));
        assert_eq!(release.choose(AccountId([1; 16]), 4, Arch::X86_64), Err(ReleaseError::Account));
        let one = Release { binaries: release.binaries[..1].to_vec(), ..release };
        assert_eq!(one.choose(account, 4, Arch::Aarch64), Err(ReleaseError::Arch));
    }

    #[test]
    fn values_that_no_writer_makes_are_refused() {
        let wrong = [
            ("/comb", json!("package")),
            ("/format", json!(2)),
            ("/number", json!(0)),
            ("/number", json!(1u64 << 53)),
            ("/version", json!("a\u{1b}")),
            ("/binaries", json!([])),
            ("/binaries/0/arch", json!("riscv64")),
            ("/binaries/0/arch", json!("aarch64")),
            ("/binaries/0/bytes", json!(0)),
            ("/binaries/0/bytes", json!(BINARY_BYTES_MAX + 1)),
            ("/binaries/0/blake3", json!("ab")),
            ("/binaries/0", json!({"arch": "x86_64", "blake3": "ab".repeat(32), "bytes": 1, "more": 1})),
        ];
        for (at, value) in wrong {
            let mut changed = release();
            *changed.pointer_mut(at).expect("is there") = value.clone();
            assert!(Release::parse(changed.to_string().as_bytes()).is_err(), "{at} = {value}");
        }
        let mut many = release();
        many["binaries"] = json!(vec![release()["binaries"][0].clone(); BINARIES_MAX + 1]);
        assert!(Release::parse(many.to_string().as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = release().to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Release::parse(&bytes);
        }
    }
}
