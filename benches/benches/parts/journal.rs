//! Appending records, and making them durable: alone, and eight at once that share a sync.
//!
//! A record is a write of 4 KiB or more with the inode that it changes, as the volume appends it for a WRITE request. What a
//! seal does, giving back what it has sealed, is done every 32 MiB, so that segments go round as in a mounted volume.

use std::cell::{Cell, LazyCell};
use std::sync::atomic::Ordering;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_crypto::Suite;
use fs_format::Ino;
use fs_format::journal::{Change, Totals};
use fs_volume::parts::{Journal, Room, Setting, recover};

use crate::stage::{World, device, each, inode, key, noise};

/// Bytes that wait in memory before they are written: what wakes the thread that writes them in a mounted volume.
const PUSH_BYTES: u64 = 1 << 20;
/// Bytes after which what is written counts as sealed.
const SEALED_BYTES: u64 = 32 << 20;
const WRITERS: u64 = 8;
/// Syncs before measuring: enough for a journal to write its segments ahead.
const SYNCS_BEFORE: u64 = 300;

struct Stage {
    world: World,
    journal: Journal,
    data: Vec<u8>,
}

impl Stage {
    fn new(world: World, bytes: usize) -> Self {
        let env = world.env.clone();
        let setting =
            Setting { env, key: key(), device: device(), segment_bytes: 64 << 20, suite: Suite::fastest() };
        let journal = recover(setting, [1; 16], 0, false).expect("an empty journal").journal;
        Self { world, journal, data: noise(1, bytes) }
    }

    /// One that was synced often already.
    fn warm(world: World, bytes: usize) -> Self {
        let stage = Self::new(world, bytes);
        for _ in 0..SYNCS_BEFORE {
            stage.commit(1);
        }
        stage.journal.warm_up().expect("a segment is made ahead");
        // Into the segment that was written ahead: who syncs often leaves the one that was not.
        stage.commit(1);
        stage
    }

    fn append(&self, ino: u64) {
        let bytes = self.data.len();
        self.journal.admit(bytes + 1024, Room::Grow).expect("there is room");
        let changes = [
            Change::PutInode(Ino(ino), inode(1 << 20)),
            Change::Write { ino: Ino(ino), offset: 4096, len: bytes as u32 },
        ];
        let end = self.journal.append(&Totals { files: 100, bytes: 1 << 30 }, &changes, &self.data);
        if end % SEALED_BYTES < bytes as u64 {
            self.journal.flush().expect("written");
            self.journal.trim(end);
        }
    }

    fn commit(&self, ino: u64) {
        self.append(ino);
        self.journal.sync().expect("durable");
    }
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    for (place, world) in World::KINDS {
        for bytes in [4 << 10, 128 << 10_u64] {
            let records = PUSH_BYTES / bytes;
            group.throughput(Throughput::Bytes(PUSH_BYTES));
            let stage = LazyCell::new(|| Stage::new(world(), bytes as usize));
            group.bench_function(
                BenchmarkId::new(format!("append 1 MiB and write, {place}"), bytes),
                |bencher| {
                    each(bencher, || {
                        (0..records).for_each(|number| stage.append(100 + number));
                        stage.journal.flush().expect("written");
                    });
                },
            );
        }
        group.throughput(Throughput::Elements(1));
        let stage = LazyCell::new(|| Stage::warm(world(), 4 << 10));
        let name = format!("commit 4 KiB, {place}");
        group.bench_function(BenchmarkId::new(&name, "1 writer"), |bencher| {
            each(bencher, || stage.commit(100));
        });
        let (commits, syncs) = (Cell::new(0), Cell::new(0));
        group.bench_function(BenchmarkId::new(&name, format!("{WRITERS} writers")), |bencher| {
            bencher.iter_custom(|count| {
                let share = count.div_ceil(WRITERS);
                let before = stage.world.syncs.load(Ordering::Relaxed);
                let begun = Instant::now();
                std::thread::scope(|scope| {
                    for writer in 0..WRITERS {
                        let stage = &*stage;
                        scope.spawn(move || (0..share).for_each(|_| stage.commit(100 + writer)));
                    }
                });
                let took = begun.elapsed();
                commits.set(commits.get() + share * WRITERS);
                syncs.set(syncs.get() + stage.world.syncs.load(Ordering::Relaxed) - before);
                took.mul_f64(count as f64 / (share * WRITERS) as f64)
            });
        });
        if syncs.get() > 0 {
            let ratio = commits.get() as f64 / syncs.get() as f64;
            println!("journal/{name}/{WRITERS} writers: {ratio:.2} commits for each sync");
        }
    }
    group.finish();
}
