//! `comb device update`.

use clap::Args;
use orchestrator_api::wire::account::ReleaseInfo;
use orchestrator_api::wire::device::{Device, UpdateDevice};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::Number;

use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, find};
use crate::state::State;

/// Have a device run another program: a release of `comb device release`
///
/// The device checks its owner's signature and the program's hash, runs it in its own place, and goes back to what it ran
/// before if the new one does not report all as well as it was within ten minutes. Apps run on meanwhile.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The device
    name: String,

    /// The release [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    release: Option<u64>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Updates a device.
pub fn run(state: &State, args: &UpdateArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    let number = match args.release {
        Some(number) => number,
        None => {
            let known: Vec<ReleaseInfo> = client.list("/v1/releases")?;
            let newest = known.iter().map(|one| one.number.0).max();
            newest.ok_or_else(|| {
                Failure::new(Kind::NotFound, "the hive has no release")
                    .hint("`comb device release FILE` signs a program and gives it to the hive")
            })?
        }
    };
    order(&client, &device, number, &args.order)
}

/// Orders a release of a device.
pub fn order(client: &Client, device: &Device, number: u64, order: &OrderArgs) -> Result<()> {
    let ordered: Ordered = client
        .post(&format!("/v1/devices/{}/update", device.id), &UpdateDevice { release: Number(number) })?;
    order.finish(client, ordered, &format!("updating \"{}\" to release {number}", device.name)).map(drop)
}
