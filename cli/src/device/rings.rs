//! Uniting versions of the key ring of this machine, under its lock.

use fs_replication::RingVersion;
use orchestrator_api::placement::Problem;
use orchestrator_device::doors::ring::Rings;
use orchestrator_device::trouble::{Result, Trouble};

use crate::failure::Failure;
use crate::state::State;
use crate::{ring, ring_store};

/// The key ring in a state folder.
pub struct RingFolder(pub State);

impl Rings for RingFolder {
    fn unite(&self, object: &[u8]) -> Result<u64> {
        let sealed = |failure: Failure| Trouble::new(Problem::PackageSealed, failure.in_one_line());
        let version = RingVersion::open(object.to_vec().into())
            .map_err(|error| Trouble::new(Problem::PackageSealed, format!("the hive's key ring: {error}")))?;
        let mut opened = ring::open_here(&self.0).map_err(sealed)?;
        ring_store::join(&mut opened, &version).map_err(sealed)?;
        Ok(opened.ring.number().0)
    }
}
