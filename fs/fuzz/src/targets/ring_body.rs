//! The plain body of a key ring.

use fs_format::ring::{RingBody, RingEntry, RingKeyKind, RingStore};
use fs_format::{Timestamp, VolumeId};

use super::magnitude;
use super::samples::bytes;
use crate::outcome::{Outcome, judge, same};

pub fn run(input: &[u8]) -> Outcome {
    judge(
        input,
        || RingBody::decode(input),
        |body| {
            same(&bytes(|out| body.encode(out)), input)?;
            if !body.entries.is_sorted_by(|a, b| a.volume < b.volume) {
                return Err("keys do not ascend".into());
            }
            if !body.stores.is_sorted_by(|a, b| a.url < b.url) {
                return Err("stores do not ascend".into());
            }
            Ok(magnitude(body.entries.len()) << 8 | magnitude(body.stores.len()))
        },
    )
}

fn entry(n: u8, kind: RingKeyKind, name: &str) -> RingEntry<'_> {
    RingEntry { volume: VolumeId([n; 32]), kind, key: &[7; 32], name, added: Timestamp(-5) }
}

fn body<'a>(entries: Vec<RingEntry<'a>>, stores: Vec<RingStore<'a>>) -> Vec<u8> {
    let (time, passphrase, kit) = (Timestamp(i64::MAX), Timestamp(1), Timestamp(0));
    bytes(|out| {
        RingBody { time, passphrase, kit, owner: &[8; 32], before: &[0; 32], entries, stores }.encode(out)
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let long = "\u{2603}".repeat(21);
    let few = vec![entry(1, RingKeyKind::Volume, "photos"), entry(2, RingKeyKind::Read, &long)];
    let many = (0..100).map(|n| entry(n, RingKeyKind::Volume, "x")).collect();
    let stores = vec![
        RingStore { url: "file:///nas", credentials: "" },
        RingStore { url: "s3://bucket", credentials: "key\nsecret" },
    ];
    vec![body(vec![], vec![]), body(few, stores), body(many, vec![])]
}
