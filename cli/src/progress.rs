//! A bar for what may take over a second; only where somebody watches a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::output;

/// How long something takes before its bar shows.
const DELAY: Duration = Duration::from_secs(1);
/// How often a bar is drawn anew.
const TICK: Duration = Duration::from_millis(100);

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const COUNT: &str = "{msg} {wide_bar} {human_pos}/{human_len} {eta}";
const WAITING: &str = "{spinner} {msg} {elapsed}";

/// A bar that counts bytes; hidden unless standard error is a terminal.
pub fn bytes(what: &'static str) -> ProgressBar {
    bar(what, BYTES)
}

/// A bar that counts things; hidden unless standard error is a terminal.
pub fn count(what: &'static str) -> ProgressBar {
    bar(what, COUNT)
}

/// A sign of life for what has no known length; hidden unless standard error is a terminal.
pub fn waiting(what: &'static str) -> ProgressBar {
    bar(what, WAITING)
}

/// What begins a line that tells a program how far something is.
pub const TOLD: &str = "progress ";
/// How often a program is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How far something is, as a program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Files and folders that are done.
    pub files: u64,
    /// Bytes that are done.
    pub bytes: u64,
    /// Of so many, where that is known.
    pub total: Option<u64>,
}

/// Tells a program on standard error how far a bar is: each second, and when this is dropped.
pub struct Teller {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Begins to tell. `files` counts those that are done.
pub fn tell(bar: &ProgressBar, files: Arc<AtomicU64>) -> Teller {
    let (end, ended) = channel::<()>();
    let bar = bar.clone();
    let say = move || {
        let told = Told { files: files.load(Ordering::Relaxed), bytes: bar.position(), total: bar.length() };
        output::note(&format!("{TOLD}{}", serde_json::to_string(&told).expect("numbers are JSON")));
    };
    let work = move || {
        while ended.recv_timeout(TOLD_EVERY) == Err(RecvTimeoutError::Timeout) {
            say();
        }
        say();
    };
    // Without the thread nothing is told, and all is done as well.
    Teller { end: Some(end), thread: std::thread::Builder::new().name("teller".into()).spawn(work).ok() }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Shows itself after [`DELAY`]; what is done sooner needs no bar.
fn bar(what: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        .with_message(what)
        .with_finish(ProgressFinish::AndClear);
    if !std::io::stderr().is_terminal() {
        return bar;
    }
    bar.set_style(
        ProgressStyle::with_template(template).expect("the templates of this file are well formed"),
    );
    let later = bar.downgrade();
    // Without the thread there is no bar, which changes nothing but the looks.
    let _ = std::thread::Builder::new().name("progress".into()).spawn(move || {
        std::thread::sleep(DELAY);
        if let Some(bar) = later.upgrade().filter(|bar| !bar.is_finished()) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
        }
    });
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_well_formed() {
        for template in [BYTES, COUNT, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
