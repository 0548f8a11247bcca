//! Volumes that are not mounted: making, keys, moments, and everything that must be refused.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::world::World;

/// The key of the seed documents; its public key is known.
const SEED_KEY: &str = "sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=";

#[test]
fn a_volume_is_made_without_a_question_and_listed() {
    let world = World::new();
    let said = world.comb("volume create photos --quota 10G").done();
    assert!(said.contains("public key"), "{said}");
    assert!(said.contains("key file"), "{said}");

    let list = world.comb("volume list --json").json();
    assert_eq!(list[0]["name"], "photos");
    assert_eq!(list[0]["quota_bytes"], 10u64 << 30);
    let show = world.comb("volume show photos --json").json();
    assert_eq!(show["public_key"], list[0]["public_key"]);
    assert_eq!(world.comb("status photos --json").json()[0]["head"]["seq"], 1);
    world.comb("check photos").done();
}

#[test]
fn a_key_is_imported_and_comes_out_the_same() {
    let world = World::new();
    fs::write(world.path("key"), SEED_KEY).expect("a key file");
    world.comb("volume create photos --key-file key").done();
    assert_eq!(world.comb("volume key photos").done().trim(), SEED_KEY);

    world.comb("volume key photos --out copy").done();
    let copy = world.path("copy");
    assert_eq!(fs::read_to_string(&copy).expect("the copy").trim(), SEED_KEY);
    assert_eq!(fs::metadata(&copy).expect("the copy").permissions().mode() & 0o777, 0o600);
    world.comb("volume key photos --out copy").refused(4, "exists");
    world.comb("volume create again --key-file key").refused(4, "key is here already");

    fs::write(world.path("nonsense"), "not a key").expect("a file");
    world.comb("volume create other --key-file nonsense").refused(6, "is not a volume key");
    world.comb("volume create other --key-file missing").refused(3, "missing");
    assert_eq!(world.comb("volume list --json").json().as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_private_is_for_its_owner_alone() {
    let world = World::new();
    world.comb("volume create photos").done();
    world.comb("snapshot photos").done();
    let mut folders = vec![world.path("state")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let metadata = entry.path().symlink_metadata().expect("metadata");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if !metadata.is_symlink() {
                assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", entry.path().display());
            }
        }
    }
}

#[test]
fn a_bad_command_line_is_told_as_such() {
    let world = World::new();
    for line in [
        "",
        "dance",
        "volume create",
        "volume create -- -x",
        "volume create a/b",
        "volume create photos --quota much",
        "snapshot photos --tag 12",
        "snapshot photos --tag a:b",
        "mount photos . --seal-every never",
    ] {
        assert_eq!(world.comb(line).code, 2, "comb {line}");
    }
    assert!(!world.path("state").exists(), "nothing was made");
}

#[test]
fn what_is_not_there_is_not_found() {
    let world = World::new();
    world.comb("status photos").refused(3, "there is no volume \"photos\"");
    world.comb("volume create photos").done();
    for line in
        ["cat photos@1:nothing", "ls photos@9:", "log photos nothing", "rollback photos@v1", "ls music:"]
    {
        assert_eq!(world.comb(line).code, 3, "comb {line}");
    }
    world.comb("cat photos@1").refused(2, "needs a path");
    world.comb("cat photos@1:").refused(2, "the root of the volume is a directory, not a file");
    world.comb("restore photos:x").refused(2, "needs a moment");
    world.words(["ls", "photos@the day before:x"]).refused(2, "no moment");
}

#[test]
fn snapshots_are_found_by_tag_uuid_seq_and_time() {
    let world = World::new();
    world.comb("volume create photos").done();
    let mut first = world
        .words(["snapshot", "photos", "-m", "before the move", "--tag", "a", "--tag", "b", "--json"])
        .json();
    assert_eq!(first["snapshot"]["message"], "before the move");
    let mut second = world.comb("snapshot photos --tag a --json").json();
    // Who takes it learns how long that held others up; it is no part of the moment.
    for taken in [&mut first, &mut second] {
        let freeze_us = taken.as_object_mut().and_then(|report| report.remove("freeze_us"));
        assert!(freeze_us.is_some_and(|freeze_us| freeze_us.is_u64()));
    }
    assert_ne!(first["snapshot"]["uuid"], second["snapshot"]["uuid"]);

    let log = world.comb("log photos --json").json();
    assert_eq!(log[0], second, "newest first");
    assert_eq!(log[1], first);
    let uuid = first["snapshot"]["uuid"].as_str().expect("a uuid");
    for when in [uuid, &uuid[..13], "b", &first["seq"].to_string(), "1s ago", "head"] {
        let place = format!("photos@{when}:");
        let found = world.words(["ls", &place]);
        // "1s ago" is before everything here.
        assert_eq!(found.code, if when == "1s ago" { 3 } else { 0 }, "{place}: {}", found.said);
    }
    let table = world.comb("log photos --snapshots -n 1").done();
    assert!(table.contains(&second["snapshot"]["uuid"].as_str().expect("a uuid")[..8]), "{table}");
    assert!(!table.contains("before the move"), "{table}");
}

#[test]
fn removing_needs_a_yes() {
    let world = World::new();
    world.comb("volume create photos").done();
    world.comb("volume remove photos").refused(2, "--yes");
    world.comb("volume remove photos").refused(2, "; it is in no store");
    world.comb("volume show photos").done();
    world.comb("volume remove photos --yes").done();
    world.comb("volume show photos").refused(3, "no volume");
    assert_eq!(fs::read_dir(world.path("state/volumes")).expect("a folder").count(), 0);
}

#[test]
fn a_fork_has_a_key_and_a_fate_of_its_own() {
    let world = World::new();
    world.comb("volume create photos").done();
    world.comb("fork photos@1 copy").done();
    world.comb("fork photos copy").refused(4, "already");
    let list = world.comb("volume list --json").json();
    assert_ne!(list[0]["public_key"], list[1]["public_key"]);
    world.comb("volume remove photos --yes").done();
    world.comb("check copy").done();
    world.comb("ls copy:").done();
}

#[test]
fn another_volumes_key_opens_nothing_and_changes_nothing() {
    let world = World::new();
    world.comb("volume create photos").done();
    let folder = world.volume_folder();
    fs::write(folder.join("key"), SEED_KEY).expect("another key");
    for line in ["ls photos:", "snapshot photos", "check photos", "status photos"] {
        world.comb(line).refused(6, "key of another volume");
    }
    fs::remove_file(folder.join("key")).expect("removed");
    world.comb("ls photos@1:").refused(3, "put a copy");
}

#[test]
fn a_foreign_folder_is_not_taken_for_a_volume() {
    let world = World::new();
    world.comb("volume create photos").done();
    let folder = world.volume_folder();
    for part in ["manifests", "packs", "journal"] {
        fs::remove_dir_all(folder.join(part)).expect("removed");
        fs::create_dir(folder.join(part)).expect("empty");
    }
    world.comb("ls photos@1:").refused(6, "holds no volume");
}

#[test]
fn a_flipped_bit_is_named_and_told_by_the_exit_code() {
    let world = World::new();
    world.comb("volume create photos").done();
    world.comb("snapshot photos --tag a").done();
    let packs = world.volume_folder().join("packs");
    let pack = walk(&packs).into_iter().next().expect("a pack");
    let mut bytes = fs::read(&pack).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).expect("written");

    let outcome = world.comb("check photos");
    assert!(outcome.out.contains("packs/"), "the pack is named: {}", outcome.out);
    outcome.refused(5, "damaged");
    let report = world.comb("check photos --json");
    assert_eq!(report.code, 5);
    let report: serde_json::Value = serde_json::from_str(&report.out).expect("JSON also on damage");
    assert!(report["damage"].as_array().is_some_and(|damage| !damage.is_empty()), "{report}");
}

/// All files below a folder.
pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn completions_and_manual_pages_come_out() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.comb(&format!("completions {shell}")).done().contains("comb"), "{shell}");
    }
    world.comb("man --out pages").done();
    for page in ["comb.1", "comb-mount.1", "comb-volume-create.1"] {
        let text = fs::read_to_string(world.path("pages").join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(!world.path("pages/comb-daemon.1").exists(), "what is hidden has no page");
    let help = world.comb("--help").done();
    assert!(help.contains("Exit codes:") && help.contains("yesterday 18:00"), "{help}");
}

/// What a device says to the commands: a message that nobody sees among the arguments, one moment of very many, and what an
/// app's volumes keep.
#[test]
fn a_message_comes_by_pipe_and_one_moment_is_asked_for_alone() {
    let world = World::new();
    world.comb("volume create photos").done();
    let take = |text: &[u8]| {
        let mut comb = world.command(["snapshot", "photos", "--message-stdin", "--tag", "told", "--json"]);
        let mut comb = comb
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it begins");
        // One that refuses what it was given reads no further.
        let _ = comb.stdin.take().expect("a pipe").write_all(text);
        comb.wait_with_output().expect("it ends")
    };
    let taken = take("before the great clean-up\n".as_bytes());
    assert!(taken.status.success(), "{taken:?}");
    let taken: serde_json::Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert_eq!(taken["snapshot"]["message"], "before the great clean-up");
    for wrong in [&b"\xff\xfe"[..], &[b'a'; 4_097]] {
        assert_eq!(take(wrong).status.code(), Some(2));
    }
    world
        .words(["snapshot", "photos", "--message", "a", "--message-stdin"])
        .refused(2, "cannot be used with");

    world.comb("snapshot photos").done();
    for at in ["told", &taken["seq"].to_string()] {
        let found = world.words(["log", "photos", "--json", "--at", at]).json();
        assert_eq!((found.as_array().map(Vec::len), &found[0]["seq"]), (Some(1), &taken["seq"]), "{at}");
    }
    for nowhere in ["never", "7000"] {
        world.words(["log", "photos", "--json", "--at", nowhere]).refused(3, "");
    }
    let policy = "keep all for 1h, 1h for 2d, 1d for 30d; keep last 3; keep tag update for 30d";
    world.words(["retain", "photos", policy]).done();
    assert!(world.comb("retain photos").done().contains("tag update for 30d"));
}
