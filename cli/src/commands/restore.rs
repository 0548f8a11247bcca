//! `comb restore`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Args;
use fs_format::FileKind;
use fs_volume::{Attr, ReadTree, SealInfo, View};
use indicatif::ProgressBar;
use serde::Serialize;

use super::snapshot;
use crate::failure::{Context, Failure, Kind, Result};
use crate::output::JsonPath;
use crate::place::{self, Place};
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::writer::{Existing, Writer};
use crate::{engine, live, output, progress, tree};

/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Copy a file or folder out of a moment of the past
///
/// Everything is kept: holes, links, modes, times, attributes, ACLs, and owners if root does it. Without
/// --force nothing that exists is touched. What cannot be kept, or lies in a damaged part of the volume, is
/// left out and named; the rest is restored. If it is interrupted, what has its final name is whole.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The volume, the moment and the path; `/` is all of it; `-` reads it from standard input
    #[arg(value_name = "NAME@WHEN:PATH")]
    place: OsString,

    /// The folder to put it in, made if it is not there; with the path `/` its content goes right into
    /// DIR [default: the current folder, and for `/` a folder NAME in it]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// Replace files that exist, and merge folders
    #[arg(long)]
    force: bool,

    /// Put it where it was, in the volume as it is mounted here: files are replaced, folders merged. What is there now
    /// is kept first, as a snapshot
    #[arg(long, conflicts_with_all = ["to", "force", "beside"])]
    in_place: bool,

    /// Put it next to where it was, in the volume as it is mounted here, under a name that tells the moment
    #[arg(long, conflicts_with_all = ["to", "force"])]
    beside: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Tell a program on standard error how far it is
    #[arg(long, hide = true, conflicts_with = "to")]
    progress: bool,
}

/// What was restored.
#[derive(Debug, Serialize)]
struct Restored {
    /// Files and folders.
    files: u64,
    /// The moment that they are of.
    moment: SealReport,
    /// Where, below the root of the volume; none outside of it.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    path: Option<JsonPath>,
    /// The moment that has what was there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<SealReport>,
}

impl RestoreArgs {
    /// The same as `comb restore PLACE --to DIR`.
    pub fn of(place: String, to: Option<PathBuf>) -> Self {
        Self {
            place: place.into(),
            to,
            force: false,
            in_place: false,
            beside: false,
            json: false,
            progress: false,
        }
    }
}

/// Restores a path.
pub fn run(state: &State, args: &RestoreArgs) -> Result<()> {
    let place = Place::parse(&place::given(&args.place)?, &engine::now())?;
    let when = place.when_required("restore")?;
    let path = place.path_required("restore")?;
    let volume = state.volume(&place.name)?;
    let (_, view) = engine::moment_to_copy(state, &volume, when)?;
    let seal = view.info();
    let found = tree::find(&view, path)?;
    let bar = progress::bytes("restoring");
    if let Some(bytes) = bytes_below(path, &found, seal) {
        bar.set_length(bytes);
    }
    let (restored, target) = if args.in_place || args.beside {
        let files = args.progress.then(Arc::<AtomicU64>::default);
        let _teller = files.clone().map(|files| progress::tell(&bar, files));
        let shown = Shown { bar: &bar, files };
        let restored = put_back(state, &volume, &view, path, &found, args.beside, &shown)?;
        (restored, format!("volume \"{}\"", volume.name))
    } else {
        let target = match &args.to {
            Some(dir) => dir.clone(),
            None if path.is_empty() => PathBuf::from(volume.name.as_str()),
            None => PathBuf::from("."),
        };
        let made = make_target(&target)?;
        let existing = if args.force { Existing::Replace } else { Existing::Keep };
        let outcome = write(&view, path, &found, &target, existing, made, &bar);
        if outcome.is_err() && made {
            // Only if nothing got into it: this is no recursive removal.
            let _ = fs::remove_dir(&target);
        }
        let restored = Restored { files: outcome?, moment: SealReport::from(seal), path: None, kept: None };
        (restored, target.display().to_string())
    };
    bar.finish_and_clear();
    if args.json {
        return output::json(&restored);
    }
    output::note(&format!(
        "restored {} files and folders of seq {} ({}) into {target}",
        restored.files,
        seal.seq,
        output::time_local(seal.time.0),
    ));
    if let Some(kept) = &restored.kept {
        output::note(&format!("what was there before is in seq {}", kept.seq));
    }
    Ok(())
}

/// Where it is shown how far it is.
struct Shown<'a> {
    bar: &'a ProgressBar,
    files: Option<Arc<AtomicU64>>,
}

/// Puts a path back into the volume as it is mounted, or beside what is there.
fn put_back(
    state: &State,
    volume: &VolumeFolder,
    view: &View,
    path: &[u8],
    found: &Attr,
    beside: bool,
    shown: &Shown<'_>,
) -> Result<Restored> {
    let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    if name.is_empty() {
        return Err(Failure::new(Kind::Usage, "the whole volume is not put back file by file")
            .hint("`comb rollback` takes it back to a moment"));
    }
    let moment = SealReport::from(view.info());
    let new = if beside { name_beside(name, moment.seq) } else { name.to_owned() };
    // What a branch holds goes into the volume that it is of.
    let into = volume.name.branch().map(|(name, _)| state.volume(&name)).transpose()?;
    let volume = into.as_ref().unwrap_or(volume);
    // Kept before anything is touched: whatever follows can be undone.
    let root = live::root(volume)?;
    let kept = if beside {
        None
    } else {
        let message = format!("before a part of seq {} was put back", moment.seq);
        let tag = format!("before-restore-{}", moment.seq);
        let seal = snapshot::take(state, volume, message, vec![tag])?;
        volume.link_snapshot(&seal.snapshot.as_ref().map(|label| label.uuid.clone()).unwrap_or_default())?;
        Some(seal)
    };
    let existing = if beside { Existing::Keep } else { Existing::Replace };
    let folder = descend(view, root, above, shown.bar)?;
    let writer = Writer::into_folder(view, folder, existing, shown.bar.clone());
    let mut writer = writer.seen_by(shown.files.clone());
    if beside && writer.exists(&new)? {
        let what = format!("{} exists", output::escape(&new));
        return Err(Failure::new(Kind::InTheWay, what).hint("it was put there before; rename or remove it"));
    }
    writer.write(found, &new)?;
    let files = writer.finish()?;
    let path = if above.is_empty() { new } else { [above, b"/", &new].concat() };
    Ok(Restored { files, moment, path: Some(JsonPath::new(&path)), kept })
}

/// The folder of a path in the mounted volume; those that are gone are made as they were.
fn descend(view: &View, root: OwnedFd, path: &[u8], bar: &ProgressBar) -> Result<OwnedFd> {
    let mut at = root;
    let mut done: Vec<u8> = Vec::new();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if !done.is_empty() {
            done.push(b'/');
        }
        done.extend_from_slice(name);
        at = match live::folder(at.as_fd(), name)? {
            Some(folder) => folder,
            None => {
                let was = tree::find(view, &done)?;
                Writer::into_folder(view, at, Existing::Keep, bar.clone()).make_folder(&was, name)?
            }
        };
    }
    Ok(at)
}

/// `holiday (seq 12).jpg`: the name of what is put beside, at most 255 bytes long.
fn name_beside(name: &[u8], seq: u64) -> Vec<u8> {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0);
    // A long ending is no ending, but a part of the name.
    let dot = dot.filter(|dot| name.len() - dot <= 16).unwrap_or(name.len());
    let (stem, ending) = name.split_at(dot);
    let moment = format!(" (seq {seq})");
    let room = NAME_BYTES_MAX - moment.len() - ending.len();
    let mut stem = stem[..stem.len().min(room)].to_vec();
    // No character is cut in two, if it was one.
    while std::str::from_utf8(name).is_ok() && std::str::from_utf8(&stem).is_err() {
        stem.pop();
    }
    [&stem[..], moment.as_bytes(), ending].concat()
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
    view: &View,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_beside_has_a_name_of_its_own_that_fits() {
        let named = |name: &[u8]| name_beside(name, 12);
        assert_eq!(named(b"a.tar"), b"a (seq 12).tar");
        assert_eq!(named(b".profile"), b".profile (seq 12)");
        assert_eq!(named(b"folder"), b"folder (seq 12)");
        assert_eq!(named(b"a.not an ending at all"), b"a.not an ending at all (seq 12)");
        assert_eq!(named(b"\xff.x"), b"\xff (seq 12).x");
        let long = "\u{e4}".repeat(127);
        let new = named(long.as_bytes());
        assert!(new.len() <= 255 && std::str::from_utf8(&new).is_ok(), "{}", new.len());
        assert!(named(&[b'x'; 255]).len() == 255);
    }
}
