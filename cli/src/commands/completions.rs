//! `comb completions`.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::{Context, Result};

/// Print completions for a shell
///
///   comb completions bash > /etc/bash_completion.d/comb
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints completions.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Comb::command(), "comb", &mut script);
    std::io::stdout().write_all(&script).context("standard output")
}
