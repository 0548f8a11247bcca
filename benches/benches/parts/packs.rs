//! Making packs of chunks, and reading frames of them; the packs lie in memory.
//!
//! Making a pack compresses and encrypts its chunks, hashes the whole and writes it; names of chunks are made before, by the
//! seal. What is made here is named by no manifest, so it is removed again, which costs two calls of the disk.

use std::cell::LazyCell;

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_format::tree::{ChunkRef, Key, Location, Node};
use fs_format::{ChunkId, Ino, Seq};
use fs_volume::FsError;
use fs_volume::parts::{Packer, Store, Unwritten};

use crate::stage::{KINDS, Make, World, each, inode, seal_info};
use crate::tree::store;

/// What goes into one pack.
const PACK_BYTES: usize = 4 << 20;

/// Chunks with their names.
fn chunks(store: &Store, make: Make, bytes: usize) -> Vec<(ChunkId, Vec<u8>)> {
    let chunk = |number| {
        let bytes = make(number, bytes);
        (store.keys.chunks.name(&bytes), bytes)
    };
    (0..(PACK_BYTES / bytes) as u64).map(chunk).collect()
}

/// Adds one chunk alone, so that one core does it.
fn add(packer: &mut Packer<'_>, chunk: (ChunkId, &[u8])) -> Vec<Location> {
    let mut compressors = packer.compressors().expect("zstd starts");
    compressors.compress(&[chunk], || ()).0.expect("compressed");
    packer.chunks(&[chunk], compressors).expect("packed")
}

/// A pack of these chunks, and where they are.
pub fn pack(store: &Store, make: Make, bytes: usize) -> Vec<ChunkRef> {
    let mut packer = Packer::new(store, Seq(1)).expect("a packer");
    let mut places = Vec::new();
    for (chunk, bytes) in chunks(store, make, bytes) {
        let locations = add(&mut packer, (chunk, &bytes));
        places.extend(locations.iter().map(|&location| ChunkRef { chunk, location, skip: 0 }));
    }
    packer.finish(|_, _| Ok(seal_info(1))).expect("the pack is written");
    places
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packs");
    for (kind, make) in KINDS {
        for bytes in [4 << 10, 128 << 10] {
            group.throughput(Throughput::Bytes(PACK_BYTES as u64));
            let stage = LazyCell::new(|| {
                let store = store(&World::in_memory(), 0);
                let chunks = chunks(&store, make, bytes);
                (store, chunks)
            });
            group.bench_function(
                BenchmarkId::new(format!("make a pack of 4 MiB, {kind}"), bytes),
                |bencher| {
                    let (store, chunks) = &*stage;
                    each(bencher, || {
                        let mut packer = Packer::new(store, Seq(1)).expect("a packer");
                        for (id, bytes) in chunks {
                            add(&mut packer, (*id, bytes));
                        }
                        let refused = packer
                            .finish(|_, _| Err(Unwritten { error: FsError::NoSpace, may_count: false }));
                        assert_eq!(refused.map(drop), Err(FsError::NoSpace));
                    });
                },
            );
            group.throughput(Throughput::Bytes(bytes as u64));
            let packed = LazyCell::new(|| {
                let store = store(&World::in_memory(), 0);
                let places = pack(&store, make, bytes);
                (store, places)
            });
            group.bench_function(BenchmarkId::new(format!("read a chunk, {kind}"), bytes), |bencher| {
                let (store, places) = &*packed;
                let mut next = places.iter().cycle();
                each(bencher, || {
                    let place = next.next().expect("a cycle has no end");
                    store.read_chunk(place).expect("it is whole")
                });
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    let packed = LazyCell::new(|| {
        let store = store(&World::in_memory(), 0);
        let number = pack(&store, KINDS[0].1, 4 << 10)[0].location.pack;
        (store, number)
    });
    group.bench_function("read the directory of a pack of 1,024 chunks", |bencher| {
        let (store, number) = &*packed;
        each(bencher, || store.directory(*number).expect("it is whole"));
    });
    let leaf = || {
        let record = |number: u64| {
            let mut bytes = Vec::new();
            inode(number).encode(&mut bytes);
            (Key::inode(Ino(1000 + number)), bytes.into())
        };
        Node::Leaf((0..250).map(record).collect())
    };
    group.throughput(Throughput::Bytes(leaf().encode().len() as u64));
    group.bench_function("write a leaf of 250 inodes", |bencher| {
        let store = store(&World::in_memory(), 0);
        let mut packer = Packer::new(&store, Seq(1)).expect("a packer");
        let leaf = leaf();
        // A pack that becomes full is hashed and written: its part of that belongs to each leaf.
        each(bencher, || packer.node(leaf.clone()).expect("packed"));
    });
    group.bench_function("read a leaf of 250 inodes", |bencher| {
        let store = store(&World::in_memory(), 0);
        let mut packer = Packer::new(&store, Seq(1)).expect("a packer");
        let pointer = packer.node(leaf()).expect("packed");
        packer.finish(|_, _| Ok(seal_info(1))).expect("the pack is written");
        each(bencher, || store.read_node(&pointer).expect("it is whole"));
    });
    group.finish();
}
