//! Scenes that seeds meet too rarely, played by the hive alone: each goes well, and shows a rule that is broken.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, CommandResult, Data, Order, Outcome, Start, Verb};
use orchestrator_api::ids::{
    AppId, CommandNumber, DeviceId, Epoch, Generation, HelloNumber, Incarnation, ManifestId, OperationId,
    ReportNumber, RunId, Seq, SessionId, Term, VolumeId, Writer,
};
use orchestrator_api::placement::{Expect, Head, Phase, Policy, Problem, StoreView, Why};
use orchestrator_api::report::{AppReport, Hello, HelloApp, Report, VolumeReport};
use orchestrator_api::times::LEASE_END;
use orchestrator_hive::rules::{BROKEN, Rule};
use orchestrator_hive::{
    Answer, App, Device, DeviceState, Event, Given, Hive, Kind, Known, Look, Operation, OperationState,
    Placement, Refused, Scheduler, Step, Wish, decide,
};

const APP: AppId = AppId([1; 16]);
const ATTIC: DeviceId = DeviceId([b'a'; 16]);
const CELLAR: DeviceId = DeviceId([b'c'; 16]);
const VOLUME: VolumeId = VolumeId([5; 32]);

/// A hive, its scheduler, and what two devices say.
struct Scene {
    hive: Hive,
    scheduler: Scheduler,
    sessions: BTreeMap<DeviceId, (SessionId, u64)>,
    /// Who tells of the app's volume, with the epoch that is its own; zero where it has none.
    held: BTreeMap<DeviceId, u64>,
}

/// A device's pseudonym in the volume.
fn writer(of: DeviceId) -> Writer {
    fs_format::DeviceId(of.0)
}

/// The first manifest of an epoch.
fn head(epoch: u64) -> Head {
    Head { epoch: Epoch(epoch), seq: Seq(epoch * 10), manifest: ManifestId([epoch as u8; 32]) }
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
            lacks_volumes: false,
            placement,
            problem: None,
        };
        hive.apps.insert(APP, app);
        Scene { hive, scheduler: Scheduler::default(), sessions: BTreeMap::new(), held: BTreeMap::new() }
    }

    fn hello(&mut self, device: DeviceId, term: u64, mine: bool) {
        self.hello_by(device, term, mine, true);
    }

    /// A hello of a device that has the ring, or of one that has nothing but a code.
    fn hello_by(&mut self, device: DeviceId, term: u64, mine: bool, proved: bool) {
        let before = self.hive.devices.get(&device).and_then(|row| row.hello);
        let number = HelloNumber(before.map_or(1, |(said, _)| said.0 + 1));
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
        let answer = decide(&mut self.hive, Event::Hello { device, hello, session, now_ms: 0, proved });
        assert!(matches!(answer, Answer::Welcome(_)), "{answer:?}");
        self.sessions.insert(device, (session, 0));
    }

    /// A report; whether the term that it asks for is granted.
    fn report(&mut self, device: DeviceId, term: u64, asks: bool, phase: Phase) -> bool {
        let (session, number) = self.sessions.get_mut(&device).expect("it said hello");
        *number += 1;
        let renew = if asks { BTreeSet::from([(APP, Term(term))]) } else { BTreeSet::new() };
        let held = self.held.get(&device).map(|epoch| VolumeReport {
            writer: writer(device),
            replicated: Some(head(*epoch)).filter(|head| head.epoch > Epoch(0)),
        });
        let volumes = held.into_iter().map(|told| (VOLUME, told)).collect();
        let here = AppReport { term: Term(term), phase, volumes };
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

/// A watch is over, and the device is heard before that is decided.
fn renewed_before_the_end() -> Term {
    let mut scene = Scene::with_term(7);
    scene.hello(ATTIC, 7, true);
    scene.hello(CELLAR, 0, false);
    scene.look(0);
    assert!(scene.report(ATTIC, 7, true, Phase::Running));
    for now in (1_000..60_000).step_by(1_000) {
        scene.report(CELLAR, 0, false, Phase::StandingBy);
        let due = scene.scheduler.look(&scene.hive, now);
        if !due.is_empty() {
            assert!(scene.report(ATTIC, 7, true, Phase::Running));
        }
        for due in due {
            decide(&mut scene.hive, due.event(OperationId([3; 16])));
        }
    }
    scene.term()
}

#[test]
fn a_renewal_before_the_end_is_decided_keeps_the_term() {
    assert_eq!(renewed_before_the_end(), Term(7));
    BROKEN.set(Some(Rule::EndCompares));
    assert!(renewed_before_the_end() > Term(7));
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

/// A restored hive that still waits for the cellar hears the attic: whether its lease is renewed.
fn renewed_while_recovering(phase: Phase) -> bool {
    let mut scene = Scene::with_term(5);
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    scene.hello(ATTIC, 5, true);
    scene.report(ATTIC, 5, true, phase)
}

/// Who claims holds no lease; the cellar may have one, for a later term that this hive forgot.
#[test]
fn a_recovering_hive_renews_only_what_is_held() {
    let held = [Phase::Mounting, Phase::Starting, Phase::Running, Phase::Stopping(Why::Ordered)];
    assert!(held.into_iter().all(renewed_while_recovering));
    assert!(!renewed_while_recovering(Phase::Claiming));
    // A mount that dies is claimed again under the lease that was renewed all the time.
    let mut scene = Scene::with_term(5);
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    scene.hello(ATTIC, 5, true);
    assert!(scene.report(ATTIC, 5, true, Phase::Running) && scene.report(ATTIC, 5, true, Phase::Claiming));
    BROKEN.set(Some(Rule::OnlyHeldIsRenewed));
    assert!(renewed_while_recovering(Phase::Claiming));
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

/// Who has nothing but a code begins no recovery, takes no app, and nobody waits for it.
#[test]
fn a_locked_device_counts_for_nothing() {
    let mut scene = Scene::with_term(5);
    scene.hello(ATTIC, 5, true);
    scene.hello_by(CELLAR, 9, true, false);
    let placement = scene.hive.apps[&APP].placement.clone();
    assert_eq!((placement.device, placement.term, scene.hive.recovering), (Some(ATTIC), Term(5), false));
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    scene.hello_by(CELLAR, 9, true, false);
    assert_eq!((scene.term(), scene.hive.heard), (Term(5), false), "the attic is waited for");
    scene.hello(ATTIC, 6, true);
    let placement = scene.hive.apps[&APP].placement.clone();
    assert_eq!((placement.device, placement.term, scene.hive.heard), (Some(ATTIC), Term(6), true));
    // The same with the ring is heard.
    scene.hello(CELLAR, 9, true);
    assert_eq!((scene.term(), scene.hive.apps[&APP].placement.device), (Term(9), Some(CELLAR)));
}

/// A device with the ring says that it has an app which its package does not allow it.
#[test]
fn what_a_package_does_not_allow_was_never_given() {
    let mut scene = Scene::with_term(5);
    decide(&mut scene.hive, Event::Restored { now_ms: 1_000 });
    if let Some(app) = scene.hive.apps.get_mut(&APP) {
        app.devices.remove(&CELLAR);
    }
    scene.hello(CELLAR, 5, true);
    assert_eq!(scene.hive.apps[&APP].placement.device, Some(ATTIC));
}

/// The attic is cut off and revoked, with a lease, and then the app is started elsewhere; when that has its term.
fn started_after_a_revocation(phase: Phase) -> u64 {
    let mut scene = Scene::with_term(5);
    if let Some(app) = scene.hive.apps.get_mut(&APP) {
        app.wanted = phase == Phase::Running;
    }
    scene.hello(ATTIC, 5, true);
    scene.hello(CELLAR, 0, false);
    scene.look(0);
    scene.report(ATTIC, 5, phase == Phase::Running, phase);
    scene.report(CELLAR, 0, false, Phase::StandingBy);
    scene.look(1_000);
    scene.report(CELLAR, 0, false, Phase::StandingBy);
    if let Some(attic) = scene.hive.devices.get_mut(&ATTIC) {
        attic.state = DeviceState::Revoked;
    }
    decide(&mut scene.hive, Event::GivenUp { app: APP, problem: Some(Refused::NoCandidate) });
    let app = &scene.hive.apps[&APP];
    assert_eq!((app.wanted, app.placement.device, app.placement.term), (false, None, Term(5)));
    // A change of policy takes no lease off that nobody hears of.
    let ordered = |scene: &mut Scene, id, kind, to| {
        let wish = Wish { app: APP, kind, to };
        let answer = decide(&mut scene.hive, Event::Ordered { operation: OperationId(id), wish });
        assert!(matches!(answer, Answer::Ordered(Ok(_))), "{answer:?}");
    };
    ordered(&mut scene, [8; 16], Kind::Settings(Policy::Manual), None);
    ordered(&mut scene, [9; 16], Kind::Start, Some(CELLAR));
    scene.look(2_000);
    let operation = &scene.hive.operations[&OperationId([9; 16])];
    let (device, number) = operation.waits.expect("it is prepared");
    assert_eq!((operation.step, device), (Step::Prepare, CELLAR));
    let (session, _) = scene.sessions[&CELLAR];
    let result = CommandResult { number, app: APP, outcome: Outcome::Done, data: Default::default() };
    decide(&mut scene.hive, Event::Result { device, session, result });
    let given = (2_000..200_000).step_by(1_000).find(|now| {
        scene.report(CELLAR, 0, false, Phase::StandingBy);
        scene.look(*now);
        scene.term() > Term(5)
    });
    assert_eq!(scene.hive.apps[&APP].placement.device, Some(CELLAR));
    given.expect("the next term is given")
}

#[test]
fn a_start_waits_for_the_lease_of_a_device_that_was_revoked() {
    assert!(started_after_a_revocation(Phase::Running) > LEASE_END);
    assert!(started_after_a_revocation(Phase::Stopped(Why::Ordered)) < LEASE_END);
}

/// An app was started, and the device that has its volumes did not tell of them: it is waited for.
#[test]
fn an_app_whose_volumes_are_unknown_is_given_to_nobody_else() {
    let mut scene = Scene::with_term(5);
    if let Some(app) = scene.hive.apps.get_mut(&APP) {
        app.lacks_volumes = true;
    }
    scene.hello(ATTIC, 5, true);
    scene.hello(CELLAR, 0, false);
    let wish = Wish { app: APP, kind: Kind::Force { even_if_online: true }, to: Some(CELLAR) };
    let answer = decide(&mut scene.hive, Event::Ordered { operation: OperationId([9; 16]), wish });
    assert_eq!(answer, Answer::Ordered(Err(Refused::VolumesUnknown)));
    for now in (0..120_000).step_by(1_000) {
        scene.report(CELLAR, 0, false, Phase::StandingBy);
        scene.look(now);
    }
    let app = &scene.hive.apps[&APP];
    assert_eq!((app.placement.device, app.placement.term), (Some(ATTIC), Term(5)));
    assert_eq!(app.problem, Some(Refused::VolumesUnknown));
    for now in (120_000..260_000).step_by(1_000) {
        scene.report(ATTIC, 5, false, Phase::Stopped(Why::LeaseOver));
        scene.look(now);
    }
    assert!(scene.term() > Term(5));
    assert_eq!(scene.hive.apps[&APP].placement.device, Some(ATTIC));
}

/// The app runs on the attic, without a lease, and is to move to the cellar.
struct Moving {
    scene: Scene,
    operation: OperationId,
    /// Who reports, every ten seconds, and in which phase of which term.
    well: BTreeMap<DeviceId, (u64, Phase)>,
    now: u64,
}

impl Moving {
    fn ordered(leased: bool) -> Moving {
        let mut scene = Scene::with_term(5);
        if let Some(app) = scene.hive.apps.get_mut(&APP) {
            app.placement.leased = leased;
            app.policy = if leased { Policy::Auto } else { Policy::Manual };
        }
        scene.hello(ATTIC, 5, true);
        scene.hello(CELLAR, 0, false);
        let well = BTreeMap::from([(ATTIC, (5, Phase::Running)), (CELLAR, (0, Phase::StandingBy))]);
        let mut moving = Moving { scene, operation: OperationId([9; 16]), well, now: 0 };
        moving.pass(11);
        let wish = Wish { app: APP, kind: Kind::Move, to: Some(CELLAR) };
        let answer = decide(&mut moving.scene.hive, Event::Ordered { operation: moving.operation, wish });
        assert!(matches!(answer, Answer::Ordered(Ok(_))), "{answer:?}");
        moving.pass(2);
        moving
    }

    /// Seconds, in which those who are well report.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1_000;
            if self.now.is_multiple_of(10_000) {
                for (device, (term, phase)) in self.well.clone() {
                    self.scene.report(device, term, phase == Phase::Running, phase);
                }
            }
            self.scene.look(self.now);
        }
    }

    /// What a device is still asked to do.
    fn asked(&mut self, device: DeviceId) -> Vec<Command> {
        let (session, _) = self.scene.sessions[&device];
        match decide(&mut self.scene.hive, Event::Poll { device, session, have: Default::default() }) {
            Answer::Commands(commands) => commands,
            other => panic!("{other:?}"),
        }
    }

    /// It does the one thing that it is asked to do.
    fn does(&mut self, device: DeviceId, verb: Verb) {
        let commands = self.asked(device);
        assert_eq!(commands.iter().map(|it| it.order.verb()).collect::<Vec<_>>(), [verb]);
        let own = self.scene.held.get(&device).filter(|epoch| **epoch > 0 && verb != Verb::Prepare);
        let heads = own.map(|epoch| (VOLUME, head(*epoch))).into_iter().collect();
        let data = Data { heads, started: own.is_some(), healthy: own.is_some(), ..Data::default() };
        let (number, outcome) = (commands[0].number, Outcome::Done);
        let result = CommandResult { number, app: APP, outcome, data };
        let (session, _) = self.scene.sessions[&device];
        decide(&mut self.scene.hive, Event::Result { device, session, result });
    }

    fn state(&self) -> (Step, OperationState) {
        let operation = &self.scene.hive.operations[&self.operation];
        (operation.step, operation.state)
    }

    /// Seconds until the operation has ended, or is at another step.
    fn until_it_goes_on(&mut self) -> u64 {
        let (was, begun) = (self.state(), self.now);
        while self.state() == was {
            assert!(self.now - begun < 600_000, "it stays at {was:?}");
            self.pass(1);
        }
        (self.now - begun) / 1_000
    }

    fn placed(&self) -> (Option<DeviceId>, u64) {
        let placement = &self.scene.hive.apps[&APP].placement;
        (placement.device, placement.term.0)
    }
}

const SILENT: OperationState = OperationState::Failed(Refused::DeviceSilent);

#[test]
fn a_move_ends_soon_when_a_device_is_lost_while_the_target_is_prepared() {
    for lost in [ATTIC, CELLAR] {
        let mut moving = Moving::ordered(false);
        assert_eq!(moving.state().0, Step::Prepare);
        moving.well.remove(&lost);
        assert!(moving.until_it_goes_on() <= 41);
        assert_eq!(moving.state(), (Step::Prepare, SILENT));
        assert_eq!(moving.placed(), (Some(ATTIC), 5), "nothing has happened");
        assert!(moving.asked(CELLAR).is_empty());
    }
}

#[test]
fn a_move_that_a_person_wants_back_goes_back_while_it_is_handed_over() {
    for leased in [false, true] {
        let mut moving = Moving::ordered(leased);
        moving.does(CELLAR, Verb::Prepare);
        let count = moving.scene.hive.operations[&moving.operation].count;
        let late = Event::Back { operation: moving.operation, count: count - 1 };
        decide(&mut moving.scene.hive, late);
        assert_eq!(moving.state().0, Step::HandOver, "that was about an earlier step");
        decide(&mut moving.scene.hive, Event::Back { operation: moving.operation, count });
        assert_eq!((moving.state().0, moving.placed()), (Step::Return, (Some(ATTIC), 6)), "leased: {leased}");
        let asked: Vec<Verb> = moving.asked(ATTIC).iter().map(|it| it.order.verb()).collect();
        assert_eq!(asked, [Verb::HandOver, Verb::Start], "the start makes the other one obsolete");
        assert!(moving.asked(CELLAR).is_empty());
    }
}

#[test]
fn a_source_that_is_lost_before_it_hands_over_goes_on_when_it_is_back() {
    let mut moving = Moving::ordered(false);
    moving.does(CELLAR, Verb::Prepare);
    moving.well.remove(&ATTIC);
    assert_eq!(moving.state().0, Step::HandOver);
    assert!(moving.until_it_goes_on() <= 41);
    assert_eq!(moving.state(), (Step::HandOver, SILENT));
    // It is back, and was never asked: it goes on as it did.
    assert!(moving.asked(ATTIC).is_empty());
    moving.well.insert(ATTIC, (5, Phase::Running));
    moving.pass(120);
    assert_eq!((moving.placed(), moving.scene.hive.operations.len()), ((Some(ATTIC), 5), 1));
}

#[test]
fn a_source_that_did_hand_over_unheard_runs_the_app_again() {
    let mut moving = Moving::ordered(false);
    moving.does(CELLAR, Verb::Prepare);
    let order = moving.asked(ATTIC).remove(0);
    moving.well.remove(&ATTIC);
    assert!(moving.until_it_goes_on() <= 41);
    // What it says of an order that was taken back is kept by nobody, and it need not say it again.
    let (session, _) = moving.scene.sessions[&ATTIC];
    let result =
        CommandResult { number: order.number, app: APP, outcome: Outcome::Done, data: Default::default() };
    let kept = decide(&mut moving.scene.hive, Event::Result { device: ATTIC, session, result });
    assert_eq!(kept, Answer::Kept(order.number));
    moving.well.insert(ATTIC, (5, Phase::Stopped(Why::HandOver { resume: false })));
    moving.pass(12);
    assert_eq!(moving.placed(), (Some(ATTIC), 6), "it is wanted, so it gets the next term");
    moving.does(ATTIC, Verb::Start);
}

#[test]
fn a_lost_source_is_left_behind_with_force_meanwhile() {
    let mut moving = Moving::ordered(false);
    moving.does(CELLAR, Verb::Prepare);
    moving.well.remove(&ATTIC);
    moving.until_it_goes_on();
    moving.operation = OperationId([8; 16]);
    let wish = Wish { app: APP, kind: Kind::Force { even_if_online: false }, to: Some(CELLAR) };
    let answer = decide(&mut moving.scene.hive, Event::Ordered { operation: moving.operation, wish });
    assert!(matches!(answer, Answer::Ordered(Ok(_))), "{answer:?}");
    moving.pass(1);
    moving.does(CELLAR, Verb::Prepare);
    moving.does(CELLAR, Verb::Start);
    assert_eq!((moving.state().1, moving.placed()), (OperationState::Done, (Some(CELLAR), 6)));
    assert!(moving.asked(ATTIC).is_empty(), "it is told by the answer to its next report alone");
}

#[test]
fn an_app_goes_back_soon_when_its_target_is_lost() {
    let mut moving = Moving::ordered(false);
    moving.does(CELLAR, Verb::Prepare);
    moving.well.remove(&CELLAR);
    moving.does(ATTIC, Verb::HandOver);
    moving.well.insert(ATTIC, (5, Phase::Stopped(Why::HandOver { resume: false })));
    assert_eq!(moving.state().0, Step::Start);
    let away = moving.now;
    while moving.state().0 != Step::Return {
        moving.until_it_goes_on();
    }
    assert!(moving.now - away <= 43_000, "{}", moving.now - away);
    assert_eq!(moving.placed(), (Some(ATTIC), 7));
    moving.does(ATTIC, Verb::Start);
    assert_eq!(moving.state().1, SILENT);
}

/// A source that reports is asked for as long as ever, and nobody else gets the app before it let go.
fn waited_for() -> Option<DeviceId> {
    let mut moving = Moving::ordered(false);
    moving.pass(300);
    assert_eq!(moving.state(), (Step::Prepare, OperationState::Running));
    moving.does(CELLAR, Verb::Prepare);
    assert!((170..=182).contains(&moving.until_it_goes_on()));
    moving.placed().0
}

#[test]
fn a_device_that_reports_is_waited_for() {
    assert_eq!(waited_for(), Some(ATTIC));
    BROKEN.set(Some(Rule::GrantAfterRelease));
    assert_eq!(waited_for(), Some(CELLAR));
}

/// Under a lease the watch alone says that the source is over; the move's target is the first that gets the app.
#[test]
fn a_lost_source_under_a_lease_is_failed_over_from() {
    let mut moving = Moving::ordered(true);
    moving.does(CELLAR, Verb::Prepare);
    moving.well.remove(&ATTIC);
    let ended = moving.until_it_goes_on();
    assert!((30..=48).contains(&ended), "{ended}");
    assert_eq!(moving.state().1, OperationState::Failed(Refused::LeaseOver));
    assert_eq!(moving.placed(), (Some(CELLAR), 6));
}

/// A hive that was away for long has heard nobody, and calls nobody silent.
#[test]
fn a_hive_that_was_away_calls_nobody_silent() {
    let mut moving = Moving::ordered(false);
    moving.now += 300_000;
    moving.scene.look(moving.now);
    moving.pass(11);
    assert_eq!(moving.state(), (Step::Prepare, OperationState::Running));
}

/// The attic is lost, and the cellar has nothing of the app yet: it has to be prepared.
fn failing_over() -> Moving {
    let mut moving = Moving::ordered(true);
    let ordered = moving.operation;
    moving.scene.hive.operations.remove(&ordered);
    moving.scene.hive.commands.clear();
    if let Some(app) = moving.scene.hive.apps.get_mut(&APP) {
        app.volumes.insert(VOLUME, Known::default());
    }
    moving.well.remove(&ATTIC);
    let begun = moving.now;
    while moving.scene.hive.operations.is_empty() {
        assert!(moving.now - begun < 100_000, "nothing begins");
        moving.pass(1);
    }
    moving.operation = *moving.scene.hive.operations.keys().next().expect("there is one");
    assert_eq!((moving.state().0, moving.scene.hive.apps[&APP].placement.withdrawn), (Step::Prepare, true));
    moving
}

/// Seconds until the term of before is renewed again: nobody keeps an app from running for long who says nothing.
#[test]
fn a_candidate_that_does_not_get_ready_holds_an_app_for_two_minutes() {
    let mut moving = failing_over();
    assert!((118..=122).contains(&moving.until_it_goes_on()));
    moving.pass(2);
    let placement = &moving.scene.hive.apps[&APP].placement;
    assert_eq!(
        (moving.state().1, placement.withdrawn),
        (OperationState::Failed(Refused::NoCandidate), false)
    );
    // For a minute whoever has it may go on, if he returns.
    moving.pass(50);
    assert_eq!((moving.scene.hive.operations.len(), moving.placed()), (1, (Some(ATTIC), 5)));
    assert!(moving.scene.report(ATTIC, 5, true, Phase::Running));
}

#[test]
fn a_candidate_that_is_lost_too_is_not_waited_for() {
    let mut moving = failing_over();
    moving.well.remove(&CELLAR);
    assert!(moving.until_it_goes_on() <= 41);
    moving.pass(2);
    assert_eq!(moving.state().1, OperationState::Failed(Refused::NoCandidate));
}

/// After how long a planned move is taken back whose target says nothing, for an app that may take so long to get healthy.
fn taken_back_after(gate_ms: Option<u64>) -> u64 {
    let mut scene = Scene::with_term(7);
    scene.hive.gates.extend(gate_ms.map(|gate_ms| (APP, gate_ms)));
    let operation = Operation {
        app: APP,
        kind: Kind::Move,
        step: Step::Start,
        count: 3,
        waits: None,
        from: Some(CELLAR),
        to: Some(ATTIC),
        heads: None,
        rollback_to: BTreeMap::new(),
        tried: BTreeSet::new(),
        reason: None,
        state: OperationState::Running,
    };
    scene.hive.operations.insert(OperationId([1; 16]), operation);
    let late = Look::Late(OperationId([1; 16]), 3);
    let found =
        (0..5_000_000).step_by(1_000).find(|now| scene.scheduler.look(&scene.hive, *now).contains(&late));
    found.expect("it is late at some time")
}

#[test]
fn a_start_is_waited_for_as_long_as_its_app_may_take_to_get_healthy() {
    assert_eq!(taken_back_after(None), 210_000);
    assert_eq!(taken_back_after(Some(600_000)), 750_000);
    assert_eq!(taken_back_after(Some(5_000)), 155_000);
}

/// The attic's app, of which its volume's first epoch is known, moves to the cellar; that reports these phases while it
/// starts, and then its result comes, or is lost. Who is known to have written since, and who may have by the start that
/// the cellar gets from a hive that was restored to that moment.
fn restored_after_a_move(reported: &[Phase], is_answered: bool) -> (BTreeSet<Writer>, Expect) {
    let mut moving = Moving::ordered(false);
    let known = Known { writers: BTreeSet::from([writer(ATTIC)]), ..Known::default() };
    if let Some(app) = moving.scene.hive.apps.get_mut(&APP) {
        app.volumes.insert(VOLUME, Known { epoch: Epoch(1), seq: Seq(10), ..known });
    }
    moving.scene.held = BTreeMap::from([(ATTIC, 1), (CELLAR, 0)]);
    moving.pass(10);
    moving.does(CELLAR, Verb::Prepare);
    moving.does(ATTIC, Verb::HandOver);
    moving.well.insert(ATTIC, (5, Phase::Stopped(Why::HandOver { resume: false })));
    moving.scene.held.insert(CELLAR, 2);
    for phase in reported {
        moving.well.insert(CELLAR, (6, *phase));
        moving.pass(10);
    }
    if is_answered {
        moving.does(CELLAR, Verb::Start);
        assert_eq!(moving.state().1, OperationState::Done);
    }
    let writers = moving.scene.hive.apps[&APP].volumes[&VOLUME].writers.clone();
    // Now a backup is made, the app moves back, the hive is lost, and the attic is not heard any more.
    decide(&mut moving.scene.hive, Event::Restored { now_ms: 1_000 });
    moving.scene.hello(CELLAR, 7, false);
    moving.scene.held.insert(CELLAR, 0);
    moving.well = BTreeMap::from([(CELLAR, (7, Phase::StandingBy))]);
    decide(&mut moving.scene.hive, Event::FinishRecovery);
    moving.pass(60);
    let app = &moving.scene.hive.apps[&APP];
    assert_eq!((moving.scene.hive.recovering, app.problem), (false, Some(Refused::NotHeld)));
    let wish = Wish { app: APP, kind: Kind::Start, to: Some(CELLAR) };
    moving.operation = OperationId([8; 16]);
    let answer = decide(&mut moving.scene.hive, Event::Ordered { operation: moving.operation, wish });
    assert!(matches!(answer, Answer::Ordered(Ok(_))), "{answer:?}");
    moving.pass(2);
    moving.does(CELLAR, Verb::Prepare);
    match moving.asked(CELLAR).remove(0).order {
        Order::Start(start) => (writers, start.volumes[&VOLUME].clone()),
        other => panic!("{other:?}"),
    }
}

/// What a device does that a restored hive does not hear of ends every start elsewhere, until a person accepts it: however
/// the hive had learnt of the epoch before.
#[test]
fn a_writer_whose_epoch_is_over_is_not_expected_any_more() {
    let back_on_the_attic =
        StoreView { newest: Some((head(3), writer(ATTIC))), claim: Some((Epoch(3), writer(ATTIC))) };
    let told: [(&[Phase], bool); 5] = [
        (&[], true),
        (&[Phase::Claiming], true),
        (&[Phase::Starting], true),
        (&[Phase::Stopped(Why::Ordered)], true),
        (&[Phase::Mounting], false),
    ];
    for (reported, is_answered) in told {
        let (writers, expect) = restored_after_a_move(reported, is_answered);
        assert_eq!(writers, BTreeSet::from([writer(CELLAR)]), "{reported:?} {is_answered}");
        assert!(!expect.allows(&back_on_the_attic, writer(CELLAR)), "{reported:?} {is_answered}: {expect:?}");
    }
    BROKEN.set(Some(Rule::EpochEndsOthers));
    let (_, expect) = restored_after_a_move(&[Phase::Starting], true);
    assert!(expect.allows(&back_on_the_attic, writer(CELLAR)), "{expect:?}");
}

/// Who claims may tell of the epoch that it had before others had the app: those are expected still.
#[test]
fn a_device_that_claims_ends_nobody() {
    let mut scene = Scene::with_term(7);
    let both = BTreeSet::from([writer(ATTIC), writer(CELLAR)]);
    if let Some(app) = scene.hive.apps.get_mut(&APP) {
        app.volumes.insert(VOLUME, Known { epoch: Epoch(1), writers: both.clone(), ..Known::default() });
    }
    scene.hello(ATTIC, 7, true);
    scene.held.insert(ATTIC, 2);
    let known = |scene: &Scene| scene.hive.apps[&APP].volumes[&VOLUME].clone();
    for phase in [Phase::Claiming, Phase::Stopped(Why::Failed(Problem::StoreUnreachable))] {
        scene.report(ATTIC, 7, true, phase);
        assert_eq!(known(&scene).writers, both, "{phase:?}");
    }
    scene.held.insert(ATTIC, 3);
    scene.report(ATTIC, 7, true, Phase::Mounting);
    assert_eq!((known(&scene).epoch, known(&scene).writers), (Epoch(3), BTreeSet::from([writer(ATTIC)])));
    // A report of the same epoch takes away nobody whom a person has accepted meanwhile.
    if let Some(known) = scene.hive.apps.get_mut(&APP).and_then(|app| app.volumes.get_mut(&VOLUME)) {
        known.writers.insert(writer(CELLAR));
    }
    scene.report(ATTIC, 7, true, Phase::Running);
    assert_eq!(known(&scene).writers, both);
}

/// The cellar claims in a term that was given to the attic meanwhile, after it; its answer comes when nobody waits for it.
/// Who is expected of the head that it made.
fn expected_after_a_slow_claim(state: OperationState, outcome: Outcome) -> (Epoch, BTreeSet<Writer>) {
    let mut scene = Scene::with_term(7);
    let known = Known { epoch: Epoch(3), writers: BTreeSet::from([writer(ATTIC)]), ..Known::default() };
    if let Some(app) = scene.hive.apps.get_mut(&APP) {
        app.volumes.insert(VOLUME, known);
    }
    scene.hello(CELLAR, 6, true);
    scene.held.insert(CELLAR, 0);
    scene.report(CELLAR, 6, true, Phase::Claiming);
    let (operation, number) = (OperationId([9; 16]), CommandNumber(1));
    let wish = Wish { app: APP, kind: Kind::Force { even_if_online: true }, to: Some(CELLAR) };
    decide(&mut scene.hive, Event::Ordered { operation, wish });
    if let Some(operation) = scene.hive.operations.get_mut(&operation) {
        (operation.state, operation.step, operation.waits) = (state, Step::Start, Some((CELLAR, number)));
    }
    let order =
        Order::Start(Start { policy: Policy::Auto, volumes: BTreeMap::new(), rollback_to: BTreeMap::new() });
    let command = Command { number, operation, app: APP, term: Term(6), generation: Generation(1), order };
    scene.hive.commands.insert((CELLAR, number), Given { command, result: None });
    let data = Data { heads: BTreeMap::from([(VOLUME, head(4))]), started: true, ..Data::default() };
    let result = CommandResult { number, app: APP, outcome, data };
    let session = scene.sessions[&CELLAR].0;
    decide(&mut scene.hive, Event::Result { device: CELLAR, session, result });
    let known = &scene.hive.apps[&APP].volumes[&VOLUME];
    (known.epoch, known.writers.clone())
}

#[test]
fn who_was_slow_to_claim_is_expected_and_ends_nobody() {
    let forced = OperationState::Failed(Refused::Forced);
    let fenced = Outcome::Failed(Problem::Fenced);
    let both = BTreeSet::from([writer(ATTIC), writer(CELLAR)]);
    for (state, outcome) in [(forced, fenced), (forced, Outcome::Done), (OperationState::Running, fenced)] {
        assert_eq!(
            expected_after_a_slow_claim(state, outcome),
            (Epoch(4), both.clone()),
            "{state:?} {outcome:?}"
        );
    }
    let only = BTreeSet::from([writer(CELLAR)]);
    assert_eq!(expected_after_a_slow_claim(OperationState::Running, Outcome::Done), (Epoch(4), only.clone()));
    BROKEN.set(Some(Rule::SlowEndsNobody));
    assert_eq!(expected_after_a_slow_claim(forced, fenced), (Epoch(4), only));
}
