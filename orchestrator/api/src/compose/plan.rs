//! What an accepted compose file becomes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Owner;

/// What is made of an app's file: its services, volumes, ports, and the files given to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// By name.
    pub services: Vec<PlannedService>,
    /// By name.
    pub volumes: Vec<PlannedVolume>,
    /// By service and port.
    pub ports: Vec<PlannedPort>,
    /// Files of the package that containers see, read-only.
    pub files: Vec<PackageFile>,
    /// Networks of the app's own, by their keys.
    pub networks: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedService {
    /// Its name.
    pub name: String,
    /// The image as the file names it; none if it is only built.
    pub image: Option<String>,
    /// Whether it is built where the package is authored.
    pub build: bool,
    /// The wish that the device fulfils in Docker's place.
    pub restart: Restart,
    /// Who must be able to write to its folders.
    pub owner: Owner,
    /// The limit on processes; the device sets 4,096 where the file says nothing.
    pub pids: Option<u64>,
}

/// When a stopped container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never: it does its work once.
    #[default]
    No,
    /// After a failure, so many times; without a number always.
    OnFailure(Option<u32>),
    /// Whenever it ends.
    Always,
    /// Whenever it ends, unless a person stopped it.
    UnlessStopped,
}

/// A volume of Comb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVolume {
    /// Its name in the app.
    pub name: String,
    /// Where it comes from.
    pub kind: VolumeKind,
    /// Where it is seen.
    pub mounts: Vec<Mount>,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// A named volume of the file.
    Named,
    /// `$APP_VOLUME_NAME`.
    App,
    /// `$LINK_VOLUME_NAME`.
    Link,
    /// A Docker volume of the old project, whose data is taken over.
    Adopted {
        /// Its name in Docker.
        docker: String,
    },
    /// A relative bind: seeded once with this folder of the package, if there is one.
    Folder {
        /// From the folder's top; empty for all of it.
        path: String,
        /// Whether the package has files there.
        seed: bool,
        /// Who owns what is put there.
        owner: Owner,
    },
}

/// Where a service sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The service.
    pub service: String,
    /// The path in its containers.
    pub target: String,
    /// The folder of the volume that is seen; none for all of it.
    pub subpath: Option<String>,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// A file of the package that a service sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// From the folder's top.
    pub path: String,
    /// The service.
    pub service: String,
    /// The path in its containers.
    pub target: String,
}

/// A port that people reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPort {
    /// The service.
    pub service: String,
    /// The port in its containers.
    pub port: u16,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The port of the machine that the file asks for.
    pub wish: Option<u16>,
    /// Whether only the machine itself may reach it.
    pub loopback: bool,
}

/// How a port is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of the protocols")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(()),
        }
    }
}

impl PlannedVolume {
    /// Whether it is the volume of the app's link.
    pub fn is_link(&self) -> bool {
        self.kind == VolumeKind::Link
    }
}
