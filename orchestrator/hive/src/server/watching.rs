//! Watching: people are told that something changed, and ask for what it is now.
//!
//! Invariants
//! - Whose login is over is told nothing more, [`HERE_EVERY`] later at the latest.
//! - Nothing that is sent, and not when, depends on what other accounts do.
//! - One account, and in it one person, leaves room for others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_api::text::Uuid;
use orchestrator_api::wire::operation::Changed;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Shared;
use super::auth;
use super::call::{Answering, Body, Call, Caller, Reply};
use super::database::{How, Row, Tx};
use super::fail::Fail;
use super::tenant::{AccountId, json};

/// Watchers at a time.
const ALL_MAX: usize = 500;
const OF_AN_ACCOUNT_MAX: usize = 50;
const OF_A_PERSON_MAX: usize = 20;
/// With so much that is new, a watcher is told that all changed.
const BEHIND_MAX: u64 = 1000;
const QUEUE: usize = 64;
/// A number that was given earlier may be committed later, so these many are looked at twice.
pub const LATE_MAX: u64 = 50;
/// So often a watcher hears that the hive is there, and is looked at whether it still may hear.
pub const HERE_EVERY: Duration = Duration::from_secs(10);

/// Who watches.
#[derive(Debug, Default)]
pub struct Watchers {
    open: Mutex<HashMap<(AccountId, Uuid), usize>>,
}

impl Watchers {
    fn enter(self: &Arc<Self>, account: AccountId, person: Uuid) -> Option<Watcher> {
        let mut open = self.open.lock();
        let all: usize = open.values().sum();
        let of_account: usize =
            open.iter().filter(|((of, _), _)| *of == account).map(|(_, count)| count).sum();
        let of_person = open.get(&(account, person)).copied().unwrap_or(0);
        if all >= ALL_MAX || of_account >= OF_AN_ACCOUNT_MAX || of_person >= OF_A_PERSON_MAX {
            return None;
        }
        open.insert((account, person), of_person + 1);
        Some(Watcher { all: self.clone(), who: (account, person) })
    }
}

/// One who watches, until it is dropped.
struct Watcher {
    all: Arc<Watchers>,
    who: (AccountId, Uuid),
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        match open.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.who)),
        }
    }
}

/// `GET /v1/watch`.
pub fn watch(call: Arc<Call>) -> Answering {
    Box::pin(async move {
        let (account, (person, ..)) = (call.account()?, call.person()?);
        let watcher = call.shared.watchers.enter(account, person);
        let watcher =
            watcher.ok_or_else(|| Fail::wait(10_000, "too many pages or programs watch already"))?;
        let (send, receive) = mpsc::channel::<Bytes>(QUEUE);
        tokio::spawn(async move {
            follow(&call.shared, &call.caller, account, call.last_event.is_some(), &send).await;
            drop(watcher);
        });
        Ok(Reply { body: Body::Events(receive), ..Reply::none().status(200) })
    })
}

/// What a watcher was told of. These are the hive's numbers, of whichever account: nobody outside hears them.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last change.
    newest: u64,
    /// Of the last [`LATE_MAX`] changes those of the account.
    late: BTreeSet<u64>,
}

/// What a look showed.
struct Seen {
    /// What is known now.
    known: Known,
    /// What changed in the account; none: too much to tell.
    changed: Option<Vec<Changed>>,
}

/// Tells what changes until nobody listens, or nobody may.
async fn follow(
    shared: &Shared,
    caller: &Caller,
    account: AccountId,
    comes_back: bool,
    send: &mpsc::Sender<Bytes>,
) {
    let mut changes = shared.changes();
    let mut here = tokio::time::interval_at(tokio::time::Instant::now() + HERE_EVERY, HERE_EVERY);
    // Numbers of this stream, and not of the hive: who comes back with one is told that all changed.
    let (mut number, mut since) = (0u64, None);
    let mut event = |kind: &str, data: &str| {
        number += 1;
        format!("id: {number}\nevent: {kind}\ndata: {data}\n\n")
    };
    loop {
        changes.borrow_and_update();
        let (who, from) = (caller.clone(), since.clone());
        let text = match shared
            .database
            .transact(How::Read, move |tx| look(tx, &who, account, from.as_ref()))
            .await
        {
            Ok(None) => return,
            Ok(Some(Seen { known, changed })) => match (since.replace(known), changed) {
                (None, _) if comes_back => event("all", "{}"),
                (None, _) => event("begun", "{}"),
                (Some(_), None) => event("all", "{}"),
                (Some(_), Some(changed)) => changed.iter().map(|one| event("changed", &json(one))).collect(),
            },
            Err(_) => ": the database does not answer\n\n".to_owned(),
        };
        // One who does not read is cut off.
        if !text.is_empty() && send.try_send(text.into()).is_err() {
            return;
        }
        if shared.is_closing() {
            return;
        }
        tokio::select! {
            () = send.closed() => return,
            _ = changes.changed() => {}
            _ = here.tick() => {
                if send.try_send(Bytes::from_static(b": here\n\n")).is_err() {
                    return;
                }
            }
        }
    }
}

/// What is new of an account; nothing for one who may not hear it any more.
fn look(
    tx: &mut dyn Tx,
    who: &Caller,
    account: AccountId,
    since: Option<&Known>,
) -> Result<Option<Seen>, Fail> {
    if auth::still(tx, who)?.is_none() {
        return Ok(None);
    }
    let rows = tx.query("SELECT max(revision) FROM change", &[])?;
    let newest = rows.first().map(|row| row.maybe(0, Row::count)).transpose()?.flatten().unwrap_or(0);
    let from = since.map_or(newest, |since| since.newest);
    let rows = tx.query(
        "SELECT revision, kind, id FROM change WHERE revision > $1 AND revision <= $2 AND account = $3 \
         AND kind <> 'command' ORDER BY revision LIMIT $4",
        &[
            from.saturating_sub(LATE_MAX).into(),
            newest.into(),
            account.into(),
            (BEHIND_MAX + LATE_MAX + 1).into(),
        ],
    )?;
    let mut known = Known { newest, late: BTreeSet::new() };
    let mut changed = Vec::new();
    for row in rows {
        let revision = row.count(0)?;
        if revision > newest.saturating_sub(LATE_MAX) {
            known.late.insert(revision);
        }
        if since.is_some_and(|since| !since.late.contains(&revision)) {
            changed.push(Changed { kind: row.text(1)?.to_owned(), id: row.text(2)?.to_owned() });
        }
    }
    let changed = Some(changed).filter(|changed| changed.len() as u64 <= BEHIND_MAX);
    Ok(Some(Seen { known, changed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leaves_room_for_others() {
        let watchers = Arc::new(Watchers::default());
        let enter = |account: u8, person: u8| watchers.enter([account; 16], Uuid([person; 16]));
        let mut open: Vec<Watcher> = (0..20).map_while(|_| enter(1, 1)).collect();
        assert_eq!(open.len(), 20);
        assert!(enter(1, 1).is_none(), "of a person");
        open.extend((0..30).map_while(|at| enter(1, 2 + at % 2)));
        assert!(open.len() == 50 && enter(1, 9).is_none(), "of an account");
        open.push(enter(2, 1).expect("another account has room"));
        open.remove(0);
        assert!(enter(1, 1).is_some());
        open.clear();
        assert!(watchers.open.lock().is_empty(), "nothing is left behind");
    }
}
