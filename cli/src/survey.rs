//! What the stores of a volume hold of it, compared with what is here; and putting back in one place what another has.
//!
//! `fs/docs/replication.md`, section 12, says what is looked at, and what may be mended.
//!
//! Invariants
//! - Looking changes nothing, here or in a store.
//! - What is put somewhere was read whole from another place before, and that place keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use fs_format::manifest::PackEntry;
use fs_format::{Epoch, ManifestId, Seq};
use fs_replication::{Error, Inventory, Remote, Slot};
use fs_store::{Patience, READ_TIME_MAX, Store};
use fs_volume::{CheckReport, History};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::failure::{Failure, Kind, Result};
use crate::notes::Seen;
use crate::state::VolumeFolder;
use crate::stores::{self, StoreConfig};
use crate::{engine, keys, output};

/// Slots, and packs, that are asked for at once.
const SLOTS_AT_ONCE: usize = 16;
const PACKS_AT_ONCE: usize = 4;

/// How closely a store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Slots, claims and boundaries are read.
    Manifests,
    /// And packs are listed.
    Packs,
    /// And packs are read.
    Bytes,
}

/// What is here, as far as a store is compared with it.
pub struct Ours {
    /// Which manifest each seal has.
    ids: BTreeMap<Seq, ManifestId>,
    head: Seq,
    epoch: Epoch,
    /// What the volume needs.
    packs: Vec<PackEntry>,
}

impl Ours {
    /// Reads it.
    pub fn of(volume: &VolumeFolder, history: &History) -> Result<Self> {
        let fail = |error| engine::open_failure(volume, &error);
        let head = history.head().map_err(fail)?;
        let epoch = history.epoch().map_err(fail)?;
        let ids = history.manifest_ids().map_err(fail)?;
        let (packs, _) = history.needed_packs().map_err(fail)?;
        Ok(Self { ids, head: head.seq, epoch, packs })
    }
}

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spot {
    /// In the volume's folder.
    Here,
    /// In the store of this name.
    Store(String),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("here"),
            Self::Store(name) => write!(f, "store \"{name}\""),
        }
    }
}

/// What a flaw is in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Pack(PackEntry),
    /// The manifest of a seal that a copy has lost, or that is damaged here.
    Manifest(Seq, ManifestId),
    /// The newest slot: the store was put back in time, and whoever writes the volume sends anew what it has lost.
    Newest,
    /// What can only be told.
    Other,
}

/// One thing that is not in a store as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The store.
    pub store: String,
    /// What is wrong with what.
    pub what: String,
    thing: Thing,
}

/// How a store was found.
#[derive(Debug, Clone, Serialize)]
pub struct StoreLook {
    /// Its name.
    pub name: String,
    /// Slots that were read.
    pub slots: u64,
    /// The newest seal that it shares with what is here.
    pub newest_seq: Option<u64>,
    /// Packs that were looked at, and their bytes.
    pub packs: u64,
    /// Bytes of packs.
    pub bytes: u64,
    /// What is worth knowing and no damage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it was not looked at, or not to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What is wrong there.
    #[serde(skip)]
    pub flaws: Vec<Flaw>,
}

impl StoreLook {
    /// In how many places it lost its newest seals, which are sent again when somebody believes what it shows now.
    pub fn put_back(&self) -> usize {
        self.flaws.iter().filter(|flaw| flaw.thing == Thing::Newest).count()
    }

    fn flaw(&mut self, thing: Thing, what: String) {
        self.flaws.push(Flaw { store: self.name.clone(), what, thing });
    }
}

/// Looks at stores, one after the other. One that fails is told, and hides no other.
pub fn look(
    volume: &VolumeFolder,
    ours: &Ours,
    configs: &[StoreConfig],
    depth: Depth,
    bar: &ProgressBar,
) -> Vec<StoreLook> {
    configs
        .iter()
        .map(|config| {
            let mut found = StoreLook {
                name: config.name.clone(),
                slots: 0,
                newest_seq: None,
                packs: 0,
                bytes: 0,
                notes: Vec::new(),
                failure: None,
                flaws: Vec::new(),
            };
            // Not to know what was seen hides nothing of what is there.
            let seen = match Seen::read(volume, &config.name) {
                Ok(seen) => seen,
                Err(failure) => {
                    found.flaw(Thing::Other, failure.message);
                    None
                }
            };
            let looked = stores::block_on(look_at(volume, ours, config, seen, depth, &mut found, bar));
            found.failure = looked.err();
            found
        })
        .collect()
}

async fn look_at(
    volume: &VolumeFolder,
    ours: &Ours,
    config: &StoreConfig,
    seen: Option<Seen>,
    depth: Depth,
    found: &mut StoreLook,
    bar: &ProgressBar,
) -> Result<()> {
    let opened = stores::open_to_read(&config.url, volume.id).await?;
    // The first request is made once: who is not there is told at once.
    stores::remote(&opened, volume.id).recognise(config.store_id()?).await?;
    let remote = patient_remote(&opened, volume);
    let inventory = remote.inventory(depth >= Depth::Packs).await?;
    let boundary = look_at_fencing(&remote, &inventory, ours, found).await?;
    let shared = look_at_slots(&remote, &inventory, ours, config, boundary, found).await?;
    found.newest_seq = shared.map(|seq| seq.0);
    let newest = inventory.slots.last().copied();
    if let Some(seen) = seen.filter(|seen| newest < Some(Seq(seen.seq))) {
        let now = newest.map_or("none".into(), |seq| seq.to_string());
        found.flaw(Thing::Newest, format!("seal {} was seen there, now its newest is {now}", seen.seq));
    }
    match (newest, shared) {
        (None, _) => found.notes.push("has nothing yet".into()),
        (_, Some(shared)) if shared < ours.head => {
            found.notes.push(format!("has seal {shared}, the newest here is {}", ours.head));
        }
        _ => {}
    }
    if depth >= Depth::Packs {
        // Whoever goes on with the volume elsewhere may have collected what is needed here alone.
        let is_ours = newest == shared;
        look_at_packs(&remote, &inventory, ours, shared.filter(|_| is_ours), depth, found, bar).await?;
    }
    Ok(())
}

fn patient_remote(opened: &fs_store::Patient, volume: &VolumeFolder) -> Remote {
    Remote::new(Arc::new(opened.with(Patience::Within(READ_TIME_MAX))) as Arc<dyn Store>, volume.id)
}

/// Reads claims and boundaries; returns the greatest boundary that is one.
async fn look_at_fencing(
    remote: &Remote,
    inventory: &Inventory,
    ours: &Ours,
    found: &mut StoreLook,
) -> Result<Option<Seq>> {
    for &epoch in &inventory.claims {
        match tell(remote.claim_of(epoch).await)? {
            Told::Is(_) if epoch > ours.epoch => {
                found.notes.push(format!("another device claimed epoch {epoch}"));
            }
            Told::Is(_) | Told::Gone => {}
            Told::Damaged(what) => found.flaw(Thing::Other, what),
        }
    }
    let mut greatest = None;
    for &seq in &inventory.boundaries {
        match tell(remote.boundary_at(seq).await)? {
            Told::Is(_) => greatest = greatest.max(Some(seq)),
            Told::Gone => {}
            Told::Damaged(what) => found.flaw(Thing::Other, what),
        }
    }
    Ok(greatest)
}

/// What came of reading an object that was listed.
enum Told<T> {
    Is(T),
    /// Collection has removed it since.
    Gone,
    Damaged(String),
}

/// Tells what is wrong with an object from what is wrong with the store.
fn tell<T>(answer: std::result::Result<T, Error>) -> Result<Told<T>> {
    match answer {
        Ok(value) => Ok(Told::Is(value)),
        Err(error @ Error::Damaged { .. }) => Ok(Told::Damaged(error.to_string())),
        Err(Error::Store(error)) => match error.kind() {
            fs_store::Kind::Absent => Ok(Told::Gone),
            fs_store::Kind::Damaged => Ok(Told::Damaged(error.to_string())),
            _ => Err(stores::failure(&error)),
        },
        Err(error) => Err(error.into()),
    }
}

/// Reads the slots; returns the newest that holds what is here.
async fn look_at_slots(
    remote: &Remote,
    inventory: &Inventory,
    ours: &Ours,
    config: &StoreConfig,
    boundary: Option<Seq>,
    found: &mut StoreLook,
) -> Result<Option<Seq>> {
    let mut slots: BTreeMap<Seq, Slot> = BTreeMap::new();
    let mut asked = inventory.slots.clone();
    while !asked.is_empty() {
        let some = asked.split_off(asked.len().saturating_sub(SLOTS_AT_ONCE));
        let answers = at_once(some, |seq| {
            let remote = remote.clone();
            async move { (seq, remote.slot(seq).await) }
        })
        .await?;
        for (seq, answer) in answers {
            match tell(answer)? {
                Told::Is(slot) => drop(slots.insert(seq, slot)),
                Told::Gone => {}
                Told::Damaged(what) => found.flaw(Thing::Other, what),
            }
        }
    }
    found.slots = slots.len() as u64;
    let mut shared = None;
    let mut taken_over = None;
    for (seq, slot) in &slots {
        match ours.ids.get(seq) {
            Some(id) if *id == slot.id => shared = Some(*seq),
            // It waits to be collected, or filled a hole in the past.
            Some(_) if Some(*seq) <= boundary => {}
            Some(_) if slot.epoch > ours.epoch => {
                taken_over.get_or_insert((*seq, slot.epoch));
            }
            Some(_) => found.flaw(Thing::Other, format!("slot {seq} holds another manifest than is here")),
            None if *seq > ours.head && slot.epoch > ours.epoch => {
                taken_over.get_or_insert((*seq, slot.epoch));
            }
            None => {}
        }
    }
    if let Some((seq, epoch)) = taken_over {
        found
            .notes
            .push(format!("another device goes on with the volume from seal {seq} on, in epoch {epoch}"));
    }
    let above = |seq: &Seq| Some(*seq) > boundary;
    for ((seq, slot), (next, child)) in slots.iter().zip(slots.iter().skip(1)) {
        if above(seq) && next.0 == seq.0 + 1 && (child.parent != slot.id || child.epoch < slot.epoch) {
            found.flaw(Thing::Other, format!("slot {next} holds a manifest that does not follow slot {seq}"));
        }
    }
    // Above the boundary the chain has no holes.
    let listed: Vec<Seq> = inventory.slots.iter().copied().filter(above).collect();
    let first = boundary.map_or(1, |boundary| boundary.0 + 1);
    let starts = std::iter::once(first).chain(listed.iter().map(|seq| seq.0 + 1));
    for (from, to) in starts.zip(listed.iter().map(|seq| seq.0)).filter(|(from, to)| from < to) {
        let mut known = ours.ids.range(Seq(from)..Seq(to)).peekable();
        if known.peek().is_none() || config.arbiter {
            found.flaw(
                Thing::Other,
                match to - from {
                    1 => format!("slot {from} is missing"),
                    _ => format!("slots {from} to {} are missing", to - 1),
                },
            );
            continue;
        }
        for (seq, id) in known {
            found.flaw(Thing::Manifest(*seq, *id), format!("slot {seq} is missing"));
        }
    }
    Ok(shared)
}

/// Compares packs; of a store that has no seal of ours as its newest, only those that it lists.
async fn look_at_packs(
    remote: &Remote,
    inventory: &Inventory,
    ours: &Ours,
    newest: Option<Seq>,
    depth: Depth,
    found: &mut StoreLook,
    bar: &ProgressBar,
) -> Result<()> {
    let mut whole = Vec::new();
    for entry in &ours.packs {
        match inventory.packs.get(&entry.object) {
            Some(bytes) if *bytes == u64::from(entry.bytes) => whole.push(*entry),
            Some(bytes) => found.flaw(
                Thing::Pack(*entry),
                format!("pack {} has {bytes} bytes, the pack table says {}", entry.object, entry.bytes),
            ),
            None if newest >= Some(entry.birth) => {
                found.flaw(Thing::Pack(*entry), format!("pack {} is missing", entry.object));
            }
            // It is on its way.
            None => {}
        }
    }
    found.packs = whole.len() as u64;
    found.bytes = whole.iter().map(|entry| u64::from(entry.bytes)).sum();
    if depth < Depth::Bytes {
        return Ok(());
    }
    bar.set_length(found.bytes);
    while !whole.is_empty() {
        let some = whole.split_off(whole.len().saturating_sub(PACKS_AT_ONCE));
        let answers = at_once(some, |entry| {
            let remote = remote.clone();
            async move { (entry, remote.pack(&entry.object, entry.bytes.into()).await.map(drop)) }
        })
        .await?;
        for (entry, answer) in answers {
            bar.inc(entry.bytes.into());
            if let Told::Damaged(what) = tell(answer)? {
                found.flaw(Thing::Pack(entry), what);
            }
        }
    }
    Ok(())
}

/// Does the same with some things at once.
async fn at_once<T, R, F>(things: Vec<T>, work: impl Fn(T) -> F) -> Result<Vec<R>>
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let mut under_way: JoinSet<R> = things.into_iter().map(work).collect();
    let mut answers = Vec::with_capacity(under_way.len());
    while let Some(answer) = under_way.join_next().await {
        answers.push(answer.map_err(|error| Failure::other(error.to_string()))?);
    }
    Ok(answers)
}

/// What was put back.
#[derive(Debug, Clone, Serialize)]
pub struct Mended {
    /// What it is.
    pub what: String,
    /// Where it was not whole.
    pub place: String,
    /// Where it came from.
    pub from: String,
}

/// Puts back what is whole in another place.
///
/// `here` is what was found in the volume's folder, if that was looked at. What is whole nowhere is left as it is.
pub fn mend(
    volume: &VolumeFolder,
    history: &History,
    here: Option<&CheckReport>,
    looks: &[StoreLook],
) -> Result<Vec<Mended>> {
    let config = volume.config()?;
    let arbiter = config.stores.iter().find(|store| store.arbiter).map(|store| store.name.clone());
    let mut wanted: Vec<(Spot, Thing)> = Vec::new();
    for entry in here.iter().flat_map(|here| &here.bad_packs) {
        // What is read from the store, since it is not here, is the store's.
        let spot = match &arbiter {
            Some(arbiter) if history.is_elsewhere(&entry.object) => Spot::Store(arbiter.clone()),
            _ => Spot::Here,
        };
        wanted.push((spot, Thing::Pack(*entry)));
    }
    for (seq, id) in here.iter().flat_map(|here| &here.bad_manifests) {
        wanted.push((Spot::Here, Thing::Manifest(*seq, *id)));
    }
    for flaw in looks.iter().filter(|look| look.failure.is_none()).flat_map(|look| &look.flaws) {
        let one = (Spot::Store(flaw.store.clone()), flaw.thing.clone());
        if !matches!(flaw.thing, Thing::Newest | Thing::Other) && !wanted.contains(&one) {
            wanted.push(one);
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let key = keys::load_any(volume)?;
    if key.signing().is_none() {
        // What lies in stores is for whoever writes the volume to mend.
        wanted.retain(|(spot, _)| *spot == Spot::Here);
    }
    stores::block_on(async {
        let mut places = Places { volume, history, remotes: Vec::new() };
        for store in &config.stores {
            let opened = match key.signing() {
                Some(key) => stores::open_to_write(&store.url, key).await,
                None => stores::open_to_read(&store.url, volume.id).await,
            };
            match opened {
                Ok(opened) => places.remotes.push((store.name.clone(), patient_remote(&opened, volume))),
                Err(failure) => output::warn_once(&failure.message),
            }
        }
        let mut mended = Vec::new();
        for (spot, thing) in &wanted {
            // Not from where it is known to be damaged.
            let bad: Vec<&Spot> =
                wanted.iter().filter(|(_, other)| other == thing).map(|(spot, _)| spot).collect();
            if let Some(from) = places.mend(spot, thing, &bad).await? {
                mended.push(Mended { what: named(thing), place: spot.to_string(), from: from.to_string() });
            }
        }
        Ok(mended)
    })
}

fn named(thing: &Thing) -> String {
    match thing {
        Thing::Pack(entry) => format!("pack {}", entry.object),
        Thing::Manifest(seq, _) => format!("the manifest of seal {seq}"),
        Thing::Newest | Thing::Other => String::new(),
    }
}

/// The places that a thing may be fetched from, or put to.
struct Places<'a> {
    volume: &'a VolumeFolder,
    history: &'a History,
    remotes: Vec<(String, Remote)>,
}

impl Places<'_> {
    /// Puts a thing where it is not whole; says where it came from, or nothing if it is whole nowhere.
    async fn mend(&self, spot: &Spot, thing: &Thing, bad: &[&Spot]) -> Result<Option<Spot>> {
        let Some((from, bytes)) = self.fetch(thing, bad).await else { return Ok(None) };
        let remote = match spot {
            Spot::Here => None,
            Spot::Store(name) => match self.remotes.iter().find(|(other, _)| other == name) {
                Some((_, remote)) => Some(remote),
                None => return Ok(None),
            },
        };
        let local = |error| engine::fs_failure(format!("mending {}", named(thing)), &error);
        match (thing, remote) {
            (Thing::Pack(entry), None) => {
                self.history.mend_pack(&entry.object, &bytes).map_err(local)?;
            }
            (Thing::Manifest(seq, id), None) => {
                self.history.mend_manifest(*seq, id, &bytes).map_err(local)?;
            }
            (Thing::Pack(entry), Some(remote)) => {
                remote.mend_pack(&entry.object, bytes).await?;
            }
            (Thing::Manifest(seq, _), Some(remote)) => {
                let slot = Slot::open(&self.volume.id, *seq, bytes)
                    .map_err(|why| Failure::new(Kind::Damaged, format!("seal {seq}: {why}")))?;
                remote.mend_slot(&slot).await?;
            }
            (Thing::Newest | Thing::Other, _) => return Ok(None),
        }
        Ok(Some(from))
    }

    /// A thing's bytes, and where they are whole.
    async fn fetch(&self, thing: &Thing, bad: &[&Spot]) -> Option<(Spot, bytes::Bytes)> {
        if !bad.contains(&&Spot::Here)
            && let Some(bytes) = self.fetch_here(thing)
        {
            return Some((Spot::Here, bytes.into()));
        }
        for (name, remote) in &self.remotes {
            let spot = Spot::Store(name.clone());
            if bad.contains(&&spot) {
                continue;
            }
            let fetched = match thing {
                Thing::Pack(entry) => remote.pack(&entry.object, entry.bytes.into()).await.ok(),
                Thing::Manifest(seq, id) => {
                    remote.slot(*seq).await.ok().filter(|slot| slot.id == *id).map(|slot| slot.bytes)
                }
                Thing::Newest | Thing::Other => None,
            };
            if let Some(bytes) = fetched {
                return Some((spot, bytes));
            }
        }
        None
    }

    fn fetch_here(&self, thing: &Thing) -> Option<Vec<u8>> {
        match thing {
            // What is not here would be read from the arbiter, whose turn comes.
            Thing::Pack(entry) if self.history.is_elsewhere(&entry.object) => None,
            Thing::Pack(entry) => self.history.pack_object(&entry.object).ok(),
            Thing::Manifest(seq, id) => {
                let object = self.history.manifest_object(*seq).ok()?;
                (fs_format::manifest::manifest_id(&object) == *id).then_some(object)
            }
            Thing::Newest | Thing::Other => None,
        }
    }
}
