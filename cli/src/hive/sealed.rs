//! Sealing packages, and opening one's own: `orchestrator/docs/security.md`, section 5.
//!
//! Nothing of a body leaves this machine but sealed, and it is sealed under a new salt each time.

use std::io::Read;

use fs_crypto::{OwnerKey, Zeroizing, hedged_salt};
use fs_format::AccountId;
use orchestrator_api::package::{
    Authorization, BODY_BYTES_MAX, BODY_JSON_BYTES_MAX, BODY_PAGE_BYTES, Body, BodyHeader, PACKAGE_CONTEXT,
};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::account::Package;
use orchestrator_api::wire::value::Base64;

use crate::failure::{Failure, Kind, Result};

/// How hard zstd tries: a package is small, and made rarely.
const COMPRESSION: i32 = 9;

/// Seals a body, puts its hash into the authorization, and signs that.
pub fn seal(
    owner: &OwnerKey,
    mut authorization: Authorization,
    body: &Body,
    random: &[u8; 32],
) -> Result<Package> {
    let json = Zeroizing::new(serde_json::to_vec(body).map_err(|_| unwritable())?);
    if json.len() > BODY_JSON_BYTES_MAX {
        return Err(too_large());
    }
    let compressed =
        Zeroizing::new(zstd::encode_all(json.as_slice(), COMPRESSION).map_err(|_| unwritable())?);
    let mut plain = Zeroizing::new(vec![0; compressed.len().next_multiple_of(BODY_PAGE_BYTES)]);
    plain[..compressed.len()].copy_from_slice(&compressed);

    let account = AccountId(authorization.account.0);
    let revision = authorization.revision.to_le_bytes();
    let salt = hedged_salt(random, &[&authorization.app.0, &revision]);
    let header = BodyHeader { account, salt }.encode();
    let tag = owner.package_cipher(&salt).seal(0, &header, &mut plain);
    let object = [header.as_slice(), &plain, &tag].concat();
    if object.len() > BODY_BYTES_MAX {
        return Err(too_large());
    }

    authorization.body = Hex(*blake3::hash(&object).as_bytes());
    let signed = serde_json::to_vec(&authorization).map_err(|_| unwritable())?;
    // What no device would take is not signed.
    Authorization::parse(&signed)
        .and_then(|_| Body::parse(&json, &authorization))
        .map_err(|error| Failure::new(Kind::Usage, format!("this cannot be made a package: {error}")))?;
    let signature = owner.sign(PACKAGE_CONTEXT, &signed);
    Ok(Package { authorization: Base64(signed), signature: Base64(signature.to_vec()), body: Base64(object) })
}

/// Opens a package that this owner signed.
pub fn open(owner: &OwnerKey, package: &Package) -> Result<(Authorization, Body)> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Foreign, format!("the package that the hive keeps: {error}"))
            .hint("it was changed, or signed under another key ring; `comb app update NAME DIR` makes a new one from the folder")
    };
    let signature: [u8; 64] =
        package.signature.0.as_slice().try_into().map_err(|_| wrong(&"its signature has another length"))?;
    let authorization = Authorization::open(&package.authorization.0, &signature, &owner.public())
        .map_err(|error| wrong(&error))?;
    let (header, associated, sealed) = authorization.body(&package.body.0).map_err(|error| wrong(&error))?;
    let (cipher, tag) = sealed
        .split_last_chunk::<16>()
        .map(|(cipher, tag)| (cipher, *tag))
        .ok_or_else(|| wrong(&"it ends early"))?;
    let mut plain = Zeroizing::new(cipher.to_vec());
    owner
        .package_cipher(&header.salt)
        .open(0, associated, &mut plain, &tag)
        .map_err(|_| wrong(&"it does not open"))?;
    let json = decompress(&plain).ok_or_else(|| wrong(&"it cannot be decompressed"))?;
    let body = Body::parse(&json, &authorization).map_err(|error| wrong(&error))?;
    Ok((authorization, body))
}

/// The one frame at the beginning of `padded`, if it is not larger than a body may be.
fn decompress(padded: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let decoder = zstd::Decoder::with_buffer(padded).ok()?.single_frame();
    let mut json = Zeroizing::new(Vec::new());
    decoder.take(BODY_JSON_BYTES_MAX as u64 + 1).read_to_end(&mut json).ok()?;
    (json.len() <= BODY_JSON_BYTES_MAX).then_some(json)
}

fn too_large() -> Failure {
    Failure::new(Kind::Usage, format!("the app's folder makes a package of more than {BODY_BYTES_MAX} bytes"))
        .hint("large files belong into an image or a volume")
}

fn unwritable() -> Failure {
    Failure::other("the package cannot be written")
}

#[cfg(test)]
mod tests {
    use orchestrator_api::package::{Devices, Mark, NamedValue, PackedFile, ServiceImage};
    use orchestrator_api::text::{Time, Uuid};

    use super::*;

    const CANARY: &str = "correct-horse-battery";

    fn app() -> Uuid {
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().expect("a uuid")
    }

    fn authorization() -> Authorization {
        Authorization {
            comb: Mark::Package,
            format: 1,
            account: Hex([3; 16]),
            app: app(),
            name: "photos".to_owned(),
            revision: 3,
            version: "1".to_owned(),
            domain: None,
            body: Hex([0; 32]),
            services: vec![ServiceImage {
                name: "web".to_owned(),
                image: "nginx:1".to_owned(),
                digest: format!("sha256:{}", "2".repeat(64)).try_into().expect("a digest"),
                pull: true,
            }],
            volumes: Vec::new(),
            ports: Vec::new(),
            actions: Vec::new(),
            health_seconds: 60,
            permissions: Vec::new(),
            devices: Devices::All,
            expires: None,
            author: None,
            made: Time(0),
        }
    }

    fn body() -> Body {
        Body {
            app: app(),
            revision: 3,
            files: vec![PackedFile {
                path: "compose.yaml".to_owned(),
                mode: 0o644,
                bytes: b"services: {}\n".to_vec(),
            }],
            compose: "compose.yaml".to_owned(),
            options: vec![NamedValue { name: "title".to_owned(), value: CANARY.to_owned() }],
            secrets: Vec::new(),
            grants: Vec::new(),
        }
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_package_opens_for_its_owner_alone() {
        let owner = OwnerKey::from_seed([5; 32]);
        let package = seal(&owner, authorization(), &body(), &[9; 32]).expect("sealed");
        assert_eq!((package.body.0.len() - 64 - 16) % BODY_PAGE_BYTES, 0);
        let (signed, opened) = open(&owner, &package).expect("its own");
        assert_eq!(opened, body());
        assert_eq!(signed.body.0, *blake3::hash(&package.body.0).as_bytes());
        for part in [&package.body.0, &package.authorization.0] {
            assert!(!holds(part, CANARY) && !holds(part, "services: {}"));
        }

        assert!(open(&OwnerKey::from_seed([6; 32]), &package).is_err());
        for at in [0, 20, 40, 70, package.body.0.len() - 1] {
            let mut changed = package.clone();
            changed.body.0[at] ^= 1;
            assert!(open(&owner, &changed).is_err(), "byte {at}");
        }
        let mut changed = package.clone();
        changed.authorization.0.push(b' ');
        assert!(open(&owner, &changed).is_err());
    }

    #[test]
    fn two_packages_of_one_body_share_no_byte_of_the_seal() {
        let owner = OwnerKey::from_seed([5; 32]);
        let one = seal(&owner, authorization(), &body(), &[1; 32]).expect("sealed");
        let two = seal(&owner, authorization(), &body(), &[2; 32]).expect("sealed");
        assert_ne!(one.body.0[32..64], two.body.0[32..64], "the salts differ");
        assert_ne!(one.body.0[64..128], two.body.0[64..128]);
        // The same chance for another revision is another key.
        let next = Authorization { revision: 4, ..authorization() };
        let three = seal(&owner, next, &Body { revision: 4, ..body() }, &[1; 32]).expect("sealed");
        assert_ne!(one.body.0[32..64], three.body.0[32..64]);
    }

    #[test]
    fn what_no_device_would_take_is_not_signed() {
        let owner = OwnerKey::from_seed([5; 32]);
        let mut wrong = body();
        wrong.files[0].path = "../compose.yaml".to_owned();
        assert_eq!(seal(&owner, authorization(), &wrong, &[1; 32]).expect_err("refused").kind, Kind::Usage);
        let other = Body { revision: 4, ..body() };
        assert!(seal(&owner, authorization(), &other, &[1; 32]).is_err());
        let mut large = body();
        large.files[0].bytes =
            (0..3 << 20).map(|at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        assert!(seal(&owner, authorization(), &large, &[1; 32]).is_err());
    }
}
