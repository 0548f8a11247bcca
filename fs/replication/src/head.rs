//! What a store says is newest, and whether that follows what was seen there before.

use bytes::Bytes;
use fs_format::claim::Claim;
use fs_format::manifest::{manifest_id, open_manifest};
use fs_format::{Epoch, ManifestId, Seq, VolumeId};

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
        Ok(Slot { epoch: header.epoch, seq, id, parent: header.parent, bytes })
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

    /// The manifests from `head` down to the seq `down_to`, by following parents through slots; `head` comes
    /// first.
    ///
    /// Ends early at a slot that is gone, below which the list of kept moments must be asked. A slot that
    /// is not the parent is damage where it counts, and nothing where a boundary lies above it.
    pub async fn chain(&self, head: &Slot, down_to: Seq) -> Result<Vec<Link>, Error> {
        let mut chain = vec![head.link()];
        let mut child = head.clone();
        while child.seq > down_to && child.seq > Seq(1) {
            let slot = match self.slot(Seq(child.seq.0 - 1)).await {
                Ok(slot) => slot,
                Err(Error::Store(error)) if error.kind() == fs_store::Kind::Absent => break,
                Err(error) => return Err(error),
            };
            if slot.id != child.parent {
                if self.listed().await?.boundary >= Some(slot.seq) {
                    break;
                }
                let object = self.names().slot(slot.seq);
                let why = format!("it is not the parent of seal {}", child.seq);
                return Err(Error::Damaged { object, why });
            }
            if slot.epoch > child.epoch {
                let object = self.names().slot(child.seq);
                let why = format!("its epoch {} is below its parent's, {}", child.epoch, slot.epoch);
                return Err(Error::Damaged { object, why });
            }
            chain.push(slot.link());
            child = slot;
        }
        Ok(chain)
    }
}

/// The manifests that two descend from, as far as they are known; each list also has its own newest.
#[derive(Debug, Clone, Copy)]
pub struct Ancestry<'a> {
    /// Of the head that the store shows.
    pub head: &'a [Link],
    /// Of what this device has seen.
    pub seen: &'a [Link],
}

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

/// Judges the head of a store by the highest manifest that this device has seen there.
pub fn judge(seen: Option<&Link>, head: Option<&Link>, ancestry: Ancestry<'_>) -> Verdict {
    let Some(seen) = seen else { return Verdict::Accepted };
    let refused = Verdict::Refused { seen: *seen, head: head.copied() };
    let Some(head) = head else { return refused };
    let follows = |link: &Link| head.id == link.id || ancestry.head.iter().any(|one| one.id == link.id);
    if follows(seen) {
        return if head.epoch >= seen.epoch { Verdict::Accepted } else { refused };
    }
    if head.epoch <= seen.epoch {
        return refused;
    }
    let before = ancestry.seen.iter().filter(|link| link.seq < seen.seq && follows(link));
    match before.map(|link| link.seq).max() {
        Some(last) => Verdict::Takeover { cut: Seq(last.0 + 1) },
        None => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(epoch: u64, seq: u64, branch: u8) -> Link {
        let mut id = [branch; 32];
        id[0] = seq as u8;
        Link { epoch: Epoch(epoch), seq: Seq(seq), id: ManifestId(id) }
    }

    fn chain(epoch: u64, seqs: std::ops::RangeInclusive<u64>, branch: u8) -> Vec<Link> {
        seqs.rev().map(|seq| link(epoch, seq, branch)).collect()
    }

    fn judged(seen: &[Link], head: &[Link]) -> Verdict {
        judge(seen.first(), head.first(), Ancestry { head, seen })
    }

    #[test]
    fn a_head_that_goes_on_is_accepted() {
        let seen = chain(1, 1..=5, 0);
        assert_eq!(judged(&[], &seen), Verdict::Accepted, "nothing was seen yet");
        assert_eq!(judged(&[], &[]), Verdict::Accepted);
        assert_eq!(judged(&seen, &seen), Verdict::Accepted);
        assert_eq!(judged(&seen, &chain(1, 1..=9, 0)), Verdict::Accepted);
        // Another epoch after what was seen: all of ours is in it.
        let after = [chain(2, 6..=7, 2), seen.clone()].concat();
        assert_eq!(judged(&seen, &after), Verdict::Accepted);
    }

    #[test]
    fn a_takeover_from_before_makes_a_branch_of_the_rest() {
        let seen = chain(1, 1..=5, 0);
        let other = [chain(2, 4..=9, 2), chain(1, 1..=3, 0)].concat();
        assert_eq!(judged(&seen, &other), Verdict::Takeover { cut: Seq(4) });
        let shorter = [chain(2, 4..=4, 2), chain(1, 1..=3, 0)].concat();
        assert_eq!(judged(&seen, &shorter), Verdict::Takeover { cut: Seq(4) });
    }

    #[test]
    fn an_old_or_a_foreign_head_is_refused() {
        let seen = chain(3, 1..=5, 0);
        let refused = |head: &[Link]| {
            let expected = Verdict::Refused { seen: seen[0], head: head.first().copied() };
            assert_eq!(judged(&seen, head), expected);
        };
        refused(&[]);
        refused(&chain(3, 1..=4, 0));
        // As long, as new, of the same epoch: a clone of this machine.
        refused(&[chain(3, 5..=6, 7), chain(3, 1..=4, 0)].concat());
        // A higher epoch that shares nothing with ours.
        refused(&chain(9, 1..=9, 7));
        // A lower epoch that says it descends from ours is void.
        refused(&[chain(2, 6..=6, 7), seen.clone()].concat());
    }
}
