//! A stage for the command line: a state folder and the binary. Only this file knows how commands are run.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A state folder with room for mount points beside it.
pub struct World {
    folder: TempDir,
}

/// What a command did.
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// Its result.
    pub out: String,
    /// What it said besides.
    pub said: String,
}

impl Outcome {
    /// Of a command that ended.
    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Expects success and returns the result.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}", self.said);
        self.out
    }

    /// Expects this exit code, an `error:` line, and these words in what was said.
    #[track_caller]
    pub fn refused(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.said);
        assert!(self.said.contains("error: "), "{}", self.said);
        assert!(self.said.contains(words), "{words:?} is not said in: {}", self.said);
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }

    /// Expects success and reads the result as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).expect("--json prints JSON")
    }
}

impl World {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new folder in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// A file in it that only its owner may read.
    pub fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        path
    }

    /// The command, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_comb"));
        command.arg("--state").arg(self.path("state")).args(words);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).env("TZ", "UTC");
        command
    }

    /// Runs `comb` with these words, split at blanks; quotes are not understood.
    pub fn comb(&self, line: &str) -> Outcome {
        self.words(line.split_whitespace())
    }

    /// Runs `comb` with these words.
    pub fn words<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::new(self.command(words).output().expect("the binary starts"))
    }

    /// The process that serves the only mount of `photos`.
    pub fn daemon(&self) -> String {
        // Who falls behind is told with an exit code of its own.
        let status = self.comb("status photos --json").out;
        let status: serde_json::Value = serde_json::from_str(&status).expect("--json prints JSON");
        status[0]["mounts"][0]["pid"].to_string()
    }

    /// Ends it before it can seal or send anything.
    pub fn kill_daemon(&self) {
        let pid = self.daemon();
        signal("-9", &pid);
        wait_until("dying", || !is_running(&pid));
    }

    /// Opens the volume `photos` from a store with this key.
    pub fn open_from(&self, key: &Path, url: &str, flags: &[&str]) -> Outcome {
        let key = key.display().to_string();
        let words = ["volume", "open", "photos", "--key-file", &key, "--store", url];
        self.words(words.iter().chain(flags))
    }

    /// The folder of the only volume.
    pub fn volume_folder(&self) -> PathBuf {
        let volumes = self.path("state/volumes");
        let entry = std::fs::read_dir(volumes).expect("the folder of volumes").next();
        entry.expect("a volume").expect("an entry").path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test leaves mounts; the daemons behind them would hold the folder.
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in table.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(point).starts_with(self.folder.path()) {
                let lazily = |program: &str, how: &str| {
                    Command::new(program).args([how, point]).stderr(Stdio::null()).status()
                };
                if !lazily("umount", "-l").is_ok_and(|status| status.success()) {
                    let _ = lazily("fusermount3", "-uz");
                }
            }
        }
    }
}

/// A copy of a folder.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.is_ok_and(|status| status.success()), "copied");
}

/// Puts a folder back in time: what is in it makes way for what a copy of it holds.
#[track_caller]
pub fn put_back(copied: &Path, folder: &Path) {
    std::fs::remove_dir_all(folder).expect("removed");
    copy(copied, folder);
}

/// Bytes that no compression makes smaller, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Sends a signal to a process.
#[track_caller]
pub fn signal(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().expect("kill starts").success());
}

/// Whether a process runs; one that only waits to be counted does not.
pub fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; the state comes behind the last bracket.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until it is so. For a minute at most: who is slow is not wrong, and a machine of two cores that builds beside is slow.
#[track_caller]
pub fn wait_until(what: &str, truth: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !truth() {
        assert!(Instant::now() < end, "{what} took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}
