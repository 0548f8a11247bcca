//! What the benchmarks stand on: a world in memory or on a disk, and data from seeds.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Bencher};
use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::{FileKind, Ino, Inode, ManifestId, Seq, Timestamp};
use fs_sim::{Dice, SimChance, SimClock};
use fs_volume::env::{Buffer, Disk, DiskFile, Env, OpenMode};
use fs_volume::{Caller, Options, SealInfo, Volume};
use parking_lot::{Mutex, RwLock};

/// Runs what is measured, once. `benches/instructions` counts what happens in here, and knows it by this name.
#[inline(never)]
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Measures `work`, after it has run once: what is done at the first time only is nobody's speed.
pub fn each<T>(bencher: &mut Bencher<'_>, mut work: impl FnMut() -> T) {
    drop(work());
    bencher.iter(|| counted(&mut work));
}

/// Measures `work` alone, each time on what `prepare` made for it.
pub fn prepared<P, T>(
    bencher: &mut Bencher<'_>,
    mut prepare: impl FnMut() -> P,
    mut work: impl FnMut(P) -> T,
) {
    drop(work(prepare()));
    bencher.iter_batched(prepare, |input| counted(|| work(input)), BatchSize::PerIteration);
}

/// Bytes that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Dice::seeded(seed).fill(&mut bytes);
    bytes
}

/// Bytes of which half is noise, in runs of 16, so that compression finds something everywhere.
pub fn half_noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = noise(seed, len);
    for run in bytes.chunks_mut(32) {
        let middle = run.len() / 2;
        run[middle..].fill(b'-');
    }
    bytes
}

/// Makes as many bytes as it is asked for, others for each seed.
pub type Make = fn(u64, usize) -> Vec<u8>;

/// The two kinds of data that things are measured with.
pub const KINDS: [(&str, Make); 2] = [("noise", noise), ("half noise", half_noise)];

/// A file as most are.
pub fn inode(size: u64) -> Inode {
    Inode {
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        size,
        allocated: size,
        rdev: 0,
        atime: Timestamp(1_760_000_000_000_000_005),
        mtime: Timestamp(1_760_000_000_000_000_000),
        ctime: Timestamp(1_760_000_000_000_000_009),
        btime: Timestamp(1_750_000_000_000_000_000),
        parent: Ino::ROOT,
        home: 1 << 60,
    }
}

/// What a seal tells, for a seal that has no manifest.
pub fn seal_info(seq: u64) -> SealInfo {
    SealInfo {
        seq: Seq(seq),
        id: ManifestId([0; 32]),
        time: Timestamp(1_760_000_000_000_000_000),
        files: 0,
        bytes: 0,
        added: 0,
        snapshot: None,
    }
}

pub const OWNER: Caller = Caller { uid: 1000, gid: 1000 };

pub fn key() -> VolumeKey {
    VolumeKey::from_seed([7; 32])
}

pub fn device() -> DeviceSecret {
    DeviceSecret::from_bytes([8; 32])
}

/// Makes an empty world.
pub type MakeWorld = fn() -> World;

/// A disk with the clock and the chance beside it.
pub struct World {
    pub env: Env,
    /// How often a file was synced.
    pub syncs: Arc<AtomicU64>,
    folder: Option<tempfile::TempDir>,
}

impl World {
    /// All in memory; the same seed gives the same run.
    pub fn in_memory() -> Self {
        let syncs = Arc::default();
        let env = Env {
            disk: Arc::new(Counting { inside: Arc::new(Memory::default()), syncs: Arc::clone(&syncs) }),
            clock: Arc::new(SimClock::after_hours(1)),
            chance: Arc::new(SimChance::seeded(7)),
        };
        Self { env, syncs, folder: None }.ready()
    }

    /// A folder on a real disk: in `COMB_BENCH_WORK`, or else in `/var/tmp`.
    pub fn on_disk() -> Self {
        let place = std::env::var_os("COMB_BENCH_WORK").unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::tempdir_in(place).expect("a folder on the disk that is measured");
        let syncs = Arc::default();
        let real = fs_volume::real::env(folder.path());
        let env = Env { disk: Arc::new(Counting { inside: real.disk, syncs: Arc::clone(&syncs) }), ..real };
        Self { env, syncs, folder: Some(folder) }.ready()
    }

    fn ready(self) -> Self {
        for folder in ["packs", "journal", "manifests"] {
            self.env.disk.create_dir(folder).expect("a new folder");
        }
        self
    }

    /// Both kinds, by name.
    pub const KINDS: [(&str, MakeWorld); 2] = [("memory", Self::in_memory), ("disk", Self::on_disk)];

    /// The folder on the disk.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.as_ref().expect("this world has a disk").path()
    }

    /// A new volume in it.
    pub fn volume(&self) -> Volume {
        fs_volume::create(&self.env, &key(), OWNER).expect("a new volume");
        let options = Options { journal_bytes_max: 8 << 30, ..Options::default() };
        Volume::open(self.env.clone(), key(), &device(), options).expect("the volume opens")
    }
}

/// A disk that counts how often it is asked to make something durable.
struct Counting {
    inside: Arc<dyn Disk>,
    syncs: Arc<AtomicU64>,
}

struct CountingFile {
    inside: Arc<dyn DiskFile>,
    syncs: Arc<AtomicU64>,
}

impl Disk for Counting {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inside = self.inside.open(path, mode)?;
        Ok(Arc::new(CountingFile { inside, syncs: self.syncs.clone() }))
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.inside.create_dir(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inside.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.inside.remove(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.inside.list(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.inside.sync_dir(path)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.inside.free_bytes()
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inside.read_at(buf, offset)
    }
    fn read_large(&self, buffer: &mut Buffer, offset: u64, len: usize) -> io::Result<()> {
        self.inside.read_large(buffer, offset, len)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inside.write_at(bytes, offset)
    }
    fn write_large(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inside.write_large(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.inside.len()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inside.allocate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.inside.sync()
    }
    fn sync_and_forget(&self) -> io::Result<()> {
        self.inside.sync_and_forget()
    }
}

/// A disk in memory that costs nothing but copying. (That of the simulator keeps what a crash would leave.)
#[derive(Default)]
struct Memory {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
}

#[derive(Default)]
struct MemoryFile(RwLock<Vec<u8>>);

impl Disk for Memory {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        match (files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(file.clone()),
            (None, OpenMode::CreateNew) => Ok(files.entry(path.to_owned()).or_default().clone()),
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.files.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let inside = |name: &String| name.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        Ok(self.files.lock().keys().filter_map(inside).collect())
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.read();
        let from = offset as usize;
        buf.copy_from_slice(bytes.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut all = self.0.write();
        let from = offset as usize;
        if all.len() == from {
            // What is not there yet is not made of zeros first.
            all.extend_from_slice(bytes);
            return Ok(());
        }
        let to = from + bytes.len();
        if all.len() < to {
            all.resize(to, 0);
        }
        all[from..to].copy_from_slice(bytes);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.write().resize(len as usize, 0);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_and_forget(&self) -> io::Result<()> {
        Ok(())
    }
}
