//! A bar for what may take over a second; only where somebody watches a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes; hidden unless standard error is a terminal.
pub fn bytes(what: &'static str) -> ProgressBar {
    bar(what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar that counts things; hidden unless standard error is a terminal.
pub fn count(what: &'static str) -> ProgressBar {
    bar(what, "{msg} {wide_bar} {human_pos}/{human_len} {eta}")
}

/// A sign of life for what has no known length; hidden unless standard error is a terminal.
pub fn waiting(what: &'static str) -> ProgressBar {
    bar(what, "{spinner} {msg} {elapsed}")
}

fn bar(what: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(what);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    bar.set_style(
        ProgressStyle::with_template(template).expect("the templates of this file are well formed"),
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
