//! A store that is opened when it is first asked, for a volume that can be used without it.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::{Abilities, Entry, Name, Prefix, Store, StoreError, Surroundings, Url, open};

/// The store of a URL. What keeps it from being opened is the answer to each request, until it can be.
#[derive(Debug)]
pub struct Later {
    url: Url,
    around: Surroundings,
    opened: OnceCell<Arc<dyn Store>>,
}

impl Later {
    /// The store of this URL, not opened yet.
    pub fn new(url: Url, around: Surroundings) -> Later {
        Later { url, around, opened: OnceCell::new() }
    }

    async fn opened(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.opened.get_or_try_init(|| open(&self.url, &self.around)).await
    }
}

#[async_trait]
impl Store for Later {
    /// None before it is opened.
    fn abilities(&self) -> Abilities {
        self.opened.get().map_or(Abilities { create_if_absent: false }, |store| store.abilities())
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.opened().await?.create(name, bytes).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.opened().await?.get(name, limit).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.opened().await?.get_range(name, range).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.opened().await?.list(prefix, after, limit).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.opened().await?.remove(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[tokio::test]
    async fn it_can_be_asked_as_soon_as_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("store");
        let url = format!("file://{}", root.display()).parse().expect("a URL");
        let later = Later::new(url, Surroundings::default());
        let name = Name::new("a/b").expect("a name");
        let error = later.get(&name, 10).await.expect_err("it is not there");
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        std::fs::create_dir(&root).expect("made");
        later.create(&name, Bytes::from_static(b"bytes")).await.expect("created");
        assert_eq!(later.get(&name, 10).await.expect("read"), "bytes");
    }
}
