//! What becomes of the apps of a device that is revoked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::scene::{Scene, id};
use crate::world::databases;

/// A device that reports is a candidate when two of its reports were seen.
async fn reports(scene: &mut Scene) {
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        scene.cellar.report().await.is(200);
    }
}

async fn revoke(scene: &Scene) {
    let path = format!("/v1/devices/{}/revoke", scene.attic.uuid());
    scene.ada.post(&path, &json!({"stores_closed": false})).await.is(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_stays_stopped_and_starts_elsewhere_when_it_is_asked_for() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        reports(&mut scene).await;
        let ordered = scene.order("stop", json!({})).await.is(202);
        let stop = scene.attic.expect("stop").await;
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("ordered"), Some((1, 5)));
        scene.attic.answer(&stop, "done", None, json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&ordered), 10).await["state"], "done");
        scene.attic.report().await.is(200);

        revoke(&scene).await;
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("stopped"), &Value::Null));
        assert_eq!((&shown["operation"], &shown["term"]), (&Value::Null, &scene.term));
        reports(&mut scene).await;
        let mut asked = scene.cellar.commands_at_once().await;
        asked.retain(|command| command["do"] != "ring");
        assert_eq!(asked, Vec::<Value>::new(), "nobody starts it");

        let ordered = scene.order("start", json!({})).await.is(202);
        let played = crate::scene::play(&scene.ada, &id(&ordered), &mut [&mut scene.cellar]).await;
        assert_eq!(played["state"], "done", "{played}");
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("running"), &json!(scene.cellar.uuid())));
        assert!(shown["term"].as_u64() > scene.term.as_u64());
        scene.world.end().await;
    }
}

/// The machine died, and a person ordered a stop before the device was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_device_that_was_revoked() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let stop = scene.order("stop", json!({})).await.is(202);
        let path = format!("/v1/operations/{}/cancel", id(&stop));
        scene.ada.post(&path, &json!({})).await.fails(409, "state");
        let facts = json!({"stream": crate::world::uuid()});
        let path = format!("/v1/devices/{}/facts", scene.attic.uuid());
        let facts = scene.ada.post(&path, &facts).await.is(202);

        revoke(&scene).await;
        for ended in [stop, facts] {
            let ended = scene.ada.get(&format!("/v1/operations/{}", id(&ended))).await;
            assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("device_revoked")));
        }
        assert_eq!(scene.shown().await["operation"], Value::Null);
        reports(&mut scene).await;
        let ordered = scene.order("start", json!({})).await.is(202);
        let played = crate::scene::play(&scene.ada, &id(&ordered), &mut [&mut scene.cellar]).await;
        assert_eq!(played["state"], "done", "{played}");
        scene.world.end().await;
    }
}

/// It is wanted, and nobody can take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_can_only_go_back_to_a_revoked_device_ends() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        reports(&mut scene).await;
        let ordered = scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202);
        scene.attic.report().await.is(200);
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": crate::world::VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        scene.attic.expect("hand_over").await;
        // Its Docker ends, so that it cannot take the app.
        scene.cellar.docker = "stopped";
        scene.cellar.report().await.is(200);
        revoke(&scene).await;
        let ended = scene.ada.get(&format!("/v1/operations/{}", id(&ordered))).await;
        assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("device_revoked")));
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("stopped"), &Value::Null));
        assert_eq!(shown["problem"]["code"], "no_candidate");
        scene.world.end().await;
    }
}

/// After a restore people repeat revocations at once. What the hive hears of is moved when it knows who may run what.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovering_hive_moves_the_apps_of_a_revoked_device_when_it_has_recovered() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        // A device that knows a later life of the hive.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        scene.cellar.incarnation = now.as_millis() as u64 + 1_000;
        scene.cellar.hello().await.is(200);
        assert_eq!(scene.ada.get("/v1/hive").await["recovering"], true);
        revoke(&scene).await;
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("running"), &json!(scene.attic.uuid())));
        // Nobody else is missing; leases of before are waited for.
        assert_eq!(scene.ada.get("/v1/hive").await["missing_devices"], json!([]));
        let until = Instant::now() + Duration::from_secs(120);
        let mut done = Vec::new();
        while !done.contains(&"start".to_owned()) {
            assert!(Instant::now() < until, "it is not moved: {}", scene.shown().await);
            done.extend(scene.cellar.obey().await);
        }
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("running"), &json!(scene.cellar.uuid())));
        scene.world.end().await;
    }
}
