//! The simulation as tests.
//!
//! - `notebook`: the trials pass a toy engine without flaws and find each of those with one.
//!
//! Short form: `cargo test -p fs-sim`. Long form: see `fs_sim::trial`.

mod notebook;
