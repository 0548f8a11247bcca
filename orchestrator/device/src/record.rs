//! What is on a device's disk: one file of its own, and one record for each app, each replaced whole.
//!
//! A record holds the command that is being done and the results that the hive does not have yet, so there is no other
//! file that could disagree with it. What is delivered again is told from what is new by its number.

use std::collections::BTreeMap;

use orchestrator_api::command::{Command, CommandResult, Verb};
use orchestrator_api::ids::{
    AppId, CommandNumber, Generation, HelloNumber, Incarnation, ManifestId, OperationId, Term, VolumeId,
};
use orchestrator_api::placement::{Expect, Head, Phase, Policy};
use orchestrator_api::report::Refusal;

/// What a crash leaves.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Disk {
    /// The device's own file.
    pub identity: Identity,
    /// The records.
    pub apps: BTreeMap<AppId, Record>,
}

/// The device's own file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    /// The last hello that it may have said.
    pub hello: HelloNumber,
    /// The highest incarnation of its hive that it saw.
    pub incarnation: Incarnation,
    /// The hive wants nothing more of this machine.
    pub refused: Option<Refusal>,
}

/// What a device knows of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The app.
    pub app: AppId,
    /// The highest term that it has seen.
    pub term: Term,
    /// Whether that term was given to this device.
    pub mine: bool,
    /// The highest generation that it has seen.
    pub generation: Generation,
    /// Whether it needs a lease.
    pub policy: Policy,
    /// Where the app is.
    pub phase: Phase,
    /// Whether it can stand by: it was prepared, or had the app and let go. Not while it is prepared for the first time, nor when
    /// that failed.
    pub ready: bool,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// The moments to go back to before the app is started.
    pub rollback_to: BTreeMap<VolumeId, Head>,
    /// Whether it was started in this term.
    pub started: bool,
    /// Whether the gate passed in this term.
    pub healthy: bool,
    /// The command that is being done.
    pub doing: Option<Command>,
    /// The highest command that it was given.
    pub command: CommandNumber,
    /// The last results.
    pub results: Vec<Kept>,
}

/// A volume of an app, in this term.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRecord {
    /// What the store must hold before it is claimed.
    pub expect: Expect,
    /// The first manifest of this device's epoch.
    pub cut: Option<Cut>,
}

/// The first manifest of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The manifest.
    pub head: Head,
    /// The one before it, which another may have written.
    pub parent: Option<ManifestId>,
}

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// With the verb, what makes a command the same when it is given again.
    pub operation: OperationId,
    /// What was ordered.
    pub verb: Verb,
    /// What came of it.
    pub result: CommandResult,
    /// Whether the hive has it.
    pub acknowledged: bool,
}

/// Results that a record keeps.
pub(crate) const RESULTS_MAX: usize = 16;

impl Record {
    pub(crate) fn new(app: AppId) -> Record {
        Record {
            app,
            term: Term(0),
            mine: false,
            generation: Generation(0),
            policy: Policy::Manual,
            phase: Phase::StandingBy,
            ready: false,
            volumes: BTreeMap::new(),
            rollback_to: BTreeMap::new(),
            started: false,
            healthy: false,
            doing: None,
            command: CommandNumber(0),
            results: Vec::new(),
        }
    }

    pub(crate) fn keep(&mut self, command: &Command, result: CommandResult) {
        if self.results.len() >= RESULTS_MAX {
            self.results.remove(0);
        }
        let (operation, verb) = (command.operation, command.order.verb());
        self.results.push(Kept { operation, verb, result, acknowledged: false });
    }
}
