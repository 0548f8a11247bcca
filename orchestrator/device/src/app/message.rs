//! What a person says of a moment, on its way to the device: the hive carries it and cannot read it (`api.md`, section 4).
//!
//! ```text
//! the sender's salt, 32 bytes | ChaCha20-Poly1305 of the text, nonce 0 | tag, 16 bytes
//! ```
//! under the stream key (`security.md`, section 2) of the app's id, direction 0. The app's id and a byte that says what it
//! is are associated, so that nobody makes it a message of another app.

use fs_crypto::{OwnerKey, Zeroizing};
use orchestrator_api::ids::AppId;
use orchestrator_api::placement::Problem;

use crate::trouble::{Result, Trouble};

const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// What it is.
const OF_A_MOMENT: u8 = 1;

fn associated(app: AppId) -> Vec<u8> {
    [&app.0[..], &[OF_A_MOMENT]].concat()
}

/// Seals a message for the devices of the account. The salt is used once.
pub fn seal(owner: &OwnerKey, app: AppId, text: &str, salt: &[u8; SALT_BYTES]) -> Vec<u8> {
    let mut sealed = text.as_bytes().to_vec();
    let tag = owner.order_cipher(&app.0, salt).seal(0, &associated(app), &mut sealed);
    [&salt[..], &sealed, &tag].concat()
}

/// Opens what somebody who has the ring sealed.
pub fn open(owner: &OwnerKey, app: AppId, sealed: &[u8]) -> Result<String> {
    let wrong = || {
        Trouble::new(
            Problem::PackageSealed,
            "what is said of the moment was not sealed under this device's key ring",
        )
    };
    let (salt, rest) = sealed.split_first_chunk::<SALT_BYTES>().ok_or_else(wrong)?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(wrong)?;
    let mut plain = Zeroizing::new(text.to_vec());
    owner.order_cipher(&app.0, salt).open(0, &associated(app), &mut plain, tag).map_err(|_| wrong())?;
    String::from_utf8(plain.to_vec()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId([7; 16]);
    const TEXT: &str = "before the great clean-up";

    #[test]
    fn only_who_has_the_ring_reads_it_and_only_for_its_app() {
        let owner = OwnerKey::from_seed([1; 32]);
        let sealed = seal(&owner, APP, TEXT, &[9; 32]);
        assert_eq!(open(&owner, APP, &sealed).expect("ours"), TEXT);
        assert!(!sealed.windows(6).any(|bytes| bytes == b"before"));
        assert_ne!(seal(&owner, APP, TEXT, &[8; 32])[32..], sealed[32..]);
        let other = OwnerKey::from_seed([2; 32]);
        assert_eq!(open(&other, APP, &sealed).expect_err("a stranger").problem, Problem::PackageSealed);
        assert!(open(&owner, AppId([8; 16]), &sealed).is_err(), "another app's");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&owner, APP, &changed).is_err(), "byte {at}");
            assert!(open(&owner, APP, &sealed[..at]).is_err(), "{at} bytes of it");
        }
    }
}
