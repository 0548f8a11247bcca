//! Hello, report, poll, and what the hive answers: `failover.md`, sections 4, 5, 12, 13.

use std::collections::BTreeSet;

use orchestrator_api::ids::{AppId, CommandNumber, HelloNumber, ReportNumber, SessionId};
use orchestrator_api::placement::{Phase, Policy, Why};
use orchestrator_api::report::{AppReport, Hello, HelloApp, Refusal, Report, ReportAnswer, Welcome};
use orchestrator_api::times::{REPORT_AGAIN, REPORT_EVERY, REPORT_SOON};

use crate::rules::{Rule, keeps};
use crate::{Boottime, Device, Effect};

/// Before commands are asked for again; the hive holds a request.
const POLL_AGAIN: u64 = 2_000;
/// Reports of which an answer still counts.
const SENT_MAX: usize = 16;

impl Device {
    /// What is due at this moment.
    pub(crate) fn tick(&mut self, now: Boottime, effects: &mut Vec<Effect>) {
        let apps: Vec<AppId> = self.disk.apps.keys().copied().collect();
        for app in apps {
            if self.is_revoked() {
                self.leave(app, now, effects);
            }
            self.drive(app, now, effects);
        }
        if self.disk.identity.refused.is_some() {
            return;
        }
        let Some(session) = self.run.session else {
            if now >= self.run.hello_at {
                self.hello(now, effects);
            }
            return;
        };
        if now >= self.run.report_at {
            self.report(session, now, effects);
        }
        if now >= self.run.poll_at {
            self.run.poll_at = now + POLL_AGAIN;
            effects.push(Effect::Poll(session, self.run.have));
        }
        self.send_results(session, now, effects);
    }

    fn hello(&mut self, now: Boottime, effects: &mut Vec<Effect>) {
        self.run.hello_at = now + REPORT_AGAIN;
        let identity = &mut self.disk.identity;
        identity.hello = HelloNumber(identity.hello.0 + 1);
        effects.push(Effect::WriteIdentity(identity.clone()));
        let apps = self.disk.apps.values().map(|record| {
            let said = HelloApp {
                term: record.term,
                mine: record.mine,
                generation: record.generation,
                leased: record.policy == Policy::Auto && !record.changes_policy(),
                stopped: record.phase == Phase::Stopped(Why::Ordered),
            };
            (record.app, said)
        });
        let hello = Hello {
            number: self.disk.identity.hello,
            run: self.run.id,
            incarnation: self.disk.identity.incarnation,
            command: self.disk.apps.values().map(|record| record.command).max().unwrap_or(CommandNumber(0)),
            apps: apps.collect(),
        };
        effects.push(Effect::Hello(hello));
    }

    fn report(&mut self, session: SessionId, now: Boottime, effects: &mut Vec<Effect>) {
        let run = &mut self.run;
        run.report = ReportNumber(run.report.0 + 1);
        run.report_at = now + REPORT_AGAIN;
        run.reported = now;
        let number = run.report;
        let renew: BTreeSet<_> = self.renewals().collect();
        self.run.sent.insert(number, (now, renew.clone()));
        while self.run.sent.len() > SENT_MAX {
            self.run.sent.pop_first();
        }
        let apps = self.disk.apps.values().map(|record| {
            (record.app, AppReport { term: record.term, phase: record.phase, volumes: Default::default() })
        });
        let report = Report { number, renew, docker: self.run.docker, apps: apps.collect() };
        effects.push(Effect::Report(session, report));
    }

    /// A phase changed: the hive hears of it soon.
    pub(crate) fn report_soon(&mut self) {
        self.run.report_at = self.run.report_at.min(self.run.reported + REPORT_SOON);
    }

    pub(crate) fn welcomed(
        &mut self,
        answer: Result<Welcome, (HelloNumber, Refusal)>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        let identity = &mut self.disk.identity;
        match answer {
            // An answer to an older hello says nothing of this process.
            Ok(welcome) if welcome.number != identity.hello || self.run.session.is_some() => {}
            Err((number, _)) if number != identity.hello || self.run.session.is_some() => {}
            // An old hive runs beside the one that was restored: nothing that it says is done.
            Ok(welcome) if welcome.incarnation < identity.incarnation => {}
            Ok(welcome) => {
                if welcome.incarnation > identity.incarnation {
                    identity.incarnation = welcome.incarnation;
                    effects.push(Effect::WriteIdentity(identity.clone()));
                }
                let run = &mut self.run;
                run.session = Some(welcome.session);
                run.report = ReportNumber(0);
                run.sent.clear();
                run.have = CommandNumber(0);
                (run.report_at, run.poll_at) = (now, now);
            }
            Err((_, refusal @ (Refusal::Cloned | Refusal::Revoked))) => {
                // Apps of a device that is revoked are left at the next look, which follows, also by a later process.
                identity.refused = Some(refusal);
                effects.push(Effect::WriteIdentity(identity.clone()));
            }
            Err(_) => {}
        }
    }

    /// What an answer to anything in a session says of the session itself; none if it is an old one's.
    pub(crate) fn in_session<T>(
        &mut self,
        session: SessionId,
        answer: Result<T, Refusal>,
        now: Boottime,
    ) -> Option<T> {
        if self.run.session != Some(session) {
            return None;
        }
        match answer {
            Ok(answer) => Some(answer),
            Err(Refusal::ReportOld) => None,
            Err(_) => {
                self.run.session = None;
                self.run.hello_at = now;
                None
            }
        }
    }

    pub(crate) fn answered(
        &mut self,
        session: SessionId,
        answer: Result<ReportAnswer, Refusal>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        let Some(answer) = self.in_session(session, answer, now) else { return };
        let Some((sent, asked)) = self.run.sent.remove(&answer.number) else { return };
        if answer.number == self.run.report {
            self.run.report_at = self.run.report_at.max(sent + REPORT_EVERY);
        }
        self.run.answered = true;
        for (app, term) in &answer.over {
            let old = self.disk.apps.get(app).is_some_and(|record| record.term < *term);
            if !old || !keeps(Rule::FencedStops) {
                continue;
            }
            if let Some(record) = self.disk.apps.get_mut(app) {
                record.term = *term;
                record.mine = false;
            }
            self.overtaken(*app, now, effects);
        }
        for (app, term) in asked {
            let present = |record: &crate::Record| record.term == term && record.mine;
            if !self.disk.apps.get(&app).is_some_and(present) {
                continue;
            }
            let leased = self.disk.apps.get(&app).is_some_and(|record| record.policy == Policy::Auto);
            if answer.granted.contains(&(app, term)) {
                self.renewed(app, sent, now, effects);
            } else if leased && self.disk.apps.get(&app).is_some_and(|record| record.renews()) {
                self.give_up(app, now, effects);
            }
        }
    }
}
