//! `comb check`.

use clap::{Args, ValueEnum};
use fs_volume::{CheckReport, Damage, History, Options};
use serde::Serialize;

use crate::control::Address;
use crate::drill::{self, Drilled};
use crate::failure::{Failure, Kind, Result};
use crate::name::VolumeName;
use crate::output::{self, JsonPath};
use crate::state::{State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::survey::{self, Depth, Mended, Ours, StoreLook};
use crate::{elsewhere, engine, keys, progress};

/// Look whether a volume is whole, here and in its stores, and name what is damaged
///
/// Nothing is changed, unless --repair says so; the volume may be mounted meanwhile. Without --level everything here is
/// read, and what the stores hold is compared by listing it. A store that does not answer is told by exit code 10, after
/// everything else was looked at.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The volume
    name: VolumeName,

    /// How much is looked at; each of the first three includes the one before
    #[arg(long, value_enum, default_value_t = Level::Data)]
    level: Level,

    /// Look at what this store holds, instead of here: with the level `data`, its packs are read
    #[arg(long, value_name = "STORE")]
    store: Option<VolumeName>,

    /// Put back what is damaged or missing in one place from another where it is whole
    #[arg(long)]
    repair: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Manifests here; slots, claims and boundaries in the stores
    Manifest,
    /// And whether each pack is in its places, with its length
    Packs,
    /// And every byte, from the packs to the files of every moment
    Data,
    /// A trial: the volume is restored from a store alone, read, compared with what is here, and forgotten
    Drill,
}

impl Level {
    /// How closely stores are looked at; their packs are read only if they stand for what is here.
    fn depth(self, is_named: bool) -> Depth {
        match self {
            Self::Manifest => Depth::Manifests,
            Self::Data | Self::Drill if is_named => Depth::Bytes,
            _ => Depth::Packs,
        }
    }
}

#[derive(Serialize)]
struct JsonDamage {
    what: String,
    /// The store, if it is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
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
    level: Level,
    seals: u64,
    packs: u64,
    bytes: u64,
    nodes: u64,
    chunks: u64,
    /// Packs that a store has and this machine need not have.
    elsewhere_packs: u64,
    damage: Vec<JsonDamage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stores: Vec<StoreLook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mended: Vec<Mended>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<Drilled>,
}

/// What was found.
#[derive(Default)]
struct Found {
    /// Here; none if only a store was looked at.
    here: Option<CheckReport>,
    stores: Vec<StoreLook>,
    drill: Option<Drilled>,
}

/// Checks a volume.
pub fn run(state: &State, args: &CheckArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let stores = chosen(&volume, args)?;
    let mut mended = Vec::new();
    let found = if args.level == Level::Drill {
        let drilled = run_drill(state, &volume, &stores)?;
        Found { drill: Some(drilled), ..Found::default() }
    } else {
        let mut found = look(state, &volume, args, args.level, &stores)?;
        if args.repair {
            let history = engine::history(&volume)?;
            mended = survey::mend(&volume, &history, found.here.as_ref(), &found.stores)?;
            // What is whole nowhere is named by the paths that it is needed for, which only reading all of it tells.
            let is_lost = found.here.as_ref().is_some_and(|here| !here.bad_packs.is_empty());
            let level = if is_lost { Level::Data } else { args.level };
            if !mended.is_empty() || level != args.level {
                found = look(state, &volume, args, level, &stores)?;
            }
        }
        found
    };
    if found.stores.iter().any(|look| look.failure.is_some() || !look.flaws.is_empty()) {
        // What it says of that store it would find out by itself, too, but in some minutes only.
        if let Err(failure) = Address::live(&volume.path).look_at_stores() {
            output::note(&format!("warning: the daemon was not told: {}", failure.message));
        }
    }
    tell(&volume, args, found, mended)
}

/// The stores that are looked at.
fn chosen(volume: &VolumeFolder, args: &CheckArgs) -> Result<Vec<StoreConfig>> {
    if args.level == Level::Drill && args.repair {
        return Err(Failure::new(Kind::Usage, "a drill repairs nothing")
            .hint("`--level data --repair` reads everything and mends what it can"));
    }
    if volume.name.branch().is_some() {
        // Its seals are in no store: there, somebody else's have their numbers.
        return match args.store.is_some() || args.level == Level::Drill {
            true => Err(Failure::new(
                Kind::Usage,
                format!("\"{}\" is a branch, which is on this machine only", volume.name),
            )),
            false => Ok(Vec::new()),
        };
    }
    let stores = match volume.config() {
        Ok(config) => config.stores,
        // What is here can be looked at without; whoever needs the config says what is wrong with it.
        Err(failure) if args.store.is_none() && args.level != Level::Drill => {
            output::warn_once(&failure.message);
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    if args.store.is_some() || args.level == Level::Drill {
        let named = args.store.as_ref().map(VolumeName::as_str);
        let arbiter = stores.iter().find(|store| store.arbiter).map(|store| store.name.clone());
        return super::store::choose(volume, named.or(arbiter.as_deref())).map(|store| vec![store]);
    }
    Ok(stores)
}

fn run_drill(state: &State, volume: &VolumeFolder, stores: &[StoreConfig]) -> Result<Drilled> {
    let [store] = stores else {
        return Err(Failure::new(Kind::NotFound, format!("volume \"{}\" has no store", volume.name)));
    };
    let bar = progress::bytes("restoring");
    let drilled = drill::run(state, volume, store, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    drilled
}

/// Looks at what is here, and at stores.
fn look(
    state: &State,
    volume: &VolumeFolder,
    args: &CheckArgs,
    level: Level,
    stores: &[StoreConfig],
) -> Result<Found> {
    elsewhere::refresh(volume);
    let history = engine::history(volume)?;
    let mut found = Found::default();
    if !stores.is_empty() {
        let bar = progress::bytes("reading the store");
        let ours = Ours::of(volume, &history)?;
        let looks = survey::look(volume, &ours, stores, level.depth(args.store.is_some()), &bar);
        bar.finish_and_clear();
        found.stores = looks;
    }
    if args.store.is_none() {
        found.here = Some(look_here(state, volume, &history, level)?);
    }
    Ok(found)
}

fn look_here(state: &State, volume: &VolumeFolder, history: &History, level: Level) -> Result<CheckReport> {
    let fail = |error| engine::open_failure(volume, &error);
    match level {
        Level::Manifest => history.check_manifests().map_err(fail),
        Level::Packs => history.check_packs().map_err(fail),
        Level::Data | Level::Drill => {
            let bar = progress::bytes("checking");
            let report = history.check(&|done, all| {
                bar.set_length(all);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            let mut report = report.map_err(fail)?;
            let journal = check_journal(state, volume)?.into_iter();
            report.damage.extend(journal.map(|what| Damage { what, seals: None, path: None, range: None }));
            Ok(report)
        }
    }
}

/// Prints what was found; a failure if it is not all well.
fn tell(volume: &VolumeFolder, args: &CheckArgs, found: Found, mended: Vec<Mended>) -> Result<()> {
    let here = found.here.unwrap_or_default();
    let mut damage: Vec<JsonDamage> = here.damage.iter().map(to_json).collect();
    let mut lines: Vec<String> = here.damage.iter().map(shown).collect();
    let mut add = |store: &str, one: &Damage| {
        damage.push(JsonDamage { store: Some(store.to_owned()), ..to_json(one) });
        lines.push(format!("store \"{store}\": {}", shown(one)));
    };
    for look in &found.stores {
        for flaw in &look.flaws {
            add(&look.name, &whole(flaw.what.clone()));
        }
    }
    if let Some(drill) = &found.drill {
        drill.report.damage.iter().for_each(|one| add(&drill.store, one));
        if drill.same_as_here == Some(false) {
            add(&drill.store, &whole(format!("seal {} is not what it is here", drill.seq)));
        }
    }
    let counted = damage.len();
    let put_back: usize = found.stores.iter().map(StoreLook::put_back).sum();
    let has_flaws = found.stores.iter().any(|look| !look.flaws.is_empty());
    let away = found.stores.iter().find_map(|look| {
        let failure = look.failure.clone()?;
        Some(Failure {
            message: format!("store \"{}\" was not checked: {}", look.name, failure.message),
            ..failure
        })
    });
    let away = away.or(here.away.as_ref().map(|why| {
        Failure::new(Kind::Unreachable, format!("not everything was checked: {why}"))
            .hint("what is not here is read from the store: see that it can be reached, and check again")
    }));

    if args.json {
        output::json(&JsonReport {
            level: args.level,
            seals: here.seals,
            packs: here.packs,
            bytes: here.bytes,
            nodes: here.nodes,
            chunks: here.chunks,
            elsewhere_packs: here.elsewhere.0,
            damage,
            stores: found.stores,
            mended,
            drill: found.drill,
        })?;
    } else {
        for one in &mended {
            output::line(&format!("mended {}: {}, from {}", one.place, one.what, one.from))?;
        }
        lines.iter().try_for_each(|line| output::line(line))?;
        if args.store.is_none() && found.drill.is_none() {
            output::note(&summary(&here, args.level));
        }
        found.stores.iter().for_each(tell_store);
        if let Some(drill) = &found.drill {
            tell_drill(drill);
        }
    }
    match (counted, away) {
        (0, None) => Ok(()),
        (0, Some(away)) => Err(away),
        (count, away) => {
            if let Some(away) = away {
                output::note(&format!("warning: {}", away.message));
            }
            let places = if count == 1 { "place" } else { "places" };
            let failure = Failure::new(
                Kind::Damaged,
                format!("volume \"{}\" is damaged in {count} {places}", volume.name),
            );
            if args.repair && has_flaws && keys::load_any(volume).is_ok_and(|key| key.signing().is_none()) {
                return Err(failure.hint(format!(
                    "this machine holds a read key: what a store has lost is put back where the volume is written, by `comb check {} \
                     --repair` there",
                    volume.name
                )));
            }
            if put_back > 0 {
                return Err(failure.hint(way_forward(volume, args.repair || put_back == count)));
            }
            let has_stores = volume.config().is_ok_and(|config| !config.stores.is_empty());
            Err(failure.hint(match has_stores && !args.repair {
                true => {
                    format!("`comb check {} --repair` puts back what another place has whole", volume.name)
                }
                false => "what is not named is whole: `comb restore` takes it out".into(),
            }))
        }
    }
}

/// What to do about a store that has lost its newest seal, which is no damage that repairing mends; `is_all` says whether there is
/// nothing else that it would.
fn way_forward(volume: &VolumeFolder, is_all: bool) -> String {
    let name = &volume.name;
    let believes = match engine::is_others(volume) {
        Ok(false) => format!("`comb sync {name} --accept-rollback` sends again what it lacks"),
        _ => format!(
            "`comb volume open {name} --accept-rollback`, with --read-only to look only, believes what it shows now"
        ),
    };
    match is_all {
        true => format!("a store was put back in time: see what happened to it; {believes}"),
        false => format!(
            "`comb check {name} --repair` puts back what another place has whole, but not the newest seal of a store that was put \
             back in time: {believes}"
        ),
    }
}

fn whole(what: String) -> Damage {
    Damage { what, seals: None, path: None, range: None }
}

fn summary(here: &CheckReport, level: Level) -> String {
    let packs = || format!("{} packs ({})", here.packs, output::size(here.bytes));
    let mut text = match level {
        Level::Manifest => format!("looked at {} moments", here.seals),
        Level::Packs => format!("looked at {} moments, {}", here.seals, packs()),
        Level::Data | Level::Drill => {
            format!("read {} moments, {}, {} nodes, {} chunks", here.seals, packs(), here.nodes, here.chunks)
        }
    };
    if here.elsewhere.0 > 0 {
        text += &format!(
            "; {} packs ({}) are in the store alone",
            here.elsewhere.0,
            output::size(here.elsewhere.1)
        );
    }
    text
}

fn tell_store(look: &StoreLook) {
    if look.failure.is_none() {
        let packs = match look.packs {
            0 => String::new(),
            packs => format!(", {packs} packs ({})", output::size(look.bytes)),
        };
        output::note(&format!("store \"{}\": {} slots{packs}", look.name, look.slots));
    }
    for note in &look.notes {
        output::note(&format!("store \"{}\": {note}", look.name));
    }
}

fn tell_drill(drill: &Drilled) {
    let same = match drill.same_as_here {
        Some(true) => "the same as here",
        Some(false) => "NOT the same as here",
        None if drill.sum.is_empty() => "not compared: it cannot be read",
        None => "not compared: that moment is not here",
    };
    output::note(&format!(
        "restored seal {} from store \"{}\": {} files, {} fetched; opened in {:.2} s, all read in {:.2} s; {same}",
        drill.seq,
        drill.store,
        drill.files,
        output::size(drill.bytes),
        drill.open_seconds,
        drill.seconds
    ));
}

/// Reads the journal as a replay would: through the daemon if the volume is mounted, else by opening it.
fn check_journal(state: &State, volume: &VolumeFolder) -> Result<Vec<String>> {
    if let Some(damage) = Address::live(&volume.path).check_journal()? {
        return Ok(damage);
    }
    // What others write is in their journal.
    if volume.config().is_ok_and(|config| config.follows) {
        return Ok(Vec::new());
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
        store: None,
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
