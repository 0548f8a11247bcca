//! Operations and events as people see them; cancelling.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::error::Code;
use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::placement::Problem;
use orchestrator_api::wire::app::{AtStake, Moments};
use orchestrator_api::wire::command::{Moment, MomentReason, Order};
use orchestrator_api::wire::operation::{By, Event, Operation, Ordered, Outcome, State, WAIT_MS_MAX};
use orchestrator_api::wire::report::ProblemReport;
use orchestrator_api::wire::value::{Number, Page};

use super::apps;
use super::call::{Answering, Body, Call, Reply};
use super::chance;
use super::database::{How, Row};
use super::devices;
use super::drain;
use super::fail::Fail;
use super::outcome;
use super::rows::{self, Loaded};
use super::tasks::{self, Task};
use super::tenant::{Tenant, read};
use crate::{Event as Decided, Kind, OperationState, Wish, decide};

const SEEN: &str = "SELECT operation, number, app, device, kind, step, data, state, code, result, begun, ended, \
     by_whom FROM operation WHERE account = $1";

/// Commands that may wait for a device when a person orders one more.
const WAITING_MAX: u64 = 1_000;

/// All steps of a kind; where it is now may be one that it seldom has.
fn steps(kind: &str, step: &str) -> Vec<String> {
    let steps: &[&str] = match kind {
        "start" if step == "wait" => &["check", "prepare", "wait", "start"],
        "start" => &["check", "prepare", "start"],
        "stop" => &["stop"],
        "move" => &["check", "prepare", "hand_over", "start"],
        "move_forced" => &["check", "prepare", "wait", "start"],
        "failover" => &["check", "prepare", "start"],
        other => return vec![other.to_owned()],
    };
    steps.iter().map(|step| (*step).to_owned()).collect()
}

fn view(tenant: &mut Tenant<'_>, row: &Row) -> Result<Operation, Fail> {
    let id = OperationId(row.id(0)?);
    let kind = row.text(4)?.to_owned();
    let data: rows::OperationData = read(row.text(6)?)?;
    let state = match row.text(7)? {
        "running" | "begun" => State::Running,
        "done" => State::Done,
        "cancelled" => State::Cancelled,
        "lost" => State::Lost,
        _ => State::Failed,
    };
    let mut code = row.maybe(8, Row::text)?.map(str::to_owned);
    let app = row.maybe(2, Row::id::<16>)?.map(AppId);
    let step = row.text(5)?.to_owned();
    // How far the command is, its device says in its reports; why it failed, in the result.
    let (mut progress, mut problem) = (None, None);
    match (state, data.waits, app) {
        (State::Running, Some((device, number)), Some(app)) => {
            let reported = outcome::reported(tenant, app, device)?;
            progress = reported.and_then(|(app, _)| app.operation).filter(|it| it.command == number);
        }
        (State::Failed, ..) => {
            let sql = "SELECT result FROM command WHERE account = $1 AND operation = $2 AND result IS NOT NULL \
                 ORDER BY at DESC";
            for row in tenant.query(sql, &[id.0.into()])? {
                let result: orchestrator_api::wire::command::CommandResult = read(row.text(0)?)?;
                let told = result.problem.or(result.code.map(ProblemReport::new));
                if let Some(told) = told.filter(|told| Some(told.code.text()) == code.as_deref()) {
                    problem = Some(told);
                    break;
                }
            }
        }
        _ => {}
    }
    let waits_for = data.waits.map(|(device, _)| device).filter(|_| state == State::Running);
    if let Some(device) = waits_for {
        let sql = "SELECT seen FROM device WHERE account = $1 AND device = $2";
        let row = tenant.one(sql, &[device.0.into()])?;
        let seen = row.as_ref().map(|row| row.maybe(0, Row::int)).transpose()?.flatten();
        if seen.is_none_or(|seen| chance::now() - seen > devices::SILENT_MS) {
            code = Some(Code::DeviceSilent.text().to_owned());
        }
    }
    let drained = match &data.task {
        Some(Task::Drain(drain)) => Some(drain.progress()),
        _ => None,
    };
    // An older hive kept the moments that a device told with each operation that asked for them.
    let result = row.maybe(9, Row::text)?.filter(|_| kind != "moments");
    let result: Option<Outcome> = result.map(read).transpose()?;
    let can_cancel =
        state == State::Running && (can_cancel(&kind, &step) || tasks::can_cancel(tenant, &data)?);
    Ok(Operation {
        id,
        number: Number(row.count(1)?),
        steps: steps(&kind, &step),
        kind,
        app,
        device: row.maybe(3, Row::id::<16>)?.map(DeviceId),
        state,
        step: Some(step).filter(|_| state == State::Running || state == State::Failed),
        done: drained.map(|(done, _)| done).or(progress.as_ref().and_then(|it| it.done)),
        total: drained.map(|(_, total)| total).or(progress.as_ref().and_then(|it| it.total)),
        code,
        problem,
        result,
        begun: chance::time(row.int(10)?),
        ended: row.maybe(11, Row::int)?.map(chance::time),
        by: read::<By>(row.text(12)?)?,
        can_cancel,
        waits_for,
    })
}

fn can_cancel(kind: &str, step: &str) -> bool {
    match kind {
        "start" | "move_forced" => matches!(step, "check" | "prepare" | "start"),
        "failover" => false,
        "move" => matches!(step, "check" | "prepare" | "hand_over" | "start"),
        _ => false,
    }
}

/// An operation as people see it.
pub fn seen(tenant: &mut Tenant<'_>, id: OperationId) -> Result<Operation, Fail> {
    let row = tenant.one(&format!("{SEEN} AND operation = $2"), &[id.0.into()])?;
    view(tenant, &row.ok_or_else(Fail::not_found)?)
}

/// Refuses what a person orders of a device that has too much to do already; what the hive orders by itself is never refused.
fn may_wait(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<(), Fail> {
    let sql = "SELECT COUNT(*) FROM command WHERE account = $1 AND device = $2 AND result IS NULL";
    let waiting = tenant.one(sql, &[device.0.into()])?.map(|row| row.count(0)).transpose()?.unwrap_or(0);
    if waiting <= WAITING_MAX {
        return Ok(());
    }
    let name = devices::seen(tenant, device)?.name;
    Err(Fail::state(format!("{WAITING_MAX} orders wait for \"{name}\" already")).hint(
        "see that it is up, or end some: `comb operation list` shows them, `comb operation cancel ID` ends one; if the device is lost, \
         revoke it",
    ))
}

/// The answer to an order.
pub fn ordered(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    at_stake: Option<AtStake>,
    app: Option<AppId>,
) -> Result<Reply, Fail> {
    let operation = seen(tenant, id)?;
    if let Some(device) = operation.waits_for {
        may_wait(tenant, device)?;
    }
    let reply = Reply::json(&Ordered { operation, at_stake, app });
    Ok(Reply { status: 202, order: Some(id), ..reply })
}

/// Waits until an operation ended, or for so long; the answer then.
pub async fn wait(call: &Call, id: OperationId, reply: Reply) -> Result<Reply, Fail> {
    let Some(ms) = call.number("wait_ms")? else { return Ok(reply) };
    let until = tokio::time::Instant::now() + Duration::from_millis(ms.min(WAIT_MS_MAX));
    let account = call.account()?;
    let mut changes = call.shared.changes();
    loop {
        let found = call
            .shared
            .database
            .transact(How::Read, move |tx| seen(&mut Tenant::new(tx, account), id))
            .await?;
        if found.state != State::Running {
            let Body::Json(first) = &reply.body else { return Ok(reply) };
            let mut all: Ordered =
                serde_json::from_slice(first).map_err(|error| Fail::start(error.to_string()))?;
            all.operation = found;
            return Ok(Reply::json(&all));
        }
        if tokio::time::Instant::now() >= until || call.shared.is_closing() {
            return Ok(reply);
        }
        let look = tokio::time::Instant::now() + Duration::from_millis(500);
        let _ = tokio::time::timeout_at(until.min(look), changes.changed()).await;
    }
}

/// `GET /v1/operations`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let limit = call.limit()?;
    let before = call.number("after")?.unwrap_or(i64::MAX as u64);
    let mut sql = format!("{SEEN} AND number < $2");
    let mut values = vec![before.into()];
    let mut and = |text: &str, value: super::database::Value| {
        values.push(value);
        sql.push_str(&format!(" AND {text} = ${}", values.len() + 1));
    };
    if let Some(app) = call.query_as::<AppId>("app")? {
        and("app", app.0.into());
    }
    if let Some(device) = call.query_as::<DeviceId>("device")? {
        and("device", device.0.into());
    }
    if let Some(state) = call.query.get("state") {
        and("state", state.into());
    }
    values.push((limit as u64).into());
    sql.push_str(&format!(" ORDER BY number DESC LIMIT ${}", values.len() + 1));
    let rows = tenant.query(&sql, &values)?;
    let items: Result<Vec<Operation>, Fail> = rows.iter().map(|row| view(tenant, row)).collect();
    let items = items?;
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.number.0.to_string());
    Ok(Reply::json(&Page { items, next }))
}

/// `GET /v1/operations/{id}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    Ok(Reply::json(&seen(tenant, call.param(0)?)?))
}

/// `POST /v1/operations/{id}/cancel`.
pub fn cancel(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let id: OperationId = call.param(0)?;
    let found = seen(tenant, id)?;
    let is_task = tasks::is_task(tenant, id)?;
    if !found.can_cancel && is_task && found.state == State::Running {
        return Err(Fail::state("its device has this order already, and carries it out").hint(
            "wait until it ends, then order the opposite; if the device is lost, move the app by force, or revoke the device",
        ));
    }
    if !found.can_cancel {
        return Err(Fail::state("it is too late to cancel this").hint("when it is done, order the opposite"));
    }
    if is_task {
        match found.device.filter(|_| found.kind == "drain") {
            Some(device) => drain::undo(tenant, device)?,
            None => tasks::cancel(tenant, id)?,
        }
        return Ok(Reply::json(&seen(tenant, id)?));
    }
    let Some(mut loaded) = Loaded::operation(tenant, id)? else { return Err(Fail::not_found()) };
    let Some(operation) = loaded.hive.operations.get(&id).cloned() else { return Err(Fail::not_found()) };
    loaded.operations.entry(id).or_default().data.cancelled = true;
    let step = found.step.as_deref().unwrap_or_default();
    let before = matches!(step, "check" | "prepare");
    match (operation.kind, before) {
        (_, true) => {
            loaded.edit(id, OperationState::Failed(crate::Refused::State));
            loaded.save(tenant)?;
            tasks::forget_commands(tenant, id)?;
        }
        // The way back, on request.
        (Kind::Move, false) => {
            decide(&mut loaded.hive, Decided::Back { operation: id, count: operation.count });
            loaded.save(tenant)?;
        }
        // A start that does not end is ended by a stop.
        (_, false) => {
            let app = operation.app;
            loaded.edit(id, OperationState::Failed(crate::Refused::Problem(Problem::Late)));
            loaded.save(tenant)?;
            apps::order(tenant, Wish { app, kind: Kind::Stop, to: None }, None)?;
        }
    }
    tenant.told.insert(super::tenant::Wake::Scheduler);
    Ok(Reply::json(&seen(tenant, id)?))
}

/// `GET /v1/events`.
pub fn events(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let limit = call.limit()?;
    let after = call.number("after")?.unwrap_or(0);
    let mut sql = "SELECT event FROM event WHERE account = $1 AND number > $2".to_owned();
    let mut values = vec![after.into()];
    if let Some(app) = call.query_as::<AppId>("app")? {
        values.push(app.0.into());
        sql.push_str(&format!(" AND app = ${}", values.len() + 1));
    }
    if let Some(device) = call.query_as::<DeviceId>("device")? {
        values.push(device.0.into());
        sql.push_str(&format!(" AND device = ${}", values.len() + 1));
    }
    values.push((limit as u64).into());
    sql.push_str(&format!(" ORDER BY number LIMIT ${}", values.len() + 1));
    let rows = tenant.query(&sql, &values)?;
    let items: Result<Vec<Event>, _> = rows.iter().map(|row| row.text(0).and_then(read)).collect();
    let items = items?;
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.number.0.to_string());
    Ok(Reply::json(&Page { items, next }))
}

/// A report of an app that is not well, or has a problem.
const UNWELL: &str = "(event LIKE '%\"kind\":\"phase\"%' AND (event LIKE '%\"problem\":\"%' \
     OR event LIKE '%\"health\":\"unhealthy\"%'))";

/// Which events are looked for.
#[derive(Debug, Default)]
pub struct Looked {
    /// Of an app.
    pub app: Option<[u8; 16]>,
    /// Of a device.
    pub device: Option<[u8; 16]>,
    /// Of these kinds only, if there are any.
    pub kinds: &'static [&'static str],
    /// Beside these kinds, reports of apps that are not well.
    pub unwell: bool,
    /// With smaller numbers than this.
    pub before: Option<u64>,
}

/// Events, newest first.
pub fn newest(tenant: &mut Tenant<'_>, looked: &Looked, limit: usize) -> Result<Vec<Event>, Fail> {
    // Who looks at the moments of an app asks its device, and changes nothing: that is no news.
    let mut sql = "SELECT event FROM event WHERE account = $1 AND number < $2 AND event NOT LIKE '%\"do\":\"moments\"%'".to_owned();
    let mut values: Vec<super::database::Value> = vec![looked.before.unwrap_or(i64::MAX as u64).into()];
    for (column, id) in [("app", looked.app), ("device", looked.device)] {
        if let Some(id) = id {
            values.push(id.into());
            sql.push_str(&format!(" AND {column} = ${}", values.len() + 1));
        }
    }
    if !looked.kinds.is_empty() {
        let mut any = Vec::new();
        for kind in looked.kinds {
            values.push(format!("%\"kind\":\"{kind}\"%").into());
            any.push(format!("event LIKE ${}", values.len() + 1));
        }
        if looked.unwell {
            any.push(UNWELL.to_owned());
        }
        sql.push_str(&format!(" AND ({})", any.join(" OR ")));
    }
    values.push((limit as u64).into());
    sql.push_str(&format!(" ORDER BY number DESC LIMIT ${}", values.len() + 1));
    let rows = tenant.query(&sql, &values)?;
    Ok(rows.iter().map(|row| row.text(0).and_then(read)).collect::<Result<_, _>>()?)
}

/// `GET /v1/apps/{id}/moments`: asks the device, and tells the last answer if it does not.
pub fn moments(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let (account, app): (_, AppId) = (call.account()?, call.param(0)?);
        let wait = call.number("wait_ms")?.unwrap_or(5_000).min(WAIT_MS_MAX);
        let asked = call
            .write(move |_, tenant| {
                let app = apps::seen(tenant, app)?;
                let device = app.device.ok_or_else(apps::nowhere)?;
                devices::online(tenant, device)?;
                let id =
                    tasks::begin(tenant, "moments", Some(app.id), device, Task::Moments, Order::Moments)?;
                ordered(tenant, id, None, None)
            })
            .await;
        let mut fresh = false;
        match asked {
            Ok(reply) => {
                if let Some(id) = reply.order {
                    let until = tokio::time::Instant::now() + Duration::from_millis(wait);
                    let mut changes = call.shared.changes();
                    while tokio::time::Instant::now() < until && !call.shared.is_closing() {
                        let read =
                            move |tx: &mut dyn super::database::Tx| seen(&mut Tenant::new(tx, account), id);
                        let found = call.shared.database.transact(How::Read, read).await?;
                        if found.state != State::Running {
                            fresh = found.state == State::Done;
                            break;
                        }
                        let look = tokio::time::Instant::now() + Duration::from_millis(500);
                        let _ = tokio::time::timeout_at(until.min(look), changes.changed()).await;
                    }
                }
            }
            Err(Fail::Api(error)) if error.code == Code::DeviceSilent => {}
            Err(other) => return Err(other),
        }
        let kept = call
            .shared
            .database
            .transact(How::Read, move |tx| {
                let mut tenant = Tenant::new(tx, account);
                apps::seen(&mut tenant, app)?;
                let sql = "SELECT moments, at FROM moments WHERE account = $1 AND app = $2";
                let Some(row) = tenant.one(sql, &[app.0.into()])? else { return Ok(None) };
                Ok(Some((read::<Vec<Moment>>(row.text(0)?)?, row.int(1)?)))
            })
            .await?;
        let Some((mut items, at)) = kept else {
            return Err(Fail::new(
                Code::DeviceSilent,
                "the app's device does not answer, and never told its moments",
            )
            .hint("see that its machine runs and reaches the hive, then ask again"));
        };
        items.sort_by_key(|moment| std::cmp::Reverse((moment.time, moment.reason == MomentReason::Asked)));
        Ok(Reply::json(&Moments { items, as_of: (!fresh).then(|| chance::time(at)) }))
    })
}
