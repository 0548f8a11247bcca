//! Reading from afar: a volume whose packs and manifests lie in a store, and not all of them here.
//!
//! A pack that is not here is read by *windows* of 64 KiB, which are kept in `windows/` beside the volume's other
//! folders; one whose windows are all here takes its place in `packs/`. Whoever reads a file waits for what he asked for,
//! a minute at most; what he will ask for next is fetched without anyone waiting, and the rest in the background.
//!
//! Invariants
//! - Nothing here is believed for what it says of files: frames are verified by whoever has the keys. What a crash
//!   tore is not even shown: a window counts only with the sum that was made of it when it came.
//! - What a pack holds is in `packs/` only after it was compared with the pack's name, and is durable.
//! - No request shows a store the length of a frame: ranges begin and end with windows, with the pack, or at a
//!   length that Padmé allows.
//! - A read ends within [`Limits::read`], whatever the store does, and the next one tries again. What is here is read
//!   without a look at the store.
//! - Memory is bounded: by how many requests go on at once, and what one may ask for.
//!
//! | part | what |
//! |---|---|
//! | `line` | the way to the store: requests with their deadlines, and how many at once |
//! | `windows` | one pack: what is here of it, and asking for the rest |
//! | `map` | the file that says which windows are here |
//! | `head` | which manifest is the newest, and manifests |
//! | `fill` | fetching everything, in the background |
//!
//! Reading is for threads, requests are for a runtime: a thread waits, tasks do not. Nothing here may be called
//! by a task of that runtime but what is `async`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fs_format::{PackId, VolumeId};
use fs_store::Store;
use parking_lot::Mutex;
use tokio::runtime::Handle;

mod fill;
mod head;
mod line;
mod map;
#[cfg(test)]
mod tests;
mod windows;

pub use fill::{Filled, Room};
pub use head::{Newest, NewestError};
use line::{HELD_BYTES_MAX, Line};
pub use windows::Windows;

/// Bytes of a window.
pub const WINDOW_BYTES: u64 = 64 << 10;
/// The most that one request asks for, in bytes.
pub const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// The folder of what is not whole.
pub const WINDOWS: &str = "windows";
/// Packs that are remembered before those that nobody uses are forgotten.
const KNOWN_MAX: usize = 1024;
/// Packs that were asked for last, of which what came is only in memory, and nobody may have opened them yet.
const AWAITED_MAX: usize = 64;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A read on behalf of a file, with all that is tried again.
    pub read: Duration,
    /// A store that has not answered yet: after so long, what cannot be reached is not tried again.
    pub first: Duration,
    /// One request, beside what its bytes take on the slowest line.
    pub request: Duration,
    /// Whether nobody waits any more for what the thread reads that calls it.
    pub is_given_up: fn() -> bool,
    /// Whether the disk of a volume's folder has room for what is read.
    pub has_room: fn(&Path) -> bool,
    /// Whether what is read stays in the volume's folder. For who copies a volume once and reads it no more, that would only
    /// take the room twice.
    pub is_kept: bool,
    /// The most that is held in memory of what is not kept, in bytes.
    pub held: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(60),
            first: Duration::from_secs(60),
            request: Duration::from_secs(10),
            is_given_up: || false,
            has_room: |_| true,
            is_kept: true,
            held: HELD_BYTES_MAX,
        }
    }
}

/// What a volume has in a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Far {
    line: Arc<Line>,
    packs: Arc<Mutex<HashMap<PackId, Weak<Windows>>>>,
    /// What was asked for last, where nothing is kept: with a pack that nobody uses goes what came of it.
    awaited: Arc<Mutex<VecDeque<Arc<Windows>>>>,
}

impl Far {
    /// What `volume`, whose folder on this machine is `folder`, has in `store`. Requests are made by `runtime`.
    pub fn new(
        store: Arc<dyn Store>,
        volume: VolumeId,
        folder: &Path,
        runtime: Handle,
        limits: Limits,
    ) -> io::Result<Self> {
        match std::fs::create_dir(folder.join(WINDOWS)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let line = Line::new(store, volume, folder.to_path_buf(), runtime, limits);
        Ok(Self { line: Arc::new(line), packs: Arc::default(), awaited: Arc::default() })
    }

    /// A pack, to be read by windows.
    pub fn pack(&self, id: &PackId) -> Arc<Windows> {
        let mut packs = self.packs.lock();
        if let Some(windows) = packs.get(id).and_then(Weak::upgrade) {
            return windows;
        }
        if packs.len() >= KNOWN_MAX {
            packs.retain(|_, windows| windows.strong_count() > 0);
        }
        let windows = Arc::new(Windows::open(self.line.clone(), *id));
        packs.insert(*id, Arc::downgrade(&windows));
        windows
    }

    /// Asks for a range of a pack that will be read soon; the pack is `bytes` long, where that is known. Waits for nothing.
    pub fn will_read(&self, id: &PackId, range: Range<u64>, bytes: Option<u64>) {
        let pack = self.pack(id);
        pack.will_read(range, bytes);
        if self.line.limits.is_kept {
            return;
        }
        let mut awaited = self.awaited.lock();
        if !awaited.iter().any(|one| Arc::ptr_eq(one, &pack)) {
            awaited.push_back(pack);
        }
        if awaited.len() > AWAITED_MAX {
            awaited.pop_front();
        }
    }

    /// Forgets a pack of which the file was removed: who opens it next asks the store.
    pub fn forget(&self, id: &PackId) {
        self.packs.lock().remove(id);
    }

    /// Removes what is here of a pack that is not whole, unless somebody reads it or another process does. Returns whether it
    /// is gone.
    pub fn drop_windows(&self, id: &PackId) -> io::Result<bool> {
        // Nobody opens it meanwhile.
        let packs = self.packs.lock();
        if packs.get(id).is_some_and(|windows| windows.strong_count() > 0) {
            return Ok(false);
        }
        map::remove(&self.line.folder, id)
    }
}
