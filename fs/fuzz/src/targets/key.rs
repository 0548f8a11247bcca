//! The key of a record, as the journal writes it.

use fs_format::tree::{Key, RecordKind};
use fs_format::{Ino, Reader};

use super::samples;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    let mut reader = Reader::new(input);
    judge(
        input,
        || Key::decode(&mut reader).map(|key| (key, reader.remaining())),
        |(key, rest)| {
            same(&samples::bytes(|out| key.encode(out)), &input[..input.len() - rest])?;
            Ok(key.kind as u64)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    [Key::FIRST, Key::orphan(Ino(77)), Key::new(Ino::MAX, RecordKind::Extent, u64::MAX)]
        .iter()
        .map(|key| samples::bytes(|out| key.encode(out)))
        .collect()
}
