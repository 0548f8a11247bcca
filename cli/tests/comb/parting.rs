//! Parting from a store, and coming back to it: what went on there, and what went on here.

use std::fs;
use std::path::{Path, PathBuf};

use crate::volumes::walk;
use crate::world::{Outcome, World, copy};

/// A mounted volume whose store, the folder `store`, has three changes of the file `a`. Its key is in the file `key`.
fn replicated() -> World {
    let world = World::new();
    world.comb("volume create photos").done();
    world.comb("volume key photos --out key").done();
    add(&world, "store").done();
    world.dir("mount");
    world.comb("mount photos mount --seal-every 0").done();
    for text in ["1", "2", "3"] {
        change(&world, text);
        world.comb("sync photos --wait").done();
    }
    world
}

fn add(world: &World, folder: &str) -> Outcome {
    world.words([
        "store",
        "add",
        "photos",
        &format!("file://{}", world.dir(folder).display()),
        "--as",
        folder,
    ])
}

fn change(world: &World, text: &str) {
    fs::write(world.path("mount/a"), text).expect("written");
}

/// Goes on without a store, until nothing is here any more of what the store has.
fn go_on_and_forget(world: &World) {
    for text in ["4", "5", "6"] {
        change(world, text);
        world.comb("snapshot photos").done();
    }
    world.words(["retain", "photos", "keep last 1"]).done();
    world.comb("prune photos --grace 0").done();
    let manifests = walk(&world.volume_folder().join("manifests"));
    let first = manifests.iter().filter_map(|path| path.file_name()?.to_str()).min().map(str::to_owned);
    assert!(first > Some(format!("{:016x}", 6)), "the test needs a gap: {first:?}");
}

/// Another machine that opens the volume from the store.
fn open(world: &World, how: &str) -> World {
    let other = World::new();
    let (key, store) = (world.path("key"), world.path("store"));
    other
        .comb(&format!(
            "volume open photos --key-file {} --store file://{} {how}",
            key.display(),
            store.display()
        ))
        .done();
    other
}

fn slots(store: &Path) -> Vec<PathBuf> {
    walk(store).into_iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("m"))).collect()
}

#[test]
fn a_store_that_holds_an_older_past_is_taken_up_again() {
    for kind in ["arbiter", "copy"] {
        let world = replicated();
        if kind == "copy" {
            fs::rename(world.path("store"), world.path("second")).expect("moved");
            fs::create_dir(world.path("store")).expect("made");
            world.comb("store remove photos store").done();
            add(&world, "second").done();
            world.comb("sync photos --wait").done();
            add(&world, "store").done();
            world.comb("sync photos --wait").done();
        }
        let before = slots(&world.path("store")).len();
        world.comb("store remove photos store").done();
        go_on_and_forget(&world);
        world.comb("sync photos --wait");

        let said = add(&world, "store");
        assert!(!said.said.contains("history"), "{kind}: {}", said.said);
        said.done();
        world.comb("sync photos --wait --limit 2m").done();
        assert!(slots(&world.path("store")).len() > before, "it goes on where it was");
        change(&world, "7");
        world.comb("sync photos --wait --limit 2m").done();
        world.comb("unmount mount").done();
        world.comb("status photos").done();
        world.comb("check photos").done();
        world.comb("check photos --store store").done();
        // After a restart, too; and others open it there.
        world.comb("mount photos mount --seal-every 0").done();
        change(&world, "8");
        world.comb("sync photos --wait --limit 2m").done();
        let other = open(&world, "--read-only");
        assert_eq!(other.comb("cat photos:a").done(), "8", "{kind}");
        other.comb("check photos").done();
        // What is given up by now goes with the next pruning.
        world.comb("prune photos --grace 0").done();
        world.comb("check photos").done();
        world.comb("unmount mount").done();
    }
}

#[test]
fn a_store_of_which_nobody_knows_whose_past_it_holds_is_told_with_a_way_on() {
    let world = replicated();
    world.comb("store remove photos store").done();
    go_on_and_forget(&world);
    fs::remove_dir_all(world.volume_folder().join("parted")).expect("removed");
    let refused = add(&world, "store");
    assert!(refused.said.contains("when it was emptied"), "{}", refused.said);
    refused.refused(4, "cannot be told any more");
    // As it was said: it gets all of it.
    fs::remove_dir_all(world.path("store")).expect("emptied");
    add(&world, "store").done();
    world.comb("sync photos --wait --limit 2m").done();
    assert_eq!(open(&world, "--read-only").comb("cat photos:a").done(), "6");
    world.comb("unmount mount").done();
}

#[test]
fn a_store_in_which_somebody_went_on_is_not_taken_for_an_older_past() {
    let world = replicated();
    copy(&world.path("store"), &world.path("old"));
    let clone = World::new();
    copy(&world.path("state"), &clone.path("state"));
    let sent = slots(&world.path("store"));
    world.comb("store remove photos store").done();
    go_on_and_forget(&world);
    assert_eq!(slots(&world.path("store")), sent, "nothing goes there after the parting");
    // A clone of the machine, which has the same right and does not know.
    clone.comb("snapshot photos -m clone").done();
    clone.comb("sync photos --wait").done();
    add(&world, "store").refused(4, "cannot be told any more");
    // A machine that took it over.
    fs::remove_dir_all(world.path("store")).expect("removed");
    fs::rename(world.path("old"), world.path("store")).expect("put back");
    open(&world, "");
    add(&world, "store").refused(4, "another device took it over there with epoch 2");
    world.comb("unmount mount").done();
}

#[test]
fn a_store_in_which_the_volume_was_taken_over_is_not_parted_from_without_a_word() {
    let world = replicated();
    let other = open(&world, "");
    change(&world, "not sent");
    let refused = world.comb("store remove photos store");
    assert!(
        refused.said.contains("add --yes") && refused.said.contains("`comb sync photos`"),
        "{}",
        refused.said
    );
    refused.refused(2, "another device took volume \"photos\" over in store \"store\", with epoch 2");
    assert_eq!(world.comb("store list photos --json").json().as_array().map(Vec::len), Some(1), "it stays");
    // Who goes on there may part from it as he likes; so may who does not reach it.
    other.comb("store remove photos folder").done();
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    world.comb("store remove photos store").done();
    fs::rename(world.path("away"), world.path("store")).expect("back again");
    add(&world, "store").refused(4, "another device took it over there with epoch 2");
    world.comb("unmount mount").done();

    let world = replicated();
    open(&world, "");
    world.comb("store remove photos store --yes").done();
    change(&world, "by itself");
    world.comb("snapshot photos").done();
    world.comb("unmount mount").done();
}

#[test]
fn an_emptied_store_gets_what_is_not_here_from_another() {
    let world = replicated();
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    fs::write(world.path("mount/big"), noise).expect("written");
    fs::create_dir(world.path("copy")).expect("a folder");
    add(&world, "copy").done();
    world.comb("sync photos --wait --limit 2m").done();
    world.comb("unmount mount").done();
    // Packs that are not here, as after an eviction; and the store that decides is empty.
    let folder = world.volume_folder().join("packs");
    let is_big = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20);
    let big: Vec<PathBuf> = walk(&folder).into_iter().filter(is_big).collect();
    assert!(!big.is_empty(), "the test needs a pack");
    let empty = || {
        fs::remove_dir_all(world.path("store")).expect("emptied");
        fs::create_dir(world.path("store")).expect("a folder");
    };
    big.iter().for_each(|pack| fs::remove_file(pack).expect("removed"));
    empty();
    world.comb("sync photos --accept-rollback --wait --limit 1m").done();
    assert_eq!(walk(&world.path("store")).into_iter().filter(is_big).count(), big.len());
    world.comb("check photos --store store").done();

    // Where no store has it either, somebody is needed: that is said at once, and stays said.
    walk(&world.path("copy")).iter().filter(|path| is_big(path)).for_each(|pack| {
        fs::remove_file(pack).expect("removed");
    });
    empty();
    let refused = world.comb("sync photos --accept-rollback --wait --limit 1m");
    assert!(refused.said.contains("no store has it whole: `comb check photos --repair`"), "{}", refused.said);
    assert_eq!(refused.code, 9);
    let told = world.comb("status photos");
    assert!(told.out.contains("NOT SAFE BEFORE SOMEBODY DOES SOMETHING"), "{}", told.out);
    assert!(told.said.contains("`comb check photos --repair`"), "{}", told.said);
    assert_eq!(told.code, 9);
}

/// The stores of the volume, the one that decides first.
fn stores(world: &World) -> Vec<(String, bool)> {
    let list = world.comb("store list photos --json").json();
    let one = |store: &serde_json::Value| {
        (store["name"].as_str().expect("a name").to_owned(), store["arbiter"].as_bool().expect("said"))
    };
    let mut all: Vec<_> = list.as_array().expect("a list").iter().map(one).collect();
    all.sort_by_key(|(_, arbiter)| !arbiter);
    all
}

#[test]
fn another_store_takes_the_place_of_the_one_that_decided() {
    for mounted in [true, false] {
        let world = replicated();
        if !mounted {
            world.comb("unmount mount").done();
        }
        let next = format!("file://{}", world.dir("next").display());
        world.words(["store", "move", "photos", &next]).done();
        assert_eq!(stores(&world), [("folder".to_owned(), true)], "mounted: {mounted}");
        // Given again it has nothing left to do.
        world.words(["store", "move", "photos", &next]).done();

        // Who comes to the old store is told that it decides no more, before anything of this machine's ends.
        let (other, key, old) = (World::new(), world.path("key"), world.path("store"));
        let open = |url: &str, how: &str| {
            other.comb(&format!("volume open photos --key-file {} --store {url} {how}", key.display()))
        };
        open(&format!("file://{}", old.display()), "").refused(8, "is a copy");
        if !mounted {
            world.comb("mount photos mount --seal-every 0").done();
        }
        change(&world, "4");
        world.comb("sync photos --wait --limit 2m").done();
        assert_eq!(
            slots(&old).len() + 1,
            slots(&world.path("next")).len(),
            "what comes later is not in the old one"
        );

        // Another machine takes the volume over from the new one, and this one notices.
        open(&next, "").done();
        assert_eq!(other.comb("cat photos:a").done(), "4");
        other.comb("check photos").done();
        change(&world, "5");
        let fenced = world.comb("sync photos --wait --limit 2m");
        assert_ne!(fenced.code, 0, "{}", fenced.said);
        world.comb("unmount mount");
    }
}

#[test]
fn a_store_moves_with_what_left_the_disk_and_may_keep_a_copy() {
    let world = replicated();
    world.comb("unmount mount").done();
    let next = format!("file://{}", world.dir("next").display());
    // It keeps a copy already, and takes the other's place; that one keeps a copy in turn.
    world.words(["store", "add", "photos", &next, "--as", "next"]).done();
    world.words(["store", "move", "photos", &next, "--keep"]).done();
    assert_eq!(stores(&world), [("next".to_owned(), true), ("store".to_owned(), false)]);
    world.comb("mount photos mount --seal-every 0").done();
    change(&world, "4");
    world.comb("sync photos --wait --limit 2m").done();
    assert_eq!(slots(&world.path("store")).len(), slots(&world.path("next")).len());
    world.comb("unmount mount").done();
    for store in ["store", "next"] {
        world.comb(&format!("check photos --store {store}")).done();
    }
    // And back.
    world.words(["store", "move", "photos", &format!("file://{}", world.path("store").display())]).done();
    assert_eq!(stores(&world), [("store".to_owned(), true)]);
    world.comb("status photos").done();
    world.comb("check photos").done();

    // One that is not there changes nothing.
    let away = format!("file://{}", world.path("nowhere").display());
    world.words(["store", "move", "photos", &away]).refused(10, "is it mounted?");
    assert_eq!(stores(&world), [("store".to_owned(), true)]);
    world.words(["store", "reach", &away]).refused(10, "is it mounted?");
    world.words(["store", "reach", &next]).done();
}
