//! The sealed part of a volume, as its uploaders read it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use fs_format::pack::PACK_BYTES_MAX;
use fs_format::{PackId, Seq};
use fs_replication::{Commit, Early, Error, Held, Local, LocalError, Slot};
use fs_volume::{FsError, History};

use crate::failure::Result;
use crate::state::VolumeFolder;
use crate::stores::{self, StoreConfig};

/// The sealed part of a volume, for replication.
pub struct Outbox {
    pub history: History,
    pub folder: VolumeFolder,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Outbox {
    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        what: String,
        work: impl FnOnce(&History) -> std::result::Result<T, FsError> + Send + 'static,
    ) -> std::result::Result<T, LocalError> {
        let history = self.history.clone();
        let done = tokio::task::spawn_blocking(move || work(&history)).await;
        match done {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(LocalError::new(what, error.to_string())),
            Err(error) => Err(LocalError::new(what, error.to_string())),
        }
    }

    /// A pack that cannot be read here, nor from the store that decides, if what is not here is there: any store of the volume
    /// may have it.
    async fn pack_of_stores(
        &self,
        pack: &PackId,
        error: LocalError,
    ) -> std::result::Result<Bytes, LocalError> {
        let config =
            self.folder.config().map_err(|failure| LocalError::new(error.what.clone(), failure.message))?;
        let mut is_lost = true;
        for store in &config.stores {
            match self.pack_of(store, pack).await {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(failure) => {
                    tracing::warn!(store = store.name, %pack, error = failure.message, "the store was not asked for a pack");
                    is_lost = false;
                }
            }
        }
        let rest = match is_lost {
            true => format!(
                "; no store has it whole: `comb check {} --repair` puts back what another place has, and names what is lost",
                self.folder.name
            ),
            false => String::new(),
        };
        Err(LocalError { why: format!("{}{rest}", error.why), is_lost, ..error })
    }

    /// A pack as a store has it; none where the store has it not, or not whole.
    async fn pack_of(&self, config: &StoreConfig, pack: &PackId) -> Result<Option<Bytes>> {
        let store = stores::open_to_read(&config.url, self.folder.id).await?;
        let (id, remote) = (config.store_id()?, stores::remote(&store, self.folder.id));
        let asked = async {
            remote.recognise(id).await?;
            match remote.pack_bytes(pack).await? {
                Some(bytes) if bytes <= PACK_BYTES_MAX => remote.pack(pack, bytes).await.map(Some),
                _ => Ok(None),
            }
        };
        match asked.await {
            // It was emptied, or what it has is not the pack.
            Err(Error::UnknownVolume { .. } | Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(pack) => Ok(pack),
        }
    }
}

#[async_trait]
impl Local for Outbox {
    async fn held(&self) -> std::result::Result<Held, LocalError> {
        let unbroken =
            |history: &History| history.unbroken().map_err(|error| FsError::Damaged(error.to_string()));
        let (first, last) = self.read("manifests".into(), unbroken).await?;
        Ok(Held { first, last })
    }

    async fn manifest(&self, seq: Seq) -> std::result::Result<Bytes, LocalError> {
        self.read(format!("the manifest of seal {seq}"), move |history| history.manifest_object(seq))
            .await
            .map(Bytes::from)
    }

    async fn commit(&self, seq: Seq, is_whole: bool) -> std::result::Result<Commit, LocalError> {
        let seal = self.read(format!("seal {seq}"), move |history| history.outgoing(seq, is_whole)).await?;
        Ok(Commit { sealed: seal.time, packs: seal.packs })
    }

    async fn is_on_branch(&self, slot: &Slot) -> std::result::Result<bool, LocalError> {
        let (folder, name, seal) =
            (self.folder.clone(), fs_volume::manifest_path(slot.seq), slot.bytes.clone());
        let look = move |_: &History| {
            let branches = folder.branches().map_err(|failure| FsError::Disk(failure.message))?;
            Ok(branches
                .iter()
                .any(|branch| std::fs::read(branch.path.join(&name)).is_ok_and(|one| one == seal)))
        };
        self.read("branches".into(), look).await
    }

    async fn pack(&self, pack: &PackId) -> std::result::Result<Bytes, LocalError> {
        let pack = *pack;
        match self.read(format!("pack {pack}"), move |history| history.pack_object(&pack)).await {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => self.pack_of_stores(&pack, error).await,
        }
    }

    fn early(&self) -> Option<Early> {
        self.history.early_packs().map(|(seq, packs)| Early { seq, packs })
    }

    async fn early_pack(&self, pack: &PackId) -> Option<Bytes> {
        let pack = *pack;
        let read = self.read(format!("pack {pack}"), move |history| Ok(history.early_pack(&pack))).await;
        read.ok().flatten().map(Bytes::from)
    }
}
