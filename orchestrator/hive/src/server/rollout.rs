//! Releases on their way to devices that take them by themselves: one device after the other (`security.md`, section 9).
//!
//! Invariants
//! - What a device said of a release is never asked again, and what it went back from is never ordered.
//! - A device that never got its order holds nobody back.

use orchestrator_api::error::Code;
use orchestrator_api::ids::{DeviceId, OperationId};
use orchestrator_api::times::SILENT_OVER;
use orchestrator_api::wire::command::Order;
use orchestrator_api::wire::report::Report;
use orchestrator_api::wire::value::Base64;

use super::chance;
use super::database::{Database, How, Row, Tx};
use super::devices::{self, FRESH_MS};
use super::fail::Fail;
use super::rows::{self, OperationData};
use super::scheduler::each;
use super::tasks::{self, Task};
use super::tenant::{Tenant, Told, read};
use crate::Refused;

/// An order that brought no verdict is given again after this, in milliseconds.
const AGAIN_MS: i64 = 600_000;

/// Orders the next device of each account to take the newest release.
pub async fn go_on(database: &Database) -> Result<Told, Fail> {
    let with_releases = |tx: &mut dyn Tx| {
        let rows = tx.query("SELECT DISTINCT account FROM release_binary", &[])?;
        rows.iter().map(|row| Ok((row.id(0)?, ()))).collect::<Result<Vec<_>, Fail>>()
    };
    let all = database.transact(How::Read, with_releases).await?;
    let work = |tenant: &mut Tenant<'_>, (): &()| match rows::life(tenant)?.recovering || waits(tenant)? {
        true => Ok(()),
        false => next(tenant),
    };
    Ok(each(database, all, "a release could not be brought to devices", work).await.0)
}

/// Whether a device has an order that it may be at work on. One that a silent device never got is taken back.
fn waits(tenant: &mut Tenant<'_>) -> Result<bool, Fail> {
    let sql = "SELECT o.operation, o.data, d.seen, d.report, d.state FROM operation o JOIN device d \
         ON d.account = o.account AND d.device = o.device \
         WHERE o.account = $1 AND o.kind = 'update_device' AND o.state = 'running'";
    let mut waits = false;
    for row in tenant.query(sql, &[])? {
        let data: OperationData = read(row.text(1)?)?;
        let report: Option<Report> = row.maybe(3, Row::text)?.map(read).transpose()?;
        let seen = row.maybe(2, Row::int)?;
        let took =
            data.waits.is_none_or(|(_, number)| report.is_some_and(|report| report.commands_have >= number));
        let silent = seen.is_none_or(|seen| chance::now() - seen > SILENT_OVER as i64);
        match row.text(4)? == "revoked" || (silent && !took) {
            true => tasks::give_up(tenant, OperationId(row.id(0)?), Refused::DeviceSilent)?,
            false => waits = true,
        }
    }
    Ok(waits)
}

fn next(tenant: &mut Tenant<'_>) -> Result<(), Fail> {
    // What a device said of a release holds; where it said nothing, it is asked again.
    let sql = "SELECT d.device, d.features, d.report, b.number FROM device d JOIN release_binary b \
         ON b.account = d.account AND b.arch = d.arch AND b.number = (SELECT max(n.number) FROM release_binary n \
         WHERE n.account = d.account AND n.arch = d.arch) \
         WHERE d.account = $1 AND d.state = 'active' AND d.auto_update = 1 AND d.locked = 0 AND d.seen > $2 \
         AND NOT EXISTS (SELECT 1 FROM operation o WHERE o.account = d.account AND o.device = d.device \
         AND o.kind = 'update_device' AND o.data LIKE '%\"update_device\":{\"release\":' || b.number || '}%' \
         AND NOT (o.state = 'lost' OR (o.state = 'failed' AND (o.code = 'device_silent' \
         OR (o.code IN ('package_sealed', 'late') AND o.ended <= $3))))) ORDER BY d.name";
    let now = chance::now();
    for row in tenant.query(sql, &[(now - FRESH_MS).into(), (now - AGAIN_MS).into()])? {
        let features: Vec<String> = read(row.text(1)?)?;
        let report: Option<Report> = row.maybe(2, Row::text)?.map(read).transpose()?;
        let number = row.count(3)?;
        // One that it went back from is told with that release's number.
        let has = report.and_then(|report| report.update).map_or(0, |update| update.number.0);
        if has < number && features.iter().any(|feature| feature == "update") {
            match order(tenant, DeviceId(row.id(0)?), number) {
                Ok(_) => return Ok(()),
                // Nothing was ordered: it may have reported last just too long ago, and is looked at again.
                Err(Fail::Api(error)) => tracing::debug!(why = %error.message, "a device is not asked now"),
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

/// Orders a device to take a release.
pub fn order(tenant: &mut Tenant<'_>, id: DeviceId, number: u64) -> Result<OperationId, Fail> {
    let device = devices::online(tenant, id)?;
    let name = &device.name;
    if !device.features.iter().any(|feature| feature == "update") {
        return Err(Fail::state(format!("\"{name}\" runs a comb that cannot update itself"))
            .hint("update comb on its machine by hand, once"));
    }
    let sql = "SELECT release_json, signature FROM release WHERE account = $1 AND number = $2";
    let row = tenant.one(sql, &[number.into()])?.ok_or_else(Fail::not_found)?;
    let arch = devices::arch_text(device.arch);
    let sql = "SELECT 1 FROM release_binary WHERE account = $1 AND number = $2 AND arch = $3";
    if tenant.one(sql, &[number.into(), arch.into()])?.is_none() {
        let text = format!("release {number} has no program for {arch} here, which \"{name}\" runs on");
        return Err(Fail::new(Code::ArchMismatch, text).hint(format!(
            "put it with `PUT /v1/releases/{number}/{arch}`, or `comb device release FILE…`"
        )));
    }
    let order = Order::UpdateDevice {
        release: Base64(row.bytes(0)?.to_vec()),
        signature: Base64(row.bytes(1)?.to_vec()),
    };
    tasks::begin(tenant, "update_device", None, id, Task::UpdateDevice { release: number }, order)
}

#[cfg(test)]
mod tests {
    use super::super::database::Value;
    use super::super::scheduler::stage::{Stage, id};
    use super::super::tenant::AccountId;
    use super::*;

    /// What keeps a device, or an account, from its release keeps no other one.
    #[tokio::test]
    async fn who_cannot_be_asked_holds_up_nobody() {
        let (broken, well): (AccountId, AccountId) = ([1; 16], [2; 16]);
        let stage = Stage::with(&[broken, well]).await;
        let able = r#"["update"]"#;
        // Of the release of the first architecture only the program is there: what there is to order cannot be read.
        let devices = [
            (broken, id(11), "attic", "x86_64", "{"),
            (well, id(12), "attic", "x86_64", able),
            (well, id(13), "cellar", "aarch64", able),
        ];
        for (account, device, name, arch, features) in devices {
            let own: (&str, Value) = ("account", account.into());
            let values = [
                own.clone(),
                ("device", device.into()),
                ("name", name.into()),
                ("arch", arch.into()),
                ("features", features.into()),
                ("state", "active".into()),
                ("auto_update", true.into()),
                ("seen", chance::now().into()),
            ];
            stage.put("device", &values).await;
            let number = ("number", if arch == "x86_64" { 4_i64 } else { 5 }.into());
            stage.put("release_binary", &[own.clone(), number.clone(), ("arch", arch.into())]).await;
            if arch == "aarch64" {
                stage.put("release", &[own, number]).await;
            }
        }
        go_on(&stage.database).await.expect("the database answers");
        let rows = stage.rows("SELECT device FROM operation WHERE state = 'running'").await;
        let asked: Vec<[u8; 16]> = rows.iter().map(|row| row.id(0).expect("has a device")).collect();
        assert_eq!(asked, [id(13)]);
    }
}
