//! `comb volume open`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fs_crypto::EntryKey;
use fs_format::{DeviceId, Epoch, Seq, VolumeId};
use fs_replication::{Cut, Head, Link, Remote, Slot, StoreId};
use fs_volume::{manifest_info, manifest_path};
use serde::Serialize;

use crate::commands::sync;
use crate::elsewhere::Recognised;
use crate::expectation::{self, Expect};
use crate::failure::{Context, Failure, Kind, Result};
use crate::keys::Key;
use crate::name::VolumeName;
use crate::notes::Seen;
use crate::state::{Config, State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{branches, elsewhere, engine, filling, keys, lazy_disk, notes, output, progress, ring, takeover};

/// How long a store may take to get what only this machine has, before a new epoch begins here.
const REST_WAIT: Duration = Duration::from_secs(60);

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

    /// Take it over only if this is the newest in the store; with that, also a volume that is written here, in a new epoch
    #[arg(
        long,
        value_name = "EPOCH:SEQ:MANIFEST",
        value_parser = expectation::parse_link,
        conflicts_with_all = ["read_only", "promote", "accept_rollback"]
    )]
    expect: Option<Link>,

    /// The same, but the newest may be later, by this machine or one of --writer; 0:0 also where there is nothing yet
    #[arg(
        long,
        value_name = "EPOCH:SEQ",
        value_parser = expectation::parse_place,
        conflicts_with_all = ["expect", "read_only", "promote", "accept_rollback"]
    )]
    since: Option<(Epoch, Seq)>,

    /// A machine that may have written since, as `comb volume head` shows it; may be given several times
    #[arg(long = "writer", value_name = "PSEUDONYM", value_parser = expectation::parse_writer, requires = "since")]
    writers: Vec<DeviceId>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl OpenArgs {
    fn expect(&self) -> Expect {
        match (self.expect, self.since) {
            (Some(link), _) => Expect::Exactly(link),
            (None, Some((epoch, seq))) => Expect::Since { epoch, seq, writers: self.writers.clone() },
            (None, None) => Expect::Anything,
        }
    }
}

/// What became of a volume that was opened.
#[derive(Debug, Serialize)]
struct OpenReport {
    name: String,
    public_key: String,
    /// Whether another device goes on writing it.
    read_only: bool,
    /// Pseudonym of this machine in the volume.
    writer: String,
    /// The first manifest of the new epoch; null if it was opened read-only.
    cut: Option<Place>,
    /// The manifest that it follows: what is in the volume of the writer before.
    parent: Option<Place>,
    /// What became of what only this machine had.
    branch: Option<String>,
}

/// A manifest.
#[derive(Debug, Serialize)]
struct Place {
    epoch: u64,
    seq: u64,
    manifest: String,
    /// When it was sealed, RFC 3339, if it can be read.
    time: Option<String>,
}

impl Place {
    fn new(link: &Link, sealed: Option<i64>) -> Self {
        let Link { epoch, seq, id } = link;
        Self { epoch: epoch.0, seq: seq.0, manifest: id.to_hex(), time: sealed.map(output::time_utc) }
    }
}

/// What opening a volume did.
#[derive(Debug, Default)]
pub struct Done {
    cut: Option<Cut>,
    branch: Option<String>,
}

/// Opens a volume from a store.
pub fn run(state: &State, args: &OpenArgs) -> Result<()> {
    let mut how =
        How { read_only: args.read_only, promote: args.promote, accept_rollback: args.accept_rollback };
    let store = args.store.as_deref().map(stores::parse_url).transpose()?;
    store.iter().try_for_each(|url| stores::refuse_own(state, url))?;
    let expect = args.expect();
    let done = match (&args.key_file, store) {
        (Some(path), Some(url)) => {
            let key = keys::import_any(path)?;
            how.read_only |= may_only_read(&args.name, &key, how)?;
            open_as(state, &args.name, &key, &url, how, &expect)?
        }
        (None, Some(url)) => match from_ring(state, &args.name)? {
            Some(key) => {
                how.read_only |= may_only_read(&args.name, &key, how)?;
                open_as(state, &args.name, &key, &url, how, &expect)?
            }
            None => {
                attach_again(state, &args.name, &url)?;
                again(state, &args.name, how, &expect)?
            }
        },
        _ => again(state, &args.name, how, &expect)?,
    };
    let (name, read_only) = (&args.name, if how.read_only { " read-only" } else { "" });
    // Whatever becomes of the rest, that much is so.
    if args.json {
        output::json(&report(state, name, how, &done)?)?;
    } else {
        output::line(&format!("volume \"{name}\" is open{read_only}: `comb mount {name} DIR` shows it"))?;
    }
    if args.wait { fill(state, &args.name) } else { Ok(()) }
}

fn report(state: &State, name: &VolumeName, how: How, done: &Done) -> Result<OpenReport> {
    let volume = state.volume(name)?;
    let read = keys::load_any(&volume)?.read_key();
    let place = |link: &Link| {
        let object = std::fs::read(volume.path.join(manifest_path(link.seq))).ok();
        let info = object.and_then(|object| manifest_info(&object, &volume.id, &read).ok());
        Place::new(link, info.filter(|info| info.id == link.id).map(|info| info.time.0))
    };
    Ok(OpenReport {
        name: name.to_string(),
        public_key: volume.id.to_hex(),
        read_only: how.read_only,
        writer: keys::device(state)?.pseudonym(&volume.id).to_hex(),
        cut: done.cut.as_ref().map(|cut| place(&cut.slot.link())),
        parent: done.cut.as_ref().map(|cut| place(&cut.before)),
        branch: done.branch.clone(),
    })
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
    open_as(state, name, key, url, how, &Expect::Anything).map(drop)
}

fn open_as(
    state: &State,
    name: &VolumeName,
    key: &Key,
    url: &str,
    how: How,
    expect: &Expect,
) -> Result<Done> {
    let id = key.id();
    let device = keys::device(state)?;
    let bar = progress::waiting("asking the store");
    let (store, store_id, newest, expected) = stores::block_on(async {
        let store = stores::open_to_read(url, id).await?;
        if !how.read_only {
            takeover::require_create_if_absent(&store, url)?;
        }
        let remote = stores::remote(&store, id);
        // Nobody waits twice: what is newest is asked for beside which store it is.
        let (found, head) = tokio::join!(remote.id(), remote.head());
        let found = found?.ok_or_else(|| does_not_know(url, id))?;
        let own = device.pseudonym(&id);
        let expected = match &head {
            Ok(head) => expect.check(name, head, own)?,
            Err(error) if !expect.is_anything() => return Err(error.clone().into()),
            // Then anything is.
            Err(_) => expect.check(name, &Head { newest: None, claim: None }, own)?,
        };
        let newest = match head {
            Ok(head) => head.newest,
            Err(fs_replication::Error::Damaged { object, why }) if how.read_only && how.accept_rollback => {
                output::note(&format!("warning: {object} in the store is damaged: {why}"));
                newest_whole(&remote).await?
            }
            // It is asked for once more, with patience, and what is wrong is told.
            Err(_) => None,
        };
        Ok((store, found, newest, expected))
    })?;
    let config = Config {
        stores: vec![store_config(url, store_id)],
        from_store: true,
        follows: how.read_only,
        ..Config::new(name)
    };
    let mut seen = newest.as_ref().map(Slot::link);
    let mut done = Done::default();
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
            let cut = takeover::take(&store, (name, folder), env, key, &device, expected)?;
            seen = Some(cut.slot.link());
            done.cut = Some(cut);
        }
        Ok(())
    });
    bar.finish_and_clear();
    note_seen(&opened?, &config.stores[0], seen)?;
    Ok(done)
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
pub fn again(state: &State, name: &VolumeName, how: How, expect: &Expect) -> Result<Done> {
    let volume = state.volume(name).map_err(|failure| match failure.kind {
        Kind::NotFound => failure.hint("one that is only in a store needs --key-file and --store"),
        _ => failure,
    })?;
    let config = volume.config()?;
    let is_own = volume.name.branch().is_none() && !engine::is_others(&volume)?;
    if !is_own || expect.is_anything() {
        refuse_own(&volume)?;
    }
    let store = config.stores.iter().find(|store| store.arbiter).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{}\" has no store to be opened from", volume.name)).hint(
            format!(
                "`comb volume open {0} --store URL` opens it from one, with --read-only to look only; `comb fork {0}@head NEW` makes \
                 a volume of your own of what is here",
                volume.name
            ),
        )
    })?;
    if is_own {
        match send_rest(state, &volume, store, expect) {
            // It is not ours any more, as was found on the way; what was not sent becomes a branch.
            Err(_) if notes::is_fenced(&volume) => {}
            sent => sent?,
        }
    }
    let lock = volume.lock()?;
    let bar = progress::waiting("asking the store");
    if how.accept_rollback {
        Seen::forget(&volume, &store.name)?;
    }
    if !how.read_only {
        // Before anything is asked of the store: a read key takes nothing over.
        keys::load(&volume)?;
    }
    let Recognised { store: opened, head, cut } = elsewhere::recognised(&volume, store)?;
    let expected = expect.check(name, &head, keys::device(state)?.pseudonym(&volume.id))?;
    let newest = head.newest;
    if let (Err(failure), Some(newest)) = (notes::ended(&volume), &newest) {
        output::note(&format!("warning: {}", failure.message));
        notes::note_end(&volume, &elsewhere::find_end(&volume, &opened, newest)?)?;
    }
    let newest = newest.map_or(Seq(0), |newest| newest.seq);
    if !how.read_only {
        takeover::require_create_if_absent(&opened, &store.url)?;
    }
    let mut done = Done::default();
    if let Some(branch) = branches::split_off(state, &volume, newest, &lock)? {
        let branch = format!("{}/{branch}", volume.name);
        output::note(&format!("what only this machine has is branch \"{branch}\" now"));
        done.branch = Some(branch);
    }
    // What is here by then of what the store has names packs that are only there.
    state.change_config(&volume, |config| {
        config.from_store = true;
        Ok(())
    })?;
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
        let device = keys::device(state)?;
        let cut = takeover::take(&opened, (name, &volume.path), env, &key, &device, expected)?;
        note_seen(&volume, store, Some(cut.slot.link()))?;
        done.cut = Some(cut);
    }
    // A crash must not leave a note of an end that counts again later: where others write on, it counts no more once the config says
    // that they are followed; else the last word is the config's.
    if !how.read_only {
        notes::forget_end(&volume)?;
    }
    state.change_config(&volume, |config| {
        config.follows = how.read_only;
        Ok(())
    })?;
    notes::forget_end(&volume)?;
    bar.finish_and_clear();
    Ok(done)
}

/// Brings what is written here to the store, before a new epoch begins on this same machine: a tail of its own is no branch.
fn send_rest(state: &State, volume: &VolumeFolder, store: &StoreConfig, expect: &Expect) -> Result<()> {
    let (head, own) =
        (elsewhere::recognised(volume, store)?.head, keys::device(state)?.pseudonym(&volume.id));
    expect.check(&volume.name, &head, own)?;
    let is_last = head.newest.is_some_and(|newest| newest.device == own);
    let here = engine::history_here(volume)?.head().map_err(|error| engine::open_failure(volume, &error))?;
    if is_last && matches!(expect, Expect::Exactly(link) if here.seq > link.seq) {
        let what = format!("volume \"{}\" has seals here that the expected head has not", volume.name);
        return Err(Failure::new(Kind::Unexpected, what)
            .hint(format!("seal {} is here; `comb sync {}` sends it", here.seq, volume.name)));
    }
    sync::here(state, volume, REST_WAIT).map(drop)
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
