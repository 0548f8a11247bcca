//! A restore drill: a volume is opened from a store alone, read whole, and compared with what is here.
//!
//! Invariants
//! - Nothing but the store and the volume's key is used: what was restored owes nothing to this machine.
//! - What was fetched is encrypted as it was in the store, lies in a folder for its owner alone, and is removed however
//!   the drill ends; after a kill, by the next drill.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_format::{FileKind, Ino};
use fs_volume::{CheckReport, FsError, History, ReadTree, Seek};
use serde::Serialize;

use crate::failure::{Context, Failure, Kind, Result};
use crate::notes::Seen;
use crate::state::{State, VolumeFolder, make_private_dir};
use crate::stores::{self, StoreConfig};
use crate::tree::{self, READ_BYTES};
use crate::{elsewhere, engine, keys, takeover};

/// What the folders of drills begin with, in the state folder.
const FOLDER: &str = ".drill-";
/// How often a folder is tried to be removed, and the pause between: a request ends within some seconds.
const REMOVE_TRIES: usize = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);

/// What a drill found.
#[derive(Debug, Clone, Serialize)]
pub struct Drilled {
    /// The store.
    pub store: String,
    /// The moment that was restored: the newest that is replicated.
    pub seq: u64,
    /// Files and folders in it.
    pub files: u64,
    /// Bytes of packs that were fetched, of all moments.
    pub bytes: u64,
    /// How long it took until the root could be listed, and until everything was read, in seconds.
    pub open_seconds: f64,
    /// Until everything was read.
    pub seconds: f64,
    /// The hash of all names, attributes and contents of the moment.
    pub sum: String,
    /// Whether the same moment here has that hash; none if it is not here.
    pub same_as_here: Option<bool>,
    /// What is damaged.
    #[serde(skip)]
    pub report: CheckReport,
}

/// A folder that goes with this value.
struct Folder {
    path: PathBuf,
    /// Held while the drill goes on, so that the next one knows.
    _lock: File,
}

impl Folder {
    fn make(state: &State) -> Result<Self> {
        state.prepare()?;
        sweep(state.root());
        let path = state.root().join(format!("{FOLDER}{}", uuid::Uuid::new_v4()));
        make_private_dir(&path)?;
        let lock = File::open(&path).context(path.display())?;
        lock.lock().context(path.display())?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A request that nobody waits for any more may still write to it. What stays is removed by the next drill.
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => std::thread::sleep(REMOVE_PAUSE),
                _ => return,
            }
        }
    }
}

/// Removes what drills left that were killed.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(FOLDER.as_bytes()))
    {
        // One that is made in this moment has nothing in it yet, and is not removed with that.
        let is_left = File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if is_left {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Restores a volume from a store, reads all of it, and forgets it.
pub fn run(
    state: &State,
    volume: &VolumeFolder,
    store: &StoreConfig,
    progress: &dyn Fn(u64, u64),
) -> Result<Drilled> {
    let here = engine::history(volume)?;
    let read_key = keys::load_any(volume)?.read_key();
    let folder = Folder::make(state)?;
    let begun = Instant::now();
    let opened = stores::block_on(async {
        let opened = stores::open_to_read(&store.url, volume.id).await?;
        stores::remote(&opened, volume.id).recognise(store.store_id()?).await?;
        Ok(opened)
    })?;
    let (env, _) = takeover::begin(&folder.path, &elsewhere::far(&opened, volume.id, &folder.path)?)?;
    let there = History::open(env, volume.id, read_key, engine::COMMAND_CACHE_BYTES)
        .map_err(|error| engine::open_failure(volume, &error))?;
    let head = there.head().map_err(|error| engine::open_failure(volume, &error))?;
    refuse_older(volume, store, head.seq.0)?;
    let view = there.at(head.seq).map_err(|error| engine::open_failure(volume, &error))?;
    tree::entries(&view, Ino::ROOT).map_err(|error| engine::fs_failure("the root", &error))?;
    let open_seconds = begun.elapsed().as_secs_f64();

    let report = there.check(progress).map_err(|error| engine::open_failure(volume, &error))?;
    if let Some(why) = &report.away {
        return Err(Failure::new(Kind::Unreachable, format!("store \"{}\": {why}", store.name)));
    }
    let sum = sum_of(&view);
    let seconds = begun.elapsed().as_secs_f64();
    // What is damaged is told by the check, which reads the same.
    let Ok(sum) = sum else {
        return Ok(drilled(store, &head, open_seconds, seconds, String::new(), None, report));
    };
    let same_as_here = match here.at(head.seq) {
        // What this machine sealed under that number is not in the volume: another device took it over.
        Ok(ours) if ours.info().id != head.id && engine::is_others(volume)? => None,
        Ok(ours) => Some(sum_of(&ours).map_err(|error| engine::fs_failure("what is here", &error))? == sum),
        Err(fs_volume::OpenError::NoSuchSnapshot(_)) => None,
        Err(error) => return Err(engine::open_failure(volume, &error)),
    };
    Ok(drilled(store, &head, open_seconds, seconds, sum.to_hex().to_string(), same_as_here, report))
}

fn drilled(
    store: &StoreConfig,
    head: &fs_volume::SealInfo,
    open_seconds: f64,
    seconds: f64,
    sum: String,
    same_as_here: Option<bool>,
    report: CheckReport,
) -> Drilled {
    Drilled {
        store: store.name.clone(),
        seq: head.seq.0,
        files: head.files,
        bytes: report.bytes,
        open_seconds,
        seconds,
        sum,
        same_as_here,
        report,
    }
}

/// A store that shows less than was seen there restores the wrong thing.
fn refuse_older(volume: &VolumeFolder, store: &StoreConfig, newest: u64) -> Result<()> {
    match Seen::read(volume, &store.name)? {
        Some(seen) if newest < seen.seq => Err(Failure::new(
            Kind::Damaged,
            format!(
                "store \"{}\" was put back in time: seal {} was seen there, now its newest is {newest}",
                store.name, seen.seq
            ),
        )),
        _ => Ok(()),
    }
}

/// The hash of all names, attributes and contents of a tree.
pub fn sum_of(tree: &dyn ReadTree) -> std::result::Result<blake3::Hash, FsError> {
    let mut sum = Sum { tree, hasher: blake3::Hasher::new(), seen: HashSet::new() };
    sum.inode(Ino::ROOT)?;
    let mut folders = vec![(Ino::ROOT, Vec::new())];
    while let Some((folder, path)) = folders.pop() {
        for entry in tree::entries(tree, folder)? {
            let mut path = path.clone();
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            sum.bytes(&path);
            sum.inode(entry.ino)?;
            if entry.kind == FileKind::Directory {
                folders.push((entry.ino, path));
            }
        }
    }
    Ok(sum.hasher.finalize())
}

struct Sum<'a> {
    tree: &'a dyn ReadTree,
    hasher: blake3::Hasher,
    /// Files with several names: what they hold is read once.
    seen: HashSet<Ino>,
}

impl Sum<'_> {
    /// Adds bytes, so that no others add the same.
    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    fn inode(&mut self, ino: Ino) -> std::result::Result<(), FsError> {
        let inode = self.tree.attr(ino)?.inode;
        for number in
            [ino.0, u64::from(inode.mode), inode.size, u64::from(inode.rdev), u64::from(inode.nlink)]
        {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(&[inode.kind as u8]);
        self.hasher.update(&inode.uid.to_le_bytes()).update(&inode.gid.to_le_bytes());
        self.hasher.update(&inode.mtime.0.to_le_bytes()).update(&inode.ctime.0.to_le_bytes());
        let mut names = self.tree.xattrs(ino)?;
        names.sort();
        for name in names {
            self.bytes(&name);
            let value = self.tree.xattr(ino, &name)?;
            self.bytes(&value);
        }
        match inode.kind {
            FileKind::Symlink => {
                let target = self.tree.read_link(ino)?;
                self.bytes(&target);
            }
            FileKind::File if inode.nlink < 2 || self.seen.insert(ino) => self.content(ino, inode.size)?,
            _ => {}
        }
        Ok(())
    }

    /// Adds what lies between the holes, each run with its place.
    fn content(&mut self, ino: Ino, size: u64) -> std::result::Result<(), FsError> {
        let mut offset = 0;
        while offset < size {
            let start = match self.tree.seek(ino, offset, Seek::Data) {
                Ok(start) => start,
                Err(FsError::NoSuchOffset) => break,
                Err(error) => return Err(error),
            };
            let end = self.tree.seek(ino, start, Seek::Hole)?.min(size);
            self.hasher.update(&start.to_le_bytes()).update(&end.to_le_bytes());
            offset = start;
            while offset < end {
                let bytes = self.tree.read(ino, offset, READ_BYTES.min((end - offset) as usize))?;
                if bytes.is_empty() {
                    return Err(FsError::Damaged(format!("a file ends at byte {offset}")));
                }
                self.hasher.update(&bytes);
                offset += bytes.len() as u64;
            }
        }
        Ok(())
    }
}
