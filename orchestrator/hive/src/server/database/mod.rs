//! The door to a database. One schema and one set of statements, in SQLite and in PostgreSQL.
//!
//! A transaction is a function over [`Tx`]. It may run more than once (another process was faster), so it changes
//! nothing but the database, and what it says counts only when it was committed.

mod postgres;
mod schema;
mod sqlite;
mod tls;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use schema::{SCHEMA, TABLES, is_made, tables};

use super::fail::Fail;

/// A value of a row or of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Numbers; flags are 0 and 1.
    Int(i64),
    /// UTF-8.
    Text(String),
    /// Ids, keys, objects.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($from:ty => |$it:ident| $to:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($it: $from) -> Self {
                $to
            }
        }
    )+};
}

from! {
    i64 => |it| Value::Int(it);
    u64 => |it| Value::Int(i64::try_from(it).unwrap_or(i64::MAX));
    bool => |it| Value::Int(i64::from(it));
    &str => |it| Value::Text(it.to_owned());
    String => |it| Value::Text(it);
    &String => |it| Value::Text(it.clone());
    Vec<u8> => |it| Value::Bytes(it);
    &[u8] => |it| Value::Bytes(it.to_vec());
    [u8; 8] => |it| Value::Bytes(it.to_vec());
    [u8; 16] => |it| Value::Bytes(it.to_vec());
    [u8; 32] => |it| Value::Bytes(it.to_vec());
    [u8; 64] => |it| Value::Bytes(it.to_vec());
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Value::Null, Into::into)
    }
}

/// A row, read by the columns' places. A value of another kind than asked for is a broken database.
#[derive(Debug, Clone)]
pub struct Row(pub Vec<Value>);

impl Row {
    fn broken<T>(&self, at: usize) -> Result<T, DbError> {
        Err(DbError::Broken(format!("column {at} of a row has another kind of value than it should")))
    }

    /// A number.
    pub fn int(&self, at: usize) -> Result<i64, DbError> {
        match self.0.get(at) {
            Some(Value::Int(number)) => Ok(*number),
            _ => self.broken(at),
        }
    }

    /// A number that is not negative.
    pub fn count(&self, at: usize) -> Result<u64, DbError> {
        u64::try_from(self.int(at)?).or_else(|_| self.broken(at))
    }

    /// A flag.
    pub fn flag(&self, at: usize) -> Result<bool, DbError> {
        Ok(self.int(at)? != 0)
    }

    /// A text.
    pub fn text(&self, at: usize) -> Result<&str, DbError> {
        match self.0.get(at) {
            Some(Value::Text(text)) => Ok(text),
            _ => self.broken(at),
        }
    }

    /// Bytes.
    pub fn bytes(&self, at: usize) -> Result<&[u8], DbError> {
        match self.0.get(at) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => self.broken(at),
        }
    }

    /// An id or a key.
    pub fn id<const N: usize>(&self, at: usize) -> Result<[u8; N], DbError> {
        self.bytes(at)?.try_into().or_else(|_| self.broken(at))
    }

    /// Whether there is nothing.
    pub fn is_null(&self, at: usize) -> bool {
        matches!(self.0.get(at), None | Some(Value::Null))
    }

    /// What may be missing, read by another function of this row.
    pub fn maybe<'a, T>(
        &'a self,
        at: usize,
        read: impl Fn(&'a Self, usize) -> Result<T, DbError>,
    ) -> Result<Option<T>, DbError> {
        if self.is_null(at) { Ok(None) } else { read(self, at).map(Some) }
    }
}

/// Why the database did not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// It does not answer, or not in time; worth trying again.
    #[error("the database is away: {0}")]
    Away(String),
    /// Another transaction was faster; the door tries again by itself.
    #[error("another transaction was faster")]
    Conflict,
    /// Another row has that name.
    #[error("a row of that name is there already")]
    Unique,
    /// This process is not the scheduler.
    #[error("another process is the scheduler")]
    NotLeader,
    /// It holds what no program of this version wrote.
    #[error("the database is not one that this comb understands: {0}")]
    Broken(String),
}

/// A transaction.
pub trait Tx {
    /// Rows.
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, DbError>;
    /// How many rows changed.
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, DbError>;
    /// Waits until nobody else holds this number, or nobody but others who share it; until the end of the transaction.
    /// Nothing where only one transaction writes at a time.
    fn lock(&mut self, number: i64, shared: bool) -> Result<(), DbError>;
    /// Which of the two it is: their words for kinds of columns differ.
    fn is_postgres(&self) -> bool;
}

/// A function over a transaction, without its result.
pub type Job = Box<dyn FnMut(&mut dyn Tx) -> Result<(), Fail> + Send>;

/// Where a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
    /// As the scheduler: only while this process has that lock.
    Lead,
}

/// A job, and who waits for it.
pub(crate) struct Order {
    job: Job,
    done: oneshot::Sender<Result<(), Fail>>,
}

/// A kind of database.
trait Door: Send + Sync {
    fn send(&self, how: How, order: Order);
}

/// A database.
#[derive(Clone)]
pub struct Database {
    door: Arc<dyn Door>,
    several: bool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// Opens `sqlite:PATH` or `postgres://…`; makes what is missing of its tables.
    pub async fn open(url: &str) -> Result<Self, Fail> {
        let database = Self::door(url, true).await?;
        database.transact(How::Write, |tx| schema::migrate(tx)).await?;
        Ok(database)
    }

    /// Opens one that is there, beside a hive that may run on it.
    pub async fn look(url: &str) -> Result<Self, Fail> {
        if let Some(path) = url.strip_prefix("sqlite:")
            && !std::path::Path::new(path).exists()
        {
            return Err(Fail::start(format!("{path} is not there")));
        }
        Self::door(url, false).await
    }

    async fn door(url: &str, alone: bool) -> Result<Self, Fail> {
        let (door, several): (Arc<dyn Door>, bool) = match url.split_once(':') {
            Some(("sqlite", path)) => (Arc::new(sqlite::Sqlite::open(path, alone)?), false),
            Some(("postgres" | "postgresql", _)) => (Arc::new(postgres::Postgres::open(url).await?), true),
            _ => return Err(Fail::start("a database is sqlite:PATH or postgres://USER@HOST/NAME")),
        };
        Ok(Self { door, several })
    }

    /// Whether other processes may be at work on it.
    pub fn has_several(&self) -> bool {
        self.several
    }

    /// Runs a function in a transaction, and waits until it is committed.
    pub async fn transact<R: Send + 'static>(
        &self,
        how: How,
        mut work: impl FnMut(&mut dyn Tx) -> Result<R, Fail> + Send + 'static,
    ) -> Result<R, Fail> {
        let result = Arc::new(Mutex::new(None));
        let slot = result.clone();
        let job: Job = Box::new(move |tx| {
            let done = work(tx)?;
            *slot.lock() = Some(done);
            Ok(())
        });
        let (done, wait) = oneshot::channel();
        self.door.send(how, Order { job, done });
        match wait.await {
            Ok(Ok(())) => {
                let taken = result.lock().take();
                taken.ok_or_else(|| Fail::Db(DbError::Broken("a transaction said nothing".to_owned())))
            }
            Ok(Err(fail)) => Err(fail),
            Err(_) => Err(Fail::Db(DbError::Away("it is being closed".to_owned()))),
        }
    }
}
