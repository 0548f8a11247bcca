//! All that a device tells the hive of itself, against the table of `orchestrator/docs/api.md`, section 5.

use std::collections::BTreeSet;

use serde_json::Value;

use super::apps::APP;
use super::machine::{docker, image};
use super::orders::{SOON, Scene, running};

/// The fields of the table, as paths: `apps.volumes.epoch`.
fn table() -> BTreeSet<String> {
    let text = include_str!("../../../orchestrator/docs/api.md");
    let begin = text.find("\n### The report").expect("the report");
    let section = &text[begin..begin + text[begin + 1..].find("\n## ").expect("section 6")];
    let rows = section.lines().filter(|line| {
        line.starts_with("| `") || line.starts_with("| app.") || line.starts_with("| volume.")
    });
    let mut fields = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (first, kind) = (cells[1], cells[2]);
        let (inside, names) = match first.split_once('.') {
            Some(("app", names)) => ("apps.", names),
            Some(("volume", names)) => ("apps.volumes.", names),
            _ => ("", first),
        };
        let words =
            |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        for name in words(names) {
            fields.insert(format!("{inside}{name}"));
            // What is in braces are fields of its own; their values behind a colon are none.
            if let (Some(open), Some(close)) = (kind.find('{'), kind.rfind('}')) {
                for part in kind[open + 1..close].split(',') {
                    let part = part.split(':').next().unwrap();
                    for field in words(part).into_iter().take(1) {
                        fields.insert(format!("{inside}{name}.{field}"));
                    }
                }
            }
        }
    }
    fields
}

fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.insert(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, path, found)),
        _ => {}
    }
}

fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|value| texts(value, found)),
        Value::Array(list) => list.iter().for_each(|value| texts(value, found)),
        Value::String(text) => found.push(text.clone()),
        _ => {}
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_report_says_what_the_table_says_and_nothing_of_others() {
    // Somebody else's container, volume and network, which are nobody's business.
    let stranger = format!("canary-stranger-{}", std::process::id());
    let (name, _) = image();
    docker(&["volume", "create", &format!("{stranger}-volume")]);
    docker(&[
        "run",
        "-d",
        "--name",
        &stranger,
        "--hostname",
        &format!("{stranger}-host"),
        "-e",
        &format!("SECRET={stranger}-secret"),
        "-v",
        &format!("{stranger}-volume:/canary-stranger-path"),
        "--label",
        &format!("owner={stranger}"),
        "--entrypoint",
        "sleep",
        &name,
        "1000",
    ]);
    let id = docker(&["inspect", "-f", "{{.Id}}", &stranger]);
    let Scene { hive, attic, .. } = running("manual", "always", "");
    hive.until(&attic.id, SOON, "reported whole", |app| {
        app["phase"] == "running"
            && app["volumes"][0]["state"] == "mounted"
            && app["services"][0]["state"] == "running"
    });
    let (mut sent, mut told) = (BTreeSet::new(), Vec::new());
    let bodies: Vec<Vec<u8>> = hive.received();
    for body in &bodies {
        let (head, json) = body.split_at(body.windows(2).position(|two| two == b"]\n").unwrap() + 2);
        if head.starts_with(b"POST /v1/device/report") {
            let report: Value = serde_json::from_slice(json).unwrap();
            fields(&report, "", &mut sent);
            texts(&report, &mut told);
        }
    }
    docker(&["rm", "-f", &stranger]);
    docker(&["volume", "rm", &format!("{stranger}-volume")]);
    let table = table();
    for must in [
        "number",
        "docker",
        "apps.phase",
        "apps.services.name",
        "apps.volumes.replicated_seq",
        "disks.free_bytes",
    ] {
        assert!(table.contains(must) && sent.contains(must), "{must} is in the table and in a report");
    }
    let more: Vec<&String> = sent.difference(&table).collect();
    assert!(more.is_empty(), "sent, and not in the table: {more:?}");

    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    assert!(told.iter().any(|text| text == APP) && !told.contains(&host), "the machine's name was told");
    let apps: Vec<u8> = bodies.concat();
    let is_there = |text: &str| apps.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(is_there(APP), "the search finds what is there");
    for foreign in ["canary-stranger", &id, &id[..12], "/proc/", "/var/lib/docker"] {
        assert!(!is_there(foreign), "{foreign} was told");
    }
    for service in ["apps.services.name", "apps.ports.service"] {
        assert!(sent.contains(service));
    }
}
