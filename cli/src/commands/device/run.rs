//! `comb device run`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use orchestrator_device::daemon::files::Folder;
use orchestrator_device::daemon::{self, Ended, Setup};

use crate::device::{Commands, RingFolder, apps_folder, docker_socket};
use crate::failure::{Context, Failure, Kind, Result};
use crate::output;
use crate::state::State;

/// Run this machine's device, until it is stopped
///
/// Apps and their volumes stay as they are when it ends: the next run finds them again.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where the files of apps lie, for people to read [default: /apps, or below another --state]
    #[arg(long, value_name = "DIR")]
    apps: Option<PathBuf>,

    /// Docker's socket [default: what DOCKER_HOST names, else /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    docker: Option<PathBuf>,
}

/// Runs the device.
pub fn run(state: &State, args: &RunArgs) -> Result<()> {
    state.prepare()?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,hyper=warn,reqwest=warn,bollard=warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
    if !is_shared() {
        output::note(
            "warning: mounts are not shared on this machine, so containers may not see volumes: `mount --make-rshared /`",
        );
    }
    let apps = apps_folder(state, args.apps.as_deref());
    std::fs::create_dir_all(&apps).context(apps.display())?;
    let setup = Setup {
        state: state.root().to_owned(),
        apps,
        docker: docker_socket(args.docker.as_deref()),
        volumes: Arc::new(Commands::new(state.clone(), Folder::of(state.root()).0)),
        rings: Arc::new(RingFolder(state.clone())),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chance,
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
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match ended {
        None | Some(Ok(())) => Ok(()),
        Some(Err(ended)) => {
            let kind = match &ended {
                Ended::NotJoined => Kind::NotFound,
                Ended::Revoked => Kind::NotPermitted,
                Ended::Disk(_) => Kind::NoSpace,
                Ended::Hive(_) => Kind::Unreachable,
            };
            Err(Failure::new(kind, ended.to_string()))
        }
    }
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
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

/// Whether what is mounted here later shows in containers.
fn is_shared() -> bool {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = text.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    root.is_none_or(|line| line.contains(" shared:"))
}
