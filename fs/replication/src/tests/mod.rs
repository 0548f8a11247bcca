//! Proof of the protocol: the real code against every interleaving, and against a store that fails.

mod check;
mod collect;
mod scenes;
mod stage;
mod uploads;
pub(crate) mod world;
