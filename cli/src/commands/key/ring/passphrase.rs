//! `comb key ring passphrase`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Result;
use crate::passphrase::{self, PassphraseArgs};
use crate::state::State;
use crate::{keys, output, ring, ring_store};

/// Set another passphrase
///
/// This machine opens the key ring by itself, so it does not ask for the old passphrase: it can also help who
/// forgot it. Copies of the key ring that were made before still open with the old passphrase, and the hive and the
/// stores keep all older versions, also with --new-key. Somebody who may
/// know it and have such a copy can open later ones too, unless there is a new ring key (--new-key), and keeps the
/// keys that were in it: those volumes need new keys, that is, new volumes.
#[derive(Debug, Args)]
pub struct PassphraseCommandArgs {
    /// Take the new passphrase from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    new_passphrase_file: Option<PathBuf>,

    /// Make a new ring key too, so that what is added later stays closed to a lost device, the old passphrase and kit
    ///
    /// Your other devices ask for the new passphrase once. Print a new recovery kit afterwards.
    #[arg(long)]
    new_key: bool,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

impl PassphraseCommandArgs {
    /// How the ring is opened.
    pub fn opening(&self) -> &PassphraseArgs {
        &self.passphrase
    }
}

/// Sets the passphrase.
pub fn run(state: &State, args: &PassphraseCommandArgs) -> Result<()> {
    // Asked while the ring is closed, since nobody should wait for its lock meanwhile.
    drop(ring::open(state, &args.passphrase)?);
    let new = passphrase::make(args.new_passphrase_file.as_deref())?;
    let mut opened = ring::open(state, &args.passphrase)?;
    let had_kit = opened.ring.kit_time().is_some();
    if args.new_key {
        opened.renew_key(&new)?;
    } else {
        let set = opened.ring.set_passphrase(&new, ring::now(), &*keys::random()?);
        set.map_err(|error| ring::failure("the key ring", &error))?;
    }
    opened.save()?;
    ring_store::publish(state, &mut opened);
    output::note("the key ring has a new passphrase; copies from before still open with the old one");
    if !args.new_key {
        output::note("if somebody else may know the old one, add --new-key");
    }
    if args.new_key && had_kit {
        output::note("the recovery kit no longer opens it: `comb key ring kit --out FILE` makes a new one");
    }
    Ok(())
}

/// Gives the ring a new key, and a passphrase that nobody else knows.
pub fn renew(state: &State, passphrase: &PassphraseArgs, new: &fs_crypto::Passphrase) -> Result<()> {
    let mut opened = ring::open(state, passphrase)?;
    let had_kit = opened.ring.kit_time().is_some();
    opened.renew_key(new)?;
    opened.save()?;
    if had_kit {
        output::note("the recovery kit no longer opens it: `comb account kit --out FILE` makes a new one");
    }
    Ok(())
}
