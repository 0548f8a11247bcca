//! `comb volume open`.

use std::path::PathBuf;

use clap::Args;
use fs_crypto::EntryKey;
use fs_format::{Seq, VolumeId};
use fs_replication::{Link, Remote, Slot, StoreId};

use crate::elsewhere::Recognised;
use crate::failure::{Context, Failure, Kind, Result};
use crate::keys::Key;
use crate::name::VolumeName;
use crate::notes::Seen;
use crate::state::{Config, State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{branches, elsewhere, engine, filling, keys, lazy_disk, notes, output, progress, ring, takeover};

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

    /// The volume key, as `comb volume key` writes it; or a read key, as `comb key share --read` does, which only reads. Not needed
    /// if the key ring of this machine has it
    #[arg(long, value_name = "F", requires = "store")]
    key_file: Option<PathBuf>,

    /// Where it is; alone for a volume that is here, that another device writes, and that has no store any more
    #[arg(long, value_name = "URL")]
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

    /// Believe what the store shows now, though it showed more before; or, where its newest seal is damaged, open it read-only at
    /// the newest that is whole
    #[arg(long)]
    accept_rollback: bool,
}

/// Opens a volume from a store.
pub fn run(state: &State, args: &OpenArgs) -> Result<()> {
    let mut how =
        How { read_only: args.read_only, promote: args.promote, accept_rollback: args.accept_rollback };
    let store = args.store.as_deref().map(stores::parse_url).transpose()?;
    match (&args.key_file, store) {
        (Some(path), Some(url)) => {
            let key = keys::import_any(path)?;
            how.read_only |= may_only_read(&args.name, &key, how)?;
            open(state, &args.name, &key, &url, how)?;
        }
        (None, Some(url)) => match from_ring(state, &args.name)? {
            Some(key) => {
                how.read_only |= may_only_read(&args.name, &key, how)?;
                open(state, &args.name, &key, &url, how)?;
            }
            None => {
                attach_again(state, &args.name, &url)?;
                again(state, &args.name, how)?;
            }
        },
        _ => again(state, &args.name, how)?,
    }
    let (name, read_only) = (&args.name, if how.read_only { " read-only" } else { "" });
    // Whatever becomes of the rest, that much is so.
    output::line(&format!("volume \"{name}\" is open{read_only}: `comb mount {name} DIR` shows it"))?;
    if args.wait { fill(state, &args.name) } else { Ok(()) }
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
    /// What the store shows is believed, also where it showed more before or is damaged.
    pub accept_rollback: bool,
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
        let found = found?.ok_or_else(|| does_not_know(url, id))?;
        let newest = match head {
            Ok(head) => head.newest,
            Err(fs_replication::Error::Damaged { object, why }) if how.read_only && how.accept_rollback => {
                output::note(&format!("warning: {object} in the store is damaged: {why}"));
                newest_whole(&remote).await?
            }
            // It is asked for once more, with patience, and what is wrong is told.
            Err(_) => None,
        };
        Ok((store, found, newest))
    })?;
    let config = Config {
        stores: vec![store_config(url, store_id)],
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

/// The newest seal of which the slot is whole.
async fn newest_whole(remote: &Remote) -> Result<Option<Slot>> {
    const PAGE: usize = 100;
    let mut below = None;
    loop {
        let page = remote.slots(below, PAGE).await?;
        for &seq in &page {
            match remote.slot(seq).await {
                Ok(slot) => {
                    output::note(&format!("warning: the newest seal that is whole in the store is {seq}"));
                    return Ok(Some(slot));
                }
                Err(fs_replication::Error::Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match page.last() {
            Some(&last) if page.len() == PAGE => below = Some(last),
            _ => return Ok(None),
        }
    }
}

/// Writes down what was seen in the store, so that it is noticed if it forgets that; the first seal of a takeover is in the
/// store that it was won in.
fn note_seen(volume: &VolumeFolder, store: &StoreConfig, seen: Option<Link>) -> Result<()> {
    seen.map_or(Ok(()), |seen| Seen::of(&seen).write(volume, &store.name))
}

/// Goes on with a volume that is here and that somebody else writes.
pub fn again(state: &State, name: &VolumeName, how: How) -> Result<()> {
    let volume = state.volume(name).map_err(|failure| match failure.kind {
        Kind::NotFound => failure.hint("one that is only in a store needs --key-file and --store"),
        _ => failure,
    })?;
    let config = volume.config()?;
    refuse_own(&volume)?;
    let store = config.stores.iter().find(|store| store.arbiter).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{}\" has no store to be opened from", volume.name)).hint(
            format!(
                "`comb volume open {0} --store URL` opens it from one, with --read-only to look only; `comb fork {0}@head NEW` makes \
                 a volume of your own of what is here",
                volume.name
            ),
        )
    })?;
    let lock = volume.lock()?;
    let bar = progress::waiting("asking the store");
    if how.accept_rollback {
        Seen::forget(&volume, &store.name)?;
    }
    if !how.read_only {
        // Before anything is asked of the store: a read key takes nothing over.
        keys::load(&volume)?;
    }
    let Recognised { store: opened, newest, cut } = elsewhere::recognised(&volume, store)?;
    if let (Err(failure), Some(newest)) = (notes::ended(&volume), &newest) {
        output::note(&format!("warning: {}", failure.message));
        notes::note_end(&volume, &elsewhere::find_end(&volume, &opened, newest)?)?;
    }
    let newest = newest.map_or(Seq(0), |newest| newest.seq);
    if !how.read_only {
        takeover::require_create_if_absent(&opened, &store.url)?;
    }
    if let Some(branch) = branches::split_off(state, &volume, newest, &lock)? {
        output::note(&format!("what only this machine has is branch \"{}/{branch}\" now", volume.name));
    }
    let (env, begun) = takeover::begin(&volume.path, &elsewhere::far(&opened, volume.id, &volume.path)?)?;
    // All that a volume has here that only looked came from the store, and comes again.
    let outdated = if how.accept_rollback { Some(Seq(0)) } else { cut };
    if let Some(from) = outdated.filter(|_| !notes::is_fenced(&volume)) {
        elsewhere::forget_manifests(&volume, from, begun.seq)?;
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
    notes::forget_end(&volume)?;
    bar.finish_and_clear();
    Ok(())
}

/// The key of a volume that is not here, if this machine's key ring has it under this name.
fn from_ring(state: &State, name: &VolumeName) -> Result<Option<Key>> {
    let volumes = state.volumes()?;
    if volumes.iter().any(|volume| volume.name == *name) || !ring::exists(state) {
        return Ok(None);
    }
    let opened = ring::open_here(state)?;
    let entry = opened.ring.entries().find(|entry| ring::free_name(entry, &volumes) == *name);
    Ok(entry.map(|entry| match &entry.key {
        EntryKey::Volume(key) => Key::Volume(key.clone()),
        EntryKey::Read(key) => Key::Read(entry.volume, key.clone()),
    }))
}

/// Gives a volume that is here, and that another device writes, a store to be opened from, if it has none.
fn attach_again(state: &State, name: &VolumeName, url: &str) -> Result<()> {
    let volume = state.volume(name).map_err(|failure| match failure.kind {
        Kind::NotFound => {
            failure.hint("one that is only in a store needs --key-file too, or its key in the key ring")
        }
        _ => failure,
    })?;
    refuse_own(&volume)?;
    if let Some(store) = volume.config()?.stores.iter().find(|store| store.arbiter) {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("volume \"{name}\" is opened from store \"{}\", {}", store.name, store.url),
        )
        .hint(format!(
            "`comb store remove {name} {}` first, if it is not to be that one any more",
            store.name
        )));
    }
    let found = stores::block_on(async {
        let store = stores::open_to_read(url, volume.id).await?;
        Ok(stores::remote(&store, volume.id).id().await?)
    })?;
    let found = found.ok_or_else(|| does_not_know(url, volume.id))?;
    state.change_config(&volume, |config| {
        config.stores = vec![store_config(url, found)];
        Ok(())
    })
}

/// Refuses to open a volume that is written here.
fn refuse_own(volume: &VolumeFolder) -> Result<()> {
    if volume.name.branch().is_none() && engine::is_others(volume)? {
        return Ok(());
    }
    let name = &volume.name;
    if name.branch().is_some() {
        return Err(Failure::new(
            Kind::Usage,
            format!("\"{name}\" is a branch, which nobody writes any more"),
        )
        .hint(format!("`comb mount {name} DIR` shows it, `comb fork {name}@head NEW` goes on from it")));
    }
    Err(Failure::new(Kind::InTheWay, format!("volume \"{name}\" is written on this machine")).hint(format!(
        "if another device has taken it over, `comb sync` finds that out. If one goes on from a copy (`--promote`): \
         `comb fork {name}@head NEW` keeps what is here, `comb volume key {name} --out FILE` the key, and after \
         `comb volume remove {name}` `comb volume open {name} --key-file FILE --store URL` has what is there"
    )))
}

fn does_not_know(url: &str, volume: VolumeId) -> Failure {
    Failure::new(Kind::NotFound, format!("{url} does not know volume {volume}"))
        .hint("is it the right URL, and the right key?")
}

/// The only store of a volume that is opened from it.
fn store_config(url: &str, id: StoreId) -> StoreConfig {
    StoreConfig {
        name: StoreConfig::free_name(url, &[]),
        url: url.to_owned(),
        id: StoreConfig::id_text(id),
        arbiter: true,
        prices: None,
        rate: None,
    }
}

/// Fetches everything that is not here.
fn fill(state: &State, name: &VolumeName) -> Result<()> {
    let volume = state.volume(name)?;
    let bar = progress::waiting("fetching everything");
    let filled = filling::fill(&volume, &bar).map_err(|failure| match failure.kind {
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
