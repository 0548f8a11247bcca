//! Who may see the page: a code that a person carries from the terminal to the browser, and the sessions that came of it.
//!
//! Values in, values out: the moment and the chance are given.
//!
//! Invariants
//! - A code is good for one session, five minutes and five tries; a new one ends the one before.
//! - Neither codes nor the words of cookies are kept, only their hashes, which are compared in constant time.
//! - A session is of one address of the net: other programs of this host are sent its cookie by a browser, and are elsewhere.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orchestrator_api::code::to_base32;

use crate::Boottime;

/// How long a code is good.
pub const CODE_MS: u64 = 5 * 60_000;
/// How often a wrong one may be tried.
const TRIES_MAX: u32 = 5;
/// Bytes of a code: 8 letters.
const CODE_BYTES: usize = 5;
const CODE_LETTERS: usize = 8;
/// How long a session lasts.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// The most sessions.
const SESSIONS_MAX: usize = 16;
/// The longest text that is looked at as a code, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// The code and the sessions.
#[derive(Default)]
pub struct Keys {
    code: Option<Code>,
    sessions: Vec<Session>,
}

struct Code {
    hash: blake3::Hash,
    ends: Boottime,
    tries: u32,
}

/// A browser that somebody let in.
struct Session {
    hash: blake3::Hash,
    token: String,
    address: IpAddr,
    ends: Boottime,
}

/// Why a code does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is no code at all; this counts as no try.
    Form,
    /// It is another one, and may be tried this often still.
    Other(u32),
    /// None is good: it was used, its time is over, or it was tried too often.
    None,
}

fn hash(bytes: &[u8]) -> blake3::Hash {
    blake3::hash(bytes)
}

/// The letters of a code as they were made, however a person writes them.
fn letters(text: &str) -> Option<String> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let letter = |one: char| match one.to_ascii_uppercase() {
        'O' => Some('0'),
        'I' | 'L' => Some('1'),
        'U' => None,
        one if one.is_ascii_alphanumeric() => Some(one),
        _ => None,
    };
    let separates = |one: &char| matches!(one, '-' | ' ' | '\t' | '\r' | '\n');
    let letters: String = text.chars().filter(|one| !separates(one)).map(letter).collect::<Option<_>>()?;
    (letters.len() == CODE_LETTERS).then_some(letters)
}

impl Keys {
    /// Makes a code, as it is shown.
    pub fn make_code(&mut self, random: &[u8; 32], now: Boottime) -> String {
        let code = to_base32(&random[..CODE_BYTES]);
        self.code = Some(Code { hash: hash(code.as_bytes()), ends: now + CODE_MS, tries: TRIES_MAX });
        format!("{}-{}", &code[..CODE_LETTERS / 2], &code[CODE_LETTERS / 2..])
    }

    /// Begins a session with a code; returns what the cookie holds.
    pub fn enter(
        &mut self,
        text: &str,
        address: IpAddr,
        random: [[u8; 32]; 2],
        now: Boottime,
    ) -> Result<String, Wrong> {
        let text = letters(text).ok_or(Wrong::Form)?;
        let code = self.code.as_mut().filter(|code| now < code.ends).ok_or(Wrong::None)?;
        if code.hash != hash(text.as_bytes()) {
            code.tries -= 1;
            let left = code.tries;
            if left == 0 {
                self.code = None;
                return Err(Wrong::None);
            }
            return Err(Wrong::Other(left));
        }
        self.code = None;
        let cookie = URL_SAFE_NO_PAD.encode(random[0]);
        self.sessions.retain(|session| now < session.ends);
        if self.sessions.len() >= SESSIONS_MAX {
            self.sessions.remove(0);
        }
        self.sessions.push(Session {
            hash: hash(cookie.as_bytes()),
            token: URL_SAFE_NO_PAD.encode(random[1]),
            address,
            ends: now + SESSION_MS,
        });
        Ok(cookie)
    }

    /// What the forms of a session carry, if it is one.
    pub fn session(&self, cookie: &str, address: IpAddr, now: Boottime) -> Option<String> {
        let hash = hash(cookie.as_bytes());
        let mut found = self.sessions.iter().filter(|session| now < session.ends && session.hash == hash);
        found.find(|session| session.address == address).map(|session| session.token.clone())
    }

    /// Ends a session.
    pub fn leave(&mut self, cookie: &str) {
        let hash = hash(cookie.as_bytes());
        self.sessions.retain(|session| session.hash != hash);
    }

    /// Whether two texts that a form carries are the same; takes as long for any.
    pub fn same(one: &str, other: &str) -> bool {
        hash(one.as_bytes()) == hash(other.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 8));

    fn enter(keys: &mut Keys, code: &str, seed: u8, now: Boottime) -> Result<String, Wrong> {
        keys.enter(code, HERE, [[seed; 32], [seed + 1; 32]], now)
    }

    #[test]
    fn a_code_opens_one_session_however_it_is_written() {
        let mut keys = Keys::default();
        let code = keys.make_code(&[7; 32], 1_000);
        assert_eq!(code.len(), 9);
        let as_written =
            format!(" {} ", code.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
        let cookie = enter(&mut keys, &as_written, 1, 2_000).expect("it is the code");
        assert!(keys.session(&cookie, HERE, 2_000).is_some());
        assert_eq!(enter(&mut keys, &code, 3, 2_001), Err(Wrong::None), "once");
    }

    #[test]
    fn a_code_ends_by_time_and_by_tries_and_by_the_next_one() {
        let mut keys = Keys::default();
        let code = keys.make_code(&[7; 32], 0);
        assert_eq!(enter(&mut keys, &code, 1, CODE_MS), Err(Wrong::None));
        let code = keys.make_code(&[8; 32], 0);
        for left in (1..TRIES_MAX).rev() {
            assert_eq!(enter(&mut keys, "0000-0000", 1, 1), Err(Wrong::Other(left)));
        }
        for text in ["", "short", "0000-000U", "ääää-ääää", &"0".repeat(100)] {
            assert_eq!(enter(&mut keys, text, 1, 1), Err(Wrong::Form), "{text:?}");
        }
        assert_eq!(enter(&mut keys, "0000-0000", 1, 1), Err(Wrong::None));
        assert_eq!(enter(&mut keys, &code, 1, 1), Err(Wrong::None), "too often");
        let (old, new) = (keys.make_code(&[9; 32], 0), keys.make_code(&[10; 32], 0));
        assert!(matches!(enter(&mut keys, &old, 1, 1), Err(Wrong::Other(_))));
        assert!(enter(&mut keys, &new, 1, 1).is_ok());
    }

    #[test]
    fn a_session_is_of_one_browser_at_one_address_for_twelve_hours() {
        let mut keys = Keys::default();
        let code = keys.make_code(&[7; 32], 0);
        let cookie = enter(&mut keys, &code, 1, 0).expect("it is the code");
        assert!(keys.session(&cookie, HERE, SESSION_MS - 1).is_some());
        assert!(keys.session(&cookie, HERE, SESSION_MS).is_none(), "over");
        assert!(keys.session(&cookie, ELSEWHERE, 1).is_none(), "another machine");
        assert!(keys.session("", HERE, 1).is_none() && keys.session(&cookie[1..], HERE, 1).is_none());
        keys.leave(&cookie);
        assert!(keys.session(&cookie, HERE, 1).is_none());
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let mut keys = Keys::default();
        let cookies: Vec<String> = (0..=SESSIONS_MAX as u8)
            .map(|seed| {
                let code = keys.make_code(&[seed; 32], 0);
                enter(&mut keys, &code, seed, 0).expect("it is the code")
            })
            .collect();
        assert!(keys.session(&cookies[0], HERE, 1).is_none());
        assert!(cookies[1..].iter().all(|cookie| keys.session(cookie, HERE, 1).is_some()));
    }
}
