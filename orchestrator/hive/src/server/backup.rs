//! All of a hive in one file, the same from either database: `api.md`, section 11.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orchestrator_api::text::Time;
use serde_json::Value as Json;

use super::chance;
use super::database::{Database, DbError, How, TABLES, Tx, Value};
use super::fail::Fail;

const MAGIC: &[u8; 8] = b"COMBHIVE";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const LEVEL: i32 = 3;

fn column(column: &str) -> (&str, &str) {
    column.split_once(' ').unwrap_or((column, ""))
}

fn lines(tx: &mut dyn Tx) -> Result<Vec<u8>, Fail> {
    let broken = |error: std::io::Error| Fail::start(format!("a backup could not be packed: {error}"));
    let mut out = zstd::Encoder::new(Vec::new(), LEVEL).map_err(broken)?;
    let rows = tx.query("SELECT schema FROM hive WHERE id = 1", &[])?;
    let schema = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(super::database::SCHEMA);
    for (table, columns) in super::database::tables(schema) {
        let names: Vec<&str> = columns.iter().map(|one| column(one).0).collect();
        let rows = tx.query(&format!("SELECT {} FROM {table}", names.join(", ")), &[])?;
        for row in rows {
            let value = |value: &Value| match value {
                Value::Null => Json::Null,
                Value::Int(number) => Json::from(*number),
                Value::Text(text) => Json::from(text.as_str()),
                Value::Bytes(bytes) => Json::from(STANDARD.encode(bytes)),
            };
            let line =
                serde_json::json!({"table": table, "row": row.0.iter().map(value).collect::<Vec<_>>()});
            writeln!(out, "{line}").map_err(broken)?;
        }
    }
    out.finish().map_err(broken)
}

/// A backup of what is committed now.
pub async fn bytes(database: &Database) -> Result<Vec<u8>, Fail> {
    let packed = database.transact(How::Read, lines).await?;
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len() + HASH_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&packed);
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Ok(out)
}

/// Writes a backup into a file that is not there yet, for its owner alone.
pub async fn write(database: &Database, path: &Path) -> Result<u64, Fail> {
    let bytes = bytes(database).await?;
    place(path, |file| file.write_all(&bytes))
        .map_err(|error| Fail::start(format!("{} cannot be written: {error}", path.display())))?;
    Ok(bytes.len() as u64)
}

/// What the name of a file ends with that is being written, or that a crash left.
const PART: &str = ".part";

/// Writes a file that has its name only when all of it is on the disk: a full disk or a crash leaves none that looks whole.
fn place(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already"));
    }
    let mut part = path.as_os_str().to_owned();
    // Nobody else who writes a file of that name writes the same part.
    part.push(format!(".{}{PART}", chance::hex::<8>()));
    let part = PathBuf::from(part);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let placed = fill(&mut file).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&part, path));
    if placed.is_err() {
        // It is named as what it is, and is removed by a later night where it cannot be removed now.
        let _ = std::fs::remove_file(&part);
        return placed;
    }
    // Without this a crash can lose the file's name.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Who may do something in a hive that was restored: what was revoked and removed after the backup is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Devices that are not revoked: their accounts' titles and their names.
    pub devices: Vec<(String, String)>,
    /// People: their accounts' titles, their names, their roles.
    pub people: Vec<(String, String, String)>,
}

fn restored(tx: &mut dyn Tx) -> Result<Restored, Fail> {
    let mut found = Restored::default();
    let sql = "SELECT a.title, d.name FROM device d JOIN account a ON a.account = d.account \
         WHERE d.state <> 'revoked' ORDER BY a.title, d.name";
    for row in tx.query(sql, &[])? {
        found.devices.push((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    }
    let sql = "SELECT a.title, p.name, p.role FROM person p JOIN account a ON a.account = p.account \
         ORDER BY a.title, p.name";
    for row in tx.query(sql, &[])? {
        found.people.push((row.text(0)?.to_owned(), row.text(1)?.to_owned(), row.text(2)?.to_owned()));
    }
    Ok(found)
}

/// Loads a backup into an empty database, and begins a new life.
pub async fn restore(database: &Database, path: &Path) -> Result<Restored, Fail> {
    let failed = |error: std::io::Error| Fail::start(format!("{} cannot be read: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(failed)?;
    let none = |what: &str| Fail::start(format!("{} is no backup of a hive: {what}", path.display()));
    let Some((hashed, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else {
        return Err(none("it ends early"));
    };
    if hashed.len() < HEADER_BYTES || hashed[..8] != *MAGIC {
        return Err(none("it begins otherwise"));
    }
    if blake3::hash(hashed).as_bytes() != hash {
        return Err(none("it is damaged"));
    }
    let format = u16::from_le_bytes([hashed[8], hashed[9]]);
    if format != FORMAT {
        return Err(none(&format!("its format is {format}, and this comb reads {FORMAT}")));
    }
    let packed = hashed[HEADER_BYTES..].to_vec();
    let now_ms = chance::now().unsigned_abs();
    let load = move |tx: &mut dyn Tx| {
        if !tx.query("SELECT 1 FROM hive", &[])?.is_empty() {
            return Err(Fail::start("the database holds a hive already: restore into an empty one"));
        }
        insert(tx, &packed)?;
        tx.execute("UPDATE hive SET schema = $1 WHERE id = 1", &[super::database::SCHEMA.into()])?;
        super::recovery::begin_all(tx, now_ms)?;
        // What was taken from somebody since is in the backup: nobody gets it back by that.
        for sql in [
            "DELETE FROM session",
            "DELETE FROM token",
            "DELETE FROM invite",
            "DELETE FROM device_code WHERE used_by IS NULL",
        ] {
            tx.execute(sql, &[])?;
        }
        restored(tx)
    };
    database.transact(How::Write, load).await
}

fn insert(tx: &mut dyn Tx, packed: &[u8]) -> Result<(), Fail> {
    let broken = |what: String| Fail::Db(DbError::Broken(what));
    let mut text = String::new();
    let reader = zstd::Decoder::new(packed).map_err(|error| broken(error.to_string()))?;
    let mut reader = std::io::BufReader::new(reader);
    loop {
        text.clear();
        let read =
            std::io::BufRead::read_line(&mut reader, &mut text).map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            break;
        }
        let line: Json = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let name = line["table"].as_str().unwrap_or_default();
        let Some((table, columns)) = TABLES.iter().find(|(table, _)| *table == name) else {
            return Err(broken("a table that this comb does not know".to_owned()));
        };
        let row = line["row"].as_array().filter(|row| row.len() == columns.len());
        let row = row.ok_or_else(|| broken(format!("a row of {table} has other columns")))?;
        let value = |(json, one): (&Json, &&str)| {
            let kind = column(one).1.trim_end_matches('?');
            match (json, kind) {
                (Json::Null, _) => Ok(Value::Null),
                (Json::Number(number), "INT") => Ok(Value::Int(number.as_i64().unwrap_or(0))),
                (Json::String(text), "TEXT") => Ok(Value::Text(text.clone())),
                (Json::String(text), "BYTES") => {
                    STANDARD.decode(text).map(Value::Bytes).map_err(|error| broken(error.to_string()))
                }
                _ => Err(broken(format!("a row of {table} has another kind of value"))),
            }
        };
        let values: Vec<Value> = row.iter().zip(*columns).map(value).collect::<Result<_, _>>()?;
        let names: Vec<&str> = columns.iter().map(|one| column(one).0).collect();
        let places: Vec<String> = (1..=columns.len()).map(|at| format!("${at}")).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
        tx.execute(&sql, &values)?;
    }
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).map_err(|error| broken(error.to_string()))?;
    Ok(())
}

/// Makes a backup of a database whose tables an older comb made, before they are changed. One that is there stays.
pub async fn before_migration(url: &str, folder: Option<&Path>) -> Result<(), Fail> {
    let file = url.strip_prefix("sqlite:").map(Path::new);
    let folder = folder.or_else(|| file.and_then(Path::parent));
    let Some(folder) = folder.filter(|_| file.is_none_or(Path::exists)) else { return Ok(()) };
    let database = Database::look(url).await?;
    let ask = |tx: &mut dyn Tx| {
        let there = super::database::is_made(tx)?;
        let rows = if there { tx.query("SELECT schema FROM hive WHERE id = 1", &[])? } else { Vec::new() };
        Ok(rows.first().map(|row| row.int(0)).transpose()?)
    };
    let Some(schema) = database.transact(How::Read, ask).await? else { return Ok(()) };
    let path = folder.join(format!("hive-before-tables-{}.comb", super::database::SCHEMA));
    if schema >= super::database::SCHEMA || path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|error| Fail::start(format!("{}: {error}", folder.display())))?;
    write(&database, &path).await?;
    Ok(())
}

const NIGHTS_KEPT: usize = 7;
/// From one backup to the next.
const NIGHT: Duration = Duration::from_secs(86_400 - 1_800);

/// What the backup of a night is called.
fn nightly_name(made: Time) -> String {
    format!("hive-{}.comb", made.to_string().replace(':', "-"))
}

/// Whether a file is called exactly as the hive calls its own: what a person put beside them is nobody's to remove.
fn is_nightly(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_nightly_name)
}

/// Whether a file is what was written of a backup of a night.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(PART));
    name.and_then(|name| name.rsplit_once('.')).is_some_and(|(name, _)| is_nightly_name(name))
}

fn is_nightly_name(name: &str) -> bool {
    let made = name.strip_prefix("hive-").and_then(|rest| rest.strip_suffix(".comb"));
    let Some((day, hour)) = made.and_then(|made| made.split_once('T')) else { return false };
    let made = format!("{day}T{}", hour.replace('-', ":")).parse();
    made.is_ok_and(|made| nightly_name(made) == name)
}

/// Makes a backup if the last one is a day old, and keeps the last seven. One that begins again and again makes no more.
pub async fn nightly(database: &Database, folder: &Path) -> Result<(), Fail> {
    let failed = |error: std::io::Error| Fail::start(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let newest = std::fs::read_dir(folder)
        .map_err(failed)?
        .filter_map(|entry| {
            entry.ok().filter(|entry| is_nightly(&entry.path()))?.metadata().ok()?.modified().ok()
        })
        .max();
    if newest.is_some_and(|newest| newest.elapsed().is_ok_and(|age| age < NIGHT)) {
        return Ok(());
    }
    let list = || {
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        Ok::<_, Fail>(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect::<Vec<_>>())
    };
    // One process makes the backups of the nights, so nobody writes what is left of another one. It takes room.
    for part in list()?.into_iter().filter(|path| is_part(path)) {
        std::fs::remove_file(part).map_err(failed)?;
    }
    write(database, &folder.join(nightly_name(chance::time(chance::now())))).await?;
    let mut files: Vec<_> = list()?.into_iter().filter(|path| is_nightly(path)).collect();
    files.sort();
    let gone = files.len().saturating_sub(NIGHTS_KEPT);
    for path in files.into_iter().take(gone) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("is a folder");
        entries.map(|entry| entry.expect("is read").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_backup_that_could_not_be_written_is_none() {
        let folder = tempfile::tempdir().expect("there is a disk");
        let path = folder.path().join("hive-2026-11-23T03-00-00.000Z.comb");
        let full = |file: &mut File| file.write_all(b"half").and(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(place(&path, full).expect_err("is full").kind(), io::ErrorKind::StorageFull);
        assert_eq!(names(folder.path()), [""; 0], "it counts as no backup, and takes no room");
        let halfway = |file: &mut File| {
            file.write_all(b"half")?;
            let there = names(folder.path());
            assert!(there.iter().all(|name| is_part(Path::new(name)) && !is_nightly(Path::new(name))));
            assert_eq!(there.len(), 1);
            file.write_all(b", and the rest")
        };
        place(&path, halfway).expect("there is room");
        assert_eq!(std::fs::read(&path).expect("is there"), b"half, and the rest");
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        let again = place(&path, |file| file.write_all(b"another")).expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()).len(), 1);
        assert_eq!(std::fs::read(&path).expect("is there"), b"half, and the rest");
    }
}
