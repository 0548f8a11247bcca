//! `comb app show`.

use clap::Args;
use orchestrator_api::placement::Policy;
use orchestrator_api::wire::app::App;

use super::list::{self, data, how};
use crate::failure::Result;
use crate::hive::{Client, HiveArgs, find, words};
use crate::output;
use crate::state::State;

/// Show an app: services, ports, volumes, what would be lost, what was kept
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The app
    name: String,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows an app.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    if args.json {
        return output::json(&app);
    }
    show(&client, &app)
}

fn line(what: &str, value: &str) -> Result<()> {
    output::line(&format!("{what:<10} {}", output::escape(value.as_bytes())))
}

fn show(client: &Client, app: &App) -> Result<()> {
    let devices = find::devices(client)?;
    let device = list::place(app, &devices);
    let devices = find::device_names(&devices);
    let named = |device| words::named(&devices, &device);
    line("app", &app.name)?;
    line("id", &app.id.to_string())?;
    line("state", &how(app))?;
    if let Some(problem) = &app.problem
        && let (_, Some(hint)) = words::problem(&problem.code)
    {
        line("", hint)?;
    }
    line("device", if app.device.is_some() { &device } else { "none" })?;
    line("version", &format!("{} (revision {})", app.version, app.revision.0))?;
    let policy = match app.policy {
        Policy::Manual => "manual: a person moves it",
        Policy::Auto => "auto: it moves by itself when its device is lost",
    };
    line("policy", policy)?;
    for device in &app.standby {
        line("standby", &named(*device))?;
    }
    if let Some(domain) = &app.domain {
        line("domain", domain)?;
    }
    super::add::tell(app)?;
    let stores = find::stores(client)?;
    for (number, id) in app.stores.iter().enumerate() {
        let url = stores
            .iter()
            .find(|store| store.id == *id)
            .map_or_else(|| id.to_string(), |store| store.url.clone());
        line("store", &format!("{url}{}", if number == 0 { " (decides who writes)" } else { "" }))?;
    }
    line("data", &data(app))?;
    if let Some(stake) = app.at_stake {
        line("at stake", &at_stake(&stake))?;
    }
    for service in &app.services {
        let report = app
            .report
            .as_ref()
            .and_then(|aged| aged.report.services.iter().find(|one| one.name.as_str() == service.name));
        let state = report.map_or_else(String::new, |one| {
            format!(", {}, {} restarts", format!("{:?}", one.state).to_lowercase(), one.restarts.0)
        });
        line("service", &format!("{}: {}{state}", service.name, service.image))?;
    }
    for port in app.report.iter().flat_map(|aged| aged.report.ports.iter()) {
        line("port", &words::port(port.service.as_str(), port.given.0, port.port.0, port.protocol))?;
    }
    for volume in &app.volumes {
        let key = volume.volume.map_or_else(String::new, |key| format!(" {key}"));
        line("volume", &format!("{}{key}: {}", volume.name, list::volume(app, volume)))?;
    }
    for action in &app.actions {
        let inputs: Vec<&str> = action.input.iter().map(|input| input.name.as_str()).collect();
        line("action", &format!("{}({}) in {}", action.name, inputs.join(", "), action.service))?;
    }
    for permission in &app.permissions {
        line("may", permission)?;
    }
    for kept in &app.branches {
        line(
            "kept",
            &format!(
                "branch {} on {}: {} s, {}; `comb app fork {} --tail --from {} --as NEW` makes an app of it",
                kept.branch.name,
                named(kept.device),
                kept.branch.span_ms.0 / 1_000,
                output::size(kept.branch.bytes.0),
                app.name,
                named(kept.device),
            ),
        )?;
    }
    if let Some(operation) = app.operation {
        line("doing", &format!("{operation}; `comb operation show {operation}`"))?;
    }
    Ok(())
}

/// What would be lost if the device were lost now.
pub fn at_stake(stake: &orchestrator_api::wire::app::AtStake) -> String {
    let seconds = stake.seconds.map_or_else(
        || "nothing of it is in a store yet".to_owned(),
        |seconds| format!("the last {} s", seconds.0),
    );
    format!(
        "{seconds}, {} as its device said {} ago",
        output::size(stake.bytes.0),
        words::age(stake.report_age_ms.0)
    )
}
