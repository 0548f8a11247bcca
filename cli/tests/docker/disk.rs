//! A disk that fills under an app: the one with the device's state, on which the journals of volumes lie, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::doctor::looked;
use super::home::{Home, containers_of};
use super::machine::{docker, image};

/// Writes numbered files of 512 KiB that do not compress, and says each number when that is safe; what is refused is tried again.
const WRITES: &str = "trap 'exit 0' TERM; i=1; while true; do \
     if head -c 524288 /dev/urandom > /data/new && sync /data/new && mv /data/new /data/file-$$i && sync /data; \
     then echo safe $$i; i=$$((i+1)); else echo refused $$i; fi; sleep 0.3 & wait $$!; done";

/// All that is free on a disk.
fn fill(disk: &Path) {
    let file = fs::File::create(disk.join("filler")).unwrap();
    for step in [1 << 20, 4 << 10] {
        let mut at = file.metadata().unwrap().len();
        while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, step).is_ok() {
            at += step;
        }
    }
}

fn free(disk: &Path) -> u64 {
    let found = rustix::fs::statvfs(disk).unwrap();
    found.f_bfree * found.f_frsize
}

/// The numbers that the app called safe, over all its containers' lives that are kept.
fn safe(said: &str) -> BTreeSet<u64> {
    said.lines().filter_map(|line| line.strip_prefix("safe ")?.trim().parse().ok()).collect()
}

fn said(home: &Home) -> String {
    containers_of(&home.device_id()).iter().map(|one| docker(&["logs", one])).collect::<Vec<_>>().join("\n")
}

fn problem(home: &Home) -> String {
    home.app("hoard")["problem"]["code"].as_str().unwrap_or("none").to_owned()
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn an_app_whose_disk_is_full_is_told_goes_on_when_there_is_room_and_has_lost_nothing() {
    let home = Home::on_disk(768);
    let folder = home.path("hoard");
    fs::create_dir(&folder).unwrap();
    let compose = format!(
        "services:\n  web:\n    image: {}\n    user: \"0:0\"\n    entrypoint: [\"sh\", \"-c\"]\n    command: [{}]\n    \
         restart: always\n    stop_grace_period: 5s\n    volumes: [\"data:/data\"]\nvolumes:\n  data: {{}}\n",
        image().0,
        serde_json::to_string(WRITES).unwrap(),
    );
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    home.done(&["app", "add", "hoard", "--passphrase-file", "passphrase"]);
    home.until("writing", |home| safe(&said(home)).len() > 5);
    assert_eq!(problem(&home), "none");
    let container = containers_of(&home.device_id());

    fill(&home.state());
    let begun = Instant::now();
    home.until("refused", |home| said(home).contains("refused"));
    home.until("told", |home| problem(home) == "no_space");
    eprintln!(
        "told {:.1} s after the disk was full: {} bytes free",
        begun.elapsed().as_secs_f64(),
        free(&home.state())
    );
    let shown = home.done(&["app", "show", "hoard"]);
    assert!(shown.contains("room") || shown.contains("disk"), "a person is told: {shown}");
    eprintln!("{shown}");
    let app = home.app("hoard");
    assert_eq!(app["report"]["phase"], "running", "it runs on: {app:#}");
    assert_eq!(containers_of(&home.device_id()), container);
    let checks = looked(&home);
    for what in ["disk", "room"] {
        let found = checks.iter().find(|(name, ok, _)| name == what && !ok);
        let (.., text) = found.unwrap_or_else(|| panic!("{what} is not told: {checks:#?}"));
        eprintln!("{what}: {text}");
    }

    // The device's own process may end meanwhile: it comes back, is heard, and finds what runs.
    let mut home = home;
    home.crash_device();
    home.run_device();
    home.until("online", Home::is_online);
    assert_eq!(containers_of(&home.device_id()), container, "what runs is adopted");

    // Room again: the app goes on by itself.
    let before = safe(&said(&home)).len();
    fs::remove_file(home.state().join("filler")).unwrap();
    let begun = Instant::now();
    home.until("going on", |home| safe(&said(home)).len() > before + 3);
    eprintln!("goes on {:.1} s after there was room", begun.elapsed().as_secs_f64());
    home.until("well", |home| problem(home) == "none");
    assert_eq!(containers_of(&home.device_id()), container, "it was not even started again");

    // Full once more: a person can stop it, and nothing that was called safe is gone.
    fill(&home.state());
    home.until("told again", |home| problem(home) == "no_space");
    let told = safe(&said(&home));
    home.done(&["app", "stop", "hoard"]);
    assert_eq!(home.containers(), 0);
    let words = home.refused(&["app", "start", "hoard"], 7);
    assert!(words.contains("room") || words.contains("space"), "{words}");
    fs::remove_file(home.state().join("filler")).unwrap();
    home.done(&["app", "start", "hoard"]);
    let data = home.mount("hoard", "data");
    for number in &told {
        let file = data.join(format!("file-{number}"));
        assert_eq!(
            fs::metadata(&file).map(|meta| meta.len()).ok(),
            Some(524_288),
            "{} is gone",
            file.display()
        );
        fs::read(&file).unwrap();
    }
    eprintln!("{} files that were called safe are there", told.len());
    home.until("writing", |home| safe(&said(home)).len() > 3);
    let status = home.comb(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status[0]["damage"].as_array().map_or(0, Vec::len), 0, "{status:#}");
}
