//! The past of volumes, as the device's page asks for it: each question is a command of this program.
//!
//! Places go to a command on its standard input: its words are seen by everybody on the machine.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_api::text::Time;
use orchestrator_device::doors::past::{
    Back, Change, Compared, Done, Entry, Kind, Looked, Moment, Past, Place, Reading, Restored, Seen, Unseen,
    Version, Why,
};
use orchestrator_device::doors::program;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::volumes::{Answer, Commands, Refused};
use crate::failure;
use crate::name::VolumeName;
use crate::progress::{TOLD, Told};
use crate::report::SealReport;

/// How long looking at something may take, also where parts of it are fetched from a store.
const LOOK_WAIT: Duration = Duration::from_secs(120);
/// How long putting something back may take.
const RESTORE_WAIT: Duration = Duration::from_secs(6 * 3_600);

/// The bytes of a place as a command reads it. A slash begins the path, so that no part of it is taken for the moment.
fn written(place: &Place) -> Vec<u8> {
    let when = place.seq.map_or_else(|| "head".to_owned(), |seq| seq.to_string());
    [format!("{}@{when}:/", place.volume).as_bytes(), &place.path].concat()
}

/// A volume's name goes among the words of a command, so it is one.
fn volume(name: &str) -> Seen<&str> {
    match name.parse::<VolumeName>() {
        Ok(_) => Ok(name),
        Err(why) => Err(Unseen { why: Why::Missing, text: why }),
    }
}

fn time(text: &str) -> Time {
    Time(text.parse::<jiff::Timestamp>().map_or(0, |time| time.as_millisecond()))
}

fn unseen(refused: Refused) -> Unseen {
    use failure::Kind;
    let is = |kind: Kind| refused.kind == Some(kind as i32);
    let why = if is(Kind::NotFound) {
        Why::Missing
    } else if is(Kind::InTheWay) {
        Why::InTheWay
    } else if is(Kind::NotPermitted) {
        Why::ReadOnly
    } else if is(Kind::NoSpace) {
        Why::Full
    } else if is(Kind::Damaged) {
        Why::Damaged
    } else if is(Kind::Unreachable) || is(Kind::Silent) {
        Why::Away
    } else {
        Why::Otherwise
    };
    Unseen { why, text: refused.text }
}

#[derive(Deserialize)]
struct PathReport {
    path: String,
    path_hex: Option<String>,
}

impl PathReport {
    fn bytes(self) -> Vec<u8> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let hex = self.path_hex.as_ref().and_then(|hex| hex.as_bytes().chunks(2).map(byte).collect());
        hex.unwrap_or_else(|| self.path.into_bytes())
    }
}

#[derive(Deserialize)]
struct EntryReport {
    #[serde(flatten)]
    path: PathReport,
    kind: String,
    mode: String,
    uid: u32,
    gid: u32,
    bytes: u64,
    modified: String,
    target: Option<String>,
}

fn kind(word: &str) -> Kind {
    match word {
        "file" => Kind::File,
        "directory" => Kind::Folder,
        "symlink" => Kind::Link,
        _ => Kind::Special,
    }
}

impl From<EntryReport> for Entry {
    fn from(report: EntryReport) -> Self {
        Self {
            name: report.path.bytes(),
            kind: kind(&report.kind),
            bytes: report.bytes,
            modified: time(&report.modified),
            mode: report.mode,
            owner: (report.uid, report.gid),
            target: report.target,
        }
    }
}

/// How far a restore is, by a line of it.
fn done(line: &str) -> Option<Done> {
    let told: Told = serde_json::from_str(line.strip_prefix(TOLD)?).ok()?;
    Some(Done { files: told.files, bytes: told.bytes, total: told.total })
}

fn moment(report: &SealReport) -> Moment {
    Moment {
        seq: report.seq,
        time: time(&report.time),
        files: report.files,
        bytes: report.bytes,
        added_bytes: report.added_bytes,
        snapshot: report.snapshot.as_ref().map(|label| (label.tags.clone(), label.message.clone())),
    }
}

#[derive(Deserialize)]
struct LookReport {
    moment: SealReport,
    #[serde(rename = "self")]
    found: EntryReport,
    total: u64,
    entries: Vec<EntryReport>,
}

#[derive(Deserialize)]
struct VersionReport {
    seq: u64,
    sealed: String,
    exists: bool,
    kind: Option<String>,
    bytes: Option<u64>,
    modified: Option<String>,
}

#[derive(Deserialize)]
struct ChangeReport {
    change: String,
    #[serde(flatten)]
    path: PathReport,
    kind: String,
}

#[derive(Deserialize)]
struct CompareReport {
    from: SealReport,
    to: SealReport,
    added: u64,
    modified: u64,
    removed: u64,
    changes: Vec<ChangeReport>,
}

#[derive(Deserialize)]
struct RestoreReport {
    files: u64,
    #[serde(flatten)]
    path: PathReport,
    kept: Option<SealReport>,
}

impl Commands {
    /// What a command answers about a volume, which gets `input`.
    async fn seen<T: DeserializeOwned>(
        &self,
        name: &str,
        args: &[&str],
        input: &[u8],
        limit: Duration,
    ) -> Seen<T> {
        let stores = self.stores(volume(name)?);
        self.json_with(args, &stores, limit, input).await.map_err(unseen)
    }

    /// A command whose output is read as it comes.
    async fn reading(&self, args: &[&str], place: &Place) -> Seen<Reading> {
        let stores = self.stores(volume(&place.volume)?);
        let opened = self
            .with_call(args, &stores, LOOK_WAIT, async |call| {
                program::open_with(&call, &written(place))
                    .await
                    .map_err(|silent| Refused { kind: None, text: silent.to_string() })
            })
            .await;
        opened.map(Reading::of).map_err(unseen)
    }
}

#[async_trait]
impl Past for Commands {
    async fn moments(&self, name: &str, max: usize) -> Seen<Vec<Moment>> {
        let max = max.to_string();
        let args = ["log", "--json", "--number", &max, "--", volume(name)?];
        let list: Vec<SealReport> = self.seen(name, &args, &[], LOOK_WAIT).await?;
        Ok(list.iter().map(moment).collect())
    }

    async fn look(&self, place: &Place, from: u64, count: u64) -> Seen<Looked> {
        let page = format!("{from}:{count}");
        let args = ["ls", "--page", &page, "-"];
        let report: LookReport = self.seen(&place.volume, &args, &written(place), LOOK_WAIT).await?;
        Ok(Looked {
            moment: moment(&report.moment),
            found: report.found.into(),
            total: report.total,
            entries: report.entries.into_iter().map(Entry::from).collect(),
        })
    }

    async fn versions(&self, name: &str, path: &[u8], max: usize) -> Seen<Vec<Version>> {
        let max = max.to_string();
        let args = ["log", "--json", "--number", &max, "--", volume(name)?, "-"];
        // An empty path would be no input at all.
        let path = [b"/", path].concat();
        let list: Vec<VersionReport> = self.seen(name, &args, &path, LOOK_WAIT).await?;
        let version = |one: VersionReport| Version {
            seq: one.seq,
            sealed: time(&one.sealed),
            file: one.exists.then(|| {
                let kind = one.kind.as_deref().map_or(Kind::Special, kind);
                (kind, one.bytes.unwrap_or_default(), time(one.modified.as_deref().unwrap_or_default()))
            }),
        };
        Ok(list.into_iter().map(version).collect())
    }

    async fn compare(
        &self,
        name: &str,
        from: u64,
        to: Option<u64>,
        first: u64,
        count: u64,
    ) -> Seen<Compared> {
        let place = format!("{}@{from}", volume(name)?);
        let to = to.map_or_else(|| "head".to_owned(), |to| to.to_string());
        let page = format!("{first}:{count}");
        let args = ["diff", "--page", &page, "--", &place, &to];
        let report: CompareReport = self.seen(name, &args, &[], LOOK_WAIT).await?;
        let change = |one: ChangeReport| {
            let how = match one.change.as_str() {
                "added" => Change::Added,
                "removed" => Change::Removed,
                _ => Change::Modified,
            };
            (how, kind(&one.kind), one.path.bytes())
        };
        Ok(Compared {
            from: moment(&report.from),
            to: moment(&report.to),
            counts: (report.added, report.modified, report.removed),
            changes: report.changes.into_iter().map(change).collect(),
        })
    }

    async fn read(&self, place: &Place) -> Seen<Reading> {
        self.reading(&["cat", "-"], place).await
    }

    async fn archive(&self, place: &Place) -> Seen<Reading> {
        self.reading(&["export", "--tar", "-", "-"], place).await
    }

    async fn restore(
        &self,
        place: &Place,
        back: Back,
        told: &(dyn Fn(Done) + Send + Sync),
    ) -> Seen<Restored> {
        let how = match back {
            Back::InPlace => "--in-place",
            Back::Beside => "--beside",
        };
        let args = ["restore", how, "--json", "--progress", "-"];
        let hear = |line: &str| match done(line) {
            Some(done) => {
                told(done);
                true
            }
            None => false,
        };
        let stores = self.stores(volume(&place.volume)?);
        let answer: Answer<RestoreReport> = self
            .with_call(&args, &stores, RESTORE_WAIT, async |call| {
                let said = program::run_heard(&call, &written(place), hear)
                    .await
                    .map_err(|silent| Refused { kind: None, text: silent.to_string() })?;
                super::volumes::read(&super::volumes::ended_well(said)?)
            })
            .await;
        let report = answer.map_err(unseen)?;
        Ok(Restored {
            files: report.files,
            path: report.path.bytes(),
            kept: report.kept.as_ref().map(moment),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_so_that_its_path_is_nothing_else() {
        let place = |path: &[u8]| Place { volume: "a/cut-1-e2".into(), seq: Some(4), path: path.to_vec() };
        assert_eq!(written(&place(b"30:x")), b"a/cut-1-e2@4:/30:x");
        assert_eq!(written(&place(b"\xff")), b"a/cut-1-e2@4:/\xff");
        let newest = Place { seq: None, ..place(b"") };
        assert_eq!(written(&newest), b"a/cut-1-e2@head:/");
    }

    #[test]
    fn a_line_tells_how_far_it_is_or_is_another() {
        let told = done("progress {\"files\":3,\"bytes\":4096,\"total\":null}");
        assert_eq!(told, Some(Done { files: 3, bytes: 4096, total: None }));
        for line in ["error: no", "progress", "progress {}", "progress 3"] {
            assert_eq!(done(line), None, "{line}");
        }
    }

    #[test]
    fn no_volume_is_called_like_an_option() {
        for name in ["--state", "-x", "", "a@1", "../x", "a b"] {
            assert_eq!(volume(name).map_err(|unseen| unseen.why), Err(Why::Missing), "{name}");
        }
    }
}
