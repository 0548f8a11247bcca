//! Operations that neither give nor end a term: one command to a device, and what follows it.

use orchestrator_api::error::Code;
use orchestrator_api::history::What;
use orchestrator_api::ids::{AppId, CommandNumber, DeviceId, Generation, OperationId, Term};
use orchestrator_api::placement::Problem;
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::app::Install;
use orchestrator_api::wire::command::{Author, Command, CommandResult, Data, Order, ResultState};
use orchestrator_api::wire::operation::Outcome;
use orchestrator_api::wire::value::List;
use serde::{Deserialize, Serialize};

use super::apps;
use super::chance;
use super::database::{Database, How, Row};
use super::devices;
use super::drain::Drain;
use super::fail::Fail;
use super::outcome;
use super::recovery;
use super::removal::{self, Asked, Progress, Removal};
use super::rows::{self, Loaded, OperationRow};
use super::tenant::{About, Tenant, Told, Wake, json, read};
use crate::{Event, Kind, Operation, OperationState, Refused, Step, decide};

/// What follows a command of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Nothing.
    Plain,
    /// The stream of what it says is over.
    Stream {
        /// Its id.
        stream: Uuid,
    },
    /// The moments are kept.
    Moments,
    /// The app is rolled back and stays stopped: it is not wanted from the order on, and again where that fails.
    RollbackStopped,
    /// The app has another revision.
    Update {
        /// Which.
        revision: u64,
    },
    /// There is another app.
    Fork {
        /// Its id.
        app: AppId,
        /// What it is called.
        name: String,
        /// Of which one it is made.
        of: AppId,
        /// Who made it.
        device: DeviceId,
    },
    /// An app is made of the package that was sealed.
    Author {
        /// Its id.
        app: AppId,
        /// What it is called.
        name: String,
        /// Who sealed it, and is to run it.
        device: DeviceId,
        /// How it is made.
        install: Install,
    },
    /// The device stands by for the app.
    Standby,
    /// A device is being emptied.
    Drain(Drain),
    /// A device takes a release of its program.
    UpdateDevice {
        /// Which.
        release: u64,
    },
    /// The app is stopped; then it is forgotten.
    Remove(Removal),
}

impl Task {
    /// Whether what the hive has written down stays true when the device does it and nobody hears of that.
    fn may_go_unheard(&self) -> bool {
        match self {
            Self::Stream { .. }
            | Self::Moments
            | Self::Standby
            | Self::Drain(_)
            | Self::UpdateDevice { .. } => true,
            Self::Plain
            | Self::RollbackStopped
            | Self::Update { .. }
            | Self::Fork { .. }
            | Self::Author { .. }
            | Self::Remove(_) => false,
        }
    }
}

/// Kinds that may run beside others of an app: they change nothing of it.
const BESIDE: [&str; 4] = ["logs", "action", "moments", "standby"];

/// Whether an operation is a task.
pub fn is_task(tenant: &mut Tenant<'_>, operation: OperationId) -> Result<bool, Fail> {
    let sql = "SELECT data FROM operation WHERE account = $1 AND operation = $2";
    let row = tenant.one(sql, &[operation.0.into()])?.ok_or_else(Fail::not_found)?;
    let data: rows::OperationData = read(row.text(0)?)?;
    Ok(data.task.is_some())
}

fn blank(app: Option<AppId>, to: Option<DeviceId>, state: OperationState) -> Operation {
    Operation {
        app: app.unwrap_or(AppId([0; 16])),
        kind: Kind::Task,
        step: Step::Task,
        count: 0,
        waits: None,
        from: None,
        to,
        heads: None,
        rollback_to: Default::default(),
        tried: Default::default(),
        reason: None,
        state,
    }
}

/// Begins a task: its operation, and its command.
pub fn begin(
    tenant: &mut Tenant<'_>,
    kind: &str,
    app: Option<AppId>,
    device: DeviceId,
    task: Task,
    order: Order,
) -> Result<OperationId, Fail> {
    if rows::life(tenant)?.recovering {
        return Err(recovering());
    }
    if let Some(app) = app
        && !BESIDE.contains(&kind)
    {
        apps::nothing_runs(tenant, app)?;
    }
    let id = open(tenant, kind, app, device, task)?;
    let number = command(tenant, id, app, device, order)?;
    if let Some(mut open) = load(tenant, id)? {
        open.beside.data.waits = Some((device, number));
        open.operation.count = 1;
        rows::update_operation(tenant, id, &open.beside, &open.operation)?;
    }
    Ok(id)
}

/// A task without a command: what it needs is ordered as it goes on.
pub fn open(
    tenant: &mut Tenant<'_>,
    kind: &str,
    app: Option<AppId>,
    device: DeviceId,
    task: Task,
) -> Result<OperationId, Fail> {
    let id = OperationId(chance::uuid().0);
    let mut beside =
        OperationRow { kind: kind.to_owned(), step: Some(kind.to_owned()), ..OperationRow::default() };
    beside.data.task = Some(task);
    beside.data.to = Some(device);
    let operation = blank(app, Some(device), OperationState::Running);
    rows::insert_operation(tenant, id, app, &beside, &operation)?;
    rows::update_operation(tenant, id, &beside, &operation)?;
    rows::tell_operation(tenant, id, app, &beside, &operation);
    tenant.changed("operation", id);
    Ok(id)
}

/// A task that runs, read to be changed.
pub struct Open {
    /// Its id.
    pub id: OperationId,
    /// Its app.
    pub app: Option<AppId>,
    /// How it stands.
    pub operation: Operation,
    /// What is kept beside.
    pub beside: OperationRow,
}

impl Open {
    /// A removal goes on with another device, which has not taken its command yet.
    pub fn asks(&mut self, (wish, device, number): Asked) {
        self.beside.data.task = Some(Task::Remove(wish));
        self.beside.data.waits = Some((device, number));
        self.beside.data.taken = false;
        self.operation.state = OperationState::Running;
        self.operation.count += 1;
    }
}

/// Reads a task; none if it ended.
pub fn load(tenant: &mut Tenant<'_>, id: OperationId) -> Result<Option<Open>, Fail> {
    let sql = "SELECT kind, step, count, data, app FROM operation WHERE account = $1 AND operation = $2 \
         AND state = 'running'";
    let Some(row) = tenant.one(sql, &[id.0.into()])? else { return Ok(None) };
    let data: rows::OperationData = read(row.text(3)?)?;
    let app = row.maybe(4, Row::id::<16>)?.map(AppId);
    let operation = Operation { count: row.count(2)?, ..blank(app, data.to, OperationState::Running) };
    let beside = OperationRow {
        kind: row.text(0)?.to_owned(),
        step: Some(row.text(1)?.to_owned()),
        data,
        ..OperationRow::default()
    };
    Ok(Some(Open { id, app, operation, beside }))
}

/// Writes down how a task stands.
pub fn save(tenant: &mut Tenant<'_>, id: OperationId, open: &Open) -> Result<(), Fail> {
    rows::update_operation(tenant, id, &open.beside, &open.operation)?;
    if open.operation.state != OperationState::Running {
        rows::tell_operation(tenant, id, open.app, &open.beside, &open.operation);
        if let Some(Task::Stream { stream }) = open.beside.data.task {
            let code = match open.operation.state {
                OperationState::Done => "done",
                OperationState::Failed(refused) if !open.beside.data.cancelled => rows::refused_text(refused),
                _ => "cancelled",
            };
            tenant.told.insert(Wake::Stream(tenant.account, stream, code.to_owned()));
        }
    }
    tenant.changed("operation", id);
    Ok(())
}

/// A task is not wanted any more: its device is not told of it, or whatever that still does of it, nobody waits for.
pub fn cancel(tenant: &mut Tenant<'_>, id: OperationId) -> Result<(), Fail> {
    let Some(mut open) = load(tenant, id)? else { return Ok(()) };
    leave(tenant, &open)?;
    forget_commands(tenant, id)?;
    open.beside.data.cancelled = true;
    open.beside.data.waits = None;
    open.operation.state = OperationState::Failed(Refused::State);
    save(tenant, id, &open)
}

/// Whether a task can be cancelled: what its device has, that one does, and the hive must hear what came of it.
pub fn can_cancel(tenant: &mut Tenant<'_>, data: &rows::OperationData) -> Result<bool, Fail> {
    let Some(task) = &data.task else { return Ok(false) };
    let Some((device, _)) = data.waits.filter(|_| data.taken && !task.may_go_unheard()) else {
        return Ok(true);
    };
    // One that was revoked never answers.
    let sql = "SELECT 1 FROM device WHERE account = $1 AND device = $2 AND state = 'revoked'";
    Ok(tenant.one(sql, &[device.0.into()])?.is_some())
}

/// The task that waits for a command which its device does not have yet.
fn untaken(tenant: &mut Tenant<'_>, device: DeviceId, command: &Command) -> Result<Option<Open>, Fail> {
    Ok(load(tenant, command.operation)?.filter(|open| {
        let data = &open.beside.data;
        data.task.is_some() && !data.taken && data.waits == Some((device, command.number))
    }))
}

/// Whether a task is to hear that its device has this command.
pub fn is_untaken(tenant: &mut Tenant<'_>, device: DeviceId, command: &Command) -> Result<bool, Fail> {
    Ok(untaken(tenant, device, command)?.is_some())
}

/// A device is given a command: from here on, what came of it is waited for.
pub fn taken(tenant: &mut Tenant<'_>, device: DeviceId, command: &Command) -> Result<(), Fail> {
    let Some(mut open) = untaken(tenant, device, command)? else { return Ok(()) };
    open.beside.data.taken = true;
    rows::update_operation(tenant, open.id, &open.beside, &open.operation)?;
    tenant.changed("operation", open.id);
    Ok(())
}

/// Nobody waits for a task any more, and what was ordered of a device is taken back.
pub fn give_up(tenant: &mut Tenant<'_>, id: OperationId, why: Refused) -> Result<(), Fail> {
    let Some(mut open) = load(tenant, id)? else { return Ok(()) };
    leave(tenant, &open)?;
    forget_commands(tenant, id)?;
    open.beside.data.waits = None;
    open.operation.state = OperationState::Failed(why);
    save(tenant, id, &open)
}

/// What a device did of an update or a rollback is not known when nobody waits for it any more; an app that was to stay stopped
/// after a rollback goes on.
fn leave(tenant: &mut Tenant<'_>, open: &Open) -> Result<(), Fail> {
    if let (Some(app), "rollback", true) = (open.app, open.beside.kind.as_str(), open.beside.data.taken)
        && let Some(to) = rows::rollback_of(tenant, open.id)?
    {
        rows::keep_rollback(tenant, app, &to)?;
    }
    match (open.app, &open.beside.data.task) {
        (Some(app), Some(Task::Update { .. })) => rows::keep_update(tenant, app, Some(open.id)),
        (Some(app), Some(Task::RollbackStopped)) => want(tenant, app, true),
        _ => Ok(()),
    }
}

/// Writes down whether an app is wanted running.
pub fn want(tenant: &mut Tenant<'_>, app: AppId, running: bool) -> Result<(), Fail> {
    tenant.execute(
        "UPDATE app SET wanted = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
        &[app.0.into(), running.into()],
    )?;
    tenant.changed("app", app);
    Ok(())
}

/// Takes back what a device did not answer yet.
pub fn forget_commands(tenant: &mut Tenant<'_>, id: OperationId) -> Result<(), Fail> {
    let sql = "DELETE FROM command WHERE account = $1 AND operation = $2 AND result IS NULL";
    tenant.execute(sql, &[id.0.into()])?;
    Ok(())
}

/// An operation that is done as soon as it was ordered, and is told as that.
pub fn done(
    tenant: &mut Tenant<'_>,
    kind: &str,
    app: Option<AppId>,
    device: Option<DeviceId>,
) -> Result<OperationId, Fail> {
    let id = OperationId(chance::uuid().0);
    let mut beside =
        OperationRow { kind: kind.to_owned(), step: Some(kind.to_owned()), ..OperationRow::default() };
    beside.data.task = Some(Task::Plain);
    beside.data.to = device;
    let operation = blank(app, device, OperationState::Done);
    rows::insert_operation(tenant, id, app, &beside, &operation)?;
    rows::update_operation(tenant, id, &beside, &operation)?;
    rows::tell_operation(tenant, id, app, &beside, &operation);
    let about = About { app, device, operation: Some(id), ..About::default() };
    tenant.event("finished", about.with("do", kind));
    tenant.changed("operation", id);
    Ok(id)
}

/// The hive waits for its devices.
pub fn recovering() -> Fail {
    Fail::new(Code::HiveRecovering, "the hive was restored, and waits for its devices")
        .hint("`comb hive recover` shows which are missing")
}

/// Writes a command of an operation down.
pub fn command(
    tenant: &mut Tenant<'_>,
    operation: OperationId,
    app: Option<AppId>,
    device: DeviceId,
    order: Order,
) -> Result<CommandNumber, Fail> {
    let floor = rows::life(tenant)?.floor;
    let sql = "SELECT command_number, state FROM device WHERE account = $1 AND device = $2";
    let row = tenant.one(sql, &[device.0.into()])?.ok_or_else(Fail::not_found)?;
    let number = CommandNumber(row.count(0)?).next_above(floor);
    tenant.execute(
        "UPDATE device SET command_number = $3 WHERE account = $1 AND device = $2",
        &[device.0.into(), number.0.into()],
    )?;
    let placed = match app {
        Some(app) => {
            let sql = "SELECT term, generation FROM app WHERE account = $1 AND app = $2";
            // One that did not come to be has neither.
            let row = tenant.one(sql, &[app.0.into()])?;
            row.map(|row| Ok::<_, Fail>((Term(row.count(0)?), Generation(row.count(1)?)))).transpose()?
        }
        None => None,
    };
    let command = Command {
        number,
        operation,
        app,
        term: placed.map(|(term, _)| term),
        generation: placed.map(|(_, generation)| generation),
        order,
    };
    rows::insert_command(tenant, device, &command)?;
    Ok(number)
}

/// A command of a task was answered.
pub fn answered(
    tenant: &mut Tenant<'_>,
    id: OperationId,
    device: DeviceId,
    command: &Command,
    result: &CommandResult,
) -> Result<(), Fail> {
    let Some(open) = load(tenant, id)? else {
        if matches!(command.order, Order::Forget { .. }) && result.state == ResultState::Failed {
            removal::refused(tenant, command.app, device, result);
        }
        return Ok(());
    };
    if open.beside.data.waits != Some((device, command.number)) {
        return Ok(());
    }
    let Open { app, mut operation, mut beside, .. } = open;
    let task = beside.data.task.clone().unwrap_or(Task::Plain);
    beside.result = Some(Outcome { data: without_moments(result.data.clone()), ..Outcome::default() });
    beside.problem.clone_from(&result.problem);
    let mut state = match result.state {
        ResultState::Done => OperationState::Done,
        ResultState::Obsolete => OperationState::Failed(Refused::Problem(Problem::Obsolete)),
        ResultState::Failed => {
            let told = result.code.or(result.problem.as_ref().map(|problem| problem.code));
            OperationState::Failed(Refused::Problem(told.unwrap_or(Problem::Unknown)))
        }
    };
    match (&command.order, app, state) {
        // It goes back by itself, says so, and the old revision runs; whatever else it says, the new one may have begun.
        (_, _, OperationState::Failed(Refused::Problem(Problem::UpdateRolledBack))) => {}
        (Order::Update { .. }, Some(app), OperationState::Failed(_)) => {
            rows::keep_update(tenant, app, Some(id))?;
        }
        // A person has said which data it is.
        (Order::Rollback { .. }, Some(app), OperationState::Done) => rows::keep_update(tenant, app, None)?,
        (Order::Rollback { to, .. }, Some(app), _) => {
            // Some volumes may be back and others not: whoever starts it next goes back as a whole.
            if result.data.rolled_back == Some(false) {
                rows::keep_rollback(tenant, app, to)?;
            }
            if task == Task::RollbackStopped {
                want(tenant, app, true)?;
            }
        }
        _ => {}
    }
    let mut about = About { app, device: Some(device), operation: Some(id), ..About::default() };
    let mut kind = "finished";
    if state == OperationState::Done {
        match &task {
            Task::Plain | Task::Stream { .. } | Task::Drain(_) | Task::RollbackStopped => {}
            Task::Standby => {
                if let Some(app) = app {
                    outcome::add_writers(tenant, app, device, &result.data.writers)?;
                }
            }
            Task::UpdateDevice { release } => {
                kind = "updated";
                about = about.with("release", *release);
            }
            Task::Moments => {
                if let Some(app) = app {
                    keep_moments(tenant, app, result)?;
                }
            }
            Task::Update { revision } if result.data.rolled_back == Some(true) => {
                state = OperationState::Failed(Refused::Problem(Problem::UpdateRolledBack));
                kind = "rolled_back";
                about = about.with("revision", *revision);
            }
            Task::Update { revision } => {
                if let Some(app) = app {
                    tenant.execute(
                        "UPDATE app SET revision = $3, generation = generation + 1 WHERE account = $1 AND app = $2",
                        &[app.0.into(), (*revision).into()],
                    )?;
                    tenant.changed("app", app);
                }
                kind = "updated";
                about = about.with("revision", *revision);
            }
            Task::Fork { app, name, of, device } => {
                match apps::forked(tenant, *app, name, *of, *device, &result.data)? {
                    None => kind = "app_added",
                    Some(refused) => {
                        removal::unmake(tenant, id, *app, *device)?;
                        state = OperationState::Failed(refused);
                    }
                }
                about.app = Some(*app);
            }
            Task::Author { app, device, install, .. } => {
                // The event of the app that was added is written there.
                if let Some(refused) = apps::authored(tenant, *app, *device, install, &result.data)? {
                    state = OperationState::Failed(refused);
                }
                about.app = Some(*app);
            }
            Task::Remove(wish) => match removal::go_on(tenant, id, app, wish, result)? {
                Progress::Removed => kind = "app_removed",
                Progress::WouldLose => {
                    state = OperationState::Failed(Refused::Problem(Problem::PublishLate));
                }
                Progress::Asked(next) => {
                    let mut open = Open { id, app, operation, beside };
                    open.asks(next);
                    return save(tenant, id, &open);
                }
            },
        }
    }
    if let OperationState::Failed(refused) = state {
        about = about.with("code", rows::refused_text(refused));
        if kind != "rolled_back" {
            kind = "failed";
        }
    }
    about = about.with("do", beside.kind.as_str());
    beside.data.waits = None;
    operation.state = state;
    operation.count += 1;
    save(tenant, id, &Open { id, app, operation, beside })?;
    tenant.event(kind, about);
    Ok(())
}

/// What a person filled in for an app or an action is its device's from now on: the hive does not keep it.
pub fn forget_inputs(tenant: &mut Tenant<'_>, device: DeviceId, command: &Command) -> Result<(), Fail> {
    let order = match &command.order {
        Order::Author(wish) => Order::Author(Box::new(Author {
            files: List::cut([]),
            options: List::cut([]),
            ..Author::clone(wish)
        })),
        Order::Action { name, stream, .. } => {
            Order::Action { name: name.clone(), input: List::cut([]), stream: *stream }
        }
        _ => return Ok(()),
    };
    let command = Command { order, ..command.clone() };
    let sql = "UPDATE command SET body = $4 WHERE account = $1 AND device = $2 AND number = $3";
    tenant.execute(sql, &[device.0.into(), command.number.0.into(), json(&command).into()])?;
    Ok(())
}

/// What is kept of an answer with an operation and a command: moments are the app's, and kept once (`keep_moments`).
pub fn without_moments(data: Data) -> Data {
    Data { moments: List::default(), ..data }
}

fn keep_moments(tenant: &mut Tenant<'_>, app: AppId, result: &CommandResult) -> Result<(), Fail> {
    tenant.execute(
        "INSERT INTO moments (account, app, moments, at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (account, app) DO UPDATE SET moments = excluded.moments, at = excluded.at",
        &[app.0.into(), json(&result.data.moments).into(), chance::now().into()],
    )?;
    Ok(())
}

/// A device is nobody any more: its apps that are wanted go elsewhere, with force, or nowhere.
pub fn close_device(tenant: &mut Tenant<'_>, device: DeviceId, stores_open: bool) -> Result<(), Fail> {
    let changed = tenant.execute(
        "UPDATE device SET state = 'revoked', session = NULL, stores_open = $3, generation = generation + 1 \
         WHERE account = $1 AND device = $2",
        &[device.0.into(), stores_open.into()],
    )?;
    if changed == 0 {
        return Err(Fail::not_found());
    }
    tenant.event("revoked", About::device(device));
    tenant.changed("device", device);
    tenant.told.insert(Wake::Device(device));
    wait_no_more(tenant, device)?;
    let life = rows::life(tenant)?;
    if life.recovering {
        // Who may run what is not known yet: its apps leave it later. It may have been the last that was waited for.
        if devices::missing(tenant, life.incarnation)?.is_empty() {
            recovery::finish(tenant)?;
        }
        return Ok(());
    }
    let placed =
        tenant.query("SELECT app FROM app WHERE account = $1 AND device = $2", &[device.0.into()])?;
    for row in placed {
        leave_device(tenant, AppId(row.id(0)?), device)?;
    }
    Ok(())
}

/// No store takes the credentials of a device that was revoked any more.
pub fn close_stores(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<(), Fail> {
    tenant.execute(
        "UPDATE device SET stores_open = 0, generation = generation + 1 WHERE account = $1 AND device = $2 \
         AND stores_open = 1",
        &[device.0.into()],
    )?;
    tenant.changed("device", device);
    Ok(())
}

/// Apps leave a device that was revoked while the hive recovered, as soon as it did.
pub async fn leave_revoked(database: &Database) -> Result<Told, Fail> {
    database
        .transact(How::Lead, |tx| {
            let sql = "SELECT a.account, a.app, a.device FROM device d JOIN app a ON a.account = d.account \
                 AND a.device = d.device WHERE d.state = 'revoked'";
            let mut told = Told::default();
            for row in tx.query(sql, &[])? {
                let mut tenant = Tenant::new(tx, row.id(0)?);
                tenant.alone()?;
                if !rows::life(&mut tenant)?.recovering {
                    leave_device(&mut tenant, AppId(row.id(1)?), DeviceId(row.id(2)?))?;
                }
                told.extend(tenant.end()?);
            }
            Ok(told)
        })
        .await
}

/// What a device was to do is not done, and no task waits for it. What waits for it in steps is of an app that leaves it, or
/// ends since the device is silent.
fn wait_no_more(tenant: &mut Tenant<'_>, device: DeviceId) -> Result<(), Fail> {
    let sql = "SELECT operation, data FROM operation WHERE account = $1 AND state = 'running'";
    for row in tenant.query(sql, &[])? {
        let data: rows::OperationData = read(row.text(1)?)?;
        if data.task.is_some() && data.waits.is_some_and(|(waited, _)| waited == device) {
            give_up(tenant, OperationId(row.id(0)?), Refused::DeviceRevoked)?;
        }
    }
    let sql = "DELETE FROM command WHERE account = $1 AND device = $2 AND result IS NULL";
    tenant.execute(sql, &[device.0.into()])?;
    Ok(())
}

/// An app leaves a device that is nobody any more: with force where it is wanted; what was stopped has no place any more,
/// and stays stopped.
fn leave_device(tenant: &mut Tenant<'_>, app: AppId, device: DeviceId) -> Result<(), Fail> {
    let mut loaded = Loaded::app(tenant, app)?;
    let Some(row) = loaded.hive.apps.get(&app) else { return Ok(()) };
    let (wanted, term) = (row.wanted, row.placement.term);
    for operation in loaded.hive.operations.keys() {
        forget_commands(tenant, *operation)?;
    }
    if wanted && apps::move_away(tenant, app, device, true)?.is_ok() {
        return Ok(());
    }
    decide(&mut loaded.hive, Event::GivenUp { app, problem: wanted.then_some(Refused::NoCandidate) });
    loaded.save(tenant)?;
    if term > Term(0) {
        tenant.happened(What::Ended { app, term });
    }
    tenant.changed("app", app);
    Ok(())
}

/// Tells the account's other devices that there is a newer ring.
pub fn tell_ring(tenant: &mut Tenant<'_>, number: u64, from: Option<DeviceId>) -> Result<(), Fail> {
    let sql = "SELECT device FROM device WHERE account = $1 AND state <> 'revoked' AND locked = 0";
    let devices: Vec<DeviceId> =
        tenant.query(sql, &[])?.iter().map(|row| row.id(0).map(DeviceId)).collect::<Result<_, _>>()?;
    // One that did not fetch the last one yet fetches the newest anyway.
    for device in devices.into_iter().filter(|device| Some(*device) != from) {
        tenant.execute(
            "DELETE FROM command WHERE account = $1 AND device = $2 AND verb = 'ring' AND result IS NULL",
            &[device.0.into()],
        )?;
        let operation = OperationId(chance::uuid().0);
        command(
            tenant,
            operation,
            None,
            device,
            Order::Ring { version: orchestrator_api::wire::value::Number(number) },
        )?;
    }
    Ok(())
}

/// The id of a key, as a column of JSON names it.
pub fn volume_id(volume: &Hex<32>) -> fs_format::VolumeId {
    fs_format::VolumeId(volume.0)
}
