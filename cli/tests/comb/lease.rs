//! Mounts that take changes for so long only (`comb mount --lease`).

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::watching::add_store;
use crate::world::{World, wait_until};

/// Milliseconds of `CLOCK_BOOTTIME`.
fn boottime_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a whole timespec; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn mount_of(world: &World) -> Value {
    let outcome = world.comb("status photos --json");
    let list: Value = serde_json::from_str(&outcome.out).expect("--json prints JSON");
    list[0]["mounts"][0].clone()
}

fn wait_for_the_end(world: &World) {
    wait_until("the end of the lease", || mount_of(world)["lease"]["over"] == json!(true));
}

/// A volume `photos`, and the folder on which it is mounted with this lease.
fn mounted(lease: &str) -> (World, std::path::PathBuf) {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb(&format!("mount photos mount --lease {lease}")).done();
    (world, mount)
}

fn synced(path: &Path, text: &str) {
    let mut file = File::create(path).expect("a file");
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).expect("synced");
}

#[track_caller]
fn refused<T>(what: &str, done: std::io::Result<T>) {
    match done {
        Ok(_) => panic!("{what} was done after the end"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{what}: {error}"),
    }
}

#[test]
fn after_the_end_of_its_lease_a_mount_takes_no_change_of_any_kind() {
    let (world, mount) = mounted("4s");
    for name in ["a", "b", "c"] {
        synced(&mount.join(name), "before");
    }
    fs::create_dir(mount.join("dir")).expect("a folder");
    let mut open = OpenOptions::new().append(true).open(mount.join("a")).expect("opened");
    let mut direct =
        OpenOptions::new().append(true).custom_flags(libc::O_SYNC).open(mount.join("b")).expect("opened");
    let report = mount_of(&world);
    assert_eq!(report["lease"]["over"], json!(false), "{report}");
    assert!(report["lease"]["left_ms"].as_u64().is_some_and(|ms| ms > 0 && ms <= 4000), "{report}");

    wait_for_the_end(&world);
    refused("a write", open.write_all(b"after"));
    refused("a write that syncs", direct.write_all(b"after"));
    refused("fsync", open.sync_all());
    refused("fsync of a folder", File::open(&mount).expect("opened").sync_all());
    refused("truncating", open.set_len(1));
    refused("opening to write", OpenOptions::new().write(true).open(mount.join("c")));
    refused("making a file", File::create(mount.join("new")));
    refused("making a folder", fs::create_dir(mount.join("new")));
    refused("making a link", fs::hard_link(mount.join("a"), mount.join("new")));
    refused("making a symbolic link", std::os::unix::fs::symlink("a", mount.join("new")));
    refused("renaming", fs::rename(mount.join("a"), mount.join("new")));
    refused("removing a file", fs::remove_file(mount.join("a")));
    refused("removing a folder", fs::remove_dir(mount.join("dir")));
    let read_only = fs::Permissions::from_mode(0o400);
    refused("changing the mode", fs::set_permissions(mount.join("a"), read_only));

    // Looking and reading go on, also at the end of what is there.
    for name in ["a", "b", "c"] {
        let mut text = String::new();
        File::open(mount.join(name)).and_then(|mut file| file.read_to_string(&mut text)).expect("read");
        assert_eq!(text, "before");
        assert_eq!(fs::metadata(mount.join(name)).expect("looked at").len(), 6);
    }
    // Somebody who looks does not let writers write again.
    refused("a write behind a look", open.write_all(b"after"));

    // What the journal holds is sealed at once.
    wait_until("the last seal", || mount_of(&world)["sealed"] == json!(true));
    let report = mount_of(&world);
    assert_eq!(
        (&report["read_only"], &report["trouble"]),
        (&json!(true), &json!("its lease ended")),
        "{report}"
    );
    world.comb("snapshot photos").refused(8, "its lease ended");
    world.words(["retain", "photos", "keep last 3"]).refused(8, "read-only");
    for end in ["1h", "none"] {
        world.comb(&format!("lease photos {end}")).refused(8, "cannot be moved any more");
    }
    drop((open, direct));
    world.comb("unmount mount").done();
    assert_eq!(world.comb("cat photos:/a").done(), "before");
    world.comb("check photos").done();

    // Whether this machine may go on is the business of who mounts.
    world.comb("mount photos mount").done();
    synced(&mount.join("a"), "again");
    world.comb("unmount mount").done();
}

#[test]
fn an_end_is_moved_on_by_who_may_and_never_back() {
    let (world, mount) = mounted("3s");
    let begun = boottime_ms();
    // As a device does it: a line of JSON on the socket of the mount's daemon.
    let ask = |request: Value| {
        let mut socket =
            UnixStream::connect(world.volume_folder().join("control")).expect("a daemon listens");
        writeln!(socket, "{request}").expect("sent");
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).expect("answered");
        serde_json::from_str::<Value>(&answer).expect("an answer is JSON")
    };
    let end = begun + 60_000;
    let told = ask(json!({"do": "lease", "end_boottime_ms": end}))["done"].clone();
    assert_eq!((&told["end_boottime_ms"], &told["over"]), (&json!(end), &json!(false)), "{told}");
    let earlier = world.comb(&format!("lease photos @{} --json", end - 30_000)).json();
    assert_eq!(earlier["end_boottime_ms"], json!(end), "it moved back");
    world.comb(&format!("lease photos @{begun}")).refused(2, "passed");
    assert!(world.comb("lease photos").done().contains(" s more"));
    wait_until("the first end", || boottime_ms() > begun + 3_500);
    synced(&mount.join("a"), "behind the first end");

    assert_eq!(ask(json!({"do": "no-lease"})), json!({"done": null}));
    assert!(mount_of(&world)["lease"].is_null());
    assert!(world.comb("lease photos").done().contains("without an end"));
    // A mount without one gets one, as an app whose policy changes.
    let told = world.comb("lease photos 1s --json").json();
    assert!(told["left_ms"].as_u64().is_some_and(|ms| ms <= 1000), "{told}");
    wait_for_the_end(&world);
    refused("a write", fs::write(mount.join("a"), "after"));
    assert!(ask(json!({"do": "lease", "end_boottime_ms": end}))["failed"]["message"].is_string());
    world.comb("unmount mount").done();
    world.comb("lease photos 1s").refused(3, "not mounted");
}

/// What is acknowledged, and when.
struct Acknowledged {
    count: u64,
    last_ms: u64,
}

/// Appends numbers until that is refused.
fn append_until_refused(path: &Path, is_synced: bool) -> Acknowledged {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    let (mut count, mut last_ms) = (0, 0);
    loop {
        let line = format!("{:08}\n", count + 1);
        let done =
            file.write_all(line.as_bytes()).and_then(|()| if is_synced { file.sync_data() } else { Ok(()) });
        let now = boottime_ms();
        match done {
            Ok(()) => (count, last_ms) = (count + 1, now),
            Err(_) => return Acknowledged { count, last_ms },
        }
        if !is_synced {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn nothing_is_acknowledged_after_the_end_and_what_was_is_there() {
    let (world, mount) = mounted("3s");
    let end = mount_of(&world)["lease"]["end_boottime_ms"].as_u64().expect("an end");
    let (synced, taken) = std::thread::scope(|scope| {
        let synced: Vec<_> = (0..4)
            .map(|number| {
                let path = mount.join(format!("synced{number}"));
                scope.spawn(move || append_until_refused(&path, true))
            })
            .collect();
        let taken = scope.spawn(|| append_until_refused(&mount.join("taken"), false));
        let synced: Vec<_> = synced.into_iter().map(|one| one.join().expect("it ended")).collect();
        (synced, taken.join().expect("it ended"))
    });
    // The daemon looks at the clock before it answers; then the writer has to wake up on a busy machine.
    let late = |last_ms: u64| last_ms.saturating_sub(end);
    for one in &synced {
        assert!(one.count > 0 && late(one.last_ms) <= 100, "{} ms after the end", late(one.last_ms));
    }
    // The kernel answers these by itself, until it was told.
    assert!(taken.count > 0 && late(taken.last_ms) <= 1000, "{} ms after the end", late(taken.last_ms));
    world.comb("unmount mount").done();
    for (number, one) in synced.iter().enumerate() {
        let text = world.comb(&format!("cat photos:/synced{number}")).done();
        let lines: Vec<u64> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert!(lines.len() as u64 >= one.count, "{} of {} are there", lines.len(), one.count);
        assert!(lines.iter().zip(1..).all(|(line, number)| *line == number), "there is a hole");
    }
}

#[test]
fn a_daemon_that_slept_through_the_end_answers_nothing_that_waited_for_it() {
    let (world, mount) = mounted("3s");
    let pid = mount_of(&world)["pid"].to_string().parse().expect("a number");
    let end = mount_of(&world)["lease"]["end_boottime_ms"].as_u64().expect("an end");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(libc::O_SYNC)
        .open(mount.join("a"))
        .expect("opened");
    file.write_all(b"before").expect("written");
    // Not by a command: the file that is open here is closed once more when one is started, and that waits for the daemon.
    let kill = |signal| {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, signal).expect("it is there");
    };
    kill(rustix::process::Signal::STOP);
    let in_time = boottime_ms() < end;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| file.write_all(b" and while it slept"));
        wait_until("the end", || boottime_ms() > end + 100);
        let is_waiting = !writing.is_finished();
        kill(rustix::process::Signal::CONT);
        assert!(is_waiting, "somebody answered for the daemon");
        let written = writing.join().expect("it ended");
        assert!(written.is_err(), "a write was answered for after the end");
    });
    drop(file);
    assert!(in_time, "the machine is too slow for this test");
    wait_for_the_end(&world);
    world.comb("unmount mount").done();
    assert!(world.comb("cat photos:/a").done().starts_with("before"));
}

/// How many seals the store in this folder has.
fn slots(world: &World) -> usize {
    let volume =
        fs::read_dir(world.path("home/v")).expect("volumes").next().expect("one").expect("an entry").path();
    fs::read_dir(volume.join("m")).map_or(0, Iterator::count)
}

#[test]
fn nothing_is_sent_to_a_store_after_the_end_and_it_is_not_lost() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    world.comb("sync photos --wait").done();
    world.comb("mount photos mount --seal-every 0 --lease 4s").done();
    synced(&mount.join("a"), "sent");
    world.comb("sync photos --wait").done();
    let sent = slots(&world);
    synced(&mount.join("b"), "not sent");
    assert_eq!(mount_of(&world)["lease"]["over"], json!(false), "the machine is too slow for this test");

    wait_for_the_end(&world);
    // What the journal held is sealed at once.
    wait_until("the last seal", || mount_of(&world)["sealed"] == json!(true));
    let report = mount_of(&world);
    let store = &report["stores"][0];
    assert_eq!((&store["state"], &store["replicated_seq"]), (&json!("lease-over"), &json!(sent)), "{report}");
    assert!(
        report["head"]["seq"].as_u64() > Some(sent as u64) && store["unsafe_bytes"].as_u64() > Some(0),
        "{report}"
    );
    world.comb("status photos").refused(9, "its lease ended");
    world.comb("sync photos --wait --limit 5s").refused(8, "its lease ended");
    // Also after the config is taken over anew, which begins with the stores anew.
    let rate = world.comb("store set photos --rate 100M");
    rate.done();
    world.comb("unmount mount").done();
    assert_eq!(slots(&world), sent, "a seal was sent after the end");

    world.comb("mount photos mount").done();
    world.comb("sync photos --wait").done();
    assert!(slots(&world) > sent);
    assert_eq!(fs::read_to_string(mount.join("b")).expect("read"), "not sent");
    world.comb("unmount mount").done();
}

#[test]
fn what_has_no_right_to_write_gets_no_lease() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount --lease @1").refused(2, "passed");
    world.comb("mount photos mount --lease soon").refused(2, "no span of time");
    world.comb("mount photos mount --at head --lease 5s").refused(2, "cannot be used with");
    assert!(world.comb("status photos --json").json()[0]["mounts"].as_array().is_some_and(Vec::is_empty));
    add_store(&world, "home", &[]);
    world.comb("sync photos --wait").done();
    let key = world.path("key");
    world.comb(&format!("volume key photos --out {}", key.display())).done();
    let other = World::new();
    other.dir("mount");
    let url = format!("file://{}", world.path("home").display());
    other.open_from(&key, &url, &["--read-only"]).done();
    other.comb("mount photos mount --lease 5s").refused(2, "nothing that a lease could end");
}
