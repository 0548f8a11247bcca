//! The chain of an account's events: each carries a hash over the one before it and itself, and the account has the last.
//!
//! What was changed, left out or put in by somebody who did not make everything behind it anew is seen. Whoever can write the
//! hive's database can make it anew: that is seen only by who kept a hash elsewhere.

use orchestrator_api::wire::operation::Event;

use super::database::{Row, Value};
use super::fail::Fail;
use super::tenant::{EVENTS_MAX, Tenant, read};

/// Events that one look checks: a page shows far fewer, if nothing is looked for in a long past.
const CHECKED_MAX: u64 = 1_000;
/// What stands in an event's text for its own hash while it is hashed.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of an event: over the hash before it and its text, in which its own hash is zeros.
pub fn hash(before: &[u8; 32], text: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

/// What a look at the chain showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing happened yet.
    Empty,
    /// These fit together.
    Holds {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// Whether the last of them is the last of all, as the account has it.
        is_newest: bool,
    },
    /// This one does not fit to the one before it, or is not there.
    Broken(u64),
}

/// Checks events from the oldest of those that are shown on, up to the newest if that is not too far.
pub fn look(tenant: &mut Tenant<'_>, shown: &[Event]) -> Result<Look, Fail> {
    let sql = "SELECT event_number, event_hash FROM account WHERE account = $1";
    let row = tenant.one(sql, &[])?.ok_or_else(Fail::not_found)?;
    let (newest, last) = (row.count(0)?, row.id::<32>(1)?);
    if let Some(more) =
        shown.iter().map(|event| event.number.0).find(|number| *number > newest || *number == 0)
    {
        return Ok(Look::Broken(more));
    }
    if newest == 0 {
        return Ok(Look::Empty);
    }
    let from = shown.iter().map(|event| event.number.0).min().unwrap_or(newest);
    let to = newest.min(from + CHECKED_MAX - 1);
    let sql = "SELECT number, event, app, device FROM event WHERE account = $1 AND number >= $2 AND number <= $3 ORDER BY number";
    let mut rows = tenant.query(sql, &[(from - 1).into(), to.into()])?;
    let mut before = match rows.first() {
        Some(row) if row.count(0)? == from - 1 => {
            let told = read::<Event>(rows.remove(0).text(1)?).map(|event| event.hash.0);
            let Ok(told) = told else { return Ok(Look::Broken(from - 1)) };
            Some(told)
        }
        _ if from == 1 => Some([0; 32]),
        // Only what is older than what is kept goes.
        _ if newest - (from - 1) >= EVENTS_MAX => None,
        _ => return Ok(Look::Broken(from - 1)),
    };
    let mut rows = rows.iter();
    for number in from..=to {
        match rows.next().and_then(|row| fits(row, number, before)) {
            Some(hash) => before = Some(hash),
            None => return Ok(Look::Broken(number)),
        }
    }
    match to == newest && before != Some(last) {
        true => Ok(Look::Broken(newest)),
        false => Ok(Look::Holds { from, to, is_newest: to == newest }),
    }
}

/// The hash of an event, if it is the one of this number, and fits to what was before.
fn fits(row: &Row, number: u64, before: Option<[u8; 32]>) -> Option<[u8; 32]> {
    let text = row.text(1).ok()?;
    let event: Event = read(text).ok()?;
    let is_it = row.count(0).ok()? == number && event.number.0 == number;
    // By these it is found.
    let id = |at: usize, id: Option<[u8; 16]>| row.0.get(at) == Some(&Value::from(id));
    let is_found = id(2, event.app.map(|id| id.0)) && id(3, event.device.map(|id| id.0));
    // The bytes as they were written: a later version may write the same event otherwise.
    let shown = event.hash.to_string();
    let (front, end) = text.rsplit_once(&shown)?;
    let plain = format!("{front}{NO_HASH}{end}");
    let is_same = before.is_none_or(|before| hash(&before, &plain) == event.hash.0);
    (is_it && is_found && is_same).then_some(event.hash.0)
}
