//! What a volume says of the room that files take, and what a quota lets grow.

use std::sync::atomic::{AtomicBool, Ordering};

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::Ino;
use fs_volume::*;

const ME: Caller = Caller { uid: 1000, gid: 1000 };
const MIB: u64 = 1 << 20;

/// A volume with a quota, in a folder that goes away with the test.
fn volume(quota_bytes: Option<u64>) -> (tempfile::TempDir, Volume) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = VolumeKey::from_seed([7; 32]);
    create(&real::env(folder.path()), &key, ME).expect("a new volume");
    let options = Options { segment_bytes: MIB, quota_bytes, ..Options::default() };
    let device = DeviceSecret::from_bytes([9; 32]);
    let volume = Volume::open(real::env(folder.path()), key, &device, options).expect("opens");
    (folder, volume)
}

fn empty(volume: &Volume, name: &str) -> Ino {
    volume.make(ME, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]).expect("makes a file").ino
}

/// A file of a mebibyte that does not compress.
fn full(volume: &Volume, name: &str) -> Ino {
    let mut bytes = vec![0; MIB as usize];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    let ino = empty(volume, name);
    volume.write(ino, 0, &bytes, false).expect("writes");
    ino
}

fn resize(volume: &Volume, ino: Ino, bytes: u64) -> Result<Attr, FsError> {
    volume.set_attr(ino, SetAttr { size: Some(bytes), ..SetAttr::default() })
}

fn used(volume: &Volume) -> u64 {
    let space = volume.space().expect("room");
    space.total - space.free
}

#[test]
fn what_an_unnamed_file_gives_up_is_counted_once() {
    let (_folder, volume) = volume(Some(2 * MIB));
    full(&volume, "kept");
    let gone = full(&volume, "gone");
    volume.unlink(Ino::ROOT, b"gone").expect("unlinks");
    assert_eq!(used(&volume), MIB, "room is there as soon as a file is removed");
    // Somebody has it open.
    resize(&volume, gone, 0).expect("truncates");
    assert_eq!(used(&volume), MIB);
    resize(&volume, gone, MIB).expect("grows into what is free");
    assert_eq!(used(&volume), 2 * MIB, "what it takes again is counted");
    volume.forget(gone);
    assert_eq!(used(&volume), MIB);
}

#[test]
fn a_quota_holds_beside_files_without_names() {
    let (_folder, volume) = volume(Some(2 * MIB));
    for round in 0..8 {
        let name = format!("gone{round}");
        let ino = empty(&volume, &name);
        resize(&volume, ino, 2 * MIB).expect("there is room");
        volume.unlink(Ino::ROOT, name.as_bytes()).expect("unlinks");
        resize(&volume, ino, 0).expect("truncates");
    }
    let written =
        (0..8).filter(|n| resize(&volume, empty(&volume, &format!("kept{n}")), MIB).is_ok()).count();
    assert_eq!(written, 2);
}

#[test]
fn allocating_needs_room_for_what_is_missing_only() {
    const PLAIN: Allocate = Allocate { keep_size: false, punch: false, zero: false };
    let (_folder, volume) = volume(Some(3 * MIB));
    let ino = full(&volume, "database");
    full(&volume, "other");
    assert_eq!(volume.allocate(ino, 0, MIB, PLAIN), Ok(()), "all of it is there");
    assert_eq!(volume.allocate(ino, 0, 2 * MIB, PLAIN), Ok(()), "the rest fits exactly");
    assert_eq!(volume.allocate(ino, MIB, 2 * MIB, PLAIN), Err(FsError::NoSpace));
    let beyond = Allocate { keep_size: true, ..PLAIN };
    assert_eq!(
        volume.allocate(ino, MIB, 2 * MIB, beyond),
        Err(FsError::NoSpace),
        "a promise that cannot be kept"
    );
}

#[test]
fn every_answer_tells_the_same_blocks() {
    let (_folder, volume) = volume(None);
    let ino = full(&volume, "a");
    let linked = volume.link(ino, Ino::ROOT, b"b").expect("links");
    assert_eq!(linked.allocated, MIB);
    let cut = resize(&volume, ino, MIB / 2).expect("truncates");
    assert_eq!((cut.allocated, volume.attr(ino).expect("there").allocated), (MIB / 2, MIB / 2));
    volume.seal(None).expect("seals");
    assert_eq!(volume.attr(ino).expect("there").allocated, MIB / 2);
    let cut = resize(&volume, ino, 0).expect("truncates");
    assert_eq!((cut.allocated, volume.attr(ino).expect("there").allocated), (0, 0));
}

#[test]
fn blocks_are_right_when_a_record_changes_while_it_is_sealed() {
    let (_folder, volume) = volume(None);
    for round in 0..10 {
        let ino = full(&volume, &format!("file{round}"));
        let sealed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !sealed.load(Ordering::Relaxed) {
                    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
                    let attr = volume.set_attr(ino, mode).expect("changes");
                    assert_eq!(attr.allocated, MIB);
                }
            });
            volume.seal(None).expect("seals");
            sealed.store(true, Ordering::Relaxed);
        });
        assert_eq!(volume.attr(ino).expect("there").allocated, MIB, "before it is sealed again");
        volume.seal(None).expect("seals");
        assert_eq!(volume.attr(ino).expect("there").allocated, MIB);
    }
}
