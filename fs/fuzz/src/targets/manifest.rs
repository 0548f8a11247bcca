//! A manifest object: clear header, encrypted body, signature.

use fs_crypto::VolumeKey;
use fs_format::manifest::{
    Lineage, MANIFEST_CONTEXT, MANIFEST_HEADER_BYTES, ManifestHeader, open_manifest, signature_is_valid,
};
use fs_format::{DeviceId, Epoch, ManifestId, Seq};

use crate::outcome::{Outcome, judge, same};

const SIGNATURE_BYTES: usize = 64;

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || open_manifest(input),
        |&(header, associated, body)| {
            same(associated, &input[..MANIFEST_HEADER_BYTES])?;
            same(&header.encode(), associated)?;
            let signed = input.len() - SIGNATURE_BYTES;
            same(body, &input[MANIFEST_HEADER_BYTES..signed])?;
            let signature: [u8; SIGNATURE_BYTES] = input[signed..].try_into().map_err(|_| "no signature")?;
            if !signature_is_valid(&header.volume, MANIFEST_CONTEXT, &input[..signed], &signature) {
                return Err("its signature is not valid".into());
            }
            Ok(u64::from(header.lineage != Lineage::Own) | u64::from(header.has_moved) << 1)
        },
    )
}

fn key() -> VolumeKey {
    VolumeKey::from_seed([7; 32])
}

pub fn seeds() -> Vec<Vec<u8>> {
    let forked = Lineage::Forked([6; 48]);
    [(Lineage::Own, false, 16), (Lineage::Own, true, 500), (forked, false, 100), (forked, true, 16)]
        .map(|(lineage, has_moved, body)| {
            let header = ManifestHeader {
                body_bytes: body as u32,
                volume: key().id(),
                epoch: Epoch(1),
                seq: Seq(9),
                parent: ManifestId([2; 32]),
                salt: [3; 32],
                lineage,
                has_moved,
                device: DeviceId([4; 16]),
            };
            let mut object = header.encode().to_vec();
            object.resize(object.len() + body + SIGNATURE_BYTES, 5);
            repair(&mut object);
            object
        })
        .into()
}

/// Brings length, volume and signature in line with the rest.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    let Some(body) = input.len().checked_sub(MANIFEST_HEADER_BYTES + SIGNATURE_BYTES) else { return };
    let signed = input.len() - SIGNATURE_BYTES;
    input[12..16].copy_from_slice(&(body as u32).to_le_bytes());
    input[16..48].copy_from_slice(&key().id().0);
    let signature = key().sign(MANIFEST_CONTEXT, &input[..signed]);
    input[signed..].copy_from_slice(&signature);
}
