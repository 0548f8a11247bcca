//! What the measurements of Comb need besides Comb.
//!
//! The measurements of the whole are the program `comb-bench` beside this crate, those of the
//! engine's parts are in `benches/parts`. The library holds only the reference that the former are compared with: a FUSE
//! server that keeps everything in memory, so that what is left is the price of the transport. See [`memory`] for its
//! tree and `bin/fusenull.rs` for its server.

pub mod memory;
