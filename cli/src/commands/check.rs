//! `comb check`.

use clap::Args;
use fs_volume::{Damage, Options};
use serde::Serialize;

use crate::control::Address;
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output::{self, JsonPath};
use crate::state::{State, VolumeFolder};
use crate::{engine, progress};

/// Read everything that a volume keeps, and name what is damaged
///
/// Every manifest, pack, node and chunk of every moment is read and verified. The volume may be mounted
/// meanwhile. Nothing is changed.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The volume
    name: VolumeName,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonDamage {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<u64>,
    #[serde(flatten)]
    path: Option<JsonPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<(u64, u64)>,
}

#[derive(Serialize)]
struct JsonReport {
    seals: u64,
    packs: u64,
    bytes: u64,
    nodes: u64,
    chunks: u64,
    damage: Vec<JsonDamage>,
}

/// Checks a volume.
pub fn run(state: &State, args: &CheckArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let history = engine::history(&volume)?;
    let bar = progress::bytes("checking");
    let told = bar.clone();
    let report = history.check(&move |done, all| {
        told.set_length(all);
        told.set_position(done);
    });
    bar.finish_and_clear();
    let mut report = report.map_err(|error| engine::open_failure(&volume, &error))?;
    let journal = check_journal(state, &volume)?.into_iter();
    report.damage.extend(journal.map(|what| Damage { what, seals: None, path: None, range: None }));

    if args.json {
        output::json(&JsonReport {
            seals: report.seals,
            packs: report.packs,
            bytes: report.bytes,
            nodes: report.nodes,
            chunks: report.chunks,
            damage: report.damage.iter().map(to_json).collect(),
        })?;
    } else {
        for damage in &report.damage {
            output::line(&shown(damage))?;
        }
        output::note(&format!(
            "read {} moments, {} packs ({}), {} nodes, {} chunks",
            report.seals,
            report.packs,
            output::size(report.bytes),
            report.nodes,
            report.chunks
        ));
    }
    match report.damage.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Kind::Damaged,
            format!(
                "volume \"{}\" is damaged in {count} {}",
                volume.name,
                if count == 1 { "place" } else { "places" }
            ),
        )
        .hint("what is not named is whole: `comb restore` takes it out")),
    }
}

/// Reads the journal as a replay would: through the daemon if the volume is mounted, else by opening it.
fn check_journal(state: &State, volume: &VolumeFolder) -> Result<Vec<String>> {
    if let Some(damage) = Address::live(&volume.path).check_journal()? {
        return Ok(damage);
    }
    let lock = volume.lock_to_read()?;
    let options = Options { read_only: true, ..engine::command_options() };
    match engine::open(state, volume, &lock, options) {
        Ok(opened) => Ok(opened.check_journal()),
        Err(failure) if failure.kind == Kind::Damaged => Ok(vec![failure.message]),
        Err(failure) => Err(failure),
    }
}

/// `photos/a.jpg: bytes 0 to 65536: seq 3 to 7: packs/…: what is wrong`.
fn shown(damage: &Damage) -> String {
    let mut parts = Vec::new();
    parts.extend(damage.path.as_ref().map(|path| output::escape(path)));
    parts.extend(damage.range.map(|(from, to)| format!("bytes {from} to {to}")));
    parts.extend(damage.seals.map(|(first, last)| match first == last {
        true => format!("seq {first}"),
        false => format!("seq {first} to {last}"),
    }));
    parts.push(output::escape(damage.what.as_bytes()));
    parts.join(": ")
}

fn to_json(damage: &Damage) -> JsonDamage {
    JsonDamage {
        what: damage.what.clone(),
        first_seq: damage.seals.map(|(first, _)| first.0),
        last_seq: damage.seals.map(|(_, last)| last.0),
        path: damage.path.as_ref().map(|path| JsonPath::new(path)),
        range: damage.range,
    }
}

#[cfg(test)]
mod tests {
    use fs_format::Seq;

    use super::*;

    #[test]
    fn damage_names_path_bytes_and_moments() {
        let damage = Damage {
            what: "packs/ab: frame 3 failed".into(),
            seals: Some((Seq(3), Seq(7))),
            path: Some(b"a\nb".to_vec()),
            range: Some((0, 65536)),
        };
        assert_eq!(shown(&damage), "a\\nb: bytes 0 to 65536: seq 3 to 7: packs/ab: frame 3 failed");
        let bare = Damage { what: "packs/cd: is truncated".into(), seals: None, path: None, range: None };
        assert_eq!(shown(&bare), "packs/cd: is truncated");
    }
}
