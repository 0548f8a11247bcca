//! Notifications: a webhook and a mail server that are real in what they hear.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::pages::{Browser, location, text};
use crate::scene::{Scene, id, play};
use crate::world::{World, databases};

/// Listens for POSTs, and hands out what came; answers with a status.
async fn webhook(status: &'static str) -> (String, UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let (send, receive) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                if let Some(number) = line.to_lowercase().strip_prefix("content-length:") {
                    length = number.trim().parse().expect("is a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("it arrives");
            let _ = send.send(serde_json::from_slice(&body).expect("is JSON"));
            let answer = format!(
                "HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.get_mut().write_all(answer.as_bytes()).await.expect("it is told");
        }
    });
    (format!("http://{address}/hook/secret-letters"), receive)
}

/// Takes one message as a mail server does, and hands out all that was said to it.
async fn mail_server() -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it listens").port();
    let (send, receive) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut all, mut line, mut in_data) = (String::new(), String::new(), false);
            stream.get_mut().write_all(b"220 mail\r\n").await.expect("greets");
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                all.push_str(&line);
                let answer = match (in_data, line.trim_end()) {
                    (true, ".") => "250 taken\r\n",
                    (true, _) => "",
                    (false, "DATA") => "354 go on\r\n",
                    (false, "QUIT") => "221 bye\r\n",
                    (false, _) => "250 ok\r\n",
                };
                in_data = (in_data && line.trim_end() != ".") || line.trim_end() == "DATA";
                if !answer.is_empty() && stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
                let is_over = line.trim_end() == "QUIT";
                line.clear();
                if is_over {
                    break;
                }
            }
            let _ = send.send(all);
        }
    });
    (port, receive)
}

fn channels(page: &str) -> Vec<String> {
    let mut all: Vec<String> = page
        .split("action=\"/settings/channels/")
        .filter_map(|part| part.split_once("/test\"").map(|(id, _)| id.to_owned()))
        .filter(|id| id.len() == 36)
        .collect();
    all.sort();
    all
}

async fn heard<T>(from: &mut UnboundedReceiver<T>, for_s: u64) -> T {
    tokio::time::timeout(Duration::from_secs(for_s), from.recv())
        .await
        .expect("in time")
        .expect("something comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_and_how_it_went_is_shown() {
    let world = World::new().await;
    world.set_up().await;
    let mut browser = Browser::log_in(&world, "ada", "a long password").await;
    let (url, mut hook) = webhook("204 No Content").await;
    let reply = browser.fill("/settings", "/settings/channels/webhook", &[("url", &url)]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let page = text(&browser.get("/settings").await);
    assert!(!page.contains("secret-letters") && page.contains("127.0.0.1"), "the path is a secret");
    let [id] = &channels(&page)[..] else { panic!("one is there: {page}") };
    let reply = browser.fill("/settings", &format!("/settings/channels/{id}/test"), &[]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    assert_eq!(heard(&mut hook, 5).await["kind"], "test");
    assert!(text(&browser.get(location(&reply)).await).contains("the last one arrived"));
    let reply = browser.fill("/settings", &format!("/settings/channels/{id}/remove"), &[]).await;
    assert_eq!(reply.status, 303);

    // A redirect is not followed: it could lead anywhere.
    let (url, mut hook) = webhook("302 Found").await;
    browser.fill("/settings", "/settings/channels/webhook", &[("url", &url)]).await;
    let [id] = &channels(&text(&browser.get("/settings").await))[..] else { panic!("one is there") };
    let reply = browser.fill("/settings", &format!("/settings/channels/{id}/test"), &[]).await;
    assert_eq!(reply.status, 409);
    assert!(text(&reply).contains("it answers with 302"), "{}", text(&reply));
    assert_eq!(heard(&mut hook, 5).await["kind"], "test");
    browser.fill("/settings", &format!("/settings/channels/{id}/remove"), &[]).await;

    let (port, mut mails) = mail_server().await;
    let port = port.to_string();
    let fields = [
        ("to", "ada@example.org"),
        ("from", "hive@example.org"),
        ("host", "127.0.0.1"),
        ("port", &port),
        ("security", "none"),
    ];
    let reply = browser.fill("/settings", "/settings/channels/mail", &fields).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let with_password: Vec<(&str, &str)> =
        fields.iter().copied().chain([("user", "ada"), ("password", "hunter22")]).collect();
    let reply = browser.fill("/settings", "/settings/channels/mail", &with_password).await;
    assert_eq!(reply.status, 400, "no password goes over the wire in clear");
    assert!(!text(&reply).contains("hunter22"));
    let [id] = &channels(&text(&browser.get("/settings").await))[..] else { panic!("one is there") };
    let reply = browser.fill("/settings", &format!("/settings/channels/{id}/test"), &[]).await;
    assert_eq!(reply.status, 303, "{}", text(&reply));
    let mail = heard(&mut mails, 10).await;
    assert!(mail.contains("RCPT TO:<ada@example.org>") && mail.contains("Subject: Comb: a test"), "{mail}");
}

/// Another account than the first reaches nothing of the hive's own network.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_look_around_in_the_network() {
    let world = World::new().await;
    let ada = world.set_up().await;
    let invite = ada.post("/v1/people/invites", &json!({"role": "owner", "new_account": true})).await.is(200);
    let mut eve = Browser::new(&world);
    let invite = invite["invite"].as_str().expect("is shown");
    let fields =
        [("invite", invite), ("name", "eve"), ("password", "another long password"), ("account", "Other")];
    assert_eq!(eve.fill("/accept", "/accept", &fields).await.status, 303);
    let (url, mut hook) = webhook("204 No Content").await;
    let by_name = url.replace("127.0.0.1", "localhost");
    for url in [url.as_str(), by_name.as_str()] {
        eve.fill("/settings", "/settings/channels/webhook", &[("url", url)]).await;
        for id in channels(&text(&eve.get("/settings").await)) {
            let reply = eve.fill("/settings", &format!("/settings/channels/{id}/test"), &[]).await;
            assert_eq!(reply.status, 409, "{}", text(&reply));
            assert!(text(&reply).contains("own network"), "{}", text(&reply));
        }
    }
    assert!(hook.try_recv().is_err(), "nothing was asked");
}

/// A device that is silent is told, once, and when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_told_when_it_lasts_and_when_it_is_over() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let mut browser = Browser::log_in(&scene.world, "ada", "a long password").await;
    let (url, mut hook) = webhook("200 OK").await;
    browser.fill("/settings", "/settings/channels/webhook", &[("url", &url)]).await;
    // The one is silent from now on, the other goes on.
    let until = std::time::Instant::now() + Duration::from_secs(180);
    let note = loop {
        scene.cellar.report().await.is(200);
        match tokio::time::timeout(Duration::from_secs(5), hook.recv()).await {
            Ok(note) => break note.expect("something comes"),
            Err(_) => assert!(std::time::Instant::now() < until, "nothing was told"),
        }
    };
    assert_eq!((&note["kind"], &note["title"]), (&json!("silent"), &json!("attic is silent")), "{note}");
    let over = loop {
        scene.cellar.report().await.is(200);
        scene.attic.report().await.is(200);
        match tokio::time::timeout(Duration::from_secs(5), hook.recv()).await {
            Ok(note) => break note.expect("something comes"),
            Err(_) => {
                assert!(std::time::Instant::now() < until + Duration::from_secs(60), "nothing was told")
            }
        }
    };
    assert_eq!((&over["kind"], &over["title"]), (&json!("over"), &json!("over: attic is silent")), "{over}");
    let events = scene.ada.get("/v1/events?limit=200").await;
    let kinds: Vec<&str> = events["items"]
        .as_array()
        .expect("is a list")
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    assert!(kinds.contains(&"silent") && kinds.contains(&"back"), "{kinds:?}");
    assert!(text(&browser.get("/activity?kind=trouble").await).contains("Became silent"));
}

/// An update whose place force took is not told as one that went back, until it is known that the app runs.
#[tokio::test(flavor = "multi_thread")]
async fn how_an_update_ended_that_nobody_heard_of_is_not_told() {
    let (database, folder) = databases().await.remove(0);
    let mut scene = Scene::on(&database, folder, "manual").await;
    let mut browser = Browser::log_in(&scene.world, "ada", "a long password").await;
    scene.ada.package(&scene.owner, &scene.app, "photos", 2).await.is(201);
    let updating = id(&scene.order("update", json!({"revision": 2})).await.is(202));
    scene.attic.expect("update").await;
    scene.cellar.report().await.is(200);
    let forced =
        json!({"to": scene.cellar.uuid(), "forced": true, "accept_loss": true, "even_if_online": true});
    let begun = id(&scene.order("move", forced).await.is(202));
    assert_eq!(scene.ada.wait(&updating, 10).await["code"], "forced");
    let page = text(&browser.get("/").await);
    let (unknown, before) =
        ("its last update failed. How it ended is not known", "It runs as before, with its data.");
    assert!(page.contains(unknown) && !page.contains(before), "{page}");
    scene.attic.apps.clear();
    play(&scene.ada, &begun, &mut [&mut scene.cellar]).await;
    scene.cellar.report().await.is(200);
    let page = text(&browser.get("/").await);
    assert!(page.contains(before) && !page.contains(unknown), "{page}");
}
