//! Chance and clocks: the only place that asks the system for them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orchestrator_api::text::{Hex, Time, Uuid};

/// Bytes that nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("a system without chance runs no server");
    out
}

/// The same, in hexadecimal digits.
pub fn hex<const N: usize>() -> Hex<N> {
    Hex(bytes())
}

/// A new id.
pub fn uuid() -> Uuid {
    let mut id = bytes::<16>();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Uuid(id)
}

/// A new token: `comb_` and 43 letters.
pub fn token() -> String {
    format!("comb_{}", URL_SAFE_NO_PAD.encode(bytes::<32>()))
}

/// Eight letters that are easily told apart.
pub fn letters() -> String {
    orchestrator_api::code::to_base32(&bytes::<5>()).to_lowercase()
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment as it travels.
pub fn time(ms: i64) -> Time {
    Time(ms)
}
