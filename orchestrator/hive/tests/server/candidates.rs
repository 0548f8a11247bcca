//! Who gets an app when its device is lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::world::{VOLUME, databases};

/// A failover asks only who could be the target of a move.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_passes_over_who_cannot_have_the_app() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "auto").await;
        // The cellar stands by, so that the hive asks nobody else to; then its ring is locked.
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        scene.cellar.has(&scene.app, &scene.term, "standing_by", None, None);
        scene.cellar.report().await.is(200);
        let mut shed = scene.ada.device(&scene.world, "shed").await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            shed.report().await.is(200);
        }
        scene.cellar.locked = true;
        scene.cellar.hello().await.is(200);
        for _ in 0..2 {
            scene.cellar.report().await.is(200);
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
        // Its device gave the app up, and has no Docker any more.
        scene.attic.docker = "stopped";
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("lease_over"), None);
        scene.attic.renew.clear();
        let until = Instant::now() + Duration::from_secs(100);
        loop {
            scene.attic.report().await.is(200);
            scene.cellar.report().await.is(200);
            shed.obey().await;
            assert_eq!(scene.cellar.commands_at_once().await, Vec::<Value>::new(), "it is not asked");
            let operations = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
            let operations = operations["items"].as_array().cloned().expect("a list");
            let is_there = |one: &Value| one["kind"] == "failover" && one["device"] == shed.uuid();
            if operations.iter().any(is_there) {
                break;
            }
            assert!(Instant::now() < until, "the shed is not asked: {operations:?}");
        }
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_app_and_was_not_prepared_for_it_is_asked_as_if_he_had_nothing() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "auto").await;
        // He was asked once, and could not: so he says that the app is absent.
        scene.cellar.has(&scene.app, &scene.term, "absent", None, None);
        scene.attic.report().await.is(200);
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        scene.cellar.has(&scene.app, &scene.term, "standing_by", None, None);
        scene.cellar.report().await.is(200);
        scene.world.end().await;
    }
}
