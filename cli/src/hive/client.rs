//! Requests to a hive, and its answers.
//!
//! Invariants
//! - A token goes nowhere but to the hive that it is of: no redirect is followed.
//! - What an answer may hold is bounded before it is read.
//! - A request that changes something is repeated only under the same idempotency key, so nothing is done twice.

use std::time::Duration;

use orchestrator_api::error::{ApiError, Code, ErrorBody};
use orchestrator_api::wire;
use orchestrator_api::wire::account::HiveInfo;
use orchestrator_api::wire::value::{Hidden, Page};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::address::Address;
use super::logins::Login;
use crate::failure::{Failure, Kind, Result};
use crate::stores;

/// How long a hive may take to be reached.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long it may take to answer, beside what it was asked to wait.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The slowest line that a large object is waited for on, in bytes a second.
const SLOWEST: u64 = 64 << 10;
/// The largest answer that is read, in bytes: a page of apps, or a package.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How often a request is sent before the hive counts as away.
const TRIES: u32 = 4;
/// Before the second try; twice as long before each one after.
const TRY_AGAIN: Duration = Duration::from_millis(300);
/// The longest pause that a hive may ask for before a command gives up.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The most items of a list that are fetched: as many as an account may have of anything that is listed whole.
const ITEMS_MAX: usize = 20_000;
/// Items on a page.
const PAGE: usize = 200;

/// A hive, and as whom it is asked.
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    hive: Address,
    token: Option<Hidden>,
}

/// What is sent with a request.
enum Body {
    Nothing,
    Json(Vec<u8>),
    Bytes(Vec<u8>),
}

/// How a request may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing the second time, or its key says that it is the second time.
    Yes,
    /// Only if it was never sent.
    Unsent,
}

/// What went wrong with one try.
enum Trouble {
    /// The hive was not reached: nothing happened there.
    Unsent(String),
    /// It is not known whether the hive did it.
    Broken(String),
    /// The hive says no.
    Refused(Box<ApiError>),
    /// What answers is no hive.
    Stranger(StatusCode),
}

impl Client {
    /// Of a hive that nobody is logged in at.
    pub fn new(hive: Address) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("comb/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::other(format!("preparing to ask a hive: {error}")))?;
        Ok(Self { runtime: stores::runtime(1)?, http, hive, token: None })
    }

    /// Of one where a person is.
    pub fn logged_in(login: &Login) -> Result<Self> {
        login.hive.allow(login.insecure_http)?;
        Ok(Self { token: Some(login.token.clone()), ..Self::new(login.hive.clone())? })
    }

    /// The same hive, with another token.
    pub fn with_token(self, token: Hidden) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Where it is.
    pub fn hive(&self) -> &Address {
        &self.hive
    }

    /// What the hive says of itself. Also whether there is one.
    pub fn info(&self) -> Result<HiveInfo> {
        self.get("/v1/hive")
    }

    /// Asks for something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(Method::GET, path, Body::Nothing, Repeat::Yes, Duration::ZERO)
    }

    /// Asks for something that the hive may wait for.
    pub fn get_waiting<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        self.answer(Method::GET, path, Body::Nothing, Repeat::Yes, wait)
    }

    /// All of a list. `path` may have a query.
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let join = match path {
            path if path.ends_with('?') => "",
            path if path.contains('?') => "&",
            _ => "?",
        };
        let mut items = Vec::new();
        let mut after = String::new();
        while items.len() < ITEMS_MAX {
            let page: Page<T> = self.get(&format!("{path}{join}limit={PAGE}{after}"))?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = format!("&after={}", encoded(&next)),
                None => break,
            }
        }
        Ok(items)
    }

    /// Makes or orders something, once.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.answer(Method::POST, path, json(body)?, Repeat::Yes, Duration::ZERO)
    }

    /// The same where the answer holds a secret, which a hive shows once: a second try would be refused.
    pub fn post_once<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.answer(Method::POST, path, json(body)?, Repeat::Unsent, Duration::ZERO)
    }

    /// Makes something, and hands out what the hive refuses it for; other failures are failures.
    pub fn try_post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<std::result::Result<T, Box<ApiError>>> {
        match self.bytes(Method::POST, path, json(body)?, Repeat::Yes, Duration::ZERO) {
            Ok(bytes) => self.read(&bytes).map(Ok),
            Err(Trouble::Refused(error)) => Ok(Err(error)),
            Err(trouble) => Err(self.failure(trouble)),
        }
    }

    /// The same where the answer holds a secret.
    pub fn try_post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<std::result::Result<T, Box<ApiError>>> {
        match self.bytes(Method::POST, path, json(body)?, Repeat::Unsent, Duration::ZERO) {
            Ok(bytes) => self.read(&bytes).map(Ok),
            Err(Trouble::Refused(error)) if error.code == Code::SecondNeeded => Ok(Err(error)),
            Err(trouble) => Err(self.failure(trouble)),
        }
    }

    /// Changes something.
    pub fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.answer(Method::PATCH, path, json(body)?, Repeat::Yes, Duration::ZERO)
    }

    /// Puts a value; the answer says nothing.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<()> {
        self.done(Method::PUT, path, json(body)?)
    }

    /// Puts an object, and hands out what the hive refuses it for. A large one may take its time.
    pub fn put_object(&self, path: &str, object: &[u8]) -> Result<std::result::Result<(), Box<ApiError>>> {
        let wait = Duration::from_secs(object.len() as u64 / SLOWEST);
        match self.bytes(Method::PUT, path, Body::Bytes(object.to_vec()), Repeat::Yes, wait) {
            Ok(_) => Ok(Ok(())),
            Err(Trouble::Refused(error)) => Ok(Err(error)),
            Err(trouble) => Err(self.failure(trouble)),
        }
    }

    /// An object, as bytes.
    pub fn object(&self, path: &str) -> Result<Vec<u8>> {
        self.bytes(Method::GET, path, Body::Nothing, Repeat::Yes, Duration::ZERO)
            .map_err(|trouble| self.failure(trouble))
    }

    /// Removes something; the answer says nothing.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.done(Method::DELETE, path, Body::Nothing)
    }

    /// Orders that something goes.
    pub fn delete_ordered<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(Method::DELETE, path, Body::Nothing, Repeat::Yes, Duration::ZERO)
    }

    /// An answer that comes in pieces for as long as it likes; `each` says whether to go on.
    pub fn follow(&self, path: &str, mut each: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        let request = self
            .request(Method::GET, path, &Body::Nothing, None)
            .header(reqwest::header::ACCEPT, "text/event-stream");
        self.runtime.block_on(async {
            let sent = tokio::time::timeout(ANSWER_WAIT, request.send()).await;
            let mut response = match sent {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.failure(trouble(&error))),
                Err(_) => return Err(self.failure(Trouble::Broken("it took too long".to_owned()))),
            };
            if !response.status().is_success() {
                let status = response.status();
                let bytes = read_all(&mut response).await.map_err(|trouble| self.failure(trouble))?;
                return Err(self.failure(refused(status, &bytes)));
            }
            loop {
                // The hive says at least a comment every 10 s.
                match tokio::time::timeout(ANSWER_WAIT, response.chunk()).await {
                    Ok(Ok(Some(bytes))) => {
                        if !each(&bytes)? {
                            return Ok(());
                        }
                    }
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Err(error)) => return Err(self.failure(trouble(&error))),
                    Err(_) => return Err(self.failure(Trouble::Broken("nothing more came".to_owned()))),
                }
            }
        })
    }

    fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        repeat: Repeat,
        wait: Duration,
    ) -> Result<T> {
        let bytes = self.bytes(method, path, body, repeat, wait).map_err(|trouble| self.failure(trouble))?;
        self.read(&bytes)
    }

    fn done(&self, method: Method, path: &str, body: Body) -> Result<()> {
        self.bytes(method, path, body, Repeat::Yes, Duration::ZERO)
            .map(drop)
            .map_err(|trouble| self.failure(trouble))
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        wire::answer(bytes).map_err(|error| {
            Failure::new(
                Kind::Foreign,
                format!("{} answers something that this comb cannot read: {}", self.hive, error.message),
            )
            .hint("one of the two is too old; `comb --version` says this one")
        })
    }

    fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Body,
        repeat: Repeat,
        wait: Duration,
    ) -> std::result::Result<Vec<u8>, Trouble> {
        // The same for all tries: that is what makes them one.
        let key = (method == Method::POST).then(|| uuid::Uuid::new_v4().to_string());
        let mut pause = TRY_AGAIN;
        for attempt in 1.. {
            let trouble = match self.once(method.clone(), path, &body, key.as_deref(), wait) {
                Ok(bytes) => return Ok(bytes),
                Err(trouble) => trouble,
            };
            let again = match &trouble {
                Trouble::Unsent(_) => Some(pause),
                Trouble::Broken(_) => (repeat == Repeat::Yes).then_some(pause),
                Trouble::Refused(error)
                    if matches!(error.code, Code::SlowDown | Code::DatabaseAway | Code::HiveFull) =>
                {
                    Some(error.retry_after_ms.map_or(pause, Duration::from_millis))
                }
                _ => None,
            };
            match again.filter(|pause| attempt < TRIES && *pause <= PAUSE_MAX) {
                Some(pause) => std::thread::sleep(pause),
                None => return Err(trouble),
            }
            pause *= 2;
        }
        unreachable!("the loop ends after its last try")
    }

    fn once(
        &self,
        method: Method,
        path: &str,
        body: &Body,
        key: Option<&str>,
        wait: Duration,
    ) -> std::result::Result<Vec<u8>, Trouble> {
        let request = self.request(method, path, body, key).timeout(ANSWER_WAIT + wait);
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|error| trouble(&error))?;
            let status = response.status();
            let bytes = read_all(&mut response).await?;
            if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
        })
    }

    fn request(&self, method: Method, path: &str, body: &Body, key: Option<&str>) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, self.hive.route(path));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(key) = key {
            request = request.header(wire::IDEMPOTENCY_HEADER, key);
        }
        match body {
            Body::Nothing => request,
            Body::Json(bytes) => {
                request.header(reqwest::header::CONTENT_TYPE, "application/json").body(bytes.clone())
            }
            Body::Bytes(bytes) => {
                request.header(reqwest::header::CONTENT_TYPE, "application/octet-stream").body(bytes.clone())
            }
        }
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        let hive = &self.hive;
        match trouble {
            Trouble::Unsent(why) | Trouble::Broken(why) => {
                Failure::new(Kind::Unreachable, format!("the hive {hive} does not answer: {why}")).hint(
                    "does it run (`comb up` or `comb hive run` on its machine), and does this one reach it?",
                )
            }
            Trouble::Stranger(status) => {
                Failure::new(Kind::Unreachable, format!("what answers at {hive} is no hive: {status}"))
                    .hint("is the address right? A proxy may answer in its place while it is away")
            }
            Trouble::Refused(error) => failure(hive, *error),
        }
    }
}

fn json(body: &impl Serialize) -> Result<Body> {
    serde_json::to_vec(body).map(Body::Json).map_err(|error| Failure::other(format!("a request: {error}")))
}

/// The body of an answer, if it is not too long.
async fn read_all(response: &mut Response) -> std::result::Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| trouble(&error))? {
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Stranger(response.status()));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn refused(status: StatusCode, bytes: &[u8]) -> Trouble {
    match wire::answer::<ErrorBody>(bytes) {
        Ok(body) => Trouble::Refused(Box::new(body.error)),
        Err(_) => Trouble::Stranger(status),
    }
}

fn trouble(error: &reqwest::Error) -> Trouble {
    // The innermost cause says what happened; the ones around it repeat the URL.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let why = if error.is_timeout() { "it took too long".to_owned() } else { cause.to_string() };
    if error.is_connect() { Trouble::Unsent(why) } else { Trouble::Broken(why) }
}

/// A part of a path or query, with what means something there escaped.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A hive's refusal, with the exit code that `api.md`, section 11, promises.
pub fn failure(hive: &Address, error: ApiError) -> Failure {
    let kind = match (error.code, error.code.status()) {
        (Code::NoSpace, _) => Kind::NoSpace,
        (_, 401 | 403 | 422) => Kind::NotPermitted,
        (_, 404) => Kind::NotFound,
        (_, 409 | 412) => Kind::InTheWay,
        (_, 429 | 500..) => Kind::Unreachable,
        _ => Kind::Usage,
    };
    let message = match (&error.file, error.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: {}", error.message),
        _ => error.message,
    };
    let failure = Failure::new(kind, message);
    match error.hint.or_else(|| hint(hive, error.code)) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What to do about a refusal that says nothing of it itself.
fn hint(hive: &Address, code: Code) -> Option<String> {
    Some(match code {
        Code::NotLoggedIn | Code::TokenEnded => format!("`comb login {hive}` logs in anew"),
        Code::RoleTooLow => "ask an owner of the account; `comb account people` lists them".to_owned(),
        Code::LoginWrong => {
            "name or password is wrong; the password is not the passphrase of the key ring".to_owned()
        }
        Code::OperationRunning => {
            "`comb operation list` shows it; `comb operation cancel ID` ends it where that is possible"
                .to_owned()
        }
        Code::DeviceOnline => {
            "without --force nothing is lost; --even-if-online moves it all the same".to_owned()
        }
        Code::DeviceLocked => {
            "`comb device unlock` on that machine asks for the passphrase of the key ring".to_owned()
        }
        Code::DeviceSilent => {
            "see that the machine is up; `comb device list` says when it was heard of".to_owned()
        }
        Code::StoreCannotArbitrate | Code::StoreKind => {
            "an app needs a store that decides who writes: s3://, gs:// or file://".to_owned()
        }
        Code::StoreIsLocal => {
            "`comb account store add URL` adds a store that every device reaches".to_owned()
        }
        Code::SlowDown => "try again in a minute".to_owned(),
        Code::HiveRecovering => "`comb hive recover` says which devices it waits for".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use orchestrator_api::wire::app::App;
    use orchestrator_api::wire::device::Device;
    use serde_json::{Value, json};

    use super::*;

    fn hive() -> Address {
        Address::parse("https://hive.example.org").expect("an address")
    }

    #[test]
    fn each_refusal_has_the_exit_code_that_was_promised() {
        let table = [
            (Code::NotLoggedIn, 8),
            (Code::LoginWrong, 8),
            (Code::NotFound, 3),
            (Code::Exists, 4),
            (Code::Changed, 4),
            (Code::PolicyRefused, 8),
            (Code::NoSpace, 7),
            (Code::Internal, 10),
            (Code::DatabaseAway, 10),
            (Code::BadRequest, 2),
            (Code::TooLarge, 2),
        ];
        for (code, exit) in table {
            assert_eq!(failure(&hive(), ApiError::new(code, "m")).exit_code(), exit, "{code:?}");
        }
    }

    #[test]
    fn a_refusal_about_a_file_says_where() {
        let error = ApiError {
            file: Some("compose.yaml".to_owned()),
            line: Some(12),
            ..ApiError::new(Code::PolicyRefused, "the Docker socket is the machine itself")
        };
        let failure = failure(&hive(), error);
        assert_eq!(failure.message, "compose.yaml:12: the Docker socket is the machine itself");
    }

    /// A server that gives these answers, one a connection, and says what it was asked.
    pub fn serving(answers: Vec<String>) -> (Address, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = Address::parse(&listener.local_addr().expect("bound").to_string()).expect("an address");
        let serving = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut request = Vec::new();
                let mut part = [0; 4096];
                // Small requests without a body, or with one that comes with the head.
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    let len = stream.read(&mut part).expect("a request");
                    request.extend_from_slice(&part[..len]);
                }
                asked.push(String::from_utf8_lossy(&request).to_lowercase());
                stream.write_all(answer.as_bytes()).expect("answered");
            }
            asked
        });
        (address, serving)
    }

    /// An answer of it.
    pub fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    /// What ids of tests are.
    pub const ID: &str = "11111111-1111-4111-8111-111111111111";

    /// An app that nobody runs, as a hive tells of it, with these fields instead of its own.
    pub fn app(fields: &Value) -> App {
        told(
            json!({
                "id": ID, "name": "photos", "version": "", "revision": 1, "policy": "manual", "wanted": "running",
                "domain": null, "device": null, "term": 1, "generation": 1, "standby": [], "stores": [],
                "seal_every_s": 15, "report": null, "operation": null, "at_stake": null, "branches": [],
                "problem": null, "address": null, "services": [], "volumes": [], "actions": [], "permissions": [],
            }),
            fields,
        )
    }

    /// A device as a hive tells of it, with these fields instead of its own.
    pub fn device(fields: &Value) -> Device {
        told(
            json!({
                "id": ID, "name": "attic", "state": "online", "locked": false, "joined": "2026-11-21T18:00:00.000Z",
                "seen_age_ms": 0, "version": "", "arch": "x86_64", "features": [], "auto_update": false,
                "accepts_authoring": false, "update": null, "load": null, "disks": [], "docker": null, "apps": [],
                "stores_open": false, "generation": 1,
            }),
            fields,
        )
    }

    fn told<T: DeserializeOwned>(mut whole: Value, fields: &Value) -> T {
        for (name, value) in fields.as_object().expect("fields") {
            whole[name] = value.clone();
        }
        serde_json::from_value(whole).expect("as a hive tells it")
    }

    /// Who asks it.
    pub fn client(hive: Address) -> Client {
        Client::new(hive).expect("a client").with_token(Hidden::new("comb_token".to_owned()).expect("short"))
    }

    fn header<'r>(request: &'r str, name: &str) -> &'r str {
        let line = request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {request}"))
    }

    #[test]
    fn an_order_whose_answer_was_lost_is_asked_again_under_its_key() {
        let (hive, serving) = serving(vec![String::new(), answer("202 Accepted", "{\"id\":\"x\"}")]);
        let told: serde_json::Value =
            client(hive).post("/v1/apps", &serde_json::json!({})).expect("at the second try");
        assert_eq!(told["id"], "x");
        let asked = serving.join().expect("asked");
        let keys: Vec<&str> = asked.iter().map(|request| header(request, "idempotency-key")).collect();
        assert_eq!(keys[0], keys[1]);
        assert_eq!(header(&asked[0], "authorization"), "bearer comb_token");
    }

    #[test]
    fn what_is_shown_once_is_not_asked_for_twice() {
        let (hive, serving) = serving(vec![String::new()]);
        let told: Result<serde_json::Value> = client(hive).post_once("/v1/login", &serde_json::json!({}));
        assert_eq!(told.expect_err("the answer was lost").kind, Kind::Unreachable);
        assert_eq!(serving.join().expect("asked").len(), 1);
    }

    #[test]
    fn a_token_follows_no_redirect_and_a_stranger_is_told() {
        let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        for strange in
            [elsewhere.to_owned(), answer("502 Bad Gateway", "<html>"), answer("404 Not Found", "{}")]
        {
            let (hive, serving) = serving(vec![strange]);
            let failure = client(hive).get::<serde_json::Value>("/v1/me").expect_err("no hive");
            assert_eq!(failure.kind, Kind::Unreachable);
            assert!(failure.message.contains("is no hive"), "{}", failure.message);
            assert_eq!(serving.join().expect("asked").len(), 1);
        }
    }

    #[test]
    fn a_hive_that_is_busy_is_asked_later_and_one_that_refuses_is_not() {
        let busy = r#"{"error":{"code":"slow_down","message":"too many","retry_after_ms":1}}"#;
        let (hive, serving) =
            serving(vec![answer("429 Too Many Requests", busy), answer("200 OK", "{\"a\":1}")]);
        let told: serde_json::Value = client(hive).get("/v1/me").expect("later");
        assert_eq!((told["a"].as_u64(), serving.join().expect("asked").len()), (Some(1), 2));
        let refused = r#"{"error":{"code":"role_too_low","message":"only an owner may"}}"#;
        let (hive, serving) = serving_one(answer("403 Forbidden", refused));
        let failure = client(hive).get::<serde_json::Value>("/v1/people").expect_err("refused");
        assert_eq!((failure.exit_code(), failure.message.as_str()), (8, "only an owner may"));
        assert!(failure.hint.is_some());
        assert_eq!(serving.join().expect("asked").len(), 1);
    }

    fn serving_one(answer: String) -> (Address, thread::JoinHandle<Vec<String>>) {
        serving(vec![answer])
    }

    #[test]
    fn all_pages_of_a_list_are_asked_for() {
        let pages = vec![
            answer("200 OK", r#"{"items":[1,2],"next":"a b"}"#),
            answer("200 OK", r#"{"items":[3],"next":null}"#),
        ];
        let (hive, serving) = serving(pages);
        assert_eq!(client(hive).list::<u64>("/v1/operations?").expect("a list"), [1, 2, 3]);
        let asked = serving.join().expect("asked");
        assert!(asked[0].starts_with("get /v1/operations?limit=200 "), "{}", asked[0]);
        assert!(asked[1].starts_with("get /v1/operations?limit=200&after=a%20b "), "{}", asked[1]);
    }

    #[test]
    fn what_means_something_in_a_path_is_escaped() {
        assert_eq!(encoded("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encoded("a/b c&ü"), "a%2Fb%20c%26%C3%BC");
    }
}
