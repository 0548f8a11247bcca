//! Apps for the tests, sealed with the account's own key.

use std::path::Path;

use fs_crypto::{DeviceSecret, Ring};
use orchestrator_api::wire::account::Package as Sealed;
use orchestrator_device::app::package::seal;
use serde_json::{Value, json};

use super::machine::{Machine, image};

pub const APP: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

/// The ring of a machine.
pub fn ring(machine: &Machine) -> Ring {
    let read = |name: &str| std::fs::read(machine.state().join(name)).unwrap();
    let secret: [u8; 32] = read("device").try_into().unwrap();
    Ring::open_on_device(&read("ring"), &read("ring.key"), &DeviceSecret::from_bytes(secret)).unwrap()
}

/// A package with one service that runs a shell's command, with a volume at /data.
pub fn package(machine: &Machine, revision: u64, command: &str, restart: &str, more: &str) -> Sealed {
    let (name, _) = image();
    // Compose takes a dollar for a variable's.
    let command = serde_json::to_string(command).unwrap().replace('$', "$$");
    let compose = format!(
        "{more}\nservices:\n  web:\n    image: {name}\n    entrypoint: [\"sh\", \"-c\"]\n    command: [{command}]\n    \
         restart: {restart}\n    stop_grace_period: 1s\n    environment:\n      SECRET: ${{SECRET}}\n    \
         ports: [\"8000\"]\n    volumes: [\"data:/data\", \"./seed:/seed\"]\nvolumes:\n  data: {{}}\n"
    );
    let say = json!([{ "name": "say", "service": "web", "input": [{ "name": "word", "type": "name" }] }]);
    let actions = if more.contains("actions:") { say } else { json!([]) };
    sealed(machine, revision, &compose, json!({ "actions": actions }))
}

/// A compose file as a package; of its authorization `changed` says what is not as usual.
pub fn sealed(machine: &Machine, revision: u64, compose: &str, changed: Value) -> Sealed {
    let (name, id) = image();
    let ring = ring(machine);
    let mut authorization: Value = json!({
        "comb": "package", "format": 1, "account": ring.account().to_hex(), "app": APP, "name": "ledger",
        "revision": revision, "version": "1", "domain": "hasty-hopper-kvbt.example.org", "body": "00".repeat(32),
        "services": [{ "name": "web", "image": name, "digest": id, "pull": false }],
        "volumes": [{ "name": "data", "link": false }, { "name": "seed", "link": false }],
        "ports": [{ "service": "web", "port": 8000, "protocol": "tcp", "wish": null }],
        "actions": [], "health_seconds": 60, "permissions": [], "devices": "all", "expires": null, "author": null,
        "made": "2026-11-22T08:30:00.000Z",
    });
    for (field, value) in changed.as_object().unwrap() {
        authorization[field] = value.clone();
    }
    let body = json!({
        "app": APP, "revision": revision, "compose": "compose.yaml",
        "files": [file("compose.yaml", compose), file("seed/first.txt", "canary of the package's file")],
        "options": [], "secrets": [{ "name": "SECRET", "value": "canary-of-the-secret" }], "grants": [],
    });
    let (authorization, body) =
        (serde_json::from_value(authorization).unwrap(), serde_json::from_value(body).unwrap());
    seal(authorization, &body, ring.owner(), &[revision as u8; 32]).unwrap()
}

/// A file of a folder, as it travels.
pub fn file(path: &str, text: &str) -> Value {
    use base64::Engine;
    json!({ "path": path, "mode": 420, "bytes": base64::engine::general_purpose::STANDARD.encode(text) })
}

/// A service that writes numbered, synced records, and ends at once when it is asked to.
pub const WRITES: &str = "trap 'exit 0' TERM; echo started >> /data/starts; i=$(wc -l < /data/log 2>/dev/null || echo 0); \
     while true; do i=$((i+1)); echo $i >> /data/log; sync; sleep 0.2 & wait $!; done";

/// The command that starts the app.
pub fn start(term: u64, revision: u64, policy: &str, volumes: Value, store: &Value) -> Value {
    json!({
        "app": APP, "term": term, "generation": term, "do": "start", "revision": revision, "policy": policy,
        "stores": store, "seal_every_s": 5, "volumes": volumes, "rollback_to": null,
    })
}

/// Volumes that are to be made.
pub fn new_volumes() -> Value {
    let since = json!({ "since": { "epoch": 0, "seq": 0, "writers": [] } });
    json!([{ "name": "data", "volume": null, "expect": since }, { "name": "seed", "volume": null, "expect": since }])
}

/// The volumes of a result's cuts, to be found exactly as they were handed over.
pub fn exactly(cuts: &Value, heads: &Value) -> Value {
    let volume = |cut: &Value| {
        let head = heads.as_array().unwrap().iter().find(|head| head["volume"] == cut["volume"]).unwrap();
        let exactly = json!({ "epoch": head["epoch"], "seq": head["seq"], "manifest": head["manifest"] });
        json!({ "name": cut["name"], "volume": cut["volume"], "expect": { "exactly": exactly } })
    };
    cuts.as_array().unwrap().iter().map(volume).collect()
}

/// How many records there are, and whether they are all without a hole.
#[track_caller]
pub fn records(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    for (at, line) in text.lines().enumerate() {
        assert_eq!(line, (at + 1).to_string(), "a record is missing");
    }
    text.lines().count()
}
