//! Accounts are apart, and who has nothing but a device code counts for nothing: what such a device says, signs or sends.

use std::time::{SystemTime, UNIX_EPOCH};

use orchestrator_api::code::JoinCode;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::world::{Machine, Owner, Person, Reply, World, databases, hex, uuid};

const MOST: u64 = (1 << 53) - 1;

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("is later").as_millis())
        .expect("is a number")
}

/// The owner of another account.
pub async fn another(world: &World, ada: &Person) -> Person {
    let wish = json!({"role": "owner", "new_account": true});
    let invite = ada.post("/v1/people/invites", &wish).await.is(200);
    let accept = json!({"invite": invite["invite"], "name": "eve", "password": "another password", "account": "other"});
    let made = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
    world.person(made["token"].as_str().expect("has a token"))
}

/// A device that joined, with this ring or none, and said nothing yet.
async fn joined(world: &World, of: &Person, name: &str, owner: Option<Owner>) -> Machine {
    let made = of.post("/v1/device-codes", &json!({"name": name})).await.is(200);
    let code = JoinCode::parse(made["code"].as_str().expect("has a code")).expect("is a code");
    let mut machine = Machine::new(world);
    machine.join(&code, name).await.is(201);
    machine.owner = owner;
    machine
}

fn said(app: &str, term: u64) -> Value {
    json!({
        "app": app, "term": term, "mine": true, "leased": false, "stopped": false, "generation": term, "revision": 1
    })
}

async fn recovering(of: &Person) -> bool {
    of.get("/v1/hive").await["recovering"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_of_one_account_say_begins_no_recovery_of_another() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let eve = another(&scene.world, &scene.ada).await;
        let begun = scene.order("snapshot", json!({})).await.is(202);
        // A device with nothing but a code: what no hive can have given is refused, all else counts for nothing.
        let mut thief = joined(&scene.world, &eve, "thief", None).await;
        thief.incarnation = MOST;
        let refused = thief.hello().await.fails(400, "bad_request");
        assert!(refused["error"]["hint"].is_string(), "{refused}");
        thief.incarnation = now_ms() + 1_000;
        assert_eq!(thief.hello().await.is(200)["locked"], true);
        assert!(!recovering(&eve).await && !recovering(&scene.ada).await);
        // One with the ring of its account is believed, of its account.
        let owner = Owner { key: Owner::new(2).key, account: [2; 16] };
        eve.ring(&owner).await;
        thief.owner = Some(owner);
        let welcome = thief.hello().await.is(200);
        assert_eq!((&welcome["locked"], &welcome["recovering"]), (&json!(false), &json!(true)));
        assert!(recovering(&eve).await && !recovering(&scene.ada).await);
        // The other one's sessions, orders and commands are as they were.
        scene.attic.report().await.is(200);
        let command = scene.attic.expect("snapshot").await;
        scene.attic.answer(&command, "done", None, json!({})).await.is(204);
        let id = begun["operation"]["id"].as_str().expect("has an id");
        assert_eq!(scene.ada.wait(id, 10).await["state"], "done");
        let kinds = |events: &Value| -> Vec<String> {
            let all = events["items"].as_array().expect("a list").iter();
            all.map(|event| event["kind"].as_str().expect("has a kind").to_owned()).collect()
        };
        assert!(kinds(&eve.get("/v1/events").await).contains(&"recovering".to_owned()));
        assert!(!kinds(&scene.ada.get("/v1/events").await).contains(&"recovering".to_owned()));
        // Nobody else ends it, and its own owner may; the waiting for leases goes on.
        let missing = json!({"accept_missing": []});
        scene.ada.post("/v1/hive/recovered", &missing).await.fails(409, "state");
        eve.post("/v1/hive/recovered", &missing).await.is(204);
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_the_ring_takes_no_app() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let mut thief = joined(&scene.world, &scene.ada, "thief", None).await;
        thief.hello_apps = vec![said(&scene.app, MOST)];
        thief.hello().await.fails(400, "bad_request");
        // It says that it has the ring, and shows another one.
        for owner in [None, Some(Owner { account: [1; 16], ..Owner::new(9) })] {
            thief.owner = owner;
            thief.hello_apps = vec![said(&scene.app, now_ms())];
            assert_eq!(thief.hello().await.is(200)["locked"], true);
            thief.report().await.is(200);
            let shown = scene.ada.get(&format!("/v1/devices/{}", thief.uuid())).await;
            assert_eq!(shown["locked"], true, "{shown}");
        }
        let shown = scene.shown().await;
        assert_eq!((&shown["device"], &shown["term"]), (&json!(scene.attic.uuid()), &scene.term));
        assert!(!recovering(&scene.ada).await);
        // A proof is one device's: that of another says nothing.
        let stolen = scene.attic.id;
        let proof = Owner::new(1).proof(&scene.world.key, &stolen);
        assert_eq!(thief.hello_with(&json!({"proof": proof})).await.is(200)["locked"], true);
        scene.order("move", json!({"to": thief.uuid()})).await.fails(422, "device_locked");
        scene.attic.report().await.is(200);
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovering_hive_gives_no_app_to_whom_its_package_does_not_name() {
    let world = World::new().await;
    let (ada, owner) = (world.set_up().await, Owner::new(1));
    ada.ring(&owner).await;
    let mut attic = ada.device(&world, "attic").await;
    let mut shed = ada.device(&world, "shed").await;
    let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
    let app = uuid();
    let package = owner.package_with(&app, "photos", 1, &json!({"devices": [attic.uuid()]}));
    ada.post("/v1/packages", &package).await.is(201);
    let add = json!({
        "app": app, "revision": 1, "device": attic.uuid(), "policy": "manual", "stores": [store["id"]], "start": false
    });
    ada.post("/v1/apps", &add).await.is(202);
    attic.hello_apps = vec![said(&app, 5)];
    attic.hello().await.is(200);
    assert!(recovering(&ada).await);
    let shown = ada.get(&format!("/v1/apps/{app}")).await;
    assert_eq!((&shown["device"], &shown["term"]), (&json!(attic.uuid()), &json!(5)));
    shed.hello_apps = vec![said(&app, 9)];
    shed.hello().await.is(200);
    let shown = ada.get(&format!("/v1/apps/{app}")).await;
    assert_eq!(
        (&shown["device"], &shown["term"]),
        (&Value::Null, &json!(9)),
        "the term is over, and nobody's"
    );
}

async fn put(machine: &mut Machine, path: &str, ring: &[u8]) -> Reply {
    machine.ask("PUT", path, ring).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_ring_open_sends_a_version_of_it() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let (ada, owner) = (world.set_up().await, Owner::new(1));
        ada.ring(&owner).await;
        let mut thief = joined(&world, &ada, "thief", None).await;
        thief.hello().await.is(200);
        let (mut second, foreign) = (owner.ring(2), Owner { account: [1; 16], ..Owner::new(9) });
        put(&mut thief, "/v1/ring/2", &second).await.fails(400, "bad_request");
        for number in [2, MOST] {
            let ring = owner.ring(number);
            let path = foreign.ring_path(number, &ring);
            put(&mut thief, &path, &ring).await.fails(422, "policy_refused");
            // A person's token alone is not enough either: whoever took it has no ring.
            ada.put_ring(&foreign, number).await.fails(422, "policy_refused");
        }
        // What was signed is one version: neither other bytes nor another number.
        let path = owner.ring_path(2, &second);
        second[200] ^= 1;
        let end = second.len() - 32;
        let hash = *blake3::hash(&second[..end]).as_bytes();
        second[end..].copy_from_slice(&hash);
        let refused = put(&mut thief, &path, &second).await;
        assert!(matches!(refused.status, 400 | 422), "{}", refused.status);
        // No room is left by one that is far ahead, whoever signs it; the next few are.
        ada.put_ring(&owner, MOST).await.fails(400, "bad_request");
        ada.put_ring(&owner, 4).await.is(201);
        ada.put_ring(&owner, 4).await.is(200);
        let moved = ada.put_ring(&owner, 3).await.fails(409, "ring_moved");
        assert_eq!(moved["error"]["details"]["number"], 4);
        // A device that has the ring sends it as well.
        let mut attic = ada.device(&world, "attic").await;
        let fifth = owner.ring(5);
        put(&mut attic, &owner.ring_path(5, &fifth), &fifth).await.is(201);
        assert_eq!(ada.get("/v1/ring").await["items"][0]["number"], 5);
    }
}

/// The first ring is made by a device that has just joined; one that a thief made goes with the thief.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_device_makes_the_ring() {
    let world = World::new().await;
    let (ada, owner) = (world.set_up().await, Owner::new(1));
    let mut thief = joined(&world, &ada, "thief", None).await;
    thief.hello().await.is(200);
    let other = Owner { account: [1; 16], ..Owner::new(9) };
    let ring = other.ring(1);
    let path =
        owner.ring_path(1, &ring).replace(&hex(&owner.key.verifying_key().to_bytes()), &"0".repeat(64));
    put(&mut thief, &path, &ring).await.fails(422, "policy_refused");
    put(&mut thief, &other.ring_path(1, &ring), &ring).await.is(201);
    ada.put_ring(&owner, 1).await.fails(422, "policy_refused");
    ada.post(&format!("/v1/devices/{}/revoke", thief.uuid()), &json!({"stores_closed": false})).await.is(202);
    assert_eq!(ada.get("/v1/ring").await["items"], json!([]));

    // As `comb device join` does it: joined, said hello without a ring, made it, said hello with it.
    let mut attic = joined(&world, &ada, "attic", None).await;
    assert_eq!(attic.hello().await.is(200)["locked"], true);
    let ring = owner.ring(1);
    put(&mut attic, &owner.ring_path(1, &ring), &ring).await.is(201);
    attic.owner = Some(Owner::new(1));
    assert_eq!(attic.hello().await.is(200)["locked"], false);
    // Once a device has shown it, no revocation takes it away.
    let cellar = joined(&world, &ada, "cellar", None).await;
    ada.post(&format!("/v1/devices/{}/revoke", cellar.uuid()), &json!({"stores_closed": false}))
        .await
        .is(202);
    assert_eq!(ada.get("/v1/ring").await["items"][0]["number"], 1);
}
