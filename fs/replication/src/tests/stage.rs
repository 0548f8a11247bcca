//! A store of which every request waits until somebody says what becomes of it.
//!
//! What a process knows is what it was answered; so the objects in the store, the answers that each process got and
//! the requests that are still on their way are all there is to the state of the world, and two runs that
//! agree in these go on alike.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use fs_store::{Abilities, Entry, Kind, Memory, Name, Prefix, Store, StoreError};
use tokio::sync::oneshot;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    Create(Name, Bytes),
    Get(Name, u64),
    List(Prefix, Option<Name>, usize),
    Remove(Name),
}

impl Ask {
    /// Whether it changes the store.
    pub fn changes(&self) -> bool {
        matches!(self, Ask::Create(..) | Ask::Remove(_))
    }

    /// The end of the name that it is about.
    pub fn about(&self) -> String {
        let (what, name) = match self {
            Ask::Create(name, _) => ("create", name.as_str()),
            Ask::Get(name, _) => ("get", name.as_str()),
            Ask::List(prefix, ..) => ("list", prefix.as_str()),
            Ask::Remove(name) => ("remove", name.as_str()),
        };
        let rest = name.splitn(3, '/').last().unwrap_or(name);
        format!("{what} {rest}")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Said {
    Done,
    Bytes(Bytes),
    Names(Vec<(Name, u64)>),
    Failed(u8),
}

type Answer = Result<Said, StoreError>;

/// A request on its way.
pub struct Waiting {
    pub process: usize,
    pub ask: Ask,
    /// Nobody waits for the answer any more if this is gone.
    reply: Option<oneshot::Sender<Answer>>,
}

impl Waiting {
    /// Whether somebody waits for the answer.
    pub fn is_heard(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }
}

/// What a choice needs to know of a request.
pub struct OnItsWay {
    pub process: usize,
    /// Somebody waits for the answer.
    pub heard: bool,
    /// It reads something that stays as it is.
    pub timeless: bool,
}

/// The store and what is on its way to it.
#[derive(Default)]
pub struct Stage {
    inside: Memory,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    waiting: Vec<Waiting>,
    objects: BTreeMap<Name, Bytes>,
    /// What each process was told, in its order, as a hash.
    heard: BTreeMap<usize, u64>,
    /// How often each process found its slot taken since it claimed an epoch.
    too_late: BTreeMap<usize, usize>,
    story: Vec<String>,
}

/// What became of the objects by one step.
pub enum Effect {
    None,
    Created(Name),
    Removed(Name),
}

impl Stage {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no test panics while it holds this")
    }

    /// The store as a process sees it.
    pub fn seat(self: &Arc<Stage>, process: usize) -> Arc<dyn Store> {
        Arc::new(Seat { stage: self.clone(), process })
    }

    pub fn objects(&self) -> BTreeMap<Name, Bytes> {
        self.board().objects.clone()
    }

    pub fn put(&self, name: &Name, bytes: Bytes) {
        self.board().objects.insert(name.clone(), bytes);
    }

    pub fn story(&self) -> Vec<String> {
        self.board().story.clone()
    }

    /// How often a process found its slot taken since it claimed an epoch.
    pub fn too_late(&self, process: usize) -> usize {
        self.board().too_late.get(&process).copied().unwrap_or_default()
    }

    pub fn tell(&self, line: String) {
        self.board().story.push(line);
    }

    /// What is on its way. What nobody waits for and changes nothing any more is forgotten.
    pub fn waiting(&self, slots_go: bool) -> Vec<OnItsWay> {
        let mut board = self.board();
        let Board { waiting, objects, .. } = &mut *board;
        let goes = |name: &Name| slots_go && name.as_str().contains("/m/");
        let stays = |name: &Name| objects.contains_key(name) && !goes(name);
        waiting.retain(|one| {
            one.is_heard()
                || match &one.ask {
                    Ask::Create(name, _) => !stays(name),
                    Ask::Remove(_) => true,
                    Ask::Get(..) | Ask::List(..) => false,
                }
        });
        // In the order of processes and not of arrival, so that equal states have equal choices.
        waiting.sort_by_key(|one| (one.process, !one.is_heard()));
        let timeless = |ask: &Ask| matches!(ask, Ask::Get(name, _) if stays(name));
        let told = |one: &Waiting| OnItsWay {
            process: one.process,
            heard: one.is_heard(),
            timeless: timeless(&one.ask),
        };
        waiting.iter().map(told).collect()
    }

    /// All that a run depends on from here, as a hash.
    pub fn state(&self) -> u64 {
        let board = self.board();
        let mut hash = DefaultHasher::new();
        board.objects.hash(&mut hash);
        board.heard.hash(&mut hash);
        board.too_late.hash(&mut hash);
        for one in &board.waiting {
            (one.process, &one.ask, one.is_heard()).hash(&mut hash);
        }
        hash.finish()
    }

    /// A process begins anew and knows nothing.
    pub fn forget(&self, process: usize, incarnation: u64) {
        let mut board = self.board();
        board.heard.insert(process, incarnation);
        board.too_late.remove(&process);
    }

    /// Does a request, and answers it if somebody waits.
    pub async fn carry_out(&self, index: usize) -> Effect {
        let one = self.board().waiting.remove(index);
        let said = self.perform(&one.ask).await;
        let effect = match (&one.ask, &said) {
            (Ask::Create(name, bytes), Ok(_)) => {
                self.put(name, bytes.clone());
                Effect::Created(name.clone())
            }
            (Ask::Remove(name), Ok(_)) => {
                self.board().objects.remove(name);
                Effect::Removed(name.clone())
            }
            _ => Effect::None,
        };
        let heard = if one.is_heard() { "" } else { ", long after" };
        self.answer(one, said, heard);
        effect
    }

    /// Tells who waits that the store cannot be reached; what changes the store stays on its way.
    pub fn lose_answer(&self, index: usize) {
        let mut board = self.board();
        let mut one = board.waiting.remove(index);
        let lost = Err(StoreError::new(Kind::Unreachable, "ask", one.ask.about(), "lost on purpose"));
        let reply = one.reply.take();
        if one.ask.changes() {
            board.waiting.push(Waiting { process: one.process, ask: one.ask.clone(), reply: None });
        }
        drop(board);
        self.answer(Waiting { reply, ..one }, lost, "");
    }

    fn answer(&self, one: Waiting, said: Answer, note: &str) {
        let short = match &said {
            Ok(Said::Names(names)) => format!("{} names", names.len()),
            Ok(_) => "ok".into(),
            Err(error) => format!("{:?}", error.kind()),
        };
        let mut board = self.board();
        board.story.push(format!("{}: {} -> {short}{note}", one.process, one.ask.about()));
        if let Some(reply) = one.reply
            && !reply.is_closed()
        {
            let known = match &said {
                Ok(said) => said.clone(),
                Err(error) => Said::Failed(error.kind() as u8),
            };
            if let Ask::Create(name, _) = &one.ask {
                let claims = name.as_str().contains("/c/e");
                match &said {
                    Ok(_) if claims => drop(board.too_late.remove(&one.process)),
                    Err(error) if error.kind() == Kind::Exists && name.as_str().contains("/m/") => {
                        *board.too_late.entry(one.process).or_default() += 1;
                    }
                    _ => {}
                }
            }
            let heard = board.heard.entry(one.process).or_default();
            let mut hash = DefaultHasher::new();
            (*heard, &one.ask, known).hash(&mut hash);
            *heard = hash.finish();
            // Who waited may be gone by now.
            let _ = reply.send(said);
        }
    }

    async fn perform(&self, ask: &Ask) -> Answer {
        Ok(match ask {
            Ask::Create(name, bytes) => {
                self.inside.create(name, bytes.clone()).await?;
                Said::Done
            }
            Ask::Get(name, limit) => Said::Bytes(self.inside.get(name, *limit).await?),
            Ask::List(prefix, after, limit) => {
                let listed = self.inside.list(prefix, after.as_ref(), *limit).await?;
                Said::Names(listed.into_iter().map(|entry| (entry.name, entry.size)).collect())
            }
            Ask::Remove(name) => {
                self.inside.remove(name).await?;
                Said::Done
            }
        })
    }

    /// The store without a stage.
    pub fn inside(&self) -> &Memory {
        &self.inside
    }
}

#[derive(Clone)]
struct Seat {
    stage: Arc<Stage>,
    process: usize,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seat {}", self.process)
    }
}

impl Seat {
    async fn ask(&self, ask: Ask) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.stage.board().waiting.push(Waiting { process: self.process, ask, reply: Some(reply) });
        answer.await.expect("a request is answered while somebody waits")
    }
}

#[async_trait]
impl Store for Seat {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: true }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        self.ask(Ask::Create(name.clone(), bytes)).await.map(drop)
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        match self.ask(Ask::Get(name.clone(), limit)).await? {
            Said::Bytes(bytes) => Ok(bytes),
            other => unreachable!("a get is answered with {other:?}"),
        }
    }

    async fn get_range(&self, _: &Name, _: Range<u64>) -> Result<Bytes, StoreError> {
        unreachable!("the protocol reads whole objects")
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        match self.ask(Ask::List(prefix.clone(), after.cloned(), limit)).await? {
            Said::Names(names) => Ok(names.into_iter().map(|(name, size)| Entry { name, size }).collect()),
            other => unreachable!("a listing is answered with {other:?}"),
        }
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.ask(Ask::Remove(name.clone())).await.map(drop)
    }
}
