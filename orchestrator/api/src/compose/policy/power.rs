//! What services may do to the machine: capabilities, devices, what keeps them apart.

use serde_json::Value;

use super::value::{says, truth};
use super::{At, Checker};
use crate::compose::paths::{self, Device, absolute};
use crate::permission::{Capability, Permission};

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

impl Checker<'_> {
    pub(super) fn capabilities(&mut self, at: &At<'_>, value: &Value, host_network: bool) {
        for (number, given) in self.texts(at, value).into_iter().enumerate() {
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

    pub(super) fn devices(&mut self, at: &At<'_>, value: &Value) {
        for (number, device) in self.items(at, value).iter().enumerate() {
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

    pub(super) fn gpus(&mut self, at: &At<'_>, value: &Value) {
        let requests = match value {
            Value::Array(requests) => requests.as_slice(),
            one => std::slice::from_ref(one),
        };
        for request in requests {
            let all = request.as_str() == Some("all");
            if !all {
                self.entries(at, request);
            }
            let capabilities = self.texts(at, &request["capabilities"]);
            let devices = self.texts(at, &request["device_ids"]);
            let driver = self.text(at, &request["driver"]);
            let of_gpu = all || at.path.last() == Some(&"gpus") || capabilities.contains(&"gpu");
            let plain =
                matches!(driver, "" | "nvidia" | "amd") && devices.iter().all(|id| !id.contains(['/', '=']));
            if of_gpu && plain {
                self.ask(at, Permission::Gpu, "the graphics cards are the machine's".to_owned());
            } else {
                self.refuse(at, "only graphics cards can be asked for here");
            }
        }
    }

    pub(super) fn security_options(&mut self, at: &At<'_>, value: &Value) {
        for (number, option) in self.texts(at, value).into_iter().enumerate() {
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

    pub(super) fn logging(&mut self, at: &At<'_>, value: &Value) {
        self.entries(at, value);
        let at = at.key("driver");
        if !matches!(self.text(&at, &value["driver"]), "" | "json-file" | "local") {
            self.refuse(&at, "logs would leave the machine");
        }
    }

    pub(super) fn service_hooks(&mut self, at: &At<'_>, value: &Value) {
        for (number, hook) in self.items(at, value).iter().enumerate() {
            self.entries(&at.item(number, &[]), hook);
            if truth(&hook["privileged"]) {
                let at = at.item(number, &["privileged"]);
                self.refuse(&at, "\"privileged\" would give the container all of the machine");
            }
        }
    }

    pub(super) fn blkio(&mut self, at: &At<'_>, value: &Value) {
        for (key, value) in self.entries(at, value) {
            if key != "weight" && says(value) {
                self.refuse(&at.key(key), format!("\"{key}\" names disks, which each machine has others of"));
            }
        }
    }
}
