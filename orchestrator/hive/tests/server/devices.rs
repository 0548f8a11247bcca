//! Devices join, say hello, report and are told what to do; nobody else is taken for one.

use std::time::Duration;

use orchestrator_api::code::JoinCode;
use orchestrator_api::request::NOBODY;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::world::{Machine, World, databases, uuid};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_joins_by_a_code_once() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let made = ada.post("/v1/device-codes", &json!({"name": "attic"})).await.is(200);
        let code = JoinCode::parse(made["code"].as_str().expect("has a code")).expect("is a code");
        assert_eq!(code.hive, world.key);
        let mut attic = Machine::new(&world);
        let joined = attic.join(&code, "host").await.is(201);
        assert_eq!(joined["name"], "attic");
        // The answer was lost: the same identity gets the same again; another one does not.
        assert_eq!(attic.join(&code, "host").await.is(201), joined);
        Machine::new(&world).join(&code, "thief").await.fails(403, "code_used");
        let other = JoinCode::new(world.key, orchestrator_api::code::Secret::new([1; 20]));
        Machine::new(&world).join(&other, "guess").await.fails(403, "code_wrong");
        assert_eq!(ada.get("/v1/device-codes").await["items"], json!([]));

        attic.hello().await.is(200);
        let device = format!("/v1/devices/{}", attic.uuid());
        assert_eq!(ada.get(&device).await["state"], "silent");
        attic.report().await.is(200);
        let shown = ada.get(&device).await;
        assert_eq!((shown["state"].clone(), shown["docker"].clone()), (json!("online"), json!("ok")));
        let events = ada.get("/v1/events").await;
        let kinds: Vec<&str> = events["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["kind"].as_str())
            .collect();
        assert!(kinds.contains(&"joined"), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_and_an_invitation_that_ended_let_nobody_in() {
    let (database, folder) = databases().await.remove(0);
    let world = World::on(&database, folder).await;
    let ada = world.set_up().await;
    let made = ada.post("/v1/device-codes", &json!({"name": "attic"})).await.is(200);
    let code = JoinCode::parse(made["code"].as_str().expect("has a code")).expect("is a code");
    let invite = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200)["invite"].clone();
    let file = database.strip_prefix("sqlite:").expect("is a file");
    let rows = rusqlite::Connection::open(file).expect("opens");
    rows.busy_timeout(Duration::from_secs(10)).expect("it waits");
    for table in ["device_code", "invite"] {
        // Their time is over by a second.
        let sql = format!("UPDATE {table} SET ends = (CAST(strftime('%s') AS INTEGER) - 1) * 1000");
        assert_eq!(rows.execute(&sql, []).expect("is written"), 1, "{table}");
    }
    Machine::new(&world).join(&code, "host").await.fails(403, "code_expired");
    let wish = json!({"invite": invite, "name": "bob", "password": "a long password"});
    world.nobody("POST", "/v1/people/accept", &wish).await.fails(403, "code_expired");
    assert_eq!(ada.get("/v1/devices").await["items"], json!([]));
    assert_eq!(ada.get("/v1/people").await["items"].as_array().map(Vec::len), Some(1));
}

/// Of another device's app, and of what is no app at all, a device's word keeps no figures.
#[tokio::test(flavor = "multi_thread")]
async fn figures_are_kept_of_a_device_and_of_the_apps_that_it_has() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let file = database.strip_prefix("sqlite:").expect("is a file");
    let rows = rusqlite::Connection::open(file).expect("opens");
    rows.busy_timeout(Duration::from_secs(10)).expect("it waits");
    // The first report of a minute counts.
    rows.execute("UPDATE device SET seen = seen - 60000", []).expect("is written");
    let kept = |id: &str| {
        let id = id.parse::<orchestrator_api::text::Uuid>().expect("is an id").0;
        let sql = "SELECT points FROM samples WHERE subject = ?1 AND span = 'hour'";
        let points = rows.query_row(sql, [id.as_slice()], |row| row.get::<_, Vec<u8>>(0));
        points.ok().map(|points| f32::from_le_bytes(*points.last_chunk().expect("has values")))
    };
    let services = |memory: u64| {
        json!([{
            "name": "web", "state": "running", "health": "healthy", "restarts": 0, "cpu_percent": 7,
            "memory_bytes": memory
        }])
    };
    scene.attic.apps[0]["services"] = services(4_096);
    scene.attic.report().await.is(200);
    assert_eq!(kept(&scene.app), Some(4_096.0));

    let nobodys = uuid();
    for app in [&scene.app, &nobodys] {
        scene.cellar.has(app, &scene.term, "running", None, None);
    }
    scene.cellar.apps.iter_mut().for_each(|app| app["services"] = services(8_192));
    scene.cellar.report().await.is(200);
    assert_eq!(kept(&scene.app), Some(4_096.0), "it is the attic's");
    assert_eq!(kept(&nobodys), None);
    assert!(kept(&scene.cellar.uuid()).is_some(), "its own are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_for_this_session_is_refused_and_the_refusal_is_signed() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut attic = ada.device(&world, "attic").await;
    let body = serde_json::to_vec(&attic.report_json(9)).expect("is JSON");
    attic.signed(NOBODY, 9, "POST", "/v1/device/report", &body, None).await.fails(401, "session_over");
    // A report that was taken is not taken again.
    attic.report().await.is(200);
    let mut again = attic.copy(&world);
    again.hello_again().await.fails(403, "device_cloned");
    // One who knows the id has no key.
    let mut thief = Machine::new(&world);
    thief.id = attic.id;
    thief.hello().await.fails(401, "bad_signature");
    thief.id = [0x40; 16];
    thief.id[6] = 0x40;
    thief.id[8] = 0x80;
    thief.hello().await.fails(401, "device_unknown");
    // The same hello of the same run is the same session; the next hello ends it.
    attic.hello_again().await.is(200);
    attic.hello().await.is(200);
    attic.report().await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_report_and_a_number_that_was_not_signed_are_refused() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut attic = ada.device(&world, "attic").await;
    attic.report().await.is(200);
    let old = serde_json::to_vec(&attic.report_json(1)).expect("is JSON");
    let reply = attic.ask("POST", "/v1/device/report", &old).await;
    reply.fails(400, "bad_request");
    let mut more = attic.report_json(100);
    more["containers"] = json!(["somebody-elses"]);
    let more = serde_json::to_vec(&more).expect("is JSON");
    attic.ask("POST", "/v1/device/report", &more).await.fails(400, "unknown_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_nobody() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let mut attic = ada.device(&world, "attic").await;
        let path = format!("/v1/devices/{}/revoke", attic.uuid());
        // Whoever says that the stores are closed to it does not revoke it by that.
        let refused = ada.post(&path, &json!({"stores_closed": true})).await.fails(409, "state");
        assert!(refused["error"]["hint"].as_str().is_some_and(|hint| hint.contains("revoke it first")));
        attic.report().await.is(200);
        ada.post(&path, &json!({"stores_closed": false})).await.is(202);
        attic.report().await.fails(401, "session_over");
        attic.hello().await.fails(403, "device_revoked");
        let shown = ada.get(&format!("/v1/devices/{}", attic.uuid())).await;
        assert_eq!((shown["state"].clone(), shown["stores_open"].clone()), (json!("revoked"), json!(true)));
        let rename = ada
            .ask(
                "PATCH",
                &format!("/v1/devices/{}", attic.uuid()),
                &json!({"name": "cellar"}),
                &[("if-match", "\"1\"".into())],
            )
            .await;
        rename.fails(412, "changed");
        // Then they are closed, which stays so, and it was revoked once.
        for closed in [true, false] {
            ada.post(&path, &json!({"stores_closed": closed})).await.is(202);
            let shown = ada.get(&format!("/v1/devices/{}", attic.uuid())).await;
            assert_eq!((&shown["state"], &shown["stores_open"]), (&json!("revoked"), &json!(false)));
        }
        let events = ada.get("/v1/events").await;
        let revoked =
            events["items"].as_array().expect("a list").iter().filter(|one| one["kind"] == "revoked");
        assert_eq!(revoked.count(), 1, "{events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_held_request_ends_the_first() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut attic = ada.device(&world, "attic").await;
    let mut twin = attic.twin(&world);
    let first = tokio::spawn(async move { twin.commands().await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!first.is_finished(), "it is held");
    let second = tokio::time::timeout(Duration::from_secs(2), attic.commands()).await;
    assert!(second.is_err(), "this one is held now");
    assert_eq!(first.await.expect("it was answered"), Vec::<Value>::new());
}
