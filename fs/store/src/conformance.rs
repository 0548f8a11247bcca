//! What every kind of store must do: one suite that all of them pass.
//!
//! It needs a place of its own in the store (`under`, in which nothing is), and leaves it empty. It
//! panics with what was broken, like any test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Kind, Name, Prefix, Store};

/// Creates of one name at once in a race.
const RACERS: usize = 12;
/// How often, and after what pause, a request is repeated that a store was too busy for.
const BUSY_TRIES: usize = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Races; a store that looks before it writes loses some of many.
const RACES: usize = 20;
/// Larger than one answer of a listing of any kind (1,000 at S3), so that pages are joined.
const MANY: usize = 1_050;

/// Runs the whole suite, but for what the store's abilities leave out.
pub async fn run(store: Arc<dyn Store>, under: Prefix) {
    run_with(store, under, MANY).await;
}

/// The same with another number of objects in a listing, for a store that takes its time for each.
pub async fn run_with(store: Arc<dyn Store>, under: Prefix, many: usize) {
    let suite = Suite { store, under, many };
    suite.starts_empty().await;
    suite.objects_come_back_whole().await;
    suite.ranges_are_exact_or_damaged().await;
    suite.nothing_is_overwritten().await;
    suite.what_is_not_there_is_absent().await;
    suite.listings_ascend_and_go_on().await;
    suite.a_removed_name_is_free().await;
    if suite.store.abilities().create_if_absent {
        suite.one_of_many_wins().await;
    }
    suite.many_objects_are_listed().await;
}

struct Suite {
    store: Arc<dyn Store>,
    under: Prefix,
    many: usize,
}

impl Suite {
    fn name(&self, rest: &str) -> Name {
        self.under.name(rest).expect("a good name")
    }

    async fn create(&self, rest: &str, bytes: impl Into<Bytes>) {
        let created = self.store.create(&self.name(rest), bytes.into()).await;
        created.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn remove(&self, rest: &str) {
        self.store.remove(&self.name(rest)).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn get(&self, rest: &str) -> Bytes {
        self.store.get(&self.name(rest), 1 << 30).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The rest of each name and its size.
    async fn list(&self, below: &str, after: Option<&str>, limit: usize) -> Vec<(String, u64)> {
        let prefix = Prefix::new(format!("{}{below}", self.under.as_str())).expect("a good prefix");
        let after = after.map(|rest| self.name(rest));
        let found = self.store.list(&prefix, after.as_ref(), limit).await;
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        found
            .into_iter()
            .map(|one| (one.name.as_str()[self.under.as_str().len()..].to_owned(), one.size))
            .collect()
    }

    async fn starts_empty(&self) {
        assert_eq!(self.list("", None, 10).await, [], "the suite needs a place of its own");
    }

    async fn objects_come_back_whole(&self) {
        let large: Bytes =
            (0..5 * 1024 * 1024 + 3_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for (rest, bytes) in [("empty", Bytes::new()), ("one", "x".into()), ("a/deep/place/large", large)] {
            self.create(rest, bytes.clone()).await;
            assert!(self.get(rest).await == bytes, "{rest} comes back as it was created");

            let exact = self.store.get(&self.name(rest), bytes.len() as u64).await;
            assert!(exact.is_ok(), "an object of the bound's size is within it");
            if let Some(less) = bytes.len().checked_sub(1) {
                let error = self.store.get(&self.name(rest), less as u64).await.expect_err("it is too large");
                assert_eq!(error.kind(), Kind::Damaged, "{error}");
            }
            let listed = self.list("", None, 10).await;
            assert!(listed.contains(&(rest.to_owned(), bytes.len() as u64)), "{rest} is listed: {listed:?}");
        }
        for rest in ["empty", "one", "a/deep/place/large"] {
            self.remove(rest).await;
        }
    }

    async fn ranges_are_exact_or_damaged(&self) {
        self.create("ten", "0123456789").await;
        let name = self.name("ten");
        for (range, what) in [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..7, "3456")] {
            let found =
                self.store.get_range(&name, range.clone()).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found, what.as_bytes(), "{range:?}");
        }
        for range in [0..11, 5..20, 9..11, 10..11, 1_000..2_000] {
            let error = self.store.get_range(&name, range.clone()).await.expect_err("it is too short");
            assert_eq!(error.kind(), Kind::Damaged, "{range:?}: {error}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        for range in [0..0, 10..10, 7..3] {
            let error = self.store.get_range(&name, range.clone()).await.expect_err("it holds nothing");
            assert_eq!(error.kind(), Kind::Refused, "{range:?}: {error}");
        }
        self.remove("ten").await;
    }

    async fn nothing_is_overwritten(&self) {
        self.create("slot", "first").await;
        // Of the same length too, which a store that compares only sizes may take for the same.
        for other in ["other", "first", "longer than that"] {
            let created = self.store.create(&self.name("slot"), other.into()).await;
            match created {
                Err(error) => assert_eq!(error.kind(), Kind::Exists, "{error}"),
                // Without create-if-absent a torn upload must be mended, and looks like this.
                Ok(()) if other.len() != "first".len() && !self.store.abilities().create_if_absent => {
                    continue;
                }
                Ok(()) => panic!("{other:?} took the place of an object"),
            }
            assert_eq!(self.get("slot").await, "first");
        }
        self.remove("slot").await;
    }

    async fn what_is_not_there_is_absent(&self) {
        self.create("here/a", "x").await;
        for rest in ["none", "here/none", "none/deep/er"] {
            let error = self.store.get(&self.name(rest), 10).await.expect_err("there is none");
            assert_eq!(error.kind(), Kind::Absent, "{error}");
            let error = self.store.get_range(&self.name(rest), 0..1).await.expect_err("there is none");
            assert_eq!(error.kind(), Kind::Absent, "{error}");
            self.remove(rest).await;
        }
        // A folder is no object.
        let error = self.store.get(&self.name("here"), 10).await.expect_err("there is none");
        assert_eq!(error.kind(), Kind::Absent, "{error}");
        self.remove("here/a").await;
    }

    async fn listings_ascend_and_go_on(&self) {
        // '-' and '.' come before '/', which a walk from folder to folder gets wrong.
        let mut names = ["b", "a-b", "a.b/c", "a/b", "a/c/d", "ab", "a-/z", "0", "c/e01", "c/e10", "_"]
            .map(str::to_owned);
        for (size, rest) in names.iter().enumerate() {
            self.create(rest, vec![7; size]).await;
        }
        let size = |rest: &str| names.iter().position(|one| one == rest).expect("one of them") as u64;
        let mut all: Vec<_> = names.iter().map(|rest| (rest.clone(), size(rest))).collect();
        all.sort();
        names.sort();

        assert_eq!(self.list("", None, 100).await, all);
        for from in 0..names.len() {
            for limit in [1, 3, names.len()] {
                let to = (from + 1 + limit).min(all.len());
                let found = self.list("", Some(&names[from]), limit).await;
                assert_eq!(found, all[from + 1..to], "{limit} after {}", names[from]);
            }
        }
        assert_eq!(self.list("", Some("a/b0"), 1).await[0].0, "a/c/d", "a name to go on from need not exist");
        assert_eq!(
            self.list("a/", None, 10).await.len(),
            2,
            "a prefix is a folder, not a beginning of names"
        );
        assert_eq!(self.list("c/", Some("c/e01"), 10).await.len(), 1);
        assert_eq!(self.list("c/", Some("b"), 10).await.len(), 2, "a name before the prefix");
        assert_eq!(self.list("a/", Some("b"), 10).await, [], "a name behind the prefix");
        assert_eq!(self.list("", None, 0).await, []);
        assert_eq!(self.list("none/", None, 10).await, []);
        for rest in &names {
            self.remove(rest).await;
        }
        assert_eq!(self.list("", None, 10).await, []);
    }

    async fn a_removed_name_is_free(&self) {
        self.create("again", "first").await;
        self.remove("again").await;
        self.remove("again").await;
        assert_eq!(self.list("", None, 10).await, []);
        self.create("again", "second").await;
        assert_eq!(self.get("again").await, "second");
        self.remove("again").await;
    }

    async fn one_of_many_wins(&self) {
        for race in 0..RACES {
            let name = self.name(&format!("race/{race}"));
            let mut racers = tokio::task::JoinSet::new();
            for racer in 0..RACERS {
                let (store, name) = (self.store.clone(), name.clone());
                racers.spawn(async move {
                    // Of one length, and large enough that a store that mixes them is seen.
                    let bytes = Bytes::from(vec![racer as u8; 20_000]);
                    loop {
                        match store.create(&name, bytes.clone()).await {
                            Ok(()) => return Some(bytes),
                            Err(error) if error.kind() == Kind::Exists => return None,
                            // Some answer so while they decide; nothing was changed then.
                            Err(error) if error.kind() == Kind::Busy => tokio::task::yield_now().await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            let winners: Vec<Bytes> = racers.join_all().await.into_iter().flatten().collect();
            assert_eq!(winners.len(), 1, "one of {RACERS} wins");
            let found = self.store.get(&name, 1 << 20).await.unwrap_or_else(|error| panic!("{error}"));
            assert!(found == winners[0], "what lies there is the winner's");
            self.store.remove(&name).await.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    async fn many_objects_are_listed(&self) {
        let names: Arc<Vec<Name>> =
            Arc::new((0..self.many).map(|n| self.name(&format!("many/{n:05}"))).collect());
        let each = |remove: bool| {
            let (store, names) = (self.store.clone(), names.clone());
            async move {
                let mut tasks = tokio::task::JoinSet::new();
                for lane in 0..8 {
                    let (store, names) = (store.clone(), names.clone());
                    tasks.spawn(async move {
                        for name in names.iter().skip(lane).step_by(8) {
                            let mut tries = 0;
                            loop {
                                let done = match remove {
                                    true => store.remove(name).await,
                                    false => store.create(name, "x".into()).await,
                                };
                                match done {
                                    Ok(()) => break,
                                    // Apache answers "locked" now and then to eight at once, in a folder that is new.
                                    Err(error) if error.kind() == Kind::Busy && tries < BUSY_TRIES => {
                                        tokio::time::sleep(BUSY_PAUSE).await;
                                        tries += 1;
                                    }
                                    Err(error) => panic!("{error}"),
                                }
                            }
                        }
                    });
                }
                tasks.join_all().await;
            }
        };
        each(false).await;
        let found =
            self.store.list(&self.under, None, 2 * self.many).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(
            found.iter().map(|one| &one.name).eq(names.iter()),
            "{} of {} are listed",
            found.len(),
            self.many
        );
        each(true).await;
        assert_eq!(self.list("", None, 10).await, []);
    }
}
