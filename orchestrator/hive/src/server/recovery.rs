//! A database that is older than what devices know: `failover.md`, section 12.

use crate::Hive;

use super::fail::Fail;
use super::tenant::Tenant;

/// Forgets what may have been done, undone and forgotten since; each device says hello again.
pub fn forget(tenant: &mut Tenant<'_>, hive: &Hive) -> Result<(), Fail> {
    let tx = &mut tenant.tx;
    tx.execute(
        "UPDATE hive SET incarnation = $1, recovering = $2, heard = $3, floor = $4 WHERE id = 1",
        &[hive.incarnation.0.into(), hive.recovering.into(), hive.heard.into(), hive.floor.into()],
    )?;
    for sql in [
        "UPDATE operation SET state = 'lost' WHERE state = 'running'",
        "DELETE FROM command WHERE result IS NULL",
        "UPDATE device SET session = NULL",
        "UPDATE device_app SET term = NULL, phase = NULL, live = 0",
        "UPDATE app SET withdrawn = 0, leased = 0",
    ] {
        tx.execute(sql, &[])?;
    }
    tenant.event("recovering", super::tenant::About::default())
}
