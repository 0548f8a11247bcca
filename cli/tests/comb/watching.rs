//! What `comb status` tells of volumes and their stores, mounted or not.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{World, copy, noise, put_back, signal, wait_until};

/// A store of the volume `photos` in a folder of its own.
pub fn add_store(world: &World, name: &str, more: &[&str]) {
    let url = format!("file://{}", world.dir(name).display());
    world.words(["store", "add", "photos", &url, "--as", name].iter().chain(more)).done();
}

#[test]
fn what_a_volume_at_rest_has_not_sent_is_told() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    let store = |world: &World| world.comb("status photos --json").json()[0]["stores"][0].clone();
    let never = store(&world);
    assert_eq!(
        (&never["replicated_seq"], &never["state"]),
        (&serde_json::Value::Null, &"not-mounted".into())
    );
    assert!(never["unsafe_bytes"].as_u64() > Some(0), "{never}");

    world.comb("mount photos mount --seal-every 0").done();
    assert!(world.comb("status photos --json").json()[0]["stores"].is_null(), "its daemon tells");
    fs::write(mount.join("a"), vec![7; 100_000]).expect("a file");
    world.comb("unmount mount").done();
    let sent = store(&world);
    assert_eq!((&sent["unsafe_bytes"], &sent["unsafe_seconds"]), (&0.into(), &0.0.into()), "{sent}");
    assert!(sent["replicated_seq"].as_u64() >= Some(2), "{sent}");
    assert!(world.comb("status photos").done().contains("store \"home\" has everything"));

    // A daemon that dies leaves what nobody has sent.
    world.comb("mount photos mount --seal-every 0").done();
    fs::File::create(mount.join("b"))
        .and_then(|mut file| file.write_all(b"unsent").and_then(|()| file.sync_all()))
        .expect("synced");
    world.kill_daemon();
    let left = store(&world);
    assert!(left["unsafe_seconds"].as_f64() > Some(0.0) && left["unsafe_bytes"].as_u64() > Some(0), "{left}");
    let told = world.comb("status photos");
    assert!(
        told.out.contains("store \"home\" lacks ") && told.said.contains("comb sync photos"),
        "{}{}",
        told.out,
        told.said
    );
    world.comb("sync photos").done();
    assert_eq!(store(&world)["unsafe_seconds"], 0.0);
}

#[test]
fn a_volume_that_was_taken_over_is_loud_at_rest_too() {
    let world = World::new();
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    world.comb("sync photos").done();
    world.comb("status photos").done();
    let folder = world.volume_folder();
    fs::write(folder.join("fenced"), r#"{"by":2,"at":2,"noticed":"2026-11-21T18:00:00Z"}"#).expect("noted");
    let told = world.comb("status photos");
    assert!(told.said.contains("comb branch list"), "{}", told.said);
    told.refused(9, "is not safe");
}

#[test]
fn who_wants_fewer_seals_is_promised_less() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    for (habits, seconds) in [("", 60.0), ("--seal-every 5m", 345.0), ("--seal-every 0", 45.0)] {
        world.comb(&format!("mount photos mount {habits}")).done();
        let store = world.comb("status photos --json").json()[0]["mounts"][0]["stores"][0].clone();
        assert_eq!(store["promised_seconds"], seconds, "{habits}: {store}");
        world.comb("unmount mount").done();
    }
}

#[test]
fn a_daemon_that_was_stopped_is_told_and_waited_for_by_nobody() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    world.comb("mount photos mount --seal-every 0").done();
    let pid = world.daemon();
    signal("-STOP", &pid);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let lines = [
            "status photos",
            "status",
            "sync photos",
            "sync photos --wait",
            "snapshot photos",
            "unmount mount",
        ];
        let asked = lines.map(|line| scope.spawn(|| world.comb(line)));
        for asked in asked {
            let told = asked.join().expect("it ended");
            assert!(told.said.contains(&format!("`kill -CONT {pid}`")), "{}", told.said);
            told.refused(11, "gives no answer: it is stopped");
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    // What is known without it is told nevertheless.
    let told = world.comb("status photos --json");
    let status: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(status[0]["stores"][0]["state"], "no-answer", "{status}");
    assert_eq!(told.code, 11);

    signal("-CONT", &pid);
    wait_until("going on", || world.comb("status photos").code == 0);
    fs::write(mount.join("a"), "goes on").expect("written");
    world.comb("sync photos --wait").done();
    world.comb("unmount mount").done();
}

#[test]
fn a_damaged_note_of_what_was_seen_is_loud_and_holds_back_one_store() {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    add_store(&world, "copy", &[]);
    world.comb("sync photos").done();
    let seen = world.volume_folder().join("seen/home");
    // As a power cut may leave a file that was not synced.
    fs::write(&seen, "").expect("torn");

    let told = world.comb("status photos");
    assert!(told.out.contains("what was seen of store \"home\" is not known"), "{}", told.out);
    assert!(told.out.contains("`comb sync photos --accept-rollback`"), "{}", told.out);
    assert!(told.out.contains("store \"copy\" has everything"), "{}", told.out);
    told.refused(9, "store \"home\" takes nothing before somebody does something");
    let checked = world.comb("check photos --level manifest");
    assert!(checked.out.contains("what was seen of store"), "{}{}", checked.out, checked.said);

    // Mounted it is as loud, at once; the other store gets what is new.
    world.comb("mount photos mount --seal-every 0").done();
    fs::write(mount.join("a"), "new").expect("written");
    world.comb("sync photos").done();
    let store = |nth: usize| {
        let told = world.comb("status photos --json");
        let status: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
        status[0]["mounts"][0]["stores"][nth].clone()
    };
    wait_until("the copy", || store(1)["state"] == "replicated" && store(1)["unsafe_bytes"] == 0);
    assert_eq!((&store(0)["state"], &store(0)["behind"]), (&"not-open".into(), &true.into()));
    world.comb("status photos").refused(9, "is not safe");
    world.comb("sync photos --wait").refused(9, "accept-rollback");

    world.comb("sync photos --accept-rollback --wait").done();
    assert!(world.comb("status photos").done().contains("store \"home\" has everything"));
    world.comb("unmount mount").done();
    assert!(fs::read_to_string(&seen).expect("written anew").contains("manifest"));
}

/// What `comb status --json` says of a store, mounted or not.
fn store_of(world: &World, nth: usize) -> serde_json::Value {
    let told = world.comb("status photos --json");
    let status: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    match status[0]["mounts"][0]["stores"].as_array() {
        Some(stores) => stores[nth].clone(),
        None => status[0]["stores"][nth].clone(),
    }
}

/// Bytes that cannot be made smaller.
/// What is said of a store that lost what it had, until somebody accepts it.
fn is_loud_until_accepted(lose: impl Fn(&Path, &Path), why: &str, nth: usize) {
    let world = World::new();
    let mount = world.dir("mount");
    world.comb("volume create photos").done();
    let names = ["home", "copy"];
    names.iter().for_each(|name| add_store(&world, name, &[]));
    let folder = world.path(names[nth]);
    world.comb("mount photos mount --seal-every 0").done();
    fs::write(mount.join("a"), "first").expect("written");
    world.comb("sync photos --wait").done();
    copy(&folder, &world.path("old"));
    fs::write(mount.join("b"), noise(1, 50_000)).expect("written");
    world.comb("sync photos --wait").done();
    assert_eq!(store_of(&world, nth)["unsafe_bytes"], 0);
    let had = store_of(&world, nth)["replicated_seq"].as_u64();

    lose(&world.path("old"), &folder);
    let is_loud = |when: &str| {
        let told = world.comb("status photos");
        let line =
            told.out.lines().find(|line| line.contains(&format!("\"{}\"", names[nth]))).expect("a line");
        assert!(!line.contains("has everything") && line.contains(why), "{when}: {line}");
        let other = told.out.lines().find(|line| line.contains(&format!("\"{}\"", names[1 - nth])));
        assert!(other.is_some_and(|line| line.contains("has everything")), "{when}: {}", told.out);
        assert!(told.said.contains("`comb sync photos --accept-rollback`"), "{when}: {}", told.said);
        told.refused(9, "takes nothing before somebody does something");
        let store = store_of(&world, nth);
        assert_eq!(
            (&store["behind"], &store["needs_somebody"]),
            (&true.into(), &true.into()),
            "{when}: {store}"
        );
        assert!(store["replicated_seq"].as_u64() < had, "{when}: {store}");
        assert!(store["unsafe_bytes"].as_u64() >= Some(50_000), "{when}: {store}");
        assert!(store["unsafe_seconds"].as_f64() > Some(0.0), "{when}: {store}");
    };
    // Nothing is new, and each time it is asked.
    for _ in 0..2 {
        world.comb("sync photos --wait --limit 1h").refused(9, why);
        is_loud("mounted");
    }
    world.comb("unmount mount").done();
    is_loud("at rest");
    world.comb("sync photos --limit 1h").refused(9, why);
    is_loud("at rest, tried once more");
    let seen = fs::read_to_string(world.volume_folder().join("seen").join(names[nth])).expect("seen");
    assert!(
        seen.contains(&format!("\"seq\":{}", had.expect("a number"))),
        "what was seen stays seen: {seen}"
    );

    world.comb("mount photos mount --seal-every 0").done();
    world.comb("sync photos --wait --limit 1h").refused(9, why);
    let told = world.comb("sync photos --wait --accept-rollback --limit 1m");
    assert_eq!(told.code, 0, "{} {} {}", told.said, store_of(&world, 0), store_of(&world, 1));
    assert_eq!(store_of(&world, nth)["unsafe_bytes"], 0);
    world.comb("status photos").done();
    world.comb("unmount mount").done();
    assert_eq!(world.comb("status photos").done().matches("has everything").count(), 2);
    world.comb("check photos --level packs").done();
}

fn empty(_old: &Path, store: &Path) {
    fs::remove_dir_all(store).expect("removed");
    fs::create_dir(store).expect("made");
}

#[test]
fn an_arbiter_that_was_emptied_is_loud_until_somebody_accepts_it() {
    is_loud_until_accepted(empty, "was it emptied?", 0);
}

#[test]
fn a_copy_that_was_emptied_is_loud_until_somebody_accepts_it() {
    is_loud_until_accepted(empty, "was it emptied?", 1);
}

#[test]
fn an_arbiter_that_was_put_back_in_time_is_loud_until_somebody_accepts_it() {
    is_loud_until_accepted(put_back, "the store was put back in time", 0);
}

#[test]
fn a_copy_that_was_put_back_in_time_is_loud_until_somebody_accepts_it() {
    is_loud_until_accepted(put_back, "the store was put back in time", 1);
}

#[test]
fn a_store_that_comes_back_whole_is_loud_no_more() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    world.comb("mount photos mount --seal-every 0").done();
    world.comb("sync photos --wait").done();
    let seen = world.volume_folder().join("seen/home");
    wait_until("the other note", || seen.exists());
    let before = fs::read(&seen).expect("seen");
    fs::rename(world.path("home"), world.path("away")).expect("moved");
    fs::create_dir(world.path("home")).expect("made");
    world.comb("sync photos --wait --limit 1h").refused(9, "was it emptied?");
    // Written down, beside what was seen.
    wait_until("the note", || world.volume_folder().join("halted/home").exists());
    assert_eq!(fs::read(&seen).expect("seen"), before);
    fs::remove_dir(world.path("home")).expect("nothing is in it");
    fs::rename(world.path("away"), world.path("home")).expect("back");
    world.comb("sync photos --wait --limit 1m").done();
    assert!(world.comb("status photos").done().contains("has everything"));
    world.comb("unmount mount").done();
    assert!(world.comb("status photos").done().contains("has everything"));
    assert!(!world.volume_folder().join("halted/home").exists());
}

#[test]
fn a_follower_says_for_how_long_its_store_was_not_seen() {
    let (writer, reader) = (World::new(), World::new());
    writer.comb("volume create photos").done();
    writer.comb("volume key photos --out key").done();
    add_store(&writer, "home", &[]);
    writer.comb("sync photos").done();
    reader.dir("mount");
    let (key, home) = (writer.path("key"), writer.path("home"));
    let line = format!(
        "volume open photos --read-only --key-file {} --store file://{}",
        key.display(),
        home.display()
    );
    reader.comb(&line).done();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").port();
    reader.comb(&format!("mount photos mount --metrics {port}")).done();
    let figure = || {
        let mut asked = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        asked.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("asked");
        let mut page = String::new();
        asked.read_to_string(&mut page).expect("answered");
        let line = page.lines().find(|line| line.starts_with("comb_unseen_seconds{")).expect("a line");
        line.rsplit(' ').next().and_then(|figure| figure.parse::<f64>().ok()).expect("a number")
    };
    let told = reader.comb("status photos").done();
    assert!(told.contains("is followed") && !told.contains("NOT SEEN"), "{told}");
    assert_eq!((figure(), &store_of(&reader, 0)["unseen_seconds"]), (0.0, &serde_json::Value::Null));

    fs::rename(&home, writer.path("away")).expect("moved");
    let end = Instant::now() + Duration::from_secs(90);
    while figure() == 0.0 {
        assert!(Instant::now() < end, "that the store is gone is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = reader.comb("status photos").done();
    let line = told.lines().find(|line| line.contains("is followed")).expect("a line");
    assert!(line.contains("NOT SEEN FOR ") && line.contains("is it mounted?"), "{told}");
    let store = store_of(&reader, 0);
    assert!(store["unseen_seconds"].as_f64() > Some(0.0) && store["last_error"].is_string(), "{store}");

    // A daemon that hangs changes nothing of what it is.
    let pid = reader.daemon();
    signal("-STOP", &pid);
    let told = reader.comb("status photos");
    signal("-CONT", &pid);
    assert!(told.out.contains("is followed") && !told.out.contains("has everything"), "{}", told.out);
    told.refused(11, "gives no answer");

    fs::rename(writer.path("away"), &home).expect("back");
    let end = Instant::now() + Duration::from_secs(90);
    while figure() > 0.0 {
        assert!(Instant::now() < end, "that the store is back is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!reader.comb("status photos").done().contains("NOT SEEN"));
    reader.comb("unmount mount").done();
}

/// Changes by hand where the only store is, so without the check.
fn move_store(world: &World, url: &str) {
    let config = world.volume_folder().join("config");
    let mut fields: serde_json::Value =
        serde_json::from_slice(&fs::read(&config).expect("a config")).expect("JSON");
    fields["stores"][0]["url"] = url.into();
    fields.as_object_mut().expect("fields").remove("check");
    fs::write(&config, fields.to_string()).expect("written");
}

#[test]
fn a_refusal_says_whose_credentials_were_refused() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    move_store(&world, &format!("http://{}/", server.local_addr().expect("an address")));
    std::thread::spawn(move || {
        for mut asked in server.incoming().flatten() {
            let _ = asked.read(&mut [0; 4096]);
            let _ = asked
                .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    world.comb("mount photos mount --seal-every 0").done();
    wait_until("being refused", || {
        world.comb("status photos").out.contains("environment of the `comb mount` that started it")
    });
    world.comb("unmount mount").done();
}

#[test]
fn who_waits_for_a_store_says_which_and_why() {
    let world = World::new();
    world.dir("mount");
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    // A server that is down.
    move_store(&world, "http://127.0.0.1:1/");
    let why = "waiting: store \"home\": ";
    for mounted in [false, true] {
        if mounted {
            world.comb("mount photos mount --seal-every 0").done();
        }
        let told = world.comb("sync photos --wait --limit 4s");
        assert_eq!(told.said.matches(why).count(), 1, "{}", told.said);
        told.refused(9, "home");
        // Quicker than anybody wants to be told.
        let told = world.comb("sync photos --wait --limit 1s");
        assert!(!told.said.contains("waiting"), "{}", told.said);
    }
    // An unmount would wait for the store, too.
    world.kill_daemon();
}

#[test]
fn watching_tells_each_change_until_nobody_reads() {
    let world = World::new();
    world.comb("volume create photos").done();
    let mut watch = world
        .command(["status", "photos", "--watch", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut next = || -> serde_json::Value {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
    };
    assert_eq!(next()[0]["head"]["seq"], 1);
    world.comb("snapshot photos").done();
    assert_eq!(next()[0]["head"]["seq"], 2);
    drop(lines);
    world.comb("snapshot photos").done();
    assert!(watch.wait().expect("it ends").success());
}

#[test]
fn a_store_with_prices_is_told_with_what_it_costs() {
    let world = World::new();
    world.comb("volume create photos").done();
    add_store(&world, "cheap", &[]);
    add_store(&world, "dear", &["--prices", "0,900,0"]);
    let dollars = world.comb("status photos --json").json()[0]["dollars_per_month"].clone();
    assert!(dollars["cheap"].is_null() && dollars["dear"].as_f64().is_some(), "{dollars}");
    world.comb("snapshot photos").done();
    let told = world.comb("status photos").out;
    let dear = told.lines().find(|line| line.contains("\"dear\"")).expect("a line");
    assert!(dear.contains(", about $") && dear.contains(" a month"), "{told}");
    assert!(!told.lines().any(|line| line.contains("\"cheap\"") && line.contains('$')), "{told}");
    assert_eq!(world.comb("store add photos file:///nowhere --prices 1,2").code, 2);
}

#[test]
fn of_another_store_nobody_is_told_that_a_mount_sends_what_is_missing() {
    let world = World::new();
    world.comb("volume create photos").done();
    add_store(&world, "home", &[]);
    world.comb("sync photos").done();
    let volume =
        fs::read_dir(world.path("home/v")).expect("a store").next().expect("a volume").expect("an entry");
    fs::write(volume.path().join("id"), [7; 16]).expect("another");
    world.comb("sync photos --limit 20s").refused(9, "this is store 0707");
    let status = world.comb("status photos");
    assert!(status.out.contains("NOT SAFE BEFORE SOMEBODY DOES SOMETHING"), "{}", status.out);
    assert!(!status.said.contains("sends what is missing"), "{}", status.said);
    status.refused(9, "takes nothing before somebody does something");
}
