//! Finding and opening moments: by the records in the head's tree, without their manifests.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_format::{Ino, Seq, SnapshotId};
use fs_volume::*;
use support::{Act, Stage, put};

/// Seals a moment with the tag `<word><seq>`, in which the file `n` holds its number.
fn seal(volume: &Volume, word: &str) -> Seq {
    let seq = volume.head().seq.0 + 1;
    put(volume, "n", format!("{seq:6}").as_bytes());
    let (id, tags) = (SnapshotId([seq as u8; 16]), vec![format!("{word}{seq}")]);
    let label = SnapshotLabel { id, message: "a message nobody reads".into(), tags };
    volume.seal(Some(label)).expect("seals").seq
}

fn seal_many(volume: &Volume, word: &str, count: u64) {
    for _ in 0..count {
        seal(volume, word);
    }
}

/// A volume with so many moments; each has the tag `t<seq>` but the first.
fn with_moments(count: u64) -> Stage {
    let stage = Stage::new();
    let volume = stage.open();
    seal_many(&volume, "t", count - 1);
    drop(volume);
    stage
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
    assert_eq!(number(&view), view.info().seq.0);
    Ok(view.info().seq)
}

/// The number in the file `n`.
fn number(view: &View) -> u64 {
    let ino = view.resolve(b"n").expect("there").ino;
    let bytes = view.read(ino, 0, 100).expect("reads");
    String::from_utf8_lossy(&bytes).trim().parse().expect("a number")
}

/// Counts the manifests that are opened from now on.
fn count_manifests(stage: &Stage) -> Arc<AtomicUsize> {
    let count: Arc<AtomicUsize> = Arc::default();
    let seen = count.clone();
    stage.hooks.set(move |act, path| {
        if act == Act::Open && path.starts_with("manifests/") {
            seen.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    count
}

#[test]
fn a_moment_is_found_and_opened_without_its_manifest() {
    let stage = with_moments(500);
    let manifests = count_manifests(&stage);
    let history = stage.history();
    assert_eq!(find(&history, "t150"), Ok(Seq(150)));
    assert_eq!(find(&history, "t500"), Ok(Seq(500)));
    assert!(find(&history, "t1000").is_err());
    assert_eq!(number(&history.at(Seq(20)).expect("opens")), 20);
    assert_eq!(tags(&history).len(), 500);
    // The newest, when somebody asks what the newest is.
    let read = manifests.load(Ordering::Relaxed);
    assert!(read <= 5, "{read} manifests were read");
    assert!(matches!(history.at(Seq(501)), Err(OpenError::NoSuchSnapshot(_))));
    assert!(matches!(history.at(Seq(0)), Err(OpenError::NoSuchSnapshot(_))));
}

#[test]
fn every_moment_opens_where_only_the_newest_manifest_is() {
    let stage = with_moments(60);
    for name in stage.names("manifests").iter().rev().skip(1) {
        std::fs::remove_file(stage.path().join("manifests").join(name)).expect("removes");
    }
    let history = stage.history();
    let expected: Vec<String> =
        (1..=60).map(|seq| if seq == 1 { String::new() } else { format!("t{seq}") }).collect();
    assert_eq!(tags(&history), expected);
    for seq in 2..=60 {
        assert_eq!(number(&history.at(Seq(seq)).expect("opens")), seq);
    }
    assert_eq!(history.check(&|_, _| {}).expect("checks").damage, []);
    let changes = history.diff(Seq(2), Seq(60)).expect("compares");
    assert_eq!(changes.iter().map(|change| change.path.clone()).collect::<Vec<_>>(), [b"n".to_vec()]);
}

#[test]
fn another_program_sees_what_is_sealed_meanwhile() {
    let stage = with_moments(3);
    let (volume, elsewhere) = (stage.open(), stage.history());
    assert_eq!(tags(&elsewhere).len(), 3);
    for seq in 4..80 {
        seal(&volume, "t");
        assert_eq!(elsewhere.at(Seq(seq)).expect("opens").info().seq, Seq(seq));
    }
    assert_eq!(tags(&elsewhere), tags(&volume.history()));
    assert_eq!(find(&elsewhere, "t60"), Ok(Seq(60)));
    assert_eq!(elsewhere.head().expect("reads"), volume.head());
}

#[test]
fn a_folder_that_was_put_back_in_time_goes_on_from_there() {
    let stage = with_moments(5);
    let backup = tempfile::tempdir().expect("a folder");
    copy(stage.path(), backup.path());
    let volume = stage.open();
    seal_many(&volume, "lost", 3);
    drop(volume);
    std::fs::remove_dir_all(stage.path()).expect("removes");
    copy(backup.path(), stage.path());
    let volume = stage.open();
    seal_many(&volume, "t", 2);
    assert_eq!(tags(&stage.history()), ["", "t2", "t3", "t4", "t5", "t6", "t7"]);
}

#[test]
fn a_manifest_that_is_damaged_or_of_another_past_is_named_and_not_needed() {
    let stage = with_moments(6);
    let manifest = |seq: u64| stage.path().join(format!("manifests/{seq:016x}"));
    let mut bytes = std::fs::read(manifest(4)).expect("reads");
    bytes[300] ^= 1;
    std::fs::write(manifest(4), bytes).expect("writes");
    // Whole and signed, but not the one that its moment's record names.
    let other = with_moments(3);
    std::fs::copy(other.path().join("manifests/0000000000000003"), manifest(3)).expect("copies");
    let history = stage.history();
    assert_eq!(find(&history, "t3"), Ok(Seq(3)));
    assert_eq!(find(&history, "t4"), Ok(Seq(4)));
    let damage = history.check(&|_, _| {}).expect("checks").damage;
    let found: Vec<(String, Option<(Seq, Seq)>)> =
        damage.into_iter().map(|damage| (damage.what, damage.seals)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].0.contains("0000000000000003 is not the manifest that its record names"));
    assert!(found[1].0.contains("0000000000000004 failed its integrity check"));
    assert_eq!(found[1].1, Some((Seq(4), Seq(4))));
}

#[test]
fn manifests_stand_in_for_records_that_cannot_be_read() {
    let stage = Stage::new();
    let volume = stage.open();
    // So many that the newest tree has leaves of records alone.
    seal_many(&volume, "t", 150);
    drop(volume);
    let expected = tags(&stage.history());
    // Damages packs of nodes, the newest last, until the list cannot be read.
    let newest_first = {
        let mut packs: Vec<_> = stage
            .names("packs")
            .into_iter()
            .map(|name| stage.path().join("packs").join(name))
            .map(|path| (std::fs::metadata(&path).and_then(|it| it.modified()).expect("a time"), path))
            .collect();
        packs.sort();
        packs.into_iter().rev().map(|(_, path)| path).skip(1)
    };
    let mut has_stood_in = false;
    for path in newest_first {
        let whole = std::fs::read(&path).expect("reads");
        let mut bytes = whole.clone();
        for byte in bytes.iter_mut().skip(64) {
            *byte ^= 1;
        }
        std::fs::write(&path, bytes).expect("writes");
        let history = stage.history();
        assert_eq!(tags(&history), expected);
        if !history.damage().is_empty() {
            has_stood_in = true;
            let read = (1..=151).filter(|&seq| history.at(Seq(seq)).is_ok()).count();
            assert_eq!(read, 151, "each opens, by its record or its manifest");
            assert!(!history.check(&|_, _| {}).expect("checks").damage.is_empty());
        }
        std::fs::write(&path, whole).expect("writes");
        if has_stood_in {
            return;
        }
    }
    panic!("the list could always be read");
}

#[test]
fn the_moment_before_is_shown_where_the_newest_manifest_and_its_copy_are_damaged() {
    let stage = with_moments(6);
    for path in ["head", "manifests/0000000000000006"] {
        let path = stage.path().join(path);
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[300] ^= 1;
        std::fs::write(path, bytes).expect("writes");
    }
    let history = stage.history();
    assert_eq!(tags(&history), ["", "t2", "t3", "t4", "t5"]);
    assert!(matches!(history.at(Seq(6)), Err(OpenError::Damaged { .. })), "it is there, and damaged");
    let volume = stage.open();
    assert!(volume.read_only_reason().is_some_and(|reason| reason.contains("manifests/0000000000000006")));
    assert_eq!(volume.prune(&[Seq(2)], &Collection::default()), Err(FsError::ReadOnly));
    assert_eq!(tags(&volume.history()), ["", "t2", "t3", "t4", "t5"]);
}

#[test]
fn tags_and_messages_do_not_lie_in_the_clear() {
    let stage = with_moments(6);
    for folder in ["packs", "manifests"] {
        for name in stage.names(folder) {
            let bytes = std::fs::read(stage.path().join(folder).join(name)).expect("reads");
            assert!(!bytes.windows(9).any(|window| window == b"a message"));
        }
    }
}

#[test]
fn a_fork_has_moments_of_its_own() {
    let stage = with_moments(6);
    let other = stage.fork(Seq(4));
    let volume = other.open();
    seal_many(&volume, "fork", 2);
    assert_eq!(tags(&other.history()), ["", "fork2", "fork3"]);
    assert_eq!(find(&other.history(), "fork3"), Ok(Seq(3)));
    assert_eq!(number(&other.history().at(Seq(1)).expect("opens")), 4);
    assert_eq!(other.history().check(&|_, _| {}).expect("checks").damage, []);
}

#[test]
fn no_operation_on_files_shows_the_volumes_own_records() {
    let stage = with_moments(20);
    let volume = stage.open();
    let view = volume.history().at(Seq(10)).expect("opens");
    for tree in [&volume as &dyn ReadTree, &view] {
        for ino in [Ino(0), Ino(2)] {
            assert_eq!(tree.attr(ino), Err(FsError::NotFound));
            assert!(tree.read_dir(ino, 0, 10).is_err());
            assert!(tree.read(ino, 0, 10).is_err());
            assert!(tree.xattrs(ino).is_err());
        }
        assert_eq!(tree.read_dir(Ino::ROOT, 0, 10).expect("lists").len(), 1);
    }
    assert_eq!(volume.history().diff(Seq(20), Seq(20)).expect("compares"), []);
    put(&volume, "n", b"    20");
    volume.seal(None).expect("seals");
    volume.rollback(Seq(10)).expect("rolls back");
    assert_eq!(volume.history().diff(Seq(10), Seq(22)).expect("compares"), []);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
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
