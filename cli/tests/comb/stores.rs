//! Stores: what a volume sends there, who may go on from there, and what is refused. On folders, with the real program,
//! daemons and mounts; `tests/suites/replication` does the same against real servers that fail.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::volumes::walk;
use crate::world::{self, Outcome, World, copy, noise, put_back, wait_until};

const PASSPHRASE: &str = "correct horse battery staple";

/// A machine: a state folder with one volume, `photos`, mounted on `mount` when it is.
struct Machine {
    world: World,
}

impl Machine {
    /// One that made the volume. Its key lies in `key`, its store in `store`.
    fn first() -> Machine {
        let machine = Machine { world: World::new() };
        machine.world.dir("mount");
        machine.world.dir("store");
        machine.comb("volume create photos").done();
        machine.comb("volume key photos --out key").done();
        machine
    }

    /// The same, which replicates to its store.
    fn with_store() -> Machine {
        let machine = Machine::first();
        machine.comb(&format!("store add photos {}", machine.url())).done();
        machine
    }

    /// An empty one.
    fn bare() -> Machine {
        let machine = Machine { world: World::new() };
        machine.world.dir("mount");
        machine
    }

    /// One that opened the volume of another from this store.
    fn opened(first: &Machine, url: &str, how: &str) -> Machine {
        let machine = Machine::bare();
        machine.open(first, url, how).done();
        machine
    }

    fn open(&self, first: &Machine, url: &str, how: &str) -> Outcome {
        let key = first.world.path("key");
        self.comb(&format!("volume open photos --key-file {} --store {url} {how}", key.display()))
    }

    fn comb(&self, line: &str) -> Outcome {
        self.world.comb(line)
    }

    fn store(&self) -> PathBuf {
        self.world.path("store")
    }

    /// A copy of the store as it could be at one moment.
    fn copy_of_store(&self, name: &str) -> PathBuf {
        let copy = self.world.path(name);
        copy_store(&self.store(), &copy);
        copy
    }

    fn url(&self) -> String {
        url(&self.store())
    }

    /// Mounts the volume, which is sealed only when it is told to be.
    fn mount(&self) -> Outcome {
        self.comb("mount photos mount --seal-every 0")
    }

    fn unmount(&self) {
        self.comb("unmount mount").done();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.path("mount").join(name)
    }

    /// Writes a file as a careful program does: it is synced.
    #[track_caller]
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = fs::File::create(self.file(name)).expect("a file");
        file.write_all_at(text.as_ref(), 0).expect("written");
        file.sync_all().expect("synced");
    }

    /// Seals, sends, and waits until it is there.
    #[track_caller]
    fn sync(&self) {
        self.comb("sync photos --wait --limit 2m").done();
    }

    /// Writes and sends so many seals.
    #[track_caller]
    fn go_on(&self, seals: u32) {
        for number in 0..seals {
            self.write(&format!("new-{number}"), "");
            self.sync();
        }
    }

    /// What `comb status` says of the stores.
    fn stores(&self) -> Vec<Value> {
        let outcome = self.comb("status photos --json");
        assert!([0, 9].contains(&outcome.code), "{}", outcome.said);
        let status: Value = serde_json::from_str(&outcome.out).expect("--json prints JSON");
        status[0]["mounts"][0]["stores"].as_array().cloned().unwrap_or_default()
    }

    /// The newest seal here.
    fn head(&self) -> u64 {
        self.comb("status photos --json").json()[0]["head"]["seq"].as_u64().expect("a number")
    }

    fn replicated(&self) -> Option<u64> {
        self.stores()[0]["replicated_seq"].as_u64()
    }

    /// The seals of this machine that are not in the volume.
    fn tail(&self) -> Vec<u64> {
        let branches = self.comb("branch list photos --json").json();
        let branches = branches.as_array().expect("a list").clone();
        let seals =
            branches.iter().flat_map(|branch| branch["seals"].as_array().cloned().unwrap_or_default());
        seals.map(|seal| seal["seq"].as_u64().expect("a number")).collect()
    }

    /// What is mounted.
    fn tree(&self) -> Tree {
        tree(&self.world.path("mount"))
    }

    /// Turns read-only when it commits the next time.
    fn is_fenced(&self) -> bool {
        self.stores()[0]["state"] == "fenced"
    }
}

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// Files below a folder, by their path in it: how long each is, and a hash of its bytes.
type Tree = BTreeMap<PathBuf, (usize, u64)>;

fn tree(folder: &Path) -> Tree {
    let name = |path: &Path| path.strip_prefix(folder).expect("below").to_owned();
    let read = |path: &Path| digest(&fs::read(path).expect("its bytes"));
    walk(folder).iter().map(|path| (name(path), read(path))).collect()
}

fn digest(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

/// A copy of a store as it could be at one moment, also while somebody sends: a slot comes after its packs, so it is copied
/// before them.
fn copy_store(from: &Path, to: &Path) {
    let mut objects = walk(from);
    objects.retain(|path| !path.components().any(|part| part.as_os_str() == ".incoming"));
    objects.sort_by_key(|path| path.components().any(|part| part.as_os_str() == "p"));
    let rest = |path: &Path| path.strip_prefix(from).expect("below").to_owned();
    let copy = |path: &PathBuf| {
        let to = to.join(rest(path));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
        fs::copy(path, to).expect("a copy");
    };
    objects.iter().for_each(copy);
    // Those that came meanwhile.
    for path in walk(from).iter().filter(|path| path.components().any(|part| part.as_os_str() == "p")) {
        copy(path);
    }
}

/// The objects of the volume of a kind, in the order of their names: `m` slots, the newest first; `p` packs; `c` claims.
fn objects(store: &Path, kind: &str) -> Vec<PathBuf> {
    let volume = fs::read_dir(store.join("v")).expect("volumes").next().expect("one").expect("an entry");
    let mut found = match volume.path().join(kind) {
        folder if folder.exists() => walk(&folder),
        _ => Vec::new(),
    };
    found.sort();
    found
}

#[test]
fn stores_are_added_listed_tested_and_removed() {
    let machine = Machine::first();
    machine.comb("sync photos").refused(3, "has no store");
    machine.comb("store test photos").refused(3, "has no store");
    let said = machine.comb(&format!("store add photos {} --as attic", machine.url())).done();
    assert!(said.contains("decides who may write"), "{said}");
    let second = url(&machine.world.dir("second"));
    let said = machine.comb(&format!("store add photos {second}")).done();
    assert!(said.contains("as a copy"), "{said}");

    let list = machine.comb("store list photos --json").json();
    let of = |name: &str| -> Vec<Value> {
        list.as_array().expect("a list").iter().map(|store| store[name].clone()).collect()
    };
    assert_eq!(of("name"), ["attic", "folder"]);
    assert_eq!(of("arbiter"), [true, false]);
    let text = machine.comb("store list photos").done();
    assert!(text.contains("attic") && text.contains(&second), "{text}");

    machine.comb("store test photos").refused(2, "several stores");
    assert!(machine.comb("store test photos attic").done().contains("newest seal  none"));
    machine.sync();
    assert!(
        machine
            .comb("store test photos folder")
            .done()
            .contains(&format!("newest seal  {} of epoch 1", machine.head()))
    );
    assert_eq!(objects(&machine.store(), "m").len() as u64, machine.head());
    assert_eq!(
        tree(&machine.store()).len(),
        tree(&machine.world.path("second")).len(),
        "a copy has the same"
    );
    let left = tree(&machine.store()).into_keys().find(|name| name.starts_with("probe"));
    assert_eq!(left, None, "the probe leaves nothing");

    machine.comb("store remove photos attic").refused(4, "decides who may write");
    machine.comb("store remove photos cellar").refused(3, "no store \"cellar\"");
    machine.comb("store remove photos folder").done();
    machine.comb("store remove photos attic").done();
    assert_eq!(machine.comb("store list photos --json").json(), serde_json::json!([]));
    // What is there stays there, and is taken up again.
    machine.comb(&format!("store add photos {}", machine.url())).done();
    machine.sync();
}

#[test]
fn a_secret_in_a_url_is_refused_and_not_repeated() {
    let machine = Machine::first();
    for bad in [
        "s3://me:hush@bucket",
        "s3://bucket?secret=hush",
        "s3://bucket#hush",
        "https://me:hush@example.org/dav",
        "ipfs://hush@127.0.0.1:5001",
        "ftp://me:hush@example.org",
        "s3://bucket/pre fix/hush",
        "hush",
    ] {
        let commands = [
            vec!["store", "add", "photos", bad],
            vec!["volume", "open", "other", "--key-file", "key", "--store", bad],
            vec!["recover", "--passphrase-file", "key", "--store", bad],
        ];
        for words in commands {
            let outcome = machine.world.words(&words);
            // A prefix is not secret, and a person must see what is wrong with it.
            let secret = bad.contains('@') || bad.contains('?') || bad.contains('#');
            assert!(!secret || !outcome.said.contains("hush"), "{words:?}: {}", outcome.said);
            outcome.refused(2, "");
        }
    }
    assert_eq!(machine.comb("store list photos --json").json(), serde_json::json!([]));
}

#[test]
fn what_cannot_be_a_store_is_refused_and_changes_nothing() {
    let machine = Machine::with_store();
    let before = machine.comb("store list photos --json").json();
    let second = machine.world.dir("second");
    symlink(machine.store(), machine.world.path("link")).expect("a link");
    fs::write(machine.world.path("file"), "").expect("a file");
    let refused = |words: &str, code: i32, why: &str| machine.comb(words).refused(code, why);
    refused(&format!("store add photos {}", machine.url()), 4, "is store \"folder\" of it already");
    refused(
        &format!("store add photos {}/ --as other", machine.url()),
        4,
        "is store \"folder\" of it already",
    );
    refused(&format!("store add photos {}", url(&machine.world.path("link"))), 4, "under another URL");
    refused(&format!("store add photos {} --as folder", url(&second)), 4, "--as");
    refused(&format!("store add photos {} --as a/b", url(&second)), 2, "a store name has letters");
    refused(&format!("store add photos {}", url(&machine.world.path("missing"))), 10, "is it mounted?");
    refused(&format!("store add photos {}", url(&machine.world.path("file"))), 2, "it is no folder");
    refused("store add photos memory://x", 2, "ends with the process");
    // Nothing listens on this port.
    refused("store add photos ipfs://127.0.0.1:1", 10, "cannot be reached");
    refused("store add photos file://relative/path", 2, "");
    refused("store add missing file:///tmp", 3, "no volume \"missing\"");
    assert!(!machine.world.path("missing").exists(), "an empty mount point is not taken for a store");
    assert_eq!(tree(&second).len(), 0, "what was refused is not begun");
    assert_eq!(machine.comb("store list photos --json").json(), before);
}

#[test]
fn what_is_a_part_of_comb_itself_is_no_store() {
    let machine = Machine::first();
    machine.mount().done();
    fs::create_dir(machine.file("inside")).expect("made");
    symlink(machine.file("inside"), machine.world.path("link")).expect("a link");
    let below = machine.world.dir("state/below");
    let other = Machine::bare();
    let key = machine.world.path("key");
    for (folder, why) in [
        (machine.file("inside"), "in the volume that is mounted on"),
        (machine.file("missing/too"), "in the volume that is mounted on"),
        (machine.world.path("link"), "in the volume that is mounted on"),
        (machine.world.path("state"), "in the state folder"),
        (below.clone(), "in the state folder"),
        (machine.world.path("state/missing"), "in the state folder"),
    ] {
        let url = url(&folder);
        let refused = |machine: &Machine, words: &str| machine.comb(words).refused(2, why);
        refused(&machine, &format!("store add photos {url}"));
        refused(&machine, &format!("volume open more --key-file {} --store {url}", key.display()));
        refused(&machine, &format!("recover --store {url} --passphrase-file {}", key.display()));
        if why.contains("mounted") {
            // Nor is it one for another machine's volumes: two of them could each be in the other's.
            other.comb("volume create other");
            refused(&other, &format!("store add other {url}"));
        }
    }
    assert_eq!(machine.comb("store list photos --json").json(), serde_json::json!([]));
    assert_eq!(tree(&below).len() + tree(&machine.file("inside")).len(), 0, "nothing was touched");
    machine.unmount();
}

#[test]
fn a_volume_that_is_mounted_over_a_store_later_keeps_nobody_waiting() {
    let machine = Machine::first();
    let world = &machine.world;
    let folder = world.dir("disk/store");
    machine.comb(&format!("store add photos {}", url(&folder))).done();
    machine.sync();
    machine.comb("volume create other").done();

    // The disk with the store is not there, so its mount point is empty.
    fs::rename(&folder, world.path("away")).expect("renamed");
    for volume in ["photos", "other"] {
        machine.comb(&format!("mount {volume} disk")).refused(4, "is store \"folder\" of volume \"photos\"");
    }

    // Another machine's state folder knows nothing of that store.
    let other = Machine::bare();
    other.comb("volume create other").done();
    other.comb(&format!("mount other {}", world.path("disk").display())).done();
    fs::create_dir(&folder).expect("made in the volume");
    machine.mount().done();
    fs::write(machine.file("a"), "a").expect("written");
    machine.comb("sync photos --wait --limit 5s").refused(9, "a volume is mounted on");
    assert_eq!(tree(&folder).len(), 0, "nothing was sent into it");
    machine.unmount();
    other.comb(&format!("unmount {}", world.path("disk").display())).done();
    fs::rename(world.path("away"), &folder).expect("it is back");
    machine.sync();
}

#[test]
fn an_unmounted_volume_is_replicated_by_sync() {
    let machine = Machine::with_store();
    let said = machine.comb("sync photos");
    assert!(said.said.contains("is in all stores"), "it waits always: {}", said.said);
    said.done();
    machine.comb("snapshot photos --tag later").done();
    machine.sync();
    assert_eq!(objects(&machine.store(), "m").len() as u64, machine.head());

    // Who is asked whether it may go is told what would go for good.
    let asked = machine.comb("volume remove photos").said;
    assert!(asked.contains("--yes") && !asked.contains("in no store"), "{asked}");
    machine.mount().done();
    fs::rename(machine.store(), machine.world.path("away")).expect("moved");
    machine.write("more", noise(7, 100_000));
    machine.world.kill_daemon();
    let asked = machine.comb("volume remove photos").said;
    assert!(asked.contains("97.7 KiB of it are in no store"), "{asked}");
}

#[test]
fn another_store_behind_the_url_is_refused_with_both_shown() {
    let machine = Machine::with_store();
    machine.sync();
    let id = machine.comb("store list photos --json").json()[0]["id"].as_str().expect("an id").to_owned();
    fs::rename(machine.store(), machine.world.path("right")).expect("moved");

    // Not there, as a share that is not mounted.
    machine.comb("store test photos").refused(10, "is it mounted?");
    machine.comb("snapshot photos").done();
    machine.comb("sync photos --limit 5s").refused(9, "is it mounted?");
    assert!(!machine.store().exists());

    // There, and empty; nobody waits a day for it.
    machine.world.dir("store");
    machine.comb("store test photos").refused(6, &id);
    machine.comb("sync photos --limit 1h").refused(9, &id);
    assert_eq!(tree(&machine.store()).len(), 0, "nothing is sent there");

    // The same volume in another store.
    let other = Machine::bare();
    let key = machine.world.path("key");
    other.comb(&format!("volume create photos --key-file {}", key.display())).done();
    other.comb(&format!("store add photos {}", machine.url())).done();
    let found = other.comb("store list photos --json").json()[0]["id"].as_str().expect("an id").to_owned();
    let outcome = machine.comb("sync photos --limit 1h");
    assert!(outcome.said.contains(&found), "{}", outcome.said);
    outcome.refused(9, &id);
    assert_eq!(objects(&machine.store(), "m").len(), 0, "nothing is sent there");

    // Whoever mends it need not do more.
    fs::remove_dir_all(machine.store()).expect("removed");
    fs::rename(machine.world.path("right"), machine.store()).expect("back again");
    machine.sync();
}

#[test]
fn a_store_with_another_history_is_no_store_of_it() {
    let machine = Machine::with_store();
    machine.sync();
    // The key alone, without the history.
    let other = Machine::bare();
    let key = machine.world.path("key");
    other.comb(&format!("volume create photos --key-file {}", key.display())).done();
    other
        .comb(&format!("store add photos {}", machine.url()))
        .refused(4, &format!("holds another history of this volume, up to seal {}", machine.head()));
    assert_eq!(other.comb("store list photos --json").json(), serde_json::json!([]));
}

#[test]
fn a_volume_that_is_late_is_loud() {
    let machine = Machine::first();
    // The golden volume was sealed long ago, so what it lacks in a store is late at once.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/volume-v2");
    let late = Machine::bare();
    let key = late.world.private("golden-key", &fs::read_to_string(golden.join("key")).expect("a key"));
    late.comb(&format!("volume create photos --key-file {}", key.display())).done();
    let folder = late.world.volume_folder();
    for part in ["manifests", "packs", "journal"] {
        fs::remove_dir_all(folder.join(part)).expect("removed");
        fs::create_dir(folder.join(part)).expect("empty");
    }
    for name in tree(&golden).into_keys().filter(|name| name != Path::new("key")) {
        fs::copy(golden.join(&name), folder.join(&name)).expect("a copy");
    }
    late.comb(&format!("store add photos {}", machine.url())).done();
    // Moved away, as a share that is not mounted: that may pass by itself.
    fs::rename(machine.store(), machine.world.path("away")).expect("moved");

    late.mount().done();
    wait_until("finding out", || late.stores()[0]["last_error"].is_string());
    let loud = |what: &str, why: &str| {
        let status = late.comb("status photos");
        for part in [what, why, "next try in"] {
            assert!(status.out.contains(part), "{part} is not in {}", status.out);
        }
        status.refused(9, "is not safe");
        late.comb("status").refused(9, "is not safe");
    };
    loud("LATER THAN PROMISED", "is it mounted?");
    // Something else is there: somebody must mend that, which is said when a second look has found the same.
    machine.world.dir("store");
    late.comb("sync photos --wait").refused(9, "does not know this volume");
    loud("NOT SAFE BEFORE SOMEBODY DOES SOMETHING", "does not know this volume");
    // Nobody who writes waits for it.
    late.write("new", "text");

    let report = &late.stores()[0];
    assert_eq!(report["behind"], true, "{report}");
    assert!(report["unsafe_seconds"].as_f64() > Some(60.0), "{report}");
    assert!(report["unsafe_bytes"].as_u64() > Some(0), "{report}");
    wait_until("saying so in the log", || {
        fs::read_to_string(folder.join("log")).expect("the log").contains("is not safe")
    });
    fs::remove_dir_all(machine.store()).expect("removed");
    fs::rename(machine.world.path("away"), machine.store()).expect("back again");
    late.sync();
    late.comb("status photos").done();
    assert_eq!(late.stores()[0]["unsafe_seconds"], 0.0);
    late.unmount();
}

#[test]
fn what_is_opened_with_the_wrong_key_or_from_the_wrong_place_leaves_nothing() {
    let machine = Machine::with_store();
    let other = Machine::bare();
    other.open(&machine, &machine.url(), "").refused(3, "holds no manifest");
    machine.sync();
    let empty = url(&machine.world.dir("empty"));
    other.open(&machine, &empty, "").refused(3, "does not know volume");
    other.open(&machine, &url(&machine.world.path("missing")), "").refused(10, "is it mounted?");
    other.world.private("wrong", "sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=");
    other
        .comb(&format!("volume open photos --key-file wrong --store {}", machine.url()))
        .refused(3, "the right key?");
    other.world.private("odd", "this is no key");
    other
        .comb(&format!("volume open photos --key-file odd --store {}", machine.url()))
        .refused(6, "is not a volume key");
    other.comb(&format!("volume open photos --key-file gone --store {}", machine.url())).refused(3, "gone");
    assert_eq!(other.comb("volume list --json").json(), serde_json::json!([]));
    assert_eq!(fs::read_dir(other.world.path("state/volumes")).map_or(0, Iterator::count), 0);
    assert_eq!(objects(&machine.store(), "c").len(), 0, "nothing was claimed");

    machine.open(&machine, &machine.url(), "").refused(4, "photos");
    other.open(&machine, &machine.url(), "--read-only").done();
    other.open(&machine, &machine.url(), "").refused(4, "photos");
    assert_eq!(objects(&machine.store(), "c").len(), 0, "nothing was claimed");
    machine.sync();
}

#[test]
fn who_only_reads_sees_what_was_replicated_last_and_changes_nothing() {
    let writer = Machine::with_store();
    writer.mount().done();
    writer.write("a", "first");
    writer.write("big", noise(1, 3 << 20));
    writer.sync();
    let shown = writer.head();
    writer.write("unsealed", "later");

    let reader = Machine::opened(&writer, &writer.url(), "--read-only");
    // Which store it shows, and what was seen there, mounted or not.
    let followed = |told: Outcome| {
        let told = told.done();
        assert!(
            told.contains(&format!("store \"folder\" is followed: seq {shown} was seen there last")),
            "{told}"
        );
    };
    followed(reader.comb("status photos"));
    reader.mount().done();
    let mut expected = writer.tree();
    expected.remove(Path::new("unsealed"));
    assert_eq!(reader.tree(), expected);
    let error = fs::write(reader.file("x"), "").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(reader.comb("ls photos:").done(), "a\nbig\n");
    reader.comb("status photos").done();
    followed(reader.comb("status photos"));
    assert_eq!(reader.stores()[0]["state"], "followed");
    let before = tree(&writer.store());
    reader.unmount();
    followed(reader.comb("status photos"));
    for line in ["sync photos", "snapshot photos", "rollback photos@1", "prune photos"] {
        reader.comb(line).refused(8, "another device writes it");
    }
    let second = url(&reader.world.dir("second"));
    reader.comb(&format!("store add photos {second}")).refused(8, "another device writes it");
    assert_eq!(reader.comb("ls photos:").done(), "a\nbig\n");
    reader.comb("check photos").done();
    assert_eq!(tree(&writer.store()), before, "whoever reads leaves no trace");

    // The next mount shows what was replicated since.
    writer.sync();
    reader.mount().done();
    assert_eq!(reader.tree(), writer.tree());
    // Also with the store away, what was read before is there.
    fs::rename(writer.store(), writer.world.path("away")).expect("moved");
    reader.unmount();
    reader.mount().done();
    assert_eq!(fs::read(reader.file("a")).expect("it is here"), b"first");
    reader.unmount();
    fs::rename(writer.world.path("away"), writer.store()).expect("back again");
    writer.write("goes on", "");
    writer.sync();
    writer.unmount();
}

#[test]
fn what_is_copied_out_of_a_store_takes_no_room_beside_the_copy() {
    let writer = Machine::with_store();
    writer.mount().done();
    // Data, a hole, data; and here and there a page of later seals, so that it lies in several packs.
    let whole = noise(3, 21 << 20);
    let file = fs::File::create(writer.file("big")).expect("a file");
    file.write_all_at(&whole[..9 << 20], 0).expect("written");
    file.write_all_at(&whole[13 << 20..], 13 << 20).expect("written");
    writer.sync();
    for seal in 0..3 {
        for page in 0..20 {
            file.write_all_at(&noise(seal, 5000), (seal + page * 4) * 99_000).expect("written");
        }
        writer.sync();
    }
    let reader = Machine::opened(&writer, &writer.url(), "--read-only");
    reader.comb("restore photos@head:/ --to out").done();
    let out = reader.world.path("out/big");
    assert!(fs::read(&out).expect("the copy") == fs::read(writer.file("big")).expect("the file"));
    let blocks = fs::metadata(&out).expect("the copy").blocks() * 512;
    assert!(blocks < 18 << 20, "the hole stayed one: {blocks} bytes");
    reader.comb("export photos@head:/ --tar out.tar").done();
    drop(file);
    let kept: u64 = walk(&reader.world.path("state"))
        .iter()
        .map(|file| fs::metadata(file).map_or(0, |file| file.len()))
        .sum();
    assert!(kept < 2 << 20, "{kept} bytes are kept");
    writer.unmount();
}

#[test]
fn everything_is_here_after_an_open_that_waits() {
    let writer = Machine::with_store();
    writer.mount().done();
    writer.write("big", noise(2, 5 << 20));
    writer.sync();
    let reader = Machine::opened(&writer, &writer.url(), "--read-only --wait");
    fs::rename(writer.store(), writer.world.path("away")).expect("moved");
    reader.mount().done();
    assert_eq!(reader.tree(), writer.tree());
    reader.unmount();
    // All that is here is whole; what the store has, nobody can say.
    reader.comb("check photos").refused(10, "is it mounted?");
    fs::rename(writer.world.path("away"), writer.store()).expect("moved back");
    reader.comb("check photos").done();
    writer.unmount();
}

#[test]
fn who_fetches_all_says_what_it_waits_for_and_ends_when_told_to() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("big", noise(5, 5 << 20));
    attic.sync();
    attic.unmount();
    let cellar = Machine::opened(&attic, &attic.url(), "");
    fs::rename(attic.store(), attic.world.path("away")).expect("moved");

    let start = || {
        let comb = cellar.world.command(["store", "remove", "photos", "folder"]);
        // Shells let what they start in the background ignore it.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(comb.get_program()).args(comb.get_args());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut told = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        told.read_line(&mut line).expect("a line");
        assert!(line.starts_with("waiting: the store: ") && line.contains("is it mounted?"), "{line}");
        child
    };
    for signal in ["-INT", "-TERM"] {
        let mut child = start();
        world::signal(signal, &child.id().to_string());
        let begun = Instant::now();
        assert!(!child.wait().expect("it ended").success());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    // Nothing was changed, and nobody holds it.
    assert!(cellar.comb("store list photos").done().contains("folder"));
    let mut child = start();
    fs::rename(attic.world.path("away"), attic.store()).expect("back again");
    assert!(child.wait().expect("it ended").success());
    assert!(!cellar.comb("store list photos").out.contains("folder"));
    cellar.comb("check photos").done();
}

#[test]
fn a_server_is_spoken_to_if_the_system_trusts_it_and_no_other() {
    let machine = Machine::first();
    let certificate = |name: &str| {
        let (cert, key) =
            (machine.world.path(&format!("{name}.pem")), machine.world.path(&format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .args([key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
            .output()
            .expect("openssl is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (cert, key)
    };
    let ((cert, key), (other, _)) = (certificate("server"), certificate("other"));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port").port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-cert"])
        .args([cert.as_os_str(), "-key".as_ref(), key.as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is there");
    wait_until("listening", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let volume_key = machine.world.path("key").display().to_string();
    let open = |host: &str, trusted: &Path| {
        let url = format!("s3://bucket?endpoint=https://{host}:{port}&region=us-east-1");
        let words = ["volume", "open", "elsewhere", "--key-file", &volume_key, "--store", &url];
        let mut command = machine.world.command(words);
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
        Outcome::new(command.env("SSL_CERT_FILE", trusted).output().expect("the binary starts"))
    };
    // It answers every question with a page about itself. A wrong certificate is no matter of trying again.
    let begun = Instant::now();
    let (trusted, unknown, misnamed) =
        (open("localhost", &cert), open("localhost", &other), open("127.0.0.1", &cert));
    let took = begun.elapsed();
    server.kill().and_then(|()| server.wait()).expect("it ended");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(trusted.said.contains("what came back is damaged"), "{}", trusted.said);
    assert!(unknown.said.contains("certificate is not trusted"), "{}", unknown.said);
    assert!(misnamed.said.contains("certificate is not trusted"), "{}", misnamed.said);
}

#[test]
fn a_limit_of_the_rate_is_kept_with_the_volume() {
    let machine = Machine::first();
    machine.comb(&format!("store add photos {} --rate 40K", machine.url())).done();
    let listed = machine.comb("store list photos");
    assert!(listed.out.contains("40.0 KiB/s"), "{}", listed.out);
    let sent = |name: &str, line: &str| {
        machine.write(name, noise(name.len() as u64, 400 << 10));
        if line.contains("--limit") {
            // Not mounted: the journal keeps it.
            machine.world.kill_daemon();
        }
        let begun = Instant::now();
        machine.comb(line).done();
        begun.elapsed()
    };
    machine.mount().done();
    let slow = sent("a", "sync photos --wait");
    assert!(slow > Duration::from_secs(5), "400 KiB took {slow:?}");
    machine.comb("store set photos --rate 0").done();
    let quick = sent("bb", "sync photos --wait");
    assert!(quick < slow * 2 / 3, "{quick:?} without a limit, {slow:?} with one");
    // At rest, too.
    machine.comb("store set photos --rate 40K").done();
    let slow = sent("ccc", "sync photos --limit 3m");
    assert!(slow > Duration::from_secs(5), "400 KiB took {slow:?}");
    // The mount's word counts more.
    machine.comb("mount photos mount --seal-every 0 --rate 0").done();
    let quick = sent("dddd", "sync photos --wait");
    assert!(quick < slow * 2 / 3, "{quick:?} without a limit, {slow:?} with one");
    machine.unmount();
    machine.comb("store set photos").refused(2, "required");
}

#[test]
fn of_two_machines_the_second_goes_on_and_the_tail_of_the_first_is_kept() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    let cut = attic.head() + 1;
    attic.write("tail", "not replicated");
    attic.write("safe", "changed, and not replicated");

    let cellar = Machine::opened(&attic, &attic.url(), "");
    cellar.mount().done();
    assert_eq!(fs::read(cellar.file("safe")).expect("replicated"), b"replicated");
    assert!(!cellar.file("tail").exists());
    cellar.write("new", "goes on");
    cellar.sync();

    // The first notices it at its next commit, and takes no change from then on.
    attic.comb("sync photos --wait").refused(8, "took the volume over");
    wait_until("turning read-only", || fs::write(attic.file("no"), "").is_err());
    let error = fs::write(attic.file("no"), "").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    attic.comb("sync photos --wait").refused(8, "");
    let status = attic.comb("status photos");
    assert!(
        status.out.contains("became a branch") || status.out.contains("becomes a branch"),
        "{}",
        status.out
    );
    assert!(status.said.contains("branch list"), "{}", status.said);
    assert_eq!(status.code, 9, "{}", status.out);

    // What it had is shown, listed, and restored file by file.
    assert_eq!(fs::read(attic.file("tail")).expect("still shown"), b"not replicated");
    let tail = attic.tail();
    assert_eq!(tail, [cut], "one seal is not in the volume");
    let text = attic.comb("branch list photos").done();
    assert!(text.contains("epoch 2"), "{text}");
    assert_eq!(attic.comb("ls photos:").done(), "safe\ntail\n", "nothing newer is missing");
    for mounted in [true, false] {
        assert_eq!(attic.comb(&format!("ls photos@{cut}:")).done(), "safe\ntail\n");
        assert_eq!(attic.comb(&format!("cat photos@{cut}:tail")).done(), "not replicated");
        attic.comb(&format!("restore photos@{cut}:safe --to out-{mounted}")).done();
        let out = attic.world.path(&format!("out-{mounted}/safe"));
        assert_eq!(fs::read(out).expect("restored"), b"changed, and not replicated");
        if mounted {
            attic.unmount();
        }
    }

    // It stays so, whatever is tried.
    let before = attic.comb("log photos --json").json();
    for line in ["sync photos", "snapshot photos", "rollback photos@1", "prune photos"] {
        attic.comb(line).refused(8, "another device writes it");
    }
    assert_eq!(attic.comb("log photos --json").json(), before);
    let again = attic.mount();
    assert!(again.said.contains("another device took volume \"photos\" over"), "{}", again.said);
    again.done();
    assert!(fs::write(attic.file("no"), "").is_err());
    assert_eq!(fs::read(attic.file("tail")).expect("still shown"), b"not replicated");
    attic.unmount();
    attic.comb("check photos").done();

    cellar.write("more", "");
    cellar.sync();
    cellar.comb("status photos").done();
    cellar.unmount();
    cellar.comb("check photos").done();
    let reader = Machine::opened(&attic, &attic.url(), "--read-only");
    reader.mount().done();
    let names: Vec<_> = reader.tree().into_keys().collect();
    assert_eq!(names, ["more", "new", "safe"].map(PathBuf::from));
    reader.unmount();
}

#[test]
fn a_writer_with_nothing_to_send_learns_from_sync_that_it_was_taken_over() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("a", "replicated");
    attic.sync();
    let cellar = Machine::opened(&attic, &attic.url(), "");
    // It waits no longer than some seconds for the store to say so.
    wait_until("being told", || attic.comb("sync photos").code == 8);
    attic.comb("sync photos").refused(8, "took the volume over");
    assert_eq!(fs::write(attic.file("no"), "").expect_err("read-only").kind(), ErrorKind::ReadOnlyFilesystem);
    let status = attic.comb("status photos");
    assert!(status.out.contains("took the volume over"), "{}", status.out);
    // It had nothing that the volume has not, and nothing is said of a branch.
    let is_silent = |said: &str| !said.contains("branch");
    assert!(status.out.contains("it has all that was written here"), "{}", status.out);
    assert!(status.out.contains("has everything (seq"), "{}", status.out);
    assert!(is_silent(&status.out) && is_silent(&status.said), "{}{}", status.out, status.said);
    status.refused(9, "is not safe: another device took it over");
    assert_eq!(attic.comb("branch list photos --json").json(), serde_json::json!([]));
    attic.unmount();
    let status = attic.comb("status photos");
    assert!(is_silent(&status.out) && is_silent(&status.said), "{}{}", status.out, status.said);
    let again = attic.mount();
    assert!(is_silent(&again.said) && again.said.contains("`comb volume open photos`"), "{}", again.said);
    again.done();
    attic.unmount();
    cellar.mount().done();
    cellar.write("b", "goes on");
    cellar.sync();
    cellar.unmount();
}

#[test]
fn a_machine_that_was_taken_over_is_told_that_by_each_command_and_what_to_do() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("a", "replicated");
    attic.sync();
    attic.unmount();
    let _cellar = Machine::opened(&attic, &attic.url(), "");
    attic.mount().done();
    // From the first word on, whichever it is that says it.
    wait_until("being told", || {
        let status = attic.comb("status photos");
        if status.out.contains("took the volume over") {
            assert_eq!(status.code, 9, "{}{}", status.out, status.said);
        }
        status.out.contains("TAKEN OVER")
    });
    for mount in ["as it was noticed", "known before"] {
        let status = attic.comb("status photos");
        assert!(!status.said.contains("see that the disk"), "{mount}: {}", status.said);
        assert_eq!(status.said.matches("hint: ").count(), 1, "{mount}: {}", status.said);
        assert!(
            status.said.contains("mount` first, then `comb volume open photos`"),
            "{mount}: {}",
            status.said
        );
        status.refused(9, "another device took it over");
        for change in ["snapshot photos", "sync photos"] {
            let refused = attic.comb(change);
            assert!(refused.said.contains("`comb volume open photos` goes on"), "{mount}: {}", refused.said);
            refused.refused(8, "is read-only: another device took the volume over");
        }
        let refused = attic.world.words(["retain", "photos", "keep last 1"]);
        refused.refused(8, "is read-only: another device took the volume over");
        attic.unmount();
        attic.mount().done();
    }
    attic.unmount();
    let status = attic.comb("status photos");
    assert_eq!(status.said.matches("hint: ").count(), 1, "{}", status.said);
    status.refused(9, "another device took it over");
}

#[test]
fn a_state_folder_that_was_put_back_in_time_parts_with_no_healthy_copy() {
    const PART: &str = "let the copy be another one";
    let attic = Machine::with_store();
    let second = attic.world.dir("second");
    attic.comb(&format!("store add photos {}", url(&second))).done();
    let state = attic.world.path("state");
    let go_on = |name: &str| {
        attic.mount().done();
        attic.write(name, name);
        attic.sync();
        attic.unmount();
    };
    go_on("old");
    let old = attic.world.path("old-state");
    copy(&state, &old);
    go_on("new");
    put_back(&old, &state);

    // While the store is away that decides, nobody knows why the copy is another.
    fs::rename(attic.store(), attic.world.path("away")).expect("moved");
    attic.mount().done();
    wait_until("being told by the copy", || {
        let status = attic.comb("status photos");
        assert!(!status.out.contains(PART), "{}", status.out);
        status.out.contains("is known as soon as the store answers that decides")
    });
    fs::rename(attic.world.path("away"), attic.store()).expect("moved");
    wait_until("being told by the store that decides", || {
        attic.comb("sync photos");
        let status = attic.comb("status photos");
        assert!(!status.out.contains(PART), "{}", status.out);
        status.out.matches("TAKEN OVER").count() == 2
    });
    let told = attic.comb("status photos").out;
    assert!(!told.contains("has nothing yet") && !told.contains("is not known"), "{told}");
    attic.unmount();
    let status = attic.comb("status photos");
    assert!(!status.out.contains(PART), "{}", status.out);
    status.refused(9, "another device took it over");
    attic.comb("volume open photos").done();
    let status = attic.comb("status photos");
    assert!(!status.out.contains("DOES SOMETHING"), "{}", status.out);
    attic.mount().done();
    assert_eq!(fs::read(attic.file("new")).expect("it was in the stores"), b"new");
    attic.sync();
    attic.comb("status photos").done();
    attic.unmount();
}

#[test]
fn the_first_goes_on_again_and_keeps_its_tail_as_a_branch() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    attic.write("tail", "not replicated");
    let cellar = Machine::opened(&attic, &attic.url(), "");
    cellar.mount().done();
    cellar.write("new", "goes on");
    cellar.sync();
    attic.comb("sync photos --wait").refused(8, "took the volume over");
    attic.comb("volume open photos").refused(4, "");
    attic.unmount();

    let said = attic.comb("volume open photos");
    assert!(said.said.contains("is branch"), "{}", said.said);
    said.done();
    attic.mount().done();
    assert_eq!(fs::read(attic.file("new")).expect("of the other"), b"goes on");
    assert!(!attic.file("tail").exists());
    attic.write("again", "");
    attic.sync();
    cellar.write("too late", "");
    cellar.comb("sync photos --wait").refused(8, "took the volume over");
    cellar.unmount();

    let branch =
        attic.comb("branch list photos --json").json()[0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(attic.comb(&format!("cat {branch}:tail")).done(), "not replicated");
    assert_eq!(attic.comb(&format!("ls {branch}:")).done(), "safe\ntail\n");
    attic.comb(&format!("restore {branch}@head:tail --to out")).done();
    assert_eq!(fs::read(attic.world.path("out/tail")).expect("restored"), b"not replicated");
    attic.comb(&format!("snapshot {branch}")).refused(8, "another device writes it");
    attic.unmount();
    attic.comb("check photos").done();
}

#[test]
fn what_a_store_forgot_before_it_was_taken_over_is_kept_too() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    let old = attic.copy_of_store("old");
    attic.write("forgotten", "it was replicated");
    attic.sync();
    let forgotten = attic.head();
    attic.unmount();
    put_back(&old, &attic.store());

    let cellar = Machine::opened(&attic, &attic.url(), "");
    cellar.mount().done();
    cellar.go_on(3);
    cellar.unmount();
    attic.mount().done();
    wait_until("noticing", || attic.is_fenced());
    assert_eq!(attic.tail(), [forgotten], "it is not in the volume any more");
    assert_eq!(attic.comb(&format!("cat photos@{forgotten}:forgotten")).done(), "it was replicated");
    attic.unmount();
}

#[test]
fn who_cannot_read_what_a_store_holds_takes_nothing_over() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    for pack in objects(&attic.store(), "p") {
        fs::write(pack, "").expect("damaged");
    }
    Machine::bare().open(&attic, &attic.url(), "").refused(5, "damaged");
    assert_eq!(objects(&attic.store(), "c").len(), 0, "nothing was claimed");
    attic.write("goes on", "");
    attic.sync();
    attic.unmount();
}

#[test]
fn a_machine_that_slept_notices_when_it_wakes() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    let cut = attic.head() + 1;
    fs::rename(attic.store(), attic.world.path("away")).expect("moved");
    attic.write("tail", "in the journal");
    attic.comb("sync photos").done();
    attic.write("more", "in the journal");
    attic.unmount();
    fs::rename(attic.world.path("away"), attic.store()).expect("back again");

    let cellar = Machine::opened(&attic, &attic.url(), "");
    cellar.mount().done();
    cellar.write("new", "");
    cellar.sync();

    attic.mount().done();
    wait_until("noticing", || attic.is_fenced());
    wait_until("turning read-only", || fs::write(attic.file("no"), "").is_err());
    assert_eq!(attic.comb("cat photos:tail").done(), "in the journal");
    let tail = attic.tail();
    assert_eq!(tail.first(), Some(&cut), "{tail:?}");
    let last = tail.last().expect("a seal");
    assert_eq!(attic.comb(&format!("cat photos@{last}:more")).done(), "in the journal");
    attic.unmount();
    cellar.unmount();
}

#[test]
fn two_who_claim_at_once_do_not_both_write() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    attic.unmount();
    let machines: Vec<Machine> = (0..4).map(|_| Machine::bare()).collect();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let first = &attic;
        let open = |machine| scope.spawn(move || Machine::open(machine, first, &first.url(), ""));
        let under_way: Vec<_> = machines.iter().map(open).collect();
        under_way.into_iter().map(|one| one.join().expect("it ran")).collect()
    });
    let mut writers = Vec::new();
    for (machine, outcome) in machines.iter().zip(outcomes) {
        match outcome.code {
            0 => writers.push(machine),
            _ => outcome.refused(4, "volume"),
        }
    }
    assert!(!writers.is_empty(), "somebody can always go on");
    // Of those who were let in one after the other, only the last may write.
    let mut written = Vec::new();
    for (number, machine) in writers.iter().enumerate() {
        machine.mount().done();
        // Who was overtaken may know that already.
        let is_taken = fs::write(machine.file(&format!("by-{number}")), "").is_ok();
        if is_taken && machine.comb("sync photos --wait --limit 2m").code == 0 {
            written.push(format!("by-{number}"));
        }
    }
    assert_eq!(written.len(), 1, "{written:?}");
    for machine in writers {
        machine.unmount();
    }
    let reader = Machine::opened(&attic, &attic.url(), "--read-only");
    reader.mount().done();
    assert!(reader.file(&written[0]).exists() && reader.file("safe").exists());
    reader.unmount();
}

#[test]
fn what_is_told_as_replicated_is_in_what_is_opened_elsewhere() {
    let writer = Machine::with_store();
    writer.mount().done();
    let mut held = Vec::new();
    let before = writer.head();
    for seq in before + 1..before + 11 {
        writer.write(&format!("file-{}", seq % 4), noise(seq, 1000 + seq as usize * 40_000));
        writer.write("number", seq.to_string());
        let tree = writer.tree();
        writer.comb("sync photos").done();
        // Asked before the copy is taken, so the copy must have at least that.
        let told = writer.replicated().unwrap_or(0);
        held.push((told, writer.copy_of_store(&format!("copy-{seq}")), tree));
    }
    writer.sync();
    for (told, copy, _) in &held {
        if *told == 0 {
            continue;
        }
        let reader = Machine::opened(&writer, &url(copy), "--read-only");
        reader.mount().done();
        let shown = reader.comb("status photos --json").json()[0]["head"]["seq"].as_u64().expect("a number");
        assert!(shown >= *told, "told {told}, there is {shown}");
        match shown {
            empty if empty <= before => assert!(reader.tree().is_empty()),
            seq => assert_eq!(reader.tree(), held[(seq - before) as usize - 1].2, "seal {seq}"),
        }
        reader.unmount();
        reader.comb("check photos").done();
    }
    writer.unmount();
}

#[test]
fn a_volume_comes_back_from_the_store_by_passphrase_and_by_kit() {
    let attic = Machine::first();
    attic.world.private("passphrase", PASSPHRASE);
    attic.comb("key ring init --passphrase-file passphrase").done();
    attic.comb("key ring kit --out kit").done();
    let said = attic.comb(&format!("store add photos {}", attic.url())).done();
    assert!(said.contains("key ring"), "{said}");
    attic.mount().done();
    attic.write("a", "text");
    attic.sync();
    attic.unmount();
    // In another store, or in none: it keeps nobody else from coming back.
    attic.comb("volume create elsewhere").done();
    attic.comb("key ring show").done();

    let recover = |option: &str, file: &Path, more: &str| {
        let bare = Machine::bare();
        let outcome =
            bare.comb(&format!("recover --store {} {option} {} {more}", attic.url(), file.display()));
        (bare, outcome)
    };
    let passphrase = attic.world.path("passphrase");
    for (option, file) in [("--passphrase-file", passphrase.clone()), ("--kit-file", attic.world.path("kit"))]
    {
        let (bare, outcome) = recover(option, &file, "--read-only");
        assert!(outcome.said.contains("the key ring is version"), "{}", outcome.said);
        assert!(outcome.out.contains("volume \"photos\" is open"), "{}", outcome.out);
        bare.mount().done();
        assert_eq!(fs::read(bare.file("a")).expect("it is back"), b"text");
        bare.unmount();
        let again = bare.comb(&format!("recover --store {} {option} {}", attic.url(), file.display()));
        assert!(again.out.contains("`comb volume open photos` takes it over"), "{}{}", again.out, again.said);
    }
    let wrong = attic.world.private("wrong", "six other random words, not these");
    let (bare, outcome) = recover("--passphrase-file", &wrong, "");
    outcome.refused(6, "does not open with this passphrase");
    assert!(!bare.world.path("state/ring").exists(), "nothing is left behind");
    let letters = fs::read_to_string(attic.world.path("kit")).expect("the kit");
    let torn = attic.world.private("torn", &letters[..letters.len() - 5]);
    recover("--kit-file", &torn, "").1.refused(2, "letters");
    let empty = url(&attic.world.dir("empty"));
    let bare = Machine::bare();
    bare.comb(&format!("recover --store {empty} --passphrase-file {}", passphrase.display()))
        .refused(3, "holds no key ring");
    bare.comb(&format!(
        "recover --store {} --passphrase-file {}",
        url(&attic.world.path("missing")),
        passphrase.display()
    ))
    .refused(10, "is it mounted?");

    // Without --read-only this machine goes on, and the other becomes read-only.
    let (bare, outcome) = recover("--passphrase-file", &passphrase, "");
    outcome.refused(3, "volume \"elsewhere\" is not recovered");
    bare.mount().done();
    bare.write("b", "");
    bare.sync();
    bare.unmount();
    attic.mount().done();
    wait_until("noticing", || attic.is_fenced());
    attic.unmount();
}

#[test]
fn a_store_that_was_put_back_in_time_is_refused_with_both_shown() {
    let machine = Machine::with_store();
    machine.mount().done();
    machine.write("a", "first");
    machine.sync();
    let old = machine.copy_of_store("old");
    machine.write("b", "second");
    machine.sync();
    let seen = machine.head();
    machine.unmount();
    let new = machine.world.path("new");
    fs::rename(machine.store(), &new).expect("moved");
    copy(&old, &machine.store());

    let refused = |line: &str| {
        let outcome = machine.comb(line);
        assert!(outcome.said.contains(&format!("now its newest is {}", seen - 1)), "{}", outcome.said);
        outcome.refused(9, &format!("seal {seen} was seen there"));
    };
    // Nobody waits a day for it.
    refused("sync photos --limit 1h");
    machine.mount().done();
    machine.write("c", "third");
    refused("sync photos --wait --limit 1h");
    let status = machine.comb("status photos").out;
    assert!(status.contains(&format!("seal {seen} was seen there")), "{status}");
    assert_eq!(tree(&machine.store()), tree(&old), "nothing is written there");
    // The volume goes on here meanwhile.
    assert_eq!(fs::read(machine.file("b")).expect("it is here"), b"second");

    fs::remove_dir_all(machine.store()).expect("removed");
    fs::rename(&new, machine.store()).expect("back again");
    machine.sync();
    machine.unmount();
    let reader = Machine::opened(&machine, &machine.url(), "--read-only");
    reader.mount().done();
    assert_eq!(reader.comb("ls photos:").done(), "a\nb\nc\n");
    reader.unmount();
}

#[test]
fn a_store_that_is_put_back_in_time_under_a_running_daemon_is_noticed() {
    let machine = Machine::with_store();
    machine.mount().done();
    machine.write("a", "first");
    machine.sync();
    let old = machine.copy_of_store("old");
    machine.write("b", "second");
    machine.sync();
    fs::rename(machine.store(), machine.world.path("new")).expect("moved");
    copy(&old, &machine.store());

    machine.write("c", "third");
    // It must not follow what is not there, where nobody could open it.
    let seen = machine.replicated();
    machine.comb("sync photos --wait --limit 1h").refused(9, "the store was put back in time");
    assert_eq!(machine.replicated(), seen.map(|seen| seen - 1), "what is there now is told");
    machine.unmount();
    machine.comb("sync photos --wait --limit 1h").refused(9, "the store was put back in time");
}

#[test]
fn objects_that_are_damaged_are_told_and_never_shown() {
    let writer = Machine::with_store();
    writer.mount().done();
    for number in 0..3_u64 {
        writer.write(&format!("file-{number}"), noise(number, 200_000));
        writer.write(&format!("small-{number}"), number.to_string());
        writer.sync();
    }
    let right = writer.tree();
    writer.unmount();

    type Damage = fn(&mut Vec<u8>, usize);
    let damages: [(&str, Damage); 5] = [
        ("a flipped bit", |bytes, number| {
            let at = bytes.len() * (2 * number + 1) / 7;
            bytes[at] ^= 1 << (number % 8);
        }),
        ("cut", |bytes, number| bytes.truncate(bytes.len() * (number + 1) / 4)),
        ("empty", |bytes, _| bytes.clear()),
        ("longer than it says", |bytes, number| bytes.extend(noise(number as u64, 70_000))),
        ("zeros", |bytes, _| bytes.fill(0)),
    ];
    for kind in ["m", "p"] {
        for (what, damage) in damages {
            for number in 0..3 {
                let what = format!("{kind}, {what}, {number}");
                let copy = World::new();
                let store = copy.path("store");
                copy_store(&writer.store(), &store);
                for object in objects(&store, kind) {
                    let mut bytes = fs::read(&object).expect("its bytes");
                    damage(&mut bytes, number);
                    fs::write(&object, bytes).expect("damaged");
                }
                read_damaged(&writer, &url(&store), &right, &what);
            }
        }
    }
}

/// Whatever is damaged in a store: who opens it sees right bytes or an error, and is told.
fn read_damaged(writer: &Machine, url: &str, right: &Tree, what: &str) {
    let reader = Machine::bare();
    let told = |outcome: &Outcome| {
        assert!([5, 3].contains(&outcome.code), "{what}: {} {}", outcome.code, outcome.said);
        assert!(
            outcome.said.contains("error: ") && !outcome.said.contains("panicked"),
            "{what}: {}",
            outcome.said
        );
    };
    let opened = reader.open(writer, url, "--read-only");
    if opened.code != 0 {
        told(&opened);
        assert_eq!(reader.comb("volume list --json").json(), serde_json::json!([]), "{what}");
        return;
    }
    let mounted = reader.mount();
    if mounted.code != 0 {
        told(&mounted);
        return;
    }
    let mut wrong = 0;
    for (name, bytes) in right {
        match fs::read(reader.world.path("mount").join(name)) {
            Ok(read) => assert_eq!(digest(&read), *bytes, "{what}: {} has wrong bytes", name.display()),
            Err(_) => wrong += 1,
        }
    }
    let all_there = wrong == 0;
    reader.unmount();
    let checked = reader.comb("check photos");
    assert!(all_there || checked.code == 5, "{what}: {}{}", checked.out, checked.said);
}

#[test]
fn a_seal_of_somebody_else_in_a_slot_is_damage() {
    let writer = Machine::with_store();
    writer.sync();
    let other = Machine::with_store();
    other.sync();
    let newest = objects(&writer.store(), "m")[0].clone();
    let foreign = fs::read(&objects(&other.store(), "m")[0]).expect("another volume's");
    let own = fs::read(&newest).expect("ours");
    // Seq 9 of the same name would be.
    let ninth = newest.with_file_name(format!("{:016x}", u64::MAX - 9));
    for (path, bytes) in [(&newest, &foreign), (&ninth, &foreign), (&ninth, &own)] {
        fs::write(path, bytes).expect("put there");
        let bare = Machine::bare();
        bare.open(&writer, &writer.url(), "--read-only").refused(5, "damaged");
        bare.open(&writer, &writer.url(), "").refused(5, "damaged");
        fs::write(&newest, &own).expect("ours again");
        let _ = fs::remove_file(&ninth);
    }
    assert_eq!(objects(&writer.store(), "c").len(), 0, "nothing was claimed");
    // A claim that nobody signed ends nobody's right.
    let claims = newest.ancestors().nth(2).expect("the volume").join("c");
    fs::create_dir_all(&claims).expect("a folder");
    let claim = claims.join(format!("e{:016x}", u64::MAX - 7));
    fs::write(&claim, noise(1, 168)).expect("a claim");
    writer.comb("snapshot photos").done();
    writer.comb("sync photos --limit 1h").refused(9, "damaged");
    Machine::bare().open(&writer, &writer.url(), "").refused(5, "damaged");
    fs::remove_file(&claim).expect("removed");
    writer.sync();
    assert!(writer.tail().is_empty());
}

#[test]
fn who_only_looked_takes_over_without_what_the_store_forgot() {
    let attic = Machine::with_store();
    attic.mount().done();
    attic.write("safe", "replicated");
    attic.sync();
    let old = attic.copy_of_store("old");
    let reader = Machine::opened(&attic, &attic.url(), "--read-only");
    for number in 0..4 {
        attic.write(&format!("forgotten-{number}"), "");
        attic.sync();
        reader.comb("ls photos:").done();
    }
    let forgotten = attic.head();
    attic.unmount();
    put_back(&old, &attic.store());
    let cellar = Machine::opened(&attic, &attic.url(), "");
    cellar.mount().done();
    cellar.go_on(6);
    let head = cellar.head();
    cellar.unmount();

    reader.comb("volume open photos").done();
    reader.comb("check photos").done();
    for seq in [forgotten - 1, forgotten, head] {
        let line = format!("ls photos@{seq}:");
        assert_eq!(reader.comb(&line).done(), cellar.comb(&line).done(), "{seq}");
    }
}

#[test]
fn a_store_that_is_gone_keeps_nobody_waiting_for_long() {
    let machine = Machine::with_store();
    machine.mount().done();
    machine.write("a", noise(1, 3_000_000));
    machine.sync();
    machine.unmount();
    let reader = Machine::opened(&machine, &machine.url(), "--read-only");
    let writer = Machine::opened(&machine, &machine.url(), "");
    fs::rename(machine.store(), machine.world.path("away")).expect("moved");
    let timed = |machine: &Machine, line: &str, most: u64| {
        let begun = Instant::now();
        let outcome = machine.comb(line);
        assert!(begun.elapsed() < Duration::from_secs(most), "{line}: {:?}", begun.elapsed());
        outcome
    };
    // No store is asked.
    assert!(timed(&reader, "status photos", 20).done().contains("is followed"));
    timed(&writer, "status photos", 20).done();
    timed(&reader, "store list photos", 20).done();
    // Asked in vain.
    for line in ["log photos", "ls photos:", "cat photos:a", "check photos --level manifest"] {
        timed(&reader, line, 50);
        timed(&writer, line, 50);
    }
}

#[test]
fn what_waits_goes_on_where_it_was_after_a_crash() {
    let writer = Machine::with_store();
    writer.mount().done();
    writer.write("a", "first");
    writer.sync();
    fs::rename(writer.store(), writer.world.path("away")).expect("moved");
    for number in 0..3 {
        writer.write(&format!("waits-{number}"), noise(number, 100_000));
        writer.comb("sync photos").done();
    }
    writer.world.kill_daemon();
    fs::rename(writer.world.path("away"), writer.store()).expect("back again");
    writer.mount().done();
    wait_until("catching up", || writer.stores()[0]["state"] == "replicated");
    let reader = Machine::opened(&writer, &writer.url(), "--read-only");
    reader.mount().done();
    assert_eq!(reader.tree(), writer.tree());
    reader.unmount();
    writer.unmount();
}

#[test]
fn packs_of_a_large_seal_go_ahead_of_it_and_a_crash_between_loses_nothing() {
    let writer = Machine::with_store();
    writer.mount().done();
    writer.write("a", "first");
    writer.sync();
    writer.write("large", noise(1, 320 << 20));
    let pid = writer.world.daemon();
    let objects = |kind: &str| objects(&writer.store(), kind);
    let (packs, slots) = (objects("p").len(), objects("m"));
    let mut snapshot =
        writer.world.command(["snapshot", "photos"]).stderr(Stdio::null()).spawn().expect("begun");
    wait_until("sending", || objects("p").len() > packs);
    world::signal("-9", &pid);
    assert!(
        !snapshot.wait().expect("it ended").success(),
        "the seal was made before anything was there of it"
    );
    wait_until("dying", || !world::is_running(&pid));
    assert_eq!(objects("m"), slots);

    writer.mount().done();
    writer.sync();
    // Of the seal that is made now each pack goes once; those of the one that ended are nobody's.
    let ahead = objects("p").len() - walk(&writer.world.volume_folder().join("packs")).len();
    assert!((1..=20).contains(&ahead), "{ahead}");
    let reader = Machine::opened(&writer, &writer.url(), "--read-only");
    reader.mount().done();
    assert_eq!(reader.tree(), writer.tree());
    reader.unmount();
    writer.comb("check photos").done();
    writer.unmount();
}
