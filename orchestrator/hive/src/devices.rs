//! What devices say: hello, report, poll, result.

use orchestrator_api::command::{CommandResult, Order};
use orchestrator_api::ids::{CommandNumber, DeviceId, Renewals, SessionId};
use orchestrator_api::placement::Phase;
use orchestrator_api::report::{Hello, Refusal, Report, ReportAnswer, Welcome};

use crate::Answer;
use crate::rules::{Rule, keeps};
use crate::state::{Device, DeviceState, Hive};

impl Hive {
    pub(crate) fn hello(
        &mut self,
        id: DeviceId,
        hello: &Hello,
        session: SessionId,
        now_ms: u64,
        proved: bool,
    ) -> Answer {
        let Some(device) = self.devices.get(&id) else { return Answer::Refused(Refusal::Unknown) };
        if device.state == DeviceState::Revoked {
            return Answer::Refused(Refusal::Revoked);
        }
        // The same hello again is the same session again; an older one of the same run is only late.
        let before = device.hello.filter(|_| keeps(Rule::HelloGrows));
        let repeated = device.hello == Some((hello.number, hello.run)) && device.session.is_some();
        match before {
            Some(_) if repeated => {}
            Some((number, run)) if hello.number <= number => {
                return Answer::Refused(if run == hello.run {
                    Refusal::SessionOver
                } else {
                    Refusal::Cloned
                });
            }
            _ => {}
        }
        let knows_more = hello.incarnation > self.incarnation || (!self.recovering && self.knows_less(hello));
        if proved && knows_more {
            self.restored(now_ms.max(hello.incarnation.0 + 1));
        }
        let incarnation = self.incarnation;
        let Some(device) = self.devices.get_mut(&id) else { return Answer::Refused(Refusal::Unknown) };
        if !repeated {
            device.hello = Some((hello.number, hello.run));
            device.session = Some(session);
            device.report = Default::default();
        }
        device.locked = !proved;
        device.command = device.command.max(hello.command);
        let first = device.greeted < incarnation;
        device.greeted = incarnation;
        let session = device.session.unwrap_or(session);
        if self.recovering {
            self.recover(id, hello);
        } else if first {
            self.hear_of_leases(id, hello);
        }
        for (app_id, app) in self.apps.iter_mut().filter(|(_, app)| app.placement.device == Some(id)) {
            let term = app.placement.term;
            let knows = hello.apps.get(app_id).is_some_and(|said| said.term >= term);
            let mut given = self.commands.range((id, CommandNumber(0))..=(id, CommandNumber(u64::MAX)));
            let told = given.any(|(_, it)| {
                let start = matches!(it.command.order, Order::Start(_));
                it.result.is_none() && start && it.command.app == *app_id && it.command.term == term
            });
            app.placement.forgotten = !knows && !told;
        }
        Answer::Welcome(Welcome { number: hello.number, session, incarnation })
    }

    /// A device in its present session.
    fn in_session(&mut self, id: DeviceId, session: SessionId) -> Result<&mut Device, Answer> {
        let device = self.devices.get_mut(&id).ok_or(Answer::Refused(Refusal::Unknown))?;
        match device.session {
            _ if device.state == DeviceState::Revoked => Err(Answer::Refused(Refusal::Revoked)),
            Some(present) if present == session => Ok(device),
            _ => Err(Answer::Refused(Refusal::SessionOver)),
        }
    }

    /// Takes a report, and says which terms go on.
    ///
    /// A report that renews a term as the one before it did changes no row but the device's.
    pub(crate) fn report(&mut self, id: DeviceId, session: SessionId, report: Report) -> Answer {
        let device = match self.in_session(id, session) {
            Ok(device) => device,
            Err(refused) => return refused,
        };
        if report.number <= device.report {
            return Answer::Refused(Refusal::ReportOld);
        }
        device.report = report.number;
        let before = device.renewals;
        device.renewals = Renewals(before.0 + 1);
        device.docker = report.docker;
        for app in report.apps.values() {
            device.writers.extend(app.volumes.iter().map(|(volume, here)| (*volume, here.writer)));
        }
        device.apps = report.apps;
        let reported = device.apps.clone();

        let recovering = self.recovering;
        let mut answer = ReportAnswer { number: report.number, ..ReportAnswer::default() };
        for (app_id, app) in &mut self.apps {
            let placement = &mut app.placement;
            let has = reported.get(app_id);
            if placement.device != Some(id) {
                if let Some(has) = has
                    && has.term < placement.term
                {
                    answer.over.insert(*app_id, placement.term);
                }
                continue;
            }
            let asked = report.renew.contains(&(*app_id, placement.term));
            let refused = placement.withdrawn && keeps(Rule::WithdrawnIsRefused);
            // Who claims and was not renewed before holds no lease: a device that was not heard yet may have one,
            // for a later term.
            let unheld = recovering
                && placement.renewed.is_some()
                && has.is_none_or(|has| has.phase == Phase::Claiming)
                && keeps(Rule::OnlyHeldIsRenewed);
            if asked && !refused && !unheld {
                answer.granted.insert((*app_id, placement.term));
                placement.renewed = None;
            } else if placement.renewed.is_none() {
                // The watch goes on from the renewal that was granted last, which the scheduler may not
                // have seen: it may lie between two of its looks.
                placement.renewed = Some(before);
            }
            // Who still claims tells of what it had before: somebody else may have had the app since.
            if let Some(has) = has.filter(|has| has.term == placement.term && has.phase != Phase::Claiming) {
                let has_claimed = matches!(has.phase, Phase::Mounting | Phase::Starting | Phase::Running);
                for (volume, here) in &has.volumes {
                    let (Some(known), Some(head)) = (app.volumes.get_mut(volume), &here.replicated) else {
                        continue;
                    };
                    let is_new = head.epoch > known.epoch;
                    known.raise(head);
                    // This often comes before the result of the start, which then shows no new epoch.
                    if is_new && has_claimed && keeps(Rule::EpochEndsOthers) {
                        known.writers = [here.writer].into();
                    }
                }
            }
        }
        Answer::Report(answer)
    }

    pub(crate) fn poll(&mut self, id: DeviceId, session: SessionId, have: CommandNumber) -> Answer {
        if let Err(refused) = self.in_session(id, session) {
            return refused;
        }
        let after = (id, CommandNumber(have.0 + 1))..=(id, CommandNumber(u64::MAX));
        let open = self.commands.range(after).filter(|(_, given)| given.result.is_none());
        Answer::Commands(open.take(COMMANDS_MAX).map(|(_, given)| given.command.clone()).collect())
    }

    pub(crate) fn result(&mut self, id: DeviceId, session: SessionId, result: CommandResult) -> Answer {
        if let Err(refused) = self.in_session(id, session) {
            return refused;
        }
        let number = result.number;
        // One that was never given belongs to a life that was forgotten; the device need not keep it.
        if let Some(given) = self.commands.get_mut(&(id, number))
            && given.result.is_none()
        {
            given.result = Some(result.clone());
            let operation = given.command.operation;
            if let Some(device) = self.devices.get_mut(&id) {
                device.writers.extend(result.data.writers.iter().map(|(volume, writer)| (*volume, *writer)));
            }
            self.answered(operation, id, &result);
        }
        Answer::Kept(number)
    }
}

/// Commands in one answer.
const COMMANDS_MAX: usize = 32;
