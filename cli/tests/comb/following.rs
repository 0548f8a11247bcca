//! Machines that only look: with the volume key or with a read key, from commands and from a mount. On a folder as a store, with
//! the real program, daemons and mounts.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::world::{Outcome, World, copy, noise};

/// How long a mount may take to show what a store shows.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(90);

/// Two machines and a store: one writes the volume, the other looks at it.
struct Scene {
    writer: World,
    reader: World,
}

impl Scene {
    /// The writer has sent a file, `first`, and is mounted. Its key is in the file `key`, the read key in `read`.
    fn new() -> Scene {
        let (writer, reader) = (World::new(), World::new());
        writer.comb("volume create photos").done();
        writer.comb("volume key photos --out key").done();
        writer.comb("key share photos --read --out read").done();
        writer.words(["store", "add", "photos", &url(&writer.dir("store"))]).done();
        writer.dir("mount");
        reader.dir("mount");
        writer.comb("mount photos mount --seal-every 0").done();
        let scene = Scene { writer, reader };
        scene.write("first", "first");
        scene
    }

    /// One whose reader has opened the volume with this key, and these words.
    fn opened(key: &str, how: &str) -> Scene {
        let scene = Scene::new();
        scene.open(key, how).done();
        scene
    }

    fn open(&self, key: &str, how: &str) -> Outcome {
        let key = self.writer.path(key);
        let line =
            format!("volume open photos --key-file {} --store {} {how}", key.display(), url(&self.store()));
        self.reader.comb(&line)
    }

    fn store(&self) -> PathBuf {
        self.writer.path("store")
    }

    /// Writes a file and waits until it is in the store.
    #[track_caller]
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.writer.path("mount").join(name), text).expect("written");
        self.writer.comb("sync photos --wait --limit 2m").done();
    }

    fn shown(&self, name: &str) -> PathBuf {
        self.reader.path("mount").join(name)
    }
}

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// Waits until a mount shows what was sent.
#[track_caller]
fn followed(what: &str, truth: impl Fn() -> bool) {
    let end = Instant::now() + FOLLOWED_WITHIN;
    while !truth() {
        assert!(Instant::now() < end, "{what} is not shown");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_read_key_opens_the_volume_to_be_read_and_nothing_more() {
    let scene = Scene::new();
    let reader = &scene.reader;
    scene.open("read", "--promote").refused(8, "read key");
    let said = scene.open("read", "");
    assert!(said.said.contains("this is a read key"), "{}", said.said);
    assert!(said.done().contains("is open read-only"));

    for read in [
        "ls photos:",
        "cat photos:first",
        "log photos",
        "log photos first",
        "diff photos@1",
        "restore photos@head:first --to out",
        "export photos@head --tar archive",
        "check photos",
        "check photos --level drill",
        "status photos",
        "volume show photos",
        "store list photos",
    ] {
        reader.comb(read).done();
    }
    assert_eq!(fs::read(reader.path("out/first")).expect("restored"), b"first");
    assert_eq!(reader.comb("cat photos:first").done(), "first");
    let before = walked(&scene.store());
    for refused in [
        "snapshot photos",
        "rollback photos@1",
        "sync photos",
        "prune photos",
        "key share photos --read",
        "volume key photos",
        "volume open photos",
        "volume open photos --promote",
        "store test photos",
        "store add photos file:///tmp",
    ] {
        let outcome = reader.comb(refused);
        assert!(outcome.said.contains("read key"), "{refused}: {}{}", outcome.out, outcome.said);
        outcome.refused(8, "read key");
    }
    reader.words(["retain", "photos", "keep 1d for 1y"]).refused(8, "read key");
    reader.comb("volume open photos --read-only").done();

    let mounted = reader.comb("mount photos mount");
    assert!(mounted.said.contains("is mounted read-only: another device writes it"), "{}", mounted.said);
    mounted.done();
    assert_eq!(fs::read(scene.shown("first")).expect("shown"), b"first");
    let error = fs::write(scene.shown("x"), "").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    for refused in ["snapshot photos", "sync photos", "prune photos"] {
        reader.comb(refused).refused(8, "read key");
    }
    reader.comb("check photos").done();
    reader.comb("unmount mount").done();
    assert_eq!(walked(&scene.store()), before, "whoever reads leaves no trace");

    // What is written later is read, too.
    scene.write("second", "second");
    assert_eq!(reader.comb("ls photos:").done(), "first\nsecond\n");

    // A fork is the reader's own.
    reader.comb("fork photos@head mine").done();
    reader.comb("mount mine mount").done();
    fs::write(scene.shown("own"), "own").expect("it is writable");
    assert_eq!(fs::read(scene.shown("second")).expect("shown"), b"second");
    reader.comb("unmount mount").done();
    reader.comb("check mine").done();
    reader.comb("volume key mine").done();
    scene.writer.comb("sync photos --wait").done();
    scene.writer.comb("unmount mount").done();
}

#[test]
fn for_how_long_a_store_was_not_seen_is_counted_on_by_a_new_mount() {
    let scene = Scene::opened("read", "");
    let reader = &scene.reader;
    reader.comb("mount photos mount").done();
    assert_eq!(fs::read(scene.shown("first")).expect("shown"), b"first");
    let unseen = || {
        let status = reader.comb("status photos --json").json();
        status[0]["mounts"][0]["stores"][0]["unseen_seconds"].as_f64().unwrap_or(0.0)
    };
    let away = scene.writer.path("away");
    fs::rename(scene.store(), &away).expect("moved");
    followed("that the store is away", || unseen() > 3.0);
    let before = unseen();
    reader.comb("unmount mount").done();
    reader.comb("mount photos mount").done();
    assert!(unseen() >= before, "{} s after {before} s", unseen());

    // It ends as soon as it is seen.
    fs::rename(&away, scene.store()).expect("moved");
    followed("that the store is there", || unseen() == 0.0);
    reader.comb("unmount mount").done();
    fs::rename(scene.store(), &away).expect("moved");
    let begun = Instant::now();
    reader.comb("mount photos mount").done();
    assert!(unseen() <= begun.elapsed().as_secs_f64(), "it begins anew");
    reader.comb("unmount mount").done();
    fs::rename(&away, scene.store()).expect("moved");
    scene.writer.comb("unmount mount").done();
}

#[test]
fn whoever_is_let_read_puts_nothing_of_his_own_into_the_store() {
    let scene = Scene::opened("read", "");
    scene.reader.private("passphrase", "correct horse battery staple");
    scene.reader.comb("key ring init --passphrase-file passphrase").done();
    scene.reader.comb("volume create private").done();
    let outcome = scene.reader.comb("key ring publish");
    assert!(!scene.store().join("k").exists(), "{}", outcome.said);
}

#[test]
fn a_read_key_in_a_key_ring_is_recovered_to_read() {
    let scene = Scene::opened("read", "");
    let reader = &scene.reader;
    reader.private("passphrase", "correct horse battery staple");
    reader.comb("key ring init --passphrase-file passphrase").done();
    let bare = World::new();
    let ring = reader.path("state/ring");
    let store = scene.store();
    // A copy of the ring in the store, as `comb store add` of another volume puts it there.
    reader.comb("volume create own").done();
    reader.words(["store", "add", "own", &url(&store)]).done();
    assert!(ring.exists());
    let passphrase = reader.path("passphrase");
    let outcome = bare.words([
        "recover".as_ref(),
        "--store".as_ref(),
        url(&store).as_ref() as &std::ffi::OsStr,
        "--passphrase-file".as_ref(),
        passphrase.as_os_str(),
    ]);
    assert!(outcome.out.contains("volume \"photos\" is open read-only, with a read key"), "{}", outcome.said);
    assert_eq!(bare.comb("cat photos:first").done(), "first");
    bare.comb("snapshot photos").refused(8, "read key");
}

/// All files below a folder, with their bytes.
fn walked(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = crate::volumes::walk(folder)
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("its bytes")))
        .collect();
    found.sort();
    found
}

#[test]
fn a_mount_that_only_looks_follows() {
    let scene = Scene::opened("key", "--read-only");
    scene.write("same-length", "before");
    scene.write("goes", "gone, and read");
    scene.reader.comb("mount photos mount").done();
    let held = fs::File::open(scene.shown("same-length")).expect("opened");
    let mut text = [0; 6];
    held.read_exact_at(&mut text, 0).expect("read");
    assert_eq!(&text, b"before");
    let gone = fs::File::open(scene.shown("goes")).expect("opened");
    assert!(!scene.shown("new/file").exists());
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(scene.shown(folder)).expect("listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["first", "goes", "same-length"]);
    let moments = names(".snapshots").len();
    let ino =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(scene.shown(name)).expect("there"));
    let first = ino("first");

    // The same length and time, so that only the pages tell.
    let path = scene.writer.path("mount/same-length");
    let time = fs::metadata(&path).expect("there").modified().expect("a time");
    let file = fs::File::options().write(true).open(&path).expect("opened");
    file.write_all_at(b"after!", 0).expect("written");
    file.set_modified(time).expect("set");
    drop(file);
    fs::remove_file(scene.writer.path("mount/goes")).expect("removed");
    fs::create_dir(scene.writer.path("mount/new")).expect("made");
    scene.write("new/file", "new");

    followed("a new file", || scene.shown("new/file").exists());
    followed("what an open file holds now", || {
        let mut text = [0; 6];
        held.read_exact_at(&mut text, 0).is_ok_and(|()| &text == b"after!")
    });
    followed("that a file is gone", || !scene.shown("goes").exists());
    // Who has it open reads on, as anywhere.
    let mut text = [0; 14];
    gone.read_exact_at(&mut text, 0).expect("read");
    assert_eq!(&text, b"gone, and read");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&gone.metadata().expect("told")), 0);
    drop(gone);
    assert_eq!(fs::read(scene.shown("same-length")).expect("read"), b"after!");
    assert_eq!(names(""), ["first", "new", "same-length"]);
    assert_eq!(fs::read(scene.shown("new/file")).expect("read"), b"new");
    assert_eq!(ino("first"), first);
    assert!(names(".snapshots").len() > moments, "the past grows, too");
    let status = scene.reader.comb("status photos --json").json();
    let head = scene.writer.comb("status photos --json").json()[0]["head"]["seq"].clone();
    assert_eq!(status[0]["mounts"][0]["head"]["seq"], head);
    drop(held);

    // What came later is fetched, too, and not only when it is read.
    let noise = noise(1, 160_000);
    scene.write("large", &noise);
    let largest = |folder: &Path| {
        let files = crate::volumes::walk(folder);
        files.iter().map(|path| fs::metadata(path).map_or(0, |meta| meta.len())).max()
    };
    let packs = scene.reader.volume_folder().join("packs");
    followed("what was fetched ahead", || largest(&packs) >= Some(noise.len() as u64));

    // Without the store it shows what it showed, and goes on when it is back.
    fs::rename(scene.store(), scene.writer.path("away")).expect("moved");
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(fs::read(scene.shown("new/file")).expect("read"), b"new");
    fs::rename(scene.writer.path("away"), scene.store()).expect("back again");
    scene.write("last", "last");
    followed("what came after an outage", || scene.shown("last").exists());
    scene.reader.comb("unmount mount").done();
    scene.writer.comb("unmount mount").done();
}

#[test]
fn commands_that_look_see_what_was_sent_since() {
    let scene = Scene::opened("key", "--read-only");
    let reader = &scene.reader;
    for (number, command) in
        ["ls photos:", "log photos later-1", "cat photos:later-2", "diff photos@1"].iter().enumerate()
    {
        scene.write(&format!("later-{number}"), "text");
        let shown = reader.comb(command).done();
        assert!(
            shown.contains(&format!("later-{number}"))
                || shown.contains("text")
                || command.starts_with("log"),
            "{command}: {shown}"
        );
    }
    scene.writer.comb("snapshot photos --tag release").done();
    scene.writer.comb("sync photos --wait").done();
    assert_eq!(reader.comb("cat photos@release:later-2").done(), "text");

    fs::rename(scene.store(), scene.writer.path("away")).expect("moved");
    let away = reader.comb("ls photos:");
    assert!(away.said.contains("showing what was seen last"), "{}", away.said);
    assert!(away.done().contains("later-3"));
    fs::rename(scene.writer.path("away"), scene.store()).expect("back again");
    scene.writer.comb("unmount mount").done();
}

#[test]
fn a_store_that_was_put_back_in_time_is_told_as_that_to_who_read_nothing_yet() {
    let scene = Scene::new();
    let old = scene.writer.path("old");
    copy(&scene.store(), &old);
    scene.write("second", "second");
    scene.open("key", "--read-only").done();
    fs::rename(scene.store(), scene.writer.path("new")).expect("moved");
    copy(&old, &scene.store());

    let reader = &scene.reader;
    for line in ["ls photos:", "cat photos:second", "mount photos mount"] {
        let outcome = reader.comb(line);
        assert!(!outcome.said.contains("damaged"), "{line}: {}", outcome.said);
        outcome.refused(6, "shows an old or a foreign state");
    }
    // Who believes it, sees it.
    reader.comb("volume open photos --read-only --accept-rollback").done();
    assert_eq!(reader.comb("ls photos:").done(), "first\n");
    reader.comb("mount photos mount").done();
    assert_eq!(fs::read(scene.shown("first")).expect("shown"), b"first");
    reader.comb("unmount mount").done();
    reader.comb("check photos").done();
    fs::remove_dir_all(scene.store()).expect("removed");
    fs::rename(scene.writer.path("new"), scene.store()).expect("back again");
    scene.writer.comb("unmount mount").done();
}

#[test]
fn what_a_read_key_cannot_mend_or_prune_is_told_with_who_can() {
    let scene = Scene::opened("read", "--wait");
    let reader = &scene.reader;
    let unruled = reader.comb("prune photos --dry-run");
    assert!(unruled.said.contains("whoever writes the volume gives it one"), "{}", unruled.said);
    unruled.refused(3, "has no policy");
    scene.writer.words(["retain", "photos", "keep last 1"]).done();
    scene.writer.comb("sync photos --wait").done();
    let outcome = reader.comb("prune photos -n");
    assert!(outcome.said.contains("another device writes the volume, and prunes it"), "{}", outcome.said);
    outcome.done();
    reader.comb("prune photos").refused(8, "holds a read key");

    let lost = packs(&scene.store()).remove(0);
    fs::remove_file(&lost).expect("removed");
    let outcome = reader.comb("check photos --repair");
    assert!(outcome.said.contains("where the volume is written"), "{}", outcome.said);
    outcome.refused(5, "is damaged in 1 place");
    assert!(!lost.exists(), "who reads puts nothing there");
    scene.writer.comb("check photos --repair").done();
    assert!(lost.exists());
    reader.comb("check photos --repair").done();

    // A key that others can read is told, with what to do.
    let key = scene.writer.path("read");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let other = World::new();
    let words = format!("volume open photos --key-file {} --store {}", key.display(), url(&scene.store()));
    let said = other.comb(&words).said;
    assert!(said.contains("is open to other users") && said.contains("`chmod 600 "), "{said}");
    scene.writer.comb("unmount mount").done();
}

#[test]
fn who_does_not_know_what_he_saw_is_loud_until_he_says_what_to_believe() {
    let scene = Scene::opened("key", "--read-only");
    let reader = &scene.reader;
    assert_eq!(reader.comb("cat photos:first").done(), "first");
    fs::write(reader.volume_folder().join("seen/folder"), "rubbish").expect("damaged");
    scene.write("second", "second");

    // What is here is shown all the same.
    for (line, shown) in [
        ("ls photos:", "first"),
        ("cat photos:first", "first"),
        ("log photos", "SEQ"),
        ("diff photos@1", "A first"),
    ] {
        let outcome = reader.comb(line);
        assert!(outcome.out.contains(shown), "{line}: {}", outcome.out);
        assert!(
            outcome.said.contains("`comb volume open photos --accept-rollback`"),
            "{line}: {}",
            outcome.said
        );
        outcome.refused(5, "what was seen of store \"folder\" is not known");
    }
    for line in ["fork photos copy", "cat photos:second", "restore photos@head:first --to back"] {
        reader.comb(line).refused(5, "what was seen of store \"folder\" is not known");
    }
    // So is a moment that was named: it is what it is.
    assert_eq!(reader.comb("cat photos@3:first").done(), "first");
    let mounted = reader.comb("mount photos mount");
    assert!(mounted.said.contains("--accept-rollback"), "{}", mounted.said);
    mounted.done();
    reader.comb("status photos").refused(5, "nothing new is shown of volume \"photos\"");
    reader.comb("unmount mount").done();
    reader.comb("status").refused(5, "nothing new is shown of volume \"photos\"");

    reader.comb("volume open photos --read-only --accept-rollback").done();
    assert_eq!(reader.comb("cat photos:second").done(), "second");
    reader.comb("status photos").done();
    scene.writer.comb("unmount mount").done();
}

#[test]
fn a_mount_that_could_show_nothing_is_refused_before_it_is_said_to_be_there() {
    let scene = Scene::opened("key", "--read-only");
    fs::rename(scene.store(), scene.writer.path("away")).expect("moved");
    let reader = &scene.reader;
    for how in ["", "--foreground", "--at 1"] {
        let begun = Instant::now();
        let outcome = reader.comb(&format!("mount photos mount {how}"));
        assert!(!outcome.said.contains("is mounted on"), "{how}: {}", outcome.said);
        assert!(!outcome.said.contains("is mounted read-only"), "{how}: {}", outcome.said);
        assert!(outcome.said.contains("hint: "), "{how}: {}", outcome.said);
        outcome.refused(10, "the store cannot be reached");
        assert!(begun.elapsed() < Duration::from_secs(50), "as soon as a command: {:?}", begun.elapsed());
    }
    fs::rename(scene.writer.path("away"), scene.store()).expect("back again");
    let said = reader.comb("mount photos mount").said;
    assert!(said.contains("is mounted read-only"), "{said}");
    assert_eq!(fs::read(scene.shown("first")).expect("shown"), b"first");
    reader.comb("unmount mount").done();
    scene.writer.comb("unmount mount").done();
}

#[test]
fn what_collection_gave_up_is_no_damage_for_who_looks() {
    let scene = Scene::opened("key", "--read-only");
    // A moment whose packs go: the file is written anew, and the policy keeps the newest only.
    scene.write("big", noise(1, 160_000));
    let reader = &scene.reader;
    // Gone before the mount could fetch it in the background.
    let biggest =
        packs(&scene.store()).into_iter().max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    fs::remove_file(biggest.expect("a pack")).expect("removed");
    reader.comb("mount photos mount").done();
    let seen = reader.comb("status photos --json").json()[0]["head"]["seq"].as_u64().expect("a number");
    fs::write(scene.writer.path("mount/big"), "small now").expect("written");
    scene.writer.comb("sync photos --wait").done();
    // The moment that is shown is not kept.
    scene.writer.words(["retain", "photos", "keep 1s for 1s"]).done();
    std::thread::sleep(Duration::from_secs(2));
    fs::write(scene.writer.path("mount/more"), "more").expect("written");
    scene.writer.comb("sync photos --wait").done();
    scene.writer.comb("prune photos").done();
    scene.writer.comb("sync photos --wait").done();

    // What was shown is dropped, and that is no error of the disk; who opens the file again reads what is newest. Nobody reads
    // zeros because the file is shorter now.
    let begun = Instant::now();
    loop {
        match fs::read(scene.shown("big")) {
            Ok(read) if read == b"small now" => break,
            Ok(read) => panic!("{} bytes, {:?}", read.len(), &read[..16.min(read.len())]),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
        }
        assert!(begun.elapsed() < FOLLOWED_WITHIN, "it is not shown");
        std::thread::sleep(Duration::from_millis(50));
    }
    let error = fs::read(reader.path(&format!("mount/.snapshots/{seen}/big"))).expect_err("it is not kept");
    assert_ne!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let status = reader.comb("status photos --json").json();
    assert_eq!(status[0]["mounts"][0]["damage"].as_array().map_or(0, Vec::len), 0, "{status}");
    reader.comb("unmount mount").done();
    scene.writer.comb("unmount mount").done();
}

#[test]
fn what_the_volume_has_given_up_goes_from_who_looks_too() {
    let scene = Scene::opened("key", "--read-only");
    let (writer, reader) = (&scene.writer, &scene.reader);
    reader.comb("mount photos mount").done();
    let mut moments = Vec::new();
    for (seed, how) in [(1, "--tag release"), (2, ""), (3, "")] {
        fs::write(writer.path("mount/big"), noise(seed, 400_000)).expect("written");
        let taken = writer.comb(&format!("snapshot photos --json {how}")).json();
        moments.push(taken["seq"].as_u64().expect("a number"));
        writer.comb("sync photos --wait --limit 30s").done();
    }
    let folder = reader.volume_folder();
    let names = |path: PathBuf| -> std::collections::BTreeSet<_> {
        crate::volumes::walk(&path)
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(String::from))
            .collect()
    };
    let (here, there) = (|| names(folder.join("packs")), || packs(&scene.store()));
    let names_there = || -> std::collections::BTreeSet<_> {
        there().iter().filter_map(|path| path.file_name()?.to_str().map(String::from)).collect()
    };
    followed("all of it is fetched", || here() == names_there());
    let at = |seq: u64| fs::File::open(scene.shown(&format!(".snapshots/{seq}/big"))).expect("opened");
    let (kept, dropped) = (at(moments[0]), at(moments[1]));

    let before = names_there();
    writer.words(["retain", "photos", "keep last 1; keep snapshots for 1s; keep tag release forever"]).done();
    std::thread::sleep(Duration::from_secs(2));
    writer.comb("prune photos --grace 0").done();
    writer.comb("sync photos --wait --limit 30s").done();
    assert!(names_there().len() < before.len(), "the test needs packs that were collected");
    let is_dropped = |name: &String| before.contains(name) && !names_there().contains(name);
    followed("that packs are gone", || !here().iter().any(is_dropped));
    followed("that what is kept is fetched", || here() == names_there());
    let manifests = || names(folder.join("manifests"));
    followed("that manifests are gone", || !manifests().contains(&format!("{:016x}", moments[1])));

    let mut bytes = vec![0; 400_000];
    kept.read_exact_at(&mut bytes, 0).expect("the moment is kept");
    assert!(bytes == noise(1, 400_000));
    // The kernel may have pages of it; past them it is asked for.
    if let Err(error) = dropped.read_exact_at(&mut bytes, 0) {
        assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    }
    let error = fs::File::open(scene.shown(&format!(".snapshots/{}/big", moments[1])))
        .and_then(|file| file.read_exact_at(&mut bytes, 0))
        .err();
    assert!(error.is_none_or(|error| error.raw_os_error() != Some(libc::EIO)));
    assert!(fs::read(scene.shown("big")).expect("the newest") == noise(3, 400_000));
    let status = reader.comb("status photos --json").json();
    assert_eq!(status[0]["mounts"][0]["damage"].as_array().map_or(0, Vec::len), 0, "{status}");
    drop((kept, dropped));
    reader.comb("unmount mount").done();
    reader.comb("check photos").done();
    writer.comb("unmount mount").done();
}

#[test]
fn what_a_takeover_cut_off_is_not_taken_for_what_came_instead() {
    let scene = Scene::new();
    let (writer, reader, taker) = (&scene.writer, &scene.reader, World::new());
    // The reader follows a copy, which takes what the store that decides never saw.
    let copy = url(&writer.dir("copy"));
    writer.words(["store", "add", "photos", &copy, "--as", "copy"]).done();
    writer.comb("sync photos --wait --limit 2m").done();
    let read = writer.path("read");
    reader
        .comb(&format!("volume open photos --key-file {} --store {copy} --read-only", read.display()))
        .done();
    reader.comb("mount photos mount").done();

    fs::rename(scene.store(), writer.path("away")).expect("moved");
    fs::write(writer.path("mount/x"), [b'x'; 300_000]).expect("written");
    writer.comb("snapshot photos --tag tail").done();
    followed("the tail", || scene.shown("x").exists());
    let moments = || -> Vec<String> {
        let entries = fs::read_dir(scene.shown(".snapshots")).expect("listed");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    let begun = |path: PathBuf| {
        let file = fs::File::open(path).expect("opened");
        let mut first = [0; 4096];
        file.read_exact_at(&mut first, 0).expect("read");
        assert_eq!(first, [b'x'; 4096]);
        file
    };
    let handles = [begun(scene.shown("x")), begun(scene.shown(".snapshots/tail/x"))];
    let number = |file: &fs::File| std::os::unix::fs::MetadataExt::ino(&file.metadata().expect("told"));
    let cut_off = number(&handles[0]);
    writer.comb("unmount mount");
    fs::rename(writer.path("away"), scene.store()).expect("back again");

    // Another machine takes over what the store knows.
    let key = writer.path("key");
    taker
        .words(["volume", "open", "photos", "--key-file"].iter().map(std::ffi::OsStr::new).chain([
            key.as_os_str(),
            "--store".as_ref(),
            url(&scene.store()).as_ref(),
        ]))
        .done();
    taker.dir("mount");
    taker.comb("mount photos mount --seal-every 0").done();
    fs::write(taker.path("mount/y"), [b'y'; 300_000]).expect("written");
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(taker.path("mount/y")).expect("there")),
        cut_off,
        "the test needs the same number"
    );
    taker.comb("snapshot photos --tag new").done();
    taker.comb("sync photos --wait --limit 2m").done();
    // The one that was taken over keeps its tail as a branch, and mends the copy.
    let _ = writer.comb("sync photos --wait --limit 2m");
    writer.comb("volume open photos").done();
    writer.comb("sync photos --wait --limit 2m").done();
    followed("what came instead", || scene.shown("y").exists());

    assert!(fs::read(scene.shown("y")).expect("read").iter().all(|byte| *byte == b'y'));
    assert!(!scene.shown("x").exists());
    for moment in moments() {
        let folder = scene.shown(".snapshots").join(&moment);
        assert!(!folder.join("x").exists(), "{moment} is of the history that was cut off");
    }
    let new = scene.shown(".snapshots/new/y");
    assert!(fs::read(&new).expect("read").iter().all(|byte| *byte == b'y'));
    for handle in &handles {
        let mut bytes = vec![0; 300_000];
        match handle.read_exact_at(&mut bytes, 0) {
            Ok(()) => assert!(bytes.iter().all(|byte| *byte == b'x'), "a handle reads another file"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
        }
    }
    assert_eq!(handles[0].metadata().err().and_then(|error| error.raw_os_error()), Some(libc::ESTALE));
    let status = reader.comb("status photos --json").json();
    assert_eq!(status[0]["mounts"][0]["damage"].as_array().map_or(0, Vec::len), 0, "{status}");
    drop(handles);
    reader.comb("unmount mount").done();
    reader.comb("check photos").done();
    taker.comb("unmount mount").done();
}

fn packs(store: &Path) -> Vec<PathBuf> {
    let is_pack = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("p"));
    crate::volumes::walk(store).into_iter().filter(is_pack).collect()
}
