//! `comb key ring publish`.

use clap::Args;

use crate::failure::{Failure, Kind, Result};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{output, ring, ring_store};

/// Bring the key ring to the stores of all volumes
///
/// Every command that changes the key ring does so; this is for a store that could not be reached then. Keys that other
/// devices have put into the ring there come here.
#[derive(Debug, Args)]
pub struct PublishArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Publishes.
pub fn run(state: &State, args: &PublishArgs) -> Result<()> {
    let urls = ring_store::urls(state);
    if urls.is_empty() {
        return Err(Failure::new(Kind::NotFound, "no volume of this machine has a store")
            .hint("`comb store add` gives a volume one, and brings the key ring there"));
    }
    let mut opened = ring::open(state, &args.passphrase)?;
    for url in urls {
        ring_store::publish_to(&mut opened, &url)?;
        output::line(&format!("{url} has version {} of the key ring", opened.ring.number()))?;
    }
    Ok(())
}
