//! The one file that runs: compose's answer, which was checked, with what Comb adds.
//!
//! An override beside the app's own files would be merged by rules of compose's; here what was judged is what runs.
//!
//! Invariants
//! - dockerd never starts a container of ours by itself: each has `restart: "no"`.
//! - An image is named by its digest or id, and is neither built nor pulled.
//! - A volume leads into a mount of ours: it is there only while the mount is.

use std::collections::BTreeMap;

use orchestrator_api::compose::Plan;
use orchestrator_api::ids::{AppId, DeviceId, Term};
use serde_json::{Map, Value, json};

use super::ports::GivenPort;
use crate::doors::docker::{LABEL_APP, LABEL_DEVICE, LABEL_TERM};

/// The most processes of a container whose file says nothing.
const PIDS: u64 = 4_096;

/// What is added.
#[derive(Debug, Clone)]
pub struct Additions<'a> {
    /// The app.
    pub app: AppId,
    /// The term in which it is started.
    pub term: Term,
    /// This device.
    pub device: DeviceId,
    /// The project's name.
    pub project: &'a str,
    /// The plan that the policy accepted.
    pub plan: &'a Plan,
    /// What runs for each service.
    pub images: &'a BTreeMap<String, String>,
    /// Names of Docker's volumes, by the names of the plan.
    pub volumes: &'a BTreeMap<String, String>,
    /// Ports of the machine.
    pub ports: &'a [GivenPort],
    /// How long a service may take to be well, in seconds.
    pub startup_s: u32,
}

/// Makes the file of compose's answer.
pub fn make(mut config: Value, add: &Additions<'_>) -> Value {
    if let Value::Object(top) = &mut config {
        top.retain(|key, _| matches!(key.as_str(), "services" | "networks" | "configs" | "secrets"));
        top.insert("name".to_owned(), json!(add.project));
        let volumes: Map<String, Value> = add
            .volumes
            .iter()
            .map(|(name, docker)| (name.clone(), json!({ "name": docker, "external": true })))
            .collect();
        top.insert("volumes".to_owned(), Value::Object(volumes));
        for (name, network) in entries(top.get_mut("networks")) {
            if network.is_null() {
                *network = json!({});
            }
            network["name"] = json!(format!("{}_{name}", add.project));
            network["labels"] = labels(network["labels"].take(), add);
        }
        for (name, one) in entries(top.get_mut("services")) {
            if let Value::Object(one) = one {
                service(name, one, add);
            }
        }
    }
    config
}

fn entries(section: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    section.and_then(Value::as_object_mut).into_iter().flatten()
}

/// Labels as a map, with ours.
fn labels(given: Value, add: &Additions<'_>) -> Value {
    let mut labels = match given {
        Value::Object(labels) => labels,
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|one| one.split_once('=').unwrap_or((one, "")))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect(),
        _ => Map::new(),
    };
    labels.insert(LABEL_APP.to_owned(), json!(add.app.to_string()));
    labels.insert(LABEL_TERM.to_owned(), json!(add.term.0.to_string()));
    labels.insert(LABEL_DEVICE.to_owned(), json!(add.device.to_string()));
    Value::Object(labels)
}

fn service(name: &str, one: &mut Map<String, Value>, add: &Additions<'_>) {
    for key in ["build", "container_name", "profiles", "ports", "restart", "pull_policy", "develop", "expose"]
    {
        // What is exposed to nobody but its own network needs no word.
        one.remove(key);
    }
    if let Some(deploy) = one.get_mut("deploy").and_then(Value::as_object_mut) {
        deploy.remove("restart_policy");
    }
    one.insert("restart".to_owned(), json!("no"));
    one.insert("pull_policy".to_owned(), json!("never"));
    if let Some(image) = add.images.get(name) {
        one.insert("image".to_owned(), json!(image));
    }
    let given = one.remove("labels").unwrap_or_default();
    one.insert("labels".to_owned(), labels(given, add));
    let planned = add.plan.services.iter().find(|planned| planned.name == name);
    if planned.is_some_and(|planned| planned.pids.is_none()) {
        one.insert("pids_limit".to_owned(), json!(PIDS));
    }
    let ports: Vec<Value> = add.ports.iter().filter(|port| port.service == name).map(port).collect();
    if !ports.is_empty() {
        one.insert("ports".to_owned(), Value::Array(ports));
    }
    for mount in one.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        bind(name, mount, add);
    }
    if let Some(check) = one.get_mut("healthcheck").and_then(Value::as_object_mut) {
        look_often(check, add.startup_s);
    }
}

fn port(port: &GivenPort) -> Value {
    let mut entry = json!({
        "mode": "ingress", "target": port.port, "published": port.given.to_string(), "protocol": port.protocol.to_string(),
    });
    if port.loopback {
        entry["host_ip"] = json!("127.0.0.1");
    }
    entry
}

/// A mount that the plan has as a volume leads to that volume, also where the file binds a folder.
fn bind(service: &str, mount: &mut Value, add: &Additions<'_>) {
    let target = mount["target"].as_str().unwrap_or_default();
    let planned = add.plan.volumes.iter().find_map(|volume| {
        let seen = volume.mounts.iter().find(|seen| seen.service == service && seen.target == target)?;
        Some((volume, seen))
    });
    if let Some((volume, seen)) = planned {
        let mut made = json!({ "type": "volume", "source": volume.name, "target": seen.target });
        if seen.read_only {
            made["read_only"] = json!(true);
        }
        if let Some(path) = &seen.subpath {
            made["volume"] = json!({ "subpath": path });
        }
        *mount = made;
    } else if mount["type"] == "bind" {
        if add.plan.files.iter().any(|file| file.service == service && file.target == target) {
            mount["read_only"] = json!(true);
        }
        // What is not there is not made: it would be a folder of root's on the machine.
        if !mount["bind"].is_object() {
            mount["bind"] = json!({});
        }
        mount["bind"]["create_host_path"] = json!(false);
    }
}

/// While it starts, its check is asked each second, so that what is well is seen to be.
fn look_often(check: &mut Map<String, Value>, startup_s: u32) {
    let disabled = check.get("disable").and_then(Value::as_bool).unwrap_or(false);
    let none =
        check.get("test").and_then(Value::as_array).is_some_and(|test| test.first() == Some(&json!("NONE")));
    if disabled || none || check.contains_key("start_interval") {
        return;
    }
    check.insert("start_interval".to_owned(), json!("1s"));
    check.entry("start_period").or_insert_with(|| json!(format!("{startup_s}s")));
}
