//! `comb down`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::up::running;
use crate::failure::{Context, Failure, Kind, Result};
use crate::state::State;
use crate::{output, progress};

/// How often it looks whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long stopping the apps may take, and the end of what runs them.
const END_WAIT: Duration = Duration::from_secs(330);

/// Stop what `comb up` runs here: the apps, then the hive and the device
///
/// Data stays, and what is not in its store yet is brought there first. The next `comb up` starts the apps again.
#[derive(Debug, Args)]
pub struct DownArgs {}

/// Asks it to end, and waits until it has.
pub fn run(state: &State, _: &DownArgs) -> Result<()> {
    let Some(number) = running::who(state)? else {
        return Err(Failure::new(Kind::NotFound, format!("no `comb up` runs in {}", state.root().display()))
            .hint(
                "`comb --state DIR down` stops that of another folder; `comb app stop NAME` stops one app",
            ));
    };
    let pid = Pid::from_raw(number).ok_or_else(|| Failure::new(Kind::Damaged, "up.lock names no process"))?;
    kill_process(pid, Signal::TERM).context(format!("asking process {number} to end"))?;
    let bar = progress::waiting("stopping the apps");
    let begun = Instant::now();
    while running::who(state)? == Some(number) {
        if begun.elapsed() > END_WAIT {
            bar.finish_and_clear();
            return Err(Failure::new(
                Kind::Silent,
                format!("process {number} did not end within {} s: it stops apps still", END_WAIT.as_secs()),
            )
            .hint("`comb device status` shows what it waits for; the same command waits on"));
        }
        sleep(LOOK_EVERY);
    }
    bar.finish_and_clear();
    output::note("the apps are stopped; `comb up` starts them again");
    Ok(())
}
