//! Mounted volumes, end to end: a real kernel, a real daemon.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{World, is_running, wait_until};

/// Mounts the volume, which seals only when it is told to or ends, and waits until it is there.
fn in_foreground(world: &World) -> Child {
    let daemon = world
        .command(["mount", "photos", "mount", "--foreground", "--seal-every", "0"])
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    wait_until("mounting", || world.volume_folder().join("control").exists());
    daemon
}

/// The process that serves the volume.
fn daemon_of(world: &World) -> String {
    world.comb("status photos --json").json()[0]["mounts"][0]["pid"].to_string()
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
}

#[test]
fn the_past_of_a_mount_stays_open() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();

    fs::create_dir(mount.join("2026")).expect("a folder");
    fs::write(mount.join("2026/a.txt"), "first").expect("a file");
    fs::write(mount.join("gone"), "soon").expect("a file");
    let uuid = world.comb("snapshot photos --tag v1").done();
    fs::write(mount.join("2026/a.txt"), "second").expect("a change");
    fs::write(mount.join("new"), "").expect("a file");
    fs::remove_file(mount.join("gone")).expect("a removal");

    assert_eq!(world.comb("diff photos@v1").done(), "M 2026/a.txt\nD gone\nA new\n");
    assert_eq!(world.comb("cat photos@v1:2026/a.txt").done(), "first");
    assert_eq!(world.comb("cat photos:2026/a.txt").done(), "second", "now is what was just written");
    assert_eq!(world.comb("ls photos@v1:").done(), "2026/\ngone\n");
    let versions = world.comb("log photos 2026/a.txt --json").json();
    assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");
    let removed = world.comb("log photos gone --json").json();
    assert_eq!(removed[0]["exists"], false, "{removed}");

    let through = mount.join(".snapshots/v1/2026/a.txt");
    assert_eq!(fs::read_to_string(through).expect("the past is a folder"), "first");
    let beside = world.volume_folder().join("snapshots").join(uuid.trim()).join("2026/a.txt");
    assert_eq!(fs::read_to_string(beside).expect("the past lies beside the data"), "first");

    let at = world.dir("at");
    world.comb("mount photos at --at v1").done();
    assert_eq!(fs::read_to_string(at.join("2026/a.txt")).expect("the moment"), "first");
    assert!(fs::write(at.join("x"), "").is_err(), "the past does not change");
    world.comb("unmount at").done();

    world.comb("unmount mount").done();
    assert_eq!(fs::read_dir(&mount).expect("the mount point").count(), 0);
    world.comb("rollback photos@v1").done();
    world.comb("mount photos mount").done();
    assert_eq!(fs::read_to_string(mount.join("gone")).expect("back again"), "soon");
    world.comb("unmount mount").done();
    world.comb("check photos").done();
}

#[test]
fn a_change_is_told_by_every_name_of_a_file() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::write(mount.join("first"), "before").expect("a file");
    fs::hard_link(mount.join("first"), mount.join("second")).expect("another name");
    world.comb("snapshot photos --tag v1").done();
    fs::write(mount.join("second"), "after").expect("a change");

    assert_eq!(world.comb("diff photos@v1").done(), "M first\nM second\n");
    let versions = world.comb("log photos first --json").json();
    assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");
    world.comb("unmount mount").done();
}

#[test]
fn a_second_daemon_and_bad_mount_points_are_refused() {
    let world = World::new();
    world.dir("mount");
    world.dir("other");
    fs::create_dir_all(world.path("full/x")).expect("a folder");
    fs::write(world.path("file"), "").expect("a file");
    world.comb("volume create photos").done();
    world.comb("mount photos missing").refused(3, "is not there");
    world.comb("mount photos full").refused(4, "not empty");
    world.comb("mount photos file").refused(4, "not a folder");
    world.comb("mount photos other --at 9").refused(3, "no seal 9");

    world.comb("mount photos mount").done();
    world.comb("mount photos other").refused(4, "is mounted on");
    world.comb("mount photos other --foreground").refused(4, "is mounted on");
    world.comb("rollback photos@1").refused(4, "is mounted on");
    world.comb("volume remove photos --yes").refused(4, "is mounted on");
    // A daemon that skips the friendly question still meets the lock.
    let outcome = world.comb("daemon photos other");
    assert_eq!(outcome.code, 4, "{}", outcome.said);
    assert!(outcome.out.contains("in use by process"), "{}", outcome.out);

    let inside = fs::File::open(world.path("mount")).expect("somebody uses it");
    world.comb("unmount mount").refused(4, "in use");
    drop(inside);
    world.comb("unmount mount").done();
    world.comb("unmount mount").refused(3, "no volume is mounted");
}

#[test]
fn everything_about_a_tree_is_restored() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let tree = mount.join("tree");
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), "content").expect("a file");
    fs::hard_link(tree.join("file"), tree.join("twin")).expect("a second name");
    symlink("file", tree.join("link")).expect("a link");
    run("mkfifo", &[tree.join("pipe").to_str().expect("text")]);
    let sparse = fs::File::create(tree.join("sparse")).expect("a file");
    sparse.set_len(64 << 20).expect("a hole");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", 32 << 20).expect("an island");
    drop(sparse);
    fs::set_permissions(tree.join("file"), fs::Permissions::from_mode(0o604)).expect("a mode");
    run("touch", &["-d", "2001-02-03 04:05:06.789", tree.join("file").to_str().expect("text")]);
    run("touch", &["-d", "2002-03-04 05:06:07", tree.to_str().expect("text")]);
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o555)).expect("a mode");
    world.comb("snapshot photos --tag t").done();

    world.comb("restore photos@t:tree --to out").done();
    let out = world.path("out/tree");
    let stat = |name: &str| out.join(name).symlink_metadata().expect(name);
    assert_eq!(fs::read_to_string(out.join("file")).expect("the file"), "content");
    assert_eq!(stat("file").ino(), stat("twin").ino(), "two names of one file");
    assert_eq!(stat("file").mode() & 0o7777, 0o604);
    assert_eq!((stat("file").mtime(), stat("file").mtime_nsec()), (981_173_106, 789_000_000));
    assert_eq!(fs::read_link(out.join("link")).expect("the link"), Path::new("file"));
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!(stat("sparse").len(), 64 << 20);
    assert!(stat("sparse").blocks() * 512 < 1 << 20, "holes stay holes");
    let bytes = fs::read(out.join("sparse")).expect("the sparse file");
    assert_eq!(&bytes[32 << 20..(32 << 20) + 6], b"island");
    assert_eq!((stat("").mode() & 0o7777, stat("").mtime()), (0o555, 1_015_218_367));

    world.comb("restore photos@t:tree --to out").refused(4, "exists");
    fs::write(out.join("file"), "spoilt").expect("a change");
    world.comb("restore photos@t:tree --to out --force").done();
    assert_eq!(fs::read_to_string(out.join("file")).expect("the file"), "content");
    assert_eq!(fs::read_dir(&out).expect("the folder").count(), 5, "nothing is left behind");

    // Everything at once, into a folder with its own name.
    world.comb("restore photos@t:/").done();
    assert_eq!(fs::read_to_string(world.path("photos/tree/twin")).expect("the twin"), "content");
    world.comb("restore photos@t:/").refused(4, "exists");
    world.comb("unmount mount").done();
}

#[test]
fn special_files_keep_their_attributes_and_acls() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root sets attributes of special files");
        return;
    }
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::create_dir(mount.join("d")).expect("a folder");
    let there = |name: &str| mount.join("d").join(name).into_os_string().into_string().expect("text");
    run("mkfifo", &[&there("pipe")]);
    run("chmod", &["640", &there("pipe")]);
    run("setfacl", &["-m", "u:1234:rw", &there("pipe")]);
    symlink("pipe", there("link")).expect("a link");
    for name in ["pipe", "link"] {
        run("setfattr", &["-h", "-n", "trusted.test", "-v", "kept", &there(name)]);
    }
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    // /tmp may be a filesystem without attributes; what it cannot keep must then be named.
    let restored = world.comb("restore photos@t:d --to out");
    let out = |name: &str| world.path("out/d").join(name).into_os_string().into_string().expect("text");
    let has = |name: &str| {
        run_output("getfattr", &["-h", "-n", "trusted.test", "--only-values", &out(name)]) == "kept"
    };
    for name in ["pipe", "link"] {
        let named = restored.said.contains(&format!("left out: attribute trusted.test of d/{name}"));
        assert!(has(name) != named, "{name}: {}", restored.said);
    }
    let named = restored.said.contains("left out: attribute system.posix_acl_access of d/pipe");
    let kept = run_output("getfacl", &["-cn", &out("pipe")]).contains("user:1234:rw-");
    assert!(kept != named, "{}", restored.said);
    let mode = fs::metadata(out("pipe")).expect("the pipe").mode() & 0o7777;
    assert_eq!(mode, if kept { 0o660 } else { 0o640 });
}

#[test]
fn what_is_too_deep_is_left_out_and_named() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::create_dir_all(mount.join("d").join("x/".repeat(520))).expect("folders");
    fs::write(mount.join("d/z"), "after it").expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    let restored = world.comb("restore photos@t:d --to out");
    assert!(restored.said.contains("more than 512 folders deep"), "{}", restored.said);
    restored.refused(1, "1 left out");
    assert_eq!(fs::read_to_string(world.path("out/d/z")).expect("the rest"), "after it");
}

#[test]
fn what_the_target_cannot_hold_is_left_out_and_the_rest_restored() {
    const HUGE_BYTES: u64 = 20 << 40;
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::create_dir(mount.join("d")).expect("a folder");
    fs::File::create(mount.join("d/huge")).and_then(|file| file.set_len(HUGE_BYTES)).expect("a hole");
    fs::write(mount.join("d/small"), "after it").expect("a file");
    fs::set_permissions(mount.join("d"), fs::Permissions::from_mode(0o750)).expect("a mode");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    // Not every disk refuses such a file.
    let holds = fs::File::create(world.path("probe")).and_then(|file| file.set_len(HUGE_BYTES)).is_ok();
    let restored = world.comb("restore photos@t:d --to out");
    assert_eq!(restored.said.contains("left out: d/huge: File too large"), !holds, "{}", restored.said);
    assert_eq!(restored.code, i32::from(!holds), "{}", restored.said);
    assert_eq!(fs::read_to_string(world.path("out/d/small")).expect("the rest"), "after it");
    let mode = fs::metadata(world.path("out/d")).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
}

#[test]
fn names_of_one_file_stay_so_however_deep_they_lie() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    // Deeper than a path can be long.
    let script = "set -e; cd \"$0\"; mkdir d; cd d; for i in $(seq 20); do mkdir \"$1\"; cd -P \"$1\"; done; echo x >a; ln a b";
    let part = "n".repeat(250);
    run("sh", &["-c", script, mount.to_str().expect("text"), &part]);
    fs::write(mount.join("d/z"), "after it").expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    world.comb("restore photos@t:d --to out").done();
    let script =
        "set -e; cd \"$0/d\"; for i in $(seq 20); do cd -P \"$1\"; done; test a -ef b; test \"$(cat b)\" = x";
    run("sh", &["-c", script, world.path("out").to_str().expect("text"), &part]);
    assert_eq!(fs::read_to_string(world.path("out/d/z")).expect("the rest"), "after it");
}

#[test]
fn a_folder_that_was_there_keeps_its_mode_and_times() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::write(mount.join("file"), "content").expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    let there = world.dir("there");
    fs::set_permissions(&there, fs::Permissions::from_mode(0o1777)).expect("a mode");
    world.comb("restore photos@t:/ --to there").done();
    assert!(there.join("file").exists());
    assert_eq!(fs::metadata(&there).expect("a folder").permissions().mode() & 0o7777, 0o1777);
    world.comb("restore photos@t:/ --to there --force").done();
    assert_eq!(fs::metadata(&there).expect("a folder").permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_killed_restore_leaves_no_part_of_a_file_under_its_name() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::create_dir(mount.join("d")).expect("a folder");
    let mut noise = vec![0; 64 << 20];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut noise)).expect("chance");
    fs::write(mount.join("d/large"), &noise).expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    let mut restore = world.command(["restore", "photos@t:d", "--to", "out"]).spawn().expect("started");
    let folder = world.path("out/d");
    wait_until("beginning", || fs::read_dir(&folder).is_ok_and(|mut names| names.next().is_some()));
    restore.kill().expect("killed");
    restore.wait().expect("ends");
    // Either it was killed in time, or it was done.
    if let Ok(bytes) = fs::read(folder.join("large")) {
        assert!(bytes == noise, "part of a file has its name");
    }
    world.comb("restore photos@t:d --to out --force").done();
    assert!(fs::read(folder.join("large")).expect("the file") == noise);
}

#[test]
fn restoring_follows_no_link_out_of_its_target() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::create_dir(mount.join("d")).expect("a folder");
    fs::write(mount.join("d/file"), "restored").expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    fs::create_dir(world.path("outside")).expect("a folder");
    fs::write(world.path("outside/file"), "precious").expect("a file");
    let out = world.dir("out");
    symlink(world.path("outside"), out.join("d")).expect("a trap");
    world.comb("restore photos@t:d --to out --force").refused(4, "in the way");
    assert_eq!(fs::read_to_string(world.path("outside/file")).expect("the file"), "precious");

    fs::remove_file(out.join("d")).expect("removed");
    fs::create_dir(out.join("d")).expect("a folder");
    symlink(world.path("outside/file"), out.join("d/file")).expect("a trap");
    world.comb("restore photos@t:d --to out --force").done();
    assert_eq!(fs::read_to_string(world.path("outside/file")).expect("the file"), "precious");
    assert!(out.join("d/file").symlink_metadata().expect("metadata").is_file(), "the link was replaced");
}

#[test]
fn mount_points_that_only_read_alike_stay_apart() {
    let world = World::new();
    let points = [&b"mount\xff"[..], b"mount\xfe"].map(OsStr::from_bytes);
    for (name, point) in ["photos", "mail"].into_iter().zip(points) {
        fs::create_dir(world.path(".").join(point)).expect("a folder");
        world.words(["volume", "create", name]).done();
        world.words([OsStr::new("mount"), OsStr::new(name), point]).done();
    }
    let is_mounted = |name: &str| {
        let status = world.words(["status", name, "--json"]).json();
        !status[0]["mounts"].as_array().expect("a list").is_empty()
    };
    // In the order that puts the other one first.
    world.words([OsStr::new("unmount"), points[0]]).done();
    assert_eq!((is_mounted("photos"), is_mounted("mail")), (false, true));
    world.words([OsStr::new("unmount"), points[1]]).done();
    assert!(!is_mounted("mail"));
}

#[test]
fn a_killed_daemon_is_followed_by_a_new_one() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let pid = daemon_of(&world);
    let mut file = fs::File::create(mount.join("a")).expect("a file");
    file.write_all(b"synced").expect("written");
    file.sync_all().expect("synced");
    drop(file);
    fs::File::open(&mount).and_then(|folder| folder.sync_all()).expect("its name, too");

    run("kill", &["-9", &pid]);
    wait_until("dying", || !is_running(&pid));
    assert_eq!(world.comb("status photos --json").json()[0]["mounts"].as_array().map(Vec::len), Some(0));
    // What the journal held is there for commands, and the dead mount is cleared away by the next.
    assert_eq!(world.comb("cat photos:a").done(), "synced");
    world.comb("mount photos mount").done();
    assert_eq!(fs::read_to_string(mount.join("a")).expect("the file"), "synced");
    world.comb("unmount mount").done();
}

#[test]
fn a_signal_unmounts_and_seals() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    let mut daemon = in_foreground(&world);
    fs::write(mount.join("a"), "kept").expect("a file");
    run("kill", &["-TERM", &daemon.id().to_string()]);
    assert!(daemon.wait().expect("its end").success());
    assert_eq!(fs::read_dir(&mount).expect("the mount point").count(), 0, "unmounted");
    // Sealed: the past alone, which reads no journal, has it.
    assert_eq!(world.comb("cat photos@head:a").done(), "kept");
}

#[test]
fn a_signal_seals_what_is_written_until_the_daemon_ends() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    let mut daemon = in_foreground(&world);
    let mut file = fs::File::create(mount.join("a")).expect("a file");
    file.write_all(b"before").expect("written");
    run("kill", &["-TERM", &daemon.id().to_string()]);
    // The daemon waits for some seconds; the kernel by itself would keep these pages for 30.
    let mut written = String::from("before");
    let begun = Instant::now();
    for step in 0.. {
        thread::sleep(Duration::from_millis(100));
        // Less than it waits, also where each step takes long.
        if begun.elapsed() > Duration::from_millis(2500) {
            break;
        }
        let text = format!(" {step}");
        file.write_all(text.as_bytes()).expect("served until the end");
        written.push_str(&text);
    }
    assert!(daemon.wait().expect("its end").success());
    assert_eq!(fs::read_dir(&mount).expect("the mount point").count(), 0, "detached");
    assert_eq!(world.comb("cat photos@head:a").done(), written);
    assert!(file.sync_all().is_err(), "who still uses it is told");
}

#[test]
fn a_signal_waits_no_longer_than_the_last_user() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    let mut daemon = in_foreground(&world);
    let mut file = fs::File::create(mount.join("a")).expect("a file");
    run("kill", &["-TERM", &daemon.id().to_string()]);
    thread::sleep(Duration::from_millis(800));
    assert!(daemon.try_wait().expect("its state").is_none(), "somebody uses it");
    file.write_all(b"last words").expect("written");
    drop(file);
    assert!(daemon.wait().expect("its end").success());
    assert_eq!(world.comb("cat photos@head:a").done(), "last words");
}

/// The process that fetches the kernel's pages for a daemon.
fn hand_of(daemon: &str) -> Option<String> {
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("the daemon's threads");
    let mut children = threads.flatten().flat_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    children
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "comb-push\n"))
}

#[test]
fn a_killed_hand_is_followed_by_a_new_one() {
    // SAFETY: takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED, LOUDLY: only root has pages fetched");
        return;
    }
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let daemon = daemon_of(&world);
    let mut file = fs::File::create(mount.join("a")).expect("a file");
    for round in ["one", "two", "three"] {
        file.write_all(round.as_bytes()).expect("written");
        world.comb("snapshot photos").done();
        let hand = hand_of(&daemon).expect("it stays while somebody writes");
        run("kill", &["-9", &hand]);
    }
    assert_eq!(world.comb("cat photos@head:a").done(), "onetwothree");
    drop(file);
    world.comb("unmount mount").done();
}

#[test]
fn a_renamed_folder_loses_nothing_that_a_killed_daemon_had_a_second_for() {
    let world = World::new();
    world.dir("outer");
    let mount = world.dir("outer/mount");
    world.comb("volume create photos").done();
    world.comb("mount photos outer/mount").done();
    let pid = daemon_of(&world);
    let mut file = fs::File::create(mount.join("a")).expect("a file");
    fs::rename(world.path("outer"), world.path("renamed")).expect("renamed");
    file.write_all(b"written").expect("written");
    world.comb("snapshot photos").done();
    assert_eq!(world.comb("cat photos@head:a").done(), "written");
    file.write_all(b" on").expect("written");
    let dirty = || world.comb("status photos --json").json()[0]["mounts"][0]["dirty_bytes"].as_u64();
    wait_until("the kernel's pages", || dirty() > Some(0));
    thread::sleep(Duration::from_millis(2500));
    run("kill", &["-9", &pid]);
    wait_until("dying", || !is_running(&pid));
    drop(file);
    assert_eq!(world.comb("cat photos:a").done(), "written on");
    run("umount", &[world.path("renamed/mount").to_str().expect("text")]);
}

#[test]
fn unmounting_from_outside_seals_too() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --seal-every 0").done();
    fs::write(mount.join("a"), "kept").expect("a file");
    run("umount", &[mount.to_str().expect("text")]);
    wait_until("sealing", || !world.volume_folder().join("control").exists());
    assert_eq!(world.comb("cat photos@head:a").done(), "kept");
    world.comb("volume remove photos --yes").done();
}

#[test]
fn without_a_folder_a_volume_mounts_on_its_own_data() {
    let world = World::new();
    world.comb("volume create photos").done();
    let point = world.comb("mount photos").done();
    let data = world.volume_folder().join("data");
    assert_eq!(Path::new(point.trim()), data.canonicalize().expect("the folder"));
    fs::write(data.join("a"), "x").expect("a file");
    let uuid = world.comb("snapshot photos").done();
    let past = world.volume_folder().join("snapshots").join(uuid.trim());
    assert_eq!(fs::read_to_string(past.join("a")).expect("the past"), "x");
    world.comb(&format!("unmount {}", data.display())).done();
    assert_eq!(fs::read_dir(&data).expect("the folder").count(), 0);
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --read-only").done();
    assert!(fs::write(mount.join("a"), "").is_err());
    let status = world.comb("status photos --json").json();
    assert_eq!(status[0]["mounts"][0]["read_only"], true);
    assert!(status[0]["mounts"][0]["trouble"].is_null(), "nothing is wrong with it");
    world.comb("unmount mount").done();
    assert_eq!(
        world.comb("log photos --json").json().as_array().map(Vec::len),
        Some(1),
        "nothing was sealed"
    );
}

#[test]
fn now_is_told_from_the_newest_seal_where_nothing_can_be_sealed() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --seal-every 0").done();
    fs::create_dir(mount.join("sealed")).expect("a folder");
    world.comb("snapshot photos").done();
    let pid = daemon_of(&world);
    // No data, only a name: that is unsealed too.
    fs::create_dir(mount.join("unsealed")).expect("a folder");
    fs::File::open(&mount).and_then(|folder| folder.sync_all()).expect("synced");
    run("kill", &["-9", &pid]);
    wait_until("dying", || rustix::fs::statfs(&mount).is_err());
    world.comb("mount photos mount --read-only").done();
    let listed = world.comb("ls photos:");
    assert_eq!(listed.out, "sealed/\n");
    listed.refused(8, "read-only");
    world.comb("unmount mount").done();

    assert_eq!(world.comb("ls photos:").done(), "sealed/\nunsealed/\n");
    world.comb("mount photos mount --read-only").done();
    assert_eq!(world.comb("ls photos:").done(), "sealed/\nunsealed/\n", "nothing is unsealed");
    world.comb("unmount mount").done();
}

#[test]
fn a_full_quota_is_told_and_can_be_emptied() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos --quota 16M").done();
    world.comb("mount photos mount").done();
    let mut big = fs::File::create(mount.join("big")).expect("a file");
    let block = [7; 64 << 10];
    let mut taken = 0;
    let refused = loop {
        match big.write_all(&block) {
            Ok(()) => taken += block.len(),
            Err(error) => break error,
        }
        assert!(taken <= 64 << 20, "`write` tells");
    };
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    big.sync_all().expect("what `write` took is kept");
    drop(big);
    assert!(fs::read(mount.join("big")).expect("reads") == vec![7; taken]);
    fs::remove_file(mount.join("big")).expect("deleting works");
    fs::write(mount.join("small"), "fits").expect("goes on");
    world.comb("unmount mount").done();
    assert_eq!(world.comb("cat photos@head:small").done(), "fits");
}

#[test]
fn a_file_without_a_name_lives_as_long_as_somebody_holds_it_and_no_longer() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    // What `statfs` counts as used.
    let used = || run_output("stat", &["-f", "-c", "%c %d", mount.to_str().expect("UTF-8")]);
    let empty = used();
    let held = |name: &str| {
        fs::write(mount.join(name), "still here").expect("writes");
        // Not open, only held: the kernel asks the daemon nothing.
        let held = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(mount.join(name))
            .expect("takes hold");
        fs::remove_file(mount.join(name)).expect("removes");
        held
    };
    let first = held("first");
    let again = format!("/proc/self/fd/{}", first.as_raw_fd());
    assert_eq!(fs::read_to_string(&again).expect("opens again"), "still here");
    assert_eq!(first.metadata().expect("stats").nlink(), 0);
    assert_ne!(used(), empty);
    drop(first);
    wait_until("freeing", || used() == empty);

    // Nobody is left to say that it is not held any more.
    let second = held("second");
    fs::File::open(&mount).and_then(|folder| folder.sync_all()).expect("syncs");
    let pid = daemon_of(&world);
    run("kill", &["-9", &pid]);
    wait_until("dying", || !is_running(&pid));
    drop(second);
    world.comb("mount photos mount").done();
    wait_until("freeing", || used() == empty);
    world.comb("unmount mount").done();
    world.comb("check photos").done();
}

/// The state on an ext4 of its own, so that the disk really fills up.
#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    // SAFETY: takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED, LOUDLY: only root can mount a small disk, so a full one was not tested");
        return;
    }
    let world = World::new();
    let (mount, disk, image) = (world.dir("mount"), world.dir("state"), world.path("image"));
    fs::File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("a sparse file");
    let (disk, image) = (disk.to_str().expect("UTF-8"), image.to_str().expect("UTF-8"));
    run("mkfs.ext4", &["-q", image]);
    run("mount", &["-o", "loop", image, disk]);
    run("fallocate", &["-l", "100M", &format!("{disk}/ballast")]);
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    fs::write(mount.join("first"), "soon gone").expect("writes");

    let mut big = fs::File::create(mount.join("big")).expect("a file");
    // No compression makes it smaller, and no two blocks are the same.
    let mut chance = fs::File::open("/dev/urandom").expect("opens");
    let mut block = vec![0; 64 << 10];
    let mut taken = 0;
    let refused = loop {
        chance.read_exact(&mut block).expect("reads");
        match big.write_all(&block) {
            Ok(()) => taken += block.len() as u64,
            Err(error) => break error,
        }
        assert!(taken <= 400 << 20, "`write` tells");
    };
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    big.sync_all().expect("what `write` took is kept");
    fs::remove_file(mount.join("first")).expect("deleting works");
    fs::remove_file(format!("{disk}/ballast")).expect("makes room");
    let goes_on = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        fs::File::create(mount.join("small"))
            .and_then(|mut file| file.write_all(b"fits").and_then(|()| file.sync_all()))
            .is_ok()
    });
    assert!(goes_on, "when there is room");
    drop(big);
    world.comb("unmount mount").done();
    world.comb("mount photos mount").done();
    assert_eq!(fs::metadata(mount.join("big")).expect("stats").len(), taken);
    world.comb("unmount mount").done();
    assert_eq!(world.comb("cat photos@head:small").done(), "fits");
    world.comb("check photos").done();
}

/// As root this becomes nobody, in a mount namespace where everybody may open /dev/fuse; as an ordinary
/// user all tests here show the same.
#[test]
fn an_ordinary_user_mounts_with_the_helper() {
    if !run_output("id", &["-u"]).starts_with("0\n") {
        return;
    }
    let world = World::new();
    let script = r#"
        set -e
        mknod -m 666 fuse c 10 229
        mount --bind fuse /dev/fuse
        chmod 755 .
        cp "$COMB" comb
        mkdir user && chown nobody user && cd user
        as_user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
        comb() { as_user ../comb --state state "$@"; }
        comb volume create photos
        as_user mkdir mount at
        comb mount photos mount
        as_user sh -c 'echo mine > mount/a'
        comb snapshot photos --tag t
        as_user cat mount/.snapshots/t/a
        comb mount photos at --at t
        as_user cat at/a
        comb unmount at
        comb unmount mount
        comb cat photos@t:a
        ! comb mount photos mount --allow-other
        cd .. && mkdir foreign
        ! as_user ./comb --state user/state mount photos foreign
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .current_dir(world.dir("."))
        .env("COMB", env!("CARGO_BIN_EXE_comb"))
        .output()
        .expect("unshare starts");
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{said}");
    assert_eq!(out.matches("mine\n").count(), 3, "{out}{said}");
    assert!(said.contains("user_allow_other"), "the hint names the setting: {said}");
    let (_, refused) = said.split_once("no write access").expect("a mount point of somebody else is refused");
    assert!(refused.contains("hint: a mount point must be yours"), "{said}");
}

fn run_output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("the program starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_is_damaged_is_left_out_and_the_rest_restored() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let mut noise = vec![0; 1 << 20];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut noise)).expect("chance");
    fs::create_dir(mount.join("d")).expect("a folder");
    fs::write(mount.join("d/lost"), &noise).expect("a file");
    fs::write(mount.join("d/whole"), "whole").expect("a file");
    world.comb("snapshot photos --tag t").done();
    world.comb("unmount mount").done();

    // The largest pack holds the noise.
    let packs = crate::volumes::walk(&world.volume_folder().join("packs"));
    let largest = packs.into_iter().max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()));
    let largest = largest.expect("a pack");
    let mut bytes = fs::read(&largest).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("written");

    world.comb("cat photos@t:d/lost").refused(5, "d/lost");
    world.comb("check photos").refused(5, "damaged");
    let restored = world.comb("restore photos@t:d --to out");
    assert!(restored.said.contains("left out: d/lost"), "{}", restored.said);
    restored.refused(5, "1 left out");
    assert_eq!(fs::read_to_string(world.path("out/d/whole")).expect("the other file"), "whole");
    assert!(!world.path("out/d/lost").exists(), "half a file would look like a whole one");
}

#[test]
fn a_daemon_killed_while_it_collects_pages_takes_nobody_with_it() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    for round in 0..16 {
        world.comb("mount photos mount").done();
        let pid = daemon_of(&world);
        let file = fs::File::create(mount.join("a")).expect("a file");
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let page = vec![7; 256 << 10];
            for step in 0_u64.. {
                let written = file.write_all_at(&page, step * 7919 % 256 * (256 << 10));
                // The kernel takes pages for a dead mount as well, and says so when they are to be kept.
                if written.and_then(|()| if step % 64 == 63 { file.sync_data() } else { Ok(()) }).is_err() {
                    break;
                }
            }
            drop(file);
            let _ = ended.send(());
        });
        thread::sleep(Duration::from_millis(30));
        let mut snapshot =
            world.command(["snapshot", "photos"]).stderr(Stdio::null()).spawn().expect("started");
        thread::sleep(Duration::from_millis(8 + 3 * round));
        run("kill", &["-9", &pid]);
        end.recv_timeout(Duration::from_secs(60)).expect("a writer is told that the mount is gone");
        snapshot.wait().expect("ends");
    }
    world.comb("mount photos mount").done();
    world.comb("unmount mount").done();
    world.comb("check photos").done();
}

/// More connections than a daemon serves at a time, which say nothing.
fn idle_connections(folder: &Path, socket: &str) -> Vec<UnixStream> {
    // The address of a socket is short, and that of the folder may be long.
    let folder = fs::File::open(folder).expect("the folder of the socket");
    let path = format!("/proc/self/fd/{}/{socket}", folder.as_raw_fd());
    (0..100).map(|_| UnixStream::connect(&path).expect("connected")).collect()
}

#[test]
fn a_crowd_of_commands_is_answered_in_turn() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --seal-every 0").done();
    let start = |line: &str| {
        let mut command = world.command(line.split(' '));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
    };
    let children: Vec<_> = (0..70)
        .flat_map(|i| [Some(start("snapshot photos")), (i % 2 == 0).then(|| start("status photos"))])
        .flatten()
        .collect();
    let mut snapshots = 0;
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        assert!(!out.contains("not mounted"), "{out}");
        snapshots += usize::from(said.starts_with("snapshot "));
    }
    assert_eq!(snapshots, 70);
    let log = world.comb("log photos --json").json();
    assert_eq!(
        log.as_array().map_or(0, |moments| moments.iter().filter(|seal| !seal["snapshot"].is_null()).count()),
        70
    );
    world.comb("unmount mount").done();
}

#[test]
fn connections_that_say_nothing_hide_no_mount() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let folder = world.volume_folder();
    let crowd = || idle_connections(&folder, "control");

    let idle = crowd();
    assert!(world.comb("status photos").done().contains("mounted on"));
    drop((idle, crowd()));
    for (line, code) in [("check photos", 0), ("volume remove photos --yes", 4), ("rollback photos@1", 4)] {
        let _idle = crowd();
        let outcome = world.comb(line);
        assert_eq!(outcome.code, code, "{line}: {}", outcome.said);
        assert!(code == 0 || outcome.said.contains("is mounted on"), "{line}: {}", outcome.said);
    }
    let idle = crowd();
    world.comb("unmount mount").done();
    drop(idle);
    world.comb("check photos").done();

    world.comb("mount photos mount --at 1").done();
    let views = folder.join("views");
    let view = fs::read_dir(&views).expect("the views").next().expect("one").expect("an entry").file_name();
    let _idle = idle_connections(&views, view.to_str().expect("a number"));
    world.comb("volume remove photos --yes").refused(4, "is mounted on");
    world.comb("unmount mount").done();
    world.comb("volume remove photos --yes").done();
}

#[test]
fn a_view_that_cannot_be_asked_keeps_its_volume() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --at 1").done();
    let views = world.volume_folder().join("views");
    let view = fs::read_dir(&views).expect("the views").next().expect("one").expect("an entry").path();
    fs::remove_file(&view).expect("its socket is gone");
    world.comb("volume remove photos --yes").refused(4, "a moment of it is mounted");
    world.comb("unmount mount").done();
    wait_until("removing", || world.comb("volume remove photos --yes").code == 0);
}

#[test]
fn a_daemon_that_is_ending_is_told_as_that_and_waited_for() {
    let world = World::new();
    for folder in ["mount", "store"] {
        world.dir(folder);
    }
    world.comb("volume create photos").done();
    world.comb(&format!("store add photos file://{}", world.path("store").display())).done();
    world.comb("mount photos mount").done();
    world.comb("sync photos --wait").done();
    // What was written last goes nowhere, which an unmount waits for.
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    fs::write(world.path("mount/a"), "last").expect("written");
    let unmounted = Command::new("umount").arg(world.path("mount")).status().expect("umount starts");
    assert!(unmounted.success());

    wait_until("ending", || !world.comb("status photos").out.contains("mounted on"));
    let status = world.comb("status photos");
    assert!(status.out.contains("not mounted any more") && status.out.contains("30 s"), "{}", status.out);
    let json: serde_json::Value =
        serde_json::from_str(&world.comb("status photos --json").out).expect("JSON");
    assert_eq!(json[0]["mounts"][0]["ending"], true, "{json}");
    let refused = world.comb("mount photos mount");
    assert!(refused.said.contains("`comb unmount ") && refused.said.contains("30 s"), "{}", refused.said);
    refused.refused(4, "volume \"photos\" is unmounted, and its daemon ends");
    world.comb("rollback photos@1").refused(4, "is unmounted, and its daemon ends");

    // Whoever unmounts now waits as the first does.
    let waited = world.comb("unmount mount");
    assert!(waited.said.contains("is unmounted already: its daemon ends"), "{}", waited.said);
    waited.done();
    world.comb("unmount mount").refused(3, "no volume is mounted");
    fs::rename(world.path("away"), world.path("store")).expect("moved");
    world.comb("mount photos mount").done();
    assert_eq!(fs::read(world.path("mount/a")).expect("sealed"), b"last");
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
}
