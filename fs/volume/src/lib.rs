//! The engine: journal, overlay, tree, seal, chunks, packs, snapshots, reading.
//!
//! Knows no kernel and no network; clock, chance and disk come through [`env`].

pub mod env;
mod error;
mod types;

pub use error::{FsError, OpenError};
pub use types::*;
