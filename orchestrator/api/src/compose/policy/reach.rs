//! What services reach, and who reaches them: ports, networks, other programs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::value::{says, told, whole};
use super::{At, Checker};
use crate::compose::{PlannedPort, Protocol};
use crate::permission::{PORT_FREE_MIN, Permission};

impl Checker<'_> {
    pub(super) fn ports(&mut self, at: &At<'_>, service: &str, value: &Value) {
        for (number, port) in self.items(at, value).iter().enumerate() {
            let (target, published) = (told(&port["target"]), told(&port["published"]));
            let both = format!("{published}:{target}");
            let at =
                At { path: at.path.clone(), number: Some(number), clues: vec![&both, &published, &target] };
            self.port(&at, service, port);
        }
    }

    pub(super) fn port(&mut self, at: &At<'_>, service: &str, value: &Value) {
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
        let loopback = match self.text(at, &value["host_ip"]) {
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

    pub(super) fn attachments(&mut self, at: &At<'_>, value: &Value) {
        // As a list it only names them.
        if value.is_array() {
            return;
        }
        for (network, settings) in self.entries(at, value) {
            if says(&settings["driver_opts"]) {
                let at = At { clues: vec![network], ..at.clone() };
                self.refuse(&at, format!("driver options for network \"{network}\" cannot be given"));
            }
        }
    }

    pub(super) fn network_mode(&mut self, at: &At<'_>, value: &Value) {
        let mode = value.as_str().unwrap_or_default();
        match mode {
            "none" | "bridge" | "default" => {}
            "host" => {
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

    pub(super) fn namespace(&mut self, at: &At<'_>, key: &str, value: &Value) {
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

    pub(super) fn sysctls(&mut self, at: &At<'_>, value: &Value, host_network: bool) {
        let names: Vec<&str> = match value {
            Value::Array(_) => self.texts(at, value),
            map => self.entries(at, map).into_iter().map(|(name, _)| name).collect(),
        };
        for name in names {
            let name = name.split('=').next().unwrap_or(name);
            if host_network || !name.starts_with("net.") {
                let at = At { clues: vec![name], ..at.clone() };
                self.refuse(&at, format!("sysctl \"{}\" is not of its own network", name.escape_debug()));
            }
        }
    }
}

/// The services that use the machine's network: by their own word, or by joining one that does.
pub(super) fn on_host_network(services: &Map<String, Value>) -> BTreeSet<&str> {
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

pub(super) fn is_host(mode: &str) -> bool {
    mode.trim().eq_ignore_ascii_case("host")
}
