//! Scenes that seeds meet too rarely, played by the hive alone: each goes well, and shows a rule that is broken.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{
    AppId, DeviceId, Generation, HelloNumber, Incarnation, OperationId, ReportNumber, RunId, SessionId, Term,
};
use orchestrator_api::placement::{Phase, Policy, Why};
use orchestrator_api::report::{AppReport, Hello, HelloApp, Report};
use orchestrator_api::times::LEASE_END;
use orchestrator_hive::rules::{BROKEN, Rule};
use orchestrator_hive::{Answer, App, Device, Event, Hive, Placement, Scheduler, decide};

const APP: AppId = AppId([1; 16]);
const ATTIC: DeviceId = DeviceId([b'a'; 16]);
const CELLAR: DeviceId = DeviceId([b'c'; 16]);

/// A hive, its scheduler, and what two devices say.
struct Scene {
    hive: Hive,
    scheduler: Scheduler,
    sessions: BTreeMap<DeviceId, (SessionId, u64)>,
}

impl Scene {
    /// The app runs on the attic, under lease, in this term.
    fn with_term(term: u64) -> Scene {
        let mut hive = Hive::default();
        hive.devices.insert(ATTIC, Device { docker: true, ..Device::default() });
        hive.devices.insert(CELLAR, Device { docker: true, ..Device::default() });
        let placement =
            Placement { device: Some(ATTIC), term: Term(term), leased: true, ..Placement::default() };
        let app = App {
            policy: Policy::Auto,
            wanted: true,
            generation: Generation(1),
            devices: BTreeSet::from([ATTIC, CELLAR]),
            volumes: BTreeMap::new(),
            placement,
            problem: None,
        };
        hive.apps.insert(APP, app);
        Scene { hive, scheduler: Scheduler::default(), sessions: BTreeMap::new() }
    }

    fn hello(&mut self, device: DeviceId, term: u64, mine: bool) {
        let number = HelloNumber(self.sessions.get(&device).map_or(1, |(_, said)| said + 1));
        let said =
            HelloApp { term: Term(term), mine, generation: Generation(1), leased: true, stopped: false };
        let hello = Hello {
            number,
            run: RunId(device.0),
            incarnation: Incarnation(0),
            command: Default::default(),
            apps: BTreeMap::from([(APP, said)]),
        };
        let session = SessionId(device.0);
        let answer = decide(&mut self.hive, Event::Hello { device, hello, session, now_ms: 0 });
        assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
        self.sessions.insert(device, (session, 0));
    }

    /// A report; whether the term that it asks for is granted.
    fn report(&mut self, device: DeviceId, term: u64, asks: bool, phase: Phase) -> bool {
        let (session, number) = self.sessions.get_mut(&device).expect("it said hello");
        *number += 1;
        let renew = if asks { BTreeSet::from([(APP, Term(term))]) } else { BTreeSet::new() };
        let here = AppReport { term: Term(term), phase, volumes: BTreeMap::new() };
        let report = Report {
            number: ReportNumber(*number),
            renew,
            docker: true,
            apps: BTreeMap::from([(APP, here)]),
        };
        let session = *session;
        match decide(&mut self.hive, Event::Report { device, session, report }) {
            Answer::Report(answer) => answer.granted.contains(&(APP, Term(term))),
            other => panic!("{other:?}"),
        }
    }

    /// The scheduler looks, and what it proposes is done.
    fn look(&mut self, now: u64) {
        for (at, due) in self.scheduler.look(&self.hive, now).into_iter().enumerate() {
            let mut id = [0; 16];
            (id[..8]).copy_from_slice(&now.to_be_bytes());
            id[8] = at as u8;
            decide(&mut self.hive, due.event(OperationId(id)));
        }
    }

    fn term(&self) -> Term {
        self.hive.apps[&APP].placement.term
    }

    /// When the next term is given, if the scheduler looks every second from a moment on.
    fn next_term(&mut self, term: u64, from: u64) -> u64 {
        let given = (from..from + 200_000).step_by(1_000).find(|now| {
            // The other device goes on reporting, so that it can take the app.
            self.report(CELLAR, 0, false, Phase::StandingBy);
            self.look(*now);
            self.term() > Term(term)
        });
        given.expect("the next term is given")
    }
}

/// Of two reports between two looks the first renews and the second does not: a device that gives up at once.
fn renewed_between_two_looks() -> u64 {
    let mut scene = Scene::with_term(7);
    scene.hello(ATTIC, 7, true);
    scene.hello(CELLAR, 0, false);
    scene.look(0);
    assert!(scene.report(ATTIC, 7, true, Phase::Running));
    (1..=10).for_each(|second| scene.look(second * 1_000));
    // Sent and granted after the look at 10 s; the lease holds until 10.1 s + 44.5 s.
    assert!(scene.report(ATTIC, 7, true, Phase::Running));
    assert!(!scene.report(ATTIC, 7, false, Phase::Stopping(Why::LeaseOver)));
    scene.next_term(7, 11_000) - 10_100
}

#[test]
fn a_renewal_between_two_looks_is_not_missed() {
    assert!(renewed_between_two_looks() > LEASE_END);
    BROKEN.set(Some(Rule::LastRenewalIsKept));
    assert!(renewed_between_two_looks() < LEASE_END);
}

/// A restored hive grants a lease for a term of before, and hears of the later one then.
fn restored_and_renewed() -> u64 {
    let mut scene = Scene::with_term(5);
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    scene.look(0);
    scene.hello(ATTIC, 5, true);
    assert!(scene.report(ATTIC, 5, true, Phase::Running));
    scene.look(1_000);
    // The cellar had term 6, and it ended there.
    scene.hello(CELLAR, 6, true);
    scene.look(2_000);
    assert_eq!(scene.hive.apps[&APP].placement.device, Some(CELLAR));
    let given = (3_000..200_000).step_by(1_000).find(|now| {
        scene.report(CELLAR, 6, false, Phase::Stopped(Why::LeaseOver));
        scene.look(*now);
        scene.term() > Term(6)
    });
    given.expect("the next term is given")
}

#[test]
fn a_recovered_hive_waits_for_leases_that_it_granted_too_early() {
    assert!(restored_and_renewed() > LEASE_END);
    BROKEN.set(Some(Rule::RecoveryWaitsForLeases));
    assert!(restored_and_renewed() < LEASE_END);
}

/// A backup says that the attic has a lease; since then its app has become `manual`, and it is not heard.
fn restored_without_the_attic() -> Term {
    let mut scene = Scene::with_term(5);
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    scene.hello(CELLAR, 0, false);
    decide(&mut scene.hive, Event::FinishRecovery);
    for now in (0..300_000).step_by(1_000) {
        scene.report(CELLAR, 0, false, Phase::StandingBy);
        scene.look(now);
    }
    assert!(!scene.hive.recovering);
    scene.term()
}

#[test]
fn a_term_of_a_backup_is_not_watched_before_its_device_is_heard() {
    assert_eq!(restored_without_the_attic(), Term(5));
    BROKEN.set(Some(Rule::LeasesAreHeardOf));
    assert!(restored_without_the_attic() > Term(5));
}
