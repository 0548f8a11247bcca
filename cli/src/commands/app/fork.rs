//! `comb app fork`.

use std::collections::BTreeMap;

use clap::Args;
use orchestrator_api::wire::app::{App, Fork};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::value::Text;

use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, find, moments};
use crate::state::State;

/// Make an app of its own of a moment of another, stopped; it costs no room until the two differ
///
/// With --tail of what a device kept that came back after the app had gone on elsewhere.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The app, and the moment if it is not the newest
    #[arg(value_name = "NAME[@WHEN]")]
    at: String,

    /// What the new app is called
    #[arg(long = "as", value_name = "NEW")]
    new: String,

    /// Of the newest branch of each volume that a device kept
    #[arg(long, requires = "from")]
    tail: bool,

    /// The device that kept it
    #[arg(long, value_name = "DEVICE", requires = "tail")]
    from: Option<String>,

    #[command(flatten)]
    order: OrderArgs,
}

/// Forks.
pub fn run(state: &State, args: &ForkArgs) -> Result<()> {
    let (name, when) = moments::split(&args.at);
    let new = args.new.parse().map_err(|error| Failure::new(Kind::Usage, format!("the new name {error}")))?;
    let client = args.order.hive.client(state)?;
    let app = find::app(&client, name)?;
    let to = match when {
        Some(when) => Some(moments::find(&moments::of(&client, &app)?.items, when)?),
        None => None,
    };
    let (device, branches) = match &args.from {
        Some(device) => {
            tail(&client, &app, device).map(|(device, branches)| (Some(device), Some(branches)))?
        }
        None => (None, None),
    };
    let fork = Fork { to, name: new, branches, device };
    let ordered: Ordered = client.post(&format!("/v1/apps/{}/fork", app.id), &fork)?;
    args.order.finish(&client, ordered, &format!("making \"{}\" of \"{}\"", args.new, app.name)).map(drop)
}

type Branches = BTreeMap<orchestrator_api::text::Hex<32>, Text<64>>;

/// The newest branch of each volume that a device kept: the one whose cut came last.
fn tail(client: &Client, app: &App, device: &str) -> Result<(orchestrator_api::ids::DeviceId, Branches)> {
    let device = find::device(client, device)?;
    let mut branches: BTreeMap<_, (u64, Text<64>)> = BTreeMap::new();
    for kept in app.branches.iter().filter(|kept| kept.device == device.id) {
        let cut = cut(kept.branch.name.as_str());
        let newest = branches.entry(kept.branch.volume).or_insert((cut, kept.branch.name.clone()));
        if cut > newest.0 {
            *newest = (cut, kept.branch.name.clone());
        }
    }
    if branches.is_empty() {
        return Err(Failure::new(
            Kind::NotFound,
            format!("\"{}\" kept no branch of \"{}\"", device.name, app.name),
        )
        .hint(format!("`comb app show {}` lists what was kept", app.name)));
    }
    Ok((device.id, branches.into_iter().map(|(volume, (_, name))| (volume, name)).collect()))
}

/// The number of a branch's cut: `cut-<seq>-e<epoch>`.
fn cut(name: &str) -> u64 {
    name.split('-').nth(1).and_then(|seq| seq.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_as_new_as_its_cut() {
        assert_eq!((cut("cut-42-e3"), cut("cut-7-e9"), cut("else")), (42, 7, 0));
    }
}
