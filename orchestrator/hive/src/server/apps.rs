//! Apps: how people see them, and what they order.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::error::Code;
use orchestrator_api::ids::{AppId, DeviceId, Generation, OperationId, Term};
use orchestrator_api::package::{Authorization, Devices};
use orchestrator_api::placement::{Policy, Problem};
use orchestrator_api::text::{Hex, Time, Uuid, is_domain};
use orchestrator_api::wire::account::Store;
use orchestrator_api::wire::app::{
    Action, ActionInput, AgedReport, App, AppProblem, AuthorApp, ChangeApp, Fork, Install, KeptBranch, Logs,
    MakeApp, Move, Plain, Restart, Restore, Rollback, RunAction, Service, Snapshot, Update, Volume, Wanted,
};
use orchestrator_api::wire::command::{Author, Data, Fork as ForkOrder, Order};
use orchestrator_api::wire::device::DeviceState;
use orchestrator_api::wire::people::Role;
use orchestrator_api::wire::report::{AppReport, Branch, DiskUse, Docker, Phase};
use orchestrator_api::wire::value::{List, Number, Page};

use super::call::{Call, Reply};
use super::chance;
use super::database::Row;
use super::devices;
use super::fail::Fail;
use super::operations;
use super::outcome;
use super::removal::{self, Removal};
use super::rows::{self, ALONE, Loaded};
use super::standby;
use super::stores;
use super::tasks::{self, Task};
use super::tenant::{About, Tenant, Wake, json, read};
use crate::{Answer, Event, Kind, Refused, Wish, decide};

const APPS_MAX: u64 = 20_000;
const ON_A_DEVICE_MAX: usize = 200;
/// What must be free beside an app's volumes.
const ROOM: u64 = 1 << 30;
const SEAL_EVERY_S: u64 = 15;

const SEEN: &str = "SELECT a.app, a.name, a.revision, a.policy, a.wanted, a.generation, a.standby, a.stores, \
     a.seal_every_s, a.volumes, a.problem, a.device, a.term, p.authorization_json FROM app a \
     JOIN package p ON p.account = a.account AND p.app = a.app AND p.revision = a.revision WHERE a.account = $1";

fn package_of(bytes: &[u8]) -> Result<Authorization, Fail> {
    Authorization::parse(bytes).map_err(|error| Fail::start(format!("a package: {error}")))
}

fn view(tenant: &mut Tenant<'_>, row: &Row) -> Result<App, Fail> {
    let id = AppId(row.id(0)?);
    let package = package_of(row.bytes(13)?)?;
    let device = row.maybe(11, Row::id::<16>)?.map(DeviceId);
    let volumes: BTreeMap<String, Hex<32>> = read(row.text(9)?)?;
    let reported = match device {
        Some(device) => outcome::reported(tenant, id, device)?,
        None => None,
    };
    let at_stake = reported.as_ref().map(|(report, seen)| outcome::at_stake(report, *seen));
    let mut branches = Vec::new();
    let sql =
        "SELECT device, branches FROM device_app WHERE account = $1 AND app = $2 AND branches IS NOT NULL";
    for kept in tenant.query(sql, &[id.0.into()])? {
        let list: Vec<Branch> = read(kept.text(1)?)?;
        let device = DeviceId(kept.id(0)?);
        branches.extend(list.into_iter().map(|branch| KeptBranch { device, branch }));
    }
    let operation = busy(tenant, id)?;
    let runs = reported.as_ref().is_some_and(|(app, _)| app.phase == Phase::Running);
    let lonely = runs && row.text(3)? == "auto" && !standby::there_is(tenant, id)?;
    let own = row.maybe(10, Row::text)?.map(str::to_owned);
    let told = reported.as_ref().and_then(|(report, _)| report.problem.clone());
    let problem = match (told, own) {
        (Some(problem), _) => {
            Some(AppProblem { code: problem.code.text().to_owned(), device, problem: Some(problem) })
        }
        (None, Some(code)) => Some(AppProblem { code, device: None, problem: None }),
        (None, None) if lonely => {
            Some(AppProblem { code: "no_standby".to_owned(), device: None, problem: None })
        }
        (None, None) => None,
    };
    let inputs = |action: &orchestrator_api::package::ActionName| {
        action.input.iter().map(|one| ActionInput { name: one.name.clone(), kind: one.kind }).collect()
    };
    let age = |seen: i64| Number((chance::now() - seen).max(0).unsigned_abs());
    Ok(App {
        id,
        name: row.text(1)?.to_owned(),
        version: package.version.clone(),
        revision: Number(row.count(2)?),
        policy: if row.text(3)? == "auto" { Policy::Auto } else { Policy::Manual },
        wanted: if row.flag(4)? { Wanted::Running } else { Wanted::Stopped },
        domain: package.domain.clone(),
        device,
        term: Term(row.count(12)?),
        generation: Generation(row.count(5)?),
        standby: read(row.text(6)?)?,
        stores: read(row.text(7)?)?,
        seal_every_s: Number(row.count(8)?),
        address: reported.as_ref().and_then(|(app, _)| app.address.as_ref().map(|text| text.to_string())),
        report: reported.map(|(report, seen): (AppReport, i64)| AgedReport { age_ms: age(seen), report }),
        operation,
        at_stake,
        branches,
        problem,
        services: package
            .services
            .iter()
            .map(|one| Service {
                name: one.name.clone(),
                image: one.image.clone(),
                digest: one.digest.to_string(),
            })
            .collect(),
        volumes: package
            .volumes
            .iter()
            .map(|one| Volume { name: one.name.clone(), volume: volumes.get(&one.name).copied() })
            .collect(),
        actions: package
            .actions
            .iter()
            .map(|one| Action { name: one.name.clone(), service: one.service.clone(), input: inputs(one) })
            .collect(),
        permissions: package.permissions.iter().map(ToString::to_string).collect(),
    })
}

/// An app as people see it.
pub fn seen(tenant: &mut Tenant<'_>, id: AppId) -> Result<App, Fail> {
    let row = tenant.one(&format!("{SEEN} AND a.app = $2"), &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    view(tenant, &row)
}

/// `GET /v1/apps`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let limit = call.limit()?;
    let rows = match (call.query.get("name"), call.query_as::<AppId>("after")?) {
        (Some(name), _) => tenant.query(&format!("{SEEN} AND a.name = $2"), &[name.into()])?,
        (None, after) => {
            let after = match after {
                Some(id) => {
                    let sql = "SELECT name FROM app WHERE account = $1 AND app = $2";
                    tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?.text(0)?.to_owned()
                }
                None => String::new(),
            };
            let sql = format!("{SEEN} AND a.name > $2 ORDER BY a.name LIMIT $3");
            tenant.query(&sql, &[after.into(), (limit as u64).into()])?
        }
    };
    let items: Result<Vec<App>, Fail> = rows.iter().map(|row| view(tenant, row)).collect();
    let items = items?;
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.id.to_string());
    Ok(Reply::json(&Page { items, next }))
}

/// `GET /v1/apps/{id}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let app = seen(tenant, call.param(0)?)?;
    let generation = app.generation.0;
    Ok(Reply::json(&app).etag(generation))
}

/// What is being done with an app, beside what changes nothing of it.
fn busy(tenant: &mut Tenant<'_>, app: AppId) -> Result<Option<OperationId>, Fail> {
    let sql = "SELECT operation FROM operation WHERE account = $1 AND app = $2 AND state = 'running'";
    let row = tenant.one(&format!("{sql} AND {ALONE}"), &[app.0.into()])?;
    Ok(row.map(|row| row.id(0).map(OperationId)).transpose()?)
}

/// Whether something is being done with an app.
pub fn is_busy(tenant: &mut Tenant<'_>, app: AppId) -> Result<bool, Fail> {
    Ok(busy(tenant, app)?.is_some())
}

/// Refuses while something is being done with an app.
pub fn nothing_runs(tenant: &mut Tenant<'_>, app: AppId) -> Result<(), Fail> {
    match busy(tenant, app)? {
        Some(id) => Err(Fail::new(Code::OperationRunning, "something else is being done with this app")
            .hint(format!("`comb operation wait {id}` waits for it, `comb operation cancel {id}` ends it if it is not too late"))
            .detail("operation", id.to_string())),
        None => Ok(()),
    }
}

/// No device has the app.
pub fn nowhere() -> Fail {
    Fail::state("no device has this app").hint("`comb app start` gives it to one")
}

fn unprocessable(code: Code, text: impl Into<String>) -> Fail {
    Fail::new(code, text)
}

/// What a target must be, as far as the hive can know before anything is changed.
pub struct Target<'a> {
    /// The device.
    pub device: DeviceId,
    /// What is to run there.
    pub package: &'a Authorization,
    /// Its stores.
    pub stores: &'a [Uuid],
    /// What has to fit.
    pub bytes: Option<u64>,
}

/// Whether a device may take an app: the list of `failover.md`, section 7.
pub fn check_target(tenant: &mut Tenant<'_>, target: &Target<'_>) -> Result<(), Fail> {
    let device = devices::seen(tenant, target.device)?;
    let name = &device.name;
    if device.state == DeviceState::Revoked {
        return Err(unprocessable(Code::DeviceRevoked, format!("the device \"{name}\" was revoked"))
            .hint("choose another device"));
    }
    let row = devices::row(tenant, target.device)?;
    if row.text(2)? == "draining" {
        return Err(unprocessable(Code::DeviceDraining, format!("\"{name}\" is being emptied"))
            .hint("choose another device, or `comb device drain --undo` it"));
    }
    if device.locked {
        let error = unprocessable(Code::DeviceLocked, format!("\"{name}\" waits for its passphrase"));
        return Err(error.hint("`comb device unlock` on its machine asks for it"));
    }
    devices::online(tenant, target.device)?;
    let devices = &target.package.devices;
    if !devices.include(Uuid(target.device.0), device.accepts_authoring) {
        let error = match devices {
            Devices::Delegated => unprocessable(
                Code::DeviceNotAuthorized,
                format!("the hive installed this app, and \"{name}\" takes no apps from the hive"),
            ),
            _ => unprocessable(
                Code::DeviceNotAuthorized,
                format!("the owner did not name \"{name}\" as a device for this app"),
            ),
        };
        return Err(error.hint("`comb app update NAME --may-run-on DEVICE` signs it for that device too"));
    }
    if target.package.expires.is_some_and(|expires| expires <= Time(chance::now())) {
        return Err(unprocessable(Code::PackageExpired, "the package of this app expired")
            .hint("`comb app update` signs another one"));
    }
    if matches!(device.docker, Some(Docker::Stopped | Docker::Missing)) {
        return Err(unprocessable(Code::DockerAway, format!("Docker does not answer on \"{name}\""))
            .hint("start it there, or choose another device"));
    }
    let here = device.apps.iter().filter(|app| app.0 != target.package.app.0).count();
    if here >= ON_A_DEVICE_MAX {
        return Err(Fail::state(format!("\"{name}\" has 200 apps")));
    }
    if let Some(bytes) = target.bytes {
        let free = device.disks.iter().find(|disk| disk.what == DiskUse::State).map(|disk| disk.free_bytes.0);
        if let Some(free) = free.filter(|free| *free < bytes + ROOM) {
            return Err(unprocessable(
                Code::NoSpace,
                format!("\"{name}\" has {free} bytes free, and {} are needed", bytes + ROOM),
            )
            .hint("make room there, or choose another device")
            .detail("free_bytes", free)
            .detail("needed_bytes", bytes + ROOM));
        }
    }
    // A port above 1023 is given anew where it is taken; one below was promised.
    let wishes: Vec<u16> =
        target.package.ports.iter().filter_map(|port| port.wish).filter(|wish| *wish < 1024).collect();
    if !wishes.is_empty()
        && let Some(heard) = tenant.heard(target.device)?
    {
        let others = heard.report.apps.iter().filter(|app| app.app.0 != target.package.app.0);
        let taken = others
            .flat_map(|app| &app.ports)
            .find(|port| u16::try_from(port.given.0).is_ok_and(|given| wishes.contains(&given)));
        if let Some(port) = taken {
            return Err(unprocessable(
                Code::PortTaken,
                format!("port {} of \"{name}\" is another app's", port.given.0),
            )
            .hint("choose another device, or stop the other app")
            .detail("port", port.given.0));
        }
    }
    for id in target.stores {
        check_reach(&store(tenant, *id)?, target.device)?;
    }
    Ok(())
}

fn store(tenant: &mut Tenant<'_>, id: Uuid) -> Result<Store, Fail> {
    let sql = "SELECT url, shared, device FROM store WHERE account = $1 AND store = $2";
    let row = tenant.one(sql, &[id.0.into()])?.ok_or_else(Fail::not_found)?;
    Ok(Store {
        id,
        url: row.text(0)?.to_owned(),
        shared: row.flag(1)?,
        device: row.maybe(2, Row::id::<16>)?.map(DeviceId),
    })
}

/// A package of an app.
pub fn package(tenant: &mut Tenant<'_>, app: AppId, revision: u64) -> Result<Authorization, Fail> {
    let sql = "SELECT authorization_json FROM package WHERE account = $1 AND app = $2 AND revision = $3";
    let row = tenant.one(sql, &[app.0.into(), revision.into()])?.ok_or_else(|| {
        Fail::new(Code::NotFound, format!("revision {revision} of this app's package is not here"))
            .hint("post the package first")
    })?;
    package_of(row.bytes(0)?)
}

/// Whether a package of an app is here.
pub fn has_package(tenant: &mut Tenant<'_>, app: AppId, revision: u64) -> Result<bool, Fail> {
    let sql = "SELECT 1 FROM package WHERE account = $1 AND app = $2 AND revision = $3";
    Ok(tenant.one(sql, &[app.0.into(), revision.into()])?.is_some())
}

/// Takes over the revision that an app's device has, if its package is here; whether it is.
pub fn adopt(tenant: &mut Tenant<'_>, app: AppId, device: DeviceId, revision: u64) -> Result<bool, Fail> {
    let is_here = has_package(tenant, app, revision)?;
    if is_here {
        tenant.execute(
            "UPDATE app SET revision = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
            &[app.0.into(), revision.into()],
        )?;
        // A device keeps a later revision only when the update to it went well.
        rows::keep_update(tenant, app, None)?;
        let about = About { device: Some(device), ..About::app(app) };
        tenant.event("updated", about.with("revision", revision));
        tenant.changed("app", app);
    }
    Ok(is_here)
}

/// An app whose device last said that it has a later revision than the hive, which was restored, or did not hear of an update:
/// with that one. Without its package nothing is started on its data.
fn latest(tenant: &mut Tenant<'_>, app: App) -> Result<App, Fail> {
    let told = app.report.as_ref().map(|told| &told.report);
    let later = told.filter(|told| told.term == app.term && told.revision > app.revision);
    let (Some(later), Some(device)) = (later, app.device) else { return Ok(app) };
    let revision = later.revision.0;
    if adopt(tenant, app.id, device, revision)? {
        return seen(tenant, app.id);
    }
    let name = devices::seen(tenant, device)?.name;
    Err(Fail::state(format!(
        "\"{}\" has revision {revision} on \"{name}\", and the hive has {}: an older one is not started on its data",
        app.name, app.revision.0
    ))
    .hint(format!("see that \"{name}\" reaches the hive: it brings the package when its daemon is started again")))
}

/// Takes over what an app's device last said of its revision, where that can be; whether the hive has it now.
pub fn catch_up(tenant: &mut Tenant<'_>, app: AppId) -> Result<bool, Fail> {
    let app = seen(tenant, app)?;
    match latest(tenant, app) {
        Ok(_) => Ok(true),
        Err(Fail::Api(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// `POST /v1/apps`.
pub fn make(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: MakeApp = call.read()?;
    let operation = add(tenant, &wish)?;
    operations::ordered(tenant, operation, None, Some(wish.app))
}

/// Refuses what cannot be the stores of an app; where its device is known already, also what that one does not reach.
fn check_stores(tenant: &mut Tenant<'_>, ids: &[Uuid], device: Option<DeviceId>) -> Result<(), Fail> {
    if ids.is_empty() {
        return Err(Fail::field("stores", "an app has 1 to 8 stores, of which the first arbitrates"));
    }
    for (at, id) in ids.iter().enumerate() {
        let store = store(tenant, *id)?;
        if at == 0 && !stores::arbitrates(&store.url) {
            return Err(unprocessable(
                Code::StoreCannotArbitrate,
                format!("{} can hold copies, and cannot say who writes", store.url),
            )
            .hint("put an s3, gs or file store first"));
        }
        if let Some(device) = device {
            check_reach(&store, device)?;
        }
    }
    Ok(())
}

/// Refuses a folder of one device for another one.
fn check_reach(store: &Store, device: DeviceId) -> Result<(), Fail> {
    if store.is_of_one_device() && store.device.is_some_and(|it| it != device) {
        return Err(unprocessable(
            Code::StoreIsLocal,
            format!("the store {} is a folder on another device", store.url),
        )
        .hint("`comb hive` keeps it as shared if each device sees the same folder"));
    }
    Ok(())
}

/// Makes an app of a package that is here; the operation that starts it.
fn add(tenant: &mut Tenant<'_>, wish: &MakeApp) -> Result<OperationId, Fail> {
    let package = package(tenant, wish.app, wish.revision.0)?;
    check_stores(tenant, &wish.stores, None)?;
    let target = |device| Target { device, package: &package, stores: &wish.stores, bytes: None };
    let device = match wish.device {
        Some(device) => {
            check_target(tenant, &target(device))?;
            device
        }
        None => choose(tenant, &package, &wish.stores, &BTreeSet::new(), None)?,
    };
    let count = tenant.one("SELECT count(*) FROM app WHERE account = $1", &[])?;
    if count.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= APPS_MAX {
        return Err(Fail::state("the account has 20,000 apps"));
    }
    // Said before anything is written: where it is a device's answer that adds the app, the rest of that is to stand.
    free_name(tenant, &package.name)?;
    let stores = wish.stores.to_vec();
    insert(tenant, wish.app, &package.name, wish.revision.0, wish.policy, &stores, Some(device))?;
    tenant.event("app_added", About { device: Some(device), ..About::app(wish.app) });
    match wish.start {
        true => order(tenant, Wish { app: wish.app, kind: Kind::Start, to: Some(device) }, None),
        false => tasks::done(tenant, "add", Some(wish.app), Some(device)),
    }
}

/// A device sealed the package of an app that is to be made of it; why that cannot be.
pub fn authored(
    tenant: &mut Tenant<'_>,
    app: AppId,
    device: DeviceId,
    install: &Install,
    data: &Data,
) -> Result<Option<Refused>, Fail> {
    let wish = MakeApp {
        app,
        revision: data.revision.unwrap_or(Number(1)),
        device: Some(device),
        policy: install.policy,
        stores: install.stores.clone(),
        start: install.start,
    };
    match add(tenant, &wish) {
        Ok(_) => Ok(None),
        Err(Fail::Api(error)) => Ok(Some(rows::refused(error.code.text()))),
        Err(other) => Err(other),
    }
}

fn insert(
    tenant: &mut Tenant<'_>,
    app: AppId,
    name: &str,
    revision: u64,
    policy: Policy,
    stores: &[Uuid],
    device: Option<DeviceId>,
) -> Result<(), Fail> {
    let made = tenant.execute(
        "INSERT INTO app (account, app, name, revision, policy, wanted, generation, standby, stores, seal_every_s, \
         volumes, known, problem, device, term, leased, renewed, withdrawn, forgotten, seen_heads) \
         VALUES ($1, $2, $3, $4, $5, 0, 1, '[]', $6, $7, '{}', '{}', NULL, $8, 0, 0, NULL, 0, 0, NULL)",
        &[
            app.0.into(),
            name.into(),
            revision.into(),
            rows::policy_text(policy).into(),
            json(&stores).into(),
            SEAL_EVERY_S.into(),
            device.map(|id| id.0).into(),
        ],
    );
    made.map_err(|error| Fail::from(error).taken("there is an app of that id or name already"))?;
    tenant.changed("app", app);
    Ok(())
}

/// The device that may take an app and has most free memory.
pub fn choose(
    tenant: &mut Tenant<'_>,
    package: &Authorization,
    stores: &[Uuid],
    without: &BTreeSet<DeviceId>,
    bytes: Option<u64>,
) -> Result<DeviceId, Fail> {
    let sql = "SELECT device FROM device WHERE account = $1 AND state = 'active' ORDER BY name";
    let ids: Vec<DeviceId> =
        tenant.query(sql, &[])?.iter().map(|row| row.id(0).map(DeviceId)).collect::<Result<_, _>>()?;
    let (mut best, mut why) = (None, None);
    for device in ids.into_iter().filter(|device| !without.contains(device)) {
        match check_target(tenant, &Target { device, package, stores, bytes }) {
            Ok(()) => {
                let load = devices::seen(tenant, device)?.load;
                let free = load.map_or(0, |load| load.memory_free_bytes.0);
                if best.is_none_or(|(_, most)| free > most) {
                    best = Some((device, free));
                }
            }
            Err(Fail::Api(error)) => why = Some(error),
            Err(other) => return Err(other),
        }
    }
    match (best, why) {
        (Some((device, _)), _) => Ok(device),
        (None, Some(error)) => Err(Fail::Api(error)),
        (None, None) => {
            Err(unprocessable(Code::DeviceSilent, "the account has no device that could take it")
                .hint("`comb device code` makes a code by which one joins"))
        }
    }
}

/// What is changed of the rows that were loaded, beside what is decided.
type Change<'a> = &'a dyn Fn(&mut Loaded, OperationId);

/// A person's wish, decided; the operation that began.
pub fn order(tenant: &mut Tenant<'_>, wish: Wish, change: Option<Change<'_>>) -> Result<OperationId, Fail> {
    let id = OperationId(chance::uuid().0);
    let mut loaded = Loaded::app(tenant, wish.app)?;
    let from = loaded.hive.apps.get(&wish.app).and_then(|app| app.placement.device);
    let leased = loaded.hive.apps.get(&wish.app).is_some_and(|app| app.placement.leased);
    match decide(&mut loaded.hive, Event::Ordered { operation: id, wish }) {
        Answer::Ordered(Ok(_)) => {}
        Answer::Ordered(Err(refused)) => return Err(refusal(refused)),
        _ => return Err(Fail::start("an order was answered with something else")),
    }
    if let (Kind::Force { .. }, Some(from)) = (wish.kind, from) {
        outcome::begin(tenant, loaded.operations.entry(id).or_default(), wish.app, from, leased)?;
    }
    if let Some(change) = change {
        change(&mut loaded, id);
    }
    loaded.save(tenant)?;
    tenant.told.insert(Wake::Scheduler);
    Ok(id)
}

/// Why an order was refused, as it is answered.
fn refusal(refused: Refused) -> Fail {
    match refused {
        Refused::OperationRunning => {
            Fail::new(Code::OperationRunning, "something else is being done with this app")
        }
        Refused::Recovering => tasks::recovering(),
        Refused::NotFound => Fail::not_found(),
        Refused::DeviceNotAuthorized => {
            unprocessable(Code::DeviceNotAuthorized, "the owner did not name that device for this app")
        }
        Refused::DeviceClosed => unprocessable(Code::DeviceDraining, "that device gets no app any more"),
        Refused::VolumesUnknown => Fail::state(
            "the app was started, and the device that has its volumes did not tell of them: another one would begin with \
             empty ones",
        )
        .hint("let that device report, or start the app there; if it never wrote anything, remove it and add it anew"),
        other => Fail::state(format!("that makes no sense now: {}", rows::refused_text(other))),
    }
}

/// `…/start`.
pub fn start(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, Plain {}) = (call.param::<AppId>(0)?, call.read()?);
    let app = seen(tenant, id)?;
    call.matches(app.generation.0)?;
    nothing_runs(tenant, id)?;
    let app = latest(tenant, app)?;
    let package = package(tenant, id, app.revision.0)?;
    let device = match app.device {
        Some(device) => {
            let target = Target { device, package: &package, stores: &app.stores, bytes: None };
            check_target(tenant, &target)?;
            device
        }
        None => choose(tenant, &package, &app.stores, &BTreeSet::new(), None)?,
    };
    let operation = order(tenant, Wish { app: id, kind: Kind::Start, to: Some(device) }, None)?;
    operations::ordered(tenant, operation, None, None)
}

/// `…/stop`.
pub fn stop(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, Plain {}) = (call.param::<AppId>(0)?, call.read()?);
    call.matches(seen(tenant, id)?.generation.0)?;
    let operation = order(tenant, Wish { app: id, kind: Kind::Stop, to: None }, None)?;
    operations::ordered(tenant, operation, None, None)
}

/// `…/move`.
pub fn relocate(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish) = (call.param::<AppId>(0)?, call.read::<Move>()?);
    let app = seen(tenant, id)?;
    call.matches(app.generation.0)?;
    if wish.forced && !wish.accept_loss {
        return Err(Fail::field(
            "accept_loss",
            "a forced move may lose what was not replicated: say that it may",
        )
        .detail("at_stake", serde_json::to_value(app.at_stake).unwrap_or_default()));
    }
    if !wish.forced && (wish.even_if_online || wish.accept_seen) {
        return Err(Fail::field("forced", "even_if_online and accept_seen are for forced moves"));
    }
    if !wish.forced {
        nothing_runs(tenant, id)?;
    }
    let app = latest(tenant, app)?;
    let package = package(tenant, id, app.revision.0)?;
    let bytes = bytes(&app).filter(|_| !wish.forced);
    check_target(tenant, &Target { device: wish.to, package: &package, stores: &app.stores, bytes })?;
    let source = match app.device {
        Some(device) => devices::seen(tenant, device)?.seen_age_ms.map(|age| age.0),
        None => None,
    };
    let online = source.is_some_and(|age| age <= devices::FRESH_MS.unsigned_abs());
    if wish.forced && online && !wish.even_if_online && app.device != Some(wish.to) {
        return Err(unprocessable(
            Code::DeviceOnline,
            "the app's device reports: a planned move loses nothing",
        )
        .hint("leave --force away, or add --even-if-online"));
    }
    if !wish.forced && !online {
        return Err(unprocessable(Code::DeviceSilent, "the app's device has not reported for 15 seconds")
            .hint("wait for it, or move with --force and lose what was not replicated"));
    }
    let at_stake = app.at_stake;
    let kind = match wish.forced {
        true => Kind::Force { even_if_online: wish.even_if_online },
        false => Kind::Move,
    };
    let seen_ids = wish.accept_seen;
    let change = move |loaded: &mut Loaded, operation: OperationId| {
        loaded.operations.entry(operation).or_default().data.at_stake = at_stake;
        if !seen_ids {
            return;
        }
        let seen = loaded.apps.get(&id).map(|row| row.seen.clone()).unwrap_or_default();
        let Some(row) = loaded.hive.apps.get_mut(&id) else { return };
        for one in seen {
            if let Some(known) = row.volumes.get_mut(&tasks::volume_id(&one.volume)) {
                known.writers.insert(fs_format::DeviceId(one.writer.0));
            }
        }
    };
    let operation = order(tenant, Wish { app: id, kind, to: Some(wish.to) }, Some(&change))?;
    operations::ordered(tenant, operation, at_stake, None)
}

/// How much an app's volumes hold, if that was told.
pub fn bytes(app: &App) -> Option<u64> {
    app.report.as_ref().map(|report| report.report.volumes.iter().map(|one| one.bytes.0).sum())
}

/// Moves an app from a device that is being emptied or revoked: the operation, or the code of what is in the way.
pub fn move_away(
    tenant: &mut Tenant<'_>,
    app: AppId,
    from: DeviceId,
    forced: bool,
) -> Result<Result<OperationId, String>, Fail> {
    let row = seen(tenant, app)?;
    let row = match latest(tenant, row) {
        Ok(row) => row,
        Err(Fail::Api(error)) => return Ok(Err(error.code.text().to_owned())),
        Err(other) => return Err(other),
    };
    let package = package(tenant, app, row.revision.0)?;
    let bytes = bytes(&row).filter(|_| !forced);
    let kind = if forced { Kind::Force { even_if_online: true } } else { Kind::Move };
    let ordered = choose(tenant, &package, &row.stores, &BTreeSet::from([from]), bytes)
        .and_then(|to| order(tenant, Wish { app, kind, to: Some(to) }, None));
    match ordered {
        Ok(operation) => Ok(Ok(operation)),
        Err(Fail::Api(error)) => Ok(Err(error.code.text().to_owned())),
        Err(other) => Err(other),
    }
}

/// `PATCH /v1/apps/{id}`.
pub fn change(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish) = (call.param::<AppId>(0)?, call.read::<ChangeApp>()?);
    let app = seen(tenant, id)?;
    call.matches(app.generation.0)?;
    nothing_runs(tenant, id)?;
    if let Some(seconds) = wish.seal_every_s {
        tenant.execute(
            "UPDATE app SET seal_every_s = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
            &[id.0.into(), seconds.0.into()],
        )?;
    }
    if let Some(stores) = &wish.stores {
        set_stores(call, tenant, &app, stores)?;
    }
    // Who stands by needs what the app has from now on.
    let app = seen(tenant, id)?;
    if let Some(standby) = &wish.standby {
        set_standby(tenant, &app, standby)?;
    }
    let operation = match wish.policy {
        Some(policy) if policy != app.policy => {
            if policy == Policy::Auto
                && let Some(device) = app.device
            {
                let has = devices::seen(tenant, device)?.features.iter().any(|feature| feature == "auto");
                if !has {
                    return Err(Fail::state("the app's device is too old for auto"));
                }
            }
            order(tenant, Wish { app: id, kind: Kind::Settings(policy), to: None }, None)?
        }
        _ => tasks::done(tenant, "settings", Some(id), app.device)?,
    };
    tenant.changed("app", id);
    operations::ordered(tenant, operation, None, None)
}

/// Where the app's data goes from its next start on: `failover.md`, section 2.
fn set_stores(call: &Call, tenant: &mut Tenant<'_>, app: &App, wish: &[Uuid]) -> Result<(), Fail> {
    if call.person()?.2 != Role::Owner {
        return Err(Fail::new(Code::RoleTooLow, "where data goes is said by an owner"));
    }
    check_stores(tenant, wish, app.device)?;
    if wish.iter().collect::<BTreeSet<_>>().len() < wish.len() {
        return Err(Fail::field("stores", "a store is named twice"));
    }
    if app.stores.iter().skip(1).any(|id| !wish.contains(id)) {
        return Err(Fail::field(
            "stores",
            "a store is missing that keeps a copy; taking one away is not built",
        ));
    }
    for device in &app.standby {
        for id in wish {
            check_reach(&store(tenant, *id)?, *device)?;
        }
    }
    if let Some(first) = app.stores.first().filter(|first| wish.first() != Some(first)) {
        let before = store(tenant, *first)?;
        if !before.is_of_one_device() {
            return Err(Fail::state(format!(
                "{} decides who writes this app's data, and other devices may have it from there",
                before.url
            ))
            .hint("name it first; the others keep copies"));
        }
        if app.wanted == Wanted::Running {
            return Err(Fail::state(
                "the app runs, and what decides who writes its data is changed while it does not",
            )
            .hint("`comb app store` on its device stops it, brings the data there, and starts it again"));
        }
    }
    tenant.execute(
        "UPDATE app SET stores = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
        &[app.id.0.into(), json(&wish).into()],
    )?;
    Ok(())
}

fn set_standby(tenant: &mut Tenant<'_>, app: &App, standby: &List<DeviceId, 8>) -> Result<(), Fail> {
    let package = package(tenant, app.id, app.revision.0)?;
    for device in standby {
        let target = Target { device: *device, package: &package, stores: &app.stores, bytes: None };
        check_target(tenant, &target)?;
    }
    for device in
        standby.iter().filter(|device| !app.standby.contains(device) && app.device != Some(**device))
    {
        standby::prepare(tenant, app, *device)?;
    }
    for device in
        app.standby.iter().filter(|device| !standby.contains(device) && app.device != Some(**device))
    {
        let forget = Order::Forget { keep_data: true, discard: false };
        tasks::begin(tenant, "standby", Some(app.id), *device, Task::Plain, forget)?;
    }
    tenant.execute(
        "UPDATE app SET standby = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
        &[app.id.0.into(), json(standby).into()],
    )?;
    Ok(())
}

/// The app and its device, which must have reported lately.
fn running(call: &Call, tenant: &mut Tenant<'_>) -> Result<(App, DeviceId), Fail> {
    let app = seen(tenant, call.param(0)?)?;
    call.matches(app.generation.0)?;
    let device = app.device.ok_or_else(nowhere)?;
    devices::online(tenant, device)?;
    Ok((app, device))
}

fn task(
    tenant: &mut Tenant<'_>,
    kind: &str,
    (app, device): (&App, DeviceId),
    task: Task,
    order: Order,
) -> Result<Reply, Fail> {
    let operation = tasks::begin(tenant, kind, Some(app.id), device, task, order)?;
    operations::ordered(tenant, operation, None, None)
}

/// `…/restart`.
pub fn restart(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Restart = call.read()?;
    let (app, device) = running(call, tenant)?;
    task(tenant, "restart", (&app, device), Task::Plain, Order::Restart { services: wish.services })
}

/// `…/snapshot`.
pub fn snapshot(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Snapshot = call.read()?;
    let (app, device) = running(call, tenant)?;
    let order = Order::Snapshot { tag: wish.tag, message: wish.message };
    task(tenant, "snapshot", (&app, device), Task::Plain, order)
}

/// `…/rollback`.
pub fn rollback(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Rollback = call.read()?;
    if !wish.to.is_bounded() {
        return Err(Fail::field("to", "a moment is a tag, or a seal of 1 to 32 volumes"));
    }
    let (app, device) = running(call, tenant)?;
    let order = Order::Rollback { to: wish.to, start: wish.start };
    // What is to stay stopped is not started again by the hive: not wanted, from here on.
    if wish.start == Some(false) && app.wanted == Wanted::Running {
        let reply = task(tenant, "rollback", (&app, device), Task::RollbackStopped, order)?;
        tasks::want(tenant, app.id, false)?;
        return Ok(reply);
    }
    task(tenant, "rollback", (&app, device), Task::Plain, order)
}

/// `…/restore`: as fork, stopped.
pub fn restore(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Restore = call.read()?;
    if !wish.to.is_bounded() {
        return Err(Fail::field("to", "a moment is a tag, or a seal of 1 to 32 volumes"));
    }
    let (app, device) = running(call, tenant)?;
    let seed = Hex(chance::uuid().0);
    let new = AppId::made(device, &seed.0);
    free_name(tenant, wish.into.as_str())?;
    let order = Order::Fork(ForkOrder {
        to: Some(wish.to),
        branches: None,
        seed,
        new_name: wish.into.clone(),
        revision: app.revision,
    });
    let follow = Task::Fork { app: new, name: wish.into.as_str().to_owned(), of: app.id, device };
    let operation = tasks::begin(tenant, "restore", Some(app.id), device, follow, order)?;
    operations::ordered(tenant, operation, None, Some(new))
}

fn free_name(tenant: &mut Tenant<'_>, name: &str) -> Result<(), Fail> {
    match tenant.one("SELECT 1 FROM app WHERE account = $1 AND name = $2", &[name.into()])? {
        Some(_) => Err(Fail::new(Code::Exists, format!("there is an app \"{name}\" already"))),
        None => Ok(()),
    }
}

/// `…/fork`.
pub fn fork(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Fork = call.read()?;
    if wish.to.as_ref().is_some_and(|to| !to.is_bounded())
        || wish.branches.as_ref().is_some_and(|it| it.len() > 32)
    {
        return Err(Fail::field("to", "a moment is a tag, or a seal of 1 to 32 volumes"));
    }
    let app = seen(tenant, call.param(0)?)?;
    call.matches(app.generation.0)?;
    free_name(tenant, wish.name.as_str())?;
    let device = match wish.device.or(app.device) {
        Some(device) => device,
        None => return Err(nowhere()),
    };
    devices::online(tenant, device)?;
    let seed = Hex(chance::uuid().0);
    let new = AppId::made(device, &seed.0);
    let order = Order::Fork(ForkOrder {
        to: wish.to,
        branches: wish.branches,
        seed,
        new_name: wish.name.clone(),
        revision: app.revision,
    });
    let follow = Task::Fork { app: new, name: wish.name.as_str().to_owned(), of: app.id, device };
    let operation = tasks::begin(tenant, "fork", Some(app.id), device, follow, order)?;
    operations::ordered(tenant, operation, None, Some(new))
}

/// A device made volumes and a package of an app for another one; why that cannot be had.
pub fn forked(
    tenant: &mut Tenant<'_>,
    app: AppId,
    name: &str,
    of: AppId,
    device: DeviceId,
    data: &Data,
) -> Result<Option<Refused>, Fail> {
    let revision = data.revision.map_or(1, |number| number.0);
    match package(tenant, app, revision) {
        Ok(_) => {}
        // It was to post the package before.
        Err(Fail::Api(_)) => return Ok(Some(Refused::Problem(Problem::PackageWrong))),
        Err(other) => return Err(other),
    }
    let taken = "SELECT 1 FROM app WHERE account = $1 AND (app = $2 OR name = $3)";
    let sql = "SELECT stores FROM app WHERE account = $1 AND app = $2";
    let first = tenant.one(sql, &[of.0.into()])?;
    let (Some(row), None) = (first, tenant.one(taken, &[app.0.into(), name.into()])?) else {
        // Removed meanwhile, or somebody took the name.
        return Ok(Some(Refused::State));
    };
    let stores: Vec<Uuid> = read(row.text(0)?)?;
    insert(tenant, app, name, revision, Policy::Manual, &stores, Some(device))?;
    let volumes: BTreeMap<&str, Hex<32>> =
        data.volumes.iter().map(|one| (one.name.as_str(), one.volume)).collect();
    let known: BTreeMap<Hex<32>, serde_json::Value> = data
        .volumes
        .iter()
        .map(|one| {
            let writers: Vec<Hex<16>> =
                data.writers.iter().filter(|it| it.volume == one.volume).map(|it| it.writer).collect();
            (one.volume, serde_json::json!({"epoch": 0, "seq": 0, "writers": writers}))
        })
        .collect();
    tenant.execute(
        "UPDATE app SET volumes = $3, known = $4 WHERE account = $1 AND app = $2",
        &[app.0.into(), json(&volumes).into(), json(&known).into()],
    )?;
    Ok(None)
}

/// `…/update`.
pub fn update(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Update = call.read()?;
    let (app, device) = running(call, tenant)?;
    nothing_runs(tenant, app.id)?;
    let app = latest(tenant, app)?;
    let package = package(tenant, app.id, wish.revision.0)?;
    if wish.revision == app.revision {
        return Err(Fail::state("this revision is what the app has"));
    }
    let is_new = |name: &str| !app.volumes.iter().any(|one| one.name == name);
    if let Some(one) = package.volumes.iter().find(|one| is_new(&one.name)) {
        return Err(Fail::state(format!(
            "revision {} has the volume \"{}\", which \"{}\" does not have, and an update makes no volumes",
            wish.revision.0, one.name, app.name
        ))
        .hint("keep what it holds in a folder of a volume that the app has, or add the new revision as another app"));
    }
    check_target(tenant, &Target { device, package: &package, stores: &app.stores, bytes: None })?;
    let follow = Task::Update { revision: wish.revision.0 };
    task(tenant, "update", (&app, device), follow, Order::Update { revision: wish.revision })
}

/// `…/actions/{name}`.
pub fn action(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: RunAction = call.read()?;
    let (app, device) = running(call, tenant)?;
    let name = call.params.get(1).cloned().unwrap_or_default();
    let declared = app.actions.iter().find(|one| one.name == name).ok_or_else(Fail::not_found)?;
    let unknown = wish.input.iter().find(|one| !declared.input.iter().any(|it| it.name == one.name.as_str()));
    if let Some(one) = unknown {
        return Err(Fail::field("input", format!("the action has no input \"{}\"", one.name)));
    }
    call.shared.streams.open(tenant.account, wish.stream, device)?;
    let name = name.parse().map_err(|_| Fail::not_found())?;
    let order = Order::Action { name, input: wish.input, stream: wish.stream };
    task(tenant, "action", (&app, device), Task::Stream { stream: wish.stream }, order)
}

/// `…/logs`.
pub fn logs(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: Logs = call.read()?;
    let (app, device) = running(call, tenant)?;
    call.shared.streams.open(tenant.account, wish.stream, device)?;
    let order =
        Order::Logs { services: wish.services, lines: wish.lines, follow: wish.follow, stream: wish.stream };
    task(tenant, "logs", (&app, device), Task::Stream { stream: wish.stream }, order)
}

/// `POST /v1/apps/author`.
pub fn author(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let wish: AuthorApp = call.read()?;
    let device = devices::seen(tenant, wish.device)?;
    if !device.accepts_authoring {
        return Err(unprocessable(
            Code::AuthoringOff,
            format!("\"{}\" takes no apps that its owner did not sign", device.name),
        )
        .hint("`comb device join --accept-authoring` on its machine lets the hive add apps"));
    }
    devices::online(tenant, wish.device)?;
    free_name(tenant, wish.name.as_str())?;
    if wish.domain.as_ref().is_some_and(|domain| !is_domain(domain.as_str())) {
        return Err(Fail::field("domain", "a domain is like photos.example.org, in small letters"));
    }
    if let Some(install) = &wish.install {
        check_stores(tenant, &install.stores, Some(wish.device))?;
    }
    let seed = Hex(chance::uuid().0);
    let new = AppId::made(wish.device, &seed.0);
    let name = wish.name.as_str().to_owned();
    let order = Order::Author(Box::new(Author {
        files: wish.files,
        compose: wish.compose,
        options: wish.options,
        name: wish.name,
        seed,
        domain: wish.domain,
    }));
    let follow = match wish.install {
        Some(install) => Task::Author { app: new, name, device: wish.device, install },
        None => Task::Plain,
    };
    let operation = tasks::begin(tenant, "author", None, wish.device, follow, order)?;
    operations::ordered(tenant, operation, None, Some(new))
}

/// `DELETE /v1/apps/{id}`.
pub fn remove(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let flag = |field: &str| match call.query.get(field).map(String::as_str) {
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Fail::field(field, "is true or false")),
        None => Ok(None),
    };
    let keep_data = flag("keep_data")?.ok_or_else(|| {
        Fail::field("keep_data", "say whether devices keep the volumes: keep_data=true or false")
    })?;
    let wish = Removal { keep_data, discard: flag("discard")?.unwrap_or(false), asked: Vec::new() };
    let app = seen(tenant, call.param(0)?)?;
    call.matches(app.generation.0)?;
    nothing_runs(tenant, app.id)?;
    let sql = "SELECT live FROM device_app WHERE account = $1 AND app = $2 AND device = $3";
    let live = match app.device {
        Some(device) => {
            let row = tenant.one(sql, &[app.id.0.into(), device.0.into()])?;
            row.map(|row| row.flag(0)).transpose()?.unwrap_or(false)
        }
        None => false,
    };
    tenant.execute(
        "UPDATE app SET wanted = 0, generation = generation + 1 WHERE account = $1 AND app = $2",
        &[app.id.0.into()],
    )?;
    let operation = match app.device.filter(|_| live) {
        Some(device) => {
            tasks::begin(tenant, "remove", Some(app.id), device, Task::Remove(wish), Order::Stop)?
        }
        None => removal::begin(tenant, &app, wish)?,
    };
    operations::ordered(tenant, operation, None, None)
}
