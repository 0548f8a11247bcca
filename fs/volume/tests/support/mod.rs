//! A volume in a real folder whose disk calls a test before it does something.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::{Ino, Seq, Timestamp};
use fs_volume::env::{Buffer, Clock, Disk, DiskFile, Env, OpenMode};
use fs_volume::*;
use parking_lot::Mutex;

pub const ME: Caller = Caller { uid: 1000, gid: 1000 };

/// What a disk is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Open,
    Create,
    Write,
    /// By the name that the file gets.
    Rename,
    SyncDir,
    Remove,
}

/// Is told what happens to which path; what it returns happens instead if it is an error.
type Hook = Box<dyn FnMut(Act, &str) -> io::Result<()> + Send>;

#[derive(Clone, Default)]
pub struct Hooks(Arc<Mutex<Option<Hook>>>);

impl Hooks {
    pub fn set(&self, hook: impl FnMut(Act, &str) -> io::Result<()> + Send + 'static) {
        *self.0.lock() = Some(Box::new(hook));
    }

    /// From now on this fails with this number of the system's.
    pub fn fail(&self, act: Act, path: &'static str, errno: i32) {
        self.set(move |now, at| match now == act && at.starts_with(path) {
            true => Err(io::Error::from_raw_os_error(errno)),
            false => Ok(()),
        });
    }

    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Calls the hook without the lock: what it does itself does not call it again.
    fn call(&self, act: Act, path: &str) -> io::Result<()> {
        let Some(mut hook) = self.0.lock().take() else { return Ok(()) };
        let result = hook(act, path);
        self.0.lock().get_or_insert(hook);
        result
    }
}

struct HookDisk {
    inner: Arc<dyn Disk>,
    hooks: Hooks,
}

struct HookFile {
    inner: Arc<dyn DiskFile>,
    path: String,
    hooks: Hooks,
}

impl Disk for HookDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.hooks.call(if mode == OpenMode::CreateNew { Act::Create } else { Act::Open }, path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(HookFile { inner, path: path.into(), hooks: self.hooks.clone() }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.hooks.call(Act::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.hooks.call(Act::Remove, path)?;
        self.inner.remove(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.hooks.call(Act::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl DiskFile for HookFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn read_large(&self, buffer: &mut Buffer, offset: u64, len: usize) -> io::Result<()> {
        self.inner.read_large(buffer, offset, len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.hooks.call(Act::Write, &self.path)?;
        self.inner.write_at(bytes, offset)
    }

    fn write_large(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.hooks.call(Act::Write, &self.path)?;
        self.inner.write_large(bytes, offset)
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

/// A clock that can be set, and time that can pass.
#[derive(Clone)]
pub struct Shifted {
    real: Arc<dyn Clock>,
    /// By how many nanoseconds wall time, and the time that nobody sets, are ahead.
    ahead: Arc<(AtomicI64, AtomicU64)>,
}

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        Timestamp(self.real.now().0 + self.ahead.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic() + Duration::from_nanos(self.ahead.1.load(Ordering::Relaxed))
    }
}

/// A volume in a folder that goes away with the test.
pub struct Stage {
    folder: tempfile::TempDir,
    key: VolumeKey,
    pub hooks: Hooks,
    clock: Shifted,
}

impl Stage {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = VolumeKey::from_seed([7; 32]);
        create(&real::env(folder.path()), &key, ME).expect("a new volume");
        let clock = Shifted { real: real::env(folder.path()).clock, ahead: Arc::default() };
        Self { folder, key, hooks: Hooks::default(), clock }
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.set_clock(time.as_nanos() as i64);
        self.clock.ahead.1.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Sets the clock by so many nanoseconds.
    pub fn set_clock(&self, nanos: i64) {
        self.clock.ahead.0.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The past, as another program sees it.
    pub fn history(&self) -> History {
        let env = self.env(self.path());
        History::open(env, self.key.id(), self.key.read_key(), 1 << 20).expect("opens")
    }

    /// Forks the volume into another folder.
    pub fn fork(&self, seq: Seq) -> Stage {
        let other = Stage {
            folder: tempfile::tempdir().expect("a temporary folder"),
            key: VolumeKey::from_seed([8; 32]),
            hooks: Hooks::default(),
            clock: self.clock.clone(),
        };
        let mut bring =
            |path: &str| std::fs::copy(self.path().join(path), other.path().join(path)).map(|_| ());
        fork(&self.history(), seq, &other.env(other.path()), &other.key, &mut bring).expect("forks");
        other
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn env(&self, folder: &Path) -> Env {
        let mut env = real::env(folder);
        env.disk = Arc::new(HookDisk { inner: env.disk.clone(), hooks: self.hooks.clone() });
        env.clock = Arc::new(self.clock.clone());
        env
    }

    pub fn open(&self) -> Volume {
        self.open_at(self.path())
    }

    /// Opens a copy of the volume.
    pub fn open_at(&self, folder: &Path) -> Volume {
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        Volume::open(self.env(folder), self.key.clone(), &DeviceSecret::from_bytes([9; 32]), options)
            .expect("opens")
    }

    /// The names in a folder of the volume.
    pub fn names(&self, folder: &str) -> Vec<String> {
        self.names_in(self.path(), folder)
    }

    /// The names in a folder of a copy of the volume.
    pub fn names_in(&self, copy: &Path, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(copy.join(folder)).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A file below the root.
pub fn put(volume: &Volume, name: &str, bytes: &[u8]) -> Ino {
    let ino = match volume.lookup(Ino::ROOT, name.as_bytes()) {
        Ok(attr) => attr.ino,
        Err(_) => {
            let made = volume.make(ME, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]);
            made.expect("makes a file").ino
        }
    };
    volume.write(ino, 0, bytes, false).expect("writes");
    ino
}
