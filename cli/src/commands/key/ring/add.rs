//! `comb key ring add`.

use std::path::PathBuf;

use clap::Args;
use fs_crypto::EntryKey;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{keys, output, ring, ring_store};

/// Put a key into the key ring: of a volume that is here, or from a file
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The volume; with a file, what its volume is called
    name: VolumeName,

    /// Take the volume key from this file, as `comb volume key` writes it
    #[arg(long, value_name = "F", conflicts_with = "read_key_file")]
    key_file: Option<PathBuf>,

    /// Take the read key from this file, as `comb key share --read` writes it
    #[arg(long, value_name = "F")]
    read_key_file: Option<PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Adds a key.
pub fn run(state: &State, args: &AddArgs) -> Result<()> {
    let (volume, key) = match (&args.key_file, &args.read_key_file) {
        (Some(path), _) => {
            let key = keys::import(path)?;
            (key.id(), EntryKey::Volume(key))
        }
        (None, Some(path)) => {
            let (volume, key) = keys::import_read_key(path)?;
            (volume, EntryKey::Read(key))
        }
        (None, None) => {
            let volume = state.volume(&args.name)?;
            (volume.id, keys::load_any(&volume)?.entry())
        }
    };
    let mut opened = ring::open(state, &args.passphrase)?;
    let reads_only = matches!(key, EntryKey::Read(_));
    if !opened.add(volume, key, &args.name)? {
        let held = opened.ring.entry(&volume).map(|entry| &entry.key);
        if reads_only && matches!(held, Some(EntryKey::Volume(_))) {
            return Err(Failure::new(
                Kind::InTheWay,
                format!("the key ring has the volume key of {volume}, which allows more than a read key"),
            ));
        }
        output::note(&format!("the key of \"{}\" is in the key ring already", args.name));
        return Ok(());
    }
    opened.save()?;
    ring_store::publish(state, &mut opened);
    output::note(&format!("the key of \"{}\" is in the key ring", args.name));
    Ok(())
}
