//! Seals on a disk that fails in the middle of them.

use std::sync::{Arc, Mutex};

use fs_format::{Ino, PackId, Seq, SnapshotId};
use fs_volume::*;

mod support;
use support::{Act, Stage, noise, put};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const MIB: usize = 1 << 20;

/// Packs of one seal of little: chunks and nodes.
const PACKS: usize = 2;

#[test]
fn a_users_disk_quota_is_a_full_disk() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    for (act, path) in
        [(Act::Create, "packs/.new"), (Act::Write, "packs/.new"), (Act::Create, "manifests/.new")]
    {
        stage.hooks.fail(act, path, EDQUOT);
        assert_eq!(volume.seal(None).map(drop), Err(FsError::NoSpace), "{act:?} {path}");
    }
    stage.hooks.fail(Act::Write, "journal/", EDQUOT);
    put(&volume, "g", b"g");
    assert_eq!(volume.sync(), Err(FsError::NoSpace));
    stage.hooks.clear();
    assert_eq!(volume.read_only_reason(), None);
    volume.sync().expect("there is room");
    volume.seal(None).expect("there is room");
}

#[test]
fn a_seal_counts_although_its_copy_cannot_be_written() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    let tags = vec!["t".into()];
    let label = SnapshotLabel { id: SnapshotId([1; 16]), message: "m".into(), tags };
    stage.hooks.fail(Act::Create, "head.new", ENOSPC);
    let sealed = volume.seal(Some(label.clone())).expect("the manifest is there");
    assert_eq!(sealed.snapshot, Some(label));
    put(&volume, "f", &noise(2, MIB));
    let next = volume.seal(None).expect("the manifest is there");
    assert_eq!(next.seq, Seq(sealed.seq.0 + 1), "what is sealed never changes");
    stage.hooks.clear();

    drop(volume);
    let volume = stage.open();
    assert_eq!(volume.history().seals().expect("lists")[1..], [sealed, next]);
    assert_eq!(volume.history().check(&|_, _| ()).expect("checks").damage, []);
}

#[test]
fn a_rollback_is_done_although_its_copy_cannot_be_written() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    let one = volume.seal(None).expect("seals").seq;
    put(&volume, "g", b"g");
    volume.seal(None).expect("seals");
    stage.hooks.fail(Act::Create, "head.new", ENOSPC);
    volume.rollback(one).expect("the manifest is there");
    stage.hooks.clear();
    drop(volume);
    assert_eq!(stage.open().lookup(Ino::ROOT, b"g").map(drop), Err(FsError::NotFound));
}

#[test]
fn somebody_who_looks_at_a_seal_does_not_disturb_the_next() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    let bytes = noise(1, 3 * MIB);
    let ino = put(&volume, "f", &bytes);
    // The first seal's manifest is seen before the seal has ended; so is the second's before.
    let inner = Arc::clone(&volume);
    stage.hooks.set(move |_, path| {
        if path == "head.new" || path.starts_with("packs/.new") {
            inner.history().seals().expect("lists").iter().for_each(|seal| {
                inner.history().at(seal.seq).expect("opens");
            });
        }
        Ok(())
    });
    volume.seal(None).expect("seals");
    put(&volume, "g", &noise(2, MIB));
    volume.seal(None).expect("seals");
    stage.hooks.clear();
    assert!(volume.read(ino, 0, 3 * MIB).expect("reads") == bytes);
    assert_eq!(volume.history().check(&|_, _| ()).expect("checks").damage, []);
}

#[test]
fn a_seal_that_fails_at_its_manifest_takes_no_room_each_time() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    let before = stage.names("packs");
    let acts = [
        (Act::Create, "manifests/.new"),
        (Act::Write, "manifests/.new"),
        (Act::Rename, "manifests/"),
        (Act::SyncDir, "packs"),
        (Act::Rename, "packs/"),
    ];
    for (act, path) in acts {
        stage.hooks.fail(act, path, ENOSPC);
        assert_eq!(volume.seal(None).map(drop), Err(FsError::NoSpace), "{act:?} {path}");
        assert_eq!(stage.names("packs"), before, "{act:?} {path}");
    }
    stage.hooks.clear();
    volume.seal(None).expect("there is room");
    assert_eq!(stage.names("packs").len(), before.len() + PACKS);
}

#[test]
fn a_manifest_that_may_be_there_is_not_written_again() {
    let stage = Stage::new();
    let volume = stage.open();
    let ino = put(&volume, "f", b"one");
    stage.hooks.fail(Act::SyncDir, "manifests", ENOSPC);
    let failed = volume.seal(None).expect_err("nobody knows whether its name is durable");
    stage.hooks.clear();
    assert!(matches!(failed, FsError::Disk(_)), "{failed:?}: to wait for room would seal it again");
    assert!(volume.read_only_reason().is_some());
    drop(volume);
    // It is there, and so are its packs.
    let volume = stage.open();
    assert_eq!(volume.head().seq, Seq(2));
    assert_eq!(volume.read(ino, 0, 9).expect("reads"), b"one");
    assert_eq!(volume.history().check(&|_, _| ()).expect("checks").damage, []);
}

#[test]
fn a_seal_that_ended_in_its_middle_leaves_no_packs_for_ever() {
    let stage = Stage::new();
    let before = stage.names("packs");
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    for (act, path) in [(Act::Create, "manifests/.new"), (Act::Rename, "manifests/")] {
        // What lies there when the process is killed here: a copy is looked at, since this process lives on.
        let copy = tempfile::tempdir().expect("a temporary folder");
        let (from, to) = (stage.path().to_path_buf(), copy.path().to_path_buf());
        stage.hooks.set(move |now, at| {
            if now == act && at.starts_with(path) {
                let copied = std::process::Command::new("cp").arg("-rT").args([&from, &to]).status();
                assert!(copied.expect("cp starts").success());
                return Err(std::io::Error::from_raw_os_error(ENOSPC));
            }
            Ok(())
        });
        volume.seal(None).expect_err("there is no room");
        stage.hooks.clear();
        assert!(stage.names_in(copy.path(), "packs").len() > before.len(), "{act:?}: there was something");
        drop(stage.open_at(copy.path()));
        assert_eq!(stage.names_in(copy.path(), "packs"), before, "{act:?}");
    }
}

#[test]
fn a_seal_that_failed_for_good_leaves_no_packs() {
    let stage = Stage::new();
    let before = stage.names("packs");
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    stage.hooks.fail(Act::Write, "manifests/.new", EIO);
    assert!(matches!(volume.seal(None), Err(FsError::Disk(_))));
    stage.hooks.clear();
    assert_eq!(stage.names("packs"), before);
}

#[test]
fn a_list_of_unnamed_packs_removes_none_that_a_manifest_names() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", &noise(1, MIB));
    volume.seal(None).expect("seals");
    drop(volume);
    let before = stage.names("packs");
    let list = stage.path().join("packs/unnamed");
    let unnamed = stage.path().join("packs").join("ab".repeat(32));
    std::fs::write(&unnamed, "left by a seal").expect("writes");
    let key = stage.path().join("key");
    std::fs::write(&key, "not a pack").expect("writes");
    let odd = ["", "../key", "\u{fffd}", "cd"].map(String::from);
    let names: Vec<String> =
        before.iter().cloned().chain(["ab".repeat(32), "cd".repeat(32)]).chain(odd).collect();
    std::fs::write(&list, names.join("\n")).expect("writes");

    // The newest manifest is damaged, and so is its copy: what it named must stay.
    let manifests = ["manifests/0000000000000002", "head"].map(|name| stage.path().join(name));
    let whole = manifests.each_ref().map(|path| std::fs::read(path).expect("reads"));
    manifests.iter().for_each(|path| std::fs::write(path, "damaged").expect("writes"));
    assert!(stage.open().read_only_reason().is_some());
    assert_eq!(stage.names("packs").len(), before.len() + 2);

    manifests.iter().zip(whole).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("writes"));
    let volume = stage.open();
    assert_eq!(stage.names("packs"), before);
    assert!(key.exists());
    assert_eq!(volume.history().check(&|_, _| ()).expect("checks").damage, []);
}

#[test]
fn a_seal_waits_for_what_left_the_disk_while_its_store_is_away() {
    const EHOSTUNREACH: i32 = 113;
    let stage = Stage::new();
    let volume = stage.open();
    let ino = put(&volume, "f", b"f");
    let at = |index: u64| index * MIB as u64;
    (1..1000).for_each(|index| volume.write(ino, at(index), &noise(index, 4096), false).expect("writes"));
    volume.seal(None).expect("seals");
    // What leads to the file is in another pack than the end of it.
    put(&volume, "f", &noise(0, 4096));
    volume.seal(None).expect("seals");
    drop(volume);

    let volume = stage.open();
    volume.write(ino, at(999), &noise(2000, 4096), false).expect("writes");
    stage.hooks.fail(Act::Open, "packs/", EHOSTUNREACH);
    let error = volume.seal(None).expect_err("what it rewrites is away");
    assert!(matches!(error, FsError::Away(_)), "{error}");
    stage.hooks.clear();
    assert_eq!(volume.read_only_reason(), None);
    volume.write(ino, at(998), &noise(2001, 4096), false).expect("goes on");
    volume.seal(None).expect("it is there again");
    drop(volume);
    let volume = stage.open();
    assert_eq!(volume.read(ino, at(999), 4096).expect("reads"), noise(2000, 4096));
    assert_eq!(volume.read(ino, at(998), 4096).expect("reads"), noise(2001, 4096));
    assert_eq!(volume.read(ino, at(997), 4096).expect("reads"), noise(997, 4096));
}

#[test]
fn packs_of_a_large_seal_can_be_had_before_it_is_made() {
    let stage = Stage::new();
    let volume = stage.open();
    let history = volume.history();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tell, early) = (told.clone(), history.clone());
    volume.on_early_packs(move || {
        let (seq, packs) = early.early_packs().expect("there are some");
        let whole = |(id, bytes): &(PackId, u64)| early.early_pack(id).expect("here").len() as u64 == *bytes;
        assert!(packs.iter().all(whole));
        tell.lock().expect("no panic").push((seq, packs));
    });
    let told = || std::mem::take(&mut *told.lock().expect("no panic"));

    put(&volume, "f", &noise(1, 72 * MIB));
    assert_eq!(history.early_packs(), None);
    let seal = volume.seal(None).expect("seals");
    let mut once = told();
    let (seq, packs) = once.pop().expect("told once");
    assert_eq!((seq, packs.len(), once.len()), (seal.seq, 4, 0));
    assert_eq!(history.early_packs(), None, "it is made");
    let sealed = history.outgoing(seal.seq, false).expect("reads").packs;
    assert!(packs.iter().all(|pack| sealed.contains(pack)));
    assert!(packs.iter().all(|(id, _)| history.early_pack(id).is_some()), "it has its name by now");

    // What a seal wrote that failed is gone, and of the next try nothing is told: it may fail as often as there is no room.
    put(&volume, "g", &noise(2, 72 * MIB));
    stage.hooks.fail(Act::Create, "manifests/.new", ENOSPC);
    volume.seal(None).expect_err("there is no room");
    let failed = told().pop().expect("told").1;
    assert!(failed.iter().all(|(id, _)| history.early_pack(id).is_none()));
    volume.seal(None).expect_err("there is no room");
    assert_eq!(told(), []);
    stage.hooks.clear();
    volume.seal(None).expect("there is room");
    assert_eq!(told(), []);
    put(&volume, "h", &noise(3, 72 * MIB));
    volume.seal(None).expect("seals");
    assert_eq!(told().len(), 1);
}
