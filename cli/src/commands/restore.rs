//! `comb restore`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use fs_format::FileKind;
use fs_volume::{Attr, ReadTree, SealInfo};

use crate::failure::{Context, Failure, Kind, Result};
use crate::place::Place;
use crate::state::State;
use crate::writer::{Existing, Writer};
use crate::{engine, output, progress, tree};

/// Copy a file or folder out of a moment of the past
///
/// Everything is kept: holes, links, modes, times, attributes, ACLs, and owners if root does it. Without
/// --force nothing that exists is touched. What cannot be kept, or lies in a damaged part of the volume, is
/// left out and named; the rest is restored. If it is interrupted, what has its final name is whole.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The volume, the moment and the path; `/` is all of it
    #[arg(value_name = "NAME@WHEN:PATH")]
    place: OsString,

    /// The folder to put it in, made if it is not there; with the path `/` its content goes right into
    /// DIR [default: the current folder, and for `/` a folder NAME in it]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Replace files that exist, and merge folders
    #[arg(long)]
    force: bool,
}

impl RestoreArgs {
    /// The same as `comb restore PLACE --to DIR`.
    pub fn of(place: String, to: Option<PathBuf>) -> Self {
        Self { place: place.into(), to, force: false }
    }
}

/// Restores a path.
pub fn run(state: &State, args: &RestoreArgs) -> Result<()> {
    let place = Place::parse(&args.place, &engine::now())?;
    let when = place.when_required("restore")?;
    let path = place.path_required("restore")?;
    let volume = state.volume(&place.name)?;
    let (_, view) = engine::moment_to_copy(state, &volume, when)?;
    let seal = view.info();
    let found = tree::find(&view, path)?;

    let target = match &args.to {
        Some(dir) => dir.clone(),
        None if path.is_empty() => PathBuf::from(volume.name.as_str()),
        None => PathBuf::from("."),
    };
    let made = make_target(&target)?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let bar = progress::bytes("restoring");
    if let Some(bytes) = bytes_below(path, &found, seal) {
        bar.set_length(bytes);
    }
    let outcome = write(&view, path, &found, &target, existing, made, &bar);
    bar.finish_and_clear();
    if outcome.is_err() && made {
        // Only if nothing got into it: this is no recursive removal.
        let _ = fs::remove_dir(&target);
    }
    let count = outcome?;
    output::note(&format!(
        "restored {count} files and folders of seq {} ({}) into {}",
        seal.seq,
        output::time_local(seal.time.0),
        target.display()
    ));
    Ok(())
}

/// Makes the target folder; whether it was not there.
fn make_target(target: &Path) -> Result<bool> {
    if target.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(target).context(target.display())?;
    Ok(true)
}

/// The bytes that a progress bar counts, where they are known without a walk.
fn bytes_below(path: &[u8], found: &Attr, seal: &SealInfo) -> Option<u64> {
    match found.inode.kind {
        FileKind::File => Some(found.inode.size),
        _ if path.is_empty() => Some(seal.bytes),
        _ => None,
    }
}

fn write(
    view: &dyn ReadTree,
    path: &[u8],
    found: &Attr,
    target: &Path,
    existing: Existing,
    made: bool,
    bar: &indicatif::ProgressBar,
) -> Result<u64> {
    let mut writer = Writer::new(view, target, existing, bar.clone())?;
    let failed = |error| engine::fs_failure(output::escape(path), &error);
    if !path.is_empty() {
        let name = tree::base_name(path, "");
        refuse_existing(&writer, name, target, existing)?;
        writer.write(found, name)?;
        return writer.finish();
    }
    // All of it: the root's entries go into the target, which becomes the root.
    let entries = tree::entries(view, found.ino).map_err(failed)?;
    for entry in &entries {
        refuse_existing(&writer, &entry.name, target, existing)?;
    }
    for entry in &entries {
        writer.write(&view.attr(entry.ino).map_err(failed)?, &entry.name)?;
    }
    if made || existing == Existing::Replace {
        writer.dress_target(found)?;
    }
    writer.finish()
}

/// Looks before anything is written, so that a refused restore has changed nothing.
fn refuse_existing(writer: &Writer, name: &[u8], target: &Path, existing: Existing) -> Result<()> {
    if existing == Existing::Replace || !writer.exists(name)? {
        return Ok(());
    }
    let taken = target.join(OsStr::from_bytes(name));
    Err(Failure::new(Kind::InTheWay, format!("{} exists", output::escape(taken.as_os_str().as_bytes())))
        .hint("say --to another folder, or --force to replace it"))
}
