//! The hive's side: its rows, its processes, who of them is the scheduler, and a person with wishes.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::CommandResult;
use orchestrator_api::ids::{AppId, CommandNumber, DeviceId, OperationId, SessionId, Term, VolumeId};
use orchestrator_api::placement::{Policy, Problem};
use orchestrator_api::report::{Hello, Report};
use orchestrator_api::times::{LEASE_OVER, WATCH_EVERY};
use orchestrator_device::Event as DeviceEvent;
use orchestrator_hive::{
    Answer, App, Device, Event, Hive, Kind, Known, OperationState, Placement, Refused, Scheduler, Seen, Step,
    Wish, decide,
};

use crate::chance::Chance;
use crate::faults::Flavour;
use crate::world::{Node, What, World, name};

/// A wall clock, at the beginning.
pub const WALL: u64 = 1_700_000_000_000;

/// What a device asks of the hive.
#[derive(Debug, Clone)]
pub enum Request {
    /// A hello.
    Hello(Hello),
    /// A report.
    Report(SessionId, Report),
    /// A poll.
    Poll(SessionId, CommandNumber),
    /// A result.
    Result(SessionId, CommandResult),
}

/// A process of the hive.
#[derive(Debug, Clone)]
pub struct Process {
    /// Whether it runs.
    pub on: bool,
    /// It stands still until then.
    pub paused: u64,
    /// How often it began.
    pub life: u64,
    /// What it counts.
    pub scheduler: Scheduler,
    rate: u64,
}

/// The hive.
#[derive(Debug, Clone)]
pub struct HiveSide {
    /// Its rows.
    pub rows: Hive,
    /// Its rows, as they were.
    pub backups: Vec<Hive>,
    /// Its processes.
    pub processes: Vec<Process>,
    /// Who holds the lock of the scheduler.
    pub lock: Option<usize>,
    /// Since when no look was missed.
    pub looks_since: u64,
    looked: u64,
    /// The same, when that was looked at which is being decided.
    decided_since: u64,
    /// Whether its rows were ever those of a backup.
    pub restored: bool,
    /// Terms that a watch ended.
    pub watched_out: BTreeSet<(AppId, Term)>,
    /// Terms that had a lease, for all that the hive knew, when the next one was given.
    pub leased: BTreeSet<(AppId, Term)>,
    /// To whom each term was given.
    pub given: BTreeMap<(AppId, Term), DeviceId>,
}

impl HiveSide {
    /// A hive that knows its devices and apps.
    pub fn new(
        chance: &mut Chance,
        devices: &BTreeSet<DeviceId>,
        apps: &BTreeMap<AppId, Vec<VolumeId>>,
        flavour: Flavour,
    ) -> HiveSide {
        let devices_rows = devices.iter().map(|id| (*id, Device::default())).collect();
        let mut rows = Hive { devices: devices_rows, ..Hive::default() };
        for (id, volumes) in apps {
            let policy = if chance.percent(flavour.auto_percent) { Policy::Auto } else { Policy::Manual };
            let app = App {
                policy,
                wanted: false,
                generation: Default::default(),
                devices: devices.clone(),
                volumes: volumes.iter().map(|volume| (*volume, Known::default())).collect(),
                lacks_volumes: false,
                placement: Placement::default(),
                problem: None,
            };
            rows.apps.insert(*id, app);
        }
        let process = |chance: &mut Chance| Process {
            on: false,
            paused: 0,
            life: 0,
            scheduler: Scheduler::default(),
            rate: chance.between(990_000, 1_010_001),
        };
        let processes = (0..chance.between(1, 3)).map(|_| process(chance)).collect();
        HiveSide {
            rows,
            backups: Vec::new(),
            processes,
            lock: None,
            looks_since: 0,
            looked: 0,
            decided_since: 0,
            restored: false,
            watched_out: BTreeSet::new(),
            leased: BTreeSet::new(),
            given: BTreeMap::new(),
        }
    }
}

impl World {
    /// A device's request goes to one of the processes.
    pub(crate) fn ask_hive(&mut self, from: usize, request: Request) {
        let process = self.chance.between(0, self.hive.processes.len() as u64) as usize;
        let run = self.machines[from].run;
        self.send(Node::Machine(from), Node::Hive, What::Hive { process, from, run, request });
    }

    pub(crate) fn hive_asked(&mut self, process: usize, from: usize, run: u64, request: Request) {
        let there = &self.hive.processes[process];
        if !there.on {
            return;
        }
        if there.paused > self.now {
            let free = there.paused;
            return self.at(free, What::Hive { process, from, run, request });
        }
        let device = self.machines[from].id;
        let now_ms = WALL + self.now;
        let event = match request.clone() {
            Request::Hello(hello) => {
                Event::Hello { device, hello, session: SessionId(self.chance.id()), now_ms, proved: true }
            }
            Request::Report(session, report) => Event::Report { device, session, report },
            Request::Poll(session, have) => Event::Poll { device, session, have },
            Request::Result(session, result) => Event::Result { device, session, result },
        };
        let Some(answer) = self.transaction(process, event) else { return };
        let heard = match (request, answer) {
            (Request::Hello(_), Answer::Welcome(welcome)) => DeviceEvent::Welcome(Ok(welcome)),
            (Request::Hello(hello), Answer::Refused(refusal)) => {
                DeviceEvent::Welcome(Err((hello.number, refusal)))
            }
            (Request::Report(session, _), Answer::Report(answer)) => {
                DeviceEvent::Answered(session, Ok(answer))
            }
            (Request::Report(session, _), Answer::Refused(no)) => DeviceEvent::Answered(session, Err(no)),
            (Request::Poll(session, _), Answer::Commands(commands)) => {
                DeviceEvent::Commands(session, Ok(commands))
            }
            (Request::Poll(session, _), Answer::Refused(no)) => DeviceEvent::Commands(session, Err(no)),
            (Request::Result(..), Answer::Kept(number)) => DeviceEvent::Kept(number),
            _ => return,
        };
        self.send(Node::Hive, Node::Machine(from), What::Process(from, run, heard));
    }

    /// One transaction, or a crash before or after it.
    fn transaction(&mut self, process: usize, event: Event) -> Option<Answer> {
        let crash = !self.mended && self.flavour.hive && self.chance.millionths(300);
        let before = crash && self.chance.percent(50);
        if before {
            self.hive_crashes(process);
            return None;
        }
        let rows = &mut self.hive.rows;
        let was: BTreeMap<AppId, Placement> =
            rows.apps.iter().map(|(id, app)| (*id, app.placement.clone())).collect();
        let states: BTreeMap<OperationId, _> = rows
            .operations
            .iter()
            .filter(|(_, it)| it.state == OperationState::Running)
            .map(|(id, it)| (*id, (it.state, it.step, it.count)))
            .collect();
        let end = match &event {
            Event::End { app, term, seen: Seen::Silence(_), .. } => Some((*app, *term)),
            _ => None,
        };
        let answer = decide(rows, event);
        let given: Vec<_> = rows.apps.iter().map(|(id, app)| (*id, app.placement.clone())).collect();
        let steps: Vec<_> = rows
            .operations
            .iter()
            .filter(|(id, it)| states.get(id) != Some(&(it.state, it.step, it.count)))
            .filter(|(id, it)| it.state == OperationState::Running || states.contains_key(id))
            .map(|(_, it)| it.clone())
            .collect();
        for operation in steps {
            self.move_ended(&operation);
            let unexpected = Refused::Problem(Problem::HeadUnexpected);
            let known = !self.flavour.restores && !self.flavour.copies && operation.step != Step::Return;
            if known && operation.state == OperationState::Failed(unexpected) {
                let number = operation.app.0[0];
                self.oracle.broken =
                    Some(format!("app {number} is refused by the store, though nobody forgot anything"));
            }
            match operation.state {
                OperationState::Done => {
                    self.seen.done += 1;
                    self.seen.failovers += u64::from(operation.kind == Kind::Failover);
                    self.seen.moves += u64::from(operation.kind == Kind::Move);
                }
                OperationState::Failed(_) => self.seen.failed += 1,
                _ => {}
            }
            let (kind, step, state) = (operation.kind, operation.step, operation.state);
            let to = operation.to.map(|id| char::from(id.0[0]));
            self.say(|| format!("hive: app {} {kind:?} to {to:?} {step:?} {state:?}", operation.app.0[0]));
        }
        for (app, placement) in given {
            let before = was.get(&app).cloned().unwrap_or_default();
            if placement.term < before.term && !self.hive.rows.recovering {
                self.oracle.broken = Some(format!("term of app {} fell to {}", app.0[0], placement.term));
            }
            let Some(device) = placement.device else { continue };
            if placement.term == before.term && before.device == placement.device {
                continue;
            }
            self.seen.terms += 1;
            // What a recovering hive takes over, it did not know before.
            let knew = before.leased && before.device.is_some() && !self.hive.rows.recovering;
            if knew && before.term < placement.term {
                self.hive.leased.insert((app, before.term));
            }
            self.say(|| {
                format!("hive: app {} term {} is {}'s", app.0[0], placement.term, char::from(device.0[0]))
            });
            if *self.hive.given.entry((app, placement.term)).or_insert(device) != device {
                let term = placement.term;
                self.oracle.broken = Some(format!("term {term} of app {} is given to two devices", app.0[0]));
            }
            if let Some((ended, term)) = end
                && ended == app
                && term == before.term
            {
                self.hive.watched_out.insert((app, term));
                // A watch of 46.5 s on a clock that is 1 % fast, and the looks around it.
                if self.now - self.hive.decided_since < LEASE_OVER * 99 / 100 - 2 * WATCH_EVERY {
                    self.oracle.broken = Some(format!(
                        "term {term} of app {} was ended though the hive itself was away",
                        app.0[0]
                    ));
                }
            }
        }
        if crash {
            self.hive_crashes(process);
            return None;
        }
        Some(answer)
    }

    /// A process of the hive is gone, and comes back.
    pub(crate) fn hive_crashes(&mut self, process: usize) {
        self.say(|| format!("hive: process {process} crashes"));
        let there = &mut self.hive.processes[process];
        there.on = false;
        there.life += 1;
        if self.hive.lock == Some(process) {
            self.hive.lock = None;
        }
        let wait = self.chance.between(500, 20_000);
        self.after(wait, What::HiveBegins(process));
    }

    pub(crate) fn hive_begins(&mut self, process: usize) {
        let there = &mut self.hive.processes[process];
        if there.on {
            return;
        }
        there.on = true;
        there.scheduler = Scheduler::default();
        self.after(WATCH_EVERY, What::Look(process));
    }

    pub(crate) fn hive_looks(&mut self, process: usize) {
        let there = &mut self.hive.processes[process];
        if !there.on {
            return;
        }
        if there.paused > self.now {
            let free = there.paused;
            return self.at(free, What::Look(process));
        }
        let late = if self.chance.percent(15) { self.chance.between(0, 3_500) } else { 0 };
        self.after(WATCH_EVERY + late, What::Look(process));
        if *self.hive.lock.get_or_insert(process) != process {
            return;
        }
        if self.now - self.hive.looked > 6_000 {
            self.hive.looks_since = self.now;
        }
        self.hive.looked = self.now;
        let there = &mut self.hive.processes[process];
        let clock = self.now * there.rate / 1_000_000;
        let due = there.scheduler.look(&self.hive.rows, clock);
        let life = there.life;
        for look in due {
            let event = look.event(OperationId(self.chance.id()));
            let slow = !self.mended && self.flavour.hive && self.chance.percent(10);
            let wait = self.chance.between(0, if slow { 15_000 } else { 300 });
            self.after(wait, What::Decide(process, life, self.hive.looks_since, event));
        }
    }

    pub(crate) fn hive_decides(&mut self, process: usize, life: u64, looks_since: u64, event: Event) {
        let there = &self.hive.processes[process];
        // The lock is held by the connection on which the transaction runs.
        if !there.on || there.life != life || self.hive.lock != Some(process) {
            return;
        }
        if there.paused > self.now {
            let free = there.paused;
            return self.at(free, What::Decide(process, life, looks_since, event));
        }
        self.hive.decided_since = looks_since;
        self.transaction(process, event);
    }

    /// The rows are those of an earlier moment.
    pub(crate) fn restore(&mut self) {
        let count = self.hive.backups.len() as u64;
        if count == 0 {
            return;
        }
        let backup = self.chance.between(0, count) as usize;
        self.say(|| format!("hive: restored from backup {backup} of {count}"));
        self.hive.rows = self.hive.backups[backup].clone();
        for process in 0..self.hive.processes.len() {
            if self.hive.processes[process].on {
                self.hive_crashes(process);
            }
        }
        // What it knew of ended terms is forgotten too: who still has one goes on, until the store says otherwise.
        self.hive.watched_out.clear();
        self.hive.restored = true;
        decide(&mut self.hive.rows, Event::Restored { now_ms: WALL + self.now });
    }

    /// A person wishes something.
    pub(crate) fn person(&mut self) {
        let apps: Vec<AppId> = self.apps.keys().copied().collect();
        let devices: Vec<DeviceId> = self.hive.rows.devices.keys().copied().collect();
        let next = match self.now < 20_000 {
            true => 4_000,
            false => self.chance.between(5_000, 60_000),
        };
        if !self.mended {
            self.after(next, What::Person);
        }
        let app = apps[self.chance.between(0, apps.len() as u64) as usize];
        let device = devices[self.chance.between(0, devices.len() as u64) as usize];
        let wanted = self.hive.rows.apps.get(&app).is_some_and(|app| app.wanted);
        let policy = self.hive.rows.apps.get(&app).map(|app| app.policy);
        let placed = self.hive.rows.apps.get(&app).and_then(|app| app.placement.device);
        let other = if policy == Some(Policy::Auto) { Policy::Manual } else { Policy::Auto };
        let kind = match self.chance.between(0, 100) {
            _ if !wanted => Kind::Start,
            0..=44 => Kind::Move,
            45..=59 => Kind::Force { even_if_online: true },
            60..=69 => Kind::Force { even_if_online: false },
            70..=79 => Kind::Stop,
            80..=89 => Kind::Start,
            _ if self.flavour.policies => Kind::Settings(other),
            _ => Kind::Move,
        };
        let to = match kind {
            Kind::Move | Kind::Force { .. } => Some(device),
            Kind::Start if placed.is_none() => Some(device),
            _ => None,
        };
        let up = |process: &Process| process.on && process.paused <= self.now;
        let Some(process) = self.hive.processes.iter().position(up) else { return };
        if self.hive.rows.recovering && !self.hive.rows.heard && self.chance.percent(30) {
            self.say(|| "person: goes on without the devices that are missing".into());
            self.transaction(process, Event::FinishRecovery);
            return;
        }
        let wish = Wish { app, kind, to };
        let operation = OperationId(self.chance.id());
        let answer = self.transaction(process, Event::Ordered { operation, wish });
        if let Some(Answer::Ordered(answer)) = answer {
            let to = to.map(|id| name(usize::from(id.0[0] - b'a')));
            self.say(|| format!("person: app {} {kind:?} {to:?}: {}", app.0[0], answer.is_ok()));
        }
    }
}
