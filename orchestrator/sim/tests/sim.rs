//! The simulator: seeds, and rules that are broken on purpose.

use orchestrator_sim::{Flavour, Seen, run};

fn seeds() -> u64 {
    std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

fn first() -> u64 {
    std::env::var("SIM_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0)
}

#[test]
fn every_seed_keeps_the_invariants() {
    let mut all = Seen::default();
    for seed in first()..first() + seeds() {
        match run(seed, Flavour::ALL) {
            Ok(seen) => all += seen,
            Err(broken) => panic!("\n{broken}"),
        }
    }
    println!("{all:?}");
}

#[test]
fn nothing_fails_when_nothing_fails() {
    let mut all = Seen::default();
    for seed in 0..20 {
        match run(seed, Flavour::CALM) {
            Ok(seen) => all += seen,
            Err(broken) => panic!("\n{broken}"),
        }
    }
    println!("{all:?}");
}
