//! `comb key share`.

use std::path::PathBuf;

use clap::Args;
use fs_crypto::ReadKeyFile;

use crate::failure::{Kind, Result};
use crate::name::VolumeName;
use crate::state::{State, write_new};
use crate::{keys, output};

/// Print a key of a volume for somebody else
///
/// With the read key and a store of the volume, everything in the volume can be read: what is there now, its whole
/// past, and whatever is written later; a fork and the volume that it was made from open each other. It cannot be
/// used to write, and it cannot be taken back: that needs a new volume. `comb volume open NAME --key-file F --store URL`
/// takes it, and opens the volume to be read.
#[derive(Debug, Args)]
pub struct ShareArgs {
    /// The volume
    name: VolumeName,

    /// The read key: opens, cannot write
    #[arg(long, required = true)]
    read: bool,

    /// Write it to a new file that only you can read, instead of to the terminal
    #[arg(long, value_name = "F")]
    out: Option<PathBuf>,
}

/// Shows the read key.
pub fn run(state: &State, args: &ShareArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let text = ReadKeyFile::encode(&volume.id, &keys::load(&volume)?.read_key());
    match &args.out {
        None => output::line(text.trim_end())?,
        Some(path) => {
            write_new(path, text.as_bytes()).map_err(|failure| match failure.kind {
                Kind::InTheWay => failure.hint("a key never overwrites a file: choose another name"),
                _ => failure,
            })?;
            output::note(&format!("the read key of \"{}\" is in {}", args.name, path.display()));
        }
    }
    output::note(&format!(
        "Whoever has it can read all of volume {}, past and future, and cannot write to it. It cannot be taken back.",
        volume.id
    ));
    Ok(())
}
