//! Finding a moment: quick with the list of moments, and right whatever has become of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_crypto::{Cipher, DeviceSecret, VolumeKey};
use fs_format::moments::{MomentRecord, MomentsHeader, decode_moments, encode_moments, open_moments};
use fs_format::{Seq, SnapshotId};
use fs_volume::env::{Disk, DiskFile, Env, OpenMode};
use fs_volume::*;

const ME: Caller = Caller { uid: 1000, gid: 1000 };

/// A volume with moments; each has the tag `t<seq>` but the first.
struct Stage {
    folder: tempfile::TempDir,
    key: VolumeKey,
}

impl Stage {
    fn with_moments(count: u64) -> Self {
        let stage = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            key: VolumeKey::from_seed([7; 32]),
        };
        create(&real::env(stage.path()), &stage.key, ME).expect("a new volume");
        stage.seal(count - 1, "t");
        stage
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Volume {
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        Volume::open(real::env(self.path()), self.key.clone(), &DeviceSecret::from_bytes([9; 32]), options)
            .expect("opens")
    }

    /// Adds moments whose tags begin with `word`.
    fn seal(&self, count: u64, word: &str) {
        let volume = self.open();
        for _ in 0..count {
            let seq = volume.head().seq.0 + 1;
            let id = SnapshotId([seq as u8; 16]);
            let tags = vec![format!("{word}{seq}")];
            let label = SnapshotLabel { id, message: "a message nobody reads".into(), tags };
            volume.seal(Some(label)).expect("seals");
        }
    }

    /// The past, as a program that has just started sees it, and the manifests that it reads.
    fn history(&self) -> (History, Arc<AtomicUsize>) {
        self.history_on(|disk| disk)
    }

    fn history_on(&self, disk: impl FnOnce(Watched) -> Watched) -> (History, Arc<AtomicUsize>) {
        let env = real::env(self.path());
        let manifests = Arc::new(AtomicUsize::new(0));
        let watched = Watched { disk: env.disk.clone(), manifests: manifests.clone(), is_read_only: false };
        let env = Env { disk: Arc::new(disk(watched)), ..env };
        (History::open(env, self.key.id(), self.key.read_key(), 1 << 20).expect("opens"), manifests)
    }

    /// The tags as every manifest has them.
    fn truth(&self) -> Vec<String> {
        let (history, _) = self.history();
        let names = std::fs::read_dir(self.path().join("manifests")).expect("lists");
        let mut seqs: Vec<u64> = names
            .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
            .filter_map(|name| u64::from_str_radix(&name, 16).ok())
            .collect();
        seqs.sort_unstable();
        seqs.iter().filter_map(|&seq| history.at(Seq(seq)).ok()).map(|view| tag(view.info())).collect()
    }

    fn file(&self) -> PathBuf {
        self.path().join("moments")
    }

    fn read_file(&self) -> Vec<u8> {
        std::fs::read(self.file()).expect("there is a list")
    }
}

fn tag(info: &SealInfo) -> String {
    info.snapshot.as_ref().map(|label| label.tags.concat()).unwrap_or_default()
}

fn tags(history: &History) -> Vec<String> {
    history.seals().expect("lists").iter().map(tag).collect()
}

fn find(history: &History, wanted: &str) -> Result<Seq, String> {
    let choose = |seals: &[SealInfo]| {
        let found = seals.iter().rev().find(|seal| tag(seal) == wanted);
        found.map(|seal| seal.seq).ok_or("no such tag".to_string())
    };
    let view = history.find(choose).expect("the past can be read")?;
    assert_eq!(tag(view.info()), wanted, "what was opened is what was asked for");
    Ok(view.info().seq)
}

/// The real disk, which counts the manifests that are opened and may refuse to be written.
struct Watched {
    disk: Arc<dyn Disk>,
    manifests: Arc<AtomicUsize>,
    is_read_only: bool,
}

impl Watched {
    fn refuse(&self) -> io::Result<()> {
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Disk for Watched {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode != OpenMode::Read {
            self.refuse()?;
        }
        if path.starts_with("manifests/") {
            self.manifests.fetch_add(1, Ordering::Relaxed);
        }
        self.disk.open(path, mode)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.refuse()?;
        self.disk.create_dir(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.refuse()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.refuse()?;
        self.disk.remove(path)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

#[test]
fn a_tag_is_found_without_reading_all_manifests() {
    let stage = Stage::with_moments(200);
    assert_eq!(find(&stage.history().0, "t150"), Ok(Seq(150)));

    let (history, manifests) = stage.history();
    assert_eq!(find(&history, "t150"), Ok(Seq(150)));
    assert!(find(&history, "t1000").is_err());
    assert_eq!(tags(&history), stage.truth());
    // The newest at the start and at each look, and the one that was found.
    let read = manifests.load(Ordering::Relaxed);
    assert!(read <= 5, "{read} manifests were read");
}

#[test]
fn the_list_is_written_when_one_moment_in_64_is_new() {
    let stage = Stage::with_moments(130);
    tags(&stage.history().0);
    let before = stage.read_file();
    stage.seal(1, "t");
    let (history, _) = stage.history();
    assert_eq!(find(&history, "t131"), Ok(Seq(131)));
    assert_eq!(stage.read_file(), before, "two of 131 are too few");
    stage.seal(2, "t");
    assert_eq!(find(&history, "t133"), Ok(Seq(133)));
    assert_ne!(stage.read_file(), before);
    assert_eq!(tags(&stage.history().0), stage.truth());
    assert!(!stage.path().join("moments.new").exists());
}

#[test]
fn a_volume_that_is_open_keeps_the_list() {
    let stage = Stage::with_moments(3);
    let volume = stage.open();
    volume.history().seals().expect("lists");
    for seq in 4..=300 {
        let label =
            SnapshotLabel { id: SnapshotId([1; 16]), message: String::new(), tags: vec![format!("t{seq}")] };
        volume.seal(Some(label)).expect("seals");
    }
    let (history, manifests) = stage.history();
    assert_eq!(find(&history, "t150"), Ok(Seq(150)));
    let read = manifests.load(Ordering::Relaxed);
    assert!(read <= 10, "{read} manifests were read");
    assert_eq!(tags(&history), stage.truth());
    assert_eq!(tags(&volume.history()), stage.truth());
}

#[test]
fn a_damaged_list_is_noticed_and_made_anew() {
    let stage = Stage::with_moments(6);
    let truth = stage.truth();
    tags(&stage.history().0);
    let whole = stage.read_file();
    let flipped = (0..whole.len()).step_by(7).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let cut = (0..whole.len()).step_by(13).map(|len| whole[..len].to_vec());
    let longer = [[&whole[..], b"x"].concat(), vec![0; whole.len()]];
    let mut damages = 0;
    for damaged in flipped.chain(cut).chain(longer) {
        std::fs::write(stage.file(), damaged).expect("writes");
        assert_eq!(tags(&stage.history().0), truth);
        let (history, manifests) = stage.history();
        assert_eq!(find(&history, "t3"), Ok(Seq(3)));
        assert!(manifests.load(Ordering::Relaxed) <= 3, "the list was not made anew");
        damages += 1;
    }
    assert!(damages > 50);
}

#[test]
fn a_list_of_another_volume_is_not_believed() {
    let stage = Stage::with_moments(6);
    let other = Stage { folder: tempfile::tempdir().expect("a folder"), key: VolumeKey::from_seed([8; 32]) };
    create(&real::env(other.path()), &other.key, ME).expect("a new volume");
    other.seal(5, "other");
    tags(&other.history().0);
    std::fs::copy(other.file(), stage.file()).expect("copies");
    assert_eq!(tags(&stage.history().0), stage.truth());
}

#[test]
fn a_list_of_another_past_is_not_believed() {
    for (sealed_before, sealed_after) in [(3, 3), (3, 1), (1, 3), (3, 0), (2, 5)] {
        let stage = Stage::with_moments(5);
        let backup = tempfile::tempdir().expect("a folder");
        copy(stage.path(), backup.path());
        stage.seal(sealed_before, "lost");
        tags(&stage.history().0);
        let list = stage.read_file();

        // Put back in time, but for the list; then the volume goes on in another way.
        std::fs::remove_dir_all(stage.path()).expect("removes");
        copy(backup.path(), stage.path());
        std::fs::write(stage.file(), list).expect("writes");
        stage.seal(sealed_after, "t");
        assert_eq!(tags(&stage.history().0), stage.truth(), "{sealed_before}, {sealed_after}");
    }
}

#[test]
fn a_list_that_is_wrong_is_noticed_when_a_moment_is_opened() {
    let stage = Stage::with_moments(6);
    tags(&stage.history().0);
    // Made with the right key, and it leads to the newest manifest; yet two tags have changed places.
    let mut records = decode(&stage);
    records[2].snapshot.as_mut().expect("a label").tags = vec!["t4".into()];
    records[3].snapshot.as_mut().expect("a label").tags = vec!["t3".into()];
    encode(&stage, &records);
    let (history, _) = stage.history();
    assert_eq!(find(&history, "t3"), Ok(Seq(3)));
    assert_eq!(find(&stage.history().0, "t4"), Ok(Seq(4)));
    assert_eq!(tags(&stage.history().0), stage.truth(), "the list was made anew");
}

#[test]
fn a_manifest_that_is_gone_or_damaged_since_is_left_out() {
    let stage = Stage::with_moments(6);
    tags(&stage.history().0);
    std::fs::remove_file(stage.path().join("manifests/0000000000000003")).expect("removes");
    let (history, _) = stage.history();
    assert_eq!(tags(&history), ["", "t2", "t4", "t5", "t6"]);
    assert!(find(&history, "t3").is_err());

    let damaged = stage.path().join("manifests/0000000000000004");
    let mut bytes = std::fs::read(&damaged).expect("reads");
    bytes[300] ^= 1;
    std::fs::write(damaged, bytes).expect("writes");
    let (history, _) = stage.history();
    // The newest at or before the fourth, as `comb` finds a time.
    let at_most = |seals: &[SealInfo]| {
        seals.iter().rev().find(|seal| seal.seq <= Seq(4)).map(|seal| seal.seq).ok_or(())
    };
    let view = history.find(at_most).expect("the past can be read").expect("there is one");
    assert_eq!(view.info().seq, Seq(2));
    assert_eq!(tags(&history), ["", "t2", "t5", "t6"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_only_slower() {
    let stage = Stage::with_moments(6);
    let read_only = |disk| Watched { is_read_only: true, ..disk };
    let (history, _) = stage.history_on(read_only);
    assert_eq!(find(&history, "t3"), Ok(Seq(3)));
    assert_eq!(tags(&history), stage.truth());
    assert!(!stage.file().exists());
}

#[test]
fn what_a_crash_left_of_a_list_is_replaced() {
    let stage = Stage::with_moments(6);
    std::fs::write(stage.path().join("moments.new"), b"COMBMOMS half").expect("writes");
    assert_eq!(tags(&stage.history().0), stage.truth());
    assert_eq!(decode(&stage).len(), 6);
    assert!(!stage.path().join("moments.new").exists());
}

#[test]
fn tags_and_messages_do_not_lie_in_the_clear() {
    let stage = Stage::with_moments(6);
    tags(&stage.history().0);
    let bytes = stage.read_file();
    assert!(!bytes.windows(9).any(|window| window == b"a message"));
}

#[test]
fn a_fork_has_a_list_of_its_own() {
    let stage = Stage::with_moments(6);
    let other = Stage { folder: tempfile::tempdir().expect("a folder"), key: VolumeKey::from_seed([8; 32]) };
    let mut bring = |path: &str| std::fs::copy(stage.path().join(path), other.path().join(path)).map(|_| ());
    fork(&stage.history().0, Seq(4), &real::env(other.path()), &other.key, &mut bring).expect("forks");
    other.seal(2, "fork");
    for _ in 0..2 {
        assert_eq!(tags(&other.history().0), ["", "fork2", "fork3"]);
        assert_eq!(find(&other.history().0, "fork3"), Ok(Seq(3)));
    }
    assert_eq!(decode(&other).len(), 3);
}

fn decode(stage: &Stage) -> Vec<MomentRecord> {
    let object = stage.read_file();
    let (header, associated, body) = open_moments(&object).expect("a list");
    let (plain, tag) = body.split_last_chunk().expect("a tag");
    let mut plain = plain.to_vec();
    let cipher = stage.key.read_key().moments_cipher(&header.salt);
    cipher.open(0, associated, &mut plain, tag).expect("opens");
    decode_moments(&plain).expect("decodes")
}

fn encode(stage: &Stage, records: &[MomentRecord]) {
    let mut plain = encode_moments(records);
    let header = MomentsHeader { body_bytes: (plain.len() + Cipher::TAG_BYTES) as u32, salt: [1; 32] };
    let tag = stage.key.read_key().moments_cipher(&header.salt).seal(0, &header.encode(), &mut plain);
    std::fs::write(stage.file(), [&header.encode()[..], &plain, &tag].concat()).expect("writes");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

#[test]
fn the_newest_and_a_number_need_no_list() {
    let stage = Stage::with_moments(50);
    let (history, manifests) = stage.history();
    assert_eq!(history.head().expect("reads").seq, Seq(50));
    assert_eq!(tag(history.at(Seq(20)).expect("opens").info()), "t20");
    assert!(manifests.load(Ordering::Relaxed) <= 3);
    assert!(!stage.file().exists());
    assert!(matches!(history.at(Seq(51)), Err(OpenError::NoSuchSnapshot(_))));
}
