//! Archives of a moment, as other tools read them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::World;

/// All that is to be the same of what lies below a folder, by path.
fn described(folder: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut inos: BTreeMap<u64, usize> = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.symlink_metadata().expect("metadata").is_dir() {
                folders.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let stat = path.symlink_metadata().expect("metadata");
        let count = inos.len();
        let ino = *inos.entry(stat.ino()).or_insert(count);
        let content = match stat.file_type() {
            kind if kind.is_file() => blake3::hash(&fs::read(&path).expect("bytes")).to_hex().to_string(),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).expect("a target")),
            _ => String::new(),
        };
        let mode = if stat.is_symlink() { 0 } else { stat.mode() };
        let size = if stat.is_dir() { 0 } else { stat.len() };
        let names = if stat.is_dir() { 0 } else { stat.nlink() };
        let told = format!(
            "{:?} {mode:o} {}:{} {size} {}.{:09} {names} {ino} {:x} {content} {:?}",
            stat.file_type(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev(),
            xattrs(&path)
        );
        all.insert(path.strip_prefix(folder).expect("below it").as_os_str().as_bytes().to_vec(), told);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names.truncate(len);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("a value");
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it starts");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A volume with the snapshot `t` of all kinds of things.
fn with_everything(world: &World) {
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    world.comb("mount photos mount").done();
    let tree = mount.join("tree");
    fs::create_dir(&tree).expect("a folder");
    fs::write(tree.join("file"), "content").expect("a file");
    fs::write(tree.join("empty"), "").expect("a file");
    fs::write(tree.join("block"), [7; 512]).expect("a file");
    fs::hard_link(tree.join("file"), tree.join("twin")).expect("a second name");
    symlink("file", tree.join("link")).expect("a link");
    symlink("x".repeat(300), tree.join("far")).expect("a link");
    fs::write(tree.join("größe\nzwei Zeilen"), "name").expect("a file");
    fs::write(tree.join(OsStr::from_bytes(b"no text \xff\xfe")), "bytes").expect("a file");
    fs::write(tree.join("n".repeat(255)), "long").expect("a file");
    let deep = (0..6).fold(tree.clone(), |path, i| path.join(format!("{i}-{}", "d".repeat(60))));
    fs::create_dir_all(&deep).expect("folders");
    fs::write(deep.join("bottom"), "deep").expect("a file");
    for (name, size, islands) in [
        ("islands", 64 << 20, &[0, 32 << 20, (64 << 20) - 3][..]),
        ("hole", 5 << 20, &[]),
        ("end", 9_000, &[0]),
    ] {
        let sparse = File::create(tree.join(name)).expect("a file");
        sparse.set_len(size).expect("a hole");
        islands.iter().for_each(|at| sparse.write_all_at(b"abc", *at).expect("an island"));
    }
    run("mkfifo", &[text(&tree.join("pipe"))]);
    fs::set_permissions(tree.join("file"), fs::Permissions::from_mode(0o604)).expect("a mode");
    run("touch", &["-d", "2001-02-03 04:05:06.789123456", text(&tree.join("file"))]);
    run("touch", &["-d", "1960-02-03 04:05:06.5", text(&tree.join("block"))]);
    if rustix::process::geteuid().is_root() {
        run("mknod", &[text(&tree.join("device")), "c", "240", "70000"]);
        run("chown", &["3000000:4000000", text(&tree.join("block"))]);
        run("setfattr", &["-n", "user.a=b%", "-v", "0x000aff", text(&tree.join("file"))]);
        run("setfattr", &["-n", "user.folder", "-v", "kept", text(&tree)]);
        run("setfacl", &["-m", "u:1234:rw", text(&tree.join("empty"))]);
        run("chmod", &["4755", text(&tree.join("end"))]);
    }
    run("touch", &["-d", "2002-03-04 05:06:07", text(&tree)]);
    world.comb("snapshot photos --tag t").done();
}

#[test]
fn what_tar_extracts_is_what_a_restore_writes() {
    let world = World::new();
    with_everything(&world);
    world.comb("export photos@t --tar all.tar").done();
    assert_eq!(fs::metadata(world.path("all.tar")).expect("the archive").mode() & 0o777, 0o600);
    assert!(fs::metadata(world.path("all.tar")).expect("the archive").len() < 2 << 20, "holes take no room");
    world.comb("export photos@t --tar all.tar").refused(4, "exists");

    // On a Comb mount, since /tmp may have no attributes.
    let (tar, by_tar, by_comb) =
        (world.path("all.tar"), world.path("mount/by-tar"), world.path("mount/by-comb"));
    fs::create_dir(&by_tar).expect("a folder");
    let extract =
        ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", text(&tar), "-C", text(&by_tar)];
    let said = run("tar", &extract);
    assert!(!said.to_lowercase().contains("error"), "{said}");
    world.words(["restore", "photos@t:/", "--to", text(&by_comb)]).done();
    let (tar_has, comb_has) = (described(&by_tar), described(&by_comb));
    assert!(comb_has.len() > 20, "{comb_has:?}");
    for (path, told) in &comb_has {
        assert_eq!(tar_has.get(path), Some(told), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(tar_has.len(), comb_has.len());
    let blocks = fs::metadata(by_tar.join("tree/islands")).expect("the sparse file").blocks();
    assert!(blocks * 512 < 1 << 20, "holes stay holes");
    world.comb("unmount mount").done();
}

#[test]
fn an_archive_of_a_part_goes_to_a_pipe() {
    let world = World::new();
    with_everything(&world);
    world.comb("unmount mount").done();
    let mut export = world.command(["export", "photos@t:tree/file", "--tar"]);
    let mut export = export.stdout(Stdio::piped()).spawn().expect("it starts");
    let listed =
        Command::new("tar").args(["-tvf", "-"]).stdin(export.stdout.take().expect("a pipe")).output();
    assert!(export.wait().expect("it ends").success());
    let listed = String::from_utf8(listed.expect("tar ends").stdout).expect("text");
    assert!(listed.contains(" file") && listed.lines().count() == 1, "{listed}");

    world.comb("export photos@t:tree --tar=-").done();
    world.comb("export photos@t:nothing --tar x.tar").refused(3, "nothing");
    world.comb("export photos@t:tree/file/below --tar x.tar").refused(3, "not a directory");
    world.comb("export photos --tar x.tar").refused(2, "needs a moment");
    world.comb("export photos@t").code.eq(&2).then_some(()).expect("--tar says what it is to be");
    assert!(!world.path("x.tar").exists() && !world.path("x.tar.part").exists());

    // Whoever stops reading is not told that it was all.
    let mut export = world.command(["export", "photos@t", "--tar"]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    drop(export.stdout.take());
    assert_eq!(export.wait().expect("it ends").code(), Some(1));
}

#[test]
fn a_damaged_file_ends_an_archive_and_leaves_no_half() {
    let world = World::new();
    with_everything(&world);
    world.comb("unmount mount").done();
    for pack in fs::read_dir(world.volume_folder().join("packs")).expect("packs") {
        let path = pack.expect("an entry").path();
        let mut bytes = fs::read(&path).expect("bytes");
        // The chunks, not the tree: a pack of chunks has kind 1 behind magic, version and suite.
        if bytes.windows(7).any(|window| window == b"content") {
            unreachable!("plain text in a pack");
        }
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("written");
    }
    let outcome = world.comb("export photos@t --tar x.tar");
    assert_eq!(outcome.code, 5, "{}", outcome.said);
    assert!(!world.path("x.tar").exists() && !world.path("x.tar.part").exists());
}
