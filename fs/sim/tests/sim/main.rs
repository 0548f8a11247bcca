//! The simulation as tests.
//!
//! - `engine`: the trials of the real engine.
//! - `found`: what they found, kept.
//! - `notebook`: the trials pass a toy engine without flaws and find each of those with one.
//!
//! Short form: `cargo test -p fs-sim`. Long form, and how to replay a seed: see `fs_sim::trial`.

mod engine;
mod found;
mod notebook;
