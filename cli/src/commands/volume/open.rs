//! `comb volume open`.

use std::path::PathBuf;

use clap::Args;
use fs_format::Seq;
use fs_replication::{Link, Slot};

use crate::elsewhere::Recognised;
use crate::failure::{Context, Failure, Kind, Result};
use crate::keys::Key;
use crate::name::VolumeName;
use crate::replica::Seen;
use crate::state::{Config, State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{branches, elsewhere, engine, keys, lazy_disk, output, progress, replica, takeover};

/// Open a volume from a store, at once: what is read is fetched when it is read
///
/// Whoever wrote it before can write it no more: what they have not sent becomes a branch there. With --read-only they go
/// on, and this machine only looks: commands and a mount show what was sent there since, some seconds after it was. So it
/// does with a read key. A volume that is here, and that another device has taken over or that was opened
/// read-only, needs its name alone; what only this machine has becomes a branch (`comb branch list`).
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// What to call it here
    name: VolumeName,

    /// The volume key, as `comb volume key` writes it; or a read key, as `comb key share --read` does, which only reads
    #[arg(long, value_name = "F", requires = "store")]
    key_file: Option<PathBuf>,

    /// Where it is
    #[arg(long, value_name = "URL", requires = "key_file")]
    store: Option<String>,

    /// Only read: whoever writes the volume goes on
    #[arg(long)]
    read_only: bool,

    /// Fetch everything before this command ends
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
    let mut how = How { read_only: args.read_only, promote: args.promote };
    let store = args.store.as_deref().map(stores::parse_url).transpose()?;
    match (&args.key_file, store) {
        (Some(path), Some(url)) => {
            let key = keys::import_any(path)?;
            how.read_only |= may_only_read(&args.name, &key, how)?;
            open(state, &args.name, &key, &url, how)?;
        }
        _ => again(state, &args.name, how, args.accept_rollback)?,
    }
    if args.wait {
        fill(state, &args.name)?;
    }
    let (name, how) = (&args.name, if how.read_only { " read-only" } else { "" });
    output::line(&format!("volume \"{name}\" is open{how}: `comb mount {name} DIR` shows it"))
}

/// Whether a key cannot write, which is said where nobody said so himself.
fn may_only_read(name: &VolumeName, key: &Key, how: How) -> Result<bool> {
    if key.signing().is_some() {
        return Ok(false);
    }
    if how.promote {
        return Err(Failure::new(
            Kind::NotPermitted,
            "this is a read key: it cannot say which store decides who may write the volume",
        )
        .hint("that takes the volume key, as `comb volume key` writes it"));
    }
    if !how.read_only {
        output::note(&format!(
            "this is a read key: volume \"{name}\" is opened to be read, and follows who writes it"
        ));
    }
    Ok(true)
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
pub fn open(state: &State, name: &VolumeName, key: &Key, url: &str, how: How) -> Result<()> {
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
        }],
        from_store: true,
        follows: how.read_only,
        ..Config::new(name)
    };
    let mut seen = newest.as_ref().map(Slot::link);
    let opened = state.add(&config, name, id, |folder| {
        keys::store_any(folder, key)?;
        let far = elsewhere::far(&store, id, folder)?;
        let env = match &newest {
            Some(slot) => {
                lazy_disk::prepare_at(folder, &far, slot.seq, &slot.bytes).context(folder.display())?
            }
            // It is asked for once more, with patience, and what is wrong is told.
            None => {
                let (env, link) = takeover::begin(folder, &far)?;
                seen = Some(link);
                env
            }
        };
        if !how.read_only {
            let key =
                key.signing().ok_or_else(|| Failure::new(Kind::NotPermitted, "a read key cannot write"))?;
            if !how.promote {
                takeover::require_arbiter(&env, key, store_id, url)?;
            }
            seen = Some(takeover::take(&store, folder, env, key, &device)?.slot.link());
        }
        Ok(())
    });
    bar.finish_and_clear();
    note_seen(&opened?, &config.stores[0], seen)
}

/// Writes down what was seen in the store, so that it is noticed if it forgets that; the first seal of a takeover is in the
/// store that it was won in.
fn note_seen(volume: &VolumeFolder, store: &StoreConfig, seen: Option<Link>) -> Result<()> {
    seen.map_or(Ok(()), |seen| Seen::of(&seen).write(volume, &store.name))
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
    if !how.read_only {
        // Before anything is asked of the store: a read key takes nothing over.
        keys::load(&volume)?;
    }
    let Recognised { store: opened, newest, .. } = elsewhere::recognised(&volume, store)?;
    let newest = newest.map_or(Seq(0), |newest| newest.seq);
    if !how.read_only {
        takeover::require_create_if_absent(&opened, &store.url)?;
    }
    if let Some(branch) = branches::split_off(state, &volume, newest, &lock)? {
        output::note(&format!("what only this machine has is branch \"{}/{branch}\" now", volume.name));
    }
    let (env, begun) = takeover::begin(&volume.path, &elsewhere::far(&opened, volume.id, &volume.path)?)?;
    if accept_rollback && !replica::is_fenced(&volume) {
        // All that a volume has here that only looked came from the store, and comes again.
        elsewhere::forget_manifests(&volume, Seq(0), begun.seq)?;
    }
    if !how.read_only {
        let key = keys::load(&volume)?;
        if !how.promote {
            takeover::require_arbiter(&env, &key, store.store_id()?, &store.url)?;
        }
        let cut = takeover::take(&opened, &volume.path, env, &key, &keys::device(state)?)?;
        note_seen(&volume, store, Some(cut.slot.link()))?;
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
