//! A process that begins anew looks after what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrator_api::compose::{Owner, Plan, PlannedService, Restart};
use orchestrator_api::ids::Term;
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::wire::report::Health;
use serde_json::{Value, json};

use super::scene::{APP, Scene, engine, listed};
use crate::Event;
use crate::daemon::loaded::Planned;
use crate::daemon::report::health;

const TERM: Term = Term(3);

fn plan() -> Planned {
    let service = PlannedService {
        name: "web".to_owned(),
        image: None,
        build: false,
        restart: Restart::Always,
        owner: Owner::Image,
        pids: None,
    };
    Planned { config: Value::Null, plan: Plan { services: vec![service], ..Plan::default() } }
}

fn told(scene: &Scene) -> Health {
    let mut apps = scene.world.apps.lock();
    let seen = scene.world.seen.lock();
    health(Phase::Running, apps.entry(APP).or_default(), &seen)
}

/// After its end no device starts it anew; what runs goes on, and is looked after.
#[tokio::test]
async fn what_runs_is_looked_after_though_its_package_expired() {
    let mut scene = Scene::new();
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = is_gone.clone();
    scene.docker(move |path, _| match path.contains("/containers/json") {
        true if gone.load(Ordering::Relaxed) => Some(json!([])),
        true => Some(listed(TERM)),
        false => Some(engine(path)),
    });
    scene.ring(&[]);
    scene.package_until(APP, "services: {web: {image: busybox}}\n", Some("2026-11-22T08:30:01.000Z"));
    scene.has_volumes(&[]);
    scene.world.app(APP, |state| state.file.revision = 1);
    scene.runs_in(TERM);
    let refused = async || scene.world.load(APP, 1).await.map(drop).expect_err("no start").problem;
    assert_eq!(refused().await, Problem::PackageExpired);
    let loaded = scene.world.load_running(APP, 1).await.expect("it runs");
    // There is no compose here that could be asked.
    assert!(loaded.planned.set(plan()).is_ok());
    assert_eq!(told(&scene), Health::Unknown, "nobody has looked at it");

    scene.world.watch_app(APP);
    let wait = Duration::from_secs(20);
    let looked = async {
        while told(&scene) != Health::Healthy {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(wait, looked).await.expect("it is looked at");
    assert_eq!(refused().await, Problem::PackageExpired, "it is opened now, and no start uses it");

    is_gone.store(true, Ordering::Relaxed);
    let event = tokio::time::timeout(wait, scene.inbox.recv()).await.expect("it is seen");
    assert_eq!(event, Some(Event::ContainersGone(APP)));
}

/// What a process cannot look after is not told as well.
#[tokio::test]
async fn of_what_runs_and_cannot_be_looked_after_it_is_told_why() {
    let scene = Scene::new();
    scene.docker(|path, _| Some(if path.contains("/containers/json") { listed(TERM) } else { engine(path) }));
    scene.ring(&[]);
    scene.has_volumes(&[]);
    scene.runs_in(TERM);
    scene.world.watch_app(APP);
    let told_why = async {
        loop {
            let trouble = scene.world.app(APP, |state| state.trouble.clone());
            if let Some(trouble) = trouble {
                return trouble.problem;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(20), told_why).await.expect("it is told");
    assert_eq!((why, told(&scene)), (Problem::PackageWrong, Health::Unknown), "its package is not here");
}
