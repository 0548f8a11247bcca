//! An app on this device: what its package becomes before containers start.
//!
//! - `package`   opened and checked; sealed again for a fork
//! - `message`   what is said of a moment, sealed from the hive
//! - `folder`    the files of the package on the disk, for compose and for people to read
//! - `variables` what the compose file's variables are
//! - `run_file`  compose's answer, checked, with what Comb adds: the one file that runs
//! - `ports`     which port of the machine each one gets
//! - `gate`      whether it is well
//! - `processor` whether an image is for this machine's

pub mod folder;
pub mod gate;
pub mod message;
pub mod package;
pub mod ports;
pub mod processor;
pub mod run_file;
pub mod variables;

use orchestrator_api::ids::AppId;

/// The longest name of a volume of the filesystem, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The first 8 digits of an app's id.
pub fn short(app: AppId) -> String {
    app.to_string().chars().take(8).collect()
}

/// The name of its project in compose.
pub fn project(app: AppId) -> String {
    format!("comb-{}", short(app))
}

/// What a volume of an app is called on this device; in Docker with `comb-` before it.
pub fn volume_name(app: AppId, name: &str) -> String {
    let whole = format!("app-{}-{name}", short(app));
    if whole.len() <= NAME_BYTES_MAX {
        return whole;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}-{}", &whole[..NAME_BYTES_MAX - 9], &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_enough_and_differ() {
        let app = AppId([0xab; 16]);
        assert_eq!(volume_name(app, "data"), "app-abababab-data");
        let (one, other) = ("x".repeat(63), format!("{}y", "x".repeat(62)));
        assert_eq!(volume_name(app, &one).len(), 64);
        assert_ne!(volume_name(app, &one), volume_name(app, &other));
        assert_eq!(project(app), "comb-abababab");
    }
}
