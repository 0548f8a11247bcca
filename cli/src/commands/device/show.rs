//! `comb device show`.

use clap::Args;
use orchestrator_api::wire::report::DiskUse;

use super::list::how;
use crate::failure::Result;
use crate::hive::{HiveArgs, find, words};
use crate::output;
use crate::state::State;

/// Show a device
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The device
    name: String,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows a device.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    if args.json {
        return output::json(&device);
    }
    let line =
        |what: &str, value: &str| output::line(&format!("{what:<10} {}", output::escape(value.as_bytes())));
    line("device", &device.name)?;
    line("id", &device.id.to_string())?;
    line("state", &how(&device))?;
    if let Some(age) = device.seen_age_ms {
        line("heard", &format!("{} ago", words::age(age.0)))?;
    }
    line("joined", &output::time_local(device.joined.0.saturating_mul(1_000_000)))?;
    line("version", &format!("{} on {}", device.version, words::arch(device.arch)))?;
    if let Some(load) = device.load {
        line(
            "memory",
            &format!(
                "{} of {} free",
                output::size(load.memory_free_bytes.0),
                output::size(load.memory_bytes.0)
            ),
        )?;
        line(
            "load",
            &format!("{:.2}, {} % of the processors", load.load_1m.0 as f64 / 100.0, load.cpu_percent.0),
        )?;
    }
    for disk in &device.disks {
        let what = match disk.what {
            DiskUse::State => "volumes",
            DiskUse::Docker => "docker",
            DiskUse::Apps => "apps",
        };
        line(
            "disk",
            &format!("{} of {} free ({what})", output::size(disk.free_bytes.0), output::size(disk.bytes.0)),
        )?;
    }
    let apps = find::app_names(&find::apps(&client)?);
    for app in &device.apps {
        line("app", &words::named(&apps, app))?;
    }
    Ok(())
}
