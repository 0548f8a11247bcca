//! Policies, and what they drop.

use std::fs;

use crate::world::{World, noise};

/// A volume with six snapshots at rest, one file that changes in each; the third has the tag `release`.
fn with_snapshots(world: &World) {
    world.comb("volume create photos").done();
    let dir = world.dir("mount");
    world.comb("mount photos mount").done();
    for i in 0..6 {
        // Does not compress, and is large enough to have a pack of its own.
        fs::write(dir.join("file"), noise(i, 400_000)).expect("written");
        world.comb(if i == 2 { "snapshot photos --tag release" } else { "snapshot photos" }).done();
    }
}

fn moments(world: &World) -> usize {
    world.comb("log photos --json").json().as_array().map_or(0, Vec::len)
}

#[test]
fn a_policy_is_kept_with_the_volume_and_says_what_it_means() {
    let world = World::new();
    world.comb("volume create photos").done();
    assert_eq!(world.comb("retain photos").done().trim(), "keep all forever");
    world.comb("prune photos").refused(3, "has no policy");
    world.words(["retain", "photos", "keep hourly"]).refused(2, "`hourly` is no rule");
    world.words(["retain", "photos", "keep 1h for 2d"]).done();
    assert_eq!(world.comb("retain photos").done().trim(), "keep 1h for 2d");
    world.comb("fork photos copy").done();
    assert_eq!(world.comb("retain copy --json").json()["policy"], "keep 1h for 2d");
    world.comb("retain photos --none").done();
    assert!(world.comb("retain photos --json").json()["policy"].is_null());
}

#[test]
fn pruning_drops_what_the_policy_does_not_keep_and_gives_room_back() {
    let world = World::new();
    with_snapshots(&world);
    world.words(["retain", "photos", "keep last 2; keep snapshots for 1s; keep tag release forever"]).done();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = moments(&world);
    let preview = world.comb("prune photos --dry-run --json").json();
    let drop = preview["drop"].as_array().expect("a list").len();
    assert!(drop >= 4 && drop < before, "{preview}");
    assert!(preview["frees"]["bytes"].as_u64().is_some_and(|bytes| bytes > 3 * 300_000), "{preview}");
    assert!(world.comb("prune photos --dry-run").done().contains("older than any rule"));
    assert_eq!(moments(&world), before, "nothing was dropped");

    let mounted = world.path("mount/.snapshots/release/file");
    let release = fs::read(&mounted).expect("the past");
    let pruned = world.comb("prune photos --grace 0 --json").json();
    assert_eq!(pruned["dropped"].as_array().map(Vec::len), Some(drop));
    assert!(pruned["removed"]["bytes"].as_u64().is_some_and(|bytes| bytes > 3 * 300_000), "{pruned}");
    assert_eq!(fs::read(&mounted).expect("kept"), release);
    assert_eq!(fs::read(world.path("mount/file")).expect("the newest").len(), 400_000);
    world.comb("check photos").done();
    world.comb("unmount mount").done();
    world.comb("check photos").done();
    let links = fs::read_dir(world.volume_folder().join("snapshots")).expect("a folder").count();
    let log = world.comb("log photos --snapshots --json").json();
    assert_eq!(Some(links), log.as_array().map(Vec::len));
    world.comb("mount photos mount").done();
    assert_eq!(fs::read(&mounted).expect("kept"), release);
    world.comb("unmount mount").done();
}

#[test]
fn a_moment_that_a_mount_shows_is_not_dropped() {
    let world = World::new();
    with_snapshots(&world);
    world.comb("unmount mount").done();
    world.dir("past");
    world.comb("mount photos past --at 3").done();
    world.words(["retain", "photos", "keep last 1; keep snapshots for 1s"]).done();
    std::thread::sleep(std::time::Duration::from_secs(2));
    world.comb("prune photos --grace 0").done();
    assert_eq!(fs::read(world.path("past/file")).expect("the past").len(), 400_000);
    world.comb("ls photos@3:").done();
    world.comb("ls photos@4:").refused(3, "");
    world.comb("unmount past").done();
    world.comb("prune photos --grace 0").done();
    world.comb("ls photos@3:").refused(3, "");
    world.comb("check photos").done();
}

/// The objects of the only volume in a store that is a folder: packs and slots.
fn stored(world: &World, store: &str) -> (usize, usize) {
    let volumes = world.path(store).join("v");
    let volume = fs::read_dir(volumes).expect("a store").next().expect("a volume").expect("an entry").path();
    let count = |part: &str| fs::read_dir(volume.join(part)).map_or(0, Iterator::count);
    (count("p"), count("m"))
}

#[test]
fn what_is_pruned_goes_from_the_stores_too_and_the_rest_opens_elsewhere() {
    let world = World::new();
    let (first, copy) = (world.dir("first"), world.dir("copy"));
    with_snapshots(&world);
    for store in [&first, &copy] {
        world.words(["store", "add", "photos", &format!("file://{}", store.display())]).done();
    }
    world.comb("sync photos --wait").done();
    let (packs, slots) = stored(&world, "first");
    world.words(["retain", "photos", "keep last 1; keep snapshots for 1s; keep tag release forever"]).done();
    std::thread::sleep(std::time::Duration::from_secs(2));

    let pruned = world.comb("prune photos --json").json();
    assert!(pruned["dropped"].as_array().is_some_and(|list| list.len() >= 4), "{pruned}");
    assert_eq!(stored(&world, "first").0.cmp(&packs), std::cmp::Ordering::Greater, "the grace is not over");

    let pruned = world.comb("prune photos --grace 0 --json").json();
    assert_eq!(pruned["stores"].as_array().map(Vec::len), Some(2), "{pruned}");
    for store in ["first", "copy"] {
        let (packs_now, slots_now) = stored(&world, store);
        assert!(packs_now + 3 < packs, "{store}: {packs_now} of {packs} packs are left: {pruned}");
        assert!(slots_now < slots, "{store}: {slots_now} of {slots} slots are left: {pruned}");
    }
    world.comb("check photos").done();
    let release = fs::read(world.path("mount/.snapshots/release/file")).expect("the past");
    let newest = fs::read(world.path("mount/file")).expect("the newest");

    // The daemon goes on, and so does one after it, without sending anything twice.
    fs::write(world.path("mount/more"), "more").expect("written");
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/most"), "most").expect("written");
    let (before, _) = stored(&world, "first");
    world.comb("sync photos --wait").done();
    assert!(stored(&world, "first").0 <= before + 2, "nothing that is gone came back");
    // What was doomed is buried by now, and stays so.
    world.comb("prune photos --grace 0").done();
    world.comb("unmount mount").done();

    world.words(["volume", "key", "photos", "--out", "key"]).done();
    let other = World::new();
    let url = format!("file://{}", copy.display());
    other.open_from(&world.path("key"), &url, &["--read-only", "--wait"]).done();
    other.dir("mount");
    other.comb("mount photos mount").done();
    assert_eq!(fs::read(other.path("mount/.snapshots/release/file")).expect("the past"), release);
    assert_eq!(fs::read(other.path("mount/file")).expect("the newest"), newest);
    assert_eq!(fs::read_to_string(other.path("mount/most")).expect("the newest"), "most");
    let checked = other.comb("check photos");
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.said);
    other.comb("unmount mount").done();
}

#[test]
fn a_store_that_holds_back_what_is_removed_is_named() {
    let world = World::new();
    let (first, copy) = (world.dir("first"), world.dir("copy"));
    with_snapshots(&world);
    for (store, name) in [(&first, "home"), (&copy, "spare")] {
        world.words(["store", "add", "photos", &format!("file://{}", store.display()), "--as", name]).done();
    }
    world.comb("sync photos --wait").done();
    world.words(["retain", "photos", "keep last 1; keep snapshots for 1s"]).done();
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Moved away, and something else is there.
    fs::rename(&copy, world.path("away")).expect("moved");
    world.dir("copy");

    for mounted in [true, false] {
        let pruned = world.comb("prune photos --grace 0");
        assert!(pruned.said.contains("store \"spare\" lacks seal "), "{}", pruned.said);
        assert!(
            pruned.said.contains("holds back what is removed, here and from every store: "),
            "{}",
            pruned.said
        );
        assert!(pruned.said.contains("`comb store remove photos spare`"), "{}", pruned.said);
        assert!(!pruned.said.contains("\"home\" lacks"), "{}", pruned.said);
        pruned.done();
        let told = world.comb("prune photos --grace 0 --json").json();
        assert_eq!(told["held_back_by"][0]["store"], "spare", "{told}");
        if mounted {
            world.comb("unmount mount").done();
        }
    }
    fs::remove_dir_all(&copy).expect("removed");
    fs::rename(world.path("away"), &copy).expect("back again");
    let told = world.comb("prune photos --grace 0 --json").json();
    assert!(told["held_back_by"].is_null() && told["removed"]["bytes"].as_u64() > Some(0), "{told}");
}

#[test]
fn pruning_again_and_again_takes_no_state_away() {
    let world = World::new();
    world.comb("volume create photos").done();
    let dir = world.dir("mount");
    world.comb("mount photos mount --seal-every 0").done();
    world.words(["retain", "photos", "keep last 3; keep snapshots for 1s"]).done();
    for state in 1..=6 {
        fs::write(dir.join("file"), format!("state {state}")).expect("written");
        world.comb("snapshot photos").done();
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    fs::write(dir.join("file"), "state 7").expect("written");
    let dropped = |again: &str| {
        let pruned = world.comb("prune photos --json").json();
        let head = pruned["head"]["seq"].as_u64().expect("a number");
        (pruned["dropped"].as_array().expect(again).len(), head)
    };
    assert!(dropped("the first").0 > 0);
    // What was written since the last seal was sealed by that, and is one of three now.
    let (_, head) = dropped("the second");
    for again in ["again", "and again", "and again"] {
        assert_eq!(dropped(again), (0, head), "nothing was written: {again}");
    }
    let told = world.comb("log photos --json").json();
    let mut states: Vec<String> = (told.as_array().expect("a list").iter())
        .map(|seal| world.comb(&format!("cat photos@{}:file", seal["seq"])).done().trim().to_owned())
        .collect();
    states.dedup();
    assert_eq!(states[..3], ["state 7", "state 6", "state 5"], "{told}");
    world.comb("unmount mount").done();
}

#[test]
fn what_is_left_of_mostly_dead_packs_moves_together_here_and_in_every_store() {
    let world = World::new();
    world.comb("volume create photos").done();
    let dir = world.dir("mount");
    world.comb("mount photos mount").done();
    let store = |name: &str| format!("file://{}", world.dir(name).display());
    world.words(["store", "add", "photos", &store("first")]).done();
    let noise = noise(1, 7 << 20);
    let (kept, gone) = noise.split_at(1 << 20);
    // One pack for both.
    fs::write(dir.join("kept"), kept).expect("written");
    fs::write(dir.join("gone"), gone).expect("written");
    world.comb("snapshot photos").done();
    fs::remove_file(dir.join("gone")).expect("removed");
    world.comb("snapshot photos").done();
    world.comb("sync photos --wait").done();
    world.words(["retain", "photos", "keep last 1; keep snapshots for 1s"]).done();
    std::thread::sleep(std::time::Duration::from_secs(2));

    let preview = world.comb("prune photos --dry-run --json").json();
    let compacts = &preview["compacts"];
    assert_eq!((&compacts["packs"], compacts["copied_bytes"].as_u64() > Some(1 << 20)), (&1.into(), true));
    assert!(world.comb("prune photos --dry-run").said.contains("in use together, which frees"));
    let pruned = world.comb("prune photos --json").json();
    assert_eq!(pruned["compacted"], *compacts, "{pruned}");
    assert_eq!(world.comb("prune photos --dry-run --json").json()["compacts"]["packs"], 0);
    let pruned = world.comb("prune photos --grace 0 --json").json();
    assert!(pruned["removed"]["bytes"].as_u64() > Some(7 << 20), "{pruned}");
    assert!(pruned["stores"][0]["packs"].as_u64() > Some(0), "{pruned}");
    let pruned = world.comb("prune photos --grace 0 --json").json();
    assert_eq!(pruned["stores"][0]["packs"], 0, "what is gone is not removed again: {pruned}");

    world.words(["store", "add", "photos", &store("second"), "--as", "second"]).done();
    world.comb("sync photos --wait").done();
    for line in ["check photos", "check photos --store second", "check photos --level drill --store second"] {
        world.comb(line).done();
    }
    // A pack of what was moved is mended like any other.
    let folder = world.volume_folder().join("packs");
    let is_moved = |path: &std::path::PathBuf| fs::read(path).expect("read")[11] == 3;
    let paths = || fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let moved = paths().find(is_moved).expect("a pack of moved frames");
    fs::remove_file(&moved).expect("removed");
    world.comb("check photos").refused(5, "is damaged in");
    world.comb("check photos --repair").done();
    assert!(moved.exists());
    world.comb("check photos").done();

    world.comb("fork photos other").done();
    world.comb("check other").done();
    world.comb("unmount mount").done();
    for volume in ["photos", "other"] {
        world.comb(&format!("mount {volume} mount")).done();
        assert!(fs::read(dir.join("kept")).expect("read") == kept, "{volume}");
        world.comb("unmount mount").done();
    }
}
