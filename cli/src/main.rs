//! `comb`, the one binary: encrypted volumes whose past stays open.
//!
//! A command is a file in `commands`. What they share:
//!
//! - `state`    where volumes, keys and names lie on this machine
//! - `name`, `when`, `place`   what a person writes for volumes, moments and paths
//! - `engine`, `keys`   opening volumes; errors of the engine in words for a person
//! - `ring`, `passphrase`   the account's key ring on this machine, and how a person opens it
//! - `ring_store`   the same in a store
//! - `stores`   a volume's stores, and their errors in words for a person
//! - `lazy_disk`   a folder whose packs are in a store
//! - `elsewhere`, `filling`   the part of a volume that is in its store and not here: reading it, and fetching all of it
//! - `following`   the tree of a volume that another device writes
//! - `takeover`, `branches`   going on with a volume from its store, and what only this machine has of one that was taken over
//! - `lease`    until when a mount takes changes
//! - `control`, `report`   the conversation with the daemon of a mounted volume, and what is told in it
//! - `replica`, `promise`   keeping the stores of a mounted volume up to its seals, and how soon that is promised
//! - `notes`   what is written down of a volume's stores
//! - `expectation`   what a program expects of a volume that it takes over
//! - `survey`, `drill`   what the stores of a volume hold of it, mending one place from another, and a trial of restoring
//! - `resting`, `cost`   what stores lack of a volume that is not mounted; what they cost
//! - `metrics`   what a daemon tells a collector of figures
//! - `room`   which packs leave this disk, and how much may wait for stores
//! - `retention`   pruning by policy, for commands and the daemon alike
//! - `device`   what this machine's device asks of the filesystem and the key ring
//! - `daemon_log`   what a daemon says of itself, in a file that does not grow for ever
//! - `hive`     the hive as a person speaks with it; packages of apps
//! - `carry`    a folder of this machine into another one, with all that it holds
//! - `ask`      questions to a person
//! - `interrupts`   signals to end, for what has something to put back before
//! - `live`     the folder where a volume takes changes, opened so that nothing in it leads elsewhere
//! - `page`     a part of a long list
//! - `tree`, `writer`, `pax`   reading a sealed tree, and writing it into a folder or an archive
//! - `mounts`   what the kernel knows of mounts
//! - `output`, `progress`, `waits`, `failure`   what is printed, and the exit codes

mod ask;
mod branches;
mod carry;
mod commands;
mod control;
mod cost;
mod daemon_log;
mod device;
mod drill;
mod elsewhere;
mod engine;
mod expectation;
mod failure;
mod filling;
mod following;
mod hive;
mod interrupts;
mod keys;
mod lazy_disk;
mod lease;
mod live;
mod metrics;
mod mounts;
mod name;
mod notes;
mod output;
mod page;
mod passphrase;
mod pax;
mod place;
mod progress;
mod promise;
mod replica;
mod report;
mod resting;
mod retention;
mod ring;
mod ring_store;
mod room;
#[cfg(test)]
mod simulation;
mod state;
mod stores;
mod survey;
mod takeover;
mod tree;
mod waits;
mod when;
mod writer;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let comb = commands::Comb::parse();
    match commands::run(comb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}
