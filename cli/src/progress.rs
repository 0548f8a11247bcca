//! A bar for what may take over a second; only where somebody watches a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

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
