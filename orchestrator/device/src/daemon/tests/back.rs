//! Volumes go back all together or not at all, and once, whenever a process ends and another one begins.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_api::ids::{Epoch, Term, VolumeId};
use orchestrator_api::placement::{Head, Phase, Problem, StoreView, Why};
use orchestrator_api::wire::command::{Command, CommandResult, ResultState};
use serde_json::{Value, json};

use super::scene::{APP, Resists, Scene, seal};
use super::{SESSION, command, operation};
use crate::app::volume_name;
use crate::daemon::files::{AppFile, Ended, Update};
use crate::record::Record;
use crate::{Event, Look};

const DATA: VolumeId = VolumeId([1; 32]);
const CACHE: VolumeId = VolumeId([2; 32]);
const VOLUMES: [VolumeId; 2] = [DATA, CACHE];

/// An app of two volumes, which have a moment `before`, in revision 1.
fn app_of_two() -> Scene {
    let scene = Scene::new();
    scene.has_volumes(&[("data", DATA), ("cache", CACHE)]);
    for name in [volume_name(APP, "data"), volume_name(APP, "cache")] {
        scene.volumes.seen.lock().seals.insert(name, vec![seal(1, &["before", "asked"])]);
    }
    scene.world.change_file(APP, |file| file.revision = 1).expect("written");
    scene
}

fn is_in(scene: &Scene, phase: Phase) {
    let record = Record { phase, term: Term(1), mine: true, ..Record::new(APP) };
    scene.world.clone().recorded(record);
}

/// The process is killed, and another one finds the app in this phase.
fn killed(scene: Scene, phase: Phase) -> Scene {
    let scene = scene.anew();
    let record = Record { phase, term: Term(1), mine: true, ..Record::new(APP) };
    scene.world.take_up(APP, &record);
    scene
}

async fn mounts(scene: &Scene) -> crate::trouble::Result<()> {
    scene.volumes.seen.lock().mounts = true;
    scene.world.mount_all(APP, &VOLUMES, &BTreeMap::new(), None).await
}

fn file(scene: &Scene) -> AppFile {
    let kept = scene.world.folder.read_app(APP).expect("read").expect("there");
    assert_eq!(scene.world.app(APP, |state| state.file.clone()), kept);
    kept
}

fn rolled(scene: &Scene) -> Vec<String> {
    std::mem::take(&mut scene.volumes.seen.lock().rolled).into_iter().map(|(name, _)| name).collect()
}

fn both() -> Vec<String> {
    vec![volume_name(APP, "data"), volume_name(APP, "cache")]
}

fn resists(scene: &Scene, how: Option<Resists>) {
    let cache = volume_name(APP, "cache");
    scene.volumes.seen.lock().resists = how.map(|how| (cache, how)).into_iter().collect();
}

fn order(start: Value) -> Command {
    command(3, APP, json!({"do": "rollback", "to": "before", "start": start}))
}

fn update() -> Command {
    command(4, APP, json!({"do": "update", "revision": 2}))
}

/// What a device says of an order that is done beside the records.
async fn said(scene: &Scene, order: &Command) -> CommandResult {
    scene.world.beside(SESSION, order.clone());
    answer(scene, order).await
}

async fn answer(scene: &Scene, order: &Command) -> CommandResult {
    let wait = async {
        loop {
            if let Some(known) = scene.world.results.known(order) {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it is answered")
}

/// The record of a change of phase may take as long as a disk does.
#[tokio::test]
async fn an_app_that_has_not_stopped_yet_is_not_said_to_run_again() {
    let mut scene = app_of_two();
    is_in(&scene, Phase::Running);
    let order = order(Value::Null);
    scene.world.beside(SESSION, order.clone());
    for _ in 0..2 {
        // Where what followed from it could not be written, it is lost: it is said again.
        let event = tokio::time::timeout(Duration::from_secs(20), scene.inbox.recv()).await;
        assert_eq!(event.expect("it is told"), Some(Event::Again(APP)));
        assert!(scene.world.results.known(&order).is_none(), "it has not even stopped");
    }
    is_in(&scene, Phase::Stopping(Why::Again));
    is_in(&scene, Phase::Mounting);
    mounts(&scene).await.expect("mounted");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(scene.world.results.known(&order).is_none(), "it does not run yet");
    is_in(&scene, Phase::Running);
    assert_eq!(answer(&scene, &order).await.state, ResultState::Done);
    let mut gone = rolled(&scene);
    gone.sort();
    let mut all = both();
    all.sort();
    assert_eq!(gone, all);
}

/// Nobody says of a start in another term that it was what was ordered.
#[tokio::test]
async fn an_app_that_was_started_anew_meanwhile_did_not_do_what_was_ordered() {
    let mut scene = app_of_two();
    is_in(&scene, Phase::Running);
    scene.world.beside(SESSION, order(Value::Null));
    assert_eq!(scene.inbox.recv().await, Some(Event::Again(APP)));
    let record = Record { phase: Phase::Running, term: Term(2), mine: true, ..Record::new(APP) };
    scene.world.recorded(record);
    assert_eq!(answer(&scene, &order(Value::Null)).await.code, Some(Problem::TermOver));
    assert!(rolled(&scene).is_empty());
}

#[tokio::test]
async fn a_rollback_that_began_is_finished_by_the_next_process_and_not_done_twice() {
    let mut scene = app_of_two();
    is_in(&scene, Phase::Running);
    let order = order(Value::Null);
    scene.world.beside(SESSION, order.clone());
    assert_eq!(scene.inbox.recv().await, Some(Event::Again(APP)));
    is_in(&scene, Phase::Mounting);
    resists(&scene, Some(Resists::Hangs));
    let world = scene.world.clone();
    let mounting = tokio::spawn(async move {
        let none = BTreeMap::new();
        world.mount_all(APP, &VOLUMES, &none, None).await
    });
    let wait = async {
        while scene.volumes.seen.lock().rolled.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the first one is back");
    mounting.abort();
    assert_eq!(rolled(&scene), [volume_name(APP, "data")]);

    // The process is killed. The order is given again while the next one brings the app up, and the other volume is refused.
    let scene = killed(scene, Phase::Mounting);
    assert!(file(&scene).rollback.is_some());
    scene.world.beside(SESSION, order.clone());
    resists(&scene, Some(Resists::Refuses));
    assert_eq!(mounts(&scene).await.expect_err("it is not whole").problem, Problem::NoSpace);
    let torn = scene.world.start_containers(APP, Term(1)).await.expect_err("nothing starts on two instants");
    assert!(matches!(torn.problem, Problem::InstantTorn | Problem::DockerStopped), "{torn}");
    is_in(&scene, Phase::Stopped(Why::Failed(Problem::NoSpace)));
    let told = answer(&scene, &order).await;
    assert_eq!((told.code, told.data.rolled_back), (Some(Problem::NoSpace), Some(false)), "it has begun");

    // Whoever mounts it next finishes it.
    rolled(&scene);
    resists(&scene, None);
    let scene = killed(scene, Phase::Mounting);
    mounts(&scene).await.expect("mounted");
    assert_eq!(rolled(&scene), both());
    assert_eq!(file(&scene).rollback, None);

    assert_eq!(said(&scene, &order).await.code, Some(Problem::NoSpace), "what was told stays told");
}

/// All is back, and the process is killed before it could say so, a hook of the app's maybe going on: what people wrote since
/// stays.
#[tokio::test]
async fn a_rollback_that_was_done_is_answered_again_and_not_done_twice() {
    let mut scene = app_of_two();
    is_in(&scene, Phase::Running);
    scene.world.beside(SESSION, order(Value::Null));
    assert_eq!(scene.inbox.recv().await, Some(Event::Again(APP)));
    is_in(&scene, Phase::Mounting);
    mounts(&scene).await.expect("mounted");
    assert_eq!(rolled(&scene).len(), 2);
    let scene = killed(scene, Phase::Running);
    let told = said(&scene, &order(Value::Null)).await;
    assert_eq!((told.state, told.data.rolled_back), (ResultState::Done, None));
    assert!(rolled(&scene).is_empty());
}

#[tokio::test]
async fn a_rollback_that_did_not_begin_is_forgotten_with_its_process() {
    let mut scene = app_of_two();
    is_in(&scene, Phase::Running);
    scene.world.beside(SESSION, order(Value::Null));
    assert_eq!(scene.inbox.recv().await, Some(Event::Again(APP)));
    // It is on its way down. The next process brings it up; the order is given again, and waits for that.
    let mut scene = killed(scene, Phase::Stopping(Why::Again));
    scene.world.beside(SESSION, order(Value::Null));
    mounts(&scene).await.expect("mounted");
    assert!(rolled(&scene).is_empty());
    is_in(&scene, Phase::Running);
    while scene.inbox.recv().await != Some(Event::Again(APP)) {}
    is_in(&scene, Phase::Mounting);
    mounts(&scene).await.expect("mounted");
    assert_eq!(rolled(&scene).len(), 2);
    is_in(&scene, Phase::Running);
    assert_eq!(answer(&scene, &order(Value::Null)).await.state, ResultState::Done);
}

#[tokio::test]
async fn an_app_that_stands_still_goes_back_whole_or_its_next_start_finishes_it() {
    let scene = app_of_two();
    scene.volumes.seen.lock().store_answers = true;
    is_in(&scene, Phase::Stopped(Why::Ordered));
    resists(&scene, Some(Resists::Refuses));
    let told = said(&scene, &order(Value::Null)).await;
    assert_eq!((told.code, told.data.rolled_back), (Some(Problem::NoSpace), Some(false)));
    rolled(&scene);
    resists(&scene, None);
    // A store that is away holds it up, too: another device would find one volume back, and the other not.
    scene.volumes.seen.lock().store_answers = false;
    let again = Command { operation: operation(9), ..order(Value::Null) };
    let told = said(&scene, &again).await;
    assert_eq!((told.code, told.data.rolled_back), (Some(Problem::StoreUnreachable), Some(false)));
    rolled(&scene);

    let scene = killed(scene, Phase::Stopped(Why::Ordered));
    scene.ring(&[]);
    scene.package(APP, "services: {web: {image: busybox}}\n");
    let volume = |name: &str, id: VolumeId| {
        let expect = json!({"since": {"epoch": 1, "seq": 1, "writers": []}});
        json!({"name": name, "volume": id.to_hex(), "expect": expect})
    };
    let start = json!({
        "do": "start", "revision": 1, "policy": "manual", "stores": [], "seal_every_s": 15, "rollback_to": null,
        "volumes": [volume("data", DATA), volume("cache", CACHE)],
    });
    let start = Command { term: Some(Term(2)), ..command(5, APP, start) };
    scene.world.translate(SESSION, &start).await.expect("made ready").expect("a record decides");
    let record = Record { phase: Phase::Mounting, term: Term(2), mine: true, ..Record::new(APP) };
    scene.world.recorded(record);
    mounts(&scene).await.expect("mounted");
    assert_eq!(rolled(&scene), both());
    assert_eq!(file(&scene).rollback, None);
    mounts(&scene).await.expect("mounted");
    assert!(rolled(&scene).is_empty(), "once");
}

#[tokio::test]
async fn a_way_back_that_failed_is_finished_by_the_next_start() {
    let scene = app_of_two();
    is_in(&scene, Phase::Mounting);
    resists(&scene, Some(Resists::Refuses));
    let head =
        |seq| Head { epoch: Epoch(1), seq: fs_format::Seq(seq), manifest: fs_format::ManifestId([1; 32]) };
    let rollback_to: BTreeMap<VolumeId, Head> = VOLUMES.iter().map(|volume| (*volume, head(7))).collect();
    let back = scene.world.mount_all(APP, &VOLUMES, &rollback_to, None).await;
    assert_eq!(back.expect_err("it is not whole").problem, Problem::NoSpace);
    assert_eq!(scene.volumes.seen.lock().taken.len(), 2, "what is put into the past stays a moment");
    resists(&scene, None);
    rolled(&scene);
    let scene = killed(scene, Phase::Mounting);
    mounts(&scene).await.expect("mounted");
    let gone = scene.volumes.seen.lock().rolled.clone();
    assert!(gone.iter().all(|(_, when)| when == "7") && gone.len() == 2, "{gone:?}");
    assert_eq!(scene.volumes.seen.lock().taken.len(), 2);
}

/// What is there since is not what was to go back.
#[test]
fn a_rollback_that_began_is_over_where_others_wrote_since() {
    let begun = || {
        let scene = app_of_two();
        let whens = VOLUMES.iter().map(|one| (orchestrator_api::text::Hex(one.0), "before".to_owned()));
        let rollback = crate::daemon::files::Rollback { order: None, starts: true, whens: whens.collect() };
        scene.world.change_file(APP, |file| file.rollback = Some(rollback)).expect("written");
        scene
    };
    let (own, other) = (fs_format::DeviceId([1; 16]), fs_format::DeviceId([2; 16]));
    let head = Head { epoch: Epoch(2), seq: fs_format::Seq(9), manifest: fs_format::ManifestId([1; 32]) };
    let look = |writer| {
        let store = StoreView { newest: Some((head, writer)), claim: None };
        Some(Look { store, writer: own, here: None })
    };
    let rounds = [
        (look(other), look(other), true),
        // Who has one of them only has started nothing.
        (look(other), look(own), false),
        (look(other), None, false),
        (look(own), look(own), false),
    ];
    for (data, cache, is_over) in rounds {
        let scene = begun();
        scene.world.forget_rollback(APP, &[(DATA, data), (CACHE, cache)].into()).expect("written");
        assert_eq!(file(&scene).rollback.is_none(), is_over, "{data:?} {cache:?}");
    }
}

/// The old revision was not even stopped.
#[tokio::test]
async fn an_update_that_nobody_lived_to_begin_is_taken_back_and_not_begun_again() {
    let scene = app_of_two();
    let tag = operation(4).instant_tag();
    scene
        .world
        .change_file(APP, |file| {
            (file.revision, file.update) = (2, Some(Update { from: 1, tag: tag.clone() }))
        })
        .expect("written");
    let scene = killed(scene, Phase::Running);
    assert_eq!((file(&scene).revision, file(&scene).update), (1, None));
    assert_eq!(said(&scene, &update()).await.code, Some(Problem::UpdateRolledBack));
    assert!(scene.volumes.seen.lock().taken.is_empty() && rolled(&scene).is_empty());

    // Killed earlier: the moment is there, in all volumes or in some.
    let scene = app_of_two();
    is_in(&scene, Phase::Running);
    let seals = vec![seal(2, &[&tag, "update"])];
    scene.volumes.seen.lock().seals.insert(volume_name(APP, "cache"), seals);
    assert_eq!(said(&scene, &update()).await.code, Some(Problem::UpdateRolledBack));
    assert!(scene.volumes.seen.lock().taken.is_empty(), "another instant of the same tag");
}

#[tokio::test]
async fn an_update_that_was_done_is_answered_again_and_not_done_twice() {
    let scene = app_of_two();
    let tag = operation(4).instant_tag();
    for name in both() {
        scene.volumes.seen.lock().seals.insert(name, vec![seal(2, &[&tag, "update"])]);
    }
    let ended = Ended { order: tag.clone(), went_back: false, service: None };
    scene.world.change_file(APP, |file| (file.revision, file.ended) = (2, Some(ended))).expect("written");
    let scene = killed(scene, Phase::Running);
    let told = said(&scene, &update()).await;
    assert_eq!((told.state, told.data.rolled_back), (ResultState::Done, Some(false)));
    let moment = told.data.moment.expect("the one before it");
    assert_eq!((moment.tag.as_ref().map(|tag| tag.as_str()), moment.volumes.len()), (Some(tag.as_str()), 2));
    assert!(scene.volumes.seen.lock().taken.is_empty());
}

/// The new revision is not well, and the process is killed while the volumes go back.
#[tokio::test]
async fn an_update_that_goes_back_does_so_whole_whoever_finishes_it() {
    let scene = app_of_two();
    scene.docker(|path, _| Some(if path.contains("/containers/json") { json!([]) } else { Value::Null }));
    let tag = operation(4).instant_tag();
    let update_of = Update { from: 1, tag: tag.clone() };
    scene
        .world
        .change_file(APP, |file| (file.revision, file.highest, file.update) = (2, 1, Some(update_of)))
        .expect("written");
    // Who began it is gone, so it goes back.
    let scene = killed(scene, Phase::Starting);
    resists(&scene, Some(Resists::Hangs));
    let goes = scene.world.start_containers(APP, Term(1));
    let late = tokio::time::timeout(Duration::from_secs(2), goes).await;
    assert!(late.is_err(), "it waits for a volume");
    assert_eq!(rolled(&scene), [volume_name(APP, "data")]);

    let scene = killed(scene, Phase::Mounting);
    assert_eq!((file(&scene).revision, file(&scene).update), (1, None));
    resists(&scene, None);
    let taken = scene.volumes.seen.lock().taken.len();
    mounts(&scene).await.expect("mounted");
    assert_eq!((rolled(&scene), scene.volumes.seen.lock().taken.len()), (both(), taken));
    is_in(&scene, Phase::Running);
    assert_eq!(said(&scene, &update()).await.code, Some(Problem::UpdateRolledBack));
    assert!(rolled(&scene).is_empty());
}
