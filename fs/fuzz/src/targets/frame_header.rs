//! The clear header of a journal frame.

use fs_format::journal::{
    FRAME_HEADER_BYTES, FRAME_TAG_BYTES, FrameHeader, JOURNAL_FRAME_BYTES_MAX, SECTOR_BYTES,
};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || FrameHeader::decode(input),
        |header| {
            same(&header.encode(), &input[..FRAME_HEADER_BYTES])?;
            let len = header.len as usize;
            let stored = FrameHeader::stored_bytes(len);
            if len > JOURNAL_FRAME_BYTES_MAX
                || !stored.is_multiple_of(SECTOR_BYTES)
                || stored < (FRAME_HEADER_BYTES + len + FRAME_TAG_BYTES) as u64
            {
                return Err(format!("a frame of {len} bytes takes {stored}"));
            }
            Ok(0)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let small = FrameHeader { len: 1, number: 0, position: 0, durable: 0 };
    let large = FrameHeader {
        len: JOURNAL_FRAME_BYTES_MAX as u32,
        number: u32::MAX,
        position: u64::MAX,
        durable: u64::MAX,
    };
    vec![small.encode().to_vec(), large.encode().to_vec()]
}
