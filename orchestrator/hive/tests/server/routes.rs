//! Every route of the table: without a login, with too low a role, and with the ids of another account.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::{World, uuid};

/// The table, as the hive tells it: path, method, who.
pub async fn table(world: &World) -> Vec<(String, String, String)> {
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
pub fn filled(path: &str, of: impl Fn(&str) -> String) -> String {
    path.split('/')
        .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => of(&format!("{path} {name}")),
            None => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The paths that a row of the document means by one of its words, which are short where the table is read from above.
fn meant(method: &str, word: &str, base: &str, built: &BTreeSet<(String, String)>) -> Vec<String> {
    let word = word.split('?').next().expect("has a path");
    if let Some(begins) = word.strip_suffix('…') {
        let all = built.iter().filter(|(by, path)| by == method && path.starts_with(begins));
        return all.map(|(_, path)| path.clone()).collect();
    }
    if let Some(tail) = word.strip_prefix('…') {
        // Below what the row names before; a row that names nothing is about an app.
        let base = if base.is_empty() { "/v1/apps/{id}" } else { base };
        return vec![format!("{base}{tail}")];
    }
    match base.rsplit_once('/') {
        // Beside what the row names before.
        Some((above, _)) if !built.iter().any(|(_, path)| path == word) => vec![format!("{above}{word}")],
        _ => vec![word.to_owned()],
    }
}

#[test]
fn the_routes_are_those_of_the_document() {
    let document = include_str!("../../../docs/api.md");
    let (_, behind) = document.split_once("## 4. Routes for people").expect("the section is there");
    let (rows, _) = behind.split_once("### The report").expect("it ends");
    let built: BTreeSet<(String, String)> = orchestrator_hive::routes()
        .into_iter()
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    let mut documented = BTreeSet::new();
    for row in rows.lines().filter(|row| row.starts_with("| ")) {
        let first = row.trim_matches('|').split('|').next().expect("has a cell");
        let (mut methods, mut base): (Vec<String>, String) = Default::default();
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
            } else {
                for method in &methods {
                    let paths = meant(method, part, &base, &built);
                    assert!(!paths.is_empty(), "{method} {part} stands in the document, and is not built");
                    documented.extend(paths.into_iter().map(|path| (method.clone(), path)));
                }
                if part.starts_with("/v1/") {
                    base = part.to_owned();
                }
            }
        }
    }
    assert!(documented.len() > 60, "{}", documented.len());
    let only = |these: &BTreeSet<(String, String)>, those| these.difference(those).cloned().collect();
    let (told, made): (Vec<_>, Vec<_>) = (only(&documented, &built), only(&built, &documented));
    assert!(told.is_empty(), "the document has what is not built: {told:?}");
    assert!(made.is_empty(), "the document lacks what is built: {made:?}");
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
