//! `comb store add`.

use clap::Args;
use fs_replication::{Slot, StoreId};

use crate::cost::Prices;
use crate::failure::{Failure, Kind, Result};
use crate::name::{VolumeName, parse_size, parse_store_name};
use crate::notes::Seen;
use crate::state::{State, VolumeFolder};
use crate::stores::{self, StoreConfig};
use crate::{engine, keys, output, progress, ring, ring_store};

/// Replicate a volume to one more store
///
/// The store is probed first. The first store of a volume decides who may write it, so it must make each object
/// only once, however many try; S3, GCS, Azure and folders do. What is in the volume already is sent by the
/// daemon of the mounted volume, or by `comb sync`.
///
/// URLs: s3://BUCKET/PREFIX?endpoint=https://HOST&region=R   gs://BUCKET/PREFIX   az://CONTAINER/PREFIX?account=A
///       https://HOST/FOLDER (WebDAV)   file:///FOLDER   ipfs://HOST:PORT (the RPC of kubo; holds copies, and no key ring).
/// Credentials are looked for where the tools of each kind do.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct AddArgs {
    /// The volume
    name: VolumeName,

    /// Where it is to go
    url: String,

    /// What to call the store [default: the kind and a number]
    #[arg(long = "as", value_name = "STORE", value_parser = parse_store_name)]
    store: Option<String>,

    /// What it costs, for the estimate in `comb status`: dollars for a GB a month, 1000 creates, 1000 reads, as in
    /// 0.023,0.005,0.0004 [default: the list prices of known providers]
    #[arg(long, value_name = "STORAGE,PUT,GET")]
    prices: Option<Prices>,

    /// The most bytes a second that go there, mounted or not, unless `comb mount --rate` says otherwise
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,
}

impl AddArgs {
    /// A store of which nothing else is said.
    pub fn new(name: &VolumeName, url: &str) -> Self {
        Self { name: name.clone(), url: url.to_owned(), store: None, prices: None, rate: None }
    }
}

/// Probes a store and adds it to the volume's config.
pub fn run(state: &State, args: &AddArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let url = stores::parse_url(&args.url)?;
    stores::refuse_own(state, &url)?;
    // Who only looks has nothing to send.
    engine::refuse_others(&volume)?;
    let stores = volume.config()?.stores;
    if let Some(there) = stores.iter().find(|store| store.url == url) {
        return Err(Failure::new(Kind::InTheWay, format!("{url} is store \"{}\" of it already", there.name)));
    }
    let name = match &args.store {
        Some(name) => name.clone(),
        None => StoreConfig::free_name(&url, &stores),
    };
    if stores.iter().any(|store| store.name == name) {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("volume \"{}\" has a store \"{name}\" already", volume.name),
        )
        .hint("choose another name with --as"));
    }
    let (fresh, key) = (StoreId(keys::chance()?), keys::load(&volume)?);
    let bar = progress::waiting("probing the store");
    let found = stores::block_on(async {
        let remote = stores::remote(&stores::open_to_write(&url, &key).await?, volume.id);
        let attached = remote.attach(fresh).await?;
        let head = remote.head().await?;
        Ok((attached, head))
    });
    bar.finish_and_clear();
    let (attached, head) = found?;
    if let Some(there) = stores.iter().find(|store| store.id == StoreConfig::id_text(attached.id)) {
        return Err(Failure::new(
            Kind::InTheWay,
            format!("this is store \"{}\" under another URL", there.name),
        ));
    }
    let unfit = super::unfitness(&attached);
    let arbiter = !stores.iter().any(|store| store.arbiter);
    if let (true, Some(why)) = (arbiter, &unfit) {
        return Err(Failure::new(
            Kind::Foreign,
            format!("{url} cannot be the first store of a volume, which decides who may write it: {why}"),
        )
        .hint("add a store that can (S3, a folder) first, and this one as a copy"));
    }
    let parted = Seen::parted(&volume, &StoreConfig::id_text(attached.id));
    let past = head.newest.as_ref().map(|slot| past_of(&volume, &url, slot, parted.as_ref())).transpose()?;
    let config = StoreConfig {
        name: name.clone(),
        url: url.clone(),
        id: StoreConfig::id_text(attached.id),
        arbiter,
        prices: args.prices.map(|prices| prices.to_string()),
        rate: args.rate.filter(|rate| *rate > 0),
    };
    // Whatever was seen in a store of this name, it was not this one.
    Seen::forget(&volume, &name)?;
    if let Some(past) = &past {
        // Retention may have dropped here what it holds, and what came next. By this it is known as ours.
        past.write(&volume, &name)?;
    }
    state.change_config(&volume, |all| {
        all.stores.push(config);
        Ok(())
    })?;
    output::line(&format!("volume \"{}\" goes to store \"{name}\", {url}", volume.name))?;
    match (arbiter, unfit) {
        (true, _) => output::line("  it decides who may write the volume")?,
        (false, None) => output::line("  as a copy")?,
        (false, Some(why)) => {
            output::line(&format!("  as a copy; it could not decide who may write: {why}"))?
        }
    }
    if ring::exists(state) && stores::holds_rings(&url) {
        ring_store::publish_to(&mut ring::open_here(state)?, &url)?;
        output::line(
            "  with this machine's key ring, so that `comb recover --store` brings everything back",
        )?;
    }
    super::tell(&volume)
}

/// The newest seal of a store that holds a part of the past of what is here: it is here, or it is what was seen there last when the
/// volume parted from it. Refuses one in which the volume goes on otherwise.
fn past_of(volume: &VolumeFolder, url: &str, slot: &Slot, parted: Option<&Seen>) -> Result<Seen> {
    let history = engine::history(volume)?;
    let there = Seen::of(&slot.link());
    if history.outgoing(slot.seq, false).is_ok_and(|here| here.id == slot.id) || parted == Some(&there) {
        return Ok(there);
    }
    let (first, last) = history.unbroken().map_err(|error| engine::open_failure(volume, &error))?;
    let epoch = engine::epoch(volume, &history)?;
    let goes_on =
        "`comb volume open` goes on with what the store holds; another prefix makes a copy of what is here";
    if slot.epoch > epoch {
        let what = format!(
            "{url} holds another history of this volume, up to seal {}: another device took it over there with epoch {}, here it is \
             written in epoch {epoch}",
            slot.seq, slot.epoch
        );
        return Err(Failure::new(Kind::InTheWay, what).hint(goes_on));
    }
    if slot.seq >= first {
        let what = format!(
            "{url} holds another history of this volume, up to seal {}, which is another one than here, where {last} is the newest",
            slot.seq
        );
        return Err(Failure::new(Kind::InTheWay, what).hint(goes_on));
    }
    Err(Failure::new(
        Kind::InTheWay,
        format!(
            "{url} holds this volume up to seal {} of epoch {}, and what is here begins with seal {first}: whether that is an older past \
             of which retention dropped the rest, or another device wrote it, cannot be told any more",
            slot.seq, slot.epoch
        ),
    )
    .hint(
        "another prefix or folder makes a copy of what is here; so does this one when it was emptied, if no other device writes the \
         volume there. `comb volume open` goes on with what it holds",
    ))
}
