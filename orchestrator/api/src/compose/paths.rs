//! Paths, decided by their text alone.
//!
//! A path is taken apart before it is judged, so that `//var/./run/../run/x` is `/run/x`. What a path leads to by
//! links of the machine is not known here: who has the machine resolves it, and asks [`host`] again for what it found.

/// Where a path of the machine may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To a socket by which the whole machine is ordered.
    Socket,
    /// To what belongs to the machine or to Comb: this one of the listed paths.
    Machine(&'static str),
    /// To a folder that Comb keeps for itself.
    Comb(String),
    /// To the files that say which time it is; anyone may read them.
    Clock,
    /// To somewhere else; the owner decides.
    Ask,
}

/// What a bind may never show, with all below it and all that contains it.
const OF_THE_MACHINE: &[&str] = &[
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/root",
    "/run",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/containerd",
];

/// Names of sockets that order containers, and with them the machine.
const SOCKETS: &[&str] = &[
    "docker.sock",
    "docker.socket",
    "containerd.sock",
    "podman.sock",
    "crio.sock",
    "cri-dockerd.sock",
    "buildkitd.sock",
    "dockershim.sock",
];

/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// An absolute path without `//`, `.` and `..`, if it is one.
pub fn absolute(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// A path inside of the folder, from its top, if `path` seen from `base` is one; empty for the folder itself.
pub fn inside(base: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.starts_with('~') || path.len() > PATH_BYTES_MAX {
        return None;
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Whether compose would fetch this from somewhere else instead of reading a file.
pub fn remote(path: &str) -> bool {
    path.contains(':') || path.contains('@') || path.to_ascii_lowercase().starts_with("github.com/")
}

/// The part of `path` below `folder`, both taken apart.
pub fn below<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    if folder == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Judges a path of the machine that [`absolute`] gave. Upper and lower case are not told apart: some machines do not.
pub fn host(path: &str, comb_folders: &[String]) -> Host {
    let lower = path.to_ascii_lowercase();
    if lower.split('/').any(|part| SOCKETS.contains(&part)) {
        return Host::Socket;
    }
    if path == "/etc/localtime" || path == "/etc/timezone" {
        return Host::Clock;
    }
    let meets = |other: &str| below(other, &lower).is_some() || below(&lower, other).is_some();
    for folder in comb_folders {
        if let Some(folder) = absolute(&folder.to_ascii_lowercase())
            && below(&folder, &lower).is_some()
        {
            return Host::Comb(folder);
        }
    }
    if let Some(other) = OF_THE_MACHINE.iter().find(|other| meets(other)) {
        return Host::Machine(other);
    }
    match comb_folders.iter().filter_map(|folder| absolute(&folder.to_ascii_lowercase())).find(|f| meets(f)) {
        Some(folder) => Host::Comb(folder),
        None => Host::Ask,
    }
}

/// Names below `/dev` that are disks, memory, other programs' terminals, or ways to make or restart any of these.
/// A trailing `*` takes everything that goes on with digits or letters.
const DEVICES_REFUSED: &[&str] = &[
    "block",
    "bsg",
    "btrfs-control",
    "bus/pci",
    "char",
    "console",
    "core",
    "cpu",
    "cpu_dma_latency",
    "disk",
    "dm-*",
    "fd",
    "fuse",
    "hd*",
    "hugepages",
    "initctl",
    "kmem",
    "kmsg",
    "log",
    "loop*",
    "loop-control",
    "mapper",
    "mcelog",
    "md*",
    "mem",
    "mmcblk*",
    "mqueue",
    "mtd*",
    "nbd*",
    "ng*n*",
    "nvme*",
    "nvram",
    "pmem*",
    "port",
    "pts",
    "ram*",
    "raw",
    "rbd*",
    "root",
    "sd*",
    "sg*",
    "shm",
    "snapshot",
    "sr*",
    "st*",
    "tty",
    "ubi*",
    "udmabuf",
    "vcs*",
    "vd*",
    "vfio",
    "watchdog*",
    "xvd*",
    "zd*",
    "zfs",
    "zram*",
    "zvol",
    "dax*",
    "ublk*",
    "cuse",
    "ptmx",
    "userfaultfd",
    "kvm-*",
    "rtc*",
    "stdin",
    "stdout",
    "stderr",
    "mei*",
];

/// What a device may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// No path below `/dev`.
    Elsewhere,
    /// A disk, the machine's memory, or a way to them.
    Refused,
    /// Something that the owner may grant.
    Ask,
}

/// Judges a device's path that [`absolute`] gave.
pub fn device(path: &str) -> Device {
    let lower = path.to_ascii_lowercase();
    let Some(name) = below("/dev", &lower).filter(|name| !name.is_empty()) else { return Device::Elsewhere };
    let first = name.split('/').next().unwrap_or(name);
    // Consoles are `tty0` and the like; serial lines have a letter there.
    let console =
        first.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    let refused = DEVICES_REFUSED.iter().any(|one| match one.strip_suffix('*') {
        Some(prefix) => first.starts_with(prefix) && !is_known_harmless(first),
        None => first == *one || below(one, name).is_some(),
    });
    if console || refused { Device::Refused } else { Device::Ask }
}

/// Devices whose names begin like a disk's.
fn is_known_harmless(name: &str) -> bool {
    name.starts_with("stlinkv") || name.starts_with("sdr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_before_it_is_judged() {
        assert_eq!(absolute("//var/./run/../run//docker.sock").as_deref(), Some("/var/run/docker.sock"));
        assert_eq!(absolute("/../../etc").as_deref(), Some("/etc"));
        assert_eq!(absolute("/").as_deref(), Some("/"));
        assert_eq!(absolute("etc"), None);
        assert_eq!(absolute("/a\nb"), None);
    }

    #[test]
    fn only_what_is_below_the_folder_is_inside() {
        let table = [
            ("", "./a/b", Some("a/b")),
            ("", "a/../b", Some("b")),
            ("", "..", None),
            ("", "a/../../b", None),
            ("sub", "../b", Some("b")),
            ("sub", "../../b", None),
            ("", "/etc/passwd", None),
            ("", "~/x", None),
            ("", "..\\x", None),
            ("", ".", Some("")),
        ];
        for (base, path, expected) in table {
            assert_eq!(inside(base, path).as_deref(), expected, "{path} from {base}");
        }
    }

    #[test]
    fn every_way_to_the_socket_is_the_socket() {
        for path in [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/user/1000/docker.sock",
            "/var/run/../run/docker.sock",
            "/proc/1/root/run/docker.sock",
            "/mnt/docker.sock",
            "/VAR/RUN/Docker.Sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
        ] {
            assert_eq!(host(&absolute(path).expect("absolute"), &[]), Host::Socket, "{path}");
        }
    }

    #[test]
    fn what_belongs_to_the_machine_is_refused_with_all_below_and_above() {
        for path in [
            "/",
            "/etc",
            "/etc/passwd",
            "/ETC",
            "/proc/self/root",
            "/sys/fs/cgroup",
            "/dev/sda",
            "/boot",
            "/root/.ssh",
            "/run",
            "/var",
            "/var/lib",
            "/var/run",
            "/var/run/dbus",
            "/var/lib/docker/volumes/x",
            "/srv/../etc",
        ] {
            let path = absolute(path).expect("absolute");
            assert!(matches!(host(&path, &[]), Host::Machine(_)), "{path}");
        }
        let comb = ["/apps".to_owned(), "/var/lib/comb/".to_owned()];
        assert_eq!(host("/apps/x", &comb), Host::Comb("/apps".to_owned()));
        assert_eq!(host("/var/lib/comb/identity", &comb), Host::Comb("/var/lib/comb".to_owned()));
        for path in [
            "/srv/media",
            "/mnt",
            "/home/me",
            "/etcetera",
            "/var/log",
            "/runner",
            "/apps2",
            "/opt/docker.socks",
        ] {
            assert_eq!(host(path, &comb), Host::Ask, "{path}");
        }
        assert_eq!(host("/etc/localtime", &comb), Host::Clock);
        assert_eq!(host("/etc/timezone", &comb), Host::Clock);
    }

    #[test]
    fn disks_and_memory_are_never_a_device_to_ask_for() {
        for path in [
            "/dev/sda",
            "/dev/sda1",
            "/dev/nvme0n1",
            "/dev/vda",
            "/dev/mem",
            "/dev/kmem",
            "/dev/kmsg",
            "/dev/fuse",
            "/dev/mapper/root",
            "/dev/disk/by-id/x",
            "/dev/loop0",
            "/dev/loop-control",
            "/dev/sg0",
            "/dev/block/8:0",
            "/dev/tty0",
            "/dev/tty",
            "/dev/dm-0",
            "/dev/bus/pci/00",
            "/dev/SDA",
        ] {
            assert_eq!(device(path), Device::Refused, "{path}");
        }
        for path in [
            "/dev/ttyUSB0",
            "/dev/ttyACM0",
            "/dev/dri",
            "/dev/dri/renderD128",
            "/dev/snd",
            "/dev/net/tun",
            "/dev/kvm",
            "/dev/video0",
            "/dev/serial/by-id/x",
            "/dev/bus/usb/001/002",
            "/dev/input/event0",
        ] {
            assert_eq!(device(path), Device::Ask, "{path}");
        }
        for path in ["/dev", "/", "/devs/x", "/etc/passwd"] {
            assert_eq!(device(path), Device::Elsewhere, "{path}");
        }
    }
}
