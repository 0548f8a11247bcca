//! A run of a file's bytes in a chunk.

use fs_format::tree::{CHUNK_BYTES_MAX, ChunkRef, Extent, FRAME_BYTES_MAX, Location};
use fs_format::{ChunkId, PackNumber};

use super::samples;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Extent::decode(input),
        |extent| {
            same(&samples::bytes(|out| extent.encode(out)), input)?;
            if extent.len == 0
                || u64::from(extent.len) + u64::from(extent.chunk.skip) > CHUNK_BYTES_MAX as u64
            {
                return Err(format!("reaches out of its chunk: {extent:?}"));
            }
            Ok(0)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let location = Location { pack: PackNumber(u32::MAX), offset: u32::MAX, len: FRAME_BYTES_MAX as u32 };
    let chunk = ChunkRef { chunk: ChunkId([0xff; 16]), location, skip: 0 };
    let largest = Extent { len: CHUNK_BYTES_MAX as u32, chunk };
    [samples::extent(), largest].iter().map(|extent| samples::bytes(|out| extent.encode(out))).collect()
}
