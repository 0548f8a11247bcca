//! What this device did, a line each: `history.jsonl` (`failover.md`, section 15).
//!
//! For those who look afterwards whether everything was as promised; nothing is decided by it, so a line that cannot be
//! written is told in the log and changes nothing. What is told of an app comes from its record, as it is on the disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use orchestrator_api::history::{Line, Manifest, What, Who};
use orchestrator_api::ids::{AppId, DeviceId, Epoch, VolumeId};
use orchestrator_api::placement::{Head, Phase, Why};
use orchestrator_api::text::Hex;
use parking_lot::Mutex;

use crate::doors::clock;
use crate::doors::volumes::VolumeState;
use crate::record::Record;

/// The largest file, in bytes; the one before it is kept beside it.
const BYTES_MAX: u64 = 64 << 20;

/// The file.
pub(super) struct History {
    path: PathBuf,
    boot: Hex<16>,
    who: Who,
    file: Mutex<Option<File>>,
}

impl History {
    /// That of a device, in its folder.
    pub(super) fn new(folder: &Path, device: DeviceId) -> Self {
        let path = folder.join("history.jsonl");
        Self { path, boot: Hex(boot()), who: Who::Device(device), file: Mutex::default() }
    }

    /// Writes lines down.
    pub(super) fn write(&self, happened: impl IntoIterator<Item = What>) {
        let boottime_ms = clock::boottime();
        let lines =
            happened.into_iter().map(|what| Line { boottime_ms, boot: self.boot, who: self.who, what });
        let text: String = lines.map(|line| line.to_json()).collect();
        if text.is_empty() {
            return;
        }
        if let Err(error) = self.append(&text) {
            tracing::warn!(%error, "the history cannot be written");
        }
    }

    fn append(&self, text: &str) -> io::Result<()> {
        let mut open = self.file.lock();
        if open.as_ref().map(File::metadata).transpose()?.is_some_and(|file| file.len() >= BYTES_MAX) {
            std::fs::rename(&self.path, self.path.with_extension("1.jsonl"))?;
            *open = None;
        }
        let file = match &mut *open {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        // One write: a crash tears the last line only.
        file.write_all(text.as_bytes())
    }
}

fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.parse::<Hex<16>>().map_or([0; 16], |boot| boot.0)
}

fn manifest(volume: VolumeId, head: Head) -> Manifest {
    Manifest { volume: Hex(volume.0), epoch: head.epoch.0, seq: head.seq.0, manifest: Hex(head.manifest.0) }
}

/// Whether volumes may be mounted to be written.
fn writes(record: &Record) -> bool {
    matches!(
        record.phase,
        Phase::Mounting | Phase::Starting | Phase::Running | Phase::Stopping(_) | Phase::Flushing(_)
    )
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::StandingBy => "standing_by",
        Phase::Claiming => "claiming",
        Phase::Mounting => "mounting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping(_) => "stopping",
        Phase::Flushing(_) => "flushing",
        Phase::Stopped(_) => "stopped",
        Phase::Settling => "settling",
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Again => "again",
        Why::Ordered => "ordered",
        Why::HandOver { .. } => "hand_over",
        Why::LeaseOver => "lease_over",
        Why::Fenced => "fenced",
        Why::Failed(_) => "failed",
    }
}

/// What a record tells that the one before did not.
pub(super) fn of_record(before: Option<&Record>, after: &Record) -> Vec<What> {
    let (app, term) = (after.app, after.term);
    let mut told = Vec::new();
    if let Some(before) = before.filter(|before| writes(before)) {
        // The volumes of a stopped app may be forgotten with its record; they were told of when it began.
        if !writes(after) || before.term != term {
            let ended =
                |volume: &VolumeId| What::WriteEnded { app, term: before.term, volume: Hex(volume.0) };
            told.extend(before.volumes.keys().map(ended));
        }
    }
    let cut_before = |volume: &VolumeId| before?.volumes.get(volume)?.cut;
    for (volume, now) in &after.volumes {
        if let Some(cut) = now.cut.filter(|cut| cut_before(volume) != Some(*cut)) {
            let parent = cut.parent.map(|parent| Hex(parent.0));
            told.push(What::Claimed { app, term, cut: manifest(*volume, cut.head), parent });
        }
    }
    if writes(after) && !before.is_some_and(|before| writes(before) && before.term == term) {
        let began = |(volume, now): (&VolumeId, &crate::VolumeRecord)| {
            let epoch = now.cut.map_or(0, |cut| cut.head.epoch.0);
            What::WriteBegan { app, term, volume: Hex(volume.0), epoch }
        };
        told.extend(after.volumes.iter().map(began));
    }
    if before.is_none_or(|before| (before.term, before.phase) != (term, after.phase)) {
        told.push(What::Phase { app, term, phase: phase(after.phase).into() });
        match after.phase {
            Phase::Stopping(why) => told.push(What::Stopping { app, term, reason: reason(why).into() }),
            Phase::Stopped(why) => told.push(What::Stopped { app, term, reason: reason(why).into() }),
            _ => {}
        }
        if after.phase == Phase::Stopping(Why::Fenced) {
            told.extend(after.volumes.keys().map(|volume| What::Fenced { app, term, volume: Hex(volume.0) }));
        }
    }
    told
}

/// What was told to be safe when an app was stopped.
pub(super) fn of_published(heads: &BTreeMap<VolumeId, Head>) -> Vec<What> {
    heads.iter().map(|(volume, head)| What::Replicated(manifest(*volume, *head))).collect()
}

/// What mounted volumes tell that they did not before; `epochs` are those that this device has.
pub(super) fn of_volumes(
    before: &[VolumeState],
    after: &[VolumeState],
    epochs: &BTreeMap<VolumeId, Epoch>,
) -> Vec<What> {
    let mut told = Vec::new();
    for now in after.iter().filter(|now| now.mount.is_some() && !now.is_others) {
        let (Some(head), Some(epoch)) = (&now.head, epochs.get(&now.volume)) else { continue };
        let one = manifest(now.volume, Head { epoch: *epoch, seq: head.seq, manifest: head.manifest });
        let then = before.iter().find(|then| then.volume == now.volume);
        let is_safe = |state: &VolumeState| {
            let replicated = state.arbiter.as_ref().and_then(|store| store.replicated);
            replicated.is_some() && replicated == state.head.as_ref().map(|head| head.seq)
        };
        let same = then.is_some_and(|then| then.head.as_ref().map(|head| head.seq) == Some(head.seq));
        if !same {
            told.push(What::Sealed(one));
        }
        if is_safe(now) && !(same && then.is_some_and(is_safe)) {
            told.push(What::Replicated(one));
        }
    }
    told
}

/// Tails that were not there before.
pub(super) fn of_branches<'a>(
    app: AppId,
    before: &[&str],
    after: impl IntoIterator<Item = (VolumeId, &'a str)>,
) -> Vec<What> {
    let new = after.into_iter().filter(|(_, name)| !before.contains(name));
    new.map(|(volume, name)| What::Branch { app, volume: Hex(volume.0), name: name.to_owned().into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use orchestrator_api::ids::{ManifestId, Seq, Term};
    use orchestrator_api::placement::Expect;

    use super::*;
    use crate::record::Cut;

    const APP: AppId = AppId([1; 16]);
    const VOLUME: VolumeId = VolumeId([7; 32]);

    fn record(term: u64, phase: Phase, epoch: Option<u64>) -> Record {
        let head = |epoch| Head { epoch: Epoch(epoch), seq: Seq(9), manifest: ManifestId([9; 32]) };
        let cut = epoch.map(|epoch| Cut { head: head(epoch), parent: None });
        let expect = Expect::Exactly(head(1));
        let volumes = BTreeMap::from([(VOLUME, crate::VolumeRecord { expect, cut })]);
        Record { term: Term(term), phase, volumes, ..Record::new(APP) }
    }

    /// The words of what is told when one record follows the other.
    fn words(before: Option<&Record>, after: &Record) -> Vec<String> {
        let what =
            |what: &What| serde_json::to_value(what).map(|json| json["what"].as_str().map(str::to_owned));
        of_record(before, after).iter().map(|one| what(one).ok().flatten().expect("a word")).collect()
    }

    #[test]
    fn writing_begins_before_the_mount_and_ends_after_the_unmount() {
        let claiming = record(2, Phase::Claiming, None);
        let mounting = record(2, Phase::Mounting, Some(2));
        let running = record(2, Phase::Running, Some(2));
        let stopping = record(2, Phase::Stopping(Why::LeaseOver), Some(2));
        let stopped = record(2, Phase::Stopped(Why::LeaseOver), Some(2));
        assert_eq!(words(None, &claiming), ["phase"]);
        assert_eq!(words(Some(&claiming), &mounting), ["claimed", "write_began", "phase"]);
        assert_eq!(words(Some(&mounting), &running), ["phase"]);
        assert_eq!(words(Some(&running), &running), [""; 0]);
        assert_eq!(words(Some(&running), &stopping), ["phase", "stopping"]);
        assert_eq!(words(Some(&stopping), &stopped), ["write_ended", "phase", "stopped"]);
    }

    #[test]
    fn a_later_term_ends_writing_in_the_one_before() {
        let (running, later) = (record(2, Phase::Running, Some(2)), record(3, Phase::Claiming, None));
        assert_eq!(words(Some(&running), &later), ["write_ended", "phase"]);
    }

    #[test]
    fn who_is_fenced_says_of_which_volumes() {
        let (running, fenced) =
            (record(2, Phase::Running, Some(2)), record(2, Phase::Stopping(Why::Fenced), Some(2)));
        assert_eq!(words(Some(&running), &fenced), ["phase", "stopping", "fenced"]);
    }

    #[test]
    fn lines_are_appended_and_can_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::new(
            folder.path(),
            DeviceId(*b"\x07\x07\x07\x07\x07\x07\x47\x07\x87\x07\x07\x07\x07\x07\x07\x07"),
        );
        history.write(of_published(&BTreeMap::from([(
            VOLUME,
            Head { epoch: Epoch(1), seq: Seq(2), manifest: ManifestId([3; 32]) },
        )])));
        history.write([]);
        history.write([What::Branch { app: APP, volume: Hex(VOLUME.0), name: "cut-1-e2".into() }]);
        let text = std::fs::read_to_string(folder.path().join("history.jsonl")).expect("it was written");
        assert_eq!(text.lines().count(), 2);
        assert!(Line::from_json(text.lines().next().expect("a line")).is_ok(), "{text}");
    }
}
