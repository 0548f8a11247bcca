//! What the hive asks of a device, and what the device answers: `api.md`, section 6.

use std::collections::BTreeMap;

use crate::ids::{AppId, CommandNumber, Generation, OperationId, Term, VolumeId, Writer};
use crate::placement::{Expect, Head, Policy, Problem};

/// One step of an operation, ordered of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Grows for each device.
    pub number: CommandNumber,
    /// What it is a step of.
    pub operation: OperationId,
    /// The app.
    pub app: AppId,
    /// The term in which it is to be done.
    pub term: Term,
    /// What is wanted.
    pub generation: Generation,
    /// What to do.
    pub order: Order,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Stand by: package, images and store are looked at, nobody's right ends.
    Prepare {
        /// The volumes, of which the device tells its writers.
        volumes: Vec<VolumeId>,
    },
    /// Run the app in a new term.
    Start(Start),
    /// Stop it, publish what can be.
    Stop,
    /// Stop it, publish everything, and say the heads.
    HandOver,
    /// Run under another policy from now on.
    Settings(Policy),
}

/// A start of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Whether it needs a lease.
    pub policy: Policy,
    /// What each volume must be.
    pub volumes: BTreeMap<VolumeId, Expect>,
    /// The moments to go back to before the app starts; empty for none.
    pub rollback_to: BTreeMap<VolumeId, Head>,
}

/// An order without its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named as the orders are")]
pub enum Verb {
    Prepare,
    Start,
    Stop,
    HandOver,
    Settings,
}

impl Order {
    /// Which one it is.
    pub fn verb(&self) -> Verb {
        match self {
            Order::Prepare { .. } => Verb::Prepare,
            Order::Start(_) => Verb::Start,
            Order::Stop => Verb::Stop,
            Order::HandOver => Verb::HandOver,
            Order::Settings(_) => Verb::Settings,
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// The command.
    pub number: CommandNumber,
    /// Its app.
    pub app: AppId,
    /// How it ended.
    pub outcome: Outcome,
    /// What there is to say.
    pub data: Data,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is not, and what it changed is in the phase.
    Failed(Problem),
    /// A later start took its place.
    Obsolete,
}

/// What a result says; what a command has nothing to say about is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data {
    /// The newest committed manifest of each volume of which the device has the epoch.
    pub heads: BTreeMap<VolumeId, Head>,
    /// The device's pseudonyms.
    pub writers: BTreeMap<VolumeId, Writer>,
    /// Whether the app was started in this term.
    pub started: bool,
    /// Whether the gate passed in this term.
    pub healthy: bool,
}
