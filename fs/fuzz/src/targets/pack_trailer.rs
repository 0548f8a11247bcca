//! The trailer of a pack; an input is the pack's length (8 bytes) and the trailer's plain bytes.

use fs_format::pack::{PACK_HEADER_BYTES, PACK_TRAILER_BYTES, decode_trailer, encode_trailer};
use fs_format::{DecodeError, Reader};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || decode(input),
        |&(pack_bytes, trailer, (offset, len))| {
            same(&encode_trailer(offset, len), &trailer)?;
            let end = u64::from(offset) + u64::from(len);
            if (offset as usize) < PACK_HEADER_BYTES || end + PACK_TRAILER_BYTES as u64 != pack_bytes {
                return Err(format!("{len} bytes at {offset} of {pack_bytes}"));
            }
            Ok(0)
        },
    )
}

type Decoded = (u64, [u8; 16], (u32, u32));

fn decode(input: &[u8]) -> Result<Decoded, DecodeError> {
    let mut reader = Reader::new(input);
    let (pack_bytes, trailer) = (reader.u64()?, reader.array()?);
    Ok((pack_bytes, trailer, decode_trailer(&trailer, pack_bytes)?))
}

pub fn seeds() -> Vec<Vec<u8>> {
    [(64, 16), (1 << 24, 5000), (u32::MAX, u32::MAX)]
        .map(|(offset, len)| {
            let pack_bytes = u64::from(offset) + u64::from(len) + PACK_TRAILER_BYTES as u64;
            [&pack_bytes.to_le_bytes()[..], &encode_trailer(offset, len)].concat()
        })
        .into()
}
