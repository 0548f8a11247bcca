//! Files that are there whole or not at all: written under another name, synced, renamed.

use std::io;
use std::sync::Arc;

use crate::env::{Disk, DiskFile, OpenMode};

/// Why a file is not where it should be.
pub struct Missed {
    pub error: io::Error,
    /// Whether it has its name all the same: then nobody knows what a crash leaves.
    pub may_be_there: bool,
}

/// Makes a file that `fill` writes, in place of what is left of an earlier try. One that cannot be filled is removed: on
/// a full disk every byte counts.
pub fn stage(
    disk: &dyn Disk,
    path: &str,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Arc<dyn DiskFile>> {
    remove_if_there(disk, path)?;
    let file = disk.open(path, OpenMode::CreateNew)?;
    if let Err(error) = fill(&*file) {
        // What stays is replaced by the next try, and removed when the volume is opened.
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(file)
}

/// Makes a file that `fill` writes, and gives it its name when it is durable. When this returns, so is the name.
pub fn put(
    disk: &dyn Disk,
    temporary: &str,
    path: &str,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> Result<Arc<dyn DiskFile>, Missed> {
    let staged = stage(disk, temporary, |file| {
        fill(file)?;
        file.sync()
    });
    let file = staged.map_err(|error| Missed { error, may_be_there: false })?;
    if let Err(error) = disk.rename(temporary, path) {
        // Where the other name is there to be removed, nothing was renamed.
        let may_be_there = disk.remove(temporary).is_err();
        return Err(Missed { error, may_be_there });
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    disk.sync_dir(folder).map_err(|error| Missed { error, may_be_there: true })?;
    Ok(file)
}

/// Removes a file; it is no error if there is none.
pub fn remove_if_there(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
