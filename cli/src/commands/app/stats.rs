//! `comb app stats`.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use orchestrator_api::wire::app::App;

use super::list::{data, how};
use crate::failure::Result;
use crate::hive::{HiveArgs, find, words};
use crate::output::{self, Align, Table};
use crate::state::State;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Show what an app's services use, every 2 seconds
///
/// The figures are those of the device's reports, so they change every 10 seconds.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The app
    name: String,

    /// Show it once
    #[arg(long)]
    once: bool,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON, once
    #[arg(long)]
    json: bool,
}

/// Shows figures.
pub fn run(state: &State, args: &StatsArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let mut app = find::app(&client, &args.name)?;
    if args.json {
        return output::json(&app.report);
    }
    loop {
        show(&app)?;
        if args.once {
            return Ok(());
        }
        sleep(LOOK_EVERY);
        app = client.get(&format!("/v1/apps/{}", app.id))?;
        output::line("")?;
    }
}

fn show(app: &App) -> Result<()> {
    let age = app
        .report
        .as_ref()
        .map_or_else(|| "never".to_owned(), |aged| format!("{} ago", words::age(aged.age_ms.0)));
    output::line(&format!(
        "{}: {}, data {}, reported {age}",
        output::escape(app.name.as_bytes()),
        how(app),
        output::escape(data(app).as_bytes())
    ))?;
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("STATE", Align::Left),
        ("CPU", Align::Right),
        ("MEMORY", Align::Right),
        ("RESTARTS", Align::Right),
    ]);
    for service in app.report.iter().flat_map(|aged| aged.report.services.iter()) {
        table.row(vec![
            output::escape(service.name.as_str().as_bytes()),
            format!("{:?}", service.state).to_lowercase(),
            format!("{} %", service.cpu_percent.0),
            output::size(service.memory_bytes.0),
            service.restarts.0.to_string(),
        ]);
    }
    table.print()
}
