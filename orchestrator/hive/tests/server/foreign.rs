//! What another account has is as what nobody ever had, on every route: in its path and in its body, for everybody who may
//! ask. And it is there for whoever has it, so that the test is one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::apart::another;
use crate::routes::{filled, table};
use crate::scene::{id, play};
use crate::world::{Machine, Owner, Person, Reply, World, databases, fresh, uuid};

/// The ids of all that an account can have.
struct Ids {
    app: String,
    device: String,
    other: String,
    store: String,
    operation: String,
    person: String,
    invite: String,
    token: String,
    code: String,
    stream: String,
}

impl Ids {
    /// Ids that nobody has.
    fn never() -> Self {
        let code = "00".repeat(8);
        let [app, device, other, store, operation, person, invite, token, stream] =
            std::array::from_fn(|_| uuid());
        Self { app, device, other, store, operation, person, invite, token, code, stream }
    }

    /// What stands in a place of a path; none if that is no id.
    fn at(&self, place: &str) -> Option<&str> {
        Some(match place {
            "/v1/apps/{id}/actions/{name} name" => return None,
            it if it.contains("/apps/") || it.ends_with(" app") => &self.app,
            it if it.contains("/invites/") => &self.invite,
            it if it.contains("/people/") => &self.person,
            it if it.contains("/tokens/") => &self.token,
            it if it.contains("/device-codes/") => &self.code,
            it if it.contains("/devices/") => &self.device,
            it if it.contains("/stores/") => &self.store,
            it if it.contains("/operations/") => &self.operation,
            it if it.contains("/streams/") => &self.stream,
            it if it.ends_with(" number") || it.ends_with(" revision") || it.ends_with(" arch") => {
                return None;
            }
            it => panic!("{it} is a place that this test does not know"),
        })
    }

    /// A path of the table with these ids, and whether there is an id in it.
    fn path(&self, path: &str) -> (String, bool) {
        let mut any = false;
        let places: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
        any |=
            places.iter().any(|name| self.at(&format!("{path} {}", name.trim_matches(['{', '}']))).is_some());
        let text = filled(path, |place| match (self.at(place), place.rsplit(' ').next()) {
            (Some(id), _) => id.to_owned(),
            (None, Some("name")) => "clean".to_owned(),
            (None, Some("arch")) => "x86_64".to_owned(),
            _ => "1".to_owned(),
        });
        let more = match path {
            "/v1/apps/{id}/moments" => "?wait_ms=100",
            "/v1/device/streams/{id}" => "?part=0",
            _ => "",
        };
        (format!("{text}{more}"), any)
    }
}

/// An account with one of each.
struct House {
    person: Person,
    viewer: Person,
    attic: Machine,
    ids: Ids,
}

const PROGRAM: &[u8] = b"a program";

impl House {
    /// The number of its ring and of its release is the owner's, too.
    async fn of(world: &World, person: Person, seed: u8) -> Self {
        let owner = Owner::new(seed);
        person.put_ring(&owner, u64::from(seed)).await.is(201);
        let mut devices = Vec::new();
        for name in ["attic", "cellar"] {
            let mut device = person.device(world, name).await;
            device.owner = Some(Owner::new(seed));
            device.hello().await.is(200);
            device.report().await.is(200);
            devices.push(device);
        }
        let [mut attic, mut cellar] =
            <[Machine; 2]>::try_from(devices).unwrap_or_else(|_| panic!("there are two"));
        let store = person.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
        let app = uuid();
        let actions = json!({"actions": [{"name": "clean", "service": "web", "input": []}]});
        person.post("/v1/packages", &owner.package_with(&app, "photos", 1, &actions)).await.is(201);
        let add = json!({
            "app": app, "revision": 1, "device": attic.uuid(), "policy": "manual", "stores": [store["id"]], "start": true
        });
        let ordered = person.post("/v1/apps", &add).await.is(202);
        let done = play(&person, &id(&ordered), &mut [&mut attic, &mut cellar]).await;
        assert_eq!(done["state"], "done", "{done}");
        person.post("/v1/releases", &owner.release(u64::from(seed), PROGRAM)).await.is(201);
        let stream = uuid();
        attic.report().await.is(200);
        person.post(&format!("/v1/apps/{app}/logs"), &json!({"stream": stream, "lines": 1})).await.is(202);
        // Somebody who may look, and an invitation that is open.
        let invite = person.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        let accept = json!({"invite": invite["invite"], "name": "vera", "password": "a third password"});
        let vera = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
        let viewer = world.person(vera["token"].as_str().expect("has a token"));
        let text = |value: &Value| value.as_str().expect("has an id").to_owned();
        let invite = person.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        let token = person.post("/v1/tokens", &json!({"title": "t", "role": "viewer"})).await.is(200);
        let code = person.post("/v1/device-codes", &json!({})).await.is(200);
        let ids = Ids {
            device: attic.uuid(),
            other: cellar.uuid(),
            store: text(&store["id"]),
            operation: id(&ordered),
            person: text(&viewer.get("/v1/me").await["person"]),
            invite: text(&invite["id"]),
            token: text(&token["id"]),
            code: text(&code["id"]),
            app,
            stream,
        };
        Self { person, viewer, attic, ids }
    }
}

/// What a route takes; all in it but the path's id is the caller's own.
fn body(method: &str, path: &str, own: &Ids) -> Value {
    let name = format!("n{}", fresh());
    let moment = "comb-0123456789abcdef";
    match (method, path) {
        ("GET" | "DELETE", _) => Value::Null,
        ("PATCH", "/v1/people/{id}") => json!({"role": "viewer"}),
        ("PATCH", "/v1/devices/{id}") => json!({"name": name}),
        ("PATCH", "/v1/apps/{id}") => json!({"seal_every_s": 30}),
        ("POST", "/v1/devices/{id}/drain") => json!({"on": false}),
        ("POST", "/v1/devices/{id}/revoke") => json!({"stores_closed": false}),
        ("POST", "/v1/devices/{id}/doctor" | "/v1/devices/{id}/facts") => json!({"stream": uuid()}),
        ("POST", "/v1/devices/{id}/update") => json!({"release": 1}),
        ("POST", "/v1/apps/{id}/start" | "/v1/apps/{id}/stop" | "/v1/apps/{id}/restart") => json!({}),
        ("POST", "/v1/apps/{id}/snapshot" | "/v1/operations/{id}/cancel") => json!({}),
        ("POST", "/v1/apps/{id}/move") => json!({"to": own.other}),
        ("POST", "/v1/apps/{id}/update") => json!({"revision": 1}),
        ("POST", "/v1/apps/{id}/rollback") => json!({"to": moment}),
        ("POST", "/v1/apps/{id}/restore") => json!({"to": moment, "into": name}),
        ("POST", "/v1/apps/{id}/fork") => json!({"name": name}),
        ("POST", "/v1/apps/{id}/actions/{name}") => json!({"stream": uuid()}),
        ("POST", "/v1/apps/{id}/logs") => json!({"stream": uuid(), "lines": 1}),
        ("POST", "/v1/device/streams/{id}") => json!("sealed"),
        other => panic!("this test has no body for {other:?}"),
    }
}

/// Requests that name something of somebody in their body; all else in them is the caller's own.
fn bodies(own: &Ids, of: &Ids) -> Vec<(&'static str, String, Value)> {
    let add = |app: &str, device: &str, store: &str| json!({"app": app, "revision": 1, "device": device, "policy": "manual", "stores": [store], "start": false});
    let author = |device: &str, store: &str| {
        let compose = STANDARD.encode("services: {web: {image: nginx}}");
        json!({
            "device": device, "name": "notes", "compose": "compose.yaml",
            "files": [{"path": "compose.yaml", "mode": 0o644, "bytes": compose}],
            "install": {"policy": "manual", "stores": [store], "start": false}
        })
    };
    let app = format!("/v1/apps/{}", own.app);
    vec![
        ("POST", "/v1/apps".into(), add(&of.app, &own.device, &own.store)),
        ("POST", "/v1/apps".into(), add(&own.app, &of.device, &own.store)),
        ("POST", "/v1/apps".into(), add(&own.app, &own.device, &of.store)),
        ("POST", "/v1/apps/author".into(), author(&of.device, &own.store)),
        ("POST", "/v1/apps/author".into(), author(&own.device, &of.store)),
        ("POST", "/v1/stores".into(), json!({"url": "file:///srv/x", "device": of.device})),
        ("PATCH", app.clone(), json!({"standby": [of.other]})),
        ("POST", format!("{app}/move"), json!({"to": of.other})),
        ("POST", format!("{app}/fork"), json!({"name": "copy", "device": of.device})),
    ]
}

#[track_caller]
fn same(one: &Reply, other: &Reply, what: &str) {
    assert_eq!((one.status, &one.body), (other.status, &other.body), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_ids_are_nobodys() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let eve = another(&world, &ada).await;
        let mut ada = House::of(&world, ada, 1).await;
        let mut eve = House::of(&world, eve, 2).await;
        let never = Ids::never();
        let mut tried = 0;
        for (path, method, who) in table(&world).await {
            let (theirs, is_named) = ada.ids.path(&path);
            if !is_named {
                continue;
            }
            let (nobodys, _) = never.path(&path);
            let body = body(&method, &path, &eve.ids);
            let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
            let more = if method == "DELETE" && path == "/v1/apps/{id}" { "?keep_data=true" } else { "" };
            let (theirs, nobodys) = (format!("{theirs}{more}"), format!("{nobodys}{more}"));
            let what = format!("{method} {theirs}");
            // Nobody, and whoever looks.
            let key = [("idempotency-key", format!("k{}", fresh()))];
            let one = world.line().send(&method, &theirs, &key, &bytes).await;
            let other = world.line().send(&method, &nobodys, &key, &bytes).await;
            same(&one, &other, &what);
            assert_eq!(one.status, 401, "{what}");
            if who.ends_with("device") {
                let (one, other) = (
                    eve.attic.ask(&method, &theirs, &bytes).await,
                    eve.attic.ask(&method, &nobodys, &bytes).await,
                );
                same(&one, &other, &what);
                assert!(matches!(one.status, 404 | 409), "{what}: {}", one.status);
            }
            if who == "device" {
                continue;
            }
            for (person, may) in [(&eve.viewer, who.starts_with("viewer")), (&eve.person, true)] {
                let one = person.ask(&method, &theirs, &body, &[]).await;
                let other = person.ask(&method, &nobodys, &body, &[]).await;
                same(&one, &other, &what);
                assert_eq!(one.status, if may { 404 } else { 403 }, "{what}");
            }
            tried += 1;
        }
        assert!(tried >= 32, "{tried}");
        for (at, (method, path, named)) in bodies(&eve.ids, &ada.ids).into_iter().enumerate() {
            let (_, _, nobodys) = bodies(&eve.ids, &never).swap_remove(at);
            let one = eve.person.ask(method, &path, &named, &[]).await;
            let other = eve.person.ask(method, &path, &nobodys, &[]).await;
            same(&one, &other, &format!("{method} {path} {named}"));
            assert_eq!(one.status, 404, "{method} {path} {named}");
        }
        // A stream of that id is another account's: one's own may have the same, and ends without the other.
        eve.attic.report().await.is(200);
        let logs = json!({"stream": ada.ids.stream, "lines": 1});
        let begun = eve.person.post(&format!("/v1/apps/{}/logs", eve.ids.app), &logs).await.is(202);
        eve.person.post(&format!("/v1/operations/{}/cancel", id(&begun)), &json!({})).await.is(200);
        let part =
            ada.attic.ask("POST", &format!("/v1/device/streams/{}?part=0", ada.ids.stream), b"sealed").await;
        part.is(204);
        let mut followed = ada.person.follow(&format!("/v1/streams/{}", ada.ids.stream), None).await;
        assert_eq!(followed.next().await.0, "part");
        // Numbers are each account's own.
        eve.person.ask("GET", "/v1/ring/1", &Value::Null, &[]).await.fails(404, "not_found");
        ada.person.ask("GET", "/v1/ring/1", &Value::Null, &[]).await.is(200);
        for (of, status) in [(&eve.person, 404), (&ada.person, 200)] {
            let headers = [("authorization", format!("Bearer {}", of.token))];
            world.line().send("PUT", "/v1/releases/1/x86_64", &headers, PROGRAM).await.is(status);
        }
        eve.attic.ask("GET", "/v1/device/releases/1/x86_64", b"").await.fails(404, "not_found");
        ada.attic.ask("GET", "/v1/device/releases/1/x86_64", b"").await.is(200);

        // Nothing of it happened.
        let shown = ada.person.get(&format!("/v1/apps/{}", ada.ids.app)).await;
        assert_eq!((&shown["name"], &shown["device"]), (&json!("photos"), &json!(ada.ids.device)));
        let seen: Vec<Value> =
            eve.person.get("/v1/events").await["items"].as_array().cloned().unwrap_or_default();
        let own = |event: &Value| event["app"].is_null() || event["app"] == eve.ids.app.as_str();
        assert!(seen.iter().all(own), "{seen:?}");

        // Whose it is finds each of them: what is asked for was there all the while.
        for at in 0..bodies(&ada.ids, &ada.ids).len() {
            ada.attic.report().await.is(200);
            let (method, path, named) = bodies(&ada.ids, &ada.ids).swap_remove(at);
            let reply = ada.person.ask(method, &path, &named, &[]).await;
            assert_ne!(reply.status, 404, "{method} {path} {named}");
        }
        let mut all = table(&world).await;
        // What ends things comes last, and what others are found by at the very end.
        all.sort_by_key(|(path, method, _)| {
            (
                method == "DELETE" || path.ends_with("/revoke"),
                path == "/v1/apps/{id}",
                path.starts_with("/v1/devices"),
            )
        });
        for (path, method, who) in all {
            let (theirs, is_named) = ada.ids.path(&path);
            if !is_named || who == "device" || path == "/v1/streams/{id}" {
                continue;
            }
            let more = if method == "DELETE" && path == "/v1/apps/{id}" { "?keep_data=true" } else { "" };
            let body = body(&method, &path, &ada.ids);
            let reply = ada.person.ask(&method, &format!("{theirs}{more}"), &body, &[]).await;
            assert_ne!(reply.status, 404, "{method} {theirs}: {}", reply.json());
        }
        let mut world = world;
        world.end().await;
    }
}
