//! What this hive gave, ended and did, a line each: `history.jsonl` (`failover.md`, section 15).
//!
//! For those who look afterwards whether everything was as promised; nothing is decided by it, so a line that cannot be
//! written is told in the log and changes nothing. Lines are gathered in a transaction, with its time, and written when it
//! is committed; what a crash kept from being written is written when the hive begins again.

use std::collections::HashMap;
use std::path::Path;

use orchestrator_api::history::{What, Who};
use orchestrator_api::ids::{AppId, DeviceId, Generation, OperationId, Term};
use orchestrator_history::{History as Lines, Moment, boottime};
use parking_lot::Mutex;

use super::database::{Database, How, Tx};
use super::fail::Fail;

/// This hive's.
pub struct History {
    lines: Lines,
    /// What the file says of terms: each is told once.
    highest: Mutex<Terms>,
}

type Terms = HashMap<AppId, Term>;

/// What a history says that is not over: operations, with how they were told.
type Running = HashMap<OperationId, What>;

impl History {
    /// Reads what was written before, and adds what a crash left out.
    pub async fn begin(path: &Path, database: &Database) -> Result<Self, Fail> {
        let lines = Lines::new(path, Who::Hive);
        let (mut highest, mut running) = (Terms::new(), Running::new());
        lines
            .begin(|what| told(what, &mut highest, &mut running))
            .map_err(|error| Fail::start(format!("{} cannot be read: {error}", path.display())))?;
        let known = highest.clone();
        let history = Self { lines, highest: Mutex::new(highest) };
        // Where several processes share a database, each tells what it did itself.
        if !database.has_several() {
            let work = move |tx: &mut dyn Tx| left_out(tx, &known, &running);
            let at = boottime();
            let left = database.transact(How::Read, work).await?;
            history.write(left.into_iter().map(|what| (at, what)).collect());
        }
        Ok(history)
    }

    /// Writes what happened, with its moments.
    pub fn write(&self, mut happened: Vec<Moment>) {
        let mut highest = self.highest.lock();
        // A restored hive hears of terms that its history has.
        happened.retain(|(_, what)| match what {
            What::Granted { app, term, .. } => highest.insert(*app, *term).is_none_or(|told| told < *term),
            _ => true,
        });
        self.lines.write(happened);
    }
}

/// What a line says of terms and operations.
fn told(what: What, highest: &mut Terms, running: &mut Running) {
    match what {
        What::Granted { app, term, .. } => {
            let told = highest.entry(app).or_default();
            *told = term.max(*told);
        }
        What::Operation { operation, ref state, .. } if state == "running" => {
            running.insert(operation, what);
        }
        What::Operation { operation, .. } => {
            running.remove(&operation);
        }
        _ => {}
    }
}

/// What the database has and the history has not.
fn left_out(tx: &mut dyn Tx, known: &HashMap<AppId, Term>, running: &Running) -> Result<Vec<What>, Fail> {
    let mut left = Vec::new();
    if !known.is_empty() {
        let sql = "SELECT app, term, device, generation, leased FROM app WHERE device IS NOT NULL";
        for row in tx.query(sql, &[])? {
            let (app, term) = (AppId(row.id(0)?), Term(row.count(1)?));
            if known.get(&app).is_some_and(|told| *told < term) {
                let (device, generation) = (DeviceId(row.id(2)?), Generation(row.count(3)?));
                left.push(What::Granted { app, term, device, generation, leased: row.flag(4)? });
            }
        }
    }
    for (operation, told) in running {
        let sql = "SELECT step, state FROM operation WHERE operation = $1";
        let rows = tx.query(sql, &[operation.0.into()])?;
        // One that is not there was begun after the backup that this hive was restored from.
        let (step, state) = match rows.first() {
            Some(row) => (row.text(0)?.to_owned(), row.text(1)?.to_owned()),
            None => (String::new(), "lost".to_owned()),
        };
        let What::Operation { app, kind, step: before, .. } = told else { continue };
        let step = if step.is_empty() { before.to_string() } else { step };
        if state != "running" || step != *before {
            let (app, kind) = (*app, kind.clone());
            left.push(What::Operation {
                operation: *operation,
                app,
                kind,
                step: step.into(),
                state: state.into(),
            });
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use orchestrator_api::history::Line;

    use super::*;

    fn granted(term: u64) -> What {
        let id = *b"\x07\x07\x07\x07\x07\x07\x47\x07\x87\x07\x07\x07\x07\x07\x07\x07";
        What::Granted {
            app: AppId(id),
            term: Term(term),
            device: DeviceId(id),
            generation: Generation(1),
            leased: false,
        }
    }

    #[tokio::test]
    async fn a_torn_line_goes_and_a_term_is_told_once() {
        let folder = tempfile::tempdir().expect("there is a disk");
        let (path, database) = (folder.path().join("history.jsonl"), folder.path().join("hive.db"));
        let database =
            Database::open(&format!("sqlite:{}", database.display())).await.expect("a database is made");
        let history = History::begin(&path, &database).await.expect("there is none yet");
        history.write(vec![(1, granted(3)), (2, granted(3)), (3, granted(4))]);
        drop(history);
        let mut file = OpenOptions::new().append(true).open(&path).expect("it was made");
        file.write_all(b"{\"boottime_ms\":").expect("a part of a line");
        let history = History::begin(&path, &database).await.expect("it is read");
        history.write(vec![(5, granted(4)), (6, granted(5))]);
        let text = std::fs::read_to_string(&path).expect("it is there");
        let terms: Vec<Term> = text
            .lines()
            .map(|line| match Line::from_json(line).expect("each line is whole").what {
                What::Granted { term, .. } => term,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(terms, [Term(3), Term(4), Term(5)]);
    }
}
