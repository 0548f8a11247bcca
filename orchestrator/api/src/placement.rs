//! Where an app runs, and what is expected of its volumes: `failover.md`, sections 1 and 6.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, ManifestId, Seq, Writer};

/// How long the right to run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Until a person moves the app.
    Manual,
    /// As long as its lease is renewed.
    Auto,
}

/// A manifest that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The seal's number.
    pub seq: Seq,
    /// Covers the tree, and every manifest before it.
    pub manifest: ManifestId,
}

/// What the store must hold before a device may claim a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expect {
    /// This head and no other: it was handed over.
    Exactly(Head),
    /// A head not below this one, by the device itself or by one of these writers: whoever had a term since.
    Since {
        /// The least epoch of the newest slot; zero where nothing was ever committed that is known of.
        epoch: Epoch,
        /// The least number of the newest slot.
        seq: Seq,
        /// Who may have written it, or claimed, beside the device itself.
        writers: BTreeSet<Writer>,
    },
}

/// What a store holds of a volume, as far as it decides who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreView {
    /// The newest slot, and whose it is.
    pub newest: Option<(Head, Writer)>,
    /// The greatest claim, and whose it is.
    pub claim: Option<(Epoch, Writer)>,
}

impl StoreView {
    /// The greatest epoch that anybody used or claimed.
    pub fn epoch(&self) -> Epoch {
        let slot = self.newest.map_or(Epoch(0), |(head, _)| head.epoch);
        self.claim.map_or(slot, |(epoch, _)| epoch.max(slot))
    }
}

impl Expect {
    /// Whether a device may claim what the store shows.
    ///
    /// A claim that no slot follows says nothing against an exact head: the head is what was handed over, and who
    /// claimed without it is fenced by the next claim.
    pub fn allows(&self, view: &StoreView, own: Writer) -> bool {
        match self {
            Expect::Exactly(head) => view.newest.is_some_and(|(newest, _)| newest == *head),
            Expect::Since { epoch, seq, writers } => {
                let known = |writer: Writer| writer == own || writers.contains(&writer);
                let slot = match view.newest {
                    Some((head, writer)) => known(writer) && head.epoch >= *epoch && head.seq >= *seq,
                    None => *epoch == Epoch(0),
                };
                slot && view.claim.is_none_or(|(_, writer)| known(writer))
            }
        }
    }
}

/// Where an app is on a device: `failover.md`, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing runs; volumes are read-only here, images too.
    StandingBy,
    /// What is expected is written down; the store is looked at, and claims are under way.
    Claiming,
    /// Every volume is ours, in the epoch of the record.
    Mounting,
    /// Containers are being started; the gate runs.
    Starting,
    /// The gate passed in this term.
    Running,
    /// No container is started any more; they are being stopped.
    Stopping(Why),
    /// No container runs; sealing, publishing, unmounting.
    Flushing(Why),
    /// Nothing runs, nothing is mounted, and never again in this term.
    Stopped(Why),
    /// The store or the hive has somebody later: what was not replicated becomes a branch.
    Settling,
}

impl Phase {
    /// Whether the term still runs, or is about to.
    pub fn is_live(self) -> bool {
        !matches!(self, Phase::StandingBy | Phase::Stopped(_) | Phase::Settling)
    }
}

/// Why an app is stopped, which decides where it goes from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// To go on at once in the record's term: a new start came, or a mount or container died.
    Again,
    /// The hive's `stop`.
    Ordered,
    /// The hive's `hand_over`. If not all can be published, an app that ran goes on.
    HandOver {
        /// Whether it ran.
        resume: bool,
    },
    /// The lease ends, or the hive refused it.
    LeaseOver,
    /// Somebody else has the app.
    Fenced,
    /// A step failed.
    Failed(Problem),
}

macro_rules! problems {
    ($($name:ident $text:literal $doc:literal,)+) => {
        /// What went wrong: `api.md`, section 6.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Problem {
            $(#[doc = $doc] #[serde(rename = $text)] $name,)+
            /// One that a newer program made; never sent.
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl Problem {
            /// All that are sent.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// As it travels.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

problems! {
    DockerStopped "docker_stopped" "Docker does not answer.",
    DockerSlow "docker_slow" "Docker answers too late.",
    ImageMissing "image_missing" "An image is not here, and cannot be fetched.",
    ImageUnknown "image_unknown" "No registry has the image.",
    ImageChanged "image_changed" "An image has another digest than the package says.",
    ArchMismatch "arch_mismatch" "An image is for another processor than the device's.",
    PullFailed "pull_failed" "An image could not be fetched.",
    ComposeFailed "compose_failed" "Compose refused the app.",
    ConfigChanged "config_changed" "Compose reads the files otherwise than when they were signed.",
    PolicyRefused "policy_refused" "The compose file says what it may not.",
    PackageWrong "package_wrong" "The package is not the owner's, or does not fit.",
    PackageExpired "package_expired" "The package may not be started any more.",
    PackageSealed "package_sealed" "The device has no key for the package.",
    MountDead "mount_dead" "A mount does not answer.",
    MountDied "mount_died" "Mounts died too often.",
    MarkerWrong "marker_wrong" "A mount is not that of the app's volume.",
    EpochWrong "epoch_wrong" "A mount is not in the epoch of the record.",
    LeaseOver "lease_over" "The lease ended.",
    TermOver "term_over" "The term is not the device's any more.",
    HeadUnexpected "head_unexpected" "The store does not hold what was expected.",
    StoreUnreachable "store_unreachable" "The store does not answer.",
    StoreDenied "store_denied" "The store refuses the credentials.",
    VolumeDamaged "volume_damaged" "A volume cannot be read.",
    VolumeReadOnly "volume_read_only" "A volume takes no writes.",
    NoSpace "no_space" "There is too little room.",
    PortTaken "port_taken" "A port is another program's.",
    Unhealthy "unhealthy" "The gate failed.",
    Exits "exits" "A service exits again and again.",
    GateLate "gate_late" "The app was not well in time.",
    ClaimLost "claim_lost" "Others claimed at the same time, again and again.",
    InstantTorn "instant_torn" "Only some of the volumes have the moment.",
    RingLate "ring_late" "The ring could not be published in time.",
    KeyMissing "key_missing" "The ring lacks a volume's key.",
    StopLate "stop_late" "Containers did not stop in time.",
    PublishLate "publish_late" "Not all could be published in time.",
    HookFailed "hook_failed" "A hook of the app failed.",
    UpdateRolledBack "update_rolled_back" "The new revision was not well; the old one runs.",
    UnknownCommand "unknown_command" "The device does not know the command.",
    Obsolete "obsolete" "A later command took its place.",
    HiveWentBack "hive_went_back" "An old hive runs beside the one that was restored.",
    Fenced "fenced" "The store has a later epoch.",
    State "state" "The app is not in a phase for this.",
    Late "late" "The device did not answer in time.",
}
