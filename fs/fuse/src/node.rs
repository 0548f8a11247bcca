//! Node ids: the kernel's numbers for files, and how attributes are shown to it.
//!
//! A node id says by itself what it stands for, so the adapter keeps no table of inodes and
//! a new process could go on where another one stopped.
//!
//! ```text
//!  63                       38 37                                        0
//! |  seq (26 bits), 0 = live  |  inode number in that tree (38 bits)      |
//! ```
//!
//! Live node 2 is the virtual directory `.snapshots`; the engine leaves that number free.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_format::{FileKind, Ino, Seq, Timestamp};
use fs_volume::Attr;
use fuser::{FileAttr, FileType, INodeNo};

const INO_BITS: u32 = 38;
/// The first `seq` that no node id can hold.
pub(crate) const SEQ_END: u64 = 1 << (u64::BITS - INO_BITS);
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
    Live(Ino),
    /// The directory `.snapshots`.
    Snapshots,
    /// A file of a sealed moment.
    Past(Seq, Ino),
}

impl Node {
    /// Takes a node id apart.
    pub(crate) fn of(id: INodeNo) -> Self {
        let ino = Ino(id.0 & Ino::MAX.0);
        match id.0 >> INO_BITS {
            0 if id == SNAPSHOTS => Self::Snapshots,
            0 => Self::Live(ino),
            seq => Self::Past(Seq(seq), ino),
        }
    }

    /// The node id.
    pub(crate) fn id(self) -> INodeNo {
        match self {
            Self::Live(ino) => INodeNo(ino.0),
            Self::Snapshots => SNAPSHOTS,
            Self::Past(seq, ino) => INodeNo(seq.0 << INO_BITS | ino.0),
        }
    }

    /// The node of another inode of the same tree.
    pub(crate) fn beside(self, ino: Ino) -> Self {
        match self {
            Self::Live(_) | Self::Snapshots => Self::Live(ino),
            Self::Past(seq, _) => Self::Past(seq, ino),
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
        let nodes = [
            Node::Live(Ino::ROOT),
            Node::Live(Ino::MAX),
            Node::Snapshots,
            Node::Past(Seq(1), Ino::ROOT),
            Node::Past(Seq(SEQ_END - 1), Ino::MAX),
        ];
        for node in nodes {
            assert_eq!(Node::of(node.id()), node);
        }
        assert_eq!(Node::Live(Ino::ROOT).id(), INodeNo::ROOT);
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
