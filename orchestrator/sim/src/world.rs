//! What happens next: the queue of events, messages on their way, and what comes of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use orchestrator_api::ids::{AppId, DeviceId, RunId, VolumeId, Writer};
use orchestrator_api::placement::Phase;
use orchestrator_device::{Device, Event, Found};

use crate::chance::Chance;
use crate::doors::Doing;
use crate::faults::{Fault, Flavour};
use crate::hive::{HiveSide, Request};
use crate::machine::{Docker, Machine};
use crate::oracle::Oracle;
use crate::store::{Ask, Manifests, Objects, Said};

/// When everything is mended, in milliseconds.
pub const MENDED: u64 = 720_000;
/// Until when everything must have ended after that.
const PATIENCE: u64 = 1_800_000;
/// How long nothing may be amiss before a run ends.
const QUIET: u64 = 90_000;

/// A party that messages go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A machine.
    Machine(usize),
    /// All processes of the hive.
    Hive,
    /// The store.
    Store,
}

/// Something that happens.
#[derive(Debug, Clone)]
pub enum What {
    /// A device's process hears something, if it is still the same.
    Process(usize, u64, Event),
    /// Something of a machine's own, while it has power.
    Machine(usize, u64, Doing),
    /// A request reaches the store.
    Store { from: usize, boot: u64, job: u64, stage: u64, volume: VolumeId, ask: Ask },
    /// An answer of the store reaches a machine.
    Answer { to: usize, boot: u64, job: u64, stage: u64, said: Said },
    /// A request reaches the hive.
    Hive { process: usize, from: usize, run: u64, request: Request },
    /// A scheduler looks.
    Look(usize),
    /// What a scheduler saw is decided on.
    Decide(usize, u64, u64, orchestrator_hive::Event),
    /// A process of the hive begins again.
    HiveBegins(usize),
    /// A machine is switched on.
    Power(usize),
    /// A device's process begins.
    Begin(usize, u64),
    /// A machine's process is told of time.
    Wake(usize, u64),
    /// The next fault.
    Fault,
    /// A fault ends.
    Mend(Fault),
    /// A person wishes something.
    Person,
    /// Everything is mended.
    Heal,
    /// Is everything well?
    Check,
    /// A copy of the database is made.
    Backup,
}

/// How much there was to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events.
    pub events: u64,
    /// Writes of apps that were accepted.
    pub writes: u64,
    /// Terms that were given.
    pub terms: u64,
    /// Operations that were done.
    pub done: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Failovers among them that were done.
    pub failovers: u64,
    /// Moves that were done.
    pub moves: u64,
    /// Apps that were wanted and did not run at the end, and it was said why.
    pub told: u64,
    /// True milliseconds from the mending to the end.
    pub quiet_after_ms: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Seen) {
        self.events += more.events;
        self.writes += more.writes;
        self.terms += more.terms;
        self.done += more.done;
        self.failed += more.failed;
        self.failovers += more.failovers;
        self.moves += more.moves;
        self.told += more.told;
        self.quiet_after_ms = self.quiet_after_ms.max(more.quiet_after_ms);
    }
}

/// Something that must not be, and how it came about.
#[derive(Debug)]
pub struct Broken {
    /// Of which run.
    pub seed: u64,
    /// What.
    pub what: String,
    /// What happened before.
    pub story: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// A whole run.
pub struct World {
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), What>,
    count: u64,
    pub(crate) chance: Chance,
    pub(crate) flavour: Flavour,
    pub(crate) machines: Vec<Machine>,
    pub(crate) hive: HiveSide,
    pub(crate) apps: BTreeMap<AppId, Vec<VolumeId>>,
    pub(crate) store: BTreeMap<VolumeId, Objects>,
    pub(crate) manifests: Manifests,
    pub(crate) oracle: Oracle,
    pub(crate) blocked: BTreeMap<(Node, Node), u64>,
    /// When the store that crashed is there again.
    pub(crate) store_back: u64,
    pub(crate) mended: bool,
    pub(crate) seen: Seen,
    quiet_since: Option<u64>,
    story: Option<Vec<String>>,
}

/// Runs a seed; a run that goes wrong is told from its beginning.
pub fn run(seed: u64, flavour: Flavour) -> Result<Seen, Broken> {
    World::new(seed, flavour, false).play().or_else(|_| World::new(seed, flavour, true).play()).map_err(
        |mut broken| {
            broken.seed = seed;
            broken
        },
    )
}

impl World {
    fn new(seed: u64, flavour: Flavour, tell: bool) -> World {
        let mut chance = Chance::seeded(seed);
        let count = chance.between(2, 5) as usize;
        let machines: Vec<Machine> = (0..count)
            .map(|at| {
                let mut id = [0; 16];
                id[0] = b'a' + at as u8;
                Machine::new(DeviceId(id), chance.between(990_000, 1_010_001), chance.between(1, 1_000_000))
            })
            .collect();
        let mut apps = BTreeMap::new();
        for at in 0..chance.between(1, 4) as u8 {
            let volume = |number| {
                let mut id = [0; 32];
                (id[0], id[1]) = (at + 1, number);
                VolumeId(id)
            };
            let mut id = [0; 16];
            id[0] = at + 1;
            apps.insert(AppId(id), (1..=chance.between(1, 4) as u8).map(volume).collect());
        }
        let devices: BTreeSet<DeviceId> = machines.iter().map(|machine| machine.id).collect();
        let hive = HiveSide::new(&mut chance, &devices, &apps, flavour);
        World {
            now: 0,
            queue: BTreeMap::new(),
            count: 0,
            chance,
            flavour,
            machines,
            hive,
            apps,
            store: BTreeMap::new(),
            manifests: Manifests::default(),
            oracle: Oracle::default(),
            blocked: BTreeMap::new(),
            store_back: 0,
            mended: false,
            seen: Seen::default(),
            quiet_since: None,
            story: tell.then(Vec::new),
        }
    }

    fn play(mut self) -> Result<Seen, Broken> {
        match self.events() {
            Ok(()) => Ok(self.seen),
            Err(what) => Err(Broken { seed: 0, what, story: self.story.unwrap_or_default() }),
        }
    }

    fn events(&mut self) -> Result<(), String> {
        for machine in 0..self.machines.len() {
            let at = self.chance.between(0, 3_000);
            self.at(at, What::Power(machine));
        }
        for process in 0..self.hive.processes.len() {
            self.at(0, What::HiveBegins(process));
        }
        self.at(4_000, What::Person);
        self.at(60_000, What::Fault);
        self.at(30_000, What::Backup);
        self.at(MENDED, What::Heal);
        while let Some(((at, _), what)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.seen.events += 1;
            if matches!(what, What::Check) {
                if self.is_over()? {
                    return Ok(());
                }
                self.after(5_000, What::Check);
                continue;
            }
            self.happen(what)?;
            if let Some(what) = self.oracle.broken.take() {
                return Err(what);
            }
        }
        Err("nothing happens any more".into())
    }

    /// Whether everything has ended, and well.
    fn is_over(&mut self) -> Result<bool, String> {
        // Who is refused as a copy says so; a person takes it away, with what is on its disk.
        for machine in self.machines.iter_mut().filter(|machine| machine.disk.identity.refused.is_some()) {
            machine.power_ends();
        }
        match self.amiss() {
            None => {
                let since = *self.quiet_since.get_or_insert(self.now);
                if self.now - since < QUIET {
                    return Ok(false);
                }
                self.seen.quiet_after_ms = since.saturating_sub(MENDED);
                self.count_told();
                self.nothing_is_lost()?;
                Ok(true)
            }
            Some(what) => {
                self.quiet_since = None;
                match self.now > MENDED + PATIENCE {
                    true => Err(format!("half an hour after everything was mended: {what}")),
                    false => Ok(false),
                }
            }
        }
    }

    /// Something will happen.
    pub(crate) fn at(&mut self, at: u64, what: What) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), what);
    }

    /// Something will happen after a while.
    pub(crate) fn after(&mut self, wait: u64, what: What) {
        self.at(self.now.saturating_add(wait), what);
    }

    /// A line of the history.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} {}", self.now as f64 / 1000.0, line()));
        }
    }

    /// A message goes on its way: it may be lost, late, or come twice.
    pub(crate) fn send(&mut self, from: Node, to: Node, what: What) {
        if self.blocked.get(&(from, to)).is_some_and(|until| self.now < *until) {
            return;
        }
        let rough = !self.mended && self.flavour.network;
        if rough && self.chance.percent(1) {
            return;
        }
        let twice = rough && self.chance.percent(2);
        let delay = self.delay();
        if twice {
            let later = self.delay() + self.chance.between(0, 5_000);
            self.after(later, what.clone());
        }
        self.after(delay, what);
    }

    fn delay(&mut self) -> u64 {
        let usual = self.chance.between(5, 40);
        if self.mended || !self.flavour.network || !self.chance.percent(self.flavour.late_percent) {
            return usual;
        }
        let high = if self.chance.percent(20) { 60_000 } else { 4_000 };
        usual + self.chance.between(0, high)
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Process(to, run, event) => {
                let machine = &self.machines[to];
                let free = machine.asleep.max(machine.paused);
                if machine.run != run || machine.process.is_none() {
                } else if free > self.now {
                    self.at(free, What::Process(to, run, event));
                } else {
                    self.decide(to, event);
                }
            }
            What::Wake(to, run) => {
                let machine = &self.machines[to];
                let free = machine.asleep.max(machine.paused);
                if machine.run != run || machine.process.is_none() || machine.wakes > self.now {
                } else if free > self.now {
                    self.machines[to].wakes = free;
                    self.at(free, What::Wake(to, run));
                } else {
                    self.machines[to].wakes = u64::MAX;
                    self.decide(to, Event::Tick);
                }
            }
            What::Machine(to, boot, doing) => {
                let machine = &self.machines[to];
                if machine.boot != boot || !machine.on {
                } else if machine.asleep > self.now {
                    let free = machine.asleep;
                    self.at(free, What::Machine(to, boot, doing));
                } else {
                    self.doing(to, doing);
                }
            }
            What::Store { from, boot, job, stage, volume, ask } => {
                if self.now < self.store_back || self.store_crashes_here() {
                    return Ok(());
                }
                let said = self.store_asked(volume, ask)?;
                if !self.store_crashes_here() {
                    let answer = What::Answer { to: from, boot, job, stage, said };
                    self.send(Node::Store, Node::Machine(from), answer);
                }
            }
            What::Answer { to, boot, job, stage, said } => {
                let machine = &self.machines[to];
                if machine.boot != boot || !machine.on {
                } else if machine.asleep > self.now {
                    let free = machine.asleep;
                    self.at(free, What::Answer { to, boot, job, stage, said });
                } else {
                    self.job_answered(to, job, stage, Some(said));
                }
            }
            What::Hive { process, from, run, request } => self.hive_asked(process, from, run, request),
            What::Look(process) => self.hive_looks(process),
            What::Decide(process, life, since, event) => self.hive_decides(process, life, since, event),
            What::HiveBegins(process) => self.hive_begins(process),
            What::Power(machine) => self.power(machine),
            What::Begin(machine, run) => self.begin(machine, run),
            What::Fault => self.fault(),
            What::Mend(fault) => self.mend(fault),
            What::Person => self.person(),
            What::Heal => self.heal(),
            What::Backup => {
                self.hive.backups.push(self.hive.rows.clone());
                if !self.mended {
                    self.after(45_000, What::Backup);
                }
            }
            What::Check => {}
        }
        Ok(())
    }

    /// The store does what it was asked.
    fn store_asked(&mut self, volume: VolumeId, ask: Ask) -> Result<Said, String> {
        let objects = self.store.entry(volume).or_default();
        let before = objects.slots.len();
        let said = objects.perform(&ask, &self.manifests)?;
        let added = objects.slots.len() > before;
        match ask {
            Ask::Slot(index) if added => {
                let (seq, epoch) = (self.manifests.get(index).seq, self.manifests.get(index).epoch);
                self.say(|| format!("store: {volume:.4?} slot {seq} epoch {epoch} #{index}"));
            }
            Ask::Claim(epoch, ..) => self.say(|| format!("store: {volume:.4?} claim {epoch}: {said:?}")),
            Ask::List | Ask::Slot(_) => {}
        }
        Ok(said)
    }

    /// Switches a machine on.
    pub(crate) fn power(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.on {
            return;
        }
        machine.on = true;
        let (run, boot) = (machine.run, machine.boot);
        self.say(|| format!("{}: power", name(at)));
        let wait = self.chance.between(100, 3_000);
        self.after(wait, What::Begin(at, run));
        self.after(2_000, What::Machine(at, boot, Doing::LookAlive));
    }

    /// A device's process begins.
    fn begin(&mut self, at: usize, run: u64) {
        let id = RunId(self.chance.id());
        let machine = &mut self.machines[at];
        if machine.run != run || !machine.on || machine.process.is_some() {
            return;
        }
        let free = machine.asleep.max(machine.paused);
        if free > self.now {
            return self.at(free, What::Begin(at, run));
        }
        let mut found = Found { docker: machine.docker != Docker::Stopped, ..Found::default() };
        found.containers.extend(machine.containers.iter().map(|(app, container)| (*app, container.term)));
        for (app, record) in &machine.disk.apps {
            let mounts: Option<Vec<_>> = record
                .volumes
                .keys()
                .map(|volume| machine.mounts.get(volume).filter(|mount| mount.alive))
                .collect();
            if let Some(mounts) = mounts.filter(|mounts| !mounts.is_empty()) {
                let ends: Option<Vec<u64>> = mounts.iter().map(|mount| mount.lease).collect();
                found.mounted.insert(*app, ends.and_then(|ends| ends.into_iter().min()));
            }
        }
        let now = machine.clock(self.now);
        let (device, effects) = Device::begin(machine.id, machine.disk.clone(), id, &found, now);
        machine.process = Some(device);
        self.say(|| format!("{}: process begins, found {found:?}", name(at)));
        self.carry_out(at, effects);
        self.wake(at);
    }

    /// A device's process hears something.
    fn decide(&mut self, at: usize, event: Event) {
        let machine = &mut self.machines[at];
        let now = machine.clock(self.now);
        let Some(device) = &mut machine.process else { return };
        let before: BTreeMap<AppId, Phase> =
            device.disk.apps.iter().map(|(app, record)| (*app, record.phase)).collect();
        let told = match (&self.story, &event) {
            (None, _) | (_, Event::Tick) => None,
            (_, Event::Answered(_, Ok(answer))) if answer.over.is_empty() => None,
            (_, Event::Commands(_, Ok(commands))) if commands.is_empty() => None,
            _ => Some(format!("{event:?}")),
        };
        let effects = orchestrator_device::decide(device, event, now);
        let after = device.disk.apps.iter().map(|(app, record)| (*app, (record.phase, record.term)));
        let changed: Vec<_> = after.filter(|(app, (phase, _))| before.get(app) != Some(phase)).collect();
        if let Some(told) = told {
            self.say(|| format!("{}: hears {told}", name(at)));
        }
        for (app, (phase, term)) in changed {
            self.say(|| format!("{}: app {} term {term} is {phase:?}", name(at), app.0[0]));
        }
        self.carry_out(at, effects);
        self.wake(at);
    }

    /// A device's process is told of time when it wants to be.
    fn wake(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let Some(device) = &machine.process else { return };
        let at_true = machine.when(device.wakes_at());
        let at_true = at_true.max(self.now + 1);
        if at_true < machine.wakes {
            machine.wakes = at_true;
            let run = machine.run;
            if at_true < u64::MAX {
                self.at(at_true, What::Wake(at, run));
            }
        }
    }

    /// A device's pseudonym in a volume.
    pub(crate) fn writer(&self, at: usize, volume: VolumeId) -> Writer {
        let mut bytes = [0; 16];
        bytes[0] = self.machines[at].id.0[0];
        (bytes[1], bytes[2]) = (volume.0[0], volume.0[1]);
        fs_format::DeviceId(bytes)
    }
}

/// A machine, in the history.
pub(crate) fn name(at: usize) -> String {
    format!("device {}", char::from(b'a' + at as u8))
}
