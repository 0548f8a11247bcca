//! Two devices, and an app that runs on the first of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Machine, Owner, Person, Reply, VOLUME, World, cut, manifest, uuid};

/// Two devices, and an app that runs on the first.
pub struct Scene {
    pub world: World,
    pub ada: Person,
    pub owner: Owner,
    pub attic: Machine,
    pub cellar: Machine,
    pub app: String,
    pub term: Value,
}

impl Scene {
    pub async fn on(database: &str, folder: std::sync::Arc<tempfile::TempDir>, policy: &str) -> Scene {
        let world = World::on(database, folder).await;
        let token = world.set_up().await.token;
        Self::joined(world, &token, policy).await
    }

    /// The same in a hive that is set up already.
    pub async fn joined(world: World, token: &str, policy: &str) -> Scene {
        let ada = world.person(token);
        let owner = Owner::new(1);
        ada.ring(&owner).await;
        let mut attic = ada.device(&world, "attic").await;
        let cellar = ada.device(&world, "cellar").await;
        let app = uuid();
        let store = ada.post("/v1/stores", &json!({"url": "s3://b/p"})).await.is(200);
        ada.package(&owner, &app, "photos", 1).await.is(201);
        let add = json!({
            "app": app, "revision": 1, "device": attic.uuid(), "policy": policy, "stores": [store["id"]], "start": true
        });
        let ordered = ada.post("/v1/apps", &add).await.is(202);
        let command = attic.expect("prepare").await;
        assert_eq!(command["stores"][0]["url"], "s3://b/p");
        attic.answer(&command, "done", None, json!({})).await.is(204);
        let start = attic.expect("start").await;
        let term = start["term"].clone();
        assert_eq!(start["volumes"][0]["volume"], Value::Null);
        assert_eq!(start["volumes"][0]["expect"]["since"]["epoch"], 0);
        let writers = json!([{"volume": VOLUME, "writer": attic.writer()}]);
        let data = json!({"cuts": [cut(1, 1, None)], "writers": writers, "started": true, "healthy": true});
        attic.answer(&start, "done", None, data).await.is(204);
        let id = ordered["operation"]["id"].as_str().expect("has an id");
        assert_eq!(ada.wait(id, 20).await["state"], "done");
        attic.has(&app, &term, "running", None, Some((1, 5)));
        attic.report().await.is(200);
        Scene { world, ada, owner, attic, cellar, app, term }
    }

    pub async fn shown(&self) -> Value {
        self.ada.get(&format!("/v1/apps/{}", self.app)).await
    }

    pub async fn order(&self, what: &str, body: Value) -> Reply {
        self.ada.post(&format!("/v1/apps/{}/{what}", self.app), &body).await
    }

    /// Moves the app to the cellar; the operation.
    pub async fn move_planned(&mut self) -> String {
        let ordered = self.order("move", json!({"to": self.cellar.uuid()})).await.is(202);
        self.attic.report().await.is(200);
        let prepare = self.cellar.expect("prepare").await;
        let writers = json!([{"volume": VOLUME, "writer": self.cellar.writer()}]);
        self.cellar.answer(&prepare, "done", None, json!({"writers": writers})).await.is(204);
        let hand_over = self.attic.expect("hand_over").await;
        let head = json!({"volume": VOLUME, "epoch": 1, "seq": 9, "manifest": manifest(9)});
        let data = json!({"heads": [head], "started": true, "healthy": true});
        self.attic.answer(&hand_over, "done", None, data).await.is(204);
        let start = self.cellar.expect("start").await;
        let data =
            json!({"cuts": [cut(2, 10, Some(9))], "writers": writers, "started": true, "healthy": true});
        self.cellar.answer(&start, "done", None, data).await.is(204);
        self.attic.has(&self.app, &self.term, "stopped", Some("hand_over"), None);
        self.cellar.has(&self.app, &start["term"], "running", None, Some((2, 10)));
        self.cellar.report().await.is(200);
        let id = id(&ordered);
        assert_eq!(self.ada.wait(&id, 20).await["state"], "done");
        id
    }
}

/// The operation of an order.
pub fn id(ordered: &Value) -> String {
    ordered["operation"]["id"].as_str().expect("an order has an operation").to_owned()
}

/// Lets devices work until an operation ended.
pub async fn play(ada: &Person, operation: &str, devices: &mut [&mut Machine]) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        for device in devices.iter_mut() {
            device.obey().await;
        }
        let found = ada.get(&format!("/v1/operations/{operation}")).await;
        if found["state"] != "running" {
            return found;
        }
        assert!(Instant::now() < until, "{found}");
    }
}
