//! Volumes of the engine in a store that counts, takes its time and fails as it is told.
//!
//! The long forms measure: `cargo test --release -p comb lazy -- --ignored --nocapture --test-threads=1`.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::{FileKind, Ino};
use fs_replication::Limits;
use fs_store::{Abilities, Entry, Faults, Faulty, Memory, Name, Prefix, Store, StoreError};
use fs_volume::{Caller, FsError, History, Keeper, NewNode, Options, ReadTree, Volume, WriteTree as _};

use super::*;

const ME: Caller = Caller { uid: 1000, gid: 1000 };
const MIB: usize = 1 << 20;
/// What a far store adds to each request.
const FAR: Duration = Duration::from_millis(20);

/// A store that takes its time and notes when it was asked and when it answered.
#[derive(Debug)]
struct Slow<S> {
    inside: S,
    delay: Mutex<Duration>,
    requests: Mutex<Vec<(Instant, Instant)>>,
    /// What was asked for and is not there.
    missed: Mutex<Vec<String>>,
}

impl<S: Store> Slow<S> {
    fn new(inside: S, delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            inside,
            delay: Mutex::new(delay),
            requests: Mutex::default(),
            missed: Mutex::default(),
        })
    }

    async fn ask<T>(&self, request: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let delay = *self.delay.lock().expect("no panic");
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let answer = request.await;
        self.requests.lock().expect("no panic").push((begun, Instant::now()));
        answer
    }

    /// How many requests there were, and how many at most of which each began after the one before had ended.
    fn count(&self) -> (usize, usize) {
        let mut requests = std::mem::take(&mut *self.requests.lock().expect("no panic"));
        requests.sort();
        let mut depths: Vec<(Instant, usize)> = Vec::new();
        for &(begun, ended) in &requests {
            let before = depths.iter().filter(|(end, _)| *end <= begun).map(|(_, depth)| *depth).max();
            depths.push((ended, before.unwrap_or(0) + 1));
        }
        (requests.len(), depths.iter().map(|(_, depth)| *depth).max().unwrap_or(0))
    }
}

#[async_trait]
impl<S: Store> Store for Slow<S> {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.inside.create(name, bytes).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.ask(self.inside.get(name, limit)).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        let answer = self.ask(self.inside.get_range(name, range)).await;
        if answer.as_ref().is_err_and(|error| error.kind() == fs_store::Kind::Absent) {
            self.missed.lock().expect("no panic").push(name.to_string());
        }
        answer
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.ask(self.inside.list(prefix, after, limit)).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.inside.remove(name).await
    }
}

/// The runtime of all tests: requests of one do not wait for another's.
fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Handle> = std::sync::OnceLock::new();
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    };
    RUNTIME.get_or_init(start).clone()
}

/// A volume in a folder of its own.
struct Source {
    folder: tempfile::TempDir,
    key: VolumeKey,
}

fn device() -> DeviceSecret {
    DeviceSecret::from_bytes([9; 32])
}

impl Source {
    fn new(seed: u8) -> Source {
        let folder = tempfile::tempdir().expect("a folder");
        let key = VolumeKey::from_seed([seed; 32]);
        fs_volume::create(&fs_volume::real::env(folder.path()), &key, ME).expect("a new volume");
        Source { folder, key }
    }

    fn open(&self) -> Volume {
        self.open_with(Options::default())
    }

    fn open_read_only(&self) -> Volume {
        self.open_with(Options { read_only: true, ..Options::default() })
    }

    fn open_with(&self, options: Options) -> Volume {
        let env = fs_volume::real::env(self.folder.path());
        Volume::open(env, self.key.clone(), &device(), options).expect("opens")
    }

    /// A store with all that is sealed, which can be told to fail.
    fn uploaded(&self, luck: u64) -> Arc<Slow<Faulty<Memory>>> {
        let memory = Memory::default();
        self.upload(&memory);
        Slow::new(Faulty::new(memory, luck), Duration::ZERO)
    }

    /// Puts all that is sealed in a store, as a commit does.
    fn upload(&self, store: &dyn Store) -> u64 {
        let mut bytes_all = 0;
        for (folder, to) in [("packs", "p"), ("manifests", "m")] {
            for entry in std::fs::read_dir(self.folder.path().join(folder)).expect("listed") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("hexadecimal digits");
                let name = match to {
                    "m" => format!("{:016x}", u64::MAX - u64::from_str_radix(&name, 16).expect("a seq")),
                    _ => name,
                };
                let name = Name::new(format!("v/{}/{to}/{name}", self.key.id())).expect("a name");
                let bytes = std::fs::read(entry.path()).expect("read");
                bytes_all += bytes.len() as u64;
                runtime().block_on(store.create(&name, bytes.into())).expect("created");
            }
        }
        bytes_all
    }
}

/// Another machine, with nothing but the key.
struct Elsewhere {
    folder: tempfile::TempDir,
    key: VolumeKey,
    far: Far,
    limits: Limits,
}

impl Elsewhere {
    fn new(source: &Source, store: Arc<dyn Store>) -> Elsewhere {
        Elsewhere::with(source, store, Limits::default())
    }

    fn with(source: &Source, store: Arc<dyn Store>, limits: Limits) -> Elsewhere {
        let folder = tempfile::tempdir().expect("a folder");
        let far = Far::new(store, source.key.id(), folder.path(), runtime(), limits).expect("far");
        Elsewhere { folder, key: source.key.clone(), far, limits }
    }

    fn restart(&mut self, store: Arc<dyn Store>) {
        let id = self.key.id();
        self.far = Far::new(store, id, self.folder.path(), runtime(), self.limits).expect("far");
    }

    fn history(&self) -> History {
        let (env, _) = prepare(self.folder.path(), &self.far).expect("it is there");
        History::open(env, self.key.id(), self.key.read_key(), 64 << 20).expect("opens")
    }

    /// What is here, without any store.
    fn here(&self) -> History {
        let env = fs_volume::real::env(self.folder.path());
        History::open(env, self.key.id(), self.key.read_key(), 64 << 20).expect("opens")
    }

    fn volume(&self) -> Volume {
        let (env, _) = prepare(self.folder.path(), &self.far).expect("it is there");
        let options = Options { read_only: true, ..Options::default() };
        Volume::open(env, self.key.clone(), &device(), options).expect("opens")
    }

    /// Begins to fetch everything.
    fn fill(&self, history: &History) -> tokio::task::JoinHandle<fs_replication::Filled> {
        let entries = history.packs().collect::<Result<Vec<_>, _>>().expect("the table is read");
        let (far, room) = (self.far.clone(), room(self.folder.path()));
        runtime().spawn(async move { far.fill(entries, room).await })
    }

    fn fill_and_wait(&self, history: &History) -> fs_replication::Filled {
        let fill = self.fill(history);
        let (tell, told) = std::sync::mpsc::channel();
        runtime().spawn(async move { tell.send(fill.await) });
        told.recv().expect("it ends").expect("no panic")
    }
}

fn head(history: &History) -> fs_volume::View {
    history.at(history.head().expect("a head").seq).expect("a moment")
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn make(volume: &Volume, parent: Ino, name: &str, node: NewNode<'_>) -> Ino {
    volume.make(ME, parent, name.as_bytes(), 0o755, node, &[]).expect("made").ino
}

fn write(volume: &Volume, ino: Ino, bytes: &[u8]) {
    for (index, part) in bytes.chunks(MIB).enumerate() {
        volume.write(ino, (index * MIB) as u64, part, false).expect("written");
    }
}

/// A tree with files of many sizes, changed over some seals.
fn grow(volume: &Volume, seals: u64, files: u64, large: usize) {
    for seal in 0..seals {
        let folder = make(volume, Ino::ROOT, &format!("d{seal:03}"), NewNode::Directory);
        for file in 0..files {
            let ino = make(volume, folder, &format!("f{file:04}"), NewNode::File);
            let seed = seal * files + file;
            write(volume, ino, &noise(seed, (seed * 7919 % 40_000) as usize));
        }
        if large > 0 {
            let ino = make(volume, folder, "large", NewNode::File);
            write(volume, ino, &noise(1_000_000 + seal, large));
        }
        volume.seal(None).expect("sealed");
    }
}

/// Visits each file of a tree: its path, its number and its size.
fn walk(
    tree: &dyn ReadTree,
    dir: Ino,
    path: &str,
    visit: &mut dyn FnMut(&str, Ino, u64) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let mut cookie = 0;
    loop {
        let entries = tree.read_dir(dir, cookie, 1000)?;
        let Some(last) = entries.last() else { return Ok(()) };
        cookie = last.cookie;
        for entry in &entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            match entry.kind {
                FileKind::Directory => walk(tree, entry.ino, &path, visit)?,
                _ => visit(&path, entry.ino, tree.attr(entry.ino)?.inode.size)?,
            }
        }
    }
}

/// A sum of everything in a tree.
fn sum(tree: &dyn ReadTree) -> Result<(blake3::Hash, u64), FsError> {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    walk(tree, Ino::ROOT, "", &mut |path, ino, size| {
        hasher.update(path.as_bytes());
        for at in (0..size).step_by(128 << 10) {
            hasher.update(&tree.read(ino, at, 128 << 10)?);
        }
        bytes += size;
        Ok(())
    })?;
    Ok((hasher.finalize(), bytes))
}

#[test]
fn a_volume_opens_elsewhere_and_is_the_same() {
    let source = Source::new(1);
    let volume = source.open();
    grow(&volume, 5, 60, 3 * MIB);
    let all = sum(&volume).expect("read");
    let store = source.uploaded(1);

    let mut elsewhere = Elsewhere::new(&source, store.clone());
    let history = elsewhere.history();
    assert_eq!(sum(&head(&history)).expect("read"), all);
    let old = history.at(Seq(3)).expect("a moment whose manifest was not here");
    assert_eq!(old.read_dir(Ino::ROOT, 0, 10).expect("listed").len(), 2);
    let gone = history.at(Seq(99)).err().expect("there is none");
    assert!(matches!(gone, fs_volume::OpenError::NoSuchSnapshot(_)), "{gone}");
    elsewhere.fill_and_wait(&history);
    drop(history);

    // Now it is all here.
    store.inside.set_away(true);
    elsewhere.restart(store.clone());
    let here = elsewhere.here();
    assert_eq!(sum(&head(&here)).expect("read"), all);
    let names =
        |folder: &str| std::fs::read_dir(elsewhere.folder.path().join(folder)).expect("listed").count();
    assert_eq!((names("windows"), here.damage()), (0, Vec::<String>::new()));
}

#[test]
fn what_was_moved_is_read_from_afar_and_nobody_asks_for_what_is_gone() {
    let source = Source::new(9);
    let volume = source.open();
    let db = make(&volume, Ino::ROOT, "db", NewNode::File);
    write(&volume, db, &noise(1, 2 * MIB));
    for seal in 0..24 {
        for page in 0..24 {
            let bytes = noise(seal << 20 | page, 8192);
            // Anywhere.
            volume.write(db, u64::from(bytes[0]) * 8192, &bytes, false).expect("written");
        }
        volume.seal(None).expect("sealed");
    }
    let before: Vec<Seq> = volume.history().seals().expect("listed").iter().map(|info| info.seq).collect();
    let compaction = fs_volume::Compaction { freed_bytes_min: 1, ..fs_volume::Compaction::default() };
    let how = fs_volume::Collection { grace: Duration::ZERO, compaction, ..fs_volume::Collection::default() };
    let pruned = volume.prune(&before[..before.len() - 1], &how).expect("pruned");
    assert!(pruned.compacted.packs.count > 3, "{pruned:?}");
    let all = sum(&volume).expect("read");
    let store = source.uploaded(1);

    let mut elsewhere = Elsewhere::new(&source, store.clone());
    let history = elsewhere.history();
    assert_eq!(sum(&head(&history)).expect("read"), all);
    elsewhere.fill_and_wait(&history);
    assert_eq!(*store.missed.lock().expect("no panic"), Vec::<String>::new());
    drop(history);

    store.inside.set_away(true);
    elsewhere.restart(store.clone());
    let here = elsewhere.here();
    assert_eq!(sum(&head(&here)).expect("read"), all);
    assert_eq!(here.check(&|_, _| {}).expect("checked").damage, []);
}

/// A database is such a file: most of it was written at once, and all over it lie pages of later seals.
#[test]
fn a_scattered_file_is_copied_with_few_requests_for_each_pack() {
    const PAGE: usize = 8192;
    let source = Source::new(13);
    let volume = source.open();
    let db = make(&volume, Ino::ROOT, "db", NewNode::File);
    let mut bytes = noise(1, 24 * MIB);
    write(&volume, db, &bytes);
    volume.seal(None).expect("sealed");
    for seal in 1..=8 {
        for page in 0..300 {
            let new = noise(seal << 20 | page, PAGE);
            let place = usize::from(u16::from_le_bytes([new[0], new[1]])) % (24 * MIB / PAGE) * PAGE;
            volume.write(db, place as u64, &new, false).expect("written");
            bytes[place..place + PAGE].copy_from_slice(&new);
        }
        volume.seal(None).expect("sealed");
    }
    // Behind a hole.
    volume.write(db, 32 << 20, b"end", false).expect("written");
    volume.seal(None).expect("sealed");
    let data = bytes.len() as u64 + 3;
    bytes.resize(32 * MIB, 0);
    bytes.extend(b"end");

    let store = source.uploaded(1);
    let limits = Limits { is_kept: false, held: 64 << 20, ..Limits::default() };
    let open = || {
        let elsewhere = Elsewhere::with(&source, store.clone(), limits);
        let view = head(&elsewhere.history());
        view.read_dir(Ino::ROOT, 0, 10).expect("listed");
        store.count();
        (elsewhere, view)
    };
    let (_here, view) = open();
    let batches = view.batches(db, 0..u64::MAX).expect("planned");
    assert_eq!(batches.iter().map(fs_volume::Batch::bytes).sum::<u64>(), data);
    let mut copy = vec![0; bytes.len()];
    for (index, batch) in batches.iter().enumerate() {
        batches[index..].iter().take(4).for_each(|soon| view.will_read(soon));
        let mut take = |offset: u64, bytes: &[u8]| {
            copy[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            std::ops::ControlFlow::Continue(())
        };
        view.read_batch(db, batch, &mut take).expect("read");
    }
    assert!(copy == bytes);
    let (by_packs, _) = store.count();
    let packs = std::fs::read_dir(source.folder.path().join("packs")).expect("listed").count();

    let (_here, view) = open();
    for (index, part) in bytes.chunks(MIB).enumerate() {
        assert!(view.read(db, (index * MIB) as u64, MIB).expect("read") == part);
    }
    let (in_order, _) = store.count();
    assert!(by_packs <= 3 * packs && 2 * by_packs < in_order, "{by_packs}, {in_order}, {packs} packs");
}

#[test]
fn a_store_that_fails_never_shows_wrong_bytes() {
    let source = Source::new(2);
    let volume = source.open();
    grow(&volume, 4, 50, 2 * MIB);
    let all = sum(&volume).expect("read");
    let store = source.uploaded(7);
    let limits =
        Limits { read: Duration::from_secs(3), request: Duration::from_millis(200), ..Limits::default() };
    let elsewhere = Elsewhere::with(&source, store.clone(), limits);
    let history = elsewhere.history();
    let view = head(&history);
    let faults = Faults {
        lost: 60,
        busy: 60,
        unreachable: 60,
        silent: 10,
        cut: 60,
        flipped: 200,
        foreign: 100,
        late: 0,
    };
    store.inside.set(faults);
    let (mut wrong, mut failed, mut right) = (0, 0, 0);
    // Each file is compared alone, and tried until it comes: an error is allowed, another file is not.
    let tree = source.open_read_only();
    let mut files = Vec::new();
    walk(&tree, Ino::ROOT, "", &mut |_, ino, size| {
        files.push((ino, size));
        Ok(())
    })
    .expect("walked");
    for (ino, size) in files {
        for at in (0..size.max(1)).step_by(1 << 18) {
            loop {
                match view.read(ino, at, 1 << 18) {
                    Ok(bytes) => {
                        right += 1;
                        wrong += usize::from(bytes != tree.read(ino, at, 1 << 18).expect("read"));
                        break;
                    }
                    Err(FsError::Away(_) | FsError::Damaged(_)) => failed += 1,
                    Err(error) => panic!("{error}"),
                }
                assert!(failed < 1000, "it never comes");
            }
        }
    }
    assert_eq!(wrong, 0, "of {right}, while {failed} failed");
    store.inside.set(Faults::default());
    assert_eq!(sum(&view).expect("well again"), all);
    let filled = elsewhere.fill_and_wait(&history);
    assert_eq!(filled.missing, Vec::<String>::new());
}

#[test]
fn a_store_that_is_away_touches_only_what_is_not_here() {
    let source = Source::new(3);
    let volume = source.open();
    grow(&volume, 2, 20, 4 * MIB);
    let store = source.uploaded(7);
    let limits =
        Limits { read: Duration::from_secs(2), request: Duration::from_millis(200), ..Limits::default() };
    let elsewhere = Elsewhere::with(&source, store.clone(), limits);
    let volume = elsewhere.volume();
    let find = |path: &str| fs_volume::resolve(&volume, path.as_bytes()).expect("found").ino;
    let (near, far) = (find("d000/f0001"), find("d001/large"));
    let at = 3 * MIB as u64 + 77;
    let size = volume.attr(near).expect("known").inode.size as usize;
    assert_eq!(volume.read(near, 0, size).expect("read"), noise(1, size));
    for is_silent in [true, false] {
        store.inside.set_away(!is_silent);
        store.inside.set(Faults { silent: if is_silent { 1000 } else { 0 }, ..Faults::default() });
        let waits = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                let error = volume.read(far, if is_silent { at } else { 0 }, 10).expect_err("it is away");
                assert!(matches!(error, FsError::Away(_)), "{error}");
                assert!(begun.elapsed() < limits.read * 2, "{:?}", begun.elapsed());
                waits.store(false, Ordering::Relaxed);
            });
            let mut reads = 0;
            while waits.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(volume.read(near, 0, size).expect("it is here"), noise(1, size));
                assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
                reads += 1;
            }
            assert!(reads > 10, "{reads} reads meanwhile");
        });
        store.inside.set_away(false);
        store.inside.set(Faults::default());
    }
    // What a request that was silent still holds is given up in its own time.
    let begun = Instant::now();
    let read = loop {
        match volume.read(far, at, 10) {
            Ok(read) => break read,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    assert_eq!(read, noise(1_000_001, 4 * MIB)[at as usize..at as usize + 10]);
    assert_eq!(volume.status().damage, Vec::<String>::new(), "a store that is away is no damage");

    // A pack that is gone is damage, at once.
    let source = Source::new(4);
    let volume = source.open();
    grow(&volume, 1, 1, MIB);
    let memory = Memory::default();
    source.upload(&memory);
    let elsewhere = Elsewhere::with(&source, Arc::new(memory.clone()), limits);
    let history = elsewhere.history();
    let view = head(&history);
    let ino = fs_volume::resolve(&view, b"d000/large").expect("found").ino;
    let packs = Prefix::new(format!("v/{}/p/", source.key.id())).expect("a prefix");
    for entry in runtime().block_on(memory.list(&packs, None, 100)).expect("listed") {
        runtime().block_on(memory.remove(&entry.name)).expect("removed");
    }
    assert!(matches!(view.read(ino, 0, 10), Err(FsError::Damaged(what)) if what.contains("is missing")));
}

/// A volume of `files` empty files in folders of 100, sealed `seals` times.
fn many_files(seed: u8, files: u64, seals: u64) -> Source {
    let source = Source::new(seed);
    let volume = source.open();
    let mut folder = Ino::ROOT;
    for file in 0..files {
        if file % 10_000 == 0 {
            folder = make(&volume, Ino::ROOT, &format!("top{file:07}"), NewNode::Directory);
        }
        if file % 100 == 0 {
            // The folder of a hundred lies in the last of ten thousand.
            let name = format!("top{:07}", file / 10_000 * 10_000);
            let top = volume.lookup(Ino::ROOT, name.as_bytes()).expect("made").ino;
            folder = make(&volume, top, &format!("sub{file:07}"), NewNode::Directory);
        }
        make(&volume, folder, &format!("file{file:07}"), NewNode::File);
        if (file + 1) % (files / seals) == 0 {
            volume.seal(None).expect("sealed");
        }
    }
    volume.seal(None).expect("sealed");
    source
}

/// Opens a volume elsewhere and lists a folder of it; returns how long that took and what was asked for.
fn list_elsewhere(source: &Source, path: &str) -> (Duration, usize, usize, usize) {
    let memory = Memory::default();
    source.upload(&memory);
    let store = Slow::new(memory, FAR);
    let elsewhere = Elsewhere::new(source, store.clone());
    let begun = Instant::now();
    let volume = elsewhere.volume();
    let folder = fs_volume::resolve(&volume, path.as_bytes()).expect("found").ino;
    let names = volume.read_dir(folder, 0, 100).expect("listed").len();
    let took = begun.elapsed();
    let (requests, depth) = store.count();
    (took, requests, depth, names)
}

#[test]
fn opening_takes_few_requests_whatever_the_history() {
    // More packs than the manifest names itself.
    let source = many_files(5, 20_000, 200);
    let packs = std::fs::read_dir(source.folder.path().join("packs")).expect("listed").count();
    assert!(packs > 128, "{packs} packs");
    let (_, requests, depth, names) = list_elsewhere(&source, "/");
    assert_eq!(names, 2);
    assert!(depth <= 6, "{depth} requests that follow each other, of {requests}");
    // Its nodes are in old packs, which a page of the table names.
    let (_, requests, depth, names) = list_elsewhere(&source, "top0010000/sub0014000");
    assert_eq!(names, 100);
    assert!(depth <= 8, "{depth} requests that follow each other, of {requests}");
}

/// What this process has used of the processors so far.
fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole structure, which zeros are, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn say(what: &str, value: impl std::fmt::Display) {
    println!("{what:<70} {value}");
}

#[test]
#[ignore = "measures, for minutes"]
fn measure_opening() {
    for (files, seals) in [(100_000, 200), (1_000_000, 2000)] {
        let source = many_files(6, files, seals);
        let packs = std::fs::read_dir(source.folder.path().join("packs")).expect("listed").count();
        let middle = files / 2;
        for path in ["/", &format!("top{middle:07}/sub{:07}", middle + 4000)] {
            let (took, requests, depth, _) = list_elsewhere(&source, path);
            let what = format!("{files} files, {seals} seals, {packs} packs, 20 ms a request: ls {path}");
            say(&what, format!("{:.0} ms, {requests} requests, depth {depth}", took.as_secs_f64() * 1e3));
        }
    }
}

/// Fetches all packs of a store into a folder, as many at once as filling does: what the line and the disk give.
fn fetch_objects(store: &Arc<dyn Store>, source: &Source, to: &Path) -> Duration {
    let prefix = Prefix::new(format!("v/{}/p/", source.key.id())).expect("a prefix");
    let begun = Instant::now();
    let to = to.to_path_buf();
    let all = async {
        let listed = store.list(&prefix, None, 100_000).await.expect("listed");
        let mut under_way = tokio::task::JoinSet::new();
        for entry in listed {
            if under_way.len() >= 4 {
                under_way.join_next().await;
            }
            let (store, to) = (store.clone(), to.clone());
            under_way.spawn(async move {
                let bytes = store.get(&entry.name, entry.size).await.expect("there");
                let write = move || {
                    let (_, id) = entry.name.as_str().rsplit_once('/').expect("a path");
                    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), id);
                    let file = std::fs::File::create(to.join(id)).expect("made");
                    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
                    file.sync_data().expect("synced");
                };
                tokio::task::spawn_blocking(write).await.expect("written");
            });
        }
        while under_way.join_next().await.is_some() {}
    };
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(all);
    begun.elapsed()
}

#[test]
#[ignore = "measures, for minutes"]
fn measure_reading_everything() {
    let source = Source::new(7);
    let volume = source.open();
    // A third of the bytes in small files.
    grow(&volume, 10, 1700, 64 * MIB);
    drop(volume);
    let place = tempfile::tempdir().expect("a folder");
    let folder = runtime().block_on(fs_store::Folder::open(place.path())).expect("a store");
    let bytes = source.upload(&folder);
    let all = sum(&source.open_read_only()).expect("read");
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    sum(&source.open_read_only()).expect("read");
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    say("the same tree read where it is", format!("{took:.1} s, {cpu:.1} s of processors"));
    let mib = |bytes: u64, took: Duration| bytes as f64 / MIB as f64 / took.as_secs_f64();
    for delay in [Duration::ZERO, FAR] {
        let mut ratios = Vec::new();
        for _ in 0..3 {
            let store: Arc<dyn Store> = Slow::new(folder.clone(), delay);
            let to = tempfile::tempdir().expect("a folder");
            let fetching = cpu_seconds();
            let fetched = fetch_objects(&store, &source, to.path());
            let fetching = cpu_seconds() - fetching;
            drop(to);
            let elsewhere = Elsewhere::new(&source, store);
            let (begun, cpu) = (Instant::now(), cpu_seconds());
            let volume = Arc::new(elsewhere.volume());
            let keeper = Keeper::start(volume.clone(), None);
            let fill = elsewhere.fill(&volume.history());
            assert_eq!(sum(&*volume).expect("read"), all);
            let took = begun.elapsed();
            fill.abort();
            keeper.stop().expect("stopped");
            let cpu = cpu_seconds() - cpu;
            let ratio = fetched.as_secs_f64() / took.as_secs_f64();
            ratios.push(ratio);
            let what = format!("{} MiB of objects, {} ms a request", bytes >> 20, delay.as_millis());
            let here = mib(bytes, fetched);
            let there = mib(bytes, took);
            let ours = format!("read {there:.0} MiB/s with {cpu:.1} s of processors");
            say(&what, format!("fetched {here:.0} MiB/s with {fetching:.1} s, {ours}: {ratio:.2}"));
        }
    }
}

#[test]
#[ignore = "measures, for minutes"]
fn measure_one_small_file() {
    let source = Source::new(8);
    let volume = source.open();
    grow(&volume, 20, 500, 16 * MIB);
    let file = make(&volume, Ino::ROOT, "one", NewNode::File);
    write(&volume, file, &noise(5, 4096));
    volume.seal(None).expect("sealed");
    drop(volume);
    let place = tempfile::tempdir().expect("a folder");
    let folder = runtime().block_on(fs_store::Folder::open(place.path())).expect("a store");
    source.upload(&folder);
    for delay in [Duration::ZERO, FAR] {
        for path in ["one", "d003/f0123"] {
            let store = Slow::new(folder.clone(), delay);
            let elsewhere = Elsewhere::new(&source, store.clone());
            let begun = Instant::now();
            let history = elsewhere.history();
            let view = head(&history);
            let attr = fs_volume::resolve(&view, path.as_bytes()).expect("found");
            assert!(!view.read(attr.ino, 0, 4096).expect("read").is_empty());
            let took = begun.elapsed();
            let (requests, depth) = store.count();
            let what = format!("4 KiB of {path} on a bare machine, {} ms a request", delay.as_millis());
            say(&what, format!("{:.1} ms, {requests} requests, depth {depth}", took.as_secs_f64() * 1e3));
        }
    }
}
