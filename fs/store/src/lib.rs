//! Stores: where a volume's objects lie when they are not here.
//!
//! `fs/docs/replication.md` says what a store must offer (section 2) and what it is asked for. A store
//! holds opaque objects; this crate sees no key and knows no format, so it can neither read nor check
//! what it moves: whoever asks checks what comes back.
//!
//! Invariants
//! - An object is created once, whole, and never changed. Nothing here overwrites.
//! - A request that failed may have been done, unless its error says *exists*, *absent*, *denied* or
//!   *refused*: then nothing was changed.
//! - What a store sends is bounded by what was asked for before it is kept in memory.
//! - Dropping a future gives a request up; the store may still do it.
//!
//! | part | what |
//! |---|---|
//! | `name`, `error` | what objects are called; what can go wrong, by what there is to do about it |
//! | `memory`, `folder`, `bucket`, `webdav`, `ipfs` | the kinds |
//! | `url`, `open` | how a person names a store, and from there to a store |
//! | `surroundings`, `aws`, `netrc` | credentials: where they lie outside of a URL |
//! | `anew` | credentials that change while a store is used |
//! | `http`, `tls` | the one client of all kinds behind a network |
//! | `patient`, `flow` | deadlines, retries, pace, and what is known of a store at work |
//! | `probe` | whether a store at hand keeps what its kind promises |
//! | `faulty` | a store that fails on purpose |
//! | `conformance` | one suite that all kinds pass (a feature) |

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

mod anew;
mod aws;
mod bucket;
mod chance;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod faulty;
mod flow;
mod folder;
mod http;
mod ipfs;
mod later;
mod memory;
mod name;
mod netrc;
mod open;
mod patient;
mod probe;
mod surroundings;
mod tls;
mod url;
mod webdav;

pub use error::{Kind, StoreError};
pub use faulty::{Faults, Faulty};
pub use folder::Folder;
pub use ipfs::HeadKey;
pub use later::Later;
pub use memory::Memory;
pub use name::{BadName, NAME_BYTES_MAX, Name, PART_BYTES_MAX, Prefix};
pub use open::open;
pub use patient::{AT_ONCE_MAX, Patience, Patient, READ_TIME_MAX, Requests, SILENCE_MAX, Status};
pub use probe::{Probe, Unfit, probe};
pub use surroundings::{STORE_CREDENTIALS, ShutOut, Surroundings};
pub use url::{BadUrl, Url};

/// The contract with a store.
///
/// Each call is one attempt, which may last as long as it likes; deadlines and retries are laid around it.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync {
    /// What this kind of store can do.
    fn abilities(&self) -> Abilities;

    /// Makes an object, whole, if there is none of that name; else answers *exists* and changes nothing.
    ///
    /// Of several at once exactly one wins, where [`Abilities::create_if_absent`] says so. Once this was
    /// answered, the object outlives a crash of the store and is listed.
    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError>;

    /// All bytes of an object, of which there may be `limit` at most; more are *damaged*.
    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError>;

    /// Exactly these bytes of an object; *damaged* if it is too short for them.
    ///
    /// A range that is empty or ends before it begins is *refused*.
    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Objects below `prefix`, in ascending order of their names' bytes, from the first after `after` on.
    ///
    /// Fewer than `limit` mean that these were all. What is no [`Name`] is left out: somebody else's.
    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Removes an object; no error if there is none.
    async fn remove(&self, name: &Name) -> Result<(), StoreError>;
}

/// What a kind of store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Of several creates of one name at once exactly one wins. Without it, a store can hold copies only.
    ///
    /// This is what the kind promises; whether the store at hand keeps it, the probe tells.
    pub create_if_absent: bool,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is called.
    pub name: Name,
    /// How many bytes it has, as the store says.
    pub size: u64,
}

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn abilities(&self) -> Abilities {
        (**self).abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        (**self).create(name, bytes).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        (**self).get(name, limit).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        (**self).get_range(name, range).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        (**self).list(prefix, after, limit).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        (**self).remove(name).await
    }
}
