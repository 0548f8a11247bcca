//! `comb key ring init`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::state::State;
use crate::{keys, output, passphrase, ring, ring_store};

/// Make a key ring with the keys of all volumes that are here
///
/// Asks for a new passphrase, twice. Choose one that nobody can guess, also not with years of trying: six random
/// words, for example. Nobody can reset it.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Take the new passphrase from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    passphrase_file: Option<PathBuf>,
}

/// Makes the ring.
pub fn run(state: &State, args: &InitArgs) -> Result<()> {
    let mut opened = ring::make(state, || passphrase::make(args.passphrase_file.as_deref()))?;
    for volume in state.volumes()? {
        // One damaged key does not keep the others out.
        match keys::load_any(&volume) {
            Ok(key) => _ = opened.add(volume.id, key.entry(), &volume.name)?,
            Err(failure) => output::note(&format!(
                "warning: the key of \"{}\" is not in the key ring: {}",
                volume.name, failure.message
            )),
        }
    }
    opened.save()?;
    ring_store::publish(state, &mut opened);
    output::line("the key ring is made")?;
    output::line(&format!("  account  {}", opened.ring.account()))?;
    output::line(&format!("  keys     {}", opened.ring.entries().count()))?;
    output::note(
        "If you forget the passphrase, only a recovery kit opens the key ring. `comb key ring kit --out FILE` makes one to print.",
    );
    Ok(())
}
