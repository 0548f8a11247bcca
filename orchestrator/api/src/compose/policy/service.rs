//! A service: each of its keys is judged here or in a file beside this one.
//!
//! A key stands in one of two places: in `ALLOWED`, because it stays within the container, or in the `match` of
//! [`Checker::service`], with what is asked of it.

use serde_json::{Map, Value};

use super::value::{says, told, truth, whole};
use super::{At, CONTAINERS_MAX, Checker, IMAGE_BYTES_MAX, NAME_BYTES_MAX};
use crate::compose::{Owner, PlannedService, Restart, keys};

/// Keys of a service that stay within its containers, or that compose has used up before it answers.
const ALLOWED: &[&str] = &[
    "attach",
    "cap_drop",
    "command",
    "configs",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset",
    "depends_on",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extends",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "init",
    "label_file",
    "links",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "pids_limit",
    "platform",
    "profiles",
    "pull_policy",
    "pull_refresh_after",
    "read_only",
    "secrets",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "tty",
    "ulimits",
    "user",
    "working_dir",
];

impl Checker<'_> {
    pub(super) fn service(&mut self, name: &str, value: &Value, host_network: bool) {
        let at = At::of(&["services", name]);
        let Some(service) = value.as_object() else {
            self.refuse(&at, format!("service \"{name}\" is no map of keys"));
            return;
        };
        if name.len() > NAME_BYTES_MAX {
            self.refuse(&at, format!("the name of service \"{name}\" is longer than {NAME_BYTES_MAX} bytes"));
        }
        let owner = owner_of(service);
        let mut planned = PlannedService {
            name: name.to_owned(),
            image: None,
            build: false,
            restart: Restart::No,
            owner: owner.clone(),
            pids: service.get("pids_limit").and_then(whole),
        };
        for (key, value) in service {
            let at = at.key(key);
            if !says(value) {
                continue;
            }
            match key.as_str() {
                "image" => planned.image = self.image(&at, value),
                "build" => {
                    planned.build = true;
                    self.build(&at, value);
                }
                "restart" => planned.restart = self.restart(&at, value),
                "deploy" => self.deploy(&at, value, &mut planned),
                "volumes" => self.mounts(&at, name, value, &owner),
                "volumes_from" => self.volumes_from(&at, value),
                "tmpfs" => self.lost(&at, value.as_array().and_then(|all| all.first()).unwrap_or(value)),
                "ports" if host_network => self.note(&at, "ports mean nothing with network_mode \"host\""),
                "ports" => self.ports(&at, name, value),
                "labels" => self.labels(&at, value),
                "networks" => self.attachments(&at, value),
                "container_name" => {
                    self.note(&at, "\"container_name\" is dropped: the device names containers itself")
                }
                "privileged" if truth(value) => {
                    self.refuse(&at, "\"privileged\" would give the container all of the machine");
                }
                "use_api_socket" if truth(value) => {
                    self.refuse(&at, "the Docker socket is the machine itself")
                }
                "network_mode" => self.network_mode(&at, value),
                "pid" | "ipc" | "uts" | "userns_mode" | "cgroup" => self.namespace(&at, key, value),
                "cap_add" => self.capabilities(&at, value, host_network),
                "devices" => self.devices(&at, value),
                "gpus" => self.gpus(&at, value),
                "security_opt" => self.security_options(&at, value),
                "sysctls" => self.sysctls(&at, value, host_network),
                "logging" => self.logging(&at, value),
                "post_start" | "pre_stop" => self.service_hooks(&at, value),
                "blkio_config" => self.blkio(&at, value),
                "scale" => self.containers(&at, value),
                "develop" => self.note(&at, "\"develop\" is ignored"),
                "runtime" if value.as_str() != Some("runc") => {
                    let hint = "graphics cards are asked for by \"gpus: all\"";
                    self.refuse_with(
                        &at,
                        format!("\"runtime: {}\" is another way to run containers", told(value)),
                        Some(hint),
                    );
                }
                "oom_score_adj" if whole(value).is_none() => {
                    self.refuse(&at, "\"oom_score_adj\" below 0 would have other programs die first");
                }
                "oom_kill_disable" if truth(value) => {
                    self.refuse(&at, "\"oom_kill_disable\" would have other programs die first");
                }
                "device_cgroup_rules" => {
                    self.refuse(&at, "\"device_cgroup_rules\" would open devices of the machine")
                }
                "cgroup_parent" => self.refuse(&at, "\"cgroup_parent\" would take it out of its limits"),
                "cpu_rt_period" | "cpu_rt_runtime" => {
                    self.refuse(&at, format!("\"{key}\" would let it run before all other programs"));
                }
                "external_links" => {
                    self.refuse(&at, "\"external_links\" reaches containers that are not the app's");
                }
                "annotations" => {
                    self.refuse(&at, "\"annotations\" speak to the program that runs the containers");
                }
                "provider" => self.refuse(&at, "\"provider\" would run a program on the machine"),
                "models" => self.refuse(&at, "models run beside the containers, where Comb cannot see them"),
                "credential_spec" | "isolation" => self.refuse(&at, format!("\"{key}\" is of Windows")),
                "privileged" | "use_api_socket" | "runtime" | "oom_score_adj" | "oom_kill_disable" => {}
                key if ALLOWED.contains(&key) => {}
                // What compose knows and this does not; what neither knows is told by `keys::unknown_in`.
                key if keys::SERVICE.keys.iter().any(|(known, _)| *known == key) => {
                    self.refuse(&at, format!("nobody has judged what \"{key}\" gives a container"));
                }
                _ => {}
            }
        }
        if !service.get("image").is_some_and(says) && !planned.build {
            self.refuse(&at, format!("service \"{name}\" has neither an image nor a build"));
        }
        self.plan.services.push(planned);
    }

    pub(super) fn image(&mut self, at: &At<'_>, value: &Value) -> Option<String> {
        let image = self.text(at, value);
        let plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@')
        };
        if image.len() > IMAGE_BYTES_MAX || image.starts_with('-') || !image.bytes().all(plain) {
            self.refuse(at, format!("\"{}\" is no name of an image", image.escape_debug()));
            return None;
        }
        Some(image.to_owned())
    }

    pub(super) fn restart(&mut self, at: &At<'_>, value: &Value) -> Restart {
        let text = self.text(at, value);
        match text.split_once(':').map_or((text, None), |(text, count)| (text, Some(count))) {
            ("no", None) => Restart::No,
            ("always", None) => Restart::Always,
            ("unless-stopped", None) => Restart::UnlessStopped,
            ("on-failure", None) => Restart::OnFailure(None),
            ("on-failure", Some(count)) if count.parse::<u32>().is_ok() => {
                Restart::OnFailure(count.parse().ok())
            }
            _ => {
                self.refuse(
                    at,
                    format!("\"restart: {}\" is none of no, always, on-failure, unless-stopped", told(value)),
                );
                Restart::No
            }
        }
    }

    pub(super) fn deploy(&mut self, at: &At<'_>, value: &Value, planned: &mut PlannedService) {
        let of_swarm =
            ["endpoint_mode", "update_config", "rollback_config"].iter().any(|key| says(&value[*key]))
                || ["constraints", "preferences", "max_replicas_per_node"]
                    .iter()
                    .any(|key| says(&value["placement"][*key]))
                || value["mode"].as_str().is_some_and(|mode| mode != "replicated");
        if of_swarm {
            self.note(at, "what \"deploy\" says to a swarm is ignored");
        }
        for part in [value, &value["placement"], &value["restart_policy"], &value["resources"]] {
            self.entries(at, part);
        }
        for part in ["limits", "reservations"] {
            self.entries(&at.key("resources"), &value["resources"][part]);
        }
        self.labels(&at.key("labels"), &value["labels"]);
        if planned.restart == Restart::No {
            let policy = &value["restart_policy"];
            planned.restart = match policy["condition"].as_str() {
                Some("on-failure") => Restart::OnFailure(
                    whole(&policy["max_attempts"]).and_then(|count| u32::try_from(count).ok()),
                ),
                Some("none") => Restart::No,
                Some(_) => Restart::Always,
                None if says(policy) => Restart::Always,
                None => Restart::No,
            };
        }
        planned.pids = planned.pids.or_else(|| whole(&value["resources"]["limits"]["pids"]));
        self.containers(&at.key("replicas"), &value["replicas"]);
        let devices = &value["resources"]["reservations"]["devices"];
        if says(devices) {
            self.gpus(&at.key("resources").key("reservations").key("devices"), devices);
        }
    }

    pub(super) fn containers(&mut self, at: &At<'_>, value: &Value) {
        if says(value) && whole(value).is_none_or(|count| count > CONTAINERS_MAX) {
            self.refuse(
                at,
                format!("{} containers of one service are more than {CONTAINERS_MAX}", told(value)),
            );
        }
    }
}

pub(super) fn owner_of(service: &Map<String, Value>) -> Owner {
    let environment = service.get("environment").and_then(Value::as_object).into_iter().flatten();
    let environment = environment.map(|(name, value)| (name.clone(), told(value))).collect();
    Owner::of(service.get("user").and_then(Value::as_str), &environment)
}
