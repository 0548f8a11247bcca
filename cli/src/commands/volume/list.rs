//! `comb volume list`.

use clap::Args;

use super::show::VolumeReport;
use crate::failure::Result;
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the volumes of this machine
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists volumes.
pub fn run(state: &State, args: &ListArgs) -> Result<()> {
    let mut reports = Vec::new();
    for volume in state.volumes()? {
        match VolumeReport::new(&volume) {
            Ok(report) => reports.push(report),
            // One damaged volume does not hide the others.
            Err(failure) => {
                output::note(&format!("warning: volume \"{}\": {}", volume.name, failure.message))
            }
        }
    }
    if args.json {
        return output::json(&reports);
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("PUBLIC KEY", Align::Left),
        ("QUOTA", Align::Right),
        ("MOUNTED ON", Align::Left),
    ]);
    for report in reports {
        table.row(vec![
            report.name,
            report.public_key,
            report.quota_bytes.map_or_else(|| "-".into(), output::size),
            report.mount_points.first().cloned().unwrap_or_else(|| "-".into()),
        ]);
    }
    table.print()
}
