//! Room that others can give: what stores have, too, need not stay on this disk, and what waits for stores is bounded.
//!
//! The engine knows neither stores nor when to ask them. Whoever does is its [`Housekeeper`].
//!
//! Invariants
//! - Only data that are written are held up by what waits for stores, never what removes, truncates or renames.
//! - A pack is evicted only by whoever knows that a store has it. It stays in the table, and is read from there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fs_format::ledger::PackFate;
use fs_format::pack::{PACK_HEADER_BYTES, PackHeader, PackKind};
use fs_format::{PackId, PackNumber, Seq};

use crate::env::OpenMode;
use crate::store::{disk_error, pack_path, read_error};
use crate::volume::Volume;
use crate::{FsError, ledger};

/// Who can make room on the disk.
pub trait Housekeeper: Send + Sync {
    /// Makes room for so many bytes, or waits a moment while there is hope for it. Returns whether it is worth to try again.
    fn find_room(&self, bytes: u64) -> bool;
    /// Whether there is hope, as far as that is known without waiting.
    fn is_hopeful(&self) -> bool;
}

/// What waits for stores, and who makes room.
pub(crate) struct Waiting {
    housekeeper: OnceLock<Arc<dyn Housekeeper>>,
    /// Bytes of seals that a store lacks.
    sealed: AtomicU64,
    /// The most that may wait, with what is not sealed; `u64::MAX` where nothing bounds it.
    most: AtomicU64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { housekeeper: OnceLock::new(), sealed: AtomicU64::new(0), most: AtomicU64::new(u64::MAX) }
    }
}

impl Waiting {
    /// A seal of so many bytes was made.
    pub(crate) fn note_seal(&self, bytes: u64) {
        self.sealed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How much waits, if `written` is not sealed, and the most that may; nothing where that is not bounded.
    pub(crate) fn of(&self, written: u64) -> Option<(u64, u64)> {
        let most = self.most.load(Ordering::Relaxed);
        (most < u64::MAX).then(|| (self.sealed.load(Ordering::Relaxed).saturating_add(written), most))
    }

    /// Whether so much that is not sealed should be, so that it can be sent.
    pub(crate) fn wants_seal(&self, written: u64) -> bool {
        written > self.most.load(Ordering::Relaxed) / 4
    }
}

impl Volume {
    /// Says who makes room from now on; the first one stays.
    pub fn set_housekeeper(&self, housekeeper: Arc<dyn Housekeeper>) {
        if self.waiting.housekeeper.set(housekeeper).is_err() {
            tracing::error!(volume = %self.id(), "somebody makes room already");
        }
    }

    /// Says how many bytes of seals stores lack, and how many may wait in all, with what is not sealed.
    pub fn bound_waiting(&self, sealed: u64, most: Option<u64>) {
        self.waiting.sealed.store(sealed, Ordering::Relaxed);
        self.waiting.most.store(most.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What waits for stores and the most that may, in bytes; nothing where that is not bounded.
    pub fn waiting(&self) -> Option<(u64, u64)> {
        // Most volumes have no bound, and each write asks.
        self.waiting.of(0)?;
        self.waiting.of(self.written_bytes())
    }

    /// Whether more waits for stores than may.
    pub(crate) fn is_over_bound(&self) -> bool {
        self.waiting().is_some_and(|(waiting, most)| waiting >= most)
    }

    /// After [`FsError::NoSpace`]: makes room for so many bytes, or waits a moment for it. Returns whether it is worth to try
    /// again; where nobody makes room, and for a quota, it is not.
    pub fn find_room(&self, bytes: u64) -> bool {
        !self.is_over_quota(bytes)
            && self.waiting.housekeeper.get().is_some_and(|keeper| keeper.find_room(bytes))
    }

    /// Whether [`Self::find_room`] may find some, as far as that is known without waiting.
    pub fn hopes_for_room(&self) -> bool {
        !self.is_over_quota(0) && self.waiting.housekeeper.get().is_some_and(|keeper| keeper.is_hopeful())
    }

    /// The packs that every place has in which the seal `replicated` counts, and that are needed; with their bytes.
    pub fn evictable(&self, replicated: Seq) -> Result<HashMap<PackId, u64>, FsError> {
        let fates = ledger::fates(&self.store, &self.root())?;
        let mut packs = HashMap::new();
        for number in (0..self.store.pack_count()).map(PackNumber) {
            let entry = self.store.pack_entry(number)?;
            // What is given up goes by another way, from everywhere.
            let is_needed = !matches!(fates.get(&number), Some(PackFate::Doomed { .. } | PackFate::Gone));
            if is_needed && entry.birth <= replicated {
                packs.insert(entry.object, u64::from(entry.bytes));
            }
        }
        Ok(packs)
    }

    /// Whether a pack on this disk holds nodes, which are read before anything else is.
    pub fn holds_nodes(&self, pack: &PackId) -> Result<bool, FsError> {
        let path = pack_path(pack);
        let fail = |error: std::io::Error| read_error(&path, &error);
        let file = self.env.disk.open(&path, OpenMode::Read).map_err(fail)?;
        let mut header = [0; PACK_HEADER_BYTES];
        file.read_at(&mut header, 0).map_err(fail)?;
        // One that is damaged is for `comb check` to find: it stays as if it was the most needed.
        Ok(PackHeader::decode(&header).map_or(true, |header| header.kind == PackKind::Meta))
    }

    /// Removes a pack from this disk that is read from elsewhere from now on.
    pub fn evict(&self, pack: &PackId) -> Result<(), FsError> {
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        let path = pack_path(pack);
        self.env.disk.remove(&path).map_err(|error| disk_error(&path, &error))?;
        // Its room comes back when nobody has the file open.
        self.store.close_pack(pack);
        Ok(())
    }
}
