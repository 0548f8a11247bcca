//! Saying why a command waits.
//!
//! A command that waits for what may last (a store that is away, a store that is slow) says so, where a terminal shows a bar and
//! where nobody sees one. An interrupt ends it like any command: what it waits for is done by others, or again.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::output;
use crate::report::StoreReport;

/// How long a command waits before it says why.
const SAY_AFTER: Duration = Duration::from_secs(2);
/// The pause before it says what has changed: an error that changes with each try is not worth a line each time.
const SAY_AGAIN: Duration = Duration::from_secs(15);

/// What was said of a wait.
pub struct Waits {
    begun: Instant,
    said: Option<(Instant, String)>,
}

impl Waits {
    /// One that begins now.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), said: None }
    }

    /// Says why it waits, if that has lasted, and is not what was said.
    pub fn because(&mut self, why: Option<&str>, bar: &ProgressBar) {
        let Some(why) = why else { return };
        let is_due = match &self.said {
            None => self.begun.elapsed() >= SAY_AFTER,
            Some((at, said)) => said != why && at.elapsed() >= SAY_AGAIN,
        };
        if is_due {
            bar.suspend(|| output::note(&format!("waiting: {why}")));
            self.said = Some((Instant::now(), why.to_owned()));
        }
    }

    /// The same of stores that lack something.
    pub fn for_stores(&mut self, lacking: &[&StoreReport], bar: &ProgressBar) {
        let why: Vec<String> = lacking.iter().map(|store| why(store)).collect();
        self.because(Some(&why.join("; ")), bar);
    }
}

fn why(store: &StoreReport) -> String {
    let name = &store.name;
    match (&*store.state, &store.last_error) {
        ("waiting" | "not-open", Some(error)) => format!("store \"{name}\": {error}"),
        (_, Some(error)) if store.needs_somebody => format!("store \"{name}\": {error}"),
        ("starting", _) => format!("store \"{name}\" has not answered yet"),
        _ => format!("store \"{name}\" gets what it lacks"),
    }
}
