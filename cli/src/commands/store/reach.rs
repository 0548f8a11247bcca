//! `comb store reach`: whether a store answers and takes the credentials of this process, for whoever has no volume there yet.

use clap::Args;
use fs_store::{Prefix, Store};

use crate::failure::Result;
use crate::stores;

/// See that a store answers
#[derive(Debug, Args)]
pub struct ReachArgs {
    /// Where it is, as for `comb store add`
    url: String,
}

/// Asks it for what it has; nothing is an answer.
pub fn run(args: &ReachArgs) -> Result<()> {
    let url = stores::parse_url(&args.url)?;
    if !stores::holds_rings(&url) {
        // What lies there is found by a volume's own key.
        return Ok(());
    }
    stores::block_on(async {
        let store = stores::open(&url).await?;
        store.list(&Prefix::all(), None, 1).await.map(drop).map_err(|error| stores::failure(&error))
    })
}
