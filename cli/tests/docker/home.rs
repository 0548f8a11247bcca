//! One machine with a real hive and a real device, and a person who is logged in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::machine::{PASSPHRASE, clean_engine, docker, run_device, unmount_all};

pub const SOON: Duration = Duration::from_secs(120);

/// The machine.
pub struct Home {
    pub folder: TempDir,
    hive: Option<Child>,
    device: Option<Child>,
    pub address: String,
}

pub fn comb() -> Command {
    Command::new(env!("CARGO_BIN_EXE_comb"))
}

pub fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Home {
    pub fn new() -> Home {
        Self::with(&[])
    }

    /// The same, with more words for the device's code.
    pub fn with(more: &[&str]) -> Home {
        Self::without_device().with_device(more)
    }

    /// The same, with the device's state on a disk of its own that has so many MiB.
    pub fn on_disk(mib: u64) -> Home {
        let small = |folder: &Path| {
            let (image, state) = (folder.join("disk"), folder.join("state"));
            fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
            fs::create_dir(&state).unwrap();
            let run = |program: &str, args: &[&str], path: &Path| {
                let done = Command::new(program).args(args).arg(&image).arg(path).output().unwrap();
                assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
            };
            let done = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output().unwrap();
            assert!(done.status.success(), "mkfs: {}", String::from_utf8_lossy(&done.stderr));
            run("mount", &["-o", "loop"], &state);
            fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        };
        Self::prepared(small).with_device(&[])
    }

    fn with_device(self, more: &[&str]) -> Home {
        let mut home = self;
        let url = format!("http://{}", home.address);
        let code = home.code(more);
        let words = ["--name", "attic", "--passphrase-file", "passphrase"];
        home.done(&[&["device", "join", &url, "--code", &code], &words[..]].concat());
        home.run_device();
        home.until("online", Home::is_online);
        home
    }

    pub fn code(&self, more: &[&str]) -> String {
        let code = self.done(&[&["device", "code", "--json"], more].concat());
        let code: Value = serde_json::from_str(&code).unwrap();
        code["code"].as_str().unwrap().to_owned()
    }

    pub fn is_online(&self) -> bool {
        let list: Value = serde_json::from_str(&self.done(&["device", "list", "--json"])).unwrap();
        list[0]["state"] == "online" && !list[0]["seen_age_ms"].is_null()
    }

    /// Another device of the hive, on this machine.
    pub fn another(&self, name: &str) -> Another {
        let url = format!("http://{}", self.address);
        let (code, state) = (self.code(&[]), self.path(name));
        let mut join = comb();
        join.arg("--state").arg(&state).args(["device", "join", &url, "--code", &code, "--name", name]);
        let output = join.arg("--passphrase-file").arg(self.path("passphrase")).output().unwrap();
        assert!(output.status.success(), "join: {}", String::from_utf8_lossy(&output.stderr));
        let id = device_id(&state);
        let log = self.path(&format!("{name}-log"));
        let process = run_device(&state, &self.path(&format!("{name}-apps")), &log);
        let another = Another { id, process, log };
        self.until("online", |home| {
            let list: Value = serde_json::from_str(&home.done(&["device", "list", "--json"])).unwrap();
            let list = list.as_array().unwrap().clone();
            list.len() > 1 && list.iter().all(|one| one["state"] == "online" && !one["seen_age_ms"].is_null())
        });
        another
    }

    pub fn without_device() -> Home {
        Self::prepared(|_| {})
    }

    fn prepared(prepare: impl FnOnce(&Path)) -> Home {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut home = Home { folder, hive: None, device: None, address: "127.0.0.1:0".to_owned() };
        let code = home.run_hive().expect("a new hive says its setup code");
        private(&home.path("code"), &code);
        private(&home.path("password"), "a password of the owner");
        private(&home.path("passphrase"), PASSPHRASE);
        let url = format!("http://{}", home.address);
        let words = ["--title", "Home", "--setup-code-file", "code", "--password-file", "password"];
        home.done(&[&["account", "create", &url], &words[..]].concat());
        let store = home.path("store");
        fs::create_dir(&store).unwrap();
        home.done(&["account", "store", "add", &format!("file://{}", store.display()), "--shared"]);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Starts the hive where it was; a new one prints its setup code.
    pub fn run_hive(&mut self) -> Option<String> {
        let is_new = !self.path("hive.db").exists();
        let database = format!("sqlite:{}", self.path("hive.db").display());
        let mut process = comb()
            .arg("--state")
            .arg(self.path("hive-state"))
            .args(["hive", "run", "--listen", &self.address, "--db", &database])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = mpsc::channel();
        let pipes: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(process.stdout.take().unwrap()), Box::new(process.stderr.take().unwrap())];
        for pipe in pipes {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = said.send(line);
                }
            });
        }
        self.hive = Some(process);
        let (mut address, mut code) = (None, None);
        while address.is_none() || (is_new && code.is_none()) {
            let line = lines.recv_timeout(SOON).expect("the hive says where it is");
            for word in line.split_whitespace() {
                let word = word.trim_matches(|one: char| !one.is_ascii_alphanumeric());
                if let Some(found) = word.strip_prefix("http://") {
                    address = Some(found.to_owned());
                }
                if word.len() == 35 && word.matches('-').count() == 3 {
                    code = Some(word.to_owned());
                }
            }
        }
        self.address = address.unwrap();
        code
    }

    pub fn run_device(&mut self) {
        let device = run_device(&self.state(), &self.path("apps"), &self.path("log"));
        self.device = Some(device);
    }

    /// Ends the device's process at once; what it started goes on.
    pub fn crash_device(&mut self) {
        if let Some(mut device) = self.device.take() {
            device.kill().unwrap();
            device.wait().unwrap();
        }
    }

    pub fn away(&mut self) {
        if let Some(mut hive) = self.hive.take() {
            hive.kill().unwrap();
            hive.wait().unwrap();
        }
    }

    pub fn comb(&self, args: &[&str]) -> Output {
        comb()
            .arg("--state")
            .arg(self.state())
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that does what it is asked for.
    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.comb(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "comb {args:?}: {errors}\nlog:\n{}", self.log());
        eprint!("{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The words of a command that is refused with this code.
    #[track_caller]
    pub fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.comb(args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "comb {args:?}: {errors}");
        errors
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Home) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < SOON, "not {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    pub fn app(&self, name: &str) -> Value {
        serde_json::from_str(&self.done(&["app", "show", name, "--json"])).unwrap()
    }

    /// Where a volume of an app is mounted here.
    pub fn mount(&self, name: &str, volume: &str) -> PathBuf {
        let app = self.app(name);
        let app = app["id"].as_str().or(app["app"]["id"].as_str()).unwrap().to_owned();
        self.state().join("orchestrator/apps").join(app).join("volumes").join(volume).join("data")
    }

    pub fn containers(&self) -> usize {
        containers_of(&self.device_id()).len()
    }

    pub fn device_id(&self) -> String {
        device_id(&self.state())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.away();
        if let Some(mut device) = self.device.take() {
            let _ = device.kill();
            let _ = device.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the device:\n{}", self.log());
        }
        let file = fs::read(self.state().join("orchestrator/hive.json")).unwrap_or_default();
        let file: Value = serde_json::from_slice(&file).unwrap_or_default();
        clean_engine(file["device"].as_str().unwrap_or("none"));
        unmount_all(self.folder.path(), |folder| drop(self.comb(&["unmount", folder])));
    }
}

/// A second device, with its process.
pub struct Another {
    pub id: String,
    process: Child,
    log: PathBuf,
}

impl Drop for Another {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("log of the other device:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        clean_engine(&self.id);
    }
}

/// Which device a state folder is.
pub fn device_id(state: &Path) -> String {
    let file: Value =
        serde_json::from_slice(&fs::read(state.join("orchestrator/hive.json")).unwrap()).unwrap();
    file["device"].as_str().unwrap().to_owned()
}

/// Ids of a device's containers that run.
pub fn containers_of(device: &str) -> Vec<String> {
    let filter = format!("label=io.comb.device={device}");
    docker(&["ps", "-q", "--no-trunc", "--filter", &filter]).lines().map(str::to_owned).collect()
}
