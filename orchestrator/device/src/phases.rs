//! How an app goes from phase to phase: `failover.md`, sections 6, 10 and 14.
//!
//! A phase is written down, then driven: its step is begun, and what comes of it decides the next phase. A process that
//! begins anew drives the phase that it finds. So there is one way through, whether anything crashed or not.

use orchestrator_api::command::{Command, Data, Order, Outcome};
use orchestrator_api::ids::AppId;
use orchestrator_api::placement::{Phase, Policy, Problem, Why};
use orchestrator_api::report::Refusal;
use orchestrator_api::times::{PUBLISH_WAIT, RETRY_AFTER, SETTLE_AGAIN, WAIT_FOR_HIVE, WAIT_FOR_STORE};

use crate::record::Record;
use crate::rules::{Rule, keeps};
use crate::trouble::is_of_docker;
use crate::{Boottime, Device, Done, Effect, Found, Published, Step};

/// Before a phase that waits for a lease is looked at again.
const LOOK_AGAIN: u64 = 1_000;
/// How long an app that failed publishes.
const PUBLISH_FAILED: u64 = 30_000;
/// How often what an app needs may die within [`DEATHS_WITHIN`].
const DEATHS_MAX: usize = 3;
const DEATHS_WITHIN: u64 = 600_000;
/// How long Docker is waited for while an app under lease is started: then another device may take it.
const DOCKER_WAIT: u64 = 60_000;

/// What of an app died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Death {
    /// The daemon of a volume.
    Mount,
    /// Containers, while Docker went on.
    Containers,
    /// Containers, with Docker.
    Docker,
}

impl Death {
    /// What an app fails with that saw it too often.
    fn problem(self) -> Problem {
        match self {
            Death::Mount => Problem::MountDied,
            Death::Containers => Problem::Exits,
            Death::Docker => Problem::DockerStopped,
        }
    }
}

impl Device {
    /// Writes an app's record.
    pub(crate) fn write(&mut self, app: AppId, effects: &mut Vec<Effect>) {
        if let Some(record) = self.disk.apps.get(&app) {
            let reserved = matches!(record.phase, Phase::Stopping(Why::LeaseOver));
            effects.push(Effect::WriteRecord { record: Box::new(record.clone()), reserved });
        }
    }

    /// Enters a phase: written down now, driven next.
    pub(crate) fn enter(&mut self, app: AppId, phase: Phase, now: Boottime, effects: &mut Vec<Effect>) {
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        record.phase = phase;
        self.write(app, effects);
        let live = self.live(app);
        live.step += 1;
        live.busy = false;
        live.claiming.clear();
        live.again_at = Some(now);
        live.docker_away = None;
        self.report_soon();
    }

    fn begin_step(&mut self, app: AppId, what: Step, effects: &mut Vec<Effect>) {
        let live = self.live(app);
        live.step += 1;
        live.busy = true;
        live.again_at = None;
        effects.push(Effect::Begin { app, step: live.step, what });
    }

    pub(crate) fn again_at(&mut self, app: AppId, at: Boottime) {
        let live = self.live(app);
        live.busy = false;
        live.again_at = Some(at);
    }

    /// Whether another machine has this one's identity: it starts nothing then.
    pub(crate) fn is_refused_copy(&self) -> bool {
        self.disk.identity.refused == Some(Refusal::Cloned) && keeps(Rule::CopyStartsNothing)
    }

    /// Whether the hive wants nothing more of this machine.
    pub(crate) fn is_revoked(&self) -> bool {
        self.disk.identity.refused == Some(Refusal::Revoked)
    }

    /// Begins the step of an app's phase, if it is time.
    pub(crate) fn drive(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        let live = self.live(app);
        if live.busy || live.again_at.is_none_or(|at| now < at) {
            return;
        }
        let (resumed, lease, heads) = (live.resumed, live.lease, live.heads.is_some());
        let Some(record) = self.disk.apps.get(&app) else { return };
        let volumes = || record.volumes.keys().copied().collect();
        let copy = self.is_refused_copy();
        match record.phase {
            Phase::Claiming | Phase::Mounting | Phase::Starting if copy => self.again_at(app, Boottime::MAX),
            Phase::Claiming => {
                let waits_until = self.run.began + WAIT_FOR_HIVE;
                let unheard = resumed && !self.run.answered && record.policy == Policy::Manual;
                if (unheard && now < waits_until) || !self.lease_is_fresh(app, now) {
                    self.again_at(app, now + LOOK_AGAIN);
                } else {
                    self.begin_step(app, Step::Look(volumes()), effects);
                }
            }
            Phase::Mounting if !self.lease_is_fresh(app, now) => self.again_at(app, now + LOOK_AGAIN),
            Phase::Mounting => {
                let lease = lease.filter(|_| record.policy == Policy::Auto && keeps(Rule::EndIsHandedOn));
                let rollback_to = record.rollback_to.clone();
                self.begin_step(app, Step::Mount { volumes: volumes(), rollback_to, lease }, effects);
            }
            Phase::Starting if !self.lease_is_left(app, now) => self.again_at(app, now + LOOK_AGAIN),
            Phase::Starting => self.begin_step(app, Step::StartContainers(record.term), effects),
            Phase::Stopping(why) => {
                let publish = matches!(why, Why::HandOver { .. });
                self.begin_step(app, Step::StopContainers { publish }, effects);
            }
            Phase::Flushing(why) => {
                let until = match why {
                    Why::Ordered | Why::HandOver { .. } => now + PUBLISH_WAIT,
                    Why::LeaseOver => lease.unwrap_or(now),
                    Why::Failed(_) => now + PUBLISH_FAILED,
                    Why::Fenced | Why::Again => now,
                };
                match heads || why == Why::Again {
                    true => self.begin_step(app, Step::Unmount, effects),
                    false => self.begin_step(app, Step::Publish(until), effects),
                }
            }
            Phase::Settling => self.begin_step(app, Step::Settle, effects),
            Phase::StandingBy | Phase::Running | Phase::Stopped(_) => self.live(app).again_at = None,
        }
    }

    pub(crate) fn wakes_for(&self, record: &Record) -> Option<Boottime> {
        let live = self.run.apps.get(&record.app)?;
        let again = live.again_at.filter(|_| !live.busy);
        let results = (record.is_open() && self.run.session.is_some()).then_some(live.results_at);
        let stop = record.leased().then(|| self.stops_at(record.app)).flatten();
        [again, results, stop].into_iter().flatten().min()
    }

    /// A step ended.
    pub(crate) fn done(
        &mut self,
        app: AppId,
        step: u64,
        done: Done,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        if self.live(app).step != step {
            return;
        }
        let Some(phase) = self.phase(app) else { return };
        match (phase, done) {
            (Phase::Claiming, Done::Looked(looks)) => self.looked(app, &looks, now, effects),
            (Phase::Claiming, Done::Claimed(volume, result)) => {
                self.claimed(app, volume, result, now, effects)
            }
            (Phase::Mounting, Done::Mounted(Ok(()))) => {
                if let Some(record) = self.disk.apps.get_mut(&app) {
                    // From here on the app writes, so nothing before it is gone back to any more.
                    if keeps(Rule::RollbackOnce) {
                        record.rollback_to.clear();
                    }
                    record.started = true;
                }
                self.enter(app, Phase::Starting, now, effects);
            }
            (Phase::Starting, Done::Up(Ok(()))) => {
                if let Some(record) = self.disk.apps.get_mut(&app) {
                    record.healthy = true;
                    let heads =
                        record.volumes.iter().filter_map(|(id, it)| it.cut.map(|cut| (*id, cut.head)));
                    let heads = heads.collect();
                    let start = |command: &Command| matches!(command.order, Order::Start(_));
                    if record.doing.as_ref().is_some_and(start) {
                        self.answer(app, Outcome::Done, Data { heads, ..Data::default() });
                    }
                }
                self.enter(app, Phase::Running, now, effects);
            }
            (Phase::Starting, Done::Up(Err(problem))) if self.waits_for_docker(app, problem, now) => {
                self.again_at(app, now + LOOK_AGAIN);
            }
            (Phase::Mounting, Done::Mounted(Err(problem))) | (Phase::Starting, Done::Up(Err(problem))) => {
                self.stop(app, Why::Failed(problem), now, effects);
            }
            (Phase::Stopping(why), Done::Stopped(Ok(()))) => {
                self.enter(app, Phase::Flushing(why), now, effects)
            }
            (Phase::Stopping(Why::HandOver { resume: true }), Done::Stopped(Err(problem))) => {
                self.answer(app, Outcome::Failed(problem), Data::default());
                self.enter(app, Phase::Stopping(Why::Again), now, effects);
            }
            // The end of a lease is kept by the volumes; there is nothing to do but to try again.
            (Phase::Stopping(_), Done::Stopped(Err(_))) => self.again_at(app, now + RETRY_AFTER),
            (Phase::Flushing(why), Done::Published { heads, state }) => {
                self.live(app).heads = Some(heads);
                match (why, state) {
                    (Why::Fenced, _) => self.again_at(app, now),
                    (_, Published::Fenced) => self.flush(app, Why::Fenced, now, effects),
                    (Why::HandOver { resume }, Published::Late) if keeps(Rule::PublishedFirst) => {
                        self.answer(app, Outcome::Failed(Problem::PublishLate), Data::default());
                        let then = if resume { Why::Again } else { Why::Failed(Problem::PublishLate) };
                        self.flush(app, then, now, effects);
                    }
                    _ => self.again_at(app, now),
                }
            }
            (Phase::Flushing(why), Done::Unmounted) => self.ended(app, why, now, effects),
            (Phase::Settling, Done::Settled(true)) => {
                if let Some(record) = self.disk.apps.get_mut(&app) {
                    record.ready = true;
                }
                self.enter(app, Phase::StandingBy, now, effects);
            }
            (Phase::Settling, Done::Settled(false)) => self.again_at(app, now + SETTLE_AGAIN),
            _ => {}
        }
    }

    /// Whether what failed says nothing of the app, since Docker was away: its step is done again, under lease for as long
    /// as nobody else could have started the app sooner.
    fn waits_for_docker(&mut self, app: AppId, problem: Problem, now: Boottime) -> bool {
        let is_leased = self.disk.apps.get(&app).is_some_and(Record::leased);
        let since = *self.live(app).docker_away.get_or_insert(now);
        is_of_docker(problem) && (!is_leased || now - since < DOCKER_WAIT)
    }

    /// Goes on flushing for another reason, with what is published already.
    fn flush(&mut self, app: AppId, why: Why, now: Boottime, effects: &mut Vec<Effect>) {
        let heads = self.live(app).heads.take();
        self.enter(app, Phase::Flushing(why), now, effects);
        self.live(app).heads = heads;
    }

    /// Stops an app.
    pub(crate) fn stop(&mut self, app: AppId, why: Why, now: Boottime, effects: &mut Vec<Effect>) {
        let first = match why {
            Why::HandOver { .. } | Why::Ordered if !keeps(Rule::ContainersStopFirst) => Phase::Flushing(why),
            _ => Phase::Stopping(why),
        };
        self.live(app).heads = None;
        self.enter(app, first, now, effects);
    }

    /// Nothing runs and nothing is mounted any more.
    fn ended(&mut self, app: AppId, why: Why, now: Boottime, effects: &mut Vec<Effect>) {
        let heads = self.live(app).heads.take().unwrap_or_default();
        let data = Data { heads, ..Data::default() };
        match why {
            Why::Again => {}
            Why::Ordered | Why::HandOver { .. } => self.answer(app, Outcome::Done, data),
            Why::LeaseOver => self.answer(app, Outcome::Failed(Problem::LeaseOver), data),
            Why::Fenced => self.answer(app, Outcome::Failed(Problem::Fenced), data),
            Why::Failed(problem) => self.answer(app, Outcome::Failed(problem), data),
        }
        let phase = match why {
            Why::Again => Phase::Claiming,
            Why::Fenced => Phase::Settling,
            _ => Phase::Stopped(why),
        };
        if why != Why::Again {
            self.live(app).lease = None;
        }
        self.enter(app, phase, now, effects);
    }

    /// The store has a later epoch.
    pub(crate) fn fenced(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        let Some(phase) = self.phase(app) else { return };
        let stops = matches!(phase, Phase::Stopping(Why::Fenced) | Phase::Flushing(Why::Fenced));
        // A claim of our own is under way.
        if !stops && phase.is_live() && phase != Phase::Claiming && keeps(Rule::FencedStops) {
            self.stop(app, Why::Fenced, now, effects);
        }
    }

    /// The hive wants nothing more of this machine: whatever an app is doing, or is about to do, it is stopped. Asked before
    /// each look at what is to be begun, so that nothing is claimed, mounted or started any more, whatever a process finds.
    pub(crate) fn leave(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        match self.phase(app) {
            Some(Phase::Stopping(Why::Fenced) | Phase::Flushing(Why::Fenced)) => {}
            Some(phase) if phase.is_live() => self.stop(app, Why::Fenced, now, effects),
            _ => {}
        }
    }

    /// The hive says that another device has a later term.
    pub(crate) fn overtaken(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        match self.phase(app) {
            Some(Phase::Stopped(_)) => self.enter(app, Phase::Settling, now, effects),
            Some(Phase::Stopping(Why::Fenced) | Phase::Flushing(Why::Fenced)) => self.write(app, effects),
            Some(phase) if phase.is_live() => self.stop(app, Why::Fenced, now, effects),
            _ => self.write(app, effects),
        }
    }

    /// What runs goes on from the beginning, in its term.
    pub(crate) fn again(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        if self.phase(app) == Some(Phase::Running) {
            self.stop(app, Why::Again, now, effects);
        }
    }

    /// A person at this machine stops an app: as the hive's `stop`, without a command to answer.
    pub(crate) fn stop_here(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        let ends = Why::Ordered;
        match self.phase(app) {
            Some(Phase::Stopping(why) | Phase::Flushing(why)) if why != Why::Again => {}
            Some(phase) if phase.is_live() => self.stop(app, ends, now, effects),
            _ => {}
        }
    }

    /// A mount, or a container, is gone.
    pub(crate) fn died(&mut self, app: AppId, what: Death, now: Boottime, effects: &mut Vec<Effect>) {
        let Some(record) = self.disk.apps.get(&app) else { return };
        let is_hit = match record.phase {
            Phase::Running => true,
            Phase::Starting => what == Death::Mount,
            _ => false,
        };
        if !is_hit {
            return;
        }
        // However often Docker ends, an app that nobody else may take goes on with it.
        let is_counted = what != Death::Docker || record.leased();
        let died = self.live(app).died.entry(what).or_default();
        died.retain(|at| now - at < DEATHS_WITHIN);
        died.push(now);
        let is_over = is_counted && died.len() > DEATHS_MAX;
        let why = if is_over { Why::Failed(what.problem()) } else { Why::Again };
        self.stop(app, why, now, effects);
    }

    /// A rule broken on purpose: what was given up is taken up again.
    pub(crate) fn run_again(&mut self, app: AppId, effects: &mut Vec<Effect>) {
        let now = self.run.reported;
        self.enter(app, Phase::Running, now, effects);
    }

    /// A process begins, and finds an app in a phase.
    pub(crate) fn resume(&mut self, app: AppId, found: &Found, now: Boottime, effects: &mut Vec<Effect>) {
        let Some(record) = self.disk.apps.get(&app) else { return };
        let (phase, leased, doing) = (record.phase, record.policy == Policy::Auto, record.doing.is_some());
        let mounted = found.mounted.get(&app).copied();
        let adopted = found.containers.get(&app) == Some(&record.term)
            && mounted.is_some_and(|lease| !leased || lease.is_some());
        let left = mounted.is_some() || found.containers.contains_key(&app);
        let live = self.live(app);
        live.resumed = true;
        live.lease = mounted.flatten().filter(|_| leased);
        live.until = doing.then_some(now + WAIT_FOR_STORE);
        live.again_at = Some(now);
        let next = match phase {
            Phase::Running if adopted => phase,
            Phase::Running if left => Phase::Stopping(Why::Again),
            Phase::Claiming | Phase::Mounting | Phase::Starting if left => Phase::Stopping(Why::Again),
            Phase::Running | Phase::Mounting | Phase::Starting => Phase::Claiming,
            Phase::Flushing(why) => Phase::Stopping(why),
            Phase::Stopped(_) if !keeps(Rule::StoppedStays) => Phase::Claiming,
            _ => phase,
        };
        if next != phase {
            self.enter(app, next, now, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use orchestrator_api::ids::{DeviceId, RunId, Term};

    use super::*;
    use crate::{Disk, Event, Identity, decide};

    const APP: AppId = AppId([1; 16]);
    const SECOND: u64 = 1_000;
    const HOUR: u64 = 3_600 * SECOND;

    /// A device with an app in a phase; a lease holds for long.
    fn device(policy: Policy, phase: Phase) -> Device {
        let (id, run) = (DeviceId([2; 16]), RunId([3; 16]));
        let mut device = Device::begin(id, Disk::default(), run, &Found::default(), 0).0;
        let record = Record { phase, policy, term: Term(1), mine: true, ..Record::new(APP) };
        device.disk.apps.insert(APP, record);
        let live = device.live(APP);
        (live.lease, live.again_at) = ((policy == Policy::Auto).then_some(10 * HOUR), Some(0));
        device
    }

    /// The number of the start of containers that is begun at a moment, if one is.
    fn start_begun(device: &mut Device, now: Boottime) -> Option<u64> {
        let effects = decide(device, Event::Tick, now);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Begin { step, what: Step::StartContainers(_), .. } => Some(step),
            _ => None,
        })
    }

    /// For how long starts are begun while each fails for this.
    fn tries_for(device: &mut Device, problem: Problem) -> u64 {
        let mut last = 0;
        for now in (0..HOUR).step_by(5_000) {
            let Some(step) = start_begun(device, now) else { break };
            decide(device, Event::Done { app: APP, step, done: Done::Up(Err(problem)) }, now + SECOND);
            last = now;
        }
        last
    }

    #[test]
    fn a_start_waits_for_docker_and_under_a_lease_not_for_ever() {
        for problem in [Problem::DockerStopped, Problem::DockerSlow] {
            let mut manual = device(Policy::Manual, Phase::Starting);
            assert_eq!(tries_for(&mut manual, problem), HOUR - 5_000);
            assert_eq!(manual.phase(APP), Some(Phase::Starting), "it goes on by itself");
            let step = start_begun(&mut manual, HOUR).expect("and is tried again");
            decide(&mut manual, Event::Done { app: APP, step, done: Done::Up(Ok(())) }, HOUR + SECOND);
            assert_eq!(manual.phase(APP), Some(Phase::Running));

            let mut auto = device(Policy::Auto, Phase::Starting);
            assert_eq!(tries_for(&mut auto, problem), DOCKER_WAIT, "from the first failure on");
            assert_eq!(auto.phase(APP), Some(Phase::Stopping(Why::Failed(problem))));
        }
        let mut manual = device(Policy::Manual, Phase::Starting);
        assert_eq!(tries_for(&mut manual, Problem::Exits), 0, "what is the app's own is not waited for");
        assert_eq!(manual.phase(APP), Some(Phase::Stopping(Why::Failed(Problem::Exits))));
    }

    #[test]
    fn a_stop_is_heard_while_docker_is_waited_for() {
        let mut device = device(Policy::Manual, Phase::Starting);
        tries_for(&mut device, Problem::DockerStopped);
        decide(&mut device, Event::StopHere(APP), HOUR);
        assert_eq!(device.phase(APP), Some(Phase::Stopping(Why::Ordered)));
    }

    /// What becomes of an app that runs again after each of these, all within ten minutes.
    fn after(policy: Policy, events: &[fn(AppId) -> Event]) -> Option<Phase> {
        let mut device = device(policy, Phase::Running);
        for (number, event) in (1..).zip(events) {
            device.enter(APP, Phase::Running, number * SECOND, &mut Vec::new());
            decide(&mut device, event(APP), number * SECOND);
        }
        device.phase(APP)
    }

    #[test]
    fn mounts_containers_and_docker_are_counted_apart_and_end_by_their_own_names() {
        let failed = |problem| Some(Phase::Stopping(Why::Failed(problem)));
        type Died = fn(AppId) -> Event;
        let [mount, gone, docker]: [Died; 3] =
            [Event::MountDied, Event::ContainersGone, Event::EndedWithDocker];
        let again = Some(Phase::Stopping(Why::Again));
        for policy in [Policy::Manual, Policy::Auto] {
            assert_eq!(after(policy, &[mount; 3]), again);
            assert_eq!(after(policy, &[mount; 4]), failed(Problem::MountDied));
            assert_eq!(after(policy, &[gone; 4]), failed(Problem::Exits), "no mount died");
            assert_eq!(after(policy, &[mount, gone, docker, mount, gone, docker, mount]), again);
        }
        assert_eq!(after(Policy::Auto, &[docker; 4]), failed(Problem::DockerStopped));
        assert_eq!(after(Policy::Manual, &[docker; 40]), again, "it goes on by itself");
    }

    #[test]
    fn what_died_long_ago_is_forgotten() {
        let mut device = device(Policy::Manual, Phase::Running);
        for number in 0..8 {
            let now = number * DEATHS_WITHIN / 3;
            device.enter(APP, Phase::Running, now, &mut Vec::new());
            decide(&mut device, Event::MountDied(APP), now);
            assert_eq!(device.phase(APP), Some(Phase::Stopping(Why::Again)), "death {number}");
        }
    }

    /// What a device begins from these effects on, while each step is done as it is asked for; and whether it stays so.
    fn begins(device: &mut Device, mut effects: Vec<Effect>, from: Boottime) -> Vec<Step> {
        let mut begun = Vec::new();
        for now in (from..from + 10 * WAIT_FOR_HIVE).step_by(1_000) {
            let last = |effects: Vec<Effect>| {
                effects.into_iter().rev().find_map(|effect| match effect {
                    Effect::Begin { step, what, .. } => Some((step, what)),
                    _ => None,
                })
            };
            while let Some((step, what)) = last(std::mem::take(&mut effects)) {
                let done = match &what {
                    Step::StopContainers { .. } => Done::Stopped(Ok(())),
                    Step::Publish(_) => Done::Published { heads: BTreeMap::new(), state: Published::Late },
                    Step::Unmount => Done::Unmounted,
                    // The store is away.
                    _ => Done::Settled(false),
                };
                begun.push(what);
                effects = decide(device, Event::Done { app: APP, step, done }, now);
            }
            effects = decide(device, Event::Tick, now);
        }
        begun
    }

    #[test]
    fn a_device_that_is_revoked_stops_whatever_it_finds_and_starts_nothing_any_more() {
        let whys = [
            Why::Again,
            Why::Ordered,
            Why::HandOver { resume: true },
            Why::LeaseOver,
            Why::Fenced,
            Why::Failed(Problem::MountDied),
        ];
        let mut phases = vec![Phase::Claiming, Phase::Mounting, Phase::Starting, Phase::Running];
        phases.extend(whys.iter().flat_map(|why| [Phase::Stopping(*why), Phase::Flushing(*why)]));
        phases.extend([Phase::StandingBy, Phase::Stopped(Why::Ordered), Phase::Settling]);
        let booted = Found { docker: true, ..Found::default() };
        let left = Found {
            mounted: [(APP, Some(10 * HOUR))].into(),
            containers: [(APP, Term(1))].into(),
            docker: true,
        };
        for (phase, policy) in phases.iter().flat_map(|it| [(*it, Policy::Manual), (*it, Policy::Auto)]) {
            for (found, is_known) in [(&booted, false), (&booted, true), (&left, false), (&left, true)] {
                // It is told at its first hello; or a process before this one was, and ended before it could stop anything.
                let refused = is_known.then_some(Refusal::Revoked);
                let record = Record { phase, policy, term: Term(1), mine: true, ..Record::new(APP) };
                let disk = Disk {
                    identity: Identity { refused, ..Identity::default() },
                    apps: [(APP, record)].into(),
                };
                let (id, run) = (DeviceId([2; 16]), RunId([3; 16]));
                let (mut device, mut effects) = Device::begin(id, disk, run, found, 0);
                if !is_known {
                    let hello = device.disk.identity.hello;
                    effects.extend(decide(
                        &mut device,
                        Event::Welcome(Err((hello, Refusal::Revoked))),
                        1_000,
                    ));
                }
                let what = format!("{phase:?} of {policy:?}, {found:?}, known before: {is_known}");
                let begun = begins(&mut device, effects, 1_000);
                let starts = |step: &Step| {
                    !matches!(
                        step,
                        Step::StopContainers { publish: false }
                            | Step::Publish(_)
                            | Step::Unmount
                            | Step::Settle
                    )
                };
                assert!(!begun.iter().any(starts), "{what}: {begun:?}");
                let stops = begun.contains(&Step::StopContainers { publish: false });
                assert_eq!(
                    (stops, begun.contains(&Step::Unmount)),
                    (phase.is_live(), phase.is_live()),
                    "{what}"
                );
                let ended = device.phase(APP).expect("its record stays");
                assert!(!ended.is_live(), "{what}: {ended:?}");
                assert_eq!(ended == Phase::Settling, phase.is_live() || phase == Phase::Settling, "{what}");
            }
        }
    }
}
