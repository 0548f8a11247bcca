//! Sequences of operations that collide often: few names, few files, sizes from nothing to several hundred
//! KiB, aligned and not.
//!
//! An operation names files by path or by the slot of an open handle, so that it still means something when
//! the operations before it are taken away; one that means nothing any more is refused by both sides alike.

use fs_format::{FileKind, Ino};
use fs_volume::{Allocate, NewNode, ReadTree, RenameMode, SetAttr, XattrMode};

use crate::stage::Rehearsal;
use crate::{Dice, Model};

/// The names that files have. The last ones are rare: as long as may be, one byte too long, not text.
pub const NAMES: [&[u8]; 9] =
    [b"a", b"b", b"c", b"d", b"e", b"\xff\xfe caf\xc3\xa9", &[b'n'; 255], &[b'n'; 256], b"f"];

/// The names that extended attributes have.
pub const XATTRS: [&[u8]; 3] = [b"user.a", b"user.b", b"trusted.overlay.opaque"];

/// The first of these are what a new file is made with.
pub const INHERITED: [(&[u8], &[u8]); 2] = [(XATTRS[0], b"inherited"), (XATTRS[1], &[7; 300])];

/// How many handles may be open.
pub const SLOTS: usize = 4;

/// A path: indices into [`NAMES`]. The empty one is the root.
pub type Path = Vec<u8>;

/// A file that an operation acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By its path.
    At(Path),
    /// By the handle in this slot.
    Held(usize),
}

/// Bytes that need no room in a list of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// What they look like.
    pub look: Look,
    /// How many.
    pub len: u32,
    /// Different bytes for different seeds.
    pub seed: u32,
}

/// What bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Random: does not compress.
    Noise,
    /// Lines of text: compresses.
    Text,
    /// Zeros: should become a hole.
    Zeros,
}

impl Bytes {
    /// The bytes themselves.
    pub fn get(&self) -> Vec<u8> {
        let mut out = vec![0; self.len as usize];
        match self.look {
            Look::Noise => Dice::seeded(u64::from(self.seed)).fill(&mut out),
            Look::Text => {
                let mut dice = Dice::seeded(u64::from(self.seed));
                for line in out.chunks_mut(32) {
                    let text = format!("line {:05} of file {:010}\n....", dice.below(100), self.seed);
                    line.copy_from_slice(&text.as_bytes()[..line.len()]);
                }
            }
            Look::Zeros => {}
        }
        out
    }
}

/// What to make; `NewNode` without the borrowed target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An empty file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link with a target of this many bytes.
    Symlink(u16),
    /// A special file.
    Special(FileKind, u32),
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of the same name of `fs_volume::Volume`")]
pub enum Op {
    Make {
        parent: Path,
        name: u8,
        what: What,
        mode: u16,
        uid: u32,
        /// How many of [`XATTRS`] it is made with.
        attributes: u8,
    },
    Link {
        from: Target,
        parent: Path,
        name: u8,
    },
    Unlink {
        parent: Path,
        name: u8,
    },
    Rmdir {
        parent: Path,
        name: u8,
    },
    Rename {
        from: Path,
        from_name: u8,
        to: Path,
        to_name: u8,
        mode: RenameMode,
    },
    SetAttr {
        target: Target,
        set: SetAttr,
    },
    SetAttrAndXattr {
        target: Target,
        set: SetAttr,
        name: u8,
        value: Option<Bytes>,
    },
    Write {
        target: Target,
        offset: u64,
        bytes: Bytes,
        kill_suid: bool,
    },
    Allocate {
        target: Target,
        offset: u64,
        len: u64,
        how: Allocate,
    },
    Clone {
        from: Target,
        from_offset: u64,
        to: Target,
        to_offset: u64,
        len: u64,
    },
    SetXattr {
        target: Target,
        name: u8,
        value: Bytes,
        how: XattrMode,
    },
    RemoveXattr {
        target: Target,
        name: u8,
    },
    Read {
        target: Target,
        offset: u64,
        len: u32,
    },
    Hold {
        target: Target,
        slot: usize,
    },
    Release {
        slot: usize,
    },
    Sync,
    FlushJournal,
    Seal {
        labelled: bool,
    },
    /// Drop some moments; which ones is chance, the newest is none of them.
    Prune {
        luck: u64,
        /// How long packs stay condemned; each opening takes an hour.
        grace_hours: u64,
    },
    /// Close everything, open the volume again, and go back to a moment.
    Rollback {
        luck: u64,
    },
    /// Close everything and open the volume again, after a sync.
    Reopen,
}

impl Op {
    /// Whether everything before it is durable when it succeeds.
    pub fn makes_durable(&self) -> bool {
        matches!(self, Self::Sync | Self::Seal { .. } | Self::Reopen)
    }
}

impl What {
    /// The engine's word for it; `target` lends the bytes of a symbolic link.
    pub fn node<'a>(&self, target: &'a [u8]) -> NewNode<'a> {
        match self {
            Self::File => NewNode::File,
            Self::Directory => NewNode::Directory,
            Self::Symlink(len) => NewNode::Symlink(&target[..usize::from(*len).min(target.len())]),
            Self::Special(kind, rdev) => NewNode::Special(*kind, *rdev),
        }
    }
}

/// How often each kind of operation comes, relative to the others.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the weight of the operations of that name")]
pub struct Weights {
    pub make: u64,
    pub link: u64,
    pub remove: u64,
    pub rename: u64,
    pub attr: u64,
    pub write: u64,
    pub allocate: u64,
    pub clone: u64,
    pub xattr: u64,
    pub read: u64,
    pub hold: u64,
    pub sync: u64,
    pub flush: u64,
    pub seal: u64,
    pub reopen: u64,
    pub prune: u64,
    pub rollback: u64,
    /// The most bytes that a write has.
    pub write_bytes_max: u64,
    /// Percentage of writes and truncations that go far out, up to a tebibyte.
    pub far: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            make: 20,
            link: 4,
            remove: 10,
            rename: 10,
            attr: 8,
            write: 30,
            allocate: 6,
            clone: 4,
            xattr: 5,
            read: 5,
            hold: 5,
            sync: 8,
            flush: 3,
            seal: 4,
            reopen: 1,
            prune: 0,
            rollback: 0,
            write_bytes_max: 300_000,
            far: 2,
        }
    }
}

/// Makes `count` operations.
pub fn generate(seed: u64, count: usize, weights: &Weights) -> Vec<Op> {
    let (dice, weights) = (Dice::seeded(seed), weights.clone());
    let mut author = Author { dice, play: Rehearsal::default(), weights };
    (0..count).map(|_| author.next()).collect()
}

/// Writes operations, and follows in a model of its own what they lead to, so that most of them find
/// something to act on.
struct Author {
    dice: Dice,
    play: Rehearsal,
    weights: Weights,
}

impl Author {
    fn next(&mut self) -> Op {
        let op = self.choose();
        self.play.perform(&op);
        op
    }

    fn choose(&mut self) -> Op {
        let w = &self.weights;
        let weights = [
            w.make, w.link, w.remove, w.rename, w.attr, w.write, w.allocate, w.clone, w.xattr, w.read,
            w.hold, w.sync, w.flush, w.seal, w.reopen, w.prune, w.rollback,
        ];
        let mut at = self.dice.below(weights.iter().sum());
        let mut kind = 0;
        while at >= weights[kind] {
            at -= weights[kind];
            kind += 1;
        }
        match kind {
            0 => self.make(),
            1 => Op::Link { from: self.file(), parent: self.dir(), name: self.name() },
            2 => self.remove(),
            3 => self.rename(),
            4 => self.set_attr(),
            5 => Op::Write {
                target: self.file(),
                offset: self.offset(),
                bytes: self.bytes(self.weights.write_bytes_max),
                kill_suid: self.dice.percent(15),
            },
            6 => self.allocate(),
            7 => Op::Clone {
                from: self.file(),
                from_offset: self.near_offset(),
                to: self.file(),
                to_offset: self.near_offset(),
                len: self.len(200_000),
            },
            8 => self.xattr(),
            9 => Op::Read { target: self.file(), offset: self.near_offset(), len: self.len(100_000) as u32 },
            10 => self.hold(),
            11 => Op::Sync,
            12 => Op::FlushJournal,
            13 => Op::Seal { labelled: self.dice.percent(40) },
            14 => Op::Reopen,
            15 => Op::Prune { luck: self.dice.next(), grace_hours: *self.dice.pick(&[0, 0, 2]) },
            _ => Op::Rollback { luck: self.dice.next() },
        }
    }

    fn make(&mut self) -> Op {
        let what = match self.dice.below(20) {
            0..=10 => What::File,
            11..=15 => What::Directory,
            16..=18 => What::Symlink(*self.dice.pick(&[1, 7, 7, 100, 4095, 4096, 0])),
            _ => match self.dice.below(4) {
                0 => What::Special(FileKind::Fifo, 0),
                1 => What::Special(FileKind::Socket, 0),
                2 => What::Special(FileKind::CharDevice, 0x0501),
                _ => What::Special(FileKind::BlockDevice, 0xfff0_0801),
            },
        };
        let mode = *self.dice.pick(&[0o644, 0o755, 0o600, 0o2775, 0o4755, 0o1777, 0]);
        let (uid, attributes) = (self.dice.below(3) as u32 * 1000, *self.dice.pick(&[0, 0, 0, 1, 2]));
        Op::Make { parent: self.dir(), name: self.name(), what, mode, uid, attributes }
    }

    fn remove(&mut self) -> Op {
        let (parent, name) = self.entry();
        let mut path = parent.clone();
        path.push(name);
        let is_dir = self.kind(&path) == Some(FileKind::Directory);
        if is_dir != self.dice.percent(5) { Op::Rmdir { parent, name } } else { Op::Unlink { parent, name } }
    }

    fn rename(&mut self) -> Op {
        let (from, from_name) = self.entry();
        let (to, to_name) = if self.dice.percent(50) { self.entry() } else { (self.dir(), self.name()) };
        let mode = match self.dice.below(10) {
            0..=5 => RenameMode::Replace,
            6 => RenameMode::NoReplace,
            7 | 8 => RenameMode::Exchange,
            _ => RenameMode::Whiteout,
        };
        Op::Rename { from, from_name, to, to_name, mode }
    }

    fn set_attr(&mut self) -> Op {
        let mut set = SetAttr::default();
        let mut target = self.any();
        match self.dice.below(6) {
            0 => set.mode = Some(self.dice.below(0o10000) as u16),
            1 => (set.uid, set.gid) = (Some(self.dice.below(9) as u32), Some(self.dice.below(9) as u32)),
            2 => set.kill_suid = true,
            _ => {
                target = self.file();
                set.size = Some(self.offset());
            }
        }
        Op::SetAttr { target, set }
    }

    fn allocate(&mut self) -> Op {
        let how = match self.dice.below(5) {
            0 => Allocate { keep_size: false, punch: false, zero: false },
            1 => Allocate { keep_size: true, punch: false, zero: false },
            2 => Allocate { keep_size: self.dice.percent(50), punch: false, zero: true },
            _ => Allocate { keep_size: true, punch: true, zero: false },
        };
        Op::Allocate { target: self.file(), offset: self.near_offset(), len: self.len(200_000), how }
    }

    fn xattr(&mut self) -> Op {
        let target = self.any();
        let name = self.dice.below(XATTRS.len() as u64) as u8;
        if self.dice.percent(30) {
            return Op::RemoveXattr { target, name };
        }
        if self.dice.percent(25) {
            let set = SetAttr { mode: Some(self.dice.below(0o10000) as u16), ..SetAttr::default() };
            let value = self.dice.percent(70).then(|| self.bytes(100));
            return Op::SetAttrAndXattr { target, set, name, value };
        }
        let how = *self.dice.pick(&[XattrMode::Set, XattrMode::Set, XattrMode::Create, XattrMode::Replace]);
        let len_max = *self.dice.pick(&[0, 20, 20, 5000, 65_537]);
        Op::SetXattr { target, name, value: self.bytes(len_max), how }
    }

    fn hold(&mut self) -> Op {
        let slot = self.dice.below(SLOTS as u64) as usize;
        if self.play.slots[slot].is_some() && self.dice.percent(60) {
            return Op::Release { slot };
        }
        Op::Hold { target: self.any(), slot }
    }

    /// A name, mostly one that collides.
    fn name(&mut self) -> u8 {
        let end = if self.dice.percent(8) { NAMES.len() } else { 5 };
        self.dice.below(end as u64) as u8
    }

    /// Every path of the model with its kind.
    fn paths(&self) -> Vec<(Path, FileKind)> {
        let mut found = vec![(Vec::new(), FileKind::Directory)];
        let mut next = 0;
        while next < found.len() {
            let (path, kind) = found[next].clone();
            next += 1;
            if kind != FileKind::Directory {
                continue;
            }
            for (i, name) in NAMES.iter().enumerate() {
                let parent = resolve(&self.play.model, &path);
                if let Some(attr) = parent.and_then(|parent| self.play.model.lookup(parent, name).ok()) {
                    let mut child = path.clone();
                    child.push(i as u8);
                    found.push((child, attr.inode.kind));
                }
            }
        }
        found
    }

    fn kind(&self, path: &[u8]) -> Option<FileKind> {
        Some(self.play.model.attr(resolve(&self.play.model, path)?).ok()?.inode.kind)
    }

    fn one_of(&mut self, wanted: impl Fn(&Path, FileKind) -> bool) -> Path {
        let mut paths = self.paths();
        paths.retain(|(path, kind)| wanted(path, *kind));
        if paths.is_empty() || self.dice.percent(3) {
            return vec![self.name()];
        }
        self.dice.pick(&paths).0.clone()
    }

    /// A directory, not too deep.
    fn dir(&mut self) -> Path {
        if self.dice.percent(35) {
            return Vec::new();
        }
        self.one_of(|path, kind| kind == FileKind::Directory && path.len() < 4)
    }

    /// Anything, mostly by its path.
    fn any(&mut self) -> Target {
        if self.dice.percent(15) {
            return Target::Held(self.dice.below(SLOTS as u64) as usize);
        }
        Target::At(self.one_of(|_, _| true))
    }

    /// A file, nearly always.
    fn file(&mut self) -> Target {
        if self.dice.percent(20) {
            return Target::Held(self.dice.below(SLOTS as u64) as usize);
        }
        let strange = self.dice.percent(3);
        Target::At(self.one_of(|_, kind| strange || kind == FileKind::File))
    }

    /// A name that is taken, with its directory.
    fn entry(&mut self) -> (Path, u8) {
        let mut path = self.one_of(|path, _| !path.is_empty());
        let name = path.pop().unwrap_or(0);
        (path, name)
    }

    fn len(&mut self, len_max: u64) -> u64 {
        match self.dice.below(10) {
            0 => self.dice.below(3),
            1..=3 => self.dice.below(len_max.min(600) + 1),
            4 | 5 => (1 + self.dice.below(8)) * 4096,
            6 | 7 => self.dice.below(len_max.min(20_000) + 1),
            8 => (1 + self.dice.below(4)) * 8192,
            _ => self.dice.below(len_max + 1),
        }
        .min(len_max)
    }

    fn near_offset(&mut self) -> u64 {
        match self.dice.below(6) {
            0 | 1 => 0,
            2 => self.dice.below(40) * 4096,
            3 => self.dice.below(5000),
            4 => self.dice.below(300_000),
            _ => (self.dice.below(10) * 4096 + self.dice.below(3)).saturating_sub(1),
        }
    }

    fn offset(&mut self) -> u64 {
        if self.dice.percent(self.weights.far) {
            return match self.dice.below(4) {
                0 => i64::MAX as u64 - self.dice.below(2000),
                _ => (1 << (22 + self.dice.below(19))) + self.dice.below(5000),
            };
        }
        self.near_offset()
    }

    fn bytes(&mut self, len_max: u64) -> Bytes {
        let look = *self.dice.pick(&[Look::Noise, Look::Noise, Look::Text, Look::Text, Look::Zeros]);
        // Few seeds: the same bytes come again, so that deduplication has something to find.
        Bytes { look, len: self.len(len_max) as u32, seed: self.dice.below(6) as u32 }
    }
}

/// The inode at a path of a model.
pub fn resolve(tree: &Model, path: &[u8]) -> Option<Ino> {
    path.iter().try_fold(Ino::ROOT, |ino, name| Some(tree.lookup(ino, NAMES[usize::from(*name)]).ok()?.ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Verdict;

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let weights = Weights::default();
        assert_eq!(generate(3, 200, &weights), generate(3, 200, &weights));
        assert_ne!(generate(3, 200, &weights), generate(4, 200, &weights));
    }

    #[test]
    fn every_kind_of_operation_comes_and_most_of_them_succeed() {
        let mut kinds = std::collections::BTreeSet::new();
        let (mut done, mut refused) = (0, 0);
        for seed in 0..20 {
            let mut play = Rehearsal::default();
            for op in generate(seed, 200, &Weights::default()) {
                kinds.insert(format!("{op:?}").split([' ', '{']).next().unwrap_or_default().to_owned());
                match play.perform(&op) {
                    Verdict::Done(_) => done += 1,
                    Verdict::Refused(_) => refused += 1,
                    Verdict::Meaningless => {}
                }
            }
        }
        assert_eq!(kinds.len(), 19, "{kinds:?}");
        assert!(done > refused * 2, "{done} succeeded, {refused} were refused");
        assert!(refused > 100, "errors are compared as well, so some must come");
    }
}
