//! The trials that an engine must pass, and the hunt for seeds that it fails.
//!
//! Each trial takes a list of operations and is a function of it and a seed alone, so a failing list can be
//! made shorter by trying again. A failure prints the seed, the shortest list and what was wrong.
//!
//! | variable | meaning |
//! |---|---|
//! | `COMB_SIM_ROUNDS` | how many seeds each trial gets; the short form is a few |
//! | `COMB_SIM_SEED` | this seed alone |
//! | `COMB_SIM_OPS` | how many operations a workload has |
//! | `COMB_SIM_FAULTS` | how many I/Os of a workload are hit by a fault; 0 is every one |
//!
//! The long form is `COMB_SIM_ROUNDS=300 COMB_SIM_FAULTS=0 cargo test --release -p fs-sim`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fs_format::Seq;
use fs_volume::{Caller, FsError, NewNode, OpenError, SetAttr, WriteTree};

use crate::stage::{Rehearsal, check_seal, said};
use crate::workload::{NAMES, Op, Weights, generate};
use crate::{
    Dice, Dump, Engine, Fault, FaultKind, Image, Io, Opener, Problem, SimDisk, Stage, Step, damage, dump, env,
};

/// A trial of one list of operations.
pub type Trial<'a> = dyn Fn(u64, &[Op]) -> Result<(), Problem> + 'a;

/// How long the search for a shorter failing list may take.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(30);

/// How much a test does.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Seeds to try.
    pub seeds: Vec<u64>,
    /// Operations in a workload.
    pub ops: usize,
    /// I/Os of a workload that are hit by a fault.
    pub faults: u64,
}

impl Effort {
    /// The short form, unless the environment says otherwise.
    pub fn new(rounds: u64, ops: usize, faults: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seeds = match number("COMB_SIM_SEED") {
            Some(seed) => vec![seed],
            None => (0..number("COMB_SIM_ROUNDS").unwrap_or(rounds)).collect(),
        };
        let faults = match number("COMB_SIM_FAULTS").unwrap_or(faults) {
            0 => u64::MAX,
            faults => faults,
        };
        Self { seeds, ops: number("COMB_SIM_OPS").map_or(ops, |ops| ops as usize), faults }
    }

    /// Which of `count` I/Os are hit: all, or a sample that differs from seed to seed.
    fn sample(&self, seed: u64, first: u64, last: u64) -> Vec<u64> {
        let count = (last + 1).saturating_sub(first);
        if count <= self.faults {
            return (first..=last).collect();
        }
        let mut dice = Dice::seeded(seed).fork(0x5a4d);
        let mut chosen: Vec<u64> = (0..self.faults).map(|_| first + dice.below(count)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

/// A workload that fails a trial.
#[derive(Debug)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// The shortest list of operations found that fails.
    pub ops: Vec<Op>,
    /// What went wrong with it.
    pub problem: Problem,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "COMB_SIM_SEED={} fails with {} operations:", self.seed, self.ops.len())?;
        for (i, op) in self.ops.iter().enumerate() {
            writeln!(f, "  {i:3} {op:?}")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// Tries all seeds; the first that fails is made as short as it gets.
pub fn hunt(effort: &Effort, weights: &Weights, trial: &Trial<'_>) -> Result<(), Box<Found>> {
    for seed in &effort.seeds {
        let ops = generate(*seed, effort.ops, weights);
        if let Err(problem) = attempt(trial, *seed, &ops) {
            let (ops, problem) = shrink(trial, *seed, ops, problem);
            return Err(Box::new(Found { seed: *seed, ops, problem }));
        }
    }
    Ok(())
}

/// A trial in which a panic is a failure like others.
fn attempt(trial: &Trial<'_>, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    catch_unwind(AssertUnwindSafe(|| trial(seed, ops))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Err(Problem(format!("the engine panicked: {text}")))
    })
}

/// Takes away operations as long as it still fails: first halves, at last single ones.
fn shrink(trial: &Trial<'_>, seed: u64, mut ops: Vec<Op>, mut problem: Problem) -> (Vec<Op>, Problem) {
    let start = Instant::now();
    let mut size = ops.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < ops.len() && start.elapsed() < SHRINK_TIME_MAX {
            let end = (at + size).min(ops.len());
            let rest: Vec<Op> = [&ops[..at], &ops[end..]].concat();
            match attempt(trial, seed, &rest) {
                Err(found) => {
                    (ops, problem) = (rest, found);
                    shorter = true;
                }
                Ok(()) => at = end,
            }
        }
        if size > 1 || !shorter || start.elapsed() >= SHRINK_TIME_MAX {
            size /= 2;
        }
    }
    (ops, problem)
}

fn at_op(i: usize, op: &Op) -> impl Fn(Problem) -> Problem {
    move |problem| Problem(format!("at operation {i}, {op:?}: {problem}"))
}

fn failed_for_no_reason(error: &FsError) -> Problem {
    Problem(format!("the disk is fine, and the engine says: {error}"))
}

/// The engine does what the model does, error by error; opened again it still holds the same, and so do all
/// its snapshots.
pub fn agrees<O: Opener>(opener: &O, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    let mut stage = Stage::new(opener, &SimDisk::seeded(seed), seed)?;
    for (i, op) in ops.iter().enumerate() {
        let trouble = at_op(i, op);
        if let Step::Failed(error) = stage.step(op).map_err(&trouble)? {
            return Err(trouble(failed_for_no_reason(&error)));
        }
        stage.check().map_err(&trouble)?;
        if *op == Op::Reopen {
            stage.check_seals().map_err(&trouble)?;
        }
    }
    let last = Op::Reopen;
    stage
        .step(&last)
        .and_then(|_| stage.check())
        .map_err(|problem| Problem(format!("at the end: {problem}")))?;
    stage.check_seals()
}

/// Runs the operations and cuts the power at every I/O that changes the disk, `crashes` times with different
/// luck. What is found is the state after some operation, none that was acknowledged as durable is missing,
/// the snapshots are there, and work goes on.
pub fn survives_cuts<O: Opener>(opener: &O, crashes: u64, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    disk.record_images();
    let mut past =
        Past { states: vec![stage.check()?], floor: 0, seals: BTreeMap::new(), dropping: Vec::new() };
    for (i, op) in ops.iter().enumerate() {
        let trouble = at_op(i, op);
        let durable = match stage.step(op).map_err(&trouble)? {
            Step::Agreed { durable } => durable,
            Step::Failed(error) => return Err(trouble(failed_for_no_reason(&error))),
        };
        past.states.push(stage.check().map_err(&trouble)?);
        past.dropping.clone_from(&stage.dropped);
        let mut images = disk.take_images();
        for image in &images {
            let when = |problem| {
                trouble(Problem(format!(
                    "power cut before I/O {} ({:?}): {problem}",
                    image.before, image.next
                )))
            };
            cut(opener, crashes, seed, image, &past).map_err(when)?;
        }
        if durable {
            past.floor = i + 1;
        }
        past.seals.clone_from(&stage.seals);
        past.dropping.clear();
        images = vec![disk.image()];
        let when = |problem| trouble(Problem(format!("power cut after the operation: {problem}")));
        cut(opener, crashes, seed, &images[0], &past).map_err(when)?;
    }
    Ok(())
}

/// What was seen so far.
struct Past {
    /// The tree before the first operation and after each.
    states: Vec<Dump>,
    /// The first state that a crash may leave.
    floor: usize,
    /// The acknowledged seals.
    seals: BTreeMap<Seq, Dump>,
    /// Moments that are being dropped: all of them are there, or none.
    dropping: Vec<Seq>,
}

impl Past {
    fn check(&self, engine: &impl Engine, dice: &mut Dice) -> Result<(), Problem> {
        if let Some(reason) = engine.read_only_reason() {
            return Err(Problem(format!("a power cut is no damage, but the volume is read-only: {reason}")));
        }
        let seen = dump(engine, true).map_err(|error| Problem(format!("the tree after a crash: {error}")))?;
        self.check_state(&seen)?;
        let listed = engine.seals().map_err(|error| Problem(format!("the snapshots: {}", said(&error))))?;
        let is_listed = |seq: &Seq| listed.iter().any(|info| info.seq == *seq);
        let are_dropped = !self.dropping.is_empty() && !self.dropping.iter().any(is_listed);
        if !are_dropped && !self.dropping.iter().all(is_listed) {
            return Err(Problem(format!("of the moments {:?} some are dropped", self.dropping)));
        }
        let is_kept = |seq: &Seq| !(are_dropped && self.dropping.contains(seq));
        let acknowledged: Vec<Seq> = self.seals.keys().copied().filter(is_kept).collect();
        let newest = acknowledged.last().copied();
        let some = (!acknowledged.is_empty()).then(|| *dice.pick(&acknowledged));
        for seq in newest.into_iter().chain(some) {
            check_seal(engine, seq, &self.seals)?;
        }
        // A seal that was under way may be there; then it is whole.
        for info in listed {
            if newest.is_some_and(|newest| info.seq > newest) {
                let view = engine
                    .at(info.seq)
                    .map_err(|error| Problem(format!("the new snapshot: {}", said(&error))))?;
                let seen = dump(view.as_ref(), true)
                    .map_err(|error| Problem(format!("the new snapshot: {error}")))?;
                if !self.states.contains(&seen) {
                    return Err(Problem(format!(
                        "the unacknowledged snapshot {} shows no state there was",
                        info.seq
                    )));
                }
            }
        }
        Ok(())
    }

    fn check_state(&self, seen: &Dump) -> Result<(), Problem> {
        if self.states[self.floor..].contains(seen) {
            return Ok(());
        }
        let early = self.states[..self.floor].iter().rposition(|state| state == seen);
        if let Some(k) = early {
            let text =
                format!("only {k} operations survived, but {} were acknowledged as durable", self.floor);
            return Err(Problem(text));
        }
        let mut text = String::from("what survived is no prefix of the operations\n");
        for (name, k) in [("the last durable state", self.floor), ("the newest state", self.states.len() - 1)]
        {
            text.push_str(&format!(" against {name} ({k}):\n{}", seen.difference(&self.states[k])));
        }
        Err(Problem(text))
    }
}

/// One moment, crashed with several seeds.
fn cut<O: Opener>(opener: &O, crashes: u64, seed: u64, image: &Image, past: &Past) -> Result<(), Problem> {
    for crash in 0..crashes {
        let mut dice = Dice::seeded(seed).fork(image.before * crashes + crash);
        let luck = dice.next();
        let disk = image.after_crash(luck);
        let within = |problem| Problem(format!("crash {luck}: {problem}"));
        let deep = dice.percent(12);
        if deep {
            disk.record_images();
        }
        let life = 100 + crash as u32;
        let opened = opener.open(env(&disk, seed, life));
        let engine = opened.map_err(|error| within(Problem(format!("open: {}", said(&error)))))?;
        past.check(&engine, &mut dice).map_err(within)?;
        if deep {
            again(opener, seed, &disk, past, &mut dice).map_err(within)?;
            go_on(opener, seed, &disk, engine, &mut dice).map_err(within)?;
        }
    }
    Ok(())
}

/// The power goes again while the volume recovers from the first cut.
fn again<O: Opener>(
    opener: &O,
    seed: u64,
    disk: &SimDisk,
    past: &Past,
    dice: &mut Dice,
) -> Result<(), Problem> {
    for image in disk.take_images() {
        let when = |problem| {
            Problem(format!(
                "a second cut during recovery, before I/O {} ({:?}): {problem}",
                image.before, image.next
            ))
        };
        let opened = opener.open(env(&image.after_crash(dice.next()), seed, 200));
        let engine = opened.map_err(|error| when(Problem(format!("open: {}", said(&error)))))?;
        past.check(&engine, dice).map_err(when)?;
    }
    Ok(())
}

/// After a crash work goes on: what is written now survives the next crash, on top of what was found.
fn go_on<O: Opener>(
    opener: &O,
    seed: u64,
    disk: &SimDisk,
    engine: O::Engine,
    dice: &mut Dice,
) -> Result<(), Problem> {
    let trouble = |error: FsError| Problem(format!("going on after the crash: {error}"));
    let attr = engine
        .make(Caller { uid: 1, gid: 1 }, fs_format::Ino::ROOT, b"after the crash", 0o600, NewNode::File, &[])
        .map_err(trouble)?;
    for i in 0..1 + dice.below(4) {
        engine.write(attr.ino, i * 5000, &[i as u8 + 1; 7000], false).map_err(trouble)?;
    }
    let sealed = if dice.percent(30) { Some(engine.seal(None).map_err(trouble)?) } else { None };
    engine.sync().map_err(trouble)?;
    let expected = dump(&engine, true).map_err(trouble)?;
    drop(engine);
    let disk = disk.after_crash(dice.next());
    let engine = opener
        .open(env(&disk, seed, 300))
        .map_err(|error| Problem(format!("second open: {}", said(&error))))?;
    let seen = dump(&engine, true).map_err(trouble)?;
    if seen != expected {
        let difference = seen.difference(&expected);
        return Err(Problem(format!("what was written after a crash was lost in the next:\n{difference}")));
    }
    match sealed {
        Some(info) => check_seal(&engine, info.seq, &BTreeMap::from([(info.seq, expected)])),
        None => Ok(()),
    }
}

/// How many I/Os a workload makes: the last of creation and opening, and the last of all.
fn count_ios<O: Opener>(opener: &O, seed: u64, ops: &[Op]) -> Result<(u64, u64), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    let first = disk.io_last();
    for op in ops {
        stage.step(op)?;
        stage.check()?;
    }
    Ok((first, disk.io_last()))
}

/// A disk error at each I/O, once or from there on. Errors are told, what was acknowledged stays, and the
/// volume opens again on a disk that is well.
pub fn survives_disk_errors<O: Opener>(
    opener: &O,
    effort: &Effort,
    seed: u64,
    ops: &[Op],
) -> Result<(), Problem> {
    let reopens = |op: &Op| matches!(op, Op::Reopen | Op::Rollback { .. });
    let ops: Vec<Op> = ops.iter().filter(|op| !reopens(op)).cloned().collect();
    let (first, last) = count_ios(opener, seed, &ops)?;
    for at in effort.sample(seed, first + 1, last) {
        for lasting in [false, true] {
            let fault = Fault { at, kind: FaultKind::DiskError, lasting };
            with_disk_error(opener, seed, &ops, fault).map_err(|problem| {
                Problem(format!("EIO at I/O {at}{}: {problem}", if lasting { " and on" } else { "" }))
            })?;
        }
    }
    Ok(())
}

fn with_disk_error<O: Opener>(opener: &O, seed: u64, ops: &[Op], fault: Fault) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    disk.set_fault(Some(fault));
    let mut states = vec![stage.play.dump()];
    let mut doubtful = None;
    let mut floor = 0;
    for (i, op) in ops.iter().enumerate() {
        let trouble = at_op(i, op);
        match stage.step(op).map_err(&trouble)? {
            Step::Agreed { durable } => {
                states.push(stage.play.dump());
                if durable {
                    floor = states.len() - 1;
                }
            }
            Step::Failed(FsError::NoSpace) => {
                return Err(trouble(Problem("a disk error is not a full disk".to_owned())));
            }
            Step::Failed(FsError::Damaged(what)) => {
                return Err(trouble(Problem(format!("a disk error is not damage: {what}"))));
            }
            Step::Failed(error) => {
                if *op == Op::Sync && error != FsError::ReadOnly {
                    stays_failed(stage.engine()).map_err(&trouble)?;
                }
                let doubt = stage.doubt.as_ref().map(Rehearsal::dump);
                if !stage.settle().map_err(&trouble)? {
                    doubtful = doubt;
                    break;
                }
                states.push(stage.play.dump());
            }
        }
    }
    // Whatever happened before: a success now means that all of it is durable.
    if stage.engine().sync().is_ok() {
        floor = states.len() - 1;
    }
    // What failed may have happened or not, and the disk is too ill to look.
    states.extend(doubtful);
    let seals = stage.seals.clone();
    drop(stage);
    disk.set_fault(None);
    for disk in [disk.fork(), disk.after_crash(seed), disk.after_crash(seed + 1)] {
        let opened = opener.open(env(&disk, seed, 50));
        let engine = opened.map_err(|error| Problem(format!("open on the well disk: {}", said(&error))))?;
        let past = Past { states: states.clone(), floor, seals: BTreeMap::new(), dropping: Vec::new() };
        let seen =
            dump(&engine, false).map_err(|error| Problem(format!("the tree after the error: {error}")))?;
        past.check_state(&seen).map_err(|problem| Problem(format!("after the error: {problem}")))?;
        for seq in seals.keys() {
            check_seal(&engine, *seq, &seals)?;
        }
    }
    Ok(())
}

/// A disk error at each I/O of the recovery after a crash: it does not open and says so, or what it shows is
/// right; and when the disk is well, nothing has been lost by having tried.
pub fn recovers_despite_errors<O: Opener>(
    opener: &O,
    effort: &Effort,
    seed: u64,
    ops: &[Op],
) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    let mut past =
        Past { states: vec![stage.check()?], floor: 0, seals: BTreeMap::new(), dropping: Vec::new() };
    for (i, op) in ops.iter().enumerate() {
        if let Step::Agreed { durable: true } = stage.step(op).map_err(at_op(i, op))? {
            past.floor = i + 1;
        }
        past.states.push(stage.check().map_err(at_op(i, op))?);
    }
    past.seals.clone_from(&stage.seals);
    drop(stage);
    let mut dice = Dice::seeded(seed).fork(0x0e0);
    for _ in 0..2 {
        let crashed = disk.after_crash(dice.next());
        let trial = crashed.fork();
        opener.open(env(&trial, seed, 80)).map_err(|error| Problem(format!("open: {}", said(&error))))?;
        for at in effort.sample(seed, crashed.io_last() + 1, trial.io_last()) {
            for kind in [FaultKind::DiskError, FaultKind::NoSpace] {
                let when = |problem| Problem(format!("{kind:?} at I/O {at} of the recovery: {problem}"));
                let disk = crashed.fork();
                disk.set_fault(Some(Fault { at, kind, lasting: false }));
                if let Ok(engine) = opener.open(env(&disk, seed, 81)) {
                    let seen = dump(&engine, true).map_err(|error| when(Problem(error.to_string())))?;
                    past.check_state(&seen).map_err(when)?;
                }
                disk.set_fault(None);
                let opened = opener.open(env(&disk, seed, 82));
                let engine =
                    opened.map_err(|error| when(Problem(format!("second open: {}", said(&error)))))?;
                past.check(&engine, &mut dice).map_err(when)?;
            }
        }
    }
    Ok(())
}

/// A failed sync is never retried into success: the volume is read-only, says so, and the next sync fails too.
fn stays_failed(engine: &impl Engine) -> Result<(), Problem> {
    if engine.sync().is_ok() {
        return Err(Problem("a sync failed, and the next one claims success".to_owned()));
    }
    match engine.read_only_reason() {
        Some(_) => Ok(()),
        None => Err(Problem("a sync failed, and the volume does not say that it is read-only".to_owned())),
    }
}

/// A full disk at each I/O, once: the operation is refused, nothing is lost, and the next ones go on.
pub fn survives_no_space<O: Opener>(
    opener: &O,
    effort: &Effort,
    seed: u64,
    ops: &[Op],
) -> Result<(), Problem> {
    let ops: Vec<Op> = ops.iter().filter(|op| **op != Op::Reopen).cloned().collect();
    let (first, last) = count_ios(opener, seed, &ops)?;
    for at in effort.sample(seed, first + 1, last) {
        let run = || -> Result<(), Problem> {
            let disk = SimDisk::seeded(seed);
            let mut stage = Stage::new(opener, &disk, seed)?;
            disk.set_fault(Some(Fault { at, kind: FaultKind::NoSpace, lasting: false }));
            for (i, op) in ops.iter().enumerate() {
                refusing(&mut stage, op).map_err(at_op(i, op))?;
            }
            nothing_lost(stage, opener, seed)
        };
        run().map_err(|problem| Problem(format!("ENOSPC at I/O {at}: {problem}")))?;
    }
    Ok(())
}

/// One operation on a disk that may be full. Says whether it was refused for that.
fn refusing<O: Opener>(stage: &mut Stage<'_, O>, op: &Op) -> Result<bool, Problem> {
    match stage.step(op)? {
        Step::Agreed { .. } => {
            stage.check()?;
            Ok(false)
        }
        Step::Failed(FsError::NoSpace) => {
            if !stage.settle()? {
                return Err(Problem("a full disk can still be read".to_owned()));
            }
            match stage.engine().read_only_reason() {
                Some(reason) => Err(Problem(format!("a full disk made the volume read-only: {reason}"))),
                None => Ok(true),
            }
        }
        Step::Failed(error) => Err(Problem(format!("a full disk is not: {error}"))),
    }
}

/// There is room again: a sync succeeds, and all survives.
fn nothing_lost<O: Opener>(mut stage: Stage<'_, O>, opener: &O, seed: u64) -> Result<(), Problem> {
    stage.disk.set_fault(None);
    let synced = stage.step(&Op::Sync)?;
    if let Step::Failed(error) = synced {
        return Err(Problem(format!("there is room again, and sync says: {error}")));
    }
    let mut expected = stage.play.clone();
    expected.close();
    let seals = stage.seals.clone();
    let disk = stage.disk.after_crash(seed);
    drop(stage);
    let mut stage = Stage::open(opener, &disk, seed, 60, expected)?;
    stage.seals = seals;
    stage.check()?;
    stage.check_seals()
}

/// A disk that is full for a while: refusals are told, removing and syncing work, and everything goes on
/// when there is room.
pub fn survives_a_full_disk<O: Opener>(opener: &O, room: u64, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    disk.set_capacity(disk.used_bytes() + room);
    let mut was_full = false;
    for (i, op) in ops.iter().enumerate() {
        let trouble = at_op(i, op);
        if *op == Op::Reopen {
            continue;
        }
        let refused = refusing(&mut stage, op).map_err(&trouble)?;
        was_full |= refused;
        let removes = matches!(op, Op::Unlink { .. } | Op::Rmdir { .. });
        if refused && (removes || *op == Op::Sync) {
            return Err(trouble(Problem("a full disk must not refuse this".to_owned())));
        }
    }
    disk.set_capacity(1 << 40);
    if was_full {
        let op = Op::Make {
            parent: Vec::new(),
            name: 8,
            what: crate::workload::What::File,
            mode: 0o600,
            uid: 0,
            attributes: 0,
        };
        if refusing(&mut stage, &op)? {
            return Err(Problem("there is room again, and making a file is refused".to_owned()));
        }
    }
    nothing_lost(stage, opener, seed)
}

/// Creation cut or failing at each I/O leaves nothing half made: creating again works, or it is done.
pub fn creates_wholly<O: Opener>(opener: &O, seed: u64) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    disk.record_images();
    opener.create(&env(&disk, seed, 0)).map_err(|error| Problem(said(&error)))?;
    let last = disk.io_last();
    let whole = |disk: &SimDisk, what: String| -> Result<(), Problem> {
        let opened = match opener.open(env(disk, seed, 1)) {
            Ok(engine) => Ok(engine),
            Err(_) => opener.create(&env(disk, seed, 2)).and_then(|()| opener.open(env(disk, seed, 3))),
        };
        let engine = opened.map_err(|error| Problem(format!("{what}: {}", said(&error))))?;
        let seen = dump(&engine, false).map_err(|error| Problem(format!("{what}: {error}")))?;
        if seen == Rehearsal::default().dump() { Ok(()) } else { Err(Problem(format!("{what}: not empty"))) }
    };
    for image in disk.take_images() {
        for luck in 0..6 {
            let what = format!("creation cut before I/O {} ({:?}), crash {luck}", image.before, image.next);
            whole(&image.after_crash(luck), what)?;
        }
    }
    for luck in 0..6 {
        let crashed = disk.after_crash(luck);
        let opened = opener.open(env(&crashed, seed, 1));
        opened.map_err(|error| Problem(format!("created, then crash {luck}: {}", said(&error))))?;
    }
    for kind in [FaultKind::DiskError, FaultKind::NoSpace] {
        for at in 1..=last {
            let disk = SimDisk::seeded(seed);
            disk.set_fault(Some(Fault { at, kind, lasting: false }));
            // Whether it succeeds despite the fault does not matter, only what it leaves.
            let _ = opener.create(&env(&disk, seed, 0));
            disk.set_fault(None);
            whole(&disk, format!("creation with {kind:?} at I/O {at}"))?;
        }
    }
    Ok(())
}

/// Flips bits and cuts files of a volume at rest. It does not open and says why, or is read-only and says
/// why, or everything that it gives is right; never wrong bytes, never a panic.
///
/// One exception is in the nature of a journal: damage in its last batch looks like a torn end. So where a
/// journal was hit, the state before may be found, as long as a later sync did not vouch for what is missing.
pub fn names_damage<O: Opener>(opener: &O, flips: u64, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    let disk = SimDisk::seeded(seed);
    let mut stage = Stage::new(opener, &disk, seed)?;
    let mut plays = vec![stage.play.clone()];
    // The last two moments at which something new became durable: the journal's later records vouch for
    // what the first of them made durable.
    let mut durable_at = [0, 0];
    for op in ops.iter().chain([&Op::Sync]) {
        let step = stage.step(op)?;
        plays.push(stage.play.clone());
        let last = plays.len() - 1;
        if matches!(step, Step::Agreed { durable: true }) && plays[last].dump() != plays[durable_at[1]].dump()
        {
            durable_at = [durable_at[1], last];
        }
    }
    for play in &mut plays {
        play.close();
    }
    let seals = stage.seals.clone();
    drop(stage);
    let disk = disk.after_crash(seed);
    let mut dice = Dice::seeded(seed).fork(0xf11b);
    for (path, len) in disk.files() {
        for i in 0..flips.min(len as u64) {
            // The beginning and the end are where formats keep what matters most.
            let offset = match i % 4 {
                0 => dice.below(64.min(len as u64)) as usize,
                1 => len - 1 - dice.below(64.min(len as u64)) as usize,
                _ => dice.below(len as u64) as usize,
            };
            let bit = dice.below(8);
            let hit = disk.fork();
            hit.corrupt(&path, offset, |byte| byte ^ (1 << bit));
            let what = format!("bit {bit} of byte {offset} of {len} in {path} flipped");
            damaged(opener, seed, &hit, &plays, durable_at, &path, &seals)
                .map_err(|problem| Problem(format!("{what}: {problem}")))?;
        }
        for _ in 0..1 + flips / 8 {
            let left = dice.below(len as u64) as usize;
            let hit = disk.fork();
            hit.cut(&path, left);
            let what = format!("{path} cut from {len} to {left} bytes");
            damaged(opener, seed, &hit, &plays, durable_at, &path, &seals)
                .map_err(|problem| Problem(format!("{what}: {problem}")))?;
        }
    }
    Ok(())
}

fn damaged<O: Opener>(
    opener: &O,
    seed: u64,
    disk: &SimDisk,
    plays: &[Rehearsal],
    durable_at: [usize; 2],
    path: &str,
    seals: &BTreeMap<Seq, Dump>,
) -> Result<(), Problem> {
    let engine = match opener.open(env(disk, seed, 70)) {
        Ok(engine) => engine,
        // The disk is well and the key is right, so anything else would send a person the wrong way.
        Err(OpenError::WrongKey { .. }) => return Err(Problem("called a wrong key".to_owned())),
        Err(_) => return Ok(()),
    };
    for (seq, expected) in seals {
        if let Ok(view) = engine.at(*seq) {
            match dump(view.as_ref(), true) {
                Ok(seen) if seen != *expected => {
                    let difference = seen.difference(expected);
                    return Err(Problem(format!("snapshot {seq} is silently wrong:\n{difference}")));
                }
                Ok(_) | Err(FsError::Damaged(_)) => {}
                Err(error) => return Err(Problem(format!("snapshot {seq}: {error}"))),
            }
        }
    }
    let newest = damage(&engine, &plays[plays.len() - 1].model);
    let Err(difference) = newest else { return still_works(&engine) };
    let first = match engine.read_only_reason() {
        Some(_) => 0,
        None if path.starts_with("journal") => durable_at[0],
        None => return Err(Problem(format!("not read-only, and {difference}"))),
    };
    if plays[first..].iter().rev().any(|play| damage(&engine, &play.model).is_ok()) {
        return Ok(());
    }
    let reason = engine.read_only_reason();
    Err(Problem(format!("no state that there was (read-only: {reason:?}): {difference}")))
}

/// A volume with damage in it either takes changes or says that it is read-only; it does not panic.
fn still_works(engine: &impl Engine) -> Result<(), Problem> {
    let made =
        engine.make(Caller { uid: 0, gid: 0 }, fs_format::Ino::ROOT, NAMES[8], 0o600, NewNode::File, &[]);
    let done = made.and_then(|attr| {
        engine.write(attr.ino, 0, b"goes on", false)?;
        engine.set_attr(attr.ino, SetAttr { mode: Some(0o640), ..SetAttr::default() })?;
        engine.sync()?;
        engine.seal(None)?;
        engine.read(attr.ino, 0, 100)
    });
    match done {
        Ok(bytes) if bytes == b"goes on" => Ok(()),
        Ok(_) => Err(Problem("what is written to a damaged volume reads differently".to_owned())),
        Err(FsError::Damaged(_) | FsError::ReadOnly | FsError::Disk(_) | FsError::Exists) => Ok(()),
        Err(error) => Err(Problem(format!("writing to a damaged volume: {error}"))),
    }
}

/// The same seed gives the same I/Os, byte for byte.
pub fn repeats<O: Opener>(opener: &O, seed: u64, ops: &[Op]) -> Result<(), Problem> {
    let run = || -> Result<Vec<Io>, Problem> {
        let disk = SimDisk::seeded(seed);
        disk.record_trace();
        let mut stage = Stage::new(opener, &disk, seed)?;
        for op in ops {
            stage.step(op)?;
        }
        Ok(disk.take_trace())
    };
    let (first, second) = (run()?, run()?);
    let differs = first.iter().zip(&second).position(|(a, b)| a != b);
    match differs {
        Some(i) => Err(Problem(format!("two runs differ:\n  {:?}\n  {:?}", first[i], second[i]))),
        None if first.len() != second.len() => {
            Err(Problem(format!("two runs make {} and {} I/Os", first.len(), second.len())))
        }
        None => Ok(()),
    }
}
