//! The volume's own records: moments, fates of packs, the policy of retention.

use fs_format::ledger::{Moment, POLICY_BYTES_MAX, PackFate, decode_policy};
use fs_format::manifest::{MESSAGE_BYTES_MAX, SnapshotRecord, TAG_BYTES_MAX, TAGS_MAX};
use fs_format::{Epoch, ManifestId, Seq, SnapshotId, Timestamp};

use super::{magnitude, samples};
use crate::outcome::{Outcome, judge, same};

pub fn moment(input: &[u8]) -> Outcome {
    judge(
        input,
        || Moment::decode(input),
        |moment| {
            let mut again = Vec::new();
            moment.encode(&mut again);
            same(&again, input)?;
            Ok(moment.snapshot.as_ref().map_or(0, |label| 1 + magnitude(label.tags.len())))
        },
    )
}

pub fn moments() -> Vec<Vec<u8>> {
    let label = |message: usize, tag: usize, tags: usize| {
        let (message, tags) = ("\u{2603}".repeat(message), vec!["t".repeat(tag); tags]);
        Some(SnapshotRecord { id: SnapshotId([3; 16]), message, tags })
    };
    [None, label(3, 5, 2), label(MESSAGE_BYTES_MAX / 3, TAG_BYTES_MAX, TAGS_MAX)]
        .map(|snapshot| {
            let moment = Moment {
                id: ManifestId([9; 32]),
                epoch: Epoch(1),
                time: Timestamp(-5),
                files: 2,
                bytes: 1 << 40,
                added: u64::MAX,
                root: samples::pointer(7),
                height: 3,
                snapshot,
            };
            let mut bytes = Vec::new();
            moment.encode(&mut bytes);
            bytes
        })
        .into()
}

pub fn fate(input: &[u8]) -> Outcome {
    judge(
        input,
        || PackFate::decode(input),
        |fate| {
            let mut again = Vec::new();
            fate.encode(&mut again);
            same(&again, input)?;
            Ok(u64::from(input[0]))
        },
    )
}

pub fn fates() -> Vec<Vec<u8>> {
    let condemned = PackFate::Condemned { seq: Seq(300), time: Timestamp(1 << 60) };
    [condemned, PackFate::Doomed { seq: Seq(u64::MAX) }, PackFate::Gone]
        .map(|fate| {
            let mut bytes = Vec::new();
            fate.encode(&mut bytes);
            bytes
        })
        .into()
}

pub fn policy(input: &[u8]) -> Outcome {
    judge(
        input,
        || decode_policy(input),
        |text| {
            same(text.as_bytes(), input)?;
            Ok(magnitude(text.len()))
        },
    )
}

pub fn policies() -> Vec<Vec<u8>> {
    vec![
        b"keep 5m for 3h, 1h for 2d; keep last 3".to_vec(),
        "\u{2603}".repeat(POLICY_BYTES_MAX / 3).into_bytes(),
    ]
}
