//! The clear header of a pack.

use fs_format::pack::{PACK_HEADER_BYTES, PackHeader, PackKind};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || PackHeader::decode(input),
        |header| {
            same(&header.encode(), &input[..PACK_HEADER_BYTES])?;
            Ok(header.kind as u64)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [PackKind::Data, PackKind::Meta, PackKind::Moved]
        .map(|kind| PackHeader { suite: kind as u8, kind, salt: [3; 32], domain: [4; 16] }.encode().to_vec())
        .into()
}
