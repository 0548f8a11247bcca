//! Key rings in a store: the part of `crypto.md` ("In a store") that needs no key.
//!
//! Invariants
//! - A version that leaves this file is whole, and of the account and number that its name says.
//! - Whoever is told that its version is the newest knows every version that was there before it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_format::ring::{RING_BYTES_MAX, RingHeader, open_ring, ring_name, ring_of_name, ring_prefix};
use fs_format::{AccountId, DecodeError, RingNumber};
use fs_store::{Kind, Name, Prefix, Store};

use crate::error::Error;
use crate::remote::{PATIENCE, within};

/// Accounts that are looked for in a store; more are somebody's mistake.
const ACCOUNTS_MAX: usize = 16;
/// Names below `k/` that are looked at to find them: somebody else's objects may lie there too.
const LOOKS_MAX: usize = 4 * ACCOUNTS_MAX;
/// Versions that are listed at once.
const PAGE: usize = 100;

/// The key rings in a store.
#[derive(Debug, Clone)]
pub struct Rings {
    store: Arc<dyn Store>,
    patience: Duration,
}

/// A version of a key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingVersion {
    /// What stands in its clear header.
    pub header: RingHeader,
    /// The whole object.
    pub object: Bytes,
}

impl RingVersion {
    /// The version in these bytes.
    pub fn open(object: Bytes) -> Result<RingVersion, DecodeError> {
        Ok(RingVersion { header: open_ring(&object)?.header, object })
    }

    /// What it is called.
    pub fn name(&self) -> Name {
        name(&self.header.account, self.header.number)
    }
}

/// What came of publishing a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is in the store, and nothing is there that its maker has not seen.
    Newest,
    /// These are there too: unite with them, and publish the version after.
    Beside(Vec<RingVersion>),
}

impl Rings {
    /// The key rings in this store.
    pub fn new(store: Arc<dyn Store>) -> Rings {
        Rings { store, patience: PATIENCE }
    }

    /// The newest version of each account, in the order of accounts.
    ///
    /// A damaged one does not hide the others, which may be what somebody looks for.
    pub async fn newest(&self) -> Result<Vec<Result<RingVersion, Error>>, Error> {
        let mut found = Vec::new();
        let mut after: Option<Name> = None;
        for _ in 0..LOOKS_MAX {
            let rings = prefix("k/");
            let listing = self.store.list(&rings, after.as_ref(), 1);
            let Some(first) = within(self.patience, 0, "k/", listing).await?.into_iter().next() else {
                break;
            };
            let Some((account, number)) = ring_of_name(first.name.as_str()) else {
                after = Some(first.name);
                continue;
            };
            found.push(self.get(&account, number).await);
            if found.len() == ACCOUNTS_MAX {
                break;
            }
            // Behind all versions of this account: no number is 0.
            after = Some(
                prefix(&ring_prefix(&account)).name("ffffffffffffffff").expect("digits behind a prefix"),
            );
        }
        Ok(found)
    }

    /// The newest version of an account.
    pub async fn newest_of(&self, account: &AccountId) -> Result<Option<RingVersion>, Error> {
        match self.above(account, RingNumber(0), 1).await?.first() {
            Some(&number) => self.get(account, number).await.map(Some),
            None => Ok(None),
        }
    }

    /// Publishes a version whose maker has seen the version `seen` of the store, and none above it (0: none at all).
    pub async fn publish(&self, version: &RingVersion, seen: RingNumber) -> Result<Published, Error> {
        let (name, bytes) = (version.name(), version.object.clone());
        let (account, number) = (version.header.account, version.header.number);
        let mut beside = Vec::new();
        match within(self.patience, bytes.len() as u64, &name, self.store.create(&name, bytes)).await {
            Ok(()) => {}
            // Somebody else's, or our own after a lost answer.
            Err(Error::Store(error)) if error.kind() == Kind::Exists => {
                let there = self.get(&account, number).await?;
                if there != *version {
                    beside.push(there);
                }
            }
            Err(error) => return Err(error),
        }
        for other in self.above(&account, seen, usize::MAX).await? {
            if other != number {
                beside.push(self.get(&account, other).await?);
            }
        }
        Ok(if beside.is_empty() { Published::Newest } else { Published::Beside(beside) })
    }

    /// At most `limit` numbers of versions above one, the newest first.
    async fn above(
        &self,
        account: &AccountId,
        floor: RingNumber,
        limit: usize,
    ) -> Result<Vec<RingNumber>, Error> {
        let prefix = prefix(&ring_prefix(account));
        let mut numbers = Vec::new();
        let mut after: Option<Name> = None;
        loop {
            let listing = self.store.list(&prefix, after.as_ref(), PAGE.min(limit));
            let page = within(self.patience, 0, prefix.as_str(), listing).await?;
            for entry in &page {
                // What is no version's name is somebody else's.
                let Some((_, number)) = ring_of_name(entry.name.as_str()) else { continue };
                if number <= floor || numbers.len() == limit {
                    return Ok(numbers);
                }
                numbers.push(number);
            }
            if page.len() < PAGE.min(limit) {
                return Ok(numbers);
            }
            after = page.last().map(|entry| entry.name.clone());
        }
    }

    async fn get(&self, account: &AccountId, number: RingNumber) -> Result<RingVersion, Error> {
        let name = name(account, number);
        let limit = RING_BYTES_MAX as u64;
        let object = within(self.patience, limit, &name, self.store.get(&name, limit)).await?;
        let damaged = |why: String| Error::Damaged { object: name.clone(), why };
        let version = RingVersion::open(object).map_err(|error| damaged(format!("it {error}")))?;
        if (version.header.account, version.header.number) != (*account, number) {
            return Err(damaged(format!("it is {}", version.name())));
        }
        Ok(version)
    }
}

fn name(account: &AccountId, number: RingNumber) -> Name {
    Name::new(ring_name(account, number)).expect("two numbers in hexadecimal digits behind k/")
}

fn prefix(text: &str) -> Prefix {
    Prefix::new(text).expect("k/, and an account in hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use fs_format::ring::{Argon, RING_BODY_STEP, ring_hash};
    use fs_store::{Entry, Memory};

    use super::*;

    const ONE: AccountId = AccountId([1; 16]);
    const TWO: AccountId = AccountId([2; 16]);

    /// A version that nobody can open, but everybody can move. Makers are told apart by their salt.
    fn version(account: AccountId, number: u64, maker: u8) -> RingVersion {
        let header = RingHeader {
            account,
            number: RingNumber(number),
            argon: Argon::MIN,
            passphrase_salt: [0; 32],
            by_passphrase: [0; 48],
            by_kit: [0; 48],
            salt: [maker; 32],
        };
        let mut object = header.encode(RING_BODY_STEP).to_vec();
        object.resize(object.len() + RING_BODY_STEP + 16, 0);
        object.extend_from_slice(&ring_hash(&object));
        RingVersion::open(object.into()).expect("a version")
    }

    fn rings() -> (Rings, Arc<Memory>) {
        let store = Arc::new(Memory::default());
        (Rings::new(store.clone()), store)
    }

    async fn put(store: &Memory, name: &str, bytes: impl Into<Bytes>) {
        store.create(&Name::new(name).expect("a name"), bytes.into()).await.expect("created");
    }

    async fn names(store: &Memory) -> Vec<Name> {
        let entries: Vec<Entry> = store.list(&Prefix::all(), None, 1000).await.expect("a listing");
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[tokio::test]
    async fn the_newest_version_of_each_account_is_found() {
        let (rings, store) = rings();
        assert_eq!(rings.newest().await, Ok(vec![]));
        assert_eq!(rings.newest_of(&ONE).await, Ok(None));
        for n in 1..300 {
            let one = version(ONE, n, 1);
            assert_eq!(rings.publish(&one, RingNumber(n - 1)).await, Ok(Published::Newest));
        }
        rings.publish(&version(TWO, 7, 1), RingNumber(0)).await.expect("published");
        for foreign in ["k/0", "k/notes.txt", "k/zz/1", "p/x"] {
            put(&store, foreign, "somebody else's").await;
        }
        assert_eq!(rings.newest().await, Ok(vec![Ok(version(ONE, 299, 1)), Ok(version(TWO, 7, 1))]));
        assert_eq!(rings.newest_of(&ONE).await, Ok(Some(version(ONE, 299, 1))));
    }

    #[tokio::test]
    async fn a_crowd_of_accounts_has_an_end() {
        let (rings, _) = rings();
        for n in 0..40 {
            rings.publish(&version(AccountId([n; 16]), 1, 1), RingNumber(0)).await.expect("published");
        }
        assert_eq!(rings.newest().await.expect("a listing").len(), ACCOUNTS_MAX);
    }

    #[tokio::test]
    async fn publishing_again_is_success_and_another_version_of_the_number_is_told() {
        let (rings, store) = rings();
        let (ours, theirs) = (version(ONE, 3, 1), version(ONE, 3, 2));
        assert_eq!(rings.publish(&theirs, RingNumber(0)).await, Ok(Published::Newest));
        assert_eq!(rings.publish(&theirs, RingNumber(0)).await, Ok(Published::Newest), "after a lost answer");
        let beside = Published::Beside(vec![theirs.clone()]);
        assert_eq!(rings.publish(&ours, RingNumber(0)).await, Ok(beside));
        // United, it is the version after, and nothing was overwritten.
        assert_eq!(rings.publish(&version(ONE, 4, 1), RingNumber(3)).await, Ok(Published::Newest));
        assert_eq!(names(&store).await.len(), 2);
        assert_eq!(rings.get(&ONE, RingNumber(3)).await, Ok(theirs));
    }

    #[tokio::test]
    async fn nothing_that_was_there_is_overlooked() {
        // Whoever was away makes a low number; whoever comes later sees it, although its own is higher.
        let (rings, _) = rings();
        let (low, high) = (version(ONE, 2, 1), version(ONE, 5, 2));
        rings.publish(&version(ONE, 1, 9), RingNumber(0)).await.expect("published");
        assert_eq!(rings.publish(&low, RingNumber(1)).await, Ok(Published::Newest));
        assert_eq!(
            rings.publish(&high, RingNumber(1)).await,
            Ok(Published::Beside(vec![low.clone()])),
            "it had seen the first only"
        );
        let another = version(ONE, 3, 3);
        let Ok(Published::Beside(beside)) = rings.publish(&another, RingNumber(1)).await else {
            panic!("it is not the newest")
        };
        assert_eq!(beside, [high, low]);
    }

    #[tokio::test]
    async fn what_lies_under_a_wrong_name_is_damaged() {
        let (rings, store) = rings();
        let right = version(TWO, 1, 1);
        put(&store, &ring_name(&ONE, RingNumber(4)), version(ONE, 3, 1).object).await;
        put(&store, &ring_name(&TWO, RingNumber(1)), right.object.clone()).await;
        let mut flipped = version(ONE, 9, 1).object.to_vec();
        flipped[300] ^= 1;
        put(&store, &ring_name(&AccountId([3; 16]), RingNumber(9)), flipped).await;

        let found = rings.newest().await.expect("a listing");
        assert!(matches!(&found[0], Err(Error::Damaged { .. })), "an old version under a new name");
        assert_eq!(found[1], Ok(right));
        assert!(matches!(&found[2], Err(Error::Damaged { .. })), "a flipped bit");
        assert!(matches!(rings.newest_of(&ONE).await, Err(Error::Damaged { .. })));
    }
}
