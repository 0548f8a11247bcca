//! What the measurements of Comb need besides Comb.
//!
//! The measurements themselves are the scripts beside this crate (`speed`, `scale`, `small-changes`). The crate
//! holds only the reference they are compared with: a FUSE server that keeps everything in memory, so that what is
//! left is the price of the transport. See [`memory`] for its tree and `bin/fusenull.rs` for its server.

pub mod memory;
