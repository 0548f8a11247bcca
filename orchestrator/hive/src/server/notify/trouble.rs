//! What is the matter with an account's devices and apps.
//!
//! Trouble is looked for, not listened to: what is the matter now is compared with what was the matter at the last look, so
//! nothing is told twice, and nothing is missed while the hive was away. It is told when it lasts.
//!
//! Invariants
//! - Only who must know it ends trouble: what was told of a device that is silent now, and of its apps, lasts.
//! - That data is safe again is said of the device that had it only, not of one that went on without it.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::placement::Problem;
use orchestrator_api::wire::report::{Health, Phase, Report, UpdateStep};

use super::Note;
use crate::server::chance;
use crate::server::database::Row;
use crate::server::devices::SILENT_MS;
use crate::server::fail::Fail;
use crate::server::rows::{self, OperationData, PhaseColumn};
use crate::server::tasks::Task;
use crate::server::tenant::{About, Tenant, read};

/// Trouble is told when it lasts so long.
const LASTS_MS: i64 = 30_000;
/// Data is late after this.
pub const BEHIND_MS: u64 = 120_000;
/// What failed is trouble for so long.
pub const FAILED_MS: i64 = 3_600_000;
/// Messages that are sent because of one look.
const MESSAGES_MAX: usize = 20;

/// What is the matter: its kind and with what, and how that is told.
type Troubles = BTreeMap<([u8; 16], &'static str), (String, String)>;

/// What one look found.
#[derive(Debug, Default)]
pub struct Found {
    /// What is the matter.
    present: Troubles,
    /// Of what nobody who must know it told anything: what was the matter there lasts.
    unheard: BTreeSet<([u8; 16], &'static str)>,
}

/// An app, as far as trouble with it is told.
struct App {
    name: String,
    holder: Option<DeviceId>,
    wanted: bool,
    revision: u64,
    /// When its device said last that this revision runs.
    ran: Option<i64>,
}

/// Apps of an account. What their devices did not tell in this look is not known.
fn apps(tenant: &mut Tenant<'_>, found: &mut Found) -> Result<BTreeMap<AppId, App>, Fail> {
    let mut apps = BTreeMap::new();
    for row in tenant.query("SELECT app, name, device, wanted, revision FROM app WHERE account = $1", &[])? {
        let id = AppId(row.id(0)?);
        let holder = row.maybe(2, Row::id::<16>)?.map(DeviceId);
        let (name, wanted, revision) = (row.text(1)?.to_owned(), row.flag(3)?, row.count(4)?);
        if holder.is_some() {
            found.unheard.insert((id.0, "behind"));
        }
        if holder.is_some() && wanted {
            found.unheard.insert((id.0, "not_well"));
        }
        apps.insert(id, App { name, holder, wanted, revision, ran: None });
    }
    Ok(apps)
}

/// What is the matter with an account; nothing of one that recovers, since the hive does not know yet.
pub fn troubles(tenant: &mut Tenant<'_>) -> Result<Option<Found>, Fail> {
    if rows::life(tenant)?.recovering {
        return Ok(None);
    }
    let now = chance::now();
    let mut found = Found::default();
    let mut apps = apps(tenant, &mut found)?;
    let mut heard = BTreeSet::new();
    let sql = "SELECT device, name, seen, report FROM device WHERE account = $1 AND state <> 'revoked' AND seen IS NOT NULL";
    for row in tenant.query(sql, &[])? {
        let (id, name, seen) = (DeviceId(row.id(0)?), row.text(1)?, row.int(2)?);
        if now - seen > SILENT_MS {
            let text = format!(
                "\"{name}\" has not been heard since {}. See that its machine runs and reaches the hive.",
                chance::time(seen)
            );
            found.present.insert((id.0, "silent"), (format!("{name} is silent"), text));
            found.unheard.insert((id.0, "update_failed"));
            continue;
        }
        heard.insert(id);
        let Some(report) = row.maybe(3, Row::text)?.map(read::<Report>).transpose()? else { continue };
        if report.update.is_some_and(|update| update.state == UpdateStep::GoneBack) {
            let text = format!("\"{name}\" tried an update, was not well, and runs the version before.");
            found.present.insert((id.0, "update_failed"), (format!("the update of {name} failed"), text));
        }
        for told in report.apps.iter() {
            let Some(app) = apps.get_mut(&told.app).filter(|app| app.holder == Some(id)) else { continue };
            if told.phase == Phase::Running && told.revision.0 == app.revision {
                app.ran = Some(seen);
            }
            // A volume that its device has not looked at yet has no age: what of it is safe is not known.
            if !told.volumes.is_empty() && told.volumes.iter().all(|one| one.replicated_age_ms.is_some()) {
                found.unheard.remove(&(told.app.0, "behind"));
            }
            let late = told.volumes.iter().filter_map(|volume| volume.backlog_age_ms).map(|age| age.0).max();
            if let Some(late) = late.filter(|late| *late > BEHIND_MS) {
                let text = format!(
                    "What \"{}\" wrote on \"{name}\" in the last {} s is not safe elsewhere yet.",
                    app.name,
                    late / 1000
                );
                let title = format!("{}: data is late", app.name);
                found.present.insert((told.app.0, "behind"), (title, text));
            }
        }
    }
    not_well(tenant, &apps, &heard, &mut found)?;
    ended(tenant, &apps, now, &mut found)?;
    Ok(Some(found))
}

/// Apps of which a device that was heard says that they are not well.
fn not_well(
    tenant: &mut Tenant<'_>,
    apps: &BTreeMap<AppId, App>,
    heard: &BTreeSet<DeviceId>,
    found: &mut Found,
) -> Result<(), Fail> {
    let sql = "SELECT app, device, phase FROM device_app WHERE account = $1 AND phase IS NOT NULL";
    for row in tenant.query(sql, &[])? {
        let (id, device) = (AppId(row.id(0)?), DeviceId(row.id(1)?));
        let is_holder = |app: &&App| app.holder == Some(device) && app.wanted && heard.contains(&device);
        let Some(App { name, .. }) = apps.get(&id).filter(is_holder) else { continue };
        found.unheard.remove(&(id.0, "not_well"));
        let phase: PhaseColumn = read(row.text(2)?)?;
        let why = match (phase.problem, phase.health) {
            (Some(problem), _) => Some(orchestrator_console::show::problem(problem.text()).0),
            (None, Some(Health::Unhealthy)) => Some("it says so itself".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            let told = (format!("{name} is not well"), format!("\"{name}\" is not well: {why}."));
            found.present.insert((id.0, "not_well"), told);
        }
    }
    Ok(())
}

/// Failovers, and updates that failed, of the last hour.
fn ended(
    tenant: &mut Tenant<'_>,
    apps: &BTreeMap<AppId, App>,
    now: i64,
    found: &mut Found,
) -> Result<(), Fail> {
    let sql = "SELECT operation, app, kind, state, code, data, ended FROM operation WHERE account = $1 AND ended > $2 AND \
         ((kind = 'failover' AND state IN ('done', 'failed')) OR (kind = 'update' AND state = 'failed'))";
    for row in tenant.query(sql, &[(now - FAILED_MS).into()])? {
        let app = row.maybe(1, Row::id::<16>)?.and_then(|app| apps.get(&AppId(app)));
        let Some(app) = app else { continue };
        let name = &app.name;
        let (title, text, kind) = match (row.text(2)?, row.text(3)?) {
            ("update", _) => {
                let failed = FailedUpdate::of(&row, (4, 5, 6))?;
                let Some(words) = failed.words(app.revision, app.ran) else { continue };
                let text = format!("The last update of \"{name}\" failed. {words}");
                (format!("the update of {name} failed"), text, "update_failed")
            }
            (_, "done") => (
                format!("{name} failed over"),
                format!("The device of \"{name}\" was lost, and another one went on with it."),
                "failed_over",
            ),
            _ => (
                format!("{name} could not fail over"),
                format!("The device of \"{name}\" was lost, and no other one could go on."),
                "failed_over",
            ),
        };
        found.present.insert((row.id(0)?, kind), (title, text));
    }
    Ok(())
}

/// An update of an app that ended as failed.
#[derive(Debug)]
pub struct FailedUpdate {
    went_back: bool,
    revision: Option<u64>,
    ended: i64,
}

impl FailedUpdate {
    /// Of an operation's row: where its code, its data and its end are.
    pub fn of(row: &Row, (code, data, ended): (usize, usize, usize)) -> Result<Self, Fail> {
        let data: OperationData = read(row.text(data)?)?;
        let revision = match data.task {
            Some(Task::Update { revision }) => Some(revision),
            _ => None,
        };
        let went_back = row.maybe(code, Row::text)? == Some(Problem::UpdateRolledBack.text());
        Ok(Self { went_back, revision, ended: row.int(ended)? })
    }

    /// How it ended, in words, for an app that has this revision and whose device, if it is heard, said then that this one
    /// runs. Many ends tell nothing of that: the hive waited no longer, or force took the update's place (`failover.md`,
    /// section 11). None where the update is in its place all the same, as its device told later.
    pub fn words(&self, revision: u64, ran: Option<i64>) -> Option<&'static str> {
        if self.revision == Some(revision) {
            return None;
        }
        Some(match self.went_back || ran.is_some_and(|ran| ran >= self.ended) {
            true => "It runs as before, with its data.",
            false => "How it ended is not known: no device has told since then that the app runs.",
        })
    }
}

/// Whether a kind of trouble is over some time, or just happened.
fn lasts(kind: &str) -> bool {
    kind != "failed_over"
}

/// The kinds of events that begin and end with trouble.
fn events(kind: &str) -> Option<(&'static str, &'static str, bool)> {
    match kind {
        "silent" => Some(("silent", "back", false)),
        "behind" => Some(("behind", "safe_again", true)),
        _ => None,
    }
}

/// How trouble ended that was told.
enum Ending {
    /// What was the matter is not any more.
    Over,
    /// The device was revoked.
    Revoked,
    /// The app was removed, or no device has it any more.
    Gone,
    /// Another device went on with the app, without what the one before had not made safe.
    Elsewhere,
}

impl Ending {
    fn of(tenant: &mut Tenant<'_>, subject: [u8; 16], kind: &str, since: i64) -> Result<Self, Fail> {
        if !matches!(kind, "behind" | "not_well") {
            let sql = "SELECT state FROM device WHERE account = $1 AND device = $2";
            let row = tenant.one(sql, &[subject.into()])?;
            let state = row.as_ref().map(|row| row.text(0)).transpose()?;
            return Ok(match (state, kind) {
                (Some("revoked"), _) | (None, "silent") => Self::Revoked,
                _ => Self::Over,
            });
        }
        let row = tenant.one("SELECT device FROM app WHERE account = $1 AND app = $2", &[subject.into()])?;
        let holder = row.map(|row| row.maybe(0, Row::id::<16>)).transpose()?.flatten();
        let Some(holder) = holder else { return Ok(Self::Gone) };
        if kind == "behind" && was_taken(tenant, subject, DeviceId(holder), since)? {
            return Ok(Self::Elsewhere);
        }
        Ok(Self::Over)
    }

    fn note(&self, title: &str) -> Note {
        let (title, text) = match self {
            Self::Over => (format!("over: {title}"), format!("This is over: {title}.")),
            Self::Revoked => {
                (format!("over: {title}"), format!("This is told no more: {title}. The device was revoked."))
            }
            Self::Gone => (
                format!("over: {title}"),
                format!("This is told no more: {title}. No device has the app any more."),
            ),
            Self::Elsewhere => (
                format!("went on elsewhere: {title}"),
                format!(
                    "This is told no more: {title}. Another device went on with what was safe; what was late is not \
                     there, and is kept on the device before, if that comes back."
                ),
            ),
        };
        Note::new("over", title, text)
    }
}

/// Whether an app was taken, since then, from a device that did not hand it over, and another one has it.
fn was_taken(tenant: &mut Tenant<'_>, app: [u8; 16], holder: DeviceId, since: i64) -> Result<bool, Fail> {
    let sql = "SELECT data FROM operation WHERE account = $1 AND app = $2 \
         AND kind IN ('failover', 'move_forced', 'start') AND (ended IS NULL OR ended >= $3)";
    for row in tenant.query(sql, &[app.into(), since.into()])? {
        let data: OperationData = read(row.text(0)?)?;
        if data.from.is_some_and(|from| from != holder) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares what is the matter now with what was; what somebody is to be told.
pub fn look_at(tenant: &mut Tenant<'_>, found: &Found) -> Result<Vec<Note>, Fail> {
    let now = chance::now();
    let mut known: BTreeMap<([u8; 16], String), (i64, bool, String)> = BTreeMap::new();
    for row in
        tenant.query("SELECT subject, kind, since, told, title FROM trouble WHERE account = $1", &[])?
    {
        known.insert(
            (row.id(0)?, row.text(1)?.to_owned()),
            (row.int(2)?, row.flag(3)?, row.text(4)?.to_owned()),
        );
    }
    let about = |subject: [u8; 16], is_app: bool| {
        if is_app { About::app(AppId(subject)) } else { About::device(DeviceId(subject)) }
    };
    let mut notes = Vec::new();
    for ((subject, kind), (title, text)) in &found.present {
        let had = known.remove(&(*subject, (*kind).to_owned()));
        match had {
            None => {
                tenant.execute(
                    "INSERT INTO trouble (account, subject, kind, since, told, title) VALUES ($1, $2, $3, $4, 0, $5)",
                    &[(*subject).into(), (*kind).into(), now.into(), title.into()],
                )?;
            }
            Some((since, false, _)) if now - since >= LASTS_MS || !lasts(kind) => {
                tenant.execute(
                    "UPDATE trouble SET told = 1 WHERE account = $1 AND subject = $2 AND kind = $3",
                    &[(*subject).into(), (*kind).into()],
                )?;
                if let Some((begins, _, is_app)) = events(kind) {
                    tenant.event(begins, about(*subject, is_app));
                }
                notes.push(Note::new(kind, title.clone(), text.clone()));
            }
            Some(_) => {}
        }
    }
    let unheard: &BTreeSet<([u8; 16], &str)> = &found.unheard;
    for ((subject, kind), (since, told, title)) in known {
        if unheard.contains(&(subject, kind.as_str())) {
            continue;
        }
        tenant.execute(
            "DELETE FROM trouble WHERE account = $1 AND subject = $2 AND kind = $3",
            &[subject.into(), (&kind).into()],
        )?;
        if told && lasts(&kind) {
            let ending = Ending::of(tenant, subject, &kind, since)?;
            if let (Ending::Over, Some((_, ends, is_app))) = (&ending, events(&kind)) {
                tenant.event(ends, about(subject, is_app));
            }
            notes.push(ending.note(&title));
        }
    }
    if notes.len() > MESSAGES_MAX {
        let more = notes.len() - MESSAGES_MAX;
        notes.truncate(MESSAGES_MAX);
        notes.push(Note::new(
            "more",
            format!("{more} more"),
            format!("{more} more things changed at once: the console has them."),
        ));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::database::Value;
    use crate::server::scheduler::stage::{Stage, id};

    const ACCOUNT: [u8; 16] = [1; 16];
    const ATTIC: [u8; 16] = id(2);
    const CELLAR: [u8; 16] = id(3);
    const PHOTOS: [u8; 16] = id(4);
    const LATE_MS: u64 = BEHIND_MS + 60_000;

    /// Two devices, and an app that runs on the first.
    struct House(Stage);

    impl House {
        async fn new() -> Self {
            let stage = Stage::with(&[ACCOUNT]).await;
            for (device, name) in [(ATTIC, "attic"), (CELLAR, "cellar")] {
                let state = ("state", "active".into());
                stage
                    .put(
                        "device",
                        &[
                            ("account", ACCOUNT.into()),
                            ("device", device.into()),
                            ("name", name.into()),
                            state,
                        ],
                    )
                    .await;
            }
            let app = [
                ("account", ACCOUNT.into()),
                ("app", PHOTOS.into()),
                ("name", "photos".into()),
                ("revision", 1_i64.into()),
                ("wanted", true.into()),
                ("device", ATTIC.into()),
            ];
            stage.put("app", &app).await;
            let house = Self(stage);
            house.reports(CELLAR, json!([])).await;
            house
        }

        async fn run(&self, sql: &str, values: &[Value]) {
            self.0.run(sql, values).await;
        }

        async fn reports(&self, device: [u8; 16], apps: serde_json::Value) {
            let report = json!({
                "number": 7, "boottime_ms": 1, "version": "0.1.0", "update": null, "commands_have": 3,
                "load": {"cpu_percent": 1, "memory_bytes": 8, "memory_free_bytes": 4, "load_1m": 1}, "disks": [],
                "docker": "ok", "stores": [], "renew": [], "apps": apps
            });
            let sql = "UPDATE device SET report = $2, seen = $3 WHERE device = $1";
            self.run(sql, &[device.into(), report.to_string().into(), chance::now().into()]).await;
        }

        /// A device has the app, and changes that wait for the store since then; none says that it does not know.
        async fn has(&self, device: [u8; 16], backlog_ms: Option<Option<u64>>) {
            let waits = backlog_ms.flatten();
            let volume = json!({
                "volume": "aa".repeat(32), "state": "mounted", "epoch": 1, "seq": 5, "manifest": "bb".repeat(32),
                "writer": "cc".repeat(16), "replicated_age_ms": backlog_ms.map(|age| age.unwrap_or(0)),
                "backlog_bytes": if waits.is_some() { 512 } else { 0 }, "backlog_age_ms": waits, "bytes": 4096,
                "files": 3, "stores_behind": 0
            });
            let app = json!({
                "app": orchestrator_api::text::Uuid(PHOTOS).to_string(), "term": 1, "generation": 1, "revision": 1,
                "phase": "running", "phase_age_ms": 1, "health": "healthy", "volumes": [volume]
            });
            self.reports(device, json!([app])).await;
        }

        async fn is_silent(&self, device: [u8; 16]) {
            self.run(
                "UPDATE device SET seen = $2 WHERE device = $1",
                &[device.into(), (chance::now() - 40_000).into()],
            )
            .await;
        }

        /// Looks twice, with time enough between that what lasts is told: its titles.
        async fn told(&self) -> Vec<String> {
            let mut all = Vec::new();
            for _ in 0..2 {
                let look = |tx: &mut dyn crate::server::database::Tx| {
                    let mut tenant = Tenant::new(tx, ACCOUNT);
                    let found = troubles(&mut tenant)?.expect("it does not recover");
                    let notes = look_at(&mut tenant, &found)?;
                    tenant.end()?;
                    Ok(notes)
                };
                all.extend(self.0.transact(look).await.into_iter().map(|note| note.title));
                self.run("UPDATE trouble SET since = since - $1", &[LASTS_MS.into()]).await;
            }
            all
        }

        async fn events(&self) -> Vec<String> {
            let kind = |row: &Row| {
                let event: serde_json::Value = read(row.text(0).expect("is a text")).expect("is JSON");
                event["kind"].as_str().expect("has a kind").to_owned()
            };
            self.0.rows("SELECT event FROM event ORDER BY number").await.iter().map(kind).collect()
        }

        async fn operation(
            &self,
            kind: &'static str,
            state: &'static str,
            code: Option<&str>,
            data: OperationData,
        ) {
            let values = [
                ("account", ACCOUNT.into()),
                ("operation", [9; 16].into()),
                ("app", PHOTOS.into()),
                ("kind", kind.into()),
                ("state", state.into()),
                ("code", code.into()),
                ("data", crate::server::tenant::json(&data).into()),
                ("ended", chance::now().into()),
            ];
            self.0.put("operation", &values).await;
        }
    }

    #[tokio::test]
    async fn what_a_silent_device_does_not_tell_is_not_over() {
        let house = House::new().await;
        house.has(ATTIC, Some(Some(LATE_MS))).await;
        let phase = r#"{"phase":"running","why":null,"problem":null,"health":"unhealthy"}"#;
        let own = [
            ("account", ACCOUNT.into()),
            ("app", PHOTOS.into()),
            ("device", ATTIC.into()),
            ("phase", phase.into()),
        ];
        house.0.put("device_app", &own).await;
        assert_eq!(house.told().await, ["photos: data is late", "photos is not well"]);
        house.is_silent(ATTIC).await;
        assert_eq!(house.told().await, ["attic is silent"]);
        assert_eq!(house.events().await, ["behind", "silent"]);
        // It is back, and has not looked at its volumes yet.
        house.has(ATTIC, None).await;
        assert_eq!(house.told().await, ["over: attic is silent"]);
        house.has(ATTIC, Some(None)).await;
        house.run("UPDATE device_app SET phase = $1", &[phase.replace("unhealthy", "healthy").into()]).await;
        assert_eq!(house.told().await, ["over: photos: data is late", "over: photos is not well"]);
        assert_eq!(house.events().await, ["behind", "silent", "back", "safe_again"]);
    }

    #[tokio::test]
    async fn who_goes_on_with_an_app_does_not_make_safe_what_its_device_had() {
        let house = House::new().await;
        house.has(ATTIC, Some(Some(LATE_MS))).await;
        house.told().await;
        house.is_silent(ATTIC).await;
        house.told().await;
        let data = OperationData { from: Some(DeviceId(ATTIC)), ..OperationData::default() };
        house.operation("failover", "done", None, data).await;
        house.run("UPDATE app SET device = $1", &[CELLAR.into()]).await;
        house.has(CELLAR, Some(None)).await;
        assert_eq!(house.told().await, ["went on elsewhere: photos: data is late", "photos failed over"]);
        assert_eq!(house.events().await, ["behind", "silent"]);
    }

    #[tokio::test]
    async fn a_device_that_was_revoked_is_not_back_nor_its_data_safe() {
        let house = House::new().await;
        house.has(ATTIC, Some(Some(LATE_MS))).await;
        house.told().await;
        house.is_silent(ATTIC).await;
        house.told().await;
        house.run("UPDATE device SET state = 'revoked' WHERE device = $1", &[ATTIC.into()]).await;
        // The app has not left it yet.
        assert_eq!(house.told().await, ["over: attic is silent"]);
        house.run("UPDATE app SET device = NULL", &[]).await;
        assert_eq!(house.told().await, ["over: photos: data is late"]);
        assert_eq!(house.events().await, ["behind", "silent"]);
    }

    #[tokio::test]
    async fn an_update_that_failed_runs_as_before_only_where_that_is_known() {
        const BEFORE: &str = "It runs as before, with its data.";
        const UNKNOWN: &str = "How it ended is not known: no device has told since then that the app runs.";
        for (code, words) in [("update_rolled_back", BEFORE), ("forced", UNKNOWN), ("device_silent", UNKNOWN)]
        {
            let house = House::new().await;
            house.has(ATTIC, Some(None)).await;
            house.run("UPDATE device SET seen = seen - 5000", &[]).await;
            let data = OperationData { task: Some(Task::Update { revision: 2 }), ..OperationData::default() };
            house.operation("update", "failed", Some(code), data).await;
            let found = async || {
                let look = |tx: &mut dyn crate::server::database::Tx| troubles(&mut Tenant::new(tx, ACCOUNT));
                let found = house.0.transact(look).await.expect("it does not recover");
                found.present.get(&([9; 16], "update_failed")).map(|(_, text)| text.clone())
            };
            assert_eq!(
                found().await,
                Some(format!("The last update of \"photos\" failed. {words}")),
                "{code}"
            );
            // Its device tells that what it had runs.
            house.has(ATTIC, Some(None)).await;
            assert_eq!(
                found().await,
                Some(format!("The last update of \"photos\" failed. {BEFORE}")),
                "{code}"
            );
            // The update was in its place all the same.
            house.run("UPDATE app SET revision = 2", &[]).await;
            assert_eq!(found().await, None, "{code}");
        }
    }
}
