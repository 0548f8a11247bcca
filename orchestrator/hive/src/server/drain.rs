//! A device that is being emptied: its apps are moved away as planned, one after the other.
//!
//! An app that cannot go is named with its reason and stays; the others go on. What was told once is not tried again
//! before somebody orders it again.

use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::wire::operation::{Left, Outcome};
use orchestrator_api::wire::value::{List, Number};
use serde::{Deserialize, Serialize};

use super::apps;
use super::database::{Database, How, Row, Tx};
use super::fail::Fail;
use super::rows::{self, OperationData};
use super::scheduler::each;
use super::tasks::{self, Open, Task};
use super::tenant::{About, Tenant, Told, read};
use crate::{OperationState, Refused};

/// An app that does not run has nothing to hand over.
pub const STOPPED: &str = "stopped";

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The app that is on its way, and by which operation.
    moving: Option<(AppId, OperationId)>,
    /// How many were moved.
    moved: u64,
    /// How many are still to be tried, with the one on its way.
    rest: u64,
    /// Those that stay, and why.
    left: Vec<Left>,
}

impl Drain {
    /// Apps that are done with, and all of them.
    pub fn progress(&self) -> (Number, Number) {
        let done = self.moved + self.left.len() as u64;
        (Number(done), Number(done + self.rest))
    }
}

/// What empties a device now.
pub fn running(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<Option<OperationId>, Fail> {
    let sql = "SELECT operation FROM operation WHERE account = $1 AND device = $2 AND kind = 'drain' \
         AND state = 'running'";
    Ok(tenant.one(sql, &[device.0.into()])?.map(|row| row.id(0).map(OperationId)).transpose()?)
}

/// The apps that could not leave a device when it was emptied last, and why.
pub fn left(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<Vec<Left>, Fail> {
    let sql = "SELECT data FROM operation WHERE account = $1 AND device = $2 AND kind = 'drain' \
         ORDER BY number DESC LIMIT 1";
    let Some(row) = tenant.one(sql, &[device.0.into()])? else { return Ok(Vec::new()) };
    let data: OperationData = read(row.text(0)?)?;
    Ok(match data.task {
        Some(Task::Drain(drain)) => drain.left,
        _ => Vec::new(),
    })
}

/// Begins to empty a device, or goes on with it.
pub fn begin(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<OperationId, Fail> {
    if rows::life(tenant)?.recovering {
        return Err(tasks::recovering());
    }
    if let Some(id) = running(tenant, device)? {
        return Ok(id);
    }
    set_state(tenant, device, "draining", true)?;
    tasks::open(tenant, "drain", None, device, Task::Drain(Drain::default()))
}

/// The device takes apps again; what is on its way arrives.
pub fn undo(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<(), Fail> {
    if let Some(id) = running(tenant, device)? {
        tasks::cancel(tenant, id)?;
    }
    set_state(tenant, device, "active", false)
}

fn set_state(tenant: &mut Tenant<'_>, device: DeviceId, state: &str, on: bool) -> Result<(), Fail> {
    let changed = tenant.execute(
        "UPDATE device SET state = $3, generation = generation + 1 WHERE account = $1 AND device = $2 \
         AND state <> 'revoked' AND state <> $3",
        &[device.0.into(), state.into()],
    )?;
    if changed > 0 {
        tenant.event("drained", About::device(device).with("on", on));
        tenant.changed("device", device);
    }
    Ok(())
}

/// Goes on with each device that is being emptied.
pub async fn go_on(database: &Database) -> Result<Told, Fail> {
    let running = |tx: &mut dyn Tx| {
        let sql =
            "SELECT account, operation, device FROM operation WHERE state = 'running' AND kind = 'drain'";
        let rows = tx.query(sql, &[])?;
        let one = |row: &Row| Ok((row.id(0)?, (OperationId(row.id(1)?), DeviceId(row.id(2)?))));
        rows.iter().map(one).collect::<Result<Vec<_>, Fail>>()
    };
    let all = database.transact(How::Read, running).await?;
    let work = |tenant: &mut Tenant<'_>, (id, device): &(OperationId, DeviceId)| step(tenant, *id, *device);
    Ok(each(database, all, "a device could not be emptied", work).await.0)
}

fn step(tenant: &mut Tenant<'_>, id: OperationId, device: DeviceId) -> Result<(), Fail> {
    // It may have ended since it was listed.
    let Some(mut open) = tasks::load(tenant, id)? else { return Ok(()) };
    let Some(Task::Drain(mut drain)) = open.beside.data.task.clone() else { return Ok(()) };
    let before = drain.clone();
    let state =
        tenant.one("SELECT state FROM device WHERE account = $1 AND device = $2", &[device.0.into()])?;
    let state = state.map(|row| row.text(0).map(str::to_owned)).transpose()?;
    if state.as_deref() != Some("draining") {
        // Revoked meanwhile: its apps went with force.
        return end(tenant, open, drain, OperationState::Failed(Refused::DeviceClosed));
    }
    if let Some((app, moving)) = drain.moving {
        let sql = "SELECT state, code FROM operation WHERE account = $1 AND operation = $2";
        let row = tenant.one(sql, &[moving.0.into()])?;
        let (state, code) = match &row {
            Some(row) => (row.text(0)?, row.maybe(1, Row::text)?),
            None => ("lost", None),
        };
        match state {
            "running" => return Ok(()),
            "done" => drain.moved += 1,
            state => drain.left.push(Left { app, code: code.unwrap_or(state).to_owned() }),
        }
        drain.moving = None;
    }
    let sql = "SELECT a.app, d.live, a.wanted FROM app a LEFT JOIN device_app d ON d.account = a.account \
         AND d.app = a.app AND d.device = a.device WHERE a.account = $1 AND a.device = $2 ORDER BY a.name";
    let mut rest = Vec::new();
    for row in tenant.query(sql, &[device.0.into()])? {
        let app = AppId(row.id(0)?);
        if drain.left.iter().any(|left| left.app == app) {
            continue;
        }
        match row.maybe(1, Row::flag)?.unwrap_or(false) || row.flag(2)? {
            true => rest.push(app),
            false => drain.left.push(Left { app, code: STOPPED.to_owned() }),
        }
    }
    drain.rest = rest.len() as u64;
    for app in rest {
        if apps::is_busy(tenant, app)? {
            continue;
        }
        match apps::move_away(tenant, app, device, false)? {
            Ok(moving) => {
                drain.moving = Some((app, moving));
                break;
            }
            Err(code) => {
                drain.left.push(Left { app, code });
                drain.rest -= 1;
            }
        }
    }
    if drain.rest == 0 {
        let state = match drain.left.iter().find(|left| left.code != STOPPED) {
            Some(left) => OperationState::Failed(match rows::refused(&left.code) {
                Refused::Problem(orchestrator_api::placement::Problem::Unknown) => Refused::NoCandidate,
                refused => refused,
            }),
            None => OperationState::Done,
        };
        return end(tenant, open, drain, state);
    }
    if drain != before {
        open.beside.data.task = Some(Task::Drain(drain));
        tasks::save(tenant, id, &open)?;
    }
    Ok(())
}

fn end(tenant: &mut Tenant<'_>, mut open: Open, drain: Drain, state: OperationState) -> Result<(), Fail> {
    let device = open.beside.data.to;
    let about = About { device, operation: Some(open.id), ..About::default() }
        .with("do", "drain")
        .with("moved", drain.moved)
        .with("left", drain.left.len());
    let (kind, about) = match state {
        OperationState::Failed(refused) => ("failed", about.with("code", rows::refused_text(refused))),
        _ => ("finished", about),
    };
    open.beside.result = Some(Outcome { left: List::cut(drain.left.clone()), ..Outcome::default() });
    open.beside.data.task = Some(Task::Drain(drain));
    open.operation.state = state;
    tasks::save(tenant, open.id, &open)?;
    tenant.event(kind, about);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::database::Value;
    use super::super::scheduler::stage::Stage;
    use super::super::tenant::{AccountId, json};
    use super::*;

    /// One that cannot be read comes first, and the others are emptied all the same.
    #[tokio::test]
    async fn a_drain_that_cannot_be_read_holds_up_no_other_account() {
        let (broken, well): (AccountId, AccountId) = ([1; 16], [2; 16]);
        let stage = Stage::with(&[broken, well]).await;
        let data = OperationData { task: Some(Task::Drain(Drain::default())), ..OperationData::default() };
        for (account, data) in [(broken, "{".to_owned()), (well, json(&data))] {
            let own: [(&str, Value); 2] =
                [("account", account.into()), ("device", [account[0] + 10; 16].into())];
            stage.put("device", &[&own[..], &[("state", "draining".into())]].concat()).await;
            let operation = [
                ("operation", [account[0] + 20; 16].into()),
                ("kind", "drain".into()),
                ("step", "drain".into()),
                ("state", "running".into()),
                ("data", data.into()),
            ];
            stage.put("operation", &[&own[..], &operation].concat()).await;
        }
        let told = go_on(&stage.database).await.expect("the database answers");
        let rows = stage.rows("SELECT state FROM operation ORDER BY account").await;
        let states: Vec<&str> = rows.iter().map(|row| row.text(0).expect("has a state")).collect();
        assert_eq!(states, ["running", "done"]);
        assert!(!told.wakes.is_empty(), "it is told");
    }
}
