//! What another account has is as what nobody ever had, on every route: in its path, its query and its body, for everybody
//! who may ask. And it is there for whoever has it, so that the test is one.

use std::collections::BTreeSet;
use std::path::Path;

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

/// A request that names something of somebody in its body, in this field of the wire's types.
type Named = (&'static str, &'static str, String, Value);

/// Requests that name something of somebody in their body; all else in them is the caller's own.
fn bodies(own: &Ids, of: &Ids) -> Vec<Named> {
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
        ("MakeApp.app", "POST", "/v1/apps".into(), add(&of.app, &own.device, &own.store)),
        ("MakeApp.device", "POST", "/v1/apps".into(), add(&own.app, &of.device, &own.store)),
        ("MakeApp.stores", "POST", "/v1/apps".into(), add(&own.app, &own.device, &of.store)),
        ("AuthorApp.device", "POST", "/v1/apps/author".into(), author(&of.device, &own.store)),
        ("Install.stores", "POST", "/v1/apps/author".into(), author(&own.device, &of.store)),
        (
            "MakeStore.device",
            "POST",
            "/v1/stores".into(),
            json!({"url": "file:///srv/x", "device": of.device}),
        ),
        ("ChangeApp.standby", "PATCH", app.clone(), json!({"standby": [of.other]})),
        ("ChangeApp.stores", "PATCH", app.clone(), json!({"stores": [own.store, of.store]})),
        ("Move.to", "POST", format!("{app}/move"), json!({"to": of.other})),
        ("Fork.device", "POST", format!("{app}/fork"), json!({"name": "copy", "device": of.device})),
    ]
}

/// Ids in bodies that are answered with something else than 404, and so are tried one by one below.
const TRIED_APART: [&str; 7] = [
    "Recovered.accept_missing",
    "Package.authorization",
    "Logs.stream",
    "HelloApp.app",
    "AppReport.app",
    "AppTerm.app",
    "StoreReport.store",
];

/// Fields that look like ids of what an account has, and are none; with the reason.
const NO_IDS: &[(&str, &[&str])] = &[
    (
        "made by who asks, by the code that is tried with the one of logs",
        &["RunAction.stream", "ToStream.stream"],
    ),
    (
        "of a volume, by its key: looked for among those of the app alone, and in this test both accounts have the same",
        &[
            "Branch.volume",
            "Cut.volume",
            "Fork.branches",
            "HeadAt.volume",
            "Late.volume",
            "MomentName",
            "MomentVolume.volume",
            "NamedVolume.volume",
            "Seen.volume",
            "VolumeReport.volume",
            "WriterAt.volume",
        ],
    ),
    (
        "of what a store has, which the hive hands on",
        &[
            "Cut.manifest",
            "Cut.parent",
            "HeadAt.manifest",
            "MomentVolume.uuid",
            "Seen.writer",
            "VolumeReport.manifest",
            "VolumeReport.writer",
            "WriterAt.writer",
        ],
    ),
    ("who the device itself is", &["Hello.proof", "Hello.run", "Join.identity"]),
    ("bytes without ids that the hive reads", &["FolderFile.bytes", "Package.body", "Snapshot.message"]),
    ("signed by the account's owner, and by nobody else", &["Package.signature"]),
    ("of an order with the name of a request, which the hive makes", &["Fork.seed"]),
    ("names nothing but programs", &["MakeRelease.release", "MakeRelease.signature"]),
];

/// The files of a folder and of those in it.
fn sources(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("is a folder") {
        let path = entry.expect("is there").path();
        match path.is_dir() {
            true => all.extend(sources(&path)),
            false => all.push(std::fs::read_to_string(&path).expect("is text")),
        }
    }
    all
}

/// The words of a text that name types.
fn types(text: &str) -> impl Iterator<Item = &str> {
    text.split(|one: char| !one.is_alphanumeric() && one != '_')
        .filter(|word| word.starts_with(char::is_uppercase))
}

/// The types that the hive reads from bodies, by its sources.
fn read_types(sources: &[String]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in sources.iter().flat_map(|text| text.lines()) {
        let Some((before, behind)) = line.split_once("call.read") else { continue };
        let told = match behind.strip_prefix("::<").and_then(|behind| behind.split_once(">()")) {
            Some((told, _)) => told,
            None if behind.starts_with("()") => before.split(" = ").next().expect("has a part"),
            None => panic!("what is read here is not told: {line}"),
        };
        all.insert(types(told).last().unwrap_or_else(|| panic!("no type is told: {line}")).to_owned());
    }
    all
}

/// The fields of these types, and of the types of these, that can hold an id.
fn fields_with_ids(roots: &BTreeSet<String>, wire: &[String]) -> BTreeSet<String> {
    const IDS: [&str; 8] =
        ["AppId", "Base64", "DeviceId", "Hex", "OperationId", "RunId", "SessionId", "Uuid"];
    let mut all = BTreeSet::new();
    let (mut open, mut seen) = (roots.clone(), BTreeSet::new());
    while let Some(name) = open.pop_first() {
        let bodies = wire.iter().flat_map(|text| {
            ["struct", "enum"].into_iter().filter_map(|kind| {
                let (_, body) = text.split_once(&format!("pub {kind} {name} {{"))?;
                let is_empty = body.starts_with('}');
                body.split("\n}").next().map(|body| if is_empty { "" } else { body })
            })
        });
        let bodies: Vec<&str> = bodies.collect();
        assert!(!bodies.is_empty() || !roots.contains(&name), "{name} is read, and is no type of the wire");
        seen.insert(name.clone());
        let lines = bodies.into_iter().flat_map(str::lines).map(str::trim);
        for line in lines.filter(|line| !line.starts_with(['/', '#'])) {
            let field = line.strip_prefix("pub ").and_then(|line| line.split_once(": "));
            // What a variant holds; its own name is no type.
            let held = line.split_once(['(', ':']).map_or("", |(_, held)| held);
            let (place, told) = match field {
                Some((field, told)) => (format!("{name}.{field}"), told),
                None => (name.clone(), held),
            };
            if types(told).any(|word| IDS.contains(&word)) {
                all.insert(place);
            }
            open.extend(types(told).filter(|word| !seen.contains(*word)).map(str::to_owned));
        }
    }
    all
}

/// A field is added, or a route that reads another body: it is tried here, or said why it names nothing of an account.
#[test]
fn every_id_in_a_body_is_tried() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (hive, wire) = (sources(&here.join("src/server")), sources(&here.join("../api/src/wire")));
    let roots = read_types(&hive);
    assert!(roots.len() > 30, "{roots:?}");
    let never = Ids::never();
    let tried = bodies(&never, &never).into_iter().map(|(field, ..)| field);
    let known = tried.chain(TRIED_APART).chain(NO_IDS.iter().flat_map(|(_, fields)| fields.iter().copied()));
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    let found = fields_with_ids(&roots, &wire);
    let not_tried: Vec<_> = found.difference(&known).collect();
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        not_tried.is_empty() && gone.is_empty(),
        "not tried: {not_tried:?}; not there any more: {gone:?}"
    );
    // And the parts of queries.
    let names = hive.iter().flat_map(|text| text.split("query_as").skip(1)).filter_map(|behind| {
        let (_, name) = behind.split_once("(\"").filter(|(before, _)| before.len() < 20)?;
        name.split('"').next()
    });
    let told: BTreeSet<&str> = names.collect();
    // Of `PUT /v1/ring/{number}`: a key and its signature, which are the account's or are refused.
    let others = ["owner", "signature"];
    let tried = queries(&never).into_iter().map(|(part, ..)| part);
    assert_eq!(told, tried.chain(others).collect());
}

/// Requests that name something of somebody in their query: the part, and what is asked for.
fn queries(of: &Ids) -> Vec<(&'static str, String)> {
    vec![
        ("app", format!("/v1/operations?app={}", of.app)),
        ("device", format!("/v1/operations?device={}", of.device)),
        ("app", format!("/v1/events?app={}", of.app)),
        ("device", format!("/v1/events?device={}", of.device)),
        ("after", format!("/v1/apps?after={}", of.app)),
        ("after", format!("/v1/devices?after={}", of.device)),
    ]
}

#[track_caller]
fn same(one: &Reply, other: &Reply, what: &str) {
    assert_eq!((one.status, &one.body), (other.status, &other.body), "{what}");
}

/// A device says that it has another account's app, wants leases for it, and uses its store.
async fn what_a_device_says(device: &mut Machine, theirs: &Ids, never: &Ids) {
    let mut answers = Vec::new();
    for of in [theirs, never] {
        let app = json!({
            "app": of.app, "term": 9, "mine": true, "leased": true, "stopped": false, "generation": 9, "revision": 9
        });
        let mut welcome = device.hello_with(&json!({"apps": [app]})).await.is(200);
        welcome["session"] = Value::Null;
        assert_eq!((&welcome["recovering"], &welcome["packages"]), (&json!(false), &json!([])), "{welcome}");
        device.report().await.is(200);
        let (apps, renew) = (device.apps.clone(), device.renew.clone());
        device.has(&of.app, &json!(9), "running", None, Some((9, 9)));
        device.stores = vec![json!({"store": of.store, "state": "ok"})];
        let reply = device.report().await;
        (device.apps, device.renew, device.stores) = (apps, renew, Vec::new());
        let told = reply.is(200);
        assert_eq!(told["forgotten"], json!([of.app]));
        let named = |list: &Value| list.to_string().contains(&of.app);
        assert!(!named(&told["granted"]) && !named(&told["over"]), "{told}");
        answers.push((welcome, told.to_string().replace(&of.app, "")));
        device.report().await.is(200);
    }
    assert_eq!(answers[0], answers[1]);
}

/// An id of an app is made by who adds it: one that another account has is another app.
async fn an_app_of_the_same_id(eve: &House, theirs: &Ids, never: &Ids) {
    let mut answers = Vec::new();
    for (of, name) in [(theirs, "same"), (never, "none")] {
        let package = Owner::new(2).package(&of.app, name, 1);
        let posted = eve.person.post("/v1/packages", &package).await.is(201);
        let add = json!({
            "app": of.app, "revision": 1, "device": eve.ids.device, "policy": "manual", "stores": [eve.ids.store], "start": false
        });
        let added = eve.person.post("/v1/apps", &add).await.is(202);
        let shown = eve.person.get(&format!("/v1/apps/{}", of.app)).await;
        assert_eq!((&shown["name"], &shown["term"]), (&json!(name), &json!(0)));
        assert_eq!(shown["device"], eve.ids.device.as_str());
        let answer = [&posted["revision"], &added["operation"]["kind"], &added["operation"]["state"]];
        answers.push(answer.map(Value::clone));
    }
    assert_eq!(answers[0], answers[1]);
}

/// A recovery is ended by naming the devices that are missing, which are the account's own.
async fn devices_that_are_missing(eve: &mut House, theirs: &Ids, never: &Ids) {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("is later").as_millis();
    eve.attic.incarnation = u64::try_from(now).expect("is a number") + 1_000;
    assert_eq!(eve.attic.hello().await.is(200)["recovering"], true);
    let path = "/v1/hive/recovered";
    let ask = |ids: Value| {
        let person = &eve.person;
        async move { person.ask("POST", path, &json!({ "accept_missing": ids }), &[]).await }
    };
    let (one, other) = (ask(json!([theirs.other])).await, ask(json!([never.other])).await);
    same(&one, &other, path);
    let missing = &one.fails(400, "bad_request")["error"]["details"]["missing"];
    assert_eq!(*missing, json!([eve.ids.other]));
    ask(json!([eve.ids.other])).await.is(204);
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
        for (at, (_, method, path, named)) in bodies(&eve.ids, &ada.ids).into_iter().enumerate() {
            let (_, _, _, nobodys) = bodies(&eve.ids, &never).swap_remove(at);
            let one = eve.person.ask(method, &path, &named, &[]).await;
            let other = eve.person.ask(method, &path, &nobodys, &[]).await;
            same(&one, &other, &format!("{method} {path} {named}"));
            assert_eq!(one.status, 404, "{method} {path} {named}");
        }
        for ((_, theirs), (_, nobodys)) in queries(&ada.ids).into_iter().zip(queries(&never)) {
            for person in [&eve.viewer, &eve.person] {
                let one = person.ask("GET", &theirs, &Value::Null, &[]).await;
                let other = person.ask("GET", &nobodys, &Value::Null, &[]).await;
                same(&one, &other, &theirs);
                match one.status {
                    200 => assert_eq!(one.json()["items"], json!([]), "{theirs}"),
                    status => assert_eq!(status, 404, "{theirs}"),
                }
            }
            let own = ada.person.get(&theirs).await;
            assert_eq!(own["items"] == json!([]), theirs.starts_with("/v1/apps"), "{theirs}: {own}");
        }
        what_a_device_says(&mut eve.attic, &ada.ids, &never).await;
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
        an_app_of_the_same_id(&eve, &ada.ids, &never).await;
        devices_that_are_missing(&mut eve, &ada.ids, &never).await;
        let after = ada.person.get(&format!("/v1/apps/{}", ada.ids.app)).await;
        assert_eq!(
            (&after["name"], &after["generation"], &after["term"], &after["report"]["phase"]),
            (&shown["name"], &shown["generation"], &shown["term"], &shown["report"]["phase"])
        );
        assert_eq!(ada.person.get("/v1/hive").await["recovering"], false);

        // Whose it is finds each of them: what is asked for was there all the while.
        for at in 0..bodies(&ada.ids, &ada.ids).len() {
            ada.attic.report().await.is(200);
            let (_, method, path, named) = bodies(&ada.ids, &ada.ids).swap_remove(at);
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
