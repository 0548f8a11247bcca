//! The plain bytes of a frame, before they are decompressed.

use fs_format::pack::{Codec, decode_payload};
use fs_format::put_varint;
use fs_format::tree::CHUNK_BYTES_MAX;

use crate::outcome::{Outcome, judge, same};

/// Small enough that inputs reach it.
const PLAIN_BYTES_MAX: usize = 4096;

pub fn run(input: &[u8]) -> Outcome {
    let outcome = decode(input, CHUNK_BYTES_MAX);
    if matches!(outcome, Outcome::Broken(_)) {
        return outcome;
    }
    decode(input, PLAIN_BYTES_MAX)
}

fn decode(input: &[u8], plain_max: usize) -> Outcome {
    judge(
        input,
        || decode_payload(input, plain_max),
        |&(codec, len, payload)| {
            if len > plain_max {
                return Err(format!("{len} plain bytes"));
            }
            let mut encoded = vec![codec as u8];
            match codec {
                Codec::Raw if payload.len() != len => return Err(format!("{} raw bytes", payload.len())),
                Codec::Raw => {}
                Codec::Zstd => put_varint(&mut encoded, len as u64),
            }
            encoded.extend_from_slice(payload);
            same(&encoded, input)?;
            Ok(codec as u64)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let zstd = |len: u64| {
        let mut out = vec![Codec::Zstd as u8];
        put_varint(&mut out, len);
        out.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 4, 0]);
        out
    };
    vec![vec![0], vec![0; 1 + PLAIN_BYTES_MAX], zstd(0), zstd(PLAIN_BYTES_MAX as u64)]
}
