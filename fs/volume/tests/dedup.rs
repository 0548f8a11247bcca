//! What is stored twice is stored once.

mod support;

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::Ino;
use fs_volume::*;
use support::{Act, ME, Stage, noise, put};

/// What a seal may add for the tree alone, in bytes.
const TREE_BYTES: u64 = 12 << 10;

fn content(volume: &Volume, name: &str) -> Vec<u8> {
    let ino = volume.lookup(Ino::ROOT, name.as_bytes()).expect("the file is there").ino;
    volume.read(ino, 0, 1 << 30).expect("reads")
}

fn added(volume: &Volume) -> u64 {
    volume.seal(None).expect("seals").added
}

fn remove(volume: &Volume, name: &str) {
    volume.unlink(Ino::ROOT, name.as_bytes()).expect("removes");
}

/// A volume in the folder that begins where this one is.
fn fork_of(stage: &Stage, volume: &Volume, folder: &std::path::Path) -> Volume {
    let (env, key) = (real::env(folder), VolumeKey::from_seed([8; 32]));
    let mut bring = |path: &str| std::fs::copy(stage.path().join(path), folder.join(path)).map(drop);
    fork(&volume.history(), volume.head().seq, &env, &key, &mut bring).expect("forks");
    Volume::open(env, key, &DeviceSecret::from_bytes([9; 32]), Options::default()).expect("opens")
}

/// Seals that write runs of the index: it keeps what is new in memory until it is much.
fn make_runs(volume: &Volume, seals: u64) {
    for i in 0..seals {
        put(volume, "turn", &noise(1000 + i, 3000));
        added(volume);
    }
}

/// A dump with something inserted near its start.
fn edited(dump: &[u8]) -> Vec<u8> {
    let mut edited = dump.to_vec();
    edited.splice(300_000..300_000, noise(77, 200_000));
    edited
}

/// What is inserted, the chunks around it, and the new places of all extents.
const EDIT_BYTES_MAX: u64 = 200_000 + (1 << 20);

#[test]
fn a_file_written_again_in_a_later_seal_is_stored_once() {
    let stage = Stage::new();
    let bytes = noise(1, 6 << 20);
    let volume = stage.open();
    put(&volume, "a", &bytes);
    assert!(added(&volume) > 6 << 20);
    put(&volume, "b", &bytes);
    let again = added(&volume);
    assert!(again <= TREE_BYTES, "{again} bytes for what is there");
    // Another day: nothing is in memory, and the directories of the packs tell.
    drop(volume);
    let volume = stage.open();
    put(&volume, "c", &bytes);
    remove(&volume, "a");
    let again = added(&volume);
    assert!(again <= TREE_BYTES, "{again} bytes after opening again");
    for name in ["b", "c"] {
        assert_eq!(content(&volume, name), bytes);
    }
}

#[test]
fn a_tree_that_is_copied_is_stored_once() {
    let stage = Stage::new();
    let volume = stage.open();
    let files: Vec<Vec<u8>> = (0..400).map(|i| noise(i, 2100 + 53 * i as usize)).collect();
    let copy = |to: &str| {
        let dir =
            volume.make(ME, Ino::ROOT, to.as_bytes(), 0o755, NewNode::Directory, &[]).expect("makes").ino;
        for (i, bytes) in files.iter().enumerate() {
            let made = volume.make(ME, dir, format!("{i}").as_bytes(), 0o644, NewNode::File, &[]);
            volume.write(made.expect("makes").ino, 0, bytes, false).expect("writes");
        }
        added(&volume)
    };
    let (first, second) = (copy("one"), copy("two"));
    assert!(second * 50 < first, "{second} bytes for a copy of {first}");
}

#[test]
fn an_edited_dump_that_replaces_the_old_one_costs_the_edit() {
    let stage = Stage::new();
    let dump = noise(2, 24 << 20);
    let volume = stage.open();
    put(&volume, "dump", &dump);
    added(&volume);
    put(&volume, "new", &edited(&dump));
    volume.rename(Ino::ROOT, b"new", Ino::ROOT, b"dump", RenameMode::Replace).expect("renames");
    let cost = added(&volume);
    assert!(cost <= EDIT_BYTES_MAX, "{cost} bytes for an edit");
    assert!(content(&volume, "dump") == edited(&dump));
}

#[test]
fn an_edited_dump_written_in_place_from_the_edit_on_costs_the_edit() {
    let stage = Stage::new();
    let dump = noise(2, 24 << 20);
    let volume = stage.open();
    let ino = put(&volume, "dump", &dump);
    added(&volume);
    let edited = edited(&dump);
    volume.write(ino, 300_000, &edited[300_000..], false).expect("writes");
    let cost = added(&volume);
    assert!(cost <= EDIT_BYTES_MAX, "{cost} bytes for an edit");
    assert!(content(&volume, "dump") == edited);
}

/// Writes a file in pieces, with a seal behind each; returns what they cost in all.
fn slowly(volume: &Volume, name: &str, bytes: &[u8], from: usize, step: usize) -> u64 {
    let ino = put(volume, name, &[]);
    let mut at = from;
    let mut cost = 0;
    while at < bytes.len() {
        let end = (at + step).min(bytes.len());
        volume.write(ino, at as u64, &bytes[at..end], false).expect("writes");
        cost += added(volume);
        at = end;
    }
    cost
}

#[test]
fn a_dump_that_many_seals_fall_into_costs_little_more() {
    // No seal meets a cut, nor a block of the disk.
    const STEP: usize = 3_000_001;
    for whole_first in [true, false] {
        for in_place in [true, false] {
            let stage = Stage::new();
            let dump = noise(2, 24 << 20);
            let volume = stage.open();
            if whole_first {
                put(&volume, "dump", &dump);
                added(&volume);
            } else {
                slowly(&volume, "dump", &dump, 0, STEP);
            }
            let edited = edited(&dump);
            let cost = match in_place {
                true => slowly(&volume, "dump", &edited, 300_000, STEP),
                false => slowly(&volume, "new", &edited, 0, STEP),
            };
            // Each seal ends in a chunk, which the next one stores again with what follows it.
            let seals = (edited.len() / STEP) as u64 + 1;
            let bound = EDIT_BYTES_MAX + seals * 260_000;
            assert!(
                cost <= bound,
                "{cost} bytes, {seals} seals, whole first: {whole_first}, in place: {in_place}"
            );
            assert!(content(&volume, if in_place { "dump" } else { "new" }) == edited);
            // What came of it is what comes of writing it at once.
            put(&volume, "again", &edited);
            let again = added(&volume);
            let odd = if in_place { 300_000 + (1 << 20) } else { TREE_BYTES };
            assert!(again <= odd, "{again} bytes for the same at once");
        }
    }
}

#[test]
fn a_file_that_grows_a_little_at_a_time_is_not_a_chain_of_tiny_chunks() {
    let stage = Stage::new();
    let volume = stage.open();
    let bytes = noise(4, 300 * 700);
    let last = slowly(&volume, "log", &bytes, 0, 700);
    assert!(content(&volume, "log") == bytes);
    // What is sealed anew each time is the end, not the whole.
    assert!(last < 300 * (64 << 10), "{last} bytes");
    // A fork has the last moment alone.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let forked = fork_of(&stage, &volume, folder.path());
    let report = forked.history().check(&|_, _| {}).expect("checks");
    assert_eq!(report.damage, []);
    assert!(report.chunks <= 5, "{} chunks of {} bytes", report.chunks, bytes.len());
}

#[test]
fn a_chunk_that_cannot_be_read_any_more_is_stored_again() {
    let stage = Stage::new();
    let bytes = noise(5, 100_000);
    let volume = stage.open();
    put(&volume, "a", &bytes);
    added(&volume);
    drop(volume);
    for name in stage.names("packs") {
        let path = stage.path().join("packs").join(name);
        let mut pack = std::fs::read(&path).expect("reads");
        // Only the pack of chunks is as large.
        if pack.len() > 50_000 {
            pack[30_000] ^= 1;
            std::fs::write(&path, pack).expect("writes");
        }
    }
    let volume = stage.open();
    put(&volume, "b", &bytes);
    assert!(added(&volume) > 100_000);
    assert_eq!(content(&volume, "b"), bytes);
    let a = volume.lookup(Ino::ROOT, b"a").expect("is there").ino;
    drop(volume);
    let volume = stage.open();
    assert!(matches!(volume.read(a, 0, 100_000), Err(FsError::Damaged(_))));
    assert_eq!(content(&volume, "b"), bytes);
    // The place is damaged, not the chunk.
    let report = volume.history().check(&|_, _| {}).expect("checks");
    assert!(!report.damage.is_empty());
    assert!(report.damage.iter().all(|damage| damage.path.as_deref() == Some(b"a")), "{:?}", report.damage);
}

#[test]
fn a_damaged_index_costs_room_and_nothing_else() {
    let stage = Stage::new();
    let bytes = noise(6, 400_000);
    let volume = stage.open();
    put(&volume, "a", &bytes);
    make_runs(&volume, 70);
    drop(volume);
    let runs = stage.names("dedup");
    assert!(!runs.is_empty());
    let whole: Vec<Vec<u8>> = runs
        .iter()
        .map(|name| std::fs::read(stage.path().join("dedup").join(name)).expect("reads"))
        .collect();
    for round in 0..40 {
        for (name, bytes) in runs.iter().zip(&whole) {
            let mut bytes = bytes.clone();
            let chance = noise(round, 9);
            let place = u64::from_le_bytes(chance[..8].try_into().expect("eight")) as usize % bytes.len();
            match round % 4 {
                0 => bytes.truncate(place),
                1 => bytes[place..].fill(0),
                2 => bytes[place] ^= 1 << (chance[8] % 8),
                _ => bytes.splice(place..place, [0; 7]).for_each(drop),
            }
            std::fs::write(stage.path().join("dedup").join(name), bytes).expect("writes");
        }
        let volume = stage.open();
        put(&volume, &format!("b{round}"), &bytes);
        let again = added(&volume);
        assert!(again <= TREE_BYTES, "{again} bytes in round {round}: what is damaged is made anew");
        assert_eq!(content(&volume, &format!("b{round}")), bytes);
    }
}

#[test]
fn the_index_of_another_volume_or_of_another_past_is_no_harm() {
    let (stage, other) = (Stage::new(), Stage::new());
    for (stage, seed) in [(&stage, 100), (&other, 200)] {
        let volume = stage.open();
        put(&volume, "a", &noise(seed, 400_000));
        make_runs(&volume, 70);
    }
    // The key is the same, so all that tells them apart is which packs there are.
    for name in stage.names("dedup") {
        std::fs::remove_file(stage.path().join("dedup").join(name)).expect("removes");
    }
    for name in other.names("dedup") {
        let from = other.path().join("dedup").join(&name);
        std::fs::copy(from, stage.path().join("dedup").join(&name)).expect("copies");
    }
    let volume = stage.open();
    for (seed, is_here) in [(100, true), (200, false)] {
        put(&volume, &format!("{seed}"), &noise(seed, 400_000));
        let cost = added(&volume);
        assert_eq!(cost <= TREE_BYTES, is_here, "{cost} bytes");
        assert_eq!(content(&volume, &format!("{seed}")), noise(seed, 400_000));
    }
}

#[test]
fn a_seal_does_not_mind_an_index_that_cannot_be_kept() {
    for (act, errno) in [(Act::Create, 28), (Act::Write, 5), (Act::Rename, 5), (Act::Open, 5)] {
        let stage = Stage::new();
        let volume = stage.open();
        stage.hooks.fail(act, "dedup/", errno);
        put(&volume, "a", &noise(8, 400_000));
        make_runs(&volume, 70);
        put(&volume, "b", &noise(8, 400_000));
        added(&volume);
        assert_eq!(volume.read_only_reason(), None);
        assert_eq!(content(&volume, "b"), noise(8, 400_000));
        stage.hooks.clear();
        put(&volume, "c", &noise(8, 400_000));
        let again = added(&volume);
        assert!(again <= TREE_BYTES, "{again} bytes after {act:?} failed");
    }
}

#[test]
fn a_rollback_keeps_what_is_stored_and_a_fork_finds_it() {
    let stage = Stage::new();
    let bytes = noise(9, 2 << 20);
    let volume = stage.open();
    let before = volume.head().seq;
    put(&volume, "a", &bytes);
    added(&volume);
    volume.rollback(before).expect("rolls back");
    put(&volume, "b", &bytes);
    let again = added(&volume);
    assert!(again <= TREE_BYTES, "{again} bytes after a rollback");
    assert_eq!(content(&volume, "b"), bytes);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let forked = fork_of(&stage, &volume, folder.path());
    put(&forked, "c", &bytes);
    let again = added(&forked);
    assert!(again <= TREE_BYTES, "{again} bytes in a fork");
    assert_eq!(content(&forked, "c"), bytes);
}
