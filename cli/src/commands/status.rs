//! `comb status`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use fs_volume::History;
use serde::Serialize;

use crate::control::Address;
use crate::cost::{self, Prices};
use crate::failure::{Context, Failure, Kind, Result};
use crate::name::VolumeName;
use crate::notes::{Ended, TAKEN_OVER};
use crate::output::{self, Align, Table};
use crate::report::{ENDING, MountReport, SealReport, StoreReport};
use crate::state::{Config, State, VolumeFolder};
use crate::stores::StoreConfig;
use crate::{branches, engine, notes, resting};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show how the volumes are: mounted where, sealed when, what their stores lack and cost, and what is wrong
///
/// It ends with 9 where a store is later than promised, whether the volume is mounted or not, where another device took it
/// over, and where writes are refused because what waits for stores finds no room; with 11 where a daemon gives no
/// answer, and with 5 where it is not known what was seen of the store of a volume that another device writes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this volume
    name: Option<VolumeName>,

    /// Look every second until it is interrupted
    #[arg(long)]
    watch: bool,

    /// Print JSON; with --watch, a line for each change
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
    /// Since when another device writes the volume, which took it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken_over: Option<Ended>,
    /// Whether something was written here that is not in the volume, because another device took it over.
    #[serde(skip)]
    has_tail: bool,
    /// Whether it is only looked at, and has no store any more in which something new would be seen.
    #[serde(skip)]
    follows_nothing: bool,
    /// How far each store is, of a volume that no daemon tells of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stores: Vec<StoreReport>,
    /// What each store costs a month in dollars, about, where that is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dollars_per_month: BTreeMap<String, f64>,
}

impl VolumeStatus {
    /// How far each store is, mounted or not.
    fn stores(&self) -> impl Iterator<Item = &StoreReport> {
        self.mounts.iter().flat_map(|mount| &mount.stores).chain(&self.stores)
    }

    /// What is to be said of a volume that another device took over and that has no store which would say it.
    fn taken_over_without_store(&self) -> Option<String> {
        let ended = self.taken_over.as_ref().filter(|_| self.stores().next().is_none())?;
        let rest = match self.has_tail {
            true => format!("what only this machine has is all from seal {} on", ended.at),
            false => "it has all that was written here".to_owned(),
        };
        Some(format!("{}; {rest}", ended.told()))
    }

    /// Whether another device took it over, also where that is not written down yet, and where its stores did not say so yet.
    fn is_taken_over(&self) -> bool {
        let is_told = |mount: &MountReport| {
            mount.trouble.as_ref().is_some_and(|trouble| trouble.starts_with(TAKEN_OVER))
        };
        self.taken_over.is_some() || self.mounts.iter().any(is_told)
    }

    /// The mount of its live tree.
    fn live(&self) -> Option<&MountReport> {
        self.mounts.iter().find(|mount| mount.moment.is_none())
    }
}

/// Shows the status of all volumes, or of one.
pub fn run(state: &State, args: &StatusArgs) -> Result<()> {
    if args.watch {
        return watch(state, args);
    }
    let list = look(state, args)?;
    if args.json {
        output::json(&list)?;
    } else {
        print(&list)?;
    }
    let mut failures = list.iter().filter_map(|volume| volume.failure.as_ref());
    if let Some(failure) = failures.find(|failure| failure.kind == Kind::Silent) {
        return Err(failure.clone());
    }
    let mut with_stores = list.iter().filter(|volume| volume.stores().next().is_some());
    if let Some(volume) = with_stores.find(|volume| volume.is_taken_over()) {
        let what = format!("volume \"{}\" is not safe: another device took it over", volume.name);
        let mount_point = volume.live().map(|mount| &*mount.mount_point);
        return Err(Failure::new(Kind::Behind, what).hint(engine::way_on(&volume.name, mount_point)));
    }
    let mut stores = list.iter().flat_map(|volume| volume.stores().map(move |store| (&volume.name, store)));
    if let Some((volume, store)) = stores.find(|(_, store)| store.behind) {
        let (what, hint) = match store.needs_somebody {
            true => (
                format!("store \"{}\" takes nothing before somebody does something", store.name),
                match &store.last_error {
                    Some(error) => error.clone(),
                    None => format!("`comb store test {volume}` shows whether the store answers"),
                },
            ),
            false => (
                "a store is later than promised".to_owned(),
                format!("`comb store test {volume}` shows whether the store answers"),
            ),
        };
        return Err(Failure::new(Kind::Behind, format!("volume \"{volume}\" is not safe: {what}")).hint(hint));
    }
    // Whoever parted from the store must not forget that.
    if let Some((volume, why)) =
        list.iter().find_map(|one| Some((&one.name, one.taken_over_without_store()?)))
    {
        let what = format!("volume \"{volume}\" is not safe: {why}");
        return Err(Failure::new(Kind::Behind, what).hint(format!(
            "`comb volume open {volume} --store URL` goes on with it from the store in which it was taken over, with --read-only it \
             follows the other; what only this machine has becomes a branch"
        )));
    }
    for volume in &list {
        let mut rooms = volume.mounts.iter().filter_map(|mount| mount.room.as_ref());
        if rooms.any(|room| room.refused) {
            let what =
                format!("volume \"{}\" takes no data: what waits for its stores finds no room", volume.name);
            let hint = format!("`comb store test {}` shows whether they answer", volume.name);
            return Err(Failure::new(Kind::Behind, what).hint(hint));
        }
    }
    let mut stores = list.iter().flat_map(|volume| volume.stores().map(move |store| (&volume.name, store)));
    if let Some((volume, store)) = stores.find(|(_, store)| store.state == "unknown") {
        let what = format!(
            "nothing new is shown of volume \"{volume}\": what was seen of store \"{}\" is damaged",
            store.name
        );
        return Err(Failure::new(Kind::Damaged, what).hint(store.last_error.clone().unwrap_or_default()));
    }
    match (&args.name, list.first().and_then(|status| status.failure.clone())) {
        // Who asks for one volume is told by the exit code too; JSON has it in a field.
        (Some(_), Some(failure)) if !args.json => Err(failure),
        _ => Ok(()),
    }
}

fn look(state: &State, args: &StatusArgs) -> Result<Vec<VolumeStatus>> {
    let volumes = match &args.name {
        Some(name) => vec![state.volume(name)?],
        None => state.volumes()?,
    };
    volumes.iter().map(|volume| status(state, volume)).collect()
}

/// Shows it again and again, until an interrupt ends the process or nobody reads any more.
fn watch(state: &State, args: &StatusArgs) -> Result<()> {
    const CLEAR: &str = "\x1b[H\x1b[2J";
    let mut shown = String::new();
    loop {
        let list = look(state, args)?;
        let text = serde_json::to_string(&list).map_err(io::Error::from).context("writing JSON")?;
        let is_news = text != shown;
        shown = text;
        let mut out = io::stdout();
        let told = match args.json {
            true if is_news => writeln!(out, "{shown}"),
            true => Ok(()),
            false if out.is_terminal() => write!(out, "{CLEAR}"),
            // A log of it: nothing is drawn over, so only changes are worth a line.
            false => Ok(()),
        };
        match told.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            told => told.context("standard output")?,
        }
        if !args.json && (is_news || out.is_terminal()) {
            print(&list)?;
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn status(state: &State, volume: &VolumeFolder) -> Result<VolumeStatus> {
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
    let config = volume.config();
    let is_priced = |config: &Config| config.stores.iter().any(|store| Prices::of(store).is_some());
    // What a daemon tells needs no look at the volume. One that gives no answer may have sent nothing for long.
    let is_untold = live.is_none();
    let history = match is_untold || config.as_ref().is_ok_and(is_priced) {
        true => Some(engine::history_here(volume)),
        false => None,
    };
    let head = match (live, &history) {
        (Some(head), _) => Ok(head),
        (None, Some(Ok(history))) => {
            let head = history.head().map_err(|error| engine::open_failure(volume, &error));
            damage.extend(history.damage());
            head.map(|head| SealReport::from(&head))
        }
        (None, Some(Err(failure))) => Err(failure.clone()),
        (None, None) => Err(Failure::other("the volume was not looked at")),
    };
    let (head, failure) = match head {
        Ok(head) => (Some(head), silent.clone()),
        Err(failure) => (None, silent.clone().or(Some(failure))),
    };
    let mut stores = Vec::new();
    let mut dollars_per_month = BTreeMap::new();
    if let (Ok(config), Some(Ok(history)), None) = (&config, &history, volume.name.branch()) {
        if is_untold {
            match resting::reports(state, volume, config, history) {
                // What a volume lacks that is only followed does not depend on its daemon.
                Ok(reports) if silent.is_some() && !config.follows => {
                    let untold = |report| StoreReport { state: "no-answer".into(), ..report };
                    stores = reports.into_iter().map(untold).collect();
                }
                Ok(reports) => stores = reports,
                Err(failure) => {
                    damage.push(format!("what its stores lack is not known: {}", failure.message))
                }
            }
        }
        dollars_per_month = costs(config, history);
    }
    let follows_nothing = config.as_ref().is_ok_and(|config| config.follows && config.stores.is_empty())
        && volume.name.branch().is_none();
    let quota_bytes = match config {
        Ok(config) => config.quota_bytes,
        Err(failure) => {
            damage.push(match failure.hint {
                Some(hint) => format!("{}: {hint}", failure.message),
                None => failure.message,
            });
            None
        }
    };
    // A branch is what it is: nothing of it is to be sent, and nothing more is cut off.
    let ended = notes::ended(volume).ok().flatten().filter(|_| volume.name.branch().is_none());
    Ok(VolumeStatus {
        has_tail: ended.as_ref().is_some_and(|ended| branches::has_tail(volume, ended)),
        taken_over: ended,
        follows_nothing,
        name: volume.name.to_string(),
        public_key: volume.id.to_hex(),
        quota_bytes,
        head,
        failure,
        damage,
        mounts,
        stores,
        dollars_per_month,
    })
}

/// What each store costs a month, about. One that keeps no list prices, and a volume that cannot be read, cost nothing here.
fn costs(config: &Config, history: &History) -> BTreeMap<String, f64> {
    let priced: Vec<_> = config.stores.iter().filter_map(|store| Some((store, Prices::of(store)?))).collect();
    if priced.is_empty() {
        return BTreeMap::new();
    }
    let (Ok((packs, _)), Ok(seals)) = (history.needed_packs(), history.seals()) else {
        return BTreeMap::new();
    };
    let bytes = packs.iter().map(|pack| u64::from(pack.bytes)).sum();
    let now = engine::now_nanos();
    let creates = cost::creates_of_a_month(&seals, now);
    let month = |(store, prices): (&StoreConfig, Prices)| {
        let (lists, reads) = cost::looks_of_a_month(store, config);
        (store.name.clone(), prices.month(bytes, creates + lists, reads))
    };
    priced.into_iter().map(month).collect()
}

/// How far a store is, in words.
fn told(store: &StoreReport, dollars: Option<f64>) -> String {
    let mut text = format!("store \"{}\" ", store.name);
    text += &match (&store.replicated_seq, store.unsafe_seconds) {
        (None, _) if store.state == "starting" => "is being asked".to_owned(),
        (None, 0.0) if matches!(&*store.state, "waiting" | "not-open") => "was not reached yet".to_owned(),
        (None, seconds) if matches!(&*store.state, "waiting" | "not-open") => {
            format!("was not reached yet, lacks {seconds:.0} s, {}", output::size(store.unsafe_bytes))
        }
        (None, _) if store.state == "unknown" => "is not known".to_owned(),
        (None, _) if store.state == "followed" => "is followed".to_owned(),
        (None, _) if store.needs_somebody => "is not known to have anything".to_owned(),
        (None, _) => "has nothing yet".to_owned(),
        (Some(seq), _) if store.state == "followed" => {
            format!("is followed: seq {seq} was seen there last")
        }
        (Some(seq), 0.0) if store.needs_somebody && store.state != "fenced" => {
            format!("takes nothing more (seq {seq} was seen there)")
        }
        (Some(seq), 0.0) => format!("has everything (seq {seq})"),
        (Some(seq), seconds) => {
            format!("lacks {seconds:.0} s, {} (has seq {seq})", output::size(store.unsafe_bytes))
        }
    };
    if let Some(seconds) = store.unseen_seconds {
        text += &format!(", NOT SEEN FOR {seconds:.0} s");
    }
    if store.rate > 0 {
        text += &format!(", {}/s", output::size(store.rate));
    }
    if store.state == "fenced" {
        text += ", TAKEN OVER";
    } else if store.behind && store.needs_somebody {
        text += ", NOT SAFE BEFORE SOMEBODY DOES SOMETHING";
    } else if store.late_seconds > 0.0 {
        text += &format!(", LATER THAN PROMISED ({:.0} s)", store.promised_seconds);
    }
    text += &match dollars {
        None => String::new(),
        Some(dollars) if dollars < 0.01 => ", less than $0.01 a month".into(),
        Some(dollars) => format!(", about ${dollars:.2} a month"),
    };
    let trying = |next: f64| format!("; next try in {next:.0} s");
    // An error that was overcome is no news.
    let is_overcome = matches!(&*store.state, "replicated" | "sending") && !store.needs_somebody;
    if let Some(error) = store.last_error.as_ref().filter(|_| !is_overcome) {
        text += &format!(": {error}{}", store.next_try_seconds.map_or_else(String::new, trying));
    }
    text
}

/// Whether a store lacks something, and takes it as soon as it is sent.
fn can_be_sent(store: &StoreReport) -> bool {
    store.unsafe_seconds > 0.0 && !store.needs_somebody
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
        let live = volume.live();
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
                (None, None) if volume.name.contains('/') => "a branch".into(),
                (None, None) => "not mounted".into(),
                (None, Some(mount)) if mount.ending => "ending".into(),
                (None, Some(mount)) if mount.read_only => format!("read-only on {}", mount.mount_point),
                (None, Some(mount)) => format!("mounted on {}", mount.mount_point),
            },
        ]);
    }
    table.print()?;
    for volume in list {
        if volume.follows_nothing {
            output::line(&format!(
                "{}: another device writes it, and it follows no store: nothing new is shown",
                volume.name
            ))?;
            output::note(&format!(
                "hint: `comb volume open {} --store URL` opens it from one again",
                volume.name
            ));
        }
        for mount in &volume.mounts {
            if let Some(seq) = mount.moment {
                output::line(&format!("{}: seq {seq} is mounted on {}", volume.name, mount.mount_point))?;
            }
            if mount.ending {
                output::line(&format!("{}: not mounted any more: {ENDING}", volume.name))?;
            }
            if let Some(lease) = mount.lease.as_ref().filter(|lease| !lease.over) {
                let seconds = lease.left_ms as f64 / 1000.0;
                output::line(&format!("{}: takes changes for {seconds:.0} s more", volume.name))?;
            }
            if let Some(trouble) = &mount.trouble {
                output::line(&format!("{}: read-only because {trouble}", volume.name))?;
            }
            if let Some(why) = mount.room.as_ref().and_then(|room| room.held_up.as_ref()) {
                output::line(&format!("{}: {why}", volume.name))?;
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
        for store in volume.stores() {
            let dollars = volume.dollars_per_month.get(&store.name).copied();
            output::line(&format!("{}: {}", volume.name, told(store, dollars)))?;
        }
        if let Some(why) = volume.taken_over_without_store() {
            output::line(&format!("{}: TAKEN OVER: {why}", volume.name))?;
        }
        if !volume.damage.is_empty() {
            output::note(&format!("hint: {}", engine::way_out(&volume.name)));
        } else if volume.has_tail {
            output::note(&format!(
                "hint: `comb branch list {}` shows what is not in the volume",
                volume.name
            ));
        } else if volume.is_taken_over() {
            // What to do is said last.
        } else if volume.failure.is_none() && volume.stores.iter().any(can_be_sent) {
            output::note(&format!(
                "hint: `comb mount {0}` sends what is missing, and so does `comb sync {0}` once",
                volume.name
            ));
        } else if volume.mounts.iter().any(|mount| mount.lease.as_ref().is_some_and(|lease| lease.over)) {
            output::note(&format!("hint: a new mount of \"{}\" takes changes again", volume.name));
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
