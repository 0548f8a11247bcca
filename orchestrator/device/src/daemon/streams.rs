//! Text of an app on its way to a person: sealed from the hive (`api.md`, section 7).

use std::time::{Duration, Instant};

use fs_crypto::{Cipher, hedged_salt};
use orchestrator_api::ids::SessionId;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::PART_BYTES_MAX;
use parking_lot::Mutex;
use serde::Serialize;

use super::World;
use super::loaded::wall_clock;
use crate::doors::hive::{Ask, HiveError};
use crate::doors::ring;
use crate::trouble::Result;

/// How long a part may take.
const PART_WAIT: Duration = Duration::from_secs(15);
/// How many parts go at once, and how often one more: the hive counts them with the device's reports, which must not wait for them.
const PARTS_AT_ONCE: u32 = 20;
const PART_EVERY: Duration = Duration::from_millis(400);
/// How long the hive may put off one part. Where nobody reads what it holds, it says so before.
const PUT_OFF_MAX: Duration = Duration::from_secs(120);
/// How soon a part is offered again at the earliest, and at the latest.
const AGAIN_MIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// What of a part is text: the salt and the tag are in it too.
const TEXT_BYTES_MAX: usize = PART_BYTES_MAX - 32 - 16;

/// When parts of all streams of this device may go.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Takes a turn; how long to wait for it.
    fn turn(&self, now: Instant) -> Duration {
        let mut free = self.0.lock();
        let next = free.unwrap_or(now).max(now) + PART_EVERY;
        *free = Some(next);
        next.saturating_duration_since(now + PART_EVERY * PARTS_AT_ONCE)
    }
}

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
        self.open = self.sent(&ask).await;
        self.part += 1;
    }

    /// Whether the hive took a part. One that it puts off is sent again as it is: it takes the same part twice.
    async fn sent(&self, ask: &Ask<'_>) -> bool {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(self.world.parts.turn(Instant::now())).await;
            match self.world.hive.bytes(ask).await {
                Ok(_) => return true,
                Err(HiveError::Refused { retry_after_ms: Some(ms), .. }) if begun.elapsed() < PUT_OFF_MAX => {
                    tokio::time::sleep(Duration::from_millis(ms).clamp(AGAIN_MIN, AGAIN_MAX)).await;
                }
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_leave_reports_their_room() {
        let (pace, begun) = (Pace::default(), Instant::now());
        for _ in 0..PARTS_AT_ONCE {
            assert_eq!(pace.turn(begun), Duration::ZERO);
        }
        assert_eq!(pace.turn(begun), PART_EVERY);
        assert_eq!(pace.turn(begun), PART_EVERY * 2);
        // After a while there is room for some again, and never for more.
        let later = begun + Duration::from_secs(3_600);
        let waits: Vec<Duration> = (0..=PARTS_AT_ONCE).map(|_| pace.turn(later)).collect();
        assert!(waits[..PARTS_AT_ONCE as usize].iter().all(Duration::is_zero));
        assert_eq!(waits[PARTS_AT_ONCE as usize], PART_EVERY);
    }
}
