//! What a store says is newest, and whether that follows what was seen there before.

use bytes::Bytes;
use fs_format::claim::Claim;
use fs_format::manifest::{manifest_id, open_manifest};
use fs_format::{DeviceId, Epoch, ManifestId, Seq, VolumeId};

use crate::error::Error;
use crate::remote::Remote;
use crate::rules::remembered;

/// A manifest that was read and checked, in the clear as far as anyone can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Its hash.
    pub id: ManifestId,
    /// The manifest that it follows.
    pub parent: ManifestId,
    /// The machine that wrote it.
    pub device: DeviceId,
    /// The object.
    pub bytes: Bytes,
}

impl Slot {
    /// Checks a manifest and that it belongs in the slot of this seq; else says why not.
    pub fn open(volume: &VolumeId, seq: Seq, bytes: Bytes) -> Result<Slot, String> {
        let open = |object: &[u8]| open_manifest(object).map(|(header, _, _)| header);
        let header = remembered(&bytes, open).map_err(|error| error.to_string())?;
        if header.volume != *volume {
            return Err(format!("it is of volume {}", header.volume));
        }
        if header.seq != seq {
            return Err(format!("it is seal {}", header.seq));
        }
        let id = manifest_id(&bytes);
        Ok(Slot { epoch: header.epoch, seq, id, parent: header.parent, device: header.device, bytes })
    }

    /// Which it is.
    pub fn link(&self) -> Link {
        Link { epoch: self.epoch, seq: self.seq, id: self.id }
    }
}

/// Which manifest of a volume: what a device keeps of the highest that it has seen (`seen`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// Its hash.
    pub id: ManifestId,
}

/// What a store says is newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The newest manifest; none if nothing was ever committed.
    pub newest: Option<Slot>,
    /// The greatest claim.
    pub claim: Option<Claim>,
}

impl Head {
    /// The greatest epoch that a manifest or a claim has.
    pub fn epoch(&self) -> Epoch {
        let slot = self.newest.as_ref().map(|slot| slot.epoch);
        slot.max(self.claim.map(|claim| claim.epoch)).unwrap_or_default()
    }
}

impl Remote {
    /// The newest manifest and the greatest claim.
    pub async fn head(&self) -> Result<Head, Error> {
        let newest = async {
            match self.slots(None, 1).await?.first() {
                Some(&seq) => self.slot(seq).await.map(Some),
                None => Ok(None),
            }
        };
        let claim = async {
            match self.listed().await?.claim {
                Some(epoch) => self.claim_of(epoch).await.map(Some),
                None => Ok(None),
            }
        };
        let (newest, claim) = tokio::try_join!(newest, claim)?;
        Ok(Head { newest, claim })
    }

    /// What the store says is newest, and whether that follows what this device has seen there. `own` knows the manifests
    /// that this device has.
    ///
    /// Slots are never written twice and have no holes above the boundary, so one that holds what was seen says that all
    /// above it follows.
    pub async fn judged(
        &self,
        seen: Option<&Link>,
        own: &(dyn Fn(Seq) -> Option<ManifestId> + Sync),
    ) -> Result<(Head, Verdict), Error> {
        let head = self.head().await?;
        let Some(seen) = seen else { return Ok((head, Verdict::Accepted)) };
        let refused = Verdict::Refused { seen: *seen, head: head.newest.as_ref().map(Slot::link) };
        let verdict = match &head.newest {
            Some(newest) if newest.link() == *seen => Verdict::Accepted,
            Some(newest) if newest.seq > seen.seq && newest.epoch >= seen.epoch => {
                match self.link_at(seen.seq).await? {
                    Some(link) if link.id == seen.id => Verdict::Accepted,
                    // What was seen is no longer kept, and was committed.
                    None if self.listed().await?.boundary >= Some(seen.seq) => Verdict::Accepted,
                    _ => self.taken_over_before(seen, newest, own).await?.unwrap_or(refused),
                }
            }
            Some(newest) => self.taken_over_before(seen, newest, own).await?.unwrap_or(refused),
            None => refused,
        };
        Ok((head, verdict))
    }

    async fn link_at(&self, seq: Seq) -> Result<Option<Link>, Error> {
        match self.slot(seq).await {
            Ok(slot) => Ok(Some(slot.link())),
            Err(Error::Store(error)) if error.kind() == fs_store::Kind::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether another device took the volume over from before what was seen, which the store must have forgotten then.
    async fn taken_over_before(
        &self,
        seen: &Link,
        newest: &Slot,
        own: &(dyn Fn(Seq) -> Option<ManifestId> + Sync),
    ) -> Result<Option<Verdict>, Error> {
        if newest.epoch <= seen.epoch {
            return Ok(None);
        }
        let mut below = Some(seen.seq);
        while below.is_some() {
            let page = self.slots(below, ANCESTORS_PAGE).await?;
            for &seq in &page {
                if let Some(own) = own(seq)
                    && self.link_at(seq).await?.is_some_and(|link| link.id == own)
                {
                    return Ok(Some(Verdict::Takeover { cut: Seq(seq.0 + 1) }));
                }
            }
            below = page.last().copied().filter(|_| page.len() == ANCESTORS_PAGE);
        }
        Ok(None)
    }
}

/// Slots that are asked for at once where a common ancestor is looked for.
const ANCESTORS_PAGE: usize = 100;

/// Whether a head follows what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was seen, or descends from it.
    Accepted,
    /// Another device took the volume over from before what was seen: that becomes a branch.
    Takeover {
        /// The first seq that is the other device's.
        cut: Seq,
    },
    /// An old or a forged state: nothing is written until a person accepts it.
    Refused {
        /// What was seen.
        seen: Link,
        /// What the store shows; none if it shows nothing.
        head: Option<Link>,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use fs_store::{Memory, Store};

    use super::*;
    use crate::tests::world::{boundary, manifest, volume};

    /// Slots by seq: of this epoch, with this salt.
    type Slots = BTreeMap<u64, (u64, u8)>;

    fn chain(parts: &[(u64, std::ops::RangeInclusive<u64>, u8)]) -> Slots {
        let slots =
            parts.iter().flat_map(|(epoch, seqs, salt)| seqs.clone().map(|seq| (seq, (*epoch, *salt))));
        slots.collect()
    }

    fn slot(slots: &Slots, seq: u64) -> Option<Slot> {
        let (epoch, salt) = slots.get(&seq)?;
        let bytes = manifest(*epoch, seq, ManifestId([0; 32]), *salt);
        Some(Slot::open(&volume(), Seq(seq), bytes).expect("a manifest"))
    }

    /// What is said of a store with `there` by a device that has `here`, of which it saw all.
    async fn judged(here: &Slots, there: &Slots, collected: Option<u64>) -> Verdict {
        let store = Memory::default();
        let remote = Remote::new(Arc::new(store.clone()), volume());
        for &seq in there.keys() {
            let slot = slot(there, seq).expect("it is there");
            store.create(&remote.names().slot(Seq(seq)), slot.bytes).await.expect("created");
        }
        if let Some(seq) = collected {
            let object = boundary(Epoch(1), Seq(seq));
            store.create(&remote.names().boundary(Seq(seq)), object).await.expect("created");
        }
        let seen = here.last_key_value().and_then(|(seq, _)| slot(here, *seq)).map(|slot| slot.link());
        let own = |seq: Seq| slot(here, seq.0).map(|slot| slot.id);
        remote.judged(seen.as_ref(), &own).await.expect("judged").1
    }

    #[tokio::test]
    async fn a_head_that_goes_on_is_accepted() {
        let seen = chain(&[(1, 1..=5, 0)]);
        assert_eq!(judged(&Slots::new(), &seen, None).await, Verdict::Accepted, "nothing was seen yet");
        assert_eq!(judged(&Slots::new(), &Slots::new(), None).await, Verdict::Accepted);
        assert_eq!(judged(&seen, &seen, None).await, Verdict::Accepted);
        assert_eq!(judged(&seen, &chain(&[(1, 1..=9, 0)]), None).await, Verdict::Accepted);
        let after = chain(&[(1, 1..=5, 0), (2, 6..=7, 2)]);
        assert_eq!(judged(&seen, &after, None).await, Verdict::Accepted, "all of ours is in it");
        // What was seen was collected since.
        let later = chain(&[(1, 8..=9, 0)]);
        assert_eq!(judged(&seen, &later, Some(7)).await, Verdict::Accepted);
    }

    #[tokio::test]
    async fn a_takeover_from_before_makes_a_branch_of_the_rest() {
        let seen = chain(&[(1, 1..=5, 0)]);
        let cut = Verdict::Takeover { cut: Seq(4) };
        assert_eq!(judged(&seen, &chain(&[(1, 1..=3, 0), (2, 4..=9, 2)]), None).await, cut);
        assert_eq!(judged(&seen, &chain(&[(1, 1..=3, 0), (2, 4..=4, 2)]), None).await, cut);
    }

    #[tokio::test]
    async fn an_old_or_a_foreign_head_is_refused() {
        let seen = chain(&[(3, 1..=5, 0)]);
        for there in [
            chain(&[]),
            chain(&[(3, 1..=4, 0)]),
            // As long, as new, of the same epoch: a clone of this machine.
            chain(&[(3, 1..=4, 0), (3, 5..=6, 7)]),
            // A higher epoch that shares nothing with ours.
            chain(&[(9, 1..=9, 7)]),
            // A lower epoch that says it descends from ours is void.
            chain(&[(3, 1..=5, 0), (2, 6..=6, 7)]),
            // Holes where nothing was collected.
            chain(&[(3, 8..=9, 0)]),
        ] {
            let head = there.last_key_value().and_then(|(seq, _)| slot(&there, *seq)).map(|slot| slot.link());
            let seen_link = slot(&seen, 5).expect("it is there").link();
            assert_eq!(judged(&seen, &there, None).await, Verdict::Refused { seen: seen_link, head });
        }
    }
}
