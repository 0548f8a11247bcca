//! A volume without an engine: keys, manifests and packs that are made up.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use fs_format::claim::{BOUNDARY_CONTEXT, Boundary, CLAIM_CONTEXT, Claim};
use fs_format::manifest::{Lineage, MANIFEST_CONTEXT, ManifestHeader, manifest_id, signed_digest};
use fs_format::{DeviceId, Epoch, ManifestId, PackId, Seq, Timestamp, VolumeId};

use crate::{Commit, Early, Held, Local, LocalError, Signer, Slot};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn sign(context: &str, message: &[u8]) -> [u8; 64] {
    let digest = signed_digest(context, message);
    SIGNED.with_borrow_mut(|signed| *signed.entry(digest).or_insert_with(|| key().sign(&digest).to_bytes()))
}

thread_local! {
    static SIGNED: RefCell<HashMap<[u8; 32], [u8; 64]>> = RefCell::default();
    static OPENED: RefCell<HashMap<(TypeId, ManifestId), Box<dyn Any>>> = RefCell::default();
    static VOLUME: VolumeId = VolumeId(key().verifying_key().to_bytes());
}

/// What `open` says of an object, asked once for each.
pub fn remembered<T: Clone + 'static>(object: &[u8], open: impl FnOnce(&[u8]) -> T) -> T {
    let key = (TypeId::of::<T>(), manifest_id(object));
    OPENED.with_borrow_mut(|opened| {
        let said = opened.entry(key).or_insert_with(|| Box::new(open(object)));
        said.downcast_ref::<T>().expect("its type is its key").clone()
    })
}

pub fn volume() -> VolumeId {
    VOLUME.with(|volume| *volume)
}

/// A manifest of which the body is of no interest; `salt` tells it from others at its place.
pub fn manifest(epoch: u64, seq: u64, parent: ManifestId, salt: u8) -> Bytes {
    let header = ManifestHeader {
        body_bytes: 16,
        volume: volume(),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        parent,
        salt: [salt; 32],
        lineage: Lineage::Own,
        has_moved: false,
        device: DeviceId([7; 16]),
    };
    let mut object = header.encode().to_vec();
    object.extend_from_slice(&[5; 16]);
    let signature = sign(MANIFEST_CONTEXT, &object);
    object.extend_from_slice(&signature);
    object.into()
}

pub fn boundary(epoch: Epoch, seq: Seq) -> Bytes {
    let boundary = Boundary { volume: volume(), epoch, seq };
    Bytes::copy_from_slice(&boundary.encode(&sign(BOUNDARY_CONTEXT, &boundary.message())))
}

pub fn pack(fill: u64, bytes: usize) -> (PackId, Bytes) {
    let mut object = vec![fill as u8; bytes];
    object[..8].copy_from_slice(&fill.to_le_bytes());
    (PackId(*blake3::hash(&object).as_bytes()), object.into())
}

/// Seals that are here.
#[derive(Debug, Default)]
pub struct Folder {
    sealed: Mutex<Sealed>,
}

#[derive(Debug, Default, Clone)]
struct Sealed {
    manifests: BTreeMap<Seq, Bytes>,
    added: BTreeMap<Seq, Vec<(PackId, u64)>>,
    packs: BTreeMap<PackId, Bytes>,
    /// The seal that is being made.
    early: Option<Early>,
    /// Manifests that are on a branch.
    branch: Vec<Bytes>,
    /// Manifests that are in a store, and come when they are asked for.
    far: BTreeMap<Seq, Bytes>,
}

impl Folder {
    /// A folder that begins with this manifest.
    pub fn begin(seq: u64, first: Bytes) -> Folder {
        let folder = Folder::default();
        folder.sealed.lock().expect("no panic").manifests.insert(Seq(seq), first);
        folder
    }

    /// A folder that begins at `first` with a manifest of epoch 1 that follows nothing known, and has `count` of it.
    pub fn sealed(first: u64, count: u64, salt: u8) -> Folder {
        let folder = Folder::begin(first, manifest(1, first, ManifestId([0; 32]), salt));
        (1..count).for_each(|_| folder.seal(1, salt, &[]));
        folder
    }

    /// The same in another place, as a clone of the machine has it.
    pub fn cloned(&self) -> Folder {
        Folder { sealed: Mutex::new(self.sealed.lock().expect("no panic").clone()) }
    }

    /// Goes on from another folder's past up to `seq`, of which only the newest manifest is here; what is behind it here becomes
    /// a branch.
    pub fn taken_over(&self, other: &Folder, cut: Seq) {
        let mut sealed = self.sealed.lock().expect("no panic");
        let tail = sealed.manifests.split_off(&cut);
        sealed.branch.extend(tail.into_values());
        sealed.far = other.manifests();
        let newest = sealed.far.last_key_value().map(|(seq, bytes)| (*seq, bytes.clone()));
        sealed.manifests.extend(newest);
        let added = other.sealed.lock().expect("no panic").added.clone();
        sealed.added.extend(added.into_iter().filter(|(seq, _)| *seq >= cut));
        let packs = other.sealed.lock().expect("no panic").packs.clone();
        sealed.packs.extend(packs);
    }

    /// What is on its branch.
    pub fn branch(&self) -> Vec<Bytes> {
        self.sealed.lock().expect("no panic").branch.clone()
    }

    /// Puts these there instead.
    pub fn set_branch(&self, manifests: &[Bytes]) {
        self.sealed.lock().expect("no panic").branch = manifests.to_vec();
    }

    /// Seals once more.
    pub fn seal(&self, epoch: u64, salt: u8, packs: &[(PackId, Bytes)]) {
        let mut sealed = self.sealed.lock().expect("no panic");
        let (&last, newest) = sealed.manifests.last_key_value().expect("it begins with one");
        let (seq, parent) = (Seq(last.0 + 1), manifest_id(newest));
        sealed.manifests.insert(seq, manifest(epoch, seq.0, parent, salt));
        sealed.early = None;
        sealed.added.insert(seq, packs.iter().map(|(id, bytes)| (*id, bytes.len() as u64)).collect());
        sealed.packs.extend(packs.iter().cloned());
    }

    /// Begins to seal: these packs are written.
    pub fn begin_seal(&self, packs: &[(PackId, Bytes)]) {
        let seq = Seq(self.last().0 + 1);
        let mut sealed = self.sealed.lock().expect("no panic");
        let list = packs.iter().map(|(id, bytes)| (*id, bytes.len() as u64)).collect();
        sealed.early = Some(Early { seq, packs: list });
        sealed.packs.extend(packs.iter().cloned());
    }

    /// Removes what a seal has written that failed.
    pub fn fail_seal(&self) {
        let mut sealed = self.sealed.lock().expect("no panic");
        for (pack, _) in sealed.early.take().expect("it was begun").packs {
            sealed.packs.remove(&pack);
        }
    }

    /// Gives up what was before this seal, as retention does.
    pub fn begin_with(&self, first: Seq) {
        let mut sealed = self.sealed.lock().expect("no panic");
        sealed.manifests = sealed.manifests.split_off(&first);
    }

    pub fn id(&self, seq: Seq) -> ManifestId {
        manifest_id(&self.sealed.lock().expect("no panic").manifests[&seq])
    }

    pub fn last(&self) -> Seq {
        *self.sealed.lock().expect("no panic").manifests.last_key_value().expect("it begins with one").0
    }

    pub fn manifests(&self) -> BTreeMap<Seq, Bytes> {
        self.sealed.lock().expect("no panic").manifests.clone()
    }

    /// Packs up to a seq.
    pub fn packs_to(&self, seq: Seq) -> Vec<PackId> {
        let sealed = self.sealed.lock().expect("no panic");
        sealed.added.range(..=seq).flat_map(|(_, packs)| packs.iter().map(|(id, _)| *id)).collect()
    }
}

fn missing(what: impl ToString) -> LocalError {
    LocalError::new(what.to_string(), "it is not here")
}

#[async_trait]
impl Local for Folder {
    async fn held(&self) -> Result<Held, LocalError> {
        let sealed = self.sealed.lock().expect("no panic");
        let last = *sealed.manifests.last_key_value().ok_or_else(|| missing("a seal"))?.0;
        let mut first = last;
        while sealed.manifests.contains_key(&Seq(first.0.wrapping_sub(1))) {
            first = Seq(first.0 - 1);
        }
        Ok(Held { first, last })
    }

    async fn manifest(&self, seq: Seq) -> Result<Bytes, LocalError> {
        let mut sealed = self.sealed.lock().expect("no panic");
        if let (false, Some(far)) = (sealed.manifests.contains_key(&seq), sealed.far.get(&seq).cloned()) {
            sealed.manifests.insert(seq, far);
        }
        sealed.manifests.get(&seq).cloned().ok_or_else(|| missing(seq))
    }

    async fn is_on_branch(&self, slot: &Slot) -> Result<bool, LocalError> {
        Ok(self.sealed.lock().expect("no panic").branch.contains(&slot.bytes))
    }

    async fn commit(&self, seq: Seq, is_whole: bool) -> Result<Commit, LocalError> {
        let sealed = self.sealed.lock().expect("no panic");
        let from = if is_whole { Seq(0) } else { seq };
        let packs = sealed.added.range(from..=seq).flat_map(|(_, packs)| packs.clone()).collect();
        Ok(Commit { sealed: Timestamp(seq.0 as i64), packs })
    }

    async fn pack(&self, pack: &PackId) -> Result<Bytes, LocalError> {
        self.sealed.lock().expect("no panic").packs.get(pack).cloned().ok_or_else(|| missing(pack))
    }

    fn early(&self) -> Option<Early> {
        self.sealed.lock().expect("no panic").early.clone()
    }

    async fn early_pack(&self, pack: &PackId) -> Option<Bytes> {
        self.pack(pack).await.ok()
    }
}

/// Signs for a machine; each object it makes is a new one.
pub struct Machine {
    device: u8,
    made: AtomicU8,
}

impl Machine {
    pub fn new(device: u8) -> Arc<Machine> {
        Arc::new(Machine { device, made: AtomicU8::new(0) })
    }

    fn fresh(&self) -> u8 {
        // Devices are numbered in tens.
        self.device * 10 + self.made.fetch_add(1, Ordering::Relaxed)
    }
}

impl Signer for Machine {
    fn claim(&self, epoch: Epoch) -> Result<Bytes, LocalError> {
        let (device, nonce) = ([self.device; 16], [self.fresh(); 32]);
        let claim = Claim { volume: volume(), epoch, device, nonce };
        Ok(Bytes::copy_from_slice(&claim.encode(&sign(CLAIM_CONTEXT, &claim.message()))))
    }

    fn manifest(&self, epoch: Epoch, head: &Slot) -> Result<Bytes, LocalError> {
        Ok(manifest(epoch.0, head.seq.0 + 1, head.id, self.fresh()))
    }

    fn boundary(&self, epoch: Epoch, seq: Seq) -> Result<Bytes, LocalError> {
        Ok(boundary(epoch, seq))
    }
}
