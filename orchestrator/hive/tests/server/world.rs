//! A hive that serves, people with tokens, devices that sign. Only this file knows how requests look.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use fs_format::ring::{Argon, RingHeader, ring_hash};
use fs_format::signature::signed_digest;
use fs_format::{AccountId, RingNumber};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use orchestrator_api::code::JoinCode;
use orchestrator_api::ids::{AppId, DeviceId};
use orchestrator_api::package::{Authorization, BodyHeader, PACKAGE_CONTEXT};
use orchestrator_api::proof::{self, PROOF_CONTEXT, RING_CONTEXT};
use orchestrator_api::release::RELEASE_CONTEXT;
use orchestrator_api::request::{
    Answer, DEVICE_CONTEXT, DeviceHeader, JoinHeader, NOBODY, Request, parse_signature,
};
use orchestrator_hive::{Options, Server};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An answer, read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What it is, if it is what was expected.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The code of an error.
    #[track_caller]
    pub fn fails(self, status: u16, code: &str) -> Value {
        let json = self.is(status);
        assert_eq!(json["error"]["code"], code, "{json}");
        json
    }
}

/// A connection that is kept.
pub struct Line {
    to: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, open: None }
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Reply {
        for _ in 0..2 {
            if self.open.as_ref().is_none_or(|open| open.is_closed()) {
                let stream = TcpStream::connect(self.to).await.expect("the hive listens");
                let (open, connection) = handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
                tokio::spawn(connection);
                self.open = Some(open);
            }
            let Some(open) = &mut self.open else { continue };
            let mut request = hyper::Request::builder().method(method).uri(path).header("host", "hive");
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("is a request");
            if open.ready().await.is_err() {
                self.open = None;
                continue;
            }
            let Ok(response) = open.send_request(request).await else {
                self.open = None;
                continue;
            };
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.into_body().collect().await.expect("the answer arrives").to_bytes();
            return Reply { status, headers, body };
        }
        panic!("the hive does not answer {method} {path}");
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

pub fn fresh() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Bytes as they stand in JSON.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An id that nobody has.
pub fn uuid() -> String {
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).expect("there is chance");
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    orchestrator_api::text::Uuid(id).to_string()
}

/// A hive that serves until it is dropped or stopped.
pub struct World {
    pub address: SocketAddr,
    pub key: [u8; 32],
    pub setup_code: Option<String>,
    pub options: Options,
    stop: Option<oneshot::Sender<()>>,
    serves: Option<JoinHandle<()>>,
    _folder: std::sync::Arc<tempfile::TempDir>,
}

/// The databases that tests run on: a new one of each kind.
pub async fn databases() -> Vec<(String, std::sync::Arc<tempfile::TempDir>)> {
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("there is a disk"));
    let mut all = vec![(format!("sqlite:{}", folder.path().join("hive.db").display()), folder.clone())];
    if let Ok(server) = std::env::var("COMB_TEST_POSTGRES") {
        all.push((postgres(&server).await, folder));
    }
    all
}

async fn postgres(server: &str) -> String {
    let (client, connection) =
        tokio_postgres::connect(server, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    let name = format!("comb_{}_{}", std::process::id(), fresh());
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database is made");
    let (front, options) = server.split_once('?').map_or((server, ""), |(front, options)| (front, options));
    let base = front.rsplit_once('/').map_or(front, |(base, _)| base);
    format!("{base}/{name}?{options}").trim_end_matches('?').to_owned()
}

impl World {
    pub async fn on(database: &str, folder: std::sync::Arc<tempfile::TempDir>) -> World {
        let listen = "127.0.0.1:0".parse().expect("is an address");
        Self::with(Options::new(database, listen), folder).await
    }

    pub async fn with(options: Options, folder: std::sync::Arc<tempfile::TempDir>) -> World {
        let server = Server::begin(options.clone()).await.expect("a hive begins");
        let (address, key) = (server.address().expect("it listens"), server.key());
        let setup_code = server.setup_code().map(str::to_owned);
        let (stop, wait) = oneshot::channel();
        let serves = tokio::spawn(async move {
            let wait = async move {
                let _ = wait.await;
            };
            server.serve(wait).await.expect("it served");
        });
        World { address, key, setup_code, options, stop: Some(stop), serves: Some(serves), _folder: folder }
    }

    /// A new hive on SQLite.
    pub async fn new() -> World {
        let (database, folder) = databases().await.remove(0);
        Self::on(&database, folder).await
    }

    /// Ends it, and begins another one on the same database.
    pub async fn again(mut self) -> World {
        let folder = self._folder.clone();
        let options = self.options.clone();
        self.end().await;
        Self::with(options, folder).await
    }

    pub async fn end(&mut self) {
        drop(self.stop.take());
        if let Some(serves) = self.serves.take() {
            serves.await.expect("it ends");
        }
    }

    pub fn line(&self) -> Line {
        Line::new(self.address)
    }

    /// Sets the hive up; its owner.
    pub async fn set_up(&self) -> Person {
        let body = json!({
            "setup_code": self.setup_code, "account": "home", "name": "ada", "password": "a long password"
        });
        let made = self.nobody("POST", "/v1/setup", &body).await.is(200);
        self.person(made["token"].as_str().expect("has a token"))
    }

    pub fn person(&self, token: &str) -> Person {
        Person { to: self.address, token: token.to_owned() }
    }

    pub async fn nobody(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.line().send(method, path, &[], &serde_json::to_vec(body).expect("is JSON")).await
    }
}

/// A hive in a process of its own, which can be killed.
pub struct Process {
    pub address: SocketAddr,
    pub key: [u8; 32],
    pub setup_code: Option<String>,
    child: std::process::Child,
}

/// How long a device waits that was told to slow down.
const PAUSE: Duration = Duration::from_millis(200);
/// Where such a process finds its database.
const DATABASE: &str = "COMB_TEST_HIVE_DATABASE";

impl Process {
    /// Begins one: this very program, told to be a hive.
    pub fn begin(database: &str) -> Self {
        use std::io::BufRead;
        let mut child = std::process::Command::new(std::env::current_exe().expect("a test is a program"))
            .args(["world::a_hive_of_its_own", "--exact", "--ignored", "--nocapture"])
            .env(DATABASE, database)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it begins");
        let out = std::io::BufReader::new(child.stdout.take().expect("is piped"));
        let mut lines = out.lines().map_while(Result::ok);
        let said = lines.find_map(|line| {
            let (_, said) = line.split_once("hive ")?;
            let mut words = said.split(' ').map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        });
        let (address, key, code) = said.expect("it says where it listens");
        // What tests are run by says more after a minute, and ends if nobody listens.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.parse().expect("is an address"),
            key: key.parse::<orchestrator_api::text::Hex<32>>().expect("is a key").0,
            setup_code: Some(code).filter(|code| code != "-"),
            child,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As a world of which only the addresses are used.
    pub fn world(&self, options: Options, folder: std::sync::Arc<tempfile::TempDir>) -> World {
        World {
            address: self.address,
            key: self.key,
            setup_code: self.setup_code.clone(),
            options,
            stop: None,
            serves: None,
            _folder: folder,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is the other process of tests that need one"]
async fn a_hive_of_its_own() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let local = "127.0.0.1".parse().expect("is an address");
    let mut options = Options::new(database, SocketAddr::new(local, 0));
    options.proxies = vec![local];
    let server = Server::begin(options).await.expect("a hive begins");
    let (address, key) = (server.address().expect("it listens"), hex(&server.key()));
    println!("hive {address} {key} {} ", server.setup_code().unwrap_or("-"));
    // Until it is killed, or nobody is left who began it.
    let parent = std::os::unix::process::parent_id();
    let left = async move {
        while std::os::unix::process::parent_id() == parent {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    server.serve(left).await.expect("it served");
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Person {
    to: SocketAddr,
    pub token: String,
}

impl Person {
    pub async fn ask(&self, method: &str, path: &str, body: &Value, more: &[(&str, String)]) -> Reply {
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        if method == "POST" && !more.iter().any(|(name, _)| *name == "idempotency-key") {
            headers.push(("idempotency-key", format!("k{}", fresh())));
        }
        headers.extend(more.iter().cloned());
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).expect("is JSON") };
        Line::new(self.to).send(method, path, &headers, &bytes).await
    }

    /// Follows what the hive tells as it happens.
    pub async fn follow(&self, path: &str, last: Option<&str>) -> Events {
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        headers.extend(last.map(|last| ("last-event-id", last.to_owned())));
        Events::follow(self.to, path, &headers).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null, &[]).await.is(200)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, body, &[]).await
    }

    /// Puts a first ring of this owner.
    pub async fn ring(&self, owner: &Owner) {
        self.put_ring(owner, 1).await.is(201);
    }

    /// Puts a version of this owner's ring.
    pub async fn put_ring(&self, owner: &Owner, number: u64) -> Reply {
        let ring = owner.ring(number);
        let headers = [("authorization", format!("Bearer {}", self.token))];
        Line::new(self.to).send("PUT", &owner.ring_path(number, &ring), &headers, &ring).await
    }

    /// Posts a package for an app of one volume.
    pub async fn package(&self, owner: &Owner, app: &str, name: &str, revision: u64) -> Reply {
        self.post("/v1/packages", &owner.package(app, name, revision)).await
    }

    /// A device that joined, said hello and reported.
    pub async fn device(&self, world: &World, name: &str) -> Machine {
        let made = self.post("/v1/device-codes", &json!({"name": name})).await.is(200);
        let code = JoinCode::parse(made["code"].as_str().expect("has a code")).expect("is a code");
        let mut machine = Machine::new(world);
        machine.join(&code, name).await.is(201);
        machine.hello().await.is(200);
        machine.report().await.is(200);
        machine
    }

    /// Waits until an operation ended.
    pub async fn wait(&self, operation: &str, for_s: u64) -> Value {
        let until = Instant::now() + Duration::from_secs(for_s);
        loop {
            let found = self.get(&format!("/v1/operations/{operation}")).await;
            if found["state"] != "running" {
                return found;
            }
            assert!(Instant::now() < until, "{found}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who has a ring, and signs packages.
pub struct Owner {
    pub key: SigningKey,
    pub account: [u8; 16],
}

impl Owner {
    pub fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]), account: [seed; 16] }
    }

    /// A ring that nobody can open, which a hive cannot tell.
    pub fn ring(&self, number: u64) -> Vec<u8> {
        let header = RingHeader {
            account: AccountId(self.account),
            number: RingNumber(number),
            argon: Argon::MIN,
            passphrase_salt: [1; 32],
            by_passphrase: [2; 48],
            by_kit: [3; 48],
            salt: [4; 32],
        };
        let mut object = header.encode(4096).to_vec();
        object.extend_from_slice(&[7; 4096 + 16]);
        let hash = ring_hash(&object);
        object.extend_from_slice(&hash);
        object
    }

    /// Where a version of the ring goes, with the owner's signature.
    pub fn ring_path(&self, number: u64, ring: &[u8]) -> String {
        let message = proof::of_ring(&self.account, number, ring);
        let signature = self.key.sign(&signed_digest(RING_CONTEXT, &message)).to_bytes();
        let owner = hex(&self.key.verifying_key().to_bytes());
        format!("/v1/ring/{number}?owner={owner}&signature={}", hex(&signature))
    }

    /// What a device says that has the ring open.
    pub fn proof(&self, hive: &[u8; 32], device: &[u8; 16]) -> String {
        let message = proof::of_device(hive, &self.account, device);
        hex(&self.key.sign(&signed_digest(PROOF_CONTEXT, &message)).to_bytes())
    }

    pub fn package(&self, app: &str, name: &str, revision: u64) -> Value {
        self.package_with(app, name, revision, &json!({}))
    }

    /// A package of which some fields are other ones.
    pub fn package_with(&self, app: &str, name: &str, revision: u64, more: &Value) -> Value {
        let mut body = BodyHeader { account: AccountId(self.account), salt: [9; 32] }.encode().to_vec();
        body.extend_from_slice(&[5; 4096 + 16]);
        let mut text = json!({
            "comb": "package", "format": 1, "account": hex(&self.account), "app": app, "name": name,
            "revision": revision, "version": "1", "domain": null, "body": blake3::hash(&body).to_hex().as_str(),
            "services": [{"name": "web", "image": "nginx", "digest": format!("sha256:{}", "a".repeat(64)), "pull": true}],
            "volumes": [{"name": "data", "link": false}], "ports": [], "actions": [], "health_seconds": 60,
            "permissions": [], "devices": "all", "expires": null, "author": null, "made": "2026-11-22T08:00:00.000Z"
        });
        for (name, value) in more.as_object().expect("is an object") {
            text[name] = value.clone();
        }
        let bytes = serde_json::to_vec(&text).expect("is JSON");
        Authorization::parse(&bytes).expect("is a package");
        let signature = self.key.sign(&signed_digest(PACKAGE_CONTEXT, &bytes)).to_bytes();
        json!({
            "authorization": STANDARD.encode(&bytes), "signature": STANDARD.encode(signature),
            "body": STANDARD.encode(&body)
        })
    }
}

impl Owner {
    /// A release of the device's program, signed; for one processor.
    pub fn release(&self, number: u64, program: &[u8]) -> Value {
        let text = json!({
            "comb": "release", "format": 1, "account": hex(&self.account), "number": number,
            "version": format!("0.{number}.0"),
            "binaries": [{"arch": "x86_64", "blake3": blake3::hash(program).to_hex().as_str(), "bytes": program.len()}]
        });
        let bytes = serde_json::to_vec(&text).expect("is JSON");
        let signature = self.key.sign(&signed_digest(RELEASE_CONTEXT, &bytes)).to_bytes();
        json!({"release": STANDARD.encode(&bytes), "signature": STANDARD.encode(signature)})
    }
}

/// Server-sent events, as they come.
pub struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    pub async fn follow(to: SocketAddr, path: &str, headers: &[(&str, String)]) -> Self {
        let stream = TcpStream::connect(to).await.expect("the hive listens");
        let (mut open, connection) = handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().method("GET").uri(path).header("host", "hive");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("is a request");
        let response = open.send_request(request).await.expect("it answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Waits until it ends, as the hive must let it.
    pub async fn ends(mut self, within: Duration) {
        let rest = async { while let Some(Ok(_)) = self.body.frame().await {} };
        tokio::time::timeout(within, rest).await.expect("it ends");
    }

    /// The next one that is no comment: its kind, id and data.
    pub async fn next(&mut self) -> (String, String, String) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let found = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    found.unwrap_or_default().to_owned()
                };
                if !field("event").is_empty() {
                    return (field("event"), field("id"), field("data"));
                }
                continue;
            }
            let frame = tokio::time::timeout(Duration::from_secs(15), self.body.frame()).await;
            let frame = frame.expect("an event comes").expect("the stream goes on").expect("it can be read");
            let bytes = frame.into_data().expect("is data");
            self.text.push_str(std::str::from_utf8(&bytes).expect("is text"));
        }
    }

    /// The next one that says that such a thing changed; its id and the thing's.
    pub async fn changed(&mut self, kind: &str) -> (String, String) {
        loop {
            let (event, id, data) = self.next().await;
            assert_eq!(event, "changed", "{data}");
            let data: Value = serde_json::from_str(&data).expect("is JSON");
            if data["kind"] == kind {
                return (id, data["id"].as_str().expect("has an id").to_owned());
            }
        }
    }
}

/// A device, as far as it speaks.
pub struct Machine {
    pub hive: [u8; 32],
    pub key: SigningKey,
    pub id: [u8; 16],
    pub name: String,
    session: [u8; 16],
    hello: u64,
    run: String,
    number: u64,
    report: u64,
    pub have: u64,
    pub features: Value,
    /// Its apps, as it reports them.
    pub apps: Vec<Value>,
    pub renew: Vec<Value>,
    pub docker: &'static str,
    /// How stores answer it.
    pub stores: Vec<Value>,
    /// Whether it takes releases by itself, and which it has.
    pub auto_update: bool,
    pub update: Value,
    /// What it says of taking apps from the hive.
    pub accepts_authoring: bool,
    /// Whether nobody opened its ring yet.
    pub locked: bool,
    /// Whose ring it has open: without it, it proves nothing.
    pub owner: Option<Owner>,
    /// The highest incarnation that it says it saw.
    pub incarnation: u64,
    pub free_bytes: u64,
    /// What it says of its machine.
    pub load: Value,
    pub line: Line,
    pub hello_apps: Vec<Value>,
    /// The address that a proxy tells of it.
    pub forwarded: Option<String>,
}

impl Machine {
    pub fn new(world: &World) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("there is chance");
        Self {
            hive: world.key,
            key: SigningKey::from_bytes(&seed),
            id: NOBODY,
            name: String::new(),
            session: NOBODY,
            hello: 0,
            run: hex(&seed[..16]),
            number: 0,
            report: 0,
            have: 0,
            features: json!(["move", "auto"]),
            apps: Vec::new(),
            renew: Vec::new(),
            docker: "ok",
            stores: Vec::new(),
            auto_update: false,
            accepts_authoring: true,
            update: Value::Null,
            locked: false,
            owner: Some(Owner::new(1)),
            incarnation: 1,
            free_bytes: 1 << 40,
            load: json!({"cpu_percent": 1, "memory_bytes": 8, "memory_free_bytes": 4, "load_1m": 1}),
            line: world.line(),
            hello_apps: Vec::new(),
            forwarded: None,
        }
    }

    pub fn uuid(&self) -> String {
        orchestrator_api::text::Uuid(self.id).to_string()
    }

    /// The id of an app that it makes when it is told to.
    pub fn made(&self, command: &Value) -> String {
        let seed = command["seed"].as_str().expect("has a seed").parse::<orchestrator_api::text::Hex<16>>();
        AppId::made(DeviceId(self.id), &seed.expect("is hex").0).to_string()
    }

    /// A pseudonym of its own in each volume.
    pub fn writer(&self) -> String {
        hex(&self.id)
    }

    /// Signs a request, sends it, and checks the answer's signature.
    pub async fn signed(
        &mut self,
        session: [u8; 16],
        number: u64,
        method: &str,
        path: &str,
        body: &[u8],
        join: Option<&JoinCode>,
    ) -> Reply {
        let request =
            Request { hive: self.hive, session, device: self.id, number, method, path_and_query: path, body };
        let bytes = request.bytes();
        let signature = self.key.sign(&signed_digest(DEVICE_CONTEXT, &bytes)).to_bytes();
        let header = DeviceHeader { device: self.id, number, signature };
        let mut headers = vec![("authorization", header.show())];
        if let Some(code) = join {
            headers.push(("comb-join", JoinHeader { code: code.id(), mac: request.mac(&code.key()) }.show()));
        }
        if let Some(address) = &self.forwarded {
            headers.push(("x-forwarded-for", address.clone()));
        }
        let reply = self.line.send(method, path, &headers, body).await;
        let told = reply.headers.get("comb-hive").and_then(|value| value.to_str().ok());
        let told = parse_signature(told.expect("a device's answer is signed")).expect("is a signature");
        let answer = Answer { hive: self.hive, request: signature, status: reply.status, body: &reply.body };
        assert!(answer.is_signed(&told), "the hive signed it");
        reply
    }

    pub async fn join(&mut self, code: &JoinCode, name: &str) -> Reply {
        let body = json!({
            "identity": hex(&self.key.verifying_key().to_bytes()), "name": name, "version": "0.1.0",
            "arch": "x86_64", "features": self.features
        });
        self.id = NOBODY;
        let body = serde_json::to_vec(&body).expect("is JSON");
        let reply = self.signed(NOBODY, 0, "POST", "/v1/device/join", &body, Some(code)).await;
        if let Some(id) = reply.json()["device"].as_str() {
            self.id = id.parse::<orchestrator_api::text::Uuid>().expect("is an id").0;
            self.name = name.to_owned();
        }
        reply
    }

    pub async fn hello(&mut self) -> Reply {
        self.hello += 1;
        self.hello_again().await
    }

    pub async fn hello_again(&mut self) -> Reply {
        self.say_hello(&json!({})).await
    }

    /// The next hello, with some fields that are other ones.
    pub async fn hello_with(&mut self, more: &Value) -> Reply {
        self.hello += 1;
        self.say_hello(more).await
    }

    async fn say_hello(&mut self, more: &Value) -> Reply {
        let proof =
            self.owner.as_ref().filter(|_| !self.locked).map(|owner| owner.proof(&self.hive, &self.id));
        let mut body = json!({
            "hello": self.hello, "run": self.run, "incarnation": self.incarnation, "version": "0.1.0", "arch": "x86_64",
            "features": self.features, "locked": self.locked, "auto_update": self.auto_update,
            "accepts_authoring": self.accepts_authoring,
            "commands_have": self.have, "apps": self.hello_apps, "proof": proof
        });
        for (name, value) in more.as_object().expect("is an object") {
            body[name] = value.clone();
        }
        let body = serde_json::to_vec(&body).expect("is JSON");
        let reply = self.signed(NOBODY, self.hello, "POST", "/v1/device/hello", &body, None).await;
        if let Some(session) = reply.json()["session"].as_str() {
            self.session = session.parse::<orchestrator_api::text::Hex<16>>().expect("is a session").0;
            self.number = 0;
            self.report = 0;
        }
        reply
    }

    /// Another run of the process, or another machine with the same disk.
    pub fn copy(&self, world: &World) -> Machine {
        let mut copy = Machine::new(world);
        (copy.key, copy.id, copy.hello) = (self.key.clone(), self.id, self.hello);
        copy
    }

    /// The same device in the same session, on another connection.
    pub fn twin(&self, world: &World) -> Machine {
        Machine { session: self.session, number: self.number + 100, ..self.copy(world) }
    }

    /// Asks again when it is told to slow down, as a device does: a test is faster than any of them.
    pub async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Reply {
        loop {
            self.number += 1;
            let reply = self.signed(self.session, self.number, method, path, body, None).await;
            if reply.status != 429 {
                return reply;
            }
            let wait = reply.json()["error"]["retry_after_ms"].as_u64().expect("it says for how long");
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    pub fn report_json(&self, number: u64) -> Value {
        json!({
            "number": number, "boottime_ms": 1, "version": "0.1.0", "update": self.update, "commands_have": self.have,
            "load": self.load,
            "disks": [{"for": "state", "bytes": 1u64 << 41, "free_bytes": self.free_bytes}],
            "docker": self.docker, "stores": self.stores, "renew": self.renew, "apps": self.apps
        })
    }

    pub async fn report(&mut self) -> Reply {
        self.number = self.number.max(self.report) + 1;
        self.report = self.number;
        let body = serde_json::to_vec(&self.report_json(self.report)).expect("is JSON");
        self.signed(self.session, self.report, "POST", "/v1/device/report", &body, None).await
    }

    /// Reports, and waits its turn where the hive has heard too much of it.
    pub async fn reports(&mut self) {
        for _ in 0..100 {
            let reply = self.report().await;
            if reply.status != 429 {
                reply.is(200);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("it is never its turn");
    }

    /// The next commands.
    pub async fn commands(&mut self) -> Vec<Value> {
        let path = format!("/v1/device/commands?have={}", self.have);
        let mut reply = self.ask("GET", &path, b"").await;
        while reply.status == 429 {
            tokio::time::sleep(PAUSE).await;
            reply = self.ask("GET", &path, b"").await;
        }
        let answer = reply.is(200);
        let commands = answer["commands"].as_array().cloned().unwrap_or_default();
        for command in &commands {
            self.have = self.have.max(command["number"].as_u64().unwrap_or(0));
        }
        commands
    }

    /// What it is asked to do now; that it asks is no report.
    pub async fn commands_at_once(&mut self) -> Vec<Value> {
        tokio::time::timeout(Duration::from_millis(600), self.commands()).await.unwrap_or_default()
    }

    /// The next command, which must be this. The device reports while it waits.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, what: &'a str) -> impl Future<Output = Value> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let until = Instant::now() + Duration::from_secs(60);
            while Instant::now() < until {
                self.reports().await;
                let waited = tokio::time::timeout(Duration::from_secs(2), self.commands()).await;
                let mut commands = waited.unwrap_or_default();
                commands.retain(|command| command["do"] != "ring");
                if !commands.is_empty() {
                    assert_eq!(commands.len(), 1, "{at}: {commands:?}");
                    assert_eq!(commands[0]["do"], what, "{at}: {commands:?}");
                    return commands.remove(0);
                }
            }
            panic!("{at}: there is no {what}");
        }
    }

    /// Reports, and does what it is told, as a device does it where all goes well; the verbs of what it did.
    pub async fn obey(&mut self) -> Vec<String> {
        self.reports().await;
        let mut done = Vec::new();
        for command in self.commands_at_once().await {
            let verb = command["do"].as_str().expect("has a verb").to_owned();
            let data = self.did(&verb, &command);
            let answer = self.answer(&command, "done", None, data).await;
            // It may be taken back meanwhile, where the hive does something else instead.
            if answer.status != 404 {
                answer.is(204);
                done.push(verb);
            }
        }
        if !done.is_empty() {
            self.reports().await;
        }
        done
    }

    fn did(&mut self, verb: &str, command: &Value) -> Value {
        let app = command["app"].as_str().unwrap_or_default().to_owned();
        let term = command["term"].clone();
        let writers = json!([{"volume": VOLUME, "writer": self.writer()}]);
        let mine = self.apps.iter().find(|one| one["app"] == app.as_str()).cloned().unwrap_or_default();
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let (epoch, seq) = (number(&mine["volumes"][0]["epoch"]), number(&mine["volumes"][0]["seq"]) + 1);
        match verb {
            "prepare" => json!({"writers": writers}),
            "start" => {
                let expect = &command["volumes"][0]["expect"];
                let head = if expect["exactly"].is_null() { &expect["since"] } else { &expect["exactly"] };
                let (epoch, seq) = (number(&head["epoch"]) + 1, number(&head["seq"]) + 1);
                self.has(&app, &term, "running", None, Some((epoch, seq)));
                let cuts = json!([cut(epoch, seq, (seq > 1).then_some(seq - 1))]);
                json!({"cuts": cuts, "writers": writers, "started": true, "healthy": true})
            }
            "hand_over" => {
                self.has(&app, &term, "stopped", Some("hand_over"), Some((epoch, seq)));
                let head = json!({"volume": VOLUME, "epoch": epoch, "seq": seq, "manifest": manifest(seq)});
                json!({"heads": [head], "started": true, "healthy": true})
            }
            "stop" => {
                self.has(&app, &term, "stopped", Some("ordered"), Some((epoch, seq)));
                json!({})
            }
            _ => json!({}),
        }
    }

    pub async fn answer(&mut self, command: &Value, state: &str, code: Option<&str>, data: Value) -> Reply {
        let number = &command["number"];
        let body = json!({"number": number, "state": state, "code": code, "data": data, "ended_age_ms": 0});
        let body = serde_json::to_vec(&body).expect("is JSON");
        self.ask("POST", &format!("/v1/device/commands/{number}/result"), &body).await
    }

    /// How the only app is.
    pub fn has(
        &mut self,
        app: &str,
        term: &Value,
        phase: &str,
        why: Option<&str>,
        volume: Option<(u64, u64)>,
    ) {
        let volumes: Vec<Value> = volume
            .map(|(epoch, seq)| {
                json!({
                    "volume": VOLUME, "state": if phase == "running" { "mounted" } else { "closed" },
                    "epoch": epoch, "seq": seq, "manifest": manifest(seq), "writer": self.writer(),
                    "replicated_seq": seq, "replicated_age_ms": 4000, "backlog_bytes": 512, "backlog_age_ms": 100,
                    "bytes": 4096, "files": 3, "stores_behind": 0
                })
            })
            .into_iter()
            .collect();
        self.apps.retain(|one| one["app"] != app);
        self.apps.push(json!({
            "app": app, "term": term, "generation": 1, "revision": 1, "phase": phase, "why": why,
            "phase_age_ms": 1, "health": "healthy", "operation": null, "problem": null, "services": [], "ports": [],
            "address": null, "missing_bytes": null, "volumes": volumes, "branches": []
        }));
        self.renew.retain(|one| one["app"] != app);
        if phase == "running" {
            self.renew.push(json!({"app": app, "term": term}));
        }
    }
}

pub const VOLUME: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

pub fn manifest(seq: u64) -> String {
    format!("{seq:064x}")
}

/// A cut of the only volume.
pub fn cut(epoch: u64, seq: u64, parent: Option<u64>) -> Value {
    json!({
        "name": "data", "volume": VOLUME, "epoch": epoch, "seq": seq, "manifest": manifest(seq),
        "parent": parent.map(manifest)
    })
}
