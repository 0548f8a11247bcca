//! `comb device rename`.

use clap::Args;
use orchestrator_api::wire::device::{ChangeDevice, Device};

use crate::failure::{Failure, Kind, Result};
use crate::hive::{HiveArgs, find};
use crate::output;
use crate::state::State;

/// Give a device another name
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The device
    name: String,

    /// What it is called from now on
    #[arg(value_name = "NEW")]
    new: String,

    #[command(flatten)]
    hive: HiveArgs,
}

/// Renames a device.
pub fn run(state: &State, args: &RenameArgs) -> Result<()> {
    let name =
        args.new.parse().map_err(|error| Failure::new(Kind::Usage, format!("the new name {error}")))?;
    let client = args.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    let device: Device = client.patch(&format!("/v1/devices/{}", device.id), &ChangeDevice { name })?;
    output::note(&format!("the device is called \"{}\" now", output::escape(device.name.as_bytes())));
    Ok(())
}
