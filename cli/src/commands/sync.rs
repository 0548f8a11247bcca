//! `comb sync`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use fs_replication::StoreId;
use fs_volume::SealPace;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::name::{VolumeName, parse_span};
use crate::notes::Seen;
use crate::replica::Replicas;
use crate::report::SealReport;
use crate::state::{State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::waits::Waits;
use crate::{engine, keys, output, progress, stores};

/// Pauses before the daemon is asked again how far it is: small changes are through in no time, large ones are not asked
/// about all the time.
const ASK_AFTER: Duration = Duration::from_millis(5);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Seal what changed, and bring it to all stores now
///
/// The daemon of a mounted volume does so by itself all the time; this does it at once, also where it waits after
/// an error. A volume that is not mounted is brought to its stores by this command, which then always waits.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// The volume
    name: VolumeName,

    /// Wait until every store has it, or can have it only when somebody mends something
    #[arg(long)]
    wait: bool,

    /// Believe what the stores show now, though they showed more before: what they lack is sent again
    #[arg(long)]
    accept_rollback: bool,

    /// How long to wait at most
    #[arg(long, value_name = "SPAN", default_value = "1d", value_parser = parse_span)]
    limit: Duration,
}

/// Replicates a volume now.
pub fn run(state: &State, args: &SyncArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    if volume.config()?.stores.is_empty() {
        return Err(Failure::new(Kind::NotFound, format!("volume \"{}\" has no store", volume.name))
            .hint(format!("`comb store add {} URL` adds one", volume.name)));
    }
    if args.accept_rollback {
        engine::refuse_others(&volume)?;
        for store in volume.config()?.stores {
            attach_emptied(state, &volume, &store)?;
            Seen::forget(&volume, &store.name)?;
        }
        Address::live(&volume.path).reload()?;
    }
    // A copy may fail while the arbiter is still asked: that is news, too.
    let begun = Instant::now();
    let (seal, how) = match Address::live(&volume.path).sync()? {
        Some(seal) if !args.wait => (seal, "is on its way"),
        Some(seal) => {
            wait_for_daemon(&volume, &seal, begun, args.limit)?;
            (seal, "is in all stores")
        }
        None => (here(state, &volume, args.limit)?, "is in all stores"),
    };
    output::note(&format!("volume \"{}\": seal {} {how}", volume.name, seal.seq));
    Ok(())
}

/// Brings a volume to all its stores, and waits for them.
pub fn wait(state: &State, name: &VolumeName, limit: Duration) -> Result<()> {
    run(state, &SyncArgs { name: name.clone(), wait: true, accept_rollback: false, limit })
}

/// Gives a store that does not know the volume any more an id for it, as `comb store add` does: it begins anew.
fn attach_emptied(state: &State, volume: &VolumeFolder, store: &StoreConfig) -> Result<()> {
    let (fresh, key) = (StoreId(keys::chance()?), keys::load(volume)?);
    let attached = stores::block_on(async {
        let remote = stores::remote(&stores::open_to_write(&store.url, &key).await?, volume.id);
        match remote.id().await? {
            Some(_) => Ok(None),
            None => Ok(Some(remote.attach(fresh).await?)),
        }
    });
    let attached = match attached {
        Ok(Some(attached)) => attached,
        Ok(None) => return Ok(()),
        // Whatever is wrong with it, others may be well; sending tells.
        Err(failure) => {
            output::note(&format!("warning: store \"{}\": {}", store.name, failure.message));
            return Ok(());
        }
    };
    if let (true, Some(why)) = (store.arbiter, &attached.unfit) {
        return Err(Failure::new(
            Kind::Foreign,
            format!("store \"{}\" cannot decide any more who may write the volume: {why}", store.name),
        ));
    }
    output::note(&format!("store \"{}\" was emptied: it begins anew", store.name));
    state.change_config(volume, |config| {
        for one in config.stores.iter_mut().filter(|one| one.name == store.name) {
            one.id = StoreConfig::id_text(attached.id);
        }
        Ok(())
    })
}

/// Waits until every store has said, since the seal was asked for, that it has it: what was there may be gone.
fn wait_for_daemon(volume: &VolumeFolder, seal: &SealReport, begun: Instant, limit: Duration) -> Result<()> {
    let bar = progress::bytes("sending");
    let mut waits = Waits::begin();
    let mut pause = ASK_AFTER;
    loop {
        let Some(report) = Address::live(&volume.path).status()? else {
            return Err(Failure::new(Kind::Behind, "the volume was unmounted before every store had it")
                .hint("`comb sync` goes on"));
        };
        if let Some(fenced) = report.stores.iter().find(|store| store.state == "fenced") {
            return Err(Failure::new(Kind::NotPermitted, fenced.last_error.clone().unwrap_or_default()));
        }
        let lacking: Vec<_> = report.stores.iter().filter(|store| store.may_lack(seal.seq)).collect();
        let Some(worst) = lacking.iter().max_by_key(|store| store.unsafe_bytes) else {
            bar.finish_and_clear();
            return Ok(());
        };
        if bar.length() < Some(worst.unsafe_bytes) {
            bar.set_length(worst.unsafe_bytes);
        }
        bar.set_position(bar.length().unwrap_or_default().saturating_sub(worst.unsafe_bytes));
        let waited = begun.elapsed();
        if waited >= limit || lacking.iter().all(|store| store.is_stuck(waited)) {
            let why = worst.last_error.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            return Err(Failure::new(
                Kind::Behind,
                format!("store \"{}\" has not all of it{why}", worst.name),
            ));
        }
        waits.for_stores(&lacking, &bar);
        std::thread::sleep(pause);
        pause = ASK_EVERY.min(pause * 2);
    }
}

/// Replicates a volume that no daemon has.
pub fn here(state: &State, volume: &VolumeFolder, limit: Duration) -> Result<SealReport> {
    let lock = volume.lock()?;
    let opened = Arc::new(engine::open_to_write(state, volume, &lock)?);
    let replicas = Replicas::start(state, &opened, volume, None, SealPace::default())?;
    let seal = opened.seal(None).map_err(|error| engine::fs_failure(&volume.name, &error))?;
    let bar = progress::waiting("sending");
    let mut waits = Waits::begin();
    let outcome = replicas.wait(seal.seq, limit, &mut |lacking| waits.for_stores(lacking, &bar));
    bar.finish_and_clear();
    replicas.note_seen();
    outcome.map(|()| SealReport::from(&seal))
}
