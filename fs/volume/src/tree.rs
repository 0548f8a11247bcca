//! The copy-on-write B+tree: finding, scanning, and applying a sorted batch of changes.
//!
//! Invariants
//! - What was written never changes; a batch makes a new root and shares the rest.
//! - A batch writes only nodes that hold a changed record, and the branches above them.
//! - The volume's own records and those of files share no leaf.

use std::ops::ControlFlow;
use std::sync::Arc;

use fs_format::tree::{Key, Node, NodePtr, RecordKind, TREE_HEIGHT_MAX};

use crate::FsError;
use crate::store::{Packer, Store};

/// Weight at which a leaf is split.
///
/// An extent weighs four times its bytes, so that a leaf of nothing but extents is a
/// quarter as large: scattered overwrites of a large file rewrite little. So does a moment,
/// of which every seal writes one.
const LEAF_WEIGHT_MAX: usize = 16 << 10;
/// Children at which a branch is split: about 16 KiB.
const BRANCH_CHILDREN_MAX: usize = 320;

/// A record.
pub type Record = (Key, Box<[u8]>);

/// A record and what becomes of it; `None`: it goes.
pub type Edit = (Key, Option<Box<[u8]>>);

/// Why a look into the tree gave no answer.
#[derive(Debug)]
pub enum Fault {
    /// A node is not in the cache, and this look may not wait for it.
    Miss(NodePtr),
    /// The answer is an error.
    Error(FsError),
}

impl From<FsError> for Fault {
    fn from(error: FsError) -> Self {
        Fault::Error(error)
    }
}

/// Where nodes come from.
pub trait Nodes {
    /// The node, or why not.
    fn node(&self, pointer: &NodePtr) -> Result<Arc<Node>, Fault>;
}

/// Nodes from the cache or the disk: may wait.
impl Nodes for Store {
    fn node(&self, pointer: &NodePtr) -> Result<Arc<Node>, Fault> {
        Ok(Store::node(self, pointer)?)
    }
}

impl<N: Nodes> Nodes for &N {
    fn node(&self, pointer: &NodePtr) -> Result<Arc<Node>, Fault> {
        (**self).node(pointer)
    }
}

/// A root and its height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// The topmost node.
    pub pointer: NodePtr,
    /// Branches on the way from it to a leaf.
    pub height: u8,
}

/// Finds a record.
pub fn get(nodes: &impl Nodes, root: &Root, key: &Key) -> Result<Option<Box<[u8]>>, Fault> {
    let mut node = nodes.node(&root.pointer)?;
    loop {
        let next = match &*node {
            Node::Leaf(records) => {
                return Ok(records
                    .binary_search_by_key(key, |(at, _)| *at)
                    .ok()
                    .map(|i| records[i].1.clone()));
            }
            Node::Branch { children, .. } => {
                let i = children.partition_point(|(first, _)| first <= key);
                if i == 0 {
                    return Ok(None);
                }
                children[i - 1].1
            }
        };
        node = nodes.node(&next)?;
    }
}

/// Visits the records in `from..to` in order until the visitor breaks.
pub fn scan(
    nodes: &impl Nodes,
    root: &Root,
    from: &Key,
    to: &Key,
    visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>,
) -> Result<(), Fault> {
    scan_node(nodes, &root.pointer, from, to, visit).map(|_| ())
}

fn scan_node(
    nodes: &impl Nodes,
    pointer: &NodePtr,
    from: &Key,
    to: &Key,
    visit: &mut dyn FnMut(&Key, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Fault> {
    match &*nodes.node(pointer)? {
        Node::Leaf(records) => {
            let start = records.partition_point(|(key, _)| key < from);
            for (key, value) in &records[start..] {
                if key >= to {
                    return Ok(ControlFlow::Break(()));
                }
                if visit(key, value).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Node::Branch { children, .. } => {
            let start = children.partition_point(|(first, _)| first <= from).saturating_sub(1);
            for (first, child) in &children[start..] {
                if first >= to {
                    return Ok(ControlFlow::Break(()));
                }
                if scan_node(nodes, child, from, to, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Applies edits, which ascend by key without repeats; returns the new root.
pub fn apply(store: &Store, packer: &mut Packer<'_>, root: &Root, edits: &[Edit]) -> Result<Root, FsError> {
    if edits.is_empty() {
        return Ok(*root);
    }
    let mut children = rewrite(store, packer, &root.pointer, edits)?;
    let mut height = root.height;
    if children.is_empty() {
        let pointer = packer.node(Node::Leaf(Vec::new()))?;
        return Ok(Root { pointer, height: 0 });
    }
    while children.len() > 1 {
        height += 1;
        if height > TREE_HEIGHT_MAX {
            return Err(FsError::NoSpace);
        }
        children = write_branches(packer, height, children)?;
    }
    let mut root = Root { pointer: children[0].1, height };
    // A root with one child is only a longer way.
    while root.height > 0 {
        // What this seal wrote is in no pack that could be read yet, and the cache may have dropped it.
        let node = match packer.branch(&root.pointer.id) {
            Some(node) => node,
            None => store.node(&root.pointer)?,
        };
        match &*node {
            Node::Branch { children, .. } if children.len() == 1 => {
                root = Root { pointer: children[0].1, height: root.height - 1 };
            }
            _ => break,
        }
    }
    Ok(root)
}

/// Rewrites a node with edits that all belong to it; returns what stands in its place.
fn rewrite(
    store: &Store,
    packer: &mut Packer<'_>,
    pointer: &NodePtr,
    edits: &[Edit],
) -> Result<Vec<(Key, NodePtr)>, FsError> {
    let node = store.node(pointer)?;
    match &*node {
        Node::Leaf(records) => {
            let (records, appended) = merge(records, edits);
            write_leaves(packer, records, appended)
        }
        Node::Branch { level, children } => {
            let mut out: Vec<(Key, NodePtr)> = Vec::with_capacity(children.len() + 8);
            let mut rest = edits;
            // Records of leaves that became too small to stand alone, waiting for their successor.
            let mut waiting: Vec<Record> = Vec::new();
            for (i, (first, child)) in children.iter().enumerate() {
                let end = match children.get(i + 1) {
                    Some((next, _)) => rest.partition_point(|(key, _)| key < next),
                    None => rest.len(),
                };
                let (mine, others) = rest.split_at(end);
                rest = others;
                if *level > 1 {
                    if mine.is_empty() {
                        out.push((*first, *child));
                    } else {
                        out.extend(rewrite(store, packer, child, mine)?);
                    }
                    continue;
                }
                if mine.is_empty() && waiting.is_empty() {
                    out.push((*first, *child));
                    continue;
                }
                let leaf = store.node(child)?;
                let Node::Leaf(records) = &*leaf else {
                    return Err(FsError::Damaged("a branch stands where a leaf should be".into()));
                };
                let (mut records, appended) = merge(records, mine);
                if !waiting.is_empty() {
                    waiting.append(&mut records);
                    records = std::mem::take(&mut waiting);
                }
                let successor = children.get(i + 1).map(|(next, _)| realm(next));
                let is_small = weight(&records) < LEAF_WEIGHT_MAX / 4;
                if is_small && successor.is_some() && successor == records.last().map(|(key, _)| realm(key)) {
                    waiting = records;
                } else {
                    out.extend(write_leaves(packer, records, appended)?);
                }
            }
            assert!(rest.is_empty(), "every edit belongs to a child");
            if !waiting.is_empty() {
                out.extend(write_leaves(packer, waiting, false)?);
            }
            if out.is_empty() { Ok(out) } else { write_branches(packer, *level, out) }
        }
    }
}

/// Merges edits into records. Also tells whether all that is new lies behind all that was.
fn merge(records: &[Record], edits: &[Edit]) -> (Vec<Record>, bool) {
    let appended = match (records.last(), edits.first()) {
        (Some((last, _)), Some((first, _))) => first > last,
        _ => true,
    };
    let mut out = Vec::with_capacity(records.len() + edits.len());
    let mut old = records.iter().peekable();
    for (key, value) in edits {
        while let Some(record) = old.next_if(|(at, _)| at < key) {
            out.push(record.clone());
        }
        old.next_if(|(at, _)| at == key);
        if let Some(value) = value {
            out.push((*key, value.clone()));
        }
    }
    out.extend(old.cloned());
    (out, appended)
}

fn record_weight((key, value): &Record) -> usize {
    let bytes = value.len() + 6;
    match key.kind {
        RecordKind::Extent | RecordKind::Moment => bytes * 4,
        _ => bytes,
    }
}

fn weight(records: &[Record]) -> usize {
    records.iter().map(record_weight).sum()
}

/// What shares no leaf with others: each kind of the volume's own records, and all of those of files.
///
/// Every seal writes the record of a moment; it must rewrite no leaf of files for it, and split none of moments in the middle.
fn realm(key: &Key) -> Option<RecordKind> {
    (*key < Key::FIRST_OF_FILES).then_some(key.kind)
}

/// Cuts records into leaves and writes them. Leaves of appended records are filled, others are equal.
fn write_leaves(
    packer: &mut Packer<'_>,
    records: Vec<Record>,
    appended: bool,
) -> Result<Vec<(Key, NodePtr)>, FsError> {
    let mut out = Vec::new();
    let mut rest = records;
    while let Some((first, _)) = rest.first() {
        let here = realm(first);
        let others = rest.split_off(rest.partition_point(|(key, _)| realm(key) == here));
        out.extend(write_leaves_of_one(packer, rest, appended)?);
        rest = others;
    }
    Ok(out)
}

fn write_leaves_of_one(
    packer: &mut Packer<'_>,
    records: Vec<Record>,
    appended: bool,
) -> Result<Vec<(Key, NodePtr)>, FsError> {
    let total = weight(&records);
    let target =
        if appended { LEAF_WEIGHT_MAX } else { total.div_ceil(total.div_ceil(LEAF_WEIGHT_MAX).max(1)) };
    let mut out = Vec::new();
    let mut leaf: Vec<Record> = Vec::new();
    let mut filled = 0;
    for record in records {
        let weight = record_weight(&record);
        if !leaf.is_empty() && filled + weight > target.max(64) {
            let first = leaf[0].0;
            out.push((first, packer.node(Node::Leaf(std::mem::take(&mut leaf)))?));
            filled = 0;
        }
        filled += weight;
        leaf.push(record);
    }
    if !leaf.is_empty() {
        let first = leaf[0].0;
        out.push((first, packer.node(Node::Leaf(leaf))?));
    }
    Ok(out)
}

fn write_branches(
    packer: &mut Packer<'_>,
    level: u8,
    children: Vec<(Key, NodePtr)>,
) -> Result<Vec<(Key, NodePtr)>, FsError> {
    let parts = children.len().div_ceil(BRANCH_CHILDREN_MAX);
    let size = children.len().div_ceil(parts);
    let mut out = Vec::with_capacity(parts);
    for part in children.chunks(size) {
        out.push((part[0].0, packer.node(Node::Branch { level, children: part.to_vec() })?));
    }
    Ok(out)
}
