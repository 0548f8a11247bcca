//! How the machine is: the figures of a report, and no others.

use std::path::Path;

use orchestrator_api::wire::report::{Disk, DiskUse, Load};
use orchestrator_api::wire::value::{Number, Within};

/// What the processors did, for the share between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Reads `/proc/stat`.
    pub fn read() -> Self {
        std::fs::read_to_string("/proc/stat").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let numbers: Vec<u64> =
            first.split_whitespace().skip(1).take(8).filter_map(|one| one.parse().ok()).collect();
        let all: u64 = numbers.iter().sum();
        // The fourth is idle, the fifth waits for a disk.
        let idle: u64 = numbers.iter().skip(3).take(2).sum();
        Self { busy: all - idle, all }
    }

    /// The share of busy time since an earlier look, in percent.
    pub fn percent_since(self, before: Self) -> u64 {
        let (busy, all) = (self.busy.saturating_sub(before.busy), self.all.saturating_sub(before.all));
        (busy * 100).checked_div(all).unwrap_or(0).min(100)
    }
}

/// The machine's load.
pub fn load(before: Ticks, now: Ticks) -> Load {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Number::from(number.unwrap_or_default() * 1024)
    };
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split_whitespace().next().and_then(|one| one.parse().ok()).unwrap_or_default();
    Load {
        cpu_percent: Within(now.percent_since(before)),
        memory_bytes: field("MemTotal"),
        memory_free_bytes: field("MemAvailable"),
        load_1m: Number::from((load * 100.0) as u64),
        received_bytes: network().map(|(received, _)| received.into()),
        sent_bytes: network().map(|(_, sent)| sent.into()),
        read_bytes: disks().map(|(read, _)| read.into()),
        written_bytes: disks().map(|(_, written)| written.into()),
    }
}

/// Bytes that the network received and sent since the machine began.
fn network() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/net/dev").ok()?;
    let is_real = |name: &str| Path::new("/sys/class/net").join(name).join("device").exists();
    Some(sum_network(&text, is_real))
}

/// Cards are counted, and not what is made of them (bridges, containers' ends); where there is no card, all but loopback.
fn sum_network(text: &str, is_real: impl Fn(&str) -> bool) -> (u64, u64) {
    let row = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|one| one.parse().ok()).collect();
        Some((name.trim().to_owned(), *numbers.first()?, *numbers.get(8)?))
    };
    let rows: Vec<_> = text.lines().filter_map(row).filter(|(name, ..)| name != "lo").collect();
    let has_real = rows.iter().any(|(name, ..)| is_real(name));
    let counted = rows.iter().filter(|(name, ..)| !has_real || is_real(name));
    counted.fold((0u64, 0u64), |(received, sent), (_, more_received, more_sent)| {
        (received.saturating_add(*more_received), sent.saturating_add(*more_sent))
    })
}

/// Bytes that the disks read and wrote since the machine began.
fn disks() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/diskstats").ok()?;
    let is_real =
        |name: &str| Path::new("/sys/block").join(name).join("device").exists() || name.starts_with("vd");
    Some(sum_disks(&text, is_real))
}

/// Whole disks are counted; a sector of these figures has 512 bytes, whatever the disk's own.
fn sum_disks(text: &str, is_real: impl Fn(&str) -> bool) -> (u64, u64) {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        is_real(words.get(2)?).then_some((number(5)?, number(9)?))
    };
    text.lines().filter_map(row).fold((0, 0), |(read, written), (more_read, more_written)| {
        (read + more_read.saturating_mul(512), written + more_written.saturating_mul(512))
    })
}

/// Room on the disk of a path.
pub fn disk(what: DiskUse, path: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        what,
        bytes: Number::from(found.f_blocks.saturating_mul(found.f_frsize)),
        free_bytes: Number::from(found.f_bavail.saturating_mul(found.f_frsize)),
    })
}

/// The address by which others reach this machine: the one from which it would speak to its hive.
pub fn address(hive: &str) -> std::net::IpAddr {
    let host = hive.split("://").nth(1).unwrap_or(hive).split(['/', '?']).next().unwrap_or_default();
    let has_port = host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let host = if has_port { host.to_owned() } else { format!("{host}:443") };
    let ask = || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        // Nothing is sent: the kernel only says which way it would go.
        socket.connect(&host).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    ask().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_busy_time_is_what_it_is() {
        let before = Ticks::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3");
        let now = Ticks::parse("cpu  150 0 150 750 150 0 0 0 0 0\n");
        assert_eq!(now.percent_since(before), 50);
        assert_eq!(before.percent_since(now), 0);
        assert_eq!(Ticks::parse("").percent_since(Ticks::default()), 0);
    }

    #[test]
    fn cards_and_whole_disks_are_counted() {
        let text = "Inter-|   Receive\n face |bytes\n  lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
            eth0: 100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\nveth1: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        assert_eq!(sum_network(text, |name| name == "eth0"), (100, 50));
        assert_eq!(sum_network(text, |_| false), (107, 58));
        let text = " 8 0 sda 1 0 2 0 1 0 4 0 0 0 0\n 8 1 sda1 1 0 2 0 1 0 4 0 0 0 0\n 7 0 loop0 1 0 2 0\n";
        assert_eq!(sum_disks(text, |name| name == "sda"), (1024, 2048));
        assert_eq!(sum_disks("nonsense", |_| true), (0, 0));
    }

    #[test]
    fn this_machine_has_memory_and_room() {
        let load = load(Ticks::default(), Ticks::read());
        assert!(load.memory_bytes.0 > load.memory_free_bytes.0 && load.memory_free_bytes.0 > 0);
        assert!(disk(DiskUse::State, Path::new("/")).is_some_and(|disk| disk.bytes.0 > 0));
        assert!(address("http://127.0.0.1:8420/").is_loopback());
    }
}
