//! Node ids: the kernel's numbers for files, and how attributes are shown to it.
//!
//! A node id says by itself what it stands for, so the adapter keeps no table of inodes and
//! a new process could go on where another one stopped.
//!
//! ```text
//!  63                       38 37                                        0
//! |  tree (26 bits)           |  inode number in that tree (38 bits)      |
//! ```
//!
//! Tree 0 is the live one, others are the moments with that `seq`. Live node 2 is the virtual directory `.snapshots`; the engine
//! leaves that number free.
//!
//! Where a tree that changes by itself begins another [era](crate::Engine::era), the same numbers mean other files. The kernel
//! must take none of them for what it has of the ones before, so the trees of later eras have numbers that none had
//! before them, from [`SEQ_END`] on, and what they stand for is noted in [`Trees`]. The root and `.snapshots` stay what they are.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_format::{FileKind, Ino, Seq, Timestamp};
use fs_volume::Attr;
use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;

const INO_BITS: u32 = 38;
/// The first tree that no node id can hold.
const TREES_END: u64 = 1 << (u64::BITS - INO_BITS);
/// The first `seq` that no node id can hold: a million trees of later eras come behind it.
pub(crate) const SEQ_END: u64 = TREES_END - (1 << 20);
/// The virtual directory of past moments.
pub(crate) const SNAPSHOTS: INodeNo = INodeNo(2);
/// Its name in the root.
pub(crate) const SNAPSHOTS_NAME: &[u8] = b".snapshots";

const BLOCK_BYTES: u32 = 4096;
/// The unit of `st_blocks`.
const SECTOR_BYTES: u64 = 512;

/// What a node id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// A file of the live tree.
    Live(Tree, Ino),
    /// The directory `.snapshots`.
    Snapshots,
    /// A file of a sealed moment.
    Past(Tree, Seq, Ino),
}

/// The tree that a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    number: u64,
    /// The era in which its inodes mean what they do; none if that is over.
    pub(crate) era: Option<u64>,
}

impl Tree {
    /// The live tree of an engine whose tree only the kernel changes, and of others at first.
    pub(crate) const LIVE: Self = Self { number: 0, era: Some(0) };
}

/// The trees of the era that is known, if it is not the first.
#[derive(Default)]
pub(crate) struct Trees {
    later: Mutex<Later>,
}

#[derive(Default)]
struct Later {
    era: u64,
    /// How many there were in the eras before, but for the first.
    before: u64,
    /// Those of this one in the order of their numbers: the live one, or a moment.
    all: Vec<Option<Seq>>,
    index: HashMap<Option<Seq>, u64>,
}

impl Trees {
    /// The live tree of an era, or that of a moment. None if the era is over, or there were too many.
    pub(crate) fn of(&self, era: u64, seq: Option<Seq>) -> Option<Tree> {
        if era == 0 {
            return Some(Tree { number: seq.map_or(0, |seq| seq.0), era: Some(0) });
        }
        let mut later = self.later.lock();
        if era > later.era {
            *later = Later { era, before: later.before + later.all.len() as u64, ..Later::default() };
        }
        if era < later.era {
            return None;
        }
        let index = match later.index.get(&seq) {
            Some(&index) => index,
            None => {
                let index = later.all.len() as u64;
                if SEQ_END + later.before + index >= TREES_END {
                    return None;
                }
                later.all.push(seq);
                later.index.insert(seq, index);
                index
            }
        };
        Some(Tree { number: SEQ_END + later.before + index, era: Some(era) })
    }

    /// Takes a node id apart. The root is that of the live tree of this era.
    pub(crate) fn node(&self, id: INodeNo, era: u64) -> Node {
        let ino = Ino(id.0 & Ino::MAX.0);
        let over = |number| Tree { number, era: None };
        match id.0 >> INO_BITS {
            0 if id == SNAPSHOTS => Node::Snapshots,
            0 if id == INodeNo::ROOT => Node::Live(self.of(era, None).unwrap_or(over(0)), ino),
            0 => Node::Live(Tree::LIVE, ino),
            number @ ..SEQ_END => Node::Past(Tree { number, era: Some(0) }, Seq(number), ino),
            number => {
                let later = self.later.lock();
                let index = (number - SEQ_END).checked_sub(later.before);
                let found = index.and_then(|index| later.all.get(usize::try_from(index).ok()?));
                let tree = Tree { number, era: Some(later.era) };
                match found {
                    Some(None) => Node::Live(tree, ino),
                    Some(Some(seq)) => Node::Past(tree, *seq, ino),
                    // Of an era that is over, whatever it was.
                    None => Node::Past(over(number), Seq(0), ino),
                }
            }
        }
    }
}

impl Node {
    /// The node id.
    pub(crate) fn id(self) -> INodeNo {
        match self {
            Self::Live(_, Ino::ROOT) => INodeNo::ROOT,
            Self::Live(tree, ino) | Self::Past(tree, _, ino) => INodeNo(tree.number << INO_BITS | ino.0),
            Self::Snapshots => SNAPSHOTS,
        }
    }

    /// The node of another inode of the same tree.
    pub(crate) fn beside(self, ino: Ino) -> Self {
        match self {
            Self::Live(tree, _) => Self::Live(tree, ino),
            Self::Snapshots => Self::Live(Tree::LIVE, ino),
            Self::Past(tree, seq, _) => Self::Past(tree, seq, ino),
        }
    }
}

/// Attributes as the kernel wants them.
pub(crate) fn file_attr(node: Node, attr: &Attr) -> FileAttr {
    let inode = &attr.inode;
    // The kernel shows its own length beside our blocks, which it remembers from before there were bytes. Without any,
    // `tar` takes a file for one hole and does not look further; its record takes some room in any case.
    let blocks_min = u64::from(inode.kind == FileKind::File);
    FileAttr {
        ino: node.id(),
        size: inode.size,
        blocks: attr.allocated.div_ceil(SECTOR_BYTES).max(blocks_min),
        atime: system_time(inode.atime),
        mtime: system_time(inode.mtime),
        ctime: system_time(inode.ctime),
        crtime: system_time(inode.btime),
        kind: file_type(inode.kind),
        perm: inode.mode & 0o7777,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// Attributes of a directory that is in no tree.
pub(crate) fn virtual_directory(node: Node, time: Timestamp) -> FileAttr {
    let time = system_time(time);
    FileAttr {
        ino: node.id(),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::Directory,
        perm: 0o555,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// A kind in the transport's words.
pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Socket => FileType::Socket,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// A time that the transport read from a request.
///
/// The kernel sends seconds `s`, rounded down, and nanoseconds `n`: `s + n`. For `s < 0`
/// fuser 0.18 makes `s − n` of them, so here the sign of `n` is turned back. What does not fit
/// is set to the nearest end.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let nanos = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => nanos(after.as_secs(), 1, after.subsec_nanos()),
        Err(before) => nanos(before.duration().as_secs(), -1, before.duration().subsec_nanos()),
    };
    Timestamp(nanos)
}

fn nanos(secs: u64, sign: i128, nanos: u32) -> i64 {
    let total = sign * i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    total.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_comes_apart_as_it_was_made() {
        let trees = Trees::default();
        let past = |seq, ino| Node::Past(trees.of(0, Some(Seq(seq))).expect("a tree"), Seq(seq), ino);
        let nodes = [
            Node::Live(Tree::LIVE, Ino::ROOT),
            Node::Live(Tree::LIVE, Ino::MAX),
            Node::Snapshots,
            past(1, Ino::ROOT),
            past(SEQ_END - 1, Ino::MAX),
        ];
        for node in nodes {
            assert_eq!(trees.node(node.id(), 0), node);
        }
        assert_eq!(Node::Live(Tree::LIVE, Ino::ROOT).id(), INodeNo::ROOT);
    }

    #[test]
    fn no_node_of_a_later_era_is_one_of_an_earlier() {
        let trees = Trees::default();
        let mut ids = std::collections::HashSet::new();
        for era in 0..4 {
            let nodes = || {
                let live = Node::Live(trees.of(era, None).expect("a tree"), Ino(17));
                let past = [7, 8].map(|seq| {
                    let tree = trees.of(era, Some(Seq(seq))).expect("a tree");
                    [Node::Past(tree, Seq(seq), Ino::ROOT), Node::Past(tree, Seq(seq), Ino(17))]
                });
                past.into_iter().flatten().chain([live])
            };
            for (node, again) in nodes().zip(nodes()) {
                assert_eq!(node, again);
                assert!(ids.insert(node.id().0), "{node:?}");
                assert_eq!(trees.node(node.id(), era), node);
            }
            let root = trees.node(INodeNo::ROOT, era);
            assert!(
                matches!(root, Node::Live(Tree { era: Some(of), .. }, Ino::ROOT) if of == era),
                "{root:?}"
            );
            assert_eq!(root.id(), INodeNo::ROOT);
        }
        // What is over is known as that.
        assert_eq!(trees.of(2, None), None);
        let old = Node::Past(Tree { number: SEQ_END, era: None }, Seq(0), Ino(17));
        assert_eq!(trees.node(old.id(), 3), old);
    }

    #[test]
    fn numbers_of_trees_come_to_an_end() {
        let trees = Trees::default();
        trees.later.lock().before = TREES_END - SEQ_END - 1;
        assert!(trees.of(1, None).is_some());
        assert_eq!(trees.of(1, Some(Seq(1))), None);
    }

    #[test]
    fn times_before_1970_survive_the_transport() {
        // The kernel says −1 s + 0.75 s; fuser hands on −1.75 s.
        let handed_on = UNIX_EPOCH - Duration::new(1, 750_000_000);
        assert_eq!(timestamp(handed_on), Timestamp(-250_000_000));
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(2, 5)), Timestamp(2_000_000_005));
        assert_eq!(system_time(Timestamp(-250_000_000)), UNIX_EPOCH - Duration::from_millis(250));
    }

    #[test]
    fn times_out_of_range_go_to_the_nearest_end() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(1 << 40)), Timestamp(i64::MAX));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1 << 40)), Timestamp(i64::MIN));
    }
}
