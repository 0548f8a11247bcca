//! What went wrong between a volume and a store, in words for a person.

use fs_replication::Error;

use crate::state::VolumeFolder;
use crate::stores::StoreConfig;

/// What went wrong between a volume and a store, and what to do about it.
pub fn told(volume: &VolumeFolder, store: &StoreConfig, error: &Error) -> String {
    let is_denied = matches!(error, Error::Store(error) if error.kind() == fs_store::Kind::Denied);
    let told = denied_to(store, is_denied, error.to_string());
    let accept = format!("`comb sync {} --accept-rollback`", volume.name);
    match error {
        Error::RolledBack { .. } => format!("{told}; {accept} sends again what it lacks"),
        Error::UnknownVolume { .. } => format!("{told} if it was, {accept} sends everything anew"),
        _ => told,
    }
}

/// Says with a refusal whose credentials were refused: those that somebody has just set in his terminal are not the daemon's.
pub fn denied_to(store: &StoreConfig, is_denied: bool, told: String) -> String {
    if !is_denied || store.url.starts_with("file:") {
        return told;
    }
    format!(
        "{told}; a daemon has the environment of the `comb mount` that started it, and looks for credentials then: mount the \
         volume again where they are right"
    )
}
