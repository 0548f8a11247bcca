//! The plain body of a manifest, with the top of the pack table.

use fs_format::manifest::{
    MESSAGE_BYTES_MAX, ManifestBody, PackTable, SnapshotRecord, TAG_BYTES_MAX, TAGS_MAX,
};
use fs_format::tree::TREE_HEIGHT_MAX;
use fs_format::{Ino, SnapshotId, StoreId, Timestamp};

use super::{magnitude, samples};
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || ManifestBody::decode(input),
        |body| {
            same(&body.encode(), input)?;
            let packs = body.packs.count();
            if packs > u64::from(u32::MAX) << 16 {
                return Err(format!("{packs} packs"));
            }
            let tags = body.snapshot.as_ref().map_or(0, |snapshot| 1 + snapshot.tags.len());
            let table = magnitude(body.packs.packs.len()) << 8 | body.packs.levels.len() as u64;
            Ok(table << 8 | magnitude(tags))
        },
    )
}

fn body() -> ManifestBody {
    ManifestBody {
        time: Timestamp(-5),
        root: samples::pointer(7),
        height: 2,
        next_ino: 17,
        files: 2,
        bytes: 1 << 40,
        added: 5000,
        packs: PackTable::default(),
        journal: [5; 16],
        journal_end: 1 << 33,
        arbiter: StoreId([4; 16]),
        snapshot: None,
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let snapshot = |message: usize, tag: usize, tags: usize| SnapshotRecord {
        id: SnapshotId([3; 16]),
        message: "\u{2603}".repeat(message),
        tags: vec!["t".repeat(tag); tags],
    };
    let packs = PackTable {
        packs: (0..5).map(samples::entry).collect(),
        levels: vec![vec![samples::page(1), samples::page(2)], vec![], vec![samples::page(3)]],
    };
    let small = ManifestBody { packs: packs.clone(), snapshot: Some(snapshot(3, 5, 2)), ..body() };
    let large = ManifestBody {
        height: TREE_HEIGHT_MAX,
        next_ino: Ino::MAX.0 + 1,
        snapshot: Some(snapshot(MESSAGE_BYTES_MAX / 3, TAG_BYTES_MAX, TAGS_MAX)),
        packs: PackTable { levels: vec![vec![samples::page(9)]; 5], ..packs },
        ..body()
    };
    [body(), small, large].iter().map(ManifestBody::encode).collect()
}
