//! What the daemon does with what volumes, Docker and the hive say, in a folder of its own.

mod back;
mod docker;
mod forged;
mod page;
mod revoked;
mod scene;
mod still;
mod streams;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fs_crypto::{EntryKey, RingEntry, VolumeKey};
use orchestrator_api::command::{CommandResult, Data, Order, Outcome, Verb};
use orchestrator_api::ids::{
    AppId, CommandNumber, DeviceId, Generation, HelloNumber, Incarnation, OperationId, ReportNumber, RunId,
    Seq, SessionId, Term, VolumeId,
};
use orchestrator_api::placement::{Phase, Problem, Why};
use orchestrator_api::report::{AppReport, Hello, Report, Welcome};
use orchestrator_api::text::Hex;
use orchestrator_api::wire::command::{Command, MomentName, MomentReason, ResultState};
use orchestrator_api::wire::device::APPS_MAX;
use orchestrator_api::wire::report as wire;
use orchestrator_api::wire::value::Text;
use serde_json::{Value, json};

use self::scene::{APP, OTHER, Scene, branch, entry, seal, state};
use crate::app::volume_name;
use crate::daemon::files::{AppFile, AppVolume};
use crate::daemon::talk::failed;
use crate::doors::ring;
use crate::record::{Disk, Kept, Record};
use crate::trouble::Trouble;
use crate::{Device, Effect, Event, Found, decide};

const SESSION: SessionId = SessionId([1; 16]);

fn operation(number: u64) -> OperationId {
    let mut bytes = [number as u8; 16];
    (bytes[6], bytes[8]) = (0x40, 0x80);
    OperationId(bytes)
}

fn command(number: u64, app: AppId, order: Value) -> Command {
    let mut json = json!({
        "number": number, "operation": operation(number), "app": app, "term": 1, "generation": 1,
    });
    let (json, order) = (json.as_object_mut().map(std::mem::take), order.as_object().cloned());
    let all: serde_json::Map<String, Value> = json.into_iter().chain(order).flatten().collect();
    serde_json::from_value(all.into()).expect("a command")
}

#[tokio::test]
async fn a_hive_from_before_a_restore_is_told_of_and_not_listened_to() {
    let mut scene = Scene::with_hive(json!({
        "session": "11".repeat(16), "incarnation": 4, "recovering": false, "report_every_ms": 10_000,
        "ring": null, "locked": true, "packages": [],
    }))
    .await;
    let hello = |incarnation| Hello {
        number: HelloNumber(3),
        run: RunId([1; 16]),
        incarnation: Incarnation(incarnation),
        command: CommandNumber(0),
        apps: BTreeMap::new(),
    };
    scene.world.clone().hello(hello(5)).await;
    assert!(scene.inbox.try_recv().is_err(), "nothing follows from it");
    {
        let seen = scene.world.seen.lock();
        assert!(seen.answer.starts_with(Problem::HiveWentBack.text()), "{}", seen.answer);
        assert_eq!((seen.session, seen.online), (None, None));
    }
    scene.world.clone().hello(hello(4)).await;
    assert!(
        matches!(scene.inbox.try_recv(), Ok(Event::Welcome(Ok(welcome))) if welcome.session == SessionId([0x11; 16]))
    );
    assert_eq!(scene.world.seen.lock().answer, "online");
}

#[test]
fn a_revoked_device_loses_no_key_that_could_not_be_had_again() {
    for is_locked in [false, true] {
        let scene = Scene::new();
        let (ours, lone, own) =
            (VolumeKey::from_seed([1; 32]), VolumeKey::from_seed([2; 32]), VolumeKey::from_seed([3; 32]));
        let keys = [(&ours, "app-data"), (&lone, "app-cache"), (&own, "photos")];
        for (key, name) in keys {
            scene.volume_folder(key, name);
        }
        // One is an app's and in the ring, one an app's that the ring lacks, one in the ring and nobody's app.
        scene.ring(&[entry(&ours), entry(&own)]);
        scene.has_volumes(&[("data", ours.id()), ("cache", lone.id())]);
        let branch = scene.key_of(&ours).parent().expect("a folder").join("branches/cut-6-e1/key");
        std::fs::create_dir_all(branch.parent().expect("a folder")).expect("made");
        std::fs::write(&branch, "key").expect("written");
        if is_locked {
            std::fs::remove_file(scene.state.join("ring.key")).expect("there");
        }

        let wiped = scene.world.wipe().expect("wiped");
        assert_eq!(scene.key_of(&ours).exists(), is_locked, "locked: {is_locked}");
        assert_eq!(branch.exists(), is_locked);
        assert!(scene.key_of(&lone).exists() && scene.key_of(&own).exists());
        let expected: &[&str] =
            if is_locked { &["app-cache", "app-data", "photos"] } else { &["app-cache", "photos"] };
        assert_eq!(wiped.kept, expected);
        assert!(wiped.to_string().contains("app-cache, "), "{wiped}");
        // The device is nobody's; the ring is there, and needs its passphrase.
        assert!(scene.world.folder.identity().expect("read").is_none());
        assert!(scene.state.join("ring").exists() && ring::is_locked(&scene.state));
        let again = scene.world.wipe().expect("what a crash left is wiped as well");
        assert_eq!(again.kept, wiped.kept);
        let passphrase = scene::passphrase();
        let object = ring::object(&scene.state).expect("there");
        let opened =
            fs_crypto::Ring::open_with_passphrase(&object, &passphrase).expect("its passphrase opens it");
        assert!(matches!(opened.entry(&ours.id()).map(|entry| &entry.key), Some(EntryKey::Volume(_))));
    }
}

#[tokio::test]
async fn what_is_in_no_store_is_not_removed_unless_a_person_says_so() {
    let scene = Scene::new();
    scene.docker(|_, _| Some(json!([])));
    let (data, cache) = (volume_name(APP, "data"), volume_name(APP, "cache"));
    scene.has_volumes(&[("data", VolumeId([1; 32])), ("cache", VolumeId([2; 32]))]);
    let forget = |discard| scene.world.forget(APP, Term(1), false, discard);
    {
        let mut volumes = scene.volumes.seen.lock();
        volumes.states = vec![state(&data, 9, Some(7), 4_096), state(&cache, 5, Some(5), 0)];
    }
    let trouble = forget(false).await.expect_err("the store is away");
    assert_eq!(trouble.problem, Problem::PublishLate);
    assert!(
        trouble.text().contains("data (4096 bytes)") && !trouble.text().contains("cache"),
        "{}",
        trouble.text()
    );
    let order = command(3, APP, json!({"do": "forget", "keep_data": false}));
    let told = scene.world.with_late(&order, failed(CommandNumber(3), &trouble)).await;
    let told: Vec<(&str, u64)> =
        told.data.late.iter().map(|late| (late.name.as_str(), late.bytes.0)).collect();
    assert_eq!(told, [("data", 4_096)]);
    assert_eq!(scene.volumes.seen.lock().removed, Vec::<String>::new());
    assert!(scene.volumes.seen.lock().synced.iter().eq([&data]), "it was tried");

    // The store answers: what it lacked goes there first.
    scene.volumes.seen.lock().store_answers = true;
    scene.volumes.seen.lock().branches.insert(cache.clone(), vec![branch("cut-3-e1", 77)]);
    let trouble = forget(false).await.expect_err("a tail is in no store, ever");
    assert!(
        trouble.text().contains("cache/cut-3-e1 (77 bytes)") && !trouble.text().contains("data"),
        "{}",
        trouble.text()
    );
    scene.volumes.seen.lock().branches.clear();
    forget(false).await.expect("all is in the store");
    assert_eq!(scene.volumes.seen.lock().removed, [data.clone(), cache.clone()]);

    // With what could not be had again, since somebody said so; kept, nobody needs to.
    {
        let mut volumes = scene.volumes.seen.lock();
        (volumes.store_answers, volumes.removed, volumes.synced) = (false, Vec::new(), Vec::new());
        volumes.states = vec![state(&data, 9, None, 0)];
    }
    scene.world.forget(APP, Term(1), true, false).await.expect("its data stays");
    assert_eq!(scene.volumes.seen.lock().removed, Vec::<String>::new());
    forget(true).await.expect("it was said");
    assert_eq!(scene.volumes.seen.lock().removed, [data, cache]);
    assert!(scene.volumes.seen.lock().synced.is_empty());
}

#[test]
fn what_a_store_lacks_of_a_volume_is_told_for_each_way_it_can_be() {
    let lacking = |change: &dyn Fn(&mut crate::doors::volumes::VolumeState)| {
        let mut state = state("data", 9, Some(9), 0);
        change(&mut state);
        state.lacking()
    };
    assert_eq!(lacking(&|_| {}), None);
    assert_eq!(lacking(&|state| state.arbiter.as_mut().expect("one").replicated = Some(Seq(8))), Some(0));
    assert_eq!(
        lacking(&|state| state.arbiter.as_mut().expect("one").backlog_bytes = 5),
        Some(5),
        "not sealed yet"
    );
    assert_eq!(lacking(&|state| state.arbiter = None), Some(1_000), "it goes nowhere");
    assert_eq!(lacking(&|state| state.head = None), Some(0), "it cannot be read");
    let others = |seq| {
        move |state: &mut crate::doors::volumes::VolumeState| {
            state.is_others = true;
            state.arbiter.as_mut().expect("one").replicated = seq;
        }
    };
    assert_eq!(lacking(&others(Some(Seq(4)))), None, "all of it came from there");
    assert_eq!(
        lacking(&|state| {
            others(Some(Seq(4)))(state);
            state.arbiter.as_mut().expect("one").backlog_bytes = 3;
        }),
        Some(3),
        "taken over, with a tail"
    );
}

#[tokio::test]
async fn a_moment_that_somebody_took_is_told_and_found_however_much_came_after_it() {
    let scene = Scene::new();
    let names = [volume_name(APP, "data"), volume_name(APP, "cache")];
    let ids = [VolumeId([1; 32]), VolumeId([2; 32])];
    scene.has_volumes(&[("data", ids[0]), ("cache", ids[1])]);
    for name in &names {
        let mut seals: Vec<_> = (2..=1_600).rev().map(|seq| seal(seq, &[])).collect();
        seals.push(seal(1, &["before-the-move", "asked"]));
        scene.volumes.seen.lock().seals.insert(name.clone(), seals);
    }
    let moments = scene.world.moments(APP).await.expect("told");
    assert_eq!(moments.len(), 1_000);
    assert!(moments.is_sorted_by_key(|moment| std::cmp::Reverse(moment.time)));
    let kept = moments.last().expect("the oldest");
    assert_eq!(kept.tag.as_ref().map(Text::as_str), Some("before-the-move"));
    assert_eq!((kept.reason, kept.volumes.len()), (MomentReason::Asked, 2));
    assert_eq!(moments.iter().filter(|moment| moment.reason == MomentReason::Regular).count(), 999);

    let known: BTreeMap<VolumeId, String> = ids.into_iter().zip(names).collect();
    let find = async |to: MomentName| scene.world.whens(&known, &to).await;
    let tag = |text: &str| MomentName::Tag(Text::cut(text));
    assert_eq!(find(tag("before-the-move")).await.expect("there").len(), 2);
    let seals = |seq: u64| {
        MomentName::Seals(ids.iter().map(|id| (orchestrator_api::text::Hex(id.0), seq.into())).collect())
    };
    assert!(find(seals(2)).await.is_ok(), "an old one that came by itself");
    for missing in [tag("never"), seals(7_000)] {
        assert_eq!(find(missing).await.expect_err("nowhere").problem, Problem::InstantTorn);
    }
}

/// An app whose start waits for a store stands in no other's way, and in its own.
#[tokio::test]
async fn commands_of_one_app_wait_for_each_other_and_for_no_other_app() {
    let mut scene = Scene::new();
    scene.ring(&[]);
    scene.package(APP, "services: {web: {image: busybox}}\n");
    let gate = Arc::new(tokio::sync::Notify::new());
    scene.volumes.seen.lock().gate = Some(gate.clone());
    let start = json!({
        "do": "start", "revision": 1, "policy": "manual", "stores": [], "seal_every_s": 15, "rollback_to": null,
        "volumes": [{"name": "data", "volume": null, "expect": {"since": {"epoch": 0, "seq": 0, "writers": []}}}],
    });
    let stop = json!({"do": "stop"});
    for (number, app, order) in [(1, APP, start), (2, APP, stop.clone()), (3, OTHER, stop)] {
        scene.world.take_in_turn(app, SESSION, command(number, app, order));
    }
    let taken = |event: Option<Event>| match event {
        Some(Event::Commands(_, Ok(commands))) => {
            commands.iter().map(|it| (it.app, it.number.0)).collect::<Vec<_>>()
        }
        _ => panic!("commands are taken"),
    };
    let wait = Duration::from_secs(20);
    let first = tokio::time::timeout(wait, scene.inbox.recv()).await.expect("the other app goes on");
    assert_eq!(taken(first), [(OTHER, 3)]);
    let more = tokio::time::timeout(Duration::from_millis(300), scene.inbox.recv()).await;
    assert!(more.is_err(), "the stop stays behind its start");
    gate.notify_one();
    let second = tokio::time::timeout(wait, scene.inbox.recv()).await.expect("then it is its turn");
    assert_eq!(taken(second), [(APP, 2)]);
    // The start could not be made ready, since there is no hive for the key ring: its result is kept, and given again it is
    // answered from there.
    let again = command(4, APP, json!({"do": "stop"}));
    let again = Command { operation: operation(1), ..again };
    let mut known = {
        let results = &scene.world.results;
        assert!(results.known(&again).is_none(), "another order of the operation");
        let start = Command {
            order: command(
                1,
                APP,
                json!({"do": "start", "revision": 1, "policy": "manual", "stores": [],
            "seal_every_s": 15, "volumes": []}),
            )
            .order,
            ..again
        };
        results.known(&start).expect("kept")
    };
    assert_eq!((known.number.0, known.state), (4, ResultState::Failed));
    assert_eq!(known.code.take(), Some(Problem::RingLate));
}

/// A hive whose answer to a result was lost gives the order again, and the device goes on.
#[test]
fn a_command_that_comes_again_is_answered_with_what_is_known() {
    let (tell, told) = std::sync::mpsc::channel();
    // On a thread of its own: one that waits for itself would not let the test end.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("begins");
        runtime.block_on(async {
            let scene = Scene::new();
            let order = command(1, APP, json!({"do": "stop"}));
            let trouble = Trouble::new(Problem::PackageSealed, "it is locked");
            scene.world.results.keep(&order, &failed(order.number, &trouble));
            scene.world.take_in_turn(APP, SESSION, Command { number: CommandNumber(2), ..order.clone() });
            let taking = scene.world.app(APP, |state| state.commands.take()).expect("it is being taken");
            taking.await.expect("it is taken");
            let known = scene.world.results.known(&order).expect("kept");
            tell.send((known.number.0, known.code)).expect("somebody waits");
        });
    });
    let known = told.recv_timeout(Duration::from_secs(20)).expect("the device goes on");
    assert_eq!(known, (1, Some(Problem::PackageSealed)));
}

/// A hive that knows no volume of an app, and a ring that has the key of one which another device made for it.
#[tokio::test]
async fn a_volume_that_another_device_made_is_not_made_again() {
    let key = VolumeKey::from_seed([3; 32]);
    let made = RingEntry { name: volume_name(APP, "data"), ..entry(&key) };
    let mut scene = Scene::new();
    scene.ring(&[made]);
    scene.package(APP, "services: {web: {image: busybox}}\n");
    scene.volumes.seen.lock().absent = true;
    let start = json!({
        "do": "start", "revision": 1, "policy": "manual", "stores": [], "seal_every_s": 15, "rollback_to": null,
        "volumes": [{"name": "data", "volume": null, "expect": {"since": {"epoch": 0, "seq": 0, "writers": []}}}],
    });
    scene.world.take_in_turn(APP, SESSION, command(1, APP, start));
    let wait = Duration::from_secs(20);
    let event = tokio::time::timeout(wait, scene.inbox.recv()).await.expect("it is made ready");
    let Some(Event::Commands(_, Ok(commands))) = event else { panic!("a command is taken") };
    let Order::Start(start) = &commands[0].order else { panic!("it is the start") };
    assert_eq!(start.volumes.keys().copied().collect::<Vec<_>>(), [key.id()]);
    let file = scene.world.app(APP, |state| state.file.clone());
    assert_eq!(file.name_of(key.id()), Some("data"));
}

/// A store may be given new credentials here or elsewhere, and volumes that are mounted need them as soon as the old ones are
/// withdrawn.
#[tokio::test]
async fn credentials_of_a_new_key_ring_are_for_volumes_that_are_mounted_too() {
    let scene = Scene::new();
    scene.ring(&[]);
    let renewed = || scene.volumes.seen.lock().renewed;
    scene.world.unite_ring(b"what another device published").await.expect("taken over");
    assert_eq!(renewed(), 1);
    // The hive has what a command on this machine published.
    let number = ring::open(&scene.state).expect("a ring").number().0;
    assert!(!scene.world.take_ring(SESSION, number).await, "nothing is exchanged");
    assert_eq!(renewed(), 2);
}

const HOOKS: &str = "services: {web: {image: busybox}}
x-comb:
  hooks:
    before_snapshot: {service: web, argv: [before]}
    after_snapshot: {service: web, argv: [after]}
";

#[tokio::test]
async fn an_app_that_prepared_itself_for_a_moment_is_told_that_it_is_over_whatever_came_of_it() {
    for docker_fails in [true, false] {
        let scene = Scene::new();
        scene.ring(&[]);
        scene.package(APP, HOOKS);
        scene.has_volumes(&[("data", VolumeId([1; 32])), ("cache", VolumeId([2; 32]))]);
        scene.runs();
        scene.world.load(APP, 1).await.expect("it is here");
        let ran = Arc::new(parking_lot::Mutex::new((0, Vec::new())));
        let seen = ran.clone();
        scene.docker(move |path, body| {
            let mut ran = seen.lock();
            if path.contains("/containers/json") {
                ran.0 += 1;
                // The first list is for the hook before, the second for those that are to stand still.
                return (!docker_fails || ran.0 != 2).then(|| scene::listed(Term(1)));
            }
            if path.contains("/containers/c1/exec") {
                ran.1.push(body["Cmd"][0].as_str().unwrap_or_default().to_owned());
            }
            Some(scene::engine(path))
        });
        let taken = scene.world.snapshot(APP, "now", "a message", MomentReason::Asked).await;
        assert_eq!(ran.lock().1, ["before", "after"], "{taken:?}");
        match docker_fails {
            true => {
                taken.expect_err("its containers are not known");
                assert!(scene.volumes.seen.lock().taken.is_empty());
            }
            false => {
                assert_eq!(taken.expect("taken").volumes.len(), 2);
                let messages = scene.volumes.seen.lock().taken.clone();
                assert_eq!(messages, ["a message", "a message"]);
            }
        }
        assert_eq!(scene.world.phase(APP), Some(Phase::Running));
    }
}

#[tokio::test]
async fn who_returns_and_is_told_to_forget_an_app_stops_it_first() {
    let mut scene = Scene::new();
    scene.docker(|_, _| Some(json!([])));
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    scene.runs_in(Term(2));
    let trouble = scene.world.forget(APP, Term(1), false, true).await.expect_err("it has it since");
    assert_eq!(trouble.problem, Problem::TermOver);
    assert_eq!(scene.volumes.seen.lock().removed, Vec::<String>::new());

    let world = scene.world.clone();
    let forgets = tokio::spawn(async move { world.forget(APP, Term(2), false, true).await });
    assert_eq!(scene.inbox.recv().await, Some(Event::StopHere(APP)));
    assert_eq!(scene.volumes.seen.lock().removed, Vec::<String>::new(), "while it runs");
    scene.stops(Term(2));
    forgets.await.expect("it ends").expect("forgotten");
    assert_eq!(scene.volumes.seen.lock().removed, [volume_name(APP, "data")]);
}

#[test]
fn the_record_of_an_app_goes_when_it_is_forgotten_and_the_hive_knows_what_came_of_its_commands() {
    let begin = |phase| {
        let result = CommandResult {
            number: CommandNumber(4),
            app: APP,
            outcome: Outcome::Done,
            data: Data::default(),
        };
        let kept = Kept { operation: operation(1), verb: Verb::Stop, result, acknowledged: false };
        let record = Record { phase, results: vec![kept], ..Record::new(APP) };
        let disk = Disk { apps: [(APP, record)].into(), ..Disk::default() };
        Device::begin(DeviceId(OTHER.0), disk, RunId([1; 16]), &Found::default(), 0).0
    };
    let removes = |device: &mut Device, event| decide(device, event, 1).contains(&Effect::RemoveRecord(APP));

    let mut device = begin(Phase::StandingBy);
    assert!(!removes(&mut device, Event::Kept(CommandNumber(4))), "nobody forgot it");
    let mut device = begin(Phase::Stopped(Why::Ordered));
    assert!(!removes(&mut device, Event::Forgotten(APP)), "its result would be asked for again");
    assert!(removes(&mut device, Event::Kept(CommandNumber(4))));
    assert_eq!(device.phase(APP), None);
    let mut device = begin(Phase::Claiming);
    assert!(!removes(&mut device, Event::Forgotten(APP)), "it came back meanwhile");
    assert!(!removes(&mut device, Event::Kept(CommandNumber(4))));
    assert_eq!(device.phase(APP), Some(Phase::Claiming));
}

#[test]
fn of_more_apps_than_can_be_told_those_that_run_are_told() {
    let scene = Scene::new();
    let app = |number: u8, phase| {
        (AppId([number; 16]), AppReport { term: Term(1), phase, volumes: BTreeMap::new() })
    };
    let mut apps: BTreeMap<AppId, AppReport> =
        (0..=APPS_MAX as u8).map(|number| app(number, Phase::StandingBy)).collect();
    apps.extend([app(250, Phase::Stopped(Why::Ordered)), app(251, Phase::Running)]);
    let report = Report { number: ReportNumber(1), renew: BTreeSet::new(), docker: true, apps };
    let told = scene.world.full_report(&report);
    let first: Vec<AppId> = told.apps.iter().take(3).map(|one| one.app).collect();
    assert_eq!(first, [AppId([251; 16]), AppId([250; 16]), AppId([0; 16])]);
    assert_eq!(told.apps.iter().count(), APPS_MAX);
}

#[test]
fn who_was_not_prepared_yet_or_could_not_be_stands_by_for_nobody() {
    let mut device =
        Device::begin(DeviceId(OTHER.0), Disk::default(), RunId([1; 16]), &Found::default(), 0).0;
    let welcome = Welcome { number: HelloNumber(1), session: SESSION, incarnation: Incarnation(1) };
    decide(&mut device, Event::Welcome(Ok(welcome)), 1);
    let scene = Scene::new();
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    let told = |device: &Device| {
        let record = device.disk.apps[&APP].clone();
        let decided = AppReport { term: record.term, phase: record.phase, volumes: BTreeMap::new() };
        scene.world.app(APP, |state| state.record = Some(record));
        let apps = [(APP, decided)].into();
        let report = Report { number: ReportNumber(1), renew: BTreeSet::new(), docker: true, apps };
        let told = scene.world.full_report(&report);
        (told.apps[0].phase, told.apps[0].volumes.len())
    };
    let rounds = [
        (Err(Problem::ImageMissing), wire::Phase::Absent, wire::Phase::Absent),
        (Ok(BTreeMap::new()), wire::Phase::Absent, wire::Phase::StandingBy),
        (Err(Problem::StoreUnreachable), wire::Phase::StandingBy, wire::Phase::Absent),
    ];
    for (number, (writers, meanwhile, after)) in (1..).zip(rounds) {
        let prepare = orchestrator_api::command::Command {
            number: CommandNumber(number),
            operation: operation(number),
            app: APP,
            term: Term(1),
            generation: Generation(1),
            order: Order::Prepare { volumes: Vec::new() },
        };
        decide(&mut device, Event::Commands(SESSION, Ok(vec![prepare])), 2);
        assert_eq!(told(&device).0, meanwhile, "round {number}");
        decide(&mut device, Event::Prepared { app: APP, writers }, 3);
        assert_eq!(told(&device), (after, usize::from(after == wire::Phase::StandingBy)), "round {number}");
    }
}

#[tokio::test]
async fn volumes_that_were_made_for_an_app_that_did_not_come_to_be_are_removed() {
    let scene = Scene::new();
    scene.docker(|_, _| Some(json!([])));
    let volume = AppVolume { name: "data".to_owned(), volume: Hex([1; 32]) };
    let file = AppFile { name: "copy".to_owned(), volumes: vec![volume], ..AppFile::default() };
    // Another process wrote it down.
    scene.world.folder.write_app(OTHER, &file).expect("written");
    scene.world.forget(OTHER, Term(0), false, true).await.expect("forgotten");
    assert_eq!(scene.volumes.seen.lock().removed, [volume_name(OTHER, "data")]);
}

/// Told as failed, it is not done by a later start; what was asked for in another term is not done at all.
#[tokio::test]
async fn a_rollback_that_failed_is_forgotten() {
    let mut scene = Scene::new();
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    let seals = vec![seal(1, &["before", "asked"])];
    scene.volumes.seen.lock().seals.insert(volume_name(APP, "data"), seals);
    let world = scene.world.clone();
    let is = |phase, term| {
        let record = Record { phase, term: Term(term), mine: true, ..Record::new(APP) };
        world.app(APP, |state| state.record = Some(record));
    };
    let code = async |command: Command| loop {
        let known = world.results.known(&command);
        if let Some(result) = known {
            return result.code;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let order = |number| command(number, APP, json!({"do": "rollback", "to": "before", "start": null}));

    for (number, phase, term, problem) in
        [(1, Phase::Stopped(Why::LeaseOver), 1, Problem::State), (2, Phase::Running, 2, Problem::TermOver)]
    {
        is(phase, term);
        world.beside(SESSION, order(number));
        assert_eq!(code(order(number)).await, Some(problem), "{phase:?}");
    }
    is(Phase::Running, 1);
    world.beside(SESSION, order(3));
    assert!(matches!(scene.inbox.recv().await, Some(Event::Again(APP))));
    let armed = || world.app(APP, |state| state.rollback.as_ref().map(|ordered| ordered.term));
    assert_eq!(armed(), Some(Term(1)));
    is(Phase::Stopped(Why::Failed(Problem::Unhealthy)), 1);
    assert_eq!(code(order(3)).await, Some(Problem::Unhealthy));
    assert_eq!(armed(), None);
}

#[tokio::test]
async fn after_an_update_all_volumes_go_back_or_none_does() {
    let scene = Scene::new();
    let names = [volume_name(APP, "data"), volume_name(APP, "cache")];
    let goes_back = async || scene.world.is_gone_back_to(&names, "comb-0000000000000001").await;
    assert!(!goes_back().await.expect("nothing was changed yet"));
    for (name, torn) in names.iter().zip([true, false]) {
        let seals = vec![seal(1, &["comb-0000000000000001", "update"])];
        scene.volumes.seen.lock().seals.insert(name.clone(), seals);
        match goes_back().await {
            Ok(all) => assert!(all && !torn),
            Err(trouble) => assert!(torn && trouble.problem == Problem::InstantTorn, "{trouble:?}"),
        }
    }
}

/// An app that is to stay stopped is stopped first, and only then its volumes go back.
#[tokio::test]
async fn a_rollback_after_which_an_app_stays_stopped_stops_it_first() {
    let mut scene = Scene::new();
    let data = volume_name(APP, "data");
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    {
        let mut volumes = scene.volumes.seen.lock();
        volumes.seals.insert(data.clone(), vec![seal(1, &["before", "asked"])]);
        volumes.store_answers = true;
    }
    let world = scene.world.clone();
    let is = |phase| {
        let record = Record { phase, term: Term(1), mine: true, ..Record::new(APP) };
        world.app(APP, |state| state.record = Some(record));
    };
    is(Phase::Running);
    let order = command(1, APP, json!({"do": "rollback", "to": "before", "start": false}));
    world.beside(SESSION, order.clone());
    assert!(matches!(scene.inbox.recv().await, Some(Event::StopHere(APP))));
    assert!(scene.volumes.seen.lock().rolled.is_empty(), "it runs still");
    is(Phase::Stopped(Why::Ordered));
    let result = loop {
        let known = world.results.known(&order);
        if let Some(result) = known {
            break result;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((result.state, result.code), (ResultState::Done, None));
    assert_eq!(scene.volumes.seen.lock().rolled, [(data, "before".to_owned())]);
}

/// What could not be asked is not told as if there were nothing.
#[tokio::test]
async fn the_page_of_an_app_says_that_its_volumes_could_not_be_asked() {
    let scene = Scene::new();
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    scene.runs();
    let opened =
        scene.world.open_page(Some("127.0.0.1:0".parse().expect("an address"))).await.expect("it opens");
    let (address, code) = (opened["address"].as_str().expect("one"), opened["code"].as_str().expect("one"));
    let browser = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client");
    let form =
        browser.post(format!("{address}/code")).header("content-type", "application/x-www-form-urlencoded");
    let entered = form.body(format!("code={code}")).send().await.expect("it answers");
    assert_eq!(entered.status(), 303);
    let cookie =
        entered.headers()["set-cookie"].to_str().expect("text").split(';').next().expect("one").to_owned();
    let page = async || {
        let asked = browser.get(format!("{address}/app?app={APP}")).header("cookie", &cookie).send().await;
        asked.expect("it answers").text().await.expect("text")
    };
    let none = "No moment of the whole app is kept yet";
    assert!(page().await.contains(none));
    scene.volumes.seen.lock().is_mute = true;
    let told = page().await;
    assert!(
        told.contains("could not be asked for their moments: ") && told.contains("it does not answer"),
        "{told}"
    );
    assert!(!told.contains(none), "{told}");
}
