//! `comb status`.

use clap::Args;
use serde::Serialize;

use crate::control::Address;
use crate::engine;
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output::{self, Align, Table};
use crate::replica::StoreReport;
use crate::report::{MountReport, SealReport};
use crate::state::{State, VolumeFolder};

/// Show how the volumes are: mounted where, sealed when, and what is wrong
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this volume
    name: Option<VolumeName>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct VolumeStatus {
    name: String,
    public_key: String,
    quota_bytes: Option<u64>,
    /// The newest seal on the disk; none if it could not be read.
    head: Option<SealReport>,
    /// Why it could not be read, or its daemon did not tell how it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    /// What is damaged, as far as it was met; `comb check` finds all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<String>,
    mounts: Vec<MountReport>,
}

/// Shows the status of all volumes, or of one.
pub fn run(state: &State, args: &StatusArgs) -> Result<()> {
    let volumes = match &args.name {
        Some(name) => vec![state.volume(name)?],
        None => state.volumes()?,
    };
    let list = volumes.iter().map(status).collect::<Result<Vec<_>>>()?;
    if args.json {
        return output::json(&list);
    }
    print(&list)?;
    let late = list
        .iter()
        .find(|volume| volume.mounts.iter().any(|mount| mount.stores.iter().any(|store| store.behind)));
    if let Some(late) = late {
        return Err(Failure::new(
            Kind::Behind,
            format!("volume \"{}\" is not safe: a store is later than promised", late.name),
        )
        .hint(format!("`comb store test {}` shows whether the store answers", late.name)));
    }
    match (&args.name, list.into_iter().next().and_then(|status| status.failure)) {
        // Who asks for one volume is told by the exit code too.
        (Some(_), Some(failure)) => Err(failure),
        _ => Ok(()),
    }
}

fn status(volume: &VolumeFolder) -> Result<VolumeStatus> {
    let mut mounts: Vec<MountReport> = Vec::new();
    let mut silent = None;
    for address in Address::all(&volume.path) {
        match address.status() {
            Ok(report) => mounts.extend(report),
            // One volume whose daemon gives no answer does not hide the others.
            Err(failure) => silent = Some(failure),
        }
    }
    let live = mounts.iter().find(|mount| mount.moment.is_none()).map(|mount| mount.head.clone());
    let mut damage: Vec<String> = mounts.iter().flat_map(|mount| mount.damage.clone()).collect();
    let head = match live {
        Some(head) => Ok(head),
        None => engine::history(volume).and_then(|history| {
            let head = history.head().map_err(|error| engine::open_failure(volume, &error))?;
            damage.extend(history.damage());
            Ok(SealReport::from(&head))
        }),
    };
    let (head, failure) = match head {
        Ok(head) => (Some(head), silent),
        Err(failure) => (None, Some(failure)),
    };
    let quota_bytes = match volume.config() {
        Ok(config) => config.quota_bytes,
        Err(failure) => {
            damage.push(match failure.hint {
                Some(hint) => format!("{}: {hint}", failure.message),
                None => failure.message,
            });
            None
        }
    };
    Ok(VolumeStatus {
        name: volume.name.to_string(),
        public_key: volume.id.to_hex(),
        quota_bytes,
        head,
        failure,
        damage,
        mounts,
    })
}

/// How far a store is, in words.
fn told(store: &StoreReport) -> String {
    let mut text = format!("store \"{}\" ", store.name);
    text += &match (&store.replicated_seq, store.unsafe_seconds) {
        (None, _) => "has nothing yet".to_owned(),
        (Some(seq), 0.0) => format!("has everything (seq {seq})"),
        (Some(seq), seconds) => {
            format!("lacks {seconds:.0} s, {} (has seq {seq})", output::size(store.unsafe_bytes))
        }
    };
    if store.rate > 0 {
        text += &format!(", {}/s", output::size(store.rate));
    }
    if store.behind {
        text += ", LATER THAN PROMISED";
    }
    let trying = |next: f64| format!("; next try in {next:.0} s");
    // An error that was overcome is no news.
    if let Some(error) =
        store.last_error.as_ref().filter(|_| store.state != "replicated" && store.state != "sending")
    {
        text += &format!(": {error}{}", store.next_try_seconds.map_or_else(String::new, trying));
    }
    text
}

fn print(list: &[VolumeStatus]) -> Result<()> {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("SEQ", Align::Right),
        ("SEALED", Align::Left),
        ("FILES", Align::Right),
        ("BYTES", Align::Right),
        ("UNSEALED", Align::Right),
        ("STATE", Align::Left),
    ]);
    for volume in list {
        let live = volume.mounts.iter().find(|mount| mount.moment.is_none());
        let (seq, sealed, files, bytes) = match &volume.head {
            Some(head) => (
                head.seq.to_string(),
                head.time.parse::<jiff::Timestamp>().map_or_else(
                    |_| head.time.clone(),
                    |time| output::time_local(i64::try_from(time.as_nanosecond()).unwrap_or_default()),
                ),
                head.files.to_string(),
                output::size(head.bytes),
            ),
            None => ("?".into(), "?".into(), "?".into(), "?".into()),
        };
        table.row(vec![
            volume.name.clone(),
            seq,
            sealed,
            files,
            bytes,
            live.map_or_else(|| "-".into(), |mount| output::size(mount.dirty_bytes)),
            match (&volume.failure, live) {
                (Some(_), _) if volume.head.is_some() => "gives no answer".into(),
                (Some(_), _) => "cannot be read".into(),
                (None, None) => "not mounted".into(),
                (None, Some(mount)) if mount.read_only => format!("read-only on {}", mount.mount_point),
                (None, Some(mount)) => format!("mounted on {}", mount.mount_point),
            },
        ]);
    }
    table.print()?;
    for volume in list {
        for mount in &volume.mounts {
            if let Some(seq) = mount.moment {
                output::line(&format!("{}: seq {seq} is mounted on {}", volume.name, mount.mount_point))?;
            }
            if let Some(trouble) = &mount.trouble {
                output::line(&format!("{}: read-only because {trouble}", volume.name))?;
            }
            if let Some(error) = &mount.seal_error {
                output::line(&format!("{}: the last seal failed: {error}", volume.name))?;
            }
        }
        // What turned it read-only was just said.
        let said = |damage: &str| volume.mounts.iter().any(|mount| mount.trouble.as_deref() == Some(damage));
        for damage in volume.damage.iter().filter(|damage| !said(damage)) {
            output::line(&format!("{}: {}", volume.name, output::escape(damage.as_bytes())))?;
        }
        for store in volume.mounts.iter().flat_map(|mount| &mount.stores) {
            output::line(&format!("{}: {}", volume.name, told(store)))?;
        }
        if !volume.damage.is_empty() {
            output::note(&format!("hint: {}", engine::way_out(&volume.name)));
        } else if volume.mounts.iter().flat_map(|mount| &mount.stores).any(|store| store.state == "fenced") {
            output::note(&format!(
                "hint: `comb branch list {}` shows what is not in the volume",
                volume.name
            ));
        } else if volume.mounts.iter().any(|mount| mount.trouble.is_some()) {
            output::note(&format!(
                "hint: see that the disk of the state folder is well, then unmount \"{}\" and mount it again",
                volume.name
            ));
        }
        if let Some(failure) = &volume.failure {
            output::line(&format!("{}: {}", volume.name, failure.message))?;
        }
    }
    Ok(())
}
