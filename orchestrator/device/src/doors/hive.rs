//! The hive: signed requests and checked answers (`api.md`, section 3).
//!
//! Invariants
//! - An answer without a valid signature over this very request is as none, whatever its status: a proxy's page changes nothing.
//! - No more of an answer is read than its route may have.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_crypto::Identity;
use orchestrator_api::code::JoinCode;
use orchestrator_api::ids::{DeviceId, SessionId};
use orchestrator_api::request::{
    Answer, DEVICE_CONTEXT, DeviceHeader, JoinHeader, NOBODY, Request, parse_signature,
};
use orchestrator_api::wire::{HIVE_HEADER, JOIN_HEADER};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(4);

/// A hive, and who this device is there.
pub struct Hive {
    url: String,
    key: [u8; 32],
    device: [u8; 16],
    identity: Identity,
    client: reqwest::Client,
    number: AtomicU64,
    heard: Mutex<Option<(i64, i64)>>,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The session; none for hello and join.
    pub session: Option<SessionId>,
    /// Its number; none takes the next one.
    pub number: Option<u64>,
    /// Of HTTP.
    pub method: &'a str,
    /// With the query.
    pub path: &'a str,
    /// What is sent.
    pub body: &'a [u8],
    /// What is sent is JSON.
    pub json: bool,
    /// How long an answer is waited for.
    pub wait: Duration,
    /// What is read of it, in bytes.
    pub bytes_max: usize,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub fn get(session: SessionId, path: &'a str, wait: Duration) -> Self {
        Self {
            session: Some(session),
            number: None,
            method: "GET",
            path,
            body: &[],
            json: false,
            wait,
            bytes_max: 1 << 20,
        }
    }

    /// A request with JSON.
    pub fn post(session: SessionId, path: &'a str, body: &'a [u8], wait: Duration) -> Self {
        Self { method: "POST", body, json: true, ..Self::get(session, path, wait) }
    }
}

/// Why there is no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HiveError {
    /// It did not answer, or somebody else did.
    #[error("the hive gives no answer: {0}")]
    Away(String),
    /// Its answer is not signed by the key that the code named.
    #[error("an answer came that is not signed by this hive")]
    Foreign,
    /// It says no.
    #[error("{message}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// For programs.
        code: String,
        /// For a person.
        message: String,
        /// What it says beside.
        details: serde_json::Value,
        /// When it may say yes, in milliseconds from now; none if asking again changes nothing.
        retry_after_ms: Option<u64>,
    },
    /// What it answered is none of its words.
    #[error("the hive's answer is not understood")]
    Form,
}

/// What hives answer.
pub type Result<T> = std::result::Result<T, HiveError>;

impl Hive {
    /// A hive by its URL and key.
    pub fn new(url: &str, key: [u8; 32], device: Option<DeviceId>, identity: Identity) -> Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| HiveError::Away(error.to_string()))?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            key,
            device: device.map_or(NOBODY, |device| device.0),
            identity,
            client,
            number: AtomicU64::new(1),
            heard: Mutex::default(),
        })
    }

    /// What the hive's clock said in its last answer, and this machine's then: seconds since 1970. A proxy may have said it,
    /// so nothing is decided by it.
    pub fn heard(&self) -> Option<(i64, i64)> {
        *self.heard.lock()
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Joins by a code, whose hive this is.
    pub async fn join<T: DeserializeOwned>(&self, code: &JoinCode, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|_| HiveError::Form)?;
        let ask = Ask {
            session: None,
            number: Some(0),
            method: "POST",
            path: "/v1/device/join",
            body: &body,
            json: true,
            wait: Duration::from_secs(30),
            bytes_max: 64 << 10,
        };
        read(&self.send(&ask, Some(code)).await?)
    }

    /// Asks, and reads the answer's JSON.
    pub async fn ask<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T> {
        read(&self.send(ask, None).await?)
    }

    /// Asks, and takes the answer as it is.
    pub async fn bytes(&self, ask: &Ask<'_>) -> Result<Vec<u8>> {
        self.send(ask, None).await
    }

    async fn send(&self, ask: &Ask<'_>, code: Option<&JoinCode>) -> Result<Vec<u8>> {
        let number = ask.number.unwrap_or_else(|| self.number.fetch_add(1, Ordering::Relaxed));
        let device = if code.is_some() { NOBODY } else { self.device };
        let request = Request {
            hive: self.key,
            session: ask.session.map_or(NOBODY, |session| session.0),
            device,
            number,
            method: ask.method,
            path_and_query: ask.path,
            body: ask.body,
        };
        let signature = self.identity.sign(DEVICE_CONTEXT, &request.bytes());
        let method = ask.method.parse().map_err(|_| HiveError::Form)?;
        let header = DeviceHeader { device, number, signature }.show();
        let mut to_send = self
            .client
            .request(method, format!("{}{}", self.url, ask.path))
            .timeout(ask.wait)
            .header("authorization", header);
        if let Some(code) = code {
            let header = JoinHeader { code: code.id(), mac: request.mac(&code.key()) };
            to_send = to_send.header(JOIN_HEADER, header.show());
        }
        if !ask.body.is_empty() {
            let kind = if ask.json { "application/json" } else { "application/octet-stream" };
            to_send = to_send.header("content-type", kind).body(ask.body.to_vec());
        }
        let away = |error: reqwest::Error| HiveError::Away(words(&error));
        let mut answer = to_send.send().await.map_err(away)?;
        let signed = answer.headers().get(HIVE_HEADER).and_then(|header| header.to_str().ok());
        let signed = signed.and_then(|header| parse_signature(header).ok()).ok_or(HiveError::Foreign)?;
        let date = answer.headers().get(reqwest::header::DATE).and_then(|header| header.to_str().ok());
        let answered = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(away)? {
            if body.len() + part.len() > ask.bytes_max {
                return Err(HiveError::Form);
            }
            body.extend_from_slice(&part);
        }
        if !(Answer { hive: self.key, request: signature, status, body: &body }).is_signed(&signed) {
            return Err(HiveError::Foreign);
        }
        if let Some(date) = answered {
            *self.heard.lock() = Some((seconds(date), seconds(SystemTime::now())));
        }
        match status {
            200..=299 => Ok(body),
            _ => Err(refused(status, &body)),
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What is behind a request that failed, without the URL: the innermost reason says most.
fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut reason: &dyn std::error::Error = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    reason.to_string()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    orchestrator_api::wire::answer(body).map_err(|_| HiveError::Form)
}

fn refused(status: u16, body: &[u8]) -> HiveError {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| json["error"][key].as_str().unwrap_or_default().to_owned();
    HiveError::Refused {
        status,
        code: text("code"),
        message: text("message"),
        details: json["error"]["details"].clone(),
        retry_after_ms: json["error"]["retry_after_ms"].as_u64(),
    }
}
