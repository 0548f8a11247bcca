//! `comb app list`.

use clap::Args;
use orchestrator_api::text::Hex;
use orchestrator_api::times::SILENT_AFTER;
use orchestrator_api::wire::app::{AgedReport, App, Volume, Wanted};
use orchestrator_api::wire::device::{Device, DeviceState};
use orchestrator_api::wire::report::{AppReport, Health, Phase, VolumeReport, VolumeState};

use crate::failure::Result;
use crate::hive::{HiveArgs, find, words};
use crate::output::{self, Align, Table};
use crate::state::State;

/// List the apps: where they run, how they are, how far their data is behind
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists apps.
pub fn run(state: &State, args: &ListArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let apps = find::apps(&client)?;
    if args.json {
        return output::json(&apps);
    }
    let devices = find::devices(&client)?;
    let mut table = Table::new(&[
        ("APP", Align::Left),
        ("STATE", Align::Left),
        ("DEVICE", Align::Left),
        ("DATA", Align::Left),
        ("REVISION", Align::Right),
        ("ADDRESS", Align::Left),
    ]);
    for app in &apps {
        let address = app.address.clone().or_else(|| {
            app.report.as_ref().and_then(|aged| aged.report.address.as_ref().map(ToString::to_string))
        });
        table.row(vec![
            output::escape(app.name.as_bytes()),
            how(app),
            output::escape(place(app, &devices).as_bytes()),
            data(app),
            app.revision.0.to_string(),
            output::escape(address.unwrap_or_else(|| "-".to_owned()).as_bytes()),
        ]);
    }
    table.print()
}

/// Where an app is, and whether that device is heard of.
pub fn place(app: &App, devices: &[Device]) -> String {
    let Some(id) = app.device else { return "-".to_owned() };
    let device = devices.iter().find(|device| device.id == id);
    let name = words::named(&find::device_names(devices), &id);
    match device.map(|device| device.state) {
        Some(DeviceState::Silent) => format!("{name} (silent)"),
        Some(DeviceState::Revoked) => format!("{name} (revoked)"),
        Some(DeviceState::Online | DeviceState::Draining) | None => name,
    }
}

/// Whether what a report says is of now; else it is told as what was.
fn is_old(aged: &AgedReport) -> bool {
    aged.age_ms.0 >= SILENT_AFTER
}

/// How an app is, in a few words.
pub fn how(app: &App) -> String {
    let problem = app.problem.as_ref().map(|problem| (problem, words::problem(&problem.code).0));
    let Some(aged) = &app.report else {
        let text = if app.wanted == Wanted::Stopped { "stopped" } else { "not heard of" };
        return problem.map_or_else(|| text.to_owned(), |(_, words)| format!("{text} ({words})"));
    };
    let word = phase(aged.report.phase);
    let text = match aged.report.health {
        Health::Healthy => format!("{word}, healthy"),
        Health::Starting => format!("{word}, not yet healthy"),
        Health::Unhealthy => format!("{word}, unhealthy"),
        Health::Unknown => format!("{word}, not known whether healthy"),
        Health::None => word.to_owned(),
    };
    let silent = || format!("not heard of for {}", words::age(aged.age_ms.0));
    match (is_old(aged), problem) {
        (false, None) => text,
        (false, Some((_, words))) => format!("{text} ({words})"),
        (true, None) => format!("{} (was {text})", silent()),
        // What the device said was then, what the hive says is now.
        (true, Some((problem, words))) if problem.device.is_some() => {
            format!("{} (was {text}: {words})", silent())
        }
        (true, Some((_, words))) => format!("{} (was {text}): {words}", silent()),
    }
}

/// A phase, for a person.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Absent => "not here",
        Phase::StandingBy => "standing by",
        Phase::Claiming => "taking its volumes over",
        Phase::Mounting => "mounting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Flushing => "bringing its data to the store",
        Phase::Stopped => "stopped",
        Phase::Settling => "stopped, another device has it",
    }
}

/// What is known of a volume's data.
enum Told<'a> {
    /// What was last reported of it.
    Safe(&'a VolumeReport),
    /// It is there, and some of it is in no store yet.
    Behind(&'a VolumeReport),
    /// Nobody told how much of it a store has.
    Unknown,
    /// Its device does not have it, or could not ask for it.
    Absent,
    /// It cannot be read there.
    Damaged,
}

impl<'a> Told<'a> {
    fn of(report: &'a AppReport, volume: &Hex<32>) -> Self {
        match report.volumes.iter().find(|told| told.volume == *volume) {
            None => Self::Unknown,
            Some(told) => match (told.state, told.backlog_bytes.0, told.replicated_age_ms) {
                (VolumeState::Damaged, ..) => Self::Damaged,
                (VolumeState::Absent, ..) => Self::Absent,
                (_, 0, Some(_)) => Self::Safe(told),
                (_, 0, None) => Self::Unknown,
                (_, _, _) => Self::Behind(told),
            },
        }
    }
}

/// How safe the data is: which volumes nothing is known of, and the oldest change that is in no store yet. Data is safe
/// only where each volume is there and a store was heard to have all of it.
pub fn data(app: &App) -> String {
    let made: Vec<(&str, Hex<32>)> =
        app.volumes.iter().filter_map(|volume| Some((volume.name.as_str(), volume.volume?))).collect();
    let Some(aged) = app.report.as_ref().filter(|_| !made.is_empty()) else { return "-".to_owned() };
    let told: Vec<(&str, Told<'_>)> =
        made.iter().map(|(name, volume)| (*name, Told::of(&aged.report, volume))).collect();
    let named = |is_meant: &dyn Fn(&Told<'_>) -> bool| {
        let names: Vec<&str> = told.iter().filter(|(_, one)| is_meant(one)).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut parts = Vec::new();
    parts.extend(named(&|one| matches!(one, Told::Damaged)).map(|names| format!("damaged: {names}")));
    parts.extend(named(&|one| matches!(one, Told::Absent)).map(|names| format!("not there: {names}")));
    parts.extend(named(&|one| matches!(one, Told::Unknown)).map(|names| format!("not known: {names}")));
    let behind = || {
        told.iter().filter_map(|(_, one)| match one {
            Told::Behind(report) => Some(*report),
            _ => None,
        })
    };
    let is_old = is_old(aged);
    if behind().next().is_some() {
        let bytes = output::size(behind().map(|volume| volume.backlog_bytes.0).sum());
        // Where it is told as what was, the age is that of then.
        let since = if is_old { 0 } else { aged.age_ms.0 };
        let oldest = behind().filter_map(|volume| volume.backlog_age_ms).map(|age| age.0).max();
        parts.push(oldest.map_or_else(
            || format!("{bytes} behind"),
            |age| format!("{} behind, {bytes}", words::age(age.saturating_add(since))),
        ));
    }
    let ago = words::age(aged.age_ms.0);
    match (is_old, parts.is_empty()) {
        (false, true) => "safe".to_owned(),
        (false, false) => parts.join("; "),
        (true, true) => format!("was safe {ago} ago"),
        (true, false) => format!("{ago} ago: {}", parts.join("; ")),
    }
}

/// How safe a volume is: of which moment a store has all of it.
pub fn volume(app: &App, volume: &Volume) -> String {
    let Some(key) = volume.volume else { return "not made yet".to_owned() };
    let Some(aged) = &app.report else { return "nothing was heard of it".to_owned() };
    let of = |volume: &VolumeReport, ms: Option<u64>| match ms {
        Some(ms) => format!("safe as of {} ago", words::age(ms.saturating_add(aged.age_ms.0))),
        None => format!("{} of it in no store yet", output::size(volume.backlog_bytes.0)),
    };
    match Told::of(&aged.report, &key) {
        Told::Safe(told) => of(told, Some(0)),
        Told::Behind(told) => of(told, told.replicated_age_ms.map(|age| age.0)),
        Told::Unknown => "not known how much of it a store has".to_owned(),
        Told::Absent => "not there, or it could not be asked for".to_owned(),
        Told::Damaged => "damaged: `comb check` on its device names what".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hive::client;
    use crate::hive::client::tests::ID;

    const HOUR: u64 = 3_600_000;

    fn key(number: u8) -> String {
        Hex([number; 32]).to_string()
    }

    /// A volume as a device tells of it.
    fn told(number: u8, state: &str, replicated_age_ms: Option<u64>, backlog: (u64, Option<u64>)) -> Value {
        json!({
            "volume": key(number), "state": state, "epoch": 1, "seq": 4, "manifest": key(9),
            "writer": "00".repeat(16), "replicated_age_ms": replicated_age_ms, "backlog_bytes": backlog.0,
            "backlog_age_ms": backlog.1, "bytes": 10, "files": 1, "stores_behind": 0,
        })
    }

    /// An app with the volumes "data" and "conf", as its device told of it `age_ms` ago.
    fn app(age_ms: u64, volumes: Vec<Value>) -> App {
        client::tests::app(&json!({
            "device": ID,
            "volumes": [{"name": "data", "volume": key(1)}, {"name": "conf", "volume": key(2)}, {"name": "new", "volume": null}],
            "report": {
                "age_ms": age_ms, "app": ID, "term": 1, "generation": 1, "revision": 1, "phase": "running",
                "phase_age_ms": 0, "health": "healthy", "volumes": volumes,
            },
        }))
    }

    fn safe(number: u8) -> Value {
        told(number, "mounted", Some(0), (0, None))
    }

    #[test]
    fn an_app_whose_device_is_silent_is_told_as_it_was() {
        let problem = |device: bool, code: &str| {
            let device = device.then_some(ID);
            serde_json::from_value(json!({"code": code, "device": device})).expect("a problem")
        };
        let table = [
            (4_000, None, "running, healthy"),
            (29_999, None, "running, healthy"),
            (30_000, None, "not heard of for 30 s (was running, healthy)"),
            (2 * HOUR, None, "not heard of for 2 h (was running, healthy)"),
            (4_000, Some(problem(true, "unhealthy")), "running, healthy (a service is not healthy)"),
            (
                HOUR,
                Some(problem(true, "unhealthy")),
                "not heard of for 60 min (was running, healthy: a service is not healthy)",
            ),
            (
                HOUR,
                Some(problem(false, "no_candidate")),
                "not heard of for 60 min (was running, healthy): no device can take it",
            ),
        ];
        for (age_ms, problem, expected) in table {
            let app = App { problem, ..app(age_ms, vec![safe(1), safe(2)]) };
            assert_eq!(how(&app), expected);
        }
        let unheard = App { report: None, ..app(0, vec![]) };
        assert_eq!(how(&unheard), "not heard of");
        assert_eq!(how(&App { wanted: Wanted::Stopped, ..unheard }), "stopped");
    }

    #[test]
    fn data_is_safe_only_where_each_volume_told_so() {
        let behind = |number| told(number, "mounted", Some(300_000), (3 << 20, Some(300_000)));
        let table = [
            (4_000, vec![safe(1), safe(2)], "safe"),
            (2 * HOUR, vec![safe(1), safe(2)], "was safe 2 h ago"),
            (4_000, vec![safe(1)], "not known: conf"),
            (4_000, vec![], "not known: data, conf"),
            (4_000, vec![safe(1), told(2, "mounted", None, (0, None))], "not known: conf"),
            (4_000, vec![told(1, "absent", None, (0, None)), safe(2)], "not there: data"),
            (4_000, vec![told(1, "absent", Some(0), (0, None)), safe(2)], "not there: data"),
            (4_000, vec![safe(1), told(2, "damaged", Some(0), (0, None))], "damaged: conf"),
            (2 * HOUR, vec![safe(1), told(2, "damaged", Some(0), (0, None))], "2 h ago: damaged: conf"),
            (0, vec![behind(1), safe(2)], "5 min behind, 3.0 MiB"),
            (59_000, vec![behind(1), behind(2)], "59 s ago: 5 min behind, 6.0 MiB"),
            (2 * HOUR, vec![behind(1), safe(2)], "2 h ago: 5 min behind, 3.0 MiB"),
            (0, vec![told(1, "mounted", None, (4096, None)), safe(2)], "4.0 KiB behind"),
            (
                0,
                vec![behind(1), told(2, "absent", None, (0, None))],
                "not there: conf; 5 min behind, 3.0 MiB",
            ),
        ];
        for (age_ms, volumes, expected) in table {
            let app = app(age_ms, volumes);
            assert_eq!(data(&app), expected);
        }
        let unmade =
            App { volumes: vec![Volume { name: "data".to_owned(), volume: None }], ..app(0, vec![]) };
        assert_eq!(
            (data(&unmade).as_str(), volume(&unmade, &unmade.volumes[0]).as_str()),
            ("-", "not made yet")
        );
        assert_eq!(data(&App { report: None, ..app(0, vec![]) }), "-");
    }

    #[test]
    fn a_volume_says_of_which_moment_it_is_safe() {
        let table = [
            (4_000, safe(1), "safe as of 4 s ago"),
            (4_000, told(1, "mounted", Some(9_000), (0, None)), "safe as of 4 s ago"),
            (4_000, told(1, "mounted", Some(9_000), (1, Some(9_000))), "safe as of 13 s ago"),
            (2 * HOUR, safe(1), "safe as of 2 h ago"),
            (0, told(1, "mounted", None, (4096, None)), "4.0 KiB of it in no store yet"),
            (0, told(1, "mounted", None, (0, None)), "not known how much of it a store has"),
            (0, told(1, "absent", None, (0, None)), "not there, or it could not be asked for"),
            (0, told(2, "mounted", Some(0), (0, None)), "not known how much of it a store has"),
        ];
        for (age_ms, report, expected) in table {
            let app = app(age_ms, vec![report]);
            assert_eq!(volume(&app, &app.volumes[0]), expected);
        }
    }

    #[test]
    fn the_device_of_an_app_says_that_it_is_silent() {
        let device = |state: &str| client::tests::device(&json!({"state": state}));
        let table = [
            ("online", "attic"),
            ("draining", "attic"),
            ("silent", "attic (silent)"),
            ("revoked", "attic (revoked)"),
        ];
        for (state, expected) in table {
            assert_eq!(place(&app(0, vec![]), &[device(state)]), expected);
        }
        assert_eq!(place(&app(0, vec![]), &[]), "11111111");
        assert_eq!(place(&App { device: None, ..app(0, vec![]) }, &[]), "-");
    }
}
