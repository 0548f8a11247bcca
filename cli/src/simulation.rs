//! Two devices, a store and readers, with everything but the kernel real: what was told as replicated is never missing, and
//! every moment that is kept can be read from the store alone, byte for byte.
//!
//! A seed decides who does what: writes, seals, drops moments without any grace, loses the store, takes the volume over, dies.
//! Uploads go on beside it. `SIM_SEED` and `SIM_SEEDS` choose what is run.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs_crypto::VolumeKey;
use fs_format::{ManifestId, Seq, SnapshotId};
use fs_volume::retention::Policy;
use fs_volume::{
    Caller, Compaction, FsError, History, NewNode, ReadTree, SealPace, SnapshotLabel, Volume, WriteTree as _,
};
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::commands::volume::open::{How, again, open};
use crate::expectation::Expect;
use crate::keys::Key;
use crate::name::VolumeName;
use crate::replica::Replicas;
use crate::state::{Config, Lock, State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{elsewhere, engine, filling, keys, retention, takeover};

const ME: Caller = Caller { uid: 1000, gid: 1000 };
const STEPS: u64 = 80;

/// A folder in memory where there is one: what a power cut leaves is tested elsewhere.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    TempDir::new_in(parent).expect("a folder")
}

/// Numbers by splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What was sealed, by the names of manifests.
type Sealed = Arc<Mutex<HashMap<ManifestId, blake3::Hash>>>;

fn sum(tree: &dyn ReadTree) -> Result<blake3::Hash, FsError> {
    let mut hasher = blake3::Hasher::new();
    for entry in tree.read_dir(fs_format::Ino::ROOT, 0, 1000)? {
        hasher.update(&entry.name);
        let size = tree.attr(entry.ino)?.inode.size;
        for at in (0..size).step_by(128 << 10) {
            hasher.update(&tree.read(entry.ino, at, 128 << 10)?);
        }
    }
    Ok(hasher.finalize())
}

/// A volume that a device has open for writing.
struct Open {
    volume: Arc<Volume>,
    replicas: Arc<Replicas>,
    folder: VolumeFolder,
    _lock: Lock,
}

struct Device {
    dir: TempDir,
    state: State,
    open: Option<Open>,
}

fn name() -> VolumeName {
    "photos".parse().expect("a name")
}

impl Device {
    fn new(store: &Path) -> Device {
        let dir = folder();
        let state = State::locate(Some(&dir.path().join("state"))).expect("a state folder");
        let device = Device { dir, state, open: None };
        device.reach(store);
        device
    }

    /// The store as this device sees it.
    fn link(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn url(&self) -> String {
        format!("file://{}", self.link().display())
    }

    fn reach(&self, store: &Path) {
        if !self.link().exists() {
            std::os::unix::fs::symlink(store, self.link()).expect("a link");
        }
        if let Some(open) = &self.open {
            open.replicas.hurry();
        }
    }

    fn lose(&self) {
        let _ = fs::remove_file(self.link());
    }

    fn folder(&self) -> Option<VolumeFolder> {
        self.state.volume(&name()).ok()
    }

    /// Opens what this device may write.
    fn start(&mut self) {
        let Some(folder) = self.folder() else { return };
        let lock = folder.lock().expect("nobody else has it");
        let Ok(volume) = engine::open_to_write(&self.state, &folder, &lock) else { return };
        let volume = Arc::new(volume);
        let replicas =
            Replicas::start(&self.state, &volume, &folder, None, SealPace::default()).expect("replicates");
        self.open = Some(Open { volume, replicas, folder, _lock: lock });
    }

    /// Whether it still may.
    fn writes(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.volume.read_only_reason().is_none())
    }
}

struct World {
    store: TempDir,
    key: VolumeKey,
    devices: Vec<Device>,
    sealed: Sealed,
    /// What was told as replicated.
    told: Vec<(Seq, ManifestId)>,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> World {
        let store = folder();
        let devices = (0..2).map(|_| Device::new(store.path())).collect();
        let key = VolumeKey::from_seed([seed as u8; 32]);
        let (sealed, told) = (Sealed::default(), Vec::new());
        let mut world = World { store, key, devices, sealed, told, dice: Dice(seed) };
        world.begin();
        world
    }

    /// The first device makes the volume and gives it the store.
    fn begin(&mut self) {
        let (key, device) = (self.key.clone(), &mut self.devices[0]);
        let url = device.url();
        let id = stores::block_on(async {
            let remote = stores::remote(&stores::open(&url).await?, key.id());
            let fresh = fs_replication::StoreId([7; 16]);
            Ok(remote.attach(fresh).await?)
        });
        let id = StoreConfig::id_text(id.expect("attached").id);
        let config = StoreConfig { name: "home".into(), url, id, arbiter: true, prices: None, rate: None };
        let config = Config { stores: vec![config], ..Config::new(&name()) };
        let made = device.state.add(&config, &name(), key.id(), |folder| {
            keys::store(folder, &key)?;
            fs_volume::create(&fs_volume::real::env(folder), &key, ME)
                .map_err(|error| crate::failure::Failure::other(error.to_string()))
        });
        made.expect("a volume");
        device.start();
        let volume = &device.open.as_ref().expect("open").volume;
        let policy = Policy::parse("keep last 3; keep tag kept forever").expect("a policy");
        volume.set_policy(Some(&policy)).expect("set");
        self.seal(0, false);
    }

    /// Writes down what the newest seal of a device holds, unless something changed since, or its store is away.
    fn note(&self, device: usize) {
        let Some(open) = &self.devices[device].open else { return };
        let head = open.volume.head();
        if !self.devices[device].link().exists() {
            return;
        }
        let sum = sum(&*open.volume).expect("what is here, or in the store, can be read");
        // A device that is fenced is sealed by another thread.
        if !open.volume.is_dirty() && open.volume.head() == head {
            self.sealed.lock().expect("no panic").insert(head.id, sum);
        }
    }

    fn seal(&mut self, device: usize, keep: bool) {
        let Some(open) = &self.devices[device].open else { return };
        let label = SnapshotLabel {
            id: SnapshotId(self.dice.next().to_le_bytes().repeat(2).try_into().expect("16 bytes")),
            message: String::new(),
            tags: vec!["kept".into()],
        };
        // Others may have ended the writing meanwhile.
        let _ = open.volume.seal(keep.then_some(label));
        self.note(device);
    }

    fn step(&mut self) {
        let device = self.dice.below(2) as usize;
        let choice = self.dice.below(100);
        if !self.devices[device].writes() {
            return self.step_of_reader(device, choice);
        }
        match choice {
            0..38 => self.write(device),
            38..45 => self.overwrite(device),
            45..60 => self.seal(device, false),
            60..65 => self.seal(device, true),
            65..75 => self.prune(device),
            75..82 => self.devices[device].lose(),
            82..92 => self.devices[device].reach(self.store.path()),
            // It dies and comes back: what was not sealed is in the journal. Without the store, a device that opened the
            // volume from it would wait for a minute first.
            92..96 if self.devices[device].link().exists() => {
                self.devices[device].open = None;
                self.devices[device].start();
                self.note(device);
            }
            _ => self.tell(device),
        }
    }

    /// A device that does not write: it takes the volume over, now and then.
    fn step_of_reader(&mut self, device: usize, choice: u64) {
        match choice {
            0..6 => {
                let (key, store) = (self.key.clone(), self.store.path().to_owned());
                let device = &mut self.devices[device];
                device.open = None;
                device.reach(&store);
                let how = How { read_only: false, promote: false, accept_rollback: false };
                match device.folder() {
                    None => open(&device.state, &name(), &Key::Volume(key.clone()), &device.url(), how)
                        .expect("taken over"),
                    Some(folder) if crate::notes::is_fenced(&folder) => {
                        again(&device.state, &name(), how, &Expect::Anything).expect("taken over again");
                    }
                    Some(_) => {}
                }
                // As a daemon does: what is here needs no store.
                let folder = device.folder().expect("it is here");
                filling::fill(&folder, &ProgressBar::hidden()).expect("the store is there");
                device.start();
            }
            6..30 => self.devices[device].reach(self.store.path()),
            _ => return,
        }
        self.note(device);
    }

    fn write(&mut self, device: usize) {
        let (file, seed) = (format!("f{}", self.dice.below(12)), self.dice.below(40));
        let size = self.dice.below(200_000) as usize;
        let volume = &self.devices[device].open.as_ref().expect("it writes").volume;
        let _ = volume.unlink(fs_format::Ino::ROOT, file.as_bytes());
        if self.dice.below(5) == 0 {
            return;
        }
        let Ok(made) = volume.make(ME, fs_format::Ino::ROOT, file.as_bytes(), 0o644, NewNode::File, &[])
        else {
            return;
        };
        let mut bytes = vec![0; size];
        // Few contents, so that much is there already.
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let _ = volume.write(made.ino, 0, &bytes, false);
    }

    /// Overwrites pages of a file anywhere, with a hole between each two, and seals, some times: then most packs are mostly dead.
    fn overwrite(&mut self, device: usize) {
        const PAGE: usize = 8192;
        for _ in 0..5 {
            let volume = &self.devices[device].open.as_ref().expect("it writes").volume;
            let root = fs_format::Ino::ROOT;
            let make = || volume.make(ME, root, b"database", 0o644, NewNode::File, &[]);
            let Ok(database) = volume.lookup(root, b"database").or_else(|_| make()) else { return };
            for _ in 0..24 {
                let (page, mut bytes) = (self.dice.below(32) * 2, vec![0; PAGE]);
                blake3::Hasher::new().update(&self.dice.next().to_le_bytes()).finalize_xof().fill(&mut bytes);
                let _ = volume.write(database.ino, page * PAGE as u64, &bytes, false);
            }
            self.seal(device, false);
        }
    }

    fn prune(&mut self, device: usize) {
        let open = self.devices[device].open.as_ref().expect("it writes");
        let wait = Duration::from_millis(self.dice.below(2) * 500);
        // A device that was just fenced, or whose store is away, drops nothing.
        // Volumes of a simulation are small, and must be compacted all the same.
        let how = (Duration::ZERO, Compaction { freed_bytes_min: 1, ..Compaction::default() });
        let _ = retention::prune(&open.folder, &open.volume, &open.replicas, &[], how, wait);
        self.note(device);
    }

    /// Waits until all is replicated, and writes down what was told.
    fn tell(&mut self, device: usize) {
        let open = self.devices[device].open.as_ref().expect("it writes");
        let head = open.volume.head();
        if open.replicas.wait(head.seq, Duration::from_millis(500), &mut |_| {}).is_ok() {
            self.told.push((head.seq, head.id));
        }
    }

    /// Opens the volume from the store alone, and reads every moment that it keeps.
    fn verify(&self) {
        let dir = folder();
        let history = from_store(self.store.path(), &self.key, dir.path());
        let seals = history.seals().expect("the moments");
        let head = seals.last().expect("a head").clone();
        for seal in &seals {
            let read = history.at(seal.seq).map_err(|error| error.to_string());
            let read = read.and_then(|view| sum(&view).map_err(|error| error.to_string()));
            let sealed = self.sealed.lock().expect("no panic").get(&seal.id).copied();
            match (read, sealed) {
                (Ok(read), Some(sealed)) => {
                    assert_eq!(read, sealed, "seal {} holds something else", seal.seq)
                }
                // The first seal of a takeover, or of a pruning that was cut short, is noted by nobody.
                (Ok(_), None) => {}
                (Err(error), _) => panic!("seal {} cannot be read from the store: {error}", seal.seq),
            }
        }
        for (seq, id) in &self.told {
            assert!(
                head.seq >= *seq,
                "seal {seq} was told as replicated, and the store ends at {}",
                head.seq
            );
            if let Some(seal) = seals.iter().find(|seal| seal.seq == *seq) {
                assert_eq!(seal.id, *id, "seal {seq} was told as replicated, and is another");
            }
        }
    }
}

fn from_store(store: &Path, key: &VolumeKey, folder: &Path) -> History {
    let url = format!("file://{}", store.display());
    let opened = stores::block_on(stores::open(&url)).expect("it is there");
    let far = elsewhere::far(&opened, key.id(), folder).expect("far");
    let (env, _) = takeover::begin(folder, &far).expect("it holds the volume");
    History::open(env, key.id(), key.read_key(), 16 << 20).expect("opens")
}

/// Reads one moment after the other from the store, while others write it. What it cannot read must be dropped by then.
fn read_along(store: &Path, key: &VolumeKey, sealed: &Sealed, end: &AtomicBool) -> u64 {
    let mut reads = 0;
    let mut dice = Dice(3);
    while !end.load(Ordering::Relaxed) {
        // The writers are what is tested; one core is theirs.
        std::thread::sleep(Duration::from_millis(100));
        let dir = folder();
        let history = from_store(store, key, dir.path());
        let seals = history.seals();
        let Ok(seals) = seals else { continue };
        let seal = &seals[dice.below(seals.len() as u64) as usize];
        let read = history.at(seal.seq).map_err(|error| error.to_string());
        match read.and_then(|view| sum(&view).map_err(|error| error.to_string())) {
            Ok(read) => {
                if let Some(sealed) = sealed.lock().expect("no panic").get(&seal.id) {
                    assert_eq!(read, *sealed, "seal {} is read as something else", seal.seq);
                }
                reads += 1;
            }
            Err(error) => {
                let dir = folder();
                let now = from_store(store, key, dir.path());
                let kept = now.seals().map(|seals| seals.iter().any(|one| one.id == seal.id));
                assert!(!kept.unwrap_or(false), "seal {} is kept, and cannot be read: {error}", seal.seq);
            }
        }
    }
    reads
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let first = world.devices[0].open.as_ref().expect("open");
    first
        .replicas
        .wait(first.volume.head().seq, Duration::from_secs(30), &mut |_| {})
        .expect("the first seal is there");
    let (store, key, sealed) = (world.store.path().to_owned(), world.key.clone(), world.sealed.clone());
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_along(&store, &key, &sealed, &end));
        for step in 0..STEPS {
            world.step();
            if step % 20 == 19 {
                world.verify();
            }
        }
        // Whoever may write at the end gets everything to the store.
        for device in 0..2 {
            world.devices[device].reach(&store);
            if world.devices[device].writes() {
                world.seal(device, false);
                let open = world.devices[device].open.as_ref().expect("it writes");
                let sent = open.replicas.wait(open.volume.head().seq, Duration::from_secs(30), &mut |_| {});
                if let Err(failure) = sent {
                    assert!(!world.devices[device].writes(), "it is stuck: {}", failure.message);
                }
            }
        }
        world.verify();
        end.store(true, Ordering::Relaxed);
        let reads = reader.join().expect("the reader found nothing wrong");
        assert!(reads > 0, "nothing was read beside the writers");
    });
}

#[test]
fn nothing_that_was_told_as_replicated_is_missing_and_what_is_kept_is_whole() {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = (number("SIM_SEED").unwrap_or(1), number("SIM_SEEDS").unwrap_or(2));
    for seed in first..first + count {
        println!("seed {seed}");
        run(seed);
    }
}
