//! Watching: that something changed is told at once, what was missed is told later, and of others nothing.

use serde_json::json;

use crate::scene::Scene;
use crate::world::databases;

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_hears_what_changed_and_what_he_missed() {
    for (database, folder) in databases().await {
        let mut scene = Scene::on(&database, folder, "manual").await;
        let invite = json!({"role": "owner", "new_account": true});
        let invite = scene.ada.post("/v1/people/invites", &invite).await.is(200);
        let accept = json!({"invite": invite["invite"], "name": "eve", "password": "another password", "account": "other"});
        let eve = scene.world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
        let eve = scene.world.person(eve["token"].as_str().expect("has a token"));

        let mut watch = scene.ada.follow("/v1/watch", None).await;
        let (kind, begun, _) = watch.next().await;
        assert_eq!(kind, "begun");
        let mut hers = eve.follow("/v1/watch", None).await;
        assert_eq!(hers.next().await.0, "begun");
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

        // Who comes back goes on where he was; who is too far behind is told that all changed.
        let mut again = scene.ada.follow("/v1/watch", Some(&begun)).await;
        assert_eq!(again.changed("operation").await, (first, operation));
        let mut lost = scene.ada.follow("/v1/watch", Some("99999999")).await;
        assert_eq!(lost.next().await.0, "all");
        // Eve hears of her own only.
        eve.post("/v1/stores", &json!({"url": "s3://hers/p"})).await.is(200);
        let (_, store) = hers.changed("store").await;
        let stores = eve.get("/v1/stores").await;
        assert_eq!(stores["items"][0]["id"], json!(store));
        scene.world.end().await;
    }
}
