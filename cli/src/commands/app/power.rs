//! `comb app start`, `stop`, `restart`.

use clap::Args;
use orchestrator_api::wire::app::{Plain, Restart};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_device::daemon::socket::AppOrder;

use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{find, here};
use crate::state::State;

/// Start an app where it was, or where its data is free
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The app
    name: String,

    #[command(flatten)]
    order: OrderArgs,
}

/// Stop an app; its data goes to the store, and its device keeps it
///
/// It stops whether the store answers or not. What the store lacks then is told: the device has it, and nothing else does.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The app
    name: String,

    #[command(flatten)]
    order: OrderArgs,
}

/// Restart an app's containers, or those of some services
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The app
    name: String,

    /// Of these services only
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Starts.
pub fn start(state: &State, args: &StartArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, &args.name)?;
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/start", app.id), &Plain {})?;
    let watched = args.order.finish(&client, ordered, &format!("starting \"{}\"", app.name))?;
    match watched.waited && !args.order.json {
        true => super::add::tell_started(&client, app.id),
        false => Ok(()),
    }
}

/// Stops.
pub fn stop(state: &State, args: &StopArgs) -> Result<()> {
    let what = format!("stopping \"{}\"", args.name);
    let asked = || {
        let client = args.order.hive.client(state)?;
        let app = find::app(&client, &args.name)?;
        let ordered = client.post(&format!("/v1/apps/{}/stop", app.id), &Plain {})?;
        args.order.finish(&client, ordered, &what).map(drop)
    };
    here::or_here(state, asked(), &args.name, AppOrder::Stop, &what)
}

/// Restarts.
pub fn restart(state: &State, args: &RestartArgs) -> Result<()> {
    let what = format!("restarting \"{}\"", args.name);
    let asked = || {
        let client = args.order.hive.client(state)?;
        let app = find::app(&client, &args.name)?;
        let wish = Restart { services: services(&args.services)? };
        let ordered = client.post(&format!("/v1/apps/{}/restart", app.id), &wish)?;
        args.order.finish(&client, ordered, &what).map(drop)
    };
    match args.services.is_empty() {
        true => here::or_here(state, asked(), &args.name, AppOrder::Restart, &what),
        // The device restarts all of an app by itself, and no part.
        false => asked(),
    }
}

/// Services as they travel; none for all.
pub fn services<const MAX: usize>(
    names: &[String],
) -> Result<Option<orchestrator_api::wire::value::List<orchestrator_api::wire::value::Key, MAX>>> {
    if names.is_empty() {
        return Ok(None);
    }
    let usage = |error: &dyn std::fmt::Display| Failure::new(Kind::Usage, format!("the service {error}"));
    let keys =
        names.iter().map(|name| name.parse().map_err(|error| usage(&error))).collect::<Result<Vec<_>>>()?;
    keys.try_into().map(Some).map_err(|_| Failure::new(Kind::Usage, format!("more than {MAX} services")))
}
