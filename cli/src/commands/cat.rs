//! `comb cat`.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;
use fs_format::FileKind;
use fs_volume::ReadTree;

use crate::failure::{Context, Failure, Kind, Result};
use crate::place::{self, Place};
use crate::state::State;
use crate::tree::READ_BYTES;
use crate::{engine, output, tree};

/// Print a file as it was at a moment
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The volume, the moment (now if left out) and the path; `-` reads it from standard input
    #[arg(value_name = "NAME@WHEN:PATH")]
    place: OsString,
}

/// Prints a file.
pub fn run(state: &State, args: &CatArgs) -> Result<()> {
    let place = Place::parse(&place::given(&args.place)?, &engine::now())?;
    let path = place.path_required("cat")?;
    let volume = state.volume(&place.name)?;
    let moment = engine::moment(state, &volume, place.when.as_ref().map(|(when, _)| when))?;
    let outcome = print(&moment.view, path);
    moment.end(outcome)
}

fn print(view: &dyn ReadTree, path: &[u8]) -> Result<()> {
    let shown = if path.is_empty() { "the root of the volume".into() } else { output::escape(path) };
    let attr = tree::find(view, path)?;
    if attr.inode.kind != FileKind::File {
        return Err(Failure::new(
            Kind::Usage,
            format!("{shown} is a {}, not a file", output::kind(attr.inode.kind)),
        )
        .hint("`comb ls` lists a directory and shows where a symlink leads"));
    }

    let mut out = io::stdout().lock();
    let mut offset = 0;
    while offset < attr.inode.size {
        let bytes =
            view.read(attr.ino, offset, READ_BYTES).map_err(|error| engine::fs_failure(&shown, &error))?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        match out.write_all(&bytes) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("standard output")?,
        }
    }
    out.flush().context("standard output")
}
