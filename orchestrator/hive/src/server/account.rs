//! The hive itself; devices as people order them about.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::error::Code;
use orchestrator_api::ids::DeviceId;
use orchestrator_api::text::Hex;
use orchestrator_api::wire::account::{HiveInfo, Recovered};
use orchestrator_api::wire::command::Order;
use orchestrator_api::wire::device::{DeviceState, Drain, Revoke, ToStream, UpdateDevice};
use orchestrator_api::wire::value::List;

use super::call::{Answering, Call, Caller, Reply};
use super::database::How;
use super::devices;
use super::drain;
use super::fail::Fail;
use super::operations;
use super::recovery;
use super::rollout;
use super::rows;
use super::stores;
use super::tasks::{self, Task};
use super::tenant::{About, Tenant, Wake};

/// `GET /healthz`.
pub fn healthz(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let asked =
            call.shared.database.transact(How::Read, |tx| Ok(tx.query("SELECT schema FROM hive", &[])?));
        match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(_)) => Ok(Reply::json(&serde_json::json!({}))),
            _ => Err(Fail::new(Code::DatabaseAway, "the hive's database does not answer")),
        }
    })
}

/// `GET /v1/hive`.
pub fn info(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let caller = call.caller.clone();
        let (set_up, life) = call
            .shared
            .database
            .transact(How::Read, move |tx| {
                let set_up = !tx.query("SELECT 1 FROM account WHERE first = 1", &[])?.is_empty();
                let Caller::Person { account, .. } = caller else { return Ok((set_up, None)) };
                let mut tenant = Tenant::new(tx, account);
                let life = rows::life(&mut tenant)?;
                let missing = match life.recovering {
                    true => devices::missing(&mut tenant, life.incarnation)?,
                    false => Vec::new(),
                };
                Ok((set_up, Some((life, missing))))
            })
            .await?;
        Ok(Reply::json(&HiveInfo {
            key: Hex(call.shared.public()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: orchestrator_api::wire::API,
            set_up,
            domain: call.shared.domain.clone(),
            incarnation: life.as_ref().map(|(life, _)| life.incarnation),
            recovering: life.as_ref().map(|(life, _)| life.recovering),
            missing_devices: life.map(|(_, missing)| List::cut(missing)),
        }))
    })
}

/// `POST /v1/hive/recovered`.
pub fn recovered(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Recovered = call.read()?;
    let life = rows::life(tenant)?;
    if !life.recovering {
        return Err(Fail::state("the hive waits for no devices"));
    }
    let missing = devices::missing(tenant, life.incarnation)?;
    if !missing.iter().all(|device| wish.accept_missing.contains(device)) {
        let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Err(Fail::field("accept_missing", "more devices are missing than were named")
            .detail("missing", names));
    }
    recovery::finish(tenant)?;
    tenant.event("missing_accepted", About::default().with("devices", missing.len() as u64));
    Ok(Reply::none())
}

fn first(call: &Call) -> Result<(), Fail> {
    match call.caller {
        Caller::Person { first: true, .. } => Ok(()),
        _ => Err(Fail::new(Code::RoleTooLow, "only an owner of the hive's first account may do this")),
    }
}

/// `POST /v1/hive/backup`.
pub fn backup(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        first(&call)?;
        let bytes = super::backup::bytes(&call.shared.database).await?;
        // Nobody has all of the hive before that is written down.
        let size = bytes.len() as u64;
        call.write(move |_, tenant| {
            tenant.event("backup", About::default().with("bytes", size));
            Ok(Reply::none())
        })
        .await?;
        Ok(Reply::object(bytes))
    })
}

/// `GET /v1/openapi.json`.
pub fn openapi(_: Arc<Call>) -> Answering {
    Box::pin(async move { Ok(Reply::json(&super::routes::openapi())) })
}

/// `POST /v1/devices/{id}/drain`.
pub fn drain(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish): (DeviceId, Drain) = (call.param(0)?, call.read()?);
    let device = devices::seen(tenant, id)?;
    call.matches(device.generation.0)?;
    if device.state == DeviceState::Revoked {
        return Err(Fail::state(format!("\"{}\" was revoked: its apps went already", device.name)));
    }
    let operation = match wish.on {
        true => drain::begin(tenant, id)?,
        false => {
            drain::undo(tenant, id)?;
            tasks::done(tenant, "undrain", None, Some(id))?
        }
    };
    tenant.told.insert(Wake::Scheduler);
    operations::ordered(tenant, operation, None, None)
}

/// `POST /v1/devices/{id}/revoke`.
pub fn revoke(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish): (DeviceId, Revoke) = (call.param(0)?, call.read()?);
    let device = devices::seen(tenant, id)?;
    call.matches(device.generation.0)?;
    match (device.state, wish.stores_closed) {
        (DeviceState::Revoked, true) => tasks::close_stores(tenant, id)?,
        // It was done already.
        (DeviceState::Revoked, false) => {}
        (_, true) => {
            return Err(Fail::state(format!("\"{}\" is not revoked", device.name)).hint(
                "revoke it first, withdraw its credentials at each store, and then say that they are closed",
            ));
        }
        (_, false) => {
            tasks::close_device(tenant, id, true)?;
            stores::forget_ring(tenant)?;
        }
    }
    let operation = tasks::done(tenant, "revoke", None, Some(id))?;
    operations::ordered(tenant, operation, None, None)
}

fn to_stream(call: &Call, tenant: &mut Tenant<'_>, kind: &str) -> Result<Reply, Fail> {
    let (id, wish): (DeviceId, ToStream) = (call.param(0)?, call.read()?);
    devices::online(tenant, id)?;
    call.shared.streams.open(tenant.account, wish.stream, id)?;
    let order = match kind {
        "doctor" => Order::Doctor { stream: wish.stream },
        _ => Order::Facts { stream: wish.stream },
    };
    let follow = Task::Stream { stream: wish.stream };
    let operation = tasks::begin(tenant, kind, None, id, follow, order)?;
    operations::ordered(tenant, operation, None, None)
}

/// `POST /v1/devices/{id}/doctor`.
pub fn doctor(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    to_stream(call, tenant, "doctor")
}

/// `POST /v1/devices/{id}/facts`.
pub fn facts(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    to_stream(call, tenant, "facts")
}

/// `POST /v1/devices/{id}/update`.
pub fn update_device(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish): (DeviceId, UpdateDevice) = (call.param(0)?, call.read()?);
    let operation = rollout::order(tenant, id, wish.release.0)?;
    operations::ordered(tenant, operation, None, None)
}
