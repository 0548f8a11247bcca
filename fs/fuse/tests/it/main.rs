//! The adapter on a real kernel, over an engine in memory.
//!
//! Needs `/dev/fuse` and root, and says so loudly when it has to skip.

mod memory;

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_format::{Ino, Seq};
use fs_fuse::{MountError, MountOptions, Mounted, PushError, Still};
use fs_volume::{Caller, NewNode, WriteTree};
use memory::Memory;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);
const STRANGER: u32 = 12_345;

/// A mounted engine. Field order is drop order: unmount, then remove the folder.
struct Stage {
    mounted: Mounted,
    engine: Arc<Memory>,
    _folder: TempDir,
}

/// Whether mounts can be tested here at all.
fn kernel_has_fuse() -> bool {
    let ready = Path::new("/dev/fuse").exists();
    if !ready {
        eprintln!("SKIPPED, LOUDLY: there is no /dev/fuse, so nothing about mounts was tested");
    }
    ready
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Strangers must be able to reach the mount.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(folder.path().join("mnt")).expect("mkdir");
    folder
}

impl Stage {
    fn set() -> Option<Self> {
        Self::with(MountOptions::default())
    }

    fn with(options: MountOptions) -> Option<Self> {
        if !kernel_has_fuse() {
            return None;
        }
        let folder = folder();
        let engine = Arc::new(Memory::new());
        let mounted =
            fs_fuse::mount(Arc::clone(&engine), &folder.path().join("mnt"), options).expect("mounts");
        Some(Self { mounted, engine, _folder: folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writes");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("reads")
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect("stats").mode() & 0o7777
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// Runs a shell line in the mount as somebody.
    fn shell_as(&self, uid: u32, line: &str) -> Output {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(self.mounted.path());
        if uid != 0 {
            command.uid(uid).gid(uid);
        }
        command.output().expect("sh runs")
    }

    fn shell(&self, line: &str) -> String {
        let output = self.shell_as(0, line);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {words}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
}

fn rename(from: &Path, to: &Path, flags: u32) -> std::io::Result<()> {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both paths are NUL-terminated.
    let outcome =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn fallocate(file: &File, mode: i32, offset: i64, len: i64) -> std::io::Result<()> {
    // SAFETY: the descriptor is open.
    let outcome = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn seek_to(file: &File, offset: i64, whence: i32) -> std::io::Result<i64> {
    // SAFETY: the descriptor is open.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    if found >= 0 { Ok(found) } else { Err(std::io::Error::last_os_error()) }
}

/// Waits for what the kernel does in its own time.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}

#[test]
fn files_directories_and_links_come_and_go() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "first");
    fs::create_dir(stage.path("dir")).expect("mkdir");
    fs::rename(stage.path("a"), stage.path("dir/b")).expect("rename");
    fs::hard_link(stage.path("dir/b"), stage.path("c")).expect("link");
    symlink("dir/b", stage.path("s")).expect("symlink");

    assert_eq!(stage.read("s"), "first");
    assert_eq!(stage.names(""), ["c", "dir", "s"]);
    let c = fs::metadata(stage.path("c")).expect("stats");
    assert_eq!((c.nlink(), c.len(), c.blksize()), (2, 5, 4096));
    assert_eq!(fs::metadata(stage.path("")).expect("stats").nlink(), 3);

    fs::remove_file(stage.path("c")).expect("unlink");
    assert_eq!(fs::metadata(stage.path("dir/b")).expect("stats").nlink(), 1);
    assert_eq!(Stage::errno(fs::remove_dir(stage.path("dir"))), Some(libc::ENOTEMPTY));
    assert_eq!(Stage::errno(fs::metadata(stage.path("a"))), Some(libc::ENOENT));
    let long = "x".repeat(256);
    assert_eq!(Stage::errno(File::create(stage.path(&long))), Some(libc::ENAMETOOLONG));
    stage.write(&long[..255], "fits");
}

#[test]
fn special_files_keep_their_kind() {
    let Some(stage) = Stage::set() else { return };
    stage.shell("mkfifo pipe; mknod null c 1 3; mknod disk b 8 1");
    assert!(fs::metadata(stage.path("pipe")).expect("stats").file_type().is_fifo());
    assert_eq!(fs::metadata(stage.path("null")).expect("stats").rdev(), libc::makedev(1, 3));
    assert_eq!(fs::metadata(stage.path("disk")).expect("stats").rdev(), libc::makedev(8, 1));
}

#[test]
fn a_mode_and_its_access_list_change_together_or_not_at_all() {
    let Some(stage) = Stage::set() else { return };
    stage.shell("touch a && chmod 660 a && setfacl -m u:12345:rw a");
    let show = || stage.shell("stat -c %a a; getfacl -c a");
    let before = show();
    stage.engine.refuses_xattrs.store(true, Ordering::Relaxed);
    for change in ["chmod 600 a", "setfacl -m u:12345:r,m::r a"] {
        let refused = stage.shell_as(0, change);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("No space left"), "{change}: {refused:?}");
        assert_eq!(show(), before, "{change}");
        stage.shell("echo 2 > /proc/sys/vm/drop_caches");
        assert_eq!(show(), before, "{change}: not only in the kernel's memory");
    }
    stage.shell("setfacl -b a && chmod 640 a");
    assert_eq!(stage.mode("a"), 0o640, "what takes no room goes on");
}

#[test]
fn a_large_directory_is_listed_once_and_whole() {
    let Some(stage) = Stage::set() else { return };
    for number in 0..1000 {
        File::create(stage.path(&format!("file-{number:04}"))).expect("creates");
    }
    let listed = stage.shell("ls -la | wc -l");
    assert_eq!(listed, "1003", "1000 files, two dots, one total");
    assert_eq!(stage.shell("find . -type f | sort -u | wc -l"), "1000");
    fs::remove_file(stage.path("file-0500")).expect("unlink");
    File::create(stage.path("late")).expect("creates");
    let names = stage.names("");
    assert_eq!(names.len(), 1000, "the kernel's cache of the listing was dropped");
    assert!(names.contains(&"late".to_owned()));
    stage.shell("rm -rf file-*");
    assert_eq!(stage.names(""), ["late"]);
}

#[test]
fn rename_keeps_its_flags() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "a");
    stage.write("b", "b");
    let (a, b) = (stage.path("a"), stage.path("b"));
    assert_eq!(Stage::errno(rename(&a, &b, libc::RENAME_NOREPLACE)), Some(libc::EEXIST));
    rename(&a, &b, libc::RENAME_EXCHANGE).expect("exchanges");
    assert_eq!((stage.read("a"), stage.read("b")), ("b".into(), "a".into()));
    rename(&a, &stage.path("c"), libc::RENAME_WHITEOUT).expect("leaves a whiteout");
    let whiteout = fs::metadata(&a).expect("stats");
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
}

#[test]
fn an_unlinked_open_file_lives_until_it_is_closed() {
    let Some(stage) = Stage::set() else { return };
    let before = stage.engine.files();
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(stage.path("a")).expect("creates");
    fs::remove_file(stage.path("a")).expect("unlink");
    file.write_all(b"still here").expect("writes");
    file.seek(SeekFrom::Start(0)).expect("seeks");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "still here");
    drop(file);
    eventually("the kernel releases and forgets", || stage.engine.files() == before);
}

#[test]
fn holes_are_punched_found_and_zeroed() {
    let Some(stage) = Stage::set() else { return };
    let path = stage.path("a");
    fs::write(&path, vec![7_u8; 64 << 10]).expect("writes");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    file.sync_all().expect("syncs");
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 8192, 4096).expect("punches");
    drop(file);
    let file = File::open(&path).expect("opens");
    eventually("the kernel tells of the closed handle", || {
        seek_to(&file, 0, libc::SEEK_HOLE).expect("finds") == 8192
    });
    assert_eq!(seek_to(&file, 8192, libc::SEEK_DATA).expect("finds"), 12_288);
    assert_eq!(Stage::errno(seek_to(&file, 1 << 20, libc::SEEK_DATA)), Some(libc::ENXIO));
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, 0, 4096).expect("zeroes");
    let mut head = [1_u8; 4096];
    file.read_exact_at(&mut head, 0).expect("reads");
    assert_eq!(head, [0; 4096], "the kernel did not keep the old page");
    fallocate(&file, 0, 0, 128 << 10).expect("extends");
    assert_eq!(fs::metadata(&path).expect("stats").len(), 128 << 10);
    let collapse = fallocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096);
    assert_eq!(Stage::errno(collapse), Some(libc::EOPNOTSUPP));
}

/// A process that writes to `a` through the page cache and keeps it open, in the words of a shell.
///
/// Not this process: one that it starts closes its copies of open files, and each `close` of a file, by whomever, writes its
/// pages. So the words must not start programs, nor redirect but by `exec`.
struct Writer(std::process::Child);

impl Writer {
    fn start(stage: &Stage, words: &str, length: u64) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{words}; read line")).current_dir(stage.mounted.path());
        let writer = Self(shell.stdin(Stdio::piped()).spawn().expect("starts"));
        eventually("the file is written", || {
            fs::metadata(stage.path("a")).is_ok_and(|metadata| metadata.len() == length)
        });
        writer
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("ends");
    }
}

#[test]
fn a_file_that_is_being_written_has_no_hole_where_its_pages_are() {
    let Some(stage) = Stage::set() else { return };
    let out = folder();
    let out = out.path();
    let (hole, word) = (|length: usize| vec![0_u8; length], b"       7".repeat(8192));
    let files = [
        ("true", "exec >a", word.clone()),
        ("truncate -s 128K a", "exec >>a", [hole(128 << 10), word.clone()].concat()),
        ("head -c 128K /dev/zero >a", "exec >>a", [hole(128 << 10), word.clone()].concat()),
    ];
    let copies = ["cp a OUT", "cp --sparse=always a OUT", "tar -cSf - a | tar -C OUT -xf -", "cat a >OUT/a"];
    for (before, open, bytes) in &files {
        for copy in copies {
            stage.shell(before);
            let words = format!("{open}; printf '{}'", String::from_utf8_lossy(&word));
            let writer = Writer::start(&stage, &words, bytes.len() as u64);
            assert_ne!(fs::metadata(stage.path("a")).expect("stats").blocks(), 0, "{before}; {open}");
            stage.shell(&copy.replace("OUT", &out.display().to_string()));
            assert!(fs::read(out.join("a")).expect("reads") == *bytes, "{before}; {open}; {copy}");
            writer.end();
            stage.shell("rm a");
        }
    }
}

#[test]
fn a_file_that_is_being_written_is_all_data_and_its_holes_are_told_later() {
    let Some(stage) = Stage::set() else { return };
    stage.shell("truncate -s 128K a");
    let writer = Writer::start(&stage, "exec >>a; printf %65536d 7", 192 << 10);
    let file = File::open(stage.path("a")).expect("opens");
    let length = 192 << 10;
    for at in [0, 100_000, length - 1] {
        assert_eq!(seek_to(&file, at, libc::SEEK_DATA).expect("finds"), at);
        assert_eq!(seek_to(&file, at, libc::SEEK_HOLE).expect("finds"), length);
    }
    for whence in [libc::SEEK_DATA, libc::SEEK_HOLE] {
        assert_eq!(Stage::errno(seek_to(&file, length, whence)), Some(libc::ENXIO));
    }
    writer.end();
    eventually("the kernel tells of the closed handle", || {
        seek_to(&file, 0, libc::SEEK_DATA).expect("finds") == 128 << 10
    });
    assert_eq!(seek_to(&file, 0, libc::SEEK_HOLE).expect("finds"), 0);
    assert_eq!(seek_to(&file, 128 << 10, libc::SEEK_HOLE).expect("finds"), length);
}

#[test]
fn holes_are_dug_in_a_file_that_is_open_for_writing() {
    let Some(stage) = Stage::set() else { return };
    let writer = Writer::start(&stage, "exec >a; printf %065536d 7", 65_536);
    stage.shell("truncate -s 128K a && fallocate --dig-holes a");
    assert_eq!(fs::metadata(stage.path("a")).expect("stats").len(), 128 << 10);
    assert_eq!(stage.read("a").trim_end_matches('\0'), "0".repeat(65_535) + "7");
    writer.end();
}

#[test]
fn a_copied_range_is_the_same_bytes() {
    let Some(stage) = Stage::set() else { return };
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(stage.path("a"), &bytes).expect("writes");
    fs::copy(stage.path("a"), stage.path("b")).expect("copies");
    assert!(fs::read(stage.path("b")).expect("reads") == bytes);
}

#[test]
fn truncating_by_open_or_by_call_takes_effect_at_once() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "a long text");
    let before = fs::metadata(stage.path("a")).expect("stats");
    std::thread::sleep(Duration::from_millis(20));
    drop(OpenOptions::new().write(true).truncate(true).open(stage.path("a")).expect("opens"));
    let after = fs::metadata(stage.path("a")).expect("stats");
    assert_eq!(after.len(), 0);
    assert!(after.modified().expect("mtime") > before.modified().expect("mtime"));
    let file = OpenOptions::new().write(true).open(stage.path("a")).expect("opens");
    file.set_len(10_000).expect("extends");
    file.set_len(3).expect("shrinks");
    assert_eq!(fs::read(stage.path("a")).expect("reads"), [0; 3]);
    assert!(stage.engine.arrived("a") == [0; 3]);
}

#[test]
fn the_mount_and_the_engine_agree_when_a_file_was_truncated() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "x");
    for len in [1, 5, 5, 0, 0] {
        std::thread::sleep(Duration::from_millis(20));
        // By path: a handle makes a change of it, whatever the length was.
        let path = CString::new(stage.path("a").as_os_str().as_bytes()).expect("a path");
        // SAFETY: the path is a NUL-terminated string.
        assert_eq!(unsafe { libc::truncate(path.as_ptr(), len) }, 0);
        let shown = fs::metadata(stage.path("a")).expect("stats");
        let shown = shown.mtime() * 1_000_000_000 + shown.mtime_nsec();
        assert_eq!(shown, stage.engine.modified("a"), "truncated to {len}");
    }
}

#[test]
fn times_are_kept_to_the_nanosecond_on_both_sides_of_1970() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "");
    for (stamp, secs, nanos) in [
        ("1969-12-31T23:59:58.25Z", -2, 250_000_000),
        ("2031-04-05T06:07:08.123456789Z", 1_933_135_628, 123_456_789),
    ] {
        stage.shell(&format!("touch -d {stamp} a && sync -f a"));
        let metadata = fs::metadata(stage.path("a")).expect("stats");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (secs, nanos), "{stamp}");
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (secs, nanos), "{stamp}");
    }
    let before = fs::metadata(stage.path("a")).expect("stats").atime();
    stage.read("a");
    assert_eq!(fs::metadata(stage.path("a")).expect("stats").atime(), before, "reading leaves atime alone");
}

#[test]
fn attributes_keep_to_their_namespaces() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "");
    stage.set_mode("a", 0o666);
    stage.shell("setfattr -n user.colour -v green a && setfattr -n trusted.secret -v x a");
    assert_eq!(stage.shell("getfattr --only-values -n user.colour a"), "green");
    assert!(stage.shell("getfattr -d -m - a").contains("trusted.secret"));
    let seen = stage.shell_as(STRANGER, "getfattr -d -m - a");
    assert!(!String::from_utf8_lossy(&seen.stdout).contains("trusted.secret"));
    let refused = stage.shell_as(0, "setfattr -n system.other -v x a");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not supported"));
    stage.shell("setfattr -x user.colour a");
    assert!(!stage.shell_as(0, "getfattr -n user.colour a").status.success());
}

#[test]
fn access_lists_are_inherited_masked_and_obeyed() {
    let Some(stage) = Stage::set() else { return };
    let stranger = STRANGER;
    stage.shell(&format!("mkdir d && setfacl -d -m u:{stranger}:rw d && chmod 755 d"));
    stage.shell("umask 077; echo secret > d/a; mkdir d/sub; umask 022; echo open > plain");

    assert_eq!(stage.mode("d/a"), 0o664, "the default list stands in for the umask, and 0o666 was asked for");
    assert!(stage.shell("getfacl -c d/a").contains(&format!("user:{stranger}:rw-")));
    assert!(stage.shell("getfacl -c d/sub").contains(&format!("default:user:{stranger}:rw-")));
    assert_eq!(stage.mode("plain"), 0o644, "without a default list the umask counts");
    assert!(stage.shell_as(stranger, "cat d/a && echo more >> d/a").status.success());

    stage.shell("chmod 600 d/a");
    assert!(stage.shell("getfacl -c d/a").contains("#effective:---"), "chmod closes the mask");
    assert!(!stage.shell_as(stranger, "cat d/a").status.success());

    stage.shell(&format!("setfacl -m u:{stranger}:r,m::r d/a"));
    assert_eq!(stage.mode("d/a") & 0o070, 0o040, "the mode shows the mask");
    assert!(stage.shell_as(stranger, "cat d/a").status.success());
    assert!(!stage.shell_as(stranger, "echo no >> d/a").status.success());

    stage.shell("setfacl -b d/a && setfacl -m g::rx,o::x d/a");
    assert_eq!(stage.mode("d/a"), 0o651);
    let stored = stage.shell("getfattr -d -m system.posix_acl d/a");
    assert_eq!(stored, "", "a list that says no more than the mode is not stored");
    stage.shell("setfacl -b plain");
}

#[test]
fn set_user_id_ends_when_somebody_else_writes() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "text");
    let attempts = [
        ("a write", "echo more >> a"),
        ("an O_TRUNC", ": > a"),
        ("a truncate", "truncate -s 1 a"),
        ("a fallocate", "fallocate -l 9999 a"),
    ];
    for (what, line) in attempts {
        stage.set_mode("a", 0o6777);
        assert_eq!(stage.mode("a"), 0o6777);
        assert!(stage.shell_as(STRANGER, line).status.success(), "{what}");
        assert_eq!(stage.mode("a"), 0o777, "{what} by a stranger");
    }
    stage.set_mode("a", 0o6777);
    stage.shell("echo more >> a");
    assert_eq!(stage.mode("a"), 0o6777, "root's writes leave it");
    stage.shell(&format!("chown {STRANGER} a"));
    assert_eq!(stage.mode("a"), 0o777, "a change of owner never does");
    fs::create_dir(stage.path("d")).expect("mkdir");
    stage.set_mode("d", 0o2755);
    stage.shell(&format!("chown {STRANGER} d"));
    assert_eq!(stage.mode("d"), 0o2755, "for a directory the bit means something else");
}

#[test]
fn fsyncs_share_the_disk_and_hear_of_its_failure() {
    let Some(stage) = Stage::set() else { return };
    let file = File::create(stage.path("a")).expect("creates");
    file.sync_all().expect("syncs");
    assert_eq!(stage.engine.syncs.load(Ordering::Relaxed), 1);
    File::open(stage.path("")).expect("opens").sync_all().expect("syncs a directory");
    assert_eq!(stage.engine.syncs.load(Ordering::Relaxed), 2);

    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_SYNC | libc::O_DIRECT] {
        let before = stage.engine.syncs.load(Ordering::Relaxed);
        let careful =
            OpenOptions::new().write(true).custom_flags(flags).open(stage.path("a")).expect("opens");
        careful.write_all_at(&[1; 4096], 0).expect("writes");
        assert!(stage.engine.syncs.load(Ordering::Relaxed) > before, "flags {flags:o}");
    }

    stage.engine.broken_disk.store(true, Ordering::Relaxed);
    assert_eq!(Stage::errno(file.sync_all()), Some(libc::EIO));
}

#[test]
fn dirty_pages_are_fetched_without_waiting_for_the_disk() {
    let Some(stage) = Stage::set() else { return };
    let mut first = File::create(stage.path("a")).expect("creates");
    let mut second = File::create(stage.path("b")).expect("creates");
    first.write_all(b"dirty").expect("writes");
    second.write_all(b"too").expect("writes");
    assert_eq!(stage.engine.arrived("a"), b"", "the page is still the kernel's");

    stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
    assert_eq!(stage.engine.arrived("a"), b"dirty");
    assert_eq!(stage.engine.arrived("b"), b"too");
    assert_eq!(stage.engine.syncs.load(Ordering::Relaxed), 0, "a push does not wait for the disk");

    first.write_all(b" again").expect("writes");
    first.sync_all().expect("syncs");
    assert_eq!(stage.engine.syncs.load(Ordering::Relaxed), 1, "an application's fsync does");

    drop((first, second));
    stage.mounted.unmount().expect("nothing keeps the mount busy after a push");
    assert!(stage.mounted.push_dirty_pages(PATIENCE).is_err());
}

#[test]
fn the_kernel_begins_to_write_when_told() {
    let Some(stage) = Stage::set() else { return };
    let mut file = File::create(stage.path("a")).expect("creates");
    file.write_all(b"dirty").expect("writes");
    stage.mounted.begin_writing_dirty_pages();
    // By itself the kernel would keep the page for 30 seconds.
    let arrived = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        stage.engine.arrived("a") == b"dirty"
    });
    assert!(arrived);
}

#[test]
fn nobody_waits_longer_than_he_said_for_a_stuck_mount() {
    let Some(stage) = Stage::set() else { return };
    let mut file = File::create(stage.path("a")).expect("creates");
    file.write_all(b"dirty").expect("writes");
    stage.engine.stuck.store(true, Ordering::Relaxed);
    let short = Duration::from_millis(100);
    assert!(matches!(stage.mounted.push_dirty_pages(short), Err(PushError::TimedOut(_))));
    assert!(matches!(stage.mounted.push_dirty_pages(short), Err(PushError::TimedOut(_))), "again");
    stage.engine.stuck.store(false, Ordering::Relaxed);
    stage.mounted.push_dirty_pages(PATIENCE).expect("goes on by itself");
    assert_eq!(stage.engine.arrived("a"), b"dirty");
}

fn run(program: &str, args: &[&OsStr]) {
    let output = Command::new(program).args(args).output().expect("starts");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A stage whose mount lies in a folder that can be renamed or covered: `outer/mnt`.
fn nested() -> Option<(PathBuf, Stage)> {
    if !kernel_has_fuse() {
        return None;
    }
    let folder = folder();
    let outer = folder.path().join("outer");
    fs::create_dir_all(outer.join("mnt")).expect("mkdir");
    let engine = Arc::new(Memory::new());
    let mounted =
        fs_fuse::mount(Arc::clone(&engine), &outer.join("mnt"), MountOptions::default()).expect("mounts");
    Some((outer, Stage { mounted, engine, _folder: folder }))
}

#[test]
fn a_renamed_folder_hides_no_pages() {
    for known in [false, true] {
        let Some((outer, stage)) = nested() else { return };
        let mut file = File::create(stage.path("a")).expect("creates");
        if known {
            stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
        }
        let elsewhere = outer.with_file_name("else where");
        fs::rename(&outer, &elsewhere).expect("renames");
        file.write_all(b"dirty").expect("writes");
        stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
        assert_eq!(stage.engine.arrived("a"), b"dirty");
        assert!(matches!(stage.mounted.unmount(), Err(MountError::Busy(_))));
        drop(file);
        stage.mounted.unmount().expect("unmounts where it is now");
        assert_eq!(fs::read_dir(elsewhere.join("mnt")).expect("lists").count(), 0);
    }
}

#[test]
fn what_is_mounted_over_a_volume_hides_no_known_pages_and_stays() {
    for known in [false, true] {
        for cover in ["outer", "outer/mnt"] {
            let Some((outer, stage)) = nested() else { return };
            let cover = outer.with_file_name("").join(cover);
            let mut file = File::create(stage.path("a")).expect("creates");
            if known {
                stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
            }
            run("mount", &["-t".as_ref(), "tmpfs".as_ref(), "none".as_ref(), cover.as_os_str()]);
            file.write_all(b"dirty").expect("writes");
            let pushed = stage.mounted.push_dirty_pages(PATIENCE);
            drop(file);
            let unmounted = stage.mounted.unmount();
            run("umount", &[cover.as_os_str()]);
            if known {
                pushed.expect("pushes");
            } else {
                assert!(matches!(pushed, Err(PushError::Covered(_))), "{pushed:?}");
            }
            assert_eq!(stage.engine.arrived("a"), b"dirty");
            assert!(matches!(unmounted, Err(MountError::Covered(_))), "{unmounted:?}");
            stage.mounted.unmount().expect("unmounts");
        }
    }
}

#[test]
fn a_lazily_detached_mount_is_served_until_its_last_user_ends() {
    let Some(stage) = Stage::set() else { return };
    let mut file = File::create(stage.path("a")).expect("creates");
    stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
    run("umount", &[OsStr::new("-l"), stage.mounted.path().as_os_str()]);
    file.write_all(b"dirty").expect("writes");
    stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
    assert_eq!(stage.engine.arrived("a"), b"dirty");
    file.write_all(b" more").expect("writes");
    stage.mounted.begin_writing_dirty_pages();
    let arrived = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        stage.engine.arrived("a") == b"dirty more"
    });
    assert!(arrived);
    assert!(matches!(stage.mounted.unmount(), Err(MountError::Busy(_))));
    drop(file);
    stage.mounted.wait().expect("ends with its last user");
}

#[test]
fn a_mount_that_pages_are_fetched_from_is_unmounted_from_outside() {
    for _ in 0..20 {
        let Some(stage) = Stage::set() else { return };
        let mut file = File::create(stage.path("a")).expect("creates");
        file.write_all(b"dirty").expect("writes");
        stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
        drop(file);
        let umount = || Command::new("umount").arg(stage.mounted.path()).output().expect("starts");
        // A process that a test beside this one has just forked holds the file too, until it starts its program.
        let unmounted = (0..100).any(|_| {
            let output = umount();
            let done = output.status.success();
            assert!(done || String::from_utf8_lossy(&output.stderr).contains("busy"), "{output:?}");
            done
        });
        assert!(unmounted);
        stage.mounted.wait().expect("ends");
    }
}

/// Writes pages until one is refused; returns how many bytes were taken, and the error.
fn fill(file: &mut File, bytes_max: usize) -> (usize, Option<i32>) {
    let page = [9_u8; 4096];
    let mut taken = 0;
    while taken < bytes_max {
        if let Err(error) = file.write_all(&page) {
            return (taken, error.raw_os_error());
        }
        taken += page.len();
    }
    (taken, None)
}

#[test]
fn write_tells_of_a_full_volume_and_nothing_that_it_took_is_lost() {
    let Some(stage) = Stage::set() else { return };
    stage.engine.quota.store(1 << 20, Ordering::Relaxed);
    stage.engine.reserve.store(64 << 20, Ordering::Relaxed);
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).open(stage.path("a")).expect("opens")
    };
    let mut file = open();
    let (taken, error) = fill(&mut file, 512 << 20);
    assert_eq!(error, Some(libc::ENOSPC), "after {taken} bytes");
    assert!(taken > 1 << 20);
    file.sync_all().expect("the reserve takes what was taken");
    assert_eq!(stage.engine.arrived("a").len(), taken);

    for _ in 0..3 {
        assert_eq!(fill(&mut file, 4096), (0, Some(libc::ENOSPC)), "until there is room");
        assert_eq!(file.metadata().expect("stats").len(), taken as u64);
        assert_eq!(file.seek(SeekFrom::End(0)).expect("seeks"), taken as u64);
        assert_eq!(file.read(&mut [0; 16]).expect("reads behind the end"), 0);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fill(&mut file, 4096), (0, Some(libc::ENOSPC)), "also after a stat");
    let mut second = open();
    assert_eq!(fill(&mut second, 4096), (0, Some(libc::ENOSPC)), "another handle of the file");

    file.set_len(100).expect("makes room");
    assert_eq!(fill(&mut file, 4096), (4096, None));
    file.sync_all().expect("syncs");
    assert_eq!(stage.engine.arrived("a").len(), 4196);
}

/// Opens a file of a full volume to make it longer, if `write` tells that the volume is full.
///
/// The kernel tells of a closed handle when it likes; until then, the next is not the file's only writer, and what it
/// writes is taken from the reserve.
fn asking_before_writing(path: &Path) -> Option<File> {
    std::thread::sleep(Duration::from_millis(50));
    let mut file = OpenOptions::new().append(true).open(path).expect("opens");
    let len = file.metadata().expect("stats").len();
    std::thread::sleep(Duration::from_millis(50));
    match file.write_all(b"too much") {
        Ok(()) => file.set_len(len).map(|()| None).expect("takes it back"),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
            Some(file)
        }
    }
}

#[test]
fn what_is_opened_on_a_full_volume_has_no_claim_on_the_reserve() {
    let Some(stage) = Stage::set() else { return };
    stage.engine.reserve.store(64 << 20, Ordering::Relaxed);
    stage.write("a", "full");
    stage.engine.quota.store(4, Ordering::Relaxed);
    for number in 0..50 {
        let mut file = File::create(stage.path(&number.to_string())).expect("an empty file takes no room");
        let written = file.write_all(b"too much").and_then(|()| file.sync_all());
        assert_eq!(Stage::errno(written), Some(libc::ENOSPC));
    }
    let file = OpenOptions::new().write(true).open(stage.path("a")).expect("opens");
    std::thread::sleep(Duration::from_millis(50));
    file.write_all_at(b"FU", 0).expect("what makes no file longer goes on");
    drop(file);
    let mut file = (0..5).find_map(|_| asking_before_writing(&stage.path("a"))).expect("`write` tells");
    stage.engine.quota.store(1 << 20, Ordering::Relaxed);
    file.write_all(b" no more").expect("goes on when there is room");
    file.sync_all().expect("syncs");
    assert_eq!(stage.engine.arrived("a"), b"FUll no more");
}

#[test]
fn a_dirty_mapping_is_fetched_too() {
    let Some(stage) = Stage::set() else { return };
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(stage.path("a")).expect("creates");
    file.set_len(4096).expect("extends");
    // SAFETY: maps a whole page of a file that stays that long; checked below.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    drop(file);
    // SAFETY: the page is mapped writable and nobody else uses it.
    unsafe { page.cast::<u8>().write(42) };
    stage.mounted.push_dirty_pages(PATIENCE).expect("pushes");
    assert_eq!(stage.engine.arrived("a")[0], 42);
    // SAFETY: unmaps what was mapped above.
    assert_eq!(unsafe { libc::munmap(page, 4096) }, 0);
}

#[test]
fn without_the_writeback_cache_a_write_arrives_at_once() {
    let Some(stage) = Stage::with(MountOptions { writeback: false, ..MountOptions::default() }) else {
        return;
    };
    let mut file = File::create(stage.path("a")).expect("creates");
    file.write_all(b"at once").expect("writes");
    assert_eq!(stage.engine.arrived("a"), b"at once");
    stage.mounted.push_dirty_pages(PATIENCE).expect("there is nothing to push");
    let before = stage.engine.syncs.load(Ordering::Relaxed);
    let careful =
        OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(stage.path("a")).expect("opens");
    careful.write_all_at(b"A", 0).expect("writes");
    assert!(stage.engine.syncs.load(Ordering::Relaxed) > before);
    stage.set_mode("a", 0o6777);
    assert!(stage.shell_as(STRANGER, "echo more >> a").status.success());
    assert_eq!(stage.mode("a"), 0o777);
}

#[test]
fn the_past_is_found_by_name_and_never_changes() {
    let resolver = Arc::new(|name: &str| (name == "before").then_some(fs_format::Seq(1)));
    let options = MountOptions { resolver: Some(resolver), ..MountOptions::default() };
    let Some(stage) = Stage::with(options) else { return };
    assert_eq!(stage.names(".snapshots"), [""; 0]);
    fs::create_dir(stage.path("dir")).expect("mkdir");
    stage.write("dir/a", "old");
    stage.engine.seal();
    stage.write("dir/a", "new");
    stage.write("later", "");
    stage.engine.seal();

    assert_eq!(stage.names(""), ["dir", "later"], "hidden from the listing");
    let moments = stage.names(".snapshots");
    assert_eq!(moments.len(), 2, "the listing follows: {moments:?}");
    for moment in &moments {
        assert!(stage.path(&format!(".snapshots/{moment}")).is_dir(), "{moment}");
    }
    // Within one second the older one has the longer name.
    let is_old = |moment: &&String| stage.names(&format!(".snapshots/{moment}")) == ["dir"];
    let old = format!(".snapshots/{}", moments.iter().find(is_old).expect("one has no `later`"));
    assert_eq!(stage.read(&format!("{old}/dir/a")), "old");
    assert_eq!(stage.read("dir/a"), "new");
    assert_eq!(stage.names(&old), ["dir"]);
    assert_eq!(stage.read(".snapshots/before/dir/a"), "old");
    assert_eq!(Stage::errno(fs::metadata(stage.path(".snapshots/never"))), Some(libc::ENOENT));

    for outcome in [
        Stage::errno(fs::write(stage.path(&format!("{old}/dir/a")), "x")),
        Stage::errno(fs::write(stage.path(&format!("{old}/b")), "x")),
        Stage::errno(fs::remove_file(stage.path(&format!("{old}/dir/a")))),
        Stage::errno(fs::create_dir(stage.path(&format!("{old}/new")))),
    ] {
        assert_eq!(outcome, Some(libc::EROFS));
    }
    assert_eq!(Stage::errno(fs::remove_dir(stage.path(".snapshots"))), Some(libc::EPERM));
    assert_eq!(Stage::errno(fs::create_dir(stage.path(".snapshots/x"))), Some(libc::EPERM));
    assert_eq!(Stage::errno(fs::rename(stage.path("dir"), stage.path(".snapshots"))), Some(libc::EPERM));
    let linked = fs::hard_link(stage.path(&format!("{old}/dir/a")), stage.path("linked"));
    assert_eq!(Stage::errno(linked), Some(libc::EXDEV));
    fs::copy(stage.path(&format!("{old}/dir/a")), stage.path("restored")).expect("copies out of the past");
    assert_eq!(stage.read("restored"), "old");
    stage.write("dir/.snapshots", "only the root's name is taken");
    assert_eq!(stage.shell(&format!("cd {old}/dir && cd .. && ls && cd ../.. && ls dir")), "dir\na");
}

#[test]
fn no_file_is_taken_for_one_of_another_era() {
    if !kernel_has_fuse() {
        return;
    }
    let folder = folder();
    let engine = Arc::new(Memory::followed());
    let resolver = Arc::new(|name: &str| (name == "second").then_some(Seq(2)));
    let options = MountOptions { read_only: true, resolver: Some(resolver), ..MountOptions::default() };
    let mounted = fs_fuse::mount(Arc::clone(&engine), &folder.path().join("mnt"), options).expect("mounts");
    // The same numbers of inodes and moments, twice.
    let grow = |name: &str, byte: u8| {
        let me = Caller { uid: 0, gid: 0 };
        let dir = engine.make(me, Ino::ROOT, name.as_bytes(), 0o755, NewNode::Directory, &[]).expect("made");
        let file = engine.make(me, dir.ino, b"file", 0o644, NewNode::File, &[]).expect("made");
        engine.write(file.ino, 0, &[byte; 300_000], false).expect("written");
        assert_eq!(engine.seal(), Seq(2));
        file.ino
    };
    let path = |name: &str| mounted.path().join(name);
    let begin = |file: &Path| {
        let mut file = File::open(file).expect("opens");
        let mut first = [0; 4096];
        file.read_exact(&mut first).expect("reads");
        assert_eq!(first, [b'x'; 4096]);
        file
    };
    engine.seal();
    let old = grow("x", b'x');
    let dir = File::open(path("x")).expect("opens");
    let handles = [begin(&path("x/file")), begin(&path(".snapshots/second/x/file"))];
    let number = handles.each_ref().map(|handle| handle.metadata().expect("stats").ino());

    for round in [b'y', b'z'] {
        engine.begin_era_at(Seq(1));
        let name = char::from(round).to_string();
        assert_eq!(grow(&name, round), old, "the test needs the same number");
        mounted.tree_changed();
        // Names are a second old at most.
        std::thread::sleep(Duration::from_millis(1100));
        for new in [format!("{name}/file"), format!(".snapshots/second/{name}/file")] {
            let new = path(&new);
            assert!(fs::read(&new).expect("reads").iter().all(|byte| *byte == round), "{}", new.display());
            assert!(
                !number.contains(&fs::metadata(&new).expect("stats").ino()),
                "the kernel keeps them apart"
            );
        }
        for mut handle in handles.iter() {
            let mut read = Vec::new();
            handle.seek(SeekFrom::Start(0)).expect("seeks");
            let outcome = handle.read_to_end(&mut read);
            assert!(read.iter().all(|byte| *byte == b'x'), "a handle reads another file");
            assert_eq!(Stage::errno(outcome), Some(libc::ESTALE));
        }
        assert_eq!(Stage::errno(handles[0].metadata()), Some(libc::ESTALE));
        let through = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
        assert_eq!(Stage::errno(fs::read_dir(through).map(Iterator::count)), Some(libc::ESTALE));
        assert_eq!(Stage::errno(fs::metadata(path("x"))), Some(libc::ENOENT));
    }
    drop((dir, handles));
    mounted.unmount().expect("unmounts");
}

#[test]
fn a_still_tree_is_read_and_not_written() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "kept");
    let folder = folder();
    let still = Arc::new(Still::new(stage.engine.frozen(), 4096, 1));
    let options = MountOptions { read_only: true, ..MountOptions::default() };
    let mounted = fs_fuse::mount(still, &folder.path().join("mnt"), options).expect("mounts");
    let path = mounted.path().join("a");
    assert_eq!(fs::read_to_string(&path).expect("reads"), "kept");
    assert_eq!(fs::read_to_string(&path).expect("reads again"), "kept");
    assert_eq!(Stage::errno(fs::write(&path, "x")), Some(libc::EROFS));
    assert!(!mounted.path().join(".snapshots").exists());
    mounted.unmount().expect("unmounts");
}

#[test]
fn mount_points_are_checked_before_anything_happens() {
    if !kernel_has_fuse() {
        return;
    }
    let folder = folder();
    let attempt = |name: &str| {
        let engine = Arc::new(Memory::new());
        fs_fuse::mount(engine, &folder.path().join(name), MountOptions::default()).map(|_| ())
    };
    fs::write(folder.path().join("file"), "").expect("writes");
    fs::create_dir(folder.path().join("full")).expect("mkdir");
    fs::write(folder.path().join("full/x"), "").expect("writes");
    assert!(matches!(attempt("missing"), Err(MountError::Missing(_))));
    assert!(matches!(attempt("file"), Err(MountError::NotADirectory(_))));
    assert!(matches!(attempt("full"), Err(MountError::NotEmpty(_))));
}

#[test]
fn a_mount_that_lost_its_daemon_is_told_from_a_full_folder() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "the kernel remembers that the folder is there");
    let path = stage.mounted.path().to_owned();
    let connection = libc::minor(fs::metadata(&path).expect("stats").dev());
    let control = folder();
    let run = |program: &str, args: &[&str]| {
        assert!(Command::new(program).args(args).status().is_ok_and(|status| status.success()), "{args:?}");
    };
    let connections = control.path().join("mnt");
    run("mount", &["-t", "fusectl", "none", connections.to_str().expect("UTF-8")]);
    let aborted = fs::write(connections.join(format!("{connection}/abort")), "1");
    run("umount", &[connections.to_str().expect("UTF-8")]);
    aborted.expect("aborts the connection");
    let _ = stage.mounted.wait();

    let again = fs_fuse::mount(Arc::new(Memory::new()), &path, MountOptions::default());
    run("umount", &["-l", path.to_str().expect("UTF-8")]);
    assert!(matches!(again.map(|_| ()), Err(MountError::Dead(_))));
}

#[test]
fn a_busy_mount_says_so_and_a_free_one_ends() {
    let Some(stage) = Stage::set() else { return };
    let file = File::create(stage.path("a")).expect("creates");
    assert!(matches!(stage.mounted.unmount(), Err(MountError::Busy(_))));
    assert!(!stage.mounted.has_ended());
    drop(file);
    stage.mounted.unmount().expect("unmounts");
    stage.mounted.wait().expect("has ended");
    assert_eq!(fs::read_dir(stage.mounted.path()).expect("the folder below").count(), 0);
    stage.mounted.unmount().expect("again is no error");
}

#[test]
fn an_unmount_from_outside_ends_the_session() {
    let Some(stage) = Stage::set() else { return };
    stage.write("a", "x");
    let status = Command::new("umount").arg(stage.mounted.path()).status().expect("umount runs");
    assert!(status.success());
    stage.mounted.wait().expect("has ended");
}

#[test]
fn room_is_shown() {
    let Some(stage) = Stage::set() else { return };
    assert_eq!(stage.shell("stat -f -c '%S %b %f' ."), format!("4096 {} {}", 1 << 18, 1 << 17));
    // The kernel says ENOTTY or EOPNOTSUPP, by its age.
    assert!(!stage.shell_as(0, "touch f && lsattr f").status.success());
    assert_eq!(File::open(stage.path("none")).expect_err("is not there").kind(), ErrorKind::NotFound);
}
