//! The small cases, and that breaking any rule shows in one of them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fs_format::{Epoch, Seq};
use fs_store::Name;

use super::check::{Broken, Cast, Collects, Scene, explore};
use super::world::{Folder, Machine, boundary, pack, volume};
use crate::rules::{BROKEN, Rule};
use crate::{Names, Signer};

fn names() -> Names {
    Names::of(&volume())
}

/// The slots of a folder up to a seq.
fn slots(folder: &Folder, to: u64) -> Vec<(Name, Bytes)> {
    let slots = folder.manifests().into_iter().filter(|(seq, _)| seq.0 <= to);
    slots.map(|(seq, bytes)| (names().slot(seq), bytes)).collect()
}

fn writer(folder: &Arc<Folder>) -> Cast {
    Cast::Writer { folder: folder.clone(), epoch: 1 }
}

fn claimant(device: u8, seals: u64, collects: Collects) -> Cast {
    Cast::Claimant { device, seals, collects }
}

/// A folder with seals 1 to `shared`, and clones of it that went on apart to `last`.
fn clones(shared: u64, last: u64) -> (Arc<Folder>, Arc<Folder>) {
    let one = Folder::sealed(1, shared, 1);
    let other = one.cloned();
    for _ in shared..last {
        one.seal(1, 2, &[]);
        other.seal(1, 3, &[]);
    }
    (Arc::new(one), Arc::new(other))
}

/// One machine with packs, which dies.
fn alone(faults: u32, deaths: u32) -> Scene {
    let folder = Folder::sealed(1, 1, 1);
    folder.seal(1, 1, &[pack(1, 100), pack(2, 100)]);
    folder.seal(1, 1, &[]);
    let folder = Arc::new(folder);
    Scene { name: "alone", begin: Vec::new(), casts: vec![writer(&folder)], faults, deaths }
}

/// A machine and its clone, to an empty store.
fn cloned(faults: u32, deaths: u32) -> Scene {
    let (one, other) = clones(1, 3);
    Scene { name: "cloned", begin: Vec::new(), casts: vec![writer(&one), writer(&other)], faults, deaths }
}

/// Another device takes over while the writer commits.
fn taken_over(seals: u64, faults: u32, deaths: u32) -> Scene {
    let folder = Arc::new(Folder::sealed(1, 1 + seals, 1));
    Scene {
        name: "taken over",
        begin: slots(&folder, 1),
        casts: vec![writer(&folder), claimant(5, 0, Collects::Nothing)],
        faults,
        deaths,
    }
}

/// Two devices take over at once, beside a writer or after it was lost.
fn two_claim(writes: bool, faults: u32, deaths: u32) -> Scene {
    let folder = Arc::new(Folder::sealed(1, 2, 1));
    let mut casts = vec![claimant(5, 0, Collects::Nothing), claimant(9, 0, Collects::Nothing)];
    if writes {
        casts.insert(0, writer(&folder));
    }
    Scene { name: "two claim", begin: slots(&folder, 1), casts, faults, deaths }
}

/// A clone, and another device that takes over from both.
fn clones_taken_over(faults: u32, deaths: u32) -> Scene {
    let (one, other) = clones(1, 2);
    Scene {
        name: "clones taken over",
        begin: slots(&one, 1),
        casts: vec![writer(&one), writer(&other), claimant(5, 0, Collects::Nothing)],
        faults,
        deaths,
    }
}

/// A writer sleeps while another device takes over, goes on and collects.
fn slept(collects: Collects, faults: u32, deaths: u32) -> Scene {
    let folder = Arc::new(Folder::sealed(1, 2, 1));
    Scene {
        name: "slept",
        begin: slots(&folder, 1),
        casts: vec![writer(&folder), claimant(5, 1, collects)],
        faults,
        deaths,
    }
}

/// A device that takes over sleeps while another one does, goes on and collects.
fn claimant_slept(faults: u32) -> Scene {
    let folder = Arc::new(Folder::sealed(1, 1, 1));
    Scene {
        name: "claimant slept",
        begin: slots(&folder, 1),
        casts: vec![claimant(5, 0, Collects::Nothing), claimant(9, 1, Collects::All)],
        faults,
        deaths: 0,
    }
}

/// Two clones begin a store, of which one has dropped its old seals.
fn begun_twice(faults: u32, deaths: u32) -> Scene {
    let (whole, _) = clones(1, 3);
    let short = Folder::begin(2, super::world::manifest(1, 2, fs_format::ManifestId([9; 32]), 4));
    short.seal(1, 4, &[]);
    let casts = vec![writer(&whole), writer(&Arc::new(short))];
    Scene { name: "begun twice", begin: Vec::new(), casts, faults, deaths }
}

/// A store in which somebody claimed an epoch and died, with an old boundary.
fn claimant_died(faults: u32) -> Scene {
    let folder = Arc::new(Folder::sealed(1, 4, 1));
    let mut begin = slots(&folder, 3);
    begin.push((names().claim(Epoch(2)), Machine::new(8).claim(Epoch(2)).expect("signed")));
    begin.push((names().boundary(Seq(1)), boundary(Epoch(1), Seq(1))));
    begin.remove(0);
    let casts = vec![writer(&folder), claimant(5, 1, Collects::Nothing)];
    Scene { name: "claimant died", begin, casts, faults, deaths: 0 }
}

fn short() -> Vec<Scene> {
    vec![
        alone(1, 0),
        alone(0, 1),
        cloned(1, 0),
        cloned(0, 1),
        taken_over(1, 1, 0),
        taken_over(1, 0, 1),
        taken_over(2, 0, 0),
        two_claim(false, 0, 0),
        slept(Collects::First, 0, 0),
        begun_twice(1, 0),
        begun_twice(0, 1),
        claimant_died(0),
        slept(Collects::All, 0, 0),
    ]
}

fn tell(scene: &Scene) -> Result<(), Broken> {
    let begin = Instant::now();
    let seen = explore(scene)?;
    let (faults, deaths, took) = (scene.faults, scene.deaths, begin.elapsed());
    println!("{:<18} lost {faults} died {deaths}: {seen:?} in {took:.1?}", scene.name);
    Ok(())
}

#[test]
fn no_interleaving_breaks_the_protocol() {
    for scene in short() {
        tell(&scene).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
#[ignore = "takes minutes; run by hand after a change of the protocol"]
fn no_interleaving_of_larger_cases_breaks_the_protocol() {
    for scene in [
        begun_twice(1, 1),
        cloned(1, 1),
        slept(Collects::First, 1, 0),
        slept(Collects::All, 0, 1),
        claimant_died(1),
        taken_over(2, 0, 1),
        clones_taken_over(0, 0),
        two_claim(false, 1, 0),
        two_claim(true, 0, 0),
        claimant_slept(0),
        slept(Collects::All, 1, 0),
        alone(1, 1),
        taken_over(1, 1, 1),
    ] {
        tell(&scene).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn every_broken_rule_is_noticed() {
    for (rule, scene) in [
        (Rule::PacksAreAnswered, alone(1, 0)),
        (Rule::ExistsIsRead, cloned(0, 0)),
        (Rule::ClaimsAfterSlot, taken_over(2, 0, 0)),
        (Rule::ClaimsAtStart, taken_over(2, 0, 1)),
        (Rule::ClaimBeforeCut, taken_over(3, 0, 0)),
        (Rule::BoundariesAfterSlot, slept(Collects::All, 0, 0)),
        (Rule::BoundaryBelowFirst, begun_twice(0, 0)),
        (Rule::EpochsGrow, two_claim(true, 0, 0)),
        (Rule::BoundaryAtStart, begun_twice(0, 1)),
        (Rule::CutIsCommitted, claimant_slept(0)),
        (Rule::SlotsStay, slept(Collects::First, 0, 0)),
    ] {
        BROKEN.set(Some(rule));
        let found = explore(&scene);
        BROKEN.set(None);
        match found {
            Err(broken) => println!("{rule:?}: {broken}"),
            Ok(seen) => panic!("{} does not show that {rule:?} is broken: {seen:?}", scene.name),
        }
    }
}
