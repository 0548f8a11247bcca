//! Applying a sorted batch of changes to the tree, looking up, and telling two trees apart.
//!
//! All nodes are in the cache, as those of a volume in use are. Applying includes what a seal does with a new node: it is
//! encoded, named, compressed and encrypted into a pack, and a pack that is full is hashed and written; the last one is not.

use std::cell::LazyCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_format::manifest::PackTable;
use fs_format::tree::{Key, Node};
use fs_format::{Ino, Seq};
use fs_sim::Dice;
use fs_volume::parts::{Edit, Keys, Packer, Root, Store, apply, differing_records, get, scan};

use crate::stage::{World, each, inode, key, seal_info};

/// Packs of nodes in this world.
pub fn store(world: &World, cache_bytes: u64) -> Store {
    let keys = Arc::new(Keys::new(key().read_key()));
    Store::new(world.env.clone(), keys, PackTable::default(), cache_bytes)
}

/// A tree without records.
pub fn empty(store: &Store) -> Root {
    let mut packer = Packer::new(store, Seq(1)).expect("a packer");
    let pointer = packer.node(Node::Leaf(Vec::new())).expect("a node");
    packer.finish(|_, _| Ok(seal_info(1))).expect("the pack is written");
    Root { pointer, height: 0 }
}

/// Applies changes, and writes all packs.
pub fn apply_all(store: &Store, root: &Root, edits: &[Edit]) -> Root {
    let mut packer = Packer::new(store, Seq(2)).expect("a packer");
    let root = apply(store, &mut packer, root, edits).expect("applied");
    packer.finish(|_, _| Ok(seal_info(2))).expect("the packs are written");
    root
}

/// The records of files of this size, with these numbers.
fn edits(numbers: impl Iterator<Item = u64>, size: u64) -> Vec<Edit> {
    let edit = |number| {
        let mut bytes = Vec::new();
        inode(size + number).encode(&mut bytes);
        (Key::inode(Ino(1000 + number)), Some(bytes.into()))
    };
    numbers.map(edit).collect()
}

/// `count` different numbers below `end`, ascending.
fn some_of(end: u64, count: u64) -> impl Iterator<Item = u64> {
    let mut dice = Dice::seeded(end ^ count);
    let mut chosen = std::collections::BTreeSet::new();
    while (chosen.len() as u64) < count {
        chosen.insert(dice.below(end));
    }
    chosen.into_iter()
}

struct Stage {
    store: Store,
    root: Root,
}

impl Stage {
    fn new(records: u64) -> Self {
        let store = store(&World::in_memory(), 2 << 30);
        let root = apply_all(&store, &empty(&store), &edits(0..records, 0));
        Self { store, root }
    }
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tree");
    for records in [10_000, 1_000_000] {
        let stage = LazyCell::new(|| Stage::new(records));
        for changes in [1, 100, 10_000_u64] {
            let id = BenchmarkId::new(format!("apply {changes} to"), records);
            group.throughput(Throughput::Elements(changes));
            group.bench_function(id, |bencher| {
                let (store, root) = (&stage.store, &stage.root);
                let edits = edits(some_of(records, changes), 1 << 20);
                each(bencher, || {
                    let mut packer = Packer::new(store, Seq(3)).expect("a packer");
                    apply(store, &mut packer, root, &edits).expect("applied")
                });
            });
            let newer = LazyCell::new(|| {
                apply_all(&stage.store, &stage.root, &edits(some_of(records, changes), 1 << 20))
            });
            group.bench_function(
                BenchmarkId::new(format!("tell {changes} changes of"), records),
                |bencher| {
                    let (store, root, newer) = (&stage.store, &stage.root, &*newer);
                    each(bencher, || {
                        let mut found = 0;
                        differing_records(store, &root.pointer, &newer.pointer, &mut |_, _, _| {
                            found += 1;
                            Ok(())
                        })
                        .expect("both can be read");
                        assert_eq!(found, changes);
                    });
                },
            );
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("look up a record of", records), |bencher| {
            let mut dice = Dice::seeded(9);
            each(bencher, || {
                let key = Key::inode(Ino(1000 + dice.below(records)));
                get(&&stage.store, &stage.root, &key).expect("no error").expect("the record is there")
            });
        });
        const SCANNED: u64 = 1000;
        group.throughput(Throughput::Elements(SCANNED));
        group.bench_function(BenchmarkId::new(format!("scan {SCANNED} of"), records), |bencher| {
            let mut dice = Dice::seeded(10);
            each(bencher, || {
                let first = 1000 + dice.below(records - SCANNED);
                let (from, to) = (Key::inode(Ino(first)), Key::inode(Ino(first + SCANNED)));
                let mut bytes = 0;
                scan(&&stage.store, &stage.root, &from, &to, &mut |_, value| {
                    bytes += value.len();
                    ControlFlow::Continue(())
                })
                .expect("no error");
                bytes
            });
        });
    }
    group.finish();
}
