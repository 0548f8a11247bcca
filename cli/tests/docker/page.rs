//! The device's own page of an app that runs: its logs, its moments, its files, and bringing one back under its hands.

use std::time::Duration;

use serde_json::{Value, json};

use super::apps::APP;
use super::browser::{Browser, encode};
use super::machine::{Machine, docker};
use super::orders::{SOON, Scene, no_canary, running};

fn browser(machine: &Machine) -> Browser {
    let opened = machine.json(&["device", "page", "--listen", "127.0.0.1:0", "--json"]);
    let mut browser = Browser::new(opened["address"].as_str().unwrap());
    assert_eq!(browser.enter(opened["code"].as_str().unwrap()).status, 303);
    browser
}

/// The beginning of what comes piece by piece, until it holds these words.
fn listen(browser: &Browser, path: &str, words: &str) -> String {
    let mut request = browser.client.get(format!("{}{path}", browser.address));
    if let Some(cookie) = &browser.cookie {
        request = request.header("cookie", cookie);
    }
    browser.runtime.block_on(async {
        let mut answer = request.send().await.expect("it answers");
        let mut text = String::new();
        let read = async {
            while !text.contains(words) {
                let part = answer.chunk().await.expect("it goes on").expect("it has not ended");
                text.push_str(&String::from_utf8_lossy(&part));
            }
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), read).await;
        read.unwrap_or_else(|_| panic!("no {words:?} within a minute"));
        text
    })
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_person_sees_an_app_its_logs_and_its_past_on_the_device() {
    let Scene { hive, attic, .. } = running("manual", "always", "x-comb:\n  update: {stable: 2s}\n");
    let talks = "echo 'canary-of-the-output <b>bold</b>'; echo 'on-the-other' >&2; trap 'exit 0' TERM; \
         echo first > /data/note; sleep 1; while true; do echo tick; sleep 0.5 & wait $!; done";
    let more = "x-comb:\n  update: {stable: 2s}\n";
    hive.put_package(APP, 2, super::apps::package(&attic, 2, talks, "always", more));
    let order = |mut command: Value| {
        command["app"] = json!(APP);
        (command["term"], command["generation"]) = (json!(1), json!(2));
        let number = hive.order(&attic.id, command);
        let result = hive.result(&attic.id, number, SOON);
        assert_eq!(result["state"], "done", "{result:#}");
        result
    };
    order(json!({ "do": "update", "revision": 2 }));
    let browser = browser(&attic);
    let volume = format!("app-{}-data", &APP[..8]);

    let start = browser.shows("/").text();
    assert!(start.contains("ledger") && start.contains(&format!("/app?app={APP}")), "{start}");
    let logs = browser.shows(&format!("/logs?app={APP}")).text();
    assert!(
        logs.contains("canary-of-the-output &lt;b&gt;bold&lt;/b&gt;") && logs.contains("on-the-other"),
        "{logs}"
    );
    assert!(logs.contains("class=\"err\""), "{logs}");
    let live = listen(&browser, &format!("/logs/live?app={APP}"), "tick");
    assert!(live.starts_with("event: begun\n") && live.contains("<b>bold</b>"), "{live}");
    let one = browser.shows(&format!("/logs?app={APP}&service=web")).text();
    assert!(one.contains("canary-of-the-output"), "{one}");

    // The moment before the update is an instant of the whole app; going back is the hive's, and its command is said.
    let app = browser.shows(&format!("/app?app={APP}")).text();
    for words in ["before an update", "comb app rollback ledger@", "comb app fork", "runs"] {
        assert!(app.contains(words), "{words}: {app}");
    }

    attic.until(SOON, "written", |machine| machine.mount(APP, "data").join("data/note").exists());
    let made = attic.json(&["snapshot", &volume, "--json", "--tag", "noted"]);
    let seq = made["seq"].as_u64().unwrap();
    let folder = browser.shows(&format!("/files?volume={volume}&at={seq}&path=data")).text();
    assert!(folder.contains("note") && folder.contains("ledger"), "{folder}");
    let file = browser.shows(&format!("/file?volume={volume}&at={seq}&path=data/note")).text();
    assert!(file.contains("<li>first</li>"), "{file}");

    // What says whose volume it is, is no file of the app's: it never comes back from the past.
    for path in ["comb.json", "data", ""] {
        let answer = browser.get(&format!("/restore?volume={volume}&at={seq}&path={path}"));
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    let container = &attic.containers()[0];
    docker(&["exec", container, "sh", "-c", "echo second > /data/note"]);
    let asks = format!("/restore?volume={volume}&at={seq}&path=data/note");
    let asks = browser.shows(&asks);
    let (csrf, packed, at) = (asks.field("csrf"), asks.field("packed"), seq.to_string());
    let fields =
        [("csrf", csrf.as_str()), ("volume", &volume), ("at", &at), ("packed", &packed), ("way", "in-place")];
    let sent = browser.post("/restore", &fields);
    let done = browser.shows(sent.header("location"));
    assert!(done.text().contains("It is back"), "{}", done.text());
    assert_eq!(docker(&["exec", container, "cat", "/data/note"]), "first", "the app sees it");
    let kept =
        attic.json(&["log", &volume, "--json", "--snapshots", "--number", "1"])[0]["seq"].as_u64().unwrap();
    let before = browser.get(&format!("/download?volume={volume}&at={kept}&path={}", encode(b"data/note")));
    assert_eq!(before.text(), "second\n", "what was replaced is kept");

    // A link of the app's leads nowhere, whatever it is called.
    docker(&["exec", container, "sh", "-c", "mkdir -p /data/x && echo mine > /data/x/passwd"]);
    let made = attic.json(&["snapshot", &volume, "--json"]);
    let at = made["seq"].to_string();
    docker(&["exec", container, "sh", "-c", "rm -r /data/x && ln -s /etc /data/x"]);
    let fields = [
        ("csrf", csrf.as_str()),
        ("volume", &volume),
        ("at", &at),
        ("packed", "data/x/passwd"),
        ("way", "in-place"),
    ];
    let sent = browser.post("/restore", &fields);
    assert_eq!(browser.get(sent.header("location")).status, 409);
    assert!(std::fs::read_to_string("/etc/passwd").unwrap().starts_with("root:"));
    std::thread::sleep(Duration::from_millis(100));
    no_canary(&hive, &[&attic]);
}
