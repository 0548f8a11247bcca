//! The pages of apps over HTTP: the catalog, installing, one app, its moments, moving it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::pages::{Browser, from, location, text};
use crate::scene::{Scene, id};
use crate::world::{Machine, Owner, Reply, VOLUME, World, cut, databases, manifest, uuid};

/// The apps of the repository are a catalog.
fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/apps")
}

/// Two devices, an app on the first, and people: ada owns, vera looks, eve has another account.
struct Stage {
    scene: Scene,
    ada: Browser,
    vera: Browser,
    eve: Browser,
    _catalog: Option<tempfile::TempDir>,
}

impl Stage {
    async fn new() -> Stage {
        Self::with(fixtures(), None).await
    }

    async fn with(catalog: PathBuf, kept: Option<tempfile::TempDir>) -> Stage {
        let (database, folder) = databases().await.remove(0);
        let listen = "127.0.0.1:0".parse().expect("is an address");
        let mut options = orchestrator_hive::Options::new(&database, listen);
        options.catalog = Some(catalog);
        let world = World::with(options, folder).await;
        let token = world.set_up().await.token;
        let scene = Scene::joined(world, &token, "manual").await;
        let invited = |wish: Value| {
            let ada = scene.ada.clone();
            async move { ada.post("/v1/people/invites", &wish).await.is(200)["invite"].clone() }
        };
        let vera = json!({"invite": invited(json!({"role": "viewer"})).await, "name": "vera", "password": "a long password"});
        scene.world.nobody("POST", "/v1/people/accept", &vera).await.is(200);
        let eve = invited(json!({"role": "owner", "new_account": true})).await;
        let eve = json!({"invite": eve, "name": "eve", "password": "a long password", "account": "other"});
        let eve = scene.world.nobody("POST", "/v1/people/accept", &eve).await.is(200);
        let eve = scene.world.person(eve["token"].as_str().expect("has a token"));
        let letters = eve.get("/v1/me").await["account"]["letters"].as_str().expect("has letters").to_owned();
        let ada = Browser::log_in(&scene.world, "ada", "a long password").await;
        let vera = Browser::log_in(&scene.world, "vera", "a long password").await;
        let eve = Browser::log_in(&scene.world, &format!("eve@{letters}"), "a long password").await;
        Stage { scene, ada, vera, eve, _catalog: kept }
    }

    fn app(&self, end: &str) -> String {
        format!("/apps/{}{end}", self.scene.app)
    }

    /// The page of an operation, once it ended.
    async fn ended(&mut self, path: &str) -> String {
        for _ in 0..200 {
            let page = shown(&self.ada.get(path).await);
            if page.contains("ended <time") {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not end: {path}");
    }

    /// Both devices report: what is ordered of one that is silent is refused.
    async fn report(&mut self) {
        self.scene.attic.reports().await;
        self.scene.cellar.reports().await;
    }

    /// Sends a form of the app, which leads on to the page of what it ordered.
    async fn orders(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> String {
        let (page, action) = (self.app(page), self.app(action));
        let reply = self.ada.fill(&page, &action, fields).await;
        assert_eq!(reply.status, 303, "{}", text(&reply));
        let path = location(&reply).to_owned();
        assert!(path.contains("/operations/"), "{path}");
        path
    }
}

#[track_caller]
fn shown(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", text(reply));
    let page = text(reply);
    assert!(!page.contains("style=\"") && !page.contains("<style"), "a page has no style of its own: {page}");
    page
}

#[track_caller]
fn has(page: &str, words: &[&str]) {
    for one in words {
        assert!(page.contains(one), "{one:?} is missing in {page}");
    }
}

fn paths() -> Vec<(&'static str, &'static str)> {
    let mut all = orchestrator_hive::pages();
    all.retain(|(_, path)| ["/apps", "/catalog", "/installs"].iter().any(|one| path.starts_with(one)));
    assert!(all.len() >= 30, "{}", all.len());
    all
}

/// Those that only look, and for whom a page is to order things.
fn is_for_viewers(method: &str, path: &str) -> bool {
    let orders = ["remove", "{name}", "rollback", "fork", "move", "force"];
    method == "GET" && (path.starts_with("/catalog") || !orders.iter().any(|end| path.ends_with(end)))
}

/// Addresses of this hive that a page links to, without what stands behind a `#`.
fn links(page: &str) -> Vec<String> {
    let to = |rest: &str| rest.split('"').next().and_then(|to| to.split('#').next()).map(str::to_owned);
    page.split(" href=\"").skip(1).filter_map(to).filter(|to| to.starts_with('/')).collect()
}

fn is_of(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (path.split('?').next().unwrap_or_default().split('/'), pattern.split('/'));
    let same = |(one, like): (&str, &str)| one == like || like.starts_with('{');
    path.clone().count() == pattern.clone().count() && path.zip(pattern).all(same)
}

/// All that is reached by links from the first page; each answers.
async fn followed(browser: &mut Browser) -> BTreeSet<String> {
    let mut known = BTreeSet::from(["/".to_owned()]);
    let mut next = vec![("/".to_owned(), "/".to_owned())];
    while let Some((path, from)) = next.pop() {
        let reply = browser.get(&path).await;
        assert_eq!(reply.status, 200, "{path}, linked from {from}: {}", text(&reply));
        for to in links(&text(&reply)) {
            if known.insert(to.clone()) {
                next.push((to, path.clone()));
            }
        }
        assert!(known.len() < 1_000, "{known:?}");
    }
    known
}

/// Each page is found by following links from the first one, but those that only a form or an address in the hand leads to.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_reached_from_home_and_no_link_leads_nowhere() {
    let mut stage = Stage::new().await;
    stage.report().await;
    stage.scene.ada.post("/v1/device-codes", &json!({"name": "barn"})).await.is(200);
    let ordered = stage.scene.order("snapshot", json!({})).await.is(202);
    let ordered = crate::scene::id(&ordered);
    crate::scene::play(&stage.scene.ada, &ordered, &mut [&mut stage.scene.attic]).await;
    let known = followed(&mut stage.ada).await;
    assert!(known.contains(&stage.app(&format!("/operations/{ordered}"))), "what ended is found: {known:?}");
    let not_linked = [
        // Before the login, and what is no page.
        "/setup",
        "/login",
        "/login/second",
        "/accept",
        "/live",
        "/catalog/{name}/icon",
        // What answers a form, where that asks once more.
        "/settings/people/{id}/role",
        // Of what this account does not have: scenes in a browser go there.
        "/devices/{id}/update",
        "/settings/people/{id}/second-off",
        "/settings/channels/{id}/remove",
        "/installs/{id}",
        "/apps/{id}/actions/{name}",
        "/apps/{id}/rollback",
        "/apps/{id}/fork",
    ];
    let missing: Vec<&str> = orchestrator_hive::pages()
        .into_iter()
        .filter(|(method, pattern)| *method == "GET" && !known.iter().any(|path| is_of(path, pattern)))
        .map(|(_, pattern)| pattern)
        .filter(|pattern| !not_linked.contains(pattern))
        .collect();
    assert_eq!(missing, [""; 0]);
    // Whoever may look alone is led nowhere where that is refused.
    followed(&mut stage.vera).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_refuses_who_may_not_see_it() {
    let mut stage = Stage::new().await;
    let operation =
        stage.scene.ada.get("/v1/operations").await["items"][0]["id"].as_str().expect("has an id").to_owned();
    let app = stage.scene.app.clone();
    let filled = |path: &str, app: &str, operation: &str| {
        path.replace("/catalog/{name}", "/catalog/site")
            .replace("/operations/{id}", &format!("/operations/{operation}"))
            .replace("/installs/{id}", &format!("/installs/{operation}"))
            .replace("{id}", app)
            .replace("{name}", "nothing")
    };
    for (method, pattern) in paths() {
        let path = filled(pattern, &app, &operation);
        // Nobody is led to the login, and back.
        let mut nobody = Browser::new(&stage.scene.world);
        let reply =
            if method == "GET" { nobody.get(&path).await } else { nobody.send(&path, &[], &[]).await };
        assert_eq!(reply.status, 303, "{method} {path}");
        assert!(location(&reply).starts_with("/login"), "{method} {path}: {}", location(&reply));
        // Who looks sees, and may not do.
        let reply = if method == "GET" {
            stage.vera.get(&path).await
        } else {
            // With the token of a page that she may see: what refuses her is her role.
            stage.vera.fill("/me", &path, &[]).await
        };
        let may = is_for_viewers(method, pattern);
        if !may {
            assert_eq!(reply.status, 403, "{method} {path}: {}", text(&reply));
        } else if !pattern.starts_with("/installs") && !pattern.ends_with("icon") {
            assert_eq!(reply.status, 200, "{method} {path}: {}", text(&reply));
            assert!(
                !text(&reply).contains("method=\"post\" action=\"/apps")
                    && !text(&reply).contains("method=\"post\" action=\"/catalog"),
                "{path}"
            );
        }
        // Another account's ids are nobody's.
        if pattern.contains("{id}") {
            let never = filled(pattern, &uuid(), &uuid());
            let with = |path: &str| format!("{path}?to=x");
            let (one, other) = if method == "GET" {
                (stage.eve.get(&with(&path)).await, stage.eve.get(&with(&never)).await)
            } else {
                let fields = [("name", "x"), ("to", "x"), ("revision", "2"), ("data", "keep")];
                (stage.eve.fill("/", &path, &fields).await, stage.eve.fill("/", &never, &fields).await)
            };
            assert_eq!((one.status, other.status), (404, 404), "{method} {path}: {}", text(&one));
        }
        // A form does nothing without its token, or with another one.
        if method == "POST" {
            for fields in [&[][..], &[("csrf", "00000000000000000000000000000000")]] {
                let reply = stage.ada.send(&path, fields, &[]).await;
                assert_eq!(reply.status, 403, "{path}");
                has(&text(&reply), &["not of a page that you have open here"]);
            }
        }
    }
    assert_eq!(stage.scene.shown().await["wanted"], "running", "nothing of it happened");
    stage.scene.world.end().await;
}

/// What a device does that is told to author: it posts a package, and says that it did.
async fn authors(machine: &mut Machine, owner: &Owner) -> Value {
    let command = machine.expect("author").await;
    let (app, name) = (machine.made(&command), command["name"].as_str().expect("has a name"));
    let more = json!({"devices": "delegated", "author": machine.uuid(), "domain": command["domain"]});
    let package = owner.package_with(&app, name, 1, &more);
    let body = serde_json::to_vec(&package).expect("is JSON");
    machine.ask("POST", "/v1/packages", &body).await.is(201);
    machine.answer(&command, "done", None, json!({"revision": 1})).await.is(204);
    command
}

/// Does what it is told until it was told to start something.
async fn starts(machine: &mut Machine) {
    let mut all = Vec::new();
    for _ in 0..60 {
        let done = machine.obey().await;
        all.extend(done.clone());
        if done.iter().any(|verb| verb == "start") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    panic!("nothing is started: {all:?}");
}

fn option<'c>(command: &'c Value, name: &str) -> Option<&'c str> {
    let all = command["options"].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name)?["value"].as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_app_of_the_catalog_is_shown_and_installed() {
    let mut stage = Stage::new().await;
    let store =
        stage.scene.ada.get("/v1/stores").await["items"][0]["id"].as_str().expect("has an id").to_owned();
    let catalog = shown(&stage.ada.get("/catalog").await);
    has(&catalog, &["6 apps", "/catalog/ledger", "/catalog/mosaic", "Notes, kept by PostgreSQL"]);
    let found = shown(&stage.ada.get("/catalog?q=STATIC+site").await);
    assert!(found.contains("/catalog/site") && !found.contains("/catalog/redis"), "{found}");
    // Each word, in any order.
    let found = shown(&stage.ada.get("/catalog?q=postgresql++Notes").await);
    assert!(found.contains("/catalog/postgres") && !found.contains("/catalog/site"), "{found}");
    has(&shown(&stage.ada.get("/catalog?q=%3Cb%3E").await), &["Nothing fits", "&#60;b&#62;"]);

    // Each option is a field of its kind; what the app asks beyond the rules is told, with the way that there is.
    has(
        &shown(&stage.ada.get("/catalog/ledger").await),
        &["type=\"number\"", "name=\"option.EVERY_MS\" value=\"100\"", "Milliseconds between records"],
    );
    has(
        &shown(&stage.ada.get("/catalog/postgres").await),
        &["type=\"password\"", "Left empty, 24 random letters"],
    );
    let mosaic = shown(&stage.ada.get("/catalog/mosaic").await);
    has(&mosaic, &["Not from this page", "cap_add: NET_ADMIN", "comb app add ./mosaic"]);
    assert!(!mosaic.contains("action=\"/catalog/mosaic\""));
    assert_eq!(stage.ada.get("/catalog/none").await.status, 404);
    assert_eq!(stage.ada.get("/catalog/site/icon").await.status, 404);

    // Where no device can take it, it is said what is missing at the one that is nearest to it.
    for machine in [&mut stage.scene.attic, &mut stage.scene.cellar] {
        machine.docker = "stopped";
        machine.report().await.is(200);
    }
    let refused = shown(&stage.ada.get("/catalog/ledger").await);
    has(&refused, &["No device can take it now. Nearest to it is", "but Docker does not answer there."]);
    for machine in [&mut stage.scene.attic, &mut stage.scene.cellar] {
        machine.docker = "ok";
        machine.report().await.is(200);
    }

    // What is wrong is said at its field, and what was filled in stays; a password does not.
    let bad = [("name", "led ger"), ("option.EVERY_MS", "100"), ("store", &store)];
    let reply = stage.ada.fill("/catalog/ledger", "/catalog/ledger", &bad).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["value=\"led ger\"", "id=\"name-error\""]);
    let bad = [("name", "ledger"), ("option.EVERY_MS", "often"), ("store", &store)];
    let reply = stage.ada.fill("/catalog/ledger", "/catalog/ledger", &bad).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["id=\"option.EVERY_MS-error\">Must be a whole number", "value=\"often\""]);
    let bad =
        [("name", "pg"), ("option.DB_PASSWORD", "two\nlines"), ("store", &store), ("domain", "Not A Domain")];
    let reply = stage.ada.fill("/catalog/postgres", "/catalog/postgres", &bad).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["id=\"domain-error\""]);
    assert!(!text(&reply).contains("two\nlines"));
    let bad = [("name", "ledger"), ("option.EVERY_MS", "5"), ("store", "none")];
    assert_eq!(stage.ada.fill("/catalog/ledger", "/catalog/ledger", &bad).await.status, 400);
    stage.report().await;
    let taken = [("name", "photos"), ("option.EVERY_MS", "5"), ("store", &store)];
    assert_eq!(stage.ada.fill("/catalog/ledger", "/catalog/ledger", &taken).await.status, 409);

    // The others are sealed by a device, and made of that.
    for name in ["ledger", "postgres", "redis", "site", "plain"] {
        let device = stage.scene.cellar.uuid();
        stage.report().await;
        let good = [
            ("name", name),
            ("option.EVERY_MS", "250"),
            ("option.DB_PASSWORD", ""),
            ("store", &store),
            ("device", &device),
            ("policy", "manual"),
        ];
        let path = format!("/catalog/{name}");
        let reply = stage.ada.fill(&path, &path, &good).await;
        assert_eq!(reply.status, 303, "{name}: {}", text(&reply));
        let install = location(&reply).to_owned();
        let page = shown(&stage.ada.get(&install).await);
        has(
            &page,
            &[
                "under way",
                "Installing <bdi class=\"name\">",
                "Read, check and seal it on cellar",
                "Cancel it",
            ],
        );
        let command = authors(&mut stage.scene.cellar, &stage.scene.owner).await;
        assert_eq!(command["name"], name);
        let paths: Vec<&str> = command["files"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["path"].as_str())
            .collect();
        assert!(paths.contains(&command["compose"].as_str().expect("a path")), "{paths:?}");
        match name {
            "ledger" => assert_eq!(option(&command, "EVERY_MS"), Some("250")),
            "postgres" => assert_eq!(option(&command, "DB_PASSWORD"), None, "it is made by the device"),
            "site" => assert!(paths.contains(&"public/index.html"), "{paths:?}"),
            "plain" => assert!(paths.contains(&"cache.env"), "{paths:?}"),
            _ => {}
        }
        // A name in the net is made where nobody gave one.
        assert!(command["domain"].as_str().is_some_and(|domain| domain.ends_with(".home.arpa")), "{command}");
        let reply = stage.ada.get(&install).await;
        assert_eq!(reply.status, 303, "{}", text(&reply));
        let app = stage.scene.cellar.made(&command);
        assert!(location(&reply).starts_with(&format!("/apps/{app}")), "{}", location(&reply));
        starts(&mut stage.scene.cellar).await;
        let operation = location(&reply).to_owned();
        has(&stage.ended(&operation).await, &["done"]);
        let page = shown(&stage.ada.get(&format!("/apps/{app}")).await);
        has(&page, &[&format!("<bdi class=\"name\">{name}</bdi>"), ">well<", "safe as of"]);
        let events = stage.scene.ada.get(&format!("/v1/events?app={app}")).await.to_string();
        assert!(events.contains("app_added"), "{events}");
    }

    // Where two devices take apps, one of them may take over: that can be chosen. What a device may ask in a row comes back
    // with time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage.report().await;
    let auto = "name=\"policy\" value=\"auto\"";
    let of_auto = |page: &str| {
        let (_, field) = page.split_once(auto).expect("is offered");
        field.split_once("</label>").expect("it ends").0.to_owned()
    };
    let field = of_auto(&shown(&stage.ada.get("/catalog/ledger").await));
    assert!(!field.contains("disabled") && field.contains("a device that stands by takes over"), "{field}");
    let device = stage.scene.cellar.uuid();
    let good = [
        ("name", "both"),
        ("option.EVERY_MS", "250"),
        ("store", &store),
        ("device", &device),
        ("policy", "auto"),
    ];
    let reply = stage.ada.fill("/catalog/ledger", "/catalog/ledger", &good).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let install = location(&reply).to_owned();
    let command = authors(&mut stage.scene.cellar, &stage.scene.owner).await;
    let app = stage.scene.cellar.made(&command);
    assert_eq!(stage.ada.get(&install).await.status, 303, "there is an app");
    assert_eq!(stage.scene.ada.get(&format!("/v1/apps/{app}")).await["policy"], "auto");
    starts(&mut stage.scene.cellar).await;
    // Where one takes them, nobody could.
    stage.scene.attic.accepts_authoring = false;
    stage.scene.attic.hello().await.is(200);
    stage.report().await;
    let field = of_auto(&shown(&stage.ada.get("/catalog/ledger").await));
    assert!(field.contains("disabled") && !field.contains("checked"), "{field}");
    has(&field, &["It needs a second device that takes apps from the hive"]);

    stage.report().await;
    // A device that refuses says why, in words, with the place.
    let device = stage.scene.cellar.uuid();
    let good = [("name", "again"), ("option.EVERY_MS", "250"), ("store", &store), ("device", &device)];
    let reply = stage.ada.fill("/catalog/ledger", "/catalog/ledger", &good).await;
    let install = location(&reply).to_owned();
    let command = stage.scene.cellar.expect("author").await;
    stage.scene.cellar.answer(&command, "failed", Some("policy_refused"), json!({})).await.is(204);
    has(
        &stage.ended(&install).await,
        &["it did not work", "asks for more than the rules allow", "Back to the catalog"],
    );
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_without_a_catalog_and_an_account_without_devices_say_what_to_do() {
    let world = World::new().await;
    world.set_up().await;
    let mut ada = Browser::log_in(&world, "ada", "a long password").await;
    has(&shown(&ada.get("/catalog").await), &["This hive has no catalog", "comb hive run --catalog DIR"]);
    assert_eq!(ada.get("/catalog/site").await.status, 404);
    let mut stage = Stage::with(PathBuf::from("/nonexistent/catalog"), None).await;
    has(&shown(&stage.ada.get("/catalog").await), &["folder cannot be read"]);
    let mut empty = Browser::new(&stage.scene.world);
    std::mem::swap(&mut empty, &mut stage.eve);
    has(&shown(&empty.get("/catalog").await), &["folder cannot be read"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_ordered_about_by_its_page() {
    let mut stage = Stage::new().await;
    let page = shown(&stage.ada.get(&stage.app("")).await);
    has(
        &page,
        &[
            "photos",
            "well",
            "attic",
            "safe as of",
            "512 B</b> still on its way",
            "Restart",
            "Move…",
            "Remove…",
        ],
    );
    // Parts that nothing is known of yet are there, since a live page puts in only what it has: and a span without
    // figures has a way to the others.
    assert!(!page.contains("Saved from a lost device"));
    has(
        &page,
        &[
            "id=\"kept\" data-live=\"app device event\" hidden",
            "id=\"actions\" data-live=\"app device operation\" hidden",
        ],
    );
    has(&page, &["<span id=\"open\" data-live=", "Where it runs"]);
    let month = shown(&stage.ada.get(&stage.app("?span=month")).await);
    has(&month, &["span=hour#graphs", "aria-current=\"true\">Month", "Figures appear some minutes after"]);
    // What it takes is drawn once it was told.
    let services = json!([{"name": "web", "state": "running", "health": "healthy", "restarts": 0, "cpu_percent": 7, "memory_bytes": 5u64 << 20}]);
    stage.scene.attic.apps[0]["services"] = services;
    stage.scene.attic.report().await.is(200);
    has(&shown(&stage.ada.get(&stage.app("")).await), &["7 %", "5 MiB"]);
    let page = shown(&stage.vera.get(&stage.app("")).await);
    assert!(!page.contains("Move…") && !page.contains(">Restart<"), "{page}");

    // Restart, snapshot: a command, its progress, its end.
    stage.report().await;
    let path = stage.orders("", "/restart", &[]).await;
    has(&shown(&stage.ada.get(&path).await), &["Restarting", "under way"]);
    has(&shown(&stage.ada.get(&stage.app("")).await), &["Follow it", "It waits for attic."]);
    let page = shown(&stage.ada.get(&stage.app("/move")).await);
    has(&page, &["Something else is being done with it", "Restarting", "It waits for attic.", &path]);
    assert!(page.contains("<title>Move photos · Comb</title>"), "{page}");
    // What ends while the page is open is put in: the note, and the button that it disabled.
    let now = page.split("<div id=\"now\"").nth(1).expect("is live").split('>').next().expect("it ends");
    assert!(now.contains("data-live=\"app device operation\"") && !now.contains("hidden"), "{now}");
    has(&page, &["<span id=\"go\" data-live=\"app device operation\"", "disabled>Move it</button></span>"]);
    has(&shown(&stage.ada.get(&path).await), &["<title>Restarting, photos · Comb</title>"]);
    let reply = stage.ada.fill(&stage.app("/settings"), &stage.app("/stop"), &[]).await;
    assert_eq!(reply.status, 409);
    has(&text(&reply), &["Something else is being done with this app"]);
    assert_eq!(from(&reply), Some(stage.app("")));
    let command = stage.scene.attic.expect("restart").await;
    stage.scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    has(&stage.ended(&path).await, &["Restarting", "done", "To the app"]);
    let reply = stage.ada.fill(&path, &format!("{path}/cancel"), &[]).await;
    assert_eq!((reply.status, from(&reply).as_deref()), (409, Some(path.as_str())), "{}", text(&reply));
    stage.report().await;
    let path = stage.orders("", "/snapshot", &[]).await;
    let command = stage.scene.attic.expect("snapshot").await;
    let moment = json!({"tag": "comb-0011223344556677", "time": "2026-11-22T08:00:00.000Z", "reason": "asked", "volumes": []});
    stage.scene.attic.answer(&command, "done", None, json!({"moment": moment})).await.is(204);
    has(&stage.ended(&path).await, &["The moment is kept", "comb-0011223344556677"]);

    // Settings: only what differs is asked for; what is wrong stands at its field.
    let settings = shown(&stage.ada.get(&stage.app("/settings")).await);
    has(
        &settings,
        &["You decide", "moves by itself after 45 s", "cellar", "comb app update photos DIR", "value=\"15\""],
    );
    let reply = stage
        .ada
        .fill(
            &stage.app("/settings"),
            &stage.app("/settings"),
            &[("policy", "manual"), ("seal_every_s", "2")],
        )
        .await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["id=\"seal_every_s-error\"", "value=\"2\""]);
    stage.report().await;
    let cellar = stage.scene.cellar.uuid();
    let fields = [("policy", "manual"), ("seal_every_s", "30"), ("standby", cellar.as_str())];
    let reply = stage.ada.fill(&stage.app("/settings"), &stage.app("/settings"), &fields).await;
    assert_eq!((reply.status, location(&reply).ends_with("?done=saved")), (303, true), "{}", text(&reply));
    let now = stage.scene.shown().await;
    assert_eq!((now["seal_every_s"].clone(), now["standby"].clone()), (json!(30), json!([cellar])));
    stage.report().await;
    let path = stage
        .orders("/settings", "/settings", &[("policy", "auto"), ("seal_every_s", "30"), ("standby", &cellar)])
        .await;
    has(&shown(&stage.ada.get(&path).await), &["Changing settings"]);
    let command = stage.scene.attic.expect("settings").await;
    stage.scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    stage.ended(&path).await;
    assert_eq!(stage.scene.shown().await["policy"], "auto");

    // An update to a revision that was signed meanwhile.
    stage.scene.ada.package(&stage.scene.owner, &stage.scene.app, "photos", 2).await.is(201);
    has(&shown(&stage.ada.get(&stage.app("/settings")).await), &["Revision 2", "Update to it"]);
    stage.report().await;
    let path = stage.orders("/settings", "/update", &[("revision", "2")]).await;
    let command = stage.scene.attic.expect("update").await;
    stage.scene.attic.answer(&command, "done", None, json!({"rolled_back": true})).await.is(204);
    has(&stage.ended(&path).await, &["it did not work", "the old one runs again"]);

    // What happened, by whom.
    let history = shown(&stage.vera.get(&stage.app("/history")).await);
    has(
        &history,
        &[
            "Ordered: restart",
            "Done: a snapshot",
            "ada",
            "An update was not well, and was taken back",
            "Added",
        ],
    );

    // Removing asks what becomes of the data.
    let reply = stage.ada.fill(&stage.app("/remove"), &stage.app("/remove"), &[("data", "")]).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["Remove photos?", "id=\"data-error\"", "is in its stores stays there"]);
    stage.report().await;
    let path = stage.orders("/remove", "/remove", &[("data", "delete")]).await;
    let stop = stage.scene.attic.expect("stop").await;
    let late = json!({"late": [{"volume": VOLUME, "name": "library", "bytes": 4096}]});
    stage.scene.attic.answer(&stop, "done", None, late).await.is(204);
    let told = stage.ended(&path).await;
    has(&told, &["library", "is not in the store that decides, 4 KiB", "Remove it all the same"]);
    assert_eq!(stage.ada.get(&stage.app("")).await.status, 200, "nothing is forgotten");
    stage.report().await;
    let path = stage.orders("/remove", "/remove", &[("data", "discard")]).await;
    for verb in ["stop", "forget"] {
        let command = stage.scene.attic.expect(verb).await;
        assert_eq!(command["discard"], if verb == "forget" { json!(true) } else { Value::Null });
        stage.scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    }
    has(&stage.ended(&path).await, &["Removing", "Home"]);
    assert_eq!(stage.ada.get(&stage.app("")).await.status, 404);
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_takes_its_inputs_and_tells_where_its_output_is_read() {
    let mut stage = Stage::new().await;
    let app = uuid();
    let actions = json!([{"name": "add_user", "service": "web", "input": [
        {"name": "who", "type": "name"}, {"name": "mail", "type": "email"}, {"name": "admin", "type": "flag"}, {"name": "note", "type": "text"}
    ]}]);
    let package = stage.scene.owner.package_with(&app, "wiki", 1, &json!({"actions": actions}));
    stage.scene.ada.post("/v1/packages", &package).await.is(201);
    let store = stage.scene.ada.get("/v1/stores").await["items"][0]["id"].clone();
    let add = json!({"app": app, "revision": 1, "device": stage.scene.cellar.uuid(), "policy": "manual", "stores": [store], "start": true});
    stage.scene.cellar.report().await.is(200);
    stage.scene.ada.post("/v1/apps", &add).await.is(202);
    starts(&mut stage.scene.cellar).await;
    let path = format!("/apps/{app}/actions/add_user");
    has(&shown(&stage.ada.get(&format!("/apps/{app}")).await), &[&path, "add user"]);
    has(
        &shown(&stage.ada.get(&path).await),
        &[
            "name=\"input.who\"",
            "type=\"email\"",
            "type=\"checkbox\"",
            "<textarea",
            "comb app exec-action wiki add_user",
        ],
    );
    let bad = [("input.who", "-x y"), ("input.mail", "nobody"), ("input.note", "fine")];
    let reply = stage.ada.fill(&path, &path, &bad).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["id=\"input.who-error\"", "id=\"input.mail-error\"", "value=\"-x y\""]);
    let good = [
        ("input.who", "bob"),
        ("input.mail", "bob@example.org"),
        ("input.note", "hello"),
        ("input.admin", "on"),
    ];
    let reply = stage.ada.fill(&path, &path, &good).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let command = stage.scene.cellar.expect("action").await;
    let input: Vec<&str> =
        command["input"].as_array().expect("a list").iter().filter_map(|one| one["value"].as_str()).collect();
    assert_eq!(input, ["bob", "bob@example.org", "true", "hello"]);
    stage.scene.cellar.answer(&command, "done", None, json!({"exit": 3})).await.is(204);
    has(&stage.ended(location(&reply)).await, &["The program ended with 3"]);
    assert_eq!(stage.ada.get(&format!("/apps/{app}/actions/none")).await.status, 404);
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_while_nobody_has_it_and_its_page_leads_to_what_it_made() {
    let mut stage = Stage::new().await;
    stage.report().await;
    let path = stage.orders("", "/fork", &[("to", "before-party"), ("name", "photos-2")]).await;
    // It has no steps, and nothing is counted: a bar without an end says that it goes on.
    let page = shown(&stage.ada.get(&path).await);
    has(&page, &["<progress max=\"100\" aria-label=\"attic has not taken it yet\">", "Cancel it"]);
    let command = stage.scene.attic.expect("fork").await;
    let page = shown(&stage.ada.get(&path).await);
    has(&page, &["<progress max=\"100\" aria-label=\"attic is at work on it\">"]);
    assert!(!page.contains("Cancel it"), "{page}");
    let reply = stage.ada.fill(&path, &format!("{path}/cancel"), &[]).await;
    assert_eq!(reply.status, 409, "{}", text(&reply));
    has(&text(&reply), &["Its device has this order already"]);
    let scene = &mut stage.scene;
    let new = scene.attic.made(&command);
    let package = serde_json::to_vec(&scene.owner.package(&new, "photos-2", 1)).expect("is JSON");
    scene.attic.ask("POST", "/v1/packages", &package).await.is(201);
    let other = "00000000000000000000000000000000000000000000000000000000000000cc";
    let writers = json!([{"volume": other, "writer": scene.attic.writer()}]);
    let data = json!({"volumes": [{"name": "data", "volume": other}], "revision": 1, "writers": writers});
    scene.attic.answer(&command, "done", None, data).await.is(204);
    let page = stage.ended(&path).await;
    let onward =
        format!("<a class=\"button\" href=\"/apps/{new}\">To <bdi class=\"name\">photos-2</bdi></a>");
    has(&page, &[&onward, "To the app"]);
    assert!(!page.contains("<progress"), "{page}");

    // What reports say of an app that is not well is trouble, too.
    let trouble = "A part of it ends again and again";
    assert!(!shown(&stage.ada.get("/activity?kind=trouble").await).contains(trouble));
    stage.scene.attic.apps[0]["problem"] = json!({"code": "exits", "service": "web"});
    stage.scene.attic.report().await.is(200);
    has(&shown(&stage.ada.get("/activity?kind=trouble").await), &[trouble]);
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_is_not_moved_and_a_device_tells_what_could_not_leave() {
    let mut stage = Stage::new().await;
    stage.report().await;
    let path = stage.orders("/settings", "/stop", &[]).await;
    assert_eq!(stage.scene.attic.obey().await, ["stop"]);
    stage.ended(&path).await;
    stage.report().await;
    has(
        &shown(&stage.ada.get(&stage.app("/move")).await),
        &["It does not run, so there is nothing to hand over", "Start it first", "disabled>Move it"],
    );

    let device = format!("/devices/{}", stage.scene.attic.uuid());
    let page = shown(&stage.ada.get(&device).await);
    assert!(page.contains("id=\"left\"") && !page.contains("Could not leave"), "{page}");
    let drain = format!("{device}/drain");
    assert_eq!(location(&stage.ada.fill(&drain, &drain, &[]).await), format!("{device}?done=ordered"));
    let mut page = String::new();
    for _ in 0..100 {
        stage.report().await;
        page = shown(&stage.ada.get(&device).await);
        if page.contains("1 app could not leave") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    has(
        &page,
        &[
            "1 app could not leave",
            "Could not leave",
            "<bdi class=\"name\">photos</bdi></a>",
            "nothing to hand over. Start it, and empty the device again; or remove it.",
            "Try again…",
        ],
    );
    assert!(!page.contains("being emptied"), "{page}");
    has(&shown(&stage.ada.get("/").await), &["1 app could not leave"]);
    has(&shown(&stage.ada.get("/activity").await), &["Done: emptying it; 1 app could not leave"]);

    // It takes apps again at once: that is told as what it is, and as done.
    let undrain = format!("{device}/undrain");
    let reply = stage.ada.fill(&format!("{drain}?on=no"), &undrain, &[]).await;
    assert_eq!(location(&reply), format!("{device}?done=saved"), "{}", text(&reply));
    let page = shown(&stage.ada.get("/activity").await);
    has(&page, &["Ordered: taking apps again", "Done: taking apps again"]);
    assert_eq!(page.matches("Ordered: emptying it").count(), 1, "{page}");
    let page = shown(&stage.ada.get(&device).await);
    assert!(!page.contains("Could not leave"), "{page}");
    stage.scene.world.end().await;
}

fn moments() -> Value {
    let volumes =
        |seq: u64| json!([{"volume": VOLUME, "seq": seq, "uuid": null, "files": 12, "bytes": 5u64 << 20}]);
    json!({"moments": [
        {"tag": "before-party", "time": "2026-11-22T08:00:00.000Z", "reason": "asked", "volumes": volumes(9)},
        {"tag": null, "time": "2026-11-21T08:00:00.000Z", "reason": "regular", "volumes": volumes(4)},
        {"tag": "<img src=x onerror=alert(1)>", "time": "2026-11-20T08:00:00.000Z", "reason": "move-failed", "volumes": volumes(2)},
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_goes_back_to_a_moment_and_a_second_one_is_made_of_it() {
    let mut stage = Stage::new().await;
    let path = stage.app("/moments");
    let (page, ()) = tokio::join!(stage.ada.get(&path), async {
        let command = stage.scene.attic.expect("moments").await;
        stage.scene.attic.answer(&command, "done", None, moments()).await.is(204);
    });
    let page = shown(&page);
    has(
        &page,
        &[
            "before-party",
            "08:00:00 UTC",
            "by itself",
            "5 MiB",
            "12 files",
            "2026-11-20",
            "what a failed move wrote",
            "comb device page",
        ],
    );
    has(
        &page,
        &[
            "rollback?to=before-party",
            &format!("fork?to=seals%3A{VOLUME}%3D4"),
            "&lt;img src=x onerror=alert(1)&gt;",
        ],
    );
    assert!(!page.contains("<img src=x"), "{page}");

    let seals = format!("/rollback?to=seals%3A{VOLUME}%3D4");
    has(
        &shown(&stage.ada.get(&stage.app(&seals)).await),
        &["Go back with photos?", "2026-11-21 08:00:00 UTC", "kept as a moment"],
    );
    stage.report().await;
    let path = stage.orders(&seals, &seals, &[]).await;
    let command = stage.scene.attic.expect("rollback").await;
    assert_eq!(command["to"], json!({VOLUME: 4}));
    stage.scene.attic.answer(&command, "done", None, json!({})).await.is(204);
    has(&stage.ended(&path).await, &["Going back to a moment", "done"]);
    assert_eq!(stage.ada.get(&stage.app("/rollback?to=")).await.status, 404);

    let fork = "/fork?to=before-party";
    has(
        &shown(&stage.ada.get(&stage.app(fork)).await),
        &["Make a second app", "value=\"photos-2\"", "name=\"to\" value=\"before-party\""],
    );
    let reply = stage
        .ada
        .fill(&stage.app(fork), &stage.app("/fork"), &[("to", "before-party"), ("name", "Photos 2")])
        .await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["id=\"name-error\"", "name=\"to\" value=\"before-party\""]);
    assert_eq!(from(&reply), Some(stage.app(fork)));
    let reply = stage
        .ada
        .fill(&stage.app(fork), &stage.app("/fork"), &[("to", "before-party"), ("name", "photos")])
        .await;
    assert_eq!(reply.status, 409);
    stage.report().await;
    let path = stage.orders(fork, "/fork", &[("to", "before-party"), ("name", "photos-2")]).await;
    let command = stage.scene.attic.expect("fork").await;
    assert_eq!(
        (command["to"].clone(), command["new_name"].clone()),
        (json!("before-party"), json!("photos-2"))
    );
    stage.scene.attic.answer(&command, "failed", Some("key_missing"), json!({})).await.is(204);
    has(&stage.ended(&path).await, &["it did not work", "s key"]);

    // A device that is silent tells nothing; what it told last stands there.
    tokio::time::sleep(Duration::from_secs(16)).await;
    has(
        &shown(&stage.ada.get(&stage.app("/moments")).await),
        &["Its device does not answer now", "before-party"],
    );
    let page = shown(&stage.ada.get(&stage.app("/moments")).await);
    assert!(
        !page.contains("Go back to it…") && !page.contains("Take a snapshot"),
        "nobody could do it: {page}"
    );
    // Who looked at moments changed nothing.
    for path in [stage.app(""), stage.app("/history"), "/activity".to_owned()] {
        let page = shown(&stage.ada.get(&path).await);
        assert!(!page.contains(": moments") && page.contains("a second app"), "{path}: {page}");
    }

    // What it told of containers and data is of then, and nothing can be ordered of it.
    tokio::time::sleep(Duration::from_secs(16)).await;
    let page = shown(&stage.ada.get(&stage.app("")).await);
    has(
        &page,
        &[
            "does not report",
            "when their device was last heard",
            "disabled aria-describedby=\"no-orders\">Restart",
            "disabled aria-describedby=\"no-orders\">Stop",
            "disabled aria-describedby=\"no-orders\">Take a snapshot",
            "id=\"no-orders\"",
            "Move…",
        ],
    );
    let (_, told) = page.split_once("id=\"containers\"").expect("is there");
    let (told, _) = told.split_once("id=\"happened\"").expect("is there");
    assert!(!told.contains("class=\"health well\""), "nothing vouches for what was: {told}");
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_moved_as_planned_by_its_pages_and_the_proof_is_shown() {
    let mut stage = Stage::new().await;
    let (attic, cellar) = (stage.scene.attic.uuid(), stage.scene.cellar.uuid());
    stage.scene.cellar.report().await.is(200);
    let page = shown(&stage.ada.get(&stage.app("/move")).await);
    has(
        &page,
        &[
            "Move it, and lose nothing",
            "It is on",
            "attic",
            "Its data is 4 KiB",
            &format!("value=\"{cellar}\" checked"),
            "Stop it, and bring the last change",
        ],
    );
    assert!(!page.contains(&format!("value=\"{attic}\"")), "it is there already");
    let reply = stage.ada.fill(&stage.app("/move"), &stage.app("/move"), &[]).await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["Choose a device"]);

    stage.report().await;
    let path = stage.orders("/move", "/move", &[("to", &cellar)]).await;
    let scene = &mut stage.scene;
    scene.attic.report().await.is(200);
    let prepare = scene.cellar.expect("prepare").await;
    has(
        &shown(&stage.ada.get(&path).await),
        &[
            "Moving to",
            "<li class=\"now\" aria-current=\"step\"><b data-said>Prepare cellar</b>",
            "Cancel it",
        ],
    );
    let scene = &mut stage.scene;
    let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
    scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    let hand_over = scene.attic.expect("hand_over").await;
    scene.attic.has(&scene.app, &scene.term, "stopping", Some("hand_over"), Some((1, 8)));
    scene.attic.report().await.is(200);
    has(
        &shown(&stage.ada.get(&path).await),
        &["<b data-said>Stop it, and bring the last change to the store</b>"],
    );
    let scene = &mut stage.scene;
    let head = json!({"volume": VOLUME, "epoch": 1, "seq": 9, "manifest": manifest(9)});
    let data = json!({"heads": [head], "started": true, "healthy": true});
    scene.attic.answer(&hand_over, "done", None, data).await.is(204);
    let start = scene.cellar.expect("start").await;
    let data = json!({"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": true});
    scene.cellar.answer(&start, "done", None, data).await.is(204);
    scene.cellar.has(&scene.app, &start["term"], "running", None, Some((2, 10)));
    scene.cellar.report().await.is(200);
    let page = stage.ended(&path).await;
    has(
        &page,
        &[
            "Nothing was lost",
            "left at seal 9 with 00000000…00000009, begun from 00000000…00000009. They are equal.",
            "The app was away for",
            "from the report that it stops",
        ],
    );
    assert!(!page.contains("Cancel it") && !page.contains("class=\"next\""), "{page}");
    has(&shown(&stage.ada.get(&stage.app("")).await), &["cellar"]);
    has(&shown(&stage.vera.get(&stage.app("/history")).await), &["Moved from", "attic", "cellar"]);
    stage.scene.world.end().await;
}

/// Where it found a head that nobody expected, an app may begin with force; a planned move leads to other devices only.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_met_an_unexpected_head_may_be_forced_on_its_own_device() {
    let mut stage = Stage::new().await;
    let scene = &mut stage.scene;
    scene.cellar.report().await.is(200);
    let cellar = scene.cellar.uuid();
    let force = json!({"to": cellar, "forced": true, "accept_loss": true, "even_if_online": true});
    let begun = scene.order("move", force).await.is(202);
    let prepare = scene.cellar.expect("prepare").await;
    let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
    scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    let start = scene.cellar.expect("start").await;
    let option = format!("value=\"{cellar}\"");
    assert!(!text(&stage.ada.get(&stage.app("/force")).await).contains(&option), "it is being started there");
    let seen =
        json!([{"volume": VOLUME, "epoch": 7, "seq": 40, "writer": "0badc0de0badc0de0badc0de0badc0de"}]);
    let scene = &mut stage.scene;
    scene.cellar.answer(&start, "failed", Some("head_unexpected"), json!({"seen": seen})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&begun), 20).await["code"], "head_unexpected");
    has(&text(&stage.ada.get(&stage.app("/force")).await), &[&option, "accept_seen"]);
    assert!(!text(&stage.ada.get(&stage.app("/move")).await).contains(&option));
    stage.scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_taken_from_a_lost_device_by_force_and_what_was_lost_is_told() {
    let mut stage = Stage::new().await;
    let cellar = stage.scene.cellar.uuid();
    stage.scene.cellar.report().await.is(200);
    stage.scene.attic.report().await.is(200);
    // Its device reports: nothing has to be lost.
    has(
        &shown(&stage.ada.get(&stage.app("/force")).await),
        &["you need not lose anything", "512 B waited to be replicated", "Type “photos” to confirm"],
    );
    // Up to when all of it is safe, with the exact time.
    let page = shown(&stage.ada.get(&stage.app("/force")).await);
    let (_, safe) = page.split_once("All up to <time datetime=\"20").expect("is told");
    let (time, behind) = safe.split_once("</time>").expect("it ends");
    assert!(behind.starts_with(" is safe in the store. What was written since may be lost."), "{behind}");
    let (_, words) = time.split_once('>').expect("has words");
    let seconds: u64 =
        words.strip_suffix(" s ago").and_then(|number| number.parse().ok()).expect("has a number");
    assert!((4..20).contains(&seconds), "{words}");
    let reply = stage
        .ada
        .fill(&stage.app("/force"), &stage.app("/force"), &[("to", &cellar), ("name", "photos")])
        .await;
    assert_eq!(reply.status, 422);
    has(&text(&reply), &["a planned move loses nothing", "tick below"]);
    // What was ticked stays so, when something else is wrong.
    let ticked = [("to", cellar.as_str()), ("name", "photo"), ("even_if_online", "on")];
    let reply = stage.ada.fill(&stage.app("/force"), &stage.app("/force"), &ticked).await;
    has(&text(&reply), &["This is not its name", "name=\"even_if_online\" value=\"on\" checked>"]);
    // It is silent: a planned move cannot be had.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        stage.scene.cellar.report().await.is(200);
    }
    has(&shown(&stage.ada.get(&stage.app("/move")).await), &["Its device is silent", "disabled>Move it"]);
    let reply = stage.ada.fill(&stage.app("/move"), &stage.app("/move"), &[("to", &cellar)]).await;
    assert_eq!(reply.status, 422);
    let page = shown(&stage.ada.get(&stage.app("/force")).await);
    assert!(!page.contains("you need not lose anything"), "{page}");
    let reply = stage
        .ada
        .fill(&stage.app("/force"), &stage.app("/force"), &[("to", &cellar), ("name", "photo")])
        .await;
    assert_eq!(reply.status, 400);
    has(&text(&reply), &["This is not its name"]);
    let path = stage.orders("/force", "/force", &[("to", &cellar), ("name", "photos")]).await;
    // Nothing waits for the device that is lost.
    let page = shown(&stage.ada.get(&path).await);
    assert!(page.contains("under way") && !page.contains("does not report"), "{page}");
    let scene = &mut stage.scene;
    let prepare = scene.cellar.expect("prepare").await;
    let writers = json!([{"volume": VOLUME, "writer": scene.cellar.writer()}]);
    scene.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
    let start = scene.cellar.expect("start").await;
    let data = json!({"cuts": [cut(2, 6, Some(5))], "writers": writers, "started": true, "healthy": true});
    scene.cellar.answer(&start, "done", None, data).await.is(204);
    has(
        &stage.ended(&path).await,
        &["Moving by force to", "Nobody knows yet for how long", "512 B waited to be replicated"],
    );
    // It returns with a branch: what was lost is exact now, and can be looked at.
    let scene = &mut stage.scene;
    scene.attic.has(&scene.app, &start["term"], "standing_by", None, None);
    scene.attic.apps[0]["branches"] =
        json!([{"volume": VOLUME, "name": "cut-6-e1", "seals": 2, "bytes": 700, "span_ms": 2500}]);
    scene.attic.report().await.is(200);
    has(
        &shown(&stage.ada.get(&path).await),
        &["Lost to the app: 3 s of changes, 700 B", "kept them as a branch"],
    );
    let page = shown(&stage.ada.get(&stage.app("")).await);
    has(
        &page,
        &[
            "Saved from a lost device",
            "cut-6-e1",
            "700 B over 2 s",
            "-data/cut-6-e1",
            "Make a second app of it",
        ],
    );
    let attic = stage.scene.attic.uuid();
    let branch = format!("{attic}:{VOLUME}:cut-6-e1");
    let link = format!("/fork?branch={}", branch.replace(':', "%3A"));
    assert!(page.contains(&link), "{page}");
    stage.report().await;
    let path = stage.orders(&link, "/fork", &[("branch", &branch), ("name", "photos-lost")]).await;
    let command = stage.scene.attic.expect("fork").await;
    assert_eq!(command["branches"], json!({VOLUME: "cut-6-e1"}));
    stage.scene.attic.answer(&command, "failed", Some("no_space"), json!({})).await.is(204);
    has(&stage.ended(&path).await, &["too little room"]);
    let other = format!("{attic}:{VOLUME}:cut-7-e1").replace(':', "%3A");
    assert_eq!(stage.ada.get(&stage.app(&format!("/fork?branch={other}"))).await.status, 404);
    stage.scene.world.end().await;
}

/// What devices, packages and the catalog's folder say is shown, and does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_are_shown_and_do_nothing() {
    let folder = tempfile::tempdir().expect("there is a disk");
    let write = |path: &str, bytes: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("has a folder")).expect("is made");
        std::fs::write(path, bytes).expect("is written");
    };
    let compose = b"x-comb:\n  version: '<b>9</b>'\n  options:\n    - {name: A, type: enum, values: ['<i>', two], hint: '\"><script>alert(1)</script>'}\n    \
        - {name: B, default: \"'><script>alert(2)</script>\"}\nservices:\n  web: {image: 'nginx:<script>', platform: '<u>'}\n";
    write("bad/compose.yaml", compose);
    write("bad/README.md", b"# <script>alert(3)</script>\n<script>alert(4)</script>\n\nReal <script>alert(5)</script> words.\n\n- <img src=x onerror=y>\n```\n</pre><script>\n```\n");
    write("bad/icon.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(6)</script></svg>");
    write("<script>alert(7)<", b"");
    std::fs::create_dir(folder.path().join("\u{202e}<script>evil")).expect("is made");
    let mut stage = Stage::with(folder.path().to_path_buf(), Some(folder)).await;
    let no_script = |page: &str| {
        let mut rest = page;
        while let Some((_, behind)) = rest.split_once("<script") {
            assert!(behind.starts_with(" src=\"/assets/"), "{page}");
            rest = behind;
        }
        assert!(!page.contains("<img src=x") && !page.contains("<i>") && !page.contains("<u>"), "{page}");
    };
    let page = shown(&stage.ada.get("/catalog").await);
    no_script(&page);
    has(&page, &["⟨U+202E⟩", "no name of an app", "&lt;b&gt;9&lt;/b&gt;", "Real &lt;script&gt;"]);
    let page = shown(&stage.ada.get("/catalog/bad").await);
    no_script(&page);
    let store =
        stage.scene.ada.get("/v1/stores").await["items"][0]["id"].as_str().expect("has an id").to_owned();
    let fields = [
        ("name", "\"><script>"),
        ("domain", "'><script>"),
        ("option.A", "<script>"),
        ("option.B", "</textarea><script>"),
        ("store", store.as_str()),
        ("device", "<script>"),
    ];
    let reply = stage.ada.fill("/catalog/bad", "/catalog/bad", &fields).await;
    assert_eq!(reply.status, 400);
    no_script(&text(&reply));
    let icon = stage.ada.get("/catalog/bad/icon").await;
    assert_eq!((icon.status, icon.headers["content-type"].to_str().ok()), (200, Some("image/svg+xml")));
    assert!(
        icon.headers["content-security-policy"]
            .to_str()
            .is_ok_and(|policy| policy.starts_with("sandbox; default-src 'none'"))
    );
    assert_eq!(icon.headers["x-content-type-options"], "nosniff");

    // What a device reports.
    let scene = &mut stage.scene;
    let app = &mut scene.attic.apps[0];
    app["address"] = json!("javascript:alert(1)");
    app["branches"] = json!([{"volume": VOLUME, "name": "<script>alert(8)</script>", "seals": 1, "bytes": 1, "span_ms": 1}]);
    app["problem"] =
        json!({"code": "policy_refused", "service": null, "file": "<script>alert(9)</script>", "line": 3});
    scene.attic.report().await.is(200);
    let page = shown(&stage.ada.get(&stage.app("")).await);
    no_script(&page);
    assert!(!page.contains("javascript:"), "{page}");
    has(
        &page,
        &["&lt;script&gt;alert(9)&lt;/script&gt;</bdi>, line 3", "&lt;script&gt;alert(8)&lt;/script&gt;"],
    );
    stage.scene.world.end().await;
}
