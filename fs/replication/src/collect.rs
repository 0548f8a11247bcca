//! Removing from a store what a volume has given up: section 5 of the document.
//!
//! Invariants
//! - A boundary that holds lies in the store before the first slot below it goes, and the newest slot stays.
//! - All that goes was given up by a manifest that is replicated. Nobody takes that back, so it does not matter who
//!   removes it, nor whether their right to write the volume has ended meanwhile.

use std::collections::BTreeSet;

use fs_format::{Epoch, PackId, Seq};
use fs_store::Name;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::local::Signer;
use crate::names::Fencing;
use crate::remote::Remote;

/// Names that are asked for at once, and requests that are under way at once.
const PAGE: usize = 1000;
const REQUESTS: usize = 16;

/// What a replicated manifest gives up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenUp {
    /// Packs that are doomed, and no more wanted anywhere.
    pub packs: Vec<PackId>,
    /// The newest seal that is old enough for slots up to it to go; nothing if none is.
    pub boundary: Option<Seq>,
    /// The moments that are kept: their slots stay.
    pub kept: BTreeSet<Seq>,
}

/// What was removed from a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Slots that were there.
    pub slots: u64,
    /// Packs that were there.
    pub packs: u64,
}

impl Remote {
    /// Removes from the store what was given up by a manifest that it has, or that the arbiter has.
    ///
    /// After an error some of it may be gone; the same again removes the rest.
    pub async fn collect(
        &self,
        epoch: Epoch,
        signer: &dyn Signer,
        given_up: &GivenUp,
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        if let (Some(boundary), Some(newest)) = (given_up.boundary, self.slots(None, 1).await?.first()) {
            let boundary = boundary.min(Seq(newest.0.saturating_sub(1)));
            collected.slots = self.collect_slots(epoch, signer, boundary, &given_up.kept).await?;
        }
        collected.packs = self.remove_packs(&given_up.packs).await?;
        Ok(collected)
    }

    async fn collect_slots(
        &self,
        epoch: Epoch,
        signer: &dyn Signer,
        boundary: Seq,
        kept: &BTreeSet<Seq>,
    ) -> Result<u64, Error> {
        let mut gone: Vec<Name> = Vec::new();
        let mut below = Some(Seq(boundary.0.saturating_add(1)));
        while below.is_some() {
            let page = self.slots(below, PAGE).await?;
            let removable = page.iter().filter(|seq| **seq <= boundary && !kept.contains(seq));
            gone.extend(removable.map(|&seq| self.names.slot(seq)));
            below = page.last().copied().filter(|_| page.len() == PAGE);
        }
        if gone.is_empty() {
            return Ok(0);
        }
        if self.listed().await?.boundary.is_none_or(|listed| listed < boundary) {
            self.fill_boundary(boundary, signer.boundary(epoch, boundary)?).await?;
        }
        let slots = gone.len() as u64;
        self.remove_all(gone).await?;
        self.remove_all(self.old_boundaries().await?).await?;
        Ok(slots)
    }

    /// All boundaries but the greatest.
    async fn old_boundaries(&self) -> Result<Vec<Name>, Error> {
        let prefix = self.names.fencing();
        let mut boundaries = Vec::new();
        loop {
            let after = boundaries.last();
            let page = self.within(0, prefix.as_str(), self.store.list(&prefix, after, PAGE)).await?;
            let is_whole = page.len() < PAGE;
            let is_boundary =
                |name: &Name| matches!(self.names.read_fencing(name), Some(Fencing::Boundary(_)));
            let found = page.into_iter().map(|entry| entry.name).take_while(is_boundary);
            let before = boundaries.len();
            boundaries.extend(found);
            // Claims come behind all boundaries.
            if is_whole || boundaries.len() < before + PAGE {
                break;
            }
        }
        Ok(boundaries.split_off(boundaries.len().min(1)))
    }

    /// Removes packs, and counts those that were there.
    async fn remove_packs(&self, packs: &[PackId]) -> Result<u64, Error> {
        let mut removed = 0;
        let one = |remote: Self, pack: PackId| async move {
            let is_there = remote.pack_bytes(&pack).await?.is_some();
            if is_there {
                remote.remove(&remote.names.pack(&pack)).await?;
            }
            Ok(is_there)
        };
        self.with_each(packs.to_vec(), one, |was_there| removed += u64::from(was_there)).await?;
        Ok(removed)
    }

    async fn remove_all(&self, names: Vec<Name>) -> Result<(), Error> {
        self.with_each(names, |remote, name| async move { remote.remove(&name).await }, |()| ()).await
    }

    async fn remove(&self, name: &Name) -> Result<(), Error> {
        self.within(0, name, self.store.remove(name)).await
    }

    /// Does the same with each of these, some at once, up to the first error.
    async fn with_each<T, A, F>(
        &self,
        all: Vec<T>,
        work: impl Fn(Self, T) -> F,
        mut done: impl FnMut(A),
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<A, Error>> + Send + 'static,
        A: Send + 'static,
    {
        let mut under_way = JoinSet::new();
        let mut all = all.into_iter();
        loop {
            while under_way.len() < REQUESTS
                && let Some(one) = all.next()
            {
                under_way.spawn(work(self.clone(), one));
            }
            match under_way.join_next().await {
                None => return Ok(()),
                Some(Ok(answer)) => done(answer?),
                Some(Err(broken)) => std::panic::resume_unwind(broken.into_panic()),
            }
        }
    }
}
