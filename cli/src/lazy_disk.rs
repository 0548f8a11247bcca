//! A volume's folder of which a part is elsewhere: packs and manifests that are not here come from a store.
//!
//! Invariants
//! - What is here is read from here, without a look at the store.
//! - What is written is written here, and nothing here is changed for what a store says.
//! - Whether a part is elsewhere is in the volume's config before the first pack leaves, so whoever misses one finds it.
//!
//! Manifests that were never asked for are not listed: the past shows what is here of it. Filling fetches packs; who needs
//! all moments asks for their manifests first.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use fs_format::{PackId, Seq};
use fs_replication::{Far, Newest, NewestError, Room, WINDOWS, Windows};
use fs_volume::env::{Ahead, Disk, DiskFile, Env, OpenMode};
use fs_volume::manifest_path;
use parking_lot::RwLock;

/// Room on the disk that filling leaves to others, in bytes, or this part of a small disk: as much as eviction makes.
const ROOM_LEFT_BYTES: u64 = 1 << 30;
const ROOM_LEFT_PART: u64 = 3;
/// Room that what is read leaves to others, in bytes: four times what the engine wants to have left to take a write. Of a small
/// disk it is a part, too, below that at which packs are evicted.
const READING_LEFT_BYTES: u64 = 512 << 20;
const READING_LEFT_PART: u64 = 6;

/// A folder whose packs and manifests may be in a store.
pub struct LazyDisk {
    here: Arc<dyn Disk>,
    /// Where the rest is; none while all is here, as far as is known.
    far: RwLock<Option<Far>>,
    find: Box<Find>,
}

/// Finds out where the rest of a volume is, if not all of it is here.
pub type Find = dyn Fn() -> Option<Far> + Send + Sync;

impl LazyDisk {
    /// What is here, and the rest.
    pub fn new(here: Arc<dyn Disk>, far: Far) -> Self {
        Self { here, far: RwLock::new(Some(far)), find: Box::new(|| None) }
    }

    /// What is here, and perhaps a rest, which `find` finds. Packs may leave a volume at any time, so whoever misses one looks.
    pub fn with(here: Arc<dyn Disk>, far: Option<Far>, find: Box<Find>) -> Self {
        Self { here, far: RwLock::new(far), find }
    }

    /// Where the rest is, as far as that is known.
    pub fn far(&self) -> Option<Far> {
        self.far.read().clone()
    }

    /// The same after a look, if it is not known.
    pub fn look(&self) -> Option<Far> {
        let known = self.far();
        known.or_else(|| {
            let mut far = self.far.write();
            if far.is_none() {
                *far = (self.find)();
            }
            far.clone()
        })
    }

    /// Looks anew: the volume has other stores now.
    pub fn look_again(&self) {
        *self.far.write() = (self.find)();
    }

    /// Writes a manifest down under its name, or as the copy of the newest, where the engine looks for it.
    fn keep_manifest(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Several may do so at once: each under a name of its own.
        let new = format!("manifests/.new-{}", uuid::Uuid::new_v4());
        let file = self.here.open(&new, OpenMode::CreateNew)?;
        let written = file.write_at(bytes, 0).and_then(|()| file.sync());
        written.and_then(|()| self.here.rename(&new, name)).inspect_err(|_| {
            // What stays is removed when the volume is opened.
            let _ = self.here.remove(&new);
        })
    }
}

/// Makes the folder, which may be empty, ready to open the volume at the store's newest manifest: two requests, one
/// after the other. Returns the door to it, and that manifest.
pub fn prepare(folder: &Path, far: &Far) -> Result<(Env, Newest), NewestError> {
    let head = far.head()?;
    let env = prepare_at(folder, far, head.header.seq, &head.manifest)?;
    Ok((env, head))
}

/// The same where the newest manifest was read already.
pub fn prepare_at(folder: &Path, far: &Far, seq: Seq, manifest: &[u8]) -> io::Result<Env> {
    let real = fs_volume::real::env(folder);
    let disk = LazyDisk::new(real.disk.clone(), far.clone());
    for folder in ["packs", "journal", "manifests"] {
        disk.here.create_dir(folder)?;
    }
    // Another one of that number is of a past that the store does not have.
    match std::fs::read(folder.join(manifest_path(seq))) {
        Ok(there) if there == manifest => {}
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => disk.keep_manifest(&manifest_path(seq), manifest)?,
    }
    disk.keep_manifest("head", manifest)?;
    disk.here.sync_dir("manifests")?;
    disk.here.sync_dir("")?;
    Ok(Env { disk: Arc::new(disk), ..real })
}

/// Whether the disk of a folder has room for what is fetched, beside what filling leaves to others.
pub fn room(folder: &Path) -> Room {
    let folder = folder.to_owned();
    Arc::new(move |bytes| {
        free(&folder).is_ok_and(|(free, total)| free >= bytes.saturating_add(left_by_filling(total)))
    })
}

/// What filling leaves to others on the disk of a folder, in bytes.
pub fn room_left(folder: &Path) -> u64 {
    free(folder).map_or(ROOM_LEFT_BYTES, |(_, total)| left_by_filling(total))
}

/// Whether the disk of a folder has room for what is read of packs that are elsewhere.
pub fn has_room(folder: &Path) -> bool {
    free(folder).is_ok_and(|(free, total)| free >= READING_LEFT_BYTES.min(total / READING_LEFT_PART))
}

fn left_by_filling(total: u64) -> u64 {
    ROOM_LEFT_BYTES.min(total / ROOM_LEFT_PART)
}

/// Free room on the disk of a folder, and all of it, in bytes.
fn free(folder: &Path) -> rustix::io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// The packs of which at least a part is in a volume's folder.
pub fn packs_here(folder: &Path) -> io::Result<BTreeSet<PackId>> {
    let mut packs = BTreeSet::new();
    for part in ["packs", WINDOWS] {
        let entries = match std::fs::read_dir(folder.join(part)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            // What has another name is being written, or is the map of a pack.
            packs.extend(entry?.file_name().to_str().and_then(PackId::from_hex));
        }
    }
    Ok(packs)
}

fn pack_of(path: &str) -> Option<PackId> {
    path.strip_prefix("packs/").and_then(PackId::from_hex)
}

fn seq_of(path: &str) -> Option<Seq> {
    let name = path.strip_prefix("manifests/").filter(|name| name.len() == 16)?;
    u64::from_str_radix(name, 16).ok().map(Seq)
}

impl Disk for LazyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match self.here.open(path, mode) {
            Err(error) if error.kind() == ErrorKind::NotFound && mode == OpenMode::Read => {
                if let Some(pack) = pack_of(path)
                    && let Some(far) = self.look()
                {
                    return Ok(Arc::new(LazyPack(far.pack(&pack))));
                }
                if let Some(seq) = seq_of(path)
                    && let Some(far) = self.far()
                {
                    self.keep_manifest(path, &far.manifest(seq)?)?;
                    return self.here.open(path, mode);
                }
                Err(error)
            }
            other => other,
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.here.create_dir(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.here.rename(from, to)
    }

    /// With a pack goes what was read of it.
    fn remove(&self, path: &str) -> io::Result<()> {
        if let Some(pack) = path.strip_prefix("packs/") {
            for part in [format!("{WINDOWS}/{pack}"), format!("{WINDOWS}/{pack}.map")] {
                match self.here.remove(&part) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        self.here.remove(path)?;
        if let Some((pack, far)) = pack_of(path).zip(self.far()) {
            // Who has it open reads on; whoever opens it next asks the store.
            far.forget(&pack);
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.here.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.here.sync_dir(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.here.free_bytes()
    }

    fn ahead(&self) -> Option<&dyn Ahead> {
        self.far.read().is_some().then_some(self as &dyn Ahead)
    }
}

impl Ahead for LazyDisk {
    fn is_here(&self, path: &str) -> bool {
        self.here.open(path, OpenMode::Read).is_ok()
    }

    fn will_read(&self, path: &str, file_bytes: Option<u64>, range: Range<u64>) {
        // A pack that is here is found by its name; that costs less than a frame of it.
        if let Some(pack) = pack_of(path)
            && !self.is_here(path)
            && let Some(far) = self.far()
        {
            far.will_read(&pack, range, file_bytes);
        }
    }
}

/// A pack that is read by windows.
struct LazyPack(Arc<Windows>);

impl DiskFile for LazyPack {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn renew(&self, range: Range<u64>) -> io::Result<bool> {
        self.0.renew(range).map(|()| true)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_and_forget(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
