//! A database that is older than what devices know: `failover.md`, section 12.

use orchestrator_api::history::What;
use orchestrator_api::ids::{AppId, OperationId};

use crate::Hive;

use super::database::Row;
use super::fail::Fail;
use super::tenant::Tenant;

/// Forgets what may have been done, undone and forgotten since; each device says hello again.
pub fn forget(tenant: &mut Tenant<'_>, hive: &Hive) -> Result<(), Fail> {
    let tx = &mut tenant.tx;
    tx.execute(
        "UPDATE hive SET incarnation = $1, recovering = $2, heard = $3, floor = $4 WHERE id = 1",
        &[hive.incarnation.0.into(), hive.recovering.into(), hive.heard.into(), hive.floor.into()],
    )?;
    let running =
        tx.query("SELECT operation, app, kind, step FROM operation WHERE state = 'running'", &[])?;
    for sql in [
        "UPDATE operation SET state = 'lost' WHERE state = 'running'",
        "DELETE FROM command WHERE result IS NULL",
        "UPDATE device SET session = NULL",
        "UPDATE device_app SET term = NULL, phase = NULL, live = 0",
        "UPDATE app SET withdrawn = 0, leased = 0",
    ] {
        tx.execute(sql, &[])?;
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
    tenant.event("recovering", super::tenant::About::default());
    Ok(())
}
