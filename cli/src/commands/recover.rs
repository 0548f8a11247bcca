//! `comb recover`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use fs_crypto::Ring;

use crate::failure::{Context, Result};
use crate::output;
use crate::passphrase::{self, PassphraseArgs};
use crate::ring::{self, SetUp};
use crate::state::State;

/// Bring the volumes of a key ring back, with its passphrase or recovery kit
///
/// Sets up each volume of the key ring on this machine, with its key; its data are the folders `manifests` and
/// `packs` and the file `head` of a copy of its folder. This machine keeps the key ring and opens it without a
/// question from then on.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// A copy of the key ring: the file `ring` of another machine's state folder, or an object of a store below `k/`
    #[arg(long, value_name = "F", required = true)]
    ring: PathBuf,

    /// Open it with the recovery kit and ask for its letters
    #[arg(long, conflicts_with_all = ["kit_file", "passphrase_file"])]
    kit: bool,

    /// Open it with the recovery kit in this file, which only you may read
    #[arg(long, value_name = "F", conflicts_with = "passphrase_file")]
    kit_file: Option<PathBuf>,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Recovers.
pub fn run(state: &State, args: &RecoverArgs) -> Result<()> {
    let object = ring::read_object(&args.ring)?;
    let what = args.ring.display().to_string();
    let ring = if args.kit || args.kit_file.is_some() {
        let kit = passphrase::kit(args.kit_file.as_deref())?;
        Ring::open_with_kit(&object, &kit).map_err(|error| ring::failure(&what, &error))?
    } else {
        args.passphrase.open(&what, |typed| Ring::open_with_passphrase(&object, typed))?
    };
    output::note(&format!(
        "the key ring is version {} of {}; volumes that were made later are not in it",
        ring.number(),
        output::time_local(ring.time().0)
    ));
    // The keys first: should a volume fail, it is done again from the ring that is here then.
    let mut entries: Vec<_> = ring.entries().cloned().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.added));
    ring::adopt(state, ring, &object)?;
    for entry in &entries {
        // Of two that are called alike the newer keeps the name, because it comes first.
        let line = match ring::set_up(state, entry, |folder, _| lay_out(folder))? {
            SetUp::Made(volume) => format!("volume \"{}\" is set up", volume.name),
            SetUp::Here(volume) => format!("volume \"{}\" is here already", volume.name),
            SetUp::ReadKey => {
                format!("volume \"{}\" has a read key only", output::escape(entry.name.as_bytes()))
            }
        };
        output::line(&line)?;
        output::line(&format!("  public key  {}", entry.volume))?;
    }
    Ok(())
}

/// Makes the engine's folders, so that a copy of the data finds its place.
fn lay_out(folder: &Path) -> Result<()> {
    for part in ["journal", "manifests", "packs"] {
        let path = folder.join(part);
        fs::create_dir(&path).context(path.display())?;
    }
    Ok(())
}
