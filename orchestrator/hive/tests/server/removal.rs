//! Removing an app: what is on a device alone is not thrown away, and nobody says that it is done before it is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pages::{Browser, text};
use crate::scene::{Scene, id};
use crate::world::{Reply, VOLUME, databases};

/// After half of so long without a report nothing new is ordered of a device, and after all of it the device is silent.
const SILENT: Duration = Duration::from_millis(31_000);

async fn remove(scene: &Scene, query: &str) -> Reply {
    scene.ada.ask("DELETE", &format!("/v1/apps/{}?{query}", scene.app), &Value::Null, &[]).await
}

fn late(name: &str) -> Value {
    json!({"late": [{"volume": VOLUME, "name": name, "bytes": 4096}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_data_is_in_no_store_is_stopped_and_stays_until_a_person_says_otherwise() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        remove(&scene, "keep_data=false&discard=perhaps").await.fails(400, "bad_request");
        // The store was away when it stopped: nothing is forgotten.
        let begun = remove(&scene, "keep_data=false").await.is(202);
        let stop = scene.attic.expect("stop").await;
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("ordered"), Some((1, 5)));
        scene.attic.report().await.is(200);
        scene.attic.answer(&stop, "done", None, late("data")).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("publish_late")));
        assert_eq!(failed["result"]["late"][0]["name"], "data", "{failed}");
        let shown = scene.shown().await;
        assert_eq!((&shown["wanted"], &shown["operation"]), (&json!("stopped"), &Value::Null));

        // It is stopped already: the device looks itself, and is waited for.
        let begun = remove(&scene, "keep_data=false").await.is(202);
        let forget = scene.attic.expect("forget").await;
        assert_eq!((&forget["keep_data"], &forget["discard"]), (&json!(false), &Value::Null));
        assert_eq!(begun["operation"]["waits_for"], scene.attic.uuid());
        scene.attic.answer(&forget, "failed", Some("publish_late"), late("data/cut-6-e1")).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("publish_late")));
        assert_eq!(failed["result"]["late"][0]["name"], "data/cut-6-e1", "{failed}");
        assert_eq!(scene.shown().await["name"], "photos");

        let begun = remove(&scene, "keep_data=false&discard=true").await.is(202);
        let forget = scene.attic.expect("forget").await;
        assert_eq!(forget["discard"], true);
        assert_eq!(scene.shown().await["name"], "photos", "until it is done");
        scene.attic.answer(&forget, "done", None, json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        let path = format!("/v1/apps/{}", scene.app);
        scene.ada.ask("GET", &path, &Value::Null, &[]).await.fails(404, "not_found");
        // What happened with it is told by its name, and leads to no page that is gone.
        let mut browser = Browser::log_in(&scene.world, "ada", "a long password").await;
        let page = text(&browser.get("/activity").await);
        assert!(page.contains("photos</bdi> (removed)"), "{page}");
        assert!(!page.contains("an app that is gone"), "{page}");
        assert!(!page.contains(&format!("\"/apps/{}\"", scene.app)), "{page}");
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_own_device_forgets_it_last_and_one_that_is_silent_is_not_waited_for() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.move_planned().await;
        scene.attic.report().await.is(200);
        // Discarded, or kept: what is late stands in nobody's way.
        let begun = remove(&scene, "keep_data=true").await.is(202);
        let stop = scene.cellar.expect("stop").await;
        let term = scene.cellar.apps[0]["term"].clone();
        scene.cellar.has(&scene.app, &term, "stopped", Some("ordered"), Some((2, 10)));
        scene.cellar.answer(&stop, "done", None, late("data")).await.is(204);
        scene.cellar.report().await.is(200);
        let forget = scene.attic.expect("forget").await;
        assert_eq!(forget["keep_data"], true);
        assert!(scene.cellar.commands_at_once().await.is_empty(), "one after the other");
        scene.attic.answer(&forget, "failed", Some("docker_stopped"), json!({})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("docker_stopped")));
        assert_eq!(failed["problem"]["code"], "docker_stopped");

        // Who is silent hears of it when he is back, and what he refuses is told. Who only reported some time ago is asked
        // still: if nobody were, the hive would forget the app at once.
        tokio::time::sleep(SILENT / 2).await;
        scene.cellar.report().await.is(200);
        tokio::time::sleep(SILENT / 2).await;
        let begun = remove(&scene, "keep_data=false").await.is(202);
        let forget = scene.cellar.expect("forget").await;
        scene.cellar.answer(&forget, "done", None, json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        scene.attic.report().await.is(200);
        let forget = scene.attic.expect("forget").await;
        assert_eq!(forget["keep_data"], false);
        scene.attic.answer(&forget, "failed", Some("publish_late"), late("data")).await.is(204);
        let events = scene.ada.get(&format!("/v1/events?device={}", scene.attic.uuid())).await;
        let told =
            events["items"].as_array().expect("a list").iter().find(|one| one["data"]["do"] == "forget");
        let told = told.expect("it is told");
        assert_eq!((&told["kind"], &told["data"]["code"]), (&json!("failed"), &json!("publish_late")));
        assert_eq!(told["app"], scene.app);
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_a_lost_device_is_removed_without_it_and_the_device_is_told_when_it_is_back() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "auto").await;
        // The attic was told to run it, and is not heard any more: the scheduler counts from its last report.
        let begun = remove(&scene, "keep_data=true").await.is(202);
        assert_eq!(begun["operation"]["waits_for"], scene.attic.uuid());
        let until = std::time::Instant::now() + Duration::from_secs(50);
        let ended = loop {
            scene.cellar.report().await.is(200);
            let found = scene.ada.get(&format!("/v1/operations/{}", id(&begun))).await;
            if found["state"] != "running" {
                break found;
            }
            assert!(std::time::Instant::now() < until, "{found}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        assert_eq!((&ended["state"], &ended["code"]), (&json!("done"), &Value::Null), "{ended}");
        let path = format!("/v1/apps/{}", scene.app);
        scene.ada.ask("GET", &path, &Value::Null, &[]).await.fails(404, "not_found");
        // Both orders wait for it: to stop what it still runs, and to forget it.
        scene.attic.report().await.is(200);
        let told = scene.attic.commands_at_once().await;
        let told: Vec<&Value> = told.iter().map(|command| &command["do"]).collect();
        assert_eq!(told, ["stop", "forget"]);
        scene.world.end().await;
    }
}

/// What one device has taken says nothing of the next one, which is asked because that one is silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_went_on_is_cancelled_until_the_next_device_has_its_order() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.move_planned().await;
    scene.attic.report().await.is(200);
    let begun = remove(&scene, "keep_data=true").await.is(202);
    let path = format!("/v1/operations/{}", id(&begun));
    let stop = scene.cellar.expect("stop").await;
    let term = scene.cellar.apps[0]["term"].clone();
    scene.cellar.has(&scene.app, &term, "stopped", Some("ordered"), Some((2, 10)));
    scene.cellar.answer(&stop, "done", None, json!({})).await.is(204);
    scene.attic.expect("forget").await;
    assert_eq!(scene.ada.get(&path).await["can_cancel"], false, "the attic has its order");
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let shown = loop {
        scene.cellar.report().await.is(200);
        let shown = scene.ada.get(&path).await;
        if shown["waits_for"] == scene.cellar.uuid() {
            break shown;
        }
        assert!(std::time::Instant::now() < until, "{shown}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!((&shown["state"], &shown["can_cancel"]), (&json!("running"), &json!(true)), "{shown}");
    let forget = scene.cellar.expect("forget").await;
    assert_eq!(scene.ada.get(&path).await["can_cancel"], false);
    scene.cellar.answer(&forget, "done", None, json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
    scene.world.end().await;
}
