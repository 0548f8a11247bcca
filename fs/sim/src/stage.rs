//! An engine and the model side by side, given the same operations.

use std::collections::BTreeMap;
use std::time::Duration;

use fs_format::{Ino, Seq, SnapshotId};
use fs_volume::{Attr, Caller, FsError, OpenError, ReadTree, SealInfo, SnapshotLabel, WriteTree};
use thiserror::Error;

use crate::workload::{INHERITED, NAMES, Op, Path, SLOTS, Target, XATTRS, resolve};
use crate::{Dice, Dump, Engine, Model, Opener, Refused, SimDisk, dump, env};

/// What the engine did wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Problem(pub String);

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What an operation gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Copied(u64),
    Bytes(Vec<u8>),
}

/// What the model says to an operation.
#[derive(Debug)]
pub(crate) enum Verdict {
    Done(Answer),
    Refused(Refused),
    /// Its operands are not there any more, or the engine promises nothing for them.
    Meaningless,
}

/// A model with its open handles.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rehearsal {
    pub(crate) model: Model,
    pub(crate) slots: [Option<Ino>; SLOTS],
    labels: u8,
}

impl Rehearsal {
    fn target(&self, target: &Target) -> Result<Ino, Verdict> {
        match target {
            Target::Held(slot) => self.slots[*slot].ok_or(Verdict::Meaningless),
            Target::At(path) => self.path(path),
        }
    }

    fn path(&self, path: &Path) -> Result<Ino, Verdict> {
        let unresolved =
            || Verdict::Refused(vec![FsError::NotFound, FsError::NotADirectory, FsError::NameTooLong]);
        resolve(&self.model, path).ok_or_else(unresolved)
    }

    pub(crate) fn perform(&mut self, op: &Op) -> Verdict {
        match self.try_perform(op) {
            Ok(Ok(answer)) => Verdict::Done(answer),
            Ok(Err(refused)) => Verdict::Refused(refused),
            Err(verdict) => verdict,
        }
    }

    fn try_perform(&mut self, op: &Op) -> Result<Result<Answer, Refused>, Verdict> {
        let name = |i: &u8| NAMES[usize::from(*i)];
        let nothing = |result: Result<(), Refused>| result.map(|()| Answer::Nothing);
        Ok(match op {
            Op::Make { parent, name: n, what, mode, uid, attributes } => {
                let (target, parent) = (link_target(), self.path(parent)?);
                let (node, xattrs) = (what.node(&target), &INHERITED[..usize::from(*attributes)]);
                let made = self.model.make(caller(*uid), parent, name(n), *mode, node, xattrs);
                made.map(|_| Answer::Nothing)
            }
            Op::Link { from, parent, name: n } => {
                let (from, parent) = (self.target(from)?, self.path(parent)?);
                nothing(self.model.link(from, parent, name(n)))
            }
            Op::Unlink { parent, name: n } => {
                let parent = self.path(parent)?;
                nothing(self.model.unlink(parent, name(n)))
            }
            Op::Rmdir { parent, name: n } => {
                let parent = self.path(parent)?;
                nothing(self.model.rmdir(parent, name(n)))
            }
            Op::Rename { from, from_name, to, to_name, mode } => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                nothing(self.model.rename(from, name(from_name), to, name(to_name), *mode))
            }
            Op::SetAttr { target, set } => {
                let target = self.target(target)?;
                nothing(self.model.set_attr(target, *set))
            }
            Op::SetAttrAndXattr { target, set, name, value } => {
                let (target, name) = (self.target(target)?, XATTRS[usize::from(*name)]);
                let value = value.map(|value| value.get());
                nothing(self.model.set_attr_and_xattr(target, *set, name, value.as_deref()))
            }
            Op::Write { target, offset, bytes, kill_suid } => {
                let target = self.target(target)?;
                if bytes.len == 0 {
                    return Err(Verdict::Meaningless);
                }
                nothing(self.model.write(target, *offset, &bytes.get(), *kill_suid))
            }
            Op::Allocate { target, offset, len, how } => {
                let target = self.target(target)?;
                nothing(self.model.allocate(target, *offset, *len, *how))
            }
            Op::Clone { from, from_offset, to, to_offset, len } => {
                let (from, to) = (self.target(from)?, self.target(to)?);
                if from == to && from_offset.abs_diff(*to_offset) < *len {
                    return Err(Verdict::Meaningless);
                }
                self.model.clone_range(from, *from_offset, to, *to_offset, *len).map(Answer::Copied)
            }
            Op::SetXattr { target, name, value, how } => {
                let target = self.target(target)?;
                nothing(self.model.set_xattr(target, XATTRS[usize::from(*name)], &value.get(), *how))
            }
            Op::RemoveXattr { target, name } => {
                let target = self.target(target)?;
                nothing(self.model.remove_xattr(target, XATTRS[usize::from(*name)]))
            }
            Op::Read { target, offset, len } => {
                let target = self.target(target)?;
                let read = self.model.read(target, *offset, *len as usize);
                read.map(Answer::Bytes).map_err(|error| match error {
                    FsError::NotFound => vec![error],
                    _ => vec![FsError::IsADirectory, FsError::Invalid, FsError::NotPermitted],
                })
            }
            Op::Hold { target, slot } => {
                let target = self.target(target)?;
                self.model.hold(target);
                if let Some(before) = self.slots[*slot].replace(target) {
                    self.model.release(before);
                }
                Ok(Answer::Nothing)
            }
            Op::Release { slot } => {
                let ino = self.slots[*slot].take().ok_or(Verdict::Meaningless)?;
                self.model.release(ino);
                Ok(Answer::Nothing)
            }
            Op::Seal { labelled } => {
                self.labels = self.labels.wrapping_add(u8::from(*labelled));
                Ok(Answer::Nothing)
            }
            Op::Sync | Op::FlushJournal | Op::Prune { .. } => Ok(Answer::Nothing),
            // Where to, only the stage knows.
            Op::Reopen | Op::Rollback { .. } => {
                self.close();
                Ok(Answer::Nothing)
            }
        })
    }

    /// What the end of the process does.
    pub(crate) fn close(&mut self) {
        self.slots = [None; SLOTS];
        self.model.release_all();
    }

    /// What a tree in this state shows.
    pub(crate) fn dump(&self) -> Dump {
        dump(&self.model, false).unwrap_or_default()
    }
}

fn caller(uid: u32) -> Caller {
    Caller { uid, gid: uid + 1 }
}

/// Where symbolic links lead; one cuts off as much as it needs.
fn link_target() -> Vec<u8> {
    b"over/there/".repeat(400)
}

/// Whether an error speaks of the disk, not of the operation.
pub(crate) fn is_of_the_disk(error: &FsError) -> bool {
    matches!(error, FsError::NoSpace | FsError::Disk(_) | FsError::ReadOnly | FsError::Damaged(_))
}

/// How an operation went.
#[derive(Debug)]
pub enum Step {
    /// As the model says; `durable` if everything so far survives a crash now.
    Agreed {
        /// A sync or a seal was acknowledged.
        durable: bool,
    },
    /// The disk failed, and the engine said so.
    Failed(FsError),
}

/// An engine and a model.
pub struct Stage<'a, O: Opener> {
    opener: &'a O,
    /// The disk under the engine.
    pub disk: SimDisk,
    seed: u64,
    life: u32,
    /// Open, except for the moment of a restart.
    engine: Option<O::Engine>,
    pub(crate) play: Rehearsal,
    /// What the model would be had the last failed operation happened.
    pub(crate) doubt: Option<Rehearsal>,
    slots: [Option<Ino>; SLOTS],
    /// What was seen when each acknowledged seal was made.
    pub(crate) seals: BTreeMap<Seq, Dump>,
    /// The model then, to go back to.
    models: BTreeMap<Seq, Model>,
    /// What the last operation was to drop.
    pub(crate) dropped: Vec<Seq>,
}

impl<'a, O: Opener> Stage<'a, O> {
    /// An empty volume on an empty disk.
    pub fn new(opener: &'a O, disk: &SimDisk, seed: u64) -> Result<Self, Problem> {
        opener.create(&env(disk, seed, 0)).map_err(|error| Problem(format!("create: {error}")))?;
        Self::open(opener, disk, seed, 1, Rehearsal::default())
    }

    /// A volume that is there, and what it should hold.
    pub(crate) fn open(
        opener: &'a O,
        disk: &SimDisk,
        seed: u64,
        life: u32,
        mut play: Rehearsal,
    ) -> Result<Self, Problem> {
        play.close();
        let engine =
            opener.open(env(disk, seed, life)).map_err(|error| Problem(format!("open: {}", said(&error))))?;
        let (slots, seals, models) = ([None; SLOTS], BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            opener,
            disk: disk.clone(),
            seed,
            life,
            engine: Some(engine),
            play,
            doubt: None,
            slots,
            seals,
            models,
            dropped: Vec::new(),
        })
    }

    /// The engine.
    pub fn engine(&self) -> &O::Engine {
        self.engine.as_ref().expect("a stage without an engine was left with a problem")
    }

    /// Gives an operation to both.
    pub fn step(&mut self, op: &Op) -> Result<Step, Problem> {
        self.doubt = None;
        let mut after = self.play.clone();
        let verdict = after.perform(op);
        if matches!(verdict, Verdict::Meaningless) {
            return Ok(Step::Agreed { durable: false });
        }
        self.dropped.clear();
        match op {
            Op::Reopen => return self.reopen(),
            Op::Rollback { luck } => return self.rollback(*luck),
            _ => {}
        }
        let answer = self.perform(op, &after);
        let verdict = match (op, verdict, &answer) {
            (
                Op::Clone { from, from_offset, to, to_offset, .. },
                Verdict::Done(Answer::Copied(all)),
                Ok(Answer::Copied(some)),
            ) if *some < all && *some > 0 => {
                // Fewer bytes are a success, as with `copy_file_range`; the caller asks again.
                let (from, from_offset, to, to_offset) = (from.clone(), *from_offset, to.clone(), *to_offset);
                after = self.play.clone();
                after.perform(&Op::Clone { from, from_offset, to, to_offset, len: *some })
            }
            (_, verdict, _) => verdict,
        };
        match (verdict, answer) {
            (Verdict::Done(expected), Ok(answer)) if expected == answer => {
                self.play = after;
                let mut durable = op.makes_durable();
                if self.engine().wants_seal() {
                    // What the keeper of a mounted volume does.
                    match self.seal(false) {
                        Ok(()) => durable = true,
                        Err(SealFailure::Disk(error)) => return Ok(Step::Failed(error)),
                        Err(SealFailure::Problem(problem)) => return Err(problem),
                    }
                }
                Ok(Step::Agreed { durable })
            }
            (Verdict::Refused(reasons), Err(error)) if reasons.contains(&error) => {
                Ok(Step::Agreed { durable: false })
            }
            (verdict, Err(error)) if is_of_the_disk(&error) => {
                if matches!(verdict, Verdict::Done(_)) {
                    self.doubt = Some(after);
                }
                Ok(Step::Failed(error))
            }
            (Verdict::Done(Answer::Bytes(_)), Ok(Answer::Bytes(_))) => {
                Err(Problem(format!("{op:?} read other bytes than were written")))
            }
            (verdict, answer) => {
                Err(Problem(format!("{op:?}: the model says {verdict:?}, the engine {answer:?}")))
            }
        }
    }

    fn target(&self, target: &Target) -> Result<Ino, FsError> {
        match target {
            Target::Held(slot) => self.slots[*slot].ok_or(FsError::NotFound),
            Target::At(path) => self.path(path),
        }
    }

    fn path(&self, path: &Path) -> Result<Ino, FsError> {
        path.iter()
            .try_fold(Ino::ROOT, |ino, name| Ok(self.engine().lookup(ino, NAMES[usize::from(*name)])?.ino))
    }

    fn perform(&mut self, op: &Op, after: &Rehearsal) -> Result<Answer, FsError> {
        let name = |i: &u8| NAMES[usize::from(*i)];
        let engine = self.engine();
        match op {
            Op::Make { parent, name: n, what, mode, uid, attributes } => {
                let (target, parent) = (link_target(), self.path(parent)?);
                let (node, xattrs) = (what.node(&target), &INHERITED[..usize::from(*attributes)]);
                let made = engine.make(caller(*uid), parent, name(n), *mode, node, xattrs)?;
                same_attr(&made, &engine.lookup(parent, name(n))?)?;
            }
            Op::Link { from, parent, name: n } => {
                let (from, parent) = (self.target(from)?, self.path(parent)?);
                same_attr(&engine.link(from, parent, name(n))?, &engine.attr(from)?)?;
            }
            Op::Unlink { parent, name: n } => {
                let parent = self.path(parent)?;
                let lost = engine.lookup(parent, name(n)).ok();
                engine.unlink(parent, name(n))?;
                self.forget(lost);
            }
            Op::Rmdir { parent, name: n } => {
                let parent = self.path(parent)?;
                let lost = engine.lookup(parent, name(n)).ok();
                engine.rmdir(parent, name(n))?;
                self.forget(lost);
            }
            Op::Rename { from, from_name, to, to_name, mode } => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                let lost = engine.lookup(to, name(to_name)).ok();
                engine.rename(from, name(from_name), to, name(to_name), *mode)?;
                self.forget(lost);
            }
            Op::SetAttr { target, set } => {
                let target = self.target(target)?;
                same_attr(&engine.set_attr(target, *set)?, &engine.attr(target)?)?;
            }
            Op::SetAttrAndXattr { target, set, name, value } => {
                let (target, name) = (self.target(target)?, XATTRS[usize::from(*name)]);
                let value = value.map(|value| value.get());
                let attr = engine.set_attr_and_xattr(target, *set, name, value.as_deref())?;
                same_attr(&attr, &engine.attr(target)?)?;
            }
            Op::Write { target, offset, bytes, kill_suid } => {
                engine.write(self.target(target)?, *offset, &bytes.get(), *kill_suid)?;
            }
            Op::Allocate { target, offset, len, how } => {
                engine.allocate(self.target(target)?, *offset, *len, *how)?;
            }
            Op::Clone { from, from_offset, to, to_offset, len } => {
                let (from, to) = (self.target(from)?, self.target(to)?);
                return engine.clone_range(from, *from_offset, to, *to_offset, *len).map(Answer::Copied);
            }
            Op::SetXattr { target, name, value, how } => {
                engine.set_xattr(self.target(target)?, XATTRS[usize::from(*name)], &value.get(), *how)?;
            }
            Op::RemoveXattr { target, name } => {
                engine.remove_xattr(self.target(target)?, XATTRS[usize::from(*name)])?;
            }
            Op::Read { target, offset, len } => {
                return engine.read(self.target(target)?, *offset, *len as usize).map(Answer::Bytes);
            }
            Op::Hold { target, slot } => {
                let ino = self.target(target)?;
                engine.attr(ino)?;
                engine.hold(ino);
                if let Some(before) = self.slots[*slot].replace(ino) {
                    self.release(before);
                }
            }
            Op::Release { slot } => {
                if let Some(ino) = self.slots[*slot].take() {
                    self.release(ino);
                }
            }
            Op::Sync => engine.sync()?,
            Op::FlushJournal => engine.flush_journal()?,
            Op::Seal { labelled } => {
                let number = after.labels;
                let label = labelled.then(|| SnapshotLabel {
                    id: SnapshotId([number; 16]),
                    message: format!("the snapshot number {number}"),
                    tags: vec![format!("tag-{number}")],
                });
                let info = engine.seal(label.clone())?;
                if *labelled && info.snapshot != label {
                    return Err(FsError::Damaged(format!("the seal has the label {:?}", info.snapshot)));
                }
                let seen = dump(engine, true)?;
                self.remember(info.seq, seen, &after.model);
            }
            Op::Prune { luck, grace_hours } => {
                let mut dice = Dice::seeded(*luck);
                let seals = engine.seals()?;
                let (newest, before) = seals.split_last().expect("a volume has a moment");
                let dropped: Vec<Seq> =
                    before.iter().filter(|_| dice.percent(40)).map(|seal| seal.seq).collect();
                let result = engine.prune(&dropped, Duration::from_hours(*grace_hours));
                // Of one that failed nobody knows whether it happened.
                self.seals.retain(|seq, _| !dropped.contains(seq));
                self.models.retain(|seq, _| !dropped.contains(seq));
                self.dropped = dropped;
                result?;
                if self.disk.is_well() {
                    self.check_pruned(&seals, newest.seq).map_err(|problem| FsError::Damaged(problem.0))?;
                }
            }
            Op::Reopen | Op::Rollback { .. } => {}
        }
        Ok(Answer::Nothing)
    }

    fn remember(&mut self, seq: Seq, seen: Dump, model: &Model) {
        let mut model = model.clone();
        model.release_all();
        self.seals.insert(seq, seen);
        self.models.insert(seq, model);
    }

    /// After a prune exactly those that were to be dropped are gone, and what is left is whole.
    fn check_pruned(&self, before: &[SealInfo], newest: Seq) -> Result<(), Problem> {
        let listed = self.engine().seals().map_err(|error| Problem(said(&error)))?;
        let is_listed = |seq: Seq| listed.iter().any(|info| info.seq == seq);
        let mut seqs = before.iter().map(|info| info.seq);
        if let Some(seq) = seqs.find(|seq| is_listed(*seq) == self.dropped.contains(seq)) {
            return Err(Problem(format!(
                "of the moments, {seq} is not what was asked for: {:?}",
                self.dropped
            )));
        }
        if listed.last().is_none_or(|info| info.seq < newest) {
            return Err(Problem(format!("the newest moment {newest} is not there any more")));
        }
        self.engine().inspect().map_err(|what| Problem(format!("after pruning: {what}")))
    }

    /// Tells the engine that the kernel forgot an inode that lost its last name and has no handle.
    fn forget(&self, lost: Option<Attr>) {
        let Some(attr) = lost else { return };
        let gone = self.engine().attr(attr.ino).is_ok_and(|attr| attr.inode.nlink == 0);
        if gone && !self.slots.contains(&Some(attr.ino)) {
            self.engine().forget(attr.ino);
        }
    }

    fn release(&self, ino: Ino) {
        self.engine().release(ino);
        let gone = self.engine().attr(ino).is_ok_and(|attr| attr.inode.nlink == 0);
        if gone && !self.slots.contains(&Some(ino)) {
            self.engine().forget(ino);
        }
    }

    fn seal(&mut self, labelled: bool) -> Result<(), SealFailure> {
        let play = self.play.clone();
        match self.perform(&Op::Seal { labelled }, &play) {
            Ok(_) => Ok(()),
            Err(error) if is_of_the_disk(&error) => Err(SealFailure::Disk(error)),
            Err(error) => Err(SealFailure::Problem(Problem(format!("seal: {error}")))),
        }
    }

    /// Syncs, closes and opens the volume again.
    fn reopen(&mut self) -> Result<Step, Problem> {
        match self.engine().sync() {
            Ok(()) => {}
            Err(error) if is_of_the_disk(&error) => return Ok(Step::Failed(error)),
            Err(error) => return Err(Problem(format!("sync: {error}"))),
        }
        self.restart()?;
        Ok(Step::Agreed { durable: true })
    }

    /// Goes back to a moment, on a volume that is not mounted.
    fn rollback(&mut self, luck: u64) -> Result<Step, Problem> {
        let seqs: Vec<Seq> = self.models.keys().copied().collect();
        let step = self.reopen()?;
        if seqs.is_empty() || matches!(step, Step::Failed(_)) {
            return Ok(step);
        }
        let to = *Dice::seeded(luck).pick(&seqs);
        let model = self.models[&to].clone();
        let mut after = self.play.clone();
        after.model = model;
        match self.engine().rollback(to) {
            Err(error) if is_of_the_disk(&error) => {
                self.doubt = Some(after);
                return Ok(Step::Failed(error));
            }
            Err(error) => return Err(Problem(format!("rollback to {to}: {error}"))),
            Ok(info) => {
                self.play = after;
                let seen = dump(self.engine(), true)
                    .map_err(|error| Problem(format!("after the rollback: {error}")))?;
                let model = self.play.model.clone();
                self.remember(info.seq, seen, &model);
            }
        }
        self.restart()?;
        Ok(Step::Agreed { durable: true })
    }

    /// Closes the volume without a sync and opens it again.
    pub(crate) fn restart(&mut self) -> Result<(), Problem> {
        self.life += 1;
        // The old one goes first: what it does at its end must not hit the new one's files.
        self.engine = None;
        let door = env(&self.disk, self.seed, self.life);
        let engine = self.opener.open(door).map_err(|error| Problem(format!("reopen: {}", said(&error))))?;
        self.engine = Some(engine);
        self.play.close();
        self.slots = [None; SLOTS];
        Ok(())
    }

    /// Sees all of the tree and compares it with the model; the handles too.
    pub fn check(&self) -> Result<Dump, Problem> {
        let seen = dump(self.engine(), true).map_err(|error| Problem(format!("the live tree: {error}")))?;
        let expected = self.play.dump();
        if seen.plain() != expected {
            let difference = seen.plain().difference(&expected);
            return Err(Problem(format!("the live tree differs from the model:\n{difference}")));
        }
        for (theirs, ours) in self.slots.iter().zip(&self.play.slots) {
            if let (Some(theirs), Some(ours)) = (theirs, ours) {
                self.check_handle(*theirs, *ours)?;
            }
        }
        Ok(seen)
    }

    fn check_handle(&self, theirs: Ino, ours: Ino) -> Result<(), Problem> {
        let trouble = |error| Problem(format!("a held file: {error}"));
        let (seen, expected) =
            (self.engine().attr(theirs).map_err(trouble)?, self.play.model.attr(ours).map_err(trouble)?);
        let shown = |attr: &Attr| (attr.inode.kind, attr.inode.mode, attr.inode.nlink, attr.inode.size);
        if shown(&seen) != shown(&expected) {
            return Err(Problem(format!("a held file is {:?}, not {:?}", shown(&seen), shown(&expected))));
        }
        if let Some(content) = self.play.model.content(ours) {
            for (start, end) in content.ranges() {
                let bytes = self.engine().read(theirs, start, (end - start) as usize).map_err(trouble)?;
                if bytes != content.read(start, (end - start) as usize) {
                    return Err(Problem(format!("a held file has other bytes in {start}..{end}")));
                }
            }
        }
        Ok(())
    }

    /// Compares all sealed moments with what was seen when they were sealed.
    pub fn check_seals(&self) -> Result<(), Problem> {
        for seq in self.seals.keys() {
            check_seal(self.engine(), *seq, &self.seals)?;
        }
        Ok(())
    }

    /// After a failed operation, finds out whether it happened, which it may. `false` means that the engine
    /// cannot even be read now.
    pub(crate) fn settle(&mut self) -> Result<bool, Problem> {
        let Ok(seen) = dump(self.engine(), false) else { return Ok(false) };
        if seen == self.play.dump() {
            return Ok(true);
        }
        match self.doubt.take() {
            Some(after) if seen == after.dump() => {
                self.play = after;
                Ok(true)
            }
            _ => {
                let difference = seen.difference(&self.play.dump());
                Err(Problem(format!(
                    "a failed operation left something else than before or after:\n{difference}"
                )))
            }
        }
    }
}

enum SealFailure {
    Disk(FsError),
    Problem(Problem),
}

/// Whether a sealed moment is there and as it was.
pub(crate) fn check_seal(engine: &impl Engine, seq: Seq, seals: &BTreeMap<Seq, Dump>) -> Result<(), Problem> {
    let trouble = |error: OpenError| Problem(format!("snapshot {seq}: {}", said(&error)));
    if !engine.seals().map_err(trouble)?.iter().any(|info| info.seq == seq) {
        return Err(Problem(format!("the snapshot {seq} was acknowledged and is not listed")));
    }
    let view = engine.at(seq).map_err(trouble)?;
    let seen = dump(view.as_ref(), true).map_err(|error| Problem(format!("snapshot {seq}: {error}")))?;
    match seals.get(&seq) {
        Some(expected) if *expected != seen => {
            Err(Problem(format!("snapshot {seq} changed (now / then):\n{}", seen.difference(expected))))
        }
        _ => Ok(()),
    }
}

/// An error with its sources.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        out.push_str(&format!(": {error}"));
        source = error.source();
    }
    out
}

/// An operation's returned attributes must be those that a question finds next.
fn same_attr(returned: &Attr, found: &Attr) -> Result<(), FsError> {
    if returned.ino == found.ino && returned.inode == found.inode {
        return Ok(());
    }
    Err(FsError::Damaged(format!("returned {returned:?}, then found {found:?}")))
}
