//! Removing from the stores what nobody needs any more.

use std::collections::HashSet;

use fs_format::PackId;
use fs_replication::{Collected, GivenUp};
use fs_store::{Patience, READ_TIME_MAX};

use super::Replicas;
use super::running::Running;
use crate::failure::Failure;
use crate::report::StorePruned;
use crate::stores;

impl Replicas {
    /// Packs that were given up, and that no store has any more.
    pub fn cleared(&self) -> Vec<PackId> {
        let running = self.running.lock();
        let cleared = self.cleared.lock();
        let mut stores = running.iter().map(|running| cleared.get(&running.config.id));
        let Some(mut packs) = stores.next().flatten().cloned() else { return Vec::new() };
        stores.for_each(|others| packs.retain(|pack| others.is_some_and(|others| others.contains(pack))));
        packs.into_iter().collect()
    }

    /// Removes from every store what was given up by a seal that all of them have, and was not removed there yet.
    pub fn collect(&self, given_up: &GivenUp) -> Vec<StorePruned> {
        let Some(runtime) = &self.runtime else { return Vec::new() };
        let (epoch, pen) = (self.core.volume.epoch(), self.core.pen());
        let all: HashSet<PackId> = given_up.packs.iter().copied().collect();
        let mut pruned = Vec::new();
        let stores: Vec<_> = self.running.lock().iter().map(Running::store).collect();
        for (config, store) in stores {
            let done = self.cleared.lock().get(&config.id).cloned().unwrap_or_default();
            let packs = given_up.packs.iter().filter(|pack| !done.contains(*pack)).copied().collect();
            let given_up = GivenUp { packs, ..given_up.clone() };
            let collected = match store {
                Some(store) => {
                    let remote = stores::remote(&store.with(Patience::Within(READ_TIME_MAX)), pen.volume);
                    let collect = async {
                        // Something else may be there by now, in which nothing is ours to remove.
                        remote.recognise(config.store_id()?).await?;
                        Ok(remote.collect(epoch, &pen, &given_up).await?)
                    };
                    runtime.block_on(collect).map_err(|failure: Failure| failure.message)
                }
                None => Err("it is not open".to_owned()),
            };
            match &collected {
                Ok(_) => drop(self.cleared.lock().insert(config.id, all.clone())),
                Err(error) => {
                    tracing::warn!(
                        store = config.name,
                        error,
                        "what was dropped is not removed from the store"
                    );
                }
            }
            let Collected { packs, slots: moments } = collected.as_ref().copied().unwrap_or_default();
            pruned.push(StorePruned { store: config.name, packs, moments, error: collected.err() });
        }
        pruned
    }
}
