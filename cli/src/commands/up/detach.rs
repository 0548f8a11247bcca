//! `comb up --detach`: it begins in front of the person, who may be asked for something, and runs on by itself when the app
//! runs.
//!
//! ```text
//! comb up --detach ── starts ──▶ comb up --left: hive, store, device, app … ── runs ── log, own session ── until it is ended
//!       └─ hands on what that prints, until it says that it runs on, or has ended ─┘
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Context, Failure, Result};
use crate::output;
use crate::state::State;

/// A longer log is set aside when another `comb up` begins, in bytes.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// What the one that runs on says last to who started it: no text holds it.
const RUNS_ON: u8 = 0;

/// Where the one that runs on writes what it says.
fn log_path(state: &State) -> PathBuf {
    state.root().join("up.log")
}

/// Starts this program again, and returns when that runs on by itself; else ends as that ended, which has said why.
pub fn start(state: &State) -> Result<()> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .arg("--left")
        .stdout(Stdio::piped())
        .spawn()
        .context(program.display())?;
    let mut runs_on = false;
    if let Some(mut pipe) = child.stdout.take() {
        let mut part = [0; 4 << 10];
        while let Ok(len @ 1..) = pipe.read(&mut part) {
            let said: Vec<u8> = part[..len].iter().copied().filter(|byte| *byte != RUNS_ON).collect();
            runs_on |= said.len() < len;
            // A reader that is gone keeps nothing from running.
            let _ = std::io::stdout().write_all(&said);
        }
    }
    if runs_on {
        let log = log_path(state);
        output::note(&format!(
            "it runs on by itself, as process {}; what it says is in {}",
            child.id(),
            log.display()
        ));
        output::note(
            "`comb app list` shows the apps, `comb doctor` what is wrong, `comb down` stops the apps and ends it",
        );
        output::note("`comb up --install-unit` has systemd begin it at every boot");
        return Ok(());
    }
    let ended = child.wait().context(program.display())?;
    match ended.code() {
        Some(code) => std::process::exit(code),
        None => Err(Failure::other(format!("it ended before the app ran ({ended})"))),
    }
}

/// Goes on without the terminal: as a session of its own, whose words go to the log.
pub fn go_on(state: &State) -> Result<()> {
    let path = log_path(state);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.old")).context(path.display())?;
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).context(path.display())?;
    let null = File::open("/dev/null").context("/dev/null")?;
    rustix::process::setsid().context("starting a session")?;
    // Else the file system of whatever folder this is could not be unmounted.
    std::env::set_current_dir("/").context("/")?;
    rustix::stdio::dup2_stdin(&null).context("standard input")?;
    rustix::stdio::dup2_stderr(&log).context("standard error")?;
    let mut out = std::io::stdout();
    out.write_all(&[RUNS_ON]).and_then(|()| out.flush()).context("standard output")?;
    rustix::stdio::dup2_stdout(&log).context("standard output")
}
