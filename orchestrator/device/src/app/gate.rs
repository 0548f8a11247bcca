//! Whether an app is well, and which of its containers are started again.
//!
//! Values in, values out: the containers as Docker tells them, the wishes of the file, the moment.

use std::collections::BTreeMap;

use orchestrator_api::compose::{PlannedService, Restart};
use orchestrator_api::placement::Problem;

use crate::Boottime;
use crate::doors::docker::{Container, Health, State};
use crate::trouble::Trouble;

/// How long a service without a check must have run.
const RUNS_WITHOUT_CHECK: u64 = 5_000;
/// A service that exits so often while it starts is not going to be well.
const EXITS_MAX: u32 = 3;
/// The pauses before an exited container is started again.
const PAUSE_FIRST: u64 = 1_000;
const PAUSE_MAX: u64 = 60_000;
/// After so long the pause is the first one again.
const CALM_AFTER: u64 = 600_000;

/// What is known of an app's containers over time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watch {
    containers: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    started: Option<String>,
    runs_since: Boottime,
    exits: u32,
    pause: u64,
    start_at: Option<Boottime>,
}

/// How an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every service is well.
    Well,
    /// Not yet.
    Waiting,
    /// A service says that it is not well, or ended and is not started again.
    Unwell(Trouble),
}

impl Watch {
    /// Looks at the containers: what the app is, and which of them are to be started now.
    pub fn look(
        &mut self,
        services: &[PlannedService],
        containers: &[Container],
        now: Boottime,
    ) -> (Verdict, Vec<Container>) {
        self.containers.retain(|id, _| containers.iter().any(|one| one.id == *id));
        let mut start = Vec::new();
        let mut verdict = Verdict::Well;
        for service in services {
            let mut any = false;
            for one in containers.iter().filter(|one| one.service == service.name) {
                any = true;
                let (said, again) = self.one(service, one, now);
                if again {
                    start.push(one.clone());
                }
                verdict = worse(verdict, said);
            }
            if !any {
                verdict = worse(verdict, Verdict::Waiting);
            }
        }
        (verdict, start)
    }

    fn one(&mut self, service: &PlannedService, one: &Container, now: Boottime) -> (Verdict, bool) {
        let seen = self.containers.entry(one.id.clone()).or_default();
        if seen.started != one.started {
            seen.started.clone_from(&one.started);
            seen.runs_since = now;
        }
        match one.state {
            State::Running => {
                if now.saturating_sub(seen.runs_since) >= CALM_AFTER {
                    seen.pause = 0;
                }
                seen.start_at = None;
                let verdict = match one.health {
                    Some(Health::Healthy) => Verdict::Well,
                    Some(Health::Starting) => Verdict::Waiting,
                    Some(Health::Unhealthy) => {
                        Verdict::Unwell(Trouble::new(Problem::Unhealthy, "its check fails").of(&service.name))
                    }
                    None if now.saturating_sub(seen.runs_since) >= RUNS_WITHOUT_CHECK => Verdict::Well,
                    None => Verdict::Waiting,
                };
                (verdict, false)
            }
            State::Exited | State::Dead => seen.exited(service, one, now),
            State::Created | State::Paused | State::Restarting => (Verdict::Waiting, false),
        }
    }

    /// How often a service was started again.
    pub fn restarts(&self, containers: &[Container], service: &str) -> u32 {
        let ours = containers.iter().filter(|one| one.service == service);
        ours.filter_map(|one| self.containers.get(&one.id)).map(|seen| seen.exits).sum()
    }

    /// Whether a service exited too often to be waited for, with its name.
    pub fn exits_too_often(&self, containers: &[Container]) -> Option<Trouble> {
        let often =
            |one: &&Container| self.containers.get(&one.id).is_some_and(|seen| seen.exits >= EXITS_MAX);
        containers.iter().find(often).map(|one| {
            Trouble::new(Problem::Exits, "it exits again and again")
                .of(&one.service)
                .counted(one.exit.unwrap_or(-1))
        })
    }
}

impl Seen {
    fn exited(&mut self, service: &PlannedService, one: &Container, now: Boottime) -> (Verdict, bool) {
        let exit = one.exit.unwrap_or(-1);
        let wanted = match service.restart {
            Restart::No => false,
            // Counted is what was decided; that is due yet.
            Restart::OnFailure(max) => {
                exit != 0 && (self.start_at.is_some() || max.is_none_or(|max| self.exits < max))
            }
            Restart::Always | Restart::UnlessStopped => true,
        };
        if !wanted {
            // A one-shot that did its work is as it should be.
            let done = exit == 0;
            let trouble = || Trouble::new(Problem::Exits, "it ended").of(&service.name).counted(exit);
            return (if done { Verdict::Well } else { Verdict::Unwell(trouble()) }, false);
        }
        let at = *self.start_at.get_or_insert_with(|| {
            self.exits += 1;
            self.pause = if self.pause == 0 { PAUSE_FIRST } else { (self.pause * 2).min(PAUSE_MAX) };
            now + self.pause
        });
        let due = now >= at;
        if due {
            // Should starting it fail, it is tried again after the next pause.
            self.start_at = None;
        }
        (Verdict::Waiting, due)
    }
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Unwell(trouble), _) | (_, Verdict::Unwell(trouble)) => Verdict::Unwell(trouble),
        (Verdict::Waiting, _) | (_, Verdict::Waiting) => Verdict::Waiting,
        (Verdict::Well, Verdict::Well) => Verdict::Well,
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::compose::Owner;
    use orchestrator_api::ids::{AppId, Term};

    use super::*;

    fn service(restart: Restart) -> PlannedService {
        PlannedService {
            name: "web".to_owned(),
            image: None,
            build: false,
            restart,
            owner: Owner::Image,
            pids: None,
        }
    }

    fn container(state: State, started: &str, exit: Option<i64>, health: Option<Health>) -> Container {
        Container {
            id: "c".to_owned(),
            app: AppId([1; 16]),
            term: Term(1),
            service: "web".to_owned(),
            state,
            health,
            exit,
            started: Some(started.to_owned()),
            address: None,
        }
    }

    #[test]
    fn a_service_without_a_check_must_run_for_a_while() {
        let (mut watch, services) = (Watch::default(), [service(Restart::Always)]);
        let running = [container(State::Running, "1", None, None)];
        assert_eq!(watch.look(&services, &[], 0).0, Verdict::Waiting);
        assert_eq!(watch.look(&services, &running, 1_000).0, Verdict::Waiting);
        assert_eq!(watch.look(&services, &running, 6_000).0, Verdict::Well);
        let again = [container(State::Running, "2", None, None)];
        assert_eq!(watch.look(&services, &again, 7_000).0, Verdict::Waiting);
        let says = [container(State::Running, "2", None, Some(Health::Healthy))];
        assert_eq!(watch.look(&services, &says, 7_100).0, Verdict::Well);
        let says = [container(State::Running, "2", None, Some(Health::Unhealthy))];
        assert!(matches!(watch.look(&services, &says, 7_200).0, Verdict::Unwell(_)));
    }

    #[test]
    fn what_exits_is_started_again_with_longer_pauses() {
        let (mut watch, services) = (Watch::default(), [service(Restart::Always)]);
        let (mut now, mut pauses) = (0, Vec::new());
        for run in 0..8 {
            let exited = [container(State::Exited, &run.to_string(), Some(1), None)];
            let begun = now;
            while watch.look(&services, &exited, now).1.is_empty() {
                now += 500;
            }
            pauses.push((now - begun) / 1_000);
            let running = [container(State::Running, &(run + 1).to_string(), None, None)];
            watch.look(&services, &running, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let running = [container(State::Running, "8", None, None)];
        assert_eq!(watch.restarts(&running, "web"), 8);
        assert!(watch.exits_too_often(&running).is_some());
        watch.look(&services, &running, now + CALM_AFTER);
        let exited = [container(State::Exited, "8", Some(1), None)];
        now += CALM_AFTER + 1_000;
        assert!(watch.look(&services, &exited, now).1.is_empty());
        assert_eq!(watch.look(&services, &exited, now + 1_000).1.len(), 1);
    }

    #[test]
    fn a_one_shot_that_is_done_is_well_and_one_that_failed_is_not() {
        let services = [service(Restart::No)];
        let done = [container(State::Exited, "1", Some(0), None)];
        assert_eq!(Watch::default().look(&services, &done, 0), (Verdict::Well, vec![]));
        let failed = [container(State::Exited, "1", Some(2), None)];
        let Verdict::Unwell(trouble) = Watch::default().look(&services, &failed, 0).0 else {
            panic!("it failed")
        };
        assert_eq!((trouble.problem, trouble.number), (Problem::Exits, Some(2)));
        let services = [service(Restart::OnFailure(Some(1)))];
        let mut watch = Watch::default();
        assert_eq!(watch.look(&services, &failed, 0).0, Verdict::Waiting);
        assert_eq!(watch.look(&services, &failed, 1_000).1.len(), 1);
        let again = [container(State::Exited, "2", Some(2), None)];
        assert!(matches!(watch.look(&services, &again, 2_000).0, Verdict::Unwell(_)));
    }
}
