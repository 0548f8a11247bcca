//! Faults and bad input: what is damaged is named, what is refused is refused with a reason, and the rest works.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fs_crypto::KeyFile;
use fs_format::manifest::MANIFEST_CONTEXT;

use crate::volumes::walk;
use crate::world::{World, wait_until};

/// Twice the largest chunk, so that one damaged chunk never is the whole file.
const NOISE_BYTES: usize = 2 << 20;

/// What a test knows of the volume that it damages.
struct Stage {
    world: World,
    /// What is in `d/noise`.
    noise: Vec<u8>,
}

impl Stage {
    /// A volume `photos` at rest: seq 2 is the snapshot `a`, with `d/noise`, `d/small` and 400 files in `many`.
    fn at_rest() -> Self {
        let stage = Self::mounted();
        stage.world.comb("unmount mount").done();
        stage
    }

    /// The same, mounted on `mount`.
    fn mounted() -> Self {
        let world = World::new();
        let mount = world.dir("mount");
        world.comb("volume create photos").done();
        world.comb("mount photos mount --seal-every 0").done();
        fs::create_dir(mount.join("d")).expect("a folder");
        fs::create_dir(mount.join("many")).expect("a folder");
        let bytes = noise(NOISE_BYTES);
        fs::write(mount.join("d/noise"), &bytes).expect("a file");
        fs::write(mount.join("d/small"), "small").expect("a file");
        for i in 0..400 {
            // In the tree, which so has some leaves.
            fs::write(mount.join(format!("many/{i:03}")), noise(200)).expect("a file");
        }
        world.comb("snapshot photos --tag a").done();
        Self { world, noise: bytes }
    }

    /// What a kill leaves: seq 2 is the snapshot, and the journal has five files `d/0` to `d/4`, each synced alone.
    fn killed() -> Self {
        let stage = Self::mounted();
        let mount = stage.path("mount");
        for i in 0..5 {
            let mut file = File::create(mount.join(format!("d/{i}"))).expect("a file");
            file.write_all(&noise(30_000)).and_then(|()| file.sync_all()).expect("synced");
        }
        stage.kill();
        stage
    }

    fn kill(&self) {
        let pid = self.world.comb("status photos --json").json()[0]["mounts"][0]["pid"].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill starts").success());
        wait_until("dying", || rustix::fs::statfs(self.path("mount")).is_err());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.volume_folder().join(name)
    }

    /// The lines of `comb check`, which must find damage.
    #[track_caller]
    fn damage(&self) -> String {
        let outcome = self.world.comb("check photos");
        let out = outcome.out.clone();
        outcome.refused(5, "is damaged in");
        out
    }

    #[track_caller]
    fn expect_rest(&self, mount: &Path) {
        assert_eq!(fs::read_to_string(mount.join("d/small")).expect("the rest works"), "small");
    }

    /// The newest data pack that holds the noise, and the meta packs.
    fn packs(&self) -> (PathBuf, Vec<PathBuf>) {
        let mut packs = walk(&self.file("packs"));
        packs.sort_by_key(|path| path.metadata().expect("a pack").len());
        (packs.pop().expect("a data pack"), packs)
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("chance");
    bytes
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs::read(path).expect("its bytes");
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).expect("written");
}

/// Names and bytes of all that must not change.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = ["journal", "packs", "manifests"]
        .iter()
        .flat_map(|part| walk(&folder.join(part)))
        .chain(["key", "head", "config"].iter().map(|name| folder.join(name)))
        .map(|path| (path.clone(), fs::read(&path).expect("its bytes")))
        .collect();
    files.sort();
    files
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_flipped_bit_in_a_file_is_named_everywhere_and_the_rest_works() {
    let stage = Stage::at_rest();
    let (pack, _) = stage.packs();
    flip(&pack, 500_000, 3);
    let before = content(&stage.world.volume_folder());

    let damage = stage.damage();
    let line = damage.lines().next().expect("a line");
    assert!(line.starts_with("d/noise: bytes ") && line.contains(": seq 2: damaged: packs/"), "{damage}");
    let report = stage.world.comb("check photos --json");
    let report: serde_json::Value = serde_json::from_str(&report.out).expect("JSON");
    let (from, to) = (&report["damage"][0]["range"][0], &report["damage"][0]["range"][1]);
    let (from, to) = (from.as_u64().expect("a range") as usize, to.as_u64().expect("a range") as usize);
    assert!(from < to && to <= NOISE_BYTES && to - from <= 1 << 20, "{from} to {to}: one chunk is lost");

    stage.world.comb("mount photos mount --read-only").done();
    let mount = stage.path("mount");
    stage.expect_rest(&mount);
    let file = File::open(mount.join("d/noise")).expect("it opens");
    let read = |at: usize| {
        let mut page = vec![0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut page, at as u64).map(|()| page)
    };
    let mut refused = 0;
    for at in (0..NOISE_BYTES).step_by(4096) {
        match read(at) {
            Ok(page) => assert_eq!(page, stage.noise[at..at + 4096], "wrong bytes at {at}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                assert!(at + 4096 > from && at < to, "{at} lies outside of what is damaged");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let status = stage.world.comb("status photos").done();
    assert!(status.contains("photos: d/noise: damaged: packs/"), "{status}");
    let past = fs::read(mount.join(".snapshots/a/d/noise")).expect_err("the past is damaged too");
    assert_eq!(past.raw_os_error(), Some(libc::EIO));
    let status = stage.world.comb("status photos --json").json();
    let named = status[0]["damage"].to_string();
    assert!(named.contains("d/noise: seq 2: damaged: packs/"), "{named}");
    drop(file);
    stage.world.comb("unmount mount").done();
    assert_eq!(content(&stage.world.volume_folder()), before, "looking changes nothing");
}

#[test]
fn a_flipped_bit_in_the_tree_names_the_paths_that_are_lost() {
    let stage = Stage::at_rest();
    let (_, mut metas) = stage.packs();
    let meta = metas.pop().expect("the pack of the nodes");
    let len = meta.metadata().expect("a pack").len() as usize;
    // The first leaf holds the record of the moment before, for which its manifest stands in.
    flip(&meta, 100, 0);
    assert!(stage.damage().starts_with("seq 2: damaged: packs/"), "no path is lost");
    assert_eq!(stage.world.comb("log photos --json").json().as_array().map(Vec::len), Some(2));
    stage.world.comb("ls photos@1:").done();
    assert_eq!(stage.world.comb("cat photos@a:d/small").done(), "small");
    flip(&meta, 100, 0);
    // Each leaf of files in turn; the root, which is written last, has a test of its own.
    let mut named = 0;
    for at in (1000..len * 3 / 4).step_by(10_000) {
        flip(&meta, at, 0);
        let damage = stage.damage();
        let paths = damage.lines().filter(|line| line.contains(": seq 2: damaged: packs/")).count();
        named += damage.lines().filter(|line| line.starts_with("many/")).count();
        assert!(paths > 0, "no path is named for byte {at}: {damage}");
        flip(&meta, at, 0);
    }
    assert!(named > 100, "only {named} files were named");
    stage.world.comb("check photos").done();
}

#[test]
fn without_its_root_a_moment_says_so_and_others_open() {
    let stage = Stage::at_rest();
    let metas = stage.packs().1;
    let newest = metas.last().expect("the pack of the newest root");
    let away = stage.path("away");
    fs::rename(newest, &away).expect("away");
    assert!(stage.damage().starts_with("/: seq 2: damaged: packs/"));
    stage.world.comb("mount photos mount").refused(5, "is missing");
    stage.world.comb("mount photos mount --at a").refused(5, "is missing");
    stage.world.comb("ls photos@a:").refused(5, "error: /: damaged: packs/");
    assert_eq!(fs::read_dir(stage.path("mount")).expect("the mount point").count(), 0, "nothing is mounted");
    stage.world.comb("ls photos@1:").done();
    stage.world.comb("mount photos mount --at 1").done();
    stage.world.comb("unmount mount").done();
    fs::rename(&away, newest).expect("back");
    stage.world.comb("check photos").done();
}

#[test]
fn a_missing_or_truncated_pack_is_named_and_the_rest_works() {
    for cut in [None, Some(0), Some(40), Some(300_000)] {
        let stage = Stage::at_rest();
        let (pack, _) = stage.packs();
        match cut {
            None => fs::remove_file(&pack).expect("removed"),
            Some(len) => {
                File::options().write(true).open(&pack).and_then(|file| file.set_len(len)).expect("cut")
            }
        }
        let damage = stage.damage();
        assert!(damage.contains("d/noise: bytes "), "{damage}");
        assert!(damage.contains(if cut.is_none() { " is missing" } else { " ends early" }), "{damage}");
        stage.world.comb("mount photos mount").done();
        stage.expect_rest(&stage.path("mount"));
        let error = fs::read(stage.path("mount/d/noise")).expect_err("it is damaged");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        fs::write(stage.path("mount/new"), "goes on").expect("the rest is written on");
        stage.world.comb("snapshot photos").done();
        stage.world.comb("unmount mount").done();
        assert_eq!(stage.world.comb("cat photos@head:new").done(), "goes on");
    }
}

#[test]
fn one_of_two_newest_manifests_is_enough() {
    for part in ["head", "manifests/0000000000000002"] {
        let stage = Stage::at_rest();
        let whole = fs::read(stage.file(part)).expect("a manifest");
        // Version, seq, body, signature; and cut, and gone.
        for at in [8, 9, 57, 300, whole.len() - 1] {
            flip(&stage.file(part), at, 1);
            assert!(
                stage.damage().contains(&format!("{part} failed its integrity check")),
                "byte {at} of {part}"
            );
            stage.world.comb("ls photos@a:d").done();
            fs::write(stage.file(part), &whole).expect("back");
        }
        fs::write(stage.file(part), &whole[..100]).expect("cut");
        assert!(stage.damage().contains(&format!("{part} ends early")));
        fs::remove_file(stage.file(part)).expect("gone");
        assert!(stage.damage().contains(part));
        stage.world.comb("mount photos mount").done();
        fs::write(stage.path("mount/new"), "goes on").expect("written");
        stage.world.comb("unmount mount").done();
        stage.world.comb("check photos").done();
        assert_eq!(stage.world.comb("cat photos@a:d/small").done(), "small");
        assert_eq!(
            fs::read(stage.file("manifests/0000000000000002")).expect("there"),
            whole,
            "it was restored"
        );
    }
}

#[test]
fn a_copy_that_a_killed_seal_left_behind_is_brought_up_by_whoever_writes_next() {
    let stage = Stage::at_rest();
    let old = fs::read(stage.file("head")).expect("a manifest");
    stage.world.comb("snapshot photos").done();
    // As killed between the manifest and its copy.
    fs::write(stage.file("head"), old).expect("back");
    stage.world.comb("check photos").done();
    stage.world.comb("ls photos:").done();
    let newest = fs::read(stage.file("manifests/0000000000000003")).expect("a manifest");
    assert_eq!(fs::read(stage.file("head")).expect("a manifest"), newest);
}

#[test]
fn without_its_newest_manifest_a_volume_shows_the_one_before_and_takes_no_changes() {
    let stage = Stage::at_rest();
    for part in ["head", "manifests/0000000000000002"] {
        flip(&stage.file(part), 300, 1);
    }
    let before = content(&stage.world.volume_folder());
    assert!(stage.damage().contains("seq 2: manifests/0000000000000002 failed its integrity check"));
    for line in ["snapshot photos", "rollback photos@1"] {
        stage.world.comb(line).refused(8, "manifests/0000000000000002 failed its integrity check");
    }
    let mounted = stage.world.comb("mount photos mount");
    assert!(mounted.said.contains("read-only: manifests/0000000000000002"), "{}", mounted.said);
    mounted.done();
    let refused = fs::write(stage.path("mount/new"), "").expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    let status = stage.world.comb("status photos").done();
    assert!(status.contains("read-only because manifests/0000000000000002"), "{status}");
    stage.world.comb("unmount mount").done();
    assert_eq!(content(&stage.world.volume_folder()), before, "nothing was changed");
    // What the hint proposes.
    stage.world.comb("fork photos@head copy").done();
    stage.world.comb("mount copy mount").done();
    fs::write(stage.path("mount/new"), "goes on").expect("written");
    stage.world.comb("unmount mount").done();
}

#[test]
fn an_old_manifest_that_is_damaged_is_named_by_a_check_and_needed_by_nobody() {
    let stage = Stage::at_rest();
    flip(&stage.file("manifests/0000000000000001"), 300, 1);
    assert!(stage.damage().contains("seq 1: manifests/0000000000000001 failed its integrity check"));
    for line in ["ls photos@1:", "log photos", "ls photos@a:"] {
        let outcome = stage.world.comb(line);
        assert!(!outcome.said.contains("warning"), "{line}: {}", outcome.said);
        outcome.done();
    }
    stage.world.comb("mount photos mount").done();
    stage.expect_rest(&stage.path("mount"));
    assert_eq!(fs::read_dir(stage.path("mount/.snapshots")).expect("the past").count(), 2);
    stage.world.comb("unmount mount").done();
    fs::remove_file(stage.file("manifests/0000000000000001")).expect("gone");
    stage.world.comb("check photos").done();
    stage.world.comb("ls photos@1:").done();
}

#[test]
fn a_journal_that_was_cut_or_flipped_is_told_and_nothing_is_changed() {
    let stage = Stage::killed();
    let journal = stage.file("journal/00000000");
    let segment = walk(&stage.file("journal"))
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"COMBJRNL")))
        .unwrap_or(journal);
    let whole = fs::read(&segment).expect("a segment");
    let name = format!("journal/{}", segment.file_name().expect("a name").to_string_lossy());
    let cut = |len: usize| whole[..len].to_vec();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    let last = whole.iter().rposition(|&byte| byte != 0).expect("frames");
    for (what, bytes) in [
        ("cut to nothing", cut(0)),
        ("cut in its header", cut(100)),
        ("cut in its frames", cut(last - 100_000)),
        ("cut behind its frames", cut(last + 1)),
        ("flipped in its version", flipped(8)),
        ("flipped in its hash", flipped(120)),
        ("flipped behind its tag", flipped(400)),
        ("flipped in a frame", flipped(last - 100_000)),
    ] {
        fs::write(&segment, bytes).expect("damaged");
        let before = content(&stage.world.volume_folder());
        assert!(stage.damage().contains(&name), "{what}");
        stage.world.comb("snapshot photos").refused(8, &name);
        let listed = stage.world.comb("ls photos:");
        assert_eq!(listed.out, "d/\nmany/\n", "{what}: what there is");
        listed.refused(5, &name);
        stage.world.comb("cat photos:d/0").refused(5, &name);
        stage.world.comb("diff photos@1").refused(5, &name);
        stage.world.comb("fork photos copy").refused(5, &name);
        stage.world.comb("rollback photos@1").refused(8, &name);
        let mounted = stage.world.comb("mount photos mount");
        assert!(mounted.said.contains(&format!("read-only: {name}")), "{what}: {}", mounted.said);
        assert!(mounted.said.contains("hint: "), "{what}: {}", mounted.said);
        mounted.done();
        stage.expect_rest(&stage.path("mount"));
        let refused = fs::write(stage.path("mount/new"), "").expect_err("read-only");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{what}");
        assert!(stage.damage().contains(&name), "{what}: also beside the daemon");
        let status = stage.world.comb("status photos").done();
        assert!(status.contains(&format!("read-only because {name}")), "{what}: {status}");
        stage.world.comb("unmount mount").done();
        assert!(content(&stage.world.volume_folder()) == before, "{what}: something was changed");
    }
    fs::write(&segment, &whole).expect("back again");
    stage.world.comb("check photos").done();
    stage.world.comb("mount photos mount").done();
    for i in 0..5 {
        assert_eq!(fs::metadata(stage.path(&format!("mount/d/{i}"))).expect("synced").len(), 30_000);
    }
    stage.world.comb("unmount mount").done();
}

#[test]
fn a_check_beside_the_daemon_reads_the_journal_and_changes_nothing() {
    let stage = Stage::mounted();
    let mount = stage.path("mount");
    let mut file = File::create(mount.join("unsealed")).expect("a file");
    file.write_all(&noise(100_000)).and_then(|()| file.sync_all()).expect("synced");
    stage.world.comb("check photos").done();
    let segment = walk(&stage.file("journal"))
        .into_iter()
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"COMBJRNL")))
        .max()
        .expect("a segment");
    let last = fs::read(&segment).expect("bytes").iter().rposition(|&byte| byte != 0).expect("frames");
    let at = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&segment).expect("opens");
        file.write_all_at(bytes, (last - 50_000) as u64).expect("written");
    };
    let was = fs::read(&segment).expect("bytes")[last - 50_000];
    at(&[was ^ 1]);
    let damage = stage.damage();
    assert!(damage.contains("journal/") && damage.contains("a frame failed its integrity check"), "{damage}");
    assert!(stage.world.comb("status photos").done().contains("photos: damaged: journal/"));
    at(&[was]);
    drop(file);
    stage.world.comb("check photos").done();
    stage.world.comb("unmount mount").done();
    stage.world.comb("check photos").done();
}

#[test]
fn checking_changes_nothing() {
    let stage = Stage::killed();
    let before = content(&stage.world.volume_folder());
    stage.world.comb("check photos").done();
    assert!(content(&stage.world.volume_folder()) == before, "not even what a seal would take over");
}

#[test]
fn a_damaged_name_hides_no_volume_and_is_put_right_as_the_hint_says() {
    let stage = Stage::at_rest();
    let id = stage.world.comb("volume show photos --json").json()["public_key"]
        .as_str()
        .expect("a key")
        .to_owned();
    stage.world.comb("volume create other").done();
    let name = stage.path("state/names/photos");
    let whole = fs::read(&name).expect("a name");
    for (at, bit) in [(5, 0), (5, 7), (64, 1)] {
        flip(&name, at, bit);
        for line in ["status photos", "mount photos mount", "check photos"] {
            let outcome = stage.world.comb(line);
            assert!(outcome.said.contains(&format!("echo {id} >")), "{line}: {}", outcome.said);
            outcome.refused(5, "names/photos is damaged");
        }
        for line in ["status", "volume list"] {
            let outcome = stage.world.comb(line);
            assert!(outcome.said.contains("names/photos is damaged"), "{line}: {}", outcome.said);
            assert!(outcome.done().contains("other"), "the other volume is listed");
        }
        stage.world.comb("volume create photos").refused(5, "names/photos is damaged");
        fs::write(&name, &whole).expect("back");
    }
    stage.world.comb("status photos").done();
}

#[test]
fn a_flipped_bit_in_the_config_is_told_and_a_change_by_hand_is_taken() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos --quota 16M").done();
    let config = world.volume_folder().join("config");
    let whole = fs::read(&config).expect("a config");
    for bit in 0..whole.len() * 8 {
        // Blanks and line breaks mean nothing, and some of them become others.
        if whole[bit / 8].is_ascii_whitespace() || bit % 13 != 0 {
            continue;
        }
        flip(&config, bit / 8, (bit % 8) as u8);
        let outcome = world.comb("volume show photos");
        assert!([5, 6].contains(&outcome.code), "bit {bit}: {}{}", outcome.out, outcome.said);
        outcome.refused(outcome_code(&world), "config");
        fs::write(&config, &whole).expect("back");
    }
    flip(&config, 3, 1);
    world.comb("mount photos mount").refused(5, "config is damaged");
    let status = world.comb("status photos").done();
    assert!(status.contains("config is damaged"), "{status}");

    fs::write(&config, r#"{"name":"photos","quota_bytes":33554432,"created":"2026-11-21T00:00:00Z"}"#)
        .expect("by hand");
    assert_eq!(world.comb("volume show photos --json").json()["quota_bytes"], 32 << 20);
    fs::write(&config, r#"{"name":"photos","created":"2026-11-21T00:00:00Z","compression":9}"#)
        .expect("newer");
    world.comb("mount photos mount").refused(6, "that this comb does not know");
}

/// The code of the same refusal again.
fn outcome_code(world: &World) -> i32 {
    world.comb("volume show photos").code
}

#[test]
fn a_flipped_bit_in_a_key_is_told_and_opens_nothing() {
    let stage = Stage::at_rest();
    let key = stage.file("key");
    for (at, bit) in [(30, 0), (30, 7), (70, 1)] {
        flip(&key, at, bit);
        for line in ["mount photos mount", "check photos", "status photos", "ls photos@a:", "snapshot photos"]
        {
            stage.world.comb(line).refused(5, "is damaged");
        }
        flip(&key, at, bit);
    }
    stage.world.comb("check photos").done();
}

#[test]
fn another_device_secret_is_told_while_the_journal_needs_it() {
    let stage = Stage::killed();
    let device = stage.path("state/device");
    let before = content(&stage.world.volume_folder());
    flip(&device, 3, 1);
    for line in ["mount photos mount", "snapshot photos"] {
        stage.world.comb(line).refused(5, "`device`");
    }
    assert!(stage.damage().contains("`device`"));
    stage.world.comb("cat photos@a:d/small").done();
    fs::write(&device, b"short").expect("cut");
    stage.world.comb("mount photos mount").refused(5, "does not hold 32 bytes");
    assert!(content(&stage.world.volume_folder()) == before);
}

#[test]
fn a_newer_format_is_told_as_one() {
    // The hash of a segment's header is no secret, so a newer one can be made here.
    let stage = Stage::killed();
    let before = content(&stage.world.volume_folder());
    for segment in walk(&stage.file("journal")) {
        let mut bytes = fs::read(&segment).expect("a segment");
        if bytes.starts_with(b"COMBJRNL") {
            bytes[8] = 2;
            let hash = blake3::hash(&bytes[..112]);
            bytes[112..144].copy_from_slice(hash.as_bytes());
            fs::write(&segment, bytes).expect("written");
        }
    }
    let newer = content(&stage.world.volume_folder());
    assert!(newer != before, "there was a segment");
    for line in ["mount photos mount", "snapshot photos", "check photos", "rollback photos@1"] {
        let outcome = stage.world.comb(line);
        assert!(outcome.said.contains("hint: use the version of comb that wrote it"), "{}", outcome.said);
        outcome.refused(6, "has version 2, this program reads up to 1");
    }
    assert_eq!(stage.world.comb("cat photos@a:d/small").done(), "small");
    assert!(content(&stage.world.volume_folder()) == newer, "nothing was changed");

    // A manifest is signed by whoever has the key, and has a copy.
    let stage = Stage::at_rest();
    let text = fs::read_to_string(stage.file("key")).expect("a key");
    let signer = KeyFile::decode(&text).expect("a key");
    let mut object = fs::read(stage.file("head")).expect("the newest manifest");
    object[8] = 4;
    let signed = object.len() - 64;
    let signature = signer.sign(MANIFEST_CONTEXT, &object[..signed]);
    object[signed..].copy_from_slice(&signature);
    for part in ["head", "manifests/0000000000000002"] {
        fs::write(stage.file(part), &object).expect("written");
    }
    let newer = content(&stage.world.volume_folder());
    for line in ["mount photos mount", "snapshot photos", "check photos", "status photos", "ls photos@1:"] {
        stage.world.comb(line).refused(6, "manifests/0000000000000002 has version 4");
    }
    assert!(content(&stage.world.volume_folder()) == newer, "nothing was changed");

    // The hash of a key file is no secret either.
    let key = stage.file("key");
    let text = fs::read_to_string(&key).expect("a key");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[0] = "comb volume key 2";
    let body = format!("{}\n{}\n", lines[0], lines[1]);
    let check = Command::new("sh")
        .args(["-c", "base64 -w0"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().expect("a pipe").write_all(&blake3::hash(body.as_bytes()).as_bytes()[..16])?;
            child.wait_with_output()
        })
        .expect("base64 runs");
    fs::write(&key, format!("{body}{}\n", String::from_utf8_lossy(&check.stdout))).expect("written");
    stage.world.comb("mount photos mount").refused(6, "version 2");
}

#[test]
fn a_name_of_256_bytes_is_too_long_everywhere() {
    let stage = Stage::mounted();
    let mount = stage.path("mount");
    let long = "n".repeat(256);
    let too_long = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("too long").raw_os_error(), Some(libc::ENAMETOOLONG));
    };
    let path = mount.join(&long);
    too_long(File::create(&path).map(drop));
    too_long(fs::create_dir(&path));
    too_long(std::os::unix::fs::symlink("x", &path));
    too_long(fs::hard_link(mount.join("d/small"), &path));
    too_long(fs::rename(mount.join("d/small"), &path));
    too_long(fs::metadata(&path).map(drop));
    too_long(fs::remove_file(&path));
    too_long(fs::metadata(mount.join(".snapshots/a").join(&long)).map(drop));
    File::create(mount.join("n".repeat(255))).expect("255 bytes are a name");
    stage.expect_rest(&mount);
    stage.world.comb("unmount mount").done();
    for line in [format!("cat photos@a:{long}"), format!("ls photos@a:{long}"), format!("log photos {long}")]
    {
        stage.world.comb(&line).refused(3, "no such file");
    }
    assert_eq!(stage.world.comb(&format!("volume create {long}")).code, 2);
    stage.world.comb("check photos").done();
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told_and_its_past_is_readable() {
    if !is_root() {
        return;
    }
    let stage = Stage::at_rest();
    let state = stage.path("state");
    let text = state.to_str().expect("text");
    let run =
        |args: &[&str]| assert!(Command::new("mount").args(args).status().expect("mount starts").success());
    run(&["--bind", text, text]);
    run(&["-o", "remount,bind,ro", text]);
    for line in [
        "mount photos mount",
        "mount photos mount --at a",
        "snapshot photos",
        "rollback photos@1",
        "volume create x",
    ] {
        let outcome = stage.world.comb(line);
        assert!(outcome.said.contains("--state DIR"), "{line}: {}", outcome.said);
        outcome.refused(8, "Read-only file system");
    }
    for line in ["status photos", "volume list", "log photos", "check photos", "diff photos@1 a"] {
        stage.world.comb(line).done();
    }
    assert_eq!(stage.world.comb("cat photos@a:d/small").done(), "small");
    stage.world.comb("restore photos@a:d/small --to out").done();
    assert_eq!(stage.world.comb("cat photos:d/small").done(), "small");
    assert!(Command::new("umount").arg(text).status().expect("umount starts").success());
    stage.world.comb("check photos").done();
}

#[test]
fn a_state_folder_of_somebody_else_is_not_permitted() {
    if !is_root() {
        return;
    }
    let stage = Stage::at_rest();
    let comb = stage.path("comb");
    // Not by this process: a file that another test's child inherits open for writing cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_comb")).arg(&comb).status();
    assert!(copied.is_ok_and(|status| status.success()), "a copy that everybody may run");
    use std::os::unix::fs::PermissionsExt;
    for path in [stage.path("."), comb.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    for line in ["status photos", "volume list", "mount photos mount", "check photos", "volume create x"] {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&comb)
            .args(["--state", "state"])
            .args(line.split(' '))
            .current_dir(stage.path("."))
            .output()
            .expect("setpriv starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{line}: {said}");
        assert!(said.contains("Permission denied") && said.contains("hint: "), "{line}: {said}");
    }
    stage.world.comb("check photos").done();
}

#[test]
fn root_leaves_the_state_folder_of_another_user_alone() {
    if !is_root() {
        return;
    }
    let stage = Stage::at_rest();
    let give = |path: &Path, user: &str| {
        let given = Command::new("chown").args(["-R", user]).arg(path).status();
        assert!(given.is_ok_and(|status| status.success()), "given to {user}");
    };
    let state = stage.path("state");
    let volume = stage.world.volume_folder();
    let files = || -> Vec<_> {
        let names = walk(&state).into_iter();
        names
            .map(|path| (path.symlink_metadata().expect("a file").modified().expect("a time"), path))
            .collect()
    };
    // The whole state folder, and one volume in it.
    for given in [&state, &volume] {
        give(&state, "root");
        give(given, "nobody");
        let before = files();
        for line in [
            "snapshot photos",
            "mount photos mount",
            "rollback photos@1",
            "fork photos@head other",
            "volume remove photos --yes",
            "status photos",
            "log photos",
            "cat photos:d/small",
            "restore photos@a:d/small --to out",
            "check photos",
        ] {
            let outcome = stage.world.comb(line);
            assert!(outcome.said.contains("hint: `runuser -u nobody -- comb"), "{line}: {}", outcome.said);
            outcome.refused(8, "belongs to nobody");
        }
        assert_eq!(files(), before, "nothing was written");
    }
    give(&state, "12345");
    stage.world.comb("volume create x").refused(8, "belongs to #12345");
    give(&state, "root");
    stage.world.comb("check photos").done();
}

#[test]
fn reading_a_damaged_place_in_a_loop_fills_no_log() {
    let stage = Stage::at_rest();
    flip(&stage.packs().0, 500_000, 3);
    stage.world.comb("mount photos mount --read-only").done();
    let log = || fs::read_to_string(stage.file("log")).expect("the log");
    let before = log().lines().count();
    let begin = Instant::now();
    for _ in 0..1000 {
        fs::read(stage.path("mount/d/noise")).expect_err("it is damaged");
    }
    let seconds = begin.elapsed().as_secs() as usize;
    let lines = log().lines().count() - before;
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s");
    std::thread::sleep(Duration::from_secs(1));
    fs::read(stage.path("mount/d/noise")).expect_err("it is damaged");
    assert!(log().lines().any(|line| line.contains("left_out=")), "{}", log());
    stage.world.comb("unmount mount").done();
}

#[test]
fn a_long_log_is_set_aside_while_the_daemon_runs() {
    let stage = Stage::at_rest();
    flip(&stage.packs().0, 500_000, 3);
    stage.world.comb("mount photos mount --read-only").done();
    // As if the daemon had much to say for a long time.
    let log = stage.file("log");
    File::options()
        .append(true)
        .open(&log)
        .and_then(|mut log| log.write_all(&[b'\n'; 5 << 20]))
        .expect("long");
    fs::read(stage.path("mount/d/noise")).expect_err("it is damaged");
    let said = fs::read_to_string(&log).expect("a new log");
    assert!(said.len() < 1000 && said.contains("answered EIO"), "{} bytes", said.len());
    assert!(stage.file("log.old").metadata().expect("the old one").len() > 5 << 20);
    stage.world.comb("unmount mount").done();
    assert!(fs::read_to_string(&log).expect("the log").contains("unmounted"), "it goes on in the new one");
}

#[test]
fn a_state_folder_that_is_a_file_is_in_the_way() {
    let world = World::new();
    fs::write(world.path("state"), "").expect("a file");
    for line in ["volume create x", "volume list", "status x"] {
        let outcome = world.comb(line);
        assert!(outcome.said.contains("hint: the state folder is a folder"), "{line}: {}", outcome.said);
        outcome.refused(4, "state");
    }
}

/// A file system of its own for the state folder, so that it can be filled and broken. Only root can have one.
struct OwnDisk {
    points: Vec<PathBuf>,
}

impl OwnDisk {
    /// Memory, and little of it.
    fn small(world: &World, size: &str) -> Self {
        let state = world.dir("state");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "comb-test", text(&state)]);
        Self { points: vec![state] }
    }

    /// An ext4 of 400 MiB on a loop device that has room for 100: what does not fit fails in the kernel's write-out,
    /// behind the back of whoever wrote it.
    fn breakable(world: &World) -> Self {
        let (below, state) = (world.dir("below"), world.dir("state"));
        mount(&["-t", "tmpfs", "-o", "size=100M", "comb-test", text(&below)]);
        let image = below.join("image");
        File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("an image");
        // No journal: it would be the first to meet the error, and stop the whole file system.
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1", text(&image)])
            .status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
        mount(&["-o", "loop,nodiscard", text(&image), text(&state)]);
        Self { points: vec![state, below] }
    }

    /// Takes all room that is left in a folder, until the file is removed.
    fn fill(folder: &Path) -> PathBuf {
        let path = folder.join("filler");
        let mut file = File::create(&path).expect("a file");
        let block = vec![1; 1 << 20];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
        path
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // A daemon that a failed test left holds it for a moment.
        for point in &self.points {
            let _ = Command::new("umount").args(["-l", text(point)]).status();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().expect("mount starts").success(), "mount {args:?}");
}

#[test]
fn a_full_disk_refuses_what_grows_lets_delete_and_goes_on() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _disk = OwnDisk::small(&world, "384M");
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    let filler = world.path("state/filler");
    fs::write(&filler, noise(96 << 20)).expect("it fits");
    world.comb("mount photos mount").done();
    let keep = noise(8 << 20);
    fs::write(mount.join("keep"), &keep).expect("it fits");
    File::open(mount.join("keep")).and_then(|file| file.sync_all()).expect("synced");

    let mut big = File::create(mount.join("big")).expect("a file");
    let mut block = noise(1 << 20);
    let mut written = 0_u16;
    let refused = loop {
        // None like another, or all of them would be stored once.
        for page in block.chunks_mut(4096) {
            page[..2].copy_from_slice(&written.to_le_bytes());
        }
        match big
            .write_all(&block)
            .and_then(|()| if written.is_multiple_of(16) { big.sync_all() } else { Ok(()) })
        {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "more than the disk has was taken");
    };
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert!(written > 40, "only {written} MiB were taken");
    drop(big);
    // Nothing of it turned the volume read-only, and what was there is there.
    assert!(fs::read(mount.join("keep")).expect("still there") == keep);
    assert_eq!(world.comb("status photos --json").json()[0]["mounts"][0]["read_only"], false);

    fs::remove_file(mount.join("big")).expect("deleting works");
    world.comb("snapshot photos").done();
    // What is sealed stays; room comes from elsewhere on the disk.
    fs::remove_file(&filler).expect("makes room");
    if let Err(error) = fs::write(mount.join("small"), "fits") {
        panic!("there is room: {error}: {}", world.comb("status photos --json").out);
    }
    File::open(mount.join("small")).and_then(|file| file.sync_all()).expect("goes on");
    world.comb("unmount mount").done();
    world.comb("check photos").done();
    world.comb("mount photos mount").done();
    assert!(fs::read(mount.join("keep")).expect("nothing was lost") == keep);
    assert_eq!(fs::read_to_string(mount.join("small")).expect("there"), "fits");
    world.comb("unmount mount").done();
}

#[test]
fn what_lies_in_a_store_is_read_where_the_disk_is_full() {
    if !is_root() {
        return;
    }
    let first = World::new();
    let store = first.dir("store");
    first.dir("mount");
    first.comb("volume create photos").done();
    first.comb("volume key photos --out key").done();
    first.comb(&format!("store add photos file://{}", store.display())).done();
    first.comb("mount photos mount").done();
    let big = noise(40 << 20);
    fs::write(first.path("mount/big"), &big).expect("written");
    first.comb("sync photos --wait --limit 60s").done();
    first.comb("unmount mount").done();

    let second = World::new();
    let _disk = OwnDisk::small(&second, "30M");
    let mount = second.dir("mount");
    let key = first.path("key");
    second
        .comb(&format!(
            "volume open photos --read-only --key-file {} --store file://{}",
            key.display(),
            store.display()
        ))
        .done();
    second.comb("mount photos mount").done();
    // Not a byte is left for windows, nor for the log in which that would be told.
    let filler = OwnDisk::fill(&second.path("state"));
    let mut read = vec![0; big.len()];
    let file = File::open(mount.join("big")).expect("it is there");
    for (at, part) in read.chunks_mut(4096).enumerate() {
        file.read_exact_at(part, at as u64 * 4096).expect("read from the store");
    }
    assert!(read == big);
    drop(file);
    fs::remove_file(filler).expect("makes room");
    assert!(fs::read(mount.join("big")).expect("still mounted") == big);
    second.comb("unmount mount").done();
}

#[test]
fn a_disk_without_room_for_all_of_a_volume_is_told_and_what_is_read_is_there() {
    if !is_root() {
        return;
    }
    let writer = World::new();
    let mount = writer.dir("mount");
    writer.comb("volume create photos").done();
    writer.comb("volume key photos --out key").done();
    let url = format!("file://{}", writer.dir("store").display());
    writer.comb(&format!("store add photos {url}")).done();
    writer.comb("mount photos mount").done();
    let content = noise(3 << 20);
    fs::write(mount.join("a"), &content).expect("written");
    writer.comb("sync photos --wait").done();
    writer.comb("unmount mount").done();

    let reader = World::new();
    // Of a small disk a third stays free, 1 GiB of a large one.
    let _disk = OwnDisk::small(&reader, "204M");
    let filler = reader.path("state/filler");
    fs::write(&filler, noise(136 << 20)).expect("it fits");
    let key = writer.path("key");
    let opened =
        reader.comb(&format!("volume open photos --key-file {} --store {url} --wait", key.display()));
    assert!(
        opened.out.contains("is open") && opened.said.contains("hint: "),
        "{}{}",
        opened.out,
        opened.said
    );
    opened.refused(7, "too little room, of which 68.0 MiB stays free");
    reader.comb("store remove photos folder").refused(7, "too little room");
    let mount = reader.dir("mount");
    reader.comb("mount photos mount").done();
    assert!(fs::read(mount.join("a")).expect("from the store") == content);
    reader.comb("unmount mount").done();
    let log = fs::read_to_string(reader.volume_folder().join("log")).expect("the log");
    assert_eq!(log.matches("nothing is fetched ahead while").count(), 1, "{log}");

    // With two thirds of it taken it could not; a small disk that is rather empty takes all.
    fs::remove_file(filler).expect("makes room");
    reader.comb("store remove photos folder").done();
    fs::remove_dir_all(writer.path("store")).expect("it is ours");
    reader.comb("mount photos mount").done();
    assert!(fs::read(mount.join("a")).expect("from the disk") == content);
    reader.comb("unmount mount").done();
}

#[test]
fn a_disk_error_on_fsync_is_eio_and_stays_and_is_said() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let _disk = OwnDisk::breakable(&world);
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --seal-every 0").done();
    let mut kept = File::create(mount.join("kept")).expect("a file");
    kept.write_all(b"acknowledged").and_then(|()| kept.sync_all()).expect("synced");

    let filler = OwnDisk::fill(&world.path("below"));
    let mut lost = File::create(mount.join("lost")).expect("a file");
    // In pieces that go through the kernel's cache: of what goes past it this disk says that it is full.
    let piece = noise(64 << 10);
    let failed = (0..128).find_map(|_| {
        lost.write_all(&piece).expect("the kernel takes it");
        lost.sync_all().err()
    });
    let error = failed.expect("the disk failed");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    // It stays so, for every file, also when the disk is well again.
    fs::remove_file(filler).expect("room again");
    let error = kept.sync_all().expect_err("never retried into success");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let refused = fs::write(mount.join("more"), "").expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read_to_string(mount.join("kept")).expect("reading goes on"), "acknowledged");
    let status = world.comb("status photos");
    let reason = status.out.lines().find(|line| line.starts_with("photos: read-only because "));
    let reason = reason.unwrap_or_else(|| panic!("{}", status.out));
    assert!(reason.contains("the journal (journal/") && reason.contains("cannot be written"), "{reason}");
    assert!(status.said.contains("hint: see that the disk"), "{}", status.said);
    world.comb("snapshot photos").refused(8, "read-only");

    drop((kept, lost));
    world.comb("unmount mount").refused(8, "not sealed");
    world.comb("mount photos mount").done();
    assert_eq!(fs::read_to_string(mount.join("kept")).expect("the next mount has it"), "acknowledged");
    fs::write(mount.join("more"), "goes on").expect("the disk is well again");
    world.comb("unmount mount").done();
    world.comb("check photos").done();
}
