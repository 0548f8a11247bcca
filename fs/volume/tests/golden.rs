//! The golden volumes in `fixtures/`: what an earlier release wrote, this one reads.

use std::path::Path;

use fs_crypto::{DeviceSecret, KeyFile, VolumeKey};
use fs_format::{Ino, Seq, SnapshotId, StoreId};
use fs_volume::retention::Policy;
use fs_volume::*;

/// A copy of a golden volume, so that opening it changes nothing in the checkout.
fn golden(name: &str) -> (tempfile::TempDir, fs_crypto::VolumeKey) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
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

/// Bytes that do not compress.
fn noise(context: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(context.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Pages of the database of version 3. Between two there is a hole, so that each is a chunk of its own.
const PAGES: u64 = 45;
const PAGE: usize = 4096;
/// Its seals. The first has all pages, each other some.
const SEALS: u64 = 5;

/// What a seal wrote to a page, if it did.
fn written(seal: u64, page: u64) -> Option<Vec<u8>> {
    let bytes = noise(&format!("page {page} of seal {seal}"), PAGE);
    (seal == 0 || bytes[0] < 150).then_some(bytes)
}

/// The newest bytes of the database.
fn database() -> Vec<u8> {
    let newest = |page| (0..SEALS).rev().find_map(|seal| written(seal, page)).expect("the first has all");
    let pages: Vec<Vec<u8>> = (0..PAGES).map(newest).collect();
    pages.join(&[0; PAGE][..])
}

#[test]
fn the_golden_volume_of_version_2_reads_as_it_was_written() {
    let (_folder, history) = reads_as_it_was_written("volume-v2", &[1, 3, 4, 5, 6], [1, 2]);
    assert!(history.head().is_ok());
}

#[test]
fn the_golden_volume_of_version_3_reads_as_it_was_written() {
    let moments = [1, 16, 17, 18, 19];
    let (_folder, history) = reads_as_it_was_written("volume-v3", &moments, [1, 2, 3]);
    let newest = history.at(history.head().expect("a head").seq).expect("opens");
    assert!(content(&newest, "database") == database());
}

/// Whether it has these moments, and packs of these kinds.
fn reads_as_it_was_written<const N: usize>(
    name: &str,
    moments: &[u64],
    kinds: [u8; N],
) -> (tempfile::TempDir, History) {
    let (folder, key) = golden(name);
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
    let seqs: Vec<u64> = history.seals().expect("lists").iter().map(|seal| seal.seq.0).collect();
    assert_eq!(seqs, moments, "others are dropped");
    let policy = history.policy().expect("reads").expect("there is one");
    assert_eq!(policy.to_string(), "keep 1h for 2d, 1d for 30d; keep tag first forever");
    let packs = std::fs::read_dir(folder.path().join("packs")).expect("lists");
    let packs: Vec<Vec<u8>> =
        packs.map(|pack| std::fs::read(pack.expect("an entry").path()).expect("reads")).collect();
    let report = history.check(&|_, _| {}).expect("checks");
    assert_eq!((report.damage, report.packs), (vec![], packs.len() as u64));
    let found: std::collections::BTreeSet<u8> = packs.iter().map(|pack| pack[11]).collect();
    assert_eq!(found, kinds.into());
    (folder, history)
}

#[test]
fn the_golden_volumes_can_be_written_on() {
    ["volume-v2", "volume-v3"].into_iter().for_each(can_be_written_on);
}

fn can_be_written_on(name: &str) {
    let (folder, key) = golden(name);
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

/// Makes the newest golden volume anew in the folder that `COMB_GOLDEN` names: for a new version of the format, under a new name.
#[test]
#[ignore = "makes a fixture"]
fn make_the_golden_volume() {
    const ME: Caller = Caller { uid: 1000, gid: 1000 };
    let folder =
        std::path::PathBuf::from(std::env::var_os("COMB_GOLDEN").expect("COMB_GOLDEN names a folder"));
    let key = VolumeKey::from_base64("sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=").expect("a key");
    std::fs::write(folder.join("key"), KeyFile::encode(&key).as_bytes()).expect("writes");
    create(&real::env(&folder), &key, ME).expect("a new volume");
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let device = DeviceSecret::from_bytes([3; 32]);
    let volume = Volume::open(real::env(&folder), key, &device, options).expect("opens");
    let label = |tag: &str, id| {
        let (id, message) = (SnapshotId([id; 16]), format!("the {tag} state"));
        Some(SnapshotLabel { id, message, tags: vec![tag.into()] })
    };
    let make = |dir, name: &str, node, bytes: &[u8]| {
        let ino = volume.make(ME, dir, name.as_bytes(), 0o644, node, &[]).expect("makes").ino;
        volume.write(ino, 0, bytes, false).expect("writes");
        ino
    };
    let now = |freed_bytes_min| {
        let compaction = Compaction { freed_bytes_min, ..Compaction::default() };
        Collection { grace: std::time::Duration::ZERO, compaction, ..Collection::default() }
    };
    // Pages that are overwritten, so that what is left of the first packs is moved, and of that to which it was moved, again.
    let database = make(Ino::ROOT, "database", NewNode::File, &[]);
    let mut compactions = 0;
    for seal in 0..SEALS {
        for page in 0..PAGES {
            if let Some(bytes) = written(seal, page) {
                volume.write(database, page * 2 * PAGE as u64, &bytes, false).expect("writes");
            }
        }
        let head = volume.seal(None).expect("seals").seq;
        let before = volume.history().seals().expect("lists").into_iter().map(|info| info.seq);
        let dropped: Vec<Seq> = before.filter(|seq| *seq > Seq(1) && *seq < head).collect();
        let pruned = volume.prune(&dropped, &now(1)).expect("prunes");
        compactions += u64::from(pruned.compacted.packs.count > 0);
    }
    assert!(compactions > 2, "{compactions}");
    let passing = make(Ino::ROOT, "passing", NewNode::File, &noise("passing", 50_000));
    let dropped = volume.seal(None).expect("seals").seq;
    volume.unlink(Ino::ROOT, b"passing").expect("removes");
    volume.forget(passing);

    let docs = volume.make(ME, Ino::ROOT, b"docs", 0o755, NewNode::Directory, &[]).expect("makes").ino;
    let hello = make(docs, "hello", NewNode::File, b"hello\n");
    volume.link(hello, docs, b"again").expect("links");
    volume.make(ME, docs, b"link", 0o777, NewNode::Symlink(b"hello"), &[]).expect("makes");
    volume.make(ME, docs, b"empty", 0o700, NewNode::Directory, &[]).expect("makes");
    volume
        .make(ME, Ino::ROOT, b"pipe", 0o600, NewNode::Special(fs_format::FileKind::Fifo, 0), &[])
        .expect("makes");
    let large = make(Ino::ROOT, "large", NewNode::File, &noise("large", 300_000));
    let sparse = volume.make(ME, Ino::ROOT, b"sparse", 0o644, NewNode::File, &[]).expect("makes").ino;
    volume.write(sparse, 1 << 30, b"end", false).expect("writes");
    let lines: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    make(Ino::ROOT, "many.txt", NewNode::File, lines.as_bytes());
    volume.seal(label("first", 1)).expect("seals");

    volume.write(large, 8192 * 7, &[0x55; 8192], false).expect("writes");
    volume.unlink(docs, b"again").expect("removes");
    volume.set_xattr(hello, b"user.colour", b"blue", XattrMode::Set).expect("sets");
    volume
        .set_policy(Some(
            &Policy::parse("keep 1h for 2d, 1d for 30d; keep tag first forever").expect("a policy"),
        ))
        .expect("sets");
    volume.seal(label("second", 2)).expect("seals");
    // A pack that is gone: condemned by one seal, doomed by the next.
    let before: Vec<Seq> = volume.history().seals().expect("lists").iter().map(|info| info.seq).collect();
    let others = before.into_iter().filter(|seq| *seq > Seq(1) && *seq <= dropped);
    assert!(volume.prune(&others.collect::<Vec<_>>(), &now(u64::MAX)).expect("prunes").removed.count > 0);
    assert_eq!(volume.arbiter(), None::<StoreId>);
    drop(volume);
    std::fs::remove_dir_all(folder.join("journal")).expect("removes");
}
