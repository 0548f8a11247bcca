//! A store that fails on purpose.
//!
//! Invariants
//! - The seed, the request and how often it was made decide what happens to it, so that the same run
//!   gives the same faults, in whatever order requests of different names overtake each other.
//! - Without faults it is the store inside.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::chance::draw;
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError};

/// How many of 1,000 requests meet each fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Done, but said to have failed.
    pub lost: u16,
    /// Answered with *busy*, not done.
    pub busy: u16,
    /// Answered with *unreachable*, not done.
    pub unreachable: u16,
    /// Never answered; every second one is done.
    pub silent: u16,
    /// A body that ends too early, without an error.
    pub cut: u16,
    /// A body with one wrong bit.
    pub flipped: u16,
    /// The body of another object.
    pub foreign: u16,
    /// An object that is left out of the next 1 to 3 listings that should show it.
    pub late: u16,
}

/// A store around another, which fails as it is told.
#[derive(Debug)]
pub struct Faulty<S> {
    inside: S,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    /// Requests that the storm will still turn away.
    storm: u32,
    /// No request gets through.
    away: bool,
    /// How often each request was made.
    turns: HashMap<(&'static str, String), u64>,
    /// What was created through this.
    created: Vec<Name>,
    /// Listings that each of these is still left out of.
    late: HashMap<Name, u64>,
}

/// What happens to one request.
#[derive(Clone, Copy)]
struct Fate {
    seed: u64,
    lost: bool,
    silent: bool,
}

impl Fate {
    /// Whether this request meets a fault of `of_1000`, which `what` tells from the other faults.
    fn meets(&self, what: &str, of_1000: u16) -> bool {
        draw(self.seed, &[what.as_bytes()], 0) % 1000 < u64::from(of_1000)
    }
}

impl<S: Store> Faulty<S> {
    /// The store inside with no faults yet.
    pub fn new(inside: S, seed: u64) -> Faulty<S> {
        Faulty { inside, seed, state: Mutex::default() }
    }

    /// The store without its faults.
    pub fn inside(&self) -> &S {
        &self.inside
    }

    /// From now on these faults.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Turns the next requests away as *busy*.
    pub fn storm(&self, requests: u32) {
        self.state().storm = requests;
    }

    /// Whether the store is away: every request is *unreachable*, and none is done.
    pub fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes before a request: some never reach the store.
    async fn meet(&self, action: &'static str, object: &str) -> Result<(Fate, Faults), StoreError> {
        let (fate, faults, turned_away) = {
            let mut state = self.state();
            let turn = state.turns.entry((action, object.to_owned())).or_default();
            *turn += 1;
            let seed = draw(self.seed, &[action.as_bytes(), object.as_bytes()], *turn);
            let mut fate = Fate { seed, lost: false, silent: false };
            let faults = state.faults;
            fate.lost = fate.meets("lost", faults.lost);
            fate.silent = fate.meets("silent", faults.silent);
            let turned_away = if state.away || fate.meets("unreachable", faults.unreachable) {
                Some(Kind::Unreachable)
            } else if state.storm > 0 || fate.meets("busy", faults.busy) {
                state.storm = state.storm.saturating_sub(1);
                Some(Kind::Busy)
            } else {
                None
            };
            (fate, faults, turned_away)
        };
        if let Some(kind) = turned_away {
            return Err(StoreError::new(kind, action, object, "on purpose"));
        }
        if fate.silent && fate.meets("undone", 500) {
            std::future::pending::<()>().await;
        }
        Ok((fate, faults))
    }

    /// What comes after a request: some answers never reach who asked.
    async fn part(&self, fate: Fate, action: &'static str, object: &str) -> Result<(), StoreError> {
        if fate.silent {
            std::future::pending::<()>().await;
        }
        match fate.lost {
            true => Err(StoreError::new(Kind::Unreachable, action, object, "the answer was lost on purpose")),
            false => Ok(()),
        }
    }

    /// Spoils a body.
    async fn spoil(&self, fate: Fate, faults: Faults, name: &Name, body: Bytes) -> Bytes {
        let at = |what: &str| (draw(fate.seed, &[what.as_bytes()], 1) % body.len().max(1) as u64) as usize;
        if fate.meets("foreign", faults.foreign) {
            let others: BTreeSet<Name> =
                self.state().created.iter().filter(|one| *one != name).cloned().collect();
            if let Some(other) = others.iter().nth(at("other") % others.len().max(1))
                && let Ok(other) = self.inside.get(other, u64::MAX).await
            {
                return other.slice(..body.len().min(other.len()));
            }
        }
        if fate.meets("cut", faults.cut) {
            return body.slice(..at("cut at"));
        }
        if fate.meets("flipped", faults.flipped) && !body.is_empty() {
            let mut bytes = body.to_vec();
            bytes[at("byte")] ^= 1 << (at("bit") % 8);
            return bytes.into();
        }
        body
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        let (fate, faults) = self.meet("create", name.as_str()).await?;
        let created = self.inside.create(name, bytes).await;
        if created.is_ok() {
            let mut state = self.state();
            state.created.push(name.clone());
            if fate.meets("late", faults.late) {
                state.late.insert(name.clone(), 1 + draw(fate.seed, &[b"listings"], 0) % 3);
            }
        }
        self.part(fate, "create", name.as_str()).await?;
        created
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let (fate, faults) = self.meet("get", name.as_str()).await?;
        let body = self.inside.get(name, limit).await;
        self.part(fate, "get", name.as_str()).await?;
        Ok(self.spoil(fate, faults, name, body?).await)
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (fate, faults) = self.meet("get", name.as_str()).await?;
        let body = self.inside.get_range(name, range).await;
        self.part(fate, "get", name.as_str()).await?;
        Ok(self.spoil(fate, faults, name, body?).await)
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (fate, _) = self.meet("list", prefix.as_str()).await?;
        // What is left out makes room for what follows.
        let late = self.state().late.len();
        let listed = self.inside.list(prefix, after, limit.saturating_add(late)).await;
        self.part(fate, "list", prefix.as_str()).await?;
        let mut listed = listed?;
        let mut state = self.state();
        listed.retain(|entry| match state.late.get_mut(&entry.name) {
            None => true,
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    state.late.remove(&entry.name);
                }
                false
            }
        });
        listed.truncate(limit);
        Ok(listed)
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        let (fate, _) = self.meet("remove", name.as_str()).await?;
        let removed = self.inside.remove(name).await;
        self.part(fate, "remove", name.as_str()).await?;
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Memory;

    fn name(n: usize) -> Name {
        Name::new(format!("v/{n:03}")).expect("a good name")
    }

    fn body(n: usize) -> Bytes {
        vec![n as u8; 100].into()
    }

    const ALL: Faults = Faults {
        lost: 100,
        busy: 100,
        unreachable: 100,
        silent: 50,
        cut: 100,
        flipped: 100,
        foreign: 100,
        late: 100,
    };

    /// What 100 creates, gets and listings said.
    async fn run(seed: u64) -> Vec<String> {
        let store = Faulty::new(Memory::default(), seed);
        store.set(ALL);
        let mut said = Vec::new();
        let wait = Duration::from_secs(1);
        for n in 0..100 {
            said.push(format!("{:?}", tokio::time::timeout(wait, store.create(&name(n), body(n))).await));
            said.push(format!("{:?}", tokio::time::timeout(wait, store.get(&name(n), 100)).await));
            said.push(format!(
                "{:?}",
                tokio::time::timeout(wait, store.list(&Prefix::all(), None, 200)).await
            ));
        }
        said
    }

    #[tokio::test(start_paused = true)]
    async fn the_seed_decides_everything() {
        assert_eq!(run(7).await, run(7).await);
        assert_ne!(run(7).await, run(8).await);
    }

    /// A store with 100 objects that then gets these faults.
    async fn with(faults: Faults) -> Faulty<Memory> {
        let store = Faulty::new(Memory::default(), 7);
        for n in 0..100 {
            store.create(&name(n), body(n)).await.expect("no faults yet");
        }
        store.set(faults);
        store
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_is_what_it_says() {
        let store = with(Faults { lost: 1000, ..Faults::default() }).await;
        let lost = store.create(&name(100), body(100)).await.expect_err("lost");
        assert_eq!(lost.kind(), Kind::Unreachable);
        assert_eq!(store.inside().get(&name(100), 100).await, Ok(body(100)), "it was done");

        for (faults, kind) in [
            (Faults { busy: 1000, ..Faults::default() }, Kind::Busy),
            (Faults { unreachable: 1000, ..Faults::default() }, Kind::Unreachable),
        ] {
            let store = with(faults).await;
            assert_eq!(store.create(&name(100), body(100)).await.expect_err("failed").kind(), kind);
            let none = store.inside().get(&name(100), 100).await.expect_err("it was not done");
            assert_eq!(none.kind(), Kind::Absent);
        }

        let store = with(Faults { cut: 1000, ..Faults::default() }).await;
        assert!(store.get(&name(1), 100).await.expect("cut").len() < 100);
        let store = with(Faults { flipped: 1000, ..Faults::default() }).await;
        let flipped = store.get(&name(1), 100).await.expect("flipped");
        let wrong: u32 = flipped.iter().zip(body(1)).map(|(one, right)| (one ^ right).count_ones()).sum();
        assert_eq!((flipped.len(), wrong), (100, 1));
        let store = with(Faults { foreign: 1000, ..Faults::default() }).await;
        let foreign = store.get(&name(1), 100).await.expect("foreign");
        assert!((0..100).any(|n| n != 1 && foreign == body(n)));

        let store = with(Faults { silent: 1000, ..Faults::default() }).await;
        let mut done = 0;
        for n in 100..200 {
            let waited =
                tokio::time::timeout(Duration::from_secs(3600), store.create(&name(n), body(n))).await;
            assert!(waited.is_err(), "it never ends");
            done += usize::from(store.inside().get(&name(n), 100).await.is_ok());
        }
        assert!((30..70).contains(&done), "{done} of 100 were done");
    }

    #[tokio::test]
    async fn a_late_object_is_listed_in_the_end() {
        let store = with(Faults { late: 1000, ..Faults::default() }).await;
        store.create(&name(100), body(100)).await.expect("created");
        let mut listed = Vec::new();
        for _ in 0..5 {
            listed.push(store.list(&Prefix::all(), None, 200).await.expect("listed").len());
        }
        assert_eq!((listed[0], listed[4]), (100, 101), "{listed:?}");
    }

    #[tokio::test]
    async fn storms_and_outages_pass() {
        let store = with(Faults::default()).await;
        store.storm(2);
        for _ in 0..2 {
            assert_eq!(store.get(&name(1), 100).await.expect_err("a storm").kind(), Kind::Busy);
        }
        assert!(store.get(&name(1), 100).await.is_ok());
        store.set_away(true);
        assert_eq!(store.get(&name(1), 100).await.expect_err("away").kind(), Kind::Unreachable);
        store.set_away(false);
        assert!(store.get(&name(99), 100).await.is_ok());
    }
}
