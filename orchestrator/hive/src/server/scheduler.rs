//! Who counts time: one process looks every second, or sooner when something is due.
//!
//! Invariant
//! - What cannot be read of one account stops nothing of another.

#[cfg(test)]
pub(super) mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_api::ids::{AppId, DeviceId, OperationId, Renewals, SessionId, Term};
use orchestrator_api::package::Authorization;
use orchestrator_api::report::AppReport;
use orchestrator_api::text::Uuid;
use orchestrator_api::times::{FRESH, WATCH_EVERY};
use tokio::time::Instant;

use super::apps::{self, Target};
use super::database::{Database, DbError, How, Row, Tx};
use super::fail::Fail;
use super::notify::Outbox;
use super::outcome;
use super::rows::{self, ALONE, Life, Loaded, OperationData, PhaseColumn};
use super::standby::{self, Looked};
use super::tasks::{self, Task};
use super::tenant::{AccountId, Tenant, Told, Wake, read};
use super::{Shared, backup, chance, drain, notify, recovery, removal, rollout};
use crate::{App, Device, Hive, Kind, Look, Operation, OperationState, Placement, Scheduler, decide};

/// How often what the hive goes on with by itself is looked at.
const SLOW_EVERY: Duration = Duration::from_secs(3);
/// How often old rows are removed, and it is seen whether a backup is due.
const CLEAN_EVERY: Duration = Duration::from_secs(3600);
/// How often trouble is looked for.
const TROUBLE_EVERY: Duration = Duration::from_secs(20);
/// Figures of a device that is not heard any more.
const FIGURES_KEPT_MS: i64 = 32 * 86_400_000;
const RESULTS_KEPT_MS: i64 = 7 * 86_400_000;
/// Operations of an account that have ended, the newest.
const OPERATIONS_KEPT: i64 = 10_000;
/// Sooner than this it does not look again, whatever is due.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until the hive closes.
pub async fn run(shared: Arc<Shared>) {
    let mut schedulers: BTreeMap<AccountId, Scheduler> = BTreeMap::new();
    let begun = Instant::now();
    let (mut slow, mut clean, mut night) = (begun, begun + Duration::from_secs(60), begun);
    let mut trouble = begun + TROUBLE_EVERY;
    let (mut looked, mut outbox) = (Looked::default(), Outbox::default());
    let mut leads = false;
    while !shared.is_closing() {
        match look(&shared, &mut schedulers, begun).await {
            Ok(()) => leads = true,
            Err(Fail::Db(DbError::NotLeader)) => {
                leads = false;
                schedulers.clear();
            }
            Err(fail) => {
                tracing::warn!(%fail, "the scheduler could not look");
                // What was not seen is not counted: after a gap every watch begins anew by itself.
            }
        }
        if leads && Instant::now() >= slow {
            slow = Instant::now() + SLOW_EVERY;
            for (done, what) in [
                (drain::go_on(&shared.database).await, "devices could not be emptied"),
                (
                    standby::choose(&shared.database, &mut looked).await,
                    "no device could be asked to stand by",
                ),
                (
                    tasks::leave_revoked(&shared.database).await,
                    "apps could not be moved away from devices that were revoked",
                ),
                (rollout::go_on(&shared.database).await, "releases could not be brought to devices"),
            ] {
                told(done.map(|told| shared.deliver(told)), what);
            }
        }
        if leads && Instant::now() >= trouble {
            trouble = Instant::now() + TROUBLE_EVERY;
            told(
                notify::look(&shared, &mut outbox).await.map(|told| shared.deliver(told)),
                "trouble could not be looked for",
            );
        }
        if leads && Instant::now() >= clean {
            clean = Instant::now() + CLEAN_EVERY;
            told(clean_up(&shared).await, "old rows could not be removed");
        }
        if let Some(folder) = shared.backups.as_ref().filter(|_| leads && Instant::now() >= night) {
            night = Instant::now() + CLEAN_EVERY;
            told(backup::nightly(&shared.database, folder).await, "the backup of the night failed");
        }
        tokio::time::sleep(PAUSE).await;
        let rest = Duration::from_millis(WATCH_EVERY) - PAUSE;
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = shared.nudge.notified() => {}
            () = shared.closed() => {}
        }
    }
}

/// All accounts.
pub fn accounts(database: &Database) -> impl Future<Output = Result<Vec<AccountId>, Fail>> {
    database.transact(How::Read, |tx| {
        let rows = tx.query("SELECT account FROM account", &[])?;
        Ok(rows.iter().map(|row| row.id(0)).collect::<Result<_, _>>()?)
    })
}

/// Does something for each of these, in a transaction of its own: nobody else who writes waits for all of them, and where
/// rows of one account cannot be read, the others are gone on with. What is to be told of it, and what came of each.
pub async fn each<T: Send + 'static, R: Send + 'static>(
    database: &Database,
    all: impl IntoIterator<Item = (AccountId, T)>,
    what: &str,
    work: impl Fn(&mut Tenant<'_>, &T) -> Result<R, Fail> + Clone + Send + 'static,
) -> (Told, Vec<R>) {
    let (mut told, mut done) = (Told::default(), Vec::new());
    for (account, one) in all {
        let work = work.clone();
        let alone = move |tx: &mut dyn Tx| {
            let mut tenant = Tenant::new(tx, account);
            tenant.alone()?;
            let done = work(&mut tenant, &one)?;
            Ok((tenant.end()?, done))
        };
        match database.transact(How::Lead, alone).await {
            Ok((more, came)) => {
                told.extend(more);
                done.push(came);
            }
            Err(fail) => {
                tracing::warn!(account = %Uuid(account), %fail, "{what}");
                // Nobody else would be answered otherwise.
                if matches!(fail, Fail::Db(DbError::NotLeader | DbError::Away(_))) {
                    break;
                }
            }
        }
    }
    (told, done)
}

fn told(done: Result<(), Fail>, what: &str) {
    if let Err(fail) = done {
        tracing::warn!(%fail, "{what}");
    }
}

/// What an app is started with.
const PACKAGE: &str = "SELECT p.authorization_json FROM app a JOIN package p ON p.account = a.account AND p.app = a.app \
     AND p.revision = a.revision WHERE a.account = $1 AND a.app = $2";

/// Devices of all accounts.
const DEVICES: &str = "SELECT account, device, state, session, renewals FROM device";

/// Apps of which nothing can be due are not read: those that run as they should without a lease. A lease without a
/// device is that of one that was revoked.
const APPS: &str = "SELECT a.account, a.app, a.policy, a.wanted, a.device, a.term, a.leased, a.renewed, a.withdrawn, \
         a.forgotten, d.term, d.phase FROM app a LEFT JOIN device_app d ON d.account = a.account AND d.app = a.app \
         AND d.device = a.device WHERE a.leased = 1 OR (a.device IS NOT NULL AND (a.forgotten = 1 \
         OR (a.wanted = 1 AND (d.live IS NULL OR d.live = 0)) OR (a.wanted = 0 AND d.live = 1)))";

/// Who takes part is asked only of what need not wait for a device that is silent.
const OPERATIONS: &str = "SELECT account, operation, app, kind, step, count, \
         CASE WHEN kind IN ('start', 'move', 'move_forced', 'failover', 'remove') THEN data ELSE '{}' END \
         FROM operation WHERE state = 'running' AND app IS NOT NULL";

/// Adds what a row says to what is known of its account.
type Take = fn(&mut dyn Tx, &mut Hive, &Row) -> Result<(), Fail>;

/// What the scheduler looks at of all accounts.
fn state(tx: &mut dyn Tx) -> Result<BTreeMap<AccountId, Hive>, Fail> {
    let sql = format!(
        "SELECT {}, a.account FROM account a CROSS JOIN hive h LEFT JOIN life l ON l.account = a.account \
         WHERE h.id = 1",
        rows::LIFE
    );
    let mut all: BTreeMap<AccountId, Hive> = BTreeMap::new();
    for row in tx.query(&sql, &[])? {
        all.insert(row.id(4)?, Life::of(&row, 0)?.hive());
    }
    let (devices, apps) = (tx.query(DEVICES, &[])?, tx.query(APPS, &[])?);
    let operations = tx.query(&format!("{OPERATIONS} AND {ALONE}"), &[])?;
    let mut broken = BTreeMap::new();
    let takes: [(Vec<Row>, Take); 3] =
        [(devices, take_device), (apps, take_app), (operations, take_operation)];
    for (rows, take) in takes {
        for row in rows {
            let account = row.id::<16>(0)?;
            let Some(hive) = all.get_mut(&account) else { continue };
            match take(tx, hive, &row) {
                Ok(()) => {}
                Err(Fail::Db(DbError::Broken(why))) => {
                    broken.entry(account).or_insert(why);
                }
                Err(other) => return Err(other),
            }
        }
    }
    for (account, why) in &broken {
        tracing::error!(account = %Uuid(*account), %why, "nothing of an account is watched: its rows cannot be read");
    }
    // Of an account that is not known whole, nothing is decided.
    all.retain(|account, hive| !hive.devices.is_empty() && !broken.contains_key(account));
    Ok(all)
}

fn take_device(_: &mut dyn Tx, hive: &mut Hive, row: &Row) -> Result<(), Fail> {
    let device = Device {
        state: rows::device_state(row.text(2)?),
        session: row.maybe(3, Row::id::<16>)?.map(SessionId),
        renewals: Renewals(row.count(4)?),
        ..Device::default()
    };
    hive.devices.insert(DeviceId(row.id(1)?), device);
    Ok(())
}

fn take_app(_: &mut dyn Tx, hive: &mut Hive, row: &Row) -> Result<(), Fail> {
    let (app, device) = (AppId(row.id(1)?), row.maybe(4, Row::id::<16>)?.map(DeviceId));
    let placement = Placement {
        device,
        term: Term(row.count(5)?),
        leased: row.flag(6)?,
        renewed: row.maybe(7, Row::count)?.map(Renewals),
        withdrawn: row.flag(8)?,
        forgotten: row.flag(9)?,
    };
    if let (Some(term), Some(phase)) = (row.maybe(10, Row::count)?, row.maybe(11, Row::text)?) {
        let phase: PhaseColumn = read(phase)?;
        let report = AppReport { term: Term(term), phase: phase.phase(), volumes: BTreeMap::new() };
        if let Some(device) = device.and_then(|device| hive.devices.get_mut(&device)) {
            device.apps.insert(app, report);
        }
    }
    let policy = match row.text(2)? {
        "auto" => orchestrator_api::placement::Policy::Auto,
        _ => orchestrator_api::placement::Policy::Manual,
    };
    let row = App {
        policy,
        wanted: row.flag(3)?,
        generation: Default::default(),
        devices: Default::default(),
        volumes: BTreeMap::new(),
        lacks_volumes: false,
        placement,
        problem: None,
    };
    hive.apps.insert(app, row);
    Ok(())
}

fn take_operation(tx: &mut dyn Tx, hive: &mut Hive, row: &Row) -> Result<(), Fail> {
    let data: OperationData = read(row.text(6)?)?;
    let app = AppId(row.id(2)?);
    if row.text(4)? == "start" {
        let account = row.id::<16>(0)?;
        let package = tx.query(PACKAGE, &[account.into(), app.0.into()])?;
        if let Some(package) = package.first() {
            let package = Authorization::parse(package.bytes(0)?)
                .map_err(|error| DbError::Broken(format!("a package: {error}")))?;
            hive.gates.insert(app, u64::from(package.health_seconds) * 1_000);
        }
    }
    let operation = Operation {
        app,
        kind: rows::kind(row.text(3)?, &data),
        step: rows::step(row.text(4)?),
        count: row.count(5)?,
        // A removal is the one task that goes on without whom it waits for.
        waits: data.waits.filter(|_| matches!(data.task, Some(Task::Remove(_)))),
        from: data.from,
        to: data.to,
        heads: None,
        rollback_to: BTreeMap::new(),
        tried: Default::default(),
        reason: None,
        state: OperationState::Running,
    };
    hive.operations.insert(OperationId(row.id(1)?), operation);
    Ok(())
}

async fn look(
    shared: &Arc<Shared>,
    schedulers: &mut BTreeMap<AccountId, Scheduler>,
    begun: Instant,
) -> Result<(), Fail> {
    // Where there is one process it leads, and what it looks at need not wait for what is being written.
    let how = if shared.database.has_several() { How::Lead } else { How::Read };
    let all = shared.database.transact(how, state).await?;
    let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    schedulers.retain(|account, _| all.contains_key(account));
    let mut due = Vec::new();
    for (account, hive) in &all {
        let looks = schedulers.entry(*account).or_default().look(hive, now);
        due.extend(looks.into_iter().map(|look| (*account, look)));
    }
    for (account, look) in due {
        match one(shared, account, look).await {
            Ok(()) => {}
            Err(Fail::Db(DbError::Broken(why))) => {
                tracing::error!(account = %Uuid(account), %why, "what was due cannot be done: its rows cannot be read");
            }
            Err(Fail::Db(error)) => return Err(Fail::Db(error)),
            // What is not there any more, or not as it was, is looked at again.
            Err(fail) => tracing::debug!(%fail, "what was due is not any more"),
        }
    }
    Ok(())
}

async fn one(shared: &Arc<Shared>, account: AccountId, look: Look) -> Result<(), Fail> {
    let mut told = shared
        .database
        .transact(How::Lead, move |tx| {
            let mut tenant = Tenant::new(tx, account);
            tenant.alone()?;
            let id = OperationId(chance::uuid().0);
            if let Look::Silent(operation, count, device, heard) = &look
                && removal::go_on_without(&mut tenant, *operation, (*device, *count, *heard))?
            {
                return tenant.end();
            }
            // What its device said of an update last is known before another one starts the app.
            let is_behind = match &look {
                Look::End(app, ..) => !apps::catch_up(&mut tenant, *app)?,
                _ => false,
            };
            let loaded = match &look {
                Look::Check(operation, _) | Look::Late(operation, _) | Look::Silent(operation, ..) => {
                    Loaded::operation(&mut tenant, *operation)?
                }
                Look::End(app, ..) | Look::Stop(app) => Some(Loaded::app(&mut tenant, *app)?),
                Look::Recovered => {
                    recovery::end(&mut tenant)?;
                    return tenant.end();
                }
            };
            let Some(mut loaded) = loaded else { return Ok(tenant.told) };
            if let Look::Check(operation, fresh) = &look
                && may_report(&mut tenant, &loaded, *operation, fresh)?
            {
                return Ok(tenant.told);
            }
            let look = match look.clone() {
                Look::End(app, term, seen, _) if is_behind => Look::End(app, term, seen, BTreeSet::new()),
                Look::End(app, term, seen, fresh) => {
                    Look::End(app, term, seen, able(&mut tenant, app, fresh)?)
                }
                Look::Check(operation, fresh) => match loaded.hive.operations.get(&operation) {
                    Some(it) if it.kind == Kind::Failover => {
                        Look::Check(operation, able(&mut tenant, it.app, fresh)?)
                    }
                    _ => Look::Check(operation, fresh),
                },
                look => look,
            };
            let ended = match &look {
                Look::End(app, ..) => loaded.hive.apps.get(app).map(|row| (*app, row.placement.clone())),
                _ => None,
            };
            decide(&mut loaded.hive, look.clone().event(id));
            if let Look::Silent(operation, ..) = &look
                && !loaded.hive.is_running(*operation)
            {
                tasks::forget_commands(&mut tenant, *operation)?;
            }
            let failover = loaded.hive.operations.get(&id).is_some_and(|it| it.kind == Kind::Failover);
            if let (true, Some((app, placement))) = (failover, ended)
                && let Some(device) = placement.device
            {
                let beside = loaded.operations.entry(id).or_default();
                outcome::begin(&mut tenant, beside, app, device, placement.leased)?;
            }
            loaded.save(&mut tenant)?;
            tenant.end()
        })
        .await?;
    told.wakes.remove(&Wake::Scheduler);
    shared.deliver(told);
    Ok(())
}

/// Those of the devices that may take an app, by the same list as the target of a move: who is locked, does not reach its
/// store or may not start it any more is asked by no failover.
fn able(tenant: &mut Tenant<'_>, app: AppId, fresh: BTreeSet<DeviceId>) -> Result<BTreeSet<DeviceId>, Fail> {
    let seen = apps::seen(tenant, app)?;
    let package = apps::package(tenant, app, seen.revision.0)?;
    let mut able = BTreeSet::new();
    for device in fresh {
        let target = Target { device, package: &package, stores: &seen.stores, bytes: None };
        match apps::check_target(tenant, &target) {
            Ok(()) => {
                able.insert(device);
            }
            Err(Fail::Api(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(able)
}

/// Whether a device that an operation needs reported lately, though not twice since the scheduler looks: it is waited
/// for, and not called silent.
fn may_report(
    tenant: &mut Tenant<'_>,
    loaded: &Loaded,
    operation: OperationId,
    fresh: &BTreeSet<DeviceId>,
) -> Result<bool, Fail> {
    let Some(operation) = loaded.hive.operations.get(&operation) else { return Ok(false) };
    let placed = loaded.hive.apps.get(&operation.app).and_then(|app| app.placement.device);
    let source = placed.filter(|_| operation.kind == Kind::Move);
    for device in [operation.to.or(placed), source].into_iter().flatten() {
        let sql = "SELECT seen FROM device WHERE account = $1 AND device = $2";
        let row = tenant.one(sql, &[device.0.into()])?;
        let seen = row.map(|row| row.maybe(0, Row::int)).transpose()?.flatten();
        let lately = seen.is_some_and(|seen| chance::now() - seen < FRESH as i64);
        if !fresh.contains(&device) && lately {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what nobody asks for any more.
async fn clean_up(shared: &Arc<Shared>) -> Result<(), Fail> {
    let work = |tx: &mut dyn Tx| {
        let now = chance::now();
        tx.execute("DELETE FROM idempotency WHERE ends <= $1", &[now.into()])?;
        tx.execute("DELETE FROM token WHERE ends <= $1", &[now.into()])?;
        tx.execute("DELETE FROM invite WHERE ends <= $1", &[now.into()])?;
        tx.execute("DELETE FROM session WHERE ends <= $1", &[now.into()])?;
        tx.execute("DELETE FROM samples WHERE at <= $1", &[(now - FIGURES_KEPT_MS).into()])?;
        tx.execute(
            "DELETE FROM command WHERE result IS NOT NULL AND at <= $1",
            &[(now - RESULTS_KEPT_MS).into()],
        )?;
        for row in tx.query("SELECT account FROM account", &[])? {
            let account: AccountId = row.id(0)?;
            let newest = "SELECT number FROM operation WHERE account = $1 AND state <> 'running' \
                 ORDER BY number DESC LIMIT 1 OFFSET $2";
            let Some(last) = tx.query(newest, &[account.into(), OPERATIONS_KEPT.into()])?.pop() else {
                continue;
            };
            tx.execute(
                "DELETE FROM operation WHERE account = $1 AND state <> 'running' AND number <= $2",
                &[account.into(), last.int(0)?.into()],
            )?;
        }
        Ok(())
    };
    shared.database.transact(How::Lead, work).await
}

#[cfg(test)]
mod tests {
    use super::super::database::Value;
    use super::stage::Stage;
    use super::*;

    /// A row that no comb of this version wrote.
    #[tokio::test]
    async fn what_cannot_be_read_of_one_account_stops_nothing_of_another() {
        let (broken, well): (AccountId, AccountId) = ([1; 16], [2; 16]);
        let stage = Stage::with(&[broken, well]).await;
        let phase = r#"{"phase":"standing_by","why":null,"problem":null,"health":null}"#;
        for (account, phase) in [(broken, "{"), (well, phase)] {
            let (device, app) = ([account[0] + 10; 16], [account[0] + 20; 16]);
            let own: [(&str, Value); 2] = [("account", account.into()), ("device", device.into())];
            stage.put("device", &own).await;
            let placed = [("app", app.into()), ("wanted", true.into()), ("term", 1_i64.into())];
            stage.put("app", &[&own[..], &placed].concat()).await;
            let told = [("app", app.into()), ("term", 1_i64.into()), ("phase", phase.into())];
            stage.put("device_app", &[&own[..], &told].concat()).await;
        }
        let seen = stage.transact(|tx| state(tx)).await;
        assert_eq!(seen.keys().collect::<Vec<_>>(), [&well]);
        assert_eq!(seen[&well].apps.len(), 1);
    }
}
