//! What goes wrong around a device, and what comes of it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::apps::{APP, exactly, new_volumes, records, sealed, start};
use super::hive::Hive;
use super::machine::{Machine, docker, docker_socket, image, store};
use super::orders::{SOON, Scene, running};

/// An order about the app in its first term, and what came of it.
fn order(scene: &Scene, mut command: Value) -> Value {
    (command["app"], command["term"], command["generation"]) = (json!(APP), json!(1), json!(2));
    let number = scene.hive.order(&scene.attic.id, command);
    scene.hive.result(&scene.attic.id, number, SOON)
}

fn code(result: &Value) -> &str {
    result["code"].as_str().unwrap_or_default()
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn forgetting_closes_an_app_and_removes_its_data_only_if_it_is_asked_for() {
    let scene = running("manual", "always", "");
    let attic = &scene.attic;
    assert_eq!(attic.containers().len(), 1);
    let volumes = || attic.json(&["volume", "list", "--json"]).as_array().unwrap().len();
    let mounted = || {
        std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&*attic.state().to_string_lossy())
    };

    // One that runs is stopped first.
    assert_eq!(order(&scene, json!({ "do": "forget", "keep_data": true }))["state"], "done");
    assert_eq!((volumes(), mounted()), (2, false));
    assert!(attic.apps().read_dir().unwrap().next().is_none(), "the files of its package are gone");
    let filter = format!("label=io.comb.device={}", attic.id);
    assert_eq!(docker(&["ps", "-aq", "--filter", &filter]), "");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &filter]), "");

    let scene = running("manual", "always", "");
    assert_eq!(order(&scene, json!({ "do": "forget", "keep_data": false }))["state"], "done");
    assert_eq!(scene.attic.json(&["volume", "list", "--json"]), json!([]));
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn hooks_run_in_their_service_and_one_that_fails_is_told() {
    let hooks = "x-comb:\n  hooks:\n    before_snapshot: {service: web, argv: [\"sh\", \"-c\", \"echo before >> /data/hooks; test ! -e /data/broken\"]}\n    \
                 after_snapshot: {service: web, argv: [\"sh\", \"-c\", \"echo after >> /data/hooks\"]}\n    \
                 after_restore: {service: web, argv: [\"sh\", \"-c\", \"echo restored >> /data/hooks\"]}\n";
    let scene = running("manual", "always", hooks);
    let hooks = scene.attic.mount(APP, "data").join("data/hooks");
    let snapshot = |tag: &str| json!({ "do": "snapshot", "tag": tag, "message": null });
    let taken = order(&scene, snapshot("one"));
    assert_eq!(taken["state"], "done", "{taken:#}");
    assert_eq!(std::fs::read_to_string(&hooks).unwrap(), "before\nafter\n");

    let back = order(&scene, json!({ "do": "rollback", "to": "one", "start": null }));
    assert_eq!(back["state"], "done", "{back:#}");
    assert_eq!(
        std::fs::read_to_string(&hooks).unwrap(),
        "before\nrestored\n",
        "of the moment, and what was run since"
    );

    std::fs::write(hooks.with_file_name("broken"), "").unwrap();
    let failed = order(&scene, snapshot("two"));
    assert_eq!(
        (code(&failed), failed["problem"]["service"].as_str()),
        ("hook_failed", Some("web")),
        "{failed:#}"
    );
    let moments = order(&scene, json!({ "do": "moments" }));
    let tags: Vec<&Value> =
        moments["data"]["moments"].as_array().unwrap().iter().map(|one| &one["tag"]).collect();
    assert!(tags.contains(&&json!("one")) && !tags.contains(&&json!("two")), "{tags:?}");
    assert_eq!(scene.attic.containers().len(), 1, "and the app runs on");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn the_gate_asks_the_page_that_the_file_names() {
    let hive = Hive::start();
    let attic = Machine::join(&hive, "attic");
    let store = store(&attic.folder.path().join("store"));
    let (name, _) = image();
    let page = |revision: u64, contains: &str, status: &str| {
        let compose = format!(
            "x-comb:\n  health:\n    startup: 12s\n    http: {{service: web, port: 8000, path: /page.txt, contains: {contains}{status}}}\n\
             services:\n  web:\n    image: {name}\n    entrypoint: [\"sh\", \"-c\"]\n    \
             command: [\"sleep 2; mkdir -p /tmp/www && cd /tmp/www && echo canary of the page > page.txt && exec python3 -m http.server 8000\"]\n    \
             ports: [\"8000\"]\n    volumes: [\"data:/data\", \"./seed:/seed\"]\nvolumes:\n  data: {{}}\n"
        );
        hive.put_package(APP, revision, sealed(&attic, revision, &compose, json!({ "health_seconds": 12 })));
        let begun = Instant::now();
        let number = hive.order(&attic.id, start(revision, revision, "manual", new_volumes(), &store));
        (hive.result(&attic.id, number, SOON), begun.elapsed())
    };
    let (wrong, _) = page(1, "something else", "");
    assert_eq!((code(&wrong), wrong["problem"]["service"].as_str()), ("unhealthy", Some("web")), "{wrong:#}");
    assert!(attic.containers().is_empty(), "what is not well is stopped");
    let (wrong, _) = page(2, "canary", ", status: [204]");
    assert_eq!(code(&wrong), "unhealthy", "{wrong:#}");
    let (well, took) = page(3, "canary of the page", "");
    assert_eq!(well["state"], "done", "{well:#}");
    assert!(took > Duration::from_secs(2), "it waited for the page: {took:?}");
}

/// A registry that says the same to everybody.
fn registry(status: &'static str, code: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut first = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let _ = reader.read_line(&mut first);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            // The question whether there is a registry is answered by all.
            let status = if first.starts_with("GET /v2/ ") { "200 OK" } else { status };
            let body =
                json!({ "errors": [{ "code": code, "message": "canary of the registry" }] }).to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ndocker-distribution-api-version: registry/2.0\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_image_that_no_registry_gives_is_told_and_nothing_is_left() {
    let hive = Hive::start();
    let attic = Machine::join(&hive, "attic");
    let store = store(&attic.folder.path().join("store"));
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let tries = [
        (registry("404 Not Found", "MANIFEST_UNKNOWN"), "image_unknown"),
        // The engine takes it for one that does not exist, as registries do not tell the two apart to strangers.
        (registry("403 Forbidden", "DENIED"), "image_unknown"),
        (registry("500 Internal Server Error", "UNKNOWN"), "pull_failed"),
        (nobody, "pull_failed"),
    ];
    for (number, (port, expected)) in (1..).zip(tries) {
        let name = format!("127.0.0.1:{port}/photos/web");
        let compose = format!(
            "services:\n  web:\n    image: {name}:1\n    ports: [\"8000\"]\n    volumes: [\"data:/data\", \"./seed:/seed\"]\nvolumes:\n  data: {{}}\n"
        );
        let services = json!([{ "name": "web", "image": format!("{name}:1"), "digest": format!("sha256:{}", "ab".repeat(32)), "pull": true }]);
        hive.put_package(APP, number, sealed(&attic, number, &compose, json!({ "services": services })));
        let ordered = hive.order(&attic.id, start(number, number, "manual", new_volumes(), &store));
        let result = hive.result(&attic.id, ordered, Duration::from_secs(240));
        assert_eq!(
            (code(&result), result["problem"]["service"].as_str()),
            (expected, Some("web")),
            "{result:#}"
        );
        assert!(attic.containers().is_empty());
    }
    for bytes in hive.received() {
        assert!(!bytes.windows(6).any(|part| part == b"canary"), "a registry's words were told");
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_target_is_filled_before_it_is_ready_and_starts_with_what_was_handed_over() {
    let scene = running("manual", "always", "");
    let Scene { hive, attic, store, cuts } = &scene;
    const MIB: u64 = 40;
    let noise = attic.mount(APP, "data").join("data/noise");
    let wrote = Command::new("dd")
        .args([
            "if=/dev/urandom",
            &format!("of={}", noise.display()),
            "bs=1M",
            &format!("count={MIB}"),
            "conv=fsync",
        ])
        .output()
        .unwrap();
    assert!(wrote.status.success());
    assert_eq!(order(&scene, json!({ "do": "snapshot", "tag": "full", "message": null }))["state"], "done");
    let synced = attic.comb(&["sync", "app-3f2504e0-data", "--wait", "--limit", "60s"]);
    assert!(synced.status.success(), "{}", String::from_utf8_lossy(&synced.stderr));

    let cellar = Machine::join(hive, "cellar");
    let named =
        cuts.as_array().unwrap().iter().map(|cut| json!({ "name": cut["name"], "volume": cut["volume"] }));
    let prepare = |fill: bool, number: u64| {
        let volumes: Value = named.clone().collect();
        let command = json!({
            "app": APP, "term": number, "generation": 2, "do": "prepare", "revision": 1, "stores": store,
            "volumes": volumes, "fill": fill,
        });
        let number = hive.order(&cellar.id, command);
        hive.result(&cellar.id, number, SOON)
    };
    let ready = prepare(true, 1);
    assert_eq!(ready["state"], "done", "{ready:#}");
    assert_eq!(ready["data"]["missing_bytes"], 0, "{ready:#}");
    assert_eq!(ready["data"]["writers"].as_array().unwrap().len(), 2);
    hive.until(&cellar.id, SOON, "standing by", |app| {
        app["phase"] == "standing_by" && app["missing_bytes"] == 0
    });
    let here: u64 = packs(&cellar.state());
    assert!(here > MIB << 20, "the packs are here before the app was stopped: {here}");
    assert_eq!(attic.containers().len(), 1, "it ran on meanwhile");

    let handed = order(&scene, json!({ "do": "hand_over", "to": null }));
    let begun = Instant::now();
    let volumes = exactly(cuts, &handed["data"]["heads"]);
    let number = hive.order(&cellar.id, start(2, 1, "manual", volumes, store));
    let result = hive.result(&cellar.id, number, SOON);
    assert_eq!(result["state"], "done", "{result:#}");
    eprintln!("with {MIB} MiB that were brought ahead: {:.1} s", begun.elapsed().as_secs_f64());
    let there = cellar.mount(APP, "data").join("data/noise");
    assert_eq!(std::fs::metadata(there).unwrap().len(), MIB << 20);
}

/// Bytes of packs below a state folder.
fn packs(folder: &Path) -> u64 {
    let said = Command::new("find")
        .arg(folder.join("volumes"))
        .args(["-path", "*/packs/*", "-type", "f", "-printf", "%s\n"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&said.stdout).lines().map(|line| line.parse::<u64>().unwrap()).sum()
}

/// Does something to the engine under test.
pub fn engine(action: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/docker");
    let socket = docker_socket();
    let name = socket.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let done = Command::new(script).args([action, &name]).output().unwrap();
    assert!(done.status.success(), "{action}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_engine_that_restarts_starts_nothing_and_the_device_everything() {
    let scene = running("manual", "always", "");
    let Scene { hive, attic, .. } = &scene;
    let log = attic.mount(APP, "data").join("data/log");
    engine("halt");
    let report = || hive.report(&attic.id).unwrap();
    attic.until(SOON, "told", |_| {
        ["stopped", "missing"].contains(&report()["docker"].as_str().unwrap())
            && report()["apps"][0]["health"] == "unknown"
    });
    let written = records(&log);
    engine("resume");
    attic.until(SOON, "running again", |machine| machine.containers().len() == 1);
    hive.until(&attic.id, SOON, "told", |app| app["phase"] == "running" && app["health"] == "healthy");
    attic.until(SOON, "writing again", |_| records(&log) > written);
    let starts = std::fs::read_to_string(log.with_file_name("starts")).unwrap();
    assert_eq!(starts, "started\nstarted\n");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_engine_that_restarts_while_an_app_starts_fails_nothing() {
    let scene = running("manual", "always", "");
    let Scene { hive, attic, .. } = &scene;
    let restart = json!({ "do": "restart", "services": null, "app": APP, "term": 1, "generation": 2 });
    let number = hive.order(&attic.id, restart);
    hive.until(&attic.id, SOON, "starting", |app| app["phase"] == "starting");
    engine("halt");
    attic.until(SOON, "told", |_| {
        ["stopped", "missing"].contains(&hive.report(&attic.id).unwrap()["docker"].as_str().unwrap())
    });
    // Longer than another device under a lease would wait for it.
    std::thread::sleep(Duration::from_secs(70));
    assert_eq!(hive.app(&attic.id)["phase"], "starting");
    assert_eq!(hive.app(&attic.id)["problem"]["code"], "docker_stopped");
    engine("resume");
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(result["state"], "done", "{result:#}");
    hive.until(&attic.id, SOON, "told", |app| app["phase"] == "running" && app["health"] == "healthy");
}

/// The engine's process stands still for as long as this lives; containers do not.
struct Still(String);

impl Still {
    fn begin() -> Self {
        let pid = std::fs::read_to_string(docker_socket().with_file_name("dockerd.pid")).unwrap();
        let still = Self(pid.trim().to_owned());
        assert!(Command::new("kill").args(["-STOP", &still.0]).status().unwrap().success());
        still
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        Command::new("kill").args(["-CONT", &self.0]).status().unwrap();
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_engine_that_does_not_answer_takes_nothing_down_and_loses_no_order() {
    let scene = running("auto", "always", "");
    let Scene { hive, attic, .. } = &scene;
    let log = attic.mount(APP, "data").join("data/log");
    let starts = || std::fs::read_to_string(log.with_file_name("starts")).unwrap();
    let told = |state: &str| {
        attic.until(SOON, state, |_| hive.report(&attic.id).unwrap()["docker"] == state);
    };
    let containers = attic.containers();
    let still = Still::begin();
    told("slow");
    // Longer than a lease: it is renewed, and what runs goes on.
    let written = records(&log);
    std::thread::sleep(Duration::from_secs(50));
    assert!(records(&log) > written + 10, "{written} records, then {}", records(&log));
    assert_eq!(hive.app(&attic.id)["phase"], "running");
    drop(still);
    told("ok");
    assert_eq!((attic.containers(), starts()), (containers, "started\n".to_owned()));

    let still = Still::begin();
    let restart = json!({ "do": "restart", "services": null, "app": APP, "term": 1, "generation": 2 });
    let number = hive.order(&attic.id, restart);
    std::thread::sleep(Duration::from_secs(20));
    let written = records(&log);
    drop(still);
    let result = hive.result(&attic.id, number, SOON);
    assert_eq!(result["state"], "done", "{result:#}");
    hive.until(&attic.id, SOON, "told", |app| app["phase"] == "running" && app["health"] == "healthy");
    attic.until(SOON, "writing again", |_| records(&log) > written);
    assert_eq!((attic.containers().len(), starts()), (1, "started\nstarted\n".to_owned()));
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_container_that_stands_still_for_no_moment_goes_on() {
    let scene = running("manual", "always", "");
    let log = scene.attic.mount(APP, "data").join("data/log");
    let containers = scene.attic.containers();
    docker(&["pause", &containers[0]]);
    scene.attic.until(SOON, "going on", |_| {
        docker(&["inspect", "-f", "{{.State.Paused}}", &containers[0]]) == "false"
    });
    let written = records(&log);
    scene.attic.until(SOON, "writing again", |_| records(&log) > written);
    assert_eq!(scene.attic.containers(), containers, "nothing was started again");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn after_a_power_cut_nothing_runs_before_its_mount() {
    let mut scene = running("manual", "always", "");
    let log = scene.attic.mount(APP, "data").join("data/log");
    let written = records(&log);
    cut(&mut scene);
    let Scene { attic, .. } = &mut scene;
    assert!(!log.exists(), "nothing is mounted");
    engine("resume");
    std::thread::sleep(Duration::from_secs(5));
    assert!(attic.containers().is_empty(), "Docker starts none of ours by itself");
    let bare = attic.mount(APP, "data");
    assert!(bare.read_dir().unwrap().next().is_none(), "nothing was written where the mount should be");
    attic.start();
    attic.until(SOON, "running again", |machine| machine.containers().len() == 1);
    attic.until(SOON, "writing again", |_| log.exists() && records(&log) > written);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn after_a_power_cut_an_auto_app_waits_for_its_lease() {
    let mut scene = running("auto", "always", "");
    scene.hive.silence(&scene.attic.id, true);
    cut(&mut scene);
    engine("resume");
    let Scene { attic, hive, .. } = &mut scene;
    attic.start();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        assert!(attic.containers().is_empty(), "it runs without a lease");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(&*attic.mount(APP, "data").to_string_lossy()),
            "it is mounted without a lease"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    hive.silence(&attic.id, false);
    attic.until(SOON, "running", |machine| machine.containers().len() == 1);
    let app = hive.until(&attic.id, SOON, "told", |app| app["phase"] == "running");
    assert_eq!(app["term"], 1, "a renewal that was answered is a lease for its term");
}

/// All at once: the engine, its containers, the device and the daemons of its volumes.
fn cut(scene: &mut Scene) {
    let attic = &mut scene.attic;
    let status = attic.json(&["status", "--json"]);
    let daemons: Vec<u64> =
        status.as_array().unwrap().iter().filter_map(|one| one["mounts"][0]["pid"].as_u64()).collect();
    assert_eq!(daemons.len(), 2);
    attic.kill();
    let containers = attic.containers();
    for id in &containers {
        let pid = docker(&["inspect", "-f", "{{.State.Pid}}", id]);
        Command::new("kill").args(["-9", &pid]).status().unwrap();
    }
    engine("halt");
    for pid in daemons {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    for name in ["data", "seed"] {
        let folder = attic.mount(APP, name);
        let _ = Command::new("umount").arg("-l").arg(&folder).output();
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_revoked_device_stops_its_apps_and_keeps_no_key_of_theirs() {
    let Scene { hive, mut attic, .. } = running("manual", "always", "");
    let own = attic.json(&["volume", "create", "photos", "--json"])["public_key"].clone();
    hive.revoke(&attic.id);
    assert_eq!(attic.ends(SOON), Some(8), "{}", attic.log());
    assert!(attic.log().contains("revoked"), "{}", attic.log());
    assert!(attic.containers().is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*attic.state().to_string_lossy()), "nothing is mounted");
    for gone in ["ring.key", "orchestrator/identity", "orchestrator/hive.json", "orchestrator/stores"] {
        assert!(!attic.state().join(gone).exists(), "{gone} is still here");
    }
    let left = Command::new("find").arg(attic.state()).args(["-name", "key", "-type", "f"]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout);
    assert_eq!(left.lines().count(), 1, "keys of its apps' volumes are gone too: {left}");
    assert!(left.contains(own.as_str().unwrap()), "what is no app's stays: {left}");
    assert!(attic.log().contains("photos"), "{}", attic.log());
    assert!(packs(&attic.state()) > 0, "packs stay");
    let again = attic.comb(&["device", "run"]);
    assert_eq!(again.status.code(), Some(3), "{}", String::from_utf8_lossy(&again.stderr));
}

/// An image that holds what the usual one holds and is for another processor, with its id.
fn foreign() -> (String, String) {
    let name = "comb-fixtures/foreign:1".to_owned();
    let processor = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };
    let (usual, _) = image();
    let container = docker(&["create", &usual]);
    let done = Command::new("sh")
        .args([
            "-c",
            "docker export \"$1\" | docker import --platform \"$2\" - \"$3\"",
            "sh",
            &container,
            processor,
            &name,
        ])
        .output()
        .unwrap();
    docker(&["rm", &container]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    (name.clone(), docker(&["image", "inspect", "-f", "{{.Id}}", &name]))
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_image_for_another_processor_is_refused_before_anything_is_touched() {
    let scene = running("manual", "always", "");
    let Scene { hive, attic, store, cuts } = &scene;
    let (name, id) = foreign();
    let services = json!([{ "name": "web", "image": name, "digest": id, "pull": false }]);
    let put = |revision: u64, platform: &str| {
        let compose = format!(
            "services:\n  web:\n    image: {name}\n{platform}    command: [\"sleep\", \"1000\"]\n    restart: \"no\"\n    \
             ports: [\"8000\"]\n    volumes: [\"data:/data\", \"./seed:/seed\"]\nvolumes:\n  data: {{}}\n"
        );
        let changed = json!({ "services": services, "health_seconds": 30 });
        hive.put_package(APP, revision, sealed(attic, revision, &compose, changed));
    };
    put(2, "");
    let (before, log) = (attic.containers(), attic.mount(APP, "data").join("data/log"));
    let mismatch = |result: &Value| {
        assert_eq!(
            (code(result), result["problem"]["service"].as_str()),
            ("arch_mismatch", Some("web")),
            "{result:#}"
        );
    };
    mismatch(&order(&scene, json!({ "do": "update", "revision": 2 })));
    assert_eq!(attic.containers(), before, "the old revision runs on, and was not stopped");
    let moments = order(&scene, json!({ "do": "moments" }));
    let reasons = moments["data"]["moments"].as_array().unwrap().iter().map(|one| one["reason"].clone());
    assert!(!reasons.into_iter().any(|reason| reason == "update"), "nothing was begun: {moments:#}");

    // A device that is to have it says so while it prepares, and the app runs on where it is.
    let cellar = Machine::join(hive, "cellar");
    let volumes: Value = cuts
        .as_array()
        .unwrap()
        .iter()
        .map(|cut| json!({ "name": cut["name"], "volume": cut["volume"] }))
        .collect();
    let prepare = json!({
        "app": APP, "term": 1, "generation": 2, "do": "prepare", "revision": 2, "stores": store,
        "volumes": volumes, "fill": false,
    });
    let number = hive.order(&cellar.id, prepare);
    mismatch(&hive.result(&cellar.id, number, SOON));
    let told = cellar.json(&["device", "status", "--json"]);
    let words = told["apps"][0]["problem"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(words.contains("is for") && words.contains("this machine has"), "{told:#}");
    let written = records(&log);
    attic.until(SOON, "writing on", |_| records(&log) > written);

    // Who says for which platform it is has chosen: then the engine decides.
    put(
        3,
        &format!(
            "    platform: {}\n",
            if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" }
        ),
    );
    let tried = order(&scene, json!({ "do": "update", "revision": 3 }));
    assert_ne!(code(&tried), "arch_mismatch", "{tried:#}");
    attic.until(SOON, "the old one again, or the new one", |machine| machine.containers().len() == 1);
    docker(&["rmi", "-f", &name]);
}
