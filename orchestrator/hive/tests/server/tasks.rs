//! Orders that give no term: moments, rollback, restore, forks, actions, logs; and what is left of those that fail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::scene::{Scene, id, play};
use crate::world::{VOLUME, cut, databases, manifest, uuid};

fn moment(tag: &str, time: &str, seq: u64) -> Value {
    json!({
        "tag": tag, "time": time, "reason": "asked",
        "volumes": [{"volume": VOLUME, "seq": seq, "uuid": null, "files": 3, "bytes": 4096}]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_are_asked_for_and_the_last_answer_is_kept() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let path = format!("/v1/apps/{}/moments", scene.app);
        let never = scene.ada.ask("GET", &format!("{path}?wait_ms=200"), &Value::Null, &[]).await;
        assert!(never.fails(422, "device_silent")["error"]["hint"].is_string());
        // What was asked for and not answered is answered once only.
        for _ in 0..2 {
            scene.attic.obey().await;
        }
        let (ada, wait) = (scene.ada.clone(), format!("{path}?wait_ms=20000"));
        let asked = tokio::spawn(async move { ada.get(&wait).await });
        let command = scene.attic.expect("moments").await;
        let moments = [
            moment("comb-0000000000000001", "2026-11-22T08:00:00.000Z", 3),
            moment("comb-0000000000000002", "2026-11-22T09:00:00.000Z", 8),
        ];
        scene.attic.answer(&command, "done", None, json!({"moments": moments})).await.is(204);
        let told = asked.await.expect("it is answered");
        assert_eq!(told["as_of"], Value::Null, "it is fresh: {told}");
        let tags: Vec<&str> =
            told["items"].as_array().expect("a list").iter().filter_map(|it| it["tag"].as_str()).collect();
        assert_eq!(tags, ["comb-0000000000000002", "comb-0000000000000001"], "the newest first");
        // A device that does not answer: what it said last, and when that was.
        let old = scene.ada.get(&format!("{path}?wait_ms=200")).await;
        assert_eq!(old["items"], told["items"]);
        assert!(old["as_of"].is_string(), "{old}");
        // They are long, and kept once: not with each look at them.
        let operations = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
        let asked =
            operations["items"].as_array().expect("a list").iter().filter(|it| it["kind"] == "moments");
        let asked: Vec<&Value> = asked.collect();
        assert!(asked.iter().any(|it| it["state"] == "done"), "{operations}");
        assert!(!operations.to_string().contains("comb-0000000000000002"), "{operations}");
        if let Some(file) = database.strip_prefix("sqlite:") {
            let rows = rusqlite::Connection::open(file).expect("opens");
            for table in ["operation", "command"] {
                let sql = format!("SELECT COUNT(*) FROM {table} WHERE result LIKE '%comb-0000000000000002%'");
                let kept: u64 = rows.query_row(&sql, [], |row| row.get(0)).expect("read");
                assert_eq!(kept, 0, "{table}");
            }
        }
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_names_its_moment_and_a_failed_one_says_why() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let begun =
            scene.order("rollback", json!({"to": "comb-0000000000000002", "start": true})).await.is(202);
        let command = scene.attic.expect("rollback").await;
        assert_eq!((&command["to"], &command["start"]), (&json!("comb-0000000000000002"), &json!(true)));
        let head = json!({"volume": VOLUME, "epoch": 1, "seq": 12, "manifest": manifest(12)});
        scene.attic.answer(&command, "done", None, json!({"heads": [head]})).await.is(204);
        let done = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&done["state"], &done["result"]["heads"][0]["seq"]), (&json!("done"), &json!(12)));

        let mut seals = serde_json::Map::new();
        seals.insert(VOLUME.to_owned(), json!(3));
        let begun = scene.order("rollback", json!({"to": seals})).await.is(202);
        let command = scene.attic.expect("rollback").await;
        assert_eq!((&command["to"][VOLUME], &command["start"]), (&json!(3), &Value::Null));
        // While it goes on nothing else is done with the app, and how to end it is said.
        let refused = scene.order("snapshot", json!({})).await.fails(409, "operation_running");
        assert_eq!(refused["error"]["details"]["operation"], id(&begun));
        assert!(refused["error"]["hint"].as_str().expect("says what to do").contains(&id(&begun)));
        scene.attic.answer(&command, "failed", Some("instant_torn"), json!({})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("instant_torn")));
        assert_eq!(failed["problem"]["code"], "instant_torn");
        // The result is taken once: said again, it changes nothing.
        scene.attic.answer(&command, "done", None, json!({})).await.is(204);
        assert_eq!(scene.ada.get(&format!("/v1/operations/{}", id(&begun))).await["state"], "failed");
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_makes_another_app_or_nothing_at_all() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let wish = json!({"to": "comb-0000000000000002", "into": "photos-then"});
        scene
            .order("restore", json!({"to": "comb-0000000000000002", "into": "photos"}))
            .await
            .fails(409, "exists");
        let begun = scene.order("restore", wish.clone()).await.is(202);
        let new = begun["app"].as_str().expect("it says which").to_owned();
        let command = scene.attic.expect("fork").await;
        assert_eq!(
            (&command["to"], scene.attic.made(&command), &command["new_name"]),
            (&json!("comb-0000000000000002"), new.clone(), &json!("photos-then"))
        );
        scene.attic.answer(&command, "failed", Some("no_space"), json!({})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("no_space")));
        let nothing = format!("/v1/apps/{new}");
        scene.ada.ask("GET", &nothing, &Value::Null, &[]).await.fails(404, "not_found");

        // A device that says that it is done, and did not bring the package: the operation ends, and nothing is there.
        let begun = scene.order("restore", wish.clone()).await.is(202);
        let command = scene.attic.expect("fork").await;
        scene.attic.answer(&command, "done", None, json!({"revision": 1})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("package_wrong")));
        let forget = scene.attic.expect("forget").await;
        assert_eq!((&forget["app"], &forget["discard"]), (&begun["app"], &json!(true)));
        scene.attic.answer(&forget, "done", None, json!({})).await.is(204);

        // The package is there, and somebody took the name meanwhile: the device forgets what it made.
        let lost = json!({"to": "comb-0000000000000002", "into": "photos-lost"});
        let begun = scene.order("restore", lost).await.is(202);
        let new = begun["app"].as_str().expect("it says which").to_owned();
        let command = scene.attic.expect("fork").await;
        let package = serde_json::to_vec(&scene.owner.package(&new, "photos-lost", 1)).expect("is JSON");
        scene.attic.ask("POST", "/v1/packages", &package).await.is(201);
        let taken = uuid();
        scene.ada.package(&scene.owner, &taken, "photos-lost", 1).await.is(201);
        let add = json!({
            "app": taken, "revision": 1, "device": scene.attic.uuid(), "policy": "manual",
            "stores": scene.shown().await["stores"], "start": false
        });
        scene.ada.post("/v1/apps", &add).await.is(202);
        scene.attic.answer(&command, "done", None, json!({"revision": 1})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["code"], "state");
        let forget = scene.attic.expect("forget").await;
        assert_eq!((&forget["app"], &forget["term"]), (&json!(new), &Value::Null));
        assert_eq!((&forget["keep_data"], &forget["discard"]), (&json!(false), &json!(true)));
        scene.attic.answer(&forget, "done", None, json!({})).await.is(204);

        // The name is free still. What comes of it is another app with its own volumes, stopped.
        let begun = scene.order("restore", wish).await.is(202);
        let new = begun["app"].as_str().expect("it says which").to_owned();
        let command = scene.attic.expect("fork").await;
        let package = serde_json::to_vec(&scene.owner.package(&new, "photos-then", 1)).expect("is JSON");
        scene.attic.ask("POST", "/v1/packages", &package).await.is(201);
        let other = "00000000000000000000000000000000000000000000000000000000000000cc";
        let writers = json!([{"volume": other, "writer": scene.attic.writer()}]);
        let data = json!({"volumes": [{"name": "data", "volume": other}], "revision": 1, "writers": writers});
        scene.attic.answer(&command, "done", None, data).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
        let made = scene.ada.get(&format!("/v1/apps/{new}")).await;
        assert_eq!((&made["wanted"], &made["volumes"][0]["volume"]), (&json!("stopped"), &json!(other)));
        assert_eq!(
            (&made["device"], &made["stores"]),
            (&json!(scene.attic.uuid()), &scene.shown().await["stores"])
        );
        assert_eq!(scene.shown().await["volumes"][0]["volume"], VOLUME);
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_takes_branches_of_the_device_that_has_them() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.cellar.report().await.is(200);
    let mut branches = serde_json::Map::new();
    branches.insert(VOLUME.to_owned(), json!("cut-6-e1"));
    let wish = json!({"name": "tail", "branches": branches, "device": scene.cellar.uuid()});
    let begun = scene.order("fork", wish).await.is(202);
    let command = scene.cellar.expect("fork").await;
    assert_eq!((&command["branches"][VOLUME], &command["to"]), (&json!("cut-6-e1"), &Value::Null));
    scene.cellar.answer(&command, "obsolete", None, json!({})).await.is(204);
    let ended = scene.ada.wait(&id(&begun), 10).await;
    assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("obsolete")));
}

/// The app with an action, and one that wants a port below 1,024.
async fn with_action(scene: &mut Scene) {
    let action = json!({"actions": [{"name": "add-user", "service": "web", "input": [{"name": "user", "type": "name"}]}]});
    let package = scene.owner.package_with(&scene.app, "photos", 2, &action);
    scene.ada.post("/v1/packages", &package).await.is(201);
    let begun = scene.order("update", json!({"revision": 2})).await.is(202);
    let command = scene.attic.expect("update").await;
    scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
}

/// Whether a command in the hive's database has this text; none where that is not a file.
fn a_command_has(database: &str, text: &str) -> Option<bool> {
    let file = database.strip_prefix("sqlite:")?;
    let rows = rusqlite::Connection::open(file).expect("opens");
    let sql = "SELECT EXISTS (SELECT 1 FROM command WHERE instr(body, ?1) > 0)";
    Some(rows.query_row(sql, [text], |row| row.get(0)).expect("is a table"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_a_declared_one_and_its_output_is_a_stream() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        with_action(&mut scene).await;
        let stream = uuid();
        let input = json!([{"name": "user", "value": "ada"}]);
        let wish = json!({"input": input, "stream": stream});
        scene.order("actions/format-disk", wish.clone()).await.fails(404, "not_found");
        let other = json!({"input": [{"name": "shell", "value": "rm"}], "stream": stream});
        scene.order("actions/add-user", other).await.fails(400, "bad_request");
        let begun = scene.order("actions/add-user", wish).await.is(202);
        let command = scene.attic.expect("action").await;
        assert_eq!(
            (&command["name"], &command["input"], &command["stream"]),
            (&json!("add-user"), &input, &json!(stream))
        );
        let mut events = scene.ada.follow(&format!("/v1/streams/{stream}"), None).await;
        for part in 0..3u8 {
            let path = format!("/v1/device/streams/{stream}?part={part}");
            scene.attic.ask("POST", &path, &[part; 40]).await.is(204);
            // A repeated part is taken once.
            scene.attic.ask("POST", &path, &[part; 40]).await.is(204);
            let told = events.next().await;
            assert_eq!(told, ("part".to_owned(), part.to_string(), STANDARD.encode([part; 40])));
        }
        let gap = scene.attic.ask("POST", &format!("/v1/device/streams/{stream}?part=9"), b"x").await;
        assert_eq!(gap.fails(400, "bad_request")["error"]["field"], "part");
        let (kept, is_file) =
            (|| a_command_has(&database, "\"value\":\"ada\""), database.starts_with("sqlite:"));
        assert_eq!(kept(), is_file.then_some(true), "its device has to get it");
        scene.attic.answer(&command, "done", None, json!({"exit": 3})).await.is(204);
        assert_eq!(kept(), is_file.then_some(false), "what was filled in is the device's alone");
        assert_eq!(events.next().await, ("end".to_owned(), String::new(), "done".to_owned()));
        let done = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&done["state"], &done["result"]["exit"]), (&json!("done"), &json!(3)));
        let late = scene.attic.ask("POST", &format!("/v1/device/streams/{stream}?part=3"), b"x").await;
        late.fails(409, "state");
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_take_its_orders_gets_no_more_than_a_thousand() {
    let (database, folder) = databases().await.remove(0);
    let scene = Scene::on(&database, folder, "manual").await;
    let file = database.strip_prefix("sqlite:").expect("is a file");
    let rows = rusqlite::Connection::open(file).expect("opens");
    let many = "INSERT INTO command (account, device, number, operation, app, term, verb, body, result, at) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         SELECT account, device, -i, device, NULL, 0, 'facts', '{}', NULL, 0 FROM device CROSS JOIN n \
         WHERE name = 'attic'";
    assert_eq!(rows.execute(many, []).expect("are written"), 1_000);
    let refused = scene.order("snapshot", json!({})).await.fails(409, "state");
    assert!(refused["error"]["hint"].as_str().is_some_and(|hint| hint.contains("comb operation cancel")));
    assert_eq!(scene.shown().await["operation"], Value::Null, "nothing of it is left");
    rows.execute("DELETE FROM command WHERE number < 0", []).expect("are gone");
    scene.order("snapshot", json!({})).await.is(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_stand_in_nobodys_way_and_end_with_what_went_wrong() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let stream = uuid();
    let wish = json!({"services": ["web"], "lines": 50, "follow": true, "stream": stream});
    let begun = scene.order("logs", wish.clone()).await.is(202);
    let command = scene.attic.expect("logs").await;
    assert_eq!(
        (&command["services"], &command["lines"], &command["follow"]),
        (&json!(["web"]), &json!(50), &json!(true))
    );
    // An order goes on beside it.
    let snapshot = scene.order("snapshot", json!({})).await.is(202);
    scene.attic.obey().await;
    assert_eq!(scene.ada.wait(&id(&snapshot), 10).await["state"], "done");
    // Parts that came before somebody read wait for him.
    scene.attic.ask("POST", &format!("/v1/device/streams/{stream}?part=0"), b"one").await.is(204);
    scene.attic.ask("POST", &format!("/v1/device/streams/{stream}?part=1"), b"two").await.is(204);
    let mut events = scene.ada.follow(&format!("/v1/streams/{stream}"), None).await;
    assert_eq!(events.next().await.2, STANDARD.encode("one"));
    assert_eq!(events.next().await.2, STANDARD.encode("two"));
    scene.attic.answer(&command, "failed", Some("docker_stopped"), json!({})).await.is(204);
    assert_eq!(events.next().await, ("end".to_owned(), String::new(), "docker_stopped".to_owned()));
    assert_eq!(scene.ada.wait(&id(&begun), 10).await["code"], "docker_stopped");
    // Nobody asked for this one; and a device has four at most.
    let nobody = format!("/v1/device/streams/{}?part=0", uuid());
    scene.attic.ask("POST", &nobody, b"x").await.fails(409, "state");
    // The one whose end was read is none of them.
    for _ in 0..4 {
        let more = json!({"lines": 1, "stream": uuid()});
        scene.order("logs", more).await.is(202);
    }
    let many = scene.order("logs", json!({"lines": 1, "stream": uuid()})).await;
    assert!(many.headers.contains_key("retry-after"));
    many.fails(429, "slow_down");
    // What is cancelled ends its stream, too.
    let (stream, path) = (uuid(), format!("/v1/devices/{}/doctor", scene.cellar.uuid()));
    scene.cellar.report().await.is(200);
    let begun = scene.ada.post(&path, &json!({"stream": stream})).await.is(202);
    let mut events = scene.ada.follow(&format!("/v1/streams/{stream}"), None).await;
    scene.ada.post(&format!("/v1/operations/{}/cancel", id(&begun)), &json!({})).await.is(200);
    assert_eq!(events.next().await.2, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_below_1024_that_another_app_has_is_told_before_anything_stops() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let port = json!({
        "ports": [{"service": "web", "port": 80, "protocol": "tcp", "wish": 80}], "permissions": ["port:80/tcp"]
    });
    let package = scene.owner.package_with(&scene.app, "photos", 2, &port);
    scene.ada.post("/v1/packages", &package).await.is(201);
    let begun = scene.order("update", json!({"revision": 2})).await.is(202);
    let command = scene.attic.expect("update").await;
    scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    scene.ada.wait(&id(&begun), 10).await;
    // On the cellar another app has it.
    let other = uuid();
    scene.cellar.has(&other, &json!(1), "running", None, None);
    scene.cellar.apps[0]["ports"] = json!([{"service": "web", "port": 8080, "protocol": "tcp", "given": 80}]);
    scene.cellar.report().await.is(200);
    let refused = scene.order("move", json!({"to": scene.cellar.uuid()})).await.fails(422, "port_taken");
    assert_eq!(refused["error"]["details"]["port"], 80);
    assert!(refused["error"]["hint"].is_string());
    assert_eq!(scene.shown().await["operation"], Value::Null);
    scene.cellar.apps.clear();
    scene.cellar.renew.clear();
    scene.cellar.report().await.is(200);
    scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202);
}

/// What one device sealed for the hive runs where the same was said, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_the_hive_installed_moves_among_devices_that_take_such_apps() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let delegated = json!({"devices": "delegated", "author": scene.attic.uuid()});
        let package = scene.owner.package_with(&scene.app, "photos", 2, &delegated);
        scene.ada.post("/v1/packages", &package).await.is(201);
        let begun = scene.order("update", json!({"revision": 2})).await.is(202);
        let command = scene.attic.expect("update").await;
        scene.attic.answer(&command, "done", None, json!({})).await.is(204);
        scene.ada.wait(&id(&begun), 10).await;

        let to = json!({"to": scene.cellar.uuid()});
        scene.cellar.accepts_authoring = false;
        scene.cellar.hello().await.is(200);
        scene.cellar.report().await.is(200);
        let refused = scene.order("move", to.clone()).await.fails(422, "device_not_authorized");
        let said = refused["error"].to_string();
        assert!(said.contains("takes no apps from the hive") && said.contains("--may-run-on"), "{said}");
        assert_eq!(scene.shown().await["operation"], Value::Null);

        scene.cellar.accepts_authoring = true;
        scene.cellar.hello().await.is(200);
        scene.cellar.report().await.is(200);
        scene.order("move", to).await.is(202);
        scene.world.end().await;
    }
}

/// The store has a writer that the hive does not know of: a person is shown whose, and may take over all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_nobody_expected_is_shown_and_may_be_accepted() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.cellar.report().await.is(200);
        let stranger = "0badc0de0badc0de0badc0de0badc0de";
        let force =
            json!({"to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true});
        let begun = scene.order("move", force.clone()).await.is(202);
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert!(!start["volumes"][0]["expect"]["since"]["writers"].to_string().contains(stranger));
        let seen = json!([{"volume": VOLUME, "epoch": 7, "seq": 40, "writer": stranger}]);
        scene.cellar.answer(&start, "failed", Some("head_unexpected"), json!({"seen": seen})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 20).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("head_unexpected")));
        assert_eq!(failed["result"]["seen"], seen, "{failed}");
        let shown = scene.shown().await;
        assert_eq!(shown["problem"]["code"], "head_unexpected", "{shown}");
        // The app is the cellar's now, where it failed: it may take it all the same, with what was seen accepted.
        scene.cellar.has(&scene.app, &start["term"], "stopped", Some("failed"), None);
        scene.cellar.report().await.is(200);
        let mut again = force.clone();
        (again["even_if_online"], again["accept_seen"]) = (json!(false), json!(true));
        let begun = scene.order("move", again).await.is(202);
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert!(start["volumes"][0]["expect"]["since"]["writers"].to_string().contains(stranger), "{start}");
        scene.cellar.answer(&start, "failed", Some("head_unexpected"), json!({"seen": seen})).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 20).await["code"], "head_unexpected");
        // Then the attic takes it.
        scene.cellar.has(&scene.app, &start["term"], "stopped", Some("failed"), None);
        scene.cellar.report().await.is(200);
        scene.attic.apps.clear();
        scene.attic.renew.clear();
        scene.attic.report().await.is(200);
        let unforced = json!({"to": scene.attic.uuid(), "accept_seen": true});
        scene.order("move", unforced).await.fails(400, "bad_request");
        let mut accept = force;
        accept["to"] = json!(scene.attic.uuid());
        accept["accept_seen"] = json!(true);
        let begun = scene.order("move", accept).await.is(202);
        let prepare = scene.attic.expect("prepare").await;
        scene.attic.answer(&prepare, "done", None, json!({})).await.is(204);
        let start = scene.attic.expect("start").await;
        assert!(
            start["volumes"][0]["expect"]["since"]["writers"].to_string().contains(stranger),
            "it may have gone on from there: {start}"
        );
        let writers = json!([{"volume": VOLUME, "writer": scene.attic.writer()}]);
        let data =
            json!({"cuts": [cut(8, 41, Some(40))], "writers": writers, "started": true, "healthy": true});
        scene.attic.answer(&start, "done", None, data).await.is(204);
        assert_eq!(scene.ada.wait(&id(&begun), 20).await["state"], "done");
        assert_eq!(scene.shown().await["problem"], Value::Null);
        scene.world.end().await;
    }
}

/// A target where the app is not healthy: it is taken back, runs where it was, and the operation says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_fails_halfway_takes_the_way_back_and_says_why() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.cellar.report().await.is(200);
        let begun = scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202);
        scene.attic.report().await.is(200);
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let hand_over = scene.attic.expect("hand_over").await;
        let head = json!({"volume": VOLUME, "epoch": 1, "seq": 9, "manifest": manifest(9)});
        let data = json!({"heads": [head], "started": true, "healthy": true});
        scene.attic.answer(&hand_over, "done", None, data).await.is(204);
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("hand_over"), Some((1, 9)));
        let start = scene.cellar.expect("start").await;
        let problem = json!({"code": "unhealthy", "service": "web"});
        let body = json!({
            "number": start["number"], "state": "failed", "code": "unhealthy", "problem": problem,
            "data": {"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": false},
            "ended_age_ms": 0
        });
        let path = format!("/v1/device/commands/{}/result", start["number"]);
        scene.cellar.ask("POST", &path, &serde_json::to_vec(&body).expect("is JSON")).await.is(204);
        let back = scene.cellar.expect("hand_over").await;
        let head = json!({"volume": VOLUME, "epoch": 2, "seq": 11, "manifest": manifest(11)});
        let data = json!({"heads": [head], "started": true, "healthy": false});
        scene.cellar.answer(&back, "done", None, data).await.is(204);
        let again = scene.attic.expect("start").await;
        assert_eq!(again["volumes"][0]["expect"]["exactly"]["seq"], 11);
        assert_eq!(
            again["rollback_to"][VOLUME], 9,
            "what was written while it was not healthy stays in the past"
        );
        let writers = json!([{"volume": VOLUME, "writer": scene.attic.writer()}]);
        let data =
            json!({"cuts": [cut(3, 12, Some(11))], "writers": writers, "started": true, "healthy": true});
        scene.attic.answer(&again, "done", None, data).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 20).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("unhealthy")));
        assert_eq!(failed["problem"]["service"], "web");
        assert_eq!(scene.shown().await["device"], scene.attic.uuid());
        scene.world.end().await;
    }
}

/// Each code with which a device can end a command ends the operation with it, and nothing is left running.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_device_fails_with_ends_its_operation_with_that() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let orders = [
        ("snapshot", json!({}), "snapshot"),
        ("restart", json!({}), "restart"),
        ("rollback", json!({"to": "comb-0000000000000002"}), "rollback"),
        ("fork", json!({"name": "copy"}), "fork"),
    ];
    let codes = ["hook_failed", "docker_stopped", "store_unreachable", "unknown_command"];
    for ((what, body, verb), code) in orders.into_iter().zip(codes) {
        let begun = scene.order(what, body).await.is(202);
        let command = scene.attic.expect(verb).await;
        scene.attic.answer(&command, "failed", Some(code), json!({})).await.is(204);
        let failed = scene.ada.wait(&id(&begun), 10).await;
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!(code)), "{what}");
        assert_eq!(failed["problem"]["code"], code, "{what}: {failed}");
        assert!(failed["ended"].is_string() && failed["can_cancel"] == false, "{what}");
        assert_eq!(scene.shown().await["operation"], Value::Null, "{what}");
    }
    let events = scene.ada.get(&format!("/v1/events?app={}", scene.app)).await;
    let failed = events["items"].as_array().expect("a list").iter().filter(|one| one["kind"] == "failed");
    let told: Vec<&str> = failed.filter_map(|one| one["data"]["code"].as_str()).collect();
    assert_eq!(told, codes);
}

/// Who gets the next term after a device was lost in an update has the old revision, and the data from before.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_update_that_nobody_saw_the_end_of_the_next_start_goes_back_to_the_moment_before_it() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        scene.ada.package(&scene.owner, &scene.app, "photos", 2).await.is(201);
        let updating = id(&scene.order("update", json!({"revision": 2})).await.is(202));
        scene.attic.expect("update").await;
        scene.attic.has(&scene.app, &scene.term, "starting", None, Some((1, 6)));
        scene.attic.report().await.is(200);

        scene.cellar.report().await.is(200);
        let forced = json!({
            "to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true
        });
        let begun = id(&scene.order("move", forced).await.is(202));
        assert_eq!(scene.ada.wait(&updating, 10).await["code"], "forced");
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        let tag: String = updating.chars().filter(|one| *one != '-').take(16).collect();
        assert_eq!((&start["revision"], &start["rollback_to"]), (&json!(1), &json!(format!("comb-{tag}"))));
        // It fails there: whoever is next has to go back, too.
        scene.cellar.answer(&start, "failed", Some("unhealthy"), json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&begun, 10).await["code"], "unhealthy");
        scene.cellar.has(&scene.app, &start["term"], "stopped", Some("failed"), None);
        scene.cellar.report().await.is(200);
        let begun = id(&scene.order("start", json!({})).await.is(202));
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert_eq!(start["rollback_to"], format!("comb-{tag}"));
        let data =
            json!({"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": true});
        scene.cellar.answer(&start, "done", None, data).await.is(204);
        assert_eq!(scene.ada.wait(&begun, 10).await["state"], "done");
        scene.cellar.has(&scene.app, &start["term"], "running", None, Some((2, 10)));
        scene.cellar.report().await.is(200);

        // It runs: what it wrote since is not gone back from.
        let stopped = id(&scene.order("stop", json!({})).await.is(202));
        play(&scene.ada, &stopped, &mut [&mut scene.cellar]).await;
        scene.order("start", json!({})).await.is(202);
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        assert_eq!(scene.cellar.expect("start").await["rollback_to"], Value::Null);
        scene.world.end().await;
    }
}

/// The update of which a hive's only app is noted not to have been heard how it ended.
fn noted(database: &str) -> Value {
    let file = database.strip_prefix("sqlite:").expect("is a file");
    let rows = rusqlite::Connection::open(file).expect("opens");
    let known: String = rows.query_row("SELECT known FROM app", [], |row| row.get(0)).expect("has an app");
    serde_json::from_str::<Value>(&known).expect("is JSON")[VOLUME]["update"].clone()
}

/// A hive that is put back to the middle of an update hears from nobody how that ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_a_restored_hive_closes_as_lost_is_not_forgotten() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder.clone(), "manual").await;
    scene.ada.package(&scene.owner, &scene.app, "photos", 2).await.is(201);
    let updating = id(&scene.order("update", json!({"revision": 2})).await.is(202));
    scene.attic.expect("update").await;
    assert_eq!(noted(&database), Value::Null);

    let file = folder.path().join("middle.comb");
    orchestrator_hive::back_up_to(&database, &file).await.expect("a backup is made beside the hive");
    let other = format!("sqlite:{}", folder.path().join("other.db").display());
    orchestrator_hive::restore_from(&other, &file).await.expect("it is restored");
    assert_eq!(noted(&other), updating);

    // The same where its database was put back, and a device notices: that the app is the device's changes nothing.
    scene.attic.hello_apps = vec![json!({
        "app": scene.app, "term": scene.term.as_u64().expect("is a number") + 1, "mine": true, "leased": false,
        "stopped": true, "generation": 99, "revision": 1
    })];
    scene.attic.hello().await.is(200);
    assert_eq!(scene.ada.wait(&updating, 10).await["state"], "lost");
    assert_eq!(noted(&database), updating);

    // Its device keeps the new revision only when the update went well.
    let term = scene.attic.hello_apps[0]["term"].clone();
    scene.attic.has(&scene.app, &term, "stopped", Some("ordered"), Some((1, 6)));
    scene.attic.report().await.is(200);
    assert_eq!(noted(&database), updating);
    scene.attic.apps[0]["revision"] = json!(2);
    scene.attic.report().await.is(200);
    assert_eq!(scene.shown().await["revision"], 2);
    assert_eq!(noted(&database), Value::Null);
}

/// What was told as ended by force is not done when the device is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_force_ended_is_taken_back() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.cellar.report().await.is(200);
    let begun = id(&scene.order("rollback", json!({"to": "comb-0000000000000002"})).await.is(202));
    let forced =
        json!({"to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true});
    scene.order("move", forced).await.is(202);
    assert_eq!(scene.ada.wait(&begun, 10).await["code"], "forced");
    let given = scene.attic.commands_at_once().await;
    assert!(given.iter().all(|command| command["do"] != "rollback"), "{given:?}");
}

/// An app that is to stay stopped after a rollback is not started again by the hive, unless the rollback failed.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_stays_stopped_after_a_rollback_is_not_wanted() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let wish = json!({"to": "comb-0000000000000002", "start": false});
    for (state, code, wanted) in [("failed", Some("instant_torn"), "running"), ("done", None, "stopped")] {
        let begun = id(&scene.order("rollback", wish.clone()).await.is(202));
        let command = scene.attic.expect("rollback").await;
        assert_eq!((&command["start"], &scene.shown().await["wanted"]), (&json!(false), &json!("stopped")));
        scene.attic.answer(&command, state, code, json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&begun, 10).await["state"], state);
        assert_eq!(scene.shown().await["wanted"], wanted);
    }
}

/// Told before anything stops: a device makes volumes at a first start only.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_adds_a_volume_is_refused() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let volumes = json!({"volumes": [{"name": "data", "link": false}, {"name": "cache", "link": false}]});
    let package = scene.owner.package_with(&scene.app, "photos", 2, &volumes);
    scene.ada.post("/v1/packages", &package).await.is(201);
    let refused = scene.order("update", json!({"revision": 2})).await.fails(409, "state");
    assert!(refused["error"]["message"].as_str().expect("it says which").contains("\"cache\""), "{refused}");
    assert!(refused["error"]["hint"].is_string());
    assert!(scene.attic.commands_at_once().await.iter().all(|command| command["do"] != "update"));
}

/// A device goes on with a later revision than a hive that was restored: it brings the package, and until then nothing
/// older is started on its data.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_revision_is_taken_over_from_the_device_that_has_it() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.attic.hello_apps = vec![json!({
        "app": scene.app, "term": scene.term, "mine": true, "leased": false, "stopped": false, "generation": 1,
        "revision": 2
    })];
    let welcome = scene.attic.hello().await.is(200);
    assert_eq!(welcome["packages"], json!([scene.app]));
    scene.attic.apps[0]["revision"] = json!(2);
    scene.attic.report().await.is(200);
    scene.cellar.report().await.is(200);
    let wish = json!({"to": scene.cellar.uuid()});
    let refused = scene.order("move", wish.clone()).await.fails(409, "state");
    assert!(refused["error"]["hint"].as_str().expect("says what to do").contains("attic"), "{refused}");
    assert_eq!(scene.shown().await["revision"], 1);

    let package = serde_json::to_vec(&scene.owner.package(&scene.app, "photos", 2)).expect("is JSON");
    scene.attic.ask("POST", "/v1/packages", &package).await.is(201);
    scene.attic.report().await.is(200);
    assert_eq!(scene.shown().await["revision"], 2);
    assert_eq!(scene.attic.hello().await.is(200)["packages"], json!([]));
    scene.attic.report().await.is(200);
    scene.order("move", wish).await.is(202);
    assert_eq!(scene.cellar.expect("prepare").await["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_has_taken_is_not_cancelled_behind_its_back() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.ada.package(&scene.owner, &scene.app, "photos", 2).await.is(201);
    // An order that nobody took is taken back, and the device never hears of it.
    let begun = scene.order("update", json!({"revision": 2})).await.is(202);
    assert_eq!(begun["operation"]["can_cancel"], true);
    let cancel = format!("/v1/operations/{}/cancel", id(&begun));
    assert_eq!(scene.ada.post(&cancel, &json!({})).await.is(200)["state"], "cancelled");
    let told = scene.attic.commands_at_once().await;
    assert!(told.iter().all(|command| command["do"] != "update"), "{told:?}");

    // Once the device has it, what comes of it is heard.
    scene.attic.report().await.is(200);
    let begun = scene.order("update", json!({"revision": 2})).await.is(202);
    let command = scene.attic.expect("update").await;
    let path = format!("/v1/operations/{}", id(&begun));
    assert_eq!(scene.ada.get(&path).await["can_cancel"], false);
    let refused = scene.ada.post(&format!("{path}/cancel"), &json!({})).await.fails(409, "state");
    assert!(refused["error"]["hint"].as_str().is_some_and(|hint| hint.contains("revoke")), "{refused}");
    scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");
    assert_eq!(scene.shown().await["revision"], 2);

    // A log is only read: who reads it ends that at any time.
    scene.attic.report().await.is(200);
    let begun = scene.order("logs", json!({"lines": 1, "follow": true, "stream": uuid()})).await.is(202);
    scene.attic.expect("logs").await;
    let cancel = format!("/v1/operations/{}/cancel", id(&begun));
    assert_eq!(scene.ada.post(&cancel, &json!({})).await.is(200)["state"], "cancelled");
}

/// Some volumes may be back and others not: whoever starts the app next goes back as a whole, unless nothing had begun.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_that_is_not_whole_the_next_start_goes_back_to_its_moment() {
    let rounds = [
        (Some(json!({"rolled_back": false})), json!("before-party")),
        (Some(json!({})), Value::Null),
        // Its device has the order, and nobody hears of it any more.
        (None, json!("before-party")),
    ];
    for (answered, back) in rounds {
        let (database, folder) = databases().await.remove(0);
        let mut scene = Scene::on(&database, folder, "manual").await;
        let ordered = id(&scene.order("rollback", json!({"to": "before-party"})).await.is(202));
        let command = scene.attic.expect("rollback").await;
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("failed"), Some((1, 6)));
        let code = if answered.is_some() { "no_space" } else { "forced" };
        if let Some(data) = answered {
            scene.attic.answer(&command, "failed", Some(code), data).await.is(204);
        }
        scene.attic.report().await.is(200);

        scene.cellar.report().await.is(200);
        let forced = json!({
            "to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true
        });
        let begun = id(&scene.order("move", forced).await.is(202));
        assert_eq!(scene.ada.wait(&ordered, 10).await["code"], code);
        let prepare = scene.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert_eq!(start["rollback_to"], back, "{code}");
        // It fails there: whoever is next has to go back, too.
        scene.cellar.answer(&start, "failed", Some("no_space"), json!({})).await.is(204);
        assert_eq!(scene.ada.wait(&begun, 10).await["code"], "no_space");
        scene.cellar.has(&scene.app, &start["term"], "stopped", Some("failed"), None);
        scene.cellar.report().await.is(200);
        let begun = id(&scene.order("start", json!({})).await.is(202));
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = scene.cellar.expect("start").await;
        assert_eq!(start["rollback_to"], back, "{code}");
        // It runs, which a report may tell before its result does: what is written since is not gone back from.
        scene.cellar.has(&scene.app, &start["term"], "running", None, Some((2, 10)));
        scene.cellar.report().await.is(200);
        let data =
            json!({"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": true});
        scene.cellar.answer(&start, "done", None, data).await.is(204);
        assert_eq!(scene.ada.wait(&begun, 10).await["state"], "done");
        let stopped = id(&scene.order("stop", json!({})).await.is(202));
        play(&scene.ada, &stopped, &mut [&mut scene.cellar]).await;
        scene.order("start", json!({})).await.is(202);
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        assert_eq!(scene.cellar.expect("start").await["rollback_to"], Value::Null, "{code}");
        scene.world.end().await;
    }
}

/// The source could not bring its volumes back, or not all of them.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_way_back_that_failed_the_next_start_goes_back_as_well() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.cellar.report().await.is(200);
    let begun = id(&scene.order("move", json!({"to": scene.cellar.uuid()})).await.is(202));
    scene.attic.report().await.is(200);
    let prepare = scene.cellar.expect("prepare").await;
    let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
    scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    let hand_over = scene.attic.expect("hand_over").await;
    let head = |epoch: u64, seq: u64| json!({"volume": VOLUME, "epoch": epoch, "seq": seq, "manifest": manifest(seq)});
    let data = json!({"heads": [head(1, 9)], "started": true, "healthy": true});
    scene.attic.answer(&hand_over, "done", None, data).await.is(204);
    scene.attic.has(&scene.app, &scene.term, "stopped", Some("hand_over"), Some((1, 9)));
    let start = scene.cellar.expect("start").await;
    assert_eq!(start["rollback_to"], Value::Null);
    let spoiled = json!({"heads": [head(2, 11)], "started": true, "healthy": false});
    scene.cellar.answer(&start, "failed", Some("unhealthy"), json!({})).await.is(204);
    let back = scene.cellar.expect("hand_over").await;
    scene.cellar.answer(&back, "done", None, spoiled).await.is(204);
    let again = scene.attic.expect("start").await;
    assert_eq!(again["rollback_to"][VOLUME], 9);
    scene.attic.answer(&again, "failed", Some("no_space"), json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&begun, 20).await["state"], "failed");
    scene.attic.has(&scene.app, &again["term"], "stopped", Some("failed"), Some((1, 9)));
    scene.attic.report().await.is(200);

    scene.order("start", json!({})).await.is(202);
    scene.attic.report().await.is(200);
    let prepare = scene.attic.expect("prepare").await;
    let writers = json!([{"volume": VOLUME, "writer": scene.attic.writer()}]);
    scene.attic.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    assert_eq!(scene.attic.expect("start").await["rollback_to"][VOLUME], 9);
    scene.world.end().await;
}
