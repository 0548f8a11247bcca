//! SQLite: one thread writes and commits together what waits, others read.
//!
//! Invariants
//! - Nobody is answered before the commit that holds his change was synced.
//! - A job that fails takes back its own changes only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use super::{DbError, Door, How, Order, Row, Tx, Value};
use crate::server::fail::Fail;

/// Jobs in one commit.
const TOGETHER_MAX: usize = 512;
const READERS: usize = 2;
const STATEMENTS: usize = 200;

/// A database in a file.
pub(super) struct Sqlite {
    write: Sender<Order>,
    read: Sender<Order>,
    /// Held while the database is open: a second hive on it would not see what this one keeps in memory.
    _lock: Option<std::fs::File>,
}

impl Sqlite {
    pub(super) fn open(path: &str, alone: bool) -> Result<Self, Fail> {
        let path = PathBuf::from(path);
        let lock = alone.then(|| lock(&path)).transpose()?;
        let writer = connect(&path)?;
        let (write, orders) = channel();
        spawn("hive-write", move || write_all(&writer, &orders))?;
        let (read, orders) = channel();
        let orders = Arc::new(Mutex::new(orders));
        for _ in 0..READERS {
            let connection = connect(&path)?;
            let orders = orders.clone();
            spawn("hive-read", move || read_all(&connection, &orders))?;
        }
        Ok(Self { write, read, _lock: lock })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Fail> {
    let made = thread::Builder::new().name(name.to_owned()).spawn(work);
    made.map(drop).map_err(|error| Fail::start(format!("a thread could not be made: {error}")))
}

fn lock(path: &Path) -> Result<std::fs::File, Fail> {
    use std::os::unix::fs::OpenOptionsExt;
    let shown = path.display();
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&name);
    let file = opened.map_err(|error| Fail::start(format!("{shown} cannot be opened: {error}")))?;
    file.try_lock().map_err(|_| Fail::start(format!("another hive has {shown} open")))?;
    // What the database holds is for its owner alone, from its first byte on.
    let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    made.map_err(|error| Fail::start(format!("{shown} cannot be made: {error}")))?;
    Ok(file)
}

fn connect(path: &Path) -> Result<Connection, Fail> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    });
    opened.map_err(|error| Fail::Db(translated(&error)))
}

impl Door for Sqlite {
    fn send(&self, how: How, order: Order) {
        let queue = if how == How::Read { &self.read } else { &self.write };
        // A queue without a thread drops the order, and with it what is waited for.
        let _ = queue.send(order);
    }
}

fn write_all(connection: &Connection, orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let mut waiting = Vec::new();
        let began = connection.execute_batch("BEGIN IMMEDIATE");
        let mut next = Some(first);
        while let Some(mut order) = next {
            let done = match &began {
                Ok(()) => one(connection, &mut order),
                Err(error) => Err(Fail::Db(translated(error))),
            };
            waiting.push((order.done, done));
            next = if waiting.len() < TOGETHER_MAX { orders.try_recv().ok() } else { None };
        }
        let committed = began.and_then(|()| connection.execute_batch("COMMIT"));
        if committed.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        for (done, result) in waiting {
            let result = match (&committed, result) {
                (Err(error), Ok(())) => Err(Fail::Db(translated(error))),
                (_, result) => result,
            };
            let _ = done.send(result);
        }
    }
}

fn one(connection: &Connection, order: &mut Order) -> Result<(), Fail> {
    let savepoint = |sql| connection.execute_batch(sql).map_err(|error| Fail::Db(translated(&error)));
    savepoint("SAVEPOINT one")?;
    let done = (order.job)(&mut Open(connection));
    match &done {
        Ok(()) => savepoint("RELEASE one")?,
        Err(_) => savepoint("ROLLBACK TO one; RELEASE one")?,
    }
    done
}

fn read_all(connection: &Connection, orders: &Mutex<Receiver<Order>>) {
    loop {
        let order = orders.lock().recv();
        let Ok(mut order) = order else { return };
        let began = connection.execute_batch("BEGIN").map_err(|error| Fail::Db(translated(&error)));
        let done = began.and_then(|()| (order.job)(&mut Open(connection)));
        let _ = connection.execute_batch("ROLLBACK");
        let _ = order.done.send(done);
    }
}

struct Open<'a>(&'a Connection);

impl Tx for Open<'_> {
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, DbError> {
        let work = || {
            let mut statement = self.0.prepare_cached(&sql.replace('$', "?"))?;
            let columns = statement.column_count();
            let mut rows = statement.query(params_from_iter(parameters))?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                let value = |at| row.get_ref(at).map(owned);
                out.push(Row((0..columns).map(value).collect::<Result<_, _>>()?));
            }
            Ok(out)
        };
        work().map_err(|error| translated(&error))
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, DbError> {
        let work = || {
            let mut statement = self.0.prepare_cached(&sql.replace('$', "?"))?;
            statement.execute(params_from_iter(parameters)).map(|changed| changed as u64)
        };
        work().map_err(|error| translated(&error))
    }

    fn lock(&mut self, _: i64, _: bool) -> Result<(), DbError> {
        Ok(())
    }

    fn is_postgres(&self) -> bool {
        false
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        // No column holds one.
        ValueRef::Real(number) => Value::Int(number as i64),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn translated(error: &rusqlite::Error) -> DbError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => DbError::Unique,
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen,
        ) => DbError::Away(error.to_string()),
        _ => DbError::Broken(error.to_string()),
    }
}
