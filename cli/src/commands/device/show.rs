//! `comb device show`.

use clap::Args;
use orchestrator_api::wire::device::{Device, DeviceState, ToStream};
use orchestrator_api::wire::operation::Ordered;
use orchestrator_api::wire::report::{Disk, DiskUse, Load};
use serde_json::{Map, Value};

use super::list::how;
use crate::failure::{Failure, Kind, Result};
use crate::hive::stream::StreamId;
use crate::hive::{Client, HiveArgs, find, orders, ring as hive_ring, words};
use crate::output;
use crate::passphrase::PassphraseArgs;
use crate::state::State;

/// The most facts that are kept of a device's answer.
const FACTS_MAX: usize = 1_000;

/// Show a device
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The device
    name: String,

    /// Ask the device itself, through the hive, which cannot read the answer: versions, clock, disks, memory, load
    #[arg(long)]
    facts: bool,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows a device.
pub fn run(state: &State, args: &ShowArgs) -> Result<()> {
    let client = args.hive.client(state)?;
    let device = find::device(&client, &args.name)?;
    let facts = match args.facts {
        true => Some(facts(state, &client, &device, &args.passphrase)?),
        false => None,
    };
    if args.json {
        return output::json(&with_facts(&device, facts.as_deref())?);
    }
    line("device", &device.name)?;
    line("id", &device.id.to_string())?;
    line("state", &how(&device))?;
    if let Some(age) = device.seen_age_ms {
        line("heard", &format!("{} ago", words::age(age.0)))?;
    }
    line("joined", &output::time_local(device.joined.0.saturating_mul(1_000_000)))?;
    line("version", &format!("{} on {}", device.version, words::arch(device.arch)))?;
    let told = match &facts {
        Some(facts) => facts.iter().flat_map(|(what, text)| fact(what, text)).collect(),
        None => reported(&device),
    };
    for (what, value) in told {
        line(&what, &value)?;
    }
    let apps = find::app_names(&find::apps(&client)?);
    for app in &device.apps {
        line("app", &words::named(&apps, app))?;
    }
    Ok(())
}

fn line(what: &str, value: &str) -> Result<()> {
    output::line(&output::escape(format!("{what:<10} {value}").as_bytes()))
}

/// What a device's last report says of its machine.
fn reported(device: &Device) -> Vec<(String, String)> {
    let load = device.load.iter().flat_map(load);
    load.chain(device.disks.iter().map(disk)).collect()
}

fn load(load: &Load) -> Vec<(String, String)> {
    let memory =
        format!("{} of {} free", output::size(load.memory_free_bytes.0), output::size(load.memory_bytes.0));
    let processors =
        format!("{:.2}, {} % of the processors", load.load_1m.0 as f64 / 100.0, load.cpu_percent.0);
    vec![("memory".to_owned(), memory), ("load".to_owned(), processors)]
}

fn disk(disk: &Disk) -> (String, String) {
    let what = match disk.what {
        DiskUse::State => "volumes",
        DiskUse::Docker => "docker",
        DiskUse::Apps => "apps",
    };
    let free = format!("{} of {} free ({what})", output::size(disk.free_bytes.0), output::size(disk.bytes.0));
    ("disk".to_owned(), free)
}

/// What the device says of itself now, each with its name, in its order.
fn facts(
    state: &State,
    client: &Client,
    device: &Device,
    passphrase: &PassphraseArgs,
) -> Result<Vec<(String, String)>> {
    if matches!(device.state, DeviceState::Silent | DeviceState::Revoked) {
        let name = output::escape(device.name.as_bytes());
        return Err(Failure::new(
            Kind::Unreachable,
            format!("\"{name}\" is {}, and cannot be asked", how(device)),
        )
        .hint("without --facts there is what it reported last"));
    }
    let ring = hive_ring::open(state, client, passphrase)?.close();
    let id = StreamId::new();
    let ordered: Ordered =
        client.post(&format!("/v1/devices/{}/facts", device.id), &ToStream { stream: id.0 })?;
    let mut facts = Vec::new();
    id.read(client, ring.owner(), |line| {
        if facts.len() == FACTS_MAX {
            return Ok(());
        }
        // Without a name it is told all the same.
        let (what, text) = line.text.split_once(": ").unwrap_or(("", &line.text));
        facts.push((what.to_owned(), text.trim_end().to_owned()));
        Ok(())
    })?;
    let watched = orders::watch(client, ordered.operation, "facts")?.operation;
    orders::ended(&watched, &format!("asking \"{}\"", device.name))?;
    Ok(facts)
}

/// A fact as a person reads it. What this program knows no words for is shown as it came, too.
fn fact(what: &str, text: &str) -> Vec<(String, String)> {
    let as_it_is = || vec![(what.to_owned(), text.to_owned())];
    let Ok(value) = serde_json::from_str::<Value>(text) else { return as_it_is() };
    match (what, &value) {
        ("load", Value::Object(fields)) => match serde_json::from_value(value.clone()) {
            Ok(known) => load(&known).into_iter().chain(rest(what, fields, &LOAD)).collect(),
            Err(_) => rest(what, fields, &[]),
        },
        ("disks", Value::Array(disks)) => {
            let one = |told: &Value| match serde_json::from_value(told.clone()) {
                Ok(known) => disk(&known),
                Err(_) => ("disk".to_owned(), told.to_string()),
            };
            disks.iter().map(one).collect()
        }
        ("boottime_ms", Value::Number(ms)) => match ms.as_u64() {
            Some(ms) => vec![("up".to_owned(), words::age(ms))],
            None => as_it_is(),
        },
        (_, Value::Object(fields)) => rest(what, fields, &[]),
        (_, Value::Array(several)) => several.iter().map(|one| (what.to_owned(), plain("", one))).collect(),
        (_, Value::String(word)) => vec![(what.to_owned(), word.clone())],
        _ => vec![(what.to_owned(), plain(what, &value))],
    }
}

/// The fields of a load that have words of their own.
const LOAD: [&str; 4] = ["cpu_percent", "memory_bytes", "memory_free_bytes", "load_1m"];

/// Fields that have no words of their own, each on a line.
fn rest(what: &str, fields: &Map<String, Value>, known: &[&str]) -> Vec<(String, String)> {
    let others = fields.iter().filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    others
        .map(|(name, value)| {
            let called = name.strip_suffix("_bytes").unwrap_or(name).replace('_', " ");
            (what.to_owned(), format!("{called} {}", plain(name, value)))
        })
        .collect()
}

/// A value without quotes; bytes as a size.
fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(bytes) if name == "bytes" || name.ends_with("_bytes") => {
            bytes.as_u64().map_or_else(|| bytes.to_string(), output::size)
        }
        other => other.to_string(),
    }
}

/// The device as JSON, with its facts under their names; what is JSON itself is put in as such.
fn with_facts(device: &Device, facts: Option<&[(String, String)]>) -> Result<Value> {
    let wrong = |error: serde_json::Error| Failure::other(format!("writing JSON: {error}"));
    let mut told = serde_json::to_value(device).map_err(wrong)?;
    if let (Some(facts), Value::Object(fields)) = (facts, &mut told) {
        let value = |text: &String| match serde_json::from_str(text) {
            // A version like 27 or 1.10 is text, whatever it looks like.
            Ok(value @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => value,
            _ => Value::String(text.clone()),
        };
        let facts = facts.iter().map(|(what, text)| match what.as_str() {
            name if name.ends_with("_ms") => {
                (what.clone(), serde_json::from_str(text).unwrap_or_else(|_| value(text)))
            }
            _ => (what.clone(), value(text)),
        });
        fields.insert("facts".to_owned(), Value::Object(facts.collect()));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hive::client::tests::device;

    const LOADED: &str = r#"{"cpu_percent":3,"memory_bytes":8589934592,"memory_free_bytes":2147483648,"load_1m":42,
        "received_bytes":1048576,"sent_bytes":null,"pressure":"some"}"#;

    #[test]
    fn a_fact_is_told_in_words_and_an_unknown_one_as_it_came() {
        let disks = r#"[{"for":"state","bytes":1073741824,"free_bytes":1048576},{"for":"tapes","bytes":1}]"#;
        type Lines = &'static [(&'static str, &'static str)];
        let table: &[(&str, &str, Lines)] = &[
            ("comb", "0.1.0", &[("comb", "0.1.0")]),
            ("docker", "27", &[("docker", "27")]),
            ("compose", "Docker does not answer: no", &[("compose", "Docker does not answer: no")]),
            ("docker_state", "\"ok\"", &[("docker_state", "ok")]),
            ("docker_state", "null", &[("docker_state", "null")]),
            ("boottime_ms", "7200000", &[("up", "2 h")]),
            (
                "load",
                LOADED,
                &[
                    ("memory", "2.0 GiB of 8.0 GiB free"),
                    ("load", "0.42, 3 % of the processors"),
                    ("load", "pressure some"),
                    ("load", "received 1.0 MiB"),
                ],
            ),
            ("load", "null", &[("load", "null")]),
            (
                "disks",
                disks,
                &[("disk", "1.0 MiB of 1.0 GiB free (volumes)"), ("disk", r#"{"bytes":1,"for":"tapes"}"#)],
            ),
            ("fans", r#"{"front":900}"#, &[("fans", "front 900")]),
            ("kernels", r#"["6.1","6.2"]"#, &[("kernels", "6.1"), ("kernels", "6.2")]),
            ("", "just words", &[("", "just words")]),
        ];
        for (what, text, expected) in table {
            let told = fact(what, text);
            let told: Vec<(&str, &str)> =
                told.iter().map(|(what, text)| (what.as_str(), text.as_str())).collect();
            assert_eq!(told, *expected, "{what}: {text}");
        }
    }

    #[test]
    fn facts_stand_beside_the_device_in_json() {
        let device = device(&json!({}));
        let facts = [("docker", "27"), ("boottime_ms", "12"), ("load", LOADED), ("docker_state", "\"ok\"")];
        let facts = facts.map(|(what, text)| (what.to_owned(), text.to_owned()));
        let told = with_facts(&device, Some(&facts)).expect("JSON");
        assert_eq!((told["name"].as_str(), told["facts"]["docker"].as_str()), (Some("attic"), Some("27")));
        assert_eq!(told["facts"]["boottime_ms"], 12);
        assert_eq!(told["facts"]["load"]["memory_bytes"], 8_589_934_592_u64);
        assert_eq!(told["facts"]["docker_state"], "ok");
        assert_eq!(with_facts(&device, None).expect("JSON").get("facts"), None);
    }
}
