//! `comb store set`.

use clap::Args;

use crate::cost::Prices;
use crate::failure::{Failure, Kind, Result};
use crate::name::{VolumeName, parse_size};
use crate::output;
use crate::state::State;

/// Change how a store is used; a mounted volume takes it over at once
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["rate", "prices"])))]
pub struct SetArgs {
    /// The volume
    name: VolumeName,

    /// The store; not needed if there is one
    store: Option<VolumeName>,

    /// The most bytes a second that go there, mounted or not, unless `comb mount --rate` says otherwise; 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,

    /// What it costs, as for `comb store add`
    #[arg(long, value_name = "STORAGE,PUT,GET")]
    prices: Option<Prices>,
}

/// Changes the config of a store.
pub fn run(state: &State, args: &SetArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let store = super::choose(&volume, args.store.as_ref().map(VolumeName::as_str))?;
    state.change_config(&volume, |config| {
        let found = config.stores.iter_mut().find(|one| one.name == store.name);
        // Somebody removed it in this moment.
        let found =
            found.ok_or_else(|| Failure::new(Kind::NotFound, format!("store \"{}\" is gone", store.name)))?;
        if let Some(rate) = args.rate {
            found.rate = Some(rate).filter(|rate| *rate > 0);
        }
        if let Some(prices) = args.prices {
            found.prices = Some(prices.to_string());
        }
        Ok(())
    })?;
    if let Some(rate) = args.rate {
        output::line(&match rate {
            0 => format!("store \"{}\" of \"{}\" gets as much as it takes", store.name, volume.name),
            rate => format!(
                "store \"{}\" of \"{}\" gets at most {}/s",
                store.name,
                volume.name,
                output::size(rate)
            ),
        })?;
    }
    super::reload(&volume)
}
