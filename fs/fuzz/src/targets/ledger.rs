//! The volume's own records: moments, fates of packs, where their frames were moved to, the policy of retention.

use fs_format::ledger::{Moment, POLICY_BYTES_MAX, PackFate, decode_policy};
use fs_format::manifest::{MESSAGE_BYTES_MAX, SnapshotRecord, TAG_BYTES_MAX, TAGS_MAX};
use fs_format::moved::{Moved, MovedPart};
use fs_format::{Epoch, ManifestId, PackNumber, Seq, SnapshotId, Timestamp};

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

pub fn moved(input: &[u8]) -> Outcome {
    judge(
        input,
        || Moved::decode(input),
        |moved| {
            let mut again = Vec::new();
            moved.encode(&mut again);
            same(&again, input)?;
            for part in &moved.parts {
                for run in &part.runs {
                    let found = moved.find(run.from, run.len).ok_or("a run is not found")?;
                    if found.0 < part.pack {
                        return Err("a run is found where it is not".into());
                    }
                }
            }
            let runs = moved.parts.iter().map(|part| part.runs.len()).max().unwrap_or(0);
            Ok(magnitude(moved.parts.len()) << 8 | magnitude(runs))
        },
    )
}

pub fn all_moved() -> Vec<Vec<u8>> {
    let part = |pack, runs: u32| {
        let mut part = MovedPart::new(PackNumber(pack));
        (0..runs).for_each(|i| part.push(64 + i * 300, 200, 1000 + i * 200));
        part
    };
    [vec![part(1, 1)], vec![part(3, 2), part(900, 40)]]
        .map(|parts| {
            let mut bytes = Vec::new();
            Moved { suite: 1, salt: [7; 32], parts }.encode(&mut bytes);
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
