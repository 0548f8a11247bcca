//! `comb ls`.

use std::ffi::OsString;

use clap::Args;
use fs_format::{FileKind, Ino};
use fs_volume::{Attr, FsError, ReadTree, View};
use serde::Serialize;

use crate::failure::Result;
use crate::output::{self, Align, JsonPath, Table};
use crate::page::Page;
use crate::place::{self, Place};
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::{engine, tree};

/// List a directory as it was at a moment
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The volume, the moment (now if left out) and the path (the root if left out); `-` reads it from standard input
    #[arg(value_name = "NAME[@WHEN]:PATH")]
    place: OsString,

    /// Show mode, links, owner, size and time too
    #[arg(short, long)]
    long: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print, as JSON, what the path itself is, how many entries it has, and these of them; folders come first
    #[arg(long, value_name = "FROM:COUNT", conflicts_with_all = ["json", "long"])]
    page: Option<Page>,
}

/// An entry with what is known of it.
struct Entry {
    name: Vec<u8>,
    attr: Attr,
    target: Option<Vec<u8>>,
}

impl Entry {
    fn of(view: &dyn ReadTree, name: Vec<u8>, ino: Ino) -> std::result::Result<Self, FsError> {
        let attr = view.attr(ino)?;
        let is_link = attr.inode.kind == FileKind::Symlink;
        let target = is_link.then(|| view.read_link(ino)).transpose()?;
        Ok(Self { name, attr, target })
    }
}

/// Lists a directory, or one file.
pub fn run(state: &State, args: &LsArgs) -> Result<()> {
    let place = Place::parse(&place::given(&args.place)?, &engine::now())?;
    let path = place.path.as_deref().unwrap_or_default();
    let volume = state.volume(&place.name)?;
    let moment = engine::moment(state, &volume, place.when.as_ref().map(|(when, _)| when))?;
    let outcome = match args.page {
        Some(page) => print_page(&moment.view, path, page),
        None => list(&volume, &moment.view, path, args),
    };
    moment.end(outcome)
}

/// What a path is, and a part of what is in it.
fn print_page(view: &View, path: &[u8], page: Page) -> Result<()> {
    #[derive(Serialize)]
    struct Json {
        moment: SealReport,
        #[serde(rename = "self")]
        found: JsonEntry,
        total: usize,
        entries: Vec<JsonEntry>,
    }
    let found = tree::find(view, path)?;
    let failed = |error| engine::fs_failure(output::escape(path), &error);
    let mut entries =
        if tree::is_directory(&found) { tree::entries(view, found.ino).map_err(failed)? } else { Vec::new() };
    // Stable, so names stay in their order.
    entries.sort_by_key(|entry| entry.kind != FileKind::Directory);
    let total = entries.len();
    let shown = entries.drain(page.of(total)).map(|entry| Entry::of(view, entry.name, entry.ino));
    let shown = shown.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    let found = Entry::of(view, tree::base_name(path, "").to_vec(), found.ino).map_err(failed)?;
    output::json(&Json {
        moment: SealReport::from(view.info()),
        found: JsonEntry::of(&found),
        total,
        entries: shown.iter().map(JsonEntry::of).collect(),
    })
}

fn list(volume: &VolumeFolder, view: &dyn ReadTree, path: &[u8], args: &LsArgs) -> Result<()> {
    let found = tree::find(view, path)?;
    let failed = |error| engine::fs_failure(output::escape(path), &error);

    let listed: Vec<(Vec<u8>, FileKind, Ino)> = if tree::is_directory(&found) {
        let entries = tree::entries(view, found.ino).map_err(failed)?;
        entries.into_iter().map(|entry| (entry.name, entry.kind, entry.ino)).collect()
    } else {
        vec![(tree::base_name(path, volume.name.as_str()).to_vec(), found.inode.kind, found.ino)]
    };
    if !args.long && !args.json {
        // Names alone need no look at each inode.
        return listed.iter().try_for_each(|(name, kind, _)| output::line(&with_slash(name, *kind)));
    }

    let entries = listed.into_iter().map(|(name, _, ino)| Entry::of(view, name, ino));
    let entries = entries.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    if args.json { print_json(&entries) } else { print_long(&entries) }
}

fn with_slash(name: &[u8], kind: FileKind) -> String {
    let slash = if kind == FileKind::Directory { "/" } else { "" };
    format!("{}{slash}", output::escape(name))
}

fn print_long(entries: &[Entry]) -> Result<()> {
    let mut table = Table::new(&[
        ("MODE", Align::Left),
        ("LINKS", Align::Right),
        ("UID", Align::Right),
        ("GID", Align::Right),
        ("SIZE", Align::Right),
        ("MODIFIED", Align::Left),
        ("NAME", Align::Left),
    ])
    .bare();
    for Entry { name, attr, target } in entries {
        let inode = &attr.inode;
        let size = match inode.kind {
            FileKind::CharDevice | FileKind::BlockDevice => {
                let device = u64::from(inode.rdev);
                format!("{}, {}", rustix::fs::major(device), rustix::fs::minor(device))
            }
            _ => inode.size.to_string(),
        };
        let arrow =
            target.as_ref().map(|target| format!(" -> {}", output::escape(target))).unwrap_or_default();
        table.row(vec![
            output::mode(inode.kind, inode.mode),
            inode.nlink.to_string(),
            inode.uid.to_string(),
            inode.gid.to_string(),
            size,
            output::time_local(inode.mtime.0),
            format!("{}{arrow}", with_slash(name, inode.kind)),
        ]);
    }
    table.print()
}

#[derive(Serialize)]
struct JsonEntry {
    #[serde(flatten)]
    path: JsonPath,
    kind: &'static str,
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    bytes: u64,
    allocated_bytes: u64,
    modified: String,
    inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl JsonEntry {
    fn of(Entry { name, attr, target }: &Entry) -> Self {
        Self {
            path: JsonPath::new(name),
            kind: output::kind(attr.inode.kind),
            mode: format!("{:04o}", attr.inode.mode),
            links: attr.inode.nlink,
            uid: attr.inode.uid,
            gid: attr.inode.gid,
            bytes: attr.inode.size,
            allocated_bytes: attr.allocated,
            modified: output::time_utc(attr.inode.mtime.0),
            inode: attr.ino.0,
            target: target.as_ref().map(|target| String::from_utf8_lossy(target).into_owned()),
        }
    }
}

fn print_json(entries: &[Entry]) -> Result<()> {
    output::json(&entries.iter().map(JsonEntry::of).collect::<Vec<_>>())
}
