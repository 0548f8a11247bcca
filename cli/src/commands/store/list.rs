//! `comb store list`.

use clap::Args;
use fs_replication::StoreId;

use crate::engine;
use crate::failure::Result;
use crate::name::VolumeName;
use crate::output::{self, Align, Table};
use crate::state::State;
use crate::stores::StoreConfig;

/// List the stores of a volume
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists stores.
pub fn run(state: &State, args: &ListArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let mut config = volume.config()?;
    if config.follows {
        // What a volume is read from need not be what decides who writes it, which only the volume itself says.
        let arbiter = engine::history_here(&volume).ok().and_then(|history| history.arbiter().ok().flatten());
        for store in &mut config.stores {
            store.arbiter =
                arbiter.is_none_or(|arbiter| store.id == StoreConfig::id_text(StoreId(arbiter.0)));
        }
    }
    let stores = config.stores;
    if args.json {
        return output::json(&stores);
    }
    let mut table = Table::new(&[
        ("STORE", Align::Left),
        ("ROLE", Align::Left),
        ("AT MOST", Align::Right),
        ("URL", Align::Left),
    ]);
    for store in stores {
        let role = if store.arbiter { "decides who writes" } else { "copy" };
        let rate = store.rate.map_or_else(|| "-".into(), |rate| format!("{}/s", output::size(rate)));
        table.row(vec![store.name, role.into(), rate, store.url]);
    }
    table.print()
}
