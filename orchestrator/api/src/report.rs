//! How a device is, and what the hive answers: `api.md`, section 5.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{
    AppId, CommandNumber, Generation, HelloNumber, Incarnation, ReportNumber, RunId, SessionId, Term,
    VolumeId, Writer,
};
use crate::placement::{Head, Phase};

/// Begins a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Durable before it is said; each one is new.
    pub number: HelloNumber,
    /// This run of the process.
    pub run: RunId,
    /// The highest that the device saw.
    pub incarnation: Incarnation,
    /// The highest that any record names.
    pub command: CommandNumber,
    /// What a hive that forgot must know.
    pub apps: BTreeMap<AppId, HelloApp>,
}

/// An app, as a hive that forgot it must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloApp {
    /// The highest term that the device has seen.
    pub term: Term,
    /// Whether that term was given to this device.
    pub mine: bool,
    /// The highest generation that the device has seen.
    pub generation: Generation,
    /// Whether its volumes refuse writes without a lease: under `auto`, once a change to it is done.
    pub leased: bool,
    /// Whether it was stopped by order.
    pub stopped: bool,
}

/// The answer to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// Of the hello that is answered.
    pub number: HelloNumber,
    /// Goes into everything that the device says from now on.
    pub session: SessionId,
    /// The hive's.
    pub incarnation: Incarnation,
}

/// Why the hive does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Say hello again.
    SessionOver,
    /// A later report was taken.
    ReportOld,
    /// Another machine has this identity.
    Cloned,
    /// Join again.
    Revoked,
    /// Join again.
    Unknown,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Grows within a session.
    pub number: ReportNumber,
    /// Leases that are asked for.
    pub renew: BTreeSet<(AppId, Term)>,
    /// Whether Docker answers.
    pub docker: bool,
    /// What the device has of the hive's.
    pub apps: BTreeMap<AppId, AppReport>,
}

/// How an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppReport {
    /// The highest term that the device has seen.
    pub term: Term,
    /// The record's.
    pub phase: Phase,
    /// Each volume that is here.
    pub volumes: BTreeMap<VolumeId, VolumeReport>,
}

/// How a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeReport {
    /// The device's pseudonym.
    pub writer: Writer,
    /// The newest manifest that is known to be committed, if this device has the epoch.
    pub replicated: Option<Head>,
}

/// What the hive says of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportAnswer {
    /// The report's number.
    pub number: ReportNumber,
    /// Terms that go on; a lease counts from the sending of the report.
    pub granted: BTreeSet<(AppId, Term)>,
    /// Apps that another device has, with the present term.
    pub over: BTreeMap<AppId, Term>,
}
