//! A device's own page, with a browser of a few lines: a real device, a volume on a real mount, no Docker.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::browser::{Answer, Browser, encode};
use crate::hive_stage::Hive;
use crate::world::{World, wait_until};

const PASSPHRASE: &str = "correct horse battery staple";
/// A picture of one dot.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\xa6\xef\x1b\x1c\0\0\0\0IEND\xaeB`\x82";
const SVG: &str =
    "<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"><script>alert(2)</script></svg>";

/// A device with its hive, and a volume that is mounted.
struct Stage {
    world: World,
    device: Option<Child>,
    _hive: Hive,
}

impl Stage {
    fn new() -> Self {
        let hive = Hive::start();
        let world = hive.owner();
        world.private("passphrase", PASSPHRASE);
        world.comb("key ring init --passphrase-file passphrase").done();
        let code = world.comb("device code --json").json()["code"].as_str().expect("a code").to_owned();
        let join =
            format!("device join {} --code {code} --name attic --passphrase-file passphrase", hive.url);
        world.comb(&join).done();
        let mut stage = Self { world, device: None, _hive: hive };
        stage.run_device();
        stage.world.comb("volume create photos").done();
        let folder = stage.folder();
        fs::create_dir_all(&folder).expect("a folder");
        let mount =
            stage.world.words(["mount", "photos", &folder.to_string_lossy(), "--seal-every", "3600s"]);
        mount.done();
        stage
    }

    fn run_device(&mut self) {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.world.path("log")).expect("a log");
        let mut command = self.world.command(["device", "run", "--docker", "/nowhere/docker.sock"]);
        self.device = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("the binary starts"));
        wait_until("the device", || self.world.comb("device status").code == 0);
    }

    fn folder(&self) -> PathBuf {
        self.world.path("mount")
    }

    /// Writes a file of the volume.
    fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, bytes).expect("written");
    }

    /// Keeps a moment; its number.
    fn snapshot(&self, tag: &str) -> u64 {
        let made = self.world.words(["snapshot", "photos", "--json", "--tag", tag]).json();
        made["seq"].as_u64().expect("a number")
    }

    fn open(&self) -> Value {
        self.world.comb("device page --listen 127.0.0.1:0 --json").json()
    }

    /// A browser that was let in.
    fn browser(&self) -> Browser {
        let opened = self.open();
        let mut browser = Browser::new(opened["address"].as_str().expect("an address"));
        let entered = browser.enter(opened["code"].as_str().expect("a code"));
        assert_eq!((entered.status, entered.header("location")), (303, "/"), "{}", entered.text());
        browser
    }

    /// Waits until the device has seen the mount.
    fn seen(&self, browser: &Browser, path: &str) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = browser.shows(path);
            if answer.text().contains("name=\"way\"") {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", answer.text());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut device) = self.device.take() {
            let _ = device.kill();
            let _ = device.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.world.path("log")).unwrap_or_default());
        }
        let _ = self.world.words(["unmount", &self.folder().to_string_lossy()]);
    }
}

/// Every route that shows something, as the table in `docs/page.md` has them.
fn closed() -> Vec<&'static str> {
    let document = include_str!("../../../orchestrator/docs/page.md");
    let paths = document
        .lines()
        .filter(|line| line.starts_with("| `GET /") || line.starts_with("| `POST /"))
        .filter_map(|line| line.split_once(" /").map(|(_, rest)| rest))
        .map(|rest| rest.split(['?', '`', '[']).next().unwrap_or_default())
        .filter(|path| !["code", "theme", "assets/…"].contains(path));
    let paths: Vec<&str> = paths.collect();
    assert!(paths.len() >= 16, "{paths:?}");
    paths
}

#[test]
fn the_page_lets_in_whoever_has_the_code_and_nobody_else() {
    let stage = Stage::new();
    let opened = stage.open();
    let address = opened["address"].as_str().expect("an address");
    let (code, print) =
        (opened["code"].as_str().expect("a code"), opened["fingerprint"].as_str().expect("a fingerprint"));
    assert!(code.len() == 9 && print.len() == 32 * 3 - 1, "{opened}");
    let mut browser = Browser::new(address);

    // Nothing is shown without a session, nor with a made-up one.
    for cookie in [None, Some("__Host-comb-page=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned())] {
        browser.cookie = cookie;
        for path in closed() {
            for method in [Method::GET, Method::POST] {
                let answer = browser.ask(method.clone(), &format!("/{path}?volume=photos&path=a"), &[], None);
                let is_led = answer.status == 303 && answer.header("location") == "/code";
                assert!(is_led || [401, 405].contains(&answer.status), "{method} /{path}: {}", answer.status);
                assert!(!answer.text().contains("photos"), "{method} {path}: {}", answer.text());
            }
        }
    }
    browser.cookie = None;
    assert_eq!(browser.get("/nothing").status, 404);
    let form = browser.shows("/code");
    assert!(form.text().contains("attic") && form.text().contains("comb device page"));
    let style = form
        .text()
        .split("href=\"/assets/")
        .nth(2)
        .and_then(|rest| rest.split('"').next().map(str::to_owned));
    assert_eq!(browser.get(&format!("/assets/{}", style.expect("a sheet"))).status, 200);
    assert_eq!(browser.get("/assets/../code").status, 200, "a client makes it plain");
    assert_eq!(browser.get("/assets/0/console.css").status, 404);

    // A name that leads here is not ours, and no other site sends forms.
    for host in ["evil.example", "attic.evil.example:8421", "127.0.0.1.evil.example"] {
        let answer = browser.ask(Method::GET, "/code", &[("host", host)], None);
        assert_eq!(answer.status, 421, "{host}");
    }
    for headers in
        [[("origin", "https://evil.example")], [("origin", "null")], [("sec-fetch-site", "cross-site")]]
    {
        let answer = browser.ask(Method::POST, "/code", &headers, Some(format!("code={code}")));
        assert_eq!((answer.status, answer.cookies.len()), (403, 0), "{headers:?}");
    }

    // Wrong, then right, then used.
    assert_eq!(browser.enter("nonsense, and long").status, 403);
    let wrong = browser.enter("0000-0000");
    assert_eq!((wrong.status, wrong.text().contains("4 tries are left")), (403, true), "{}", wrong.text());
    let right = browser.enter(&code.to_lowercase().replace('-', " "));
    assert_eq!(right.status, 303);
    let cookie = right.cookies.first().expect("a cookie");
    for word in ["__Host-comb-page=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{word} in {cookie}");
    }
    wait_until("seeing the volume", || browser.shows("/").text().contains("photos"));
    let first = browser.shows("/");
    let mut other = Browser::new(address);
    assert_eq!(other.enter(code).status, 403, "it is good once");

    // Five tries end a code.
    let again = stage.open();
    assert_eq!((&again["address"], &again["fingerprint"]), (&opened["address"], &opened["fingerprint"]));
    for _ in 0..5 {
        assert_eq!(other.enter("0000-0000").status, 403);
    }
    assert_eq!(other.enter(again["code"].as_str().expect("a code")).status, 403, "tried too often");

    // Forms carry the session's word; leaving ends it.
    for token in ["", "AAAA"] {
        assert_eq!(browser.post("/leave", &[("csrf", token)]).status, 403);
    }
    // What is refused in a session is told on a page with a way back, without one in a line.
    let refused = [
        (browser.get("/nothing"), 404),
        (browser.get("/leave"), 405),
        (browser.get("/files?volume=%zz"), 400),
        (browser.post("/leave", &[("csrf", "old")]), 403),
    ];
    for (answer, status) in refused {
        assert_eq!(answer.status, status, "{}", answer.text());
        let page = answer.text();
        assert!(page.contains("<h1>") && page.contains("href=\"/\">Go back</a>"), "{status}: {page}");
    }
    other.cookie = None;
    let line = other.get("/nothing").text();
    assert_eq!(line, "there is no such page\n", "nothing of the device");
    let csrf = first.field("csrf");
    assert_eq!(browser.shows("/").status, 200);
    let left = browser.post("/leave", &[("csrf", &csrf)]);
    assert_eq!((left.status, left.header("location")), (303, "/code"));
    assert_eq!(browser.get("/").status, 303, "the old cookie opens nothing");

    // Closing ends every session, and so does the device's end.
    let browser = stage.browser();
    stage.world.comb("device page --close").done();
    assert!(browser.runtime.block_on(browser.client.get(&browser.address).send()).is_err());
    let log = fs::read_to_string(stage.world.path("log")).expect("a log");
    for secret in [code, again["code"].as_str().expect("a code"), &csrf, "photos/"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let state = stage.world.path("state/orchestrator/page.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(state).expect("the certificate").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn hostile_names_and_contents_are_shown_and_do_nothing() {
    let stage = Stage::new();
    let long = "n".repeat(255);
    let names: Vec<Vec<u8>> = vec![
        b"<img src=x onerror=alert(1)>.txt".to_vec(),
        b"a\nb\x1b[31m.txt".to_vec(),
        "gnp\u{202e}gpj.exe".as_bytes().to_vec(),
        b"\xff\xfe.bin".to_vec(),
        b"\"quoted' & more%2e%2e?x=1#y+z".to_vec(),
        b"..hidden".to_vec(),
        b" blank ".to_vec(),
        long.clone().into_bytes(),
    ];
    for (at, name) in names.iter().enumerate() {
        stage.write(Path::new("odd").join(std::ffi::OsStr::from_bytes(name)), format!("content {at}"));
    }
    stage.write("page.html", "<script>alert('page')</script>");
    stage.write("picture.svg", SVG);
    stage.write("picture.txt", PNG);
    stage.write("fake.png", "<html><script>alert('png')</script></html>");
    stage.write("latin.txt", b"gr\xf6\xdfe \x1b]0;x\x07");
    stage.write("binary", b"\x7fELF\0\0\0");
    stage.write("large.txt", "0123456789abcde\n".repeat(64 << 10));
    symlink("/etc/passwd", stage.folder().join("link")).expect("a link");
    symlink("/etc", stage.folder().join("etc")).expect("a link");
    let seq = stage.snapshot("first");
    let browser = stage.browser();
    let at = |route: &str, path: &[u8]| format!("/{route}?volume=photos&at={seq}&path={}", encode(path));

    // Every name is listed, as a link that works.
    let folder = browser.shows(&at("files", b"odd"));
    let text = folder.text();
    assert!(!text.contains("<img src=x") && !text.contains('\u{202e}') && !text.contains('\x1b'), "{text}");
    assert!(
        text.contains("⟨U+202E⟩")
            && text.contains("⟨FF⟩")
            && text.contains("⟨U+000A⟩")
            && text.contains(&long)
    );
    let links: Vec<String> = text
        .split("<a href=\"/file?")
        .skip(1)
        .map(|rest| {
            format!(
                "/file?{}",
                rest.split('"').next().expect("an end").replace("&amp;", "&").replace("&#38;", "&")
            )
        })
        .collect();
    assert_eq!(links.len(), names.len(), "{text}");
    let mut found: Vec<usize> = links
        .iter()
        .map(|link| {
            let text = browser.shows(link).text();
            let at = text.split("<li>content ").nth(1).unwrap_or_else(|| panic!("{link}: {text}"));
            at[..1].parse().expect("a digit")
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..names.len()).collect::<Vec<_>>());
    for name in &names {
        let got = browser.get(&at("download", &[b"odd/", &name[..]].concat()));
        assert!(got.status == 200 && got.body.starts_with(b"content "), "{name:?}");
        let disposition = got.header("content-disposition");
        assert!(disposition.starts_with("attachment; filename=\""), "{disposition}");
        assert!(!disposition.contains("E2%80%AE"), "{disposition}");
    }

    // Text is text, whatever it would be elsewhere.
    for (name, inside) in [
        ("page.html", "&lt;script&gt;"),
        ("picture.svg", "&lt;svg"),
        ("fake.png", "&lt;html&gt;"),
        ("latin.txt", "größe <span class=\"odd\">⟨1B⟩</span>]0;x"),
    ] {
        let shown = browser.shows(&at("file", name.as_bytes())).text();
        assert!(shown.contains(inside) && !shown.contains("<img src=\"/picture"), "{name}: {shown}");
        let picture = browser.get(&at("picture", name.as_bytes()));
        assert_eq!(picture.status, 415, "{name}");
        let got = browser.get(&at("download", name.as_bytes()));
        assert_eq!(got.header("content-type"), "application/octet-stream", "{name}");
        assert!(got.header("content-security-policy").starts_with("sandbox; default-src 'none'"), "{name}");
    }
    let shown = browser.shows(&at("file", b"picture.txt")).text();
    assert!(shown.contains("<img src=\"/picture?"), "a picture by its bytes: {shown}");
    let picture = browser.get(&at("picture", b"picture.txt"));
    assert_eq!((picture.status, picture.header("content-type"), &picture.body[..]), (200, "image/png", PNG));
    assert!(picture.header("content-security-policy").starts_with("sandbox; default-src 'none'"));
    assert_eq!(picture.header("x-content-type-options"), "nosniff");
    assert!(browser.shows(&at("file", b"binary")).text().contains("neither text nor a picture"));
    let large = browser.shows(&at("file", b"large.txt"));
    assert!(
        large.text().contains("The first 256 KiB of it.") && large.body.len() < 2 << 20,
        "{}",
        large.body.len()
    );
    let whole = browser.get(&at("download", b"large.txt"));
    assert_eq!((whole.body.len(), whole.header("content-length")), (1 << 20, "1048576"));

    // Links lead nowhere, and no path leads out.
    let link = browser.shows(&at("file", b"link")).text();
    assert!(link.contains("/etc/passwd") && !link.contains("root:"), "{link}");
    assert_eq!(browser.get(&at("download", b"link")).status, 400);
    assert_eq!(browser.get(&at("download", b"etc/passwd")).status, 404);
    assert_eq!(browser.get(&at("files", b"etc")).header("location").split('?').next(), Some("/file"));
    for path in ["..", "../..", "odd/../../..", "/../etc/passwd", "odd//..", "./odd", "odd\0"] {
        let answer = browser.get(&at("files", path.as_bytes()));
        assert_eq!(answer.status, 400, "{path:?}");
    }
    for query in
        ["volume=..&path=", "volume=--state&path=", "volume=photos%2F..%2Fx", "volume=none", "volume=", ""]
    {
        let answer = browser.get(&format!("/files?{query}"));
        assert!([400, 404].contains(&answer.status), "{query}: {}", answer.status);
    }
    assert_eq!(browser.get("/files?volume=photos&at=x").status, 400);
    assert_eq!(browser.get("/files?volume=photos&at=99999").status, 404);

    // The archive of a folder has all of it.
    let tar = browser.get(&at("download", b"odd"));
    assert_eq!((tar.status, tar.header("content-type")), (200, "application/x-tar"));
    assert!(tar.body.len() > names.len() * 512 && tar.header("content-disposition").contains("odd.tar"));
}

#[test]
fn a_person_goes_back_in_time_and_brings_a_file_back() {
    let stage = Stage::new();
    stage.write("notes/a.txt", "one\ntwo\nthree\n");
    stage.write("notes/gone.txt", "still here");
    stage.write("same.txt", "the same");
    let first = stage.snapshot("first");
    stage.write("notes/a.txt", "one\n<b>2</b>\nthree\nfour\n");
    fs::remove_file(stage.folder().join("notes/gone.txt")).expect("removed");
    stage.write("new.txt", "new");
    let second = stage.snapshot("second");
    let browser = stage.browser();

    // The time machine.
    let moments = browser.shows("/moments?volume=photos").text();
    assert!(
        moments.contains("<svg class=\"timeline\"")
            && moments.contains("first")
            && moments.contains("second")
    );
    assert!(
        moments.contains(&format!("/files?volume=photos&amp;at={first}"))
            || moments.contains(&format!("/files?volume=photos&#38;at={first}")),
        "{moments}"
    );
    let then = browser.shows(&format!("/files?volume=photos&at={first}&path=notes")).text();
    assert!(then.contains("gone.txt") && then.contains("Later →"), "{then}");
    let now = browser.shows("/files?volume=photos&path=notes").text();
    assert!(!now.contains("gone.txt") && now.contains("the newest there is"), "{now}");

    // What changed, of the volume and inside of a file.
    let compared = browser.shows(&format!("/compare?volume=photos&from={second}&to={first}")).text();
    for words in ["1 added", "1 removed", "new.txt", "notes/gone.txt", "notes/a.txt"] {
        assert!(compared.contains(words), "{words}: {compared}");
    }
    assert!(!compared.contains("same.txt"));
    let inside = browser
        .shows(&format!("/compare/text?volume=photos&from={first}&to={second}&path=notes/a.txt"))
        .text();
    assert!(inside.contains("2 lines added") && inside.contains("1 removed"), "{inside}");
    assert!(inside.contains("&lt;b&gt;2&lt;/b&gt;") && !inside.contains("<b>2</b>"), "{inside}");
    let versions = browser.shows("/versions?volume=photos&path=notes/a.txt").text();
    assert_eq!(versions.matches("What changed").count(), 1, "{versions}");
    let versions = browser.shows("/versions?volume=photos&path=notes/gone.txt").text();
    assert!(versions.contains("It was removed"), "{versions}");

    // What the device says of itself.
    let doctor = browser.shows("/doctor").text();
    for words in ["Key ring", "Docker", "Compose", "Disk"] {
        assert!(doctor.contains(words), "{words}: {doctor}");
    }

    // Bringing back asks first, takes a form of this session, and keeps what it replaces.
    let path = format!("/restore?volume=photos&at={first}&path=notes/a.txt");
    let asks = stage.seen(&browser, &path);
    assert_eq!(
        fs::read(stage.folder().join("notes/a.txt")).expect("there").len(),
        24,
        "asking changes nothing"
    );
    let csrf = asks.field("csrf");
    let (seq, packed) = (first.to_string(), asks.field("packed"));
    let fields = |way: &'static str, csrf: &str| {
        [
            ("csrf", csrf.to_owned()),
            ("volume", "photos".to_owned()),
            ("at", seq.clone()),
            ("packed", packed.clone()),
            ("way", way.to_owned()),
        ]
    };
    let send = |fields: &[(&str, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        browser.post("/restore", &fields)
    };
    assert_eq!(send(&fields("in-place", "")).status, 403);
    assert_eq!(send(&fields("elsewhere", &csrf)).status, 400);
    let sent = send(&fields("in-place", &csrf));
    assert_eq!(sent.status, 303, "{}", sent.text());
    let done = browser.shows(sent.header("location"));
    assert!(
        done.text().contains("It is back") && done.text().contains("What was there before is kept"),
        "{}",
        done.text()
    );
    assert_eq!(fs::read_to_string(stage.folder().join("notes/a.txt")).expect("there"), "one\ntwo\nthree\n");
    let log = stage.world.comb("log photos --json").json();
    let kept = log.as_array().expect("a list").iter().find(|seal| {
        seal["snapshot"]["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|tag| tag == &format!("before-restore-{first}")))
    });
    let kept = kept.expect("the moment before")["seq"].as_u64().expect("a number");
    let before = browser.get(&format!("/download?volume=photos&at={kept}&path=notes/a.txt"));
    assert_eq!(before.text(), "one\n<b>2</b>\nthree\nfour\n", "what was replaced is kept");

    // Beside, under a name that tells the moment; a second time is refused.
    let beside = send(&fields("beside", &csrf));
    let done = browser.shows(beside.header("location"));
    assert!(done.text().contains(&format!("a (seq {first}).txt")), "{}", done.text());
    assert!(stage.folder().join(format!("notes/a (seq {first}).txt")).exists());
    let again = send(&fields("beside", &csrf));
    assert_eq!(browser.get(again.header("location")).status, 409);

    // Whoever left finds on the first page what became of it.
    let listed = browser.shows("/").text();
    for words in ["<h2>Brought back</h2>", "a.txt", "/restored?work=1\"", "it is back", "it did not work"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    // The command that does it tells how far it is.
    let place = format!("photos@{first}:/notes/gone.txt");
    let told = stage.world.words(["restore", &place, "--beside", "--json", "--progress"]);
    let last = told.said.lines().rfind(|line| line.starts_with("progress ")).expect("it tells").to_owned();
    assert_eq!(last, "progress {\"files\":1,\"bytes\":10,\"total\":10}");

    // A folder comes back with what was removed; what came since stays.
    stage.write("notes/since.txt", "since");
    let asks = browser.shows(&format!("/restore?volume=photos&at={first}&path=notes"));
    let packed = asks.field("packed");
    let sent = browser.post(
        "/restore",
        &[("csrf", &csrf), ("volume", "photos"), ("at", &seq), ("packed", &packed), ("way", "in-place")],
    );
    browser.shows(sent.header("location"));
    assert_eq!(fs::read_to_string(stage.folder().join("notes/gone.txt")).expect("there"), "still here");
    assert!(stage.folder().join("notes/since.txt").exists());

    // A link that somebody put in the way is not followed.
    let outside = stage.world.dir("outside");
    fs::write(outside.join("a.txt"), "outside").expect("written");
    fs::rename(stage.folder().join("notes"), stage.folder().join("moved")).expect("renamed");
    symlink(&outside, stage.folder().join("notes")).expect("a link");
    let sent = send(&fields("in-place", &csrf));
    let refused = browser.get(sent.header("location"));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(fs::read_to_string(outside.join("a.txt")).expect("there"), "outside");
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 1);

    // Unmounted it takes nothing back, and says so.
    stage.world.words(["unmount", &stage.folder().to_string_lossy()]).done();
    let sent = send(&fields("in-place", &csrf));
    let refused = browser.get(sent.header("location"));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("not mounted here"), "{}", refused.text());
}

/// What this device wrote after another one had gone on is looked at and brought back like anything of the past.
#[test]
fn a_branch_is_looked_at_and_a_file_of_it_comes_back() {
    let stage = Stage::new();
    let world = &stage.world;
    let store = format!("file://{}", world.dir("store").display());
    world.words(["store", "add", "photos", &store]).done();
    stage.write("first", "first");
    world.comb("sync photos --wait").done();
    world.comb("volume key photos --out key").done();
    let other = World::new();
    other.open_from(&world.path("key"), &store, &[]).done();
    other.dir("mount");
    other.comb("mount photos mount").done();
    fs::write(other.path("mount/second"), "second").expect("written");
    other.comb("sync photos --wait").done();
    // Written before it knows; then it takes the volume over in turn.
    stage.write("tail <b>", "what was saved");
    assert_ne!(world.comb("sync photos --wait").code, 0, "another device has it");
    world.comb("unmount mount").done();
    world.comb("volume open photos").done();
    let branches = world.comb("branch list photos --json").json();
    let name = branches[0]["name"].as_str().expect("a branch").to_owned();
    world.words(["mount", "photos", &stage.folder().to_string_lossy(), "--seal-every", "3600s"]).done();
    assert!(!stage.folder().join("tail <b>").exists() && stage.folder().join("second").exists());

    let browser = stage.browser();
    let volume = encode(name.as_bytes());
    let moments = browser.shows("/moments?volume=photos").text();
    assert!(moments.contains("Saved from a lost device") && moments.contains(&name), "{moments}");
    let moments = browser.shows(&format!("/moments?volume={volume}")).text();
    assert!(moments.contains("after another device had gone on with the app"), "{moments}");
    let files = browser.shows(&format!("/files?volume={volume}&path=")).text();
    assert!(files.contains("tail &lt;b&gt;") && !files.contains("second"), "{files}");
    let path = encode(b"tail <b>");
    let file = browser.shows(&format!("/file?volume={volume}&path={path}")).text();
    assert!(file.contains("what was saved"), "{file}");

    // It comes back into the volume that it is of.
    let asks = stage.seen(&browser, &format!("/restore?volume={volume}&path={path}"));
    let names = ["csrf", "volume", "at", "packed"];
    let held = names.map(|name| asks.field(name));
    let mut fields: Vec<(&str, &str)> = names.into_iter().zip(held.iter().map(String::as_str)).collect();
    fields.push(("way", "in-place"));
    let sent = browser.post("/restore", &fields);
    assert_eq!(sent.status, 303, "{}", sent.text());
    let done = browser.shows(sent.header("location"));
    assert!(done.text().contains("It is back"), "{}", done.text());
    assert_eq!(fs::read_to_string(stage.folder().join("tail <b>")).expect("is there"), "what was saved");
    other.comb("unmount mount").done();
}

#[test]
fn names_of_files_are_in_no_command_line() {
    let stage = Stage::new();
    stage.write("canary of a name/canary of a file.txt", vec![b'x'; 64 << 20]);
    let seq = stage.snapshot("first");
    let browser = stage.browser();
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watch = {
        let is_over = is_over.clone();
        std::thread::spawn(move || {
            let (mut looks, mut children) = (0, 0);
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").expect("/proc").flatten() {
                    let bytes = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let bytes = [bytes, fs::read(entry.path().join("environ")).unwrap_or_default()].concat();
                    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
                    assert!(!has(b"canary of a"), "{}", String::from_utf8_lossy(&bytes));
                    children += usize::from(has(b"\0cat\0-") || has(b"\0ls\0--page"));
                }
                looks += 1;
            }
            (looks, children)
        })
    };
    for _ in 0..3 {
        let path = encode(b"canary of a name/canary of a file.txt");
        browser.shows(&format!("/file?volume=photos&at={seq}&path={path}"));
        browser.shows(&format!("/versions?volume=photos&path={path}"));
        let got = browser.get(&format!("/download?volume=photos&at={seq}&path={path}"));
        assert_eq!(got.body.len(), 64 << 20);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (looks, children) = watch.join().expect("no name was seen");
    assert!(looks > 3 && children > 0, "{looks} looks saw {children} commands");
}
