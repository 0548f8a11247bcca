//! The index: all names with the CIDs of their objects, as a tree of directories that share beginnings of names.
//!
//! `fs/docs/replication.md`, section 10, says how. A tree is a value: a change makes the directories on the way to
//! the names that it touches, and leaves all others as they are.
//!
//! Invariants
//! - A name lies below the link that is its longest beginning, so names in a subtree are next to each other.
//! - No directory that is made has more than [`LINKS_MAX`] links, or less than two but for the root.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;

use super::cid::{Cid, Codec};
use super::dag::{self, Block, Link};
use crate::{Entry, Name, Prefix, StoreError};

/// The most links of a directory: some 25 KiB of packs.
const LINKS_MAX: usize = 256;
/// What a link ends with that leads to a directory; no name has it.
const LEADS_ON: char = '~';
/// What stands for `/` in a link; no name has it.
const SLASH: char = ':';

/// Where the blocks of an index are.
pub(super) trait Blocks: Sync {
    /// The block of that name, checked.
    fn block(&self, cid: &Cid) -> impl Future<Output = Result<Bytes, StoreError>> + Send;

    /// That a block has its name, but is no directory of an index.
    fn odd(&self, cid: &Cid) -> StoreError;
}

/// An object, as a link tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) cid: Cid,
    pub(super) size: u64,
}

/// What a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Object(Object),
    Directory { cid: Cid, total: u64 },
}

/// A directory: beginnings of names that lead on, and ends of names; of the same text the end comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    links: BTreeMap<(String, bool), Target>,
}

/// A link's text, whether it leads on, and to what.
type Linked = ((String, bool), Target);

/// A name and its object, or that it is to have none.
pub(super) type Change<'a> = (&'a str, Option<Object>);

impl Directory {
    /// Reads a directory; nothing if it is none of an index.
    fn decode(block: &[u8]) -> Option<Directory> {
        let mut links = BTreeMap::new();
        for Link { cid, name, total } in dag::links_of(block)? {
            let (text, leads_on) = match name.strip_suffix(LEADS_ON) {
                Some(text) => (text, true),
                None => (name.as_str(), false),
            };
            let text = text.replace(SLASH, "/");
            let target = match (leads_on, cid.codec) {
                (true, Codec::DagPb) => Target::Directory { cid, total },
                (true, Codec::Raw) => return None,
                (false, codec) => Target::Object(Object { cid, size: dag::size_of(codec, total)? }),
            };
            // Only what takes something off a name ends.
            if text.is_empty() || links.insert((text, leads_on), target).is_some() {
                return None;
            }
        }
        Some(Directory { links })
    }

    /// The block, and the bytes of all blocks that it leads to, with its own.
    pub(super) fn encode(&self) -> (Block, u64) {
        let link = |((text, leads_on), target): (&(String, bool), &Target)| {
            let mut name = text.replace('/', SLASH.encode_utf8(&mut [0; 4]));
            let (cid, total) = match *target {
                Target::Object(Object { cid, size }) => (cid, dag::total(size)),
                Target::Directory { cid, total } => (cid, total),
            };
            if *leads_on {
                name.push(LEADS_ON);
            }
            Link { cid, name, total }
        };
        let mut links: Vec<Link> = self.links.iter().map(link).collect();
        links.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let below: u64 = links.iter().fold(0, |sum, link| sum.saturating_add(link.total));
        let block = Block::new(Codec::DagPb, dag::directory(links));
        let total = below.saturating_add(block.bytes.len() as u64);
        (block, total)
    }

    /// The directory of that name.
    pub(super) async fn load(blocks: &impl Blocks, cid: &Cid) -> Result<Directory, StoreError> {
        Directory::decode(&blocks.block(cid).await?).ok_or_else(|| blocks.odd(cid))
    }

    /// The link that leads on to a name: its text and its directory.
    fn way_to(&self, name: &str) -> Option<(&str, Cid)> {
        self.links.iter().find_map(|((text, _), target)| match target {
            Target::Directory { cid, .. } if leads(text, name) => Some((text.as_str(), *cid)),
            _ => None,
        })
    }

    /// The object of a name.
    pub(super) async fn find(&self, blocks: &impl Blocks, name: &str) -> Result<Option<Object>, StoreError> {
        let (mut rest, mut loaded);
        let mut directory = self;
        rest = name;
        while let Some((text, cid)) = directory.way_to(rest) {
            rest = &rest[text.len()..];
            loaded = Directory::load(blocks, &cid).await?;
            directory = &loaded;
        }
        Ok(match directory.links.get(&(rest.to_owned(), false)) {
            Some(Target::Object(object)) => Some(*object),
            _ => None,
        })
    }

    /// Names below a prefix in ascending order, from the first after `after` on.
    pub(super) async fn list(
        &self,
        blocks: &impl Blocks,
        prefix: &Prefix,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<(Entry, Object)>, StoreError> {
        let prefix = prefix.as_str();
        let after = after.map_or("", Name::as_str);
        let mut found = Vec::new();
        // What is still to be seen, the next at the end.
        let mut rest = self.behind("");
        while let Some((path, target)) = rest.pop()
            && found.len() < limit
        {
            match target {
                Target::Object(object) if path.starts_with(prefix) && path.as_str() > after => {
                    // What is no name is somebody else's.
                    if let Ok(name) = Name::new(path) {
                        found.push((Entry { name, size: object.size }, object));
                    }
                }
                Target::Directory { cid, .. }
                    if (path.starts_with(prefix) || prefix.starts_with(&path))
                        && (path.as_str() > after || after.starts_with(&path)) =>
                {
                    rest.extend(Directory::load(blocks, &cid).await?.behind(&path));
                }
                Target::Object(_) | Target::Directory { .. } => {}
            }
        }
        Ok(found)
    }

    /// The links with the whole beginnings of their names, the last first.
    fn behind(&self, path: &str) -> Vec<(String, Target)> {
        let links = self.links.iter().rev();
        links.map(|((text, _), target)| (format!("{path}{text}"), *target)).collect()
    }

    /// The directory with these changes, of different names; what was made below it is added to `made`.
    pub(super) fn change<'a, B: Blocks>(
        mut self,
        blocks: &'a B,
        changes: Vec<Change<'a>>,
        made: &'a mut Vec<Block>,
    ) -> Pin<Box<dyn Future<Output = Result<Directory, StoreError>> + Send + 'a>> {
        Box::pin(async move {
            let mut below: BTreeMap<(String, Cid), Vec<Change<'a>>> = BTreeMap::new();
            let mut here = Vec::new();
            for (name, object) in changes {
                match self.way_to(name) {
                    Some((text, cid)) => {
                        let rest = &name[text.len()..];
                        below.entry((text.to_owned(), cid)).or_default().push((rest, object));
                    }
                    None => here.push((name, object)),
                }
            }
            for (name, object) in here {
                match object {
                    Some(object) => self.links.insert((name.to_owned(), false), Target::Object(object)),
                    None => self.links.remove(&(name.to_owned(), false)),
                };
            }
            for ((text, cid), changes) in below {
                let child = Directory::load(blocks, &cid).await?;
                let child = child.change(blocks, changes, &mut *made).await?;
                self.links.remove(&(text.clone(), true));
                match child.links.len() {
                    0 => {}
                    1 => self.links.extend(
                        child
                            .links
                            .into_iter()
                            .map(|((rest, leads_on), target)| ((format!("{text}{rest}"), leads_on), target)),
                    ),
                    _ => self.put(text, &child, made),
                }
            }
            Ok(self.split(made))
        })
    }

    /// Puts a directory behind a link.
    fn put(&mut self, text: String, child: &Directory, made: &mut Vec<Block>) {
        let (block, total) = child.encode();
        self.links.insert((text, true), Target::Directory { cid: block.cid, total });
        made.push(block);
    }

    /// The directory, split if it has too many links.
    fn split(self, made: &mut Vec<Block>) -> Directory {
        if self.links.len() <= LINKS_MAX {
            return self;
        }
        let mut groups: BTreeMap<u8, Vec<Linked>> = BTreeMap::new();
        for (link, target) in self.links {
            let first = *link.0.as_bytes().first().expect("no link of a directory is empty");
            groups.entry(first).or_default().push((link, target));
        }
        let mut split = Directory::default();
        for group in groups.into_values() {
            let shared = shared(group.iter().map(|((text, _), _)| text.as_str())).to_owned();
            let (longer, whole): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|((text, _), _)| text.len() > shared.len());
            split.links.extend(whole);
            if longer.len() < 2 {
                split.links.extend(longer);
                continue;
            }
            let cut =
                |((text, leads_on), target): Linked| ((text[shared.len()..].to_owned(), leads_on), target);
            let child = Directory { links: longer.into_iter().map(cut).collect() }.split(made);
            split.put(shared, &child, made);
        }
        split
    }
}

/// Whether a link leads on to a name: it takes a part of it, and leaves something.
fn leads(text: &str, name: &str) -> bool {
    name.len() > text.len() && name.starts_with(text)
}

/// What all of these begin with.
fn shared<'a>(mut texts: impl Iterator<Item = &'a str>) -> &'a str {
    let first = texts.next().unwrap_or_default();
    let common = |length: usize, text: &str| {
        let both = first.bytes().zip(text.bytes()).take(length);
        both.take_while(|(one, other)| one == other).count()
    };
    let length = texts.fold(first.len(), common);
    // Names are ASCII; a foreign link may not be.
    (0..=length).rev().find_map(|length| first.get(..length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Kind;

    /// Blocks in memory, which counts what it is asked for.
    #[derive(Default)]
    struct Memory {
        blocks: Mutex<HashMap<Cid, Bytes>>,
        asked: AtomicUsize,
    }

    impl Blocks for Memory {
        async fn block(&self, cid: &Cid) -> Result<Bytes, StoreError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let found = self.blocks.lock().expect("whole").get(cid).cloned();
            found.ok_or_else(|| StoreError::new(Kind::Absent, "get", cid, ""))
        }

        fn odd(&self, cid: &Cid) -> StoreError {
            StoreError::new(Kind::Damaged, "get", cid, "")
        }
    }

    impl Memory {
        /// Makes changes and says which blocks were made for them, the root among them.
        async fn change(&self, root: Directory, changes: Vec<Change<'_>>) -> (Directory, Vec<Block>) {
            let mut made = Vec::new();
            let root = root.change(self, changes, &mut made).await.expect("changed");
            made.push(root.encode().0);
            for block in &made {
                assert!(dag::links_of(&block.bytes).expect("a directory").len() <= LINKS_MAX);
            }
            let pairs = made.iter().map(|block| (block.cid, block.bytes.clone()));
            self.blocks.lock().expect("whole").extend(pairs);
            // As another would read it.
            let root = Directory::decode(&made.last().expect("the root").bytes).expect("read");
            (root, made)
        }

        async fn names(&self, root: &Directory) -> Vec<String> {
            let listed = root.list(self, &Prefix::all(), None, usize::MAX).await.expect("listed");
            listed.into_iter().map(|(entry, _)| entry.name.to_string()).collect()
        }
    }

    fn object(name: &str) -> Object {
        Object { cid: Cid::of(Codec::Raw, name.as_bytes()), size: name.len() as u64 }
    }

    fn pack(number: u64) -> String {
        let digits = Cid::of(Codec::Raw, &number.to_be_bytes());
        let digits: String = digits.to_bytes()[4..].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("v/{}/p/{digits}", "ab".repeat(32))
    }

    #[tokio::test]
    async fn an_index_is_a_sorted_map_of_names() {
        // splitmix64
        let mut chance = 7_u64;
        let mut draw = |below: usize| {
            chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = chance;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % below as u64) as usize
        };
        let memory = Memory::default();
        let (mut root, mut model) = (Directory::default(), BTreeMap::new());
        for round in 0..400 {
            // It grows, then shrinks to nothing.
            let shrinks = round >= 250;
            let mut changes: BTreeMap<String, Option<Object>> = BTreeMap::new();
            for _ in 0..draw(20) + 1 {
                let there: Option<&String> = model.keys().nth(draw(model.len().max(1)));
                let name = match there {
                    Some(name) if shrinks || draw(5) == 0 => name.clone(),
                    // Few letters, so that names are beginnings of others, and 'a', 'a-b', 'a/b' lie side by side.
                    _ => {
                        let letters: String =
                            (0..draw(9) + 1).map(|_| b"ab-./0~:"[draw(6)] as char).collect();
                        letters.trim_matches(['/', '.']).replace("//", "/").replace("/.", "/")
                    }
                };
                if Name::new(name.as_str()).is_ok() {
                    changes.insert(name.clone(), (!shrinks && draw(6) > 0).then(|| object(&name)));
                }
            }
            let list = changes.iter().map(|(name, object)| (name.as_str(), *object)).collect();
            root = memory.change(root, list).await.0;
            for (name, object) in changes {
                match object {
                    Some(object) => model.insert(name, object),
                    None => model.remove(&name),
                };
            }
            if round % 10 == 0 || model.len() < 5 {
                assert_eq!(memory.names(&root).await, model.keys().cloned().collect::<Vec<_>>());
            }
            for _ in 0..5 {
                let name: String = (0..draw(4) + 1).map(|_| b"ab-./0"[draw(6)] as char).collect();
                assert_eq!(
                    root.find(&memory, &name).await.expect("looked"),
                    model.get(&name).copied(),
                    "{name}"
                );
                if let (Ok(after), limit) = (Name::new(name.as_str()), draw(5)) {
                    let listed =
                        root.list(&memory, &Prefix::all(), Some(&after), limit).await.expect("listed");
                    let listed: Vec<&str> = listed.iter().map(|(entry, _)| entry.name.as_str()).collect();
                    let from = (std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded);
                    let wanted: Vec<&String> = model.range(from).map(|(name, _)| name).take(limit).collect();
                    assert_eq!(listed, wanted, "after {after}");
                }
            }
        }
        while !model.is_empty() {
            let some: Vec<String> = model.keys().take(100).cloned().collect();
            root = memory.change(root, some.iter().map(|name| (name.as_str(), None)).collect()).await.0;
            some.iter().for_each(|name| assert!(model.remove(name).is_some()));
        }
        assert_eq!(root, Directory::default(), "nothing is left");
    }

    #[tokio::test]
    async fn a_change_costs_what_changed() {
        let memory = Memory::default();
        let names: Vec<String> = (0..100_000).map(pack).collect();
        let slots: Vec<String> =
            (0..5_000).map(|seq| format!("v/{}/m/{:016x}", "ab".repeat(32), u64::MAX - seq)).collect();
        let all = names.iter().chain(&slots).map(|name| (name.as_str(), Some(object(name)))).collect();
        let (root, _) = memory.change(Directory::default(), all).await;

        let next = pack(1 << 40);
        let before = memory.asked.load(Ordering::Relaxed);
        let (root, made) = memory.change(root, vec![(&next, Some(object(&next)))]).await;
        let asked = memory.asked.load(Ordering::Relaxed) - before;
        let bytes: usize = made.iter().map(|block| block.bytes.len()).sum();
        println!("one pack more: {} blocks asked for, {} made, {bytes} bytes", asked, made.len());
        assert!(asked <= 6 && made.len() <= 6 && bytes <= 40 << 10);

        // The newest slot is found with as few.
        let before = memory.asked.load(Ordering::Relaxed);
        let prefix = Prefix::new(format!("v/{}/m/", "ab".repeat(32))).expect("good");
        let newest = root.list(&memory, &prefix, None, 1).await.expect("listed");
        assert_eq!(newest[0].0.name.as_str(), slots[0].as_str().replace(&slots[0], &slots[4_999]));
        let asked = memory.asked.load(Ordering::Relaxed) - before;
        println!("the newest slot: {asked} blocks asked for");
        assert!(asked <= 6);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let link = |name: &str, codec| Link { cid: Cid::of(codec, b""), name: name.to_owned(), total: 300 };
        for bad in [
            vec![link("", Codec::Raw)],
            vec![link("~", Codec::DagPb)],
            vec![link("a~", Codec::Raw)],
            // No object has such a size.
            vec![link("a", Codec::DagPb)],
            vec![link("a", Codec::Raw), link("a", Codec::Raw)],
            vec![link("a/b", Codec::Raw), link("a:b", Codec::Raw)],
        ] {
            assert_eq!(Directory::decode(&dag::directory(bad.clone())), None, "{bad:?}");
        }
        assert_eq!(Directory::decode(b"text"), None);
    }
}
