//! The list of moments as a file: clear header, encrypted body.

use fs_format::moments::{MOMENTS_HEADER_BYTES, MomentsHeader, open_moments};

use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || open_moments(input),
        |&(header, associated, body)| {
            same(associated, &input[..MOMENTS_HEADER_BYTES])?;
            same(&header.encode(), associated)?;
            same(body, &input[MOMENTS_HEADER_BYTES..])?;
            Ok(super::magnitude(body.len()))
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [16, 17, 500]
        .map(|body| {
            let header = MomentsHeader { body_bytes: body as u32, salt: [3; 32] };
            let mut object = header.encode().to_vec();
            object.resize(object.len() + body, 5);
            object
        })
        .into()
}

/// Brings the length in line with the rest.
#[expect(clippy::ptr_arg, reason = "other targets grow the input")]
pub fn repair(input: &mut Vec<u8>) {
    let Some(body) = input.len().checked_sub(MOMENTS_HEADER_BYTES) else { return };
    input[12..16].copy_from_slice(&(body as u32).to_le_bytes());
}
