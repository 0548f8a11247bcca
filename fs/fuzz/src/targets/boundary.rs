//! A boundary: the signed statement that slots up to a seq may be gone.

use fs_crypto::VolumeKey;
use fs_format::claim::{BOUNDARY_CONTEXT, Boundary};
use fs_format::{Epoch, Seq};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Boundary::open(input),
        |boundary| {
            let (_, signature) = input.split_last_chunk().ok_or("it has no signature")?;
            same(&boundary.encode(signature), input)?;
            Ok(super::magnitude(boundary.seq.0 as usize))
        },
    )
}

fn key() -> VolumeKey {
    VolumeKey::from_seed([7; 32])
}

pub fn seeds() -> Vec<Vec<u8>> {
    [(1, 1), (9, 300), (u64::MAX, u64::MAX)]
        .map(|(epoch, seq)| {
            let boundary = Boundary { volume: key().id(), epoch: Epoch(epoch), seq: Seq(seq) };
            boundary.encode(&key().sign(BOUNDARY_CONTEXT, &boundary.message())).to_vec()
        })
        .into()
}

/// Brings volume and signature in line with the rest.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    super::sign(&key(), BOUNDARY_CONTEXT, input);
}
