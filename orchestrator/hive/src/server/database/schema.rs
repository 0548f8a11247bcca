//! The tables: `api.md`, section 10.
//!
//! Migrations are numbered, forward only, one transaction each.

use super::Tx;
use crate::server::fail::Fail;

/// The number of the last migration.
pub const SCHEMA: i64 = 5;

/// A column's kind; a question mark after it: it may be missing.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    key: &'static str,
    more: &'static [&'static str],
    /// The migration that makes it.
    since: i64,
}

/// All tables that a backup has, in the order in which they are restored, with their columns.
pub const TABLES: &[(&str, &[&str])] = &[
    ("hive", HIVE),
    ("account", ACCOUNT),
    ("person", PERSON),
    ("token", TOKEN),
    ("invite", INVITE),
    ("ring", RING),
    ("store", STORE),
    ("device_code", DEVICE_CODE),
    ("device", DEVICE),
    ("device_app", DEVICE_APP),
    ("package", PACKAGE),
    ("app", APP),
    ("operation", OPERATION),
    ("command", COMMAND),
    ("event", EVENT),
    ("release", RELEASE),
    ("release_binary", RELEASE_BINARY),
    ("moments", MOMENTS),
    ("second", SECOND),
    ("channel", CHANNEL),
    ("former", FORMER),
    ("former_app", FORMER_APP),
    ("life", LIFE),
];

/// What an account has of the life of the hive it was in, when there was one life for all: of older databases.
const LIVES: &str = "INSERT INTO life (account, incarnation, recovering, heard, floor) \
     SELECT a.account, h.incarnation, h.recovering, h.heard, h.floor FROM account a CROSS JOIN hive h";

/// The tables of a backup that a database of this number has.
pub fn tables(schema: i64) -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    let is_there = move |name: &str| ALL.iter().any(|table| table.name == name && table.since <= schema);
    TABLES.iter().filter(move |(name, _)| is_there(name))
}

const HIVE: &[&str] = &[
    "id INT",
    "key_seed BYTES",
    "incarnation INT",
    "recovering INT",
    "heard INT",
    "floor INT",
    "schema INT",
    "setup_hash BYTES?",
];
const ACCOUNT: &[&str] = &[
    "account BYTES",
    "title TEXT",
    "letters TEXT",
    "ring_account BYTES?",
    "owner_key BYTES?",
    "event_number INT",
    "event_hash BYTES",
    "operation_number INT",
    "first INT",
];
const PERSON: &[&str] = &[
    "account BYTES",
    "person BYTES",
    "name TEXT",
    "password TEXT",
    "role TEXT",
    "failures INT",
    "locked_until INT",
];
const TOKEN: &[&str] = &[
    "hash BYTES",
    "id BYTES",
    "account BYTES",
    "person BYTES",
    "title TEXT",
    "role TEXT",
    "ends INT",
    "used INT?",
];
const INVITE: &[&str] =
    &["hash BYTES", "id BYTES", "account BYTES", "role TEXT", "new_account INT", "ends INT"];
const RING: &[&str] = &["account BYTES", "number INT", "object BYTES", "made INT"];
const STORE: &[&str] = &["account BYTES", "store BYTES", "url TEXT", "shared INT", "device BYTES?"];
const DEVICE_CODE: &[&str] = &[
    "code_id BYTES",
    "account BYTES",
    "join_key BYTES",
    "name TEXT?",
    "auto_update INT",
    "ends INT",
    "used_by BYTES?",
];
const DEVICE: &[&str] = &[
    "account BYTES",
    "device BYTES",
    "name TEXT",
    "identity BYTES",
    "state TEXT",
    "joined INT",
    "hello INT?",
    "run BYTES?",
    "session BYTES?",
    "session_ends INT",
    "greeted INT",
    "report_number INT",
    "renewals INT",
    "seen INT?",
    "report TEXT?",
    "arch TEXT",
    "version TEXT",
    "features TEXT",
    "locked INT",
    "auto_update INT",
    "accepts_authoring INT",
    "docker INT",
    "command_number INT",
    "stores_open INT",
    "generation INT",
];
const DEVICE_APP: &[&str] = &[
    "account BYTES",
    "app BYTES",
    "device BYTES",
    "term INT?",
    "phase TEXT?",
    "live INT",
    "writers TEXT",
    "branches TEXT?",
];
const PACKAGE: &[&str] = &[
    "account BYTES",
    "app BYTES",
    "revision INT",
    "authorization_json BYTES",
    "signature BYTES",
    "body BYTES",
];
const APP: &[&str] = &[
    "account BYTES",
    "app BYTES",
    "name TEXT",
    "revision INT",
    "policy TEXT",
    "wanted INT",
    "generation INT",
    "standby TEXT",
    "stores TEXT",
    "seal_every_s INT",
    "volumes TEXT",
    "known TEXT",
    "problem TEXT?",
    "device BYTES?",
    "term INT",
    "leased INT",
    "renewed INT?",
    "withdrawn INT",
    "forgotten INT",
    "seen_heads TEXT?",
];
const OPERATION: &[&str] = &[
    "account BYTES",
    "operation BYTES",
    "number INT",
    "app BYTES?",
    "device BYTES?",
    "kind TEXT",
    "step TEXT",
    "count INT",
    "data TEXT",
    "state TEXT",
    "code TEXT?",
    "result TEXT?",
    "begun INT",
    "ended INT?",
    "by_whom TEXT",
];
const COMMAND: &[&str] = &[
    "account BYTES",
    "device BYTES",
    "number INT",
    "operation BYTES",
    "app BYTES?",
    "term INT",
    "verb TEXT",
    "body TEXT",
    "result TEXT?",
    "at INT",
];
const EVENT: &[&str] = &["account BYTES", "number INT", "app BYTES?", "device BYTES?", "event TEXT"];
const RELEASE: &[&str] =
    &["account BYTES", "number INT", "version TEXT", "release_json BYTES", "signature BYTES"];
const RELEASE_BINARY: &[&str] = &["account BYTES", "number INT", "arch TEXT", "bytes BYTES"];
const MOMENTS: &[&str] = &["account BYTES", "app BYTES", "moments TEXT", "at INT"];
const IDEMPOTENCY: &[&str] = &[
    "account BYTES",
    "token BYTES",
    "key TEXT",
    "path TEXT",
    "body_hash BYTES",
    "status INT",
    "answer BYTES?",
    "ends INT",
];
const SESSION: &[&str] = &[
    "hash BYTES",
    "id BYTES",
    "account BYTES",
    "person BYTES",
    "half INT",
    "made INT",
    "used INT",
    "ends INT",
    "agent TEXT",
    "address TEXT",
];
const SECOND: &[&str] =
    &["account BYTES", "person BYTES", "secret BYTES", "is_on INT", "step INT", "codes TEXT"];
const SAMPLES: &[&str] = &["account BYTES", "subject BYTES", "span TEXT", "at INT", "points BYTES"];
const CHANNEL: &[&str] = &["account BYTES", "channel BYTES", "settings TEXT", "sent INT?", "problem TEXT?"];
const TROUBLE: &[&str] =
    &["account BYTES", "subject BYTES", "kind TEXT", "since INT", "told INT", "title TEXT"];
const FORMER: &[&str] = &["account BYTES", "person BYTES", "name TEXT", "at INT"];
const FORMER_APP: &[&str] = &["account BYTES", "app BYTES", "name TEXT", "at INT"];
const LIFE: &[&str] = &["account BYTES", "incarnation INT", "recovering INT", "heard INT", "floor INT"];
const CHANGE: &[&str] = &["revision SERIAL", "account BYTES", "kind TEXT", "id TEXT"];

const ALL: &[Table] = &[
    Table { name: "hive", columns: HIVE, key: "id", more: &[], since: 1 },
    Table {
        name: "account",
        columns: ACCOUNT,
        key: "account",
        more: &["CREATE UNIQUE INDEX account_letters ON account (letters)"],
        since: 1,
    },
    Table {
        name: "person",
        columns: PERSON,
        key: "account, person",
        more: &["CREATE UNIQUE INDEX person_name ON person (account, name)"],
        since: 1,
    },
    Table {
        name: "token",
        columns: TOKEN,
        key: "hash",
        more: &["CREATE INDEX token_person ON token (account, person)"],
        since: 1,
    },
    Table { name: "invite", columns: INVITE, key: "hash", more: &[], since: 1 },
    Table { name: "ring", columns: RING, key: "account, number", more: &[], since: 1 },
    Table {
        name: "store",
        columns: STORE,
        key: "account, store",
        more: &["CREATE UNIQUE INDEX store_url ON store (account, url)"],
        since: 1,
    },
    Table { name: "device_code", columns: DEVICE_CODE, key: "code_id", more: &[], since: 1 },
    Table {
        name: "device",
        columns: DEVICE,
        key: "account, device",
        more: &[
            "CREATE UNIQUE INDEX device_id ON device (device)",
            "CREATE UNIQUE INDEX device_identity ON device (identity)",
            "CREATE UNIQUE INDEX device_name ON device (account, name)",
        ],
        since: 1,
    },
    Table {
        name: "device_app",
        columns: DEVICE_APP,
        key: "account, app, device",
        more: &["CREATE INDEX device_app_device ON device_app (account, device)"],
        since: 1,
    },
    Table { name: "package", columns: PACKAGE, key: "account, app, revision", more: &[], since: 1 },
    Table {
        name: "app",
        columns: APP,
        key: "account, app",
        more: &[
            "CREATE UNIQUE INDEX app_name ON app (account, name)",
            "CREATE INDEX app_device ON app (account, device)",
        ],
        since: 1,
    },
    Table {
        name: "operation",
        columns: OPERATION,
        key: "account, operation",
        more: &[
            "CREATE UNIQUE INDEX operation_running ON operation (account, app) WHERE state = 'running' AND kind NOT IN ('logs', 'action', 'moments', 'standby')",
            "CREATE INDEX operation_number ON operation (account, number)",
            "CREATE INDEX operation_state ON operation (state)",
        ],
        since: 1,
    },
    Table {
        name: "command",
        columns: COMMAND,
        key: "account, device, number",
        more: &[
            "CREATE INDEX command_operation ON command (account, operation)",
            "CREATE INDEX command_open ON command (account, device) WHERE result IS NULL",
        ],
        since: 1,
    },
    Table { name: "event", columns: EVENT, key: "account, number", more: &[], since: 1 },
    Table { name: "idempotency", columns: IDEMPOTENCY, key: "account, token, key", more: &[], since: 1 },
    Table { name: "release", columns: RELEASE, key: "account, number", more: &[], since: 1 },
    Table {
        name: "release_binary",
        columns: RELEASE_BINARY,
        key: "account, number, arch",
        more: &[],
        since: 1,
    },
    Table { name: "moments", columns: MOMENTS, key: "account, app", more: &[], since: 1 },
    Table { name: "change", columns: CHANGE, key: "", more: &[], since: 1 },
    Table {
        name: "session",
        columns: SESSION,
        key: "hash",
        more: &["CREATE INDEX session_person ON session (account, person)"],
        since: 2,
    },
    Table { name: "second", columns: SECOND, key: "account, person", more: &[], since: 2 },
    Table { name: "samples", columns: SAMPLES, key: "account, subject, span", more: &[], since: 2 },
    Table { name: "channel", columns: CHANNEL, key: "account, channel", more: &[], since: 2 },
    Table { name: "trouble", columns: TROUBLE, key: "account, subject, kind", more: &[], since: 2 },
    Table { name: "former", columns: FORMER, key: "account, person", more: &[], since: 3 },
    Table { name: "life", columns: LIFE, key: "account", more: &[], since: 4 },
    Table { name: "former_app", columns: FORMER_APP, key: "account, app", more: &[], since: 5 },
];

/// What differs between the two in words; what they do is the same.
fn statement(table: &Table, postgres: bool) -> String {
    let column = |column: &&str| {
        let (name, kind) = column.split_once(' ').unwrap_or((column, "TEXT"));
        let (kind, missing) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
        let kind = match (kind, postgres) {
            ("SERIAL", true) => return format!("{name} BIGSERIAL PRIMARY KEY"),
            ("SERIAL", false) => return format!("{name} INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("INT", true) => "BIGINT",
            ("INT", false) => "INTEGER",
            ("BYTES", true) => "BYTEA",
            ("BYTES", false) => "BLOB",
            (kind, _) => kind,
        };
        format!("{name} {kind}{}", if missing { "" } else { " NOT NULL" })
    };
    let mut parts: Vec<String> = table.columns.iter().map(column).collect();
    if !table.key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", table.key));
    }
    let name = table.name;
    format!("CREATE TABLE {name} ({}){}", parts.join(", "), if postgres { "" } else { " STRICT" })
}

/// Whether a database has the hive's tables.
pub fn is_made(tx: &mut dyn Tx) -> Result<bool, Fail> {
    let there = match tx.is_postgres() {
        true => {
            "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'hive'"
        }
        false => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'hive'",
    };
    Ok(!tx.query(there, &[])?.is_empty())
}

/// Makes what is missing; refuses what a newer hive wrote.
pub(super) fn migrate(tx: &mut dyn Tx) -> Result<(), Fail> {
    tx.lock(0x6d69_6772, false)?;
    let postgres = tx.is_postgres();
    let make = |tx: &mut dyn Tx, table: &Table| -> Result<(), Fail> {
        tx.execute(&statement(table, postgres), &[])?;
        for more in table.more {
            tx.execute(more, &[])?;
        }
        Ok(())
    };
    if !is_made(tx)? {
        return ALL.iter().try_for_each(|table| make(tx, table));
    }
    let rows = tx.query("SELECT schema FROM hive WHERE id = 1", &[])?;
    match rows.first().map(|row| row.int(0)).transpose()? {
        None | Some(SCHEMA) => Ok(()),
        Some(number) if (1..SCHEMA).contains(&number) => {
            ALL.iter().filter(|table| table.since > number).try_for_each(|table| make(tx, table))?;
            if number < 4 {
                tx.execute(LIVES, &[])?;
            }
            tx.execute("UPDATE hive SET schema = $1", &[SCHEMA.into()])?;
            Ok(())
        }
        Some(number) => Err(Fail::start(format!(
            "the database has the tables of another comb: number {number}, this one knows {SCHEMA}"
        ))),
    }
}
