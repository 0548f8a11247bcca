//! Programs that run and never get well: at a start, an update and a planned move.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::apps::{APP, new_volumes, records, sealed, start};
use super::hive::Hive;
use super::home::{Home, containers_of};
use super::machine::{Machine, docker, image, store};
use super::orders::SOON;

/// A service that writes on, and says of itself what a file in the container says.
fn compose(image: &str, startup: &str, first: &str) -> String {
    let writes = "trap 'exit 0' TERM; i=$$(wc -l < /data/log 2>/dev/null || echo 0); \
                  while true; do i=$$((i+1)); echo $$i >> /data/log; sync /data/log; sleep 0.2 & wait $$!; done";
    let command = serde_json::to_string(&format!("echo started >> /data/starts; {first}; {writes}")).unwrap();
    format!(
        "x-comb:\n  health: {{startup: {startup}}}\n  update: {{stable: 2s}}\nservices:\n  web:\n    image: {image}\n    \
         user: \"0:0\"\n    entrypoint: [\"sh\", \"-c\"]\n    command: [{command}]\n    restart: always\n    stop_grace_period: 1s\n    \
         healthcheck: {{test: [\"CMD\", \"test\", \"-e\", \"/tmp/well\"], interval: 1s, retries: 1, start_period: 0s}}\n    \
         ports: [\"8000\"]\n    volumes: [\"data:/data\", \"./seed:/seed\"]\nvolumes:\n  data: {{}}\n"
    )
}

fn code(result: &Value) -> &str {
    result["code"].as_str().unwrap_or_default()
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_program_that_never_gets_well_is_stopped_at_its_start_and_taken_back_at_its_update() {
    let hive = Hive::start();
    let attic = Machine::join(&hive, "attic");
    let store = store(&attic.folder.path().join("store"));
    let (name, id) = image();
    let services =
        |image: &str, id: &str| json!([{ "name": "web", "image": image, "digest": id, "pull": false }]);
    let put = |revision: u64, compose: String, services: Value, seconds: u64| {
        let changed = json!({ "services": services, "health_seconds": seconds });
        hive.put_package(APP, revision, sealed(&attic, revision, &compose, changed));
    };

    // At its start: it has all its time, and what it wrote stays.
    put(1, compose(&name, "8s", "true"), services(&name, &id), 8);
    let begun = Instant::now();
    let number = hive.order(&attic.id, start(1, 1, "manual", new_volumes(), &store));
    hive.until(&attic.id, SOON, "starting", |app| app["phase"] == "starting" && app["health"] == "starting");
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(
        (code(&result), result["problem"]["service"].as_str()),
        ("unhealthy", Some("web")),
        "{result:#}"
    );
    assert!(begun.elapsed() > Duration::from_secs(8), "it was not given its time: {:?}", begun.elapsed());
    assert!(attic.containers().is_empty(), "what is not well is stopped");
    let app = hive.until(&attic.id, SOON, "told", |app| app["phase"] == "stopped");
    assert_eq!(
        (app["why"].as_str(), app["problem"]["code"].as_str()),
        (Some("failed"), Some("unhealthy")),
        "{app:#}"
    );

    // One that is well goes on with what the other one wrote.
    put(2, compose(&name, "20s", "touch /tmp/well"), services(&name, &id), 20);
    let number = hive.order(&attic.id, start(2, 2, "manual", new_volumes(), &store));
    let started = hive.result(&attic.id, number, SOON);
    assert_eq!(started["state"], "done", "{started:#}");
    let data = attic.mount(APP, "data").join("data");
    assert_eq!(fs::read_to_string(data.join("starts")).unwrap(), "started\nstarted\n");
    let kept = records(&data.join("log"));
    assert!(kept > 5, "the first one wrote for 8 s: {kept}");

    // At its update, with another image that spoils the data: image and data go back.
    let container = docker(&["create", &name]);
    let other = "comb-fixtures/other:1";
    docker(&["commit", "--change", "ENV COLOUR=blue", &container, other]);
    docker(&["rm", &container]);
    let other_id = docker(&["image", "inspect", "-f", "{{.Id}}", other]);
    put(3, compose(other, "6s", "echo spoilt > /data/log; touch /data/new"), services(other, &other_id), 6);
    let number = hive
        .order(&attic.id, json!({ "app": APP, "term": 2, "generation": 3, "do": "update", "revision": 3 }));
    let updated = hive.result(&attic.id, number, SOON);
    assert_eq!(
        (code(&updated), updated["problem"]["service"].as_str()),
        ("update_rolled_back", Some("web")),
        "{updated:#}"
    );
    hive.until(&attic.id, SOON, "the old one", |app| {
        app["phase"] == "running" && app["revision"] == 2 && app["health"] == "healthy"
    });
    let environment = docker(&["exec", &attic.containers()[0], "env"]);
    assert!(!environment.contains("COLOUR"), "the old image runs: {environment}");
    assert!(!data.join("new").exists() && records(&data.join("log")) >= kept, "with its data");
    let number = hive.order(&attic.id, json!({ "app": APP, "term": 2, "generation": 3, "do": "moments" }));
    let moments = hive.result(&attic.id, number, SOON);
    let reasons: Vec<&Value> =
        moments["data"]["moments"].as_array().unwrap().iter().map(|one| &one["reason"]).collect();
    assert!(reasons.contains(&&json!("update-failed")), "what it wrote stays a moment: {reasons:?}");
    docker(&["rmi", "-f", other]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_planned_move_to_where_it_never_gets_well_takes_the_way_back() {
    let home = Home::new();
    let cellar = home.another("cellar");
    let folder = home.path("diary");
    fs::create_dir_all(folder.join("seed")).unwrap();
    fs::write(folder.join("seed/first"), "x").unwrap();
    fs::write(folder.join("compose.yaml"), compose(&image().0, "15s", "true")).unwrap();

    // What runs on the attic is well, and nowhere else.
    let (attic, ended) = (home.device_id(), Arc::new(AtomicBool::new(false)));
    let nurse = {
        let ended = ended.clone();
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for one in containers_of(&attic) {
                    let _ = Command::new("docker").args(["exec", &one, "touch", "/tmp/well"]).output();
                }
                thread::sleep(Duration::from_millis(300));
            }
        })
    };
    home.done(&["app", "add", "diary", "--device", "attic", "--passphrase-file", "passphrase"]);
    let data = home.mount("diary", "data");
    home.until("writing", |_| records(&data.join("log")) > 5);
    let before = records(&data.join("log"));

    let begun = Instant::now();
    let words = home.refused(&["app", "move", "diary", "--to", "cellar"], 1);
    eprintln!("taken back after {:.1} s: {words}", begun.elapsed().as_secs_f64());
    assert!(words.contains("healthy") || words.contains("well"), "it is told why: {words}");
    assert!(containers_of(&cellar.id).is_empty(), "nothing runs at the target");
    home.until("running where it was", |home| {
        let app = home.app("diary");
        app["report"]["phase"] == "running" && app["report"]["health"] == "healthy"
    });
    let data = home.mount("diary", "data");
    assert!(records(&data.join("log")) >= before, "every record is there, without a hole");
    // The start at the target is in the past, and no record of it is among those that count.
    assert_eq!(fs::read_to_string(data.join("starts")).unwrap(), "started\nstarted\n");
    let log = home.done(&["app", "log", "diary", "--json"]);
    assert!(log.contains("move-failed"), "what the target wrote stays a moment: {log}");
    ended.store(true, Ordering::Relaxed);
    nurse.join().unwrap();
}
