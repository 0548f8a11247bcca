//! Who is asking: the only place that finds an account, and it finds it by the credential.

use std::collections::HashMap;
use std::time::Instant;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use orchestrator_api::error::Code;
use orchestrator_api::ids::{DeviceId, SessionId};
use orchestrator_api::report::Refusal;
use orchestrator_api::request::{DeviceHeader, NOBODY, Request};
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::people::{PASSWORD_BYTES_MIN, Role};
use parking_lot::Mutex;

use super::call::{Caller, not_logged_in};
use super::chance;
use super::database::{Row, Tx};
use super::door::Place;
use super::fail::Fail;

/// Cost of a password: 64 MiB, 3 passes, 4 lanes.
const COST: (u32, u32, u32) = (64 << 10, 3, 4);

/// A password as it is kept: cost, salt and hash.
pub fn hash_password(password: &str) -> Result<String, Fail> {
    if !(PASSWORD_BYTES_MIN..=1024).contains(&password.len()) {
        return Err(Fail::field("password", "a password has 12 to 1,024 bytes"));
    }
    let salt = chance::bytes::<16>();
    let hash = argon2id(password, &salt, COST)?;
    let (m, t, p) = COST;
    let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
    Ok(format!("argon2id${m}${t}${p}${salt}${hash}"))
}

/// Whether this is the password. One that nobody has takes the same time.
pub fn is_password(password: &str, kept: Option<&str>) -> bool {
    let mut parts = kept.unwrap_or("").split('$').skip(1);
    let mut number = || parts.next().and_then(|text| text.parse::<u32>().ok());
    let cost = (number(), number(), number());
    let bytes = |text: Option<&str>| text.and_then(|text| STANDARD_NO_PAD.decode(text).ok());
    let (salt, hash) = (bytes(parts.next()), bytes(parts.next()));
    match (cost, salt, hash) {
        ((Some(m), Some(t), Some(p)), Some(salt), Some(hash)) => {
            let made = argon2id(password, &salt, (m, t, p));
            made.is_ok_and(|made| blake3::hash(&made) == blake3::hash(&hash))
        }
        _ => {
            let _ = argon2id(password, &[0; 16], COST);
            false
        }
    }
}

fn argon2id(password: &str, salt: &[u8], (m, t, p): (u32, u32, u32)) -> Result<[u8; 32], Fail> {
    let broken = |_| Fail::Db(super::database::DbError::Broken("the cost of a password".to_owned()));
    let params = Params::new(m.min(1 << 20), t.min(16), p.min(16), Some(32)).map_err(broken)?;
    let mut out = [0; 32];
    let mut memory = vec![Block::new(); params.block_count()];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut memory[..])
        .map_err(broken)?;
    Ok(out)
}

/// What a token is found by.
pub fn token_hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

/// A role as a column holds it.
pub fn role(text: &str) -> Role {
    match text {
        "owner" => Role::Owner,
        "operator" => Role::Operator,
        _ => Role::Viewer,
    }
}

/// The person who has a token.
pub fn person(tx: &mut dyn Tx, token: &str) -> Result<Caller, Fail> {
    let rows = tx.query(
        "SELECT t.account, t.person, t.id, t.role, t.ends, p.role, a.first FROM token t \
         JOIN person p ON p.account = t.account AND p.person = t.person \
         JOIN account a ON a.account = t.account WHERE t.hash = $1",
        &[token_hash(token).into()],
    )?;
    let row = rows.first().ok_or_else(not_logged_in)?;
    if row.int(4)? <= chance::now() {
        return Err(Fail::new(Code::TokenEnded, "this token ended").hint("`comb login` makes another"));
    }
    // A person who lost a role lost it in all tokens.
    Ok(Caller::Person {
        account: row.id(0)?,
        person: Uuid(row.id(1)?),
        token: Uuid(row.id(2)?),
        role: role(row.text(3)?).min(role(row.text(5)?)),
        first: row.flag(6)?,
    })
}

/// A browser in its session.
pub struct Visitor {
    /// Who it is.
    pub caller: Caller,
    /// By name.
    pub name: String,
    /// When it was last written down as used.
    pub used: i64,
}

/// A session that nobody used for so long is over.
pub const SESSION_IDLE_MS: i64 = 7 * 86_400_000;

/// Who has a session. One that waits for the second factor is nobody's.
pub fn visitor(tx: &mut dyn Tx, secret: &str) -> Result<Option<Visitor>, Fail> {
    let now = chance::now();
    let rows = tx.query(
        "SELECT s.account, s.person, s.id, p.role, a.first, p.name, s.used FROM session s \
         JOIN person p ON p.account = s.account AND p.person = s.person \
         JOIN account a ON a.account = s.account \
         WHERE s.hash = $1 AND s.half = 0 AND s.ends > $2 AND s.used > $3",
        &[token_hash(secret).into(), now.into(), (now - SESSION_IDLE_MS).into()],
    )?;
    let Some(row) = rows.first() else { return Ok(None) };
    let caller = Caller::Person {
        account: row.id(0)?,
        person: Uuid(row.id(1)?),
        token: Uuid(row.id(2)?),
        role: role(row.text(3)?),
        first: row.flag(4)?,
    };
    Ok(Some(Visitor { caller, name: row.text(5)?.to_owned(), used: row.int(6)? }))
}

/// What somebody may do now who was let in before; nothing if their token or session ended, or they were removed.
pub fn still(tx: &mut dyn Tx, caller: &Caller) -> Result<Option<Role>, Fail> {
    let Caller::Person { account, person, token, .. } = caller else { return Ok(None) };
    let now = chance::now();
    let who: [super::database::Value; 4] = [(*account).into(), person.0.into(), token.0.into(), now.into()];
    let rows = tx.query(
        "SELECT t.role, p.role FROM token t JOIN person p ON p.account = t.account AND p.person = t.person \
         WHERE t.account = $1 AND t.person = $2 AND t.id = $3 AND t.ends > $4",
        &who,
    )?;
    if let Some(row) = rows.first() {
        return Ok(Some(role(row.text(0)?).min(role(row.text(1)?))));
    }
    let [account, person, session, _] = who;
    let rows = tx.query(
        "SELECT p.role FROM session s JOIN person p ON p.account = s.account AND p.person = s.person \
         WHERE s.account = $1 AND s.person = $2 AND s.id = $3 AND s.half = 0 AND s.ends > $4 AND s.used > $5",
        &[account, person, session, now.into(), (now - SESSION_IDLE_MS).into()],
    )?;
    Ok(rows.first().map(|row| row.text(0).map(role)).transpose()?)
}

/// Writes down that a session is used.
pub fn used(tx: &mut dyn Tx, secret: &str) -> Result<(), Fail> {
    let sql = "UPDATE session SET used = $2 WHERE hash = $1";
    tx.execute(sql, &[token_hash(secret).into(), chance::now().into()])?;
    Ok(())
}

/// Refuses a device that there is not, or that has no session: before it is asked what it signed.
pub fn is_device(tx: &mut dyn Tx, device: [u8; 16]) -> Result<(), Fail> {
    let rows = tx.query("SELECT session FROM device WHERE device = $1", &[device.into()])?;
    match rows.first().ok_or(Refusal::Unknown)?.is_null(0) {
        true => Err(Refusal::SessionOver.into()),
        false => Ok(()),
    }
}

/// The device that signed a request.
pub fn device(
    tx: &mut dyn Tx,
    header: &DeviceHeader,
    request: &Request<'_>,
    hello: bool,
) -> Result<Caller, Fail> {
    let rows = tx.query(
        "SELECT account, identity, state, session, session_ends FROM device WHERE device = $1",
        &[header.device.into()],
    )?;
    let row = rows.first().ok_or(Refusal::Unknown)?;
    let session = row.maybe(3, Row::id::<16>)?;
    let signed =
        |session: [u8; 16]| Request { session, ..*request }.is_signed_by(&identity(row), &header.signature);
    let present = if hello { Some(NOBODY) } else { session };
    let signed = present.is_some_and(signed);
    // One who signed in a session that is over cannot be told from one who did not: both say hello again.
    if !signed {
        return Err(match hello {
            true => Fail::new(Code::BadSignature, "the request is not signed by this device"),
            false => Refusal::SessionOver.into(),
        });
    }
    if row.text(2)? == "revoked" {
        return Err(Refusal::Revoked.into());
    }
    if !hello && row.int(4)? <= chance::now() {
        return Err(Refusal::SessionOver.into());
    }
    let session = session.filter(|_| !hello).map(SessionId);
    Ok(Caller::Device { account: row.id(0)?, device: DeviceId(header.device), session })
}

fn identity(row: &Row) -> [u8; 32] {
    // What is no key signed nothing.
    row.id(1).unwrap_or([0; 32])
}

/// Counts requests: so many at once, and so many a second after that.
#[derive(Debug, Default)]
pub struct Limits {
    buckets: Mutex<Buckets>,
}

type Bucket = (f64, Instant);

/// Those that were used lately, and those before: when there are too many of the first, the others go. So none is looked
/// for among all, and no more are kept however many ask.
#[derive(Debug, Default)]
struct Buckets {
    now: HashMap<Whose, Bucket>,
    before: HashMap<Whose, Bucket>,
}

impl Buckets {
    fn of(&mut self, whose: Whose, full: Bucket) -> &mut Bucket {
        if self.now.len() >= BUCKETS_MAX && !self.now.contains_key(&whose) {
            self.before = std::mem::take(&mut self.now);
        }
        let Buckets { now, before } = self;
        now.entry(whose).or_insert_with(|| before.remove(&whose).unwrap_or(full))
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// A token's.
    Token([u8; 16]),
    /// A device's, which signed them.
    Device([u8; 16]),
    /// What came from an address and was signed by no device.
    Near(Place),
    /// Joins, logins and setups, right or wrong: each costs time or memory.
    Door(Place),
}

/// Buckets that are kept, twice.
const BUCKETS_MAX: usize = 20_000;

impl Limits {
    /// Takes one, or says after how many milliseconds there is one.
    pub fn take(&self, whose: Whose) -> Result<(), u64> {
        self.count(whose, 1.0)
    }

    /// Takes one, if there is one.
    pub fn waste(&self, whose: Whose) {
        let _ = self.count(whose, 1.0);
    }

    /// Whether there is one, without taking it.
    pub fn look(&self, whose: Whose) -> Result<(), u64> {
        self.count(whose, 0.0)
    }

    fn count(&self, whose: Whose, take: f64) -> Result<(), u64> {
        let (at_once, a_second) = match whose {
            Whose::Token(_) => (200.0, 20.0),
            Whose::Device(_) => (50.0, 5.0),
            // Beside it, behind the same address, all devices of the largest account may be.
            Whose::Near(_) => (2_000.0, 1_000.0),
            Whose::Door(_) => (30.0, 30.0 / 60.0),
        };
        let now = Instant::now();
        let mut buckets = self.buckets.lock();
        let (left, at) = buckets.of(whose, (at_once, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * a_second).min(at_once);
        *at = now;
        if *left < 1.0 {
            return Err(((1.0 - *left) / a_second * 1000.0).ceil() as u64);
        }
        *left -= take;
        Ok(())
    }
}
