//! What fails, and when.

use orchestrator_device::Event;

use crate::machine::Docker;
use crate::world::{Node, What, World, name};

/// Which faults a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavour {
    /// Messages are lost, late and doubled; parties are cut off.
    pub network: bool,
    /// Machines and processes crash, sleep and stand still.
    pub machines: bool,
    /// The hive's processes crash and stand still.
    pub hive: bool,
    /// Docker, disks and gates fail.
    pub parts: bool,
    /// The store crashes.
    pub store: bool,
    /// The hive is restored from a backup.
    pub restores: bool,
    /// A machine is copied.
    pub copies: bool,
    /// The policy of apps changes.
    pub policies: bool,
    /// How many of a hundred apps are under lease.
    pub auto_percent: u64,
    /// How many of a hundred messages are late.
    pub late_percent: u64,
    /// Which faults come more often than others: places in the list of `fault`.
    pub often: &'static [u64],
    /// A rule broken on purpose: volumes do not look at the end of their lease.
    pub no_end: bool,
}

impl Flavour {
    /// Everything.
    pub const ALL: Flavour = Flavour {
        network: true,
        machines: true,
        hive: true,
        store: true,
        parts: true,
        restores: true,
        copies: true,
        policies: true,
        auto_percent: 50,
        late_percent: 3,
        often: &[],
        no_end: false,
    };

    /// Devices and hive are cut off from each other, and processes stand still.
    pub const LEASES: Flavour = Flavour {
        store: false,
        restores: false,
        copies: false,
        auto_percent: 100,
        late_percent: 12,
        often: &[0, 0, 30, 38, 46],
        ..Flavour::ALL
    };

    /// Nothing is under lease; devices and store are cut off from each other.
    pub const MANUAL: Flavour =
        Flavour { auto_percent: 0, policies: false, store: false, often: &[0, 46, 52], ..Flavour::ALL };

    /// Docker stops and gates fail; everything is under lease.
    pub const PARTS: Flavour = Flavour {
        often: &[58, 58, 70],
        store: false,
        restores: false,
        copies: false,
        auto_percent: 100,
        ..Flavour::ALL
    };

    /// The store crashes again and again.
    pub const STORES: Flavour = Flavour { often: &[97, 97, 46, 80], copies: false, ..Flavour::ALL };

    /// The hive is restored again and again.
    pub const RESTORES: Flavour =
        Flavour { often: &[94, 94, 0, 46], store: false, copies: false, auto_percent: 100, ..Flavour::ALL };

    /// Machines are copied.
    pub const COPIES: Flavour =
        Flavour { often: &[96, 46, 52], auto_percent: 20, store: false, restores: false, ..Flavour::ALL };

    /// Nothing fails.
    pub const CALM: Flavour = Flavour {
        network: false,
        machines: false,
        hive: false,
        store: false,
        parts: false,
        restores: false,
        copies: false,
        policies: false,
        auto_percent: 50,
        late_percent: 3,
        often: &[],
        no_end: false,
    };
}

/// A fault that lasts.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A machine's Docker.
    Docker(usize),
    /// A machine's disk.
    Disk(usize),
}

impl World {
    /// Something fails.
    pub(crate) fn fault(&mut self) {
        if self.mended {
            return;
        }
        let next = self.chance.between(2_000, 30_000);
        self.after(next, What::Fault);
        let at = self.chance.between(0, self.machines.len() as u64) as usize;
        let long = match self.chance.percent(50) {
            true => self.chance.between(1_000, 30_000),
            false => self.chance.between(30_000, 300_000),
        };
        let often = self.flavour.often;
        let fault = match !often.is_empty() && self.chance.percent(60) {
            true => often[self.chance.between(0, often.len() as u64) as usize],
            false => self.chance.between(0, 100),
        };
        match fault {
            0..=29 if self.flavour.network => {
                let there = if self.chance.percent(60) { Node::Hive } else { Node::Store };
                let (out, back) = (self.chance.percent(75), self.chance.percent(75));
                let until = self.now + long;
                if out {
                    self.blocked.insert((Node::Machine(at), there), until);
                }
                if back {
                    self.blocked.insert((there, Node::Machine(at)), until);
                }
                self.say(|| format!("fault: {} and {there:?} cut off ({out}, {back}) for {long}", name(at)));
            }
            30..=37 if self.flavour.machines => {
                self.machines[at].asleep = self.now + long;
                self.say(|| format!("fault: {} sleeps for {long}", name(at)));
            }
            38..=45 if self.flavour.machines => {
                self.machines[at].paused = self.now + long;
                self.say(|| format!("fault: process of {} stands still for {long}", name(at)));
            }
            46..=51 if self.flavour.machines => self.process_crashes(at),
            52..=57 if self.flavour.machines => self.power_fails(at, long),
            58..=62 if self.flavour.parts => {
                let stopped = self.chance.percent(50);
                self.machines[at].docker = if stopped { Docker::Stopped } else { Docker::Slow };
                self.machines[at].docker_ends += u64::from(stopped);
                if stopped && self.chance.percent(50) {
                    self.machines[at].containers.clear();
                }
                self.say(|| format!("fault: docker of {} stopped {stopped} for {long}", name(at)));
                self.after(long, What::Mend(Fault::Docker(at)));
            }
            63..=65 if self.flavour.parts => {
                self.say(|| format!("fault: {} loses containers", name(at)));
                self.machines[at].containers.clear();
            }
            66..=69 if self.flavour.parts => {
                self.machines[at].full = true;
                self.say(|| format!("fault: disk of {} is full for {long}", name(at)));
                self.after(long, What::Mend(Fault::Disk(at)));
            }
            70..=75 if self.flavour.parts => {
                self.machines[at].unhealthy = self.now + long;
                self.say(|| format!("fault: gates of {} fail for {long}", name(at)));
            }
            76..=79 if self.flavour.parts => {
                self.say(|| format!("fault: a mount of {} dies", name(at)));
                let volumes: Vec<_> = self.machines[at].mounts.keys().copied().collect();
                if let Some(volume) = volumes.first() {
                    if let Some(mount) = self.machines[at].mounts.get_mut(volume) {
                        mount.alive = false;
                    }
                    self.machines[at].jobs.retain(|_, waiting| waiting.job.volume() != *volume);
                }
            }
            80..=86 if self.flavour.hive => {
                let all = self.chance.percent(60);
                let until = self.now + long;
                let one = self.chance.between(0, self.hive.processes.len() as u64) as usize;
                for (at, process) in self.hive.processes.iter_mut().enumerate() {
                    if all || at == one {
                        process.paused = until;
                    }
                }
                self.say(|| format!("fault: hive stands still (all: {all}) for {long}"));
            }
            87..=90 if self.flavour.hive => {
                let process = self.chance.between(0, self.hive.processes.len() as u64) as usize;
                if self.hive.processes[process].on {
                    self.hive_crashes(process);
                }
            }
            91..=93 if self.flavour.hive => {
                self.say(|| "fault: the scheduler's lock is lost".into());
                self.hive.lock = None;
            }
            94..=95 if self.flavour.restores => self.restore(),
            96 if self.flavour.copies && self.machines.len() < 5 => self.copy(at),
            97..=98 if self.flavour.store => self.store_crashes(long),
            _ => {}
        }
    }

    /// A fault ends.
    pub(crate) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Docker(at) => self.machines[at].docker = Docker::Ok,
            Fault::Disk(at) => self.machines[at].full = false,
        }
    }

    /// Whether a machine or its process crashes between two effects.
    pub(crate) fn crashes_here(&mut self, at: usize) -> bool {
        if self.mended || !self.flavour.machines || !self.chance.millionths(1_000) {
            return false;
        }
        match self.chance.percent(70) {
            true => self.process_crashes(at),
            false => {
                let wait = self.chance.between(2_000, 120_000);
                self.power_fails(at, wait);
            }
        }
        true
    }

    /// Whether the store crashes before or after a request.
    pub(crate) fn store_crashes_here(&mut self) -> bool {
        if self.mended || !self.flavour.store || !self.chance.millionths(2_000) {
            return false;
        }
        let wait = self.chance.between(1_000, 60_000);
        self.store_crashes(wait);
        true
    }

    /// The store ends and begins again: what it answered to is there, and what is on its way to it is lost.
    fn store_crashes(&mut self, wait: u64) {
        self.say(|| format!("fault: the store crashes for {wait}"));
        self.store_back = self.store_back.max(self.now + wait);
    }

    pub(crate) fn process_crashes(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.is_none() {
            return;
        }
        machine.process_ends();
        let run = machine.run;
        self.say(|| format!("fault: process of {} crashes", name(at)));
        let wait = self.chance.between(1_000, 15_000);
        self.after(wait, What::Begin(at, run));
    }

    fn power_fails(&mut self, at: usize, wait: u64) {
        if !self.machines[at].on {
            return;
        }
        self.say(|| format!("fault: {} loses power for {wait}", name(at)));
        self.machines[at].power_ends();
        self.after(wait, What::Power(at));
    }

    /// A second machine with the same identity, from the first one's disk.
    fn copy(&mut self, at: usize) {
        let original = &self.machines[at];
        if self.machines.iter().filter(|machine| machine.id == original.id).count() > 1 {
            return;
        }
        let mut copy = original.clone();
        copy.power_ends();
        copy.asleep = 0;
        copy.paused = 0;
        copy.full = false;
        copy.docker = Docker::Ok;
        copy.offset += 17;
        self.machines.push(copy);
        let there = self.machines.len() - 1;
        self.say(|| format!("fault: {} is a copy of {}", name(there), name(at)));
        self.after(100, What::Power(there));
    }

    /// Everything is mended.
    pub(crate) fn heal(&mut self) {
        self.say(|| "everything is mended".into());
        self.mended = true;
        self.blocked.clear();
        self.store_back = 0;
        let now = self.now;
        for process in &mut self.hive.processes {
            process.paused = process.paused.min(now);
        }
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            machine.asleep = machine.asleep.min(now);
            machine.paused = machine.paused.min(now);
            machine.full = false;
            machine.docker = Docker::Ok;
            machine.unhealthy = 0;
            let run = machine.run;
            match machine.on {
                true => self.at(now, What::Process(at, run, Event::Tick)),
                false => self.power(at),
            }
            self.at(now + 1, What::Begin(at, run));
        }
        for process in 0..self.hive.processes.len() {
            self.at(now, What::HiveBegins(process));
        }
        self.after(5_000, What::Check);
    }
}
