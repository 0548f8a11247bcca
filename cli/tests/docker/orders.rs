//! What a hive orders, and what comes of it.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orchestrator_device::app::{message, volume_name};
use serde_json::{Value, json};

use super::apps::{APP, WRITES, exactly, new_volumes, package, records, start};
use super::hive::Hive;
use super::machine::{Machine, PASSPHRASE, docker, store};

pub const SOON: Duration = Duration::from_secs(120);

pub struct Scene {
    pub hive: Hive,
    pub attic: Machine,
    pub store: Value,
    pub cuts: Value,
}

/// A device on which the app runs.
pub fn running(policy: &str, restart: &str, more: &str) -> Scene {
    let hive = Hive::start();
    let attic = Machine::join(&hive, "attic");
    hive.put_package(APP, 1, package(&attic, 1, WRITES, restart, more));
    let store = store(&attic.folder.path().join("store"));
    let begun = Instant::now();
    let number = hive.order(&attic.id, start(1, 1, policy, new_volumes(), &store));
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(result["state"], "done", "{result:#}");
    eprintln!("from the order to running, with new volumes: {:.1} s", begun.elapsed().as_secs_f64());
    Scene { cuts: result["data"]["cuts"].clone(), hive, attic, store }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_app_starts_is_reported_and_is_handed_over_with_its_data() {
    let Scene { hive, attic, store, cuts } = running("manual", "always", "");
    let app = hive.until(&attic.id, SOON, "reported running", |app| {
        app["phase"] == "running"
            && app["volumes"][0]["state"] == "mounted"
            && app["services"][0]["state"] == "running"
    });
    let port = app["ports"][0]["given"].as_u64().unwrap();
    assert!((20_000..30_000).contains(&port), "{app:#}");
    assert!(app["address"].as_str().unwrap().ends_with(&format!(":{port}/")), "{app:#}");
    assert_eq!(app["health"], "healthy");
    let id = &attic.containers()[0];
    assert_eq!(docker(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", id]), "no");
    assert_eq!(docker(&["exec", id, "cat", "/seed/first.txt"]), "canary of the package's file");
    assert_eq!(
        docker(&["exec", id, "sh", "-c", "ls /data"]),
        "log\nstarts",
        "the marker is beside what the app sees"
    );

    let number = hive
        .order(&attic.id, json!({ "app": APP, "term": 1, "generation": 2, "do": "hand_over", "to": null }));
    let handed = hive.result(&attic.id, number, SOON);
    assert_eq!(handed["state"], "done", "{handed:#}");
    assert!(attic.containers().is_empty());
    hive.until(&attic.id, SOON, "told as stopped", |app| {
        app["phase"] == "stopped" && app["why"] == "hand_over"
    });

    let cellar = Machine::join(&hive, "cellar");
    let begun = Instant::now();
    let volumes = exactly(&cuts, &handed["data"]["heads"]);
    let number = hive.order(&cellar.id, start(2, 1, "manual", volumes, &store));
    let result = hive.result(&cellar.id, number, SOON);
    assert_eq!(result["state"], "done", "{result:#}");
    eprintln!("with heads that were handed over: {:.1} s", begun.elapsed().as_secs_f64());
    let heads = handed["data"]["heads"].as_array().unwrap();
    for cut in result["data"]["cuts"].as_array().unwrap() {
        assert!(heads.iter().any(|head| head["manifest"] == cut["parent"]), "{cut:#}");
    }
    let data = cellar.mount(APP, "data").join("data");
    assert_eq!(std::fs::read_to_string(data.join("starts")).unwrap(), "started\nstarted\n");
    assert!(records(&data.join("log")) > 2);

    // The first one hears that it is over, and follows.
    hive.over(&attic.id, APP, 2);
    hive.until(&attic.id, SOON, "standing by", |app| app["phase"] == "standing_by");
    no_canary(&hive, &[&attic, &cellar]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_auto_app_stops_when_the_hive_falls_silent_and_never_again_runs_in_its_term() {
    let Scene { hive, attic, .. } = running("auto", "always", "");
    hive.silence(&attic.id, true);
    let took = attic.until(Duration::from_secs(90), "stopped", |machine| machine.containers().is_empty());
    eprintln!("containers are gone {:.1} s after the hive fell silent", took.as_secs_f64());
    assert!(took < Duration::from_secs(46), "{took:?}");
    hive.silence(&attic.id, false);
    let app = hive.until(&attic.id, SOON, "told", |app| app["phase"] == "stopped");
    assert_eq!(app["why"], "lease_over");
    std::thread::sleep(Duration::from_secs(5));
    assert!(attic.containers().is_empty());
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_manual_app_goes_on_without_the_hive_and_through_a_crash_of_the_device() {
    let Scene { hive, mut attic, .. } = running("manual", "always", "");
    hive.silence(&attic.id, true);
    let before = attic.containers();
    attic.kill();
    let log = attic.mount(APP, "data").join("data/log");
    let written = records(&log);
    std::thread::sleep(Duration::from_secs(2));
    attic.start();
    attic.until(SOON, "running again", |machine| {
        let status = machine.comb(&["device", "status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["apps"][0]["phase"] == "running" && status["apps"][0]["containers"][0]["state"] == "running"
    });
    assert_eq!(attic.containers(), before, "what runs is adopted");
    assert!(records(&log) > written);

    // A container that dies is started again by the device, as its file says.
    docker(&["kill", &before[0]]);
    attic.until(SOON, "started again", |machine| machine.containers() == before);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_mount_that_dies_takes_the_app_down_and_brings_it_back() {
    let Scene { hive, attic, .. } = running("manual", "always", "");
    let status = attic.json(&["status", "--json"]);
    let pid = status.as_array().unwrap().iter().find_map(|one| one["mounts"][0]["pid"].as_u64()).unwrap();
    let written = records(&attic.mount(APP, "data").join("data/log"));
    let before = attic.containers();
    docker_free_kill(pid);
    attic.until(SOON, "running with another container", |machine| {
        let now = machine.containers();
        !now.is_empty() && now != before
    });
    hive.until(&attic.id, SOON, "running", |app| app["phase"] == "running" && app["health"] == "healthy");
    assert!(records(&attic.mount(APP, "data").join("data/log")) >= written);
}

fn docker_free_kill(pid: u64) {
    let done = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn moments_rollback_restart_and_an_update_that_goes_back() {
    let Scene { hive, attic, .. } = running("manual", "always", "");
    let log = attic.mount(APP, "data").join("data/log");
    let order = |command: Value| {
        let mut command = command;
        (command["app"], command["term"], command["generation"]) = (json!(APP), json!(1), json!(2));
        let number = hive.order(&attic.id, command);
        hive.result(&attic.id, number, SOON)
    };
    let taken = order(
        json!({ "do": "snapshot", "tag": "before", "message": sealed(&attic, "canary of the message") }),
    );
    assert_eq!(taken["state"], "done", "{taken:#}");
    let kept = attic.json(&["log", &volume_name(APP.parse().unwrap(), "data"), "--at", "before", "--json"]);
    assert_eq!(kept[0]["snapshot"]["message"], "canary of the message");
    let foreign =
        order(json!({ "do": "snapshot", "tag": "foreign", "message": "Y2FuYXJ5IG9mIHRoZSBtZXNzYWdl" }));
    assert_eq!(foreign["code"], "package_sealed", "{foreign:#}");
    assert_eq!(taken["data"]["moment"]["volumes"].as_array().unwrap().len(), 2, "{taken:#}");
    let then = records(&log);
    std::thread::sleep(Duration::from_secs(3));
    assert!(records(&log) > then);
    let moments = order(json!({ "do": "moments" }));
    let moments = moments["data"]["moments"].as_array().unwrap().clone();
    let before = moments.iter().find(|moment| moment["tag"] == "before").unwrap();
    assert_eq!((before["reason"].as_str(), before["volumes"].as_array().unwrap().len()), (Some("asked"), 2));

    let back = order(json!({ "do": "rollback", "to": "before", "start": null }));
    assert_eq!(back["state"], "done", "{back:#}");
    let starts = std::fs::read_to_string(log.with_file_name("starts")).unwrap();
    assert_eq!(starts, "started\nstarted\n", "what was started since is in the past");
    let none = order(json!({ "do": "rollback", "to": "never-was", "start": null }));
    assert_eq!((none["state"].as_str(), none["code"].as_str()), (Some("failed"), Some("instant_torn")));

    let restarted = order(json!({ "do": "restart", "services": null }));
    assert_eq!(restarted["state"], "done", "{restarted:#}");

    // The new one spoils the data, and ends.
    hive.put_package(APP, 2, package(&attic, 2, "echo spoilt > /data/log; sleep 1; exit 3", "\"no\"", ""));
    let updated = order(json!({ "do": "update", "revision": 2 }));
    assert_eq!(
        (updated["state"].as_str(), updated["code"].as_str()),
        (Some("failed"), Some("update_rolled_back"))
    );
    records(&log);
    hive.until(&attic.id, SOON, "the old one", |app| app["phase"] == "running" && app["revision"] == 1);
    let moments = order(json!({ "do": "moments" }));
    let kept = moments["data"]["moments"]
        .as_array()
        .unwrap()
        .iter()
        .any(|moment| moment["reason"] == "update-failed");
    assert!(kept, "what the new one wrote stays a moment");

    hive.put_package(APP, 3, package(&attic, 3, WRITES, "always", "x-comb:\n  update: {stable: 2s}\n"));
    let updated = order(json!({ "do": "update", "revision": 3 }));
    assert_eq!(updated["state"], "done", "{updated:#}");
    hive.until(&attic.id, SOON, "the new one", |app| app["phase"] == "running" && app["revision"] == 3);

    // An older one is the owner's too, and over all the same: what it was mended for is in it.
    let refused = order(json!({ "do": "update", "revision": 1 }));
    assert_eq!(refused["code"], "package_wrong", "{refused:#}");
    let refused = order(
        json!({ "do": "fork", "to": null, "branches": null, "seed": "5b5b5b5b5b5b4b5b8b5b5b5b5b5b5b5b", "new_name": "old", "revision": 1 }),
    );
    assert_eq!(refused["code"], "package_wrong", "{refused:#}");
    hive.until(&attic.id, SOON, "the new one still", |app| app["phase"] == "running" && app["revision"] == 3);
    no_canary(&hive, &[&attic]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn what_cannot_run_is_refused_with_its_place_and_nothing_is_left() {
    let hive = Hive::start();
    let attic = Machine::join(&hive, "attic");
    let store = store(&attic.folder.path().join("store"));
    let tries = [
        ("exit 7", "\"no\"", "", "exits", "service"),
        ("sleep 1000", "always\n    privileged: true", "", "policy_refused", "line"),
    ];
    for (number, (command, restart, more, code, field)) in (1..).zip(tries) {
        hive.put_package(APP, number, package(&attic, number, command, restart, more));
        let ordered = hive.order(&attic.id, start(number, number, "manual", new_volumes(), &store));
        let result = hive.result(&attic.id, ordered, SOON);
        assert_eq!(
            (result["state"].as_str(), result["code"].as_str()),
            (Some("failed"), Some(code)),
            "{result:#}"
        );
        assert!(!result["problem"][field].is_null(), "{result:#}");
        assert!(attic.containers().is_empty());
    }
    // A command of a term that is over is not done.
    let number = hive.order(&attic.id, start(1, 1, "manual", new_volumes(), &store));
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(result["code"], "term_over", "{result:#}");
    no_canary(&hive, &[&attic]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn logs_and_actions_come_sealed() {
    let more = "x-comb:\n  actions:\n    say:\n      service: web\n      argv: [\"echo\", \"canary-of-the-output\", \"{word}\"]\n      \
                input: {word: name}\n";
    let Scene { hive, attic, .. } = running("manual", "always", more);
    let id = "0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f";
    let number = hive.order(
        &attic.id,
        json!({ "app": APP, "term": 1, "generation": 2, "do": "action", "name": "say",
                "input": [{ "name": "word", "value": "hello" }], "stream": id }),
    );
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(
        (result["state"].as_str(), result["data"]["exit"].as_i64()),
        (Some("done"), Some(0)),
        "{result:#}"
    );
    let text = read_stream(&hive, &attic, id);
    let line: &Value = &text[0];
    assert_eq!(
        (line["service"].as_str(), line["text"].as_str()),
        (Some("web"), Some("canary-of-the-output hello"))
    );
    no_canary(&hive, &[&attic]);
}

/// What is said of a moment, as who has the ring says it.
fn sealed(machine: &Machine, text: &str) -> String {
    let ring = super::apps::ring(machine);
    STANDARD.encode(message::seal(ring.owner(), APP.parse().unwrap(), text, &[7; 32]))
}

/// The lines of a stream, as who has the ring reads them.
pub fn read_stream(hive: &Hive, machine: &Machine, stream: &str) -> Vec<Value> {
    let parts = hive.stream(&machine.id, stream);
    let ring = super::apps::ring(machine);
    let id = stream.parse::<orchestrator_api::text::Uuid>().unwrap().0;
    let mut text = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let salt: [u8; 32] = part[..32].try_into().unwrap();
        let (sealed, tag) = part[32..].split_at(part.len() - 48);
        let mut plain = sealed.to_vec();
        let mut associated = id.to_vec();
        associated.push(u8::from(number + 1 == parts.len()));
        let cipher = ring.owner().stream_cipher(&id, &salt);
        cipher.open(number as u64, &associated, &mut plain, tag.try_into().unwrap()).unwrap();
        text.extend(plain);
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Nothing secret crossed the wire or stands in a log.
#[track_caller]
pub fn no_canary(hive: &Hive, machines: &[&Machine]) {
    let words = [
        "canary-of-the-secret",
        "canary of the package",
        "canary of the message",
        "canary-of-the-output",
        PASSPHRASE,
    ];
    let mut places: Vec<(String, Vec<u8>)> =
        hive.received().into_iter().map(|bytes| ("the wire".to_owned(), bytes)).collect();
    places.extend(machines.iter().map(|machine| ("a log".to_owned(), machine.log().into_bytes())));
    for (place, bytes) in places {
        for word in words {
            assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word:?} is in {place}");
        }
    }
}
