//! Every route of the table: without a login, with too low a role, and with the ids of another account.

use serde_json::{Value, json};

use crate::world::{Machine, Owner, World, databases, uuid};

/// The table, as the hive tells it: path, method, who.
async fn table(world: &World) -> Vec<(String, String, String)> {
    let openapi = world.nobody("GET", "/v1/openapi.json", &Value::Null).await.is(200);
    let mut all = Vec::new();
    for (path, methods) in openapi["paths"].as_object().expect("has paths") {
        for (method, told) in methods.as_object().expect("has methods") {
            let who = told["x-who"].as_str().expect("says who").to_owned();
            all.push((path.clone(), method.to_uppercase(), who));
        }
    }
    assert!(all.len() > 60, "{}", all.len());
    all
}

/// A path with ids put in.
fn filled(path: &str, of: impl Fn(&str) -> String) -> String {
    path.split('/')
        .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => of(&format!("{path} {name}")),
            None => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn the_routes_are_those_of_the_document() {
    let document = include_str!("../../../docs/api.md");
    let (_, behind) = document.split_once("## 4. Routes for people").expect("the section is there");
    let (rows, _) = behind.split_once("### The report").expect("it ends");
    let built: Vec<(&str, &str)> = orchestrator_hive::routes();
    let mut documented = Vec::new();
    for row in rows.lines().filter(|row| row.starts_with("| ")) {
        let first = row.trim_matches('|').split('|').next().expect("has a cell");
        let mut methods: Vec<String> = Vec::new();
        // Words outside of backticks are methods, those inside are paths.
        for (at, part) in first.split('`').enumerate() {
            if at % 2 == 0 {
                let words: Vec<String> = part
                    .split(|one: char| !one.is_ascii_uppercase())
                    .filter(|word| matches!(*word, "GET" | "POST" | "PUT" | "PATCH" | "DELETE"))
                    .map(str::to_owned)
                    .collect();
                if !words.is_empty() {
                    methods = words;
                }
            } else if methods.is_empty() {
                continue;
            } else {
                documented.push((methods.clone(), part.to_owned()));
            }
        }
    }
    assert!(documented.len() > 50, "{}", documented.len());
    for (methods, path) in documented {
        let path = path.split('?').next().expect("has a path").trim_end_matches('…').to_owned();
        let tail = path.trim_start_matches('…').to_owned();
        for method in methods {
            let there = built.iter().any(|(m, p)| *m == method && (p == &path || p.ends_with(&tail)));
            assert!(there, "{method} {path} stands in the document, and is not built");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_who_may_not_ask() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let made = ada.post("/v1/tokens", &json!({"title": "look", "role": "viewer"})).await.is(200);
    let viewer = world.person(made["token"].as_str().expect("has a token"));
    for (path, method, who) in table(&world).await {
        if who == "anybody" {
            continue;
        }
        let path = filled(&path, |name| {
            if name.ends_with("number") || name.ends_with("revision") { "1".into() } else { uuid() }
        });
        let nobody = world.line().send(&method, &path, &[], b"{}").await;
        assert!(matches!(nobody.status, 401 | 403), "{method} {path}: {}", nobody.status);
        if who == "owner" || who.starts_with("operator") {
            let reply = viewer.ask(&method, &path, &json!({}), &[]).await;
            assert_eq!(reply.status, 403, "{method} {path}");
            assert_eq!(reply.json()["error"]["code"], "role_too_low", "{method} {path}");
        }
        if who == "device" {
            let reply = ada.ask(&method, &path, &json!({}), &[]).await;
            assert_eq!(reply.status, 401, "{method} {path}");
        }
    }
}

/// What another account has is as what nobody ever had: the same status and the same words.
#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_ids_are_nobodys() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let invite =
            ada.post("/v1/people/invites", &json!({"role": "owner", "new_account": true})).await.is(200);
        let accept = json!({
            "invite": invite["invite"], "name": "ada", "password": "another password", "account": "other"
        });
        let eve = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
        let eve = world.person(eve["token"].as_str().expect("has a token"));
        assert_ne!(eve.get("/v1/me").await["account"]["id"], ada.get("/v1/me").await["account"]["id"]);

        // Everything that ada can have.
        let (owner, app) = (Owner::new(1), uuid());
        ada.ring(&owner).await;
        let mut attic = ada.device(&world, "attic").await;
        let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
        ada.package(&owner, &app, "photos", 1).await.is(201);
        let add = json!({
            "app": app, "revision": 1, "device": attic.uuid(), "policy": "manual", "stores": [store["id"]], "start": true
        });
        let ordered = ada.post("/v1/apps", &add).await.is(202);
        let invite = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        let token = ada.post("/v1/tokens", &json!({"title": "t", "role": "viewer"})).await.is(200);
        let code = ada.post("/v1/device-codes", &json!({})).await.is(200);
        let person = ada.get("/v1/me").await["person"].clone();
        let of_ada = |name: &str| -> String {
            let text = |value: &Value| value.as_str().unwrap_or("1").to_owned();
            match name {
                name if name.contains("/apps") || name.ends_with(" app") => app.clone(),
                name if name.contains("invites") => text(&invite["id"]),
                name if name.contains("people") => text(&person),
                name if name.contains("tokens") => text(&token["id"]),
                name if name.contains("device-codes") => text(&code["id"]),
                name if name.contains("/devices") => attic.uuid(),
                name if name.contains("stores") => text(&store["id"]),
                name if name.contains("operations") => text(&ordered["operation"]["id"]),
                _ => "1".to_owned(),
            }
        };
        let mut shed = eve.device(&world, "attic").await;
        let body = json!({});
        for (path, method, who) in table(&world).await {
            if !path.contains('{') || who == "anybody" || method == "PUT" {
                continue;
            }
            let theirs = filled(&path, of_ada);
            let never = filled(&path, |name| {
                let ada = of_ada(name);
                if ada == "1" {
                    "7".to_owned()
                } else if ada.len() == 16 {
                    "00".repeat(8)
                } else {
                    uuid()
                }
            });
            let more = if method == "DELETE" && path == "/v1/apps/{id}" { "?keep_data=true" } else { "" };
            let (theirs, never) = (format!("{theirs}{more}"), format!("{never}{more}"));
            if who == "device" {
                let bytes = b"{}";
                let (one, other) =
                    (shed.ask(&method, &theirs, bytes).await, shed.ask(&method, &never, bytes).await);
                assert_eq!((one.status, one.body), (other.status, other.body), "{method} {path}");
                continue;
            }
            let one = eve.ask(&method, &theirs, &body, &[]).await;
            let other = eve.ask(&method, &never, &body, &[]).await;
            assert_eq!((one.status, &one.body), (other.status, &other.body), "{method} {theirs}");
            assert!(one.status >= 400, "{method} {theirs}: {}", one.status);
        }
        // Nothing of it happened.
        assert_eq!(ada.get(&format!("/v1/apps/{app}")).await["name"], "photos");
        assert_eq!(eve.get("/v1/apps").await["items"], json!([]));
        let seen: Vec<Value> = eve.get("/v1/events").await["items"].as_array().cloned().unwrap_or_default();
        assert!(seen.iter().all(|event| event["app"].is_null()), "{seen:?}");
        // A device of hers gets no package of ada's.
        shed.ask("GET", &format!("/v1/packages/{app}/1"), b"").await.fails(404, "not_found");
        attic.ask("GET", &format!("/v1/packages/{app}/1"), b"").await.is(200);
        let _: Option<Machine> = None;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_and_large_bodies_are_refused_before_anything_else() {
    let world = World::new().await;
    for path in ["/v1/../etc", "/v1//apps", "/v1/apps/%2e%2e", "/v1/a%2fb"] {
        world.line().send("GET", path, &[], b"").await.fails(400, "bad_request");
    }
    world.line().send("GET", "/v1/nothing", &[], b"").await.fails(404, "not_found");
    let large = vec![b'x'; 65 << 10];
    world.line().send("POST", "/v1/login", &[], &large).await.fails(413, "too_large");
    world.line().send("POST", "/v1/login", &[], b"{").await.fails(400, "bad_json");
}
