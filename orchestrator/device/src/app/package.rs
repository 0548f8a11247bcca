//! Opening a package, and sealing one (`security.md`, section 5).
//!
//! Invariant: nothing of a package is used before its signature, its hash, its device and its body were checked.

use std::io::Read;

use fs_crypto::{Cipher, OwnerKey, hedged_salt};
use fs_format::AccountId;
use orchestrator_api::package::{
    Authorization, BODY_JSON_BYTES_MAX, BODY_PAGE_BYTES, Body, BodyHeader, Judge, PACKAGE_CONTEXT,
    PackageError,
};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::Hex;

use crate::trouble::{Result, Trouble};

/// A package as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What the owner signed: these bytes.
    pub authorization: Vec<u8>,
    /// Over them.
    pub signature: [u8; 64],
    /// The sealed object.
    pub body: Vec<u8>,
}

/// A package that this device may use.
#[derive(Debug, Clone)]
pub struct Package {
    /// What was signed.
    pub authorization: Authorization,
    /// What was sealed.
    pub body: Body,
}

/// Checks a package and opens it.
pub fn open(sealed: &Sealed, owner: &OwnerKey, judge: &Judge) -> Result<Package> {
    let authorization =
        Authorization::open(&sealed.authorization, &sealed.signature, &owner.public()).map_err(wrong)?;
    authorization.permits(judge).map_err(wrong)?;
    let (header, associated, body) = authorization.body(&sealed.body).map_err(wrong)?;
    let does_not_open =
        || Trouble::new(Problem::PackageWrong, "the package's body does not open with the ring");
    let (bytes, tag) =
        body.split_at_checked(body.len().saturating_sub(Cipher::TAG_BYTES)).ok_or_else(does_not_open)?;
    let tag: [u8; 16] = tag.try_into().map_err(|_| does_not_open())?;
    let mut bytes = bytes.to_vec();
    owner.package_cipher(&header.salt).open(0, associated, &mut bytes, &tag).map_err(|_| does_not_open())?;
    let body = Body::parse(&unpack(&bytes)?, &authorization).map_err(wrong)?;
    Ok(Package { authorization, body })
}

fn unpack(padded: &[u8]) -> Result<Vec<u8>> {
    let broken =
        |_| Trouble::new(Problem::PackageWrong, "the package's body is not compressed as it should be");
    let frame = zstd::stream::read::Decoder::with_buffer(padded).map_err(broken)?.single_frame();
    let mut json = Vec::new();
    // One more than may be, so that what is too long is seen to be.
    frame.take(BODY_JSON_BYTES_MAX as u64 + 1).read_to_end(&mut json).map_err(broken)?;
    Ok(json)
}

/// Seals a body and signs for it. The authorization's hash is set here.
pub fn seal(
    mut authorization: Authorization,
    body: &Body,
    owner: &OwnerKey,
    random: &[u8; 32],
) -> Result<Sealed> {
    let failed =
        |what: &str| Trouble::new(Problem::PackageWrong, format!("the package cannot be sealed: {what}"));
    let json = serde_json::to_vec(body).map_err(|_| failed("its JSON"))?;
    let salt = hedged_salt(random, &[&authorization.app.0, &authorization.revision.to_le_bytes()]);
    let header = BodyHeader { account: AccountId(authorization.account.0), salt }.encode();
    let mut plain = zstd::encode_all(&json[..], 9).map_err(|_| failed("its size"))?;
    plain.resize(plain.len().next_multiple_of(BODY_PAGE_BYTES), 0);
    let tag = owner.package_cipher(&salt).seal(0, &header, &mut plain);
    let object = [&header[..], &plain, &tag].concat();
    authorization.body = Hex(*blake3::hash(&object).as_bytes());
    let bytes = serde_json::to_vec(&authorization).map_err(|_| failed("its authorization"))?;
    let signature = owner.sign(PACKAGE_CONTEXT, &bytes);
    Ok(Sealed { authorization: bytes, signature, body: object })
}

/// An error of a package as a problem; its words repeat nothing that was sealed.
pub fn wrong(error: PackageError) -> Trouble {
    let problem = match &error {
        PackageError::Expired(_) => Problem::PackageExpired,
        _ => Problem::PackageWrong,
    };
    Trouble::new(problem, error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use orchestrator_api::text::{Time, Uuid};
    use serde_json::json;

    use super::*;

    pub(crate) const ACCOUNT: [u8; 16] = [7; 16];
    const APP: Uuid = Uuid([7, 7, 7, 7, 7, 7, 0x47, 7, 0x87, 7, 7, 7, 7, 7, 7, 7]);

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
            "options": [{"name": "TITLE", "value": "canary of the body"}], "secrets": [], "grants": [],
        });
        serde_json::from_value(text).expect("a body")
    }

    fn judge(now: i64) -> Judge {
        Judge { account: AccountId(ACCOUNT), device: Uuid([0x4d; 16]), revision_seen: 3, now: Time(now) }
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let owner = OwnerKey::from_seed([1; 32]);
        let sealed = seal(authorization(json!("all"), None), &body(), &owner, &[5; 32]).expect("sealed");
        assert!(!sealed.body.windows(6).any(|bytes| bytes == b"canary"));
        let opened = open(&sealed, &owner, &judge(0)).expect("it opens");
        assert_eq!(opened.body.options[0].value, "canary of the body");

        let other = open(&sealed, &OwnerKey::from_seed([2; 32]), &judge(0)).expect_err("another owner");
        assert_eq!(other.problem, Problem::PackageWrong);
        for at in [20, 70, sealed.body.len() - 1] {
            let mut changed = sealed.clone();
            changed.body[at] ^= 1;
            assert_eq!(
                open(&changed, &owner, &judge(0)).expect_err("changed").problem,
                Problem::PackageWrong
            );
        }
        let mut changed = sealed.clone();
        changed.authorization[30] ^= 1;
        assert!(open(&changed, &owner, &judge(0)).is_err());
        let old = Judge { revision_seen: 4, ..judge(0) };
        assert_eq!(open(&sealed, &owner, &old).expect_err("an old revision").problem, Problem::PackageWrong);
    }

    #[test]
    fn one_for_other_devices_or_of_the_past_is_refused() {
        let owner = OwnerKey::from_seed([1; 32]);
        let elsewhere = json!([APP.to_string()]);
        let sealed = seal(authorization(elsewhere, None), &body(), &owner, &[5; 32]).expect("sealed");
        assert!(open(&sealed, &owner, &judge(0)).is_err());
        let ends = Some("2026-11-22T09:00:00.000Z");
        let sealed = seal(authorization(json!("all"), ends), &body(), &owner, &[5; 32]).expect("sealed");
        let late = open(&sealed, &owner, &judge(i64::MAX / 2)).expect_err("too late");
        assert_eq!(late.problem, Problem::PackageExpired);
    }
}
