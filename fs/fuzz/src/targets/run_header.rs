//! The header of a run of the index of chunks.

use fs_format::dedup::{RUN_HEADER_BYTES, RunHeader, STRETCH_BYTES, Stretch};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || RunHeader::decode(input),
        |header| {
            same(&header.encode(), input)?;
            if !header.stretches.is_sorted_by(|a, b| a.end < b.first) {
                return Err("stretches that touch".into());
            }
            Ok(super::magnitude(header.stretches.len()))
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [0, 1, 3, 200]
        .map(|count| {
            let stretch = |i: u32| Stretch { first: i * 10, end: i * 10 + 9, witness: [i as u8; 8] };
            RunHeader { domain: [3; 16], stretches: (0..count).map(stretch).collect() }.encode()
        })
        .into()
}

/// Brings the count in line with the length.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    let Some(rest) = input.len().checked_sub(RUN_HEADER_BYTES) else { return };
    input[12..16].copy_from_slice(&((rest / STRETCH_BYTES) as u32).to_le_bytes());
}
