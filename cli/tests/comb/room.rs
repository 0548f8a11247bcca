//! A disk that is smaller than the volume: packs leave it when stores have them, and what waits for stores is bounded. With the
//! real program and mounts, on file systems of their own.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{World, wait_until};

const MIB: usize = 1 << 20;

fn is_root() -> bool {
    // SAFETY: takes no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED, LOUDLY: only root can mount a small disk, so room on one was not tested");
    }
    root
}

/// Bytes that do not compress, another for each file and MiB.
fn block(file: usize, index: usize) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    blake3::Hasher::new()
        .update(&(file as u64).to_le_bytes())
        .update(&(index as u64).to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A volume with a folder as its store; its state may lie on a disk of its own.
struct Stage {
    world: World,
    disk: Option<PathBuf>,
}

impl Stage {
    /// The state folder is in memory, and has this size.
    fn small(size: &str) -> Stage {
        let world = World::new();
        let state = world.dir("state");
        let path = state.to_str().expect("UTF-8");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "comb-test", path])
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "a small disk");
        Stage { world, disk: Some(state) }.begin()
    }

    /// The state folder lies where all does.
    fn large() -> Stage {
        Stage { world: World::new(), disk: None }.begin()
    }

    fn begin(self) -> Stage {
        for folder in ["store", "mount", "again"] {
            self.world.dir(folder);
        }
        self.world.comb("volume create photos").done();
        let url = format!("file://{}", self.world.path("store").display());
        self.world.words(["store", "add", "photos", &url]).done();
        self
    }

    /// Adds a line to the volume's config, as a person does.
    fn configure(&self, field: &str, bytes: usize) {
        let path = self.world.volume_folder().join("config");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a config")).expect("JSON");
        let fields = config.as_object_mut().expect("an object");
        fields.remove("check");
        fields.insert(field.into(), bytes.into());
        fs::write(&path, config.to_string()).expect("written");
    }

    fn mount(&self) {
        self.world.comb("mount photos mount").done();
    }

    fn file(&self, number: usize) -> PathBuf {
        self.world.path("mount").join(format!("file-{number}"))
    }

    /// Writes a file of so many MiB.
    fn try_write(&self, number: usize, mib: usize) -> std::io::Result<()> {
        let mut file = File::create(self.file(number))?;
        for index in 0..mib {
            file.write_all(&block(number, index))?;
        }
        file.sync_all()
    }

    #[track_caller]
    fn write(&self, number: usize, mib: usize) {
        if let Err(error) = self.try_write(number, mib) {
            panic!("file {number}: {error}: {}", self.world.comb("status photos --json").out);
        }
    }

    /// Reads it below a folder, and compares every byte.
    #[track_caller]
    fn compare(&self, folder: &Path, number: usize, mib: usize) {
        let mut file = File::open(folder.join(format!("file-{number}"))).expect("opened");
        let mut bytes = vec![0; MIB];
        for index in 0..mib {
            file.read_exact(&mut bytes).expect("read");
            assert!(bytes == block(number, index), "MiB {index} of file {number}");
        }
        assert_eq!(file.read(&mut bytes).expect("read"), 0);
    }

    fn sync(&self) {
        self.world.comb("sync photos --wait --limit 120s").done();
    }

    /// What its daemon says of it.
    fn report(&self) -> Value {
        self.world.command(["status", "photos", "--json"]).output().map_or(Value::Null, |output| {
            let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            list[0]["mounts"][0].clone()
        })
    }

    fn config(&self) -> Value {
        let path = self.world.volume_folder().join("config");
        serde_json::from_slice(&fs::read(path).expect("a config")).expect("JSON")
    }

    /// Bytes of packs that are here.
    fn here(&self) -> u64 {
        let packs = crate::volumes::walk(&self.world.volume_folder().join("packs"));
        packs.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }

    /// Waits until no more packs are here than this.
    #[track_caller]
    fn wait_for_room(&self, bytes: u64) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.here() > bytes {
            assert!(Instant::now() < end, "{} bytes stay: {}", self.here(), self.report());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            let mount = self.world.path("mount");
            for point in [&mount, disk] {
                let _ =
                    Command::new("umount").arg("-l").arg(point).stderr(std::process::Stdio::null()).status();
            }
        }
    }
}

#[test]
fn a_volume_grows_beyond_its_disk_and_all_of_it_is_read() {
    if !is_root() {
        return;
    }
    let stage = Stage::small("448M");
    stage.mount();
    let files = 24;
    for number in 0..files {
        stage.write(number, 48);
    }
    stage.sync();
    let report = stage.report();
    assert!(report["room"]["evicted_bytes"].as_u64() > Some(600 << 20), "{report}");
    assert_eq!(report["damage"], Value::Null, "{report}");
    assert!(stage.here() < 448 << 20);
    let config = stage.config();
    assert_eq!((&config["from_store"], &config["evicted"]), (&true.into(), &true.into()));
    for number in 0..files {
        stage.compare(&stage.world.path("mount"), number, 48);
    }
    // The past, too.
    stage.world.comb("snapshot photos --tag all").done();
    fs::remove_file(stage.file(0)).expect("removed");
    stage.compare(&stage.world.path("mount/.snapshots/all"), 0, 48);
    stage.world.comb("unmount mount").done();

    stage.mount();
    for number in (1..files).step_by(5) {
        stage.compare(&stage.world.path("mount"), number, 48);
    }
    stage.world.comb("unmount mount").done();
    let check = stage.world.comb("check photos --json").json();
    assert_eq!(check["damage"].as_array().map(Vec::len), Some(0), "{check}");

    // Another machine with nothing but the key has all of it.
    stage.world.comb("volume key photos --out key").done();
    let other = World::new();
    other.dir("mount");
    let url = format!("file://{}", stage.world.path("store").display());
    other.open_from(&stage.world.path("key"), &url, &["--read-only"]).done();
    other.comb("mount photos mount").done();
    stage.compare(&other.path("mount"), 3, 48);
    stage.compare(&other.path("mount/.snapshots/all"), 0, 48);
    other.comb("unmount mount").done();
}

#[test]
fn while_the_store_is_away_writes_end_in_time_and_go_on_when_it_is_back() {
    if !is_root() {
        return;
    }
    let stage = Stage::small("448M");
    stage.mount();
    stage.write(0, 24);
    stage.sync();
    let (store, away) = (stage.world.path("store"), stage.world.path("away"));
    fs::rename(&store, &away).expect("moved");
    let mut written = Vec::new();
    let begun = Instant::now();
    let refused = (1..100).find_map(|number| match stage.try_write(number, 16) {
        Ok(()) => {
            written.push(number);
            None
        }
        Err(error) => Some(error),
    });
    let refused = refused.expect("what may wait is bounded");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    assert!((3..20).contains(&written.len()), "{written:?} were taken: {}", stage.report());
    let report = stage.report();
    assert!(report["room"]["held_up"].as_str().is_some_and(|why| why.contains("REFUSED")), "{report}");
    assert!(stage.world.comb("status photos").out.contains("writes are REFUSED: "), "it is told");
    assert_eq!(report["read_only"], false, "{report}");
    // Removing goes on, and so does reading what is here.
    fs::remove_file(stage.file(written.len() + 1)).expect("removing goes on");
    for &number in &written {
        stage.compare(&stage.world.path("mount"), number, 16);
    }
    fs::rename(&away, &store).expect("back again");
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = stage.try_write(50, 64) {
        assert!(Instant::now() < end, "{error}: {}", stage.report());
        std::thread::sleep(Duration::from_millis(200));
    }
    stage.sync();
    for &number in &written {
        stage.compare(&stage.world.path("mount"), number, 16);
    }
    stage.compare(&stage.world.path("mount"), 50, 64);
    stage.compare(&stage.world.path("mount"), 0, 24);
    stage.world.comb("unmount mount").done();
    stage.world.comb("check photos").done();
}

#[test]
fn what_left_the_disk_works_as_before() {
    let stage = Stage::large();
    stage.configure("local_bytes", 4 * MIB);
    stage.mount();
    for number in 0..6 {
        stage.write(number, 4);
        if number % 2 == 0 {
            stage.world.comb(&format!("snapshot photos --tag t{number}")).done();
        }
    }
    stage.sync();
    stage.wait_for_room(5 << 20);
    for number in 0..6 {
        stage.compare(&stage.world.path("mount"), number, 4);
    }
    stage.compare(&stage.world.path("mount/.snapshots/t2"), 1, 4);
    stage.wait_for_room(5 << 20);

    // A store that is added later gets what is not here any more, and then packs leave for both.
    let copy = format!("file://{}", stage.world.dir("copy").display());
    stage.world.words(["store", "add", "photos", &copy, "--as", "copy"]).done();
    stage.sync();
    let count = |store: &str| {
        let is_pack = |path: &&PathBuf| path.parent().is_some_and(|folder| folder.ends_with("p"));
        crate::volumes::walk(&stage.world.path(store)).iter().filter(is_pack).count()
    };
    assert_eq!(count("copy"), count("store"));
    stage.wait_for_room(5 << 20);
    // Pruning reads and removes what is not here.
    stage.world.words(["retain", "photos", "keep last 1; keep snapshots for 1s; keep tag t2 forever"]).done();
    fs::remove_file(stage.file(5)).expect("removed");
    std::thread::sleep(Duration::from_secs(2));
    let pruned = stage.world.comb("prune photos --grace 0 --json").json();
    assert!(pruned["dropped"].as_array().is_some_and(|list| !list.is_empty()), "{pruned}");
    assert_eq!(count("copy"), count("store"), "{pruned}");
    stage.world.comb("unmount mount").done();

    let check = stage.world.comb("check photos --level packs --json").json();
    assert!(check["elsewhere_packs"].as_u64() > Some(0), "{check}");
    stage.world.comb("check photos").done();
    stage.world.comb("check photos --level drill").done();
    stage.world.comb("fork photos@t2 forked").done();
    stage.world.comb("export photos@head --tar archive").done();
    assert!(fs::metadata(stage.world.path("archive")).expect("an archive").len() > 20 << 20);
    stage.world.comb("restore photos@t2:file-1 --to out").done();
    stage.compare(&stage.world.path("out"), 1, 4);
    stage.world.comb("rollback photos@t2").done();
    stage.mount();
    stage.compare(&stage.world.path("mount"), 1, 4);
    stage.world.comb("unmount mount").done();
    stage.world.comb("sync photos --wait").done();

    // Without its stores it is whole again here.
    stage.configure("local_bytes", 1 << 30);
    stage.world.comb("store remove photos copy").done();
    stage.world.comb("store remove photos folder").done();
    fs::remove_dir_all(stage.world.path("store")).expect("removed");
    fs::remove_dir_all(stage.world.path("copy")).expect("removed");
    stage.world.comb("check photos").done();
    stage.mount();
    stage.compare(&stage.world.path("mount"), 2, 4);
    stage.world.comb("unmount mount").done();
    assert_eq!(stage.config().get("from_store"), None);
}

#[test]
fn a_pack_that_the_store_does_not_have_never_leaves() {
    let stage = Stage::large();
    stage.mount();
    for number in 0..4 {
        stage.write(number, 4);
        stage.sync();
    }
    // Behind the back of the daemon, which was told that all is there.
    let is_pack = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("p"));
    let mut lost = 0;
    for path in crate::volumes::walk(&stage.world.path("store")).into_iter().filter(is_pack) {
        if lost % 2 == 0 {
            fs::remove_file(path).expect("removed");
        } else {
            // One of another length is none.
            File::options().write(true).open(path).and_then(|file| file.set_len(100)).expect("cut");
        }
        lost += 1;
    }
    let before = stage.here();
    stage.configure("local_bytes", MIB);
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(stage.here(), before, "{lost} packs are only here");
    for number in 0..4 {
        stage.compare(&stage.world.path("mount"), number, 4);
    }
    stage.world.comb("unmount mount").done();
}

#[test]
fn a_daemon_that_is_killed_while_packs_leave_loses_nothing() {
    let stage = Stage::large();
    stage.configure("local_bytes", 2 * MIB);
    stage.mount();
    for round in 0..4 {
        for number in 0..3 {
            stage.write(round * 3 + number, 4);
        }
        stage.world.comb("snapshot photos").done();
        // Packs leave while the seal is being sent.
        std::thread::sleep(Duration::from_millis(700 * round as u64));
        stage.world.kill_daemon();
        stage.mount();
        for number in 0..(round + 1) * 3 {
            stage.compare(&stage.world.path("mount"), number, 4);
        }
    }
    stage.sync();
    stage.wait_for_room(3 << 20);
    stage.world.comb("unmount mount").done();
    stage.world.comb("check photos").done();
}

#[test]
fn who_waits_for_a_slow_store_holds_up_nobody_who_reads() {
    let stage = Stage::large();
    stage.configure("waiting_bytes", 16 * MIB);
    // A pack takes longer than anybody waits for a store that takes nothing.
    stage.world.comb("store set photos --rate 300K").done();
    stage.mount();
    let (mount, done) = (stage.world.path("mount"), std::sync::atomic::AtomicBool::new(false));
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // More at once than threads serve the mount.
            std::thread::scope(|writers| {
                for number in 0..5 {
                    let stage = &stage;
                    writers.spawn(move || stage.write(number, 4));
                }
            });
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut asked = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let begun = Instant::now();
            // A name that nobody has asked for is asked of the daemon.
            assert!(!mount.join(format!("absent-{asked}")).exists());
            slowest = slowest.max(begun.elapsed());
            asked += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(asked > 100, "the test needs writes that wait: {asked} looks");
    });
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    stage.world.comb("store set photos --rate 0").done();
    stage.sync();
    for number in 0..5 {
        stage.compare(&stage.world.path("mount"), number, 4);
    }
    stage.world.comb("unmount mount").done();
}

#[test]
fn a_bound_of_what_waits_holds_back_writes_and_not_what_is_small() {
    let stage = Stage::large();
    stage.configure("waiting_bytes", 32 * MIB);
    stage.mount();
    stage.write(0, 4);
    stage.sync();
    // A store that is there, however slow, is waited for.
    stage.write(1, 96);
    stage.compare(&stage.world.path("mount"), 1, 96);
    stage.sync();
    let (store, away) = (stage.world.path("store"), stage.world.path("away"));
    fs::rename(&store, &away).expect("moved");
    let begun = Instant::now();
    let error = stage.try_write(2, 200).expect_err("what may wait is bounded");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    fs::create_dir(stage.world.path("mount/folder")).expect("what is small goes on");
    fs::rename(stage.file(2), stage.world.path("mount/folder/moved")).expect("renamed");
    let taken = fs::metadata(stage.world.path("mount/folder/moved")).expect("stats").len() as usize;
    assert!(taken > 8 * MIB && taken < 160 * MIB, "{taken} bytes were taken");
    fs::rename(&away, &store).expect("back again");
    stage.sync();
    let moved = File::open(stage.world.path("mount/folder/moved")).expect("opened");
    let mut bytes = vec![0; MIB];
    for index in 0..taken / MIB {
        moved.read_exact_at(&mut bytes, (index * MIB) as u64).expect("read");
        assert!(bytes == block(2, index), "what `write` took is kept: MiB {index} of {taken}");
    }
    drop(moved);
    stage.world.comb("unmount mount").done();
    stage.world.comb("check photos").done();
}

#[test]
fn who_begins_while_the_store_is_away_forgets_nothing_of_what_waits() {
    let stage = Stage::large();
    stage.configure("waiting_bytes", 24 * MIB);
    stage.mount();
    stage.write(0, 4);
    stage.sync();
    let (store, away) = (stage.world.path("store"), stage.world.path("away"));
    fs::rename(&store, &away).expect("moved");
    for number in 1..4 {
        stage.write(number, 6);
        stage.world.comb("snapshot photos").done();
        std::thread::sleep(Duration::from_secs(1));
        stage.world.kill_daemon();
        stage.mount();
        let lacks = |field: &str| stage.report()["stores"][0][field].clone();
        wait_until("finding out", || lacks("state") == "not-open");
        let bytes = lacks("unsafe_bytes").as_u64().expect("bytes");
        assert!(bytes >= (number * 6 * MIB) as u64, "{bytes} bytes after {number} files");
        assert!(lacks("unsafe_seconds").as_f64() >= Some(number as f64), "{}", stage.report());
        let told = stage.world.comb("status photos").out;
        assert!(told.contains("was not reached yet, lacks "), "{told}");
    }
    let error = stage.try_write(4, 96).expect_err("what waits is bounded as before");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    fs::rename(&away, &store).expect("back again");
    stage.sync();
    let report = stage.report();
    assert_eq!(report["stores"][0]["unsafe_bytes"], 0, "{report}");
    // What is told is true now, and not as of the last look.
    assert_eq!(report["room"]["held_up"], Value::Null, "{report}");
    stage.world.comb("status photos").done();
    for number in 0..4 {
        stage.compare(&stage.world.path("mount"), number, if number == 0 { 4 } else { 6 });
    }
    stage.world.comb("unmount mount").done();
}

#[test]
fn nobody_waits_for_a_store_that_is_away_because_another_takes_crumbs() {
    let stage = Stage::large();
    let copy = format!("file://{}", stage.world.dir("copy").display());
    stage.world.words(["store", "add", "photos", &copy, "--as", "copy"]).done();
    stage.configure("waiting_bytes", 16 * MIB);
    stage.world.comb("mount photos mount --seal-every 1s").done();
    stage.write(0, 4);
    stage.sync();
    fs::rename(stage.world.path("copy"), stage.world.path("away")).expect("moved");
    let (mount, done) = (stage.world.path("mount"), std::sync::atomic::AtomicBool::new(false));
    let begun = Instant::now();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each is a seal that the other store takes.
            for number in 0..120 {
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let _ = File::create(mount.join(format!("crumb-{number}")));
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let outcome = stage.try_write(1, 96);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    });
    let error = outcome.expect_err("what waits is bounded");
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let report = stage.report();
    assert_eq!(report["room"]["refused"], true, "{report}");
    assert!(
        report["stores"].as_array().is_some_and(|all| all.iter().all(|store| store["behind"] == false)),
        "{report}"
    );
    let status = stage.world.comb("status photos");
    assert!(status.out.contains("writes are REFUSED: "), "{}", status.out);
    assert!(status.out.contains(" wait for store \"copy\", and "), "{}", status.out);
    status.refused(9, "takes no data");
    fs::rename(stage.world.path("away"), stage.world.path("copy")).expect("back again");
    stage.sync();
    stage.write(2, 40);
    stage.world.comb("unmount mount").done();
}
