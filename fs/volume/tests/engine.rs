//! The engine in a real folder: what a user would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fs_crypto::{DeviceSecret, VolumeKey};
use fs_format::{FileKind, Ino, Seq, SnapshotId};
use fs_volume::*;

/// A volume in a folder that goes away with the test.
struct Stage {
    folder: tempfile::TempDir,
    key: VolumeKey,
    device: DeviceSecret,
    options: Options,
}

const ME: Caller = Caller { uid: 1000, gid: 1000 };

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = VolumeKey::from_seed([7; 32]);
        create(&real::env(folder.path()), &key, ME).expect("a new volume");
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        Self { folder, key, device: DeviceSecret::from_bytes([9; 32]), options }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self) -> Volume {
        Volume::open(real::env(self.path()), self.key.clone(), &self.device, self.options.clone())
            .expect("opens")
    }
}

fn put(volume: &Volume, path: &str, bytes: &[u8]) -> Ino {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = resolve(volume, dir.as_bytes()).expect("the folder is there").ino;
    let ino = match volume.lookup(parent, name.as_bytes()) {
        Ok(attr) => attr.ino,
        Err(_) => {
            volume.make(ME, parent, name.as_bytes(), 0o644, NewNode::File, &[]).expect("makes a file").ino
        }
    };
    volume.set_attr(ino, SetAttr { size: Some(0), ..SetAttr::default() }).expect("truncates");
    volume.write(ino, 0, bytes, false).expect("writes");
    ino
}

fn folder(volume: &Volume, path: &str) -> Ino {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = resolve(volume, dir.as_bytes()).expect("the folder is there").ino;
    volume.make(ME, parent, name.as_bytes(), 0o755, NewNode::Directory, &[]).expect("makes a folder").ino
}

fn content(tree: &dyn ReadTree, path: &str) -> Vec<u8> {
    let attr = resolve(tree, path.as_bytes()).expect("the file is there");
    tree.read(attr.ino, 0, 1 << 30).expect("reads")
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn names(tree: &dyn ReadTree, dir: Ino) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = tree.read_dir(dir, cookie, 7).expect("lists");
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
    }
    names.sort();
    names
}

#[test]
fn what_was_written_is_there_after_a_seal_and_after_opening_again() {
    let stage = Stage::new();
    let volume = stage.open();
    folder(&volume, "d");
    let large = noise(1, 3_000_000);
    put(&volume, "d/small", b"hello");
    put(&volume, "d/large", &large);
    assert_eq!(content(&volume, "d/large"), large);
    volume.seal(None).expect("seals");
    assert_eq!(content(&volume, "d/small"), b"hello");
    assert_eq!(content(&volume, "d/large"), large);
    put(&volume, "d/later", b"in the journal only");
    volume.sync().expect("syncs");
    drop(volume);
    let volume = stage.open();
    assert_eq!(content(&volume, "d/large"), large);
    assert_eq!(content(&volume, "d/later"), b"in the journal only");
    assert_eq!(names(&volume, resolve(&volume, b"d").expect("d").ino), ["large", "later", "small"]);
}

#[test]
fn a_snapshot_keeps_what_was_and_costs_what_changed() {
    let stage = Stage::new();
    let volume = stage.open();
    let page = 8192;
    let mut bytes = noise(2, 16 << 20);
    let ino = put(&volume, "db", &bytes);
    let first = volume.seal(None).expect("seals");
    let before = bytes.clone();
    for i in 0..40 {
        let at = (i * 37 % 2048) * page;
        let new = noise(100 + i as u64, page);
        volume.write(ino, at as u64, &new, false).expect("writes a page");
        bytes[at..at + page].copy_from_slice(&new);
    }
    let label = SnapshotLabel { id: SnapshotId([1; 16]), message: "after".into(), tags: vec!["t".into()] };
    let second = volume.seal(Some(label)).expect("seals");
    assert!(second.added < 40 * 8192 * 5 / 4, "{} bytes for 40 pages", second.added);
    let history = volume.history();
    assert_eq!(content(&history.at(first.seq).expect("first"), "db"), before);
    assert_eq!(content(&history.at(second.seq).expect("second"), "db"), bytes);
    assert_eq!(content(&volume, "db"), bytes);
    let seals = history.seals().expect("lists");
    assert_eq!(seals.last().and_then(|seal| seal.snapshot.clone()).expect("a label").tags, ["t"]);
}

#[test]
fn ten_thousand_names_are_listed_once_each_across_the_layers() {
    let stage = Stage::new();
    let volume = stage.open();
    let dir = folder(&volume, "many");
    let mut expected = Vec::new();
    for i in 0..10_000 {
        let name = format!("file-{i}");
        volume.make(ME, dir, name.as_bytes(), 0o600, NewNode::File, &[]).expect("makes");
        if i == 5_000 {
            volume.seal(None).expect("seals");
        }
        expected.push(name);
    }
    for i in (0..10_000).step_by(3) {
        volume.unlink(dir, format!("file-{i}").as_bytes()).expect("removes");
        expected.retain(|name| *name != format!("file-{i}"));
    }
    expected.sort();
    assert_eq!(names(&volume, dir), expected);
    volume.seal(None).expect("seals");
    assert_eq!(names(&volume, dir), expected);
    assert_eq!(volume.attr(dir).expect("dir").inode.size, expected.len() as u64);
}

#[test]
fn a_diff_names_what_changed() {
    let stage = Stage::new();
    let volume = stage.open();
    for dir in 0..20 {
        folder(&volume, &format!("d{dir}"));
        for file in 0..50 {
            put(&volume, &format!("d{dir}/f{file}"), format!("{dir} {file}").as_bytes());
        }
    }
    let a = volume.seal(None).expect("seals").seq;
    put(&volume, "d3/f7", b"other");
    put(&volume, "d4/new", b"new");
    let d5 = resolve(&volume, b"d5").expect("d5").ino;
    volume.unlink(d5, b"f0").expect("removes");
    volume.rename(d5, b"f1", Ino::ROOT, b"moved", RenameMode::Replace).expect("renames");
    let b = volume.seal(None).expect("seals").seq;
    let changes: Vec<(ChangeKind, String)> = volume
        .history()
        .diff(a, b)
        .expect("diffs")
        .into_iter()
        .map(|change| (change.kind, String::from_utf8(change.path).expect("ascii")))
        .collect();
    assert_eq!(
        changes,
        [
            (ChangeKind::Modified, "d3/f7".to_string()),
            (ChangeKind::Added, "d4/new".to_string()),
            (ChangeKind::Removed, "d5/f0".to_string()),
            (ChangeKind::Removed, "d5/f1".to_string()),
            (ChangeKind::Added, "moved".to_string()),
        ]
    );
    assert_eq!(volume.history().diff(a, a).expect("diffs"), []);
}

/// What differs between two moments, as `D path`.
fn changed(volume: &Volume, from: Seq, to: Seq) -> Vec<String> {
    let changes = volume.history().diff(from, to).expect("diffs");
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Removed => 'D',
        ChangeKind::Modified => 'M',
    };
    let path = |change: &Change| String::from_utf8(change.path.clone()).expect("ascii");
    changes.iter().map(|change| format!("{} {}", letter(change.kind), path(change))).collect()
}

/// Puts a file in place of another as `comb restore` does: a new inode, with what a copy keeps.
fn replace(volume: &Volume, path: &str, bytes: &[u8]) -> Ino {
    let old = resolve(volume, path.as_bytes()).expect("there").inode;
    let new = put(volume, "temporary", bytes);
    let (mode, times) = (Some(old.mode), Some(SetTime::At(old.mtime)));
    volume.set_attr(new, SetAttr { mode, mtime: times, ..SetAttr::default() }).expect("sets");
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = resolve(volume, dir.as_bytes()).expect("there").ino;
    volume.rename(Ino::ROOT, b"temporary", parent, name.as_bytes(), RenameMode::Replace).expect("renames");
    new
}

#[test]
fn a_diff_leaves_out_what_was_replaced_by_the_same() {
    let stage = Stage::new();
    let volume = stage.open();
    let large = noise(3, 3_000_000);
    let mut edited = large.clone();
    edited[1_500_000] ^= 1;
    let mut holed = vec![0; 600_000];
    holed[500_000..].copy_from_slice(&noise(4, 100_000));
    folder(&volume, "d");
    for (name, bytes) in [("large", &large), ("edited", &large), ("holed", &holed), ("rewritten", &large)] {
        put(&volume, &format!("d/{name}"), bytes);
    }
    put(&volume, "d/small", b"small");
    put(&volume, "d/other", b"small");
    put(&volume, "d/tagged", b"small");
    volume.make(ME, Ino::ROOT, b"link", 0o777, NewNode::Symlink(b"target"), &[]).expect("makes");
    let before = volume.seal(None).expect("seals").seq;

    replace(&volume, "d/large", &large);
    replace(&volume, "d/edited", &edited);
    replace(&volume, "d/small", b"small");
    replace(&volume, "d/other", b"smell");
    let tagged = replace(&volume, "d/tagged", b"small");
    volume.set_xattr(tagged, b"user.new", b"", XattrMode::Set).expect("sets");
    // The zeros of one are a hole, those of the other were written; the cuts between chunks differ, too.
    let ino = replace(&volume, "d/holed", &holed[..1]);
    volume.write(ino, 0, &holed[..300_001], false).expect("writes");
    volume.write(ino, 500_000, &holed[500_000..], false).expect("writes");
    let link = resolve(&volume, b"link").expect("there").inode;
    volume.unlink(Ino::ROOT, b"link").expect("removes");
    let again =
        volume.make(ME, Ino::ROOT, b"link", 0o777, NewNode::Symlink(b"target"), &[]).expect("makes").ino;
    let old =
        |path: &[u8]| volume.history().at(before).expect("before").resolve(path).expect("there").inode.mtime;
    for (ino, time) in [(again, link.mtime), (ino, old(b"d/holed"))] {
        let mtime = Some(SetTime::At(time));
        volume.set_attr(ino, SetAttr { mtime, ..SetAttr::default() }).expect("sets");
    }
    // The same inode with the same bytes, written in other pieces.
    let rewritten = resolve(&volume, b"d/rewritten").expect("there");
    for at in (0..large.len()).step_by(70_000) {
        let end = (at + 70_000).min(large.len());
        volume.write(rewritten.ino, at as u64, &large[at..end], false).expect("writes");
        volume.seal(None).expect("seals");
    }
    let mtime = Some(SetTime::At(rewritten.inode.mtime));
    volume.set_attr(rewritten.ino, SetAttr { mtime, ..SetAttr::default() }).expect("sets");
    let after = volume.seal(None).expect("seals").seq;
    assert_eq!(changed(&volume, before, after), ["M d/edited", "M d/other", "M d/tagged"]);

    // A folder that was replaced as a whole, as `comb restore` of a folder does.
    let old = resolve(&volume, b"d").expect("there");
    volume.rename(Ino::ROOT, b"d", Ino::ROOT, b"gone", RenameMode::Replace).expect("renames");
    let dir = folder(&volume, "d");
    volume.set_attr(dir, SetAttr { mode: Some(old.inode.mode), ..SetAttr::default() }).expect("sets");
    for name in ["large", "small", "other"] {
        let from = resolve(&volume, format!("gone/{name}").as_bytes()).expect("there");
        let bytes = volume.read(from.ino, 0, 4_000_000).expect("reads");
        let to = put(&volume, &format!("d/{name}"), &bytes);
        let mtime = Some(SetTime::At(from.inode.mtime));
        volume.set_attr(to, SetAttr { mtime, ..SetAttr::default() }).expect("sets");
    }
    let replaced = volume.seal(None).expect("seals").seq;
    let mut seen = changed(&volume, after, replaced);
    seen.retain(|line| !line.ends_with("gone") && !line.contains("gone/"));
    assert_eq!(seen, ["D d/edited", "D d/holed", "D d/rewritten", "D d/tagged"]);
}

#[test]
fn a_diff_tells_a_change_by_every_name_of_the_file() {
    let stage = Stage::new();
    let volume = stage.open();
    folder(&volume, "d");
    folder(&volume, "moved");
    let link = |ino, path: &str| {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = resolve(&volume, dir.as_bytes()).expect("the folder is there").ino;
        volume.link(ino, dir, name.as_bytes()).expect("links");
    };
    let unlink = |name: &[u8]| volume.unlink(Ino::ROOT, name).expect("removes");
    let seal = || volume.seal(None).expect("seals").seq;
    let one = put(&volume, "a", b"one");
    put(&volume, "other", b"other");
    let from = seal();

    link(one, "b");
    let linked = seal();
    assert_eq!(changed(&volume, from, linked), ["A b"], "another name is no change of the file");
    put(&volume, "a", b"two");
    let written = seal();
    assert_eq!(changed(&volume, linked, written), ["M a", "M b"]);
    assert_eq!(changed(&volume, from, written), ["M a", "A b"]);

    unlink(b"b");
    let unlinked = seal();
    assert_eq!(changed(&volume, written, unlinked), ["D b"]);
    assert_eq!(changed(&volume, linked, unlinked), ["M a", "D b"]);

    // Where the name is gone by which the file was made, its inode knows none.
    link(one, "c");
    link(one, "d/c");
    link(one, "moved/c");
    unlink(b"a");
    let renamed = seal();
    put(&volume, "c", b"three");
    let rewritten = seal();
    assert_eq!(changed(&volume, renamed, rewritten), ["M c", "M d/c", "M moved/c"]);
    assert_eq!(changed(&volume, unlinked, rewritten), ["D a", "A c", "A d/c", "A moved/c"]);

    // A folder that moved tells what it holds; names elsewhere are told by themselves.
    volume.rename(Ino::ROOT, b"moved", Ino::ROOT, b"here", RenameMode::Replace).expect("renames");
    put(&volume, "c", b"four");
    let moved = seal();
    assert_eq!(
        changed(&volume, rewritten, moved),
        ["M c", "M d/c", "A here", "A here/c", "D moved", "D moved/c"]
    );

    // A copy in place of one name changes that one only.
    replace(&volume, "c", b"four");
    let replaced = seal();
    assert_eq!(changed(&volume, moved, replaced), ["M c"]);
}

/// All that a moment shows, by path: what a person would compare, then the inode and its names.
fn shown(view: &View) -> BTreeMap<String, (String, Ino, u32)> {
    let mut shown = BTreeMap::new();
    let mut todo = vec![(String::new(), Ino::ROOT)];
    while let Some((dir, ino)) = todo.pop() {
        for entry in view.read_dir(ino, 0, 1000).expect("lists") {
            let name = String::from_utf8(entry.name).expect("ascii");
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let inode = view.attr(entry.ino).expect("there").inode;
            if entry.kind == FileKind::Directory {
                todo.push((path.clone(), entry.ino));
                shown.insert(path, (format!("{:o}", inode.mode), entry.ino, 0));
            } else {
                let what = format!("{:o} {:?} {:?}", inode.mode, inode.mtime, content(view, &path));
                shown.insert(path, (what, entry.ino, inode.nlink));
            }
        }
    }
    shown
}

#[test]
fn a_diff_tells_what_looking_at_everything_tells() {
    let stage = Stage::new();
    let volume = stage.open();
    let mut random = blake3::Hasher::new().update(b"names").finalize_xof();
    let mut dice = |sides: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides
    };
    let mut dirs = vec![Ino::ROOT];
    dirs.extend((0..4).map(|n| folder(&volume, &format!("d{n}"))));
    let mut seqs = vec![volume.seal(None).expect("seals").seq];
    for round in 0..60u64 {
        for _ in 0..1 + dice(6) {
            let mut dir = || dirs[dice(dirs.len() as u64) as usize];
            let (from, to) = (dir(), dir());
            let (old, new) = (format!("f{}", dice(5)), format!("f{}", dice(5)));
            let (old, new) = (old.as_bytes(), new.as_bytes());
            let found = volume.lookup(from, old).map(|attr| attr.ino);
            // What the dice make impossible is refused, and changes nothing.
            let _ = match (dice(8), found) {
                (0 | 1, Ok(ino)) => volume.write(ino, 0, &round.to_le_bytes(), false),
                (2, Ok(ino)) => volume.link(ino, to, new).map(drop),
                (3, Ok(_)) => volume.unlink(from, old),
                (4, _) => volume.rename(from, old, to, new, RenameMode::Replace),
                (5, _) => volume.rename(from, old, to, new, RenameMode::Exchange),
                (6, Ok(ino)) => {
                    let mode = Some(0o600 + dice(8) as u16);
                    volume.set_attr(ino, SetAttr { mode, ..SetAttr::default() }).map(drop)
                }
                (6, Err(_)) => {
                    let dir = format!("d{}", dice(4));
                    volume.rename(Ino::ROOT, dir.as_bytes(), to, dir.as_bytes(), RenameMode::Replace)
                }
                _ => volume.make(ME, from, old, 0o644, NewNode::File, &[]).map(drop),
            };
        }
        seqs.push(volume.seal(None).expect("seals").seq);
    }
    let view = |seq: Seq| volume.history().at(seq).expect("a moment");
    for (i, &to) in seqs.iter().enumerate() {
        for &from in &seqs[i.saturating_sub(6)..i] {
            let (before, after) = (shown(&view(from)), shown(&view(to)));
            let mut expected = Vec::new();
            for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                match (before.get(path), after.get(path)) {
                    (None, _) => expected.push(format!("A {path}")),
                    (_, None) => expected.push(format!("D {path}")),
                    (Some((a, ino_a, names_a)), Some((b, ino_b, names_b))) => {
                        if a != b || (ino_a != ino_b && names_a != names_b) {
                            expected.push(format!("M {path}"));
                        }
                    }
                }
            }
            assert_eq!(changed(&volume, from, to), expected, "from {from} to {to}");
        }
    }
}

#[test]
fn a_seal_needs_nothing_that_it_wrote_itself() {
    // Nothing is kept in memory, and what a seal wrote is in no pack that could be read yet.
    let mut stage = Stage::new();
    stage.options.cache_bytes = 0;
    let volume = stage.open();
    for round in 0..2 {
        for number in 0..500 {
            let name = format!("{round}-{number}");
            volume.make(ME, Ino::ROOT, name.as_bytes(), 0o644, NewNode::File, &[]).expect("makes a file");
        }
        volume.seal(None).expect("seals");
    }
    assert_eq!(volume.read_dir(Ino::ROOT, 0, 30_000).expect("lists").len(), 1000);
}

#[test]
fn rollback_and_fork_begin_at_the_moment_and_lose_nothing() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "a", &noise(5, 100_000));
    let then = volume.seal(None).expect("seals");
    put(&volume, "a", b"worse");
    put(&volume, "b", b"b");
    let after = volume.rollback(then.seq).expect("rolls back");
    assert_eq!(content(&volume, "a"), noise(5, 100_000));
    assert!(resolve(&volume, b"b").is_err());
    assert_eq!(after.seq, Seq(then.seq.0 + 2));
    assert_eq!(content(&volume.history().at(Seq(then.seq.0 + 1)).expect("the one before"), "b"), b"b");

    let other = tempfile::tempdir().expect("a folder");
    let key = VolumeKey::from_seed([8; 32]);
    let env = real::env(other.path());
    let mut bring = |path: &str| std::fs::copy(stage.path().join(path), other.path().join(path)).map(|_| ());
    fork(&volume.history(), then.seq, &env, &key, &mut bring).expect("forks");
    let forked = Volume::open(env, key, &stage.device, stage.options.clone()).expect("opens");
    assert_eq!(content(&forked, "a"), noise(5, 100_000));
    put(&forked, "c", b"only here");
    forked.seal(None).expect("seals");
    assert!(resolve(&volume, b"c").is_err());
    assert!(forked.history().check(&|_, _| {}).expect("checks").damage.is_empty());
}

#[test]
fn a_flipped_bit_in_a_pack_is_named_and_the_rest_works() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "victim", &noise(1, 400_000));
    put(&volume, "other", &noise(2, 400_000));
    volume.seal(None).expect("seals");
    drop(volume);
    let pack = std::fs::read_dir(stage.path().join("packs"))
        .expect("packs")
        .map(|entry| entry.expect("an entry").path())
        .max_by_key(|path| std::fs::metadata(path).expect("a pack").len())
        .expect("a pack");
    let mut bytes = std::fs::read(&pack).expect("reads");
    bytes[5000] ^= 1;
    std::fs::write(&pack, bytes).expect("writes");
    let volume = stage.open();
    let victim = resolve(&volume, b"victim").expect("there").ino;
    assert!(matches!(volume.read(victim, 0, 4096), Err(FsError::Damaged(_))));
    assert_eq!(content(&volume, "other"), noise(2, 400_000));
    let report = volume.history().check(&|_, _| {}).expect("checks");
    assert_eq!(report.damage[0].path.as_deref(), Some(b"victim".as_slice()));
}

#[test]
fn an_unlinked_file_lives_until_it_is_forgotten() {
    let stage = Stage::new();
    let volume = stage.open();
    let ino = put(&volume, "f", &noise(3, 50_000));
    volume.unlink(Ino::ROOT, b"f").expect("removes");
    volume.seal(None).expect("seals");
    assert_eq!(volume.read(ino, 0, 50_000).expect("reads"), noise(3, 50_000));
    volume.forget(ino);
    assert_eq!(volume.read(ino, 0, 1), Err(FsError::NotFound));
    // One that is known when the power goes is freed at the next start.
    let ino = put(&volume, "g", b"g");
    volume.unlink(Ino::ROOT, b"g").expect("removes");
    volume.sync().expect("syncs");
    drop(volume);
    let volume = stage.open();
    assert_eq!(volume.attr(ino), Err(FsError::NotFound));
    assert_eq!(volume.space().expect("space").files, 1);
}

#[test]
fn a_name_that_comes_and_goes_takes_no_more_memory_each_time() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "lock", b"sealed");
    volume.seal(None).expect("seals");
    let round = || {
        let ino = put(&volume, "lock", b"taken");
        volume.unlink(Ino::ROOT, b"lock").expect("removes");
        volume.forget(ino);
        volume.status().overlay_bytes
    };
    round();
    let once = round();
    (0..100).for_each(|_| assert_eq!(round(), once));
    let sealed = volume.seal(None).expect("seals").seq;
    let view = volume.history().at(sealed).expect("a moment");
    assert_eq!(names(&view, Ino::ROOT), [] as [String; 0], "what was sealed before is gone");
}

#[test]
fn writers_and_seals_at_once_lose_nothing() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    std::thread::scope(|scope| {
        for writer in 0..3u64 {
            let volume = volume.clone();
            scope.spawn(move || {
                let dir = folder(&volume, &format!("w{writer}"));
                for i in 0..200u64 {
                    let name = format!("f{i}");
                    let ino =
                        volume.make(ME, dir, name.as_bytes(), 0o600, NewNode::File, &[]).expect("makes").ino;
                    volume.write(ino, 0, &noise(writer * 1000 + i, 10_000), false).expect("writes");
                    assert_eq!(volume.read(ino, 0, 20_000).expect("reads"), noise(writer * 1000 + i, 10_000));
                }
            });
        }
        for _ in 0..20 {
            volume.seal(None).expect("seals");
        }
    });
    volume.seal(None).expect("seals");
    drop(volume);
    let volume = stage.open();
    for writer in 0..3u64 {
        for i in 0..200u64 {
            assert_eq!(content(&volume, &format!("w{writer}/f{i}")), noise(writer * 1000 + i, 10_000));
        }
    }
}

#[test]
fn special_files_links_and_attributes_come_back() {
    let stage = Stage::new();
    let volume = stage.open();
    volume.make(ME, Ino::ROOT, b"link", 0o777, NewNode::Symlink(b"target/of/link"), &[]).expect("makes");
    volume.make(ME, Ino::ROOT, b"pipe", 0o600, NewNode::Special(FileKind::Fifo, 0), &[]).expect("makes");
    let file = put(&volume, "f", b"x");
    volume.set_xattr(file, b"user.large", &vec![9; 65_536], XattrMode::Create).expect("sets");
    volume.set_xattr(file, b"user.small", b"", XattrMode::Set).expect("sets");
    volume.link(file, Ino::ROOT, b"g").expect("links");
    volume.seal(None).expect("seals");
    drop(volume);
    let volume = stage.open();
    let link = resolve(&volume, b"link").expect("there");
    assert_eq!(volume.read_link(link.ino).expect("reads"), b"target/of/link");
    assert_eq!(resolve(&volume, b"pipe").expect("there").inode.kind, FileKind::Fifo);
    assert_eq!(resolve(&volume, b"g").expect("there").inode.nlink, 2);
    assert_eq!(volume.xattr(file, b"user.large").expect("gets").len(), 65_536);
    assert_eq!(volume.xattrs(file).expect("lists").len(), 2);
    volume.unlink(Ino::ROOT, b"f").expect("removes");
    volume.remove_xattr(file, b"user.large").expect("removes");
    assert_eq!(volume.xattr(file, b"user.large"), Err(FsError::NoAttribute));
}

#[test]
fn another_device_secret_is_told_and_loses_nothing() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", b"in the journal");
    volume.sync().expect("syncs");
    drop(volume);
    let other = DeviceSecret::from_bytes([1; 32]);
    let refused =
        Volume::open(real::env(stage.path()), stage.key.clone(), &other, stage.options.clone()).map(|_| ());
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    assert_eq!(content(&stage.open(), "f"), b"in the journal");
}

#[test]
fn a_flipped_bit_in_the_header_of_the_journal_is_told() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", b"in the journal");
    volume.sync().expect("syncs");
    drop(volume);
    let segment = stage.path().join("journal/00000000");
    let mut bytes = std::fs::read(&segment).expect("reads");
    bytes[60] ^= 1;
    std::fs::write(&segment, bytes).expect("writes");
    let volume = stage.open();
    assert!(volume.read_only_reason().expect("it is read-only").contains("journal/00000000"));
}

#[test]
fn a_journal_that_was_cut_anywhere_is_told_and_not_written_on() {
    let stage = Stage::new();
    let volume = stage.open();
    put(&volume, "f", b"in the journal");
    volume.sync().expect("durable");
    drop(volume);
    let segment = stage.path().join("journal/00000000");
    let whole = std::fs::read(&segment).expect("reads");
    for left in [0, 1, 511, 512, 600, 700, whole.len() - 1] {
        std::fs::write(&segment, &whole[..left]).expect("cuts");
        let volume = stage.open();
        let reason = volume.read_only_reason().unwrap_or_else(|| panic!("cut to {left}: not told"));
        assert!(reason.contains(&format!("journal/00000000 was cut to {left} bytes")), "{reason}");
        drop(volume);
        assert_eq!(std::fs::read(&segment).expect("reads"), whole[..left], "cut to {left}: it was changed");
    }
    std::fs::write(&segment, &whole).expect("back again");
    assert_eq!(content(&stage.open(), "f"), b"in the journal");
}

#[test]
fn a_volume_that_was_closed_cleanly_keeps_no_journal() {
    let stage = Stage::new();
    let volume = Arc::new(stage.open());
    let keeper = Keeper::start(volume.clone(), None);
    put(&volume, "f", &noise(1, 3_000_000));
    keeper.stop().expect("stops");
    drop(volume);
    assert_eq!(std::fs::read_dir(stage.path().join("journal")).expect("lists").count(), 0);
    let volume = stage.open();
    assert_eq!(content(&volume, "f"), noise(1, 3_000_000));
    put(&volume, "g", b"goes on");
    volume.sync().expect("syncs");
    drop(volume);
    assert_eq!(content(&stage.open(), "g"), b"goes on");
}

#[test]
fn a_label_that_no_manifest_holds_is_refused() {
    let stage = Stage::new();
    let volume = stage.open();
    let label = |message: usize, tag: usize, tags: usize| SnapshotLabel {
        id: SnapshotId([1; 16]),
        message: "m".repeat(message),
        tags: vec!["t".repeat(tag); tags],
    };
    for wrong in [label(4097, 1, 1), label(1, 256, 1), label(1, 1, 65)] {
        assert_eq!(volume.seal(Some(wrong)), Err(FsError::Invalid));
    }
    let seq = volume.seal(Some(label(4096, 255, 64))).expect("the largest label").seq;
    drop(volume);
    assert_eq!(stage.open().head().seq, seq, "and it is read again");
}
