//! The plain directory of a pack, with its padding.

use fs_format::pack::{
    DirectoryEntry, FrameName, PACK_BYTES_MAX, PACK_HEADER_BYTES, decode_directory, encode_directory,
};
use fs_format::{ChunkId, NodeId};

use super::magnitude;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || decode_directory(input),
        |entries| {
            let mut encoded = encode_directory(entries);
            // What is behind the entries are zeros, any number of them.
            encoded.resize(input.len().max(encoded.len()), 0);
            same(&encoded, input)?;
            let end =
                PACK_HEADER_BYTES as u64 + entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
            if end > PACK_BYTES_MAX {
                return Err(format!("its frames end at {end}"));
            }
            Ok(magnitude(entries.len()))
        },
    )
}

pub fn seeds() -> Vec<Vec<u8>> {
    let one = DirectoryEntry { name: FrameName::Chunk(ChunkId([1; 16])), len: 100 };
    let two = DirectoryEntry { name: FrameName::Node(NodeId([2; 32])), len: 4000 };
    let three = DirectoryEntry { name: FrameName::Page(NodeId([3; 32])), len: 1 << 20 };
    let mut padded = encode_directory(&[one, two, three]);
    padded.resize(padded.len() + 200, 0);
    vec![encode_directory(&[]), encode_directory(&[one, two]), padded, encode_directory(&vec![one; 300])]
}
