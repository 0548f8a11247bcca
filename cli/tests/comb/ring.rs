//! The key ring: made, opened by passphrase, kit and device, and volumes that come back from it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::volumes::walk;
use crate::world::World;

const PASSPHRASE: &str = "correct horse battery staple";
const ANOTHER: &str = "six other random words, not these";

/// A world with a volume, and a key ring under [`PASSPHRASE`].
fn world_with_ring() -> World {
    let world = World::new();
    world.private("passphrase", PASSPHRASE);
    world.private("another", ANOTHER);
    world.comb("volume create photos").done();
    world.comb("key ring init --passphrase-file passphrase").done();
    world
}

fn ring_of(world: &World) -> PathBuf {
    world.path("state/ring")
}

/// The names and kinds in the ring.
fn keys(world: &World) -> Vec<(String, String)> {
    let report = world.comb("key ring show --json").json();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let keys = report["keys"].as_array().expect("keys");
    let mut keys: Vec<_> = keys.iter().map(|key| (text(&key["name"]), text(&key["kind"]))).collect();
    keys.sort();
    keys
}

fn listed(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, kind)| ((*name).into(), (*kind).into())).collect()
}

/// Gives a volume that was set up the data of a copy.
fn bring_data(from: &Path, to: &Path) {
    for file in walk(from) {
        let rest = file.strip_prefix(from).expect("below");
        if ["manifests", "packs", "head"].iter().any(|part| rest.starts_with(part)) {
            fs::create_dir_all(to.join(rest).parent().expect("a parent")).expect("a folder");
            fs::copy(&file, to.join(rest)).expect("a copy");
        }
    }
}

#[test]
fn a_volume_comes_back_from_the_ring_by_passphrase_and_by_kit() {
    let world = world_with_ring();
    world.comb("snapshot photos --tag release").done();
    world.comb("key ring kit --out kit").done();
    let log = world.comb("log photos --json").json();
    let key = world.comb("volume key photos").done();

    let (ring, kit) = (ring_of(&world), world.path("kit"));
    let by = |option: &str, file: PathBuf| {
        let bare = World::new();
        let words =
            ["recover".into(), "--ring".into(), ring.clone().into_os_string(), option.into(), file.into()];
        let said = bare.words(words);
        assert!(said.said.contains("the key ring is version 2 of "), "{}", said.said);
        assert!(said.done().contains("volume \"photos\" is set up"));
        assert_eq!(bare.comb("volume key photos").done(), key);
        assert_eq!(keys(&bare), listed(&[("photos", "volume")]), "it opens without a question");
        bring_data(&world.volume_folder(), &bare.volume_folder());
        assert_eq!(bare.comb("log photos --json").json(), log);
        bare.comb("check photos").done();
        bare.comb("ls photos@release:").done();
        // And it is a machine like any other: what is made here goes into its ring.
        bare.comb("volume create more").done();
        assert_eq!(keys(&bare), listed(&[("more", "volume"), ("photos", "volume")]));
    };
    by("--passphrase-file", world.path("passphrase"));
    by("--kit-file", kit);
}

#[test]
fn new_volumes_and_forks_go_into_the_ring_by_themselves() {
    let world = world_with_ring();
    world.comb("volume create music").done();
    world.comb("fork photos@1 copy").done();
    let all = [("copy", "volume"), ("music", "volume"), ("photos", "volume")];
    assert_eq!(keys(&world), listed(&all));
    world.comb("volume remove music --yes").done();
    assert_eq!(keys(&world), listed(&all), "a key outlives its volume on this machine");

    // Two volumes of one name: the newer keeps it.
    world.comb("volume create music").done();
    let newer = world.comb("volume show music --json").json()["public_key"].clone();
    let bare = World::new();
    let (ring, passphrase) = (ring_of(&world), world.path("passphrase"));
    bare.words([
        "recover".as_ref(),
        "--ring".as_ref(),
        ring.as_os_str(),
        "--passphrase-file".as_ref(),
        passphrase.as_os_str(),
    ])
    .done();
    let list = bare.comb("volume list --json").json();
    let names: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(bare.comb("volume show music --json").json()["public_key"], newer);
    assert!(names.iter().any(|name| name.starts_with("music-")), "{names:?}");
}

#[test]
fn a_volume_is_made_though_the_ring_does_not_open() {
    let world = world_with_ring();
    fs::remove_file(world.path("state/ring.key")).expect("removed");
    let made = world.comb("volume create music");
    assert!(
        made.said.contains("warning: ") && made.said.contains("comb key ring add music"),
        "{}",
        made.said
    );
    made.done();
    // The passphrase opens it, and from then on it opens without a question again.
    world.comb("key ring add music --passphrase-file passphrase").done();
    assert_eq!(keys(&world), listed(&[("music", "volume"), ("photos", "volume")]));
    world.comb("volume create more").done();
    assert_eq!(keys(&world).len(), 3);
}

#[test]
fn keys_are_added_from_files() {
    let world = world_with_ring();
    let other = World::new();
    other.comb("volume create theirs").done();
    other
        .words(["key", "share", "theirs", "--read", "--out", world.path("read").to_str().expect("text")])
        .done();
    other.words(["volume", "key", "theirs", "--out", world.path("whole").to_str().expect("text")]).done();

    world.comb("key ring add theirs --read-key-file read").done();
    assert_eq!(keys(&world), listed(&[("photos", "volume"), ("theirs", "read")]));
    world.comb("key ring add theirs --key-file whole").done();
    assert_eq!(keys(&world), listed(&[("photos", "volume"), ("theirs", "volume")]));
    world.comb("key ring add theirs --read-key-file read").refused(4, "allows more");
    world.comb("key ring add theirs --key-file read").refused(6, "is a read key");
    world.comb("key ring add theirs --read-key-file whole").refused(6, "is not a read key");
    let again = world.comb("key ring add theirs --key-file whole");
    assert!(again.said.contains("already"), "{}", again.said);
    again.done();
    world.comb("key ring add missing").refused(3, "no volume");
    world.comb("key ring add x --read-key-file passphrase").refused(6, "is not a read key");
}

#[test]
fn a_shared_read_key_is_that_of_the_volume() {
    let world = World::new();
    world.private("seed", "sETuhFwbQf9NJVAEOhu/QFhhhmKxY+f4VNFrO2IowGk=");
    world.comb("volume create photos --key-file seed").done();
    let shared = world.comb("key share photos --read");
    assert!(shared.said.contains("cannot write"), "{}", shared.said);
    // The public and the read key of the seed documents' volume; `crypto.md` derives them.
    let shared = shared.done();
    let lines: Vec<&str> = shared.lines().collect();
    assert_eq!(
        lines,
        [
            "comb read key 1",
            "b1881878d5a6ce2c5c53e00eefb722723d8cdecb73c92d3999ffeefc4d7ad13d",
            "hbY9G7FKXAZWYtNrcSVvkLBGW6LuSjR1H6SJXe8+TYo=",
            "cEdfe7bYLpZPdY1xWNovmQ=="
        ]
    );
    world.comb("key share photos").refused(2, "--read");
    world.comb("key share photos --read --out seed").refused(4, "exists");
}

#[test]
fn a_passphrase_is_changed_and_old_copies_keep_the_old_one() {
    let world = world_with_ring();
    fs::copy(ring_of(&world), world.path("old")).expect("a copy");
    world.comb("key ring kit --out kit").done();
    world.comb("key ring passphrase --new-passphrase-file another").done();

    let recover = |ring: &str, option: &str, file: &str| {
        let bare = World::new();
        let (ring, file) = (world.path(ring), world.path(file));
        bare.words([
            "recover".as_ref(),
            "--ring".as_ref(),
            ring.as_os_str(),
            option.as_ref(),
            file.as_os_str(),
        ])
    };
    recover("state/ring", "--passphrase-file", "another").done();
    recover("state/ring", "--passphrase-file", "passphrase").refused(6, "does not open with this passphrase");
    recover("state/ring", "--kit-file", "kit").done();
    recover("old", "--passphrase-file", "passphrase").done();
    recover("old", "--passphrase-file", "another").refused(6, "does not open with this passphrase");
    recover("old", "--kit-file", "kit").refused(6, "does not open with this recovery kit");

    let changed = world.comb("key ring passphrase --new-key --new-passphrase-file another");
    assert!(changed.said.contains("recovery kit no longer opens it"), "{}", changed.said);
    changed.done();
    recover("state/ring", "--passphrase-file", "another").done();
    recover("state/ring", "--kit-file", "kit").refused(6, "does not open with this recovery kit");
    assert_eq!(world.comb("key ring show --json").json()["kit"], serde_json::Value::Null);
    world.comb("volume create music").done();
    assert_eq!(keys(&world).len(), 2, "this machine has the new ring key");
}

#[test]
fn a_kit_is_a_private_file_that_overwrites_nothing() {
    let world = world_with_ring();
    world.comb("key ring kit --out kit").done();
    let mode = fs::metadata(world.path("kit")).expect("the kit").permissions().mode();
    let page = fs::read_to_string(world.path("kit")).expect("a page");
    assert!(page.contains("comb recover --store URL --kit"), "what a lost house needs: {page}");
    assert_eq!(mode & 0o777, 0o600);
    let number = |world: &World| world.comb("key ring show --json").json()["number"].clone();
    let before = number(&world);
    world.comb("key ring kit --out kit").refused(4, "exists");
    assert_eq!(number(&world), before, "the kit that is there stays the one that opens");

    let printed = world.comb("key ring kit");
    assert!(printed.said.contains("takes the place of the kit of"), "{}", printed.said);
    world.private("printed", &printed.done());
    let bare = World::new();
    let recover = |kit: &str| {
        let (ring, kit) = (ring_of(&world), world.path(kit));
        bare.words([
            "recover".as_ref(),
            "--ring".as_ref(),
            ring.as_os_str(),
            "--kit-file".as_ref(),
            kit.as_os_str(),
        ])
    };
    recover("kit").refused(6, "does not open with this recovery kit");
    // A slip of the pen is told by its group.
    let page = fs::read_to_string(world.path("printed")).expect("the page");
    let letters: Vec<&str> = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(letters.len(), 3, "{page}");
    let last = letters[2].chars().last().expect("a letter");
    let slip = page.trim_end().strip_suffix(last).expect("the last letter").to_owned()
        + if last == 'X' { "Y" } else { "X" };
    world.private("slip", &slip);
    recover("slip").refused(2, "has a mistake in group 13 of 13");
    world.private("short", letters[0]);
    recover("short").refused(2, "has 25 letters, a recovery kit has 65");
    recover("printed").done();
}

#[test]
fn a_damaged_newer_or_foreign_ring_is_told_as_such() {
    let world = world_with_ring();
    let bytes = fs::read(ring_of(&world)).expect("the ring");
    let bare = World::new();
    let recover = |bytes: &[u8]| {
        let ring = world.path("copy");
        fs::write(&ring, bytes).expect("a copy");
        let passphrase = world.path("passphrase");
        bare.words([
            "recover".as_ref(),
            "--ring".as_ref(),
            ring.as_os_str(),
            "--passphrase-file".as_ref(),
            passphrase.as_os_str(),
        ])
    };
    for at in [8, 40, 96, 300, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        recover(&flipped).refused(5, "failed its integrity check");
    }
    recover(&bytes[..bytes.len() - 1]).refused(5, "failed its integrity check");
    recover(b"").refused(5, "ends early");
    recover(b"something else").refused(6, "is not a key ring");
    recover(&vec![0; 2 << 20]).refused(5, "above its limit");
    assert!(!bare.path("state/ring").exists(), "nothing was set up");
    world.comb("recover --ring missing --passphrase-file passphrase").refused(3, "missing");

    // A ring of another account does not take the place of this one, and an older one not of a newer.
    let stranger = world_with_ring();
    let ring = ring_of(&stranger);
    world
        .words([
            "recover".as_ref(),
            "--ring".as_ref(),
            ring.as_os_str(),
            "--passphrase-file".as_ref(),
            "passphrase".as_ref(),
        ])
        .refused(4, "of another account");
    fs::write(world.path("copy"), &bytes).expect("a copy");
    world.comb("volume create music").done();
    world.comb("recover --ring copy --passphrase-file passphrase").done();
    assert_eq!(keys(&world).len(), 2, "the newer ring stays");
}

#[test]
fn a_ring_is_made_once_under_a_passphrase_that_is_not_guessed_at_once() {
    let world = World::new();
    world.comb("key ring show").refused(3, "there is no key ring");
    world.comb("key ring kit").refused(3, "comb key ring init");
    world.private("short", "short");
    world.comb("key ring init --passphrase-file short").refused(2, "fewer than 12 characters");
    world.private("same", "aaaaaaaaaaaaaaaaaaaaaaaa");
    world.comb("key ring init --passphrase-file same").refused(2, "different characters");
    world.private("open", PASSPHRASE);
    fs::set_permissions(world.path("open"), fs::Permissions::from_mode(0o644)).expect("its mode");
    world.comb("key ring init --passphrase-file open").refused(8, "open to other users");
    world.private("lines", "one line is a passphrase\nbut not two\n");
    world.comb("key ring init --passphrase-file lines").refused(2, "control character");
    assert!(!world.path("state/ring").exists());

    world.private("passphrase", "fair enough, it is\n");
    let made = world.comb("key ring init --passphrase-file passphrase");
    assert!(made.said.contains("warning: with fewer than 20 characters"), "{}", made.said);
    made.done();
    world.comb("key ring init --passphrase-file passphrase").refused(4, "there is a key ring already");
}

/// A command on a terminal of its own, with what it shows read up to a prompt before each line is typed.
fn on_a_terminal(world: &World, words: &str, typed: &[(&str, &str)]) -> (i32, String) {
    let program = world.command(words.split_whitespace());
    let line: Vec<String> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("text")))
        .collect();
    let mut child: Child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
        .current_dir(world.path(""))
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` of util-linux starts");
    let mut keys = child.stdin.take().expect("its input");
    let mut screen = child.stdout.take().expect("its output");
    let (mut shown, mut seen) = (String::new(), 0);
    let mut byte = [0];
    for (prompt, line) in typed {
        while !shown[seen..].contains(prompt) {
            assert_eq!(screen.read(&mut byte).expect("the screen"), 1, "{prompt:?} never came: {shown}");
            shown.push(byte[0].into());
        }
        seen = shown.len();
        keys.write_all(line.as_bytes()).expect("the keys");
    }
    screen.read_to_string(&mut shown).expect("the rest");
    drop(keys);
    (child.wait().expect("an end").code().unwrap_or(-1), shown)
}

#[test]
fn what_is_typed_is_not_shown() {
    let world = World::new();
    let (once, again) = ("New passphrase of the key ring: ", "The same once more: ");
    let typed = format!("{PASSPHRASE}\r");
    let (code, shown) =
        on_a_terminal(&world, "key ring init", &[(once, &typed), (again, "something else\r")]);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the two passphrases differ"), "{shown}");
    let (code, shown) = on_a_terminal(&world, "key ring init", &[(once, "corr\x03")]);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("interrupted"), "{shown}");
    assert!(!world.path("state/ring").exists());

    // Editing works: a wrong letter and its removal.
    let edited = format!("{}x\x7f\r", PASSPHRASE);
    let (code, shown) = on_a_terminal(&world, "key ring init", &[(once, &edited), (again, &typed)]);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("horse"), "{shown}");

    // Whoever mistypes may try again.
    fs::remove_file(world.path("state/ring.key")).expect("removed");
    let prompt = "Passphrase of the key ring: ";
    let wrong = "correct house battery staple\r";
    let (code, shown) = on_a_terminal(&world, "key ring show", &[(prompt, wrong), (prompt, &typed)]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("does not open with this passphrase") && !shown.contains("battery"), "{shown}");

    // The letters of a kit, too.
    let kit = world.comb("key ring kit").done();
    let letters: String = kit.lines().filter(|line| !line.starts_with('#')).collect();
    let bare = World::new();
    let words = format!("recover --kit --ring {}", ring_of(&world).display());
    let prompt = "Letters of the recovery kit, all in one line: ";
    let slip = format!("{}\r", &letters[1..]);
    let right = format!("{}\r", letters.to_lowercase());
    let (code, shown) = on_a_terminal(&bare, &words, &[(prompt, &slip), (prompt, &right)]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("what was typed has a mistake in group"), "{shown}");
    assert!(bare.path("state/ring").exists());
}

#[test]
fn without_a_terminal_nothing_waits_for_one() {
    let world = World::new();
    let program = world.command(["key", "ring", "init"]);
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(program.get_program()).args(program.get_args());
    let output = alone.stdin(Stdio::null()).output().expect("`setsid` of util-linux starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--passphrase-file"));
}

#[test]
fn no_secret_shows_where_it_does_not_belong() {
    let world = world_with_ring();
    let mut said = String::new();
    let mut run = |line: &str| {
        let outcome = world.comb(line);
        assert_eq!(outcome.code, 0, "comb {line}: {}", outcome.said);
        said += &outcome.out;
        said += &outcome.said;
    };
    for line in [
        "volume create music",
        "key ring add photos",
        "key ring show",
        "key ring show --json",
        "key ring kit --out kit",
        "key share photos --read --out read",
        "key ring passphrase --new-key --new-passphrase-file another",
        "key ring passphrase --new-passphrase-file passphrase",
        "key ring kit --out second-kit",
        "status",
        "snapshot photos",
        "recover --ring state/ring --passphrase-file passphrase",
        "recover --ring state/ring --kit-file second-kit",
    ] {
        run(line);
    }
    // A secret is no argument, and none is taken from the environment.
    assert_eq!(world.comb(&format!("key ring show --passphrase {ANOTHER}")).code, 2);
    fs::remove_file(world.path("state/ring.key")).expect("removed");
    let program = world.command(["key", "ring", "show"]);
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    let output = alone.env("COMB_PASSPHRASE", PASSPHRASE).env("PASSPHRASE", PASSPHRASE).output();
    assert_eq!(output.expect("it starts").status.code(), Some(2), "nothing to open it with");

    let mut secrets: Vec<Vec<u8>> = vec![PASSPHRASE.into(), ANOTHER.into()];
    for kit in ["kit", "second-kit"] {
        let page = fs::read_to_string(world.path(kit)).expect("a kit");
        let letters = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        secrets.extend(letters.map(|line| line.as_bytes().to_vec()));
    }
    secrets.push(fs::read_to_string(world.path("read")).expect("a key").trim().into());
    for name in ["photos", "music"] {
        let key = world.comb(&format!("volume key {name}")).done();
        secrets.push(key.trim().into());
        secrets.push(unbase64(key.trim()));
    }
    let shows = |bytes: &[u8], secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    let mut found = 0;
    for secret in &secrets {
        assert!(!shows(said.as_bytes(), secret), "it was said: {}", String::from_utf8_lossy(secret));
        let mut places = 0;
        for file in walk(&world.path("state")).into_iter().filter(|file| !file.is_symlink()) {
            let bytes = fs::read(&file).expect("a file");
            // A volume's key file is where its key belongs.
            match file.file_name().is_some_and(|name| name == "key") {
                true => places += usize::from(shows(&bytes, secret)),
                false => assert!(!shows(&bytes, secret), "{} shows a secret", file.display()),
            }
        }
        found += places;
    }
    assert_eq!(found, 2, "the search finds the two keys, in base64, where they belong");
}

/// The bytes of base64, for a test that looks for them.
fn unbase64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|&letter| letter != b'=') {
        let value = ALPHABET.iter().position(|&known| known == letter).expect("a letter of base64");
        buffer = buffer << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    bytes
}

#[test]
fn a_store_that_cannot_be_reached_is_told_from_one_without_a_ring() {
    let world = World::new();
    world.private("passphrase", PASSPHRASE);
    let recover = |url: &str| world.comb(&format!("recover --store {url} --passphrase-file passphrase"));
    let empty = world.dir("empty");
    recover(&format!("file://{}", empty.display())).refused(3, "holds no key ring");
    // A port that is taken, and on which nobody listens.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = taken.expect("a port").port();
    recover(&format!("http://127.0.0.1:{port}/")).refused(10, "cannot be reached");
}

#[test]
fn credentials_of_a_store_travel_in_the_key_ring_and_show_nowhere() {
    let world = world_with_ring();
    let url = format!("file://{}", world.dir("home").display());
    world.words(["store", "add", "photos", &url]).done();
    world.comb("sync photos").done();
    let secret = "canary-5f1c";
    let aws = format!("[comb]\naws_access_key_id = me\naws_secret_access_key = {secret}\n");
    world.private("aws", &aws);
    world.private("netrc", &format!("machine dav.example login me password {secret}\n"));
    world.private("wrong", &format!("{secret}\n"));
    world.private("long", &secret.repeat(1000));
    let (bucket, dav) = ("s3://bucket/prefix/?region=eu-1", "https://dav.example/folder/");
    for (store, file, words) in [
        (bucket, "netrc", "one profile"),
        (bucket, "wrong", "one profile"),
        (dav, "wrong", "machine HOST"),
        ("gs://bucket", "aws", "service account"),
        ("az://container?account=me", "aws", "reads no credentials from a file"),
        (url.as_str(), "aws", "reads no credentials from a file"),
        (bucket, "long", "more than 4096 bytes"),
    ] {
        let outcome = world.words(["key", "ring", "store", store, "--credentials-file", file]);
        assert!(!outcome.said.contains(secret), "{}", outcome.said);
        outcome.refused(2, words);
    }
    let number = world.comb("key ring show --json").json()["number"].as_u64();
    for (store, file) in [(bucket, "aws"), (dav, "netrc")] {
        let done = world.words(["key", "ring", "store", store, "--credentials-file", file]);
        assert!(!done.said.contains(secret) && !done.out.contains(secret), "{}{}", done.said, done.out);
        done.done();
    }
    // The same again changes nothing.
    world.words(["key", "ring", "store", dav, "--credentials-file", "netrc"]).done();
    let shown = world.comb("key ring show --json");
    assert!(!shown.out.contains(secret));
    let shown = shown.json();
    assert_eq!(shown["number"].as_u64(), number.map(|number| number + 2));
    assert_eq!(shown["credentials"], serde_json::json!([dav, bucket]));
    for file in walk(&world.path("home")).into_iter().chain(walk(&world.path("state"))) {
        let bytes = fs::read(&file).expect("a file");
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} has the secret in the clear", file.display());
    }

    // Another machine of the account has them.
    let other = World::new();
    other.private("passphrase", PASSPHRASE);
    other.words(["recover", "--store", &url, "--passphrase-file", "passphrase", "--read-only"]).done();
    assert_eq!(other.comb("key ring show --json").json()["credentials"], serde_json::json!([dav, bucket]));
    assert!(other.comb("key ring show").done().contains("with its credentials"));
}
