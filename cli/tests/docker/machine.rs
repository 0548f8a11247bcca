//! A machine with a device: its state folder, its process, and what runs on it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::hive::Hive;

pub const PASSPHRASE: &str = "canary of the passphrase, twelve words";

/// A device of a hive, with its process.
pub struct Machine {
    pub id: String,
    pub folder: TempDir,
    daemon: Option<Child>,
}

fn comb() -> Command {
    Command::new(env!("CARGO_BIN_EXE_comb"))
}

/// The engine's socket.
pub fn docker_socket() -> PathBuf {
    let host =
        std::env::var("DOCKER_HOST").expect("DOCKER_HOST names an engine: `tests/servers/docker start NAME`");
    PathBuf::from(host.strip_prefix("unix://").expect("the engine listens on a socket"))
}

pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An image that has a shell, and its id.
pub fn image() -> (String, String) {
    let names = ["comb-fixtures/ledger:1", "busybox:latest"];
    let found = names.iter().find_map(|name| {
        let output =
            Command::new("docker").args(["image", "inspect", "-f", "{{.Id}}", name]).output().ok()?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then(|| ((*name).to_owned(), id))
    });
    found.expect("`tests/servers/docker images` builds the images")
}

/// Begins the daemon of a device; what it says goes to a log.
pub fn run_device(state: &Path, apps: &Path, log: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    comb()
        .arg("--state")
        .arg(state)
        .args(["device", "run", "--apps"])
        .arg(apps)
        .arg("--docker")
        .arg(docker_socket())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Machine {
    /// Joins a hive and runs.
    pub fn join(hive: &Hive, name: &str) -> Machine {
        Self::join_with(hive, name, &[])
    }

    /// The same, with more words. One that is `--locked` gives no passphrase.
    pub fn join_with(hive: &Hive, name: &str, more: &[&str]) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let passphrase = folder.path().join("passphrase");
        std::fs::write(&passphrase, PASSPHRASE).unwrap();
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).unwrap();
        let state = folder.path().join("state");
        let mut join = comb();
        join.arg("--state").arg(&state);
        join.args(["device", "join", &hive.url(), "--code", &hive.code(), "--name", name]).args(more);
        if !more.contains(&"--locked") {
            join.arg("--passphrase-file").arg(&passphrase);
        }
        let output = join.output().unwrap();
        assert!(output.status.success(), "join: {}", String::from_utf8_lossy(&output.stderr));
        let hive_file: Value =
            serde_json::from_slice(&std::fs::read(state.join("orchestrator/hive.json")).unwrap()).unwrap();
        let id = hive_file["device"].as_str().unwrap().to_owned();
        let mut machine = Machine { id, folder, daemon: None };
        machine.start();
        machine
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn apps(&self) -> PathBuf {
        self.folder.path().join("apps")
    }

    pub fn start(&mut self) {
        let daemon = run_device(&self.state(), &self.apps(), &self.folder.path().join("log"));
        self.daemon = Some(daemon);
    }

    /// Ends the device's process at once, as a crash would; what it started goes on.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// The exit code of a process that ends by itself.
    #[track_caller]
    pub fn ends(&mut self, wait: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.daemon.as_mut().unwrap().try_wait().unwrap() {
                self.daemon = None;
                return status.code();
            }
            assert!(begun.elapsed() < wait, "it does not end within {wait:?}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn comb(&self, args: &[&str]) -> Output {
        comb().arg("--state").arg(self.state()).args(args).output().unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.comb(args);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Where a volume of an app is mounted.
    pub fn mount(&self, app: &str, name: &str) -> PathBuf {
        self.state().join("orchestrator/apps").join(app).join("volumes").join(name)
    }

    /// Ids of this device's containers that run.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.comb.device={}", self.id);
        docker(&["ps", "-q", "--no-trunc", "--filter", &filter]).lines().map(str::to_owned).collect()
    }

    /// Waits until something holds of this machine.
    #[track_caller]
    pub fn until(&self, wait: Duration, what: &str, holds: impl Fn(&Machine) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < wait, "not {what} within {wait:?}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        begun.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.id, self.log());
        }
        clean_engine(&self.id);
        unmount_all(self.folder.path(), |folder| drop(self.comb(&["unmount", folder])));
    }
}

/// Unmounts what is mounted below a folder, the innermost first: as `comb` would, then whatever is left.
pub fn unmount_all(below: &Path, unmount: impl Fn(&str)) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folders = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut folders: Vec<&str> = folders.filter(|folder| Path::new(folder).starts_with(below)).collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    for folder in folders {
        unmount(folder);
        let _ = Command::new("umount").args(["-l", folder]).output();
    }
}

/// Removes what a device left in the engine, if that answers.
pub fn clean_engine(device: &str) {
    let filter = format!("label=io.comb.device={device}");
    let lines = |args: &[&str]| {
        let output = Command::new("docker").args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for one in lines(&["ps", "-aq", "--filter", &filter]) {
        let _ = Command::new("docker").args(["rm", "-f", &one]).output();
    }
    for one in lines(&["volume", "ls", "-q", "--filter", &filter]) {
        let _ = Command::new("docker").args(["volume", "rm", "-f", &one]).output();
    }
}

/// A store that is a folder.
pub fn store(folder: &Path) -> Value {
    std::fs::create_dir_all(folder).unwrap();
    json!([{ "store": "0e0e0e0e-0e0e-4e0e-8e0e-0e0e0e0e0e0e", "url": format!("file://{}", folder.display()) }])
}
