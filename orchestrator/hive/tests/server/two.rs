//! Two processes on one PostgreSQL: one counts time, both serve, and the other one takes over when it is killed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orchestrator_hive::Options;
use serde_json::json;

use crate::audit::chain;
use crate::scene::{Scene, id};
use crate::world::{Line, Process, VOLUME, World, databases};

/// The connection that has the scheduler's lock of a database.
async fn leader(database: &str) -> Option<i32> {
    let (client, connection) =
        tokio_postgres::connect(database, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    let sql = "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' \
         AND l.granted AND l.classid = 0 AND l.objid = 1131375970 AND d.datname = current_database()";
    let rows = client.query(sql, &[]).await.expect("it says who has locks");
    assert!(rows.len() <= 1, "one at a time");
    rows.first().map(|row| row.get(0))
}

async fn leads(database: &str, without: Option<i32>) -> i32 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match leader(database).await {
            Some(pid) if Some(pid) != without => return pid,
            _ => assert!(Instant::now() < until, "nobody leads"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_serve_and_one_of_them_counts_time() {
    // Only PostgreSQL can be shared.
    let Some((database, folder)) = databases().await.into_iter().nth(1) else { return };
    assert_eq!(1_131_375_970, 0x436f_6d62);
    let mut first = Process::begin(&database);
    let before = leads(&database, None).await;
    let options = Options::new(database.as_str(), "127.0.0.1:0".parse().expect("is an address"));
    let second = World::with(options.clone(), folder.clone()).await;
    assert_eq!((second.setup_code.clone(), second.key), (None, first.key), "one hive, set up once");
    let elsewhere = first.world(options, folder);
    let ada = elsewhere.set_up().await;
    // The scene speaks with the second; then the attic goes to the first.
    let mut scene = Scene::joined(second, &ada.token, "auto").await;
    scene.attic.line = Line::new(first.address);
    let there = elsewhere.person(&ada.token);

    // Orders and reports at both at once: events are one chain.
    let mut running = tokio::task::JoinSet::new();
    for number in 0..24 {
        let person = if number % 2 == 0 { scene.ada.clone() } else { there.clone() };
        running.spawn(async move {
            person.post("/v1/stores", &json!({"url": format!("s3://b/{number}")})).await.is(200);
        });
    }
    for _ in 0..6 {
        scene.attic.obey().await;
        scene.cellar.obey().await;
    }
    while let Some(done) = running.join_next().await {
        done.expect("each is taken");
    }
    assert!(chain(&scene.ada).await.len() >= 24);
    let stores = scene.ada.get("/v1/stores").await["items"].as_array().map(Vec::len);
    assert_eq!(stores, Some(25));

    // Ordered at the second, heard by a device that waits at the first, watched at both.
    let mut watch = there.follow("/v1/watch", None).await;
    assert_eq!(watch.next().await.0, "begun");
    let begun = scene.order("snapshot", json!({})).await.is(202);
    let heard = Instant::now();
    let command = scene.attic.commands().await;
    assert_eq!(command[0]["do"], "snapshot");
    assert!(heard.elapsed() < Duration::from_secs(5), "{:?}", heard.elapsed());
    assert_eq!(watch.changed("operation").await.1, id(&begun));
    scene.attic.answer(&command[0], "done", None, json!({})).await.is(204);
    assert_eq!(scene.ada.wait(&id(&begun), 10).await["state"], "done");

    // The cellar stands by. The attic is silent, and then who counts is killed: the other one counts anew.
    let until = Instant::now() + Duration::from_secs(30);
    while !scene.cellar.apps.iter().any(|app| app["phase"] == "standing_by") {
        assert!(Instant::now() < until, "the cellar is not asked");
        scene.cellar.obey().await;
        scene.attic.obey().await;
        let asked = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
        let stands = asked["items"].as_array().expect("a list").iter();
        if stands.into_iter().any(|one| one["kind"] == "standby" && one["state"] == "done") {
            scene.cellar.has(&scene.app, &scene.term, "standing_by", None, None);
        }
    }
    assert_eq!(leader(&database).await, Some(before), "still the first");
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.cellar.obey().await;
    }
    first.kill();
    let killed = Instant::now();
    leads(&database, Some(before)).await;
    let mut verbs = BTreeSet::new();
    while !verbs.contains("start") {
        assert!(killed.elapsed() < Duration::from_secs(75), "nobody takes over");
        verbs.extend(scene.cellar.obey().await);
    }
    assert!(
        killed.elapsed() > Duration::from_secs(46),
        "it counted what it did not see: {:?}",
        killed.elapsed()
    );
    let until = Instant::now() + Duration::from_secs(10);
    while scene.shown().await["device"] != scene.cellar.uuid() {
        assert!(Instant::now() < until);
    }
    // The attic comes back, to the process that is left: it is told, and renews nothing.
    scene.attic.line = scene.world.line();
    let heard = scene.attic.report().await.is(200);
    assert_eq!((&heard["granted"], &heard["over"][0]["app"]), (&json!([]), &json!(scene.app)));
    assert!(chain(&scene.ada).await.len() > 30);
    let operations = scene.ada.get(&format!("/v1/operations?app={}", scene.app)).await;
    assert_eq!(operations["items"][0]["kind"], "failover", "{operations}");
    assert_eq!(scene.shown().await["volumes"][0]["volume"], VOLUME);
    // The attic may be asked to stand by now.
    let running = scene.ada.get("/v1/operations?state=running").await;
    let running = running["items"].as_array().expect("a list");
    assert!(running.iter().all(|one| one["kind"] == "standby"), "{running:?}");
    scene.world.end().await;
}
