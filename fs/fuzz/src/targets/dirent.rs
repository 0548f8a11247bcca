//! A directory entry.

use fs_format::tree::{Dirent, NAME_BYTES_MAX};
use fs_format::{FileKind, Ino};

use super::samples;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || Dirent::decode(input),
        |entry| {
            same(&samples::bytes(|out| entry.encode(out)), input)?;
            let name = &entry.name;
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&b'/') || name.contains(&0) {
                return Err(format!("the name {name:?}"));
            }
            Ok(entry.kind as u64)
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let short = Dirent { ino: Ino::ROOT, kind: FileKind::Directory, name: b"a".as_slice().into() };
    let long = Dirent { ino: Ino::MAX, kind: FileKind::Socket, name: vec![0xff; NAME_BYTES_MAX].into() };
    [short, long].iter().map(|entry| samples::bytes(|out| entry.encode(out))).collect()
}
