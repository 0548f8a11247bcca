//! What went wrong between a volume and a store, in words for a person.

use fs_replication::Error;

use crate::state::VolumeFolder;
use crate::stores::StoreConfig;

/// What went wrong between a volume and a store, and what to do about it. `is_ours` says whether the store that decides has said
/// that the volume is written here still.
pub fn told(volume: &VolumeFolder, store: &StoreConfig, error: &Error, is_ours: bool) -> String {
    let is_denied = matches!(error, Error::Store(error) if error.kind() == fs_store::Kind::Denied);
    let told = denied_to(store, is_denied, error.to_string());
    let accept = format!("`comb sync {} --accept-rollback`", volume.name);
    match error {
        Error::RolledBack { .. } => format!("{told}; {accept} sends again what it lacks"),
        Error::UnknownVolume { .. } => format!("{told} if it was, {accept} sends everything anew"),
        Error::Differs { .. } if is_ours => format!(
            "{told}: the copy holds seals that may be nowhere else; leave them there, and let the copy be another one (`comb store \
             remove`, then `comb store add` with another prefix or folder)"
        ),
        // Of a healthy copy it says the same where another device goes on, or the state folder was put back in time.
        Error::Differs { .. } => format!(
            "{told}: whether another device goes on with the volume is known as soon as the store answers that decides; `comb store \
             test {}` shows whether it does",
            volume.name
        ),
        _ => told,
    }
}

/// Says with a refusal whose credentials were refused: those that somebody has just set in his terminal are not the daemon's.
pub fn denied_to(store: &StoreConfig, is_denied: bool, told: String) -> String {
    if !is_denied || store.url.starts_with("file:") {
        return told;
    }
    format!(
        "{told}; a daemon takes up credentials in a file when that changes, and has the environment of the `comb mount` that started \
         it: put the file right, or mount the volume again where the variables are right"
    )
}
