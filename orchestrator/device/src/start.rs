//! A start decides by the store, and not by what the hive says of it: `failover.md`, section 6.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{AppId, VolumeId};
use orchestrator_api::placement::{Expect, Phase, Policy, Problem, Why};
use orchestrator_api::times::{CLAIMS_MAX, RETRY_AFTER};

use crate::record::{Cut, VolumeRecord};
use crate::rules::{Rule, keeps};
use crate::{Boottime, Device, Effect, Look, NotClaimed, Step};

/// What the store says of a volume.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours, and what is here is what is there.
    Ours,
    /// It may be claimed, if it is still this.
    Claim(Expect),
    /// Nobody's right is ended.
    Unexpected,
}

impl VolumeRecord {
    /// What must be there: once it was claimed in this term, nothing but our own.
    fn expects(&self) -> Expect {
        match self.cut {
            Some(cut) => Expect::Since { epoch: cut.head.epoch, seq: cut.head.seq, writers: BTreeSet::new() },
            None => self.expect.clone(),
        }
    }

    fn judge(&self, look: &Look) -> Verdict {
        let expect = self.expects();
        let ours = look.here.filter(|here| {
            let newest = look.store.newest.is_some_and(|(head, writer)| {
                head.epoch == here.epoch && writer == look.writer && here.has_newest
            });
            newest && !here.fenced && look.store.epoch() == here.epoch
        });
        // A later term is a later epoch: an older order that is still on its way finds another head. Only what was claimed
        // in this term is mounted without a claim.
        let fits = match (&expect, ours, self.cut) {
            (_, None, _) => false,
            (_, Some(_), Some(_)) => expect.allows(&look.store, look.writer),
            // We may have won the slot and crashed before we could write it down.
            (Expect::Exactly(head), Some(here), None) => here.parent == Some(head.manifest),
            (Expect::Since { .. }, Some(_), None) => false,
        };
        if fits {
            Verdict::Ours
        } else if expect.allows(&look.store, look.writer) || !keeps(Rule::ExpectIsCompared) {
            Verdict::Claim(expect)
        } else {
            Verdict::Unexpected
        }
    }
}

impl Device {
    /// The arbiter was looked at. Nothing is claimed before every volume is what is expected.
    pub(crate) fn looked(
        &mut self,
        app: AppId,
        looks: &BTreeMap<VolumeId, Option<Look>>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_refused_copy() {
            return self.again_at(app, Boottime::MAX);
        }
        let (resumed, until) = (self.live(app).resumed, self.live(app).until);
        let Some(record) = self.disk.apps.get_mut(&app) else { return };
        let (mut claims, mut unexpected, mut silent) = (Vec::new(), false, false);
        for (id, volume) in &mut record.volumes {
            match looks.get(id).copied().flatten() {
                Some(look) => match volume.judge(&look) {
                    Verdict::Ours => {
                        if let (None, Some((head, _)), Some(here)) =
                            (volume.cut, look.store.newest, look.here)
                        {
                            volume.cut = Some(Cut { head, parent: here.parent });
                        }
                    }
                    Verdict::Claim(expect) => claims.push((*id, expect)),
                    Verdict::Unexpected => unexpected = true,
                },
                // A `manual` app goes on with what was its own, alone.
                None => silent |= !(resumed && record.policy == Policy::Manual && volume.cut.is_some()),
            }
        }
        let ours = record.volumes.values().any(|volume| volume.cut.is_some());
        if unexpected && ours && record.volumes.values().all(|volume| volume.cut.is_some()) {
            // It was ours in this term; somebody took it.
            self.stop(app, Why::Fenced, now, effects);
        } else if unexpected {
            self.stop(app, Why::Failed(Problem::HeadUnexpected), now, effects);
        } else if silent {
            self.not_reached(app, until, now, effects);
        } else if claims.is_empty() {
            self.enter(app, Phase::Mounting, now, effects);
        } else {
            let live = self.live(app);
            live.step += 1;
            live.busy = true;
            live.again_at = None;
            live.claiming = claims.iter().map(|(volume, _)| *volume).collect();
            let step = live.step;
            for (volume, expect) in claims {
                effects.push(Effect::Begin { app, step, what: Step::Claim(volume, expect) });
            }
        }
    }

    fn not_reached(&mut self, app: AppId, until: Option<Boottime>, now: Boottime, effects: &mut Vec<Effect>) {
        if until.is_some_and(|until| now >= until) {
            self.stop(app, Why::Failed(Problem::StoreUnreachable), now, effects);
        } else {
            self.end_step(app);
            self.again_at(app, now + RETRY_AFTER);
        }
    }

    /// What is still under way is not waited for.
    fn end_step(&mut self, app: AppId) {
        let live = self.live(app);
        live.step += 1;
        live.claiming.clear();
    }

    /// A volume was claimed, or not.
    pub(crate) fn claimed(
        &mut self,
        app: AppId,
        id: VolumeId,
        result: Result<Cut, NotClaimed>,
        now: Boottime,
        effects: &mut Vec<Effect>,
    ) {
        let until = self.live(app).until;
        let Some(volume) = self.disk.apps.get_mut(&app).and_then(|record| record.volumes.get_mut(&id)) else {
            return;
        };
        match result {
            Ok(cut) => {
                let extends = match &volume.expect {
                    Expect::Exactly(head) if volume.cut.is_none() => cut.parent == Some(head.manifest),
                    _ => true,
                };
                volume.cut = Some(cut);
                if !extends && keeps(Rule::ExpectIsCompared) {
                    return self.stop(app, Why::Failed(Problem::HeadUnexpected), now, effects);
                }
                self.live(app).claiming.remove(&id);
                match self.live(app).claiming.is_empty() {
                    true => self.enter(app, Phase::Mounting, now, effects),
                    false => self.write(app, effects),
                }
            }
            Err(NotClaimed::Unexpected) => self.stop(app, Why::Failed(Problem::HeadUnexpected), now, effects),
            Err(NotClaimed::Unreachable) => self.not_reached(app, until, now, effects),
            Err(NotClaimed::Rival) => {
                self.end_step(app);
                let live = self.live(app);
                live.rivals += 1;
                match live.rivals >= CLAIMS_MAX {
                    true => self.stop(app, Why::Failed(Problem::ClaimLost), now, effects),
                    false => self.again_at(app, now + RETRY_AFTER),
                }
            }
        }
    }
}
