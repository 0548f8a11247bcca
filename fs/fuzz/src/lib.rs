//! Fuzzing: foreign bytes for every decoder, and what must hold whatever they are.
//!
//! A target is a function of bytes that says an [`Outcome`]: decoded, refused, or broken. Coverage needs
//! a nightly compiler, so the runner steers by what it can see from outside: an input that is refused for
//! a new reason, or decodes to a new shape, or made the decoder work harder than any before, joins the
//! corpus and is mutated further.
//!
//! Invariants, for every target and every input
//! - No panic.
//! - What decodes encodes to the same bytes, so that no value has two spellings.
//! - A decoder allocates at most [`bytes_max`] at any moment.
//! - What an error says fits on a line, whatever the bytes were.
//! - The same seed tries the same inputs in the same order.
//!
//! `cargo run --release -p fs-fuzz -- all --seconds 60 --seed 1` runs every target for a minute. With
//! `CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true` in the environment a sum that overflows is a panic too.

mod dice;
mod meter;
mod mutate;
mod outcome;
mod runner;

pub mod targets;

pub use meter::Meter;
pub use outcome::{Outcome, Refusal, bytes_max, judge, same};
pub use runner::{Failure, Report, Stop, hex, replay, run};
pub use targets::Target;
