//! The engine: journal, overlay, tree, seal, chunks, packs, snapshots, reading.
//!
//! Knows no kernel and no network; clock, chance and disk come through [`env`].
//!
//! An operation looks through overlay, frozen overlay and tree ([`layers`]), appends a record to
//! the [`journal`] and changes the [`overlay`] ([`volume`]). Sealing ([`seal`]) turns a frozen
//! overlay into tree nodes ([`tree`]), chunks ([`chunking`], those that are there already found by [`dedup`]), packs
//! ([`store`]) and a manifest ([`manifests`]). [`history`], [`diff`] and [`check`] read what is sealed, [`readahead`] before it is
//! asked for, [`batches`] in the order of the packs. [`ledger`] has the volume's own records in the tree: moments among them, which [`retention`] chooses from
//! and [`collection`] cleans up behind, with [`compaction`] of packs that are mostly dead. What others can give of the disk's
//! room, [`room`] asks for. Until when it may be changed at all, [`lease`] knows.

mod batches;
mod buffer;
mod check;
mod chunking;
mod collection;
mod compaction;
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
mod lease;
mod ledger;
mod manifests;
mod outgoing;
mod overlay;
#[cfg(feature = "parts")]
pub mod parts;
mod readahead;
pub mod real;
mod replace;
pub mod retention;
mod room;
mod seal;
mod store;
mod tree;
mod types;
mod volume;

pub use batches::Batch;
pub use check::{CheckReport, Damage};
pub use collection::{Collection, Freed, GRACE, GivenUpHere, Packs, Pruned};
pub use compaction::{Compacted, Compaction};
pub use error::{FsError, OpenError};
pub use history::{History, View, fork, resolve};
pub use keeper::{Keeper, SealPace};
pub use lease::{LEASE_OVER, Lease, LeaseError};
pub use manifests::{manifest_info, path as manifest_path};
pub use outgoing::Outgoing;
pub use room::Housekeeper;
pub use types::*;
pub use volume::{Options, Status, TAKEN_BYTES_MAX, Volume, WRITE_BYTES_MAX, create};
