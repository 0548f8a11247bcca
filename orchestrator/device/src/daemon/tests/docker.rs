//! Docker ends, is away, or has its folder somewhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestrator_api::ids::{ReportNumber, Term, VolumeId};
use orchestrator_api::placement::{Phase, Problem};
use orchestrator_api::report::Report;
use orchestrator_api::wire::report::DiskUse;
use serde_json::{Value, json};

use super::scene::{APP, Scene};
use crate::daemon::files::{AppFile, Update};
use crate::daemon::watch;
use crate::record::Record;

/// An app that is being started in a new revision; its package is not here, so that nothing else can come of it but a failure.
fn updated() -> Scene {
    let scene = Scene::new();
    scene.has_volumes(&[("data", VolumeId([1; 32]))]);
    let record = Record { term: Term(1), phase: Phase::Starting, mine: true, ..Record::new(APP) };
    scene.world.app(APP, |state| {
        let update = Some(Update { from: 1, tag: "comb-0000000000000001".to_owned() });
        state.file = AppFile { revision: 2, highest: 2, update, ..state.file.clone() };
        (state.record, state.updating) = (Some(record), true);
    });
    scene
}

#[tokio::test]
async fn an_update_does_not_go_back_because_docker_was_away() {
    let went_back = |scene: &Scene| {
        let back = scene.world.app(APP, |state| state.went_back.is_some());
        let taken = scene.volumes.seen.lock().taken.len();
        assert_eq!(taken, usize::from(back), "what the new revision wrote stays a moment");
        back
    };
    // It does not answer.
    let scene = updated();
    let trouble = scene.world.start_containers(APP, Term(1)).await.expect_err("nobody is there");
    assert_eq!((trouble.problem, went_back(&scene)), (Problem::DockerStopped, false));
    assert!(scene.world.app(APP, |state| state.file.update.is_some() && state.updating), "it is begun again");

    // It ended meanwhile, and answers again.
    let scene = updated();
    let world = scene.world.clone();
    scene.docker(move |_, _| {
        world.docker_ends.fetch_add(1, Ordering::Relaxed);
        Some(Value::Null)
    });
    let trouble = scene.world.start_containers(APP, Term(1)).await.expect_err("its package is not here");
    assert_eq!((trouble.problem, went_back(&scene)), (Problem::DockerStopped, false));

    // It was there all the time.
    let scene = updated();
    scene.docker(|path, _| Some(if path.contains("/containers/json") { json!([]) } else { Value::Null }));
    let trouble = scene.world.start_containers(APP, Term(1)).await.expect_err("its package is not here");
    assert!(trouble.problem != Problem::DockerStopped && went_back(&scene), "{trouble}");
}

#[tokio::test]
async fn that_docker_ends_is_noticed_by_its_events() {
    let scene = Scene::new();
    scene.docker(|_, _| Some(Value::Null));
    let events = tokio::spawn(watch::docker_events(scene.world.clone()));
    let wait = async {
        while scene.world.docker_ends() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("they ended");
    events.abort();
}

#[tokio::test]
async fn room_is_told_of_the_folder_that_docker_has_if_it_can_be_seen() {
    let scene = Scene::new();
    let root = Arc::new(parking_lot::Mutex::new(scene.state.clone()));
    let told = root.clone();
    scene.docker(move |path, _| {
        Some(match path.contains("/info") {
            true => json!({"DockerRootDir": &*told.lock()}),
            false => json!({"Version": "29.1"}),
        })
    });
    let disks = || {
        let report =
            Report { number: ReportNumber(1), renew: BTreeSet::new(), docker: true, apps: BTreeMap::new() };
        let told = scene.world.full_report(&report);
        told.disks.iter().filter(|disk| disk.what == DiskUse::Docker).count()
    };
    assert_eq!(disks(), 0, "nobody asked yet where it is");
    scene.world.look_at_docker().await.expect("it answers");
    assert_eq!(disks(), 1);
    *root.lock() = scene.state.join("on-the-machine-outside");
    scene.world.look_at_docker().await.expect("it answers");
    assert_eq!(disks(), 0, "out of sight, as for a device in a container");
}

#[tokio::test]
async fn facts_tell_room_and_clock_too() {
    let scene = Scene::new();
    let told: BTreeMap<&str, String> = scene.world.facts_now().await.into_iter().collect();
    let disks: Value = serde_json::from_str(&told["disks"]).expect("JSON");
    assert_eq!(disks[0]["for"], "state");
    assert!(disks[0]["free_bytes"].as_u64().is_some_and(|free| free > 0), "{disks}");
    assert!(told["clock"].starts_with("20") && told["clock"].contains("Z, "), "{}", told["clock"]);
    for what in ["comb", "docker", "compose", "boottime_ms", "load", "docker_state"] {
        assert!(told.contains_key(what), "{what}");
    }
}
