//! What the checker changes: it breaks the rules of the protocol one by one, to show that it would notice, and
//! checks a signature once, since it meets the same few objects a million times.
//!
//! Outside of tests every rule is kept and every signature checked, and asking costs nothing.

/// A rule without which something that was replicated can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A pack counts as sent only when the store said so.
    PacksAreAnswered,
    /// A slot that exists is ours only with our bytes.
    ExistsIsRead,
    /// Claims are looked for after a slot was created.
    ClaimsAfterSlot,
    /// Claims are looked for after a restart.
    ClaimsAtStart,
    /// Boundaries are looked for after a slot was created.
    BoundariesAfterSlot,
    /// A boundary is looked for after a restart.
    BoundaryAtStart,
    /// Whoever takes over claims the epoch first.
    ClaimBeforeCut,
    /// The first slot of an epoch is committed like any other.
    CutIsCommitted,
    /// Nothing of a lower epoch follows a manifest of a higher one.
    EpochsGrow,
    /// A boundary lies below the first slot of a store, if it is not the volume's first.
    BoundaryBelowFirst,
    /// A slot whose commit does not count stays where it is.
    SlotsStay,
}

#[cfg(test)]
thread_local! {
    /// The rule that this thread breaks.
    pub(crate) static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is kept.
#[cfg(test)]
pub(crate) fn keeps(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Whether a rule is kept.
#[cfg(not(test))]
pub(crate) const fn keeps(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use crate::tests::world::remembered;

/// What `open` says of an object.
#[cfg(not(test))]
pub(crate) fn remembered<T>(object: &[u8], open: impl FnOnce(&[u8]) -> T) -> T {
    open(object)
}
