//! Checking: reads everything that a volume keeps, and names what is damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fs_format::manifest::PackEntry;
use fs_format::tree::{Extent, Node, NodePtr, RecordKind};
use fs_format::{ChunkId, Ino, NodeId, PackId, PackNumber, Seq};

use crate::env::OpenMode;
use crate::history::{History, View};
use crate::layers::decode;
use crate::store::pack_path;
use crate::{FsError, OpenError};

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

/// The largest piece of a pack that is hashed at once, in bytes.
const HASH_STEP: usize = 1 << 20;

impl History {
    /// Reads every manifest, pack, node and chunk of every moment; each thing once.
    ///
    /// `progress` is told the bytes done and the bytes in all.
    pub fn check(&self, progress: &dyn Fn(u64, u64)) -> Result<CheckReport, OpenError> {
        let mut report = CheckReport::default();
        let mut views: Vec<View> = Vec::new();
        for seq in self.seqs()? {
            match self.at(seq) {
                Ok(view) => views.push(view),
                Err(error @ OpenError::Disk { .. }) => return Err(error),
                Err(error) => report.damage.push(Damage {
                    what: error.to_string(),
                    seals: Some((seq, seq)),
                    path: None,
                    range: None,
                }),
            }
        }
        report.seals = views.len() as u64;
        let mut packs: BTreeMap<PackNumber, PackEntry> = BTreeMap::new();
        for number in 0..self.store.table().count() {
            let number = PackNumber(number as u32);
            match self.store.pack_entry(number) {
                Ok(entry) => drop(packs.insert(number, entry)),
                Err(error) => report.damage.push(Damage {
                    what: error.to_string(),
                    seals: None,
                    path: None,
                    range: None,
                }),
            }
        }
        let total: u64 = packs.values().map(|entry| u64::from(entry.bytes)).sum();
        let mut bad_packs: HashMap<PackId, String> = HashMap::new();
        for entry in packs.values() {
            if let Err(what) = self.check_pack(entry) {
                bad_packs.insert(entry.object, what);
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
            done: total,
            total,
        };
        for view in &views {
            walk.node(view, &view.root().pointer, progress);
        }
        // A pack whose damage no frame shows: its padding, or what nothing refers to any more.
        let named: BTreeSet<String> = walk.report.damage.iter().map(|damage| damage.what.clone()).collect();
        for (object, what) in bad_packs {
            if !named.iter().any(|name| name.contains(&object.to_hex())) {
                walk.report.damage.push(Damage { what, seals: None, path: None, range: None });
            }
        }
        progress(total * 2, total * 2);
        Ok(walk.report)
    }

    /// Compares a pack with its name.
    fn check_pack(&self, entry: &PackEntry) -> Result<(), String> {
        let path = pack_path(&entry.object);
        let fail = |error: std::io::Error| format!("{path}: {error}");
        let file = self.store.env.disk.open(&path, OpenMode::Read).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        if len != u64::from(entry.bytes) {
            return Err(format!("{path} has {len} bytes, the pack table says {}", entry.bytes));
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_STEP];
        let mut at = 0;
        while at < len {
            let step = (len - at).min(HASH_STEP as u64) as usize;
            file.read_at(&mut buffer[..step], at).map_err(fail)?;
            hasher.update(&buffer[..step]);
            at += step as u64;
        }
        if hasher.finalize().as_bytes() != &entry.object.0 {
            return Err(format!("{path} is not what its name says"));
        }
        Ok(())
    }
}

struct Walk {
    report: CheckReport,
    seen_nodes: HashSet<NodeId>,
    seen_chunks: HashSet<ChunkId>,
    /// Damage by what is damaged, so that later moments only widen it.
    bad: HashMap<(NodeId, ChunkId), Vec<usize>>,
    done: u64,
    total: u64,
}

const NO_CHUNK: ChunkId = ChunkId([0; 16]);
const NO_NODE: NodeId = NodeId([0; 32]);

impl Walk {
    fn node(&mut self, view: &View, pointer: &NodePtr, progress: &dyn Fn(u64, u64)) {
        if let Some(known) = self.bad.get(&(pointer.id, NO_CHUNK)) {
            for &index in known {
                widen(&mut self.report.damage[index], view.info().seq);
            }
            return;
        }
        if !self.seen_nodes.insert(pointer.id) {
            return;
        }
        self.report.nodes += 1;
        self.done += u64::from(pointer.location.len);
        progress(self.done.min(self.total * 2), self.total * 2);
        // Not from the cache: the point is what lies on the disk.
        match view.store().read_node(pointer) {
            Err(error) => self.add((pointer.id, NO_CHUNK), view, error, None, None),
            Ok(Node::Branch { children, .. }) => {
                for (_, child) in children {
                    self.node(view, &child, progress);
                }
            }
            Ok(Node::Leaf(records)) => {
                for (key, value) in records {
                    if key.kind != RecordKind::Extent {
                        continue;
                    }
                    match decode(Extent::decode(&value), "an extent") {
                        Err(error) => self.add((pointer.id, NO_CHUNK), view, error, Some(key.ino), None),
                        Ok(extent) => self.extent(view, key.ino, key.sub, &extent, progress),
                    }
                }
            }
        }
    }

    fn extent(&mut self, view: &View, ino: Ino, offset: u64, extent: &Extent, progress: &dyn Fn(u64, u64)) {
        let range = Some((offset, offset + u64::from(extent.len)));
        let id = extent.chunk.chunk;
        if self.bad.contains_key(&(NO_NODE, id)) {
            let what = FsError::Damaged(format!("chunk {id} is shared with a damaged one"));
            self.add((NO_NODE, id), view, what, Some(ino), range);
            return;
        }
        if !self.seen_chunks.insert(id) {
            return;
        }
        self.report.chunks += 1;
        self.done += u64::from(extent.chunk.location.len);
        progress(self.done.min(self.total * 2), self.total * 2);
        match view.store().read_chunk(&extent.chunk) {
            Err(error) => self.add((NO_NODE, id), view, error, Some(ino), range),
            Ok(bytes) if bytes.len() < (extent.chunk.skip + extent.len) as usize => {
                let error = FsError::Damaged(format!("chunk {id} is shorter than an extent says"));
                self.add((NO_NODE, id), view, error, Some(ino), range);
            }
            Ok(_) => {}
        }
    }

    fn add(
        &mut self,
        name: (NodeId, ChunkId),
        view: &View,
        error: FsError,
        ino: Option<Ino>,
        range: Option<(u64, u64)>,
    ) {
        let seq = view.info().seq;
        let path = ino.and_then(|ino| view.path(ino).ok().flatten());
        self.bad.entry(name).or_default().push(self.report.damage.len());
        self.report.damage.push(Damage { what: error.to_string(), seals: Some((seq, seq)), path, range });
    }
}

fn widen(damage: &mut Damage, seq: Seq) {
    if let Some((first, last)) = &mut damage.seals {
        *first = (*first).min(seq);
        *last = (*last).max(seq);
    }
}
