//! `comb branch`: what this machine wrote and no store took, because another device had taken the volume over.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::branches;
use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::notes::{self, Ended};
use crate::output::{self, Align, Table};
use crate::promise::seconds_since;
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};

/// Show what was written here and is not in the volume, because another device took it over
#[derive(Debug, Subcommand)]
pub enum BranchCommand {
    List(ListArgs),
    Remove(RemoveArgs),
}

/// List the seals of this machine that are not in the volume
///
/// Each can be looked at and restored from like any moment: `comb ls NAME@SEQ:/`, `comb restore NAME@SEQ:PATH`, and once
/// the volume was opened here again, `comb ls NAME/BRANCH:/`. `comb fork NAME/BRANCH NEW` makes a volume of it.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Remove a branch, when nothing in it is needed any more
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The branch, NAME/BRANCH
    name: VolumeName,

    /// Say that what only this branch holds may go
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Branch {
    /// What to call it in a command.
    name: String,
    /// The epoch that somebody else has.
    ended_by_epoch: u64,
    /// When that was noticed here, RFC 3339.
    noticed: String,
    /// The last seal of this machine that is in the volume; null if that is not known here any more.
    cut: Option<SealReport>,
    /// When the last change was made that is on the branch, RFC 3339: no later than this.
    last_step: Option<String>,
    /// From the cut to the last step.
    seconds: Option<f64>,
    /// What the seals of the branch added.
    bytes: u64,
    seals: Vec<SealReport>,
}

/// Runs the command.
pub fn run(state: &State, command: &BranchCommand) -> Result<()> {
    match command {
        BranchCommand::List(args) => list(state, args),
        BranchCommand::Remove(args) => remove(state, args),
    }
}

fn list(state: &State, args: &ListArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let mut branches = Vec::new();
    for branch in volume.branches()? {
        match branches::end_of(&branch).and_then(|ended| told(&branch, ended)) {
            Ok(branch) => branches.push(branch),
            // One that is damaged does not hide the others.
            Err(failure) => {
                output::note(&format!("warning: branch \"{}\": {}", branch.name, failure.message));
                failure.hint.iter().for_each(|hint| output::note(&format!("hint: {hint}")));
            }
        }
    }
    if let Some(ended) = notes::ended(&volume)? {
        branches.push(told(&volume, ended)?);
    }
    // Whoever had sent everything before he was taken over has nothing of his own.
    branches.retain(|branch| !branch.seals.is_empty());
    if args.json {
        return output::json(&branches);
    }
    for branch in branches {
        output::line(&format!(
            "another device took volume \"{}\" over with epoch {}, noticed {}; not in it are, of {}",
            volume.name, branch.ended_by_epoch, branch.noticed, branch.name
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

fn told(folder: &VolumeFolder, ended: Ended) -> Result<Branch> {
    let (before, seals) = branches::seals(folder, &ended)?;
    let (cut, last) = (before.as_ref(), seals.last());
    Ok(Branch {
        name: folder.name.to_string(),
        ended_by_epoch: ended.by,
        noticed: ended.noticed,
        cut: cut.map(SealReport::from),
        last_step: last.map(|last| output::time_utc(last.time.0)),
        seconds: cut.zip(last).map(|(cut, last)| seconds_since(cut.time.0, last.time.0)),
        bytes: seals.iter().map(|seal| seal.added).sum(),
        seals: seals.iter().map(SealReport::from).collect(),
    })
}

fn remove(state: &State, args: &RemoveArgs) -> Result<()> {
    if args.name.branch().is_none() {
        return Err(Failure::new(Kind::Usage, format!("\"{}\" is no branch", args.name))
            .hint("a branch is called NAME/BRANCH; `comb branch list` shows them"));
    }
    let branch = state.volume(&args.name)?;
    for address in Address::all(&branch.path) {
        if let Some(report) = address.status()? {
            return Err(report.in_the_way(&branch.name));
        }
    }
    let (lock, views) = (branch.lock()?, branch.lock_out_views()?);
    if !args.yes {
        return Err(Failure::new(
            Kind::Usage,
            format!("this destroys what was written here and is in \"{}\" only", branch.name),
        )
        .hint(format!(
            "`comb ls {}:` shows it, `comb fork` makes a volume of it; then add --yes",
            branch.name
        )));
    }
    branch.remove_branch(&lock, &views)?;
    output::note(&format!("branch \"{}\" is removed", branch.name));
    Ok(())
}
