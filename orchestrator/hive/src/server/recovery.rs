//! A database that is older than what devices know: `failover.md`, section 12. Each account recovers for itself.

use orchestrator_api::history::What;
use orchestrator_api::ids::{AppId, Incarnation, OperationId};

use super::database::{Row, Tx, Value};
use super::fail::Fail;
use super::rows::{self, Life};
use super::tenant::{About, Tenant};
use crate::{Event, Hive, decide};

/// What is forgotten when a life begins: it may have been done, undone and forgotten since.
const FORGET: [&str; 5] = [
    "UPDATE operation SET state = 'lost' WHERE state = 'running'",
    "DELETE FROM command WHERE result IS NULL",
    "UPDATE device SET session = NULL WHERE session IS NOT NULL",
    "UPDATE device_app SET term = NULL, phase = NULL, live = 0 WHERE term IS NOT NULL",
    "UPDATE app SET withdrawn = 0, leased = 0 WHERE withdrawn + leased > 0",
];

/// Updates of an account that are under way: nobody hears any more how they end, and the next start has to know that.
/// Their apps and operations.
fn keep_updates(tenant: &mut Tenant<'_>) -> Result<Vec<(AppId, OperationId)>, Fail> {
    let sql = "SELECT o.app, o.operation FROM operation o JOIN app a ON a.account = o.account AND a.app = o.app \
         WHERE o.account = $1 AND o.state = 'running' AND o.kind = 'update'";
    let mut kept = Vec::new();
    for row in tenant.query(sql, &[])? {
        let (app, update) = (AppId(row.id(0)?), OperationId(row.id(1)?));
        rows::keep_update(tenant, app, Some(update))?;
        kept.push((app, update));
    }
    Ok(kept)
}

/// Forgets what an account's rows say of the life before; each of its devices says hello again. Apps and the updates of
/// which nobody knows any more how they end.
pub fn forget(tenant: &mut Tenant<'_>) -> Result<Vec<(AppId, OperationId)>, Fail> {
    let updates = keep_updates(tenant)?;
    let sql = "SELECT operation, app, kind, step FROM operation WHERE account = $1 AND state = 'running'";
    let running = tenant.query(sql, &[])?;
    for sql in FORGET {
        tenant.execute(&format!("{sql} AND account = $1"), &[])?;
    }
    for row in running {
        tenant.happened(What::Operation {
            operation: OperationId(row.id(0)?),
            app: row.maybe(1, Row::id::<16>)?.map(AppId),
            kind: row.text(2)?.to_owned().into(),
            step: row.text(3)?.to_owned().into(),
            state: "lost".into(),
        });
    }
    tenant.event("recovering", About::default());
    Ok(updates)
}

/// All accounts of a database that was restored begin a new life; those that have devices wait for them.
pub fn begin_all(tx: &mut dyn Tx, now_ms: u64) -> Result<(), Fail> {
    for row in tx.query("SELECT account FROM account", &[])? {
        let mut tenant = Tenant::new(tx, row.id(0)?);
        keep_updates(&mut tenant)?;
        // Nobody is there to be told.
        tenant.end()?;
    }
    for sql in FORGET {
        tx.execute(sql, &[])?;
    }
    let mut hive = Hive::default();
    for row in
        tx.query("SELECT incarnation, floor FROM hive UNION ALL SELECT incarnation, floor FROM life", &[])?
    {
        hive.incarnation = hive.incarnation.max(Incarnation(row.count(0)?));
        hive.floor = hive.floor.max(row.count(1)?);
    }
    decide(&mut hive, Event::Restored { now_ms });
    let life: [Value; 2] = [hive.incarnation.0.into(), hive.floor.into()];
    tx.execute(
        "UPDATE hive SET incarnation = $1, recovering = 0, heard = 0, floor = $2 WHERE id = 1",
        &life,
    )?;
    tx.execute("DELETE FROM life", &[])?;
    tx.execute(
        "INSERT INTO life (account, incarnation, recovering, heard, floor) \
         SELECT a.account, h.incarnation, 1, 0, h.floor FROM account a CROSS JOIN hive h WHERE EXISTS \
         (SELECT 1 FROM device d WHERE d.account = a.account AND d.state <> 'revoked' AND d.locked = 0)",
        &[],
    )?;
    Ok(())
}

/// Devices without which an account's recovery does not end, by name. One that never showed that it has the ring holds
/// nothing.
pub const MISSING: &str = "SELECT device, name FROM device WHERE account = $1 AND greeted < $2 \
     AND state <> 'revoked' AND locked = 0 ORDER BY name";

/// Ends the waiting for devices; leases that may still run are waited for by the scheduler.
pub fn finish(tenant: &mut Tenant<'_>) -> Result<(), Fail> {
    let mut hive = rows::life(tenant)?.hive();
    decide(&mut hive, Event::FinishRecovery);
    Ok(rows::save_life(tenant, Life::after(&hive))?)
}

/// The devices of an account were heard, and leases of before are over.
pub fn end(tenant: &mut Tenant<'_>) -> Result<(), Fail> {
    let life = rows::life(tenant)?;
    if !(life.recovering && life.heard) {
        return Ok(());
    }
    tenant.execute(
        "UPDATE app SET wanted = 0, problem = 'not_held' WHERE account = $1 AND device IS NULL AND wanted = 1",
        &[],
    )?;
    rows::save_life(tenant, Life { recovering: false, heard: false, ..life })?;
    tenant.event("recovered", About::default());
    Ok(())
}
