//! Which manifests of a volume were told to be safe, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::history::{Manifest, What, Who};
use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Hex;

use super::lines::Histories;
use super::{Broken, Seen};

/// Invariants 1 and 3: a number of a volume is told to be safe for one manifest only, epochs never fall along numbers, and
/// a claim extends all that was told to be safe before it.
pub(super) fn safe(histories: &Histories, seen: &mut Seen) -> Result<(), Broken> {
    let mut slots: BTreeMap<(Hex<32>, u64), (Manifest, &str)> = BTreeMap::new();
    for (line, at) in histories.iter() {
        let (one, claim) = match &line.what {
            What::Replicated(one) => (*one, None),
            What::Claimed { cut, parent, .. } => (*cut, Some(*parent)),
            _ => continue,
        };
        let broken = |why: String| Err(Broken { invariant: 1, at: at.to_owned(), why });
        if let Some((other, there)) = slots.get(&(one.volume, one.seq)).filter(|(other, _)| *other != one) {
            return broken(format!("number {} was told to be {}: {there}", one.seq, other.manifest));
        }
        let before = slots.range((one.volume, 0)..(one.volume, one.seq)).next_back().map(|(_, slot)| *slot);
        let after =
            slots.range((one.volume, one.seq + 1)..=(one.volume, u64::MAX)).next().map(|(_, slot)| *slot);
        if let Some((other, there)) = before.filter(|(other, _)| other.epoch > one.epoch) {
            return broken(format!("number {} before it has epoch {}: {there}", other.seq, other.epoch));
        }
        if let Some((other, there)) = after.filter(|(other, _)| other.epoch < one.epoch) {
            return broken(format!("number {} after it has epoch {}: {there}", other.seq, other.epoch));
        }
        match claim {
            Some(parent) => {
                seen.claims += 1;
                // The number before is the parent's, where it was told.
                if let Some((other, there)) = before.filter(|(other, _)| other.seq + 1 == one.seq)
                    && parent != Some(other.manifest)
                {
                    return broken(format!("it does not extend what was safe: {there}"));
                }
                if let Some((other, there)) = after.filter(|(other, _)| other.epoch < one.epoch) {
                    let why = format!("number {} was told to be safe, and is cut off: {there}", other.seq);
                    return Err(Broken { invariant: 3, at: at.to_owned(), why });
                }
            }
            None => seen.replicated += 1,
        }
        slots.insert((one.volume, one.seq), (one, at));
    }
    Ok(())
}

/// Invariant 5: a device that was fenced with seals behind somebody's cut keeps them as a branch, unless it was never seen again.
pub(super) fn kept(histories: &Histories) -> Result<(), Broken> {
    let mut sealed: BTreeMap<(DeviceId, Hex<32>), (Manifest, &str)> = BTreeMap::new();
    let mut safe: BTreeSet<Manifest> = BTreeSet::new();
    let mut owed: BTreeMap<(DeviceId, Hex<32>), (&str, String)> = BTreeMap::new();
    for (line, at) in histories.iter() {
        let Who::Device(device) = line.who else { continue };
        match &line.what {
            What::Sealed(one) => {
                sealed.insert((device, one.volume), (*one, at));
            }
            What::Replicated(one) => {
                safe.insert(*one);
            }
            What::Fenced { volume, .. } => {
                if let Some((last, there)) =
                    sealed.get(&(device, *volume)).filter(|(last, _)| !safe.contains(last))
                {
                    let why = format!(
                        "number {} was sealed, is not in the store, and is no branch: {there}",
                        last.seq
                    );
                    owed.insert((device, *volume), (at, why));
                }
            }
            What::Branch { volume, .. } => {
                owed.remove(&(device, *volume));
            }
            _ => {}
        }
    }
    match owed.into_values().next() {
        Some((at, why)) => Err(Broken { invariant: 5, at: at.to_owned(), why }),
        None => Ok(()),
    }
}
