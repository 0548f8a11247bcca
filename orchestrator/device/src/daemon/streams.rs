//! Text of an app on its way to a person: sealed from the hive (`api.md`, section 7).

use std::time::Duration;

use fs_crypto::{Cipher, hedged_salt};
use orchestrator_api::ids::SessionId;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::PART_BYTES_MAX;
use serde::Serialize;

use super::World;
use super::loaded::wall_clock;
use crate::doors::hive::Ask;
use crate::doors::ring;
use crate::trouble::Result;

/// How long a part may take.
const PART_WAIT: Duration = Duration::from_secs(15);
/// What of a part is text: the salt and the tag are in it too.
const TEXT_BYTES_MAX: usize = PART_BYTES_MAX - 32 - 16;

/// A line of a stream.
#[derive(Debug, Clone, Serialize)]
pub struct StreamLine {
    /// The service; empty for the device itself.
    pub service: String,
    /// `out` or `err`.
    pub stream: &'static str,
    /// When it was sent, RFC 3339.
    pub time: String,
    /// What it says.
    pub text: String,
}

/// A stream that somebody asked for.
pub struct Stream<'a> {
    world: &'a World,
    session: SessionId,
    id: Uuid,
    cipher: Cipher,
    salt: [u8; 32],
    part: u64,
    text: Vec<u8>,
    open: bool,
}

impl<'a> Stream<'a> {
    /// Begins a stream under a fresh salt.
    pub fn begin(world: &'a World, session: SessionId, id: Uuid) -> Result<Self> {
        let ring = ring::open(&world.setup.state)?;
        let random = (world.setup.chance)();
        let salt = hedged_salt(&random, &[&id.0, &wall_clock().0.to_le_bytes()]);
        let cipher = ring.owner().stream_cipher(&id.0, &salt);
        Ok(Self { world, session, id, cipher, salt, part: 0, text: Vec::new(), open: true })
    }

    /// Adds a line; parts go when they are full.
    pub async fn line(&mut self, service: &str, is_error: bool, text: &str) {
        let stream = if is_error { "err" } else { "out" };
        let line = StreamLine {
            service: service.to_owned(),
            stream,
            time: wall_clock().to_string(),
            text: text.chars().take(8_192).collect(),
        };
        let mut json = serde_json::to_vec(&line).unwrap_or_default();
        json.push(b'\n');
        if self.text.len() + json.len() > TEXT_BYTES_MAX {
            self.send(false).await;
        }
        self.text.extend(json.iter().take(TEXT_BYTES_MAX));
    }

    /// Whether somebody still listens.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Sends what there is.
    pub async fn flush(&mut self) {
        if !self.text.is_empty() {
            self.send(false).await;
        }
    }

    /// Sends the last part.
    pub async fn end(mut self) {
        self.send(true).await;
    }

    async fn send(&mut self, last: bool) {
        if !self.open {
            self.text.clear();
            return;
        }
        let mut sealed = std::mem::take(&mut self.text);
        let mut associated = self.id.0.to_vec();
        associated.push(u8::from(last));
        let tag = self.cipher.seal(self.part, &associated, &mut sealed);
        let body = [&self.salt[..], &sealed, &tag].concat();
        let path = format!("/v1/device/streams/{}?part={}", self.id, self.part);
        let ask = Ask { json: false, ..Ask::post(self.session, &path, &body, PART_WAIT) };
        // Nobody listens any more, or nobody hears: the same bytes are never sealed again under this number.
        self.open = self.world.hive.bytes(&ask).await.is_ok();
        self.part += 1;
    }
}
