//! A claim: the signed statement that a device takes an epoch.

use fs_crypto::VolumeKey;
use fs_format::Epoch;
use fs_format::claim::{CLAIM_CONTEXT, Claim};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Claim::open(input),
        |claim| {
            let (_, signature) = input.split_last_chunk().ok_or("it has no signature")?;
            same(&claim.encode(signature), input)?;
            Ok(super::magnitude(claim.epoch.0 as usize))
        },
    )
}

fn key() -> VolumeKey {
    VolumeKey::from_seed([7; 32])
}

pub fn seeds() -> Vec<Vec<u8>> {
    [(1, 0), (9, 3), (u64::MAX, 0xff)]
        .map(|(epoch, fill)| {
            let claim =
                Claim { volume: key().id(), epoch: Epoch(epoch), device: [fill; 16], nonce: [fill; 32] };
            claim.encode(&key().sign(CLAIM_CONTEXT, &claim.message())).to_vec()
        })
        .into()
}

/// Brings volume and signature in line with the rest.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    super::sign(&key(), CLAIM_CONTEXT, input);
}
