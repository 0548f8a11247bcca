//! Devices: what they say, and how people see them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fs_format::signature::is_valid;
use orchestrator_api::code::JoinKey;
use orchestrator_api::error::Code;
use orchestrator_api::ids::{AppId, CommandNumber, DeviceId, Generation, Incarnation, SessionId, Term};
use orchestrator_api::proof::{self, PROOF_CONTEXT};
use orchestrator_api::release::Arch;
use orchestrator_api::report::Refusal;
use orchestrator_api::request::{JoinHeader, NOBODY, Request};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::times::{REPORT_EVERY, SILENT_AFTER};
use orchestrator_api::wire::command::{COMMANDS_MAX, Command, CommandResult, Commands, Order, ResultState};
use orchestrator_api::wire::device::{
    APPS_MAX, ChangeDevice, Device, DeviceState, Hello, Join, Joined, Welcome,
};
use orchestrator_api::wire::report::{
    AppReport, AppTerm, Phase, Report, ReportAnswer, VolumeReport, VolumeState, Why,
};
use orchestrator_api::wire::value::{List, Number, Page};

use super::apps;
use super::call::{Answering, Call, Reply};
use super::chance;
use super::database::{How, Row, Value};
use super::door::knock;
use super::fail::Fail;
use super::figures;
use super::outcome;
use super::recovery;
use super::rows::{self, Loaded, PhaseColumn};
use super::tasks;
use super::tenant::{About, Tenant, json, read};
use crate::{Answer, Event, decide};

const DEVICES_MAX: u64 = 1000;
/// How long a request for commands is held.
const POLL_HOLD: Duration = Duration::from_secs(25);
const SESSION_MS: i64 = 24 * 3_600_000;
/// A device that was not heard for so long is silent.
pub const SILENT_MS: i64 = SILENT_AFTER as i64;
/// A device is asked for something new only if it reported so lately.
pub const FRESH_MS: i64 = 15_000;
/// The second report of a session comes so soon, in milliseconds.
const REPORT_EVERY_FIRST: u64 = 2_000;

fn arch(text: &str) -> Arch {
    if text == "aarch64" { Arch::Aarch64 } else { Arch::X86_64 }
}

/// As it travels.
pub fn arch_text(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
    }
}

/// A name that a device can have, of what it says of itself.
fn name_of(title: &str) -> String {
    let plain: String = title
        .to_lowercase()
        .chars()
        .map(|one| if one.is_ascii_lowercase() || one.is_ascii_digit() { one } else { '-' })
        .collect();
    let plain = plain.trim_matches('-');
    let begins = plain.starts_with(|one: char| one.is_ascii_lowercase());
    let plain = if begins { plain.to_owned() } else { format!("device-{plain}") };
    plain.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

/// `POST /v1/device/join`.
pub fn join(call: Arc<Call>) -> Answering {
    Box::pin(async move { knock(&call, take_in(&call)).await })
}

async fn take_in(call: &Call) -> Result<Reply, Fail> {
    let wrong = || Fail::new(Code::CodeWrong, "this is not a code of this hive");
    let header = call.join.as_deref().and_then(|text| JoinHeader::parse(text).ok()).ok_or_else(wrong)?;
    let signed = call.signed.ok_or_else(wrong)?;
    let wish: Join = call.read()?;
    let request = Request {
        hive: call.shared.public(),
        session: NOBODY,
        device: NOBODY,
        number: 0,
        method: call.method,
        path_and_query: &call.path_and_query,
        body: &call.body,
    };
    let named = signed.device == NOBODY && signed.number == 0;
    if !named || !request.is_signed_by(&wish.identity.0, &signed.signature) {
        return Err(Fail::new(Code::BadSignature, "the request is not signed by the key that it names"));
    }
    let bytes = request.bytes();
    let address = call.address.to_string();
    let (joined, told) = call
        .shared
        .database
        .transact(How::Write, move |tx| {
            let sql = "SELECT account, join_key, name, auto_update, ends, used_by FROM device_code \
                     WHERE code_id = $1";
            let rows = tx.query(sql, &[header.code.0.into()])?;
            let wrong = || Fail::new(Code::CodeWrong, "this is not a code of this hive");
            let code = rows.first().ok_or_else(wrong)?;
            if !JoinKey(code.id(1)?).is_mac(&bytes, &header.mac) {
                return Err(wrong());
            }
            let account = code.id::<16>(0)?;
            let mut tenant = Tenant { from: Some(address.clone()), ..Tenant::new(tx, account) };
            tenant.alone()?;
            let joined = join_by(&mut tenant, code, &wish, header.code)?;
            Ok((joined, tenant.end()?))
        })
        .await?;
    call.shared.deliver(told);
    Ok(Reply::json(&joined).status(201))
}

fn join_by(tenant: &mut Tenant<'_>, code: &Row, wish: &Join, code_id: Hex<8>) -> Result<Joined, Fail> {
    let auto_update = code.flag(3)?;
    let over = code.int(4)? <= chance::now();
    let used = code.maybe(5, Row::id::<16>)?.map(DeviceId);
    let sql = "SELECT identity, name FROM device WHERE account = $1 AND device = $2";
    let (device, name) = match used {
        // The answer was lost: the same again.
        Some(device) => {
            let row = tenant.one(sql, &[device.0.into()])?;
            match row {
                Some(row) if row.id::<32>(0)? == wish.identity.0 && !over => {
                    (device, row.text(1)?.to_owned())
                }
                _ => {
                    return Err(
                        Fail::new(Code::CodeUsed, "this code was used already").hint("ask for another one")
                    );
                }
            }
        }
        None if over => {
            return Err(Fail::new(Code::CodeExpired, "this code is over")
                .hint("a code is good for 15 minutes: ask for another one"));
        }
        None => {
            let count = tenant.one("SELECT count(*) FROM device WHERE account = $1", &[])?;
            if count.map(|row| row.count(0)).transpose()?.unwrap_or(0) >= DEVICES_MAX {
                return Err(Fail::state("the account has 1,000 devices").hint("revoke those that are gone"));
            }
            let named = code.maybe(2, Row::text)?.map(str::to_owned);
            let name = named.unwrap_or_else(|| name_of(wish.name.as_str()));
            let sql = "SELECT 1 FROM device WHERE account = $1 AND name = $2";
            if tenant.one(sql, &[(&name).into()])?.is_some() {
                let mut free = None;
                for number in 2..1100 {
                    let other = format!("{}-{number}", name.chars().take(57).collect::<String>());
                    if tenant.one(sql, &[(&other).into()])?.is_none() {
                        free = Some(other);
                        break;
                    }
                }
                let free = free.unwrap_or_default();
                let error = Fail::new(Code::Exists, format!("there is a device \"{name}\" already"));
                return Err(error.hint(format!("\"{free}\" is free")).detail("name", free));
            }
            let device = DeviceId(chance::uuid().0);
            insert(tenant, device, &name, wish, auto_update)?;
            tenant.tx.execute(
                "UPDATE device_code SET used_by = $2 WHERE code_id = $1",
                &[code_id.0.into(), device.0.into()],
            )?;
            (device, name)
        }
    };
    let row = tenant.one("SELECT ring_account, owner_key FROM account WHERE account = $1", &[])?;
    let row = row.ok_or_else(Fail::not_found)?;
    let life = rows::life(tenant)?;
    Ok(Joined {
        device,
        account: Uuid(tenant.account),
        name,
        ring_account: row.maybe(0, Row::id::<16>)?.map(Hex),
        owner: row.maybe(1, Row::id::<32>)?.map(Hex),
        incarnation: life.incarnation,
        auto_update,
    })
}

fn insert(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    name: &str,
    wish: &Join,
    auto_update: bool,
) -> Result<(), Fail> {
    let life = rows::life(tenant)?;
    let made = tenant.execute(
        "INSERT INTO device (account, device, name, identity, state, joined, hello, run, session, session_ends, \
         greeted, report_number, renewals, seen, report, arch, version, features, locked, auto_update, \
         accepts_authoring, docker, command_number, stores_open, generation) VALUES ($1, $2, $3, $4, 'active', $5, \
         NULL, NULL, NULL, 0, $6, 0, 0, NULL, NULL, $7, $8, $9, 1, $10, 0, 0, 0, 0, 1)",
        &[
            device.0.into(),
            name.into(),
            wish.identity.0.into(),
            chance::now().into(),
            life.incarnation.0.into(),
            arch_text(wish.arch).into(),
            wish.version.as_str().into(),
            json(&wish.features).into(),
            auto_update.into(),
        ],
    );
    made.map_err(|error| Fail::from(error).taken("this identity joined before: make a new one"))?;
    tenant.by = orchestrator_api::wire::operation::By { device: Some(device), ..Default::default() };
    tenant.event("joined", About::device(device));
    tenant.changed("device", device);
    Ok(())
}

/// Whether a hello shows that its device has the account's ring open. What it says of itself shows nothing.
fn is_proved(call: &Call, tenant: &mut Tenant<'_>, device: DeviceId, hello: &Hello) -> Result<bool, Fail> {
    let row = tenant.one("SELECT ring_account, owner_key FROM account WHERE account = $1", &[])?;
    let row = row.ok_or_else(Fail::not_found)?;
    let (ring, owner) = (row.maybe(0, Row::id::<16>)?, row.maybe(1, Row::id::<32>)?);
    let (Some(ring), Some(owner), Some(proof)) = (ring, owner, &hello.proof) else { return Ok(false) };
    let message = proof::of_device(&call.shared.public(), &ring, &device.0);
    Ok(is_valid(&owner, PROOF_CONTEXT, &message, &proof.0))
}

fn unbelievable(number: u64) -> Fail {
    let text = format!("no hive can have given this device the number {number}: it is more than a day ahead");
    Fail::field("hello", text)
        .hint("compare the clocks of hive and device; if they are right, revoke the device and join it anew")
}

/// `POST /v1/device/hello`.
pub fn hello(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (device, _) = call.device()?;
    let hello: Hello = call.read()?;
    let signed = call.signed.map(|header| header.number);
    if signed != Some(hello.hello.0) {
        return Err(Fail::field("hello", "the hello's number is not that of its signature"));
    }
    tenant.alone()?;
    let named: BTreeSet<AppId> = hello.apps.iter().map(|app| app.app).collect();
    let mut loaded = Loaded::device(tenant, device, &named, true)?;
    let before = loaded.hive.incarnation;
    let session = SessionId(chance::bytes());
    let now_ms = chance::now().unsigned_abs();
    let said = orchestrator_api::report::Hello::from(&hello);
    if let Some(number) = loaded.hive.unbelievable(&said, now_ms) {
        return Err(unbelievable(number));
    }
    let proved = !hello.locked && is_proved(call, tenant, device, &hello)?;
    let answer = decide(&mut loaded.hive, Event::Hello { device, hello: said, session, now_ms, proved });
    let welcome = match answer {
        Answer::Welcome(welcome) => welcome,
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(Fail::start("a hello was answered with something else")),
    };
    if loaded.hive.incarnation != before {
        // The database is an older one than the account's devices know: what it has of them begins anew.
        for (app, update) in recovery::forget(tenant)? {
            if let Some(row) = loaded.hive.apps.get_mut(&app) {
                row.volumes.values_mut().for_each(|known| known.update = Some(update));
            }
        }
        loaded.whole = true;
        let rest = missing(tenant, loaded.hive.incarnation)?;
        loaded.hive.heard &= rest.iter().all(|other| *other == device);
    }
    loaded.save(tenant)?;
    tenant.execute(
        "UPDATE device SET session_ends = $3, arch = $4, version = $5, features = $6, locked = $7, \
         auto_update = $8, accepts_authoring = $9 WHERE account = $1 AND device = $2",
        &[
            device.0.into(),
            (chance::now() + SESSION_MS).into(),
            arch_text(hello.arch).into(),
            hello.version.as_str().into(),
            json(&hello.features).into(),
            (!proved).into(),
            hello.auto_update.into(),
            hello.accepts_authoring.into(),
        ],
    )?;
    tenant.changed("device", device);
    let packages = if proved { lacking(tenant, device, &hello, &loaded)? } else { List::default() };
    let ring = tenant.one("SELECT max(number) FROM ring WHERE account = $1", &[])?;
    let ring = ring.map(|row| row.maybe(0, Row::count)).transpose()?.flatten();
    Ok(Reply::json(&Welcome {
        session: welcome.session,
        incarnation: welcome.incarnation,
        recovering: loaded.hive.recovering,
        report_every_ms: Number(REPORT_EVERY),
        ring: ring.map(Number),
        locked: !proved,
        packages,
    }))
}

/// Apps of which their device has a later package than the hive, which was restored from before it.
fn lacking(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    hello: &Hello,
    loaded: &Loaded,
) -> Result<List<AppId, APPS_MAX>, Fail> {
    let mut lacks = Vec::new();
    for said in &hello.apps {
        let (Some(row), Some(beside)) = (loaded.hive.apps.get(&said.app), loaded.apps.get(&said.app)) else {
            continue;
        };
        let is_placed = row.placement.is_at(device, said.term);
        let is_later = is_placed && said.revision.0 > beside.revision;
        if is_later && !apps::has_package(tenant, said.app, said.revision.0)? {
            lacks.push(said.app);
        }
    }
    Ok(List::cut(lacks))
}

/// `POST /v1/device/report`.
pub fn report(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        // Read here, and not where all others wait to write.
        let report: Report = call.read()?;
        call.write(move |call, tenant| take_report(call, tenant, &report)).await
    })
}

fn take_report(call: &Call, tenant: &mut Tenant<'_>, report: &Report) -> Result<Reply, Fail> {
    let (device, session) = call.device()?;
    let session = session.ok_or(Refusal::SessionOver)?;
    if call.signed.map(|header| header.number) != Some(report.number.0) {
        return Err(Fail::field("number", "the report's number is not that of its signature"));
    }
    tenant.beside(&device)?;
    let named: BTreeSet<AppId> = report.apps.iter().map(|app| app.app).collect();
    let mut loaded = Loaded::device(tenant, device, &named, false)?;
    let had = loaded.hive.devices.get(&device).map(|row| row.writers.clone()).unwrap_or_default();
    learn_volumes(tenant, &mut loaded, device, report)?;
    let said = orchestrator_api::report::Report::from(report);
    let answer = match decide(&mut loaded.hive, Event::Report { device, session, report: said }) {
        Answer::Report(answer) => answer,
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(Fail::start("a report was answered with something else")),
    };
    // Who has the term has written what its mounts are in: a first start makes volumes that nobody prepared.
    for app in &report.apps {
        let Some(row) = loaded.hive.apps.get_mut(&app.app) else { continue };
        if !row.placement.is_at(device, app.term) {
            continue;
        }
        for volume in app.volumes.iter().filter(|volume| volume.head().is_some()) {
            let key = fs_format::VolumeId(volume.volume.0);
            if let Some(known) = row.volumes.get_mut(&key)
                && known.writers.is_empty()
            {
                known.writers.insert(fs_format::DeviceId(volume.writer.0));
            }
        }
    }
    loaded.save(tenant)?;
    let has = |app: &&AppReport| {
        loaded.hive.apps.get(&app.app).is_some_and(|row| row.placement.is_at(device, app.term))
    };
    figures::take(tenant, device, report, report.apps.iter().filter(has), loaded.seen)?;
    tenant.execute(
        "UPDATE device SET seen = $3, report = $4, version = $5 WHERE account = $1 AND device = $2",
        &[
            device.0.into(),
            chance::now().into(),
            String::from_utf8_lossy(&call.body).into_owned().into(),
            report.version.as_str().into(),
        ],
    )?;
    for app in &report.apps {
        take_update(tenant, device, app, &loaded)?;
    }
    let known: BTreeSet<AppId> = loaded.apps.keys().copied().collect();
    let reported = report.apps.iter().filter(|app| known.contains(&app.app));
    keep_apps(tenant, device, reported, &had, &loaded)?;
    let terms = |set: &BTreeSet<(AppId, Term)>| {
        List::cut(set.iter().map(|(app, term)| AppTerm { app: *app, term: *term }))
    };
    let over = answer.over.iter().map(|(app, term)| AppTerm { app: *app, term: *term });
    Ok(Reply::json(&ReportAnswer {
        granted: terms(&answer.granted),
        over: List::cut(over),
        forgotten: List::cut(named.difference(&known).copied()),
        // The scheduler knows that a device reports when it saw two reports of it.
        report_every_ms: Number(if report.number.0 == 1 { REPORT_EVERY_FIRST } else { REPORT_EVERY }),
    }))
}

/// What an app's device made, and no result told of: the result of its first start may have been lost, or forgotten by a
/// hive that was restored. A volume counts when its store has something of it.
fn learn_volumes(
    tenant: &mut Tenant<'_>,
    loaded: &mut Loaded,
    device: DeviceId,
    report: &Report,
) -> Result<(), Fail> {
    for app in &report.apps {
        let placement = loaded.hive.apps.get(&app.app).map(|row| &row.placement);
        let has_it = placement.is_some_and(|it| it.is_at(device, app.term));
        if !has_it || app.term == Term(0) {
            continue;
        }
        // What it follows, another one wrote.
        let stored = |one: &&VolumeReport| one.head().is_some() || one.state == VolumeState::Following;
        let told = app.volumes.iter().filter(stored).filter_map(|volume| {
            Some((volume.name.as_ref()?.as_str(), fs_format::VolumeId(volume.volume.0)))
        });
        outcome::learn_volumes(tenant, loaded, app.app, told.collect())?;
    }
    Ok(())
}

/// What an app's device says of its revision: a later one than the hive's is taken over, and an update of which nobody knew
/// how it ended is over where the app runs as the hive has it.
fn take_update(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    app: &AppReport,
    loaded: &Loaded,
) -> Result<(), Fail> {
    let (Some(row), Some(beside)) = (loaded.hive.apps.get(&app.app), loaded.apps.get(&app.app)) else {
        return Ok(());
    };
    let is_placed = row.placement.is_at(device, app.term);
    let goes_back = row.volumes.values().any(|known| known.rollback.is_some());
    if is_placed && goes_back && app.phase == Phase::Running {
        // It went back before it was started: what is written since is not gone back from.
        let update = row.volumes.values().find_map(|known| known.update);
        rows::keep_update(tenant, app.app, update)?;
    }
    let is_open = row.volumes.values().any(|known| known.update.is_some());
    let is_later = app.revision.0 > beside.revision;
    let ends = is_open && app.phase == Phase::Running && app.revision.0 >= beside.revision;
    if !is_placed || !(is_later || ends) || apps::is_busy(tenant, app.app)? {
        return Ok(());
    }
    let is_known = !is_later || apps::adopt(tenant, app.app, device, app.revision.0)?;
    match ends && is_known {
        true => rows::keep_update(tenant, app.app, None),
        false => Ok(()),
    }
}

/// Writes down what a report says of apps, where it changed.
fn keep_apps<'r>(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    reported: impl Iterator<Item = &'r AppReport>,
    had: &BTreeMap<fs_format::VolumeId, fs_format::DeviceId>,
    loaded: &Loaded,
) -> Result<(), Fail> {
    let sql = "SELECT app, term, phase, branches FROM device_app WHERE account = $1 AND device = $2";
    let mut rows: BTreeMap<AppId, Row> = BTreeMap::new();
    for row in tenant.query(sql, &[device.0.into()])? {
        rows.insert(AppId(row.id(0)?), row);
    }
    for app in reported {
        let column = PhaseColumn {
            phase: app.phase,
            why: app.why,
            problem: app.problem.as_ref().map(|problem| problem.code),
            health: Some(app.health),
        };
        let row = rows.remove(&app.app);
        let was: Option<PhaseColumn> = match &row {
            Some(row) => row.maybe(2, Row::text)?.map(read).transpose()?,
            None => None,
        };
        let term = match &row {
            Some(row) => row.maybe(1, Row::count)?,
            None => None,
        };
        let branches = Some(json(&app.branches)).filter(|_| !app.branches.is_empty());
        let kept = match &row {
            Some(row) => row.maybe(3, Row::text)?.map(str::to_owned),
            None => None,
        };
        let volumes: BTreeMap<_, _> = app
            .volumes
            .iter()
            .map(|one| (fs_format::VolumeId(one.volume.0), fs_format::DeviceId(one.writer.0)))
            .collect();
        let writers_known = volumes.iter().all(|(volume, writer)| had.get(volume) == Some(writer));
        if was == Some(column) && term == Some(app.term.0) && writers_known && branches == kept {
            continue;
        }
        let mut writers = volumes;
        if let Some(row) = loaded.hive.apps.get(&app.app) {
            for volume in row.volumes.keys() {
                if let Some(writer) = had.get(volume) {
                    writers.entry(*volume).or_insert(*writer);
                }
            }
        }
        rows::save_device_app(tenant, device, app.app, Some((app.term, column)), &writers, branches.clone())?;
        if was != Some(column) {
            let about =
                About { app: Some(app.app), device: Some(device), term: Some(app.term), ..About::default() };
            let phase = serde_json::to_value(app.phase).unwrap_or_default();
            let health = serde_json::to_value(app.health).unwrap_or_default();
            let problem = column.problem.map(|problem| problem.text());
            let data = about.with("phase", phase).with("health", health).with("problem", problem);
            tenant.event("phase", data);
            tenant.changed("app", app.app);
            tenant.told.insert(super::tenant::Wake::Scheduler);
        }
        if branches != kept && branches.is_some() {
            let about = About { app: Some(app.app), device: Some(device), ..About::default() };
            tenant.event("tail_kept", about.with("branches", app.branches.len()));
        }
        outcome::returned(tenant, device, app)?;
    }
    // What is not reported any more is not here any more; its writers stay known.
    for (app, row) in rows {
        if !row.is_null(2) {
            tenant.execute(
                "UPDATE device_app SET term = NULL, phase = NULL, live = 0, branches = NULL \
                 WHERE account = $1 AND app = $2 AND device = $3",
                &[app.0.into(), device.0.into()],
            )?;
            tenant.changed("app", app);
        }
    }
    Ok(())
}

fn in_session(tenant: &mut Tenant<'_>, device: DeviceId, session: SessionId) -> Result<(), Fail> {
    let sql = "SELECT state, session FROM device WHERE account = $1 AND device = $2";
    let row = tenant.one(sql, &[device.0.into()])?.ok_or(Refusal::Unknown)?;
    if row.text(0)? == "revoked" {
        return Err(Refusal::Revoked.into());
    }
    match row.maybe(1, Row::id::<16>)? {
        Some(present) if present == session.0 => Ok(()),
        _ => Err(Refusal::SessionOver.into()),
    }
}

/// What a device is to do, and was not given yet.
fn waiting(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    session: SessionId,
    have: u64,
) -> Result<Vec<Command>, Fail> {
    in_session(tenant, device, session)?;
    let sql = "SELECT body FROM command WHERE account = $1 AND device = $2 AND number > $3 \
         AND result IS NULL ORDER BY number LIMIT $4";
    let limit = Value::from(COMMANDS_MAX as u64);
    let rows = tenant.query(sql, &[device.0.into(), have.into(), limit])?;
    Ok(rows.iter().map(|row| row.text(0).and_then(read)).collect::<Result<_, _>>()?)
}

/// Gives a device what waits for it: nobody takes back from here on what it may have begun with.
fn give(
    tenant: &mut Tenant<'_>,
    device: DeviceId,
    session: SessionId,
    have: u64,
) -> Result<Vec<Command>, Fail> {
    tenant.beside(&device)?;
    let found = waiting(tenant, device, session, have)?;
    for command in &found {
        tasks::taken(tenant, device, command)?;
    }
    Ok(found)
}

/// `GET /v1/device/commands`, held until there are some.
pub fn commands(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let (device, session) = call.device()?;
        let session = session.ok_or(Refusal::SessionOver)?;
        let have = call.number("have")?.unwrap_or(0);
        let account = call.account()?;
        // A held request says nothing of how the device is: only reports count as being heard.
        let (turn, mut wait) = call.shared.hold(device);
        let until = tokio::time::Instant::now() + POLL_HOLD;
        loop {
            wait.borrow_and_update();
            let (mut found, is_new) = call
                .shared
                .database
                .transact(How::Read, move |tx| {
                    let mut tenant = Tenant::new(tx, account);
                    let found = waiting(&mut tenant, device, session, have)?;
                    let mut is_new = false;
                    for command in &found {
                        is_new = is_new || tasks::is_untaken(&mut tenant, device, command)?;
                    }
                    Ok((found, is_new))
                })
                .await?;
            if is_new && !call.shared.is_over(device, turn) {
                found = call.write(move |_, tenant| give(tenant, device, session, have)).await?;
            }
            let over = call.shared.is_over(device, turn) || tokio::time::Instant::now() >= until;
            if !found.is_empty() || over || call.shared.is_closing() {
                let commands = if call.shared.is_over(device, turn) { Vec::new() } else { found };
                return Ok(Reply::json(&Commands { commands: List::cut(commands) }));
            }
            let _ = tokio::time::timeout_at(until, wait.changed()).await;
        }
    })
}

/// `POST /v1/device/commands/{number}/result`.
pub fn result(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (device, session) = call.device()?;
    let session = session.ok_or(Refusal::SessionOver)?;
    let number: u64 = call.param(0)?;
    let result: CommandResult = call.read()?;
    if result.number.0 != number {
        return Err(Fail::field("number", "the result's number is not that of its path"));
    }
    tenant.alone()?;
    in_session(tenant, device, session)?;
    let sql =
        "SELECT operation, app, result, body FROM command WHERE account = $1 AND device = $2 AND number = $3";
    let row = tenant.one(sql, &[device.0.into(), number.into()])?.ok_or_else(Fail::not_found)?;
    if !row.is_null(2) {
        return Ok(Reply::none());
    }
    let kept = CommandResult { data: tasks::without_moments(result.data.clone()), ..result.clone() };
    tenant.execute(
        "UPDATE command SET result = $4, at = $5 WHERE account = $1 AND device = $2 AND number = $3",
        &[device.0.into(), number.into(), json(&kept).into(), chance::now().into()],
    )?;
    let operation = orchestrator_api::ids::OperationId(row.id(0)?);
    let app = row.maybe(1, Row::id::<16>)?.map(AppId);
    let command: Command = read(row.text(3)?)?;
    tasks::forget_inputs(tenant, device, &command)?;
    let there =
        tenant.one("SELECT 1 FROM operation WHERE account = $1 AND operation = $2", &[operation.0.into()])?;
    if there.is_none() {
        return Ok(Reply::none());
    }
    let Some(app) = app else {
        tasks::answered(tenant, operation, device, &command, &result)?;
        return Ok(Reply::none());
    };
    let gone = tenant.one("SELECT 1 FROM app WHERE account = $1 AND app = $2", &[app.0.into()])?.is_none();
    if gone || tasks::is_task(tenant, operation)? {
        tasks::answered(tenant, operation, device, &command, &result)?;
        return Ok(Reply::none());
    }
    let Some(mut loaded) = Loaded::operation(tenant, operation)? else { return Ok(Reply::none()) };
    outcome::learn(tenant, &mut loaded, app, device, operation, &result)?;
    if let Some(decided) = command.decided() {
        let given = crate::Given { command: decided, result: None };
        loaded.hive.commands.insert((device, CommandNumber(number)), given);
        loaded.forget_commands();
    }
    let said = result.decided(app);
    let answer = decide(&mut loaded.hive, Event::Result { device, session, result: said });
    if let Answer::Refused(refusal) = answer {
        return Err(refusal.into());
    }
    let writers = loaded.hive.devices.get(&device).map(|row| row.writers.clone()).unwrap_or_default();
    outcome::keep_writers(tenant, app, device, &writers)?;
    loaded.save(tenant)?;
    if matches!(command.order, Order::Stop) && result.state == ResultState::Done {
        // Its next report says so, too. Until then nobody stops it again.
        let stopped =
            PhaseColumn { phase: Phase::Stopped, why: Some(Why::Ordered), problem: None, health: None };
        tenant.execute(
            "UPDATE device_app SET phase = $5, live = 0 WHERE account = $1 AND app = $2 AND device = $3 AND term = $4",
            &[
                app.0.into(),
                device.0.into(),
                command.term.map_or(0, |term| term.0).into(),
                json(&stopped).into(),
            ],
        )?;
    }
    tenant.told.insert(super::tenant::Wake::Scheduler);
    Ok(Reply::none())
}

/// `POST /v1/device/leave`.
pub fn leave(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (device, _) = call.device()?;
    tenant.alone()?;
    tasks::close_device(tenant, device, false)?;
    Ok(Reply::none())
}

const SEEN: &str = "SELECT device, name, state, locked, joined, seen, version, arch, features, auto_update, \
     accepts_authoring, stores_open, generation FROM device WHERE account = $1";

fn view(tenant: &mut Tenant<'_>, row: &Row) -> Result<Device, Fail> {
    let id = DeviceId(row.id(0)?);
    let now = chance::now();
    let seen = row.maybe(5, Row::int)?;
    let silent = seen.is_none_or(|seen| now - seen > SILENT_MS);
    let state = match row.text(2)? {
        "revoked" => DeviceState::Revoked,
        _ if silent => DeviceState::Silent,
        "draining" => DeviceState::Draining,
        _ => DeviceState::Online,
    };
    let heard = tenant.heard(id)?;
    let report = heard.as_ref().map(|heard| &heard.report);
    let placed = tenant
        .query("SELECT app FROM app WHERE account = $1 AND device = $2 ORDER BY name", &[id.0.into()])?;
    let apps: Result<Vec<AppId>, _> = placed.iter().map(|row| row.id(0).map(AppId)).collect();
    let features: List<orchestrator_api::wire::value::Word, 64> = read(row.text(8)?)?;
    Ok(Device {
        id,
        name: row.text(1)?.to_owned(),
        state,
        locked: row.flag(3)?,
        joined: chance::time(row.int(4)?),
        seen_age_ms: seen.map(|seen| Number((now - seen).max(0).unsigned_abs())),
        version: row.text(6)?.to_owned(),
        arch: arch(row.text(7)?),
        features: features.iter().map(|word| word.as_str().to_owned()).collect(),
        auto_update: row.flag(9)?,
        accepts_authoring: row.flag(10)?,
        update: report.and_then(|report| report.update),
        load: report.map(|report| report.load),
        disks: report.map(|report| report.disks.to_vec()).unwrap_or_default(),
        docker: report.map(|report| report.docker),
        apps: apps?,
        stores_open: row.flag(11)?,
        generation: Generation(row.count(12)?),
    })
}

/// The row of a device, or that there is none.
pub fn row(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<Row, Fail> {
    tenant.one(&format!("{SEEN} AND device = $2"), &[device.0.into()])?.ok_or_else(Fail::not_found)
}

/// A device as people see it.
pub fn seen(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<Device, Fail> {
    let row = row(tenant, device)?;
    view(tenant, &row)
}

/// A device that reported lately: only such a one is asked for something new.
pub fn online(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<Device, Fail> {
    let device = seen(tenant, device)?;
    let name = &device.name;
    if device.state == DeviceState::Revoked {
        return Err(Fail::new(Code::DeviceRevoked, format!("the device \"{name}\" was revoked"))
            .hint("`comb device code` makes a code by which it joins again"));
    }
    if device.seen_age_ms.is_none_or(|age| age.0 > FRESH_MS.unsigned_abs()) {
        return Err(Fail::new(Code::DeviceSilent, format!("\"{name}\" has not reported for 15 seconds"))
            .hint("see that its machine runs and reaches the hive, then order it again"));
    }
    Ok(device)
}

/// `GET /v1/devices`.
pub fn list(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let limit = call.limit()?;
    let after = match call.query_as::<DeviceId>("after")? {
        Some(id) => row(tenant, id)?.text(1)?.to_owned(),
        None => String::new(),
    };
    let sql = format!("{SEEN} AND name > $2 ORDER BY name LIMIT $3");
    let rows = tenant.query(&sql, &[after.into(), (limit as u64).into()])?;
    let items: Result<Vec<Device>, Fail> = rows.iter().map(|row| view(tenant, row)).collect();
    let items = items?;
    let next = items.last().filter(|_| items.len() == limit).map(|last| last.id.to_string());
    Ok(Reply::json(&Page { items, next }))
}

/// `GET /v1/devices/{id}`.
pub fn show(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let device = seen(tenant, call.param(0)?)?;
    let generation = device.generation.0;
    Ok(Reply::json(&device).etag(generation))
}

/// `PATCH /v1/devices/{id}`.
pub fn rename(call: &Call, tenant: &mut Tenant<'_>) -> Result<Reply, Fail> {
    let (id, wish): (DeviceId, ChangeDevice) = (call.param(0)?, call.read()?);
    call.matches(seen(tenant, id)?.generation.0)?;
    let changed = tenant.execute(
        "UPDATE device SET name = $3, generation = generation + 1 WHERE account = $1 AND device = $2",
        &[id.0.into(), wish.name.as_str().into()],
    );
    changed.map_err(|error| Fail::from(error).taken("another device has that name"))?;
    tenant.event("renamed", About::device(id));
    tenant.changed("device", id);
    show(call, tenant)
}

/// Devices that a recovering hive waits for, of one account.
pub fn missing(tenant: &mut Tenant<'_>, incarnation: Incarnation) -> Result<Vec<DeviceId>, Fail> {
    let rows = tenant.query(recovery::MISSING, &[incarnation.0.into()])?;
    Ok(rows.iter().map(|row| row.id(0).map(DeviceId)).collect::<Result<_, _>>()?)
}
