//! `comb branch`: what this machine wrote and no store took, because another device had taken the volume over.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::failure::Result;
use crate::name::VolumeName;
use crate::output::{self, Align, Table};
use crate::report::SealReport;
use crate::state::State;
use crate::{engine, replica};

/// Show what was written here and is not in the volume, because another device took it over
#[derive(Debug, Subcommand)]
pub enum BranchCommand {
    List(ListArgs),
}

/// List the seals of this machine that are not in the volume
///
/// Each can be looked at and restored from like any moment: `comb ls NAME@SEQ:/`, `comb restore NAME@SEQ:PATH`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Branch {
    /// The epoch that somebody else has.
    ended_by_epoch: u64,
    /// When that was noticed here, RFC 3339.
    noticed: String,
    seals: Vec<SealReport>,
}

/// Runs the command.
pub fn run(state: &State, command: &BranchCommand) -> Result<()> {
    let BranchCommand::List(args) = command;
    let volume = state.volume(&args.name)?;
    let mut branches = Vec::new();
    if let Some(ended) = replica::ended(&volume)? {
        let history = engine::history(&volume)?;
        let seals = engine::seals(&volume, &history)?;
        let seals = seals.iter().filter(|seal| seal.seq.0 >= ended.at).map(SealReport::from).collect();
        branches.push(Branch { ended_by_epoch: ended.by, noticed: ended.noticed, seals });
    }
    if args.json {
        return output::json(&branches);
    }
    for branch in branches {
        output::line(&format!(
            "another device took volume \"{}\" over with epoch {}, noticed {}; not in it are",
            volume.name, branch.ended_by_epoch, branch.noticed
        ))?;
        let mut table = Table::new(&[
            ("SEQ", Align::Right),
            ("TIME", Align::Left),
            ("FILES", Align::Right),
            ("BYTES", Align::Right),
        ]);
        for seal in branch.seals {
            table.row(vec![
                seal.seq.to_string(),
                seal.time,
                seal.files.to_string(),
                output::size(seal.bytes),
            ]);
        }
        table.print()?;
    }
    Ok(())
}
