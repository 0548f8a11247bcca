//! The account's key ring on this machine.
//!
//! ```text
//! STATE/device     the device's secret
//! STATE/ring       the newest version that this machine knows, as it travels
//! STATE/ring.key   its key, wrapped by the device's secret
//! ```
//!
//! This room opens it; changing it is the business of whoever holds its lock (`Rings`).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use fs_crypto::{DeviceSecret, Ring, Zeroizing};
use fs_format::ring::RING_BYTES_MAX;
use orchestrator_api::ids::DeviceId;
use orchestrator_api::placement::Problem;
use orchestrator_api::proof::{self, PROOF_CONTEXT, RING_CONTEXT};
use orchestrator_api::text::Hex;

use crate::trouble::{Result, Trouble};

/// Changes the ring of this machine.
pub trait Rings: Send + Sync {
    /// Takes what another version of the account's ring has; returns the number of the one that is here then.
    fn unite(&self, object: &[u8]) -> Result<u64>;
}

/// Whether there is a ring here that opens without a question.
pub fn is_locked(state: &Path) -> bool {
    open(state).is_err()
}

/// Opens the ring of this machine.
pub fn open(state: &Path) -> Result<Ring> {
    let sealed = |text: String| Trouble::new(Problem::PackageSealed, text);
    let locked = || {
        sealed(
            "the key ring is locked: `comb device unlock` on this machine asks for the passphrase".to_owned(),
        )
    };
    let read = |name: &str, max: usize| read(&state.join(name), max);
    let object = read("ring", RING_BYTES_MAX).map_err(|_| locked())?;
    let key = read("ring.key", 4096).map_err(|_| locked())?;
    let secret = read("device", 64).map_err(|_| locked())?;
    let secret: [u8; 32] = secret[..].try_into().map_err(|_| locked())?;
    Ring::open_on_device(&object, &key, &DeviceSecret::from_bytes(secret))
        .map_err(|error| sealed(format!("the key ring of this machine {error}")))
}

/// Where a version goes at the hive: the first one of an account tells which key signs its packages, and that key signed
/// each of them.
pub fn path(ring: &Ring, object: &[u8]) -> String {
    let number = ring.number().0;
    let signature = ring.owner().sign(RING_CONTEXT, &proof::of_ring(&ring.account().0, number, object));
    format!("/v1/ring/{number}?owner={}&signature={}", Hex(ring.owner().public()), Hex(signature))
}

/// What shows a hive that this device has the ring open.
pub fn proof(ring: &Ring, hive: &[u8; 32], device: DeviceId) -> Hex<64> {
    Hex(ring.owner().sign(PROOF_CONTEXT, &proof::of_device(hive, &ring.account().0, &device.0)))
}

/// The ring's object, as it travels.
pub fn object(state: &Path) -> io::Result<Vec<u8>> {
    read(&state.join("ring"), RING_BYTES_MAX).map(|bytes| bytes.to_vec())
}

fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max.min(1 << 16) + 1));
    File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= max {
        true => Ok(bytes),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
