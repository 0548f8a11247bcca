//! What replication asks of the engine, and of whoever holds the keys.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use fs_format::{Epoch, PackId, Seq, Timestamp};

use crate::head::Slot;

/// The sealed part of a volume on this machine.
///
/// Reads of the disk block, so an implementation does them on threads that may.
#[async_trait]
pub trait Local: Debug + Send + Sync {
    /// Which seals are here.
    ///
    /// What was told once stays: until they are replicated, neither a manifest nor a pack of these goes.
    async fn held(&self) -> Result<Held, LocalError>;

    /// The manifest with this seq, byte for byte as it was sealed.
    async fn manifest(&self, seq: Seq) -> Result<Bytes, LocalError>;

    /// What the manifest with this seq adds to the one before, or with `is_whole` all packs that it names.
    async fn commit(&self, seq: Seq, is_whole: bool) -> Result<Commit, LocalError>;

    /// Whether this manifest, which is not the volume's, is kept here in a branch.
    async fn is_on_branch(&self, slot: &Slot) -> Result<bool, LocalError>;

    /// A pack, byte for byte. The implementation checks that its hash is its name.
    ///
    /// In a store a damaged pack would hold its name for ever.
    async fn pack(&self, pack: &PackId) -> Result<Bytes, LocalError>;

    /// Packs of the seal that is being made, as far as they may be sent; nothing where there are none.
    fn early(&self) -> Option<Early>;

    /// One of these, byte for byte and checked; nothing where the seal has given it up.
    async fn early_pack(&self, pack: &PackId) -> Option<Bytes>;
}

/// A run of seals without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The oldest from which on all are here.
    pub first: Seq,
    /// The newest that is sealed.
    pub last: Seq,
}

/// A seal, as far as replication cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// When it was sealed, by the clock of who did.
    pub sealed: Timestamp,
    /// Each pack that was asked for, and how many bytes it has.
    pub packs: Vec<(PackId, u64)>,
}

/// What there is of a seal before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    /// The seq that it will have, if it comes to be.
    pub seq: Seq,
    /// Its packs so far, and how many bytes each has.
    pub packs: Vec<(PackId, u64)>,
}

/// Something here could not be read: what, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct LocalError {
    /// The file.
    pub what: String,
    /// What happened to it.
    pub why: String,
    /// Whether no place has it, so that trying again does not help before somebody does something.
    pub is_lost: bool,
}

impl LocalError {
    /// Something that may be read another time.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), is_lost: false }
    }
}

/// Signs for a volume. Keys live elsewhere.
pub trait Signer: Send + Sync {
    /// The claim of an epoch by this device with a fresh nonce ([`fs_format::claim::Claim`]).
    fn claim(&self, epoch: Epoch) -> Result<Bytes, LocalError>;

    /// A manifest of this epoch that follows `head`: the same tree, the next seq, `head` its parent.
    fn manifest(&self, epoch: Epoch, head: &Slot) -> Result<Bytes, LocalError>;

    /// The boundary at this seq ([`fs_format::claim::Boundary`]).
    fn boundary(&self, epoch: Epoch, seq: Seq) -> Result<Bytes, LocalError>;
}
