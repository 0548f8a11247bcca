//! A store in memory, for tests: what all others must do, in a few lines.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError, flow};

/// A store in memory. Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<Name, Bytes>>>,
}

/// The stores of this process that have a name.
static NAMED: LazyLock<Mutex<HashMap<String, Memory>>> = LazyLock::new(Mutex::default);

impl Memory {
    /// The store of that name in this process, which is made when it is first asked for and stays.
    pub fn named(name: &str) -> Memory {
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.entry(name.to_owned()).or_default().clone()
    }

    /// No step under the lock leaves the map in between, so a panic elsewhere does not spoil it.
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Name, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, action: &'static str, name: &Name) -> Result<Bytes, StoreError> {
        let found = self.objects().get(name).cloned();
        found.ok_or_else(|| StoreError::new(Kind::Absent, action, name, ""))
    }
}

#[async_trait]
impl Store for Memory {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: true }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        flow::sent(bytes.len()).await;
        match self.objects().entry(name.clone()) {
            Occupied(_) => Err(StoreError::new(Kind::Exists, "create", name, "")),
            Vacant(free) => {
                free.insert(bytes);
                Ok(())
            }
        }
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let bytes = self.find("get", name)?;
        within(name, bytes.len() as u64, limit)?;
        flow::received(bytes.len());
        Ok(bytes)
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        not_empty(name, &range)?;
        let bytes = self.find("get", name)?;
        reaches(name, bytes.len() as u64, &range)?;
        flow::received((range.end - range.start) as usize);
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let from =
            after.filter(|name| name.as_str() >= prefix.as_str()).map_or(Bound::Unbounded, Bound::Excluded);
        let objects = self.objects();
        let below = objects.range((from, Bound::Unbounded)).filter(|(name, _)| prefix.holds(name));
        let entry = |(name, bytes): (&Name, &Bytes)| Entry { name: name.clone(), size: bytes.len() as u64 };
        Ok(below.take(limit).map(entry).collect())
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.objects().remove(name);
        Ok(())
    }
}

/// An object must not be larger than was asked for.
pub(crate) fn within(name: &Name, size: u64, limit: u64) -> Result<(), StoreError> {
    if size <= limit {
        return Ok(());
    }
    Err(StoreError::new(Kind::Damaged, "get", name, format_args!("{size} bytes, of which {limit} may be")))
}

/// A range must hold something.
pub(crate) fn not_empty(name: &Name, range: &Range<u64>) -> Result<(), StoreError> {
    if range.start < range.end {
        return Ok(());
    }
    let what = format_args!("the range {}..{} holds nothing", range.start, range.end);
    Err(StoreError::new(Kind::Refused, "get", name, what))
}

/// An object must reach to the end of a range.
pub(crate) fn reaches(name: &Name, size: u64, range: &Range<u64>) -> Result<(), StoreError> {
    if range.end <= size {
        return Ok(());
    }
    let what = format_args!("{size} bytes do not reach to the end of {}..{}", range.start, range.end);
    Err(StoreError::new(Kind::Damaged, "get", name, what))
}
