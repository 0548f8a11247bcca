//! What this device did, a line each: `history.jsonl` (`failover.md`, section 15).
//!
//! For those who look afterwards whether everything was as promised; nothing is decided by it, so a line that cannot be
//! written is told in the log and changes nothing. What is told of an app comes from its record, as it is on the disk.

use std::collections::BTreeMap;
use std::path::Path;

use orchestrator_api::history::{Manifest, What, Who};
use orchestrator_api::ids::{AppId, DeviceId, Epoch, Term, VolumeId};
use orchestrator_api::placement::{Head, Phase, Why};
use orchestrator_api::text::Hex;
use orchestrator_history::{History as Lines, boottime};
use parking_lot::Mutex;

use crate::doors::volumes::VolumeState;
use crate::record::Record;

/// This device's.
pub(super) struct History {
    lines: Lines,
    writing: Mutex<Writing>,
}

/// Which volumes of an app can be written, and since which term: what a line told, and none took back.
type Writing = BTreeMap<AppId, (Term, Vec<Hex<32>>)>;

impl History {
    /// That of a device, in its folder.
    pub(super) fn new(folder: &Path, device: DeviceId) -> Self {
        let lines = Lines::new(&folder.join("history.jsonl"), Who::Device(device));
        let mut writing = Writing::new();
        // What a process before this one told of is ended by this one.
        let read = lines.begin(|what| match what {
            What::WriteBegan { app, term, volume, .. } => {
                let open = writing.entry(app).or_default();
                if open.0 != term {
                    *open = (term, Vec::new());
                }
                open.1.push(volume);
            }
            What::WriteEnded { app, volume, .. } => {
                let ended = |(_, volumes): &mut (Term, Vec<Hex<32>>)| volumes.retain(|one| *one != volume);
                writing.entry(app).and_modify(ended);
            }
            _ => {}
        });
        if let Err(error) = read {
            tracing::warn!(%error, "the history cannot be read");
        }
        writing.retain(|_, (_, volumes)| !volumes.is_empty());
        Self { lines, writing: Mutex::new(writing) }
    }

    /// Writes lines down.
    pub(super) fn write(&self, happened: impl IntoIterator<Item = What>) {
        let now = boottime();
        self.lines.write(happened.into_iter().map(|what| (now, what)));
    }

    /// What a record tells that the one before did not.
    pub(super) fn record(&self, before: Option<&Record>, after: &Record) {
        let mut writing = self.writing.lock();
        self.write(of_record(&mut writing, before, after));
    }
}

fn manifest(volume: VolumeId, head: Head) -> Manifest {
    Manifest { volume: Hex(volume.0), epoch: head.epoch.0, seq: head.seq.0, manifest: Hex(head.manifest.0) }
}

/// What becomes of writing in a phase.
///
/// The term that is written is the one of the mount. A record has a later one as soon as it is heard of, while what was
/// mounted is still to be stopped; and a device that only hears that it is fenced has nothing mounted.
fn goes_on(phase: Phase, same_term: bool) -> bool {
    match phase {
        Phase::Mounting | Phase::Starting | Phase::Running => same_term,
        Phase::Stopping(_) | Phase::Flushing(_) => true,
        Phase::StandingBy | Phase::Claiming | Phase::Stopped(_) | Phase::Settling => false,
    }
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
fn of_record(writing: &mut Writing, before: Option<&Record>, after: &Record) -> Vec<What> {
    let (app, term) = (after.app, after.term);
    let mut told = Vec::new();
    let is_over = |(since, _): &mut (Term, _)| !goes_on(after.phase, *since == term);
    if let Some((since, volumes)) =
        writing.get_mut(&app).is_some_and(is_over).then(|| writing.remove(&app)).flatten()
    {
        told.extend(volumes.into_iter().map(|volume| What::WriteEnded { app, term: since, volume }));
    }
    let cut_before = |volume: &VolumeId| before?.volumes.get(volume)?.cut;
    for (volume, now) in &after.volumes {
        if let Some(cut) = now.cut.filter(|cut| cut_before(volume) != Some(*cut)) {
            let parent = cut.parent.map(|parent| Hex(parent.0));
            told.push(What::Claimed { app, term, cut: manifest(*volume, cut.head), parent });
        }
    }
    let begins = matches!(after.phase, Phase::Mounting | Phase::Starting | Phase::Running);
    if begins && !writing.contains_key(&app) && !after.volumes.is_empty() {
        writing.insert(app, (term, after.volumes.keys().map(|volume| Hex(volume.0)).collect()));
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
    use orchestrator_api::history::Line;
    use orchestrator_api::ids::{ManifestId, Seq};
    use orchestrator_api::placement::Expect;

    use super::*;
    use crate::record::Cut;

    const APP: AppId = AppId(*b"\x05\x05\x05\x05\x05\x05\x45\x05\x85\x05\x05\x05\x05\x05\x05\x05");
    const DEVICE: DeviceId = DeviceId(*b"\x07\x07\x07\x07\x07\x07\x47\x07\x87\x07\x07\x07\x07\x07\x07\x07");
    const VOLUME: VolumeId = VolumeId([7; 32]);

    fn record(term: u64, phase: Phase, epoch: Option<u64>) -> Record {
        let head = |epoch| Head { epoch: Epoch(epoch), seq: Seq(9), manifest: ManifestId([9; 32]) };
        let cut = epoch.map(|epoch| Cut { head: head(epoch), parent: None });
        let expect = Expect::Exactly(head(1));
        let volumes = BTreeMap::from([(VOLUME, crate::VolumeRecord { expect, cut })]);
        Record { term: Term(term), phase, volumes, ..Record::new(APP) }
    }

    /// A device whose records follow each other.
    struct Device {
        folder: tempfile::TempDir,
        history: History,
        record: Option<Record>,
        lines: usize,
    }

    impl Device {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let history = History::new(folder.path(), DEVICE);
            Self { folder, history, record: None, lines: 0 }
        }

        /// The words of what is told when a record is written, with their terms.
        fn tells(&mut self, after: Record) -> Vec<String> {
            self.history.record(self.record.as_ref(), &after);
            self.record = Some(after);
            let text = std::fs::read_to_string(self.folder.path().join("history.jsonl")).unwrap_or_default();
            let new = text.lines().skip(self.lines).map(|line| {
                let line = Line::from_json(line).expect("each line is whole");
                let json = serde_json::to_value(&line.what).expect("it was JSON");
                format!("{} {}", json["what"].as_str().expect("a word"), json["term"])
            });
            let new: Vec<String> = new.collect();
            self.lines += new.len();
            new
        }

        /// Its process ends, and another one begins.
        fn restarts(&mut self) {
            self.history = History::new(self.folder.path(), DEVICE);
        }
    }

    #[test]
    fn writing_begins_before_the_mount_and_ends_after_the_unmount() {
        let mut device = Device::new();
        assert_eq!(device.tells(record(2, Phase::Claiming, None)), ["phase 2"]);
        let mounting = record(2, Phase::Mounting, Some(2));
        assert_eq!(device.tells(mounting), ["claimed 2", "write_began 2", "phase 2"]);
        assert_eq!(device.tells(record(2, Phase::Running, Some(2))), ["phase 2"]);
        assert_eq!(device.tells(record(2, Phase::Running, Some(2))), [""; 0]);
        let why = Why::LeaseOver;
        assert_eq!(device.tells(record(2, Phase::Stopping(why), Some(2))), ["phase 2", "stopping 2"]);
        assert_eq!(device.tells(record(2, Phase::Flushing(why), Some(2))), ["phase 2"]);
        let stopped = record(2, Phase::Stopped(why), Some(2));
        assert_eq!(device.tells(stopped), ["write_ended 2", "phase 2", "stopped 2"]);
        // What was late is published once more; nothing is mounted to be written for it.
        assert_eq!(device.tells(record(2, Phase::Flushing(why), Some(2))), ["phase 2"]);
    }

    #[test]
    fn a_later_term_writes_when_it_is_mounted_and_ends_the_one_before_when_that_is_unmounted() {
        let mut device = Device::new();
        device.tells(record(2, Phase::Running, Some(2)));
        // Its order comes while the older term runs.
        assert_eq!(device.tells(record(3, Phase::Stopping(Why::Again), None)), ["phase 3", "stopping 3"]);
        assert_eq!(device.tells(record(3, Phase::Flushing(Why::Again), None)), ["phase 3"]);
        assert_eq!(device.tells(record(3, Phase::Claiming, None)), ["write_ended 2", "phase 3"]);
        let mounting = record(3, Phase::Mounting, Some(3));
        assert_eq!(device.tells(mounting), ["claimed 3", "write_began 3", "phase 3"]);
    }

    #[test]
    fn who_is_fenced_says_of_which_volumes_and_ends_the_term_that_it_had() {
        let mut device = Device::new();
        device.tells(record(2, Phase::Running, Some(2)));
        // Another device has the later term.
        let fenced = |phase: fn(Why) -> Phase| record(3, phase(Why::Fenced), Some(2));
        assert_eq!(device.tells(fenced(Phase::Stopping)), ["phase 3", "stopping 3", "fenced 3"]);
        assert_eq!(device.tells(fenced(Phase::Flushing)), ["phase 3"]);
        assert_eq!(device.tells(record(3, Phase::Settling, Some(2))), ["write_ended 2", "phase 3"]);
    }

    #[test]
    fn a_device_that_returns_and_finds_itself_fenced_tells_of_no_writing() {
        let mut device = Device::new();
        device.tells(record(2, Phase::Running, Some(2)));
        // Its machine was killed, and boots: nothing is mounted.
        device.restarts();
        assert_eq!(device.tells(record(2, Phase::Claiming, Some(2))), ["write_ended 2", "phase 2"]);
        let hand_over = Phase::Stopping(Why::HandOver { resume: false });
        assert_eq!(device.tells(record(2, hand_over, Some(2))), ["phase 2", "stopping 2"]);
        let fenced = |phase: fn(Why) -> Phase| record(3, phase(Why::Fenced), Some(2));
        assert_eq!(device.tells(fenced(Phase::Stopping)), ["phase 3", "stopping 3", "fenced 3"]);
        assert_eq!(device.tells(fenced(Phase::Flushing)), ["phase 3"]);
        assert_eq!(device.tells(record(3, Phase::Settling, Some(2))), ["phase 3"]);
    }

    #[test]
    fn a_process_ends_what_the_one_before_it_began() {
        let mut device = Device::new();
        device.tells(record(2, Phase::Running, Some(2)));
        device.tells(record(3, Phase::Stopping(Why::Fenced), Some(2)));
        device.restarts();
        assert_eq!(device.tells(record(3, Phase::Flushing(Why::Fenced), Some(2))), ["phase 3"]);
        device.restarts();
        assert_eq!(device.tells(record(3, Phase::Settling, Some(2))), ["write_ended 2", "phase 3"]);
        device.restarts();
        assert_eq!(device.tells(record(3, Phase::StandingBy, Some(2))), ["phase 3"]);
    }
}
