//! `comb account passphrase` and `comb account kit`: the commands of the key ring, whose new version then goes to the hive too.

use clap::Args;

use crate::commands::key::ring::{kit as ring_kit, passphrase as ring_passphrase};
use crate::failure::Result;
use crate::hive::{HiveArgs, ring};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{output, ring as local};

/// Set another passphrase for the account's key ring, here and at the hive
///
/// As `comb key ring passphrase` does, whose options it takes; other devices ask for the new one only with --new-key.
#[derive(Debug, Args)]
pub struct AccountPassphraseArgs {
    #[command(flatten)]
    hive: HiveArgs,

    #[command(flatten)]
    ring: ring_passphrase::PassphraseCommandArgs,
}

/// Make a recovery kit of the account's key ring to print, and bring the ring to the hive
///
/// As `comb key ring kit` does, whose options it takes.
#[derive(Debug, Args)]
pub struct AccountKitArgs {
    #[command(flatten)]
    hive: HiveArgs,

    #[command(flatten)]
    ring: ring_kit::KitArgs,
}

/// Sets the passphrase.
pub fn passphrase(state: &State, args: &AccountPassphraseArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    // With what other devices put in, so that they are not asked to unite two rings of two passphrases.
    drop(ring::open(state, &client, args.ring.opening())?);
    ring_passphrase::run(state, &args.ring)?;
    published(state, &client)
}

/// Makes a kit.
pub fn kit(state: &State, args: &AccountKitArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    drop(ring::open(state, &client, args.ring.opening())?);
    ring_kit::run(state, &args.ring)?;
    published(state, &client)
}

fn published(state: &State, client: &crate::hive::Client) -> Result<()> {
    let mut opened = local::open(state, &PassphraseArgs::default())?;
    ring::sync(&mut opened, client)?;
    output::note(&format!("{} has version {} of the key ring", client.hive(), opened.ring.number()));
    Ok(())
}
