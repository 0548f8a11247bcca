//! The queue that replicates one volume to one store.
//!
//! ```text
//! stand ── where does the store stand? ── once, and later whether it still does
//!   └─ plan ── which seals are to come, with which packs
//!        ├─ packs: many at once, in the order of their seals; last those of a seal that is being made
//!        └─ slots: one at a time, in order, each when its packs are there
//! ```
//!
//! Invariants
//! - A slot is created only when every pack of it and of all before it was answered for.
//! - What was told as replicated only grows, unless the store says twice that it has lost it: then it is told at once.
//! - Packs in memory are bounded by [`Pace::bytes`], requests at once by [`Pace::requests`].
//! - An error ends a pass: what is under way is awaited, nothing new begins, and after a pause all that is
//!   still missing is tried again. Nothing that was answered for is sent twice.
//! - A bell that rings at any time is heard.
//! - A writer that has nothing to send notices all the same, within minutes, that another device took the volume over, or that
//!   the store has lost what it had.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_format::{Epoch, PackId, Seq, Timestamp, VolumeId};
use fs_store::{Kind, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attach::StoreId;
use crate::commit::{Committed, Fence, Fenced};
use crate::error::Error;
use crate::head::{Link, Slot};
use crate::local::{Commit, Early, Held, Local, LocalError, Signer};
use crate::progress::{Bells, Handle, Pending, Progress, State, Trouble};
use crate::remote::{PATIENCE, Remote};
use crate::rules::{Rule, keeps};

/// The longest pause after an error.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Seals that are looked at before the first of them is replicated.
const PLAN_MAX: usize = 100_000;
/// How often a store is looked at as after a restart, also where there is nothing to send: whether it is still the same, and still
/// has what was put there. That is [`STAND_REQUESTS`].
pub const STAND_AGAIN: Duration = Duration::from_mins(10);
/// Lists and reads of such a look: the id twice, the newest slot by name and as it is, and the claims.
pub const STAND_REQUESTS: (u64, u64) = (2, 3);
/// How often a writer that has nothing to send looks whether it still is one.
pub const LOOK_EVERY: Duration = Duration::from_mins(1);
/// The time over which a rate is told.
const RATE_TIME: Duration = Duration::from_secs(10);
/// Names that a listing is asked for, where many may be needed.
const PAGE: usize = 1000;

/// What a store is for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The store in which slots decide.
    Arbiter,
    /// A copy: the same objects, but who may write is not decided here.
    Copy,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Packs on their way at once. A busy store gets fewer.
    pub requests: usize,
    /// Bytes of them; one pack that is larger goes alone.
    pub bytes: u64,
    /// Bytes a second; none is as fast as it goes.
    pub rate: Option<u64>,
    /// How long a request may take that moves no bytes to speak of.
    pub patience: Duration,
    /// How often a writer that has nothing to send looks whether it still is one, on average; none is never.
    pub look_every: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Pace {
        // Of large packs half as many go at once: they fill a line by themselves.
        Pace {
            requests: 16,
            bytes: 8 * (18 << 20),
            rate: None,
            patience: PATIENCE,
            look_every: Some(LOOK_EVERY),
        }
    }
}

/// What an uploader is to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch that we hold.
    pub epoch: Epoch,
    /// What the store is for it.
    pub role: Role,
    /// Which store it must be.
    pub id: Option<StoreId>,
    /// The highest manifest that was seen there; a store that has less was put back in time.
    pub seen: Option<Link>,
    /// How much at once.
    pub pace: Pace,
    /// Decides the length of pauses, which must differ between machines.
    pub seed: u64,
}

/// Replicates one volume to one store.
pub struct Uploader {
    remote: Remote,
    local: Arc<dyn Local>,
    signer: Arc<dyn Signer>,
    settings: Settings,
    bells: Arc<Bells>,
    progress: watch::Sender<Progress>,
    /// Where the store stands, once that is known.
    stands: Option<Stands>,
    /// When that was looked at.
    stood: Instant,
    plan: VecDeque<Planned>,
    begun: Begun,
    /// Packs at once that the store bears now.
    window: usize,
    /// When the rate allows the next pack.
    next_send: Instant,
    recent: VecDeque<(Instant, u64)>,
    chance: u64,
}

/// What the store has of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stands {
    /// The newest seal; none if there is none.
    last: Option<Link>,
}

/// A seal that is not replicated.
#[derive(Debug)]
struct Planned {
    seq: Seq,
    sealed: Timestamp,
    /// Packs that nobody sends yet.
    unsent: VecDeque<(PackId, u64)>,
    /// Packs on their way.
    sending: HashMap<PackId, u64>,
    bytes: u64,
}

/// The seal that is being made, as far as its packs go ahead of it.
#[derive(Debug, Default)]
struct Begun {
    seq: Seq,
    /// Packs that nobody sends yet.
    unsent: VecDeque<(PackId, u64)>,
    /// Packs on their way.
    sending: HashMap<PackId, u64>,
    /// Packs that the store has answered for. Those of a seal that failed are among them, for nobody.
    sent: HashSet<PackId>,
}

impl Begun {
    /// What of the seal, now that it is made, is to be sent.
    fn go_on(mut self, seq: Seq, commit: Commit) -> Planned {
        let mut planned = Planned {
            seq,
            sealed: commit.sealed,
            unsent: VecDeque::new(),
            sending: HashMap::new(),
            bytes: 0,
        };
        for (pack, bytes) in commit.packs.into_iter().filter(|(pack, _)| !self.sent.contains(pack)) {
            planned.bytes += bytes;
            match self.sending.remove(&pack) {
                Some(_) => drop(planned.sending.insert(pack, bytes)),
                None => planned.unsent.push_back((pack, bytes)),
            }
        }
        planned
    }
}

/// Why an uploader does something again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// There may be seals to send.
    Sealed,
    /// Somebody wants to know now.
    Asked,
    /// Nothing happened for long.
    Idle,
}

/// Why a pass ended before all was replicated.
enum Halt {
    Fenced(Fenced),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Halt {
        Halt::Failed(error.into())
    }
}

/// What became of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// The store has it.
    There,
    /// The seal that was being made has given it up.
    GivenUp,
}

/// What a task of a pass did.
enum Done {
    /// The store, asked then, has what it had, or not.
    Look {
        asked: Instant,
        still: Result<(), Error>,
    },
    Pack {
        pack: PackId,
        sent: Result<Sent, Error>,
    },
    Slot {
        seal: Result<(Link, Committed), Error>,
    },
}

impl Uploader {
    /// An uploader, and what rings its bells.
    pub fn new(
        store: Arc<dyn Store>,
        local: Arc<dyn Local>,
        signer: Arc<dyn Signer>,
        settings: Settings,
    ) -> (Uploader, Handle) {
        let (progress, told) = watch::channel(Progress::begin());
        let bells = Arc::<Bells>::default();
        let handle = Handle { bells: bells.clone(), progress: told };
        let uploader = Uploader {
            remote: Remote::new(store, settings.volume).with_patience(settings.pace.patience),
            local,
            signer,
            bells,
            progress,
            stands: None,
            stood: Instant::now(),
            plan: VecDeque::new(),
            begun: Begun::default(),
            window: settings.pace.requests.max(1),
            next_send: Instant::now(),
            recent: VecDeque::new(),
            chance: settings.seed,
            settings,
        };
        (uploader, handle)
    }

    /// Replicates until the right to write ends. To stop it, drop the future.
    pub async fn run(mut self) -> Fenced {
        let mut times = 0;
        let mut woken = Woken::Sealed;
        loop {
            let before = self.achieved();
            let done = match woken {
                Woken::Sealed => self.pass().await,
                // Now and then all of it is looked at, claims too: a store that was put back in time says so to nobody.
                Woken::Idle if self.stood.elapsed() > STAND_AGAIN => self.pass().await,
                Woken::Idle => self.look().await,
                Woken::Asked => match self.pass().await {
                    Ok(()) => self.look().await,
                    halt => halt,
                },
            };
            match done {
                Ok(()) => {
                    times = 0;
                    self.go_on();
                    self.tell(State::Done);
                    woken = self.sleep().await;
                }
                Err(Halt::Fenced(fenced)) => {
                    tracing::warn!(volume = %self.settings.volume, "{fenced}");
                    self.end_at(fenced).await;
                    return fenced;
                }
                Err(Halt::Failed(error)) => {
                    times = if self.achieved() > before { 1 } else { times + 1 };
                    tracing::debug!(volume = %self.settings.volume, times, "{error}");
                    self.rest(error, times).await;
                    // There may be seals by now, which do not wait for a look.
                    woken = if woken == Woken::Idle { Woken::Asked } else { woken };
                }
            }
        }
    }

    /// Tells that the right to write has ended. What is here below the cut is in the volume; what is not, nobody sends.
    async fn end_at(&mut self, fenced: Fenced) {
        while self.plan.front().is_some_and(|planned| planned.seq < fenced.at) {
            self.plan.pop_front();
        }
        // Below a boundary, slots prove nothing; and a cut at the first seal says nothing of one before.
        let is_proved = matches!(fenced.how, Fence::Claim { .. } | Fence::Slot);
        if is_proved && self.local.held().await.is_ok_and(|held| held.first < fenced.at) {
            let below = Some(Seq(fenced.at.0 - 1));
            self.progress.send_modify(|progress| progress.replicated = progress.replicated.max(below));
        }
        self.tell(State::Fenced(fenced));
    }

    /// Waits until there is something to do.
    async fn sleep(&mut self) -> Woken {
        // Random, so that many volumes of a machine, and many machines, do not look at once.
        let pause = self.settings.pace.look_every.map(|every| every.mul_f64(0.75 + self.draw() / 2.0));
        let idle = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let Bells { sealed, hurry, .. } = &*self.bells;
        tokio::select! {
            biased;
            () = sealed.notified() => Woken::Sealed,
            () = hurry.notified() => Woken::Asked,
            () = idle => Woken::Idle,
        }
    }

    /// Looks whether another device took the volume over: one read, of the claim that whoever does so makes first. A commit looks
    /// closer, and decides.
    async fn look(&self) -> Result<(), Halt> {
        let next = match (self.settings.role, self.settings.epoch.0.checked_add(1)) {
            (Role::Arbiter, Some(next)) => Epoch(next),
            _ => return Ok(()),
        };
        match self.remote.claim_of(next).await {
            Ok(claim) => {
                let at = match self.stands.and_then(|stands| stands.last) {
                    Some(last) => Seq(last.seq.0 + 1),
                    None => self.local.held().await?.first,
                };
                Err(Halt::Fenced(Fenced { by: next, at, how: Fence::Claim { device: claim.device } }))
            }
            Err(Error::Store(error)) if error.kind() == Kind::Absent => {
                self.confirm();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The store said that the volume is still ours to write.
    fn confirm(&self) {
        self.progress.send_modify(|progress| progress.confirmed_at = Some(Instant::now()));
    }

    /// Grows with everything that a store has answered for.
    fn achieved(&self) -> (u64, Option<Seq>, bool) {
        let progress = self.progress.borrow();
        (progress.sent_bytes, progress.replicated, self.stands.is_some())
    }

    /// Pauses after an error.
    async fn rest(&mut self, error: Error, times: u32) {
        let longest = PAUSE_MAX.min(Duration::from_secs(1 << (times - 1).min(6)));
        let pause = match error.passes() || times == 1 {
            true => longest.mul_f64(self.draw()),
            // It was no accident of one request: a person must do something, and a look now and then is enough.
            false => PAUSE_MAX,
        };
        let at = Instant::now();
        if times > 1 && !error.passes() {
            self.halt(error.clone()).await;
        }
        self.progress.send_modify(|progress| progress.trouble = Some(Trouble { error, at, times }));
        self.tell(State::Waiting { next_try: at + pause });
        let hurry = self.bells.hurry.notified();
        tokio::select! { biased; () = hurry => {} () = tokio::time::sleep_until(at + pause) => {} }
    }

    /// Nothing goes there before somebody mends it; what the store has lost is to be sent again then, and is told until then.
    async fn halt(&mut self, error: Error) {
        let lost = error.lost();
        if let Some(has) = lost {
            // Where it stands is found out anew. What was seen there stays seen: that is what its loss is told by.
            self.forget_stands();
            self.plan.clear();
            // What cannot be read here is told by the next pass.
            let _ = self.extend_plan_behind(has).await;
        }
        self.progress.send_modify(|progress| {
            progress.halted = Some(error);
            if let Some(has) = lost {
                (progress.replicated, progress.verified_at) = (has, None);
            }
        });
    }

    /// Whatever was to be mended is.
    fn go_on(&self) {
        self.progress.send_if_modified(|progress| progress.halted.take().is_some());
    }

    /// A number between 0 and 1, by splitmix64.
    fn draw(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }

    /// Replicates all that is sealed, unless something goes wrong.
    async fn pass(&mut self) -> Result<(), Halt> {
        // What waits is counted before the store is asked, which may be away.
        self.extend_plan().await?;
        let mut tasks = JoinSet::new();
        // No slot is created before it is known that the store still has the one before.
        let mut slot_under_way = false;
        match self.stands {
            Some(stands) if self.stood.elapsed() <= STAND_AGAIN => {
                if let Some(last) = stands.last {
                    let (remote, asked) = (self.remote.clone(), Instant::now());
                    tasks.spawn(async move {
                        Done::Look { asked, still: at_least(&remote, last).await.map(drop) }
                    });
                    slot_under_way = true;
                }
            }
            _ => {
                self.tell(State::Starting);
                let asked = Instant::now();
                let stands = self.stand().await?;
                self.begin_behind(stands, asked);
                // A copy that was mended, or that slept while another device wrote, needs seals from before.
                let next = stands.last.map(|last| Seq(last.seq.0 + 1));
                if self.plan.front().is_none_or(|first| Some(first.seq) > next) {
                    self.plan.clear();
                    self.extend_plan().await?;
                }
            }
        }
        self.tell(State::Sending);

        let mut failed = None;
        loop {
            if failed.is_none() {
                if !slot_under_way {
                    slot_under_way = self.send_slot(&mut tasks);
                }
                self.extend_begun();
                self.send_packs(&mut tasks);
            }
            let Some(done) = tasks.join_next().await else { break };
            match done.unwrap_or_else(|broken| std::panic::resume_unwind(broken.into_panic())) {
                Done::Look { asked, still } => {
                    slot_under_way = false;
                    if still.is_ok() {
                        self.tell_verified(asked);
                    }
                    failed = failed.or(still.err());
                }
                Done::Pack { pack, sent } => {
                    let sent = self.packed(pack, sent);
                    failed = failed.or(sent.err());
                }
                Done::Slot { seal } => {
                    slot_under_way = false;
                    match seal {
                        Ok((link, committed)) => {
                            self.committed(link, committed)?;
                            // A look at the folder costs more, the more seals it holds.
                            let look =
                                self.plan.is_empty() || self.bells.unseen.swap(false, Ordering::Acquire);
                            if look && let Err(error) = self.extend_plan().await {
                                failed = failed.or(Some(error.into()));
                            }
                        }
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
            }
            self.tell(State::Sending);
        }
        if let Some(Error::Differs { .. } | Error::RolledBack { .. }) = failed {
            // Somebody else writes to the copy, too, or it is another store by now: where it stands is found out anew.
            self.forget_stands();
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Takes in what was sealed since.
    async fn extend_plan(&mut self) -> Result<(), LocalError> {
        let known = match (self.plan.back(), &self.stands) {
            (Some(planned), _) => Some(planned.seq),
            (None, Some(stands)) => stands.last.map(|link| link.seq),
            (None, None) => self.settings.seen.map(|link| link.seq),
        };
        self.extend_plan_behind(known).await
    }

    /// The same from this seal on, which needs no sending.
    async fn extend_plan_behind(&mut self, known: Option<Seq>) -> Result<(), LocalError> {
        let Held { first, last } = self.local.held().await?;
        let mut seq = known.map_or(first, |known| Seq(known.0 + 1).max(first));
        while seq <= last && self.plan.len() < PLAN_MAX {
            // A store that begins with this one has nothing of what was before.
            let commit = self.local.commit(seq, seq == first).await?;
            let begun =
                if self.begun.seq == seq { std::mem::take(&mut self.begun) } else { Begun::default() };
            self.plan.push_back(begun.go_on(seq, commit));
            seq = Seq(seq.0 + 1);
        }
        Ok(())
    }

    /// Takes in what there is by now of the seal that is being made.
    fn extend_begun(&mut self) {
        self.begun.unsent.clear();
        let Some(Early { seq, packs }) = self.local.early() else { return };
        let stands = self.stands.and_then(|stands| stands.last).map(|link| link.seq);
        if self.plan.back().map(|planned| planned.seq).or(stands) >= Some(seq) {
            // It is made.
            return;
        }
        if self.begun.seq != seq {
            self.begun = Begun { seq, ..Begun::default() };
        }
        let Begun { unsent, sending, sent, .. } = &mut self.begun;
        let is_new = |pack: &PackId| !sending.contains_key(pack) && !sent.contains(pack);
        unsent.extend(packs.into_iter().filter(|(pack, _)| is_new(pack)));
    }

    /// What the store has is found out anew.
    fn forget_stands(&mut self) {
        self.stands = None;
        self.begun = Begun::default();
    }

    /// Creates the slot of the oldest seal, if all its packs are there.
    fn send_slot(&mut self, tasks: &mut JoinSet<Done>) -> bool {
        let ready = |one: &Planned| one.unsent.is_empty() && one.sending.is_empty();
        let Some(planned) = self.plan.front().filter(|one| ready(one)) else { return false };
        let (remote, local, seq) = (self.remote.clone(), self.local.clone(), planned.seq);
        let (epoch, role) = (self.settings.epoch, self.settings.role);
        let before = self.stands.and_then(|stands| stands.last);
        tasks.spawn(async move {
            let commit = async {
                let seal = sealed(&remote, &*local, seq, epoch, before).await?;
                let committed = match role {
                    Role::Arbiter => remote.commit(epoch, &seal).await?,
                    Role::Copy => remote.copy(&seal).await?,
                };
                Ok((seal.link(), committed))
            };
            Done::Slot { seal: commit.await }
        });
        true
    }

    /// Sends packs in the order of their seals, as many as the pace allows.
    fn send_packs(&mut self, tasks: &mut JoinSet<Done>) {
        let ways = self.plan.iter().map(|planned| &planned.sending).chain([&self.begun.sending]);
        let (mut count, mut bytes) =
            ways.flat_map(HashMap::values).fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        let planned = self.plan.iter_mut().map(|one| (&mut one.unsent, &mut one.sending, false));
        let begun = (&mut self.begun.unsent, &mut self.begun.sending, true);
        for (unsent, sending, is_early) in planned.chain([begun]) {
            while let Some(&(pack, size)) = unsent.front() {
                let fits = bytes + size <= self.settings.pace.bytes || count == 0;
                if count >= self.window || !fits {
                    return;
                }
                unsent.pop_front();
                sending.insert(pack, size);
                (count, bytes) = (count + 1, bytes + size);

                let start = self.next_send.max(Instant::now());
                if let Some(rate) = self.settings.pace.rate {
                    self.next_send = start + Duration::from_secs_f64(size as f64 / rate.max(1) as f64);
                }
                let (remote, local) = (self.remote.clone(), self.local.clone());
                tasks.spawn(async move {
                    tokio::time::sleep_until(start).await;
                    let send = async {
                        let bytes = match is_early {
                            true => local.early_pack(&pack).await,
                            false => Some(local.pack(&pack).await?),
                        };
                        let Some(bytes) = bytes else { return Ok(Sent::GivenUp) };
                        remote.create_or_trust(&remote.names().pack(&pack), bytes).await?;
                        Ok(Sent::There)
                    };
                    Done::Pack { pack, sent: send.await }
                });
            }
        }
    }

    /// Notes what became of a pack.
    fn packed(&mut self, pack: PackId, sent: Result<Sent, Error>) -> Result<(), Error> {
        let is_answered = keeps(Rule::PacksAreAnswered);
        let sent = sent.or_else(|error| if is_answered { Err(error) } else { Ok(Sent::There) });
        let is_there = matches!(sent, Ok(Sent::There));
        // What went ahead of its seal goes on with it; of a seal that failed, nobody keeps the size.
        let size = match self.plan.iter_mut().find_map(|one| Some((one.sending.remove(&pack)?, one))) {
            Some((size, planned)) => {
                match is_there {
                    true => planned.bytes -= size,
                    false => planned.unsent.push_front((pack, size)),
                }
                size
            }
            None => {
                let size = self.begun.sending.remove(&pack);
                self.begun.sent.extend(size.filter(|_| is_there).map(|_| pack));
                size.unwrap_or(0)
            }
        };
        match sent {
            Ok(_) => {
                if is_there {
                    self.go_on();
                    self.window = (self.window + 1).min(self.settings.pace.requests.max(1));
                    self.recent.push_back((Instant::now(), size));
                    self.progress.send_modify(|progress| progress.sent_bytes += size);
                }
                Ok(())
            }
            Err(error) => {
                if error.is_overload() {
                    self.window = (self.window / 2).max(1);
                }
                Err(error)
            }
        }
    }

    /// Notes what became of a slot.
    fn committed(&mut self, link: Link, committed: Committed) -> Result<(), Halt> {
        if let Committed::Void(fenced) = committed {
            return Err(Halt::Fenced(fenced));
        }
        self.plan.pop_front();
        self.stands = Some(Stands { last: Some(link) });
        self.settings.seen = Some(link);
        self.go_on();
        self.tell_replicated(link);
        self.tell_verified(Instant::now());
        match committed {
            Committed::Last(fenced) => Err(Halt::Fenced(fenced)),
            _ => {
                self.confirm();
                Ok(())
            }
        }
    }

    fn begin_behind(&mut self, stands: Stands, asked: Instant) {
        if let Some(last) = stands.last {
            while self.plan.front().is_some_and(|planned| planned.seq <= last.seq) {
                self.plan.pop_front();
            }
            self.tell_replicated(last);
        }
        self.settings.seen = stands.last.or(self.settings.seen);
        (self.stands, self.stood) = (Some(stands), Instant::now());
        self.tell_verified(asked);
        self.go_on();
    }

    fn tell_replicated(&self, link: Link) {
        self.progress.send_modify(|progress| {
            (progress.replicated, progress.seen) = (Some(link.seq), Some(link));
            progress.replicated_at = Some(Instant::now());
        });
    }

    fn tell_verified(&self, asked: Instant) {
        self.progress.send_modify(|progress| progress.verified_at = Some(asked));
    }

    fn tell(&mut self, state: State) {
        let now = Instant::now();
        while self.recent.front().is_some_and(|(at, _)| *at + RATE_TIME < now) {
            self.recent.pop_front();
        }
        let since = self.recent.front().map_or(0.0, |(at, _)| (now - *at).as_secs_f64().max(1.0));
        let bytes: u64 = self.recent.iter().map(|(_, bytes)| bytes).sum();
        let rate = if state == State::Sending && since > 0.0 { (bytes as f64 / since) as u64 } else { 0 };
        let pending = Pending {
            seals: self.plan.len() as u64,
            packs: self.plan.iter().map(|one| (one.unsent.len() + one.sending.len()) as u64).sum(),
            bytes: self.plan.iter().map(|one| one.bytes).sum(),
            oldest: self.plan.front().map(|one| one.sealed),
        };
        self.progress.send_modify(|progress| {
            (progress.state, progress.rate, progress.pending) = (state, rate, pending);
        });
    }
}

/// Where a store stands, seen from what is here.
impl Uploader {
    async fn stand(&self) -> Result<Stands, Halt> {
        if let Some(id) = self.settings.id {
            self.remote.recognise(id).await?;
        }
        let held = self.local.held().await?;
        let seen = match self.settings.seen {
            // What a copy had of a writer that was fenced since may be gone from it.
            Some(seen) if self.settings.role == Role::Copy && !self.is_ours(&seen).await => None,
            seen => seen,
        };
        let mut newest = match seen {
            Some(seen) => at_least(&self.remote, seen).await?,
            None => self.newest().await?,
        };
        if newest.is_none() && held.first > Seq(1) && keeps(Rule::BoundaryBelowFirst) {
            newest = self.begin_above(held).await?;
        }
        let last = match newest {
            None => None,
            Some(there) => match self.found(there, held).await {
                // What came next was given up here while this was no store of the volume.
                Err(Halt::Failed(Error::Gap { .. })) if self.is_as_it_was(there, seen).await? => {
                    match self.begin_above(held).await? {
                        Some(still) if still == there => None,
                        Some(other) => Some(self.found(other, held).await?),
                        None => None,
                    }
                }
                found => Some(found?),
            },
        };
        if self.settings.role == Role::Arbiter {
            self.still_ours(last, held).await?;
            self.confirm();
        }
        Ok(Stands { last })
    }

    /// Lets a store begin with the oldest seal that is here; its newest slot after that.
    ///
    /// The slots below stay free for ever, and a clone that sleeps may think it must fill them. After the boundary is there, it
    /// finds that out; before, it shows up in the second look. In a copy it says that nothing is missing below.
    async fn begin_above(&self, held: Held) -> Result<Option<Seq>, Error> {
        let below = Seq(held.first.0 - 1);
        self.remote.fill_boundary(below, self.signer.boundary(self.settings.epoch, below)?).await?;
        self.newest().await
    }

    /// Whether the newest slot is what was seen there last: then nobody wrote there since, and it is of our past.
    async fn is_as_it_was(&self, newest: Seq, seen: Option<Link>) -> Result<bool, Error> {
        match seen.filter(|seen| seen.seq == newest) {
            Some(seen) => Ok(self.remote.slot(newest).await?.link() == seen),
            None => Ok(false),
        }
    }

    /// The newest slot that is ours, where this one is the newest.
    async fn found(&self, newest: Seq, held: Held) -> Result<Link, Halt> {
        match self.settings.role {
            Role::Copy => Ok(self.copied(newest, held).await?),
            Role::Arbiter => self.compare(newest, held).await,
        }
    }

    /// Whether the store lets us go on behind the newest slot, which is ours.
    async fn still_ours(&self, last: Option<Link>, held: Held) -> Result<(), Halt> {
        let listed = self.remote.listed().await?;
        if let Some((link, boundary)) = last.zip(listed.boundary).filter(|(link, seq)| link.seq <= *seq)
            && keeps(Rule::BoundaryAtStart)
        {
            // Somebody begins the store behind this, and we filled a hole before we died.
            let by = self.remote.boundary_at(boundary).await?.epoch;
            let at = link.seq.max(held.first);
            return Err(Halt::Fenced(Fenced { by, at, how: Fence::Boundary(boundary) }));
        }
        let claim = listed.claim.filter(|_| keeps(Rule::ClaimsAtStart));
        if let Some((by, how)) = self.remote.claim_above(self.settings.epoch, claim).await? {
            let at = last.map_or(held.first, |link| Seq(link.seq.0 + 1));
            if let Some(link) = last {
                self.tell_replicated(link);
            }
            return Err(Halt::Fenced(Fenced { by, at, how }));
        }
        Ok(())
    }

    async fn newest(&self) -> Result<Option<Seq>, Error> {
        newest_of(&self.remote).await
    }

    /// Whether a manifest is that of the volume here.
    async fn is_ours(&self, seen: &Link) -> bool {
        let ours = self.local.manifest(seen.seq).await;
        // Where nobody knows, it is believed.
        ours.map_or(true, |ours| fs_format::manifest::manifest_id(&ours) == seen.id)
    }

    /// Whether a slot holds what the volume has there.
    async fn has(&self, slot: &Slot, held: Held) -> Result<bool, Error> {
        if slot.seq.0.saturating_add(1) == held.first.0 {
            let first = self.local.manifest(held.first).await?;
            let first = Slot::open(&self.settings.volume, held.first, first).map_err(damaged(held.first))?;
            return Ok(first.parent == slot.id);
        }
        Ok(slot.seq <= held.last && self.local.manifest(slot.seq).await? == slot.bytes)
    }

    /// The newest slot of a copy that is ours, after what is not was taken out of it, if all of that is on a branch here.
    ///
    /// Whoever was fenced may have sent to a copy what the arbiter did not take.
    async fn copied(&self, newest: Seq, held: Held) -> Result<Link, Error> {
        let mut foreign = Vec::new();
        let mut below = newest.0.checked_add(1).map(Seq);
        let last = 'found: loop {
            let page = self.remote.slots(below, PAGE).await?;
            for &seq in &page {
                let slot = self.remote.slot(seq).await.map_err(way_out)?;
                // What is too old to be here is in the arbiter, or was collected.
                if self.has(&slot, held).await.unwrap_or(false) {
                    break 'found slot.link();
                }
                if !self.local.is_on_branch(&slot).await? {
                    // Above it there was nothing that is lost.
                    let object = self.remote.names().slot(seq);
                    return match seq.0.saturating_add(1) < held.first.0 && foreign.is_empty() {
                        true => Err(Error::Gap { store: seq, first: held.first }),
                        false => Err(Error::Differs { object, seq }),
                    };
                }
                foreign.push(seq);
            }
            below = match page.last() {
                Some(&last) if page.len() == PAGE => Some(last),
                _ => return Err(Error::Differs { object: self.remote.names().slot(newest), seq: newest }),
            };
        };
        // From there on all must be here; of a volume that was opened from a store, what is not comes from there.
        for seq in (last.seq.0 + 1..held.first.0).rev().map(Seq) {
            let gap = Error::Gap { store: last.seq, first: Seq(seq.0 + 1) };
            self.local.manifest(seq).await.map_err(|_| gap)?;
        }
        // The newest first: what is left has no holes, whenever this ends.
        for seq in foreign {
            tracing::warn!(volume = %self.settings.volume, %seq, "taken out of a copy: it is on a branch here");
            self.remote.remove_copied(seq).await?;
        }
        Ok(last)
    }

    /// The newest slot, if it is ours; else our right has ended while we were away.
    async fn compare(&self, newest: Seq, held: Held) -> Result<Link, Halt> {
        if newest.0.saturating_add(1) < held.first.0 {
            return Err(Error::Gap { store: newest, first: held.first }.into());
        }
        let slot = self.remote.slot(newest).await.map_err(way_out)?;
        if self.has(&slot, held).await? {
            return Ok(slot.link());
        }
        let at = self.first_foreign(held).await?;
        Err(Halt::Fenced(Fenced { by: slot.epoch, at, how: Fence::Slot }))
    }

    /// The first of our seals that the store does not have.
    ///
    /// Slots below a boundary prove nothing: we may have filled a hole ourselves. Too early a cut only makes the
    /// branch begin earlier. What was seen there may be forgotten by now, so it is looked for like the rest.
    async fn first_foreign(&self, held: Held) -> Result<Seq, Error> {
        let seen = self.settings.seen.map_or(Seq(0), |seen| seen.seq);
        let boundary = self.remote.listed().await?.boundary.unwrap_or_default();
        let lowest = held.first.max(Seq(boundary.0.saturating_add(1)));
        let mut below = held.last.0.checked_add(1).map(Seq);
        loop {
            let page = self.remote.slots(below, PAGE).await?;
            for &seq in page.iter().take_while(|seq| **seq >= lowest) {
                if self.remote.slot(seq).await?.bytes == self.local.manifest(seq).await? {
                    return Ok(Seq(seq.0 + 1));
                }
            }
            match page.last() {
                Some(&last) if page.len() == PAGE && last > lowest => below = Some(last),
                _ if boundary >= seen => return Ok(held.first.max(Seq(seen.0 + 1))),
                _ => return Ok(lowest),
            }
        }
    }
}

async fn newest_of(remote: &Remote) -> Result<Option<Seq>, Error> {
    Ok(remote.slots(None, 1).await?.first().copied())
}

/// The newest slot, unless the store has forgotten what was seen there: behind a hole a slot would be told as replicated
/// that nobody can open.
async fn at_least(remote: &Remote, seen: Link) -> Result<Option<Seq>, Error> {
    let newest = newest_of(remote).await?;
    let found = match newest {
        Some(seq) if seq >= seen.seq => return Ok(newest),
        Some(seq) => Some(remote.slot(seq).await?.link()),
        None => None,
    };
    Err(Error::RolledBack { seen, found })
}

/// Our manifest with this seq, if it follows what is in the store.
async fn sealed(
    remote: &Remote,
    local: &dyn Local,
    seq: Seq,
    epoch: Epoch,
    before: Option<Link>,
) -> Result<Slot, Error> {
    let seal = Slot::open(&remote.volume, seq, local.manifest(seq).await?).map_err(damaged(seq))?;
    let wrong = |why: String| Error::from(damaged(seq)(why));
    if seal.epoch > epoch {
        return Err(wrong(format!("it is of epoch {}, but this device holds {epoch}", seal.epoch)));
    }
    if let Some(before) = before {
        if seal.parent != before.id {
            return Err(wrong(format!("it does not follow seal {} that is in the store", before.seq)));
        }
        if seal.epoch < before.epoch {
            return Err(wrong(format!("its epoch {} is below its parent's, {}", seal.epoch, before.epoch)));
        }
    }
    Ok(seal)
}

/// What to do about a slot that is damaged: nobody may remove it, since it is somebody's statement.
fn way_out(error: Error) -> Error {
    match error {
        Error::Damaged { object, why } => {
            let why = format!(
                "{why}; what is here is whole: a new store gets it (`comb store remove`, then `comb store add` with another \
                 prefix or folder)"
            );
            Error::Damaged { object, why }
        }
        other => other,
    }
}

fn damaged(seq: Seq) -> impl Fn(String) -> LocalError {
    move |why| LocalError::new(format!("the manifest of seal {seq}"), why)
}
