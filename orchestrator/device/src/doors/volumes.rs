//! What is asked of the filesystem: `failover.md`, section 8.
//!
//! The door is made where the commands are (`cli`); a volume is named as it is called on this device.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_api::ids::{Epoch, ManifestId, Seq, VolumeId, Writer};
use orchestrator_api::placement::Expect;

use crate::trouble::{Result, Trouble};
use crate::{Boottime, Cut, Look};

/// Why a volume was not claimed, with words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclaimed {
    /// The store does not hold what was expected.
    Unexpected,
    /// Somebody else claims at the same time.
    Rival,
    /// The store did not answer, or something else is in the way that may pass.
    Failed(Trouble),
}

/// A sealed moment of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Its number.
    pub seq: Seq,
    /// Its manifest.
    pub manifest: ManifestId,
    /// When, RFC 3339.
    pub time: String,
    /// Files and folders in it.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Of a snapshot: its uuid and tags.
    pub snapshot: Option<(String, Vec<String>)>,
}

/// How a volume is on this device.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeState {
    /// Its public key.
    pub volume: VolumeId,
    /// What it is called here.
    pub name: String,
    /// The newest seal here; none if it could not be read.
    pub head: Option<Seal>,
    /// Whether another device writes it, as far as is known here.
    pub is_others: bool,
    /// Whether it cannot be read.
    pub damaged: bool,
    /// How its mount is; none if it is not mounted.
    pub mount: Option<MountState>,
    /// The store that decides.
    pub arbiter: Option<StoreState>,
    /// The others that are later than promised.
    pub behind: u64,
    /// How each store answered last: URL, and whether it does.
    pub stores: Vec<(String, Answers)>,
}

impl VolumeState {
    /// How many bytes the store that decides lacks of what is here; none if it has all of it. A volume that cannot be read
    /// may lack anything.
    pub fn lacking(&self) -> Option<u64> {
        let Some(store) = &self.arbiter else { return Some(self.head.as_ref().map_or(0, |head| head.bytes)) };
        // What another device writes came from there.
        let is_behind = match &self.head {
            _ if self.is_others => false,
            Some(head) => store.replicated < Some(head.seq),
            None => true,
        };
        (is_behind || store.backlog_bytes > 0).then_some(store.backlog_bytes)
    }
}

/// How a store answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as they are told")]
pub enum Answers {
    Well,
    Unreachable,
    Denied,
    Otherwise,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountState {
    /// Where.
    pub folder: String,
    /// Whether it takes changes.
    pub takes_changes: bool,
    /// The end of its lease.
    pub lease: Option<Boottime>,
    /// Whether it is unmounted already, and its daemon ends.
    pub ending: bool,
    /// Bytes that are in no seal.
    pub dirty_bytes: u64,
    /// Why writes are refused for want of room, and what to do about it.
    pub held_up: Option<String>,
}

/// How far a store is.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreState {
    /// The last seal that it has.
    pub replicated: Option<Seq>,
    /// Bytes that it lacks.
    pub backlog_bytes: u64,
    /// For how long it has lacked something.
    pub backlog_age: Duration,
    /// Whether it said that somebody took the volume over.
    pub fenced: bool,
}

/// Which moments are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that somebody took, and no seals that came by themselves.
    Snapshots,
}

/// What became of a volume that another device took over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// `cut-<seq>-e<epoch>`.
    pub name: String,
    /// How many seals.
    pub seals: u64,
    /// What they added, in bytes.
    pub bytes: u64,
    /// From the cut to the last change.
    pub span: Duration,
}

/// The commands of the filesystem.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Brings what the key ring has for the stores of all volumes here to where their daemons look for it. Where it has changed,
    /// these take it up when a store denies what they have.
    async fn renew_credentials(&self) -> Result<()>;

    /// Makes a volume that goes to these stores, the first of which decides; its key goes into the ring, and the ring to
    /// the stores. One of that name that was never replicated is taken as what a crash left.
    async fn create(&self, name: &str, quota: Option<u64>, stores: &[String]) -> Result<VolumeId>;

    /// The volume of a name on this device.
    async fn find(&self, name: &str) -> Result<Option<VolumeId>>;

    /// Looks on, while another device writes: opened read-only if it is not here. With a wait everything is fetched,
    /// for so long at most; says how many bytes are missing still, if that is known.
    async fn follow(
        &self,
        name: &str,
        volume: VolumeId,
        stores: &[String],
        fill: Option<Duration>,
    ) -> Result<Option<u64>>;

    /// What the arbiter holds, and what is here. Changes nothing.
    async fn look(&self, name: &str) -> Result<Look>;

    /// Claims, if the store holds what is expected; the volume goes to these stores from then on.
    async fn claim(
        &self,
        name: &str,
        expect: &Expect,
        stores: &[String],
    ) -> std::result::Result<Cut, Unclaimed>;

    /// Mounts on an empty folder.
    async fn mount(
        &self,
        name: &str,
        folder: &Path,
        seal_every: Duration,
        lease: Option<Boottime>,
    ) -> Result<()>;

    /// Unmounts, and waits until it is sealed. A dead mount is cleared away.
    async fn unmount(&self, folder: &Path) -> Result<()>;

    /// Moves the end of the lease of a mounted volume, or takes it off.
    async fn lease(&self, name: &str, end: Option<Boottime>) -> Result<()>;

    /// Seals and publishes; with a wait until the stores have it, for so long at most.
    async fn sync(&self, name: &str, wait: Option<Duration>) -> Result<()>;

    /// Keeps a moment under a tag.
    async fn snapshot(&self, name: &str, tags: &[String], message: &str) -> Result<Seal>;

    /// The moments, newest first.
    async fn moments(&self, name: &str, which: Which, max: usize) -> Result<Vec<Seal>>;

    /// One moment, however old: a number, or a tag. None where there is none.
    async fn moment(&self, name: &str, when: &str) -> Result<Option<Seal>>;

    /// Makes the volume what it was: a number, or a tag.
    async fn rollback(&self, name: &str, when: &str) -> Result<Seal>;

    /// A new volume that begins as another was: `NAME@WHEN` or `NAME/BRANCH`.
    async fn fork(&self, from: &str, name: &str, stores: &[String]) -> Result<VolumeId>;

    /// Tails that were kept.
    async fn branches(&self, name: &str) -> Result<Vec<Branch>>;

    /// How all volumes are.
    async fn states(&self) -> Result<Vec<VolumeState>>;

    /// Sets what is kept of the past.
    async fn retain(&self, name: &str, policy: &str) -> Result<()>;

    /// Removes a volume from this device, with the tails that were kept of it. What stores have stays, and so does its key
    /// in the ring.
    async fn remove(&self, name: &str) -> Result<()>;
}

/// A pseudonym and an epoch, as they are told of a store.
pub type Claimed = (Epoch, Writer);
