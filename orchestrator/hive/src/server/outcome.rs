//! What comes of operations: what is learnt from results, what was lost, what is told.

use std::collections::{BTreeMap, BTreeSet};

use fs_format::{DeviceId as Writer, VolumeId};
use orchestrator_api::ids::{AppId, DeviceId, OperationId};
use orchestrator_api::text::Hex;
use orchestrator_api::times::LEASE_END;
use orchestrator_api::wire::app::AtStake;
use orchestrator_api::wire::command::{CommandResult, WriterAt};
use orchestrator_api::wire::operation::{Exact, Lost, Outcome};
use orchestrator_api::wire::report::{AppReport, Branch, Phase};
use orchestrator_api::wire::value::Number;

use super::chance;
use super::database::Row;
use super::fail::Fail;
use super::rows::{Loaded, OperationData, OperationRow, refused_text};
use super::tenant::{About, Tenant, json, read};
use crate::{App, Kind, Operation, OperationState};

/// The part of a device's last report that is about an app, and when it came.
pub fn reported(
    tenant: &mut Tenant<'_>,
    app: AppId,
    device: DeviceId,
) -> Result<Option<(AppReport, i64)>, Fail> {
    let Some(heard) = tenant.heard(device)? else { return Ok(None) };
    let found = heard.report.apps.iter().find(|one| one.app == app);
    Ok(found.map(|app| (app.clone(), heard.seen)))
}

/// What would be lost if an app's device were lost now, which reported this then.
pub fn at_stake(report: &AppReport, seen: i64) -> AtStake {
    let age = (chance::now() - seen).max(0).unsigned_abs();
    // A volume that has nothing that waits loses nothing of what was there; one that no store ever told of has nothing safe.
    let oldest = |one: &orchestrator_api::wire::report::VolumeReport| {
        let age = one.replicated_age_ms?.0;
        Some(if one.backlog_bytes.0 == 0 { 0 } else { age })
    };
    let ages: Option<Vec<u64>> = report.volumes.iter().map(oldest).collect();
    let seconds = ages.map(|ages| (ages.into_iter().max().unwrap_or(0) + age).div_ceil(1000));
    AtStake {
        seconds: seconds.map(Number),
        bytes: Number(report.volumes.iter().map(|one| one.backlog_bytes.0).sum()),
        report_age_ms: Number(age),
    }
}

/// What is lost at most when the next device goes on: by the last report, and the time that the device may have gone on.
fn lost(tenant: &mut Tenant<'_>, app: AppId, device: DeviceId, leased: bool) -> Result<Lost, Fail> {
    let newest = reported(tenant, app, device)?;
    let stake = newest.as_ref().map(|(report, seen)| at_stake(report, *seen));
    let safe_age = newest.as_ref().and_then(|(report, _)| {
        report.volumes.iter().map(|one| one.replicated_age_ms.map(|age| age.0)).collect::<Option<Vec<_>>>()
    });
    let safe_age = safe_age.map(|ages| ages.into_iter().max().unwrap_or(0));
    // After its report the device may have written until the end of its lease, and no longer.
    let went_on =
        newest.as_ref().map(|(_, seen)| (chance::now() - seen).max(0).unsigned_abs().min(LEASE_END));
    let most = safe_age.zip(went_on).filter(|_| leased).map(|(safe, on)| Number((safe + on).div_ceil(1000)));
    Ok(Lost {
        lost_seconds_max: most,
        lost_bytes_known: stake.map_or(Number(0), |stake| stake.bytes),
        exact: None,
    })
}

/// What a result says beside what is decided by.
pub fn learn(
    tenant: &mut Tenant<'_>,
    loaded: &mut Loaded,
    app: AppId,
    device: DeviceId,
    operation: OperationId,
    result: &CommandResult,
) -> Result<(), Fail> {
    if let Some(beside) = loaded.operations.get_mut(&operation) {
        let to = beside.data.to.or(Some(device));
        beside.result = Some(Outcome {
            to,
            lost: beside.data.lost.clone(),
            data: result.data.clone(),
            ..Outcome::default()
        });
        beside.problem.clone_from(&result.problem);
    }
    let cuts = result.data.cuts.iter().map(|cut| (cut.name.as_str(), VolumeId(cut.volume.0)));
    learn_volumes(tenant, loaded, app, cuts.collect())?;
    if !result.data.seen.is_empty() {
        tenant.execute(
            "UPDATE app SET seen_heads = $3 WHERE account = $1 AND app = $2",
            &[app.0.into(), json(&result.data.seen).into()],
        )?;
    }
    Ok(())
}

/// A device that has, or had, an app's term says which volumes it has; those that the package names are the app's from now
/// on. Which one a name means does not change.
pub fn learn_volumes(
    tenant: &mut Tenant<'_>,
    loaded: &mut Loaded,
    id: AppId,
    told: Vec<(&str, VolumeId)>,
) -> Result<(), Fail> {
    let (Some(row), Some(app)) = (loaded.apps.get_mut(&id), loaded.hive.apps.get_mut(&id)) else {
        return Ok(());
    };
    for (name, volume) in &told {
        if row.volumes.get(*name) == Some(volume) {
            app.volumes.entry(*volume).or_default();
        }
    }
    if told.iter().all(|(name, _)| row.volumes.contains_key(*name)) {
        return Ok(());
    }
    let package = super::apps::package(tenant, id, row.revision)?;
    let mut learnt = false;
    for (name, volume) in told {
        let declared = package.volumes.iter().any(|one| one.name == name);
        if declared && !row.volumes.contains_key(name) {
            row.volumes.insert(name.to_owned(), volume);
            app.volumes.entry(volume).or_default();
            learnt = true;
        }
    }
    if learnt {
        app.lacks_volumes = package.volumes.iter().any(|one| !row.volumes.contains_key(&one.name));
        let volumes: BTreeMap<&String, Hex<32>> =
            row.volumes.iter().map(|(name, volume)| (name, Hex(volume.0))).collect();
        tenant.execute(
            "UPDATE app SET volumes = $3 WHERE account = $1 AND app = $2",
            &[id.0.into(), json(&volumes).into()],
        )?;
        tenant.changed("app", id);
    }
    Ok(())
}

/// Writes down the pseudonyms that a device has in an app's volumes.
pub fn keep_writers(
    tenant: &mut Tenant<'_>,
    app: AppId,
    device: DeviceId,
    writers: &BTreeMap<VolumeId, Writer>,
) -> Result<(), Fail> {
    let text: BTreeMap<Hex<32>, Hex<16>> =
        writers.iter().map(|(volume, writer)| (Hex(volume.0), Hex(writer.0))).collect();
    tenant.execute(
        "INSERT INTO device_app (account, app, device, term, phase, live, writers, branches) \
         VALUES ($1, $2, $3, NULL, NULL, 0, $4, NULL) \
         ON CONFLICT (account, app, device) DO UPDATE SET writers = excluded.writers",
        &[app.0.into(), device.0.into(), json(&text).into()],
    )?;
    Ok(())
}

/// Adds the pseudonyms of a device that stands by.
pub fn add_writers(
    tenant: &mut Tenant<'_>,
    app: AppId,
    device: DeviceId,
    writers: &[WriterAt],
) -> Result<(), Fail> {
    let sql = "SELECT writers FROM device_app WHERE account = $1 AND app = $2 AND device = $3";
    let mut all: BTreeMap<Hex<32>, Hex<16>> = match tenant.one(sql, &[app.0.into(), device.0.into()])? {
        Some(row) => read(row.text(0)?)?,
        None => BTreeMap::new(),
    };
    all.extend(writers.iter().map(|one| (one.volume, one.writer)));
    let all = all.into_iter().map(|(volume, writer)| (VolumeId(volume.0), Writer(writer.0))).collect();
    keep_writers(tenant, app, device, &all)
}

/// What is told when an operation ended.
pub fn close(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    operation: &Operation,
    beside: &mut OperationRow,
    app: Option<&App>,
) -> Result<(), Fail> {
    let device = app.and_then(|app| app.placement.device);
    let about = About {
        app: Some(operation.app),
        device,
        operation: Some(id),
        term: app.map(|app| app.placement.term),
        ..About::default()
    };
    let mut result = beside.result.take().unwrap_or_default();
    result.to = device.or(beside.data.to);
    // Who goes on with what he has loses nothing.
    result.lost = beside.data.lost.clone().filter(|_| result.to != beside.data.from);
    // Who was away may have been back, and have told all, before the app ran again.
    let mut told = None;
    if let (OperationState::Done, Some(lost), Some(from)) =
        (operation.state, &mut result.lost, beside.data.from)
        && let Some((report, _)) = reported(tenant, operation.app, from)?
        && app.is_some_and(|app| report.term < app.placement.term)
        && let Some((exact, settled)) = exact(&report, &beside.data.kept)
    {
        (lost.exact, beside.data.settled, told) = (Some(exact), settled, Some((from, exact)));
    }
    let most = result.lost.as_ref().and_then(|lost| lost.lost_seconds_max).map(|most| most.0);
    beside.result = Some(result);
    let (from, to) = (beside.data.from.map(|id| id.to_string()), device.map(|id| id.to_string()));
    match operation.state {
        OperationState::Done => {
            let (kind, about) = match operation.kind {
                Kind::Move | Kind::Force { .. } => {
                    ("moved", about.with("from", from).with("to", to).with("lost_seconds_max", most))
                }
                Kind::Failover if beside.data.from != device => {
                    ("failed_over", about.with("from", from).with("to", to).with("lost_seconds_max", most))
                }
                _ => ("finished", about.with("do", beside.kind.as_str())),
            };
            tenant.event(kind, about);
        }
        OperationState::Failed(refused) => {
            let about = about.with("do", beside.kind.as_str()).with("code", refused_text(refused));
            tenant.event("failed", about);
        }
        OperationState::Lost | OperationState::Running => {}
    }
    if let Some((from, exact)) = told {
        tell_loss(tenant, operation.app, from, id, exact);
    }
    Ok(())
}

/// What is kept of a loss from its beginning on: the most that can be lost, and what the device kept of earlier ones.
pub fn begin(
    tenant: &mut Tenant<'_>,
    beside: &mut OperationRow,
    app: AppId,
    device: DeviceId,
    leased: bool,
) -> Result<(), Fail> {
    beside.data.lost = Some(lost(tenant, app, device, leased)?);
    let sql = "SELECT branches FROM device_app WHERE account = $1 AND app = $2 AND device = $3";
    let row = tenant.one(sql, &[app.0.into(), device.0.into()])?;
    let kept = row.as_ref().map(|row| row.maybe(0, Row::text)).transpose()?.flatten();
    let kept: Vec<Branch> = kept.map(read).transpose()?.unwrap_or_default();
    beside.data.kept = kept.into_iter().map(|one| (one.volume, one.name.as_str().to_owned())).collect();
    Ok(())
}

/// What a device that returned says of a loss: of its branches, those that it did not have before. None while it says
/// nothing of it; and whether that is all, or it still takes its volumes apart.
fn exact(app: &AppReport, kept: &BTreeSet<(Hex<32>, String)>) -> Option<(Exact, bool)> {
    let is_new = |one: &&Branch| !kept.contains(&(one.volume, one.name.as_str().to_owned()));
    let left: Vec<&Branch> = app.branches.iter().filter(is_new).collect();
    let whole = app.phase == Phase::StandingBy;
    let exact = Exact {
        seconds: Number(left.iter().map(|one| one.span_ms.0.div_ceil(1000)).max().unwrap_or(0)),
        bytes: Number(left.iter().map(|one| one.bytes.0).sum()),
    };
    (whole || !left.is_empty()).then_some((exact, whole))
}

/// Losses of an app that are looked through for the one that a device tells of.
const LOSSES_MAX: u64 = 20;

/// A device that returned says what was lost: exact figures take the place of the estimate, and stay when it has told all.
pub fn returned(tenant: &mut Tenant<'_>, device: DeviceId, app: &AppReport) -> Result<(), Fail> {
    if app.branches.is_empty() && app.phase != Phase::StandingBy {
        return Ok(());
    }
    let sql = "SELECT operation, data, result FROM operation WHERE account = $1 AND app = $2 AND state = 'done' \
         AND kind IN ('move_forced', 'failover') ORDER BY number DESC LIMIT $3";
    for row in tenant.query(sql, &[app.app.0.into(), LOSSES_MAX.into()])? {
        let data: OperationData = read(row.text(1)?)?;
        let result: Option<Outcome> = row.maybe(2, Row::text)?.map(read).transpose()?;
        let lost = result.as_ref().and_then(|result| result.lost.as_ref());
        let (Some(lost), true) = (lost, data.from == Some(device)) else { continue };
        // The last one from this device: what went before it was told before.
        let told = exact(app, &data.kept).filter(|_| !data.settled);
        let Some((exact, settled)) = told else { return Ok(()) };
        let known = lost.exact == Some(exact);
        let id = OperationId(row.id(0)?);
        let lost = Some(Lost { exact: Some(exact), ..lost.clone() });
        let data = OperationData { settled, ..data };
        tenant.execute(
            "UPDATE operation SET data = $3, result = $4 WHERE account = $1 AND operation = $2",
            &[id.0.into(), json(&data).into(), json(&result.map(|it| Outcome { lost, ..it })).into()],
        )?;
        if !known {
            tell_loss(tenant, app.app, device, id, exact);
        }
        return Ok(());
    }
    Ok(())
}

fn tell_loss(tenant: &mut Tenant<'_>, app: AppId, device: DeviceId, operation: OperationId, exact: Exact) {
    let about =
        About { app: Some(app), device: Some(device), operation: Some(operation), ..About::default() };
    tenant.event("loss_known", about.with("seconds", exact.seconds.0).with("bytes", exact.bytes.0));
    tenant.changed("operation", operation);
}
