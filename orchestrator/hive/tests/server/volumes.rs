//! Which volumes an app has: who was not told begins none in their place.

use serde_json::{Value, json};

use crate::world::{Machine, Owner, Person, Reply, VOLUME, World, cut, databases, uuid};

/// Two devices, and an app that the first of them was told to start.
struct First {
    world: World,
    ada: Person,
    attic: Machine,
    cellar: Machine,
    app: String,
    start: Value,
}

impl First {
    async fn on(database: &str, folder: std::sync::Arc<tempfile::TempDir>) -> First {
        let world = World::on(database, folder).await;
        let ada = world.set_up().await;
        let owner = Owner::new(1);
        ada.ring(&owner).await;
        let mut attic = ada.device(&world, "attic").await;
        let cellar = ada.device(&world, "cellar").await;
        let app = uuid();
        let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
        ada.package(&owner, &app, "photos", 1).await.is(201);
        let add = json!({
            "app": app, "revision": 1, "device": attic.uuid(), "policy": "manual", "stores": [store["id"]],
            "start": true
        });
        ada.post("/v1/apps", &add).await.is(202);
        let prepare = attic.expect("prepare").await;
        attic.answer(&prepare, "done", None, json!({})).await.is(204);
        let start = attic.expect("start").await;
        assert_eq!(start["volumes"][0]["volume"], Value::Null);
        First { world, ada, attic, cellar, app, start }
    }

    async fn force(&mut self) -> Reply {
        self.cellar.report().await.is(200);
        let wish = json!({
            "to": self.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true
        });
        self.ada.post(&format!("/v1/apps/{}/move", self.app), &wish).await
    }

    /// The cellar is given the app with what the attic wrote.
    async fn goes_on_in_the_cellar(&mut self) {
        let prepare = self.cellar.expect("prepare").await;
        assert_eq!(prepare["volumes"], json!([{"name": "data", "volume": VOLUME}]));
        let writers = json!([{"volume": VOLUME, "writer": self.cellar.writer()}]);
        self.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let start = self.cellar.expect("start").await;
        let volume = &start["volumes"][0];
        assert_eq!((&volume["name"], &volume["volume"]), (&json!("data"), &json!(VOLUME)));
        let since = &volume["expect"]["since"];
        assert_eq!(since["epoch"], 1, "{since}");
        let writers = since["writers"].as_array().expect("a list");
        assert!(writers.contains(&json!(self.attic.writer())), "{since}");
    }
}

/// All was copied, and then the app did not get well.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_failed_tells_of_the_volumes_that_it_made() {
    for (database, folder) in databases().await {
        let mut first = First::on(&database, folder).await;
        let writers = json!([{"volume": VOLUME, "writer": first.attic.writer()}]);
        let data = json!({"cuts": [cut(1, 1, None)], "writers": writers, "started": true, "healthy": false});
        first.attic.answer(&first.start, "failed", Some("unhealthy"), data).await.is(204);
        let shown = first.ada.get(&format!("/v1/apps/{}", first.app)).await;
        assert_eq!(shown["volumes"][0]["volume"], VOLUME, "{shown}");
        first.force().await.is(202);
        first.goes_on_in_the_cellar().await;
        first.world.end().await;
    }
}

/// The result of the start never comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_volumes_nobody_told_of_goes_to_nobody_else_until_its_device_reports_them() {
    for (database, folder) in databases().await {
        let mut first = First::on(&database, folder).await;
        let refused = first.force().await.fails(409, "state");
        let text = refused["error"]["message"].as_str().expect("says why");
        assert!(text.contains("empty"), "{text}");
        let app = first.app.clone();
        first.attic.has(&app, &first.start["term"], "starting", None, Some((1, 1)));
        first.attic.report().await.is(200);
        first.force().await.fails(409, "state");
        // A name that the package does not have is nobody's.
        for name in ["other", "data"] {
            first.attic.apps[0]["volumes"][0]["name"] = json!(name);
            first.attic.report().await.is(200);
            let shown = first.ada.get(&format!("/v1/apps/{app}")).await;
            assert_eq!(shown["volumes"][0]["volume"] == VOLUME, name == "data", "{shown}");
        }
        first.force().await.is(202);
        first.goes_on_in_the_cellar().await;
        first.world.end().await;
    }
}
