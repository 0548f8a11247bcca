//! What the threads of a mounted volume do on a disk that is full or slow.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::Ino;
use fs_volume::env::{Disk, DiskFile, Env, OpenMode};
use fs_volume::*;

const ME: Caller = Caller { uid: 1000, gid: 1000 };
/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A volume on a disk whose journal can be refused room, and that tells when a segment is removed.
struct Stage {
    folder: tempfile::TempDir,
    key: VolumeKey,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    is_full: AtomicBool,
    on_remove: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = VolumeKey::from_seed([7; 32]);
        create(&real::env(folder.path()), &key, ME).expect("a new volume");
        Self { folder, key, watch: Arc::default() }
    }

    fn open(&self) -> Volume {
        let env = real::env(self.folder.path());
        let disk = Watched { inner: env.disk.clone(), watch: self.watch.clone() };
        self.open_on(Env { disk: Arc::new(disk), ..env })
    }

    fn open_on(&self, env: Env) -> Volume {
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        Volume::open(env, self.key.clone(), &DeviceSecret::from_bytes([9; 32]), options).expect("opens")
    }

    /// Whether a file would be there if the daemon were killed now.
    fn would_survive(&self, name: &str) -> bool {
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_tree(self.folder.path(), copy.path());
        self.open_on(real::env(copy.path())).lookup(Ino::ROOT, name.as_bytes()).is_ok()
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir(&to).expect("a folder");
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copies");
        }
    }
}

fn make(volume: &Volume, name: &str) {
    volume.make(ME, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]).expect("makes a file");
}

#[test]
fn what_waits_for_room_is_durable_soon_after_there_is_room() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    let keeper = Keeper::start(volume.clone(), None);
    stage.watch.is_full.store(true, Ordering::Relaxed);
    make(&volume, "waits");
    // Longer than the second within which the keeper tries to make it durable.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!stage.would_survive("waits"));
    stage.watch.is_full.store(false, Ordering::Relaxed);
    let began = Instant::now();
    while !stage.would_survive("waits") {
        assert!(began.elapsed() < PATIENCE, "nobody tried again");
        std::thread::sleep(Duration::from_millis(50));
    }
    keeper.stop().expect("stops");
}

#[test]
fn how_often_is_sealed_may_change_while_a_volume_is_kept() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    let keeper = Keeper::start(volume.clone(), None);
    let before = volume.head().seq;
    make(&volume, "file");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(volume.head().seq, before, "nobody asked for it");
    keeper.pace().set(Some(Duration::from_millis(100)));
    let began = Instant::now();
    while volume.head().seq == before {
        assert!(began.elapsed() < PATIENCE, "nobody sealed it");
        std::thread::sleep(Duration::from_millis(20));
    }
    keeper.stop().expect("stops");
}

#[test]
fn what_a_crash_left_is_sealed_at_once() {
    let stage = Stage::new();
    let volume = stage.open();
    make(&volume, "file");
    volume.sync().expect("it is in the journal");
    let before = volume.head().seq;
    drop(volume);
    let volume = Arc::new(stage.open());
    assert_eq!(volume.head().seq, before, "opening seals nothing");
    let keeper = Keeper::start(volume.clone(), Some(Duration::from_secs(3600)));
    let began = Instant::now();
    while volume.head().seq == before {
        assert!(began.elapsed() < PATIENCE, "nobody sealed it");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sealed = volume.head().seq;
    make(&volume, "later");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(volume.head().seq, sealed, "what comes later waits");
    keeper.stop().expect("stops");
}

#[test]
fn nobody_waits_while_the_journal_is_given_back() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    let keeper = Keeper::start(volume.clone(), None);
    make(&volume, "file");
    let looked = Arc::new(OnceLock::new());
    let (told, looker) = (looked.clone(), volume.clone());
    *stage.watch.on_remove.lock().expect("no panic") = Some(Box::new(move || {
        let (sender, receiver) = channel();
        let volume = looker.clone();
        std::thread::spawn(move || sender.send(volume.lookup(Ino::ROOT, b"file").is_ok()));
        told.get_or_init(|| receiver.recv_timeout(PATIENCE));
    }));
    keeper.stop().expect("stops");
    assert_eq!(looked.get(), Some(&Ok(true)), "while a segment was being removed");
}

struct Watched {
    inner: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    is_journal: bool,
    watch: Arc<Watch>,
}

impl Disk for Watched {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        let is_journal = path.starts_with("journal/");
        Ok(Arc::new(WatchedFile { inner, is_journal, watch: self.watch.clone() }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if path.starts_with("journal/")
            && let Some(tell) = &mut *self.watch.on_remove.lock().expect("no panic")
        {
            tell();
        }
        self.inner.remove(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl WatchedFile {
    fn admit(&self) -> io::Result<()> {
        let refuses = self.is_journal && self.watch.is_full.load(Ordering::Relaxed);
        if refuses { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.admit()?;
        self.inner.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn sync_and_forget(&self) -> io::Result<()> {
        self.inner.sync_and_forget()
    }
}
