//! A disk in memory that keeps apart what a program wrote and what a power cut leaves.
//!
//! Every call is one numbered I/O. A [`Fault`] makes a chosen one fail or cuts the power
//! there; [`SimDisk::record_images`] keeps the state before each I/O that changes anything,
//! so that one run shows every possible cut.
//!
//! Invariants
//! - A file's synced bytes survive a crash; of later writes any subset of 512-byte sectors
//!   survives, each in any of its unsynced states, and the length in any of its own.
//! - The names of a synced folder survive; of later changes of names any subset may have
//!   happened, each of them (a rename too) wholly or not at all. A file has at most one name.
//! - After a failed sync the bytes that it should have written are gone or there, by chance,
//!   and a later sync does not try again: that is what Linux does with dirty pages.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use fs_volume::env::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;

use crate::Dice;

mod crash;

/// What a disk writes at once, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// The kinds of I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IoKind {
    /// Opening a file that exists.
    Open,
    /// Creating a file.
    Create,
    /// Making a folder.
    CreateDir,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing a folder.
    List,
    /// Syncing a folder's names.
    SyncDir,
    /// Asking for free bytes.
    FreeBytes,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Asking for a length.
    Len,
    /// Setting a length.
    Allocate,
    /// Syncing a file's bytes.
    Sync,
}

impl IoKind {
    /// Whether it changes what a crash may leave.
    pub fn changes(self) -> bool {
        self.grows() || matches!(self, Self::Remove | Self::SyncDir | Self::Sync)
    }

    /// Whether a full disk may refuse it.
    pub fn grows(self) -> bool {
        matches!(self, Self::Create | Self::CreateDir | Self::Rename | Self::Write | Self::Allocate)
    }
}

/// One I/O that happened; two runs are the same when these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Io {
    /// Its number, from 1.
    pub number: u64,
    /// Its kind.
    pub kind: IoKind,
    /// The file or folder, by the name it was opened with.
    pub path: String,
    /// Offset in bytes, where there is one.
    pub offset: u64,
    /// Length in bytes, where there is one.
    pub len: u64,
    /// Hash of the bytes written.
    pub hash: Option<[u8; 32]>,
}

/// How a fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// `EIO`. A failing write may have written some of its sectors.
    DiskError,
    /// `ENOSPC`, for calls that a full disk may refuse, writing over allocated bytes among them: a disk that
    /// copies on write needs room even then. Others pass.
    NoSpace,
    /// The I/O is under way when the power goes; every later one fails.
    PowerCut,
}

/// A fault at a chosen I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The number of the I/O that it hits.
    pub at: u64,
    /// How it shows.
    pub kind: FaultKind,
    /// Whether it hits all later ones too.
    pub lasting: bool,
}

/// A disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// The state of a disk at one moment, to crash it there.
#[derive(Clone)]
pub struct Image {
    /// The I/O that would have come next.
    pub before: u64,
    /// Its kind, or `None` at the end of an operation.
    pub next: Option<IoKind>,
    state: State,
}

impl Image {
    /// The disk as a machine finds it that lost power at this moment.
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        SimDisk::from_state(self.state.crashed(seed))
    }
}

type FileId = u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    Folder,
    File(FileId),
}

/// A change of names, which happens wholly or not at all.
#[derive(Clone, Debug)]
struct NameChange {
    /// The I/O that made it.
    at: u64,
    /// What has the new name.
    what: Named,
    /// The name that goes.
    from: Option<String>,
    /// The name that comes.
    to: Option<String>,
}

impl NameChange {
    fn touches(&self, folder: &str) -> bool {
        [&self.from, &self.to].into_iter().flatten().any(|path| parent_of(path) == folder)
    }

    fn apply(&self, names: &mut BTreeMap<String, Named>) {
        // Journaling file systems commit creation and renames of one inode in order, so a crash never
        // shows a file under two names.
        if let (Named::File(_), Some(_)) = (self.what, &self.to) {
            names.retain(|_, named| *named != self.what);
        }
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.what)
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.what);
        }
    }
}

#[derive(Clone, Debug)]
enum ByteChange {
    Write { at: u64, offset: usize, bytes: Arc<[u8]> },
    Len { at: u64, len: usize },
}

impl ByteChange {
    fn at(&self) -> u64 {
        match self {
            Self::Write { at, .. } | Self::Len { at, .. } => *at,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: new, .. } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
            Self::Len { len, .. } => bytes.resize(*len, 0),
        }
    }
}

#[derive(Clone, Default)]
struct File {
    /// What a read sees.
    current: Arc<Vec<u8>>,
    /// What a crash leaves at least.
    durable: Arc<Vec<u8>>,
    /// The changes since the last sync, in order.
    unsynced: Vec<ByteChange>,
    /// A sync failed, so the cache shows bytes that no later sync writes.
    diverged: bool,
}

#[derive(Clone)]
struct State {
    files: BTreeMap<FileId, File>,
    names: BTreeMap<String, Named>,
    names_durable: BTreeMap<String, Named>,
    names_unsynced: Vec<NameChange>,
    file_next: FileId,
    io_last: u64,
    fault: Option<Fault>,
    off: bool,
    capacity: u64,
    dice: Dice,
    trace: Option<Vec<Io>>,
    images: Option<Vec<Image>>,
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn disk_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl SimDisk {
    /// An empty disk; the seed decides what a failing write leaves.
    pub fn seeded(seed: u64) -> Self {
        Self::from_state(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_unsynced: Vec::new(),
            file_next: 1,
            io_last: 0,
            fault: None,
            off: false,
            capacity: 1 << 40,
            dice: Dice::seeded(seed),
            trace: None,
            images: None,
        })
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk with the same bytes, names and unsynced changes.
    pub fn fork(&self) -> Self {
        Self::from_state(self.state.lock().plain())
    }

    /// The disk as a machine finds it that loses power now; this one stays as it is.
    pub fn after_crash(&self, seed: u64) -> Self {
        Self::from_state(self.state.lock().crashed(seed))
    }

    /// The state of now.
    pub fn image(&self) -> Image {
        let state = self.state.lock();
        Image { before: state.io_last + 1, next: None, state: state.plain() }
    }

    /// Sets or clears the fault to come.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// Whether no fault is set, and the power is on.
    pub fn is_well(&self) -> bool {
        let state = self.state.lock();
        state.fault.is_none() && !state.off
    }

    /// Sets the bytes that all files together may have.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// The bytes that all files together have.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used()
    }

    /// The number of the last I/O.
    pub fn io_last(&self) -> u64 {
        self.state.lock().io_last
    }

    /// Starts to keep each I/O.
    pub fn record_trace(&self) {
        self.state.lock().trace.get_or_insert_default();
    }

    /// Takes what was kept since the last time.
    pub fn take_trace(&self) -> Vec<Io> {
        self.state.lock().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Starts to keep the state before each I/O that changes something.
    pub fn record_images(&self) {
        self.state.lock().images.get_or_insert_default();
    }

    /// Takes what was kept since the last time.
    pub fn take_images(&self) -> Vec<Image> {
        self.state.lock().images.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All files with their lengths, by name.
    pub fn files(&self) -> Vec<(String, usize)> {
        let state = self.state.lock();
        state
            .names
            .iter()
            .filter_map(|(path, named)| match named {
                Named::File(id) => Some((path.clone(), state.files[id].current.len())),
                Named::Folder => None,
            })
            .collect()
    }

    /// Changes bytes behind everyone's back: in the cache and on the platter. Says whether there is such a
    /// file with a byte at `offset`.
    pub fn corrupt(&self, path: &str, offset: usize, change: impl Fn(u8) -> u8) -> bool {
        let mut state = self.state.lock();
        let Some(Named::File(id)) = state.names.get(path).copied() else { return false };
        let file = state.file(id);
        for bytes in [&mut file.current, &mut file.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(offset) {
                *byte = change(*byte);
            }
        }
        offset < file.current.len()
    }

    /// Cuts a file's end off, in the cache and on the platter.
    pub fn cut(&self, path: &str, len: usize) {
        let mut state = self.state.lock();
        let Some(Named::File(id)) = state.names.get(path).copied() else { return };
        let file = state.file(id);
        Arc::make_mut(&mut file.current).truncate(len);
        Arc::make_mut(&mut file.durable).truncate(len);
    }
}

/// What becomes of an I/O.
enum Fate {
    Passes,
    Fails(io::Error),
    /// It may have happened; then the power went.
    Dies,
}

impl State {
    /// The same without what only the recorder needs.
    fn plain(&self) -> Self {
        Self {
            files: self.files.clone(),
            names: self.names.clone(),
            names_durable: self.names_durable.clone(),
            names_unsynced: self.names_unsynced.clone(),
            dice: self.dice.clone(),
            trace: None,
            images: None,
            fault: None,
            ..*self
        }
    }

    fn file(&mut self, id: FileId) -> &mut File {
        // An unlinked file stays for its handles, so every id that was given out is there.
        self.files.entry(id).or_default()
    }

    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|named| match named {
            Named::File(id) => self.files.get(id),
            Named::Folder => None,
        });
        named.map(|file| file.current.len() as u64).sum()
    }

    /// Numbers an I/O, records it and decides whether it passes.
    fn begin(&mut self, kind: IoKind, path: &str, offset: u64, len: u64, bytes: Option<&[u8]>) -> Fate {
        if self.off {
            return Fate::Fails(disk_error());
        }
        if kind.changes() && self.images.is_some() {
            let image = Image { before: self.io_last + 1, next: Some(kind), state: self.plain() };
            self.images.get_or_insert_default().push(image);
        }
        self.io_last += 1;
        let number = self.io_last;
        if let Some(trace) = &mut self.trace {
            let hash = bytes.map(|bytes| *blake3::hash(bytes).as_bytes());
            trace.push(Io { number, kind, path: path.to_owned(), offset, len, hash });
        }
        match self.fault {
            Some(fault) if number == fault.at || (fault.lasting && number > fault.at) => match fault.kind {
                FaultKind::DiskError => Fate::Fails(disk_error()),
                FaultKind::NoSpace if kind.grows() => Fate::Fails(no_space()),
                FaultKind::NoSpace => Fate::Passes,
                FaultKind::PowerCut => {
                    self.off = true;
                    Fate::Dies
                }
            },
            _ => Fate::Passes,
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.names_unsynced.push(change);
    }

    fn sync_names(&mut self, folder: &str) {
        // What is known of an inode commits together: a rename into this folder carries the creation in
        // another one with it.
        let synced: BTreeSet<FileId> = self
            .names_unsynced
            .iter()
            .filter(|change| change.touches(folder))
            .filter_map(|change| match change.what {
                Named::File(id) => Some(id),
                Named::Folder => None,
            })
            .collect();
        let (done, left) = std::mem::take(&mut self.names_unsynced).into_iter().partition(|change| {
            change.touches(folder) || matches!(change.what, Named::File(id) if synced.contains(&id))
        });
        let done: Vec<NameChange> = done;
        self.names_unsynced = left;
        for change in &done {
            change.apply(&mut self.names_durable);
        }
    }

    fn has_folder(&self, path: &str) -> bool {
        path.is_empty() || self.names.get(path) == Some(&Named::Folder)
    }

    fn change_bytes(&mut self, id: FileId, change: ByteChange) {
        let file = self.file(id);
        change.apply(Arc::make_mut(&mut file.current));
        file.unsynced.push(change);
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let kind = if mode == OpenMode::CreateNew { IoKind::Create } else { IoKind::Open };
        let fate = state.begin(kind, path, 0, 0, None);
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let id = match (state.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Named::Folder), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Named::File(id)), _) => id,
            (None, OpenMode::CreateNew) => {
                if !state.has_folder(parent_of(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let id = state.file_next;
                state.file_next += 1;
                state.files.insert(id, File::default());
                let at = state.io_last;
                let what = Named::File(id);
                state.change_names(NameChange { at, what, from: None, to: Some(path.to_owned()) });
                id
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        if let Fate::Dies = fate {
            return Err(disk_error());
        }
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned(), writable }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::CreateDir, path, 0, 0, None);
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        match state.names.get(path) {
            Some(Named::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None if !state.has_folder(parent_of(path)) => return Err(io::ErrorKind::NotFound.into()),
            None => {
                let at = state.io_last;
                let (what, to) = (Named::Folder, Some(path.to_owned()));
                state.change_names(NameChange { at, what, from: None, to });
            }
            Some(Named::Folder) => {}
        }
        settle(fate)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::Rename, from, 0, 0, Some(to.as_bytes()));
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let Some(what @ Named::File(_)) = state.names.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if !state.has_folder(parent_of(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.get(to) == Some(&Named::Folder) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let at = state.io_last;
        let (from, to) = (Some(from.to_owned()), Some(to.to_owned()));
        state.change_names(NameChange { at, what, from, to });
        settle(fate)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::Remove, path, 0, 0, None);
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let Some(what @ Named::File(_)) = state.names.get(path).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let at = state.io_last;
        state.change_names(NameChange { at, what, from: Some(path.to_owned()), to: None });
        settle(fate)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::List, path, 0, 0, None);
        settle(fate)?;
        if !state.has_folder(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.names.keys().filter(|name| parent_of(name) == path);
        let mut names: Vec<String> = names
            .map(|name| name.rsplit_once('/').map_or(name.as_str(), |(_, last)| last).to_owned())
            .collect();
        // The trait promises no order, so nobody may rely on one: it changes with every call.
        let mut dice = state.dice.fork(state.io_last);
        for i in (1..names.len()).rev() {
            names.swap(i, dice.below(i as u64 + 1) as usize);
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::SyncDir, path, 0, 0, None);
        settle(fate)?;
        if !state.has_folder(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.sync_names(path);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        let fate = state.begin(IoKind::FreeBytes, "", 0, 0, None);
        settle(fate)?;
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

fn settle(fate: Fate) -> io::Result<()> {
    match fate {
        Fate::Passes => Ok(()),
        Fate::Fails(error) => Err(error),
        Fate::Dies => Err(disk_error()),
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
    path: String,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let fate = state.begin(IoKind::Read, &self.path, offset, buf.len() as u64, None);
        settle(fate)?;
        let bytes = &state.file(self.id).current;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buf.len()).and_then(|end| bytes.get(start..end));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        let mut fate = state.begin(IoKind::Write, &self.path, offset, bytes.len() as u64, Some(bytes));
        if state.off && matches!(fate, Fate::Fails(_)) {
            return settle(fate);
        }
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut taken = bytes.len();
        let len = state.file(self.id).current.len();
        let free = state.capacity.saturating_sub(state.used());
        let growth = (offset + bytes.len()).saturating_sub(len) as u64;
        if growth > free {
            fate = Fate::Fails(no_space());
        }
        if let Fate::Fails(error) = &fate {
            // A failing write leaves a part. On a full disk it can only lie where room was taken before.
            taken = state.dice.below(bytes.len() as u64 + 1) as usize;
            if taken < bytes.len() {
                // A sector is old or new, here as after a crash.
                taken = taken.saturating_sub((offset + taken) % SECTOR_BYTES);
            }
            if error.raw_os_error() == Some(28) {
                taken = taken.min(len.saturating_sub(offset));
            }
        }
        if taken > 0 {
            let at = state.io_last;
            state.change_bytes(self.id, ByteChange::Write { at, offset, bytes: bytes[..taken].into() });
        }
        settle(fate)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        let fate = state.begin(IoKind::Len, &self.path, 0, 0, None);
        settle(fate)?;
        Ok(state.file(self.id).current.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        let fate = state.begin(IoKind::Allocate, &self.path, 0, len, None);
        if let Fate::Fails(error) = fate {
            return Err(error);
        }
        let len_before = state.file(self.id).current.len() as u64;
        if len.saturating_sub(len_before) > state.capacity.saturating_sub(state.used()) {
            return Err(no_space());
        }
        let at = state.io_last;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        state.change_bytes(self.id, ByteChange::Len { at, len });
        settle(fate)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let fate = state.begin(IoKind::Sync, &self.path, 0, 0, None);
        match &fate {
            Fate::Passes => {
                let file = state.file(self.id);
                file.durable = crash::written(file, u64::MAX);
                file.unsynced.clear();
            }
            Fate::Fails(_) if !state.off => {
                let mut dice = state.dice.fork(state.io_last);
                let file = state.file(self.id);
                file.durable = Arc::new(crash::torn(file, &mut dice));
                file.unsynced.clear();
                file.diverged = true;
            }
            _ => {}
        }
        settle(fate)
    }

    fn sync_and_forget(&self) -> io::Result<()> {
        self.sync()?;
        let mut state = self.disk.state.lock();
        let file = state.file(self.id);
        file.current = file.durable.clone();
        file.diverged = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
