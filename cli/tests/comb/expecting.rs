//! What a program that moves volumes asks: `volume head`, `volume open --expect` and `--since`, `branch list --json`.

use std::fs;

use serde_json::{Value, json};

use crate::watching::add_store;
use crate::world::World;

/// A machine that made `photos` and sent it to a folder, and one that follows it.
fn two() -> (World, World) {
    let (attic, cellar) = (World::new(), World::new());
    attic.dir("mount");
    cellar.dir("mount");
    attic.comb("volume create photos").done();
    add_store(&attic, "home", &[]);
    write(&attic, "a");
    attic.comb("volume key photos --out key").done();
    let url = format!("file://{}", attic.path("home").display());
    cellar.open_from(&attic.path("key"), &url, &["--read-only"]).done();
    (attic, cellar)
}

/// Mounts, writes a file of this name, and unmounts, which sends it.
fn write(world: &World, name: &str) {
    world.comb("mount photos mount").done();
    fs::write(world.path("mount").join(name), name).expect("written");
    world.comb("unmount mount").done();
}

fn head(world: &World) -> Value {
    world.comb("volume head photos --json").json()
}

/// The newest manifest as `--expect` takes it.
fn exactly(head: &Value) -> String {
    let newest = &head["newest"];
    format!("{}:{}:{}", newest["epoch"], newest["seq"], newest["manifest"].as_str().expect("a manifest"))
}

/// All that is in the store.
fn objects(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![world.path("home/v")];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                next.push(path);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_head_of_the_store_is_shown_and_nothing_is_changed_by_looking() {
    let (attic, cellar) = two();
    let (here, there) = (head(&attic), head(&cellar));
    let before = objects(&attic);
    assert_eq!(here["newest"]["manifest"], there["newest"]["manifest"]);
    assert_eq!((&here["newest"]["is_own"], &there["newest"]["is_own"]), (&json!(true), &json!(false)));
    assert_eq!((&here["here"]["is_others"], &there["here"]["is_others"]), (&json!(false), &json!(true)));
    assert_eq!(here["newest"]["writer"], here["here"]["writer"]);
    assert_ne!(there["newest"]["writer"], there["here"]["writer"]);
    assert_eq!((&here["newest"]["is_here"], &here["claim"]), (&json!(true), &Value::Null));
    assert!(here["newest"]["age_seconds"].as_f64().is_some_and(|age| age < 600.0), "{here}");
    assert_eq!(here["here"]["manifest"], here["newest"]["manifest"]);
    assert_eq!(objects(&attic), before);

    // What only one machine has is not the head.
    attic.comb("snapshot photos").done();
    let ahead = head(&attic);
    assert_eq!(ahead["newest"], {
        let mut newest = here["newest"].clone();
        newest["age_seconds"] = ahead["newest"]["age_seconds"].clone();
        newest
    });
    assert!(ahead["here"]["seq"].as_u64() > ahead["newest"]["seq"].as_u64());

    cellar.comb("volume open photos").done();
    let taken = head(&attic);
    assert_eq!((&taken["claim"]["epoch"], &taken["claim"]["is_own"]), (&json!(2), &json!(false)), "{taken}");
    assert_eq!(taken["newest"]["epoch"], json!(2));
    assert_eq!(taken["newest"]["parent"], here["newest"]["manifest"]);
    assert!(cellar.comb("volume head photos").done().contains("this machine"));

    fs::rename(attic.path("home"), attic.path("away")).expect("moved");
    attic.comb("volume head photos --json").refused(10, "");
    let lonely = World::new();
    lonely.comb("volume create photos").done();
    lonely.comb("volume head photos").refused(3, "no store that decides");
}

#[test]
fn a_volume_is_taken_over_from_the_head_that_is_expected_and_from_no_other() {
    let (attic, cellar) = two();
    let known = exactly(&head(&attic));
    write(&attic, "b");
    let newest = head(&attic);
    let before = objects(&attic);
    // Old knowledge ends nobody's right.
    cellar
        .words(["volume", "open", "photos", "--expect", &known])
        .refused(12, "another head than was expected");
    assert_eq!(objects(&attic), before, "something was claimed");
    write(&attic, "c");

    let newest_of_all = head(&attic);
    assert!(newest_of_all["newest"]["seq"].as_u64() > newest["newest"]["seq"].as_u64());
    let opened =
        cellar.words(["volume", "open", "photos", "--json", "--expect", &exactly(&newest_of_all)]).json();
    assert_eq!(opened["parent"]["manifest"], newest_of_all["newest"]["manifest"], "{opened}");
    assert_eq!(opened["parent"]["time"], newest_of_all["newest"]["time"], "{opened}");
    assert_eq!((&opened["cut"]["epoch"], &opened["branch"]), (&json!(2), &Value::Null), "{opened}");
    assert!(opened["cut"]["time"].is_string(), "{opened}");
    assert_eq!(opened["cut"]["manifest"], head(&cellar)["newest"]["manifest"]);
    assert_eq!(opened["writer"], head(&cellar)["here"]["writer"]);
    assert_eq!(cellar.comb("cat photos:/c").done(), "c");
}

#[test]
fn a_volume_is_taken_over_since_a_head_if_nobody_else_wrote() {
    let (attic, cellar) = two();
    let known = head(&attic);
    let place = format!("{}:{}", known["newest"]["epoch"], known["newest"]["seq"]);
    let writer = known["newest"]["writer"].as_str().expect("a writer").to_owned();
    write(&attic, "b");
    let stranger = "00".repeat(16);
    let before = objects(&attic);
    for words in [
        vec!["--since", &place],
        vec!["--since", &place, "--writer", &stranger],
        vec!["--since", "9:1", "--writer", &writer],
        vec!["--since", "1:99", "--writer", &writer],
    ] {
        cellar.words(["volume", "open", "photos"].iter().chain(&words)).refused(12, &writer);
    }
    assert_eq!(objects(&attic), before, "something was claimed");
    let opened =
        cellar.words(["volume", "open", "photos", "--json", "--since", &place, "--writer", &writer]).json();
    assert_eq!(opened["cut"]["epoch"], json!(2), "{opened}");
    write(&cellar, "c");

    // Back again, on a machine that was not told yet, and that has what it could not send.
    let own = format!("{}:{}", opened["cut"]["epoch"], opened["cut"]["seq"]);
    let other = opened["writer"].as_str().expect("a writer");
    attic.comb("snapshot photos").done();
    attic.words(["volume", "open", "photos", "--since", &own]).refused(12, other);
    let back = attic.words(["volume", "open", "photos", "--json", "--since", &own, "--writer", other]).json();
    assert_eq!(back["cut"]["epoch"], json!(3), "{back}");
    assert!(back["branch"].as_str().is_some_and(|branch| branch.starts_with("photos/cut-")), "{back}");
    assert_eq!(attic.comb("cat photos:/c").done(), "c");
}

#[test]
fn a_machine_claims_anew_what_it_writes_itself_and_loses_no_tail() {
    let (attic, cellar) = two();
    let known = head(&attic);
    let place = format!("{}:{}", known["newest"]["epoch"], known["newest"]["seq"]);
    attic.comb("volume open photos").refused(4, "is written on this machine");
    // What the store lacks is brought there first.
    fs::rename(attic.path("home"), attic.path("away")).expect("moved");
    attic.comb("mount photos mount --seal-every 0").done();
    fs::write(attic.path("mount").join("tail"), "tail").expect("written");
    attic.words(["volume", "open", "photos", "--since", &place]).refused(10, "");
    attic.comb("snapshot photos").done();
    let pid = attic.comb("status photos --json").out;
    let pid: Value = serde_json::from_str(&pid).expect("JSON");
    let pid =
        rustix::process::Pid::from_raw(pid[0]["mounts"][0]["pid"].to_string().parse().expect("a number"));
    rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::KILL).expect("killed");
    attic.comb("unmount mount").done();
    fs::rename(attic.path("away"), attic.path("home")).expect("moved");

    attic.words(["volume", "open", "photos", "--expect", &exactly(&known)]).refused(12, "has seals here");
    let opened = attic.words(["volume", "open", "photos", "--json", "--since", &place]).json();
    assert_eq!((&opened["cut"]["epoch"], &opened["branch"]), (&json!(2), &Value::Null), "{opened}");
    assert_eq!(attic.comb("cat photos:/tail").done(), "tail");
    write(&attic, "later");
    // An order that was made before it is old now.
    cellar.words(["volume", "open", "photos", "--expect", &exactly(&known)]).refused(12, "epoch 2");
    attic.comb("check photos").done();
}

#[test]
fn what_is_on_a_branch_is_told_in_seconds_and_bytes() {
    let (attic, cellar) = two();
    let cut = head(&attic)["newest"].clone();
    attic.comb("mount photos mount --seal-every 0").done();
    cellar.comb("volume open photos").done();
    fs::write(attic.path("mount").join("tail"), vec![7; 50_000]).expect("written");
    attic.comb("snapshot photos").done();
    attic.comb("sync photos --wait").refused(8, "took the volume over");
    attic.comb("unmount mount").done();
    let told = attic.comb("branch list photos --json").json();
    let branch = &told[0];
    let seals = branch["seals"].as_array().expect("seals");
    assert!(!seals.is_empty(), "{told}");
    assert_eq!(
        (&branch["cut"]["manifest"], &branch["cut"]["time"]),
        (&cut["manifest"], &cut["time"]),
        "{told}"
    );
    assert_eq!(branch["last_step"], seals[seals.len() - 1]["time"], "{told}");
    assert!(branch["seconds"].as_f64() > Some(0.0), "{told}");
    let added: u64 = seals.iter().filter_map(|seal| seal["added_bytes"].as_u64()).sum();
    assert_eq!(branch["bytes"], json!(added), "{told}");

    let since = format!("1:1:{}", "0".repeat(64));
    attic.words(["volume", "open", "photos", "--expect", &since]).refused(12, "another head");
    assert_eq!(
        attic.comb("branch list photos --json").json()[0]["name"],
        "photos",
        "it was split off all the same"
    );
    let now = exactly(&head(&attic));
    let opened = attic.words(["volume", "open", "photos", "--json", "--expect", &now]).json();
    let name = opened["branch"].as_str().expect("a branch").to_owned();
    let kept = attic.comb("branch list photos --json").json();
    assert_eq!((&kept[0]["name"], &kept[0]["cut"]), (&json!(name), &branch["cut"]), "{kept}");
}
