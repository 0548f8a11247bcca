//! The golden volume in `fixtures/`: what an earlier release wrote, this one reads.

use std::path::Path;

use fs_crypto::{DeviceSecret, KeyFile};
use fs_format::Seq;
use fs_volume::*;

/// A copy of the golden volume, so that opening it changes nothing in the checkout.
fn golden() -> (tempfile::TempDir, fs_crypto::VolumeKey) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/volume-v1");
    let copy = tempfile::tempdir().expect("a temporary folder");
    for folder in ["packs", "manifests", "journal"] {
        std::fs::create_dir(copy.path().join(folder)).expect("a folder");
        let Ok(entries) = std::fs::read_dir(source.join(folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), copy.path().join(folder).join(entry.file_name())).expect("copies");
        }
    }
    std::fs::copy(source.join("head"), copy.path().join("head")).expect("copies");
    let key = KeyFile::decode(&std::fs::read_to_string(source.join("key")).expect("reads")).expect("a key");
    (copy, key)
}

fn content(tree: &dyn ReadTree, path: &str) -> Vec<u8> {
    let attr = resolve(tree, path.as_bytes()).expect("the file is there");
    tree.read(attr.ino, 0, 1 << 20).expect("reads")
}

#[test]
fn the_golden_volume_of_version_1_reads_as_it_was_written() {
    let (folder, key) = golden();
    let history = History::open(real::env(folder.path()), key.id(), key.read_key(), 1 << 20).expect("opens");
    assert_eq!(key.id().to_hex(), "b1881878d5a6ce2c5c53e00eefb722723d8cdecb73c92d3999ffeefc4d7ad13d");
    let tagged = |tag: &str| -> Seq {
        let seals = history.seals().expect("lists");
        let found = seals.iter().find(|seal| {
            seal.snapshot.as_ref().is_some_and(|snapshot| snapshot.tags.iter().any(|have| have == tag))
        });
        found.expect("the tag is there").seq
    };
    let (first, second) =
        (history.at(tagged("first")).expect("first"), history.at(tagged("second")).expect("second"));
    assert_eq!(content(&first, "docs/hello"), b"hello\n");
    assert_eq!(first.resolve(b"docs/hello").expect("there").inode.nlink, 2);
    assert_eq!(second.resolve(b"docs/hello").expect("there").inode.nlink, 1);
    let hello = second.resolve(b"docs/hello").expect("there").ino;
    assert_eq!(second.xattr(hello, b"user.colour").expect("set"), b"blue");
    let link = second.resolve(b"docs/link").expect("there").ino;
    assert_eq!(second.read_link(link).expect("a link"), b"hello");
    let sparse = second.resolve(b"sparse").expect("there");
    assert_eq!(sparse.inode.size, (1 << 30) + 3);
    assert_eq!(second.read(sparse.ino, 1 << 30, 10).expect("reads"), b"end");
    assert_eq!(second.seek(sparse.ino, 0, Seek::Data).expect("seeks") >> 12, 1 << 18);
    let (before, after) = (content(&first, "large"), content(&second, "large"));
    assert_eq!(before.len(), 300_000);
    assert_eq!(after[8192 * 7..8192 * 8], [0x55; 8192]);
    assert_eq!(before[..8192 * 7], after[..8192 * 7]);
    assert_eq!(before[8192 * 8..], after[8192 * 8..]);
    assert!(content(&second, "many.txt").ends_with(b"line 19999\n"));
    assert!(history.check(&|_, _| {}).expect("checks").damage.is_empty());
}

#[test]
fn the_golden_volume_of_version_1_can_be_written_on() {
    let (folder, key) = golden();
    let device = DeviceSecret::from_bytes([3; 32]);
    let volume = Volume::open(
        real::env(folder.path()),
        key,
        &device,
        Options { segment_bytes: 1 << 20, ..Options::default() },
    )
    .expect("opens");
    let me = Caller { uid: 0, gid: 0 };
    let ino = volume.make(me, fs_format::Ino::ROOT, b"new", 0o600, NewNode::File, &[]).expect("makes").ino;
    volume.write(ino, 0, b"written by this release", false).expect("writes");
    let info = volume.seal(None).expect("seals");
    let view = volume.history().at(info.seq).expect("the new moment");
    assert_eq!(content(&view, "new"), b"written by this release");
    assert_eq!(content(&view, "docs/hello"), b"hello\n");
}
