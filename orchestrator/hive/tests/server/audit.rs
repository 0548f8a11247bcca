//! The events of an account: who changed what, and the chain that they are.

use orchestrator_api::text::Hex;
use orchestrator_api::wire::operation::Event;
use serde_json::{Value, json};

use crate::pages::{Browser, in_form, text, totp};
use crate::world::{Person, World, databases};

/// All events of an account: numbered without a gap, each with the hash over the one before, the first over zeros.
pub async fn chain(person: &Person) -> Vec<Event> {
    let (mut all, mut after, mut before) = (Vec::new(), 0u64, [0u8; 32]);
    loop {
        let page = person.get(&format!("/v1/events?after={after}")).await;
        for item in page["items"].as_array().expect("a list") {
            let event: Event = serde_json::from_value(item.clone()).expect("is an event");
            assert_eq!(event.number.0, after + 1, "no gap: {item}");
            let plain = Event { hash: Hex([0; 32]), ..event.clone() };
            let mut hasher = blake3::Hasher::new();
            hasher.update(&before);
            hasher.update(&serde_json::to_vec(&plain).expect("is JSON"));
            assert_eq!(event.hash.0, *hasher.finalize().as_bytes(), "{item}");
            (after, before) = (event.number.0, event.hash.0);
            all.push(event);
        }
        if page["next"].is_null() {
            return all;
        }
    }
}

fn id(thing: &Value) -> &str {
    thing["id"].as_str().expect("has an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_something_is_written_down() {
    for (database, folder) in databases().await {
        let world = World::on(&database, folder).await;
        let ada = world.set_up().await;
        let delete =
            async |who: &Person, path: String| who.ask("DELETE", &path, &Value::Null, &[]).await.is(204);
        let store = ada.post("/v1/stores", &json!({"url": "s3://photos/p"})).await.is(200);
        delete(&ada, format!("/v1/stores/{}", id(&store))).await;
        let code = ada.post("/v1/device-codes", &json!({"name": "shed"})).await.is(200);
        delete(&ada, format!("/v1/device-codes/{}", id(&code))).await;
        let invite = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        delete(&ada, format!("/v1/people/invites/{}", id(&invite))).await;
        let token = ada.post("/v1/tokens", &json!({"title": "nightly", "role": "viewer"})).await.is(200);
        delete(&ada, format!("/v1/tokens/{}", id(&token))).await;
        let invite = ada.post("/v1/people/invites", &json!({"role": "viewer"})).await.is(200);
        let accept = json!({"invite": invite["invite"], "name": "bob", "password": "another password"});
        let bob = world.nobody("POST", "/v1/people/accept", &accept).await.is(200);
        let bob = world.person(bob["token"].as_str().expect("has a token"));
        let me = bob.get("/v1/me").await;
        let person = me["person"].as_str().expect("has an id").to_owned();
        ada.ask("PATCH", &format!("/v1/people/{person}"), &json!({"role": "owner"}), &[]).await.is(200);
        let new = |old: &str| json!({"old": old, "new": "a third password"});
        bob.ask("PUT", "/v1/me/password", &new("not this one"), &[]).await.fails(403, "login_wrong");
        bob.ask("PUT", "/v1/me/password", &new("another password"), &[]).await.is(204);
        let mut browser = Browser::log_in(&world, "bob", "a third password").await;
        let other = Browser::log_in(&world, "bob", "a third password").await;
        let hook = [("url", "https://hooks.example.org/T0/secret-letters")];
        assert_eq!(browser.fill("/settings", "/settings/channels/webhook", &hook).await.status, 303);
        let channel = in_form(&text(&browser.get("/settings").await), "/settings/channels/");
        assert_ne!(channel, "webhook");
        let path = format!("/settings/channels/{channel}/remove");
        assert_eq!(browser.fill("/settings", &path, &[]).await.status, 303);
        let session = in_form(&text(&browser.get("/me").await), "/me/sessions/");
        let path = format!("/me/sessions/{session}/end");
        assert_eq!(browser.fill("/me", &path, &[]).await.status, 303);
        drop(other);
        assert_eq!(browser.fill("/", "/logout", &[]).await.status, 303);
        delete(&bob, "/v1/login".to_owned()).await;
        assert_eq!(ada.post("/v1/hive/backup", &Value::Null).await.status, 200);
        delete(&ada, format!("/v1/people/{person}")).await;

        let events = chain(&ada).await;
        let of_bob = |event: &&Event| event.by.person.is_some_and(|by| by.to_string() == person);
        let hers: Vec<&str> =
            events.iter().filter(|event| !of_bob(event)).map(|event| event.kind.as_str()).collect();
        let begins =
            "login store store_gone code_made code_gone invited invite_gone token_made token_gone invited";
        assert_eq!(hers.join(" "), format!("{begins} role backup person_gone"));
        let his: Vec<&str> = events.iter().filter(of_bob).map(|event| event.kind.as_str()).collect();
        let between = "channel channel_gone session_gone logout logout";
        assert_eq!(his.join(" "), format!("accepted login password_wrong password login login {between}"));
        assert!(events.iter().all(|event| event.from.is_some()), "from where is always told");
        let told = serde_json::to_string(&events).expect("is JSON");
        for secret in
            ["secret-letters", &invite["invite"].to_string(), &code["code"].to_string(), "password\":\""]
        {
            assert!(!told.contains(secret.trim_matches('"')), "{secret}: {told}");
        }

        // In words, with the name of who is not there any more.
        let mut browser = Browser::log_in(&world, "ada", "a long password").await;
        let page = text(&browser.get("/activity").await);
        for words in [
            "bob</bdi> (left)",
            "Removed <bdi class=\"name\">bob</bdi>",
            "Added a store: <bdi class=\"name\">s3://photos/p</bdi>",
            "Removed a store: ",
            "Made a code for a device: <bdi class=\"name\">shed</bdi>",
            "Took back a code for a device",
            "Withdrew an invitation",
            "Ended a token: <bdi class=\"name\">nightly</bdi>",
            "Notifications go to a webhook at <bdi class=\"name\">hooks.example.org</bdi>",
            "Notifications go no more to ",
            "Changed their password",
            "Tried to change the password, and was refused",
            "Logged another browser out",
            "Logged out",
            "Took a backup of the whole hive",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert!(!page.contains("somebody who left"), "{page}");
        let page = text(&browser.get("/activity?kind=settings").await);
        assert!(page.contains("Removed a store") && !page.contains("Logged in"), "{page}");
    }
}

fn login(name: &str, password: &str) -> Value {
    json!({"name": name, "password": password})
}

/// The answers to the same request that many send at once, and how often each came.
async fn at_once(world: &World, count: usize, path: &'static str, body: &Value, from: &str) -> [usize; 3] {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (mut line, bytes, from) =
            (world.line(), serde_json::to_vec(body).expect("is JSON"), from.to_owned());
        running
            .spawn(async move { line.send("POST", path, &[("x-forwarded-for", from)], &bytes).await.status });
    }
    let all = running.join_all().await;
    [200, 403, 429].map(|status| all.iter().filter(|one| **one == status).count())
}

/// A hive that takes a proxy's word, so that tests come from where they like.
async fn behind_a_proxy((database, folder): (String, std::sync::Arc<tempfile::TempDir>)) -> World {
    let local = "127.0.0.1".parse().expect("is an address");
    let mut options = orchestrator_hive::Options::new(database, std::net::SocketAddr::new(local, 0));
    options.proxies = vec![local];
    World::with(options, folder).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_once_count_each_and_the_name_is_locked() {
    for database in databases().await {
        let world = behind_a_proxy(database).await;
        let ada = world.set_up().await;
        let counts = at_once(&world, 8, "/v1/login", &login("ada", "not this one"), "192.0.2.1").await;
        assert_eq!(counts, [0, 5, 3], "five are told that they are wrong, the others to wait");
        // The right password is no exception, from wherever it comes; nor is the way by a new password.
        let counts = at_once(&world, 1, "/v1/login", &login("ada", "a long password"), "198.51.100.1").await;
        assert_eq!(counts, [0, 0, 1]);
        let new = json!({"old": "a long password", "new": "a third password"});
        let told = ada.ask("PUT", "/v1/me/password", &new, &[]).await.fails(429, "slow_down");
        assert!(
            told["error"]["message"].as_str().is_some_and(|text| text.contains("of this name")),
            "{told}"
        );
        assert!(told["error"]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 590_000), "{told}");
        let failed = chain(&ada).await.iter().filter(|event| event.kind == "login_failed").count();
        assert_eq!(failed, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_wrong_from_one_place_are_enough() {
    let world = behind_a_proxy(databases().await.remove(0)).await;
    world.set_up().await;
    // Names that nobody has, passwords and invitations, from addresses of one /64.
    let mut wrong = 0;
    for (number, body) in
        ["bob", "cleo", "dan", "eve"].map(|name| login(name, "not this one")).iter().enumerate()
    {
        let from = format!("2001:db8:7:7::{number:x}");
        wrong += at_once(&world, 4, "/v1/login", body, &from).await[1];
    }
    let accept = json!({"invite": "00000000-00000000-00000000-00000000", "name": "bob", "password": "a long password"});
    wrong += at_once(&world, 4, "/v1/people/accept", &accept, "2001:db8:7:7::9").await[1];
    assert_eq!(wrong, 20);
    let right = login("ada", "a long password");
    assert_eq!(at_once(&world, 2, "/v1/login", &right, "2001:db8:7:7:aaaa::1").await, [0, 0, 2]);
    // Another household is not meant.
    assert_eq!(at_once(&world, 1, "/v1/login", &right, "2001:db8:7:8::1").await, [1, 0, 0]);
    assert_eq!(at_once(&world, 1, "/v1/login", &right, "192.0.2.7").await, [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_session_cannot_guess_the_second_factor_away() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let page = text(&browser.get("/me/second").await);
    let (_, rest) = page.split_once("<pre id=\"secret\">").expect("is shown");
    let secret = rest.split('<').next().expect("it ends").to_owned();
    let reply = browser.fill("/me/second", "/me/second", &[("code", &totp(&secret, 0))]).await;
    let page = text(&reply);
    let (_, rest) = page.split_once("<pre id=\"secret\">").expect("codes are shown");
    let recovery = rest.lines().next().expect("has codes").to_owned();
    for _ in 0..5 {
        let reply = browser.fill("/me", "/me/second/off", &[("code", "000000")]).await;
        assert_eq!(reply.status, 400, "{}", text(&reply));
    }
    // Now not even the right one, nor the password, opens anything for a while.
    let reply = browser.fill("/me", "/me/second/off", &[("code", &recovery)]).await;
    assert_eq!(reply.status, 429, "{}", text(&reply));
    assert!(text(&reply).contains("Wait 10 min"), "{}", text(&reply));
    assert!(!text(&browser.get("/me").await).contains("It is off"));
    let reply =
        browser.fill("/me", "/me/password", &[("old", "a long password"), ("new", "a third password")]).await;
    assert_eq!(reply.status, 429, "{}", text(&reply));
    world.nobody("POST", "/v1/login", &login("ada", "a long password")).await.fails(429, "slow_down");
    let wrong = chain(&ada).await.iter().filter(|event| event.kind == "second_wrong").count();
    assert_eq!(wrong, 5);
    assert!(
        text(&browser.get("/activity?kind=people").await).contains("Tried to turn off the second factor")
    );
}

/// The page says of the chain what is true: it holds, or where it does not.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_tampered_with_are_told() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    for number in 0..6 {
        ada.post("/v1/stores", &json!({"url": format!("s3://b/{number}")})).await.is(200);
    }
    assert_eq!(chain(&ada).await.len(), 8);
    let page = text(&browser.get("/activity").await);
    assert!(page.contains("Numbers 1 to 8, the newest, fit together."), "{page}");
    let page = text(&browser.get("/activity?before=5&kind=settings").await);
    assert!(page.contains("Numbers 3 to 8, the newest, fit together."), "{page}");

    let file = world.options.database.strip_prefix("sqlite:").expect("is a file").to_owned();
    let database = rusqlite::Connection::open(file).expect("opens");
    database.busy_timeout(std::time::Duration::from_secs(10)).expect("waits");
    let change = |sql: &str| database.execute(sql, []).expect("is changed");
    change("CREATE TABLE kept AS SELECT * FROM event");
    change("CREATE TABLE kept_account AS SELECT event_number AS number, event_hash AS hash FROM account");
    let other = "UPDATE event SET event = replace(event, 's3://b/', 's3://c/') WHERE number = 5";
    let renumbered = "UPDATE event SET number = 50 WHERE number = 5";
    for (sql, broken) in [
        (other, 5),
        ("UPDATE event SET app = x'00112233445566778899aabbccddeeff' WHERE number = 4", 4),
        ("DELETE FROM event WHERE number = 6", 6),
        ("DELETE FROM event WHERE number = 1", 1),
        ("DELETE FROM event WHERE number = 8", 8),
        ("DELETE FROM event", 7),
        ("UPDATE account SET event_hash = zeroblob(32)", 8),
        ("UPDATE account SET event_number = 7", 8),
        (renumbered, 5),
    ] {
        assert!(change(sql) > 0, "{sql}");
        let page = text(&browser.get("/activity").await);
        assert!(page.contains(&format!("<b>Event {broken} does not fit")), "{sql}: {page}");
        assert!(!page.contains("fit together"), "{sql}");
        change("DELETE FROM event");
        change("INSERT INTO event SELECT * FROM kept");
        change(
            "UPDATE account SET event_number = (SELECT number FROM kept_account), event_hash = (SELECT hash FROM kept_account)",
        );
        assert!(text(&browser.get("/activity").await).contains("fit together"), "{sql}: taken back");
    }
}
