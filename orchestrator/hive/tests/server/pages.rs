//! The console over HTTP, as a browser sees it.

use std::collections::BTreeMap;

use crate::scene::Scene;
use crate::world::{Line, Reply, World, databases};
use orchestrator_hive::pages;
use serde_json::{Value, json};

/// A browser: it keeps cookies, and sends forms with what the page gave it.
pub struct Browser {
    line: Line,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(world: &World) -> Self {
        Self { line: world.line(), cookies: BTreeMap::new() }
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = vec![("accept", "text/html".to_owned())];
        if !cookies.is_empty() {
            headers.push(("cookie", cookies.join("; ")));
        }
        headers
    }

    fn keep(&mut self, reply: &Reply) {
        for value in reply.headers.get_all("set-cookie") {
            let text = value.to_str().expect("is text");
            let (pair, _) = text.split_once(';').expect("has attributes");
            let (name, value) = pair.split_once('=').expect("is a pair");
            if text.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        let headers = self.headers();
        let reply = self.line.send("GET", path, &headers, b"").await;
        self.keep(&reply);
        reply
    }

    /// Sends a form as it is.
    pub async fn send(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        more: &[(&'static str, String)],
    ) -> Reply {
        let body: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mut headers = self.headers();
        headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
        headers.extend_from_slice(more);
        let reply = self.line.send("POST", path, &headers, body.join("&").as_bytes()).await;
        self.keep(&reply);
        reply
    }

    /// Loads a page, and sends its form with the token that it gave.
    pub async fn fill(&mut self, page: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let csrf = csrf(&self.get(page).await);
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend_from_slice(fields);
        self.send(path, &all, &[]).await
    }

    pub async fn log_in(world: &World, name: &str, password: &str) -> Self {
        let mut browser = Self::new(world);
        let reply = browser.fill("/login", "/login", &[("name", name), ("password", password)]).await;
        assert_eq!(reply.status, 303, "{}", text(&reply));
        browser
    }
}

pub fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

pub fn location(reply: &Reply) -> &str {
    reply.headers.get("location").map_or("", |value| value.to_str().expect("is text"))
}

/// Where a page is asked for again that answers a form.
pub fn from(page: &Reply) -> Option<String> {
    let text = text(page);
    let html = text.split("<html ").nth(1).and_then(|rest| rest.split('>').next()).expect("is a page");
    html.split("data-from=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
}

fn csrf(page: &Reply) -> String {
    let text = text(page);
    let (_, rest) =
        text.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("the page has a form: {text}"));
    rest.split('"').next().expect("it ends").to_owned()
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_hive_is_set_up_in_a_browser() {
    let world = World::new().await;
    let mut browser = Browser::new(&world);
    assert_eq!(location(&browser.get("/").await), "/setup");
    assert_eq!(location(&browser.get("/login").await), "/setup");
    let code = world.setup_code.clone().expect("it is new");
    let with = |code: &str, password: &str| {
        [("setup_code", code), ("account", "Home & <garden>"), ("name", "ada"), ("password", password)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let wrong = with("AAAA", "a long password");
    let wrong: Vec<(&str, &str)> =
        wrong.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = browser.fill("/setup", "/setup", &wrong).await;
    assert_eq!(reply.status, 403);
    let page = text(&reply);
    assert!(
        page.contains("This is not the code") && page.contains("value=\"Home &#38; &#60;garden&#62;\""),
        "{page}"
    );
    assert!(!page.contains("a long password"));
    let right = with(&code, "a long password");
    let right: Vec<(&str, &str)> =
        right.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = browser.fill("/setup", "/setup", &right).await;
    assert_eq!((reply.status, location(&reply)), (303, "/devices/add"), "{}", text(&reply));
    let cookie =
        reply.headers.get("set-cookie").expect("a session begins").to_str().expect("is text").to_owned();
    assert!(cookie.starts_with("comb_session=comb_"), "{cookie}");
    assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict; Max-Age=") && !cookie.contains("Secure"));
    let home = browser.get("/").await;
    assert_eq!(home.status, 200);
    assert!(text(&home).contains("No devices yet"), "{}", text(&home));
    assert_eq!(location(&browser.get("/setup").await), "/login");
    let reply = browser.fill("/", "/logout", &[]).await;
    assert_eq!(location(&reply), "/login?done=out");
    assert!(!browser.cookies.contains_key("comb_session"));
    assert_eq!(location(&browser.get("/").await), "/login");
}

/// What the browser has is in no database; and what ended opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_as_a_hash_and_ends() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let secret = browser.cookies["comb_session"].clone();
    let file = world.options.database.strip_prefix("sqlite:").expect("is a file").to_owned();
    for name in [file.clone(), format!("{file}-wal")] {
        let bytes = std::fs::read(&name).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{name}");
    }
    // It is no token, and a token is no session.
    let reply = world.person(&secret).ask("GET", "/v1/me", &json!({}), &[]).await;
    assert_eq!(reply.status, 401);
    let mut thief = Browser::new(&world);
    thief.cookies.insert("comb_session".to_owned(), secret);
    assert_eq!(thief.get("/").await.status, 200);
    let reply = browser.fill("/", "/logout", &[]).await;
    assert_eq!(reply.status, 303);
    assert_eq!(location(&thief.get("/").await), "/login");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_its_token_does_nothing() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    for (method, path) in pages().into_iter().filter(|(method, _)| *method == "POST") {
        let path = path.replace("{id}", &crate::world::uuid());
        for fields in [&[][..], &[("csrf", "0123456789abcdef0123456789abcdef")]] {
            let reply = browser.send(&path, fields, &[]).await;
            assert_eq!(reply.status, 403, "{method} {path}");
            assert!(text(&reply).contains("This form is not of a page"), "{path}");
        }
        let csrf = csrf(&browser.get("/").await);
        let foreign = [("sec-fetch-site", "cross-site".to_owned())];
        let reply = browser.send(&path, &[("csrf", &csrf)], &foreign).await;
        assert_eq!(reply.status, 403, "{method} {path} from elsewhere");
    }
    assert_eq!(browser.get("/").await.status, 200, "nothing was done: the session is still there");
    let mut other = Browser::new(&world);
    let reply = other.send("/login", &[("name", "ada"), ("password", "a long password")], &[]).await;
    assert_eq!(reply.status, 403, "a login is a form, too");
    assert!(!other.cookies.contains_key("comb_session"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_small_and_loads_nothing_from_elsewhere() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let page = browser.get("/").await;
    let markup = text(&page);
    let mut bytes = page.body.len();
    let mut loaded = 0;
    for part in markup
        .split(['"'])
        .filter(|part| part.starts_with("/assets/"))
        .collect::<std::collections::BTreeSet<_>>()
    {
        let asset = browser.get(part).await;
        assert_eq!(asset.status, 200, "{part}");
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(asset.headers["x-content-type-options"], "nosniff");
        bytes += asset.body.len();
        loaded += 1;
    }
    assert_eq!(loaded, 3, "style sheet, script, logo");
    assert!(bytes < 100 << 10, "{bytes}");
    println!("the first page: {bytes} bytes");
    assert!(
        !markup.contains("http://")
            && !markup.contains("https://")
            && !markup.contains(" style=")
            && !markup.contains("<style")
    );
    assert!(!markup.contains("onclick") && markup.matches("<script").count() == 1, "no inline script");
}

/// The paths of the document's tables: method, path, who.
fn documented() -> Vec<(String, String, String)> {
    let document = include_str!("../../../docs/console.md");
    let (_, behind) = document.split_once("## 2. Pages of the hive").expect("the section is there");
    let (rows, _) = behind.split_once("## 3.").expect("it ends");
    let mut all = Vec::new();
    for row in rows.lines().filter(|row| row.starts_with("| GET") || row.starts_with("| POST")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for (at, part) in cells[0].split('`').enumerate().filter(|(at, _)| at % 2 == 1) {
            let methods = cells[0].split('`').nth(at - 1).expect("stands before");
            for method in ["GET", "POST"].into_iter().filter(|method| methods.contains(method)) {
                all.push((method.to_owned(), part.to_owned(), cells[1].to_owned()));
            }
        }
    }
    all
}

#[test]
fn the_pages_are_those_of_the_document() {
    let documented: std::collections::BTreeSet<(String, String)> =
        documented().into_iter().map(|(method, path, _)| (method, path)).collect();
    let built: std::collections::BTreeSet<(String, String)> =
        pages().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    let missing: Vec<_> = built.difference(&documented).collect();
    let more: Vec<_> = documented.difference(&built).collect();
    assert!(missing.is_empty() && more.is_empty(), "not documented: {missing:?}; not built: {more:?}");
}

/// A browser of somebody with a role: invited by the owner.
async fn invited(world: &World, owner: &mut Browser, role: &str, name: &str) -> Browser {
    let page = owner.fill("/settings", "/settings/invites", &[("role", role), ("days", "1")]).await;
    assert_eq!(page.status, 200, "{}", text(&page));
    let (_, rest) = text(&page)
        .split_once("<pre id=\"secret\">")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("is shown");
    let invite = rest.split('<').next().expect("it ends").to_owned();
    let mut guest = Browser::new(world);
    let fields = [("invite", invite.as_str()), ("name", name), ("password", "another long password")];
    let reply = guest.fill("/accept", "/accept", &fields).await;
    assert_eq!((reply.status, location(&reply)), (303, "/"), "{}", text(&reply));
    guest
}

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

fn is_safe(reply: &Reply, path: &str) {
    if reply
        .headers
        .get("content-type")
        .is_none_or(|kind| !kind.to_str().expect("is text").starts_with("text/html"))
    {
        return;
    }
    assert_eq!(reply.headers["content-security-policy"], POLICY, "{path}");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
    assert_eq!(reply.headers["referrer-policy"], "no-referrer", "{path}");
    assert_eq!(reply.headers["cache-control"], "no-store", "{path}");
    let text = text(reply);
    assert!(
        !text.contains(" style=")
            && !text.contains("<style")
            && !text.contains(" onclick")
            && !text.contains("javascript:"),
        "{path}"
    );
    for script in text.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/assets/"), "{path}");
    }
    // Each label has its field, and no id is there twice.
    let ids: Vec<&str> =
        text.split(" id=\"").skip(1).map(|part| part.split('"').next().unwrap_or_default()).collect();
    let once: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), once.len(), "{path}: {ids:?}");
    for label in text.split("<label for=\"").skip(1) {
        let of = label.split('"').next().unwrap_or_default();
        assert!(ids.contains(&of), "{path}: {of}");
    }
    // Nobody is asked for the data passphrase here, by a field or by what stands at one.
    let fields = ["<input", "<textarea", "<select", "<label"];
    for part in text.split('<').map(|part| format!("<{}", part.to_lowercase())) {
        assert!(
            !fields.iter().any(|field| part.starts_with(field)) || !part.contains("passphrase"),
            "{path}: {part}"
        );
    }
}

/// Every page and form: without a login, as each role, and with the ids of another account.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_refuses_who_may_not_see_it() {
    let (database, folder) = databases().await.remove(0);
    let scene = Scene::on(&database, folder, "manual").await;
    let world = &scene.world;
    let mut owner = Browser::log_in(world, "ada", "a long password").await;
    let mut operator = invited(world, &mut owner, "operator", "ben").await;
    let mut viewer = invited(world, &mut owner, "viewer", "cleo").await;
    let code = scene.ada.post("/v1/device-codes", &json!({})).await.is(200);
    let of_ada = |path: &str| -> String {
        let id = match path {
            path if path.starts_with("/devices/codes") => code["id"].as_str().expect("has an id").to_owned(),
            path if path.starts_with("/devices") => scene.attic.uuid(),
            path if path.starts_with("/apps") => scene.app.clone(),
            _ => crate::world::uuid(),
        };
        path.replace("{id}", &id).replace("{hash}", "0").replace("{name}", "x")
    };
    for (method, pattern, who) in documented() {
        let path = of_ada(&pattern);
        let mut nobody = Browser::new(world);
        if method == "GET" {
            let reply = nobody.get(&path).await;
            is_safe(&reply, &path);
            if who != "all" {
                assert_eq!(reply.status, 303, "{path}");
                assert!(location(&reply).starts_with("/login"), "{path}: {}", location(&reply));
            }
            for (browser, role) in [(&mut viewer, 0), (&mut operator, 1), (&mut owner, 2)] {
                if path == "/live" {
                    continue;
                }
                let reply = browser.get(&path).await;
                is_safe(&reply, &path);
                let needs = match who.as_str() {
                    "o" => 2,
                    "p" => 1,
                    _ => 0,
                };
                match role >= needs {
                    true => {
                        assert!(reply.status != 403 && reply.status < 500, "{path} {role}: {}", text(&reply))
                    }
                    false => assert_eq!(reply.status, 403, "{path} {role}"),
                }
            }
        } else if who != "all" {
            let reply = nobody.send(&path, &[], &[]).await;
            let led = match pattern.as_str() {
                "/logout" => "/login",
                _ => "/login?unsent=yes&to=/",
            };
            assert_eq!(reply.status, 303, "{path}");
            assert!(location(&reply).starts_with(led), "{path}: {}", location(&reply));
            let needs = match who.as_str() {
                "o" => 2,
                "p" => 1,
                _ => 0,
            };
            for (browser, role) in [(&mut viewer, 0), (&mut operator, 1)] {
                if role >= needs {
                    continue;
                }
                let csrf = csrf(&browser.get("/").await);
                let reply = browser.send(&path, &[("csrf", &csrf)], &[]).await;
                assert_eq!(reply.status, 403, "{path} {role}");
                assert!(
                    text(&reply).contains("This needs somebody who is"),
                    "{path} {role}: {}",
                    text(&reply)
                );
                is_safe(&reply, &path);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_account_has_is_not_there() {
    let (database, folder) = databases().await.remove(0);
    let scene = Scene::on(&database, folder, "manual").await;
    let world = &scene.world;
    let mut owner = Browser::log_in(world, "ada", "a long password").await;
    let fields = [("role", "owner"), ("days", "1"), ("new_account", "on")];
    let page = owner.fill("/settings", "/settings/invites", &fields).await;
    let page = text(&page);
    let invite =
        page.split("<pre id=\"secret\">").nth(1).and_then(|rest| rest.split('<').next()).expect("is shown");
    let mut eve = Browser::new(world);
    let fields =
        [("invite", invite), ("name", "eve"), ("password", "another long password"), ("account", "Other")];
    assert_eq!(eve.fill("/accept", "/accept", &fields).await.status, 303);
    assert!(text(&eve.get("/").await).contains("No devices yet"), "what is ada's is not seen");
    assert!(!text(&eve.get("/activity").await).contains("attic"));
    let her_app = app_of_eve(&scene, &mut eve).await;

    // All that ada can have, as it is.
    let ada = &scene.ada;
    let id = |thing: &Value| thing["id"].as_str().expect("has an id").to_owned();
    let code = id(&ada.post("/v1/device-codes", &json!({})).await.is(200));
    let token = id(&ada.post("/v1/tokens", &json!({"title": "t", "role": "viewer"})).await.is(200));
    let invite = id(&ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200));
    ada.post("/v1/releases", &scene.owner.release(1, b"a program")).await.is(201);
    let store = id(&ada.get("/v1/stores").await["items"][0]);
    let person = ada.get("/v1/me").await["person"].as_str().expect("has an id").to_owned();
    let operation = id(&ada.get(&format!("/v1/operations?app={}", scene.app)).await["items"][0]);
    let compose = crate::world::base64(b"services: {web: {image: nginx}}");
    let author = json!({
        "device": scene.cellar.uuid(), "name": "site", "compose": "compose.yaml",
        "files": [{"path": "compose.yaml", "mode": 0o644, "bytes": compose}],
    });
    let install = id(&ada.post("/v1/apps/author", &author).await.is(202)["operation"]);
    let actions = json!([{"name": "add_user", "service": "web", "input": []}]);
    let wiki = crate::world::uuid();
    let package = scene.owner.package_with(&wiki, "wiki", 1, &json!({"actions": actions}));
    ada.post("/v1/packages", &package).await.is(201);
    let add = json!({
        "app": wiki, "revision": 1, "device": scene.attic.uuid(), "policy": "manual", "stores": [store], "start": false
    });
    ada.post("/v1/apps", &add).await.is(202);
    let hook =
        owner.fill("/settings", "/settings/channels/webhook", &[("url", "https://example.invalid/x")]).await;
    assert_eq!(hook.status, 303, "{}", text(&hook));
    let channel = in_form(&text(&owner.get("/settings").await), "/settings/channels/");
    // Pages without an id show her own things alone.
    for path in ["/", "/devices", "/catalog", "/catalog/site", "/activity", "/settings", "/me"] {
        let page = text(&eve.get(path).await);
        for hers in ["attic", "cellar", "s3://b/p", "photos", ">ada<", "example.invalid"] {
            assert!(!page.contains(hers), "{path} shows {hers}: {page}");
        }
    }
    let _elsewhere = Browser::log_in(world, "ada", "a long password").await;
    let session = in_form(&text(&owner.get("/me").await), "/me/sessions/");
    let of_ada = |path: &str| {
        let first = match path {
            path if path.starts_with("/devices/codes") => &code,
            path if path.starts_with("/devices") => &scene.attic.uuid(),
            path if path.starts_with("/settings/tokens") => &token,
            path if path.starts_with("/settings/invites") => &invite,
            path if path.starts_with("/settings/stores") => &store,
            path if path.starts_with("/settings/people") => &person,
            path if path.starts_with("/settings/channels") => &channel,
            path if path.starts_with("/activity") => &operation,
            path if path.starts_with("/me/sessions") => &session,
            path if path.starts_with("/installs") => &install,
            path if path.contains("/actions/") => &wiki,
            path if path.starts_with("/apps") => &scene.app,
            path => panic!("{path}: whose id?"),
        };
        path.replacen("{id}", first, 1).replace("{id}", &operation).replace("{name}", "add_user")
    };
    let mut asked: Vec<(&str, String)> = pages()
        .into_iter()
        .filter(|(_, path)| path.contains("{id}"))
        .map(|(method, path)| (method, of_ada(path)))
        .collect();
    // What changes something comes after what looks at it.
    asked.sort_by_key(|(method, _)| *method);
    let of_both = format!("/apps/{her_app}/operations/{operation}");
    let hers = [("GET", of_both.clone()), ("POST", format!("{of_both}/cancel"))];
    for (browser, is_hers, all) in
        [(&mut eve, false, [&asked[..], &hers[..]].concat()), (&mut owner, true, asked)]
    {
        let csrf = csrf(&browser.get("/").await);
        for (method, path) in all {
            let fields =
                [("csrf", csrf.as_str()), ("name", "mine"), ("role", "viewer"), ("stores_closed", "on")];
            let path = format!("{path}?release=1&to=x");
            let reply = match method {
                "GET" => browser.get(&path).await,
                _ => browser.send(&path, &fields, &[]).await,
            };
            // Who has it is answered otherwise: it is no other page that is missing.
            assert_eq!(reply.status == 404, !is_hers, "{method} {path}: {} {}", reply.status, text(&reply));
            assert!(reply.status < 500 && !text(&reply).contains("This form is not of a page"), "{path}");
        }
        if !is_hers {
            // And nothing of it was done.
            assert_eq!(ada.get(&format!("/v1/devices/{}", scene.attic.uuid())).await["name"], "attic");
            assert!(ada.get("/v1/stores").await.to_string().contains(&store));
        }
    }
}

/// An app of her own in her own account.
async fn app_of_eve(scene: &Scene, eve: &mut Browser) -> String {
    let fields = [("title", "own"), ("role", "owner"), ("days", "1")];
    let page = text(&eve.fill("/settings", "/settings/tokens", &fields).await);
    let (_, rest) = page.split_once("<pre id=\"secret\">").expect("is shown");
    let eve = scene.world.person(rest.split('<').next().expect("it ends"));
    let (owner, app) = (crate::world::Owner::new(2), crate::world::uuid());
    eve.ring(&owner).await;
    let mut shed = eve.device(&scene.world, "shed").await;
    shed.owner = Some(crate::world::Owner::new(2));
    shed.hello().await.is(200);
    shed.report().await.is(200);
    let store = eve.post("/v1/stores", &json!({"url": "s3://hers/p"})).await.is(200);
    eve.package(&owner, &app, "hers", 1).await.is(201);
    let add = json!({
        "app": app, "revision": 1, "device": shed.uuid(), "policy": "manual", "stores": [store["id"]], "start": true
    });
    eve.post("/v1/apps", &add).await.is(202);
    app
}

/// The id in the first form of a page whose address begins so.
pub fn in_form(page: &str, start: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("action=\"{start}")).unwrap_or_else(|| panic!("{start}: {page}"));
    rest.split(['/', '"']).next().expect("has an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_added_renamed_and_seen_with_its_figures() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let world = &scene.world;
    let mut owner = Browser::log_in(world, "ada", "a long password").await;
    let reply = owner.fill("/devices/add", "/devices/add", &[("name", "shed")]).await;
    let page = text(&reply);
    let command =
        page.split("<pre id=\"command\">").nth(1).and_then(|rest| rest.split('<').next()).expect("is shown");
    let (start, code) = command.split_once(" --code ").expect("has a code");
    assert_eq!(start, "comb device join http://hive");
    assert!(page.contains("comb device install-unit") && page.contains("comb device run"), "{page}");
    assert!(page.contains("asks there for your data passphrase") && !page.contains("recovery kit"), "{page}");
    assert!(text(&owner.get("/devices/add").await).contains("Whoever controls the hive can run programs"));
    let accepts = [("name", "loft"), ("accept_authoring", "on")];
    let other = text(&owner.fill("/devices/add", "/devices/add", &accepts).await);
    let commands: Vec<&str> = other
        .split("<pre id=\"")
        .filter(|rest| rest.starts_with("command\"") || rest.starts_with("docker\""))
        .filter_map(|rest| rest.split(['<', '>']).nth(1))
        .collect();
    assert_eq!(commands.len(), 2, "{other}");
    for command in commands {
        let (_, behind) = command.split_once(" --code ").expect("has a code");
        assert!(behind.ends_with(" --accept-authoring"), "{command}");
    }
    let waits =
        page.split("data-from=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("waits").to_owned();
    assert!(text(&owner.get(&waits).await).contains("Waiting for the device"));
    assert_eq!(from(&reply).as_deref(), Some(waits.as_str()), "another code is not made by looking");
    let mut shed = crate::world::Machine::new(world);
    let code = orchestrator_api::code::JoinCode::parse(code).expect("is a code");
    shed.join(&code, "shed").await.is(201);
    let came = text(&owner.get(&waits).await);
    assert!(came.contains("joined.</b>") && came.contains("shed") && !came.contains("--code"), "{came}");
    assert!(came.contains("It is heard as soon as it runs there"), "{came}");
    // Light and dark lead away and back: not from what cannot be asked for again.
    assert!(!page.contains("action=\"/theme\"") && came.contains("action=\"/theme\""), "{page}");
    // The code was used: its row tells that, and stays.
    let reply = owner.fill("/devices", &format!("{waits}/remove"), &[]).await;
    assert_eq!(reply.status, 409, "{}", text(&reply));
    assert!(text(&reply).contains("A device joined with this code already"), "{}", text(&reply));
    assert_eq!(owner.get(&waits).await.status, 200);
    let list = text(&owner.get("/devices").await);
    assert!(list.contains("<span id=\"add\" data-live=\"device\"><a"), "{list}");
    assert!(list.contains("<section id=\"codes\" data-live=\"device\"") && list.contains("loft"), "{list}");
    // Who is not heard takes no orders, and nothing is told of it as of now.
    let silent = text(&owner.get(&format!("/devices/{}", shed.uuid())).await);
    assert!(silent.contains("disabled aria-describedby=\"no-orders\">Empty it…</button>"), "{silent}");
    assert!(silent.contains("It is silent, and takes no orders until it is heard again."), "{silent}");
    assert!(list.contains("<td data-label=\"Not yet safe\">not known now</td>"), "{list}");

    scene.attic.load = json!({
        "cpu_percent": 42, "memory_bytes": 8u64 << 30, "memory_free_bytes": 2u64 << 30, "load_1m": 1,
        "received_bytes": 1000, "sent_bytes": 2000, "read_bytes": null, "written_bytes": null
    });
    scene.attic.report().await.is(200);
    let path = format!("/devices/{}", scene.attic.uuid());
    let page = text(&owner.get(&path).await);
    assert!(page.contains("42 %, 6 GiB of 8 GiB"), "{page}");
    assert!(
        page.contains("<div id=\"manage\" data-live=") && page.contains("/drain\">Empty it…</a>"),
        "{page}"
    );
    assert!(
        page.contains("photos") && page.contains("Processors") && page.contains("<svg role=\"img\""),
        "{page}"
    );
    for span in ["hour", "day", "month", "nonsense"] {
        assert_eq!(owner.get(&format!("{path}?span={span}")).await.status, 200);
    }
    let reply = owner.fill(&path, &format!("{path}/rename"), &[("name", "loft")]).await;
    assert_eq!(location(&reply), format!("{path}?done=renamed"));
    assert!(text(&owner.get(location(&reply)).await).contains("The name was changed."));
    let reply = owner.fill(&path, &format!("{path}/rename"), &[("name", "<b>Bad Name</b>")]).await;
    assert_eq!(reply.status, 400);
    let page = text(&reply);
    assert!(
        page.contains("<b>This is not a name of a-z, 0-9 and hyphens")
            && !page.contains("&#34;name&#34;: is")
            && !page.contains("&quot;name&quot;")
            && page.contains("&#60;b&#62;Bad Name")
            && !page.contains("<b>Bad")
            && page.contains("aria-invalid=\"true\""),
        "{page}"
    );
    let reply = owner.fill(&path, &format!("{path}/rename"), &[("name", "cellar")]).await;
    assert_eq!(reply.status, 409, "another device has that name");
    assert_eq!(from(&reply).as_deref(), Some(path.as_str()), "its own address takes no GET");
    assert_eq!(owner.get(&path).await.status, 200);
    assert_eq!(from(&owner.get(&path).await), None, "what is no answer to a form has its own address");
    let invites = owner.fill("/settings", "/settings/invites", &[("role", "viewer"), ("days", "0")]).await;
    assert_eq!((invites.status, from(&invites).as_deref()), (400, Some("/settings")));
    // What is too long is refused, and not cut; the hint stays beside it.
    for (form, more, words) in [
        ("/settings/invites", [("role", "viewer"), ("days", "30")], "Say a number of days from 1 to 7"),
        ("/settings/tokens", [("role", "viewer"), ("days", "400")], "Say a number of days from 1 to 365"),
    ] {
        let reply = owner.fill("/settings", form, &[&more[..], &[("title", "t")]].concat()).await;
        let page = text(&reply);
        assert!(reply.status == 400 && page.contains(words), "{form}: {page}");
        assert!(page.contains("At most 7.") && page.contains("At most 365."), "{page}");
    }
    // The cellar can take its app: until that is done, the app is where it was.
    scene.cellar.report().await.is(200);
    let reply = owner.fill(&format!("{path}/revoke"), &format!("{path}/revoke"), &[]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let page = text(&owner.get(&path).await);
    assert!(
        page.contains("revoked, its stores are open") && page.contains("its device was revoked"),
        "{page}"
    );
    assert!(!page.contains("<dt>Load</dt>") && !page.contains("comb doctor"), "{page}");
    assert!(!page.contains("data-label=\"Not yet safe\">nothing"), "{page}");
    // Its app is not well, wherever it is told of, and takes no orders there.
    let told = alerts(&mut owner).await;
    assert!(told.contains(&"photos: its device was revoked.".to_owned()), "{told:?}");
    let app = text(&owner.get(&format!("/apps/{}", scene.app)).await);
    assert!(app.contains("loft was revoked, and the hive takes nothing from it any more"), "{app}");
    let activity = text(&owner.get("/activity?kind=orders").await);
    assert!(activity.contains("Revoked") && activity.contains("Renamed"), "{activity}");
    assert!(!text(&owner.get("/activity?kind=people").await).contains("Renamed"));
}

/// The alerts of the first page, without elements.
async fn alerts(browser: &mut Browser) -> Vec<String> {
    let page = text(&browser.get("/").await);
    let (_, alerts) = page.split_once("<section id=\"alerts\"").expect("has a place for them");
    let (alerts, _) = alerts.split_once("</section>").expect("it ends");
    let plain =
        |item: &str| item.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
    alerts.split("<li").skip(1).map(plain).map(|one: String| one.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_tells_of_everything_that_is_the_matter() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let mut owner = Browser::log_in(&scene.world, "ada", "a long password").await;
    let mut operator = invited(&scene.world, &mut owner, "operator", "ben").await;
    scene.cellar.report().await.is(200);
    assert_eq!(alerts(&mut owner).await, [""; 0]);
    // Who may install apps is offered it; who may add devices, that.
    let home = text(&operator.get("/").await);
    assert!(home.contains("href=\"/catalog\">Install an app") && !home.contains("/devices/add"), "{home}");
    assert!(home.contains("<p id=\"said\" class=\"hide\" role=\"status\"></p>"), "{home}");

    // Devices: their Docker, their disks, their updates; and their stores.
    let store = scene.ada.get("/v1/stores").await["items"][0]["id"].clone();
    scene.cellar.docker = "stopped";
    scene.cellar.update = json!({"number": 7, "state": "gone_back", "problem": "gate_late"});
    scene.cellar.stores = vec![json!({"store": store, "state": "unreachable"})];
    scene.cellar.report().await.is(200);
    let told = [
        "Docker does not answer on cellar.",
        "A device cannot reach the store s3://b/p.",
        "cellar was not well with release 7, and went back to the one before.",
    ];
    assert_eq!(alerts(&mut operator).await, told);
    (scene.cellar.docker, scene.cellar.free_bytes) = ("ok", 1 << 30);
    (scene.cellar.update, scene.cellar.stores) = (Value::Null, Vec::new());
    scene.cellar.report().await.is(200);
    assert_eq!(alerts(&mut operator).await, ["A disk is nearly full on cellar: 1 GiB of 2 TiB are free."]);
    (scene.cellar.docker, scene.cellar.free_bytes) = ("missing", 1 << 40);
    scene.cellar.report().await.is(200);
    assert_eq!(alerts(&mut operator).await, ["There is no Docker on cellar."]);
    scene.cellar.docker = "ok";
    scene.cellar.report().await.is(200);

    // Apps: in words, and none of a volume as safe that no store ever told of.
    scene.attic.apps[0]["health"] = json!("unhealthy");
    scene.attic.report().await.is(200);
    assert_eq!(alerts(&mut owner).await, ["photos is not well."]);
    scene.attic.apps[0]["problem"] = json!({"code": "head_unexpected"});
    scene.attic.report().await.is(200);
    let words = "the store holds changes of a device that the hive does not know of";
    assert_eq!(alerts(&mut owner).await, [format!("photos: {words}.")]);
    let home = text(&owner.get("/").await);
    assert!(home.matches(words).count() == 2 && !home.contains("head unexpected"), "a tile, too: {home}");
    (scene.attic.apps[0]["problem"], scene.attic.apps[0]["health"]) = (Value::Null, json!("healthy"));
    let volume = &mut scene.attic.apps[0]["volumes"][0];
    (volume["replicated_seq"], volume["replicated_age_ms"]) = (Value::Null, Value::Null);
    (volume["backlog_bytes"], volume["backlog_age_ms"]) = (json!(0), Value::Null);
    scene.attic.report().await.is(200);
    assert_eq!(alerts(&mut owner).await, ["photos: no store has ever told that it has its data."]);
    let home = text(&owner.get("/").await);
    assert!(home.contains("not safe elsewhere yet") && !home.contains("safe as of"), "{home}");
    assert_eq!(scene.shown().await["at_stake"]["seconds"], Value::Null);
    scene.attic.apps[0]["phase"] = json!("stopped");
    scene.attic.report().await.is(200);
    assert_eq!(alerts(&mut owner).await, ["photos stopped by itself."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_shows_the_way() {
    let world = World::new().await;
    world.set_up().await;
    let mut nobody = Browser::new(&world);
    let reply = nobody.get("/nowhere").await;
    assert_eq!(reply.status, 404);
    is_safe(&reply, "/nowhere");
    assert!(!text(&reply).contains("aria-label=\"Main\""));
    let mut ada = Browser::log_in(&world, "ada", "a long password").await;
    for path in ["/nowhere", "/devices/nothing", "/apps/5c0e1d6c-55ee-4d4f-b4d5-5d6f26bb2a11"] {
        let reply = ada.get(path).await;
        let page = text(&reply);
        assert_eq!(reply.status, 404, "{path}");
        assert!(page.contains("aria-label=\"Main\"") && page.contains(">ada</a>"), "{path}: {page}");
        let (_, words) = page.split_once("<div class=\"card\">\n<p>").expect("is told");
        assert!(words.starts_with(|first: char| first.is_uppercase()), "{path}: {words}");
    }
    // What cannot be read is told on a page, too, and not as a program would be told.
    for path in ["/devices?x=%zz", "/devices//x", "/a%2fb", "/%zz"] {
        for browser in [&mut ada, &mut nobody] {
            let reply = browser.get(path).await;
            is_safe(&reply, path);
            assert_eq!(reply.status, 400, "{path}: {}", text(&reply));
            assert!(text(&reply).contains("<h1>This did not work</h1>"), "{path}: {}", text(&reply));
        }
    }
    let long = "x".repeat(80 << 10);
    let reply = ada.fill("/settings", "/settings/stores", &[("url", &long)]).await;
    is_safe(&reply, "a long form");
    let page = text(&reply);
    assert!(reply.status == 413 && page.contains("64 KiB at most") && page.contains(">ada</a>"), "{page}");
    assert_eq!(ada.get("/").await.status, 200);
}

/// What a device or a person called something is shown, and does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_do_nothing() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let title = "<img src=x onerror=alert(1)>\"'";
    ada.post("/v1/tokens", &json!({"title": title, "role": "viewer"})).await.is(200);
    ada.post("/v1/stores", &json!({"url": "s3://bucket/<script>alert(1)</script>"})).await.is(200);
    let mut browser = Browser::new(&world);
    let csrf = csrf(&browser.get("/login").await);
    let agent = "<script>alert('agent')</script>".to_owned();
    let fields = [("csrf", csrf.as_str()), ("name", "ada"), ("password", "a long password")];
    assert_eq!(browser.send("/login", &fields, &[("user-agent", agent)]).await.status, 303);
    for path in [
        "/settings",
        "/me",
        "/activity",
        "/activity?kind=%3Cscript%3E&app=",
        "/login?to=%22%3E%3Cscript%3E",
        "/?done=%3Cscript%3E",
    ] {
        let reply = browser.get(path).await;
        let page = text(&reply);
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{path}: {page}");
        is_safe(&reply, path);
    }
    assert!(text(&browser.get("/settings").await).contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;"));
    assert!(text(&browser.get("/me").await).contains("&lt;script&gt;alert(&#39;agent&#39;)"));
    // What cannot be undone is asked about first.
    let settings = text(&browser.get("/settings").await);
    let store = settings.split("href=\"").find(|part| part.starts_with("/settings/stores/")).expect("a link");
    let reply = browser.get(store.split('"').next().expect("it ends")).await;
    is_safe(&reply, "removing a store");
    let page = text(&reply);
    assert!(
        page.contains("Remove a store?") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    let mut nobody = Browser::new(&world);
    for to in ["//evil.example", "https://evil.example", "/%5Cevil.example"] {
        let csrf_page = format!("/login?to={to}");
        let fields = [("name", "ada"), ("password", "a long password"), ("to", to)];
        let reply = nobody.fill(&csrf_page, "/login", &fields).await;
        assert!(
            reply.status == 303 && !location(&reply).contains("evil.example")
                || location(&reply).starts_with("/%5C"),
            "{}",
            location(&reply)
        );
        nobody = Browser::new(&world);
    }
    let reply = browser.get("/no/such/page").await;
    assert_eq!(reply.status, 404);
    assert!(text(&reply).contains("href=\"/\""), "there is a way back");
}

/// The code of now, as an authenticator app makes it.
pub fn totp(secret: &str, steps_ahead: u64) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let (mut bits, mut held, mut key) = (0u32, 0, Vec::new());
    for letter in secret.bytes() {
        let value =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|one| *one == letter).expect("is base32");
        bits = bits << 5 | value as u32;
        held += 5;
        if held >= 8 {
            held -= 8;
            key.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("is later").as_secs();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(&key).expect("takes any key");
    mac.update(&(now / 30 + steps_ahead).to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let at = usize::from(hash[19] & 15);
    let four = [hash[at] & 0x7f, hash[at + 1], hash[at + 2], hash[at + 3]];
    format!("{:06}", u32::from_be_bytes(four) % 1_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for_and_is_good_once() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let page = text(&browser.get("/me/second").await);
    let secret = page
        .split("<pre id=\"secret\">")
        .nth(1)
        .and_then(|rest| rest.split('<').next())
        .expect("is shown")
        .to_owned();
    let reply = browser.fill("/me/second", "/me/second", &[("code", "000000")]).await;
    assert_eq!(reply.status, 400, "a wrong code turns nothing on");
    assert!(text(&browser.get("/me").await).contains("It is off"));
    let first = totp(&secret, 0);
    let reply = browser.fill("/me/second", "/me/second", &[("code", &first)]).await;
    assert_eq!(reply.status, 200, "{}", text(&reply));
    let page = text(&reply);
    let codes =
        page.split("<pre id=\"secret\">").nth(1).and_then(|rest| rest.split('<').next()).expect("is shown");
    let codes: Vec<String> = codes.lines().map(str::to_owned).collect();
    assert_eq!(codes.len(), 10);
    let file = world.options.database.strip_prefix("sqlite:").expect("is a file").to_owned();
    for name in [file.clone(), format!("{file}-wal")] {
        let bytes = std::fs::read(&name).unwrap_or_default();
        assert!(
            !bytes.windows(19).any(|part| part == codes[0].as_bytes()),
            "recovery codes are kept as hashes"
        );
    }

    assert!(!page.contains("action=\"/theme\""), "what is shown once is not led away from: {page}");
    // The way for who lost their codes is none for oneself: a session that was stolen would need no code.
    let settings = text(&browser.get("/settings").await);
    let own = in_form(&settings, "/settings/people/");
    let off = format!("/settings/people/{own}/second-off");
    for reply in [browser.get(&off).await, browser.fill("/me", &off, &[]).await] {
        assert_eq!(reply.status, 409, "{}", text(&reply));
        assert!(text(&reply).contains("Your own second factor is turned off with a code"));
    }
    assert!(text(&browser.get("/me").await).contains("10 recovery codes are left"));

    // A program needs it, too.
    let login = json!({"name": "ada", "password": "a long password"});
    world.nobody("POST", "/v1/login", &login).await.fails(401, "second_needed");
    let with = |code: &str| json!({"name": "ada", "password": "a long password", "second": code});
    world.nobody("POST", "/v1/login", &with(&first)).await.fails(403, "second_wrong");
    world.nobody("POST", "/v1/login", &with(&totp(&secret, 1))).await.is(200);

    // A browser that knows the password alone is nobody.
    let mut other = Browser::new(&world);
    let reply = other
        .fill("/login", "/login", &[("name", "ada"), ("password", "a long password"), ("to", "/me")])
        .await;
    assert_eq!(location(&reply), "/login/second?to=/me");
    assert_eq!(location(&other.get("/me").await), "/login?to=/me");
    let reply = other.fill("/login/second", "/login/second", &[("code", &totp(&secret, 1))]).await;
    assert_eq!(reply.status, 403, "a code that was used is refused");
    let reply = other
        .fill("/login/second", "/login/second", &[("code", &codes[3].to_lowercase()), ("to", "/me")])
        .await;
    assert_eq!((reply.status, location(&reply)), (303, "/me"), "{}", text(&reply));
    let page = text(&other.get("/me").await);
    assert!(page.contains("9 recovery codes are left"), "{page}");
    let mut third = Browser::new(&world);
    third.fill("/login", "/login", &[("name", "ada"), ("password", "a long password")]).await;
    let reply = third.fill("/login/second", "/login/second", &[("code", &codes[3])]).await;
    assert_eq!(reply.status, 403, "a recovery code is good once");
    let reply = browser.fill("/me", "/me/second/off", &[("code", &codes[4])]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    assert!(text(&browser.get("/me").await).contains("It is off"));
}

/// Who saw a secret in a session that was stolen has no part in what is taken up later.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_that_is_not_confirmed_is_forgotten() {
    async fn secret(browser: &mut Browser) -> String {
        let page = text(&browser.get("/me/second").await);
        let shown = page.split("<pre id=\"secret\">").nth(1).and_then(|rest| rest.split('<').next());
        shown.expect("is shown").to_owned()
    }
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let first = secret(&mut browser).await;
    assert_eq!(secret(&mut browser).await, first, "it stays the same for who just read it into a phone");
    let passwords = [("old", "a long password"), ("new", "another password")];
    let reply = browser.fill("/me", "/me/password", &passwords).await;
    assert_eq!(location(&reply), "/me?done=saved", "{}", text(&reply));
    let second = secret(&mut browser).await;
    assert_ne!(second, first);

    let file = world.options.database.strip_prefix("sqlite:").expect("is a file");
    let rows = rusqlite::Connection::open(file).expect("opens");
    rows.busy_timeout(std::time::Duration::from_secs(10)).expect("it waits");
    let changed = rows.execute("UPDATE second SET step = step - 40", []).expect("is a table");
    assert_eq!(changed, 1, "twenty minutes pass");
    let fields = [("csrf", csrf(&browser.get("/me").await)), ("code", totp(&second, 0))];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = browser.send("/me/second", &fields, &[]).await;
    assert_eq!(reply.status, 409, "{}", text(&reply));
    let third = secret(&mut browser).await;
    assert!(third != first && third != second);
    let reply = browser.fill("/me/second", "/me/second", &[("code", &totp(&third, 0))]).await;
    assert_eq!(reply.status, 200, "{}", text(&reply));
}

/// What takes something from oneself, or ends that anybody is told, is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn one_click_takes_nothing_that_matters() {
    let world = World::new().await;
    world.set_up().await;
    let mut ada = Browser::log_in(&world, "ada", "a long password").await;
    let hook = [("url", "https://example.invalid/x")];
    assert_eq!(ada.fill("/settings", "/settings/channels/webhook", &hook).await.status, 303);
    let settings = text(&ada.get("/settings").await);
    let channel = format!("/settings/channels/{}/remove", in_form(&settings, "/settings/channels/"));
    assert!(!settings.contains(&format!("action=\"{channel}")), "{settings}");
    let page = text(&ada.get(&channel).await);
    assert!(page.contains("Remove a notification?") && page.contains("then nobody is told"), "{page}");
    assert!(page.contains("example.invalid"), "{page}");
    assert_eq!(location(&ada.fill(&channel, &channel, &[]).await), "/settings?done=removed#notify");
    assert!(text(&ada.get("/settings").await).contains("Nobody is told yet"));

    let role = format!("/settings/people/{}/role", in_form(&settings, "/settings/people/"));
    let _ben = invited(&world, &mut ada, "owner", "ben").await;
    let asked = ada.fill("/settings", &role, &[("role", "viewer")]).await;
    assert_eq!(location(&asked), format!("{role}?role=viewer"));
    let page = text(&ada.get(location(&asked)).await);
    assert!(page.contains("Become a viewer?") && page.contains("Only another owner"), "{page}");
    assert!(text(&ada.get("/settings").await).contains("id=\"people\""), "she is an owner still");
    assert_eq!(location(&ada.get(&format!("{role}?role=owner")).await), "/settings#people");
    let sure = ada.fill(location(&asked), location(&asked), &[]).await;
    assert_eq!(sure.status, 303, "{}", text(&sure));
    assert!(!text(&ada.get("/settings").await).contains("id=\"people\""));
}

/// A form that comes after the login ended does nothing, says so, and leads back to its page.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_came_too_late_is_told_and_its_page_comes_again() {
    let world = World::new().await;
    world.set_up().await;
    let mut ada = Browser::log_in(&world, "ada", "a long password").await;
    let gone = csrf(&ada.get("/settings").await);
    ada.cookies.clear();
    let late = ada.send("/settings/stores", &[("csrf", &gone), ("url", "s3://late/p")], &[]).await;
    assert_eq!((late.status, location(&late)), (303, "/login?unsent=yes&to=/settings"));
    let to = location(&late).to_owned();
    let page = text(&ada.get(&to).await);
    assert!(page.contains("Nothing was sent") && page.contains("name=\"to\" value=\"/settings\""), "{page}");
    let fields = [("name", "ada"), ("password", "a long password"), ("to", "/settings")];
    assert_eq!(location(&ada.fill(&to, "/login", &fields).await), "/settings");
    assert!(!text(&ada.get("/settings").await).contains("s3://late/p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_sessions_are_ended() {
    let world = World::new().await;
    world.set_up().await;
    let mut one = Browser::log_in(&world, "ada", "a long password").await;
    let mut two = Browser::log_in(&world, "ada", "a long password").await;
    let page = text(&one.get("/me").await);
    let end = page
        .split("action=\"")
        .find_map(|part| part.strip_prefix("/me/sessions/"))
        .and_then(|rest| rest.split('"').next())
        .expect("the other one is listed");
    assert_eq!(one.fill("/me", &format!("/me/sessions/{end}"), &[]).await.status, 303);
    assert_eq!(location(&two.get("/").await), "/login");
    let mut two = Browser::log_in(&world, "ada", "a long password").await;
    let fields = [("old", "a long password"), ("new", "a longer password still")];
    let reply = one.fill("/me", "/me/password", &fields).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    assert_eq!(location(&two.get("/").await), "/login", "a new password ends other sessions");
    assert_eq!(one.get("/").await.status, 200);
    let mut guess = Browser::new(&world);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let reply = guess.fill("/login", "/login", &[("name", "ada"), ("password", "not this one")]).await;
        statuses.push(reply.status);
    }
    assert_eq!(statuses.first(), Some(&403));
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}
