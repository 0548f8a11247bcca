//! What the device of this machine is made of here: the filesystem's commands and the key ring, as its daemon asks for them.
//!
//! - `volumes`      each question is a command of this program, with its own state folder
//! - `moving`       bringing volumes to another store
//! - `past`         what a person looks at in volumes, the same way
//! - `rings`        uniting versions of the key ring, under its lock
//! - `credentials`  what stores ask for, from the key ring, in files that the commands are pointed to

mod credentials;
mod moving;
mod past;
mod rings;
mod volumes;

use std::path::{Path, PathBuf};

pub use rings::RingFolder;
pub use volumes::Commands;

use crate::state::State;

/// Where the files of apps lie: for people to read, and for dockerd to bind.
pub fn apps_folder(state: &State, given: Option<&Path>) -> PathBuf {
    match given {
        Some(folder) => folder.to_owned(),
        None if state.root() == Path::new("/var/lib/comb") => PathBuf::from("/apps"),
        None => state.root().join("apps"),
    }
}

/// Docker's socket: the one that is given, or that `DOCKER_HOST` names, or the usual one.
pub fn docker_socket(given: Option<&Path>) -> PathBuf {
    let named = std::env::var("DOCKER_HOST").ok();
    let named = named.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    given.map(Path::to_owned).or(named).unwrap_or_else(|| PathBuf::from("/var/run/docker.sock"))
}
