//! Who had which term of an app, and in which of them a volume was written.

use std::collections::BTreeMap;

use orchestrator_api::history::{Line, What, Who};
use orchestrator_api::ids::{AppId, DeviceId, OperationId, Term};
use orchestrator_api::text::Hex;

use super::lines::Histories;
use super::{Broken, Seen};

/// Invariant 4: terms only grow, and none is given to two devices, also by a hive that was restored.
pub(super) fn granted(histories: &Histories, seen: &mut Seen) -> Result<(), Broken> {
    let mut owners: BTreeMap<(AppId, Term), DeviceId> = BTreeMap::new();
    let mut highest: BTreeMap<AppId, Term> = BTreeMap::new();
    for (line, at) in histories.iter() {
        let broken = |why: String| Err(Broken { invariant: 4, at: at.to_owned(), why });
        match &line.what {
            What::Granted { app, term, device, .. } => {
                if let Some(other) = owners.insert((*app, *term), *device).filter(|other| other != device) {
                    return broken(format!("term {term} of {app} was given to {other} before"));
                }
                if let Some(before) = highest.insert(*app, *term).filter(|before| before >= term) {
                    return broken(format!("{app} had term {before} before"));
                }
                seen.terms += 1;
            }
            What::WriteBegan { app, term, .. } | What::Claimed { app, term, .. } => {
                let Who::Device(device) = line.who else { continue };
                // A hive that was restored does not know what it gave; its history does, if it was kept.
                match owners.get(&(*app, *term)) {
                    Some(owner) if *owner != device => {
                        return broken(format!("term {term} of {app} belongs to {owner}"));
                    }
                    None if highest.contains_key(app) => {
                        return broken(format!("nobody was given term {term} of {app}"));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// One time in which a device could write a volume.
struct Writing<'a> {
    app: AppId,
    term: Term,
    device: DeviceId,
    volume: Hex<32>,
    began: &'a Line,
    at: &'a str,
    ended: Option<u64>,
}

/// Invariant 2: under a lease, what one device writes has ended before what another one writes begins; and nobody writes in a
/// term after having written down that it is over.
pub(super) fn written(histories: &Histories, seen: &mut Seen) -> Result<(), Broken> {
    // Whether a term has an end of its own, and the latest that was told. A change of policy changes it within a term.
    let mut leases: BTreeMap<(AppId, Term), (bool, Option<u64>)> = BTreeMap::new();
    let mut stopped: BTreeMap<(DeviceId, AppId), Term> = BTreeMap::new();
    let mut writings: Vec<Writing<'_>> = Vec::new();
    for (line, at) in histories.iter() {
        let Who::Device(device) = line.who else {
            if let What::Granted { app, term, leased: with, .. } = &line.what {
                leases.insert((*app, *term), (*with, None));
            }
            continue;
        };
        match &line.what {
            What::Lease { app, term, end_ms } => {
                let (leased, end) = leases.entry((*app, *term)).or_default();
                (*leased, *end) = (end_ms.is_some(), (*end).max(*end_ms));
            }
            What::Stopped { app, term, .. } => {
                stopped.insert((device, *app), *term);
            }
            What::WriteBegan { app, term, volume, .. } => {
                if stopped.get(&(device, *app)).is_some_and(|over| over >= term) {
                    let why = format!("this device has written down that term {term} of {app} is over");
                    return Err(Broken { invariant: 2, at: at.to_owned(), why });
                }
                let (app, term, volume) = (*app, *term, *volume);
                writings.push(Writing { app, term, device, volume, began: line, at, ended: None });
            }
            What::WriteEnded { app, term, volume } => {
                let open = writings.iter_mut().rev().find(|one| {
                    one.ended.is_none()
                        && (one.app, one.term, one.device, one.volume) == (*app, *term, device, *volume)
                });
                if let Some(open) = open {
                    open.ended = Some(line.boottime_ms);
                }
            }
            _ => {}
        }
    }
    seen.writings = writings.len();
    for (number, later) in writings.iter().enumerate() {
        for earlier in
            writings[..number].iter().filter(|one| one.volume == later.volume && one.device != later.device)
        {
            // Without a lease nothing ends a term but a fence: there only the store decides (invariant 1).
            let Some((true, lease)) = leases.get(&(earlier.app, earlier.term)).copied() else { continue };
            let gone = histories.gone(earlier.device, earlier.began);
            let end = [earlier.ended, lease, gone].into_iter().flatten().min();
            if end.is_none_or(|end| end > later.began.boottime_ms) {
                let until = end.map_or("is not over".to_owned(), |end| format!("may go on until {end}"));
                let why = format!(
                    "what {} writes in term {} {until}: {}",
                    earlier.device, earlier.term, earlier.at
                );
                return Err(Broken { invariant: 2, at: later.at.to_owned(), why });
            }
        }
    }
    Ok(())
}

/// Invariant 6: no operation is left unfinished.
pub(super) fn finished(histories: &Histories, seen: &mut Seen) -> Result<(), Broken> {
    let mut last: BTreeMap<OperationId, (&str, &str)> = BTreeMap::new();
    for (line, at) in histories.iter() {
        if let What::Operation { operation, state, .. } = &line.what {
            last.insert(*operation, (state.as_ref(), at));
        }
    }
    seen.operations = last.len();
    match last.values().find(|(state, _)| *state == "running") {
        Some((_, at)) => {
            Err(Broken { invariant: 6, at: (*at).to_owned(), why: "this operation never ended".to_owned() })
        }
        None => Ok(()),
    }
}
