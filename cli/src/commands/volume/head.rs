//! `comb volume head`.

use clap::Args;
use fs_format::DeviceId;
use fs_format::manifest::{manifest_id, open_manifest};
use serde::Serialize;

use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::notes::{self, Ended, Seen};
use crate::promise::seconds_since;
use crate::state::{State, VolumeFolder};
use crate::{elsewhere, engine, keys, output};

/// Show what the store that decides has as the newest of a volume, and whose that is; nothing is changed by looking
#[derive(Debug, Args)]
pub struct HeadArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a store shows, and how it stands with what is here.
#[derive(Debug, Serialize)]
struct HeadReport {
    name: String,
    public_key: String,
    /// The store that decides.
    store: String,
    url: String,
    /// The newest manifest in it; null if nothing was ever committed.
    newest: Option<Newest>,
    /// The greatest claim, also where a manifest of its epoch followed.
    claim: Option<Claimed>,
    /// What was seen there last; null if nothing was.
    seen: Option<Seen>,
    /// What is here.
    here: Here,
}

#[derive(Debug, Serialize)]
struct Newest {
    epoch: u64,
    seq: u64,
    manifest: String,
    /// The manifest that it follows.
    parent: String,
    /// Pseudonym of the machine that wrote it.
    writer: String,
    /// When it was sealed, RFC 3339, by the clock of who did; and how long ago that is by the clock here.
    time: String,
    age_seconds: f64,
    /// Whether this machine wrote it.
    is_own: bool,
    /// Whether it is here, byte for byte.
    is_here: bool,
}

#[derive(Debug, Serialize)]
struct Claimed {
    epoch: u64,
    writer: String,
    is_own: bool,
}

#[derive(Debug, Serialize)]
struct Here {
    /// Pseudonym of this machine in the volume.
    writer: String,
    /// The newest manifest that is here; null if there is none.
    epoch: Option<u64>,
    seq: Option<u64>,
    manifest: Option<String>,
    /// Whether another device writes the volume, as far as this one was told: it follows, or its right has ended.
    is_others: bool,
    /// What ended its right.
    taken_over: Option<Ended>,
}

/// Shows the head.
pub fn run(state: &State, args: &HeadArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let report = look(state, &volume)?;
    if args.json {
        return output::json(&report);
    }
    match &report.newest {
        None => {
            output::line(&format!("store \"{}\" has no seal of volume \"{}\"", report.store, report.name))?
        }
        Some(newest) => {
            let whose = if newest.is_own { "this machine" } else { &newest.writer };
            for (what, value) in [
                ("store", format!("{}, {}", report.store, report.url)),
                ("epoch", newest.epoch.to_string()),
                ("seq", newest.seq.to_string()),
                ("manifest", newest.manifest.clone()),
                ("writer", whose.to_owned()),
                ("sealed", format!("{:.0} s ago", newest.age_seconds)),
            ] {
                output::line(&format!("{what:<9} {value}"))?;
            }
        }
    }
    let above = report.newest.as_ref().map(|newest| newest.epoch);
    match report.claim.filter(|claim| Some(claim.epoch) > above) {
        Some(claim) => output::line(&format!("epoch {} is claimed by {}", claim.epoch, claim.writer)),
        None => Ok(()),
    }
}

fn look(state: &State, volume: &VolumeFolder) -> Result<HeadReport> {
    let config = volume.config()?;
    let store = config.stores.iter().find(|store| store.arbiter).ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("volume \"{}\" has no store that decides", volume.name))
            .hint(format!("`comb store add {} URL` gives it one", volume.name))
    })?;
    let head = elsewhere::head_soon(volume, store)?;
    let own = keys::device(state)?.pseudonym(&volume.id);
    let newest = head.newest.map(|slot| -> Result<Newest> {
        let read = keys::load_any(volume)?.read_key();
        let info = fs_volume::manifest_info(&slot.bytes, &volume.id, &read)
            .map_err(|error| engine::open_failure(volume, &error))?;
        let local = std::fs::read(volume.path.join(fs_volume::manifest_path(slot.seq)));
        Ok(Newest {
            epoch: slot.epoch.0,
            seq: slot.seq.0,
            manifest: slot.id.to_hex(),
            parent: slot.parent.to_hex(),
            writer: slot.device.to_hex(),
            time: output::time_utc(info.time.0),
            age_seconds: seconds_since(info.time.0, engine::now_nanos()),
            is_own: slot.device == own,
            is_here: local.is_ok_and(|local| slot.bytes == local),
        })
    });
    let claim = head.claim.map(|claim| Claimed {
        epoch: claim.epoch.0,
        writer: DeviceId(claim.device).to_hex(),
        is_own: DeviceId(claim.device) == own,
    });
    let object = std::fs::read(volume.path.join("head")).ok();
    let here = object.as_ref().and_then(|object| Some((open_manifest(object).ok()?.0, manifest_id(object))));
    Ok(HeadReport {
        name: volume.name.to_string(),
        public_key: volume.id.to_hex(),
        store: store.name.clone(),
        url: store.url.clone(),
        newest: newest.transpose()?,
        claim,
        seen: Seen::read(volume, &store.name)?,
        here: Here {
            writer: own.to_hex(),
            epoch: here.as_ref().map(|(header, _)| header.epoch.0),
            seq: here.as_ref().map(|(header, _)| header.seq.0),
            manifest: here.as_ref().map(|(_, id)| id.to_hex()),
            is_others: engine::is_others(volume)?,
            taken_over: notes::ended(volume)?,
        },
    })
}
