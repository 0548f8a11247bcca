//! From a URL to a store.

use std::sync::Arc;

use crate::anew::Anew;
use crate::ipfs::Ipfs;
use crate::url::{Place, Url};
use crate::{Folder, Kind, Memory, Store, StoreError, Surroundings};

/// Opens the store of a URL, with what lies around for credentials.
///
/// Asks no server yet, so a store that is away can be opened; a folder must be there. It says *denied* when
/// there are no credentials, with the places that were looked at. Once open, it takes up other credentials when those that it
/// has are denied and their file has changed.
pub async fn open(url: &Url, around: &Surroundings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match &url.0 {
        Place::S3 { .. } | Place::Gcs { .. } | Place::Azure { .. } | Place::WebDav(_) => {
            Arc::new(Anew::open(url, around)?)
        }
        Place::Folder(path) => {
            if let Some(why) = around.shut_out(path) {
                // It may pass: what lies on the folder goes, and the folder is there.
                return Err(StoreError::new(Kind::Unreachable, "open", path.display().to_string(), why));
            }
            Arc::new(Folder::open(path).await?)
        }
        Place::Ipfs { .. } => Arc::new(Ipfs::open(url, around)?),
        Place::Memory(name) => Arc::new(Memory::named(name)),
    })
}
