//! Until when a mount takes changes: `comb mount --lease`, `comb lease`.
//!
//! The volume refuses changes after the end, the kernel adapter answers for none, and what is said here of stores holds
//! for whatever a daemon sends: [`Leased`] is laid around the store itself, below all retries.
//!
//! Invariants
//! - Nothing is asked to be made or removed in a store after the end, not by a retry either.
//! - A span is counted from when it was read, so before anything else is done.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fs_store::{Abilities, Entry, Name, Prefix, Store, StoreError};
use fs_volume::real::boottime;
use fs_volume::{LEASE_OVER, Lease, LeaseError};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Kind};
use crate::name::parse_span;

/// How often a request that is under way looks at the end, which may move: timers do not count the time that the machine sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// When a lease ends, as a person or a program says it: a span from now on, or `@` and milliseconds of `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnd(pub Duration);

impl FromStr for LeaseEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some(ms) => ms.parse().map(|ms| Self(Duration::from_millis(ms))).map_err(|_| {
                format!("{text:?} is no moment: write @ and milliseconds of the clock CLOCK_BOOTTIME")
            }),
            None => parse_span(text).map(|span| Self(boottime() + span)),
        }
    }
}

impl fmt::Display for LeaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0.as_millis())
    }
}

/// How it stands with the lease of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// When it ends, in milliseconds of `CLOCK_BOOTTIME`.
    pub end_boottime_ms: u64,
    /// How long it lasts; 0 when it is over.
    pub left_ms: u64,
    /// Whether it is over: changes are refused, nothing is sent, and only a new mount takes changes again.
    pub over: bool,
}

impl LeaseReport {
    /// That of a lease with an end.
    pub fn of(lease: &Lease) -> Option<Self> {
        let (end, left) = (lease.end()?, lease.left()?);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(Self { end_boottime_ms: ms(end), left_ms: ms(left), over: left.is_zero() })
    }
}

/// A lease's refusal in words for a person.
pub fn failure(volume: impl fmt::Display, error: LeaseError) -> Failure {
    match error {
        LeaseError::Over(_) => Failure::new(
            Kind::NotPermitted,
            format!("the mount of volume \"{volume}\" takes no changes: {error}"),
        )
        .hint("unmount it; a new mount takes changes again, if this machine may still write the volume"),
        LeaseError::Passed(_) => {
            Failure::new(Kind::Usage, format!("the lease of volume \"{volume}\" is as it was: {error}"))
        }
    }
}

/// A store that is written for as long as a lease lasts. Reading goes on.
#[derive(Debug)]
pub struct Leased {
    inside: Arc<dyn Store>,
    lease: Arc<Lease>,
}

impl Leased {
    /// Lays the lease around a store.
    pub fn new(inside: Arc<dyn Store>, lease: Arc<Lease>) -> Self {
        Self { inside, lease }
    }

    /// Makes a request, and gives it up at the end. What is under way then may still be done, as with every request that
    /// is given up: what the store has is what it says.
    async fn while_it_lasts(
        &self,
        action: &'static str,
        name: &Name,
        request: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        tokio::select! {
            biased;
            () = end_of(&self.lease) => Err(StoreError::new(fs_store::Kind::Refused, action, name, LEASE_OVER)),
            answer = request => answer,
        }
    }
}

/// Waits for the end without a thread; an end that is set meanwhile counts.
async fn end_of(lease: &Lease) {
    loop {
        match lease.left() {
            Some(Duration::ZERO) => return,
            left => tokio::time::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)).await,
        }
    }
}

#[async_trait]
impl Store for Leased {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.while_it_lasts("create", name, self.inside.create(name, bytes)).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.inside.get(name, limit).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inside.get_range(name, range).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.inside.list(prefix, after, limit).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.while_it_lasts("remove", name, self.inside.remove(name)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use fs_store::{Memory, Patient};

    use super::*;

    fn lease(ms: u64) -> Arc<Lease> {
        let clock = fs_volume::real::env(std::path::Path::new("/")).clock;
        let lease = Lease::endless(clock);
        lease.move_end(Some(boottime() + Duration::from_millis(ms))).expect("it is to come");
        Arc::new(lease)
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    /// A store of which a create begins, and is not done before somebody says so.
    #[derive(Debug, Default)]
    struct Held {
        inside: Memory,
        begun: AtomicBool,
        given_up: Arc<AtomicBool>,
    }

    struct NoteDrop(Arc<AtomicBool>);

    impl Drop for NoteDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Store for Held {
        fn abilities(&self) -> Abilities {
            self.inside.abilities()
        }

        async fn create(&self, _: &Name, _: Bytes) -> Result<(), StoreError> {
            self.begun.store(true, Ordering::SeqCst);
            let _noted = NoteDrop(Arc::clone(&self.given_up));
            std::future::pending().await
        }

        async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
            self.inside.get(name, limit).await
        }

        async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
            self.inside.get_range(name, range).await
        }

        async fn list(
            &self,
            prefix: &Prefix,
            after: Option<&Name>,
            limit: usize,
        ) -> Result<Vec<Entry>, StoreError> {
            self.inside.list(prefix, after, limit).await
        }

        async fn remove(&self, name: &Name) -> Result<(), StoreError> {
            self.inside.remove(name).await
        }
    }

    #[test]
    fn an_end_is_written_as_a_span_or_as_a_moment() {
        let before = boottime();
        let LeaseEnd(end) = "45s".parse().expect("a span");
        assert!(end >= before + Duration::from_secs(45) && end <= boottime() + Duration::from_secs(45));
        let end: LeaseEnd = "@123456".parse().expect("a moment");
        assert_eq!((end, end.to_string()), (LeaseEnd(Duration::from_millis(123_456)), "@123456".to_owned()));
        for wrong in ["", "@", "@-1", "@1s", "soon", "none"] {
            assert!(wrong.parse::<LeaseEnd>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nothing_is_made_or_removed_in_a_store_after_the_end() {
        let (memory, lease) = (Memory::default(), lease(100));
        let leased = Leased::new(Arc::new(memory.clone()), Arc::clone(&lease));
        leased.create(&name("a"), Bytes::from_static(b"1")).await.expect("it lasts");
        lease.wait_for_end();
        let refused = leased.create(&name("b"), Bytes::from_static(b"2")).await.expect_err("it is over");
        assert_eq!(refused.kind(), fs_store::Kind::Refused);
        assert!(refused.to_string().contains(LEASE_OVER), "{refused}");
        leased.remove(&name("a")).await.expect_err("it is over");
        let prefix = Prefix::all();
        let names = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names(memory.list(&prefix, None, 9).await.expect("listed")), [name("a")]);
        assert_eq!(leased.get(&name("a"), 9).await.expect("reading goes on"), Bytes::from_static(b"1"));
    }

    #[tokio::test]
    async fn a_request_that_is_under_way_at_the_end_is_given_up_and_not_tried_again() {
        let held = Arc::new(Held::default());
        let inside: Arc<dyn Store> = Arc::clone(&held) as Arc<dyn Store>;
        // Who waits for ever would try again.
        let store = Patient::new(Arc::new(Leased::new(inside, lease(100))), 7);
        let refused = store.create(&name("a"), Bytes::from_static(b"1")).await.expect_err("it is over");
        assert!(refused.to_string().contains(LEASE_OVER), "{refused}");
        assert!(held.begun.load(Ordering::SeqCst) && held.given_up.load(Ordering::SeqCst));
    }
}
