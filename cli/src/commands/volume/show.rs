//! `comb volume show`.

use clap::Args;
use serde::Serialize;

use crate::control::Address;
use crate::failure::Result;
use crate::name::VolumeName;
use crate::output;
use crate::state::{State, VolumeFolder};

/// Show what a volume is and where it lies
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A volume, as `--json` shows it.
#[derive(Debug, Serialize)]
pub struct VolumeReport {
    /// Its name.
    pub name: String,
    /// Its public key in hexadecimal.
    pub public_key: String,
    /// The most bytes it may hold.
    pub quota_bytes: Option<u64>,
    /// When it was made here, RFC 3339.
    pub created: String,
    /// Its folder.
    pub folder: String,
    /// The file with its keys.
    pub key_file: String,
    /// Where it is mounted, the live tree first.
    pub mount_points: Vec<String>,
}

impl VolumeReport {
    /// Reads it together.
    pub fn new(volume: &VolumeFolder) -> Result<Self> {
        let config = volume.config()?;
        let mut mount_points = Vec::new();
        for address in Address::all(&volume.path) {
            mount_points.extend(address.status()?.map(|report| report.mount_point));
        }
        Ok(Self {
            name: volume.name.to_string(),
            public_key: volume.id.to_hex(),
            quota_bytes: config.quota_bytes,
            created: config.created,
            folder: volume.path.display().to_string(),
            key_file: volume.key_path().display().to_string(),
            mount_points,
        })
    }
}

/// Shows one volume.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let report = VolumeReport::new(&state.volume(&args.name)?)?;
    if args.json {
        return output::json(&report);
    }
    let mounted = if report.mount_points.is_empty() { "-".into() } else { report.mount_points.join(", ") };
    for (what, value) in [
        ("name", report.name),
        ("public key", report.public_key),
        ("quota", report.quota_bytes.map_or_else(|| "none".into(), output::size)),
        ("created", report.created),
        ("folder", report.folder),
        ("key file", report.key_file),
        ("mounted on", mounted),
    ] {
        output::line(&format!("{what:<11} {value}"))?;
    }
    Ok(())
}
