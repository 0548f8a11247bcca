//! How far a store at work is.

use fs_replication::State as Doing;
use fs_volume::LEASE_OVER;
use tokio::time::Instant;

use super::Replicas;
use super::running::{OPEN_AGAIN, Running};
use super::words::told;
use crate::output;
use crate::promise::{Promise, seconds_since};
use crate::report::StoreReport;

impl Replicas {
    /// How far this store is.
    pub fn report(&self, running: &Running, now: i64, dirty: u64) -> StoreReport {
        let fenced = self.core.fenced.lock().clone();
        let at_work = running.shared.at_work.lock();
        let progress = at_work.uploader.as_ref().map(|uploader| uploader.progress().borrow().clone());
        let clock = Instant::now();
        let ago = |then: Instant| clock.saturating_duration_since(then).as_secs_f64();
        let replicated = progress.as_ref().and_then(|progress| progress.replicated);
        let known_to_have = running.known(progress.as_ref());
        // Nothing is asked of a store for long then, so it is told as of a volume at rest.
        let replicated = if fenced.is_some() { known_to_have } else { replicated };
        let pending = progress.as_ref().map(|progress| progress.pending).unwrap_or_default();
        // Of a store that lost what it had, the uploader alone knows since when.
        let before = pending.oldest.map(|oldest| oldest.0);
        let unknown = progress.as_ref().is_none_or(|progress| progress.state == Doing::Starting);
        let head = self.core.volume.head();
        let head_missing = known_to_have.is_none_or(|seq| seq < head.seq) && unknown;
        let known: Vec<i64> = before.into_iter().chain(head_missing.then_some(head.time.0)).collect();
        let (changes, seals, sealed_bytes) = {
            let changes = self.core.changes.lock();
            let seals = changes.missing(known_to_have).map(|seal| seal.sealed);
            (changes.oldest_missing(known_to_have), seals, changes.bytes_missing(known_to_have))
        };
        // What is sent of a seal counts as sent; but during a pause, and at its end, the uploader takes in no new ones.
        let is_paused = at_work.lease_is_over
            || progress.as_ref().is_some_and(|one| matches!(one.state, Doing::Waiting { .. }));
        let sealed_bytes = if unknown || is_paused { sealed_bytes.max(pending.bytes) } else { pending.bytes };
        let oldest = |lacking: Option<i64>| lacking.into_iter().chain(known.iter().copied()).min();
        let since = oldest(changes);
        let unsafe_seconds = since.map_or(0.0, |since| seconds_since(since, now));
        let promise = Promise { seal_every: self.core.pace.get() };
        let late_seconds = promise.late_seconds(now, since, oldest(seals));
        let trouble = progress.as_ref().and_then(|progress| progress.trouble.clone());
        let halted = progress.as_ref().and_then(|progress| progress.halted.clone());
        let needs_somebody = match &at_work.not_open {
            _ if at_work.lease_is_over => true,
            Some(not_open) => !not_open.passes,
            None => halted.is_some(),
        };
        let (last_error, last_error_seconds_ago) = match (&at_work.not_open, trouble) {
            _ if at_work.lease_is_over => {
                (Some(format!("nothing is sent any more: {LEASE_OVER}")), Some(0.0))
            }
            (Some(not_open), _) => (Some(not_open.why.clone()), Some(ago(not_open.at))),
            (None, Some(trouble)) => {
                // What somebody must mend is not mended because the store cannot be reached now.
                let error = halted.as_ref().unwrap_or(&trouble.error);
                (
                    Some(told(&self.core.folder, &running.config, error, self.core.is_ours())),
                    Some(ago(trouble.at)),
                )
            }
            (None, None) => (None, None),
        };
        let (state, next_try_seconds) = match progress.as_ref().map(|progress| progress.state) {
            _ if fenced.is_some() => ("fenced", None),
            _ if at_work.lease_is_over => ("lease-over", None),
            None if at_work.not_open.is_some() => {
                ("not-open", last_error_seconds_ago.map(|ago| (OPEN_AGAIN.as_secs_f64() - ago).max(0.0)))
            }
            None | Some(Doing::Starting) => ("starting", None),
            Some(Doing::Sending) => ("sending", None),
            Some(Doing::Done) => ("replicated", None),
            Some(Doing::Waiting { next_try }) => {
                ("waiting", Some(next_try.saturating_duration_since(clock).as_secs_f64()))
            }
            // Not yet told: its last changes are being sealed.
            Some(Doing::Fenced(_)) => ("sending", None),
        };
        StoreReport {
            name: running.config.name.clone(),
            url: running.config.url.clone(),
            arbiter: running.config.arbiter,
            state: state.into(),
            replicated_seq: replicated.map(|seq| seq.0),
            safe_as_of: replicated.map(|_| output::time_utc(since.map_or(now, |since| since.min(now)))),
            unsafe_seconds,
            unsafe_bytes: sealed_bytes + dirty,
            rate: progress.as_ref().map_or(0, |progress| progress.rate),
            sent_bytes: progress.as_ref().map_or(0, |progress| progress.sent_bytes),
            promised_seconds: promise.seconds(),
            late_seconds,
            // One that takes nothing before somebody mends it is told before something is late.
            behind: late_seconds > 0.0 || fenced.is_some() || needs_somebody,
            last_error: fenced.or(last_error),
            last_error_seconds_ago,
            next_try_seconds,
            verified: progress
                .and_then(|progress| progress.verified_at)
                .is_some_and(|at| Some(at) >= *self.asked.lock()),
            unseen_seconds: None,
            needs_somebody,
        }
    }
}
