//! How much may be under way at a time: connections, and bodies that are being read. What is too much is refused before
//! it costs anything.
//!
//! Invariants
//! - What was taken is given back when its [`Part`] is dropped, whatever became of it.
//! - Nobody has more than half of it, so one address leaves room for others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::door::Place;

/// Bytes of bodies that are being read or worked on.
const BYTES_MAX: u64 = 768 << 20;
/// Connections, where the system allows as many files.
const CONNECTIONS_MAX: u64 = 8_192;
/// Files that are left for the database, for backups, and for what the hive asks of others.
const FILES_LEFT: u64 = 128;
/// As many connections there are at least.
const CONNECTIONS_MIN: u64 = 64;

#[derive(Debug, Default)]
struct Held {
    all: u64,
    by: HashMap<Place, u64>,
}

/// So much of something at a time.
#[derive(Debug)]
pub struct Gate {
    most: u64,
    held: Mutex<Held>,
}

/// What somebody took of it.
#[derive(Debug)]
pub struct Part {
    gate: Arc<Gate>,
    place: Place,
    size: u64,
}

impl Gate {
    fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// For bodies, in bytes.
    pub fn of_bodies() -> Arc<Self> {
        Self::new(BYTES_MAX)
    }

    /// For connections: as many as files may be open, but a few.
    pub fn of_connections() -> Arc<Self> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most = files.map_or(CONNECTIONS_MAX, |files| files.saturating_sub(FILES_LEFT));
        Self::new(most.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX))
    }

    /// Lets this process have as many files open as it may.
    pub fn raise_files() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::debug!(%error, "no more files may be open than before");
        }
    }

    /// Takes so much; none if there is not enough left, of all or of what one address may have.
    pub fn take(self: &Arc<Self>, address: IpAddr, size: u64) -> Option<Part> {
        let place = Place::from(address);
        let mut held = self.held.lock();
        let here = held.by.get(&place).copied().unwrap_or(0);
        if held.all + size > self.most || here + size > self.most / 2 {
            return None;
        }
        held.all += size;
        held.by.insert(place, here + size);
        Some(Part { gate: self.clone(), place, size })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut held = self.gate.held.lock();
        held.all -= self.size;
        if let Some(here) = held.by.get_mut(&self.place) {
            *here -= self.size;
            if *here == 0 {
                held.by.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("is an address")
    }

    #[test]
    fn one_address_has_at_most_half_and_gives_it_back() {
        let gate = Gate::new(10);
        let (one, other, third) = (address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.3"));
        let first = gate.take(one, 5).expect("is half");
        assert!(gate.take(one, 1).is_none());
        let second = gate.take(other, 4).expect("there is room");
        assert!(gate.take(third, 2).is_none(), "it is full");
        drop((first, second));
        let held = gate.held.lock();
        assert_eq!((held.all, held.by.len()), (0, 0));
    }
}
