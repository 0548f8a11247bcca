//! `comb unmount`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fs_fuse::Detach;
use indicatif::ProgressBar;

use crate::control::{Address, Request};
use crate::failure::{Failure, Kind, Result};
use crate::report::{ENDING, MountReport};
use crate::state::State;
use crate::{mounts, output, progress};

/// How long a daemon may take to let go after it was unmounted without being asked.
const GONE_WAIT: Duration = Duration::from_secs(10);

/// Unmount a volume and wait until it is sealed
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// The folder it is mounted on
    dir: PathBuf,
}

/// Unmounts.
pub fn run(state: &State, args: &UnmountArgs) -> Result<()> {
    let dir = mounts::absolute(&args.dir)?;
    let bar = progress::waiting("sealing");
    let outcome = unmount(state, &dir, &bar);
    bar.finish_and_clear();
    outcome?;
    output::note(&format!("{} is unmounted", dir.display()));
    Ok(())
}

fn unmount(state: &State, dir: &Path, bar: &ProgressBar) -> Result<()> {
    if let Some((address, report)) = daemon_of(state, dir)? {
        if report.ending {
            bar.suspend(|| output::note(&format!("{} is unmounted already: {ENDING}", dir.display())));
        }
        // `None`: it ended in this moment, which is what was wanted.
        address.ask::<()>(&Request::Unmount)?;
        return Ok(());
    }
    let Some(_source) = mounts::source_of(dir)? else {
        return Err(Failure::new(Kind::NotFound, format!("no volume is mounted on {}", dir.display()))
            .hint("`comb status` shows what is mounted where"));
    };
    // A daemon of another state folder seals when it notices; a dead one has left the journal.
    let how = if fs_fuse::is_dead(dir) { Detach::Lazily } else { Detach::WhenIdle };
    mounts::unmount(dir, how)?;
    let deadline = Instant::now() + GONE_WAIT;
    while mounts::source_of(dir)?.is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The daemon that serves `dir`, or did and is ending. One that gives no answer hides no other, but may be the one that is looked for.
fn daemon_of(state: &State, dir: &Path) -> Result<Option<(Address, MountReport)>> {
    let (mut silent, mut ending) = (None, None);
    for volume in state.volumes()? {
        for address in Address::all(&volume.path) {
            match address.status() {
                Ok(Some(report)) if report.is_on(dir) && report.ending => ending = Some((address, report)),
                Ok(Some(report)) if report.is_on(dir) => return Ok(Some((address, report))),
                Ok(_) => {}
                Err(failure) => silent = Some(failure),
            }
        }
    }
    match (ending, silent) {
        (None, Some(failure)) => Err(failure),
        // Its mount is no more, so this is another's.
        (Some(_), _) if mounts::source_of(dir)?.is_some() => Ok(None),
        (ending, _) => Ok(ending),
    }
}
