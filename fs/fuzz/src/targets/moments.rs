//! The plain body of the list of moments.

use fs_format::manifest::{MESSAGE_BYTES_MAX, SnapshotRecord, TAG_BYTES_MAX, TAGS_MAX};
use fs_format::moments::{MomentRecord, decode_moments, encode_moments};
use fs_format::{ManifestId, Seq, SnapshotId, Timestamp};

use super::magnitude;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || decode_moments(input),
        |moments| {
            same(&encode_moments(moments), input)?;
            if !moments.is_sorted_by(|a, b| a.seq < b.seq) {
                return Err("it does not ascend".into());
            }
            let labels = moments.iter().filter(|moment| moment.snapshot.is_some()).count();
            Ok(magnitude(moments.len()) << 8 | magnitude(labels))
        },
    )
}

fn moment(seq: u64, snapshot: Option<SnapshotRecord>) -> MomentRecord {
    MomentRecord {
        seq: Seq(seq),
        id: ManifestId([seq as u8; 32]),
        time: Timestamp(-5),
        files: 2,
        bytes: 1 << 40,
        added: u64::MAX,
        snapshot,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let label = |message: usize, tag: usize, tags: usize| {
        let (message, tags) = ("\u{2603}".repeat(message), vec!["t".repeat(tag); tags]);
        Some(SnapshotRecord { id: SnapshotId([3; 16]), message, tags })
    };
    let small = vec![moment(1, None), moment(2, label(3, 5, 2)), moment(900, None)];
    let large = vec![moment(u64::MAX, label(MESSAGE_BYTES_MAX / 3, TAG_BYTES_MAX, TAGS_MAX))];
    let many = (1..200).map(|seq| moment(seq, None)).collect();
    [vec![], small, large, many].iter().map(|moments| encode_moments(moments)).collect()
}
