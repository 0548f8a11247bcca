//! Results of commands that no record decides about, so that what is given again is answered and not done again (`api.md`,
//! section 6).
//!
//! Invariants
//! - What was not asked for its answer alone is on the disk before it is told, and is read after it was written, however
//!   much came of it.
//! - Who waits for the disk holds up no one who only looks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_api::ids::OperationId;
use orchestrator_api::wire::command::{Command, CommandResult, Order};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::World;
use crate::doors::disk::{self, FILE_BYTES_MAX};

/// How many are kept.
const RESULTS_MAX: usize = 1_000;
/// What is asked for its answer alone: asked again, it is answered anew. Their answers are long, and are not written.
const QUESTIONS: [&str; 4] = ["moments", "logs", "doctor", "facts"];

/// Results that are kept.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    all: Mutex<All>,
    /// Held by who writes, with nothing else.
    writing: Mutex<()>,
    /// Why those of former processes cannot be read.
    damage: Option<String>,
}

#[derive(Debug, Default)]
struct All {
    kept: Vec<Kept>,
    /// What is under way: given again meanwhile, it is not begun a second time.
    running: Vec<(OperationId, String)>,
}

/// What becomes of a command that was given.
#[derive(Debug, PartialEq)]
pub(super) enum Begun {
    /// It is done now.
    Now,
    /// It is being done.
    Already,
    /// This came of it.
    Known(Box<CommandResult>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    operation: OperationId,
    verb: String,
    result: CommandResult,
    /// Of no use any more; programs before this one want it.
    acknowledged: bool,
}

impl Kept {
    fn is_question(&self) -> bool {
        QUESTIONS.contains(&self.verb.as_str())
    }
}

/// The word of an order.
pub(super) fn verb(order: &Order) -> String {
    let json = serde_json::to_value(order).unwrap_or_default();
    json["do"].as_str().unwrap_or("unknown").to_owned()
}

impl All {
    fn known(&mut self, operation: OperationId, verb: &str) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.operation == operation && kept.verb == verb)
    }

    fn known_of(&mut self, command: &Command) -> Option<CommandResult> {
        let kept = self.known(command.operation, &verb(&command.order))?;
        kept.result.number = command.number;
        Some(kept.result.clone())
    }

    /// What is written.
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let written: Vec<&Kept> = self.kept.iter().filter(|kept| !kept.is_question()).collect();
        Ok(serde_json::to_vec(&written)?)
    }
}

impl Results {
    /// Those that are on the disk. What cannot be read is set aside, and told for as long as it is there.
    pub(super) fn read(folder: &Path) -> Self {
        let path = folder.join("results.json");
        let read = disk::read_json::<Vec<Kept>>(&path);
        let aside = path.with_extension("damaged");
        if let Err(error) = &read {
            tracing::error!(%error, file = %path.display(), "results of commands cannot be read");
            if let Err(error) = std::fs::rename(&path, &aside) {
                tracing::error!(%error, file = %aside.display(), "they cannot be set aside");
            }
        }
        let mut kept = read.as_ref().ok().cloned().flatten().unwrap_or_default();
        kept.retain(|kept| !kept.is_question());
        let damage = (read.is_err() || aside.exists()).then(|| {
            let why = read.err().map_or_else(String::new, |error| format!(" ({error})"));
            format!(
                "what came of commands before could not be read{why}: one that the hive gives again is done again. {} is of no \
                 use but to see why; remove it when that is clear",
                aside.display()
            )
        });
        let all = Mutex::new(All { kept, running: Vec::new() });
        Self { path, all, writing: Mutex::default(), damage }
    }

    /// What is to be told of results that were lost.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// What came of a command, if it was answered before, maybe under another number.
    pub(super) fn known(&self, command: &Command) -> Option<CommandResult> {
        self.all.lock().known_of(command)
    }

    /// Whether a command is to be done now.
    pub(super) fn begin(&self, command: &Command) -> Begun {
        let mut all = self.all.lock();
        if let Some(known) = all.known_of(command) {
            return Begun::Known(Box::new(known));
        }
        let one = (command.operation, verb(&command.order));
        if all.running.contains(&one) {
            return Begun::Already;
        }
        all.running.push(one);
        Begun::Now
    }

    /// Keeps what came of a command; says whether it is to be written before it is told.
    pub(super) fn keep(&self, command: &Command, result: &CommandResult) -> bool {
        let (operation, verb) = (command.operation, verb(&command.order));
        let mut all = self.all.lock();
        all.running.retain(|one| *one != (operation, verb.clone()));
        if let Some(known) = all.known(operation, &verb) {
            // Given again: all but its number is written already.
            let is_new = CommandResult { number: result.number, ..known.result.clone() } != *result;
            known.result = result.clone();
            return is_new && !known.is_question();
        }
        if all.kept.len() >= RESULTS_MAX {
            // What can be asked again makes room for what must not be done again.
            let oldest = all.kept.iter().position(Kept::is_question).unwrap_or(0);
            all.kept.remove(oldest);
        }
        let kept = Kept { operation, verb, result: result.clone(), acknowledged: false };
        let is_written = !kept.is_question();
        all.kept.push(kept);
        is_written
    }

    /// Writes what is kept, at least what was kept before this was called.
    pub(super) fn write(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        let bytes = loop {
            let mut all = self.all.lock();
            let bytes = all.bytes()?;
            if bytes.len() as u64 <= FILE_BYTES_MAX {
                break bytes;
            }
            // More than is read again would be as good as none.
            let half = all.kept.len().div_ceil(2);
            all.kept.drain(..half);
        };
        disk::replace(&self.path, &bytes)
    }

    /// The hive has a result: an answer to a question is not needed any more.
    pub(super) fn told(&self, command: &Command) {
        let (operation, verb) = (command.operation, verb(&command.order));
        self.all
            .lock()
            .kept
            .retain(|kept| !(kept.is_question() && kept.operation == operation && kept.verb == verb));
    }
}

impl World {
    /// Writes the results that are kept. What cannot be written is done again after a crash, and says the same.
    pub(super) async fn write_results(self: &Arc<Self>) {
        let world = self.clone();
        let written = tokio::task::spawn_blocking(move || world.results.write()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what came of a command cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_api::ids::CommandNumber;
    use orchestrator_api::placement::Problem;
    use orchestrator_api::wire::command::{Data, Late, Moment, MomentReason, ResultState};
    use orchestrator_api::wire::value::{List, Number, Text};
    use serde_json::{Value, json};

    use super::*;

    fn command(number: u64, order: Value) -> Command {
        let mut json = json!({
            "number": number, "operation": format!("00000000-0000-4000-8000-{number:012x}"),
            "app": "07070707-0707-4707-8707-070707070707", "term": 1, "generation": 1,
        });
        json.as_object_mut().expect("an object").extend(order.as_object().cloned().expect("an object"));
        serde_json::from_value(json).expect("a command")
    }

    fn done(command: &Command, data: Data) -> CommandResult {
        CommandResult {
            number: command.number,
            state: ResultState::Done,
            code: None,
            problem: None,
            data,
            ended_age_ms: Number(0),
        }
    }

    fn rollback(number: u64) -> Command {
        command(number, json!({"do": "rollback", "to": "before", "start": null}))
    }

    fn moments(number: u64) -> Command {
        command(number, json!({"do": "moments"}))
    }

    /// As much as a device can answer to a look at its moments.
    fn many() -> Data {
        let moment = |number: i64| Moment {
            tag: Some(Text::cut("kept")),
            time: orchestrator_api::text::Time(number),
            reason: MomentReason::Asked,
            volumes: List::default(),
        };
        Data { moments: List::cut((0..1_000).map(moment)), ..Data::default() }
    }

    #[test]
    fn however_often_somebody_looked_at_moments_what_was_done_is_known_to_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = Results::read(folder.path());
        assert_eq!(results.begin(&rollback(1)), Begun::Now);
        assert!(results.keep(&rollback(1), &done(&rollback(1), Data::default())), "it is written");
        results.write().expect("written");
        for number in 2..200 {
            let asked = moments(number);
            assert_eq!(results.begin(&asked), Begun::Now);
            assert!(!results.keep(&asked, &done(&asked, many())), "a question is not written");
            assert!(results.known(&asked).is_some(), "while the hive has no answer");
            results.told(&asked);
            assert_eq!(results.known(&asked), None);
        }
        results.write().expect("written");
        assert!(std::fs::metadata(folder.path().join("results.json")).expect("there").len() < 1_000);
        let again = Results::read(folder.path());
        assert_eq!(again.damage(), None);
        let again = again.known(&Command { number: CommandNumber(500), ..rollback(1) }).expect("known");
        assert_eq!((again.number.0, again.state), (500, ResultState::Done));
    }

    #[test]
    fn a_question_that_nobody_took_the_answer_of_pushes_nothing_out_that_was_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = Results::read(folder.path());
        results.keep(&rollback(1), &done(&rollback(1), Data::default()));
        for number in 2..RESULTS_MAX as u64 + 100 {
            results.keep(&moments(number), &done(&moments(number), Data::default()));
        }
        assert!(results.known(&rollback(1)).is_some());
    }

    #[test]
    fn what_is_written_can_be_read_however_much_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = Results::read(folder.path());
        let late = |number: u64| Late {
            volume: orchestrator_api::text::Hex([number as u8; 32]),
            name: Text::cut(&"n".repeat(200)),
            bytes: Number(number),
        };
        let much = Data { late: List::cut((0..64).map(late)), ..Data::default() };
        for number in 1..=RESULTS_MAX as u64 {
            results.keep(&rollback(number), &done(&rollback(number), much.clone()));
        }
        results.write().expect("written");
        let again = Results::read(folder.path());
        assert_eq!(again.damage(), None);
        assert!(again.known(&rollback(RESULTS_MAX as u64)).is_some(), "the newest are there");
    }

    #[test]
    fn results_that_cannot_be_read_are_told_until_somebody_removes_them() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("results.json"), b"[{").expect("written");
        let results = Results::read(folder.path());
        assert!(results.damage().is_some_and(|text| text.contains("results.damaged")), "{results:?}");
        // What is done from then on is kept as ever.
        results.keep(&rollback(1), &done(&rollback(1), Data::default()));
        results.write().expect("written");
        let again = Results::read(folder.path());
        assert!(again.known(&rollback(1)).is_some() && again.damage().is_some());
        std::fs::remove_file(folder.path().join("results.damaged")).expect("there");
        assert_eq!(Results::read(folder.path()).damage(), None);
    }

    #[test]
    fn what_is_given_again_is_begun_once_and_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = Results::read(folder.path());
        assert_eq!(results.begin(&rollback(1)), Begun::Now);
        assert_eq!(results.begin(&rollback(1)), Begun::Already);
        let failed = CommandResult {
            state: ResultState::Failed,
            code: Some(Problem::State),
            ..done(&rollback(1), Data::default())
        };
        assert!(results.keep(&rollback(1), &failed));
        let later = Command { number: CommandNumber(9), ..rollback(1) };
        let Begun::Known(known) = results.begin(&later) else { panic!("it was answered") };
        assert_eq!((known.number.0, known.code), (9, Some(Problem::State)));
        assert!(!results.keep(&later, &known), "nothing else came of it");
    }
}
