//! A device's daemon without a filesystem, an engine and a hive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_crypto::{DeviceSecret, EntryKey, Identity, Passphrase, Ring, RingEntry, VolumeKey};
use fs_format::Timestamp;
use orchestrator_api::ids::{AppId, DeviceId, ManifestId, Seq, Term, VolumeId};
use orchestrator_api::package::{Authorization, Body};
use orchestrator_api::placement::{self, Expect, Phase, Problem};
use orchestrator_api::request::{Answer, DeviceHeader, HIVE_CONTEXT, show_signature};
use orchestrator_api::text::{Hex, Uuid};
use orchestrator_api::wire::HIVE_HEADER;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::app::package;
use crate::daemon::files::{AppFile, AppVolume, Folder, HiveFile};
use crate::daemon::{Setup, World};
use crate::doors::docker::{LABEL_APP, LABEL_TERM};
use crate::doors::past::{
    Back, Compared, Done, Looked, Moment, Past, Place, Reading, Restored, Seen, Unseen, Version, Why,
};
use crate::doors::ring::Rings;
use crate::doors::volumes::{Branch, Seal, StoreState, Unclaimed, VolumeState, Volumes, Which};
use crate::record::Record;
use crate::trouble::{Result, Trouble};
use crate::{Boottime, Cut, Event, Look};

pub const APP: AppId = AppId([7, 7, 7, 7, 7, 7, 0x47, 7, 0x87, 7, 7, 7, 7, 7, 7, 7]);
pub const OTHER: AppId = AppId([8, 8, 8, 8, 8, 8, 0x48, 8, 0x88, 8, 8, 8, 8, 8, 8, 8]);
const DEVICE: DeviceId = DeviceId([9, 9, 9, 9, 9, 9, 0x49, 9, 0x89, 9, 9, 9, 9, 9, 9, 9]);
const SECRET: [u8; 32] = [4; 32];

pub fn passphrase() -> Passphrase {
    Passphrase::new("of a test, and long enough").expect("a passphrase")
}

pub fn entry(key: &VolumeKey) -> RingEntry {
    let copy = VolumeKey::from_base64(&key.to_base64()).expect("a key");
    RingEntry { volume: key.id(), key: EntryKey::Volume(copy), name: "one".to_owned(), added: Timestamp(1) }
}

pub fn seal(seq: u64, tags: &[&str]) -> Seal {
    Seal {
        seq: Seq(seq),
        manifest: ManifestId([seq as u8; 32]),
        time: format!("2026-11-22T{:02}:{:02}:{:02}Z", seq / 3_600, seq / 60 % 60, seq % 60),
        files: 1,
        bytes: 1_000,
        snapshot: (!tags.is_empty()).then(|| {
            (
                "00000000-0000-4000-8000-000000000001".to_owned(),
                tags.iter().map(|it| (*it).to_owned()).collect(),
            )
        }),
    }
}

pub fn state(name: &str, seq: u64, replicated: Option<u64>, backlog_bytes: u64) -> VolumeState {
    VolumeState {
        volume: VolumeId([0; 32]),
        name: name.to_owned(),
        head: Some(seal(seq, &[])),
        is_others: false,
        damaged: false,
        mount: None,
        arbiter: Some(StoreState {
            replicated: replicated.map(Seq),
            backlog_bytes,
            backlog_age: Duration::ZERO,
            fenced: false,
        }),
        behind: 0,
        stores: Vec::new(),
    }
}

pub fn branch(name: &str, bytes: u64) -> Branch {
    Branch { name: name.to_owned(), seals: 1, bytes, span: Duration::from_secs(1) }
}

pub struct Scene {
    pub world: Arc<World>,
    pub volumes: Arc<Fake>,
    pub inbox: UnboundedReceiver<Event>,
    pub state: PathBuf,
    folder: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Self {
        // Nobody answers there.
        Self::of("http://127.0.0.1:1", [3; 32])
    }

    /// A device of a hive that answers everything with this.
    pub async fn with_hive(answer: Value) -> Self {
        Self::with_forger(answer, None).await
    }

    /// A device of a hive that answers each request, by its first line and body, with a status and JSON.
    pub async fn with_hive_that(
        answer: impl Fn(&str, &[u8]) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        Self::with_answers(answer, None).await
    }

    /// The same with somebody in between who forges each answer.
    pub async fn with_forger(answer: Value, forged: Option<Forged>) -> Self {
        Self::with_answers(move |_, _| (200, answer.clone()), forged).await
    }

    async fn with_answers(
        answer: impl Fn(&str, &[u8]) -> (u16, Value) + Send + Sync + 'static,
        forged: Option<Forged>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("has one"));
        let key = || Identity::from_seed([8; 32]);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer_as_hive(stream, &key(), &answer, forged).await;
            }
        });
        Self::of(&url, key().public())
    }

    /// A device with these things of the past.
    pub fn with_past(past: impl Past + 'static) -> Self {
        Self::made("http://127.0.0.1:1", [3; 32], Arc::new(past))
    }

    fn of(url: &str, key: [u8; 32]) -> Self {
        Self::made(url, key, Arc::new(Nothing))
    }

    fn made(url: &str, key: [u8; 32], past: Arc<dyn Past>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        std::fs::create_dir_all(state.join("orchestrator")).expect("made");
        let volumes = Arc::new(Fake::default());
        let setup = setup(folder.path(), &volumes, past);
        let identity = || Identity::from_seed([5; 32]);
        let hive = HiveFile {
            url: url.to_owned(),
            key: Hex(key),
            device: DEVICE,
            account: Uuid([2; 16]),
            name: "box".to_owned(),
            accepts_authoring: false,
            auto_update: false,
        };
        let own = Folder::of(&state);
        own.joined(&identity(), &hive).expect("written");
        let (events, inbox) = unbounded_channel();
        let world = Arc::new(World::new(setup, own, hive, identity(), events).expect("a world"));
        Self { world, volumes, inbox, state, folder }
    }

    /// The same device after its process was killed: what it has is on the disk.
    pub fn anew(self) -> Self {
        let setup = setup(self.folder.path(), &self.volumes, Arc::new(Nothing));
        let own = Folder::of(&self.state);
        let hive = self.world.hive_file.lock().clone();
        let (events, inbox) = unbounded_channel();
        let world = World::new(setup, own, hive, Identity::from_seed([5; 32]), events).expect("a world");
        Self { world: Arc::new(world), inbox, ..self }
    }

    /// A volume's folder as the filesystem makes it, with a key.
    pub fn volume_folder(&self, key: &VolumeKey, name: &str) {
        let path = self.key_of(key);
        let folder = path.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("made");
        std::fs::write(folder.join("config"), json!({"name": name, "created": "today"}).to_string())
            .expect("written");
        std::fs::write(path, &**key.to_base64()).expect("written");
    }

    pub fn key_of(&self, key: &VolumeKey) -> PathBuf {
        self.state.join("volumes").join(key.id().to_hex()).join("key")
    }

    /// A key ring that opens here.
    pub fn ring(&self, entries: &[RingEntry]) {
        let mut ring = Ring::new(&passphrase(), Timestamp(1), &[1; 32]).expect("a ring");
        for entry in entries {
            ring.add(entry.clone()).expect("added");
        }
        let object = ring.next_version(Timestamp(2), &[2; 32]).expect("sealed");
        let secret = DeviceSecret::from_bytes(SECRET);
        for (name, bytes) in
            [("device", SECRET.to_vec()), ("ring", object), ("ring.key", ring.for_device(&secret, &[3; 32]))]
        {
            std::fs::write(self.state.join(name), bytes).expect("written");
        }
    }

    /// The app has these volumes here, stopped.
    pub fn has_volumes(&self, volumes: &[(&str, VolumeId)]) {
        let volumes =
            volumes.iter().map(|(name, id)| AppVolume { name: (*name).to_owned(), volume: Hex(id.0) });
        let file = AppFile { name: "photos".to_owned(), volumes: volumes.collect(), ..AppFile::default() };
        self.world.app(APP, |state| state.file = file);
    }

    /// The app runs.
    pub fn runs(&self) {
        self.runs_in(Term(0));
    }

    /// The app runs in a term.
    pub fn runs_in(&self, term: Term) {
        self.is_in(term, Phase::Running);
    }

    /// The app was stopped in a term.
    pub fn stops(&self, term: Term) {
        self.is_in(term, Phase::Stopped(placement::Why::Ordered));
    }

    fn is_in(&self, term: Term, phase: Phase) {
        let record = Record { term, phase, ..Record::new(APP) };
        self.world.app(APP, |state| state.record = Some(record));
    }

    /// A package of revision 1, as it came.
    pub fn package(&self, app: AppId, compose: &str) {
        self.package_until(app, compose, None);
    }

    /// The same, after this moment for no start any more.
    pub fn package_until(&self, app: AppId, compose: &str, expires: Option<&str>) {
        let ring = crate::doors::ring::open(&self.state).expect("a ring");
        let id = Uuid(app.0).to_string();
        let authorization: Authorization = serde_json::from_value(json!({
            "comb": "package", "format": 1, "account": Hex(ring.account().0), "app": id, "name": "photos", "revision": 1,
            "version": "1", "domain": null, "body": "00".repeat(32),
            "services": [{"name": "web", "image": "busybox", "digest": format!("sha256:{}", "22".repeat(32)), "pull": false}],
            "volumes": [], "ports": [], "actions": [], "health_seconds": 60, "permissions": [], "devices": "all",
            "expires": expires, "author": null, "made": "2026-11-22T08:30:00.000Z",
        }))
        .expect("an authorization");
        let body: Body = serde_json::from_value(json!({
            "app": id, "revision": 1, "compose": "compose.yaml",
            "files": [{"path": "compose.yaml", "mode": 420, "bytes": STANDARD.encode(compose)}],
            "options": [], "secrets": [], "grants": [],
        }))
        .expect("a body");
        let sealed = package::seal(authorization, &body, ring.owner(), &[5; 32]).expect("sealed");
        self.world.folder.write_package(app, 1, &sealed).expect("written");
    }

    /// An engine that answers so: a method with a path, and what was sent; none is an error of the engine.
    pub fn docker(&self, answer: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) {
        let listener = UnixListener::bind(self.folder.path().join("docker.sock")).expect("a socket");
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move { speak(stream, &*answer).await });
            }
        });
    }
}

fn setup(folder: &Path, volumes: &Arc<Fake>, past: Arc<dyn Past>) -> Setup {
    Setup {
        apps: folder.join("apps"),
        docker: folder.join("docker.sock"),
        state: folder.join("state"),
        volumes: volumes.clone(),
        past,
        rings: Arc::new(Nothing),
        version: "0.0.0".to_owned(),
        chance: || [6; 32],
        takes_updates: false,
    }
}

/// What somebody changes who stands between a device and its hive, and has not its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forged {
    /// A bit of the signature.
    Signature,
    /// A byte of the answer.
    Body,
    /// The status: a refusal is told as what was asked for.
    Status,
    /// It is the true answer to another request.
    Request,
    /// It is signed, by another key.
    Key,
    /// It is signed for the device of another hive.
    Hive,
    /// It is not signed.
    Missing,
}

/// What a hive answers to the first line of a request and its body.
type Answers = dyn Fn(&str, &[u8]) -> (u16, Value) + Send + Sync;

/// One request to a hive, and its signed answer.
async fn answer_as_hive(stream: TcpStream, hive: &Identity, answer: &Answers, forged: Option<Forged>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (mut asked, mut signature, mut length) = (String::new(), None, 0);
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end().split_once(": ") {
            Some(("authorization", header)) => {
                signature = DeviceHeader::parse(header).ok().map(|header| header.signature);
            }
            Some(("content-length", told)) => length = told.parse().expect("a number"),
            None if line.trim_end().is_empty() => break,
            None if asked.is_empty() => asked = line.trim_end().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).await.expect("all of it");
    let (told, answer) = answer(&asked, &body);
    let mut text = answer.to_string();
    let mut request = signature.expect("a device signs");
    let is = |what| forged == Some(what);
    if is(Forged::Request) {
        request[0] ^= 1;
    }
    let other = Identity::from_seed([88; 32]);
    let of = if is(Forged::Hive) { other.public() } else { hive.public() };
    let status = if is(Forged::Status) { 403 } else { told };
    let signed = Answer { hive: of, request, status, body: text.as_bytes() };
    let signer = if is(Forged::Key) { &other } else { hive };
    let mut signature = signer.sign(HIVE_CONTEXT, &signed.bytes());
    match forged {
        Some(Forged::Signature) => signature[63] ^= 1,
        Some(Forged::Body) => text = text.replacen("false", "true ", 1),
        _ => {}
    }
    let named = if is(Forged::Missing) { "x-nothing" } else { HIVE_HEADER };
    let head = format!("HTTP/1.1 {told} Told\r\n{named}: {}\r\n", show_signature(&signature));
    let date = "date: Sun, 22 Nov 2026 08:30:00 GMT\r\nconnection: close\r\n";
    let reply = format!("{head}{date}content-length: {}\r\n\r\n{text}", text.len());
    let _ = write.write_all(reply.as_bytes()).await;
}

/// One request of a connection.
async fn speak(stream: UnixStream, answer: &(dyn Fn(&str, &Value) -> Option<Value> + Send + Sync)) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.strip_prefix("content-length:") {
            Some(told) => length = told.trim().parse().expect("a number"),
            None if line.is_empty() => break,
            None if path.is_empty() => path = line,
            None => {}
        }
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).await.expect("all of it");
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let text =
        if path.contains("/version ") { Some(json!({"ApiVersion": "1.45"})) } else { answer(&path, &body) };
    let reply = match text {
        Some(_) if path.contains("/exec/") && path.contains("/start ") => {
            "HTTP/1.1 101 UPGRADED\r\ncontent-type: application/vnd.docker.raw-stream\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n".to_owned()
        }
        found => {
            let (status, text) = match found {
                Some(Value::Null) => ("204 No Content", String::new()),
                // A log is bytes.
                Some(Value::String(bytes)) if path.contains("/logs?") => ("200 OK", bytes),
                Some(json) => ("200 OK", json.to_string()),
                None => ("500 Internal Server Error", json!({"message": "no"}).to_string()),
            };
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            )
        }
    };
    let _ = write.write_all(reply.as_bytes()).await;
}

/// A list of the app's one container.
pub fn listed(term: Term) -> Value {
    json!([{"Id": "c1", "Labels": {
        LABEL_APP: APP.to_string(), LABEL_TERM: term.0.to_string(), "com.docker.compose.service": "web",
    }}])
}

/// What an engine says of that, and of what runs in it.
pub fn engine(path: &str) -> Value {
    if path.contains("/containers/c1/json") {
        return json!({"Id": "c1", "State": {"Status": "running"}});
    }
    match path.contains("/containers/c1/exec") {
        true => json!({"Id": "e1"}),
        false if path.contains("/exec/e1/json") => json!({"ID": "e1", "ExitCode": 0, "Running": false}),
        false if path.contains("/exec/e1/start") => json!({}),
        false => Value::Null,
    }
}

/// Volumes that are what a test says.
#[derive(Default)]
pub struct Fake {
    pub seen: Mutex<Told>,
}

#[derive(Default)]
pub struct Told {
    pub states: Vec<VolumeState>,
    pub branches: BTreeMap<String, Vec<Branch>>,
    pub seals: BTreeMap<String, Vec<Seal>>,
    /// Whether a store takes what it lacks.
    pub store_answers: bool,
    /// Whether no volume is here.
    pub absent: bool,
    /// Whether nobody can ask a volume for its moments.
    pub is_mute: bool,
    /// What making a volume waits for, and a moment.
    pub gate: Option<Arc<Notify>>,
    pub synced: Vec<String>,
    pub removed: Vec<String>,
    pub taken: Vec<String>,
    /// How often stores were given the credentials that the ring has.
    pub renewed: usize,
    /// Volumes that were rolled back, and to what.
    pub rolled: Vec<(String, String)>,
    /// What becomes of a rollback of a volume, where it is not done.
    pub resists: BTreeMap<String, Resists>,
    /// Whether volumes can be mounted.
    pub mounts: bool,
}

/// Why a volume does not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resists {
    /// It says no.
    Refuses,
    /// It never answers: whoever waits is ended.
    Hangs,
}

fn unasked() -> Trouble {
    Trouble::new(Problem::State, "nobody asks for that here")
}

#[async_trait]
impl Volumes for Fake {
    async fn renew_credentials(&self) -> Result<()> {
        self.seen.lock().renewed += 1;
        Ok(())
    }

    async fn create(&self, _: &str, _: Option<u64>, _: &[String]) -> Result<VolumeId> {
        let gate = self.seen.lock().gate.clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        Ok(VolumeId([1; 32]))
    }

    async fn find(&self, _: &str) -> Result<Option<VolumeId>> {
        Ok((!self.seen.lock().absent).then_some(VolumeId([1; 32])))
    }

    async fn follow(&self, _: &str, _: VolumeId, _: &[String], _: Option<Duration>) -> Result<Option<u64>> {
        Err(unasked())
    }

    async fn look(&self, _: &str) -> Result<Look> {
        Err(unasked())
    }

    async fn claim(&self, _: &str, _: &Expect, _: &[String]) -> std::result::Result<Cut, Unclaimed> {
        Err(Unclaimed::Failed(unasked()))
    }

    async fn mount(&self, _: &str, _: &Path, _: Duration, _: Option<Boottime>) -> Result<()> {
        self.seen.lock().mounts.then_some(()).ok_or_else(unasked)
    }

    async fn unmount(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn lease(&self, _: &str, _: Option<Boottime>) -> Result<()> {
        Ok(())
    }

    async fn sync(&self, name: &str, _: Option<Duration>) -> Result<()> {
        let mut told = self.seen.lock();
        told.synced.push(name.to_owned());
        if !told.store_answers {
            return Err(Trouble::new(Problem::StoreUnreachable, "it is away"));
        }
        for state in told.states.iter_mut().filter(|state| state.name == name) {
            let seq = state.head.as_ref().map(|head| head.seq);
            if let Some(store) = &mut state.arbiter {
                (store.replicated, store.backlog_bytes) = (seq, 0);
            }
        }
        Ok(())
    }

    async fn snapshot(&self, _: &str, tags: &[String], message: &str) -> Result<Seal> {
        let gate = self.seen.lock().gate.clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.seen.lock().taken.push(message.to_owned());
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        Ok(seal(1, &tags))
    }

    async fn moments(&self, name: &str, which: Which, max: usize) -> Result<Vec<Seal>> {
        let told = self.seen.lock();
        if told.is_mute {
            return Err(Trouble::new(Problem::State, "it does not answer"));
        }
        let seals = told.seals.get(name).into_iter().flatten();
        let seals = seals.filter(|seal| which == Which::All || seal.snapshot.is_some());
        Ok(seals.take(max).cloned().collect())
    }

    async fn moment(&self, name: &str, when: &str) -> Result<Option<Seal>> {
        let told = self.seen.lock();
        let mut seals = told.seals.get(name).into_iter().flatten();
        let is_it = |seal: &&Seal| {
            let tags = seal.snapshot.as_ref().map(|(_, tags)| tags.as_slice()).unwrap_or_default();
            seal.seq.0.to_string() == when || tags.iter().any(|tag| tag == when)
        };
        Ok(seals.find(is_it).cloned())
    }

    async fn rollback(&self, name: &str, when: &str) -> Result<Seal> {
        let resists = self.seen.lock().resists.get(name).copied();
        match resists {
            Some(Resists::Refuses) => return Err(Trouble::new(Problem::NoSpace, "the disk is full")),
            Some(Resists::Hangs) => std::future::pending().await,
            None => self.seen.lock().rolled.push((name.to_owned(), when.to_owned())),
        }
        Ok(seal(1, &[]))
    }

    async fn fork(&self, _: &str, _: &str, _: &[String]) -> Result<VolumeId> {
        Err(unasked())
    }

    async fn branches(&self, name: &str) -> Result<Vec<Branch>> {
        Ok(self.seen.lock().branches.get(name).cloned().unwrap_or_default())
    }

    async fn states(&self) -> Result<Vec<VolumeState>> {
        Ok(self.seen.lock().states.clone())
    }

    async fn retain(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.seen.lock().removed.push(name.to_owned());
        Ok(())
    }
}

/// Nothing of the past, and no ring that anybody changes.
struct Nothing;

fn nothing<T>() -> Seen<T> {
    Err(Unseen { why: Why::Missing, text: "nobody asks for that here".to_owned() })
}

#[async_trait]
impl Past for Nothing {
    async fn moments(&self, _: &str, _: usize) -> Seen<Vec<Moment>> {
        nothing()
    }

    async fn look(&self, _: &Place, _: u64, _: u64) -> Seen<Looked> {
        nothing()
    }

    async fn versions(&self, _: &str, _: &[u8], _: usize) -> Seen<Vec<Version>> {
        nothing()
    }

    async fn compare(&self, _: &str, _: u64, _: Option<u64>, _: u64, _: u64) -> Seen<Compared> {
        nothing()
    }

    async fn read(&self, _: &Place) -> Seen<Reading> {
        nothing()
    }

    async fn archive(&self, _: &Place) -> Seen<Reading> {
        nothing()
    }

    async fn restore(&self, _: &Place, _: Back, _: &(dyn Fn(Done) + Send + Sync)) -> Seen<Restored> {
        nothing()
    }
}

impl Rings for Nothing {
    fn unite(&self, _: &[u8]) -> Result<u64> {
        Ok(1)
    }
}
