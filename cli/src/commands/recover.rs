//! `comb recover`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fs_crypto::{EntryKey, Ring, RingEntry};
use fs_replication::Rings;

use super::volume::open::How;
use crate::failure::{Context, Result};
use crate::keys::Key;
use crate::passphrase::{self, PassphraseArgs};
use crate::ring::{self, SetUp};
use crate::state::State;
use crate::{engine, output, ring_store, stores};

/// Bring the volumes of a key ring back, with its passphrase or recovery kit
///
/// Each volume of the key ring is opened from the store, at once, and written here from now on; where it was written
/// before it can be written no more. With --ring it is set up with its key only; its data are the folders `manifests`
/// and `packs` and the file `head` of a copy of its folder. This machine keeps the key ring and opens it without a question from
/// then on.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// A copy of the key ring: the file `ring` of another machine's state folder, or an object of a store below `k/`
    #[arg(long, value_name = "F", required_unless_present = "store")]
    ring: Option<PathBuf>,

    /// The store that holds the key ring and the volumes
    #[arg(long, value_name = "URL", conflicts_with = "ring")]
    store: Option<String>,

    /// Only read the volumes: whoever writes them goes on
    #[arg(long, requires = "store")]
    read_only: bool,

    /// Let this store, which is a copy, decide from now on who may write the volumes, because the one that did is lost
    #[arg(long, requires = "store", conflicts_with = "read_only")]
    promote: bool,

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
    let store = args.store.as_deref().map(stores::parse_url).transpose()?;
    store.iter().try_for_each(|url| stores::refuse_own(state, url))?;
    let (ring, object) = match &store {
        Some(url) => from_store(args, url)?,
        None => from_file(args, args.ring.as_deref().unwrap_or(Path::new("")))?,
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
    let mut missed = None;
    let how = How { read_only: args.read_only, promote: args.promote, accept_rollback: false };
    for entry in &entries {
        // Of two that are called alike the newer keeps the name, because it comes first.
        let line = match &store {
            None => set_up(state, entry)?,
            Some(url) => {
                match open(state, entry, url, how) {
                    Ok(line) => line,
                    Err(failure) => {
                        // One that is in another store does not keep the others from coming back.
                        let name = output::escape(entry.name.as_bytes());
                        output::note(&format!("volume \"{name}\" is not recovered: {}", failure.message));
                        missed.get_or_insert(failure);
                        continue;
                    }
                }
            }
        };
        output::line(&line)?;
        output::line(&format!("  public key  {}", entry.volume))?;
    }
    missed.map_or(Ok(()), |failure| {
        // The key ring is here now, and has their keys.
        Err(failure.hint(
            "`comb volume open NAME --store URL` opens one from another store, with its key in the key ring",
        ))
    })
}

/// Opens the key ring in a file.
fn from_file(args: &RecoverArgs, path: &Path) -> Result<(Ring, Vec<u8>)> {
    let object = ring::read_object(path)?;
    let what = path.display().to_string();
    let ring = if args.kit || args.kit_file.is_some() {
        let kit = passphrase::kit(args.kit_file.as_deref())?;
        Ring::open_with_kit(&object, &kit).map_err(|error| ring::failure(&what, &error))?
    } else {
        args.passphrase.open(&what, |typed| Ring::open_with_passphrase(&object, typed))?
    };
    Ok((ring, object))
}

/// Opens the key ring in a store.
fn from_store(args: &RecoverArgs, url: &str) -> Result<(Ring, Vec<u8>)> {
    let rings = stores::block_on(async { Ok(Rings::new(Arc::new(stores::open(url).await?))) })?;
    let (ring, version) = if args.kit || args.kit_file.is_some() {
        let kit = passphrase::kit(args.kit_file.as_deref())?;
        stores::block_on(ring_store::find_by_kit(&rings, &kit))?
    } else {
        let typed = args.passphrase.read(&format!("the key ring in {url}"))?;
        stores::block_on(ring_store::find_by_passphrase(&rings, &typed))?
    };
    Ok((ring, version.object.to_vec()))
}

/// Opens the volume of a key from a store.
fn open(state: &State, entry: &RingEntry, url: &str, how: How) -> Result<String> {
    let volumes = state.volumes()?;
    if let Some(here) = volumes.iter().find(|volume| volume.id == entry.volume) {
        // As it was opened, so it stays: what another device writes is not taken over in passing.
        let may_write = matches!(entry.key, EntryKey::Volume(_)) && !how.read_only;
        let rest = match may_write && engine::is_others(here)? {
            true => format!(", and another device writes it: `comb volume open {}` takes it over", here.name),
            false => String::new(),
        };
        return Ok(format!("volume \"{}\" is here already{rest}", here.name));
    }
    let name = ring::free_name(entry, &volumes);
    let (key, how, only) = match &entry.key {
        EntryKey::Volume(key) => (Key::Volume(key.clone()), how, ""),
        EntryKey::Read(key) => {
            // Whoever gave the key goes on writing.
            let how = How { read_only: true, promote: false, ..how };
            (Key::Read(entry.volume, key.clone()), how, " read-only, with a read key")
        }
    };
    super::volume::open::open(state, &name, &key, url, how)?;
    Ok(format!("volume \"{name}\" is open{only}: `comb mount {name} DIR` shows it"))
}

/// Sets up the volume of a key, without data.
fn set_up(state: &State, entry: &RingEntry) -> Result<String> {
    Ok(match ring::set_up(state, entry, |folder, _| lay_out(folder))? {
        SetUp::Made(volume) => format!("volume \"{}\" is set up", volume.name),
        SetUp::Here(volume) => format!("volume \"{}\" is here already", volume.name),
        SetUp::ReadKey => {
            format!("volume \"{}\" has a read key only", output::escape(entry.name.as_bytes()))
        }
    })
}

/// Makes the engine's folders, so that a copy of the data finds its place.
fn lay_out(folder: &Path) -> Result<()> {
    for part in ["journal", "manifests", "packs"] {
        let path = folder.join(part);
        fs::create_dir(&path).context(path.display())?;
    }
    Ok(())
}
