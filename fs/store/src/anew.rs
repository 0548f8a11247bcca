//! A store whose credentials change while it is used.
//!
//! Invariants
//! - It is opened anew only after a denial, and only if one of the files with its credentials is another one since.
//! - A request is made twice at most; what is denied then is denied.
//! - Of what was in a file its hash is kept, and that is shown nowhere.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::bucket::{Bucket, google_files};
use crate::surroundings::read;
use crate::url::Place;
use crate::webdav::WebDav;
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError, Surroundings, Url, aws, netrc};

/// A store behind credentials, as it was opened last.
pub(crate) struct Anew {
    url: Url,
    around: Surroundings,
    opened: Mutex<Arc<Opened>>,
}

struct Opened {
    store: Arc<dyn Store>,
    /// What was in each file that was looked at, before it was opened; none where there was nothing to read.
    seen: Vec<Option<blake3::Hash>>,
}

impl fmt::Debug for Anew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Anew").field(&self.opened().store).finish()
    }
}

impl Opened {
    fn new(url: &Url, around: &Surroundings, seen: Vec<Option<blake3::Hash>>) -> Result<Opened, StoreError> {
        let store: Arc<dyn Store> = match &url.0 {
            Place::WebDav(_) => Arc::new(WebDav::open(url, around)?),
            _ => Arc::new(Bucket::open(url, around)?),
        };
        Ok(Opened { store, seen })
    }
}

impl Anew {
    /// The store of a URL of such a kind. Asks nobody yet.
    pub(crate) fn open(url: &Url, around: &Surroundings) -> Result<Anew, StoreError> {
        // Looked at first: what changes in between is seen as a change later.
        let seen = look(url, around);
        let opened = Mutex::new(Arc::new(Opened::new(url, around, seen)?));
        Ok(Anew { url: url.clone(), around: around.clone(), opened })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Arc<Opened> {
        self.lock().clone()
    }

    /// The store with other credentials than those that were denied, if there are any.
    fn other_than(&self, denied: &Arc<Opened>) -> Result<Option<Arc<dyn Store>>, StoreError> {
        let mut opened = self.lock();
        if Arc::ptr_eq(&opened, denied) {
            let seen = look(&self.url, &self.around);
            if seen == denied.seen {
                return Ok(None);
            }
            *opened = match Opened::new(&self.url, &self.around, seen) {
                Ok(opened) => Arc::new(opened),
                // It says what is wrong with the file.
                Err(error) if error.kind() == Kind::Denied => return Err(error),
                Err(_) => return Ok(None),
            };
        }
        Ok(Some(opened.store.clone()))
    }

    async fn ask<T, F>(&self, request: impl Fn(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let opened = self.opened();
        match request(opened.store.clone()).await {
            // Nothing was done, so it can be asked for again.
            Err(error) if error.kind() == Kind::Denied => match self.other_than(&opened)? {
                Some(other) => request(other).await,
                None => Err(error),
            },
            answer => answer,
        }
    }
}

/// What is in the files that have the credentials of a store.
fn look(url: &Url, around: &Surroundings) -> Vec<Option<blake3::Hash>> {
    let files: Vec<PathBuf> = match &url.0 {
        Place::S3 { .. } => aws::files(around, url),
        Place::Gcs { .. } => google_files(around, url),
        Place::WebDav(_) => netrc::files(around, url),
        Place::Azure { .. } | Place::Folder(_) | Place::Memory(_) | Place::Ipfs { .. } => Vec::new(),
    };
    files.iter().map(|path| Some(blake3::hash(read(path).ok()??.as_bytes()))).collect()
}

#[async_trait]
impl Store for Anew {
    fn abilities(&self) -> Abilities {
        self.opened().store.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.ask(|store| {
            let bytes = bytes.clone();
            async move { store.create(name, bytes).await }
        })
        .await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.ask(|store| async move { store.get(name, limit).await }).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.ask(|store| {
            let range = range.clone();
            async move { store.get_range(name, range).await }
        })
        .await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.ask(|store| async move { store.list(prefix, after, limit).await }).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.ask(|store| async move { store.remove(name).await }).await
    }
}
