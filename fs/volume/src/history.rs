//! The sealed past: reading any moment, and telling two of them apart.

use std::sync::Arc;

use fs_crypto::{ReadKey, VolumeKey};
use fs_format::manifest::{ManifestBody, PackEntry};
use fs_format::{Ino, PackNumber, Seq, VolumeId};
use parking_lot::Mutex;

use crate::env::Env;
use crate::keys::Keys;
use crate::layers::{self, Layers};
use crate::manifests::Manifest;
use crate::moments::Moments;
use crate::readahead::Streams;
use crate::store::Store;
use crate::tree::{Fault, Root};
use crate::types::*;
use crate::{FsError, OpenError, diff, manifests, seal};

/// The sealed moments of a volume. Cheap to clone.
#[derive(Clone)]
pub struct History {
    volume: VolumeId,
    own: ReadKey,
    pub(crate) store: Arc<Store>,
    moments: Arc<Mutex<Moments>>,
}

/// One moment, as it was.
#[derive(Clone)]
pub struct View {
    store: Arc<Store>,
    root: Root,
    info: SealInfo,
    body: Arc<ManifestBody>,
    streams: Arc<Streams>,
}

impl History {
    /// Opens the past of the volume in the folder; needs no lock and changes nothing.
    pub fn open(env: Env, volume: VolumeId, key: ReadKey, cache_bytes: u64) -> Result<Self, OpenError> {
        let head = manifests::newest(&env, &volume, &key)?;
        let keys = Arc::new(Keys::new(head.read_key));
        let store = Store::new(env, keys, head.body.packs, cache_bytes);
        head.damage.into_iter().chain(head.copied).for_each(|what| store.found.note(what));
        Ok(Self::of(volume, key, Arc::new(store)))
    }

    pub(crate) fn of(volume: VolumeId, own: ReadKey, store: Arc<Store>) -> Self {
        Self { volume, own, store, moments: Arc::default() }
    }

    /// The newest moment.
    pub fn head(&self) -> Result<SealInfo, OpenError> {
        Ok(self.newest()?.info)
    }

    /// What was found damaged so far.
    pub fn damage(&self) -> Vec<String> {
        self.store.found.list()
    }

    /// All moments, oldest first.
    ///
    /// Costs a look at the names of the manifests and at those that no list of moments holds yet. A
    /// manifest that turns out to be damaged is left out, and named by [`History::damage`].
    pub fn seals(&self) -> Result<Vec<SealInfo>, OpenError> {
        self.moments.lock().list(&self.store.env, &self.volume, &self.own, &self.store.found)
    }

    /// Takes in a moment that was just sealed, so that the list of moments stays new for others.
    pub(crate) fn note(&self, info: &SealInfo) {
        // Whoever is busy with the moments finds this one by itself; a seal does not wait for that.
        if let Some(mut moments) = self.moments.try_lock() {
            moments.note(&self.store.env, &self.own, info);
        }
    }

    /// Opens the moment that `choose` picks from all moments, oldest first.
    pub fn find<E>(
        &self,
        choose: impl Fn(&[SealInfo]) -> Result<Seq, E>,
    ) -> Result<Result<View, E>, OpenError> {
        let mut is_second = false;
        loop {
            let seals = self.seals()?;
            let seq = match choose(&seals) {
                Ok(seq) => seq,
                Err(error) => return Ok(Err(error)),
            };
            let view = self.at(seq);
            let is_as_listed = view.as_ref().is_ok_and(|view| seals.contains(&view.info));
            if is_as_listed || is_second {
                return view.map(Ok);
            }
            tracing::warn!(%seq, "the manifest is not what the list of moments says: reading all of them");
            self.moments.lock().distrust();
            is_second = true;
        }
    }

    /// Reads a manifest; the newest also from its copy.
    pub(crate) fn manifest(&self, seq: Seq) -> Result<Manifest, OpenError> {
        match manifests::read(&self.store.env, &self.volume, &self.own, seq) {
            Err(error @ OpenError::Damaged { .. }) => match self.newest() {
                Ok(newest) if newest.header.seq == seq => Ok(newest),
                _ => Err(error),
            },
            other => other,
        }
    }

    /// The moment with this number.
    pub fn at(&self, seq: Seq) -> Result<View, OpenError> {
        let manifest = match self.manifest(seq) {
            Err(OpenError::Damaged { .. }) if !manifests::list(&self.store.env)?.contains(&seq) => {
                return Err(OpenError::NoSuchSnapshot(format!("seq {seq}")));
            }
            other => other?,
        };
        self.store.extend(&manifest.body.packs);
        let root = Root { pointer: manifest.body.root, height: manifest.body.height };
        let (store, streams) = (self.store.clone(), Arc::new(Streams::new(self.store.cache_bytes())));
        Ok(View { store, root, info: manifest.info, body: Arc::new(manifest.body), streams })
    }

    /// What differs between two moments, sorted by path; costs what changed.
    pub fn diff(&self, from: Seq, to: Seq) -> Result<Vec<Change>, FsError> {
        let view = |seq| self.at(seq).map_err(|error| FsError::Damaged(error.to_string()));
        diff::changes(&view(from)?, &view(to)?)
    }

    /// The newest manifest, or what stands in for it.
    pub(crate) fn newest(&self) -> Result<Manifest, OpenError> {
        manifests::newest(&self.store.env, &self.volume, &self.own)
    }

    /// The packs of all moments, the newest first. Reads the pack table as it goes.
    pub fn packs(&self) -> impl Iterator<Item = Result<PackEntry, FsError>> {
        let count = u32::try_from(self.store.table().count()).unwrap_or(u32::MAX);
        (0..count).rev().map(|number| self.store.pack_entry(PackNumber(number)))
    }

    /// Compares the copy of the newest manifest with it.
    pub(crate) fn check_copy(&self, newest: Seq) -> Result<(), OpenError> {
        manifests::check_copy(&self.store.env, &self.volume, &self.own, newest)
    }

    /// The numbers of all manifests, damaged ones included.
    pub(crate) fn seqs(&self) -> Result<Vec<Seq>, OpenError> {
        manifests::list(&self.store.env)
    }
}

/// Makes a new volume in the folder `env` that begins at a moment of another one.
///
/// Brings the packs over with `bring(path)`, one call for each, before the manifest that names them.
pub fn fork(
    from: &History,
    seq: Seq,
    env: &Env,
    key: &VolumeKey,
    bring: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> Result<SealInfo, OpenError> {
    let view = from.at(seq)?;
    let at = |what: &str| {
        let what = what.to_string();
        move |source| OpenError::Disk { what, source }
    };
    for folder in ["packs", "journal", "manifests"] {
        env.disk.create_dir(folder).map_err(at(folder))?;
    }
    if !manifests::list(env)?.is_empty() {
        return Err(OpenError::AlreadyAVolume("the folder".into()));
    }
    let damaged =
        |error: FsError| OpenError::Damaged { what: "the new volume".into(), detail: error.to_string() };
    for number in 0..view.body.packs.count() {
        let entry = from.store.pack_entry(PackNumber(number as u32)).map_err(damaged)?;
        let path = crate::store::pack_path(&entry.object);
        bring(&path).map_err(at(&path))?;
    }
    env.disk.sync_dir("packs").map_err(at("packs"))?;
    env.disk.sync_dir("").map_err(at("the volume's folder"))?;
    let store = Store::new(env.clone(), from.store.keys.clone(), view.body.packs.clone(), 2 << 20);
    seal::fork(&store, key, &from.store.keys.read, &view.body).map_err(damaged)
}

impl View {
    /// Which moment it is.
    pub fn info(&self) -> &SealInfo {
        &self.info
    }

    /// Finds what a path names.
    pub fn resolve(&self, path: &[u8]) -> Result<Attr, FsError> {
        resolve(self, path)
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn body(&self) -> &ManifestBody {
        &self.body
    }

    pub(crate) fn layers(&self) -> Layers<'_, &Store> {
        Layers { upper: [None, None], root: self.root, nodes: &self.store, keys: &self.store.keys }
    }

    /// The path of an inode by its known names; `None` where one is not known.
    pub(crate) fn path(&self, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
        settle(self.layers().path(ino))
    }
}

/// Finds what a path below the root names; `""` and `/` name the root itself.
pub fn resolve(tree: &dyn ReadTree, path: &[u8]) -> Result<Attr, FsError> {
    let mut attr = tree.attr(Ino::ROOT)?;
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        attr = tree.lookup(attr.ino, name)?;
    }
    Ok(attr)
}

/// A look that may wait never misses.
pub(crate) fn settle<T>(result: Result<T, Fault>) -> Result<T, FsError> {
    result.map_err(|fault| match fault {
        Fault::Error(error) => error,
        Fault::Miss(pointer) => FsError::Damaged(format!("node {} could not be waited for", pointer.id)),
    })
}

impl ReadTree for View {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let layers = self.layers();
        settle(layers.directory(parent))?;
        let (_, dirent) = settle(layers.dirent(parent, name))?.ok_or(FsError::NotFound)?;
        settle(layers.attr(dirent.ino))
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        settle(self.layers().attr(ino))
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        settle(self.layers().read_link(ino))
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        let layers = self.layers();
        if let Some((from, to)) = self.streams.note(ino, offset, offset.saturating_add(len as u64))
            && self.store.reads_ahead()
            && let Ok(plan) = layers.plan_ahead(ino, from, to)
        {
            layers::want(&self.store, &plan);
        }
        let inode = settle(layers.inode(ino))?;
        if inode.kind == fs_format::FileKind::Directory {
            return Err(FsError::IsADirectory);
        }
        let end = offset.saturating_add(len as u64).min(inode.size);
        let plan = if end > offset { settle(layers.plan(ino, offset, end))? } else { Vec::new() };
        let done =
            layers::fetch_with(&self.store, None, &plan, offset, end.saturating_sub(offset) as usize, take);
        done.inspect_err(|error| {
            if error.is_about_the_disk() {
                let path = self.path(ino).ok().flatten().unwrap_or_default();
                let path = String::from_utf8_lossy(&path);
                self.store.found.note(format!("{path}: seq {}: {error}", self.info.seq));
            }
        })
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        settle(self.layers().read_dir(dir, cookie, limit))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        Ok(settle(self.layers().xattr(ino, name))?.ok_or(FsError::NoAttribute)?.1.value.into_vec())
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        settle(self.layers().xattrs(ino))
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        settle(self.layers().seek(ino, offset, what))
    }
}
