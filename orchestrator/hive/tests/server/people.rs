//! Setup, logins, roles, tokens, invitations.

use serde_json::{Value, json};

use crate::world::{World, databases};

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_is_set_up_once_by_who_has_its_code() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let info = world.nobody("GET", "/v1/hive", &Value::Null).await.is(200);
        assert_eq!((info["set_up"].clone(), info["incarnation"].clone()), (json!(false), Value::Null));
        let wrong = json!({
            "setup_code": "00000000-00000000-00000000-00000000", "account": "a", "name": "b", "password": "c long enough"
        });
        world.nobody("POST", "/v1/setup", &wrong).await.fails(403, "setup_code_wrong");
        let short = json!({"setup_code": world.setup_code, "account": "a", "name": "b", "password": "short"});
        world.nobody("POST", "/v1/setup", &short).await.fails(400, "bad_request");
        let ada = world.set_up().await;
        let again = json!({
            "setup_code": world.setup_code, "account": "a", "name": "b", "password": "c long enough"
        });
        world.nobody("POST", "/v1/setup", &again).await.fails(409, "exists");
        let me = ada.get("/v1/me").await;
        assert_eq!((me["name"].clone(), me["role"].clone()), (json!("ada"), json!("owner")));
        assert_eq!(ada.get("/v1/hive").await["set_up"], true);

        // What was committed is there when the hive begins again, and the code is not made anew.
        let world = world.again().await;
        assert_eq!(world.setup_code, None);
        assert_eq!(world.person(&ada.token).get("/v1/me").await["name"], "ada");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_a_name_and_a_password_and_few_tries() {
    let world = World::new().await;
    world.set_up().await;
    let login = |name: &str, password: &str| json!({"name": name, "password": password});
    let right = world.nobody("POST", "/v1/login", &login("ada", "a long password")).await.is(200);
    let person = world.person(right["token"].as_str().expect("has a token"));
    person.get("/v1/me").await;
    world.nobody("POST", "/v1/login", &login("eve", "a long password")).await.fails(403, "login_wrong");
    for _ in 0..5 {
        world.nobody("POST", "/v1/login", &login("ada", "a wrong password")).await.fails(403, "login_wrong");
    }
    let locked = world.nobody("POST", "/v1/login", &login("ada", "a long password")).await;
    assert!(locked.headers.contains_key("retry-after"));
    locked.fails(429, "slow_down");
    person.ask("DELETE", "/v1/login", &Value::Null, &[]).await.is(204);
    person.ask("GET", "/v1/me", &Value::Null, &[]).await.fails(401, "not_logged_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_come_by_invitation_and_have_their_role() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let made = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        let accept = json!({"invite": made["invite"], "name": "bob", "password": "another password"});
        let bob = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
        world.nobody("POST", "/v1/people/accept", &accept).await.fails(403, "code_wrong");
        let bob = world.person(bob["token"].as_str().expect("has a token"));
        bob.get("/v1/apps").await;
        bob.post("/v1/stores", &json!({"url": "s3://b/p"})).await.fails(403, "role_too_low");
        bob.post("/v1/tokens", &json!({"title": "x", "role": "owner"})).await.fails(403, "role_too_low");
        let people = ada.get("/v1/people").await;
        let id = |name: &str| {
            let list = people["items"].as_array().expect("is a list");
            list.iter().find(|one| one["name"] == name).expect("is there")["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        };
        let path = format!("/v1/people/{}", id("ada"));
        ada.ask("DELETE", &path, &Value::Null, &[]).await.fails(409, "state");
        ada.ask("PATCH", &path, &json!({"role": "viewer"}), &[]).await.fails(409, "state");
        ada.ask("DELETE", &format!("/v1/people/{}", id("bob")), &Value::Null, &[]).await.is(204);
        bob.ask("GET", "/v1/me", &Value::Null, &[]).await.fails(401, "not_logged_in");
    }
}

/// An invitation that an owner made is no way back for them.
#[tokio::test(flavor = "multi_thread")]
async fn invitations_end_with_an_owner_who_is_one_no_more() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let invite = async |by: &crate::world::Person| {
            let made = by.post("/v1/people/invites", &json!({"role": "owner", "ends_in_s": 604_800})).await;
            made.is(200)["invite"].as_str().expect("is shown once").to_owned()
        };
        let accept = async |invite: &str, name: &str| {
            let wish = json!({"invite": invite, "name": name, "password": "another password"});
            world.nobody("POST", "/v1/people/accept", &wish).await
        };
        let bob = accept(&invite(&ada).await, "bob").await.is(200);
        let bob = world.person(bob["token"].as_str().expect("has a token"));
        let his = bob.get("/v1/me").await["person"].as_str().expect("has an id").to_owned();
        let path = format!("/v1/people/{his}");

        let (first, second) = (invite(&bob).await, invite(&bob).await);
        ada.ask("PATCH", &path, &json!({"role": "owner"}), &[]).await.is(200);
        accept(&first, "eve").await.is(200);
        ada.ask("PATCH", &path, &json!({"role": "viewer"}), &[]).await.is(200);
        accept(&second, "mallory").await.fails(403, "code_wrong");
        assert_eq!(ada.get("/v1/people/invites").await["items"], json!([]));
        // Who was none ends nobody's.
        let kept = invite(&ada).await;
        ada.ask("PATCH", &path, &json!({"role": "operator"}), &[]).await.is(200);
        accept(&kept, "carol").await.is(200);

        ada.ask("PATCH", &path, &json!({"role": "owner"}), &[]).await.is(200);
        let third = invite(&bob).await;
        ada.ask("DELETE", &path, &Value::Null, &[]).await.is(204);
        accept(&third, "bob").await.fails(403, "code_wrong");
        let events = ada.get("/v1/events").await;
        let gone =
            events["items"].as_array().expect("a list").iter().filter(|it| it["kind"] == "invite_gone");
        assert_eq!(gone.count(), 2, "each of them is told: {events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_repeated_is_done_once() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let key = [("idempotency-key", "the-same".to_owned())];
        let store = json!({"url": "s3://bucket/one"});
        let first = ada.ask("POST", "/v1/stores", &store, &key).await.is(200);
        assert_eq!(ada.ask("POST", "/v1/stores", &store, &key).await.is(200), first);
        let other = json!({"url": "s3://bucket/two"});
        ada.ask("POST", "/v1/stores", &other, &key).await.fails(409, "exists");
        let code = [("idempotency-key", "a-code".to_owned())];
        ada.ask("POST", "/v1/device-codes", &json!({}), &code).await.is(200);
        ada.ask("POST", "/v1/device-codes", &json!({}), &code).await.fails(409, "exists");
        let headers = [("authorization", format!("Bearer {}", ada.token))];
        world.line().send("POST", "/v1/stores", &headers, b"{}").await.fails(400, "bad_request");
        assert_eq!(ada.get("/v1/stores").await["items"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_has_no_credentials_and_a_known_kind() {
    let world = World::new().await;
    let ada = world.set_up().await;
    for (url, status, code) in [
        ("az://account/container", 422, "store_kind"),
        ("ftp://host/x", 422, "store_kind"),
        ("https://user:secret@host/x", 400, "bad_request"),
        ("nothing", 400, "bad_request"),
    ] {
        let answer = ada.post("/v1/stores", &json!({"url": url})).await.fails(status, code);
        assert!(!answer.to_string().contains("secret"));
    }
    ada.post("/v1/stores", &json!({"url": "s3://b", "more": 1})).await.fails(400, "unknown_field");
}
