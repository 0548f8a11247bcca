//! The simulator of the orchestrator: hive and devices as they are, on fakes of every door.
//!
//! A seed decides everything: how many devices and apps there are, how clocks run, what fails and when, what a person
//! wishes. The same seed gives the same run, so a run that goes wrong is run once more to write down its history.
//!
//! Time is true time in milliseconds; each machine and each process of the hive has a clock of its own, up to 1 % wrong.
//! After a while everything is mended, and then everything that was begun has to end.

mod chance;
mod doors;
mod faults;
mod hive;
mod machine;
mod oracle;
mod store;
mod world;

pub use faults::Flavour;
pub use world::{Broken, Seen, run};
