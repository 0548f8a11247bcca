//! What only a person with the ring reads: logs, facts, doctor; and a device that waits for the passphrase.

use std::time::Duration;

use serde_json::{Value, json};

use super::apps::{APP, exactly, start};
use super::machine::Machine;
use super::orders::{SOON, Scene, no_canary, read_stream, running};

fn stream(number: u8) -> String {
    format!("0f0f0f0f-0f0f-4f0f-8f0f-{number:012x}")
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn logs_facts_and_doctor_come_sealed() {
    let more = "x-comb:\n  update: {stable: 2s}\n";
    let Scene { hive, attic, .. } = running("manual", "always", more);
    let order = |mut command: Value, app: Option<&str>| {
        command["app"] = json!(app);
        (command["term"], command["generation"]) = (json!(app.map(|_| 1)), json!(app.map(|_| 2)));
        let number = hive.order(&attic.id, command);
        hive.result(&attic.id, number, SOON)
    };
    let talks = "echo canary-of-the-output; echo on-the-other >&2; trap 'exit 0' TERM; while true; do sleep 0.2 & wait $!; done";
    hive.put_package(APP, 2, super::apps::package(&attic, 2, talks, "always", more));
    let updated = order(json!({ "do": "update", "revision": 2 }), Some(APP));
    assert_eq!(updated["state"], "done", "{updated:#}");

    let logs = json!({ "do": "logs", "services": null, "lines": 100, "follow": false, "stream": stream(1) });
    let done = order(logs, Some(APP));
    assert_eq!(done["state"], "done", "{done:#}");
    let lines = read_stream(&hive, &attic, &stream(1));
    let said = |stream: &str, text: &str| {
        lines.iter().any(|line| line["service"] == "web" && line["stream"] == stream && line["text"] == text)
    };
    assert!(said("out", "canary-of-the-output") && said("err", "on-the-other"), "{lines:#?}");
    let none =
        json!({ "do": "logs", "services": ["other"], "lines": 100, "follow": false, "stream": stream(2) });
    assert_eq!(order(none, Some(APP))["state"], "done");
    assert!(read_stream(&hive, &attic, &stream(2)).is_empty(), "only the services that were asked for");

    assert_eq!(order(json!({ "do": "facts", "stream": stream(3) }), None)["state"], "done");
    let facts = read_stream(&hive, &attic, &stream(3));
    for word in ["comb: ", "docker: ", "compose: ", "clock: ", "boottime_ms: ", "load: ", "disks: "] {
        assert!(
            facts.iter().any(|line| line["text"].as_str().unwrap().starts_with(word)),
            "{word}{facts:#?}"
        );
    }

    let doctor = order(json!({ "do": "doctor", "stream": stream(4) }), None);
    assert_eq!(doctor["state"], "done", "{doctor:#}");
    let checks = read_stream(&hive, &attic, &stream(4));
    let (passed, failed) =
        (doctor["data"]["passed"].as_u64().unwrap(), doctor["data"]["failed"].as_u64().unwrap());
    assert_eq!(passed + failed, checks.len() as u64, "{checks:#?}");
    for what in ["fuse", "docker", "compose", "key ring", "hive"] {
        let text = format!("ok: {what}: ");
        assert!(
            checks.iter().any(|line| line["text"].as_str().unwrap().starts_with(&text)),
            "{text}{checks:#?}"
        );
    }
    no_canary(&hive, &[&attic]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_locked_device_starts_nothing_until_somebody_types_the_passphrase() {
    let Scene { hive, attic, store, cuts } = running("manual", "always", "");
    let number = hive
        .order(&attic.id, json!({ "app": APP, "term": 1, "generation": 2, "do": "hand_over", "to": null }));
    let handed = hive.result(&attic.id, number, SOON);
    let cellar = Machine::join_with(&hive, "cellar", &["--locked"]);
    let is_locked = || cellar.json(&["device", "status", "--json"])["locked"] == true;
    cellar.until(SOON, "running", |machine| machine.comb(&["device", "status"]).status.success());
    assert!(is_locked());
    let volumes = exactly(&cuts, &handed["data"]["heads"]);
    let number = hive.order(&cellar.id, start(2, 1, "manual", volumes.clone(), &store));
    let refused = hive.result(&cellar.id, number, SOON);
    assert_eq!(
        (refused["state"].as_str(), refused["code"].as_str()),
        (Some("failed"), Some("package_sealed"))
    );
    assert!(cellar.containers().is_empty());

    let (wrong, right) = (cellar.folder.path().join("wrong"), cellar.folder.path().join("passphrase"));
    std::fs::write(&wrong, "another passphrase, and not a short one").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let no = cellar.comb(&["device", "unlock", "--passphrase-file", wrong.to_str().unwrap()]);
    assert_eq!(no.status.code(), Some(6), "{}", String::from_utf8_lossy(&no.stderr));
    assert!(is_locked());
    let yes = cellar.comb(&["device", "unlock", "--passphrase-file", right.to_str().unwrap()]);
    assert!(yes.status.success(), "{}", String::from_utf8_lossy(&yes.stderr));
    assert!(!is_locked());
    let hellos = hive.hellos(&cellar.id);
    assert_eq!(
        (hellos.first().unwrap()["locked"].clone(), hellos.last().unwrap()["locked"].clone()),
        (json!(true), json!(false)),
        "the hive is told"
    );
    let number = hive.order(&cellar.id, start(3, 1, "manual", volumes, &store));
    let result = hive.result(&cellar.id, number, Duration::from_secs(180));
    assert_eq!(result["state"], "done", "{result:#}");
    no_canary(&hive, &[&attic, &cellar]);
}
