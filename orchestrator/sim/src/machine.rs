//! A machine: what is on its disk, and what lives in its memory. The doors' fakes are in `doors`.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{AppId, DeviceId, Epoch, ManifestId, Seq, Term, VolumeId};
use orchestrator_api::placement::Expect;
use orchestrator_device::{Device, Disk, Look};

use crate::store::{Ask, Index};

/// How Docker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docker {
    /// It answers.
    Ok,
    /// It answers late.
    Slow,
    /// It does not.
    Stopped,
}

/// An app's containers.
#[derive(Debug, Clone)]
pub struct Container {
    /// The term on the label.
    pub term: Term,
    /// Which start it was.
    pub id: u64,
}

/// A volume's folder.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Manifests that are here, committed or not.
    pub chain: BTreeMap<Seq, Index>,
    /// The epoch that was won last.
    pub epoch: Option<Epoch>,
    /// The manifest before the first of that epoch.
    pub parent: Option<ManifestId>,
    /// The right to write has ended.
    pub fenced: bool,
    /// Tails that were set aside.
    pub branches: Vec<Vec<Index>>,
    /// Writes that no seal holds.
    pub journal: Vec<u64>,
    /// The first manifest of an epoch, before its slot was answered for.
    pub claimed: Option<Index>,
    /// The newest seal that the store has said to have.
    pub replicated: Seq,
}

impl Local {
    /// The newest seal.
    pub fn head(&self) -> Option<Index> {
        self.chain.last_key_value().map(|(_, index)| *index)
    }

    /// What the store's chain does not have is set aside, and the chain is the store's.
    pub fn follow(&mut self, slots: &BTreeMap<Seq, Index>) -> usize {
        let tail: Vec<Index> = self
            .chain
            .iter()
            .filter(|(seq, index)| slots.get(seq) != Some(index))
            .map(|(_, it)| *it)
            .collect();
        let set_aside = tail.len();
        if !tail.is_empty() {
            self.branches.push(tail);
        }
        self.chain = slots.clone();
        set_aside
    }
}

/// A mounted volume, with its daemon.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Whose it is.
    pub app: AppId,
    /// From when on it refuses writes, on the machine's clock.
    pub lease: Option<u64>,
    /// Whether its daemon lives.
    pub alive: bool,
    /// Which mount it was.
    pub id: u64,
}

/// What a job waits for.
#[derive(Debug, Clone)]
pub enum Job {
    /// Looks at a volume before a start.
    Look { app: AppId, step: u64, volume: VolumeId },
    /// Takes a volume over.
    Claim { app: AppId, step: u64, volume: VolumeId, expect: Expect, nonce: u64, at: Claiming },
    /// Looks whether a tail is one.
    Settle { app: AppId, step: u64, volume: VolumeId },
    /// Commits what is sealed.
    Upload { volume: VolumeId, at: Uploading },
}

impl Job {
    /// The step of an app that it belongs to.
    pub fn step(&self) -> Option<(AppId, u64)> {
        match self {
            Job::Look { app, step, .. } | Job::Claim { app, step, .. } | Job::Settle { app, step, .. } => {
                Some((*app, *step))
            }
            Job::Upload { .. } => None,
        }
    }

    /// The volume.
    pub fn volume(&self) -> VolumeId {
        match self {
            Job::Look { volume, .. }
            | Job::Claim { volume, .. }
            | Job::Settle { volume, .. }
            | Job::Upload { volume, .. } => *volume,
        }
    }
}

/// Where a claim is.
#[derive(Debug, Clone, Copy)]
pub enum Claiming {
    /// Reads the head, before or after it claimed an epoch.
    Reading(Option<Epoch>),
    /// Claims an epoch above a head.
    Epoch(Epoch, Option<Index>),
    /// Fills the slot.
    Slot(Epoch, Index),
    /// Looks for claims above.
    Check(Epoch, Index),
}

/// Where an upload is.
#[derive(Debug, Clone, Copy)]
pub enum Uploading {
    /// Looks at the newest slot and claims: at the start, and when idle.
    Looking,
    /// Fills a slot.
    Slot(Index),
    /// Looks for claims above.
    Check(Index),
}

/// A request that a job waits for.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The job.
    pub job: Job,
    /// What was asked.
    pub ask: Ask,
    /// Which request of the job it is.
    pub stage: u64,
    /// How often it was asked.
    pub tries: u32,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its device's id, which a copy shares.
    pub id: DeviceId,
    /// Whether it is on.
    pub on: bool,
    /// How often it was switched on.
    pub boot: u64,
    /// How its clock runs, in millionths of the true rate.
    pub rate: u64,
    /// What its clock showed at the beginning.
    pub offset: u64,
    /// It sleeps until then.
    pub asleep: u64,
    /// Its process stands still until then.
    pub paused: u64,
    /// What the device's process wrote.
    pub disk: Disk,
    /// Whether nothing more fits on it.
    pub full: bool,
    /// The process.
    pub process: Option<Device>,
    /// How often one began.
    pub run: u64,
    /// When it wants to hear of time, and has been told so.
    pub wakes: u64,
    /// How Docker is.
    pub docker: Docker,
    /// How often it ended.
    pub docker_ends: u64,
    /// Whether it did not answer when the device looked last.
    pub docker_was_away: bool,
    /// Until when no gate passes.
    pub unhealthy: u64,
    /// What runs.
    pub containers: BTreeMap<AppId, Container>,
    /// Volumes' folders.
    pub local: BTreeMap<VolumeId, Local>,
    /// What is mounted.
    pub mounts: BTreeMap<VolumeId, Mount>,
    /// Volumes that are being published.
    pub publishing: BTreeSet<VolumeId>,
    /// Volumes whose newest slot was compared since their daemon began.
    pub compared: BTreeSet<VolumeId>,
    /// Requests that are waited for.
    pub jobs: BTreeMap<u64, Waiting>,
    /// The step of each app.
    pub steps: BTreeMap<AppId, u64>,
    /// What a step has collected.
    pub looks: BTreeMap<AppId, BTreeMap<VolumeId, Option<Look>>>,
    /// Volumes that a step has settled, or not.
    pub settled: BTreeMap<AppId, BTreeMap<VolumeId, bool>>,
}

impl Machine {
    /// A machine that was never on.
    pub fn new(id: DeviceId, rate: u64, offset: u64) -> Machine {
        Machine {
            id,
            on: false,
            boot: 0,
            rate,
            offset,
            asleep: 0,
            paused: 0,
            disk: Disk::default(),
            full: false,
            process: None,
            run: 0,
            wakes: u64::MAX,
            docker: Docker::Ok,
            docker_ends: 0,
            docker_was_away: false,
            unhealthy: 0,
            containers: BTreeMap::new(),
            local: BTreeMap::new(),
            mounts: BTreeMap::new(),
            publishing: BTreeSet::new(),
            compared: BTreeSet::new(),
            jobs: BTreeMap::new(),
            steps: BTreeMap::new(),
            looks: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    /// Its clock, which runs on while it sleeps.
    pub fn clock(&self, now: u64) -> u64 {
        self.offset + now * self.rate / 1_000_000
    }

    /// The true time at which its clock shows a moment.
    pub fn when(&self, moment: u64) -> u64 {
        match moment.checked_sub(self.offset) {
            Some(since) if moment < u64::MAX / 2_000_000 => since * 1_000_000 / self.rate + 1,
            Some(_) => u64::MAX,
            None => 0,
        }
    }

    /// What a crash of the process takes.
    pub fn process_ends(&mut self) {
        self.process = None;
        self.run += 1;
        self.wakes = u64::MAX;
        self.jobs.retain(|_, waiting| matches!(waiting.job, Job::Upload { .. }));
        self.publishing.clear();
        self.steps.clear();
        self.looks.clear();
        self.settled.clear();
    }

    /// What a loss of power takes.
    pub fn power_ends(&mut self) {
        self.process_ends();
        self.on = false;
        self.boot += 1;
        self.containers.clear();
        self.mounts.clear();
        self.jobs.clear();
        self.compared.clear();
    }
}
