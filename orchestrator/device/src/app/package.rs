//! Sealing packages, and opening them: the one place where it is done, for devices and for people (`security.md`,
//! section 5).
//!
//! Invariants
//! - Nothing of a package is used before its signature, its hash and its body were checked, and that it is the one that
//!   was asked for; on a device before [`open`] has judged it too.
//! - Nothing of a body leaves a machine but sealed, under a new salt each time.
//! - What no device would take is not signed.

use std::io::Read;

use fs_crypto::{Cipher, OwnerKey, Zeroizing, hedged_salt};
use fs_format::AccountId;
use orchestrator_api::package::{
    Authorization, BODY_BYTES_MAX, BODY_JSON_BYTES_MAX, BODY_PAGE_BYTES, Body, BodyHeader, Judge,
    PACKAGE_CONTEXT, PackageError,
};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::account::Package as Sealed;
use orchestrator_api::wire::value::Base64;

use crate::trouble::{Result, Trouble};

/// How hard zstd tries: a package is small, and made rarely.
const COMPRESSION: i32 = 9;

/// A package that was opened.
#[derive(Debug, Clone)]
pub struct Package {
    /// What was signed.
    pub authorization: Authorization,
    /// What was sealed.
    pub body: Body,
}

/// The package that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which app.
    pub app: Uuid,
    /// Which revision of it.
    pub revision: u64,
}

/// Why a package was not sealed, or not opened. Says nothing of what was sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// What it says is not right.
    #[error("{0}")]
    Package(#[from] PackageError),
    /// Somebody hands out the package of something else.
    #[error("it is revision {1} of app {0}, which was not asked for")]
    Other(Uuid, u64),
    /// Another key sealed it, or it was changed.
    #[error("the package's body does not open with the key ring")]
    Closed,
    /// It opens, and holds no compressed JSON.
    #[error("the package's body is not compressed as it should be")]
    Compression,
    /// More than a package may hold.
    #[error("the app's folder makes a package of more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

impl From<SealError> for Trouble {
    fn from(error: SealError) -> Self {
        let problem = match &error {
            SealError::Package(PackageError::Expired(_)) => Problem::PackageExpired,
            _ => Problem::PackageWrong,
        };
        Trouble::new(problem, error.to_string())
    }
}

/// Opens a package for a device, which judges whether it may use it now.
pub fn open(sealed: &Sealed, owner: &OwnerKey, wanted: Wanted, judge: &Judge) -> Result<Package> {
    let authorization = signed(sealed, owner, wanted)?;
    authorization.permits(judge).map_err(SealError::from)?;
    let body = unseal(sealed, owner, &authorization)?;
    Ok(Package { authorization, body })
}

/// Opens a package for whoever has its owner's ring, wherever and until whenever it may run.
pub fn open_own(
    sealed: &Sealed,
    owner: &OwnerKey,
    wanted: Wanted,
) -> std::result::Result<Package, SealError> {
    let authorization = signed(sealed, owner, wanted)?;
    let body = unseal(sealed, owner, &authorization)?;
    Ok(Package { authorization, body })
}

fn signed(
    sealed: &Sealed,
    owner: &OwnerKey,
    wanted: Wanted,
) -> std::result::Result<Authorization, SealError> {
    let signature = sealed.signature.0.as_slice().try_into().map_err(|_| PackageError::Signature)?;
    let authorization = Authorization::open(&sealed.authorization.0, signature, &owner.public())?;
    match (authorization.app, authorization.revision) == (wanted.app, wanted.revision) {
        true => Ok(authorization),
        false => Err(SealError::Other(authorization.app, authorization.revision)),
    }
}

fn unseal(
    sealed: &Sealed,
    owner: &OwnerKey,
    authorization: &Authorization,
) -> std::result::Result<Body, SealError> {
    let (header, associated, body) = authorization.body(&sealed.body.0)?;
    let (bytes, tag) = body.split_last_chunk::<{ Cipher::TAG_BYTES }>().ok_or(SealError::Closed)?;
    let mut bytes = Zeroizing::new(bytes.to_vec());
    owner.package_cipher(&header.salt).open(0, associated, &mut bytes, tag).map_err(|_| SealError::Closed)?;
    Ok(Body::parse(&decompress(&bytes)?, authorization)?)
}

/// The one frame at the beginning of what was padded, if it is not larger than a body may be.
fn decompress(padded: &[u8]) -> std::result::Result<Zeroizing<Vec<u8>>, SealError> {
    let broken = |_| SealError::Compression;
    let frame = zstd::stream::read::Decoder::with_buffer(padded).map_err(broken)?.single_frame();
    let mut json = Zeroizing::new(Vec::new());
    // One more than may be, so that what is too long is seen to be.
    frame.take(BODY_JSON_BYTES_MAX as u64 + 1).read_to_end(&mut json).map_err(broken)?;
    match json.len() <= BODY_JSON_BYTES_MAX {
        true => Ok(json),
        false => Err(SealError::TooLarge),
    }
}

/// Seals a body, puts its hash into the authorization, and signs that.
pub fn seal(
    mut authorization: Authorization,
    body: &Body,
    owner: &OwnerKey,
    random: &[u8; 32],
) -> std::result::Result<Sealed, SealError> {
    let form = |what: &str| PackageError::Form(what.to_owned());
    let json = Zeroizing::new(serde_json::to_vec(body).map_err(|_| form("its body"))?);
    if json.len() > BODY_JSON_BYTES_MAX {
        return Err(SealError::TooLarge);
    }
    let compressed = zstd::encode_all(json.as_slice(), COMPRESSION).map_err(|_| SealError::Compression)?;
    let compressed = Zeroizing::new(compressed);
    let mut plain = Zeroizing::new(vec![0; compressed.len().next_multiple_of(BODY_PAGE_BYTES)]);
    plain[..compressed.len()].copy_from_slice(&compressed);

    let account = AccountId(authorization.account.0);
    let salt = hedged_salt(random, &[&authorization.app.0, &authorization.revision.to_le_bytes()]);
    let header = BodyHeader { account, salt }.encode();
    let tag = owner.package_cipher(&salt).seal(0, &header, &mut plain);
    let object = [header.as_slice(), &plain, &tag].concat();
    if object.len() > BODY_BYTES_MAX {
        return Err(SealError::TooLarge);
    }

    authorization.body = Hex(*blake3::hash(&object).as_bytes());
    let signed = serde_json::to_vec(&authorization).map_err(|_| form("its authorization"))?;
    Authorization::parse(&signed)?;
    Body::parse(&json, &authorization)?;
    let signature = owner.sign(PACKAGE_CONTEXT, &signed);
    Ok(Sealed { authorization: Base64(signed), signature: Base64(signature.to_vec()), body: Base64(object) })
}

#[cfg(test)]
mod tests {
    use orchestrator_api::text::Time;
    use serde_json::json;

    use super::*;

    const APP: Uuid = Uuid([7, 7, 7, 7, 7, 7, 0x47, 7, 0x87, 7, 7, 7, 7, 7, 7, 7]);
    const WANTED: Wanted = Wanted { app: APP, revision: 3 };
    const CANARY: &str = "canary of the body";

    fn authorization(devices: serde_json::Value, expires: Option<&str>) -> Authorization {
        let text = json!({
            "comb": "package", "format": 1, "account": "07".repeat(16), "app": APP.to_string(),
            "name": "photos", "revision": 3, "version": "1", "domain": null, "body": "00".repeat(32),
            "services": [{"name": "web", "image": "busybox", "digest": format!("sha256:{}", "22".repeat(32)), "pull": false}],
            "volumes": [], "ports": [], "actions": [], "health_seconds": 60, "permissions": [], "devices": devices,
            "expires": expires, "author": null, "made": "2026-11-22T08:30:00.000Z",
        });
        serde_json::from_value(text).expect("an authorization")
    }

    fn body() -> Body {
        let text = json!({
            "app": APP.to_string(), "revision": 3, "compose": "compose.yaml",
            "files": [{"path": "compose.yaml", "mode": 420, "bytes": "c2VydmljZXM6IHt9Cg=="}],
            "options": [{"name": "TITLE", "value": CANARY}], "secrets": [], "grants": [],
        });
        serde_json::from_value(text).expect("a body")
    }

    fn judge(now: i64) -> Judge {
        Judge {
            account: AccountId([7; 16]),
            device: Uuid([0x4d; 16]),
            is_delegated: false,
            revision_seen: 3,
            now: Time(now),
        }
    }

    fn owner() -> OwnerKey {
        OwnerKey::from_seed([1; 32])
    }

    fn sealed() -> Sealed {
        seal(authorization(json!("all"), None), &body(), &owner(), &[5; 32]).expect("sealed")
    }

    /// Both ways in, which must say the same of what is wrong.
    fn refused(sealed: &Sealed, owner: &OwnerKey, wanted: Wanted) -> SealError {
        let trouble = open(sealed, owner, wanted, &judge(0)).expect_err("a device refuses it");
        let error = open_own(sealed, owner, wanted).expect_err("a person's side refuses it");
        assert_eq!(trouble, Trouble::from(error.clone()));
        assert!(!trouble.text().contains(CANARY));
        error
    }

    #[test]
    fn what_a_person_seals_a_device_opens() {
        let sealed = sealed();
        for part in [&sealed.body.0, &sealed.authorization.0] {
            assert!(!part.windows(6).any(|bytes| bytes == b"canary"));
        }
        let there = open(&sealed, &owner(), WANTED, &judge(0)).expect("a device opens it");
        let here = open_own(&sealed, &owner(), WANTED).expect("its owner opens it");
        assert_eq!((&there.authorization, &there.body), (&here.authorization, &here.body));
        assert_eq!(there.body, body());
        assert_eq!(there.authorization.body.0, *blake3::hash(&sealed.body.0).as_bytes());
        assert_eq!((sealed.body.0.len() - 64 - Cipher::TAG_BYTES) % BODY_PAGE_BYTES, 0);
    }

    #[test]
    fn a_changed_byte_is_refused_wherever_it_is() {
        let sealed = sealed();
        for at in 0..sealed.body.0.len() {
            let mut changed = sealed.clone();
            changed.body.0[at] ^= 1;
            // The hash says so before anything is opened.
            assert!(open_own(&changed, &owner(), WANTED).is_err(), "byte {at} of the body");
        }
        for at in 0..sealed.authorization.0.len() {
            let mut changed = sealed.clone();
            changed.authorization.0[at] ^= 1;
            assert_eq!(refused(&changed, &owner(), WANTED), SealError::Package(PackageError::Signature));
        }
        for at in 0..64 {
            let mut changed = sealed.clone();
            changed.signature.0[at] ^= 1;
            assert_eq!(refused(&changed, &owner(), WANTED), SealError::Package(PackageError::Signature));
        }
        let mut longer = sealed.clone();
        longer.authorization.0.push(b' ');
        assert_eq!(refused(&longer, &owner(), WANTED), SealError::Package(PackageError::Signature));
        let mut shorter = sealed.clone();
        shorter.signature.0.pop();
        assert_eq!(refused(&shorter, &owner(), WANTED), SealError::Package(PackageError::Signature));
    }

    #[test]
    fn a_body_that_was_changed_and_signed_for_again_does_not_open() {
        // As if the owner's signature were of no use: the seal alone has to notice.
        let sealed = sealed();
        for at in [16, 40, 64, 2_000, sealed.body.0.len() - 1] {
            let mut object = sealed.body.0.clone();
            object[at] ^= 1;
            let mut authorization = authorization(json!("all"), None);
            authorization.body = Hex(*blake3::hash(&object).as_bytes());
            let bytes = serde_json::to_vec(&authorization).expect("JSON");
            let signature = owner().sign(PACKAGE_CONTEXT, &bytes);
            let changed = Sealed {
                authorization: Base64(bytes),
                signature: Base64(signature.to_vec()),
                body: Base64(object),
            };
            let error = refused(&changed, &owner(), WANTED);
            let in_account = (16..32).contains(&at);
            assert_eq!(error == SealError::Closed, !in_account, "byte {at}: {error}");
        }
    }

    #[test]
    fn another_key_another_app_and_another_revision_are_refused() {
        let sealed = sealed();
        assert_eq!(
            refused(&sealed, &OwnerKey::from_seed([2; 32]), WANTED),
            SealError::Package(PackageError::Signature)
        );
        let other = Wanted { app: Uuid([9; 16]), ..WANTED };
        assert_eq!(refused(&sealed, &owner(), other), SealError::Other(APP, 3));
        let later = Wanted { revision: 4, ..WANTED };
        assert_eq!(refused(&sealed, &owner(), later), SealError::Other(APP, 3));

        // A body of another app, with an authorization for this one.
        let foreign = Authorization { app: Uuid([9; 16]), ..authorization(json!("all"), None) };
        let error = seal(foreign, &body(), &owner(), &[5; 32]).expect_err("it is not signed");
        assert!(matches!(error, SealError::Package(_)), "{error}");
    }

    #[test]
    fn one_of_another_account_for_other_devices_or_of_the_past_is_refused_by_a_device() {
        let open_at = |sealed: &Sealed, judge: &Judge| open(sealed, &owner(), WANTED, judge);
        let old = Judge { revision_seen: 4, ..judge(0) };
        assert_eq!(open_at(&sealed(), &old).expect_err("an old one").problem, Problem::PackageWrong);
        let foreign = Judge { account: AccountId([8; 16]), ..judge(0) };
        assert_eq!(open_at(&sealed(), &foreign).expect_err("foreign").problem, Problem::PackageWrong);

        let elsewhere = json!([APP.to_string()]);
        let elsewhere = seal(authorization(elsewhere, None), &body(), &owner(), &[5; 32]).expect("sealed");
        assert!(open_at(&elsewhere, &judge(0)).is_err());
        let ends = Some("2026-11-22T09:00:00.000Z");
        let ends = seal(authorization(json!("all"), ends), &body(), &owner(), &[5; 32]).expect("sealed");
        let late = open_at(&ends, &judge(i64::MAX / 2)).expect_err("too late");
        assert_eq!(late.problem, Problem::PackageExpired);
        assert!(open_own(&ends, &owner(), WANTED).is_ok(), "who owns it reads it for ever");
    }

    #[test]
    fn two_packages_of_one_body_share_no_byte_of_the_seal() {
        let one = sealed();
        let two =
            seal(authorization(json!("all"), None), &body(), &owner(), &[6; 32]).expect("sealed").body.0;
        assert_ne!(one.body.0[32..64], two[32..64], "the salts differ");
        assert_ne!(one.body.0[64..128], two[64..128]);
        // The same chance for another revision is another key.
        let next = Authorization { revision: 4, ..authorization(json!("all"), None) };
        let three = seal(next, &Body { revision: 4, ..body() }, &owner(), &[5; 32]).expect("sealed").body.0;
        assert_ne!(one.body.0[32..64], three[32..64]);
    }

    #[test]
    fn what_no_device_would_take_is_not_signed() {
        let seal_body = |body: &Body| seal(authorization(json!("all"), None), body, &owner(), &[1; 32]);
        let mut wrong = body();
        wrong.files[0].path = "../compose.yaml".to_owned();
        assert!(matches!(seal_body(&wrong), Err(SealError::Package(_))));
        assert!(matches!(seal_body(&Body { revision: 4, ..body() }), Err(SealError::Package(_))));
        let mut large = body();
        let noise = |at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[3];
        large.files[0].bytes = (0..3 << 20).map(noise).collect();
        assert_eq!(seal_body(&large), Err(SealError::TooLarge));
    }
}
