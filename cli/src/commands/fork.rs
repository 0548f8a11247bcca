//! `comb fork`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use fs_format::PackId;
use fs_volume::{FsError, History};

use super::volume::VolumeReport;
use crate::failure::{Kind, Result};
use crate::name::{VolumeName, parse_size};
use crate::place::Place;
use crate::state::{Config, State, VolumeFolder};
use crate::{engine, keys, output, progress, ring};

/// Make a new volume that begins as another one was at a moment
///
/// The new volume has a key of its own, and what is changed or removed in one of the two does not change the
/// other. On one filesystem the packs of both are the same files under two names: they take no room, and what
/// the disk spoils is spoilt in both. A fork is no backup. Its key opens what it has taken over, too.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The volume and the moment (now if left out)
    #[arg(value_name = "NAME@WHEN")]
    place: OsString,

    /// The new volume's name
    #[arg(value_name = "NEW")]
    new: VolumeName,

    /// The most that the new volume may hold; the old one's limit if left out
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Forks a volume.
pub fn run(state: &State, args: &ForkArgs) -> Result<()> {
    let place = Place::parse(&args.place, &engine::now())?;
    place.path_refused("fork")?;
    let parent = state.volume(&place.name)?;
    let (history, view) =
        engine::moment(state, &parent, place.when.as_ref().map(|(when, _)| when))?.required()?;
    let seal = view.info();

    let key = keys::generate()?;
    let id = key.id();
    let config =
        Config { quota_bytes: args.quota.or(parent.config()?.quota_bytes), ..Config::new(&args.new) };
    let is_elsewhere = parent.config()?.from_store;
    let bar = progress::count("bringing packs");
    let volume = state.add(&config, &args.new, id, |folder| {
        keys::store(folder, &key)?;
        let mut bring = |path: &str| {
            bar.inc(1);
            match bring_over(&parent.path.join(path), &folder.join(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_elsewhere => {
                    fetch(&history, path, &folder.join(path))
                }
                other => other,
            }
        };
        fs_volume::fork(&history, seal.seq, &fs_volume::real::env(folder), &key, &mut bring).map_err(
            |error| {
                let new = VolumeFolder { name: args.new.clone(), id, path: folder.to_owned() };
                engine::open_failure(&new, &error)
            },
        )?;
        Ok(())
    });
    bar.finish_and_clear();
    let volume = volume.map_err(|failure| match failure.kind {
        Kind::Damaged => {
            failure.hint(format!("`comb check {}` names everything that is damaged", parent.name))
        }
        _ => failure,
    })?;
    ring::remember(state, &volume, &key);
    if args.json {
        return output::json(&VolumeReport::new(&volume)?);
    }
    output::line(&format!(
        "volume \"{}\" begins as \"{}\" was at seq {} ({})",
        volume.name,
        parent.name,
        seal.seq,
        output::time_local(seal.time.0)
    ))?;
    output::line(&format!("  public key  {}", volume.id))?;
    output::line(&format!("  key file    {}", volume.key_path().display()))
}

/// Fetches a pack that is in the parent's store only.
fn fetch(history: &History, path: &str, to: &Path) -> io::Result<()> {
    let pack = path.strip_prefix("packs/").and_then(PackId::from_hex).ok_or(io::ErrorKind::NotFound)?;
    let object = history.pack_object(&pack).map_err(|error| match error {
        // That it is away is no damage, and another try may succeed.
        FsError::Away(why) => io::Error::new(io::ErrorKind::HostUnreachable, why),
        error => io::Error::other(error),
    })?;
    let mut file = fs::File::create_new(to)?;
    file.write_all(&object)?;
    file.sync_all()
}

/// A hard link where it can be, since packs never change; else a copy that is durable before it counts.
fn bring_over(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::hard_link(from, to) {
        Err(error) if needs_copy(&error) => {
            fs::copy(from, to)?;
            fs::File::open(to)?.sync_all()
        }
        other => other,
    }
}

/// Whether the two places, or their filesystem, have no hard links.
fn needs_copy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EMLINK | libc::EPERM | libc::EOPNOTSUPP))
}
