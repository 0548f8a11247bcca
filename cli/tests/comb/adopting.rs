//! Adopting a project that is ended before it is done: nothing of it stays, and the old project runs again. Docker is a
//! script here, which knows one project and writes down what is done to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::hive_stage::Hive;
use crate::world::{Outcome, World, signal, wait_until};

/// So many files that copying them takes a while.
const FILES: usize = 4_000;

const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
*" config "*) cat "$here/config.json" ;;
"volume ls "*) echo diary_data ;;
"volume inspect "*) echo "{\"Name\":\"diary_data\",\"Driver\":\"local\",\"Mountpoint\":\"$here/data\",\"Options\":null}" ;;
"ps "*"-a"*) echo '{"ID":"1","Names":"diary-web-1","Labels":"com.docker.compose.project=diary"}' ;;
"ps "*"volume="*) ;;
"ps "*) test -e "$here/stopped" || echo '{"ID":"1","Names":"diary-web-1","Labels":"com.docker.compose.project=diary"}' ;;
"compose -p diary stop") touch "$here/stopped"; echo stop >> "$here/did" ;;
"compose -p diary start") rm -f "$here/stopped"; echo start >> "$here/did" ;;
"update --restart no 1") echo rest >> "$here/did" ;;
*) echo "no such order: $*" >&2; exit 1 ;;
esac
"#;

/// A device of a hive on which the project "diary" runs.
struct Machine {
    hive: Hive,
    world: World,
}

impl Machine {
    fn new(files: usize) -> Self {
        let hive = Hive::start();
        let world = hive.owner();
        world.private("passphrase", "correct horse battery staple");
        world.comb("key ring init --passphrase-file passphrase").done();
        let store = world.dir("store");
        world.comb(&format!("account store add file://{} --shared", store.display())).done();
        let join = world.comb("device code --name attic").done();
        let join = join.trim().strip_prefix("comb ").expect("a command").to_owned();
        world.comb(&format!("{join} --passphrase-file passphrase")).done();

        let image = format!("nginx@sha256:{}", "1".repeat(64));
        let folder = world.dir("diary");
        let compose = format!(
            "services:\n  web:\n    image: {image}\n    volumes: [\"data:/data\"]\nvolumes: {{data: }}\n"
        );
        fs::write(folder.join("compose.yaml"), compose).expect("written");
        let data = world.dir("docker/data");
        for number in 0..files {
            fs::write(data.join(number.to_string()), "a page").expect("written");
        }
        let config = serde_json::json!({
            "name": "diary",
            "networks": {"default": {"ipam": {}, "name": "diary_default"}},
            "services": {"web": {
                "command": null, "entrypoint": null, "image": image, "networks": {"default": null},
                "volumes": [{"type": "volume", "source": "data", "target": "/data", "volume": {}}],
            }},
            "volumes": {"data": {"name": "diary_data"}},
        });
        fs::write(world.path("docker/config.json"), config.to_string()).expect("written");
        let docker = world.path("docker/docker");
        fs::write(&docker, DOCKER).expect("written");
        fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).expect("a program");
        Self { hive, world }
    }

    fn begin(&self, words: &[&str]) -> Child {
        let path = std::env::var("PATH").unwrap_or_default();
        let adopt = self.world.command(["app", "adopt"].iter().chain(words));
        // Whoever runs the tests may ignore some of these, and a program that is begun so does, too.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP,INT,TERM").arg(adopt.get_program()).args(adopt.get_args());
        command.current_dir(self.world.path("")).stdin(Stdio::null());
        command.env("PATH", format!("{}:{path}", self.world.path("docker").display()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    }

    fn end(child: Child) -> Outcome {
        Outcome::new(child.wait_with_output().expect("it ends"))
    }

    fn adopt(&self) -> Child {
        self.begin(&["diary", "--yes", "--no-wait", "--passphrase-file", "passphrase"])
    }

    /// Waits until some files are copied.
    fn until_copying(&self) {
        wait_until("copying", || self.copied() > 10);
    }

    fn copied(&self) -> usize {
        let data = self.mounts().into_iter().map(|mount| mount.join("data"));
        data.filter_map(|data| fs::read_dir(data).ok()).map(Iterator::count).sum()
    }

    /// Where volumes are filled.
    fn mounts(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.adopting()).map(|all| all.flatten().collect::<Vec<_>>());
        let paths = entries.unwrap_or_default().into_iter().map(|entry| entry.path());
        paths.filter(|path| path.is_dir()).collect()
    }

    fn adopting(&self) -> PathBuf {
        self.world.path("state/orchestrator/adopt")
    }

    /// What was done to the old project.
    fn did(&self) -> String {
        let did = fs::read_to_string(self.world.path("docker/did")).unwrap_or_default();
        did.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Nothing of the app is there, and nothing is mounted.
    #[track_caller]
    fn expect_nothing(&self) {
        assert_eq!(self.world.comb("volume list --json").json(), serde_json::json!([]));
        assert_eq!(self.world.comb("app list --json").json(), serde_json::json!([]));
        let left = fs::read_dir(self.adopting()).expect("a folder").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_interrupted_adopt_takes_its_volumes_back_and_starts_the_project_again() {
    let machine = Machine::new(FILES);
    for (round, how) in ["-INT", "-TERM", "-HUP"].into_iter().enumerate() {
        let adopt = machine.adopt();
        machine.until_copying();
        signal(how, &adopt.id().to_string());
        let ended = Machine::end(adopt);
        assert!(ended.said.contains("\"diary\" is started again"), "{how}: {}", ended.said);
        ended.refused(1, "error: interrupted");
        machine.expect_nothing();
        assert_eq!(machine.did(), ["stop start"; 3][..=round].join(" "), "{how}");
    }
}

#[test]
fn a_second_interrupt_ends_at_once_and_the_next_adopt_removes_what_is_left() {
    let machine = Machine::new(FILES);
    let adopt = machine.adopt();
    machine.until_copying();
    let busy = machine.begin(&["diary", "--yes"]);
    Machine::end(busy).refused(4, "another `comb app adopt` runs");
    let pid = adopt.id().to_string();
    signal("-STOP", &pid);
    signal("-INT", &pid);
    signal("-TERM", &pid);
    signal("-CONT", &pid);
    let ended = Machine::end(adopt);
    assert!(ended.said.contains("`docker compose -p diary start`"), "{}", ended.said);
    ended.refused(1, "error: ended before all was put back");
    assert_eq!(machine.did(), "stop");
    // So it is after one that was killed, also by an adopt that does nothing else.
    let next = Machine::end(machine.begin(&["nowhere", "--yes"]));
    assert!(next.said.contains("an adopt of \"diary\" was ended before it was done"), "{}", next.said);
    next.refused(3, "nowhere");
    machine.expect_nothing();
}

#[test]
fn a_killed_adopt_is_begun_anew_and_where_it_fails_the_project_runs_again() {
    let machine = Machine::new(FILES);
    let adopt = machine.adopt();
    machine.until_copying();
    signal("-KILL", &adopt.id().to_string());
    Machine::end(adopt);
    assert_eq!(machine.did(), "stop");
    let killed = machine.mounts();
    let again = machine.adopt();
    wait_until("removing what is left", || killed.iter().all(|left| !left.exists()));
    machine.until_copying();
    signal("-TERM", &again.id().to_string());
    Machine::end(again).refused(1, "error: interrupted");
    machine.expect_nothing();
    assert_eq!(machine.did(), "stop start", "the first one had stopped it");
}

#[test]
fn an_order_without_an_answer_is_undone_only_where_the_hive_says_that_it_has_no_app() {
    let machine = Machine::new(3);
    let line = Line::to(&machine.hive.url);
    let login = machine.world.path("state/hive.json");
    let text = fs::read_to_string(&login).expect("a login");
    fs::write(&login, text.replace(&machine.hive.url, &line.url)).expect("written");

    // What makes the app never arrives, and nobody can be asked whether it did.
    line.cut(Cut::All);
    let ended = Machine::end(machine.adopt());
    assert!(ended.said.contains("nothing was undone"), "{}", ended.said);
    ended.refused(10, "whether \"diary\" was added is not known");
    assert_eq!(machine.did(), "stop");
    assert_eq!(machine.world.comb("volume list --json").json().as_array().map(Vec::len), Some(1));

    // The next one can ask, and begins anew; now the hive says of its own order that it has no such app.
    line.cut(Cut::Order);
    let ended = Machine::end(machine.adopt());
    assert!(ended.said.contains("an adopt of \"diary\" was ended before it was done"), "{}", ended.said);
    assert!(ended.said.contains("\"diary\" is started again"), "{}", ended.said);
    ended.refused(10, "does not answer");
    machine.expect_nothing();
    assert_eq!(machine.did(), "stop start");
}

/// What gets lost on the way to the hive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The order that makes an app.
    Order,
    /// That, and everything behind it.
    All,
}

/// A line to the hive on which something gets lost.
struct Line {
    url: String,
    cut: Arc<Mutex<(Cut, bool)>>,
}

impl Line {
    fn to(hive: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let to = hive.trim_start_matches("http://").to_owned();
        let cut = Arc::new(Mutex::new((Cut::Order, false)));
        let all = Arc::clone(&cut);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, cut) = (to.clone(), Arc::clone(&all));
                thread::spawn(move || pass(stream, &to, &cut));
            }
        });
        Self { url, cut }
    }

    /// What gets lost from now on.
    fn cut(&self, what: Cut) {
        *self.cut.lock().expect("nobody panicked") = (what, false);
    }
}

fn pass(mut client: TcpStream, to: &str, cut: &Mutex<(Cut, bool)>) {
    let Ok(mut hive) = TcpStream::connect(to) else { return };
    let (mut back, mut out) = (hive.try_clone().expect("a stream"), client.try_clone().expect("a stream"));
    let answers = thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut out);
        let _ = out.shutdown(Shutdown::Both);
    });
    let mut part = [0; 16 << 10];
    while let Ok(len @ 1..) = client.read(&mut part) {
        let mut cut = cut.lock().expect("nobody panicked");
        let is_order = part[..len].starts_with(b"POST /v1/apps ");
        cut.1 |= is_order && cut.0 == Cut::All;
        if is_order || cut.1 || hive.write_all(&part[..len]).is_err() {
            break;
        }
    }
    for stream in [&client, &hive] {
        let _ = stream.shutdown(Shutdown::Both);
    }
    let _ = answers.join();
}
