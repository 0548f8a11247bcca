//! From a URL to a store.

use std::sync::Arc;

use crate::bucket::Bucket;
use crate::ipfs::Ipfs;
use crate::url::{Place, Url};
use crate::webdav::WebDav;
use crate::{Folder, Memory, Store, StoreError, Surroundings};

/// Opens the store of a URL, with what lies around for credentials.
///
/// Asks no server yet, so a store that is away can be opened; a folder must be there. It says *denied* when
/// there are no credentials, with the places that were looked at.
pub async fn open(url: &Url, around: &Surroundings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &url.0 {
        Place::S3 { .. } | Place::Gcs { .. } | Place::Azure { .. } => Arc::new(Bucket::open(url, around)?),
        Place::Folder(path) => Arc::new(Folder::open(path).await?),
        Place::WebDav(_) => Arc::new(WebDav::open(url, around)?),
        Place::Ipfs { .. } => Arc::new(Ipfs::open(url, around)?),
        Place::Memory(name) => Arc::new(Memory::named(name)),
    })
}
