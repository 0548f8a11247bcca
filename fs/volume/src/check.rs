//! Checking: reads everything that a volume keeps, and names what is damaged; and puts back what was found elsewhere.
//!
//! What a level of a check looks at, and what may be mended, says `fs/docs/replication.md`, section 12.
//!
//! Invariants
//! - Checking changes nothing.
//! - Mending gives a file its name only when its bytes are durable and are what the name says. What lay there before is
//!   kept in `damaged/`.
//!
//! A damaged chunk is a range of bytes of a file. A damaged node is everything between two keys of the tree: what is
//! lost with it is named by the entries of directories that still lead there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::ops::RangeInclusive;

use fs_format::ledger::PackFate;
use fs_format::manifest::{PackEntry, manifest_id};
use fs_format::tree::{Dirent, Extent, Key, Location, Node, NodePtr, RecordKind};
use fs_format::{Epoch, Ino, ManifestId, NodeId, PackId, PackNumber, Seq};

use crate::env::OpenMode;
use crate::history::{History, View};
use crate::layers::decode;
use crate::ledger::{self, Moment};
use crate::store::{disk_error, pack_path, read_error};
use crate::{FsError, OpenError, manifests, replace};

/// Where damaged files go when a whole one takes their place.
const DAMAGED: &str = "damaged";
/// What is being written in place of a damaged pack; whoever opens the volume for writing removes what a crash left.
const NEW_PACK: &str = "packs/.new-mended";
const NEW_MANIFEST: &str = "manifests/.new-mended";

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Moments that were read.
    pub seals: u64,
    /// Packs that were hashed, and their bytes.
    pub packs: u64,
    /// Bytes of packs.
    pub bytes: u64,
    /// Nodes that were read.
    pub nodes: u64,
    /// Chunks that were read.
    pub chunks: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Packs of which no whole file is here: damaged, or missing.
    pub bad_packs: Vec<PackEntry>,
    /// Manifests that are here and damaged, of moments whose records say which they were.
    pub bad_manifests: Vec<(Seq, ManifestId)>,
    /// Packs that are not here and need not be, since a store has them; and their bytes.
    pub elsewhere: (u64, u64),
    /// Why the check ended early: a store did not answer. That says nothing of damage.
    pub away: Option<String>,
}

/// One damaged thing and what it means to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What was found, with the file and the place in it.
    pub what: String,
    /// The first and the last moment that show it; none for a pack that nothing refers to.
    pub seals: Option<(Seq, Seq)>,
    /// The path, where it is known.
    pub path: Option<Vec<u8>>,
    /// The bytes of the file that cannot be read.
    pub range: Option<(u64, u64)>,
}

impl Damage {
    /// Damage of a thing as a whole.
    fn whole(what: String, seals: Option<(Seq, Seq)>) -> Self {
        Self { what, seals, path: None, range: None }
    }
}

/// The most paths that are named for one damaged node.
const PATHS_MAX: usize = 100;

impl History {
    /// Looks at the manifests that are here.
    pub fn check_manifests(&self) -> Result<CheckReport, OpenError> {
        let mut report = CheckReport::default();
        self.check_head(&mut report)?;
        let moments = self.moments()?;
        report.seals = moments.len() as u64;
        self.compare_manifests(&moments, &mut report)?;
        Ok(report)
    }

    /// The same, and whether each pack that is needed is here, with the length that the pack table says.
    pub fn check_packs(&self) -> Result<CheckReport, OpenError> {
        let mut report = self.check_manifests()?;
        let (packs, unknown) = self.needed_packs()?;
        report.damage.extend(unknown.into_iter().map(|error| Damage::whole(error.to_string(), None)));
        for entry in packs {
            let (bytes, path) = (u64::from(entry.bytes), pack_path(&entry.object));
            if self.is_elsewhere(&entry.object) {
                report.elsewhere = (report.elsewhere.0 + 1, report.elsewhere.1 + bytes);
                continue;
            }
            report.packs += 1;
            report.bytes += bytes;
            let found = self.store.env.disk.open(&path, OpenMode::Read).and_then(|file| file.len());
            let what = match found {
                Ok(found) if found == bytes => continue,
                Ok(found) => wrong_length(&entry, found),
                Err(error) => read_error(&path, &error).to_string(),
            };
            report.damage.push(Damage::whole(what, None));
            report.bad_packs.push(entry);
        }
        Ok(report)
    }

    /// Reads every manifest that is here, and every pack, node and chunk of every moment; each thing once.
    ///
    /// `progress` is told the bytes done and the bytes in all.
    pub fn check(&self, progress: &dyn Fn(u64, u64)) -> Result<CheckReport, OpenError> {
        let mut report = self.check_manifests()?;
        let views: Vec<View> = self.moments()?.into_iter().map(|moment| self.view(moment)).collect();
        let (packs, unknown) = self.needed_packs()?;
        report.damage.extend(unknown.into_iter().map(|error| Damage::whole(error.to_string(), None)));
        let total: u64 = packs.iter().map(|entry| u64::from(entry.bytes)).sum();
        let mut bad_packs: HashMap<PackId, String> = HashMap::new();
        for entry in packs {
            match self.check_pack(&entry) {
                Ok(()) => {}
                Err(FsError::Away(why)) => {
                    report.away = Some(why);
                    return Ok(report);
                }
                Err(error) => {
                    bad_packs.insert(entry.object, error.to_string());
                    report.bad_packs.push(entry);
                }
            }
            report.packs += 1;
            report.bytes += u64::from(entry.bytes);
            progress(report.bytes, total * 2);
        }
        let mut walk = Walk {
            report,
            seen_nodes: HashSet::new(),
            seen_chunks: HashSet::new(),
            bad: HashMap::new(),
            lost: Vec::new(),
            done: total,
            total,
        };
        for view in &views {
            walk.node(view, &view.root().pointer, (Key::FIRST, None), progress);
        }
        for view in &views {
            walk.name_lost(view);
        }
        // A pack whose damage no frame shows: its padding, or what nothing refers to any more.
        let named: BTreeSet<String> = walk.report.damage.iter().map(|damage| damage.what.clone()).collect();
        for (object, what) in bad_packs {
            if !named.iter().any(|name| name.contains(&object.to_hex())) {
                walk.report.damage.push(Damage::whole(what, None));
            }
        }
        progress(total * 2, total * 2);
        Ok(walk.report)
    }

    /// The packs that the volume needs: all of the table but those that are gone, or may be at any time. And why
    /// others are not known.
    pub fn needed_packs(&self) -> Result<(Vec<PackEntry>, Vec<FsError>), OpenError> {
        let head = self.newest_moment()?;
        // Where that cannot be read, a walk says so.
        let fates = ledger::fates(&self.store, &head.root).unwrap_or_default();
        let (mut packs, mut unknown) = (Vec::new(), Vec::new());
        for number in 0..self.store.table().count() {
            let number = PackNumber(number as u32);
            if matches!(fates.get(&number), Some(PackFate::Doomed { .. } | PackFate::Gone)) {
                continue;
            }
            match self.store.pack_entry(number) {
                Ok(entry) => packs.push(entry),
                Err(error) => unknown.push(error),
            }
        }
        Ok((packs, unknown))
    }

    /// The epoch that the newest seal was made in.
    pub fn epoch(&self) -> Result<Epoch, OpenError> {
        Ok(self.newest_moment()?.epoch)
    }

    /// Which manifest each seal has, as far as that is known here: of moments, and of what was dropped and waits to be
    /// replicated.
    pub fn manifest_ids(&self) -> Result<BTreeMap<Seq, ManifestId>, OpenError> {
        let moments = self.moments()?;
        let mut ids: BTreeMap<Seq, ManifestId> =
            moments.iter().map(|moment| (moment.info.seq, moment.info.id)).collect();
        for seq in self.seqs()? {
            if !ids.contains_key(&seq)
                && let Ok(manifest) = self.manifest(seq)
            {
                ids.insert(seq, manifest.info.id);
            }
        }
        Ok(ids)
    }

    /// Whether a pack is not on this disk, and need not be.
    pub fn is_elsewhere(&self, pack: &PackId) -> bool {
        self.store.env.disk.ahead().is_some_and(|ahead| !ahead.is_here(&pack_path(pack)))
    }

    /// Puts a whole pack where a damaged one lies, or none. Bytes that are not what the name says are refused.
    pub fn mend_pack(&self, pack: &PackId, object: &[u8]) -> Result<(), FsError> {
        let path = pack_path(pack);
        if blake3::hash(object).as_bytes() != &pack.0 {
            return Err(FsError::Damaged(format!(
                "{path}: what was to take its place is not what its name says"
            )));
        }
        self.put_aside_for(NEW_PACK, &path, object)?;
        self.store.close_pack(pack);
        Ok(())
    }

    /// Puts a whole manifest where a damaged one lies. Bytes that do not have this name are refused.
    pub fn mend_manifest(&self, seq: Seq, id: &ManifestId, object: &[u8]) -> Result<(), FsError> {
        let path = manifests::path(seq);
        if manifest_id(object) != *id {
            return Err(FsError::Damaged(format!("{path}: what was to take its place is another manifest")));
        }
        self.put_aside_for(NEW_MANIFEST, &path, object)
    }

    /// Makes a file durable, moves what has its name to `damaged/`, and gives it the name.
    fn put_aside_for(&self, temporary: &str, path: &str, object: &[u8]) -> Result<(), FsError> {
        let disk = &*self.store.env.disk;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let fail = |error: std::io::Error| disk_error(path, &error);
        replace::stage(disk, temporary, |file| file.write_at(object, 0).and_then(|()| file.sync()))
            .map_err(fail)?;
        let aside = format!("{DAMAGED}/{name}");
        disk.create_dir(DAMAGED).map_err(fail)?;
        match disk.rename(path, &aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        // A crash between these two leaves it missing, which the next check mends as well.
        disk.rename(temporary, path).map_err(fail)?;
        [folder, DAMAGED, ""].into_iter().try_for_each(|folder| disk.sync_dir(folder)).map_err(fail)
    }

    /// Compares the manifests that are here with the records of their moments.
    ///
    /// One that is not here is no damage: nobody needs it to open its moment.
    fn compare_manifests(&self, moments: &[Moment], report: &mut CheckReport) -> Result<(), OpenError> {
        let newest = moments.last().map_or(Seq(0), |moment| moment.info.seq);
        for seq in self.seqs()?.into_iter().filter(|seq| *seq != newest) {
            let known = moments.binary_search_by_key(&seq, |moment| moment.info.seq).ok();
            // What retention dropped may stay until it is replicated.
            if known.is_none() && seq < newest {
                continue;
            }
            let what = match (self.manifest(seq), known) {
                (Err(error), _) => error.to_string(),
                (Ok(manifest), Some(i)) if manifest.info.id != moments[i].info.id => {
                    format!("{} is not the manifest that its record names", manifests::path(seq))
                }
                _ => continue,
            };
            report.damage.push(Damage::whole(what, Some((seq, seq))));
            report.bad_manifests.extend(known.map(|i| (seq, moments[i].info.id)));
        }
        Ok(())
    }

    /// Compares a pack with its name and its line.
    fn check_pack(&self, entry: &PackEntry) -> Result<(), FsError> {
        match self.store.check_pack(&entry.object)? {
            bytes if bytes == u64::from(entry.bytes) => Ok(()),
            bytes => Err(FsError::Damaged(wrong_length(entry, bytes))),
        }
    }

    /// Compares the newest manifest with its copy: each of the two stands in for the other.
    fn check_head(&self, report: &mut CheckReport) -> Result<(), OpenError> {
        let newest = self.newest()?;
        let seq = newest.header.seq;
        if let Some(what) = newest.copied {
            let what = format!("{what}: its copy `head` is whole, and mounting the volume writes it anew");
            report.damage.push(Damage::whole(what, Some((seq, seq))));
        } else if let Err(error) = self.check_copy(seq) {
            let what = format!(
                "{error}: manifests have what it is a copy of, and whoever opens the volume for writing makes it anew"
            );
            report.damage.push(Damage::whole(what, None));
        }
        Ok(())
    }
}

fn wrong_length(entry: &PackEntry, found: u64) -> String {
    format!("{} has {found} bytes, the pack table says {}", pack_path(&entry.object), entry.bytes)
}

/// What a node holds: the keys from the first on, and before the second if there is one.
type Span = (Key, Option<Key>);

/// A node that cannot be read.
struct Lost {
    /// Its line in the report.
    damage: usize,
    /// The moment that showed it first.
    seq: Seq,
    /// Inodes of which it held something.
    inos: RangeInclusive<Ino>,
}

struct Walk {
    report: CheckReport,
    seen_nodes: HashSet<NodeId>,
    /// By their places: a chunk that could not be read any more may have been stored again.
    seen_chunks: HashSet<Location>,
    /// Damage by what is damaged, so that later moments only widen it.
    bad: HashMap<Thing, Vec<usize>>,
    lost: Vec<Lost>,
    done: u64,
    total: u64,
}

/// What may be damaged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Node(NodeId),
    Chunk(Location),
}

impl Walk {
    fn node(&mut self, view: &View, pointer: &NodePtr, span: Span, progress: &dyn Fn(u64, u64)) {
        if let Some(known) = self.bad.get(&Thing::Node(pointer.id)) {
            for &index in known {
                widen(&mut self.report.damage[index], view.info().seq);
            }
            return;
        }
        if self.report.away.is_some() || !self.seen_nodes.insert(pointer.id) {
            return;
        }
        self.report.nodes += 1;
        self.done += u64::from(pointer.location.len);
        progress(self.done.min(self.total * 2), self.total * 2);
        // Not from the cache: the point is what lies on the disk.
        match view.store().read_node(pointer) {
            Err(FsError::Away(why)) => self.report.away = Some(why),
            Err(error) => {
                let last = span.1.map_or(Ino::MAX, |next| match next.kind {
                    RecordKind::Inode => Ino(next.ino.0.saturating_sub(1)),
                    _ => next.ino,
                });
                let (damage, seq) = (self.report.damage.len(), view.info().seq);
                self.lost.push(Lost { damage, seq, inos: span.0.ino..=last });
                self.add(Thing::Node(pointer.id), view, error, None, None);
            }
            Ok(Node::Branch { children, .. }) => {
                for (i, (first, child)) in children.iter().enumerate() {
                    let next = children.get(i + 1).map_or(span.1, |(next, _)| Some(*next));
                    self.node(view, child, (*first, next), progress);
                }
            }
            Ok(Node::Leaf(records)) => {
                for (key, value) in records {
                    if key.kind != RecordKind::Extent {
                        continue;
                    }
                    match decode(Extent::decode(&value), "an extent") {
                        Err(error) => self.add(Thing::Node(pointer.id), view, error, Some(key.ino), None),
                        Ok(extent) => self.extent(view, key.ino, key.sub, &extent, progress),
                    }
                }
            }
        }
    }

    /// Names what is lost with the nodes that this moment was the first to show.
    fn name_lost(&mut self, view: &View) {
        let here = self.lost.iter().filter(|lost| lost.seq == view.info().seq);
        // No entry leads to the root.
        let root = |lost: &Lost| lost.inos.contains(&Ino::ROOT).then(|| b"/".to_vec());
        let mut lost: Vec<(&Lost, Vec<Vec<u8>>)> =
            here.map(|lost| (lost, root(lost).into_iter().collect())).collect();
        if lost.is_empty() {
            return;
        }
        each_dirent(view, &view.root().pointer, &mut |dir, dirent| {
            for (lost, paths) in &mut lost {
                if lost.inos.contains(&dirent.ino)
                    && paths.len() < PATHS_MAX
                    && let Ok(Some(mut path)) = view.path(dir)
                {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&dirent.name);
                    paths.push(path);
                }
            }
        });
        let named: Vec<(usize, Vec<Vec<u8>>)> =
            lost.into_iter().map(|(lost, paths)| (lost.damage, paths)).collect();
        for (index, paths) in named {
            let mut paths = paths.into_iter();
            self.report.damage[index].path = paths.next();
            let like = self.report.damage[index].clone();
            self.report.damage.extend(paths.map(|path| Damage { path: Some(path), ..like.clone() }));
        }
    }

    fn extent(&mut self, view: &View, ino: Ino, offset: u64, extent: &Extent, progress: &dyn Fn(u64, u64)) {
        let range = Some((offset, offset + u64::from(extent.len)));
        let id = extent.chunk.chunk;
        let thing = Thing::Chunk(extent.chunk.location);
        if self.bad.contains_key(&thing) {
            let what = FsError::Damaged(format!("chunk {id} is shared with a damaged one"));
            self.add(thing, view, what, Some(ino), range);
            return;
        }
        if self.report.away.is_some() || !self.seen_chunks.insert(extent.chunk.location) {
            return;
        }
        self.report.chunks += 1;
        self.done += u64::from(extent.chunk.location.len);
        progress(self.done.min(self.total * 2), self.total * 2);
        match view.store().read_chunk(&extent.chunk) {
            Err(FsError::Away(why)) => self.report.away = Some(why),
            Err(error) => self.add(thing, view, error, Some(ino), range),
            Ok(bytes) if bytes.len() < (extent.chunk.skip + extent.len) as usize => {
                let error = FsError::Damaged(format!("chunk {id} is shorter than an extent says"));
                self.add(thing, view, error, Some(ino), range);
            }
            Ok(_) => {}
        }
    }

    fn add(
        &mut self,
        thing: Thing,
        view: &View,
        error: FsError,
        ino: Option<Ino>,
        range: Option<(u64, u64)>,
    ) {
        let seq = view.info().seq;
        let path = ino.and_then(|ino| view.path(ino).ok().flatten());
        self.bad.entry(thing).or_default().push(self.report.damage.len());
        self.report.damage.push(Damage { what: error.to_string(), seals: Some((seq, seq)), path, range });
    }
}

/// Calls `f` with each entry of a directory that can be read, and the directory.
fn each_dirent(view: &View, pointer: &NodePtr, f: &mut dyn FnMut(Ino, Dirent)) {
    match view.store().node(pointer).as_deref() {
        Ok(Node::Branch { children, .. }) => {
            children.iter().for_each(|(_, child)| each_dirent(view, child, f));
        }
        Ok(Node::Leaf(records)) => {
            for (key, value) in records.iter().filter(|(key, _)| key.kind == RecordKind::Dirent) {
                if let Ok(dirent) = Dirent::decode(value) {
                    f(key.ino, dirent);
                }
            }
        }
        // It is in the report.
        Err(_) => {}
    }
}

fn widen(damage: &mut Damage, seq: Seq) {
    if let Some((first, last)) = &mut damage.seals {
        *first = (*first).min(seq);
        *last = (*last).max(seq);
    }
}
