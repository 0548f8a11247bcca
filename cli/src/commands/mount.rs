//! `comb mount`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use fs_format::Ino;
use fs_fuse::Detach;
use fs_volume::ReadTree;

use super::daemon::{self, Moment, Ready};
use crate::control::Address;
use crate::failure::{Context, Failure, Kind, Result};
use crate::lease::LeaseEnd;
use crate::metrics::parse_address;
use crate::name::{VolumeName, parse_size, parse_span};
use crate::notes::{self, Seen, TAKEN_OVER};
use crate::state::{State, VolumeFolder};
use crate::when::When;
use crate::{branches, daemon_log, elsewhere, engine, mounts, output, progress, stores};

/// Mount a volume, or a moment of its past, on an empty folder
///
/// A daemon serves the mount until `comb unmount`. Every moment is open under .snapshots in its root:
/// `ls DIR/.snapshots`, `cd "DIR/.snapshots/yesterday 18:00"`. Without DIR the volume mounts on the
/// folder `data` of its own folder, which is printed.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The volume
    pub name: VolumeName,

    /// The folder to mount on; it must be there and empty
    pub dir: Option<PathBuf>,

    /// Mount this moment of the past, read-only; the volume may be mounted elsewhere meanwhile
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["metrics", "lease"])]
    pub at: Option<String>,

    #[command(flatten)]
    pub habits: Habits,

    /// Stay in the foreground and log to the terminal
    #[arg(long)]
    foreground: bool,
}

/// How a mount behaves; what the command hands on to the daemon.
#[derive(Debug, Clone, Args)]
pub struct Habits {
    /// Refuse all changes
    #[arg(long)]
    pub read_only: bool,

    /// Let other users in, as permissions allow (always so for root)
    #[arg(long)]
    pub allow_other: bool,

    /// Do not let the kernel hold written pages back: every write reaches the journal at once
    #[arg(long)]
    pub no_writeback: bool,

    /// Seal what changed, and send it to the stores, at least this often; 0 seals only when asked or when memory
    /// demands it [default: 15s for a volume with stores, else 60s]. A store is later than promised 45s after that
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub seal_every: Option<Duration>,

    /// Take changes for so long only, unless `comb lease` or a program moves that on: afterwards every change is refused, and nothing
    /// is sent to stores. A span from now on, or @ and milliseconds of the clock CLOCK_BOOTTIME
    #[arg(long, value_name = "SPAN")]
    pub lease: Option<LeaseEnd>,

    /// The most bytes a second that go to each store, whatever `comb store set --rate` says; 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,

    /// Tell figures to Prometheus at http://ADDR/metrics, for whoever can reach that address; a port alone is of this
    /// machine's 127.0.0.1
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,

    /// Memory for cached data
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_size)]
    pub cache: u64,

    /// Threads that serve requests [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
}

impl Habits {
    /// The same habits as arguments.
    fn to_args(&self) -> Vec<String> {
        let mut args = vec![format!("--cache={}", self.cache)];
        args.extend(self.seal_every.map(|span| format!("--seal-every={}", span.as_secs())));
        for (set, flag) in [
            (self.read_only, "--read-only"),
            (self.allow_other, "--allow-other"),
            (self.no_writeback, "--no-writeback"),
        ] {
            if set {
                args.push(flag.into());
            }
        }
        args.extend(self.lease.map(|end| format!("--lease={end}")));
        args.extend(self.rate.map(|rate| format!("--rate={rate}")));
        args.extend(self.metrics.map(|address| format!("--metrics={address}")));
        args.extend(self.threads.map(|threads| format!("--threads={threads}")));
        args
    }
}

/// Mounts a volume.
pub fn run(state: &State, args: MountArgs) -> Result<()> {
    let volume = state.volume(&args.name)?;
    let moment = match &args.at {
        Some(text) => Some(find_moment(&volume, text)?),
        None => {
            refuse_second(&volume)?;
            None
        }
    };
    let dir = match &args.dir {
        Some(dir) => {
            let there = mounts::absolute(dir).or_else(|failure| match failure.kind {
                // Let the check of mount points say it, with its hint.
                Kind::NotFound => Ok(dir.clone()),
                _ => Err(failure),
            })?;
            clear_dead(&there)?;
            refuse_over_store(state, &there)?;
            mounts::check_mount_point(&there)?;
            Some(there)
        }
        None if moment.is_some() => {
            return Err(Failure::new(Kind::Usage, "a moment of the past needs a folder to be mounted on")
                .hint(format!("comb mount {} DIR --at WHEN", args.name)));
        }
        None => None,
    };
    if args.foreground {
        return daemon::serve(state, &volume, dir.as_deref(), moment, &args.habits, |ready| {
            output::note(&format!("volume \"{}\" is mounted on {}", volume.name, ready.mount_point));
            Ok(())
        });
    }
    if moment.is_none() {
        warn_of_end(&volume);
    }
    let ready = start_daemon(state, &volume, dir.as_deref(), moment, &args.habits)?;
    let config = volume.config()?;
    if moment.is_none() && config.follows {
        if !args.habits.read_only {
            output::note(&format!(
                "volume \"{}\" is mounted read-only: another device writes it",
                volume.name
            ));
        }
        for failure in config.stores.iter().filter_map(|store| Seen::read(&volume, &store.name).err()) {
            output::note(&format!("warning: nothing new is shown: {}", failure.message));
            failure.hint.iter().for_each(|hint| output::note(&format!("hint: {hint}")));
        }
    }
    match &args.dir {
        Some(_) => output::note(&format!("volume \"{}\" is mounted on {}", volume.name, ready.mount_point)),
        // The person has to learn where.
        None => output::line(&ready.mount_point)?,
    }
    match ready.trouble {
        Some(trouble) => {
            output::note(&format!("warning: the volume is read-only: {trouble}"));
            let hint = match trouble.starts_with(TAKEN_OVER) {
                true => engine::way_on(&volume.name, Some(&ready.mount_point)),
                false => engine::way_out(&volume.name),
            };
            output::note(&format!("hint: {hint}"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Says that another device has taken the volume over, if one has.
fn warn_of_end(volume: &VolumeFolder) {
    let (noticed, hint) = match notes::ended(volume) {
        Ok(None) => return,
        Ok(Some(ended)) => {
            let list = format!("`comb branch list {}` shows what is not in the volume", volume.name);
            let way_on = engine::way_on(&volume.name, None);
            let hint = if branches::has_tail(volume, &ended) { list } else { way_on };
            (format!(", noticed {}", ended.noticed), Some(hint))
        }
        Err(failure) => {
            output::note(&format!("warning: {}", failure.message));
            (String::new(), failure.hint)
        }
    };
    output::note(&format!(
        "warning: another device took volume \"{}\" over{noticed}: it is shown as it was left here, read-only",
        volume.name
    ));
    if let Some(hint) = hint {
        output::note(&format!("hint: {hint}"));
    }
}

fn find_moment(volume: &VolumeFolder, text: &str) -> Result<Moment> {
    let when = When::parse(text, &engine::now())?;
    elsewhere::refresh(volume);
    let history = engine::history(volume)?;
    let view = engine::find(volume, &history, &when)?;
    // The daemon would wait longer for a store that does not answer.
    view.attr(Ino::ROOT).map_err(|error| engine::fs_failure(&volume.name, &error))?;
    Ok(Moment(view.info().seq))
}

fn refuse_second(volume: &VolumeFolder) -> Result<()> {
    match Address::live(&volume.path).status()? {
        None => Ok(()),
        Some(report) if report.ending => Err(report.in_the_way(&volume.name)),
        Some(report) => Err(report
            .in_the_way(&volume.name)
            .hint(format!("`comb unmount {}` first, or mount a moment of it with --at", report.mount_point))),
    }
}

/// Refuses to mount over a store: it would be away, and whoever serves the mount might wait for what lies below.
fn refuse_over_store(state: &State, dir: &Path) -> Result<()> {
    for volume in state.volumes()? {
        // What is damaged in a config keeps nobody from mounting another volume.
        for store in volume.config().map(|config| config.stores).unwrap_or_default() {
            let folder = stores::folder(&store.url).ok().flatten();
            if let Some(folder) = folder.filter(|folder| folder.starts_with(dir)) {
                let what = format!(
                    "{} is store \"{}\" of volume \"{}\": a mount on {} would hide it",
                    folder.display(),
                    store.name,
                    volume.name,
                    dir.display()
                );
                return Err(Failure::new(Kind::InTheWay, what)
                    .hint("mount elsewhere: a volume cannot be kept in a volume that is mounted here"));
            }
        }
    }
    Ok(())
}

/// Takes away a mount of ours whose daemon is dead. Its data is safe in the journal.
fn clear_dead(dir: &Path) -> Result<()> {
    if fs_fuse::is_dead(dir) && mounts::source_of(dir)?.is_some() {
        output::note(&format!("the daemon of the mount on {} is dead: clearing it away", dir.display()));
        mounts::unmount(dir, Detach::Lazily)?;
    }
    Ok(())
}

/// Starts this program again as a daemon and waits until it serves the mount.
fn start_daemon(
    state: &State,
    volume: &VolumeFolder,
    dir: Option<&Path>,
    moment: Option<Moment>,
    habits: &Habits,
) -> Result<Ready> {
    let mut command = Command::new(own_program());
    command.arg("--state").arg(state.root()).arg("daemon").args(habits.to_args());
    command.args(moment.map(|Moment(seq)| format!("--seq={seq}")));
    command.arg("--").arg(volume.name.as_str()).args(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(daemon_log::open(volume)?);
    let mut child = command.spawn().context("starting the daemon")?;

    // The daemon's standard output is the pipe that carries its one line; it ends when the daemon does.
    let bar = progress::waiting("opening the volume");
    let mut line = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut line).context("waiting for the daemon")?;
    }
    bar.finish_and_clear();
    match serde_json::from_str::<std::result::Result<Ready, Failure>>(&line) {
        Ok(outcome) => outcome,
        Err(_) => {
            let ended =
                child.try_wait().ok().flatten().map(|status| format!(" ({status})")).unwrap_or_default();
            Err(Failure::other(format!("the daemon ended before the volume was mounted{ended}"))
                .hint(format!("see {}", daemon_log::path(volume).display())))
        }
    }
}

/// This program. By its path, so that it shows under its name; one that was replaced meanwhile still has the other way.
fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}
