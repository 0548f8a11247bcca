//! Knowing a store again: a volume is attached to a store, not to a URL.

use std::fmt;

use bytes::Bytes;
use fs_store::{Kind, Unfit, probe};

use crate::error::Error;
use crate::remote::{Created, Remote};

/// Which store a store is for one volume: what its object `id` holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; StoreId::BYTES]);

impl StoreId {
    /// Bytes of the object.
    pub const BYTES: usize = 16;
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What attaching a store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Which store it is.
    pub id: StoreId,
    /// Why it cannot be the arbiter; nothing if it can.
    pub unfit: Option<Unfit>,
}

impl Remote {
    /// Probes a store and gives it an id for this volume, or takes the one that it has.
    ///
    /// `fresh` must be random: it is the id of a store that has none yet, and its first half names the place of
    /// the probe.
    pub async fn attach(&self, fresh: StoreId) -> Result<Attached, Error> {
        let (chance, _) = fresh.0.split_first_chunk().expect("an id is longer than a number");
        let probed = probe(self.store.clone(), u64::from_le_bytes(*chance));
        // The probe asks for some 100 small objects in a row; a store that needs minutes for them is none.
        let probed = self.within(4 << 20, "probe/", probed).await?;
        Ok(Attached { id: self.own_id(fresh).await?, unfit: probed.unfit })
    }

    /// Makes sure that this is the store that the volume was attached to; one small request.
    pub async fn recognise(&self, expected: StoreId) -> Result<(), Error> {
        match self.id().await? {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(Error::OtherStore { expected, found }),
            None => Err(Error::UnknownVolume { expected }),
        }
    }

    /// Which store this is for the volume; none if nobody attached it.
    ///
    /// Nothing in the object says whether it came whole, so it is read until two answers agree.
    pub async fn id(&self) -> Result<Option<StoreId>, Error> {
        let Some(mut last) = self.read_id().await? else { return Ok(None) };
        for _ in 0..3 {
            let Some(again) = self.read_id().await? else { return Ok(None) };
            if again == last {
                return Ok(Some(StoreId(again)));
            }
            last = again;
        }
        Err(Error::Damaged { object: self.names.id(), why: "it is read differently each time".into() })
    }

    async fn read_id(&self) -> Result<Option<[u8; StoreId::BYTES]>, Error> {
        let name = self.names.id();
        let bytes = match self.get(&name, StoreId::BYTES).await {
            Ok(bytes) => bytes,
            Err(Error::Store(error)) if error.kind() == Kind::Absent => return Ok(None),
            Err(error) => return Err(error),
        };
        let id = <[u8; StoreId::BYTES]>::try_from(&bytes[..]);
        let short = |_| Error::Damaged { object: name, why: format!("it has {} bytes", bytes.len()) };
        id.map(Some).map_err(short)
    }

    async fn own_id(&self, fresh: StoreId) -> Result<StoreId, Error> {
        let object = Bytes::copy_from_slice(&fresh.0);
        match self.create_or_read(&self.names.id(), object, StoreId::BYTES).await? {
            Created::Same => Ok(fresh),
            // Somebody attached it before.
            Created::Other(_) => self.id().await?.ok_or(Error::UnknownVolume { expected: fresh }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fs_format::VolumeId;
    use fs_store::{Faults, Faulty, Memory, Prefix, Store};

    use super::*;

    fn remote(store: impl Store + 'static) -> Remote {
        Remote::new(Arc::new(store), VolumeId([1; 32]))
    }

    #[tokio::test]
    async fn a_store_is_known_again() {
        let memory = Memory::default();
        let here = remote(memory.clone());
        assert_eq!(here.id().await, Ok(None));
        let first = here.attach(StoreId([1; 16])).await.expect("attached");
        assert_eq!(first, Attached { id: StoreId([1; 16]), unfit: None });
        let again = here.attach(StoreId([2; 16])).await.expect("attached");
        assert_eq!(again.id, first.id, "whoever comes second takes the id that is there");
        assert_eq!(here.recognise(first.id).await, Ok(()));
        let left = memory.list(&Prefix::all(), None, 10).await.expect("listed");
        assert_eq!(left.len(), 1, "the probe leaves nothing");
    }

    #[tokio::test]
    async fn another_store_is_refused_with_both_shown() {
        let (expected, found) = (StoreId([1; 16]), StoreId([2; 16]));
        let there = remote(Memory::default());
        assert_eq!(there.recognise(expected).await, Err(Error::UnknownVolume { expected }));
        there.attach(found).await.expect("attached");
        let error = there.recognise(expected).await.expect_err("another");
        assert_eq!(error, Error::OtherStore { expected, found });
        let text = error.to_string();
        assert!(text.contains(&expected.to_string()) && text.contains(&found.to_string()), "{text}");
    }

    #[tokio::test]
    async fn a_flipped_id_is_not_taken_for_another_store() {
        let inside = Memory::default();
        let id = remote(inside.clone()).attach(StoreId([1; 16])).await.expect("attached").id;
        let faulty = Arc::new(Faulty::new(inside, 3));
        faulty.set(Faults { flipped: 300, ..Faults::default() });
        let here = remote(faulty);
        for _ in 0..200 {
            match here.recognise(id).await {
                Ok(()) | Err(Error::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
