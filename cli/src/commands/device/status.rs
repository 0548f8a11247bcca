//! `comb device status`.

use std::time::Duration;

use clap::Args;
use orchestrator_device::daemon::socket::{Ask, ask};
use serde_json::Value;

use crate::failure::{Context, Failure, Kind, Result};
use crate::state::State;
use crate::{output, stores};

/// Show the device of this machine and what runs on it
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the device, and shows what it says.
pub fn run(state: &State, args: &StatusArgs) -> Result<()> {
    let status = of(state, &Ask::Status)?;
    if args.json {
        return output::json(&status);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    output::line(&format!(
        "device \"{}\" of {}: {}",
        text(&status["name"]),
        text(&status["hive"]),
        text(&status["answer"])
    ))?;
    if status["locked"] == true {
        output::line("it is locked: `comb device unlock` asks for the passphrase")?;
    }
    for app in status["apps"].as_array().into_iter().flatten() {
        let why = app["why"].as_str().map_or_else(String::new, |why| format!(" ({why})"));
        let address = app["address"].as_str().map_or_else(String::new, |address| format!("  {address}"));
        output::line(&format!("  {}  {}{why}{address}", text(&app["name"]), text(&app["phase"])))?;
        if let Some(problem) = app["problem"].as_object() {
            output::line(&format!("    {}: {}", text(&problem["code"]), text(&problem["message"])))?;
        }
        for branch in app["branches"].as_array().into_iter().flatten() {
            output::line(&format!(
                "    kept: {}/{} has {} bytes that another device went on without",
                text(&branch["volume"]),
                text(&branch["name"]),
                branch["bytes"]
            ))?;
        }
    }
    Ok(())
}

/// What the device of this machine answers.
pub fn of(state: &State, question: &Ask) -> Result<Value> {
    let wait = Duration::from_secs(60);
    let answer =
        stores::block_on(async { ask(state.root(), question, wait).await.context("the device's socket") })?;
    let answer = answer.ok_or_else(|| {
        Failure::new(Kind::Silent, "no device runs on this machine").hint("`comb device run` runs it")
    })?;
    match answer["failed"]["message"].as_str() {
        Some(message) => Err(Failure::other(message)),
        None => Ok(answer["done"].clone()),
    }
}
