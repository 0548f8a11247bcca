//! A whole seal, from freezing the overlay to the manifest, by what changed since the one before.
//!
//! The volume is in memory, so nothing of this waits for a disk. What changes is written, and pushed to the journal, before
//! the clock runs: reading it from there, and decrypting it, is a part of sealing.

use std::cell::{LazyCell, RefCell};

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_format::{Ino, SnapshotId};
use fs_sim::Dice;
use fs_volume::{NewNode, RenameMode, SetAttr, SnapshotLabel, Volume, WriteTree};

use crate::stage::{KINDS, Make, OWNER, World, prepared};

const PAGE_BYTES: usize = 8 << 10;
const MIB: usize = 1 << 20;
/// The file in which pages are overwritten.
const FILE_BYTES: usize = 256 * MIB;
const SMALL_BYTES: usize = 6000;
/// How many small files are removed, renamed or changed at once.
const SMALL_COUNT: u64 = 1000;
/// What a change of the mode turns around: whether others than the owner may read.
const READABLE: u16 = 0o044;

/// A small file.
struct Small {
    name: Vec<u8>,
    ino: Ino,
    mode: u16,
}

/// A volume with one file, and small ones beside it.
struct Stage {
    volume: Volume,
    file: Ino,
    /// Its length, in bytes.
    end: usize,
    small: Vec<Small>,
    make: Make,
    /// Of all that was written so far, so that nothing comes twice.
    seed: u64,
    dice: Dice,
}

/// Changes the small files, and pushes that to the journal.
type Change = fn(&mut Stage);

impl Stage {
    fn new(make: Make, file_bytes: usize) -> Self {
        let volume = World::in_memory().volume();
        let file = volume.make(OWNER, Ino::ROOT, b"file", 0o644, NewNode::File, &[]).expect("a new file").ino;
        let mut stage =
            Self { volume, file, end: file_bytes, small: Vec::new(), make, seed: 0, dice: Dice::seeded(11) };
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
            let (name, mode) = (format!("small-{}", self.seed).into_bytes(), 0o644);
            let file = self.volume.make(OWNER, Ino::ROOT, &name, mode, NewNode::File, &[]);
            let ino = file.expect("a new file").ino;
            self.write(ino, 0, SMALL_BYTES);
            self.small.push(Small { name, ino, mode });
        }
        self.push();
    }

    /// Takes the small files, which are sealed; makes them where there are none.
    fn take_files(&mut self) -> Vec<Small> {
        if self.small.is_empty() {
            self.make_files(SMALL_COUNT);
            self.volume.seal(None).expect("sealed");
        }
        std::mem::take(&mut self.small)
    }

    fn remove_files(&mut self) {
        for file in self.take_files() {
            self.volume.unlink(Ino::ROOT, &file.name).expect("removed");
            // As the kernel does when nobody has it open.
            self.volume.forget(file.ino);
        }
        self.push();
    }

    fn rename_files(&mut self) {
        let mut files = self.take_files();
        for file in &mut files {
            self.seed += 1;
            let name = format!("renamed-{}", self.seed).into_bytes();
            let renamed = self.volume.rename(Ino::ROOT, &file.name, Ino::ROOT, &name, RenameMode::NoReplace);
            renamed.expect("the name is free");
            file.name = name;
        }
        self.small = files;
        self.push();
    }

    fn change_modes(&mut self) {
        let mut files = self.take_files();
        for file in &mut files {
            file.mode ^= READABLE;
            let set = SetAttr { mode: Some(file.mode), ..SetAttr::default() };
            self.volume.set_attr(file.ino, set).expect("changed");
        }
        self.small = files;
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
    // What these files hold is not touched, so its kind does not matter.
    let changes: [(&str, Change); 3] = [
        ("removed files", Stage::remove_files),
        ("renamed files", Stage::rename_files),
        ("files of another mode", Stage::change_modes),
    ];
    for (what, change) in changes {
        group.throughput(Throughput::Elements(SMALL_COUNT));
        let stage = LazyCell::new(|| RefCell::new(Stage::new(KINDS[0].1, MIB)));
        group.bench_function(BenchmarkId::new(what, SMALL_COUNT), |bencher| {
            let prepare = || change(&mut stage.borrow_mut());
            prepared(bencher, prepare, |()| stage.borrow().volume.seal(None).expect("sealed"));
        });
    }
    group.finish();
}
