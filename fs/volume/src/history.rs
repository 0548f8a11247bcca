//! The sealed past: reading any moment, and telling two of them apart.
//!
//! The moments are the head and the records that its tree holds of others, so one look at the head finds them all, and
//! nobody reads a manifest to open an earlier one.
//!
//! Invariants
//! - A history is of one epoch, that of the newest moment when it was opened, and all before it. What a number of a moment or of a pack
//!   means in it never changes. A takeover may cut off what was known, and give the same numbers anew: who goes on with that
//!   opens another history.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use fs_crypto::{ReadKey, VolumeKey};
use fs_format::manifest::PackEntry;
use fs_format::tree::Key;
use fs_format::{Epoch, Ino, ManifestId, PackNumber, Seq, StoreId, VolumeId};
use parking_lot::RwLock;

use crate::collection::Marks;
use crate::compaction::Moves;
use crate::env::Env;
use crate::error::is_away;
use crate::keys::Keys;
use crate::layers::{self, Layers};
use crate::ledger::{self, Moment};
use crate::manifests::Manifest;
use crate::readahead::Streams;
use crate::retention::Policy;
use crate::store::{Store, pack_path};
use crate::tree::{self, Fault};
use crate::types::*;
use crate::{FsError, OpenError, diff, manifests, seal, volume};

/// The sealed moments of a volume. Cheap to clone.
#[derive(Clone)]
pub struct History {
    volume: VolumeId,
    own: ReadKey,
    pub(crate) store: Arc<Store>,
    shared: Arc<Shared>,
}

struct Shared {
    /// The newest moment, as far as is known.
    head: RwLock<Moment>,
    /// Whether it is told of each seal. If not, the head is looked for again when somebody asks for the newest, as long as
    /// that is of the same epoch.
    is_told: bool,
    /// Moments that were dropped since: whoever still reads them is told so.
    dropped: RwLock<HashSet<Seq>>,
}

/// One moment, as it was.
#[derive(Clone)]
pub struct View {
    history: History,
    moment: Moment,
    streams: Arc<Streams>,
}

impl History {
    /// Opens the past of the volume in the folder; needs no lock and changes nothing.
    pub fn open(env: Env, volume: VolumeId, key: ReadKey, cache_bytes: u64) -> Result<Self, OpenError> {
        let head = manifests::newest(&env, &volume, &key)?;
        let moment = head.moment();
        let keys = Arc::new(Keys::new(head.read_key));
        let store = Store::new(env, keys, head.body.packs, cache_bytes);
        store.follow(moment.info.seq, moment.root, head.header.has_moved);
        head.damage.into_iter().chain(head.copied).for_each(|what| store.found.note(what));
        Ok(Self::of(volume, key, Arc::new(store), moment, false))
    }

    pub(crate) fn of(volume: VolumeId, own: ReadKey, store: Arc<Store>, head: Moment, is_told: bool) -> Self {
        let (head, dropped) = (RwLock::new(head), RwLock::default());
        Self { volume, own, store, shared: Arc::new(Shared { head, is_told, dropped }) }
    }

    /// The newest moment.
    pub fn head(&self) -> Result<SealInfo, OpenError> {
        Ok(self.newest_moment()?.info)
    }

    /// Whether the newest moment here is of this history, and not of another epoch.
    pub fn is_current(&self) -> Result<bool, OpenError> {
        let newest = manifests::newest(&self.store.env, &self.volume, &self.own)?;
        Ok(self.is_of_it(&newest))
    }

    /// Which moment has this number, as the newest has it recorded; none if retention dropped it.
    pub fn recorded(&self, seq: Seq) -> Result<Option<ManifestId>, OpenError> {
        let head = self.newest_moment()?;
        if head.info.seq == seq {
            return Ok(Some(head.info.id));
        }
        let moment = ledger::moment(&self.store, &head.root, seq);
        let moment = moment.map_err(|error| OpenError::unreadable("the record of the moment", error))?;
        Ok(moment.map(|moment| moment.info.id))
    }

    /// What was found damaged so far. What is missing of a moment that is no longer kept is no damage.
    pub fn damage(&self) -> Vec<String> {
        for seq in self.store.found.moments() {
            if self.was_dropped(seq) {
                self.store.found.forget(seq);
            }
        }
        self.store.found.list()
    }

    /// All moments, oldest first.
    ///
    /// Where the records of moments cannot be read, those whose manifests are here and whole are told instead;
    /// [`History::damage`] names what is wrong.
    pub fn seals(&self) -> Result<Vec<SealInfo>, OpenError> {
        Ok(self.moments()?.into_iter().map(|moment| moment.info).collect())
    }

    /// The moments as [`Self::seals`] lists them, and those of them in which all files are the same as in the one before; but for
    /// snapshots that somebody asked for. Where that cannot be read, they are not.
    pub fn seals_and_repeats(&self) -> Result<(Vec<SealInfo>, BTreeSet<Seq>), OpenError> {
        let moments = self.moments()?;
        let is_repeat = |before: &Moment, moment: &Moment| {
            // The first difference ends it.
            let differs = |_, _: Option<&[u8]>, _: Option<&[u8]>| Err(FsError::Invalid);
            let (old, new) = (&before.info, &moment.info);
            new.snapshot.is_none()
                && (old.files, old.bytes) == (new.files, new.bytes)
                && diff::records(&self.store, &before.root.pointer, &moment.root.pointer, &mut { differs })
                    .is_ok()
        };
        let repeats = moments.windows(2).filter(|pair| is_repeat(&pair[0], &pair[1]));
        let repeats = repeats.map(|pair| pair[1].info.seq).collect();
        Ok((moments.into_iter().map(|moment| moment.info).collect(), repeats))
    }

    /// The moments that there were when this one was sealed, itself the last.
    pub fn seals_as_of(&self, seq: Seq) -> Result<Vec<SealInfo>, FsError> {
        let then = match self.moment_at(seq) {
            // It was dropped since. Its manifest stays until a later one is replicated.
            Err(OpenError::NoSuchSnapshot(_)) => self.manifest(seq).map(|manifest| manifest.moment()),
            then => then,
        };
        let then = then.map_err(|error| FsError::Damaged(error.to_string()))?;
        let mut moments = ledger::moments(&self.store, &then.root)?;
        moments.push(then);
        Ok(moments.into_iter().map(|moment| moment.info).collect())
    }

    /// The seals above this one, oldest first, as the manifests that are here tell them: nothing is read from elsewhere. One that
    /// is damaged is left out.
    pub fn seals_above(&self, above: Option<Seq>) -> Result<Vec<SealInfo>, OpenError> {
        let mut seqs = self.seqs()?;
        seqs.retain(|seq| Some(*seq) > above);
        seqs.sort_unstable();
        Ok(seqs.into_iter().filter_map(|seq| self.manifest(seq).ok()).map(|one| one.moment().info).collect())
    }

    pub(crate) fn moments(&self) -> Result<Vec<Moment>, OpenError> {
        let head = self.newest_moment()?;
        let mut moments = match ledger::moments(&self.store, &head.root) {
            Ok(moments) => moments,
            Err(error) => {
                self.store.found.note_error(&error);
                let before = self.seqs()?.into_iter().filter(|seq| *seq < head.info.seq);
                before.filter_map(|seq| self.manifest(seq).ok()).map(|manifest| manifest.moment()).collect()
            }
        };
        moments.push(head);
        Ok(moments)
    }

    /// Which moments retention keeps; all of them while nobody said so.
    pub fn policy(&self) -> Result<Option<Policy>, FsError> {
        let head = self.newest_moment()?;
        let value = settle(tree::get(&*self.store, &head.root, &Key::POLICY))?;
        value.map(|value| volume::read_policy(&value)).transpose()
    }

    /// The store in which slots decide, as the newest manifest names it.
    pub fn arbiter(&self) -> Result<Option<StoreId>, OpenError> {
        Ok(Some(self.newest()?.body.arbiter).filter(|store| *store != volume::NO_STORE))
    }

    /// Takes in a moment that was just sealed.
    pub(crate) fn note(&self, sealed: Moment) {
        *self.shared.head.write() = sealed;
    }

    /// Takes in that moments were dropped.
    pub(crate) fn forget(&self, dropped: &[Seq]) {
        self.shared.dropped.write().extend(dropped);
    }

    /// Opens the moment that `choose` picks from all moments, oldest first.
    pub fn find<E>(
        &self,
        choose: impl Fn(&[SealInfo]) -> Result<Seq, E>,
    ) -> Result<Result<View, E>, OpenError> {
        match choose(&self.seals()?) {
            Ok(seq) => self.at(seq).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The moment with this number.
    pub fn at(&self, seq: Seq) -> Result<View, OpenError> {
        Ok(self.view(self.moment_at(seq)?))
    }

    pub(crate) fn view(&self, moment: Moment) -> View {
        View { history: self.clone(), moment, streams: Arc::new(Streams::new(self.store.cache_bytes())) }
    }

    pub(crate) fn moment_at(&self, seq: Seq) -> Result<Moment, OpenError> {
        let known = self.shared.head.read().clone();
        if let Some(moment) = self.moment_before(&known, seq)? {
            return Ok(moment);
        }
        let newest = self.newest_moment()?;
        if newest.info.seq != known.info.seq
            && let Some(moment) = self.moment_before(&newest, seq)?
        {
            return Ok(moment);
        }
        // Newer than what is shown as the newest: its manifest is damaged, and says how.
        if seq > newest.info.seq && self.seqs()?.contains(&seq) {
            return self.manifest(seq).map(|manifest| manifest.moment());
        }
        Err(OpenError::NoSuchSnapshot(format!("seq {seq}")))
    }

    /// A moment as the records in the tree of a later one have it.
    fn moment_before(&self, head: &Moment, seq: Seq) -> Result<Option<Moment>, OpenError> {
        if head.info.seq == seq {
            return Ok(Some(head.clone()));
        }
        match ledger::moment(&self.store, &head.root, seq) {
            Ok(moment) => Ok(moment),
            Err(error) => match self.manifest(seq) {
                Ok(manifest) => Ok(Some(manifest.moment())),
                Err(_) => Err(OpenError::unreadable("the record of the moment", error)),
            },
        }
    }

    /// Reads a manifest that is here; the newest also from its copy.
    pub(crate) fn manifest(&self, seq: Seq) -> Result<Manifest, OpenError> {
        match manifests::read(&self.store.env, &self.volume, &self.own, seq) {
            Err(error @ OpenError::Damaged { .. }) => match self.newest() {
                Ok(newest) if newest.header.seq == seq => Ok(newest),
                _ => Err(error),
            },
            Ok(manifest) => {
                self.learn(&manifest);
                Ok(manifest)
            }
            Err(error) => Err(error),
        }
    }

    /// What differs between two moments, sorted by path; costs what changed.
    pub fn diff(&self, from: Seq, to: Seq) -> Result<Vec<Change>, FsError> {
        diff::changes(&self.at(from)?, &self.at(to)?)
    }

    /// The newest manifest, or what stands in for it.
    pub(crate) fn newest(&self) -> Result<Manifest, OpenError> {
        let newest = manifests::newest(&self.store.env, &self.volume, &self.own)?;
        self.learn(&newest);
        Ok(newest)
    }

    /// Learns of the packs that a manifest lists. One of another epoch lists nothing that is new, or others by the same numbers.
    fn learn(&self, manifest: &Manifest) {
        if self.shared.is_told || self.is_of_it(manifest) {
            self.store.extend(&manifest.body.packs);
            let Moment { info, root, .. } = manifest.moment();
            self.store.follow(info.seq, root, manifest.header.has_moved);
        }
    }

    fn is_of_it(&self, manifest: &Manifest) -> bool {
        manifest.header.epoch == self.shared.head.read().epoch
    }

    pub(crate) fn newest_moment(&self) -> Result<Moment, OpenError> {
        if !self.shared.is_told {
            let newest = self.newest()?;
            if self.is_of_it(&newest) {
                *self.shared.head.write() = newest.moment();
            }
        }
        Ok(self.shared.head.read().clone())
    }

    /// Whether a moment that somebody reads is still kept, as far as that is known without looking.
    fn is_kept(&self, seq: Seq) -> bool {
        !self.shared.dropped.read().contains(&seq)
    }

    /// Looks whether a moment of which something could not be read was dropped meanwhile.
    fn was_dropped(&self, seq: Seq) -> bool {
        if self.shared.is_told {
            return !self.is_kept(seq);
        }
        let Ok(head) = self.newest_moment() else { return false };
        seq < head.info.seq && matches!(ledger::moment(&self.store, &head.root, seq), Ok(None))
    }

    /// The packs of all moments that are kept, the newest first. Reads the pack table as it goes.
    pub fn packs(&self) -> impl Iterator<Item = Result<PackEntry, FsError>> {
        let count = u32::try_from(self.store.table().count()).unwrap_or(u32::MAX);
        // Where it cannot be read what collection has given up, too much is asked for, and some of it is missing.
        let newest = self.newest_moment().ok();
        let fates =
            newest.and_then(|newest| ledger::fates(&self.store, &newest.root).ok()).unwrap_or_default();
        let kept = (0..count).rev().map(PackNumber).filter(move |number| !fates.contains_key(number));
        kept.map(|number| self.store.pack_entry(number))
    }

    /// Compares the copy of the newest manifest with it.
    pub(crate) fn check_copy(&self, newest: Seq) -> Result<(), OpenError> {
        manifests::check_copy(&self.store.env, &self.volume, &self.own, newest)
    }

    /// The numbers of all manifests that are here, damaged ones included.
    pub(crate) fn seqs(&self) -> Result<Vec<Seq>, OpenError> {
        manifests::list(&self.store.env)
    }
}

/// Makes a new volume in the folder `env` that begins at a moment of another one.
///
/// Brings the packs over that the moment refers to with `bring(path)`, one call for each, before the manifest that names
/// them. Where that cannot be told, because a node is damaged, brings all there are.
pub fn fork(
    from: &History,
    seq: Seq,
    env: &Env,
    key: &VolumeKey,
    bring: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> Result<SealInfo, OpenError> {
    let newest = from.newest()?;
    let moment = from.moment_at(seq)?;
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
    let unreadable = |error| OpenError::unreadable("the new volume", error);
    let table = from.store.table();
    let moves = match newest.header.has_moved {
        true => Moves::load(&from.store, &newest.moment().root).map_err(unreadable)?,
        false => Moves::default(),
    };
    let mut marks = Marks::new(moves.clone());
    let are_marked =
        match marks.tree(&from.store, &moment.root).and_then(|()| marks.table(&from.store, &table)) {
            Err(error @ FsError::Away(_)) => return Err(unreadable(error)),
            marked => marked.is_ok(),
        };
    let fates = ledger::fates(&from.store, &newest.moment().root).unwrap_or_default();
    let mut gone = Vec::new();
    for number in (0..table.count()).map(|number| PackNumber(number as u32)) {
        let entry = from.store.pack_entry(number).map_err(unreadable)?;
        let is_wanted = if are_marked { marks.has(number, &entry) } else { !fates.contains_key(&number) };
        if is_wanted {
            let path = pack_path(&entry.object);
            // What did not come from afar names itself.
            bring(&path).map_err(|source| match is_away(&source) {
                true => at("what it begins with")(source),
                false => at(&path)(source),
            })?;
        } else {
            gone.push(number);
        }
    }
    env.disk.sync_dir("packs").map_err(at("packs"))?;
    env.disk.sync_dir("").map_err(at("the volume's folder"))?;
    let store = Store::new(env.clone(), from.store.keys.clone(), table, 2 << 20);
    seal::fork(&store, key, &moment, newest.body.next_ino, &gone, moves).map_err(unreadable)
}

impl View {
    /// Which moment it is.
    pub fn info(&self) -> &SealInfo {
        &self.moment.info
    }

    /// Finds what a path names.
    pub fn resolve(&self, path: &[u8]) -> Result<Attr, FsError> {
        resolve(self, path)
    }

    /// The epoch in which it was sealed.
    pub fn epoch(&self) -> Epoch {
        self.moment.epoch
    }

    pub(crate) fn root(&self) -> &tree::Root {
        &self.moment.root
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.history.store
    }

    pub(crate) fn layers(&self) -> Layers<'_, &Store> {
        let store = self.store();
        Layers { upper: [None, None], root: self.moment.root, nodes: store, keys: &store.keys }
    }

    /// Reads, unless the moment was dropped. Then its packs go, and what is missing is no damage. What is missing where it
    /// was last known to lie may have been moved since: that is looked at once more.
    pub(crate) fn read_kept<T>(
        &self,
        mut read: impl FnMut(&Layers<'_, &Store>) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let seq = self.moment.info.seq;
        if !self.history.is_kept(seq) {
            return Err(FsError::Dropped);
        }
        let moves = self.store().moves_as_of();
        let error = match read(&self.layers()) {
            Err(error) if error.is_about_the_disk() => error,
            outcome => return outcome,
        };
        if self.history.was_dropped(seq) {
            self.met(&error.to_string());
            return Err(FsError::Dropped);
        }
        let error = match self.store().moves_as_of() == moves {
            true => error,
            false => match read(&self.layers()) {
                Err(error) if error.is_about_the_disk() => error,
                outcome => return outcome,
            },
        };
        self.met(&error.to_string());
        Err(error)
    }

    /// Notes that what was found damaged matters for as long as this moment is kept. It may have been dropped elsewhere, and what it
    /// needed collected, before that is known here. Who is told of all that is dropped knows what is his.
    fn met(&self, what: &str) {
        if !self.history.shared.is_told {
            self.store().found.met_in(what, self.moment.info.seq);
        }
    }

    /// Notes that a file's bytes could not be read, and which file's, if the disk or a pack is the cause.
    pub(crate) fn note_unreadable(&self, ino: Ino, error: &FsError) {
        if error.is_about_the_disk() {
            let path = self.path(ino).ok().flatten().unwrap_or_default();
            let path = String::from_utf8_lossy(&path);
            let what = format!("{path}: seq {}: {error}", self.moment.info.seq);
            self.store().found.note(what.clone());
            self.met(&what);
        }
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
        self.read_kept(|layers| {
            settle(layers.directory(parent))?;
            let (_, dirent) = settle(layers.dirent(parent, name))?.ok_or(FsError::NotFound)?;
            settle(layers.attr(dirent.ino))
        })
    }

    fn attr(&self, ino: Ino) -> Result<Attr, FsError> {
        self.read_kept(|layers| settle(layers.attr(ino)))
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        self.read_kept(|layers| settle(layers.read_link(ino)))
    }

    fn read_with(
        &self,
        ino: Ino,
        offset: u64,
        len: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), FsError> {
        let store = self.store();
        if let Some((from, to)) = self.streams.note(ino, offset, offset.saturating_add(len as u64))
            && store.reads_ahead()
            && let Ok(plan) = self.layers().plan_ahead(ino, from, to)
        {
            layers::want(store, &plan);
        }
        let done = self.read_kept(|layers| {
            let inode = settle(layers.inode(ino))?;
            if inode.kind == fs_format::FileKind::Directory {
                return Err(FsError::IsADirectory);
            }
            let end = offset.saturating_add(len as u64).min(inode.size);
            let plan = if end > offset { settle(layers.plan(ino, offset, end))? } else { Vec::new() };
            layers::fetch_with(store, None, &plan, offset, end.saturating_sub(offset) as usize, take)
        });
        done.inspect_err(|error| self.note_unreadable(ino, error))
    }

    fn read_dir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<DirEntry>, FsError> {
        self.read_kept(|layers| settle(layers.read_dir(dir, cookie, limit)))
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.read_kept(|layers| {
            Ok(settle(layers.xattr(ino, name))?.ok_or(FsError::NoAttribute)?.1.value.into_vec())
        })
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.read_kept(|layers| settle(layers.xattrs(ino)))
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, FsError> {
        self.read_kept(|layers| settle(layers.seek(ino, offset, what)))
    }
}
