//! A hive that does what its test says: signed answers, commands from a list.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fs_crypto::Identity;
use orchestrator_api::code::{JoinCode, Secret};
use orchestrator_api::request::{Answer, DeviceHeader, HIVE_CONTEXT, Request, show_signature};
use orchestrator_api::wire::account::Package as Sealed;
use serde_json::{Value, json};

/// How long a request for commands is held here.
const HOLD: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Inside {
    devices: BTreeMap<String, Device>,
    ring: Vec<Vec<u8>>,
    packages: BTreeMap<(String, u64), Sealed>,
    programs: BTreeMap<u64, Vec<u8>>,
    numbers: u64,
    received: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Device {
    identity: Vec<u8>,
    session: [u8; 16],
    sessions: u8,
    commands: Vec<Value>,
    results: BTreeMap<u64, Value>,
    report: Option<(Instant, Value)>,
    over: Vec<Value>,
    silent: bool,
    revoked: bool,
    hellos: Vec<Value>,
    streams: BTreeMap<String, Vec<Vec<u8>>>,
}

/// The hive.
#[derive(Clone)]
pub struct Hive {
    address: SocketAddr,
    seed: [u8; 32],
    inside: Arc<(Mutex<Inside>, Condvar)>,
}

pub const ACCOUNT: &str = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a";

impl Hive {
    pub fn start() -> Hive {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let hive = Hive { address: listener.local_addr().unwrap(), seed: [42; 32], inside: Arc::default() };
        let serving = hive.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hive = serving.clone();
                std::thread::spawn(move || hive.serve(stream));
            }
        });
        hive
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn code(&self) -> String {
        JoinCode::new(Identity::from_seed(self.seed).public(), Secret::new([7; 20])).show()
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.0.lock().unwrap()
    }

    /// Orders something of a device; returns the command's number.
    pub fn order(&self, device: &str, mut command: Value) -> u64 {
        let mut inside = self.lock();
        inside.numbers += 1;
        let number = inside.numbers;
        command["number"] = json!(number);
        // The beginning of an id names what the operation keeps.
        command["operation"] = json!(format!("{number:08x}-0b0b-4b0b-8b0b-0b0b0b0b0b0b"));
        inside.devices.get_mut(device).unwrap().commands.push(command);
        self.inside.1.notify_all();
        number
    }

    /// The result of a command.
    #[track_caller]
    pub fn result(&self, device: &str, number: u64, wait: Duration) -> Value {
        let until = Instant::now() + wait;
        loop {
            if let Some(result) = self.lock().devices[device].results.get(&number) {
                return result.clone();
            }
            let report = self.report(device);
            assert!(
                Instant::now() < until,
                "no result of command {number} within {wait:?}; last report {report:#?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn report(&self, device: &str) -> Option<Value> {
        self.lock().devices[device].report.as_ref().map(|(_, report)| report.clone())
    }

    /// What the report says of its only app.
    pub fn app(&self, device: &str) -> Value {
        self.report(device).map(|report| report["apps"][0].clone()).unwrap_or_default()
    }

    /// Waits for a report in which this holds of the only app.
    #[track_caller]
    pub fn until(&self, device: &str, wait: Duration, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + wait;
        loop {
            let app = self.app(device);
            if holds(&app) {
                return app;
            }
            assert!(Instant::now() < until, "not {what} within {wait:?}: {app:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn silence(&self, device: &str, silent: bool) {
        self.lock().devices.get_mut(device).unwrap().silent = silent;
    }

    /// Says in each answer that another device has a later term.
    pub fn over(&self, device: &str, app: &str, term: u64) {
        self.lock().devices.get_mut(device).unwrap().over = vec![json!({ "app": app, "term": term })];
    }

    pub fn put_package(&self, app: &str, revision: u64, sealed: Sealed) {
        self.lock().packages.insert((app.to_owned(), revision), sealed);
    }

    /// A package that it has, also of a device's making.
    pub fn package(&self, app: &str, revision: u64) -> Option<Sealed> {
        self.lock().packages.get(&(app.to_owned(), revision)).cloned()
    }

    /// The program that is handed out for a release.
    pub fn put_program(&self, release: u64, bytes: &[u8]) {
        self.lock().programs.insert(release, bytes.to_vec());
    }

    /// What a device said of itself, each time.
    pub fn hellos(&self, device: &str) -> Vec<Value> {
        self.lock().devices[device].hellos.clone()
    }

    /// From now on the device is refused.
    pub fn revoke(&self, device: &str) {
        self.lock().devices.get_mut(device).unwrap().revoked = true;
    }

    /// Everything that devices sent.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.lock().received.clone()
    }

    pub fn stream(&self, device: &str, id: &str) -> Vec<Vec<u8>> {
        self.lock().devices[device].streams.get(id).cloned().unwrap_or_default()
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some((method, path, headers, body)) = read(&mut stream) else { return };
        let header =
            headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
        let Some(header) = header.and_then(|header| DeviceHeader::parse(header).ok()) else { return };
        let mut all = format!("{method} {path}\n{headers:?}\n").into_bytes();
        all.extend_from_slice(&body);
        self.lock().received.push(all);
        let Some((status, answer)) = self.answer(&method, &path, &header, &body) else { return };
        let key = Identity::from_seed(self.seed);
        let signed = Answer { hive: key.public(), request: header.signature, status, body: &answer };
        let signature = show_signature(&key.sign(HIVE_CONTEXT, &signed.bytes()));
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncomb-hive: {signature}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer));
    }

    fn answer(&self, method: &str, path: &str, header: &DeviceHeader, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let told = |value: Value| Some((200, serde_json::to_vec(&value).unwrap()));
        let read = || serde_json::from_slice::<Value>(body).unwrap();
        if path == "/v1/device/join" {
            let join = read();
            let name = join["name"].as_str().unwrap().to_owned();
            let mut inside = self.lock();
            let id = format!("0d0d0d0d-0d0d-4d0d-8d0d-{:012x}", inside.devices.len() + 1);
            let identity = hex(join["identity"].as_str().unwrap());
            inside.devices.insert(id.clone(), Device { identity, ..Device::default() });
            return told(json!({
                "device": id, "account": ACCOUNT, "name": name, "ring_account": null, "owner": null, "incarnation": 1,
            }));
        }
        let id = orchestrator_api::text::Uuid(header.device).to_string();
        let mut inside = self.lock();
        let device = inside.devices.get_mut(&id)?;
        if device.silent {
            return None;
        }
        if device.revoked {
            let no = br#"{"error":{"code":"device_revoked","message":"this device was revoked"}}"#;
            return Some((403, no.to_vec()));
        }
        let hello = path == "/v1/device/hello";
        let signed = Request {
            hive: Identity::from_seed(self.seed).public(),
            session: if hello { [0; 16] } else { device.session },
            device: header.device,
            number: header.number,
            method,
            path_and_query: path,
            body,
        };
        let identity = device.identity.clone().try_into().unwrap();
        if !signed.is_signed_by(&identity, &header.signature) {
            return Some((401, br#"{"error":{"code":"session_over","message":"say hello"}}"#.to_vec()));
        }
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split(['/', '?']).collect();
        match (method, &parts[..]) {
            ("POST", ["device", "hello"]) => {
                device.hellos.push(read());
                device.sessions += 1;
                device.session = [device.sessions; 16];
                let session: String = device.session.iter().map(|byte| format!("{byte:02x}")).collect();
                let ring = inside.ring.len();
                let ring = (ring > 0).then(|| number_of(inside.ring.last().unwrap()));
                told(json!({
                    "session": session, "incarnation": 1, "recovering": false, "report_every_ms": 10_000, "ring": ring,
                }))
            }
            ("POST", ["device", "report"]) => {
                let report = read();
                device.report = Some((Instant::now(), report.clone()));
                told(json!({
                    "granted": report["renew"], "over": device.over, "forgotten": [], "report_every_ms": 10_000,
                }))
            }
            ("GET", ["device", "commands", query]) => {
                let have: u64 = query.trim_start_matches("have=").parse().unwrap();
                let until = Instant::now() + HOLD;
                loop {
                    let device = &inside.devices[&id];
                    let new: Vec<&Value> =
                        device.commands.iter().filter(|one| one["number"].as_u64().unwrap() > have).collect();
                    if device.silent {
                        return None;
                    }
                    if !new.is_empty() || Instant::now() >= until {
                        return told(json!({ "commands": new }));
                    }
                    let left = until.saturating_duration_since(Instant::now());
                    inside =
                        self.inside.1.wait_timeout(inside, left.min(Duration::from_millis(500))).unwrap().0;
                }
            }
            ("POST", ["device", "commands", number, "result"]) => {
                device.results.insert(number.parse().unwrap(), read());
                Some((204, Vec::new()))
            }
            ("POST", ["device", "streams", stream, _]) => {
                device.streams.entry((*stream).to_owned()).or_default().push(body.to_vec());
                Some((204, Vec::new()))
            }
            ("GET", ["ring"]) => {
                let items: Vec<Value> = inside
                    .ring
                    .iter()
                    .rev()
                    .map(|object| {
                        json!({ "number": number_of(object), "bytes": object.len(), "made": "2026-11-22T08:00:00.000Z" })
                    })
                    .collect();
                told(json!({ "items": items, "next": null }))
            }
            ("GET", ["ring", number]) => {
                let number: u64 = number.parse().unwrap();
                let object = inside.ring.iter().find(|object| number_of(object) == number)?;
                Some((200, object.clone()))
            }
            ("PUT", ["ring", _, ..]) => {
                inside.ring.push(body.to_vec());
                Some((201, Vec::new()))
            }
            ("POST", ["packages"]) => {
                let sealed: Sealed = serde_json::from_slice(body).unwrap();
                let said: Value = serde_json::from_slice(&sealed.authorization.0).unwrap();
                let app = said["app"].as_str().unwrap().to_owned();
                inside.packages.insert((app, said["revision"].as_u64().unwrap()), sealed);
                told(json!({ "app": said["app"], "revision": said["revision"] }))
            }
            ("GET", ["device", "releases", number, _]) => {
                let program = inside.programs.get(&number.parse().unwrap())?;
                Some((200, program.clone()))
            }
            ("GET", ["packages", app, revision]) => {
                let sealed = inside.packages.get(&((*app).to_owned(), revision.parse().unwrap()))?;
                told(serde_json::to_value(sealed).unwrap())
            }
            _ => {
                Some((404, br#"{"error":{"code":"not_found","message":"there is no such thing"}}"#.to_vec()))
            }
        }
    }
}

/// The number in a ring's header.
fn number_of(object: &[u8]) -> u64 {
    fs_format::ring::open_ring(object).unwrap().header.number.0
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

type Read1 = (String, String, Vec<(String, String)>, Vec<u8>);

fn read(stream: &mut TcpStream) -> Option<Read1> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut bytes, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        let len = stream.read(&mut part).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&part[..len]);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(end) = request.parse(&bytes).ok()? else { continue };
        let (method, path) = (request.method?.to_owned(), request.path?.to_owned());
        let headers: Vec<(String, String)> = request
            .headers
            .iter()
            .map(|one| (one.name.to_lowercase(), String::from_utf8_lossy(one.value).into_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            let len = stream.read(&mut part).ok().filter(|len| *len > 0)?;
            bytes.extend_from_slice(&part[..len]);
        }
        return Some((method, path, headers, bytes[end..end + length].to_vec()));
    }
}
