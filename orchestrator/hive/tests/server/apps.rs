//! Apps: added, started, moved, taken over; what is refused; what a backup keeps.

use std::time::Duration;

use serde_json::{Value, json};

use crate::scene::{Scene, id, play};
use crate::world::{Owner, VOLUME, World, cut, databases, manifest, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_added_started_and_moved_as_planned() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let shown = scene.shown().await;
        assert_eq!(shown["device"], scene.attic.uuid());
        assert_eq!(shown["volumes"][0]["volume"], VOLUME);
        assert_eq!(
            (shown["wanted"].clone(), shown["report"]["phase"].clone()),
            (json!("running"), json!("running"))
        );

        scene.cellar.report().await.is(200);
        let ordered = scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202);
        assert_eq!(ordered["at_stake"]["bytes"], 512);
        scene.order("stop", json!({})).await.fails(409, "operation_running");
        scene.attic.report().await.is(200);
        let prepare = scene.cellar.expect("prepare").await;
        assert_eq!(
            (prepare["fill"].clone(), prepare["volumes"][0]["volume"].clone()),
            (json!(true), json!(VOLUME))
        );
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let hand_over = scene.attic.expect("hand_over").await;
        assert_eq!(hand_over["to"], scene.cellar.uuid());
        let head = json!({"volume": VOLUME, "epoch": 1, "seq": 9, "manifest": manifest(9)});
        let data = json!({"heads": [head], "started": true, "healthy": true});
        scene.attic.answer(&hand_over, "done", None, data).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert_eq!(
            start["volumes"][0]["expect"]["exactly"],
            json!({"epoch": 1, "seq": 9, "manifest": manifest(9)})
        );
        assert!(start["term"].as_u64() > scene.term.as_u64());
        let data =
            json!({"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": true});
        scene.cellar.answer(&start, "done", None, data).await.is(204);
        let done = scene.ada.wait(&id(&ordered), 20).await;
        assert_eq!(done["state"], "done");
        assert_eq!(done["result"]["to"], scene.cellar.uuid());
        assert_eq!(done["result"]["lost"], Value::Null);
        assert_eq!(done["result"]["cuts"][0]["parent"], manifest(9));
        // The first device hears of it in the answer to its next report.
        let heard = scene.attic.report().await.is(200);
        assert_eq!(heard["over"], json!([{"app": scene.app, "term": start["term"]}]));
        assert_eq!(heard["granted"], json!([]));
        let events = scene.ada.get(&format!("/v1/events?app={}", scene.app)).await;
        let kinds: Vec<&str> =
            events["items"].as_array().expect("a list").iter().filter_map(|it| it["kind"].as_str()).collect();
        assert!(kinds.contains(&"moved") && kinds.contains(&"app_added"), "{kinds:?}");
        scene.world.end().await;
    }
}

/// A held request for commands is not a report: a device that only holds one is silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_only_asks_for_commands_is_silent() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.cellar.report().await.is(200);
        let to = scene.cellar.uuid();
        let force = json!({"to": to, "forced": true, "accept_loss": true});
        scene.order("move", force.clone()).await.fails(422, "device_online");
        scene.order("move", json!({"to": to, "forced": true})).await.fails(400, "bad_request");
        // The source asks for commands all the while, and says nothing of itself.
        let mut held = scene.attic;
        let waiting = tokio::spawn(async move {
            let commands = held.commands().await;
            (held, commands)
        });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            scene.cellar.report().await.is(200);
        }
        let begun = scene.ada.post(&format!("/v1/apps/{}/move", scene.app), &force).await.is(202);
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        let since = &start["volumes"][0]["expect"]["since"];
        assert_eq!((since["epoch"].clone(), since["seq"].clone()), (json!(1), json!(5)), "{start}");
        assert!(!since["writers"].as_array().expect("a list").is_empty(), "{start}");
        let data =
            json!({"cuts": [cut(2, 6, Some(5))], "writers": writers, "started": true, "healthy": true});
        scene.cellar.answer(&start, "done", None, data).await.is(204);
        let done = scene.ada.wait(&id(&begun), 20).await;
        assert_eq!(done["state"], "done", "{done}");
        let lost = &done["result"]["lost"];
        // Manual: nobody knows how long it went on.
        assert_eq!(
            (lost["lost_seconds_max"].clone(), lost["lost_bytes_known"].clone()),
            (Value::Null, json!(512))
        );
        // It returns with a branch: the exact figures take the place of what was guessed.
        let (mut held, _) = waiting.await.expect("it was held");
        held.has(&scene.app, &start["term"], "standing_by", None, None);
        held.apps[0]["branches"] =
            json!([{"volume": VOLUME, "name": "cut-6-e1", "seals": 2, "bytes": 700, "span_ms": 2500}]);
        held.report().await.is(200);
        let told = scene.ada.get(&format!("/v1/operations/{}", id(&begun))).await;
        assert_eq!(told["result"]["lost"]["exact"], json!({"seconds": 3, "bytes": 700}));
        let shown = scene.ada.get(&format!("/v1/apps/{}", scene.app)).await;
        assert_eq!(shown["branches"][0]["name"], "cut-6-e1");
        scene.world.end().await;
    }
}

/// Branches of a device that returned.
fn branches(of: &[(&str, u64, u64)]) -> Value {
    let one = |(name, bytes, span_ms): &(&str, u64, u64)| json!({"volume": VOLUME, "name": name, "seals": 1, "bytes": bytes, "span_ms": span_ms});
    of.iter().map(one).collect()
}

/// A device is lost twice: each loss is told by what it left itself, and what was told once stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_counts_only_what_it_left() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let (attic, cellar) = (scene.attic.uuid(), scene.cellar.uuid());
        let force = json!({"to": cellar, "forced": true, "accept_loss": true, "even_if_online": true});
        let exact = async |scene: &Scene, operation: &str| {
            let told = scene.ada.get(&format!("/v1/operations/{operation}")).await;
            told["result"]["lost"]["exact"].clone()
        };
        scene.cellar.report().await.is(200);
        let first = id(&scene.order("move", force.clone()).await.is(202));
        assert_eq!(play(&scene.ada, &first, &mut [&mut scene.cellar]).await["state"], "done");
        assert_eq!(exact(&scene, &first).await, Value::Null);
        // One volume after the other; then it stands by, which is all.
        let term = scene.term.clone();
        scene.attic.has(&scene.app, &term, "settling", None, None);
        scene.attic.apps[0]["branches"] = branches(&[("cut-6-e2", 500, 1500)]);
        scene.attic.report().await.is(200);
        assert_eq!(exact(&scene, &first).await, json!({"seconds": 2, "bytes": 500}));
        scene.attic.has(&scene.app, &term, "standing_by", None, None);
        let old = [("cut-6-e2", 500, 1500), ("cut-7-e2", 200, 2500)];
        scene.attic.apps[0]["branches"] = branches(&old);
        scene.attic.report().await.is(200);
        assert_eq!(exact(&scene, &first).await, json!({"seconds": 3, "bytes": 700}));

        // It gets the app again, as planned, and is lost again.
        let back = id(&scene.order("move", json!({"to": attic})).await.is(202));
        let moved = play(&scene.ada, &back, &mut [&mut scene.cellar, &mut scene.attic]).await;
        assert_eq!(moved["state"], "done", "{moved}");
        scene.attic.apps[0]["branches"] = branches(&old);
        scene.attic.report().await.is(200);
        let term = scene.attic.apps[0]["term"].clone();
        scene.cellar.report().await.is(200);
        let second = id(&scene.order("move", force.clone()).await.is(202));
        assert_eq!(play(&scene.ada, &second, &mut [&mut scene.cellar]).await["state"], "done");
        // What it kept of the first loss says nothing of the second one.
        scene.attic.has(&scene.app, &term, "settling", None, None);
        scene.attic.apps[0]["branches"] = branches(&old);
        scene.attic.report().await.is(200);
        assert_eq!(exact(&scene, &second).await, Value::Null);
        // Of the first, a person has looked through one meanwhile, and removed it.
        scene.attic.has(&scene.app, &term, "standing_by", None, None);
        scene.attic.apps[0]["branches"] = branches(&[old[1], ("cut-12-e4", 64, 900)]);
        scene.attic.report().await.is(200);
        assert_eq!(exact(&scene, &second).await, json!({"seconds": 1, "bytes": 64}));
        assert_eq!(exact(&scene, &first).await, json!({"seconds": 3, "bytes": 700}));
        // Later it removes the rest: what was lost is not undone by that.
        scene.attic.apps[0]["branches"] = json!([]);
        scene.attic.report().await.is(200);
        assert_eq!(exact(&scene, &second).await, json!({"seconds": 1, "bytes": 64}));
        scene.world.end().await;
    }
}

/// A device that is back, and has told all, before the app runs elsewhere: it says nothing new afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_known_when_the_device_is_back_first() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.cellar.report().await.is(200);
    let force =
        json!({"to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true});
    let forced = id(&scene.order("move", force).await.is(202));
    let prepare = scene.cellar.expect("prepare").await;
    let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
    scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    let start = scene.cellar.expect("start").await;
    let term = scene.term.clone();
    scene.attic.has(&scene.app, &term, "standing_by", None, None);
    scene.attic.apps[0]["branches"] = branches(&[("cut-6-e2", 300, 4000)]);
    scene.attic.report().await.is(200);
    let data = json!({"cuts": [cut(2, 6, Some(5))], "writers": writers, "started": true, "healthy": true});
    scene.cellar.answer(&start, "done", None, data).await.is(204);
    let done = scene.ada.wait(&forced, 20).await;
    assert_eq!(done["result"]["lost"]["exact"], json!({"seconds": 4, "bytes": 300}), "{done}");
    let events = scene.ada.get(&format!("/v1/events?app={}", scene.app)).await;
    let kinds: Vec<&str> =
        events["items"].as_array().expect("a list").iter().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "loss_known").count(), 1, "{kinds:?}");
}

/// Nobody has to wait for the planned move from a device that was lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_move_ends_the_planned_one_that_waits() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.cellar.report().await.is(200);
        let to = scene.cellar.uuid();
        let planned = scene.order("move", json!({"to": to})).await.is(202);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            scene.cellar.report().await.is(200);
        }
        let force = json!({"to": to, "forced": true, "accept_loss": true});
        let forced = scene.order("move", force).await.is(202);
        let ended = scene.ada.wait(&id(&planned), 1).await;
        assert_eq!(
            (ended["state"].as_str(), ended["code"].as_str()),
            (Some("failed"), Some("forced")),
            "{ended}"
        );
        let going_on = scene.ada.get(&format!("/v1/operations/{}", id(&forced))).await;
        assert_eq!(going_on["state"], "running", "{going_on}");
        scene.world.end().await;
    }
}

/// A planned move from a device that died just now: it is told, and ends; then the forced way is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_from_a_device_that_just_died_is_told_and_ends() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.cellar.report().await.is(200);
        let died = std::time::Instant::now();
        let planned = id(&scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202));
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let mut told = None;
        let ended = loop {
            scene.cellar.report().await.is(200);
            let found = scene.ada.get(&format!("/v1/operations/{planned}")).await;
            if found["state"] != "running" {
                break found;
            }
            assert_eq!(
                (&found["step"], &found["waits_for"]),
                (&json!("hand_over"), &json!(scene.attic.uuid()))
            );
            if found["code"] == "device_silent" {
                told = told.or(Some(died.elapsed()));
            }
            assert!(died.elapsed() < Duration::from_secs(60), "{found}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let told = told.expect("it is told while it goes on");
        assert!((30..36).contains(&told.as_secs()), "{told:?}");
        assert!((39..48).contains(&died.elapsed().as_secs()), "{:?}", died.elapsed());
        assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("device_silent")), "{ended}");
        let shown = scene.shown().await;
        assert_eq!((&shown["device"], &shown["term"]), (&json!(scene.attic.uuid()), &scene.term));
        // It was never asked: should it come back now, it goes on.
        assert_eq!(scene.attic.commands_at_once().await, Vec::<Value>::new());
        let force = json!({"to": scene.cellar.uuid(), "forced": true, "accept_loss": true});
        let forced = id(&scene.order("move", force).await.is(202));
        assert_eq!(play(&scene.ada, &forced, &mut [&mut scene.cellar]).await["state"], "done");
        scene.world.end().await;
    }
}

/// The scheduler ends a term whose device is not heard for the whole watch, and gives the next one elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_auto_app_fails_over_when_its_lease_is_over() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "auto").await;
        // Nobody named a standby: the hive asks the cellar by itself.
        let prepare = scene.cellar.expect("prepare").await;
        assert_eq!((&prepare["fill"], &prepare["volumes"][0]["volume"]), (&json!(false), &json!(VOLUME)));
        assert_eq!(scene.shown().await["problem"]["code"], "no_standby");
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        scene.cellar.has(&scene.app, &scene.term, "standing_by", None, None);
        scene.cellar.report().await.is(200);
        assert_eq!(scene.shown().await["problem"], Value::Null);
        scene.attic.report().await.is(200);

        // Then its device is silent. Who stands by gets the term at once.
        let silent = std::time::Instant::now();
        let started = loop {
            assert!(silent.elapsed() < Duration::from_secs(90), "it is not started");
            scene.cellar.report().await.is(200);
            let wait = tokio::time::timeout(Duration::from_secs(4), scene.cellar.commands()).await;
            if let Some(command) = wait.unwrap_or_default().pop() {
                assert_eq!(command["do"], "start", "{command}");
                let data = json!({"cuts": [cut(2, 6, Some(5))], "writers": writers, "started": true, "healthy": true});
                scene.cellar.answer(&command, "done", None, data).await.is(204);
                break silent.elapsed();
            }
        };
        assert!(started >= Duration::from_millis(46_000), "not before the watch is over: {started:?}");
        let operations = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
        let failover = &operations["items"][0];
        assert_eq!((failover["kind"].clone(), failover["state"].clone()), (json!("failover"), json!("done")));
        let lost = &failover["result"]["lost"];
        let seconds = lost["lost_seconds_max"].as_u64().expect("a lease says how long");
        assert!((45..=50).contains(&seconds), "{lost}");
        assert_eq!(failover["by"]["hive"], true);
        // Who comes back late is told, and renews nothing.
        let heard = scene.attic.report().await.is(200);
        assert_eq!(
            (heard["granted"].clone(), heard["over"][0]["app"].clone()),
            (json!([]), json!(scene.app))
        );
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_refused_before_anything_changed() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let to = json!({"to": scene.cellar.uuid()});
    scene.cellar.docker = "stopped";
    scene.cellar.report().await.is(200);
    scene.order("move", to.clone()).await.fails(422, "docker_away");
    (scene.cellar.docker, scene.cellar.free_bytes) = ("ok", 1 << 20);
    scene.cellar.report().await.is(200);
    let full = scene.order("move", to.clone()).await.fails(422, "no_space");
    assert_eq!(full["error"]["details"]["free_bytes"], 1 << 20);
    scene.order("move", json!({"to": uuid()})).await.fails(404, "not_found");
    scene.order("update", json!({"revision": 9})).await.fails(404, "not_found");
    scene.order("rollback", json!({"to": {}})).await.fails(400, "bad_request");
    let stale = scene
        .ada
        .ask("POST", &format!("/v1/apps/{}/stop", scene.app), &json!({}), &[("if-match", "\"1\"".into())])
        .await;
    stale.fails(412, "changed");
    scene.ada.package(&Owner::new(2), &scene.app, "photos", 2).await.fails(422, "policy_refused");
    scene.ada.package(&scene.owner, &scene.app, "photos", 1).await.is(200);
    assert_eq!(scene.shown().await["operation"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_does_not_end_is_cancelled() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let stopped = scene.order("stop", json!({})).await.is(202);
    let stop = scene.attic.expect("stop").await;
    scene.attic.answer(&stop, "done", None, json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&stopped), 20).await["state"], "done");
    // Before its next report nobody stops it once more.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let all = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2), "{all}");
    scene.attic.has(&scene.app, &scene.term, "stopped", Some("ordered"), Some((1, 7)));
    scene.attic.report().await.is(200);
    let begun = scene.order("start", json!({})).await.is(202);
    let prepare = scene.attic.expect("prepare").await;
    assert_eq!(prepare["do"], "prepare");
    // Its Docker hangs: a person does not wait.
    let cancelled =
        scene.ada.post(&format!("/v1/operations/{}/cancel", id(&begun)), &json!({})).await.is(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(scene.shown().await["operation"], Value::Null);
    let again = scene.ada.post(&format!("/v1/operations/{}/cancel", id(&begun)), &json!({})).await;
    again.fails(409, "state");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_done_one_after_the_other_and_told() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let begun = scene.order("snapshot", json!({"tag": "before"})).await.is(202);
        let command = scene.attic.expect("snapshot").await;
        assert_eq!((command["tag"].clone(), command["term"].clone()), (json!("before"), scene.term.clone()));
        let moment = json!({
            "tag": "comb-0123456789abcdef", "time": "2026-11-22T08:00:00.000Z", "reason": "asked",
            "volumes": [{"volume": VOLUME, "seq": 6, "uuid": null, "files": 3, "bytes": 4096}]
        });
        scene.attic.answer(&command, "done", None, json!({"moment": moment})).await.is(204);
        let done = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!(done["result"]["moment"]["tag"], moment["tag"]);

        // A new revision, which is not well: the app keeps the old one.
        scene.ada.package(&scene.owner, &scene.app, "photos", 2).await.is(201);
        let begun = scene.order("update", json!({"revision": 2})).await.is(202);
        let command = scene.attic.expect("update").await;
        scene.attic.answer(&command, "done", None, json!({"rolled_back": true})).await.is(204);
        let done = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!(
            (done["state"].clone(), done["code"].clone()),
            (json!("failed"), json!("update_rolled_back"))
        );
        assert_eq!(scene.shown().await["revision"], 1);
        let begun = scene.order("update", json!({"revision": 2})).await.is(202);
        let command = scene.attic.expect("update").await;
        scene.attic.answer(&command, "done", None, json!({"moment": moment})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        assert_eq!(scene.shown().await["revision"], 2);

        // Another app of what this one has: the device seals its package and makes its volumes.
        let begun = scene.order("fork", json!({"name": "copy"})).await.is(202);
        let command = scene.attic.expect("fork").await;
        let new = scene.attic.made(&command);
        assert_eq!(begun["app"], new);
        let package = serde_json::to_vec(&scene.owner.package(&new, "copy", 1)).expect("is JSON");
        scene.attic.ask("POST", "/v1/packages", &package).await.is(201);
        let other = "00000000000000000000000000000000000000000000000000000000000000cc";
        let data = json!({"volumes": [{"name": "data", "volume": other}], "revision": 1});
        scene.attic.answer(&command, "done", None, data).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        let copy = scene.ada.get(&format!("/v1/apps/{new}")).await;
        assert_eq!(
            (copy["name"].clone(), copy["volumes"][0]["volume"].clone()),
            (json!("copy"), json!(other))
        );

        // Removed: stopped, then forgotten, and each device that had it is told.
        let path = format!("/v1/apps/{}?keep_data=false", scene.app);
        let begun = scene.ada.ask("DELETE", &path, &Value::Null, &[]).await.is(202);
        let stop = scene.attic.expect("stop").await;
        scene.attic.answer(&stop, "done", None, json!({})).await.is(204);
        let forget = scene.attic.expect("forget").await;
        assert_eq!(forget["keep_data"], false);
        scene.attic.answer(&forget, "done", None, json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        scene
            .ada
            .ask("GET", &format!("/v1/apps/{}", scene.app), &Value::Null, &[])
            .await
            .fails(404, "not_found");
        scene.world.end().await;
    }
}

/// A backup of either database is restored into an empty one; what devices know better is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_hive_learns_from_its_devices() {
    let all = databases().await;
    let kinds = all.len();
    for (database, folder) in all {
        let mut scene = Scene::on(&database, folder.clone(), "manual").await;
        let file = folder.path().join(format!("backup-{kinds}-{}", crate::world::fresh()));
        let bytes =
            orchestrator_hive::back_up_to(&database, &file).await.expect("a backup is made beside the hive");
        assert!(bytes > 100);
        // After the backup the app is stopped, which the backup does not know.
        let stopped = scene.order("stop", json!({})).await.is(202);
        let stop = scene.attic.expect("stop").await;
        scene.attic.answer(&stop, "done", None, json!({})).await.is(204);
        scene.ada.wait(&id(&stopped), 20).await;
        scene.world.end().await;

        let (restored, folder) = databases().await.remove(kinds - 1);
        let told = orchestrator_hive::restore_from(&restored, &file).await.expect("it is restored");
        orchestrator_hive::restore_from(&restored, &file).await.expect_err("not twice");
        let world = World::on(&restored, folder).await;
        assert_eq!((world.key, world.setup_code.clone()), (scene.world.key, None));
        // Tokens that were removed since the backup are in it, so it brings back none.
        world
            .person(&scene.ada.token)
            .ask("GET", "/v1/me", &Value::Null, &[])
            .await
            .fails(401, "not_logged_in");
        assert_eq!(told.devices, [("home".into(), "attic".into()), ("home".into(), "cellar".into())]);
        assert_eq!(told.people, [("home".into(), "ada".into(), "owner".into())]);
        let login = json!({"name": "ada", "password": "a long password"});
        let made = world.nobody("POST", "/v1/login", &login).await.is(200);
        let ada = world.person(made["token"].as_str().expect("has a token"));
        let info = ada.get("/v1/hive").await;
        assert_eq!(info["recovering"], true);
        assert_eq!(info["missing_devices"].as_array().map(Vec::len), Some(2));
        let path = format!("/v1/apps/{}/start", scene.app);
        // Which of the two it says first depends on how long ago the devices reported.
        let refused = ada.post(&path, &json!({})).await;
        assert!(matches!(refused.status, 422 | 503), "{}", refused.status);
        let term = scene.term.as_u64().expect("is a number") + 1;
        scene.attic.line = world.line();
        scene.attic.hello_apps = vec![json!({
            "app": scene.app, "term": term, "mine": true, "leased": false, "stopped": true, "generation": 99, "revision": 1
        })];
        scene.attic.hello().await.is(200);
        assert_eq!(ada.get("/v1/hive").await["missing_devices"].as_array().map(Vec::len), Some(1));
        let shown = ada.get(&format!("/v1/apps/{}", scene.app)).await;
        assert_eq!((shown["term"].clone(), shown["wanted"].clone()), (json!(term), json!("stopped")));
        let told = orchestrator_hive::recover(&restored, true).await.expect("it is told");
        assert_eq!((told.recovering, told.missing), (true, vec!["cellar".to_owned()]));
        let mut world = world;
        world.end().await;
    }
}

/// What a hive writes down of starts and moves breaks no invariant, and a hive that begins again adds what it left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_says_what_was_given_and_ended() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder.clone(), "manual").await;
    scene.cellar.report().await.is(200);
    let ordered = scene.move_planned().await;
    let path = folder.path().join("history.jsonl");
    let read = || std::fs::read_to_string(&path).expect("the hive writes a history");
    let lines = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect()
    };
    let check = |text: &str| {
        let mut all = comb_tests::history::Histories::default();
        all.add("history.jsonl", text).expect("it can be read");
        comb_tests::history::check(&all)
    };
    let text = read();
    let seen = check(&text).expect("nothing is broken");
    assert_eq!((seen.terms, seen.operations), (2, 2), "{text}");
    let all = lines(&text);
    let of = |what: &str| all.iter().filter(|line| line["what"] == what).cloned().collect::<Vec<_>>();
    let granted = of("granted");
    assert_eq!(granted[0]["term"], scene.term);
    assert_eq!((&granted[0]["device"], &granted[0]["leased"]), (&json!(scene.attic.uuid()), &json!(false)));
    assert_eq!(granted[1]["device"], scene.cellar.uuid());
    assert_eq!((&of("ended")[0]["term"], &of("ended")[0]["who"]), (&scene.term, &json!("hive")));
    let steps: Vec<&str> = all
        .iter()
        .filter(|line| line["operation"] == ordered.as_str())
        .filter_map(|line| line["step"].as_str())
        .collect();
    assert_eq!(steps, ["check", "prepare", "hand_over", "start", "start"], "{text}");
    assert!(!text.contains("photos"), "no name of an app: {text}");

    // A crash between a commit and its lines: they are there when the hive begins again.
    scene.world.end().await;
    let kept: Vec<&str> = text.split_inclusive('\n').take(text.lines().count() - 4).collect();
    std::fs::write(&path, kept.concat()).expect("the tail is lost");
    assert!(check(&read()).is_err(), "an operation that never ended is noticed");
    let mut world = scene.world.again().await;
    let seen = check(&read()).expect("what was left out is added");
    assert_eq!((seen.terms, seen.operations), (2, 2), "{}", read());
    world.end().await;
}

/// What decides who writes is changed only where no other device can know it, and only while nobody writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_further_stores_and_leaves_a_folder_of_one_device() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let path = format!("/v1/apps/{}", scene.app);
        let first = scene.shown().await["stores"][0].clone();
        let store = async |scene: &Scene, body: Value| {
            scene.ada.post("/v1/stores", &body).await.is(200)["id"].clone()
        };
        let here = store(&scene, json!({"url": "file:///srv/here", "device": scene.attic.uuid()})).await;
        let there = store(&scene, json!({"url": "file:///srv/there", "device": scene.cellar.uuid()})).await;
        let copy = store(&scene, json!({"url": "https://dav.example.org/comb"})).await;
        let next = store(&scene, json!({"url": "s3://b/next"})).await;
        let change = async |scene: &Scene, stores: Value| {
            scene.ada.ask("PATCH", &path, &json!({"stores": stores}), &[]).await
        };

        // A copy may come at any time; it is the device's from the next start on.
        change(&scene, json!([first, copy])).await.is(202);
        assert_eq!(scene.shown().await["stores"], json!([first, copy]));
        change(&scene, json!([first])).await.fails(400, "bad_request");
        change(&scene, json!([])).await.fails(400, "bad_request");
        change(&scene, json!([first, first])).await.fails(400, "bad_request");
        change(&scene, json!([copy, first])).await.fails(422, "store_cannot_arbitrate");
        change(&scene, json!([first, there])).await.fails(422, "store_is_local");
        let made = json!({"title": "script", "role": "operator", "ends_in_s": 3600});
        let made = scene.ada.post("/v1/tokens", &made).await.is(200);
        let operator = scene.world.person(made["token"].as_str().expect("a token"));
        let said = operator.ask("PATCH", &path, &json!({"stores": [first]}), &[]).await;
        said.fails(403, "role_too_low");
        // Other devices may have what s3://b/p holds.
        change(&scene, json!([next, copy])).await.fails(409, "state");
        assert_eq!(scene.shown().await["stores"], json!([first, copy]));

        // An app whose folder only its device has leaves it while it is stopped.
        let (app, attic) = (uuid(), scene.attic.uuid());
        scene.ada.package(&scene.owner, &app, "notes", 1).await.is(201);
        let add = json!({
            "app": app, "revision": 1, "device": attic, "policy": "manual", "stores": [here], "start": true
        });
        let ordered = scene.ada.post("/v1/apps", &add).await.is(202);
        assert_eq!(play(&scene.ada, &id(&ordered), &mut [&mut scene.attic]).await["state"], "done");
        let path = format!("/v1/apps/{app}");
        let leave = json!({"stores": [next]});
        scene.ada.ask("PATCH", &path, &leave, &[]).await.fails(409, "state");
        let ordered = scene.ada.post(&format!("{path}/stop"), &json!({})).await.is(202);
        assert_eq!(play(&scene.ada, &id(&ordered), &mut [&mut scene.attic]).await["state"], "done");
        scene.ada.ask("PATCH", &path, &leave, &[]).await.is(202);
        assert_eq!(scene.ada.get(&path).await["stores"], json!([next]));
        // Back would be a folder that the others do not see.
        scene.ada.ask("PATCH", &path, &json!({"stores": [here]}), &[]).await.fails(409, "state");
        // Its device hears of it with the next start, and another one may take it now.
        scene.ada.post(&format!("{path}/start"), &json!({})).await.is(202);
        let prepare = scene.attic.expect("prepare").await;
        assert_eq!(prepare["stores"], json!([{"store": next, "url": "s3://b/next"}]));
        scene.world.end().await;
    }
}
