//! The uploader: its pace, and a store that fails in every way.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fs_format::{Epoch, ManifestId, PackId, Seq, Timestamp};
use fs_store::{Abilities, Entry, Faults, Faulty, Kind, Memory, Name, Prefix, Store, StoreError};
use tokio::time::Instant;

use super::world::{Folder, Machine, manifest, pack, volume};
use crate::{
    Error, Fence, Handle, Link, Names, Pace, Progress, Remote, Role, Settings, Signer, State, StoreId,
    Uploader,
};

const MIB: usize = 1 << 20;

/// A store that takes 20 ms for everything, and counts; it can be told to stop at a request.
#[derive(Debug)]
struct Slow<S> {
    inside: S,
    under_way: AtomicUsize,
    bytes: AtomicUsize,
    most: AtomicUsize,
    most_bytes: AtomicUsize,
    requests: AtomicUsize,
}

/// What a request takes.
const TAKES: Duration = Duration::from_millis(20);

impl<S: Store> Slow<S> {
    fn new(inside: S) -> Arc<Slow<S>> {
        let zero = AtomicUsize::default;
        Arc::new(Slow {
            inside,
            under_way: zero(),
            bytes: zero(),
            most: zero(),
            most_bytes: zero(),
            requests: zero(),
        })
    }

    async fn count<T>(&self, bytes: usize, request: impl Future<Output = T>) -> T {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most_bytes.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(TAKES).await;
        let answer = request.await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        answer
    }
}

#[async_trait]
impl<S: Store> Store for Slow<S> {
    fn abilities(&self) -> Abilities {
        self.inside.abilities()
    }
    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.count(bytes.len(), self.inside.create(name, bytes)).await
    }
    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        self.count(0, self.inside.get(name, limit)).await
    }
    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.count(0, self.inside.get_range(name, range)).await
    }
    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.count(0, self.inside.list(prefix, after, limit)).await
    }
    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.count(0, self.inside.remove(name)).await
    }
}

fn settings() -> Settings {
    Settings {
        volume: volume(),
        epoch: Epoch(1),
        role: Role::Arbiter,
        id: None,
        seen: None,
        pace: Pace::default(),
        seed: 1,
    }
}

fn uploader(store: Arc<dyn Store>, folder: &Arc<Folder>, settings: Settings) -> (Uploader, Handle) {
    Uploader::new(store, folder.clone(), Machine::new(1), settings)
}

/// A folder of which the seals after the first add packs of this many bytes each.
fn folder(packs_of_seals: &[usize], bytes: usize) -> Arc<Folder> {
    let folder = Folder::sealed(1, 1, 1);
    let mut made = 0;
    for &count in packs_of_seals {
        let packs: Vec<(PackId, Bytes)> = (0..count).map(|n| pack(made + n as u64, bytes)).collect();
        made += count as u64;
        folder.seal(1, 1, &packs);
    }
    Arc::new(folder)
}

/// Runs until all is replicated, or its right has ended.
async fn finish(uploader: Uploader, handle: &Handle, last: Seq) {
    let run = tokio::spawn(uploader.run());
    handle.replicated(last).await.expect("replicated");
    run.abort();
}

/// Everything of the folder is in the store, byte for byte.
async fn all_there(store: &dyn Store, folder: &Folder) {
    use crate::Local;
    let names = Names::of(&volume());
    for (seq, bytes) in folder.manifests() {
        assert_eq!(store.get(&names.slot(seq), 1 << 20).await, Ok(bytes), "slot {seq}");
    }
    for id in folder.packs_to(folder.last()) {
        let bytes = folder.pack(&id).await.expect("here");
        assert!(store.get(&names.pack(&id), 1 << 30).await.expect("there") == bytes, "pack {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_upload_keeps_sixteen_requests_busy() {
    // 1 GiB in packs of 16 MiB, but each byte stands for 1,024.
    let folder = folder(&[64], 16 << 10);
    let store = Slow::new(Memory::default());
    let pace = Pace { bytes: 16 * (18 << 10), ..Pace::default() };
    let (uploader, handle) = uploader(store.clone(), &folder, Settings { pace, ..settings() });
    let begin = Instant::now();
    finish(uploader, &handle, Seq(2)).await;
    // Four times 16 packs; where it stands takes two requests, and each of two slots two, of which those
    // of the first overlap with packs.
    assert!(begin.elapsed() <= 9 * TAKES, "{:?}", begin.elapsed());
    // The slot of the first seal is on its way beside the packs of the second.
    assert!((16..=17).contains(&store.most.load(Ordering::Relaxed)), "{:?}", store.most);
    all_there(&store.inside, &folder).await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let folder = folder(&[40], 1000);
    for (bytes, most) in [(5_500, 5_272), (10, 1_272)] {
        let store = Slow::new(Memory::default());
        let pace = Pace { bytes, ..Pace::default() };
        let (uploader, handle) = uploader(store.clone(), &folder, Settings { pace, ..settings() });
        finish(uploader, &handle, Seq(2)).await;
        // Beside packs there is a manifest of 272 bytes.
        assert_eq!(store.most_bytes.load(Ordering::Relaxed), most);
        all_there(&store.inside, &folder).await;
    }
}

#[tokio::test(start_paused = true)]
async fn packs_go_ahead_while_slots_are_created() {
    let folder = folder(&[1; 20], 100);
    let store = Slow::new(Memory::default());
    let (uploader, handle) = uploader(store.clone(), &folder, settings());
    let begin = Instant::now();
    finish(uploader, &handle, Seq(21)).await;
    // Two requests a slot, and nothing in between.
    assert!(begin.elapsed() <= (2 * 21 + 3) * TAKES, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn packs_of_a_seal_that_is_made_go_ahead() {
    let folder = folder(&[], 0);
    let store = Slow::new(Memory::default());
    let (uploader, handle) = uploader(store.clone(), &folder, settings());
    let run = tokio::spawn(uploader.run());
    handle.replicated(Seq(1)).await.expect("replicated");

    let packs: Vec<(PackId, Bytes)> = (0..20).map(|n| pack(n, 100)).collect();
    let sent = |handle: &Handle| handle.progress().borrow().sent_bytes;
    folder.begin_seal(&packs[..4]);
    handle.early();
    tokio::time::sleep(3 * TAKES).await;
    assert_eq!(sent(&handle), 400, "before the seal is made");
    // More comes while those are on their way; the seal ends while some of it is, and has two that nobody was told of.
    folder.begin_seal(&packs[..18]);
    handle.early();
    tokio::time::sleep(TAKES / 2).await;
    let before = store.requests.load(Ordering::Relaxed);
    folder.seal(1, 1, &packs);
    handle.sealed();
    handle.replicated(Seq(2)).await.expect("replicated");
    all_there(&store.inside, &folder).await;
    assert_eq!(sent(&handle), 20 * 100, "each once");
    // Two packs and a slot with its look; a look whether the store still has the one before, should the pass have ended.
    let requests = store.requests.load(Ordering::Relaxed) - before;
    assert!((4..=5).contains(&requests), "{requests}");
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_seal_had_written_is_missed_by_nobody() {
    let folder = folder(&[], 0);
    let store = Slow::new(Memory::default());
    let (uploader, handle) = uploader(store.clone(), &folder, settings());
    let run = tokio::spawn(uploader.run());
    handle.replicated(Seq(1)).await.expect("replicated");

    let packs: Vec<(PackId, Bytes)> = (0..60).map(|n| pack(n, 100)).collect();
    // It fails while the first sixteen are on their way, or before they are read.
    for pause in [TAKES / 2, TAKES, 3 * TAKES, Duration::ZERO] {
        folder.begin_seal(&packs[..30]);
        handle.early();
        tokio::time::sleep(pause).await;
        folder.fail_seal();
        tokio::time::sleep(10 * TAKES).await;
        let progress = handle.progress().borrow().clone();
        assert_eq!(
            (progress.state, progress.trouble.is_none()),
            (State::Done, true),
            "{:?}",
            progress.trouble
        );
    }
    folder.begin_seal(&packs[30..50]);
    handle.early();
    tokio::time::sleep(TAKES / 2).await;
    folder.seal(1, 1, &packs[30..]);
    handle.sealed();
    handle.replicated(Seq(2)).await.expect("replicated");
    all_there(&store.inside, &folder).await;
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn what_went_ahead_is_sent_again_where_the_store_fails() {
    for seed in 0..200 {
        let folder = folder(&[3], 100);
        let faulty = Faulty::new(Memory::default(), seed);
        faulty.set(BAD);
        let store = Slow::new(faulty);
        let (uploader, handle) = uploader(store.clone(), &folder, Settings { seed, ..settings() });
        let run = tokio::spawn(uploader.run());
        let mut made = 1000;
        for seal in 0..5 {
            let packs: Vec<(PackId, Bytes)> = (0..20).map(|n| pack(made + n, 100)).collect();
            made += 20;
            for count in [4, 8, 12, 16] {
                folder.begin_seal(&packs[..count]);
                handle.early();
                tokio::time::sleep(TAKES * (seed % 7) as u32 / 2).await;
            }
            if seal == 2 {
                folder.fail_seal();
                continue;
            }
            folder.seal(1, 1, &packs);
            handle.sealed();
        }
        let waited = tokio::time::timeout(Duration::from_secs(3600), handle.replicated(folder.last())).await;
        waited.expect("in time").expect("replicated");
        run.abort();
        all_there(store.inside.inside(), &folder).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let folder = folder(&[10], 100_000);
    let pace = Pace { rate: Some(50_000), ..Pace::default() };
    let store = Slow::new(Memory::default());
    let (uploader, handle) = uploader(store, &folder, Settings { pace, ..settings() });
    let begin = Instant::now();
    finish(uploader, &handle, Seq(2)).await;
    // A million bytes take 20 s; the last pack may begin 2 s before that.
    let took = begin.elapsed().as_secs_f64();
    assert!((18.0..21.0).contains(&took), "{took}");
    let progress = handle.progress().borrow().clone();
    assert_eq!(progress.sent_bytes, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_told_and_passes() {
    let folder = folder(&[2, 3], 100);
    let store = Arc::new(Faulty::new(Memory::default(), 1));
    store.set_away(true);
    let (uploader, handle) = uploader(store.clone(), &folder, settings());
    let run = tokio::spawn(uploader.run());
    tokio::time::sleep(Duration::from_secs(600)).await;

    let progress = handle.progress().borrow().clone();
    let State::Waiting { next_try } = progress.state else { panic!("{:?}", progress.state) };
    assert!(next_try > Instant::now() && next_try <= Instant::now() + Duration::from_secs(60));
    let trouble = progress.trouble.expect("trouble");
    assert!(matches!(&trouble.error, Error::Store(error) if error.kind() == Kind::Unreachable));
    assert!((10..60).contains(&trouble.times), "pauses grow, but not for ever: {}", trouble.times);
    let pending = progress.pending;
    assert_eq!((pending.seals, pending.packs, pending.bytes), (3, 5, 500), "it counts what waits");
    assert_eq!(pending.oldest, Some(Timestamp(1)));

    store.set_away(false);
    handle.hurry();
    tokio::time::timeout(Duration::from_millis(10), handle.replicated(Seq(3)))
        .await
        .expect("at once")
        .expect("done");
    tokio::task::yield_now().await;
    let progress = handle.progress().borrow().clone();
    assert_eq!((progress.state, progress.pending), (State::Done, Default::default()));
    run.abort();
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_gets_fewer_requests() {
    let folder = folder(&[200], 100);
    let faulty = Faulty::new(Memory::default(), 1);
    faulty.set(Faults { busy: 300, ..Faults::default() });
    let store = Slow::new(faulty);
    let (uploader, handle) = uploader(store.clone(), &folder, settings());
    finish(uploader, &handle, Seq(2)).await;
    let requests = store.requests.load(Ordering::Relaxed);
    // Three of ten are turned away; nothing that was answered for is sent again.
    assert!((200..420).contains(&requests), "{requests}");
    all_there(store.inside.inside(), &folder).await;
}

#[tokio::test(start_paused = true)]
async fn no_seal_is_overheard() {
    for pause in (0..60).map(|n| Duration::from_millis(7 * n)) {
        let folder = folder(&[1], 100);
        let store = Slow::new(Memory::default());
        let (uploader, handle) = uploader(store.clone(), &folder, settings());
        let run = tokio::spawn(uploader.run());
        for n in 0..5 {
            tokio::time::sleep(pause).await;
            folder.seal(1, 1, &[pack(100 + n, 50)]);
            handle.sealed();
        }
        let waited = tokio::time::timeout(Duration::from_secs(2), handle.replicated(folder.last())).await;
        waited.expect("no bell was missed").expect("replicated");
        run.abort();
        all_there(&store.inside, &folder).await;
    }
}

/// A store that fails in every way that a store may.
const BAD: Faults =
    Faults { lost: 100, busy: 80, unreachable: 80, silent: 20, cut: 80, flipped: 80, foreign: 80, late: 0 };

#[tokio::test(start_paused = true)]
async fn a_bad_store_ends_up_with_everything() {
    for seed in 0..150 {
        let folder = folder(&[3, 0, 2, 5], 100);
        let store = Arc::new(Faulty::new(Memory::default(), seed));
        store.set(BAD);
        let (uploader, handle) = uploader(store.clone(), &folder, Settings { seed, ..settings() });
        let run = tokio::spawn(uploader.run());
        let mut seals = 0;
        let mut told = Seq(0);
        let mut progress: tokio::sync::watch::Receiver<Progress> = handle.progress();
        while told < Seq(8) {
            let changed = tokio::time::timeout(Duration::from_secs(24 * 3600), progress.changed()).await;
            let stuck = || format!("seed {seed}: {:?}", handle.progress().borrow());
            changed.unwrap_or_else(|_| panic!("{}", stuck())).unwrap_or_else(|_| panic!("{}", stuck()));
            let now = progress.borrow_and_update().clone();
            assert_eq!(now.fenced(), None, "seed {seed}");
            let replicated = now.replicated.unwrap_or_default();
            assert!(replicated >= told, "seed {seed}: it only grows");
            told = replicated;
            if seals < 3 && told >= folder.last() {
                seals += 1;
                folder.seal(1, 1, &[pack(1000 + seals, 80)]);
                handle.sealed();
            }
        }
        run.abort();
        all_there(store.inside(), &folder).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_a_death_at_every_request() {
    let folder = folder(&[2, 1, 3], 100);
    let mut deaths = 0;
    for at in 1.. {
        // Every time half-way through a request, and every second time after the store did it.
        let store = Slow::new(Memory::default());
        let mut lives = 0;
        loop {
            lives += 1;
            assert!(lives < 100, "it gets nowhere");
            let (uploader, handle) = uploader(store.clone(), &folder, settings());
            let run = tokio::spawn(uploader.run());
            let dies_at = store.requests.load(Ordering::Relaxed) + at;
            let died = async {
                while store.requests.load(Ordering::Relaxed) < dies_at {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(Duration::from_millis(if at % 2 == 0 { 1 } else { 21 })).await;
            };
            let done = tokio::select! { biased;
                done = handle.replicated(folder.last()) => { done.expect("replicated"); true }
                () = died => false,
            };
            run.abort();
            let _ = run.await;
            if done {
                break;
            }
            deaths += 1;
            // Less than finding out where it stands and one commit is no progress, so let it live longer.
            if lives > 20 {
                let (uploader, handle) = self::uploader(store.clone(), &folder, settings());
                finish(uploader, &handle, folder.last()).await;
                break;
            }
        }
        all_there(&store.inside, &folder).await;
        if lives == 1 {
            assert!(deaths > 20, "{deaths}");
            return;
        }
    }
}

/// What an uploader fails with first.
async fn trouble(store: Arc<dyn Store>, folder: &Arc<Folder>, settings: Settings) -> Error {
    let (uploader, handle) = uploader(store, folder, settings);
    let run = tokio::spawn(uploader.run());
    let mut progress = handle.progress();
    let told = progress.wait_for(|now| now.trouble.is_some()).await.expect("it runs").clone();
    run.abort();
    told.trouble.expect("trouble").error
}

async fn filled(folder: &Arc<Folder>) -> Memory {
    let store = Memory::default();
    let (uploader, handle) = uploader(Arc::new(store.clone()), folder, settings());
    finish(uploader, &handle, folder.last()).await;
    store
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_put_back_while_we_write_is_noticed_within_minutes() {
    let ours = folder(&[0, 0], 0);
    let store = Memory::default();
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings());
    let running = tokio::spawn(uploader.run());
    handle.replicated(ours.last()).await.expect("replicated");
    store.remove(&Names::of(&volume()).slot(ours.last())).await.expect("removed");
    tokio::time::advance(Duration::from_secs(601)).await;
    ours.seal(1, 1, &[]);
    handle.sealed();
    let mut progress = handle.progress();
    let troubled = progress.wait_for(|progress| progress.trouble.is_some());
    let error = troubled.await.expect("told").trouble.clone().expect("trouble").error;
    assert!(matches!(error, Error::RolledBack { found: Some(found), .. } if found.seq == Seq(2)), "{error}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_put_back_while_nothing_is_written_is_noticed_within_minutes() {
    for role in [Role::Arbiter, Role::Copy] {
        let ours = folder(&[0, 0], 0);
        let store = Memory::default();
        let settings = Settings { role, ..settings() };
        let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings);
        let running = tokio::spawn(uploader.run());
        handle.replicated(ours.last()).await.expect("replicated");
        let name = Names::of(&volume()).slot(ours.last());
        let newest = store.get(&name, 1 << 20).await.expect("there");
        store.remove(&name).await.expect("removed");

        // Nothing is written, and nobody asks.
        let begun = Instant::now();
        let mut progress = handle.progress();
        let halted = progress.wait_for(|progress| progress.halted.is_some()).await.expect("it runs").clone();
        assert!(matches!(halted.halted, Some(Error::RolledBack { .. })), "{halted:?}");
        assert_eq!(halted.replicated, Some(Seq(2)), "what it lost, it lacks");
        assert!(begun.elapsed() < Duration::from_mins(13), "{:?}", begun.elapsed());

        // It comes back.
        store.create(&name, newest).await.expect("created");
        progress.wait_for(|progress| progress.halted.is_none()).await.expect("it runs");
        assert_eq!(handle.progress().borrow().replicated, Some(Seq(3)));
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_with_an_older_past_goes_on_above_what_was_given_up() {
    use crate::Local;
    for role in [Role::Arbiter, Role::Copy] {
        let ours = folder(&[1, 1], 10);
        let store = filled(&ours).await;
        let link = |seq| Link { epoch: Epoch(1), seq, id: ours.id(seq) };
        let seen = link(Seq(3));
        for _ in 0..4 {
            ours.seal(1, 1, &[]);
        }
        ours.begin_with(Seq(6));
        let names = Names::of(&volume());

        // Nobody knows whose seal 3 is, who has not seen it there.
        let settings = Settings { role, ..settings() };
        let error = trouble(Arc::new(store.clone()), &ours, settings.clone()).await;
        assert!(matches!(error, Error::Gap { store: Seq(3), first: Seq(6) }), "{error}");
        // Somebody else went on from there.
        let other = store.clone();
        let theirs = manifest(1, 4, seen.id, 9);
        other.create(&names.slot(Seq(4)), theirs).await.expect("created");
        let settings = Settings { seen: Some(seen), ..settings };
        let error = trouble(Arc::new(other.clone()), &ours, settings.clone()).await;
        assert!(matches!(error, Error::Gap { .. }), "{error}");
        other.remove(&names.slot(Seq(4))).await.expect("removed");

        // It is as it was left.
        let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings.clone());
        finish(uploader, &handle, Seq(7)).await;
        let remote = Remote::new(Arc::new(store.clone()), volume());
        assert_eq!(remote.listed().await.expect("listed").boundary, Some(Seq(5)), "{role:?}");
        assert_eq!(remote.slots(None, 9).await.expect("listed"), [7, 6, 3, 2, 1].map(Seq));
        for id in ours.packs_to(ours.last()) {
            let bytes = ours.pack(&id).await.expect("here");
            assert_eq!(store.get(&names.pack(&id), 1 << 20).await, Ok(bytes));
        }
        // And stays so.
        let settings = Settings { seen: Some(link(Seq(7))), ..settings };
        let (uploader, handle) = self::uploader(Arc::new(store.clone()), &ours, settings);
        ours.seal(1, 1, &[]);
        finish(uploader, &handle, Seq(8)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_fit_is_refused_with_the_reason() {
    let ours = folder(&[0, 0], 0);
    let store = filled(&ours).await;

    let id = Some(StoreId([1; 16]));
    let error = trouble(Arc::new(store.clone()), &ours, Settings { id, ..settings() }).await;
    assert_eq!(error, Error::UnknownVolume { expected: StoreId([1; 16]) });

    let late = Arc::new(Folder::begin(9, manifest(1, 9, ManifestId([3; 32]), 1)));
    let error = trouble(Arc::new(store.clone()), &late, settings()).await;
    assert_eq!(error, Error::Gap { store: Seq(3), first: Seq(9) });

    let seen = Link { epoch: Epoch(1), seq: Seq(4), id: ManifestId([4; 32]) };
    let error = trouble(Arc::new(store.clone()), &ours, Settings { seen: Some(seen), ..settings() }).await;
    assert!(matches!(error, Error::RolledBack { found: Some(found), .. } if found.seq == Seq(3)), "{error}");
    let error =
        trouble(Arc::new(Memory::default()), &ours, Settings { seen: Some(seen), ..settings() }).await;
    assert_eq!(error, Error::RolledBack { seen, found: None });

    // A copy with another history is not overwritten, nor does it end our right.
    let other = Folder::sealed(1, 3, 7);
    let other = Arc::new(other);
    let copy = Settings { role: Role::Copy, ..settings() };
    let error = trouble(Arc::new(store.clone()), &other, copy).await;
    assert!(matches!(error, Error::Differs { seq: Seq(3), .. }), "{error}");
    assert!(!error.passes());
    all_there(&store, &ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_under_a_running_writer_gets_no_further_slot() {
    let ours = folder(&[1, 1], 10);
    let store = Memory::default();
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings());
    let run = tokio::spawn(uploader.run());
    handle.replicated(Seq(3)).await.expect("replicated");
    let names = Names::of(&volume());
    let forgotten = store.get(&names.slot(Seq(3)), 1 << 20).await.expect("it was there");
    store.remove(&names.slot(Seq(3))).await.expect("removed");

    ours.seal(1, 1, &[]);
    handle.sealed();
    let mut progress = handle.progress();
    let told = progress.wait_for(|now| now.trouble.is_some()).await.expect("it runs").clone();
    let error = told.trouble.expect("trouble").error;
    assert!(
        matches!(&error, Error::RolledBack { seen, found: Some(found) } if seen.seq == Seq(3) && found.seq == Seq(2)),
        "{error}"
    );
    assert_eq!(told.replicated, Some(Seq(3)));
    let absent = store.get(&names.slot(Seq(4)), 1 << 20).await.expect_err("not behind a hole");
    assert_eq!(absent.kind(), fs_store::Kind::Absent);

    // Whoever brings it back need not do more.
    store.create(&names.slot(Seq(3)), forgotten).await.expect("back again");
    handle.replicated(Seq(4)).await.expect("replicated");
    run.abort();
    all_there(&store, &ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_was_away_learns_where_the_cut_is() {
    let ours = folder(&[0, 0, 0], 0);
    let store = filled(&ours).await;
    let remote = Remote::new(Arc::new(store.clone()), volume());
    let cut = remote.claim(&*Machine::new(5)).await.expect("taken over");
    assert_eq!((cut.epoch, cut.slot.seq, cut.before.seq), (Epoch(2), Seq(5), Seq(4)));
    assert_eq!(remote.head().await.expect("a head").newest, Some(cut.slot));

    // What was sealed in the meantime is a branch.
    ours.seal(1, 1, &[]);
    ours.seal(1, 1, &[]);
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings());
    let fenced = uploader.run().await;
    assert_eq!((fenced.by, fenced.at, fenced.how), (Epoch(2), Seq(5), Fence::Slot));
    assert_eq!(handle.progress().borrow().fenced(), Some(fenced));
    assert!(handle.replicated(Seq(6)).await.is_err());
    assert!(fenced.to_string().contains("seal 5 was committed by another writer"), "{fenced}");
    // All below the cut is there, and no more is lacking than what is above.
    let progress = handle.progress().borrow().clone();
    assert_eq!((progress.replicated, progress.pending.seals), (Some(Seq(4)), 2));
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_the_right_of_who_comes_back() {
    let ours = folder(&[0], 0);
    let store = filled(&ours).await;
    let claim = Machine::new(5).claim(Epoch(2)).expect("signed");
    store.create(&Names::of(&volume()).claim(Epoch(2)), claim).await.expect("created");
    ours.seal(1, 1, &[]);
    let (uploader, _handle) = uploader(Arc::new(store.clone()), &ours, settings());
    let fenced = uploader.run().await;
    assert_eq!((fenced.by, fenced.at), (Epoch(2), Seq(3)));
    assert!(matches!(fenced.how, Fence::Claim { device } if device == [5; 16]));
}

#[tokio::test(start_paused = true)]
async fn a_claim_ends_the_right_of_who_has_nothing_to_send() {
    for asked in [false, true] {
        let ours = folder(&[0], 0);
        let store = Slow::new(Memory::default());
        let (uploader, handle) = uploader(store.clone(), &ours, settings());
        let running = tokio::spawn(uploader.run());
        handle.replicated(ours.last()).await.expect("replicated");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = store.requests.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let looks = store.requests.load(Ordering::Relaxed) - before;
        // One a minute, and every ten minutes four that look at everything; this store has no id.
        assert!((60..=90).contains(&looks), "{looks} requests in an hour without a change");
        assert_eq!(handle.progress().borrow().state, State::Done);

        let claim = Machine::new(5).claim(Epoch(2)).expect("signed");
        store.create(&Names::of(&volume()).claim(Epoch(2)), claim).await.expect("created");
        let begun = Instant::now();
        if asked {
            handle.hurry();
        }
        let fenced = running.await.expect("it ended");
        let most = if asked { Duration::from_secs(1) } else { Duration::from_secs(76) };
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        assert_eq!((fenced.by, fenced.at), (Epoch(2), Seq(3)));
        assert!(matches!(fenced.how, Fence::Claim { device } if device == [5; 16]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_damaged_ends_nothing_and_is_told_to_who_has_nothing_to_send() {
    let ours = folder(&[0], 0);
    let store = Memory::default();
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, settings());
    let running = tokio::spawn(uploader.run());
    handle.replicated(ours.last()).await.expect("replicated");
    let name = Names::of(&volume()).claim(Epoch(2));
    store.create(&name, vec![0; 168].into()).await.expect("created");
    let mut progress = handle.progress();
    let told = progress.wait_for(|now| now.trouble.as_ref().is_some_and(|trouble| trouble.times > 2)).await;
    let error = told.expect("it runs").trouble.clone().expect("trouble").error;
    assert!(matches!(&error, Error::Damaged { object, .. } if *object == name), "{error}");
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_forged_claim_ends_nothing() {
    let ours = folder(&[0], 0);
    let store = filled(&ours).await;
    let name = Names::of(&volume()).claim(Epoch(9));
    store.create(&name, vec![0; 168].into()).await.expect("created");
    let error = trouble(Arc::new(store.clone()), &ours, settings()).await;
    assert!(matches!(&error, Error::Damaged { object, .. } if *object == name), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_takes_what_the_arbiter_takes() {
    let ours = folder(&[4, 4], 2 * MIB / 1000);
    let store = Memory::default();
    let copy = Settings { role: Role::Copy, ..settings() };
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, copy);
    finish(uploader, &handle, Seq(3)).await;
    all_there(&store, &ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_holds_a_fenced_tail_is_mended_once_that_is_a_branch() {
    // Both wrote seals 1 to 4; then this machine sealed 5 to 7, which only the copy took, and the other one 5 to 8.
    let base = Folder::sealed(1, 4, 0);
    let (ours, theirs) = (Arc::new(base.cloned()), base.cloned());
    (0..3).for_each(|_| ours.seal(1, 1, &[pack(7, 1000)]));
    (0..4).for_each(|_| theirs.seal(2, 2, &[pack(8, 1000)]));
    let store = filled(&ours).await;
    let seen = Some(Link { epoch: Epoch(1), seq: Seq(7), id: ours.id(Seq(7)) });
    let copy = || Settings { role: Role::Copy, epoch: Epoch(3), seen, ..settings() };

    // As long as nobody here keeps it, it stays.
    let tail = ours.manifests();
    ours.taken_over(&theirs, Seq(5));
    ours.seal(3, 3, &[pack(9, 1000)]);
    let kept = ours.branch();
    ours.set_branch(&[]);
    let error = trouble(Arc::new(store.clone()), &ours, copy()).await;
    assert!(matches!(error, Error::Differs { seq: Seq(7), .. }), "{error}");
    let names = Names::of(&volume());
    for seq in 5..=7 {
        let there = store.get(&names.slot(Seq(seq)), 1 << 20).await.expect("it is there");
        assert_eq!(there, tail[&Seq(seq)]);
    }

    // A branch that has a part of it does not count.
    ours.set_branch(&kept[1..]);
    let error = trouble(Arc::new(store.clone()), &ours, copy()).await;
    assert!(matches!(error, Error::Differs { seq: Seq(5), .. }), "{error}");
    assert!(store.get(&names.slot(Seq(7)), 1 << 20).await.is_ok(), "nothing was removed");

    ours.set_branch(&kept);
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, copy());
    finish(uploader, &handle, Seq(9)).await;
    let here = ours.manifests();
    for seq in 1..=9 {
        let there = store.get(&names.slot(Seq(seq)), 1 << 20).await.expect("it is there");
        assert_eq!(there, here[&Seq(seq)], "seal {seq}");
    }
    assert!(store.get(&names.pack(&pack(8, 1000).0), 1 << 20).await.is_ok(), "with what the other one wrote");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_being_mended_when_the_machine_died_is_no_store_that_forgot() {
    let base = Folder::sealed(1, 4, 0);
    let (ours, theirs) = (Arc::new(base.cloned()), base.cloned());
    (0..3).for_each(|_| ours.seal(1, 1, &[]));
    (0..1).for_each(|_| theirs.seal(2, 2, &[]));
    let store = filled(&ours).await;
    let seen = Some(Link { epoch: Epoch(1), seq: Seq(7), id: ours.id(Seq(7)) });
    ours.taken_over(&theirs, Seq(5));
    let names = Names::of(&volume());
    // Two of three are gone already, and what was seen is not written down anew. The volume has passed that number since.
    for seq in 6..=7 {
        store.remove(&names.slot(Seq(seq))).await.expect("removed");
    }
    (0..3).for_each(|_| ours.seal(3, 3, &[]));
    let copy = Settings { role: Role::Copy, epoch: Epoch(3), seen, ..settings() };
    let (uploader, handle) = uploader(Arc::new(store.clone()), &ours, copy);
    finish(uploader, &handle, Seq(8)).await;
    let there = store.get(&names.slot(Seq(5)), 1 << 20).await.expect("it is there");
    assert_eq!(there, ours.manifests()[&Seq(5)]);
}
