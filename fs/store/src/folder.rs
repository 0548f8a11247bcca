//! A store in a folder of a file system: a disk, or a share that is mounted here.
//!
//! Invariants
//! - A name appears only when its bytes are on the disk, by a link, which fails where the name is taken.
//! - A create that was answered, also by *exists*, outlives a crash: its folders are synced.
//! - The folder itself is never made: where a share is not mounted, nothing is written below it.
//! - What is no object (odd names, links, leftovers) is neither listed nor touched.
//!
//! A link needs a file system that has them (not FAT). A share that does not answer holds a thread of
//! tokio's blocking pool until it does; the caller's deadline goes on.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::flow::{self, Flow};
use crate::memory::{not_empty, reaches, within};
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError};

/// Where files are written until they are whole; no [`Name`] can begin with a dot.
const INCOMING: &str = ".incoming";

/// Leftovers in [`INCOMING`] that are older than this are of a crash.
///
/// A clock that is wrong costs an upload that must be done again, nothing else: a link of a file that was
/// swept fails.
const LEFTOVER_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes that are written or read at once: at 1 MB/s, well within a deadline.
const PIECE_BYTES: usize = 4 << 20;

/// How deep a listing goes; deeper folders are somebody else's.
const DEPTH_MAX: usize = 16;

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store in the folder `root`, which must be there. Leftovers of crashes are swept.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Folder, StoreError> {
        let folder = Folder { root: root.into() };
        folder.run("open", "", |root| sweep(&root.join(INCOMING))).await?;
        Ok(folder)
    }

    /// Does `work` where it may block, if the folder is there.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        object: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Else a share that is not mounted would look like an empty store.
            match fs::metadata(&root) {
                Ok(found) if found.is_dir() => work(&root).map_err(|error| (kind(&error), error.to_string())),
                Ok(_) => Err((Kind::Refused, "it is no folder".to_owned())),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err((Kind::Unreachable, "the folder is not there; is it mounted?".to_owned()))
                }
                Err(error) => Err((kind(&error), error.to_string())),
            }
        });
        let done = done.await.unwrap_or_else(|stopped| Err((Kind::Unreachable, stopped.to_string())));
        done.map_err(|(kind, detail)| {
            let at = format!("{} in {}", if object.is_empty() { "all" } else { object }, self.root.display());
            let detail = if matches!(kind, Kind::Absent | Kind::Exists) { String::new() } else { detail };
            StoreError::new(kind, action, at, detail)
        })
    }
}

/// What an error of the file system means for a store.
fn kind(error: &io::Error) -> Kind {
    match error.kind() {
        // A part of the name that is a file: no object can be below it.
        ErrorKind::NotFound | ErrorKind::NotADirectory => Kind::Absent,
        ErrorKind::AlreadyExists => Kind::Exists,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        ErrorKind::Unsupported | ErrorKind::IsADirectory | ErrorKind::InvalidInput => Kind::Refused,
        // A full disk too: it may have room later, and says so in words.
        _ => Kind::Unreachable,
    }
}

#[async_trait]
impl Store for Folder {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: true }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        flow::sent(bytes.len()).await;
        let to = name.clone();
        let flow = Flow::current();
        self.run("create", name.as_str(), move |root| create(root, &to, &bytes, flow.as_ref())).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let of = name.clone();
        let flow = Flow::current();
        let found = self.run("get", name.as_str(), move |root| {
            let (file, size) = open(&root.join(of.as_str()))?;
            let bytes = if size <= limit { read(&file, 0, size, flow.as_ref())? } else { Vec::new() };
            Ok((size, bytes))
        });
        let (size, bytes) = found.await?;
        within(name, size, limit)?;
        Ok(bytes.into())
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        not_empty(name, &range)?;
        let (of, wanted, flow) = (name.clone(), range.clone(), Flow::current());
        let found = self.run("get", name.as_str(), move |root| {
            let (file, size) = open(&root.join(of.as_str()))?;
            let whole = wanted.end <= size;
            let bytes =
                if whole { read(&file, wanted.start, wanted.end, flow.as_ref())? } else { Vec::new() };
            Ok((size, bytes))
        });
        let (size, bytes) = found.await?;
        reaches(name, size, &range)?;
        Ok(bytes.into())
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (below, after) = (prefix.clone(), after.cloned());
        let listing = self.run("list", prefix.as_str(), move |root| {
            let mut listing = Listing { root, after: after.as_ref(), limit, found: Vec::new() };
            listing.walk(below.as_str(), DEPTH_MAX)?;
            Ok(listing.found)
        });
        listing.await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        let of = name.clone();
        let removed = self.run("remove", name.as_str(), move |root| {
            let path = root.join(of.as_str());
            fs::remove_file(&path)?;
            sync(parent(&path))
        });
        match removed.await {
            Err(error) if error.kind() == Kind::Absent => Ok(()),
            other => other,
        }
    }
}

/// Writes a file where nobody looks, and links it to its name.
fn create(root: &Path, name: &Name, bytes: &[u8], flow: Option<&Flow>) -> io::Result<()> {
    let path = root.join(name.as_str());
    // Most names that are taken are found without writing anything; the link decides all others.
    if open(&path).is_ok() {
        sync(parent(&path))?;
        return Err(ErrorKind::AlreadyExists.into());
    }
    make_folders(root, name)?;
    let temporary = write(root, bytes, flow)?;
    let linked = fs::hard_link(&temporary, &path);
    // A leftover is swept later.
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync(parent(&path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Whoever made it may not have synced it yet, and the caller counts on it.
            sync(parent(&path))?;
            Err(error)
        }
        // The file was swept, or the folder removed: it may be done again.
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ErrorKind::Interrupted.into()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(io::Error::new(
            error.kind(),
            format!("{error}; a file system without hard links can be no store"),
        )),
        Err(error) => Err(error),
    }
}

/// A finished and synced file under a name that nobody else has.
///
/// It reaches the disk piece by piece, so that a slow one is seen to go on.
fn write(root: &Path, bytes: &[u8], flow: Option<&Flow>) -> io::Result<PathBuf> {
    let incoming = root.join(INCOMING);
    match fs::create_dir(&incoming) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    loop {
        // Several machines may write into one share: the name is made of chance, and of none that exists.
        let chance = RandomState::new().hash_one(std::process::id());
        let path = incoming.join(format!("{chance:016x}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(mut file) => {
                let written = bytes.chunks(PIECE_BYTES).try_for_each(|piece| {
                    file.write_all(piece)?;
                    file.sync_data()?;
                    if let Some(flow) = flow {
                        flow.moved();
                    }
                    Ok(())
                });
                let written = written.and_then(|()| file.sync_all());
                if written.is_err() {
                    // On a full disk the leftover is what is in the way.
                    let _ = fs::remove_file(&path);
                }
                return written.map(|()| path);
            }
        }
    }
}

/// The folders of a name, each one's name synced in the one above it.
fn make_folders(root: &Path, name: &Name) -> io::Result<()> {
    let mut path = root.to_owned();
    let mut parts = name.as_str().split('/').peekable();
    while let Some(part) = parts.next()
        && parts.peek().is_some()
    {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => {}
            // A file in the place of a folder is told by what comes next.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !path.is_dir() {
                    let what = format!("{} is an object, no folder", path.display());
                    return Err(io::Error::new(ErrorKind::InvalidInput, what));
                }
                continue;
            }
            Err(error) => return Err(error),
        }
        sync(parent(&path))?;
    }
    Ok(())
}

/// Bytes of a file, told piece by piece.
fn read(file: &File, from: u64, to: u64, flow: Option<&Flow>) -> io::Result<Vec<u8>> {
    let all = (to - from) as usize;
    let mut bytes = Vec::with_capacity(all);
    let mut file = file;
    file.seek(SeekFrom::Start(from))?;
    while bytes.len() < all {
        let piece = (all - bytes.len()).min(PIECE_BYTES);
        if file.take(piece as u64).read_to_end(&mut bytes)? < piece {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if let Some(flow) = flow {
            flow.received(piece);
        }
    }
    Ok(bytes)
}

/// An object for reading, and its size.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = match fs::symlink_metadata(path) {
        // A pipe would hold who opens it.
        Ok(found) if found.is_file() => File::open(path)?,
        Ok(_) => return Err(ErrorKind::NotFound.into()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("an object's path lies below the root")
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what a crash left behind long ago.
fn sweep(incoming: &Path) -> io::Result<()> {
    let left = match fs::read_dir(incoming) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for one in left {
        let one = one?;
        let age = one.metadata().and_then(|about| about.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age >= LEFTOVER_AGE_MIN) {
            // Another device may sweep at the same time, or own it: it is only room.
            let _ = fs::remove_file(one.path());
        }
    }
    Ok(())
}

/// A walk in the order of names.
struct Listing<'a> {
    root: &'a Path,
    after: Option<&'a Name>,
    limit: usize,
    found: Vec<Entry>,
}

impl Listing<'_> {
    /// Adds what is below `prefix`, a text like that of a [`Prefix`].
    fn walk(&mut self, prefix: &str, depth: usize) -> io::Result<()> {
        let folder = match fs::read_dir(self.root.join(prefix)) {
            // Nothing was created below it; or it was removed while we walked.
            Err(error) if kind(&error) == Kind::Absent => return Ok(()),
            other => other?,
        };
        // With its slash, a folder stands where the names below it stand.
        let mut names = Vec::new();
        for one in folder {
            let one = one?;
            let file = one.file_type()?;
            let Some(name) = one.file_name().to_str().map(|part| format!("{prefix}{part}")) else { continue };
            if file.is_dir() && depth > 0 && Name::new(name.as_str()).is_ok() {
                names.push(name + "/");
            } else if file.is_file() && Name::new(name.as_str()).is_ok() {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            if self.found.len() >= self.limit {
                break;
            }
            let passed =
                |after: &&Name| name.as_str() <= after.as_str() && !after.as_str().starts_with(&name);
            if name.ends_with('/') {
                if self.after.is_none_or(|after| !passed(&after)) {
                    self.walk(&name, depth - 1)?;
                }
            } else if self.after.is_none_or(|after| name.as_str() > after.as_str()) {
                let size = match fs::symlink_metadata(self.root.join(&name)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    other => other?.len(),
                };
                let name = Name::new(name).expect("it was looked at above");
                self.found.push(Entry { name, size });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a good name")
    }

    async fn names(store: &Folder) -> Vec<String> {
        let found = store.list(&Prefix::all(), None, 100).await.expect("listed");
        found.into_iter().map(|entry| entry.name.to_string()).collect()
    }

    #[tokio::test]
    async fn what_is_no_object_is_left_alone() {
        let place = tempfile::tempdir().expect("a folder");
        let store = Folder::open(place.path()).await.expect("opened");
        store.create(&name("v/a"), "one".into()).await.expect("created");
        for odd in [".DS_Store", "Upper", "v/with space", "v/.nfs0001", "v/a~"] {
            fs::write(place.path().join(odd), "odd").expect("written");
        }
        fs::create_dir(place.path().join("Lost+Found")).expect("made");
        fs::write(place.path().join("Lost+Found/x"), "odd").expect("written");
        std::os::unix::fs::symlink("a", place.path().join("v/link")).expect("linked");
        assert_eq!(names(&store).await, ["v/a"]);
        let linked = store.get(&name("v/link"), 10).await.expect_err("a link is no object");
        assert_eq!(linked.kind(), Kind::Absent);
    }

    #[tokio::test]
    async fn leftovers_are_not_listed_and_are_swept_when_they_are_old() {
        let place = tempfile::tempdir().expect("a folder");
        let incoming = place.path().join(INCOMING);
        fs::create_dir(&incoming).expect("made");
        let (old, new) = (incoming.join("00"), incoming.join("01"));
        fs::write(&new, "half").expect("written");
        let file = File::create(&old).expect("made");
        let long_ago = std::time::SystemTime::now() - LEFTOVER_AGE_MIN - Duration::from_secs(1);
        file.set_modified(long_ago).expect("set");

        let store = Folder::open(place.path()).await.expect("opened");
        assert_eq!(names(&store).await, [""; 0]);
        assert!(!old.exists() && new.exists());

        store.create(&name("a"), "one".into()).await.expect("created");
        let again = store.create(&name("a"), "two".into()).await.expect_err("it is there");
        assert_eq!(again.kind(), Kind::Exists);
        assert_eq!(fs::read_dir(&incoming).expect("listed").count(), 1, "a create leaves nothing behind");
    }

    #[tokio::test]
    async fn a_share_that_is_not_mounted_is_no_empty_store() {
        let place = tempfile::tempdir().expect("a folder");
        let root = place.path().join("share");
        assert_eq!(Folder::open(&root).await.expect_err("not there").kind(), Kind::Unreachable);
        fs::create_dir(&root).expect("made");
        let store = Folder::open(&root).await.expect("opened");
        fs::remove_dir_all(&root).expect("unmounted");

        let id = name("v/id");
        let unreachable = |error: StoreError| assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        unreachable(store.create(&id, "x".into()).await.expect_err("create"));
        unreachable(store.get(&id, 10).await.expect_err("get"));
        unreachable(store.list(&Prefix::all(), None, 1).await.expect_err("list"));
        unreachable(store.remove(&id).await.expect_err("remove"));
        assert!(!root.exists());
    }

    #[tokio::test]
    async fn an_object_is_no_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let store = Folder::open(place.path()).await.expect("opened");
        store.create(&name("a"), "one".into()).await.expect("created");
        let below = store.create(&name("a/b"), "two".into()).await.expect_err("a is an object");
        assert_eq!(below.kind(), Kind::Refused, "{below}");
        assert_eq!(store.get(&name("a/b"), 10).await.expect_err("none").kind(), Kind::Absent);
    }
}
