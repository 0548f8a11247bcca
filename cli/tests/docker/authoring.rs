//! Packages that a device makes: of a fork, and for a hive that was allowed to install apps.

use std::time::Duration;

use orchestrator_device::app::package::{Wanted, open_own};
use serde_json::{Value, json};

use super::apps::{APP, file, new_volumes, records, ring, start};
use super::hive::Hive;
use super::machine::{Machine, docker, image, store};
use super::orders::{SOON, Scene, no_canary, running};

const COPY: &str = "4a4a4a4a-4a4a-4a4a-8a4a-4a4a4a4a4a4a";
const SITE: &str = "5b5b5b5b-5b5b-4b5b-8b5b-5b5b5b5b5b5b";

/// The package of a device's making, opened by its owner.
fn opened(hive: &Hive, machine: &Machine, app: &str) -> orchestrator_device::app::package::Package {
    let sealed = hive.package(app, 1).expect("the hive has it");
    open_own(&sealed, ring(machine).owner(), Wanted { app: app.parse().unwrap(), revision: 1 }).unwrap()
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_fork_is_an_app_of_its_own_with_the_data_of_a_moment() {
    let Scene { hive, attic, store, .. } = running("manual", "always", "");
    let log = attic.mount(APP, "data").join("data/log");
    let order = |mut command: Value| {
        (command["app"], command["term"], command["generation"]) = (json!(APP), json!(1), json!(2));
        let number = hive.order(&attic.id, command);
        hive.result(&attic.id, number, SOON)
    };
    let taken = order(json!({ "do": "snapshot", "tag": "before", "message": null, "keep_s": null }));
    assert_eq!(taken["state"], "done", "{taken:#}");
    let then = records(&log);
    std::thread::sleep(Duration::from_secs(2));

    let fork = |to: &str| json!({ "do": "fork", "to": to, "branches": null, "new_app": COPY, "new_name": "copy", "revision": 1 });
    let volumes = || attic.json(&["volume", "list", "--json"]).as_array().unwrap().len();
    let none = order(fork("never-was"));
    assert_eq!((none["state"].as_str(), none["code"].as_str()), (Some("failed"), Some("instant_torn")));
    assert_eq!((volumes(), hive.package(COPY, 1)), (2, None), "nothing was made");

    let made = order(fork("before"));
    assert_eq!(made["state"], "done", "{made:#}");
    assert_eq!(made["data"]["revision"], 1);
    let made_of = made["data"]["volumes"].as_array().unwrap().clone();
    let writers = made["data"]["writers"].as_array().unwrap();
    assert_eq!((made_of.len(), writers.len(), volumes()), (2, 2, 4), "{made:#}");
    let package = opened(&hive, &attic, COPY);
    assert_eq!(package.authorization.name, "copy");
    assert_eq!(package.authorization.author.unwrap().to_string(), attic.id);
    let domain = package.authorization.domain.unwrap();
    assert!(domain.ends_with(".example.org") && !domain.starts_with("hasty-hopper"), "{domain}");
    assert_eq!(package.body.secrets[0].value, "canary-of-the-secret", "secrets too: the data knows them");

    // It starts beside the other one, as any app whose volumes nobody but this device wrote.
    let since =
        json!({ "since": { "epoch": 0, "seq": 0, "writers": [writers[0]["writer"], writers[1]["writer"]] } });
    let expected =
        made_of.iter().map(|one| json!({ "name": one["name"], "volume": one["volume"], "expect": since }));
    let mut command = start(1, 1, "manual", expected.collect(), &store);
    command["app"] = json!(COPY);
    let number = hive.order(&attic.id, command);
    let started = hive.result(&attic.id, number, SOON);
    assert_eq!(started["state"], "done", "{started:#}");
    assert_eq!(attic.containers().len(), 2, "both run");
    let copied = attic.mount(COPY, "data").join("data");
    assert_eq!(std::fs::read_to_string(copied.join("starts")).unwrap(), "started\nstarted\n");
    let written = records(&copied.join("log"));
    assert!(written >= then, "it goes on where the moment was: {written} after {then}");
    assert!(records(&log) > then, "and the first one where it was");
    no_canary(&hive, &[&attic]);
}

fn author(command: &str, more: &str) -> Value {
    let (name, _) = image();
    let compose = format!(
        "x-comb:\n  options:\n    - {{name: TITLE, default: none}}\n    - {{name: PASSWORD, type: secret}}\n\
         services:\n  web:\n    image: {name}\n    entrypoint: [\"sh\", \"-c\"]\n    command: [\"{command}\"]\n    \
         environment: {{TITLE: $TITLE, PASSWORD: $PASSWORD}}\n    volumes: [\"data:/data\"]\n{more}volumes:\n  data: {{}}\n"
    );
    json!({
        "app": null, "term": null, "generation": null, "do": "author", "name": "site", "new_app": SITE,
        "compose": "compose.yaml", "files": [file("compose.yaml", &compose)],
        "options": [{ "name": "TITLE", "value": "chosen" }],
    })
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_hive_installs_an_app_only_where_it_may_and_without_permissions() {
    let hive = Hive::start();
    let attic = Machine::join_with(&hive, "attic", &["--accept-authoring"]);
    let store = store(&attic.folder.path().join("store"));
    let order = |machine: &Machine, command: Value| {
        let number = hive.order(&machine.id, command);
        hive.result(&machine.id, number, SOON)
    };
    for (wrong, code) in [
        ("    privileged: true\n", "policy_refused"),
        ("    cap_add: [NET_ADMIN]\n", "policy_refused"),
        ("  made:\n    build: .\n", "policy_refused"),
    ] {
        let refused = order(&attic, author("sleep 1000", wrong));
        assert_eq!(
            (refused["state"].as_str(), refused["code"].as_str()),
            (Some("failed"), Some(code)),
            "{wrong}"
        );
        assert_eq!(hive.package(SITE, 1), None);
    }
    let said = "echo $$TITLE $$PASSWORD > /data/said; sleep 1000";
    let made = order(&attic, author(said, ""));
    assert_eq!((made["state"].as_str(), &made["data"]["revision"]), (Some("done"), &json!(1)), "{made:#}");
    let package = opened(&hive, &attic, SITE);
    assert_eq!(package.authorization.author.unwrap().to_string(), attic.id);
    assert!(package.authorization.permissions.is_empty());
    let devices = serde_json::to_value(&package.authorization.devices).unwrap();
    assert_eq!(devices, json!([attic.id]), "no other device said that the hive may");
    let password = package.body.secrets[0].value.clone();
    assert_eq!(password.len(), 24);

    let data = json!([new_volumes()[0]]);
    let mut command = start(1, 1, "manual", data, &store);
    command["app"] = json!(SITE);
    let started = order(&attic, command);
    assert_eq!(started["state"], "done", "{started:#}");
    let id = &attic.containers()[0];
    assert_eq!(docker(&["exec", id, "cat", "/data/said"]), format!("chosen {password}"));

    let cellar = Machine::join(&hive, "cellar");
    let refused = order(&cellar, author("sleep 1000", ""));
    assert_eq!(refused["code"], "policy_refused", "{refused:#}");
    let wire = hive.received();
    assert!(!wire.iter().any(|bytes| bytes.windows(24).any(|part| part == password.as_bytes())));
}
