//! Who counts time: one process of the hive, in memory.
//!
//! A *watch* of a term is the time since the scheduler first saw the present number of its last renewal itself. So what
//! counts is when it looked, and neither when a report arrived nor when it was committed: a look that comes late only
//! makes a watch longer. A process that was asleep, or whose database was away, saw nothing, and begins anew.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{AppId, DeviceId, Incarnation, OperationId, Renewals, Term};
use orchestrator_api::times::{FAILOVER_AGAIN, FRESH, LEASE_OVER, SILENT_OVER, WATCH_GAP_MAX};

use crate::rules::{Rule, keeps};
use crate::state::{Hive, Kind, Operation, OperationState, Step};
use crate::{Event, Seen, Wish};

/// What one process has seen, and when, on its own clock.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    looked: Option<u64>,
    terms: BTreeMap<AppId, (Term, Option<DeviceId>, Renewals, u64)>,
    steps: BTreeMap<OperationId, (u64, u64)>,
    reports: BTreeMap<DeviceId, Heard>,
    begun: BTreeMap<AppId, u64>,
    heard: Option<(Incarnation, u64)>,
}

/// A device's reports, as far as they were seen.
#[derive(Debug, Clone, Copy)]
struct Heard {
    renewals: Renewals,
    /// Since when that is their number.
    since: u64,
    /// Whether it was another one before: the first number that is seen may be an old one.
    grew: bool,
}

/// What a look proposes; an id is still to be given to a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// [`Event::Check`].
    Check(OperationId, BTreeSet<DeviceId>),
    /// [`Event::End`].
    End(AppId, Term, Seen, BTreeSet<DeviceId>),
    /// [`Event::Late`].
    Late(OperationId, u64),
    /// [`Event::Silent`].
    Silent(OperationId, u64, DeviceId, Renewals),
    /// [`Event::Recovered`].
    Recovered,
    /// [`Event::Ordered`]: an app runs that is not wanted, since a stop was forgotten.
    Stop(AppId),
}

impl Look {
    /// The event, with an id that is used if a failover begins.
    pub fn event(self, operation: OperationId) -> Event {
        match self {
            Look::Check(operation, fresh) => Event::Check { operation, fresh },
            Look::End(app, term, seen, fresh) => Event::End { app, term, seen, fresh, operation },
            Look::Late(operation, count) => Event::Late { operation, count },
            Look::Silent(operation, count, device, heard) => {
                Event::Silent { operation, count, device, heard }
            }
            Look::Recovered => Event::Recovered,
            Look::Stop(app) => Event::Ordered { operation, wish: Wish { app, kind: Kind::Stop, to: None } },
        }
    }
}

impl Scheduler {
    /// Looks at the state, and says what is due; each is a transaction of its own that compares again.
    pub fn look(&mut self, hive: &Hive, now: u64) -> Vec<Look> {
        let gap = self.looked.is_none_or(|before| now - before > WATCH_GAP_MAX);
        if gap && keeps(Rule::GapBeginsAnew) {
            *self = Scheduler { begun: std::mem::take(&mut self.begun), ..Scheduler::default() };
        }
        self.looked = Some(now);
        let fresh = self.fresh(hive, now);
        if hive.recovering {
            let known = self.heard.filter(|(incarnation, _)| hive.heard && *incarnation == hive.incarnation);
            let (_, since) = known.unwrap_or((hive.incarnation, now));
            self.heard = hive.heard.then_some((hive.incarnation, since));
            let over = hive.heard && now - since >= LEASE_OVER;
            return if over { vec![Look::Recovered] } else { Vec::new() };
        }
        let mut due = Vec::new();
        for (id, app) in &hive.apps {
            let placement = &app.placement;
            let renewal = hive.last_renewal(placement);
            let present = (placement.term, placement.device);
            let keep = self.terms.get(id).filter(|(term, device, seen, _)| {
                let silent = placement.renewed.is_some() && !keeps(Rule::LastRenewalIsKept);
                (*term, *device) == present && (*seen == renewal || silent)
            });
            let since = keep.map_or(now, |(_, _, _, since)| *since);
            self.terms.insert(*id, (placement.term, placement.device, renewal, since));

            let whole = if keeps(Rule::WatchIsWhole) { LEASE_OVER } else { LEASE_OVER * 2 / 3 };
            // A step of an operation is answered for by its command.
            let step = hive.running(*id).and_then(|operation| hive.operations.get(&operation));
            // A term whose device was revoked ends for who waits for that.
            let waited = step.is_some_and(|operation| operation.step == Step::WaitLease);
            let ends = placement.device.is_some() || waited;
            let over = placement.leased && ends && now - since >= whole;
            // While a candidate gets ready nobody has the app: then whoever had it is left time to return.
            if step.is_some_and(|it| it.kind == Kind::Failover && it.step == Step::Prepare) {
                self.begun.insert(*id, now);
            }
            let waits = step.is_none_or(|operation| operation.step == Step::WaitLease);
            if step.is_none() && !app.wanted && hive.lives(*id) {
                due.push(Look::Stop(*id));
            }
            let stopped = waits && hive.has_ended(*id);
            let seen = if stopped { Seen::Stopped } else { Seen::Silence(renewal) };
            let again = |begun: &u64| step.is_none() && now - begun < FAILOVER_AGAIN;
            let due_now = stopped || over;
            if due_now && !self.begun.get(id).is_some_and(again) {
                if step.is_none() && app.wanted {
                    self.begun.insert(*id, now);
                }
                due.push(Look::End(*id, placement.term, seen, fresh.clone()));
            }
        }
        let running =
            hive.operations.iter().filter(|(_, operation)| operation.state == OperationState::Running);
        for (id, operation) in running {
            let keep = self.steps.get(id).filter(|(count, _)| *count == operation.count);
            let since = keep.map_or(now, |(_, since)| *since);
            self.steps.insert(*id, (operation.count, since));
            if operation.step == Step::Check {
                due.push(Look::Check(*id, fresh.clone()));
            } else if operation.wait(hive.gate_ms(operation.app)).is_some_and(|wait| now - since >= wait) {
                due.push(Look::Late(*id, operation.count));
            } else {
                let needs = operation.needs().into_iter().flatten();
                let mut silent = needs.filter_map(|device| Some((device, self.silent(&device, now)?)));
                due.extend(
                    silent.next().map(|(device, heard)| Look::Silent(*id, operation.count, device, heard)),
                );
            }
        }
        self.steps
            .retain(|id, _| hive.operations.get(id).is_some_and(|it| it.state == OperationState::Running));
        due
    }

    /// Devices that reported lately.
    fn fresh(&mut self, hive: &Hive, now: u64) -> BTreeSet<DeviceId> {
        let mut fresh = BTreeSet::new();
        for (id, device) in &hive.devices {
            let renewals = device.renewals;
            let heard = match self.reports.get(id) {
                Some(heard) if heard.renewals == renewals => *heard,
                Some(_) => Heard { renewals, since: now, grew: true },
                None => Heard { renewals, since: now, grew: false },
            };
            self.reports.insert(*id, heard);
            if heard.grew && device.session.is_some() && now - heard.since < FRESH {
                fresh.insert(*id);
            }
        }
        fresh
    }

    /// The last report of a device that is silent for so long that nobody waits for it any more.
    fn silent(&self, device: &DeviceId, now: u64) -> Option<Renewals> {
        self.reports.get(device).filter(|heard| now - heard.since >= SILENT_OVER).map(|heard| heard.renewals)
    }
}

impl Operation {
    /// The devices without which the step does not end, where something else can be done instead.
    fn needs(&self) -> [Option<DeviceId>; 2] {
        match (self.kind, self.step) {
            (Kind::Move, Step::Prepare) => [self.to, self.from],
            (Kind::Start | Kind::Force { .. } | Kind::Failover, Step::Prepare) => [self.to, None],
            (Kind::Move, Step::HandOver) => [self.from, None],
            (Kind::Move, Step::Start | Step::TakeBack) => [self.to, None],
            // Whom it asked, where the caller says that it goes on without.
            (Kind::Task, _) => [self.waits.map(|(device, _)| device), None],
            _ => [None, None],
        }
    }
}
