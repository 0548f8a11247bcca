//! PostgreSQL: threads with a connection each; one more for the scheduler, whose lock lives and dies with it.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, Statement};

use super::tls::{self, Tls};
use super::{DbError, Door, How, Order, Row, Tx, Value};
use crate::server::fail::Fail;

/// The scheduler's lock: "Comb".
const LEADER: i64 = 0x436f_6d62;
const WORKERS: usize = 8;
const TRIES: u32 = 8;
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// A database of a server.
pub(super) struct Postgres {
    work: Sender<(bool, Order)>,
    lead: Sender<(bool, Order)>,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self, Fail> {
        // What is wrong with the address is told once, at the beginning.
        let (config, tls) = tls::parse(url)?;
        let far = |host: &Host| match host {
            Host::Tcp(name) => {
                name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Host::Unix(_) => false,
        };
        if tls.is_none() && config.get_hosts().iter().any(far) {
            tracing::warn!(
                "the database is spoken to in plain; sslmode=verify-full in its address encrypts that"
            );
        }
        let place = (config, tls);
        let (work, orders) = channel();
        let orders = Arc::new(Mutex::new(orders));
        for _ in 0..WORKERS {
            spawn(Worker::new(place.clone(), false)?, orders.clone())?;
        }
        let (lead, orders) = channel();
        spawn(Worker::new(place, true)?, Arc::new(Mutex::new(orders)))?;
        Ok(Self { work, lead })
    }
}

fn spawn(mut worker: Worker, orders: Arc<Mutex<Receiver<(bool, Order)>>>) -> Result<(), Fail> {
    let work = move || {
        loop {
            let order = orders.lock().recv();
            let Ok((read, mut order)) = order else { return };
            let result = worker.run(read, &mut order);
            let _ = order.done.send(result);
        }
    };
    let made = thread::Builder::new().name("hive-postgres".to_owned()).spawn(work);
    made.map(drop).map_err(|error| Fail::start(format!("a thread could not be made: {error}")))
}

impl Door for Postgres {
    fn send(&self, how: How, order: Order) {
        let queue = if how == How::Lead { &self.lead } else { &self.work };
        let _ = queue.send((how == How::Read, order));
    }
}

/// Where a database is, and how it is spoken to.
type Place = (tokio_postgres::Config, Option<Tls>);

struct Worker {
    place: Place,
    runtime: Runtime,
    open: Option<Open>,
    leads: bool,
}

struct Open {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Worker {
    fn new(place: Place, leads: bool) -> Result<Self, Fail> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Fail::start(format!("a runtime could not be made: {error}")))?;
        Ok(Self { place, runtime, open: None, leads })
    }

    fn run(&mut self, read: bool, order: &mut Order) -> Result<(), Fail> {
        let mut fresh = false;
        for _ in 0..TRIES {
            if self.open.as_ref().is_none_or(|open| open.client.is_closed()) {
                self.open = None;
                fresh = true;
                self.connect()?;
            }
            match self.once(read, order) {
                Err(Fail::Db(DbError::Conflict)) => {}
                // A connection that a restarted server closed is noticed when it is used.
                Err(Fail::Db(DbError::Away(_))) if !fresh => self.open = None,
                Err(Fail::Db(error @ DbError::Away(_))) => {
                    self.open = None;
                    return Err(Fail::Db(error));
                }
                done => return done,
            }
        }
        Err(Fail::Db(DbError::Away("too many others write at the same time".to_owned())))
    }

    fn connect(&mut self) -> Result<(), Fail> {
        let connecting = async { tokio::time::timeout(CONNECT_WAIT, connect(&self.place)).await };
        let away = |text: String| Fail::Db(DbError::Away(text));
        let client = self
            .runtime
            .block_on(connecting)
            .map_err(|_| away("it does not answer".to_owned()))?
            .map_err(|error| away(reason(&error)))?;
        let mut open = Open { client, statements: HashMap::new() };
        if self.leads {
            let rows = Session { open: &mut open, runtime: &self.runtime }
                .query("SELECT pg_try_advisory_lock($1)", &[Value::Int(LEADER)])?;
            if !rows.first().map(|row| row.flag(0)).transpose()?.unwrap_or(false) {
                return Err(Fail::Db(DbError::NotLeader));
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn once(&mut self, read: bool, order: &mut Order) -> Result<(), Fail> {
        let Some(open) = &mut self.open else { return Err(Fail::Db(DbError::Conflict)) };
        let mut session = Session { open, runtime: &self.runtime };
        session.batch(if read { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" })?;
        match (order.job)(&mut session) {
            Ok(()) => session.batch("COMMIT").map_err(Fail::Db),
            Err(fail) => {
                session.batch("ROLLBACK")?;
                Err(fail)
            }
        }
    }
}

async fn connect((config, tls): &Place) -> Result<Client, tokio_postgres::Error> {
    Ok(match tls {
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            client
        }
        Some(tls) => {
            let (client, connection) = config.connect(tls.clone()).await?;
            tokio::spawn(connection);
            client
        }
    })
}

/// Why there is no connection: what the driver says leaves out why.
fn reason(error: &tokio_postgres::Error) -> String {
    match (error.code(), error.source()) {
        (None, Some(source)) => format!("{error}: {source}"),
        // What a server says may repeat what it was asked.
        (Some(code), _) => format!("it answered with {}", code.code()),
        (None, None) => error.to_string(),
    }
}

struct Session<'a> {
    open: &'a mut Open,
    runtime: &'a Runtime,
}

impl Session<'_> {
    fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        self.runtime.block_on(self.open.client.batch_execute(sql)).map_err(|error| translated(&error))
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, DbError> {
        if let Some(known) = self.open.statements.get(sql) {
            return Ok(known.clone());
        }
        let made =
            self.runtime.block_on(self.open.client.prepare(sql)).map_err(|error| translated(&error))?;
        self.open.statements.insert(sql.to_owned(), made.clone());
        Ok(made)
    }
}

impl Tx for Session<'_> {
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>, DbError> {
        let statement = self.statement(sql)?;
        let given: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|one| one as _).collect();
        let rows = self
            .runtime
            .block_on(self.open.client.query(&statement, &given))
            .map_err(|error| translated(&error))?;
        let row = |row: &tokio_postgres::Row| {
            let values = (0..row.len()).map(|at| row.try_get::<_, Value>(at).map_err(|e| translated(&e)));
            values.collect::<Result<_, _>>().map(Row)
        };
        rows.iter().map(row).collect()
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64, DbError> {
        if parameters.is_empty() && sql.starts_with("CREATE ") {
            return self.batch(sql).map(|()| 0);
        }
        let statement = self.statement(sql)?;
        let given: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|one| one as _).collect();
        self.runtime
            .block_on(self.open.client.execute(&statement, &given))
            .map_err(|error| translated(&error))
    }

    fn lock(&mut self, number: i64, shared: bool) -> Result<(), DbError> {
        let sql = match shared {
            true => "SELECT pg_advisory_xact_lock_shared($1)::text",
            false => "SELECT pg_advisory_xact_lock($1)::text",
        };
        self.query(sql, &[Value::Int(number)]).map(drop)
    }

    fn is_postgres(&self) -> bool {
        true
    }
}

fn translated(error: &tokio_postgres::Error) -> DbError {
    match error.code() {
        Some(&(SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED)) => DbError::Conflict,
        Some(&SqlState::UNIQUE_VIOLATION) => DbError::Unique,
        Some(code) if matches!(&code.code()[..2], "08" | "53" | "57" | "58") => {
            DbError::Away(code.code().to_owned())
        }
        // Statement, place and values are not repeated: they may hold what is no log's business.
        Some(code) => DbError::Broken(format!("it answered with {}", code.code())),
        None if error.is_closed() => DbError::Away("the connection ended".to_owned()),
        None => match error.source() {
            Some(source) if source.is::<std::io::Error>() => DbError::Away(source.to_string()),
            _ => DbError::Broken(error.to_string()),
        },
    }
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Value::Int(number) if *kind == Type::INT8 => number.to_sql(kind, out),
            Value::Text(text) if *kind == Type::TEXT => text.to_sql(kind, out),
            Value::Bytes(bytes) if *kind == Type::BYTEA => bytes.as_slice().to_sql(kind, out),
            _ => Err(format!("a column of type {kind} takes another kind of value").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Value::Int(i64::from(bool::from_sql(kind, raw)?)),
            Type::INT4 => Value::Int(i64::from(i32::from_sql(kind, raw)?)),
            Type::INT8 => Value::Int(i64::from_sql(kind, raw)?),
            Type::TEXT => Value::Text(String::from_sql(kind, raw)?),
            Type::BYTEA => Value::Bytes(<&[u8]>::from_sql(kind, raw)?.to_vec()),
            _ => return Err(format!("a column has type {kind}").into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
