//! What is looked through before anything is read or dropped.
//!
//! A restore has no plan of its own: it lists the tree and reads file by file, and `comb volume open` first lists the packs
//! that it will fetch. Both are measured here, beside what retention and collection look through.

use std::cell::LazyCell;
use std::collections::BTreeSet;

use criterion::{BenchmarkId, Criterion, Throughput};
use fs_format::{FileKind, Ino, Timestamp};
use fs_volume::retention::{Policy, plan};
use fs_volume::{Compaction, NewNode, ReadTree, Seek, Volume, WriteTree};

use crate::stage::{OWNER, World, each, noise, seal_info};

const POLICY: &str =
    "keep 5m for 3h, 1h for 2d, 1d for 30d, 1w for 1y; keep tag release forever; keep last 3";
/// Large enough for a chunk of their own: smaller ones lie in the tree.
const FILE_BYTES: usize = 2100;
const FOLDER_FILES: u64 = 100;
const DIRECTORY_LIMIT: usize = 256;

/// A volume with so many files in folders of a hundred, sealed.
fn volume_with(files: u64) -> Volume {
    let volume = World::in_memory().volume();
    let mut folder = Ino::ROOT;
    for number in 0..files {
        if number.is_multiple_of(FOLDER_FILES) {
            let name = format!("folder-{number}");
            let made = volume.make(OWNER, Ino::ROOT, name.as_bytes(), 0o755, NewNode::Directory, &[]);
            folder = made.expect("a new folder").ino;
        }
        let name = format!("file-{number}");
        let made = volume.make(OWNER, folder, name.as_bytes(), 0o644, NewNode::File, &[]);
        volume.write(made.expect("a new file").ino, 0, &noise(number, FILE_BYTES), false).expect("written");
    }
    volume.seal(None).expect("sealed");
    volume
}

/// One that was sealed so often, with a new file each time.
fn volume_sealed(seals: u64) -> Volume {
    let volume = World::in_memory().volume();
    for number in 0..seals {
        let name = format!("file-{number}");
        let made = volume.make(OWNER, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]);
        volume.write(made.expect("a new file").ino, 0, &noise(number, FILE_BYTES), false).expect("written");
        volume.seal(None).expect("sealed");
    }
    volume
}

/// Lists all files below a directory, with what a restore asks of each before it reads: attributes, and where data begin.
fn list(tree: &dyn ReadTree, directory: Ino) -> u64 {
    let (mut cookie, mut files) = (0, 0);
    loop {
        let entries = tree.read_dir(directory, cookie, DIRECTORY_LIMIT).expect("it can be listed");
        let Some(last) = entries.last() else { return files };
        cookie = last.cookie;
        for entry in &entries {
            if entry.kind == FileKind::Directory {
                files += list(tree, entry.ino);
            } else {
                assert_eq!(tree.attr(entry.ino).expect("it is there").inode.size, FILE_BYTES as u64);
                assert_eq!(tree.seek(entry.ino, 0, Seek::Data), Ok(0));
                files += 1;
            }
        }
    }
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("planning");
    for moments in [100, 10_000_u64] {
        group.throughput(Throughput::Elements(moments));
        group.bench_function(BenchmarkId::new("retention of moments", moments), |bencher| {
            const FIVE_MINUTES: i64 = 300_000_000_000;
            let policy = Policy::parse(POLICY).expect("the language of policies");
            let mut infos: Vec<_> = (1..=moments).map(seal_info).collect();
            for (number, info) in infos.iter_mut().enumerate() {
                info.time = Timestamp(info.time.0 + number as i64 * FIVE_MINUTES);
            }
            let now = infos.last().expect("there are some").time;
            each(bencher, || plan(&infos, &BTreeSet::new(), &[], &policy, now));
        });
    }
    for files in [1_000, 20_000] {
        let volume = LazyCell::new(|| volume_with(files));
        group.throughput(Throughput::Elements(files));
        group.bench_function(BenchmarkId::new("list what a restore reads, files", files), |bencher| {
            let history = volume.history();
            let view = history.at(volume.head().seq).expect("the newest moment");
            each(bencher, || assert_eq!(list(&view, Ino::ROOT), files));
        });
        group.bench_function(BenchmarkId::new("mark what one moment refers to, files", files), |bencher| {
            let history = volume.history();
            each(bencher, || history.freed_by(&[], &Compaction::default()).expect("all can be read"));
        });
    }
    for seals in [100, 2_000] {
        let volume = LazyCell::new(|| volume_sealed(seals));
        group.throughput(Throughput::Elements(seals));
        group.bench_function(BenchmarkId::new("list the packs of seals", seals), |bencher| {
            let history = volume.history();
            each(bencher, || {
                let (packs, unknown) = history.needed_packs().expect("the head can be read");
                assert!(unknown.is_empty() && packs.len() as u64 >= 2 * seals);
                packs
            });
        });
        group.bench_function(BenchmarkId::new("mark what all moments refer to, seals", seals), |bencher| {
            let (history, first) = (volume.history(), volume.history().seals().expect("moments")[0].seq);
            each(bencher, || history.freed_by(&[first], &Compaction::default()).expect("all can be read"));
        });
    }
    group.finish();
}
