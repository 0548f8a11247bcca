//! IPFS: a volume's objects in a node, behind the RPC of kubo, with the head under the volume's own key.
//!
//! There is no create-if-absent, so this is a place for copies, written by one device at a time.
//!
//! ```text
//! create ── blocks into the node ── wait ──┐
//! create ── blocks into the node ── wait ──┼── publish: index, pins, record ── all are answered
//! remove ── wait ──────────────────────────┘
//! ```
//!
//! Invariants
//! - A change was answered only when the node has all of the index that holds it pinned, and its record.
//! - What a head names is pinned before the head names it, until another head was published.
//! - A head that is read was signed, and is none from before one that was seen.
//! - Dropping a request that waits does not end the publication that others wait for.

mod cid;
mod dag;
mod index;
mod node;
mod record;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use self::cid::Cid;
use self::dag::{Block, OBJECT_BYTES_MAX};
use self::index::{Directory, Object};
use self::node::Node;
use self::record::{Record, VALID_FOR};
use crate::flow::Flow;
use crate::memory::{not_empty, reaches, within};
use crate::url::{Place, Url};
use crate::{Abilities, Entry, Kind, Name, Prefix, Store, StoreError, Surroundings};

/// The key pair under whose name the head of a store on IPFS is published. What is secret of it lies elsewhere.
pub trait HeadKey: Debug + Send + Sync {
    /// The ed25519 public key.
    fn public(&self) -> [u8; 32];

    /// Whether it signs; else the store can only be read.
    fn may_sign(&self) -> bool;

    /// Signs the data of an IPNS record, behind the prefix that these have; nothing if it does not sign.
    fn sign(&self, data: &[u8]) -> Option<[u8; 64]>;

    /// Whether that is what `sign` makes of these data.
    fn is_signed(&self, data: &[u8], signature: &[u8; 64]) -> bool;
}

/// Blocks of one object that go in or come out at once.
const BLOCKS_AT_ONCE: usize = 8;
/// How old what is known of the head may be for who reads.
const READ_AGE_MAX: Duration = Duration::from_secs(2);
/// The same for who writes, and so knows it best.
const WRITE_AGE_MAX: Duration = Duration::from_secs(60);
/// How long a change waits for its publication, which the network may take a minute for.
const PUBLISH_TIME_MAX: Duration = Duration::from_secs(50);
/// How often who waits for it says that something goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How often the record is given to the node again: as often as kubo does with its own.
const REPUBLISH_EVERY: Duration = Duration::from_secs(4 * 3600);
/// Names that are looked at together when two indexes are made one.
const PAGE: usize = 1000;

/// A store on IPFS.
#[derive(Debug)]
pub(crate) struct Ipfs(Arc<Inner>);

struct Inner {
    node: Node,
    key: Arc<dyn HeadKey>,
    /// The IPNS name.
    name: String,
    /// What our pins are called.
    pin_name: String,
    /// The remote service that pins too.
    service: Option<String>,
    state: Mutex<State>,
    /// One looks at the head at a time; the others want to know the same.
    looking: tokio::sync::Mutex<()>,
    /// One publishes at a time.
    publishing: tokio::sync::Mutex<Published>,
}

impl Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipfs").field("node", &self.node).field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// The newest head that was seen.
    head: Option<Arc<Head>>,
    /// When it was last looked for, unless something says that it may be another by now.
    looked: Option<Instant>,
    /// Changes that no publication has taken up.
    waiting: Vec<Waiting>,
    /// Whether somebody gives the record to the node again and again.
    kept_alive: bool,
}

/// A head, and the index below it.
#[derive(Debug)]
struct Head {
    record: Record,
    /// As it was signed.
    signed: Bytes,
    root: Directory,
}

/// A change that waits to be published.
struct Waiting {
    action: &'static str,
    name: Name,
    /// What is to lie there.
    object: Option<Object>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// What was published by this opening of the store.
#[derive(Default)]
struct Published {
    /// The last root of ours.
    ours: Option<Cid>,
    /// Roots that the node has pinned for us; not known until it was asked.
    pinned: Option<BTreeSet<Cid>>,
    /// Roots that the remote service was asked for since the newest that it was seen to have, oldest first.
    asked: Vec<Cid>,
}

impl Ipfs {
    /// The store behind such a URL, of the volume that the surroundings name. Asks nobody yet.
    pub(crate) fn open(url: &Url, around: &Surroundings) -> Result<Ipfs, StoreError> {
        let refused = |why| StoreError::new(Kind::Refused, "open", url, why);
        let Place::Ipfs { host, pin } = &url.0 else { return Err(refused("this is no IPFS")) };
        let key = around.head_key().ok_or_else(|| {
            refused("a store on IPFS is found by the key of its volume, and holds nothing else: no key rings")
        })?;
        let name = cid::ipns_name(&key.public());
        Ok(Ipfs(Arc::new(Inner {
            node: Node::open(url, host, around)?,
            pin_name: format!("comb-{name}"),
            key,
            name,
            service: pin.clone(),
            state: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
        })))
    }

    /// Lets a change be published, and waits for it.
    async fn publish(
        &self,
        action: &'static str,
        name: &Name,
        object: Option<Object>,
    ) -> Result<(), StoreError> {
        let (done, told) = oneshot::channel();
        self.0.state().waiting.push(Waiting { action, name: name.clone(), object, done });
        // In a task of its own, so that who is given up does not take others with it.
        tokio::spawn(publish_waiting(self.0.clone()));
        let wait = async {
            let mut told = std::pin::pin!(told);
            loop {
                match timeout(SIGN_OF_LIFE, &mut told).await {
                    Ok(answer) => return answer,
                    // The node says nothing while it asks its network.
                    Err(_) => Flow::current().iter().for_each(Flow::moved),
                }
            }
        };
        let late = |why: &str| Err(self.0.node.error(Kind::Unreachable, action, name, why));
        match timeout(PUBLISH_TIME_MAX, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => late("its publication ended early"),
            Err(_) => late("the head is not published yet"),
        }
    }

    /// The object of a name, by the newest head.
    async fn find(&self, action: &'static str, name: &Name) -> Result<Object, StoreError> {
        for age in [Duration::MAX, self.0.age_max()] {
            if let Some(head) = self.0.head(age).await?
                && let Some(object) = head.root.find(&self.0.node, name.as_str()).await?
            {
                return Ok(object);
            }
        }
        Err(self.0.node.error(Kind::Absent, action, name, ""))
    }

    /// These bytes of an object: the leaves that hold them, and no others.
    async fn bytes(&self, name: &Name, object: &Object, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Object { cid, size } = *object;
        if size <= dag::LEAF_BYTES {
            let whole = self.leaf(name, cid, size).await?;
            return Ok(whole.slice(range.start as usize..range.end as usize));
        }
        let leaves = dag::leaves_below(&self.0.node.get(&cid).await?, size).ok_or_else(|| {
            let what = format_args!("{cid} is not the node above {size} bytes");
            self.0.node.error(Kind::Damaged, "get", name, what)
        })?;
        let (first, last) = (range.start / dag::LEAF_BYTES, (range.end - 1) / dag::LEAF_BYTES);
        let mut found: Vec<Bytes> = Vec::with_capacity((last - first + 1) as usize);
        let wanted: Vec<u64> = (first..=last).collect();
        for some in wanted.chunks(BLOCKS_AT_ONCE) {
            let each =
                some.iter().map(|leaf| self.leaf(name, leaves[*leaf as usize], dag::leaf_bytes(size, *leaf)));
            found.extend(all(each).await?);
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        for (leaf, block) in wanted.iter().zip(&found) {
            let at = leaf * dag::LEAF_BYTES;
            let from = range.start.saturating_sub(at) as usize;
            let to = (range.end - at).min(block.len() as u64) as usize;
            bytes.extend_from_slice(&block[from..to]);
        }
        Ok(bytes.freeze())
    }

    /// A block of bytes, of which there must be so many.
    async fn leaf(&self, name: &Name, cid: Cid, size: u64) -> Result<Bytes, StoreError> {
        let block = self.0.node.get(&cid).await?;
        if block.len() as u64 == size {
            return Ok(block);
        }
        let what = format_args!("{cid} has {} bytes, not {size}", block.len());
        Err(self.0.node.error(Kind::Damaged, "get", name, what))
    }
}

/// Waits for several requests that work for the same one; the first error of all ends it.
async fn all<T>(
    requests: impl Iterator<Item = impl Future<Output = Result<T, StoreError>>>,
) -> Result<Vec<T>, StoreError> {
    let mut requests: Vec<_> = requests.map(|request| (Box::pin(request), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (request, answer) in &mut requests {
            if answer.is_some() {
                continue;
            }
            match request.as_mut().poll(context) {
                std::task::Poll::Ready(Ok(found)) => *answer = Some(found),
                std::task::Poll::Ready(Err(error)) => return std::task::Poll::Ready(Err(error)),
                std::task::Poll::Pending => is_ready = false,
            }
        }
        if is_ready { std::task::Poll::Ready(Ok(())) } else { std::task::Poll::Pending }
    })
    .await?;
    Ok(requests.into_iter().filter_map(|(_, answer)| answer).collect())
}

impl Inner {
    /// No step under the lock leaves it in between, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How old what is known of the head may be where it matters.
    fn age_max(&self) -> Duration {
        if self.key.may_sign() { WRITE_AGE_MAX } else { READ_AGE_MAX }
    }

    /// What is known of the head, if it was looked at so lately.
    fn known(&self, age: Duration) -> Option<Option<Arc<Head>>> {
        let state = self.state();
        let is_fresh = state.looked.is_some_and(|looked| looked.elapsed() <= age);
        (is_fresh || age == Duration::MAX && state.head.is_some()).then(|| state.head.clone())
    }

    /// The newest head; nothing if there is none. Asks the node if what is known is older than that.
    async fn head(self: &Arc<Self>, age: Duration) -> Result<Option<Arc<Head>>, StoreError> {
        if let Some(known) = self.known(age) {
            return Ok(known);
        }
        let _one = self.looking.lock().await;
        // Who looked while we waited, looked for us too.
        if let Some(known) = self.known(age) {
            return Ok(known);
        }
        let found = match self.node.record(&self.name).await? {
            Some(signed) => self.believe(signed).await?,
            None => None,
        };
        let mut state = self.state();
        let newer = |found: &Arc<Head>| {
            state.head.as_ref().is_none_or(|head| found.record.sequence >= head.record.sequence)
        };
        if let Some(found) = found.filter(newer) {
            state.head = Some(found);
        }
        state.looked = Some(Instant::now());
        let newest = state.head.clone();
        drop(state);
        if self.key.may_sign() && newest.is_some() {
            self.keep_alive();
        }
        Ok(newest)
    }

    /// Checks a record and loads the root that it leads to; nothing if that one is known already.
    async fn believe(&self, signed: Bytes) -> Result<Option<Arc<Head>>, StoreError> {
        let key = || format!("/ipns/{}", self.name);
        let record = Record::open(&signed, &*self.key)
            .map_err(|why| self.node.error(Kind::Damaged, "get", key(), why))?;
        if record.until < record::now() && !self.key.may_sign() {
            let what = "its record is older than a year: whoever writes the volume must publish it again";
            return Err(self.node.error(Kind::Damaged, "get", key(), what));
        }
        if let Some(Some(known)) = self.known(Duration::MAX)
            && known.signed == signed
        {
            return Ok(Some(known));
        }
        let root = Directory::load(&self.node, &record.root).await?;
        Ok(Some(Arc::new(Head { record, signed, root })))
    }

    /// Publishes an index with these changes, and says what became of each.
    async fn make_head(
        self: &Arc<Self>,
        published: &mut Published,
        waiting: &[Waiting],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let before = self.head(WRITE_AGE_MAX).await?;
        let root = before.as_ref().map(|head| head.root.clone()).unwrap_or_default();
        let mut changes: BTreeMap<String, Option<Object>> = BTreeMap::new();
        let mut answers = Vec::with_capacity(waiting.len());
        for Waiting { action, name, object, .. } in waiting {
            let there = match changes.get(name.as_str()) {
                Some(changed) => *changed,
                None => root.find(&self.node, name.as_str()).await?,
            };
            let exists = || self.node.error(Kind::Exists, action, name, "");
            answers.push(if there.is_some() && object.is_some() { Err(exists()) } else { Ok(()) });
            if there.is_some() != object.is_some() {
                changes.insert(name.as_str().to_owned(), *object);
            }
        }
        if let (Some(ours), Some(before)) = (published.ours, &before)
            && ours != before.record.root
        {
            self.put_back(ours, &root, &mut changes).await?;
        }
        if !changes.is_empty() {
            let mut made = Vec::new();
            let changes = changes.iter().map(|(name, object)| (name.as_str(), *object)).collect();
            let root = root.change(&self.node, changes, &mut made).await?;
            let top = root.encode().0;
            let cid = top.cid;
            made.push(top);
            self.put_all(made).await?;
            self.pin(published, cid, before.as_deref()).await?;
            let sequence = before.as_ref().map_or(0, |head| head.record.sequence.saturating_add(1));
            self.give(Record { root: cid, sequence, until: 0 }, root).await?;
            published.ours = Some(cid);
            self.unpin_others(published, cid).await;
        }
        Ok(answers)
    }

    /// The names of our last index that are missing in a foreign one which took its place are put in again.
    async fn put_back(
        &self,
        ours: Cid,
        theirs: &Directory,
        changes: &mut BTreeMap<String, Option<Object>>,
    ) -> Result<(), StoreError> {
        let ours = Directory::load(&self.node, &ours).await?;
        let mut after: Option<Name> = None;
        loop {
            let page = ours.list(&self.node, &Prefix::all(), after.as_ref(), PAGE).await?;
            for (entry, object) in &page {
                if theirs.find(&self.node, entry.name.as_str()).await?.is_none() {
                    changes.entry(entry.name.as_str().to_owned()).or_insert(Some(*object));
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
            after = page.last().map(|(entry, _)| entry.name.clone());
        }
    }

    /// Puts blocks into the node, some at once.
    async fn put_all(&self, blocks: Vec<Block>) -> Result<(), StoreError> {
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            all(some.iter().map(|block| self.node.put(block))).await?;
        }
        Ok(())
    }

    /// Has a root pinned, here and where else it is wanted.
    async fn pin(
        &self,
        published: &mut Published,
        root: Cid,
        before: Option<&Head>,
    ) -> Result<(), StoreError> {
        let pinned = match &mut published.pinned {
            Some(pinned) => pinned,
            none => none.insert(self.node.pinned(&self.pin_name).await?),
        };
        if !pinned.contains(&root) {
            // The nearer it is, the less must be looked at.
            let near = before.map(|head| head.record.root).filter(|root| pinned.contains(root));
            let done = match near.or(pinned.first().copied()) {
                Some(near) => self.node.pin_beside(&root, &near).await,
                None => self.node.pin(&root, &self.pin_name).await,
            };
            if let Err(error) = done {
                // Somebody may have unpinned what we built on.
                published.pinned = None;
                return Err(error);
            }
            pinned.insert(root);
        }
        match &self.service {
            Some(service) => {
                self.node.pin_remotely(&root, &self.pin_name, service).await?;
                published.asked.push(root);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Unpins what a published head no longer needs. What cannot be done now is done with the next head.
    async fn unpin_others(&self, published: &mut Published, root: Cid) {
        let Some(pinned) = &mut published.pinned else { return };
        let others: Vec<Cid> = pinned.iter().copied().filter(|other| *other != root).collect();
        for other in others {
            if self.node.unpin(&other).await.is_ok() {
                pinned.remove(&other);
            }
        }
        // The service may always be some roots behind: all older than the newest that it has can go.
        if let Some(service) = &self.service
            && let Ok(there) = self.node.pinned_remotely(&self.pin_name, service).await
            && let Some(newest) = published.asked.iter().rposition(|asked| there.contains(asked))
        {
            published.asked.drain(..newest);
            for other in there.iter().filter(|other| !published.asked.contains(other)) {
                let _ = self.node.unpin_remotely(other, &self.pin_name, service).await;
            }
        }
    }

    /// Signs a record of a root and gives it to the node.
    async fn give(self: &Arc<Self>, record: Record, root: Directory) -> Result<(), StoreError> {
        let record = Record { until: record::now() + VALID_FOR.as_secs(), ..record };
        let signed: Bytes = record.sign(&*self.key).ok_or_else(|| self.only_reads())?.into();
        self.node.publish(&self.name, signed.clone()).await?;
        let head = Arc::new(Head { record, signed, root });
        let mut state = self.state();
        state.head = Some(head);
        state.looked = Some(Instant::now());
        Ok(())
    }

    fn only_reads(&self) -> StoreError {
        self.node.error(Kind::Refused, "create", &self.name, "the store was opened to be read only")
    }

    /// Sees to it that the record does not end while the store is open.
    fn keep_alive(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().kept_alive, true) {
            return;
        }
        let store = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                sleep(REPUBLISH_EVERY).await;
                let Some(store) = Weak::upgrade(&store) else { return };
                // It is tried again next time, and whoever writes meanwhile hears of it.
                let _ = store.republish().await;
            }
        });
    }

    /// Gives the record to the node once more, signed anew in the second half of its year.
    async fn republish(self: &Arc<Self>) -> Result<(), StoreError> {
        let _one = self.publishing.lock().await;
        let Some(head) = self.head(Duration::ZERO).await? else { return Ok(()) };
        if head.record.until >= record::now() + VALID_FOR.as_secs() / 2 {
            return self.node.publish(&self.name, head.signed.clone()).await;
        }
        let sequence = head.record.sequence.saturating_add(1);
        self.give(Record { sequence, ..head.record }, head.root.clone()).await
    }
}

/// Publishes all changes that wait, if another has not done so.
async fn publish_waiting(store: Arc<Inner>) {
    let mut published = store.publishing.lock().await;
    let waiting = std::mem::take(&mut store.state().waiting);
    if waiting.is_empty() {
        return;
    }
    let answers = store.make_head(&mut published, &waiting).await;
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => {
            // The node may know of a newer head than we do.
            store.state().looked = None;
            vec![Err(error); waiting.len()]
        }
    };
    for (waiting, answer) in waiting.into_iter().zip(answers) {
        // Who was given up hears nothing.
        let _ = waiting.done.send(answer);
    }
}

#[async_trait]
impl Store for Ipfs {
    fn abilities(&self) -> Abilities {
        Abilities { create_if_absent: false }
    }

    async fn create(&self, name: &Name, bytes: Bytes) -> Result<(), StoreError> {
        if !self.0.key.may_sign() {
            return Err(self.0.only_reads());
        }
        let size = bytes.len() as u64;
        if size > OBJECT_BYTES_MAX {
            let what = format_args!("{size} bytes, of which {OBJECT_BYTES_MAX} may be");
            return Err(self.0.node.error(Kind::Refused, "create", name, what));
        }
        match self.find("create", name).await {
            Ok(_) => return Err(self.0.node.error(Kind::Exists, "create", name, "")),
            Err(error) if error.kind() == Kind::Absent => {}
            Err(error) => return Err(error),
        }
        let blocks = dag::cut(&bytes);
        let cid = blocks.last().expect("an object has a block at least").cid;
        self.0.put_all(blocks).await?;
        self.publish("create", name, Some(Object { cid, size })).await
    }

    async fn get(&self, name: &Name, limit: u64) -> Result<Bytes, StoreError> {
        let object = self.find("get", name).await?;
        within(name, object.size, limit)?;
        match object.size {
            0 => self.leaf(name, object.cid, 0).await,
            size => self.bytes(name, &object, 0..size).await,
        }
    }

    async fn get_range(&self, name: &Name, range: Range<u64>) -> Result<Bytes, StoreError> {
        not_empty(name, &range)?;
        let object = self.find("get", name).await?;
        reaches(name, object.size, &range)?;
        self.bytes(name, &object, range).await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let Some(head) = self.0.head(self.0.age_max()).await? else { return Ok(Vec::new()) };
        let listed = head.root.list(&self.0.node, prefix, after, limit).await?;
        Ok(listed.into_iter().map(|(entry, _)| entry).collect())
    }

    async fn remove(&self, name: &Name) -> Result<(), StoreError> {
        if !self.0.key.may_sign() {
            return Err(self.0.only_reads());
        }
        match self.find("remove", name).await {
            Ok(_) => self.publish("remove", name, None).await,
            Err(error) if error.kind() == Kind::Absent => Ok(()),
            Err(error) => Err(error),
        }
    }
}
