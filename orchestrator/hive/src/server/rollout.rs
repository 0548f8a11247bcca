//! Releases on their way to devices that take them by themselves: one device after the other (`security.md`, section 9).

use orchestrator_api::error::Code;
use orchestrator_api::ids::{DeviceId, OperationId};
use orchestrator_api::wire::command::Order;
use orchestrator_api::wire::report::Report;
use orchestrator_api::wire::value::Base64;

use super::chance;
use super::database::{Database, How, Row};
use super::devices::{self, FRESH_MS};
use super::fail::Fail;
use super::tasks::{self, Task};
use super::tenant::{Tenant, Told, read};

/// Orders the next device to take the newest release.
pub async fn go_on(database: &Database) -> Result<Told, Fail> {
    database
        .transact(How::Lead, |tx| {
            let mut told = Told::default();
            if !tx.query("SELECT 1 FROM hive WHERE recovering = 1", &[])?.is_empty() {
                return Ok(told);
            }
            for row in tx.query("SELECT account, max(number) FROM release GROUP BY account", &[])? {
                let mut tenant = Tenant::new(tx, row.id(0)?);
                tenant.alone()?;
                next(&mut tenant, row.count(1)?)?;
                told.extend(tenant.end()?);
            }
            Ok(told)
        })
        .await
}

fn next(tenant: &mut Tenant<'_>, number: u64) -> Result<(), Fail> {
    let sql = "SELECT 1 FROM operation WHERE account = $1 AND kind = 'update_device' AND state = 'running'";
    if tenant.one(sql, &[])?.is_some() {
        return Ok(());
    }
    // A device that was ordered it before, and did not do it, is not ordered it again by the hive.
    let ordered = format!("%\"update_device\":{{\"release\":{number}}}%");
    let sql = "SELECT d.device, d.features, d.report FROM device d JOIN release_binary b ON b.account = d.account \
         AND b.arch = d.arch AND b.number = $2 WHERE d.account = $1 AND d.state = 'active' AND d.auto_update = 1 \
         AND d.seen > $3 AND NOT EXISTS (SELECT 1 FROM operation o WHERE o.account = d.account \
         AND o.device = d.device AND o.kind = 'update_device' AND o.data LIKE $4) ORDER BY d.name";
    let values = [number.into(), (chance::now() - FRESH_MS).into(), ordered.into()];
    for row in tenant.query(sql, &values)? {
        let features: Vec<String> = read(row.text(1)?)?;
        let report: Option<Report> = row.maybe(2, Row::text)?.map(read).transpose()?;
        let has = report.and_then(|report| report.update).map_or(0, |update| update.number.0);
        if has < number && features.iter().any(|feature| feature == "update") {
            order(tenant, DeviceId(row.id(0)?), number)?;
            return Ok(());
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
        return Err(
            Fail::new(Code::ArchMismatch, text).hint("put it with `PUT /v1/releases/{number}/{arch}`")
        );
    }
    let order = Order::UpdateDevice {
        release: Base64(row.bytes(0)?.to_vec()),
        signature: Base64(row.bytes(1)?.to_vec()),
    };
    tasks::begin(tenant, "update_device", None, id, Task::UpdateDevice { release: number }, order)
}
