//! `comb device revoke`.

use clap::Args;
use orchestrator_api::wire::device::{Device, Revoke};

use crate::commands::key::ring::passphrase as ring_passphrase;
use crate::failure::{Failure, Kind, Result};
use crate::hive::orders::OrderArgs;
use crate::hive::{Client, find, ring};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{ask, output, passphrase, ring as local};

/// Let a device in no more: lost, stolen or sold
///
/// The hive refuses it, its apps are moved with force, so that the epochs of their volumes rise, and the key ring gets a
/// new key, so that keys that are added later are not the thief's. What the device could read stays read, and it knows the
/// keys of the volumes that there are: new keys for old data mean new volumes.
///
/// The stores take its credentials until you withdraw them there, and give the others new ones (`comb account store add
/// --credentials-file`). Then `comb device revoke NAME --stores-closed` says so.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The device
    name: String,

    /// Say that no store takes the device's credentials any more
    #[arg(long)]
    stores_closed: bool,

    /// Do it without asking
    #[arg(long)]
    yes: bool,

    /// Leave the key ring's key as it is: the device keeps opening later versions
    #[arg(long)]
    keep_ring_key: bool,

    /// Take the new passphrase of the key ring from this file, which only you may read, instead of asking
    #[arg(long, value_name = "F")]
    new_passphrase_file: Option<std::path::PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Revokes a device.
pub fn run(state: &State, args: &RevokeArgs) -> Result<()> {
    let client = args.order.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    let path = format!("/v1/devices/{}/revoke", device.id);
    if args.stores_closed {
        let ordered = client.post(&path, &Revoke { stores_closed: true })?;
        args.order.finish(&client, ordered, &format!("closing stores to \"{}\"", device.name))?;
        return Ok(());
    }
    agree(args, &device)?;
    // First the hive, which is quick, and shuts it out of apps; then what this machine can do.
    let ordered = client.post(&path, &Revoke { stores_closed: false })?;
    let moved = args.order.finish(&client, ordered, &format!("revoking \"{}\"", device.name));
    let renewed = renew(state, &client, args);
    output::note(&format!(
        "what \"{0}\" could read stays read, and it knows the keys of the volumes that there are: new keys for old data mean new \
         volumes, `comb app eject` and `comb app add`. Withdraw its credentials at each store now, give the other devices new \
         ones with `comb account store add URL --credentials-file F`, and then `comb device revoke {0} --stores-closed`",
        device.name
    ));
    let stores = find::stores(&client);
    for store in stores.iter().flatten().filter(|store| !store.is_of_one_device()) {
        output::note(&format!("a store that takes its credentials: {}", store.url));
    }
    renewed?;
    stores?;
    moved.map(drop)
}

fn agree(args: &RevokeArgs, device: &Device) -> Result<()> {
    if args.yes {
        return Ok(());
    }
    let question =
        format!("\"{}\" with {} apps is let in no more. Revoke it?", device.name, device.apps.len());
    if ask::is_possible() && ask::confirm(&question)? {
        return Ok(());
    }
    Err(Failure::new(Kind::Usage, format!("\"{}\" was not revoked", device.name))
        .hint("to be let in again it joins anew; --yes does it without asking"))
}

/// A new key of the ring, so that what is added later is not the thief's.
fn renew(state: &State, client: &Client, args: &RevokeArgs) -> Result<()> {
    if args.keep_ring_key {
        return Ok(());
    }
    if !local::exists(state) {
        output::note(
            "the key ring is not on this machine: `comb account passphrase --new-key` gives it a new key, on one that has it",
        );
        return Ok(());
    }
    drop(ring::open(state, client, &args.passphrase)?);
    output::note("the key ring gets a new key, and a passphrase that the lost device never knew");
    let new = passphrase::make(args.new_passphrase_file.as_deref())?;
    ring_passphrase::renew(state, &args.passphrase, &new)?;
    let mut opened = local::open(state, &args.passphrase)?;
    ring::publish(state, &mut opened, client)?;
    output::note("other devices ask for the new passphrase: `comb device unlock` there");
    Ok(())
}
