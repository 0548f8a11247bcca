//! Deadlines and retries around a store, and what is known of it meanwhile.
//!
//! `fs/docs/replication.md` says in sections 2 and 9 how long is waited and how often.
//!
//! Invariants
//! - No request is silent for longer than a deadline, whatever the store does.
//! - After a failure the backlog drains at the pace that the store allows: few requests at once, then more.
//! - A request that failed may have been done. Tried again, a create may so answer *exists* for what it made
//!   itself: who must know reads the object.
//! - Dropping a future gives everything up that it held.
//!
//! Only who waits for ever waits for a place among [`AT_ONCE_MAX`]: a read for a file does not queue behind uploads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::chance::draw;
use crate::flow::{Flow, Pace};
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError};

/// How long a request may be silent: to the first byte, and then without one.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a read on behalf of a file may take in all.
pub const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// The longest pause before another try.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The most requests at once that wait for ever.
pub const AT_ONCE_MAX: usize = 16;
/// With how many it begins.
const AT_ONCE_FIRST: usize = 4;

/// How long to go on after a failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// One try.
    Once,
    /// Tries until so much time is over in all, as for a read for a file ([`READ_TIME_MAX`]).
    Within(Duration),
    /// Until it is done or cannot be, as for an upload in the background. *Denied* is tried again slowly too.
    Forever,
}

impl Patience {
    /// Whether a failure of that kind is met with another try.
    fn goes_on(self, kind: Kind) -> bool {
        match self {
            Patience::Once => false,
            Patience::Within(_) => kind.passes(),
            Patience::Forever => kind.passes() || kind == Kind::Denied,
        }
    }
}

/// A store with deadlines and retries. Clones, also of other patience, share all that is known of the store.
#[derive(Debug, Clone)]
pub struct Patient {
    inside: Arc<dyn Store>,
    shared: Arc<Shared>,
    patience: Patience,
}

/// What is known of a store at work. Times are counted back from, or on from, now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Requests sent, tries counted one by one.
    pub requests: Requests,
    /// Bytes of objects sent, those of failed tries too.
    pub bytes_sent: u64,
    /// Bytes received, those of failed tries too.
    pub bytes_received: u64,
    /// How long ago the store last did what it was asked for.
    pub last_success: Option<Duration>,
    /// The last error that is no plain answer (*absent*, *exists*), and how long ago it was.
    pub last_error: Option<(StoreError, Duration)>,
    /// When something is tried again next, if something waits for that.
    pub next_try: Option<Duration>,
    /// How many requests that wait for ever may be under way at once, and are.
    pub at_once: usize,
    /// Of them, those under way.
    pub under_way: usize,
}

/// Numbers of requests, by what a store charges for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Objects created, or tried to.
    pub create: u64,
    /// Objects or ranges read.
    pub get: u64,
    /// Listings; a listing of many names is several to the store.
    pub list: u64,
    /// Objects removed.
    pub remove: u64,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    pace: Arc<Pace>,
    state: Mutex<State>,
    /// A place may be free.
    place: Notify,
    /// The store is back: pauses that were for its sake end.
    back: Notify,
    /// Somebody asks for a try: all pauses end.
    now: Notify,
}

#[derive(Debug)]
struct State {
    requests: Requests,
    bytes_sent: u64,
    bytes_received: u64,
    last_success: Option<Instant>,
    last_error: Option<(StoreError, Instant)>,
    /// When those who pause go on, and how many they are.
    pauses: BTreeMap<Instant, usize>,
    at_once: usize,
    under_way: usize,
    /// When the number at once was last lowered.
    lowered: Option<Instant>,
    /// Whether nothing has succeeded since a failure that counted against the store as a whole.
    away: bool,
    /// Pauses drawn so far.
    turns: u64,
}

impl Patient {
    /// A store with patience for ever and no limit of its rate. `seed` decides the length of pauses.
    pub fn new(inside: Arc<dyn Store>, seed: u64) -> Patient {
        let state = State {
            requests: Requests::default(),
            bytes_sent: 0,
            bytes_received: 0,
            last_success: None,
            last_error: None,
            pauses: BTreeMap::new(),
            at_once: AT_ONCE_FIRST,
            under_way: 0,
            lowered: None,
            away: false,
            turns: 0,
        };
        let shared = Shared {
            seed,
            pace: Arc::new(Pace::new(None)),
            state: Mutex::new(state),
            place: Notify::new(),
            back: Notify::new(),
            now: Notify::new(),
        };
        Patient { inside, shared: Arc::new(shared), patience: Patience::Forever }
    }

    /// The same store with other patience.
    pub fn with(&self, patience: Patience) -> Patient {
        Patient { patience, ..self.clone() }
    }

    /// From now on, at most so many bytes in a second are sent, by all requests together.
    pub fn limit_rate(&self, bytes_per_second: Option<u64>) {
        self.shared.pace.set(bytes_per_second);
    }

    /// Ends all pauses: somebody asks for it, or the network is back.
    pub fn try_now(&self) {
        self.shared.now.notify_waiters();
    }

    /// What is known of the store.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        let state = self.shared.state();
        let ago = |then: Instant| now.duration_since(then);
        Status {
            requests: state.requests,
            bytes_sent: state.bytes_sent,
            bytes_received: state.bytes_received,
            last_success: state.last_success.map(ago),
            last_error: state.last_error.as_ref().map(|(error, then)| (error.clone(), ago(*then))),
            next_try: state.pauses.keys().next().map(|then| then.duration_since(now)),
            at_once: state.at_once,
            under_way: state.under_way,
        }
    }

    /// Makes a request, as often as its patience says.
    async fn run<'a, T>(
        &self,
        action: &'static str,
        object: &'a str,
        try_once: impl Fn() -> Try<'a, T> + Send + Sync,
    ) -> Result<T, StoreError> {
        let end = match self.patience {
            Patience::Within(time) => Some(Instant::now() + time),
            Patience::Once | Patience::Forever => None,
        };
        let mut tries = 0;
        loop {
            let place = match self.patience {
                Patience::Forever => Some(Place::wait(&self.shared).await),
                Patience::Once | Patience::Within(_) => None,
            };
            let began = Instant::now();
            let tried = self.shared.attempt(action, object, end, try_once()).await;
            let woken = self.shared.learn(&tried, began);
            drop(place);
            let error = match tried {
                Err(error) if self.patience.goes_on(error.kind()) => error,
                answer => return answer,
            };
            let until = Instant::now() + self.shared.pause(error.kind(), object, tries);
            if end.is_some_and(|end| until >= end) {
                // Waiting to the end would tell no more.
                return Err(error);
            }
            tries += 1;
            Pause::wait(&self.shared, until, woken).await;
        }
    }
}

/// One try of a request.
type Try<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try: to its end, to a silence, or to the end of the time for all tries.
    async fn attempt<T>(
        &self,
        action: &'static str,
        object: &str,
        end: Option<Instant>,
        request: Try<'_, T>,
    ) -> Result<T, StoreError> {
        let flow = Flow::new(self.pace.clone());
        let _counted = Counted { shared: self, flow: flow.clone() };
        {
            let requests = &mut self.state().requests;
            *match action {
                "create" => &mut requests.create,
                "list" => &mut requests.list,
                "remove" => &mut requests.remove,
                _ => &mut requests.get,
            } += 1;
        }
        let late = |what: String| Err(StoreError::new(Kind::Unreachable, action, object, what));
        let work = async {
            tokio::select! {
                biased;
                answer = flow.scope(request) => answer,
                () = flow.silent_for(SILENCE_MAX) => {
                    late(format!("nothing came or went for {} s", SILENCE_MAX.as_secs()))
                }
            }
        };
        match end {
            None => work.await,
            Some(end) => match timeout_at(end, work).await {
                Ok(answer) => answer,
                Err(_) => late("its time is over".to_owned()),
            },
        }
    }

    /// Learns from a try that began then. Says whether a pause after it ends when the store is back.
    fn learn<T>(&self, tried: &Result<T, StoreError>, began: Instant) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let kind = match tried {
            Ok(_) => None,
            // The store answered, and well.
            Err(error) if matches!(error.kind(), Kind::Absent | Kind::Exists) => None,
            Err(error) => {
                state.last_error = Some((error.clone(), now));
                Some(error.kind())
            }
        };
        // Requests that were under way together tell the same news, which counts once.
        let news = state.lowered.is_none_or(|lowered| began >= lowered);
        match kind {
            None => {
                state.last_success = Some(now);
                state.at_once = (state.at_once + 1).min(AT_ONCE_MAX);
                if std::mem::take(&mut state.away) {
                    self.back.notify_waiters();
                }
                drop(state);
                self.place.notify_waiters();
                false
            }
            Some(Kind::Busy) => {
                if news {
                    state.at_once = (state.at_once / 2).max(1);
                    state.lowered = Some(now);
                }
                false
            }
            // Where others succeed meanwhile, it is this object, and not the store.
            Some(Kind::Unreachable) if state.last_success.is_none_or(|success| success < began) => {
                if news {
                    state.at_once = 1;
                    state.lowered = Some(now);
                }
                state.away = true;
                true
            }
            Some(_) => false,
        }
    }

    /// How long to pause before try number `tries` + 1.
    fn pause(&self, kind: Kind, object: &str, tries: u32) -> Duration {
        let most = match kind {
            // Somebody must do something first.
            Kind::Denied => PAUSE_MAX,
            _ => Duration::from_secs(1 << tries.min(6)).min(PAUSE_MAX),
        };
        let mut state = self.state();
        state.turns += 1;
        let part = draw(self.seed, &[object.as_bytes()], state.turns) as f64 / u64::MAX as f64;
        most.mul_f64(part)
    }
}

/// Adds up what moved, also of a request that was given up.
struct Counted<'a> {
    shared: &'a Shared,
    flow: Flow,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.bytes_sent += self.flow.bytes_sent();
        state.bytes_received += self.flow.bytes_received();
    }
}

/// A place among the requests at once.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    async fn wait(shared: &'a Shared) -> Place<'a> {
        loop {
            let mut free = std::pin::pin!(shared.place.notified());
            // Before looking, so that what becomes free meanwhile is heard of.
            free.as_mut().enable();
            {
                let mut state = shared.state();
                if state.under_way < state.at_once {
                    state.under_way += 1;
                    return Place(shared);
                }
            }
            free.await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.place.notify_waiters();
    }
}

/// A pause that others know of.
struct Pause<'a> {
    shared: &'a Shared,
    until: Instant,
}

impl<'a> Pause<'a> {
    /// Waits until then, or until a try is asked for; with `woken`, until the store is back too.
    async fn wait(shared: &'a Shared, until: Instant, woken: bool) {
        let mut back = std::pin::pin!(shared.back.notified());
        back.as_mut().enable();
        *shared.state().pauses.entry(until).or_default() += 1;
        let _told = Pause { shared, until };
        tokio::select! {
            () = back, if woken => {}
            () = shared.now.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(number) = state.pauses.get_mut(&self.until) {
            *number -= 1;
            if *number == 0 {
                state.pauses.remove(&self.until);
            }
        }
    }
}

#[async_trait]
impl Store for Patient {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.run("create", name.as_str(), || self.inside.create(name, bytes.clone())).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.run("get", name.as_str(), || self.inside.get(name, limit)).await
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.run("get", name.as_str(), || self.inside.get_range(name, range.clone())).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.run("list", prefix.as_str(), || self.inside.list(prefix, after, limit)).await
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.run("remove", name.as_str(), || self.inside.remove(name)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::{Faults, Faulty, Memory};

    const SECOND: Duration = Duration::from_secs(1);

    /// A store that answers as it is told, by the number of the request and its name, after 100 ms.
    struct Told<F> {
        answer: F,
        began: Mutex<Vec<Instant>>,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl<F: Fn(usize, &Name) -> Result<(), Kind> + Send + Sync> Told<F> {
        fn new(answer: F) -> Arc<Told<F>> {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            Arc::new(Told { answer, began: Mutex::default(), now, most })
        }

        fn began(&self) -> Vec<Instant> {
            self.began.lock().expect("not poisoned").clone()
        }

        /// The most requests at once since this was last asked for.
        fn most_at_once(&self) -> usize {
            self.most.swap(0, Ordering::SeqCst)
        }
    }

    impl<F> std::fmt::Debug for Told<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Told")
        }
    }

    #[async_trait]
    impl<F: Fn(usize, &Name) -> Result<(), Kind> + Send + Sync> Store for Told<F> {
        fn abilities(&self) -> Abilities {
            Abilities { create_if_absent: true }
        }
        async fn create(&self, name: &Name, _: Bytes) -> Result<(), StoreError> {
            let turn = {
                let mut began = self.began.lock().expect("not poisoned");
                began.push(Instant::now());
                began.len() - 1
            };
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(SECOND / 10).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            (self.answer)(turn, name).map_err(|kind| StoreError::new(kind, "create", name, "as told"))
        }
        async fn get(&self, name: &Name, _: u64) -> Result<Bytes, StoreError> {
            self.create(name, Bytes::new()).await.map(|()| Bytes::new())
        }
        async fn get_range(&self, name: &Name, _: Range<u64>) -> Result<Bytes, StoreError> {
            self.get(name, 0).await
        }
        async fn list(&self, _: &Prefix, _: Option<&Name>, _: usize) -> Result<Vec<Entry>, StoreError> {
            Ok(Vec::new())
        }
        async fn remove(&self, _: &Name) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a good name")
    }

    async fn create(store: &Patient, text: &str) -> Result<(), Kind> {
        store.create(&name(text), "x".into()).await.map_err(|error| error.kind())
    }

    /// Creates so many objects, as many at once as it may.
    fn creates(store: &Patient, count: usize) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let store = store.clone();
            tasks.spawn(async move { create(&store, &number.to_string()).await.expect("created") });
        }
        tasks
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_given_up_after_ten_seconds() {
        let silent = Faulty::new(Memory::default(), 1);
        silent.set(Faults { silent: 1000, ..Faults::default() });
        let store = Patient::new(Arc::new(silent), 1).with(Patience::Once);
        let began = Instant::now();
        let error = store.get(&name("a"), 1).await.expect_err("silent");
        assert_eq!(began.elapsed(), SILENCE_MAX);
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("10 s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_for_a_file_has_a_minute_in_all() {
        let faulty = Arc::new(Faulty::new(Memory::default(), 1));
        for seed in 0..20 {
            let store = Patient::new(faulty.clone(), seed).with(Patience::Within(READ_TIME_MAX));
            faulty.set(Faults { silent: 1000, ..Faults::default() });
            let began = Instant::now();
            let error = store.get(&name("a"), 1).await.expect_err("silent");
            assert_eq!(error.kind(), Kind::Unreachable);
            assert!(began.elapsed() <= READ_TIME_MAX, "{:?}", began.elapsed());
            assert!(began.elapsed() > READ_TIME_MAX / 4, "{:?}", began.elapsed());

            // A storm that passes is not noticed.
            faulty.set(Faults::default());
            faulty.storm(3);
            let error = store.get(&name("a"), 1).await.expect_err("there is none");
            assert_eq!(error.kind(), Kind::Absent);
            assert_eq!(store.status().last_error.expect("it was seen").0.kind(), Kind::Busy);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_minute() {
        let mut longest = Duration::ZERO;
        for seed in 0..50 {
            let told = Told::new(|turn, _: &Name| if turn < 12 { Err(Kind::Unreachable) } else { Ok(()) });
            let store = Patient::new(told.clone(), seed);
            assert_eq!(create(&store, "a").await, Ok(()));
            let began = told.began();
            assert_eq!(began.len(), 13);
            for (tries, pair) in began.windows(2).enumerate() {
                let pause = pair[1] - pair[0] - SECOND / 10;
                let most = SECOND * [1, 2, 4, 8, 16, 32, 60][tries.min(6)];
                // The clock of tests counts in milliseconds.
                assert!(pause <= most + SECOND / 500, "pause {tries} is {pause:?}");
                longest = longest.max(pause);
            }
        }
        assert!(longest > 50 * SECOND, "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_helps_nobody_is_not_tried_again() {
        for (kind, within, forever) in [
            (Kind::Absent, 1, 1),
            (Kind::Exists, 1, 1),
            (Kind::Refused, 1, 1),
            (Kind::Damaged, 1, 1),
            (Kind::Denied, 1, 3),
            (Kind::Busy, 3, 3),
            (Kind::Unreachable, 3, 3),
        ] {
            for (patience, tries) in
                [(Patience::Once, 1), (Patience::Within(READ_TIME_MAX), within), (Patience::Forever, forever)]
            {
                let told = Told::new(move |turn, _: &Name| if turn < 2 { Err(kind) } else { Ok(()) });
                let store = Patient::new(told.clone(), 3).with(patience);
                let done = create(&store, "a").await;
                assert_eq!(told.began().len(), tries, "{kind:?} {patience:?}");
                assert_eq!(done, if tries == 3 { Ok(()) } else { Err(kind) });
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn success_adds_one_and_busy_halves() {
        let busy = Arc::new(AtomicBool::new(false));
        let told = Told::new({
            let busy = busy.clone();
            move |_, _: &Name| if busy.load(Ordering::SeqCst) { Err(Kind::Busy) } else { Ok(()) }
        });
        let store = Patient::new(told.clone(), 1);
        let mut tasks = creates(&store, 500);
        sleep(SECOND / 20).await;
        assert_eq!((told.most_at_once(), store.status().at_once), (AT_ONCE_FIRST, AT_ONCE_FIRST));
        sleep(SECOND / 10).await;
        assert_eq!((told.most_at_once(), store.status().at_once), (2 * AT_ONCE_FIRST, 2 * AT_ONCE_FIRST));
        sleep(SECOND).await;
        assert_eq!((told.most_at_once(), store.status().at_once), (AT_ONCE_MAX, AT_ONCE_MAX));
        busy.store(true, Ordering::SeqCst);
        sleep(SECOND / 10).await;
        // Those that were under way together tell it once.
        assert_eq!(store.status().at_once, AT_ONCE_MAX / 2);
        assert_eq!(store.status().last_error.expect("it was seen").0.kind(), Kind::Busy);
        sleep(10 * SECOND).await;
        assert_eq!(store.status().at_once, 1);
        busy.store(false, Ordering::SeqCst);
        while let Some(done) = tasks.join_next().await {
            done.expect("created");
        }
        assert_eq!(store.status().at_once, AT_ONCE_MAX);
        assert!(told.most_at_once() <= AT_ONCE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_the_backlog_goes_at_once_but_not_all_at_once() {
        let away = Arc::new(AtomicBool::new(true));
        let told = Told::new({
            let away = away.clone();
            move |_, _: &Name| if away.load(Ordering::SeqCst) { Err(Kind::Unreachable) } else { Ok(()) }
        });
        let store = Patient::new(told.clone(), 1);
        let mut tasks = creates(&store, 64);
        sleep(600 * SECOND).await;
        assert_eq!(store.status().at_once, 1);
        assert!(store.status().next_try.expect("something waits") <= PAUSE_MAX);
        let asked = told.began().len();
        assert!(asked < 64 * 30, "a store that is away is not stormed: {asked}");

        away.store(false, Ordering::SeqCst);
        let came_back = Instant::now();
        told.most_at_once();
        store.try_now();
        sleep(SECOND / 20).await;
        assert_eq!(told.most_at_once(), 1);
        while let Some(done) = tasks.join_next().await {
            done.expect("created");
        }
        assert!(came_back.elapsed() < 2 * SECOND, "{:?}", came_back.elapsed());
        assert_eq!(store.status().next_try, None);
        let since = told.began().split_off(asked);
        assert!(since.len() <= 64, "none is tried again that need not be");
        let in_first = since.iter().filter(|began| **began < came_back + SECOND * 3 / 10).count();
        assert!(in_first <= 8, "{in_first} in the first rounds");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_ends_the_pauses_of_all() {
        let away = Arc::new(AtomicBool::new(true));
        let told = Told::new({
            let away = away.clone();
            move |_, _: &Name| if away.load(Ordering::SeqCst) { Err(Kind::Unreachable) } else { Ok(()) }
        });
        let store = Patient::new(told.clone(), 1);
        let tasks = creates(&store, 64);
        sleep(600 * SECOND).await;
        away.store(false, Ordering::SeqCst);
        let next = store.status().next_try.expect("something waits");
        let came_back = Instant::now();
        tasks.join_all().await;
        assert!(came_back.elapsed() < next + 2 * SECOND, "{:?} after {next:?}", came_back.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_always_fails_does_not_hold_the_others() {
        let told =
            Told::new(|_, name: &Name| if name.as_str() == "bad" { Err(Kind::Unreachable) } else { Ok(()) });
        let store = Patient::new(told.clone(), 1);
        creates(&store, 50).join_all().await;
        let before = told.began().len();
        let bad = tokio::spawn({
            let store = store.clone();
            async move { create(&store, "bad").await }
        });
        for _ in 0..10 {
            creates(&store, 600).join_all().await;
            assert_eq!(store.status().at_once, AT_ONCE_MAX);
        }
        let of_bad = told.began().len() - before - 6000;
        assert!((3..12).contains(&of_bad), "{of_bad} tries in {:?}", Instant::now() - told.began()[before]);
        bad.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_holds_nothing() {
        let told = Told::new(|turn, _: &Name| if turn == 0 { Err(Kind::Unreachable) } else { Ok(()) });
        let store = Patient::new(told.clone(), 4);
        let task = tokio::spawn({
            let store = store.clone();
            async move { create(&store, "a").await }
        });
        sleep(SECOND / 20).await;
        assert_eq!(store.status().under_way, 1);
        sleep(SECOND / 10).await;
        let status = store.status();
        assert_eq!((status.under_way, status.last_success), (0, None));
        assert!(status.next_try.expect("it waits") < SECOND);
        task.abort();
        task.await.expect_err("given up");
        assert_eq!(store.status().next_try, None);

        let task = tokio::spawn({
            let store = store.clone();
            async move { create(&store, "b").await }
        });
        sleep(SECOND / 20).await;
        assert_eq!(store.status().under_way, 1);
        task.abort();
        task.await.expect_err("given up");
        assert_eq!(store.status().under_way, 0);
        assert_eq!(create(&store, "c").await, Ok(()), "its place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_counted_and_limited() {
        let store = Patient::new(Arc::new(Memory::default()), 1);
        store.limit_rate(Some(1000));
        let began = Instant::now();
        for text in ["a", "b", "c"] {
            store.create(&name(text), vec![0; 20_000].into()).await.expect("created");
        }
        // The last need not be waited for: it is what comes next that would.
        assert_eq!(began.elapsed(), 40 * SECOND);
        store.get(&name("a"), 1 << 20).await.expect("there");
        store.get_range(&name("a"), 0..10).await.expect("there");
        store.list(&Prefix::all(), None, 10).await.expect("listed");
        store.remove(&name("a")).await.expect("removed");
        sleep(SECOND).await;
        let status = store.status();
        assert_eq!(status.requests, Requests { create: 3, get: 2, list: 1, remove: 1 });
        assert_eq!((status.bytes_sent, status.bytes_received), (60_000, 20_010));
        assert_eq!((status.last_success, status.last_error), (Some(SECOND), None));
    }
}
