//! The device on a real Docker Engine: `cargo test -p comb --test docker -- --ignored --test-threads 1`, as root, with
//! `DOCKER_HOST` naming the engine of `tests/servers/docker start`.
//!
//! Containers, compose, mounts and stores are real. What orders here is a hive of a few lines, so that each test says
//! exactly which commands come, what is granted and when nothing is answered, and reads every byte that a device sends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

mod apps;
mod authoring;
#[path = "../comb/browser.rs"]
mod browser;
mod disk;
mod doctor;
mod faults;
mod gates;
mod hive;
mod home;
mod machine;
mod orders;
mod page;
mod reports;
mod streams;
mod up;
mod updates;
mod whole;
