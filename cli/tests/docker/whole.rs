//! A real hive, a real device, and a person at both: what is done with whole apps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::apps::records;
use super::home::Home;
use super::machine::{clean_engine, docker, docker_socket, image, unmount_all};

const WRITES: &str = "trap 'exit 0' TERM; echo started >> /data/starts; i=$$(wc -l < /data/log 2>/dev/null || echo 0); \
     while true; do i=$$((i+1)); echo $$i >> /data/log; sync; sleep 0.2 & wait $$!; done";

/// A compose project of somebody who never heard of Comb.
fn project(home: &Home, name: &str) -> PathBuf {
    let (image, _) = image();
    let folder = home.path(name);
    fs::create_dir_all(folder.join("conf")).unwrap();
    let command = serde_json::to_string(WRITES).unwrap();
    let compose = format!(
        "services:\n  web:\n    image: {image}\n    entrypoint: [\"sh\", \"-c\"]\n    command: [{command}]\n    restart: always\n    \
         stop_grace_period: 2s\n    volumes: [\"data:/data\", \"./conf:/conf\"]\nvolumes:\n  data: {{}}\n"
    );
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    fs::write(folder.join("conf/settings"), "canary of the settings").unwrap();
    folder
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_project_is_adopted_with_its_data_forked_and_ejected_again() {
    let home = Home::new();
    let folder = project(&home, "diary");
    let text = folder.to_str().unwrap().to_owned();
    docker(&["compose", "--project-directory", &text, "up", "-d", "--quiet-pull"]);
    let mountpoint = PathBuf::from(docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", "diary_data"]));
    home.until("written", |_| mountpoint.join("log").exists() && records(&mountpoint.join("log")) > 3);
    // What is hard to copy.
    fs::write(mountpoint.join("owned"), "by the app's user").unwrap();
    std::os::unix::fs::chown(mountpoint.join("owned"), Some(999), Some(998)).unwrap();
    fs::set_permissions(mountpoint.join("owned"), fs::Permissions::from_mode(0o2640)).unwrap();
    fs::hard_link(mountpoint.join("owned"), mountpoint.join("again")).unwrap();
    std::os::unix::fs::symlink("/nowhere", mountpoint.join("link")).unwrap();
    let sparse = fs::File::create(mountpoint.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    rustix::fs::lsetxattr(mountpoint.join("owned"), c"user.colour", b"blue", rustix::fs::XattrFlags::empty())
        .unwrap();

    // A stranger that has the volume open is for a person to stop.
    let (name, _) = image();
    docker(&[
        "run",
        "-d",
        "--name",
        "diary-stranger",
        "-v",
        "diary_data:/x",
        "--entrypoint",
        "sleep",
        &name,
        "1000",
    ]);
    let words = home.refused(&["app", "adopt", "diary", "--yes", "--passphrase-file", "passphrase"], 4);
    assert!(words.contains("diary-stranger"), "{words}");
    docker(&["rm", "-f", "diary-stranger"]);
    assert_eq!(
        docker(&["ps", "-q", "--filter", "label=com.docker.compose.project=diary"]).lines().count(),
        1
    );
    let words = home.refused(&["app", "adopt", "diary", "--passphrase-file", "passphrase"], 2);
    assert!(words.contains("terminal"), "without --yes somebody is asked: {words}");

    let begun = Instant::now();
    let output = home.comb(&["app", "adopt", "diary", "--yes", "--passphrase-file", "passphrase"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}\nlog:\n{}", home.log());
    eprintln!("adopted in {:.1} s:\n{told}", begun.elapsed().as_secs_f64());
    assert!(told.contains("\"diary_data\"") && told.contains("conf"), "what is left is named: {told}");
    assert_eq!(docker(&["ps", "-q", "--filter", "label=com.docker.compose.project=diary"]), "");
    let old = docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=diary"]);
    assert_eq!(docker(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", &old]), "no");

    let data = home.mount("diary", "data");
    let before = records(&mountpoint.join("log"));
    home.until("writing", |_| records(&data.join("log")) > before);
    let text_of = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(
        text_of(&data.join("log"))[..text_of(&mountpoint.join("log")).len()],
        text_of(&mountpoint.join("log"))
    );
    let owned = fs::metadata(data.join("owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777, owned.nlink()), (999, 998, 0o2640, 2));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(data.join("owned"), c"user.colour", &mut value), Ok(4));
    assert_eq!(fs::metadata(data.join("sparse")).unwrap().len(), 1 << 30);
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/nowhere"));
    assert_eq!(text_of(&home.mount("diary", "conf").join("settings")), "canary of the settings");
    home.refused(&["app", "adopt", "diary", "--yes", "--passphrase-file", "passphrase"], 4);

    // A fork by the real hive, and its start.
    home.done(&["app", "snapshot", "diary", "--tag", "before"]);
    home.done(&["app", "fork", "diary@before", "--as", "copy"]);
    home.done(&["app", "start", "copy"]);
    assert_eq!(home.containers(), 2);
    assert!(records(&home.mount("copy", "data").join("log")) >= before);
    home.done(&["app", "stop", "copy"]);

    // Out of Comb again: the folder runs with plain compose, on plain folders.
    home.done(&["app", "eject", "diary", "--to", "plain", "--passphrase-file", "passphrase"]);
    assert_eq!(home.containers(), 0);
    let plain = home.path("plain");
    let kept = records(&plain.join("volumes/data/log"));
    assert!(kept > before);
    assert_eq!(text_of(&plain.join("conf/settings")), "canary of the settings");
    let owned = fs::metadata(plain.join("volumes/data/owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777), (999, 998, 0o2640));
    assert_eq!(fs::metadata(plain.join(".env")).unwrap().mode() & 0o777, 0o600);
    docker(&[
        "compose",
        "-p",
        "diary-plain",
        "--project-directory",
        plain.to_str().unwrap(),
        "up",
        "-d",
        "--quiet-pull",
    ]);
    home.until("writing", |_| records(&plain.join("volumes/data/log")) > kept);
    for project in ["diary-plain", "diary"] {
        docker(&["compose", "-p", project, "down", "-v"]);
    }
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn without_the_hive_a_person_stops_restarts_and_keeps_moments_at_the_device() {
    let mut home = Home::new();
    let (image, _) = image();
    let folder = home.path("notes");
    fs::create_dir(&folder).unwrap();
    let compose = format!(
        "services:\n  web:\n    image: {image}\n    entrypoint: [\"sh\", \"-c\"]\n    command: [\"echo x >> /data/starts; exec sleep 1000\"]\n    \
         stop_grace_period: 1s\n    volumes: [\"data:/data\"]\nvolumes:\n  data: {{}}\n"
    );
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    home.done(&["app", "add", "notes", "--passphrase-file", "passphrase"]);
    let starts = home.mount("notes", "data").join("starts");
    assert_eq!(fs::read_to_string(&starts).unwrap(), "x\n");

    home.away();
    home.done(&["app", "restart", "notes"]);
    assert_eq!((fs::read_to_string(&starts).unwrap().as_str(), home.containers()), ("x\nx\n", 1));
    let tag = home.done(&["app", "snapshot", "notes"]);
    assert!(tag.starts_with("here-"), "{tag}");
    home.done(&["app", "stop", "notes"]);
    assert_eq!((home.containers(), starts.exists()), (0, false));
    let words = home.refused(&["app", "start", "notes"], 10);
    assert!(words.contains(&home.address), "a start is the hive's: {words}");
    home.refused(&["app", "stop", "other"], 1);

    // It is still wanted, so the hive starts it when it is back, in a term of its own.
    home.run_hive();
    home.until("running again", |home| home.containers() == 1);
    home.until("told", |home| {
        fs::read_to_string(&starts).is_ok() && home.app("notes").to_string().contains("running")
    });
    assert_eq!(fs::read_to_string(&starts).unwrap(), "x\nx\nx\n");
    let log = home.done(&["app", "log", "notes", "--json"]);
    assert!(log.contains(tag.trim()), "the moment is the app's: {log}");
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_release_goes_from_a_person_to_a_device_by_a_real_hive() {
    let home = Home::new();
    home.refused(&["device", "update", "attic"], 3);
    let script = home.path("no-program");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    home.refused(&["device", "release", "no-program", "--passphrase-file", "passphrase"], 2);
    // Without what only a debugger reads: a release has at most 256 MiB.
    let stripped = home.path("comb-next");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_comb")).output();
    if !strip.is_ok_and(|output| output.status.success()) {
        fs::copy(env!("CARGO_BIN_EXE_comb"), &stripped).unwrap();
    }
    let said = home.done(&["device", "release", "comb-next", "--passphrase-file", "passphrase"]);
    assert!(said.starts_with("release 1 ("), "{said}");
    let begun = Instant::now();
    home.done(&["device", "update", "attic"]);
    eprintln!("updated in {:.1} s", begun.elapsed().as_secs_f64());
    let runs = home.state().join("orchestrator/bin/comb");
    assert_eq!(fs::read(&runs).unwrap(), fs::read(&stripped).unwrap());
    home.until("told", |home| {
        let device: Value = serde_json::from_str(&home.done(&["device", "show", "attic", "--json"])).unwrap();
        device["update"]["number"] == 1 && device["update"]["state"] == "done"
    });
    let list: Value = serde_json::from_str(&home.done(&["device", "release", "--json"])).unwrap();
    assert_eq!((list[0]["number"].as_u64(), list[0]["missing"].as_array().unwrap().len()), (Some(1), 0));
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_device_that_takes_releases_by_itself_gets_them_when_they_are_made() {
    let home = Home::with(&["--auto-update"]);
    let said = home.done(&[
        "device",
        "release",
        env!("CARGO_BIN_EXE_comb"),
        "--called",
        "the next one",
        "--passphrase-file",
        "passphrase",
    ]);
    assert!(said.starts_with("release 1 (the next one)"), "{said}");
    // Nobody orders it but the hive.
    let (runs, made) = (home.state().join("orchestrator/bin/comb"), env!("CARGO_BIN_EXE_comb"));
    home.until("there", |_| {
        fs::metadata(&runs).is_ok_and(|there| there.len() == fs::metadata(made).unwrap().len())
    });
    home.until("told", |home| {
        let device: Value = serde_json::from_str(&home.done(&["device", "show", "attic", "--json"])).unwrap();
        device["update"]["number"] == 1 && device["update"]["state"] == "done"
    });
}

#[test]
#[ignore = "needs root and a Docker Engine"]
fn a_device_runs_in_a_container_and_through_its_restart() {
    let home = Home::without_device();
    home.done(&["key", "ring", "init", "--passphrase-file", "passphrase"]);
    home.done(&["account", "kit", "--out", "kit", "--passphrase-file", "passphrase"]);
    let state = home.path("device");
    let apps = home.path("apps");
    for folder in [&state, &apps] {
        fs::create_dir(folder).unwrap();
    }
    // As a machine has it whose root is shared.
    let mount = |args: &[&str]| {
        let done = Command::new("mount").args(args).arg(&state).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    mount(&["--bind", state.to_str().unwrap()]);
    mount(&["--make-rshared"]);
    let name = format!("comb-device-{}", std::process::id());
    device_image();
    let (state_text, apps_text) = (state.to_str().unwrap(), apps.to_str().unwrap());
    let passphrase = home.path("passphrase");
    let mut words: Vec<String> = ["run", "-d", "--name", &name, "--network", "host", "--device", "/dev/fuse"]
        .map(str::to_owned)
        .to_vec();
    words.extend(
        ["--cap-add", "SYS_ADMIN", "--cap-add", "DAC_READ_SEARCH", "--security-opt", "apparmor=unconfined"]
            .map(str::to_owned),
    );
    for bound in [
        format!("{}:/var/run/docker.sock", docker_socket().display()),
        format!("{state_text}:{state_text}:rshared"),
        format!("{apps_text}:{apps_text}"),
        // The store is a folder here, and the passphrase comes from a file instead of a terminal.
        format!("{0}:{0}", home.path("store").display()),
        format!("{}:/passphrase:ro", passphrase.display()),
    ] {
        words.extend(["-v".to_owned(), bound]);
    }
    let url = format!("http://{}", home.address);
    words.push("comb:latest".to_owned());
    words.extend(["--state", state_text, "device", "run", "--apps", apps_text].map(str::to_owned));
    words.extend(["--join", &url, "--code", &home.code(&[]), "--name", "box"].map(str::to_owned));
    docker(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let _gone = Gone { name: name.clone(), state: state.clone() };
    home.until("online", Home::is_online);
    let told = || docker(&["logs", &name]);
    assert!(told().contains("this machine is device \"box\""), "{}", told());
    docker(&[
        "exec",
        &name,
        "comb",
        "--state",
        state_text,
        "device",
        "unlock",
        "--passphrase-file",
        "/passphrase",
    ]);

    let checks = Command::new("docker")
        .args(["exec", &name, "comb", "--state", state_text, "doctor", "--json"])
        .output()
        .unwrap();
    let checks: Value = serde_json::from_slice(&checks.stdout).unwrap();
    for what in ["mounts", "fuse", "docker", "compose", "hive"] {
        let found = checks.as_array().unwrap().iter().find(|one| one["what"] == what);
        assert!(found.is_some_and(|one| one["ok"] == true), "{what}: {checks:#}");
    }

    let folder = project(&home, "diary");
    fs::write(folder.join("conf/more"), "x").unwrap();
    home.done(&["app", "add", "diary", "--passphrase-file", "passphrase"]);
    let app = home.app("diary");
    let app = app["id"].as_str().or(app["app"]["id"].as_str()).unwrap().to_owned();
    let log = state.join("orchestrator/apps").join(app).join("volumes/data/data/log");
    home.until("writing", |_| log.exists() && records(&log) > 3);
    let written = records(&log);

    docker(&["restart", "-t", "20", &name]);
    home.until("writing again", |_| log.exists() && records(&log) > written + 3);
    let zombies =
        docker(&["exec", &name, "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"]);
    assert_eq!(zombies, "0");
    home.done(&["app", "stop", "diary"]);
    assert!(!log.exists());
}

/// The image of `cli/Dockerfile`, with the program under test, on the engine under test.
fn device_image() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/docker");
    let socket = docker_socket();
    let name = socket.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let done = Command::new(script).args(["device", &name, env!("CARGO_BIN_EXE_comb")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Takes the container and its mounts away.
struct Gone {
    name: String,
    state: PathBuf,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = Command::new("docker").args(["logs", &self.name]).output().unwrap();
            eprintln!("the container: {}", String::from_utf8_lossy(&output.stderr));
        }
        let file = fs::read(self.state.join("orchestrator/hive.json")).unwrap_or_default();
        let file: Value = serde_json::from_slice(&file).unwrap_or_default();
        clean_engine(file["device"].as_str().unwrap_or("none"));
        let _ = Command::new("docker").args(["rm", "-f", &self.name]).output();
        unmount_all(&self.state, |_| ());
    }
}
