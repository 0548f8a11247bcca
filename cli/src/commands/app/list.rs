//! `comb app list`.

use clap::Args;
use orchestrator_api::wire::app::{App, Wanted};
use orchestrator_api::wire::report::{Health, Phase};

use crate::failure::Result;
use crate::hive::{HiveArgs, find, words};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the apps: where they run, how they are, how far their data is behind
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists apps.
pub fn run(state: &State, args: &ListArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let apps = find::apps(&client)?;
    if args.json {
        return output::json(&apps);
    }
    let devices = find::device_names(&find::devices(&client)?);
    let mut table = Table::new(&[
        ("APP", Align::Left),
        ("STATE", Align::Left),
        ("DEVICE", Align::Left),
        ("DATA", Align::Left),
        ("REVISION", Align::Right),
        ("ADDRESS", Align::Left),
    ]);
    for app in &apps {
        let device = app.device.map_or_else(|| "-".to_owned(), |device| words::named(&devices, &device));
        let address = app.address.clone().or_else(|| {
            app.report.as_ref().and_then(|aged| aged.report.address.as_ref().map(ToString::to_string))
        });
        table.row(vec![
            output::escape(app.name.as_bytes()),
            how(app),
            output::escape(device.as_bytes()),
            data(app),
            app.revision.0.to_string(),
            output::escape(address.unwrap_or_else(|| "-".to_owned()).as_bytes()),
        ]);
    }
    table.print()
}

/// How an app is, in a few words.
pub fn how(app: &App) -> String {
    let text = match &app.report {
        None if app.wanted == Wanted::Stopped => "stopped".to_owned(),
        None => "not heard of".to_owned(),
        Some(aged) => {
            let word = phase(aged.report.phase);
            match aged.report.health {
                Health::Healthy => format!("{word}, healthy"),
                Health::Starting => format!("{word}, not yet healthy"),
                Health::Unhealthy => format!("{word}, unhealthy"),
                Health::Unknown => format!("{word}, Docker does not answer"),
                Health::None => word.to_owned(),
            }
        }
    };
    match &app.problem {
        Some(problem) => format!("{text} ({})", words::problem(&problem.code).0),
        None => text,
    }
}

/// A phase, for a person.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Absent => "not here",
        Phase::StandingBy => "standing by",
        Phase::Claiming => "taking its volumes over",
        Phase::Mounting => "mounting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Flushing => "bringing its data to the store",
        Phase::Stopped => "stopped",
        Phase::Settling => "stopped, another device has it",
    }
}

/// How safe the data is: the oldest change that is in no store yet.
pub fn data(app: &App) -> String {
    let Some(aged) = &app.report else { return "-".to_owned() };
    let volumes = &aged.report.volumes;
    if volumes.is_empty() {
        return "-".to_owned();
    }
    let bytes: u64 = volumes.iter().map(|volume| volume.backlog_bytes.0).sum();
    let oldest =
        volumes.iter().filter_map(|volume| volume.backlog_age_ms).map(|age| age.0 + aged.age_ms.0).max();
    match (bytes, oldest) {
        (0, _) => "safe".to_owned(),
        (bytes, Some(age)) => format!("{} behind, {}", words::age(age), output::size(bytes)),
        (bytes, None) => format!("{} behind", output::size(bytes)),
    }
}
