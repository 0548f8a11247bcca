//! What must hold: `failover.md`, section 15, as far as a simulation can see it.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{AppId, Epoch, Seq, Term, VolumeId};
use orchestrator_api::placement::{Expect, Phase, Policy};
use orchestrator_hive::{Kind, Operation, OperationState, Refused, Step};

use crate::store::Index;
use crate::world::{World, name};

/// A write that an app was told of.
#[derive(Debug, Clone, Copy)]
struct Write {
    volume: VolumeId,
    term: Term,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Something that must not be.
    pub broken: Option<String>,
    /// Terms that a machine's record once called stopped.
    pub ended: BTreeSet<(usize, AppId, Term)>,
    writes: Vec<Write>,
    /// The highest term in which a write of an app was accepted, and where.
    latest: BTreeMap<AppId, (Term, usize)>,
    /// What a writer said to be replicated.
    told: BTreeMap<(VolumeId, Seq), Index>,
    /// Terms whose writes were gone back from.
    gone_back: BTreeSet<(VolumeId, Term)>,
}

impl Oracle {
    /// The number of the next write.
    pub fn next_write(&self) -> u64 {
        self.writes.len() as u64
    }
}

impl World {
    /// An app's write was accepted: invariant 2.
    pub(crate) fn wrote(&mut self, at: usize, app: AppId, volume: VolumeId, number: u64) {
        let Some(record) = self.machines[at].disk.apps.get(&app) else { return };
        let (term, phase) = (record.term, record.phase);
        debug_assert_eq!(number, self.oracle.next_write(), "writes are numbered in their order");
        // A stop for the sake of a later term goes on under that term's number.
        let written = self.machines[at].containers.get(&app).map_or(term, |container| container.term);
        self.oracle.writes.push(Write { volume, term: written });
        let app_number = app.0[0];
        // What is heard of a copy says nothing of the original: between them the store decides.
        let id = self.machines[at].id;
        let twin = self.machines.iter().filter(|machine| machine.id == id).count() > 1;
        let ended = self.oracle.ended.contains(&(at, app, written));
        let broken = if !phase.is_live() || ended {
            Some(format!("accepts a write of app {app_number} in term {term}, which is {phase:?}"))
        } else if !twin && self.hive.watched_out.contains(&(app, written)) {
            Some(format!("accepts a write of app {app_number} in term {written}, after its watch was over"))
        } else {
            let later = self.oracle.latest.get(&app).copied().filter(|(latest, other)| {
                // A hive that was restored may go on with a term of before; never beside another.
                let beside = || {
                    let machine = &self.machines[*other];
                    let now = machine.clock(self.now);
                    let open = |mount: &crate::machine::Mount| {
                        mount.alive && mount.lease.is_some_and(|end| now < end)
                    };
                    let fenced = machine.local.get(&volume).is_none_or(|local| local.fenced);
                    machine.on && !fenced && machine.mounts.get(&volume).is_some_and(open)
                };
                *latest > written && self.machines[*other].id != id && (!self.hive.restored || beside())
            });
            let later = later.filter(|_| !twin && self.hive.leased.contains(&(app, written)));
            later.map(|(latest, other)| {
                let other = name(other);
                format!("accepts a write of app {app_number} in term {written}, after {other} did in term {latest}")
            })
        };
        if let Some(broken) = broken {
            self.oracle.broken = Some(format!("{} {broken}", name(at)));
        }
        let latest = self.oracle.latest.entry(app).or_insert((written, at));
        if latest.0 < written {
            *latest = (written, at);
        }
    }

    /// A writer says that a seal is replicated: invariant 1.
    pub(crate) fn told_replicated(&mut self, at: usize, volume: VolumeId, index: Index) {
        let seq = self.manifests.get(index).seq;
        let slot = self.store.get(&volume).and_then(|objects| objects.slots.get(&seq)).copied();
        let told = *self.oracle.told.entry((volume, seq)).or_insert(index);
        if slot != Some(index) || told != index {
            self.oracle.broken =
                Some(format!("{} says that #{index} is replicated, which is not its slot", name(at)));
        }
        if let Some(local) = self.machines[at].local.get_mut(&volume) {
            local.replicated = local.replicated.max(seq);
        }
    }

    /// A volume was claimed: an order that is older than what another device has ends nobody's right. Whoever hears of its claim
    /// only after the other one claimed has ended nobody's: then the other's epoch is the higher one.
    pub(crate) fn claimed(&mut self, at: usize, app: AppId, volume: VolumeId, epoch: Epoch) {
        let id = self.machines[at].id;
        let Some(term) = self.machines[at].disk.apps.get(&app).map(|record| record.term) else { return };
        let later = self.machines.iter().position(|machine| {
            let record = machine.disk.apps.get(&app);
            let has = machine.local.get(&volume).and_then(|local| local.epoch);
            machine.id != id
                && record.is_some_and(|it| it.mine && it.phase == Phase::Running && it.term > term)
                && has.is_some_and(|has| has < epoch)
        });
        if let Some(later) = later {
            let number = app.0[0];
            self.oracle.broken = Some(format!(
                "{} claims app {number} in term {term}, which {} has later",
                name(at),
                name(later)
            ));
        }
    }

    /// A volume is about to be written in a new term: invariant 3.
    pub(crate) fn mounted(&mut self, at: usize, app: AppId, volume: VolumeId) {
        let Some(record) = self.machines[at].disk.apps.get(&app) else { return };
        let (term, rolls_back) = (record.term, record.rollback_to.contains_key(&volume));
        let handed_over =
            record.volumes.get(&volume).is_some_and(|it| matches!(it.expect, Expect::Exactly(_)));
        let first = !record.started;
        let previous = self.term_before(app, term);
        if rolls_back {
            if !first {
                self.oracle.broken = Some("a moment is gone back to twice".into());
            }
            if let Some(previous) = previous {
                self.oracle.gone_back.insert((volume, previous));
            }
        }
        let Some(head) = self.machines[at].local.get(&volume).and_then(|local| local.head()) else { return };
        if handed_over && first {
            self.nothing_was_left_behind(app, volume, term, head);
        }
    }

    /// A planned move ended: nothing is lost, and the app is not left where it failed.
    pub(crate) fn move_ended(&mut self, operation: &Operation) {
        if operation.kind != Kind::Move {
            return;
        }
        let number = operation.app.0[0];
        match operation.state {
            OperationState::Failed(Refused::Forced | Refused::LeaseOver) => {}
            OperationState::Failed(reason) if matches!(operation.step, Step::Start | Step::TakeBack) => {
                self.oracle.broken = Some(format!("app {number} is left where it failed: {reason:?}"));
            }
            OperationState::Done => {
                let term = self.hive.rows.apps.get(&operation.app).map(|app| app.placement.term);
                for volume in self.apps.get(&operation.app).cloned().unwrap_or_default() {
                    if let Some(term) = term
                        && let Some(head) = self.store.get(&volume).and_then(|objects| objects.newest())
                    {
                        self.nothing_was_left_behind(operation.app, volume, term, head);
                    }
                }
            }
            _ => {}
        }
    }

    /// The term that was given before.
    fn term_before(&self, app: AppId, term: Term) -> Option<Term> {
        self.hive.given.range((app, Term(0))..(app, term)).next_back().map(|((_, term), _)| *term)
    }

    /// The tree has all that was written in the term before this one.
    fn nothing_was_left_behind(&mut self, app: AppId, volume: VolumeId, term: Term, head: Index) {
        // Of two machines with one identity, one may have lost its right in the same term.
        let ids: BTreeSet<_> = self.machines.iter().map(|machine| machine.id).collect();
        if ids.len() < self.machines.len() {
            return;
        }
        let Some(previous) = self.term_before(app, term) else { return };
        if self.oracle.gone_back.contains(&(volume, previous)) {
            return;
        }
        let content = self.manifests.content(head);
        let lost = self.oracle.writes.iter().enumerate().find(|(number, write)| {
            write.volume == volume && write.term == previous && !content.contains(&(*number as u64))
        });
        if let Some((number, _)) = lost {
            self.oracle.broken = Some(format!("a planned move lost write {number} of term {previous}"));
        }
    }

    /// Every write that was accepted is somewhere: invariants 3 and 5.
    pub(crate) fn nothing_is_lost(&self) -> Result<(), String> {
        let mut kept: BTreeSet<u64> = BTreeSet::new();
        let mut seen: BTreeSet<Index> = BTreeSet::new();
        let mut keep = |index: &Index, kept: &mut BTreeSet<u64>| {
            if seen.insert(*index) {
                kept.extend(&self.manifests.get(*index).writes);
            }
        };
        for objects in self.store.values() {
            objects.slots.values().for_each(|index| keep(index, &mut kept));
        }
        for local in self.machines.iter().flat_map(|machine| machine.local.values()) {
            local
                .chain
                .values()
                .chain(local.branches.iter().flatten())
                .for_each(|index| keep(index, &mut kept));
            kept.extend(&local.journal);
        }
        match (0..self.oracle.next_write()).find(|number| !kept.contains(number)) {
            Some(number) => Err(format!("write {number} is nowhere: not in the volume, on no branch")),
            None => Ok(()),
        }
    }

    /// What keeps the run from ending: invariant 6.
    pub(crate) fn amiss(&self) -> Option<String> {
        let rows = &self.hive.rows;
        if rows.recovering {
            return Some("the hive still waits for devices".into());
        }
        let running = rows.operations.values().find(|it| it.state == OperationState::Running);
        if let Some(it) = running {
            return Some(format!(
                "app {} is still being worked on: {:?} {:?}",
                it.app.0[0], it.kind, it.step
            ));
        }
        for (id, app) in &rows.apps {
            let lives = |at: &usize| {
                let machine = &self.machines[*at];
                let live = machine.disk.apps.get(id).is_some_and(|record| record.phase.is_live());
                machine.on && (live || machine.containers.contains_key(id))
            };
            let live: Vec<usize> = (0..self.machines.len()).filter(lives).collect();
            let names: Vec<String> = live.iter().map(|at| name(*at)).collect();
            let number = id.0[0];
            match (app.wanted, live.as_slice()) {
                (_, [_, _, ..]) => return Some(format!("app {number} runs on {names:?}")),
                (false, []) => {}
                (false, _) => return Some(format!("app {number} runs on {names:?}, and is not wanted")),
                (true, [at]) => {
                    let machine = &self.machines[*at];
                    let phase = machine.disk.apps.get(id).map(|record| (record.phase, record.term));
                    let placed = (app.placement.device, app.placement.term);
                    if phase != Some((Phase::Running, app.placement.term)) || placed.0 != Some(machine.id) {
                        return Some(format!(
                            "app {number} is {phase:?} on {names:?}, and placed {placed:?}"
                        ));
                    }
                }
                // What can run anywhere has to; what only one device may run stays where it failed, for a person.
                (true, []) if self.why_not(*id).is_none() || app.policy == Policy::Auto => {
                    return Some(format!("app {number} runs nowhere, and nothing says why"));
                }
                (true, []) => {}
            }
        }
        None
    }

    /// Why an app does not run, as a person is told.
    fn why_not(&self, id: AppId) -> Option<String> {
        let app = self.hive.rows.apps.get(&id)?;
        match (app.problem, self.hive.rows.phase(id)) {
            (Some(problem), _) => Some(format!("{problem:?}")),
            (None, Some(Phase::Stopped(why))) => Some(format!("{why:?}")),
            _ => None,
        }
    }

    pub(crate) fn count_told(&mut self) {
        let apps: Vec<_> = self.hive.rows.apps.iter().map(|(id, app)| (*id, app.wanted)).collect();
        for (id, wanted) in apps {
            let lives = |machine: &crate::machine::Machine| {
                machine.on && machine.disk.apps.get(&id).is_some_and(|record| record.phase.is_live())
            };
            if wanted && !self.machines.iter().any(lives) {
                self.seen.told += 1;
                let why = self.why_not(id);
                self.say(|| format!("app {} does not run: {why:?}", id.0[0]));
            }
        }
    }
}
