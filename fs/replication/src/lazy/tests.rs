//! Packs of noise in a store that counts, and fails as it is told.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fs_format::manifest::PackEntry;
use fs_format::pack::padme;
use fs_format::{PackId, Seq, VolumeId};
use fs_store::{Abilities, Entry, Faults, Faulty, Memory, Name, Prefix, Store, StoreError};

use super::line::HELD_BYTES_MAX;
use super::*;

const VOLUME: VolumeId = VolumeId([7; 32]);
const WINDOW: usize = WINDOW_BYTES as usize;
const MIB: usize = 1 << 20;

/// Notes each range that is asked for, and takes its time.
#[derive(Debug)]
struct Noted {
    inside: Faulty<Memory>,
    delay: Mutex<Duration>,
    ranges: Mutex<Vec<Range<u64>>>,
}

#[async_trait]
impl Store for Noted {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.inside.create(name, bytes).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.inside.get(name, limit).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.ranges.lock().expect("no panic").push(range.clone());
        let delay = *self.delay.lock().expect("no panic");
        tokio::time::sleep(delay).await;
        self.inside.get_range(name, range).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inside.list(prefix, after, limit).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.inside.remove(name).await
    }
}

/// A volume's folder and its store.
struct Stage {
    folder: tempfile::TempDir,
    store: Arc<Noted>,
    runtime: tokio::runtime::Handle,
    far: Far,
    limits: Limits,
    _end: tokio::sync::oneshot::Sender<()>,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl Stage {
    fn new() -> Stage {
        Stage::with(Limits {
            read: Duration::from_secs(20),
            request: Duration::from_secs(5),
            ..Limits::default()
        })
    }

    fn with(limits: Limits) -> Stage {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(ended));
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("packs")).expect("a folder");
        let inside = Faulty::new(Memory::default(), 7);
        let store = Arc::new(Noted { inside, delay: Mutex::default(), ranges: Mutex::default() });
        let far =
            Far::new(store.clone(), VOLUME, folder.path(), handle.clone(), limits).expect("a far volume");
        Stage { folder, store, runtime: handle, far, limits, _end: end }
    }

    /// The same after a restart.
    fn reopen(&mut self) {
        let runtime = self.runtime.clone();
        self.far =
            Far::new(self.store.clone(), VOLUME, self.folder.path(), runtime, self.limits).expect("again");
    }

    /// Puts a pack of noise in the store.
    fn pack(&self, seed: u64, len: usize) -> (PackId, Vec<u8>) {
        let bytes = noise(seed, len);
        let id = PackId(*blake3::hash(&bytes).as_bytes());
        let name = Name::new(format!("v/{VOLUME}/p/{id}")).expect("a name");
        self.runtime
            .block_on(self.store.inside.inside().create(&name, bytes.clone().into()))
            .expect("created");
        (id, bytes)
    }

    fn entry(&self, seed: u64, len: usize, birth: u64) -> PackEntry {
        PackEntry { object: self.pack(seed, len).0, bytes: len as u32, birth: Seq(birth) }
    }

    fn set(&self, faults: Faults) {
        self.store.inside.set(faults);
    }

    fn delay(&self, delay: Duration) {
        *self.store.delay.lock().expect("no panic") = delay;
    }

    /// What was asked for since the last look.
    fn asked(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.store.ranges.lock().expect("no panic"))
    }

    fn fill(&self, entries: Vec<PackEntry>) -> Filled {
        let far = self.far.clone();
        self.runtime.block_on(async move { far.fill(entries, Arc::new(|_| true)).await })
    }

    fn place(&self, id: &PackId) -> std::path::PathBuf {
        self.folder.path().join("packs").join(id.to_hex())
    }
}

fn read(windows: &Arc<Windows>, range: Range<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; range.len()];
    windows.read_at(&mut bytes, range.start as u64)?;
    Ok(bytes)
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_read_is_what_the_pack_holds_and_a_whole_one_takes_its_place() {
    let stage = Stage::new();
    let len = 3 * MIB + 12_345;
    let (id, bytes) = stage.pack(1, len);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(len as u64));
    for range in [0..64, 65_530..65_550, 0..len, len - 1..len, 7 * WINDOW..9 * WINDOW, 100_000..1_200_000] {
        assert!(read(&windows, range.clone()).expect("read") == bytes[range.clone()], "{range:?}");
    }
    for beyond in [len - 1..len + 1, len + MIB..len + MIB + 1] {
        assert_eq!(read(&windows, beyond).expect_err("beyond").kind(), ErrorKind::UnexpectedEof);
    }
    eventually("it takes its place", || stage.place(&id).exists());
    assert!(fs::read(stage.place(&id)).expect("read") == bytes);
    assert_eq!(fs::read_dir(stage.folder.path().join(WINDOWS)).expect("listed").count(), 0);
    let asked = stage.asked();
    for range in &asked {
        assert!(range.start % WINDOW_BYTES == 0 && range.end - range.start <= REQUEST_BYTES_MAX, "{range:?}");
        assert!(range.end % WINDOW_BYTES == 0 || range.end == len as u64, "{range:?}");
    }
    assert_eq!(asked.iter().map(|range| range.end - range.start).sum::<u64>(), len as u64, "each byte once");
    stage.store.inside.set_away(true);
    assert!(read(&windows, 5..MIB).expect("it is here") == bytes[5..MIB]);
}

#[test]
fn of_several_readers_of_a_window_one_asks() {
    let stage = Stage::new();
    let (id, bytes) = stage.pack(1, MIB);
    let windows = stage.far.pack(&id);
    stage.delay(Duration::from_millis(100));
    windows.will_read(0..100, Some(MIB as u64));
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let (windows, bytes) = (&windows, &bytes);
            scope.spawn(move || {
                let range = reader * 100..reader * 100 + 5000;
                assert!(read(windows, range.clone()).expect("read") == bytes[range]);
            });
        }
    });
    assert_eq!(stage.asked().len(), 1);
}

#[test]
fn a_pack_of_unknown_length_is_not_asked_for_beyond_its_end() {
    let stage = Stage::new();
    // As long as Padmé allows, as all packs are.
    for len in [padme(100), padme(5000), padme(70_000), padme(200_000)] {
        let (id, bytes) = stage.pack(len, len as usize);
        let windows = stage.far.pack(&id);
        let end = len as usize - len as usize / 20;
        for range in [0..64, end - 10..end, 0..end] {
            assert!(read(&windows, range.clone()).expect("read") == bytes[range]);
        }
        assert_eq!(windows.bytes().expect("listed"), len);
        assert!(read(&windows, 0..len as usize).expect("read") == bytes, "and then to its end");
    }
    for range in stage.asked() {
        assert!(range.end % WINDOW_BYTES == 0 || range.end == padme(range.end), "{range:?}");
    }
    let none = stage.far.pack(&PackId([9; 32]));
    assert_eq!(none.bytes().expect_err("none").kind(), ErrorKind::NotFound);
    assert_eq!(read(&none, 0..10).expect_err("none").kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_kept_outlives_a_restart_but_not_a_tear() {
    let mut stage = Stage::new();
    let len = 2 * MIB;
    let (id, bytes) = stage.pack(1, len);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(len as u64));
    for window in [0, 20] {
        read(&windows, window * WINDOW..(window + 1) * WINDOW).expect("read");
    }
    let stop = |windows: Arc<Windows>| {
        eventually("its requests end", || Arc::strong_count(&windows) == 1);
    };
    stop(windows);
    stage.asked();

    stage.reopen();
    stage.store.inside.set_away(true);
    let windows = stage.far.pack(&id);
    assert!(read(&windows, 5..WINDOW).expect("it was kept") == bytes[5..WINDOW]);
    assert_eq!(windows.bytes().expect("so was the length"), len as u64);

    // Another process has it: it is read all the same, past what is kept.
    stage.reopen();
    stage.store.inside.set_away(false);
    let other = stage.far.pack(&id);
    assert!(read(&other, 5..WINDOW).expect("asked for") == bytes[5..WINDOW]);
    assert_eq!(stage.asked().len(), 1);
    stop(other);
    stop(windows);

    // A crash: some sectors never reached the disk, and one map is older than another.
    let path = stage.folder.path().join(WINDOWS).join(id.to_hex());
    let torn = fs::OpenOptions::new().write(true).open(path).expect("opened");
    torn.write_all_at(&[0; 4096], 8192).expect("torn");
    stage.reopen();
    stage.store.inside.set_away(false);
    let windows = stage.far.pack(&id);
    assert!(read(&windows, 0..WINDOW).expect("asked for again") == bytes[..WINDOW]);
    assert!(read(&windows, 20 * WINDOW..21 * WINDOW).expect("kept") == bytes[20 * WINDOW..21 * WINDOW]);
    assert_eq!(stage.asked().len(), 1);
}

#[test]
fn a_window_that_does_not_verify_is_asked_for_once_more() {
    let stage = Stage::new();
    let (id, bytes) = stage.pack(1, MIB);
    let windows = stage.far.pack(&id);
    stage.set(Faults { flipped: 1000, ..Faults::default() });
    assert!(read(&windows, 0..WINDOW).expect("read") != bytes[..WINDOW], "only a frame could tell");
    stage.set(Faults::default());
    assert!(read(&windows, 0..WINDOW).expect("read") != bytes[..WINDOW], "it is kept");
    windows.renew(100..200).expect("forgotten");
    assert!(read(&windows, 0..WINDOW).expect("read") == bytes[..WINDOW]);
    assert_eq!(stage.asked().len(), 2);
}

#[test]
fn a_pack_with_a_wrong_bit_never_takes_its_place() {
    let stage = Stage::new();
    let entry = stage.entry(1, MIB + 5, 1);
    let windows = stage.far.pack(&entry.object);
    windows.will_read(0..1, Some(entry.bytes.into()));
    stage.set(Faults { flipped: 1000, ..Faults::default() });
    assert_eq!(stage.fill(vec![entry]).missing.len(), 1, "it is flipped each time");
    assert!(!stage.place(&entry.object).exists());

    let entry = stage.entry(2, MIB + 5, 1);
    let windows = stage.far.pack(&entry.object);
    windows.will_read(0..1, Some(entry.bytes.into()));
    read(&windows, 0..WINDOW).expect("read, with a wrong bit");
    stage.set(Faults::default());
    assert_eq!(stage.fill(vec![entry]), Filled { packs: 1, bytes: MIB as u64 + 5, missing: Vec::new() });
    assert!(stage.place(&entry.object).exists(), "all of it was asked for once more");
}

#[test]
fn a_store_that_says_nothing_ends_a_read_in_time_and_the_next_is_well() {
    let limits =
        Limits { read: Duration::from_secs(1), request: Duration::from_millis(150), ..Limits::default() };
    let stage = Stage::with(limits);
    let (id, bytes) = stage.pack(1, 4 * MIB);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(4 * MIB as u64));
    assert!(read(&windows, 0..10).is_ok());
    for away in [false, true] {
        stage.store.inside.set_away(away);
        stage.set(Faults { silent: if away { 0 } else { 1000 }, ..Faults::default() });
        let begun = Instant::now();
        // Further than what came with the first read.
        let range = 3 * MIB..3 * MIB + 10;
        assert_eq!(read(&windows, range.clone()).expect_err("nothing").kind(), ErrorKind::TimedOut);
        let took = begun.elapsed();
        assert!(took >= limits.read && took < limits.read + Duration::from_secs(2), "{took:?}");
        assert!(read(&windows, 0..10).expect("it is here") == bytes[..10]);
        assert!(begun.elapsed() - took < Duration::from_millis(100), "and waits for no store");
        stage.store.inside.set_away(false);
        stage.set(Faults::default());
        assert!(read(&windows, range.clone()).expect("well again") == bytes[range]);
        windows.renew(0..4 * MIB as u64).expect("forgotten");
        assert!(read(&windows, 0..10).is_ok());
        stage.asked();
    }
}

#[test]
fn nobody_waits_for_the_store_on_behalf_of_who_gave_up() {
    let stage = Stage::with(Limits { is_given_up: || true, ..Limits::default() });
    let (id, _) = stage.pack(1, MIB);
    stage.set(Faults { silent: 1000, ..Faults::default() });
    let begun = Instant::now();
    assert_eq!(read(&stage.far.pack(&id), 0..10).expect_err("nothing").kind(), ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_store_that_often_fails_is_read_all_the_same() {
    let stage = Stage::new();
    let (id, bytes) = stage.pack(1, 8 * MIB);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(8 * MIB as u64));
    stage.set(Faults { lost: 150, busy: 150, unreachable: 100, cut: 100, ..Faults::default() });
    for at in (0..8 * MIB).step_by(300_000) {
        let range = at..(at + 70_000).min(8 * MIB);
        match read(&windows, range.clone()) {
            Ok(read) => assert!(read == bytes[range]),
            // What was cut twice in a row is damage.
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}"),
        }
    }
}

#[test]
fn who_reads_on_gets_more_at_once() {
    let stage = Stage::new();
    let len = 16 * MIB;
    let (id, bytes) = stage.pack(1, len);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(len as u64));
    read(&windows, 0..10).expect("read");
    eventually("the hint is answered", || stage.asked().len() <= 1);
    for at in (0..len).step_by(4096 * 7) {
        let range = at..(at + 4096).min(len);
        assert!(read(&windows, range.clone()).expect("read") == bytes[range]);
    }
    let asked = stage.asked().len();
    assert!(asked <= 10, "{asked} requests for 16 MiB, of which each may be 4 MiB");
    eventually("it takes its place", || stage.place(&id).exists());

    // Who jumps about gets what he asked for.
    let (id, bytes) = stage.pack(2, len);
    let stage_asked = stage.asked().len();
    assert_eq!(stage_asked, 0);
    let windows = stage.far.pack(&id);
    assert!(read(&windows, 5 * MIB..5 * MIB + 10).expect("read") == bytes[5 * MIB..5 * MIB + 10]);
    let asked = stage.asked();
    assert_eq!((asked.len(), asked[0].clone()), (1, 5 * MIB as u64..(5 * MIB + WINDOW) as u64));
}

#[test]
fn a_disk_that_cannot_be_written_keeps_nobody_from_reading() {
    let stage = Stage::new();
    let (id, bytes) = stage.pack(1, MIB);
    fs::remove_dir(stage.folder.path().join(WINDOWS)).expect("removed");
    let windows = stage.far.pack(&id);
    for _ in 0..2 {
        assert!(read(&windows, 5..100_000).expect("read") == bytes[5..100_000]);
    }
    assert!(!stage.asked().is_empty());
}

#[test]
fn a_full_disk_keeps_nothing_and_filling_goes_on_when_there_is_room() {
    static HAS_ROOM: AtomicBool = AtomicBool::new(false);
    let stage = Stage::with(Limits { has_room: |_| HAS_ROOM.load(Ordering::SeqCst), ..Limits::default() });
    let entry = stage.entry(1, MIB, 1);
    let windows = stage.far.pack(&entry.object);
    for _ in 0..2 {
        assert!(read(&windows, 5..100_000).expect("read") == noise(1, MIB)[5..100_000]);
    }
    assert_eq!(fs::read_dir(stage.folder.path().join(WINDOWS)).expect("listed").count(), 0);

    stage.asked();
    let far = stage.far.clone();
    let filling = stage.runtime.spawn(async move { far.fill(vec![entry], Arc::new(|_| true)).await });
    std::thread::sleep(Duration::from_millis(2500));
    let asked = stage.asked().len();
    assert!(asked <= 4, "{asked} requests for what cannot be kept");
    HAS_ROOM.store(true, Ordering::SeqCst);
    let filled = stage.runtime.block_on(filling).expect("it ends");
    assert_eq!((filled.packs, filled.missing), (1, Vec::new()));
    assert!(stage.place(&entry.object).exists());
}

#[test]
fn what_cannot_be_kept_is_not_asked_for_with_each_read() {
    let stage = Stage::with(Limits { has_room: |_| false, ..Limits::default() });
    let packs: Vec<_> = (0..4).map(|seed| stage.pack(seed, 16 * MIB)).collect();
    for (id, bytes) in &packs {
        let windows = stage.far.pack(id);
        windows.will_read(0..1, Some(16 * MIB as u64));
        // As files lie in it, small, one behind the other.
        for start in (0..16 * MIB).step_by(10_000) {
            let range = start..(start + 9_000).min(16 * MIB);
            assert!(read(&windows, range.clone()).expect("read") == bytes[range]);
        }
    }
    let asked: u64 = stage.asked().iter().map(|range| range.end - range.start).sum();
    assert!(asked < 80 * MIB as u64, "{} MiB were asked for to read 64", asked >> 20);
    assert!(stage.far.line.held_bytes() <= HELD_BYTES_MAX, "{} bytes are held", stage.far.line.held_bytes());
    assert_eq!(fs::read_dir(stage.folder.path().join(WINDOWS)).expect("listed").count(), 0);
}

#[test]
fn what_is_to_be_kept_nowhere_comes_once_as_long_as_it_is_held() {
    let held = 8 * MIB as u64;
    let stage = Stage::with(Limits { is_kept: false, held, ..Limits::default() });
    let (id, bytes) = stage.pack(1, 4 * MIB);
    let windows = stage.far.pack(&id);
    windows.will_read(0..1, Some(bytes.len() as u64));
    for _ in 0..2 {
        for start in (0..bytes.len()).step_by(100_000) {
            let range = start..(start + 100_000).min(bytes.len());
            assert!(read(&windows, range.clone()).expect("read") == bytes[range]);
        }
    }
    let asked: u64 = stage.asked().iter().map(|range| range.end - range.start).sum();
    assert_eq!(asked, bytes.len() as u64);
    assert!(stage.far.line.held_bytes() <= held);
    assert_eq!(fs::read_dir(stage.folder.path().join(WINDOWS)).expect("listed").count(), 0);
}

#[test]
fn what_was_asked_for_early_is_held_until_somebody_reads_it() {
    let stage = Stage::with(Limits { is_kept: false, ..Limits::default() });
    let (id, bytes) = stage.pack(1, 2 * MIB);
    stage.far.will_read(&id, 0..bytes.len() as u64, Some(bytes.len() as u64));
    eventually("it came", || stage.far.line.held_bytes() == bytes.len() as u64);
    assert!(read(&stage.far.pack(&id), 0..bytes.len()).expect("read") == bytes);
    assert_eq!(stage.asked().len(), 1);
}

#[test]
fn everything_comes_nodes_first_and_readers_go_before() {
    let stage = Stage::new();
    let header =
        |kind| fs_format::pack::PackHeader { suite: 1, kind, salt: [1; 32], domain: [2; 16] }.encode();
    let put = |kind, len: usize, seed: u64, birth: u64| {
        let mut bytes = noise(seed, len);
        bytes[..64].copy_from_slice(&header(kind));
        let id = PackId(*blake3::hash(&bytes).as_bytes());
        let name = Name::new(format!("v/{VOLUME}/p/{id}")).expect("a name");
        stage.runtime.block_on(stage.store.inside.create(&name, bytes.into())).expect("created");
        PackEntry { object: id, bytes: len as u32, birth: Seq(birth) }
    };
    use fs_format::pack::PackKind::{Data, Meta};
    // As a volume lists them: a seal writes its chunks and then its nodes.
    let mut entries = Vec::new();
    for seal in 0..10_u64 {
        entries.push(put(Data, 700_000, 3 * seal, seal));
        entries.push(put(Data, 100_000, 3 * seal + 1, seal));
        entries.push(put(Meta, 300_000, 3 * seal + 2, seal));
    }
    entries.reverse();
    let metas: Vec<PackId> = entries.iter().filter(|e| e.bytes == 300_000).map(|e| e.object).collect();
    let is_late = AtomicBool::new(false);
    stage.set(Faults { lost: 50, busy: 50, ..Faults::default() });
    stage.delay(Duration::from_millis(5));
    let filled = std::thread::scope(|scope| {
        scope.spawn(|| {
            let is_whole = |id: &PackId| stage.place(id).exists();
            while !metas.iter().all(is_whole) {
                let data = entries.iter().filter(|e| e.bytes == 700_000 && is_whole(&e.object)).count();
                is_late.fetch_or(data > 0, Ordering::Relaxed);
            }
        });
        stage.fill(entries.clone())
    });
    assert_eq!((filled.packs, filled.missing), (30, Vec::new()));
    assert!(!is_late.load(Ordering::Relaxed), "chunks came before nodes");
    for entry in &entries {
        let bytes = fs::read(stage.place(&entry.object)).expect("it is whole");
        assert_eq!(blake3::hash(&bytes).as_bytes(), &entry.object.0);
    }

    // While a reader waits, nothing else is asked for.
    let entry = put(Data, 4 * MIB, 1000, 11);
    let slow = put(Data, MIB, 1001, 11);
    stage.set(Faults::default());
    stage.delay(Duration::from_millis(300));
    let reader = {
        let windows = stage.far.pack(&slow.object);
        std::thread::spawn(move || read(&windows, 0..10))
    };
    eventually("the reader waits", || !stage.asked().is_empty());
    let begun = Instant::now();
    assert_eq!(stage.fill(vec![entry]).packs, 1);
    assert!(begun.elapsed() >= Duration::from_millis(500), "the fill began before the reader was served");
    assert!(reader.join().expect("no panic").is_ok());
}
