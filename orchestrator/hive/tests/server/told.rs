//! What pages tell where something is out of the ordinary: a hive that recovers, devices that are silent, figures of long ago, an update
//! of a device.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pages::{Browser, location, text};
use crate::scene::{Scene, id};
use crate::world::{Owner, Person, Reply, World, databases, uuid};

async fn scene() -> (Scene, Browser) {
    let (database, folder) = databases().await.remove(0);
    let scene = Scene::on(&database, folder, "manual").await;
    let browser = Browser::log_in(&scene.world, "ada", "a long password").await;
    (scene, browser)
}

#[track_caller]
fn shown(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", text(reply));
    text(reply)
}

#[track_caller]
fn has(page: &str, words: &[&str]) {
    for one in words {
        assert!(page.contains(one), "{one:?} is missing in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_that_recovers_says_so() {
    let mut world = World::new().await;
    let (ada, owner) = (world.set_up().await, Owner::new(1));
    ada.ring(&owner).await;
    let mut attic = ada.device(&world, "attic").await;
    let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
    let app = uuid();
    ada.package(&owner, &app, "photos", 1).await.is(201);
    let add = json!({
        "app": app, "revision": 1, "device": attic.uuid(), "policy": "manual", "stores": [store["id"]], "start": false
    });
    ada.post("/v1/apps", &add).await.is(202);
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let told = [
        ("/".to_owned(), "The hive was restored from a backup, and waits for its devices."),
        (format!("/apps/{app}"), "The hive was restored, and waits for its devices."),
        ("/settings".to_owned(), "waits for its devices after a restore"),
    ];
    for (path, words) in &told {
        assert!(!shown(&browser.get(path).await).contains(words), "{path}");
    }
    // It knows of a later term than the hive does: the hive is one of before.
    attic.hello_apps = vec![json!({
        "app": app, "term": 5, "mine": true, "leased": false, "stopped": true, "generation": 9, "revision": 1
    })];
    attic.hello().await.is(200);
    assert_eq!(ada.get("/v1/hive").await["recovering"], true);
    for (path, words) in &told {
        has(&shown(&browser.get(path).await), &[words]);
    }
    world.end().await;
}

/// Nothing of a silent device is shown as well, and what it cannot be ordered to do is disabled, with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_silent_device_is_green_and_it_takes_no_orders() {
    let (mut scene, mut browser) = scene().await;
    let (app, wiki) = (scene.app.clone(), uuid());
    scene.ada.package(&scene.owner, &app, "photos", 2).await.is(201);
    // An app with something that people may ask of it.
    let actions = json!({"actions": [{"name": "add_user", "service": "web", "input": []}]});
    let package = scene.owner.package_with(&wiki, "wiki", 1, &actions);
    scene.ada.post("/v1/packages", &package).await.is(201);
    let store = scene.ada.get("/v1/stores").await["items"][0]["id"].clone();
    let add = json!({
        "app": wiki, "revision": 1, "device": scene.attic.uuid(), "policy": "manual", "stores": [store], "start": false
    });
    scene.ada.post("/v1/apps", &add).await.is(202);
    let services = json!([{
        "name": "web", "state": "running", "health": "healthy", "restarts": 0, "cpu_percent": 7, "memory_bytes": 5u64 << 20
    }]);
    scene.attic.apps[0]["services"] = services;
    scene.attic.stores = vec![json!({"store": store, "state": "ok"})];
    scene.attic.report().await.is(200);
    let device = format!("/devices/{}", scene.attic.uuid());
    let (photos, settings) = (format!("/apps/{app}"), format!("/apps/{app}/settings"));
    let (actions, action) = (format!("/apps/{wiki}"), format!("/apps/{wiki}/actions/add_user"));
    let green = "class=\"health well\"";
    for path in ["/", "/devices", &device, &photos] {
        assert!(shown(&browser.get(path).await).contains(green), "it is well now: {path}");
    }
    let orders = [
        (&settings, "Update to it</button>", "no-orders"),
        (&actions, "Run…</", "no-actions"),
        (&action, "Run it</button>", "no-orders"),
    ];
    for (path, order, why) in orders {
        let page = shown(&browser.get(path).await);
        has(&page, &[order]);
        assert!(!page.contains(&format!("id=\"{why}\"")), "{path}: {page}");
    }

    // Both devices are silent from here on, and one of them has not taken what was ordered.
    let ordered = scene.order("snapshot", json!({})).await.is(202);
    let follow = format!("{photos}/operations/{}", id(&ordered));
    let force = format!("href=\"{photos}/force\"");
    for path in [&photos, &follow] {
        assert!(!shown(&browser.get(path).await).contains(&force), "{path}");
    }
    tokio::time::sleep(Duration::from_secs(32)).await;
    for path in [&photos, &follow] {
        has(&shown(&browser.get(path).await), &[&force, "Move it without that device…"]);
    }
    for path in ["/", "/devices", &device] {
        let page = shown(&browser.get(path).await);
        assert!(page.contains("silent") && !page.contains(green), "{path}: {page}");
    }
    let page = shown(&browser.get(&photos).await);
    // What happened before, happened.
    let (now, _) = page.split_once("id=\"happened\"").expect("is there");
    assert!(now.contains("does not report") && !now.contains(green), "{now}");
    for (path, order, why) in orders {
        let page = shown(&browser.get(path).await);
        has(
            &page,
            &[
                &format!("disabled aria-describedby=\"{why}\">{order}"),
                &format!("id=\"{why}\">Its device is silent, and takes no orders until it is heard again."),
            ],
        );
    }
    scene.world.end().await;
}

/// The points of a length of time, as the hive keeps them: the number of a step, and the values.
fn points<const N: usize>(step_ms: u64, count: u64, values: [f32; N]) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("is later");
    let last = u64::try_from(now.as_millis()).expect("fits") / step_ms - 1;
    let mut bytes = Vec::new();
    for step in last + 1 - count..=last {
        bytes.extend_from_slice(&u32::try_from(step).expect("fits").to_le_bytes());
        values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_a_day_and_a_month_are_drawn() {
    let (mut scene, mut browser) = scene().await;
    let account = scene.ada.get("/v1/me").await["account"]["id"].as_str().expect("has an id").to_owned();
    let bytes = |id: &str| id.parse::<orchestrator_api::text::Uuid>().expect("is an id").0;
    let (device, app) = (scene.attic.uuid(), scene.app.clone());
    // All but the point that is going on; the table beside a graph has twelve rows of it.
    let spans = [("day", 600_000, 143), ("month", 4 * 3_600_000, 185)];
    let pages = [(format!("/devices/{device}"), "37 %"), (format!("/apps/{app}"), "23 %")];
    for (path, number) in &pages {
        for (span, ..) in spans {
            let page = shown(&browser.get(&format!("{path}?span={span}")).await);
            assert!(!page.contains(&format!("<td>{number}</td>")), "{page}");
        }
    }
    let file = scene.world.options.database.strip_prefix("sqlite:").expect("is a file").to_owned();
    let database = rusqlite::Connection::open(file).expect("opens");
    database.busy_timeout(Duration::from_secs(10)).expect("it waits");
    for (span, step_ms, count) in spans {
        let of_device = points(step_ms, count, [37.0, 1e9, 1e10, 1.0, 2.0, f32::NAN, 4.0]);
        let of_app = points(step_ms, count, [23.0, 5e6]);
        for (subject, points) in [(&device, of_device), (&app, of_app)] {
            let sql = "INSERT INTO samples (account, subject, span, at, points) VALUES (?1, ?2, ?3, 1, ?4)";
            let values = rusqlite::params![bytes(&account), bytes(subject), span, points];
            assert_eq!(database.execute(sql, values).expect("is written"), 1);
        }
    }
    drop(database);
    for (path, number) in &pages {
        for (span, ..) in spans {
            let page = shown(&browser.get(&format!("{path}?span={span}")).await);
            has(&page, &["<svg role=\"img\"", "aria-current=\"true\""]);
            assert_eq!(page.matches(&format!("<td>{number}</td>")).count(), 12, "{path} {span}: {page}");
        }
    }
    scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_updated_by_its_page() {
    let (mut scene, mut browser) = scene().await;
    let program = b"a program".to_vec();
    scene.attic.features = json!(["move", "auto", "update"]);
    scene.attic.hello().await.is(200);
    scene.attic.report().await.is(200);
    scene.ada.post("/v1/releases", &scene.owner.release(4, &program)).await.is(201);
    put(&scene.ada, &scene.world, "/v1/releases/4/x86_64", &program).await.is(200);
    let device = format!("/devices/{}", scene.attic.uuid());
    let form = format!("{device}/update?release=4");
    has(&shown(&browser.get(&device).await), &[&format!("href=\"{form}\">Update to 0.4.0</a>")]);
    has(&shown(&browser.get(&form).await), &["Update attic?", "It takes release 4", "Update it"]);
    assert_eq!(browser.get(&format!("{device}/update")).await.status, 404, "which one?");
    scene.attic.report().await.is(200);
    let reply = browser.fill(&form, &form, &[]).await;
    assert_eq!(
        (reply.status, location(&reply)),
        (303, format!("{device}?done=ordered").as_str()),
        "{}",
        text(&reply)
    );
    let order = scene.attic.expect("update_device").await;
    assert_eq!(order["release"], scene.owner.release(4, &program)["release"]);
    scene.attic.update = json!({"number": 4, "state": "trying", "problem": null});
    scene.attic.report().await.is(200);
    has(&shown(&browser.get(&device).await), &["It tries release 4."]);
    scene.attic.answer(&order, "done", None, json!({})).await.is(204);
    scene.attic.update = json!({"number": 4, "state": "done", "problem": null});
    scene.attic.report().await.is(200);
    let all = scene.ada.get(&format!("/v1/operations?device={}", scene.attic.uuid())).await;
    let id = all["items"][0]["id"].as_str().expect("has an id");
    assert_eq!(scene.ada.wait(id, 20).await["state"], "done");
    let page = shown(&browser.get(&device).await);
    assert!(page.contains("It runs release 4.") && !page.contains("Update to 0.4.0"), "{page}");
    scene.world.end().await;
}

async fn put(ada: &Person, world: &World, path: &str, body: &[u8]) -> Reply {
    let headers = [("authorization", format!("Bearer {}", ada.token))];
    world.line().send("PUT", path, &headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_tell_how_long_the_past_is_kept_and_take_a_store() {
    let (mut scene, mut browser) = scene().await;
    let page = shown(&browser.get("/settings").await);
    let (_, kept) = page.split_once("id=\"retention\"").expect("is there");
    let (kept, _) = kept.split_once("</section>").expect("it ends");
    has(
        kept,
        &[
            "What of the past is kept",
            "all of the last hour, hourly moments for 2 days, daily ones for 30 days, and the last 3 always",
            &format!("<a href=\"/apps/{}\">", scene.app),
            "photos",
            "a moment at least every 15 s while it writes",
        ],
    );

    let before = scene.ada.get("/v1/stores").await["items"].as_array().map(Vec::len);
    let reply = browser.fill("/settings", "/settings/stores", &[("url", "nonsense")]).await;
    assert_eq!(reply.status, 400, "{}", text(&reply));
    let page = text(&reply);
    has(&page, &["value=\"nonsense\"", "-error\">", "<details open><summary>Add a store"]);
    assert_eq!(scene.ada.get("/v1/stores").await["items"].as_array().map(Vec::len), before);
    let reply = browser.fill("/settings", "/settings/stores", &[("url", "s3://second/p")]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let to = location(&reply).to_owned();
    assert!(to.starts_with("/settings?done=") && to.ends_with("#stores"), "{to}");
    has(&shown(&browser.get(to.split('#').next().expect("an address")).await), &["s3://second/p"]);
    let all: Vec<Value> = scene.ada.get("/v1/stores").await["items"].as_array().cloned().unwrap_or_default();
    assert!(all.iter().any(|one| one["url"] == "s3://second/p" && one["shared"] != json!(true)), "{all:?}");
    scene.world.end().await;
}
