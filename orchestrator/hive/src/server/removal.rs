//! Removing an app: stopped, then forgotten by one device after the other, and last by the hive.
//!
//! Invariants
//! - The hive forgets an app when each device that reports has: so whoever refuses, since something is there that is in no
//!   store, has an app still that goes on from there.
//! - The device that has the app is asked last. What is lost with a copy elsewhere is in the store.
//! - One that is silent is not waited for, also if it was asked before it fell silent. It is told when it is back, and looks for
//!   itself; what it refuses is an event.

use orchestrator_api::ids::{AppId, CommandNumber, DeviceId, OperationId, Renewals};
use orchestrator_api::placement::Problem;
use orchestrator_api::wire::app::App;
use orchestrator_api::wire::command::{CommandResult, Order};
use orchestrator_api::wire::device::DeviceState;
use serde::{Deserialize, Serialize};

use super::database::Row;
use super::devices;
use super::fail::Fail;
use super::rows;
use super::tasks::{self, Task};
use super::tenant::{About, Former, Tenant};
use crate::{OperationState, Refused};

/// How an app is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Whether devices keep its volumes.
    pub keep_data: bool,
    /// Whether what is in no store goes, too.
    #[serde(default)]
    pub discard: bool,
    /// Devices that were told to forget it.
    #[serde(default)]
    pub asked: Vec<DeviceId>,
}

impl Removal {
    fn order(&self) -> Order {
        Order::Forget { keep_data: self.keep_data, discard: self.discard }
    }
}

/// Removes an app that runs nowhere.
pub fn begin(tenant: &mut Tenant<'_>, app: &App, mut wish: Removal) -> Result<OperationId, Fail> {
    let Some(device) = next(tenant, app.id, &wish.asked)? else {
        let operation = tasks::done(tenant, "remove", Some(app.id), app.device)?;
        forget(tenant, operation, app.id, &wish)?;
        tenant.event("app_removed", About::app(app.id));
        return Ok(operation);
    };
    wish.asked.push(device);
    let order = wish.order();
    tasks::begin(tenant, "remove", Some(app.id), device, Task::Remove(wish), order)
}

/// What came of it that a device did what it was asked for.
pub enum Progress {
    /// The hive has forgotten the app.
    Removed,
    /// Another device is asked.
    Asked(Asked),
    /// The device has what is in no store, and kept it.
    WouldLose,
}

/// Who is asked next, by a command of which number; and the removal with that device among those that were asked.
pub type Asked = (Removal, DeviceId, CommandNumber);

/// A device did what it was asked for.
pub fn go_on(
    tenant: &mut Tenant<'_>,
    operation: OperationId,
    app: Option<AppId>,
    wish: &Removal,
    result: &CommandResult,
) -> Result<Progress, Fail> {
    let Some(app) = app else { return Ok(Progress::Removed) };
    if !wish.keep_data && !wish.discard && !result.data.late.is_empty() {
        return Ok(Progress::WouldLose);
    }
    Ok(ask_next(tenant, operation, app, wish)?.map_or(Progress::Removed, Progress::Asked))
}

/// Asks the next device; without one the hive forgets the app.
fn ask_next(
    tenant: &mut Tenant<'_>,
    operation: OperationId,
    app: AppId,
    wish: &Removal,
) -> Result<Option<Asked>, Fail> {
    let Some(device) = next(tenant, app, &wish.asked)? else {
        forget(tenant, operation, app, wish)?;
        return Ok(None);
    };
    let mut wish = wish.clone();
    wish.asked.push(device);
    let number = tasks::command(tenant, operation, Some(app), device, wish.order())?;
    Ok(Some((wish, device, number)))
}

/// A removal waits for a device that is silent: it goes on without it. What that was asked stays asked, and is done when it
/// is back. Whether the operation is a removal.
pub fn go_on_without(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    (device, count, heard): (DeviceId, u64, Renewals),
) -> Result<bool, Fail> {
    let Some(mut open) = tasks::load(tenant, id)? else { return Ok(false) };
    let (Some(app), Some(Task::Remove(wish))) = (open.app, open.beside.data.task.clone()) else {
        return Ok(false);
    };
    let sql = "SELECT renewals FROM device WHERE account = $1 AND device = $2";
    let row = tenant.one(sql, &[device.0.into()])?;
    let is_back = row.map(|row| row.count(0)).transpose()?.is_some_and(|renewals| renewals != heard.0);
    let waits = open.beside.data.waits.is_some_and(|(one, _)| one == device);
    if is_back || !waits || open.operation.count != count {
        return Ok(true);
    }
    match ask_next(tenant, id, app, &wish)? {
        Some(next) => open.asks(next),
        None => {
            open.beside.data.waits = None;
            open.operation.state = OperationState::Done;
            open.operation.count += 1;
            tenant
                .event("app_removed", About { operation: Some(id), ..About::app(app) }.with("do", "remove"));
        }
    }
    tasks::save(tenant, id, &open)?;
    Ok(true)
}

/// An app that a device made volumes and a package of does not come to be: nothing of it stays.
pub fn unmake(
    tenant: &mut Tenant<'_>,
    operation: OperationId,
    app: AppId,
    device: DeviceId,
) -> Result<(), Fail> {
    if tenant.one("SELECT 1 FROM app WHERE account = $1 AND app = $2", &[app.0.into()])?.is_some() {
        return Ok(());
    }
    tenant.execute("DELETE FROM package WHERE account = $1 AND app = $2", &[app.0.into()])?;
    // All of it is another app's past, which stays.
    let order = Order::Forget { keep_data: false, discard: true };
    tasks::command(tenant, operation, Some(app), device, order)?;
    Ok(())
}

/// A device that was told of an app's end, and was not waited for, did not do it.
pub fn refused(tenant: &mut Tenant<'_>, app: Option<AppId>, device: DeviceId, result: &CommandResult) {
    let problem = result.code.or(result.problem.as_ref().map(|problem| problem.code));
    let code = rows::refused_text(Refused::Problem(problem.unwrap_or(Problem::Unknown)));
    let about = About { app, device: Some(device), ..About::default() };
    tenant.event("failed", about.with("do", "forget").with("code", code));
}

/// The next device that is asked: one that is not silent, and the app's own last.
fn next(tenant: &mut Tenant<'_>, app: AppId, asked: &[DeviceId]) -> Result<Option<DeviceId>, Fail> {
    for device in holders(tenant, app)?.into_iter().filter(|device| !asked.contains(device)) {
        // What is new is ordered only of who reported just now. But whoever is passed over here, nobody waits for: one
        // that missed a report or two is none of those.
        let state = devices::seen(tenant, device)?.state;
        if !matches!(state, DeviceState::Silent | DeviceState::Revoked) {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Devices that may have something of an app, its own last.
fn holders(tenant: &mut Tenant<'_>, app: AppId) -> Result<Vec<DeviceId>, Fail> {
    let sql = "SELECT d.device FROM device_app d JOIN device v ON v.account = d.account AND v.device = d.device \
         JOIN app a ON a.account = d.account AND a.app = d.app \
         WHERE d.account = $1 AND d.app = $2 AND v.state <> 'revoked' \
         ORDER BY CASE WHEN d.device = a.device THEN 1 ELSE 0 END, d.device";
    let rows = tenant.query(sql, &[app.0.into()])?;
    Ok(rows.iter().map(|row: &Row| row.id(0).map(DeviceId)).collect::<Result<_, _>>()?)
}

/// The hive forgets an app, and tells the devices that were not asked yet.
fn forget(tenant: &mut Tenant<'_>, operation: OperationId, app: AppId, wish: &Removal) -> Result<(), Fail> {
    super::figures::forget(tenant, app.0)?;
    for device in holders(tenant, app)?.into_iter().filter(|device| !wish.asked.contains(device)) {
        tasks::command(tenant, operation, Some(app), device, wish.order())?;
    }
    // What ran beside is over, too.
    let sql = "SELECT operation FROM operation WHERE account = $1 AND app = $2 AND state = 'running' \
         AND operation <> $3";
    for row in tenant.query(sql, &[app.0.into(), operation.0.into()])? {
        tasks::cancel(tenant, OperationId(row.id(0)?))?;
    }
    // What happened with it stays readable.
    let sql = "SELECT name FROM app WHERE account = $1 AND app = $2";
    if let Some(row) = tenant.one(sql, &[app.0.into()])? {
        tenant.keep_name(Former::App, app.0, row.text(0)?)?;
    }
    for table in ["app", "device_app", "moments", "package"] {
        tenant.execute(&format!("DELETE FROM {table} WHERE account = $1 AND app = $2"), &[app.0.into()])?;
    }
    tenant.changed("app", app);
    Ok(())
}
