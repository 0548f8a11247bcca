//! Permissions: what a package may do beyond the rules.
//!
//! ```text
//! net:host                 all of the machine's network
//! bind:/srv/media:ro       to read a folder of the machine
//! cap:NET_ADMIN            a capability of the kernel
//! device:/dev/ttyUSB0      a device of the machine
//! gpu:all                  its graphics cards
//! port:25/tcp              a port below 1024
//! ```
//!
//! A permission has one form of writing, so two texts are the same permission or two different ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::compose::Protocol;
use crate::compose::paths::{self, Device, Host};

/// The most permissions of a package.
pub const PERMISSIONS_MAX: usize = 32;
/// The longest permission, in bytes.
pub const PERMISSION_BYTES_MAX: usize = 512;
/// Ports below this one need a permission.
pub const PORT_FREE_MIN: u16 = 1024;

/// Capabilities that an owner may grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the kernel documents them")]
pub enum Capability {
    IpcLock,
    NetAdmin,
    SysNice,
    SysPtrace,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::IpcLock, Self::NetAdmin, Self::SysNice, Self::SysPtrace];

    /// As the kernel's headers write it, without `CAP_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::IpcLock => "IPC_LOCK",
            Self::NetAdmin => "NET_ADMIN",
            Self::SysNice => "SYS_NICE",
            Self::SysPtrace => "SYS_PTRACE",
        }
    }

    /// What it gives a container, as the end of a sentence that begins with its name.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::IpcLock => "lets it keep memory from being swapped out",
            Self::NetAdmin => "lets it change its own network",
            Self::SysNice => "lets it run before other programs",
            Self::SysPtrace => "lets it look into its own programs",
        }
    }
}

/// One thing beyond the rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Permission {
    /// To use the machine's network as its own.
    HostNetwork,
    /// To read a folder or file of the machine.
    Bind(String),
    /// A capability of the kernel.
    Capability(Capability),
    /// A device below `/dev`.
    Device(String),
    /// The graphics cards.
    Gpu,
    /// A port below 1024.
    Port(u16, Protocol),
}

/// Why a text is no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no permission: {problem}")]
pub struct PermissionError {
    /// The text, made safe to print.
    pub text: String,
    /// What is wrong.
    pub problem: &'static str,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("net:host"),
            Self::Bind(path) => write!(f, "bind:{path}:ro"),
            Self::Capability(capability) => write!(f, "cap:{}", capability.name()),
            Self::Device(path) => write!(f, "device:{path}"),
            Self::Gpu => f.write_str("gpu:all"),
            Self::Port(port, protocol) => write!(f, "port:{port}/{protocol}"),
        }
    }
}

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        let wrong = |problem| PermissionError {
            text: text.chars().take(80).collect::<String>().escape_debug().to_string(),
            problem,
        };
        if text.len() > PERMISSION_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        let (kind, value) = text.split_once(':').ok_or_else(|| wrong("it has no \":\""))?;
        match (kind, value) {
            ("net", "host") => Ok(Self::HostNetwork),
            ("gpu", "all") => Ok(Self::Gpu),
            ("bind", value) => {
                let path = value.strip_suffix(":ro").ok_or_else(|| wrong("a bind ends with \":ro\""))?;
                match Self::bind(path) {
                    Some(permission) => Ok(permission),
                    None => Err(wrong("that path cannot be granted")),
                }
            }
            ("cap", value) => Capability::ALL
                .into_iter()
                .find(|capability| capability.name() == value)
                .map(Self::Capability)
                .ok_or_else(|| wrong("that capability cannot be granted")),
            ("device", value) => Self::device(value).ok_or_else(|| wrong("that device cannot be granted")),
            ("port", value) => {
                let (port, protocol) =
                    value.split_once('/').ok_or_else(|| wrong("a port ends with /tcp or /udp"))?;
                let protocol = protocol.parse().map_err(|()| wrong("a port ends with /tcp or /udp"))?;
                match port.parse::<u16>() {
                    Ok(number) if (1..PORT_FREE_MIN).contains(&number) && number.to_string() == port => {
                        Ok(Self::Port(number, protocol))
                    }
                    _ => Err(wrong("only ports from 1 to 1023 need one")),
                }
            }
            _ => Err(wrong("there is none of that kind")),
        }
    }
}

impl Permission {
    /// For a path of the machine, if one can be granted and the path is written without detours.
    pub fn bind(path: &str) -> Option<Self> {
        let plain = paths::absolute(path)? == path && !path.contains(':');
        (plain && paths::host(path, &[]) == Host::Ask && path.len() + 8 <= PERMISSION_BYTES_MAX)
            .then(|| Self::Bind(path.to_owned()))
    }

    /// For a device, if one can be granted and the path is written without detours.
    pub fn device(path: &str) -> Option<Self> {
        let plain = paths::absolute(path)? == path && !path.contains(':');
        (plain && paths::device(path) == Device::Ask && path.len() + 7 <= PERMISSION_BYTES_MAX)
            .then(|| Self::Device(path.to_owned()))
    }
}

impl TryFrom<String> for Permission {
    type Error = PermissionError;

    fn try_from(text: String) -> Result<Self, PermissionError> {
        text.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> String {
        permission.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_permission_has_one_form() {
        for text in [
            "net:host",
            "gpu:all",
            "bind:/srv/media:ro",
            "cap:NET_ADMIN",
            "cap:SYS_PTRACE",
            "device:/dev/ttyUSB0",
            "port:25/tcp",
            "port:1023/udp",
        ] {
            let permission: Permission = text.parse().expect(text);
            assert_eq!(permission.to_string(), text);
        }
    }

    #[test]
    fn what_nobody_may_grant_is_no_permission() {
        for text in [
            "",
            "net",
            "net:HOST",
            "Net:host",
            "cap:net_admin",
            "cap:SYS_ADMIN",
            "cap:ALL",
            "cap:CAP_NET_ADMIN",
            "bind:/srv/media",
            "bind:/srv/media:rw",
            "bind:/etc:ro",
            "bind:/:ro",
            "bind:/srv/../etc:ro",
            "bind:/srv/:ro",
            "bind:/var/run/docker.sock:ro",
            "bind:srv:ro",
            "bind:/a:b:ro",
            "device:/dev/sda",
            "device:/dev/../dev/sda",
            "device:/dev/fuse",
            "device:ttyUSB0",
            "device:/etc/passwd",
            "port:1024/tcp",
            "port:0/tcp",
            "port:25",
            "port:025/tcp",
            "port:25/sctp",
            "gpu:0",
            "bind:/etc/localtime:ro",
        ] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_permission_or_none(text in "(net|cap|bind|device|port|gpu)?:?\\PC{0,40}") {
            if let Ok(permission) = text.parse::<Permission>() {
                prop_assert_eq!(permission.to_string(), text);
            }
        }
    }
}
