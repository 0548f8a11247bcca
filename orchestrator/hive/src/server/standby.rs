//! Devices that stand by for apps under a lease: where nobody named one, the hive chooses (`failover.md`, section 4).
//!
//! Nothing is kept of the choice: who stands by says so in its reports.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::placement::Problem;
use orchestrator_api::wire::command::{NamedVolume, Order, Prepare};
use orchestrator_api::wire::value::List;

use super::apps;
use super::chance;
use super::database::{Database, How, Tx};
use super::fail::Fail;
use super::rows::{self, ALONE};
use super::scheduler::each;
use super::tasks::{self, Task};
use super::tenant::{AccountId, Tenant, Told, read};
use crate::Refused;

/// One that was not heard for so long does not count.
const SILENT_MS: i64 = 600_000;
/// One that failed is not asked again sooner.
const FAILED_MS: i64 = 600_000;
/// One that does not end what it was asked is not waited for any longer.
const PREPARE_MS: i64 = 1_800_000;
/// An app without a candidate is looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// Apps at a time. For each of them every report of its account is read, in a transaction of its own.
const TOGETHER_MAX: usize = 50;

/// Apps that were looked at lately, in memory of the scheduler.
#[derive(Debug, Default)]
pub struct Looked(HashMap<(AccountId, AppId), Instant>);

/// Those that run under a lease, without anybody heard of who stands by.
const ALONE_SQL: &str = "SELECT a.account, a.app FROM app a \
     JOIN device_app p ON p.account = a.account AND p.app = a.app AND p.device = a.device \
     WHERE a.policy = 'auto' AND a.wanted = 1 AND p.phase LIKE '%\"running\"%' AND NOT EXISTS \
     (SELECT 1 FROM device_app s JOIN device v ON v.account = s.account AND v.device = s.device \
     WHERE s.account = a.account AND s.app = a.app AND s.device <> a.device AND v.state = 'active' \
     AND v.locked = 0 AND v.seen > $1 AND s.phase LIKE '%\"standing_by\"%')";

/// Whether somebody stands by for an app.
pub fn there_is(tenant: &mut Tenant<'_>, app: AppId) -> Result<bool, Fail> {
    let sql = "SELECT 1 FROM app a JOIN device_app s ON s.account = a.account AND s.app = a.app \
         JOIN device v ON v.account = s.account AND v.device = s.device WHERE a.account = $1 AND a.app = $2 \
         AND s.device <> a.device AND v.state = 'active' AND v.locked = 0 AND v.seen > $3 AND s.phase LIKE '%\"standing_by\"%'";
    Ok(tenant.one(sql, &[app.0.into(), (chance::now() - SILENT_MS).into()])?.is_some())
}

/// Finds somebody for each app that has nobody.
pub async fn choose(database: &Database, looked: &mut Looked) -> Result<Told, Fail> {
    looked.0.retain(|_, at| at.elapsed() < AGAIN);
    let lately: BTreeSet<(AccountId, AppId)> = looked.0.keys().copied().collect();
    // Those that have somebody are passed over without waiting for who writes.
    let found = database.transact(How::Read, |tx| lonely(tx)).await?;
    let found = found.into_iter().filter(|one| !lately.contains(one)).take(TOGETHER_MAX);
    let (told, seen) = each(database, found, "no device could be asked to stand by", choose_in).await;
    looked.0.extend(seen.into_iter().flatten().map(|one| (one, Instant::now())));
    Ok(told)
}

fn lonely(tx: &mut dyn Tx) -> Result<Vec<(AccountId, AppId)>, Fail> {
    let rows = tx.query(ALONE_SQL, &[(chance::now() - SILENT_MS).into()])?;
    rows.iter().map(|row| Ok((row.id(0)?, AppId(row.id(1)?)))).collect()
}

/// Asks somebody for an app; the app if it is not worth looking again soon.
fn choose_in(tenant: &mut Tenant<'_>, app: &AppId) -> Result<Option<(AccountId, AppId)>, Fail> {
    let seen = Some((tenant.account, *app));
    if rows::life(tenant)?.recovering {
        return Ok(seen);
    }
    match choose_for(tenant, *app) {
        Ok(true) => Ok(None),
        // Nobody can, or it is gone meanwhile.
        Ok(false) | Err(Fail::Api(_)) => Ok(seen),
        Err(other) => Err(other),
    }
}

/// Asks somebody, if there is anybody; whether it is worth looking again soon.
fn choose_for(tenant: &mut Tenant<'_>, id: AppId) -> Result<bool, Fail> {
    let app = apps::seen(tenant, id)?;
    // Whom a person named has no other beside him; who was named and has the app stands by for nobody.
    let named = app.standby.iter().any(|device| Some(*device) != app.device);
    let busy =
        format!("SELECT 1 FROM operation WHERE account = $1 AND app = $2 AND state = 'running' AND {ALONE}");
    if named {
        return Ok(false);
    }
    if tenant.one(&busy, &[id.0.into()])?.is_some() || is_being_prepared(tenant, id)? {
        return Ok(true);
    }
    let mut without: BTreeSet<DeviceId> = app.device.into_iter().collect();
    let sql = "SELECT device FROM operation WHERE account = $1 AND app = $2 AND kind = 'standby' \
         AND state = 'failed' AND ended > $3 AND device IS NOT NULL";
    for row in tenant.query(sql, &[id.0.into(), (chance::now() - FAILED_MS).into()])? {
        without.insert(DeviceId(row.id(0)?));
    }
    for row in tenant.query("SELECT device, features FROM device WHERE account = $1", &[])? {
        let features: Vec<String> = read(row.text(1)?)?;
        if !features.iter().any(|feature| feature == "auto") {
            without.insert(DeviceId(row.id(0)?));
        }
    }
    let package = apps::package(tenant, id, app.revision.0)?;
    match apps::choose(tenant, &package, &app.stores, &without, apps::bytes(&app)) {
        Ok(device) => prepare(tenant, &app, device).map(|_| true),
        // Nobody can: the app shows that it has no standby.
        Err(Fail::Api(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether somebody was asked who may still answer.
fn is_being_prepared(tenant: &mut Tenant<'_>, app: AppId) -> Result<bool, Fail> {
    let sql = "SELECT o.operation, o.begun, v.seen FROM operation o LEFT JOIN device v ON v.account = o.account \
         AND v.device = o.device WHERE o.account = $1 AND o.app = $2 AND o.kind = 'standby' AND o.state = 'running'";
    let now = chance::now();
    let mut waits = false;
    for row in tenant.query(sql, &[app.0.into()])? {
        let heard = row.maybe(2, super::database::Row::int)?.is_some_and(|seen| seen > now - SILENT_MS);
        if heard && row.int(1)? > now - PREPARE_MS {
            waits = true;
            continue;
        }
        tasks::give_up(tenant, OperationId(row.id(0)?), Refused::Problem(Problem::Late))?;
    }
    Ok(waits)
}

/// Asks a device to stand by for an app.
pub fn prepare(
    tenant: &mut Tenant<'_>,
    app: &orchestrator_api::wire::app::App,
    device: DeviceId,
) -> Result<OperationId, Fail> {
    let volumes = app.volumes.iter().filter_map(|one| {
        let name = one.name.parse().ok()?;
        Some(NamedVolume { name, volume: one.volume? })
    });
    let order = Order::Prepare(Prepare {
        revision: app.revision,
        stores: rows::stores(tenant, &app.stores)?,
        volumes: List::cut(volumes),
        fill: false,
    });
    tasks::begin(tenant, "standby", Some(app.id), device, Task::Standby, order)
}
