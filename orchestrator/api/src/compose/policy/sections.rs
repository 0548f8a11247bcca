//! What stands beside the services: networks, named volumes, configs and secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::value::{says, truth};
use super::{APP_VOLUME, At, Checker, LINK_VOLUME, NAME_BYTES_MAX};
use crate::compose::paths::{absolute, below};
use crate::compose::{PlannedVolume, VolumeKind};

impl Checker<'_> {
    pub(super) fn given_file(&mut self, section: &str, name: &str, value: &Value) {
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
        self.entries(&at, value);
        let file = self.text(&at.key("file"), &value["file"]);
        if !file.is_empty() {
            let is_inside = absolute(file).is_some_and(|file| below(&self.folder, &file).is_some());
            if !is_inside {
                self.refuse(
                    &at.key("file"),
                    format!("\"{}\" is outside the app's folder", file.escape_debug()),
                );
            }
        }
    }

    pub(super) fn network(&mut self, name: &str, value: &Value, project: &str) {
        let at = At::of(&["networks", name]);
        if truth(&value["external"]) {
            let hint = "take the line out: the services of an app reach each other without it";
            let message = format!("network \"{name}\" is shared with containers that are not the app's");
            self.refuse_with(&at, message, Some(hint));
            return;
        }
        self.entries(&at, value);
        let driver = self.text(&at.key("driver"), &value["driver"]);
        if !matches!(driver, "" | "bridge" | "default") {
            let driver = driver.escape_debug();
            let message = format!(
                "network \"{name}\" asks for driver \"{driver}\"; only \"bridge\" keeps the app apart"
            );
            self.refuse(&at.key("driver"), message);
        }
        for (option, _) in self.entries(&at.key("driver_opts"), &value["driver_opts"]) {
            if option != "com.docker.network.driver.mtu" {
                let message =
                    format!("network \"{name}\" asks for the driver option \"{}\"", option.escape_debug());
                self.refuse(&At { clues: vec![option], ..at.key("driver_opts") }, message);
            }
        }
        let ipam = at.key("ipam");
        self.entries(&ipam, &value["ipam"]);
        let driver = self.text(&ipam, &value["ipam"]["driver"]);
        if !matches!(driver, "" | "default") || says(&value["ipam"]["options"]) {
            self.refuse(&ipam, format!("network \"{name}\" asks for somebody else to give addresses"));
        }
        for subnet in self.items(&ipam, &value["ipam"]["config"]) {
            self.entries(&ipam, subnet);
            let subnet = self.text(&ipam, &subnet["subnet"]);
            if subnet.is_empty() {
                continue;
            }
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

    pub(super) fn named_volumes(&mut self, volumes: &Map<String, Value>, project: &str) {
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
                None => {
                    self.volumes_refused.insert(name.clone());
                    continue;
                }
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

    pub(super) fn volume_kind(
        &mut self,
        at: &At<'_>,
        name: &str,
        docker: &str,
        value: &Value,
    ) -> Option<VolumeKind> {
        self.labels(&at.key("labels"), &value["labels"]);
        self.entries(at, value);
        let driver = self.text(&at.key("driver"), &value["driver"]);
        if !matches!(driver, "" | "local") {
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
}

/// Whether a subnet is small and of those that nobody routes.
pub(super) fn is_private_subnet(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(address)), Ok(16..=32)) => address.is_private(),
        (Ok(IpAddr::V6(address)), Ok(48..=128)) => address.is_unique_local(),
        _ => false,
    }
}
