//! What moves while a request is under way: who waits for it sees bytes, not only its end.
//!
//! A kind of store says here what it sends and receives, in pieces; [`crate::Patient`] listens, gives up when
//! nothing moves, and lets a kind wait before it sends more than a limit allows. It travels with the task, so
//! that the contract of a store need not know of it; outside of a [`Flow::scope`] all of this does nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

tokio::task_local! {
    static FLOW: Flow;
}

/// What moves during one request. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Flow(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// When something moved last; in the future while a limit holds the next piece back.
    last: Mutex<Instant>,
    sent: AtomicU64,
    received: AtomicU64,
    pace: Arc<Pace>,
}

impl Flow {
    /// The flow of a request that begins now and sends at this pace.
    pub(crate) fn new(pace: Arc<Pace>) -> Flow {
        let last = Mutex::new(Instant::now());
        Flow(Arc::new(Inner { last, sent: AtomicU64::new(0), received: AtomicU64::new(0), pace }))
    }

    /// Runs a request in this flow.
    pub(crate) async fn scope<F: Future>(&self, request: F) -> F::Output {
        FLOW.scope(self.clone(), request).await
    }

    /// The flow of the request that this task works for.
    pub(crate) fn current() -> Option<Flow> {
        FLOW.try_with(Clone::clone).ok()
    }

    /// Something came back, or went on where no bytes are counted.
    pub(crate) fn moved(&self) {
        *self.last() = Instant::now();
    }

    /// Bytes came back.
    pub(crate) fn received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    /// Takes leave to send bytes, and says from when on it holds. Waiting for it is no silence.
    pub(crate) fn may_send(&self, bytes: usize) -> Instant {
        let from = self.0.pace.take(bytes);
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        *self.last() = from;
        from
    }

    /// Waits until nothing has moved for so long.
    pub(crate) async fn silent_for(&self, silence: Duration) {
        loop {
            let until = *self.last() + silence;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Bytes sent so far.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Bytes received so far.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends all at once, for kinds that do not send in pieces.
pub(crate) async fn sent(bytes: usize) {
    if let Some(flow) = Flow::current() {
        let from = flow.may_send(bytes);
        sleep_until(from).await;
    }
}

/// Bytes came back, for kinds that do not receive in pieces.
pub(crate) fn received(bytes: usize) {
    if let Some(flow) = Flow::current() {
        flow.received(bytes);
    }
}

/// How fast may be sent, by all requests together.
#[derive(Debug)]
pub(crate) struct Pace {
    state: Mutex<PaceState>,
}

#[derive(Debug)]
struct PaceState {
    /// Bytes in a second; nothing is no limit.
    rate: Option<u64>,
    /// When all that was given leave to will have been sent at that rate.
    free: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Pace {
        Pace { state: Mutex::new(PaceState { rate, free: Instant::now() }) }
    }

    /// From now on this rate; who already waits is not called back.
    pub(crate) fn set(&self, rate: Option<u64>) {
        *self.state() = PaceState { rate, free: Instant::now() };
    }

    /// When these bytes may be sent.
    fn take(&self, bytes: usize) -> Instant {
        let mut state = self.state();
        let now = Instant::now();
        let Some(rate) = state.rate else { return now };
        let from = state.free.max(now);
        // A rate of less than a byte a second would be none.
        state.free = from + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        from
    }

    fn state(&self) -> MutexGuard<'_, PaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_begins_anew_with_every_byte() {
        let flow = Flow::new(Arc::new(Pace::new(None)));
        let began = Instant::now();
        let request = async {
            for _ in 0..5 {
                tokio::time::sleep(9 * SECOND).await;
                received(1);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = flow.scope(request) => panic!("it never ends"),
            () = flow.silent_for(10 * SECOND) => {}
        }
        assert_eq!(began.elapsed(), 55 * SECOND);
        assert_eq!(flow.bytes_received(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_holds_for_all_together_and_is_no_silence() {
        let pace = Arc::new(Pace::new(Some(100)));
        let began = Instant::now();
        let each = |_| {
            let flow = Flow::new(pace.clone());
            tokio::spawn(async move {
                let request = async {
                    for _ in 0..5 {
                        sent(1000).await;
                    }
                };
                tokio::select! {
                    () = flow.scope(request) => {}
                    () = flow.silent_for(5 * SECOND) => panic!("it waits for its turn"),
                }
                flow.bytes_sent()
            })
        };
        for task in [1, 2, 3].map(each) {
            assert_eq!(task.await.expect("ended"), 5000);
        }
        // The first piece need not wait; the last ends after the others were sent.
        assert_eq!(began.elapsed(), 140 * SECOND);

        pace.set(None);
        Flow::new(pace).scope(sent(1 << 30)).await;
        assert_eq!(began.elapsed(), 140 * SECOND);
    }
}
