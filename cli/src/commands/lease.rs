//! `comb lease`.

use clap::Args;

use crate::control::{Address, Request};
use crate::failure::{Failure, Kind, Result};
use crate::lease::{LeaseEnd, LeaseReport};
use crate::name::VolumeName;
use crate::output;
use crate::state::State;

/// Show until when a mount takes changes, or move that on
///
/// A mount with a lease (`comb mount --lease`) refuses every change after its end, and sends nothing to stores any more. An end never
/// moves back, and one that has come cannot be moved: then a new mount is needed.
#[derive(Debug, Args)]
pub struct LeaseArgs {
    /// The volume
    name: VolumeName,

    /// When it ends: a span from now on (45s), @ and milliseconds of the clock CLOCK_BOOTTIME, or `none`. Nothing shows it
    #[arg(value_name = "END", value_parser = parse_wish)]
    end: Option<Wish>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What becomes of a lease.
#[derive(Debug, Clone, Copy)]
enum Wish {
    End(LeaseEnd),
    NoEnd,
}

fn parse_wish(text: &str) -> std::result::Result<Wish, String> {
    if text == "none" { Ok(Wish::NoEnd) } else { text.parse().map(Wish::End) }
}

/// Shows a lease, or moves its end.
pub fn run(state: &State, args: &LeaseArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let address = Address::live(&volume.path);
    let lease: Option<Option<LeaseReport>> = match args.end {
        Some(Wish::End(LeaseEnd(end))) => {
            let end_boottime_ms = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
            address.ask(&Request::Lease { end_boottime_ms })?
        }
        Some(Wish::NoEnd) => address.ask(&Request::NoLease)?,
        None => address.status()?.map(|report| report.lease),
    };
    let lease = lease.ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{}\" is not mounted", volume.name))
            .hint(format!("`comb mount {} DIR --lease SPAN` mounts it with a lease", volume.name))
    })?;
    if args.json {
        return output::json(&lease);
    }
    output::line(&match lease {
        None => format!("the mount of volume \"{}\" takes changes without an end", volume.name),
        Some(lease) if lease.over => {
            format!("the lease of volume \"{}\" is over: it takes no changes", volume.name)
        }
        Some(lease) => {
            let seconds = lease.left_ms as f64 / 1000.0;
            format!("the mount of volume \"{}\" takes changes for {seconds:.1} s more", volume.name)
        }
    })
}
