//! Collection: which packs nobody needs any more, and how they go.
//!
//! A pack goes in three steps, each in a seal of its own: *condemned*, when no kept moment refers to it; *doomed*, when
//! that is so still after a grace; *gone*, when the seal that doomed it counts everywhere and its files are removed.
//!
//! Marking visits every node of the kept moments once, however many of them share it, and reads packs of nodes only. It
//! takes some 20 bytes of memory for each such node, 10 for each pack, and what [`crate::compaction`] remembers. A frame
//! that was moved refers to the pack in which it lies now.
//!
//! Invariants
//! - What cannot be read condemns nothing: marking fails as a whole.
//! - A pack is doomed only by a seal that found it condemned, and looked again at all kept moments and at what it seals.
//! - A file is removed only after the manifest that dooms it is durable, and replicated where there are stores.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use fs_format::ledger::PackFate;
use fs_format::manifest::{PackEntry, PackPage, PackTable, PagePtr};
use fs_format::tree::{Extent, Key, Location, Node, RecordKind};
use fs_format::{PackId, PackNumber, Seq, Timestamp};

use crate::compaction::{self, Compacted, Compaction, Living, Moves, Outcome};
use crate::history::History;
use crate::layers::decode;
use crate::ledger::{self, Edits, Moment};
use crate::store::{Packer, Store, disk_error, pack_path};
use crate::tree::Root;
use crate::types::SealInfo;
use crate::volume::Volume;
use crate::{FsError, manifests, replace};

/// How long a pack stays condemned if nobody says otherwise: longer than anybody reads a moment that is dropped, or holds
/// back an upload that begins with what was there.
pub const GRACE: Duration = Duration::from_hours(24);
/// How far wall time and the time since a start may drift apart before the clock counts as set.
const DRIFT_MAX: Duration = Duration::from_secs(60);

/// How a volume is collected.
#[derive(Debug, Clone, Copy)]
pub struct Collection<'a> {
    /// How long a pack stays condemned before it is doomed.
    pub grace: Duration,
    /// The newest seal that is in the arbiter; `None` for a volume that has none, or of which that is not known: then
    /// nothing is removed.
    pub replicated: Option<Seq>,
    /// Packs of [`Volume::doomed`] that no store has any more.
    pub cleared: &'a [PackId],
    /// How packs are compacted that are mostly dead.
    pub compaction: Compaction,
}

impl Default for Collection<'_> {
    fn default() -> Self {
        Self { grace: GRACE, replicated: None, cleared: &[], compaction: Compaction::default() }
    }
}

/// Some packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packs {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Packs {
    pub(crate) fn add(&mut self, bytes: u32) {
        self.count += 1;
        self.bytes += u64::from(bytes);
    }
}

/// What [`Volume::prune`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// The newest moment.
    pub head: SealInfo,
    /// The moments that are gone.
    pub dropped: Vec<Seq>,
    /// Packs that became condemned.
    pub condemned: Packs,
    /// Packs that became doomed.
    pub doomed: Packs,
    /// Packs whose files were removed from this disk.
    pub removed: Packs,
    /// Packs that were compacted, and became condemned with it.
    pub compacted: Compacted,
}

/// What pruning would free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// Packs that nobody needs any more, condemned ones included.
    pub packs: Packs,
    /// Packs that would be compacted.
    pub compacted: Compacted,
}

/// What kept moments refer to.
#[derive(Default)]
pub struct Marks {
    /// Nodes by pack and offset.
    nodes: HashSet<u64>,
    packs: HashSet<PackNumber>,
    /// Objects of pages of the table, which names them without a number.
    pages: HashSet<PackId>,
    /// Where frames lie that were moved.
    moves: Moves,
    /// What may be compacted.
    living: Living,
}

impl Marks {
    /// None yet, of a volume that has moved these.
    pub fn new(moves: Moves) -> Self {
        Self { moves, ..Self::default() }
    }

    /// Marks the pack in which a frame lies.
    pub fn frame(&mut self, store: &Store, location: &Location) -> Result<PackNumber, FsError> {
        let (pack, _) = self.moves.place(location);
        self.packs.insert(pack);
        self.living.note(store, pack, location)?;
        Ok(pack)
    }

    /// Marks everything that a tree refers to.
    pub fn tree(&mut self, store: &Store, root: &Root) -> Result<(), FsError> {
        let mut todo = vec![root.pointer];
        while let Some(pointer) = todo.pop() {
            let at = pointer.location;
            if !self.nodes.insert(u64::from(at.pack.0) << 32 | u64::from(at.offset)) {
                continue;
            }
            self.packs.insert(at.pack);
            // Not into the cache: what is read here once would push out what others read often.
            match &*store.peek_node(&pointer)? {
                Node::Branch { children, .. } => todo.extend(children.iter().map(|(_, child)| *child)),
                Node::Leaf(records) => {
                    for (_, value) in records.iter().filter(|(key, _)| key.kind == RecordKind::Extent) {
                        let extent = decode(Extent::decode(value), "an extent")?;
                        self.frame(store, &extent.chunk.location)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks the packs in which pages of the table lie.
    pub fn table(&mut self, store: &Store, table: &PackTable) -> Result<(), FsError> {
        let mut todo: Vec<PagePtr> = Vec::new();
        for (level, pages) in table.levels.iter().enumerate() {
            self.pages.extend(pages.iter().map(|page| page.object));
            if level > 0 {
                todo.extend(pages);
            }
        }
        while let Some(pointer) = todo.pop() {
            if let PackPage::Pages(pages) = &*store.page(&pointer)? {
                self.pages.extend(pages.iter().map(|page| page.object));
                todo.extend(pages);
            }
        }
        Ok(())
    }

    /// Whether anything refers to a pack.
    pub fn has(&self, number: PackNumber, entry: &PackEntry) -> bool {
        self.packs.contains(&number) || self.pages.contains(&entry.object)
    }
}

/// What a seal changes about packs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Nothing refers to them.
    pub condemned: BTreeMap<PackNumber, u32>,
    /// Nothing did so for the grace.
    pub doomed: BTreeMap<PackNumber, u32>,
    /// Something refers to them again.
    pub reprieved: Vec<PackNumber>,
    /// Their files are gone, here and elsewhere.
    pub buried: Vec<PackNumber>,
    /// Those of the condemned that were compacted.
    pub compacted: Compacted,
    /// What could not be, and the bytes that are alive in each.
    pub stuck: Vec<(PackNumber, u64)>,
}

impl Verdict {
    /// Whether it is worth a seal: what is gone already can wait for the next.
    fn is_urgent(&self) -> bool {
        !(self.condemned.is_empty() && self.doomed.is_empty() && self.reprieved.is_empty())
    }

    /// Spares a pack that what is sealed refers to.
    pub fn spare(&mut self, number: PackNumber) {
        if self.condemned.remove(&number).or_else(|| self.doomed.remove(&number)).is_some() {
            self.reprieved.push(number);
        }
    }

    /// The records that say so.
    pub fn edits(&self, seq: Seq, time: Timestamp) -> Edits {
        let mut edits = Edits::new();
        let mut put = |number: PackNumber, fate: Option<PackFate>| {
            edits.insert(Key::fate(number), fate.map(ledger::fate_value));
        };
        self.condemned.keys().for_each(|&n| put(n, Some(PackFate::Condemned { seq, time })));
        self.doomed.keys().for_each(|&n| put(n, Some(PackFate::Doomed { seq })));
        self.reprieved.iter().for_each(|&n| put(n, None));
        self.buried.iter().for_each(|&n| put(n, Some(PackFate::Gone)));
        edits
    }
}

/// What a seal does besides taking in the overlay, when moments are dropped.
pub struct Pruning {
    pub drop: Vec<Seq>,
    pub verdict: Verdict,
    /// What the kept moments refer to.
    pub marks: Marks,
    /// What was decided about packs before.
    pub fates: BTreeMap<PackNumber, PackFate>,
    /// What cannot be compacted as long as so much is alive in it.
    pub stuck: HashMap<PackNumber, u64>,
    pub compaction: Compaction,
}

impl Pruning {
    /// Takes in that what is sealed refers to a frame: decided by one seal, so its pack is needed, whatever the moments
    /// before say.
    pub fn need(&mut self, store: &Store, location: &Location) -> Result<(), FsError> {
        let pack = self.marks.frame(store, location)?;
        self.verdict.spare(pack);
        Ok(())
    }

    /// Compacts what is mostly dead, and returns what that and the verdict change of the ledger. Nothing is needed any
    /// more from then on that was not.
    pub fn decide(
        &mut self,
        store: &Store,
        packer: &mut Packer<'_>,
        seq: Seq,
        time: Timestamp,
    ) -> Result<Edits, FsError> {
        let Self { drop, verdict, marks, fates, stuck, compaction } = self;
        let may_move = |number, living| {
            !verdict.reprieved.contains(&number) && is_movable(store, fates, stuck, number, living)
        };
        let sources = marks.living.choose(&marks.moves, compaction, may_move);
        let Outcome { moved, stuck } =
            compaction::compact(store, packer, &mut marks.moves, &marks.living, &sources)?;
        verdict.compacted = marks.living.sum(&moved);
        verdict.condemned.extend(marks.living.bytes(&moved));
        verdict.stuck = stuck;
        marks.moves.leave(|pack| verdict.doomed.contains_key(&pack));
        let mut edits = verdict.edits(seq, time);
        edits.extend(drop.iter().map(|&seq| (Key::moment(seq), None)));
        edits.extend(marks.moves.edits());
        Ok(edits)
    }
}

/// Whether a pack may be compacted in which so many bytes are alive: nothing is decided about it, it was not tried in
/// vain, and it is here, so that nobody waits for it.
fn is_movable(
    store: &Store,
    fates: &BTreeMap<PackNumber, PackFate>,
    stuck: &HashMap<PackNumber, u64>,
    number: PackNumber,
    living: u64,
) -> bool {
    !fates.contains_key(&number) && stuck.get(&number) != Some(&living) && store.is_here(number)
}

/// Decides about packs: `is_used` says whether anything refers to one, `ripeness` whether one was condemned long enough ago,
/// `is_clear` whether one that was doomed by a seal is removed everywhere.
fn judge(
    packs: impl Iterator<Item = (PackNumber, PackEntry)>,
    fates: &BTreeMap<PackNumber, PackFate>,
    is_used: impl Fn(PackNumber, &PackEntry) -> bool,
    ripeness: impl Fn(PackNumber, Timestamp) -> Ripeness,
    is_clear: impl Fn(&PackEntry, Seq) -> bool,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (number, entry) in packs {
        let onto = match (fates.get(&number), is_used(number, &entry)) {
            (None, false) => &mut verdict.condemned,
            (Some(PackFate::Condemned { time, .. }), false) => match ripeness(number, *time) {
                Ripeness::Ripe => &mut verdict.doomed,
                Ripeness::Unknown => &mut verdict.condemned,
                Ripeness::Green => continue,
            },
            (Some(PackFate::Condemned { .. }), true) => {
                verdict.reprieved.push(number);
                continue;
            }
            (Some(PackFate::Doomed { seq }), _) if is_clear(&entry, *seq) => {
                verdict.buried.push(number);
                continue;
            }
            (None, true) | (Some(PackFate::Doomed { .. } | PackFate::Gone), _) => continue,
        };
        onto.insert(number, entry.bytes);
    }
    verdict
}

/// Whether a grace is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ripeness {
    Ripe,
    Green,
    /// It began in the future: it begins anew.
    Unknown,
}

/// What tells how long ago something was, though a clock may be set while the volume is open.
pub struct Run {
    began: (Timestamp, Duration),
    /// When packs were condemned in this run, by the clock that nobody sets.
    condemned: HashMap<PackNumber, Duration>,
    /// Packs that could not be compacted in this run, and the bytes that were alive in each: not tried again before that
    /// changes, or there would be a seal for it each time.
    stuck: HashMap<PackNumber, u64>,
}

impl Run {
    /// A volume is opened now.
    pub fn new(wall: Timestamp, monotonic: Duration) -> Self {
        Self { began: (wall, monotonic), condemned: HashMap::new(), stuck: HashMap::new() }
    }

    /// Whether the clock was set since.
    fn clock_was_set(&self, (wall, monotonic): (Timestamp, Duration)) -> bool {
        let by_wall = i128::from(wall.0) - i128::from(self.began.0.0);
        let by_run = monotonic.saturating_sub(self.began.1).as_nanos() as i128;
        (by_wall - by_run).unsigned_abs() > DRIFT_MAX.as_nanos()
    }

    fn ripeness(
        &self,
        number: PackNumber,
        condemned: Timestamp,
        now: (Timestamp, Duration),
        grace: Duration,
    ) -> Ripeness {
        let by_wall = i128::from(now.0.0) - i128::from(condemned.0);
        let Ok(mut age) = u128::try_from(by_wall) else { return Ripeness::Unknown };
        if self.clock_was_set(now) {
            let since = self.condemned.get(&number).copied().unwrap_or(self.began.1);
            age = age.min(now.1.saturating_sub(since).as_nanos());
        }
        if age >= grace.as_nanos() { Ripeness::Ripe } else { Ripeness::Green }
    }
}

/// All packs with their numbers.
fn entries(store: &Store) -> Result<Vec<(PackNumber, PackEntry)>, FsError> {
    // Packs have 32-bit numbers: a location could not name others.
    let count = u32::try_from(store.table().count()).unwrap_or(u32::MAX);
    (0..count).map(PackNumber).map(|number| Ok((number, store.pack_entry(number)?))).collect()
}

impl Volume {
    /// Drops moments, and takes the next step with packs that no other needs. What is in the overlay is sealed with it.
    ///
    /// Without anything to drop or to decide there is no seal. The newest moment cannot be dropped; numbers that are not
    /// there are left out. Whoever reads a moment that is dropped gets [`FsError::Dropped`] from then on.
    pub fn prune(&self, drop: &[Seq], how: &Collection<'_>) -> Result<Pruned, FsError> {
        let _one = self.pruning.lock();
        let without = Collection { compaction: Compaction::NONE, ..*how };
        let mut pruned = match self.prune_once(drop, how) {
            // What has no room to move must not keep others from going.
            Err(FsError::NoSpace) => self.prune_once(drop, &without)?,
            pruned => pruned?,
        };
        if how.grace.is_zero() && pruned.condemned.count > 0 {
            let next = self.prune_once(&[], &without)?;
            (pruned.head, pruned.doomed) = (next.head, next.doomed);
            pruned.removed.count += next.removed.count;
            pruned.removed.bytes += next.removed.bytes;
        }
        Ok(pruned)
    }

    fn prune_once(&self, drop: &[Seq], how: &Collection<'_>) -> Result<Pruned, FsError> {
        let drop: HashSet<Seq> = drop.iter().copied().collect();
        let mut removed = self.sweep(self.replicated(how))?;
        // Only pruning moves anything, and somebody else's waits for this one.
        let root = self.state.read().base.root;
        let mut marks = Marks::new(Moves::load(&self.store, &root)?);
        // The long part holds up no seal; what is sealed meanwhile shares nearly all of it.
        self.mark(&mut marks, &drop)?;

        let one = self.sealing.lock();
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        self.finish_frozen()?;
        let moments = self.mark(&mut marks, &drop)?;
        if drop.contains(&self.head().seq) {
            return Err(FsError::Invalid);
        }
        let dropped: Vec<Seq> =
            moments.iter().map(|moment| moment.info.seq).filter(|seq| drop.contains(seq)).collect();
        let fates = ledger::fates(&self.store, &self.state.read().base.root)?;
        let now = (self.env.clock.now(), self.env.clock.monotonic());
        let replicated = self.replicated(how);
        let verdict = judge(
            entries(&self.store)?.into_iter(),
            &fates,
            |number, entry| marks.has(number, entry),
            |number, time| self.run.lock().ripeness(number, time, now, how.grace),
            |entry, seq| {
                seq <= replicated && (how.replicated.is_none() || how.cleared.contains(&entry.object))
            },
        );
        let mut pruned = Pruned {
            head: self.head(),
            dropped: Vec::new(),
            condemned: Packs::default(),
            doomed: Packs::default(),
            removed: Packs::default(),
            compacted: Compacted::default(),
        };
        let compaction = self.affordable(how.compaction)?;
        let stuck = self.run.lock().stuck.clone();
        let may_move = |number, living| is_movable(&self.store, &fates, &stuck, number, living);
        let would_move = !marks.living.choose(&marks.moves, &compaction, may_move).is_empty();
        if !dropped.is_empty() || verdict.is_urgent() || would_move {
            let pruning = Pruning { drop: dropped.clone(), verdict, marks, fates, stuck, compaction };
            let (head, verdict) = self.seal_pruned(pruning)?;
            let mut run = self.run.lock();
            run.condemned.retain(|number, _| !verdict.doomed.contains_key(number));
            run.stuck.extend(verdict.stuck.iter().copied());
            run.condemned.extend(verdict.condemned.keys().map(|&number| (number, now.1)));
            verdict.condemned.values().for_each(|&bytes| pruned.condemned.add(bytes));
            verdict.doomed.values().for_each(|&bytes| pruned.doomed.add(bytes));
            pruned.compacted = verdict.compacted;
            (pruned.head, pruned.dropped) = (head, dropped);
        }
        std::mem::drop(one);
        let swept = self.sweep(self.replicated(how))?;
        removed.count += swept.count;
        removed.bytes += swept.bytes;
        Ok(Pruned { removed, ..pruned })
    }

    /// The newest seal that counts everywhere. Where there is an arbiter, somebody has to say so.
    fn replicated(&self, how: &Collection<'_>) -> Seq {
        match (how.replicated, self.arbiter()) {
            (Some(seq), _) => seq,
            (None, Some(_)) => Seq(0),
            (None, None) => self.head().seq,
        }
    }

    /// Copies no more than the disk has room for twice: who prunes may do so for want of room.
    fn affordable(&self, how: Compaction) -> Result<Compaction, FsError> {
        let free = self.env.disk.free_bytes().map_err(|error| disk_error("the disk", &error))?;
        Ok(Compaction { copied_bytes_max: how.copied_bytes_max.min(free / 2), ..how })
    }

    /// Marks what the moments refer to that are kept, and returns all but the head.
    fn mark(&self, marks: &mut Marks, drop: &HashSet<Seq>) -> Result<Vec<Moment>, FsError> {
        let base = self.state.read().base.clone();
        let moments = ledger::moments(&self.store, &base.root)?;
        mark_kept(&self.store, marks, moments.iter().chain([&base]), drop)?;
        Ok(moments)
    }

    /// Packs to be removed from stores, once the seal `replicated` is in the arbiter.
    pub fn doomed(&self, replicated: Seq) -> Result<Vec<PackId>, FsError> {
        let mut doomed = Vec::new();
        let root = self.state.read().base.root;
        for (number, fate) in ledger::fates(&self.store, &root)? {
            if matches!(fate, PackFate::Doomed { seq } if seq <= replicated) {
                doomed.push(self.store.pack_entry(number)?.object);
            }
        }
        Ok(doomed)
    }

    /// Removes from this disk the packs that were doomed up to the seal `replicated`, and the manifests before
    /// it whose moments were dropped; its own is what the next is compared with. What is not there any more is passed over.
    pub fn sweep(&self, replicated: Seq) -> Result<Packs, FsError> {
        if self.read_only_reason().is_some() {
            return Err(FsError::ReadOnly);
        }
        let base = self.state.read().base.clone();
        let mut removed = Packs::default();
        for (number, fate) in ledger::fates(&self.store, &base.root)? {
            if !matches!(fate, PackFate::Doomed { seq } if seq <= replicated) {
                continue;
            }
            let entry = self.store.pack_entry(number)?;
            self.store.close_pack(&entry.object);
            let path = pack_path(&entry.object);
            match self.env.disk.remove(&path) {
                Ok(()) => removed.add(entry.bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(disk_error(&path, &error)),
            }
        }
        let moments = ledger::moments(&self.store, &base.root)?;
        let kept: HashSet<Seq> = moments.iter().map(|moment| moment.info.seq).collect();
        for seq in
            manifests::list(&self.env)?.into_iter().filter(|&seq| seq < base.info.seq && seq < replicated)
        {
            if !kept.contains(&seq) {
                let path = manifests::path(seq);
                replace::remove_if_there(&*self.env.disk, &path)
                    .map_err(|error| disk_error(&path, &error))?;
            }
        }
        Ok(removed)
    }

    /// Whether the clock was set since the volume was opened: then what retention says of now may be wrong.
    pub fn clock_was_set(&self) -> bool {
        self.run.lock().clock_was_set((self.env.clock.now(), self.env.clock.monotonic()))
    }
}

/// What [`History::given_up`] found in a folder: what is there and the newest moment has given up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenUpHere {
    /// Packs.
    pub packs: BTreeSet<PackId>,
    /// Manifests of moments that are not kept.
    pub manifests: Vec<Seq>,
}

impl History {
    /// What the newest moment has given up of what is in the folder of a volume that another device writes.
    ///
    /// A manifest that says so is in a store, or it would not be here: nobody takes it back. `here` are packs that are
    /// here, or a part of them. Packs that the newest moment does not know are of a past that was cut off.
    pub fn given_up(&self, here: impl IntoIterator<Item = PackId>) -> Result<GivenUpHere, FsError> {
        let head = self.newest_moment()?;
        // All or nothing: where one of these cannot be read, nobody knows what is needed.
        let fates = ledger::fates(&self.store, &head.root)?;
        let moments = ledger::moments(&self.store, &head.root)?;
        let mut packs: BTreeSet<PackId> = here.into_iter().collect();
        if !packs.is_empty() {
            for (number, entry) in entries(&self.store)? {
                if !matches!(fates.get(&number), Some(PackFate::Doomed { .. } | PackFate::Gone)) {
                    packs.remove(&entry.object);
                }
            }
        }
        let kept: HashSet<Seq> = moments.iter().map(|moment| moment.info.seq).collect();
        let manifests = manifests::list(&self.store.env)?
            .into_iter()
            .filter(|seq| *seq < head.info.seq && !kept.contains(seq))
            .collect();
        Ok(GivenUpHere { packs, manifests })
    }

    /// Removes what was found so.
    pub fn remove_given_up(&self, given_up: &GivenUpHere) -> Result<(), FsError> {
        let paths = given_up.packs.iter().map(pack_path);
        for path in paths.chain(given_up.manifests.iter().map(|seq| manifests::path(*seq))) {
            replace::remove_if_there(&*self.store.env.disk, &path)
                .map_err(|error| disk_error(&path, &error))?;
        }
        given_up.packs.iter().for_each(|pack| self.store.close_pack(pack));
        Ok(())
    }

    /// What pruning frees that drops these moments and compacts so. Reads the nodes of all others.
    pub fn freed_by(&self, drop: &[Seq], how: &Compaction) -> Result<Freed, FsError> {
        let head = self.newest_moment()?;
        let drop = drop.iter().copied().collect();
        let moments = ledger::moments(&self.store, &head.root)?;
        let mut marks = Marks::new(Moves::load(&self.store, &head.root)?);
        mark_kept(&self.store, &mut marks, moments.iter().chain([&head]), &drop)?;
        let fates = ledger::fates(&self.store, &head.root)?;
        let mut packs = Packs::default();
        for (number, entry) in entries(&self.store)? {
            let is_here = !matches!(fates.get(&number), Some(PackFate::Doomed { .. } | PackFate::Gone));
            if is_here && !marks.has(number, &entry) {
                packs.add(entry.bytes);
            }
        }
        let may_move = |number, living| is_movable(&self.store, &fates, &HashMap::new(), number, living);
        let sources = marks.living.choose(&marks.moves, how, may_move);
        Ok(Freed { packs, compacted: marks.living.sum(&sources) })
    }
}

fn mark_kept<'a>(
    store: &Store,
    marks: &mut Marks,
    moments: impl Iterator<Item = &'a Moment>,
    drop: &HashSet<Seq>,
) -> Result<(), FsError> {
    marks.table(store, &store.table())?;
    for moment in moments.filter(|moment| !drop.contains(&moment.info.seq)) {
        marks.tree(store, &moment.root)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn time(hours: i64) -> Timestamp {
        Timestamp(hours * 3_600_000_000_000)
    }

    #[test]
    fn a_pack_goes_step_by_step_and_only_if_nothing_refers_to_it() {
        let condemned = Some(PackFate::Condemned { seq: Seq(3), time: time(0) });
        let doomed = Some(PackFate::Doomed { seq: Seq(4) });
        // Fate, whether it is used, ripeness, whether it is clear: what becomes of it.
        for (fate, is_used, ripeness, is_clear, expected) in [
            (None, true, Ripeness::Ripe, true, ""),
            (None, false, Ripeness::Green, false, "condemned"),
            (condemned, false, Ripeness::Green, true, ""),
            (condemned, false, Ripeness::Unknown, true, "condemned"),
            (condemned, false, Ripeness::Ripe, false, "doomed"),
            (condemned, true, Ripeness::Ripe, true, "reprieved"),
            (doomed, false, Ripeness::Ripe, false, ""),
            (doomed, false, Ripeness::Ripe, true, "buried"),
            (Some(PackFate::Gone), false, Ripeness::Ripe, true, ""),
        ] {
            let number = PackNumber(7);
            let entry = PackEntry { object: PackId([7; 32]), bytes: 100, birth: Seq(1) };
            let fates = fate.map(|fate| (number, fate)).into_iter().collect();
            let verdict = judge(
                [(number, entry)].into_iter(),
                &fates,
                |_, _| is_used,
                |_, _| ripeness,
                |_, _| is_clear,
            );
            let mut wanted = Verdict::default();
            match expected {
                "condemned" => wanted.condemned = [(number, 100)].into(),
                "doomed" => wanted.doomed = [(number, 100)].into(),
                "reprieved" => wanted.reprieved.push(number),
                "buried" => wanted.buried.push(number),
                _ => {}
            }
            assert_eq!(verdict, wanted, "{fate:?}, used {is_used}, {ripeness:?}, clear {is_clear}");
        }
    }

    #[test]
    fn what_a_seal_refers_to_is_spared() {
        let (one, two, three) = (PackNumber(1), PackNumber(2), PackNumber(3));
        let mut verdict = Verdict {
            condemned: [(one, 10)].into(),
            doomed: [(two, 20), (three, 30)].into(),
            ..Verdict::default()
        };
        [one, two, PackNumber(9)].into_iter().for_each(|number| verdict.spare(number));
        assert_eq!((verdict.condemned.len(), verdict.doomed.len()), (0, 1));
        let edits = verdict.edits(Seq(5), time(1));
        let doomed = Some(ledger::fate_value(PackFate::Doomed { seq: Seq(5) }));
        assert_eq!(
            edits,
            [(Key::fate(one), None), (Key::fate(two), None), (Key::fate(three), doomed)].into()
        );
    }

    #[test]
    fn a_grace_is_over_by_the_clock_that_says_least() {
        let number = PackNumber(1);
        let ripeness = |run: &Run, condemned, wall, monotonic: u32| {
            run.ripeness(number, time(condemned), (time(wall), HOUR * monotonic), HOUR * 24)
        };
        // Opened at noon of day 0 by wall time, after 100 hours of whatever.
        let mut run = Run::new(time(12), HOUR * 100);
        assert_eq!(ripeness(&run, 0, 23, 111), Ripeness::Green);
        assert_eq!(ripeness(&run, 0, 24, 112), Ripeness::Ripe);
        // The clock was set: only what this run has seen of it counts.
        assert_eq!(ripeness(&run, 0, 10_000, 112), Ripeness::Green);
        assert_eq!(ripeness(&run, 0, 10_000, 124), Ripeness::Ripe);
        run.condemned.insert(number, HOUR * 110);
        assert_eq!(ripeness(&run, 22, 10_000, 124), Ripeness::Green);
        assert_eq!(ripeness(&run, 22, 10_000, 134), Ripeness::Ripe);
        // Set back: wall time says less, and may say nonsense.
        assert_eq!(ripeness(&run, 22, 30, 200), Ripeness::Green);
        assert_eq!(ripeness(&run, 22, 21, 200), Ripeness::Unknown);
        assert_eq!(
            run.ripeness(number, Timestamp(i64::MIN), (Timestamp(i64::MAX), Duration::MAX), HOUR),
            Ripeness::Ripe
        );
    }
}
