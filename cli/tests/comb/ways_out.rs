//! Where nothing goes on by itself: what is said leads out, and is tried here as it is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::world::{World, wait_until};

/// A volume in the store `store`, which another machine has taken over; what this one wrote last is not in it.
fn taken_over() -> (World, World) {
    let (world, other) = (World::new(), World::new());
    let store = url(&world.dir("store"));
    world.comb("volume create photos").done();
    world.comb("volume key photos --out key").done();
    world.words(["store", "add", "photos", &store]).done();
    world.dir("mount");
    other.dir("mount");
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/first"), "first").expect("written");
    world.comb("sync photos --wait").done();
    open(&other, &world, "").done();
    other.comb("mount photos mount").done();
    fs::write(other.path("mount/second"), "second").expect("written");
    other.comb("sync photos --wait").done();
    other.comb("unmount mount").done();
    // Several seals, so that both machines have some of the same number.
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    for text in ["t", "ta", "tail"] {
        fs::write(world.path("mount/tail"), text).expect("written");
        world.comb("snapshot photos").done();
    }
    fs::rename(world.path("away"), world.path("store")).expect("back again");
    world.comb("sync photos --wait").refused(8, "took the volume over");
    world.comb("unmount mount").done();
    (world, other)
}

fn open(machine: &World, first: &World, how: &str) -> crate::world::Outcome {
    let (key, store) = (first.path("key"), url(&first.path("store")));
    machine.comb(&format!("volume open photos --key-file {} --store {store} {how}", key.display()))
}

fn url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

#[test]
fn a_volume_of_others_without_a_store_gets_one_or_becomes_ones_own() {
    for how in ["fenced", "follows"] {
        let (world, other) = taken_over();
        let store = url(&world.path("store"));
        let machine = match how {
            "fenced" => &world,
            _ => {
                other.comb("volume remove photos --yes").done();
                open(&other, &world, "--read-only").done();
                &other
            }
        };
        if how == "fenced" {
            let refused = machine.comb("store remove photos folder");
            assert!(refused.said.contains("`comb volume open photos` keeps"), "{}", refused.said);
            refused.refused(2, "what only this machine has is in no store");
            machine.comb("store remove photos folder --yes").done();
            // Nobody else would tell of it any more: at rest and mounted.
            for line in ["status photos", "status"] {
                let told = machine.comb(line);
                assert!(told.out.contains("TAKEN OVER: another device took the volume over"), "{}", told.out);
                assert!(told.said.contains("`comb volume open photos --store URL`"), "{}", told.said);
                told.refused(9, "what only this machine has is all from seal");
            }
            machine.comb("mount photos mount").done();
            machine.comb("status photos").refused(9, "is not safe");
            let told = machine.comb("status photos --json").out;
            let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
            assert_eq!(told[0]["taken_over"]["by"], 2, "{told}");
            machine.comb("unmount mount").done();
        } else {
            let refused = machine.comb("store remove photos folder");
            assert!(refused.said.contains("`comb fork photos@head NEW`"), "{}", refused.said);
            refused.refused(2, "follows store \"folder\"");
            machine.comb("store remove photos folder --yes").done();
            let told = machine.comb("status photos");
            assert!(told.said.contains("`comb volume open photos --store URL`"), "{}", told.said);
            assert!(told.done().contains("it follows no store: nothing new is shown"));
        }
        let refused = machine.comb("volume open photos");
        assert!(refused.said.contains("`comb volume open photos --store URL`"), "{}", refused.said);
        refused.refused(3, "has no store to be opened from");
        machine.comb("snapshot photos").refused(8, "another device writes it");
        machine.words(["store", "add", "photos", &store]).refused(8, "another device writes it");

        machine.comb("fork photos@head own").done();
        let shown = machine.comb("ls own:").done();
        assert_eq!(shown, if how == "fenced" { "first\ntail\n" } else { "first\nsecond\n" });
        let empty = url(&machine.dir("empty"));
        machine.words(["volume", "open", "photos", "--store", &empty]).refused(3, "does not know volume");
        machine.words(["volume", "open", "photos", "--store", &store, "--read-only"]).done();
        machine.comb("status photos").done();
        assert_eq!(machine.comb("ls photos:").done(), "first\nsecond\n");
        machine.words(["volume", "open", "photos", "--store", &empty]).refused(4, "is opened from store");
        machine.comb("volume open photos").done();
        machine.comb("mount photos mount").done();
        fs::write(machine.path("mount/third"), "third").expect("it is written here");
        machine.comb("sync photos --wait").done();
        machine.comb("unmount mount").done();
        machine
            .words(["volume", "open", "photos", "--store", &store])
            .refused(4, "is written on this machine");
    }
}

#[test]
fn a_damaged_note_of_the_end_is_found_out_anew() {
    for text in ["", "{\"by\":2", "{}"] {
        let (world, _other) = taken_over();
        let note = world.volume_folder().join("fenced");
        fs::write(&note, text).expect("damaged");
        let said = world.comb("mount photos mount");
        assert!(said.said.contains("`comb volume open photos`"), "{}", said.said);
        said.done();
        assert_eq!(fs::read(world.path("mount/tail")).expect("shown"), b"tail");
        assert!(fs::write(world.path("mount/no"), "").is_err());
        world.comb("unmount mount").done();
        world.comb("branch list photos").refused(5, "is damaged");

        let said = world.comb("volume open photos");
        assert!(said.said.contains("is branch"), "{}", said.said);
        said.done();
        assert_eq!(world.comb("ls photos:").done(), "first\nsecond\n");
        let branch =
            world.comb("branch list photos --json").json()[0]["name"].as_str().expect("a name").to_owned();
        assert_eq!(world.comb(&format!("cat {branch}:tail")).done(), "tail");
        world.comb("check photos").done();
    }
}

#[test]
fn a_damaged_newest_slot_in_the_only_store_is_no_end() {
    let world = World::new();
    let store = world.dir("store");
    world.comb("volume create photos").done();
    world.comb("volume key photos --out key").done();
    world.words(["store", "add", "photos", &url(&store)]).done();
    world.dir("mount");
    world.comb("mount photos mount").done();
    for name in ["first", "second"] {
        fs::write(world.path("mount").join(name), name).expect("written");
        world.comb("sync photos --wait").done();
    }
    world.comb("unmount mount").done();
    let slot = newest_slot(&store);
    let mut bytes = fs::read(&slot).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&slot, bytes).expect("damaged");

    // Whoever has nothing but the store sees what is whole, if he says so, and goes on from there.
    let bare = World::new();
    for how in ["", "--read-only", "--accept-rollback"] {
        let refused = open(&bare, &world, how);
        assert!(refused.said.contains("--accept-rollback"), "{}", refused.said);
        refused.refused(5, "damaged");
    }
    let opened = open(&bare, &world, "--read-only --accept-rollback");
    assert!(opened.said.contains("the newest seal that is whole"), "{}", opened.said);
    opened.done();
    let shown = bare.comb("ls photos:");
    assert!(shown.said.contains("showing what was seen last"), "{}", shown.said);
    assert_eq!(shown.done(), "first\n");
    bare.comb("fork photos@head own").done();
    bare.dir("mount");
    bare.comb("mount own mount").done();
    fs::write(bare.path("mount/new"), "new").expect("it is one's own");
    bare.comb("unmount mount").done();

    // Whoever writes it has it whole, and gives it a new store.
    fs::create_dir(world.path("new")).expect("a folder");
    world.comb("snapshot photos").done();
    let refused = world.comb("sync photos --limit 1m");
    assert!(refused.said.contains("a new store gets it"), "{}", refused.said);
    refused.refused(9, "is damaged");
    world.comb("store remove photos folder").done();
    world.words(["store", "add", "photos", &url(&world.path("new"))]).done();
    world.comb("sync photos --wait").done();
    world.comb("check photos").done();
    let reader = World::new();
    let (key, new) = (world.path("key"), url(&world.path("new")));
    reader.comb(&format!("volume open photos --key-file {} --store {new}", key.display())).done();
    assert_eq!(reader.comb("ls photos:").done(), "first\nsecond\n");
}

fn newest_slot(store: &Path) -> PathBuf {
    let mut slots: Vec<PathBuf> = crate::volumes::walk(store)
        .into_iter()
        .filter(|path| path.parent().is_some_and(|folder| folder.ends_with("m")))
        .collect();
    slots.sort();
    slots.swap_remove(0)
}

#[test]
fn a_volume_in_another_store_is_opened_with_its_key_of_the_ring() {
    let (world, bare) = (World::new(), World::new());
    world.private("passphrase", "correct horse battery staple");
    world.comb("key ring init --passphrase-file passphrase").done();
    for (name, store) in [("photos", "store"), ("mail", "second")] {
        world.comb(&format!("volume create {name}")).done();
        world.words(["store", "add", name, &url(&world.dir(store))]).done();
        world.comb(&format!("sync {name} --wait")).done();
    }
    let passphrase = world.path("passphrase").display().to_string();
    let words = ["recover", "--store", &url(&world.path("store")), "--passphrase-file", &passphrase];
    let recovered = bare.words(words);
    assert!(recovered.said.contains("`comb volume open NAME --store URL`"), "{}", recovered.said);
    recovered.refused(3, "volume \"mail\" is not recovered");
    bare.words(["volume", "open", "mail", "--store", &url(&world.path("second"))]).done();
    bare.comb("ls mail:").done();
    bare.words(["volume", "open", "other", "--store", &url(&world.path("second"))]).refused(3, "key ring");
}

#[test]
fn a_copy_that_is_followed_is_listed_as_a_copy() {
    let (world, _other) = taken_over();
    let copy = url(&world.dir("copy"));
    world.comb("volume open photos").done();
    world.words(["store", "add", "photos", &copy]).done();
    world.comb("sync photos --wait").done();
    for (store, role) in [(copy, "copy"), (url(&world.path("store")), "decides who writes")] {
        let reader = World::new();
        let key = world.path("key");
        let line = format!("volume open photos --key-file {} --store {store} --read-only", key.display());
        reader.comb(&line).done();
        let list = reader.comb("store list photos").done();
        assert!(list.contains(role), "{list}");
        assert_eq!(reader.comb("store list photos --json").json()[0]["arbiter"], role != "copy");
        assert_eq!(reader.comb("ls photos:").done(), "first\nsecond\n", "and read all the same");
    }
}

#[test]
fn a_drill_after_a_takeover_compares_no_seals_of_two_machines() {
    let (world, _other) = taken_over();
    // Both have a seal of the number that is the newest in the store.
    let drilled = world.comb("check photos --level drill");
    assert!(drilled.said.contains("not compared"), "{}", drilled.said);
    drilled.done();
    world.comb("volume open photos --read-only").done();
    let drilled = world.comb("check photos --level drill");
    assert!(drilled.said.contains("the same as here"), "{}", drilled.said);
    drilled.done();
}

#[test]
fn what_goes_on_from_a_copy_elsewhere_is_opened_beside_what_is_here() {
    let (world, other) = (World::new(), World::new());
    let (store, copy) = (url(&world.dir("store")), url(&world.dir("copy")));
    world.comb("volume create photos").done();
    world.comb("volume key photos --out key").done();
    world.words(["store", "add", "photos", &store]).done();
    world.words(["store", "add", "photos", &copy, "--as", "copy"]).done();
    world.dir("mount");
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/first"), "first").expect("written");
    world.comb("sync photos --wait").done();
    // The store that decided is lost, and somebody goes on from the copy, which has not all.
    fs::remove_dir_all(world.path("store")).expect("lost");
    fs::rename(world.path("copy"), world.path("away")).expect("moved");
    fs::write(world.path("mount/last"), "last").expect("written");
    world.comb("unmount mount").done();
    fs::rename(world.path("away"), world.path("copy")).expect("back again");
    let key = world.path("key");
    let open = format!("volume open photos --key-file {} --store {copy}", key.display());
    other.comb(&format!("{open} --promote")).done();
    other.comb("snapshot photos").done();
    other.comb("sync photos --wait").done();

    let refused = world.comb("volume open photos");
    assert!(refused.said.contains("`comb fork photos@head NEW`"), "{}", refused.said);
    refused.refused(4, "is written on this machine");
    world.comb("fork photos@head mine").done();
    world.comb("volume key photos --out again").done();
    world.comb("volume remove photos --yes").done();
    world.comb(&open).done();
    assert_eq!(world.comb("ls photos:").done(), "first\n");
    assert_eq!(world.comb("ls mine:").done(), "first\nlast\n");
}

#[test]
fn what_lies_in_a_store_alone_that_is_away_is_told_as_that() {
    let (world, _) = taken_over();
    let other = World::new();
    open(&other, &world, "").done();
    other.dir("mount");
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    for line in [
        "rollback photos@2",
        "mount photos mount --at 2",
        "cat photos@2:first",
        "restore photos@2: --to back",
        "fork photos@2 new",
    ] {
        let outcome = other.comb(line);
        assert!(outcome.said.contains("hint: "), "{line}: {}", outcome.said);
        assert!(outcome.said.matches("packs/").count() < 2, "{line}: {}", outcome.said);
        outcome.refused(10, "the store cannot be reached");
    }
    fs::rename(world.path("away"), world.path("store")).expect("back again");
    // Who was taken over is told that first.
    world.comb("volume open photos").done();
    other.comb("sync photos").refused(8, "took the volume over");
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    let outcome = other.comb("rollback photos@2");
    assert!(outcome.said.contains("`comb volume open photos` takes it over"), "{}", outcome.said);
    outcome.refused(8, "another device writes it");
}

#[test]
fn a_daemon_that_ends_while_it_is_asked_gives_no_answer() {
    let world = World::new();
    world.comb("volume create photos").done();
    world.words(["store", "add", "photos", &url(&world.dir("store"))]).done();
    world.words(["retain", "photos", "keep last 1"]).done();
    world.dir("mount");
    world.comb("mount photos mount --seal-every 0").done();
    for text in ["a", "b", "c", "d"] {
        fs::write(world.path("mount/first"), text).expect("written");
        world.comb("sync photos --wait").done();
    }
    let pid = world.comb("status photos --json").json()[0]["mounts"][0]["pid"].to_string();
    // It waits for the store, which holds back what is to be removed.
    fs::rename(world.path("store"), world.path("away")).expect("moved");
    let moments = || world.comb("log photos").done().lines().count();
    let before = moments();
    let pruning = world.command(["prune", "photos"]).stderr(Stdio::piped()).spawn().expect("started");
    wait_until("dropping", || moments() < before);
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill starts").success());
    let output = pruning.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(11), "{said}");
    assert!(said.contains("ended before it answered") && said.contains("`comb status`"), "{said}");
}
