//! `comb up`, as those use it who know `docker compose up`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::apps::records;
use super::home::{comb, containers_of, device_id, private};
use super::machine::{PASSPHRASE, clean_engine, docker_socket, image, unmount_all};

const SOON: Duration = Duration::from_secs(120);

/// A person's folder with a state folder in it, and what was left running there.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        private(&folder.path().join("passphrase"), PASSPHRASE);
        Stage { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn comb(&self, args: &[&str]) -> Output {
        let mut command = comb();
        command.arg("--state").arg(self.state()).args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// What a command says that does what it is asked for: its output, and its words.
    #[track_caller]
    fn done(&self, args: &[&str]) -> (String, String) {
        let output = self.comb(args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "comb {args:?}: {words}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), words)
    }

    fn project(&self, name: &str, image: &str) {
        fs::create_dir(self.path(name)).unwrap();
        let command = serde_json::to_string(super::apps::WRITES).unwrap().replace('$', "$$");
        let compose = format!(
            "services:\n  web:\n    image: {image}\n    user: \"0:0\"\n    entrypoint: [\"sh\", \"-c\"]\n    command: [{command}]\n    \
             ports: [\"8000\"]\n    stop_grace_period: 2s\n    volumes: [\"data:/data\"]\nvolumes:\n  data: {{}}\n"
        );
        fs::write(self.path(name).join("compose.yaml"), compose).unwrap();
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.state().join("up.lock")).ok()?.trim().parse().ok()
    }

    fn log_of(&self, app: &str) -> PathBuf {
        let (app, _) = self.done(&["app", "show", app, "--json"]);
        let app: Value = serde_json::from_str(&app).unwrap();
        let id = app["id"].as_str().unwrap();
        self.state().join("orchestrator/apps").join(id).join("volumes/data/data/log")
    }
}

/// Whether a process runs; one that ended may wait for its parent, who is nobody of ours.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(')').is_some_and(|at| !stat[at + 1..].trim_start().starts_with(['Z', 'X']))
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "not {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("up.log:\n{}", fs::read_to_string(self.state().join("up.log")).unwrap_or_default());
        }
        let _ = self.comb(&["down"]);
        if self.state().join("orchestrator/hive.json").exists() {
            clean_engine(&device_id(&self.state()));
        }
        unmount_all(self.folder.path(), |folder| drop(self.comb(&["unmount", folder])));
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn up_detached_returns_when_the_app_runs_and_down_stops_it() {
    let stage = Stage::new();
    stage.project("diary", &image().0);
    let socket = docker_socket();
    let socket = socket.to_str().unwrap();
    assert_eq!(stage.comb(&["down"]).status.code(), Some(3), "nothing runs yet");

    let begun = Instant::now();
    let up = ["up", "diary", "--detach", "--docker", socket, "--passphrase-file", "passphrase"];
    let (out, words) = stage.done(&up);
    eprintln!("returned after {:.1} s:\n{out}\n{words}", begun.elapsed().as_secs_f64());
    let device = device_id(&stage.state());
    assert_eq!(containers_of(&device).len(), 1, "it returns when the app runs");
    assert!(out.contains("http://"), "the app's address: {out}");
    let pid = stage.pid().expect("it is left running");
    let log = stage.state().join("up.log");
    for told in [
        format!("process {pid}"),
        log.display().to_string(),
        "comb down".to_owned(),
        "--install-unit".to_owned(),
    ] {
        assert!(words.contains(&told), "{told:?} is not told: {words}");
    }
    assert!(lives(pid));
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    let tty = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = tty[tty.rfind(')').unwrap() + 2..].split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(after[3], pid.to_string(), "a session of its own");
    let records_at = stage.log_of("diary");
    let written = records(&records_at);
    until("writing on", || records(&records_at) > written);

    // Once more is told, however it is said, and changes nothing.
    for again in [&up[..], &["up"], &["up", "--detach"]] {
        let second = stage.comb(again);
        let words = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(4), "{words}");
        assert!(
            words.contains("already runs") && words.contains(&pid.to_string()) && words.contains("comb down"),
            "{words}"
        );
    }
    assert!(lives(pid));
    assert_eq!(containers_of(&device).len(), 1);

    let (_, words) = stage.done(&["down"]);
    assert!(words.contains("comb up"), "{words}");
    assert!(containers_of(&device).is_empty());
    until("ended", || !lives(pid));
    assert!(!records_at.exists(), "nothing is mounted any more");

    // Without the folder and without a passphrase: what ran goes on.
    let (_, words) = stage.done(&["up", "-d", "--docker", socket]);
    eprintln!("{words}");
    assert_eq!(containers_of(&device).len(), 1);
    let written = records(&records_at);
    until("writing on", || records(&records_at) > written);
    stage.done(&["down"]);
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn up_detached_says_why_an_app_does_not_run_and_leaves_nothing_running() {
    let stage = Stage::new();
    stage.project("diary", "comb-fixtures/nowhere:1");
    let socket = docker_socket();
    let up =
        ["up", "diary", "--detach", "--docker", socket.to_str().unwrap(), "--passphrase-file", "passphrase"];
    let output = stage.comb(&up);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1..=12)), "{:?}: {words}", output.status);
    assert!(words.contains("comb-fixtures/nowhere:1") && words.contains("docker build"), "{words}");
    assert!(!words.contains("runs on by itself"), "{words}");
    let pid = stage.pid().expect("it ran");
    until("ended", || !lives(pid));
    assert_eq!(stage.comb(&["down"]).status.code(), Some(3), "nothing is left running");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn up_with_another_store_brings_what_is_there_and_says_where_it_goes() {
    let stage = Stage::new();
    stage.project("diary", &image().0);
    let socket = docker_socket();
    let up = ["up", "-d", "--docker", socket.to_str().unwrap()];
    let first = ["diary", "--passphrase-file", "passphrase"];
    let (_, words) = stage.done(&[&up[..], &first].concat());
    assert!(words.contains("state-store, only on this disk"), "{words}");
    let records_at = stage.log_of("diary");
    until("writing", || records(&records_at) > 3);
    stage.done(&["down"]);

    // One that is not there is told at once, and the app stays as it was.
    let shared = stage.path("share");
    let url = format!("file://{}", shared.display());
    let elsewhere = ["--store", &url, "--shared"];
    let refused = stage.comb(&[&up[..], &elsewhere].concat());
    assert_eq!(refused.status.code(), Some(10), "{}", String::from_utf8_lossy(&refused.stderr));

    fs::create_dir(&shared).unwrap();
    let (_, words) = stage.done(&[&up[..], &elsewhere].concat());
    eprintln!("{words}");
    assert!(
        words.contains(&format!("is replicated to {url}")) && !words.contains("only on this disk"),
        "{words}"
    );
    let written = records(&records_at);
    assert!(written > 3, "what was written before is there");
    until("writing on", || records(&records_at) > written);
    let (shown, _) = stage.done(&["app", "show", "diary"]);
    assert!(
        shown.contains(&format!("{url} (decides who writes)")) && !shown.contains("state-store"),
        "{shown}"
    );
    let (volumes, _) = stage.done(&["volume", "list", "--json"]);
    let volumes: Value = serde_json::from_str(&volumes).unwrap();
    let name = volumes[0]["name"].as_str().unwrap();
    let (stores, _) = stage.done(&["store", "list", name, "--json"]);
    let stores: Value = serde_json::from_str(&stores).unwrap();
    assert_eq!(stores.as_array().unwrap().len(), 1, "{stores:#}");
    assert_eq!((stores[0]["url"].as_str(), stores[0]["arbiter"].as_bool()), (Some(url.as_str()), Some(true)));
    stage.done(&["sync", name, "--wait"]);
    // Without the store it goes on where it went.
    stage.done(&["down"]);
    let (_, words) = stage.done(&up);
    assert!(words.contains(&format!("is replicated to {url}")), "{words}");
    stage.done(&["down"]);
}
