//! The command line as a person meets it: the binary, a state folder, real mounts.

mod adopting;
mod apps;
mod branches;
mod browser;
mod checking;
mod expecting;
mod exporting;
mod faults;
mod following;
mod hive;
mod hive_stage;
mod ipfs;
mod lease;
mod metrics;
mod mounts;
mod page;
mod parting;
mod people;
mod retention;
mod ring;
mod room;
mod stores;
mod volumes;
mod watching;
mod ways_out;
mod world;
