//! The header of a journal segment: one sector with a hash of its own.

use fs_format::journal::{FRAME_TAG_BYTES, SEGMENT_TAG_AT, SEGMENT_TAGGED_BYTES, SegmentHeader};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || SegmentHeader::decode(input),
        |header| {
            let Some(header) = header else {
                return if input.iter().all(|&byte| byte == 0) {
                    Ok(0)
                } else {
                    Err("an unused segment".into())
                };
            };
            // Behind its hash lies the tag, which only whoever has the key can check.
            let tag = SEGMENT_TAG_AT..SEGMENT_TAG_AT + FRAME_TAG_BYTES;
            let mut again = header.encode();
            again[tag.clone()].copy_from_slice(&input[tag]);
            same(&again, &input[..again.len()])?;
            Ok(1)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let first = SegmentHeader {
        suite: 2,
        sectors: 128,
        journal: [1; 16],
        number: 0,
        start: 0,
        salt: [2; 32],
        predecessor: [0; 32],
    };
    let last = SegmentHeader { suite: 1, number: u64::MAX, start: u64::MAX, predecessor: [3; 32], ..first };
    vec![vec![0; 512], first.encode().to_vec(), last.encode().to_vec()]
}

/// Hashes the header anew.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    if input.len() >= SEGMENT_TAG_AT {
        let hash = blake3::hash(&input[..SEGMENT_TAGGED_BYTES]);
        input[SEGMENT_TAGGED_BYTES..SEGMENT_TAG_AT].copy_from_slice(hash.as_bytes());
    }
}
