//! A record of the journal: totals, changes, and the data of a last write.

use fs_format::Ino;
use fs_format::journal::{Change, Source, Totals, decode_record, encode_record};
use fs_format::tree::{CHUNK_BYTES_MAX, Key, RecordKind};

use super::{magnitude, samples};
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || decode_record(input),
        |(totals, changes, data)| {
            let mut encoded = Vec::new();
            encode_record(totals, changes, *data, &mut encoded);
            encoded.extend_from_slice(&input[input.len() - data..]);
            same(&(input.len() as u32).to_le_bytes(), &encoded[..4])?;
            same(&encoded[4..], input)?;
            changes.iter().try_for_each(stays_in_bounds)?;
            let kinds = changes.iter().fold(0, |kinds, change| kinds | 1 << kind(change));
            Ok(kinds << 8 | magnitude(changes.len()))
        },
    )
}

/// What replay adds up must not overflow.
fn stays_in_bounds(change: &Change) -> Result<(), String> {
    let held = match change {
        Change::Fill { source: Source::Zero, .. } => true,
        Change::Fill { len, source: Source::Journal(position), .. } => position.checked_add(*len).is_some(),
        Change::Fill { len, source: Source::Chunk(chunk), .. } => {
            *len <= CHUNK_BYTES_MAX as u64 - u64::from(chunk.skip)
        }
        Change::Write { offset, len, .. } => offset.checked_add(u64::from(*len)).is_some(),
        _ => true,
    };
    if held { Ok(()) } else { Err(format!("its source ends before it does: {change:?}")) }
}

fn kind(change: &Change) -> u32 {
    match change {
        Change::PutInode(..) => 0,
        Change::DropInode(_) => 1,
        Change::Put(..) => 2,
        Change::Drop(_) => 3,
        Change::Fill { source: Source::Zero, .. } => 4,
        Change::Fill { source: Source::Journal(_), .. } => 5,
        Change::Fill { source: Source::Chunk(_), .. } => 6,
        Change::Write { .. } => 7,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let ino = Ino(20);
    let entry = Key::new(Ino::ROOT, RecordKind::Dirent, 512);
    let fill = |offset, len, source| Change::Fill { ino, offset, len, source };
    [
        (vec![], 0),
        (vec![Change::PutInode(ino, samples::file()), Change::Put(entry, b"entry".as_slice().into())], 0),
        (vec![Change::DropInode(Ino::MAX); 80], 0),
        (vec![Change::Drop(Key::orphan(ino)); 3], 0),
        (vec![fill(9, u64::MAX, Source::Zero), fill(0, 4096, Source::Journal(1 << 40))], 0),
        (vec![fill(i64::MAX as u64, 0, Source::Zero), fill(1, 100, Source::Chunk(samples::chunk()))], 0),
        (
            vec![Change::PutInode(ino, samples::extreme()), Change::Write { ino, offset: 1 << 40, len: 300 }],
            300,
        ),
    ]
    .into_iter()
    .map(|(changes, data)| {
        let mut out = Vec::new();
        encode_record(&Totals { files: 2, bytes: 1 << 50 }, &changes, data, &mut out);
        out.resize(out.len() + data, 0xd4);
        out.split_off(4)
    })
    .collect()
}
