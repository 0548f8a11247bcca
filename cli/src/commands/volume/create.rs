//! `comb volume create`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::name::{VolumeName, parse_size};
use crate::state::{Config, State, VolumeFolder};
use crate::{engine, keys, output, ring};

/// Make an empty volume with a key of its own
///
/// The key is the only way to the data: keep a copy elsewhere (`comb volume key NAME --out F`).
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name: letters, digits, '.', '_', '-'; at most 64
    name: VolumeName,

    /// Take the volume key from this file: 32 bytes in base64, as `comb volume key` writes it
    #[arg(long, value_name = "F")]
    key_file: Option<PathBuf>,

    /// The most that the volume may hold, such as 500M or 10G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes a volume and says where its key lies.
pub fn run(state: &State, args: &CreateArgs) -> Result<()> {
    let key = match &args.key_file {
        Some(path) => keys::import(path)?,
        None => keys::generate()?,
    };
    let config = Config { quota_bytes: args.quota, ..Config::new(&args.name) };
    let id = key.id();
    let volume = state.add(&config, &args.name, id, |folder| {
        keys::store(folder, &key)?;
        fs_volume::create(&fs_volume::real::env(folder), &key, engine::owner()).map_err(|error| {
            engine::open_failure(
                &VolumeFolder { name: args.name.clone(), id, path: folder.to_owned() },
                &error,
            )
        })
    })?;
    ring::remember(state, &volume, &key);
    if args.json {
        return output::json(&super::show::VolumeReport::new(&volume)?);
    }
    output::line(&format!("volume \"{}\" is made", volume.name))?;
    output::line(&format!("  public key  {}", volume.id))?;
    output::line(&format!("  key file    {}", volume.key_path().display()))?;
    output::note(&format!(
        "Without its key nobody can read the volume, you included. `comb volume key {} --out FILE` writes a copy.",
        volume.name
    ));
    Ok(())
}
