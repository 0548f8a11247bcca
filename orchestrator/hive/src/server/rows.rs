//! Rows become the values that `decide` takes, and what it changed becomes rows again.
//!
//! Only what a decision needs is read: the account's devices, without their reports, and one app with its running
//! operation; or one device with the apps that it has or reports.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::command::{Command, Order};
use orchestrator_api::history::What;
use orchestrator_api::ids::{
    AppId, CommandNumber, DeviceId, Generation, HelloNumber, Incarnation, OperationId, Renewals,
    ReportNumber, RunId, SessionId, Term, VolumeId, Writer,
};
use orchestrator_api::package::Authorization;
use orchestrator_api::placement::{Head, Phase, Policy, Problem};
use orchestrator_api::report::AppReport;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire;
use orchestrator_api::wire::command::{
    Expect, HeadAt, MomentName, NamedVolume, Prepare, Settings, Start, StartVolume, StoreName,
};
use orchestrator_api::wire::value::{Key, List, Number, Text};
use serde::{Deserialize, Serialize};

use super::chance;
use super::database::{DbError, Row, Value};
use super::fail::Fail;
use super::tasks::Task;
use super::tenant::{About, Tenant, Wake, json, read};
use crate::{
    App, Device, DeviceState, Hive, Kind, Known, Operation, OperationState, Placement, Refused, Step,
};

/// What a decision about an app was made with, beside what it takes.
#[derive(Debug, Clone)]
pub struct AppRow {
    /// Its id.
    pub id: AppId,
    /// Of the package that is to run.
    pub revision: u64,
    /// The first arbitrates.
    pub stores: Vec<Uuid>,
    /// The replication interval.
    pub seal_every_s: u64,
    /// Volumes that exist, by their names in the compose file.
    pub volumes: BTreeMap<String, VolumeId>,
    /// Whom a device saw in the store that nobody expected.
    pub seen: Vec<wire::command::Seen>,
    /// What the owner signed; not read for a report, which asks nothing of it.
    package: Option<Authorization>,
}

impl AppRow {
    /// What the owner signed.
    pub fn package(&self) -> Result<&Authorization, DbError> {
        self.package.as_ref().ok_or_else(|| DbError::Broken("a package was not read".to_owned()))
    }
}

/// Rows that a decision needs, as they were and as they become.
#[derive(Debug)]
pub struct Loaded {
    /// What is decided about.
    pub hive: Hive,
    before: Hive,
    /// The apps.
    pub apps: BTreeMap<AppId, AppRow>,
    /// What the hive keeps of operations beside.
    pub operations: BTreeMap<OperationId, OperationRow>,
    /// When the one device that it is about was heard before, in milliseconds since 1970.
    pub seen: Option<i64>,
    /// Write all of it, since what is not here changed too.
    pub whole: bool,
}

/// What the hive keeps of an operation beside what is decided by.
#[derive(Debug, Clone, Default)]
pub struct OperationRow {
    /// As people see it: that of the decision, or of a task.
    pub kind: String,
    /// Where it is, of a task.
    pub step: Option<String>,
    /// What it needs on its way.
    pub data: OperationData,
    /// What came of it.
    pub result: Option<wire::operation::Outcome>,
    /// The problem with its place.
    pub problem: Option<wire::report::ProblemReport>,
}

/// What an operation needs on its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationData {
    /// The command that is waited for.
    pub waits: Option<(DeviceId, CommandNumber)>,
    /// Whether a task's device has that command.
    pub taken: bool,
    /// Who had the app.
    pub from: Option<DeviceId>,
    /// Who gets it.
    pub to: Option<DeviceId>,
    /// What was handed over.
    pub heads: Option<Vec<HeadAt>>,
    /// To where the app goes back.
    pub rollback_to: Vec<HeadAt>,
    /// Who failed already.
    pub tried: BTreeSet<DeviceId>,
    /// Why it will have failed.
    pub reason: Option<String>,
    /// Of a forced move.
    pub even_if_online: bool,
    /// Of a change of settings.
    pub policy: Option<Policy>,
    /// A person did not want it any more.
    pub cancelled: bool,
    /// What was at stake when it began.
    pub at_stake: Option<wire::app::AtStake>,
    /// What was lost, when it is known how long the device may have gone on.
    pub lost: Option<wire::operation::Lost>,
    /// Branches that the device had kept of losses before this one.
    pub kept: BTreeSet<(Hex<32>, String)>,
    /// The device returned, and told all that was lost.
    pub settled: bool,
    /// What is to be done, of a task.
    pub task: Option<super::tasks::Task>,
}

/// The life of the hive, as one account has it: what devices of others say changes nothing of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// Between restores.
    pub incarnation: Incarnation,
    /// Whether it waits for devices.
    pub recovering: bool,
    /// Whether it waits for leases only.
    pub heard: bool,
    /// Below all numbers that it gives.
    pub floor: u64,
}

impl Life {
    /// Of a row that begins with it at this column.
    pub fn of(row: &Row, at: usize) -> Result<Self, DbError> {
        Ok(Self {
            incarnation: Incarnation(row.count(at)?),
            recovering: row.flag(at + 1)?,
            heard: row.flag(at + 2)?,
            floor: row.count(at + 3)?,
        })
    }

    /// As a hive that is decided about has it.
    pub fn hive(self) -> Hive {
        Hive {
            incarnation: self.incarnation,
            recovering: self.recovering,
            heard: self.heard,
            floor: self.floor,
            ..Hive::default()
        }
    }

    /// What a decision made of it.
    pub fn after(hive: &Hive) -> Self {
        Self {
            incarnation: hive.incarnation,
            recovering: hive.recovering,
            heard: hive.heard,
            floor: hive.floor,
        }
    }
}

/// The columns of a [`Life`], of an account that has one of its own or begins with the hive's.
pub const LIFE: &str = "coalesce(l.incarnation, h.incarnation), coalesce(l.recovering, 0), coalesce(l.heard, 0), \
     coalesce(l.floor, h.floor)";

/// Reads an account's life.
pub fn life(tenant: &mut Tenant<'_>) -> Result<Life, Fail> {
    let sql = format!("SELECT {LIFE} FROM hive h LEFT JOIN life l ON l.account = $1 WHERE h.id = 1");
    let row = tenant.one(&sql, &[])?;
    let row = row.ok_or_else(|| Fail::Db(DbError::Broken("it has no hive in it".to_owned())))?;
    Ok(Life::of(&row, 0)?)
}

/// Writes an account's life down.
pub fn save_life(tenant: &mut Tenant<'_>, life: Life) -> Result<(), DbError> {
    tenant.execute(
        "INSERT INTO life (account, incarnation, recovering, heard, floor) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (account) DO UPDATE SET incarnation = excluded.incarnation, \
         recovering = excluded.recovering, heard = excluded.heard, floor = excluded.floor",
        &[life.incarnation.0.into(), life.recovering.into(), life.heard.into(), life.floor.into()],
    )?;
    Ok(())
}

/// A phase as a column holds it, with what else is told when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseColumn {
    /// The word.
    pub phase: wire::report::Phase,
    /// Its reason.
    pub why: Option<wire::report::Why>,
    /// What is wrong.
    pub problem: Option<Problem>,
    /// How well it is.
    pub health: Option<wire::report::Health>,
}

impl PhaseColumn {
    /// What is decided by.
    pub fn phase(&self) -> Phase {
        self.phase.with(self.why, self.problem)
    }
}

const DEVICE: &str = "SELECT device, state, hello, run, session, greeted, report_number, renewals, docker, \
     command_number, seen, accepts_authoring, locked FROM device WHERE account = $1";

fn device(row: &Row) -> Result<(DeviceId, Device), DbError> {
    let hello = row.maybe(2, Row::count)?.zip(row.maybe(3, Row::id::<16>)?);
    let state = device_state(row.text(1)?);
    let device = Device {
        state,
        hello: hello.map(|(number, run)| (HelloNumber(number), RunId(run))),
        session: row.maybe(4, Row::id::<16>)?.map(SessionId),
        greeted: Incarnation(row.count(5)?),
        locked: row.flag(12)?,
        report: ReportNumber(row.count(6)?),
        renewals: Renewals(row.count(7)?),
        command: CommandNumber(row.count(9)?),
        writers: BTreeMap::new(),
        docker: row.flag(8)?,
        apps: BTreeMap::new(),
    };
    Ok((DeviceId(row.id(0)?), device))
}

/// As a column holds it.
pub fn device_state(text: &str) -> DeviceState {
    match text {
        "draining" => DeviceState::Draining,
        "revoked" => DeviceState::Revoked,
        _ => DeviceState::Active,
    }
}

fn device_state_text(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Active => "active",
        DeviceState::Draining => "draining",
        DeviceState::Revoked => "revoked",
    }
}

macro_rules! app_columns {
    () => {
        "SELECT a.app, a.name, a.revision, a.policy, a.wanted, a.generation, a.standby, a.stores, a.seal_every_s, \
         a.volumes, a.known, a.problem, a.device, a.term, a.leased, a.renewed, a.withdrawn, a.forgotten, a.seen_heads"
    };
}

const APP: &str = concat!(
    app_columns!(),
    ", p.authorization_json FROM app a JOIN package p ON p.account = a.account AND p.app = a.app AND \
     p.revision = a.revision WHERE a.account = $1"
);

/// The same without the package.
const APP_BARE: &str = concat!(app_columns!(), " FROM app a WHERE a.account = $1");

fn policy(text: &str) -> Policy {
    if text == "auto" { Policy::Auto } else { Policy::Manual }
}

/// As a column holds it.
pub fn policy_text(policy: Policy) -> &'static str {
    match policy {
        Policy::Auto => "auto",
        Policy::Manual => "manual",
    }
}

/// What is known of a volume, as a column holds it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct KnownColumn {
    epoch: u64,
    seq: u64,
    writers: Vec<Hex<16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update: Option<OperationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollback: Option<String>,
}

fn writer(hex: Hex<16>) -> Writer {
    fs_format::DeviceId(hex.0)
}

fn known(text: &str) -> Result<BTreeMap<VolumeId, Known>, DbError> {
    let columns: BTreeMap<Hex<32>, KnownColumn> = read(text)?;
    let one = |(volume, known): (Hex<32>, KnownColumn)| {
        let writers = known.writers.into_iter().map(writer).collect();
        let (epoch, seq) = (fs_format::Epoch(known.epoch), fs_format::Seq(known.seq));
        let known = Known { epoch, seq, writers, update: known.update, rollback: known.rollback };
        (VolumeId(volume.0), known)
    };
    Ok(columns.into_iter().map(one).collect())
}

fn known_json(volumes: &BTreeMap<VolumeId, Known>) -> String {
    let one = |(volume, known): (&VolumeId, &Known)| {
        let writers = known.writers.iter().map(|writer| Hex(writer.0)).collect();
        let (epoch, seq, update, rollback) =
            (known.epoch.0, known.seq.0, known.update, known.rollback.clone());
        (Hex(volume.0), KnownColumn { epoch, seq, writers, update, rollback })
    };
    json(&volumes.iter().map(one).collect::<BTreeMap<_, _>>())
}

fn writers(text: &str) -> Result<BTreeMap<VolumeId, Writer>, DbError> {
    let columns: BTreeMap<Hex<32>, Hex<16>> = read(text)?;
    Ok(columns.into_iter().map(|(volume, one)| (VolumeId(volume.0), writer(one))).collect())
}

fn writers_json(writers: &BTreeMap<VolumeId, Writer>) -> String {
    json(&writers.iter().map(|(volume, one)| (Hex(volume.0), Hex(one.0))).collect::<BTreeMap<_, _>>())
}

/// `all` says of each device whether it takes apps from the hive.
fn app(row: &Row, all: &BTreeMap<DeviceId, bool>) -> Result<(AppRow, App), Fail> {
    let package = row.maybe(19, Row::bytes)?.map(Authorization::parse).transpose();
    let package = package.map_err(|error| DbError::Broken(format!("a package: {error}")))?;
    let may = |(id, is_delegated): (&DeviceId, &bool)| {
        let package = package.as_ref()?;
        package.devices.include(Uuid(id.0), *is_delegated).then_some(*id)
    };
    let devices = all.iter().filter_map(may).collect();
    let volumes: BTreeMap<String, Hex<32>> = read(row.text(9)?)?;
    let mut declared = package.iter().flat_map(|package| &package.volumes);
    let lacks_volumes = declared.any(|one| !volumes.contains_key(&one.name));
    let seen = row.maybe(18, Row::text)?.map(read).transpose()?.unwrap_or_default();
    let beside = AppRow {
        id: AppId(row.id(0)?),
        revision: row.count(2)?,
        stores: read(row.text(7)?)?,
        seal_every_s: row.count(8)?,
        volumes: volumes.into_iter().map(|(name, key)| (name, VolumeId(key.0))).collect(),
        seen,
        package,
    };
    let placement = Placement {
        device: row.maybe(12, Row::id::<16>)?.map(DeviceId),
        term: Term(row.count(13)?),
        leased: row.flag(14)?,
        renewed: row.maybe(15, Row::count)?.map(Renewals),
        withdrawn: row.flag(16)?,
        forgotten: row.flag(17)?,
    };
    let app = App {
        policy: policy(row.text(3)?),
        wanted: row.flag(4)?,
        generation: Generation(row.count(5)?),
        devices,
        volumes: known(row.text(10)?)?,
        lacks_volumes,
        placement,
        problem: row.maybe(11, Row::text)?.map(refused),
    };
    Ok((beside, app))
}

const OPERATION: &str = "SELECT operation, app, kind, step, count, data, state, code, result FROM operation \
     WHERE account = $1";

/// What runs beside others of an app is none that others wait for: it changes nothing of it.
pub const ALONE: &str = "kind NOT IN ('logs', 'action', 'moments', 'standby')";

/// As a column holds it.
pub fn step(text: &str) -> Step {
    match text {
        "check" => Step::Check,
        "prepare" => Step::Prepare,
        "hand_over" => Step::HandOver,
        "wait" => Step::WaitLease,
        "start" => Step::Start,
        "take_back" => Step::TakeBack,
        "return" => Step::Return,
        "stop" => Step::Stop,
        "settings" => Step::Settings,
        _ => Step::Task,
    }
}

/// As people see it.
pub fn step_text(step: Step) -> &'static str {
    match step {
        Step::Check => "check",
        Step::Prepare => "prepare",
        Step::HandOver => "hand_over",
        Step::WaitLease => "wait",
        Step::Start => "start",
        Step::TakeBack => "take_back",
        Step::Return => "return",
        Step::Stop => "stop",
        Step::Settings => "settings",
        Step::Task => "task",
    }
}

/// As people see it.
pub fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "start",
        Kind::Stop => "stop",
        Kind::Move => "move",
        Kind::Force { .. } => "move_forced",
        Kind::Failover => "failover",
        Kind::Settings(_) => "settings",
        Kind::Task => "task",
    }
}

/// What a column holds.
pub fn kind(text: &str, data: &OperationData) -> Kind {
    match text {
        "start" => Kind::Start,
        "stop" => Kind::Stop,
        "move" => Kind::Move,
        "move_forced" => Kind::Force { even_if_online: data.even_if_online },
        "failover" => Kind::Failover,
        "settings" => Kind::Settings(data.policy.unwrap_or(Policy::Manual)),
        _ => Kind::Task,
    }
}

/// As people see it.
pub fn refused_text(refused: Refused) -> &'static str {
    match refused {
        Refused::OperationRunning => "operation_running",
        Refused::Recovering => "hive_recovering",
        Refused::NotFound => "not_found",
        Refused::State => "state",
        Refused::DeviceSilent => "device_silent",
        Refused::DeviceOnline => "device_online",
        Refused::DeviceNotAuthorized => "device_not_authorized",
        Refused::DeviceClosed => "device_draining",
        Refused::NoCandidate => "no_candidate",
        Refused::NotHeld => "not_held",
        Refused::VolumesUnknown => "volumes_unknown",
        Refused::DeviceRevoked => "device_revoked",
        Refused::Forced => "forced",
        Refused::LeaseOver => "lease_over",
        Refused::Problem(problem) => problem.text(),
    }
}

/// As a column holds it.
pub fn refused(text: &str) -> Refused {
    let own = [
        Refused::OperationRunning,
        Refused::Recovering,
        Refused::NotFound,
        Refused::State,
        Refused::DeviceSilent,
        Refused::DeviceOnline,
        Refused::DeviceNotAuthorized,
        Refused::DeviceClosed,
        Refused::NoCandidate,
        Refused::NotHeld,
        Refused::VolumesUnknown,
        Refused::DeviceRevoked,
        Refused::Forced,
        Refused::LeaseOver,
    ];
    if let Some(own) = own.into_iter().find(|one| refused_text(*one) == text) {
        return own;
    }
    let problem = Problem::ALL.iter().copied().find(|one| one.text() == text);
    Refused::Problem(problem.unwrap_or(Problem::Unknown))
}

fn heads(list: &[HeadAt]) -> BTreeMap<VolumeId, Head> {
    list.iter().map(HeadAt::head).collect()
}

fn heads_list(heads: &BTreeMap<VolumeId, Head>) -> Vec<HeadAt> {
    heads.iter().map(|(volume, head)| HeadAt::of(*volume, head)).collect()
}

fn operation(row: &Row) -> Result<(OperationId, Option<AppId>, OperationRow, Operation), DbError> {
    let data: OperationData = read(row.text(5)?)?;
    let text = row.text(2)?.to_owned();
    let state = match row.text(6)? {
        "running" => OperationState::Running,
        "done" => OperationState::Done,
        "lost" => OperationState::Lost,
        _ => OperationState::Failed(refused(row.maybe(7, Row::text)?.unwrap_or("state"))),
    };
    let app = row.maybe(1, Row::id::<16>)?.map(AppId);
    let pure = Operation {
        app: app.unwrap_or(AppId([0; 16])),
        kind: kind(&text, &data),
        step: step(row.text(3)?),
        count: row.count(4)?,
        waits: data.waits,
        from: data.from,
        to: data.to,
        heads: data.heads.as_deref().map(heads),
        rollback_to: heads(&data.rollback_to),
        tried: data.tried.clone(),
        reason: data.reason.as_deref().map(refused),
        state,
    };
    let beside = OperationRow {
        step: Some(row.text(3)?.to_owned()),
        kind: text,
        data,
        result: row.maybe(8, Row::text)?.map(read).transpose()?,
        problem: None,
    };
    Ok((OperationId(row.id(0)?), app, beside, pure))
}

impl Loaded {
    fn begin(life: Life) -> Self {
        let hive = life.hive();
        let operations = BTreeMap::new();
        Self { before: Hive::default(), hive, apps: BTreeMap::new(), operations, seen: None, whole: false }
    }

    fn loaded(mut self) -> Self {
        self.before = self.hive.clone();
        self
    }

    /// What a decision about one app needs.
    pub fn app(tenant: &mut Tenant<'_>, id: AppId) -> Result<Self, Fail> {
        let mut loaded = Self::begin(life(tenant)?);
        let mut all = BTreeMap::new();
        for row in tenant.query(DEVICE, &[])? {
            let (id, device) = device(&row)?;
            all.insert(id, row.flag(11)?);
            loaded.hive.devices.insert(id, device);
        }
        let row = tenant.one(&format!("{APP} AND a.app = $2"), &[id.0.into()])?;
        let (beside, row) = app(&row.ok_or_else(Fail::not_found)?, &all)?;
        let known = tenant.query(
            "SELECT device, term, phase, writers FROM device_app WHERE account = $1 AND app = $2",
            &[id.0.into()],
        )?;
        for known in known {
            let Some(device) = loaded.hive.devices.get_mut(&DeviceId(known.id(0)?)) else { continue };
            device.writers = writers(known.text(3)?)?;
            if let (Some(term), Some(phase)) = (known.maybe(1, Row::count)?, known.maybe(2, Row::text)?) {
                let phase: PhaseColumn = read(phase)?;
                let report = AppReport { term: Term(term), phase: phase.phase(), volumes: BTreeMap::new() };
                device.apps.insert(id, report);
            }
        }
        loaded.apps.insert(id, beside);
        loaded.hive.apps.insert(id, row);
        let sql = format!("{OPERATION} AND app = $2 AND state = 'running' AND {ALONE}");
        for row in tenant.query(&sql, &[id.0.into()])? {
            loaded.take(operation(&row)?);
        }
        Ok(loaded.loaded())
    }

    /// What a decision about an operation needs; none if it is about no app.
    pub fn operation(tenant: &mut Tenant<'_>, id: OperationId) -> Result<Option<Self>, Fail> {
        let row = tenant.one(&format!("{OPERATION} AND operation = $2"), &[id.0.into()])?;
        let row = row.ok_or_else(Fail::not_found)?;
        let found = operation(&row)?;
        let Some(app) = found.1 else { return Ok(None) };
        let mut loaded = Self::app(tenant, app)?;
        loaded.take(found);
        Ok(Some(loaded.loaded()))
    }

    fn take(&mut self, (id, _, beside, pure): (OperationId, Option<AppId>, OperationRow, Operation)) {
        self.operations.insert(id, beside);
        self.hive.operations.insert(id, pure);
    }

    /// What a hello or report needs: a device, and the apps that are placed on it or that it names.
    pub fn device(
        tenant: &mut Tenant<'_>,
        id: DeviceId,
        named: &BTreeSet<AppId>,
        hello: bool,
    ) -> Result<Self, Fail> {
        let life = life(tenant)?;
        let mut loaded = Self::begin(life);
        let row = tenant.one(&format!("{DEVICE} AND device = $2"), &[id.0.into()])?;
        let row = row.ok_or(orchestrator_api::report::Refusal::Unknown)?;
        loaded.seen = row.maybe(10, Row::int)?;
        let (_, mut row) = device(&row)?;
        let sql = "SELECT app, term, phase, writers FROM device_app WHERE account = $1 AND device = $2";
        for known in tenant.query(sql, &[id.0.into()])? {
            row.writers.extend(writers(known.text(3)?)?);
        }
        loaded.hive.devices.insert(id, row);
        if hello && life.recovering {
            // A recovery ends when each device of the account was heard.
            let sql = "SELECT device, state, greeted, locked FROM device WHERE account = $1";
            for other in tenant.query(sql, &[])? {
                let (state, greeted) = (device_state(other.text(1)?), Incarnation(other.count(2)?));
                let (locked, other) = (other.flag(3)?, DeviceId(other.id(0)?));
                let row = Device { state, greeted, locked, ..Device::default() };
                loaded.hive.devices.entry(other).or_insert(row);
            }
        }
        // Where else it may run is not asked here. What a hive installed may have been given to any device.
        let all = BTreeMap::from([(id, true)]);
        let columns = if hello { APP } else { APP_BARE };
        let mut rows = tenant.query(&format!("{columns} AND a.device = $2"), &[id.0.into()])?;
        let placed = rows.iter().map(|row| row.id(0).map(AppId)).collect::<Result<BTreeSet<_>, _>>()?;
        for app in named.difference(&placed) {
            rows.extend(tenant.query(&format!("{columns} AND a.app = $2"), &[app.0.into()])?);
        }
        for row in rows {
            let (beside, row) = app(&row, &all)?;
            loaded.hive.apps.insert(beside.id, row);
            loaded.apps.insert(beside.id, beside);
        }
        if hello {
            let sql = "SELECT body FROM command WHERE account = $1 AND device = $2 AND result IS NULL \
                 AND verb = 'start'";
            for row in tenant.query(sql, &[id.0.into()])? {
                let command: wire::command::Command = read(row.text(0)?)?;
                if let Some(command) = command.decided() {
                    let given = crate::Given { command, result: None };
                    loaded.hive.commands.insert((id, given.command.number), given);
                }
            }
            for app in loaded.apps.keys().copied().collect::<Vec<_>>() {
                let sql = format!("{OPERATION} AND app = $2 AND state = 'running' AND {ALONE}");
                for row in tenant.query(&sql, &[app.0.into()])? {
                    loaded.take(operation(&row)?);
                }
            }
        }
        Ok(loaded.loaded())
    }

    /// Commands that were put in to be answered are no new ones.
    pub fn forget_commands(&mut self) {
        self.before.commands = self.hive.commands.clone();
    }

    /// Ends an operation.
    pub fn edit(&mut self, id: OperationId, state: OperationState) {
        let Some(operation) = self.hive.operations.get_mut(&id) else { return };
        operation.state = state;
        operation.waits = None;
        let app = operation.app;
        if let Some(app) = self.hive.apps.get_mut(&app) {
            app.placement.withdrawn = false;
        }
    }

    /// What an update or a rollback did that is closed without its device's answer, nobody knows.
    fn note_unknown(&mut self, tenant: &mut Tenant<'_>) -> Result<(), Fail> {
        for (id, operation) in &self.hive.operations {
            let ran = self.before.operations.get(id).is_some_and(|was| was.state == OperationState::Running);
            let closed = ran && matches!(operation.state, OperationState::Failed(_));
            let (true, Some(beside)) = (closed, self.operations.get(id)) else { continue };
            let Some(app) = self.hive.apps.get_mut(&operation.app) else { continue };
            if let Some(Task::Update { revision }) = beside.data.task {
                // What the device said in a report counts as well.
                if self.apps.get(&operation.app).is_none_or(|row| row.revision < revision) {
                    app.volumes.values_mut().for_each(|known| known.update = Some(*id));
                }
            } else if beside.kind == "rollback"
                && beside.data.taken
                && let Some(to) = rollback_of(tenant, *id)?
            {
                goes_back(app, &to);
            }
        }
        Ok(())
    }

    /// Writes what a decision changed.
    pub fn save(&mut self, tenant: &mut Tenant<'_>) -> Result<(), Fail> {
        self.note_unknown(tenant)?;
        let (hive, before) = (&self.hive, &self.before);
        let life = Life::after(hive);
        if life != Life::after(before) {
            save_life(tenant, life)?;
        }
        for (id, device) in &hive.devices {
            if before.devices.get(id).is_some_and(|was| was != device)
                || (self.whole && hive.devices.len() == 1)
            {
                save_device(tenant, *id, device)?;
            }
        }
        let mut known = Vec::new();
        for (id, app) in &hive.apps {
            if self.whole || before.apps.get(id) != Some(app) {
                match before.apps.get(id).filter(|was| !self.whole && is_only_known(was, app)) {
                    Some(_) => known.push((*id, known_json(&app.volumes))),
                    None => save_app(tenant, *id, app)?,
                }
                let was =
                    before.apps.get(id).map(|was| (was.placement.term, was.policy, was.wanted, was.problem));
                if was != Some((app.placement.term, app.policy, app.wanted, app.problem)) {
                    tenant.changed("app", id);
                }
                tell_term(tenant, *id, before.apps.get(id).map(|was| &was.placement), app);
            }
        }
        for some in known.chunks(TOGETHER_MAX) {
            save_known(tenant, some)?;
        }
        let commands: Vec<Command> = hive
            .commands
            .iter()
            .filter(|(key, _)| !before.commands.contains_key(key))
            .map(|(_, given)| given.command.clone())
            .collect();
        // One that ends makes room for the next one of its app: those that are known come first.
        let (new, known): (Vec<_>, Vec<_>) =
            hive.operations.iter().partition(|(id, _)| !before.operations.contains_key(id));
        for (id, operation) in known.into_iter().chain(new) {
            let new = !before.operations.contains_key(id);
            let beside = self.operations.entry(*id).or_default();
            let ended = before.operations.get(id).is_none_or(|was| was.state == OperationState::Running)
                && operation.state != OperationState::Running;
            if new {
                if beside.kind.is_empty() {
                    beside.kind = kind_text(operation.kind).to_owned();
                }
                beside.data.begin(operation);
                insert_operation(tenant, *id, Some(operation.app), beside, operation)?;
            }
            if new || before.operations.get(id) != Some(operation) {
                if operation.kind != Kind::Task {
                    beside.step = Some(step_text(operation.step).to_owned());
                }
                beside.data.begin(operation);
                if ended {
                    if operation.kind == Kind::Task {
                        // What its device did not take yet is not to be done later, by surprise.
                        super::tasks::forget_commands(tenant, *id)?;
                    }
                    let app = hive.apps.get(&operation.app);
                    super::outcome::close(tenant, *id, operation, beside, app)?;
                }
                update_operation(tenant, *id, beside, operation)?;
                let was = before.operations.get(id).map(|was| (was.step, was.state));
                if was != Some((operation.step, operation.state)) {
                    tell_operation(tenant, *id, Some(operation.app), beside, operation);
                }
                tenant.changed("operation", id);
            }
        }
        for ((to, _), command) in hive
            .commands
            .iter()
            .filter(|(key, _)| !before.commands.contains_key(key))
            .map(|(key, _)| *key)
            .zip(commands)
        {
            let app = self.apps.get(&command.app).ok_or_else(Fail::not_found)?;
            let operation = self.operations.get(&command.operation);
            let volumes = hive.apps.get(&command.app).map(|app| app.volumes.values());
            let update = volumes.into_iter().flatten().find_map(|known| known.update);
            let rollback = hive.apps.get(&command.app).and_then(|app| unfinished(&app.volumes));
            let before = update.map(|id| MomentName::Tag(Text::cut(&id.instant_tag())));
            let body = wire_command(tenant, &command, app, operation, rollback.or(before))?;
            insert_command(tenant, to, &body)?;
        }
        self.before = self.hive.clone();
        Ok(())
    }
}

impl OperationData {
    fn begin(&mut self, operation: &Operation) {
        self.waits = operation.waits;
        self.from = operation.from;
        self.to = operation.to;
        self.heads = operation.heads.as_ref().map(heads_list);
        self.rollback_to = heads_list(&operation.rollback_to);
        self.tried.clone_from(&operation.tried);
        self.reason = operation.reason.map(|reason| refused_text(reason).to_owned());
        match operation.kind {
            Kind::Force { even_if_online } => self.even_if_online = even_if_online,
            Kind::Settings(policy) => self.policy = Some(policy),
            _ => {}
        }
    }
}

fn save_device(tenant: &mut Tenant<'_>, id: DeviceId, device: &Device) -> Result<(), DbError> {
    tenant.execute(
        "UPDATE device SET state = $3, hello = $4, run = $5, session = $6, greeted = $7, report_number = $8, \
         renewals = $9, docker = $10, command_number = $11 WHERE account = $1 AND device = $2",
        &[
            id.0.into(),
            device_state_text(device.state).into(),
            device.hello.map(|(number, _)| number.0).into(),
            device.hello.map(|(_, run)| run.0).into(),
            device.session.map(|session| session.0).into(),
            device.greeted.0.into(),
            device.report.0.into(),
            device.renewals.0.into(),
            device.docker.into(),
            device.command.0.into(),
        ],
    )?;
    Ok(())
}

/// Whether nothing but what is known of the volumes changed, as with each report.
fn is_only_known(was: &App, app: &App) -> bool {
    let App { policy, wanted, generation, devices, volumes: _, lacks_volumes: _, placement, problem } = was;
    (policy, wanted, generation, placement, problem)
        == (&app.policy, &app.wanted, &app.generation, &app.placement, &app.problem)
        && *devices == app.devices
}

/// Rows in one statement.
const TOGETHER_MAX: usize = 32;

/// One statement for all: a report of many apps is not as many trips to a database. No index is touched.
fn save_known(tenant: &mut Tenant<'_>, apps: &[(AppId, String)]) -> Result<(), DbError> {
    let (mut cases, mut ids, mut values) = (String::new(), Vec::new(), Vec::new());
    for (at, (id, known)) in apps.iter().enumerate() {
        let place = 2 * at + 2;
        cases.push_str(&format!(" WHEN ${place} THEN ${}", place + 1));
        ids.push(format!("${place}"));
        values.extend([Value::from(id.0), Value::from(known)]);
    }
    let ids = ids.join(", ");
    let sql = format!(
        "UPDATE app SET known = CASE app{cases} ELSE known END WHERE account = $1 AND app IN ({ids})"
    );
    tenant.execute(&sql, &values)?;
    Ok(())
}

fn save_app(tenant: &mut Tenant<'_>, id: AppId, app: &App) -> Result<(), DbError> {
    let placement = &app.placement;
    tenant.execute(
        "UPDATE app SET policy = $3, wanted = $4, generation = $5, known = $6, problem = $7, device = $8, \
         term = $9, leased = $10, renewed = $11, withdrawn = $12, forgotten = $13 WHERE account = $1 AND app = $2",
        &[
            id.0.into(),
            policy_text(app.policy).into(),
            app.wanted.into(),
            app.generation.0.into(),
            known_json(&app.volumes).into(),
            app.problem.map(refused_text).into(),
            placement.device.map(|id| id.0).into(),
            placement.term.0.into(),
            placement.leased.into(),
            placement.renewed.map(|number| number.0).into(),
            placement.withdrawn.into(),
            placement.forgotten.into(),
        ],
    )?;
    Ok(())
}

/// The history gets what is over, and what was given.
fn tell_term(tenant: &mut Tenant<'_>, id: AppId, was: Option<&Placement>, app: &App) {
    let now = &app.placement;
    if let Some(was) = was.filter(|was| was.term != now.term && was.term > Term(0) && was.device.is_some()) {
        tenant.happened(What::Ended { app: id, term: was.term });
    }
    let same = was.is_some_and(|was| (was.term, was.device) == (now.term, now.device));
    if let Some(device) = now.device.filter(|_| !same && now.term > Term(0)) {
        let (term, generation, leased) = (now.term, app.generation, now.leased);
        tenant.happened(What::Granted { app: id, term, device, generation, leased });
    }
}

/// The history gets where an operation is.
pub fn tell_operation(
    tenant: &mut Tenant<'_>,
    operation: OperationId,
    app: Option<AppId>,
    beside: &OperationRow,
    pure: &Operation,
) {
    let step = beside.step.clone().unwrap_or_else(|| step_text(pure.step).to_owned());
    let (kind, state) = (beside.kind.clone(), state_text(pure.state, beside).0);
    tenant.happened(What::Operation {
        operation,
        app,
        kind: kind.into(),
        step: step.into(),
        state: state.into(),
    });
}

/// How an operation stands, as a column holds it, and why it failed.
fn state_text(state: OperationState, beside: &OperationRow) -> (&'static str, Option<&'static str>) {
    match state {
        OperationState::Running => ("running", None),
        OperationState::Done => ("done", None),
        OperationState::Failed(_) if beside.data.cancelled => ("cancelled", None),
        OperationState::Failed(refused) => ("failed", Some(refused_text(refused))),
        OperationState::Lost => ("lost", None),
    }
}

/// Writes a new operation down, without what `update_operation` writes.
pub fn insert_operation(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    app: Option<AppId>,
    beside: &OperationRow,
    operation: &Operation,
) -> Result<(), Fail> {
    let row = tenant.one("SELECT operation_number FROM account WHERE account = $1", &[])?;
    let number = row.ok_or_else(Fail::not_found)?.count(0)? + 1;
    tenant.execute("UPDATE account SET operation_number = $2 WHERE account = $1", &[number.into()])?;
    let device = beside.data.to.or(beside.data.from);
    let state = if operation.state == OperationState::Running { "running" } else { "begun" };
    let by = json(&tenant.by);
    let inserted = tenant.execute(
        "INSERT INTO operation (account, operation, number, app, device, kind, step, count, data, state, code, \
         result, begun, ended, by_whom) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '{}', $8, NULL, NULL, $9, NULL, $10)",
        &[
            id.0.into(),
            number.into(),
            app.map(|id| id.0).into(),
            device.map(|id| id.0).into(),
            (&beside.kind).into(),
            "check".into(),
            state.into(),
            chance::now().into(),
            by.into(),
        ],
    );
    match inserted {
        Err(DbError::Unique) => {
            return Err(Fail::new(
                orchestrator_api::error::Code::OperationRunning,
                "something else is being done with this app",
            ));
        }
        other => other?,
    };
    let about = About { app, device, operation: Some(id), ..About::default() };
    tenant.event("ordered", about.with("do", beside.kind.as_str()));
    Ok(())
}

/// Writes down where an operation is.
pub fn update_operation(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    beside: &OperationRow,
    operation: &Operation,
) -> Result<(), DbError> {
    let (state, code) = state_text(operation.state, beside);
    let ended = (operation.state != OperationState::Running).then(chance::now);
    let device = beside.data.to.or(beside.data.from);
    tenant.execute(
        "UPDATE operation SET device = $3, step = $4, count = $5, data = $6, state = $7, code = $8, result = $9, \
         ended = $10 WHERE account = $1 AND operation = $2",
        &[
            id.0.into(),
            device.map(|id| id.0).into(),
            beside.step.as_deref().unwrap_or(step_text(operation.step)).into(),
            operation.count.into(),
            json(&beside.data).into(),
            state.into(),
            code.into(),
            beside.result.as_ref().map(json).into(),
            ended.into(),
        ],
    )?;
    Ok(())
}

/// Writes a command down for a device.
pub fn insert_command(
    tenant: &mut Tenant<'_>,
    to: DeviceId,
    command: &wire::command::Command,
) -> Result<(), Fail> {
    let body = json(command);
    let verb = serde_json::to_value(&command.order).ok();
    let verb = verb.as_ref().and_then(|order| order.get("do")).and_then(|verb| verb.as_str()).unwrap_or("");
    tenant.execute(
        "INSERT INTO command (account, device, number, operation, app, term, verb, body, result, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL, $9)",
        &[
            to.0.into(),
            command.number.0.into(),
            command.operation.0.into(),
            command.app.map(|id| id.0).into(),
            command.term.map_or(0, |term| term.0).into(),
            verb.into(),
            body.into(),
            chance::now().into(),
        ],
    )?;
    tenant.told.insert(Wake::Device(to));
    Ok(())
}

/// The stores of an app, as its devices need them.
pub fn stores(tenant: &mut Tenant<'_>, ids: &[Uuid]) -> Result<List<StoreName, 8>, Fail> {
    let mut found = Vec::new();
    for id in ids {
        let row = tenant.one("SELECT url FROM store WHERE account = $1 AND store = $2", &[id.0.into()])?;
        if let Some(row) = row {
            let url = Text::try_from(row.text(0)?.to_owned())
                .map_err(|_| DbError::Broken("a store's address".to_owned()))?;
            found.push(StoreName { store: *id, url });
        }
    }
    Ok(List::cut(found))
}

fn key(name: &str) -> Result<Key, DbError> {
    name.parse().map_err(|_| DbError::Broken("the name of a volume".to_owned()))
}

/// Writes down which update of an app it is of which nobody knows how it ended, or that there is none.
pub fn keep_update(tenant: &mut Tenant<'_>, id: AppId, update: Option<OperationId>) -> Result<(), Fail> {
    let mut loaded = Loaded::app(tenant, id)?;
    if let Some(app) = loaded.hive.apps.get_mut(&id) {
        app.volumes.values_mut().for_each(|known| (known.update, known.rollback) = (update, None));
    }
    loaded.save(tenant)
}

/// Writes down to where an app goes back with its next start, since a rollback of it has begun and is not whole, or nobody knows.
pub fn keep_rollback(tenant: &mut Tenant<'_>, id: AppId, to: &MomentName) -> Result<(), Fail> {
    let mut loaded = Loaded::app(tenant, id)?;
    if let Some(app) = loaded.hive.apps.get_mut(&id) {
        goes_back(app, to);
    }
    loaded.save(tenant)
}

/// A person has said which data it is: that counts, and not what an update was to go back to.
fn goes_back(app: &mut App, to: &MomentName) {
    for (volume, known) in &mut app.volumes {
        known.update = None;
        known.rollback = match to {
            MomentName::Tag(tag) => Some(tag.as_str().to_owned()),
            MomentName::Seals(seals) => seals.get(&Hex(volume.0)).map(|seq| seq.0.to_string()),
        };
    }
}

/// To where a rollback goes, as its device was asked; none where it was answered, or is forgotten.
pub fn rollback_of(tenant: &mut Tenant<'_>, operation: OperationId) -> Result<Option<MomentName>, DbError> {
    let sql = "SELECT body FROM command WHERE account = $1 AND operation = $2 AND verb = 'rollback' AND result IS NULL";
    let Some(row) = tenant.one(sql, &[operation.0.into()])? else { return Ok(None) };
    let command: wire::command::Command = read(row.text(0)?)?;
    match command.order {
        wire::command::Order::Rollback { to, .. } => Ok(Some(to)),
        _ => Ok(None),
    }
}

/// To where the volumes of an app go back with its next start: seals by their numbers, else one tag of all.
fn unfinished(volumes: &BTreeMap<VolumeId, Known>) -> Option<MomentName> {
    let whens = volumes.iter().filter_map(|(volume, known)| Some((volume, known.rollback.as_ref()?)));
    let whens: BTreeMap<_, _> = whens.collect();
    let seals = whens.iter().map(|(volume, when)| Some((Hex(volume.0), Number(when.parse().ok()?))));
    match seals.collect::<Option<BTreeMap<_, _>>>() {
        Some(seals) => Some(MomentName::Seals(seals)).filter(MomentName::is_bounded),
        None => whens.values().next().map(|tag| MomentName::Tag(Text::cut(tag))),
    }
}

/// A command as the device gets it: what was decided, with what the rows have beside, and the moment that the app goes back to
/// since nobody knows how an update or a rollback ended.
fn wire_command(
    tenant: &mut Tenant<'_>,
    command: &Command,
    app: &AppRow,
    operation: Option<&OperationRow>,
    before: Option<MomentName>,
) -> Result<wire::command::Command, Fail> {
    let revision = Number(app.revision);
    let order = match &command.order {
        Order::Prepare { .. } => {
            let named = |(name, volume): (&String, &VolumeId)| {
                key(name).map(|name| NamedVolume { name, volume: Hex(volume.0) })
            };
            let volumes = app.volumes.iter().map(named).collect::<Result<Vec<_>, _>>()?;
            wire::command::Order::Prepare(Prepare {
                revision,
                stores: stores(tenant, &app.stores)?,
                volumes: List::cut(volumes),
                fill: operation.is_some_and(|operation| operation.kind == "move"),
            })
        }
        Order::Start(start) => {
            let fresh = || Expect::Since { epoch: Number(0), seq: Number(0), writers: List::default() };
            let volume = |name: &str| {
                let known = app.volumes.get(name);
                let expect = known.and_then(|volume| start.volumes.get(volume)).map(Expect::from);
                Ok(StartVolume {
                    name: key(name)?,
                    volume: known.map(|volume| Hex(volume.0)),
                    expect: expect.unwrap_or_else(fresh),
                })
            };
            let volumes: Result<Vec<_>, DbError> =
                app.package()?.volumes.iter().map(|one| volume(&one.name)).collect();
            let back = |(volume, head): (&VolumeId, &Head)| (Hex(volume.0), Number(head.seq.0));
            let seals: BTreeMap<_, _> = start.rollback_to.iter().map(back).collect();
            let seals = Some(MomentName::Seals(seals)).filter(MomentName::is_bounded);
            // A planned move begins where the app runs: there it has ended, and so it is on the way back.
            let before = before.filter(|_| operation.is_none_or(|operation| operation.kind != "move"));
            wire::command::Order::Start(Start {
                revision,
                policy: start.policy,
                stores: stores(tenant, &app.stores)?,
                seal_every_s: Number(app.seal_every_s),
                volumes: List::cut(volumes?),
                rollback_to: seals.or(before),
            })
        }
        Order::Stop => wire::command::Order::Stop,
        Order::HandOver => {
            wire::command::Order::HandOver { to: operation.and_then(|operation| operation.data.to) }
        }
        Order::Settings(policy) => wire::command::Order::Settings(Settings {
            policy: *policy,
            seal_every_s: Number(app.seal_every_s),
            stores: stores(tenant, &app.stores)?,
        }),
    };
    Ok(wire::command::Command {
        number: command.number,
        operation: command.operation,
        app: Some(command.app),
        term: Some(command.term),
        generation: Some(command.generation),
        order,
    })
}

/// What a device has of an app, as a report says it: written only where it changed.
pub fn save_device_app(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    app: AppId,
    column: Option<(Term, PhaseColumn)>,
    writers: &BTreeMap<VolumeId, Writer>,
    branches: Option<String>,
) -> Result<(), DbError> {
    let live = column.as_ref().is_some_and(|(_, phase)| phase.phase().is_live());
    let values: [Value; 7] = [
        app.0.into(),
        device.0.into(),
        column.as_ref().map(|(term, _)| term.0).into(),
        column.as_ref().map(|(_, phase)| json(phase)).into(),
        live.into(),
        writers_json(writers).into(),
        branches.into(),
    ];
    tenant.execute(
        "INSERT INTO device_app (account, app, device, term, phase, live, writers, branches) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (account, app, device) DO UPDATE SET \
         term = excluded.term, phase = excluded.phase, live = excluded.live, writers = excluded.writers, \
         branches = excluded.branches",
        &values,
    )?;
    Ok(())
}
