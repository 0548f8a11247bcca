//! The volume's own records, under inode 0 of the tree: moments, fates of packs, where frames were moved to, the policy.
//!
//! Invariants
//! - The moments of a volume are its head, and those whose records the head's tree holds.
//! - A seal puts the record of the seal before it, since no tree can hold its own root.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fs_format::ledger::{self, PackFate};
use fs_format::manifest::SnapshotRecord;
use fs_format::moved::Moved;
use fs_format::tree::{Key, RecordKind};
use fs_format::{Epoch, PackNumber, Seq};

use crate::FsError;
use crate::compaction::Moves;
use crate::history::settle;
use crate::layers::decode;
use crate::overlay::Overlay;
use crate::store::Store;
use crate::tree::{self, Fault, Nodes, Root};
use crate::types::{SealInfo, SnapshotLabel};

/// What becomes of records of the tree, by key.
pub type Edits = BTreeMap<Key, Option<Box<[u8]>>>;

/// A moment with what it takes to open it.
#[derive(Debug, Clone)]
pub struct Moment {
    pub info: SealInfo,
    pub root: Root,
    pub epoch: Epoch,
}

impl Moment {
    /// Its record.
    pub fn record(&self) -> Box<[u8]> {
        let SealInfo { id, time, files, bytes, added, ref snapshot, .. } = self.info;
        let record = ledger::Moment {
            id,
            epoch: self.epoch,
            time,
            files,
            bytes,
            added,
            root: self.root.pointer,
            height: self.root.height,
            snapshot: snapshot.clone().map(into_record),
        };
        let mut value = Vec::with_capacity(128);
        record.encode(&mut value);
        value.into()
    }

    fn of(seq: Seq, value: &[u8]) -> Result<Self, FsError> {
        let ledger::Moment { id, epoch, time, files, bytes, added, root, height, snapshot } =
            decode(ledger::Moment::decode(value), "the record of a moment")?;
        let info = SealInfo { seq, id, time, files, bytes, added, snapshot: snapshot.map(into_label) };
        Ok(Self { info, root: Root { pointer: root, height }, epoch })
    }
}

/// A label as it is stored.
pub fn into_record(label: SnapshotLabel) -> SnapshotRecord {
    let SnapshotLabel { id, message, tags } = label;
    SnapshotRecord { id, message, tags }
}

/// A label as it is told.
pub fn into_label(record: SnapshotRecord) -> SnapshotLabel {
    let SnapshotRecord { id, message, tags } = record;
    SnapshotLabel { id, message, tags }
}

const MOVED: &str = "the record of what was moved";

/// The first key of a kind.
fn first(kind: RecordKind) -> Key {
    Key { kind, ..Key::POLICY }
}

/// The moments before the one with this root, oldest first.
pub fn moments(store: &Store, root: &Root) -> Result<Vec<Moment>, FsError> {
    let mut moments = Vec::new();
    visit(store, root, first(RecordKind::Moment), first(RecordKind::Fate), |key, value| {
        moments.push(Moment::of(Seq(key.sub), value)?);
        Ok(())
    })?;
    Ok(moments)
}

/// The moment with this number, if the tree has its record.
pub fn moment(store: &Store, root: &Root, seq: Seq) -> Result<Option<Moment>, FsError> {
    let value = settle(tree::get(store, root, &Key::moment(seq)))?;
    value.map(|value| Moment::of(seq, &value)).transpose()
}

/// What is decided about packs.
pub fn fates(store: &Store, root: &Root) -> Result<BTreeMap<PackNumber, PackFate>, FsError> {
    let mut fates = BTreeMap::new();
    visit(store, root, first(RecordKind::Fate), first(RecordKind::Policy), |key, value| {
        let fate = decode(PackFate::decode(value), "the fate of a pack")?;
        fates.insert(number_of(key)?, fate);
        Ok(())
    })?;
    Ok(fates)
}

/// The pack that a record is about.
fn number_of(key: &Key) -> Result<PackNumber, FsError> {
    let number = u32::try_from(key.sub).map_err(|_| FsError::Damaged("a record is of no pack".into()))?;
    Ok(PackNumber(number))
}

/// Where frames were moved to, of all packs.
pub fn all_moved(store: &Store, root: &Root) -> Result<BTreeMap<PackNumber, Moved>, FsError> {
    let mut all = BTreeMap::new();
    visit(store, root, first(RecordKind::Moved), Key::FIRST_OF_FILES, |key, value| {
        all.insert(number_of(key)?, decode(Moved::decode(value), MOVED)?);
        Ok(())
    })?;
    Ok(all)
}

/// Where frames of a pack were moved to, if any were.
pub fn moved(nodes: &impl Nodes, root: &Root, number: PackNumber) -> Result<Option<Moved>, Fault> {
    let value = tree::get(nodes, root, &Key::moved(number))?;
    Ok(value.map(|value| decode(Moved::decode(&value), MOVED)).transpose()?)
}

/// What is decided about a pack; nothing new may refer to one that is not in use.
pub fn fate(store: &Store, root: &Root, number: PackNumber) -> Result<Option<PackFate>, FsError> {
    let value = settle(tree::get(store, root, &Key::fate(number)))?;
    value.map(|value| decode(PackFate::decode(&value), "the fate of a pack")).transpose()
}

/// The value of a fate's record.
pub fn fate_value(fate: PackFate) -> Box<[u8]> {
    let mut value = Vec::with_capacity(20);
    fate.encode(&mut value);
    value.into()
}

/// What a rollback changes in the tree that it goes back to: the volume's own records stay what they are now. Orphans
/// belong to the files, and go back with them.
pub fn carried(store: &Store, target: &Root, now: &Root, frozen: &Overlay) -> Result<Edits, FsError> {
    let (from, to) = (first(RecordKind::Moment), Key::FIRST_OF_FILES);
    let mut edits = Edits::new();
    visit(store, target, from, to, |key, _| {
        edits.insert(*key, None);
        Ok(())
    })?;
    visit(store, now, from, to, |key, value| {
        edits.insert(*key, Some(value.into()));
        Ok(())
    })?;
    edits.extend(frozen.records.range(from..to).map(|(key, value)| (*key, value.clone())));
    Ok(edits)
}

/// What the tree of a fork has otherwise than that of the moment that it begins at: no moments, and of the packs those
/// that were not brought as gone. Where frames were moved to is as in the newest tree. The policy stays.
pub fn forked(store: &Store, root: &Root, gone: &[PackNumber], mut moves: Moves) -> Result<Edits, FsError> {
    let mut edits = Edits::new();
    let (policy, moved) = (first(RecordKind::Policy), first(RecordKind::Moved));
    for (from, to) in [(first(RecordKind::Moment), policy), (moved, Key::FIRST_OF_FILES)] {
        visit(store, root, from, to, |key, _| {
            edits.insert(*key, None);
            Ok(())
        })?;
    }
    moves.leave(|pack| gone.binary_search(&pack).is_ok());
    edits.extend(moves.all().edits());
    edits.extend(gone.iter().map(|&number| (Key::fate(number), Some(fate_value(PackFate::Gone)))));
    Ok(edits)
}

/// Visits the records in `from..to` until one is refused.
fn visit(
    store: &Store,
    root: &Root,
    from: Key,
    to: Key,
    mut take: impl FnMut(&Key, &[u8]) -> Result<(), FsError>,
) -> Result<(), FsError> {
    let mut outcome = Ok(());
    settle(tree::scan(store, root, &from, &to, &mut |key, value| {
        outcome = take(key, value);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }))?;
    outcome
}
