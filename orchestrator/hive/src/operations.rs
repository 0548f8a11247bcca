//! What a hive does in steps: `failover.md`, section 7.
//!
//! A step waits for one thing: devices that report (`Check`), the answer of one command, or the end of a lease. What
//! follows it is decided where that comes: [`Hive::check`], [`Hive::answered`], [`Hive::late`], [`Hive::end`].

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, CommandResult, Order, Outcome, Start, Verb};
use orchestrator_api::ids::{AppId, DeviceId, OperationId, Renewals, Term, VolumeId};
use orchestrator_api::placement::{Expect, Head, Phase, Policy, Problem, Why};
use orchestrator_api::times::{
    HAND_OVER_WAIT, PREPARE_WAIT, PREPARE_WAIT_FAILOVER, START_WAIT, TAKE_BACK_WAIT,
};

use crate::Seen;
use crate::rules::{Rule, keeps};
use crate::state::{
    App, DeviceState, Given, Hive, Kind, Operation, OperationState, Placement, Refused, Step,
};

/// What a person wishes of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The app.
    pub app: AppId,
    /// What is done.
    pub kind: Kind,
    /// Where it is to run, where the kind needs that.
    pub to: Option<DeviceId>,
}

/// An operation began.
pub type Accepted = OperationId;

impl Step {
    /// After which the step is late, in milliseconds of the scheduler's clock; of an app that may take so long to get healthy.
    pub fn wait(self, gate_ms: u64) -> Option<u64> {
        match self {
            Step::Prepare => Some(PREPARE_WAIT),
            Step::HandOver => Some(HAND_OVER_WAIT),
            Step::Start => Some(START_WAIT + gate_ms),
            Step::TakeBack => Some(TAKE_BACK_WAIT),
            Step::Check | Step::WaitLease | Step::Return | Step::Stop | Step::Settings | Step::Task => None,
        }
    }
}

impl Operation {
    /// After which its step is late.
    pub fn wait(&self, gate_ms: u64) -> Option<u64> {
        match (self.kind, self.step) {
            // Nobody has the app meanwhile, and somebody else may be able to.
            (Kind::Failover, Step::Prepare) => Some(PREPARE_WAIT_FAILOVER),
            (_, step) => step.wait(gate_ms),
        }
    }
}

/// What a start command says of the heads.
enum Heads {
    /// They are those that were handed over.
    HandedOver,
    /// They may have gone on.
    Since,
}

impl Hive {
    /// A person's wish: refused, or the beginning of an operation.
    pub(crate) fn ordered(&mut self, id: OperationId, wish: &Wish) -> Result<Accepted, Refused> {
        if self.recovering {
            return Err(Refused::Recovering);
        }
        let app = self.apps.get_mut(&wish.app).ok_or(Refused::NotFound)?;
        let (from, policy) = (app.placement.device, app.policy);
        if let Some(running) = self.running(wish.app) {
            match wish.kind {
                // Whoever waits for a lost device need not wait for ever.
                Kind::Force { .. } => self.close(running, OperationState::Failed(Refused::Forced)),
                _ => return Err(Refused::OperationRunning),
            }
        }
        if let Some(to) = wish.to {
            let may = self.apps.get(&wish.app).is_some_and(|app| app.devices.contains(&to));
            let device = self.devices.get(&to).ok_or(Refused::NotFound)?;
            match (may, device.state) {
                (false, _) => return Err(Refused::DeviceNotAuthorized),
                (_, DeviceState::Active) => {}
                _ => return Err(Refused::DeviceClosed),
            }
            if from != Some(to) && self.apps.get(&wish.app).is_some_and(App::is_hidden) {
                return Err(Refused::VolumesUnknown);
            }
        }
        let operation = Operation {
            app: wish.app,
            kind: wish.kind,
            step: Step::Check,
            count: 0,
            waits: None,
            from,
            to: wish.to,
            heads: None,
            rollback_to: BTreeMap::new(),
            tried: BTreeSet::new(),
            reason: None,
            state: OperationState::Running,
        };
        self.operations.insert(id, operation);
        match wish.kind {
            Kind::Stop => self.begin_stop(id, wish.app, from),
            Kind::Settings(to) => self.begin_settings(id, wish.app, from, policy, to),
            _ => {}
        }
        Ok(id)
    }

    fn begin_stop(&mut self, id: OperationId, app: AppId, device: Option<DeviceId>) {
        self.next_generation(app);
        let live = self.phase(app).is_none_or(Phase::is_live);
        if let Some(row) = self.apps.get_mut(&app) {
            row.wanted = false;
            row.problem = None;
        }
        match device {
            Some(device) if live => self.command(id, device, Step::Stop, Order::Stop),
            _ => self.close(id, OperationState::Done),
        }
    }

    fn begin_settings(
        &mut self,
        id: OperationId,
        app: AppId,
        device: Option<DeviceId>,
        before: Policy,
        to: Policy,
    ) {
        self.next_generation(app);
        let live = self.phase(app).is_none_or(Phase::is_live);
        let placed = device;
        let device = device.filter(|_| live && before != to);
        // The hive never watches what has no end of its own: a term that nobody runs stays as it was.
        match (to, device) {
            // Of a term whose device was revoked nobody takes the lease off.
            (Policy::Manual, _) => self.set_policy(app, to, placed.map(|_| false)),
            (Policy::Auto, None) => self.set_policy(app, to, None),
            (Policy::Auto, Some(_)) if !keeps(Rule::PolicyInOrder) => self.set_policy(app, to, Some(true)),
            (Policy::Auto, Some(_)) => {}
        }
        match device {
            Some(device) => self.command(id, device, Step::Settings, Order::Settings(to)),
            None => self.close(id, OperationState::Done),
        }
    }

    fn set_policy(&mut self, app: AppId, policy: Policy, leased: Option<bool>) {
        if let Some(app) = self.apps.get_mut(&app) {
            app.policy = policy;
            app.placement.leased = leased.unwrap_or(app.placement.leased);
        }
    }

    fn next_generation(&mut self, app: AppId) {
        let floor = self.floor;
        if let Some(app) = self.apps.get_mut(&app) {
            app.generation = app.generation.next_above(floor);
        }
    }

    /// Which devices report is known: refuses, or begins the first step that changes something.
    pub(crate) fn check(&mut self, id: OperationId, fresh: &BTreeSet<DeviceId>) {
        let Some(operation) = self.operations.get(&id).filter(|it| it.is_at(Step::Check)).cloned() else {
            return;
        };
        let Some(app) = self.apps.get(&operation.app) else { return };
        let is_fresh = |device: Option<DeviceId>| device.is_some_and(|device| fresh.contains(&device));
        let phase = self.phase(operation.app);
        let live = phase.is_some_and(Phase::is_live);
        let placed = app.placement.device;
        let to = operation.to.or(placed);
        let refused = match operation.kind {
            Kind::Start if live || (placed.is_some() && placed != to) => Some(Refused::State),
            Kind::Start if !is_fresh(to) => Some(Refused::DeviceSilent),
            Kind::Move if !is_fresh(placed) || !is_fresh(to) => Some(Refused::DeviceSilent),
            // What does not run has nothing to hand over.
            Kind::Move if placed == to || phase != Some(Phase::Running) => Some(Refused::State),
            // What does not run there may begin there, also over a head that nobody expected.
            Kind::Force { .. } if placed == to && phase.is_none_or(Phase::is_live) => Some(Refused::State),
            Kind::Force { .. } if !is_fresh(to) => Some(Refused::DeviceSilent),
            Kind::Force { even_if_online: false } if placed != to && is_fresh(placed) => {
                Some(Refused::DeviceOnline)
            }
            _ => None,
        };
        match (refused, operation.kind, to) {
            (Some(refused), ..) => self.close(id, OperationState::Failed(refused)),
            (None, Kind::Failover, _) => self.choose(id, fresh),
            (None, _, Some(to)) => {
                self.edit(id, |operation| operation.to = Some(to));
                self.prepare(id, to);
            }
            (None, _, None) => self.close(id, OperationState::Failed(Refused::State)),
        }
    }

    fn prepare(&mut self, id: OperationId, to: DeviceId) {
        let Some(app) = self.operations.get(&id).and_then(|it| self.apps.get(&it.app)) else { return };
        let volumes = app.volumes.keys().copied().collect();
        self.command(id, to, Step::Prepare, Order::Prepare { volumes });
    }

    /// A device answered a command of the operation: the one that it waits for, or one of before.
    pub(crate) fn answered(&mut self, id: OperationId, device: DeviceId, result: &CommandResult) {
        let Some(operation) = self.operations.get(&id).cloned() else { return };
        let waits = operation.waits == Some((device, result.number));
        let awaited = waits && operation.state == OperationState::Running;
        self.learn(operation.app, device, result, awaited);
        if !awaited {
            return;
        }
        let problem = match result.outcome {
            Outcome::Done => None,
            Outcome::Failed(problem) => Some(Refused::Problem(problem)),
            Outcome::Obsolete => Some(Refused::Problem(Problem::TermOver)),
        };
        if matches!(operation.step, Step::Start | Step::Return)
            && problem.is_none()
            && let Some(app) = self.apps.get_mut(&operation.app)
        {
            // It went back before it was started.
            app.volumes.values_mut().for_each(|known| known.rollback = None);
        }
        match (operation.step, problem) {
            (Step::Prepare, None) => self.prepared(id, &operation),
            (Step::Prepare, Some(_)) if operation.kind == Kind::Failover => self.choose_again(id, device),
            (Step::HandOver, None) => {
                self.edit(id, |operation| operation.heads = Some(result.data.heads.clone()));
                if let Some(to) = operation.to {
                    self.grant(id, to, Step::Start, &Heads::HandedOver);
                }
            }
            (Step::Start, None) => self.close(id, OperationState::Done),
            (Step::Start, Some(_)) if operation.kind == Kind::Failover => self.choose_again(id, device),
            (Step::Start, Some(problem)) if operation.kind == Kind::Move && keeps(Rule::WayBack) => {
                self.edit(id, |operation| operation.reason = Some(problem));
                self.command(id, device, Step::TakeBack, Order::HandOver);
            }
            (Step::TakeBack, None) => {
                let source = operation.heads.clone().unwrap_or_default();
                let mut heads = source.clone();
                heads.extend(result.data.heads.clone());
                // What was written while the app was not healthy stays in the past.
                let spoiled = result.data.started && !result.data.healthy;
                self.edit(id, |operation| {
                    operation.heads = Some(heads);
                    operation.rollback_to = if spoiled { source } else { BTreeMap::new() };
                });
                self.way_back(id, &Heads::HandedOver);
            }
            (Step::TakeBack, Some(_)) => self.not_taken_back(id),
            (Step::Return, None) => {
                let reason = operation.reason.unwrap_or(Refused::Problem(Problem::Late));
                self.close(id, OperationState::Failed(reason));
            }
            (Step::Settings, None) => {
                if let Kind::Settings(policy) = operation.kind {
                    self.set_policy(operation.app, policy, Some(policy == Policy::Auto));
                }
                self.close(id, OperationState::Done);
            }
            (Step::Stop, None) => self.close(id, OperationState::Done),
            (_, Some(problem)) => {
                if matches!(operation.step, Step::Start | Step::Return)
                    && let Some(app) = self.apps.get_mut(&operation.app)
                {
                    app.problem = Some(problem);
                }
                self.close(id, OperationState::Failed(problem));
            }
            (Step::Check | Step::WaitLease | Step::Task, None) => {}
        }
    }

    /// What a result says of the heads in the store, also one that no operation waits for any more.
    fn learn(&mut self, app: AppId, device: DeviceId, result: &CommandResult, awaited: bool) {
        let Some(writers) = self.devices.get(&device).map(|device| device.writers.clone()) else { return };
        let Some(app) = self.apps.get_mut(&app) else { return };
        // Who was slow to claim in a term of before has a later epoch than the one that it fenced.
        let slow = !awaited || result.outcome == Outcome::Failed(Problem::Fenced);
        for (volume, head) in &result.data.heads {
            let Some(known) = app.volumes.get_mut(volume) else { continue };
            // A report may have told of the epoch before.
            let again = head.epoch == known.epoch && result.data.started && keeps(Rule::EpochEndsOthers);
            let ours = head.epoch > known.epoch || again;
            known.raise(head);
            if ours && slow && keeps(Rule::SlowEndsNobody) {
                known.writers.extend(writers.get(volume));
            } else if ours {
                // Whoever had a term before is fenced by this epoch.
                known.writers = writers.get(volume).copied().into_iter().collect();
            }
        }
    }

    /// The target stands by.
    fn prepared(&mut self, id: OperationId, operation: &Operation) {
        let leased = self.apps.get(&operation.app).is_some_and(|app| app.placement.leased);
        let live = self.phase(operation.app).is_none_or(Phase::is_live);
        let Some(to) = operation.to else { return };
        match operation.kind {
            Kind::Move => match operation.from {
                Some(from) => self.command(id, from, Step::HandOver, Order::HandOver),
                None => self.close(id, OperationState::Failed(Refused::State)),
            },
            // Who had it may have its lease still: lost, or revoked.
            Kind::Force { .. } | Kind::Start if leased && live && operation.from != Some(to) => {
                self.wait_for_lease(id);
            }
            _ => self.grant(id, to, Step::Start, &Heads::Since),
        }
    }

    /// The present term is not renewed any more, so it ends.
    fn wait_for_lease(&mut self, id: OperationId) {
        self.withdraw(id);
        self.edit(id, |operation| {
            operation.waits = None;
            operation.step = Step::WaitLease;
            operation.count += 1;
        });
    }

    /// The present term is not renewed any more, while the operation runs.
    fn withdraw(&mut self, id: OperationId) {
        let app = self.operations.get(&id).map(|operation| operation.app);
        if let Some(app) = app.and_then(|app| self.apps.get_mut(&app)) {
            app.placement.withdrawn = true;
        }
    }

    /// The target did not let go.
    fn not_taken_back(&mut self, id: OperationId) {
        let leased = |operation: &Operation| self.apps.get(&operation.app).map(|app| app.placement.leased);
        let Some(leased) = self.operations.get(&id).and_then(leased) else { return };
        self.edit(id, |operation| {
            operation.heads = None;
            operation.to = operation.from;
        });
        match leased {
            true => self.wait_for_lease(id),
            false => self.way_back(id, &Heads::Since),
        }
    }

    fn way_back(&mut self, id: OperationId, heads: &Heads) {
        match self.operations.get(&id).and_then(|operation| operation.from) {
            Some(from) => self.grant(id, from, Step::Return, heads),
            None => self.close(id, OperationState::Failed(Refused::State)),
        }
    }

    /// Gives the next term to a device: placement, generation, command and step at once.
    fn grant(&mut self, id: OperationId, to: DeviceId, step: Step, heads: &Heads) {
        let Some(operation) = self.operations.get(&id).cloned() else { return };
        let floor = self.floor;
        let Some(device) = self.devices.get(&to) else { return };
        let Some(app) = self.apps.get_mut(&operation.app) else { return };
        let handed_over = operation.heads.filter(|_| matches!(heads, Heads::HandedOver)).unwrap_or_default();
        let expect = |(volume, known): (&VolumeId, &crate::state::Known)| {
            let exactly = handed_over.get(volume).copied().map(Expect::Exactly);
            (*volume, exactly.unwrap_or_else(|| known.since()))
        };
        let volumes = app.volumes.iter().map(expect).collect();
        if keeps(Rule::WritersAreKept) {
            for (volume, known) in &mut app.volumes {
                known.writers.extend(device.writers.get(volume));
            }
        }
        app.placement = Placement {
            device: Some(to),
            term: app.placement.term.next_above(floor),
            leased: app.policy == Policy::Auto,
            renewed: Some(device.renewals),
            withdrawn: false,
            forgotten: false,
        };
        app.generation = app.generation.next_above(floor);
        app.wanted = true;
        app.problem = None;
        let rollback_to: BTreeMap<VolumeId, Head> = operation.rollback_to;
        // Should it fail there, before or after some volumes went back, the next start goes back as well.
        for (volume, head) in &rollback_to {
            if let Some(known) = app.volumes.get_mut(volume) {
                known.rollback = Some(head.seq.0.to_string());
            }
        }
        let start = Start { policy: app.policy, volumes, rollback_to };
        self.command(id, to, step, Order::Start(start));
    }

    /// Writes a step down, with the command that it waits for.
    fn command(&mut self, id: OperationId, to: DeviceId, step: Step, order: Order) {
        let floor = self.floor;
        let Some(operation) = self.operations.get_mut(&id) else { return };
        let Some(device) = self.devices.get_mut(&to) else { return };
        let Some(app) = self.apps.get(&operation.app) else { return };
        device.command = device.command.next_above(floor);
        let command = Command {
            number: device.command,
            operation: id,
            app: operation.app,
            term: app.placement.term,
            generation: app.generation,
            order,
        };
        operation.step = step;
        operation.count += 1;
        operation.waits = Some((to, command.number));
        let forgotten = !keeps(Rule::StepWithCommand) && command.order.verb() == Verb::HandOver;
        if !forgotten {
            self.commands.insert((to, command.number), Given { command, result: None });
        }
    }

    /// The step did not end in time.
    pub(crate) fn late(&mut self, id: OperationId, count: u64) {
        let Some(operation) = self.operations.get(&id).cloned() else { return };
        if operation.count != count || operation.state != OperationState::Running {
            return;
        }
        let leased = self.apps.get(&operation.app).is_some_and(|app| app.placement.leased);
        let late = Refused::Problem(Problem::Late);
        match operation.step {
            Step::Prepare if operation.kind == Kind::Failover => {
                if let Some(to) = operation.to {
                    self.choose_again(id, to);
                }
            }
            // Nothing has happened.
            Step::Prepare => self.close(id, OperationState::Failed(late)),
            // A lease that ends says more than a command that is not answered.
            Step::HandOver if !leased => {
                self.edit(id, |operation| operation.reason = Some(late));
                match (keeps(Rule::GrantAfterRelease), operation.to) {
                    (false, Some(to)) => self.grant(id, to, Step::Start, &Heads::Since),
                    _ => self.way_back(id, &Heads::Since),
                }
            }
            Step::Start if operation.kind == Kind::Move && keeps(Rule::WayBack) => {
                self.edit(id, |operation| operation.reason = Some(late));
                if let Some(to) = operation.to {
                    self.command(id, to, Step::TakeBack, Order::HandOver);
                }
            }
            Step::TakeBack => self.not_taken_back(id),
            _ => {}
        }
    }

    /// A person wants a planned move back.
    ///
    /// While it hands over nobody but the source has the app, under a lease, too: so it gets the next term at once. If it is
    /// lost, its watch ends that one.
    pub(crate) fn back(&mut self, id: OperationId, count: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let is_running = operation.state == OperationState::Running && operation.count == count;
        match operation.step {
            Step::HandOver if is_running => {
                self.edit(id, |operation| operation.reason = Some(Refused::State));
                self.way_back(id, &Heads::Since);
            }
            _ => self.late(id, count),
        }
    }

    /// A device that the step needs is silent.
    pub(crate) fn silent(&mut self, id: OperationId, count: u64, device: DeviceId, heard: Renewals) {
        let Some(operation) = self.operations.get(&id).cloned() else { return };
        let is_there = self.devices.get(&device).is_none_or(|device| device.renewals != heard);
        if operation.count != count || operation.state != OperationState::Running || is_there {
            return;
        }
        let leased = self.apps.get(&operation.app).is_some_and(|app| app.placement.leased);
        // Of the source of an app under a lease the watch alone says what is over.
        let watched = leased && operation.from == Some(device) && operation.to != Some(device);
        match operation.step {
            Step::Prepare if operation.kind == Kind::Failover => self.choose_again(id, device),
            Step::Prepare | Step::HandOver if watched => {}
            // Nothing has happened, or nothing was given away: what was asked is not asked any more.
            Step::Prepare | Step::HandOver => {
                self.commands.retain(|_, given| given.command.operation != id || given.result.is_some());
                self.close(id, OperationState::Failed(Refused::DeviceSilent));
            }
            Step::Start => {
                self.late(id, count);
                self.edit(id, |operation| operation.reason = Some(Refused::DeviceSilent));
            }
            Step::TakeBack => self.late(id, count),
            _ => {}
        }
    }

    /// An app has no place any more, and is not wanted until somebody starts it; nobody waits for what its device was to do.
    ///
    /// The lease that its device may have stays with the term: who gets the app next waits for the end of it.
    pub(crate) fn given_up(&mut self, id: AppId, problem: Option<Refused>) {
        while let Some(running) = self.running(id) {
            self.close(running, OperationState::Failed(Refused::DeviceRevoked));
        }
        let over = self.has_ended(id);
        self.next_generation(id);
        let Some(app) = self.apps.get_mut(&id) else { return };
        app.wanted = false;
        app.problem = problem.or(app.problem);
        let placement = &mut app.placement;
        placement.leased &= !over;
        (placement.device, placement.forgotten) = (None, false);
    }

    /// A term is over: its device said so, or its watch did.
    pub(crate) fn end(
        &mut self,
        app_id: AppId,
        term: Term,
        seen: Seen,
        fresh: &BTreeSet<DeviceId>,
        new: OperationId,
    ) {
        let Some(app) = self.apps.get(&app_id) else { return };
        let phase = self.phase(app_id);
        let still = match seen {
            Seen::Silence(renewal) => {
                let same = self.last_renewal(&app.placement) == renewal || !keeps(Rule::EndCompares);
                app.placement.leased && same
            }
            Seen::Stopped => self.has_ended(app_id),
        };
        let (wanted, policy, placed) = (app.wanted, app.policy, app.placement.device);
        let running = self.running(app_id);
        let operation = running.and_then(|id| self.operations.get(&id).cloned().map(|it| (id, it)));
        // A term without a place has nothing but the end of its lease, for who waits for that.
        let waited = operation.as_ref().is_some_and(|(_, it)| it.step == Step::WaitLease);
        if app.placement.term != term || !(placed.is_some() || waited) || !still || self.recovering {
            return;
        }
        match operation {
            Some((id, operation)) if operation.step == Step::WaitLease => match operation.to {
                Some(to) if operation.kind == Kind::Move => self.grant(id, to, Step::Return, &Heads::Since),
                Some(to) => self.grant(id, to, Step::Start, &Heads::Since),
                None => self.close(id, OperationState::Failed(Refused::State)),
            },
            Some(_) if matches!(seen, Seen::Stopped) => {}
            // Of what is not wanted nothing is given on, so what is done with it is not disturbed.
            Some((_, operation)) if operation.kind == Kind::Task && !wanted => {}
            Some((id, operation)) if operation.kind == Kind::Failover => {
                if let (Step::Start, Some(to)) = (operation.step, operation.to) {
                    self.edit(id, |operation| {
                        operation.tried.insert(to);
                    });
                    self.choose(id, fresh);
                }
            }
            Some((id, operation)) => {
                self.close(id, OperationState::Failed(Refused::LeaseOver));
                let target = operation.to.filter(|_| operation.kind == Kind::Move);
                if self.apps.get(&app_id).is_some_and(|app| app.wanted) {
                    self.begin_failover(new, app_id, target, fresh);
                }
            }
            None if !wanted => {}
            None => {
                // What a person must look at is not tried again and again where only one device may have it.
                let failed = matches!(phase, Some(Phase::Stopped(Why::Failed(_))));
                match policy {
                    Policy::Manual if failed => {}
                    Policy::Manual => self.begin_failover(new, app_id, placed, fresh),
                    Policy::Auto => self.begin_failover(new, app_id, None, fresh),
                }
            }
        }
    }

    fn begin_failover(
        &mut self,
        id: OperationId,
        app: AppId,
        first: Option<DeviceId>,
        fresh: &BTreeSet<DeviceId>,
    ) {
        let from = self.apps.get(&app).and_then(|app| app.placement.device);
        let operation = Operation {
            app,
            kind: Kind::Failover,
            step: Step::Check,
            count: 0,
            waits: None,
            from,
            to: first,
            heads: None,
            rollback_to: BTreeMap::new(),
            tried: BTreeSet::new(),
            reason: None,
            state: OperationState::Running,
        };
        self.operations.insert(id, operation);
        self.choose(id, fresh);
    }

    /// A candidate failed; the next look has another.
    fn choose_again(&mut self, id: OperationId, failed: DeviceId) {
        self.edit(id, |operation| {
            operation.tried.insert(failed);
            operation.waits = None;
            operation.step = Step::Check;
            operation.count += 1;
        });
    }

    /// Gives the term of an app that ended to a device that can take it.
    ///
    /// Without one it ends nobody's term: who returns goes on.
    fn choose(&mut self, id: OperationId, fresh: &BTreeSet<DeviceId>) {
        let Some(operation) = self.operations.get(&id) else { return };
        let Some(app) = self.apps.get(&operation.app) else { return };
        let may = |device: &DeviceId| {
            let alone = app.policy == Policy::Manual || app.is_hidden();
            let bound = alone && app.placement.device != Some(*device);
            let open =
                self.devices.get(device).is_some_and(|row| row.state == DeviceState::Active && row.docker);
            !bound && open && fresh.contains(device) && !operation.tried.contains(device)
        };
        let failed = matches!(self.phase(operation.app), Some(Phase::Stopped(Why::Failed(_))));
        let knows =
            |row: &crate::state::Device| app.volumes.keys().all(|volume| row.writers.contains_key(volume));
        // First who is named, then who had it and did not fail, then who stands by, then the others.
        let rank = |device: &DeviceId| {
            let row = self.devices.get(device);
            let has = row.is_some_and(|row| row.apps.contains_key(&operation.app) && knows(row));
            let had = app.placement.device == Some(*device);
            (operation.to != Some(*device), had && failed, !had, !has)
        };
        let Some(to) = app.devices.iter().copied().filter(may).min_by_key(rank) else {
            let refused = if app.is_hidden() { Refused::VolumesUnknown } else { Refused::NoCandidate };
            let app = operation.app;
            self.close(id, OperationState::Failed(refused));
            if let Some(app) = self.apps.get_mut(&app) {
                app.problem = Some(refused);
            }
            return;
        };
        let known = self.devices.get(&to).is_some_and(knows);
        self.edit(id, |operation| operation.to = Some(to));
        match known {
            true => self.grant(id, to, Step::Start, &Heads::Since),
            false => {
                // What is over stays over while somebody is prepared for it.
                self.withdraw(id);
                self.prepare(id, to);
            }
        }
    }

    fn close(&mut self, id: OperationId, state: OperationState) {
        self.edit(id, |operation| {
            operation.state = state;
            operation.waits = None;
        });
        let app = self.operations.get(&id).map(|operation| operation.app);
        if let Some(app) = app.and_then(|app| self.apps.get_mut(&app)) {
            app.placement.withdrawn = false;
        }
    }

    fn edit(&mut self, id: OperationId, change: impl FnOnce(&mut Operation)) {
        if let Some(operation) = self.operations.get_mut(&id) {
            change(operation);
        }
    }
}

impl Operation {
    fn is_at(&self, step: Step) -> bool {
        self.step == step && self.state == OperationState::Running
    }
}
