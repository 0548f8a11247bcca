//! `comb doctor`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use orchestrator_api::wire::device::ToStream;
use orchestrator_api::wire::operation::Ordered;
use orchestrator_device::daemon;
use orchestrator_device::daemon::files::Folder;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, Kind, Result};
use crate::hive::stream::{self, StreamId};
use crate::hive::{Client, HiveArgs, compose, find, logins, orders, ring as hive_ring};
use crate::passphrase::PassphraseArgs;
use crate::state::State;
use crate::{output, ring};

/// How long the device of this machine may take: it asks every store.
const DEVICE_WAIT: Duration = Duration::from_secs(120);
/// The longest answer of it that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Docker is slow from here on.
const SLOW: Duration = Duration::from_secs(5);

/// Say what is wrong on this machine, or on a device, and what to do
///
/// It looks at what mounts need, at Docker and its compose plugin, at the key ring and at the hives that this machine knows,
/// and asks the device of this machine, if there is one, for what it knows. It ends with 1 where something is wrong.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Ask this device of the account instead, through the hive, which cannot read the answer
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    hive: HiveArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Something that was looked at.
#[derive(Debug, Serialize, Deserialize)]
struct Check {
    /// What.
    what: String,
    /// Whether it is as it should be.
    ok: bool,
    /// What was found, and what to do.
    text: String,
}

/// Looks.
pub fn run(state: &State, args: &DoctorArgs) -> Result<()> {
    if let Some(device) = &args.device {
        return elsewhere(state, args, device);
    }
    let mut checks = vec![fuse(), docker(), key_ring(state)];
    checks.extend(hives(state)?);
    match device(state) {
        Ok(Some(more)) => unite(&mut checks, more),
        Ok(None) => {}
        Err(failure) => checks.push(wrong("device", failure.in_one_line())),
    }
    tell(&checks, args.json)
}

/// What this program and the device both look at: told once, by who finds something wrong, the device before this program.
const BOTH: [&str; 3] = ["fuse", "docker", "key ring"];

fn unite(checks: &mut Vec<Check>, devices: Vec<Check>) {
    for check in devices {
        match checks.iter_mut().find(|mine| mine.what == check.what && BOTH.contains(&mine.what.as_str())) {
            Some(mine) if !check.ok => *mine = check,
            Some(_) => {}
            None => checks.push(check),
        }
    }
}

fn tell(checks: &[Check], json: bool) -> Result<()> {
    if json {
        output::json(checks)?;
    } else {
        for check in checks {
            let mark = if check.ok { "ok   " } else { "WRONG" };
            let line = format!("{mark}  {:<10} {}", check.what, check.text);
            output::line(&output::escape(line.as_bytes()))?;
        }
    }
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        wrong => Err(Failure::other(format!("{wrong} of {} things are wrong", checks.len()))),
    }
}

fn well(what: &str, text: impl Into<String>) -> Check {
    Check { what: what.to_owned(), ok: true, text: text.into() }
}

fn wrong(what: &str, text: impl Into<String>) -> Check {
    Check { what: what.to_owned(), ok: false, text: text.into() }
}

fn fuse() -> Check {
    match daemon::doctor::fuse() {
        Ok(text) => well("fuse", text),
        Err(text) => wrong("fuse", text),
    }
}

fn docker() -> Check {
    match compose::versions() {
        Ok(found) if found.took > SLOW => {
            wrong("docker", format!("it takes {} s to answer: apps start late", found.took.as_secs()))
        }
        Ok(found) => well("docker", format!("Docker {}, compose {}", found.docker, found.compose)),
        Err(failure) => wrong("docker", failure.in_one_line()),
    }
}

fn key_ring(state: &State) -> Check {
    if !ring::exists(state) {
        return well(
            "key ring",
            "none on this machine; a device that joins makes one, or takes the account's",
        );
    }
    match ring::open_here(state) {
        Ok(opened) => match opened.ring.kit_time() {
            Some(time) => {
                well("key ring", format!("it opens; the recovery kit is of {}", output::time_local(time.0)))
            }
            None => wrong(
                "key ring",
                "it has no recovery kit: who forgets the passphrase has lost it; `comb account kit --out FILE`",
            ),
        },
        Err(failure) => wrong("key ring", failure.in_one_line()),
    }
}

fn hives(state: &State) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for login in logins::all(state)? {
        let what = "hive";
        let hive = login.hive.clone();
        let info = Client::logged_in(&login).and_then(|client| client.info());
        checks.push(match info {
            Err(failure) => wrong(what, failure.in_one_line()),
            Ok(info) if info.key != login.key => wrong(
                what,
                format!(
                    "{hive} has another key than when you logged in: it was made anew, or another one answers"
                ),
            ),
            Ok(info) if info.recovering == Some(true) => wrong(
                what,
                format!(
                    "{hive} was restored and waits for {} devices; `comb hive recover` says which",
                    info.missing_devices.map_or(0, |missing| missing.len())
                ),
            ),
            Ok(info) => well(what, format!("{hive} answers, version {}", info.version)),
        });
        if login.ends.0 < jiff::Timestamp::now().as_millisecond() {
            checks.push(wrong("login", format!("that at {hive} has ended: `comb login {hive}`")));
        }
    }
    Ok(checks)
}

/// What the device of this machine says; none if there is none.
fn device(state: &State) -> Result<Option<Vec<Check>>> {
    #[derive(Deserialize)]
    struct Answer {
        done: Option<Vec<Check>>,
        failed: Option<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    let path = state.root().join("device.sock");
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::NotFound && is_none(state)? => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            let why = "the device of this machine does not run: what ran goes on, and is not looked after";
            return Err(Failure::new(Kind::Silent, why)
                .hint("`comb up`, `comb device run` or its unit for systemd runs it"));
        }
        Err(error) => return Err(Failure::io(path.display(), &error)),
    };
    stream.set_read_timeout(Some(DEVICE_WAIT)).context(path.display())?;
    stream.write_all(b"{\"do\":\"doctor\"}\n").context(path.display())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line).context(path.display())?;
    let strange = |_| {
        Failure::new(Kind::Foreign, "the device of this machine answers something that this comb cannot read")
    };
    let answer: Answer = serde_json::from_str(&line).map_err(strange)?;
    match (answer.done, answer.failed) {
        (Some(checks), _) => Ok(Some(checks)),
        (None, Some(problem)) => Err(Failure::other(format!("the device says: {}", problem.message))),
        (None, None) => Ok(Some(Vec::new())),
    }
}

/// Whether this machine is no device.
fn is_none(state: &State) -> Result<bool> {
    Ok(Folder::of(state.root()).hive().context("the device's folder")?.is_none())
}

/// A device of the account, by a stream that the hive cannot read.
fn elsewhere(state: &State, args: &DoctorArgs, name: &str) -> Result<()> {
    let client = args.hive.client(state)?;
    let device = find::device(&client, name)?;
    let ring = hive_ring::open(state, &client, &args.passphrase)?.close();
    let id = StreamId::new();
    let ordered: Ordered =
        client.post(&format!("/v1/devices/{}/doctor", device.id), &ToStream { stream: id.0 })?;
    id.read(&client, ring.owner(), |line| match args.json {
        true => output::line(&serde_json::to_string(&line).unwrap_or_default()),
        false => stream::print(&line, false),
    })?;
    let watched = orders::watch(&client, ordered.operation, "doctor")?.operation;
    orders::ended(&watched, &format!("looking at \"{}\"", device.name))?;
    match watched.result.and_then(|result| result.data.failed) {
        Some(failed) if failed.0 > 0 => {
            Err(Failure::other(format!("{} things are wrong on \"{}\"", failed.0, device.name)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_wrong_ends_with_1() {
        assert_eq!(tell(&[well("a", "b")], true), Ok(()));
        let failure = tell(&[well("a", "b"), wrong("c", "d")], true).expect_err("one is wrong");
        assert_eq!((failure.exit_code(), failure.message.as_str()), (1, "1 of 2 things are wrong"));
    }

    #[test]
    fn what_both_look_at_is_told_once() {
        let mut checks = vec![
            well("fuse", "mine"),
            well("docker", "mine"),
            wrong("key ring", "mine"),
            well("hive", "mine"),
        ];
        let devices = ["fuse", "key ring", "hive", "disk"].map(|what| well(what, "the device's")).into_iter();
        unite(&mut checks, devices.chain([wrong("docker", "the device's")]).collect());
        let told: Vec<_> = checks.iter().map(|one| (one.what.as_str(), one.ok, one.text.as_str())).collect();
        let want = [
            ("fuse", true, "mine"),
            ("docker", false, "the device's"),
            ("key ring", false, "mine"),
            ("hive", true, "mine"),
            ("hive", true, "the device's"),
            ("disk", true, "the device's"),
        ];
        assert_eq!(told, want);
    }

    #[test]
    fn the_device_of_this_machine_is_asked_what_it_knows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::locate(Some(folder.path())).expect("a path");
        assert!(device(&state).expect("none runs").is_none());
        let answers = [
            r#"{"done":[{"what":"docker","ok":false,"text":"it does not answer"}]}"#,
            r#"{"failed":{"code":"state","message":"not now"}}"#,
            "nonsense",
        ];
        let listener = UnixListener::bind(folder.path().join("device.sock")).expect("a socket");
        let serving = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("a question");
                assert_eq!(line, "{\"do\":\"doctor\"}\n");
                stream.write_all(format!("{answer}\n").as_bytes()).expect("answered");
            }
        });
        let checks = device(&state).expect("it answers").expect("it runs");
        assert!(!checks[0].ok && checks[0].what == "docker");
        assert!(device(&state).expect_err("it refuses").message.contains("not now"));
        assert_eq!(device(&state).expect_err("nonsense").kind, Kind::Foreign);
        serving.join().expect("all were asked");
        assert_eq!(device(&state).expect_err("it is gone").kind, Kind::Silent);
    }
}
