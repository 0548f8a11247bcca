//! The policy over compose's answer.
//!
//! Each key of a service stands in one of two places here: in `ALLOWED`, because it stays within the container, or in
//! the `match` of [`Checker::service`], with what is asked of it. A key in neither is refused, so a newer compose that
//! knows more does not give an app more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value};

use super::block::NamedKind;
use super::keys::{self, join};
use super::paths::{self, Device, Host, absolute, below, inside};
use super::{
    Ask, Mount, Note, Owner, PackageFile, Place, Plan, PlannedPort, PlannedService, PlannedVolume, Protocol,
    Refusal, Restart, Source, TOLD_MAX, Verdict, VolumeKind,
};
use crate::permission::{Capability, PERMISSIONS_MAX, PORT_FREE_MIN, Permission};
use crate::text::is_plain;

/// The largest answer of compose that is read, in bytes.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;
/// The most services of an app.
pub const SERVICES_MAX: usize = 64;
/// The most volumes of an app.
pub const VOLUMES_MAX: usize = 32;
/// The most published ports of an app.
pub const PORTS_MAX: usize = 64;
/// The most containers of a service.
pub const CONTAINERS_MAX: u64 = 16;
/// The longest name of an image, in bytes.
pub const IMAGE_BYTES_MAX: usize = 512;
/// The longest name of a volume or service, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// The variable that names the app's volume in files written for it.
pub const APP_VOLUME: &str = "APP_VOLUME_NAME";
/// The variable that names the volume of the app's link.
pub const LINK_VOLUME: &str = "LINK_VOLUME_NAME";

/// What the policy is told beside the file.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The absolute path of the folder that compose read, with the main file's folder as its project's.
    pub folder: String,
    /// What the device fills in: [`APP_VOLUME`] and [`LINK_VOLUME`] matter here.
    pub variables: BTreeMap<String, String>,
    /// What the owner granted.
    pub permissions: BTreeSet<Permission>,
    /// Docker volumes whose data is taken over.
    pub adopted: BTreeSet<String>,
    /// Folders of the machine that are Comb's, and Docker's own where it is not `/var/lib/docker`.
    pub comb_folders: Vec<String>,
}

/// Capabilities that Docker gives every container.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

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

/// Checks compose's answer about the text that `source` is.
pub fn check(source: &Source, config: &[u8], given: &Given) -> Verdict {
    let mut checker = Checker::new(source, given);
    match read(config) {
        Ok(config) => checker.config(&config),
        Err(problem) => checker.refuse(&At::file(), format!("compose's answer {problem}")),
    }
    checker.finish()
}

fn read(config: &[u8]) -> Result<Map<String, Value>, String> {
    if config.len() > CONFIG_BYTES_MAX {
        return Err(format!("is larger than {CONFIG_BYTES_MAX} bytes"));
    }
    match serde_json::from_slice(config) {
        Ok(Value::Object(mut config)) => {
            config.values_mut().for_each(plain_dollars);
            Ok(config)
        }
        Ok(_) => Err("is no object".to_owned()),
        Err(error) => Err(format!("is no JSON: {error}")),
    }
}

/// Compose writes each `$` twice, so that its answer can be read as a compose file again.
fn plain_dollars(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("$$") => *text = text.replace("$$", "$"),
        Value::Array(items) => items.iter_mut().for_each(plain_dollars),
        Value::Object(map) => map.values_mut().for_each(plain_dollars),
        _ => {}
    }
}

/// Where in compose's answer something stands, and what to look for in the text.
#[derive(Debug, Clone, Default)]
struct At<'a> {
    path: Vec<&'a str>,
    number: Option<usize>,
    clues: Vec<&'a str>,
}

impl<'a> At<'a> {
    fn file() -> Self {
        Self::default()
    }

    fn of(path: &[&'a str]) -> Self {
        Self { path: path.to_vec(), number: None, clues: Vec::new() }
    }

    fn key(&self, key: &'a str) -> Self {
        let mut at = self.clone();
        at.path.push(key);
        at
    }

    fn item(&self, number: usize, clues: &[&'a str]) -> Self {
        Self { path: self.path.clone(), number: Some(number), clues: clues.to_vec() }
    }

    fn field(&self) -> String {
        let field = self.path.iter().fold(String::new(), |field, key| join(&field, key));
        match self.number {
            Some(number) => format!("{field}[{number}]"),
            None => field,
        }
    }
}

struct Checker<'a> {
    source: &'a Source,
    given: &'a Given,
    folder: String,
    refusals: Vec<Refusal>,
    asks: BTreeMap<Permission, Ask>,
    notes: Vec<Note>,
    plan: Plan,
    volumes: BTreeMap<String, PlannedVolume>,
    /// Relative folders that are bound, with where.
    folders: BTreeMap<String, Place>,
    lost: Option<Note>,
}

impl<'a> Checker<'a> {
    fn new(source: &'a Source, given: &'a Given) -> Self {
        Self {
            source,
            given,
            folder: absolute(&given.folder).unwrap_or_default(),
            refusals: Vec::new(),
            asks: BTreeMap::new(),
            notes: source.notes().to_vec(),
            plan: Plan::default(),
            volumes: BTreeMap::new(),
            folders: BTreeMap::new(),
            lost: None,
        }
    }

    fn refuse(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.refuse_with(at, message, None);
    }

    fn refuse_with(&mut self, at: &At<'_>, message: impl Into<String>, hint: Option<&str>) {
        // Looking for the line takes time; a file with so many mistakes is refused anyway.
        if self.refusals.len() == TOLD_MAX {
            return;
        }
        self.refusals.push(Refusal {
            place: self.source.place(&at.path, &at.clues),
            field: at.field(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    fn ask(&mut self, at: &At<'_>, permission: Permission, message: String) {
        // One more than may be given is enough to refuse them.
        if self.asks.contains_key(&permission) || self.asks.len() > PERMISSIONS_MAX {
            return;
        }
        let granted = self.given.permissions.contains(&permission);
        let place = self.source.place(&at.path, &at.clues);
        self.asks.insert(permission.clone(), Ask { permission, place, field: at.field(), message, granted });
    }

    fn note(&mut self, at: &At<'_>, message: impl Into<String>) {
        if self.notes.len() >= TOLD_MAX {
            return;
        }
        let note = Note { place: self.source.place(&at.path, &at.clues), message: message.into() };
        self.notes.push(note);
    }

    fn finish(mut self) -> Verdict {
        self.notes.extend(self.lost);
        self.plan.volumes = self.volumes.into_values().collect();
        self.plan.ports.sort_by(|a, b| {
            (&a.service, a.port, a.protocol, a.wish).cmp(&(&b.service, b.port, b.protocol, b.wish))
        });
        self.plan.files.sort_by(|a, b| (&a.service, &a.target).cmp(&(&b.service, &b.target)));
        self.notes.sort();
        self.notes.dedup();
        self.refusals.sort();
        self.refusals.dedup();
        Verdict {
            refusals: self.refusals,
            asks: self.asks.into_values().collect(),
            notes: self.notes,
            plan: self.plan,
        }
    }

    fn config(&mut self, config: &Map<String, Value>) {
        if self.folder.is_empty() {
            self.refuse(&At::file(), "the folder that compose read has no absolute path");
            return;
        }
        for (field, message) in keys::unknown_in(config) {
            let path: Vec<&str> = field.split('.').collect();
            self.refuse(&At::of(&path), message);
        }
        let project = config.get("name").and_then(Value::as_str).unwrap_or_default();
        let empty = Map::new();
        let map = |key: &str| config.get(key).and_then(Value::as_object).unwrap_or(&empty);
        if !map("models").is_empty() {
            self.refuse(&At::of(&["models"]), "models run beside the containers, where Comb cannot see them");
        }
        for section in ["configs", "secrets"] {
            for (name, value) in map(section) {
                self.given_file(section, name, value);
            }
        }
        for (name, value) in map("networks") {
            self.network(name, value, project);
        }
        self.named_volumes(map("volumes"), project);

        let services = map("services");
        if services.is_empty() {
            self.refuse(&At::of(&["services"]), "the file has no services");
        }
        if services.len() > SERVICES_MAX {
            self.refuse(&At::of(&["services"]), format!("there are more than {SERVICES_MAX} services"));
            return;
        }
        let on_host = on_host_network(services);
        for (name, value) in services {
            self.service(name, value, on_host.contains(name.as_str()));
        }
        for (name, place) in self.source.services() {
            if !services.contains_key(name) && self.notes.len() < TOLD_MAX {
                let message = format!("\"{name}\" belongs to a profile that was not chosen, and is left out");
                self.notes.push(Note { place, message });
            }
        }
        self.folders_apart();
        self.limits();
        self.block(services);
    }

    fn limits(&mut self) {
        if self.volumes.len() > VOLUMES_MAX {
            self.refuse(&At::of(&["volumes"]), format!("there are more than {VOLUMES_MAX} volumes"));
        }
        if self.plan.ports.len() > PORTS_MAX {
            self.refuse(&At::of(&["services"]), format!("more than {PORTS_MAX} ports are published"));
        }
        if self.asks.len() > PERMISSIONS_MAX {
            self.refuse(
                &At::of(&["services"]),
                format!("more than {PERMISSIONS_MAX} permissions are asked for"),
            );
        }
    }

    /// What `x-comb` names must be there.
    fn block(&mut self, services: &Map<String, Value>) {
        let source = self.source;
        for named in &source.block().named {
            let (there, what) = match named.kind {
                NamedKind::Service => (services.contains_key(&named.name), "service"),
                NamedKind::Volume => (self.volumes.contains_key(&named.name), "volume"),
            };
            if !there && self.refusals.len() < TOLD_MAX {
                let message = format!("there is no {what} \"{}\"", named.name.escape_debug());
                let place = Place { file: source.main().to_owned(), line: named.line };
                self.refusals.push(Refusal { place, field: named.field.clone(), message, hint: None });
            }
        }
    }

    fn given_file(&mut self, section: &'a str, name: &str, value: &Value) {
        let at = At::of(&[section, name]);
        if truth(&value["external"]) {
            let hint = "give it by \"file\", \"content\" or \"environment\"";
            self.refuse_with(
                &at,
                format!("\"{name}\" is kept by a swarm, which Comb does not use"),
                Some(hint),
            );
        }
        for key in ["driver", "driver_opts", "template_driver"] {
            if says(&value[key]) {
                self.refuse(
                    &at.key(key),
                    format!("\"{key}\" of \"{name}\" is of a swarm, which Comb does not use"),
                );
            }
        }
        if let Some(file) = value["file"].as_str() {
            let is_inside = absolute(file).is_some_and(|file| below(&self.folder, &file).is_some());
            if !is_inside {
                self.refuse(
                    &at.key("file"),
                    format!("\"{}\" is outside the app's folder", file.escape_debug()),
                );
            }
        }
    }

    fn network(&mut self, name: &str, value: &Value, project: &str) {
        let at = At::of(&["networks", name]);
        if truth(&value["external"]) {
            let hint = "take the line out: the services of an app reach each other without it";
            let message = format!("network \"{name}\" is shared with containers that are not the app's");
            self.refuse_with(&at, message, Some(hint));
            return;
        }
        if let Some(driver) =
            value["driver"].as_str().filter(|driver| !matches!(*driver, "" | "bridge" | "default"))
        {
            let message = format!(
                "network \"{name}\" asks for driver \"{driver}\"; only \"bridge\" keeps the app apart"
            );
            self.refuse(&at.key("driver"), message);
        }
        for option in value["driver_opts"].as_object().into_iter().flat_map(Map::keys) {
            if option != "com.docker.network.driver.mtu" {
                let message =
                    format!("network \"{name}\" asks for the driver option \"{}\"", option.escape_debug());
                self.refuse(&At { clues: vec![option], ..at.key("driver_opts") }, message);
            }
        }
        if value["ipam"]["driver"].as_str().is_some_and(|driver| !matches!(driver, "" | "default"))
            || says(&value["ipam"]["options"])
        {
            self.refuse(
                &at.key("ipam"),
                format!("network \"{name}\" asks for somebody else to give addresses"),
            );
        }
        for subnet in value["ipam"]["config"].as_array().into_iter().flatten() {
            let Some(subnet) = subnet["subnet"].as_str() else { continue };
            if is_private_subnet(subnet) {
                self.note(
                    &at.key("ipam"),
                    format!(
                        "network \"{name}\" fixes the addresses {subnet}, which must be free on each machine"
                    ),
                );
            } else {
                let message = format!(
                    "network \"{name}\" asks for {}, which is not a small private network",
                    subnet.escape_debug()
                );
                self.refuse(&at.key("ipam"), message);
            }
        }
        self.labels(&at.key("labels"), &value["labels"]);
        if value["name"].as_str().is_some_and(|given| given != format!("{project}_{name}")) {
            self.note(&at.key("name"), format!("the name of network \"{name}\" in Docker is dropped"));
        }
        self.plan.networks.push(name.to_owned());
    }

    fn named_volumes(&mut self, volumes: &Map<String, Value>, project: &str) {
        let mut in_docker: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in volumes {
            let at = At::of(&["volumes", name]);
            let docker = value["name"].as_str().unwrap_or(name).to_owned();
            if name.len() > NAME_BYTES_MAX {
                self.refuse(
                    &at,
                    format!("the name of volume \"{name}\" is longer than {NAME_BYTES_MAX} bytes"),
                );
            }
            let kind = match self.volume_kind(&at, name, &docker, value) {
                Some(kind) => kind,
                None => continue,
            };
            if kind == VolumeKind::Named && docker != format!("{project}_{name}") && docker != *name {
                self.note(
                    &at.key("name"),
                    format!("volume \"{name}\" is Comb's; its name in Docker is dropped"),
                );
            }
            if let Some(other) = in_docker.insert(docker, name.clone()) {
                self.refuse(&at, format!("volumes \"{other}\" and \"{name}\" are the same one"));
            }
            self.volumes.insert(name.clone(), PlannedVolume { name: name.clone(), kind, mounts: Vec::new() });
        }
    }

    fn volume_kind(&mut self, at: &At<'_>, name: &str, docker: &str, value: &Value) -> Option<VolumeKind> {
        self.labels(&at.key("labels"), &value["labels"]);
        if let Some(driver) = value["driver"].as_str().filter(|driver| !matches!(*driver, "" | "local")) {
            let driver = driver.escape_debug();
            let message =
                format!("volume \"{name}\" asks for driver \"{driver}\"; its data would not be Comb's");
            self.refuse(&at.key("driver"), message);
            return None;
        }
        if says(&value["driver_opts"]) {
            let message = format!("volume \"{name}\" asks for driver options; its data would not be Comb's");
            self.refuse(&at.key("driver_opts"), message);
            return None;
        }
        let filled = |variable: &str| self.given.variables.get(variable).is_some_and(|given| given == docker);
        let adopted = self.given.adopted.contains(docker);
        match truth(&value["external"]) {
            false if adopted => Some(VolumeKind::Adopted { docker: docker.to_owned() }),
            false => Some(VolumeKind::Named),
            true if filled(APP_VOLUME) => Some(VolumeKind::App),
            true if filled(LINK_VOLUME) => Some(VolumeKind::Link),
            true if adopted => Some(VolumeKind::Adopted { docker: docker.to_owned() }),
            true => {
                let docker = docker.escape_debug();
                let message =
                    format!("volume \"{docker}\" does not exist; comb app adopt takes over a Docker volume");
                self.refuse(at, message);
                None
            }
        }
    }

    fn labels(&mut self, at: &At<'_>, labels: &Value) {
        let names: Vec<&str> = match labels {
            Value::Object(labels) => labels.keys().map(String::as_str).collect(),
            Value::Array(labels) => labels.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        for name in names {
            let lower = name.to_ascii_lowercase();
            if ["io.comb.", "com.docker.compose."].iter().any(|prefix| lower.starts_with(prefix)) {
                let name = name.split('=').next().unwrap_or(name);
                let at = At { clues: vec![name], ..at.clone() };
                self.refuse(&at, format!("the label \"{}\" is for Comb to give", name.escape_debug()));
            }
        }
    }

    fn service(&mut self, name: &str, value: &Value, host_network: bool) {
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

    fn image(&mut self, at: &At<'_>, value: &Value) -> Option<String> {
        let image = value.as_str()?;
        let plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@')
        };
        if image.len() > IMAGE_BYTES_MAX || image.starts_with('-') || !image.bytes().all(plain) {
            self.refuse(at, format!("\"{}\" is no name of an image", image.escape_debug()));
            return None;
        }
        Some(image.to_owned())
    }

    fn restart(&mut self, at: &At<'_>, value: &Value) -> Restart {
        let text = value.as_str().unwrap_or_default();
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

    fn deploy(&mut self, at: &At<'_>, value: &Value, planned: &mut PlannedService) {
        let of_swarm =
            ["endpoint_mode", "update_config", "rollback_config"].iter().any(|key| says(&value[*key]))
                || ["constraints", "preferences", "max_replicas_per_node"]
                    .iter()
                    .any(|key| says(&value["placement"][*key]))
                || value["mode"].as_str().is_some_and(|mode| mode != "replicated");
        if of_swarm {
            self.note(at, "what \"deploy\" says to a swarm is ignored");
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

    fn containers(&mut self, at: &At<'_>, value: &Value) {
        if says(value) && whole(value).is_none_or(|count| count > CONTAINERS_MAX) {
            self.refuse(
                at,
                format!("{} containers of one service are more than {CONTAINERS_MAX}", told(value)),
            );
        }
    }

    fn volumes_from(&mut self, at: &At<'_>, value: &Value) {
        for (number, from) in value.as_array().into_iter().flatten().enumerate() {
            let from = from.as_str().unwrap_or_default();
            if from.to_ascii_lowercase().starts_with("container:") {
                let message = format!("\"{}\" is a container that is not the app's", from.escape_debug());
                self.refuse(&at.item(number, &[from]), message);
            }
        }
    }

    fn lost(&mut self, at: &At<'_>, what: &Value) {
        if self.lost.is_none() {
            let message = format!("what is written to \"{}\" is lost with the container", told(what));
            self.lost = Some(Note { place: self.source.place(&at.path, &at.clues), message });
        }
    }

    fn mounts(&mut self, at: &At<'_>, service: &str, value: &Value, owner: &Owner) {
        for (number, mount) in value.as_array().into_iter().flatten().enumerate() {
            let text = |key: &str| mount[key].as_str().unwrap_or_default();
            let (source, target) = (text("source"), text("target"));
            let at = at.item(number, &[target, source]);
            if !target.starts_with('/') || !is_plain(target) {
                self.refuse(&at, format!("\"{}\" is no path in a container", target.escape_debug()));
                continue;
            }
            let seen = Mount {
                service: service.to_owned(),
                target: target.to_owned(),
                subpath: mount["volume"]["subpath"].as_str().map(str::to_owned),
                read_only: truth(&mount["read_only"]),
            };
            match text("type") {
                "tmpfs" => self.lost(&at, &mount["target"]),
                "volume" if source.is_empty() => self.lost(&at, &mount["target"]),
                "volume" if seen.subpath.as_deref().is_some_and(|path| inside("", path).is_none()) => {
                    self.refuse(
                        &at,
                        format!("\"{}\" is outside of the volume", told(&mount["volume"]["subpath"])),
                    );
                }
                "volume" => {
                    self.labels(&at, &mount["volume"]["labels"]);
                    // One that was refused is missing here, and has been told.
                    if let Some(volume) = self.volumes.get_mut(source) {
                        volume.mounts.push(seen);
                    }
                }
                "bind" => self.bind(&at, source, mount, seen, owner),
                other => {
                    let other = other.escape_debug();
                    self.refuse(&at, format!("\"{other}\" is no kind of volume that Comb knows; there are bind, volume and tmpfs"));
                }
            }
        }
    }

    fn bind(&mut self, at: &At<'_>, source: &str, mount: &Value, seen: Mount, owner: &Owner) {
        let Some(path) = absolute(source) else {
            self.refuse(at, format!("\"{}\" is no path of this machine", source.escape_debug()));
            return;
        };
        let propagation = mount["bind"]["propagation"].as_str().unwrap_or_default();
        if !matches!(propagation, "" | "private" | "rprivate" | "slave" | "rslave") {
            let propagation = propagation.escape_debug();
            self.refuse(
                at,
                format!("propagation \"{propagation}\" would let it mount things on the machine"),
            );
        }
        match below(&self.folder, &path) {
            Some(inside) => {
                let inside = inside.to_owned();
                self.bind_inside(at, inside, seen, owner);
            }
            None => self.bind_outside(at, path, mount, seen.read_only),
        }
    }

    fn bind_inside(&mut self, at: &At<'_>, path: String, seen: Mount, owner: &Owner) {
        if self.source.is_file(&path) {
            if !seen.read_only {
                self.note(
                    at,
                    format!("\"{path}\" is a file of the package: the app can read it and not write it"),
                );
            }
            self.plan.files.push(PackageFile { path, service: seen.service, target: seen.target });
            return;
        }
        let seed = self.source.is_folder(&path);
        let last = path.rsplit('/').next().unwrap_or(&path);
        if !seed && last.trim_start_matches('.').contains('.') {
            self.note(
                at,
                format!("\"{path}\" is not in the folder: it becomes an empty volume, and no file"),
            );
        }
        let name = folder_name(&path);
        let place = self.source.place(&at.path, &at.clues);
        self.folders.entry(path.clone()).or_insert(place);
        let fresh = || VolumeKind::Folder { path: path.clone(), seed, owner: owner.clone() };
        let volume = self.volumes.entry(name.clone()).or_insert_with(|| PlannedVolume {
            name: name.clone(),
            kind: fresh(),
            mounts: Vec::new(),
        });
        match &mut volume.kind {
            VolumeKind::Folder { path: other, owner: first, .. } if *other == path => {
                // Whoever may write decides; one that only reads, or says nothing, does not.
                if *first == Owner::Image
                    || volume.mounts.iter().all(|mount| mount.read_only) && !seen.read_only
                {
                    *first = owner.clone();
                }
                volume.mounts.push(seen);
            }
            _ => {
                let hint = "give one of them another name";
                self.refuse_with(
                    at,
                    format!("\"./{path}\" and another volume would both be named \"{name}\""),
                    Some(hint),
                );
            }
        }
        if name.len() > NAME_BYTES_MAX {
            self.refuse(
                at,
                format!("\"./{path}\" is longer than {NAME_BYTES_MAX} bytes, too long for a volume's name"),
            );
        }
    }

    fn bind_outside(&mut self, at: &At<'_>, path: String, mount: &Value, read_only: bool) {
        match paths::host(&path, &self.given.comb_folders) {
            Host::Socket => self.refuse(at, "the Docker socket is the machine itself"),
            Host::Machine(_) => self.refuse(at, format!("\"{path}\" belongs to the machine")),
            Host::Comb(_) => self.refuse(at, format!("\"{path}\" belongs to Comb")),
            Host::Clock | Host::Ask if !read_only => {
                let hint = "write \":ro\" behind it; what the app writes belongs into a volume";
                self.refuse_with(at, format!("\"{path}\" may only be read"), Some(hint));
            }
            Host::Clock => {}
            Host::Ask if says(&mount["bind"]["selinux"]) => {
                self.refuse(at, format!("\"selinux\" would change who may read \"{path}\""));
            }
            Host::Ask => match Permission::bind(&path) {
                Some(permission) => {
                    let message = format!(
                        "\"{path}\" is outside the app's folder, and it would read all that is there"
                    );
                    self.ask(at, permission, message);
                }
                None => self.refuse(at, format!("\"{}\" cannot be granted", path.escape_debug())),
            },
        }
    }

    /// A folder inside of another one would be another volume, and the outer one would not see it.
    fn folders_apart(&mut self) {
        let folders: Vec<_> =
            self.folders.iter().map(|(path, place)| (path.clone(), place.clone())).collect();
        for (path, place) in &folders {
            let outer = folders.iter().find(|(other, _)| {
                other != path
                    && (other.is_empty()
                        || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/')))
            });
            if let Some((outer, _)) = outer
                && self.refusals.len() < TOLD_MAX
            {
                self.refusals.push(Refusal {
                    place: place.clone(),
                    field: "services".to_owned(),
                    message: format!("\"./{path}\" lies inside \"./{outer}\", which is a volume of its own"),
                    hint: Some("bind folders that lie beside each other".to_owned()),
                });
            }
        }
    }

    fn ports(&mut self, at: &At<'_>, service: &str, value: &Value) {
        for (number, port) in value.as_array().into_iter().flatten().enumerate() {
            let (target, published) = (told(&port["target"]), told(&port["published"]));
            let both = format!("{published}:{target}");
            let at =
                At { path: at.path.clone(), number: Some(number), clues: vec![&both, &published, &target] };
            self.port(&at, service, port);
        }
    }

    fn port(&mut self, at: &At<'_>, service: &str, value: &Value) {
        let Some(port) =
            whole(&value["target"]).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
        else {
            self.refuse(at, format!("\"{}\" is no port", told(&value["target"])));
            return;
        };
        let protocol = value["protocol"].as_str().unwrap_or("tcp").to_ascii_lowercase();
        let Ok(protocol) = protocol.parse::<Protocol>() else {
            self.refuse(at, format!("protocol \"{}\" is neither tcp nor udp", protocol.escape_debug()));
            return;
        };
        let loopback = match value["host_ip"].as_str().unwrap_or_default() {
            "" | "0.0.0.0" | "::" | "[::]" => false,
            "localhost" => true,
            address if address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) => true,
            address => {
                let hint = "without an address it is reached by all of the machine's";
                let message = format!(
                    "{} is an address that one machine has, and others do not",
                    address.escape_debug()
                );
                self.refuse_with(at, message, Some(hint));
                return;
            }
        };
        let published = told(&value["published"]);
        let wish = match published.split('-').next().unwrap_or_default() {
            "" | "0" => None,
            wish => match wish.parse::<u16>() {
                Ok(wish) => Some(wish),
                Err(_) => {
                    self.refuse(at, format!("\"{}\" is no port", published.escape_debug()));
                    return;
                }
            },
        };
        if let Some(low) = wish.filter(|wish| *wish < PORT_FREE_MIN) {
            self.ask(at, Permission::Port(low, protocol), format!("port {low} is below {PORT_FREE_MIN}"));
        }
        self.plan.ports.push(PlannedPort { service: service.to_owned(), port, protocol, wish, loopback });
    }

    fn attachments(&mut self, at: &At<'_>, value: &Value) {
        for (network, settings) in value.as_object().into_iter().flatten() {
            if says(&settings["driver_opts"]) {
                let at = At { clues: vec![network], ..at.clone() };
                self.refuse(&at, format!("driver options for network \"{network}\" cannot be given"));
            }
        }
    }

    fn network_mode(&mut self, at: &At<'_>, value: &Value) {
        let mode = value.as_str().unwrap_or_default();
        match mode {
            "none" | "bridge" | "default" => {}
            mode if is_host(mode) => {
                let message = "network_mode \"host\" shows it every port of the machine".to_owned();
                self.ask(at, Permission::HostNetwork, message);
            }
            mode if mode.starts_with("service:") => {}
            mode => {
                let hint = "\"service:NAME\" joins a service of the app";
                let message =
                    format!("\"network_mode: {}\" would show it other programs", mode.escape_debug());
                self.refuse_with(at, message, Some(hint));
            }
        }
    }

    fn namespace(&mut self, at: &At<'_>, key: &str, value: &Value) {
        let mode = value.as_str().unwrap_or_default();
        let own = match key {
            "pid" => mode.starts_with("service:"),
            "ipc" => matches!(mode, "private" | "shareable" | "none") || mode.starts_with("service:"),
            "cgroup" => mode == "private",
            _ => false,
        };
        if !own {
            self.refuse(at, format!("\"{key}: {}\" would show it other programs", told(value)));
        }
    }

    fn capabilities(&mut self, at: &At<'_>, value: &Value, host_network: bool) {
        for (number, given) in value.as_array().into_iter().flatten().enumerate() {
            let given = given.as_str().unwrap_or_default();
            let at = at.item(number, &[given]);
            let upper = given.trim().to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if DEFAULT_CAPABILITIES.contains(&name) {
                continue;
            }
            match Capability::ALL.into_iter().find(|capability| capability.name() == name) {
                Some(Capability::NetAdmin) if host_network => {
                    self.refuse(
                        &at,
                        "NET_ADMIN with network_mode \"host\" would let it change the machine's network",
                    );
                }
                Some(capability) => {
                    let message = format!("{name} {}", capability.meaning());
                    self.ask(&at, Permission::Capability(capability), message);
                }
                None => {
                    let message =
                        format!("\"{}\" would give it power over the machine", given.escape_debug());
                    self.refuse(&at, message);
                }
            }
        }
    }

    fn devices(&mut self, at: &At<'_>, value: &Value) {
        for (number, device) in value.as_array().into_iter().flatten().enumerate() {
            // Older versions of compose answer with the short form.
            let source = match device {
                Value::String(short) => short.split(':').next().unwrap_or_default(),
                long => long["source"].as_str().unwrap_or_default(),
            };
            let at = at.item(number, &[source]);
            let path = absolute(source).unwrap_or_default();
            match paths::device(&path) {
                Device::Ask => match Permission::device(&path) {
                    Some(permission) => {
                        self.ask(&at, permission, format!("\"{path}\" is a device of the machine"));
                    }
                    None => self.refuse(&at, format!("\"{}\" cannot be granted", path.escape_debug())),
                },
                Device::Refused => {
                    self.refuse(&at, format!("\"{path}\" is a disk, the memory or a console of the machine"));
                }
                Device::Elsewhere => {
                    let hint = "graphics cards are asked for by \"gpus: all\"";
                    self.refuse_with(
                        &at,
                        format!("\"{}\" is no device below /dev", source.escape_debug()),
                        Some(hint),
                    );
                }
            }
        }
    }

    fn gpus(&mut self, at: &At<'_>, value: &Value) {
        let requests = match value {
            Value::Array(requests) => requests.as_slice(),
            one => std::slice::from_ref(one),
        };
        for request in requests {
            let texts = |key: &str| -> Vec<&str> {
                request[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
            };
            let all = request.as_str() == Some("all");
            let of_gpu = all || at.path.last() == Some(&"gpus") || texts("capabilities").contains(&"gpu");
            let driver = request["driver"].as_str().unwrap_or_default();
            let plain = matches!(driver, "" | "nvidia" | "amd")
                && texts("device_ids").iter().all(|id| !id.contains(['/', '=']));
            if of_gpu && plain {
                self.ask(at, Permission::Gpu, "the graphics cards are the machine's".to_owned());
            } else {
                self.refuse(at, "only graphics cards can be asked for here");
            }
        }
    }

    fn security_options(&mut self, at: &At<'_>, value: &Value) {
        for (number, option) in value.as_array().into_iter().flatten().enumerate() {
            let option = option.as_str().unwrap_or_default();
            let known = matches!(
                option.replace(':', "=").as_str(),
                "no-new-privileges"
                    | "no-new-privileges=true"
                    | "no-new-privileges=false"
                    | "seccomp=builtin"
                    | "apparmor=docker-default"
            );
            if !known {
                let message =
                    format!("security_opt \"{}\" could loosen what keeps it apart", option.escape_debug());
                self.refuse(&at.item(number, &[option]), message);
            }
        }
    }

    fn sysctls(&mut self, at: &At<'_>, value: &Value, host_network: bool) {
        let names: Vec<&str> = match value {
            Value::Object(sysctls) => sysctls.keys().map(String::as_str).collect(),
            Value::Array(sysctls) => sysctls.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for name in names {
            let name = name.split('=').next().unwrap_or(name);
            if host_network || !name.starts_with("net.") {
                let at = At { clues: vec![name], ..at.clone() };
                self.refuse(&at, format!("sysctl \"{}\" is not of its own network", name.escape_debug()));
            }
        }
    }

    fn logging(&mut self, at: &At<'_>, value: &Value) {
        if value["driver"].as_str().is_some_and(|driver| !matches!(driver, "" | "json-file" | "local")) {
            self.refuse(&at.key("driver"), "logs would leave the machine");
        }
    }

    fn service_hooks(&mut self, at: &At<'_>, value: &Value) {
        for (number, hook) in value.as_array().into_iter().flatten().enumerate() {
            if truth(&hook["privileged"]) {
                let at = at.item(number, &["privileged"]);
                self.refuse(&at, "\"privileged\" would give the container all of the machine");
            }
        }
    }

    fn blkio(&mut self, at: &At<'_>, value: &Value) {
        for key in value.as_object().into_iter().flat_map(Map::keys).filter(|key| *key != "weight") {
            if says(&value[key.as_str()]) {
                self.refuse(&at.key(key), format!("\"{key}\" names disks, which each machine has others of"));
            }
        }
    }

    fn build(&mut self, at: &At<'_>, value: &Value) {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let folder = self.folder.clone();
        let is_inside = |path: &str| absolute(path).is_some_and(|path| below(&folder, &path).is_some());
        if !is_inside(text("context")) {
            let context = text("context").escape_debug();
            self.refuse(
                &at.key("context"),
                format!("build context \"{context}\" is outside the app's folder"),
            );
        } else {
            let dockerfile = text("dockerfile");
            let whole = if dockerfile.starts_with('/') {
                dockerfile.to_owned()
            } else {
                format!("{}/{dockerfile}", text("context"))
            };
            if !is_inside(&whole) {
                let message = format!("\"{}\" is outside the app's folder", dockerfile.escape_debug());
                self.refuse(&at.key("dockerfile"), message);
            }
        }
        for (name, context) in value["additional_contexts"].as_object().into_iter().flatten() {
            let context = context.as_str().unwrap_or_default();
            let known =
                ["service:", "docker-image://", "target:"].iter().any(|prefix| context.starts_with(prefix));
            if !known && !is_inside(context) {
                let at = At { clues: vec![name], ..at.key("additional_contexts") };
                self.refuse(
                    &at,
                    format!("build context \"{}\" is outside the app's folder", context.escape_debug()),
                );
            }
        }
        if truth(&value["privileged"]) {
            self.refuse(&at.key("privileged"), "\"privileged\" would give the build all of the machine");
        }
        if says(&value["entitlements"]) {
            self.refuse(&at.key("entitlements"), "\"entitlements\" would give the build all of the machine");
        }
        if says(&value["ssh"]) {
            self.refuse(&at.key("ssh"), "\"ssh\" would lend the build the keys of whoever builds");
        }
        if !matches!(text("network"), "" | "default" | "none") {
            let network = text("network").escape_debug();
            self.refuse(
                &at.key("network"),
                format!("the build's network \"{network}\" would show it other programs"),
            );
        }
        if says(&value["isolation"]) {
            self.refuse(&at.key("isolation"), "\"isolation\" is of Windows");
        }
        if says(&value["tags"]) {
            self.refuse(&at.key("tags"), "\"tags\" would rename images of the machine");
        }
        self.labels(&at.key("labels"), &value["labels"]);
        for (key, known) in [("cache_from", "type=registry,"), ("cache_to", "type=inline")] {
            for cache in value[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let plain = key == "cache_from" && !cache.contains('=');
                if !plain && !cache.starts_with(known) || cache.contains("dest=") || cache.contains("src=") {
                    let at = At { clues: vec![cache], ..at.key(key) };
                    self.refuse(
                        &at,
                        format!("\"{key}: {}\" is outside the app's folder", cache.escape_debug()),
                    );
                }
            }
        }
    }
}

/// The services that use the machine's network: by their own word, or by joining one that does.
fn on_host_network(services: &Map<String, Value>) -> BTreeSet<&str> {
    let mode = |value: &'_ Value| value["network_mode"].as_str().map(str::to_owned).unwrap_or_default();
    let mut found: BTreeSet<&str> =
        services.iter().filter(|(_, value)| is_host(&mode(value))).map(|(name, _)| name.as_str()).collect();
    loop {
        let before = found.len();
        for (name, value) in services {
            if mode(value).strip_prefix("service:").is_some_and(|joined| found.contains(joined)) {
                found.insert(name);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn is_host(mode: &str) -> bool {
    mode.trim().eq_ignore_ascii_case("host")
}

/// Whether a value says anything: compose answers with null, empty texts and empty lists where nothing was said.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Whether a flag may be on: whatever is not plainly off.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "false",
        _ => true,
    }
}

/// A whole number, also one that is written as a text.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A value in a message.
fn told(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().take(200).collect::<String>().escape_debug().to_string(),
        Value::Null => String::new(),
        other => other.to_string().chars().take(200).collect(),
    }
}

/// The name of the volume that a folder of the package becomes.
fn folder_name(path: &str) -> String {
    let plain =
        |one: char| if one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-') { one } else { '-' };
    let name: String = path.chars().map(plain).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "folder".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether a subnet is small and of those that nobody routes.
fn is_private_subnet(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(address)), Ok(16..=32)) => is_private(address),
        (Ok(IpAddr::V6(address)), Ok(48..=128)) => address.is_unique_local(),
        _ => false,
    }
}

fn is_private(address: Ipv4Addr) -> bool {
    address.is_private()
}

fn owner_of(service: &Map<String, Value>) -> Owner {
    let environment = service.get("environment").and_then(Value::as_object).into_iter().flatten();
    let environment = environment.map(|(name, value)| (name.clone(), told(value))).collect();
    Owner::of(service.get("user").and_then(Value::as_str), &environment)
}
