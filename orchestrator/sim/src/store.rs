//! The store: create, get, list, as `fs/docs/replication.md`, sections 3 and 4, need them; and what lies in it.
//!
//! A listing of slots and claims is one request here and happens at once; that reading them one after the other does no
//! harm is what the checker of `fs-replication` shows.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{Epoch, ManifestId, Seq, Writer};
use orchestrator_api::placement::{Head, StoreView};

/// A manifest: index into [`Manifests`].
pub type Index = usize;

/// What a manifest says.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The epoch of whoever made it.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// The one before it.
    pub parent: Option<Index>,
    /// Who made it.
    pub writer: Writer,
    /// The writes that it adds.
    pub writes: Vec<u64>,
    /// The moment that it goes back to.
    pub back_to: Option<Index>,
}

/// Every manifest that was ever made.
#[derive(Debug, Clone, Default)]
pub struct Manifests(Vec<Manifest>);

impl Manifests {
    /// Makes one.
    pub fn add(&mut self, manifest: Manifest) -> Index {
        self.0.push(manifest);
        self.0.len() - 1
    }

    /// What it says.
    pub fn get(&self, index: Index) -> &Manifest {
        &self.0[index]
    }

    /// As it travels.
    pub fn head(&self, index: Index) -> Head {
        let manifest = self.get(index);
        Head { epoch: manifest.epoch, seq: manifest.seq, manifest: name(index) }
    }

    /// What a tree holds.
    pub fn content(&self, index: Index) -> BTreeSet<u64> {
        let (mut content, mut next) = (BTreeSet::new(), Some(index));
        while let Some(index) = next {
            let manifest = self.get(index);
            content.extend(&manifest.writes);
            next = manifest.back_to.or(manifest.parent);
        }
        content
    }
}

/// A manifest's hash.
pub fn name(index: Index) -> ManifestId {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&(index as u64).to_be_bytes());
    ManifestId(bytes)
}

/// A request.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Newest slot and greatest claim.
    List,
    /// Creates a claim; the number tells it from one by a clone.
    Claim(Epoch, Writer, u64),
    /// Creates the slot of a manifest.
    Slot(Index),
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Said {
    /// What is there.
    Listed(Option<Index>, Option<(Epoch, Writer)>),
    /// It was created, now or by the same request before.
    Created,
    /// Somebody else's claim is there.
    ClaimExists,
    /// Another manifest is there.
    SlotExists(Index),
}

/// The objects of one volume.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Slots.
    pub slots: BTreeMap<Seq, Index>,
    /// Claims.
    pub claims: BTreeMap<Epoch, (Writer, u64)>,
}

impl Objects {
    /// The newest slot.
    pub fn newest(&self) -> Option<Index> {
        self.slots.last_key_value().map(|(_, index)| *index)
    }

    /// Does what is asked; says what is wrong with it, if it must not be.
    pub fn perform(&mut self, ask: &Ask, manifests: &Manifests) -> Result<Said, String> {
        Ok(match ask {
            Ask::List => {
                let claim = self.claims.last_key_value();
                Said::Listed(self.newest(), claim.map(|(epoch, (writer, _))| (*epoch, *writer)))
            }
            Ask::Claim(epoch, writer, nonce) => match self.claims.get(epoch) {
                Some(there) if *there == (*writer, *nonce) => Said::Created,
                Some(_) => Said::ClaimExists,
                None => {
                    self.claims.insert(*epoch, (*writer, *nonce));
                    Said::Created
                }
            },
            Ask::Slot(index) => {
                let manifest = manifests.get(*index);
                match self.slots.get(&manifest.seq) {
                    Some(there) if there == index => Said::Created,
                    Some(there) => Said::SlotExists(*there),
                    None => {
                        if manifest.parent != self.newest() {
                            return Err(format!("seal {} does not follow the newest slot", manifest.seq));
                        }
                        if manifest.parent.is_some_and(|parent| manifests.get(parent).epoch > manifest.epoch)
                        {
                            return Err(format!("seal {} has a lower epoch than its parent", manifest.seq));
                        }
                        self.slots.insert(manifest.seq, *index);
                        Said::Created
                    }
                }
            }
        })
    }
}

/// What a listing says, as a device is told.
pub fn view(newest: Option<Index>, claim: Option<(Epoch, Writer)>, manifests: &Manifests) -> StoreView {
    let newest = newest.map(|index| (manifests.head(index), manifests.get(index).writer));
    StoreView { newest, claim }
}
