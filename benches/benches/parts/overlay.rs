//! Looking through what is not sealed yet: one name or inode, all names of a directory, a window of a file; and applying
//! what a record of the journal says.
//!
//! Looks go through [`Layers`], as all of the engine's do: the overlay, and the tree below where the overlay does not know.
//! The nodes of that tree are in the cache.

use std::cell::LazyCell;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use fs_format::journal::{Change, Source, Totals};
use fs_format::tree::Dirent;
use fs_format::{FileKind, Ino};
use fs_sim::Dice;
use fs_volume::parts::{Edit, Layers, Overlay, Root, Store};

use crate::stage::{World, counted, each, inode};
use crate::tree::{apply_all, empty, store};

const PAGE_BYTES: u64 = 8 << 10;
const WINDOW_BYTES: u64 = 128 << 10;
const FILE: Ino = Ino(50);

fn name(number: u64) -> Vec<u8> {
    format!("file-{number:08}.txt").into_bytes()
}

/// A directory of which some files are sealed and others are not.
struct Stage {
    store: Store,
    root: Root,
    overlay: Overlay,
}

impl Stage {
    /// Files with even numbers are sealed, those with odd ones are in the overlay; `count` of each.
    fn new(count: u64) -> Self {
        let world = World::in_memory();
        let store = store(&world, 1 << 30);
        let top = inode_edit(Ino::ROOT, FileKind::Directory);
        let mut root = apply_all(&store, &empty(&store), &[top]);
        let mut edits: Vec<Edit> = Vec::new();
        for number in 0..count {
            let changes = creation(&store, &root, &Overlay::default(), number * 2);
            edits.extend(changes.into_iter().filter_map(|change| match change {
                Change::PutInode(ino, _) if ino != Ino::ROOT => Some(inode_edit(ino, FileKind::File)),
                Change::Put(key, value) => Some((key, Some(value))),
                _ => None,
            }));
        }
        edits.sort_by_key(|(key, _)| *key);
        root = apply_all(&store, &root, &edits);
        let mut overlay = Overlay::new(Totals::default(), 1 << 32);
        for number in 0..count {
            let changes = creation(&store, &root, &overlay, number * 2 + 1);
            overlay.apply(Totals::default(), changes, 0);
        }
        Self { store, root, overlay }
    }

    fn layers(&self) -> Layers<'_, &Store> {
        layers(&self.store, &self.root, &self.overlay)
    }
}

fn layers<'a>(store: &'a Store, root: &Root, overlay: &'a Overlay) -> Layers<'a, &'a Store> {
    Layers { upper: [Some(overlay), None], root: *root, nodes: store, keys: &store.keys }
}

fn inode_edit(ino: Ino, kind: FileKind) -> Edit {
    let mut bytes = Vec::new();
    fs_format::Inode { kind, ..inode(0) }.encode(&mut bytes);
    (fs_format::tree::Key::inode(ino), Some(bytes.into()))
}

/// What making a file changes: its inode, its name, its directory.
fn creation(store: &Store, root: &Root, overlay: &Overlay, number: u64) -> Vec<Change> {
    // Numbers that the overlay has not given out are fresh to it: those from 2³² on.
    let ino = Ino(if number.is_multiple_of(2) { 1000 + number } else { (1 << 32) + number });
    let name = name(number);
    let key = layers(store, root, overlay).free_dirent(Ino::ROOT, &name).expect("a free key");
    let mut bytes = Vec::new();
    Dirent { ino, kind: FileKind::File, name: name.into() }.encode(&mut bytes);
    let top = fs_format::Inode { kind: FileKind::Directory, ..inode(number) };
    vec![Change::PutInode(Ino::ROOT, top), Change::PutInode(ino, inode(0)), Change::Put(key, bytes.into())]
}

/// A file of 1 GiB, of which pages at random places are dirty.
fn dirty_pages(count: u64) -> Vec<Change> {
    let mut dice = Dice::seeded(5);
    let pages = (1 << 30) / PAGE_BYTES;
    let fill = |page: u64, at: u64| Change::Fill {
        ino: FILE,
        offset: page * PAGE_BYTES,
        len: PAGE_BYTES,
        source: Source::Journal(at * PAGE_BYTES),
    };
    (0..count).map(|at| fill(dice.below(pages), at)).collect()
}

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("overlay");
    for count in [1_000, 100_000] {
        let stage = LazyCell::new(|| Stage::new(count));
        group.throughput(Throughput::Elements(1));
        for (what, odd) in [("a name that is in it", 1), ("a name that is in the tree below", 0)] {
            group.bench_function(BenchmarkId::new(format!("look up {what}"), count), |bencher| {
                let (layers, mut dice) = (stage.layers(), Dice::seeded(6));
                each(bencher, || {
                    let name = name(dice.below(count) * 2 + odd);
                    layers.dirent(Ino::ROOT, &name).expect("no error").expect("the name is there")
                });
            });
        }
        group.bench_function(BenchmarkId::new("look up a name that is nowhere", count), |bencher| {
            let (layers, mut dice) = (stage.layers(), Dice::seeded(6));
            each(bencher, || {
                let name = name(dice.below(count) + 10 * count);
                assert!(layers.dirent(Ino::ROOT, &name).expect("no error").is_none());
            });
        });
        group.bench_function(BenchmarkId::new("look up an inode that is in it", count), |bencher| {
            let (layers, mut dice) = (stage.layers(), Dice::seeded(7));
            each(bencher, || layers.inode(Ino((1 << 32) + dice.below(count) * 2 + 1)).expect("it is there"));
        });
        group.throughput(Throughput::Elements(2 * count));
        group.bench_function(BenchmarkId::new("list a directory, half of it sealed", 2 * count), |bencher| {
            let layers = stage.layers();
            each(bencher, || {
                let entries = layers.read_dir(Ino::ROOT, 0, usize::MAX).expect("no error");
                assert_eq!(entries.len() as u64, 2 * count);
                entries
            });
        });
    }
    for count in [2_000, 50_000] {
        group.throughput(Throughput::Elements(1));
        let dirty = LazyCell::new(|| {
            let store = store(&World::in_memory(), 1 << 30);
            let root = empty(&store);
            let mut overlay = Overlay::new(Totals::default(), FILE.0 + 1);
            overlay.apply(Totals::default(), vec![Change::PutInode(FILE, inode(1 << 30))], 0);
            dirty_pages(count).into_iter().for_each(|fill| overlay.apply(Totals::default(), vec![fill], 0));
            Stage { store, root, overlay }
        });
        group.bench_function(BenchmarkId::new("plan 128 KiB of a file with dirty pages", count), |bencher| {
            let (layers, mut dice) = (dirty.layers(), Dice::seeded(8));
            each(bencher, || {
                let at = dice.below((1 << 30) / WINDOW_BYTES) * WINDOW_BYTES;
                layers.plan(FILE, at, at + WINDOW_BYTES).expect("no error")
            });
        });
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("apply writes of a page", count), |bencher| {
            let changes = dirty_pages(count);
            let prepare = || {
                let mut overlay = Overlay::new(Totals::default(), FILE.0 + 1);
                overlay.apply(Totals::default(), vec![Change::PutInode(FILE, inode(1 << 30))], 0);
                (overlay, changes.iter().map(|change| vec![change.clone()]).collect::<Vec<_>>())
            };
            // What it is freed for belongs to nobody who waits: a seal drops it behind the lock.
            let work = |(overlay, changes): &mut (Overlay, Vec<Vec<Change>>)| {
                changes.drain(..).for_each(|change| overlay.apply(Totals::default(), change, 0));
            };
            bencher.iter_batched_ref(prepare, |input| counted(|| work(input)), BatchSize::PerIteration);
        });
    }
    group.finish();
}
