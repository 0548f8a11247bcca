//! Every interleaving of a small case, by the real code.
//!
//! A run is a list of choices: which request on its way the store does next, whether its answer is lost,
//! which process dies. After each choice the world goes on until every process waits for the store or has
//! nothing to do; pauses after errors pass at once, since a request that waits long is as good as a pause. All
//! choices are tried, depth first, each by a run from the beginning, but for what follows a state
//! that was met before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fs_format::manifest::{MANIFEST_HEADER_BYTES, ManifestHeader, manifest_id};
use fs_format::{Epoch, ManifestId, Seq};
use fs_store::{Name, Store};
use tokio::task::JoinHandle;

use super::stage::{Effect, Stage};
use super::world::{Folder, Machine, volume};
use crate::names::Fencing;
use crate::{ClaimError, Cut, GivenUp, Handle, Names, Pace, Remote, Role, Settings, State, Uploader};

/// Longer than every pause, shorter than any patience.
const LONG: Duration = Duration::from_secs(61);
const PATIENCE: Duration = Duration::from_secs(1 << 30);

/// Who plays.
#[derive(Clone)]
pub enum Cast {
    /// Replicates what is in a folder.
    Writer { folder: Arc<Folder>, epoch: u64 },
    /// Takes the volume over, seals so often, and may collect.
    Claimant { device: u8, seals: u64, collects: Collects },
}

/// What a claimant collects when all it sealed is replicated: everything but its newest slot is old.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Collects {
    Nothing,
    /// A boundary, and then every slot below.
    All,
    /// A boundary, and then the first slot; all other moments are kept.
    First,
}

/// A small case.
#[derive(Clone)]
pub struct Scene {
    pub name: &'static str,
    /// What lies in the store.
    pub begin: Vec<(Name, Bytes)>,
    pub casts: Vec<Cast>,
    /// Answers that may be lost.
    pub faults: u32,
    /// Processes that may die; each begins anew.
    pub deaths: u32,
}

/// How much there was to see.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub states: usize,
    pub runs: usize,
    pub deepest: usize,
}

/// Something that must not be, and how it came about.
#[derive(Debug)]
pub struct Broken {
    pub what: String,
    pub story: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.story.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Tries everything that can happen in a scene.
pub fn explore(scene: &Scene) -> Result<Seen, Broken> {
    let mut known = HashSet::new();
    let mut seen = Seen::default();
    let mut path: Vec<Choice> = Vec::new();
    loop {
        seen.runs += 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(Run::begin(scene).play(&mut path, &mut known))?;
        seen.deepest = seen.deepest.max(path.len());
        seen.states = known.len();
        loop {
            let Some(last) = path.pop() else { return Ok(seen) };
            if last.taken + 1 < last.of {
                path.push(Choice { taken: last.taken + 1, of: last.of });
                break;
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Choice {
    taken: usize,
    of: usize,
}

/// What can happen next.
enum Next {
    Do(usize),
    LoseAnswer(usize),
    Die(usize),
    /// Nothing more on its own; whatever is still on its way may come too late or never.
    End,
}

/// What the processes tell.
#[derive(Default)]
struct Log {
    uploads: BTreeMap<usize, (Handle, Arc<Folder>)>,
    cuts: Vec<Cut>,
}

type SharedLog = Arc<Mutex<Log>>;

struct Process {
    task: JoinHandle<()>,
    incarnation: u64,
}

struct Run<'a> {
    scene: &'a Scene,
    stage: Arc<Stage>,
    log: SharedLog,
    names: Names,
    faults: u32,
    deaths: u32,
    /// Header of each manifest that was ever in a slot.
    made: HashMap<ManifestId, ManifestHeader>,
    told: BTreeMap<Seq, ManifestId>,
    /// Who told what, so that it is looked up once.
    heard: BTreeSet<(usize, Seq)>,
    packs_told: BTreeSet<Name>,
    /// Slots that a process filled in an epoch after a claim above that was there.
    late: BTreeMap<(usize, Epoch), BTreeSet<Name>>,
    removed: BTreeSet<Name>,
}

impl<'a> Run<'a> {
    fn begin(scene: &'a Scene) -> Run<'a> {
        Run {
            scene,
            stage: Arc::default(),
            log: Arc::default(),
            names: Names::of(&volume()),
            faults: scene.faults,
            deaths: scene.deaths,
            made: HashMap::new(),
            told: BTreeMap::new(),
            heard: BTreeSet::new(),
            packs_told: BTreeSet::new(),
            late: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    async fn play(mut self, path: &mut Vec<Choice>, known: &mut HashSet<u64>) -> Result<(), Broken> {
        for (name, bytes) in &self.scene.begin {
            self.stage.inside().create(name, bytes.clone()).await.expect("the store is empty");
            self.stage.put(name, bytes.clone());
            self.remember(name, bytes);
        }
        let mut processes: Vec<Process> =
            (0..self.scene.casts.len()).map(|process| self.enter(process, 0)).collect();
        let mut step = 0;
        loop {
            tokio::time::sleep(LONG).await;
            self.listen().map_err(|what| self.broken(what))?;
            let mut next = self.choices(&processes);
            if step == path.len() {
                self.look().map_err(|what| self.broken(what))?;
                if !known.insert(self.state(&processes)) {
                    break;
                }
                path.push(Choice { taken: 0, of: next.len() });
            }
            let choice = path[step];
            assert_eq!(choice.of, next.len(), "{}: the same choices lead to the same place", self.scene.name);
            step += 1;
            match next.swap_remove(choice.taken) {
                Next::End => {
                    self.ended().await.map_err(|what| self.broken(what))?;
                    break;
                }
                Next::Do(index) => {
                    let process = self.stage.waiting(self.collects())[index].process;
                    let effect = self.stage.carry_out(index).await;
                    self.note(process, effect).map_err(|what| self.broken(what))?;
                }
                Next::LoseAnswer(index) => {
                    self.faults -= 1;
                    self.stage.lose_answer(index);
                }
                Next::Die(process) => {
                    self.deaths -= 1;
                    processes[process].task.abort();
                    // What it waited for goes on its way without it.
                    tokio::task::yield_now().await;
                    self.log.lock().expect("no panic").uploads.remove(&process);
                    self.heard.retain(|(who, _)| *who != process);
                    self.stage.tell(format!("{process}: dies"));
                    let incarnation = processes[process].incarnation + 1;
                    processes[process] = self.enter(process, incarnation);
                }
            }
            for process in &mut processes {
                if process.task.is_finished()
                    && let Err(error) = (&mut process.task).await
                    && error.is_panic()
                {
                    return Err(self.broken("a process panicked".into()));
                }
                if process.task.is_finished() {
                    process.task = tokio::spawn(std::future::pending());
                    process.incarnation |= ENDED;
                }
            }
        }
        Ok(())
    }

    fn enter(&self, process: usize, incarnation: u64) -> Process {
        self.stage.forget(process, incarnation);
        let (cast, store, log) =
            (self.scene.casts[process].clone(), self.stage.seat(process), self.log.clone());
        Process { task: tokio::spawn(act(process, incarnation, cast, store, log)), incarnation }
    }

    fn choices(&self, processes: &[Process]) -> Vec<Next> {
        let waiting = self.stage.waiting(self.collects());
        let heard = |index: &usize| waiting[*index].heard;
        // What is read now and what is read later is the same here, so when does not matter to anybody else: the
        // only choice is whether its own process hears of it.
        if let Some(index) = (0..waiting.len()).find(|index| heard(index) && waiting[*index].timeless) {
            let process = waiting[index].process;
            let mut next = vec![Next::Do(index)];
            next.extend((self.faults > 0).then_some(Next::LoseAnswer(index)));
            next.extend((self.deaths > 0).then_some(Next::Die(process)));
            return next;
        }
        let mut next: Vec<Next> = (0..waiting.len()).map(Next::Do).collect();
        if !(0..waiting.len()).any(|index| heard(&index)) {
            next.insert(0, Next::End);
        }
        if self.faults > 0 {
            next.extend((0..waiting.len()).filter(heard).map(Next::LoseAnswer));
        }
        if self.deaths > 0 {
            let alive = |process: &usize| processes[*process].incarnation & ENDED == 0;
            next.extend((0..processes.len()).filter(alive).map(Next::Die));
        }
        next
    }

    fn state(&self, processes: &[Process]) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.stage.state(), self.faults, self.deaths, &self.late, &self.removed).hash(&mut hash);
        processes.iter().for_each(|process| process.incarnation.hash(&mut hash));
        hash.finish()
    }

    fn broken(&self, what: String) -> Broken {
        Broken { what: format!("{}: {what}", self.scene.name), story: self.stage.story() }
    }

    fn remember(&mut self, name: &Name, bytes: &Bytes) {
        if self.names.read_slot(name).is_some() {
            let header = ManifestHeader::decode(&bytes[..MANIFEST_HEADER_BYTES]).expect("a good manifest");
            self.made.insert(manifest_id(bytes), header);
        }
    }

    /// Notes what a step changed, and that a fenced writer stops within one more commit.
    fn note(&mut self, process: usize, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::None => {}
            Effect::Removed(name) => drop(self.removed.insert(name)),
            Effect::Created(name) => {
                let objects = self.stage.objects();
                let bytes = &objects[&name];
                self.remember(&name, bytes);
                let Some(header) = self.made.get(&manifest_id(bytes)) else { return Ok(()) };
                let claimed = objects.keys().filter_map(|name| match self.names.read_fencing(name) {
                    Some(Fencing::Claim(epoch)) => Some(epoch),
                    _ => None,
                });
                if claimed.max() > Some(header.epoch) {
                    let late = self.late.entry((process, header.epoch)).or_default();
                    late.insert(name);
                    if late.len() > 1 {
                        return Err(format!("process {process} filled two slots after a higher claim"));
                    }
                }
            }
        }
        Ok(())
    }

    /// What counts: the newest slot and all that it descends from.
    fn chain(&self, objects: &BTreeMap<Name, Bytes>) -> Result<BTreeMap<Seq, ManifestId>, String> {
        let mut chain = BTreeMap::new();
        let newest = objects.iter().find(|(name, _)| self.names.read_slot(name).is_some());
        let Some((name, bytes)) = newest else { return Ok(chain) };
        let mut seq = self.names.read_slot(name).expect("it was just read");
        let (mut id, mut above) = (manifest_id(bytes), Epoch(u64::MAX));
        while let Some(header) = self.made.get(&id) {
            if header.seq != seq {
                return Err(format!("seal {} lies or is named at seq {seq}", header.seq));
            }
            if header.epoch > above {
                return Err(format!("seal {seq} has a higher epoch than one that follows it"));
            }
            chain.insert(seq, id);
            (id, seq, above) = (header.parent, Seq(seq.0 - 1), header.epoch);
        }
        Ok(chain)
    }

    /// Hears what is told to be replicated.
    fn listen(&mut self) -> Result<(), String> {
        let log = self.log.lock().expect("no panic");
        for (process, (handle, folder)) in &log.uploads {
            let Some(seq) = handle.progress().borrow().replicated else { continue };
            if !self.heard.insert((*process, seq)) {
                continue;
            }
            let id = folder.id(seq);
            if *self.told.entry(seq).or_insert(id) != id {
                return Err(format!("two different seals {seq} were told to be replicated"));
            }
            self.packs_told.extend(folder.packs_to(seq).iter().map(|pack| self.names.pack(pack)));
        }
        Ok(())
    }

    /// What must hold at every moment.
    fn look(&self) -> Result<(), String> {
        let objects = self.stage.objects();
        let chain = self.chain(&objects)?;
        let log = self.log.lock().expect("no panic");
        for (seq, id) in &self.told {
            if chain.get(seq) != Some(id) {
                return Err(format!("seal {seq} was told to be replicated, but the head does not follow it"));
            }
            let name = self.names.slot(*seq);
            if !objects.contains_key(&name) && !self.collected(&name) {
                return Err(format!("the slot of seal {seq} is gone, though nobody collected it"));
            }
        }
        for seq in chain.keys() {
            let name = self.names.slot(*seq);
            if !objects.contains_key(&name) && !self.collected(&name) {
                return Err(format!("slot {seq} is gone, though it is kept"));
            }
        }
        if let Some(missing) = self.packs_told.iter().find(|pack| !objects.contains_key(*pack)) {
            return Err(format!("{missing} belongs to what is replicated, but is not there"));
        }
        // Each of the others may commit once more, one commit may lie between the look at the head and the claim,
        // and a slot of its own is met again after a lost answer.
        let bound = self.scene.casts.len() + self.scene.faults as usize;
        for (process, cast) in self.scene.casts.iter().enumerate() {
            if matches!(cast, Cast::Claimant { .. }) && self.stage.too_late(process) > bound {
                return Err(format!("process {process} claimed, but is too late again and again"));
            }
        }
        for cut in &log.cuts {
            if chain.get(&cut.slot.seq) != Some(&cut.slot.id) {
                return Err(format!("the cut at seal {} is not in the volume", cut.slot.seq));
            }
        }
        Ok(())
    }

    /// Whether slots may go.
    fn collects(&self) -> bool {
        let collects =
            |cast: &Cast| matches!(cast, Cast::Claimant { collects: Collects::All | Collects::First, .. });
        self.scene.casts.iter().any(collects)
    }

    fn collected(&self, name: &Name) -> bool {
        let may_go = |cast: &Cast| match cast {
            Cast::Claimant { collects: Collects::All, .. } => true,
            Cast::Claimant { collects: Collects::First, .. } => *name == self.names.slot(Seq(1)),
            _ => false,
        };
        self.removed.contains(name) && self.scene.casts.iter().any(may_go)
    }

    /// What must hold when nothing more happens on its own: nobody is stuck, and somebody can go on.
    async fn ended(&mut self) -> Result<(), String> {
        {
            let log = self.log.lock().expect("no panic");
            for (process, (handle, folder)) in &log.uploads {
                let progress = handle.progress().borrow().clone();
                match progress.state {
                    State::Done if progress.replicated == Some(folder.last()) => {}
                    State::Fenced(_) if self.scene.casts.len() > 1 => {}
                    state => {
                        return Err(format!("process {process} is stuck: {state:?}, {:?}", progress.trouble));
                    }
                }
            }
        }
        let store: Arc<dyn Store> = Arc::new(self.stage.inside().clone());
        let rescue = Remote::new(store, volume()).claim(&*Machine::new(20)).await;
        let cut = rescue.map_err(|error| format!("nobody can go on: {error}"))?;
        self.remember(&self.names.slot(cut.slot.seq), &cut.slot.bytes);
        self.stage.put(&self.names.slot(cut.slot.seq), cut.slot.bytes.clone());
        self.look().map_err(|what| format!("after a rescue: {what}"))
    }
}

/// Marks the number of an incarnation that has nothing more to do.
const ENDED: u64 = 1 << 32;

async fn act(process: usize, incarnation: u64, cast: Cast, store: Arc<dyn Store>, log: SharedLog) {
    match cast {
        Cast::Writer { folder, epoch } => {
            let machine = Machine::new(process as u8);
            upload(process, folder, epoch, store, machine, &log).run().await;
        }
        Cast::Claimant { device, seals, collects } => {
            let machine = Machine::new(device + incarnation as u8);
            let remote = Remote::new(store.clone(), volume()).with_patience(PATIENCE);
            let Some(cut) = claim(&remote, &machine).await else { return };
            let epoch = cut.epoch;
            let folder = Arc::new(Folder::begin(cut.slot.seq.0, cut.slot.bytes.clone()));
            (0..seals).for_each(|_| folder.seal(epoch.0, 200 + device, &[]));
            log.lock().expect("no panic").cuts.push(cut);
            let uploader = upload(process, folder.clone(), epoch.0, store, machine.clone(), &log);
            let handle = log.lock().expect("no panic").uploads[&process].0.clone();
            let collect = async {
                if collects != Collects::Nothing && handle.replicated(folder.last()).await.is_ok() {
                    collect(&remote, &machine, epoch, folder.last(), collects).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! { biased; _ = uploader.run() => {} () = collect => {} }
        }
    }
}

fn upload(
    process: usize,
    folder: Arc<Folder>,
    epoch: u64,
    store: Arc<dyn Store>,
    machine: Arc<Machine>,
    log: &SharedLog,
) -> Uploader {
    let settings = Settings {
        volume: volume(),
        epoch: Epoch(epoch),
        role: Role::Arbiter,
        id: None,
        seen: None,
        // A look changes nothing, and a commit looks at more.
        pace: Pace { patience: PATIENCE, look_every: None, ..Pace::default() },
        seed: process as u64,
    };
    let (uploader, handle) = Uploader::new(store, folder.clone(), machine, settings);
    log.lock().expect("no panic").uploads.insert(process, (handle, folder));
    uploader
}

/// Takes the volume over; begins again once if something fails, and gives up if others are faster.
async fn claim(remote: &Remote, machine: &Machine) -> Option<Cut> {
    for _ in 0..2 {
        match remote.claim(machine).await {
            Ok(cut) => return Some(cut),
            Err(ClaimError::Failed(_)) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Collects slots below the newest, but for the time that must pass, which a sleeper may sleep as well.
async fn collect(remote: &Remote, machine: &Machine, epoch: Epoch, newest: Seq, collects: Collects) {
    let boundary = Seq(newest.0 - 1);
    let kept = match collects {
        Collects::All | Collects::Nothing => BTreeSet::new(),
        Collects::First => (2..newest.0).map(Seq).collect(),
    };
    let given_up = GivenUp { packs: Vec::new(), boundary: Some(boundary), kept };
    // Another time is as good as this one.
    let _ = remote.collect(epoch, machine, &given_up).await;
}
