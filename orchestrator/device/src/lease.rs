//! The lease of an `auto` app: `failover.md`, section 4.
//!
//! Counted on this machine's `CLOCK_BOOTTIME` from the sending of the report that renewed it.

use orchestrator_api::ids::{AppId, Term};
use orchestrator_api::placement::{Phase, Policy, Why};
use orchestrator_api::times::{LEASE_END, LEASE_FRESH, LEASE_LEFT, LEASE_STOP};

use crate::record::Record;
use crate::rules::{Rule, keeps};
use crate::{Boottime, Device, Effect};

/// From the moment at which the app is stopped to the end.
const STOPS_BEFORE_END: u64 = LEASE_END - LEASE_STOP;

impl Record {
    /// Whether the record's term is to go on.
    pub(crate) fn renews(&self) -> bool {
        let ends = |why| matches!(why, Why::LeaseOver | Why::Fenced | Why::Failed(_));
        match self.phase {
            Phase::Claiming | Phase::Mounting | Phase::Starting | Phase::Running => true,
            Phase::Stopping(why) | Phase::Flushing(why) => !ends(why),
            Phase::StandingBy | Phase::Stopped(_) | Phase::Settling => false,
        }
    }

    pub(crate) fn leased(&self) -> bool {
        self.policy == Policy::Auto && self.renews()
    }
}

impl Device {
    /// The terms to ask renewals for.
    pub(crate) fn renewals(&self) -> impl Iterator<Item = (AppId, Term)> + '_ {
        let asks = |record: &&Record| match keeps(Rule::GivenUpStays) {
            true => record.leased() && record.mine,
            false => record.policy == Policy::Auto && record.mine && record.phase.is_live(),
        };
        self.disk.apps.values().filter(asks).map(|record| (record.app, record.term))
    }

    /// When an app under lease is to be stopped.
    pub(crate) fn stops_at(&self, app: AppId) -> Option<Boottime> {
        self.run.apps.get(&app)?.lease.map(|end| end.saturating_sub(STOPS_BEFORE_END))
    }

    /// Gives up every term whose lease ends soon.
    pub(crate) fn end_leases(&mut self, now: Boottime, effects: &mut Vec<Effect>) {
        let ends =
            |record: &&Record| record.leased() && self.stops_at(record.app).is_some_and(|at| now >= at);
        let over: Vec<AppId> = self.disk.apps.values().filter(ends).map(|record| record.app).collect();
        for app in over {
            self.give_up(app, now, effects);
        }
    }

    /// Stops an app whose lease ends, and never takes its term up again.
    pub(crate) fn give_up(&mut self, app: AppId, now: Boottime, effects: &mut Vec<Effect>) {
        self.stop(app, Why::LeaseOver, now, effects);
    }

    /// The hive goes on with a term: by a report that was sent at this moment.
    pub(crate) fn renewed(&mut self, app: AppId, sent: Boottime, now: Boottime, effects: &mut Vec<Effect>) {
        let Some(record) = self.disk.apps.get(&app) else { return };
        if !keeps(Rule::GivenUpStays)
            && let Phase::Stopping(Why::LeaseOver) = record.phase
        {
            self.run_again(app, effects);
        }
        let Some(record) = self.disk.apps.get(&app) else { return };
        if !record.leased() {
            return;
        }
        let from = if keeps(Rule::LeaseFromSending) { sent } else { now };
        let end = from + LEASE_END;
        let live = self.live(app);
        if live.lease.is_none_or(|before| before < end) {
            live.lease = Some(end);
            live.again_at = live.again_at.map(|_| now);
            if keeps(Rule::EndIsHandedOn) {
                effects.push(Effect::Lease { app, end: Some(end) });
            }
        }
        self.settings_done(app, effects);
    }

    /// Whether an app has what its policy needs before volumes are claimed and mounted.
    pub(crate) fn lease_is_fresh(&self, app: AppId, now: Boottime) -> bool {
        self.has_lease(app, now + LEASE_END - LEASE_FRESH)
    }

    /// Whether an app has what its policy needs before containers are started.
    pub(crate) fn lease_is_left(&self, app: AppId, now: Boottime) -> bool {
        self.has_lease(app, now + LEASE_LEFT)
    }

    fn has_lease(&self, app: AppId, until: Boottime) -> bool {
        if !keeps(Rule::BootWaitsForLease) && self.run.apps.get(&app).is_some_and(|live| live.lease.is_none())
        {
            return true;
        }
        let manual = self.disk.apps.get(&app).is_some_and(|record| record.policy == Policy::Manual);
        let lease = self.run.apps.get(&app).and_then(|live| live.lease);
        manual || lease.is_some_and(|end| end >= until)
    }
}
