//! Looking at every place that a volume has, and mending one from another.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::volumes::walk;
use crate::world::{Outcome, World, wait_until};

/// A volume `photos` in two stores, `home` (which decides) and `copy`. The snapshot `a` has `noise` and `small`; the
/// newest seal has `more` too.
struct Stage {
    world: World,
    /// The pack that holds the noise of the snapshot.
    pack: String,
    /// The seal of the snapshot, and the newest.
    a: u64,
    head: u64,
}

const NOISE_BYTES: usize = 300_000;

impl Stage {
    /// At rest, with everything in both stores.
    fn at_rest() -> Self {
        let world = World::new();
        let mount = world.dir("mount");
        world.comb("volume create photos").done();
        for store in ["home", "copy"] {
            let url = format!("file://{}", world.dir(store).display());
            world.words(["store", "add", "photos", &url, "--as", store]).done();
        }
        world.comb("mount photos mount --seal-every 0").done();
        fs::write(mount.join("noise"), noise()).expect("a file");
        fs::write(mount.join("small"), "small").expect("a file");
        let a = world.comb("snapshot photos --tag a --json").json()["seq"].as_u64().expect("a number");
        let mut packs = walk(&world.volume_folder().join("packs")).into_iter();
        let large = packs.find(|path| path.metadata().is_ok_and(|pack| pack.len() >= NOISE_BYTES as u64));
        let pack =
            large.and_then(|path| path.file_name()?.to_str().map(str::to_owned)).expect("a large pack");
        fs::write(mount.join("more"), noise()).expect("a file");
        world.comb("sync photos --wait").done();
        world.comb("unmount mount").done();
        let head = world.comb("status photos --json").json()[0]["head"]["seq"].as_u64().expect("a number");
        Self { world, pack, a, head }
    }

    fn check(&self, words: &str) -> Outcome {
        self.world.comb(&format!("check photos {words}"))
    }

    /// The folder of the volume's objects of a kind in a place.
    fn folder(&self, place: &str, kind: &str) -> PathBuf {
        if place == "here" {
            let name = if kind == "p" { "packs" } else { "manifests" };
            return self.world.volume_folder().join(name);
        }
        let volumes = self.world.path(place).join("v");
        let volume = fs::read_dir(volumes).expect("a store").next().expect("a volume").expect("an entry");
        volume.path().join(kind)
    }

    /// That pack in a place.
    fn pack(&self, place: &str) -> PathBuf {
        self.folder(place, "p").join(&self.pack)
    }

    fn slot(&self, place: &str, seq: u64) -> PathBuf {
        self.folder(place, "m").join(format!("{:016x}", u64::MAX - seq))
    }
}

fn noise() -> Vec<u8> {
    let mut bytes = vec![0; NOISE_BYTES];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("chance");
    bytes
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // A store may have made it unwritable.
    let aside = path.with_extension("flipped");
    fs::write(&aside, bytes).expect("written");
    fs::rename(aside, path).expect("renamed");
}

#[test]
fn what_is_whole_is_whole_at_every_level_and_nothing_is_changed() {
    let stage = Stage::at_rest();
    let content = |place: &str| -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = walk(&stage.world.path(place))
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).expect("bytes")))
            .collect();
        files.sort();
        files
    };
    let before = (content("home"), content("copy"));
    for words in
        ["--level manifest", "--level packs", "", "--store home", "--store copy --level packs", "--repair"]
    {
        stage.check(words).done();
    }
    let report = stage.check("--json").json();
    assert_eq!(report["level"], "data");
    for store in 0..2 {
        assert_eq!(report["stores"][store]["slots"], stage.head, "{report}");
        assert_eq!(report["stores"][store]["newest_seq"], stage.head, "{report}");
        assert_eq!(report["stores"][store]["packs"], report["packs"], "{report}");
    }
    assert!((content("home"), content("copy")) == before);
    assert!(!stage.world.volume_folder().join("damaged").exists());
    stage.check("--store nowhere").refused(3, "no store");
    stage.check("--level drill --repair").refused(2, "repairs nothing");
}

#[test]
fn a_drill_restores_from_a_store_alone_and_leaves_nothing() {
    let stage = Stage::at_rest();
    for store in ["", "--store copy"] {
        let report = stage.check(&format!("--level drill {store} --json")).json();
        let drill = &report["drill"];
        assert_eq!((&drill["same_as_here"], &drill["seq"]), (&true.into(), &stage.head.into()), "{report}");
        assert!(drill["bytes"].as_u64() > Some(2 * NOISE_BYTES as u64), "{report}");
        assert!(drill["seconds"].as_f64() >= drill["open_seconds"].as_f64(), "{report}");
    }
    // What is broken here is none of its business; what is broken there is.
    flip(&stage.pack("here"));
    let told = stage.check("--level drill");
    assert!(told.said.contains("what is here"), "{}", told.said);
    stage.check("--repair").done();
    flip(&stage.pack("home"));
    let told = stage.check("--level drill");
    assert!(told.out.contains("store \"home\": noise: bytes "), "{}{}", told.out, told.said);
    told.refused(5, "is damaged in");
    stage.check("--level drill --store copy").done();
    let left: Vec<_> = fs::read_dir(stage.world.path("state")).expect("the state").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".drill")), "{left:?}");
}

#[test]
fn a_pack_that_one_place_lost_comes_back_from_another() {
    let stage = Stage::at_rest();
    let whole = fs::read(stage.pack("here")).expect("the pack");
    let id = stage.pack("here").file_name().expect("a name").to_string_lossy().into_owned();

    // Here, damaged: named by its path, mended from a store, and kept aside.
    flip(&stage.pack("here"));
    let flipped = fs::read(stage.pack("here")).expect("the pack");
    let told = stage.check("");
    assert!(told.out.contains("noise: bytes "), "{}", told.out);
    told.refused(5, "--repair");
    let mended = stage.check("--repair").done();
    assert!(mended.contains(&format!("mended here: pack {id}, from store \"home\"")), "{mended}");
    assert!(fs::read(stage.folder("here", "p").join(&id)).expect("the pack") == whole);
    assert!(fs::read(stage.world.volume_folder().join("damaged").join(&id)).expect("aside") == flipped);
    stage.check("").done();

    // Here, missing and cut short.
    fs::remove_file(stage.folder("here", "p").join(&id)).expect("removed");
    stage.check("--level packs").refused(5, "is damaged in 1 place");
    stage.check("--level packs --repair").done();
    fs::write(stage.folder("here", "p").join(&id), &whole[..1000]).expect("cut");
    stage.check("--level manifest").done();
    stage.check("--level packs").refused(5, "is damaged in 1 place");
    stage.check("--level packs --repair").done();
    assert!(fs::read(stage.folder("here", "p").join(&id)).expect("the pack") == whole);

    // In a store, missing: a listing shows it.
    fs::remove_file(stage.pack("copy")).expect("removed");
    let told = stage.check("");
    assert!(told.out.contains(&format!("store \"copy\": pack {id} is missing")), "{}", told.out);
    told.refused(5, "is damaged in 1 place");
    let mended = stage.check("--repair").done();
    assert!(mended.contains(&format!("mended store \"copy\": pack {id}, from here")), "{mended}");
    assert!(fs::read(stage.pack("copy")).expect("the pack") == whole);

    // In the arbiter, damaged: only reading shows it.
    flip(&stage.pack("home"));
    stage.check("").done();
    stage.check("--store copy").done();
    stage.check("--store home").refused(5, "is damaged in 1 place");
    stage.check("--store home --repair").done();
    assert!(fs::read(stage.pack("home")).expect("the pack") == whole);

    // From store to store: here it is damaged too.
    flip(&stage.pack("home"));
    flip(&stage.folder("here", "p").join(&id));
    let mended = stage.check("--store home --repair").done();
    assert!(mended.contains("from store \"copy\""), "{mended}");
    stage.check("--repair").done();
    stage.check("").done();
}

#[test]
fn what_is_whole_nowhere_is_named_and_stays() {
    let stage = Stage::at_rest();
    for place in ["here", "home", "copy"] {
        flip(&stage.pack(place));
    }
    let before: Vec<Vec<u8>> =
        ["here", "home", "copy"].map(|place| fs::read(stage.pack(place)).expect("the pack")).into();
    for words in ["--repair", "--repair --level data --store home"] {
        stage.check(words).refused(5, "is damaged in");
    }
    let told = stage.check("--repair");
    assert!(
        told.out.contains("noise: bytes ") && told.out.contains(&format!(": seq {}", stage.a)),
        "{}",
        told.out
    );
    assert!(!told.out.contains("more"), "what is whole is not named: {}", told.out);
    let after: Vec<Vec<u8>> =
        ["here", "home", "copy"].map(|place| fs::read(stage.pack(place)).expect("the pack")).into();
    assert!(after == before);
    // A pack that is missing everywhere is named by what is lost with it, too.
    for place in ["home", "copy", "here"] {
        fs::remove_file(stage.pack(place)).expect("removed");
        if place == "home" {
            assert!(stage.check("--level packs").out.contains("is missing"));
        }
        if place == "here" {
            break;
        }
    }
    let told = stage.check("--level packs --repair");
    assert!(told.out.contains("noise: bytes "), "{}", told.out);
}

#[test]
fn a_slot_is_made_again_in_a_copy_and_never_in_the_arbiter() {
    let stage = Stage::at_rest();
    let whole = fs::read(stage.slot("copy", stage.a)).expect("the slot");
    fs::remove_file(stage.slot("copy", stage.a)).expect("removed");
    let told = stage.check("--level manifest");
    assert!(told.out.contains(&format!("store \"copy\": slot {} is missing", stage.a)), "{}", told.out);
    let mended = stage.check("--level manifest --repair").done();
    assert!(
        mended.contains(&format!("mended store \"copy\": the manifest of seal {}, from here", stage.a)),
        "{mended}"
    );
    assert!(fs::read(stage.slot("copy", stage.a)).expect("the slot") == whole);

    fs::remove_file(stage.slot("home", stage.a)).expect("removed");
    let told = stage.check("--level manifest --repair");
    assert!(told.out.contains(&format!("store \"home\": slot {} is missing", stage.a)), "{}", told.out);
    told.refused(5, "is damaged in 1 place");
    assert!(!stage.slot("home", stage.a).exists());
    fs::write(stage.slot("home", stage.a), &whole).expect("put back");

    // A damaged one is nobody's to remove.
    for place in ["home", "copy"] {
        flip(&stage.slot(place, stage.a));
        let flipped = fs::read(stage.slot(place, stage.a)).expect("the slot");
        stage.check("--level manifest --repair").refused(5, "is damaged in");
        assert!(fs::read(stage.slot(place, stage.a)).expect("the slot") == flipped);
        fs::remove_file(stage.slot(place, stage.a)).expect("removed");
        fs::write(stage.slot(place, stage.a), &whole).expect("put back");
    }
    // A slot with another seal's manifest, which is signed.
    fs::remove_file(stage.slot("copy", 1)).expect("removed");
    fs::write(stage.slot("copy", 1), &whole).expect("another");
    stage.check("--level manifest --repair").refused(5, "is damaged in");

    // The newest is gone: the store was put back.
    fs::remove_file(stage.slot("home", stage.head)).expect("removed");
    let told = stage.check("--level manifest");
    assert!(
        told.out.contains(&format!("store \"home\": seal {} was seen there, now its newest is", stage.head)),
        "{}",
        told.out
    );
}

#[test]
fn a_damaged_manifest_comes_back_from_a_store() {
    let stage = Stage::at_rest();
    let path = stage.folder("here", "m").join(format!("{:016x}", stage.a));
    let whole = fs::read(&path).expect("the manifest");
    flip(&path);
    stage.check("--level manifest").refused(5, "is damaged in 1 place");
    let mended = stage.check("--level manifest --repair").done();
    assert!(
        mended.contains(&format!("mended here: the manifest of seal {}, from store", stage.a)),
        "{mended}"
    );
    assert!(fs::read(&path).expect("the manifest") == whole);
}

#[test]
fn a_mounted_volume_reads_what_was_mended_under_it() {
    let stage = Stage::at_rest();
    flip(&stage.pack("here"));
    stage.world.comb("mount photos mount").done();
    fs::read(stage.world.path("mount/noise")).expect_err("damaged");
    stage.check("--repair").done();
    assert_eq!(fs::read(stage.world.path("mount/noise")).expect("mended").len(), NOISE_BYTES);
    stage.world.comb("unmount mount").done();
}

#[test]
fn a_takeover_is_told_and_is_no_damage() {
    let stage = Stage::at_rest();
    let there = World::new();
    stage.world.words(["volume", "key", "photos", "--out", "key"]).done();
    let key = stage.world.path("key");
    let url = format!("file://{}", stage.world.path("home").display());
    let open = |name: &str, more: &[&str]| {
        let words = ["volume", "open", name, "--key-file", key.to_str().expect("text"), "--store", &url];
        there.words(words.iter().chain(more)).done();
    };
    open("photos", &[]);
    let mount = there.dir("mount");
    there.comb("mount photos mount").done();
    fs::write(mount.join("theirs"), noise()).expect("a file");
    there.comb("sync photos --wait").done();
    there.comb("unmount mount").done();

    let told = stage.check("");
    assert!(
        told.said
            .contains(&format!("another device goes on with the volume from seal {} on", stage.head + 1)),
        "{}",
        told.said
    );
    told.done();
    // There not everything is on the disk, and all of it is whole.
    there.comb("check photos --level packs").done();
    there.comb("check photos").done();
    there.comb("check photos --level drill").done();
    // And for who only looks.
    let reader = World::new();
    reader.open_from(&key, &url, &["--read-only"]).done();
    let report = reader.comb("check photos --level packs --json").json();
    assert!(report["elsewhere_packs"].as_u64() > Some(0), "{report}");
    reader.comb("check photos").done();

    // A pack that only the store had, and has no more whole: what is lost with it is named.
    flip(&stage.pack("home"));
    let fresh = World::new();
    fresh.open_from(&key, &url, &["--read-only"]).done();
    let told = fresh.comb("check photos");
    assert!(told.out.contains("noise: bytes "), "{}{}", told.out, told.said);
}

#[test]
fn a_store_that_is_away_is_told_and_hides_nothing() {
    let stage = Stage::at_rest();
    fs::rename(stage.world.path("home"), stage.world.path("elsewhere")).expect("renamed");
    let told = stage.check("");
    assert!(told.code == 10 && told.said.contains("store \"home\" was not checked"), "{}", told.said);
    fs::remove_file(stage.slot("copy", stage.a)).expect("removed");
    let told = stage.check("--level manifest");
    assert!(told.out.contains(&format!("store \"copy\": slot {} is missing", stage.a)), "{}", told.out);
    assert!(told.said.contains("store \"home\" was not checked"), "{}", told.said);
    told.refused(5, "is damaged in 1 place");
    stage.check("--level drill").refused(10, "cannot be reached");
}

#[test]
fn of_a_store_that_lost_its_newest_seal_it_is_told_what_sends_it_again_and_the_daemon_knows_at_once() {
    let stage = Stage::at_rest();
    let world = &stage.world;
    world.comb("mount photos mount --seal-every 0").done();
    world.comb("sync photos --wait").done();
    fs::remove_file(stage.slot("copy", stage.head)).expect("removed");
    let told = stage.check("--level manifest");
    let way = "`comb sync photos --accept-rollback` sends again what it lacks";
    assert!(told.said.contains(way) && !told.said.contains("--repair"), "{}", told.said);
    told.refused(5, "is damaged in 1 place");
    // By itself the daemon looks every ten minutes.
    wait_until("looking", || world.comb("status photos").out.contains("the store was put back in time"));

    fs::remove_file(stage.pack("copy")).expect("removed");
    let told = stage.check("--level packs");
    assert!(told.said.contains(way) && told.said.contains("check photos --repair"), "{}", told.said);
    world.comb("sync photos --accept-rollback --wait --limit 2m").done();
    stage.check("--repair").done();
    world.comb("status photos").done();
    world.comb("unmount mount").done();
}
