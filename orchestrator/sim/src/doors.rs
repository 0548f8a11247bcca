//! Fakes of a device's doors: disk, hive, volumes with their daemons, Docker.

use std::collections::BTreeMap;

use orchestrator_api::ids::{AppId, Epoch, Seq, VolumeId};
use orchestrator_api::placement::{Expect, Head, Phase, Problem};
use orchestrator_api::report::{Refusal, VolumeReport};
use orchestrator_device::rules::{BROKEN, Rule};
use orchestrator_device::{Cut, Done, Effect, Event, Here, Look, NotClaimed, Published, Step};

use crate::hive::Request;
use crate::machine::{Claiming, Container, Docker, Job, Mount, Uploading, Waiting};
use crate::store::{Ask, Index, Manifest, Said, name as manifest_name, view};
use crate::world::{Node, What, World, name};

/// How long an answer of Docker is waited for.
const DOCKER_ASK_WAIT: u64 = 15_000;
/// How long an answer of the store is waited for.
const STORE_WAIT: u64 = 10_000;
/// The replication interval.
const SEAL_EVERY: u64 = 15_000;
/// How often an idle daemon looks for claims.
const IDLE_LOOK: u64 = 60_000;
/// How often the device looks at mounts and containers.
const LOOK_ALIVE: u64 = 2_000;

/// Something of a machine's own.
#[derive(Debug, Clone)]
pub enum Doing {
    /// A container writes.
    Write(AppId, u64),
    /// A daemon seals.
    Seal(VolumeId, u64),
    /// A daemon looks for claims.
    IdleLook(VolumeId, u64),
    /// An upload is tried again.
    Upload(VolumeId),
    /// An answer did not come.
    Silence(u64, u64),
    /// A step ends.
    Ends(u64, AppId, u64, Ending),
    /// A `prepare` ends.
    Prepared(u64, AppId, Vec<VolumeId>),
    /// The device looks at what should live.
    LookAlive,
}

/// How a step ends, when it has taken its time.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Containers of before are gone, so the arbiter can be looked at.
    Cleared(Vec<VolumeId>),
    /// Volumes are mounted.
    Mounted(Vec<VolumeId>, BTreeMap<VolumeId, Head>, Option<u64>),
    /// The gate decides; how often Docker had ended when it began.
    Gate(u64),
    /// Containers have exited.
    Stopped,
    /// Publishing is looked at, until a moment.
    Publish(u64),
    /// Everything is unmounted.
    Unmounted,
    /// It failed.
    Failed(Done),
}

impl World {
    /// Does what a process decided; a crash lies between any two effects.
    pub(crate) fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            if self.crashes_here(at) {
                return;
            }
            match effect {
                Effect::WriteIdentity(identity) => {
                    if self.machines[at].full {
                        return self.process_crashes(at);
                    }
                    self.machines[at].disk.identity = identity;
                }
                Effect::WriteRecord { record, reserved } => {
                    if self.machines[at].full && !reserved {
                        self.say(|| format!("{}: disk full", name(at)));
                        return self.process_crashes(at);
                    }
                    let before = self.machines[at].disk.apps.insert(record.app, *record.clone());
                    if let Phase::Stopped(_) = record.phase {
                        self.oracle.ended.insert((at, record.app, record.term));
                    }
                    if before.is_some_and(|before| before.term > record.term) {
                        self.oracle.broken = Some(format!("{}: a record's term fell", name(at)));
                    }
                }
                Effect::RemoveRecord(app) => {
                    self.machines[at].disk.apps.remove(&app);
                }
                Effect::Hello(hello) => self.ask_hive(at, Request::Hello(hello)),
                Effect::Report(session, mut report) => {
                    for (app, said) in &mut report.apps {
                        let volumes = self.apps.get(app).into_iter().flatten();
                        said.volumes =
                            volumes.filter_map(|volume| Some((*volume, self.tell(at, *volume)?))).collect();
                    }
                    self.ask_hive(at, Request::Report(session, report));
                }
                Effect::Poll(session, have) => self.ask_hive(at, Request::Poll(session, have)),
                Effect::Result(session, result) => {
                    self.say(|| format!("{}: says {result:?}", name(at)));
                    self.ask_hive(at, Request::Result(session, result));
                }
                Effect::Begin { app, step, what } => self.begin_step(at, app, step, what),
                Effect::Prepare { app, volumes } => {
                    let (wait, run, boot) =
                        (self.chance.between(100, 2_000), self.machines[at].run, self.machines[at].boot);
                    self.after(wait, What::Machine(at, boot, Doing::Prepared(run, app, volumes)));
                }
                Effect::Lease { app, end } => {
                    let machine = &mut self.machines[at];
                    let now = machine.clock(self.now);
                    // An end that has passed cannot be moved.
                    for mount in machine.mounts.values_mut().filter(|mount| mount.app == app) {
                        if mount.lease.is_none_or(|before| now < before) {
                            mount.lease = end.map(|end| mount.lease.map_or(end, |before| before.max(end)));
                        }
                    }
                }
            }
        }
    }

    fn tell(&self, at: usize, volume: VolumeId) -> Option<VolumeReport> {
        let local = self.machines[at].local.get(&volume)?;
        let index = local.chain.get(&local.replicated).filter(|_| local.epoch.is_some() && !local.fenced);
        let replicated = index.map(|index| self.manifests.head(*index));
        Some(VolumeReport { writer: self.writer(at, volume), replicated })
    }

    fn ends(&mut self, at: usize, app: AppId, step: u64, wait: u64, ending: Ending) {
        let (run, boot) = (self.machines[at].run, self.machines[at].boot);
        self.after(wait, What::Machine(at, boot, Doing::Ends(run, app, step, ending)));
    }

    fn tell_process(&mut self, at: usize, event: Event) {
        let run = self.machines[at].run;
        self.after(1, What::Process(at, run, event));
    }

    fn step_done(&mut self, at: usize, app: AppId, step: u64, done: Done) {
        self.tell_process(at, Event::Done { app, step, done });
    }

    fn begin_step(&mut self, at: usize, app: AppId, step: u64, what: Step) {
        let machine = &mut self.machines[at];
        if machine.steps.insert(app, step) != Some(step) {
            // A later step ends the one that is under way.
            machine.jobs.retain(|_, waiting| waiting.job.step().is_none_or(|(of, _)| of != app));
            machine.looks.remove(&app);
            machine.settled.remove(&app);
            let volumes = self.apps.get(&app).cloned().unwrap_or_default();
            machine.publishing.retain(|volume| !volumes.contains(volume));
        }
        let docker = machine.docker;
        let starts = matches!(what, Step::Claim(..) | Step::Mount { .. } | Step::StartContainers(_));
        if starts && machine.disk.identity.refused == Some(Refusal::Cloned) {
            self.oracle.broken =
                Some(format!("{} is refused as a copy, and starts app {}", name(at), app.0[0]));
        }
        let slow = if docker == Docker::Slow { self.chance.between(5_000, 20_000) } else { 0 };
        match what {
            Step::Look(volumes) => {
                let left = self.machines[at].containers.contains_key(&app);
                match left && docker == Docker::Stopped {
                    true => {
                        let nothing = volumes.iter().map(|volume| (*volume, None)).collect();
                        self.ends(at, app, step, 5_000, Ending::Failed(Done::Looked(nothing)));
                    }
                    false => self.ends(
                        at,
                        app,
                        step,
                        if left { 1_000 + slow } else { 5 },
                        Ending::Cleared(volumes),
                    ),
                }
            }
            Step::Claim(volume, expect) => {
                let nonce = self.chance.next();
                let at_first = Claiming::Reading(None);
                let job = Job::Claim { app, step, volume, expect, nonce, at: at_first };
                self.ask_store(at, job, Ask::List);
            }
            Step::Mount { volumes, rollback_to, lease } => {
                let wait = self.chance.between(100, 1_500);
                self.ends(at, app, step, wait, Ending::Mounted(volumes, rollback_to, lease));
            }
            Step::StartContainers(term) => {
                if docker == Docker::Stopped {
                    let failed = Done::Up(Err(Problem::DockerStopped));
                    return self.ends(at, app, step, 2_000, Ending::Failed(failed));
                }
                if slow > DOCKER_ASK_WAIT {
                    let failed = Done::Up(Err(Problem::DockerSlow));
                    return self.ends(at, app, step, DOCKER_ASK_WAIT, Ending::Failed(failed));
                }
                let id = self.chance.next();
                let (boot, wait) = (self.machines[at].boot, self.chance.between(200, 1_500));
                self.machines[at].containers.insert(app, Container { term, id });
                self.after(wait + slow, What::Machine(at, boot, Doing::Write(app, id)));
                let gate = self.chance.between(1_000, 7_000);
                let ends = self.machines[at].docker_ends;
                self.ends(at, app, step, gate + slow, Ending::Gate(ends));
            }
            Step::StopContainers { publish } => {
                if publish {
                    self.seal_all(at, app);
                }
                match docker == Docker::Stopped && self.machines[at].containers.contains_key(&app) {
                    true => {
                        let failed = Done::Stopped(Err(Problem::DockerStopped));
                        self.ends(at, app, step, 5_000, Ending::Failed(failed));
                    }
                    false => {
                        let wait = self.chance.between(50, 3_000);
                        self.ends(at, app, step, wait + slow, Ending::Stopped);
                    }
                }
            }
            Step::Publish(until) => {
                self.seal_all(at, app);
                for volume in self.apps.get(&app).cloned().unwrap_or_default() {
                    self.machines[at].publishing.insert(volume);
                    self.upload(at, volume);
                }
                self.ends(at, app, step, 100, Ending::Publish(until));
            }
            Step::Unmount => self.ends(at, app, step, 50, Ending::Unmounted),
            Step::Settle => {
                for volume in self.apps.get(&app).cloned().unwrap_or_default() {
                    self.ask_store(at, Job::Settle { app, step, volume }, Ask::List);
                }
            }
        }
    }

    fn seal_all(&mut self, at: usize, app: AppId) {
        for volume in self.apps.get(&app).cloned().unwrap_or_default() {
            self.seal(at, volume);
            self.upload(at, volume);
        }
    }

    /// Seals what the journal holds, if the volume was ever written here.
    fn seal(&mut self, at: usize, volume: VolumeId) {
        let writer = self.writer(at, volume);
        let Some(local) = self.machines[at].local.get_mut(&volume) else { return };
        let Some(epoch) = local.epoch.filter(|_| !local.journal.is_empty()) else { return };
        let parent = local.head();
        let seq = Seq(parent.map_or(0, |parent| self.manifests.get(parent).seq.0) + 1);
        let writes = std::mem::take(&mut local.journal);
        let manifest = Manifest { epoch, seq, parent, writer, writes, back_to: None };
        local.chain.insert(seq, self.manifests.add(manifest));
    }

    /// Something of a machine's own happens.
    pub(crate) fn doing(&mut self, at: usize, doing: Doing) {
        match doing {
            Doing::Write(app, id) => self.container_writes(at, app, id),
            Doing::Seal(volume, id) => {
                if self.machines[at].mounts.get(&volume).is_some_and(|mount| mount.id == id && mount.alive) {
                    self.seal(at, volume);
                    self.upload(at, volume);
                    let boot = self.machines[at].boot;
                    self.after(SEAL_EVERY, What::Machine(at, boot, Doing::Seal(volume, id)));
                }
            }
            Doing::IdleLook(volume, id) => {
                if self.machines[at].mounts.get(&volume).is_some_and(|mount| mount.id == id && mount.alive) {
                    self.machines[at].compared.remove(&volume);
                    self.upload(at, volume);
                    let boot = self.machines[at].boot;
                    let wait = self.chance.between(IDLE_LOOK / 2, IDLE_LOOK);
                    self.after(wait, What::Machine(at, boot, Doing::IdleLook(volume, id)));
                }
            }
            Doing::Upload(volume) => self.upload(at, volume),
            Doing::Silence(job, stage) => {
                if self.machines[at].jobs.get(&job).is_some_and(|waiting| waiting.stage == stage) {
                    self.job_answered(at, job, stage, None);
                }
            }
            Doing::Ends(run, app, step, ending) => {
                let machine = &self.machines[at];
                if machine.run != run || machine.steps.get(&app) != Some(&step) {
                } else if machine.paused > self.now {
                    let (free, boot) = (machine.paused, machine.boot);
                    self.at(free, What::Machine(at, boot, Doing::Ends(run, app, step, ending)));
                } else {
                    self.step_ends(at, app, step, ending);
                }
            }
            Doing::Prepared(run, app, volumes) => {
                if self.machines[at].run != run {
                    return;
                }
                let writers = match self.machines[at].docker {
                    Docker::Stopped => Err(Problem::DockerStopped),
                    _ => Ok(volumes.into_iter().map(|volume| (volume, self.writer(at, volume))).collect()),
                };
                self.tell_process(at, Event::Prepared { app, writers });
            }
            Doing::LookAlive => {
                let boot = self.machines[at].boot;
                self.after(LOOK_ALIVE, What::Machine(at, boot, Doing::LookAlive));
                let machine = &mut self.machines[at];
                if machine.process.is_none() || machine.paused > self.now {
                    return;
                }
                let docker = machine.docker != Docker::Stopped;
                let was_away = std::mem::replace(&mut machine.docker_was_away, !docker);
                let gone = if was_away { Event::EndedWithDocker } else { Event::ContainersGone };
                let machine = &self.machines[at];
                let mut events = vec![Event::Docker(docker)];
                for (app, record) in &machine.disk.apps {
                    let mut volumes = record.volumes.keys();
                    if volumes
                        .clone()
                        .any(|volume| machine.local.get(volume).is_some_and(|local| local.fenced))
                    {
                        events.push(Event::Fenced(*app));
                    }
                    if !volumes.all(|volume| machine.mounts.get(volume).is_some_and(|mount| mount.alive)) {
                        events.push(Event::MountDied(*app));
                    }
                    if docker && !machine.containers.contains_key(app) {
                        events.push(gone(*app));
                    }
                }
                for event in events {
                    self.decide_now(at, event);
                }
            }
        }
    }

    fn container_writes(&mut self, at: usize, app: AppId, id: u64) {
        let machine = &self.machines[at];
        if machine.containers.get(&app).is_none_or(|container| container.id != id) {
            return;
        }
        let boot = machine.boot;
        let wait = self.chance.between(500, 3_000);
        self.after(wait, What::Machine(at, boot, Doing::Write(app, id)));
        for volume in self.apps.get(&app).cloned().unwrap_or_default() {
            let machine = &mut self.machines[at];
            let now = machine.clock(self.now);
            let open = machine.mounts.get(&volume).is_some_and(|mount| {
                mount.alive && (mount.lease.is_none_or(|end| now < end) || self.flavour.no_end)
            });
            let Some(local) = machine.local.get_mut(&volume).filter(|local| open && !local.fenced) else {
                continue;
            };
            let number = self.oracle.next_write();
            local.journal.push(number);
            self.seen.writes += 1;
            self.wrote(at, app, volume, number);
        }
    }

    fn step_ends(&mut self, at: usize, app: AppId, step: u64, ending: Ending) {
        let now = self.machines[at].clock(self.now);
        match ending {
            Ending::Failed(done) => self.step_done(at, app, step, done),
            Ending::Cleared(volumes) => {
                self.machines[at].containers.remove(&app);
                self.machines[at].mounts.retain(|_, mount| mount.app != app);
                for volume in volumes {
                    self.ask_store(at, Job::Look { app, step, volume }, Ask::List);
                }
            }
            Ending::Mounted(volumes, rollback_to, lease) => {
                for volume in volumes {
                    let writer = self.writer(at, volume);
                    let machine = &mut self.machines[at];
                    let Some(local) = machine.local.get_mut(&volume).filter(|local| local.epoch.is_some())
                    else {
                        return self.step_done(at, app, step, Done::Mounted(Err(Problem::State)));
                    };
                    let parent = local.head();
                    let seq = Seq(parent.map_or(0, |parent| self.manifests.get(parent).seq.0) + 1);
                    let epoch = local.epoch.unwrap_or_default();
                    if let Some(back) = rollback_to.get(&volume)
                        && let Some(to) = local.chain.get(&back.seq).copied()
                    {
                        local.journal.clear();
                        let manifest =
                            Manifest { epoch, seq, parent, writer, writes: vec![], back_to: Some(to) };
                        local.chain.insert(seq, self.manifests.add(manifest));
                    }
                    let id = self.chance.next();
                    let boot = machine.boot;
                    machine.mounts.insert(volume, Mount { app, lease, alive: true, id });
                    machine.compared.remove(&volume);
                    self.upload(at, volume);
                    self.after(SEAL_EVERY, What::Machine(at, boot, Doing::Seal(volume, id)));
                    self.after(IDLE_LOOK, What::Machine(at, boot, Doing::IdleLook(volume, id)));
                    self.mounted(at, app, volume);
                }
                self.step_done(at, app, step, Done::Mounted(Ok(())));
            }
            Ending::Gate(ends) => {
                let there = self.machines[at].containers.contains_key(&app);
                let writes = self.apps.get(&app).into_iter().flatten().all(|volume| {
                    let machine = &self.machines[at];
                    machine
                        .mounts
                        .get(volume)
                        .is_some_and(|mount| mount.alive && mount.lease.is_none_or(|end| now < end))
                });
                let machine = &self.machines[at];
                let answers = machine.docker != Docker::Stopped;
                let well = there && writes && answers && machine.unhealthy <= self.now;
                let gate = match well {
                    true => Ok(()),
                    // What failed while Docker was away says nothing of the app.
                    false if !answers || machine.docker_ends != ends => Err(Problem::DockerStopped),
                    false => Err(Problem::Unhealthy),
                };
                self.step_done(at, app, step, Done::Up(gate));
            }
            Ending::Stopped => {
                self.machines[at].containers.remove(&app);
                self.step_done(at, app, step, Done::Stopped(Ok(())));
            }
            Ending::Publish(until) => self.publish(at, app, step, until, now),
            Ending::Unmounted => {
                self.machines[at].mounts.retain(|_, mount| mount.app != app);
                let volumes = self.apps.get(&app).cloned().unwrap_or_default();
                self.machines[at].jobs.retain(|_, waiting| !volumes.contains(&waiting.job.volume()));
                self.step_done(at, app, step, Done::Unmounted);
            }
        }
    }

    fn publish(&mut self, at: usize, app: AppId, step: u64, until: u64, now: u64) {
        let mut heads = BTreeMap::new();
        let (mut all, mut fenced) = (true, false);
        for volume in self.apps.get(&app).cloned().unwrap_or_default() {
            let machine = &self.machines[at];
            let Some(local) = machine.local.get(&volume).filter(|local| local.epoch.is_some()) else {
                continue;
            };
            fenced |= local.fenced;
            let head = local.head();
            let newest = head.map(|head| self.manifests.get(head).seq);
            all &= newest == Some(local.replicated) && machine.compared.contains(&volume);
            if let Some(index) = local.chain.get(&local.replicated) {
                heads.insert(volume, self.manifests.head(*index));
            }
        }
        let state = match (fenced, all) {
            (true, _) => Published::Fenced,
            (_, true) => Published::All,
            _ if now >= until => Published::Late,
            _ => return self.ends(at, app, step, 200, Ending::Publish(until)),
        };
        for volume in self.apps.get(&app).cloned().unwrap_or_default() {
            self.machines[at].publishing.remove(&volume);
        }
        self.step_done(at, app, step, Done::Published { heads, state });
    }

    fn ask_store(&mut self, at: usize, job: Job, ask: Ask) {
        let id = self.chance.next();
        self.ask_again(at, id, job, ask, 1, 0);
    }

    fn ask_again(&mut self, at: usize, id: u64, job: Job, ask: Ask, stage: u64, tries: u32) {
        let (volume, boot) = (job.volume(), self.machines[at].boot);
        self.machines[at].jobs.insert(id, Waiting { job, ask: ask.clone(), stage, tries });
        let what = What::Store { from: at, boot, job: id, stage, volume, ask };
        self.send(Node::Machine(at), Node::Store, what);
        self.after(STORE_WAIT, What::Machine(at, boot, Doing::Silence(id, stage)));
    }

    /// A job hears from the store, or does not.
    pub(crate) fn job_answered(&mut self, at: usize, id: u64, stage: u64, said: Option<Said>) {
        let machine = &mut self.machines[at];
        let Some(waiting) = machine.jobs.get(&id).filter(|waiting| waiting.stage == stage) else { return };
        let process = !matches!(waiting.job, Job::Upload { .. });
        if process && machine.paused > self.now {
            let (free, boot) = (machine.paused, machine.boot);
            let what = match said {
                Some(said) => What::Answer { to: at, boot, job: id, stage, said },
                None => What::Machine(at, boot, Doing::Silence(id, stage)),
            };
            return self.at(free, what);
        }
        let Some(waiting) = machine.jobs.remove(&id) else { return };
        match waiting.job.clone() {
            Job::Look { app, step, volume } => self.looked(at, app, step, volume, said),
            Job::Settle { app, step, volume } => self.settled(at, app, step, volume, said),
            Job::Claim { app, step, volume, .. } => match said {
                Some(said) => self.claim_goes_on(at, id, waiting, said),
                None if waiting.tries < 2 => {
                    let Waiting { job, ask, stage, tries } = waiting;
                    self.ask_again(at, id, job, ask, stage + 1, tries + 1);
                }
                None => {
                    let unreachable = Done::Claimed(volume, Err(NotClaimed::Unreachable));
                    self.step_done(at, app, step, unreachable);
                }
            },
            Job::Upload { volume, at: stage } => self.upload_goes_on(at, volume, stage, said),
        }
    }

    fn looked(&mut self, at: usize, app: AppId, step: u64, volume: VolumeId, said: Option<Said>) {
        let look = match said {
            Some(Said::Listed(newest, claim)) => {
                self.adopt(at, volume, newest);
                let newest_slot = newest.map(|index| (self.manifests.get(index).seq, index));
                let machine = &mut self.machines[at];
                let here = machine.local.get(&volume).and_then(|local| {
                    let has_newest =
                        newest_slot.is_none_or(|(seq, index)| local.chain.get(&seq) == Some(&index));
                    let fenced = local.fenced;
                    Some(Here { epoch: local.epoch?, parent: local.parent, has_newest, fenced })
                });
                Some(Look {
                    store: view(newest, claim, &self.manifests),
                    writer: self.writer(at, volume),
                    here,
                })
            }
            _ => None,
        };
        let wanted = self.apps.get(&app).map_or(0, Vec::len);
        let looks = self.machines[at].looks.entry(app).or_default();
        looks.insert(volume, look);
        if looks.len() == wanted {
            let looks = self.machines[at].looks.remove(&app).unwrap_or_default();
            self.step_done(at, app, step, Done::Looked(looks));
        }
    }

    /// A slot that was won before a crash is ours.
    fn adopt(&mut self, at: usize, volume: VolumeId, newest: Option<Index>) {
        let slots = self.store.get(&volume).map(|objects| objects.slots.clone()).unwrap_or_default();
        let Some(local) = self.machines[at].local.get_mut(&volume) else { return };
        if let Some(index) = local.claimed.filter(|claimed| newest == Some(*claimed)) {
            let manifest = self.manifests.get(index);
            local.claimed = None;
            local.chain = slots.into_iter().filter(|(seq, _)| *seq <= manifest.seq).collect();
            local.epoch = Some(manifest.epoch);
            local.parent = manifest.parent.map(manifest_name);
            local.fenced = false;
            local.replicated = manifest.seq;
        }
    }

    fn settled(&mut self, at: usize, app: AppId, step: u64, volume: VolumeId, said: Option<Said>) {
        let settled = match said {
            Some(Said::Listed(newest, claim)) => {
                self.seal(at, volume);
                let slots = self.store.get(&volume).map(|objects| objects.slots.clone()).unwrap_or_default();
                let newest_head = newest.map(|index| self.manifests.head(index));
                match self.machines[at].local.get_mut(&volume) {
                    None => true,
                    Some(local) => {
                        let epoch = local.epoch.unwrap_or(Epoch(0));
                        let here = |head: Head| local.chain.contains_key(&head.seq);
                        let others = newest_head.is_some_and(|head| {
                            head.epoch > epoch || !here(head) || local.chain.get(&head.seq).copied() != newest
                        });
                        let published = local.head() == newest;
                        if others {
                            local.follow(&slots);
                            local.epoch = None;
                            local.fenced = false;
                            true
                        } else {
                            published && claim.is_none_or(|(claim, _)| claim <= epoch)
                        }
                    }
                }
            }
            _ => false,
        };
        let wanted = self.apps.get(&app).map_or(0, Vec::len);
        let all = self.machines[at].settled.entry(app).or_default();
        all.insert(volume, settled);
        if all.len() == wanted {
            let settled = all.values().all(|settled| *settled);
            self.machines[at].settled.remove(&app);
            self.step_done(at, app, step, Done::Settled(settled));
        }
    }

    fn claim_goes_on(&mut self, at: usize, id: u64, waiting: Waiting, said: Said) {
        let Waiting { job, stage, .. } = waiting;
        let Job::Claim { app, step, volume, expect, nonce, at: claiming } = job else { return };
        let writer = self.writer(at, volume);
        let end = |world: &mut World, result| world.step_done(at, app, step, Done::Claimed(volume, result));
        let (next, ask) = match (claiming, said) {
            (Claiming::Reading(claimed), Said::Listed(newest, claim)) => {
                let store = view(newest, claim, &self.manifests);
                let later = newest.is_some_and(|index| Some(self.manifests.get(index).epoch) >= claimed);
                if claimed.is_some() && later {
                    return end(self, Err(NotClaimed::Rival));
                }
                if !allows(&expect, &store, writer) {
                    return end(self, Err(NotClaimed::Unexpected));
                }
                match claimed {
                    Some(epoch) => self.first_of(at, volume, epoch, newest),
                    None => {
                        self.set_aside(at, volume, newest);
                        let epoch = Epoch(store.epoch().0 + 1);
                        (Claiming::Epoch(epoch, newest), Ask::Claim(epoch, writer, nonce))
                    }
                }
            }
            (Claiming::Epoch(epoch, newest), Said::Created) => self.first_of(at, volume, epoch, newest),
            (Claiming::Slot(epoch, index), Said::Created) => {
                self.say(|| format!("{}: {volume:.4?} won slot #{index} epoch {epoch}", name(at)));
                let newest = Some(index);
                self.machines[at].local.entry(volume).or_default().claimed = newest;
                self.adopt(at, volume, newest);
                (Claiming::Check(epoch, index), Ask::List)
            }
            (Claiming::Slot(epoch, _), Said::SlotExists(other)) => {
                if self.manifests.get(other).epoch >= epoch {
                    return end(self, Err(NotClaimed::Rival));
                }
                (Claiming::Reading(Some(epoch)), Ask::List)
            }
            (Claiming::Check(epoch, index), Said::Listed(_, claim)) => {
                if claim.is_some_and(|(claim, _)| claim > epoch) {
                    if let Some(local) = self.machines[at].local.get_mut(&volume) {
                        local.fenced = true;
                    }
                    return end(self, Err(NotClaimed::Rival));
                }
                if matches!(expect, Expect::Exactly(_)) {
                    self.claimed(at, app, volume, epoch);
                }
                let parent = self.manifests.get(index).parent.map(manifest_name);
                return end(self, Ok(Cut { head: self.manifests.head(index), parent }));
            }
            _ => return end(self, Err(NotClaimed::Rival)),
        };
        let job = Job::Claim { app, step, volume, expect, nonce, at: next };
        self.ask_again(at, id, job, ask, stage + 1, 0);
    }

    /// What is here and not in the store becomes a branch, before a claim.
    fn set_aside(&mut self, at: usize, volume: VolumeId, newest: Option<Index>) {
        self.seal(at, volume);
        let newest = newest.map(|index| self.manifests.get(index).seq);
        let slots = self.store.get(&volume).map(|objects| objects.slots.clone()).unwrap_or_default();
        let known = slots.into_iter().filter(|(seq, _)| Some(*seq) <= newest).collect();
        let local = self.machines[at].local.entry(volume).or_default();
        let tail = local.follow(&known);
        if tail > 0 {
            self.say(|| format!("{}: {volume:.4?} has a branch of {tail} seals", name(at)));
        }
    }

    /// The first manifest of an epoch, on its way into its slot.
    fn first_of(
        &mut self,
        at: usize,
        volume: VolumeId,
        epoch: Epoch,
        parent: Option<Index>,
    ) -> (Claiming, Ask) {
        let writer = self.writer(at, volume);
        let seq = Seq(parent.map_or(0, |parent| self.manifests.get(parent).seq.0) + 1);
        let manifest = Manifest { epoch, seq, parent, writer, writes: vec![], back_to: None };
        let index = self.manifests.add(manifest);
        self.machines[at].local.entry(volume).or_default().claimed = Some(index);
        (Claiming::Slot(epoch, index), Ask::Slot(index))
    }

    /// Goes on committing what is sealed.
    pub(crate) fn upload(&mut self, at: usize, volume: VolumeId) {
        let machine = &self.machines[at];
        let now = machine.clock(self.now);
        let mount = machine.mounts.get(&volume).filter(|mount| mount.alive);
        let open = mount.is_some_and(|mount| mount.lease.is_none_or(|end| now < end));
        if !open && !machine.publishing.contains(&volume) {
            return;
        }
        let under_way =
            |waiting: &Waiting| matches!(&waiting.job, Job::Upload { volume: it, .. } if *it == volume);
        if machine.jobs.values().any(under_way) {
            return;
        }
        let Some(local) = machine.local.get(&volume).filter(|local| local.epoch.is_some() && !local.fenced)
        else {
            return;
        };
        let next = local.chain.range(Seq(local.replicated.0 + 1)..).next().map(|(_, index)| *index);
        match (machine.compared.contains(&volume), next) {
            (false, _) => self.ask_store(at, Job::Upload { volume, at: Uploading::Looking }, Ask::List),
            (true, Some(index)) => {
                self.ask_store(at, Job::Upload { volume, at: Uploading::Slot(index) }, Ask::Slot(index));
            }
            (true, None) => {}
        }
    }

    fn upload_goes_on(&mut self, at: usize, volume: VolumeId, stage: Uploading, said: Option<Said>) {
        let boot = self.machines[at].boot;
        let Some(epoch) = self.machines[at].local.get(&volume).and_then(|local| local.epoch) else { return };
        let above = |claim: Option<_>| claim.is_some_and(|(claim, _)| claim > epoch);
        match (stage, said) {
            (_, None) => return self.after(1_000, What::Machine(at, boot, Doing::Upload(volume))),
            (Uploading::Looking, Some(Said::Listed(newest, claim))) => {
                let ours = newest.is_none_or(|index| {
                    let seq = self.manifests.get(index).seq;
                    self.machines[at].local.get(&volume).is_some_and(|it| it.chain.get(&seq) == Some(&index))
                });
                if !ours || above(claim) {
                    return self.daemon_fenced(at, volume);
                }
                if let Some(index) = newest {
                    self.told_replicated(at, volume, index);
                }
                self.machines[at].compared.insert(volume);
            }
            (Uploading::Slot(index), Some(Said::Created)) => {
                return self.ask_store(at, Job::Upload { volume, at: Uploading::Check(index) }, Ask::List);
            }
            (Uploading::Slot(_), Some(Said::SlotExists(_))) => return self.daemon_fenced(at, volume),
            (Uploading::Check(index), Some(Said::Listed(_, claim))) => {
                self.told_replicated(at, volume, index);
                if above(claim) {
                    return self.daemon_fenced(at, volume);
                }
            }
            _ => {}
        }
        self.upload(at, volume);
    }

    fn daemon_fenced(&mut self, at: usize, volume: VolumeId) {
        self.say(|| format!("{}: {volume:.4?} is fenced", name(at)));
        if let Some(local) = self.machines[at].local.get_mut(&volume) {
            local.fenced = true;
        }
    }

    /// A process hears at once of what its machine found.
    fn decide_now(&mut self, at: usize, event: Event) {
        let run = self.machines[at].run;
        self.at(self.now, What::Process(at, run, event));
    }
}

/// What a claim compares; the rule that is broken on purpose is broken here too.
fn allows(
    expect: &Expect,
    store: &orchestrator_api::placement::StoreView,
    writer: orchestrator_api::ids::Writer,
) -> bool {
    expect.allows(store, writer) || BROKEN.get() == Some(Rule::ExpectIsCompared)
}
