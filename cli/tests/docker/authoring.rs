//! Packages that a device makes: of a fork, and for a hive that was allowed to install apps.

use std::time::Duration;

use orchestrator_api::ids::AppId;
use orchestrator_api::text::Hex;
use orchestrator_device::app::package::{Wanted, open_own};
use serde_json::{Value, json};

use super::apps::{APP, file, new_volumes, records, ring, start};
use super::hive::Hive;
use super::machine::{Machine, docker, image, store};
use super::orders::{SOON, Scene, no_canary, running};

const COPY: &str = "4a4a4a4a4a4a4a4a8a4a4a4a4a4a4a4a";
const SITE: &str = "5b5b5b5b5b5b4b5b8b5b5b5b5b5b5b5b";

/// The id that a device makes of a seed.
fn made_of(machine: &Machine, seed: &str) -> String {
    let seed: Hex<16> = seed.parse().unwrap();
    AppId::made(machine.id.parse().unwrap(), &seed.0).to_string()
}

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
    let taken = order(json!({ "do": "snapshot", "tag": "before", "message": null }));
    assert_eq!(taken["state"], "done", "{taken:#}");
    let then = records(&log);
    std::thread::sleep(Duration::from_secs(2));

    let fork = |to: &str| json!({ "do": "fork", "to": to, "branches": null, "seed": COPY, "new_name": "copy", "revision": 1 });
    let copy = made_of(&attic, COPY);
    let volumes = || attic.json(&["volume", "list", "--json"]).as_array().unwrap().len();
    let none = order(fork("never-was"));
    assert_eq!((none["state"].as_str(), none["code"].as_str()), (Some("failed"), Some("instant_torn")));
    assert_eq!((volumes(), hive.package(&copy, 1)), (2, None), "nothing was made");

    let made = order(fork("before"));
    assert_eq!(made["state"], "done", "{made:#}");
    assert_eq!(made["data"]["revision"], 1);
    let made_of = made["data"]["volumes"].as_array().unwrap().clone();
    let writers = made["data"]["writers"].as_array().unwrap();
    assert_eq!((made_of.len(), writers.len(), volumes()), (2, 2, 4), "{made:#}");
    let package = opened(&hive, &attic, &copy);
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
    command["app"] = json!(copy);
    let number = hive.order(&attic.id, command);
    let started = hive.result(&attic.id, number, SOON);
    assert_eq!(started["state"], "done", "{started:#}");
    assert_eq!(attic.containers().len(), 2, "both run");
    let copied = attic.mount(&copy, "data").join("data");
    assert_eq!(std::fs::read_to_string(copied.join("starts")).unwrap(), "started\nstarted\n");
    let written = records(&copied.join("log"));
    assert!(written >= then, "it goes on where the moment was: {written} after {then}");
    assert!(records(&log) > then, "and the first one where it was");
    no_canary(&hive, &[&attic]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_tail_that_a_returned_device_kept_becomes_an_app() {
    let Scene { hive, attic, store, .. } = running("manual", "always", "");
    let log = attic.mount(APP, "data").join("data/log");
    let app = hive.until(&attic.id, SOON, "reported", |app| app["volumes"][1]["state"] == "mounted");
    let expected = app["volumes"].as_array().unwrap().iter().map(|volume| {
        let name = attic.json(&["volume", "list", "--json"]);
        let named =
            name.as_array().unwrap().iter().find(|one| one["public_key"] == volume["volume"]).unwrap();
        let name = named["name"].as_str().unwrap().rsplit('-').next().unwrap().to_owned();
        let since = json!({ "epoch": volume["epoch"], "seq": 0, "writers": [volume["writer"]] });
        json!({ "name": name, "volume": volume["volume"], "expect": { "since": since } })
    });
    let expected: Value = expected.collect();
    hive.silence(&attic.id, true);
    let cellar = Machine::join(&hive, "cellar");
    let number = hive.order(&cellar.id, start(2, 1, "manual", expected, &store));
    let result = hive.result(&cellar.id, number, SOON);
    // Both have one engine here, in which the first one's containers still run: it gets as far as the claim.
    assert_eq!(result["code"], "compose_failed", "{result:#}");
    assert_eq!(result["data"]["heads"].as_array().unwrap().len(), 2, "{result:#}");
    let log_of = |machine: &Machine, app: &str, folder: &str| {
        let folder = machine.folder.path().join(folder);
        let name = format!("app-{}-data@head:/data/log", &app[..8]);
        let restored = machine.comb(&["restore", &name, "--to", folder.to_str().unwrap()]);
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        std::fs::read_to_string(folder.join("log")).unwrap()
    };
    let cut = log_of(&cellar, APP, "cut");

    // The first one wrote on until it noticed; that is a branch now.
    attic.until(SOON, "stopped", |machine| machine.containers().is_empty());
    hive.silence(&attic.id, false);
    hive.over(&attic.id, APP, 2);
    let app = hive.until(&attic.id, SOON, "told", |app| {
        app["phase"] == "standing_by" && app["branches"].as_array().is_some_and(|list| !list.is_empty())
    });
    assert!(!log.exists());
    let branches: serde_json::Map<String, Value> = app["branches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["volume"].as_str().unwrap().to_owned(), one["name"].clone()))
        .collect();
    let fork = json!({
        "app": APP, "term": 2, "generation": 2, "do": "fork", "to": null, "branches": branches, "seed": COPY,
        "new_name": "tail", "revision": 1,
    });
    let number = hive.order(&attic.id, fork);
    let made = hive.result(&attic.id, number, SOON);
    assert_eq!(
        (made["state"].as_str(), made["data"]["volumes"].as_array().unwrap().len()),
        (Some("done"), 2),
        "{made:#}"
    );
    let tail = log_of(&attic, &made_of(&attic, COPY), "tail");
    assert!(tail.starts_with(&cut) && tail.len() > cut.len(), "all before the cut, and what came after it");
    assert_eq!(tail.lines().last().unwrap(), tail.lines().count().to_string(), "without a hole");
}

fn author(command: &str, more: &str) -> Value {
    let (name, _) = image();
    let compose = format!(
        "x-comb:\n  options:\n    - {{name: TITLE, default: none}}\n    - {{name: PASSWORD, type: secret}}\n\
         services:\n  web:\n    image: {name}\n    entrypoint: [\"sh\", \"-c\"]\n    command: [\"{command}\"]\n    \
         environment: {{TITLE: $TITLE, PASSWORD: $PASSWORD}}\n    volumes: [\"data:/data\"]\n{more}volumes:\n  data: {{}}\n"
    );
    json!({
        "app": null, "term": null, "generation": null, "do": "author", "name": "site", "seed": SITE,
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
    let site = made_of(&attic, SITE);
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
        assert_eq!(hive.package(&site, 1), None);
    }
    let said = "echo $$TITLE $$PASSWORD > /data/said; sleep 1000";
    let made = order(&attic, author(said, ""));
    assert_eq!((made["state"].as_str(), &made["data"]["revision"]), (Some("done"), &json!(1)), "{made:#}");
    let package = opened(&hive, &attic, &site);
    assert_eq!(package.authorization.author.unwrap().to_string(), attic.id);
    assert!(package.authorization.permissions.is_empty());
    let devices = serde_json::to_value(&package.authorization.devices).unwrap();
    assert_eq!(devices, json!("delegated"), "no other device said that the hive may");
    let password = package.body.secrets[0].value.clone();
    assert_eq!(password.len(), 24);

    let data = json!([new_volumes()[0]]);
    let mut command = start(1, 1, "manual", data, &store);
    command["app"] = json!(site);
    let started = order(&attic, command.clone());
    assert_eq!(started["state"], "done", "{started:#}");
    let id = &attic.containers()[0];
    assert_eq!(docker(&["exec", id, "cat", "/data/said"]), format!("chosen {password}"));

    let cellar = Machine::join(&hive, "cellar");
    let refused = order(&cellar, author("sleep 1000", ""));
    assert_eq!(refused["code"], "policy_refused", "{refused:#}");
    let refused = order(&cellar, command);
    assert_eq!(refused["code"], "package_wrong", "what another device sealed for the hive: {refused:#}");
    let wire = hive.received();
    assert!(!wire.iter().any(|bytes| bytes.windows(24).any(|part| part == password.as_bytes())));
}
