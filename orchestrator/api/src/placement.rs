//! Where an app runs, and what is expected of its volumes: `failover.md`, sections 1 and 6.

use std::collections::BTreeSet;

use crate::ids::{Epoch, ManifestId, Seq, Writer};

/// How long the right to run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What went wrong: `api.md`, section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// Docker does not answer.
    DockerStopped,
    /// The gate failed.
    Unhealthy,
    /// The store does not hold what was expected.
    HeadUnexpected,
    /// The store does not answer.
    StoreUnreachable,
    /// Others claimed at the same time, again and again.
    ClaimLost,
    /// Mounts died too often.
    MountDied,
    /// Not all could be published in time.
    PublishLate,
    /// The lease ended.
    LeaseOver,
    /// The term is not the device's any more.
    TermOver,
    /// The store has a later epoch.
    Fenced,
    /// The app is not in a phase for this.
    State,
    /// The device's process did not answer in time.
    Late,
}
