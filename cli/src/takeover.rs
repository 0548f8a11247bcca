//! Opening a volume from a store: to read it, or to take it over and go on writing.
//!
//! Invariants
//! - The folder begins at the store's newest manifest; nothing of a past that was not committed stays in it.
//! - Where the head is not the one that was expected, nothing is claimed; where it moved since, nothing is committed.
//! - What the first seal of the new epoch names is in the store before its slot.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::manifest::manifest_id;
use fs_format::{Epoch, Ino, Seq};
use fs_replication::{Cut, Far, Link, LocalError, Names, Signer, Slot, StoreId};
use fs_store::{Patience, Patient, READ_TIME_MAX, Store, StoreError};
use fs_volume::env::Env;
use fs_volume::{History, Options, ReadTree, Volume};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::expectation::{self, Expected};
use crate::failure::{Context, Failure, Kind, Result};
use crate::lazy_disk;
use crate::name::VolumeName;
use crate::replica::Pen;
use crate::stores;

/// Memory for a look at what a store holds.
const CACHE_BYTES: u64 = 16 << 20;

/// Makes an empty folder ready to be opened at the store's newest manifest, and says which that is.
pub fn begin(folder: &Path, far: &Far) -> Result<(Env, Link)> {
    let (env, newest) = lazy_disk::prepare(folder, far).map_err(|error| newest_failure(&error))?;
    let id = manifest_id(&newest.manifest);
    Ok((env, Link { epoch: newest.header.epoch, seq: newest.header.seq, id }))
}

/// Takes what was not sealed out of a volume's folder.
pub fn empty_journal(folder: &Path) -> Result<()> {
    let journal = folder.join("journal");
    for entry in fs::read_dir(&journal).context(journal.display())? {
        let path = entry.context(journal.display())?.path();
        fs::remove_file(&path).context(path.display())?;
    }
    Ok(())
}

/// Refuses to write a volume from a store that is a copy, unless a person says that it decides from now on.
pub fn require_arbiter(env: &Env, key: &VolumeKey, store: StoreId, url: &str) -> Result<()> {
    let history = History::open(env.clone(), key.id(), key.read_key(), CACHE_BYTES)
        .map_err(|error| Failure::new(Kind::Damaged, format!("the volume in {url}: {error}")))?;
    let arbiter =
        history.arbiter().map_err(|error| Failure::new(Kind::Damaged, format!("{url}: {error}")))?;
    match arbiter {
        Some(other) if other.0 != store.0 => Err(Failure::new(
            Kind::NotPermitted,
            format!("{url} is a copy: another store decides who may write the volume"),
        )
        .hint(
            "open it from that store, or read-only from this one; if that one is lost for good, --promote lets this one \
             decide from now on",
        )),
        _ => Ok(()),
    }
}

/// Refuses to end the writer's right for a volume that nobody could go on with.
fn require_root(env: &Env, key: &VolumeKey) -> Result<()> {
    let damaged = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Damaged, format!("what the store holds cannot be opened: {error}"))
            .hint("whoever writes the volume goes on; what is whole in the store, --read-only shows")
    };
    let history =
        History::open(env.clone(), key.id(), key.read_key(), CACHE_BYTES).map_err(|error| damaged(&error))?;
    let head = history.head().and_then(|head| history.at(head.seq)).map_err(|error| damaged(&error))?;
    head.attr(Ino::ROOT).map(drop).map_err(|error| damaged(&error))
}

/// Refuses a kind of store that holds copies only: two devices could take a volume over from it at once.
pub fn require_create_if_absent(store: &Patient, url: &str) -> Result<()> {
    if store.abilities().create_if_absent {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Foreign,
        format!("{url} holds copies only: it cannot decide who may write the volume"),
    )
    .hint("open it there with --read-only, or take the volume over from the store that decides"))
}

/// Takes the volume over: the next seal of it is made here, and no longer where it was written before.
pub fn take(
    store: &Patient,
    (volume, folder): (&VolumeName, &Path),
    env: Env,
    key: &VolumeKey,
    device: &DeviceSecret,
    expected: Expected<'_>,
) -> Result<Cut> {
    require_root(&env, key)?;
    let remote = stores::remote(store, key.id());
    let claimant = Claimant {
        pen: Pen { key: key.clone(), volume: key.id(), device: device.pseudonym(&key.id()).0 },
        folder: folder.to_owned(),
        env,
        device: device.clone(),
        store: store.clone(),
        runtime: stores::handle()?,
        volume: volume.clone(),
        expected,
        unexpected: Mutex::default(),
    };
    stores::block_on(async {
        remote.claim(&claimant).await.map_err(|error| {
            use fs_replication::ClaimError as Of;
            let unexpected = claimant.unexpected.lock().take();
            if let Some(failure) = unexpected {
                return failure;
            }
            match error {
                Of::Rival(_) | Of::Overtaken(_) => Failure::new(Kind::InTheWay, error.to_string())
                    .hint("if it is this machine that is to write the volume, try again"),
                Of::Empty => Failure::new(Kind::NotFound, error.to_string()),
                Of::Failed(error) => error.into(),
            }
        })
    })
}

fn newest_failure(error: &fs_replication::NewestError) -> Failure {
    use fs_replication::NewestError as Of;
    match error {
        Of::Nothing(_) => {
            Failure::new(Kind::NotFound, error.to_string()).hint("is it the right URL, and the right key?")
        }
        Of::Damaged { .. } => Failure::new(Kind::Damaged, error.to_string()).hint(
            "whoever writes the volume has it whole, and gives it a new store (`comb store remove`, `comb store add` with another \
             prefix or folder); if nobody does any more, `comb volume open NAME --key-file F --store URL --read-only \
             --accept-rollback` opens the newest seal that is whole, and `comb fork NAME@head NEW` goes on from there",
        ),
        Of::Store(error) => stores::failure(error),
        Of::Away(_) => Failure::new(Kind::Unreachable, error.to_string()),
    }
}

/// Makes the first seal of a new epoch.
struct Claimant<'a> {
    pen: Pen,
    folder: PathBuf,
    env: Env,
    device: DeviceSecret,
    store: Patient,
    runtime: Handle,
    volume: VolumeName,
    expected: Expected<'a>,
    /// Why the volume is left to whoever has it.
    unexpected: Mutex<Option<Failure>>,
}

impl Claimant<'_> {
    fn refuse(&self, failure: Failure) -> LocalError {
        let error = LocalError::new("taking the volume over", failure.message.clone());
        *self.unexpected.lock() = Some(failure);
        error
    }

    /// Puts the folder back to where the store's head is: a seal of ours that lost its slot goes.
    fn begin_at(&self, head: &Slot) -> Result<()> {
        let manifests = self.folder.join("manifests");
        for entry in fs::read_dir(&manifests).context(manifests.display())? {
            let entry = entry.context(manifests.display())?;
            let number = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
            if number.is_some_and(|number| number > head.seq.0) {
                fs::remove_file(entry.path()).context(entry.path().display())?;
            }
        }
        empty_journal(&self.folder)?;
        for (name, bytes) in [(fs_volume::manifest_path(head.seq), &head.bytes), ("head".into(), &head.bytes)]
        {
            // Not in place: a branch may share the file.
            let (path, new) = (self.folder.join(name), self.folder.join(".new-head"));
            fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).context(path.display())?;
        }
        Ok(())
    }

    fn seal(&self, epoch: Epoch, head: &Slot) -> Result<Bytes> {
        self.begin_at(head)?;
        let fail = |what: &str, error: &dyn std::fmt::Display| Failure::other(format!("{what}: {error}"));
        let volume = Volume::open(self.env.clone(), self.pen.key.clone(), &self.device, Options::default())
            .map_err(|error| fail("opening the volume", &error))?;
        let seal = volume.take_over(epoch).map_err(|error| fail("sealing", &error))?;
        let history = volume.history();
        let outgoing = history.outgoing(seal.seq, false).map_err(|error| fail("sealing", &error))?;
        let names = Names::of(&self.pen.volume);
        for (pack, _) in outgoing.packs {
            let bytes = history.pack_object(&pack).map_err(|error| fail("reading a pack", &error))?;
            let (store, name) = (self.store.with(Patience::Within(READ_TIME_MAX)), names.pack(&pack));
            let created = self.wait(async move { store.create(&name, bytes.into()).await })?;
            match created {
                Err(error) if error.kind() != fs_store::Kind::Exists => return Err(stores::failure(&error)),
                _ => {}
            }
        }
        let manifest = history.manifest_object(seal.seq).map_err(|error| fail("sealing", &error))?;
        // The journal holds nothing, and the volume is opened again by whoever mounts it.
        volume.give_back_journal();
        Ok(manifest.into())
    }

    /// Lets other threads do it and waits: this one drives the claim.
    fn wait(
        &self,
        work: impl Future<Output = std::result::Result<(), StoreError>> + Send + 'static,
    ) -> Result<std::result::Result<(), StoreError>> {
        let (tell, told) = mpsc::channel();
        self.runtime.spawn(async move {
            // Who asked waits for it.
            let _ = tell.send(work.await);
        });
        told.recv().map_err(|_| Failure::other("sending a pack ended early"))
    }
}

impl Signer for Claimant<'_> {
    fn claim(&self, epoch: Epoch) -> std::result::Result<Bytes, LocalError> {
        if !self.expected.is_anything() && epoch != self.expected.epoch {
            let what = format!("volume \"{}\" was claimed by another device meanwhile", self.volume);
            return Err(self.refuse(Failure::new(Kind::Unexpected, what)));
        }
        self.pen.claim(epoch)
    }

    fn manifest(&self, epoch: Epoch, head: &Slot) -> std::result::Result<Bytes, LocalError> {
        if !self.expected.fits(head) {
            return Err(self.refuse(expectation::unexpected(&self.volume, Some(head), None)));
        }
        self.seal(epoch, head).map_err(|failure| LocalError::new("taking the volume over", failure.message))
    }

    fn boundary(&self, epoch: Epoch, seq: Seq) -> std::result::Result<Bytes, LocalError> {
        self.pen.boundary(epoch, seq)
    }
}
