//! Watching: that something changed is told at once, that something was missed is told later, and of others nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pages::Browser;
use crate::scene::Scene;
use crate::world::{Events, Person, World, databases};

/// The owner of another account.
async fn stranger(world: &World, ada: &Person) -> Person {
    let invite = json!({"role": "owner", "new_account": true});
    let invite = ada.post("/v1/people/invites", &invite).await.is(200);
    let accept = json!({"invite": invite["invite"], "name": "eve", "password": "another password", "account": "other"});
    let eve = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
    world.person(eve["token"].as_str().expect("has a token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_hears_what_changed_and_that_something_was_missed() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let eve = stranger(&scene.world, &scene.ada).await;
        let mut watch = scene.ada.follow("/v1/watch", None).await;
        let (kind, begun, _) = watch.next().await;
        assert_eq!(kind, "begun");
        let mut hers = eve.follow("/v1/watch", None).await;
        assert_eq!(hers.next().await, ("begun".to_owned(), "1".to_owned(), "{}".to_owned()));
        scene.order("snapshot", json!({})).await.is(202);
        let (first, operation) = watch.changed("operation").await;
        assert!(first.parse::<u64>().expect("a number") > begun.parse::<u64>().expect("a number"));
        assert_eq!(scene.ada.get(&format!("/v1/operations/{operation}")).await["kind"], "snapshot");
        // A report in which nothing changed is nothing new; one in which a phase did is.
        scene.attic.report().await.is(200);
        scene.attic.has(&scene.app, &scene.term, "stopped", Some("fenced"), Some((1, 6)));
        scene.attic.report().await.is(200);
        let (_, app) = watch.changed("app").await;
        assert_eq!(app, scene.app);

        // Who comes back may have missed something.
        for last in [&begun, &first, "99999999"] {
            let mut again = scene.ada.follow("/v1/watch", Some(last)).await;
            assert_eq!(again.next().await.0, "all");
        }
        // Eve hears of her own only, and nothing is left out of her numbers: all that others did leaves no trace.
        eve.post("/v1/stores", &json!({"url": "s3://hers/p"})).await.is(200);
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let (kind, number, data) = hers.next().await;
            assert_eq!(kind, "changed", "{data}");
            numbers.push((number, serde_json::from_str::<Value>(&data).expect("is JSON")));
        }
        let stores = eve.get("/v1/stores").await;
        assert!(numbers.iter().any(|(_, data)| data["id"] == stores["items"][0]["id"]), "{numbers:?}");
        assert_eq!(numbers.iter().map(|(number, _)| number.as_str()).collect::<Vec<_>>(), ["2", "3"]);
        scene.world.end().await;
    }
}

/// Numbers are given before they are committed, so on PostgreSQL an earlier one may come later.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_after_a_later_change_is_heard_too() {
    for (database, folder) in databases().await {
        if !database.starts_with("postgres") {
            continue;
        }
        let mut scene = Scene::on(&database, folder, "manual").await;
        let mut watch = scene.ada.follow("/v1/watch", None).await;
        assert_eq!(watch.next().await.0, "begun");
        let (client, connection) =
            tokio_postgres::connect(&database, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
        tokio::spawn(connection);
        let late = "BEGIN; INSERT INTO change (account, kind, id) SELECT account, 'app', 'late' FROM account";
        client.batch_execute(late).await.expect("it has its number");
        scene.ada.post("/v1/stores", &json!({"url": "s3://later/p"})).await.is(200);
        watch.changed("store").await;
        client.batch_execute("COMMIT").await.expect("it is committed");
        assert_eq!(watch.changed("app").await.1, "late");
        // Once each: what is looked at twice is told once.
        let latest = scene.ada.post("/v1/stores", &json!({"url": "s3://latest/p"})).await.is(200);
        assert_eq!(Value::from(watch.changed("store").await.1), latest["id"]);
        scene.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_logged_out_or_removed_watches_no_more() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let invite = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
    let accept = json!({"invite": invite["invite"], "name": "bob", "password": "another password"});
    let bob = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
    let bob = world.person(bob["token"].as_str().expect("has a token"));
    let other =
        world.nobody("POST", "/v1/login", &json!({"name": "bob", "password": "another password"})).await;
    let other = world.person(other.is(200)["token"].as_str().expect("has a token"));
    let mut browser = Browser::log_in(&world, "bob", "another password").await;
    let cookie = format!("comb_session={}", browser.cookies["comb_session"]);

    let (mut one, mut two) = (bob.follow("/v1/watch", None).await, other.follow("/v1/watch", None).await);
    let mut page = Events::follow(world.address, "/live", &[("cookie", cookie)]).await;
    for watch in [&mut one, &mut two, &mut page] {
        assert_eq!(watch.next().await.0, "begun");
    }
    let within = Duration::from_secs(15);
    assert_eq!(browser.fill("/", "/logout", &[]).await.status, 303);
    page.ends(within).await;
    bob.ask("DELETE", "/v1/login", &Value::Null, &[]).await.is(204);
    one.ends(within).await;
    // The other one goes on, and is told of it.
    ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
    two.changed("store").await;
    let person = other.get("/v1/me").await["person"].as_str().expect("has an id").to_owned();
    ada.ask("DELETE", &format!("/v1/people/{person}"), &Value::Null, &[]).await.is(204);
    two.ends(within).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_does_not_take_all_places() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let eve = stranger(&world, &ada).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(eve.follow("/v1/watch", None).await);
    }
    eve.ask("GET", "/v1/watch", &Value::Null, &[]).await.fails(429, "slow_down");
    let mut watch = ada.follow("/v1/watch", None).await;
    assert_eq!(watch.next().await.0, "begun");
    // A place is free as soon as its watcher is gone.
    drop(open.pop());
    let begun = Instant::now();
    loop {
        let reply =
            tokio::time::timeout(Duration::from_secs(1), eve.ask("GET", "/v1/watch", &Value::Null, &[]))
                .await;
        match reply {
            Err(_) => break,
            Ok(reply) => assert_eq!(reply.status, 429),
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "it is not free");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_ended_reads_no_further_in_a_stream() {
    let (database, folder) = databases().await.remove(0);
    let scene = Scene::on(&database, folder, "manual").await;
    let made = scene.ada.post("/v1/tokens", &json!({"title": "t", "role": "operator"})).await.is(200);
    let ben = scene.world.person(made["token"].as_str().expect("has a token"));
    let stream = crate::world::uuid();
    let wish = json!({"lines": 10, "follow": true, "stream": stream});
    ben.post(&format!("/v1/apps/{}/logs", scene.app), &wish).await.is(202);
    let mut parts = ben.follow(&format!("/v1/streams/{stream}"), None).await;
    let path = format!("/v1/tokens/{}", made["id"].as_str().expect("has an id"));
    scene.ada.ask("DELETE", &path, &Value::Null, &[]).await.is(204);
    let (kind, _, code) = parts.next().await;
    assert_eq!((kind.as_str(), code.as_str()), ("end", "not_logged_in"));
}
