//! `comb log`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use fs_format::Inode;
use fs_volume::{Attr, FsError, History, OpenError, SealInfo};
use serde::Serialize;

use crate::failure::Result;
use crate::name::VolumeName;
use crate::output::{self, Align, JsonPath, Table};
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::when::When;
use crate::{engine, place, progress};

/// List the moments of a volume, or the versions of one file, newest first
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The volume
    name: VolumeName,

    /// Only the moments at which this path changed; `-` reads it from standard input
    path: Option<OsString>,

    /// Only snapshots, not every seal
    #[arg(long)]
    snapshots: bool,

    /// Only this moment
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["path", "snapshots"])]
    at: Option<String>,

    /// At most this many
    #[arg(short = 'n', long = "number", value_name = "N")]
    number: Option<usize>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists moments or versions.
pub fn run(state: &State, args: &LogArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let newest = engine::moment(state, &volume, None)?;
    let outcome = list(&volume, &newest.history, args);
    // All moments are told in any case; of one path, the newest version may be missing.
    if args.path.is_some() { newest.end(outcome) } else { newest.end_of_sealed(outcome) }
}

fn list(volume: &VolumeFolder, history: &History, args: &LogArgs) -> Result<()> {
    let mut seals = engine::seals(volume, history)?;
    if args.snapshots {
        seals.retain(|seal| seal.snapshot.is_some());
    }
    if let Some(at) = &args.at {
        let found = When::parse(at, &engine::now())?.resolve(&seals)?.seq;
        seals.retain(|seal| seal.seq == found);
    }
    let number_max = args.number.unwrap_or(usize::MAX);
    match &args.path {
        None => print_seals(seals.iter().rev().take(number_max), args.json),
        Some(path) => {
            let path = place::clean(place::given(path)?.as_bytes())?;
            let mut versions = versions(volume, history, &seals, &path)?;
            versions.reverse();
            versions.truncate(number_max);
            print_versions(&path, &versions, args.json)
        }
    }
}

fn print_seals<'a>(seals: impl Iterator<Item = &'a SealInfo>, json: bool) -> Result<()> {
    if json {
        return output::json(&seals.map(SealReport::from).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        ("SEQ", Align::Right),
        ("TIME", Align::Left),
        ("FILES", Align::Right),
        ("BYTES", Align::Right),
        ("ADDED", Align::Right),
        ("SNAPSHOT", Align::Left),
        ("TAGS", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for seal in seals {
        let label = seal.snapshot.as_ref();
        table.row(vec![
            seal.seq.to_string(),
            output::time_local(seal.time.0),
            seal.files.to_string(),
            output::size(seal.bytes),
            output::size(seal.added),
            label.map(|label| label.id.to_hex()[..8].to_owned()).unwrap_or_default(),
            label.map(|label| label.tags.join(",")).unwrap_or_default(),
            label.map(|label| output::escape(label.message.as_bytes())).unwrap_or_default(),
        ]);
    }
    table.print()
}

/// A moment at which a path became what it is.
struct Version<'a> {
    seal: &'a SealInfo,
    /// `None`: it was removed.
    inode: Option<Inode>,
}

/// The seals whose `path` differs from the seal before, oldest first.
fn versions<'a>(
    volume: &VolumeFolder,
    history: &History,
    seals: &'a [SealInfo],
    path: &[u8],
) -> Result<Vec<Version<'a>>> {
    let bar = progress::count("searching");
    bar.set_length(seals.len() as u64);
    let mut versions: Vec<Version> = Vec::new();
    let mut before: Option<Attr> = None;
    for seal in bar.wrap_iter(seals.iter()) {
        let view = match history.at(seal.seq) {
            // What the other moments say of the path is worth knowing.
            Err(error @ OpenError::Damaged { .. }) => {
                output::note(&format!("warning: seq {} is left out: {error}", seal.seq));
                continue;
            }
            other => other.map_err(|error| engine::open_failure(volume, &error))?,
        };
        let attr = match view.resolve(path) {
            Ok(attr) => Some(attr),
            Err(FsError::NotFound | FsError::NotADirectory) => None,
            Err(error) => return Err(engine::fs_failure(output::escape(path), &error)),
        };
        if !same(before.as_ref(), attr.as_ref()) {
            versions.push(Version { seal, inode: attr.as_ref().map(|attr| attr.inode.clone()) });
        }
        before = attr;
    }
    bar.finish_and_clear();
    if versions.is_empty() {
        return Err(engine::fs_failure(output::escape(path), &FsError::NotFound)
            .hint("no sealed moment holds this path; paths are below the root of the volume"));
    }
    Ok(versions)
}

/// Whether nothing a person would call a change lies between the two. Every change of content or
/// attributes sets the change time; reading and a rename of a parent do not.
fn same(before: Option<&Attr>, now: Option<&Attr>) -> bool {
    match (before, now) {
        (None, None) => true,
        (Some(before), Some(now)) => before.ino == now.ino && before.inode.ctime == now.inode.ctime,
        _ => false,
    }
}

fn print_versions(path: &[u8], versions: &[Version], json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Json {
        #[serde(flatten)]
        path: JsonPath,
        seq: u64,
        sealed: String,
        exists: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        modified: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
    }
    if json {
        let list: Vec<Json> = versions
            .iter()
            .map(|Version { seal, inode }| Json {
                path: JsonPath::new(path),
                seq: seal.seq.0,
                sealed: output::time_utc(seal.time.0),
                exists: inode.is_some(),
                kind: inode.as_ref().map(|inode| output::kind(inode.kind)),
                bytes: inode.as_ref().map(|inode| inode.size),
                modified: inode.as_ref().map(|inode| output::time_utc(inode.mtime.0)),
                mode: inode.as_ref().map(|inode| format!("{:04o}", inode.mode)),
            })
            .collect();
        return output::json(&list);
    }
    let mut table = Table::new(&[
        ("SEQ", Align::Right),
        ("SEALED", Align::Left),
        ("MODE", Align::Left),
        ("SIZE", Align::Right),
        ("MODIFIED", Align::Left),
    ]);
    for Version { seal, inode } in versions {
        let (mode, size, modified) = match inode {
            Some(inode) => (
                output::mode(inode.kind, inode.mode),
                output::size(inode.size),
                output::time_local(inode.mtime.0),
            ),
            None => ("removed".into(), String::new(), String::new()),
        };
        table.row(vec![seal.seq.to_string(), output::time_local(seal.time.0), mode, size, modified]);
    }
    table.print()
}
