//! A database of a hive for tests of what it goes on with by itself. A row is named by what a test is about; the rest of it
//! says nothing.

use super::super::chance;
use super::super::database::{Database, How, Row, SCHEMA, TABLES, Tx, Value};
use super::super::fail::Fail;
use super::super::tenant::AccountId;

/// An id that may stand in a column of JSON.
pub const fn id(byte: u8) -> [u8; 16] {
    let mut id = [byte; 16];
    (id[6], id[8]) = (0x40, 0x80);
    id
}

/// A database that is gone when the test is over.
pub struct Stage {
    /// It.
    pub database: Database,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// With these accounts.
    pub async fn with(accounts: &[AccountId]) -> Self {
        let folder = tempfile::tempdir().expect("there is a disk");
        let path = folder.path().join("hive.db");
        let database = Database::open(&format!("sqlite:{}", path.display())).await.expect("it is made");
        let stage = Self { database, _folder: folder };
        stage
            .put("hive", &[("id", 1_i64.into()), ("incarnation", 1_i64.into()), ("schema", SCHEMA.into())])
            .await;
        for account in accounts {
            let letters = account[0].to_string();
            let event_hash: Value = [0_u8; 32].into();
            let values =
                [("account", (*account).into()), ("letters", letters.into()), ("event_hash", event_hash)];
            stage.put("account", &values).await;
        }
        stage
    }

    /// A row with these values.
    pub async fn put(&self, table: &'static str, values: &[(&'static str, Value)]) {
        let (_, columns) = TABLES.iter().find(|(name, _)| *name == table).expect("there is such a table");
        let names: Vec<&str> = columns.iter().filter_map(|column| column.split(' ').next()).collect();
        let of = |column: &&str| {
            let (name, kind) = column.split_once(' ').expect("a column has a kind");
            match (values.iter().find(|(named, _)| *named == name), kind) {
                (Some((_, value)), _) => value.clone(),
                (None, "INT") => 0_i64.into(),
                (None, "TEXT") => "".into(),
                // Of some there are no two.
                (None, "BYTES") => chance::bytes::<16>().into(),
                (None, _) => Value::Null,
            }
        };
        let (all, places): (Vec<Value>, Vec<String>) =
            columns.iter().map(of).zip(1..).map(|(value, at)| (value, format!("${at}"))).unzip();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
        self.run(&sql, &all).await;
    }

    /// Changes rows.
    pub async fn run(&self, sql: &str, values: &[Value]) {
        let (sql, values) = (sql.to_owned(), values.to_vec());
        self.transact(move |tx| Ok(tx.execute(&sql, &values)?)).await;
    }

    /// Rows.
    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        let sql = sql.to_owned();
        self.transact(move |tx| Ok(tx.query(&sql, &[])?)).await
    }

    /// Does something in a transaction that must go well.
    pub async fn transact<R: Send + 'static>(
        &self,
        work: impl FnMut(&mut dyn Tx) -> Result<R, Fail> + Send + 'static,
    ) -> R {
        self.database.transact(How::Write, work).await.expect("the database does it")
    }
}
