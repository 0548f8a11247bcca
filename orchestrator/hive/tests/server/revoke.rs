//! What becomes of the apps of a device that is revoked.

use std::time::Duration;

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
    scene.ada.post(&path, &json!({"stores_closed": true})).await.is(202);
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
        assert_eq!(scene.cellar.commands_at_once().await, Vec::<Value>::new(), "nobody starts it");

        let ordered = scene.order("start", json!({})).await.is(202);
        let played = crate::scene::play(&scene.ada, &id(&ordered), &mut [&mut scene.cellar]).await;
        assert_eq!(played["state"], "done", "{played}");
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["device"]), (&json!("running"), &json!(scene.cellar.uuid())));
        assert!(shown["term"].as_u64() > scene.term.as_u64());
        scene.world.end().await;
    }
}
