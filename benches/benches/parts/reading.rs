//! A chunk of a file: from the cache, from a pack on this disk, and from a store.
//!
//! The frame of 128 KiB is read past the system's cache, the one of 4 KiB through it (`LARGE_FRAME_BYTES` of the engine). The
//! store is in memory and answers at once, so what is left is Comb's own work: asking, checking, keeping the windows on the
//! disk. It is measured below the engine, where windows are read: what was read is decrypted as if it had been here, which
//! `packs` measures.

use std::cell::LazyCell;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use fs_format::{Ino, PackId};
use fs_replication::{Far, Limits, Names};
use fs_store::{Memory, Store as _};
use fs_volume::{NewNode, ReadTree, WriteTree};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::packs::pack;
use crate::stage::{OWNER, World, counted, each, key, noise};
use crate::tree::store;

const SIZES: [usize; 2] = [4 << 10, 128 << 10];
const PACK_BYTES: usize = 16 << 20;

/// A runtime for requests, which ends with this.
struct Runtime {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Runtime {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || runtime.block_on(ended));
        Self { handle, _end: end }
    }
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reading");
    for bytes in SIZES {
        let packed = LazyCell::new(|| {
            let store = store(&World::in_memory(), 256 << 20);
            let places = pack(&store, noise, bytes);
            places.iter().for_each(|place| drop(store.chunk(place).expect("it is whole")));
            (store, places)
        });
        // Nothing is copied, so its bytes do not count.
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("a chunk from the cache", bytes), |bencher| {
            let (store, places) = &*packed;
            let mut next = places.iter().cycle();
            each(bencher, || store.chunk(next.next().expect("a cycle has no end")).expect("it is whole"));
        });
        let sealed = LazyCell::new(|| {
            let volume = World::in_memory().volume();
            let file = volume.make(OWNER, Ino::ROOT, b"file", 0o644, NewNode::File, &[]);
            let ino = file.expect("a new file").ino;
            (0..16).for_each(|mib: u64| {
                volume.write(ino, mib << 20, &noise(mib, 1 << 20), false).expect("written");
            });
            volume.seal(None).expect("sealed");
            (volume, ino)
        });
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("a file whose chunks are in the cache", bytes), |bencher| {
            let (volume, ino) = &*sealed;
            let parts = ((16 << 20) / bytes) as u64;
            let read = |part: u64| {
                let mut seen = 0;
                volume
                    .read_with(*ino, part % parts * bytes as u64, bytes, &mut |bytes| seen += bytes.len())
                    .expect("it is whole");
                seen
            };
            (0..parts).for_each(|part| assert_eq!(read(part), bytes));
            let mut part = 0;
            each(bencher, || {
                part += 7;
                read(part)
            });
        });
        let packed = LazyCell::new(|| {
            let world = World::on_disk();
            let store = store(&world, 0);
            let places = pack(&store, noise, bytes);
            (world, store, places)
        });
        group.bench_function(BenchmarkId::new("a chunk from a pack, disk", bytes), |bencher| {
            let (_, store, places) = &*packed;
            let mut next = places.iter().cycle();
            each(bencher, || {
                store.read_chunk(next.next().expect("a cycle has no end")).expect("it is whole")
            });
        });
    }
    let runtime = Runtime::new();
    let bytes = noise(1, PACK_BYTES);
    let object = PackId(*blake3::hash(&bytes).as_bytes());
    let memory = Memory::default();
    let name = Names::of(&key().id()).pack(&object);
    runtime.handle.block_on(memory.create(&name, bytes.into())).expect("the store takes it");
    let far = |world: &World| {
        let store = Arc::new(memory.clone());
        Far::new(store, key().id(), world.folder(), runtime.handle.clone(), Limits::default())
            .expect("a folder for windows")
    };
    for bytes in SIZES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("windows from a store, disk", bytes), |bencher| {
            let mut out = vec![0; bytes];
            let prepare = || {
                let world = World::on_disk();
                let windows = far(&world).pack(&object);
                (world, windows)
            };
            let mut offset = 0;
            bencher.iter_batched(
                prepare,
                |(world, windows)| {
                    // Somewhere else each time, and never at a window's edge.
                    offset = (offset + (3 << 20) + 777) % (PACK_BYTES - bytes) as u64;
                    counted(|| windows.read_at(&mut out, offset).expect("the store has it"));
                    (world, windows)
                },
                BatchSize::PerIteration,
            );
        });
        let came = LazyCell::new(|| {
            let world = World::on_disk();
            let windows = far(&world).pack(&object);
            (world, windows)
        });
        group.bench_function(BenchmarkId::new("windows that came before, disk", bytes), |bencher| {
            let (_, windows) = &*came;
            let mut out = vec![0; bytes];
            windows.read_at(&mut out, 777).expect("the store has it");
            each(bencher, || windows.read_at(&mut out, 777).expect("it is here"));
        });
    }
    group.finish();
}
