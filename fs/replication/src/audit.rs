//! Looking at all that a store holds of a volume, and putting back what it lost: section 12 of the document.
//!
//! Invariants
//! - A listing says what there is and how long; what it holds is believed only after it was read.
//! - Of all that lies in a store only a pack is ever replaced: its name says what it must be, so nobody's statement is
//!   lost with it. Slots, claims and boundaries are read, and never removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use fs_format::{Epoch, PackId, Seq};
use fs_store::{Entry, Name, Prefix};

use crate::commit::Committed;
use crate::error::Error;
use crate::head::Slot;
use crate::names::Fencing;
use crate::remote::Remote;

/// Names that one listing asks for.
const PAGE: usize = 1000;

/// What a store lists of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Slots, the oldest first.
    pub slots: Vec<Seq>,
    /// Claimed epochs.
    pub claims: Vec<Epoch>,
    /// Boundaries.
    pub boundaries: Vec<Seq>,
    /// Packs and their lengths.
    pub packs: BTreeMap<PackId, u64>,
}

impl Remote {
    /// What the store lists of the volume; packs only if they are asked for, since there may be many.
    pub async fn inventory(&self, with_packs: bool) -> Result<Inventory, Error> {
        let mut found = Inventory::default();
        self.each(self.names.slots(), |entry| found.slots.extend(self.names.read_slot(&entry.name))).await?;
        found.slots.reverse();
        self.each(self.names.fencing(), |entry| match self.names.read_fencing(&entry.name) {
            Some(Fencing::Claim(epoch)) => found.claims.push(epoch),
            Some(Fencing::Boundary(seq)) => found.boundaries.push(seq),
            None => {}
        })
        .await?;
        if with_packs {
            let packs = &mut found.packs;
            self.each(self.names.packs(), |entry| {
                packs.extend(self.names.read_pack(&entry.name).map(|pack| (pack, entry.size)));
            })
            .await?;
        }
        Ok(found)
    }

    /// Visits what is listed below a prefix, in ascending order.
    async fn each(&self, prefix: Prefix, mut take: impl FnMut(&Entry)) -> Result<(), Error> {
        let mut after: Option<Name> = None;
        loop {
            let page = self.store.list(&prefix, after.as_ref(), PAGE);
            let page = self.within(0, prefix.as_str(), page).await?;
            page.iter().for_each(&mut take);
            match page.last() {
                Some(last) if page.len() >= PAGE && after.as_ref() < Some(&last.name) => {
                    after = Some(last.name.clone());
                }
                // A store that lists the same again would be asked for ever.
                _ => return Ok(()),
            }
        }
    }

    /// The length of a pack, as the store lists it; none if it does not have it.
    pub async fn pack_bytes(&self, pack: &PackId) -> Result<Option<u64>, Error> {
        let (name, prefix) = (self.names.pack(pack), self.names.packs());
        let before = self.names.before_pack(pack);
        let listed = self.within(0, &name, self.store.list(&prefix, before.as_ref(), 1)).await?;
        Ok(listed.into_iter().find(|entry| entry.name == name).map(|entry| entry.size))
    }

    /// A pack of so many bytes, compared with its name.
    pub async fn pack(&self, pack: &PackId, bytes: u64) -> Result<Bytes, Error> {
        let name = self.names.pack(pack);
        let object = self.within(bytes, &name, self.store.get(&name, bytes)).await?;
        match blake3::hash(&object).as_bytes() == &pack.0 {
            true => Ok(object),
            false => Err(Error::Damaged { object: name, why: "it is not what its name says".into() }),
        }
    }

    /// Puts a whole pack where a damaged one lies, or none.
    ///
    /// Nothing can be overwritten, so for a moment there is none: whoever calls this has the bytes from a place that
    /// keeps them.
    pub async fn mend_pack(&self, pack: &PackId, object: Bytes) -> Result<(), Error> {
        let name = self.names.pack(pack);
        if blake3::hash(&object).as_bytes() != &pack.0 {
            return Err(Error::Damaged {
                object: name,
                why: "what was to take its place is another pack".into(),
            });
        }
        self.within(0, &name, self.store.remove(&name)).await?;
        self.create_or_trust(&name, object).await
    }

    /// Creates a slot again that a copy has lost. One that holds something else stays as it is, and is an error.
    pub async fn mend_slot(&self, slot: &Slot) -> Result<(), Error> {
        let committed = self.copy(slot).await?;
        assert_eq!(committed, Committed::Counts, "a copy decides nothing");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fs_format::VolumeId;
    use fs_store::{Memory, Store};

    use super::*;

    fn pack(bytes: &[u8]) -> PackId {
        PackId(*blake3::hash(bytes).as_bytes())
    }

    #[tokio::test]
    async fn all_that_is_there_is_listed_however_much_it_is() {
        let memory = Memory::default();
        let remote = Remote::new(Arc::new(memory.clone()), VolumeId([1; 32]));
        let names = remote.names();
        for seq in 1..=2 * PAGE as u64 + 1 {
            memory.create(&names.slot(Seq(seq)), Bytes::new()).await.expect("created");
        }
        for name in [names.claim(Epoch(2)), names.boundary(Seq(7)), names.pack(&pack(b"p")), names.id()] {
            memory.create(&name, Bytes::from_static(b"abc")).await.expect("created");
        }
        let stranger = Remote::new(Arc::new(memory.clone()), VolumeId([2; 32]));
        memory.create(&stranger.names().slot(Seq(9)), Bytes::new()).await.expect("created");

        let found = remote.inventory(true).await.expect("listed");
        assert_eq!(found.slots, (1..=2 * PAGE as u64 + 1).map(Seq).collect::<Vec<_>>());
        assert_eq!((found.claims, found.boundaries), (vec![Epoch(2)], vec![Seq(7)]));
        assert_eq!(found.packs, BTreeMap::from([(pack(b"p"), 3)]));
        assert!(remote.inventory(false).await.expect("listed").packs.is_empty());
    }

    #[tokio::test]
    async fn a_damaged_pack_is_told_and_mended_with_what_its_name_says_alone() {
        let memory = Memory::default();
        let remote = Remote::new(Arc::new(memory.clone()), VolumeId([1; 32]));
        let (id, whole) = (pack(b"whole"), Bytes::from_static(b"whole"));
        memory.create(&remote.names().pack(&id), Bytes::from_static(b"whale")).await.expect("created");
        let error = remote.pack(&id, 5).await.expect_err("damaged");
        assert!(error.to_string().contains("not what its name says"), "{error}");

        remote.mend_pack(&id, Bytes::from_static(b"wrong")).await.expect_err("another pack");
        remote.pack(&id, 5).await.expect_err("still damaged: what was there was not removed");
        assert_eq!(remote.inventory(true).await.expect("listed").packs.len(), 1);
        remote.mend_pack(&id, whole.clone()).await.expect("mended");
        assert_eq!(remote.pack(&id, 5).await, Ok(whole.clone()));
        remote.mend_pack(&id, whole.clone()).await.expect("the same again");
        assert_eq!(remote.pack(&id, 5).await, Ok(whole));
    }
}
