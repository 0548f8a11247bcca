//! Containers stand still while a moment of several volumes is taken, and at no other time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::compose::{Owner, Plan, PlannedService, Restart};
use orchestrator_api::ids::{Term, VolumeId};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::wire::command::MomentReason;
use orchestrator_api::wire::report::Health;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::scene::{APP, Scene};
use crate::daemon::loaded::Planned;
use crate::daemon::report::health;
use crate::doors::docker::{LABEL_APP, LABEL_TERM};
use crate::record::{Disk, Record};

const TERM: Term = Term(3);
const SERVICES: [(&str, &str); 2] = [("c1", "web"), ("c2", "db")];

/// An engine with two containers of the app.
#[derive(Default)]
struct Engine {
    /// Those that stand still.
    paused: Mutex<BTreeSet<String>>,
    /// How often it fails to let one go on.
    refusals: Mutex<usize>,
}

impl Engine {
    fn answer(&self, path: &str) -> Option<Value> {
        if path.contains("/containers/json") {
            let labels = |service: &str| {
                json!({
                    LABEL_APP: APP.to_string(), LABEL_TERM: TERM.0.to_string(), "com.docker.compose.service": service,
                })
            };
            return Some(SERVICES.map(|(id, service)| json!({"Id": id, "Labels": labels(service)})).into());
        }
        let (id, _) = SERVICES.iter().find(|(id, _)| path.contains(&format!("/containers/{id}/")))?;
        let mut paused = self.paused.lock();
        if path.contains("/unpause") {
            let mut refusals = self.refusals.lock();
            if *refusals > 0 {
                *refusals -= 1;
                return None;
            }
            // As Docker does: what does not stand still cannot be let go on.
            return paused.remove(*id).then_some(Value::Null);
        }
        if path.contains("/pause") {
            paused.insert((*id).to_owned());
            return Some(Value::Null);
        }
        let status = if paused.contains(*id) { "paused" } else { "running" };
        Some(json!({"Id": id, "State": {"Status": status, "StartedAt": "2026-11-22T08:30:00Z"}}))
    }

    fn still(&self) -> usize {
        self.paused.lock().len()
    }

    /// Waits until so many stand still.
    async fn until(&self, count: usize) {
        let wait = async {
            while self.still() != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it comes to that");
    }
}

/// An app with two volumes that runs, on such an engine.
fn scene() -> (Scene, Arc<Engine>) {
    let (scene, engine) = (Scene::new(), Arc::new(Engine::default()));
    let asked = engine.clone();
    scene.docker(move |path, _| asked.answer(path));
    scene.has_volumes(&[("data", VolumeId([1; 32])), ("cache", VolumeId([2; 32]))]);
    scene.runs_in(TERM);
    (scene, engine)
}

/// A moment whose volumes take for ever: it stays in work until it is aborted, as when its process dies.
async fn in_work(scene: &Scene, engine: &Engine) -> tokio::task::JoinHandle<()> {
    scene.volumes.seen.lock().gate = Some(Arc::new(Notify::new()));
    let world = scene.world.clone();
    let taking = tokio::spawn(async move {
        let _ = world.snapshot(APP, "now", "", MomentReason::Asked).await;
    });
    engine.until(2).await;
    taking
}

#[tokio::test]
async fn who_dies_while_an_app_stands_still_leaves_nothing_that_the_next_process_does_not_end() {
    let (scene, engine) = scene();
    let taking = in_work(&scene, &engine).await;
    assert_eq!(scene.world.end_pause(APP).await.expect("asked"), None);
    assert_eq!(engine.still(), 2, "it is no business of anybody else while it is in work");
    taking.abort();
    let _ = taking.await;
    assert_eq!(engine.still(), 2, "nobody was there to end it");

    // The next process takes what stands still for what runs, and looks after it before it knows anything else of the app.
    let record = Record { term: TERM, phase: Phase::Running, ..Record::new(APP) };
    let disk = Disk { apps: [(APP, record)].into(), ..Disk::default() };
    assert_eq!(scene.world.find(&disk).await.containers.get(&APP), Some(&TERM));
    scene.world.watch_app(APP);
    engine.until(0).await;
}

#[tokio::test]
async fn a_container_that_does_not_go_on_at_once_is_told_again() {
    let (scene, engine) = scene();
    *engine.refusals.lock() = 1;
    let moment = scene.world.snapshot(APP, "now", "", MomentReason::Asked).await.expect("taken");
    assert_eq!((moment.volumes.len(), engine.still()), (2, 0));
}

#[tokio::test]
async fn a_moment_that_is_not_taken_in_time_ends_all_the_same() {
    let (scene, engine) = scene();
    scene.volumes.seen.lock().gate = Some(Arc::new(Notify::new()));
    let trouble =
        scene.world.snapshot(APP, "now", "", MomentReason::Asked).await.expect_err("it takes too long");
    assert_eq!((trouble.problem, engine.still()), (Problem::InstantTorn, 0));
}

#[tokio::test]
async fn an_app_that_stands_still_is_not_called_well_unless_a_moment_is_being_taken() {
    let (scene, engine) = scene();
    scene.ring(&[]);
    scene.package(APP, "services: {web: {image: busybox}, db: {image: busybox}}\n");
    let loaded = scene.world.load(APP, 1).await.expect("it is here");
    let service = |(_, name): (&str, &str)| PlannedService {
        name: name.to_owned(),
        image: None,
        build: false,
        restart: Restart::Always,
        owner: Owner::Image,
        pids: None,
    };
    let plan = Plan { services: SERVICES.map(service).into(), ..Plan::default() };
    assert!(loaded.planned.set(Planned { config: Value::Null, plan }).is_ok());
    let look = async || {
        let event = scene.world.look_at_containers(APP, false).await.expect("it answers");
        assert_eq!(event, None);
        let seen = scene.world.seen.lock();
        scene.world.app(APP, |state| (health(Phase::Running, state, &seen), state.trouble.clone()))
    };
    assert_eq!(look().await, (Health::Healthy, None));

    let taking = in_work(&scene, &engine).await;
    assert_eq!(look().await, (Health::Healthy, None), "it stands still for seconds, on purpose");
    taking.abort();
    let _ = taking.await;
    *engine.refusals.lock() = 3;
    let (told, trouble) = look().await;
    let trouble = trouble.expect("said why");
    assert_eq!((told, trouble.problem), (Health::Unhealthy, Problem::Unhealthy));
    assert!(trouble.service.is_some() && trouble.text().contains("docker unpause"), "{trouble}");

    // Each look tries it again.
    assert_eq!(look().await.0, Health::Unhealthy, "one of the two goes on");
    assert_eq!(look().await, (Health::Healthy, None));
    assert_eq!(engine.still(), 0);
}
