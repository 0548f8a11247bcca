//! What a crash leaves: the device's own file, and a record for each app.
//!
//! ```text
//! FOLDER/device.json             hello, incarnation, refusal
//! FOLDER/device.kept             room for the same, for a disk that is full
//! FOLDER/apps/APP/record.json    the record
//! FOLDER/apps/APP/record.kept    room for the same
//! ```
//!
//! Invariants
//! - Each is replaced whole: written beside, synced, renamed, and the folder synced. Where that finds no room, it goes into
//!   the room that is kept (`kept.rs`), so that a device whose disk is full is heard, stops apps and hands them over.
//! - Of the two forms the later one counts, by a number in both.
//! - A record that cannot be read is told, and starts nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use orchestrator_api::command::{Command, CommandResult, Data, Order, Outcome, Start, Verb};
use orchestrator_api::ids::{
    AppId, CommandNumber, Generation, HelloNumber, Incarnation, OperationId, Term, VolumeId,
};
use orchestrator_api::placement::{self, Policy, Problem, Why};
use orchestrator_api::report::Refusal;
use orchestrator_api::text::Hex;
use orchestrator_api::wire::command::{Expect, HeadAt, ResultState, WriterAt};
use orchestrator_api::wire::report as wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::kept;
use crate::record::{Cut, Disk, Identity, Kept, Record, VolumeRecord};

/// The largest file that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 8 << 20;

/// The folder of a device.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    written: BTreeMap<AppId, u64>,
    identity_written: u64,
    is_short: bool,
}

impl Files {
    /// The files in a folder, which is made.
    pub fn new(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        make(&folder.join("apps"))?;
        Ok(Self { folder, written: BTreeMap::new(), identity_written: 0, is_short: false })
    }

    /// Whether what was written last found no room but that which is kept.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// The folder of an app.
    pub fn app(&self, app: AppId) -> PathBuf {
        self.folder.join("apps").join(app.to_string())
    }

    /// Reads everything. Apps whose records cannot be read are named.
    pub fn load(&mut self) -> io::Result<(Disk, Vec<AppId>)> {
        let saved = read_json::<SavedIdentity>(&self.folder.join("device.json"))?;
        let kept = read_kept::<SavedIdentity>(&self.folder.join("device.kept"));
        let newest = saved.into_iter().chain(kept).max_by_key(|saved| saved.written);
        self.identity_written = newest.as_ref().map_or(0, |saved| saved.written);
        let identity = newest.map(Identity::from).unwrap_or_default();
        let (mut apps, mut damaged) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(self.folder.join("apps"))? {
            let Some(app) = entry?.file_name().to_str().and_then(|name| name.parse::<AppId>().ok()) else {
                continue;
            };
            match self.read_record(app) {
                Ok(Some((number, record))) => {
                    self.written.insert(app, number);
                    apps.insert(app, record);
                }
                Ok(None) => {}
                Err(_) => damaged.push(app),
            }
        }
        Ok((Disk { identity, apps }, damaged))
    }

    fn read_record(&self, app: AppId) -> io::Result<Option<(u64, Record)>> {
        let whole = read_json::<Saved>(&self.app(app).join("record.json"));
        let kept = read_kept::<Saved>(&self.app(app).join("record.kept"));
        let newest = match (whole, kept) {
            (Ok(whole), kept) => {
                let kept =
                    kept.filter(|kept| whole.as_ref().is_none_or(|whole| kept.written > whole.written));
                kept.or(whole)
            }
            (Err(error), None) => return Err(error),
            (Err(_), kept) => kept,
        };
        newest.map(|saved| Ok((saved.written, saved.record()?))).transpose()
    }

    /// Replaces the device's own file; into room that is kept for it, if the disk is full.
    pub fn write_identity(&mut self, identity: &Identity) -> io::Result<()> {
        let written = self.identity_written + 1;
        let saved = SavedIdentity { written, ..SavedIdentity::from(identity) };
        let folder = self.folder.clone();
        self.write(&folder, "device", written, &saved, false)?;
        self.identity_written = written;
        Ok(())
    }

    /// Replaces a record; into room that is kept for it, if the disk is full. One that is `reserved` goes there whatever
    /// stands against the usual form.
    pub fn write_record(&mut self, record: &Record, reserved: bool) -> io::Result<()> {
        let folder = self.app(record.app);
        make(&folder)?;
        let written = self.written.get(&record.app).copied().unwrap_or_default() + 1;
        self.write(&folder, "record", written, &Saved::of(record, written), reserved)?;
        self.written.insert(record.app, written);
        Ok(())
    }

    fn write(
        &mut self,
        folder: &Path,
        name: &str,
        number: u64,
        saved: &impl Serialize,
        reserved: bool,
    ) -> io::Result<()> {
        let kept = folder.join(name).with_extension("kept");
        // On a disk that is full already there is none to keep; what is kept for others stays theirs.
        let is_kept = kept::keep(&kept);
        let bytes = serde_json::to_vec(saved)?;
        let written = replace(&folder.join(name).with_extension("json"), &bytes);
        self.is_short = written.as_ref().is_err_and(is_full);
        match written {
            Err(error) if reserved || is_full(&error) => {
                is_kept.map_err(|_| error)?;
                kept::write(&kept, number, &bytes)
            }
            other => other,
        }
    }

    /// Removes an app's folder: record, package, settings, and the empty folders that volumes were mounted on.
    ///
    /// Nothing below those is touched: what should be mounted there still is an error.
    pub fn forget(&mut self, app: AppId) -> io::Result<()> {
        self.written.remove(&app);
        let folder = self.app(app);
        // Of the two forms the one that may be the older goes first.
        for name in ["record.kept", "record.json"] {
            gone(fs::remove_file(folder.join(name)))?;
        }
        for mount in entries(&folder.join("volumes"))? {
            fs::remove_dir(mount)?;
        }
        for entry in entries(&folder)? {
            match fs::symlink_metadata(&entry)?.is_dir() {
                true => fs::remove_dir(entry)?,
                false => fs::remove_file(entry)?,
            }
        }
        gone(fs::remove_dir(&folder))
    }
}

/// Whether there is no room for it: on the disk, or for its user.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a folder that is root's alone.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Reads JSON, if the file is there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
}

/// Replaces a file by JSON, durably.
pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// Replaces a file, durably. Nobody else may read it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // Half of it would take room that a full disk has not.
    file.write_all(bytes).and_then(|()| file.sync_data()).inspect_err(|_| drop(fs::remove_file(&new)))?;
    fs::rename(&new, path)?;
    // Without it a crash could lose the new name.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What is in the kept room, if anything whole is.
fn read_kept<T: DeserializeOwned>(path: &Path) -> Option<T> {
    kept::read(path).and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok())
}

#[derive(Serialize, Deserialize)]
struct SavedIdentity {
    #[serde(default)]
    written: u64,
    hello: HelloNumber,
    incarnation: Incarnation,
    refused: Option<String>,
}

const REFUSALS: [(Refusal, &str); 5] = [
    (Refusal::SessionOver, "session_over"),
    (Refusal::ReportOld, "report_old"),
    (Refusal::Cloned, "device_cloned"),
    (Refusal::Revoked, "device_revoked"),
    (Refusal::Unknown, "device_unknown"),
];

/// A refusal by its code.
pub fn refusal(code: &str) -> Option<Refusal> {
    REFUSALS.iter().find(|(_, text)| *text == code).map(|(refusal, _)| *refusal)
}

impl From<&Identity> for SavedIdentity {
    fn from(identity: &Identity) -> Self {
        let text =
            |refused| REFUSALS.iter().find(|(one, _)| *one == refused).map(|(_, text)| (*text).to_owned());
        Self {
            written: 0,
            hello: identity.hello,
            incarnation: identity.incarnation,
            refused: identity.refused.and_then(text),
        }
    }
}

impl From<SavedIdentity> for Identity {
    fn from(saved: SavedIdentity) -> Self {
        let refused = saved.refused.as_deref().and_then(refusal);
        Self { hello: saved.hello, incarnation: saved.incarnation, refused }
    }
}

/// What is not there is removed.
pub fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a folder; nothing where there is none.
pub fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(list) => list.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    written: u64,
    app: AppId,
    term: Term,
    mine: bool,
    generation: Generation,
    policy: Policy,
    phase: SavedPhase,
    // Records of before it was written: whoever had one was taken for ready.
    #[serde(default = "ready")]
    ready: bool,
    volumes: Vec<SavedVolume>,
    rollback_to: Vec<HeadAt>,
    started: bool,
    healthy: bool,
    doing: Option<SavedCommand>,
    command: CommandNumber,
    results: Vec<SavedResult>,
}

fn ready() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
struct SavedPhase {
    phase: wire::Phase,
    why: Option<wire::Why>,
    resume: bool,
    problem: Option<Problem>,
}

#[derive(Serialize, Deserialize)]
struct SavedVolume {
    volume: Hex<32>,
    expect: Expect,
    cut: Option<HeadAt>,
    parent: Option<Hex<32>>,
}

#[derive(Serialize, Deserialize)]
struct SavedCommand {
    number: CommandNumber,
    operation: OperationId,
    term: Term,
    generation: Generation,
    order: SavedOrder,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedOrder {
    Prepare(Vec<Hex<32>>),
    Start { policy: Policy, volumes: Vec<(Hex<32>, Expect)>, rollback_to: Vec<HeadAt> },
    Stop,
    HandOver,
    Settings(Policy),
}

#[derive(Serialize, Deserialize)]
struct SavedResult {
    operation: OperationId,
    verb: SavedVerb,
    acknowledged: bool,
    number: CommandNumber,
    state: ResultState,
    problem: Option<Problem>,
    heads: Vec<HeadAt>,
    writers: Vec<WriterAt>,
    started: bool,
    healthy: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedVerb {
    Prepare,
    Start,
    Stop,
    HandOver,
    Settings,
}

impl From<placement::Phase> for SavedPhase {
    fn from(from: placement::Phase) -> Self {
        let (phase, why) = wire::Phase::of(from);
        let reason = match from {
            placement::Phase::Stopping(why)
            | placement::Phase::Flushing(why)
            | placement::Phase::Stopped(why) => Some(why),
            _ => None,
        };
        let problem = match reason {
            Some(Why::Failed(problem)) => Some(problem),
            _ => None,
        };
        Self { phase, why, resume: reason == Some(Why::HandOver { resume: true }), problem }
    }
}

impl From<SavedPhase> for placement::Phase {
    fn from(saved: SavedPhase) -> Self {
        let resumed = Why::HandOver { resume: true };
        match saved.phase.with(saved.why, saved.problem) {
            Self::Stopping(Why::HandOver { .. }) if saved.resume => Self::Stopping(resumed),
            Self::Flushing(Why::HandOver { .. }) if saved.resume => Self::Flushing(resumed),
            Self::Stopped(Why::HandOver { .. }) if saved.resume => Self::Stopped(resumed),
            phase => phase,
        }
    }
}

fn heads(heads: &BTreeMap<VolumeId, placement::Head>) -> Vec<HeadAt> {
    heads.iter().map(|(volume, head)| HeadAt::of(*volume, head)).collect()
}

fn expects(list: &[(Hex<32>, Expect)]) -> BTreeMap<VolumeId, placement::Expect> {
    list.iter().map(|(volume, expect)| (VolumeId(volume.0), expect.into())).collect()
}

impl From<&Command> for SavedCommand {
    fn from(command: &Command) -> Self {
        let order = match &command.order {
            Order::Prepare { volumes } => SavedOrder::Prepare(volumes.iter().map(|one| Hex(one.0)).collect()),
            Order::Start(start) => SavedOrder::Start {
                policy: start.policy,
                volumes: start
                    .volumes
                    .iter()
                    .map(|(volume, expect)| (Hex(volume.0), expect.into()))
                    .collect(),
                rollback_to: heads(&start.rollback_to),
            },
            Order::Stop => SavedOrder::Stop,
            Order::HandOver => SavedOrder::HandOver,
            Order::Settings(policy) => SavedOrder::Settings(*policy),
        };
        let Command { number, operation, term, generation, .. } = *command;
        Self { number, operation, term, generation, order }
    }
}

impl SavedCommand {
    fn command(self, app: AppId) -> Command {
        let order = match self.order {
            SavedOrder::Prepare(volumes) => {
                Order::Prepare { volumes: volumes.iter().map(|one| VolumeId(one.0)).collect() }
            }
            SavedOrder::Start { policy, volumes, rollback_to } => Order::Start(Start {
                policy,
                volumes: expects(&volumes),
                rollback_to: rollback_to.iter().map(HeadAt::head).collect(),
            }),
            SavedOrder::Stop => Order::Stop,
            SavedOrder::HandOver => Order::HandOver,
            SavedOrder::Settings(policy) => Order::Settings(policy),
        };
        let Self { number, operation, term, generation, .. } = self;
        Command { number, operation, app, term, generation, order }
    }
}

impl From<&Kept> for SavedResult {
    fn from(kept: &Kept) -> Self {
        let CommandResult { number, outcome, data, .. } = &kept.result;
        let (state, problem) = match outcome {
            Outcome::Done => (ResultState::Done, None),
            Outcome::Failed(problem) => (ResultState::Failed, Some(*problem)),
            Outcome::Obsolete => (ResultState::Obsolete, None),
        };
        let writer = |(volume, writer): (&VolumeId, &fs_format::DeviceId)| WriterAt {
            volume: Hex(volume.0),
            writer: Hex(writer.0),
        };
        Self {
            operation: kept.operation,
            verb: match kept.verb {
                Verb::Prepare => SavedVerb::Prepare,
                Verb::Start => SavedVerb::Start,
                Verb::Stop => SavedVerb::Stop,
                Verb::HandOver => SavedVerb::HandOver,
                Verb::Settings => SavedVerb::Settings,
            },
            acknowledged: kept.acknowledged,
            number: *number,
            state,
            problem,
            heads: heads(&data.heads),
            writers: data.writers.iter().map(writer).collect(),
            started: data.started,
            healthy: data.healthy,
        }
    }
}

impl SavedResult {
    fn kept(self, app: AppId) -> Kept {
        let outcome = match self.state {
            ResultState::Done => Outcome::Done,
            ResultState::Failed => Outcome::Failed(self.problem.unwrap_or(Problem::Unknown)),
            ResultState::Obsolete => Outcome::Obsolete,
        };
        let writer = |one: &WriterAt| (VolumeId(one.volume.0), fs_format::DeviceId(one.writer.0));
        let data = Data {
            heads: self.heads.iter().map(HeadAt::head).collect(),
            writers: self.writers.iter().map(writer).collect(),
            started: self.started,
            healthy: self.healthy,
        };
        Kept {
            operation: self.operation,
            verb: match self.verb {
                SavedVerb::Prepare => Verb::Prepare,
                SavedVerb::Start => Verb::Start,
                SavedVerb::Stop => Verb::Stop,
                SavedVerb::HandOver => Verb::HandOver,
                SavedVerb::Settings => Verb::Settings,
            },
            result: CommandResult { number: self.number, app, outcome, data },
            acknowledged: self.acknowledged,
        }
    }
}

impl Saved {
    fn of(record: &Record, written: u64) -> Self {
        let volume = |(volume, one): (&VolumeId, &VolumeRecord)| SavedVolume {
            volume: Hex(volume.0),
            expect: (&one.expect).into(),
            cut: one.cut.map(|cut| HeadAt::of(*volume, &cut.head)),
            parent: one.cut.and_then(|cut| cut.parent).map(|parent| Hex(parent.0)),
        };
        Self {
            written,
            app: record.app,
            term: record.term,
            mine: record.mine,
            generation: record.generation,
            policy: record.policy,
            phase: record.phase.into(),
            ready: record.ready,
            volumes: record.volumes.iter().map(volume).collect(),
            rollback_to: heads(&record.rollback_to),
            started: record.started,
            healthy: record.healthy,
            doing: record.doing.as_ref().map(SavedCommand::from),
            command: record.command,
            results: record.results.iter().map(SavedResult::from).collect(),
        }
    }

    fn record(self) -> io::Result<Record> {
        let app = self.app;
        let volume = |saved: SavedVolume| {
            let parent = saved.parent.map(|parent| fs_format::ManifestId(parent.0));
            let cut = saved.cut.map(|cut| Cut { head: cut.head().1, parent });
            (VolumeId(saved.volume.0), VolumeRecord { expect: (&saved.expect).into(), cut })
        };
        Ok(Record {
            app,
            term: self.term,
            mine: self.mine,
            generation: self.generation,
            policy: self.policy,
            phase: self.phase.into(),
            ready: self.ready,
            volumes: self.volumes.into_iter().map(volume).collect(),
            rollback_to: self.rollback_to.iter().map(HeadAt::head).collect(),
            started: self.started,
            healthy: self.healthy,
            doing: self.doing.map(|command| command.command(app)),
            command: self.command,
            results: self.results.into_iter().map(|result| result.kept(app)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use orchestrator_api::placement::{Head, Phase};

    use super::*;

    const APP: AppId = AppId([5, 5, 5, 5, 5, 5, 0x45, 5, 0x85, 5, 5, 5, 5, 5, 5, 5]);

    fn record(term: u64, phase: Phase) -> Record {
        let head = Head {
            epoch: fs_format::Epoch(3),
            seq: fs_format::Seq(8),
            manifest: fs_format::ManifestId([9; 32]),
        };
        let writers = BTreeSet::from([fs_format::DeviceId([4; 16])]);
        let expect = placement::Expect::Since { epoch: head.epoch, seq: head.seq, writers };
        let volume = VolumeId([1; 32]);
        let start = Start {
            policy: Policy::Auto,
            volumes: [(volume, placement::Expect::Exactly(head)), (VolumeId([2; 32]), expect.clone())].into(),
            rollback_to: [(volume, head)].into(),
        };
        let app = APP;
        let command = Command {
            number: CommandNumber(4),
            operation: OperationId(APP.0),
            app,
            term: Term(term),
            generation: Generation(2),
            order: Order::Start(start),
        };
        let data = Data {
            heads: [(volume, head)].into(),
            writers: [(volume, fs_format::DeviceId([4; 16]))].into(),
            started: true,
            healthy: false,
        };
        let outcome = Outcome::Failed(Problem::GateLate);
        let result = CommandResult { number: CommandNumber(3), app, outcome, data };
        let cut = Some(Cut { head, parent: Some(fs_format::ManifestId([8; 32])) });
        Record {
            term: Term(term),
            mine: true,
            generation: Generation(2),
            policy: Policy::Auto,
            phase,
            ready: term.is_multiple_of(2),
            volumes: [(volume, VolumeRecord { expect, cut })].into(),
            rollback_to: [(volume, head)].into(),
            started: true,
            healthy: true,
            doing: Some(command),
            command: CommandNumber(4),
            results: vec![Kept {
                operation: OperationId(APP.0),
                verb: Verb::HandOver,
                result,
                acknowledged: true,
            }],
            ..Record::new(app)
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path()).expect("made");
        let identity =
            Identity { hello: HelloNumber(9), incarnation: Incarnation(4), refused: Some(Refusal::Cloned) };
        files.write_identity(&identity).expect("written");
        let whys = [
            Why::Again,
            Why::Ordered,
            Why::HandOver { resume: true },
            Why::HandOver { resume: false },
            Why::LeaseOver,
            Why::Fenced,
            Why::Failed(Problem::MountDied),
        ];
        let mut phases =
            vec![Phase::StandingBy, Phase::Claiming, Phase::Mounting, Phase::Starting, Phase::Running];
        phases.push(Phase::Settling);
        phases.extend(
            whys.iter().flat_map(|why| [Phase::Stopping(*why), Phase::Flushing(*why), Phase::Stopped(*why)]),
        );
        for (term, phase) in (1..).zip(phases) {
            let written = record(term, phase);
            files.write_record(&written, false).expect("written");
            let (disk, damaged) = Files::new(folder.path()).expect("made").load().expect("read");
            assert_eq!((&disk.identity, damaged), (&identity, vec![]));
            assert_eq!(disk.apps[&written.app], written);
        }
    }

    #[test]
    fn a_record_that_gives_up_is_written_though_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path()).expect("made");
        files.write_record(&record(1, Phase::Running), false).expect("written");
        let app = files.app(APP);
        // A folder where the new file would be written is as good as a full disk.
        fs::create_dir(app.join("record.new")).expect("made");
        let gives_up = record(1, Phase::Stopping(Why::LeaseOver));
        assert!(files.write_record(&gives_up, false).is_err());
        files.write_record(&gives_up, true).expect("room was kept");
        let (disk, _) = Files::new(folder.path()).expect("made").load().expect("read");
        assert_eq!(disk.apps[&gives_up.app], gives_up);

        // Torn in the middle, the one before counts; later ones of the usual form count again.
        let kept = OpenOptions::new().write(true).open(app.join("record.kept")).expect("there");
        std::os::unix::fs::FileExt::write_all_at(&kept, b"x", 60).expect("written");
        let (disk, _) = Files::new(folder.path()).expect("made").load().expect("read");
        assert_eq!(disk.apps[&gives_up.app].phase, Phase::Running);
    }

    #[test]
    fn what_is_kept_of_an_app_goes_and_never_what_is_below_a_mount() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path()).expect("made");
        files.write_record(&record(1, Phase::StandingBy), false).expect("written");
        let app = files.app(APP);
        let data = app.join("volumes/data");
        fs::create_dir_all(&data).expect("made");
        fs::write(app.join("app.json"), b"{}").expect("written");
        fs::write(data.join("photo"), b"of somebody").expect("written");
        files.forget(APP).expect_err("something is there");
        assert!(data.join("photo").exists());
        let (disk, damaged) = files.load().expect("read");
        assert_eq!((disk.apps.len(), damaged.len()), (0, 0), "no app is here any more");

        fs::remove_file(data.join("photo")).expect("there");
        files.forget(APP).expect("all of it");
        assert!(!app.exists());
        files.forget(APP).expect("a second time");
    }

    #[test]
    fn a_damaged_record_is_told_and_is_no_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path()).expect("made");
        let written = record(1, Phase::Running);
        files.write_record(&written, false).expect("written");
        fs::write(files.app(written.app).join("record.json"), b"{").expect("written");
        let (disk, damaged) = files.load().expect("read");
        assert_eq!((disk.apps.len(), damaged), (0, vec![written.app]));
    }
}
