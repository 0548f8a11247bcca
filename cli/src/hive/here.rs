//! This machine as one of the hive's devices, and orders that it takes where the hive does not answer
//! (`orchestrator/docs/api.md`, section 12).
//!
//! A start needs a new term, which only the hive gives; so what can be asked for here is what an app that runs here may do.

use std::time::Duration;

use orchestrator_api::ids::DeviceId;
use orchestrator_api::wire::command::Late;
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::daemon::socket::{self, AppOrder, Ask};
use serde_json::Value;

use super::{Client, words};
use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::State;
use crate::stores;

/// How long an order may take: an app's containers stop and start in it.
const ORDER_WAIT: Duration = Duration::from_secs(1_200);

/// What the hive did, or this machine's device in its place: if the hive does not answer, and the app is here.
pub fn or_here(state: &State, asked: Result<()>, name: &str, order: AppOrder, what: &str) -> Result<()> {
    let Err(failure) = asked else { return Ok(()) };
    if failure.kind != Kind::Unreachable {
        return Err(failure);
    }
    match ask(state, name, order)? {
        None => Err(failure),
        Some(done) => {
            output::note(&format!("{}; the device of this machine did it instead: {what}", failure.message));
            if order == AppOrder::Stop {
                output::note(
                    "the hive wants it to run still, and starts it when it is back: stop it there, too, if it is to stay",
                );
            }
            let late: Vec<Late> = serde_json::from_value(done["late"].clone()).unwrap_or_default();
            if !late.is_empty() {
                output::note(&format!(
                    "warning: the store lacks what is here of {}; `comb sync` sends it when the store answers",
                    words::late(&late)
                ));
            }
            match done["tag"].as_str() {
                Some(tag) => output::line(tag),
                None => Ok(()),
            }
        }
    }
}

/// This machine, as the hive calls it.
pub fn device(state: &State, client: &Client) -> Result<DeviceId> {
    let file = Folder::of(state.root()).hive().context("the device's folder")?;
    let file = file.ok_or_else(|| {
        Failure::new(Kind::NotFound, "this machine is no device").hint(
            "do it where the app runs or is to run: `comb device join HIVE --code C` makes this machine a device",
        )
    })?;
    match client.info()?.key == file.key {
        true => Ok(file.device),
        false => Err(Failure::new(
            Kind::Foreign,
            format!("this machine is a device of another hive, {}", file.url),
        )),
    }
}

/// What the device of this machine says; none if there is none.
fn ask(state: &State, name: &str, order: AppOrder) -> Result<Option<Value>> {
    let question = Ask::App { name: name.to_owned(), order };
    let answer = stores::block_on(async {
        socket::ask(state.root(), &question, ORDER_WAIT).await.context("the device's socket")
    })?;
    let Some(answer) = answer else { return Ok(None) };
    match answer["failed"]["message"].as_str() {
        Some(message) => Err(Failure::other(message)),
        None => Ok(Some(answer["done"].clone())),
    }
}
