//! `comb volume open`.

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::state::{Config, State};
use crate::stores::{self, StoreConfig};
use crate::{elsewhere, keys, output, progress, takeover};

/// Open a volume from a store, at once: what is read is fetched when it is read
///
/// Whoever wrote it before can write it no more: what they have not sent becomes a branch there. With --read-only they go
/// on, and this machine only looks.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// What to call it here
    name: VolumeName,

    /// The volume key, as `comb volume key` writes it
    #[arg(long, value_name = "F")]
    key_file: PathBuf,

    /// Where it is
    #[arg(long, value_name = "URL", value_parser = stores::parse_url)]
    store: fs_store::Url,

    /// Only read: whoever writes the volume goes on
    #[arg(long)]
    read_only: bool,

    /// Fetch everything before this command ends
    #[arg(long)]
    wait: bool,
}

/// Opens a volume from a store.
pub fn run(state: &State, args: &OpenArgs) -> Result<()> {
    let key = keys::import(&args.key_file)?;
    open(state, &args.name, &key, &args.store.to_string(), args.read_only)?;
    if args.wait {
        fill(state, &args.name)?;
    }
    let (name, how) = (&args.name, if args.read_only { " read-only" } else { "" });
    output::line(&format!("volume \"{name}\" is open{how}: `comb mount {name} DIR` shows it"))
}

/// Sets up a volume whose data are in a store.
pub fn open(
    state: &State,
    name: &VolumeName,
    key: &fs_crypto::VolumeKey,
    url: &str,
    read_only: bool,
) -> Result<()> {
    let id = key.id();
    let device = keys::device(state)?;
    let bar = progress::waiting("asking the store");
    let (store, store_id) = stores::block_on(async {
        let store = stores::open(url).await?;
        let found =
            stores::remote(&store, id).id().await.map_err(|error| stores::replication_failure(&error))?;
        let found = found.ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("{url} does not know volume {id}"))
                .hint("is it the right URL, and the right key?")
        })?;
        Ok((store, found))
    })?;
    let config = Config {
        stores: vec![StoreConfig {
            name: StoreConfig::free_name(url, &[]),
            url: url.to_owned(),
            id: StoreConfig::id_text(store_id),
            arbiter: true,
        }],
        from_store: true,
        follows: read_only,
        ..Config::new(name)
    };
    let opened = state.add(&config, name, id, |folder| {
        keys::store(folder, key)?;
        let env = takeover::begin(folder, &elsewhere::far(&store, id, folder)?)?;
        if !read_only {
            takeover::take(&store, folder, env, key, &device)?;
        }
        Ok(())
    });
    bar.finish_and_clear();
    opened.map(drop)
}

/// Fetches everything that is not here.
fn fill(state: &State, name: &VolumeName) -> Result<()> {
    let volume = state.volume(name)?;
    let bar = progress::waiting("fetching everything");
    let filled = elsewhere::fill(&volume)?;
    bar.finish_and_clear();
    match filled.missing.as_slice() {
        [] => {
            output::note(&format!("{} packs, {} fetched", filled.packs, output::size(filled.bytes)));
            Ok(())
        }
        [first, ..] => Err(Failure::new(
            Kind::Damaged,
            format!("{} packs cannot be had from the store; the first: {first}", filled.missing.len()),
        )
        .hint(format!("`comb check {name}` names what is lost with them"))),
    }
}
