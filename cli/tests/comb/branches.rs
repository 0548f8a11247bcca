//! Two devices on one store: who is fenced keeps what it wrote, and can go on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::volumes::walk;
use crate::world::{World, copy, put_back, wait_until};

/// A volume with a store in the folder `store`, replicated and mounted; it holds the file `first`.
fn replicated(world: &World) -> PathBuf {
    let store = world.dir("store");
    world.comb("volume create photos").done();
    world.words(["store", "add", "photos", &format!("file://{}", store.display())]).done();
    world.dir("mount");
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/first"), "first").expect("written");
    world.comb("sync photos --wait").done();
    world.comb("volume key photos --out key").done();
    store
}

fn open(other: &World, world: &World, flags: &str) {
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let store = format!("file://{}", world.path("store").display());
    other.open_from(&world.path("key"), &store, &flags).done();
    other.dir("mount");
}

fn read(world: &World, file: &str) -> String {
    fs::read_to_string(world.path("mount").join(file)).expect("a file")
}

#[test]
fn what_a_fenced_device_wrote_is_a_branch_and_the_device_goes_on() {
    let (world, other) = (World::new(), World::new());
    replicated(&world);
    open(&other, &world, "");
    other.comb("mount photos mount").done();
    fs::write(other.path("mount/second"), "second").expect("written");
    other.comb("sync photos --wait").done();

    world.comb("volume open photos").refused(4, "is written on this machine");
    fs::write(world.path("mount/tail"), "tail").expect("written before it knows");
    fs::write(world.path("mount/first"), "changed").expect("written before it knows");
    let refused = world.comb("sync photos --wait");
    assert_ne!(refused.code, 0, "{}", refused.said);
    assert!(refused.said.contains("another device took the volume over"), "{}", refused.said);
    assert!(fs::write(world.path("mount/late"), "late").is_err(), "it is read-only now");
    assert_eq!(read(&world, "tail"), "tail", "what was there stays to be seen");
    world.comb("volume open photos").refused(4, "in use");
    world.comb("unmount mount").done();
    world.comb("snapshot photos").refused(8, "read-only");

    // It takes the volume over in turn.
    let said = world.comb("volume open photos");
    assert!(said.said.contains("is branch \"photos/cut-"), "{}", said.said);
    said.done();
    let branches = world.comb("branch list photos --json").json();
    let branch = branches[0]["name"].as_str().expect("a branch").to_owned();
    assert_eq!(branches.as_array().map(Vec::len), Some(1), "{branches}");
    assert!(branches[0]["seals"].as_array().is_some_and(|seals| !seals.is_empty()), "{branches}");
    world.comb("mount photos mount").done();
    assert_eq!((read(&world, "first"), read(&world, "second")), ("first".into(), "second".into()));
    assert!(!world.path("mount/tail").exists(), "it is not in the volume");
    world.comb("check photos").done();

    // It is well as it is: nothing of it is to be sent.
    let status = world.words(["status", &branch]);
    assert!(
        !status.out.contains("TAKEN OVER") && !status.said.contains("hint"),
        "{}{}",
        status.out,
        status.said
    );
    status.done();
    let none = world.comb("status photos/nothing");
    assert!(none.said.contains("`comb branch list photos`"), "{}", none.said);
    none.refused(3, "volume \"photos\" has no branch \"photos/nothing\"");

    // The branch is read like a volume, and nothing changes it.
    assert_eq!(world.words(["cat", &format!("{branch}:tail")]).done(), "tail");
    assert_eq!(world.words(["cat", &format!("{branch}@head:first")]).done(), "changed");
    world.words(["check", &branch]).done();
    world.words(["snapshot", &branch]).refused(8, "read-only");
    world.dir("past");
    world.words(["mount", &branch, "past"]).done();
    assert_eq!(fs::read_to_string(world.path("past/tail")).expect("a file"), "tail");
    assert!(fs::write(world.path("past/tail"), "other").is_err());
    world.words(["branch", "remove", &branch, "--yes"]).refused(4, "is mounted");
    world.comb("unmount past").done();
    world.words(["restore", &format!("{branch}@head:tail"), "--to", "mount/back"]).done();
    assert_eq!(read(&world, "back/tail"), "tail");
    let back = world.words(["restore", &format!("{branch}@head:first"), "--beside", "--json"]).json();
    assert_eq!(read(&world, back["path"].as_str().expect("a path")), "changed", "{back}");
    assert_eq!(read(&world, "first"), "first", "nothing is replaced");

    // The other one learns of it, and follows.
    fs::write(world.path("mount/third"), "third").expect("written");
    world.comb("sync photos --wait").done();
    fs::write(other.path("mount/lost"), "lost").expect("written before it knows");
    assert_ne!(other.comb("sync photos --wait").code, 0);
    other.comb("unmount mount").done();
    other.comb("volume open photos --read-only").done();
    other.comb("mount photos mount").done();
    assert_eq!((read(&other, "third"), read(&other, "back/tail")), ("third".into(), "tail".into()));
    assert!(fs::write(other.path("mount/late"), "late").is_err(), "it only looks");
    other.comb("unmount mount").done();
    let theirs = other.comb("branch list photos --json").json();
    let theirs = theirs[0]["name"].as_str().expect("a branch").to_owned();
    assert_eq!(other.words(["cat", &format!("{theirs}:lost")]).done(), "lost");
    assert_eq!(other.words(["cat", &format!("{theirs}:second")]).done(), "second");

    // What it never read of the volume comes from the store, for the branch and for a volume that is made of it.
    other.words(["fork", &format!("{theirs}@head"), "theirs"]).done();
    assert_eq!(other.comb("cat theirs:first").done(), "first");
    assert_eq!(other.words(["cat", &format!("{theirs}:first")]).done(), "first");
    other.comb("check theirs").done();

    // Whoever follows may take over at any time: without anything of its own there is no branch.
    other.comb("volume open photos").done();
    assert_eq!(other.comb("branch list photos --json").json().as_array().map(Vec::len), Some(1));

    world.comb("unmount mount").done();
    world.comb("volume remove photos --yes").refused(4, "has branch");
    world.words(["fork", &format!("{branch}@head"), "saved"]).done();
    world.words(["branch", "remove", &branch]).refused(2, "destroys");
    world.words(["branch", "remove", &branch, "--yes"]).done();
    assert_eq!(world.comb("cat saved:tail").done(), "tail");
    world.comb("check saved").done();
    world.comb("check photos").done();
}

#[test]
fn a_device_that_was_taken_over_without_changes_has_no_branch() {
    let (world, other) = (World::new(), World::new());
    replicated(&world);
    world.comb("unmount mount").done();
    open(&other, &world, "");
    let status = other.comb("status photos").done();
    assert!(status.contains("has everything"), "it won the first slot itself: {status}");
    // It learns that when it is mounted, from a seal that is not its own.
    let said = world.comb("mount photos mount").said;
    assert!(!said.contains("from seal") && !said.contains("comb check"), "{said}");
    let fenced = || world.comb("status photos").said.contains("another device took it over");
    wait_until("noticing", fenced);
    let said = world.comb("sync photos --wait");
    assert!(said.said.contains("it has all that was written here"), "{}", said.said);
    said.refused(8, "took the volume over");
    let status = world.comb("status photos").out;
    assert!(status.contains("has everything (seq"), "{status}");
    world.comb("unmount mount").done();
    let said = world.comb("volume open photos");
    assert!(!said.said.contains("branch"), "{}", said.said);
    said.done();
    assert_eq!(world.comb("branch list photos --json").json().as_array().map(Vec::len), Some(0));
    assert_eq!(world.comb("cat photos:first").done(), "first");
}

#[test]
fn opening_again_that_ends_in_its_middle_takes_nothing_of_others_for_a_branch() {
    for tail in [false, true] {
        let (world, other) = (World::new(), World::new());
        let store = replicated(&world);
        open(&other, &world, "");
        if tail {
            fs::write(world.path("mount/tail"), "tail").expect("written before it knows");
        }
        world.comb("sync photos --wait").refused(8, "took the volume over");
        world.comb("unmount mount").done();
        let note = world.volume_folder().join("fenced");
        let before = fs::read(&note).expect("noted");
        let branches = || {
            let branches = world.comb("branch list photos --json").json();
            branches.as_array().map(|all| all.iter().map(|one| one["name"].to_string()).collect::<Vec<_>>())
        };
        let had = branches().map(|had| had.len());
        assert_eq!(had, Some(usize::from(tail)));

        // What the other writes now lies in a pack of its own, which is away.
        other.comb("mount photos mount").done();
        fs::write(other.path("mount/second"), "second").expect("written");
        other.comb("sync photos --wait").done();
        other.comb("unmount mount").done();
        let packs = walk(&store).into_iter().filter(|path| path.to_string_lossy().contains("/p/"));
        let here: Vec<_> = walk(&world.volume_folder().join("packs"));
        let missed: Vec<_> =
            packs.filter(|pack| !here.iter().any(|here| here.file_name() == pack.file_name())).collect();
        let away = |pack: &Path| world.path("away").join(pack.file_name().expect("a name"));
        world.dir("away");
        for pack in &missed {
            fs::rename(pack, away(pack)).expect("moved");
        }
        world.comb("volume open photos").refused(5, "cannot be opened");
        let kept = branches();
        assert_eq!(kept.as_ref().map(Vec::len), had, "{kept:?}: what the store has is no branch");
        for pack in &missed {
            fs::rename(away(pack), pack).expect("moved");
        }
        world.comb("volume open photos --read-only").done();
        assert_eq!(branches(), kept);

        // A command that was killed before its last step has left this.
        fs::write(&note, before).expect("written");
        assert_eq!(branches(), kept, "it follows");
        let said = world.comb("mount photos mount").said;
        assert!(!said.contains("it is shown as it was left here"), "{said}");
        assert_eq!(read(&world, "second"), "second");
        world.comb("unmount mount").done();
        world.comb("volume open photos").done();
        assert!(!note.exists(), "it is written here");
        assert_eq!(branches(), kept);
        world.comb("check photos").done();
    }
}

#[test]
fn a_store_that_was_put_back_is_refused_until_a_person_accepts_it() {
    let (world, other) = (World::new(), World::new());
    let store = replicated(&world);
    open(&other, &world, "--read-only");
    copy(&store, &world.path("old"));
    fs::write(world.path("mount/second"), "second").expect("written");
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
    other.comb("mount photos mount").done();
    assert_eq!(read(&other, "second"), "second", "who follows sees what is new");
    other.comb("unmount mount").done();

    put_back(&world.path("old"), &store);
    let refused = world.comb("sync photos --limit 1m");
    assert_ne!(refused.code, 0);
    assert!(refused.said.contains("put back in time"), "{}", refused.said);
    other.comb("volume open photos").refused(6, "old or a foreign state");
    other.comb("mount photos mount").done();
    assert_eq!(read(&other, "second"), "second", "who follows goes on with what it saw");
    other.comb("unmount mount").done();

    world.comb("sync photos --wait --accept-rollback").done();
    let third = World::new();
    open(&third, &world, "--read-only --wait");
    third.comb("mount photos mount").done();
    assert_eq!(read(&third, "second"), "second", "it was sent again");
    third.comb("unmount mount").done();
}

#[test]
fn what_a_store_forgot_is_on_a_branch_and_no_branch_is_taken_for_another() {
    let (world, other, third) = (World::new(), World::new(), World::new());
    let store = replicated(&world);
    copy(&store, &world.path("old"));
    fs::write(world.path("mount/one"), "one").expect("written");
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
    open(&other, &world, "");
    assert_ne!(world.comb("sync photos").code, 0, "it is fenced, and has nothing that the store lacks");

    // The store is put back to before what it had told to have.
    put_back(&world.path("old"), &store);
    world.comb("volume open photos --accept-rollback").done();
    let branches = || world.comb("branch list photos --json").json();
    let name = |number: usize| branches()[number]["name"].as_str().expect("a branch").to_owned();
    assert_eq!(world.words(["cat", &format!("{}:one", name(0))]).done(), "one");

    // Fenced again, behind the same seal and by the same epoch as before.
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/precious"), "precious").expect("written");
    open(&third, &world, "");
    assert_ne!(world.comb("sync photos --wait").code, 0);
    world.comb("unmount mount").done();
    world.comb("volume open photos").done();
    assert_eq!(branches().as_array().map(Vec::len), Some(2), "{}", branches());
    let held: Vec<String> =
        (0..2).map(|number| world.words(["ls", &format!("{}:/", name(number))]).done()).collect();
    assert!(held.iter().any(|list| list.contains("precious")), "{held:?}");
    assert!(held.iter().any(|list| list.contains("one")), "{held:?}");
    for number in 0..2 {
        // In the store, others' seals have its numbers: that is no damage.
        world.words(["check", &name(number)]).done();
        world.words(["check", &name(number), "--level", "drill"]).refused(2, "is a branch");
    }
}

#[test]
fn a_new_store_of_an_old_name_has_nothing_until_it_has() {
    let world = World::new();
    replicated(&world);
    world.comb("unmount mount").done();
    let second = format!("file://{}", world.dir("second").display());
    world.comb("store remove photos folder").done();
    world.words(["store", "add", "photos", &second]).done();
    let status = world.comb("status photos");
    assert!(!status.out.contains("has everything"), "{}", status.out);
    world.comb("sync photos --wait").done();
    assert!(world.comb("status photos").done().contains("has everything"));
}

#[test]
fn a_copy_is_written_only_if_it_decides_from_now_on() {
    let (world, other) = (World::new(), World::new());
    replicated(&world);
    let copy = format!("file://{}", world.dir("copy").display());
    world.words(["store", "add", "photos", &copy]).done();
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
    let key = world.path("key").display().to_string();
    let open = |name: &str, flag: &str| {
        let mut words = vec!["volume", "open", name, "--key-file", &key, "--store", &copy];
        words.extend(flag.split_whitespace());
        other.words(words)
    };
    open("photos", "").refused(8, "is a copy");
    open("photos", "--read-only").done();
    assert_eq!(other.comb("cat photos:first").done(), "first");
    other.comb("volume remove photos --yes").done();
    open("photos", "--promote").done();
    assert_eq!(other.comb("cat photos:first").done(), "first");
    // From now on it decides, for whoever comes next too.
    other.dir("mount");
    other.comb("mount photos mount").done();
    other.comb("sync photos --wait").done();
    other.comb("unmount mount").done();
    let third = World::new();
    third.words(["volume", "open", "photos", "--key-file", &key, "--store", &copy]).done();
}

/// A volume with a copy that holds what this machine sealed behind the cut, and that goes on here: another machine had taken it
/// over while the store that decides was away.
fn copy_with_a_tail(world: &World, other: &World) -> PathBuf {
    let store = replicated(world);
    let copy = world.dir("copy");
    world.words(["store", "add", "photos", &format!("file://{}", copy.display())]).done();
    world.comb("sync photos --wait").done();
    let away = world.path("away");
    fs::rename(&store, &away).expect("moved");
    for number in 0..3 {
        fs::write(world.path("mount/tail"), format!("tail {number}")).expect("written");
        let _ = world.comb("sync photos --wait --limit 1s");
    }
    world.comb("unmount mount").done();
    fs::rename(&away, &store).expect("back again");
    open(other, world, "");
    other.comb("mount photos mount").done();
    for number in 0..2 {
        fs::write(other.path("mount/second"), format!("second {number}")).expect("written");
        other.comb("sync photos --wait").done();
    }
    world.comb("mount photos mount").done();
    let _ = world.comb("sync photos --wait --limit 1m");
    world.comb("unmount mount").done();
    copy
}

/// How a volume looks from a store alone.
fn seen_from(store: &std::path::Path, world: &World) -> (String, String) {
    let reader = World::new();
    let store = format!("file://{}", store.display());
    reader.open_from(&world.path("key"), &store, &["--read-only"]).done();
    reader.comb("check photos").done();
    (reader.comb("ls photos:").done(), reader.comb("log photos --json").done())
}

#[test]
fn a_copy_that_has_a_fenced_tail_is_mended_when_that_is_a_branch() {
    let (world, other) = (World::new(), World::new());
    let copy = copy_with_a_tail(&world, &other);
    assert_eq!(seen_from(&copy, &world).0, "first\ntail\n", "the copy took what the other store did not");

    world.comb("volume open photos").done();
    world.comb("mount photos mount").done();
    fs::write(world.path("mount/third"), "third").expect("written");
    world.comb("sync photos --wait --limit 2m").done();
    assert_eq!(seen_from(&copy, &world).0, "first\nsecond\nthird\n");
    assert_eq!(seen_from(&copy, &world), seen_from(&world.path("store"), &world));
    let branch =
        world.comb("branch list photos --json").json()[0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(world.comb(&format!("cat {branch}:tail")).done(), "tail 2");
    world.comb("check photos").done();
    world.comb("unmount mount").done();
    other.comb("unmount mount").done();
}

#[test]
fn a_copy_whose_tail_nobody_keeps_is_left_alone_and_another_one_made() {
    let (world, other) = (World::new(), World::new());
    let copy = copy_with_a_tail(&world, &other);
    world.comb("volume open photos").done();
    let branch =
        world.comb("branch list photos --json").json()[0]["name"].as_str().expect("a name").to_owned();
    world.comb(&format!("branch remove {branch} --yes")).done();
    let refused = world.comb("sync photos --wait --limit 1m");
    assert!(refused.said.contains("may be nowhere else"), "{}", refused.said);
    assert!(!refused.said.contains("remove what lies there"), "{}", refused.said);
    refused.refused(9, "`comb store remove`");
    assert_eq!(seen_from(&copy, &world).0, "first\ntail\n", "it is as it was");
    // What is said is a way out.
    let copies = world.comb("store list photos --json").json();
    let name = copies[1]["name"].as_str().expect("a name").to_owned();
    world.comb(&format!("store remove photos {name}")).done();
    let second = world.dir("copy/second");
    world.words(["store", "add", "photos", &format!("file://{}", second.display())]).done();
    world.comb("sync photos --wait").done();
    assert_eq!(seen_from(&second, &world).0, "first\nsecond\n");
    other.comb("unmount mount").done();
}

#[test]
fn a_new_store_of_a_volume_that_was_opened_from_a_store_gets_all_of_it() {
    let (world, other) = (World::new(), World::new());
    replicated(&world);
    for number in 0..4 {
        fs::write(world.path(&format!("mount/{number}")), format!("{number}").repeat(1000)).expect("written");
        world.comb("sync photos --wait").done();
    }
    world.comb("unmount mount").done();
    open(&other, &world, "");
    let copy = other.dir("copy");
    // Whoever looks at the past has its manifests come, and that changes nothing.
    other.comb("check photos").done();
    other.words(["store", "add", "photos", &format!("file://{}", copy.display())]).done();
    other.comb("sync photos --wait").done();
    assert_eq!(seen_from(&copy, &world).0, "0\n1\n2\n3\nfirst\n");
}
