//! Stores against real servers on loopback, which `tests/servers` starts; these must be there when this is run.
//!
//! `cargo test -p fs-store --test servers -- --ignored`; the disk that is full needs root.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fs_store::{
    Kind, Name, Patience, Patient, Prefix, Probe, Store, StoreError, Surroundings, Unfit, Url, conformance,
    open, probe,
};
use tokio::task::JoinSet;

#[path = "servers/ipfs.rs"]
mod ipfs;

const S3: [&str; 2] = ["versitygw", "minio"];

/// A server that runs until this is dropped.
struct Server {
    script: &'static str,
    kind: &'static str,
    port: u16,
    /// What it said: how it is reached.
    said: HashMap<String, String>,
}

impl Server {
    fn start(script: &'static str, kind: &'static str, around: &[(&str, &str)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut server = Server { script, kind, port, said: HashMap::new() };
        let said = server.run("start", around);
        server.said = said
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        server
    }

    fn s3(kind: &'static str) -> Server {
        Server::start("s3", kind, &[])
    }

    fn run(&self, action: &str, around: &[(&str, &str)]) -> String {
        let script = format!("{}/../../tests/servers/{}", env!("CARGO_MANIFEST_DIR"), self.script);
        let mut command = Command::new(&script);
        command.args([action, self.kind, &self.port.to_string()]);
        command.envs(around.iter().copied());
        let output = command.output().unwrap_or_else(|error| panic!("{script}: {error}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {action}: {error}", self.kind);
        String::from_utf8(output.stdout).expect("text")
    }

    fn url(&self) -> &str {
        &self.said["COMB_TEST_URL"]
    }

    fn around(&self) -> Surroundings {
        Surroundings::new(self.said.clone(), None)
    }

    /// What it says, but for these.
    fn but(&self, changes: &[(&str, &str)]) -> Surroundings {
        let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Surroundings::new(self.said.clone().into_iter().chain(changes), None)
    }

    async fn open(&self) -> Arc<dyn Store> {
        store(self.url(), &self.around()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("stop", &[]);
    }
}

async fn store(url: &str, around: &Surroundings) -> Arc<dyn Store> {
    let url: Url = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    open(&url, around).await.unwrap_or_else(|error| panic!("{error}"))
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn under(text: &str) -> Prefix {
    Prefix::new(text).expect("a good prefix")
}

fn bytes(number: usize, size: usize) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(31) ^ number.wrapping_mul(2_654_435_761)) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and MinIO"]
async fn s3_conforms() {
    for kind in S3 {
        let server = Server::s3(kind);
        let all = server.open().await;
        conformance::run(all.clone(), Prefix::all()).await;
        assert_eq!(probe(all, 1).await, Ok(Probe { unfit: None }), "{kind}");

        let (bucket, parameters) = server.url().split_once('?').expect("it has parameters");
        let below = store(&format!("{bucket}/a/Place=1?{parameters}"), &server.around()).await;
        conformance::run(Arc::new(Patient::new(below, 1)), under("v/00/")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and MinIO"]
async fn somebody_elses_objects_are_left_alone() {
    for kind in S3 {
        let server = Server::s3(kind);
        let (bucket, parameters) = server.url().split_once('?').expect("it has parameters");
        let all = server.open().await;
        for one in ["other/x", "comb-2/x", "com"] {
            all.create(&name(one), "x".into()).await.expect("created");
        }
        let ours = store(&format!("{bucket}/comb?{parameters}"), &server.around()).await;
        // Below our prefix too there may be what is no name.
        let odd = store(&format!("{bucket}/comb/Odd?{parameters}"), &server.around()).await;
        odd.create(&name("x"), "x".into()).await.expect("created");
        ours.create(&name("v/id"), "me".into()).await.expect("created");
        let listed = ours.list(&Prefix::all(), None, 10).await.expect("listed");
        assert_eq!(listed.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["v/id"], "{kind}");
        let listed = ours.list(&Prefix::all(), None, 1).await.expect("listed");
        assert_eq!(listed.len(), 1, "what is left out makes room: {kind}");
    }
}

/// Uploads so many objects by 16 at once, each until it is there.
fn upload(store: &Patient, count: usize, size: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for lane in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (lane..count).step_by(16) {
                match store.create(&name(&format!("p/{number:04}")), bytes(number, size)).await {
                    Ok(()) => {}
                    // The answer to an earlier try was lost.
                    Err(error) if error.kind() == Kind::Exists => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    tasks
}

async fn all_is_there(store: &Patient, count: usize, size: usize) {
    let listed = store.list(&under("p/"), None, count + 1).await.expect("listed");
    assert_eq!(listed.len(), count);
    for number in 0..count {
        let found = store.get(&name(&format!("p/{number:04}")), size as u64).await;
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert!(found == bytes(number, size), "object {number} is whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and MinIO"]
async fn uploads_survive_a_server_that_is_killed() {
    for kind in S3 {
        let server = Server::s3(kind);
        let store = Patient::new(server.open().await, 7);
        let mut uploads = upload(&store, 600, 200_000);
        let mut kills = 0;
        while kills < 3 {
            // Once some of it is there.
            let until = store.status().bytes_sent + 20 * 200_000;
            while store.status().bytes_sent < until && !uploads.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                while let Some(ended) = uploads.try_join_next() {
                    ended.expect("a lane ends well");
                }
            }
            assert!(!uploads.is_empty(), "{kind}: it was too fast to be killed {kills}");
            server.run("kill", &[]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let status = store.status();
            let (error, _) = status.last_error.expect("it was noticed");
            assert_eq!(error.kind(), Kind::Unreachable, "{error}");
            assert_eq!(status.at_once, 1, "one of them looks whether it is back");
            server.run("resume", &[]);
            kills += 1;
        }
        while let Some(ended) = uploads.join_next().await {
            ended.expect("a lane ends well");
        }
        all_is_there(&store, 600, 200_000).await;
        let status = store.status();
        assert_eq!(status.next_try, None);
        assert!(status.at_once > 1, "it is fast again");
    }
}

/// A line to a server that can be cut.
struct Wire {
    port: u16,
    how: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// As it should be.
const WELL: u8 = 0;
/// Each connection is closed as soon as it is open.
const CUT: u8 = 1;
/// Connections are open, and nothing comes.
const SILENT: u8 = 2;

impl Wire {
    fn to(server: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (how, open) = (Arc::new(AtomicU8::new(WELL)), Arc::new(Mutex::new(Vec::new())));
        let wire = Wire { port, how: how.clone(), open: open.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let keep = |stream: &TcpStream| {
                    open.lock().expect("not poisoned").push(stream.try_clone().expect("cloned"));
                };
                match how.load(Ordering::SeqCst) {
                    CUT => drop(client.shutdown(Shutdown::Both)),
                    SILENT => keep(&client),
                    _ => {
                        let Ok(inside) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                        keep(&client);
                        keep(&inside);
                        for (from, to) in [(&client, &inside), (&inside, &client)] {
                            let (from, to) = (from.try_clone(), to.try_clone());
                            let how = how.clone();
                            std::thread::spawn(move || {
                                pump(from.expect("cloned"), to.expect("cloned"), &how)
                            });
                        }
                    }
                }
            }
        });
        wire
    }

    fn set(&self, how: u8) {
        self.how.store(how, Ordering::SeqCst);
        if how != SILENT {
            for stream in self.open.lock().expect("not poisoned").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, how: &AtomicU8) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        while how.load(Ordering::SeqCst) == SILENT {
            std::thread::sleep(Duration::from_millis(10));
        }
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw"]
async fn uploads_survive_a_line_that_is_cut_or_silent() {
    let server = Server::s3("versitygw");
    let wire = Wire::to(server.port);
    let url = server.url().replace(&server.port.to_string(), &wire.port.to_string());
    let store = Patient::new(store(&url, &server.around()).await, 7);
    let mut uploads = upload(&store, 800, 200_000);
    for (how, time) in [(CUT, 3), (SILENT, 13), (CUT, 1)] {
        let until = store.status().bytes_sent + 20 * 200_000;
        while store.status().bytes_sent < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wire.set(how);
        tokio::time::sleep(Duration::from_secs(time)).await;
        let status = store.status();
        let (error, _) = status.last_error.expect("it was noticed");
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert_eq!(error.to_string().contains("10 s"), how == SILENT, "{error}");
        // A read for a file does not wait for ever either.
        let reading = store.with(Patience::Within(Duration::from_secs(2)));
        let began = std::time::Instant::now();
        let error = reading.get(&name("p/0000"), 1 << 20).await.expect_err("the line is cut");
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(began.elapsed() < Duration::from_secs(3));
        wire.set(WELL);
        // What was silent is given up.
        wire.set(how & CUT);
        wire.set(WELL);
    }
    while let Some(ended) = uploads.join_next().await {
        ended.expect("a lane ends well");
    }
    all_is_there(&store, 800, 200_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and MinIO, and root for a small disk"]
async fn a_full_disk_passes_when_there_is_room_again() {
    // MinIO keeps some of it to itself.
    for (kind, disk) in [("versitygw", "24m"), ("minio", "160m")] {
        let server = Server::start("s3", kind, &[("COMB_TEST_DISK", disk)]);
        let patient = Patient::new(server.open().await, 7);
        let once = patient.with(Patience::Once);
        let size = 4 << 20;
        let mut there = 0;
        let error = loop {
            assert!(there < 60, "{kind} is full at some time");
            match once.create(&name(&format!("p/{there:04}")), bytes(there, size)).await {
                Ok(()) => there += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Unreachable, "{kind}: {error}");
        println!("{kind}: {error}");
        assert!(there > 0, "{kind}");
        let waiting = tokio::spawn({
            let patient = patient.clone();
            async move { patient.create(&name("p/late"), bytes(1, size)).await }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!waiting.is_finished(), "{kind}");
        assert!(patient.status().next_try.is_some());
        for number in 0..there.min(3) {
            patient.remove(&name(&format!("p/{number:04}"))).await.expect("removed");
        }
        patient.try_now();
        waiting
            .await
            .expect("ended")
            .unwrap_or_else(|error| assert_eq!(error.kind(), Kind::Exists, "{error}"));
        let found = patient.get(&name("p/late"), size as u64).await.expect("it is there");
        assert!(found == bytes(1, size), "{kind}");
        for number in there.min(3)..there {
            let found =
                patient.get(&name(&format!("p/{number:04}")), size as u64).await.expect("it is there");
            assert!(found == bytes(number, size), "{kind}: what was there before is whole");
        }
    }
}

/// What each request says to a store that is wrong.
async fn says(store: &Arc<dyn Store>) -> Vec<StoreError> {
    let one = name("v/id");
    vec![
        store.create(&one, "x".into()).await.expect_err("create"),
        store.get(&one, 10).await.expect_err("get"),
        store.get_range(&one, 0..1).await.expect_err("get"),
        store.list(&under("v/"), None, 10).await.expect_err("list"),
        store.remove(&one).await.expect_err("remove"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs versitygw and MinIO"]
async fn what_is_wrong_is_said() {
    for kind in S3 {
        let server = Server::s3(kind);
        let (bucket, parameters) = server.url().split_once('?').expect("it has parameters");
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        let endpoint = format!("{bucket}?endpoint=http://{nobody}");
        for (what, url, around, kind, words) in [
            (
                "secret",
                server.url(),
                server.but(&[("AWS_SECRET_ACCESS_KEY", "comb-wrong-secret")]),
                Kind::Denied,
                &["check the key", "SignatureDoesNotMatch"][..],
            ),
            (
                "key",
                server.url(),
                server.but(&[("AWS_ACCESS_KEY_ID", "nobody")]),
                Kind::Denied,
                &["check the key"],
            ),
            (
                "bucket",
                &format!("s3://nothing-here?{parameters}"),
                server.around(),
                Kind::Refused,
                &["no such bucket", "nothing-here", "NoSuchBucket"],
            ),
            (
                "endpoint",
                &endpoint,
                server.around(),
                Kind::Unreachable,
                &["onnection refused", &nobody.to_string()],
            ),
        ] {
            for error in says(&store(url, &around).await).await {
                let text = error.to_string();
                println!("{text}");
                assert_eq!(error.kind(), kind, "wrong {what}: {text}");
                assert!(text.contains("v/"), "{text}");
                for words in words {
                    assert!(text.contains(words), "{words}: {text}");
                }
                assert!(!text.contains("-secret"), "{text}");
            }
        }
        // Without credentials nobody is asked, but for the service of a cloud, which is not here.
        let nowhere = format!("http://{nobody}");
        let around = Surroundings::new(
            [("AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(), nowhere)],
            Some("/nonexistent".into()),
        );
        for error in says(&store(server.url(), &around).await).await {
            let text = error.to_string();
            assert_eq!(error.kind(), Kind::Denied, "{text}");
            for words in ["AWS_ACCESS_KEY_ID", "/nonexistent/.aws/credentials", "aws configure"] {
                assert!(text.contains(words), "{words}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Apache"]
async fn webdav_conforms() {
    for kind in WEBDAV {
        let server = Server::start("webdav", kind, &[]);
        let home = home(&server, "comb-test-secret");
        let around = Surroundings::new([], Some(home.path().to_owned()));
        let all = store(server.url(), &around).await;
        conformance::run(all.clone(), Prefix::all()).await;
        assert_eq!(probe(all, 1).await, Ok(Probe { unfit: Some(Unfit::Kind) }), "{kind}");
        let patient = Patient::new(store(server.url(), &around).await, 1);
        conformance::run(Arc::new(patient), under("v/00/")).await;
    }
}

const WEBDAV: [&str; 2] = ["apache", "rclone"];

/// A home with a `.netrc`.
fn home(server: &Server, password: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let login = &server.said["COMB_TEST_LOGIN"];
    let text = format!("machine 127.0.0.1 login {login} password {password}\n");
    std::fs::write(home.path().join(".netrc"), text).expect("written");
    home
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Apache"]
async fn a_torn_upload_to_webdav_is_mended() {
    for kind in WEBDAV {
        let server = Server::start("webdav", kind, &[]);
        let home = home(&server, "comb-test-secret");
        let store = store(server.url(), &Surroundings::new([], Some(home.path().to_owned()))).await;
        store.create(&name("v/p"), "half".into()).await.expect("created");
        store.create(&name("v/p"), "the whole".into()).await.expect("mended");
        assert_eq!(store.get(&name("v/p"), 100).await.expect("there"), "the whole");
        let again = store.create(&name("v/p"), "the other".into()).await.expect_err("it is there");
        assert_eq!(again.kind(), Kind::Exists, "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Apache"]
async fn what_is_wrong_with_webdav_is_said() {
    for kind in WEBDAV {
        let server = Server::start("webdav", kind, &[]);
        let right = home(&server, "comb-test-secret");
        let wrong = home(&server, "comb-wrong-secret");
        let empty = tempfile::tempdir().expect("a folder");
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        let in_netrc = empty.path().join(".netrc").display().to_string();
        for (what, url, home, kind, words) in [
            ("login", server.url(), &empty, Kind::Denied, &["wants a login", &in_netrc][..]),
            ("password", server.url(), &wrong, Kind::Denied, &["the login is wrong", ".netrc"]),
            ("folder", &format!("{}none", server.url()), &right, Kind::Refused, &["is not there: make it"]),
            ("host", &format!("http://{nobody}/"), &right, Kind::Unreachable, &["onnection refused"]),
        ] {
            let store = store(url, &Surroundings::new([], Some(home.path().to_owned()))).await;
            for error in says(&store).await {
                let text = error.to_string();
                println!("{text}");
                assert_eq!(error.kind(), kind, "wrong {what}: {text}");
                assert!(text.contains("v/"), "{text}");
                for words in words {
                    assert!(text.contains(words), "{words}: {text}");
                }
                assert!(!text.contains("-secret"), "{text}");
            }
        }
    }
}
