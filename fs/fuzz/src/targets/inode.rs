//! An inode.

use fs_format::{Inode, Reader};

use super::samples;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    let mut reader = Reader::new(input);
    judge(
        input,
        || Inode::decode(&mut reader).map(|inode| (inode, reader.remaining())),
        |(inode, rest)| {
            same(&samples::bytes(|out| inode.encode(out)), &input[..input.len() - rest])?;
            Ok(inode.kind as u64)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [samples::file(), samples::extreme()]
        .iter()
        .map(|inode| samples::bytes(|out| inode.encode(out)))
        .collect()
}
