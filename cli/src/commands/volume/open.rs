//! `comb volume open`.

use std::path::PathBuf;

use clap::Args;
use fs_replication::Link;

use crate::failure::{Context, Failure, Kind, Result};
use crate::name::VolumeName;
use crate::replica::Seen;
use crate::state::{Config, State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{branches, elsewhere, engine, keys, lazy_disk, output, progress, replica, takeover};

/// Open a volume from a store, at once: what is read is fetched when it is read
///
/// Whoever wrote it before can write it no more: what they have not sent becomes a branch there. With --read-only they go
/// on, and this machine only looks. A volume that is here, and that another device has taken over or that was opened
/// read-only, needs its name alone; what only this machine has becomes a branch (`comb branch list`).
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// What to call it here
    name: VolumeName,

    /// The volume key, as `comb volume key` writes it
    #[arg(long, value_name = "F", requires = "store")]
    key_file: Option<PathBuf>,

    /// Where it is
    #[arg(long, value_name = "URL", requires = "key_file")]
    store: Option<String>,

    /// Only read: whoever writes the volume goes on
    #[arg(long)]
    read_only: bool,

    /// Fetch everything before this command ends; a store that is away is waited for
    #[arg(long)]
    wait: bool,

    /// Let this store, which is a copy, decide from now on who may write the volume, because the one that did is lost
    #[arg(long, conflicts_with = "read_only")]
    promote: bool,

    /// Believe what the store shows now, though it showed more before
    #[arg(long, conflicts_with = "store")]
    accept_rollback: bool,
}

/// Opens a volume from a store.
pub fn run(state: &State, args: &OpenArgs) -> Result<()> {
    let how = How { read_only: args.read_only, promote: args.promote };
    let store = args.store.as_deref().map(stores::parse_url).transpose()?;
    match (&args.key_file, store) {
        (Some(key), Some(url)) => open(state, &args.name, &keys::import(key)?, &url, how)?,
        _ => again(state, &args.name, how, args.accept_rollback)?,
    }
    let (name, how) = (&args.name, if args.read_only { " read-only" } else { "" });
    // Whatever becomes of the rest, that much is so.
    output::line(&format!("volume \"{name}\" is open{how}: `comb mount {name} DIR` shows it"))?;
    if args.wait { fill(state, &args.name) } else { Ok(()) }
}

/// How a volume is opened.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Somebody else goes on writing it.
    pub read_only: bool,
    /// The store decides from now on, whatever did before.
    pub promote: bool,
}

/// Sets up a volume whose data are in a store.
pub fn open(state: &State, name: &VolumeName, key: &fs_crypto::VolumeKey, url: &str, how: How) -> Result<()> {
    let id = key.id();
    let device = keys::device(state)?;
    let bar = progress::waiting("asking the store");
    let (store, store_id, newest) = stores::block_on(async {
        let store = stores::open_to_read(url, id).await?;
        if !how.read_only {
            takeover::require_create_if_absent(&store, url)?;
        }
        let remote = stores::remote(&store, id);
        // Nobody waits twice: what is newest is asked for beside which store it is.
        let (found, head) = tokio::join!(remote.id(), remote.head());
        let found = found.map_err(|error| stores::replication_failure(&error))?.ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("{url} does not know volume {id}"))
                .hint("is it the right URL, and the right key?")
        })?;
        Ok((store, found, head.ok().and_then(|head| head.newest)))
    })?;
    let config = Config {
        stores: vec![StoreConfig {
            name: StoreConfig::free_name(url, &[]),
            url: url.to_owned(),
            id: StoreConfig::id_text(store_id),
            arbiter: true,
            prices: None,
            rate: None,
        }],
        from_store: true,
        follows: how.read_only,
        ..Config::new(name)
    };
    let mut cut = None;
    let opened = state.add(&config, name, id, |folder| {
        keys::store(folder, key)?;
        let far = elsewhere::far(&store, id, folder)?;
        let env = match &newest {
            Some(slot) => {
                lazy_disk::prepare_at(folder, &far, slot.seq, &slot.bytes).context(folder.display())?
            }
            // It is asked for once more, with patience, and what is wrong is told.
            None => takeover::begin(folder, &far)?,
        };
        if !how.read_only {
            if !how.promote {
                takeover::require_arbiter(&env, key, store_id, url)?;
            }
            cut = Some(takeover::take(&store, folder, env, key, &device)?.slot.link());
        }
        Ok(())
    });
    bar.finish_and_clear();
    let opened = opened?;
    note_newest(&opened, &config.stores[0], cut.or(newest.map(|slot| slot.link())))
}

/// Writes down what was seen in a store: its newest seal, or the first of a takeover, which is in the store that it was won in.
fn note_newest(volume: &VolumeFolder, store: &StoreConfig, newest: Option<Link>) -> Result<()> {
    newest.map_or(Ok(()), |newest| Seen::of(&newest).write(volume, &store.name))
}

/// Goes on with a volume that is here and that somebody else writes.
pub fn again(state: &State, name: &VolumeName, how: How, accept_rollback: bool) -> Result<()> {
    let volume = state.volume(name).map_err(|failure| match failure.kind {
        Kind::NotFound => failure.hint("one that is only in a store needs --key-file and --store"),
        _ => failure,
    })?;
    let config = volume.config()?;
    if volume.name.branch().is_some() || !engine::is_others(&volume)? {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("volume \"{}\" is written on this machine", volume.name),
        )
        .hint("if another device has taken it over, `comb sync` finds that out"));
    }
    let store = config.stores.iter().find(|store| store.arbiter).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{}\" has no store to be opened from", volume.name))
    })?;
    let lock = volume.lock()?;
    let bar = progress::waiting("asking the store");
    if accept_rollback {
        Seen::forget(&volume, &store.name)?;
    }
    let (opened, newest) = elsewhere::recognised(&volume, store)?;
    if !how.read_only {
        takeover::require_create_if_absent(&opened, &store.url)?;
    }
    if let Some(branch) = branches::split_off(state, &volume, newest, &lock)? {
        output::note(&format!("what only this machine has is branch \"{}/{branch}\" now", volume.name));
    }
    let env = takeover::begin(&volume.path, &elsewhere::far(&opened, volume.id, &volume.path)?)?;
    if !how.read_only {
        let key = keys::load(&volume)?;
        if !how.promote {
            takeover::require_arbiter(&env, &key, store.store_id()?, &store.url)?;
        }
        let cut = takeover::take(&opened, &volume.path, env, &key, &keys::device(state)?)?;
        note_newest(&volume, store, Some(cut.slot.link()))?;
    }
    state.change_config(&volume, |config| {
        (config.from_store, config.follows) = (true, how.read_only);
        Ok(())
    })?;
    replica::forget_end(&volume)?;
    bar.finish_and_clear();
    Ok(())
}

/// Fetches everything that is not here.
fn fill(state: &State, name: &VolumeName) -> Result<()> {
    let volume = state.volume(name)?;
    let bar = progress::waiting("fetching everything");
    let filled = elsewhere::fill(&volume, &bar).map_err(|failure| match failure.kind {
        Kind::NoSpace => failure.hint(format!(
            "the rest is read from the store when it is asked for; make room, and `comb mount {name}` fetches it in the background"
        )),
        _ => failure,
    })?;
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
