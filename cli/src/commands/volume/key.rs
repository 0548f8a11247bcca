//! `comb volume key`.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use crate::failure::{Kind, Result};
use crate::name::VolumeName;
use crate::state::{State, write_new};
use crate::{keys, output};

/// Print a volume's key, or write it to a file
///
/// Whoever has the key can read the volume and write to it. Keep the copy where only you can reach it.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The volume
    name: VolumeName,

    /// Write it to a new file that only you can read, instead of to the terminal
    #[arg(long, value_name = "F")]
    out: Option<PathBuf>,
}

/// Shows the key.
pub fn run(state: &State, args: &KeyArgs) -> Result<()> {
    let text = keys::export(&state.volume(&args.name)?)?;
    match &args.out {
        None => output::line(&text),
        Some(path) => {
            write_new(path, Zeroizing::new(format!("{}\n", *text)).as_bytes()).map_err(|failure| {
                match failure.kind {
                    Kind::InTheWay => failure.hint("a key never overwrites a file: choose another name"),
                    _ => failure,
                }
            })?;
            output::note(&format!("the key of \"{}\" is in {}", args.name, path.display()));
            Ok(())
        }
    }
}
