//! Every route of the table: without a login, with too low a role, and with the ids of another account.

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
