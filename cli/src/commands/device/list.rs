//! `comb device list`.

use clap::Args;
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::report::{DiskUse, Docker};

use crate::failure::Result;
use crate::hive::{HiveArgs, find, words};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the devices: how they are, what runs there, how much room is left
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists devices.
pub fn run(state: &State, args: &ListArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let devices = find::devices(&client)?;
    if args.json {
        return output::json(&devices);
    }
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("STATE", Align::Left),
        ("HEARD", Align::Right),
        ("APPS", Align::Right),
        ("MEMORY FREE", Align::Right),
        ("DISK FREE", Align::Right),
        ("LOAD", Align::Right),
        ("VERSION", Align::Left),
    ]);
    for device in &devices {
        let free = device.disks.iter().find(|disk| disk.what == DiskUse::State);
        let nothing = || "-".to_owned();
        table.row(vec![
            output::escape(device.name.as_bytes()),
            how(device),
            device.seen_age_ms.map_or_else(nothing, |age| words::age(age.0)),
            device.apps.len().to_string(),
            device.load.map_or_else(nothing, |load| output::size(load.memory_free_bytes.0)),
            free.map_or_else(nothing, |disk| output::size(disk.free_bytes.0)),
            device.load.map_or_else(nothing, |load| format!("{:.2}", load.load_1m.0 as f64 / 100.0)),
            output::escape(device.version.as_bytes()),
        ]);
    }
    table.print()
}

/// How a device is, in a few words.
pub fn how(device: &Device) -> String {
    let mut text = match device.state {
        DeviceState::Online => "online",
        DeviceState::Silent => "silent",
        DeviceState::Draining => "draining",
        DeviceState::Revoked if device.stores_open => "revoked, stores still open",
        DeviceState::Revoked => "revoked",
    }
    .to_owned();
    if device.state != DeviceState::Revoked {
        if device.locked {
            text.push_str(", locked");
        }
        match device.docker {
            Some(Docker::Slow) => text.push_str(", Docker slow"),
            Some(Docker::Stopped) => text.push_str(", Docker stopped"),
            Some(Docker::Missing) => text.push_str(", no Docker"),
            Some(Docker::Ok) | None => {}
        }
    }
    text
}
