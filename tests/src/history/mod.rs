//! What hive and devices wrote down, held against the invariants of `orchestrator/docs/failover.md`, section 15.
//!
//! - `lines`   of one machine's parties, merged by its one clock
//! - `terms`   who had which term, and wrote when (invariants 2, 4, 6)
//! - `volumes` which manifests were told to be safe, and what claims extend (invariants 1, 3, 5)
//! - `records` of the app that counts: what was told is in the volume, or on the branch (invariant 3)
//!
//! The first line that breaks one is named. What a history cannot show (a party that wrote none) is not judged.

mod lines;
mod records;
mod terms;
mod volumes;

#[cfg(test)]
mod tests;

pub use lines::{Deaths, Histories};
pub use records::{Records, held};

use std::fmt;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its number in `failover.md`.
    pub invariant: u8,
    /// Where: the line as it was read, or what stands for it.
    pub at: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}\n  {}", self.invariant, self.why, self.at)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Lines.
    pub lines: usize,
    /// Terms that were granted.
    pub terms: usize,
    /// Times in which a volume was written.
    pub writings: usize,
    /// Manifests that were told to be safe.
    pub replicated: usize,
    /// Claims.
    pub claims: usize,
    /// Operations.
    pub operations: usize,
}

/// Looks at all of it.
pub fn check(histories: &Histories) -> Result<Seen, Broken> {
    let mut seen = Seen { lines: histories.len(), ..Seen::default() };
    terms::granted(histories, &mut seen)?;
    terms::written(histories, &mut seen)?;
    terms::finished(histories, &mut seen)?;
    volumes::safe(histories, &mut seen)?;
    volumes::kept(histories)?;
    Ok(seen)
}
