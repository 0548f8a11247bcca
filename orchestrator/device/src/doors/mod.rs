//! Through which the pure part reaches the world.
//!
//! - `clock`    `CLOCK_BOOTTIME`
//! - `disk`     the device's own file and the records, each replaced whole and synced
//! - `kept`     room that is kept for those on a full disk
//! - `docker`   Docker's API: states, events, figures, logs; only what carries this device's labels
//! - `compose`  the program `docker compose`, with a list of arguments
//! - `program`  other programs: a list of arguments, an environment of our own, a deadline
//! - `volumes`  what is asked of the filesystem; made where its commands are
//! - `past`     what a person looks at in volumes; made there too
//! - `ring`     the account's key ring on this machine
//! - `hive`     signed requests and checked answers

pub mod clock;
pub mod compose;
pub mod disk;
pub mod docker;
pub mod hive;
pub mod kept;
pub mod past;
pub mod program;
pub mod ring;
pub mod volumes;
