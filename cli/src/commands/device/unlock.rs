//! `comb device unlock`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use fs_crypto::Ring;
use orchestrator_device::daemon::socket::Ask;

use super::status;
use crate::failure::{Failure, Kind, Result};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{output, ring};

/// Give the device of this machine the key ring's passphrase, so that it starts apps
///
/// The passphrase opens the key ring here, and is kept nowhere: what is kept is the ring's key, for this machine alone.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Opens the account's ring on this machine.
pub fn run(state: &State, args: &UnlockArgs) -> Result<()> {
    let answer = status::of(state, &Ask::Ring)?;
    let object = answer["ring"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let object = object.ok_or_else(|| {
        Failure::new(Kind::NotFound, "the account has no key ring yet")
            .hint("`comb key ring init` makes one; the device hands it to the hive")
    })?;
    let ring = args.passphrase.open("the key ring", |typed| Ring::open_with_passphrase(&object, typed))?;
    ring::adopt(state, ring, &object)?;
    status::of(state, &Ask::Unlocked)?;
    output::line("the device is unlocked")
}
