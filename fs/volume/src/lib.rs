//! The engine: journal, overlay, tree, seal, chunks, packs, snapshots, reading.
//!
//! Knows no kernel and no network; clock, chance and disk come through [`env`].
//!
//! An operation looks through overlay, frozen overlay and tree ([`layers`]), appends a record to
//! the [`journal`] and changes the [`overlay`] ([`volume`]). Sealing ([`seal`]) turns a frozen
//! overlay into tree nodes ([`tree`]), chunks ([`chunking`], those that are there already found by [`dedup`]), packs
//! ([`store`]) and a manifest ([`manifests`]). [`history`], [`moments`], [`diff`] and [`check`] read what is sealed, [`readahead`] before it is
//! asked for.

mod buffer;
mod check;
mod chunking;
mod dedup;
mod diff;
pub mod env;
mod error;
mod findings;
mod history;
mod journal;
mod keeper;
mod keys;
mod layers;
mod manifests;
mod moments;
mod outgoing;
mod overlay;
mod readahead;
pub mod real;
mod replace;
mod seal;
mod store;
mod tree;
mod types;
mod volume;

pub use check::{CheckReport, Damage};
pub use error::{FsError, OpenError};
pub use history::{History, View, fork, resolve};
pub use keeper::Keeper;
pub use outgoing::Outgoing;
pub use types::*;
pub use volume::{Options, Status, TAKEN_BYTES_MAX, Volume, WRITE_BYTES_MAX, create};
