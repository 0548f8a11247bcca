//! The loop: choose, mutate, judge, keep what is new.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::meter;
use crate::mutate::mutate;
use crate::outcome::Outcome;
use crate::targets::Target;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// After this many inputs.
    After(u64),
    /// When this much time has passed.
    In(Duration),
}

/// What a run saw that found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The target's name.
    pub target: &'static str,
    /// Inputs in all.
    pub iterations: u64,
    /// Those that decoded.
    pub decoded: u64,
    /// Different outcomes: each has an input in the corpus.
    pub outcomes: usize,
    /// Different reasons for which inputs were refused.
    pub reasons: BTreeSet<String>,
}

/// An input that breaks a decoder, and how to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The target's name.
    pub target: &'static str,
    /// The seed of the run.
    pub seed: u64,
    /// Which input of the run it was, from 1.
    pub iteration: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What did not hold.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, seed, iteration, input, what } = self;
        writeln!(f, "{target}: {what}")?;
        writeln!(f, "input: {}", hex(input))?;
        write!(f, "replay: cargo run -p fs-fuzz -- {target} --iterations {iteration} --seed {seed}")
    }
}

thread_local! {
    /// What this thread is at: a panic ends the program before anybody could return it.
    static CURRENT: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// Corpus entries beyond this are not kept: a shape that is too fine shall not eat the memory.
const CORPUS_MAX: usize = 2000;
/// Inputs between two looks at the clock.
const CLOCK_EVERY: u64 = 64;
/// How often in a hundred checksums and signatures are made to match, where a target has any.
const REPAIR_PERCENT: usize = 75;

/// Runs a target until it breaks or the run ends.
///
/// # Panics
/// If the program does not count allocations: its global allocator must be [`crate::Meter`].
pub fn run(target: &Target, seed: u64, stop: Stop) -> Result<Report, Box<Failure>> {
    assert!(meter::is_installed(), "the program's global allocator must be fs_fuzz::Meter");
    tell_of_panics();
    let ended = search(target, seed, stop);
    // A panic from here on is none of this target's.
    CURRENT.set(None);
    ended
}

fn search(target: &Target, seed: u64, stop: Stop) -> Result<Report, Box<Failure>> {
    let mut report =
        Report { target: target.name, iterations: 0, decoded: 0, outcomes: 0, reasons: BTreeSet::new() };
    let mut seen = BTreeSet::new();
    let mut corpus = (target.seeds)();
    for valid in &corpus {
        report.iterations += 1;
        match try_input(target, seed, report.iterations, valid) {
            Outcome::Decoded { shape, effort } => {
                report.decoded += 1;
                seen.insert((String::new(), shape, effort));
            }
            other => {
                let what = format!("what the encoder wrote gives {other:?}");
                return Err(Box::new(failure(target, seed, report.iterations, valid, what)));
            }
        }
    }
    let seeds = corpus.len();
    let mut dice = Dice::seeded(seed, target.name);
    let begin = Instant::now();
    let mut input = Vec::new();
    loop {
        let over = match stop {
            Stop::After(iterations) => report.iterations >= iterations,
            Stop::In(time) => report.iterations.is_multiple_of(CLOCK_EVERY) && begin.elapsed() >= time,
        };
        if over {
            report.outcomes = seen.len();
            return Ok(report);
        }
        // Every second input comes straight from a valid one: the corpus drifts away from those.
        let among = if dice.percent(50) { seeds } else { corpus.len() };
        input.clear();
        input.extend_from_slice(&corpus[dice.below(among)]);
        let donor = dice.below(corpus.len());
        mutate(&mut dice, &mut input, &corpus[donor]);
        if let Some(repair) = target.repair
            && dice.percent(REPAIR_PERCENT)
        {
            repair(&mut input);
        }
        report.iterations += 1;
        let key = match try_input(target, seed, report.iterations, &input) {
            Outcome::Decoded { shape, effort } => {
                report.decoded += 1;
                (String::new(), shape, effort)
            }
            Outcome::Refused { reason, effort } => {
                if !report.reasons.contains(&reason) {
                    report.reasons.insert(reason.clone());
                }
                (reason, 0, effort)
            }
            Outcome::Broken(what) => {
                return Err(Box::new(failure(target, seed, report.iterations, &input, what)));
            }
        };
        if seen.len() < CORPUS_MAX && seen.insert(key) {
            corpus.push(input.clone());
        }
    }
}

/// Tries one input alone.
pub fn replay(target: &Target, input: &[u8]) -> Outcome {
    tell_of_panics();
    let outcome = try_input(target, 0, 0, input);
    CURRENT.set(None);
    outcome
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn try_input(target: &Target, seed: u64, iteration: u64, input: &[u8]) -> Outcome {
    CURRENT.with_borrow_mut(|current| match current {
        Some(current) if current.target == target.name => {
            (current.seed, current.iteration) = (seed, iteration);
            current.input.clear();
            current.input.extend_from_slice(input);
        }
        _ => *current = Some(failure(target, seed, iteration, input, "panicked".into())),
    });
    (target.run)(input)
}

fn failure(target: &Target, seed: u64, iteration: u64, input: &[u8], what: String) -> Failure {
    Failure { target: target.name, seed, iteration, input: input.to_vec(), what }
}

/// From now on a panic says which input it came from, before whatever else panics do here.
fn tell_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            CURRENT.with(|current| {
                if let Ok(current) = current.try_borrow()
                    && let Some(failure) = &*current
                {
                    eprintln!("{failure}");
                }
            });
            before(panic);
        }));
    });
}
