//! `comb device run`: two processes, a small one that never changes while it runs, and the device that it starts.
//!
//! The small one starts the program that is in its place (`orchestrator_device::programs`): the one that was installed,
//! or a release. A device that ends to be updated is started again as another program, which has to show that it is well
//! in time; else the one before is put back. Whatever else a device ends with, the small one ends with it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::daemon::{self, Ended, Setup};
use orchestrator_device::programs::{Next, Programs};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::join;
use crate::device::{Commands, RingFolder, apps_folder, docker_socket};
use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::State;

/// How long a new program may take to show that it is well.
const WELL_WAIT: Duration = Duration::from_secs(600);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a device may take to end that was asked to.
const END_WAIT: Duration = Duration::from_secs(20);
/// Before a new program that ended is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Run this machine's device, until it is stopped
///
/// Apps and their volumes stay as they are when it ends: the next run finds them again. A release that `comb device update`
/// brought runs in the place of this program from then on; removing `orchestrator/bin` in the state folder brings this
/// program back.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where the files of apps lie, for people to read [default: /apps, or below another --state]
    #[arg(long, value_name = "DIR")]
    apps: Option<PathBuf>,

    /// Docker's socket [default: what DOCKER_HOST names, else /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    docker: Option<PathBuf>,

    /// Join this hive first, if this machine is no device yet: for a container, which begins with this command each time.
    /// The device is locked then until `comb device unlock`
    #[arg(long, value_name = "HIVE", requires = "code")]
    join: Option<String>,

    /// The code that the hive made, for --join
    #[arg(long, value_name = "C", requires = "join")]
    code: Option<String>,

    /// What the device is called, for --join [default: this machine's name]
    #[arg(long, value_name = "N", requires = "join")]
    name: Option<String>,

    /// Let the hive install apps on this device by itself, for --join: whoever controls the hive can then run programs in
    /// containers here, without access to the data of other apps
    #[arg(long, requires = "join")]
    accept_authoring: bool,

    /// Be the device that `comb device run` started
    #[arg(long, hide = true)]
    kept: bool,
}

/// Runs the device.
pub fn run(state: &State, args: &RunArgs) -> Result<()> {
    state.prepare()?;
    if args.kept {
        return device(state, args);
    }
    if let (Some(hive), Some(code)) = (&args.join, &args.code)
        && Folder::of(state.root()).hive().context("the device's folder")?.is_none()
    {
        join::locked(state, hive, code, args.name.as_deref(), args.accept_authoring)?;
    }
    keep(state)
}

/// Starts the device's program, and the one that takes its place.
fn keep(state: &State) -> Result<()> {
    let programs = Programs::of(&Folder::of(state.root()).0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the device's program")?;
    let code: Result<Option<i32>> = runtime.block_on(async {
        loop {
            let next = programs.next().context("update.json of the device")?;
            if let Some(number) = next.tries {
                output::note(&format!("release {number} is tried as this device's program"));
            }
            let child = start(&next)?;
            match watch(child, &programs, next.tries).await? {
                Watched::Ended(status) => match programs.read().context("update.json of the device")?.trying {
                    // It ended to be followed by another, or what follows it has ended: either is for the next round.
                    Some(_) => tokio::time::sleep(TRY_AGAIN).await,
                    None if next.tries.is_some() => tokio::time::sleep(TRY_AGAIN).await,
                    None => return Ok(status.code()),
                },
                Watched::Asked => return Ok(Some(0)),
                Watched::Late(number) => {
                    programs.go_back().context("update.json of the device")?;
                    output::note(&format!(
                        "release {number} did not show within {} minutes that it is well: the program before it runs again",
                        WELL_WAIT.as_secs() / 60
                    ));
                }
            }
        }
    });
    match code? {
        Some(0) => Ok(()),
        // It has said why.
        Some(code) => std::process::exit(code),
        None => Err(Failure::other("the device's process was killed")),
    }
}

/// How watching a device ended.
enum Watched {
    /// It ended by itself.
    Ended(ExitStatus),
    /// A signal asked for its end, and it has ended.
    Asked,
    /// It is not well in time as this release, and was ended.
    Late(u64),
}

fn start(next: &Next) -> Result<Child> {
    let program = match &next.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("finding this program")?,
    };
    Command::new(&program).args(std::env::args_os().skip(1)).arg("--kept").spawn().context(program.display())
}

async fn watch(mut child: Child, programs: &Programs, tries: Option<u64>) -> Result<Watched> {
    let handler = |kind| signal(kind).context("waiting for signals");
    let mut end = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let until = tokio::time::Instant::now() + WELL_WAIT;
    let mut tries = tries;
    loop {
        tokio::select! {
            status = child.wait() => return status.map(Watched::Ended).context("the device's process"),
            _ = end.recv() => return ended(child).await.map(|()| Watched::Asked),
            _ = interrupt.recv() => return ended(child).await.map(|()| Watched::Asked),
            () = tokio::time::sleep(LOOK_EVERY), if tries.is_some() || is_first() => {
                reap(&child);
                let known = programs.read().context("update.json of the device")?;
                match (known.trying, tries) {
                    (None, _) => tries = None,
                    (Some(_), Some(number)) if tokio::time::Instant::now() >= until => {
                        ended(child).await?;
                        return Ok(Watched::Late(number));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether this is the first process of a container: then what loses its parent becomes this one's child.
fn is_first() -> bool {
    std::process::id() == 1
}

/// Lets go of daemons of volumes that have ended: as long as nobody asks how, they look as if they lived.
fn reap(child: &Child) {
    let mine = |stat: &str| {
        // The name in the middle may hold blanks and parentheses.
        let mut words = stat[stat.rfind(')')? + 1..].split_whitespace();
        (words.next() == Some("Z") && words.next() == Some("1")).then_some(())
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|_| is_first()) {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let pid = pid.filter(|pid| child.id() != u32::try_from(*pid).ok()).and_then(Pid::from_raw);
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let (Some(pid), Some(())) = (pid, mine(&stat)) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Asks a device to end, and ends it.
async fn ended(mut child: Child) -> Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that is gone already needs none.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(END_WAIT, child.wait()).await.is_err() {
        child.kill().await.context("ending the device's process")?;
    }
    Ok(())
}

/// The device itself.
fn device(state: &State, args: &RunArgs) -> Result<()> {
    // Alone it could not be stopped as one: a crash of the one that started it is a crash of this.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,hyper=warn,reqwest=warn,bollard=warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
    if !is_shared(state.root()) {
        output::note(
            "warning: what is mounted here is not shared with the machine, so containers may not see volumes: `mount --make-rshared /`",
        );
    }
    let apps = apps_folder(state, args.apps.as_deref());
    std::fs::create_dir_all(&apps).context(apps.display())?;
    let commands = Arc::new(Commands::new(state.clone(), Folder::of(state.root()).0));
    let setup = Setup {
        state: state.root().to_owned(),
        apps,
        docker: docker_socket(args.docker.as_deref()),
        volumes: commands.clone(),
        past: commands,
        rings: Arc::new(RingFolder(state.clone())),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chance,
        takes_updates: true,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the device")?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = daemon::run(setup) => Some(ended),
            () = signalled() => None,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        None | Some(Ok(()) | Err(Ended::Replaced)) => Ok(()),
        Some(Err(ended)) => {
            let kind = match &ended {
                Ended::NotJoined => Kind::NotFound,
                Ended::Revoked(_) => Kind::NotPermitted,
                Ended::Disk(_) => Kind::NoSpace,
                Ended::Hive(_) | Ended::Replaced => Kind::Unreachable,
            };
            Err(Failure::new(kind, ended.to_string()))
        }
    }
}

async fn signalled() {
    let (Ok(mut end), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn chance() -> [u8; 32] {
    *crate::keys::random().expect("a machine that runs has random bytes")
}

/// Whether what is mounted in a folder later shows in containers, and outside of the one that this may run in.
fn is_shared(folder: &Path) -> bool {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    orchestrator_device::daemon::doctor::is_shared(&text, &folder)
}
