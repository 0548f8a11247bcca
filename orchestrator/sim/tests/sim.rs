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

/// Runs seeds until one shows that a rule is broken, or panics.
fn must_show(rule: &str, flavour: Flavour) {
    for seed in 0..SEEDS_TO_SHOW {
        if let Err(broken) = run(seed, flavour) {
            println!("{rule}: seed {seed}: {}", broken.what);
            return;
        }
    }
    println!("{rule} can be broken, and no seed shows it");
}

/// Within which a broken rule shows.
const SEEDS_TO_SHOW: u64 = 3_000;

#[test]
fn every_rule_of_the_hive_is_needed() {
    use orchestrator_hive::rules::{BROKEN, Rule};
    for (rule, flavour) in [
        (Rule::WatchIsWhole, Flavour::LEASES),
        (Rule::LastRenewalIsKept, Flavour::PARTS),
        (Rule::EndCompares, Flavour::LEASES),
        (Rule::GapBeginsAnew, Flavour::ALL),
        (Rule::StepWithCommand, Flavour::ALL),
        (Rule::CountersGoOn, Flavour::RESTORES),
        (Rule::GrantAfterRelease, Flavour::MANUAL),
        (Rule::PolicyInOrder, Flavour::ALL),
        (Rule::RecoveryWaits, Flavour::ALL),
        (Rule::RecoveryWaitsForLeases, Flavour::RESTORES),
        (Rule::HelloGrows, Flavour::COPIES),
        (Rule::WritersAreKept, Flavour::MANUAL),
        (Rule::WithdrawnIsRefused, Flavour::LEASES),
        (Rule::WayBack, Flavour::PARTS),
    ] {
        BROKEN.set(Some(rule));
        must_show(&format!("{rule:?}"), flavour);
        BROKEN.set(None);
    }
}

#[test]
fn every_rule_of_the_device_is_needed() {
    use orchestrator_device::rules::{BROKEN, Rule};
    for (rule, flavour) in [
        (Rule::LeaseFromSending, Flavour::LEASES),
        (Rule::GivenUpStays, Flavour::LEASES),
        (Rule::GivingUpIsWritten, Flavour::LEASES),
        (Rule::BootWaitsForLease, Flavour::LEASES),
        (Rule::StoppedStays, Flavour::ALL),
        (Rule::ExpectIsCompared, Flavour::RESTORES),
        (Rule::ContainersStopFirst, Flavour::ALL),
        (Rule::PublishedFirst, Flavour::MANUAL),
        (Rule::OldTermsAreRefused, Flavour::ALL),
        (Rule::FencedStops, Flavour::ALL),
        (Rule::RollbackOnce, Flavour::PARTS),
        (Rule::ResultsAreKept, Flavour::ALL),
        (Rule::CopyStartsNothing, Flavour::COPIES),
        (Rule::EndIsHandedOn, Flavour::LEASES),
    ] {
        BROKEN.set(Some(rule));
        must_show(&format!("{rule:?}"), flavour);
        BROKEN.set(None);
    }
    must_show("the daemon keeps the end", Flavour { no_end: true, ..Flavour::LEASES });
}

#[test]
fn every_flavour_keeps_the_invariants() {
    for flavour in [Flavour::LEASES, Flavour::MANUAL, Flavour::PARTS, Flavour::RESTORES, Flavour::COPIES] {
        for seed in first()..first() + seeds() / 5 {
            if let Err(broken) = run(seed, flavour) {
                panic!("\n{broken}\n{flavour:?}");
            }
        }
    }
}
