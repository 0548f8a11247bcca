//! `comb man`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::failure::{Context, Result};
use crate::output;

/// Write the manual pages
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write them to, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes a page for each command.
pub fn run(args: &ManArgs) -> Result<()> {
    fs::create_dir_all(&args.out).context(args.out.display())?;
    clap_mangen::generate_to(super::Comb::command(), &args.out).context(args.out.display())?;
    output::note(&format!("the manual pages are in {}", args.out.display()));
    Ok(())
}
