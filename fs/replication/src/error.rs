//! What can go wrong between a folder and a store.

use fs_format::Seq;
use fs_store::{Kind, Name, StoreError};

use crate::attach::StoreId;
use crate::head::Link;
use crate::local::LocalError;

/// What happened, to what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A request of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something here could not be read.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The store said nothing for too long. Whether it was done is not known.
    #[error("{object}: the store did not answer within {seconds} s")]
    Silent {
        /// What was asked for.
        object: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What lies in the store is not what must lie there.
    #[error("{object} in the store is damaged: {why}")]
    Damaged {
        /// The object.
        object: Name,
        /// What is wrong with it.
        why: String,
    },
    /// A copy has another manifest in a slot than the volume, and nobody here has that one.
    #[error("{object} is not seal {seq} of this volume here")]
    Differs {
        /// The object.
        object: Name,
        /// Its seq.
        seq: Seq,
    },
    /// Seals are missing between those in the store and those that are here.
    #[error(
        "the store has seals up to {store}, here they begin with {first}: those between are missing; a store with another \
         prefix or folder begins anew"
    )]
    Gap {
        /// The newest slot.
        store: Seq,
        /// The oldest seal that is here.
        first: Seq,
    },
    /// The store has forgotten what it had.
    #[error(
        "the store was put back in time: seal {} was seen there, now its newest is {}",
        seen.seq, found.as_ref().map_or("none".into(), |link| link.seq.to_string())
    )]
    RolledBack {
        /// What was seen.
        seen: Link,
        /// What is there.
        found: Option<Link>,
    },
    /// Behind the URL lies another store than the one that was attached.
    #[error("this is store {found}, but the volume was attached to store {expected}; is the URL right?")]
    OtherStore {
        /// The one that was attached.
        expected: StoreId,
        /// The one that answers.
        found: StoreId,
    },
    /// Behind the URL lies a store that does not know the volume.
    #[error(
        "the store does not know this volume, which was attached to store {expected}; is the URL right, or was it emptied?"
    )]
    UnknownVolume {
        /// The one that was attached.
        expected: StoreId,
    },
}

impl Error {
    /// Whether the same may succeed later without anybody doing something.
    pub fn passes(&self) -> bool {
        match self {
            Error::Store(error) => error.kind().passes(),
            Error::Silent { .. } => true,
            Error::Local(error) => !error.is_lost,
            _ => false,
        }
    }

    /// Whether the store has lost what it had; if so, the newest seal that it has.
    pub fn lost(&self) -> Option<Option<Seq>> {
        match self {
            Error::RolledBack { found, .. } => Some(found.map(|link| link.seq)),
            Error::OtherStore { .. } | Error::UnknownVolume { .. } => Some(None),
            _ => None,
        }
    }

    /// Whether fewer requests at once would help.
    pub(crate) fn is_overload(&self) -> bool {
        match self {
            Error::Store(error) => error.kind() == Kind::Busy,
            Error::Silent { .. } => true,
            _ => false,
        }
    }
}
