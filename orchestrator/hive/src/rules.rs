//! What the simulator changes: it breaks the rules one by one, to show that it would notice.
//!
//! Without the feature `break-rules` every rule is kept, and asking costs nothing.

/// A rule without which something goes wrong: `failover.md`, sections 4, 7, 12, 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A term ends only after the whole watch.
    WatchIsWhole,
    /// A report that does not renew a term leaves the number of the last one that did.
    LastRenewalIsKept,
    /// Whoever ends a term compares what was seen with what is there.
    EndCompares,
    /// A scheduler that did not look begins its watches anew.
    GapBeginsAnew,
    /// A step is written together with its command.
    StepWithCommand,
    /// Counters of a restored hive go on above everything that was given before.
    CountersGoOn,
    /// A planned move grants only what was handed over.
    GrantAfterRelease,
    /// `manual` is written down before the device hears of it, `auto` after it has its lease.
    PolicyInOrder,
    /// A recovering hive grants nothing new.
    RecoveryWaits,
    /// What a backup says of leases is not believed.
    LeasesAreHeardOf,
    /// It waits for leases that were granted before it knew better.
    RecoveryWaitsForLeases,
    /// A hello counts only above the last one.
    HelloGrows,
    /// What is expected of a volume names everybody who had a term since.
    WritersAreKept,
    /// Who claimed a later epoch takes the place of everybody who had a term before.
    EpochEndsOthers,
    /// Who was fenced, or answers late, took nobody's place.
    SlowEndsNobody,
    /// While a hive recovers, only who holds a lease has it renewed.
    OnlyHeldIsRenewed,
    /// A term that waits to end is not renewed.
    WithdrawnIsRefused,
    /// A failed move goes back to where the app came from.
    WayBack,
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
