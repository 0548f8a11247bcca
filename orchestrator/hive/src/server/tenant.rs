//! One account in one transaction. There is no other way to its rows for a route.
//!
//! What has to be told when the transaction is committed is gathered here: devices that have commands, and what
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orchestrator_api::history::What;
use orchestrator_api::ids::{AppId, DeviceId, OperationId, Term};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::operation::{By, Event};
use orchestrator_api::wire::report::Report;
use orchestrator_api::wire::value::{Number, Text};
use serde_json::{Map, Value as Json};

use super::chain;
use super::chance;
use super::database::{DbError, Row, Tx, Value};
use super::fail::Fail;

/// Events that are kept of an account.
pub const EVENTS_MAX: u64 = 100_000;
/// Rows that one statement inserts: it is prepared once for each number of them.
const ROWS_MAX: usize = 32;
/// Names that are kept of people who left, and of apps that were removed.
const FORMER_MAX: u64 = 1_000;
/// Changes that are kept of all.
const CHANGES_MAX: i64 = 10_000;

/// An account's id in this hive.
pub type AccountId = [u8; 16];

/// What is told when a transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A device has commands, or is not what it was.
    Device(DeviceId),
    /// Something of an account changed: kind and id.
    Changed(AccountId, String, String),
    /// Something is due for the scheduler.
    Scheduler,
    /// What fed a stream ended, and how.
    Stream(AccountId, Uuid, String),
}

/// Whose name stays readable when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// A person who left.
    Person,
    /// An app that was removed.
    App,
}

/// What a transaction gathers to be told when it is committed.
#[derive(Debug, Default)]
pub struct Told {
    /// Whom it wakes.
    pub wakes: BTreeSet<Wake>,
    /// What the history gets, and when it happened.
    pub happened: Vec<(u64, What)>,
}

impl Told {
    /// Wakes somebody.
    pub fn insert(&mut self, wake: Wake) {
        self.wakes.insert(wake);
    }

    /// Adds what another transaction gathered.
    pub fn extend(&mut self, other: Told) {
        self.wakes.extend(other.wakes);
        self.happened.extend(other.happened);
    }
}

/// What a device reported last.
#[derive(Debug)]
pub struct Heard {
    /// All of it.
    pub report: Report,
    /// When it came.
    pub seen: i64,
}

/// One account in one transaction.
pub struct Tenant<'a> {
    /// The transaction.
    pub tx: &'a mut dyn Tx,
    /// Whose rows.
    pub account: AccountId,
    /// Who does it.
    pub by: By,
    /// From which address.
    pub from: Option<String>,
    /// What is told when it is committed.
    pub told: Told,
    /// What happened, and is not written down yet.
    pub(super) events: Vec<Event>,
    /// Reports that were read already.
    pub(super) heard: BTreeMap<DeviceId, Option<Arc<Heard>>>,
}

/// The number by which an account's transactions wait for each other.
pub fn lock_number(account: &AccountId) -> i64 {
    let (half, _) = account.split_at(8);
    i64::from_le_bytes(half.try_into().expect("half of an id is eight bytes"))
}

impl<'a> Tenant<'a> {
    /// For what only looks, or for the hive itself.
    pub fn new(tx: &'a mut dyn Tx, account: AccountId) -> Self {
        let by = By { hive: true, ..By::default() };
        let (told, events, heard) = (Told::default(), Vec::new(), BTreeMap::new());
        Self { tx, account, by, from: None, told, events, heard }
    }

    /// The account's id as a parameter.
    pub fn id(&self) -> Value {
        self.account.into()
    }

    /// Rows of the account; the statement's first parameter is the account, the others follow.
    pub fn query(&mut self, sql: &str, more: &[Value]) -> Result<Vec<Row>, DbError> {
        self.tx.query(sql, &self.with(more))
    }

    /// The only row.
    pub fn one(&mut self, sql: &str, more: &[Value]) -> Result<Option<Row>, DbError> {
        Ok(self.query(sql, more)?.into_iter().next())
    }

    /// Changes rows of the account, by the same rule.
    pub fn execute(&mut self, sql: &str, more: &[Value]) -> Result<u64, DbError> {
        self.heard.clear();
        self.tx.execute(sql, &self.with(more))
    }

    fn with(&self, more: &[Value]) -> Vec<Value> {
        let mut all = Vec::with_capacity(1 + more.len());
        all.push(self.id());
        all.extend_from_slice(more);
        all
    }

    /// What a device reported last. Such a text is long, and each app of the device is in it: it is taken apart once, and
    /// again when something was written, or others may have written, since.
    pub fn heard(&mut self, device: DeviceId) -> Result<Option<Arc<Heard>>, DbError> {
        if let Some(known) = self.heard.get(&device) {
            return Ok(known.clone());
        }
        let sql = "SELECT report, seen FROM device WHERE account = $1 AND device = $2";
        let heard = match self.one(sql, &[device.0.into()])? {
            Some(row) => match (row.maybe(0, Row::text)?, row.maybe(1, Row::int)?) {
                (Some(report), Some(seen)) => Some(Arc::new(Heard { report: read(report)?, seen })),
                _ => None,
            },
            None => None,
        };
        self.heard.insert(device, heard.clone());
        Ok(heard)
    }

    /// Nobody else decides about this account until the end of the transaction.
    pub fn alone(&mut self) -> Result<(), DbError> {
        self.heard.clear();
        self.tx.lock(lock_number(&self.account), false)
    }

    /// Nobody decides about this account until the end of the transaction; other devices may report.
    pub fn beside(&mut self, device: &DeviceId) -> Result<(), DbError> {
        self.heard.clear();
        self.tx.lock(lock_number(&self.account), true)?;
        self.tx.lock(lock_number(&device.0), false)
    }

    /// Tells those who watch that something is not what it was.
    pub fn changed(&mut self, kind: &str, id: impl std::fmt::Display) {
        self.told.insert(Wake::Changed(self.account, kind.to_owned(), id.to_string()));
    }

    /// Something for the history of terms and operations.
    pub fn happened(&mut self, what: What) {
        self.told.happened.push((orchestrator_history::boottime(), what));
    }

    /// Keeps the name of what is going, so that what happened with it stays readable.
    pub fn keep_name(&mut self, former: Former, id: [u8; 16], name: &str) -> Result<(), Fail> {
        let (table, column) = match former {
            Former::Person => ("former", "person"),
            Former::App => ("former_app", "app"),
        };
        let oldest = format!(
            "DELETE FROM {table} WHERE account = $1 AND {column} NOT IN (SELECT {column} FROM {table} \
             WHERE account = $1 ORDER BY at DESC LIMIT $2)"
        );
        self.execute(&oldest, &[(FORMER_MAX - 1).into()])?;
        // An app that was removed may be added again, and be removed again.
        let new = format!(
            "INSERT INTO {table} (account, {column}, name, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (account, {column}) DO UPDATE SET name = excluded.name, at = excluded.at"
        );
        self.execute(&new, &[id.into(), name.into(), chance::now().into()])?;
        Ok(())
    }

    /// Something happened, which is written into the chain of the account's events by [`Tenant::end`].
    pub fn event(&mut self, kind: &str, about: About) {
        self.events.push(Event {
            number: Number(0),
            time: chance::time(chance::now()),
            kind: kind.to_owned(),
            by: self.by.clone(),
            from: self.from.as_deref().map(Text::cut),
            app: about.app,
            device: about.device,
            operation: about.operation,
            term: about.term,
            data: about.data,
            hash: Hex([0; 32]),
        });
    }

    /// Writes down what happened, and what those who watch by other processes will be told; returns what is told when
    /// all of it is committed. Whoever changed something ends with this.
    pub fn end(mut self) -> Result<Told, Fail> {
        self.write_events()?;
        let mut rows = Vec::new();
        for wake in &self.told.wakes {
            match wake {
                Wake::Changed(_, kind, id) => {
                    rows.push([self.id(), kind.as_str().into(), id.as_str().into()])
                }
                Wake::Device(device) => rows.push([self.id(), "command".into(), device.to_string().into()]),
                Wake::Scheduler | Wake::Stream(..) => {}
            }
        }
        self.insert("change (account, kind, id)", &rows)?;
        if chance::bytes::<1>()[0] == 0 {
            let sql = "DELETE FROM change WHERE revision <= (SELECT max(revision) FROM change) - $1";
            self.tx.execute(sql, &[CHANGES_MAX.into()])?;
        }
        Ok(self.told)
    }

    /// All at once and at the very end: reports of one account are taken beside each other, and each waits from here to
    /// its commit for the events before its own.
    fn write_events(&mut self) -> Result<(), Fail> {
        let mut events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len() as u64;
        let sql = "UPDATE account SET event_number = event_number + $2 WHERE account = $1 \
             RETURNING event_number, event_hash";
        let row = self.one(sql, &[count.into()])?.ok_or_else(Fail::not_found)?;
        let newest = row.count(0)?;
        let mut before = row.id::<32>(1)?;
        let mut rows = Vec::with_capacity(events.len());
        for (event, number) in events.iter_mut().zip(newest - count + 1..) {
            event.number = Number(number);
            before = chain::hash(&before, &json(event));
            event.hash = Hex(before);
            rows.push([
                self.id(),
                number.into(),
                event.app.map(|id| id.0).into(),
                event.device.map(|id| id.0).into(),
                json(event).into(),
            ]);
            self.changed("event", number);
        }
        self.execute("UPDATE account SET event_hash = $2 WHERE account = $1", &[before.into()])?;
        self.insert("event (account, number, app, device, event)", &rows)?;
        if newest / 1000 != (newest - count) / 1000 {
            let keep = newest.saturating_sub(EVENTS_MAX);
            self.execute("DELETE FROM event WHERE account = $1 AND number <= $2", &[keep.into()])?;
        }
        Ok(())
    }

    /// Inserts rows, as many with one statement as are there.
    fn insert<const N: usize>(&mut self, into: &str, rows: &[[Value; N]]) -> Result<(), DbError> {
        for rows in rows.chunks(ROWS_MAX) {
            let places: Vec<String> = (0..rows.len())
                .map(|row| (1..=N).map(|at| format!("${}", row * N + at)).collect::<Vec<_>>().join(", "))
                .collect();
            let sql = format!("INSERT INTO {into} VALUES ({})", places.join("), ("));
            self.tx.execute(&sql, rows.as_flattened())?;
        }
        Ok(())
    }
}

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// An app.
    pub app: Option<AppId>,
    /// A device.
    pub device: Option<DeviceId>,
    /// An operation.
    pub operation: Option<OperationId>,
    /// A term of the app.
    pub term: Option<Term>,
    /// Numbers and codes.
    pub data: Map<String, Json>,
}

impl About {
    /// A device.
    pub fn device(device: DeviceId) -> Self {
        Self { device: Some(device), ..Self::default() }
    }

    /// An app.
    pub fn app(app: AppId) -> Self {
        Self { app: Some(app), ..Self::default() }
    }

    /// With a number or code beside.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }
}

/// What a column of JSON holds.
pub fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what the hive writes is JSON")
}

/// Reads what [`json`] wrote.
pub fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Broken(format!("a column's JSON: {error}")))
}

/// An id of a kind that has no type of its own.
pub fn uuid(row: &Row, at: usize) -> Result<Uuid, DbError> {
    row.id(at).map(Uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of devices, of which each reported; it counts how often a report is asked for.
    struct Reports(usize);

    impl Tx for Reports {
        fn query(&mut self, sql: &str, _: &[Value]) -> Result<Vec<Row>, DbError> {
            assert!(sql.starts_with("SELECT report, seen FROM device"), "{sql}");
            self.0 += 1;
            let report = r#"{"number":7,"boottime_ms":1,"version":"0.1.0","update":null,"commands_have":3,
                "load":{"cpu_percent":1,"memory_bytes":8,"memory_free_bytes":4,"load_1m":1},"disks":[],"docker":"ok",
                "stores":[],"renew":[],"apps":[]}"#;
            Ok(vec![Row(vec![report.into(), 5_i64.into()])])
        }

        fn execute(&mut self, _: &str, _: &[Value]) -> Result<u64, DbError> {
            Ok(1)
        }

        fn lock(&mut self, _: i64, _: bool) -> Result<(), DbError> {
            Ok(())
        }

        fn is_postgres(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_report_is_read_once_until_something_is_written() {
        let mut reports = Reports(0);
        let mut tenant = Tenant::new(&mut reports, [1; 16]);
        let hear = |tenant: &mut Tenant<'_>, device| {
            let heard = tenant.heard(DeviceId([device; 16])).expect("it can be read").expect("it reported");
            (heard.report.number.0, heard.seen)
        };
        for _ in 0..200 {
            assert_eq!(hear(&mut tenant, 1), (7, 5));
        }
        hear(&mut tenant, 2);
        tenant.execute("UPDATE device SET seen = 6 WHERE account = $1", &[]).expect("it is written");
        hear(&mut tenant, 1);
        tenant.alone().expect("nobody else is there");
        hear(&mut tenant, 1);
        drop(tenant);
        assert_eq!(reports.0, 4, "one of each device, one after the change, one after waiting for others");
    }
}
