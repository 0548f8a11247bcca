//! `comb store list`.

use clap::Args;

use crate::failure::Result;
use crate::name::VolumeName;
use crate::output::{self, Align, Table};
use crate::state::State;

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
    let stores = state.volume(&args.name)?.config()?.stores;
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
