//! What the hive orders, and the results: `api.md`, section 6.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, CommandResult, Data, Order, Outcome, Start};
use orchestrator_api::ids::{AppId, CommandNumber, SessionId, VolumeId, Writer};
use orchestrator_api::placement::{Phase, Policy, Problem, Why};
use orchestrator_api::report::Refusal;
use orchestrator_api::times::{RETRY_AFTER, WAIT_FOR_STORE};

use crate::record::{Record, VolumeRecord};
use crate::rules::{Rule, keeps};
use crate::{Boottime, Device, Effect};

impl Device {
    pub(crate) fn commands(
        &mut self,
        session: SessionId,
        answer: Result<Vec<Command>, Refusal>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        let Some(commands) = self.in_session(session, answer, now) else { return };
        for command in commands {
            self.run.have = self.run.have.max(command.number);
            self.command(command, now, effects);
        }
    }

    fn command(&mut self, command: Command, now: Boottime, effects: &mut Vec<Effect>) {
        let app = command.app;
        let live = self.live(app);
        (live.results_at, live.forgotten) = (now, false);
        let preparing = live.preparing.is_some();
        let record = self.disk.apps.entry(app).or_insert_with(|| Record::new(app));
        let known = record
            .results
            .iter_mut()
            .find(|kept| kept.operation == command.operation && kept.verb == command.order.verb());
        if let Some(kept) = known {
            kept.result.number = command.number;
            kept.acknowledged = false;
            return;
        }
        if command.number <= record.command {
            return;
        }
        let refused = match &command.order {
            Order::Prepare { .. } => None,
            Order::Start(_) => (command.term <= record.term).then_some(Problem::TermOver),
            // A device that forgot the term stops what it has all the same.
            Order::Stop if command.term > record.term => None,
            _ => (command.term != record.term || !record.mine).then_some(Problem::TermOver),
        };
        if let Some(problem) = refused.filter(|_| keeps(Rule::OldTermsAreRefused)) {
            return self.refuse(&command, problem, effects);
        }
        record.generation = record.generation.max(command.generation);
        match command.order.clone() {
            Order::Prepare { volumes } => {
                if !preparing {
                    self.live(app).preparing = Some(command);
                    effects.push(Effect::Prepare { app, volumes });
                }
            }
            Order::Start(start) => self.start(command, start, now, effects),
            Order::Stop => self.end_by_order(command, Why::Ordered, now, effects),
            Order::HandOver => {
                let resume = matches!(record.phase, Phase::Running | Phase::Starting);
                let again = matches!(record.phase, Phase::Stopping(Why::Again) | Phase::Flushing(Why::Again));
                self.end_by_order(command, Why::HandOver { resume: resume || again }, now, effects);
            }
            Order::Settings(policy) => self.settings(command, policy, effects),
        }
    }

    fn start(&mut self, command: Command, start: Start, now: Boottime, effects: &mut Vec<Effect>) {
        let app = command.app;
        self.supersede(app);
        let live = self.live(app);
        live.lease = None;
        live.resumed = false;
        live.rivals = 0;
        live.until = Some(now + WAIT_FOR_STORE);
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        record.term = command.term;
        record.mine = true;
        record.policy = start.policy;
        record.volumes = start
            .volumes
            .into_iter()
            .map(|(volume, expect)| (volume, VolumeRecord { expect, cut: None }))
            .collect();
        record.rollback_to = start.rollback_to;
        record.started = false;
        record.healthy = false;
        record.command = command.number;
        record.doing = Some(command);
        // What runs in an older term is stopped first; it may not be what is to run now.
        let phase = if record.phase.is_live() { Phase::Stopping(Why::Again) } else { Phase::Claiming };
        self.enter(app, phase, now, effects);
        // The first lease of a term is asked for at once.
        self.run.report_at = now;
    }

    /// `stop` and `hand_over`.
    fn end_by_order(&mut self, command: Command, why: Why, now: Boottime, effects: &mut Vec<Effect>) {
        let app = command.app;
        let Some(phase) = self.phase(app) else { return };
        if matches!(phase, Phase::Settling | Phase::StandingBy) && matches!(why, Why::HandOver { .. }) {
            return self.refuse(&command, Problem::Fenced, effects);
        }
        self.supersede(app);
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        record.command = command.number;
        record.doing = Some(command);
        match phase {
            Phase::Stopping(Why::LeaseOver | Why::Fenced) | Phase::Flushing(Why::LeaseOver | Why::Fenced) => {
                self.write(app, effects);
            }
            _ if phase.is_live() => self.stop(app, why, now, effects),
            // What was not published in time may be now.
            Phase::Stopped(_) if matches!(why, Why::HandOver { .. }) => {
                self.enter(app, Phase::Flushing(why), now, effects);
            }
            _ => {
                self.answer(app, Outcome::Done, Data::default());
                self.write(app, effects);
            }
        }
    }

    fn settings(&mut self, command: Command, policy: Policy, effects: &mut Vec<Effect>) {
        let app = command.app;
        if !self.disk.apps.get(&app).is_some_and(Record::renews) {
            return self.refuse(&command, Problem::State, effects);
        }
        self.supersede(app);
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        record.command = command.number;
        record.doing = Some(command);
        let before = std::mem::replace(&mut record.policy, policy);
        match policy {
            // Answered when there is a lease.
            Policy::Auto if before == Policy::Manual || self.live(app).lease.is_none() => {
                self.write(app, effects);
                self.run.report_at = self.run.reported;
            }
            Policy::Auto => {
                self.answer(app, Outcome::Done, Data::default());
                self.write(app, effects);
            }
            Policy::Manual => {
                self.answer(app, Outcome::Done, Data::default());
                self.write(app, effects);
                self.live(app).lease = None;
                effects.push(Effect::Lease { app, end: None });
            }
        }
    }

    /// An app that changed its policy has its lease, and its mounts know the end.
    pub(crate) fn settings_done(&mut self, app: AppId, effects: &mut Vec<Effect>) {
        if self.disk.apps.get(&app).is_some_and(Record::changes_policy) {
            self.answer(app, Outcome::Done, Data::default());
            self.write(app, effects);
        }
    }

    pub(crate) fn prepared(
        &mut self,
        app: AppId,
        writers: Result<BTreeMap<VolumeId, Writer>, Problem>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        let Some(command) = self.live(app).preparing.take() else { return };
        self.live(app).results_at = now;
        let (outcome, writers) = match writers {
            Ok(writers) => (Outcome::Done, writers),
            Err(problem) => (Outcome::Failed(problem), BTreeMap::new()),
        };
        let data = Data { writers, ..Data::default() };
        let result = CommandResult { number: command.number, app, outcome, data };
        if let Some(record) = self.disk.apps.get_mut(&app) {
            record.ready = result.outcome == Outcome::Done;
            record.keep(&command, result);
        }
        self.write(app, effects);
        self.report_soon();
    }

    /// Answers a command that is not done.
    fn refuse(&mut self, command: &Command, problem: Problem, effects: &mut Vec<Effect>) {
        let Some(record) = self.disk.apps.get_mut(&command.app) else { return };
        record.command = record.command.max(command.number);
        let (number, app, outcome) = (command.number, command.app, Outcome::Failed(problem));
        record.keep(command, CommandResult { number, app, outcome, data: Data::default() });
        self.write(command.app, effects);
    }

    /// Another command takes the place of the one that is being done.
    fn supersede(&mut self, app: AppId) {
        self.answer(app, Outcome::Obsolete, Data::default());
    }

    /// Ends the command that is being done; the caller writes the record.
    pub(crate) fn answer(&mut self, app: AppId, outcome: Outcome, mut data: Data) {
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        let Some(command) = record.doing.take() else { return };
        data.started = record.started;
        data.healthy = record.healthy;
        record.keep(&command, CommandResult { number: command.number, app, outcome, data });
        self.live(app).results_at = 0;
    }

    /// Sends what the hive does not have, again and again.
    pub(crate) fn send_results(&mut self, session: SessionId, now: Boottime, effects: &mut Vec<Effect>) {
        let open: BTreeSet<AppId> =
            self.disk.apps.values().filter(|record| record.is_open()).map(|it| it.app).collect();
        for app in open {
            let live = self.run.apps.entry(app).or_default();
            if now < live.results_at {
                continue;
            }
            live.results_at = now + RETRY_AFTER;
            let Some(record) = self.disk.apps.get_mut(&app) else { continue };
            for kept in record.results.iter_mut().filter(|kept| !kept.acknowledged) {
                effects.push(Effect::Result(session, kept.result.clone()));
                if !keeps(Rule::ResultsAreKept) {
                    kept.acknowledged = true;
                }
            }
        }
    }

    /// The hive has a result. Nothing is written: after a crash it is only sent once more.
    pub(crate) fn result_kept(&mut self, number: CommandNumber, effects: &mut Vec<Effect>) {
        for record in self.disk.apps.values_mut() {
            for kept in record.results.iter_mut().filter(|kept| kept.result.number == number) {
                kept.acknowledged = true;
            }
        }
        let forgotten = self.run.apps.iter().filter(|(_, live)| live.forgotten);
        let forgotten: Vec<AppId> = forgotten.map(|(app, _)| *app).collect();
        for app in forgotten {
            self.forgotten(app, effects);
        }
    }

    /// Nothing of an app is here any more: so goes its record, which people and hive are told of.
    ///
    /// Not before the hive has every result: a start that it did not hear of would be given again, and be a new one here.
    pub(crate) fn forgotten(&mut self, app: AppId, effects: &mut Vec<Effect>) {
        let record = self.disk.apps.get(&app);
        let is_live = record.is_some_and(|record| record.phase.is_live());
        let is_open = record.is_some_and(Record::is_open);
        let live = self.live(app);
        // It came back meanwhile.
        let is_back = is_live || live.preparing.is_some();
        live.forgotten = is_open && !is_back;
        if !is_open && !is_back {
            self.disk.apps.remove(&app);
            self.run.apps.remove(&app);
            effects.push(Effect::RemoveRecord(app));
            self.report_soon();
        }
    }
}

impl Record {
    /// Whether it waits for its first lease under a new policy.
    pub(crate) fn changes_policy(&self) -> bool {
        self.doing.as_ref().is_some_and(|command| matches!(command.order, Order::Settings(_)))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.results.iter().any(|kept| !kept.acknowledged)
    }
}
