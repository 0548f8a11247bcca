//! A whole seal, from freezing the overlay to the manifest, by what changed since the one before.
//!
//! The volume is in memory, so nothing of this waits for a disk. What changes is written, and pushed to the journal, before
//! the clock runs: reading it from there, and decrypting it, is a part of sealing.

use std::cell::{LazyCell, RefCell};

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_format::{Ino, SnapshotId};
use fs_sim::Dice;
use fs_volume::{NewNode, SnapshotLabel, Volume, WriteTree};

use crate::stage::{KINDS, Make, OWNER, World, prepared};

const PAGE_BYTES: usize = 8 << 10;
const MIB: usize = 1 << 20;
/// The file in which pages are overwritten.
const FILE_BYTES: usize = 256 * MIB;
const SMALL_BYTES: usize = 6000;

/// A volume with one file.
struct Stage {
    volume: Volume,
    file: Ino,
    /// Its length, in bytes.
    end: usize,
    make: Make,
    /// Of all that was written so far, so that nothing comes twice.
    seed: u64,
    dice: Dice,
}

impl Stage {
    fn new(make: Make, file_bytes: usize) -> Self {
        let volume = World::in_memory().volume();
        let file = volume.make(OWNER, Ino::ROOT, b"file", 0o644, NewNode::File, &[]).expect("a new file").ino;
        let mut stage = Self { volume, file, end: file_bytes, make, seed: 0, dice: Dice::seeded(11) };
        for at in (0..file_bytes).step_by(MIB) {
            stage.write(file, at, MIB);
        }
        stage.volume.seal(None).expect("sealed");
        stage
    }

    fn write(&mut self, file: Ino, offset: usize, len: usize) {
        self.seed += 1;
        let bytes = (self.make)(self.seed, len);
        self.volume.write(file, offset as u64, &bytes, false).expect("written");
    }

    fn overwrite_pages(&mut self, count: u64) {
        for _ in 0..count {
            let page = self.dice.below((FILE_BYTES / PAGE_BYTES) as u64) as usize;
            self.write(self.file, page * PAGE_BYTES, PAGE_BYTES);
        }
        self.push();
    }

    fn make_files(&mut self, count: u64) {
        for _ in 0..count {
            let name = format!("small-{}", self.seed);
            let file = self.volume.make(OWNER, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]);
            self.write(file.expect("a new file").ino, 0, SMALL_BYTES);
        }
        self.push();
    }

    fn append(&mut self, bytes: usize) {
        for _ in (0..bytes).step_by(MIB) {
            self.write(self.file, self.end, MIB);
            self.end += MIB;
        }
        self.push();
    }

    fn push(&self) {
        self.volume.sync().expect("durable");
    }
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.sample_size(10);
    let stage = LazyCell::new(|| Stage::new(KINDS[0].1, MIB));
    group.bench_function("nothing, by name", |bencher| {
        let label = SnapshotLabel { id: SnapshotId([1; 16]), message: String::new(), tags: Vec::new() };
        let label = || Some(label.clone());
        prepared(bencher, label, |label| stage.volume.seal(label).expect("sealed"));
    });
    for (kind, make) in KINDS {
        for count in [100, 1000] {
            group.throughput(Throughput::Elements(count));
            let stage = LazyCell::new(|| RefCell::new(Stage::new(make, MIB)));
            group.bench_function(
                BenchmarkId::new(format!("new files of 6,000 bytes, {kind}"), count),
                |bencher| {
                    let prepare = || stage.borrow_mut().make_files(count);
                    prepared(bencher, prepare, |()| stage.borrow().volume.seal(None).expect("sealed"));
                },
            );
        }
        for count in [200, 2000] {
            group.throughput(Throughput::Bytes(count * PAGE_BYTES as u64));
            let what = format!("overwritten pages of 8 KiB in 256 MiB, {kind}");
            let stage = LazyCell::new(|| RefCell::new(Stage::new(make, FILE_BYTES)));
            group.bench_function(BenchmarkId::new(what, count), |bencher| {
                let prepare = || stage.borrow_mut().overwrite_pages(count);
                prepared(bencher, prepare, |()| stage.borrow().volume.seal(None).expect("sealed"));
            });
        }
        group.throughput(Throughput::Bytes(16 * MIB as u64));
        let stage = LazyCell::new(|| RefCell::new(Stage::new(make, MIB)));
        group.bench_function(BenchmarkId::new(format!("appended bytes, {kind}"), 16 * MIB), |bencher| {
            let prepare = || stage.borrow_mut().append(16 * MIB);
            prepared(bencher, prepare, |()| stage.borrow().volume.seal(None).expect("sealed"));
        });
    }
    group.finish();
}
