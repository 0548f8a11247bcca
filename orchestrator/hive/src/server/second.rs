//! The second factor: codes of an authenticator app (RFC 6238: SHA-1, 6 digits, 30 s), and recovery codes.
//!
//! Invariants
//! - A code is good once: the step of the last one that was taken is kept, and none at or before it is taken.
//! - Recovery codes are kept as hashes, and each is good once.
//! - A secret that is not confirmed is forgotten soon, and with a new password: whoever saw it in a session that was stolen
//!   does not have that of a second factor which is taken up later.

use hmac::{Hmac, KeyInit, Mac};
use orchestrator_api::text::Uuid;
use sha1::Sha1;

use super::chance;
use super::database::Row;
use super::fail::Fail;
use super::tenant::{Tenant, json, read};

const STEP_S: u64 = 30;
/// Steps before and after the present one whose codes are taken: clocks differ.
const STEPS_AROUND: u64 = 1;
/// Within so many steps what was begun is confirmed, or another secret is made: 15 minutes.
const STEPS_BEGUN: u64 = 30;
/// Recovery codes that are made.
const RECOVERY_CODES: usize = 10;

/// The code of a step.
pub fn code(secret: &[u8], step: u64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let at = usize::from(hash[19] & 0x0f);
    let four = [hash[at] & 0x7f, hash[at + 1], hash[at + 2], hash[at + 3]];
    format!("{:06}", u32::from_be_bytes(four) % 1_000_000)
}

fn step_at(now_ms: i64) -> u64 {
    now_ms.unsigned_abs() / 1000 / STEP_S
}

/// The step whose code this is, if it is near the present one and after the last one that was taken.
pub fn step_of(secret: &[u8], now_ms: i64, given: &str, last: u64) -> Option<u64> {
    let now = step_at(now_ms);
    let near = now.saturating_sub(STEPS_AROUND)..=now + STEPS_AROUND;
    // All of them are compared, as hashes: the time says nothing.
    let given = blake3::hash(given.as_bytes());
    near.fold(None, |found, step| {
        let is_it = (blake3::hash(code(secret, step).as_bytes()) == given) & (step > last);
        if is_it { Some(step) } else { found }
    })
}

/// RFC 4648 without padding: what authenticator apps read.
pub fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut held, mut out) = (0u32, 0, String::new());
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(char::from(LETTERS[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        out.push(char::from(LETTERS[(bits << (5 - held) & 31) as usize]));
    }
    out
}

/// What an authenticator app scans. Name and account are plain: letters, digits, hyphens.
pub fn uri(secret: &[u8], name: &str) -> String {
    format!("otpauth://totp/Comb:{name}?secret={}&issuer=Comb", base32(secret))
}

struct Second {
    secret: Vec<u8>,
    is_on: bool,
    /// That of the last code that was taken: none of it or before it is taken. While it is not on, one shortly before it
    /// was begun.
    step: u64,
    codes: Vec<String>,
}

/// What [`Second::step`] is where it is begun now.
fn begun_at(now_ms: i64) -> u64 {
    step_at(now_ms).saturating_sub(STEPS_AROUND + 1)
}

impl Second {
    /// Whether it was begun lately, and waits for its first code.
    fn is_begun(&self, now_ms: i64) -> bool {
        !self.is_on && begun_at(now_ms).abs_diff(self.step) <= STEPS_BEGUN
    }
}

fn load(tenant: &mut Tenant<'_>, person: Uuid) -> Result<Option<Second>, Fail> {
    let sql = "SELECT secret, is_on, step, codes FROM second WHERE account = $1 AND person = $2";
    let Some(row) = tenant.one(sql, &[person.0.into()])? else { return Ok(None) };
    let codes = read(row.text(3)?)?;
    Ok(Some(Second { secret: row.bytes(0)?.to_vec(), is_on: row.flag(1)?, step: row.count(2)?, codes }))
}

/// Whether a login of this person needs it.
pub fn is_on(tenant: &mut Tenant<'_>, person: Uuid) -> Result<bool, Fail> {
    Ok(load(tenant, person)?.is_some_and(|second| second.is_on))
}

/// How many recovery codes are left.
pub fn codes_left(tenant: &mut Tenant<'_>, person: Uuid) -> Result<usize, Fail> {
    Ok(load(tenant, person)?.map_or(0, |second| second.codes.len()))
}

/// Begins to take it up: a new secret, which does nothing before a code of it was given. Who comes again soon sees the same.
pub fn begin(tenant: &mut Tenant<'_>, person: Uuid) -> Result<Vec<u8>, Fail> {
    let now = chance::now();
    match load(tenant, person)? {
        Some(second) if second.is_on => {
            return Err(Fail::state("the second factor is on already").hint("Turn it off first."));
        }
        Some(second) if second.is_begun(now) => return Ok(second.secret),
        _ => forget_begun(tenant, person)?,
    }
    let secret = chance::bytes::<20>();
    tenant.execute(
        "INSERT INTO second (account, person, secret, is_on, step, codes) VALUES ($1, $2, $3, 0, $4, '[]')",
        &[person.0.into(), secret.as_slice().into(), begun_at(now).into()],
    )?;
    Ok(secret.to_vec())
}

/// Forgets a secret that was not confirmed.
pub fn forget_begun(tenant: &mut Tenant<'_>, person: Uuid) -> Result<(), Fail> {
    let sql = "DELETE FROM second WHERE account = $1 AND person = $2 AND is_on = 0";
    tenant.execute(sql, &[person.0.into()])?;
    Ok(())
}

fn hash(given: &str) -> String {
    let plain: String = given.chars().filter(char::is_ascii_alphanumeric).collect();
    blake3::hash(plain.to_ascii_uppercase().as_bytes()).to_hex().to_string()
}

/// Turns it on, if the code is right; the recovery codes, told once.
pub fn confirm(tenant: &mut Tenant<'_>, person: Uuid, given: &str) -> Result<Vec<String>, Fail> {
    let now = chance::now();
    let second = load(tenant, person)?.filter(|second| second.is_begun(now)).ok_or_else(|| {
        Fail::state("there is nothing to confirm").hint("Begin again: what is shown is good for 15 minutes.")
    })?;
    let plain: String = given.chars().filter(char::is_ascii_digit).collect();
    let Some(step) = step_of(&second.secret, now, &plain, second.step) else {
        return Err(Fail::field("code", "this is not the present code")
            .hint("See that the clocks of the phone and of the hive are right, and use the next code."));
    };
    let codes: Vec<String> = (0..RECOVERY_CODES)
        .map(|_| {
            let text = base32(&chance::bytes::<10>());
            [&text[..4], &text[4..8], &text[8..12], &text[12..16]].join("-")
        })
        .collect();
    let hashes: Vec<String> = codes.iter().map(|code| hash(code)).collect();
    tenant.execute(
        "UPDATE second SET is_on = 1, step = $3, codes = $4 WHERE account = $1 AND person = $2",
        &[person.0.into(), step.into(), json(&hashes).into()],
    )?;
    tenant.event("second_on", super::tenant::About::default());
    Ok(codes)
}

/// Whether a code of the app, or a recovery code, is right; it is used up by that. True where it is off.
pub fn check(tenant: &mut Tenant<'_>, person: Uuid, given: &str) -> Result<bool, Fail> {
    let Some(second) = load(tenant, person)?.filter(|second| second.is_on) else { return Ok(true) };
    let plain: String = given.chars().filter(|one| !one.is_whitespace()).collect();
    if let Some(step) = step_of(&second.secret, chance::now(), &plain, second.step) {
        tenant.execute(
            "UPDATE second SET step = $3 WHERE account = $1 AND person = $2",
            &[person.0.into(), step.into()],
        )?;
        return Ok(true);
    }
    let given = hash(&plain);
    let rest: Vec<&String> = second.codes.iter().filter(|code| **code != given).collect();
    if rest.len() == second.codes.len() {
        return Ok(false);
    }
    tenant.execute(
        "UPDATE second SET codes = $3 WHERE account = $1 AND person = $2",
        &[person.0.into(), json(&rest).into()],
    )?;
    Ok(true)
}

/// Turns it off.
pub fn off(tenant: &mut Tenant<'_>, person: Uuid) -> Result<(), Fail> {
    let sql = "DELETE FROM second WHERE account = $1 AND person = $2";
    if tenant.execute(sql, &[person.0.into()])? > 0 {
        tenant.event("second_off", super::tenant::About::default().with("person", person.to_string()));
    }
    Ok(())
}

/// Whose names need a second factor, of an account.
pub fn people(tenant: &mut Tenant<'_>) -> Result<Vec<Uuid>, Fail> {
    let rows = tenant.query("SELECT person FROM second WHERE account = $1 AND is_on = 1", &[])?;
    Ok(rows.iter().map(|row: &Row| row.id(0).map(Uuid)).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, the last six of its eight digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        let secret = b"12345678901234567890";
        let table = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000u64, "353130"),
        ];
        for (seconds, digits) in table {
            assert_eq!(code(secret, seconds / STEP_S), digits);
        }
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(secret), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn what_was_begun_waits_for_a_quarter_of_an_hour() {
        let now = 1_800_000_000_000;
        let begun = Second { secret: vec![7; 20], is_on: false, step: begun_at(now), codes: Vec::new() };
        for (minutes, is_begun) in [(0, true), (15, true), (16, false), (-16, false)] {
            assert_eq!(begun.is_begun(now + minutes * 60_000), is_begun, "{minutes}");
        }
        // Its first code may be of a clock that is behind.
        let before = code(&begun.secret, step_at(now) - STEPS_AROUND);
        assert!(step_of(&begun.secret, now, &before, begun.step).is_some());
        assert!(!Second { is_on: true, ..begun }.is_begun(now));
    }

    #[test]
    fn a_code_is_good_once_and_near_its_time() {
        let secret = b"12345678901234567890";
        let now = 59_000;
        assert_eq!(step_of(secret, now, "287082", 0), Some(1));
        assert_eq!(step_of(secret, now, "287082", 1), None);
        assert_eq!(step_of(secret, now + 30_000, "287082", 0), Some(1));
        assert_eq!(step_of(secret, now + 90_000, "287082", 0), None);
        assert_eq!(step_of(secret, now, "28708", 0), None);
        assert_eq!(step_of(secret, now, "", 0), None);
    }
}
