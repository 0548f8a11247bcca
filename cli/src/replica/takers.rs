//! What whoever makes room on this disk asks of the stores.

use std::collections::HashMap;
use std::time::Duration;

use fs_format::{PackId, Seq};
use fs_replication::{Progress, State as Doing};
use fs_store::{Patience, Patient};
use tokio::task::JoinSet;

use super::Replicas;
use super::running::Running;
use crate::failure::{Failure, Result};
use crate::stores::{self, StoreConfig};

/// How long a store may take to say what it has of some packs.
const LENGTHS_WAIT: Duration = Duration::from_secs(3);

/// What a store lacks and takes, for whoever waits for room.
#[derive(Debug, Clone, Default)]
pub struct Taker {
    /// Its name.
    pub name: String,
    /// Bytes of the seals that it lacks.
    pub lacks: u64,
    /// The newest seal that it said to have, 0 for none.
    pub replicated: Seq,
    /// Grows with each pack and each seal that it takes.
    pub taken: u64,
    /// Whether something is being sent to it.
    pub is_sending: bool,
    /// When something went wrong there last.
    pub failed: Option<std::time::Instant>,
}

/// The store that decides.
pub struct Arbiter {
    /// What it is called, and which it is.
    pub config: StoreConfig,
    store: Patient,
}

impl Replicas {
    /// What each store lacks and takes.
    pub fn takers(&self) -> Vec<Taker> {
        let running = self.running.lock();
        let told = running.iter().map(|one| {
            let progress = one.progress();
            (one.config.name.clone(), one.known(progress.as_ref()), progress)
        });
        let told: Vec<(String, Option<Seq>, Option<Progress>)> = told.collect();
        drop(running);
        let changes = self.core.changes.lock();
        let taker = |(name, known, progress): (String, Option<Seq>, Option<Progress>)| {
            let Some(progress) = progress else {
                return Taker { name, lacks: changes.bytes_missing(known), ..Taker::default() };
            };
            Taker {
                name,
                // What a store has lost is known to the uploader alone.
                lacks: changes.bytes_missing(known).max(progress.pending.bytes),
                replicated: progress.replicated.unwrap_or_default(),
                taken: progress.sent_bytes + progress.replicated.map_or(0, |seq| seq.0),
                is_sending: progress.state == Doing::Sending,
                failed: progress.trouble.map(|trouble| trouble.at.into_std()),
            }
        };
        told.into_iter().map(taker).collect()
    }

    /// The names of the stores that are furthest behind, of those that lack something.
    pub fn lacking(&self) -> Vec<String> {
        let head = self.core.volume.head().seq;
        let running = self.running.lock();
        let least = running.iter().map(Running::replicated).min().flatten();
        let lacking = running.iter().filter(|one| one.replicated() < Some(head) && one.replicated() <= least);
        lacking.map(|one| format!("\"{}\"", one.config.name)).collect()
    }

    /// Has what is sealed sent without waiting for the end of a pause after an error that is over.
    pub fn send_now(&self) {
        for running in self.running.lock().iter() {
            if let Some(uploader) = &running.shared.at_work.lock().uploader {
                uploader.sealed();
            }
        }
    }

    /// The store that decides, if it is open.
    pub fn arbiter(&self) -> Option<Arbiter> {
        let running = self.running.lock();
        let (config, store) = running.iter().find(|one| one.config.arbiter)?.store();
        Some(Arbiter { config, store: store? })
    }

    /// The lengths of these packs in the store that decides, as it lists them now; those that it has.
    pub fn lengths(&self, arbiter: &Arbiter, packs: &[PackId]) -> Result<HashMap<PackId, u64>> {
        let Some(runtime) = &self.runtime else { return Ok(HashMap::new()) };
        let store = arbiter.store.with(Patience::Within(LENGTHS_WAIT));
        let remote = stores::remote(&store, self.core.volume.id());
        runtime.block_on(async {
            // Something else may be there by now.
            remote.recognise(arbiter.config.store_id()?).await?;
            let mut asked = JoinSet::new();
            for pack in packs {
                let (remote, pack) = (remote.clone(), *pack);
                asked.spawn(async move { (pack, remote.pack_bytes(&pack).await) });
            }
            let mut lengths = HashMap::new();
            while let Some(answer) = asked.join_next().await {
                let (pack, bytes) = answer.map_err(|error| Failure::other(error.to_string()))?;
                lengths.extend(bytes?.map(|bytes| (pack, bytes)));
            }
            Ok(lengths)
        })
    }
}
