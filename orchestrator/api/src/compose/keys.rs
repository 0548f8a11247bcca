//! The keys that the compose specification defines, level by level.
//!
//! A closed list: what stands in none of these levels is refused with its line, even where `docker compose` would drop
//! it in silence. Keys that begin with `x-` are anybody's, except below maps whose keys are names.

use serde_json::{Map, Value as Json};

use super::TOLD_MAX;
use crate::yaml::{Node, Value};

/// What may stand behind a key.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Anything: compose checks it, or it means nothing to Comb.
    Any,
    /// A map with these keys; a text, or a list of texts, is its short form.
    Level(&'static Level),
    /// A map of names to the same thing.
    Named(&'static Shape),
    /// A list of the same thing.
    List(&'static Shape),
    /// A list of the one, or a map of names to the other.
    ListOrNamed(&'static Shape, &'static Shape),
}

/// The keys of a level.
#[derive(Debug)]
pub struct Level {
    /// As a message calls it: "is not a key of …".
    pub name: &'static str,
    /// The keys, with what may stand behind them.
    pub keys: &'static [(&'static str, Shape)],
}

use Shape::{Any, List, ListOrNamed, Named};

const fn level(level: &'static Level) -> Shape {
    Shape::Level(level)
}

/// A compose file.
pub static FILE: Level = Level {
    name: "a compose file",
    keys: &[
        ("version", Any),
        ("name", Any),
        ("include", List(&level(&INCLUDE))),
        ("services", Named(&level(&SERVICE))),
        ("models", Named(&level(&MODEL))),
        ("networks", Named(&level(&NETWORK))),
        ("volumes", Named(&level(&VOLUME))),
        ("secrets", Named(&level(&SECRET))),
        ("configs", Named(&level(&CONFIG))),
    ],
};

static INCLUDE: Level =
    Level { name: "an include", keys: &[("path", Any), ("env_file", Any), ("project_directory", Any)] };

/// A service.
pub static SERVICE: Level = Level {
    name: "a service",
    keys: &[
        ("annotations", Any),
        ("attach", Any),
        ("blkio_config", level(&BLKIO)),
        ("build", level(&BUILD)),
        ("cap_add", Any),
        ("cap_drop", Any),
        ("cgroup", Any),
        ("cgroup_parent", Any),
        ("command", Any),
        ("configs", List(&level(&GIVEN_FILE))),
        ("container_name", Any),
        ("cpu_count", Any),
        ("cpu_percent", Any),
        ("cpu_period", Any),
        ("cpu_quota", Any),
        ("cpu_rt_period", Any),
        ("cpu_rt_runtime", Any),
        ("cpu_shares", Any),
        ("cpus", Any),
        ("cpuset", Any),
        ("credential_spec", Any),
        ("depends_on", ListOrNamed(&Any, &level(&DEPENDS))),
        ("deploy", level(&DEPLOY)),
        ("develop", level(&DEVELOP)),
        ("device_cgroup_rules", Any),
        ("devices", List(&level(&DEVICE))),
        ("dns", Any),
        ("dns_opt", Any),
        ("dns_search", Any),
        ("domainname", Any),
        ("entrypoint", Any),
        ("env_file", List(&level(&ENV_FILE))),
        ("environment", Any),
        ("expose", Any),
        ("extends", level(&EXTENDS)),
        ("external_links", Any),
        ("extra_hosts", Any),
        ("gpus", List(&level(&DEVICE_REQUEST))),
        ("group_add", Any),
        ("healthcheck", level(&HEALTHCHECK)),
        ("hostname", Any),
        ("image", Any),
        ("init", Any),
        ("ipc", Any),
        ("isolation", Any),
        ("label_file", Any),
        ("labels", Any),
        ("links", Any),
        ("logging", level(&LOGGING)),
        ("mac_address", Any),
        ("mem_limit", Any),
        ("mem_reservation", Any),
        ("mem_swappiness", Any),
        ("memswap_limit", Any),
        ("models", Any),
        ("network_mode", Any),
        ("networks", ListOrNamed(&Any, &level(&ATTACHMENT))),
        ("oom_kill_disable", Any),
        ("oom_score_adj", Any),
        ("pid", Any),
        ("pids_limit", Any),
        ("platform", Any),
        ("ports", List(&level(&PORT))),
        ("post_start", List(&level(&SERVICE_HOOK))),
        ("pre_stop", List(&level(&SERVICE_HOOK))),
        ("privileged", Any),
        ("profiles", Any),
        ("provider", Any),
        ("pull_policy", Any),
        ("pull_refresh_after", Any),
        ("read_only", Any),
        ("restart", Any),
        ("runtime", Any),
        ("scale", Any),
        ("secrets", List(&level(&GIVEN_FILE))),
        ("security_opt", Any),
        ("shm_size", Any),
        ("stdin_open", Any),
        ("stop_grace_period", Any),
        ("stop_signal", Any),
        ("storage_opt", Any),
        ("sysctls", Any),
        ("tmpfs", Any),
        ("tty", Any),
        ("ulimits", Named(&level(&ULIMIT))),
        ("use_api_socket", Any),
        ("user", Any),
        ("userns_mode", Any),
        ("uts", Any),
        ("volumes", List(&level(&MOUNT))),
        ("volumes_from", Any),
        ("working_dir", Any),
    ],
};

static BUILD: Level = Level {
    name: "a build",
    keys: &[
        ("additional_contexts", Any),
        ("args", Any),
        ("cache_from", Any),
        ("cache_to", Any),
        ("context", Any),
        ("dockerfile", Any),
        ("dockerfile_inline", Any),
        ("entitlements", Any),
        ("extra_hosts", Any),
        ("isolation", Any),
        ("labels", Any),
        ("network", Any),
        ("no_cache", Any),
        ("platforms", Any),
        ("privileged", Any),
        ("provenance", Any),
        ("pull", Any),
        ("sbom", Any),
        ("secrets", List(&level(&GIVEN_FILE))),
        ("shm_size", Any),
        ("ssh", Any),
        ("tags", Any),
        ("target", Any),
        ("ulimits", Named(&level(&ULIMIT))),
    ],
};

static BLKIO: Level = Level {
    name: "a blkio_config",
    keys: &[
        ("device_read_bps", Any),
        ("device_read_iops", Any),
        ("device_write_bps", Any),
        ("device_write_iops", Any),
        ("weight", Any),
        ("weight_device", Any),
    ],
};

static DEPENDS: Level =
    Level { name: "a dependency", keys: &[("condition", Any), ("required", Any), ("restart", Any)] };

static DEPLOY: Level = Level {
    name: "deploy",
    keys: &[
        ("endpoint_mode", Any),
        ("labels", Any),
        ("mode", Any),
        ("placement", level(&PLACEMENT)),
        ("replicas", Any),
        ("resources", level(&RESOURCES)),
        ("restart_policy", level(&RESTART_POLICY)),
        ("rollback_config", level(&ROLLOUT)),
        ("update_config", level(&ROLLOUT)),
    ],
};

static PLACEMENT: Level = Level {
    name: "a placement",
    keys: &[("constraints", Any), ("max_replicas_per_node", Any), ("preferences", Any)],
};

static RESOURCES: Level =
    Level { name: "resources", keys: &[("limits", level(&LIMITS)), ("reservations", level(&RESERVATIONS))] };

static LIMITS: Level = Level { name: "limits", keys: &[("cpus", Any), ("memory", Any), ("pids", Any)] };

static RESERVATIONS: Level = Level {
    name: "reservations",
    keys: &[
        ("cpus", Any),
        ("devices", List(&level(&DEVICE_REQUEST))),
        ("generic_resources", Any),
        ("memory", Any),
    ],
};

static DEVICE_REQUEST: Level = Level {
    name: "a device request",
    keys: &[("capabilities", Any), ("count", Any), ("device_ids", Any), ("driver", Any), ("options", Any)],
};

static RESTART_POLICY: Level = Level {
    name: "a restart_policy",
    keys: &[("condition", Any), ("delay", Any), ("max_attempts", Any), ("window", Any)],
};

static ROLLOUT: Level = Level {
    name: "an update_config or rollback_config",
    keys: &[
        ("delay", Any),
        ("failure_action", Any),
        ("max_failure_ratio", Any),
        ("monitor", Any),
        ("order", Any),
        ("parallelism", Any),
    ],
};

static DEVELOP: Level = Level { name: "develop", keys: &[("watch", Any)] };

static DEVICE: Level =
    Level { name: "a device", keys: &[("permissions", Any), ("source", Any), ("target", Any)] };

static ENV_FILE: Level =
    Level { name: "an env_file", keys: &[("format", Any), ("path", Any), ("required", Any)] };

static EXTENDS: Level = Level { name: "extends", keys: &[("file", Any), ("service", Any)] };

static HEALTHCHECK: Level = Level {
    name: "a healthcheck",
    keys: &[
        ("disable", Any),
        ("interval", Any),
        ("retries", Any),
        ("start_interval", Any),
        ("start_period", Any),
        ("test", Any),
        ("timeout", Any),
    ],
};

static LOGGING: Level = Level { name: "logging", keys: &[("driver", Any), ("options", Any)] };

static ATTACHMENT: Level = Level {
    name: "a service's network",
    keys: &[
        ("aliases", Any),
        ("driver_opts", Any),
        ("gw_priority", Any),
        ("interface_name", Any),
        ("ipv4_address", Any),
        ("ipv6_address", Any),
        ("link_local_ips", Any),
        ("mac_address", Any),
        ("priority", Any),
    ],
};

static PORT: Level = Level {
    name: "a port",
    keys: &[
        ("app_protocol", Any),
        ("host_ip", Any),
        ("mode", Any),
        ("name", Any),
        ("protocol", Any),
        ("published", Any),
        ("target", Any),
    ],
};

static SERVICE_HOOK: Level = Level {
    name: "a post_start or pre_stop",
    keys: &[("command", Any), ("environment", Any), ("privileged", Any), ("user", Any), ("working_dir", Any)],
};

static GIVEN_FILE: Level = Level {
    name: "a service's config or secret",
    keys: &[("gid", Any), ("mode", Any), ("source", Any), ("target", Any), ("uid", Any)],
};

static ULIMIT: Level = Level { name: "a ulimit", keys: &[("hard", Any), ("soft", Any)] };

static MOUNT: Level = Level {
    name: "a service's volume",
    keys: &[
        ("bind", level(&MOUNT_BIND)),
        ("consistency", Any),
        ("image", Any),
        ("read_only", Any),
        ("source", Any),
        ("target", Any),
        ("tmpfs", level(&MOUNT_TMPFS)),
        ("type", Any),
        ("volume", level(&MOUNT_VOLUME)),
    ],
};

static MOUNT_BIND: Level = Level {
    name: "a bind",
    keys: &[("create_host_path", Any), ("propagation", Any), ("recursive", Any), ("selinux", Any)],
};

static MOUNT_TMPFS: Level = Level { name: "a tmpfs", keys: &[("mode", Any), ("size", Any)] };

static MOUNT_VOLUME: Level =
    Level { name: "a mounted volume", keys: &[("labels", Any), ("nocopy", Any), ("subpath", Any)] };

static NETWORK: Level = Level {
    name: "a network",
    keys: &[
        ("attachable", Any),
        ("driver", Any),
        ("driver_opts", Any),
        ("enable_ipv4", Any),
        ("enable_ipv6", Any),
        ("external", Any),
        ("internal", Any),
        ("ipam", level(&IPAM)),
        ("labels", Any),
        ("name", Any),
    ],
};

static IPAM: Level =
    Level { name: "ipam", keys: &[("config", List(&level(&SUBNET))), ("driver", Any), ("options", Any)] };

static SUBNET: Level = Level {
    name: "a subnet",
    keys: &[("aux_addresses", Any), ("gateway", Any), ("ip_range", Any), ("subnet", Any)],
};

static VOLUME: Level = Level {
    name: "a volume",
    keys: &[("driver", Any), ("driver_opts", Any), ("external", Any), ("labels", Any), ("name", Any)],
};

static SECRET: Level = Level {
    name: "a secret",
    keys: &[
        ("driver", Any),
        ("driver_opts", Any),
        ("environment", Any),
        ("external", Any),
        ("file", Any),
        ("labels", Any),
        ("name", Any),
        ("template_driver", Any),
    ],
};

static CONFIG: Level = Level {
    name: "a config",
    keys: &[
        ("content", Any),
        ("environment", Any),
        ("external", Any),
        ("file", Any),
        ("labels", Any),
        ("name", Any),
        ("template_driver", Any),
    ],
};

static MODEL: Level = Level {
    name: "a model",
    keys: &[("context_size", Any), ("model", Any), ("name", Any), ("runtime_flags", Any)],
};

/// A key that no level knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// Its line.
    pub line: u32,
    /// The path to it: `services.web.volums`.
    pub field: String,
    /// The sentence about it.
    pub message: String,
}

/// Finds every key below `node` that its level does not know.
pub fn unknown(node: &Node) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    walk(node, &Shape::Level(&FILE), "", &mut found);
    found
}

fn walk(node: &Node, shape: &Shape, field: &str, found: &mut Vec<UnknownKey>) {
    if found.len() >= TOLD_MAX {
        return;
    }
    match (shape, &node.value) {
        (Shape::Level(level), Value::Map(entries)) => {
            for entry in entries {
                if found.len() >= TOLD_MAX {
                    return;
                }
                let field = join(field, &entry.key);
                match level.keys.iter().find(|(key, _)| *key == entry.key) {
                    Some((_, shape)) => walk(&entry.node, shape, &field, found),
                    None if entry.key == "x-comb" && !std::ptr::eq(*level, &FILE) => found.push(UnknownKey {
                        line: entry.line,
                        field,
                        message: "\"x-comb\" stands at the top of the file only".to_owned(),
                    }),
                    None if entry.key.starts_with("x-") => {}
                    None => found.push(UnknownKey {
                        line: entry.line,
                        field,
                        message: not_a_key(&entry.key, level.name, level.keys.iter().map(|(key, _)| *key)),
                    }),
                }
            }
        }
        // The list is the longer form of one alone: `env_file`, `gpus`.
        (Shape::List(each), Value::List(items)) | (Shape::ListOrNamed(each, _), Value::List(items)) => {
            for (number, item) in items.iter().enumerate() {
                walk(item, each, &format!("{field}[{number}]"), found);
            }
        }
        (Shape::List(each), Value::Map(_)) => walk(node, each, field, found),
        (Shape::Named(each), Value::Map(entries)) | (Shape::ListOrNamed(_, each), Value::Map(entries)) => {
            for entry in entries {
                walk(&entry.node, each, &join(field, &entry.key), found);
            }
        }
        _ => {}
    }
}

/// The same for compose's answer: what a newer compose puts there, and this list does not know.
pub fn unknown_in(config: &Map<String, Json>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk_json(config, &FILE, "", &mut found);
    found
}

fn walk_json(map: &Map<String, Json>, level: &Level, field: &str, found: &mut Vec<(String, String)>) {
    for (key, value) in map {
        if found.len() >= TOLD_MAX {
            return;
        }
        let field = join(field, key);
        match level.keys.iter().find(|(known, _)| known == key) {
            Some((_, shape)) => shape_json(value, shape, &field, found),
            None if key.starts_with("x-") => {}
            None => {
                let message = not_a_key(key, level.name, level.keys.iter().map(|(key, _)| *key));
                found.push((field, message));
            }
        }
    }
}

fn shape_json(value: &Json, shape: &Shape, field: &str, found: &mut Vec<(String, String)>) {
    match (shape, value) {
        (Shape::Level(level), Json::Object(map)) => walk_json(map, level, field, found),
        (Shape::List(each), Json::Array(items)) | (Shape::ListOrNamed(each, _), Json::Array(items)) => {
            items.iter().for_each(|item| shape_json(item, each, field, found));
        }
        (Shape::List(each), Json::Object(_)) => shape_json(value, each, field, found),
        (Shape::Named(each), Json::Object(map)) | (Shape::ListOrNamed(_, each), Json::Object(map)) => {
            map.iter().for_each(|(key, value)| shape_json(value, each, &join(field, key), found));
        }
        _ => {}
    }
}

/// The path to a key.
pub fn join(field: &str, key: &str) -> String {
    if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") }
}

/// Says that a key is none of a level's, and which one was probably meant.
pub fn not_a_key<'a>(key: &str, level: &str, known: impl Iterator<Item = &'a str>) -> String {
    // A longer word is not nearly one of ours.
    let lower = if key.len() <= 64 { key.to_lowercase() } else { String::new() };
    let close = known
        .map(|one| (strsim::damerau_levenshtein(&lower, one), one))
        .filter(|(distance, one)| *distance <= 2.min(one.len() / 2))
        .min();
    let key = key.chars().take(64).collect::<String>().escape_debug().to_string();
    match close {
        Some((_, one)) => format!("\"{key}\" is not a key of {level}; did you mean \"{one}\"?"),
        None => format!("\"{key}\" is not a key of {level}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    fn told(text: &str) -> Vec<String> {
        let root = parse(text.as_bytes()).expect("is YAML");
        unknown(&root).iter().map(|one| format!("{}: {} {}", one.line, one.field, one.message)).collect()
    }

    #[test]
    fn an_unknown_key_is_found_at_every_level() {
        let table = [
            (
                "servics: {}",
                "1: servics \"servics\" is not a key of a compose file; did you mean \"services\"?",
            ),
            (
                "services:\n  web:\n    volums: []",
                "3: services.web.volums \"volums\" is not a key of a service; did you mean \"volumes\"?",
            ),
            (
                "services: {web: {Privileged: true}}",
                "1: services.web.Privileged \"Privileged\" is not a key of a service; did you mean \"privileged\"?",
            ),
            (
                "services: {web: {whatever: true}}",
                "1: services.web.whatever \"whatever\" is not a key of a service",
            ),
            (
                "services: {web: {ports: [{target: 80, publish: 80}]}}",
                "1: services.web.ports[0].publish \"publish\" is not a key of a port; did you mean \"published\"?",
            ),
            (
                "services: {web: {build: {contxt: .}}}",
                "1: services.web.build.contxt \"contxt\" is not a key of a build; did you mean \"context\"?",
            ),
            (
                "services: {web: {deploy: {resources: {limit: {}}}}}",
                "1: services.web.deploy.resources.limit \"limit\" is not a key of resources; did you mean \"limits\"?",
            ),
            (
                "services: {web: {volumes: [{type: bind, bind: {create: true}}]}}",
                "1: services.web.volumes[0].bind.create \"create\" is not a key of a bind",
            ),
            (
                "services: {web: {networks: {a: {alias: [b]}}}}",
                "1: services.web.networks.a.alias \"alias\" is not a key of a service's network; did you mean \"aliases\"?",
            ),
            (
                "services: {web: {env_file: [{pth: a}]}}",
                "1: services.web.env_file[0].pth \"pth\" is not a key of an env_file; did you mean \"path\"?",
            ),
            (
                "services: {web: {healthcheck: {retrys: 1}}}",
                "1: services.web.healthcheck.retrys \"retrys\" is not a key of a healthcheck; did you mean \"retries\"?",
            ),
            (
                "volumes: {a: {drivers: x}}",
                "1: volumes.a.drivers \"drivers\" is not a key of a volume; did you mean \"driver\"?",
            ),
            (
                "networks: {a: {ipam: {config: [{subnets: x}]}}}",
                "1: networks.a.ipam.config[0].subnets \"subnets\" is not a key of a subnet; did you mean \"subnet\"?",
            ),
            (
                "configs: {a: {files: x}}",
                "1: configs.a.files \"files\" is not a key of a config; did you mean \"file\"?",
            ),
            (
                "secrets: {a: {files: x}}",
                "1: secrets.a.files \"files\" is not a key of a secret; did you mean \"file\"?",
            ),
            (
                "services: {web: {x-comb: {}}}",
                "1: services.web.x-comb \"x-comb\" stands at the top of the file only",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(told(text), [expected], "{text}");
        }
    }

    #[test]
    fn an_unknown_key_behind_an_alias_or_a_merge_is_told_where_it_stands() {
        let text = "x-base: &base\n  imag: a\nservices:\n  web:\n    <<: *base\n  other: *base\n";
        assert_eq!(
            told(text),
            [
                "2: services.web.imag \"imag\" is not a key of a service; did you mean \"image\"?",
                "2: services.other.imag \"imag\" is not a key of a service; did you mean \"image\"?",
            ]
        );
    }

    #[test]
    fn names_and_extensions_are_free() {
        let text = "x-a: {b: 1}\nservices:\n  volums: {x-b: 1, image: a, labels: {z: 1}, depends_on: [b], ports: [80]}\n";
        assert!(told(text).is_empty());
    }
}
