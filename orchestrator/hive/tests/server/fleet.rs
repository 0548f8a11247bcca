//! What the hive goes on with by itself: devices that are emptied, that stand by, that take releases.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::scene::{Scene, id, play};
use crate::world::{Machine, Owner, Person, VOLUME, World, databases, uuid};

async fn store(ada: &Person, url: &str, device: Option<String>) -> Value {
    ada.post("/v1/stores", &json!({"url": url, "device": device})).await.is(200)["id"].clone()
}

/// Adds an app and lets its device start it.
async fn add(
    ada: &Person,
    owner: &Owner,
    on: &mut Machine,
    name: &str,
    store: &Value,
    start: bool,
) -> String {
    let app = uuid();
    ada.package(owner, &app, name, 1).await.is(201);
    let wish = json!({
        "app": app, "revision": 1, "device": on.uuid(), "policy": "manual", "stores": [store], "start": start
    });
    let ordered = ada.post("/v1/apps", &wish).await.is(202);
    assert_eq!(play(ada, &id(&ordered), &mut [on]).await["state"], "done");
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_emptied_one_app_after_the_other() {
    for (database, folder) in databases().await {
        let mut world = World::on(&database, folder).await;
        let (ada, owner) = (world.set_up().await, Owner::new(1));
        ada.ring(&owner).await;
        let mut attic = ada.device(&world, "attic").await;
        let mut cellar = ada.device(&world, "cellar").await;
        let s3 = store(&ada, "s3://b/p", None).await;
        let folder = store(&ada, "file:///srv/only-here", Some(attic.uuid())).await;
        let here = add(&ada, &owner, &mut attic, "bound", &folder, true).await;
        let photos = add(&ada, &owner, &mut attic, "photos", &s3, true).await;
        let notes = add(&ada, &owner, &mut attic, "notes", &s3, true).await;
        let asleep = add(&ada, &owner, &mut attic, "asleep", &s3, false).await;

        let path = format!("/v1/devices/{}/drain", attic.uuid());
        let ordered = ada.post(&path, &json!({"on": true})).await.is(202);
        assert_eq!(
            (&ordered["operation"]["kind"], &ordered["operation"]["state"]),
            (&json!("drain"), &json!("running"))
        );
        // Ordered again, it is the same.
        assert_eq!(id(&ada.post(&path, &json!({"on": true})).await.is(202)), id(&ordered));
        let mut most = 0;
        let until = Instant::now() + Duration::from_secs(60);
        let ended = loop {
            attic.obey().await;
            cellar.obey().await;
            let moving = ada.get("/v1/operations?state=running").await;
            let moves =
                moving["items"].as_array().expect("a list").iter().filter(|one| one["kind"] == "move");
            most = most.max(moves.count());
            let found = ada.get(&format!("/v1/operations/{}", id(&ordered))).await;
            if found["state"] != "running" {
                break found;
            }
            assert!(Instant::now() < until, "{found}");
        };
        assert_eq!(most, 1, "one after the other");
        // What cannot go is named with its reason; what does not run has nothing to hand over.
        assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("no_candidate")), "{ended}");
        let left = json!([{"app": asleep, "code": "stopped"}, {"app": here, "code": "store_is_local"}]);
        let mut told = ended["result"]["left"].as_array().cloned().expect("a list");
        told.sort_by_key(|one| one["code"].as_str() != Some("stopped"));
        assert_eq!(json!(told), left);
        assert_eq!((&ended["done"], &ended["total"]), (&json!(4), &json!(4)));
        for (app, device) in [(&photos, &cellar), (&notes, &cellar), (&here, &attic)] {
            assert_eq!(ada.get(&format!("/v1/apps/{app}")).await["device"], device.uuid());
        }
        assert_eq!(ada.get(&format!("/v1/devices/{}", attic.uuid())).await["state"], "draining");
        // It gets no app any more, until it is said that it may.
        let wish = json!({"to": attic.uuid()});
        ada.post(&format!("/v1/apps/{photos}/move"), &wish).await.fails(422, "device_draining");
        ada.post(&path, &json!({"on": false})).await.is(202);
        assert_eq!(ada.get(&format!("/v1/devices/{}", attic.uuid())).await["state"], "online");

        // All of it can go from the cellar; then that is done.
        let path = format!("/v1/devices/{}/drain", cellar.uuid());
        let ordered = ada.post(&path, &json!({"on": true})).await.is(202);
        let ended = play(&ada, &id(&ordered), &mut [&mut attic, &mut cellar]).await;
        assert_eq!((&ended["state"], &ended["result"]["left"]), (&json!("done"), &Value::Null), "{ended}");
        assert_eq!(ada.get(&format!("/v1/devices/{}", cellar.uuid())).await["apps"], json!([]));

        // A person changes his mind: what is on its way arrives, the device takes apps again.
        let path = format!("/v1/devices/{}/drain", attic.uuid());
        let ordered = ada.post(&path, &json!({"on": true})).await.is(202);
        let cancel = format!("/v1/operations/{}/cancel", id(&ordered));
        assert_eq!(ada.post(&cancel, &json!({})).await.is(200)["state"], "cancelled");
        assert_eq!(ada.get(&format!("/v1/devices/{}", attic.uuid())).await["state"], "online");
        world.end().await;
    }
}

/// A target where an app does not get well: the app goes back, and is not tried again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_fails_elsewhere_stays_and_is_told() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    scene.cellar.report().await.is(200);
    let path = format!("/v1/devices/{}/drain", scene.attic.uuid());
    let ordered = scene.ada.post(&path, &json!({"on": true})).await.is(202);
    let prepare = scene.cellar.expect("prepare").await;
    let problem = json!({"code": "image_missing", "service": "web"});
    let number = &prepare["number"];
    let body = json!({
        "number": number, "state": "failed", "code": "image_missing", "problem": problem, "data": {}, "ended_age_ms": 0
    });
    let body = serde_json::to_vec(&body).expect("is JSON");
    scene.cellar.ask("POST", &format!("/v1/device/commands/{number}/result"), &body).await.is(204);
    let ended = scene.ada.wait(&id(&ordered), 20).await;
    assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("image_missing")), "{ended}");
    assert_eq!(ended["result"]["left"], json!([{"app": scene.app, "code": "image_missing"}]));
    let moves = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
    let failed = &moves["items"][0];
    assert_eq!((&failed["kind"], &failed["problem"]["service"]), (&json!("move"), &json!("web")), "{failed}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
    assert_eq!(again["items"].as_array().map(Vec::len), moves["items"].as_array().map(Vec::len));
    assert_eq!(scene.shown().await["device"], scene.attic.uuid());
}

/// Where nobody is named the hive asks one device after the other; where somebody is, nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_stands_by_for_an_app_under_a_lease() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "auto").await;
        let mut shed = scene.ada.device(&scene.world, "shed").await;
        // Both have as much memory as the other: the first by name is asked first, and cannot.
        let prepare = scene.cellar.expect("prepare").await;
        scene.cellar.answer(&prepare, "failed", Some("image_missing"), json!({})).await.is(204);
        let operations = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
        let failed = &operations["items"][0];
        assert_eq!((&failed["kind"], &failed["state"]), (&json!("standby"), &json!("failed")));
        assert_eq!((&failed["code"], &failed["by"]["hive"]), (&json!("image_missing"), &json!(true)));
        // Meanwhile other orders are not in its way.
        let snapshot = scene.order("snapshot", json!({})).await.is(202);
        scene.attic.obey().await;
        assert_eq!(scene.ada.wait(&id(&snapshot), 10).await["state"], "done");
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            scene.attic.obey().await;
            scene.cellar.report().await.is(200);
            if shed.obey().await.contains(&"prepare".to_owned()) {
                break;
            }
            assert!(Instant::now() < until, "the shed is not asked");
        }
        shed.has(&scene.app, &scene.term, "standing_by", None, None);
        shed.report().await.is(200);
        assert_eq!(scene.shown().await["problem"], Value::Null);

        // Named by a person; then not named any more, which it is told.
        let patch = json!({"standby": [scene.cellar.uuid()]});
        scene.attic.report().await.is(200);
        scene.cellar.report().await.is(200);
        let path = format!("/v1/apps/{}", scene.app);
        scene.ada.ask("PATCH", &path, &patch, &[]).await.is(202);
        let prepare = scene.cellar.expect("prepare").await;
        assert_eq!(prepare["volumes"][0]["volume"], VOLUME);
        scene.cellar.answer(&prepare, "done", None, json!({})).await.is(204);
        scene.cellar.report().await.is(200);
        scene.ada.ask("PATCH", &path, &json!({"standby": []}), &[]).await.is(202);
        assert_eq!(scene.cellar.expect("forget").await["keep_data"], true);
        scene.world.end().await;
    }
}

async fn put(ada: &Person, world: &World, path: &str, body: &[u8]) -> crate::world::Reply {
    let headers = [("authorization", format!("Bearer {}", ada.token))];
    world.line().send("PUT", path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_the_owners_and_goes_where_it_may() {
    for (database, folder) in databases().await {
        let mut world = World::on(&database, folder).await;
        let (ada, owner) = (world.set_up().await, Owner::new(1));
        let program = vec![7u8; 5000];
        ada.post("/v1/releases", &owner.release(1, &program)).await.fails(409, "state");
        ada.ring(&owner).await;
        let mut attic = ada.device(&world, "attic").await;
        ada.post("/v1/releases", &Owner::new(2).release(1, &program)).await.fails(422, "policy_refused");
        let mut foreign = Owner::new(1);
        foreign.account = [9; 16];
        ada.post("/v1/releases", &foreign.release(1, &program)).await.fails(422, "policy_refused");
        let made = ada.post("/v1/releases", &owner.release(3, &program)).await.is(201);
        assert_eq!((&made["present"], &made["missing"]), (&json!([]), &json!(["x86_64"])));
        ada.post("/v1/releases", &owner.release(3, &program)).await.fails(409, "revision_old");

        // The bytes are those that were signed for, and of a processor that the release has.
        put(&ada, &world, "/v1/releases/3/x86_64", b"others").await.fails(400, "bad_request");
        put(&ada, &world, "/v1/releases/3/aarch64", &program).await.fails(404, "not_found");
        put(&ada, &world, "/v1/releases/9/x86_64", &program).await.fails(404, "not_found");
        let order = format!("/v1/devices/{}/update", attic.uuid());
        ada.post(&order, &json!({"release": 9})).await.fails(409, "state");
        attic.features = json!(["move", "auto", "update"]);
        attic.hello().await.is(200);
        attic.report().await.is(200);
        ada.post(&order, &json!({"release": 9})).await.fails(404, "not_found");
        let missing = ada.post(&order, &json!({"release": 3})).await.fails(422, "arch_mismatch");
        assert!(missing["error"]["hint"].is_string(), "{missing}");
        let made = put(&ada, &world, "/v1/releases/3/x86_64", &program).await.is(200);
        assert_eq!((&made["present"], &made["missing"]), (&json!(["x86_64"]), &json!([])));
        assert_eq!(ada.get("/v1/releases").await["items"][0]["number"], 3);

        // Nobody asked it, and it did not say that it takes what comes.
        tokio::time::sleep(Duration::from_secs(4)).await;
        attic.report().await.is(200);
        assert_eq!(ada.get("/v1/operations?state=running").await["items"], json!([]));
        let ordered = ada.post(&order, &json!({"release": 3})).await.is(202);
        let command = attic.expect("update_device").await;
        let signed = owner.release(3, &program);
        assert_eq!((&command["release"], &command["signature"]), (&signed["release"], &signed["signature"]));
        assert_eq!(command["app"], Value::Null);
        let bytes = attic.ask("GET", "/v1/device/releases/3/x86_64", b"").await;
        assert_eq!((bytes.status, bytes.body.as_ref()), (200, program.as_slice()));
        let text = STANDARD.decode(command["release"].as_str().expect("is text")).expect("is base64");
        let release = orchestrator_api::release::Release::parse(&text).expect("is a release");
        assert_eq!(release.binaries[0].blake3.0, *blake3::hash(&bytes.body).as_bytes());
        attic.ask("GET", "/v1/device/releases/3/aarch64", b"").await.fails(404, "not_found");
        attic.answer(&command, "done", None, json!({})).await.is(204);
        assert_eq!(ada.wait(&id(&ordered), 10).await["state"], "done");
        let events = ada.get(&format!("/v1/events?device={}", attic.uuid())).await;
        let last = events["items"].as_array().and_then(|all| all.last()).cloned().expect("there are some");
        assert_eq!((&last["kind"], &last["data"]["release"]), (&json!("updated"), &json!(3)));
        world.end().await;
    }
}

/// Who says that he takes releases gets them by himself, one device after the other; one that failed is not tried again.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_opted_in_are_updated_one_after_the_other() {
    let world = World::new().await;
    let (ada, owner) = (world.set_up().await, Owner::new(1));
    ada.ring(&owner).await;
    let mut devices = Vec::new();
    for name in ["attic", "cellar", "shed"] {
        let mut device = ada.device(&world, name).await;
        device.features = json!(["move", "auto", "update"]);
        device.auto_update = name != "shed";
        device.hello().await.is(200);
        device.report().await.is(200);
        devices.push(device);
    }
    let program = b"a program".to_vec();
    ada.post("/v1/releases", &owner.release(4, &program)).await.is(201);
    put(&ada, &world, "/v1/releases/4/x86_64", &program).await.is(200);
    let [attic, cellar, shed] = &mut devices[..] else { panic!("there are three") };
    let first = attic.expect("update_device").await;
    cellar.report().await.is(200);
    let running = ada.get("/v1/operations?state=running").await;
    assert_eq!(running["items"].as_array().map(Vec::len), Some(1), "{running}");
    // The new program was not well there, and the old one is back.
    attic.answer(&first, "failed", Some("unhealthy"), json!({})).await.is(204);
    attic.update = json!({"number": 4, "state": "gone_back", "problem": "unhealthy"});
    let second = cellar.expect("update_device").await;
    assert_eq!(second["release"], first["release"]);
    cellar.answer(&second, "done", None, json!({})).await.is(204);
    cellar.update = json!({"number": 4, "state": "done", "problem": null});
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for device in [&mut *attic, &mut *cellar, &mut *shed] {
            assert_eq!(device.obey().await, Vec::<String>::new(), "nobody is asked again");
        }
    }
    let all = ada.get("/v1/operations").await;
    let states: Vec<&str> =
        all["items"].as_array().expect("a list").iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["done", "failed"], "{all}");
    // The next release is another one.
    ada.post("/v1/releases", &owner.release(5, &program)).await.is(201);
    put(&ada, &world, "/v1/releases/5/x86_64", &program).await.is(200);
    attic.expect("update_device").await;
}

/// Says that it takes releases, as soon as its ring is open.
async fn willing(device: &mut Machine, locked: bool) {
    device.features = json!(["move", "auto", "update"]);
    (device.auto_update, device.locked) = (true, locked);
    device.hello().await.is(200);
    device.report().await.is(200);
}

/// The hive looks every three seconds; who reports twice meanwhile is asked nothing.
async fn asked_nothing(device: &mut Machine) {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(device.obey().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_reaches_devices_that_join_after_it() {
    for (database, folder) in databases().await {
        let mut world = World::on(&database, folder).await;
        let (ada, owner) = (world.set_up().await, Owner::new(1));
        ada.ring(&owner).await;
        let program = b"a program".to_vec();
        ada.post("/v1/releases", &owner.release(4, &program)).await.is(201);
        put(&ada, &world, "/v1/releases/4/x86_64", &program).await.is(200);
        // The newest one has nothing for its processor yet.
        ada.post("/v1/releases", &owner.release(5, &program)).await.is(201);

        let mut late = ada.device(&world, "late").await;
        willing(&mut late, true).await;
        asked_nothing(&mut late).await;
        late.locked = false;
        late.hello().await.is(200);
        let order = late.expect("update_device").await;
        assert_eq!(order["release"], owner.release(4, &program)["release"]);
        // Its ring was locked again meanwhile, which says nothing of the release; but it is not asked all the time.
        late.answer(&order, "failed", Some("package_sealed"), json!({})).await.is(204);
        asked_nothing(&mut late).await;

        // One that joined anew, on a machine where this release was not well.
        let mut back = ada.device(&world, "back").await;
        back.update = json!({"number": 4, "state": "gone_back", "problem": "update_rolled_back"});
        back.report().await.is(200);
        willing(&mut back, false).await;
        asked_nothing(&mut back).await;
        put(&ada, &world, "/v1/releases/5/x86_64", &program).await.is(200);
        assert_eq!(back.expect("update_device").await["release"], owner.release(5, &program)["release"]);
        world.end().await;
    }
}

/// A device that never got its order holds nobody back, and gets it when it is there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_reaches_a_device_that_was_silent() {
    for (database, folder) in databases().await {
        let mut world = World::on(&database, folder).await;
        let (ada, owner) = (world.set_up().await, Owner::new(1));
        ada.ring(&owner).await;
        let (mut attic, mut cellar) = (ada.device(&world, "attic").await, ada.device(&world, "cellar").await);
        willing(&mut attic, false).await;
        willing(&mut cellar, false).await;
        let program = b"a program".to_vec();
        ada.post("/v1/releases", &owner.release(4, &program)).await.is(201);
        put(&ada, &world, "/v1/releases/4/x86_64", &program).await.is(200);
        let begun = Instant::now();
        let mut asked = Vec::new();
        while asked.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the cellar waits for the attic");
            cellar.report().await.is(200);
            asked = cellar.commands_at_once().await;
        }
        assert!(begun.elapsed() > Duration::from_secs(38), "{:?}", begun.elapsed());
        cellar.answer(&asked[0], "done", None, json!({})).await.is(204);
        cellar.update = json!({"number": 4, "state": "done", "problem": null});
        cellar.report().await.is(200);
        let all = ada.get(&format!("/v1/operations?device={}", attic.uuid())).await;
        assert_eq!(
            (&all["items"][0]["state"], &all["items"][0]["code"]),
            (&json!("failed"), &json!("device_silent")),
            "{all}"
        );
        let order = attic.expect("update_device").await;
        // It has taken the order now, and says so: should it be silent from here on, the order stands.
        attic.report().await.is(200);
        tokio::time::sleep(Duration::from_secs(44)).await;
        let all = ada.get("/v1/operations?state=running").await;
        let running: Vec<&Value> = all["items"].as_array().expect("a list").iter().collect();
        assert_eq!(running.len(), 1, "{all}");
        assert_eq!(
            (&running[0]["waits_for"], &running[0]["code"]),
            (&json!(attic.uuid()), &json!("device_silent"))
        );
        attic.answer(&order, "failed", Some("update_rolled_back"), json!({})).await.is(204);
        asked_nothing(&mut attic).await;
        world.end().await;
    }
}
