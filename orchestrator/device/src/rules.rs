//! What the simulator changes: it breaks the rules one by one, to show that it would notice.
//!
//! Without the feature `break-rules` every rule is kept, and asking costs nothing.

/// A rule without which something goes wrong: `failover.md`, sections 4, 6, 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A lease counts from the sending of the report that renewed it.
    LeaseFromSending,
    /// A term that is given up is never taken up again, by an answer that comes late.
    GivenUpStays,
    /// An app that needs a lease waits for it after a boot.
    BootWaitsForLease,
    /// What is stopped in a term stays stopped in it, after a restart too.
    StoppedStays,
    /// What is expected is compared for every volume before anything is claimed.
    ExpectIsCompared,
    /// Containers are gone before the last seal.
    ContainersStopFirst,
    /// Everything is published before the app is handed over.
    PublishedFirst,
    /// A command of a term that is over is not done.
    OldTermsAreRefused,
    /// Whoever is fenced stops the app.
    FencedStops,
    /// A moment is gone back to once, before the app starts.
    RollbackOnce,
    /// A result is kept until the hive has it.
    ResultsAreKept,
    /// Who is refused as a copy starts nothing.
    CopyStartsNothing,
    /// The end of a lease is handed to the volumes before anything is started under it.
    EndIsHandedOn,
}

#[cfg(feature = "break-rules")]
thread_local! {
    /// The rule that this thread breaks.
    pub static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is kept.
#[cfg(feature = "break-rules")]
pub(crate) fn keeps(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Whether a rule is kept.
#[cfg(not(feature = "break-rules"))]
pub(crate) const fn keeps(_: Rule) -> bool {
    true
}
