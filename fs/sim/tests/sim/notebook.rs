//! Trials of the trials: an honest toy passes, and every flaw is found.

use fs_sim::trial::{self, Effort, Found, hunt};
use fs_sim::workload::{Op, Weights};
use fs_sim::{Flaw, NotebookOpener, Problem};

/// The toy writes nothing but page numbers, so small data finds as much.
fn weights() -> Weights {
    Weights { write_bytes_max: 20_000, attr: 20, ..Weights::default() }
}

type Trial = fn(&NotebookOpener, &Effort, u64, &[Op]) -> Result<(), Problem>;

const TRIALS: [(&str, Trial); 7] = [
    ("agrees", |opener, _, seed, ops| trial::agrees(opener, seed, ops)),
    ("survives cuts", |opener, _, seed, ops| trial::survives_cuts(opener, 2, seed, ops)),
    ("survives disk errors", trial::survives_disk_errors),
    ("survives no space", trial::survives_no_space),
    ("survives a full disk", |opener, _, seed, ops| trial::survives_a_full_disk(opener, 100, seed, ops)),
    ("names damage", |opener, _, seed, ops| trial::names_damage(opener, 8, seed, ops)),
    ("repeats", |opener, _, seed, ops| trial::repeats(opener, seed, ops)),
];

fn run(flaw: Flaw) -> Vec<(&'static str, Box<Found>)> {
    // The environment's long form is for the engine; here the seeds are fixed, and these suffice.
    let effort = Effort { seeds: (0..4).collect(), ops: 40, faults: 30 };
    let opener = NotebookOpener::new(flaw);
    let found = |(name, trial): &(&'static str, Trial)| {
        let trial = |seed: u64, ops: &[Op]| trial(&opener, &effort, seed, ops);
        hunt(&effort, &weights(), &trial).err().map(|found| (*name, found))
    };
    TRIALS.iter().filter_map(found).collect()
}

fn expect(flaw: Flaw, trial: &str) {
    let found = run(flaw);
    let Some((_, case)) = found.iter().find(|(name, _)| *name == trial) else {
        panic!(
            "{flaw:?} was not found by `{trial}`, only by {:?}",
            found.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
    };
    assert!(case.ops.len() <= 4, "a short list shows {flaw:?}, this is not one: {case}");
}

#[test]
fn an_engine_without_flaws_passes_every_trial() {
    let found: Vec<String> = run(Flaw::None).iter().map(|(name, found)| format!("{name}: {found}")).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    trial::creates_wholly(&NotebookOpener::new(Flaw::None), 1).expect("creation is atomic");
}

#[test]
fn bytes_that_were_not_synced_are_missed() {
    expect(Flaw::ForgetsBytes, "survives cuts");
}

#[test]
fn names_that_were_not_synced_are_missed() {
    expect(Flaw::ForgetsNames, "survives cuts");
}

#[test]
fn writing_over_the_only_copy_is_found() {
    expect(Flaw::WritesInPlace, "survives cuts");
}

#[test]
fn a_hidden_error_is_found() {
    expect(Flaw::HidesErrors, "survives disk errors");
}

#[test]
fn giving_up_on_a_full_disk_is_found() {
    expect(Flaw::GivesUpWhenFull, "survives no space");
}

#[test]
fn trust_in_the_disk_is_found() {
    expect(Flaw::TrustsTheDisk, "names damage");
}

#[test]
fn a_tail_that_comes_back_is_found() {
    expect(Flaw::KeepsTheTail, "agrees");
}

#[test]
fn a_run_that_does_not_repeat_is_found() {
    expect(Flaw::Wavers, "repeats");
}
